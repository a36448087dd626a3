"""Photos in class folders, in the usual layouts.

    photos/cat/1.jpg                       class folders, split by a seed
    photos/train/cat/1.jpg  photos/val/... splits, by any of the words of splits.py, in any case
    photos/photos/...                      one folder around all of it, or around each split

The notes of the data set name everything that was left out. If the classes are ambiguous, an error is raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...labels import BACKGROUND, writable
from .examples import DataSet, Examples, in_splits, named
from .exif import HEAD, UPRIGHT, orientation
from .labelling import is_number, sorted_names
from .splits import said_by, split_of

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
HEADERS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
FORMATS = "JPEG, PNG, GIF, BMP, TIFF or WebP"
TOO_MANY = 0.05  # largest share of files that are named like images but are not
LFS = b"version https://git-lfs"
OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini")
OWN_FOLDER = "Put the images of each class in a folder of its own, or give a CSV of them with --labels-csv."


def read_folder(root: Path, names: Mapping[int, str] | None) -> DataSet:
    """The photos below `root`, with folders as classes; `names` are those of a labels file.

    Raises DataError if there are no photos, or if it is unclear which folders are the classes.
    """
    # --- which folders are splits, which are classes ---
    home = unwrapped(root)
    home = root if split_of(home.name) else home  # only a test folder
    splits, others = find_splits(home)
    folders = {split: unwrapped(folder) for split, folder in splits.items()} or {"train": home}
    first = folders.get("train") or next(iter(folders.values()))
    classes = class_folders(first)
    if not classes:
        loose = sum(map(is_image, files_in(first)))
        fact = f"{loose:,} images are not in a class folder" if loose else "no class folders with images"
        raise DataError(fact, path=first, advice=OWN_FOLDER)
    check_classes(first, classes)
    labels = ordered_labels(classes, names)

    # --- the photos ---
    photos, found = _Photos(root), {}
    for split, folder in folders.items():
        inside = class_folders(folder)
        if not set(inside) & set(labels):  # the single folder in it is a class after all
            inside = class_folders(folder := splits[split])
        strangers = [name for name in inside if name not in labels]
        if split != "train" and strangers == inside and len(inside) < 2:
            photos.pass_over(folder)
        elif strangers:
            raise DataError(f"no training images for {named('class', strangers)}", path=folder)
        else:
            found[split] = photos.below(folder, labels)
            photos.look_beside(folder)
    if home not in folders.values():
        photos.look_beside(home)
    photos.check(sum(map(len, found.values())))

    notes = [f"the data lie in {writable(home.relative_to(root))}"] if home != root else []
    notes += [f"left out, no split: {named('folder', others)}"] if others else []
    renamed = [f"{folder} is {label}" for folder, label in labels.items() if label != writable(folder)]
    notes += [f"the labels file names the folders: {'; '.join(renamed[:3])}"] if renamed else []
    notes += photos.notes()
    return in_splits(labels.values(), found, "folder", root, notes, turned=photos.turned)


# --- which folder is what ------------------------------------------------------------------------------------------


def subfolders(folder: Path) -> list[Path]:
    """The subfolders, including links, sorted by name, without hidden ones and those of tools (.ipynb_checkpoints,
    __MACOSX)."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def class_folders(folder: Path) -> list[str]:
    """Names of the subfolders, in order."""
    return sorted_names(entry.name for entry in subfolders(folder))


def unwrapped(folder: Path) -> Path:
    """The only folder in `folder`, if there are no images beside it and it holds several folders of images; else
    `folder`."""
    inside = subfolders(folder)
    if len(inside) != 1 or any(map(is_image, files_in(folder))):
        return folder
    return inside[0] if sum(map(holds_images, subfolders(inside[0]))) > 1 else folder


def has_classes(root: Path) -> bool:
    """Whether at least two folders in it, or in its folder of training images, hold images."""
    splits, _ = find_splits(root)
    folder = unwrapped(splits.get("train") or next(iter(splits.values()), root))
    return sum(map(holds_images, subfolders(folder))) > 1


def find_splits(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Split -> its folder, and the names of the folders beside them; no splits if the folders are classes.

    Folders are splits if their names mean nothing else (Training, test_set), or if two of them share the rest of their
    names (seg_train, seg_test), provided that the folder of training images holds class folders. Raises DataError for
    two folders of the same split.
    """
    inside = subfolders(root)
    groups: dict[tuple[str, ...], list[tuple[str, Path]]] = {}
    for folder in inside:
        split, rest = said_by(folder.name)
        if split:
            groups.setdefault(rest, []).append((split, folder))
    for rest in sorted(groups):
        splits = [split for split, _ in groups[rest]]
        others = [folder.name for folder in inside if folder not in [each for _, each in groups[rest]]]
        trains = [folder for split, folder in groups[rest] if split == "train"]
        if (rest and len(set(splits)) < 2) or (others and not any(map(holds_class_folders, trains))):
            continue  # bullet_train; or bus, car, train: vehicles
        twice = next((split for split in splits if splits.count(split) > 1), None)
        if twice:
            both = " and ".join(folder.name for split, folder in groups[rest] if split == twice)
            raise DataError(f"{both} both name {twice} images", path=root, advice="Put them into one folder.")
        return dict(groups[rest]), others
    return {}, []


def check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raises DataError if the folders are not classes: if all hold the same subfolders, or only one has images, in its
    own subfolders. (cat/images, dog/images is allowed.)
    """
    inside = {frozenset(each.name for each in subfolders(folder / name)) for name in classes}
    shared = sorted_names(next(iter(inside))) if len(inside) == 1 and len(classes) > 1 else []
    if len(shared) > 1:
        above = f"Put the splits above the classes: {shared[0]}/{classes[0]}, not {classes[0]}/{shared[0]}."
        parts = "If they are parts of one data set, call them train and validation; or give one of them."
        fact = f"{named('folder', classes)} all hold the same {named('sub-folder', shared)}: they are not classes"
        raise DataError(fact, path=folder, advice=above if all(map(split_of, shared)) else parts)
    full = [name for name in classes if holds_images(folder / name)]
    deeper = [each.name for each in subfolders(folder / full[0]) if holds_images(each)] if len(full) == 1 else []
    if len(classes) > 1 and len(deeper) > 1:
        fact = f"of {named('folder', classes)}, only {full[0]} has images, in {named('folder', deeper)}"
        raise DataError(fact, path=folder, advice=f"Give {folder / full[0]}.")


def holds_class_folders(folder: Path) -> bool:
    """Whether a subfolder has images."""
    return any(map(holds_images, subfolders(folder)))


def holds_images(folder: Path) -> bool:
    """Whether there is an image in the folder or below."""
    return any(map(is_image, files_below(folder)))


def files_in(folder: Path) -> list[Path]:
    """The files directly in a folder, without hidden ones, in order."""
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order. Links are followed, each folder is entered once, hidden ones are skipped."""
    seen = set()
    for where, folders, entries in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder already visited
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in sorted(entries) if not name.startswith("."))


# --- names of the classes ------------------------------------------------------------------------------------------


def ordered_labels(folders: Sequence[str], names: Mapping[int, str] | None) -> dict[str, str]:
    """Folder -> label, in the order of the classes in the labels file, which must name the same classes.

    Folders that are numbers are taken as ids of the file, unless its names are numbers. A class 0 called background,
    for which data sets with slim's label files have no images, is skipped."""
    if names is None:
        return {folder: writable(folder) for folder in folders}
    known = {writable(folder): folder for folder in folders}
    if all(map(is_number, folders)) and not set(names.values()) & set(known):
        ids = {int(folder): folder for folder in folders}
        listed = [(ids.get(i), names[i]) for i in sorted(names)]
    else:
        listed = [(known.get(names[i]), names[i]) for i in sorted(names)]
    if 0 in names and names[0] == BACKGROUND and listed[0][0] is None:
        listed = listed[1:]
    missing = sorted(label for folder, label in listed if folder is None)
    extra = sorted(map(writable, set(folders) - {folder for folder, _ in listed}))
    if missing or extra:
        sides = [f"only in the labels file: {', '.join(missing)}"] if missing else []
        sides += [f"only as folders: {', '.join(extra)}"] if extra else []
        raise DataError(f"the labels file and the class folders disagree; {'; '.join(sides)}")
    return {folder: label for folder, label in listed if folder is not None}


# --- the photos ----------------------------------------------------------------------------------------------------


class _Photos:
    """Lists photos, and records files that are not photos or have no class."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._left_out: list[str] = []  # files that are not images
        self._broken: list[str] = []  # files named like images that are not
        self._loose: list[str] = []  # images outside class folders
        self._passed_over: list[str] = []
        self.turned = 0  # photos that are not upright by their EXIF data

    def _shown(self, file: Path) -> str:
        return writable(file.relative_to(self._root))

    def below(self, folder: Path, labels: Mapping[str, str]) -> Examples:
        """Every image below the class folders in `folder`."""
        files: list[Path] = []
        ids: list[int] = []
        for number, label in enumerate(labels):
            for file in files_below(folder / label):
                if head := image_head(file):
                    files.append(file)
                    ids.append(number)
                    self.turned += orientation(head) != UPRIGHT
                elif file.name not in OF_THE_SYSTEM:
                    photo = file.suffix.lower() in PHOTO_SUFFIXES
                    (self._broken if photo else self._left_out).append(self._shown(file))
        return Examples(
            np.array(ids, np.int32),
            tuple(map(self._shown, files)),
            tuple(file.stat().st_size for file in files),
            lambda i: files[i].read_bytes(),
        )

    def look_beside(self, folder: Path) -> None:
        """Records the images beside the class folders."""
        self._loose += [self._shown(file) for file in files_in(folder) if is_image(file)]

    def pass_over(self, folder: Path) -> None:
        """Records a split without class folders."""
        count = sum(map(is_image, files_below(folder)))
        self._passed_over.append(f"{self._shown(folder)} holds {count:,} images in no class folder; it was left out")

    def check(self, taken: int) -> None:
        """Raises DataError if so much is wrong that the folder was probably misunderstood."""
        if len(self._broken) > TOO_MANY * (taken + len(self._broken)):
            fact = f"too many files are not images, although their names say so: {named('file', self._broken)}"
            raise DataError(fact, path=self._root)
        if len(self._loose) > taken:
            fact = f"{len(self._loose):,} images are not in a class folder, more than the {taken:,} that lie in one"
            raise DataError(fact, path=self._root, advice=OWN_FOLDER)

    def notes(self) -> list[str]:
        """Notes for the user, one sentence each."""
        not_images = [
            f"left out, no {FORMATS}: {named('file', files)}" for files in (self._broken, self._left_out) if files
        ]
        loose = [f"left out, in no class folder: {named('image', self._loose)}"] if self._loose else []
        return [*self._passed_over, *not_images, *loose]


def is_image(file: Path) -> bool:
    """Whether the first bytes are those of an image; a truncated photo is noticed only when it is decoded."""
    return bool(image_head(file, 24))


def image_head(file: Path, length: int = HEAD) -> bytes:
    """The first bytes of an image file; empty for other files."""
    try:
        with file.open("rb") as opened:
            head = opened.read(length)
    except OSError:
        return b""
    if head.startswith(LFS):
        raise DataError("a Git LFS pointer, not the image itself", path=file, advice="Run `git lfs pull`.")
    return head if head.startswith(HEADERS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") else b""
