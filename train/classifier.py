"""A small net trained straight on saved transfer values, without images: the classic exercise on CIFAR-10.

    train_classifier(VectorOptions(data="features.npz", train_dir="run"))

The vectors lie in one variable of the graph, so that nothing is fed: a `session.run` is given the order of many
examples and makes that many batches' steps in a loop of the graph itself. The order of epoch e depends on the seed and
e alone (`pipeline.epoch_order`), dropout on the seed and the step, so that a run is the same every time.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DataError, OutputError, TrainingError
from ..tensors import Tensors, from_arrays
from . import metrics
from .configuration import option, to_config
from .data import load_data_set
from .examples import DataSet, Examples, steps_per_epoch
from .options import OPTIMIZERS
from .pipeline import epoch_order
from .progress import Progress, StopRequest
from .vector_net import VectorNet, build

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

CHUNK = 200  # steps that one session.run makes at most: often enough for progress and for Ctrl-C


@dataclass(frozen=True)
class VectorOptions:
    """What is trained on the vectors. The defaults are those of the tutorials."""

    data: str = option(
        "", ".npz or .npy of ckpt-features, or any with features and labels", group="data", metavar="FILE"
    )
    validation_fraction: float = option(0.2, "share set aside where the file has no split", group="data", above=0.0)
    head: str = option("dense(1024,relu)", "layers before the last one", group="training", metavar="LAYERS")
    steps: int | None = option(None, "training steps in all (instead of --epochs)", group="training", least=1)
    epochs: float = option(30.0, "passes over the training vectors", group="training", above=0.0)
    batch_size: int = option(64, "vectors a step", group="training", least=1)
    optimizer: str = option("adam", "how gradients become changes", group="training", choices=OPTIMIZERS)
    learning_rate: float = option(1e-4, "of every step", group="training", above=0.0)
    momentum: float = option(0.9, "for momentum and rmsprop", group="training", least=0.0)
    seed: int = option(0, "of initial values, order and dropout", group="training", least=0)
    train_dir: str = option("", "folder of the run", group="run", metavar="DIR")
    fresh: bool = option(False, "delete the classifier that is there", group="run")
    device: str = option("auto", "auto takes a GPU when there is one", group="run", choices=("auto", "gpu", "cpu"))


class Figures(NamedTuple):
    """Loss in nats and accuracy on some vectors."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class ClassifierResult:
    """How the training ended; `confusion` is of the validation vectors."""

    train_dir: str
    steps: int
    train: Figures
    validation: Figures
    seconds: float
    parameters: int
    rows: list[dict[str, object]]
    confusion: list[list[int]]
    labels: tuple[str, ...]


def train_classifier(options: VectorOptions, say: Callable[[str], None] = lambda line: None) -> ClassifierResult:
    """Trains, validates after each epoch or so, writes the train directory.

    Raises DataError when the data set is none of vectors, TrainingError when the folder holds something else already.
    """
    import tensorflow.compat.v1 as tf

    from .model import session_config

    # --- vectors ---
    data = load_data_set(options.data, validation_fraction=options.validation_fraction, seed=options.seed)
    if data.kind != "vectors":
        raise DataError(f"holds {data.kind}, not vectors", path=options.data, advice="Make some with ckpt-features.")
    folder = prepared_folder(options)
    train, validation = stacked(data.train), stacked(data.validation)
    per_epoch = steps_per_epoch(len(train), options.batch_size)
    total = options.steps or math.ceil(options.epochs * per_epoch)

    # --- graph ---
    with tf.Graph().as_default(), StopRequest() as stop:
        net = build(options, train.shape[1], len(data.labels), len(train))
        config, device = session_config(options.device)
        parameters = sum(int(np.prod(variable.shape.as_list())) for variable in net.variables)
        say(f"vectors        {len(train):,} to train on, {len(validation):,} to validate, {train.shape[1]:,} values")
        say(f"classes        {len(data.labels)}: {', '.join(data.labels)}")
        say(f"trainable      {parameters:,} of {parameters:,} parameters, on the {device}")
        with tf.Session(config=config) as session:
            session.run(
                tf.global_variables_initializer(), dict(zip(net.fill, (train, data.train.label_ids), strict=True))
            )

            # --- train and validate ---
            began, step, rows = time.monotonic(), 0, []
            with Progress("training", total=total) as progress:
                while step < total and not stop.signal:
                    step, loss = run_epoch(session, net, options, step, total, len(train), progress)
                    if not math.isfinite(loss):
                        raise TrainingError(f"the loss became {loss} before step {step:,}", advice="Learn more slowly.")
                    now = measured(session, net, validation, data.validation)[0]
                    rows.append(
                        {"step": step, "loss": loss, "validation_loss": now.loss, "validation_accuracy": now.accuracy}
                    )
            seconds = time.monotonic() - began

            # --- result ---
            on_train, _ = measured(session, net, train, data.train)
            on_validation, confusion = measured(session, net, validation, data.validation)
            arrays = session.run({variable.op.name: variable for variable in net.variables})
    per_class = metrics.per_class(confusion, data.labels)
    result = ClassifierResult(
        options.train_dir,
        step,
        on_train,
        on_validation,
        seconds,
        parameters,
        per_class,
        confusion.tolist(),
        data.labels,
    )
    write(folder, options, data, from_arrays(arrays), rows, result)
    return result


def stacked(examples: Examples) -> np.ndarray:
    """float32 [n, d] of all examples."""
    return np.stack([examples.read(i) for i in range(len(examples))]).astype(np.float32, copy=False)


def run_epoch(
    session: tf.Session, net: VectorNet, options: VectorOptions, step: int, total: int, count: int, progress: Progress
) -> tuple[int, float]:
    """The steps from `step` to the end of its epoch; returns the number of the last one and their mean loss."""
    per_epoch = steps_per_epoch(count, options.batch_size)
    epoch, done = divmod(step, per_epoch)
    order = epoch_order(options.seed, epoch, count)
    until = min(per_epoch, done + total - step)
    losses, sizes = [], []
    while done < until:
        ahead = min(CHUNK, until - done)
        rows = order[done * options.batch_size : (done + ahead) * options.batch_size]
        losses.append(float(session.run(net.run_steps, {net.order: rows, net.first: step})))
        sizes.append(ahead)
        done, step = done + ahead, step + ahead
        progress.step(len(rows), f"loss {losses[-1]:.4f}", count=ahead)
    return step, float(np.average(losses, weights=sizes))


def measured(session: tf.Session, net: VectorNet, values: np.ndarray, examples: Examples) -> tuple[Figures, np.ndarray]:
    """Loss and accuracy on these vectors, and the confusion matrix."""
    logits = np.concatenate(
        [session.run(net.logits, {net.vectors: values[i : i + 4096]}) for i in range(0, len(values), 4096)]
    )
    predicted = logits.argmax(axis=1)
    confusion = metrics.confusion_matrix(examples.label_ids, predicted, logits.shape[1])
    return Figures(
        metrics.cross_entropy(examples.label_ids, logits), float(np.trace(confusion) / len(values))
    ), confusion


def prepared_folder(options: VectorOptions) -> Path:
    """The train directory. Raises TrainingError when it holds a run already and --fresh was not given."""
    folder = Path(options.train_dir)
    if not options.train_dir:
        raise TrainingError("--train-dir must be given")
    if folder.is_dir() and any(folder.glob("*.index")) and not options.fresh:
        raise TrainingError("holds a run already", path=folder, advice="Name another folder, or use --fresh.")
    return folder


def write(
    folder: Path,
    options: VectorOptions,
    data: DataSet,
    tensors: Tensors,
    rows: Sequence[Mapping],
    result: ClassifierResult,
) -> None:
    """Writes the checkpoint, labels.txt, config.yaml, metrics.csv and result.json."""
    from ..formats import save_checkpoint

    try:
        folder.mkdir(parents=True, exist_ok=True)
        source = {"source": str(options.data), "actions": dict.fromkeys(tensors, "trained")}
        save_checkpoint(tensors, str(folder / "classifier.ckpt"), force=True, provenance=source)
        (folder / "labels.txt").write_text("".join(f"{i}:{label}\n" for i, label in enumerate(data.labels)))
        (folder / "config.yaml").write_text(to_config(options))
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        record = {"steps": result.steps, "seconds": result.seconds, "validation": result.validation._asdict()}
        (folder / "result.json").write_text(json.dumps({**record, "rows": result.rows}, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", path=folder) from error


def closing_text(result: ClassifierResult) -> str:
    """What a person reads last: figures per class, speed, accuracy."""
    from ..report import render

    figures = ("precision", "recall", "f1")
    rows = [
        {**row, **{key: None if row[key] is None else round(row[key], 3) for key in figures}} for row in result.rows
    ]
    return "\n".join(
        [
            render(rows, ["label", "images", "correct", *figures]),
            "",
            f"done           {result.steps:,} steps in {result.seconds:.1f} s, in {result.train_dir}",
            f"training       accuracy {result.train.accuracy:.3f}, loss {result.train.loss:.4f}",
            f"validation     accuracy {result.validation.accuracy:.3f}, loss {result.validation.loss:.4f}",
        ]
    )
