"""Reads what a graph's savers write: variables, their names in the checkpoint, and parts of partitioned variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from ..errors import CheckpointError
from ..formats.constants import constant_value
from ..formats.proto import text
from ..formats.slices import Extents
from ..tensors import Extent
from .graph import Graph, node_of
from .operations import VARIABLES

OBJECT_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"  # suffix of TensorFlow 2's keys
_SAVES = {"SaveV2": (1, 3), "Save": (1, 2), "SaveSlices": (1, 3)}  # input with the names, first tensor
_SLICES = 2  # the input with the slice specs; Save has none
_THROUGH = ("Identity", "Slice")  # a part of a joined variable is a slice of it


class Part(NamedTuple):
    """A part of a larger tensor: the shape of the whole, and the position of the part in it."""

    whole: tuple[int, ...]
    extents: Extents


class Saved(NamedTuple):
    """A tensor that a saver writes: the node that it is read from, its name in the checkpoint, and, unless it is the
    whole tensor of that name, which part it is."""

    read_from: str
    key: str
    part: Part | None


def saved(graph: Graph) -> Iterator[Saved]:
    """Everything that the savers of a graph write, in the order of the file."""
    for name, node in graph.nodes.items():
        if node.op not in _SAVES:
            continue
        names_at, first = _SAVES[node.op]
        inputs = graph.inputs[name]
        names = _texts(graph, inputs[names_at]) if names_at < len(inputs) else []
        parts = _texts(graph, inputs[_SLICES]) if node.op != "Save" and len(inputs) > _SLICES else []
        for number, tensor in enumerate(inputs[first:]):
            if number < len(names):
                part = parse_part(parts[number]) if number < len(parts) else None
                yield Saved(_read_from(graph, tensor), names[number], part)


def parse_part(spelled: str) -> Part | None:
    """Parses a part spelled like TensorFlow's `SaveSliceInfo.spec`; None for "" (the whole tensor) and invalid text.

    >>> parse_part("10 4 0,5:-")
    Part(whole=(10, 4), extents=(Extent(start=0, length=5), Extent(start=0, length=None)))
    """
    *sides, places = spelled.split(" ")
    try:
        whole = tuple(map(int, sides))
        pairs = [(0, None) if place == "-" else tuple(map(int, place.split(","))) for place in places.split(":")]
        extents = tuple(Extent(*pair) for pair in pairs)
    except (ValueError, TypeError):
        return None
    return Part(whole, extents) if whole and len(whole) == len(extents) else None


def checkpoint_keys(graph: Graph, held: Collection[str] = ()) -> dict[str, str]:
    """Variable -> its name in a checkpoint, according to the savers; `held` are the names in the checkpoint at hand.

    A variable may be saved under several names, since a saver for evaluation restores averages. Names that the
    checkpoint has are preferred; among them the variable's own name comes first, then the savers' in their order. A
    variable saved under an object-based key is not looked up by its own name, which several variables may share.
    """
    found: dict[str, list[str]] = {}
    for each in saved(graph):
        node = graph.nodes.get(each.read_from)
        if node is not None and node.op in VARIABLES and (each.part is None or each.part.whole == node.shape()):
            found.setdefault(each.read_from, []).append(each.key)
    chosen = {}
    for name, keys in found.items():
        named = not any(key.endswith(OBJECT_KEY) for key in keys)
        ordered = [name, *keys] if name in keys else [*keys, *([name] if named else [])]
        chosen[name] = next((key for key in ordered if key in held), ordered[0])
    return chosen


def _read_from(graph: Graph, tensor: str) -> str:
    """The node that a saved tensor is read from; for a slice, the variable."""
    return node_of(graph.before(tensor, _THROUGH))


def _texts(graph: Graph, tensor: str) -> list[str]:
    node = graph.nodes.get(node_of(tensor))
    if node is None or node.op != "Const":
        return []
    try:
        values = constant_value(node)
    except CheckpointError:
        return []
    return [text(value) for value in values.reshape(-1) if isinstance(value, bytes)]
