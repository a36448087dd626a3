"""The records of a V2 index: one header, and one entry per tensor (tensor_bundle.proto)."""

from __future__ import annotations

import re
from functools import lru_cache
from struct import pack
from typing import NamedTuple

from ..dtypes import BY_NAME, BY_NUMBER
from ..errors import DamagedError
from ..tensors import Spec
from .proto import FIXED32, VARINT, Bytes, fields, message, number, put_bytes, put_number, put_varint, signed
from .slices import Extents, encode_shape, encode_slice, is_whole, parse_shape, parse_slice

READER_VERSION = 1  # the newest version of both formats
# Shard, offset, size and checksum, which follow type and shape in nearly every entry.
_PLAIN = re.compile(
    rb"(?:\x18(%b))?(?:\x20(%b))?(?:\x28(%b))?\x35(.{4})" % (3 * (rb"[\x80-\xff]{0,7}[\0-\x7f]",)), re.S
)
VERSIONS = b"\x08\x01"  # VersionDef { producer: 1 }, as every release writes


def shard_path(prefix: str, shard: int, num_shards: int) -> str:
    """
    >>> shard_path("model.ckpt", 0, 2)
    'model.ckpt.data-00000-of-00002'
    """
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


class Header(NamedTuple):
    """BundleHeaderProto. `big_endian` concerns only the data files, never the index."""

    num_shards: int
    big_endian: bool = False


class Entry(NamedTuple):
    """BundleEntryProto. If there are `slices`, only the spec is meaningful besides."""

    spec: Spec
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0  # masked
    slices: tuple[Extents, ...] = ()


def parse_header(value: bytes) -> Header:
    num_shards, endianness = 0, 0
    for field, wire, content in fields(value):
        if field == 1:
            num_shards = signed(number(content, wire, "the number of data files"))
        elif field == 2:
            endianness = number(content, wire, "the byte order")
        elif field == 3:
            check_version(message(content, wire, "the version"))
    if not 1 <= num_shards < 1 << 31:
        raise DamagedError(f"the header of the index claims {num_shards} data files")
    if endianness not in (0, 1):
        raise DamagedError(f"the header of the index has the unknown byte order {endianness}")
    return Header(num_shards, endianness == 1)


def encode_header(header: Header) -> bytes:
    return put_number(1, header.num_shards) + put_bytes(3, VERSIONS)


def check_version(data: Bytes) -> None:
    """Raises DamagedError if a VersionDef, of V1 or V2, demands another reader."""
    for field, wire, value in fields(data):
        if field == 2 and signed(number(value, wire, "the oldest reader")) > READER_VERSION:
            raise DamagedError(f"the file asks for a reader of version {value}; the newest is {READER_VERSION}")
        if field == 3:
            refused = [value] if wire == VARINT else bytes(message(value, wire, "the refused readers"))
            if READER_VERSION in refused:
                raise DamagedError(f"the file refuses readers of version {READER_VERSION}, which this is")


def dtype_of(code: int) -> str:
    """TensorFlow's name of an element type, by its number in a file."""
    if code not in BY_NUMBER:
        raise DamagedError(f"{code} is not the number of an element type that can be stored")
    return BY_NUMBER[code].name


def spec_prefix(value: bytes) -> bytes | None:
    """The bytes of an entry that encode type and shape, if they come first, as with every known writer; else None."""
    if len(value) > 3 and value[0] == 0x08 and value[1] < 0x80 and value[2] == 0x12 and value[3] <= len(value) - 4:
        return value[: value[3] + 4] if value[3] < 0x80 else None
    return None


def parse_spec(value: bytes) -> Spec:
    """Type and shape of an entry."""
    dtype = 0
    shape: tuple[int, ...] = ()
    for field, wire, content in fields(value):
        if field == 1:
            dtype = number(content, wire, "the element type")
        elif field == 2:
            shape = parse_shape(message(content, wire, "the shape"))
    return Spec(dtype_of(dtype), shape)


def parse_entry(value: bytes, spec: Spec) -> Entry:
    """Parses the rest of an entry whose type and shape are known."""
    plain = _PLAIN.fullmatch(value, len(spec_prefix(value) or value))
    if plain:
        shard, offset, size, crc = plain.groups()
        return Entry(spec, _number(shard), _number(offset), _number(size), int.from_bytes(crc, "little"))
    values = {3: 0, 4: 0, 5: 0, 6: 0}
    parts = []
    seen = 0
    for field, wire, content in fields(value):
        if field <= 2:
            seen += field
        elif field in values:
            if wire != (FIXED32 if field == 6 else VARINT):
                raise DamagedError(f"field {field} of its entry has the wrong wire type {wire}")
            values[field] = content if field == 6 else signed(content)
        elif field == 7:
            parts.append(parse_slice(message(content, wire, "a slice")))
    if seen > 3:
        raise DamagedError("its entry gives the type or the shape twice")
    if len(parts) == 1 and is_whole(parts[0]):
        parts = []  # TensorFlow then reads the entry's own bytes
    return Entry(spec, values[3], values[4], values[5], values[6], tuple(parts))


def _number(digits: bytes | None) -> int:
    """A varint from its bytes."""
    if not digits:
        return 0
    value = 0
    for byte in reversed(digits):
        value = value << 7 | byte & 0x7F
    return value


@lru_cache(maxsize=1024)
def _encoded_spec(spec: Spec) -> bytes:
    return put_number(1, BY_NAME[spec.dtype].number) + put_bytes(2, encode_shape(spec.shape))


def encode_entry(entry: Entry) -> bytes:
    """The value of an entry's record, byte for byte as TensorFlow writes it."""
    out = _encoded_spec(entry.spec)
    if entry.slices:
        return out + b"".join(put_bytes(7, encode_slice(extents)) for extents in entry.slices)
    if entry.shard:
        out += b"\x18" + put_varint(entry.shard)
    if entry.offset:
        out += b"\x20" + put_varint(entry.offset)
    if entry.size:
        out += b"\x28" + put_varint(entry.size)
    return out + b"\x35" + pack("<I", entry.crc32c)
