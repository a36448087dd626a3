"""The net on saved vectors: its steps against NumPy's, the same run twice, the command."""

import json

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import finetune as command  # noqa: E402
from ckpt_tools.errors import DataError, TrainingError  # noqa: E402
from ckpt_tools.train.arrays import holds_vectors  # noqa: E402
from ckpt_tools.train.classifier import VectorOptions, train_classifier  # noqa: E402
from ckpt_tools.train.metrics import softmax  # noqa: E402
from ckpt_tools.train.pipeline import epoch_order  # noqa: E402

RANDOM = np.random.default_rng(3)
LABELS = np.arange(60) % 3
VALUES = (RANDOM.normal(size=(60, 8)) + 2 * np.eye(3, 8)[LABELS]).astype(np.float32)
SPLIT = np.array(["train"] * 45 + ["validation"] * 15)


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "vectors.npz"
    np.savez(path, features=VALUES, labels=LABELS, label_names=["a", "b", "c"], split=SPLIT)
    return path


def trained(vectors, folder, **more):
    options = VectorOptions(data=str(vectors), train_dir=str(vectors.parent / folder), batch_size=10, **more)
    result = train_classifier(options)
    return result, {
        k: t.load() for k, t in open_checkpoint(vectors.parent / folder / "classifier.ckpt").tensors.items()
    }


def test_steps_are_those_of_gradient_descent(vectors):
    """Seven steps of softmax regression: an epoch of five batches, the last of five vectors, and two of the next."""
    _, start = trained(vectors, "start", head="", optimizer="sgd", learning_rate=1e-12, steps=1)
    _, end = trained(vectors, "end", head="", optimizer="sgd", learning_rate=0.5, steps=7)
    weights, biases = start["Logits/fc/weights"].astype(np.float64), np.zeros(3)
    batches = [epoch_order(0, e, 45)[i : i + 10] for e in range(2) for i in range(0, 45, 10)]
    for rows in batches[:7]:
        error = (softmax(VALUES[rows] @ weights + biases) - np.eye(3)[LABELS[rows]]) / len(rows)
        weights, biases = weights - 0.5 * VALUES[rows].T @ error, biases - 0.5 * error.sum(axis=0)
    np.testing.assert_allclose(end["Logits/fc/weights"], weights, atol=1e-5)
    np.testing.assert_allclose(end["Logits/fc/biases"], biases, atol=1e-5)
    assert abs(end["Logits/fc/weights"] - start["Logits/fc/weights"]).max() > 0.1


def test_it_learns_and_a_second_run_is_the_same(vectors):
    how = {"head": "dense(32,relu)|dropout(0.3)", "learning_rate": 0.01, "epochs": 12}
    result, tensors = trained(vectors, "one", **how)
    assert result.validation.accuracy > 0.8
    assert result.parameters == 8 * 32 + 32 + 32 * 3 + 3
    assert (result.steps, np.sum(result.confusion)) == (60, 15)
    again, same = trained(vectors, "two", **how)
    assert again.validation == result.validation
    assert all(np.array_equal(tensors[name], same[name]) for name in tensors)
    _, other = trained(vectors, "three", **how, seed=1)
    assert not np.array_equal(tensors["Logits/fc/weights"], other["Logits/fc/weights"])


def test_the_saved_weights_give_the_validation_accuracy(vectors):
    result, tensors = trained(vectors, "run", head="dense(16,tanh)", learning_rate=0.01, epochs=5)
    hidden = np.tanh(VALUES[45:] @ tensors["Logits/dense_1/weights"] + tensors["Logits/dense_1/biases"])
    logits = hidden @ tensors["Logits/fc/weights"] + tensors["Logits/fc/biases"]
    assert (logits.argmax(axis=1) == LABELS[45:]).mean() == pytest.approx(result.validation.accuracy)


def test_the_train_directory(vectors):
    result, _ = trained(vectors, "run", epochs=2)
    folder = vectors.parent / "run"
    assert (folder / "labels.txt").read_text() == "0:a\n1:b\n2:c\n"
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert (lines[0], len(lines)) == ("step,loss,validation_loss,validation_accuracy", 3)
    assert json.loads((folder / "result.json").read_text())["validation"]["accuracy"] == result.validation.accuracy
    with pytest.raises(TrainingError, match="holds a run already"):
        trained(vectors, "run")
    trained(vectors, "run", epochs=1, fresh=True)


def test_the_command(vectors, capsys):
    folder = str(vectors.parent / "run")
    flags = ["--data", str(vectors), "--train-dir", folder]
    assert command.main([*flags, "--steps", "20", "--head", "dense(8)", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["labels"]) == (20, ["a", "b", "c"])
    assert command.main([*flags, "--trainable", "Logits", "--bn", "x=train"]) == 2
    assert "--bn and --trainable: not for a net on vectors" in capsys.readouterr().err
    assert command.main([*flags, "--fresh", "--epochs", "1"]) == 0
    assert "validation     accuracy" in capsys.readouterr().out


def test_only_vectors_are_vectors(vectors, tmp_path):
    assert holds_vectors(str(vectors))
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    assert not holds_vectors(str(tmp_path / "images.npz"))
    assert not holds_vectors(str(tmp_path / "nothing.npz"))
    (tmp_path / "text.npz").write_text("x")
    assert not holds_vectors(str(tmp_path / "text.npz"))
    with pytest.raises(DataError, match="holds npz, not vectors"):
        train_classifier(VectorOptions(data=str(tmp_path / "images.npz"), train_dir=str(tmp_path / "run")))
