"""How good a checkpoint is on labelled images: accuracy, per-class figures, confusion matrix, worst errors.

evaluation = evaluate(EvaluateOptions(train_dir="run"))
evaluation.summary["accuracy"]
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError, OutputError, RecipeError
from ..formats.placing import write_text
from .class_names import class_of_label, true_classes
from .configuration import option
from .data import load_data_set
from .evaluation import Evaluation, summarise
from .examples import DataSet, Examples, label_text
from .inference import Classifier, choose_precision, logits_of, run_on, threshold_option
from .labelled_images import DataOptions, data_of
from .labels_csv import Images
from .metrics import accuracy
from .options import FLOAT32, PRECISIONS
from .pipeline import Unreadable, decode, turned

SPLITS = ("validation", "train", "test", "all")
GAP = 0.2  # accuracy that batch statistics win over stored ones before the stored ones are called wrong


@dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """What `ckpt-evaluate` was asked to do. `None` means: as the run did, or as the net's authors did."""

    labels: str | None = option(None, "names of the net's classes in order", group="source", metavar="FILE")

    split: str = option("validation", "which of its images", group="data", choices=SPLITS)
    batch_size: int = option(32, "images a step", group="run", least=1)
    threshold: tuple[str, ...] = threshold_option()
    top: int = option(5, "also count a class among this many first ones as right", group="run", least=1)
    worst: int = option(9, "errors that are listed, the most confident first", group="run", least=0)
    batch_norm_gap: bool = option(False, "compare with batch norm on batch statistics, on four batches", group="run")
    device: str = option("auto", "auto takes a GPU when there is one", group="run", choices=("auto", "gpu", "cpu"))
    precision: str = option(
        "float32", "of the net; auto takes what is native here if the values are nearly the same", group="run",
        choices=PRECISIONS,
    )  # fmt: skip
    report: bool = option(False, "write the run's report.html afresh, with these figures", group="run")
    output: str = option("", "write evaluation.json, predictions.csv and pictures here", group="run", metavar="DIR")
    all_probabilities: bool = option(False, "a column for each class in predictions.csv", group="run")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.report and not self.train_dir:
            problems.append("--report needs --train-dir: it is the report of a run")
        if self.all_probabilities and not self.output:
            problems.append("--all-probabilities needs --output: they are written to its predictions.csv")
        return problems


def evaluate(options: EvaluateOptions, say: Callable[[str], None] = lambda line: None) -> Evaluation:
    """Runs the net on the images of the data set; `say` is given lines for people.

    Raises DataError where the data's classes are not the net's.
    """
    # --- net and images ---
    classifier = options.open(labels=options.labels, threshold=options.threshold)
    if options.batch_norm_gap and not classifier.plan.batch_norm:
        raise RecipeError(f"--batch-norm-gap is pointless: {classifier.net.title} has no batch norm")
    data = data_of(classifier, options)
    examples = data.split(options.split)
    classes, note = class_of_label(classifier, data.labels)
    say(f"net            {classifier.net.title}, {classifier.classes:,} classes, from {classifier.path}")
    say(f"{classifier.takes:<14} {len(examples):,} ({options.split}) of {options.data or classifier.options.data}")
    for line in filter(None, (*classifier.notes, *data.notes, note, stale_batch_norm(classifier))):
        say(f"note           {line}")

    # --- logits of all of them ---
    make = lambda images: logits_of(classifier, images)  # noqa: E731
    choice = choose_precision(classifier, examples, make, options.precision, options.device)
    if choice.precision != FLOAT32 or choice.found:
        say(choice.line())
    unreadable = Unreadable()
    how = {"batch_size": options.batch_size, "device": options.device, "unreadable": unreadable}
    parts = list(run_on(classifier, examples, make, title="evaluating", precision=choice.precision, **how))
    logits = np.concatenate([part["logits"] for part in parts])
    examples = examples.take(np.concatenate([part["index"] for part in parts]))
    if unreadable.reasons:
        say(f"note           {unreadable.note()}")

    # --- figures ---
    true = true_classes(classes, examples.label_ids, classifier.classes)
    origin = {"source": classifier.path, "net": classifier.net.name}
    shown = photos_of(data, examples)
    shown = turned(shown) if classifier.upright else shown
    how = {"top": options.top, "worst": options.worst, "thresholds": classifier.thresholds}
    made = summarise(origin, classifier.labels, shown, true, logits, **how)
    made = replace(made, features=np.concatenate([part["features"] for part in parts]))
    made.summary["unreadable"] = dict(unreadable.reasons)
    made.summary["precision"] = choice.precision
    if options.batch_norm_gap:
        made.summary["batch_norm_gap"] = gap = batch_norm_gap(classifier, examples, logits, made.true, options)
        say(f"batch norm     {gap['text']}")
    return made


def photos_of(data: DataSet, examples: Examples) -> Examples:
    """The examples of `data`; of vectors the photos that they were computed from, by name, where those still lie where
    they were. Pictures of errors are drawn from these."""
    place = next(
        (p for p in (Path(data.photos), Path(data.path).parent / data.photos) if data.photos and p.exists()), None
    )
    if place is None:
        return examples
    try:
        photos = load_data_set(place, labels_per_image="many", training=False).split("all")
    except (DataError, OSError):
        if not place.is_dir():
            return examples
        images = Images(place)  # what their labels are is not asked for
        photos = images.examples(range(len(images.files)), np.zeros(len(images.files), np.int32))
    number = {name: i for i, name in enumerate(photos.names)}
    if not all(name in number for name in examples.names):
        return examples
    return photos.take([number[name] for name in examples.names])


def stale_batch_norm(classifier: Classifier) -> str:
    """A sentence when batch-norm statistics are still those of a new net: mean 0 and variance 1 throughout."""
    stale = []
    for name, tensor in classifier.tensors.items():
        if name.endswith("/moving_variance") and "/Aux" not in name:
            mean = classifier.tensors.get(name.replace("/moving_variance", "/moving_mean"))
            if mean is not None and not mean.load().any() and (tensor.load() == 1).all():
                stale.append(name.rpartition("/")[0])
    if not stale:
        return ""
    return (
        f"the moving statistics of {len(stale)} batch norms ({stale[0]}, ...) were never updated: mean 0, variance 1; "
        "predictions will be poor, whatever the training accuracy was"
    )


def batch_norm_gap(
    classifier: Classifier, examples: Examples, logits: np.ndarray, true: np.ndarray, options: EvaluateOptions
) -> Mapping[str, object]:
    """Accuracy of up to four batches of images, drawn at random, with stored and with batch statistics."""
    order = np.random.default_rng(0).permutation(len(true))[: 4 * options.batch_size]
    chosen = examples.take(order)
    how = {"title": "batch statistics", "batch_size": options.batch_size, "device": options.device}
    parts = run_on(classifier, chosen, lambda images: logits_of(classifier, images, training_batch_norm=True), **how)
    stored = accuracy(true[order], logits[order])
    batch = accuracy(true[order], np.concatenate([part["logits"] for part in parts]))
    text = f"accuracy on {len(order):,} images {stored:.3f} with stored statistics, {batch:.3f} with those of the batch"
    if batch - stored > GAP:
        text += "; the stored moving statistics look wrong"
    return {"images": len(order), "stored": stored, "batch": batch, "text": text}


def write_evaluation(evaluation: Evaluation, folder: str, *, all_probabilities: bool = False) -> list[str]:
    """Writes evaluation.json, predictions.csv, confusion.png (where an image may have several labels
    precision_recall.png), and worst.png where there are photos; returns paths.
    """
    from .figures import draw_confusion, draw_precision_recall, write_png

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
    """One row an image: file, true, predicted, probability of what was predicted; with `all_probabilities` those of all
    classes, in a column each. Several labels of an image stand in one cell, and `probability` is left out.
    """
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
    """Photos uint8 [h, w, 3] of the errors that the net was surest of; none where the examples are vectors."""
    number = {name: i for i, name in enumerate(evaluation.examples.names)}
    read = [evaluation.examples.read(number[error["file"]]) for error in evaluation.summary["worst"]]
    return [] if read and isinstance(read[0], np.ndarray) and read[0].ndim == 1 else [decode(each) for each in read]


def draw_worst(evaluation: Evaluation, pictures: Sequence[np.ndarray]) -> object:
    """`worst_pictures` with true and predicted class, as a matplotlib figure."""
    from .figures import draw_photos, short

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
    """What was wrong about one label of an image, in words.

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
