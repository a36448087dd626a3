"""A small net on saved vectors: an ordinary run that needs neither images nor a checkpoint."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_net

from ckpt_tools import open_checkpoint
from ckpt_tools.cli import evaluate as evaluate_command
from ckpt_tools.cli import export as export_command
from ckpt_tools.cli import features as features_command
from ckpt_tools.cli import finetune as command
from ckpt_tools.cli import predict as predict_command
from ckpt_tools.train.data.arrays import holds_vectors
from ckpt_tools.train.data.pipeline import epoch_order
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.use.metrics import softmax

RANDOM = np.random.default_rng(3)
LABELS = np.arange(60) % 3
VALUES = (RANDOM.normal(size=(60, 8)) + 2 * np.eye(3, 8)[LABELS]).astype(np.float32)
SPLIT = np.array(["train"] * 45 + ["validation"] * 15)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return write_vectors(tmp_path_factory.mktemp("vectors") / "vectors.npz")


def write_vectors(path, values=VALUES, **more):
    arrays = {"labels": LABELS, "label_names": ["a", "b", "c"], "split": SPLIT}
    np.savez(path, features=values, **{**arrays, **more})
    return path


def options(vectors, folder, **more):
    return Options(**{"data": str(vectors), "train_dir": str(folder), "batch_size": 10, "weight_decay": 0.0, **more})


def trained(vectors, folder, **more):
    """The result of a run, and its last tensors."""
    result = finetune(options(vectors, folder, **more))
    tensors = open_checkpoint(f"{folder}/model.ckpt-{result.step}").tensors
    return result, {name: tensor.load() for name, tensor in tensors.items()}


def test_steps_are_those_of_gradient_descent(vectors, tmp_path):
    """Seven steps of softmax regression: an epoch of five batches, the last of five vectors, and two of the next."""
    _, start = trained(vectors, tmp_path / "start", optimizer="sgd", learning_rate=1e-12, steps=1)
    _, end = trained(vectors, tmp_path / "end", optimizer="sgd", learning_rate=0.5, steps=7)
    weights, biases = start["Logits/fc/weights"].astype(np.float64), np.zeros(3)
    batches = [epoch_order(0, e, 45)[i : i + 10] for e in range(2) for i in range(0, 45, 10)]
    for rows in batches[:7]:
        error = (softmax(VALUES[rows] @ weights + biases) - np.eye(3)[LABELS[rows]]) / len(rows)
        weights, biases = weights - 0.5 * VALUES[rows].T @ error, biases - 0.5 * error.sum(axis=0)
    np.testing.assert_allclose(end["Logits/fc/weights"], weights, atol=1e-5)
    np.testing.assert_allclose(end["Logits/fc/biases"], biases, atol=1e-5)
    assert abs(end["Logits/fc/weights"] - start["Logits/fc/weights"]).max() > 0.1


def test_it_learns_and_a_second_run_is_the_same(vectors, tmp_path):
    how = {"head": "dense(32,relu)|dropout(0.3)", "learning_rate": 0.01, "epochs": 12}
    result, tensors = trained(vectors, tmp_path / "one", **how)
    assert result.step == 60
    assert result.validation["validation_accuracy"] > 0.8
    again, same = trained(vectors, tmp_path / "two", **how)
    assert again.validation == result.validation
    assert all(np.array_equal(tensors[name], same[name]) for name in tensors)
    _, other = trained(vectors, tmp_path / "three", **how, seed=1)
    assert not np.array_equal(tensors["Logits/fc/weights"], other["Logits/fc/weights"])


def test_the_saved_weights_give_the_validation_accuracy(vectors, tmp_path):
    result, tensors = trained(vectors, tmp_path / "run", head="dense(16,tanh)", learning_rate=0.01, epochs=5)
    hidden = np.tanh(VALUES[45:] @ tensors["Logits/dense_1/weights"] + tensors["Logits/dense_1/biases"])
    logits = hidden @ tensors["Logits/fc/weights"] + tensors["Logits/fc/biases"]
    accuracy = (logits.argmax(axis=1) == LABELS[45:]).mean()
    assert accuracy == pytest.approx(result.validation["validation_accuracy"])


def test_what_the_command_says_and_writes(vectors, tmp_path, capsys):
    flags = ["--data", str(vectors), "--train-dir", str(tmp_path / "run"), "--head", "dense(4)", "--device", "cpu"]
    assert command.main([*flags, "--epochs", "2", "--learning-rate", "0.01"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[:9] == [
        "net            a small net on vectors of 8 values",
        "classes        3: a, b, c",
        "plan           0 restored, 4 initialised, 0 unused tensors of the source",
        "trainable      51 of 51 parameters (100.00%) in 4 variables",
        "device         CPU",
        "vectors        45 for training, 15 for validation; per class: a 15 b 15 c 15",
        "training       4 steps of 32 vectors, adam, learning rate 0.01",
        "cache          none: the data are vectors already",
        "restored       4 variables, read back and compared with the plan",
    ]
    assert shown.out.startswith("done           4 steps, in ")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    wanted = {"plan.json", "config.yaml", "labels.txt", "metrics.csv", "result.json", "report.html", "best.ckpt.index"}
    assert wanted <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    config = str(tmp_path / "run" / "config.yaml")
    assert command.main(["--config", config, "--epochs", "3"]) == 0
    assert "continuing     after step 4 of 6" in capsys.readouterr().err


def test_killed_and_continued_is_the_same_as_uninterrupted(vectors, tmp_path):
    flags = ["--data", str(vectors), "--batch-size", "10", "--head", "dense(6)|dropout(0.3)", "--device", "cpu"]
    flags += ["--weight-decay", "0", "--learning-rate", "0.01", "--steps", "12", "--save-steps", "4"]
    script = [sys.executable, tiny_net.__file__, *flags, "--train-dir", str(tmp_path / "run")]
    environment = {**os.environ, "KILL_AT": "7"}
    killed = subprocess.run(script, env=environment, capture_output=True, check=False)
    assert killed.returncode == -9
    assert [p.stem for p in (tmp_path / "run").glob("*.index")] == ["model.ckpt-4"]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0
    how = {"head": "dense(6)|dropout(0.3)", "learning_rate": 0.01, "save_steps": 4}
    trained(vectors, tmp_path / "at_once", **how, steps=12)
    for name in ("model.ckpt-12", "model.ckpt-8", "best.ckpt"):
        a, b = (open_checkpoint(tmp_path / folder / name).tensors for folder in ("run", "at_once"))
        assert changed_tensors(a, b) == []


@pytest.fixture(scope="module")
def run(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    finetune(options(vectors, folder, head="dense(8)", learning_rate=0.01, epochs=6))
    return folder


def answer(main, argv, capsys):
    """Exit code, JSON on stdout where there is any, stderr."""
    capsys.readouterr()
    code = main([str(word) for word in argv])
    shown = capsys.readouterr()
    return code, json.loads(shown.out) if shown.out else None, shown.err


def test_evaluate_on_the_runs_own_and_on_other_vectors(run, vectors, tmp_path, capsys):
    code, own, _ = answer(evaluate_command.main, ["--train-dir", run, "--json"], capsys)
    best = json.loads((run / "result.json").read_text())["best"]
    assert code == 0
    assert own["summary"]["accuracy"] == pytest.approx(best["validation_accuracy"])
    assert np.sum(own["summary"]["confusion"]) == own["summary"]["images"] == 15
    order = np.roll(np.arange(60), 7)  # the same vectors, other places, other numbers for the classes
    ids = np.array([2, 0, 1])[LABELS[order]]
    other = write_vectors(
        tmp_path / "other.npz", VALUES[order], labels=ids, label_names=["b", "c", "a"], split=SPLIT[order]
    )
    _, moved, _ = answer(evaluate_command.main, ["--train-dir", run, "--data", other, "--json"], capsys)
    assert moved["rows"] == own["rows"]
    wrong = write_vectors(tmp_path / "wrong.npz", np.roll(VALUES, 1, axis=1))
    _, found, _ = answer(evaluate_command.main, ["--train-dir", run, "--data", wrong, "--json"], capsys)
    assert found["rows"] != own["rows"]


def test_predict_says_what_evaluate_counts(run, vectors, tmp_path, capsys):
    folder = tmp_path / "evaluation"
    assert evaluate_command.main(["--train-dir", str(run), "--split", "all", "--output", str(folder)]) == 0
    counted = [line.split(",")[2] for line in (folder / "predictions.csv").read_text().splitlines()[1:]]
    _, found, _ = answer(predict_command.main, ["--train-dir", run, vectors, "--json"], capsys)
    assert [row["predictions"][0]["label"] for row in found["rows"]] == counted
    assert len(set(counted)) == 3


def test_a_part_of_the_vectors_and_vectors_without_labels(run, vectors, tmp_path, capsys):
    one = np.flatnonzero((SPLIT == "validation") & (LABELS == 1))  # only validation vectors, of one class
    part = write_vectors(tmp_path / "part.npz", VALUES[one], labels=LABELS[one], split=SPLIT[one])
    code, found, err = answer(evaluate_command.main, ["--train-dir", run, "--data", part, "--json"], capsys)
    assert (code, found["summary"]["images"]) == (0, len(one)), err
    np.savez(tmp_path / "bare.npz", features=VALUES[one])
    _, all_rows, _ = answer(predict_command.main, ["--train-dir", run, vectors, "--json"], capsys)
    _, rows, _ = answer(predict_command.main, ["--train-dir", run, tmp_path / "bare.npz", "--json"], capsys)
    places = [int(np.flatnonzero(one == i)[0]) for i in one]
    assert [row["file"] for row in rows["rows"]] == [str(place) for place in places]
    guesses = [[guess["label"] for guess in row["predictions"]] for row in rows["rows"]]
    by_name = {row["file"]: [guess["label"] for guess in row["predictions"]] for row in all_rows["rows"]}
    assert guesses == [by_name[str(i)] for i in one]


def test_what_does_not_suit_is_one_sentence(run, vectors, tmp_path, capsys):
    photos = tiny_net.write_photos(tmp_path / "photos", ("a", "b", "c"))
    narrow = write_vectors(tmp_path / "narrow.npz", VALUES[:, :5])
    source = tiny_net.write_source(tmp_path / "source.ckpt")
    wanted = "the net takes vectors of 8 values"
    for main, argv, fact in (
        (evaluate_command.main, ["--train-dir", run, "--data", photos], f"holds images, and {wanted}"),
        (evaluate_command.main, ["--train-dir", run, "--data", narrow], f"has vectors of 5 values, and {wanted}"),
        (evaluate_command.main, ["--train-dir", run, "--batch-norm-gap"], "a small net on vectors of 8 values has no"),
        (evaluate_command.main, ["--train-dir", run, "--image-size", "96"], "this is a small net on vectors"),
        (evaluate_command.main, ["--checkpoint", source, "--data", vectors], "holds vectors, and the net takes images"),
        (predict_command.main, ["--train-dir", run, f"{photos}/train/a/0.png"], f"not a file of vectors, and {wanted}"),
        (export_command.main, ["--train-dir", run, "--output", tmp_path / "e"], "without images"),
        (features_command.main, ["--train-dir", run, "--output", tmp_path / "f"], "without images"),
        (command.main, ["--data", vectors, "--train-dir", tmp_path / "x", "--aux", "--augment", "flip"],
         "--augment and --aux: not for vectors"),
    ):  # fmt: skip
        code, _, err = answer(main, argv, capsys)
        assert (code, fact in err) == (2, True), err
    assert not (tmp_path / "x").exists()


def test_a_run_goes_on_from_another_ones_checkpoint(run, vectors, tmp_path):
    before = open_checkpoint(run / "best.ckpt").tensors
    more = {"checkpoint": str(run / "best.ckpt"), "head": "dense(8)", "trainable": ("fc",), "learning_rate": 0.1}
    result, after = trained(vectors, tmp_path / "run", **more, steps=5)
    assert result.freeze_audit["changed"] == ["Logits/fc/weights", "Logits/fc/biases"]
    assert np.array_equal(before["Logits/dense_1/weights"].load(), after["Logits/dense_1/weights"])


def test_errors_are_shown_with_their_photos_where_these_still_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_net.write_photos(Path("photos"))
    source = tiny_net.write_source(tmp_path / "source.ckpt")
    argv = ["--net", "tiny", "--checkpoint", source, "--data", "photos", "--output", "features"]
    assert features_command.main([*argv, "--batch-size", "8"]) == 0
    finetune(options("features.npz", "run", steps=1, learning_rate=1e-9))
    assert evaluate_command.main(["--train-dir", "run", "--output", "with"]) == 0
    assert Path("with/worst.png").is_file()
    report = Path("run/report.html").read_text()
    assert '<div class="photos"><figure>' in report
    shutil.rmtree("photos")
    assert evaluate_command.main(["--train-dir", "run", "--output", "without", "--report"]) == 0
    assert not Path("without/worst.png").exists()
    report = Path("run/report.html").read_text()
    assert "<figure>" not in report
    assert "<td>validation/dog/" in report  # in a table


def test_only_vectors_are_vectors(vectors, tmp_path):
    assert holds_vectors(str(vectors))
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    assert not holds_vectors(str(tmp_path / "images.npz"))
    assert not holds_vectors(str(tmp_path / "nothing.npz"))
    (tmp_path / "text.npz").write_text("x")
    assert not holds_vectors(str(tmp_path / "text.npz"))
