"""Compares converting a net to another library's layout with `cp` of its file: seconds in a running process.

    python benchmarks/bench_convert.py --folder /tmp/bench
    python benchmarks/bench_convert.py --folder /tmp/bench --source inception_v3.ckpt

Without --source an InceptionV3 of 1001 classes with random values is written as a V1 file, like those in slim's
archives. Ours and cp take turns, with the source in the page cache; the best of --rounds counts. `cp, sync` waits for
the disk, like ours. Start-up is not included: a small net is converted first, so that all imports are done."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ckpt_tools import Spec, Tensor, Tensors, save_checkpoint
from ckpt_tools.cli.convert import main as convert
from ckpt_tools.nets.registry import NETS

TARGETS = {"k.h5": "keras", "k.weights.h5": "keras", "t.safetensors": "torchvision", "s.ckpt": "slim"}
LIMIT = 3.0  # times cp's seconds


def make(path: Path, name: str) -> Path:
    """Writes a V1 file of the net with random values, unless it exists."""
    if not path.exists():
        random = np.random.default_rng(0)

        def tensor(shape: tuple[int, ...]) -> Tensor:
            return Tensor(Spec("float32", shape), lambda: random.standard_normal(shape, np.float32))

        variables = NETS[name].variables(1001)
        save_checkpoint(Tensors({v.name: tensor(v.spec.shape) for v in variables}), path, format="v1")
    return path


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours(source: Path, target: Path, layout: str) -> Callable[[], object]:
    def work() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert convert([str(source), str(target), "--layout", layout, "--force"]) == 0

    return work


def copy(source: Path, target: Path, *, sync: bool) -> Callable[[], object]:
    command = f"cp {source} {target}" + (f" && sync {target}" if sync else "")
    return lambda: subprocess.run(["sh", "-c", command], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="a checkpoint of an InceptionV3 in one file")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    source = args.source or make(args.folder / "inception_v3.ckpt", "inception_v3")
    small = make(args.folder / "mobilenet_v1_025.ckpt", "mobilenet_v1_025")
    print(f"{source.stat().st_size / 1e6:.1f} MB, best of {args.rounds}, start-up left out")
    for file, layout in TARGETS.items():
        target = args.folder / file
        ours(small, target, "keras" if layout == "torchvision" else layout)()
        work = {
            "ours": ours(source, target, layout),
            "cp": copy(source, args.folder / "copy", sync=False),
            "cp, sync": copy(source, args.folder / "copy", sync=True),
        }
        best = dict.fromkeys(work, float("inf"))
        for _ in range(args.rounds):
            for name, each in work.items():
                (args.folder / "copy").unlink(missing_ok=True)
                subprocess.run(["sh", "-c", f"cat {source} > /dev/null; sync"], check=True)
                best[name] = min(best[name], seconds(each))
        figures = "   ".join(f"{name} {value:.3f} s" for name, value in best.items())
        ratio = best["ours"] / best["cp"]
        print(f"{layout:<12}{file:<15}{figures}   {ratio:.2f} of {LIMIT:g} {'reached' if ratio <= LIMIT else 'missed'}")


if __name__ == "__main__":
    main()
