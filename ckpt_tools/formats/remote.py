"""Files behind URLs, read by ranges through fsspec: nothing is downloaded but what is asked for.

A checkpoint's index is asked for in a few pieces, small tensors that lie side by side in larger and larger ones, and a
large tensor block by block. Where all of a large part is needed at once (a block of a V1 file, a frozen graph), it is
put into a temporary file, so that memory does not grow.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CheckpointError, NotACheckpointError, RemoteError
from ..tensors import BLOCK
from .mapped import MappedFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LEAST = 16 << 10  # bytes of a request: about what arrives before the first acknowledgement anyway
_KEPT = 4  # answers that a file keeps, of BLOCK bytes at most
_AT_ONCE = 16  # files whose size is asked for side by side
_WAITS = (0.5, 2.0)  # seconds before a request that broke off is made again
_SPARE = 64 << 20  # bytes of disk that are left free
_INSTALL = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_CREDENTIALS = {
    "s3": "Give credentials (aws configure); for a public bucket: export FSSPEC_S3_ANON=true",
    "gs": "Log in: gcloud auth application-default login",
}


class NoRangesError(RemoteError):
    """The server sends files only as a whole."""


class NoPermissionError(RemoteError):
    """The server lets nobody, or not this user, read the URL; or will not say whether there is anything."""


# --- what is there ---------------------------------------------------------------------------------------------------


def is_file(path: str) -> bool:
    found = _looked_for(path)
    return found is not None and found["type"] == "file"


def is_folder(path: str) -> bool:
    found = _looked_for(path)
    return found is not None and found["type"] == "directory"


def exists(path: str) -> bool:
    return _looked_for(path) is not None


def sizes(paths: Sequence[str]) -> list[int | None]:
    """Bytes of each file, None for what is none."""

    def size(path: str) -> int | None:
        found = _looked_for(path)
        return found["size"] if found is not None and found["type"] == "file" else None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(size, paths))


def list_folder(folder: str) -> list[str]:
    """Names in a folder; none where the server lists nothing."""
    system, inner = _system(folder)
    try:
        listed = system.ls(f"{inner.rstrip('/')}/" if _is_http(folder) else inner, detail=False)
    except Exception as error:  # every library has exceptions of its own
        if isinstance(found := _error(folder, error), NoPermissionError | NotACheckpointError):
            return []
        raise found from error
    found = {each.rstrip("/").rpartition("/")[2] for each in listed}
    return [name for name in found if name and "?" not in name]


def nothing_at(path: str, hint: str) -> CheckpointError:
    """The error for a URL with nothing behind it that can be read; `hint` says what lies near."""
    for each in (path, f"{path}.index"):
        try:
            _info(each)
        except NoPermissionError as error:
            return error
        except NotACheckpointError:
            pass
    return NotACheckpointError(f"there is no such file or checkpoint{hint}", path=path)


def _looked_for(path: str) -> dict | None:
    """What the server says of a path; None where nothing is there. A bucket that may not be listed answers "forbidden"
    for names that are not there, so that counts as none; `nothing_at` says it when all else fails."""
    try:
        return _info(path)
    except (NotACheckpointError, NoPermissionError):
        return None


def _info(path: str) -> dict:
    """Type and size. Raises NotACheckpointError where nothing is there, and RemoteError."""
    system, inner = _system(path)
    try:
        found = system.info(inner)
    except Exception as error:
        raise _error(path, error) from error
    if _is_http(path) and found.get("url", inner).partition("?")[0].endswith("/"):
        return {**found, "type": "directory"}  # as HTTP has it, to which all are files
    return found


def _system(path: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it. Raises RemoteError, of no path, where a library is missing."""
    scheme = path.partition("://")[0].lower()
    package = "ckpt-tools[remote]"
    try:
        from fsspec.core import url_to_fs

        package = _INSTALL.get(scheme, package)
        return url_to_fs(path, use_listings_cache=False)  # files come and go
    except ImportError as error:
        fact = f"{scheme}:// is read by a library that is not installed ({error})"
        raise RemoteError(fact, advice=f'pip install "{package}"') from None
    except ValueError as error:
        raise RemoteError(f"cannot be opened ({error})") from None


def _is_http(path: str) -> bool:
    return path.startswith(("http://", "https://"))


# --- its bytes -------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """Bytes of a file from `start` on."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RangedFile(MappedFile):
    """A file behind a URL, to be used as one that is mapped, by any thread. The parts are copies."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._size: int | None = None
        self._answers: deque[Answer] = deque(maxlen=_KEPT)
        self._lock = Lock()

    def __len__(self) -> int:
        if self._size is None:
            found = _info(self.path)
            if found["size"] is None or not found.get("partial", True):
                raise _no_ranges(self.path)
            self._size = found["size"]
        return self._size

    def view(self) -> memoryview:
        """The whole file, downloaded to a temporary file unless it is small."""
        return self.part(0, len(self), "the file")

    def part(self, offset: int, size: int, what: str) -> memoryview:
        """Bytes `offset` to `offset + size`: in a temporary file where they are many."""
        self.check(offset, size, what)
        if size > BLOCK:
            return self._spooled(offset, size)
        answer = self._answer(offset, size)
        return memoryview(answer.data)[offset - answer.start : offset - answer.start + size]

    def blocks(self, offset: int, size: int, what: str) -> Iterator[memoryview]:
        """What `part` gives, one piece in memory at a time."""
        self.check(offset, size, what)
        for start in range(offset, offset + size, BLOCK):
            yield self.part(start, min(BLOCK, offset + size - start), what)

    def _answer(self, offset: int, size: int) -> Answer:
        """An answer that holds these bytes: a kept one, or that to a request for them and for more.

        Whoever reads on where the last answer ended will do so again: each time twice as much is asked for.
        """
        with self._lock:
            kept = list(self._answers)
        for answer in kept:
            if answer.start <= offset and offset + size <= answer.end:
                return answer
        before = max((len(answer.data) for answer in kept if answer.start <= offset <= answer.end), default=0)
        length = min(max(size, LEAST, min(2 * before, BLOCK)), len(self))
        start = min(offset, len(self) - length) if length == LEAST else offset  # the end of a file with its last bytes
        try:
            answer = Answer(start, self._fetched(start, min(start + length, len(self))))
        except NoRangesError:
            if len(self) > BLOCK:
                raise
            answer = Answer(0, self._fetched(0, len(self)))
        if size < BLOCK:  # a piece of a long tensor is asked for once
            with self._lock:
                self._answers.append(answer)
        return answer

    def _fetched(self, start: int, end: int) -> bytes:
        """Bytes from the server. A request that breaks off is made again, as often as _WAITS says."""
        for wait in (*_WAITS, None):
            try:
                data = self._request(start, end) if end > start else b""
                if len(data) == end - start:
                    return data
                error: Exception = EOFError(f"{len(data):,} bytes came where {end - start:,} were asked for")
            except Exception as caught:
                error = caught
            if wait is None or not _may_pass(error):
                raise _error(self.path, error) from error
            time.sleep(wait)
        raise AssertionError

    def _request(self, start: int, end: int) -> bytes:
        system, inner = _system(self.path)
        if not _is_http(self.path):
            return system.cat_file(inner, start=start, end=end)
        # The same of HTTP would take the whole file from a server that knows no ranges.
        with system.open(inner, "rb", block_size=end - start, cache_type="none", size=len(self)) as file:
            file.seek(start)
            return file.read(end - start)

    def _spooled(self, offset: int, size: int) -> memoryview:
        """A part in a temporary file that nobody else sees, mapped; it goes with the last view of it."""
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
    """The same for libraries that want an open file."""

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

    def readinto(self, buffer: bytearray | memoryview) -> int:
        size = max(min(len(buffer), len(self._file) - self._position), 0)
        with memoryview(buffer).cast("B") as out:
            for at in range(0, size, BLOCK):
                length = min(BLOCK, size - at)
                out[at : at + length] = self._file.part(self._position + at, length, "what is read")
        self._position += size
        return size


# --- what went wrong -------------------------------------------------------------------------------------------------


def _no_ranges(path: str) -> NoRangesError:
    fact = "the server does not send parts of a file (no range requests), and all of it is more than is needed"
    return NoRangesError(fact, path=path, advice=f"Download it: curl -LO {path}")


def _error(path: str, error: Exception) -> CheckpointError:
    """One sentence from the exceptions of whichever library; NotACheckpointError where nothing is there."""
    if isinstance(error, CheckpointError):
        return error.at(path=path)
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    status = _status(cause)
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return NotACheckpointError("there is no such file", path=path)
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if isinstance(cause, PermissionError) or status in (401, 403) or "Credentials" in type(cause).__name__:
        scheme = path.partition("://")[0]
        said = f"{status} {getattr(cause, 'message', '')}".strip() if status else said
        return NoPermissionError(f"no permission to read it ({said})", path=path, advice=_CREDENTIALS.get(scheme))
    if isinstance(cause, ValueError) and "range" in str(cause):
        return _no_ranges(path)
    if status:
        return RemoteError(f"the server answers {status} {getattr(cause, 'message', '')}".rstrip(), path=path)
    return RemoteError(f"cannot be read ({said})", path=path)


def _status(error: BaseException) -> int | None:
    """The HTTP status in an exception of aiohttp or gcsfs."""
    for name in ("status", "code"):
        if str(value := getattr(error, name, "")).isdigit():
            return int(value)
    return None


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, CheckpointError | FileNotFoundError | PermissionError | ValueError):
        return False
    status = _status(error)
    return status is None or status == 429 or status >= 500
