"""Reads remote files by ranges, so that only what is needed is downloaded.

A checkpoint's index is fetched in a few pieces, small adjacent tensors in larger and larger ones, and a large tensor
block by block. If a large part is needed at once (a block of a V1 file, a frozen graph), it goes into a temporary file,
so that memory does not grow.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RemoteError
from ..tensors import BLOCK
from .mapped import MappedFile
from .remote import File, NoRangesError, error_at, find_file, may_pass, read_range

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LEAST = 16 << 10  # bytes of a request: about as many arrive before the first acknowledgement anyway
_KEPT = 4  # cached answers per file, of BLOCK bytes at most
_WAITS = (0.5, 2.0)  # seconds before a failed request is repeated
_SPARE = 64 << 20  # bytes of disk to leave free


class Answer(NamedTuple):
    """Bytes of a file from `start` on."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RangedFile(MappedFile):
    """A remote file with the interface of a mapped one, usable from any thread. Its parts are copies."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._answers: deque[Answer] = deque(maxlen=_KEPT)
        self._lock = Lock()

    @cached_property
    def _found(self) -> File:
        return find_file(self.path)

    def __len__(self) -> int:
        return self._found.size

    def view(self) -> memoryview:
        """The whole file, in a temporary file unless it is small."""
        return self.part(0, len(self), "the file")

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes `offset` to `offset + size`, in a temporary file if there are many."""
        self.check(offset, size, what)
        if size > BLOCK:
            return self._spooled(offset, size)
        answer = self._answer(offset, size)
        return memoryview(answer.data)[offset - answer.start : offset - answer.start + size]

    def blocks(self, offset: int, size: int, what: str) -> Iterator[memoryview]:
        """The bytes of `part` with one piece in memory at a time."""
        self.check(offset, size, what)
        for start in range(offset, offset + size, BLOCK):
            yield self.part(start, min(BLOCK, offset + size - start), what)

    def _answer(self, offset: int, size: int) -> Answer:
        """An answer that holds these bytes: a cached one, or the answer to a request for these bytes and some more.

        A caller that goes on reading where the last answer ended gets twice as much each time.
        """
        with self._lock:
            kept = list(self._answers)
        for answer in kept:
            if answer.start <= offset and offset + size <= answer.end:
                return answer
        before = max((len(answer.data) for answer in kept if answer.start <= offset <= answer.end), default=0)
        length = min(max(size, LEAST, min(2 * before, BLOCK)), len(self))
        start = min(offset, len(self) - length) if length == LEAST else offset  # shifted to end at the file's last byte
        try:
            answer = Answer(start, self._fetched(start, min(start + length, len(self))))
        except NoRangesError:
            if len(self) > BLOCK:
                raise
            answer = Answer(0, self._fetched(0, len(self)))
        if size < BLOCK:  # pieces of a long tensor are needed only once
            with self._lock:
                self._answers.append(answer)
        return answer

    def _fetched(self, start: int, end: int) -> bytes:
        """Bytes from the server. A request that fails is repeated after each of _WAITS."""
        for wait in (*_WAITS, None):
            try:
                data = read_range(self.path, start, end, self._found) if end > start else b""
                if len(data) == end - start:
                    return data
                error: Exception = EOFError(f"{len(data):,} bytes came, but {end - start:,} were requested")
            except Exception as caught:
                error = caught
            if wait is None or not may_pass(error):
                raise error_at(self.path, error) from error
            time.sleep(wait)
        raise AssertionError

    def _spooled(self, offset: int, size: int) -> memoryview:
        """A part in a mapped temporary file without a name, which disappears with the last view of it."""
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if size > free - _SPARE:
            fact = f"{size:,} of its bytes are needed at once, and {free:,} are free in {tempfile.gettempdir()}"
            raise RemoteError(fact, path=self.path, advice="Set TMPDIR to a folder with more space.")
        with tempfile.TemporaryFile(prefix="ckpt-tools-") as file:
            for block in self.blocks(offset, size, "a part"):
                file.write(block)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


class RangedReader(io.RawIOBase):
    """The same for libraries that need an open file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = RangedFile(path)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._file)}[whence]
        if self._position < 0:
            raise ValueError(f"negative position {self._position}")
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with memoryview(buffer).cast("B") as out:
            size = max(min(len(out), len(self._file) - self._position), 0)
            for at in range(0, size, BLOCK):
                length = min(BLOCK, size - at)
                out[at : at + length] = self._file.part(self._position + at, length, "what is read")
        self._position += size
        return size
