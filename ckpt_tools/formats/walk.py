"""Reads a table whose footer or index block is missing, block by block from the start of the file.

Nothing tells where a block ends, so its entries are followed up to the restart array. That begins with the offset 0,
four zero bytes, which no entry can begin with, since a key after the first is not empty. The block's checksum then
confirms the guess. Walking stops at the first block that is incomplete or whose checksum differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack_from

from ..errors import CheckpointError, DamagedError
from ..tensors import Spec
from .proto import varint
from .slices import Extents
from .sstable import TRAILER, Block, Handle, Table, entries_end, spans
from .storage import mapped
from .v1 import TableFile

_MAX_RESTARTS = 1 << 24  # more than any writer puts in a block


class WalkedTable(Table):
    """A table whose `blocks` are found by walking. A Snappy block ends the walk: its entries cannot be followed."""

    def __init__(self, path: str) -> None:
        self.file = mapped(path)
        self.blocks = list(self._walk())

    def _walk(self) -> Iterator[Block]:
        data = self.file.view()
        offset, last = 0, b""
        while offset < len(data):
            try:
                handle = Handle(offset, _block_size(data, offset))
                keys = [key for key, _, _ in spans(self.read(handle))]
            except CheckpointError:
                return
            if not keys:
                return  # the empty metaindex block, which follows the data blocks
            last = keys[-1]
            yield Block(last, handle)
            offset += handle.size + TRAILER


class WalkedFile(TableFile):
    """A truncated file of a V1 checkpoint, with the content of its complete blocks."""

    def __init__(self, path: str) -> None:
        super().__init__(path, WalkedTable(path))

    def listing(self) -> Iterator[tuple[str, Spec, tuple[Extents, ...]]]:
        if not self.table.blocks:
            raise DamagedError("its first block, which lists the tensors, is not whole: none of them can be reached")
        return super().listing()


def _block_size(data: memoryview, start: int) -> int:
    """Bytes of the block at `start` without its trailer. Raises DamagedError if there is no complete block."""
    pos, end, count = start, len(data), 0
    while bytes(data[pos : pos + 4]) != bytes(4):
        _, at = varint(data, pos, end)
        unshared, at = varint(data, at, end)
        size, at = varint(data, at, end)
        pos = at + unshared + size
        count += 1
        if pos >= end:
            raise DamagedError("a block is cut off")
    for restarts in range(1, min(count + 1, _MAX_RESTARTS) + 1):
        tail = pos + 4 * restarts
        if tail + 4 + TRAILER > end:
            break
        if unpack_from("<I", data, tail)[0] == restarts:
            size = tail + 4 - start
            entries_end(data[start : start + size])
            return size
    raise DamagedError("a block has no end")
