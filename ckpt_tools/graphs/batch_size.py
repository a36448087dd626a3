"""Frees a net that was built for batches of a fixed size, or for one image, to take any number of images.

The placeholder takes batches of any size, and each Reshape to a shape that begins with the old size begins with -1.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from ..formats.constants import constant
from ..formats.nodes import Node, Shape, is_known
from .cut import Cut
from .graph import Graph
from .layers import Layers
from .operations import SAME_VALUES
from .sources import fed
from .values import Values

_DIVIDING = {"Split": (0, 1), "SplitV": (2, 0)}  # operation -> which inputs are the axis and the data
_ROW_BY_ROW = SAME_VALUES | {"Add", "AddV2", "Sub", "Mul", "Div", "RealDiv"}


def free(made: Cut, images: str, dtype: str, shape: Shape) -> tuple[Cut, list[str], list[str]]:
    """The cut with a placeholder for any number of images, the operations that were freed, and those that could not be.

    `images` is a node; `shape` is the shape of the images, [batch, ...], or None if it is unknown.
    """
    import numpy as np

    made, parts = _undivided(made, images)
    batch = shape[0] if shape else None
    freed, stuck = [*parts], []
    if batch is not None:
        replaced: dict[str, Node] = {}
        added: dict[str, Node] = {}
        batches = {batch, *(batch // count for count in parts.values() if batch > count)}
        for name, wanted in _reshaped(made.graph, images, batches):
            sides = _without_batch(made.graph, name, wanted)
            if sides is None:
                stuck.append(name)
                continue
            made_shape = constant(made.unique(f"{name}/any_batch"), np.array(sides, "int32"))
            node = made.graph.nodes[name]
            replaced[name] = node._replace(inputs=(node.inputs[0], made_shape.name)).with_attribute("Tshape", None)
            added[made_shape.name] = made_shape
            freed.append(name)
        made = made.rewired({}, replaced, added.values())
    return fed(made, images, dtype, (None, *shape[1:]) if shape else None), freed, stuck


def _undivided(made: Cut, images: str) -> tuple[Cut, dict[str, int]]:
    """The cut in which a tower that took one part of each batch takes all images; and the operations that split the
    batches -> the number of parts."""
    graph, values = made.graph, Values(made.graph)
    behind = graph.downstream([images])
    redirected: dict[str, str] = {}
    found: dict[str, int] = {}
    for name in (each for each in graph.nodes if each in behind and graph.op(each) in _DIVIDING):
        axis_at, data_at = _DIVIDING[graph.op(name)]
        axis, taken = values(graph.inputs[name][axis_at]), {use.tensor for use in graph.uses.get(name, ())}
        front = (graph.upstream(graph.inputs[name][data_at : data_at + 1]) & behind) - {images}
        if axis is None or axis.reshape(-1).tolist() != [0] or len(taken) != 1:
            continue
        if all(graph.op(each) in _ROW_BY_ROW for each in front):
            redirected[taken.pop()] = graph.inputs[name][data_at]
            found[name] = max(graph.nodes[name].number("num_split"), 1)
    return (made.rewired(redirected) if redirected else made), found


def _reshaped(graph: Graph, images: str, batches: Collection[int]) -> list[tuple[str, list[int]]]:
    """Reshapes after the images whose target shape is known and begins with the batch size or a multiple of it."""
    values = Values(graph)
    behind = graph.downstream([images])
    found = []
    for name, node in graph.nodes.items():
        if node.op != "Reshape" or name not in behind or len(graph.inputs[name]) < 2:
            continue
        wanted = values(graph.inputs[name][1])
        if wanted is not None and wanted.ndim == 1 and wanted.size:
            sides = [int(side) for side in wanted]
            if any(sides[0] == batch or (batch > 1 and sides[0] > 0 and sides[0] % batch == 0) for batch in batches):
                found.append((name, sides))
    return found


def _without_batch(graph: Graph, name: str, sides: list[int]) -> list[int] | None:
    """The shape with -1 in front. Any other -1 becomes the size it stands for; None if that is unknown."""
    rest = sides[1:]
    if -1 not in rest:
        return [-1, *rest]
    before = graph.shape(graph.inputs[name][0])
    known = math.prod(side for side in rest if side != -1)
    an_image = before[1:] if before else None
    if is_known(an_image) and known and math.prod(an_image) % known == 0:
        size: int | None = math.prod(an_image) // known
    else:
        size = _taken_by_layer(graph, name) if rest == [-1] else None
    return None if size is None else [-1, *(size if side == -1 else side for side in rest)]


def _taken_by_layer(graph: Graph, name: str) -> int | None:
    """The number of inputs of the matrix product that takes a reshaped tensor."""
    layers = Layers(graph)
    for use in graph.uses.get(name, ()):
        if use.node in layers.found and layers.found[use.node].data == name:
            return layers.found[use.node].inputs
    return None
