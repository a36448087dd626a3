"""A trained net, ready to be run on images: opened from a train directory or from any checkpoint of a slim net."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, RecipeError, TrainingError, UnsupportedError
from ...formats import Checkpoint, open_checkpoint
from ...graphs.files import checkpoint_of
from ...kinds import AVERAGE, kinds
from ...labels import read_labels
from ...nets.from_graph import classes_in, net_of_record
from ...nets.net import Net
from ...nets.opening import as_known
from ...nets.registry import names_by_scope, recognise
from ...nets.resolving import resolve
from ...plan import Plan, PlanRules, make_plan
from ...tensors import Spec, Tensors
from ..data.examples import DataSet, Examples
from ..data.labelling import ClassNames
from ..data.preprocess import Preprocessing, from_dict
from ..options.configuration import coerce, option, problem_with, read_config
from ..options.net_options import NetOptions
from ..options.styles import style_problem
from ..options.training import LABELS_PER_IMAGE, Options
from ..plan.request import check_style, pixels_of
from .class_names import names_for, thresholds_of
from .metrics import sigmoid, softmax
from .recorded import find_run

if TYPE_CHECKING:
    import numpy as np


def threshold_option() -> Any:
    """The option --threshold of every command that predicts labels."""
    help = "multi-label nets: lowest probability at which a label is predicted; 0.5 by default"
    return option((), help, group="run", metavar="NUMBER|LABEL=NUMBER")


@dataclass(frozen=True)
class SourceOptions(NetOptions):
    """Which net a command runs, and on what pixels: that of a run of `ckpt-finetune`, or any slim checkpoint."""

    train_dir: str = option("", "use the net of this run", group="source", metavar="DIR")
    use: str = option("best", "which checkpoint of the run: best, last or a step", group="source", metavar="WHICH")
    moving_averages: bool = option(False, "use the moving averages of --ema instead of the weights", group="source")
    checkpoint: str = option("", "take this checkpoint", group="source", metavar="SRC")
    image_size: int | None = option(None, "height and width in pixels", group="source", least=1)
    preprocessing: str | None = option(
        None, "how pixels are scaled; the net's own by default", group="source", metavar="STYLE|MEAN,DIVISOR"
    )
    exif_orientation: bool = option(False, "turn photos as EXIF data say, if the run did not", group="source")
    labels_per_image: str | None = option(
        None, "many: the checkpoint's net predicts each class by itself; a run knows", group="source",
        choices=LABELS_PER_IMAGE,
    )  # fmt: skip

    def __post_init__(self) -> None:
        coerce(self)
        if problems := self.problems():
            raise RecipeError("; ".join(problems))

    def problems(self) -> list[str]:
        """Problems of the options, one sentence each."""
        found = [problem for each in fields(self) if (problem := problem_with(each, getattr(self, each.name)))]
        if bool(self.train_dir) == bool(self.checkpoint or self.graph):
            found.append("--train-dir or --checkpoint must be given, not both")
        found += self.reference.problems()
        if self.preprocessing and (problem := style_problem(self.preprocessing)):
            found.append(problem)
        if self.train_dir and self.labels_per_image:
            found.append("--labels-per-image is for --checkpoint: a run knows it")
        if not re.fullmatch(r"best|last|\d+", self.use):
            found.append(f"--use {self.use}: must be best, last or a step")
        elif self.checkpoint and self.use != "best":
            found.append(f"--use {self.use} chooses a checkpoint of --train-dir; --checkpoint names one itself")
        return found

    def open(self, *, labels: str | None = None, head: bool = True, threshold: Sequence[str] = ()) -> Classifier:
        """The classifier for these options; see `load_classifier`, also for the errors raised."""
        return load_classifier(self, labels=labels, head=head, threshold=threshold)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A net, the values of its variables, and the names of its classes.

    `labels` are numbers as text if the names are unknown; `named` tells whether they are names.
    """

    net: Net
    tensors: Tensors  # by their names in the net's graph
    labels: tuple[str, ...]
    named: bool
    preprocessing: Preprocessing | None  # None: it classifies vectors
    path: str
    options: Options  # how the net was built: head, batch norm
    plan: Plan
    notes: tuple[str, ...] = ()  # for the user, on the names
    thresholds: tuple[float, ...] | None = None  # per class, if an image may have several

    @property
    def pixels(self) -> Preprocessing:
        """How an image becomes the net's input; only for a net on images."""
        assert self.preprocessing is not None
        return self.preprocessing

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def many(self) -> bool:
        """Whether an image may have several classes, each predicted independently."""
        return self.options.labels_per_image == "many"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities float64 [n, classes] of logits [n, classes]: softmax, or sigmoid if `many`."""
        return sigmoid(logits) if self.many else softmax(logits)

    @property
    def upright(self) -> bool:
        """Whether photos are rotated by their EXIF data."""
        return self.preprocessing is not None and self.preprocessing.upright

    @property
    def takes(self) -> str:
        """The net's input: "images" or "vectors"."""
        return "images" if self.preprocessing else "vectors"

    def must_take_images(self) -> None:
        """Raises UnsupportedError for a net on vectors."""
        if self.takes == "vectors":
            fact = f"is {self.net.title}, without images"
            raise UnsupportedError(fact, path=self.path, advice="Give the net that made the vectors.")

    def check_takes(self, data: DataSet) -> None:
        """Raises DataError unless the examples fit the net's input."""
        if self.takes == "images":
            if data.kind == "vectors":
                raise DataError("holds vectors, and the net takes images", path=data.path)
            return
        if data.kind != "vectors":
            fact = f"holds images, and the net takes vectors of {self.net.feature_channels:,} values"
            raise DataError(fact, path=data.path, advice="Make them with ckpt-features.")
        self.check_width(data.split("all"), data.path)

    def check_width(self, vectors: Examples, path: str) -> None:
        """Raises DataError unless the vectors in the file `path` have the length that the net takes."""
        width, wanted = len(vectors.read(0)), self.net.feature_channels
        if width != wanted:
            raise DataError(
                f"has vectors of {width:,} values, and the net takes vectors of {wanted:,} values", path=path
            )


def load_classifier(
    options: SourceOptions, *, labels: str | None = None, head: bool = True, threshold: Sequence[str] = ()
) -> Classifier:
    """The classifier in a train directory, one of its checkpoints, or any slim checkpoint. The options take precedence
    over the run's record; `labels` is a file of names, `threshold` holds values of --threshold.

    If `head` is false, the last layer is left out and need not be in the checkpoint. With `moving_averages`, weights
    are replaced by their moving averages, if they have one, as in slim's evaluation.

    Raises SelectionError if the net cannot be recognised, TrainingError if it has no last layer or no moving averages.
    """
    source, reference, use = options.train_dir or options.checkpoint, options.reference, options.use
    if not source:  # --graph alone: a graph has its checkpoint beside it, or in itself
        source = checkpoint_of(reference.graph or "")
    if not source:
        raise RecipeError("has no checkpoint beside it", path=reference.graph, advice="Name it with --checkpoint.")
    run, prefix = find_run(source, use)
    checkpoint = open_checkpoint(f"{prefix}.index" if run else source)
    if run is None and use != "best":
        advice = f"Give one by its name with --checkpoint, such as {checkpoint.path}."
        raise RecipeError(f"--use {use}: this is not a run of ckpt-finetune", path=source, advice=advice)
    if options.moving_averages:
        checkpoint = averaged(checkpoint)
    if run:
        found = _from_run(run, prefix, checkpoint)
        other = reference.net not in (None, found.net.name) or reference.graph or reference.chosen
        if other or (reference.net and run == Path(source)):
            named = reference.net or reference.graph
            raise RecipeError(f"--net {named} has no effect: the run says that it is {found.net.name}", path=source)
    else:
        found = _from_checkpoint(checkpoint, options, head)
    if labels is not None:
        names, notes = names_for(found, ClassNames(labels, read_labels(labels)))
        found = replace(found, labels=names, named=True, notes=(*found.notes, *notes))
    how, style = found.preprocessing, options.preprocessing
    if how is None and (options.image_size or style):
        fact = f"--image-size and --preprocessing have no effect: this is {found.net.title}"
        raise RecipeError(fact, path=source)
    if how is not None:
        check_style(found.net, style)
        size, upright = options.image_size or how.image_size, options.exif_orientation or how.upright
        how = Preprocessing(style or how.style, size, how.central_fraction, how.channels, upright=upright)
    labels_per_image = options.labels_per_image or found.options.labels_per_image
    found = replace(found, preprocessing=how, options=replace(found.options, labels_per_image=labels_per_image))
    return replace(found, thresholds=thresholds_of(found, threshold))


def averaged(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its moving averages in place of the weights. Raises TrainingError if it has none."""
    from ...surgery import EmaToWeights

    if not any(kind.kind == "average" for kind in kinds(checkpoint.tensors.specs()).values()):
        advice = "--ema of ckpt-finetune saves them."
        raise TrainingError("has no moving averages of weights", path=checkpoint.path, advice=advice)
    source, made = checkpoint.tensors, EmaToWeights()(checkpoint.tensors)
    # A graph's savers may look the averages up by their own names.
    names = {name: source.get(f"{name}{AVERAGE}", tensor) for name, tensor in source.items() if name not in made}
    return checkpoint._replace(tensors=Tensors({**made, **names}, {**source.stored_names, **made.stored_names}))


def _from_run(run: Path, prefix: str, checkpoint: Checkpoint) -> Classifier:
    try:
        record = json.loads((run / "plan.json").read_text(encoding="utf-8"))
        how = from_dict(record["preprocessing"]) if record["preprocessing"] else None
        net, labels = net_of_record(record, run), tuple(record["labels"])
        net = net.for_grey_images() or net if how and how.channels == "grey" else net
        plan = Plan.from_json(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"not the record of a run ({error})", path=run / "plan.json") from None
    options = Options(**read_config(run / "config.yaml", Options))
    return Classifier(net, checkpoint.tensors, labels, True, how, prefix, options, plan)


def _from_checkpoint(checkpoint: Checkpoint, options: SourceOptions, head: bool) -> Classifier:
    """The classifier in a checkpoint as written by slim's scripts, or under another scope, or with only averages."""
    from ..graph.restore import check_graph, planned_tensors

    checkpoint, origin = as_known(checkpoint, options.reference)
    source, specs = checkpoint.known_as, checkpoint.tensors.specs()
    found = recognise(specs)
    net = resolve(options.reference, specs, source, origin)
    known = found if found is not None and found.net and found.net.family == net.family else None
    scope = known.scope if known else net.scope
    classes = known.classes if known else classes_in(net, specs)
    classes = classes if head else None
    if classes is None and head:
        raise TrainingError(f"no last layer {net.head_layer or 'at all'}, so it classifies nothing", path=source)
    net = _as_wide(net, specs, scope)
    variables = [variable for variable in net.variables(classes) if variable.role != "auxiliary"]
    renames = {scope: net.scope} if scope and scope != net.scope else {}
    plan = make_plan(specs, variables, PlanRules(renames=renames, nets=names_by_scope())).checked()
    tensors = planned_tensors(plan, checkpoint.tensors, seed=0)
    how = pixels_of(net, options.preprocessing or (origin and origin.pixels), options.image_size)
    if net.graph is not None:
        check_graph(net.graph, how, tensors)
    labels, notes = tuple(map(str, range(classes or 0))), origin.notes if origin else ()
    return Classifier(net, tensors, labels, False, how, source, Options(), plan, notes)


def _as_wide(net: Net, specs: Mapping[str, Spec], scope: str) -> Net:
    """The net's variant for grey images if the first layer under this scope takes one channel; else the net."""
    first = net.table[0].name if net.table else ""
    spec = specs.get(net.under(scope, first))
    grey = net.for_grey_images() if spec and len(spec.shape) == 4 and spec.shape[2] == 1 else None
    return grey or net
