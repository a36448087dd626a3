"""TFRecords of tf.train.Examples with one image each, as written by slim: `*_train_00000-of-00005.tfrecord`.

A record has its length (8 bytes), the masked CRC32C of the length, the data, and the masked CRC32C of the data
(tensorflow/core/lib/io/record_writer.h). The files are scanned once for labels; images are read when needed. Record
files are recognised by their first bytes, whatever their name; compressed ones are unpacked to a temporary file.
"""

from __future__ import annotations

import re
import struct
import tempfile
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import DataError
from ...labels import told_apart, writable
from .examples import DataSet, Examples, in_splits, named
from .exif import HEAD as HEAD_OF_IMAGE
from .exif import UPRIGHT, orientation
from .labelling import ClassNames, agreed, as_ids, compared, in_parts, numbered, only_labels, several
from .splits import said_by, split_of

if TYPE_CHECKING:
    from tensorflow.core.example.example_pb2 import Features
    from tensorflow.core.example.feature_pb2 import Feature

SUFFIXES = (".tfrecord", ".tfrecords", ".record", ".tfrec")
SHARD = re.compile(r"(.*?)-?(\d{5})-of-(\d{5})(.*)")
HEAD = struct.Struct("<QI")
PACKED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip, and zlib at its levels
EITHER = 47  # zlib's wbits for both gzip and zlib
CHUNK = 1 << 20
IMAGES, LABELS = ("image/encoded", "image"), ("image/class/label", "label")  # slim's, and those of TensorFlow Datasets
TEXTS = "image/class/text"


class Record(NamedTuple):
    """A record: the position of its data, the feature with its image, its label ids, their names, its own name."""

    source: _Plain | _Unpacked
    start: int
    length: int
    image: str  # the feature
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    name: str
    turned: bool  # not upright by the image's EXIF data


# --- which files hold records --------------------------------------------------------------------------------------


class RecordFiles(NamedTuple):
    """The record files of each split, and notes on them."""

    files: dict[str, list[Path]]
    notes: list[str]


def find_records(root: Path) -> RecordFiles | None:
    """The record files that a path means: one file, those in a folder, or those in its folders of splits. If no name
    says that a file is for training, files whose names say nothing are. None if there are no record files."""
    if root.is_file():
        return RecordFiles({"train": [root]}, missing_shards([root])) if is_records(root) else None
    files = [file for file in sorted(root.iterdir()) if file.is_file() and is_records(file)]
    splits = [said_by(file.name).split for file in files]
    if not files:
        below = [(file, split_of(folder.name)) for folder in sorted(root.iterdir()) if folder.is_dir()
                 for file in sorted(folder.iterdir()) if split_of(folder.name) and file.is_file()]  # fmt: skip
        files = [file for file, _ in below if is_records(file)]
        splits = [split for file, split in below if file in files]
    if not files:
        return None
    rest = [file for file, split in zip(files, splits, strict=True) if split is None]
    found = {
        split: [file for file, said in zip(files, splits, strict=True) if said == split] for split in splits if split
    }
    notes = missing_shards(files)
    if rest and "train" in found:
        notes.append(f"left out, their names say no split: {named('file', [writable(file.name) for file in rest])}")
    return RecordFiles({"train": rest, **found} if rest and "train" not in found else found, notes)


def missing_shards(files: Sequence[Path]) -> list[str]:
    """A sentence for each incomplete set of shards."""
    there: dict[tuple[Path, str, int, str], set[int]] = {}
    for file in files:
        if shard := SHARD.fullmatch(file.name):
            there.setdefault((file.parent, shard[1], int(shard[3]), shard[4]), set()).add(int(shard[2]))
    notes = []
    for (folder, stem, count, ending), numbers in there.items():
        absent = [i for i in range(count) if i not in numbers]
        if absent:
            dash = "-" if (folder / f"{stem}-{min(numbers):05}-of-{count:05}{ending}") in files else ""
            missing = [writable(f"{stem}{dash}{i:05}-of-{count:05}{ending}") for i in absent]
            notes.append(f"{len(numbers):,} of {count:,} shards are here, without {named('file', missing)}")
    return notes


def is_records(file: Path) -> bool:
    """Whether a file holds records, by its name, or else by the checksum at its beginning."""
    plain = file.name.removesuffix(".gz")
    if plain.endswith(SUFFIXES) or (SHARD.fullmatch(plain) and said_by(plain).split):
        return True
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
        head = zlib.decompressobj(EITHER).decompress(head, HEAD.size) if head.startswith(PACKED) else head[: HEAD.size]
    except (OSError, zlib.error):
        return False
    return len(head) == HEAD.size and masked_crc(head[:8]) == HEAD.unpack(head)[1]


# --- the data set --------------------------------------------------------------------------------------------------


def read_records(
    root: Path,
    found: RecordFiles,
    names: ClassNames | None = None,
    given: ClassNames | None = None,
    *,
    many: bool = False,
) -> DataSet:
    """The data set in these files. Class names come from `names`, a file beside the records, and `given`, a file that
    the user gave, else from the records' own texts, else from the ids.

    Ids need not start at 0 (ImageNet's start at 1): classes are numbered in the order of their ids.
    Raises DataError for damage, for several labels of an image unless `many`, and for names that contradict each other.
    """
    folder = root if root.is_dir() else root.parent
    parts = {split: records_of(files, folder) for split, files in found.files.items()}
    every = [record for part in parts.values() for record in part]
    try:
        labels, ids, notes = _labelled(every, agreed(names, given), many)
    except DataError as error:
        raise error.at(path=root) from None
    made = {split: _examples(parts[split], of_split) for split, of_split in in_parts(ids, parts).items()}
    turned = sum(record.turned for record in every)
    return in_splits(labels, made, "tfrecord", root, (*found.notes, *notes), turned=turned)


def _labelled(
    records: Sequence[Record], called: ClassNames | None, many: bool
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """The class names, the class or classes of each record, and notes."""
    shown = [record.name for record in records]

    def classes(values: Sequence[Sequence[Any]], called: ClassNames | None) -> tuple[tuple[str, ...], np.ndarray]:
        return several(values, called) if many else numbered(only_labels(values, shown), called)

    if any(record.texts for record in records) and not any(record.ids for record in records):  # labelled by text only
        return *classes([record.texts for record in records], called), []
    values = as_ids([record.ids for record in records])
    wrong = next((i for i, ids in enumerate(values) if any(number < 0 for number in ids)), None)
    if wrong is not None:
        raise DataError(f"{shown[wrong]} has the label {min(values[wrong])}", advice="Labels are ids from 0 on.")
    texts, notes = _texts_of(records), []
    if called and texts.of:
        notes = compared(texts, called)
    complete = {number for ids in values for number in ids} <= set(texts.of)
    return *classes(values, called or (texts if complete and texts.of else None)), notes


def _texts_of(records: Sequence[Record]) -> ClassNames:
    """Names of ids, from records that have both. Raises DataError for an id with two names."""
    found: dict[int, str] = {}
    for record in records:
        if len(record.texts) != len(record.ids):
            continue
        for i, text in zip(record.ids, record.texts, strict=True):
            if found.setdefault(i, text) != text:
                raise DataError(f"{record.name} calls label {i} {text}, and a record before it {found[i]}")
    return ClassNames(TEXTS, told_apart(found))


def _examples(records: Sequence[Record], ids: np.ndarray) -> Examples:
    places = [(record.source, record.start, record.length, record.image) for record in records]

    def read(i: int) -> bytes:
        source, start, length, image = places[i]
        return parsed(source.read(start, length), source.file).feature[image].bytes_list.value[0]

    return Examples(
        ids,
        tuple(record.name for record in records),
        tuple(record.length for record in records),
        read,
    )


# --- reading -------------------------------------------------------------------------------------------------------


class _Plain(NamedTuple):
    """An uncompressed file, which is read in place."""

    file: Path

    def read(self, start: int, length: int) -> bytes:
        """Data of the file."""
        with self.file.open("rb") as opened:
            opened.seek(start)
            return opened.read(length)


class _Unpacked(NamedTuple):
    """A compressed file, unpacked to an anonymous temporary file that all compressed files share."""

    file: Path
    store: _Store

    def read(self, start: int, length: int) -> bytes:
        """Data of the unpacked file."""
        with self.store.lock:
            self.store.file.seek(start)
            return self.store.file.read(length)


class _Store:
    """The temporary file, from which many threads read images."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as its examples exist
        self.lock = threading.Lock()
        weakref.finalize(self, self.file.close)

    def add(self, file: Path) -> tuple[int, int]:
        """Unpacks a file; returns start and end of its data. Raises DataError if the file is truncated."""
        start = self.file.seek(0, 2)
        unpacker = zlib.decompressobj(EITHER)
        try:
            with file.open("rb") as packed:
                while data := packed.read(CHUNK):
                    while data:
                        if unpacker.eof:  # gzip files may be concatenated
                            unpacker = zlib.decompressobj(EITHER)
                        self.file.write(unpacker.decompress(data))
                        data = unpacker.unused_data
        except zlib.error as error:
            raise DataError(f"cannot be unpacked: {error}", path=file) from None
        except OSError as error:
            advice = "TMPDIR can name a folder with more room; or unpack it yourself."
            raise DataError(f"cannot be unpacked ({error.strerror})", path=file, advice=advice) from None
        if not unpacker.eof:
            raise DataError("is cut short", path=file)
        return start, self.file.tell()


def record_images(root: Path, found: RecordFiles) -> Examples:
    """The images in these files without their labels, if any."""
    folder = root if root.is_dir() else root.parent
    records = [record for files in found.files.values() for record in records_of(files, folder, labelled=False)]
    return _examples(records, np.zeros(len(records), np.int32))


def records_of(files: Sequence[Path], folder: Path, *, labelled: bool = True) -> list[Record]:
    """All records of the files in `folder`. Raises DataError if one is damaged or, with `labelled`, has no label."""
    store, found = None, []
    for file in files:
        with file.open("rb") as opened:
            if opened.read(2) in PACKED:
                store = store or _Store()
                start, end = store.add(file)
                source: _Unpacked | _Plain = _Unpacked(file, store)
                walked = _walk(store.file, file, start, end)
            else:
                source, walked = _Plain(file), _walk(opened, file, 0, file.stat().st_size)
            for number, (place, data) in enumerate(walked):
                shown = f"{writable(file.relative_to(folder))}:{number}"
                found.append(_record(source, place, data, shown, labelled))
    return found


def _walk(opened: BinaryIO, file: Path, place: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yields the start of each record's data, and the data."""
    number = 0
    opened.seek(place)
    while head := opened.read(min(HEAD.size, end - opened.tell())):
        if len(head) < HEAD.size:
            raise DataError(f"record {number} is cut short", path=file)
        length, crc = HEAD.unpack(head)
        place = opened.tell()
        if masked_crc(head[:8]) != crc or place + length + 4 > end:
            raise DataError(f"record {number} is damaged, or the file is cut short", path=file)
        data = opened.read(length)
        if masked_crc(data) != struct.unpack("<I", opened.read(4))[0]:
            raise DataError(f"the checksum of record {number} differs", path=file)
        yield place, data
        number += 1


def _record(source: _Plain | _Unpacked, start: int, data: bytes, name: str, labelled: bool) -> Record:
    features = parsed(data, source.file).feature
    image = next((key for key in IMAGES if key in features and features[key].bytes_list.value), "")
    label = next((key for key in LABELS if key in features), None)
    ids, texts = _values(features[label]) if label else ((), ())
    texts = texts or _texts(features, TEXTS)
    if not image or (labelled and label is None and not texts):
        number = name.rpartition(":")[2]
        lacks = f"no {IMAGES[0]} or no {LABELS[0]}" if labelled else f"no {IMAGES[0]}"
        fact = f"record {number} has {lacks}, as slim's records have"
        raise DataError(fact, path=source.file, advice=f"It has {', '.join(sorted(features)) or 'nothing'}.")
    written = _texts(features, "image/filename")
    shown = f"{name}/{writable(written[0])}" if written else name
    turned = orientation(features[image].bytes_list.value[0][:HEAD_OF_IMAGE]) != UPRIGHT
    return Record(source, start, len(data), image, ids, texts, shown, turned)


def _values(feature: Feature) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The integers of a feature, and its texts."""
    numbers = feature.int64_list.value or feature.float_list.value
    if any(number != int(number) for number in numbers):
        raise DataError(f"a label is {list(numbers)[:5]}, which are not whole numbers")
    texts = tuple(value.decode(errors="backslashreplace") for value in feature.bytes_list.value)
    return tuple(map(int, numbers)), texts


def _texts(features: Mapping[str, Feature], key: str) -> tuple[str, ...]:
    return _values(features[key])[1] if key in features else ()


def parsed(data: bytes, file: Path) -> Features:
    """The features of a serialised tf.train.Example."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.example.example_pb2 import Example

    try:
        return Example.FromString(data).features
    except DecodeError:
        raise DataError("a record is not a tf.train.Example", path=file) from None


def masked_crc(data: bytes) -> int:
    """TensorFlow's masked CRC32C: rotated and offset, so that a checksum of checksums stays reliable."""
    from crc32c import crc32c

    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
