"""The sorted table (LevelDB's, with plain keys) that V1 files and V2 `.index` files are.

    data blocks | empty metaindex block | index block | footer (48 bytes)
    block   = entries, restart offsets (u32 each), their number (u32) | type (0 raw, 1 Snappy) | masked CRC-32C (u32)
    entry   = shared, unshared, value length (varints) | the key's last bytes | value
    footer  = handles (offset, size) of metaindex and index block, padded to 40 bytes | magic

Layout and writer rules: tsl/lib/io/{table_builder,block_builder,format}.cc; block size 262,144 in all releases.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from struct import pack, unpack_from
from typing import BinaryIO, NamedTuple

from ..errors import DamagedError, NotACheckpointError
from .checksum import crc32c, mask, masked_crc
from .proto import Bytes, LongValue, flattened, put_varint, varint
from .storage import mapped

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5  # type and checksum after a block's contents
BLOCK_SIZE = 262144
RESTART_INTERVAL = 16
EMPTY_BLOCK = bytes(4) + b"\1\0\0\0"
MAX_SNAPPY_RATIO = 64  # a copy tag of 3 bytes yields at most 64 bytes


class Handle(NamedTuple):
    """The position of a block; `size` does not include its trailer."""

    offset: int
    size: int


class Block(NamedTuple):
    """An index entry: a data block, and a key not below the block's last key."""

    separator: bytes
    handle: Handle


class Table:
    """A table file. Opening reads the footer and the index block; data blocks are read on demand."""

    def __init__(self, path: str) -> None:
        self.file = mapped(path)
        try:
            self.blocks = self._read_index()
        except (DamagedError, NotACheckpointError) as error:
            raise error.at(path=path) from None

    def _read_index(self) -> list[Block]:
        size = len(self.file)
        if size < FOOTER:
            raise NotACheckpointError(f"has {size:,} bytes, too short for a checkpoint table")
        footer = bytes(self.file.part(size - FOOTER, FOOTER, "the footer"))
        if footer[40:] != MAGIC:
            raise NotACheckpointError("does not end as a checkpoint table does")
        _, pos = _handle(footer, 0, 40)
        index, _ = _handle(footer, pos, 40)
        contents = self.read(index, "the index block")
        blocks: list[Block] = []
        last = b""
        for key, value in zip(*entries(contents), strict=True):
            handle, _ = _handle(value, 0, len(value))
            if blocks and key <= last:
                raise DamagedError("the keys of the index block are out of order")
            blocks.append(Block(key, handle))
            last = key
        return blocks

    def read(self, handle: Handle, what: str = "a block") -> Bytes:
        """The contents of a block after checking its checksum: a view of the file, or the bytes of a Snappy block."""
        whole = self.file.part(handle.offset, handle.size + TRAILER, what)
        (stored,) = unpack_from("<I", whole, handle.size + 1)
        computed = masked_crc(whole[: handle.size + 1])
        if stored != computed:
            raise DamagedError(
                f"the checksum of {what} at byte {handle.offset:,} differs (stored {stored:#010x}, is {computed:#010x})"
            )
        kind = whole[handle.size]
        if kind == 0:
            return whole[: handle.size]
        if kind == 1:
            return _unpack_snappy(whole[: handle.size])
        raise DamagedError(f"{what} at byte {handle.offset:,} has the unknown compression type {kind}")

    def first_block(self) -> Bytes:
        """The contents of the first block; empty if there is none."""
        return self.read(self.blocks[0].handle) if self.blocks else b""

    def position(self, key: bytes) -> int | None:
        """Number of the only block that can hold `key`; None past the last one."""
        at = bisect_left(self.blocks, key, key=lambda block: block.separator)
        return at if at < len(self.blocks) else None


def _handle(data: Bytes, pos: int, end: int) -> tuple[Handle, int]:
    offset, pos = varint(data, pos, end)
    size, pos = varint(data, pos, end)
    return Handle(offset, size), pos


def _unpack_snappy(data: memoryview) -> bytes:
    import cramjam

    claimed, _ = varint(data, 0, len(data))
    if claimed > len(data) * MAX_SNAPPY_RATIO:
        raise DamagedError(f"a Snappy block of {len(data):,} bytes claims to unpack to {claimed:,}")
    try:
        unpacked = bytes(cramjam.snappy.decompress_raw(bytes(data)))
    except cramjam.DecompressionError as error:
        raise DamagedError(f"a Snappy block cannot be unpacked ({error})") from None
    if len(unpacked) != claimed:
        raise DamagedError(f"a Snappy block unpacks to {len(unpacked):,} bytes, not to the {claimed:,} that it claims")
    return unpacked


def entries_end(data: Bytes) -> int:
    """The end of a block's entries. Checks that restarts lie inside the block, rise, and point at whole keys."""
    if len(data) < 4:
        raise DamagedError(f"a block of {len(data)} bytes has no restart array")
    (count,) = unpack_from("<I", data, len(data) - 4)
    end = len(data) - 4 - 4 * count
    if end < 0:
        raise DamagedError(f"a block of {len(data):,} bytes claims {count:,} restarts")
    last = -1
    for restart in unpack_from(f"<{count}I", data, end):
        if restart <= last or (restart >= end and (restart or end)) or (end and data[restart]):
            raise DamagedError("the restart array of a block is wrong")
        last = restart
    return end


def entries(data: Bytes) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of a block, in order. This loop dominates the time of listing a million variables."""
    data = bytes(data)
    end = entries_end(data)
    keys: list[bytes] = []
    values: list[bytes] = []
    key = None
    pos = 0
    while pos < end:
        shared, unshared, size = data[pos], data[pos + 1], data[pos + 2]
        if (shared | unshared | size) < 0x80:
            start = pos + 3
        else:
            shared, unshared, size, start = _entry_lengths(data, pos, end)
        middle = start + unshared
        pos = middle + size
        if pos > end:
            raise DamagedError("an entry of a block goes past its end")
        if shared:
            if key is None or shared > len(key):
                raise DamagedError("an entry of a block shares more of the key before it than there is")
            new = key[:shared] + data[start:middle]
        else:
            new = data[start:middle]
        if key is not None and new <= key:
            raise DamagedError("the keys of a block are out of order")
        key = new
        keys.append(key)
        values.append(data[middle:pos])
    return keys, values


def spans(data: Bytes) -> Iterator[tuple[bytes, int, int]]:
    """Key, and start and end of the value, of each entry, for a V1 file, whose large values are left in place."""
    end = entries_end(data)
    key = None
    pos = 0
    while pos < end:
        shared, unshared, size, start = _entry_lengths(data, pos, end)
        middle = start + unshared
        pos = middle + size
        if pos > end:
            raise DamagedError("an entry of a block goes past its end")
        if shared > len(key or b""):
            raise DamagedError("an entry of a block shares more of the key before it than there is")
        new = (key or b"")[:shared] + bytes(data[start:middle])
        if key is not None and new <= key:
            raise DamagedError("the keys of a block are out of order")
        key = new
        yield key, middle, pos


def first_record(head: Bytes) -> tuple[bytes, Bytes, int]:
    """Key, value, and length of the value of a table's first record; the value may be cut off at the end of `head`.

    The first block must not be compressed. No checksum is checked, since this only serves to identify a file.
    """
    shared, unshared, size, start = _entry_lengths(head, 0, len(head))
    if shared:
        raise DamagedError("the first key of the table is not whole")
    middle = start + unshared
    return bytes(head[start:middle]), head[middle : middle + size], size


def _entry_lengths(data: Bytes, pos: int, end: int) -> tuple[int, int, int, int]:
    shared, pos = varint(data, pos, end)
    unshared, pos = varint(data, pos, end)
    size, pos = varint(data, pos, end)
    return shared, unshared, size, pos


class TableWriter:
    """Writes a table byte for byte like TensorFlow: same blocks, same separators, no compression.

    Keys must be added in rising order. `progress` is called with the number of bytes of each part written.
    """

    def __init__(self, file: BinaryIO, progress: Callable[[int], object] | None = None) -> None:
        self._file = file
        self._progress = progress
        self._offset = 0
        self._block = _BlockWriter(RESTART_INTERVAL)
        self._index = _BlockWriter(1)
        self._last = b""
        self._pending: Handle | None = None  # a finished block, whose separator depends on the next key

    def add(self, key: bytes, *value: Bytes | LongValue) -> None:
        """Adds a record. Its value may come in parts; large ones are written without being joined."""
        if self._block.count and len(key) + sum(map(len, value)) >= 2 * BLOCK_SIZE:
            self._cut()
        if self._pending:
            self._add_index(_separator(self._last, key), self._pending)
        self._block.add(key, value)
        self._last = key
        if self._block.size >= BLOCK_SIZE:
            self._cut()

    def finish(self) -> None:
        """Writes the last block, the index and the footer. The caller closes the file."""
        if self._block.count:
            self._cut()
        metaindex = self._write([EMPTY_BLOCK])
        if self._pending:
            self._add_index(_successor(self._last), self._pending)
        index = self._write(self._index.finish())
        handles = _encode(metaindex) + _encode(index)
        self._file.write(handles.ljust(40, b"\0") + MAGIC)

    def _cut(self) -> None:
        self._pending = self._write(self._block.finish())
        self._block = _BlockWriter(RESTART_INTERVAL)

    def _add_index(self, separator: bytes, block: Handle) -> None:
        self._index.add(separator, (_encode(block),))
        self._pending = None

    def _write(self, parts: Sequence[Bytes | LongValue]) -> Handle:
        parts = [*parts, b"\0"]
        size = sum(map(len, parts))
        crc = 0
        for part in flattened(parts) if size > 4 * BLOCK_SIZE else [b"".join(flattened(parts))]:
            crc = crc32c(part, crc)
            self._file.write(part)
            if self._progress is not None:
                self._progress(len(part))
        self._file.write(pack("<I", mask(crc)))
        handle = Handle(self._offset, size - 1)
        self._offset += size + TRAILER - 1
        return handle


class _BlockWriter:
    def __init__(self, interval: int) -> None:
        self.count = 0
        self.size = 8  # bytes so far, with one restart and the number of restarts
        self._interval = interval
        self._parts: list[Bytes | LongValue] = []
        self._restarts = [0]
        self._length = 0
        self._last = b""

    def add(self, key: bytes, value: Sequence[Bytes | LongValue]) -> None:
        shared = 0
        if self.count % self._interval:
            shared = _shared(self._last, key)
        elif self.count:
            self._restarts.append(self._length)
            self.size += 4
        size = sum(map(len, value))
        head = put_varint(shared) + put_varint(len(key) - shared) + put_varint(size) + key[shared:]
        self._parts += (head, *value)
        self._length += len(head) + size
        self.size += len(head) + size
        self.count += 1
        self._last = key

    def finish(self) -> list[Bytes | LongValue]:
        return [*self._parts, pack(f"<{len(self._restarts)}I", *self._restarts), pack("<I", len(self._restarts))]


def _shared(a: bytes, b: bytes) -> int:
    """The length of the common prefix."""
    limit = min(len(a), len(b))
    differ = int.from_bytes(a[:limit], "big") ^ int.from_bytes(b[:limit], "big")
    return limit - (differ.bit_length() + 7) // 8


def _encode(handle: Handle) -> bytes:
    return put_varint(handle.offset) + put_varint(handle.size)


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key not below `last` and below `following` (leveldb's FindShortestSeparator)."""
    for i, (a, b) in enumerate(zip(last, following, strict=False)):
        if a != b:
            return last[:i] + bytes((a + 1,)) if a + 1 < b else last
    return last


def _successor(last: bytes) -> bytes:
    """A short key not below `last` (leveldb's FindShortSuccessor)."""
    for i, byte in enumerate(last):
        if byte != 0xFF:
            return last[:i] + bytes((byte + 1,))
    return last
