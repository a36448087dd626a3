"""The train directory: the guard, keep-N, the state file, and dropping metrics of steps that were not saved."""

import json
from dataclasses import replace

import pytest
from small_run import begin, opened, plan, tensors, write_run

from ckpt_tools.errors import OutputError, TrainingError
from ckpt_tools.formats import output
from ckpt_tools.train.options.configuration import read_config
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run import run_directory
from ckpt_tools.train.run.run_directory import RunDirectory, alone_in, read_tensors
from ckpt_tools.train.use.recorded import METRICS


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_what_a_run_writes(run):
    directory = run
    names = {path.name for path in directory.path.iterdir()}
    assert names == {
        "checkpoint", "plan.json", "config.yaml", "labels.txt", "written.json",
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
    directory = run
    same = plan(trainable=["logits"])
    assert opened(directory.path, same, trainable=("logits",), keep=2)[1] == 15
    assert opened(directory.path, same, trainable=("logits",), keep=9, steps=100, log_steps=1)[1] == 15


def test_another_run_is_refused_with_both_digests_and_what_differs(run):
    directory = run
    with pytest.raises(TrainingError) as caught:
        opened(directory.path, learning_rate=0.5)
    text = str(caught.value)
    for part in (
        f"{directory.path}: holds run ", plan(trainable=["logits"]).digest, plan().digest,
        "--trainable was logits, is not given", "--learning-rate was not given, is 0.5",
        "the plan differs for net/conv/weights", "--resume continues with the new options, --fresh deletes that run",
    ):  # fmt: skip
        assert part in text
    assert directory.steps() == [10, 15]


def test_resume_goes_on_whatever_differs(run):
    assert opened(run.path, resume=True)[1] == 15


def test_a_run_without_a_checkpoint_may_be_begun_again_with_other_options(tmp_path):
    directory = RunDirectory(tmp_path)
    begin(directory)
    directory.log({"step": 3, "loss": 1.0})
    assert opened(tmp_path, plan(trainable=["logits"]), ["boat"], batch_size=7)[1] is None
    begin(directory)
    assert directory.metrics() == []  # of steps that were not saved


def test_a_best_checkpoint_alone_is_not_written_over(run):
    directory = run
    directory.save_best(tensors(10), {}, {"step": 10})
    for step in directory.steps():
        directory.written.delete(f"model.ckpt-{step}")
    with pytest.raises(TrainingError, match="holds best.ckpt of a run, and no checkpoint to resume from. --fresh"):
        opened(directory.path, plan(trainable=["logits"]), trainable=("logits",))
    assert opened(directory.path, fresh=True)[1] is None


# --- what makes a folder a run ---------------------------------------------------------------------------------------


def test_plan_json_is_written_last(tmp_path, monkeypatch):
    """Whatever stops `begin` leaves no folder that the next run takes for a run and cannot read."""
    monkeypatch.setattr(run_directory, "to_config", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begin(RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run/plan.json").exists()
    assert opened(tmp_path / "run")[1] is None


def test_the_file_that_repeats_a_run_neither_deletes_nor_forces_it(tmp_path):
    """`ckpt-finetune --config run/config.yaml --steps 2000` goes on with a run that began with --fresh."""
    for how in ({"fresh": True}, {"resume": True}):
        begin(RunDirectory(tmp_path), **how)
        assert read_config(tmp_path / "config.yaml", Options) == {"train_dir": str(tmp_path)}


def test_a_record_that_cannot_be_read_is_one_sentence(run):
    (run.path / "plan.json").write_text("{}")
    with pytest.raises(TrainingError, match="plan.json: is not the record of a run .*--fresh deletes that run"):
        opened(run.path)
    assert opened(run.path, fresh=True)[1] is None


def test_two_runs_at_once_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    with alone_in(folder):
        said = "run: another run is under way here. Wait until it has ended, or name another folder."
        with pytest.raises(TrainingError, match=said), alone_in(folder):
            pytest.fail("both have it")
        assert folder.is_dir()
    assert not folder.exists()  # nothing was written into it
    with alone_in(folder):
        begin(RunDirectory(folder))
    assert (folder / "plan.json").exists()
    (tmp_path / "file").touch()
    with alone_in(tmp_path / "file"):  # whoever opens the run says that it is no folder
        pass


def test_folders_that_were_made_for_a_run_go_with_it_where_they_stay_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in ("deep/er/run", "mine/run"):
        with alone_in(tmp_path / folder):
            assert (tmp_path / folder).is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_disk_that_fills_during_a_run_says_how_to_go_on(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run")
    begin(directory)
    monkeypatch.setattr(output, "_free_bytes", lambda folder: 3)
    with pytest.raises(OutputError, match="3 are free. The same command goes on once it can be written; --keep 1 nee"):
        directory.save(8, tensors(8), {})
    with pytest.raises(OutputError, match="goes on once it can be written.$"):
        replace(directory, keep=1).save(8, tensors(8), {})


# --- figures ---------------------------------------------------------------------------------------------------------


def test_best_is_recorded_beside_the_others(run):
    directory = run
    assert directory.best_record() is None
    directory.save_best(tensors(10), {}, {"step": 10, "validation_accuracy": 0.5})
    assert directory.best_record() == {"step": 10, "validation_accuracy": 0.5}
    assert read_tensors(directory.best)["global_step"].load() == 10


def test_metrics_forget_the_steps_that_were_not_saved(run):
    directory = run
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


def test_metrics_that_somebody_edited_are_one_sentence_and_stay_as_they_are(run):
    run.log({"step": 5, "epoch": 1.0, "loss": 0.2})
    path = run.path / "metrics.csv"
    for edited in (path.read_text().replace("loss", "Loss", 1), path.read_text().replace(",", ";")):
        path.write_text(edited)
        with pytest.raises(TrainingError, match=r"metrics.csv: has no column \w+.* Put its first line back"):
            run.forget_after(5)
        assert path.read_text() == edited
    path.write_text(",".join(METRICS) + "\n5,1,,0.2,,,,\n7,1.4\n")
    run.forget_after(9)
    assert [row["step"] for row in run.metrics()] == ["5"]
