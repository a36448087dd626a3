"""HTML for notebooks: the pieces of `_repr_html_` of a plan, a checkpoint, an evaluation or a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from .report import cell

SHOWN = 60  # rows of a table; a notebook scrolls badly


def title(text: str, more: str = "") -> str:
    """A heading, followed by `more` in fainter letters."""
    soft = f' <span style="opacity:.65">{escape(more)}</span>' if more else ""
    return f"<div><b>{escape(text)}</b>{soft}</div>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, one pair per line.

    >>> facts([("plan", "caa60cc4")])
    '<table><tr><td style="text-align:left"><b>plan</b></td><td style="text-align:left">caa60cc4</td></tr></table>'
    """
    left = 'style="text-align:left"'
    lines = [
        f"<tr><td {left}><b>{escape(word)}</b></td><td {left}>{escape(cell(value))}</td></tr>" for word, value in pairs
    ]
    return f"<table>{''.join(lines)}</table>"


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], most: int = SHOWN) -> str:
    """A table of up to `most` rows, with numbers aligned to the right as in `report.render`."""
    head = "".join(f'<th style="text-align:left">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows[:most]:
        cells = []
        for column in columns:
            value = row.get(column)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            cells.append(f'<td style="text-align:{"right" if number else "left"}">{escape(cell(value))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    more = f"<div>and {len(rows) - most:,} more</div>" if len(rows) > most else ""
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>{more}"


def preformatted(text: str) -> str:
    """Preformatted text."""
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, inside: str) -> str:
    """Content that opens at a click."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def page(text: str) -> str:
    """A whole HTML page, in a frame."""
    style = "width:100%;height:600px;border:1px solid #8884"
    return f'<iframe srcdoc="{escape(text)}" style="{style}" sandbox></iframe>'
