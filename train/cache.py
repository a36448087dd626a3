"""Transfer values on disk: what the frozen part of a net gives for an image, computed once and kept.

    CACHE/3f2a9c.../facts.json     what the values depend on: net, digest of the frozen tensors, preprocessing, frontier
                    tensor-0.rows  one row an image, of fixed size: the values of the frontier's first tensor
                    rows.index     one record a row: the image's digest and the checksum of the row

A folder is found by the digest of its facts, a row by the digest of the image's bytes: another backbone, size or
preprocessing is another folder, a changed photo another row. Rows are only ever added, the record after the values;
so a process that dies leaves whole rows, and the next one goes on. Every row that is used is checked first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from ..errors import OutputError, RecipeError
from ..formats.placing import write_text
from ..report import size
from ..tensors import Tensor

RECORD = np.dtype([("image", "S16"), ("crc32c", "<u4")])  # of rows.index; a digest that ends in zeros stays itself
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class Part(NamedTuple):
    """One tensor of the frontier: its name in the graph and the shape of one image's values."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TransferCache:
    """The transfer values of one frozen prefix. `dtype` is that on disk; values are given as float32."""

    folder: Path
    parts: tuple[Part, ...]
    dtype: str = "float32"
    facts: str = "{}"  # what the values depend on, as facts.json has it

    @property
    def row_bytes(self) -> int:
        """Bytes that one image takes."""
        return sum(self._bytes(part) for part in self.parts)

    def _bytes(self, part: Part) -> int:
        return int(np.prod(part.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def _path(self, number: int) -> Path:
        return self.folder / f"tensor-{number}.rows"

    # --- reading ---

    def find(self, images: Sequence[str]) -> np.ndarray:
        """Row of each image, by its digest, as int64 [images]; -1 for one that is not there or is damaged."""
        records = self._records()
        newest = {record: row for row, record in enumerate(records["image"].tolist())}
        rows = np.array([newest.get(key(image), -1) for image in images], np.int64)
        whole = self.whole(rows[rows >= 0], records)
        rows[rows >= 0] = np.where(whole, rows[rows >= 0], -1)
        return rows

    def whole(self, rows: np.ndarray, records: np.ndarray) -> np.ndarray:
        """For each row whether its values are what their checksum says."""
        sums = np.zeros(len(rows), np.uint32)
        for part in self.maps():
            sums[:] = [crc32c(part[row], int(before)) for row, before in zip(rows, sums, strict=True)]
        return sums == records["crc32c"][rows]

    def maps(self) -> list[np.ndarray]:
        """The values, mapped: one array [rows, ...] for each part."""
        rows = len(self._records())
        shapes = [(rows, *part.shape) for part in self.parts]
        if not rows:
            return [np.zeros(shape, self.dtype) for shape in shapes]
        return [np.memmap(self._path(i), self.dtype, "r", shape=shape) for i, shape in enumerate(shapes)]

    def _records(self) -> np.ndarray:
        """The records of all rows that were written to the end."""
        try:
            data = (self.folder / "rows.index").read_bytes()
        except FileNotFoundError:
            return np.zeros(0, RECORD)
        sizes = [self._path(i).stat().st_size // self._bytes(part) for i, part in enumerate(self.parts)]
        count = min(len(data) // RECORD.itemsize, *sizes)
        return np.frombuffer(data[: count * RECORD.itemsize], RECORD)

    # --- writing ---

    @contextmanager
    def adding(self) -> Iterator[Callable[[Sequence[str], Sequence[np.ndarray]], None]]:
        """Within the `with`, the function that adds rows: digests of the images, and [images, ...] of each part.

        Another process that adds at the same time waits for its turn.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "facts.json").exists():
                write_text(self.folder / "facts.json", self.facts)
        except OSError as error:
            raise OutputError(f"transfer values cannot be kept here ({error.strerror})", path=self.folder) from error
        names = [*(self._path(i) for i in range(len(self.parts))), self.folder / "rows.index"]
        sizes = [*(self._bytes(part) for part in self.parts), RECORD.itemsize]
        files = [path.open("ab", buffering=0) for path in names]
        try:
            fcntl.flock(files[-1], fcntl.LOCK_EX)
            rows = len(self._records())
            for file, size in zip(files, sizes, strict=True):  # what a process that died had begun goes
                file.truncate(rows * size)
            yield lambda images, values: self._add(files, images, values)
        finally:
            for file in files:
                file.close()

    def _add(self, files: Sequence, images: Sequence[str], values: Sequence[np.ndarray]) -> None:
        records = np.zeros(len(images), RECORD)
        records["image"] = [key(image) for image in images]
        for part, file, array in zip(self.parts, files, values, strict=False):
            rows = np.ascontiguousarray(array, self.dtype)
            if rows.nbytes != len(images) * self._bytes(part):
                raise OutputError(f"rows of shape {array.shape[1:]} instead of {part.shape}", path=self.folder)
            records["crc32c"] = [crc32c(row, int(before)) for row, before in zip(rows, records["crc32c"], strict=True)]
            _write(file, rows.tobytes())
        _write(files[-1], records.tobytes())

    # --- limits ---

    def check_space(self, images: int, limit: float) -> str:
        """Why `images` more rows cannot be kept, or an empty string."""
        there = len(self._records()) * self.row_bytes
        wanted = there + images * self.row_bytes
        if wanted > limit:
            return f"the transfer values would take {size(wanted)}, more than --cache-limit {size(int(limit))}"
        parent = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if images * self.row_bytes > free:
            return f"the transfer values would take {size(images * self.row_bytes)}, {size(free)} are free"
        return ""


def open_cache(
    folder: str | os.PathLike[str], facts: Mapping[str, object], parts: Sequence[Part], dtype: str
) -> TransferCache:
    """The cache for these facts; its folder is made when the first row is added. Raises OutputError where it cannot."""
    whole = {**facts, "parts": [[part.name, list(part.shape)] for part in parts], "dtype": dtype, "version": 1}
    text = json.dumps(whole, indent=1, sort_keys=True)
    own = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:20]
    there = next(parent for parent in (own, *own.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "not writable" if there.is_dir() else f"{there} is no folder"
        raise OutputError(f"transfer values cannot be kept here ({why})", path=folder)
    return TransferCache(own, tuple(parts), dtype, text + "\n")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].spec}\n".encode())
        found.update(np.ascontiguousarray(tensors[name].load()).tobytes())
    return found.hexdigest()


def key(image: str) -> bytes:
    """What stands for an image in the index: 15 bytes that hold no zero at the end, which numpy would drop."""
    return hashlib.blake2b(image.encode(), digest_size=15).digest() + b"\x01"


def default_folder() -> Path:
    """Where transfer values are kept unless --cache-dir says otherwise, as the XDG base directories have it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ckpt-tools"


def parse_size(text: str) -> float:
    """Bytes from "10GB", "500 MB" or "1e9".

    >>> parse_size("1.5GB")
    1500000000.0
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    try:
        return float(found[1]) * _UNITS[found[2].upper()]
    except (TypeError, ValueError):
        raise RecipeError(f"{text!r} is no size", advice="Write 10GB or 500MB.") from None


def _write(file: object, data: bytes) -> None:
    """All of `data`: an unbuffered file may take less at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
