"""Evaluates a checkpoint on labelled images: accuracy, per-class figures, confusion matrix, worst errors.

evaluation = evaluate(EvaluateOptions(train_dir="run"))
evaluation.summary["accuracy"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, RecipeError
from ...events import ExamplesFound, Finished, GapMeasured, ImagesLeftOut, Noted, OnEvent, Opened, ignore
from ..data.examples import DataSet, Examples
from ..data.labels_csv import Images
from ..data.loading import load_data_set
from ..data.pipeline import Unreadable, turned
from ..options.configuration import option
from ..options.training import FLOAT32, PRECISIONS
from .class_names import class_of_label, true_classes
from .classifier import Classifier, threshold_option
from .data_options import DataOptions, data_of
from .evaluation import Evaluation, summarise
from .metrics import accuracy
from .running import logits_of, prepare, run_on

SPLITS = ("validation", "train", "test", "all")
GAP = 0.2  # gain in accuracy by batch statistics from which the stored ones are called wrong


@dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """The options of `ckpt-evaluate`. `None` means: as in the run, or as the net's authors did."""

    labels: str | None = option(None, "file with the net's class names, in order", group="source", metavar="FILE")

    split: str = option("validation", "which split of the data set", group="data", choices=SPLITS)
    batch_size: int = option(32, "images per batch", group="run", least=1)
    threshold: tuple[str, ...] = threshold_option()
    top: int = option(5, "also report top-N accuracy", group="run", least=1)
    worst: int = option(9, "how many errors to list, most confident first", group="run", least=0)
    batch_norm_gap: bool = option(
        False, "compare accuracy with moving and with batch statistics, on four batches", group="run"
    )
    device: str = option("auto", "auto uses a GPU if there is one", group="run", choices=("auto", "gpu", "cpu"))
    precision: str = option(
        "float32", "precision of the net; auto: the hardware's own if the values are nearly the same", group="run",
        choices=PRECISIONS,
    )  # fmt: skip
    report: bool = option(False, "update the run's report.html with these results", group="run")
    output: str = option("", "folder for evaluation.json, predictions.csv and pictures", group="run", metavar="DIR")
    all_probabilities: bool = option(False, "one column per class in predictions.csv", group="run")

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.report and not self.train_dir:
            problems.append("--report needs --train-dir: it is the report of a run")
        if self.all_probabilities and not self.output:
            problems.append("--all-probabilities needs --output: they are written to its predictions.csv")
        return problems


def evaluate(options: EvaluateOptions, on_event: OnEvent = ignore, *, data: DataSet | None = None) -> Evaluation:
    """Runs the net on the images of the data set, or of `data` in memory; `on_event` receives events.

    Raises DataError if the data's classes are not the net's.
    """
    # --- net and images ---
    classifier = options.open(labels=options.labels, threshold=options.threshold)
    if options.batch_norm_gap and not classifier.plan.batch_norm:
        raise RecipeError(f"--batch-norm-gap has no effect: {classifier.net.title} has no batch norm")
    data = data_of(classifier, options, data)
    examples = data.split(options.split)
    classes, note = class_of_label(classifier, data.labels)
    on_event(Opened(classifier.net.title, classifier.path, classifier.classes))
    place = options.data or classifier.options.data
    on_event(ExamplesFound(classifier.takes, len(examples), options.split, place))
    notes = tuple(filter(None, (*classifier.notes, *data.notes, note, stale_batch_norm(classifier))))
    for line in notes:
        on_event(Noted(line))

    # --- logits of all of them ---
    make = lambda images: logits_of(classifier, images)  # noqa: E731
    choice, net = prepare(classifier, examples, make, options.precision, options.device, on_event)
    if choice.precision != FLOAT32 or choice.found:
        on_event(choice.chosen())
    unreadable = Unreadable()
    how: dict[str, Any] = {"batch_size": options.batch_size, "unreadable": unreadable, "on_event": on_event}
    with net:
        parts = list(net.run(examples, title="evaluating", **how))
    logits = np.concatenate([part["logits"] for part in parts])
    examples = examples.take(np.concatenate([part["index"] for part in parts]))
    if unreadable.reasons:
        on_event(ImagesLeftOut(dict(unreadable.reasons), unreadable.note()))

    # --- figures ---
    true = true_classes(classes, examples.label_ids, classifier.classes)
    origin = {"source": classifier.path, "net": classifier.net.name}
    shown = photos_of(data, examples)
    shown = turned(shown) if classifier.upright else shown
    how = {"top": options.top, "worst": options.worst, "thresholds": classifier.thresholds}
    made = summarise(origin, classifier.labels, shown, true, logits, **how)
    made = replace(made, features=np.concatenate([part["features"] for part in parts]), notes=notes)
    made.summary["unreadable"] = dict(unreadable.reasons)
    made.summary["precision"] = choice.precision
    if options.batch_norm_gap:
        gap = batch_norm_gap(classifier, examples, logits, made.true, options, on_event)
        made.summary["batch_norm_gap"] = gap
        on_event(GapMeasured(**gap))
    on_event(Finished(made))
    return made


def photos_of(data: DataSet, examples: Examples) -> Examples:
    """The examples to draw pictures of errors from: those of `data` or, for vectors, the photos that they were computed
    from, found by name if they are still in their place."""
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
        images = Images(place)  # their labels do not matter
        photos = images.examples(range(len(images.files)), np.zeros(len(images.files), np.int32))
    number = {name: i for i, name in enumerate(photos.names)}
    if not all(name in number for name in examples.names):
        return examples
    return photos.take([number[name] for name in examples.names])


def stale_batch_norm(classifier: Classifier) -> str:
    """A sentence if batch-norm statistics are still those of a new net, mean 0 and variance 1; else ""."""
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
    classifier: Classifier, examples: Examples, logits: np.ndarray, true: np.ndarray, options: EvaluateOptions,
    on_event: OnEvent,
) -> Mapping[str, Any]:  # fmt: skip
    """Accuracy on up to four randomly drawn batches, with stored and with batch statistics."""
    order = np.random.default_rng(0).permutation(len(true))[: 4 * options.batch_size]
    chosen = examples.take(order)
    how: dict[str, Any] = {"batch_size": options.batch_size, "device": options.device, "on_event": on_event}
    how["title"] = "batch statistics"
    parts = run_on(classifier, chosen, lambda images: logits_of(classifier, images, training_batch_norm=True), **how)
    stored = accuracy(true[order], logits[order])
    batch = accuracy(true[order], np.concatenate([part["logits"] for part in parts]))
    text = f"accuracy on {len(order):,} images {stored:.3f} with stored statistics, {batch:.3f} with those of the batch"
    if batch - stored > GAP:
        text += "; the stored moving statistics look wrong"
    return {"images": len(order), "stored": stored, "batch": batch, "text": text}
