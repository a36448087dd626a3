"""Opens any source: finds out its format, reads it with the format's module, and selects a scope if one is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ..errors import CheckpointError, DamagedError, NotACheckpointError, SelectionError, nearest
from ..tensors import Tensor, Tensors
from . import reader
from .checkpoint import Checkpoint
from .detect import identify
from .renamed import misnamed
from .sources import is_shard_name, resolve, v1_shards
from .storage import exists, is_remote

_Read = TypeVar("_Read")


def open_source(source: str, names: str = "variable") -> Checkpoint:
    """Opens any source; see `open_checkpoint`."""
    if names not in ("variable", "stored"):
        raise SelectionError(f"names are 'variable' or 'stored', not {names!r}")
    path, scope = split_scope(source)
    found = resolve(path)
    module = reader(found.format)
    if found.format == "v2":
        opened = _open_v2(found.path, names)
    elif found.format == "v1":
        opened = module.read(found.path, files=found.files)
    else:
        opened = module.read(found.path)
    tensors = opened.tensors
    if found.holds:
        tied = ((name, _tied(tensor, found.holds)) for name, tensor in tensors.items())
        tensors = Tensors(tied, tensors.stored_names)
    note = "; ".join(filter(None, [found.note, opened.note]))
    holds = opened.holds + found.holds
    archive, format = path if found.holds else "", found.shown_as or opened.format
    opened = opened._replace(tensors=tensors, note=note, holds=holds, archive=archive, format=format)
    return opened._replace(tensors=under_scope(opened.tensors, scope, path)) if scope else opened


def _held(holds: object, read: Callable[[], _Read]) -> _Read:
    """Calls `read`; a `partial` of this function keeps `holds` alive."""
    return read()


def _tied(tensor: Tensor, holds: object) -> Tensor:
    """The tensor, which now keeps `holds` alive, such as the folder of an unpacked archive."""
    return tensor._replace(
        load=partial(_held, holds, tensor.load),
        stream=tensor.stream and partial(_held, holds, tensor.stream),
        slices=tuple(part._replace(tensor=_tied(part.tensor, holds)) for part in tensor.slices),
    )


def _open_v2(prefix: str, names: str) -> Checkpoint:
    try:
        return reader("v2").read(prefix, names=names)
    except (NotACheckpointError, DamagedError):
        index = prefix + ".index"
        kind = identify(index)
        if kind.name == "v2_index" or (kind.name == "v1" and not _is_v1(index)):
            raise
        raise misnamed(index, kind) from None


def _is_v1(path: str) -> bool:
    try:
        return bool(reader("v1").read(path).tensors)
    except CheckpointError:
        return False


def split_scope(source: str) -> tuple[str, str]:
    """Splits `SRC:scope/prefix` into SRC and scope; but an existing file with a colon in its name is taken whole."""
    first = source.find("/", source.find("://") + 3) if is_remote(source) else 0  # a URL may have a port
    if ":" not in source[first:] or first < 0 or _exists(source):
        return source, ""
    at = len(source)
    while (at := source.rfind(":", first, at)) > 0:
        if _exists(source[:at]):
            return source[:at], source[at + 1 :].strip("/")
    return source, ""


def under_scope(tensors: Tensors, scope: str, path: str) -> Tensors:
    """The tensors under a scope, with the scope removed from their names. Raises SelectionError if there are none."""
    start = scope + "/"
    kept = {name[len(start) :]: name for name in tensors if name.startswith(start)}
    if not kept:
        scopes = {name[:i] for name in tensors for i, c in enumerate(name) if c == "/"}
        raise SelectionError(f"has no scope {scope!r}{nearest(scope, scopes)}", path=path)
    stored = {new: tensors.stored_names[old] for new, old in kept.items() if old in tensors.stored_names}
    return Tensors(((new, tensors[old]) for new, old in kept.items()), stored)


def _exists(path: str) -> bool:
    return exists(path) or exists(path + ".index") or is_shard_name(path) or bool(v1_shards(path))
