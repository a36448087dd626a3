"""What a training run is asked to do, worked out before TensorFlow is loaded and before anything is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace

from ..errors import RecipeError
from ..formats import Checkpoint, open_checkpoint
from ..nets.head import Head, variables_with_head
from ..nets.opening import in_slims_names
from ..nets.registry import Net, find_net
from ..nets.vectors import vectors_net
from ..plan import Plan
from ..plan.batch_norm import POLICIES
from ..tensors import Tensors
from .arrays import holds_vectors
from .configuration import flag
from .data import csv_path, data_set_of
from .examples import DataSet, steps_per_epoch
from .native import Choice
from .options import Options
from .planning import class_map_of, for_grey_images, make_head, make_phases, plans_of
from .preprocess import Preprocessing
from .schedule import base_rate, total_steps
from .unfreezing import Phase

NO_SOURCE = Checkpoint(Tensors(), "no checkpoint", "none")
VECTORS_HEAD = "Logits"  # scope of the small net that is trained on vectors
ABOUT_IMAGES = (
    "net", "image_size", "preprocessing", "augment", "augment_copies", "show_augmentation", "freeze_until", "aux", "bn",
    "adapt_input", "fold", "precision", "exif_orientation",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Source, net, data and plan of a run. `options` has absolute paths, so that the run can be continued anywhere.

    With --unfreeze a run has several `phases`, each with a plan of its own; `phase` is the one that is trained.
    """

    options: Options
    source: Checkpoint
    net: Net
    data: DataSet
    preprocessing: Preprocessing | None  # None: the examples are vectors
    head: Head
    plans: tuple[Plan, ...]
    phases: tuple[Phase, ...]
    phase: int = 0
    frozen: Choice = Choice("float32", "")  # precision of what is frozen: in it transfer values are computed

    @property
    def frozen_in(self) -> str:
        """Precision of what is frozen."""
        return self.frozen.precision

    @property
    def trained_in(self) -> str:
        """Precision of the net that is trained."""
        return "float32" if self.options.precision == "auto" else self.options.precision

    @property
    def plan(self) -> Plan:
        """The plan of the phase."""
        return self.plans[self.phase]

    @property
    def until(self) -> int:
        """The step after which the phase is over."""
        later = [phase.first_step(self.per_epoch) for phase in self.phases[self.phase + 1 :]]
        return min([self.total, *later])

    def at_step(self, step: int) -> Job:
        """The same job in the phase that goes on after so many finished steps."""
        step = min(step, self.total - 1)  # a phase that begins after the last step never does
        begun = [i for i, each in enumerate(self.phases) if each.first_step(self.per_epoch) <= step]
        return replace(self, phase=max([0, *begun]))

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

    Without a checkpoint the net is trained from nothing: it must be named, and every variable is initialised. On data
    that are vectors it is a head in a scope of its own and nothing else.
    Raises the error of whichever of them fails, and PlanError with every conflict when the plan has any.
    """
    folder = () if options.find_learning_rate or options.dry_run else ("train_dir",)
    on_vectors = holds_vectors(options.data)
    options.require(*(() if options.net or on_vectors else ("checkpoint",)), "data", *folder)
    options = for_vectors(options) if on_vectors else options
    # abspath, not Path.resolve: the folder in front of a link is the name that the user knows, and SRC:scope stays.
    if options.labels_csv:
        options = replace(options, labels_csv=str(csv_path(options.labels_csv, options.data)))
    given = [name for name in ("checkpoint", "data", "labels", "labels_csv") if getattr(options, name)]
    options = replace(options, **{name: os.path.abspath(getattr(options, name)) for name in given})  # noqa: PTH100
    source = open_checkpoint(options.checkpoint) if options.checkpoint else NO_SOURCE
    source, origin = (source, None) if on_vectors or options.map else in_slims_names(source, options.net)
    specs = source.tensors.specs()
    net = None if on_vectors else find_net(options.net, specs, source.path)
    data = data_set_of(options)
    if on_vectors:
        net, preprocessing = vectors_net(len(data.train.read(0))), None
    else:
        own = (origin and origin.pixels) or net.preprocessing
        style, size = options.preprocessing or own, options.image_size or net.image_size
        net, data = for_grey_images(net, data) if options.adapt_input else (net, data)
        channels = "rgb" if net.input_channels == 3 else "grey"
        augmentation = {"augment": options.augment, "copies": options.augment_copies}
        preprocessing = Preprocessing(style, size, channels=channels, upright=options.exif_orientation, **augmentation)
    head = make_head(options)
    options = replace(options, class_map=class_map_of(options, data.labels), labels_of_source=None)
    phases = make_phases(options, net, variables_with_head(net, len(data.labels), head))
    plans = plans_of(options, specs, net, len(data.labels), origin)
    for plan in reversed(plans):  # the last phase trains most, so that its conflicts are all there are
        plan.checked()
    return Job(options, source, net, data, preprocessing, head, plans, phases)


def for_vectors(options: Options) -> Options:
    """The options of a run on vectors, whose head has a scope of its own. Raises RecipeError for each that is about
    images."""
    defaults = {found.name: found.default for found in fields(Options)}
    other = [flag(name) for name in ABOUT_IMAGES if getattr(options, name) != defaults[name]]
    if other:
        raise RecipeError(f"{' and '.join(other)}: not for vectors", path=options.data)
    return replace(options, head_scope=options.head_scope or VECTORS_HEAD)


def phase_lines(job: Job) -> list[str]:
    """What --freeze-until means, and when --unfreeze lets what train."""
    if job.options.freeze_until:
        return [f"trainable are  {', '.join(job.phases[0].trainable)}"]
    lines = []
    for before, phase in zip([(), *(phase.trainable for phase in job.phases)], job.phases, strict=False):
        step = phase.first_step(job.per_epoch)
        added = ", ".join(pattern for pattern in phase.trainable if pattern not in before)
        never = ", which the run does not reach" if step >= job.total > 0 else ""
        lines.append(f"unfreezing     from step {step:,}: {added}{never}")
    return lines if job.options.unfreeze else []


def opening_lines(job: Job, device: str) -> list[str]:
    """What is printed before the first step."""
    facts, plan, data = job.plan.summary, job.plan, job.data
    share = facts["trainable_parameters"] / max(1, facts["parameters"])
    modes = list(plan.batch_norm.values())
    norms = ", ".join(f"{modes.count(mode)} {mode}" for mode in POLICIES if mode in modes) or "none"
    images = " ".join(f"{label} {n}" for label, n in zip(data.labels, data.train.counts(job.classes), strict=True))
    counts = f"{len(data.train):,} to train on, {len(data.validation):,} to validate"
    if job.preprocessing is None:
        what, pixels = "vectors", ""
    else:
        what, pixels = "images", f", {job.preprocessing.image_size} x {job.preprocessing.image_size} pixels"
    return [
        f"net            {job.net.title}{pixels}",
        f"classes        {job.classes}: {', '.join(data.labels)}",
        *([f"source         {job.source.path} ({job.source.format})"] if job.source is not NO_SOURCE else []),
        f"plan           {facts['restored']} restored, {facts['initialised']} initialised, "
        f"{facts['unused']} unused tensors of the source",
        f"trainable      {facts['trainable_parameters']:,} of {facts['parameters']:,} parameters "
        f"({share:.2%}) in {facts['trainable_variables']} variables",
        *phase_lines(job),
        *([f"batch norm     {norms}"] if modes else []),
        f"device         {device}",
        f"{what:<14} {counts}; per class: {images}",
        f"training       {job.total:,} steps of {job.options.batch_size} {what}, {job.options.optimizer}, "
        f"learning rate {job.base_rate:g}",
        *(f"note           {note}" for note in (*plan.notes, *data.notes)),
    ]
