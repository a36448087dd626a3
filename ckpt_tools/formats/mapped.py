"""A file whose bytes are looked at in place. It is opened on first use and mapped once, whoever asks."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from weakref import WeakSet

from ..errors import DamagedError, NotACheckpointError
from ..tensors import BLOCK

_OPEN: WeakSet[MappedFile] = WeakSet()


class MappedFile:
    """Bytes of a regular file. Slices are views of the map: nothing is copied, nothing is read before it is needed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._view: memoryview | None = None
        self._map: mmap.mmap | None = None

    def view(self) -> memoryview:
        """The whole file. Raises NotACheckpointError where there is none, or no regular file."""
        if self._view is None:
            try:
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise NotACheckpointError("is not a regular file", path=self.path)
                with open(self.path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    if size:
                        self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                        _OPEN.add(self)
                    self._view = memoryview(self._map or b"")
            except FileNotFoundError:
                raise NotACheckpointError("this file of the checkpoint is missing", path=self.path) from None
        return self._view

    def __len__(self) -> int:
        return len(self.view())

    def forget_pages(self) -> None:
        """Takes the pages that were read out of this process; they come back from the page cache when asked for."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def check(self, offset: int, size: int, what: str) -> None:
        """Raises DamagedError, naming `what`, when bytes `offset` to `offset + size` are not all there."""
        if offset < 0 or size < 0 or offset + size > len(self):
            raise DamagedError(
                f"{what} should lie in bytes {offset:,} to {offset + size:,}, but the file has {len(self):,} bytes",
                path=self.path,
            )

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes `offset` to `offset + size`. Raises what `check` raises."""
        self.check(offset, size, what)
        return self.view()[offset : offset + size]

    def blocks(self, offset: int, size: int, what: str) -> Iterator[memoryview]:
        """What `part` gives, in pieces of BLOCK bytes."""
        whole = self.part(offset, size, what)
        return (whole[start : start + BLOCK] for start in range(0, size, BLOCK))


def forget_pages() -> None:
    """Keeps the resident memory of a long copy flat: see `MappedFile.forget_pages`, here for every open file."""
    for file in list(_OPEN):
        file.forget_pages()
