"""A part cut out of a graph: the nodes that some tensors need, rewired step by step into another form.

Nothing in it is assigned, so no order of execution has to be enforced and control inputs are dropped. The exceptions
are those that place a constant inside a branch or a loop: control inputs from a pivot (the Identity of a Switch) or
from the Merge of a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import DamagedError
from ..formats.nodes import Node
from .graph import Graph, node_of, output, output_of
from .operations import ASSIGNS

_LONGEST = 10_000  # redirections in a chain
SWITCHES, MERGES = ("Switch", "RefSwitch"), ("Merge", "RefMerge")


class Cut(NamedTuple):
    """The nodes that the tensors `goals` need, and no other."""

    graph: Graph
    goals: tuple[str, ...]

    def rewired(
        self, redirected: Mapping[str, str], replaced: Mapping[str, Node] | None = None, added: Iterable[Node] = ()
    ) -> Cut:
        """The cut with some tensors replaced by others wherever they are used, and some nodes replaced.

        redirected: tensor -> the tensor to take its place, which may be redirected itself. replaced: name -> the new
        node of that name, whose inputs are redirected as well. added: nodes with new names.
        Raises DamagedError if an input is not a node of the graph.
        """
        nodes = {**self.graph.nodes, **(replaced or {}), **{node.name: node for node in added}}
        goals = tuple(_target(goal, redirected) for goal in self.goals)
        kept: dict[str, Node] = {}
        waiting = [node_of(goal) for goal in goals]
        while waiting:
            name = waiting.pop()
            if name in kept:
                continue
            if name not in nodes:
                raise DamagedError(f"an input called {name} is not in the graph")
            node = nodes[name]
            inputs = tuple(_inputs(node, nodes, redirected))
            kept[name] = node if inputs == node.inputs else node._replace(inputs=inputs)
            waiting += [node_of(each) for each in inputs]
        return Cut(Graph(kept[name] for name in nodes if name in kept), goals)

    def unique(self, name: str) -> str:
        """`name`, with a number appended if the cut already has a node of that name."""
        number, made = 1, name
        while made in self.graph.nodes:
            made, number = f"{name}_{number}", number + 1
        return made


def cut(graph: Graph, goals: Iterable[str]) -> Cut:
    """The part of a graph that the tensors `goals` need."""
    return Cut(graph, tuple(output(node_of(goal), output_of(goal)) for goal in goals)).rewired({})


def unassigned(made: Cut) -> Cut:
    """The cut in which variables that are assigned on the way are only read: training updates them, such as the value
    ranges of quantisation-aware nets."""
    graph = made.graph
    return made.rewired({name: graph.inputs[name][0] for name, node in graph.nodes.items() if node.op in ASSIGNS})


def _inputs(node: Node, nodes: Mapping[str, Node], redirected: Mapping[str, str]) -> Iterable[str]:
    """The redirected data inputs of a node, and the control inputs that it must keep."""
    for each in node.inputs:
        if each[:1] != "^":
            yield _target(each.removesuffix(":0"), redirected)
        elif _is_pivot(each[1:], nodes):
            yield each


def _is_pivot(name: str, nodes: Mapping[str, Node]) -> bool:
    node = nodes.get(name)
    if node is None or node.op not in ("Identity", *MERGES):
        return False
    before = [nodes[node_of(each)].op for each in node.data_inputs if node_of(each) in nodes]
    return any(op in SWITCHES if node.op == "Identity" else "NextIteration" in op for op in before)


def _target(tensor: str, redirected: Mapping[str, str]) -> str:
    for _ in range(_LONGEST):
        if tensor not in redirected:
            return tensor
        tensor = redirected[tensor]
    raise DamagedError("tensors of the graph stand for each other in a circle")
