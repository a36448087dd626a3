"""The train directory: what a run leaves behind.

    OUT/checkpoint  model.ckpt-320.index  model.ckpt-320.data-00000-of-00001  model.ckpt-320.provenance.json
        best.ckpt.index ...  plan.json  config.yaml  labels.txt  metrics.csv  events.out.tfevents...  written.json

Nothing is written or deleted before `begin`, so that a plan with conflicts leaves no trace; nothing that `written.json`
does not know, ever. `continuing.py` has the guard that keeps two runs from sharing one folder.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import OutputError, TrainingError
from ...formats import locks, open_checkpoint, save_checkpoint
from ...formats.output import check_space
from ...formats.placing import write_bytes, write_text
from ...nets.from_graph import NET_FILE
from ...plan import Plan
from ...tensors import Tensors
from ..options.configuration import differences, to_config
from ..options.training import Options
from ..use.recorded import METRICS, metrics_of
from .written import Written, listed, new_list, read_list

_STEP = re.compile(r"model\.ckpt-(\d+)")


@dataclass(frozen=True)
class RunDirectory:
    """A train directory and what it may be used for; made by `open_run`."""

    path: Path
    keep: int = 3
    columns: tuple[str, ...] = METRICS  # of metrics.csv

    # --- what is there ---

    @property
    def written(self) -> Written:
        """The list of what the run wrote."""
        return read_list(self.path)

    def steps(self) -> list[int]:
        """Steps of the run's complete checkpoints, oldest first. A V2 index is written last, so it tells."""
        written, there = self.written, set(listed(self.path))
        found = [match for name in written.checkpoints if (match := _STEP.fullmatch(name))]
        return sorted(int(match[1]) for match in found if f"{match[0]}.index" in there and written.owns(match[0]))

    def prefix(self, step: int) -> str:
        """Path of the checkpoint of a step, without the endings of its files."""
        return str(self.path / f"model.ckpt-{step}")

    @property
    def best(self) -> str:
        """Path of the checkpoint that was best on the validation images."""
        return str(self.path / "best.ckpt")

    def best_record(self) -> dict[str, Any] | None:
        """Step and validation figures of the best checkpoint, None when there is none."""
        try:
            return json.loads(Path(self.best + ".provenance.json").read_text(encoding="utf-8")).get("best")
        except FileNotFoundError:
            return None

    def record(self) -> dict[str, Any]:
        """What plan.json says; nothing where there is none."""
        try:
            return json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    # --- writing ---

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the system says of a folder that cannot be written to becomes an OutputError."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            fact = "the disk or the quota is full" if full else "cannot write here"
            raise OutputError(f"{fact} ({error.strerror})", path=self.path) from error

    def check_room(self, needed: int, *, anew: bool) -> None:
        """Raises OutputError where the disk has no room for checkpoints of so many bytes, nor will have it when a run
        that is there is deleted (`anew`)."""
        gone = [path for name in self.written.checkpoints for path in self.path.glob(f"{name}.*")] if anew else []
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir())
        freed = sum(path.stat().st_size for path in gone)
        try:
            check_space(str(there / "checkpoint"), needed, " for the last checkpoint and the best one", freed)
        except OutputError as error:
            error.path = str(self.path)
            raise

    def begin(
        self, plan: Plan, options: Options, labels: Sequence[str], facts: Mapping[str, object], *, anew: bool = False,
        graph: bytes = b"",
    ) -> None:  # fmt: skip
        """Makes the folder and writes config.yaml, labels.txt and, last, plan.json, which makes it a run's. `anew`: a
        run that is there is deleted first. `graph` is that of a net that was found in one.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            if anew:
                self.written.clear()
            if anew or not self.written.run:
                new_list(self.path)
            write_text(self.path / "config.yaml", to_config(options.repeated()))
            write_text(self.path / "labels.txt", "".join(f"{i}:{label}\n" for i, label in enumerate(labels)))
            if graph:
                write_bytes(self.path / NET_FILE, graph)
            record = {"run": run_digest(plan, options), **facts, **plan.to_json()}
            write_text(self.path / "plan.json", json.dumps(record, indent=1) + "\n")

    def save(self, step: int, tensors: Tensors, provenance: Mapping[str, object], meta: bytes = b"") -> str:
        """Writes the checkpoint of a step, and `meta` as its `.meta` if there is one, then the state file, then deletes
        what --keep does not cover."""
        prefix = self._save(f"model.ckpt-{step}", tensors, {**provenance, "step": step}, meta)
        kept = self.steps()[-self.keep :]
        lines = [f'model_checkpoint_path: "model.ckpt-{step}"']
        lines += [f'all_model_checkpoint_paths: "model.ckpt-{kept_step}"' for kept_step in kept]
        with self._writing():
            write_text(self.path / "checkpoint", "\n".join(lines) + "\n")
            for old in self.steps()[: -self.keep]:
                self.written.delete(f"model.ckpt-{old}")
        return prefix

    def save_best(
        self, tensors: Tensors, provenance: Mapping[str, object], record: Mapping[str, object], meta: bytes = b""
    ) -> None:
        """Writes best.ckpt; `record` says its step and validation figures."""
        self._save("best.ckpt", tensors, {**provenance, "best": dict(record)}, meta)

    def _save(self, name: str, tensors: Tensors, provenance: Mapping[str, object], meta: bytes) -> str:
        """Writes a checkpoint over the run's own of this name, never over another's; returns its prefix."""
        prefix = str(self.path / name)
        announce = self.written.announcing(name)
        try:
            save_checkpoint(tensors, prefix, force=True, provenance=provenance, announce=announce)
        except OutputError as error:
            fewer = "; --keep 1 needs less room" if self.keep > 1 else ""
            error.advice = error.advice or f"The same command goes on once it can be written{fewer}."
            raise
        with self._writing():
            self.written.settle(name)
            if meta:
                write_bytes(f"{prefix}.meta", meta)
        return prefix

    def log(self, row: Mapping[str, object]) -> None:
        """Adds a row to metrics.csv; values that are missing stay empty."""
        path = self.path / "metrics.csv"
        new = not path.exists()
        with self._writing(), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({key: _short(value) for key, value in row.items()})

    def forget_after(self, step: int) -> None:
        """Takes rows of metrics.csv after `step` away again: the steps that a killed run had not saved."""
        rows = [row for row in self.metrics() if int(row["step"]) <= step]
        if rows or (self.path / "metrics.csv").exists():
            lines = [",".join(self.columns), *(",".join(row[key] for key in self.columns) for row in rows)]
            with self._writing():
                write_text(self.path / "metrics.csv", "\n".join(lines) + "\n")

    def metrics(self) -> list[dict[str, str]]:
        """Rows of metrics.csv: see `metrics_of`."""
        return metrics_of(self.path)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a train directory for the `with`; folders that were made for it and stayed empty are
    removed. Raises TrainingError where another run is under way in it. Network file systems may know no such locks."""
    made = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    with suppress(OSError):  # `open_run` and `begin` say what is wrong
        folder.mkdir(parents=True, exist_ok=True)
    advice = "Wait until it has ended, or name another folder."
    lock = locks.acquire(folder, busy=TrainingError("another run is under way here", path=folder, advice=advice))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()


def run_digest(plan: Plan, options: Options) -> str:
    """Eight hex digits that change with the plan and with every option that makes another run."""
    facts = [plan.digest, differences({}, options)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def read_tensors(prefix: str) -> Tensors:
    """The tensors of one of our own checkpoints."""
    return open_checkpoint(prefix + ".index").tensors


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
