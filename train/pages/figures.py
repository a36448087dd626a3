"""Pictures drawn by matplotlib without a display: confusion matrix, worst errors, points in a plane."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from ...errors import OutputError, UnsupportedError
from ..use import metrics
from .fonts import use_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
CURVES = 10  # labels with curves
NUMBERED = 30  # most classes for numbers in the cells of a confusion matrix


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, with width and height in inches. Raises UnsupportedError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError("pictures need matplotlib", advice='pip install "ckpt-tools[plots]"') from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def write_png(figure: Figure, path: str | os.PathLike[str] | IO[bytes]) -> None:
    """Writes the picture without date or version, so that equal pictures give equal files. Text in other scripts gets
    suitable fonts; `fonts.without_font` reports missing characters."""
    use_fonts(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(path, format="png", metadata={"Software": None})


def check_picture(path: str | os.PathLike[str], data: str = "") -> None:
    """Raises OutputError if writing a picture would overwrite another kind of file, or a photo of the data set in the
    folder `data`."""
    target = Path(path)
    if data and Path(data).resolve() in target.resolve().parents:
        raise OutputError("is among the photos", path=path, advice="Choose another place for the picture.")
    if target.is_file() and target.stat().st_size:
        with target.open("rb") as file:
            if not file.read(8).startswith(b"\x89PNG"):
                raise OutputError(
                    "exists and is not a picture", path=path, advice="Choose another name for the picture."
                )


def draw_confusion(confusion: np.ndarray, labels: Sequence[str]) -> Figure:
    """The matrix int [classes, classes] with rows scaled to shares: true classes in rows, predicted ones in columns."""
    count = len(labels)
    side = min(24.0, max(4.5, 2.2 + 0.42 * count))
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    step = max(1, count // 60)
    axes.set_xticks(range(0, count, step), [short(labels[i]) for i in range(0, count, step)], rotation=90)
    axes.set_yticks(range(0, count, step), [short(labels[i]) for i in range(0, count, step)])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if count <= NUMBERED:
        for i, j in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if share[i, j] > 0.55 else "black"
            axes.text(j, i, f"{confusion[i, j]:,}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def draw_precision_recall(true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> Figure:
    """Precision over recall from bool and float [n, labels], for the CURVES most frequent labels."""
    figure = new_figure(7.6, 5.6)
    axes = figure.add_subplot()
    counts = true.sum(axis=0)
    chosen = [i for i in np.argsort(-counts, kind="stable")[:CURVES] if counts[i]]
    for i in chosen:
        precision, recall, _ = metrics.precision_recall(true[:, i], probabilities[:, i])
        mean = metrics.average_precision(true[:, i], probabilities[:, i])
        until = int(np.searchsorted(recall, recall[-1])) + 1  # below, only precision gets worse
        line = [0, *recall[:until]], [precision[0], *precision[:until]]
        axes.step(*line, where="pre", linewidth=1.4, label=f"{short(labels[i])} ({mean:.2f})")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall: share of the images with the label that were found")
    axes.set_ylabel("precision: share of the predicted that have it")
    title = "precision over recall (average precision)"
    axes.set_title(title if len(chosen) == len(labels) else f"{title}, {len(chosen)} of {len(labels)} labels")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def draw_photos(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 3) -> Figure:
    """Images uint8 [h, w, 3] in a grid, each with a title of several lines."""
    rows = max(1, -(-len(pictures) // columns))
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    figure = new_figure(2.7 * columns, (2.5 + 0.17 * lines) * rows)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(picture, interpolation="nearest" if min(picture.shape[:2]) < 100 else "antialiased")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return figure


def draw_points(points: np.ndarray, label_ids: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Points float [n, 2] coloured by class, with a legend. Outliers, which would squeeze the others together, are
    drawn as triangles at the edge."""
    from matplotlib import colormaps

    figure = new_figure(7.6, 5.6)
    axes = figure.add_subplot()
    few = len(labels) <= 10
    colours = colormaps["tab10"](range(10)) if few else colormaps["turbo"](np.linspace(0, 1, len(labels)))
    low, high = np.percentile(points, [4, 96], axis=0)
    low, high = low - 0.4 * (high - low) - 1e-9, high + 0.4 * (high - low) + 1e-9
    places = np.clip(points, low, high)
    far = (places != points).any(axis=1)
    for number, label in enumerate(labels):
        for marker, kind in (("o", ~far), ("^", far)):
            x, y = places[(label_ids == number) & kind].T
            name = short(label) if marker == "o" else None
            axes.scatter(x, y, s=9 if name else 14, marker=marker, alpha=0.75, color=colours[number], label=name, lw=0)
    axes.set_title(f"{title}; {far.sum():,} far points at the edge" if far.any() else title)
    axes.set_xticks([])
    axes.set_yticks([])
    if len(labels) <= 40:
        columns = 1 + (len(labels) - 1) // 20
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=2, frameon=False, ncols=columns)
    return figure


def short(label: str, most: int = 24) -> str:
    """A label shortened to fit beside an axis.

    >>> short("a" * 30)
    'aaaaaaaaaaaaaaaaaaaaaaa…'
    """
    return label if len(label) <= most else label[: most - 1] + "…"
