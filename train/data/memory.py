"""Data sets in memory: arrays, lists of images or of files, a tf.data.Dataset.

data = data_set(images, labels, ["cat", "dog"])                 uint8 [n, h, w, 3], and ids or names
data = data_set(train, labels, validation=(others, their_labels))
data = data_set(tf.data.Dataset.from_tensor_slices((images, labels)))
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, RecipeError
from ...labels import writable
from ..options.configuration import flag
from ..options.training import Options
from .arrays import array_examples, checked_values, divided, in_colours, label_values, texts
from .examples import DataSet, Examples, in_splits
from .labelling import ClassNames, classes_of
from .loading import completed

LIMIT = 4_000_000_000  # most bytes of a tf.data.Dataset, which is kept in memory as a whole
MEMORY = "memory-"  # prefix of the path of such a data set, followed by a digest of its content
ABOUT_FILES = ("labels", "labels_csv", "label_column")  # options that say how files are read


def data_set(
    images: Any,
    labels: Any = None,
    label_names: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    split: Sequence[str] | None = None,
    validation: Any = None,
    test: Any = None,
    limit: int = LIMIT,
) -> DataSet:
    """A data set from memory, for `finetune`, `evaluate` and `features`.

    `images`: uint8 [n, height, width, 1 or 3] or [n, height, width]; a list of such images, of any sizes; a list of
    paths of image files, or a column of a table; float [n, d] for vectors; or a tf.data.Dataset of (image, label) pairs
    or of dictionaries with "image" and "label", batched or not, which is read as a whole, up to `limit` bytes.
    `labels`: an id or a name for each; of several labels an image a matrix [n, classes] of 0 and 1, or a list of lists.
    `label_names`: what the classes are called, in the order of their ids. `names`: of the examples; their numbers, or
    the paths of files, by default. `split`: "train", "validation" or "test" for each example. `validation` and `test`:
    (images, labels), or a tf.data.Dataset. Without validation examples a share is set aside
    (`validation_fraction`).

    Raises DataError for what does not fit.
    """
    given = {"train": (images, labels), "validation": validation, "test": test}
    pairs = {word: _pair(pair, limit, word) for word, pair in given.items() if pair is not None}
    many = any(_several(ids) for _, ids in pairs.values())
    found = {word: label_values(ids, "labels", many) for word, (_, ids) in pairs.items()}
    for word, (values, _) in pairs.items():
        if len(values) != len(found[word]):
            raise DataError(f"{len(values):,} {word} examples, {len(found[word]):,} labels")
    if isinstance(label_names, str | Mapping | Set):
        fact = f"label_names of type {type(label_names).__name__} are not in the order of the ids"
        raise DataError(fact, advice="Give a list: the name of class 0, that of class 1, and so on.")
    own = ClassNames("label_names", dict(enumerate(map(str, label_names)))) if label_names is not None else None
    classes, numbers = classes_of(found, own, many)
    parts = {}
    for word, (values, _) in pairs.items():
        prefix = f"{word}:" if len(pairs) > 1 else ""
        parts[word] = _examples(values, numbers[word], names if word == "train" else None, prefix)
    if split is not None:
        if len(parts) > 1:
            raise DataError("`split` and `validation` or `test` cannot be combined")
        parts = divided(parts["train"], list(map(str, split)))
    kind = "vectors" if getattr(pairs["train"][0], "ndim", 0) == 2 else "memory"
    return in_splits(classes, parts, kind, MEMORY + _digest(parts, classes))


def in_memory(data: DataSet, options: Options, *, training: bool = True) -> DataSet:
    """The data set prepared by the options: with validation examples, and with label vectors if an image may have
    several labels. Raises RecipeError for options that concern files, DataError for data that cannot be trained on."""
    wrong = [flag(name) for name in ABOUT_FILES if getattr(options, name)] if training else []
    if wrong:
        advice = "Name the classes with label_names."
        raise RecipeError(f"{' and '.join(wrong)}: not for data that are in memory", advice=advice)
    many = options.labels_per_image == "many"
    if data.many and not many:
        raise DataError("images have several labels, or none", advice="--labels-per-image many takes all of them.")
    return completed(data, many=many, fraction=options.validation_fraction, seed=options.seed, training=training)


def was_in_memory(path: str) -> bool:
    """Whether the `data` of a run was in memory."""
    return path.startswith(MEMORY)


# --- what can be given -----------------------------------------------------------------------------------------------


def _pair(given: Any, limit: int, word: str) -> tuple[Any, Any]:
    """A sequence of images and a sequence of labels."""
    if not (_is_dataset(given) or (isinstance(given, tuple | list) and len(given) == 2)):
        raise DataError(f"`{word}` is not a pair of images and labels", advice=f"Give {word}=(images, labels).")
    values, labels = (given, None) if _is_dataset(given) else given
    if _is_dataset(values):
        if labels is not None:
            raise DataError("a tf.data.Dataset brings its own labels", advice="Leave out `labels`.")
        return _read_all(values, limit)
    if labels is None:
        raise DataError(f"no labels for the {word} examples", advice="data_set(images, labels) takes both.")
    return _listed(values, "images"), _listed(labels, "labels")


def _listed(given: Any, key: str) -> Any:
    """A column of a table, a tensor or a generator as an array or a list; an array of paths or names as a list. Raises
    DataError for masked values in masked arrays of numpy."""
    if isinstance(given, np.ma.MaskedArray):
        if np.ma.is_masked(given):
            example = int(np.argwhere(np.ma.getmaskarray(given))[0][0])
            raise DataError(f"{key}: example {example} is masked", advice="Leave it out, or fill it with .filled().")
        given = given.data
    if not isinstance(given, str | list | tuple | np.ndarray):
        given = np.asarray(given) if hasattr(given, "__array__") else list(given)
    if isinstance(given, list | tuple) and key == "images":
        given = [in_colours(each) for each in given]
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "OSU":
        return given.tolist()
    return given


def _is_dataset(given: object) -> bool:
    """Whether this is a tf.data.Dataset, without importing TensorFlow."""
    return any(kind.__name__ == "DatasetV2" for kind in type(given).__mro__)


def _read_all(dataset: Any, limit: int) -> tuple[list[np.ndarray], list[Any]]:
    """All images and labels. Raises DataError for an infinite dataset, or one of more than `limit` bytes."""
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise DataError("the tf.data.Dataset has no end", advice="Remove repeat(): a run repeats it itself.")
    images, labels, size = [], [], 0
    for image, label in _elements(dataset):
        size += image.nbytes
        if size > limit:
            fact = f"the tf.data.Dataset has more than {limit:,} bytes, and is kept in memory"
            raise DataError(fact, advice="Write it to TFRecords or image files, or raise `limit`.")
        images.append(image)
        labels.append(label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else label)
    return images, labels


def _elements(dataset: Any) -> Iterator[tuple[np.ndarray, Any]]:
    for element in dataset.as_numpy_iterator():
        if isinstance(element, dict) and {"image", "label"} <= element.keys():
            image, label = element["image"], element["label"]
        elif isinstance(element, tuple) and len(element) == 2:
            image, label = element
        else:
            advice = 'Map it to (image, label), or to {"image": ..., "label": ...}.'
            raise DataError("an element of the tf.data.Dataset is not a pair of image and label", advice=advice)
        batched = np.ndim(image) == 4 or (np.ndim(image) == 3 and np.ndim(label) == 1 and len(image) == len(label))
        yield from zip(image, label, strict=True) if batched else [(np.asarray(image), label)]


def _several(labels: Any) -> bool:
    """Whether examples may have several labels: they are lists, or rows of a matrix that do not all sum to 1."""
    if isinstance(labels, np.ndarray) or all(isinstance(each, np.ndarray) for each in labels):
        matrix = np.asarray(labels)
        return matrix.ndim == 2 and matrix.shape[1] > 1 and bool((matrix.sum(axis=1) != 1).any())
    return any(isinstance(each, list | tuple | set) for each in labels)


def _examples(values: Any, label_ids: np.ndarray, names: Sequence[str] | None, prefix: str) -> Examples:
    """Examples from an array, from images of any sizes, or from files."""
    listed = isinstance(values, list | tuple)
    if listed and values and all(isinstance(value, str | os.PathLike) for value in values):
        return _files([Path(value) for value in values], label_ids, names)
    shapes = {np.shape(value) for value in values} if listed else set()
    if len(shapes) > 1:  # images of several sizes
        images = [checked_values(np.asarray(value)[None], "images")[0] for value in values]
        shown = texts(np.asarray(names)) if names is not None else [f"{prefix}{i}" for i in range(len(images))]
        return Examples(label_ids, tuple(shown), tuple(image.nbytes for image in images), lambda i: images[i])
    array = checked_values(np.asarray(values), "images")
    return array_examples(array, label_ids, None if names is None else texts(np.asarray(names)), prefix)


def _files(paths: Sequence[Path], label_ids: np.ndarray, names: Sequence[str] | None) -> Examples:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        more = f", nor are there {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(f"no such file{more}", path=missing[0])
    shown = tuple(map(str, names)) if names is not None else tuple(writable(str(path)) for path in paths)
    return Examples(label_ids, shown, tuple(p.stat().st_size for p in paths), lambda i: paths[i].read_bytes())


def _digest(parts: dict[str, Examples], labels: Sequence[str]) -> str:
    """Eight hex digits that change with any example, label or class name, so that a run is continued with the same
    data."""
    found = hashlib.sha256(repr(tuple(labels)).encode())
    for word, examples in parts.items():
        found.update(f"{word} {examples.digests}".encode())
        found.update(np.ascontiguousarray(examples.label_ids).tobytes())
    return found.hexdigest()[:8]
