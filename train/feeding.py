"""The graph of a run, and where its batches come from: photos through a pipeline, or transfer values that are fed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from ..tensors import Tensors
from .batches import Pipeline
from .devices import Placement
from .head_only import Known, recall, remember
from .job import Job
from .model import Model, build_model
from .objective import class_weights
from .pipeline import Unreadable, make_batches
from .progress import StopRequest
from .schedule import batch_norm_decay
from .transfer import Cached, Transfer, fill, plan_transfer


class Graph(NamedTuple):
    """A model and pipelines of its training and validation batches; none where all that reaches the head is `known`,
    and the head alone was built."""

    model: Model
    training: Pipeline | None
    validation: Pipeline | None
    known: Known | None

    def transfer(self, job: Job, planned: Tensors) -> Transfer | str:
        """What is cached of this graph, or the reason why nothing is."""
        return self.known.transfer(self.model) if self.known else plan_transfer(job, self.model, planned)


def build_graph(job: Job, placement: Placement, unreadable: Unreadable, *, step: int = 0, length: int) -> Graph:
    """Builds all of it in the current graph, for training from `step` on. The moving statistics of batch norms suit a
    run of `length` steps."""
    options = replace(job.options, batch_norm_decay=batch_norm_decay(job.options, length))
    weights = class_weights(options.class_weights, job.data.labels, job.data.train.counts(job.classes))
    common = {"num_classes": job.classes, "head": job.head, "class_weights": weights, "placement": placement}
    known = recall(job, placement)
    if known:
        return Graph(build_model(job.net, job.plan, options, features=known.channels, **common), None, None, known)
    how = {"batch_size": options.batch_size, "unreadable": unreadable}
    training = make_batches(
        job.data.train, job.preprocessing, training=True, seed=options.seed, start_step=step, **how
    )  # fmt: skip
    validation = make_batches(job.data.validation, job.preprocessing, training=False, **how)
    model = build_model(job.net, job.plan, options, like=validation, **common)
    device = placement.batches
    pipelines = Pipeline(training, model.training_handle, device), Pipeline(validation, model.inference_handle, device)
    return Graph(model, *pipelines, None)


def from_cache(
    transfer: Transfer, job: Job, model: Model, session: tf.Session, unreadable: Unreadable, stop: StopRequest,
    *, step: int = 0,
) -> tuple[Cached, Cached]:  # fmt: skip
    """Computes the transfer values that are not there yet; the batches of training (from `step` on) and of validation
    are made of them."""
    transfer = fill(transfer, job, model, session, unreadable, stop)
    remember(job, model, transfer)
    how = {"batch_size": job.options.batch_size, "seed": job.options.seed}
    return (
        Cached(transfer, transfer.fed, training=True, start_step=step, **how),
        Cached(transfer, [(*transfer.inference, model.inference.labels)], training=False, **how),
    )
