"""The small part of Protocol Buffers that checkpoint files need: varints and fields, without recursion.

No reader goes beyond `end`, and every length is checked before it is used. A field's bytes are a slice of `data`, so
that a memoryview is never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import DamagedError

VARINT, FIXED64, LEN, FIXED32 = 0, 1, 2, 5
Bytes = bytes | memoryview  # in memory, or of a mapped file


def varint(data: Bytes, pos: int, end: int) -> tuple[int, int]:
    """Reads an unsigned 64-bit varint at `pos`; returns it and the position after it."""
    value = shift = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, pos
        shift += 7
        if shift > 63:
            raise DamagedError("a variable-length number is longer than 10 bytes")
    raise DamagedError("a variable-length number is cut off")


def fields(data: Bytes) -> Iterator[tuple[int, int, Any]]:
    """Yields field number, wire type and value of every field of a message, in order.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x01, 0x61])))
    [(1, 0, 150), (2, 2, b'a')]
    """
    pos, end = 0, len(data)
    while pos < end:
        tag, pos = varint(data, pos, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise DamagedError("a message has a field with number 0")
        if wire == VARINT:
            value, pos = varint(data, pos, end)
            yield number, wire, value
            continue
        if wire == LEN:
            size, pos = varint(data, pos, end)
        elif wire == FIXED32:
            size = 4
        elif wire == FIXED64:
            size = 8
        else:
            raise DamagedError(f"a message has a field of unknown kind {wire}")
        if size > end - pos:
            raise DamagedError(f"a field of a message claims {size:,} bytes where {end - pos:,} are left")
        part = data[pos : pos + size]
        pos += size
        yield number, wire, part if wire == LEN else int.from_bytes(part, "little")


def message(value: Any, wire: int, what: str) -> Bytes:
    """The bytes of a field that must be a message or a string."""
    if wire != LEN:
        raise DamagedError(f"{what} has the wrong wire type {wire}")
    return value


def number(value: Any, wire: int, what: str) -> int:
    """The value of a field that must be a number."""
    if wire == LEN:
        raise DamagedError(f"{what} has the wrong wire type {wire}")
    return value


def signed(value: int) -> int:
    """An int64 (or int32, which is written sign-extended) from its varint."""
    return value - (1 << 64) if value >> 63 else value


def text(value: Bytes) -> str:
    """Decodes a name from UTF-8; other bytes become surrogates, so that they can be written back unchanged."""
    return bytes(value).decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The bytes of a name that `text` decoded."""
    return name.encode("utf-8", "surrogateescape")


def put_varint(value: int) -> bytes:
    """
    >>> put_varint(300).hex(), len(put_varint(-1))
    ('ac02', 10)
    """
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def put_number(field: int, value: int) -> bytes:
    """A varint field; nothing for 0, as in proto3."""
    return put_varint(field << 3) + put_varint(value) if value else b""


def put_bytes(field: int, value: Bytes) -> bytes:
    """A length-delimited field, written even if it is empty."""
    return put_varint(field << 3 | LEN) + put_varint(len(value)) + value


class LongValue:
    """Bytes that are made part by part while they are written; their number is known in advance."""

    def __init__(self, size: int, parts: Callable[[], Iterator[Bytes]]) -> None:
        self.size = size
        self.parts = parts

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Bytes]:
        return self.parts()


def flattened(values: Iterable[Bytes | LongValue]) -> Iterator[Bytes]:
    """The values, with each LongValue in its parts."""
    for value in values:
        if isinstance(value, LongValue):
            yield from value
        else:
            yield value
