"""Compares the accuracy of training in bfloat16 and float32: the same runs with several seeds, on photos.

    python benchmarks/bench_precision.py CHECKPOINT PHOTOS [--scopes head,upper,whole] [--precisions float32,bfloat16]
        [--seeds 1,2,3] [--epochs 4] [--size 96] [--per-class 100]

CHECKPOINT is a slim InceptionV3, PHOTOS a folder with train/ and test/. Every run of a scope has the same options
except --precision and --seed, and is evaluated on all of test/, in float32, by ckpt-evaluate. No time is measured, so
the machine may be busy. The standard error reflects only the seeds; with few test photos, each of them has more weight.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_cache import share_of
from bench_step import SCOPES

RATES = {"head": "0.001", "upper": "0.0005", "whole": "0.0002"}


def accuracy(run: Path, scope: str, precision: str, seed: str, place: Path, arguments: argparse.Namespace) -> float:
    """Trains once; returns the accuracy of the last checkpoint on test/."""
    command = [sys.executable, "-m", "ckpt_tools", "finetune", "--checkpoint", arguments.checkpoint]
    command += ["--data", str(place / "photos"), "--train-dir", str(run), "--cache-dir", str(place / "cache")]
    command += ["--exclude", "Logits", "--trainable", SCOPES[scope], "--learning-rate", RATES[scope]]
    command += ["--epochs", str(arguments.epochs), "--image-size", str(arguments.size)]
    command += ["--precision", precision, "--seed", seed, "--eval-steps", str(1 << 30), "--keep", "1"]
    judge = [
        sys.executable,
        "-m",
        "ckpt_tools",
        "evaluate",
        "--train-dir",
        str(run),
        "--use",
        "last",
        "--data",
        str(arguments.photos),
        "--split",
        "validation",
    ]
    for words in (command, [*judge, "--precision", "float32", "--json"]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)["summary"]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--scopes", default="head,upper,whole", help=", ".join(SCOPES))
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--per-class", type=int, default=100)
    arguments = parser.parse_args()
    precisions, seeds = arguments.precisions.split(","), arguments.seeds.split(",")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        share_of(arguments.photos.resolve(), place / "photos", arguments.per_class)
        for scope in arguments.scopes.split(","):
            found = {precision: [] for precision in precisions}
            for seed in seeds:
                for precision in precisions:
                    run = place / f"{scope}-{precision}-{seed}"
                    found[precision].append(accuracy(run, scope, precision, seed, place, arguments))
                    print(f"{SCOPES[scope]:<16} {precision:<9} seed {seed}: {found[precision][-1]:.4f}", flush=True)
            for precision, values in found.items():
                error = (
                    math.hypot(*(statistics.stdev(found[p]) for p in (precisions[0], precision))) / len(seeds) ** 0.5
                )
                difference = statistics.mean(values) - statistics.mean(found[precisions[0]])
                beside = f", {difference:+.4f} of {precisions[0]}'s (standard error {error:.4f})"
                all_seeds = " ".join(f"{value:.4f}" for value in values)
                print(
                    f"{SCOPES[scope]:<16} {precision:<9} accuracy {statistics.mean(values):.4f} ({all_seeds})"
                    + (beside if precision != precisions[0] else ""),
                    flush=True,
                )


if __name__ == "__main__":
    main()
