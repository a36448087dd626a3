"""The train directory: the guard, keep-N, the state file, metrics that forget what was not saved."""

import json

import pytest

from ckpt_tools import from_arrays
from ckpt_tools.errors import TrainingError
from ckpt_tools.plan import Plan, Variable, make_plan
from ckpt_tools.tensors import Spec
from ckpt_tools.train.options import Options
from ckpt_tools.train.run_directory import METRICS, RunDirectory, open_run, read_tensors

NET = [
    Variable("net/conv/weights", Spec("float32", (3,))),
    Variable("net/logits/weights", Spec("float32", (2,)), role="head"),
]
SOURCE = {variable.name: variable.spec for variable in NET}


def plan(**how) -> Plan:
    return make_plan(SOURCE, NET, **how)


@pytest.fixture
def run(tmp_path):
    """A run of three saved steps."""
    options = Options(train_dir=str(tmp_path / "run"), trainable=("logits",), keep=2)
    directory, step = open_run(options.train_dir, plan(trainable=["logits"]), options)
    assert step is None
    assert not directory.path.exists()  # nothing is written before begin
    directory.begin(plan(trainable=["logits"]), options, ["cat", "dog"], {"net": "net"})
    for number in (5, 10, 15):
        directory.save(number, tensors(number), {})
    return directory, options


def tensors(value):
    import numpy as np

    return from_arrays({"net/conv/weights": np.full(3, value, np.float32), "global_step": np.int64(value)})


def test_what_a_run_writes(run):
    directory, _ = run
    names = {path.name for path in directory.path.iterdir()}
    assert names == {
        "checkpoint", "plan.json", "config.yaml", "labels.txt",
        *(f"model.ckpt-{step}.{ending}" for step in (10, 15)
          for ending in ("index", "data-00000-of-00001", "provenance.json")),
    }  # fmt: skip
    assert (directory.path / "labels.txt").read_text() == "0:cat\n1:dog\n"
    state = 'model_checkpoint_path: "model.ckpt-15"\nall_model_checkpoint_paths: "model.ckpt-10"\n'
    assert (directory.path / "checkpoint").read_text() == state + 'all_model_checkpoint_paths: "model.ckpt-15"\n'
    assert read_tensors(directory.prefix(15))["net/conv/weights"].load().tolist() == [15, 15, 15]
    recorded = json.loads((directory.path / "plan.json").read_text())
    assert (recorded["net"], recorded["digest"]) == ("net", plan(trainable=["logits"]).digest)


def test_the_same_run_goes_on(run):
    directory, options = run
    assert open_run(directory.path, plan(trainable=["logits"]), options)[1] == 15
    longer = Options(train_dir=options.train_dir, trainable=("logits",), keep=9, steps=100, log_steps=1)
    assert open_run(directory.path, plan(trainable=["logits"]), longer)[1] == 15


def test_another_run_is_refused_with_both_digests_and_what_differs(run):
    directory, options = run
    other = Options(train_dir=options.train_dir, learning_rate=0.5)
    with pytest.raises(TrainingError) as caught:
        open_run(directory.path, plan(), other)
    text = str(caught.value)
    for part in (
        f"{directory.path}: holds run ", plan(trainable=["logits"]).digest, plan().digest,
        "--trainable was logits, is not given", "--learning-rate was not given, is 0.5",
        "the plan differs for net/conv/weights", "--resume goes on with the new options, --fresh deletes that run",
    ):  # fmt: skip
        assert part in text
    assert directory.steps() == [10, 15]


def test_resume_goes_on_and_fresh_begins_again_whatever_differs(run):
    directory, _ = run
    (directory.path / "notes.txt").write_text("mine")
    assert open_run(directory.path, plan(), Options(resume=True, train_dir=str(directory.path)))[1] == 15
    assert open_run(directory.path, plan(), Options(fresh=True, train_dir=str(directory.path)))[1] is None
    assert [path.name for path in directory.path.iterdir()] == ["notes.txt"]


def test_a_run_without_a_checkpoint_may_be_begun_again_with_other_options(tmp_path):
    options = Options(train_dir=str(tmp_path))
    RunDirectory(tmp_path).begin(plan(), options, ["a", "b"], {})
    assert open_run(tmp_path, plan(trainable=["logits"]), Options(batch_size=7))[1] is None


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    with pytest.raises(TrainingError, match="holds checkpoints that ckpt-finetune did not write"):
        open_run(tmp_path, plan(), Options())
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TrainingError, match="is a file; --train-dir must be a folder"):
        open_run(file, plan(), Options())
    assert open_run(tmp_path / "new", plan(), Options())[1] is None


def test_best_is_recorded_beside_the_others(run):
    directory, _ = run
    assert directory.best_record() is None
    directory.save_best(tensors(10), {}, {"step": 10, "validation_accuracy": 0.5})
    assert directory.best_record() == {"step": 10, "validation_accuracy": 0.5}
    assert read_tensors(directory.best)["global_step"].load() == 10


def test_metrics_forget_the_steps_that_were_not_saved(run):
    directory, _ = run
    for step in (5, 10, 12, 15):
        directory.log({"step": step, "epoch": step / 5, "loss": 1 / step})
    with (directory.path / "metrics.csv").open("a") as file:
        file.write("17,3.4,0.0")  # the process was killed while it wrote
    assert [row["step"] for row in directory.metrics()] == ["5", "10", "12", "15"]
    directory.forget_after(10)
    lines = (directory.path / "metrics.csv").read_text().splitlines()
    assert lines == [",".join(METRICS), "5,1,,0.2,,,,", "10,2,,0.1,,,,"]
    directory.log({"step": 12, "epoch": 2.4, "loss": 0.25})
    assert directory.metrics()[-1]["loss"] == "0.25"
