"""Visualises transfer values: PCA and t-SNE in a plane, values of single images, TensorBoard's embedding projector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError, OutputError, UnsupportedError
from ...formats.placing import write_text
from ..data.examples import Examples, label_text, one_colour, rarest
from ..data.pipeline import decode
from ..use.feature_files import Features
from .figures import draw_points, new_figure, short, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Photo

POINTS = 3000  # points for t-SNE, sampled at random, since it takes minutes for more
PROJECTED = 10_000  # points for the projector, sampled at random: with 2,048 values each, 80 MB in a browser
BEFORE_TSNE = 50  # dimensions after PCA, before t-SNE, as its authors advise (van der Maaten and Hinton 2008)
THUMBNAIL = 32  # pixels per side of a picture in the sprite


def must_draw() -> None:
    """Raises UnsupportedError if a package that `write_plots` needs is not installed."""
    new_figure(1, 1)
    if find_spec("sklearn") is None:
        raise UnsupportedError("PCA and t-SNE need scikit-learn", advice='pip install "ckpt-tools[plots]"')


def plane(values: np.ndarray, method: str) -> np.ndarray:
    """Projects float32 [n, d] to [n, 2] by "pca" or "tsne". Raises ImportError without scikit-learn."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "pca":
        return PCA(2, random_state=0).fit_transform(values)
    most = min(BEFORE_TSNE, *values.shape)
    fewer = PCA(most, random_state=0).fit_transform(values) if values.shape[1] > most else values
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(fewer)


def points_of(features: Features, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Points float [n, 2] by "pca" or "tsne", and their rows (all, or POINTS of them)."""
    count = len(features.values)
    if count < 3:
        raise DataError(f"{count} images are too few for a picture of their features")
    rows = drawn(count, POINTS if method == "tsne" else count)
    values = np.asarray(features.values[rows], np.float32).reshape(len(rows), -1)
    return plane(values, method), rows


def drawn(count: int, most: int) -> np.ndarray:
    """The rows to show: all `count`, or a random sample of `most`, in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def share_shown(rows: np.ndarray, features: Features) -> str:
    """The end of a title: how many images are shown, or "" if all are."""
    count = len(features.values)
    return "" if len(rows) == count else f" ({len(rows):,} of {count:,} images)"


def write_plots(features: Features, prefix: str) -> list[str]:
    """Writes PREFIX.pca.png, PREFIX.tsne.png, and PREFIX.values.png with one image of each of up to six classes."""
    must_draw()
    written = []
    for method, title in (("pca", "PCA of the features"), ("tsne", "t-SNE of the features")):
        points, rows = points_of(features, method)
        title += share_shown(rows, features)
        figure = draw_points(points, *one_colour(features.label_ids[rows], features.labels), title)
        written.append(_write(figure, f"{prefix}.{method}.png"))
    if features.examples is not None:
        written.append(_write(draw_values(features), f"{prefix}.values.png"))
    return written


def draw_values(features: Features, most: int = 6) -> Figure:
    """Single images beside their transfer values drawn as a picture, one per class for up to `most` classes."""
    examples = features.examples
    assert examples is not None  # values of photos that are there
    classes = rarest(features.label_ids)
    rows = [int(np.flatnonzero(classes == number)[0]) for number in np.unique(classes)[:most]]
    figure = new_figure(5.4, 1.75 * len(rows))
    low, high = np.percentile(np.asarray(features.values[rows], np.float32), [0, 99.5])
    grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=[1, 2])
    for line, row in enumerate(rows):
        photo, values = grid[line]
        photo.imshow(decode(examples.read(int(features.position[row]))))
        photo.set_title(short(label_text(features.label_ids[row], features.labels)), fontsize=8)
        values.imshow(as_rectangle(features.values[row]), cmap="Reds", vmin=low, vmax=high, interpolation="nearest")
        values.set_title(f"{np.size(features.values[row]):,} features", fontsize=8)
        photo.set_axis_off()
        values.set_axis_off()
    return figure


def as_rectangle(values: np.ndarray) -> np.ndarray:
    """One image's values, in order, as a picture about twice as wide as high, filled up with NaN.

    >>> as_rectangle(np.arange(2048)).shape
    (32, 64)
    """
    flat = np.asarray(values, np.float32).ravel()
    height = max(1, round(math.sqrt(flat.size / 2)))
    width = -(-flat.size // height)
    padded = np.full(height * width, np.nan, np.float32)
    padded[: flat.size] = flat
    return padded.reshape(height, width)


def write_projector(features: Features, folder: str) -> list[str]:
    """Writes files for the projector tab of `tensorboard --logdir FOLDER`, including photos.

    tensors.tsv and metadata.tsv can also be loaded at projector.tensorflow.org. If there are more than PROJECTED
    images, a random sample is taken. The rows of all files are in the order of the features; projector_config.pbtxt has
    the format of TensorBoard's projector plugin."""
    root, written = Path(folder), ["tensors.tsv", "metadata.tsv", "projector_config.pbtxt"]
    rows = drawn(len(features.values), PROJECTED)
    flat = np.asarray(features.values[rows], np.float32).reshape(len(rows), -1)
    lines = [f"{label_text(features.label_ids[row], features.labels)}\t{features.names[row]}" for row in rows]
    config = [
        "embeddings {",
        f'  tensor_name: "features{share_shown(rows, features)}"',
        f"  tensor_shape: {flat.shape[0]}",
        f"  tensor_shape: {flat.shape[1]}",
        '  tensor_path: "tensors.tsv"',
        '  metadata_path: "metadata.tsv"',
    ]
    try:
        root.mkdir(parents=True, exist_ok=True)
        np.savetxt(root / "tensors.tsv", flat, fmt="%.6g", delimiter="\t")
        write_text(root / "metadata.tsv", "\n".join(["label\tname", *lines]) + "\n")
        if features.examples is not None:
            sprite(features.examples, features.position[rows]).save(root / "sprite.png")
            written.append("sprite.png")
            config += [
                "  sprite {",
                '    image_path: "sprite.png"',
                f"    single_image_dim: {THUMBNAIL}",
                f"    single_image_dim: {THUMBNAIL}",
                "  }",
            ]
        write_text(root / "projector_config.pbtxt", "\n".join([*config, "}"]) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", path=root) from error
    return [str(root / name) for name in written]


def sprite(examples: Examples, position: Sequence[int]) -> Photo:
    """The photos at these positions as one square picture, row by row."""
    from PIL import Image

    side = math.ceil(math.sqrt(len(position)))
    whole = Image.new("RGB", (side * THUMBNAIL, side * THUMBNAIL))
    for i, number in enumerate(position):
        small = Image.fromarray(decode(examples.read(int(number)))).resize((THUMBNAIL, THUMBNAIL))
        whole.paste(small, (i % side * THUMBNAIL, i // side * THUMBNAIL))
    return whole


def _write(figure: Figure, path: str) -> str:
    try:
        write_png(figure, path)
    except OSError as error:
        raise OutputError(f"cannot write ({error.strerror})", path=path) from error
    return path
