"""Kills a training run at random moments, continues it each time, and compares it with an uninterrupted one.

    python benchmarks/resume_sweep.py --kills 10
    python benchmarks/resume_sweep.py --options "--unfreeze 0:Logits;20:Conv_3 --schedule one-cycle --accumulate 2"
    python benchmarks/resume_sweep.py --options "--devices 2" --options "--precision float16"

Everything with a state is on: momentum or Adam, moving averages, dropout, augmentation, a cosine schedule, class
weights, checkpoints every few steps. Each --options adds to these, or changes them, for a separate sweep. A kill is a
SIGKILL at a random time: in a step, in an evaluation, or while a checkpoint is written. In the end every tensor must be
the same, bit for bit: weights, moving statistics, slots, averages, the loss scale, the step; and so must the rows of
metrics.csv except for their seconds."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import tiny_net  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.train.graph.restore import changed_tensors  # noqa: E402
from ckpt_tools.train.run.run_directory import RunDirectory  # noqa: E402

STEPS = 400
EVERYTHING = [
    *("--net", "tiny", "--exclude", "Logits", "--batch-size", "8", "--device", "cpu", "--class-weights", "balanced"),
    *("--augment", "flip", "--augment", "crop(0.6)", "--dropout", "0.3", "--ema", "0.95", "--schedule", "cosine"),
    *("--warmup-steps", "7", "--label-smoothing", "0.1", "--clip-norm", "5", "--layer-decay", "0.5"),
    *("--learning-rate", "0.01", "--steps", str(STEPS), "--save-steps", "9", "--eval-steps", "50", "--log-steps", "1"),
]


class Swept(NamedTuple):
    """The number of `kills` that hit the running process, the steps on disk at these times, and final differences."""

    kills: int
    steps: tuple[int, ...]
    differing: tuple[str, ...]
    metrics_differ: bool


def command(folder: Path, name: str, more: list[str]) -> list[str]:
    """The command line of a run in `folder / name`."""
    data = ["--checkpoint", str(folder / "source.ckpt"), "--data", str(folder / "photos")]
    return [sys.executable, str(TESTS / "tiny_net.py"), *EVERYTHING, *data, "--train-dir", str(folder / name), *more]


def run(argv: list[str]) -> None:
    """Runs a command to the end. Raises RuntimeError with its stderr if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}


def kill_after(argv: list[str], metrics: Path, rows: int, delay: float) -> bool:
    """Kills the command `delay` seconds after metrics.csv has more than `rows` rows; False if it ended before."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    try:
        while process.poll() is None:
            if metrics.exists() and metrics.read_bytes().count(b"\n") > rows:
                time.sleep(delay)
                process.kill()
                break
            time.sleep(0.002)
    finally:
        process.kill()
    return process.wait() == -9


def sweep(folder: Path, kills: int, seed: int, more: list[str]) -> Swept:
    """Makes one undisturbed run, and one that is killed and continued `kills` times and then runs to the end."""
    tiny_net.write_source(folder / "source.ckpt")
    tiny_net.write_photos(folder / "photos")
    run(command(folder, "whole", more))
    chance, met, steps = random.Random(seed), 0, []
    moments = sorted(chance.sample(range(1, STEPS - 20), kills))
    directory = RunDirectory(folder / "killed")
    for moment in moments:
        met += kill_after(
            command(folder, "killed", more), folder / "killed/metrics.csv", moment, chance.uniform(0.0, 0.05)
        )
        steps.append(directory.steps()[-1] if directory.steps() else 0)
    run(command(folder, "killed", more))
    return Swept(met, tuple(steps), *differences(folder / "whole", folder / "killed"))


def differences(whole: Path, killed: Path) -> tuple[tuple[str, ...], bool]:
    """Tensors that differ in the last checkpoint or the best one, and whether metrics.csv differs."""
    found = []
    for name in (f"model.ckpt-{STEPS}", "best.ckpt"):
        a, b = (open_checkpoint(path / name).tensors for path in (whole, killed))
        found += [f"{name}: {tensor}" for tensor in changed_tensors(a, b)]
    rows = [[{**row, "seconds": ""} for row in RunDirectory(path).metrics()] for path in (whole, killed)]
    return tuple(found), rows[0] != rows[1]


def main() -> int:
    """Prints a line for each sweep; returns 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", action="append", metavar='"--unfreeze ..."', help="of ckpt-finetune; once a sweep")
    args = parser.parse_args()
    failed = False
    for options in args.options or ("--optimizer adam", "--optimizer momentum"):
        with tempfile.TemporaryDirectory() as folder:
            found = sweep(Path(folder), args.kills, args.seed, shlex.split(options))
        failed |= bool(found.differing or found.metrics_differ or found.kills < args.kills)
        result = f"{len(found.differing)} tensors differ, metrics {'differ' if found.metrics_differ else 'are equal'}"
        moments = ", ".join(map(str, found.steps))
        print(f"{options}: {found.kills} kills, saved steps then {moments}: {result}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
