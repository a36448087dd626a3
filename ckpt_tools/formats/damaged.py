"""Opens what is left of a damaged checkpoint, for `verify`, and reports the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import CheckpointError, DamagedError
from ..tensors import Tensors
from . import reader, slices, v1, v2
from .bundle import Bundle, Report
from .bundle_index import shard_path
from .checkpoint import Checkpoint
from .detect import identify, refusal
from .placing import shards_beside
from .proto import raw
from .sources import Resolved, resolve, v1_shards
from .storage import is_file, sizes
from .walk import WalkedFile


class Shard(NamedTuple):
    """A data file of a V2 checkpoint: its size in bytes (None if it is missing), and the least size by the index."""

    path: str
    size: int | None
    needed: int


def open_damaged(source: str, report: Report) -> Checkpoint:
    """Like `open_checkpoint` with stored names, but damaged parts are left out and passed to `report` as errors.

    If nothing can be reached, the checkpoint has no tensors.
    Raises NotACheckpointError if there is no trace of a checkpoint.
    """
    try:
        found = resolve(source)
    except CheckpointError as error:
        found = _what_is_left(source, error)
        if found.files:
            report(error)  # for a single file, opening it gives a better error
    try:
        return _open(found, report)._replace(holds=found.holds, archive=source if found.holds else "")
    except DamagedError as error:
        report(error.at(path=found.path))
        return Checkpoint(Tensors(), found.format, found.path, found.files, holds=found.holds)


def _open(found: Resolved, report: Report) -> Checkpoint:
    if found.format == "v2":
        return v2.read(found.path, names="stored", report=report)
    if found.format == "v1":
        return v1.of_files(found.path, [_table_file(path, report) for path in found.files or (found.path,)])
    return reader(found.format).read(found.path)


def _what_is_left(source: str, error: CheckpointError) -> Resolved:
    """The rest of a checkpoint that `resolve` refused as a whole; raises that error if there is none."""
    if is_file(source) and identify(source).name == "cut_index":
        return Resolved("v2", source.removesuffix(".index"))
    if is_file(source) and identify(source).name == "cut_v1":
        return Resolved("v1", source)
    shards = v1_shards(source)
    files = tuple(f"{source}-{shard:05d}-of-{shards:05d}" for shard in range(shards))
    there = tuple(path for path, size in zip(files, sizes(files), strict=True) if size is not None)
    if not there:
        raise error
    return Resolved("v1", source, there)


def _table_file(path: str, report: Report) -> v1.TableFile:
    try:
        return v1.TableFile(path)
    except CheckpointError as error:
        kind = identify(path)
        report(refusal(path, kind) if kind.name == "cut_v1" else error.at(path=path))
        return WalkedFile(path)


def unlisted_blocks(path: str) -> Iterator[CheckpointError]:
    """Errors in those blocks of a V1 file that hold no listed tensor, which no `load` would find."""
    try:
        file = v1.TableFile(path)
        listed = {file.table.position(b"")}
        for name, _, parts in file.listing():
            listed |= {file.table.position(slices.slice_key(raw(name), extents)) for extents in parts}
    except CheckpointError:
        return  # said already
    for position, block in enumerate(file.table.blocks):
        if position not in listed:
            try:
                file.table.read(block.handle)
            except CheckpointError as error:
                yield error.at(path=path)


def data_files(prefix: str) -> list[Shard]:
    """The data files that a V2 index needs, in order."""
    found: list[Shard] = []
    try:
        bundle = Bundle(prefix, lambda error: None)
    except CheckpointError:
        return found  # said already
    for shard, needed in sorted(bundle.needed().items()):
        path = shard_path(prefix, shard, bundle.header.num_shards)
        found.append(Shard(path, bundle.shards.get(path), needed))
    return found


def stale_files(prefix: str) -> list[str]:
    """Data files beside a V2 checkpoint with another shard count, left by an earlier save under the same name."""
    try:
        count = Bundle(prefix, lambda error: None).header.num_shards
    except CheckpointError:
        return []
    return sorted(path for path in shards_beside(prefix) if not path.endswith(f"-of-{count:05d}"))
