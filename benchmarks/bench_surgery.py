"""Compares editing checkpoints with the tools one would use otherwise, on one file: seconds and memory per process.

    python benchmarks/bench_surgery.py --folder /tmp/bench --gigabytes 1 --tensorflow

Makes a V2 checkpoint of float32 weights, each with two Adam slots. Every line measures the whole process, from start to
exit, with the source in the page cache; the best of --rounds runs counts, and both take turns under the same load. The
ratio does not include the time of ours on a checkpoint of one small tensor, which is Python's start.

The peers are cp, cp followed by `sync` of the copy (our output is on disk at the end, cp's is not), dd, a numpy script
on raw arrays, and the usual TensorFlow script (load_variable into new variables, Saver.save). See `rows` for all of
them."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

CKPT = [sys.executable, "-m", "ckpt_tools"]
RENAME = "re:^(.*)$=renamed/\\1"


class Run(NamedTuple):
    seconds: float
    cpu: float  # processor seconds, hardly affected by other load
    megabytes: float  # peak resident memory, pages of mapped files included


class Row(NamedTuple):
    """A piece of work: our command, its peer, and the largest allowed ratio of their seconds."""

    work: str
    ours: Sequence[str]
    peer_name: str
    peer: Sequence[str]
    limit: float


def make_source(path: Path, nbytes: float, slots: Sequence[str] = ("", "/Adam", "/Adam_1"), length: int = 1024) -> None:
    """Writes a V2 checkpoint of about `nbytes` from one random block [length, 4096] of 16 MB.

    This runs in its own process, since the peak memory of later children starts at their parent's memory at the fork.
    """
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{path} could not be made")
        return
    import numpy as np

    from ckpt_tools import Spec, Tensor, Tensors, save_checkpoint

    each = np.random.default_rng(0).standard_normal((length, 4096)).astype("float32")
    count = max(round(nbytes / (each.nbytes * len(slots))), 1)
    tensor = Tensor(Spec("float32", each.shape), lambda: each)
    names = [f"net/layer_{i:04d}/weights{slot}" for i in range(count) for slot in slots]
    save_checkpoint(Tensors((name, tensor) for name in names), path, force=True)
    os._exit(0)


NUMPY_CAST = """
import sys, numpy
from ckpt_tools import open_checkpoint
source = open_checkpoint(sys.argv[1])  # only to know the arrays' places: reading, casting, writing is numpy's
with open(sys.argv[2], "wb") as out:
    for name in source.tensors:
        tensor = source.tensors[name]
        array = numpy.fromfile(tensor.stored.path, "float32", tensor.spec.parameters, offset=tensor.stored.offset)
        array.astype("float16").tofile(out)
"""
SESSION = """
import sys, tensorflow as tf
tf1 = tf.compat.v1
tf1.disable_eager_execution()
names = [name for name, _ in tf.train.list_variables(sys.argv[1])]
with tf1.Session() as session:
    for name in names:
        tf1.Variable(tf.train.load_variable(sys.argv[1], name), name=sys.argv[3] + name)
    session.run(tf1.global_variables_initializer())
    tf1.train.Saver().save(session, sys.argv[2], write_meta_graph=False, write_state=False)
"""


def rows(folder: Path, tensorflow: bool) -> list[Row]:
    """All rows of the table. Outputs go to `folder`/out*, which is emptied between runs."""
    source, v1, out = folder / "m.ckpt", folder / "m.v1", folder / "out"
    data = f"{source}.data-00000-of-00001"
    third = folder / "third"
    copy = ["cp", data, f"{source}.index", str(folder / "out.d")]
    synced = ["sh", "-c", f"cp {data} {source}.index {folder}/out.d && sync {folder}/out.d/*"]
    edit = [*CKPT, "edit", str(source), "-o", str(out)]
    rename = [*edit, "--rename", RENAME]
    strip = [*edit, "--strip", "optimizer"]
    numpy_cast = [sys.executable, "-c", NUMPY_CAST, str(source), str(out)]
    session = [sys.executable, "-c", SESSION, str(source), str(out), "renamed/"]
    cp_third = ["cp", str(third), str(out)]
    cast = [*edit, "--cast", "float16"]
    verify = [*CKPT, "verify", str(source)]
    found = [
        Row("rename all", rename, "cp", copy, 1.1),
        Row("rename all", rename, "cp, sync", synced, 1.1),
        Row("rename all --link", [*rename, "--link"], "0.2 s", [], 0.2),
        Row("strip slots", strip, "cp a third", cp_third, 1.2),
        Row("strip slots", strip, "cp, sync", ["sh", "-c", f"cp {third} {out} && sync {out}"], 1.2),
        Row("cast to float16", cast, "numpy", numpy_cast, 1.3),
        Row("verify", verify, "dd bs=1M", ["dd", f"if={data}", "of=/dev/null", "bs=1M"], 1.5),
    ]
    if tensorflow:
        convert = [*CKPT, "convert", str(v1), str(out)]
        v1_session = [sys.executable, "-c", SESSION, str(v1), str(out), ""]
        found += [
            Row("rename all", rename, "TF session", session, 1 / 40),
            Row("V1 to V2", convert, "TF session", v1_session, 1 / 5),
        ]
    return found


def run(command: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Run:
    """Seconds and peak memory of a command. Outputs of an earlier run are removed first."""
    for path in folder.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "out.d").mkdir()
    prepare()
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)[:300]}\n{said.decode()[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def read_into_cache(folder: Path) -> None:
    """Reads the sources into the page cache, which earlier runs may have displaced, and waits for the disk."""
    subprocess.run(["sh", "-c", f"cat {folder}/m.* {folder}/third > /dev/null"], check=True)
    os.sync()


def compare(row: Row, folder: Path, rounds: int) -> str:
    """Runs both in turns and returns one line of the table."""
    ours, peers = [], []
    small = [word.replace(str(folder / "m."), str(folder / "small.")) for word in row.ours]
    starting = min(run(small, folder).seconds for _ in range(rounds))
    slow = row.peer_name == "TF session"
    for _ in range(1 if slow else rounds):
        if row.peer:
            read_into_cache(folder)
            peers.append(run(row.peer, folder))
        read_into_cache(folder)
        ours.append(run(row.ours, folder))
    best = min(ours)
    if not row.peer:
        return _line(row.work, row.peer_name, best, None, f"{best.seconds:.2f} s", best.seconds <= row.limit)
    peer = min(peers)
    ratio = (best.seconds - starting) / peer.seconds
    return _line(row.work, row.peer_name, best, peer, f"{ratio:.2f} of {row.limit:.3g}", ratio <= row.limit)


def _line(work: str, peer_name: str, best: Run, peer: Run | None, ratio: str, good: bool) -> str:
    other = _cells(peer) if peer else " " * 35
    return f"{work:<18}{_cells(best)}   {peer_name:<11}{other}   {ratio:<14} {'reached' if good else 'missed'}"


def _cells(one: Run) -> str:
    return f"{one.seconds:8.2f} s (cpu {one.cpu:6.2f}) {one.megabytes:8,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=textwrap.shorten(__doc__, 200))
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder with 5 times the size free")
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tensorflow", action="store_true", help="also the session scripts, which take minutes")
    parser.add_argument("--only", default="", help="rows whose work and peer begin so")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not (args.folder / "m.ckpt.index").exists():
        make_source(args.folder / "m.ckpt", args.gigabytes * 1e9)
        make_source(args.folder / "third", args.gigabytes * 1e9 / 3, ("",))
        (args.folder / "third.data-00000-of-00001").rename(args.folder / "third")
        make_source(args.folder / "small.ckpt", 0, ("",), length=1)
        if args.tensorflow:
            for name in ("m", "small"):
                source, v1 = args.folder / f"{name}.ckpt", args.folder / f"{name}.v1"
                subprocess.run([*CKPT, "convert", source, v1, "--format", "v1"], check=True)
    size = (args.folder / "m.ckpt.data-00000-of-00001").stat().st_size
    print(f"{size / 1e9:.2f} GB, {os.cpu_count()} cores, best of {args.rounds}; ratios without start-up")
    for row in rows(args.folder, args.tensorflow):
        if f"{row.work}: {row.peer_name}".startswith(args.only):
            print(compare(row, args.folder, args.rounds), flush=True)


if __name__ == "__main__":
    main()
