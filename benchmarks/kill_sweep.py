"""Kills ckpt-convert and ckpt-edit at every system call that changes files, and checks the files left.

    python benchmarks/kill_sweep.py            # every call, with strace; or --random 200 without it
    python benchmarks/kill_sweep.py --every 10 --seed 1

Each run gets a fresh folder with an old checkpoint at the target, which the command has to replace. strace kills it as
it enters the N-th call of a kind (`-e inject=CALL:signal=KILL:when=N`). Afterwards the target must open and hold either
all old values or all new ones; the source must be unchanged; and the command, run again, must succeed and leave no
stray files. Prints counts; the exit code is 1 if anything was broken."""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.errors import CheckpointError

# Calls that change a file or its name, or flush it to disk. strace's `?` makes names optional that some kernels lack.
CALLS = ["?mkdir", "?mkdirat", "?rename", "?renameat", "?renameat2", "?link", "?linkat", "?unlink", "?unlinkat"]
CALLS += ["?rmdir", "write", "pwrite64", "copy_file_range", "ftruncate", "fallocate", "fsync", "fdatasync", "?sendfile"]
RENAME = "re:^(.*)$=new/\\1"


class Case(NamedTuple):
    """A command that replaces `target` by a new checkpoint made from `source`."""

    name: str
    command: Sequence[str]
    source: str
    target: str
    old: str  # format and shards of the checkpoint to replace


CASES = [
    Case("convert V2 to V1", ["convert", "s", "t", "--format", "v1"], "s", "t", "v1"),
    Case("convert V2 over V1", ["convert", "s", "t"], "s", "t", "v1"),
    Case("convert to npz", ["convert", "s", "t.npz"], "s", "t.npz", "npz"),
    Case("convert, other shards", ["convert", "s", "t", "--shards", "2"], "s", "t", "v2"),
    Case("edit over another", ["edit", "s", "-o", "t", "--rename", RENAME], "s", "t", "v2"),
    Case("edit over two shards", ["edit", "s", "-o", "t", "--rename", RENAME], "s", "t", "v2 2"),
    Case("edit, linked", ["edit", "s", "-o", "t", "--rename", RENAME, "--link"], "s", "t", "v2"),
    Case("edit over its source", ["edit", "t", "-o", "t", "--rename", RENAME], "t", "t", "v2"),
    Case("cast over its source", ["edit", "t", "-o", "t", "--cast", "float16"], "t", "t", "v2"),
]


def prepare(case: Case, folder: Path) -> None:
    """Writes an old checkpoint at the target and, if the source is another path, a source."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    random_values = np.random.default_rng(0)
    arrays = {f"net/layer_{i}/weights": random_values.standard_normal((64, 33 + i)).astype("float32") for i in range(6)}
    format, _, shards = case.old.partition(" ")
    options = {"shards": int(shards)} if shards else {}
    older = {name: array + 1 for name, array in arrays.items()} if case.source != case.target else arrays
    save_checkpoint(from_arrays(older), folder / case.target, format=format, **options)
    if case.source != case.target:
        save_checkpoint(from_arrays(arrays), folder / case.source)


def values(path: Path) -> Mapping[str, str]:
    """Name -> digest of type, shape and values."""
    found = {}
    for name, tensor in open_checkpoint(path).tensors.items():
        array = np.ascontiguousarray(tensor.load())
        found[name] = hashlib.sha256(f"{tensor.spec}".encode() + array.tobytes()).hexdigest()
    return found


def source_bytes(case: Case, folder: Path) -> dict[str, str]:
    if case.source == case.target:
        return {}
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(f"{case.source}.*")}


def command_of(case: Case) -> list[str]:
    return [sys.executable, "-m", "ckpt_tools", *case.command, "--force"]


def moments(case: Case, folder: Path) -> Iterator[tuple[str, int]]:
    """Every call of CALLS in an undisturbed run: its name, and its number among calls of that name."""
    prepare(case, folder)
    log = folder.with_suffix(".strace")
    trace = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=" + ",".join(CALLS)]
    subprocess.run([*trace, *command_of(case)], cwd=folder, check=True, capture_output=True)
    seen: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        call = line.split("(")[0].split()[-1]
        if "resumed" not in line and "+++" not in line and "---" not in line:
            seen[call] += 1
            yield call, seen[call]
    log.unlink()


def kill_at(case: Case, folder: Path, call: str, number: int) -> None:
    """Runs the command and kills it when it enters the call."""
    inject = f"inject={call}:signal=KILL:when={number}"
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", inject]
    subprocess.run([*trace, *command_of(case)], cwd=folder, capture_output=True)


def kill_after(case: Case, folder: Path, seconds: float) -> None:
    """Runs the command and kills it some time after its start."""
    child = subprocess.Popen(command_of(case), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    child.kill()
    child.wait()


def outcome(case: Case, folder: Path, old: Mapping, new: Mapping, before: Mapping) -> str:
    """ "old", "new", or a problem."""
    if source_bytes(case, folder) != before:
        return "the source was touched"
    try:
        found = values(folder / case.target)
    except CheckpointError as error:
        return f"broken: {error}"
    state = "old" if found == old else "new" if found == new else "a mixture"
    if case.source == case.target and state == "new":
        return state
    again = subprocess.run(command_of(case), cwd=folder, capture_output=True, text=True)
    if again.returncode or values(folder / case.target) != new:
        return f"the next run fails: {again.stderr}"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return f"{left} is left over" if left else state


def sweep(case: Case, folder: Path, every: int, times: int, chance: random.Random) -> Counter[str]:
    """Kills the case's command at each `every`-th of its calls, or at `times` random moments."""
    prepare(case, folder)
    old = values(folder / case.target)
    start = time.perf_counter()
    subprocess.run(command_of(case), cwd=folder, check=True, capture_output=True)
    lasts = time.perf_counter() - start
    new = values(folder / case.target)
    found: Counter[str] = Counter()
    points = [chance.uniform(0, 1.1 * lasts) for _ in range(times)] if times else list(moments(case, folder))
    for point in points if times else points[chance.randrange(every) :: every]:
        prepare(case, folder)
        before = source_bytes(case, folder)
        if times:
            kill_after(case, folder, point)
        else:
            kill_at(case, folder, *point)
        found[outcome(case, folder, old, new, before)] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kills the commands that write checkpoints, and looks at what is left."
    )
    parser.add_argument("--every", type=int, default=1, help="only each N-th call")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random moments a case, without strace")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kill-sweep-") as folder:
        for case in CASES:
            if case.name.startswith(args.only):
                found = sweep(case, Path(folder) / "run", args.every, args.random, chance)
                print(f"{case.name:<24}", dict(found), flush=True)
                total += found
    broken = sum(number for state, number in total.items() if state not in ("old", "new"))
    print(
        f"{sum(total.values())} kills: {total['old']} left the old checkpoint, {total['new']} the new, {broken} broken"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
