"""CIFAR-10 and CIFAR-100 as published (https://www.cs.toronto.edu/~kriz/cifar.html): a folder or the .tar.gz itself.

They come as Python pickles of rows of 3,072 bytes (red, green, blue planes of 32 x 32), or as binary files with a label
byte before each row; CIFAR-100 has two, the coarse label first. A pickle can run any code, so only the few names that
these files need are allowed.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, nearest
from .examples import DataSet, Examples, in_splits, join
from .labelling import ClassNames, agreed, classes_of

ROW = 3072
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Published(NamedTuple):
    """One of the data sets: files of training and test images, without .bin; for each kind of label, its key in a
    batch, the number of classes, and the key and the file of the class names."""

    title: str
    train: tuple[str, ...]
    test: str
    meta: str
    homes: tuple[str, ...]
    labels: dict[str, tuple[bytes, int, bytes, str]]


CIFAR10 = Published(
    "CIFAR-10", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta",
    ("cifar-10-batches-py", "cifar-10-batches-bin"),
    {"label": (b"labels", 10, b"label_names", "batches.meta.txt")},
)  # fmt: skip
CIFAR100 = Published(
    "CIFAR-100", ("train",), "test", "meta", ("cifar-100-python", "cifar-100-binary"),
    {
        "coarse": (b"coarse_labels", 20, b"coarse_label_names", "coarse_label_names.txt"),
        "fine": (b"fine_labels", 100, b"fine_label_names", "fine_label_names.txt"),
    },
)  # fmt: skip
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


def find_cifar(root: Path) -> Published | None:
    """Which of the two data sets is in this folder, in the folder of the unpacked archive, or in this archive, if
    any."""
    if root.is_file():
        name = root.name if root.name.endswith((".tar.gz", ".tgz")) else ""
        return CIFAR100 if name.startswith("cifar-100") else CIFAR10 if name.startswith("cifar-10") else None
    if any(_is_there(CIFAR10, home) for home in _homes(CIFAR10, root)):
        return CIFAR10
    return CIFAR100 if any(_is_there(CIFAR100, home) for home in _homes(CIFAR100, root)) else None


def _homes(which: Published, root: Path) -> list[Path]:
    return [root, *(root / name for name in which.homes)]


def _is_there(which: Published, home: Path) -> bool:
    """Whether the first file of training images is here; the name `train` alone is not enough."""
    names = {which.meta, *(file for _, _, _, file in which.labels.values())} if which is CIFAR100 else ()
    there = any((home / f"{which.train[0]}{ending}").is_file() for ending in ("", ".bin"))
    return there and (which is CIFAR10 or any((home / name).is_file() for name in names))


def read_cifar(root: Path, which: Published, given: ClassNames | None = None, kind: Sequence[str] = ()) -> DataSet:
    """CIFAR-10 or CIFAR-100 from its folder or its .tar.gz; the test images are used for validation. `kind` selects the
    labels of CIFAR-100, ("coarse",) or ("fine",), the default.

    Raises DataError if the labels file `given` names the classes differently than the data.
    """
    kind = kind or tuple(which.labels)[-1:]
    if len(kind) > 1 or kind[0] not in which.labels:
        fact = f"{which.title} has no labels {' and '.join(kind)}{nearest(kind[0], which.labels)}"
        raise DataError(fact, path=root, advice=f"--label-column can be {' or '.join(which.labels)}.")
    files = _archive(root) if root.is_file() else _folder(which, root)
    ending = "" if which.train[0] in files else ".bin"
    train = [name + ending for name in which.train if name + ending in files]
    test = which.test + ending
    if not train:
        raise DataError(f"no {which.train[0]}", path=root)
    ids, pixels, names = {}, {}, {}
    for name in (*train, *([test] if test in files else [])):
        ids[name], pixels[name], names[name] = _batch(which, kind[0], name, files[name](), root)
    own = _names(which, kind[0], files, root)
    called = agreed(own, given) or (ClassNames("", dict(enumerate(TEN))) if which is CIFAR10 else None)
    count = which.labels[kind[0]][1]
    if called and len(called.listed) != count:
        raise DataError(f"{len(called.listed)} names of classes, and {which.title} has {count}", path=root)
    labels, classes = classes_of({name: numbers.tolist() for name, numbers in ids.items()}, called)
    parts = {name: _examples(name, pixels[name], names[name], classes[name]) for name in ids}
    absent = [name for name in (*(each + ending for each in which.train), test) if name not in files]
    notes = (f"not all of {which.title} is here: {', '.join(absent)} missing",) if absent else ()
    validation = {"validation": parts[test]} if test in parts else {}
    kept = {"train": join([parts[name] for name in train]), **validation}
    return in_splits(labels, kept, "cifar10" if which is CIFAR10 else "cifar100", root, notes)


def _names(which: Published, kind: str, files: Mapping[str, Callable[[], bytes]], root: Path) -> ClassNames | None:
    """The names of the classes of this kind, by the files."""
    _, _, key, text = which.labels[kind]
    if which.meta in files:
        listed = [name.decode() for name in _unpickle(files[which.meta](), root).get(key, ())]
        return ClassNames(which.meta, dict(enumerate(listed))) if listed else None
    if text in files:
        return ClassNames(text, dict(enumerate(files[text]().decode("utf-8", "backslashreplace").split())))
    return None


def _folder(which: Published, root: Path) -> dict[str, Callable[[], bytes]]:
    home = next(home for home in _homes(which, root) if _is_there(which, home))
    return {file.name: file.read_bytes for file in home.iterdir() if file.is_file()}


def _archive(root: Path) -> dict[str, Callable[[], bytes]]:
    """Name -> a function that reads the member. Nothing is unpacked to disk."""
    try:
        with tarfile.open(root) as archive:
            files = {Path(m.name).name: archive.extractfile(m) for m in archive.getmembers() if m.isfile()}
            held = {name: file.read() for name, file in files.items() if file}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"the archive cannot be read: {error}", path=root) from None
    return {name: partial(bytes, data) for name, data in held.items()}


def _unpickle(data: bytes, path: Path) -> dict[bytes, Any]:
    try:
        return _OnlyArrays(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise error.at(path=path) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"a batch cannot be read: {error}", path=path, advice="Download the archive again.") from None


def _batch(
    which: Published, kind: str, name: str, data: bytes, path: Path
) -> tuple[np.ndarray, np.ndarray, Sequence[object]]:
    """Labels [n], rows uint8 [n, ROW] and names of the examples of a file."""
    key, count, _, _ = which.labels[kind]
    labels: np.ndarray
    rows: np.ndarray
    names: Sequence[object]
    if name.endswith(".bin"):
        before = len(which.labels)
        if len(data) % (ROW + before) or not data:
            raise DataError(f"{name} has {len(data):,} bytes, not a multiple of {ROW + before:,}", path=path)
        rows = np.frombuffer(data, np.uint8).reshape(-1, ROW + before)
        labels, rows, names = rows[:, tuple(which.labels).index(kind)], rows[:, before:], range(len(rows))
    else:
        batch = _unpickle(data, path)
        try:
            labels, rows = np.asarray(batch[key], np.int32), np.asarray(batch[b"data"], np.uint8)
            names = [n.decode() for n in batch.get(b"filenames", [])] or range(len(rows))
            images_fit = rows.shape == (len(labels), ROW) and len(names) == len(labels)
        except (KeyError, TypeError, ValueError):
            images_fit = False
        if not images_fit:
            raise DataError(f"{name} is not a {which.title} batch: data and labels do not fit", path=path)
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        raise DataError(f"{name} has labels outside 0 to {count - 1}", path=path)
    return labels, rows, names


def _examples(name: str, rows: np.ndarray, names: Sequence[object], label_ids: np.ndarray) -> Examples:
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(label_ids, tuple(f"{name}:{n}" for n in names), (ROW,) * len(rows), lambda i: images[i])
