"""Finds out what kind of data set is at a path, and reads it.

load_data_set("photos")      photos/cat/1.jpg ...: class folders, split by a seed or by folders around them
                             photos/1.jpg ... and photos/labels.csv, or another CSV
                             TFRecords, .npz, .npy; CIFAR-10, CIFAR-100 and MNIST as published
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, nearest
from ...formats.storage import is_remote
from ...labels import read_labels, writable
from ..options.training import Options
from .arrays import array_images, read_npz
from .cifar import find_cifar, read_cifar
from .examples import DataSet, Examples, checked, divide
from .folders import has_classes, read_folder, subfolders, unwrapped
from .labelling import ClassNames, agreed
from .labels_csv import find_tables, names_of, read_tables
from .mnist import find_idx, read_idx
from .records import find_records, read_records, record_images

LABEL_FILES = ("labels.txt", "label.txt")


def load_data_set(
    path: str | os.PathLike[str],
    *,
    validation_fraction: float = 0.2,
    seed: int = 0,
    labels_file: str | os.PathLike[str] | None = None,
    labels_per_image: str = "one",
    labels_csv: str | os.PathLike[str] | None = None,
    label_column: Sequence[str] = (),
    upright: bool = False,
    training: bool = True,
) -> DataSet:
    """Reads names and labels, not the images, of the data set at `path`.

    The classes are ordered as in `labels_file` or a `labels.txt` in the folder, else by the names of the folders; if
    several of these exist, they must agree. `validation_fraction` and `seed` apply if the data set has no validation
    examples.
    `labels_csv` is a CSV of the images in a folder; a CSV in the folder is found if there are no class folders.
    `label_column` names its columns with labels, if that is ambiguous. With `labels_per_image` "many" an example may
    have several labels, or none; otherwise that is an error.
    `upright` means that photos will be rotated by their EXIF data; if not, a note tells how many are affected.
    Raises DataError for data that cannot be trained on: no images, an empty class, contradictory labels. If `training`
    is false, it is enough that there are images."""
    if is_remote(os.fspath(path)):
        advice = "Copy it here. What is too large for that: ckpt-features --ray takes records from there."
        raise DataError("is a URL, and images are read from this machine", path=path, advice=advice)
    root = Path(path)
    if not root.exists():
        siblings = sorted(p.name for p in root.parent.iterdir()) if root.parent.is_dir() else []
        raise DataError(f"no such file or folder{nearest(root.name, siblings)}", path=root)
    many = labels_per_image == "many"
    given = ClassNames(str(labels_file), read_labels(labels_file)) if labels_file else None
    if root.suffix in (".npz", ".npy"):
        data = read_npz(root, given, many=many)
    elif cifar := find_cifar(root):
        data = read_cifar(root, cifar, given, label_column)
    elif idx := find_idx(root):
        data = read_idx(root, idx, labels_beside(root), given)
    elif records := find_records(root):
        data = read_records(root, records, labels_beside(root), given, many=many)
        if root.is_dir() and has_classes(root):
            data = replace(data, notes=("the records are taken, not the class folders beside them", *data.notes))
    elif root.is_file():
        advice = "Give a folder, an .npz file, TFRecords, CIFAR's .tar.gz or an IDX file of MNIST's."
        raise DataError("not a data set", path=root, advice=advice)
    else:
        data = read_photos(root, agreed(labels_beside(root), given), labels_csv, label_column, many)
    if labels_csv and data.kind != "csv":
        raise DataError("--labels-csv is for a folder of images", path=root)
    if label_column and data.kind not in ("csv", "cifar10", "cifar100"):
        raise DataError("--label-column is for a CSV of images, and for CIFAR-100", path=root)
    if note := turned_note(data.turned, upright):
        data = replace(data, notes=(*data.notes, note))
    return completed(data, many=many, fraction=validation_fraction, seed=seed, training=training)


def completed(data: DataSet, *, many: bool, fraction: float, seed: int, training: bool) -> DataSet:
    """The data set with validation examples and, if `many`, one label vector per example. Raises DataError for data
    that cannot be trained on."""
    if many and not data.many:
        data = with_vectors(data)
    data = with_validation(data, fraction, seed)
    return data if not training and len(data.validation) else checked(data)


def data_set_of(options: Options, *, training: bool = True) -> DataSet:
    """The data set named by the options of a run, read by these options."""
    return load_data_set(
        options.data,
        validation_fraction=options.validation_fraction,
        seed=options.seed,
        labels_file=options.labels,
        labels_per_image=options.labels_per_image,
        labels_csv=options.labels_csv,
        label_column=options.label_column,
        upright=options.exif_orientation,
        training=training,
    )


def images_of(path: Path) -> Examples | None:
    """The images of a data set other than a folder of photos, whatever their labels; None for other paths."""
    if path.suffix in (".npz", ".npy"):
        return array_images(path)
    if cifar := find_cifar(path):
        return read_cifar(path, cifar).split("all")
    if idx := find_idx(path):
        return read_idx(path, idx).split("all")
    records = find_records(path)
    return record_images(path, records) if records else None


def turned_note(count: int, upright: bool) -> str:
    """The note on so many photos that are not upright by their EXIF data; "" for 0."""
    said = "which is obeyed" if upright else "which is ignored, as slim ignores it; --exif-orientation obeys it"
    photos = "1 photo is rotated by its" if count == 1 else f"{count:,} photos are rotated by their"
    return f"{photos} EXIF orientation, {said}" if count else ""


def read_photos(
    root: Path, called: ClassNames | None, labels_csv: str | os.PathLike[str] | None, columns: Sequence[str], many: bool
) -> DataSet:
    """The photos in a folder, labelled by a given CSV, else by class folders, else by a CSV in the folder."""
    if labels_csv:
        tables = {"": csv_path(labels_csv, root)}
    else:
        inside = subfolders(root)
        tables = find_tables(root) or (find_tables(inside[0]) if len(inside) == 1 else {})
    if tables and (labels_csv or columns or not has_classes(unwrapped(root))):
        data = read_tables(root, tables, called, many=many, columns=columns)
        found = f"the labels are those of {', '.join(names_of(tables))}"
        return data if labels_csv else replace(data, notes=(found, *data.notes))
    data = read_folder(root, called and called.of)
    beside = f"the class folders are taken; --labels-csv would take {', '.join(names_of(tables))}"
    return replace(data, notes=(*data.notes, beside)) if tables else data


def csv_path(given: str | os.PathLike[str], root: str | os.PathLike[str]) -> Path:
    """The path of the given CSV, relative to the working directory or to the data's folder."""
    return Path(given) if Path(given).is_file() else Path(root, given)


def labels_beside(root: Path) -> ClassNames | None:
    """The labels file in a folder, or beside a file. Raises DataError if there are two that disagree."""
    folder = root if root.is_dir() else root.parent
    files = [folder / name for name in LABEL_FILES] + sorted(folder.glob("*label*.pbtxt"))
    found = None
    for file in files:
        if file.is_file():
            found = agreed(found, ClassNames(writable(file.name), read_labels(file)))
    return found


def with_vectors(data: DataSet) -> DataSet:
    """The same data set, whose examples have one label each, with label vectors of 0 and 1."""

    rows = np.eye(len(data.labels), dtype=np.uint8)

    def vectors(part: Examples | None) -> Examples | None:
        return None if part is None else replace(part, label_ids=rows[part.label_ids])

    parts: dict[str, Any] = {split: vectors(getattr(data, split)) for split in ("train", "validation", "test")}
    return replace(data, **parts)


def with_validation(data: DataSet, fraction: float, seed: int) -> DataSet:
    """Fills in missing validation examples: the test examples if there are any, else a seeded split."""
    if len(data.validation):
        return data
    if data.test is not None:
        note = "no validation split: the test split is used for validation"
        return replace(data, validation=data.test, test=None, notes=(*data.notes, note))
    train, validation = divide(data.train, fraction, seed)
    note = f"{len(validation):,} of {len(data.train):,} examples were held out for validation (seed {seed})"
    return replace(data, train=train, validation=validation, notes=(*data.notes, note))
