"""The options of `ckpt-finetune`, one field per option.

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
    """The chosen precision and the reason; `found` has the figures of a comparison, if there was one. An `open` choice
    still has to be compared."""

    precision: str
    why: str
    found: Mapping[str, float] = {}
    open: bool = False

    def chosen(self) -> PrecisionChosen:
        """The event that announces the choice."""
        return PrecisionChosen(self.precision, self.why, self.found)

    def as_dict(self) -> dict[str, object]:
        """The choice for plan.json and other files."""
        return {"precision": self.precision, "why": self.why, **self.found}


@dataclass(frozen=True)
class Options(NetOptions):
    """The options of `ckpt-finetune`. `None` means that the program chooses, as described in the help text."""

    checkpoint: str = option(
        "",
        "checkpoint to start from, or SRC:scope; without one, --net is trained from scratch",
        group="source",
        metavar="SRC",
    )
    exclude: tuple[str, ...] = option(
        (), "scopes to initialise afresh instead of restoring", group="source", metavar="PATTERN"
    )
    rename: tuple[str, ...] = option(
        (), "a scope or tensor of the source, and its name in the net", group="source", metavar="OLD=NEW", also="map"
    )
    cast: bool = option(False, "convert weights of another type, such as float16, instead of stopping", group="source")
    class_map: str | None = option(
        None, 'classes of the source to keep: "3,7,_", a file with such a list, or NEW.txt=OLD.txt, label files',
        group="source", metavar="MAP",
    )  # fmt: skip
    labels_of_source: str | None = option(
        None, "labels of the source; classes with the same name keep their weights", group="source", metavar="FILE"
    )
    adapt_input: bool = option(
        False, "adapt the first layer to another number of input channels, such as one for grey images", group="source"
    )
    fold: bool = option(
        False,
        "fold batch-norm scales and biases that the net does not have into weights and moving means",
        group="source",
    )

    data: str = option("", "the data set: class folders, TFRecords, CIFAR, MNIST or .npz", group="data", metavar="DIR")
    labels: str | None = option(None, "file with the class names, in order", group="data", metavar="FILE")
    labels_csv: str | None = option(
        None,
        "CSV with files and labels of the images in --data; one in that folder is found by itself",
        group="data",
        metavar="FILE",
    )
    label_column: tuple[str, ...] = option(
        (),
        "which labels to use if there are several: a column of the CSV, or fine or coarse for CIFAR-100",
        group="data",
        metavar="NAME",
    )
    labels_per_image: str = option(
        "one", "many: multi-label classification, with any number of labels per image and sigmoids", group="data",
        choices=LABELS_PER_IMAGE,
    )  # fmt: skip
    validation_fraction: float = option(
        0.2, "fraction of the images to hold out if the data has no validation images", group="data", above=0.0
    )
    image_size: int | None = option(None, "height and width in pixels; the net's own by default", group="data", least=1)
    preprocessing: str | None = option(
        None, "how pixels are scaled; as the net was trained by default", group="data", metavar="STYLE|MEAN,DIVISOR"
    )
    exif_orientation: bool = option(False, "rotate photos as their EXIF data say", group="data")
    augment: tuple[str, ...] = option(
        (), "data augmentation of the training images, such as flip,crop(0.8)", group="data", metavar="CHANGE"
    )
    augment_copies: int | None = option(
        None, "augmented views per image, cached and taken in turn; without it, new uncached views each epoch",
        group="data", metavar="K", least=1,
    )  # fmt: skip
    show_augmentation: str = option(
        "", "draw the first batch before and after --augment", group="data", metavar="FILE.png",
        same_run=True,
    )  # fmt: skip

    trainable: tuple[str, ...] = option(
        (), "scopes to train; everything else stays frozen; all by default", group="training", metavar="PATTERN"
    )
    freeze_until: str | None = option(
        None, "freeze the net up to this end point and train everything after it", group="training", metavar="END_POINT"
    )
    unfreeze: str = option(
        "", 'gradual unfreezing: scopes by epoch, as in "0:Logits; 5:Mixed_7c; 10:Mixed_7b"', group="training",
        metavar="PHASES",
    )  # fmt: skip
    aux: bool = option(False, "train the auxiliary head as well, its loss weighted by 0.4", group="training")
    bn: tuple[str, ...] = option(
        (),
        "batch norm by scope: frozen, stats (statistics only) or train; as its layer by default",
        group="training",
        metavar="SCOPE=MODE",
    )
    head_scope: str | None = option(
        None, "put the new last layer in a scope of its own", group="training", metavar="SCOPE"
    )
    head: str | None = option(
        None,
        'layers in front of the last one, such as "dense(64,relu)|dropout(0.5)"',
        group="training",
        metavar="LAYERS",
    )
    dropout: float = option(0.0, "dropout rate at the head's input", group="training", least=0.0)
    steps: int | None = option(
        None, "total training steps (instead of --epochs)", group="training", least=0, same_run=True
    )
    epochs: float | None = option(None, "epochs to train; 10 by default", group="training", above=0.0, same_run=True)
    batch_size: int = option(32, "images per step, over all devices", group="training", least=1)
    optimizer: str = option("adam", "optimization algorithm", group="training", choices=OPTIMIZERS)
    learning_rate: float | None = option(
        None,
        "default: depends on the optimizer; a tenth of that if more than the head trains",
        group="training",
        above=0.0,
    )
    momentum: float = option(0.9, "momentum of the optimizers momentum and rmsprop", group="training", least=0.0)
    schedule: str = option("constant", "learning-rate schedule", group="training", choices=SCHEDULES)
    decay_rate: float = option(0.94, "decay factor of the exponential and step schedules", group="training", above=0.0)
    decay_epochs: float = option(2.0, "epochs after which --decay-rate applies once", group="training", above=0.0)
    warmup_steps: int = option(0, "steps of linear warm-up from zero", group="training", least=0)
    lr_mult: tuple[str, ...] = option(
        (), "multiply the learning rate of a scope", group="training", metavar="PATTERN=FACTOR"
    )
    layer_decay: float = option(
        1.0, "layer-wise learning-rate decay: factor from each block to the one below", group="training", above=0.0
    )
    clip_norm: float | None = option(None, "clip gradients to this global L2 norm", group="training", above=0.0)
    weight_decay: float = option(4e-5, "L2 regularisation of the trained weights", group="training", least=0.0)
    weight_decay_for: tuple[str, ...] = option(
        (), "another weight decay for a scope", group="training", metavar="PATTERN=VALUE"
    )
    label_smoothing: float = option(
        0.0, "label smoothing: fraction of the target spread over all classes", group="training", least=0.0
    )
    class_weights: str | None = option(
        None, 'balanced, or weights such as "cat=2,dog=0.5"', group="training", metavar="WEIGHTS"
    )
    ema: float | None = option(
        None,
        "decay of an exponential moving average of the trained variables, saved with them",
        group="training",
        above=0.0,
    )
    early_stop: int | None = option(
        None, "stop after N evaluations without an improvement", group="training", least=1, same_run=True
    )
    batch_norm_decay: float | None = option(
        None, "decay of the moving statistics of batch norms that train; fitted to the run's length by default",
        group="training", above=0.0,
    )  # fmt: skip
    precision: str = option(
        "auto", "auto: float32; cached features in the hardware's own precision if nearly the same",
        group="training", choices=PRECISIONS,
    )  # fmt: skip
    xla: bool = option(False, "compile the net with XLA", group="training")
    seed: int = option(
        0, "random seed of initial values, image order, dropout and augmentation", group="training", least=0
    )

    find_learning_rate: str = option(
        "", "learning-rate range test instead of training: draw the loss, suggest a rate", group="run",
        metavar="FILE.png", same_run=True,
    )  # fmt: skip
    dry_run: bool = option(
        False, "measure a few batches and estimate time, memory and disk of the run", group="run", same_run=True
    )
    train_dir: str = option(
        "", "folder of the run: checkpoints, report, TensorBoard events", group="run", metavar="DIR", same_run=True
    )
    resume: bool = option(False, "resume although plan or options have changed", group="run", same_run=True)
    fresh: bool = option(False, "delete the run in this folder and start over", group="run", same_run=True)
    keep: int = option(
        3, "how many recent checkpoints to keep besides the best one", group="run", least=1, same_run=True
    )
    save_steps: int | None = option(
        None, "steps between checkpoints; ten minutes by default", group="run", least=1, same_run=True
    )
    eval_steps: int | None = option(
        None, "steps between evaluations; an epoch by default", group="run", least=1, same_run=True
    )
    log_steps: int = option(10, "steps between rows of metrics.csv", group="run", least=1, same_run=True)
    cache: str = option(
        "auto",
        "compute the frozen part once per image and cache it: if possible, never, or stop if impossible",
        group="cache",
        choices=("auto", "off", "require"),
        same_run=True,
    )
    cache_dir: str | None = option(
        None,
        "folder of cached features, shared by all runs; ~/.cache/ckpt-tools by default",
        group="cache",
        metavar="DIR",
        same_run=True,
    )
    cache_limit: str = option(
        "10GB", "disk space that the cached features of one net may take", group="cache", metavar="SIZE", same_run=True
    )
    cache_dtype: str = option(
        "float32",
        "type of cached features; float16 takes half the disk space and rounds",
        group="cache",
        choices=("float32", "float16"),
    )
    device: str = option(
        "auto", "auto uses a GPU if there is one", group="run", choices=("auto", "gpu", "cpu"), same_run=True
    )

    devices: str | None = option(
        None, "split each batch over devices: all, a number, or names such as gpu:0,gpu:1", group="run",
        metavar="DEVICES", same_run=True,
    )  # fmt: skip
    accumulate: int = option(
        1, "gradient accumulation: split each batch into N parts, to save memory", group="run", least=1,
        same_run=True,
    )  # fmt: skip

    start_timeout: float = option(
        300.0, "seconds that the machines of TF_CONFIG wait for each other to start", group="run", least=0.0,
        same_run=True,
    )  # fmt: skip
    worker_timeout: float = option(
        0.0, "seconds that the leader waits for a lost machine to return", group="run", least=0.0, same_run=True
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
            problems.append("--resume and --fresh cannot be combined")
        if self.steps is not None and self.epochs is not None:
            problems.append("--steps and --epochs cannot be combined")
        chosen = [flag(name) for name in ("trainable", "freeze_until", "unfreeze") if getattr(self, name)]
        if len(chosen) > 1:
            problems.append(f"{' and '.join(chosen)} cannot be combined")
        if self.class_map and self.labels_of_source:
            problems.append("--class-map and --labels-of-source cannot be combined")
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

    def repeated(self) -> Options:
        """These options without those that say how this one start treats the train directory: what a run records."""
        return dataclasses.replace(self, fresh=False, resume=False)

    def require(self, *names: str) -> None:
        """Raises RecipeError with every one of `names` that is not given."""
        missing = [flag(name) for name in names if not getattr(self, name)]
        if missing:
            raise RecipeError(f"{' and '.join(missing)} must be given")
