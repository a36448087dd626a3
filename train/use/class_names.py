"""Matches classes of a net with the names in a labels file, and with the labels of a data set.

Names are compared before positions, and labels that are numbers mean the classes with these numbers. If names and
positions could mean different classes, a note tells which were used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError, RecipeError, nearest
from ...labels import BACKGROUND, plain
from ..data.labelling import ClassNames, compared, is_number
from ..graph.objective import values_by_label
from .evaluation import HALF

if TYPE_CHECKING:
    from .classifier import Classifier

WITH_BACKGROUND = 1001  # classes of slim's ImageNet nets with a background class
_SHOWN = 3  # pairs in a note


def names_for(classifier: Classifier, file: ClassNames) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the net's classes by a labels file, in order, and notes.

    Raises DataError for a file with another number of names, and for one that permutes the names of a run's classes.
    """
    count, ids = classifier.classes, sorted(file.of)
    names = [file.of[i] for i in ids]
    notes = []
    if len(names) == count + 1 and names[0] == BACKGROUND:
        names = names[1:]
        notes.append(f"{file.by} names a background class, which the net does not have: it is ignored")
    elif len(names) == count - 1 and (ids[0] == 1 or count == classifier.net.classes == WITH_BACKGROUND):
        names = [BACKGROUND, *names]
        notes.append(f"{file.by} names {count - 1:,} classes: the net's class 0 is taken for slim's background class")
    elif len(names) == count and ids != list(range(count)):
        notes.append(f"{file.by} counts from {ids[0]}: its names are taken in their order")
    if len(names) != count:
        raise DataError(f"{len(names):,} labels, but the net has {count:,} classes", path=file.by)
    if classifier.named:
        own = ClassNames("the run", dict(enumerate(classifier.labels)))
        notes += compared(own, ClassNames(file.by, dict(enumerate(names))))
    return tuple(names), tuple(notes)


def class_of_label(classifier: Classifier, labels: Sequence[str]) -> tuple[list[int], str]:
    """The net's class for each label of a data set, and a note if positions could mean something else than names.

    Labels are matched by name if the net's classes have names, by number if the labels are numbers; else by order,
    where a net with one class more than the data has its background class first, like slim's ImageNet nets.
    Raises DataError for labels without a class in the net.
    """
    count = classifier.classes
    if classifier.named:
        places = _by_name(labels, classifier.labels)
        found = [place for place in places if place is not None]
        missing = [label for label, place in zip(labels, places, strict=True) if place is None]
        if not missing:
            moved = found != list(range(len(labels)))
            return found, "classes are matched by name: their order differs here" if moved else ""
        if len(missing) < len(labels):
            fact = f"the net has no class {', '.join(missing[:5])}{nearest(missing[0], classifier.labels)}"
            raise DataError(fact, advice="Its classes are in labels.txt.")
    numbers = [int(label) for label in labels if is_number(label) and int(label) < count]
    if len(numbers) == len(labels) == len(set(numbers)):
        pairs = _pairs(classifier, labels, numbers) if classifier.named else ""
        note = f"the labels are numbers, and taken as the net's class numbers{pairs}"
        if not classifier.named and classifier.net.class_offset and count == classifier.net.classes:
            note += "; slim's ImageNet records count from 1, and its net from 0: for these give --labels"
        return numbers, note
    unknown = "none of the labels is known by name" if classifier.named else "the net's classes have no names"
    if len(labels) == count:
        order = list(range(count))
        return order, f"{unknown}: classes are matched by their order{_pairs(classifier, labels, order)}"
    if len(labels) == count - 1 and not classifier.named:
        note = "the net's class 0 is taken for slim's background class, the others in their order"
        return list(range(1, count)), note
    fact = f"the data has {len(labels):,} classes, the net {count:,}"
    raise DataError(fact, advice="Give --labels, a file that names the net's classes in order.")


def thresholds_of(classifier: Classifier, texts: Sequence[str]) -> tuple[float, ...] | None:
    """The least probability at which each class is predicted, by --threshold; None if an image has one label.

    Raises RecipeError for an unknown class, for a value that is not a probability, and if an image has one label.
    """
    if not classifier.many:
        if texts:
            raise RecipeError(f"--threshold {texts[0]}: the net predicts one label per image, the most likely one")
        return None
    found = values_by_label("--threshold", texts, classifier.labels, HALF)
    if max(found) > 1:
        raise RecipeError(f"--threshold {max(found):g}: a probability is at most 1")
    return tuple(found)


def true_classes(places: Sequence[int], label_ids: np.ndarray, count: int) -> np.ndarray:
    """The net's classes of examples, int64 [n], where label i of their data set is the net's class places[i]; or bool
    [n, count] if examples may have several.
    """
    if label_ids.ndim == 1:
        return np.asarray(places)[label_ids]
    found = np.zeros((len(label_ids), count), bool)
    found[:, places] = label_ids
    return found


def _by_name(labels: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The index of each label among the known ones, or None; names shared by several classes are matched in order."""
    exact = {label: i for i, label in enumerate(known)}
    paired = {name: i for i, name in enumerate(plain(known))}
    return [paired.get(name, exact.get(label)) for label, name in zip(labels, plain(labels), strict=True)]


def _pairs(classifier: Classifier, labels: Sequence[str], places: Sequence[int]) -> str:
    """The first labels with their matched classes, as text."""
    shown = [f"{label} is {classifier.labels[place]}" for label, place in zip(labels, places, strict=True)][:_SHOWN]
    return f" ({', '.join(shown)}{', ...' if len(labels) > _SHOWN else ''})"
