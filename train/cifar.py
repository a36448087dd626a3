"""CIFAR-10 as published (https://www.cs.toronto.edu/~kriz/cifar.html): folders, or the .tar.gz as it is.

It comes as Python pickles of 10,000 rows of 3,072 bytes (red, green, blue planes of 32 x 32), or as binary files with
a label byte before each row. A pickle can run any code, so only the few names that these files need are let through.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from ..errors import DataError
from .examples import EMPTY, DataSet, Examples, join
from .labelling import Names, agreed

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROW = 3072
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ALLOWED:
            raise DataError(f"the pickle asks for {module}.{name}, which a CIFAR-10 batch does not need")
        return super().find_class(module, name)


def is_cifar10(root: Path) -> bool:
    """Whether this is a folder with CIFAR-10 batches, or the archive that they are published in."""
    if root.is_file():
        return root.name.endswith((".tar.gz", ".tgz")) and root.name.startswith("cifar-10")
    return any((folder / name).is_file() for folder in _homes(root) for name in ("data_batch_1", "data_batch_1.bin"))


def _homes(root: Path) -> list[Path]:
    return [root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"]


def read_cifar10(root: Path, given: Names | None = None) -> DataSet:
    """CIFAR-10 from its folder or its .tar.gz; the test batch is the validation set.

    Raises DataError where `given`, a labels file, calls the classes other than the data.
    """
    files = _archive(root) if root.is_file() else _folder(root)
    suffix = "" if "data_batch_1" in files else ".bin"
    wanted = [name + suffix for name in BATCHES if name + suffix in files]
    if not wanted:
        raise DataError("no data_batch_1", path=root)
    parts = {name: _batch(name, files[name](), root) for name in wanted}
    test = f"test_batch{suffix}"
    validation = _batch(test, files[test](), root) if test in files else EMPTY
    own = None
    if "batches.meta" in files:
        listed = [name.decode() for name in _unpickle(files["batches.meta"](), root)[b"label_names"]]
        own = Names("batches.meta", dict(enumerate(listed)))
    elif "batches.meta.txt" in files:
        listed = files["batches.meta.txt"]().decode("utf-8", "backslashreplace").split()
        own = Names("batches.meta.txt", dict(enumerate(listed)))
    labels = tuple((agreed(own, given) or Names("", dict(enumerate(NAMES)))).listed)
    if len(labels) != len(NAMES):
        raise DataError(f"{len(labels)} names of classes, and CIFAR-10 has {len(NAMES)}", path=root)
    missing = [name for name in (*(b + suffix for b in BATCHES), test) if name not in files]
    notes = (f"not all of CIFAR-10 is here: {', '.join(missing)} missing",) if missing else ()
    return DataSet(labels, join(list(parts.values())), validation, None, "cifar10", str(root), notes)


def _folder(root: Path) -> dict:
    home = next(h for h in _homes(root) if (h / "data_batch_1").is_file() or (h / "data_batch_1.bin").is_file())
    return {file.name: file.read_bytes for file in home.iterdir() if file.is_file()}


def _archive(root: Path) -> dict:
    """Name -> a function that reads it. Nothing is unpacked on disk."""
    try:
        with tarfile.open(root) as archive:
            held = {Path(m.name).name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"the archive cannot be read: {error}", path=root) from None
    return {name: lambda data=data: data for name, data in held.items()}


def _unpickle(data: bytes, path: Path) -> dict:
    try:
        return _OnlyArrays(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise error.at(path=path) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"a batch cannot be read: {error}", path=path, advice="Download the archive again.") from None


def _batch(name: str, data: bytes, path: Path) -> Examples:
    if name.endswith(".bin"):
        if len(data) % (ROW + 1) or not data:
            raise DataError(f"{name} has {len(data):,} bytes, not a multiple of {ROW + 1:,}", path=path)
        rows = np.frombuffer(data, np.uint8).reshape(-1, ROW + 1)
        labels, rows, names = rows[:, 0].astype(np.int32), rows[:, 1:], range(len(rows))
    else:
        batch = _unpickle(data, path)
        try:
            labels, rows = np.asarray(batch[b"labels"], np.int32), np.asarray(batch[b"data"], np.uint8)
            names = [n.decode() for n in batch.get(b"filenames", [])] or range(len(rows))
            images_fit = rows.shape == (len(labels), ROW) and len(names) == len(labels)
        except (KeyError, TypeError, ValueError):
            images_fit = False
        if not images_fit:
            raise DataError(f"{name} is not a CIFAR-10 batch: data and labels do not fit", path=path)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(NAMES):
        raise DataError(f"{name} has labels outside 0 to 9", path=path)
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(labels, tuple(f"{name}:{n}" for n in names), (ROW,) * len(rows), lambda i: images[i])
