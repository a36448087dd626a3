"""What `ckpt-finetune` can be asked to do: one field an option.

options = Options(checkpoint="inception_v3.ckpt", data="photos", train_dir="run", trainable=("Logits",))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import RecipeError
from ...events import PrecisionChosen
from .configuration import coerce, flag, option, problem_with
from .net_options import NetOptions
from .styles import style_problem

AUTO, FLOAT32 = "auto", "float32"
LABELS_PER_IMAGE = ("one", "many")
PRECISIONS = (AUTO, FLOAT32, "bfloat16", "float16")
OPTIMIZERS = ("adam", "momentum", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("constant", "exponential", "step", "cosine", "one-cycle")


class Choice(NamedTuple):
    """The precision that is taken and why; `found` has the figures of a comparison, where there was one. An `open`
    choice is still to be compared."""

    precision: str
    why: str
    found: Mapping[str, float] = {}
    open: bool = False

    def chosen(self) -> PrecisionChosen:
        """What is told of it."""
        return PrecisionChosen(self.precision, self.why, self.found)

    def as_dict(self) -> dict[str, object]:
        """What plan.json and other files say of it."""
        return {"precision": self.precision, "why": self.why, **self.found}


@dataclass(frozen=True)
class Options(NetOptions):
    """What `ckpt-finetune` was asked to do. `None` means that the program chooses, as the help text says."""

    checkpoint: str = option(
        "",
        "source of the weights: any checkpoint, or SRC:scope; left out, --net is trained from nothing",
        group="source",
        metavar="SRC",
    )
    exclude: tuple[str, ...] = option(
        (), "scopes that are not restored but initialised afresh", group="source", metavar="PATTERN"
    )
    rename: tuple[str, ...] = option(
        (), "scope or name of the source and what the net calls it", group="source", metavar="OLD=NEW", also="map"
    )
    cast: bool = option(False, "convert other element types instead of stopping", group="source")
    class_map: str | None = option(
        None, 'classes of the source to keep: "3,7,_", a file of it, or NEW.txt=OLD.txt, files of labels',
        group="source", metavar="MAP",
    )  # fmt: skip
    labels_of_source: str | None = option(
        None, "names of the source's classes: classes of the same name are kept", group="source", metavar="FILE"
    )
    adapt_input: bool = option(
        False, "adapt a first layer that has other input channels; to grey images by one channel", group="source"
    )
    fold: bool = option(
        False, "fold scales and biases that the net has no variable for into weights and moving means", group="source"
    )

    data: str = option("", "folder of class folders, TFRecords, CIFAR-10 batches or .npz", group="data", metavar="DIR")
    labels: str | None = option(
        None, "file with the names of the classes, in their order", group="data", metavar="FILE"
    )
    labels_csv: str | None = option(
        None, "CSV of the images in --data and their labels; one in the folder is found", group="data", metavar="FILE"
    )
    label_column: tuple[str, ...] = option(
        (),
        "which labels, where there are several: a column of the CSV; fine or coarse of CIFAR-100",
        group="data",
        metavar="NAME",
    )
    labels_per_image: str = option(
        "one", "many: an image may have several labels, or none; sigmoid instead of softmax", group="data",
        choices=LABELS_PER_IMAGE,
    )  # fmt: skip
    validation_fraction: float = option(
        0.2, "share of the images set aside where the data has no validation images", group="data", above=0.0
    )
    image_size: int | None = option(None, "height and width in pixels; the net's own by default", group="data", least=1)
    preprocessing: str | None = option(
        None, "how pixels are scaled; the net's own by default", group="data", metavar="STYLE|MEAN,DIVISOR"
    )
    exif_orientation: bool = option(False, "turn photos as their camera's EXIF data say", group="data")
    augment: tuple[str, ...] = option(
        (), "random changes of the training images, such as flip or crop", group="data", metavar="CHANGE"
    )
    augment_copies: int | None = option(
        None, "augmented views of each image, cached and taken in turn; else each epoch has its own, uncached",
        group="data", metavar="K", least=1,
    )  # fmt: skip
    show_augmentation: str = option(
        "", "write a picture of the first batch, before and after --augment", group="data", metavar="FILE.png",
        same_run=True,
    )  # fmt: skip

    trainable: tuple[str, ...] = option(
        (), "the only scopes that the optimizer may change; everything by default", group="training", metavar="PATTERN"
    )
    freeze_until: str | None = option(
        None, "train all that lies behind this end point of the net", group="training", metavar="END_POINT"
    )
    unfreeze: str = option(
        "", 'scopes that train from an epoch on, as in "0:Logits; 5:Mixed_7c; 10:Mixed_7b"', group="training",
        metavar="PHASES",
    )  # fmt: skip
    aux: bool = option(False, "train the net's auxiliary head as well, with 0.4 of its loss", group="training")
    bn: tuple[str, ...] = option(
        (),
        "batch norm by scope: frozen, stats (updated, not trained) or train; trains where its layer does",
        group="training",
        metavar="SCOPE=MODE",
    )
    head_scope: str | None = option(
        None, "put the new last layer in a scope of its own", group="training", metavar="SCOPE"
    )
    head: str | None = option(
        None, 'layers before the last one, such as "dense(64,relu)|dropout(0.5)"', group="training", metavar="LAYERS"
    )
    dropout: float = option(0.0, "share of the head's inputs dropped in training", group="training", least=0.0)
    steps: int | None = option(
        None, "training steps in all (instead of --epochs)", group="training", least=0, same_run=True
    )
    epochs: float | None = option(
        None, "passes over the training images; 10 by default", group="training", above=0.0, same_run=True
    )
    batch_size: int = option(32, "images a step", group="training", least=1)
    optimizer: str = option("adam", "how gradients become changes", group="training", choices=OPTIMIZERS)
    learning_rate: float | None = option(
        None, "default: by optimizer, and a tenth of it when more than the head is trained", group="training", above=0.0
    )
    momentum: float = option(0.9, "for momentum and rmsprop", group="training", least=0.0)
    schedule: str = option("constant", "of the learning rate", group="training", choices=SCHEDULES)
    decay_rate: float = option(0.94, "factor of the exponential schedule", group="training", above=0.0)
    decay_epochs: float = option(2.0, "epochs for one factor of the exponential schedule", group="training", above=0.0)
    warmup_steps: int = option(0, "steps in which the learning rate rises from zero", group="training", least=0)
    lr_mult: tuple[str, ...] = option(
        (), "factor of the learning rate for a scope", group="training", metavar="PATTERN=FACTOR"
    )
    layer_decay: float = option(
        1.0, "factor of the learning rate from each block to the one before it", group="training", above=0.0
    )
    clip_norm: float | None = option(None, "largest L2 norm of all gradients together", group="training", above=0.0)
    weight_decay: float = option(4e-5, "L2 penalty on the trained weights", group="training", least=0.0)
    weight_decay_for: tuple[str, ...] = option(
        (), "another weight decay for a scope", group="training", metavar="PATTERN=VALUE"
    )
    label_smoothing: float = option(0.0, "share of the target given to all classes alike", group="training", least=0.0)
    class_weights: str | None = option(
        None, 'balanced, or weights such as "cat=2,dog=0.5"', group="training", metavar="WEIGHTS"
    )
    ema: float | None = option(
        None, "decay of moving averages of the trained variables, saved beside them", group="training", above=0.0
    )
    early_stop: int | None = option(
        None, "stop after so many evaluations without a better one", group="training", least=1, same_run=True
    )
    batch_norm_decay: float | None = option(
        None, "of the moving statistics where batch norm trains; suits the length of the run by default",
        group="training", above=0.0,
    )  # fmt: skip
    precision: str = option(
        "auto", "of the net; auto: float32, and transfer values in what is native here if nearly the same",
        group="training", choices=PRECISIONS,
    )  # fmt: skip
    xla: bool = option(False, "compile the net with XLA", group="training")
    seed: int = option(0, "of initial values, the order of images, dropout and augmentation", group="training", least=0)

    find_learning_rate: str = option(
        "", "try rising rates instead of training, draw the loss, suggest a rate", group="run", metavar="FILE.png",
        same_run=True,
    )  # fmt: skip
    dry_run: bool = option(False, "measure a few batches and say what the run will take", group="run", same_run=True)
    train_dir: str = option("", "folder of the run", group="run", metavar="DIR", same_run=True)
    resume: bool = option(False, "go on although plan or options have changed", group="run", same_run=True)
    fresh: bool = option(False, "delete the run that is there and start again", group="run", same_run=True)
    keep: int = option(3, "newest checkpoints kept besides the best one", group="run", least=1, same_run=True)
    save_steps: int | None = option(
        None, "steps between checkpoints; every ten minutes by default", group="run", least=1, same_run=True
    )
    eval_steps: int | None = option(
        None, "steps between evaluations; once an epoch by default", group="run", least=1, same_run=True
    )
    log_steps: int = option(10, "steps between rows of metrics.csv", group="run", least=1, same_run=True)
    cache: str = option(
        "auto",
        "compute the frozen part of the net once for each image: when it can be, never, or stop if it cannot",
        group="cache",
        choices=("auto", "off", "require"),
        same_run=True,
    )
    cache_dir: str | None = option(
        None,
        "folder of transfer values, for all runs; ~/.cache/ckpt-tools by default",
        group="cache",
        metavar="DIR",
        same_run=True,
    )
    cache_limit: str = option(
        "10GB", "disk that the transfer values of one net may take", group="cache", metavar="SIZE", same_run=True
    )
    cache_dtype: str = option(
        "float32", "float16 halves the disk and rounds", group="cache", choices=("float32", "float16")
    )
    device: str = option(
        "auto", "auto takes a GPU when there is one", group="run", choices=("auto", "gpu", "cpu"), same_run=True
    )

    devices: str | None = option(
        None, "divide each batch between devices: all, a number, or names such as gpu:0,gpu:1", group="run",
        metavar="DEVICES", same_run=True,
    )  # fmt: skip
    accumulate: int = option(
        1, "parts of a batch that a device works on one after the other, to save memory", group="run", least=1,
        same_run=True,
    )  # fmt: skip

    start_timeout: float = option(
        300.0, "seconds that the machines of TF_CONFIG wait for each other at the start", group="run", least=0.0,
        same_run=True,
    )  # fmt: skip
    worker_timeout: float = option(
        0.0, "seconds that the leader waits for a lost machine to come back", group="run", least=0.0, same_run=True
    )

    def __post_init__(self) -> None:
        coerce(self)
        problems = [
            problem for found in dataclasses.fields(self) if (problem := problem_with(found, getattr(self, found.name)))
        ]
        problems += self.reference.problems()
        if self.preprocessing and (problem := style_problem(self.preprocessing)):
            problems.append(problem)
        if self.resume and self.fresh:
            problems.append("--resume and --fresh exclude each other")
        if self.steps is not None and self.epochs is not None:
            problems.append("--steps and --epochs exclude each other")
        chosen = [flag(name) for name in ("trainable", "freeze_until", "unfreeze") if getattr(self, name)]
        if len(chosen) > 1:
            problems.append(f"{' and '.join(chosen)} exclude each other")
        if self.class_map and self.labels_of_source:
            problems.append("--class-map and --labels-of-source exclude each other")
        if self.show_augmentation and not self.augment:
            problems.append("--show-augmentation shows nothing without --augment")
        if self.augment_copies and not self.augment:
            problems.append("--augment-copies: there is nothing to copy without --augment")
        if self.dropout >= 1:
            problems.append(f"--dropout {self.dropout} leaves nothing; it must be below 1")
        problems += [
            f"{flag(name)} {getattr(self, name)}: must be below 1"
            for name in ("label_smoothing", "ema")
            if (getattr(self, name) or 0) >= 1
        ]
        if problems:
            raise RecipeError("; ".join(problems))

    def require(self, *names: str) -> Options:
        """The options themselves. Raises RecipeError naming every one of `names` that is missing."""
        missing = [flag(name) for name in names if not getattr(self, name)]
        if missing:
            raise RecipeError(f"{' and '.join(missing)} must be given")
        return self
