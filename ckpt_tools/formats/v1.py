"""V1 checkpoints: one table file, or one per shard, whose records are SavedTensorSlices messages.

The record under '' lists every tensor: name, shape, type and the slices in this file. Every other record holds one
slice under its key, with the values in a typed field of a TensorProto (saved_tensor_slice.proto)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import CheckpointError, DamagedError, UnsupportedError
from ..report import listed
from ..tensors import BLOCK, Slice, Spec, Tensor
from . import slices, typed_values
from .bundle_index import VERSIONS, check_version, dtype_of
from .checkpoint import Checkpoint
from .lazy import LazyTensors
from .mapped import keeps_open
from .proto import Bytes, fields, message, number, put_bytes, put_number, put_varint, raw, text
from .sstable import FOOTER, Table, TableWriter, first_record, spans
from .storage import mapped

if TYPE_CHECKING:
    import numpy as np


MAX_SLICE = 1 << 31  # bytes of a record by TensorFlow's estimate (saved_tensor_slice_util.h)
SLICE_OVERHEAD = 1024
_HEAD = 4096


class SliceInFile(NamedTuple):
    """A slice and the file that holds it."""

    extents: slices.Extents
    file: TableFile


class Listed(NamedTuple):
    """A tensor as the metadata lists it."""

    spec: Spec
    parts: tuple[SliceInFile, ...]


def read(path: str, *, files: tuple[str, ...] = ()) -> Checkpoint:
    """Opens the V1 checkpoint at `path`, or the one that consists of the shards `files`."""
    return of_files(path, [TableFile(file) for file in files or (path,)])


def of_files(path: str, files: Sequence[TableFile]) -> Checkpoint:
    """The checkpoint with the tensors of these opened files."""
    listed: dict[str, Listed] = {}
    for file in files:
        try:
            for name, spec, parts in file.listing():
                _merge(listed, name, Listed(spec, tuple(SliceInFile(extents, file) for extents in parts)))
        except CheckpointError as error:
            raise error.at(path=file.path) from None
    reader = Reader(listed)
    specs = {name: tensor.spec for name, tensor in listed.items()}
    return Checkpoint(LazyTensors(specs, reader.tensor), "v1", path, tuple(file.path for file in files))


def _merge(listed: dict[str, Listed], name: str, tensor: Listed) -> None:
    """Adds a tensor of one shard to those of the shards before it."""
    known = listed.get(name)
    if known is None:
        listed[name] = tensor
        return
    if known.spec != tensor.spec:
        raise DamagedError(f"is {tensor.spec} in one shard and {known.spec} in another", tensor=name)
    listed[name] = Listed(known.spec, known.parts + tensor.parts)


class TableFile:
    """One table file of a V1 checkpoint."""

    def __init__(self, path: str, table: Table | None = None) -> None:
        self.path = path
        self.table = table or Table(path)
        self._block = lru_cache(maxsize=32)(self._read_block)
        keeps_open(path, self, lambda file: file._block.cache_clear())

    def _read_block(self, position: int) -> tuple[memoryview, dict[bytes, tuple[int, int]]]:
        contents = memoryview(self.table.read(self.table.blocks[position].handle))
        return contents, {key: (start, end) for key, start, end in spans(contents)}

    def record(self, key: bytes) -> Bytes | None:
        """The value under a key as a view, after checking its block's checksum; None if there is none."""
        position = self.table.position(key)
        if position is None:
            return None
        contents, found = self._block(position)
        if key not in found:
            return None
        start, end = found[key]
        return contents[start:end]

    def listing(self) -> Iterator[tuple[str, Spec, tuple[slices.Extents, ...]]]:
        """Name, spec and slices of every tensor that this file holds a part of."""
        record = self.record(b"")
        if record is None:
            raise DamagedError("the file does not start with the list of its tensors")
        return listing(record)


def listing(record: Bytes) -> Iterator[tuple[str, Spec, tuple[slices.Extents, ...]]]:
    """Parses the list under '': SavedTensorSlices { 1 meta { 1 tensor*, 2 versions } }."""
    for field, wire, value in fields(record):
        if field != 1:
            continue
        for inner, inner_wire, content in fields(message(value, wire, "the list of tensors")):
            if inner == 1:
                yield _tensor(message(content, inner_wire, "a tensor of the list"))
            elif inner == 2:
                check_version(message(content, inner_wire, "the version"))


def _tensor(data: Bytes) -> tuple[str, Spec, tuple[slices.Extents, ...]]:
    """SavedSliceMeta { 1 name, 2 shape, 3 type, 4 slice* }."""
    name, dtype, parts = "", 0, []
    shape: tuple[int, ...] = ()
    try:
        for field, wire, value in fields(data):
            if field == 1:
                name = text(message(value, wire, "a name"))
            elif field == 2:
                shape = slices.parse_shape(message(value, wire, "the shape"))
            elif field == 3:
                dtype = number(value, wire, "the element type")
            elif field == 4:
                parts.append(slices.parse_slice(message(value, wire, "a slice")))
        return name, Spec(dtype_of(dtype), shape), tuple(parts)
    except DamagedError as error:
        raise error.at(tensor=name or None) from None


class Reader:
    """Makes the tensors that the files list."""

    def __init__(self, listed: dict[str, Listed]) -> None:
        self._listed = listed

    def tensor(self, name: str) -> Tensor:
        """The tensor `name`. If it is damaged, its `load` raises the error."""
        spec, parts = self._listed[name]
        load = partial(self.load, name)
        stream = partial(self._stream, name) if (spec.nbytes or 0) > BLOCK else None
        if len(parts) == 1 and slices.is_whole(parts[0].extents):
            return Tensor(spec, load, stream=stream)
        try:
            self._check(spec, parts)
        except CheckpointError:
            return Tensor(spec, load)
        return Tensor(spec, load, slices=tuple(self._slice(name, spec, part) for part in parts), stream=stream)

    def _slice(self, name: str, whole: Spec, part: SliceInFile) -> Slice:
        spec = Spec(whole.dtype, slices.slice_shape(part.extents, whole.shape))
        stream = partial(self._part_blocks, name, spec, part) if (spec.nbytes or 0) > BLOCK else None
        return Slice(part.extents, Tensor(spec, partial(self._part, name, spec, part), stream=stream))

    @staticmethod
    def _check(spec: Spec, parts: tuple[SliceInFile, ...]) -> None:
        if not parts:
            raise DamagedError("the list of tensors gives it no slice")
        first = parts[0].extents
        if len(parts) == 1 and slices.is_whole(first) and len(first) == len(spec.shape):
            return  # nearly every tensor; the general check would take longer than reading a small one
        slices.check_cover([part.extents for part in parts], spec.shape)

    def load(self, name: str) -> np.ndarray:
        """The values of a tensor, assembled if it is partitioned."""
        spec, parts = self._listed[name]
        with _place(parts, name):
            self._check(spec, parts)
            arrays = self._parts(name)
            return arrays[0][1] if len(arrays) == 1 else slices.assemble(arrays, spec.shape, numpy_dtype(spec.dtype))

    def _stream(self, name: str) -> Iterator[np.ndarray]:
        """The values of `load` in flat pieces."""
        spec, parts = self._listed[name]
        with _place(parts, name):
            self._check(spec, parts)
            if len(parts) == 1:
                yield from self._part_blocks(name, spec, parts[0])
            else:
                yield from slices.bands(self._parts(name), spec.shape, numpy_dtype(spec.dtype))

    def _parts(self, name: str) -> list[tuple[slices.Extents, np.ndarray]]:
        spec, parts = self._listed[name]
        slice_spec = [Spec(spec.dtype, slices.slice_shape(part.extents, spec.shape)) for part in parts]
        return [(part.extents, self._part(name, each, part)) for part, each in zip(parts, slice_spec, strict=True)]

    @staticmethod
    def _part(name: str, spec: Spec, part: SliceInFile) -> np.ndarray:
        """The values of one slice."""
        with _place([part], name):
            return typed_values.decode(_proto(_record(name, part)), spec)

    @staticmethod
    def _part_blocks(name: str, spec: Spec, part: SliceInFile) -> Iterator[np.ndarray]:
        with _place([part], name):
            yield from typed_values.decode_blocks(_proto(_record(name, part)), spec)


@contextmanager
def _place(parts: Sequence[SliceInFile], name: str) -> Iterator[None]:
    """Adds file and tensor to an error."""
    try:
        yield
    except CheckpointError as error:
        raise error.at(path=parts[0].file.path if parts else None, tensor=name) from None


def _record(name: str, part: SliceInFile) -> Bytes:
    record = part.file.record(slices.slice_key(raw(name), part.extents))
    if record is None:
        raise DamagedError("its values are listed, but they are not in the file")
    return record


def least_size(path: str) -> int | None:
    """The least size of a V1 file in bytes, by its list of tensors; None if the list is missing.

    This is for a truncated file: the list comes first, so it usually survives.
    """
    file = mapped(path)
    try:
        key, record, size = first_record(file.part(0, min(len(file), _HEAD), "the first record"))
        if key or record[:1] != b"\x0a":
            return None
        if len(record) < size:
            _, record, _ = first_record(file.part(0, min(len(file), _HEAD + size), "the first record"))
        total = size + FOOTER
        for name, spec, parts in listing(record) if len(record) == size else ():
            width = typed_values.FIELDS[spec.dtype].width if spec.dtype in typed_values.FIELDS else 0
            for part in parts:
                values = math.prod(slices.slice_shape(part, spec.shape)) * (width or 1)
                total += len(_record_head(name, part, values)) + values
        return total
    except DamagedError:
        return None


def _proto(record: Bytes) -> Bytes:
    """The TensorProto in a record: SavedTensorSlices { 2 data: SavedSlice { 3 data: TensorProto } }."""
    for field, wire, data in fields(record):
        if field == 2:
            for inner, inner_wire, value in fields(message(data, wire, "a slice's record")):
                if inner == 3:
                    return message(value, inner_wire, "the values")
    raise DamagedError("its record holds no values")


def _record_head(name: str, extents: slices.Extents, size: int) -> bytes:
    """The bytes of a record before its TensorProto of `size` bytes."""
    head = put_bytes(1, raw(name)) + put_bytes(2, slices.encode_slice(extents)) + b"\x1a" + put_varint(size)
    return b"\x12" + put_varint(len(head) + size) + head


def write(tensors: Mapping[str, Tensor], path: str, *, progress: Callable[[int], object] | None = None) -> None:
    """Writes one V1 file, byte for byte like TensorFlow, with one piece of a tensor in memory at a time.

    Partitioned variables keep their slices. Raises UnsupportedError that names all tensors which the format cannot
    hold."""
    check(tensors)
    records = []
    meta = []
    for name, tensor in tensors.items():
        if tensor.slices:
            slices.check_cover([part.extents for part in tensor.slices], tensor.spec.shape)
        parts = tensor.slices or (Slice(slices.WHOLE * len(tensor.spec.shape), tensor),)
        listed = b"".join(put_bytes(4, slices.encode_slice(part.extents)) for part in parts)
        spec = put_bytes(2, slices.encode_shape(tensor.spec.shape)) + put_number(3, BY_NAME[tensor.spec.dtype].number)
        meta.append(put_bytes(1, put_bytes(1, raw(name)) + spec + listed))
        records += [(slices.slice_key(raw(name), part.extents), name, part) for part in parts]
    records.sort(key=lambda record: record[0])
    with open(path, "wb") as file:
        table = TableWriter(file, progress)
        table.add(b"", put_bytes(1, b"".join(meta) + put_bytes(2, VERSIONS)))
        for key, name, part in records:
            try:
                values = typed_values.encode(part.tensor)
                size = sum(map(len, values))
                _check_limit(part.tensor.spec, size)
                table.add(key, _record_head(name, part.extents, size), *values)
            except CheckpointError as error:
                raise error.at(tensor=name) from None
        table.finish()


def _check_limit(spec: Spec, size: int = 0) -> None:
    """Applies TensorFlow's own limit: a slice must be below 2 GiB, estimated by the widest encoding of its type."""
    bound = SLICE_OVERHEAD + spec.parameters * typed_values.FIELDS[spec.dtype].bound
    bound += size if spec.dtype == "string" else 0
    if bound > MAX_SLICE:
        raise UnsupportedError(f"takes up to {bound:,} bytes in a V1 file, which allows {MAX_SLICE:,} for a tensor")


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedError that names the tensors whose type, name or size the format cannot hold."""
    refused = []
    for name, tensor in tensors.items():
        if tensor.spec.dtype not in typed_values.WRITABLE:
            refused.append(f"{name} is {tensor.spec.dtype}")
        elif not name or not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
            refused.append(f"{name!r} is not a name in UTF-8")
        else:
            try:
                for part in tensor.slices or (Slice((), tensor),):
                    _check_limit(part.tensor.spec)
            except UnsupportedError as error:
                refused.append(f"{name} {error.fact}")
    if refused:
        raise UnsupportedError(
            f"a V1 file cannot hold {len(refused)} of the tensors: {listed(refused, 5)}",
            advice="Write V2, which holds every type and size, or cast them (bfloat16 to float32), or drop them.",
        )
