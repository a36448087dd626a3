"""Kills a fresh start at every operation that changes a file, and checks all checkpoints that are left.

    python benchmarks/fresh_sweep.py               # only the run's file operations, without TensorFlow: seconds
    python benchmarks/fresh_sweep.py --command     # `ckpt-finetune --fresh` itself: minutes; --every 5 for a share

The folder holds a run and, among its files, files that the run did not write: a V1 and a V2 checkpoint, event files,
notes. The source, and the checkpoint that it was made from, are beside it. The process kills itself right before its
N-th rename, removal, link, new folder or file opened for writing there, for every N until it finishes. After each kill,
files of others must be unchanged, the run's remaining checkpoints must open with all checksums correct, and the same
command, run again, must finish and leave nothing behind. The exit code is 1 if anything was broken."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import small_run  # noqa: E402
from file_operations import kill_before  # noqa: E402

from ckpt_tools import open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.errors import CheckpointError  # noqa: E402

OTHERS = ("mine.ckpt", "mine_too.ckpt.index", "mine_too.ckpt.data-00000-of-00001", "notes.txt", "events.of.others")


class Sweep(NamedTuple):
    """`prepare` makes a folder with a run in it; `start` starts a fresh run there in its own process, which is killed
    right before the operation with this number (0: never), and returns the exit code."""

    prepare: Callable[[Path], None]
    start: Callable[[Path, int], int]


# --- the file operations of a run ------------------------------------------------------------------------------------


def prepare_small(folder: Path) -> None:
    source = small_run.write_run(folder / "base", steps=[5])
    first = open_checkpoint(source.prefix(5))
    save_checkpoint(first, folder / "source.ckpt")
    add_others(small_run.write_run(folder / "run"))


def start_small(folder: Path, number: int) -> int:
    """Starts the small run in a child process, so that a kill has its real effects."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kill_before(number, folder / "run")
    source = str(folder / "source.ckpt")
    opened = {"fresh": True, "checkpoint": source, "source": open_checkpoint(source)}
    directory, _ = small_run.opened(folder / "run", **opened)
    small_run.begin(directory, fresh=True)
    for step in (1, 2):  # best.ckpt over best.ckpt
        directory.log({"step": step})
        directory.save(step, small_run.tensors(step), {})
        directory.save_best(small_run.tensors(step), {}, {"step": step})
    os._exit(0)


# --- the command -----------------------------------------------------------------------------------------------------


def arguments(folder: Path) -> list[str]:
    data = ["--checkpoint", str(folder / "source.ckpt"), "--data", str(folder / "photos")]
    how = "--net tiny --exclude Logits --trainable Logits --batch-size 16 --steps 2 --eval-steps 1 --save-steps 1"
    return [*data, *how.split(), "--device", "cpu", "--cache", "off", "--train-dir", str(folder / "run"), "--fresh"]


def start_command(folder: Path, number: int) -> int:
    environment = {
        **os.environ,
        "KILL_BEFORE": str(number),
        "KILL_IN": str(folder / "run"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    argv = [sys.executable, str(TESTS / "tiny_net.py"), *arguments(folder)]
    return subprocess.run(argv, env=environment, capture_output=True, check=False).returncode


def prepare_command(folder: Path) -> None:
    import tiny_net

    from ckpt_tools.train.run.run_directory import RunDirectory

    tiny_net.write_source(folder / "source.ckpt")
    tiny_net.write_photos(folder / "photos", train=4, validation=2)
    start_command(folder, 0)
    add_others(RunDirectory(folder / "run"))


SWEEPS = {"the folder of a run": Sweep(prepare_small, start_small)}
COMMAND = {"ckpt-finetune --fresh": Sweep(prepare_command, start_command)}


# --- checks ----------------------------------------------------------------------------------------------------------


def add_others(directory: object) -> None:
    """Adds files that the run did not write to its folder."""
    save_checkpoint(small_run.tensors(99), directory.path / "mine.ckpt", format="v1")
    save_checkpoint(small_run.tensors(99), directory.path / "mine_too.ckpt")
    for name in ("notes.txt", "events.of.others"):
        (directory.path / name).write_text("mine")


def bytes_of_others(folder: Path) -> dict[str, str]:
    """Digests of the files that must stay: others' files in the folder, the source, and everything beside the run."""
    outside = [path for path in folder.rglob("*") if path.is_file() and folder / "run" not in path.parents]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "gone"
        for path in [*outside, *(folder / "run" / name for name in OTHERS)]
    }


def broken(folder: Path) -> str:
    """The problem with the checkpoints in the folder of the run; empty if all are intact."""
    for index in (folder / "run").glob("*.index"):
        try:
            for tensor in open_checkpoint(index).tensors.values():
                tensor.load()
        except CheckpointError as error:
            return f"broken: {error}"
    return ""


def sweep(how: Sweep, folder: Path, every: int = 1) -> Counter[str]:
    """Kills at each `every`-th operation. Counts "old" (the old run is intact), "between", "new" (the new run has
    begun), and problems."""
    pristine, found, number = folder / "pristine", Counter(), 1
    pristine.mkdir()
    how.prepare(pristine)
    place = folder / "place"
    shutil.copytree(pristine, place)
    if code := how.start(place, 0):
        return Counter([f"the undisturbed run ends with {code}"])
    undisturbed = names(place / "run")
    while True:
        shutil.rmtree(place)
        shutil.copytree(pristine, place)
        before = bytes_of_others(place)
        code = how.start(place, number)
        if code == 0:  # it finished with fewer operations
            return found
        found[outcome(how, place, before, names(pristine / "run"), undisturbed, code)] += 1
        number += every


def outcome(how: Sweep, folder: Path, before: dict, old: set[str], undisturbed: set[str], code: int) -> str:
    """ "old", "between", "new", or a problem."""
    if code != -signal.SIGKILL:
        return f"it ends with {code}"
    left = names(folder / "run")
    state = "old" if left >= old else "new" if "plan.json" in left else "between"
    if bytes_of_others(folder) != before:
        return "what others wrote was touched"
    if wrong := broken(folder):
        return wrong
    if code := how.start(folder, 0):
        return f"the same command, given again, ends with {code}"
    if bytes_of_others(folder) != before:
        return "what others wrote was touched by the next run"
    return state if names(folder / "run") == undisturbed else f"left over: {names(folder / 'run') ^ undisturbed}"


def names(folder: Path) -> set[str]:
    """The names in the folder of a run, without those that TensorFlow makes up."""
    return {path.name for path in folder.iterdir() if not path.name.startswith("events.out.")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", action="store_true", help="the whole command, which takes minutes")
    parser.add_argument("--every", type=int, default=1, help="only each N-th operation")
    args = parser.parse_args()
    wrong = 0
    for name, how in (COMMAND if args.command else SWEEPS).items():
        with tempfile.TemporaryDirectory(prefix="fresh-sweep-") as folder:
            found = sweep(how, Path(folder), args.every)
        wrong += sum(number for state, number in found.items() if state not in ("old", "between", "new"))
        print(f"{name}: {sum(found.values())} kills: {dict(found)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
