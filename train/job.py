"""What a training run is asked to do, worked out before TensorFlow is loaded and before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import RecipeError, TrainingError
from ..formats import Checkpoint, open_checkpoint
from ..nets.head import Dense, Dropout, Head, head_variables, parse_layers, variables_with_head
from ..nets.registry import NETS, Net, get_net, recognise
from ..plan import Plan, make_plan
from ..tensors import Spec, Tensors
from .data import load_data_set
from .examples import DataSet, steps_per_epoch
from .options import Options
from .preprocess import Preprocessing
from .schedule import base_rate, total_steps

BATCH_NORM_MODES = ("frozen", "stats", "train")
NO_SOURCE = Checkpoint(Tensors(), "no checkpoint", "none")


@dataclass(frozen=True)
class Job:
    """Source, net, data and plan of a run. `options` has absolute paths, so that the run can be continued anywhere."""

    options: Options
    source: Checkpoint
    net: Net
    data: DataSet
    preprocessing: Preprocessing
    head: Head
    plan: Plan

    @property
    def classes(self) -> int:
        return len(self.data.labels)

    @property
    def per_epoch(self) -> int:
        """Steps in which each training image is seen once."""
        return steps_per_epoch(len(self.data.train), self.options.batch_size)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return total_steps(self.options, self.per_epoch)

    @property
    def base_rate(self) -> float:
        """The learning rate that the schedule starts from."""
        return base_rate(self.options, head_only=not self.restored_and_trained)

    @property
    def restored_and_trained(self) -> tuple[str, ...]:
        """Variables that begin with the source's values and are trained on."""
        return tuple(row.name for row in self.plan.rows if row.trainable and row.action not in ("init", "unused"))

    @property
    def movable(self) -> frozenset[str]:
        """Variables of the net that a step changes: those that are trained, and the statistics of batch norms that are
        updated. All others are bit for bit what they were."""
        updated = {layer for layer, mode in self.plan.batch_norm.items() if mode != "frozen"}
        return frozenset(
            row.name
            for row in self.plan.rows
            if row.action != "unused" and (row.trainable or _statistic_of(row.name) in updated)
        )


def _statistic_of(name: str) -> str | None:
    """The batch-norm layer that a moving mean or variance belongs to."""
    layer, _, last = name.rpartition("/")
    return layer if last in ("moving_mean", "moving_variance") else None


def make_job(options: Options) -> Job:
    """Opens the source, finds the net, lists the data and makes the plan.

    Without a checkpoint the net is trained from nothing: it must be named, and every variable is initialised.
    Raises the error of whichever of them fails, and PlanError with every conflict when the plan has any.
    """
    options.require(*(() if options.net else ("checkpoint",)), "data", "train_dir")
    # abspath, not Path.resolve: the folder in front of a link is the name that the user knows, and SRC:scope stays.
    given = [name for name in ("checkpoint", "data") if getattr(options, name)]
    options = replace(options, **{name: os.path.abspath(getattr(options, name)) for name in given})  # noqa: PTH100
    source = open_checkpoint(options.checkpoint) if options.checkpoint else NO_SOURCE
    specs = source.tensors.specs()
    net = find_net(options.net, specs, source.path)
    data = load_data_set(
        options.data, validation_fraction=options.validation_fraction, seed=options.seed, labels_file=options.labels
    )
    preprocessing = Preprocessing(
        options.preprocessing or net.preprocessing, options.image_size or net.image_size, augment=options.augment
    )
    head = make_head(options)
    plan = make_plan(
        specs,
        variables_with_head(net, len(data.labels), head),
        exclude=options.exclude if options.checkpoint else ("**",),
        trainable=options.trainable,
        renames=options.map,
        cast=options.cast,
        batch_norm=batch_norm_modes(options),
        new=new_variables(options, net, len(data.labels), head),
    )
    return Job(options, source, net, data, preprocessing, head, plan.checked())


def make_head(options: Options) -> Head:
    """The head that --head, --head-scope and --dropout describe; dropout stands right before the last layer."""
    layers = parse_layers(options.head) if options.head else ()
    last = (Dropout(options.dropout),) if options.dropout else ()
    return Head((*layers, *last), options.head_scope)


def new_variables(options: Options, net: Net, classes: int, head: Head) -> dict[str, str]:
    """Variables that the source cannot have -> the option that made them."""
    if head.scope:
        rule = f"--head-scope {head.scope}"
    elif any(isinstance(layer, Dense) for layer in head.layers):
        rule = f"--head {options.head}"
    else:
        return {}
    return {variable.name: rule for variable in head_variables(net, classes, head)}


def find_net(name: str | None, specs: Mapping[str, Spec], path: str) -> Net:
    """The net that is named, or the one that the source's names and shapes tell."""
    if name is not None:
        return get_net(name)
    found = recognise(specs)
    if found is None:
        raise TrainingError("cannot tell which net this is", path=path, advice=f"Give --net: {', '.join(NETS)}.")
    return found.net


def batch_norm_modes(options: Options) -> dict[str, str]:
    """--bn SCOPE=MODE as pattern -> mode."""
    modes = {}
    for text in options.bn:
        for part in text.split(","):
            pattern, _, mode = part.rpartition("=")
            if not pattern or mode not in BATCH_NORM_MODES:
                raise RecipeError(f"--bn {part}: write SCOPE=MODE, with {', '.join(BATCH_NORM_MODES)}")
            modes[pattern] = mode
    return modes


def opening_lines(job: Job, device: str) -> list[str]:
    """What is printed before the first step."""
    facts, plan, data = job.plan.summary, job.plan, job.data
    share = facts["trainable_parameters"] / max(1, facts["parameters"])
    modes = list(plan.batch_norm.values())
    norms = ", ".join(f"{modes.count(mode)} {mode}" for mode in BATCH_NORM_MODES if mode in modes) or "none"
    images = " ".join(f"{label} {n}" for label, n in zip(data.labels, data.train.counts(job.classes), strict=True))
    counts = f"{len(data.train):,} to train on, {len(data.validation):,} to validate"
    return [
        f"net            {job.net.title}, {job.preprocessing.image_size} x {job.preprocessing.image_size} pixels",
        f"classes        {job.classes}: {', '.join(data.labels)}",
        f"source         {job.source.path} ({job.source.format})",
        f"plan           {facts['restored']} restored, {facts['initialised']} initialised, "
        f"{facts['unused']} unused tensors of the source",
        f"trainable      {facts['trainable_parameters']:,} of {facts['parameters']:,} parameters "
        f"({share:.2%}) in {facts['trainable_variables']} variables",
        f"batch norm     {norms}",
        f"device         {device}",
        f"images         {counts}; per class: {images}",
        f"training       {job.total:,} steps of {job.options.batch_size} images, {job.options.optimizer}, "
        f"learning rate {job.base_rate:g}",
        *(f"note           {note}" for note in (*plan.notes, *data.notes)),
    ]
