"""Runs hostile files through the reader and `verify`, and a sample of them through TensorFlow's reader.

    python benchmarks/hostile.py [--count 100000] [--seed 1] [--tensorflow 2000]

A mutant must give the original's values or a CheckpointError (values may differ if its checksums were corrected).
Anything else, more than 5 s of processor time, or more than 500 MB is printed with its seed and number.

TensorFlow reads each mutant in its own process, forked after the import; crashes are counted by signal.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE / "tests"))
GOLDEN = HERE / "tests" / "golden"
HANG = 5  # seconds of processor time, so that a busy machine does not look like a hang
MEMORY = 500  # MB


class Hang(BaseException):
    """Raised by the alarm; not an Exception, so that nothing can swallow it."""


def alarm(*_: object) -> None:
    raise Hang


def run_ours(seed: int, count: int, results: multiprocessing.Queue) -> None:
    """Reads `count` mutants and reports the number of each outcome, and each finding."""
    from mutants import CASES, mutants
    from test_hostile import outcome, values

    from ckpt_tools import CheckpointError, verify

    signal.signal(signal.SIGPROF, alarm)
    expected = {case: values(GOLDEN / case, name) for case, name in CASES.items()}
    counts: Counter[tuple[str, str, str]] = Counter()
    findings, slowest = [], 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for number, mutant in enumerate(mutants(GOLDEN, seed, count)):
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, HANG)
            try:
                result = outcome(mutant, Path(folder) / "m", expected)
                if number % 5 == 0:
                    with contextlib.suppress(CheckpointError):
                        verify(Path(folder) / "m" / CASES[mutant.case], threads=1)
            except BaseException as error:  # any other exception is a finding
                result = f"{type(error).__name__}: {error}"
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - start)
            if result == "changed" and not mutant.sealed:
                result = "changed without an error"
            if result not in ("same", "partly", "refused", "changed"):
                findings.append(f"seed {seed}, mutant {number} ({mutant.case}, {mutant.kind}): {result[:300]}")
                result = "FINDING"
            counts["sealed" if mutant.sealed else "not sealed", mutant.kind, result] += 1
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    if peak > MEMORY:
        findings.append(f"seed {seed}: {peak:.0f} MB at the peak")
    results.put((counts, findings, slowest, peak))


def ours(count: int, seed: int, processes: int) -> list[str]:
    results: multiprocessing.Queue = multiprocessing.Queue()
    share = -(-count // processes)
    workers = [multiprocessing.Process(target=run_ours, args=(seed + i, share, results)) for i in range(processes)]
    for worker in workers:
        worker.start()
    total: Counter[tuple[str, str, str]] = Counter()
    findings, slowest, peak = [], 0.0, 0.0
    for _ in workers:
        counts, found, slow, high = results.get()
        total += counts
        findings += found
        slowest, peak = max(slowest, slow), max(peak, high)
    for worker in workers:
        worker.join()
    print(f"ckpt-tools: {total.total():,} mutants, a fifth of them through verify too")
    for group in ("not sealed", "sealed"):
        ends = Counter()
        for (sealed, _, result), number in total.items():
            ends[result] += number * (sealed == group)
        said = ", ".join(f"{result} {number:,}" for result, number in sorted(ends.items()) if number)
        print(f"  checksums {'left wrong' if group == 'not sealed' else 'made right'}: {said}")
    print(f"  slowest {slowest:.2f} s, peak {peak:.0f} MB, findings {len(findings)}")
    return findings


def tensorflow(count: int, seed: int) -> None:
    """The same mutants through TensorFlow's CheckpointReader, one forked process each."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    from mutants import CASES, mutants
    from test_hostile import same, values

    expected = {case: values(GOLDEN / case, name) for case, name in CASES.items()}
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for mutant in mutants(GOLDEN, seed, count):
            for old in Path(folder).iterdir():
                old.unlink()
            for name, content in mutant.files.items():
                (Path(folder) / name).write_bytes(content)
            name = CASES[mutant.case] + ("-?????-of-00002" if mutant.case == "tf115_v1_sharded" else "")
            child = os.fork()
            if child == 0:
                _tensorflow_child(tf, str(Path(folder) / name), expected[mutant.case], mutant.sealed, same)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                killed = signal.Signals(os.WTERMSIG(status)).name
                counts["hang over 20 s" if killed == "SIGALRM" else f"killed by {killed}"] += 1
            else:
                counts[{0: "read", 1: "refused", 2: "wrong values without an error"}[os.WEXITSTATUS(status)]] += 1
    print(f"TensorFlow {tf.__version__}: {counts.total():,} of the same mutants")
    print("  " + ", ".join(f"{result} {number:,}" for result, number in sorted(counts.items())))


def _tensorflow_child(tf: object, path: str, expected: dict, sealed: bool, same: object) -> None:
    import resource

    import numpy as np

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    code = 0
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            try:
                value = np.asarray(reader.get_tensor(name))
            except Exception:
                code = max(code, 1)
                continue
            known = expected.get(name)
            if not sealed and value.dtype.kind not in "OSU" and (known is None or not same(value, known)):
                code = 2
    except BaseException:
        code = 1
    os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tensorflow", type=int, default=2000, help="mutants that TensorFlow reads, too; 0 for none")
    args = parser.parse_args()
    findings = ours(args.count, args.seed, args.processes) if args.count else []
    print("\n".join(findings))
    if args.tensorflow:
        tensorflow(args.tensorflow, args.seed)
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
