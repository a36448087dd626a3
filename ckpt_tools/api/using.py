"""A trained net in use: `ckpt-evaluate`, `ckpt-features`, `ckpt-export` and `ckpt-predict` as functions, and a
classifier that stays open."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..events import OnEvent
from ..train.use.evaluate import EvaluateOptions
from ..train.use.evaluation import Evaluation
from ..train.use.export import Exported, ExportOptions
from ..train.use.feature_files import Features
from ..train.use.features import FeatureOptions
from ..train.use.predict import Predictions, PredictOptions
from ..train.use.session import ClassifierSession
from .data import given_data
from .notebook import listener
from .options import options_from, takes
from .tensorflow import with_tensorflow


@takes(EvaluateOptions)
def evaluate(*, data: Any = "", on_event: OnEvent | None = None, verbose: bool = False, **options: Any) -> Evaluation:
    """How good a checkpoint is on labelled images.

        evaluation = evaluate(train_dir="run")
        evaluation.summary["accuracy"], evaluation.rows[0]["recall"], evaluation.confusion

    `data` is that of the run by default, or whatever `finetune` takes. With `output` or `report` the files are written
    that `ckpt-evaluate` writes.

    Raises DataError where the classes of the data are not those of the net.
    """
    place, memory = given_data(data)
    made = options_from(EvaluateOptions, {"data": place, **options}, "evaluate")
    with with_tensorflow("evaluating"):
        from ..train.use import evaluate as use

        evaluation = use.evaluate(made, listener(on_event, verbose), data=memory)
    if made.output:
        from ..train.pages.evaluation_files import write_evaluation

        write_evaluation(evaluation, made.output, all_probabilities=made.all_probabilities)
    if made.report:
        from ..train.pages.report import write_report

        write_report(made.train_dir, evaluation, tsne=True)
    return evaluation


@takes(FeatureOptions, leave_out=("dry_run",))
def features(
    *, data: Any = "", output: str | os.PathLike[str] = "", on_event: OnEvent | None = None, verbose: bool = False,
    **options: Any,
) -> Features:  # fmt: skip
    """Transfer values: what the net makes of each image at one of its layers.

        values = features(checkpoint="inception_v3.ckpt", data="photos")
        values.values.shape, values.labels
        finetune(data=values, head="dense(1024,relu)", train_dir="small")

    With `output`, a prefix, the files are written that `ckpt-features` writes, and the values are mapped from there;
    without, they are in memory.
    """
    place, memory = given_data(data)
    with tempfile.TemporaryDirectory() as folder, with_tensorflow("computing features"):
        from ..train.use import features as use

        prefix = output or Path(folder) / "features"
        made = options_from(FeatureOptions, {"data": place, **options, "output": prefix}, "features")
        _, found = use.write_features(made, listener(on_event, verbose), data=memory)
        return found if output else replace(found, values=found.values.copy())


@takes(ExportOptions)
def export(*, on_event: OnEvent | None = None, verbose: bool = False, **options: Any) -> Exported:
    """Writes a trained net for other programs (SavedModel, frozen GraphDef, TFLite), with its preprocessing inside, and
    proves that what was written computes the same.

        export(train_dir="run", output="served", format="saved_model,tflite").rows
    """
    made = options_from(ExportOptions, options, "export")
    with with_tensorflow("exporting"):
        from ..train.use import export as use

        return use.export(made, listener(on_event, verbose))


@takes(PredictOptions)
def predict(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, on_event: OnEvent | None = None,
    verbose: bool = False, **options: Any,
) -> Predictions:  # fmt: skip
    """Labels with probabilities for image files, folders, patterns, records and .npz files.

        predict("holiday/*.jpg", train_dir="run").rows[0]["predictions"]

    Files that cannot be decoded are in `.unreadable`. For arrays, and for images that come one after the other,
    `open_classifier` keeps the net open.
    """
    made = options_from(PredictOptions, options, "predict")
    with with_tensorflow("predicting"):
        from ..train.use import predict as use

        found = use.predict(made, images, listener(on_event, verbose))
    if made.output:
        from ..train.use.predict import write_csv

        write_csv(found, made.output)
    return found


@takes(PredictOptions, leave_out=("train_dir", "checkpoint", "output", "all_probabilities", "precision"))
def open_classifier(source: str | os.PathLike[str], **options: Any) -> ClassifierSession:
    """A trained net, kept open: its graph is built once, and each call takes milliseconds.

        with open_classifier("run") as classify:
            classify("photo.jpg").label
            for prediction in classify(images):        uint8 [n, h, w, 3], or a list of arrays or files
                prediction.label, prediction.probability

    `source` is a train directory, one of its checkpoints, or a checkpoint of a slim net.
    """
    key = "train_dir" if (Path(source) / "plan.json").is_file() else "checkpoint"
    made = options_from(PredictOptions, {key: source, **options}, "open_classifier")
    with with_tensorflow("classifying"):
        return ClassifierSession(
            made.open(labels=made.labels, threshold=made.threshold),
            top=made.top, device=made.device, batch_size=made.batch_size,
        )  # fmt: skip
