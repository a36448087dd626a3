"""Paths as TensorFlow can take them: it wants UTF-8, and a file system may hold names of other encodings."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


def tensorflow_path(path: str | os.PathLike[str]) -> str:
    """The path itself or, where it is not UTF-8, a link to it that lasts until the process ends.
    What is not there yet needs a name in UTF-8 in a folder that is there.
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
