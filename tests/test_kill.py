"""A seeded share of benchmarks/kill_sweep.py: the commands are killed for real, and the target opens afterwards."""

import importlib.util
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, save_checkpoint

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kill_sweep.py"


@pytest.fixture(scope="module")
def kill_sweep():
    spec = importlib.util.spec_from_file_location("kill_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
