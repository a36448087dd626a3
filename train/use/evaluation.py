"""The result of an evaluation: figures for each class and in total, and the most confident errors.

If an image has one label, the likeliest class is predicted. If it may have several (`--labels-per-image many`), each
class is predicted independently if it reaches a threshold: `true` and `predicted` are matrices, and nets are compared
by average precision, which needs no threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import html
from ..data.examples import Examples, label_text
from . import metrics

CELLS = 30  # most classes for showing a confusion matrix as a table
HALF = 0.5  # default threshold


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The result of an evaluation. `rows` are per class, `summary` is the output of --json; arrays are in the order of
    the images that could be decoded."""

    labels: tuple[str, ...]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    confusion: np.ndarray  # int64 [classes, classes], true classes in rows; or [classes, 2, 2] for several labels
    examples: Examples
    true: np.ndarray  # int64 [n]; or bool [n, classes] for several labels
    predicted: np.ndarray  # likewise
    probabilities: np.ndarray  # float64 [n, classes]
    features: np.ndarray | None = None  # float32 [n, channels], the input of the head
    notes: tuple[str, ...] = ()  # on names and data, such as classes matched by order

    @property
    def many(self) -> bool:
        """Whether an image may have several labels."""
        return self.true.ndim == 2

    @property
    def confidence(self) -> np.ndarray:
        """float64 [n]: the probability of the predicted class."""
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    def __repr__(self) -> str:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in self.summary.items() if isinstance(value, float))
        return f"<evaluation of {self.summary['source']} on {self.summary['images']:,} examples: {figures}>"

    def _repr_html_(self) -> str:
        """For notebooks: total figures, those of each class, the confusion matrix, the most confident errors."""
        figures = [(key.replace("_", " "), value) for key, value in self.summary.items() if isinstance(value, float)]
        said = f"{self.summary['images']:,} examples, {len(self.labels):,} classes, from {self.summary['source']}"
        columns = list(self.rows[0]) if self.rows else []
        notes = html.facts([("note", note) for note in self.notes]) if self.notes else ""
        parts = [html.title(str(self.summary["net"]), said), notes, html.facts(figures), html.table(self.rows, columns)]
        if not self.many and len(self.labels) <= CELLS:
            rows = [
                {"true": label, **dict(zip(self.labels, map(int, counts), strict=True))}
                for label, counts in zip(self.labels, self.confusion, strict=True)
            ]
            parts.append(html.folded("confusion: predicted classes across", html.table(rows, ["true", *self.labels])))
        if worst := self.summary["worst"]:
            parts.append(html.folded("most confident errors", html.table(worst, list(worst[0]))))
        return "".join(parts)


def summarise(
    origin: Mapping[str, object],
    labels: Sequence[str],
    examples: Examples,
    true: np.ndarray,
    logits: np.ndarray,
    *,
    top: int = 5,
    worst: int = 9,
    thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """All figures from logits float32 [n, classes] and the true classes of the examples: int [n], or 0 and 1 [n,
    classes] for several labels, where `thresholds` are the least probabilities at which classes are predicted.

    `origin` is the summary's part on the net and its checkpoint.
    """
    if true.ndim == 2:
        return summarise_many(origin, labels, examples, true.astype(bool), logits, thresholds, worst)
    probabilities = metrics.softmax(logits)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(predicted)), predicted]
    confusion = metrics.confusion_matrix(true, predicted, len(labels))
    rows = metrics.per_class(confusion, labels)
    wrong = np.flatnonzero(predicted != true)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:worst]
    errors = [
        {
            "file": examples.names[i],
            "true": labels[true[i]],
            "predicted": labels[predicted[i]],
            "probability": float(confidence[i]),
        }
        for i in wrong
    ]
    summary: dict[str, Any] = {
        **origin,
        "images": len(true),
        "classes": len(labels),
        "accuracy": float((predicted == true).mean()),
        "loss": metrics.cross_entropy(true, logits),
        **{f"macro_{figure}": metrics.macro(rows, figure) for figure in ("precision", "recall", "f1")},
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "worst": errors,
    }
    if 1 < top < len(labels):
        summary[f"top_{top}_accuracy"] = metrics.top_k_accuracy(true, logits, top)
    return Evaluation(tuple(labels), rows, summary, confusion, examples, true, predicted, probabilities)


def summarise_many(
    origin: Mapping[str, object], labels: Sequence[str], examples: Examples, true: np.ndarray, logits: np.ndarray,
    thresholds: Sequence[float] | None, worst: int,
) -> Evaluation:  # fmt: skip
    """The same for images that may have several labels: `true` is bool [n, classes]."""
    probabilities = metrics.sigmoid(logits)
    needed = np.full(len(labels), HALF) if thresholds is None else np.asarray(thresholds)
    predicted = probabilities >= needed
    confusion = metrics.confusion_of_each(true, predicted)
    rows = metrics.per_label(confusion, labels, true, probabilities, needed)
    decisions = int(confusion[:, 1, 1].sum()), int(predicted.sum()), int(true.sum())
    summary: dict[str, Any] = {
        **origin,
        "images": len(true),
        "classes": len(labels),
        "labels_per_image": "many",
        "mean_average_precision": metrics.macro(rows, "average_precision"),
        "macro_auc": metrics.mean_of(rows, "auc"),
        "accuracy": float((predicted == true).mean()),
        "exact_match": float((predicted == true).all(axis=1).mean()),
        "loss": metrics.binary_cross_entropy(true, logits),
        **{f"macro_{figure}": metrics.macro(rows, figure) for figure in ("precision", "recall", "f1")},
        "micro_f1": metrics.ratio(2 * decisions[0], decisions[1] + decisions[2]),
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "worst": surest_mistakes(labels, examples, true, predicted, probabilities, worst),
    }
    return Evaluation(tuple(labels), rows, summary, confusion, examples, true, predicted, probabilities)


def surest_mistakes(
    labels: Sequence[str], examples: Examples, true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray,
    most: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The images with the most confident errors, each with the label that was wrongly predicted or missed."""
    sureness = np.where(true != predicted, np.where(predicted, probabilities, 1 - probabilities), -1)
    label = sureness.argmax(axis=1)
    order = np.argsort(-sureness.max(axis=1), kind="stable")[:most]
    return [
        {
            "file": examples.names[i],
            "label": labels[label[i]],
            "present": bool(true[i, label[i]]),
            "probability": float(probabilities[i, label[i]]),
            "true": label_text(true[i], labels),
            "predicted": label_text(predicted[i], labels),
        }
        for i in order
        if sureness[i].max() >= 0
    ]
