"""Files of class labels: one name a line, counted from 0, or slim's own `3:cat` lines."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

from .errors import DataError

BACKGROUND = "background"  # slim's name for the class 0 of its ImageNet nets, which has no images
_MOST = 1_000_000  # classes; an id beyond is a wrong file


def read_labels(path: str | os.PathLike[str]) -> dict[int, str]:
    """Id -> name, no two alike: see `told_apart`. Raises DataError for a file that is none, or holds nothing."""
    return told_apart(_read(path))


def label_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in the order of their ids, "" where the file leaves one out; repeated ones as they are.

    Raises DataError as `read_labels` does.
    """
    names = _read(path)
    return tuple(names.get(i, "") for i in range(max(names) + 1))


def told_apart(names: Mapping[int, str]) -> dict[int, str]:
    """The same names, each repeated one with its id: ImageNet has two cranes and two maillots.

    >>> told_apart({134: "crane", 281: "tabby", 517: "crane"})
    {134: 'crane (134)', 281: 'tabby', 517: 'crane (517)'}
    """
    count = Counter(names.values())
    return {i: f"{name} ({i})" if count[name] > 1 else name for i, name in names.items()}


class Plain(NamedTuple):
    """A name as it was before `told_apart`: the `number`-th of `of` classes that are called so."""

    name: str
    number: int = 0
    of: int = 1


def plain(labels: Sequence[str]) -> list[Plain]:
    """The names before `told_apart`, whatever ids they were told apart by.

    >>> plain(["crane (134)", "crane (517)", "B (2)"])
    [Plain(name='crane', number=0, of=2), Plain(name='crane', number=1, of=2), Plain(name='B (2)', number=0, of=1)]
    """
    matches = [re.fullmatch(r"(.*) \(\d+\)", label) for label in labels]
    count = Counter(match[1] for match in matches if match)
    names = [match[1] if match and count[match[1]] > 1 else label for match, label in zip(matches, labels, strict=True)]
    total, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        found.append(Plain(name, seen[name], total[name]))
        seen[name] += 1
    return found


def writable(name: str | os.PathLike[str]) -> str:
    r"""A name as text that can be written anywhere: bytes that are not UTF-8 and control characters are spelt out.

    >>> print(writable("caf\udce9"), writable("two\nlines"), writable("猫"))
    caf\xe9 two\nlines 猫
    """
    try:
        data = os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair, from a file of another system
        data = str(name).encode("utf-8", "backslashreplace")
    text = data.decode("utf-8", "backslashreplace")
    return "".join(repr(c)[1:-1] if category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def _read(path: str | os.PathLike[str]) -> dict[int, str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("is not a text file in UTF-8", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read as labels ({error.strerror})", path=path) from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError("holds no label", path=path, advice="One `id:name` a line, or one name a line.")
    pairs = [re.fullmatch(r"(\d{1,9}):(.*)", line) for line in lines]
    if not all(pairs):
        return dict(enumerate(lines))
    names = {int(pair[1]): pair[2].strip() for pair in pairs}
    if len(names) < len(lines) or max(names) >= _MOST:
        wrong = next((i for i, n in Counter(int(pair[1]) for pair in pairs).items() if n > 1), max(names))
        raise DataError(f"has the id {wrong} twice" if wrong < _MOST else f"has an id of {wrong:,}", path=path)
    return names
