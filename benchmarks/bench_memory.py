"""Measures peak memory of editing a file of 4 GB: resident memory beyond the pages of the mapped file.

    python benchmarks/bench_memory.py --folder /tmp/bench --gigabytes 4
    python benchmarks/bench_memory.py --folder /tmp/bench --gigabytes 4 --one-tensor

Makes a V2 checkpoint of random blocks, then renames, strips, casts and converts it, each in its own process. With
--one-tensor the file has a single tensor; conversions through V1 are left out if it is too large for a V1 file (2 GiB
per tensor). /proc/PID/status is read fifty times per second: RssAnon counts, RssFile (pages of the mapped source) is
shown as well."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench_surgery import CKPT, RENAME, make_source

LIMIT = 200  # MB


def watch(command: list[str]) -> tuple[float, float, float]:
    """Runs a command; returns its seconds, and its peak anonymous and total resident memory in MB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    own = whole = 0.0
    while child.poll() is None:
        own, whole = max(own, resident(child.pid, "RssAnon", "RssShmem")), max(whole, resident(child.pid, "VmRSS"))
        time.sleep(0.02)
    if child.returncode:
        raise SystemExit(child.stderr.read().decode())
    return time.perf_counter() - start, own, whole


def resident(pid: int, *names: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) / 1000


def make_one_tensor(path: Path, nbytes: float) -> None:
    """Writes a V2 checkpoint of one float32 tensor from one random block, in its own process like `make_source`."""
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{path} could not be made")
        return
    import numpy as np

    from ckpt_tools import Spec, Tensor, save_checkpoint

    block = np.random.default_rng(0).standard_normal(1 << 22).astype("float32")
    count = max(round(nbytes / block.nbytes), 1)
    tensor = Tensor(Spec("float32", (count * 4096, 1024)), None, stream=lambda: (block for _ in range(count)))
    save_checkpoint({"net/embeddings": tensor}, path, force=True)
    os._exit(0)


def commands(source: Path, out: Path) -> dict[str, list[object]]:
    """The measured commands; `from V1` reads the output of `to V1`."""
    return {
        "rename": ["edit", source, "-o", out / "m", "--rename", RENAME],
        "strip": ["edit", source, "-o", out / "m", "--strip", "optimizer"],
        "cast": ["edit", source, "-o", out / "m", "--cast", "float16"],
        "cast to npz": ["edit", source, "-o", out / "m.npz", "--cast", "float16"],
        "to npz": ["convert", source, out / "m.npz"],
        "to safetensors": ["convert", source, out / "m.safetensors"],
        "to Keras h5": ["convert", source, out / "m.h5"],
        "to V1": ["convert", source, out / "v1", "--format", "v1"],
        "from V1": ["convert", out / "v1", out / "m"],
        "verify": ["verify", source],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Peak memory of surgery on a large checkpoint.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--one-tensor", action="store_true", help="a single tensor instead of many of 16 MB")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    source, out = args.folder / "large.ckpt", args.folder / "result"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (make_one_tensor if args.one_tensor else make_source)(source, args.gigabytes * 1e9)
    worst = 0.0
    print(f"{args.gigabytes:g} GB of float32{' in one tensor' if args.one_tensor else ''}")
    for work, command in commands(source, out).items():
        if args.one_tensor and args.gigabytes * 1e9 > 2**31 - 2048 and "V1" in work:
            continue
        for path in out.glob("m*"):
            path.unlink()
        seconds, own, whole = watch([*CKPT, *map(str, command)])
        worst = max(worst, own)
        print(f"{work:<16}{seconds:8.1f} s {own:8.0f} MB own {whole:8.0f} MB with the mapped file", flush=True)
    shutil.rmtree(out)
    for path in args.folder.glob("large.ckpt*"):
        path.unlink()
    print(f"at most {worst:.0f} MB of {LIMIT}")
    return 0 if worst < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
