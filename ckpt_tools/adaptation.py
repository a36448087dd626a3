"""Adapts values to a variable of another shape: the classes of a head, or the input channels of a first layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import RecipeError, nearest

if TYPE_CHECKING:
    import numpy as np

CLASS_MAP_HELP = 'indices of old classes in the order of the new ones ("3,7,_,10-19", _ for a class that is new)'


class Adaptation(NamedTuple):
    """Index `i` of `axis` takes index `take[i]` of the source, or is freshly initialised if that is None.

    `scale` multiplies the taken values. `kind` is the reason: "classes", or "channels" (input channels of a
    convolution). A single new channel is the sum of the old ones: then `take` is (0, 1, 2, ...), `kind` "channel sum".
    """

    kind: str
    axis: int
    take: tuple[int | None, ...]
    scale: float = 1.0

    def apply(self, values: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """The values of the variable, in the shape and type of `fresh`, its own initial values.

        >>> import numpy
        >>> old, fresh = numpy.array([[1.0, 2.0, 3.0]]), numpy.zeros((1, 2))
        >>> Adaptation("classes", 1, (2, None)).apply(old, fresh)
        array([[3., 0.]])
        """
        import numpy as np

        if self.kind == "channel sum":
            return values.sum(axis=self.axis, keepdims=True).astype(fresh.dtype)
        known = [taken for taken in self.take if taken is not None]
        if len(known) == len(self.take):
            kept = np.take(values, known, self.axis)
            return (kept if self.scale == 1.0 else kept * self.scale).astype(fresh.dtype, copy=False)
        made = np.moveaxis(fresh.copy(), self.axis, 0)
        old = np.moveaxis(values, self.axis, 0)
        for new, taken in enumerate(self.take):
            if taken is not None:
                made[new] = old[taken] if self.scale == 1.0 else old[taken] * self.scale
        return np.moveaxis(made, 0, self.axis)


def classes(axis: int, class_map: Sequence[int | None]) -> Adaptation:
    """A head whose new class i is the old class class_map[i]."""
    return Adaptation("classes", axis, tuple(class_map))


def channels(axis: int, old: int, new: int) -> Adaptation:
    """Adapts input channels so that the response to a picture with equal channels stays the same.

    One new channel is the sum of the old ones; several are the old ones repeated and scaled by old / new, as in timm.
    """
    if new == 1:
        return Adaptation("channel sum", axis, tuple(range(old)))
    return Adaptation("channels", axis, tuple(i % old for i in range(new)), old / new)


def parse_class_map(text: str) -> tuple[int | None, ...]:
    """Parses indices of old classes in the order of the new ones; `_` is a freshly initialised class.

    Raises RecipeError for anything else.

    >>> parse_class_map("3,7,_,10-12")
    (3, 7, None, 10, 11, 12)
    """
    made: list[int | None] = []
    for item in text.replace("\n", ",").split(","):
        item = item.strip()
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if item == "_":
            made.append(None)
        elif numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if last < first or last - first > 1_000_000:
                raise RecipeError(f"class map: {item} is not a range of classes")
            made += range(first, last + 1)
        elif item:
            raise RecipeError(f"class map: {item!r} is not a class index", advice=f"Give {CLASS_MAP_HELP}.")
    if not made:
        raise RecipeError("class map: no class in it", advice=f"Give {CLASS_MAP_HELP}.")
    return tuple(made)


def read_class_map(text: str) -> tuple[int | None, ...]:
    """A class map from a text, or from the file whose path the text is."""
    file = Path(text)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"class map: {file} is not a text file", advice=f"Give {CLASS_MAP_HELP}.") from None
    except OSError:  # not a file, or a list too long for a file name
        pass
    return parse_class_map(text)


def class_map_text(class_map: Sequence[int | None]) -> str:
    """The text from which `parse_class_map` reads the class map back.

    >>> class_map_text((3, None, 7))
    '3,_,7'
    """
    return ",".join("_" if taken is None else str(taken) for taken in class_map)


def class_map_of_labels(new: Sequence[str], old: Sequence[str]) -> tuple[int | None, ...]:
    """The class map that follows the labels: each new label takes the old class of the same name.

    A label shared by several classes is matched in order. Raises RecipeError if old and new have it a different number
    of times, and if no label matches, since then it is probably the wrong file.

    >>> class_map_of_labels(["dog", "zebra"], ["background", "dog"])
    (1, None)
    """
    places: dict[str, list[int]] = {}
    for index, label in enumerate(old):
        places.setdefault(label, []).append(index)
    for label, number in Counter(new).items():
        found = places.get(label, [])
        if label and found and len(found) != number:
            which = ", ".join(map(str, found))
            raise RecipeError(
                f"class map: old classes called {label!r} are {len(found)} ({which}), the new ones {number}",
                advice="Give the class map as numbers.",
            )
    left = {label: iter(found) for label, found in places.items() if label}
    made = tuple(next(left.get(label, iter(())), None) for label in new)
    if new and not any(taken is not None for taken in made):
        raise RecipeError(f"class map: none of the {len(new)} new labels is an old one{nearest(new[0], old)}")
    return made
