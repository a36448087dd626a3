"""Copies byte ranges from checkpoint files to a new one inside the kernel, neighbouring ranges in one go."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from types import TracebackType

from ..errors import DamagedError

CHUNK = 32 << 20  # bytes asked of the kernel at once; also how often `progress` hears of it
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}


class RangeCopier:
    """Appends ranges of source files to `out`, an open and unbuffered file, in the order they are given.

    A range that begins where the last one ended is merged with it, so that renaming every tensor of a bundle
    costs a handful of system calls. `flush()` before writing to `out` by other means; leaving the `with` flushes.

        with open(target, "wb", buffering=0) as out, RangeCopier(out.fileno()) as copier:
            copier.append(stored.path, stored.offset, stored.size)

    Raises DamagedError when a source ends before its range does, OSError as the system reports it.
    """

    def __init__(self, out: int, progress: Callable[[int], object] | None = None) -> None:
        self._out = out
        self._progress = progress
        self._sources: dict[str, int] = {}
        self._path, self._start, self._end = "", 0, 0

    def append(self, path: str, offset: int, size: int) -> None:
        """Copies `size` bytes at `offset` of the file `path`, now or together with the ranges that follow."""
        if path != self._path or offset != self._end:
            self.flush()
            self._path, self._start = path, offset
        self._end = offset + size

    def source(self, path: str) -> int:
        """The descriptor of a source, opened once."""
        if path not in self._sources:
            self._sources[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._sources[path]

    def flush(self) -> None:
        """Copies what has been merged so far."""
        path, offset, end = self._path, self._start, self._end
        self._path, self._start, self._end = "", 0, 0
        if offset == end:
            return
        source = self.source(path)
        while offset < end:
            copied = _copy_some(source, self._out, offset, min(CHUNK, end - offset))
            if not copied:
                raise DamagedError(
                    f"file ends at byte {offset:,}, {end - offset:,} bytes before the end of a tensor"
                ).at(path=path)
            offset += copied
            if self._progress is not None:
                self._progress(copied)

    def close(self) -> None:
        """Closes the sources; `out` is the caller's."""
        while self._sources:
            os.close(self._sources.popitem()[1])

    def __enter__(self) -> RangeCopier:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()


def _copy_some(source: int, out: int, offset: int, size: int) -> int:
    """Copies up to `size` bytes to the position of `out` by the fastest means that works; 0 at the end of `source`."""
    if hasattr(os, "copy_file_range"):
        try:
            if copied := os.copy_file_range(source, out, size, offset):
                return copied
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    if hasattr(os, "sendfile"):
        try:
            if copied := os.sendfile(out, source, offset, size):
                return copied
        except OSError as error:
            if error.errno not in _CANNOT | {errno.ENOTSOCK}:
                raise
    return write_all(out, os.pread(source, min(size, 1 << 20), offset))


def write_all(out: int, block: bytes | memoryview) -> int:
    """Writes all of `block` at the position of `out`, however many calls it takes."""
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(out, rest) :]
    return len(block)
