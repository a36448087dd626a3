"""Metrics of a classifier's scores on labelled images: accuracy, per-class figures, confusion matrix. NumPy only.

Precision, recall and F1 are those of scikit-learn's `precision_recall_fscore_support`, except that a figure whose
denominator is zero is None here (there it is 0, with a warning).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PAIRS = 20  # confused pairs listed if a matrix would be too wide


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, classes] of logits [n, classes]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    return shifted / shifted.sum(axis=1, keepdims=True)


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes]: how often a true class (row) was predicted as a class (column).

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(true: np.ndarray, logits: np.ndarray) -> float:
    """Share of images whose likeliest class is the true one; if `true` is [n, classes] of 0 and 1, the share of correct
    decisions on whether an image has a class.
    """
    return float(((logits > 0) == true.astype(bool) if true.ndim == 2 else logits.argmax(axis=1) == true).mean())


def top_k_accuracy(true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows of `scores` [n, classes] whose true class is among the k highest; for equal scores the lower class
    comes first.
    """
    own = scores[np.arange(len(true)), true][:, None]
    numbers = np.arange(scores.shape[1])[None, :]
    before = (scores > own).sum(axis=1) + ((scores == own) & (numbers < true[:, None])).sum(axis=1)
    return float((before < k).mean())


def cross_entropy(true: np.ndarray, logits: np.ndarray) -> float:
    """Mean negative log probability of the true class, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(true)), true]).mean())


def precision_recall(true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of one label at each threshold, and the thresholds: the distinct scores, highest first. All
    are empty if no image has the label."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(true[order].astype(np.int64))
    if not len(hits) or not hits[-1]:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # images with equal scores count together
    return hits[last] / (last + 1), hits[last] / hits[-1], ordered[last]


def average_precision(true: np.ndarray, scores: np.ndarray) -> float | None:
    """The average precision of one label over the steps of recall, like scikit-learn's `average_precision_score`. None
    if no image has the label.

    >>> average_precision(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7])), average_precision(np.zeros(2), np.ones(2))
    (0.8333333333333333, None)
    """
    precision, recall, _ = precision_recall(true, scores)
    return float((np.diff(recall, prepend=0) * precision).sum()) if len(recall) else None


def roc_auc(true: np.ndarray, scores: np.ndarray) -> float | None:
    """The area under the ROC curve of one label: the probability that an image with it scores higher than one without,
    where equal scores count half. None if all images have it, or none.
    """
    with_it, without = scores[true.astype(bool)], np.sort(scores[~true.astype(bool)])
    if not len(with_it) or not len(without):
        return None
    below, not_above = (np.searchsorted(without, with_it, side).astype(np.int64) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(with_it) * len(without)))


def mean_average_precision(true: np.ndarray, scores: np.ndarray) -> float:
    """The mean over the labels that some image has; `true` and `scores` are [n, labels]. 0 if no image has a label."""
    each = [average_precision(true[:, i], scores[:, i]) for i in range(true.shape[1])]
    found = [value for value in each if value is not None]
    return float(np.mean(found)) if found else 0.0


def best_threshold(true: np.ndarray, scores: np.ndarray) -> tuple[float, float] | None:
    """The threshold of one label with the highest F1, halfway between the scores that it separates, and that F1.
    None if no image has the label.

    >>> best_threshold(np.array([1, 1, 0, 0]), np.array([0.9, 0.6, 0.4, 0.1]))
    (0.5, 1.0)
    """
    precision, recall, thresholds = precision_recall(true, scores)
    if not len(recall):
        return None
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    place = int(np.argmax(f1))
    below = thresholds[place + 1] if place + 1 < len(thresholds) else 0.0
    return float((thresholds[place] + below) / 2), float(f1[place])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 of logits, elementwise."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def binary_cross_entropy(true: np.ndarray, logits: np.ndarray) -> float:
    """Mean over images and labels of the negative log probability of the truth, in nats."""
    logits = logits.astype(np.float64)
    return float((np.logaddexp(0, logits) - true * logits).mean())


def ratio(part: int, whole: int) -> float | None:
    """A part of a whole; None if the whole is 0."""
    return float(part / whole) if whole else None


def per_class(confusion: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class: label, images (support), correct, precision, recall, f1; None if a denominator is 0."""
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "label": label,
            "images": int(true[i]),
            "correct": int(right[i]),
            "precision": ratio(right[i], predicted[i]),
            "recall": ratio(right[i], true[i]),
            "f1": ratio(2 * right[i], true[i] + predicted[i]),
        }
        for i, label in enumerate(labels)
    ]


def confusion_of_each(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """int64 [classes, 2, 2] of bool [n, classes]: for each class [[true negatives, false positives], [false negatives,
    true positives]], like scikit-learn's `multilabel_confusion_matrix`.
    """
    hits, found, there = (each.sum(axis=0, dtype=np.int64) for each in (true & predicted, predicted, true))
    return np.stack([len(true) - found - there + hits, found - hits, there - hits, hits], axis=-1).reshape(-1, 2, 2)


def per_label(
    confusion: np.ndarray, labels: Sequence[str], true: np.ndarray, scores: np.ndarray, thresholds: np.ndarray
) -> list[dict[str, Any]]:
    """One row per class for several labels per image: images with it, predictions, correct predictions, figures, and
    the threshold that would give the highest F1 on these images."""
    rows = []
    for i, label in enumerate(labels):
        (_, wrong), (missed, right) = confusion[i].tolist()
        best = best_threshold(true[:, i], scores[:, i])
        rows.append(
            {
                "label": label,
                "images": missed + right,
                "predicted": wrong + right,
                "correct": right,
                "precision": ratio(right, wrong + right),
                "recall": ratio(right, missed + right),
                "f1": ratio(2 * right, missed + right + wrong + right),
                "average_precision": average_precision(true[:, i], scores[:, i]),
                "auc": roc_auc(true[:, i], scores[:, i]),
                "threshold": float(thresholds[i]),
                "best_threshold": best and best[0],
                "best_f1": best and best[1],
            }
        )
    return rows


def mean_of(rows: Sequence[dict[str, Any]], figure: str) -> float | None:
    """The mean of a figure over the classes that have it."""
    values = [row[figure] for row in rows if row[figure] is not None]
    return float(np.mean(values)) if values else None


def macro(rows: Sequence[dict[str, Any]], figure: str) -> float | None:
    """The mean of a figure over the classes that have images; a figure that is None counts as 0 there."""
    values = [row[figure] or 0.0 for row in rows if row["images"]]
    return float(np.mean(values)) if values else None


def confused_pairs(confusion: np.ndarray, labels: Sequence[str], most: int = PAIRS) -> list[dict[str, Any]]:
    """The most frequently confused pairs of classes, most frequent first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [(int(cell // len(labels)), int(cell % len(labels))) for cell in order]
    return [
        {"true": labels[i], "predicted": labels[j], "times": int(wrong[i, j]), "of": int(confusion[i].sum())}
        for i, j in cells
        if wrong[i, j]
    ]


def confusion_text(confusion: np.ndarray, labels: Sequence[str], width: int = 120) -> str:
    """The matrix for a terminal `width` columns wide: one row per true class, one column per predicted class.

    If it does not fit, the most confused pairs are listed instead.

    >>> print(confusion_text(np.array([[3, 1], [0, 12]]), ["cat", "dog"]))
     (0)  (1)
       3    1  (0) cat
       0   12  (1) dog
    """
    heads = [f"({i})" for i in range(len(labels))]
    cell = max(len(heads[-1]), len(str(confusion.max()))) + 1 if len(labels) else 1
    names = max(map(len, labels)) + len(heads[-1]) + 3
    if len(labels) * cell + names > width:
        pairs = confused_pairs(confusion, labels)
        lines = [
            f"{p['times']:>6,} of {p['of']:,} images of {p['true']} were taken for {p['predicted']}" for p in pairs
        ]
        return "\n".join(
            ["most confused (the whole matrix is in --json)", *lines] if lines else ["nothing was confused"]
        )
    cell = max(cell, 5) if len(labels) * 5 + names <= width else cell
    lines = ["".join(f"{head:>{cell}}" for head in heads)]
    for row, head, label in zip(confusion, heads, labels, strict=True):
        lines.append("".join(f"{value:>{cell}}" for value in row.tolist()) + f"  {head} {label}")
    return "\n".join(line[1:] if cell == 5 and all(text[:1] == " " for text in lines) else line for line in lines)
