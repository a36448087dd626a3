"""The parts of report.html that differ if an image may have several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..use.evaluation import Evaluation
from .tables import class_table, table

FIGURES = ("precision", "recall", "f1", "average_precision", "auc", "best_threshold")


def cards(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The most important figures with their captions."""
    summary = evaluation.summary
    found = [
        (f"{summary['mean_average_precision'] or 0:.3f}", f"mean average precision on {summary['images']:,} images")
    ]
    if summary["macro_auc"] is not None:
        found.append((f"{summary['macro_auc']:.3f}", "mean area under the ROC curve"))
    found.append((f"{summary['macro_f1'] or 0:.3f}", "macro F1"))
    found.append((f"{summary['exact_match']:.1%}", "of the images with all labels right"))
    return found


def classes(evaluation: Evaluation) -> str:
    """The per-class table, with the threshold that would give the highest F1."""
    return class_table(evaluation, ("images", "predicted", "correct"), FIGURES)


def confusion(evaluation: Evaluation) -> str:
    """True and false positives and negatives of each class."""
    head = "".join(
        f'<th class="n">{word}</th>'
        for word in ("true positives", "false negatives", "false positives", "true negatives")
    )
    lines = []
    for label, ((absent, wrong), (missed, right)) in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True):
        shades = [("hit", right, right + missed), ("miss", missed, right + missed), ("miss", wrong, wrong + absent)]
        cells = [_cell(*shade) for shade in shades] + [f'<td class="n">{absent:,}</td>']
        lines.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    counts = f"<table><tr><th>class</th>{head}</tr>{''.join(lines)}</table>"
    return f'<p class="soft">Images with the class, then images without it.</p><div class="wide">{counts}</div>'


def _cell(tone: str, count: int, of: int) -> str:
    share = count / max(1, of)
    colour = f' style="background:rgba(var(--{tone}),{share * 0.75:.2f})"' if count else ""
    return f'<td class="n"{colour}>{count:,}</td>'


def caption(error: Mapping[str, Any]) -> str:
    """The error in an image, as HTML."""
    word = "missed" if error["present"] else "predicted"
    labels = escape(error["true"]) or "none"
    said = f"<b>{escape(error['label'])}</b> {word} ({error['probability']:.0%})"
    return f"{said}<br>labels: {labels}<br>{escape(error['file'])}"


def error_table(worst: Sequence[Mapping[str, Any]]) -> str:
    """The errors as a table, for a run on vectors without photos."""
    rows = []
    for error in worst:
        mistake = "missed" if error["present"] else "predicted"
        rows.append((error["file"], error["label"], mistake, f"{error['probability']:.0%}", error["true"]))
    return table(("file", "label", "mistake", "probability", "labels"), rows, ("probability",))
