"""Checks the net of a graph before training, and keeps a note so that the same values are checked only once.

CACHE/checked/5b0e...json      what passed the check: net, digest of its values, sides and channels of an image
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from ...formats.placing import write_text
from ...graphs.net import GraphPart
from ...tensors import Tensors
from ..graph.restore import check_graph, planned_tensors
from ..plan.job import Job
from .store import default_folder, digest_of


def check_net(job: Job) -> None:
    """Checks the net of a graph with its initial values: see `check_graph`. Other nets are not checked."""
    if job.net.graph is None:
        return
    tensors = planned_tensors(job.plan, job.source.tensors, seed=job.options.seed)
    note = None if job.options.cache == "off" else _note(job, job.net.graph, tensors)
    if note is not None and note[0].exists():
        return
    check_graph(job.net.graph, job.pixels, tensors)
    if note is not None:
        path, facts = note
        with suppress(OSError):  # if the folder cannot be written, the next run checks again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, facts)


def _note(job: Job, part: GraphPart, tensors: Tensors) -> tuple[Path, str]:
    """Path and content of the note: everything that the check depends on."""
    before = part.found.cut.graph.upstream([part.found.features])
    used = [each.key for each in part.found.variables if each.name in before and each.key in tensors]
    facts = {
        "net": job.net.identity,
        "values": digest_of({key: tensors[key] for key in used}),
        "image": [job.pixels.image_size, job.pixels.channels],
    }
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    folder = Path(job.options.cache_dir or default_folder()) / "checked"
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json", text
