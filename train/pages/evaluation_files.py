"""Writes an evaluation as files: figures in JSON, predictions in CSV, pictures of confusions and the worst errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import OutputError
from ...formats.placing import write_text
from ..data.examples import label_text
from ..data.pipeline import decode
from ..use.evaluation import Evaluation
from .figures import draw_confusion, draw_photos, draw_precision_recall, short, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_evaluation(evaluation: Evaluation, folder: str, *, all_probabilities: bool = False) -> list[str]:
    """Writes evaluation.json, predictions.csv, confusion.png (or precision_recall.png if an image may have several
    labels), and worst.png if there are photos; returns the paths.
    """
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        record = {"rows": evaluation.rows, "summary": evaluation.summary}
        write_text(root / "evaluation.json", json.dumps(record, indent=1) + "\n")
        write_predictions(evaluation, root / "predictions.csv", all_probabilities=all_probabilities)
        if evaluation.many:
            figure = draw_precision_recall(evaluation.true, evaluation.probabilities, evaluation.labels)
        else:
            figure = draw_confusion(evaluation.confusion, evaluation.labels)
        names = ["evaluation.json", "predictions.csv", "precision_recall.png" if evaluation.many else "confusion.png"]
        write_png(figure, root / names[-1])
        if pictures := worst_pictures(evaluation):
            write_png(draw_worst(evaluation, pictures), root / "worst.png")
            names.append("worst.png")
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", path=root) from error
    return [str(root / name) for name in names]


def write_predictions(evaluation: Evaluation, path: Path, *, all_probabilities: bool) -> None:
    """Writes one row per image: file, true, predicted, probability of the prediction; with `all_probabilities`, one
    more column per class. Several labels of an image share one cell, and `probability` is left out."""
    labels, many, table = evaluation.labels, evaluation.many, io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = ["file", "true", "predicted", *([] if many else ["probability"])]
    writer.writerow([*columns, *(labels if all_probabilities else ())])
    for i, name in enumerate(evaluation.examples.names):
        true, predicted = (label_text(found[i], labels) for found in (evaluation.true, evaluation.predicted))
        chances = [] if many else [evaluation.probabilities[i, evaluation.predicted[i]]]
        chances += evaluation.probabilities[i].tolist() if all_probabilities else []
        writer.writerow([name, true, predicted, *(f"{chance:.6f}" for chance in chances)])
    write_text(path, table.getvalue())


def worst_pictures(evaluation: Evaluation) -> list[np.ndarray]:
    """Photos uint8 [h, w, 3] of the most confident errors; none if the examples are vectors."""
    number = {name: i for i, name in enumerate(evaluation.examples.names)}
    read = [evaluation.examples.read(number[error["file"]]) for error in evaluation.summary["worst"]]
    return [] if read and isinstance(read[0], np.ndarray) and read[0].ndim == 1 else [decode(each) for each in read]


def draw_worst(evaluation: Evaluation, pictures: Sequence[np.ndarray]) -> Figure:
    """The `worst_pictures` with true and predicted class as a matplotlib figure."""
    titles = []
    for error in evaluation.summary["worst"]:
        if evaluation.many:
            lines = [short(mistake(error)), f"labels {short(error['true'])}"]
        else:
            lines = [
                f"true {short(error['true'])}",
                f"predicted {short(error['predicted'])} ({error['probability']:.1%})",
            ]
        titles.append("\n".join([*lines, short_path(error["file"])]))
    return draw_photos(pictures, titles)


def mistake(error: Mapping[str, object]) -> str:
    """The error in one label of an image as text.

    >>> mistake({"label": "hat", "present": True, "probability": 0.02})
    'hat missed (2.0%)'
    """
    return f"{error['label']} {'missed' if error['present'] else 'predicted'} ({error['probability']:.1%})"


def short_path(path: str, most: int = 34) -> str:
    """The end of a path, which tells files apart.

    >>> short_path("a" * 40 + "/1.jpg", 10)
    '…aaa/1.jpg'
    """
    return path if len(path) <= most else "…" + path[-most + 1 :]
