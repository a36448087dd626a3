"""The train directory: what a run leaves behind, and the guard that keeps two runs from sharing one folder.

    OUT/checkpoint  model.ckpt-320.index  model.ckpt-320.data-00000-of-00001  model.ckpt-320.provenance.json
        best.ckpt.index ...  plan.json  config.yaml  labels.txt  metrics.csv  events.out.tfevents...

Nothing is written before `begin`, so that a plan with conflicts leaves no trace.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, TrainingError
from ..formats import open_checkpoint, save_checkpoint
from ..plan import Plan
from ..tensors import Tensors
from .configuration import differences, read_config, to_config
from .options import Options

METRICS = (
    "step", "epoch", "learning_rate", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds",
)  # fmt: skip
_CHECKPOINT = re.compile(r"model\.ckpt-(\d+)\.index")


@dataclass(frozen=True)
class RunDirectory:
    """A train directory and what it may be used for; made by `open_run`."""

    path: Path
    keep: int = 3

    # --- what is there ---

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first. A V2 index is written last, so it tells."""
        found = (_CHECKPOINT.fullmatch(name) for name in _listed(self.path))
        return sorted(int(match[1]) for match in found if match)

    def prefix(self, step: int) -> str:
        """Path of the checkpoint of a step, without the endings of its files."""
        return str(self.path / f"model.ckpt-{step}")

    @property
    def best(self) -> str:
        """Path of the checkpoint that was best on the validation images."""
        return str(self.path / "best.ckpt")

    def best_record(self) -> dict | None:
        """Step and validation figures of the best checkpoint, None when there is none."""
        try:
            return json.loads(Path(self.best + ".provenance.json").read_text(encoding="utf-8")).get("best")
        except FileNotFoundError:
            return None

    def record(self) -> dict:
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

    def begin(self, plan: Plan, options: Options, labels: Sequence[str], facts: Mapping[str, object]) -> None:
        """Makes the folder and writes plan.json, config.yaml and labels.txt."""
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            record = {"run": run_digest(plan, options), **facts, **plan.to_json()}
            write_text(self.path / "plan.json", json.dumps(record, indent=1) + "\n")
            write_text(self.path / "config.yaml", to_config(options))
            write_text(self.path / "labels.txt", "".join(f"{i}:{label}\n" for i, label in enumerate(labels)))

    def save(self, step: int, tensors: Tensors, provenance: Mapping[str, object]) -> str:
        """Writes the checkpoint of a step, then the state file, then deletes what --keep does not cover."""
        prefix = self.prefix(step)
        save_checkpoint(tensors, prefix, force=True, provenance={**provenance, "step": step})
        kept = self.steps()[-self.keep :]
        lines = [f'model_checkpoint_path: "model.ckpt-{step}"']
        lines += [f'all_model_checkpoint_paths: "model.ckpt-{kept_step}"' for kept_step in kept]
        with self._writing():
            write_text(self.path / "checkpoint", "\n".join(lines) + "\n")
        for old in self.steps()[: -self.keep]:
            delete_checkpoint(self.prefix(old))
        return prefix

    def save_best(self, tensors: Tensors, provenance: Mapping[str, object], record: Mapping[str, object]) -> None:
        """Writes best.ckpt; `record` says its step and validation figures."""
        save_checkpoint(tensors, self.best, force=True, provenance={**provenance, "best": dict(record)})

    def log(self, row: Mapping[str, object]) -> None:
        """Adds a row to metrics.csv; values that are missing stay empty."""
        path = self.path / "metrics.csv"
        new = not path.exists()
        with self._writing(), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, METRICS, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({key: _short(value) for key, value in row.items()})

    def forget_after(self, step: int) -> None:
        """Takes rows of metrics.csv after `step` away again: the steps that a killed run had not saved."""
        rows = [row for row in self.metrics() if int(row["step"]) <= step]
        if rows or (self.path / "metrics.csv").exists():
            lines = [",".join(METRICS), *(",".join(row[key] for key in METRICS) for row in rows)]
            with self._writing():
                write_text(self.path / "metrics.csv", "\n".join(lines) + "\n")

    def metrics(self) -> list[dict[str, str]]:
        """Rows of metrics.csv as text; a last line that a killed run cut short is left out."""
        try:
            text = (self.path / "metrics.csv").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        return [row for row in csv.DictReader(whole.splitlines()) if row["step"].isdigit()]

    def clear(self) -> None:
        """Deletes what a run writes, and nothing else that lies in the folder."""
        for name in _listed(self.path):
            if _is_ours(name):
                (self.path / name).unlink()


def open_run(
    path: str | os.PathLike[str], plan: Plan, options: Options, later: Sequence[Plan] = ()
) -> tuple[RunDirectory, int | None]:
    """The directory and the step to go on from, None for a new run. Nothing is written, but --fresh deletes. `later`
    are the plans of the run's later phases: the folder may be in any of them.

    Raises TrainingError when the folder holds another run and neither --resume nor --fresh was chosen, or
    checkpoints of another program.
    """
    directory = RunDirectory(Path(path), options.keep)
    if directory.path.exists() and not directory.path.is_dir():
        raise TrainingError("is a file; --train-dir must be a folder", path=path)
    if options.fresh:
        directory.clear()
        return directory, None
    steps = directory.steps()
    if not (directory.path / "plan.json").exists():
        if steps or (directory.path / "checkpoint").exists():
            raise TrainingError(
                "holds checkpoints that ckpt-finetune did not write", path=path, advice="Name another folder."
            )
        return directory, None
    changed = _changes(directory, plan, options, later)
    if changed and steps and not options.resume:
        recorded = json.loads((directory.path / "plan.json").read_text(encoding="utf-8"))
        holds = f"holds run {recorded['run']} of plan {recorded['digest']}"
        yours = f"yours is run {run_digest(plan, options)} of plan {plan.digest}"
        advice = "--resume goes on with the new options, --fresh deletes that run, or name another folder."
        raise TrainingError(f"{holds}, {yours}: {'; '.join(changed)}", path=path, advice=advice)
    return directory, steps[-1] if steps else None


def _changes(directory: RunDirectory, plan: Plan, options: Options, later: Sequence[Plan]) -> list[str]:
    """What makes the run that is there another one than the one that is wanted, a sentence each."""
    recorded = Plan.from_json(json.loads((directory.path / "plan.json").read_text(encoding="utf-8")))
    changed = differences(read_config(directory.path / "config.yaml", type(options)), options)
    if recorded.digest not in [plan.digest, *(each.digest for each in later)]:
        before = {row.name: row for row in recorded.rows}
        other = [row.name for row in plan.rows if row != before.pop(row.name, None)] + list(before)
        shown = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        changed.append(f"the plan differs for {shown}" if other else "the plan differs in batch norm or class map")
    return changed


def run_digest(plan: Plan, options: Options) -> str:
    """Eight hex digits that change with the plan and with every option that makes another run."""
    facts = [plan.digest, differences({}, options)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def delete_checkpoint(prefix: str) -> None:
    """Deletes the files of a V2 checkpoint, its index first, so that no index is ever without its data."""
    folder, name = Path(prefix).parent, Path(prefix).name
    ours = re.compile(re.escape(name) + r"\.(index|data-\d{5}-of-\d{5}|provenance\.json)")
    for found in sorted(
        (each for each in _listed(folder) if ours.fullmatch(each)), key=lambda each: ".index" not in each
    ):
        (folder / found).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either the old one or the new one, whatever happens meanwhile."""
    beside = path.with_name(path.name + ".writing")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_tensors(prefix: str) -> Tensors:
    """The tensors of one of our own checkpoints."""
    return open_checkpoint(prefix + ".index").tensors


def _listed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _is_ours(name: str) -> bool:
    kinds = (
        r"(model\.ckpt-\d+|best\.ckpt)\.(index|data-.*|provenance\.json)",
        r"checkpoint|(plan|result)\.json|config\.yaml|labels\.txt|metrics\.csv|report\.html",
        r"events\.out\.tfevents\..*",
    )
    return any(re.fullmatch(kind, name) for kind in kinds)


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
