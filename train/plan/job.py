"""What a training run is asked to do, worked out before TensorFlow is loaded and before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from ...errors import RecipeError
from ...events import PhaseStart, Planned
from ...formats import Checkpoint, open_checkpoint
from ...formats.lazy import kept
from ...formats.storage import absolute, is_remote
from ...graphs.files import checkpoint_of
from ...nets import resolving
from ...nets.head import Head, variables_with_head
from ...nets.net import Net
from ...nets.opening import as_known
from ...nets.vectors import vectors_net
from ...plan import Plan
from ...tensors import Tensors
from ..data.arrays import holds_vectors
from ..data.examples import DataSet, steps_per_epoch
from ..data.loading import csv_path, data_set_of
from ..data.memory import in_memory
from ..data.preprocess import Preprocessing
from ..options.configuration import flag
from ..options.training import Choice, Options
from .phases import Phase
from .request import class_map_of, for_grey_images, for_net, make_head, make_phases, pixels_of, plans_of
from .schedule import base_rate, total_steps

NO_SOURCE = Checkpoint(Tensors(), "no checkpoint", "none")
VECTORS_HEAD = "Logits"  # scope of the small net that is trained on vectors
ABOUT_IMAGES = (
    "net", "graph", "input", "features", "logits", "feed", "image_size", "preprocessing", "augment", "augment_copies",
    "show_augmentation", "freeze_until", "aux", "bn", "adapt_input", "fold", "precision", "exif_orientation",
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
    def pixels(self) -> Preprocessing:
        """How an image becomes the net's input; only where the examples are images."""
        assert self.preprocessing is not None
        return self.preprocessing

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
            if row.action not in ("unused", "carry") and (row.trainable or _statistic_of(row.name) in updated)
        )


def _statistic_of(name: str) -> str | None:
    """The batch-norm layer that a moving mean or variance belongs to."""
    layer, _, last = name.rpartition("/")
    return layer if last in ("moving_mean", "moving_variance") else None


def make_job(options: Options, data: DataSet | None = None) -> Job:
    """Opens the source, finds the net, lists the data and makes the plan. `data` is a data set in memory, in place of
    what lies at `options.data`.

    Without a checkpoint the net is trained from nothing: it must be named, and every variable is initialised. On data
    that are vectors it is a head in a scope of its own and nothing else.
    Raises the error of whichever of them fails, and PlanError with every conflict when the plan has any.
    """
    folder = () if options.find_learning_rate or options.dry_run else ("train_dir",)
    if data is not None:
        options = replace(options, data=data.path)
    on_vectors = data.kind == "vectors" if data is not None else holds_vectors(options.data)
    options.require(*(() if options.net or options.graph or on_vectors else ("checkpoint",)), "data", *folder)
    options = for_vectors(options) if on_vectors else options
    # No links are followed: the folder in front of one is the name that the user knows, and SRC:scope stays.
    if options.labels_csv:
        options = replace(options, labels_csv=str(csv_path(options.labels_csv, options.data)))
    if options.graph and not options.checkpoint:
        options = replace(options, checkpoint=checkpoint_of(options.graph))
    paths = ("checkpoint", "graph", *(("data",) if data is None else ()), "labels", "labels_csv")
    given = [name for name in paths if getattr(options, name)]
    absolutes: dict[str, Any] = {name: absolute(getattr(options, name)) for name in given}
    options = replace(options, **absolutes)
    if options.net and options.reference.is_function:
        options = replace(options, net=resolving.absolute(options.net))
    source = open_checkpoint(options.checkpoint) if options.checkpoint else NO_SOURCE
    if is_remote(source.path):
        source = source._replace(tensors=kept(source.tensors))
    source, origin = as_known(source, options.reference, renamed=on_vectors or bool(options.rename))
    specs = source.tensors.specs()
    path = source.path if options.checkpoint else ""
    known = None if on_vectors else resolving.resolve(options.reference, specs, path, origin)
    if known and origin and origin.net:  # a run that goes on does not depend on what told it
        options = replace(options, net=known.name)
    data = data_set_of(options) if data is None else in_memory(data, options)
    preprocessing = None
    if known is None:
        net = vectors_net(len(data.train.read(0)))
    else:
        options = for_net(options, known)
        net, data = for_grey_images(known, data) if options.adapt_input else (known, data)
        how = {"augment": options.augment, "copies": options.augment_copies, "upright": options.exif_orientation}
        preprocessing = pixels_of(net, options.preprocessing or (origin and origin.pixels), options.image_size, **how)
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


def phase_starts(job: Job) -> Iterator[PhaseStart]:
    """When --unfreeze adds which scopes."""
    before: tuple[str, ...] = ()
    for phase in job.phases if job.options.unfreeze else ():
        step = phase.first_step(job.per_epoch)
        added = tuple(pattern for pattern in phase.trainable if pattern not in before)
        yield PhaseStart(step, added, reached=not step >= job.total > 0)
        before = phase.trainable


def planned_event(job: Job, device: str) -> Planned:
    """What listeners get before the first step."""
    data, options = job.data, job.options
    return Planned(
        plan=job.plan,
        net=job.net.title,
        labels=tuple(data.labels),
        source="" if job.source is NO_SOURCE else job.source.known_as,
        format=job.source.format,
        image_size=job.preprocessing.image_size if job.preprocessing else None,
        training=len(data.train),
        validation=len(data.validation),
        per_class=tuple(data.train.counts(job.classes)),
        steps=job.total,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        learning_rate=job.base_rate,
        device=device,
        behind=job.phases[0].trainable if options.freeze_until else (),
        phases=tuple(phase_starts(job)),
        notes=(*job.plan.notes, *data.notes),
    )
