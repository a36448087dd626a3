"""Labels with probabilities for images.

predictions = predict(PredictOptions(train_dir="run"), ["photos/1.jpg", "more_photos"])
predictions.rows[0]["predictions"][0]    {"label": "cat", "probability": 0.93}
"""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import html
from ...errors import DataError, OutputError, nearest
from ...events import Finished, Noted, OnEvent, ignore
from ...formats.placing import write_text
from ...labels import writable
from ..data.arrays import holds_vectors, read_vectors
from ..data.examples import SEPARATOR, Examples, join
from ..data.exif import UPRIGHT, orientation
from ..data.folders import files_in, image_head, is_image
from ..data.loading import images_of, turned_note
from ..data.pipeline import Unreadable
from ..options.configuration import option
from ..options.training import PRECISIONS
from .classifier import Classifier, SourceOptions, threshold_option
from .running import logits_of, prepare

SHOWN = 5  # labels per image in a notebook's table


@dataclass(frozen=True)
class PredictOptions(SourceOptions):
    """The options of `ckpt-predict`, except the images."""

    labels: str | None = option(None, "file with the net's class names, in order", group="source", metavar="FILE")

    top: int | None = option(
        None,
        "labels per image: 3 by default; for multi-label nets all that reach their threshold",
        group="run",
        least=1,
    )
    threshold: tuple[str, ...] = threshold_option()
    all_probabilities: bool = option(
        False, "the probability of every class as well, in --json and --output", group="run"
    )
    output: str = option("", "write the predictions to a CSV file", group="run", metavar="FILE.csv")
    batch_size: int = option(32, "images per batch", group="run", least=1)
    device: str = option("auto", "auto uses a GPU if there is one", group="run", choices=("auto", "gpu", "cpu"))
    precision: str = option(
        "auto", "precision of the net; auto: for many images, the hardware's own if nearly the same",
        group="run", choices=PRECISIONS,
    )  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """`rows`: {"file", "predictions": [{"label", "probability"}, ...]}, the likeliest first; if images may have `many`
    labels, all that reach their thresholds, possibly none. On request, "probabilities" holds those of all `labels`, in
    order. `unreadable` maps files to the reason why they could not be decoded. `source` is the checkpoint, `precision`
    the precision of the net.
    """

    rows: list[dict[str, Any]]
    unreadable: dict[str, str]
    source: str
    precision: str
    labels: tuple[str, ...]
    many: bool = False

    def _repr_html_(self) -> str:
        """For notebooks: one row per image."""
        rows = [
            {"file": row["file"], **{f"label {i + 1}": f"{guess['label']} ({guess['probability']:.3f})"
                                     for i, guess in enumerate(row["predictions"][:SHOWN])}}
            for row in self.rows
        ]  # fmt: skip
        most = max((len(row) - 1 for row in rows), default=0)
        return html.title(self.source) + html.table(rows, ["file", *(f"label {i + 1}" for i in range(most))])


def predict(
    options: PredictOptions,
    images: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    on_event: OnEvent = ignore,
) -> Predictions:
    """Runs the net on image files, folders, glob patterns, and the images of TFRecords, .npz files and published data
    sets; a net on vectors runs on files of ckpt-features. `on_event` receives events.

    Raises DataError if there is no image, or if the files do not fit the net.
    """
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    if not all(isinstance(each, str | os.PathLike) for each in given):
        raise DataError("these are not paths of images", advice="open_classifier(...) takes arrays.")
    paths = [os.fspath(each) for each in given]
    if options.output:
        check_output(options.output)
    classifier = options.open(labels=options.labels, threshold=options.threshold)
    thresholds = classifier.thresholds
    top = options.top or (None if classifier.many else 3)
    if classifier.takes == "vectors":
        examples, note = vectors_in(paths, classifier), ""
    else:
        examples, note = images_in(paths, classifier.upright)
    unreadable, rows = Unreadable(limit=1.0), []
    for line in filter(None, (*classifier.notes, note)):
        on_event(Noted(line))
    make = lambda images: logits_of(classifier, images)  # noqa: E731
    choice, net = prepare(classifier, examples, make, options.precision, options.device, on_event)
    if choice.found:
        on_event(choice.chosen())
    how: dict[str, Any] = {"batch_size": min(options.batch_size, len(examples)), "unreadable": unreadable}
    with net:
        for part in net.run(examples, title="predicting", on_event=on_event, **how):
            for number, chances in zip(part["index"], classifier.probabilities(part["logits"]), strict=True):
                likeliest = np.argsort(-chances, kind="stable")
                above = likeliest if thresholds is None else [i for i in likeliest if chances[i] >= thresholds[i]]
                guesses = [{"label": classifier.labels[i], "probability": float(chances[i])} for i in above[:top]]
                row: dict[str, object] = {"file": examples.names[number], "predictions": guesses}
                if options.all_probabilities:
                    row["probabilities"] = chances.tolist()
                rows.append(row)
    found = Predictions(
        rows, dict(unreadable.reasons), classifier.path, choice.precision, classifier.labels, classifier.many
    )
    on_event(Finished(found))
    return found


def images_in(given: Sequence[str], upright: bool = False) -> tuple[Examples, str]:
    """The images that paths, folders and patterns mean, and those of data sets, without classes; and a note on photos
    that are not upright by their EXIF data.
    """
    sets = {text: images for text in given if (images := _data_set_at(text)) is not None}
    photos, parts, count = [text for text in given if text not in sets], [], 0
    if photos or not sets:
        files = find_images(photos)
        count = sum(orientation(image_head(Path(file))) != UPRIGHT for file in files)
        parts.append(_photos(files))
    for text, images in sets.items():
        names = images.names if len(given) == 1 else tuple(f"{writable(text)}:{name}" for name in images.names)
        parts.append(replace(images, names=names))
    return join(parts), turned_note(count, upright)


def _photos(files: Sequence[str]) -> Examples:
    return Examples(
        np.zeros(len(files), np.int32),
        tuple(map(writable, files)),
        tuple(os.stat(file).st_size for file in files),  # noqa: PTH116 - the user's own spelling of the path
        lambda i: Path(files[i]).read_bytes(),
    )


def _data_set_at(text: str) -> Examples | None:
    """The images of the data set at a path; None for photos, folders of photos, and patterns."""
    path = Path(text)
    if not path.exists() or any(map(is_image, files_in(path) if path.is_dir() else [path])):
        return None
    return images_of(path)


def vectors_in(given: Sequence[str], classifier: Classifier) -> Examples:
    """The vectors in files of ckpt-features, named like their images. Raises DataError for other files."""
    parts = []
    for text in given:
        if not holds_vectors(text):
            fact = f"is not a file of vectors, and the net takes vectors of {classifier.net.feature_channels:,} values"
            advice = "ckpt-features makes them of images: give its .npz."
            raise DataError(fact, path=text, advice=advice)
        vectors = read_vectors(Path(text))
        classifier.check_width(vectors, text)
        parts.append(vectors)
    return join(parts)


def find_images(given: Sequence[str]) -> list[str]:
    """The image files that paths, folders (all images below them) and glob patterns mean, in order, each once.

    Raises DataError with every argument that matches nothing.
    """
    found: dict[str, None] = {}
    wrong = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            inside = [str(file) for file in sorted(path.rglob("*")) if file.is_file() and is_image(file)]
        elif path.is_file():  # an existing file with brackets in its name is not a pattern
            inside = [text]
        else:
            inside = [name for name in sorted(glob.glob(text, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
        if not inside:
            siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
            wrong.append("no images in " + text if path.is_dir() else f"no file {text}{nearest(path.name, siblings)}")
        found.update(dict.fromkeys(inside))
    if wrong or not found:
        raise DataError("; ".join(wrong) or "no images were named")
    return list(found)


def write_csv(found: Predictions, path: str) -> None:
    """Writes one row per image: file, label, and probability of the likeliest label; several labels share one cell and
    have no probability. There is one more column per class if all probabilities were requested. Raises OutputError if
    the file cannot be written.
    """
    whole = "probabilities" in found.rows[0] if found.rows else False
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["file", *(["labels"] if found.many else ["label", "probability"]), *(found.labels if whole else ())]
    )
    for row in found.rows:
        guesses = row["predictions"]
        if found.many:
            cells = [SEPARATOR.join(guess["label"] for guess in guesses)]
        else:
            cells = [guesses[0]["label"], f"{guesses[0]['probability']:.6f}"]
        writer.writerow([row["file"], *cells, *(f"{chance:.6f}" for chance in row.get("probabilities", ()))])
    try:
        write_text(path, table.getvalue())
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", path=path) from error


def check_output(path: str) -> None:
    """Raises OutputError if a CSV of predictions would overwrite another file, or if its folder does not exist."""
    target = Path(path)
    if not target.parent.is_dir():
        raise OutputError("is in a folder that does not exist", path=path)
    if target.is_file() and target.stat().st_size:
        with target.open("rb") as file:
            if not file.readline().startswith((b"file,label,probability", b"file,labels")):
                raise OutputError("exists and is not a CSV of predictions", path=path, advice="Choose another name.")
