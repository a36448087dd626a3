"""Where a source lies, and what it was made from: a fresh start must not delete either.

Every checkpoint that is written here has a `.provenance.json` that names its sources; where that is gone, plan.json
of the run that it lies in does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import CheckpointError
from ...formats import Checkpoint, open_checkpoint
from ...formats.opening import split_scope
from ...formats.output import existing_files
from ...formats.provenance import ENDING, read_record, sources_of


def lineage(given: str, source: Checkpoint) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Path and files of the source, then of each source of it that is still there, however far back.

    `given` is what the user typed for it: the archive of files that were unpacked elsewhere, a link, SRC:scope.
    """
    typed = split_scope(given)[0]
    yield source.path, (*([] if Path(typed).is_dir() else [typed]), *source.files)
    waiting, seen = _made_from(source.path), {source.path}
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            if files := _files(path):
                yield path, files
            waiting += _made_from(path)


def lies_in(file: str, folder: Path) -> bool:
    """Whether a file is one of the folder's own, by its name or by what its links lead to."""
    path = Path(file)
    return folder.resolve() in (path.parent.resolve(), path.resolve().parent)


def _files(path: str) -> tuple[str, ...]:
    try:
        return open_checkpoint(path).known_files
    except CheckpointError:  # gone, or damaged: what is left of it counts
        return tuple(existing_files(path)) if Path(path).parent.is_dir() else ()


def _made_from(path: str) -> list[str]:
    """Paths of the sources of the checkpoint at `path`, as its sidecar says, else as its run does."""
    record = read_record(f"{path}{ENDING}") or read_record(Path(path).with_name("plan.json"))
    return [source for source in sources_of(record) if Path(source).is_absolute()]
