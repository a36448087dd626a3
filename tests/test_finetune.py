"""ckpt-finetune: what it restores, trains and leaves unchanged, its output, and what it refuses at the start."""

import json
import os
import shutil
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_net
import yaml
from telling import at_step, lines_to

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.finetune import main
from ckpt_tools.errors import TrainingError
from ckpt_tools.train.graph import restore
from ckpt_tools.train.graph.restore import audit, changed_tensors, initial_value, planned_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run import finetune as finetune_module
from ckpt_tools.train.run import run as run_module
from ckpt_tools.train.run.finetune import finetune

HEAD = {"Tiny/Logits/Conv2d_1c_1x1/weights", "Tiny/Logits/Conv2d_1c_1x1/biases"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("finetune"), steps=12, cache="off")


@pytest.fixture(scope="module")
def head_run(job, tmp_path_factory):
    """The head alone, trained: the folder, the result, and what was said."""
    folder = tmp_path_factory.mktemp("head") / "run"
    said = []
    options = Options(**job, trainable=("Logits",), learning_rate=0.05, train_dir=str(folder))
    return folder, finetune(options, lines_to(said)), said


def tensors_of_tensorflow(prefix):
    """Name -> values, by TensorFlow's own reader."""

    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_nothing_outside_the_head_changes_by_a_single_bit(job, head_run):
    before, after = (tensors_of_tensorflow(path) for path in (job["checkpoint"], head_run[0] / "model.ckpt-12"))
    assert set(before) <= set(after)
    same = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert same == set(before) - HEAD
    assert after["Tiny/Logits/Conv2d_1c_1x1/weights"].shape == (1, 1, 16, 3)
    assert set(after) - set(before) == {
        "global_step", "beta1_power", "beta2_power",
        *(f"{name}/{slot}" for name in HEAD for slot in ("Adam", "Adam_1")),
    }  # fmt: skip
    assert after["global_step"] == 12


def test_the_parts_of_the_time_do_not_overlap(job, tmp_path):
    began = time.monotonic()
    options = {**job, "steps": 4, "eval_steps": 1, "save_steps": 1}
    finetune(Options(**options, trainable=("Logits",), train_dir=str(tmp_path)))
    seconds = json.loads((tmp_path / "result.json").read_text())["seconds"]
    assert {"preparation", "training", "evaluation", "saving", "freeze audit"} <= set(seconds)
    assert min(seconds.values()) > 0
    assert sum(seconds.values()) <= time.monotonic() - began


def test_stock_code_loads_the_result_with_a_plain_saver(head_run):
    import tensorflow.compat.v1 as tf

    from ckpt_tools.nets.graph import build_net
    from ckpt_tools.nets.registry import get_net

    with tf.Graph().as_default(), tf.Session() as session:
        build_net(get_net("tiny"), tf.zeros([1, 32, 32, 3]), num_classes=3)
        tf.train.Saver().restore(session, tf.train.latest_checkpoint(str(head_run[0])))
        assert session.run(tf.report_uninitialized_variables()).size == 0


def test_it_learns(head_run):
    _, result, _ = head_run
    assert result.best["validation_accuracy"] > 0.6  # a third would be chance


def test_what_is_said_and_written(head_run):
    folder, result, said = head_run
    text = "\n".join(said)
    for line in (
        "net            Tiny, 32 x 32 pixels",
        "classes        3: cat, dog, frog",
        "plan           12 restored, 2 initialised, 2 unused tensors of the source",
        "trainable      51 of 3,843 parameters (1.33%) in 2 variables",
        "batch norm     3 frozen",
        "images         42 for training, 18 for validation; per class: cat 14 dog 14 frog 14",
        "cache          none: --cache off",
        "restored       14 variables, read back and compared with the plan",
        "freeze audit   12 of 14 tensors are bit for bit as planned; 2 changed",
    ):
        assert line in text
    recorded = json.loads((folder / "result.json").read_text())
    assert set(recorded["freeze_audit"]["changed"]) == HEAD
    assert recorded["step"] == result.step == 12
    provenance = json.loads((folder / "model.ckpt-12.provenance.json").read_text())
    assert provenance["tensors"]["Tiny/Conv_1/weights"] == "restore"
    assert provenance["tensors"]["Tiny/Logits/Conv2d_1c_1x1/weights"] == "trained"
    assert provenance["recipe"] == yaml.safe_load((folder / "config.yaml").read_text())
    assert provenance["versions"]["tensorflow"] == tf.__version__
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3  # steps 6, 10, 12
    assert any(path.name.startswith("events.out.tfevents") for path in folder.iterdir())


def test_what_tensorflow_says_when_it_fails_is_one_sentence(job, tmp_path, capsys, monkeypatch):
    for error, said in (
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
            "out of memory; try a smaller --batch-size ",
        ),
        (tf.errors.InternalError(None, None, "no kernel\nmore"), "TensorFlow failed: no kernel; --debug "),
    ):
        monkeypatch.setattr("ckpt_tools.train.run.finetune.finetune", lambda *_, error=error: raise_(error))
        assert run_main(job, tmp_path) == 2
        assert capsys.readouterr().err.startswith(f"ckpt-finetune: {said}")


def raise_(error):
    raise error


def changed_by(job, tmp_path, **options):
    finetune(Options(**{**job, **options}, train_dir=str(tmp_path / "run")))
    before, after = (open_checkpoint(path).tensors for path in (job["checkpoint"], tmp_path / "run/model.ckpt-12"))
    return {name for name in changed_tensors(before, after) if name in before}


def test_a_trained_layer_trains_its_batch_norm_and_no_other(job, tmp_path):
    layer = {f"Tiny/Conv_3/{name}" for name in ("weights", "BatchNorm/beta", "BatchNorm/moving_mean")}
    changed = changed_by(job, tmp_path, trainable=("Conv_3,Logits",))
    assert changed == HEAD | layer | {"Tiny/Conv_3/BatchNorm/moving_variance"}


def test_batch_norm_by_scope(job, tmp_path):
    changed = changed_by(job, tmp_path, trainable=("Conv_3,Logits",), bn=("Conv_3=frozen",))
    assert changed == HEAD | {"Tiny/Conv_3/weights", "Tiny/Conv_3/BatchNorm/beta"}
    shutil.rmtree(tmp_path / "run")
    changed = changed_by(job, tmp_path, trainable=("Logits",), bn=("Conv_2=stats",))
    assert changed == HEAD | {"Tiny/Conv_2/BatchNorm/moving_mean", "Tiny/Conv_2/BatchNorm/moving_variance"}


def test_without_trainable_everything_is_trained(job, tmp_path):
    before = open_checkpoint(job["checkpoint"]).tensors
    assert changed_by(job, tmp_path) == set(before)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adagrad"])
def test_every_optimizer_lowers_the_loss(job, tmp_path, optimizer):
    options = {**job, "trainable": ("Logits",), "optimizer": optimizer, "learning_rate": 0.05}
    result = finetune(Options(**{**options, "steps": 1}, train_dir=str(tmp_path / "run")))
    later = finetune(Options(**{**options, "steps": 18}, train_dir=str(tmp_path / "run")))
    assert later.validation["validation_loss"] < result.validation["validation_loss"]


def test_a_head_in_its_own_scope_with_layers(job, tmp_path):
    options = {"head_scope": "Logits", "head": "dense(8,relu)|dropout(0.2)", "trainable": ("/Logits",)}
    assert changed_by(job, tmp_path, **options) == HEAD  # which the new head replaces
    saved = open_checkpoint(tmp_path / "run/model.ckpt-12").tensors.specs()
    assert saved["Logits/dense_1/weights"].shape == (16, 8)
    assert saved["Logits/fc/weights"].shape == (8, 3)
    assert not HEAD & set(saved)


# --- what is refused before anything is written ---


def run_main(job, tmp_path, *argv, on_event=None):
    options = ("--net", "tiny", "--checkpoint", job["checkpoint"], "--data", job["data"], "--device", "cpu")
    return main([*options, "--train-dir", str(tmp_path / "run"), "--steps", "2", *argv], on_event=on_event)


def test_a_misspelt_scope_stops_before_training(job, tmp_path, capsys):
    assert run_main(job, tmp_path, "--exclude", "Logits", "--trainable", "Logitz") == 1
    said = capsys.readouterr().err
    assert "Logitz" in said
    assert "Tiny/Logits" in said
    assert not (tmp_path / "run").exists()


def test_a_wrong_shape_lists_every_conflict_and_what_to_type(job, tmp_path, capsys):
    assert run_main(job, tmp_path, "--trainable", "Logits") == 1
    said = capsys.readouterr().err
    assert all(name in said for name in HEAD)
    assert "--exclude" in said
    assert not (tmp_path / "run").exists()
    assert run_main(job, tmp_path, "--trainable", "Logits", "--json") == 1
    out, again = capsys.readouterr()
    assert again == said
    (conflict,) = json.loads(out)["conflicts"]
    assert sorted(conflict["names"]) == sorted(HEAD)


def test_wrong_options_are_one_line(job, tmp_path, capsys):
    assert run_main(job, tmp_path, "--batch-size", "none") == 2
    assert capsys.readouterr().err == "ckpt-finetune: --batch-size must be a whole number, not 'none'\n"
    assert run_main(job, tmp_path, "--bn", "Conv_1") == 2
    assert "--bn Conv_1: write SCOPE=MODE" in capsys.readouterr().err


def test_another_run_in_the_folder_is_refused(job, tmp_path, capsys):
    common = ("--exclude", "Logits", "--cache", "off")
    assert run_main(job, tmp_path, *common, "--trainable", "Logits") == 0
    capsys.readouterr()
    assert run_main(job, tmp_path, *common, "--trainable", "Conv_3,Logits") == 2
    assert "--resume continues with the new options, --fresh deletes that run" in capsys.readouterr().err
    assert run_main(job, tmp_path, *common, "--trainable", "Conv_3,Logits", "--fresh", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2


def test_a_net_that_is_not_here_is_named(job, tmp_path, capsys):
    save_checkpoint(from_arrays({"MobilenetV3/Conv/weights": np.zeros((3, 3, 3, 16), "f4")}), tmp_path / "v3")
    argv = ["--checkpoint", str(tmp_path / "v3"), "--data", job["data"], "--train-dir", str(tmp_path / "run")]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"ckpt-finetune: {tmp_path}/v3: cannot be taken as it is: slim MobilenetV3, which is not one of the nets here. "
    )
    assert main([*argv, "--net", "inception_v3"]) == 1
    assert "The checkpoint is MobilenetV3, which is not one of the nets here" in capsys.readouterr().err


def everything_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_from_an_archive_names_the_archive(job, tmp_path):
    archive = tmp_path / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in Path(job["checkpoint"]).parent.glob(f"{Path(job['checkpoint']).name}*"):
            tar.add(path, path.name)
    said = []
    options = Options(**{**job, "checkpoint": str(archive)}, trainable=("Logits",), train_dir=str(tmp_path / "run"))
    finetune(replace(options, steps=1), lines_to(said))
    assert f"source         {archive} (" in "\n".join(said)
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["source"] == str(archive)


def test_a_fresh_start_from_a_checkpoint_of_its_own_folder_is_refused(job, head_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(head_run[0], run)
    before = everything_in(run)
    for more in ("--fresh", "--resume"):
        source = ("--checkpoint", str(run / "best.ckpt"), "--exclude", "Logits", "--trainable", "Logits")
        assert run_main(job, tmp_path, *source, more) == 2
        assert f"{run}: the source " in capsys.readouterr().err
    assert everything_in(run) == before


def test_a_class_that_was_renamed_stops_the_run(job, tmp_path, capsys):
    """Renamed to what comes first in the alphabet: every class would have been called as the one before it."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(job["data"], photos)
    common = ("--data", str(photos), "--exclude", "Logits", "--trainable", "Logits", "--cache", "off")
    assert run_main(job, tmp_path, *common) == 0
    for split in ("train", "validation"):
        (photos / split / "frog").rename(photos / split / "boat")
    before = everything_in(run)
    capsys.readouterr()
    for more in ((), ("--resume",)):
        assert run_main(job, tmp_path, *common, *more) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[3:6] == ["      0  cat      boat", "      1  dog      cat", "      2  frog     dog"]
    assert everything_in(run) == before

    # What the message says to type: another run that knows all three classes as the first one does.
    keep = ("--checkpoint", str(run / "best.ckpt"), "--class-map", "2,0,1", "--steps", "0")
    assert f"--checkpoint {run}/best.ckpt --class-map 2,0,1" in said[-2]
    assert (
        main(["--net", "tiny", "--data", str(photos), "--device", "cpu", "--train-dir", str(tmp_path / "new"), *keep])
        == 0
    )
    old, new = (open_checkpoint(path).tensors for path in (run / "best.ckpt", tmp_path / "new/best.ckpt"))
    for name in HEAD:
        assert np.array_equal(new[name].load(), old[name].load()[..., [2, 0, 1]])


# --- restoring ---


def test_the_audit_finds_a_single_wrong_bit(job):
    import tensorflow.compat.v1 as tf

    source = open_checkpoint(job["checkpoint"]).tensors
    name = "Tiny/Conv_2/weights"
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", [3, 3, 8, 16])
        values = source[name].load().copy()
        variable.load(values, session)
        assert audit(session, {name: variable}, source) == 1
        values.view(np.uint32)[0, 0, 0, 0] ^= 1
        variable.load(values, session)
        with pytest.raises(TrainingError, match=f"variables differ from the plan after restoring: {name}"):
            audit(session, {name: variable}, source)


def test_the_freeze_audit_finds_a_frozen_tensor_that_moved(job, tmp_path, monkeypatch):
    real = run_module.read_tensors

    def tampered(prefix):
        arrays = {name: tensor.load() for name, tensor in real(prefix).items()}
        arrays["Tiny/Conv_1/weights"] = arrays["Tiny/Conv_1/weights"] + np.float32(1e-7)
        return from_arrays(arrays)

    monkeypatch.setattr(run_module, "read_tensors", tampered)
    with pytest.raises(TrainingError, match="frozen tensors differ from the source: Tiny/Conv_1/weights"):
        finetune(Options(**job, trainable=("Logits",), train_dir=str(tmp_path / "run")))


def test_initial_values_depend_on_seed_and_name_alone():
    from ckpt_tools.tensors import Spec

    spec = Spec("float32", (4, 5))
    first = initial_value("a/weights", spec, 1)
    assert first.tobytes() == initial_value("a/weights", spec, 1).tobytes()
    assert first.tobytes() != initial_value("b/weights", spec, 1).tobytes()
    assert first.tobytes() != initial_value("a/weights", spec, 2).tobytes()
    assert initial_value("a/gamma", spec, 1).tolist() == np.ones((4, 5)).tolist()


def test_initial_values_are_those_of_the_layers_and_are_drawn_once(monkeypatch):
    import tensorflow.compat.v1 as tf

    from ckpt_tools.plan import PlanRules, Variable, make_plan
    from ckpt_tools.tensors import Spec, Tensors

    spec, opened = Spec("float32", (4, 5)), []
    session = tf.Session
    monkeypatch.setattr(tf, "Session", lambda **how: opened.append(1) or session(**how))
    made = {"zeros": tf.zeros_initializer(), "ones": tf.ones_initializer(), "half": tf.constant_initializer(0.5)}
    names = [*made, "drawn"]
    plan = make_plan({}, [Variable(name, spec) for name in names], PlanRules(new=dict.fromkeys(names, "no checkpoint")))
    for kept, sessions in ((restore.KEPT, 2), (0, 4)):
        monkeypatch.setattr(restore, "KEPT", kept)
        opened.clear()
        tensors = planned_tensors(plan, Tensors(), seed=0, initializers=made)
        for name, value in {"zeros": 0.0, "ones": 1.0, "half": 0.5}.items():
            values = [tensors[name].load() for _ in range(2)]
            assert all(each.dtype == np.float32 and (each == value).all() and each.shape == (4, 5) for each in values)
        first, again = (tensors["drawn"].load() for _ in range(2))
        assert first.tobytes() == again.tobytes() == initial_value("drawn", spec, 0).tobytes()
        assert len(opened) - 1 == sessions


def test_a_plan_with_a_cast_is_executed(tmp_path):
    from ckpt_tools.plan import PlanRules, Variable, make_plan
    from ckpt_tools.tensors import Spec

    values = np.array([1.5, 2.25, -3.0])
    save_checkpoint(from_arrays({"a/weights": values}), tmp_path / "doubles.ckpt")
    source = open_checkpoint(tmp_path / "doubles.ckpt").tensors
    plan = make_plan(source.specs(), [Variable("a/weights", Spec("float32", (3,)))], PlanRules(cast=True))
    made = planned_tensors(plan, source, seed=0)["a/weights"].load()
    assert (made.dtype, made.tolist()) == (np.dtype("float32"), values.tolist())


# --- stopping ---


def test_paths_of_python_are_options(job, tmp_path):
    """They reach config.yaml as text: a Path stopped a run between plan.json and config.yaml, and the next one too."""
    paths = {name: Path(job[name]) for name in ("checkpoint", "data", "cache_dir")}
    how = {**job, **paths, "trainable": "Logits", "steps": "2", "train_dir": tmp_path / "run"}
    assert finetune(Options(**how)).step == 2
    said = []
    assert finetune(Options(**{**how, "steps": 3}), lines_to(said)).step == 3
    assert "continuing     after step 2 of 3" in said


def test_ctrl_c_saves_and_the_same_command_goes_on(job, tmp_path, capsys):
    argv = ("--exclude", "Logits", "--trainable", "Logits", "--steps", "9", "--cache", "off")
    interrupted = at_step(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run_main(job, tmp_path, *argv, on_event=interrupted) == 130
    text = "stopped by SIGINT after step 5 of 9; everything is saved\nRun the same command again to resume.\n"
    assert capsys.readouterr().out == text
    assert (tmp_path / "run/model.ckpt-5.index").exists()
    assert run_main(job, tmp_path, *argv) == 0
    assert "continuing     after step 5 of 9" in capsys.readouterr().err


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(job, tmp_path, monkeypatch):
    rate_at = finetune_module.rate_at

    def too_large(options, base, step, *others):
        return np.inf if step == 6 else rate_at(options, base, step, *others)

    monkeypatch.setattr(finetune_module, "rate_at", too_large)
    options = Options(**job, trainable=("Logits",), save_steps=5, train_dir=str(tmp_path / "run"))
    with pytest.raises(TrainingError, match=r"step 8: the loss is .*the last good checkpoint is .*model\.ckpt-5"):
        finetune(options)
    assert finetune_module.RunDirectory(tmp_path / "run").steps() == [5]
