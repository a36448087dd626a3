"""What the reports and `--plot` show, as pictures that a notebook displays."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..train.data.examples import DataSet, Examples, label_text, one_colour
from ..train.pages.figures import draw_confusion as confusion_figure
from ..train.pages.figures import draw_photos, draw_points, draw_precision_recall, short, write_png
from ..train.use.evaluation import Evaluation
from ..train.use.feature_files import Features
from .data import given_data

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture:
    """A picture: a notebook shows it, `save` writes it, `figure` is matplotlib's."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a PNG file."""
        write_png(self.figure, path)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        write_png(self.figure, buffer)
        return buffer.getvalue()


def draw_images(data: Any, count: int = 9, *, columns: int = 3) -> Picture:
    """Images of a data set (of its training images), spread over it, with their labels. `data` is whatever `finetune`
    takes, or a split of a data set."""
    import numpy as np

    from ..train.data.loading import load_data_set
    from ..train.data.pipeline import decode

    if not isinstance(data, Examples):
        path, memory = given_data(data)
        data = memory or load_data_set(path, training=False)
    examples = data.train if isinstance(data, DataSet) else data
    labels = data.labels if isinstance(data, DataSet) else ()
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int))
    titles = [short(label_text(examples.label_ids[i], labels)) if labels else examples.names[i] for i in chosen]
    return Picture(draw_photos([decode(examples.read(int(i))) for i in chosen], titles, columns))


def draw_features(features: Features, method: str = "pca") -> Picture:
    """Transfer values in a plane, coloured by class: `method` "pca" or "tsne". Raises RecipeError for others."""
    from ..train.pages.projection import must_draw, points_of, share_shown

    if method not in ("pca", "tsne"):
        raise RecipeError(f"no projection is called {method!r}", advice="Use pca or tsne.")
    must_draw()
    points, rows = points_of(features, method)
    title = {"pca": "PCA", "tsne": "t-SNE"}[method] + " of the features" + share_shown(rows, features)
    return Picture(draw_points(points, *one_colour(features.label_ids[rows], features.labels), title))


def draw_values(features: Features, most: int = 6) -> Picture:
    """Single images next to their features, one of each class up to `most`."""
    from ..train.pages.projection import draw_values as values_figure

    return Picture(values_figure(features, most))


def draw_confusion(evaluation: Evaluation) -> Picture:
    """The confusion matrix; where an image may have several labels, precision over recall."""
    if evaluation.many:
        return Picture(draw_precision_recall(evaluation.true, evaluation.probabilities, evaluation.labels))
    return Picture(confusion_figure(evaluation.confusion, evaluation.labels))


def draw_errors(evaluation: Evaluation) -> Picture:
    """The errors that the net was surest of. Of vectors there are photos only where they still lie where they were."""
    from ..train.pages.evaluation_files import draw_worst, worst_pictures

    return Picture(draw_worst(evaluation, worst_pictures(evaluation)))
