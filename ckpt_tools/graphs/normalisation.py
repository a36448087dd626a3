"""Switches batch norms that were built for training to their moving averages.

A fused batch norm has the attribute `is_training`; its averages are found by following the batch statistics, its second
and third output, to the operations that assign them. A batch norm written out in basic operations contains a mean over
axis 0 of a varying tensor: the variable it is assigned to, found in the same way, takes its place in the net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..formats.constants import constant
from ..formats.nodes import Node, truth_value
from ..kinds import AVERAGE
from .cut import Cut
from .graph import Graph, Use, in_loops, node_of, output
from .layers import Layers
from .operations import ASSIGNS, NORMALISING, VARIABLES
from .values import Values

_CARRIED = {
    *("Squeeze", "Identity", "Reshape", "Cast", "Sub", "Mul", "Add", "AddV2", "Merge", "Switch", "Select", "SelectV2"),
    *("RefSwitch", "RefMerge"),
}
_FARTHEST = 8  # operations from a statistic to its assignment
_ROUNDS = 4
_MOST_USES = 200  # of a statistic
_BIASED = re.compile(r"(.*)/biased(_\d+)?", re.DOTALL)  # moving_averages.py repeats the variable's scope


def freeze(made: Cut, whole: Graph) -> tuple[Cut, list[str]]:
    """The cut with its batch norms using their averages, and the names of those that were changed.

    `whole` is the graph that the cut was made from, in which the averages are assigned. A batch norm without averages
    stays as it is; `batch_statistics` still finds it.
    """
    made, changed = _freeze_fused(made, whole)
    for _ in range(_ROUNDS):
        made, names = _freeze_spelled(made, whole)
        changed += names
        if not names:
            break
    return made, list(dict.fromkeys(changed))


def batch_statistics(graph: Graph) -> list[str]:
    """Means and sums over axis 0 of varying tensors, and fused batch norms in training mode.

    Loops are left out, since axis 0 there is an axis of one image.
    """
    values, varying = Values(graph), Layers(graph).varying - in_loops(graph)
    found = [name for name, node in graph.nodes.items() if NORMALISING.search(node.op) and _trains(node)]
    for name, node in graph.nodes.items():
        if node.op in ("Mean", "Sum") and name in varying and len(graph.inputs[name]) == 2:
            data, axes = graph.inputs[name]
            rank = len(graph.shape(data) or ()) or None
            chosen = values(axes)
            if node_of(data) in varying and chosen is not None:
                first = [axis for axis in chosen.reshape(-1).tolist() if axis == 0 or (rank and axis == -rank)]
                found += [name] if first else []
    return found


def _trains(node: Node) -> bool:
    return node.truth("is_training", True)


def _freeze_fused(made: Cut, whole: Graph) -> tuple[Cut, list[str]]:
    replaced: dict[str, Node] = {}
    added: dict[str, Node] = {}
    for name, node in made.graph.nodes.items():
        if not NORMALISING.search(node.op) or not _trains(node) or len(made.graph.inputs[name]) < 5:
            continue
        assigns = [assigned(whole, output(name, number))[0] for number in (1, 2)]
        averages = [each for each in assigns if each is not None]
        if len(averages) < len(assigns):
            averages = _beside(whole, name) or []
        if averages:
            inputs = (*made.graph.inputs[name][:3], *averages)
            replaced[name] = node._replace(inputs=inputs).with_attribute("is_training", truth_value(False))
            added |= {each: whole.nodes[each] for each in averages}
    return made.rewired({}, replaced, added.values()), list(replaced)


def _beside(whole: Graph, name: str) -> list[str] | None:
    """The moving mean and variance in the same scope as the gamma or beta of a batch norm."""
    for tensor in whole.inputs[name][1:3]:
        variable = _variable(whole, tensor)
        names = [f"{(variable or '').rpartition('/')[0]}/moving_{what}" for what in ("mean", "variance")]
        if variable and all(each in whole.nodes and whole.nodes[each].op in VARIABLES for each in names):
            return names
    return None


def _freeze_spelled(made: Cut, whole: Graph) -> tuple[Cut, list[str]]:
    """One round: for each statistic, the average replaces the last tensor on its path that the net uses."""
    graph = made.graph
    redirected: dict[str, str] = {}
    added: dict[str, Node] = {}
    changed = []
    for name in batch_statistics(graph):
        if NORMALISING.search(graph.nodes[name].op):
            continue
        average, path = assigned(whole, name)
        if average is None:
            continue
        own = {node_of(each) for each in path}
        used = [each for each in path if any(use.node not in own for use in _uses(graph, each))]
        if used:
            read, more = _shaped_as(made, whole, average, used[-1])
            redirected[used[-1]] = read
            changed.append(average.rpartition("/")[0].partition("/moments")[0] or average)
            added |= {**more, average: whole.nodes[average]}
    return made.rewired(redirected, added=added.values()), changed


def _uses(graph: Graph, tensor: str) -> list[Use]:
    return [use for use in graph.uses.get(node_of(tensor), ()) if use.tensor == tensor]


def _shaped_as(made: Cut, whole: Graph, average: str, statistic: str) -> tuple[str, Mapping[str, Node]]:
    """The average reshaped to the statistic's shape, which may have kept dimensions of size 1."""
    import numpy as np

    shape = whole.shape(statistic)
    own = whole.nodes[average].shape()
    if shape is None or own is None or None in shape or shape == own:
        return average, {}
    name = made.unique(f"{average}/as_statistic")
    sides = constant(f"{name}/shape", np.array(shape, "int32"))
    return name, {sides.name: sides, name: Node(name, "Reshape", (average, sides.name))}


def assigned(whole: Graph, tensor: str) -> tuple[str | None, list[str]]:
    """The variable that a batch statistic is assigned to, and the tensors on the way there, the statistic first."""
    came: dict[str, str] = {tensor: ""}
    level = [tensor]
    for _ in range(_FARTHEST if len(_uses(whole, tensor)) < _MOST_USES else 0):
        after: list[str] = []
        for each in level:
            for use in _uses(whole, each):
                node = whole.nodes[use.node]
                if node.op in ASSIGNS and use.slot:
                    variable = _variable(whole, whole.inputs[use.node][0])
                    if variable:
                        return _average_of_copy(whole, variable, each), _path(came, each)
                elif node.op in _CARRIED and use.node not in came:
                    for made in (use.node, f"{use.node}:1") if "Switch" in node.op else (use.node,):
                        came[made] = each
                        after.append(made)
        level = after[:_MOST_USES]
    return None, []


def _average_of_copy(whole: Graph, variable: str, assigned: str) -> str:
    """The moving average of a variable that merely holds the last batch's statistic; else the variable itself, which is
    updated from its old value."""
    average = f"{variable}{AVERAGE}"
    is_copy = average in whole.nodes and variable not in whole.upstream([assigned])
    return average if is_copy and whole.nodes[average].op in VARIABLES else variable


def _path(came: Mapping[str, str], tensor: str) -> list[str]:
    path = [tensor]
    while came[path[-1]]:
        path.append(came[path[-1]])
    return path[::-1]


def _variable(whole: Graph, tensor: str) -> str | None:
    """The variable that a tensor refers to; for a `biased` helper variable of zero debiasing, the average itself."""
    name = node_of(tensor)
    for _ in range(_FARTHEST):
        node = whole.nodes.get(name)
        if node is None or node.op in VARIABLES or not whole.inputs[name]:
            break
        name = node_of(whole.inputs[name][0])
    if name not in whole.nodes or whole.nodes[name].op not in VARIABLES:
        return None
    biased = _BIASED.fullmatch(name)
    if biased:
        parts = biased[1].split("/")
        ends = ["/".join(parts[depth:]) for depth in range(len(parts))]
        return next((each for each in ends if each in whole.nodes and whole.nodes[each].op in VARIABLES), None)
    return name
