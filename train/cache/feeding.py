"""The graph of a run, and the source of its batches: photos from a pipeline, or transfer values that are fed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from ...errors import TrainingError
from ...events import OnEvent
from ...tensors import Tensors
from ..data.pipeline import Unreadable, make_batches
from ..graph.batches import Pipeline, ValueTable
from ..graph.devices import ONE_DEVICE, Placement, placement_of
from ..graph.native import candidate
from ..graph.objective import class_weights
from ..graph.progress import StopRequest
from ..graph.restore import assign, planned_tensors
from ..graph.towers import Model, TowerSpec, build_model, for_feeding, session_config
from ..options.training import AUTO, FLOAT32, Choice
from ..plan.job import Job
from ..plan.schedule import batch_norm_decay
from .backbone import Backbone
from .checked import check_net
from .head_only import Known, look_up, recall, remember
from .lookup import Lookup
from .transfer import Cached, OpenModel, Transfer, compare, fill, plan_transfer


class FedModel(NamedTuple):
    """A model and the pipelines of its training and validation batches. If the values that reach the head are `known`,
    only the head was built and there are no pipelines; on a GPU, `table` holds the values."""

    model: Model
    training: Pipeline | None
    validation: Pipeline | None
    known: Known | None
    table: ValueTable | None = None

    @property
    def pipelines(self) -> tuple[Pipeline, Pipeline]:
        """The pipelines of training and validation batches; only for a graph that reads images."""
        assert self.training is not None and self.validation is not None
        return self.training, self.validation

    def transfer(self, job: Job, planned: Tensors, lookup: Lookup) -> Transfer | str:
        """The transfer from the cache to this graph, or the reason why nothing is cached."""
        if self.known:
            return self.known.transfer(self.model, self.table)
        return plan_transfer(job, self.model, planned, lookup)

    def settled(self, transfer: Transfer | str, opened: OpenModel) -> tuple[Transfer | str, Job]:
        """The transfer and the job, with float32 instead of the precision chosen by --precision auto if that gives
        different values for a few of the images.

        Raises TrainingError if only the head was built and float32 values cannot be cached.
        """
        job = opened.job
        if isinstance(transfer, str):
            return transfer, job
        before, job = job, replace(job, frozen=compare(transfer, opened))
        if job.frozen_in == before.frozen_in:
            return transfer, job
        if self.known is None:
            return plan_transfer(job, self.model, opened.planned, opened.lookup), job
        known = look_up(job, ONE_DEVICE, opened.lookup, opened.backbone)
        if known is None:
            advice = "Try --precision float32, or a larger --cache-limit."
            raise TrainingError(f"{job.frozen.why}, and features in float32 cannot be cached", advice=advice)
        return known.transfer(self.model, self.table), job


def build_graph(
    job: Job, placement: Placement, known: Known | None, unreadable: Unreadable, *, step: int = 0, length: int
) -> FedModel:
    """Builds model and pipelines in the current graph, for training from `step` on, or only the head if the values that
    reach it are `known`. The decay of moving batch-norm statistics suits a run of `length` steps."""
    options = replace(job.options, batch_norm_decay=batch_norm_decay(job.options, length), precision=job.trained_in)
    train = job.data.train
    images = len(train) if job.data.many else None
    weights = class_weights(options.class_weights, job.data.labels, train.counts(job.classes), images)
    common: dict[str, Any] = {"class_weights": weights, "placement": placement}
    spec = TowerSpec(job.net, job.plan, options, job.classes, job.head)
    if known:
        table = known.table(placement)
        model = build_model(spec, features=known.channels, table=table, **common)
        return FedModel(model, None, None, known, table)
    how: dict[str, Any] = {"batch_size": options.batch_size, "unreadable": unreadable}
    training = make_batches(train, job.preprocessing, training=True, seed=options.seed, start_step=step, **how)
    validation = make_batches(job.data.validation, job.preprocessing, training=False, **how)
    model = build_model(spec, like=validation, **common)
    device = placement.batches
    pipelines = Pipeline(training, model.training_handle, device), Pipeline(validation, model.inference_handle, device)
    return FedModel(model, *pipelines, None)


@contextmanager
def trial(job: Job, length: int, on_event: OnEvent) -> Iterator[tuple[OpenModel, FedModel, Transfer | str]]:
    """A session like that of a run of `length` steps, restored by the plan; nothing of it is kept. `on_event` is told
    what the cache has."""
    options, placement, lookup = job.options, placement_of(job.options), Lookup()
    check_net(job)
    job = replace(job, frozen=choose_precision(job, placement, lookup))
    unreadable = Unreadable(total=len(job.data.train) + len(job.data.validation))
    with Backbone(job, placement) as backbone, tf.Graph().as_default(), tf.device(placement.home):
        known = look_up(job, placement, lookup, backbone)
        graph = build_graph(job, placement, known, unreadable, length=length)
        starts, variables = graph.model.initializers, graph.model.variables
        planned = planned_tensors(job.plan, job.source.tensors, seed=options.seed, initializers=starts)
        config, transfer = session_config(options.device, placement.cpus)[0], graph.transfer(job, planned, lookup)
        with tf.Session(config=for_feeding(config) if isinstance(transfer, Transfer) else config) as session:
            assign(session, {name: variables[name] for name in variables if name in planned}, planned)
            session.run([variable.initializer for name, variable in variables.items() if name not in planned])
            opened = OpenModel(job, graph.model, session, planned, backbone, unreadable, lookup)
            if isinstance(transfer, Transfer):
                on_event(transfer.found())
                transfer, job = graph.settled(transfer, opened)
                if options.precision == AUTO:
                    on_event(job.frozen.chosen())
            yield opened._replace(job=job), graph, transfer


def choose_precision(job: Job, placement: Placement, lookup: Lookup, recorded: str | None = None) -> Choice:
    """The precision of the frozen part of the net: as `recorded` if a run is continued, else as --precision says, or
    the native one; float32 if all values are cached in it."""
    if recorded:
        return Choice(recorded, "as the run began")
    options, images = job.options, len(job.data.train) + len(job.data.validation)
    if options.cache == "off" or job.preprocessing is None:
        return Choice(job.trained_in, "")
    if job.net.graph is not None:
        return Choice(FLOAT32, "a net from a graph keeps the graph's own types")
    choice = candidate(options.precision, options.device, images)
    there = Choice(FLOAT32, "that of the cached features")
    if choice.open and not recall(replace(job, frozen=choice), placement, lookup):
        return there if recall(replace(job, frozen=there), placement, lookup) else choice
    return choice


def from_cache(
    transfer: Transfer, opened: OpenModel, stop: StopRequest, on_event: OnEvent, *, step: int = 0
) -> tuple[Cached, Cached]:
    """Computes the missing transfer values; returns the batches of training (from `step` on) and of validation."""
    transfer = fill(transfer, opened, stop, on_event)
    if opened.model.training_handle is None:  # only the head was built
        remember(opened.job, transfer)
    transfer.send(opened.session)
    how = {"batch_size": opened.job.options.batch_size, "seed": opened.job.options.seed}
    return (
        Cached(transfer, transfer.fed, training=True, start_step=step, **how),
        Cached(transfer, [(*transfer.inference, opened.model.inference.labels)], training=False, **how),
    )
