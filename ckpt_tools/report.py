"""Formats rows as a table, and numbers, sizes and lists as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_TO_THE_RIGHT = ("size", "share")
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def render(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """A text table of the rows with these columns. A missing or None cell is empty.

    Integers have thousands separators, shapes look as in `Spec`. The layout is done here, since importing tabulate
    takes longer than a whole `ckpt-inspect`.

    >>> print(render([{"name": "a/weights", "shape": (3, 64), "bytes": 70000}], ["name", "shape", "bytes"]))
    name       shape    bytes
    ---------  ------  ------
    a/weights  [3,64]  70,000
    """
    laid_out = []
    for column in columns:
        texts = [column, *[cell(row.get(column)) for row in rows]]
        plain = "".join(texts).isascii()
        width = max(map(len if plain else _width, texts))
        texts.insert(1, "-" * width)
        pad = str.rjust if _is_numeric(rows, column) else str.ljust
        if plain:
            laid_out.append([pad(text, width) for text in texts])
        else:
            laid_out.append([pad(text, width - _width(text) + len(text)) for text in texts])
    return "\n".join([line.rstrip() for line in map("  ".join, zip(*laid_out, strict=True))])


def cell(value: object) -> str:
    """One value in readable form: `1,234`, `[3,64]`, `0.00123`, `yes`.

    >>> [cell(value) for value in (1234, (3, 64), (), 0.001234567, True, None, "text")]
    ['1,234', '[3,64]', '[]', '0.00123457', 'yes', '', 'text']
    """
    if isinstance(value, str):  # a name from a file must not move the cursor of a terminal
        return value if value.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def count(number: int, noun: str = "") -> str:
    """An integer with thousands separators, and a noun in the singular or plural.

    >>> count(27182194), count(1, "tensor"), count(388, "tensor")
    ('27,182,194', '1 tensor', '388 tensors')
    """
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[object], most: int) -> str:
    """The first `most` items, separated by commas, and how many more there are.

    >>> listed(["a", "b", "c"], 2), listed(["a", "b"], 2)
    ('a, b and 1 more', 'a, b')
    """
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def size(nbytes: int | None) -> str:
    """Bytes in decimal units with at most four digits; an empty string if the size is unknown.

    >>> size(108816292), size(999), size(1), size(None)
    ('108.8 MB', '999 bytes', '1 byte', '')
    """
    if nbytes is None:
        return ""
    value, unit = float(nbytes), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:  # 999,950 bytes would round to 1000.0 kB
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else count(nbytes, "byte")


def share(part: float, whole: float) -> str:
    """A part of a whole in percent.

    >>> share(1, 3), share(0, 0)
    ('33.3%', '')
    """
    return f"{100 * part / whole:.1f}%" if whole else ""


def _width(text: str) -> int:
    """Columns that a terminal needs: two for most East Asian characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in text)


def _is_numeric(rows: Iterable[Mapping[str, object]], column: str) -> bool:
    """Whether to align the column to the right: its first non-empty cell holds a number."""
    if column in _TO_THE_RIGHT:
        return True
    for row in rows:
        value = row.get(column)
        if value is not None:
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return False
