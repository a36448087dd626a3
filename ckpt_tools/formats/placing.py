"""Moves finished files to their final names, so that a reader always finds either the old checkpoint or the new one.

A single file takes one rename. A V2 checkpoint has several files, found through its index, so the index moves last:

    no old index, or one with another number of shards
        rename the data files; rename the index; remove the data files of the old index
    an old index whose data files have the same names
        1. rename the new data files to those of an unused shard count M: `m.data-00000-of-00003`
        2. rename an index that claims M shards to `m.index`: from here on the checkpoint is the new one
        3. hard-link the data files to their final names, over the old ones, which no index needs any more
        4. rename the real index to `m.index`, then remove the names of step 1

Each step is on disk before the next begins. If a kill or a power cut stops this anywhere, the index and the files that
it points to still belong together. On a file system without hard links, the second way ends after step 2: a checkpoint
whose data files are called `-of-0000M` is valid, since a shard without tensors may be absent.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping

from ..errors import OutputError
from .bundle_index import shard_path
from .mapped import release
from .proto import put_varint, varint
from .sstable import Table, TableWriter, entries
from .storage import check_local, list_folder

WRITING = ".writing"  # suffix of a text file's name until it is complete
_SHARD = re.compile(r"\.data-(\d{5,})-of-(\d{5,})\Z")


def shards_beside(prefix: str) -> dict[str, tuple[int, int]]:
    """All data files at `prefix`, whatever checkpoint they belong to: path -> (shard, number of shards)."""
    folder, name = os.path.split(prefix)
    found = {}
    for entry in list_folder(folder):
        if entry.startswith(name + ".data-") and (match := _SHARD.fullmatch(entry, len(name))):
            found[os.path.join(folder, entry)] = (int(match[1]), int(match[2]))
    return found


def place_file(made: str, target: str, sidecar: str) -> None:
    """Moves a single-file checkpoint into place. A V2 checkpoint of the same name, which would hide it, is removed."""
    replace(sidecar, target + ".provenance.json")
    replace(made, target)
    sync_folder(target)
    if os.path.isfile(target + ".index"):
        unlink(target + ".index")  # readers look for this first, so this removes the old checkpoint
        _remove(shards_beside(target))


def place_bundle(made: str, prefix: str, sidecar: str) -> None:
    """Moves a complete V2 checkpoint from the prefix `made` to `prefix`."""
    old = shards_beside(prefix)
    new = shards_beside(made)
    names = {now: shard_path(prefix, *place) for now, place in new.items()}
    taken = [then for now, then in names.items() if os.path.exists(then) and not os.path.samefile(now, then)]
    if taken and os.path.exists(prefix + ".index"):
        kept = _place_over(made, prefix, names, sidecar)
    else:
        kept = _place_beside(made, prefix, names, sidecar)
    _remove([path for path in old if path not in kept])
    if os.path.isfile(prefix):  # a V1 file of this name is stale, and now hidden by the index
        unlink(prefix)
    sync_folder(prefix)


def _place_beside(made: str, prefix: str, names: Mapping[str, str], sidecar: str) -> set[str]:
    moved: list[str] = []
    try:
        for now, then in names.items():
            if not os.path.exists(then):
                moved.append(then)
            replace(now, then)
        replace(sidecar, prefix + ".provenance.json")
        sync_folder(prefix)
        replace(made + ".index", prefix + ".index")
    except OSError:
        _remove(moved)
        raise
    sync_folder(prefix)
    return set(names.values())


def _place_over(made: str, prefix: str, names: Mapping[str, str], sidecar: str) -> set[str]:
    new = shards_beside(made)
    used = {number for _, number in shards_beside(prefix).values()}
    free = max(used) + 1
    passing = {now: shard_path(prefix, shard, free) for now, (shard, _) in new.items()}
    can_link = _links_work(made)
    _write_index_of(made + ".index", free, made + ".passing")
    sync_file(made + ".passing")
    try:
        for now, then in passing.items():
            replace(now, then)
        replace(sidecar, prefix + ".provenance.json")
        sync_folder(prefix)
        replace(made + ".passing", prefix + ".index")
    except OSError:
        _remove(passing.values())
        raise
    sync_folder(prefix)
    if not can_link:
        return set(passing.values())
    for now, then in names.items():
        link(passing[now], now)
        replace(now, then)
    sync_folder(prefix)
    replace(made + ".index", prefix + ".index")
    sync_folder(prefix)
    _remove(passing.values())
    return set(names.values())


def _write_index_of(index: str, count: int, path: str) -> None:
    """Writes a copy of `index` that claims `count` data files to `path`."""
    table = Table(index)
    with open(path, "wb") as out:
        writer = TableWriter(out)
        for block in table.blocks:
            for key, value in zip(*entries(table.read(block.handle)), strict=True):
                writer.add(key, _header_of(value, count) if key == b"" else value)
        writer.finish()


def digest_of_index(index: str) -> str:
    """SHA-256 of an index apart from its number of data files, which differs in step 2 above."""
    digest, table = hashlib.sha256(), Table(index)
    for block in table.blocks:
        for key, value in zip(*entries(table.read(block.handle)), strict=True):
            record = _header_of(value, 0) if key == b"" else bytes(value)
            digest.update(f"{len(key)} {len(record)} ".encode() + bytes(key) + record)
    return digest.hexdigest()


def _header_of(value: bytes, count: int) -> bytes:
    """The header record with its first field, the number of shards, set to `count`."""
    _, end = varint(value, 1, len(value))
    return value[:1] + put_varint(count) + value[end:]


def _links_work(made: str) -> bool:
    try:
        link(made + ".index", made + ".linked")
    except OSError:
        return False
    unlink(made + ".linked")
    return True


def link(path: str, new: str) -> None:
    """Makes a hard link. Raises OSError if the system has none."""
    if not hasattr(os, "link"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)
    os.link(path, new)


def replace(now: str, then: str) -> None:
    """Renames a file, replacing an existing one. Raises OutputError if that cannot be replaced, such as an open file on
    Windows."""
    _with_closed(os.replace, now, then)


def unlink(path: str) -> None:
    """Removes a file. Raises OutputError if it cannot be removed."""
    _with_closed(os.unlink, path)


def _with_closed(change: Callable[..., None], *paths: str) -> None:
    """Makes a change to files; if permission is denied, closes our own maps of them and tries again."""
    try:
        return change(*paths)
    except PermissionError:
        if not os.path.lexists(paths[-1]):
            raise
    release(*paths)
    try:
        change(*paths)
    except PermissionError as error:
        fact = "cannot be replaced or removed: it is protected, or open in this or in another program"
        raise OutputError(fact, path=paths[-1], advice="Write to another name.") from error


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        if os.path.lexists(path):
            unlink(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file like `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # names of files may not be UTF-8


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that it is always either the old one or the new one. A symbolic link stays a link; anything that
    is not a regular file, such as /dev/stdout, is written to directly. Raises OSError."""
    check_local(path)
    target = os.path.realpath(path)
    into_place = os.path.isfile(target) or not os.path.exists(target)
    written = f"{target}{WRITING}" if into_place else target
    try:
        with open(written, "wb") as file:
            file.write(data)
        if into_place:
            sync_file(written)
            replace(written, target)
    finally:
        if into_place:
            _remove([written])


def sync_file(path: str) -> None:
    """Waits until the file's bytes are on disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows requires write access
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Waits until the names in the folder of `path` are on disk, if the system can tell."""
    folder = os.path.dirname(path) or "."
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return  # Windows, some network file systems
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
