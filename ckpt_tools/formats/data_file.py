"""The file that tensors are written to, one after the other: copied ranges of other files, and blocks of values.

A small file is copied by the kernel (`RangeCopier`). A large one goes past the page cache, by O_DIRECT from a ring of
aligned buffers, while the next buffers are filled: a checkpoint must be on disk before it is moved into place, and
this way there is one pass over the data, nothing left to wait for, and no free pages to look for first: 0.7 s for
1 GB on the machine where copy_file_range and fsync took 0.9 to 1.1 s, and 3 s and more when pages were short.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple

from ..errors import DamagedError
from .copying import RangeCopier, write_all

DIRECT_FROM = 64 << 20  # bytes from which a file is written past the page cache
BUFFER = 8 << 20
BUFFERS = 6
WRITERS = 4
_ALIGNED = 4096
_FICLONERANGE = 0x4020940D  # linux/fs.h


class DataFile:
    """Writes `path`; `expected` is about how many bytes it will have.

        with DataFile(path, expected) as out:
            out.copy(stored.path, stored.offset, stored.size)
            out.write(array_bytes)

    `progress` is called with numbers of bytes. Raises DamagedError when a source ends early, OSError as the system
    reports it.
    """

    def __init__(self, path: str, expected: int = 0, progress: Callable[[int], object] | None = None) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._progress = progress
        self._copier = RangeCopier(self._fd, progress)
        self._ring = _Ring.of(path, expected) if expected >= DIRECT_FROM else None

    def copy(self, path: str, offset: int, size: int) -> None:
        """Appends bytes `offset` to `offset + size` of the file `path`."""
        source = self._copier.source(path)
        if self._ring is not None and self._ring.is_empty() and _can_share(source, self._fd, offset, size):
            self._ring.finish(self._fd, False)
            self._ring = None
        if self._ring is None:
            self._copier.append(path, offset, size)
            return
        while size:
            space = self._ring.space(size)
            count = os.preadv(source, [space], offset)
            if not count:
                raise DamagedError(
                    f"file ends at byte {offset:,}, {size:,} bytes before the end of a tensor", path=path
                )
            self._filled(count)
            offset, size = offset + count, size - count

    def write(self, block: bytes | memoryview) -> None:
        """Appends values."""
        block = memoryview(block).cast("B")
        if self._ring is None:
            self._copier.flush()
            write_all(self._fd, block)
            if self._progress is not None:
                self._progress(len(block))
            return
        while block:
            space = self._ring.space(len(block))
            space[:] = block[: len(space)]
            self._filled(len(space))
            block = block[len(space) :]

    def _filled(self, count: int) -> None:
        self._ring.filled(count)
        if self._progress is not None:
            self._progress(count)

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._ring is not None:
                self._ring.finish(self._fd, kind is None)
            elif kind is None:
                self._copier.flush()
        finally:
            self._copier.close()
            os.close(self._fd)


def _can_share(source: int, out: int, offset: int, size: int) -> bool:
    """Whether the file system lets both files share the bytes (btrfs, XFS): then nothing need be copied at all."""
    if offset % _ALIGNED or size < _ALIGNED:
        return False
    try:
        import fcntl

        fcntl.ioctl(out, _FICLONERANGE, struct.pack("=qQQQ", source, offset, _ALIGNED, 0))
    except (ImportError, OSError):
        return False
    os.ftruncate(out, 0)
    return True


class _Job(NamedTuple):
    buffer: mmap.mmap
    size: int
    offset: int


class _Ring:
    """Aligned buffers that are filled here, in order, and written by threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._full: SimpleQueue[_Job | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._buffer: mmap.mmap | None = None
        self._fill = 0
        self._offset = 0  # in the file, of the buffer that is being filled
        for _ in range(BUFFERS):
            self._free.put(mmap.mmap(-1, BUFFER))
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    @classmethod
    def of(cls, path: str, expected: int) -> _Ring | None:
        """None where the file system has no direct writing."""
        if not hasattr(os, "O_DIRECT"):
            return None
        try:
            fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
        except OSError:
            return None
        try:
            os.posix_fallocate(fd, 0, expected)
        except OSError:
            os.close(fd)
            raise
        return cls(fd)

    def is_empty(self) -> bool:
        """Whether nothing has been put in yet."""
        return self._offset == 0 and self._fill == 0

    def space(self, wanted: int) -> memoryview:
        """Where the next bytes go: `wanted` of them or fewer."""
        if self._error is not None:
            raise self._error
        if self._buffer is None:
            self._buffer = self._free.get()
        return memoryview(self._buffer)[self._fill : self._fill + min(wanted, BUFFER - self._fill)]

    def filled(self, count: int) -> None:
        self._fill += count
        if self._fill == BUFFER:
            self._full.put(_Job(self._buffer, BUFFER, self._offset))
            self._offset += BUFFER
            self._buffer, self._fill = None, 0

    def _write(self) -> None:
        while (job := self._full.get()) is not None:
            try:
                if self._error is None:
                    _write_at(self._fd, job)
            except OSError as error:
                self._error = error
            self._free.put(job.buffer)

    def finish(self, fd: int, complete: bool) -> None:
        """Writes the rest, the last odd bytes through `fd`, and cuts the file to its length."""
        aligned = self._fill // _ALIGNED * _ALIGNED
        if complete and aligned:
            self._full.put(_Job(self._buffer, aligned, self._offset))
        for _ in self._threads:
            self._full.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self._fd)
        if not complete:
            return
        if self._error is not None:
            raise self._error
        if self._fill > aligned:
            os.lseek(fd, self._offset + aligned, os.SEEK_SET)
            write_all(fd, memoryview(self._buffer)[aligned : self._fill])
        os.ftruncate(fd, self._offset + self._fill)


def _write_at(fd: int, job: _Job) -> None:
    done = 0
    view = memoryview(job.buffer)
    while done < job.size:
        done += os.pwrite(fd, view[done : job.size], job.offset + done)
