"""Verifies a checkpoint: its structure, every checksum, the sizes of its files; and salvages the good tensors.

Values are read once, in file order, by several threads, since computing a checksum releases Python's lock. Memory stays
flat: numbers are read through a window on their file, other tensors one by one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock, Thread
from typing import Any, BinaryIO, NamedTuple

from .errors import CheckpointError, RemoteError, UnsupportedError
from .formats import damaged
from .formats.checkpoint import Checkpoint
from .formats.checksum import crc32c, mask
from .formats.object_graph import GRAPH_KEY, attributes, rekeyed
from .formats.opening import split_scope, under_scope
from .formats.storage import is_remote
from .tensors import Stored, Tensor, from_array

_WINDOW = 16 << 20  # bytes of a file that a thread maps at a time
_TASK = 32 << 20  # bytes in a thread's unit of work
_TASK_TENSORS = 1000
_MIXED_SHARE = 0.5  # share of a data file's tensors; so many wrong checksums are no accident of a disk or a network


class Finding(NamedTuple):
    """One problem: the file, the tensor (None: the file as a whole), and a description."""

    file: str
    tensor: str | None
    what: str


class Verification(NamedTuple):
    """The result of `verify`. `good` and `lost` are names of tensors; `notes` are sentences on harmless oddities.

    `checkpoint` holds everything that could be opened, under the names in the file.
    """

    path: str
    findings: tuple[Finding, ...]
    good: tuple[str, ...]
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    checkpoint: Checkpoint

    def __repr__(self) -> str:
        found = f"{len(self.findings):,} findings, {len(self.good):,} tensors good, {len(self.lost):,} lost"
        return f"<verification of {self.path}: {found}>"

    @property
    def summary(self) -> dict[str, Any]:
        """Format, numbers of all, good and lost tensors, bytes of the good ones, findings."""
        specs = self.checkpoint.tensors.specs()
        return {
            "path": self.path,
            "format": self.checkpoint.format,
            "tensors": len(self.good) + len(self.lost),
            "good": len(self.good),
            "lost": len(self.lost),
            "bytes": sum(specs[name].nbytes or 0 for name in self.good),
            "findings": len(self.findings),
        }

    def salvage(
        self, path: str | os.PathLike[str], *, format: str = "v2", force: bool = False, command: str = "salvage"
    ) -> tuple[str, ...]:
        """Writes all good tensors to a new checkpoint, and returns its files. Its provenance records `command` and the
        lost tensors.

        Raises OutputError like `save_checkpoint`, and UnsupportedError if no tensor is good.
        """
        if not self.good:
            raise UnsupportedError("no tensor is good, so there is nothing to save", path=self.path)
        from .formats.output import save_checkpoint

        kept = {name: self.checkpoint.tensors[name] for name in self.good}
        if GRAPH_KEY in kept:
            kept[GRAPH_KEY] = _graph_of(kept)
        lost = dict.fromkeys(self.lost, "lost")
        provenance = {"source": self.checkpoint, "command": command, "left_out": lost}
        return save_checkpoint(kept, path, format=format, force=force, provenance=provenance)


def verify(source: str | os.PathLike[str], *, threads: int | None = None) -> Verification:
    """Checks the structure and every checksum of a source.

    This also opens sources that `open_checkpoint` refuses as a whole: a truncated V1 file or V2 index, or a checkpoint
    with a missing shard. For `SRC:scope` only the scope's tensors are checked. `threads` defaults to the number of
    processors, at most 8.
    Raises NotACheckpointError if there is no trace of a checkpoint, and RemoteError for a URL that cannot be read.
    """
    damage: list[CheckpointError] = []
    whole, scope = split_scope(os.fspath(source))
    checkpoint = damaged.open_damaged(whole, damage.append)
    if scope:
        checkpoint = checkpoint._replace(tensors=under_scope(checkpoint.tensors, scope, whole))
    if checkpoint.format == "v1":
        damage += [error for path in checkpoint.files for error in damaged.unlisted_blocks(path)]
    problems = check_tensors(checkpoint.tensors, threads or min(8, os.cpu_count() or 1))
    whole_files, notes = _data_files(checkpoint, problems) if checkpoint.format == "v2" else ([], [])
    if checkpoint.format not in ("v1", "v2", "npz", "keras", "torch"):
        notes.append(f"files of the format {checkpoint.format} have no checksums: only the structure was checked")
    return Verification(
        path=checkpoint.known_as,
        findings=(*(_finding(error, checkpoint) for error in damage), *whole_files,
                  *(_finding(error, checkpoint, name) for name, error in problems.items())),
        good=tuple(name for name in checkpoint.tensors if name not in problems),
        lost=tuple(problems),
        notes=tuple(notes),
        checkpoint=checkpoint,
    )  # fmt: skip


def check_tensors(tensors: Mapping[str, Tensor], threads: int = 1) -> dict[str, CheckpointError]:
    """Name -> error, for the tensors whose bytes are damaged."""
    tasks, lock = _tasks(tensors), Lock()
    problems: dict[str, CheckpointError] = {}
    failures: list[BaseException] = []

    def work() -> None:  # plain threads: importing concurrent.futures takes longer than checking a small file
        try:
            while not failures:
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                problems.update(_check(task, tensors))
        except BaseException as error:  # raised again by the caller's thread
            failures.append(error)

    workers = [Thread(target=work) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    work()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return {name: problems[name] for name in tensors if name in problems} if problems else {}


def _tasks(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The names in groups for one thread each, in the order of their bytes in the files."""
    places = []
    for number, name in enumerate(tensors):
        tensor = tensors[name]
        first = _parts(tensor)[0]
        place = (first.stored.path, first.stored.offset) if first.stored else ("", number)
        places.append((place, name, tensor.spec.nbytes or 0))
    places.sort()
    task: list[str] = []
    size = 0
    for _, name, nbytes in places:
        task.append(name)
        size += nbytes
        if size >= _TASK or len(task) >= _TASK_TENSORS:
            yield task
            task, size = [], 0
    if task:
        yield task


def _check(names: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, CheckpointError]:
    problems = {}
    opened: dict[str, BinaryIO] = {}
    try:
        for name in names:
            try:
                for part in _parts(tensors[name]):
                    stored = part.stored
                    if stored and is_remote(stored.path):
                        _read(part)
                        continue
                    if stored and stored.path not in opened:
                        opened[stored.path] = open(stored.path, "rb", buffering=0)  # noqa: SIM115, PTH123
                    if not stored or part.spec.nbytes is None or not _is_good(stored, opened[stored.path]):
                        part.load()  # raises the error, with file and tensor
            except RemoteError:  # nothing is known about the values
                raise
            except CheckpointError as error:
                problems[name] = error.at(tensor=name)
    finally:
        for file in opened.values():
            file.close()
    return problems


def _read(tensor: Tensor) -> None:
    """Reads the values, numbers piece by piece. Raises an error if they are damaged."""
    if tensor.spec.nbytes is None:
        tensor.load()
        return
    for _ in tensor.blocks():
        pass


def _is_good(stored: Stored, file: BinaryIO) -> bool:
    """Whether the checksum of the bytes in the file matches the one in the index."""
    crc, offset, end = 0, stored.offset, stored.offset + stored.size
    while offset < end:
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = min(end - start, _WINDOW)
        with (
            mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start) as window,
            memoryview(window) as view,
            view[offset - start :] as part,
        ):
            crc = crc32c(part, crc)
        offset = start + length
    return mask(crc) == stored.crc32c


def _graph_of(kept: Mapping[str, Tensor]) -> Tensor:
    """The object graph without the lost tensors, since `tf.train.Checkpoint.restore` fails for a missing key."""
    import numpy as np

    graph = kept[GRAPH_KEY].load().item()
    gone = {key: None for _, key in attributes(graph) if key and key not in kept}
    return from_array(np.array(rekeyed(graph, gone), object)) if gone else kept[GRAPH_KEY]


def _finding(error: CheckpointError, checkpoint: Checkpoint, tensor: str | None = None) -> Finding:
    what = f"{error.fact}. {error.advice}" if error.advice and tensor is None else error.fact
    return Finding(error.path or checkpoint.path, tensor or error.tensor, what)


def _data_files(checkpoint: Checkpoint, problems: Mapping[str, CheckpointError]) -> tuple[list[Finding], list[str]]:
    """Problems of the data files of a V2 checkpoint as a whole, and notes on harmless oddities."""
    findings, notes = [], []
    for path, size, needed in damaged.data_files(checkpoint.path):
        advices = [error.advice for error in problems.values() if error.path == path and error.advice]
        if size is None:
            findings.append(Finding(path, None, "is missing; the tensors in it are lost"))
        elif advices:
            findings.append(Finding(path, None, advices[0].rstrip(".")))
        elif _is_of_another_save(path, checkpoint, problems):
            what = "most checksums differ although the size fits: the index and this file are of different saves"
            findings.append(Finding(path, None, f"{what}; put the two of one step together"))
        elif size > needed:
            notes.append(f"{path} has {size - needed:,} bytes more than the index accounts for, which does no harm")
    for path in damaged.stale_files(checkpoint.path):
        notes.append(f"{path} is of an earlier save with another number of data files; nothing refers to it")
    return findings, notes


def _is_of_another_save(path: str, checkpoint: Checkpoint, problems: Mapping[str, CheckpointError]) -> bool:
    """Whether most tensors of a data file are wrong, as when the index belongs to another step."""
    bad = sum(error.path == path for error in problems.values())
    if bad < 2:
        return False
    parts = (part for tensor in checkpoint.tensors.values() for part in _parts(tensor))
    inside = sum(part.stored is not None and part.stored.path == path for part in parts)
    return bad > _MIXED_SHARE * inside


def _parts(tensor: Tensor) -> list[Tensor]:
    """The tensors with bytes: the slices of a partitioned variable, or the tensor itself."""
    return [each.tensor for each in tensor.slices] or [tensor]
