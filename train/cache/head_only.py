"""Training only the head on transfer values: the training graph has nothing of the net before the head.

    CACHE/frontiers/1c9b...json     for a net, image size and precision: the tensor that reaches its head

The first run that trains only a head finds that tensor in the net that computes the values, and notes what it depends
on. Any later run that trains only a head, even another one, finds the values by that note and does not build the net.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...formats.placing import write_text
from ...plan import RESTORING
from ..graph.batches import ValueTable
from ..graph.devices import Placement
from ..graph.frozen_prefix import Frontier, work_behind
from ..graph.restore import planned_tensors
from ..graph.towers import Model
from ..plan.job import Job
from .backbone import Backbone
from .lookup import Lookup
from .store import FrontierTensor, TransferCache, default_folder
from .transfer import Transfer, View, in_cache, uncached

TABLE_BYTES = 2e9  # most bytes of GPU memory for transfer values


class Note(NamedTuple):
    """The tensor that reaches the head, the variables that it depends on, and the multiplications per image that it
    takes."""

    part: FrontierTensor
    variables: tuple[str, ...]
    work: float


class Known(NamedTuple):
    """The values that reach the head: the cache, its rows for the images of a run, and the content of the note."""

    cache: TransferCache
    views: Sequence[View]
    variables: tuple[str, ...]
    work: float  # multiplications per image in the backbone

    @property
    def channels(self) -> int:
        """Number of values per image that reach the head."""
        return self.cache.tensors[0].shape[-1]

    def table(self, placement: Placement) -> ValueTable | None:
        """The table that holds the values on a GPU; None without a GPU or if they do not fit."""
        rows = len({name for view in self.views for name in view.names})
        if not placement.batches or rows * self.cache.row_bytes > TABLE_BYTES:
            return None
        return ValueTable(rows, self.channels, placement.batches)

    def transfer(self, model: Model, table: ValueTable | None) -> Transfer:
        """The transfer of these values to a graph of the head."""
        features, step = model.training.images, model.step
        left = work_behind(features, [step.train, step.loss, step.accuracy])
        share = left / (left + self.work)
        frontier = Frontier((features,), share, self.variables, self.work)
        fed = ((model.training.fed, model.training.labels),)
        return Transfer(frontier, fed, (model.inference.fed,), self.cache, tuple(self.views), table)


def recall(job: Job, placement: Placement, lookup: Lookup) -> Known | None:
    """The values that reach the head, if only the head trains and the cache has all of them; else None."""
    note = None if _in_parts(placement) or uncached(job) or not head_alone(job) else _read_note(job)
    known = note and _known(job, note, lookup)
    return known if known and not any(len(view.missing) for view in known.views) else None


def look_up(job: Job, placement: Placement, lookup: Lookup, backbone: Backbone) -> Known | None:
    """The values that reach the head, if only the head trains and the cache can hold them all; some may be missing.
    Builds the net unless a note leads to a complete set of values."""
    if _in_parts(placement) or uncached(job) or not head_alone(job):
        return None
    if known := recall(job, placement, lookup):
        return known
    found = backbone.frontier_at_head()
    if found is None:
        return None
    part, frontier = found
    return _known(job, Note(part, frontier.variables, frontier.work_saved), lookup)


def _in_parts(placement: Placement) -> bool:
    """Whether a batch is divided between devices or machines."""
    return len(placement.parts) > 1 or bool(placement.home)


def _known(job: Job, note: Note, lookup: Lookup) -> Known | None:
    planned = planned_tensors(job.plan, job.source.tensors, seed=job.options.seed)
    if not set(note.variables) <= set(planned):
        return None
    found = in_cache(job, planned, note.variables, [note.part], lookup)
    return None if isinstance(found, str) else Known(*found, note.variables, note.work)


def _read_note(job: Job) -> Note | None:
    try:
        note = json.loads(_path(job).read_text(encoding="utf-8"))
        part = FrontierTensor(note["part"], tuple(note["shape"]))
        return Note(part, tuple(note["variables"]), float(note["work"]))
    except (OSError, ValueError, KeyError, TypeError):  # no note yet, or not one of ours
        return None


def remember(job: Job, transfer: Transfer) -> None:
    """Writes the note for a transfer to the head. A folder that cannot be written is no error: the next run then has to
    find the tensor itself."""
    part, frontier, path = transfer.cache.tensors[0], transfer.frontier, _path(job)
    facts = {"net": job.net.identity, "part": part.name, "shape": part.shape, "variables": frontier.variables}
    with suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({**facts, "work": frontier.work_saved}, indent=1) + "\n")


def head_alone(job: Job) -> bool:
    """Whether only the head ever changes, and everything before it gets its values from the source."""
    if job.preprocessing is None or job.options.aux or job.options.unfreeze:
        return False
    place = f"{job.head.scope_in(job.net)}/"
    before = [row for row in job.plan.rows if row.action not in ("carry", "unused") and not row.name.startswith(place)]
    made = [row for row in before if row.action not in RESTORING and not _is_auxiliary(job, row.name)]
    return not made and all(name.startswith(place) for name in job.movable)


def _is_auxiliary(job: Job, name: str) -> bool:
    return any(name.startswith(f"{job.net.placed(scope)}/") for scope in job.net.auxiliary)


def _path(job: Job) -> Path:
    facts = [job.net.identity, job.pixels.image_size, job.frozen_in, 1]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    return Path(job.options.cache_dir or default_folder()) / "frontiers" / f"{name}.json"
