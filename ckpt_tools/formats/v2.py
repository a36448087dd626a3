"""V2 checkpoints ("tensor bundles"): a table of entries in PREFIX.index, bytes in PREFIX.data-SSSSS-of-NNNNN.

The index maps '' to a header and every tensor name to an entry: dtype, shape, shard, offset, size, checksum. A
partitioned variable has an entry without bytes that lists its slices, and each slice has an entry under its own key.

Files are written like TensorFlow's: no padding, and the tensors of a source in its order, so that an unchanged bundle
is equal byte for byte. Unchanged tensors are copied as bytes with their checksums, not decoded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..errors import CheckpointError, UnsupportedError
from ..tensors import Tensor, check_array
from . import elements, slices
from .bundle import Bundle, Report
from .bundle_index import Entry, Header, encode_entry, encode_header, shard_path
from .checkpoint import Checkpoint
from .checksum import crc32c, mask
from .data_file import DataFile
from .lazy import LazyTensors
from .object_graph import GRAPH_KEY
from .placing import link
from .proto import raw
from .sstable import TableWriter
from .storage import is_remote

Progress = Callable[[int], object] | None
Rows = list[tuple[bytes, Entry]]
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


def read(path: str, *, names: str = "variable", report: Report | None = None) -> Checkpoint:
    """Opens the V2 checkpoint with prefix `path`.

    With `report`, the error of a damaged block or entry of the index is passed to it and the rest is opened; without,
    it is raised. Missing data files are named in the note, and by each tensor that needs one when it is loaded."""
    bundle = Bundle(path, report)
    specs = bundle.specs
    stored_names: dict[str, str] = {}
    hidden: frozenset[str] = frozenset()
    if GRAPH_KEY in specs and names == "variable":
        hidden = frozenset([GRAPH_KEY])
        stored_names = bundle.variable_names()
        shown = {key: name for name, key in stored_names.items()}
        specs = {shown.get(key, key): spec for key, spec in specs.items() if key != GRAPH_KEY}
    tensors = LazyTensors(specs, bundle.tensor, stored_names, hidden)
    return Checkpoint(tensors, "v2", path, (bundle.index, *bundle.shards), bundle.missing())


class Piece(NamedTuple):
    """The content of an entry with bytes: a tensor, or a slice of one."""

    key: bytes
    name: str
    tensor: Tensor


def write(
    tensors: Mapping[str, Tensor],
    path: str,
    *,
    shards: int | None = None,
    link: bool = False,
    progress: Progress = None,
) -> None:
    """Writes the data files PREFIX.data-... and then PREFIX.index, for the prefix `path`.

    `shards` is the number of data files; None keeps the source's number. With `link`, the source's data files are
    hard-linked if the file system can, and changed tensors go to one more file.
    Raises UnsupportedError for names that the format cannot hold, before anything is written.
    """
    rows, pieces = _pieces(tensors)
    linked = _link(pieces, path) if link else {}
    rest = [piece for piece in pieces if not (linked and piece.tensor.stored)]
    groups = _layout(rest, 1 if linked else shards) if rest or not linked else []
    count = len(linked) + len(groups)
    for key, _, tensor in pieces if linked else ():
        if stored := tensor.stored:
            rows.append((key, Entry(tensor.spec, linked[stored.path], stored.offset, stored.size, stored.crc32c)))
    for shard, group in enumerate(groups, len(linked)):
        rows += _write_shard(shard_path(path, shard, count), shard, group, progress)
    _write_index(path + ".index", rows, count)


def _pieces(tensors: Mapping[str, Tensor]) -> tuple[Rows, list[Piece]]:
    """The entries of partitioned variables, and all tensors and slices with bytes."""
    rows: Rows = []
    pieces = []
    for name, tensor in tensors.items():
        if not name:
            raise UnsupportedError("a tensor without a name cannot be stored")
        parts = tensor.slices
        if len(parts) < 2:  # like TensorFlow, a partition of one part is stored as a plain tensor
            pieces.append(Piece(raw(name), name, parts[0].tensor if parts else tensor))
            continue
        extents = tuple(part.extents for part in parts)
        slices.check_cover(extents, tensor.spec.shape)
        rows.append((raw(name), Entry(tensor.spec, slices=extents)))
        pieces += [Piece(slices.slice_key(raw(name), part.extents), name, part.tensor) for part in parts]
    keys = {piece.key for piece in pieces} | {key for key, _ in rows}
    if len(keys) < len(pieces) + len(rows):
        raise UnsupportedError("a tensor has the name that is the key of another one's slice")
    return rows, pieces


def _layout(pieces: Sequence[Piece], shards: int | None) -> list[list[Piece]]:
    """The pieces of each data file in the order of writing: stored ones as in their source, then the others."""
    known = sorted({piece.tensor.stored.shard for piece in pieces if piece.tensor.stored}) or [0]
    order = {path: i for i, path in enumerate(dict.fromkeys(p.tensor.stored.path for p in pieces if p.tensor.stored))}
    stored = [(piece.tensor.stored, piece) for piece in pieces if piece.tensor.stored]
    stored.sort(key=lambda each: (each[0].shard, order[each[0].path], each[0].offset, each[0].size))
    others = [piece for piece in pieces if not piece.tensor.stored]
    if shards is None or shards == len(known):
        groups: list[list[Piece]] = [[] for _ in known]
        for place, piece in stored:
            groups[known.index(place.shard)].append(piece)
        groups[-1] += others
        return groups
    groups = [[] for _ in range(shards)]
    total = sum(_size(piece) for piece in pieces) or 1
    before = 0
    for piece in [*(piece for _, piece in stored), *others]:  # each file gets its share of the bytes
        groups[min(shards - 1, before * shards // total)].append(piece)
        before += _size(piece)
    return groups


def _size(piece: Piece) -> int:
    tensor = piece.tensor
    return tensor.stored.size if tensor.stored else tensor.spec.nbytes or tensor.spec.parameters


def _link(pieces: Sequence[Piece], path: str) -> dict[str, int]:
    """Hard-links the data files that hold stored pieces; returns source -> number of the data file.

    Returns {}, and leaves no link behind, if the file system cannot make them all.
    """
    stored = {(piece.tensor.stored.shard, piece.tensor.stored.path) for piece in pieces if piece.tensor.stored}
    sources = [source for _, source in sorted(stored)]
    if any(map(is_remote, sources)):
        return {}
    count = len(sources) + any(not piece.tensor.stored for piece in pieces)
    made = []
    try:
        for shard, source in enumerate(sources):
            target = shard_path(path, shard, count)
            link(os.path.realpath(source), target)
            made.append(target)
    except OSError as error:
        for target in made:
            os.unlink(target)
        if error.errno in _NO_LINK:
            return {}
        raise
    return {source: shard for shard, source in enumerate(sources)}


def _write_shard(path: str, shard: int, pieces: Sequence[Piece], progress: Progress) -> Rows:
    """Writes one data file and returns its entries."""
    rows: Rows = []
    offset = 0
    with DataFile(path, sum(map(_size, pieces)), progress) as file:
        for key, name, tensor in pieces:
            if tensor.stored and not is_remote(tensor.stored.path):
                file.copy(tensor.stored.path, tensor.stored.offset, tensor.stored.size)
                size, crc = tensor.stored.size, tensor.stored.crc32c
            else:
                size, crc = _write_values(file, name, tensor)
            rows.append((key, Entry(tensor.spec, shard, offset, size, crc)))
            offset += size
    return rows


def _write_values(file: DataFile, name: str, tensor: Tensor) -> tuple[int, int]:
    """Writes the values and returns their number of bytes and masked checksum. Numbers are written piece by piece."""
    try:
        if tensor.spec.nbytes is None:
            array = tensor.load()
            check_array(array, tensor.spec)
            parts, crc = elements.encode(array, tensor.spec.dtype)
            for part in parts:
                file.write(part)
            return sum(map(len, parts)), crc
        running = 0
        for block in elements.byte_blocks(tensor):
            running = crc32c(block, running)
            file.write(block)
        return tensor.spec.nbytes, mask(running)
    except CheckpointError as error:
        raise error.at(tensor=name) from None


def _write_index(path: str, rows: Rows, num_shards: int) -> None:
    rows.sort(key=lambda row: row[0])
    with open(path, "wb") as file:
        table = TableWriter(file)
        table.add(b"", encode_header(Header(num_shards)))
        for key, entry in rows:
            table.add(key, encode_entry(entry))
        table.finish()
