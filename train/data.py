"""Finds out what lies at a path and reads it as a data set.

load_data_set("photos")      photos/cat/1.jpg ...: class folders, split here by a seed
                             photos/train/cat/1.jpg, photos/validation/... or photos/test/...
                             slim TFRecords, CIFAR-10 batches as published (folder or .tar.gz), .npz, .npy
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError, nearest
from ..labels import read_labels
from .arrays import is_cifar10, read_cifar10, read_npz
from .examples import EMPTY, DataSet, Examples, checked, divide, named
from .records import find_records, read_records

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
HEADERS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
TOO_MANY = 0.05  # of the photos may be unreadable before a run stops
LFS = b"version https://git-lfs"


def load_data_set(
    path: str | os.PathLike,
    *,
    validation_fraction: float = 0.2,
    seed: int = 0,
    labels_file: str | os.PathLike | None = None,
    training: bool = True,
) -> DataSet:
    """Reads names and labels, not the images, of the data set at `path`.

    The order of the classes is that of `labels_file` or of a `labels.txt` in the folder, else the sorted names of
    the folders. `validation_fraction` and `seed` are used where the data set brings no validation examples.
    Raises DataError for what cannot be trained on: no images, an empty class, labels that disagree. Without `training`
    it is enough that there are images.
    """
    root = Path(path)
    if not root.exists():
        siblings = sorted(p.name for p in root.parent.iterdir()) if root.parent.is_dir() else []
        raise DataError(f"no such file or folder{nearest(root.name, siblings)}", path=root)
    names = read_labels(labels_file or root / "labels.txt") if labels_file or (root / "labels.txt").is_file() else None
    if root.suffix in (".npz", ".npy"):
        data = read_npz(root, names)
    elif is_cifar10(root):
        data = read_cifar10(root)
    elif root.is_file():
        raise DataError("not a data set", path=root, advice="Give a folder, an .npz file or CIFAR-10's .tar.gz.")
    elif records := find_records(root):
        data = read_records(root, records, names)
    else:
        data = read_folder(root, names)
    data = with_validation(data, validation_fraction, seed)
    return data if not training and len(data.validation) else checked(data)


def with_validation(data: DataSet, fraction: float, seed: int) -> DataSet:
    """Fills in the validation examples: the test examples where there are no others, else a seeded split."""
    if len(data.validation):
        return data
    kept = {"labels": data.labels, "kind": data.kind, "path": data.path, "photos": data.photos}
    if data.test is not None:
        notes = (*data.notes, "no validation examples of its own: the test examples are used for validation")
        return DataSet(train=data.train, validation=data.test, test=None, notes=notes, **kept)
    train, validation = divide(data.train, fraction, seed)
    note = f"{len(validation):,} of {len(data.train):,} examples were set aside for validation (seed {seed})"
    return DataSet(train=train, validation=validation, test=None, notes=(*data.notes, note), **kept)


def read_folder(root: Path, names: dict[int, str] | None) -> DataSet:
    """A folder of class folders, with or without the folders of the splits above them."""
    splits = {
        split: next((root / word for word in words if (root / word).is_dir()), None) for split, words in SPLITS.items()
    }
    if splits["train"] is None:
        splits = {"train": root, "validation": None, "test": None}
    classes = class_folders(splits["train"])
    if not classes:
        loose = sum(is_image(entry) for entry in splits["train"].iterdir() if entry.is_file())
        fact = f"{loose:,} images lie in no class folder" if loose else "no class folders with images"
        raise DataError(fact, path=splits["train"], advice="Put the images of each class in a folder of its own.")
    labels = ordered_labels(classes, names)
    left_out: list[str] = []
    broken: list[str] = []
    found = {}
    for split, folder in splits.items():
        if folder is None:
            continue
        strangers = sorted(set(class_folders(folder)) - set(labels))
        if strangers:
            raise DataError(f"no training images for {named('class', strangers)}", path=folder)
        found[split] = list_images(root, folder, labels, left_out, broken)
    total = sum(map(len, found.values()))
    if len(broken) > TOO_MANY * (total + len(broken)):
        raise DataError(f"too many files are not the images that their names say: {named('file', broken)}", path=root)
    notes = [f"left out, not an image: {named('file', files)}" for files in (broken, left_out) if files]
    return DataSet(
        labels, found["train"], found.get("validation", EMPTY), found.get("test"), "folder", str(root), tuple(notes)
    )


def class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def ordered_labels(folders: Sequence[str], names: dict[int, str] | None) -> tuple[str, ...]:
    """The classes in the order of the labels file, which must name the same ones as the folders."""
    if names is None:
        return tuple(folders)
    listed = [names[i] for i in sorted(names)]
    missing, extra = sorted(set(listed) - set(folders)), sorted(set(folders) - set(listed))
    if missing or extra:
        sides = [f"only in the labels file: {', '.join(missing)}"] if missing else []
        sides += [f"only as folders: {', '.join(extra)}"] if extra else []
        raise DataError(f"the labels file and the class folders disagree; {'; '.join(sides)}")
    return tuple(listed)


def list_images(root: Path, folder: Path, labels: Sequence[str], left_out: list[str], broken: list[str]) -> Examples:
    """Every image below the class folders. Other files are added to `left_out`, or to `broken` if they are named
    like photos.
    """
    files: list[Path] = []
    ids: list[int] = []
    for number, label in enumerate(labels):
        for where, folders, entries in os.walk(folder / label):
            folders.sort()
            for entry in sorted(entries):
                file = Path(where, entry)
                if entry.startswith(".") or entry in ("Thumbs.db", "desktop.ini"):
                    continue
                if is_image(file):
                    files.append(file)
                    ids.append(number)
                else:
                    (broken if file.suffix.lower() in PHOTO_SUFFIXES else left_out).append(str(file.relative_to(root)))
    return Examples(
        np.array(ids, np.int32),
        tuple(str(file.relative_to(root)) for file in files),
        tuple(file.stat().st_size for file in files),
        lambda i: files[i].read_bytes(),
    )


def is_image(file: Path) -> bool:
    """Looks at the first bytes only: a photo that is cut short is found when it is decoded."""
    try:
        with file.open("rb") as opened:
            head = opened.read(24)
    except OSError:
        return False
    if head.startswith(LFS):
        raise DataError("a Git LFS pointer, not the image itself", path=file, advice="Run `git lfs pull`.")
    return head.startswith(HEADERS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
