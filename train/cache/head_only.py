"""Training the head alone on transfer values that are all there: nothing of the net before the head is built.

    CACHE/frontiers/1c9b...json     for a net, image size and precision: the tensor that reaches its head

The first run of a head finds that tensor in the graph of the whole net, and notes what it depends on. Any later run
that trains nothing but a head, whichever, finds the transfer values by that note alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from ...errors import OutputError
from ...formats.placing import write_text
from ...plan import RESTORING
from ..graph.batches import ValueTable
from ..graph.devices import Placement
from ..graph.frozen_prefix import Frontier, work_behind
from ..graph.restore import planned_tensors
from ..graph.towers import Model
from ..plan.job import Job
from .lookup import Lookup
from .store import FrontierTensor, TransferCache, default_folder
from .transfer import Transfer, View, cache_of, found_views, rows_of

TABLE_BYTES = 2e9  # of a GPU's memory that transfer values may take
_HANDED_ON = {"Squeeze", "Cast", "Identity", "Reshape"}  # operations that leave the values what they are


class Known(NamedTuple):
    """What reaches the head, for every image of a run: the cache, the rows in it, and what the note says."""

    cache: TransferCache
    views: Sequence[View]
    variables: tuple[str, ...]
    work: float  # multiplications an image that the backbone takes

    @property
    def channels(self) -> int:
        """Values that reach the head."""
        return self.cache.tensors[0].shape[-1]

    def table(self, placement: Placement) -> ValueTable | None:
        """The table that keeps the values on a GPU, if there is one and they fit."""
        rows = len(rows_of(self.views))
        if not placement.batches or rows * self.cache.row_bytes > TABLE_BYTES:
            return None
        return ValueTable(rows, self.channels, placement.batches)

    def transfer(self, model: Model, table: ValueTable | None) -> Transfer:
        """The same for the graph of the head that was built meanwhile."""
        features, step = model.training.images, model.step
        left = work_behind(features, [step.train, step.loss, step.accuracy])
        share = left / (left + self.work)
        frontier = Frontier((features,), share, self.variables, self.work)
        fed = ((model.training.fed, model.training.labels),)
        inference = (model.inference.fed,)
        return Transfer(frontier, fed, inference, inference, self.cache, tuple(self.views), table)


def recall(job: Job, placement: Placement, lookup: Lookup) -> Known | None:
    """What reaches the head, if the head is all that trains and every value is in the cache."""
    options = job.options
    if options.cache == "off" or len(placement.parts) > 1 or placement.home or not head_alone(job):
        return None
    try:
        note = json.loads(_note(job).read_text(encoding="utf-8"))
        part, variables, work = (
            FrontierTensor(note["part"], tuple(note["shape"])),
            tuple(note["variables"]),
            float(note["work"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not one of ours
        return None
    planned = planned_tensors(job.plan, job.source.tensors, seed=options.seed)
    if not set(variables) <= set(planned):
        return None
    try:
        cache = cache_of(job, lookup.weights(job.phase, planned, variables), [part])
        views = found_views(job, lookup.rows(cache))
    except (OutputError, OSError):
        return None
    return None if any(len(view.missing) for view in views) else Known(cache, views, variables, work)


def remember(job: Job, model: Model, transfer: Transfer) -> None:
    """Notes the frontier if it is what reaches the head. A folder that cannot be written to is no error: the next run
    finds the frontier itself."""
    frontier, path = transfer.frontier, _note(job)
    if not head_alone(job) or path.exists() or not _reaches_head(frontier.tensors, model.training.features):
        return
    part = transfer.cache.tensors[0]
    shape = (1, 1, part.shape[-1])
    if part.shape != shape:
        return
    note = {"net": job.net.identity, "part": part.name, "shape": shape, "variables": frontier.variables}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**note, "work": frontier.work_saved}, indent=1) + "\n")
    except OSError:
        return


def head_alone(job: Job) -> bool:
    """Whether the head is all that ever changes, and all before it has its values from the source."""
    if job.preprocessing is None or job.options.aux or job.options.unfreeze:
        return False
    place = f"{job.head.scope_in(job.net)}/"
    before = [row for row in job.plan.rows if row.action not in ("carry", "unused") and not row.name.startswith(place)]
    made = [row for row in before if row.action not in RESTORING and not _is_auxiliary(job, row.name)]
    return not made and all(name.startswith(place) for name in job.movable)


def _is_auxiliary(job: Job, name: str) -> bool:
    return any(name.startswith(f"{job.net.placed(scope)}/") for scope in job.net.auxiliary)


def _note(job: Job) -> Path:
    facts = [job.net.identity, job.pixels.image_size, job.frozen_in, 1]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    return Path(job.options.cache_dir or default_folder()) / "frontiers" / f"{name}.json"


def _reaches_head(tensors: Sequence[tf.Tensor], features: tf.Tensor) -> bool:
    """Whether the one tensor of the frontier is the features, but for its shape and type."""
    while features is not tensors[0] and features.op.type in _HANDED_ON:
        features = features.op.inputs[0]
    return len(tensors) == 1 and features is tensors[0]
