"""An opened V2 checkpoint: the entries of its index, and the tensors they describe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import compress
from typing import TYPE_CHECKING

from ..dtypes import numpy_dtype
from ..errors import CheckpointError, DamagedError
from ..report import listed
from ..tensors import BLOCK, Slice, Spec, Stored, Tensor
from . import elements, slices
from .bundle_index import Entry, Header, parse_entry, parse_header, parse_spec, shard_path, spec_prefix
from .detect import advice_for
from .object_graph import GRAPH_KEY, variable_names
from .proto import raw, text
from .sstable import Table, entries
from .storage import mapped, sizes

if TYPE_CHECKING:
    import numpy as np

    from .mapped import MappedFile

Report = Callable[[CheckpointError], None]


def _raise(error: CheckpointError) -> None:
    raise error


class Bundle:
    """An opened V2 checkpoint: its entries in the order of the index, and its data files, mapped when needed."""

    def __init__(self, prefix: str, report: Report | None = None, index: str = "") -> None:
        self.prefix = prefix
        self.index = index or prefix + ".index"
        self.specs: dict[str, Spec] = {}
        self._values: dict[str, bytes] = {}
        self._report = report or _raise
        self._files: dict[int, MappedFile] = {}
        self._needed: dict[int, int] | None = None
        try:
            self.header = self._read_index()
        except CheckpointError as error:
            raise error.at(path=self.index) from None

    def _read_index(self) -> Header:
        header = None
        known: dict[bytes, Spec] = {}
        for keys, values in self._blocks(self._table()):
            if header is None:
                if keys[0] != b"":
                    raise DamagedError("the index does not start with its header")
                header = parse_header(values[0])
                keys, values = keys[1:], values[1:]
            self._add([text(key) for key in keys], values, known)
        if header is None:
            raise DamagedError("no entry of the index can be read, not even its header")
        self._hide_slices()
        return header

    def _table(self) -> Table:
        try:
            return Table(self.index)
        except CheckpointError as error:
            self._report(error.at(path=self.index))
            from .walk import WalkedTable

            return WalkedTable(self.index)  # only the end of the index is missing

    def _blocks(self, table: Table) -> Iterator[tuple[list[bytes], list[bytes]]]:
        last = None
        for block in table.blocks:
            try:
                keys, values = entries(table.read(block.handle))
                if not keys:
                    continue
                if last is not None and keys[0] <= last:
                    raise DamagedError("the keys of the index are out of order")
                if keys[-1] > block.separator:
                    raise DamagedError("a block of the index holds keys past its separator")
            except DamagedError as error:
                self._report(error.at(path=self.index))
                continue
            last = keys[-1]
            yield keys, values

    def _add(self, names: list[str], values: list[bytes], known: dict[bytes, Spec]) -> None:
        """Adds the entries of a block. A large checkpoint has few distinct specs, so they are cached by their bytes."""
        try:
            specs = [known[value[: value[3] + 4]] for value in values]
        except (KeyError, IndexError):
            found = [self._spec(name, value, known) for name, value in zip(names, values, strict=True)]
            specs = [spec for spec in found if spec is not None]
            if len(specs) < len(found):
                kept = [spec is not None for spec in found]
                names, values = list(compress(names, kept)), list(compress(values, kept))
        self._values.update(zip(names, values, strict=True))
        self.specs.update(zip(names, specs, strict=True))

    def _spec(self, name: str, value: bytes, known: dict[bytes, Spec]) -> Spec | None:
        try:
            prefix = spec_prefix(value)
            if prefix is None:
                return parse_spec(value)
            if prefix not in known:
                known[prefix] = parse_spec(prefix)
            return known[prefix]
        except DamagedError as error:
            self._report(error.at(path=self.index, tensor=name))
            return None

    def _hide_slices(self) -> None:
        """Removes the entries of slices from the listing. Their keys start with a zero byte, so they come first."""
        if not next(iter(self.specs), "").startswith("\0"):
            return
        for name in list(self.specs):
            if b"\x3a" in self._values[name]:  # the tag of a slice, or a byte that looks like it
                try:
                    parts = self.entry(name).slices
                except DamagedError:
                    continue  # reported when the tensor is loaded
                for extents in parts:
                    self.specs.pop(text(slices.slice_key(raw(name), extents)), None)

    def variable_names(self) -> dict[str, str]:
        """Shown name -> key by the object graph, or by the keys alone if the graph cannot be read."""
        keys = self.specs.keys() - {GRAPH_KEY}
        ordered = [key for key in self.specs if key in keys]
        try:
            entry = self.entry(GRAPH_KEY)
            (graph,) = elements.strings(self._data(entry), 1, entry.crc32c, self.header.big_endian)
            return variable_names(graph, dict.fromkeys(ordered))
        except CheckpointError:
            return variable_names(b"", dict.fromkeys(ordered))

    def entry(self, key: str) -> Entry:
        return parse_entry(self._values[key], self.specs[key] if key in self.specs else parse_spec(self._values[key]))

    def tensor(self, key: str) -> Tensor:
        """The tensor under a key of the file. If its entry is damaged, its `load` raises the error."""
        try:
            entry = self.entry(key)
            return self._tensor(key, entry, tuple(self._slices(key, entry)) if entry.slices else ())
        except CheckpointError:
            return Tensor(self.specs[key], partial(self.load, key))

    def _tensor(self, key: str, entry: Entry, parts: tuple[Slice, ...] = ()) -> Tensor:
        stored = self._stored(entry) if not parts else None
        is_long = (entry.size if stored else entry.spec.nbytes or 0) > BLOCK
        stream = partial(self._stream, key, entry) if is_long and entry.spec.nbytes else None
        return Tensor(entry.spec, partial(self._load, key, entry), stored, parts, stream)

    def _stored(self, entry: Entry) -> Stored | None:
        if self.header.big_endian:
            return None
        elements.check_size(entry.spec, entry.size)
        file = self._file(entry.shard)
        file.check(entry.offset, entry.size, "its bytes")
        return Stored(file.path, entry.offset, entry.size, entry.crc32c, entry.shard)

    def _slices(self, key: str, whole: Entry) -> Iterator[Slice]:
        slices.check_cover(whole.slices, whole.spec.shape)
        for extents in whole.slices:
            yield Slice(extents, self._tensor(key, self._slice_entry(key, whole, extents)))

    def _slice_entry(self, key: str, whole: Entry, extents: slices.Extents) -> Entry:
        wanted = Spec(whole.spec.dtype, slices.slice_shape(extents, whole.spec.shape))
        part_key = text(slices.slice_key(raw(key), extents))
        if part_key not in self._values:
            raise DamagedError(f"its slice {slices.spell(extents)} is not in the index")
        part = self.entry(part_key)
        if part.spec != wanted or part.slices:
            raise DamagedError(f"its slice {slices.spell(extents)} is stored as {part.spec}, not as {wanted}")
        return part

    def load(self, key: str) -> np.ndarray:
        """The values under a key. Raises DamagedError if they are damaged in any way."""
        try:
            return self._load(key, self.entry(key))
        except CheckpointError as error:
            raise error.at(path=self.index, tensor=key) from None

    def _load(self, key: str, entry: Entry) -> np.ndarray:
        with self._explained(key, entry):
            if entry.slices:
                return slices.assemble(self._parts(key, entry), entry.spec.shape, numpy_dtype(entry.spec.dtype))
            return elements.decode(self._data(entry), entry.spec, entry.crc32c, self.header.big_endian)

    def _stream(self, key: str, entry: Entry) -> Iterator[np.ndarray]:
        """The values of `_load` in flat pieces."""
        with self._explained(key, entry):
            if entry.slices:
                yield from slices.bands(self._parts(key, entry), entry.spec.shape, numpy_dtype(entry.spec.dtype))
            else:
                elements.check_size(entry.spec, entry.size)
                blocks = self._file(entry.shard).blocks(entry.offset, entry.size, "its bytes")
                yield from elements.decode_blocks(blocks, entry.spec, entry.crc32c, self.header.big_endian)

    def _parts(self, key: str, entry: Entry) -> list[tuple[slices.Extents, np.ndarray]]:
        slices.check_cover(entry.slices, entry.spec.shape)
        found = [(extents, self._slice_entry(key, entry, extents)) for extents in entry.slices]
        return [(extents, self._load(key, part)) for extents, part in found]

    @contextmanager
    def _explained(self, key: str, entry: Entry) -> Iterator[None]:
        """Adds to an error its file and tensor, and advice on what may have happened to the data file."""
        try:
            yield
        except CheckpointError as error:
            file = self._files.get(entry.shard)
            if file is not None and not entry.slices and isinstance(error, DamagedError):
                error.advice = error.advice or self._diagnosis(entry.shard)
                error.at(path=file.path)
            raise error.at(path=self.index, tensor=key) from None

    def _data(self, entry: Entry) -> memoryview:
        elements.check_size(entry.spec, entry.size)
        return self._file(entry.shard).part(entry.offset, entry.size, "its bytes")

    def _file(self, shard: int) -> MappedFile:
        if shard not in self._files:
            if not 0 <= shard < self.header.num_shards:
                raise DamagedError(f"its bytes should be in data file {shard} of {self.header.num_shards}")
            self._files[shard] = mapped(shard_path(self.prefix, shard, self.header.num_shards))
        return self._files[shard]

    def needed(self) -> dict[int, int]:
        """Shard -> least size of its file in bytes. Reads every entry, once."""
        if self._needed is not None:
            return self._needed
        sizes: dict[int, int] = {}
        for key in self._values:
            try:
                entry = self.entry(key)
            except DamagedError:
                continue
            if not entry.slices and 0 <= entry.shard < self.header.num_shards:
                sizes[entry.shard] = max(sizes.get(entry.shard, 0), entry.offset + entry.size)
        self._needed = sizes
        return sizes

    @cached_property
    def shards(self) -> dict[str, int]:
        """Path -> size in bytes of the data files that exist, with the names implied by the header."""
        count = self.header.num_shards
        numbers = range(count) if count <= 1000 else sorted(self.needed())  # a damaged header may claim billions
        paths = [shard_path(self.prefix, shard, count) for shard in numbers]
        return {path: size for path, size in zip(paths, sizes(paths), strict=True) if size is not None}

    def missing(self) -> str:
        """A sentence that names the needed data files that are missing or are something else; else ""."""
        there = self.shards
        for path, size in there.items():
            if size < 1024 and (said := advice_for(path)):
                return said
        if len(there) == self.header.num_shards:
            return ""
        paths = [shard_path(self.prefix, shard, self.header.num_shards) for shard in sorted(self.needed())]
        gone = [os.path.basename(path) for path in paths if path not in there]
        if not gone:
            return ""
        verb = "is" if len(gone) == 1 else "are"
        which = "its data file" if self.header.num_shards == 1 else f"of its {self.header.num_shards} data files,"
        return f"{which} {listed(gone, 4)} {verb} missing: names and shapes are known, the values not"

    def _diagnosis(self, shard: int) -> str:
        """A sentence on what may have happened to a data file with wrong bytes."""
        path = shard_path(self.prefix, shard, self.header.num_shards)
        advice = advice_for(path)
        if advice:
            return advice
        size, needed = len(self._files[shard]), self.needed().get(shard, 0)
        if size < needed:
            return f"The data file is cut off: it has {size:,} bytes and should have {needed:,}; copy it again."
        if size > needed:
            return (
                f"The data file has {size - needed:,} bytes more than the index accounts for: it may be of "
                "another step, or its line ends were converted (git's autocrlf does that)."
            )
        return ""
