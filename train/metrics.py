"""What a classifier's scores on labelled images say: accuracy, per-class figures, the confusion matrix. NumPy only.

Precision, recall and F1 are those of scikit-learn's `precision_recall_fscore_support`, except that a figure whose
denominator is zero is None here (there: 0 and a warning).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PAIRS = 20  # most confused pairs that are listed where a matrix would be too wide


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


def top_k_accuracy(true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows of `scores` [n, classes] whose true class is among the k highest; of equal scores the lower
    class comes first.
    """
    own = scores[np.arange(len(true)), true][:, None]
    numbers = np.arange(scores.shape[1])[None, :]
    before = (scores > own).sum(axis=1) + ((scores == own) & (numbers < true[:, None])).sum(axis=1)
    return float((before < k).mean())


def cross_entropy(true: np.ndarray, logits: np.ndarray) -> float:
    """Mean negative log probability of the true class, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(true)), true]).mean())


def per_class(confusion: np.ndarray, labels: Sequence[str]) -> list[dict[str, object]]:
    """One row a class: label, images (support), correct, precision, recall, f1; None where there is nothing to
    divide by.
    """
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)

    def ratio(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

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


def macro(rows: Sequence[dict[str, object]], figure: str) -> float | None:
    """The mean of a figure over the classes that have images; a figure that is None counts as 0 there."""
    values = [row[figure] or 0.0 for row in rows if row["images"]]
    return float(np.mean(values)) if values else None


def confused_pairs(confusion: np.ndarray, labels: Sequence[str], most: int = PAIRS) -> list[dict[str, object]]:
    """The pairs of classes that are mistaken for each other most often, largest first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [(int(cell // len(labels)), int(cell % len(labels))) for cell in order]
    return [
        {"true": labels[i], "predicted": labels[j], "times": int(wrong[i, j]), "of": int(confusion[i].sum())}
        for i, j in cells
        if wrong[i, j]
    ]


def confusion_text(confusion: np.ndarray, labels: Sequence[str], width: int = 120) -> str:
    """The matrix for a terminal `width` columns wide: a row a true class, its predicted classes by number.

    Where it does not fit, the most confused pairs are listed instead.

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
