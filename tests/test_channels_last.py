"""Nets with channels first give the same values as the same code with channels last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_net

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import SIDE, Style, building  # noqa: E402

from ckpt_tools.cli import finetune as finetune_command  # noqa: E402
from ckpt_tools.cli import inspect, predict  # noqa: E402
from ckpt_tools.formats.graph_file import read_graph  # noqa: E402
from ckpt_tools.graphs.analysis import Analysis, analyse  # noqa: E402
from ckpt_tools.graphs.choosing import Choices  # noqa: E402
from ckpt_tools.nets.imported import import_net  # noqa: E402

IMAGES = np.random.default_rng(6).uniform(size=(4, SIDE, SIDE, 3)).astype("float32")


class Builder:
    """The layers of a net in either order; what lies between is written for both."""

    def __init__(self, first: bool, training: bool) -> None:
        self.first, self.training = first, training
        self.format, self.axis, self.sides = ("NCHW", 1, [2, 3]) if first else ("NHWC", 3, [1, 2])

    def four(self, side: int) -> list[int]:
        return [1, 1, side, side] if self.first else [1, side, side, 1]

    def conv(self, x: object, name: str, channels: int, side: int = 3, **how: object) -> object:
        kernel = tf.get_variable(f"{name}/weights", [side, side, x.shape[self.axis], channels])
        how = {"strides": self.four(1), "padding": "SAME", **how}
        return tf.nn.conv2d(x, kernel, data_format=self.format, name=name, **how)

    def bias(self, x: object, name: str) -> object:
        return tf.nn.bias_add(x, tf.get_variable(f"{name}/biases", [x.shape[self.axis]]), data_format=self.format)

    def norm(self, x: object, name: str) -> object:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (
            tf.get_variable(f"{name}/{each}", [x.shape[self.axis]], trainable=each < "h") for each in names
        )
        how = {"epsilon": 1e-3, "data_format": self.format}
        if not self.training:
            return tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, is_training=False, **how)[0]
        y, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, gamma, beta, **how)
        for moving, value in ((mean, batch_mean), (variance, batch_variance)):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, 0.1 * (moving - value)))
        return y

    def net(self, images: object, flat: bool, pad: bool = True) -> object:
        x = self.norm(self.conv(images * 2.0 - 1.0, "conv1", 6), "bn1")
        x = tf.nn.relu(x)
        if pad:
            sides = [[0, 0], [1, 1], [2, 1]]
            x = tf.pad(x, [sides[0], *([sides[0], *sides[1:]] if self.first else [*sides[1:], sides[0]])])
        left = tf.nn.leaky_relu(self.bias(self.conv(x, "left", 4, strides=self.four(2)), "left"), 0.1)
        depth = tf.get_variable("depth/weights", [3, 3, 6, 1])
        right = tf.nn.depthwise_conv2d(x, depth, self.four(2), "SAME", data_format=self.format)
        x = tf.concat([left, self.bias(self.conv(right, "right", 4, 1), "right")], self.axis)
        x = x + self.conv(x, "residual", 8)
        x = tf.nn.max_pool(x, self.four(2), self.four(2), "VALID", data_format=self.format, name="pool")
        attended = tf.sigmoid(self.conv(tf.reduce_mean(x, self.sides, keepdims=True), "squeeze", 8, 1))
        x = x * attended * tf.get_variable("scale", [1, 8, 1, 1] if self.first else [1, 1, 1, 8])
        x = tf.nn.avg_pool(x, self.four(2), self.four(1), "SAME", data_format=self.format)
        if flat:
            x = x if self.first else tf.transpose(x, [0, 3, 1, 2])
            x = tf.reshape(x, [-1, int(np.prod(x.shape[1:].as_list()))])
        else:
            x = tf.reduce_mean(x, self.sides, name="features")
        return tf.matmul(x, tf.get_variable("classes/weights", [x.shape[1], 5]), name="logits")


def values() -> dict[str, np.ndarray]:
    """Of every variable, by name; `scale` as it is with the channels last."""
    random = np.random.default_rng(7)
    shapes = {
        "conv1/weights": (3, 3, 3, 6), "left/weights": (3, 3, 6, 4), "left/biases": 4, "depth/weights": (3, 3, 6, 1),
        "right/weights": (1, 1, 6, 4), "right/biases": 4, "residual/weights": (3, 3, 8, 8), "scale": (1, 1, 1, 8),
        "squeeze/weights": (1, 1, 8, 8), **{f"bn1/{each}": 6 for each in ("gamma", "beta", "moving_mean")},
    }  # fmt: skip
    made = {name: random.normal(0, 0.5, shape).astype("float32") for name, shape in shapes.items()}
    return made | {"bn1/moving_variance": random.uniform(0.5, 1, 6).astype("float32")}


def loaded(session: object, classes: np.ndarray) -> None:
    for variable in tf.global_variables():
        found = {**values(), "classes/weights": classes}.get(variable.op.name)
        if found is not None:
            variable.load(found.reshape(variable.shape.as_list()), session)


def wanted(flat: bool, pad: bool) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the code with the channels last, and the weights of its last layer."""
    with building(Style()), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        logits = Builder(False, False).net(images, flat, pad)
        classes = np.random.default_rng(8).normal(size=tf.global_variables()[-1].shape.as_list()).astype("float32")
        loaded(session, classes)
        return session.run(logits, {images: IMAGES}), classes


def save(path: Path, how: str, flat: bool, pad: bool = True, classes: np.ndarray | None = None) -> Analysis:
    """The MetaGraph of the code with the channels first, which is fed images in either order; its checkpoint, too."""
    with building(Style()), tf.Session() as session:
        if how == "first":
            images = tf.placeholder(tf.float32, [None, 3, SIDE, SIDE], "images")
        else:
            images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = images if how == "first" else tf.transpose(images, [0, 3, 1, 2])
        logits = Builder(True, True).net(x, flat, pad)
        labels = tf.placeholder(tf.int64, [None])
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loaded(session, np.zeros([logits.op.inputs[1].shape[0], 5], "float32") if classes is None else classes)
        tf.train.Saver().save(session, str(path), write_state=False)
    return analyse(read_graph(f"{path}.meta"))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("how", ["first", "transposed"])
def test_the_same_values_as_with_the_channels_last(tmp_path: Path, how: str, flat: bool) -> None:
    expected, classes = wanted(flat, True)
    found = save(tmp_path / "m.ckpt", how, flat)
    assert not found.conflicts
    assert found.fed.shape == (None, SIDE, SIDE, 3)
    formats = {node.words("data_format") for node in found.cut.graph.nodes.values()}
    assert formats <= {"", "NHWC"}
    file = read_graph(tmp_path / "m.ckpt.meta")
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        made = import_net(file, found, images)
        loaded(session, classes)
        got = session.run(made.logits, {images: IMAGES})
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    turns = [node for node in found.cut.graph.nodes.values() if node.op == "Transpose"]
    assert len(turns) <= 1 + flat  # of `scale`; and in front of what flattens


def test_maps_in_the_middle_are_features(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt", "first", False)
    file = read_graph(tmp_path / "m.ckpt.meta")
    found = analyse(file, Choices(features="pool"))
    assert (found.width, found.end_points["pool"]) == (8, (None, 3, 4, 8))
    with tf.Graph().as_default():
        made = import_net(file, found, tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]), logits=False)
        assert made.features.shape.as_list() == [None, 8]


def test_such_a_net_is_trained_and_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "m.ckpt", "first", True)
    tiny_net.write_photos(tmp_path / "photos", train=6, validation=2)
    assert inspect.main([str(tmp_path / "m.ckpt.meta")]) == 0
    assert "images       images float32 [?,12,12,3]; channels moved last\n" in capsys.readouterr().out
    run = ["--train-dir", str(tmp_path / "run")]
    how = ["--exclude", "classes", "--trainable", "classes,residual,bn1", "--steps", "3", "--preprocessing", "unit"]
    where = ["--checkpoint", str(tmp_path / "m.ckpt"), "--data", str(tmp_path / "photos"), "--cache", "off"]
    assert finetune_command.main([*where, *run, *how, "--device", "cpu"]) == 0
    assert predict.main([*run, str(next((tmp_path / "photos").rglob("*.png")))]) == 0
