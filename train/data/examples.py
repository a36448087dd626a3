"""Data sets in memory: labelled examples, which are read one at a time by number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...errors import DataError
from ...report import listed

IMBALANCE = 20  # ratio of the largest to the smallest class from which a note is given
SEPARATOR = "|"  # between several labels of an image in a text
KEPT = 256_000_000  # bytes of photos held between computing their digests and their transfer values
SHOWN = 5  # names listed in a message before "and N more"


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples. `read(i)` returns example i: the bytes of an image file, uint8 [height, width, 1 or 3], or a
    float vector. `names` are unique within a data set: a file's path below its folder, or `file:number`.
    """

    label_ids: np.ndarray  # int32 [n], index into the data set's labels; or uint8 [n, classes] of 0 and 1
    names: tuple[str, ...]
    sizes: tuple[int, ...]  # bytes
    read: Callable[[int], bytes | np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    def counts(self, classes: int) -> list[int]:
        """The number of examples of each class."""
        if self.label_ids.ndim == 2:
            return self.label_ids.sum(axis=0, dtype=np.int64).tolist()
        return np.bincount(self.label_ids, minlength=classes).tolist()

    def take(self, indices: Sequence[int] | np.ndarray, *, kept: bool = False) -> Examples:
        """The examples at these positions, in this order. With `kept`, those kept by `digested` are not read again."""
        chosen = np.asarray(indices, np.int64)
        taken = Examples(
            self.label_ids[chosen],
            tuple(self.names[i] for i in chosen),
            tuple(self.sizes[i] for i in chosen),
            (lambda i: self._again(int(chosen[i]))) if kept else (lambda i: self.read(int(chosen[i]))),
        )
        if "digests" in vars(self):  # already known, so nothing is read again
            vars(taken)["digests"] = tuple(self.digests[i] for i in chosen)
        return taken

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """A digest of 32 hex digits of each example's bytes, for caches. Reads every example, once.

        A CRC32C would be too short: among CIFAR-10's 60,000 images, two are likely to share it.
        """

        return self._digested(lambda digest: False)

    def digested(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """`digests`. If they are computed now, the bytes of examples whose digest is `wanted` are kept in memory, up to
        KEPT bytes, for `take` with `kept`, until `release`, so that a photo is read only once."""
        if "digests" not in vars(self):
            vars(self)["digests"] = self._digested(wanted)
        return self.digests

    def release(self) -> None:
        """Releases the bytes that `digested` kept."""
        vars(self).pop("_kept", None)

    def _digested(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        digests, kept, size = [], {}, 0
        for i in range(len(self)):
            example = self.first if i == 0 else self.read(i)
            digests.append(digest_of(example))
            if isinstance(example, bytes) and size + len(example) <= KEPT and wanted(digests[-1]):
                kept[i] = example
                size += len(example)
        vars(self)["_kept"] = kept
        return tuple(digests)

    def _again(self, i: int) -> bytes | np.ndarray:
        """Example i, from memory if it was kept."""
        kept = vars(self).get("_kept", {})
        return kept[i] if i in kept else self.read(i)

    @cached_property
    def first(self) -> bytes | np.ndarray:
        """The first example, which is read only once; it tells the kind of all of them."""
        return self.read(0)


def digest_of(example: bytes | np.ndarray) -> str:
    """A digest of 32 hex digits of an example's bytes and, for an array, its type and shape."""
    shape = b"" if isinstance(example, bytes) else f"{example.dtype}{example.shape}".encode()
    found = hashlib.blake2b(shape, digest_size=16)
    found.update(example if isinstance(example, bytes) else example.tobytes())
    return found.hexdigest()


EMPTY = Examples(np.zeros(0, np.int32), (), (), lambda i: b"")


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set: class names in the order of their ids, and the examples of each split."""

    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples | None
    kind: str  # "folder", "csv", "tfrecord", "cifar10", "cifar100", "mnist", "npz", "vectors"
    path: str
    notes: tuple[str, ...] = ()  # what the user should know: files left out, a seeded split, an imbalance
    photos: str = ""  # for vectors, the data set that they were computed from, if known
    turned: int = 0  # photos that are not upright by their EXIF data

    def __repr__(self) -> str:
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(part):,} {word}" for word, part in parts.items() if part)
        return f"<data set {self.path}: {len(self.labels):,} classes, {counts or 'no'} examples>"

    @property
    def many(self) -> bool:
        """Whether an example may have several labels."""
        return self.train.label_ids.ndim == 2

    def record(self) -> dict[str, object]:
        """A record by which a run recognises other data: numbers of examples, and eight hex digits that change with
        names and labels. No examples are read."""
        found = hashlib.sha256()
        for part in (self.train, self.validation):
            found.update("\n".join(part.names).encode())
            found.update(np.ascontiguousarray(part.label_ids).tobytes())
        return {"training": len(self.train), "validation": len(self.validation), "digest": found.hexdigest()[:8]}

    def split(self, name: str) -> Examples:
        """The examples of "train", "validation", "test" or "all"."""
        if name == "all":
            return join([part for part in (self.train, self.validation, self.test) if part is not None])
        if name not in ("train", "validation", "test"):
            raise DataError(f"no split {name!r}", advice="There are train, validation, test and all.")
        found = getattr(self, name)
        if found is None:
            raise DataError("the data set has no test split", path=self.path, advice="Use validation, or all.")
        return found


def in_splits(
    labels: Iterable[str], parts: Mapping[str, Examples], kind: str, path: object, notes: Sequence[str] = (),
    *, photos: str = "", turned: int = 0,
) -> DataSet:  # fmt: skip
    """The data set made of these parts: split -> examples."""
    some = next(iter(parts.values()), EMPTY)
    none = some.take([])  # with the same kind of labels as the others
    train, validation = parts.get("train", none), parts.get("validation", none)
    test = parts.get("test")
    return DataSet(
        tuple(labels), train, validation, test, kind, str(path), notes=tuple(notes), photos=photos, turned=turned
    )


def join(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(i: int) -> bytes | np.ndarray:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return parts[part].read(i - int(starts[part]))

    return Examples(
        np.concatenate([part.label_ids for part in parts]),
        tuple(name for part in parts for name in part.names),
        tuple(size for part in parts for size in part.sizes),
        read,
    )


def divide(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Training and validation examples: the given fraction of each class goes to validation.

    A hash of seed and name decides which, so that adding a photo later moves only a few others. A class with a single
    example keeps it for training. An example with several labels counts for the rarest of them.
    """
    if not 0 < fraction < 1:
        raise DataError(f"a validation fraction of {fraction:g} leaves one side empty", advice="Choose one like 0.2.")
    validation: list[int] = []
    strata = rarest(examples.label_ids)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum).tolist()
        ranked = sorted(members, key=lambda i: hashlib.sha1(f"{seed}/{examples.names[i]}".encode()).digest())
        count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
        validation.extend(ranked[:count])
    chosen = np.zeros(len(examples), bool)
    chosen[validation] = True
    return examples.take(np.flatnonzero(~chosen)), examples.take(np.flatnonzero(chosen))


def rarest(label_ids: np.ndarray) -> np.ndarray:
    """The class of each example, int [n]; if it has several, the one with the fewest examples, and -1 if it has none.

    >>> rarest(np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])).tolist()
    [2, 1, 0, -1]
    """
    if label_ids.ndim == 1:
        return label_ids
    order = np.argsort(label_ids.sum(axis=0, dtype=np.int64), kind="stable")
    chosen = order[label_ids[:, order].argmax(axis=1)]
    return np.where(label_ids.any(axis=1), chosen, -1)


def one_colour(label_ids: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """For pictures with one colour per example: its class, int [n], and the class names. Examples with several labels,
    and those with none, form classes of their own.
    """
    if label_ids.ndim == 1:
        return label_ids, tuple(labels)
    counts = label_ids.sum(axis=1)
    others = np.where(counts > 1, len(labels), len(labels) + 1)
    return np.where(counts == 1, label_ids.argmax(axis=1), others), (*labels, "several labels", "no label")


def label_text(label: np.ndarray, labels: Sequence[str]) -> str:
    """The label or labels of an example as text.

    >>> label_text(np.array([1, 0, 1]), ["cat", "dog", "hat"]), label_text(np.int32(1), ["cat", "dog"])
    ('cat|hat', 'dog')
    """
    return labels[int(label)] if label.ndim == 0 else SEPARATOR.join(labels[i] for i in np.flatnonzero(label).tolist())


def checked(data: DataSet) -> DataSet:
    """The data set with notes on oddities. Raises a single DataError for everything that makes it unusable."""
    counts = data.train.counts(len(data.labels))
    empty = [name for name, count in zip(data.labels, counts, strict=True) if not count]
    if not len(data.train) and len(data.validation):
        fact = f"no training images, only {len(data.validation):,} for validation"
        raise DataError(fact, path=data.path, advice="ckpt-evaluate takes these; training needs others.")
    if not len(data.train):
        raise DataError(
            "no images found", path=data.path, advice="Put the images of each class in a folder of its own."
        )
    if empty:
        raise DataError(
            f"no training images for {named('class', empty)}",
            path=data.path,
            advice="Add images, or remove the empty class.",
        )
    if len(data.labels) < 2:
        raise DataError(f"only one class, {data.labels[0]}", path=data.path, advice="A classifier needs at least two.")
    if not len(data.validation):
        raise DataError(f"{len(data.train)} images leave none for validation", path=data.path, advice="Add images.")
    notes = []
    if data.many:
        each = data.train.label_ids.sum(axis=1)
        notes.append(f"an image has {each.mean():.2f} labels on average, {(each == 0).sum():,} have none")
    unseen = [name for name, n in zip(data.labels, data.validation.counts(len(data.labels)), strict=True) if not n]
    if unseen:
        notes.append(f"no validation images for {named('class', unseen)}; their accuracy is not measured")
    few, many = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[many] >= IMBALANCE * counts[few]:
        notes.append(
            f"classes are far from balanced: {counts[many]:,} training images of {data.labels[many]}, "
            f"{counts[few]:,} of {data.labels[few]}; read the per-class figures, not the accuracy alone"
        )
    return replace(data, notes=(*data.notes, *notes))


def named(what: str, names: Sequence[str]) -> str:
    """
    >>> named("class", ["a", "b"])
    '2 classes: a, b'
    >>> named("file", ["x.jpg"])
    'file x.jpg'
    """
    plural = what + ("es" if what.endswith("s") else "s")
    shown = listed(names, SHOWN)
    return f"{what} {shown}" if len(names) == 1 else f"{len(names):,} {plural}: {shown}"


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Steps of an epoch that covers all examples; the last batch may be smaller."""
    return math.ceil(count / batch_size)
