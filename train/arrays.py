"""Data sets that are arrays: CIFAR-10's batches as published, and .npz / .npy files.

CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html) comes as Python pickles of 10,000 rows of 3,072 bytes (red,
green, blue planes of 32 x 32), or as binary files with a label byte before each row. A pickle can run any code,
so only the few names that these files need are let through.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .examples import EMPTY, DataSet, Examples, join

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


def read_cifar10(root: Path) -> DataSet:
    """CIFAR-10 from its folder or its .tar.gz; the test batch is the validation set."""
    files = _archive(root) if root.is_file() else _folder(root)
    suffix = "" if "data_batch_1" in files else ".bin"
    wanted = [name + suffix for name in BATCHES if name + suffix in files]
    if not wanted:
        raise DataError("no data_batch_1", path=root)
    parts = {name: _batch(name, files[name](), root) for name in wanted}
    test = f"test_batch{suffix}"
    validation = _batch(test, files[test](), root) if test in files else EMPTY
    labels = NAMES
    if "batches.meta" in files:
        labels = tuple(name.decode() for name in _unpickle(files["batches.meta"](), root)[b"label_names"])
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


def read_npz(path: Path, names: dict[int, str] | None) -> DataSet:
    """An .npz with `images` uint8 [n, h, w(, 1 or 3)] or `features` float [n, d], and `labels` [n].

    Also found: `names` or `files` [n], `label_names` [classes], `split` [n] ("train", "validation", "test"), and
    Keras' `x_train, y_train, x_test, y_test`. A features .npy is read with the .npz beside it, which has its labels.
    """
    arrays = _load(path)
    if path.suffix == ".npy":
        twin = path.with_suffix(".npz")
        if not twin.is_file():
            raise DataError("no labels", path=path, advice=f"{twin.name} with an array `labels` must lie beside it.")
        arrays = {**_load(twin, without=("images", "features")), "features": arrays["features"]}
    if "x_train" in arrays:
        labels = _label_names(
            np.concatenate([arrays[k].ravel() for k in ("y_train", "y_test") if k in arrays]), arrays, names
        )
        train = _from_arrays(path, arrays["x_train"], arrays["y_train"], None, labels, "train:")
        test = None
        if "x_test" in arrays:
            test = _from_arrays(path, arrays["x_test"], arrays["y_test"], None, labels, "test:")
        return _split(path, labels, {"train": train, "test": test}, arrays["x_train"])
    key = next((key for key in ("images", "features", "x") if key in arrays), None)
    if key is None or not {"labels", "y"} & set(arrays):
        raise DataError(
            f"holds {', '.join(sorted(arrays))}", path=path, advice="Needed are `images` or `features`, and `labels`."
        )
    values = _vectors(path, arrays[key]) if key == "features" else arrays[key]
    ids = arrays["labels"] if "labels" in arrays else arrays["y"]
    labels = _label_names(ids.ravel(), arrays, names)
    written = next((arrays[k] for k in ("names", "files") if k in arrays), None)
    every = _from_arrays(path, values, ids, written, labels, "")
    parts = {"train": every}
    if "split" in arrays:
        parts = {str(word): every.take(np.flatnonzero(arrays["split"] == word)) for word in np.unique(arrays["split"])}
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}  # of ckpt-features
    return replace(_split(path, labels, parts, values), photos=str(facts.get("data", "")))


def read_vectors(path: Path) -> Examples:
    """The vectors of a file, with or without labels, by their `names` or their numbers."""
    arrays = _load(path)
    values = _vectors(path, arrays["features"])
    if path.suffix == ".npy" and path.with_suffix(".npz").is_file():
        arrays = _load(path.with_suffix(".npz"), without=("images", "features"))
    names = next((arrays[key] for key in ("names", "files") if key in arrays), None)
    return _from_arrays(path, values, np.zeros(len(values), int), names, {0: ""}, "")


def _vectors(path: Path, features: np.ndarray) -> np.ndarray:
    """Features [n, d]; those of a frontier may be maps of a single place, [n, 1, 1, d]."""
    if features.ndim == 4 and features.shape[1:3] == (1, 1):
        return features.reshape(len(features), -1)
    if features.ndim != 2:
        shape = " x ".join(map(str, features.shape[1:]))
        advice = "ckpt-features --end-point NAME takes the mean of a map, which is a vector."
        raise DataError(f"features of {shape} values each are no vectors", path=path, advice=advice)
    return features


def _load(path: Path, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file, except those named; the array of an .npy, memory-mapped, is called features."""
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if path.suffix == ".npy":
            return {"features": loaded}
        return {key: loaded[key] for key in loaded.files if key not in without}
    except Exception as error:  # zipfile, zlib and numpy raise each their own
        raise DataError(f"not a readable {path.suffix} file: {error}", path=path) from None


def _label_names(ids: np.ndarray, arrays: dict[str, np.ndarray], names: dict[int, str] | None) -> dict:
    """Value in the labels array -> name, in the order of the classes."""
    if names is None and "label_names" in arrays:
        names = dict(enumerate(map(str, arrays["label_names"])))
    return names if names is not None else {value: str(value) for value in np.unique(ids).tolist()}


def _from_arrays(
    path: Path, values: np.ndarray, ids: np.ndarray, names: np.ndarray | None, labels: dict, prefix: str
) -> Examples:
    if not (values.ndim == 2 or values.ndim == 3 or (values.ndim == 4 and values.shape[3] in (1, 3))):
        raise DataError(f"images of shape {values.shape}", path=path, advice="Needed is [n, height, width, 1 or 3].")
    if values.ndim > 2 and values.dtype != np.uint8:
        raise DataError(f"images of type {values.dtype}", path=path, advice="Scale them to 0..255 and save as uint8.")
    if values.ndim == 2 and values.dtype.kind != "f":
        raise DataError(f"feature vectors of type {values.dtype}", path=path, advice="Save them as float32.")
    ids = ids.ravel()
    if len(ids) != len(values) or (names is not None and len(names) != len(values)):
        raise DataError(f"{len(values):,} examples, {len(ids):,} labels", path=path)
    position = {value: i for i, value in enumerate(labels)}
    strange = sorted(set(ids.tolist()) - set(position))
    if strange:
        raise DataError(f"label {strange[0]!r} has no name", path=path)
    values = values[..., None] if values.ndim == 3 else values
    return Examples(
        np.array([position[value] for value in ids.tolist()], np.int32),
        tuple(map(str, names)) if names is not None else tuple(f"{prefix}{i}" for i in range(len(values))),
        (values[0].nbytes if len(values) else 0,) * len(values),
        lambda i: values[i],
    )


def _split(path: Path, labels: dict, parts: dict[str, Examples | None], values: np.ndarray) -> DataSet:
    kind = "vectors" if values.ndim == 2 else "npz"
    train, validation = parts.get("train") or EMPTY, parts.get("validation") or EMPTY
    return DataSet(tuple(labels.values()), train, validation, parts.get("test"), kind, str(path))


def holds_vectors(path: str) -> bool:
    """Whether a file holds feature vectors and no images, by its name and the names of its arrays alone."""
    if not path.endswith((".npz", ".npy")) or not Path(path).is_file():
        return False
    if path.endswith(".npy"):
        return True
    try:
        with np.load(path, allow_pickle=False) as held:
            return "features" in held.files and "images" not in held.files
    except Exception:  # noqa: BLE001 - zipfile and numpy raise each their own; whoever reads the data says what is wrong
        return False
