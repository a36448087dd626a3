"""Names the classes of a data set: by the data, by a labels file, or by numbers.

The data and a file must agree; neither wins silently. Names are compared before positions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...errors import DataError
from ...labels import BACKGROUND, plain

MANY = "--labels-per-image many takes all of them."
NONE = "--labels-per-image many takes images without any label."
_SHOWN = 5  # classes in a message
Label = TypeVar("Label", bound=Hashable)


class ClassNames(NamedTuple):
    """Class names `of`, id -> name, and their source `by`, such as a file or an array."""

    by: str
    of: Mapping[int, str]

    @property
    def listed(self) -> list[str]:
        """The names in the order of their ids, without slim's background class."""
        return [self.of[i] for i in sorted(self.of) if (i, self.of[i]) != (0, BACKGROUND)]


def agreed(own: ClassNames | None, given: ClassNames | None) -> ClassNames | None:
    """The class names from the data and a given file, which must agree; None if there are neither.

    Raises DataError if they differ. Ids may start at another number, and slim's background class may be missing.
    """
    if own is None or given is None or plain(own.listed) == plain(given.listed):
        return own or given
    ours, theirs = own.listed, given.listed
    if len(ours) != len(theirs):
        fact = f"{own.by} names {len(ours):,} classes and {given.by} {len(theirs):,}"
    else:
        pairs = [f"class {i} is {a} and {b}" for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        more = f"; and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else ""
        fact = f"{own.by} and {given.by} disagree: {'; '.join(pairs[:_SHOWN])}{more}"
    raise DataError(fact, advice="Correct one of them, or leave it out.")


def compared(texts: ClassNames, called: ClassNames) -> list[str]:
    """A note if the data name their classes differently than the file whose names are used.

    Raises DataError if both use the same names for different classes, since then one of them is wrong.
    """
    other = [i for i in sorted(texts.of) if texts.of[i] != called.of.get(i)]
    wrong = [i for i in other if texts.of[i] in set(called.of.values())]
    if wrong:
        pairs = [f"class {i} is {texts.of[i]} and {called.of.get(i, 'none')}" for i in wrong[:_SHOWN]]
        raise DataError(f"{texts.by} and {called.by} disagree: {'; '.join(pairs)}")
    if not other:
        return []
    return [f"{called.by} names the classes, not {texts.by}: {called.of.get(other[0])}, not {texts.of[other[0]]}"]


def numbered(values: Sequence[int] | Sequence[str], called: ClassNames | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names in order, and the class of each label, int32 [n]. Labels are ids or names.

    Without `called` the ids are the names. A class 0 called background that has no examples is left out.
    Raises DataError for labels that `called` does not name.

    >>> numbered([1, 5, 1], ClassNames("labels.txt", {0: "background", 1: "daisy", 5: "rose"}))
    (('daisy', 'rose'), array([0, 1, 0], dtype=int32))
    """
    different, inverse = np.unique(np.asarray(values), return_inverse=True)
    found: list[Any] = different.tolist() if len(values) else []
    if called is None:
        order: list[Any] = sorted_names(found) if found and isinstance(found[0], str) else found
        labels = tuple(map(str, order))
    else:
        by_name = {name: i for i, name in called.of.items()}
        read = [by_name.get(v, int(v) if is_number(v) else v) if isinstance(v, str) else v for v in found]
        strange = [v for v, i in zip(found, read, strict=True) if i not in called.of]
        if strange:
            more = f", nor have {len(strange) - 1:,} others" if len(strange) > 1 else ""
            raise DataError(f"label {strange[0]!r} has no name in {called.by}{more}")
        found, order = read, sorted(called.of)
        if called.of.get(0) == BACKGROUND and 0 not in read:
            order = order[1:]  # the background class of slim's ImageNet labels
        labels = tuple(called.of[i] for i in order)
    position = {value: i for i, value in enumerate(order)}
    return labels, np.array([position[value] for value in found], np.int32)[inverse]


def several(
    values: Sequence[Sequence[int]] | Sequence[Sequence[str]], called: ClassNames | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """The same for examples with any number of labels: uint8 [n, classes] of 0 and 1.

    >>> several([["cat", "hat"], [], ["hat"]], None)[1].tolist()
    [[1, 1], [0, 0], [0, 1]]
    """
    flat: list[Any] = [label for each in values for label in each]
    labels, classes = numbered(flat, called)
    found = np.zeros((len(values), len(labels)), np.uint8)
    found[np.repeat(np.arange(len(values)), [len(each) for each in values]), classes] = 1
    return labels, found


def classes_of(
    labels: Mapping[str, Sequence[Any]], called: ClassNames | None, many: bool = False
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The same for the labels of each split: the names of all classes, and each split's ids."""
    every = [label for of_split in labels.values() for label in of_split]
    names, ids = (several if many else numbered)(every, called)
    return names, in_parts(ids, labels)


def in_parts(ids: np.ndarray, parts: Mapping[str, Sized]) -> dict[str, np.ndarray]:
    """Splits the concatenated ids of all parts into the ids of each part.

    >>> in_parts(np.arange(5), {"train": "abc", "test": "de"})
    {'train': array([0, 1, 2]), 'test': array([3, 4])}
    """
    ends = np.cumsum([len(part) for part in parts.values()])
    return dict(zip(parts, np.split(ids, ends[:-1]), strict=True))


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names in alphabetical order, or in numerical order if all are numbers.

    >>> sorted_names(["10", "9", "1"]), sorted_names(["b10", "b9"])
    (['1', '9', '10'], ['b10', 'b9'])
    """
    listed = list(names)
    return sorted(listed, key=lambda name: (int(name), name)) if all(map(is_number, listed)) else sorted(listed)


def is_number(text: str) -> bool:
    """Whether a name is a non-negative integer, which can be the id of a class."""
    return text.isascii() and text.isdigit()


# --- one label of each example -------------------------------------------------------------------------------------


def only_labels(values: Sequence[Sequence[Label]], names: Sequence[str]) -> list[Label]:
    """The single label of each example; `names` are used in messages. Raises DataError for several labels or none."""
    wrong = [i for i, each in enumerate(values) if len(each) != 1]
    if wrong:
        first = max(wrong[:1000], key=lambda i: len(values[i]) > 1)  # one with several, if there is any
        found = values[first]
        shown = ", ".join(map(str, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
        fact = f"{names[first]} has {len(found)} labels ({shown})" if found else f"{names[first]} has no label"
        more = f", and {len(wrong) - 1:,} others have not just one" if len(wrong) > 1 else ""
        raise DataError(f"{fact}{more}", advice=MANY if found else NONE)
    return [each[0] for each in values]


def as_ids(values: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """The label ids of each example, written either as ids or as vectors of 0 and 1 with one place per class.

    >>> as_ids([[3], [5, 7]]), as_ids([[0, 0, 1], [1, 1, 0]])
    ([[3], [5, 7]], [[2], [0, 1]])
    """
    return [np.flatnonzero(each).tolist() for each in values] if are_vectors(values) else values


def are_vectors(values: Sequence[Sequence[int]]) -> bool:
    """Whether labels are vectors of 0 and 1 rather than ids: all have the same length, and either one of them repeats a
    number, which lists of ids do not, or the length is 2.

    >>> are_vectors([[0, 1, 1]]), are_vectors([[0, 1], [1, 0]]), are_vectors([[0, 1], [4]]), are_vectors([[0], [1]])
    (True, True, False, False)
    """
    lengths = set(map(len, values))
    if len(lengths) != 1 or min(lengths) < 2 or not all(set(each) <= {0, 1} for each in values):
        return False
    return lengths == {2} or any(len(set(each)) < len(each) for each in values)
