"""Finds what is fed to a net: images, switches between training and inference, and other scalars.

Images are a placeholder, or the output of a queue, an iterator or a decoder. An input pipeline is cut off there, since
its output is already preprocessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from ..dtypes import BY_NUMBER
from ..formats.constants import constant
from ..formats.graph_file import Function
from ..formats.nodes import Node, Shape, attribute, is_known, shape_value, type_value
from ..formats.proto import LEN, fields
from .conditions import resolve
from .cut import Cut
from .dropout import random_operations
from .dropout import remove as remove_dropout
from .graph import Graph, in_loops, node_of, output_of
from .normalisation import batch_statistics
from .operations import PIPELINE, PLACEHOLDERS, SHAPES, VARIABLES, is_random, is_source
from .values import Values

IMAGE_TYPES = ("float32", "uint8", "float16", "bfloat16", "float64", "int32", "int8")
_TYPES = {  # attribute with the element types of the outputs -> parts of operation names
    "component_types": ("QueueDequeue", "Unstage"),
    "output_types": ("IteratorGetNext",),
    "Tout": ("PyFunc",),
    "Tdense": ("Parse",),
}
_WEIGHTED = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
_LOOKING_UP = ("Gather", "GatherV2", "ResourceGather")
LEAST_SIDE = 8  # pixels; anything smaller is sensor data, not a picture
_MOST_SOURCES = 100
_MOST_FLAGS = 4  # every combination is tried


class Source(NamedTuple):
    """A tensor that is fed or read, with its type and shape by the file."""

    tensor: str
    dtype: str | None
    shape: Shape
    convolved: bool  # it leads to a convolution with no matrix product in between

    @property
    def is_image(self) -> bool:
        """Whether the rank is 4 and the number of channels, last or first, is one that pictures have."""
        last = self.shape is not None and len(self.shape) == 4 and self.shape[3] in (1, 3, 4, None)
        return last or has_channels_first(self.shape)

    @property
    def rank(self) -> tuple[bool, ...]:
        """Sort key: the larger, the more likely these are images."""
        dimensions = len(self.shape or ())
        return (
            self.is_image,
            self.convolved,
            dimensions == 4,
            self.dtype in ("float32", "uint8"),
            dimensions == 2,
        )


class Flag(NamedTuple):
    """A switch and its value for inference. `tensor` is a placeholder or, in tflearn's nets, a variable."""

    tensor: str
    value: bool | int


def has_channels_first(shape: Shape) -> bool:
    """Whether this is a shape of square pictures with channels first."""
    if shape is None or len(shape) != 4 or shape[1] not in (1, 3):
        return False
    return shape[2] == shape[3] and shape[3] not in (1, 3, 4, None)


def sides_of(shape: Shape) -> tuple[int, int] | None:
    """Height and width of images that are not square; None for square ones and for unknown sizes."""
    if shape is None or len(shape) not in (3, 4) or not is_known(shape[1:3]) or shape[1] == shape[2]:
        return None
    height, width = shape[1:3]
    assert height is not None
    assert width is not None
    return height, width


def unflattened(made: Cut, found: Source) -> Source:
    """The pictures that a source is reshaped to right away, if it is not a picture itself and not a row that could be a
    flattened square picture; else the source."""
    graph = made.graph
    uses = [use for use in graph.uses.get(node_of(found.tensor), ()) if graph.op(use.node) not in SHAPES]
    made_of = [use.node for use in uses if use.slot == 0 and graph.op(use.node) == "Reshape"]
    is_only = len(uses) == len(made_of) == 1
    behind = Source(made_of[0], found.dtype, graph.shape(made_of[0]), True) if is_only else found
    square = found.shape is not None and len(found.shape) == 2 and _is_square(found.shape[1])
    may_be = found.shape is not None and len(found.shape) < 5 and not found.is_image and not square
    large = behind.shape is not None and all(side is None or side >= LEAST_SIDE for side in behind.shape[1:3])
    return behind if may_be and large and behind.is_image else found


def _is_square(values: int | None) -> bool:
    return values is None or any(round((values / channels) ** 0.5) ** 2 * channels == values for channels in (1, 3))


def sources(made: Cut) -> list[Source]:
    """The tensors that bring data to the goals, the likeliest images first.

    Inputs of a decoder are not listed, nor tensors in a loop, where images come one by one.
    """
    graph = made.graph
    near = graph.upstream(made.goals, stop=lambda name: _ends_at(graph, name)) - in_loops(graph)
    found: dict[str, Source] = {}
    for name in graph.nodes:
        node = graph.nodes[name]
        if name not in near or node.op in VARIABLES or not is_source(node) or is_random(node.op):
            continue
        if holds_features(graph, name) or is_looked_up(graph, name):
            continue
        tensors = [use.tensor for use in graph.uses.get(name, ()) if use.node in near]
        tensors += [goal for goal in made.goals if node_of(goal) == name]
        if len(found) >= _MOST_SOURCES:
            break
        for tensor in dict.fromkeys(tensors):
            dtype = source_type(node, output_of(tensor))
            if dtype in IMAGE_TYPES and graph.shape(tensor) != ():
                found[tensor] = Source(tensor, dtype, graph.shape(tensor), _is_convolved(graph, tensor))
    return sorted(found.values(), key=lambda each: each.rank, reverse=True)


def joined_pipelines(made: Cut, found: list[Source]) -> list[Source]:
    """The sources; if they are all concatenated to one batch, as with one queue per class, only that batch."""
    graph, values = made.graph, Values(made.graph)
    parts = {each.tensor for each in found}
    if len(parts) < 2 or not all(PIPELINE.search(graph.op(tensor)) for tensor in parts):
        return found
    for name, node in graph.nodes.items():
        inputs = graph.inputs[name]
        if node.op not in ("Concat", "ConcatV2") or len(inputs) != len(parts) + 1:
            continue
        axis = values(inputs[-1] if node.op == "ConcatV2" else inputs[0])
        joins = parts <= {graph.before(tensor, ("Identity", "Cast")) for tensor in inputs}
        if joins and axis is not None and axis.size == 1 and int(axis.reshape(())) == 0:
            return [Source(name, tensor_type(graph, name), graph.shape(name), True)]
    return found


def _ends_at(graph: Graph, name: str) -> bool:
    """Whether the net begins at this node: an input pipeline, or a placeholder whose default is not part of the net."""
    op = graph.nodes[name].op
    has_default = op == "PlaceholderWithDefault" and bool(graph.shape(name))
    return PIPELINE.search(op) is not None or (has_default and not holds_features(graph, name))


def holds_features(graph: Graph, name: str) -> bool:
    """Whether a placeholder can be fed with features computed earlier, as in retrain.py: its default is the output of
    layers."""
    if graph.nodes[name].op != "PlaceholderWithDefault":
        return False
    return any(graph.nodes[each].op in _WEIGHTED for each in graph.upstream(graph.inputs[name]))


def is_looked_up(graph: Graph, name: str) -> bool:
    """Whether the values are indices into a table, like words, rather than pixels."""
    waiting, seen = [name], set[str]()
    while waiting and "int" in (graph.nodes[name].dtype() or ""):
        before = waiting.pop()
        for use in graph.uses.get(before, ()):
            op = graph.nodes[use.node].op
            if op in _LOOKING_UP and use.slot == 1:
                return True
            if op in ("Identity", "Cast", "Reshape") and use.slot == 0 and use.node not in seen:
                seen.add(use.node)
                waiting.append(use.node)
    return False


def tensor_type(graph: Graph, tensor: str) -> str:
    """The element type of any tensor by the attributes of its operation; float32 if they do not say."""
    node = graph.nodes[node_of(tensor)]
    found = source_type(node, output_of(tensor)) if is_source(node) else None
    return found or node.dtype("DstT") or node.dtype("T") or node.dtype() or "float32"


def source_type(node: Node, number: int) -> str | None:
    """The element type of an output of a source."""
    for name, starts in _TYPES.items():
        if any(start in node.op for start in starts):
            types = _list_of_types(node, name)
            if name == "Tdense":  # dense outputs follow indices, values and shapes of the sparse ones
                number -= 3 * len(_list_of_types(node, "sparse_types"))
            return types[number] if 0 <= number < len(types) else None
    if node.op.startswith("Decode"):
        return node.dtype("out_type") or node.dtype("dtype") or "uint8"
    return node.dtype()


def fed(made: Cut, tensor: str, dtype: str, shape: Shape) -> Cut:
    """The cut in which a tensor is replaced by a placeholder with the name of the operation that made it."""
    attributes = (attribute("dtype", type_value(dtype)), attribute("shape", shape_value(shape)))
    name = node_of(tensor)
    return made.rewired({} if tensor == name else {tensor: name}, {name: Node(name, "Placeholder", (), attributes)})


def decided(made: Cut, tensor: str, value: object) -> Cut:
    """The cut in which a placeholder or variable is replaced by a constant of this value."""
    import numpy as np

    name = node_of(tensor)
    node = made.graph.nodes[name]
    dtype = "bool" if isinstance(value, bool) else node.dtype() or "float32"
    return made.rewired({}, {name: constant(name, np.asarray(value, dtype))})


def flags(graph: Graph) -> list[str]:
    """Switches: fed or variable booleans, and fed integers that are only compared or cast."""
    found = []
    for name, node in graph.nodes.items():
        if node.op not in (*PLACEHOLDERS, *VARIABLES) or node.shape() not in ((), None):
            continue
        if node.dtype() == "bool":
            found.append(name)
        elif node.dtype() in ("int32", "int64") and node.op in PLACEHOLDERS:
            uses = [graph.nodes[use.node].op for use in graph.uses.get(name, ())]
            if uses and all(op in ("Cast", "Equal", "NotEqual", "Greater", "Less") for op in uses):
                found.append(name)
    return found


def inferring(made: Cut, functions: Mapping[str, Function]) -> list[Flag]:
    """The switches with the values that leave the fewest random numbers and batch statistics in the net."""
    names = flags(made.graph)[:_MOST_FLAGS]
    if not names:
        return []
    choices = []
    for values in itertools.product((False, True), repeat=len(names)):
        chosen = [Flag(name, value) for name, value in zip(names, values, strict=True)]
        choices.append((_training(_with_flags(made, chosen, functions)), chosen))
    fewest = min(count for count, _ in choices)
    return next(chosen for count, chosen in choices if count == fewest)


def _with_flags(made: Cut, chosen: list[Flag], functions: Mapping[str, Function]) -> Cut:
    """The cut with the switches set, the conditions that depend on them resolved, and dropout removed."""
    for flag in chosen:
        if flag.tensor in made.graph.nodes:
            node = made.graph.nodes[flag.tensor]
            made = decided(made, flag.tensor, flag.value if node.dtype() == "bool" else int(flag.value))
    return remove_dropout(resolve(made, functions)[0])[0]


def _training(made: Cut) -> int:
    return len(random_operations(made.graph)) + len(batch_statistics(made.graph))


def _is_convolved(graph: Graph, tensor: str) -> bool:
    """Whether a tensor reaches a convolution without passing through a matrix product."""
    waiting, seen = [use.node for use in graph.uses.get(node_of(tensor), ()) if use.tensor == tensor], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        op = graph.nodes[name].op
        if op in ("Conv2D", "DepthwiseConv2dNative"):
            return True
        if op not in ("MatMul", "Shape", "Size", "Rank"):
            waiting += [use.node for use in graph.uses.get(name, ())]
    return False


def _list_of_types(node: Node, name: str) -> list[str | None]:
    types: list[str | None] = []
    for field, wire, content in fields(node.attribute(name) or b""):
        if field == 1 and wire == LEN:
            for inner, inner_wire, each in fields(content):
                if inner == 6:
                    numbers = list(bytes(each)) if inner_wire == LEN else [each]
                    types += [BY_NUMBER[number].name if number in BY_NUMBER else None for number in numbers]
    return types
