"""Reads the initial values of a graph's variables from the assignments that initialize them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from ..errors import CheckpointError
from ..formats.constants import constant_value
from .graph import Graph, node_of
from .partitions import whole_of

_ASSIGNS = ("Assign", "AssignVariableOp")
_RANDOM = {"TruncatedNormal": "truncated_normal", "RandomStandardNormal": "normal", "RandomUniform": "uniform"}
_ADDS = ("Add", "AddV2")


class Initializer(NamedTuple):
    """The distribution of a variable's initial values: "constant" with the value, "truncated_normal" and "normal" with
    mean and standard deviation, "uniform" with lower and upper bound."""

    kind: str
    first: float
    second: float = 0.0


def initializers(graph: Graph, variables: Collection[str]) -> dict[str, Initializer]:
    """Variable -> its initializer, for variables whose initializer has a form known here."""
    found: dict[str, Initializer | None] = {}
    for name, node in graph.nodes.items():
        inputs = graph.inputs[name]
        if node.op in _ASSIGNS and len(inputs) > 1 and (of := whole_of(graph, inputs[0])) in variables:
            found.setdefault(of, _of(graph, inputs[1]))  # assignments by a saver come later
    return {name: each for name, each in found.items() if each is not None}


def _of(graph: Graph, tensor: str) -> Initializer | None:
    tensor = graph.before(tensor, ["Identity"])
    op, inputs = graph.op(tensor), graph.inputs.get(node_of(tensor), [])
    value = _number(graph, inputs[1] if op == "Fill" and len(inputs) > 1 else tensor)
    if value is not None:
        return Initializer("constant", value)
    if op not in _ADDS or len(inputs) != 2 or graph.op(inputs[0]) != "Mul":
        return None
    drawn, *factor = graph.inputs[node_of(inputs[0])]
    kind = _RANDOM.get(graph.op(drawn))
    scale, offset = _number(graph, factor[0]) if factor else None, _number(graph, inputs[1])
    if kind is None or scale is None or offset is None:
        return None
    return Initializer(kind, offset, offset + scale if kind == "uniform" else scale)


def _number(graph: Graph, tensor: str) -> float | None:
    """The number that a constant holds everywhere, or the difference of two such constants; else None."""
    node, inputs = graph.nodes.get(node_of(tensor)), graph.inputs.get(node_of(tensor), [])
    if node is not None and node.op == "Sub" and len(inputs) == 2:
        low, high = (_number(graph, each) if graph.op(each) == "Const" else None for each in (inputs[1], inputs[0]))
        return None if low is None or high is None else high - low
    if node is None or node.op != "Const":
        return None
    try:
        values = constant_value(node)
    except CheckpointError:
        return None
    if values.dtype.kind not in "fiu" or not values.size or (values != values.flat[0]).any():
        return None
    return float(values.flat[0]) if math.isfinite(values.flat[0]) else None
