"""Shapes and slices, shared by V1 and V2: the messages, the key of a slice, and assembling tensors from slices.

A slice's key is an ordered code of (0, name, rank, start, length, start, length, ...), where a whole dimension has
start 0 and length -1 (tensorflow/core/lib/strings/ordered_code.cc)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import DamagedError, UnsupportedError
from ..tensors import BLOCK, Extent
from .proto import Bytes, fields, message, number, put_bytes, put_number, put_varint, signed

if TYPE_CHECKING:
    import numpy as np

MAX_RANK = 254  # TensorShape's limit
Extents = tuple[Extent, ...]
WHOLE: Extents = (Extent(0, None),)  # repeated by the rank, the whole tensor


def shape_sides(data: Bytes) -> list[int] | None:
    """The sizes in a TensorShapeProto { 2 dim { 1 size }, 3 unknown_rank }; None for an unknown rank."""
    sides = []
    for field, wire, value in fields(data):
        if field == 2:
            size = 0
            for inner, inner_wire, content in fields(message(value, wire, "a dimension")):
                if inner == 1:
                    size = signed(number(content, inner_wire, "the size of a dimension"))
            sides.append(size)
        elif field == 3 and value:
            return None
    if len(sides) > MAX_RANK:
        raise DamagedError(f"the shape has {len(sides)} dimensions; TensorFlow allows {MAX_RANK}")
    return sides


def parse_shape(data: Bytes) -> tuple[int, ...]:
    """The shape of a stored tensor, from a TensorShapeProto."""
    sides = shape_sides(data)
    if sides is None:
        raise DamagedError("the shape has an unknown rank, which no TensorFlow writer stores")
    return checked_shape(sides)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape. Raises DamagedError for a negative size, or for 2^63 elements or more."""
    if shape and min(shape) < 0:
        raise DamagedError(f"the shape has a negative dimension: {list(shape)}")
    if math.prod(shape) >= 1 << 63:
        raise DamagedError(f"the shape {list(shape)} has 2^63 elements or more")
    return tuple(shape)


def encode_shape(shape: Sequence[int]) -> bytes:
    return b"".join(put_bytes(2, put_number(1, size)) for size in shape)


def parse_slice(data: Bytes) -> Extents:
    """Parses a TensorSliceProto { 1 extent* { 1 start, 2 length } }; a length that is absent or -1 means all."""
    extents = []
    for field, wire, value in fields(data):
        if field != 1:
            continue
        start, length = 0, None
        for inner, inner_wire, inner_value in fields(message(value, wire, "the extent of a slice")):
            if inner == 1:
                start = signed(number(inner_value, inner_wire, "the start of a slice"))
            elif inner == 2:
                length = signed(number(inner_value, inner_wire, "the length of a slice"))
        if length == -1 and start == 0:
            length = None
        extents.append(Extent(start, length))
    return tuple(extents)


def encode_slice(extents: Extents) -> bytes:
    return b"".join(
        put_bytes(1, put_number(1, e.start) + (b"" if e.length is None else b"\x10" + put_varint(e.length)))
        for e in extents
    )


def spell(extents: Extents) -> str:
    """A slice spelled as in TensorFlow's messages.

    >>> spell((Extent(2, 1), Extent(0, None)))
    '2,1:-'
    """
    return ":".join("-" if e.length is None else f"{e.start},{e.length}" for e in extents)


def is_whole(extents: Extents) -> bool:
    """Whether a slice is written as the whole tensor: no start and no length in any dimension."""
    return all(e == (0, None) for e in extents)


def slice_shape(extents: Extents, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a slice of a tensor of `shape`. Raises DamagedError if it does not lie inside the tensor."""
    if len(extents) != len(shape):
        raise DamagedError(f"a slice has {len(extents)} dimensions, the tensor {len(shape)}")
    for extent, size in zip(extents, shape, strict=True):
        if extent.length is None:
            if extent.start:
                raise DamagedError(f"a slice starts at {extent.start} and has no length")
        elif extent.start < 0 or extent.length <= 0 or extent.start + extent.length > size:
            end = extent.start + extent.length
            raise DamagedError(f"a slice of {extent.start} to {end} does not lie in a dimension of {size}")
    return tuple(size if e.length is None else e.length for e, size in zip(extents, shape, strict=True))


def check_cover(extents: Sequence[Extents], shape: tuple[int, ...]) -> None:
    """Raises DamagedError unless the slices cover every element of a tensor of `shape` exactly once.

    Slices along a single axis are compared one by one. Others are marked on the grid of all their borders, which has at
    most as many cells as the tensor has elements, so that the work is bounded by the file's size.
    """
    ranges = [
        tuple((e.start, e.start + n) for e, n in zip(part, slice_shape(part, shape), strict=True)) for part in extents
    ]
    if len(set(ranges)) != len(ranges):
        raise DamagedError("a slice is listed twice")
    covered = sum(math.prod(b - a for a, b in part) for part in ranges)
    if covered != math.prod(shape):
        raise DamagedError(f"the slices hold {covered:,} of the {math.prod(shape):,} elements")
    varying = [axis for axis in range(len(shape)) if len({part[axis] for part in ranges}) > 1]
    if len(varying) <= 1:  # parts along one axis with the right total size must be adjacent when sorted
        ordered = sorted(part[varying[0]] for part in ranges) if varying else []
        if any(before[1] != after[0] for before, after in zip(ordered, ordered[1:], strict=False)):
            raise DamagedError("the slices overlap")
        return
    _check_grid(ranges, varying)


def _check_grid(ranges: Sequence[tuple[tuple[int, int], ...]], varying: Sequence[int]) -> None:
    import numpy as np

    cuts = [sorted({border for part in ranges for border in part[axis]}) for axis in varying]
    cells = math.prod(len(axis_cuts) - 1 for axis_cuts in cuts)
    if cells > 1 << 24 or len(varying) > 32:
        raise UnsupportedError(f"{len(ranges):,} slices cut the tensor in a grid of {cells:,} cells")
    number_of = [{border: i for i, border in enumerate(axis_cuts)} for axis_cuts in cuts]
    seen = np.zeros([len(axis_cuts) - 1 for axis_cuts in cuts], bool)
    for part in ranges:
        where = tuple(
            slice(numbers[part[axis][0]], numbers[part[axis][1]])
            for axis, numbers in zip(varying, number_of, strict=True)
        )
        if seen[where].any():
            raise DamagedError("the slices overlap")
        seen[where] = True


def assemble(parts: Sequence[tuple[Extents, np.ndarray]], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The whole tensor from its slices, which `check_cover` has checked."""
    return _rows(parts, 0, shape, dtype)


def bands(parts: Sequence[tuple[Extents, np.ndarray]], shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """The result of `assemble` in flat pieces of some rows each, so that only the slices are in memory as a whole."""
    step = max(BLOCK * shape[0] // (math.prod(shape) * dtype.itemsize), 1)
    for start in range(0, shape[0], step):
        yield _rows(parts, start, (min(step, shape[0] - start), *shape[1:]), dtype).reshape(-1)


def _rows(
    parts: Sequence[tuple[Extents, np.ndarray]], first: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """An array of `shape` filled from the slices with the rows from `first` on."""
    import numpy as np

    rows = np.empty(shape, dtype)
    for extents, part in parts:
        where = [slice(None) if e.length is None else slice(e.start, e.start + e.length) for e in extents]
        if where:
            start, stop = (extents[0].start, extents[0].start + len(part))
            low, high = max(start, first), min(stop, first + len(rows))
            if low >= high:
                continue
            where[0], part = slice(low - first, high - first), part[low - start : high - start]
        rows[tuple(where)] = part
    return rows


def slice_key(name: bytes, extents: Extents) -> bytes:
    """The key under which a slice is stored.

    >>> slice_key(b"s", (Extent(2, 1), Extent(0, None))).hex(" ")
    '00 73 00 01 01 02 82 81 80 7f'
    """
    out = [b"\0", _ordered_string(name), _ordered_unsigned(len(extents))]
    for extent in extents:
        out.append(_ordered_signed(extent.start))
        out.append(_ordered_signed(-1 if extent.length is None else extent.length))
    return b"".join(out)


@lru_cache(maxsize=8)
def _ordered_string(value: bytes) -> bytes:
    """
    >>> _ordered_string(b"nul\\0\\xffx").hex(" ")
    '6e 75 6c 00 ff ff 00 78 00 01'
    """
    if b"\0" in value:
        value = value.decode("latin-1").translate({0: "\0\xff", 255: "\xff\0"}).encode("latin-1")
    else:
        value = value.replace(b"\xff", b"\xff\0")
    return value + b"\0\1"


def _ordered_unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes((size,)) + value.to_bytes(size, "big")


def _ordered_signed(value: int) -> bytes:
    """
    >>> [_ordered_signed(v).hex() for v in (0, 1, 63, 64, 8192, 2**55, -1)]
    ['80', '81', 'bf', 'c040', 'e02000', 'ff8080000000000000', '7f']
    """
    magnitude = value if value >= 0 else ~value
    size = magnitude.bit_length() // 7 + 1
    mask = ((1 << size) - 1) << (size * 8 - size)
    return ((value & ((1 << size * 8) - 1)) ^ mask).to_bytes(size, "big")
