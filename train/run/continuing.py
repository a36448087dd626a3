"""Whether a train directory may be used for a run, and from which step on: the guard that keeps two runs from sharing
one folder, and every run from what it did not write.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import Any

from ...adaptation import class_map_of_labels, class_map_text
from ...errors import RecipeError, TrainingError
from ...formats import Checkpoint
from ...plan import Plan
from ...report import listed, render
from ..options.configuration import differences, read_config
from ..options.training import Options
from .lineage import lies_in, lineage
from .run_directory import RunDirectory, read_tensors, run_digest
from .written import LIST, Written, checkpoint_of

SHOWN = 20  # labels side by side


def open_run(
    options: Options, plans: Sequence[Plan], labels: Sequence[str], source: Checkpoint, *, head: str, graph: str = ""
) -> tuple[RunDirectory, int | None]:
    """The directory and the step to go on from, None for a new run. Nothing is written, and nothing deleted: `begin`
    does that. `plans` are those of the run's phases: the folder may be in any of them. `head` is the scope of the head,
    `graph` the digest of a net that was found in one.

    Raises TrainingError where the folder holds another run and neither --resume nor --fresh was chosen, a run with
    other labels, or a checkpoint that --resume could not go on from; where it holds files that the run did not write
    and would write over; and where the source, or what it was made from, lies among those that would go.
    """
    directory = RunDirectory(Path(options.train_dir), options.keep)
    if directory.path.exists() and not directory.path.is_dir():
        raise TrainingError("is a file; --train-dir must be a folder", path=directory.path)
    written = directory.written
    _check_strangers(written)
    _check_source(written, options, source)
    if options.fresh or not (directory.path / "plan.json").exists():
        return directory, None
    steps = directory.steps()
    if not steps:
        if whole := [name for name in written.checkpoints if (directory.path / f"{name}.index").exists()]:
            fact = f"holds {whole[0]} of a run, and no checkpoint to resume from"
            raise TrainingError(fact, path=directory.path, advice=f"{_FRESH}, or name another folder.")
        return directory, None
    record, recorded, before = _recorded(directory, type(options))
    if record["labels"] != list(labels):
        raise _other_labels(directory, record["labels"], labels, options.exclude or (head,))
    changed = differences(before, options) + _differing(recorded, plans)
    if (record.get("graph") or {}).get("digest", graph) != graph:
        changed.append(f"{record['net']} no longer computes what it did when the run began")
    unfit = _unfit(directory.prefix(steps[-1]), plans[0])
    if unfit:
        fact = f"the checkpoint of step {steps[-1]:,} is not of this net: {'; '.join(unfit)}"
        why = f" ({'; '.join(changed)})" if changed else ""
        raise TrainingError(f"{fact}{why}", path=directory.path, advice=f"{_FRESH}, or name another folder.")
    if changed and not options.resume:
        holds = f"holds run {record['run']} of plan {record['digest']}"
        yours = f"yours is run {run_digest(plans[0], options)} of plan {plans[0].digest}"
        advice = f"--resume continues with the new options, {_FRESH}, or name another folder."
        raise TrainingError(f"{holds}, {yours}: {'; '.join(changed)}", path=directory.path, advice=advice)
    return directory, steps[-1]


_FRESH = "--fresh deletes that run"


# --- what is not the run's -------------------------------------------------------------------------------------------


def _check_strangers(written: Written) -> None:
    strangers = written.strangers()
    if "plan.json" in strangers:
        fact = f"holds a run, but not the list {LIST} of what that run wrote, so nothing in it may be overwritten"
        raise TrainingError(fact, path=written.folder, advice="Name another folder.")
    if strangers:
        kind = "checkpoints" if any(map(checkpoint_of, strangers)) else "files"
        wrote = "this run" if written.run else "ckpt-finetune"
        fact = f"holds {kind} that {wrote} did not write, under names that runs use: {listed(strangers, 3)}"
        raise TrainingError(fact, path=written.folder, advice="Name another folder, or move them elsewhere.")


def _check_source(written: Written, options: Options, source: Checkpoint) -> None:
    """The source is none of the files that the run writes; a fresh start deletes nothing of where it comes from."""
    if not options.checkpoint or not written.run:
        return
    advice = "Name another folder with --train-dir."
    for path, files in lineage(options.checkpoint, source):
        here = [Path(file).resolve() for file in files if lies_in(file, written.folder)]
        if here and options.fresh:
            what = "the source" if path == source.path else f"{path}, from which the source was made,"
            fact = f"{what} is in this folder, and --fresh would delete the run there"
            raise TrainingError(fact, path=written.folder, advice=advice)
        if not options.fresh:
            if any(checkpoint_of(file.name) for file in here):
                fact = "the source is a checkpoint of the run in this folder, which would overwrite it"
                raise TrainingError(fact, path=written.folder, advice=advice)
            return


# --- what another run is ---------------------------------------------------------------------------------------------


def _recorded(directory: RunDirectory, kind: type[Options]) -> tuple[dict[str, Any], Plan, dict[str, Any]]:
    """What plan.json says, the plan in it, and the options of config.yaml."""
    path = directory.path / "plan.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"labels": [], **record}, Plan.from_json(record), read_config(directory.path / "config.yaml", kind)
    except (ValueError, KeyError, TypeError, OSError) as error:
        advice = "--fresh deletes that run and starts over."
        raise TrainingError(f"is not the record of a run ({error})", path=path, advice=advice) from None


def _differing(recorded: Plan, plans: Sequence[Plan]) -> list[str]:
    """A sentence when the plan that the folder has is none of these."""
    if recorded.digest in [plan.digest for plan in plans]:
        return []
    before = {row.name: row for row in recorded.rows}
    other = [row.name for row in plans[0].rows if row != before.pop(row.name, None)] + list(before)
    return [f"the plan differs for {listed(other, 3)}" if other else "the plan differs in batch norm or class map"]


def _unfit(prefix: str, plan: Plan) -> list[str]:
    """Why the net of the plan cannot take the values of the run's checkpoint, for each of a few variables."""
    saved = read_tensors(prefix)
    wanted = {row.name: row.spec for row in plan.rows if row.action != "unused"}
    found = {name: saved[name].spec if name in saved else None for name in wanted}
    wrong = [name for name in wanted if found[name] != wanted[name]]
    lines = [f"{name} is {wanted[name]} here and {found[name] or 'not there'} in the checkpoint" for name in wrong]
    return lines[:3] + ([f"and {len(lines) - 3} more"] if len(lines) > 3 else [])


# --- labels ----------------------------------------------------------------------------------------------------------


def _other_labels(
    directory: RunDirectory, before: Sequence[str], now: Sequence[str], exclude: Sequence[str]
) -> TrainingError:
    """The error for data with other labels than the run was begun with, each of which an output of its head stands for:
    both lists side by side, and what to type. `exclude` is what begins with another head.
    """
    rows = [
        {"class": i, "the run": old, "the data": new}
        for i, (old, new) in enumerate(zip_longest(before, now, fillvalue="-"))
        if old != new or max(len(before), len(now)) <= SHOWN
    ]
    lines = [f"  {line}" for line in render(rows[:SHOWN], ["class", "the run", "the data"]).splitlines()]
    more = [f"  and {len(rows) - SHOWN:,} more that differ"] if len(rows) > SHOWN else []
    own = "best.ckpt" if directory.best_record() else f"model.ckpt-{directory.steps()[-1]}"
    kept, explained = _keeping(before, now, directory)
    typed = kept or f"--exclude {','.join(exclude)}"
    fact = "the data has other labels than the run in this folder"
    advice = [
        "  => The run continues once the data has the run's labels again.",
        f"  => {_FRESH} and starts over with the labels of the data.",
        f"  => A new run {explained}: --train-dir NEW --checkpoint {quote(str(directory.path / own))} {typed}",
        *(["     without --exclude of the head"] if kept else []),
    ]
    return TrainingError("\n".join([fact, *lines, *more, *advice]), path=directory.path)


def _keeping(before: Sequence[str], now: Sequence[str], directory: RunDirectory) -> tuple[str, str]:
    """What to type so that another run takes over what this one learnt of its classes, and what that does; nothing is
    to be typed where no class has the same name."""
    gone, new = [label for label in before if label not in now], [label for label in now if label not in before]
    if len(gone) == len(new) == 1 and len(now) == len(before) <= SHOWN:
        same = [before.index(gone[0] if label == new[0] else label) for label in now]
        return f"--class-map {class_map_text(same)}", f"that knows all classes, {new[0]} being what {gone[0]} was"
    try:
        class_map_of_labels(now, before)
    except RecipeError:
        return "", "with a new head"
    names = quote(str(directory.path / "labels.txt"))
    return f"--labels-of-source {names}", "that knows the classes that have the same name"
