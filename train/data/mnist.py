"""MNIST and data sets in the same format (Fashion-MNIST, EMNIST, KMNIST) as published: IDX files, plain or gzip.

    train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz  t10k-images-idx3-ubyte.gz  t10k-labels-idx1-ubyte.gz
    emnist-letters-train-images-idx3-ubyte.gz ...  emnist-letters-mapping.txt

A file has a magic number (0, 0, type of the values, number of axes), the length of each axis in four bytes, most
significant first, and the values (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...errors import DataError
from .arrays import array_examples
from .examples import DataSet, in_splits, named
from .labelling import ClassNames, agreed, classes_of

FILE = re.compile(r"(?:(.+?)[-_.])?(train|t10k|test)[-_.](images|labels)[-_.]idx\d-ubyte(?:\.gz)?", re.IGNORECASE)
UBYTE = 8  # the type of the values of all published files
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_BEGINS = ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7])  # its first training and test labels
Files = dict[str, dict[str, Path]]  # split -> "images" and "labels" -> file


def find_idx(path: Path) -> dict[str, Files]:
    """The IDX files of each data set at a path: a folder, its `raw` subfolder, or one of the files; {} if there are
    none. The keys are the prefixes before train and t10k: "emnist-letters", but mostly ""."""
    folder = path if path.is_dir() else path.parent
    found: dict[str, Files] = {}
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):  # torchvision's layout
        for file in sorted(place.iterdir(), reverse=True) if place.is_dir() and not found else ():
            if (match := FILE.fullmatch(file.name)) and file.is_file():  # prefers the uncompressed file
                split = "train" if match[2].lower() == "train" else "test"
                found.setdefault(match[1] or "", {}).setdefault(split, {})[match[3].lower()] = file
    if path.is_dir():
        return found
    return {name: files for name, files in found.items() if any(path in parts.values() for parts in files.values())}


def read_idx(
    root: Path, found: dict[str, Files], names: ClassNames | None = None, given: ClassNames | None = None
) -> DataSet:
    """The data set in these files. `names` comes from a labels file beside them, `given` from one that the user gave.

    Raises DataError for files of several data sets, damaged ones, and names that contradict each other.
    """
    if len(found) > 1:
        fact = f"holds {named('data set', [name or 'MNIST' for name in sorted(found)])}"
        raise DataError(fact, path=root, advice="Give a file of one of them.")
    (name, files), arrays = next(iter(found.items())), {}
    if "train" not in files:
        raise DataError("holds no images to train on", path=root, advice="They are in train-images-idx3-ubyte.gz.")
    for split, parts in files.items():
        missing = [what for what in ("images", "labels") if what not in parts]
        if missing:
            there = next(iter(parts.values())).name
            raise DataError(f"the file of the {missing[0]} that belong to {there} is missing", path=root)
        arrays[split] = _array(parts["images"], (3, 4)), _array(parts["labels"], (1,)).astype(np.int64)
        if len(arrays[split][0]) != len(arrays[split][1]):
            fact = f"{len(arrays[split][0]):,} images, {len(arrays[split][1]):,} labels"
            raise DataError(fact, path=parts["images"])
    published, notes = _published(name, files, arrays)
    own = agreed(published, names)
    labels, ids = classes_of({split: numbers.tolist() for split, (_, numbers) in arrays.items()}, agreed(own, given))
    made = {}
    for split, (images, _) in arrays.items():
        images = images.transpose(0, 2, 1) if "emnist" in name.casefold() and images.ndim == 3 else images
        images = images[..., None] if images.ndim == 3 else images
        made[split] = array_examples(images, ids[split], None, f"{split}:")
    return in_splits(labels, made, "mnist", root, notes)


def _published(
    name: str, files: Files, arrays: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[ClassNames | None, list[str]]:
    """The published class names, if known, and a note on how they were recognised."""
    begin = [labels[:10].tolist() for _, labels in arrays.values()]
    if any(labels in FASHION_BEGINS for labels in begin):
        return ClassNames("Fashion-MNIST", dict(enumerate(FASHION))), ["Fashion-MNIST, by its first labels"]
    notes = (
        ["EMNIST's images, which are written column by column, are transposed"] if "emnist" in name.casefold() else []
    )
    mapping = next(iter(files["train"].values())).parent / f"{name}-mapping.txt"
    if not mapping.is_file():
        return None, notes
    try:
        rows = [
            list(map(int, line.split())) for line in mapping.read_text(encoding="ascii").splitlines() if line.strip()
        ]
        called = {row[0]: "".join(map(chr, row[1:])) for row in rows}  # class number and character codes
    except (ValueError, OSError) as error:
        raise DataError(f"is not an EMNIST mapping ({error})", path=mapping) from None
    return ClassNames(mapping.name, called), notes


def _array(file: Path, axes: Iterable[int]) -> np.ndarray:
    """The values of an IDX file, uint8. Raises DataError if it is damaged or has another number of axes."""
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", path=file, advice="Download it again.") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, UBYTE]) or data[3] not in axes:
        raise DataError("is not an IDX file of bytes with these axes", path=file)
    shape = tuple(np.frombuffer(data, ">u4", data[3], 4).tolist()) if len(data) >= 4 + 4 * data[3] else (0,)
    start = 4 + 4 * data[3]
    if len(data) - start != np.prod(shape, dtype=np.int64) or (len(shape) == 4 and shape[3] not in (1, 3)):
        fact = f"says {' x '.join(map(str, shape))} values and holds {len(data) - start:,} bytes"
        raise DataError(fact, path=file, advice="Download it again.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
