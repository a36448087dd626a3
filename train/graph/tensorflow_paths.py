"""Paths for TensorFlow, which requires UTF-8, while a file system may hold names in other encodings."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


def tensorflow_path(path: str | os.PathLike[str]) -> str:
    """The path itself or, if it is not UTF-8, a link to it that exists until the process ends.
    A file that does not exist yet needs a UTF-8 name in an existing folder.
    """
    path = Path(path)
    if is_utf8(str(path)):
        return str(path)
    return f"{_link(path.parent.absolute())}/{path.name}" if is_utf8(path.name) else _link(path.absolute())


def is_utf8(text: str) -> bool:
    """Whether a name is UTF-8, not bytes that Python could not decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _link(target: Path) -> str:
    folder = tempfile.mkdtemp(prefix="ckpt-tools-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = Path(folder, "link")
    link.symlink_to(target)
    return str(link)
