"""The bytes of a V2 data file <-> numpy arrays.

Numbers are in C order, little-endian (big-endian if the header says so); 4-bit and 2-bit numbers take one byte each.
Strings:  varint lengths | masked CRC of the lengths | all bytes.
Variants: (varint length | bytes | masked running CRC) each; the bytes are a serialized VariantTensorDataProto.
The checksum in the index covers the bytes in the file, except that lengths of strings and variants enter as fixed-size
words (tensorflow/core/util/tensor_bundle/tensor_bundle.cc).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from struct import pack
from typing import TYPE_CHECKING

from ..dtypes import numpy_dtype
from ..errors import DamagedError, UnsupportedError
from ..tensors import Spec, Tensor
from .checksum import crc32c, mask
from .proto import Bytes, put_varint, varint

if TYPE_CHECKING:
    import numpy as np

LOW_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}  # used bits of an element's byte


def shaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array` reshaped to `shape`. Raises UnsupportedError for a shape that numpy cannot hold."""
    import numpy as np

    try:
        return np.reshape(array, shape)
    except ValueError as error:  # more than 64 dimensions, or empty with huge ones
        raise UnsupportedError(f"numpy cannot hold the shape {list(shape)} ({error})") from None


def check_crc(stored: int, crc: int) -> None:
    """Raises DamagedError unless the masked checksum `stored` in the index matches the (unmasked) `crc` of the
    bytes."""
    if stored != mask(crc):
        raise DamagedError(f"the checksum of its bytes differs (stored {stored:#010x}, is {mask(crc):#010x})")


def check_size(spec: Spec, size: int) -> None:
    """Raises DamagedError if `size` bytes cannot hold the elements of `spec`, before anything is allocated."""
    nbytes = spec.nbytes
    if nbytes is None:
        if spec.parameters > size:
            raise DamagedError(f"claims {spec.parameters:,} elements in {size:,} bytes")
    elif nbytes != size:
        raise DamagedError(f"{spec} takes {nbytes:,} bytes, but the index says {size:,}")


def decode(data: memoryview, spec: Spec, crc: int, big_endian: bool = False) -> np.ndarray:
    """Array of `spec` from its bytes, as a read-only view if the type allows. `crc` is the index's masked checksum."""
    import numpy as np

    check_size(spec, len(data))
    if spec.nbytes is None:
        parts = (
            strings(data, spec.parameters, crc, big_endian)
            if spec.dtype == "string"
            else variants(data, spec.parameters, crc, big_endian)
        )
        array = np.empty(len(parts), object)
        array[:] = parts
        return shaped(array, spec.shape)
    check_crc(crc, crc32c(data))
    return shaped(numbers(data, spec.dtype, big_endian), spec.shape)


def decode_blocks(blocks: Iterable[memoryview], spec: Spec, crc: int, big_endian: bool = False) -> Iterator[np.ndarray]:
    """Like `decode` for numbers, in flat pieces, one per block of bytes. Blocks have BLOCK bytes, a multiple of every
    element width. The checksum is compared after the last one."""
    running = 0
    for part in blocks:
        running = crc32c(part, running)
        yield numbers(part, spec.dtype, big_endian)
    check_crc(crc, running)


def numbers(data: memoryview, dtype: str, big_endian: bool = False) -> np.ndarray:
    """Flat array of numbers."""
    import numpy as np

    wanted = numpy_dtype(dtype)
    if dtype in LOW_BITS:
        return _narrow(np.frombuffer(data, np.uint8), dtype, wanted)
    if dtype == "bool":
        raw = np.frombuffer(data, np.uint8)
        return raw.view(wanted) if not raw.size or raw.max() <= 1 else raw != 0
    if big_endian and wanted.itemsize > 1:
        half = wanted.itemsize // 2 if wanted.kind == "c" else wanted.itemsize  # complex parts are swapped separately
        raw = np.frombuffer(data, f">u{half}")
        return raw.astype(f"<u{half}").view(wanted)
    return np.frombuffer(data, wanted)


def _narrow(raw: np.ndarray, dtype: str, wanted: np.dtype) -> np.ndarray:
    """4-bit and 2-bit numbers; the high bits of their bytes are ignored."""
    import numpy as np

    bits = LOW_BITS[dtype]
    if dtype.startswith("float"):
        return (raw & 0x0F).view(wanted)
    if dtype.startswith("uint"):
        return (raw & ((1 << bits) - 1)).astype(wanted)
    return ((raw << (8 - bits)).view(np.int8) >> (8 - bits)).astype(wanted)


def strings(data: memoryview, count: int, crc: int, big_endian: bool = False) -> list[bytes]:
    """The elements of a string tensor. Works without numpy, since it also reads the object graph of TensorFlow 2."""
    order = ">" if big_endian else "<"
    if not count and not data:  # some writers leave out even the checksum of no lengths
        check_crc(crc, 0)
        return []
    lengths, pos = [], 0
    words = bytearray()
    for _ in range(count):
        length, pos = varint(data, pos, len(data))
        lengths.append(length)
        words += pack(order + "I", length) if length <= 0xFFFFFFFF else pack(order + "Q", length)
    start = pos + 4
    total = sum(lengths)
    if start + total > len(data):
        raise DamagedError(f"its strings claim {total:,} bytes where {max(len(data) - start, 0):,} are left")
    running = crc32c(bytes(words))
    if bytes(data[pos:start]) != pack(order + "I", mask(running)):
        raise DamagedError("the checksum of the lengths of its strings differs")
    check_crc(crc, crc32c(data[pos : start + total], running))
    out = []
    for length in lengths:
        out.append(bytes(data[start : start + length]))
        start += length
    return out


def variants(data: memoryview, count: int, crc: int, big_endian: bool = False) -> list[bytes]:
    """The elements of a variant tensor, serialized as in the file."""
    if big_endian:
        raise UnsupportedError("variants of a big-endian checkpoint cannot be read; TensorFlow refuses them too")
    out, pos, running = [], 0, 0
    for _ in range(count):
        length, pos = varint(data, pos, len(data))
        end = pos + length
        if end + 4 > len(data):
            raise DamagedError(f"a variant claims {length:,} bytes where {max(len(data) - pos - 4, 0):,} are left")
        running = crc32c(data[pos:end], crc32c(pack("<Q", length), running))
        checksum = bytes(data[end : end + 4])
        if checksum != pack("<I", mask(running)):
            raise DamagedError("the checksum of a variant differs")
        running = crc32c(checksum, running)
        out.append(bytes(data[pos:end]))
        pos = end + 4
    check_crc(crc, running)
    return out


def encode(array: np.ndarray, dtype: str) -> tuple[Sequence[Bytes], int]:
    """The bytes of an array for a little-endian V2 data file, in parts, and their masked checksum."""
    if dtype == "string":
        return _encode_strings([as_bytes(element) for element in array.ravel()])
    if dtype == "variant":
        return _encode_variants([as_bytes(element) for element in array.ravel()])
    data = number_bytes(array, dtype)
    return [data], mask(crc32c(data))


def byte_blocks(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a numeric tensor for a little-endian V2 data file, piece by piece."""
    return (number_bytes(block, tensor.spec.dtype) for block in tensor.blocks())


def number_bytes(array: np.ndarray, dtype: str) -> memoryview:
    """C-order little-endian bytes of numbers, without a copy if the array already has that layout."""
    import numpy as np

    wanted = numpy_dtype(dtype)
    if array.dtype.newbyteorder("=") != wanted.newbyteorder("="):
        raise UnsupportedError(f"has values of numpy type {array.dtype}, but its spec says {dtype}")
    if dtype in LOW_BITS:
        bits = LOW_BITS[dtype]
        raw = array.view(np.uint8) if dtype.startswith("float") else array.astype(np.int8).view(np.uint8)
        array = raw & np.uint8((1 << bits) - 1)
    elif array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if math.prod(array.shape) else memoryview(b"")


def as_bytes(element: object) -> bytes:
    if isinstance(element, str):
        return element.encode("utf-8", "surrogateescape")
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    raise UnsupportedError(f"has an element of type {type(element).__name__} where bytes are wanted")


def _encode_strings(elements: Sequence[bytes]) -> tuple[list[bytes], int]:
    running = crc32c(b"".join(pack("<I" if len(e) <= 0xFFFFFFFF else "<Q", len(e)) for e in elements))
    checksum = pack("<I", mask(running))
    running = crc32c(checksum, running)
    for element in elements:
        running = crc32c(element, running)
    return [b"".join(put_varint(len(e)) for e in elements), checksum, *elements], mask(running)


def _encode_variants(elements: Sequence[bytes]) -> tuple[list[bytes], int]:
    parts, running = [], 0
    for element in elements:
        running = crc32c(element, crc32c(pack("<Q", len(element)), running))
        checksum = pack("<I", mask(running))
        running = crc32c(checksum, running)
        parts += [put_varint(len(element)), element, checksum]
    return parts, mask(running)
