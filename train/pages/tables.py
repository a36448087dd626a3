"""Tables of report.html."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

from ..use.evaluation import Evaluation


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """An HTML table of text; the columns in `numbers` are aligned to the right.

    >>> table(["class", "images"], [["cat", "3"]], ["images"])[18:]
    '<table><tr><th>class</th><th class="n">images</th></tr><tr><td>cat</td><td class="n">3</td></tr></table></div>'
    """
    marks = [' class="n"' if column in numbers else "" for column in columns]

    def line(tag: str, cells: Sequence[str]) -> str:
        parts = [f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True)]
        return f"<tr>{''.join(parts)}</tr>"

    return f'<div class="wide"><table>{line("th", columns)}{"".join(line("td", row) for row in rows)}</table></div>'


def class_table(evaluation: Evaluation, counts: Sequence[str], figures: Sequence[str]) -> str:
    """A table of the classes that have images, with these counts and figures."""
    rows = [
        [
            row["label"],
            *(f"{row[key]:,}" for key in counts),
            *("" if row[key] is None else f"{row[key]:.3f}" for key in figures),
        ]
        for row in evaluation.rows
        if row["images"]
    ]
    numbers = [key.replace("_", " ") for key in (*counts, *figures)]
    return table(["class", *numbers], rows, numbers)
