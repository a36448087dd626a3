"""Access to local files and to URLs, which fsspec reads by ranges (gs://, s3://, https://, ...).

Only this module tells the two apart; all readers go through it. Nothing is imported for local files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from ..errors import CheckpointError, NotACheckpointError, OutputError
from .mapped import MappedFile

if TYPE_CHECKING:
    from types import ModuleType

_URL = re.compile(r"[A-Za-z][\w+.-]+:/")  # at least two letters, since C:/ is a drive


def is_remote(path: str) -> bool:
    """Whether a source is a URL.

    >>> is_remote("gs://bucket/model.ckpt"), is_remote("model.ckpt:scope"), is_remote("C:/model.ckpt")
    (True, False, False)
    """
    return "://" in path and _URL.match(path) is not None


def has_query(path: str) -> bool:
    """Whether a URL has a query after the name of its file, such as a signed URL."""
    return path.startswith(("http://", "https://")) and "=" in path.partition("?")[2]


def _remote() -> ModuleType:
    from . import remote

    return remote


def _ranged() -> ModuleType:
    from . import ranged

    return ranged


def mapped(path: str) -> MappedFile:
    """The bytes of a file: memory-mapped, or fetched by ranges on demand."""
    return _ranged().RangedFile(path) if is_remote(path) else MappedFile(path)


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading. Raises OSError, or RemoteError for a URL."""
    return _ranged().RangedReader(path) if is_remote(path) else open(path, "rb")


def openable(path: str) -> str | BinaryIO:
    """The argument for a library that opens files itself: the path, or a URL as an open file."""
    return _ranged().RangedReader(path) if is_remote(path) else path


def download(url: str, path: str) -> None:
    """Downloads a file piece by piece. Raises RemoteError, and OSError if `path` cannot be written."""
    file = mapped(url)
    with open(path, "wb") as out:
        for block in file.blocks(0, len(file), "the file"):
            out.write(block)


def is_file(path: str) -> bool:
    return _remote().is_file(path) if is_remote(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    return _remote().is_folder(path) if is_remote(path) else os.path.isdir(path)


def exists(path: str) -> bool:
    """Whether anything has this name, even a broken link."""
    return _remote().exists(path) if is_remote(path) else os.path.lexists(path)


def sizes(paths: Sequence[str]) -> list[int | None]:
    """Size in bytes of each file; None for a path that is not a file. URLs are requested concurrently."""
    if paths and is_remote(paths[0]):
        return _remote().sizes(paths)
    return [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]


def list_folder(folder: str) -> list[str]:
    """Sorted names in a folder; none for a URL that cannot be listed. Raises OSError."""
    return sorted(_remote().list_folder(folder) if is_remote(folder) else os.listdir(folder or "."))


def nothing_at(path: str, hint: str) -> CheckpointError:
    """The error for a path where nothing exists, or for a URL that must not be read."""
    if is_remote(path):
        return _remote().nothing_at(path, hint)
    return NotACheckpointError(f"there is no such file or checkpoint{hint}", path=path)


def beside(folder: str) -> list[str]:
    """The names of files that may be opened just to give better advice; none for a URL, where each look is a
    request."""
    try:
        return [] if is_remote(folder) else list_folder(folder)
    except OSError:
        return []


def absolute(path: str) -> str:
    """The absolute path; a URL is returned as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def check_local(path: str | os.PathLike[str]) -> None:
    """Raises OutputError if a path to be written is a URL."""
    if _URL.match(os.fspath(path)):
        fact = "is a URL, and files are written to folders of this machine only"
        raise OutputError(fact, path=path, advice="Write them here, then copy all of them there.")
