"""Analysis of unknown graphs: what is found, what the user must decide, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools.cli.inspect import main as inspect
from ckpt_tools.errors import CheckpointError, DamagedError, SelectionError, UnsupportedError
from ckpt_tools.formats.constants import constant
from ckpt_tools.formats.graph_file import GraphFile, graph_bytes, read_graph
from ckpt_tools.formats.nodes import Node, attribute, shape_value, truth_value, type_value
from ckpt_tools.formats.proto import put_bytes
from ckpt_tools.graphs.analysis import Analysis, Choices, analyse
from ckpt_tools.graphs.net import part_of
from ckpt_tools.graphs.operations import known_operations
from ckpt_tools.graphs.values import Values
from ckpt_tools.nets.from_graph import net_from

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import CLASSES, SIDE, STYLES, Style, building, net, save_training  # noqa: E402


def saved(path: Path, build: Callable[[], object], style: Style = STYLES["plain"]) -> GraphFile:
    """The MetaGraph of what `build` makes."""
    with building(style):
        build()
        if tf.global_variables():
            tf.train.Saver()
        tf.train.export_meta_graph(str(path / "g.meta"))
    return read_graph(path / "g.meta")


def images(batch: int | None = None, side: int = SIDE) -> object:
    return tf.placeholder(tf.float32, [batch, side, side, 3], "images")


def classified(logits: object, classes: int = CLASSES) -> None:
    labels = tf.placeholder(tf.int64, [None], "labels")
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, name="loss")


def causes(found: Analysis) -> list[str]:
    return [conflict.cause for conflict in found.conflicts]


def conv(x: object, name: str, channels: int = 4) -> object:
    with tf.variable_scope(name):
        return tf.nn.relu(tf.nn.conv2d(x, tf.get_variable("weights", [3, 3, x.shape[-1], channels]), 1, "SAME"))


def dense(x: object, name: str, units: int) -> object:
    with tf.variable_scope(name):
        return tf.matmul(x, tf.get_variable("weights", [x.shape[-1], units])) + tf.get_variable("biases", [units])


def small(x: object, name: str = "net") -> object:
    with tf.variable_scope(name):
        return dense(tf.reduce_mean(conv(x, "conv"), [1, 2]), "fc", CLASSES)


# --- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
def test_images_features_and_classes_of_every_style(tmp_path: Path, name: str) -> None:
    save_training(STYLES[name], str(tmp_path / "m.meta"))
    found = analyse(read_graph(tmp_path / "m.meta"))
    assert not found.conflicts
    assert found.images.tensor == ("batch" if STYLES[name].queue else "images")
    assert (found.features, found.width, found.classes) == ("hidden/Relu", 16, CLASSES)
    assert found.logits == "classes/xw_plus_b"
    assert len(found.net.graph.nodes) < found.operations / 4
    assert {each.name for each in found.variables if not each.trainable} == {
        each.name for each in found.variables if each.name.rpartition("/")[2] not in _TRAINED
    }


_TRAINED = {"weights", "biases", "beta", "gamma", "scale", "offset"}


def test_what_inspect_shows(GOLDEN: Path, capsys: pytest.CaptureFixture) -> None:
    meta = str(GOLDEN / "tf221_graph" / "model.ckpt.meta")
    assert inspect([meta]) == 0
    assert capsys.readouterr().out == SHOWN
    assert inspect([meta, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == {"tensor": "images", "dtype": "float32", "shape": [None, SIDE, SIDE, 3]}
    assert document["end_points"][0] == {"name": "conv1/Relu", "shape": [None, SIDE, SIDE, 6]}
    assert document["switches"] == {"is_training": False}
    assert document["variables"][0]["in_checkpoint"] is True
    assert document["conflicts"] == [] and document["unknown_operations"] == {}


SHOWN = """\
graph        model.ckpt.meta: MetaGraph, TensorFlow 2.21.0, 540 operations, 42 of them in the net
images       images float32 [?,12,12,3]
features     hidden/Relu, 16 values
logits       classes/xw_plus_b, 5 classes
is_training  False (1 condition resolved)
variables    12, 8 of them trainable, 719 parameters
checkpoint   model.ckpt has all of them

end point    shape
-----------  -----------
conv1/Relu   [?,12,12,6]
conv2/Relu   [?,12,12,6]
pool         [?,6,6,6]
global_pool  [?,6]
hidden/Relu  [?,16]

variable                         dtype    shape      trainable  checkpoint
-------------------------------  -------  ---------  ---------  ----------
conv1/weights                    float32  [3,3,3,6]  yes        has it
conv1/BatchNorm/beta             float32  [6]        yes        has it
conv1/BatchNorm/moving_mean      float32  [6]                   has it
conv1/BatchNorm/moving_variance  float32  [6]                   has it
conv2/weights                    float32  [3,3,6,6]  yes        has it
conv2/BatchNorm/beta             float32  [6]        yes        has it
conv2/BatchNorm/moving_mean      float32  [6]                   has it
conv2/BatchNorm/moving_variance  float32  [6]                   has it
hidden/weights                   float32  [6,16]     yes        has it
hidden/biases                    float32  [16]       yes        has it
classes/weights                  float32  [16,5]     yes        has it
classes/biases                   float32  [5]        yes        has it
"""


def test_the_checkpoint_beside_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        classified(small(images()))
        session.run(tf.global_variables_initializer())
        kept = [each for each in tf.global_variables() if "biases" not in each.name]
        tf.train.Saver({f"old/{each.op.name}": each for each in kept}).save(session, str(tmp_path / "m.ckpt"))
    assert inspect([str(tmp_path / "m.ckpt.meta")]) == 0
    shown = capsys.readouterr().out
    assert "checkpoint   m.ckpt lacks 1 of them: net/fc/biases\n" in shown
    assert "old/net/conv/weights  float32  [3,3,3,4]  yes        has it" in shown
    assert "net/fc/biases         float32  [5]        yes        lacks it" in shown
    assert inspect([str(tmp_path / "m.ckpt"), "--graph"]) == 0
    assert capsys.readouterr().out == shown
    assert inspect([str(tmp_path / "m.ckpt.meta"), "--names"]) == 0  # the checkpoint's tensors, as it ever was
    assert capsys.readouterr().out.split() == ["old/net/conv/weights", "old/net/fc/weights"]


def test_two_towers_of_one_net_are_one_net(tmp_path: Path) -> None:
    def build() -> None:
        x = images()
        for reuse in (False, True):
            with tf.variable_scope("tower", reuse=reuse):
                classified(net(STYLES["slim fused"], x, not reuse))

    found = analyse(saved(tmp_path, build))
    assert not found.conflicts
    assert found.width == 16


def with_sigmoids(logits: object, how: str) -> None:
    """A sigmoid cross entropy, as TensorFlow spells it, did before 1.0, and does with weights; nothing is predicted."""
    labels = tf.placeholder(tf.float32, [None, CLASSES], "labels")
    if how == "0.x":
        loss = tf.nn.relu(logits) - logits * labels + tf.log(1.0 + tf.exp(-tf.abs(logits)))
    elif how == "weighted":
        loss = tf.nn.weighted_cross_entropy_with_logits(labels=labels, logits=logits, pos_weight=2.0)
    else:
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))


@pytest.mark.parametrize("how", ["today", "weighted", "0.x"])
def test_a_loss_of_sigmoids_tells_the_logits(tmp_path: Path, how: str) -> None:
    found = analyse(saved(tmp_path, lambda: with_sigmoids(small(images()), how)))
    assert not found.conflicts
    assert (found.logits, found.classes, found.features) == ("net/fc/add", CLASSES, "net/Mean")


def test_a_logarithm_that_is_no_loss_tells_nothing(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2])
        tf.nn.softmax(dense(tf.log1p(tf.exp(-tf.abs(dense(x, "hidden", 8)))), "fc", CLASSES))

    assert analyse(saved(tmp_path, build)).logits == "fc/add"


@pytest.mark.parametrize("equation", ["bi,io->bo", "bi,oi->bo", "io,bi->bo"])
def test_a_head_by_einsum(tmp_path: Path, equation: str) -> None:
    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2], name="features")
        sides = {"io": [4, CLASSES], "oi": [CLASSES, 4]}
        weights = tf.get_variable("fc/weights", next(sides[each] for each in sides if each in equation))
        operands = (weights, x) if equation.startswith("io") else (x, weights)
        tf.nn.softmax(tf.add(tf.einsum(equation, *operands), tf.get_variable("fc/biases", [CLASSES]), name="logits"))

    found = analyse(saved(tmp_path, build))
    assert not found.conflicts
    assert (found.features, found.width, found.logits, found.classes) == ("features", 4, "logits", CLASSES)
    rows = {row.name: row.shape for row in net_from(part_of(read_graph(tmp_path / "g.meta"), found)).table}
    assert rows["fc/weights"] == ((-1, 4) if "oi" in equation else (4, -1))


def test_two_heads_on_one_net_are_listed(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2], name="features")
        classified(dense(x, "age", 7))
        classified(dense(x, "gender", 2))

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert conflict.cause == "several heads on one net"
    assert set(conflict.names) == {"age/add", "gender/add"}
    assert conflict.advice == f"Choose one: --logits {conflict.names[0]}. --features features takes neither."
    found = analyse(file, Choices(logits="gender/add"))
    assert (found.features, found.width, found.classes, found.conflicts) == ("features", 4, 2, ())
    assert analyse(file, Choices(features="features")).logits == ""


def test_heads_of_several_towers_are_one(tmp_path: Path) -> None:
    def build() -> None:
        for tower, part in enumerate(tf.split(images(4), 2)):
            with tf.name_scope(f"tower_{tower}"), tf.variable_scope("", reuse=tower > 0):
                classified(small(part))

    file = saved(tmp_path, build)
    found = analyse(file)
    assert (found.classes, found.fed.shape, found.conflicts) == (CLASSES, (4, SIDE, SIDE, 3), ())
    assert "Split" not in {node.op for node in found.cut.graph.nodes.values()}  # each takes all images


def test_a_split_of_something_else_stays(tmp_path: Path) -> None:
    """Columns first: the last part of axis 0 is not a part of the images."""

    def build() -> None:
        columns = tf.transpose(images(4), [2, 0, 1, 3])
        last = tf.reshape(tf.split(columns, SIDE)[-1], [-1, SIDE * 3])
        classified(dense(last, "fc", CLASSES))

    assert "Split" in {node.op for node in analyse(saved(tmp_path, build)).cut.graph.nodes.values()}


def test_a_long_name_is_apart_from_its_value(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def build() -> None:
        training = tf.placeholder(tf.bool, [], "keras_learning_phase")
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2])
        x = tf.cond(training, lambda: tf.nn.dropout(x, rate=0.5), lambda: x)
        tf.sigmoid(dense(x, "fc", 1))

    saved(tmp_path, build)
    assert inspect([str(tmp_path / "g.meta")]) == 0
    shown = capsys.readouterr().out
    assert "\nkeras_learning_phase False (1 condition resolved)\n" in shown
    assert "\nlogits       fc/add, 1 class\n" in shown


def test_clips_are_no_images(tmp_path: Path) -> None:
    def build() -> None:
        clips = tf.placeholder(tf.float32, [None, 4, SIDE, SIDE, 3], "clips")
        x = tf.reduce_mean(conv(tf.reshape(clips, [-1, SIDE, SIDE, 3]), "conv"), [1, 2])
        classified(dense(tf.reduce_mean(tf.reshape(x, [-1, 4, 4]), 1), "fc", CLASSES))

    file = saved(tmp_path, build)
    with pytest.raises(UnsupportedError, match=r"the net takes \[\?,4,12,12,3\] at a time, several images per example"):
        net_from(part_of(file, analyse(file)))


def test_noise_on_the_images_is_cut_behind(tmp_path: Path) -> None:
    def build() -> None:
        x = images()
        classified(small(tf.add(x, tf.random_normal(tf.shape(x)), name="noisy")))

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert conflict.advice.endswith("cuts the net off before it; --input noisy takes images behind it.")
    assert analyse(file, Choices(input="noisy")).conflicts == ()


def test_an_auxiliary_head_is_not_the_head(tmp_path: Path) -> None:
    def build() -> None:
        x = conv(images(), "conv1")
        classified(dense(tf.reduce_mean(x, [1, 2]), "aux", CLASSES))
        classified(dense(tf.reduce_mean(conv(x, "conv2", 6), [1, 2]), "main", CLASSES))

    found = analyse(saved(tmp_path, build))
    assert (found.logits, found.width) == ("main/add", 6)


def test_softmax_inside_the_net_is_not_the_head(tmp_path: Path) -> None:
    def build() -> None:
        x = conv(images(), "conv")
        weights = tf.nn.softmax(dense(tf.reduce_mean(x, [1, 2]), "attention", 4))
        tf.nn.softmax(dense(tf.reduce_mean(x * weights[:, None, None, :], [1, 2]), "fc", CLASSES), name="predictions")

    found = analyse(saved(tmp_path, build))
    assert (found.logits, found.classes) == ("fc/add", CLASSES)


def test_a_graph_of_many_ends_in_the_one_that_loses(tmp_path: Path) -> None:
    def build() -> None:
        logits = small(images())
        classified(logits)
        for each in tf.trainable_variables():
            tf.summary.histogram(each.op.name, each)
        tf.nn.in_top_k(logits, tf.zeros([4], tf.int32), 1)

    assert analyse(saved(tmp_path, build)).logits == "net/fc/add"


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_several_models_in_one_graph(tmp_path: Path) -> None:
    def build() -> None:
        for name in ("first", "second"):
            classified(small(images(), name))

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert conflict.cause == "several models in one graph"
    assert set(conflict.names) == {"first/fc/add", "second/fc/add"}
    assert conflict.advice == f"Choose one: --logits {conflict.names[0]}."
    chosen = analyse(file, Choices(logits="second/fc/add:0"))
    assert not chosen.conflicts
    assert chosen.images.tensor == "images_1"
    assert {each.name.partition("/")[0] for each in chosen.variables} == {"second"}
    kept = analyse(file, saved=["first/conv/weights", "first/fc/weights", "first/fc/biases"])  # by its checkpoint
    assert (kept.logits, kept.conflicts) == ("first/fc/add", ())


def test_several_inputs(tmp_path: Path) -> None:
    def build() -> None:
        other = tf.placeholder(tf.float32, [None, 3], "sensors")
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2])
        classified(dense(tf.concat([x, other], 1), "fc", CLASSES))

    file = saved(tmp_path, build)
    found = analyse(file)
    assert causes(found) == ["several inputs"]
    assert found.conflicts[0].advice.startswith("The net takes more than images: --feed sensors=VALUE, or --features")
    assert found.conflicts[0].names == ("images", "sensors")
    assert analyse(file, Choices(features="Mean")).conflicts == ()
    with pytest.raises(SelectionError, match="the graph has no operation imags; did you mean images"):
        analyse(file, Choices(input="imags"))


def test_a_number_that_is_fed(tmp_path: Path) -> None:
    def build() -> None:
        bits = tf.placeholder(tf.float32, [], "bits")
        classified(dense(tf.reduce_mean(conv(images(), "conv") / bits, [1, 2]), "fc", CLASSES))

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert (conflict.cause, conflict.names) == ("values are needed", ("bits",))
    assert conflict.advice == "Give each a value: --feed bits=VALUE."
    assert not analyse(file, Choices(feeds={"bits": 32.0})).conflicts


def test_no_classes_leaves_a_feature_extractor(tmp_path: Path) -> None:
    def build() -> None:
        x = conv(images(), "conv")
        tf.identity(dense(tf.reduce_mean(x, [1, 2]), "box", 4), name="boxes")
        tf.identity(conv(x, "mask", 1), name="mask")

    file = saved(tmp_path, build)
    found = analyse(file)
    assert causes(found) == ["no classes found"]
    assert set(found.conflicts[0].names) == {"box/add", "mask/Relu"}
    assert "conv/Relu" in found.end_points
    chosen = analyse(file, Choices(features="conv/Relu"))
    assert (chosen.conflicts, chosen.features, chosen.width, chosen.pooled) == ((), "conv/Relu", 4, "mean")


def test_pixels_have_no_classes(tmp_path: Path) -> None:
    def build() -> None:
        classified(tf.reshape(conv(images(), "conv", CLASSES), [-1, CLASSES]))

    assert causes(analyse(saved(tmp_path, build))) == ["no classes found"]


def test_a_decoder_of_one_picture_is_cut_behind(tmp_path: Path) -> None:
    def build() -> None:
        picture = tf.image.decode_jpeg(tf.placeholder(tf.string, [], "contents"), channels=3, name="DecodeJpeg")
        x = tf.expand_dims(tf.cast(picture, tf.float32), 0, name="ExpandDims")
        x = (tf.raw_ops.ResizeBilinear(images=x, size=[SIDE, SIDE]) - 128) * (1 / 128)
        tf.nn.softmax(small(x))

    found = analyse(saved(tmp_path, build))
    assert not found.conflicts
    assert (found.images.tensor, found.images.dtype) == ("ExpandDims", "float32")


def test_pictures_that_are_decoded_in_a_loop_are_asked_for(tmp_path: Path) -> None:
    def build() -> None:
        contents = tf.placeholder(tf.string, [None], "encoded_images")

        def decode(content: object) -> object:
            picture = tf.image.convert_image_dtype(tf.image.decode_jpeg(content, channels=3), tf.float32)
            return tf.ensure_shape(picture, [SIDE, SIDE, 3])

        x = tf.map_fn(decode, contents, tf.float32)
        tf.nn.softmax(small(tf.identity(x, name="pictures")))

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert conflict.cause == "no images found"
    assert "pictures" in conflict.names
    chosen = analyse(file, Choices(input="pictures"))
    assert not chosen.conflicts
    assert (chosen.images.shape, chosen.images.dtype) == ((None, SIDE, SIDE, 3), "float32")


# --- what is refused ------------------------------------------------------------------------------------------------


def test_what_touches_more_than_its_tensors(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.numpy_function(lambda a: a, [conv(images(), "conv")], tf.float32)
        x.set_shape([None, SIDE, SIDE, 4])
        extra = tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)
        classified(dense(tf.reduce_mean(x, [1, 2]) + extra, "fc", CLASSES))

    found = analyse(saved(tmp_path, build))
    refused = next(each for each in found.conflicts if each.cause == "operations that are not allowed")
    assert "ReadFile" in refused.names
    assert "an imported net may use its own tensors only, not" in refused.advice


def test_refused_operations_are_found_in_functions_too(tmp_path: Path) -> None:
    from tensorflow import function, while_loop

    @function(autograph=False)
    def reads(x: object) -> object:
        def step(i: object, y: object) -> tuple:
            return i + 1, y + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)

        return while_loop(lambda i, y: i < 2, step, [0, x])[1]

    def build() -> None:
        classified(dense(tf.reduce_mean(reads(conv(images(), "conv")), [1, 2]), "fc", CLASSES))

    found = analyse(saved(tmp_path, build, Style(control_flow_v2=True)))
    assert causes(found) == ["operations that are not allowed"]
    assert "(ReadFile)" in found.conflicts[0].advice and "files" in found.conflicts[0].advice


def test_operations_that_are_not_known(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def build() -> None:
        x = tf.identity(conv(images(), "conv"), name="bilateral")
        classified(dense(tf.reduce_mean(x, [1, 2]), "fc", CLASSES))
        tf.identity(x, name="elsewhere")

    file = saved(tmp_path, build)
    nodes = [each._replace(op="BilateralSliceApply") if each.name == "bilateral" else each for each in file.nodes]
    nodes = [each._replace(op="Unheard") if each.name == "elsewhere" else each for each in nodes]
    found = analyse(file._replace(nodes=tuple(nodes)))
    (conflict,) = found.conflicts
    assert conflict.cause == "unknown operations in the net"
    assert conflict.advice == (
        "bilateral (BilateralSliceApply): this TensorFlow does not know it; "
        "--features conv/Relu cuts the net off before it."
    )
    assert analyse(file._replace(nodes=tuple(nodes)), Choices(features="conv/Relu")).conflicts == ()
    (tmp_path / "u.pb").write_bytes(graph_bytes(nodes, (), file.versions))
    assert inspect([str(tmp_path / "u.pb"), "--graph"]) == 0
    assert "unknown      to this TensorFlow: BilateralSliceApply (1), Unheard (1)" in capsys.readouterr().out


def test_noise_and_batch_norm_without_averages(tmp_path: Path) -> None:
    def noisy() -> None:
        x = conv(images(), "conv")
        classified(dense(tf.reduce_mean(x + tf.random_normal(tf.shape(x)), [1, 2]), "fc", CLASSES))

    assert causes(analyse(saved(tmp_path, noisy))) == ["the net draws random numbers"]

    def normalised() -> None:
        x = conv(images(), "conv")
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        x = tf.nn.batch_normalization(x, mean, variance, None, None, 1e-3)
        classified(dense(tf.reduce_mean(x, [1, 2]), "fc", CLASSES))

    assert causes(analyse(saved(tmp_path, normalised))) == ["batch norm without averages"]


def test_a_scale_in_front_of_dropout_stays(tmp_path: Path) -> None:
    """Only what divides by the share that is kept goes with dropout."""

    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2], name="pooled")
        x = tf.multiply(x, 0.25, name="quarter")
        mask = tf.floor(0.5 + tf.random_uniform(tf.shape(x)))
        classified(dense(x * mask / 0.5, "fc", CLASSES))

    found = analyse(saved(tmp_path, build))
    assert not found.conflicts
    assert found.features == "quarter"


def drawn(shape: tf.Tensor) -> tf.Tensor:
    return tf.random_uniform(shape)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x * tf.floor(0.5 + drawn(tf.shape(x))),  # without a scale: half of it is what is trained with
        lambda x: x * tf.floor(0.5 + drawn(tf.shape(x))) / 0.8,
        lambda x: x * 4.0 * tf.cast(drawn(tf.shape(x)) < 0.5, tf.float32),
        lambda x: x * drawn(tf.shape(x)) * 2.0,
        lambda x: x * drawn([]) + tf.nn.relu(x) * (1 - drawn([])),
        lambda x: x + 0.1 * x * tf.random_normal(tf.shape(x)),
        lambda x: tf.where(tf.random_normal(tf.shape(x)) > 0.0, x * 2.0, tf.zeros_like(x)),
    ],
)
def test_what_is_drawn_and_is_no_dropout_stays_in_the_way(tmp_path: Path, mixed: object) -> None:
    """Taken out, it would leave another function than the one that was trained."""

    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2], name="pooled")
        classified(dense(mixed(x), "fc", CLASSES))

    assert causes(analyse(saved(tmp_path, build))) == ["the net draws random numbers"]


def test_statistics_of_a_batch_norm_in_pieces_are_not_trained(tmp_path: Path) -> None:
    """In a frozen graph nothing but the structure says what they are."""
    for subtracts_first in (True, False):
        with tf.Graph().as_default() as graph, tf.Session() as session:
            x = tf.placeholder(tf.float32, [None, 6, 6, 3], "images")
            x = conv(x, "conv")
            get = lambda name: tf.get_variable(f"bn/{name}", [x.shape[-1]])  # noqa: B023, E731
            if subtracts_first:
                x = (x - get("a")) * tf.rsqrt(get("b") + 1e-3) * get("gamma") + get("beta")
            else:
                x = tf.nn.batch_normalization(x, get("a"), get("b"), get("beta"), get("gamma"), 1e-3)
            tf.nn.softmax(dense(tf.reduce_mean(tf.nn.relu(x), [1, 2]), "fc", CLASSES), name="out")
            session.run(tf.global_variables_initializer())
            made = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["out"])
        path = tmp_path / f"{subtracts_first}.pb"
        path.write_bytes(made.SerializeToString())
        still = {each.name for each in analyse(read_graph(path)).variables if not each.trainable}
        assert still == {"bn/a", "bn/b"}


# --- frozen graphs --------------------------------------------------------------------------------------------------


def test_a_frozen_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.nn.softmax(net(STYLES["slim fused, scale"], images(), False), name="predictions")
        session.run(tf.global_variables_initializer())
        names = [each.op.name for each in tf.global_variables()]
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["predictions"])
    (tmp_path / "f.pb").write_bytes(frozen.SerializeToString())
    found = analyse(read_graph(tmp_path / "f.pb"))
    assert not found.conflicts
    assert (found.logits, found.classes, found.width) == ("classes/xw_plus_b", CLASSES, 16)
    assert sorted(each.key for each in found.variables) == sorted(names)
    assert all(each.frozen for each in found.variables)
    assert {each.key for each in found.variables if not each.trainable} == {n for n in names if "moving_" in n}


# --- hostile graphs -------------------------------------------------------------------------------------------------


def file_of(*nodes: Node) -> GraphFile:
    return GraphFile("hostile.pb", "graphdef", nodes, {}, b"", 100)


def op(name: str, operation: str, *inputs: str, **attributes: bytes) -> Node:
    return Node(name, operation, inputs, tuple(attribute(key, value) for key, value in attributes.items()))


PLACEHOLDER = op("x", "Placeholder", dtype=type_value("float32"), shape=shape_value((None, 4, 4, 3)))
WEIGHTS = constant("w", np.ones((3, 3, 3, 2), "float32"))


def test_circles_come_to_an_end() -> None:
    around = [op("a", "Identity", "b"), op("b", "Identity", "a"), op("s", "Softmax", "a")]
    layer = op("c", "Conv2D", "x", "w")
    assert causes(analyse(file_of(PLACEHOLDER, WEIGHTS, layer, *around))) == []
    inside = [op("c", "Conv2D", "d", "w"), op("d", "Add", "x", "c"), op("s", "Softmax", "c")]
    with pytest.raises(DamagedError, match="depend on each other in a circle"):
        analyse(file_of(PLACEHOLDER, WEIGHTS, *inside))


def test_an_input_that_is_not_there() -> None:
    with pytest.raises(DamagedError, match="an input called gone is not in the graph"):
        analyse(
            file_of(
                PLACEHOLDER,
                WEIGHTS,
                op("c", "Conv2D", "x", "w"),
                op("m", "BiasAdd", "c", "gone"),
                op("s", "Softmax", "m"),
            )
        )


def test_deep_and_wide_graphs() -> None:
    chain = [op("i0", "Identity", "x"), *(op(f"i{n}", "Identity", f"i{n - 1}") for n in range(1, 5000))]
    last = [op("c", "Conv2D", "i4999", "w"), op("s", "Softmax", "c")]
    assert analyse(file_of(PLACEHOLDER, WEIGHTS, *chain, *last)).logits == "c"
    layers = [op("c0", "Conv2D", "x", "w"), *(op(f"c{n}", "Conv2D", f"c{n - 1}", "w") for n in range(1, 1000))]
    ends = [op(f"s{n}", "Softmax", f"c{n}") for n in range(1000)]
    assert analyse(file_of(PLACEHOLDER, WEIGHTS, *layers, *ends)).logits == "c999"


def test_functions_that_call_each_other_are_bounded(tmp_path: Path) -> None:
    def function(name: str, *calls: str) -> bytes:
        argument = put_bytes(1, b"x")
        signature = put_bytes(1, name.encode()) + put_bytes(2, argument) + put_bytes(3, put_bytes(1, b"y"))
        nodes = [op(f"n{i}", call, "x" if not i else f"n{i - 1}:y:0") for i, call in enumerate(calls)]
        returned = put_bytes(1, b"y") + put_bytes(2, f"n{len(nodes) - 1}:y:0".encode())
        body = b"".join(
            put_bytes(
                3,
                put_bytes(1, n.name.encode())
                + put_bytes(2, n.op.encode())
                + b"".join(put_bytes(3, i.encode()) for i in n.inputs),
            )
            for n in nodes
        )
        return put_bytes(1, put_bytes(1, signature) + body + put_bytes(4, returned))

    library = b"".join(function(f"f{i}", *[f"f{i + 1}"] * 10) for i in range(8)) + function("f8", "Identity")
    call = op("call", "f0", "x", T=type_value("float32"))
    (tmp_path / "g.pb").write_bytes(graph_bytes([PLACEHOLDER, call]) + put_bytes(2, library))
    with pytest.raises(DamagedError, match="the functions of the graph make more than 100,000 nodes"):
        analyse(read_graph(tmp_path / "g.pb"))
    (tmp_path / "g.pb").write_bytes(graph_bytes([PLACEHOLDER, call]) + put_bytes(2, function("f0", "f0")))
    with pytest.raises(DamagedError, match="call each other more than 50 deep"):
        analyse(read_graph(tmp_path / "g.pb"))


@pytest.mark.parametrize(
    "nodes",
    [
        [op("v", "Fill", "shape", "one")],
        [op("v", "Range", "zero", "shape", "one")],
        [op("v", "ConcatV2", *["big"] * 300, "zero")],
        [op("v", "Reshape", "one", "v")],
        [op("v", "StridedSlice", "big", "shape", "shape", "shape")],
        [op("v", "Sum", "big", "shape")],
        [op("v", "Gather", "big", "shape")],
        [op("v", "Const", value=put_bytes(8, b"\x08\x01\x12\x00" * 3))],
    ],
)
def test_small_values_stay_small(nodes: list[Node]) -> None:
    from ckpt_tools.graphs.graph import Graph

    given = {
        "shape": np.array([2**31 - 1, 2**20], "int64"),
        "one": np.array(1, "int64"),
        "zero": np.array(0, "int64"),
        "big": np.zeros(4096, "int64"),
    }
    made = Values(Graph([*(constant(name, value) for name, value in given.items()), *nodes]))("v")
    assert made is None or made.size <= 4096


def test_what_the_list_of_operations_says() -> None:
    known = known_operations()
    assert len(known) > 1500
    touched = {
        name: known[name].touches for name in ("Conv2D", "PyFunc", "ReadFile", "Send", "QueueDequeueV2", "Abort")
    }
    assert touched == {
        "Conv2D": "", "PyFunc": "python", "ReadFile": "files", "Send": "network", "QueueDequeueV2": "data",
        "Abort": "the process",
    }  # fmt: skip
    assert known["TensorArrayV3"].touches == "state" and known["RandomUniform"].touches == "random"
    assert known["ImmutableConst"].touches == "files" and known["AssignSub"].touches == "variables"
    assert known["FusedBatchNorm"].outputs[:3] == ("y", "batch_mean", "batch_variance")


@pytest.mark.parametrize("name", ["slim unfused, fed", "condition of TensorFlow 2", "queue"])
def test_mutants_of_a_graph_are_refused_or_harmless(tmp_path: Path, name: str) -> None:
    save_training(STYLES[name], str(tmp_path / "m.meta"))
    whole = (tmp_path / "m.meta").read_bytes()
    random = np.random.default_rng(0)
    seen = {"refused": 0, "asked": 0, "found": 0}
    for trial in range(100):
        broken = bytearray(whole)
        if trial % 5:
            for _ in range(1 + trial % 40):
                broken[random.integers(len(whole))] = random.integers(256)
        else:
            broken = broken[: random.integers(1, len(whole))]
        (tmp_path / "b.meta").write_bytes(broken)
        try:
            found = analyse(read_graph(tmp_path / "b.meta"))
            seen["asked" if found.conflicts else "found"] += 1
        except CheckpointError:
            seen["refused"] += 1
    assert seen["refused"] > 15


def in_parts() -> None:
    parts = {"partitioner": tf.fixed_size_partitioner(2)}
    x = tf.reshape(images(), [-1, SIDE * SIDE * 3])
    x = tf.nn.relu(tf.matmul(x, tf.get_variable("hidden", [SIDE * SIDE * 3, 6], **parts)))
    classified(tf.matmul(x, tf.get_variable("classes", [6, CLASSES], **parts)))


def channels_first() -> None:
    how = {"padding": "SAME", "data_format": "NCHW"}
    x = tf.transpose(images(), [0, 3, 1, 2])
    x = tf.pad(tf.nn.conv2d(x, tf.get_variable("conv", [3, 3, 3, 4]), 1, **how), [[0, 0], [0, 0], [1, 1], [1, 1]])
    x = tf.concat([x, tf.nn.relu(x)], 1) * tf.reduce_mean(x, [1, 2, 3], keepdims=True)
    x = tf.nn.max_pool(x, [1, 1, 2, 2], [1, 1, 2, 2], **how)
    classified(dense(tf.reduce_mean(x, [2, 3]), "fc", CLASSES))


@pytest.mark.parametrize("build", [None, in_parts, channels_first], ids=["slim", "in parts", "channels first"])
def test_mutants_of_nodes_are_refused_or_harmless(tmp_path: Path, build: Callable | None) -> None:
    """Whole nodes changed, so that the bytes stay a graph: inputs, operations, attributes of others."""
    if build is None:
        save_training(STYLES["slim unfused, fed"], str(tmp_path / "m.meta"))
    file = read_graph(tmp_path / "m.meta") if build is None else saved(tmp_path, build)
    assert not analyse(file).conflicts
    random = np.random.default_rng(1)
    names, ops = [node.name for node in file.nodes], sorted({node.op for node in file.nodes})
    seen = {"refused": 0, "asked": 0, "found": 0}
    for _ in range(200):
        nodes = list(file.nodes)
        for place in random.integers(len(nodes), size=random.integers(1, 30 if build is None else 8)):
            node, other = nodes[place], nodes[random.integers(len(nodes))]
            kind = random.integers(4)
            if kind == 0 and node.inputs:
                changed = list(node.inputs)
                changed[random.integers(len(changed))] = f"{random.choice(names)}:{random.integers(3)}"
                node = node._replace(inputs=tuple(changed))
            elif kind == 1:
                node = node._replace(op=str(random.choice(ops)))
            elif kind == 2:
                node = node._replace(attributes=other.attributes)
            else:
                node = node._replace(inputs=other.inputs)
            nodes[place] = node
        try:
            found = analyse(file._replace(nodes=tuple(nodes)))
            seen["asked" if found.conflicts else "found"] += 1
        except CheckpointError:
            seen["refused"] += 1
    assert min(seen.values()) > 5, seen


def test_flags_that_are_not_read_wrong() -> None:
    assert not op("n", "Op", is_training=truth_value(False)).truth("is_training", True)
    assert op("n", "Op").truth("is_training", True)
