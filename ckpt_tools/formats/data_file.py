"""Writes tensors to a file one after the other: ranges copied from other files, and blocks of values.

A checkpoint must be on disk before it is moved into place, so the disk is given work early. Space is allocated before
the first byte, since page by page allocation slows writing down, and each block goes to the disk as soon as it is in
the page cache, while the next is copied. This takes less time than `cp` and `sync` (benchmarks/bench_surgery.py).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from types import TracebackType

from ..errors import DamagedError
from .proto import Bytes

BLOCK = 32 << 20  # bytes copied or written at once; after each, `progress` is called and the disk gets its work
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}
_SHARED = 4096  # bytes, the block size of the file systems that can share blocks
_FICLONERANGE = 0x4020940D  # linux/fs.h
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # otherwise Windows would change line endings


class DataFile:
    """Writes `path`; `expected` is its approximate size in bytes.

        with DataFile(path, expected) as out:
            out.copy(stored.path, stored.offset, stored.size)
            out.write(array_bytes)

    A range that begins where the last one ended is merged with it, so that renaming all tensors of a bundle takes only
    a handful of system calls. `progress` is called with the number of bytes just written. Raises DamagedError if a
    source ends before its range does, and OSError as the system reports it."""

    def __init__(self, path: str, expected: int = 0, progress: Callable[[int], object] | None = None) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _PLAIN, 0o666)
        self._expected = expected
        self._progress = progress
        self._sources: dict[str, int] = {}
        self._path, self._start, self._end = "", 0, 0  # the range that is still to be copied
        self._size = 0
        self._given = 0  # bytes already handed to the disk

    def copy(self, path: str, offset: int, size: int) -> None:
        """Appends bytes `offset` to `offset + size` of the file `path`, either now or merged with following ranges."""
        if path != self._path or offset != self._end:
            self._flush()
            self._path, self._start = path, offset
        self._end = offset + size

    def write(self, block: Bytes) -> None:
        """Appends values."""
        self._flush()
        self._allocate()
        for count in written(self._fd, block):
            self._written(count)

    def _flush(self) -> None:
        """Copies the range merged so far."""
        path, offset, end = self._path, self._start, self._end
        self._path, self._start, self._end = "", 0, 0
        if offset == end:
            return
        source = self._source(path)
        if self._expected and not _can_share(source, self._fd, offset, end - offset):
            self._allocate()
        while offset < end:
            count = _copy_some(source, self._fd, offset, min(BLOCK, end - offset))
            if not count:
                fact = f"file ends at byte {offset:,}, {end - offset:,} bytes before the end of a tensor"
                raise DamagedError(fact, path=path)
            offset += count
            self._written(count)

    def _source(self, path: str) -> int:
        if path not in self._sources:
            self._sources[path] = os.open(path, os.O_RDONLY | _PLAIN)
        return self._sources[path]

    def _allocate(self) -> None:
        """Allocates the expected space before the first byte, so that a full disk is noticed here."""
        wanted, self._expected = self._expected, 0
        if self._size < wanted and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, wanted)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise

    def _written(self, count: int) -> None:
        self._size += count
        if self._size - self._given >= BLOCK:
            hand_over(self._fd, self._given, self._size)
            self._given = self._size
        if self._progress is not None:
            self._progress(count)

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                os.ftruncate(self._fd, self._size)
        finally:
            for descriptor in (self._fd, *self._sources.values()):
                os.close(descriptor)


def written(descriptor: int, block: Bytes) -> Iterator[int]:
    """Writes a block at the file's position, yielding the number of bytes of each part; if the disk fills up, the last
    part may be short. Raises OSError as the system reports it."""
    rest = memoryview(block).cast("B")
    while rest:
        count = os.write(descriptor, rest[:BLOCK])
        yield count
        rest = rest[count:]


def hand_over(descriptor: int, start: int, end: int) -> None:
    """Starts writing bytes `start` to `end` of a file to disk without waiting, if the system can: declaring cached
    pages unneeded makes it write them."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


def _can_share(source: int, out: int, offset: int, size: int) -> bool:
    """Whether the file system can share the bytes between both files (btrfs, XFS). Then nothing needs to be copied, and
    preallocated space would be in the way."""
    if offset % _SHARED or size < _SHARED:
        return False
    at = os.lseek(out, 0, os.SEEK_CUR)
    if at % _SHARED:
        return False
    try:
        import fcntl

        fcntl.ioctl(out, _FICLONERANGE, struct.pack("=qQQQ", source, offset, _SHARED, at))
    except (ImportError, OSError):
        return False
    return True


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
    os.lseek(source, offset, os.SEEK_SET)
    return os.write(out, os.read(source, min(size, 1 << 20)))
