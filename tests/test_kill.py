"""Samples of benchmarks/kill_sweep.py and fresh_sweep.py: commands are really killed, and checkpoints still open."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, save_checkpoint


@pytest.fixture(scope="module")
def kill_sweep(benchmark_script):
    return benchmark_script("kill_sweep")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["convert V2 over V1", "edit over its source"])
def test_killed_at_a_system_call(kill_sweep, tmp_path, name):
    case = next(case for case in kill_sweep.CASES if case.name == name)
    found = kill_sweep.sweep(case, tmp_path / "run", 6, 0, random.Random(1))
    assert found.total() >= 2
    assert set(found) <= {"old", "new"}


def test_killed_at_random_moments(kill_sweep, tmp_path):
    case = next(case for case in kill_sweep.CASES if case.name == "edit over another")
    found = kill_sweep.sweep(case, tmp_path / "run", 0, 6, random.Random(2))
    assert found.total() == 6
    assert set(found) <= {"old", "new"}


def test_a_mixture_would_be_seen(kill_sweep, tmp_path):
    """The sweep can fail: new data under an old index, a source that was touched."""
    case = next(case for case in kill_sweep.CASES if case.name == "edit over another")
    folder = tmp_path / "run"
    kill_sweep.prepare(case, folder)
    old, before = kill_sweep.values(folder / "t"), kill_sweep.source_bytes(case, folder)
    shutil.copy(folder / "s.data-00000-of-00001", folder / "t.data-00000-of-00001")
    assert kill_sweep.outcome(case, folder, old, {}, before).startswith("broken: ")
    save_checkpoint(from_arrays({"a": np.zeros(1)}), folder / "t", force=True)
    assert kill_sweep.outcome(case, folder, old, {}, {}) == "the source was touched"


def test_a_fresh_start_that_is_killed_loses_nothing_of_others():
    """In a process of its own, which may fork: this one may hold TensorFlow's threads."""
    script = Path(__file__).parent.parent / "benchmarks/fresh_sweep.py"
    done = subprocess.run([sys.executable, str(script), "--every", "8"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("the folder of a run: 1")  # a dozen kills


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda run: (run / "mine.ckpt").unlink(), "what others wrote was touched"),
        (lambda run: (run.parent / "source.ckpt.index").write_bytes(b""), "what others wrote was touched"),
        (lambda run: (run / "best.ckpt.index").write_bytes(b"\0" * 60), "broken: "),
        (lambda run: None, "old"),
    ],
)
def test_a_loss_would_be_seen(benchmark_script, tmp_path, loss, said):
    sweep = benchmark_script("fresh_sweep")
    sweep.prepare_small(tmp_path)
    before, old = sweep.bytes_of_others(tmp_path), sweep.names(tmp_path / "run")
    loss(tmp_path / "run")
    how = sweep.Sweep(sweep.prepare_small, lambda folder, number: 0)
    assert sweep.outcome(how, tmp_path, before, old, old, -9).startswith(said)
