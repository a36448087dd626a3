"""Unpacks tar archives into a temporary folder; every member is checked first."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import tempfile
import zlib

from ..errors import DamagedError, NotACheckpointError
from .storage import open_file

SPARE = 64 << 20  # bytes of disk to leave free


def unpack(path: str) -> tempfile.TemporaryDirectory[str]:
    """Unpacks the archive; the folder lives as long as the returned object.

    Raises NotACheckpointError for a member that would be written outside the folder or is not a plain file (links,
    devices): no checkpoint has one, so the archive is not trusted. Raises DamagedError if the archive is cut off.
    """
    folder = tempfile.TemporaryDirectory(prefix="ckpt-tools-")
    try:
        with open_file(path) as packed, tarfile.open(fileobj=packed, mode="r|*") as archive:
            for member in archive:
                _check(member, path, folder.name)
                if member.isfile():
                    _unpack_member(archive, member, folder.name)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DamagedError(f"the archive is cut off or damaged ({error})", path=path, advice="Copy it again.") from None
    return folder


def _check(member: tarfile.TarInfo, path: str, folder: str) -> None:
    name = member.name
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":" or "\0" in name:
        raise NotACheckpointError(f"the archive is refused: its member {name!r} lies outside of it", path=path)
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise NotACheckpointError(
            f"the archive is refused: its member {name!r} is a link, a device or a sparse file", path=path
        )
    free = shutil.disk_usage(folder).free
    if member.size > free - SPARE:
        raise NotACheckpointError(
            f"its member {name!r} takes {member.size:,} bytes, and {free:,} are free in {os.path.dirname(folder)}",
            path=path,
            advice="Set TMPDIR to a folder with more space.",
        )


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    target = os.path.join(folder, os.path.normpath(member.name))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        raise DamagedError(f"the archive has the member {member.name!r} twice")
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    with content as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
