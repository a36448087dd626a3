"""Removes conditions whose predicate is known: the other branch is dead, and so is everything that depends on it.

    Switch(data, predicate) -> false, true      Merge(inputs) -> the only live one, number of it

In TensorFlow 1 a constant inside a branch has a control input from the branch's pivot, an Identity of a Switch.
Conditions of loops are unknown and stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..formats.graph_file import Function
from ..formats.nodes import Node
from .cut import MERGES, SWITCHES, Cut
from .graph import Graph, node_of, output, output_of
from .inlining import BRANCHES, CONDITIONS, body_of, inlined
from .values import Values
from .variables import plain

_COPYING = ("Identity", "Reshape", *SWITCHES)  # these pass a predicate on
_ROUNDS = 50  # conditions inside each other
_NEW = 1 << 30  # graph version for function bodies: later than those that did not store shapes of placeholders


def resolve(made: Cut, functions: Mapping[str, Function]) -> tuple[Cut, int]:
    """The cut without the conditions that can be decided, and how many predicates decided them.

    `functions` is the graph's function library, where TensorFlow 2 keeps the branches.
    """
    predicates: set[str] = set()
    for _ in range(_ROUNDS):
        redirected, decided = _redirections(made.graph)
        branches, nodes, more = _branches(made.graph, functions)
        if not redirected and not branches:
            break
        predicates |= decided | more
        made = made.rewired({**redirected, **branches}, added=nodes)
    return made, len(predicates)


def _branches(graph: Graph, functions: Mapping[str, Function]) -> tuple[dict[str, str], list[Node], set[str]]:
    """Output of a condition -> tensor of the branch taken, the nodes of those branches, and the predicates."""
    values = Values(graph)
    redirected: dict[str, str] = {}
    added: list[Node] = []
    decided = set()
    for name, node in graph.nodes.items():
        value = values(graph.inputs[name][0]) if node.op in CONDITIONS and graph.inputs[name] else None
        if value is None or value.size != 1:
            continue
        branch = functions.get(node.function(BRANCHES[bool(value.reshape(()))]))
        body = body_of(node, branch, graph.inputs[name][1:]) if branch else None
        if body is not None:
            added += plain(inlined(body[0], functions), _NEW)
            redirected |= body[1]
            decided.add(graph.before(graph.inputs[name][0], _COPYING))
    return redirected, added, decided


def _redirections(graph: Graph) -> tuple[dict[str, str], set[str]]:
    switches = [name for name, node in graph.nodes.items() if node.op in SWITCHES and len(graph.inputs[name]) > 1]
    values = Values(graph)
    chosen: dict[str, int] = {}
    for name in switches:
        value = values(graph.inputs[name][1])
        if value is not None and value.size == 1:
            chosen[name] = int(bool(value.reshape(())))
    redirected, decided = _selections(graph, values)
    if not chosen:
        return redirected, decided
    dead = _Dead(graph, chosen)
    for name, node in graph.nodes.items():
        if name in chosen:
            redirected[output(name, chosen[name])] = graph.inputs[name][0]
            decided.add(graph.before(graph.inputs[name][1], _COPYING))
        elif node.op in MERGES:
            live = [tensor for tensor in graph.inputs[name] if not dead(tensor)]
            if len(live) == 1 and len(graph.inputs[name]) > 1:
                redirected[name] = live[0]
    return redirected, decided


def _selections(graph: Graph, values: Values) -> tuple[dict[str, str], set[str]]:
    """Select -> the tensor it selects, where its predicate is known, and the predicates. Batch norms of TensorFlow
    1.4's tf.layers use such Selects."""
    redirected, decided = {}, set()
    for name, node in graph.nodes.items():
        if node.op in ("Select", "SelectV2") and len(graph.inputs[name]) > 2:
            switch, yes, no = graph.inputs[name][:3]
            value = values(switch)
            if value is not None and value.size == 1 and (node.op == "Select" or value.shape == ()):
                redirected[name] = yes if value.reshape(()) else no
                decided.add(graph.before(switch, _COPYING))
    return redirected, decided


class _Dead:
    """Tells whether a tensor is never computed, given the output that each Switch in `chosen` takes."""

    def __init__(self, graph: Graph, chosen: dict[str, int]) -> None:
        self.graph = graph
        self.chosen = chosen
        self.known: dict[str, bool] = {}

    def __call__(self, tensor: str) -> bool:
        self._find(node_of(tensor))
        return self._tensor(tensor)

    def _tensor(self, tensor: str) -> bool:
        name = node_of(tensor)
        return self.known.get(name, False) or self.chosen.get(name, output_of(tensor)) != output_of(tensor)

    def _find(self, name: str) -> None:
        waiting, entered = [name], set()
        while waiting:
            name = waiting[-1]
            if name in self.known or name not in self.graph.nodes:
                waiting.pop()
                continue
            inputs = [*self.graph.inputs[name], *self.graph.controls(name)]
            unknown = [node_of(each) for each in inputs if node_of(each) not in self.known]
            if name not in entered and unknown:
                entered.add(name)
                waiting += [each for each in unknown if each not in entered]
                continue
            verdict = all if self.graph.nodes[name].op in MERGES else any
            self.known[name] = bool(inputs) and verdict(map(self._tensor, inputs))
            waiting.pop()
