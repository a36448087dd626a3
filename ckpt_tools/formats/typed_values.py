"""The values of a V1 file: typed, packed fields of a TensorProto <-> numpy arrays.

A V1 tensor has no raw bytes: floats take 4 bytes each in `float_val`, and integers are varints; negative ones are
sign-extended to 10 bytes whatever their type (tensorflow/core/util/saved_tensor_slice_util.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dtypes import numpy_dtype
from ..errors import DamagedError
from ..tensors import Spec, Tensor, check_array, pieces
from .elements import as_bytes, byte_blocks, shaped
from .proto import FIXED32, FIXED64, LEN, VARINT, Bytes, LongValue, fields, put_bytes, put_varint

if TYPE_CHECKING:
    import numpy as np


class Field(NamedTuple):
    """The field of TensorProto that holds a type, and the width of an element in bytes; 0 for varints."""

    number: int
    width: int
    bound: int  # most bytes per element by the writer's own estimate (saved_tensor_slice_util.h)


FIELDS = {
    "float32": Field(5, 4, 4),
    "float64": Field(6, 8, 8),
    "complex64": Field(9, 8, 8),
    "complex128": Field(12, 16, 16),
    "int32": Field(7, 0, 10),
    "int16": Field(7, 0, 10),
    "int8": Field(7, 0, 10),
    "qint32": Field(7, 0, 10),
    "qint8": Field(7, 0, 10),
    "uint8": Field(7, 0, 2),
    "quint8": Field(7, 0, 2),
    "uint16": Field(7, 0, 3),
    "quint16": Field(7, 0, 3),
    "int64": Field(10, 0, 10),
    "bool": Field(11, 0, 1),
    "float16": Field(13, 0, 3),
    "uint32": Field(16, 0, 5),
    "uint64": Field(17, 0, 10),
    "string": Field(8, 0, 10),
}
_VARINT_BLOCK = 1 << 18  # bytes of varints to decode, or of numbers to encode, at a time
WRITABLE = FIELDS.keys() - {"uint32", "uint64", "quint16"}  # TensorFlow's writers refuse the others


def decode(proto: Bytes, spec: Spec) -> np.ndarray:
    """Array of `spec` from a TensorProto. Raises DamagedError if the field or the number of values is wrong."""
    import numpy as np

    if spec.dtype == "string":
        chunks = _chunks(proto, spec)
        if any(wire != LEN for wire, _ in chunks):
            raise DamagedError("a string has the wrong wire type")
        array = np.empty(len(chunks), object)
        array[:] = [bytes(value) for _, value in chunks]
    else:
        parts = list(_numbers(_chunks(proto, spec), spec.dtype))
        array = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, numpy_dtype(spec.dtype)), *parts])
    _check_count(array.size, spec)
    return shaped(array, spec.shape)


def decode_blocks(proto: Bytes, spec: Spec) -> Iterator[np.ndarray]:
    """Like `decode` for numbers, in flat pieces."""
    count = 0
    for part in _numbers(_chunks(proto, spec), spec.dtype):
        count += part.size
        yield from pieces(part)
    _check_count(count, spec)


def _check_count(count: int, spec: Spec) -> None:
    if count != spec.parameters:
        raise DamagedError(f"{spec} takes {spec.parameters:,} values, but {count:,} are stored")


def _chunks(proto: Bytes, spec: Spec) -> list[tuple[int, Any]]:
    """Wire type and content of each occurrence of the field for the element type."""
    if spec.dtype not in FIELDS:
        raise DamagedError(f"a V1 file cannot hold values of type {spec.dtype}")
    return [(wire, value) for number, wire, value in fields(proto) if number == FIELDS[spec.dtype].number]


def _numbers(chunks: list[tuple[int, Any]], dtype: str) -> Iterator[np.ndarray]:
    """The packed chunks and single values of one field, in order, as flat arrays."""
    import numpy as np

    field = FIELDS[dtype]
    single = VARINT if not field.width else FIXED32 if dtype in ("float32", "complex64") else FIXED64
    if any(wire not in (LEN, single) for wire, _ in chunks):
        raise DamagedError("a value has the wrong wire type")
    if field.width:
        size = 4 if single == FIXED32 else 8
        data = [value if wire == LEN else value.to_bytes(size, "little") for wire, value in chunks]
        joined = data[0] if len(data) == 1 else b"".join(bytes(d) for d in data)
        if len(joined) % field.width:
            raise DamagedError(f"its values take {len(joined):,} bytes, not a multiple of {field.width}")
        yield np.frombuffer(joined, numpy_dtype(dtype))
        return
    singles = [value for wire, value in chunks if wire != LEN]
    if len(singles) == len(chunks):
        yield _narrowed(np.array(singles, np.uint64), dtype)
        return
    for wire, value in chunks:
        for values in _varint_blocks(value) if wire == LEN else [np.array([value], np.uint64)]:
            yield _narrowed(values, dtype)


def _varint_blocks(data: memoryview) -> Iterator[np.ndarray]:
    """All varints of a packed field as uint64, in blocks, since decoding temporarily takes ten times their bytes."""
    start = 0
    while start < len(data):
        end = min(start + _VARINT_BLOCK, len(data))
        while start < end < len(data) and data[end - 1] >= 0x80:  # back to the end of a number
            end -= 1
        yield _varints(data[start:end] if end > start else data[start:])
        start = end if end > start else len(data)


def _varints(data: memoryview) -> np.ndarray:
    """Decodes varints to uint64 at numpy's speed: for each k, byte k of all numbers that have one."""
    import numpy as np

    raw = np.frombuffer(data, np.uint8)
    if raw.max() < 0x80:
        return raw.astype(np.uint64)
    if raw[-1] >= 0x80:
        raise DamagedError("a variable-length number is cut off")
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise DamagedError("a variable-length number is longer than 10 bytes")
    values = np.zeros(ends.size, np.uint64)
    for k in range(longest):
        has = np.flatnonzero(lengths > k)
        values[has] |= (raw[starts[has] + k] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * k)
    return values


def _narrowed(values: np.ndarray, dtype: str) -> np.ndarray:
    """Varints converted to their type. For int_val, an int32 in the protocol, only the lower 32 bits count."""
    import numpy as np

    wanted = numpy_dtype(dtype)
    if dtype == "bool":
        return values != 0
    if dtype in ("int64", "uint64"):
        return values.view(wanted)
    if dtype == "float16":
        _check_range(values, 0, 0xFFFF, dtype)
        return values.astype(np.uint16).view(wanted)
    if dtype == "uint32":
        _check_range(values, 0, 0xFFFFFFFF, dtype)
        return values.astype(wanted)
    narrow = values.astype(np.uint32).view(np.int32)
    limits = np.iinfo(wanted)
    _check_range(narrow, limits.min, limits.max, dtype)
    return narrow.astype(wanted, copy=False)


def _check_range(values: np.ndarray, low: int, high: int, dtype: str) -> None:
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        raise DamagedError(f"holds a value that is not a {dtype}")


def encode(tensor: Tensor) -> list[Bytes | LongValue]:
    """The TensorProto for a V1 file, in parts, byte for byte as TensorFlow writes it."""
    spec = tensor.spec
    field = FIELDS[spec.dtype]
    if spec.dtype == "string":
        array = tensor.load()
        check_array(array, spec)
        return [b"".join(put_bytes(field.number, as_bytes(element)) for element in array.ravel())]
    if not spec.parameters:
        return []
    size, parts = spec.nbytes or 0, partial(_payload, tensor)
    if size <= _VARINT_BLOCK:
        payload: bytes | LongValue = b"".join(parts())
    elif field.width:
        payload = LongValue(size, parts)
    else:  # the length of varints is known only after encoding, so they are encoded twice
        payload = LongValue(sum(map(len, parts())), parts)
    return [put_varint(field.number << 3 | LEN) + put_varint(len(payload)), payload]


def _payload(tensor: Tensor) -> Iterator[Bytes]:
    """The packed values, piece by piece."""
    import numpy as np

    dtype = tensor.spec.dtype
    if FIELDS[dtype].width:
        yield from byte_blocks(tensor)
        return
    wanted = np.uint16 if dtype == "float16" else numpy_dtype(dtype)
    for block in byte_blocks(tensor):
        for start in range(0, len(block), _VARINT_BLOCK):
            some = np.frombuffer(block[start : start + _VARINT_BLOCK], wanted)
            yield _put_varints(some.astype(np.int64).view(np.uint64))


def _put_varints(values: np.ndarray) -> bytes:
    """Encodes uint64 values as packed varints, at numpy's speed."""
    import numpy as np

    lengths = np.ones(values.size, np.int64)
    for k in range(1, 10):
        lengths += values >= np.uint64(1 << 7 * k)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    out = np.empty(int(ends[-1]), np.uint8)
    for k in range(int(lengths.max())):
        has = np.flatnonzero(lengths > k)
        low = (values[has] >> np.uint64(7 * k)) & np.uint64(0x7F)
        more = (lengths[has] > k + 1).astype(np.uint64) << np.uint64(7)
        out[starts[has] + k] = low | more
    return out.tobytes()
