"""Reads files of class labels: one name per line, counted from 0; lines such as `3:cat`; TensorFlow's label maps."""

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
_MOST = 1_000_000  # classes; a larger id means that the file is wrong


def read_labels(path: str | os.PathLike[str]) -> dict[int, str]:
    """Id -> name, made unique by `told_apart`. Raises DataError for a file that is not a labels file, or is empty."""
    return told_apart(_read(path))


def label_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in the order of their ids, "" for ids that the file leaves out. Repeated names stay as they are.

    Raises DataError like `read_labels`.
    """
    names = _read(path)
    return tuple(names.get(i, "") for i in range(max(names) + 1))


def told_apart(names: Mapping[int, str]) -> dict[int, str]:
    """The same names, with the id appended to repeated ones: ImageNet has two cranes and two maillots.

    >>> told_apart({134: "crane", 281: "tabby", 517: "crane"})
    {134: 'crane (134)', 281: 'tabby', 517: 'crane (517)'}
    """
    count = Counter(names.values())
    return {i: f"{name} ({i})" if count[name] > 1 else name for i, name in names.items()}


class Plain(NamedTuple):
    """A name as it was before `told_apart`: number `number`, from 0, of `of` classes with that name."""

    name: str
    number: int = 0
    of: int = 1


def plain(labels: Sequence[str]) -> list[Plain]:
    """The names before `told_apart`, whatever ids were appended.

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
    r"""A name as text that can be written anywhere: bytes that are not UTF-8 and control characters are escaped.

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
    if re.search(r"^\s*item\s*:?\s*\{", text, re.MULTILINE):
        return _label_map(text, path)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError("holds no label", path=path, advice="Write one `id:name` per line, or one name per line.")
    pairs = _pairs(lines)
    if pairs is None:
        return dict(enumerate(lines))
    names = dict(pairs)
    if len(names) < len(pairs) or max(names) >= _MOST:
        wrong = next((i for i, n in Counter(i for i, _ in pairs).items() if n > 1), max(names))
        raise DataError(f"has the id {wrong} twice" if wrong < _MOST else f"has an id of {wrong:,}", path=path)
    return names


def _pairs(lines: Sequence[str]) -> list[tuple[int, str]] | None:
    """Ids and names from lines such as `3:cat`, `3,cat`, or `3 cat` if the ids count up; None for plain names."""
    for sign in (r":", r"\s*[,\t]", r"\s+"):
        matches = [re.fullmatch(rf"(\d{{1,9}}){sign}(.*)", line) for line in lines]
        headed = (
            len(lines) > 1 and sign != ":" and matches[0] is None and re.fullmatch(r"[^\d,]+[,\t][^\d,]+", lines[0])
        )
        found = matches[1:] if headed else matches
        whole = [match for match in found if match]
        if len(whole) < len(found):
            continue
        pairs = [(int(match[1]), match[2].strip().strip('"').strip()) for match in whole]
        if sign != r"\s+" or [i for i, _ in pairs] == list(range(pairs[0][0], pairs[0][0] + len(pairs))):
            return pairs
    return None


def _label_map(text: str, path: str | os.PathLike[str]) -> dict[int, str]:
    """Id -> name of TensorFlow's label maps: `item { id: 1 name: '/m/01g317' display_name: "Person" }`.

    The display name is preferred (object_detection/protos/string_int_label_map.proto of tensorflow/models).
    """
    names: dict[int, str] = {}
    fields: dict[str, str] = {}
    depth, key = 0, ""
    for token in re.findall(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[{}]|[\w.+-]+""", text):
        if token == "{":
            depth, key = depth + 1, ""
            fields = {} if depth == 1 else fields
        elif token == "}":
            depth -= 1
            if depth == 0:
                number, name = fields.get("id", ""), fields.get("display_name") or fields.get("name")
                if not number.isdigit() or name is None or int(number) in names:
                    raise DataError(f"item {len(names)} has no id and name of its own", path=path)
                names[int(number)] = name
        elif depth == 1 and not token.startswith("#"):
            if key:
                fields[key] = _unquoted(token)
            key = "" if key else token
    if depth or not names:
        raise DataError("is not a complete label map", path=path, advice="Its last item is cut off.")
    return names


def _unquoted(token: str) -> str:
    r"""A text of a label map without its quotes; characters outside ASCII may be written as octal bytes.

    >>> _unquoted(r"'caf\303\251 \"x\"'"), _unquoted("7")
    ('café "x"', '7')
    """
    if token[0] not in "\"'":
        return token
    pieces = re.findall(r"\\([0-7]{1,3})|\\(.)|([^\\]+)", token[1:-1])
    data = b"".join(
        bytes([int(octal, 8) & 255]) if octal else (other or plain).encode() for octal, other, plain in pieces
    )
    return data.decode("utf-8", "backslashreplace")
