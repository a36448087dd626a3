"""Dropout is taken out of a graph: a product with a mask that is drawn at random, or a choice by such a mask.

    TensorFlow 0.x    x * inv(keep) * floor(keep + random)
    until 1.12        x / keep * floor(keep + random)
    from 1.13         x * (1 / keep) * cast(random >= rate)
    today             where(random >= rate, x * (1 / keep), 0)

What is drawn knows the images by their shape alone. The value without dropout is x: what scales it goes, too.
"""

from __future__ import annotations

from .cut import Cut
from .graph import Graph, node_of
from .operations import SHAPES, VARIABLES, is_random, is_source
from .values import Values

_MASK = 60  # operations that a mask is made of, at most
_DIVISIONS, _PRODUCTS = ("Div", "RealDiv"), ("Mul",)
_NEAR = 1e-6
_NEAR_BY = 200  # nodes behind a placeholder


def remove(made: Cut) -> tuple[Cut, list[str]]:
    """The cut without dropout, and the names of the operations that dropped something."""
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
        redirected[name] = _unscaled(graph, values, kept, data)
        if behind := _scaled_behind(graph, values, name, mask, data):
            redirected[behind] = name
        dropped.append(name)
    return (made.rewired(redirected) if redirected else made), dropped


def random_operations(graph: Graph) -> list[str]:
    """The nodes that draw random numbers."""
    return [name for name, node in graph.nodes.items() if is_random(node.op)]


def is_mask(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is made of random numbers and of nothing else but shapes and scalars."""
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
    """Whether what is fed may be a scalar: older files do not say the shape of such a placeholder."""
    return graph.nodes[name].op.startswith("Placeholder") and not graph.shape(name)


def _dropped(graph: Graph, name: str, op: str, data: set[str]) -> tuple[str, str] | None:
    """The tensor that a node drops values of, and the mask; None for any other node."""
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
    """The nodes that depend on what is fed or read, but for scalars, and by more than its shape."""
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
    """Whether a placeholder of unknown shape is more than a scalar: it comes to a convolution or a matrix product
    before it is put together with something else that is no constant."""
    waiting, seen = [name], set()
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
    """Whether a tensor is a constant or a variable, as it is or read."""
    name = node_of(tensor)
    for _ in range(4):
        node = graph.nodes[name]
        if node.op == "Const" or node.op in VARIABLES:
            return True
        if node.op not in ("Identity", "Cast") or not graph.inputs[name]:
            return False
        name = node_of(graph.inputs[name][0])
    return False


def _unscaled(graph: Graph, values: Values, tensor: str, data: set[str]) -> str:
    """The tensor before it was divided by the share that is kept."""
    name = node_of(tensor)
    node = graph.nodes[name]
    if node.op not in (*_DIVISIONS, *_PRODUCTS) or len(graph.inputs[name]) != 2:
        return tensor
    first, second = graph.inputs[name]
    for before, scale in ((first, second), (second, first)) if node.op in _PRODUCTS else ((first, second),):
        if _is_scalar(graph, values, scale, data):
            value = values(scale)
            if value is None or (float(value) >= 1 if node.op in _PRODUCTS else 0 < float(value) <= 1):
                return before
    return tensor


def _scaled_behind(graph: Graph, values: Values, name: str, mask: str, data: set[str]) -> str | None:
    """The only user of what was dropped, where it divides by the same share: `x * mask / keep`."""
    uses = graph.uses.get(name, [])
    if len(uses) != 1 or uses[0].slot or graph.nodes[uses[0].node].op not in (*_DIVISIONS, *_PRODUCTS):
        return None
    after = uses[0].node
    scale = graph.inputs[after][1]
    if not _is_scalar(graph, values, scale, data):
        return None
    made_of = graph.upstream([mask])
    value = values(scale)
    if value is None:
        return after if graph.upstream([scale]) & made_of else None
    share = float(value) if graph.nodes[after].op in _DIVISIONS else 1 / float(value) if float(value) else 0
    known = [float(found) for each in made_of if (found := values(each)) is not None and found.size == 1]
    return after if any(abs(share - wanted) < _NEAR for each in known for wanted in (each, 1 - each)) else None


def _is_scalar(graph: Graph, values: Values, tensor: str, data: set[str]) -> bool:
    value = values(tensor)
    if value is not None:
        return value.size == 1 and value.dtype.kind == "f"
    if graph.shape(tensor) is not None:
        return graph.shape(tensor) == ()
    return node_of(tensor) not in data and any(is_source(graph.nodes[each]) for each in graph.upstream([tensor]))
