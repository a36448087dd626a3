"""Partitioned variables of `tf.get_variable(partitioner=...)` become one variable, which the old graph can restore."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import tiny_net

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import SIDE, Style, building  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import evaluate, plan  # noqa: E402
from ckpt_tools.formats.graph_file import GraphFile, read_graph  # noqa: E402
from ckpt_tools.graphs.analysis import analyse  # noqa: E402
from ckpt_tools.nets.function import net_of_function  # noqa: E402
from ckpt_tools.nets.imported import import_net  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402

IMAGES = np.random.default_rng(5).uniform(size=(4, SIDE, SIDE, 3)).astype("float32")
WHOLES = {"conv/weights": (3, 3, 3, 6), "conv/biases": (6,), "hidden/weights": (6, 16), "classes/weights": (16, 5)}


def variable(name: str, shape: list[int], axis: int, parts: int = 2) -> object:
    made = tf.truncated_normal_initializer(stddev=0.2)
    return tf.get_variable(name, shape, initializer=made, partitioner=tf.fixed_size_partitioner(parts, axis))


def net(images: object) -> object:
    """One convolution, one layer whose parts are taken one by one, one with a single part."""
    with tf.variable_scope("conv"):
        x = tf.nn.conv2d(images, variable("weights", [3, 3, 3, 6], 3, 3), 1, "SAME")
        x = tf.reduce_mean(tf.nn.relu(tf.nn.bias_add(x, variable("biases", [6], 0))), [1, 2])
    with tf.variable_scope("hidden"):
        first, second = variable("weights", [6, 16], 0)
        x = tf.nn.relu(tf.matmul(x[:, :3], first) + tf.matmul(x[:, 3:], second), name="hidden")
    with tf.variable_scope("classes"):
        weights = variable("weights", [16, 5], 0, 1)
        return tf.nn.xw_plus_b(x, weights, tf.get_variable("biases", [5], initializer=tf.zeros_initializer()))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "resource"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The net as it was trained, with the slots of its optimizer, and photos."""
    folder = tmp_path_factory.mktemp("parts")
    with building(Style(resource=request.param)), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        labels = tf.placeholder(tf.int64, [None], "labels")
        logits = net(images)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        step = tf.train.AdamOptimizer(0.01).minimize(loss)
        session.run(tf.global_variables_initializer())
        session.run(step, {images: IMAGES, labels: range(4)})
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_state=False)
    tiny_net.write_photos(folder / "photos", train=8, validation=2)
    return folder


def logits_of(prefix: Path, meta: Path) -> np.ndarray:
    """What TensorFlow's own import and Saver make of a checkpoint and the old graph."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.import_meta_graph(str(meta)).restore(session, str(prefix))
        return session.run("classes/xw_plus_b:0", {"images:0": IMAGES})


def imported_logits(file: GraphFile, folder: Path) -> np.ndarray:
    found = analyse(file)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        made = import_net(file, found, images)
        tensors = open_checkpoint(folder / "model.ckpt").tensors
        for name, each in made.variables.items():
            each.load(tensors[name].load(), session)
        return session.run(made.logits, {images: IMAGES})


def test_parts_are_put_together(files: Path) -> None:
    file = read_graph(files / "model.ckpt.meta")
    found = analyse(file)
    assert not found.conflicts
    assert {each.key: each.spec.shape for each in found.variables} == {**WHOLES, "classes/biases": (5,)}
    assert all(each.trainable for each in found.variables)
    assert {each.initializer.kind for each in found.variables} == {"truncated_normal", "constant"}
    assert (found.features, found.width, found.classes) == ("hidden/hidden", 16, 5)
    assert (
        imported_logits(file, files).tobytes() == logits_of(files / "model.ckpt", files / "model.ckpt.meta").tobytes()
    )


def test_the_old_graph_restores_its_parts_from_what_was_trained(files: Path, tmp_path: Path) -> None:
    common = {
        "checkpoint": str(files / "model.ckpt"), "data": str(files / "photos"), "preprocessing": "unit",
        "cache_dir": str(tmp_path / "cache"), "batch_size": 8, "steps": 5, "learning_rate": 0.05, "device": "cpu",
    }  # fmt: skip
    old = logits_of(files / "model.ckpt", files / "model.ckpt.meta")
    before = open_checkpoint(files / "model.ckpt").tensors
    for name, trained in (("head", ()), ("deep", ("hidden", "conv"))):
        run = tmp_path / name
        finetune(Options(**common, head_scope="Logits", trainable=("Logits", *trained), train_dir=str(run)))
        new = logits_of(run / "model.ckpt-5", files / "model.ckpt.meta")
        assert (new.tobytes() == old.tobytes()) is (name == "head")
        after = open_checkpoint(run / "model.ckpt-5").tensors
        changed = {each for each in WHOLES if not np.array_equal(before[each].load(), after[each].load())}
        assert changed == {each for each in WHOLES if each.startswith(trained or "none")}
        assert evaluate.main(["--train-dir", str(run), "--output", str(tmp_path / f"{name} evaluated")]) == 0


def test_the_old_place_takes_another_number_of_classes(files: Path, capsys: pytest.CaptureFixture) -> None:
    argv = [str(files / "model.ckpt"), "--num-classes", "3", "--exclude", "classes", "--trainable", "classes", "--json"]
    assert plan.main(argv) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"] if row["action"] != "unused"}
    assert rows["classes/weights"]["target_shape"] == [16, 3]
    assert rows["hidden/weights"]["action"] == "restore"


def test_parts_that_make_up_no_whole_stay_parts(tmp_path: Path) -> None:
    with building(Style()):
        logits = net(tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images"))
        tf.nn.softmax(logits)
        kept = [each for each in tf.global_variables() if each.op.name != "conv/weights/part_1"]
        tf.train.Saver(kept)
        tf.train.export_meta_graph(str(tmp_path / "m.meta"), collection_list=[])
    found = analyse(read_graph(tmp_path / "m.meta"))
    names = {each.name for each in found.variables}
    assert {f"conv/weights/part_{number}" for number in range(3)} < names
    assert "hidden/weights" in {each.key for each in found.variables}


def test_a_function_makes_them_too(tmp_path: Path) -> None:
    code = """
        import tensorflow as tf

        def build(images, num_classes):
            parts = tf.fixed_size_partitioner(2)
            x = tf.reshape(images, [-1, 8 * 8 * 3])
            x = tf.nn.relu(tf.matmul(x, tf.get_variable("hidden/weights", [8 * 8 * 3, 6], partitioner=parts)))
            return tf.matmul(x, tf.get_variable("classes/weights", [6, num_classes], partitioner=parts))
    """
    (tmp_path / "nets.py").write_text(dedent(code))
    made = net_of_function(f"{tmp_path}/nets.py:build", image_size=8)
    assert [(row.name, row.shape) for row in made.table] == [("hidden/weights", (192, 6)), ("classes/weights", (6, -1))]
