"""Caches the output of a run's frozen prefix, and feeds a run from the cache.

`plan_transfer` decides what to cache before anything is computed, so that it can be printed; `fill` computes what the
cache lacks; `Cached` takes the place of a `Pipeline` and yields exactly the batches that the pipeline would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from ...errors import OutputError, TrainingError
from ...events import Advanced, CacheFound, OnEvent
from ...names import unrepeated
from ...tensors import Tensors
from ..data.examples import Examples, steps_per_epoch
from ..data.pipeline import Unreadable, epoch_order, make_batches
from ..graph.batches import ValueTable
from ..graph.devices import FILLER, part_sizes
from ..graph.extraction import Extraction
from ..graph.frozen_prefix import Frontier, find_frontier
from ..graph.native import CHECKED, compared
from ..graph.progress import StopRequest, told
from ..graph.towers import INFERENCE, TRAINING, Model, part_name
from ..options.training import FLOAT32, Choice
from ..plan.job import Job
from .backbone import Backbone, frontier_tensors
from .lookup import Lookup
from .store import FrontierTensor, Rows, TransferCache, default_folder, open_cache, parse_size


class OpenModel(NamedTuple):
    """The model of a job in a session with all variables restored. `planned` holds the values of the plan, `backbone`
    computes transfer values, and `unreadable` and `lookup` collect undecodable images and knowledge of the cache."""

    job: Job
    model: Model
    session: tf.Session
    planned: Tensors
    backbone: Backbone
    unreadable: Unreadable
    lookup: Lookup


class View(NamedTuple):
    """One view of examples: the name of each example's row in the cache, and its row (int64, -1: none yet).

    `number` is the number of the augmented view, None for images as in evaluation.
    """

    examples: Examples
    number: int | None
    names: tuple[str, ...]
    rows: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """int64: the examples without a row."""
        return np.flatnonzero(self.rows < 0)


@dataclass(frozen=True)
class Transfer:
    """What is cached, and where. `fed` holds, for each part of a batch, the frontier's tensors in its tower and its
    labels; `inference` holds the frontier's tensors in the inference tower.

    `views` are those of the training images, which the epochs take in turn, followed by the validation images. With a
    `table` the values are on the device, and only row numbers are fed.
    """

    frontier: Frontier
    fed: tuple[tuple[tf.Tensor, ...], ...]
    inference: tuple[tf.Tensor, ...]
    cache: TransferCache
    views: tuple[View, ...]
    table: ValueTable | None = None

    def maps(self) -> list[np.ndarray]:
        """Arrays to feed from, indexed by cache row: values of each frontier tensor, or row numbers of the table."""
        if self.table is None:
            return self.cache.maps()
        used = rows_of(self.views)
        numbers = np.zeros(used.max(initial=-1) + 1, np.int32)
        numbers[used] = np.arange(len(used))
        return [numbers]

    def send(self, session: tf.Session) -> None:
        """Fills the table, if there is one."""
        if self.table is not None:
            self.table.load(session, self.cache.maps()[0][rows_of(self.views)].astype(np.float32))

    def found(self) -> CacheFound:
        """The event that describes the cache before training."""
        places = [unrepeated(each.name.rsplit(":", 1)[0]) for each in self.cache.tensors]
        images = sum(len(view.names) for view in self.views)
        there = images - sum(len(view.missing) for view in self.views)
        views = 0 if self.views[0].number is None else len(self.views) - 1
        return CacheFound(images, there, self.cache.row_bytes, self.frontier.work_left, tuple(places), views)


def plan_transfer(job: Job, model: Model, planned: Tensors, lookup: Lookup) -> Transfer | str:
    """The transfer for this run, or the reason why nothing can be cached.

    Raises TrainingError for --cache require if nothing can be cached.
    """
    found = uncached(job) or _planned(job, model, planned, lookup)
    if isinstance(found, str) and job.options.cache == "require":
        raise TrainingError(f"--cache require: {found}")
    return found


def uncached(job: Job) -> str:
    """The reason why nothing of a job can be cached, regardless of what is frozen, or an empty string."""
    if job.options.cache == "off":
        return "--cache off"
    if job.preprocessing is None:
        return "the data are vectors already"
    if job.preprocessing.random and not job.preprocessing.copies:
        return "the images are another view in each epoch (--augment); --augment-copies K would cache K views of each"
    return ""


def _planned(job: Job, model: Model, planned: Tensors, lookup: Lookup) -> Transfer | str:
    step, inference = model.step, model.inference
    targets = [step.train, step.loss, step.accuracy]
    movable = job.movable
    frontier = find_frontier(model.training.images, targets, lambda name: name in movable or name not in planned)
    if frontier is None:
        return "too little of the net is frozen"
    twins = frontier.tensors if inference is model.training else _twins(frontier.tensors, INFERENCE)
    tensors = frontier_tensors(frontier, TRAINING)
    found = in_cache(job, planned, frontier.variables, tensors, lookup)
    return found if isinstance(found, str) else Transfer(frontier, fed_to_parts(frontier, model), twins, *found)


def in_cache(
    job: Job, planned: Tensors, variables: Sequence[str], tensors: Sequence[FrontierTensor], lookup: Lookup
) -> tuple[TransferCache, tuple[View, ...]] | str:
    """The cache of a frontier that depends on these variables, and its rows for the images of the job; or the reason
    why it cannot hold them all."""
    try:
        cache = cache_of(job, lookup.weights(job.phase, planned, variables), tensors)
        views = found_views(job, lookup.rows(cache))
        missing = {view.names[i] for view in views for i in view.missing}
        problem = cache.check_space(len(missing), parse_size(job.options.cache_limit))
    except (OutputError, OSError) as error:
        return str(error)
    if problem:
        release(views)
    return problem or (cache, views)


def cache_of(job: Job, weights: str, tensors: Sequence[FrontierTensor]) -> TransferCache:
    """The cache of these tensors; `weights` is the digest of the variables they depend on. Raises OutputError if it
    cannot be written."""
    facts = {
        "net": job.net.identity,
        "variables": weights,
        "preprocessing": job.pixels.plain.as_dict(),
        **({} if job.frozen_in == FLOAT32 else {"precision": job.frozen_in, "batch norms": "folded"}),
    }
    return open_cache(job.options.cache_dir or default_folder(), facts, tensors, job.options.cache_dtype)


def found_views(job: Job, rows: Rows) -> tuple[View, ...]:
    """Every view of the images of a run, with the existing rows. The row of a plain image is named by the image's
    digest, that of an augmented view also by everything that determines its random changes."""

    def view(examples: Examples, number: int | None) -> View:
        own = "" if number is None else f" {'/'.join(how.augment)} seed {job.options.seed} view {number}"
        names = tuple(digest + own for digest in examples.digested(lambda digest: digest + own not in rows))
        return View(examples, number, names, rows.find(names))

    how = job.pixels
    numbers: Iterable[int | None] = range(how.copies) if how.copies else [None]
    return (*(view(job.data.train, number) for number in numbers), view(job.data.validation, None))


def release(views: Sequence[View]) -> None:
    """Releases the photos that were kept in memory for computing their values."""
    for view in views:
        view.examples.release()


def rows_of(views: Sequence[View]) -> np.ndarray:
    """int64: the cache rows that the views use, each once, in order."""
    rows = np.unique(np.concatenate([view.rows for view in views]))
    return rows[rows >= 0]


def _twins(tensors: Sequence[tf.Tensor], tower: str) -> tuple[tf.Tensor, ...]:
    """The tensors of another tower that correspond to these of the training tower."""
    names = [tensor.name.removeprefix(f"{TRAINING}/") for tensor in tensors]
    return tuple(tensors[0].graph.get_tensor_by_name(f"{tower}/{name}") for name in names)


def fed_to_parts(frontier: Frontier, model: Model) -> tuple[tuple[tf.Tensor, ...], ...]:
    """The tensors fed for each part of a batch: those of the frontier in its tower, and its labels."""
    names = [tensor.name.removeprefix(f"{TRAINING}/") for tensor in frontier.tensors]
    return tuple(
        (*(model.graph.get_tensor_by_name(f"{part_name(part)}/{name}") for name in names), tower.labels)
        for part, tower in enumerate(model.parts)
    )


def compare(transfer: Transfer, opened: OpenModel) -> Choice:
    """The precision that --precision auto chose for a job, or float32 if it gives different values for a few of the
    images that are still to be computed."""
    job = opened.job
    view = next((view for view in transfer.views if len(view.missing)), None)
    if view is None or not job.frozen.open:
        return job.frozen
    both = []
    with opened.unreadable.raised():
        for precision in (FLOAT32, job.frozen_in):
            by = opened.backbone.computing(transfer.cache.tensors, precision, opened.planned)
            parts = rows_computed(by, view, view.missing[:CHECKED].tolist(), opened)
            both.append({name: row for names, rows in parts for name, *row in zip(names, *rows, strict=True)})
    if not both[0]:  # none of them can be decoded
        return job.frozen
    float32, lower = ([np.stack(rows) for rows in zip(*(way[name] for name in both[0]), strict=True)] for way in both)
    return compared(job.frozen, float32, lower)


def fill(transfer: Transfer, opened: OpenModel, stop: StopRequest, on_event: OnEvent) -> Transfer:
    """Computes the missing rows in batches of the training's size; equal images are computed once.
    Returns the transfer with all rows that can exist; on a request to stop, finished rows stay in the cache.
    """
    seen: set[str] = set()
    wanted: list[tuple[View, list[int]]] = []
    for view in transfer.views:
        first = {view.names[i]: i for i in reversed(view.missing.tolist()) if view.names[i] not in seen}
        wanted.append((view, sorted(first.values())))
        seen.update(first)
    if not seen:
        return transfer
    progress = told(on_event, "features", total=len(seen), unit="image")
    try:
        by = opened.backbone.computing(transfer.cache.tensors, opened.job.frozen_in, opened.planned)
        with transfer.cache.adding() as add, progress, opened.unreadable.raised():
            for view, chosen in wanted:
                for names, values in rows_computed(by, view, chosen, opened):
                    add(names, values)
                    on_event(Advanced("features", images=len(names), count=len(names)))
                    if stop.signal:
                        return transfer
    finally:
        opened.backbone.close()
        release(transfer.views)
    rows = opened.lookup.rows(transfer.cache)
    return replace(transfer, views=tuple(view._replace(rows=rows.find(view.names)) for view in transfer.views))


def rows_computed(
    by: Extraction, view: View, chosen: Sequence[int], opened: OpenModel
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and values, in float32, of the chosen examples of a view, batch by batch."""
    if not chosen:
        return
    job = opened.job
    examples = view.examples.take(chosen, kept=True)
    how: dict[str, Any] = {"view": view.number, "seed": job.options.seed, "batch_size": job.options.batch_size}
    how["unreadable"] = opened.unreadable
    for numbers, rows in by.run(lambda: make_batches(examples, job.preprocessing, training=False, **how)):
        yield [view.names[chosen[i]] for i in numbers], rows


class Cached:
    """Batches of transfer values, with the same views of the same images in the same order as a pipeline of the same
    seed.

    `fed` are the tensors that a batch is fed to: for each part of the batch the frontier's tensors and the labels.
    """

    def __init__(
        self, transfer: Transfer, fed: Sequence[tuple[tf.Tensor, ...]], *,
        batch_size: int, training: bool, seed: int = 0, start_step: int = 0,
    ) -> None:  # fmt: skip
        self.tensors = tuple(tensor for part in fed for tensor in part)
        self._parts = len(fed)
        self._types = [tensor.dtype.as_numpy_dtype for tensor in fed[0][:-1]]
        self._maps = transfer.maps()
        views = transfer.views[:-1] if training else transfer.views[-1:]
        rows = [(view.rows, view.examples.label_ids) for view in views]
        self._views = [_readable(*each) for each in rows] if training else rows
        self._batch_size, self._training, self._seed, self._start = batch_size, training, seed, start_step

    @property
    def there(self) -> np.ndarray:
        """int64: the examples that have values; those that could not be decoded have none."""
        return np.flatnonzero(self._views[0][0] >= 0)

    def start(self, session: tf.Session) -> Iterator[tuple[np.ndarray, ...]]:
        """In training, batches from that of `start_step` on, without end; otherwise all images once, in order."""
        for batch in self._chosen():
            yield tuple(value for part in self._divided(*batch) for value in self._values(*part))

    def _divided(self, rows: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and labels of the parts of a batch, divided like `split_batch` does in the graph."""
        labels = labels.astype(np.int32)
        ends = np.cumsum(part_sizes(len(rows), self._parts))[:-1]
        for part in zip(np.split(rows, ends), np.split(labels, ends), strict=True):
            yield part if len(part[0]) else (rows[-1:], np.full_like(labels[-1:], FILLER))

    def _values(self, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        values = (values[rows].astype(kind) for values, kind in zip(self._maps, self._types, strict=True))
        return (*values, labels)

    def _chosen(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and labels of each batch."""
        rows, labels = self._views[0]
        size, count = self._batch_size, len(rows)
        if not self._training:
            there = self.there
            yield from ((rows[there[i : i + size]], labels[there[i : i + size]]) for i in range(0, len(there), size))
            return
        step = self._start
        while True:
            epoch, first = divmod(step, steps_per_epoch(count, size))
            order = epoch_order(self._seed, epoch, count)
            rows, labels = self._views[epoch % len(self._views)]
            for i in range(first * size, count, size):
                yield rows[order[i : i + size]], labels[order[i : i + size]]
                step += 1


def _readable(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels with each undecodable image replaced by the next decodable one, as in the pipeline."""
    there = np.flatnonzero(rows >= 0)
    if not len(there):  # stopped before the first was computed
        return there, labels[:0]
    following = there[np.searchsorted(there, np.arange(len(rows))) % len(there)]
    return rows[following], labels[following]
