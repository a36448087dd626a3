"""--dry-run of ckpt-finetune: what a run would take, from a few batches of each kind. Nothing is written.

costs = dry_run(Options(checkpoint="inception_v3.ckpt", data="photos", trainable=("Logits",)))
costs.seconds, costs.disk    (27.4, {"features": 11468800, "checkpoints": 402653184})
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from ...events import OnEvent, ignore
from ..cache.feeding import FedModel, trial
from ..cache.transfer import Cached, OpenModel, Transfer, rows_computed
from ..data.examples import DataSet
from ..graph.towers import session_config
from ..options.training import Options
from ..plan.job import make_job, planned_event
from ..use.costs import MEASURED, WARMING, Costs, Pace, gpu_memory, pace
from .run import bytes_of_checkpoints


def dry_run(options: Options, on_event: OnEvent = ignore, data: DataSet | None = None) -> Costs:
    """Measures a run of ckpt-finetune; `on_event` is told what the run would tell before its first step.

    Raises what `finetune` would raise before its first step.
    """
    job = make_job(options, data)
    on_event(planned_event(job, session_config(options.device)[1]))
    with trial(job, job.total, on_event) as (opened, graph, transfer), opened.unreadable.raised():
        measured = Measured(opened, graph, transfer)
        paces, variables = measured.paces(), graph.model.variables
    row_bytes = transfer.cache.row_bytes if isinstance(transfer, Transfer) else 0
    whole, best = bytes_of_checkpoints(opened.job, variables)
    disk = {"features": measured.missing * row_bytes, "checkpoints": job.options.keep * whole + best}
    return Costs(paces, disk, gpu_memory=gpu_memory(options.device))


class Measured:
    """Batches of a run whose graph is built and restored."""

    def __init__(self, opened: OpenModel, graph: FedModel, transfer: Transfer | str) -> None:
        self.opened, self.job, self.session = opened, opened.job, opened.session
        self.graph, self.transfer = graph, transfer
        views = () if isinstance(transfer, str) else transfer.views
        self.missing = len({view.names[i] for view in views for i in view.missing})

    def paces(self) -> dict[str, Pace]:
        """Of computing transfer values, of steps, of evaluations."""
        job, options = self.job, self.job.options
        evaluations = -(-job.total // (options.eval_steps or job.per_epoch)) + 1  # and one for the report
        found = {}
        if self.missing:
            found["features"] = Pace(self.missing, pace(self.computed()))
        images = int(len(job.data.train) * job.total / job.per_epoch)
        if images:
            found["training"] = Pace(images, pace(self.steps()))
        if job.data.validation:
            found["evaluation"] = Pace(evaluations * len(job.data.validation), pace(self.evaluated()))
        return found

    def computed(self) -> Iterator[int]:
        """Computes transfer values; yields how many images a batch had."""
        assert isinstance(self.transfer, Transfer)  # something is missing of it
        view = max(self.transfer.views, key=lambda view: len(view.missing))
        chosen = view.missing[: (WARMING + MEASURED) * self.job.options.batch_size].tolist()
        by = self.opened.backbone.computing(self.transfer.cache.tensors, self.job.frozen_in, self.opened.planned)
        for names, _ in rows_computed(by, view, chosen, self.opened):
            yield len(names)

    def steps(self) -> Iterator[int]:
        """Trains; nothing of it is saved."""
        step = self.graph.model.step
        batches, feeds = self.batches(training=True)
        one_step = self.session.make_callable([step.train, step.loss], feed_list=[step.learning_rate, *feeds])
        for values in batches:
            one_step(self.job.base_rate, *values)
            yield self.job.options.batch_size

    def evaluated(self) -> Iterator[int]:
        """Loss of validation images."""
        tower = self.graph.model.inference
        batches, feeds = self.batches(training=False)
        losses = self.session.make_callable(tower.losses, feed_list=list(feeds))
        try:
            for values in batches:
                yield len(losses(*values))
        except tf.errors.OutOfRangeError:
            return

    def batches(self, *, training: bool) -> tuple[Iterable[tuple[Any, ...]], tuple[tf.Tensor, ...]]:
        """Batches as the run will have them, and the tensors that they are fed to: from photos, from the cache, or, as
        long as it is empty, zeros."""
        if isinstance(self.transfer, str):
            pipeline = self.graph.pipelines[0 if training else 1]
            return pipeline.start(self.session), pipeline.tensors
        labels = self.graph.model.inference.labels
        fed = self.transfer.fed if training else [(*self.transfer.inference, labels)]
        self.transfer.send(self.session)
        if not self.missing:
            cached = Cached(self.transfer, fed, batch_size=self.job.options.batch_size, training=training)
            return cached.start(self.session), cached.tensors
        size = -(-self.job.options.batch_size // len(fed))  # of the largest part of a batch
        tensors = tuple(tensor for part in fed for tensor in part)
        one = tuple(np.zeros((size, *each.shape.as_list()[1:]), each.dtype.as_numpy_dtype) for each in tensors)
        return itertools.repeat(one), tensors
