"""Removes dropout from a graph: a product with a randomly drawn mask, or a Select by such a mask.

    TensorFlow 0.x    x * inv(keep) * floor(keep + random)
    until 1.12        x / keep * floor(keep + random)
    from 1.13         x * (1 / keep) * cast(random >= rate)
    today             where(random >= rate, x * (1 / keep), 0)

The random numbers depend on the images only by their shape. Without dropout the value is x; its scale is removed, too.
This holds only if the mask consists of zeros and ones and the scale makes up for the zeros, so that x is the mean of
what dropout gives. Other products with random numbers (mixtures, noise, paths dropped without a scale) stay and are
refused later.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .cut import Cut
from .graph import Graph, node_of
from .operations import SHAPES, VARIABLES, is_random, is_source
from .values import Values

_MASK = 60  # most operations that make a mask
_DIVISIONS, _PRODUCTS = ("Div", "RealDiv"), ("Mul",)
_NEAR = 1e-4  # relative tolerance: rates are rounded to float32, some to float16
_NEAR_BY = 200  # nodes to look at after a placeholder


def remove(made: Cut) -> tuple[Cut, list[str]]:
    """The cut without dropout, and the names of the operations that applied the masks."""
    graph, values = made.graph, Values(made.graph)
    if not random_operations(graph):
        return made, []
    data = _data(graph)
    redirected: dict[str, str] = {}
    dropped = []
    for name, node in graph.nodes.items():
        found = _dropped(graph, name, node.op, data)
        if found is None:
            continue
        kept, mask = found
        drop = _drop(graph, values, mask)
        before, behind = _scale(graph, values, kept, data), _scale_behind(graph, values, name, data)
        if drop is None:
            continue
        if drop.makes_up():
            redirected[name] = kept
        elif before and drop.makes_up(before.factor):
            redirected[name] = before.of
        elif behind and drop.makes_up(behind.factor):
            redirected[name], redirected[behind.of] = kept, name
        else:
            continue
        dropped.append(name)
    return (made.rewired(redirected) if redirected else made), dropped


def random_operations(graph: Graph) -> list[str]:
    """The nodes that draw random numbers."""
    return [name for name, node in graph.nodes.items() if is_random(node.op)]


def is_mask(graph: Graph, tensor: str) -> bool:
    """Whether a tensor depends on random numbers and otherwise only on shapes and scalars."""
    waiting, seen, drawn = [node_of(tensor)], set(), False
    while waiting:
        name = waiting.pop()
        node = graph.nodes.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if len(seen) > _MASK:
            return False
        if node.op in SHAPES:
            continue
        if is_random(node.op):
            drawn = True
        elif is_source(node) and not _may_be_scalar(graph, name):
            return False
        waiting += [node_of(each) for each in graph.inputs[name]]
    return drawn


def _may_be_scalar(graph: Graph, name: str) -> bool:
    """Whether a placeholder may be a scalar: older files do not store its shape."""
    return graph.nodes[name].op.startswith("Placeholder") and not graph.shape(name)


def _dropped(graph: Graph, name: str, op: str, data: set[str]) -> tuple[str, str] | None:
    """The tensor whose values a node drops, and the mask; None for any other node."""
    inputs = graph.inputs[name]
    if op in _PRODUCTS and len(inputs) == 2:
        for kept, mask in (inputs, inputs[::-1]):
            if is_mask(graph, mask) and node_of(kept) in data:
                return kept, mask
    if op in ("Select", "SelectV2") and len(inputs) == 3:
        mask, kept, otherwise = inputs
        if is_mask(graph, mask) and node_of(kept) in data and node_of(otherwise) not in data:
            return kept, mask
    return None


def _data(graph: Graph) -> set[str]:
    """The nodes that depend on the values, not just the shape, of a fed or read tensor other than a scalar."""
    waiting = [
        name
        for name, node in graph.nodes.items()
        if is_source(node)
        and not is_random(node.op)
        and (len(graph.shape(name) or ()) > 0 or not node.op.startswith("Placeholder") or _is_large(graph, name))
    ]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and graph.nodes[name].op not in SHAPES:
            found.add(name)
            waiting += [use.node for use in graph.uses.get(name, ())]
    return found


def _is_large(graph: Graph, name: str) -> bool:
    """Whether a placeholder of unknown shape is more than a scalar: it reaches a convolution or a matrix product, on
    the way combined only with constants and variables."""
    waiting, seen = [name], set[str]()
    while waiting and len(seen) < _NEAR_BY:
        before = waiting.pop()
        for use in graph.uses.get(before, ()):
            if graph.nodes[use.node].op in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
                return True
            others = [tensor for tensor in graph.inputs[use.node] if node_of(tensor) != before]
            if use.node not in seen and all(_is_plain(graph, tensor) for tensor in others):
                waiting.append(use.node)
            seen.add(use.node)
    return False


def _is_plain(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a constant or a variable, possibly behind Identity or Cast."""
    name = node_of(tensor)
    for _ in range(4):
        node = graph.nodes[name]
        if node.op == "Const" or node.op in VARIABLES:
            return True
        if node.op not in ("Identity", "Cast") or not graph.inputs[name]:
            return False
        name = node_of(graph.inputs[name][0])
    return False


class _Factor(NamedTuple):
    """A scalar: its value, if the graph tells it, and the nodes that it depends on."""

    value: float | None
    made_of: frozenset[str]


class _Scaled(NamedTuple):
    """The tensor `of` scaled by a factor. If the scaling follows the dropout, `of` is the scaled tensor."""

    of: str
    factor: _Factor


class _Drop(NamedTuple):
    """A mask of zeros and ones, where `keep` is the share of ones, and the factors that the mask is multiplied by."""

    keep: _Factor
    factors: tuple[_Factor, ...]

    def makes_up(self, *others: _Factor) -> bool:
        """Whether the product of the factors, with others, is 1 / keep; if `keep` is fed, whether a factor depends on
        it."""
        factors = (*self.factors, *others)
        values = [each.value for each in factors]
        if self.keep.value is None or None in values:
            return any(each.made_of & self.keep.made_of for each in factors)
        return abs(math.prod(value for value in values if value is not None) * self.keep.value - 1) < _NEAR


def _drop(graph: Graph, values: Values, mask: str) -> _Drop | None:
    """The dropout of a mask; None if the mask does not compare uniform random numbers with a rate."""
    factors: list[_Factor] = []
    for _ in range(_MASK):
        name = node_of(mask)
        op, inputs = graph.nodes[name].op, graph.inputs[name]
        if op in ("Cast", "Identity", "Reshape", "ToFloat") and inputs:
            mask = inputs[0]
        elif op in (*_DIVISIONS, *_PRODUCTS) and len(inputs) == 2:
            mask, scale = inputs if op in _DIVISIONS or _is_drawn(graph, inputs[0]) else inputs[::-1]
            if _is_drawn(graph, scale):
                return None
            factors.append(_factor(graph, values, scale, inverse=op in _DIVISIONS))
        elif op == "Floor" and graph.op(inputs[0]) in ("Add", "AddV2"):
            first, second = graph.inputs[node_of(inputs[0])]
            share = second if _is_drawn(graph, first) else first
            return _with_share(graph, values, second if share == first else first, share, True, factors)
        elif op in ("GreaterEqual", "Greater", "Less", "LessEqual"):
            first, second = inputs
            drawn, share = (first, second) if _is_drawn(graph, first) else (second, first)
            return _with_share(graph, values, drawn, share, (drawn == first) == op.startswith("Less"), factors)
        else:
            return None
    return None


def _with_share(
    graph: Graph, values: Values, drawn: str, share: str, is_kept: bool, factors: list[_Factor]
) -> _Drop | None:
    """The dropout of random numbers and a share: the share of ones, or of zeros if not `is_kept`."""
    drawing = [graph.nodes[name].op for name in graph.upstream([drawn]) if is_random(graph.nodes[name].op)]
    if not drawing or _is_drawn(graph, share) or not all("Uniform" in op for op in drawing):
        return None
    found = _factor(graph, values, share)
    if found.value is not None:
        found = found._replace(value=found.value if is_kept else 1 - found.value)
    return _Drop(found, tuple(factors))


def _is_drawn(graph: Graph, tensor: str) -> bool:
    return any(is_random(graph.nodes[name].op) for name in graph.upstream([tensor]))


def _factor(graph: Graph, values: Values, tensor: str, *, inverse: bool = False) -> _Factor:
    found = values(tensor)
    value = float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None
    if inverse and value is not None:
        value = 1 / value if value else None
    return _Factor(value, frozenset(graph.upstream([tensor])))


def _scale(graph: Graph, values: Values, tensor: str, data: set[str]) -> _Scaled | None:
    """The tensor before it was scaled, and the factor."""
    name = node_of(tensor)
    node = graph.nodes[name]
    if node.op not in (*_DIVISIONS, *_PRODUCTS) or len(graph.inputs[name]) != 2:
        return None
    first, second = graph.inputs[name]
    for before, scale in ((first, second), (second, first)) if node.op in _PRODUCTS else ((first, second),):
        if _is_scalar(graph, values, scale, data):
            return _Scaled(before, _factor(graph, values, scale, inverse=node.op in _DIVISIONS))
    return None


def _scale_behind(graph: Graph, values: Values, name: str, data: set[str]) -> _Scaled | None:
    """The only operation that takes the dropped tensor, if it scales it: `x * mask / keep`."""
    uses = graph.uses.get(name, [])
    if len(uses) != 1 or uses[0].slot or graph.nodes[uses[0].node].op not in (*_DIVISIONS, *_PRODUCTS):
        return None
    after = uses[0].node
    scale = graph.inputs[after][1]
    if not _is_scalar(graph, values, scale, data):
        return None
    return _Scaled(after, _factor(graph, values, scale, inverse=graph.nodes[after].op in _DIVISIONS))


def _is_scalar(graph: Graph, values: Values, tensor: str, data: set[str]) -> bool:
    value = values(tensor)
    if value is not None:
        return value.size == 1 and value.dtype.kind == "f"
    if graph.shape(tensor) is not None:
        return graph.shape(tensor) == ()
    return node_of(tensor) not in data and any(is_source(graph.nodes[each]) for each in graph.upstream([tensor]))
