"""Joins partitioned variables of `tf.get_variable(partitioner=...)`: several in the graph, one tensor in a checkpoint.

One variable of the whole shape, with its name in the checkpoint, takes their place: each part becomes a slice of it,
and where the net concatenates all parts, it takes the whole. A trained variable is saved in one piece, from which the
savers of the old graph can restore their parts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import CheckpointError
from ..formats.constants import constant
from ..formats.graph_file import GraphFile
from ..formats.nodes import Node, attribute, shape_value, shapes_value, type_value, varints
from ..formats.proto import LEN, Bytes, fields, message, number, signed, text
from ..formats.slices import check_cover, checked_shape, slice_shape
from ..tensors import Extent
from .graph import Graph, node_of
from .operations import VARIABLES
from .savers import Part, saved
from .values import Values

_COLLECTIONS = ("trainable_variables", "variables")
_FARTHEST = 8
_NAME = re.compile(r"[\w.][\w.\-/>]*", re.ASCII)  # of an operation
_JOINS = {"ConcatV2": -1, "Concat": 0}  # operation -> which of its inputs is the axis


class _Whole(NamedTuple):
    """A joined variable: its name, shape and type, and the operations of its parts in order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: Mapping[str, Part]


def joined(graph: Graph, file: GraphFile) -> Graph:
    """The graph with every variable joined that is partitioned according to the file's savers or collections. Parts
    that do not make up a whole stay as they are."""
    wholes = [_whole(graph, key, parts) for key, parts in _parts(graph, file).items()]
    nodes = dict(graph.nodes)
    for whole in wholes:
        if whole is not None:
            nodes.update(_put_together(graph, whole))
    return Graph(nodes.values()) if any(wholes) else graph


def whole_of(graph: Graph, name: str) -> str:
    """The joined variable that an operation is a part of; the operation itself if it is not a part."""
    name = node_of(name)
    return node_of(graph.inputs[name][0]) if graph.op(name) == "Slice" and graph.inputs[name] else name


def _parts(graph: Graph, file: GraphFile) -> dict[str, dict[str, Part]]:
    """Name in a checkpoint -> operation -> its part. Each operation is a part of one variable only."""
    found: dict[str, dict[str, Part]] = {}
    taken: set[str] = set()
    by_savers = ((each.key, each.read_from, each.part) for each in saved(graph) if each.part)
    for key, name, part in (*by_savers, *_in_collections(file)):
        if name not in taken and key and graph.op(name) in VARIABLES:
            taken.add(name)
            found.setdefault(key, {})[name] = part
    return found


def _in_collections(file: GraphFile) -> Iterator[tuple[str, str, Part]]:
    """Name of the whole, operation, and part, for every VariableDef { 1 variable_name, 4 save_slice_info_def
    { 1 full_name, 2 full_shape*, 3 var_offset*, 4 var_shape* } } that has slice information."""
    for data in (each for name in _COLLECTIONS for each in file.collections.get(name, ())):
        name = ""
        info: Bytes = b""
        for field, wire, content in fields(data):
            if field == 1 and wire == LEN:
                name = node_of(text(message(content, wire, "the name of a variable")))
            elif field == 4 and wire == LEN:
                info = message(content, wire, "which part a variable is")
        full_name = ""
        numbers: dict[int, list[int]] = {2: [], 3: [], 4: []}
        for field, wire, content in fields(info):
            if field == 1:
                full_name = text(message(content, wire, "the name of a variable"))
            elif field in numbers:
                numbers[field] += varints(content) if wire == LEN else [number(content, wire, "a side")]
        shape, begin, size = (list(map(signed, each)) for each in numbers.values())
        if full_name and shape and len(shape) == len(begin) == len(size):
            yield full_name, name, Part(tuple(shape), tuple(map(Extent, begin, size)))


def _whole(graph: Graph, key: str, parts: Mapping[str, Part]) -> _Whole | None:
    """The variable that the parts make up; None if they do not fit together."""
    shapes, types = {part.whole for part in parts.values()}, {graph.nodes[name].dtype() for name in parts}
    (shape, *others), (dtype, *other_types) = shapes, types
    if others or other_types or dtype is None:
        return None
    try:
        check_cover([part.extents for part in parts.values()], checked_shape(shape))
        if any(graph.nodes[name].shape() != slice_shape(part.extents, shape) for name, part in parts.items()):
            return None
    except CheckpointError:
        return None
    ordered = dict(sorted(parts.items(), key=lambda item: [extent.start for extent in item[1].extents]))
    whole = _Whole(key, shape, dtype, ordered)
    if not _NAME.fullmatch(key) or (key in graph.nodes and not _is_all(graph, key, whole)):
        first = next(iter(ordered))
        names = (f"{first}/whole_{count}" for count in itertools.count(1))
        whole = whole._replace(name=next(name for name in names if name not in graph.nodes))
    return whole


def _put_together(graph: Graph, whole: _Whole) -> dict[str, Node]:
    """The new and changed nodes: the whole, its parts, and the operations that concatenated them."""
    import numpy as np

    dtype = type_value(whole.dtype)
    made: dict[str, Node] = {}
    for name, part in whole.parts.items():
        begin = constant(f"{name}/begin", np.array([extent.start for extent in part.extents], "int64"))
        size = slice_shape(part.extents, whole.shape)
        length = constant(f"{name}/size", np.array(size, "int64"))
        attributes = (
            attribute("T", dtype),
            attribute("Index", type_value("int64")),
            attribute("_output_shapes", shapes_value([size])),
        )
        made |= {each.name: each for each in (begin, length)}
        made[name] = Node(name, "Slice", (whole.name, begin.name, length.name), attributes)
    behind = graph.downstream(whole.parts, _near(graph, whole))
    for name in behind - whole.parts.keys():
        if _is_all(graph, name, whole):
            shapes = graph.nodes[name].entries("_output_shapes")
            made[name] = Node(name, "Identity", (whole.name,), (attribute("T", dtype), *shapes))
    shape = attribute("shape", shape_value(whole.shape))
    made[whole.name] = Node(whole.name, "VariableV2", (), (attribute("dtype", dtype), shape))
    return made


def _near(graph: Graph, whole: _Whole) -> set[str]:
    """The parts, and the Identity and Concat operations that they lead to."""
    found, level = set(whole.parts), set(whole.parts)
    for _ in range(_FARTHEST):
        level = {use.node for name in level for use in graph.uses.get(name, ())} - found
        level = {name for name in level if graph.op(name) == "Identity" or graph.op(name) in _JOINS}
        found |= level
    return found


def _is_all(graph: Graph, name: str, whole: _Whole) -> bool:
    """Whether an operation gives the whole: the only part, or all parts in order, concatenated along the axis that they
    split."""
    name = _passed(graph, name)
    if name in whole.parts:
        return len(whole.parts) == 1
    inputs = graph.inputs.get(name, [])
    if graph.op(name) not in _JOINS or len(inputs) != len(whole.parts) + 1:
        return False
    at = _JOINS[graph.op(name)] % len(inputs)
    axis = Values(graph)(inputs[at])
    tensors = [each for number, each in enumerate(inputs) if number != at]
    differ = {
        axis
        for axis, length in enumerate(whole.shape)
        if any(part.extents[axis].length not in (None, length) for part in whole.parts.values())
    }
    same = [_passed(graph, each) for each in tensors] == list(whole.parts)
    if axis is None or axis.size != 1 or axis.dtype.kind != "i":
        return False
    return same and differ == {int(axis.reshape(-1)[0]) % len(whole.shape)}


def _passed(graph: Graph, tensor: str) -> str:
    """The node in front of the Identities that a tensor went through."""
    return node_of(graph.before(tensor, ["Identity"]))
