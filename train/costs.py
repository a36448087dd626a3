"""What a run will take, from a few batches of it: --dry-run. Nothing is written.

    costs = dry_run(Options(checkpoint="inception_v3.ckpt", data="photos", trainable=("Logits",)))
    costs.seconds, costs.disk    (27.4, {"transfer values": 11468800, "checkpoints": 402653184})

The first batches of each kind make the graph ready and are not counted. Starting TensorFlow and building the graph,
saving and the report are not part of the estimate.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from ..report import size
from .devices import visible_gpus

WARMING, MEASURED = 2, 4  # batches
LONG = 20.0  # seconds after which nothing more is measured of one kind


class Pace(NamedTuple):
    """Images that are worked on, and how many of them in a second."""

    images: int
    images_per_second: float

    @property
    def seconds(self) -> float:
        return self.images / self.images_per_second


@dataclass(frozen=True)
class Costs:
    """What was measured. `paces`: what is done with so many images; `disk`: bytes by what they are for; `memory`: the
    most that this process had, in bytes; `gpu_memory`: the same on the first GPU, None without one."""

    paces: Mapping[str, Pace]
    disk: Mapping[str, int]
    memory: int = field(default_factory=lambda: peak_memory())
    gpu_memory: int | None = None

    @property
    def seconds(self) -> float:
        """Of all images together."""
        return sum(pace.seconds for pace in self.paces.values())

    def lines(self) -> list[str]:
        """What is printed."""
        found = [
            f"{what:<15}{pace.images:,} images, {pace.images_per_second:,.1f} images/s: {duration(pace.seconds)}"
            for what, pace in self.paces.items()
        ]
        found.append(f"{'in all':<15}{duration(self.seconds)}, besides starting, saving and the report")
        on_gpu = "" if self.gpu_memory is None else f", {size(self.gpu_memory)} of the GPU"
        found.append(f"{'memory':<15}{size(self.memory)}{on_gpu}")
        found += [f"{'disk':<15}{size(taken)} for {what}" for what, taken in self.disk.items() if taken]
        return found

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        paces = {what: {**pace._asdict(), "seconds": pace.seconds} for what, pace in self.paces.items()}
        return {**asdict(self), "paces": paces, "seconds": self.seconds}


def dry_run(options: object, say: Callable[[str], None] = lambda line: None) -> Costs:
    """Measures a run of ckpt-finetune; `say` is given what the run would print before its first step.

    Raises what `finetune` would raise before its first step.
    """
    from .feeding import trial
    from .job import make_job, opening_lines
    from .model import session_config
    from .transfer import Transfer

    job = make_job(options)
    for line in opening_lines(job, session_config(options.device)[1]):
        say(line)
    with trial(job, job.total, say) as (job, graph, transfer, session, unreadable), unreadable.raised():
        measured = Measured(job, graph, transfer, session, unreadable)
        paces, variables = measured.paces(), graph.model.variables
    row_bytes = transfer.cache.row_bytes if isinstance(transfer, Transfer) else 0
    disk = {"transfer values": measured.missing * row_bytes, "checkpoints": disk_of_checkpoints(job, variables)}
    return Costs(paces, disk, gpu_memory=gpu_memory(options.device))


class Measured:
    """Batches of a run whose graph is built and restored."""

    def __init__(self, job: object, graph: object, transfer: object, session: object, unreadable: object) -> None:
        self.job, self.graph, self.transfer = job, graph, transfer
        self.session, self.unreadable = session, unreadable
        views = () if isinstance(transfer, str) else transfer.views
        self.missing = len({view.names[i] for view in views for i in view.missing})

    def paces(self) -> dict[str, Pace]:
        """Of computing transfer values, of steps, of evaluations."""
        job, options = self.job, self.job.options
        evaluations = -(-job.total // (options.eval_steps or job.per_epoch)) + 1  # and one for the report
        found = {}
        if self.missing:
            found["transfer values"] = Pace(self.missing, pace(self.computed()))
        images = int(len(job.data.train) * job.total / job.per_epoch)
        if images:
            found["training"] = Pace(images, pace(self.steps()))
        if job.data.validation:
            found["evaluation"] = Pace(evaluations * len(job.data.validation), pace(self.evaluated()))
        return found

    def computed(self) -> Iterator[int]:
        """Computes transfer values; yields how many images a batch had."""
        from .transfer import rows_computed

        view = max(self.transfer.views, key=lambda view: len(view.missing))
        chosen = view.missing[: (WARMING + MEASURED) * self.job.options.batch_size].tolist()
        with self.graph.model.graph.as_default():
            how = (self.job, self.graph.model, self.session, self.unreadable)
            for names, rows in rows_computed(self.transfer.computed, view, chosen, *how):
                self.rows = rows
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
        import tensorflow.compat.v1 as tf

        tower = self.graph.model.inference
        batches, feeds = self.batches(training=False)
        losses = self.session.make_callable(tower.losses, feed_list=list(feeds))
        try:
            for values in batches:
                yield len(losses(*values))
        except tf.errors.OutOfRangeError:
            return

    def batches(self, *, training: bool) -> tuple[Iterable[tuple], tuple]:
        """Batches as the run will have them, and the tensors that they are fed to: from photos, from the cache, or, as
        long as it is empty, the values that were computed here again and again."""
        from .transfer import Cached

        if isinstance(self.transfer, str):
            pipeline = self.graph.training if training else self.graph.validation
            return pipeline.start(self.session), pipeline.tensors
        labels = self.graph.model.inference.labels
        fed = self.transfer.fed if training else [(*self.transfer.inference, labels)]
        if not self.missing:
            self.transfer.send(self.session)
            cached = Cached(self.transfer, fed, batch_size=self.job.options.batch_size, training=training)
            return cached.start(self.session), cached.tensors
        size = -(-self.job.options.batch_size // len(fed))  # of the largest part of a batch
        rows = [np.resize(values, (size, *values.shape[1:])) for values in self.rows]
        tensors = tuple(tensor for part in fed for tensor in part)
        values = [*rows, np.zeros(size)] * len(fed)
        one = [value.astype(t.dtype.as_numpy_dtype) for value, t in zip(values, tensors, strict=True)]
        return iter(lambda: one, None), tensors


def pace(batches: Iterable[int]) -> float:
    """Images a second of an iterator that works on a batch each time it is asked; the first ones are not counted,
    unless there are no others."""
    began = start = time.monotonic()
    images = everything = 0
    for number, count in enumerate(batches):
        everything += count
        if number < WARMING:
            start = time.monotonic()
        else:
            images += count
        if number + 1 >= WARMING + MEASURED or time.monotonic() - began > LONG:
            break
    now = time.monotonic()
    return images / (now - start) if images else everything / max(now - began, 1e-9)


def disk_of_checkpoints(job: object, variables: Mapping[str, object]) -> int:
    """Bytes of the checkpoints that a run keeps in its end: the newest ones and the best."""
    from .run import bytes_of_checkpoints

    whole, best = bytes_of_checkpoints(job, variables)
    return job.options.keep * whole + best


def peak_memory() -> int:
    """Bytes that this process had at most. Kilobytes on Linux, bytes on macOS (getrusage(2) of each)."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def gpu_memory(device: str) -> int | None:
    """Bytes of the first GPU that TensorFlow had at most; None without one."""
    if not visible_gpus(device):
        return None
    import tensorflow

    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]


def duration(seconds: float) -> str:
    """
    >>> duration(0.4), duration(59.6), duration(754), duration(7300)
    ('0.4 s', '60 s', '12:34 min', '2:01:40 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
