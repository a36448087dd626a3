"""Transfer values on disk: the output of the frozen part of a net for each image, computed once and kept.

    CACHE/3f2a9c.../facts.json     what the values depend on: net, digest of the frozen tensors, preprocessing, frontier
                    tensor-0.rows  one row per image, of fixed size: the values of the frontier's first tensor
                    rows.index     one record per row: the image's digest and the checksum of the row

A folder is found by the digest of its facts, a row by the digest of the image's bytes: another backbone, size or
preprocessing leads to another folder, a changed photo to another row. Rows are only appended, and their records only
after the values, so that a process that dies leaves complete rows and the next one goes on. Every row is checked before
it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from ...errors import OutputError, RecipeError
from ...formats.locks import turn
from ...formats.placing import write_text
from ...report import size
from ...tensors import Tensor

RECORD = np.dtype([("image", "S16"), ("crc32c", "<u4")])  # of rows.index; numpy drops zeros at the end, see `key`
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class FrontierTensor(NamedTuple):
    """One tensor of the frontier: its name in the graph and the shape of one image's values."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TransferCache:
    """The transfer values of one frozen prefix. `dtype` is the type on disk; values are returned as float32."""

    folder: Path
    tensors: tuple[FrontierTensor, ...]
    dtype: str = "float32"
    facts: str = "{}"  # what the values depend on, the content of facts.json

    @property
    def row_bytes(self) -> int:
        """Bytes per image."""
        return sum(self._bytes(each) for each in self.tensors)

    def _bytes(self, tensor: FrontierTensor) -> int:
        return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def _path(self, number: int) -> Path:
        return self.folder / f"tensor-{number}.rows"

    # --- reading ---

    def checksums(self, rows: np.ndarray) -> np.ndarray:
        """uint32: the checksum of the values of each row."""
        sums = np.zeros(len(rows), np.uint32)
        for values in self.maps() if len(rows) else ():
            sums[:] = [crc32c(values[row], int(before)) for row, before in zip(rows, sums, strict=True)]
        return sums

    def maps(self) -> list[np.ndarray]:
        """The memory-mapped values: one array [rows, ...] per tensor."""
        rows = self.count()
        shapes = [(rows, *each.shape) for each in self.tensors]
        if not rows:
            return [np.zeros(shape, self.dtype) for shape in shapes]
        return [np.memmap(self._path(i), self.dtype, "r", shape=shape) for i, shape in enumerate(shapes)]

    def count(self) -> int:
        """The number of complete rows, by the sizes of the files."""
        try:
            records = (self.folder / "rows.index").stat().st_size // RECORD.itemsize
        except FileNotFoundError:
            return 0
        return min(records, *(self._path(i).stat().st_size // self._bytes(each) for i, each in enumerate(self.tensors)))

    def records(self, start: int = 0) -> np.ndarray:
        """The records of all complete rows from `start` on."""
        count = self.count() - start
        if count <= 0:
            return np.zeros(0, RECORD)
        with (self.folder / "rows.index").open("rb") as file:
            file.seek(start * RECORD.itemsize)
            return np.frombuffer(file.read(count * RECORD.itemsize), RECORD)

    # --- writing ---

    @contextmanager
    def adding(self) -> Iterator[Callable[[Sequence[str], Sequence[np.ndarray]], None]]:
        """Yields a function that adds rows: it takes digests of the images, and an array [images, ...] per tensor.

        Another process that wants to add rows waits for the end of the `with`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "facts.json").exists():
                write_text(self.folder / "facts.json", self.facts)
        except OSError as error:
            raise OutputError(f"features cannot be cached here ({error.strerror})", path=self.folder) from error
        names = [*(self._path(i) for i in range(len(self.tensors))), self.folder / "rows.index"]
        sizes = [*(self._bytes(each) for each in self.tensors), RECORD.itemsize]
        files = [path.open("ab", buffering=0) for path in names]
        try:
            with turn(names[-1]):
                rows = self.count()
                for file, size in zip(files, sizes, strict=True):  # cuts off what a process that died had begun
                    file.truncate(rows * size)
                yield lambda images, values: self._add(files, images, values)
        finally:
            for file in files:
                file.close()

    def _add(self, files: Sequence[RawIOBase], images: Sequence[str], values: Sequence[np.ndarray]) -> None:
        records = np.zeros(len(images), RECORD)
        records["image"] = [key(image) for image in images]
        for tensor, file, array in zip(self.tensors, files, values, strict=False):
            rows = np.ascontiguousarray(array, self.dtype)
            if rows.nbytes != len(images) * self._bytes(tensor):
                raise OutputError(f"rows of shape {array.shape[1:]} instead of {tensor.shape}", path=self.folder)
            records["crc32c"] = [crc32c(row, int(before)) for row, before in zip(rows, records["crc32c"], strict=True)]
            _write(file, rows.tobytes())
        _write(files[-1], records.tobytes())

    # --- limits ---

    def check_space(self, images: int, limit: float) -> str:
        """The reason why `images` more rows cannot be kept, or an empty string."""
        there = self.count() * self.row_bytes
        wanted = there + images * self.row_bytes
        if wanted > limit:
            return f"the cached features would take {size(wanted)}, more than --cache-limit {size(int(limit))}"
        parent = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if images * self.row_bytes > free:
            return f"the cached features would take {size(images * self.row_bytes)}, {size(free)} are free"
        return ""


class Rows:
    """The rows of a cache as seen by one run: rows.index is parsed once, later only what was added, and the checksum of
    a row is compared once."""

    def __init__(self, cache: TransferCache) -> None:
        self.cache = cache
        self._forget()

    def _forget(self) -> None:
        """Resets to the state before anything was parsed."""
        self._newest: dict[bytes, int] = {}
        self._sums = np.zeros(0, np.uint32)
        self._whole: dict[int, bool] = {}

    def __contains__(self, image: str) -> bool:
        """Whether a row of the image, intact or not, has been parsed."""
        return key(image) in self._newest

    def update(self) -> None:
        """Parses the records added since the last time."""
        first = len(self._sums)
        if self.cache.count() < first:  # somebody deleted the folder
            self._forget()
            first = 0
        new = self.cache.records(first)
        self._newest.update((record, first + i) for i, record in enumerate(new["image"].tolist()))
        self._sums = np.concatenate([self._sums, new["crc32c"]])

    def find(self, images: Sequence[str]) -> np.ndarray:
        """Row of each image, by its digest, as int64 [images]; -1 if it is missing or damaged."""
        self.update()
        rows = np.array([self._newest.get(key(image), -1) for image in images], np.int64)
        new = np.array([row for row in np.unique(rows) if row >= 0 and row not in self._whole], np.int64)
        same = self.cache.checksums(new) == self._sums[new]
        self._whole.update(zip(new.tolist(), same.tolist(), strict=True))
        return np.array([row if row >= 0 and self._whole[row] else -1 for row in rows.tolist()], np.int64)


def open_cache(
    folder: str | os.PathLike[str], facts: Mapping[str, object], tensors: Sequence[FrontierTensor], dtype: str
) -> TransferCache:
    """The cache for these facts. Its folder is created with the first row. Raises OutputError if it cannot be
    written."""
    whole = {**facts, "parts": [[each.name, list(each.shape)] for each in tensors], "dtype": dtype, "version": 1}
    text = json.dumps(whole, indent=1, sort_keys=True)
    own = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:20]
    there = next(parent for parent in (own, *own.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "not writable" if there.is_dir() else f"{there} is not a folder"
        raise OutputError(f"features cannot be cached here ({why})", path=folder)
    return TransferCache(own, tuple(tensors), dtype, text + "\n")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].spec}\n".encode())
        found.update(np.ascontiguousarray(tensors[name].load()).tobytes())
    return found.hexdigest()


def key(image: str) -> bytes:
    """The image's key in the index: a digest of 15 bytes and a final 1, since numpy would drop a zero at the end."""
    return hashlib.blake2b(image.encode(), digest_size=15).digest() + b"\x01"


def default_folder() -> Path:
    """The default of --cache-dir, following the XDG base directories."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ckpt-tools"


def parse_size(text: str) -> float:
    """Bytes from "10GB", "500 MB" or "1e9".

    >>> parse_size("1.5GB")
    1500000000.0
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    with suppress(ValueError):
        if found:
            return float(found[1]) * _UNITS[found[2].upper()]
    raise RecipeError(f"{text!r} is not a size", advice="Write 10GB or 500MB.")


def _write(file: RawIOBase, data: bytes) -> None:
    """Writes all of `data`, since an unbuffered file may take less at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
