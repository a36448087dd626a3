"""Compares ckpt-inspect with TensorFlow's inspect_checkpoint: whole processes, alternating, on the same file.

    python benchmarks/bench_inspect.py [CHECKPOINT] [--rounds 7] [--at-least 30]

Prints the median seconds of both, those of Python's start, and the ratio. With --at-least it exits with 1 if the ratio
is smaller."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKPOINT = Path(__file__).parents[2] / "shared" / "checkpoints" / "inception_v3.ckpt"


def seconds(argv: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Median seconds of each command. One run of each comes first, so that files and compiled modules are cached."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "TF_CPP_MIN_LOG_LEVEL": "2"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for argv in commands.values():
            seconds(argv, environment)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, argv in commands.items():
                taken[name].append(seconds(argv, environment))
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default=str(CHECKPOINT))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--at-least", type=float, default=0)
    args = parser.parse_args()
    ours = shutil.which("ckpt-inspect", path=str(Path(sys.executable).parent)) or "ckpt-inspect"
    theirs = "tensorflow.python.tools.inspect_checkpoint"
    medians = measure(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ckpt-inspect": [ours, args.checkpoint],
            "inspect_checkpoint": [sys.executable, "-m", theirs, f"--file_name={args.checkpoint}"],
        },
        args.rounds,
    )
    for name, median in medians.items():
        print(f"{name:<20} {median:8.3f} s")
    ratio = medians["inspect_checkpoint"] / medians["ckpt-inspect"]
    print(f"{'ratio':<20} {ratio:8.1f}")
    return 0 if ratio >= args.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
