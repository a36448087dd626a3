"""slim's TFRecords: files named `*_train_00000-of-00005.tfrecord`, one tf.train.Example an image.

A record is its length (8 bytes), the masked CRC32C of the length, the data, the masked CRC32C of the data
(tensorflow/core/lib/io/record_writer.h). The files are walked once for labels; images are read when needed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from .examples import EMPTY, DataSet, Examples

SPLIT_OF_WORD = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
NAME = re.compile(r"(?:^|[_.-])(train|validation|valid|val|test)(?=[_.-]|$)")
HEAD = struct.Struct("<QI")


def find_records(root: Path) -> dict[str, list[Path]]:
    """Split -> its record files in a folder, in order; empty when there are none."""
    found: dict[str, list[Path]] = {}
    for file in sorted(root.iterdir()):
        word = NAME.search(file.name.lower())
        named_so = file.suffix in (".tfrecord", ".tfrecords", ".record") or re.search(r"\d-of-\d+$", file.name)
        if word and named_so and file.is_file():
            found.setdefault(SPLIT_OF_WORD[word[1]], []).append(file)
    return found


def read_records(root: Path, files: dict[str, list[Path]], names: dict[int, str] | None) -> DataSet:
    """The data set in these files. `names` is id -> label; without it the ids themselves are the names.

    Ids need not start at 0 (ImageNet's start at 1): classes are numbered in the order of their ids.
    """
    if "train" not in files:
        raise DataError("no training records", path=root, advice="slim names them NAME_train_00000-of-00005.tfrecord.")
    parts = {split: [(file, *place) for file in shards for place in places(file)] for split, shards in files.items()}
    used = sorted({place[3] for part in parts.values() for place in part})
    unknown = [i for i in used if names is not None and i not in names]
    if unknown:
        raise DataError(f"the records use label {unknown[0]}, which labels.txt does not name", path=root)
    order = sorted(names) if names is not None else used
    if names is not None and names.get(0) == "background" and 0 not in used:
        order = order[1:]  # the class that slim's ImageNet labels keep free
    labels = tuple(names[i] if names is not None else str(i) for i in order)
    position = {label: i for i, label in enumerate(order)}
    made = {split: _examples(root, part, position) for split, part in parts.items()}
    return DataSet(labels, made["train"], made.get("validation", EMPTY), made.get("test"), "tfrecord", str(root))


def _examples(root: Path, places_: list[tuple[Path, int, int, int, str]], position: dict[int, int]) -> Examples:
    def read(i: int) -> bytes:
        file, start, length, _, _ = places_[i]
        with file.open("rb") as opened:
            opened.seek(start)
            return parsed(opened.read(length), file).feature["image/encoded"].bytes_list.value[0]

    return Examples(
        np.array([position[place[3]] for place in places_], np.int32),
        tuple(f"{place[0].relative_to(root)}:{place[4]}" for place in places_),
        tuple(place[2] for place in places_),
        read,
    )


def places(file: Path) -> Iterator[tuple[int, int, int, str]]:
    """Start, length, label id and name of each record of a file. Raises DataError where it is damaged."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        number = 0
        while head := opened.read(HEAD.size):
            if len(head) < HEAD.size:
                raise DataError(f"record {number} is cut short", path=file)
            length, crc = HEAD.unpack(head)
            start = opened.tell()
            if masked_crc(head[:8]) != crc or start + length + 4 > size:
                raise DataError(f"record {number} is damaged, or the file is cut short", path=file)
            data = opened.read(length)
            if masked_crc(data) != struct.unpack("<I", opened.read(4))[0]:
                raise DataError(f"the checksum of record {number} differs", path=file)
            features = parsed(data, file).feature
            if not features["image/encoded"].bytes_list.value or not features["image/class/label"].int64_list.value:
                raise DataError(
                    f"record {number} has no image/encoded or no image/class/label, as slim's records have", path=file
                )
            written = features["image/filename"].bytes_list.value if "image/filename" in features else None
            name = f"{number}/{written[0].decode(errors='replace')}" if written else str(number)
            yield start, length, features["image/class/label"].int64_list.value[0], name
            number += 1


def parsed(data: bytes, file: Path):  # noqa: ANN201 - tf.train.Features, named only where TensorFlow is loaded
    """The features of a serialised tf.train.Example."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.example.example_pb2 import Example

    try:
        return Example.FromString(data).features
    except DecodeError:
        raise DataError("a record is not a tf.train.Example", path=file) from None


def masked_crc(data: bytes) -> int:
    """TensorFlow's masked CRC32C: rotated and offset, so that a checksum of checksums stays useful."""
    from crc32c import crc32c

    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
