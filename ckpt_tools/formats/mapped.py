"""A memory-mapped file, opened on first use and mapped once for all users."""

from __future__ import annotations

import gc
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet, ref

from ..errors import DamagedError, NotACheckpointError
from ..tensors import BLOCK

_OPEN: WeakSet[MappedFile] = WeakSet()
_HELD: list[tuple[str, ref[Any], Callable[[Any], object]]] = []


class MappedFile:
    """Bytes of a regular file. Slices are views of the map: nothing is copied, or read before it is needed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._view: memoryview | None = None
        self._map: mmap.mmap | None = None
        self._released = False

    def view(self) -> memoryview:
        """The whole file. Raises NotACheckpointError if it does not exist or is not a regular file."""
        if self._released:
            raise NotACheckpointError("was closed so that it could be overwritten", path=self.path)
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
        """Drops the pages read so far from this process; later accesses get them from the page cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def release(self) -> None:
        """Closes the map, unless a slice of it is still in use."""
        try:
            if self._view is not None:
                self._view.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            return
        self._view = self._map = None
        self._released = True

    def check(self, offset: int, size: int, what: str) -> None:
        """Raises DamagedError, which names `what`, if bytes `offset` to `offset + size` are not all in the file."""
        if offset < 0 or size < 0 or offset + size > len(self):
            raise DamagedError(
                f"{what} should lie in bytes {offset:,} to {offset + size:,}, but the file has {len(self):,} bytes",
                path=self.path,
            )

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes `offset` to `offset + size`. Raises like `check`."""
        self.check(offset, size, what)
        return self.view()[offset : offset + size]

    def blocks(self, offset: int, size: int, what: str) -> Iterator[memoryview]:
        """The bytes of `part` in pieces of BLOCK bytes."""
        whole = self.part(offset, size, what)
        return (whole[start : start + BLOCK] for start in range(0, size, BLOCK))


def forget_pages() -> None:
    """Calls `MappedFile.forget_pages` for every open file, which keeps resident memory flat during a long copy."""
    for file in list(_OPEN):
        file.forget_pages()


def release(*paths: str) -> None:
    """Closes the maps of these files, since Windows does not replace open files. Nothing can be read from them
    afterwards."""
    wanted = {os.path.realpath(path) for path in paths}
    for path, reference, let_go in _HELD:
        if (owner := reference()) is not None and os.path.realpath(path) in wanted:
            let_go(owner)
    gc.collect()  # slices held only by reference cycles
    for file in list(_OPEN):
        if os.path.realpath(file.path) in wanted:
            file.release()


def keeps_open(path: str, owner: object, let_go: Callable[[Any], object]) -> None:
    """Registers that `owner` keeps the file open, or slices of its map; `release` calls `let_go(owner)`."""
    _HELD[:] = [held for held in _HELD if held[1]() is not None]
    _HELD.append((path, ref(owner), let_go))
