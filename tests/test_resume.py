"""A run that is killed and continued ends with the same weights as an uninterrupted one, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_net
from telling import lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import TrainingError
from ckpt_tools.events import Step
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.run_directory import RunDirectory


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("resume"))


# Everything that could have a state of its own: slots, moving statistics, dropout, augmentation, a warm-up.
EVERYTHING = {"dropout": 0.3, "augment": ("flip", "crop(0.6)"), "warmup_steps": 9, "learning_rate": 0.01}
CASES = {
    "all layers, adam": {**EVERYTHING, "optimizer": "adam"},
    "upper layers, momentum": {**EVERYTHING, "optimizer": "momentum", "trainable": ("Conv_3,Logits",)},
    "head, rmsprop": {"optimizer": "rmsprop", "trainable": ("Logits",)},
    "head, adagrad, exponential": {"optimizer": "adagrad", "trainable": ("Logits",), "schedule": "exponential"},
}


def differing(a, b):
    """Names of the tensors in which two checkpoints differ, slots and step included."""
    return changed_tensors(open_checkpoint(a).tensors, open_checkpoint(b).tensors)


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_continued_is_the_same_as_uninterrupted(job, tmp_path, case):
    at_once, in_parts = tmp_path / "at_once", tmp_path / "in_parts"
    finetune(Options(**job, **CASES[case], train_dir=str(at_once), steps=17))
    finetune(Options(**job, **CASES[case], train_dir=str(in_parts), steps=10))
    assert "Tiny/Logits/Conv2d_1c_1x1/weights" in differing(in_parts / "model.ckpt-10", at_once / "model.ckpt-17")
    finetune(Options(**job, **CASES[case], train_dir=str(in_parts), steps=17))
    assert differing(in_parts / "model.ckpt-17", at_once / "model.ckpt-17") == []
    assert differing(in_parts / "best.ckpt", at_once / "best.ckpt") == []


def test_killed_and_continued_is_the_same_as_uninterrupted(job, tmp_path):
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    options = {**job, **EVERYTHING, "steps": 16, "save_steps": 4, "log_steps": 1}
    argv = [
        *("--net", "tiny", "--checkpoint", job["checkpoint"], "--data", job["data"], "--exclude", "Logits"),
        *(
            "--batch-size",
            "8",
            "--dropout",
            "0.3",
            "--augment",
            "flip",
            "--augment",
            "crop(0.6)",
            "--warmup-steps",
            "9",
        ),
        *("--learning-rate", "0.01", "--steps", "16", "--save-steps", "4", "--log-steps", "1", "--device", "cpu"),
    ]
    killed = subprocess.run(
        [sys.executable, tiny_net.__file__, *argv, "--train-dir", str(run)],
        env={**os.environ, "KILL_AT": "10"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    assert RunDirectory(run).steps() == [4, 8]
    assert [row["step"] for row in RunDirectory(run).metrics()][-1] == "10"  # two more than were saved
    said = []
    result = finetune(Options(**options, train_dir=str(run)), lines_to(said))
    assert "continuing     after step 8 of 16" in said
    assert (result.step, result.stopped) == (16, "")
    finetune(Options(**options, train_dir=str(undisturbed)))
    assert differing(run / "model.ckpt-16", undisturbed / "model.ckpt-16") == []
    shown = ("step", "epoch", "learning_rate", "loss", "accuracy", "validation_loss", "validation_accuracy")
    continued, whole = (
        [[row[key] for key in shown] for row in RunDirectory(path).metrics()] for path in (run, undisturbed)
    )
    assert continued == whole
    assert [row[0] for row in whole] == [str(step) for step in range(1, 17)]


def test_no_half_written_checkpoint_is_continued_from(job, tmp_path):
    run = tmp_path / "run"
    options = Options(**job, trainable=("Logits",), train_dir=str(run), steps=6)
    finetune(options)
    RunDirectory(run).written.announcing("model.ckpt-9")(str(run / "model.ckpt-6"))
    Path(run / "model.ckpt-9.data-00000-of-00001").write_bytes(b"cut short")  # its index was never written
    said = []
    finetune(options, lines_to(said))
    assert "continuing     after step 6 of 6" in said


def test_a_second_run_does_not_begin_in_the_folder_of_one_that_goes_on(job, tmp_path):
    options = Options(**job, trainable=("Logits",), train_dir=str(tmp_path / "run"), steps=3)

    def begin_another(event):
        if isinstance(event, Step) and event.step == 2:
            with pytest.raises(TrainingError, match="another run is under way here"):
                finetune(options)

    finetune(options, begin_another)
    said = []
    finetune(options, lines_to(said))
    assert "continuing     after step 3 of 3" in said


def test_a_run_that_goes_on_with_other_photos_says_so(tmp_path):
    job = tiny_net.write_job(tmp_path)
    options = Options(**job, trainable=("Logits",), train_dir=str(tmp_path / "run"), steps=2)

    def notes():
        said = []
        finetune(options, lines_to(said))
        return [line for line in said if "other data" in line]

    assert notes() == notes() == []
    photo = next(Path(job["data"]).glob("train/cat/*"))
    photo.rename(photo.with_stem("renamed"))
    after = "; figures before and after are of different examples"
    said = "note           the run goes on with other data: "
    assert notes() == [f"{said}they have other names or labels{after}"]
    photo.with_stem("renamed").unlink()
    assert notes() == [f"{said}it had 42 for training, 18 for validation{after}"]
    assert notes() == []
