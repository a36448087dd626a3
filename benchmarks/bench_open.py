"""Compares listing a large index and reading every tensor with TensorFlow's reader.

    python benchmarks/bench_open.py [--checkpoint ../shared/checkpoints/inception_v3.ckpt] [--variables 1000000]

Each measurement has its own process, so that peak memory is measured separately; its seconds do not include imports.
The best of `--repeat` runs is shown; ours and TensorFlow's take turns."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

MEASURE = r"""
import json, re, sys, time
{imports}
start, used = time.perf_counter(), time.process_time()
{work}
seconds, used = time.perf_counter() - start, time.process_time() - used
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])  # ru_maxrss counts the parent's, too
print(json.dumps([seconds, used, peak / 1024, result]))
"""
OURS = "from ckpt_tools.formats import open_checkpoint, bundle, opening, v1, v2, walk\n"
TENSORFLOW = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\nimport tensorflow as tf\n"
LIST = {
    "ckpt-tools": (OURS, "specs = open_checkpoint(sys.argv[1]).tensors.specs(); result = len(specs)"),
    "TensorFlow": (TENSORFLOW, "result = len(tf.train.list_variables(sys.argv[1]))"),
}
READ = {
    "ckpt-tools": (
        OURS + "import numpy\n",
        "tensors = open_checkpoint(sys.argv[1]).tensors\n"
        "arrays = {name: tensor.load() for name, tensor in tensors.items()}\n"
        "result = sum(array.nbytes for array in arrays.values())",
    ),
    "TensorFlow": (
        TENSORFLOW,
        "reader = tf.train.load_checkpoint(sys.argv[1])\n"
        "arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}\n"
        "result = sum(array.nbytes for array in arrays.values())",
    ),
}


class Run(NamedTuple):
    """One measurement, without imports; on a busy machine `cpu` is more reliable than `seconds`."""

    seconds: float
    cpu: float
    megabytes: float
    count: int


def measure(imports: str, work: str, path: Path) -> Run:
    code = MEASURE.format(imports=imports, work=work)
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return Run(*json.loads(done.stdout))


def compare(title: str, ways: dict[str, tuple[str, str]], path: Path, repeat: int) -> None:
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, (imports, work) in ways.items():
            runs[name].append(measure(imports, work, path))
    counts = {run.count for rows in runs.values() for run in rows}
    if len(counts) != 1:
        raise SystemExit(f"{title}: the two do not agree: {counts}")
    best = {name: min(rows) for name, rows in runs.items()}
    for name, run in best.items():
        figures = f"{run.seconds:8.3f} s {run.cpu:8.3f} s CPU {run.megabytes:6.0f} MB"
        print(f"{title:<34} {name:<11} {figures}   ({run.count:,})")
    ours, theirs = best["ckpt-tools"], best["TensorFlow"]
    print(f"{title:<34} {'ratio':<11} {ours.seconds / theirs.seconds:8.2f}   {ours.cpu / theirs.cpu:8.2f}")


def write_index(folder: Path, count: int) -> Path:
    """Writes a V2 checkpoint with `count` variables of a few shapes and a sparse data file."""
    from ckpt_tools.formats import v2
    from ckpt_tools.formats.bundle_index import Entry, shard_path
    from ckpt_tools.tensors import Spec

    path = folder / "million"
    shapes = [(64,), (3, 3, 64, 64), (), (1024, 16)]
    rows, offset = [], 0
    for i in range(count):
        spec = Spec("float32", shapes[i % 4])
        rows.append(
            (f"tower/block_{i // 1000:04d}/layer_{i % 1000:03d}/weights".encode(), Entry(spec, 0, offset, spec.nbytes))
        )
        offset += spec.nbytes
    v2._write_index(f"{path}.index", rows, 1)
    with Path(shard_path(str(path), 0, 1)).open("wb") as file:
        file.truncate(offset)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).parents[2] / "shared" / "checkpoints" / "inception_v3.ckpt"
    parser.add_argument("--checkpoint", type=Path, default=shared, help="a V1 checkpoint")
    parser.add_argument("--variables", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    from ckpt_tools.formats import open_checkpoint, v2

    with tempfile.TemporaryDirectory() as folder:
        path = write_index(Path(folder), args.variables)
        compare(f"list {args.variables:,} variables", LIST, path, args.repeat)
        twin = Path(folder) / "twin"
        v2.write(open_checkpoint(args.checkpoint).tensors, str(twin))
        compare("read every tensor, V1", READ, args.checkpoint, args.repeat)
        compare("read every tensor, its V2 twin", READ, twin, args.repeat)


if __name__ == "__main__":
    main()
