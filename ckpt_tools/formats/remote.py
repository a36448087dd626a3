"""Accesses URLs through fsspec, and turns its exceptions into this project's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, NotACheckpointError, RemoteError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_AT_ONCE = 16  # concurrent requests for sizes of files
_OTHERS = {"az": "adlfs", "abfs": "adlfs"}  # scheme -> library that ckpt-tools[remote] does not install
_VERSION = ("ETag", "etag", "generation", "Last-Modified", "LastModified", "last_modified", "mtime")
_CREDENTIALS = {
    "s3": "Give credentials (aws configure); for a public bucket: export FSSPEC_S3_ANON=true",
    "gs": "Log in: gcloud auth application-default login",
}


class NoRangesError(RemoteError):
    """The server sends files only as a whole."""


class ChangedError(RemoteError):
    """The file changed after parts of it were read."""


class NoPermissionError(RemoteError):
    """The server does not let this user read the URL, or does not say whether anything is there."""


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
    """Size in bytes of each file; None for a path that is not a file."""

    def size(path: str) -> int | None:
        found = _looked_for(path)
        return found["size"] if found is not None and found["type"] == "file" else None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(size, paths))


def list_folder(folder: str) -> list[str]:
    """Names in a folder; none if the server does not list it."""
    system, inner = _system(folder)
    try:
        listed = system.ls(f"{inner.rstrip('/')}/" if _is_http(folder) else inner, detail=False)
    except Exception as error:  # every library has its own exceptions
        if isinstance(found := error_at(folder, error), NoPermissionError | NotACheckpointError):
            return []
        raise found from error
    names = {each.rstrip("/").rpartition("/")[2] for each in listed}
    return [name for name in names if name and "?" not in name]


def nothing_at(path: str, hint: str) -> CheckpointError:
    """The error for a URL at which nothing can be read; `hint` names what is near."""
    for each in (path, f"{path}.index"):
        try:
            details(each)
        except NoPermissionError as error:
            return error
        except NotACheckpointError:
            pass
    return NotACheckpointError(f"there is no such file or checkpoint{hint}", path=path)


def _looked_for(path: str) -> dict[str, Any] | None:
    """The server's details of a path; None if nothing is there. A bucket without permission to list answers "forbidden"
    for missing names, so that counts as nothing, too; `nothing_at` reports it if all else fails."""
    try:
        return details(path)
    except (NotACheckpointError, NoPermissionError):
        return None


def details(path: str) -> dict[str, Any]:
    """Type and size of a path. Raises NotACheckpointError if nothing is there, and RemoteError."""
    system, inner = _system(path)
    try:
        found = system.info(inner)
    except Exception as error:
        raise error_at(path, error) from error
    if _is_http(path) and found.get("url", inner).partition("?")[0].endswith("/"):
        return {**found, "type": "directory"}  # for HTTP everything is a file
    return found


def _system(path: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it. Raises RemoteError, without a path, if a library is missing."""
    scheme = path.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(path, use_listings_cache=False)  # files come and go
    except ImportError as error:
        fact = f"{scheme}:// is read by a library that is not installed ({error})"
        raise RemoteError(fact, advice=f'pip install "{_OTHERS.get(scheme, "ckpt-tools[remote]")}"') from None
    except ValueError as error:
        raise RemoteError(f"cannot be opened ({error})") from None


def _is_http(path: str) -> bool:
    return path.startswith(("http://", "https://"))


# --- its bytes -------------------------------------------------------------------------------------------------------


class File(NamedTuple):
    """A server's details of a file: size in bytes, and values such as an ETag that change when the file is
    rewritten."""

    size: int
    version: dict[str, str]

    def is_other(self, file: File) -> bool:
        common = [name for name in self.version if name in file.version][:1]
        return self.size != file.size or any(self.version[name] != file.version[name] for name in common)


def find_file(path: str) -> File:
    """The details of a file. Raises NotACheckpointError if there is none, RemoteError if it cannot be read by
    ranges."""
    found = details(path)
    if found["size"] is None or not found.get("partial", True):
        raise no_ranges(path)
    return _file(found["size"], found)


def read_range(path: str, start: int, end: int, file: File) -> bytes:
    """Bytes of a file that must not have changed since it was found. Raises ChangedError, and the libraries' errors."""
    system, inner = _system(path)
    if _is_http(path):
        from fsspec.asyn import sync

        data, now = sync(system.loop, _read_http, system, inner, start, end)
    else:
        data, now = system.cat_file(inner, start=start, end=end), find_file(path)
    if now.is_other(file):
        raise ChangedError("was changed while it was read", path=path, advice="Run the command again.")
    return data


async def _read_http(system: AbstractFileSystem, url: str, start: int, end: int) -> tuple[bytes, File]:
    """Requests a range directly, since fsspec's own request downloads the whole file from a server without ranges, and
    does not tell which version of the file the bytes belong to."""
    headers = {**system.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    session = await system.set_session()
    async with session.get(system.encode_url(url), **{**system.kwargs, "headers": headers}) as answer:
        if answer.status == 416:  # the file has become shorter
            return b"", File(0, {})
        answer.raise_for_status()
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status == 206 and size.isdigit():
            return await answer.read(), _file(int(size), answer.headers)
        if (start, answer.content_length) == (0, end):  # the whole file was asked for
            return await answer.read(), _file(end, answer.headers)
        raise no_ranges(url)


def _file(size: int, said: Mapping[str, object]) -> File:
    return File(size, {name: str(said[name]) for name in _VERSION if said.get(name)})


# --- what went wrong -------------------------------------------------------------------------------------------------


def no_ranges(path: str) -> NoRangesError:
    fact = "the server does not send parts of a file (no range requests), and all of it is more than is needed"
    return NoRangesError(fact, path=path, advice=f"Download it: curl -LO {path}")


def error_at(path: str, error: Exception) -> CheckpointError:
    """The error of one sentence for an exception of any library; a NotACheckpointError if nothing is there."""
    if isinstance(error, CheckpointError):
        return error.at(path=path)
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    status = _status(cause)
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return NotACheckpointError("there is no such file", path=path)
    if "NoSuchBucket" in str(cause):
        return RemoteError("there is no such bucket", path=path)
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    named = "Credentials" in type(cause).__name__ or said.startswith("Forbidden")  # as botocore and gcsfs say it
    if isinstance(cause, PermissionError) or status in (401, 403) or named:
        scheme = path.partition("://")[0]
        said = f"{status} {_phrase(cause)}".strip() if status else said
        return NoPermissionError(f"no permission to read it ({said})", path=path, advice=_CREDENTIALS.get(scheme))
    if isinstance(cause, ValueError) and "range" in str(cause):
        return no_ranges(path)
    if status:
        return RemoteError(f"the server answers {status} {_phrase(cause)}".rstrip(), path=path)
    return RemoteError(f"cannot be read ({said})", path=path)


def _status(error: BaseException) -> int | None:
    """The HTTP status in an exception of aiohttp or gcsfs."""
    for name in ("status", "code"):
        if str(value := getattr(error, name, "")).isdigit():
            return int(value)
    return None


def _phrase(error: BaseException) -> str:
    """The first line of aiohttp's message for a status."""
    return str(getattr(error, "message", "")).partition("\n")[0]


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, CheckpointError | FileNotFoundError | PermissionError | ValueError):
        return False
    status = _status(error)
    return status is None or status == 429 or status >= 500
