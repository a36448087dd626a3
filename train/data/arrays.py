"""Data sets of arrays: .npz and .npy files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...labels import told_apart, writable
from .examples import SEPARATOR, DataSet, Examples, in_splits, join, named
from .labelling import ClassNames, agreed, classes_of, only_labels
from .splits import WORDS, said_by, split_of

SPLITS = tuple(WORDS)
_NOT_RGB = ("1", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "HSV")  # Pillow's modes that have to be converted
NAMES = ("names", "files")  # keys of arrays with names of examples


def read_npz(path: Path, given: ClassNames | None = None, *, many: bool = False) -> DataSet:
    """An .npz with `images` uint8 [n, h, w(, 1 or 3)] or `features` float [n, d], and `labels` [n].

    Optional: `names` or `files` [n], `label_names` [classes], `split` [n] (words of splits.py), and arrays for each
    split: `x_train, y_train, x_test, y_test` (Keras), `train_images, train_labels, val_images` ... (MedMNIST). A .npy
    of features is read together with the .npz beside it, which holds the labels. Labels are ids or names, or rows of a
    matrix [n, classes] of 0 and 1.
    Raises DataError for arrays that do not fit together, several labels of an image unless `many`, and names that
    contradict each other.
    """
    arrays = _load(path)
    if path.suffix == ".npy":
        twin = path.with_suffix(".npz")
        if not twin.is_file():
            raise DataError("no labels", path=path, advice=f"{twin.name} with an array `labels` must be next to it.")
        arrays = {**_load(twin, without=("images", "features")), "features": arrays["features"]}
    try:
        return _data_set(path, arrays, given, many)
    except DataError as error:
        raise error.at(path=path) from None


def _data_set(path: Path, arrays: dict[str, np.ndarray], given: ClassNames | None, many: bool) -> DataSet:
    listed = dict(enumerate(texts(arrays["label_names"]))) if "label_names" in arrays else {}
    own = ClassNames("label_names", told_apart(listed)) if listed else None
    named_by = next((key for key in NAMES if key in arrays), None)
    pairs = _pairs(arrays)
    values = {split: checked_values(arrays[key], key) for split, key, _ in pairs}
    said = {split: label_values(arrays[key], key, many) for split, _, key in pairs}
    for split, array in values.items():
        if len(array) != len(said[split]):
            raise DataError(f"{len(array):,} examples, {len(said[split]):,} labels")
    labels, ids = classes_of(said, agreed(own, given), many)
    parts = {}
    for split, array in values.items():
        names = texts(arrays[named_by]) if named_by and not split else None
        parts[split or "train"] = array_examples(array, ids[split], names, f"{split}:" if split else "")
    if "split" in arrays:
        parts = divided(parts["train"], texts(arrays["split"]))
    known = {"label_names", "split", "facts", "position", named_by, *(key for pair in pairs for key in pair)}
    unused = sorted(set(arrays) - known)
    notes = (f"not used: {named('array', unused)}",) if unused else ()
    photos = json.loads(str(arrays["facts"])).get("data", "") if "facts" in arrays else ""  # written by ckpt-features
    kind = "vectors" if next(iter(values.values())).ndim == 2 else "npz"
    return in_splits(labels, parts, kind, path, notes, photos=str(photos))


def divided(examples: Examples, words: Sequence[str]) -> dict[str, Examples]:
    """The examples of each split, given one word per example."""
    strange = sorted(word for word in set(words) if split_of(word) is None)
    if strange:
        raise DataError(f"split says {', '.join(strange[:5])}", advice="It can say train, validation or test.")
    if len(words) != len(examples):
        raise DataError(f"{len(examples):,} examples, {len(words):,} words in split")
    said = np.array([split_of(word) for word in words])
    return {split: examples.take(np.flatnonzero(said == split)) for split in SPLITS if split in said}


def _pairs(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str, str]]:
    """Split ("" for all examples), array of values, array of labels."""
    images, labels = {}, {}
    for key in arrays:
        split, rest = said_by(key)
        if split and rest in (("y",), ("label",), ("labels",)):
            labels[split] = key
        elif split and rest in ((), ("x",), ("features",)):
            images[split] = key
    if images:
        missing = [key for split, key in images.items() if split not in labels]
        if missing:
            raise DataError(f"{', '.join(missing)} has no labels", advice=f"It holds {', '.join(sorted(arrays))}.")
        return [(split, images[split], labels[split]) for split in SPLITS if split in images]
    values = next((key for key in ("images", "features", "x") if key in arrays), None)
    ids = next((key for key in ("labels", "y") if key in arrays), None)
    if values is None or ids is None:
        advice = "It needs `images` or `features`, and `labels`."
        raise DataError(f"holds {', '.join(sorted(arrays))}", advice=advice)
    return [("", values, ids)]


def label_values(labels: np.ndarray | Sequence[Any], key: str, many: bool) -> list[Any]:
    """One label per example, an id or a name; with `many`, a list of labels per example, which may be given as such."""
    if many and not isinstance(labels, np.ndarray) and all(isinstance(each, list | tuple | set) for each in labels):
        return [list(each) for each in labels]
    _check_names(labels, key)
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"{key} of shape {labels.shape} with values other than 0 and 1 are not labels")
        found = [np.flatnonzero(row).tolist() for row in labels]
        return found if many else only_labels(found, [f"{key}: example {i}" for i in range(len(found))])
    labels = labels.ravel()
    if labels.dtype.kind in "US":
        listed = texts(labels)
        return [text.split(SEPARATOR) if text else [] for text in listed] if many else listed
    whole = labels.dtype.kind in "iufb" and np.isfinite(labels).all() and (labels == labels.astype(np.int64)).all()
    if not whole:
        raise DataError(f"{key} of type {labels.dtype} are not labels", advice="Use whole numbers or names.")
    return [[label] if many else label for label in labels.astype(np.int64).tolist()]


def _check_names(labels: np.ndarray | Sequence[Any], key: str) -> None:
    """Raises DataError if a list of names contains something else: tables have None and NaN for missing labels, which
    numpy would turn into names."""
    if isinstance(labels, np.ndarray) or not any(isinstance(label, str | bytes) for label in labels):
        return
    for i, label in enumerate(labels):
        if not isinstance(label, str | bytes | int | np.integer):
            raise DataError(f"{key}: example {i} has {label!r} for a label", advice="Name it, or leave it out.")


def texts(array: np.ndarray) -> list[str]:
    """Names as text, from a numpy array of text or bytes."""
    return [writable(v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v)) for v in array.tolist()]


def array_images(path: Path) -> Examples:
    """The images of an .npz without their labels, if any. Raises DataError if it holds no images."""
    arrays = _load(path)
    usual: list[str] = ["images", "x"]
    keys = [key for key in usual if key in arrays][:1] or [
        key for key in arrays if said_by(key).split and said_by(key).rest in ((), ("x",))
    ]
    if not keys:
        raise DataError(f"holds {', '.join(sorted(arrays))}", path=path, advice="An array `images` is needed.")
    names = next((texts(arrays[key]) for key in NAMES if key in arrays), None) if len(keys) == 1 else None
    try:
        parts = [
            array_examples(
                checked_values(arrays[key], key),
                np.zeros(len(arrays[key]), np.int32),
                names,
                f"{split}:" if split else "",
            )
            for key, split in ((key, said_by(key).split) for key in keys)
        ]
    except DataError as error:
        raise error.at(path=path) from None
    return join(parts)


def read_vectors(path: Path) -> Examples:
    """The vectors of a file without their labels, named by its array of names or by number."""
    arrays = _load(path)
    values = arrays["features"]
    if path.suffix == ".npy" and path.with_suffix(".npz").is_file():
        arrays = _load(path.with_suffix(".npz"), without=("images", "features"))
    names = next((texts(arrays[key]) for key in NAMES if key in arrays), None)
    try:
        return array_examples(checked_values(values, "features"), np.zeros(len(values), np.int32), names, "")
    except DataError as error:
        raise error.at(path=path) from None


def in_colours(image: Any) -> Any:
    """A Pillow image converted to RGB if its pixels are palette indices, ink, bits or the like; anything else
    unchanged. Raises DataError for masked values, which an array would show as if they were pixels."""
    if np.ma.is_masked(image):
        raise DataError("images have masked values", advice="Leave these out, or fill them with .filled().")
    return image.convert("RGB") if getattr(image, "mode", None) in _NOT_RGB else image


def checked_values(array: np.ndarray, key: str) -> np.ndarray:
    """Checks images uint8 [n, h, w, 1 or 3], or vectors [n, d]: `features` and any array with two axes. The features of
    a frontier may be 1 x 1 maps, [n, 1, 1, d]."""
    if "features" in key and array.ndim == 4 and array.shape[1:3] == (1, 1):
        return array.reshape(len(array), -1)
    if "features" in key and array.ndim != 2:
        shape = " x ".join(map(str, array.shape[1:]))
        advice = "ckpt-features --end-point NAME takes the mean of a map, which is a vector."
        raise DataError(f"features of {shape} values each are not vectors", advice=advice)
    if not (array.ndim in (2, 3) or (array.ndim == 4 and array.shape[3] in (1, 3))):
        raise DataError(f"images of shape {array.shape}", advice="Expected is [n, height, width, 1 or 3].")
    if array.ndim > 2 and array.dtype != np.uint8:
        raise DataError(f"images of type {array.dtype}", advice="Scale them to 0..255 and save as uint8.")
    if array.ndim == 2 and array.dtype.kind != "f":
        raise DataError(f"feature vectors of type {array.dtype}", advice="Save them as float32.")
    return array[..., None] if array.ndim == 3 else array


def _load(path: Path, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file except those in `without`; the array of an .npy is memory-mapped and called features."""
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if path.suffix == ".npy":
            return {"features": loaded}
        return {key: loaded[key] for key in loaded.files if key not in without}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise DataError(f"not a readable {path.suffix} file: {error}", path=path) from None


def array_examples(values: np.ndarray, label_ids: np.ndarray, names: Sequence[str] | None, prefix: str) -> Examples:
    """The rows of an array as examples, named by `names` or by `prefix` and number."""
    if names is not None and len(names) != len(values):
        raise DataError(f"{len(values):,} examples, {len(names):,} names")
    shown = tuple(names) if names is not None else tuple(f"{prefix}{i}" for i in range(len(values)))
    size = values[0].nbytes if len(values) else 0
    return Examples(label_ids, shown, (size,) * len(values), lambda i: values[i])


def holds_vectors(path: str) -> bool:
    """Whether a file holds feature vectors and no images, by its name and the names of its arrays."""
    if not path.endswith((".npz", ".npy")) or not Path(path).is_file():
        return False
    if path.endswith(".npy"):
        return True
    try:
        with np.load(path, allow_pickle=False) as held:
            return "features" in held.files and "images" not in held.files
    except Exception:  # noqa: BLE001 - zipfile and numpy raise each their own; whoever reads the data says what is wrong
        return False
