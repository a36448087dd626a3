"""Puts the frozen prefix of a run's graph into a cache, and feeds a run from it.

The plan of it is made before anything is computed (`plan_transfer`), so that it can be printed; `fill` computes what
the cache lacks; `Cached` stands where a `Pipeline` would, and yields the very batches that the pipeline would have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow.compat.v1 as tf

from ..errors import OutputError, TrainingError
from ..tensors import Tensors
from .batches import Pipeline
from .cache import Part, TransferCache, default_folder, digest_of, open_cache, parse_size
from .devices import part_sizes
from .examples import Examples, join, steps_per_epoch
from .frozen_prefix import Frontier, find_frontier
from .job import Job
from .model import INFERENCE, TRAINING, Model, part_name
from .pipeline import Unreadable, epoch_order, make_batches
from .progress import Progress


@dataclass(frozen=True)
class Transfer:
    """What is cached, and where. `inference` are the frontier's tensors in the inference tower."""

    frontier: Frontier
    inference: tuple[tf.Tensor, ...]
    cache: TransferCache
    missing: np.ndarray  # int64: which of the training and validation images, in this order, are not there yet
    images: int

    def line(self) -> str:
        """What is printed of it before training."""
        # The name scopes of slim's nets repeat the variable scope: InceptionV3/InceptionV3/Mixed_7c/...
        places = [re.sub(r"^(\w+)/\1/", r"\1/", part.name.rsplit(":", 1)[0]) for part in self.cache.parts]
        others = f" and {len(places) - 1} more" if len(places) > 1 else ""
        size, left = self.cache.row_bytes, self.frontier.work_left
        return (
            f"cache          {self.images - len(self.missing):,} of {self.images:,} images are there; "
            f"a step is left with {left:.2%} of the work\n"
            f"               {size:,} bytes an image, {self.images * size / 1e6:,.1f} MB in all, at {places[0]}{others}"
        )


def plan_transfer(job: Job, model: Model, planned: Tensors) -> Transfer | str:
    """What would be cached for this run, or the reason why nothing is.

    Raises TrainingError for --cache require where nothing can be cached.
    """
    found = "--cache off" if job.options.cache == "off" else _planned(job, model, planned)
    if isinstance(found, str) and job.options.cache == "require":
        raise TrainingError(f"--cache require: {found}")
    return found


def _planned(job: Job, model: Model, planned: Tensors) -> Transfer | str:
    if job.preprocessing.random:
        return "the images are another view in each epoch (--augment)"
    step, inference = model.step, model.inference
    targets = [step.train, step.loss, step.accuracy]
    frontier = find_frontier(model.training.images, targets, lambda name: name in job.movable or name not in planned)
    if frontier is None:
        return "too little of the net is frozen"
    twins = tuple(_twin(tensor) for tensor in frontier.tensors) if inference is not model.training else frontier.tensors
    parts = [Part(tensor.name.removeprefix(f"{TRAINING}/"), tuple(tensor.shape[1:])) for tensor in frontier.tensors]
    facts = {
        "net": job.net.name,
        "variables": digest_of({name: planned[name] for name in frontier.variables}),
        "preprocessing": job.preprocessing.as_dict(),
        **({} if job.options.precision == "float32" else {"precision": job.options.precision}),
    }
    try:
        cache = open_cache(job.options.cache_dir or default_folder(), facts, parts, job.options.cache_dtype)
        examples = join([job.data.train, job.data.validation])
        rows = cache.find(examples.digests)
        missing = np.flatnonzero(rows < 0)
        problem = cache.check_space(len(missing), parse_size(job.options.cache_limit))
    except (OutputError, OSError) as error:
        return str(error)
    return problem or Transfer(frontier, twins, cache, missing, len(examples))


def _twin(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor of the inference tower that is the same as this one of the training tower."""
    return tensor.graph.get_tensor_by_name(f"{INFERENCE}/{tensor.name.removeprefix(f'{TRAINING}/')}")


def fed_to_parts(transfer: Transfer, model: Model) -> list[tuple[tf.Tensor, ...]]:
    """For each part of a batch the tensors that are fed: those of the frontier in its tower, and its labels."""
    names = [tensor.name.removeprefix(f"{TRAINING}/") for tensor in transfer.frontier.tensors]
    return [
        (*(model.graph.get_tensor_by_name(f"{part_name(part)}/{name}") for name in names), tower.labels)
        for part, tower in enumerate(model.parts)
    ]


def fill(transfer: Transfer, job: Job, model: Model, session: tf.Session, unreadable: Unreadable) -> None:
    """Computes the rows that are missing, in batches as large as those of training; equal images are computed once."""
    examples = join([job.data.train, job.data.validation])
    digests = examples.digests
    first = {digests[i]: i for i in reversed(transfer.missing.tolist())}
    wanted = examples.take(sorted(first.values()))
    if not len(wanted):
        return
    names = wanted.digests
    batches = make_batches(
        wanted, job.preprocessing, training=False, batch_size=job.options.batch_size, unreadable=unreadable
    )
    with model.graph.as_default(), transfer.cache.adding() as add:
        pipeline = Pipeline(batches, model.inference_handle)
        fetches = [model.index, *transfer.inference]
        run = session.make_callable(fetches, feed_list=list(pipeline.tensors))
        with Progress("transfer values", total=len(wanted), unit="image") as progress, unreadable.raised():
            for values in pipeline.start(session):
                try:
                    index, *rows = run(*values)
                except tf.errors.OutOfRangeError:
                    break
                add([names[i] for i in index], rows)
                progress.step(len(index), count=len(index))


class Cached:
    """Batches of transfer values: the same images in the same order as the pipeline of the same seed gives.

    `fed` are the tensors that a batch goes to: the frontier's and the labels, once for each part of the batch.
    """

    def __init__(
        self, transfer: Transfer, examples: Examples, fed: Sequence[tuple[tf.Tensor, ...]], *,
        batch_size: int, training: bool, seed: int = 0, start_step: int = 0,
    ) -> None:  # fmt: skip
        self.tensors = tuple(tensor for part in fed for tensor in part)
        self._parts = len(fed)
        self._types = [tensor.dtype.as_numpy_dtype for tensor in fed[0][:-1]]
        self._maps = transfer.cache.maps()
        rows = transfer.cache.find(examples.digests)
        self._rows, self._labels = _readable(rows, examples.label_ids) if training else (rows, examples.label_ids)
        self._batch_size, self._training, self._seed, self._start = batch_size, training, seed, start_step

    def start(self, session: tf.Session) -> Iterator[tuple[np.ndarray, ...]]:
        """Training: from the batch of `start_step` on, without end. Else: all images once, in order."""
        for chosen in self._chosen():
            ends = np.cumsum(part_sizes(len(chosen), self._parts))
            yield tuple(value for part in np.split(chosen, ends[:-1]) for value in self._values(part))

    def _values(self, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = self._rows[chosen]
        values = (values[rows].astype(kind) for values, kind in zip(self._maps, self._types, strict=True))
        return (*values, self._labels[chosen])

    def _chosen(self) -> Iterator[np.ndarray]:
        size, count = self._batch_size, len(self._rows)
        if not self._training:
            there = np.flatnonzero(self._rows >= 0)
            yield from (there[i : i + size] for i in range(0, len(there), size))
            return
        per_epoch = steps_per_epoch(count, size)
        step = self._start
        while True:
            epoch, first = divmod(step, per_epoch)
            order = epoch_order(self._seed, epoch, count)
            for i in range(first * size, count, size):
                yield order[i : i + size]
                step += 1


def _readable(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels where an image that cannot be decoded is replaced by the next that can, as the pipeline does."""
    there = np.flatnonzero(rows >= 0)
    following = there[np.searchsorted(there, np.arange(len(rows))) % len(there)]
    return rows[following], labels[following]
