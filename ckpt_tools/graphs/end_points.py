"""Finds end points: tensors that every path from the images to the features passes through."""

from __future__ import annotations

from ..formats.nodes import Shape
from .graph import Graph, node_of
from .operations import ACTIVATIONS, JOINING, POOLING

_KINDS = ACTIVATIONS | POOLING | JOINING


def end_points(graph: Graph, images: str, features: str) -> dict[str, Shape]:
    """Tensor -> shape, from the images to the features: activations, pooling, and joins of branches.

    If an activation follows right after a tensor, only the activation counts. The nodes are scanned in order, keeping
    the furthest use so far: if no earlier node is used beyond a node, every path passes through it.
    """
    behind = graph.downstream([node_of(images)]) & graph.upstream([features])
    order = [name for name in graph.ordered(behind) if name in behind]
    place = {name: number for number, name in enumerate(order)}
    furthest = 0
    through = []
    for number, name in enumerate(order):
        if number >= furthest:
            through.append(name)
        uses = [place[use.node] for use in graph.uses.get(name, ()) if use.node in place]
        furthest = max([furthest, *uses])
    found = [name for name in through if graph.nodes[name].op in _KINDS]
    kept = [
        name
        for name in found
        if name == features or graph.nodes[name].op in ACTIVATIONS or not _is_activated(graph, name)
    ]
    return {name: graph.shape(name) for name in kept}


def _is_activated(graph: Graph, name: str) -> bool:
    uses = graph.uses.get(name, ())
    return len(uses) == 1 and graph.nodes[uses[0].node].op in ACTIVATIONS
