"""A seeded sample of benchmarks/resume_sweep.py: killed at random moments, with everything on that has a state."""

import numpy as np
import pytest

from ckpt_tools import from_arrays, save_checkpoint


@pytest.fixture(scope="module")
def resume_sweep(benchmark_script):
    return benchmark_script("resume_sweep")


def test_killed_at_random_moments(resume_sweep, tmp_path):
    found = resume_sweep.sweep(tmp_path, 2, 3, ["--optimizer", "adam"])
    assert found.kills == 2
    assert found.differing == ()
    assert not found.metrics_differ


def test_a_difference_would_be_seen(resume_sweep, tmp_path):
    header = "step,epoch,learning_rate,loss,accuracy,validation_loss,validation_accuracy,seconds\n"
    for name, value in (("a", 1.0), ("b", 1.0 + 1e-7)):
        for checkpoint, weight in ((f"model.ckpt-{resume_sweep.STEPS}", value), ("best.ckpt", 1.0)):
            (tmp_path / name).mkdir(exist_ok=True)
            save_checkpoint(from_arrays({"w": np.float32([weight])}), tmp_path / name / checkpoint)
        (tmp_path / name / "metrics.csv").write_text(f"{header}1,,,{value},,,,{value}\n")
    assert resume_sweep.differences(tmp_path / "a", tmp_path / "b") == ((f"model.ckpt-{resume_sweep.STEPS}: w",), True)
    assert resume_sweep.differences(tmp_path / "a", tmp_path / "a") == ((), False)
