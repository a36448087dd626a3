"""The parts of report.html that are other ones where an image may have several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..use.evaluation import Evaluation

FIGURES = ("precision", "recall", "f1", "average_precision", "auc")


def cards(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The figures that are looked for first, and what they are."""
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
    words = ("images", "predicted", "correct", *(figure.replace("_", " ") for figure in FIGURES), "best threshold")
    head = "".join(f'<th class="n">{escape(word)}</th>' for word in words)
    lines = []
    for row in evaluation.rows:
        if row["images"]:
            cells = [f"{row[key]:,}" for key in ("images", "predicted", "correct")]
            cells += ["" if row[key] is None else f"{row[key]:.3f}" for key in (*FIGURES, "best_threshold")]
            lines.append(f"<tr><td>{escape(row['label'])}</td>{''.join(f'<td class=n>{c}</td>' for c in cells)}</tr>")
    return f'<div class="wide"><table><tr><th>class</th>{head}</tr>{"".join(lines)}</table></div>'


def confusion(evaluation: Evaluation) -> str:
    """For each class how often it was predicted and not, rightly and wrongly."""
    head = "".join(
        f'<th class="n">{word}</th>'
        for word in ("true positives", "false negatives", "false positives", "true negatives")
    )
    lines = []
    for label, ((absent, wrong), (missed, right)) in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True):
        shades = [("hit", right, right + missed), ("miss", missed, right + missed), ("miss", wrong, wrong + absent)]
        cells = [_cell(*shade) for shade in shades] + [f'<td class="n">{absent:,}</td>']
        lines.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    table = f"<table><tr><th>class</th>{head}</tr>{''.join(lines)}</table>"
    return f'<p class="soft">Images with the class, then images without it.</p><div class="wide">{table}</div>'


def _cell(tone: str, count: int, of: int) -> str:
    share = count / max(1, of)
    colour = f' style="background:rgba(var(--{tone}),{share * 0.75:.2f})"' if count else ""
    return f'<td class="n"{colour}>{count:,}</td>'


def caption(error: Mapping[str, Any]) -> str:
    """What was wrong about an image, as HTML."""
    word = "missed" if error["present"] else "predicted"
    labels = escape(error["true"]) or "none"
    said = f"<b>{escape(error['label'])}</b> {word} ({error['probability']:.0%})"
    return f"{said}<br>labels: {labels}<br>{escape(error['file'])}"


def error_table(worst: Sequence[Mapping[str, Any]]) -> str:
    """The mistakes where there are no photos: a run on vectors that came without them."""
    lines = [
        f"<tr><td>{escape(error['file'])}</td><td>{escape(error['label'])}</td>"
        f"<td>{'missed' if error['present'] else 'predicted'}</td>"
        f'<td class="n">{error["probability"]:.0%}</td><td>{escape(error["true"])}</td></tr>'
        for error in worst
    ]
    head = '<tr><th>file</th><th>label</th><th>mistake</th><th class="n">probability</th><th>labels</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'
