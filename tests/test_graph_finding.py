"""Nets in the forms of public graph files: which tensors are images, features and classes, and which graphs are not
image classifiers at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import UnsupportedError
from ckpt_tools.formats.graph_file import GraphFile, read_graph
from ckpt_tools.graphs.analysis import Choices, analyse
from ckpt_tools.graphs.net import part_of
from ckpt_tools.graphs.text import facts
from ckpt_tools.nets.from_graph import net_from
from ckpt_tools.nets.resolving import Reference, resolve

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import CLASSES, SIDE, STYLES, building  # noqa: E402
from test_graph_analysis import causes, classified, conv, dense, images, saved, small  # noqa: E402


def test_what_retrain_py_may_be_fed_are_features(tmp_path: Path) -> None:
    """Its graphs hold a placeholder for bottlenecks that were computed before, whose default is the net."""

    def build() -> None:
        squeezed = dense(tf.reduce_mean(conv(images(1), "conv"), [1, 2]), "Logits", 7)
        bottleneck = tf.placeholder_with_default(squeezed, [None, 7], "input/BottleneckInputPlaceholder")
        tf.nn.softmax(dense(bottleneck, "final", CLASSES), name="final_result")

    found = analyse(saved(tmp_path, build))
    assert found.conflicts == ()
    assert (found.images.tensor, found.features, found.logits) == ("images", "Logits/add", "final/add")
    assert (found.width, found.classes) == (7, CLASSES)


def test_images_that_may_be_fed_in_the_place_of_a_queue_s(tmp_path: Path) -> None:
    def build() -> None:
        batch = tf.train.batch([tf.random_uniform([SIDE, SIDE, 3])], 4, name="batch")
        classified(small(tf.placeholder_with_default(batch, [None, SIDE, SIDE, 3], "fed")))

    found = analyse(saved(tmp_path, build))
    assert (found.conflicts, found.images.tensor) == ((), "fed")


def exported(path: Path, *, with_images: bool) -> GraphFile:
    """A SavedModel as TensorFlow Serving's first example wrote it: it takes records, of which the pixels are parsed."""
    with building(STYLES["plain"]), tf.Session() as session:
        records = tf.placeholder(tf.string, [None], "tf_example")
        # the file's own operation of that time: an image, behind a sparse feature
        parsed = tf.raw_ops.ParseExample(
            serialized=records, names=tf.constant([], tf.string), sparse_keys=["words"], dense_keys=["label", "image"],
            dense_defaults=[tf.constant([0], tf.int64), tf.constant([], tf.float32)], sparse_types=[tf.int64],
            dense_shapes=[[1], [SIDE * SIDE]], name="ParseExample",
        )  # fmt: skip
        pixels = tf.identity(parsed.dense_values[1], name="x")
        scores = tf.nn.softmax(dense(pixels, "fc", CLASSES), name="y")
        session.run(tf.global_variables_initializer())
        info = tf.saved_model.build_tensor_info
        make = tf.saved_model.build_signature_def
        signatures = {"serving_default": make({"inputs": info(records)}, {"scores": info(scores)}, "classify")}
        if with_images:
            signatures["predict_images"] = make({"images": info(pixels)}, {"scores": info(scores)}, "predict")
        builder = tf.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return read_graph(path)


@pytest.mark.parametrize("with_images", [True, False])
def test_pixels_that_are_parsed_of_records(tmp_path: Path, with_images: bool) -> None:
    found = analyse(exported(tmp_path / "export", with_images=with_images))
    assert found.conflicts == ()
    assert found.images.tensor == ("x" if with_images else "ParseExample:4")
    assert (found.images.dtype, found.images.shape) == ("float32", (None, SIDE * SIDE))
    assert (found.logits, found.classes, found.width) == ("fc/add", CLASSES, SIDE * SIDE)


def queues(axis: int) -> None:
    parts = [tf.train.batch([tf.random_uniform([SIDE, SIDE, 3])], 4, name=f"class_{i}") for i in range(3)]
    x = tf.concat([tf.cast(part, tf.float32) for part in parts], axis, name="all")
    classified(small(x))


def test_a_queue_for_each_class(tmp_path: Path) -> None:
    found = analyse(saved(tmp_path, lambda: queues(0)))
    assert found.conflicts == ()
    assert (found.images.tensor, found.images.shape) == ("all", (12, SIDE, SIDE, 3))
    assert "all" in found.changes.any_batch


def test_queues_that_are_put_side_by_side_are_several_inputs(tmp_path: Path) -> None:
    assert causes(analyse(saved(tmp_path, lambda: queues(3))))[0] == "several inputs"


def rows_norm(x: object, training: object) -> object:
    """Batch norm of rows, spelled out, on averages unless it trains."""
    with tf.variable_scope("BatchNorm"):
        make = {"shape": [x.shape[-1]]}
        beta = tf.get_variable("beta", initializer=tf.zeros_initializer, **make)
        moving = [tf.get_variable(name, initializer=tf.zeros_initializer, trainable=False, **make) for name in "mv"]
        batch = tf.nn.moments(x, [0])
        updates = [tf.assign(m, m * 0.9 + b * 0.1) for m, b in zip(moving, batch, strict=True)]

        def train() -> list:
            with tf.control_dependencies(updates):
                return [tf.identity(each) for each in batch]

        mean, variance = tf.cond(training, train, lambda: [tf.identity(each) for each in moving])
        return tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3)


def test_batch_norm_behind_the_last_layer(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2], name="pooled")
        product = tf.matmul(x, tf.get_variable("fc/weights", [4, CLASSES]))
        classified(rows_norm(product, tf.placeholder(tf.bool, [], "is_training")))

    found = analyse(saved(tmp_path, build))
    assert found.conflicts == ()
    assert (found.features, found.classes) == ("pooled", CLASSES)
    assert found.logits == "BatchNorm/batchnorm/add_1"
    assert [(flag.tensor, flag.value) for flag in found.flags] == [("is_training", False)]


def counted_range(x: object, name: str) -> object:
    """Rounding as training for whole numbers puts it in: the range is counted while it runs."""
    with tf.variable_scope(name):
        low, high = (
            tf.get_variable(end, [], initializer=tf.zeros_initializer, trainable=False) for end in ("min", "max")
        )
        low = tf.assign(low, tf.minimum(low, tf.reduce_min(x)), name="AssignMin")
        high = tf.assign(high, tf.maximum(high, tf.reduce_max(x)), name="AssignMax")
        return tf.quantization.fake_quant_with_min_max_vars(x, low, high)


def test_ranges_that_training_counts_are_read(tmp_path: Path) -> None:
    def build() -> None:
        x = counted_range(tf.reduce_mean(conv(images(), "conv"), [1, 2]), "act_quant")
        weights = counted_range(tf.get_variable("fc/weights", [4, CLASSES]), "weights_quant")
        classified(tf.matmul(x, weights, name="fc/MatMul"))

    found = analyse(saved(tmp_path, build))
    assert found.conflicts == ()
    assert (found.logits, found.classes, found.width) == ("fc/MatMul", CLASSES, 4)
    assert {"act_quant/min", "act_quant/max", "weights_quant/min"} <= {each.name for each in found.variables}
    assert not [node.name for node in found.net.graph.nodes.values() if node.op == "Assign"]


def test_constants_that_are_whole_numbers_stay_constants(tmp_path: Path) -> None:
    """Weights that quantize_graph.py made small."""
    with building(STYLES["plain"]) as graph:
        low, high = tf.constant(-1.0), tf.constant(1.0)
        rounded = tf.constant(np.arange(4 * CLASSES).reshape(4, CLASSES) % 250, tf.quint8, name="fc/weights_quantized")
        weights = tf.dequantize(rounded, low, high, mode="MIN_FIRST", name="fc/weights")
        kernel = tf.constant(np.ones((3, 3, 3, 4), "float32"), name="conv/weights")
        x = tf.reduce_mean(tf.nn.conv2d(images(), tf.identity(kernel), 1, "SAME"), [1, 2])
        tf.nn.softmax(tf.matmul(x, weights, name="fc/MatMul"))
        (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = analyse(read_graph(tmp_path / "net.pb"))
    assert (found.conflicts, found.classes) == ((), CLASSES)
    assert [each.name for each in found.variables] == ["conv/weights"]


def several(path: Path, trained: tuple[str, ...], names: tuple[str, ...] = ("first", "second", "third")) -> GraphFile:
    """A notebook's graph, in which the model was built again and again, and trained by Adam or RMSProp some of the
    times; with its checkpoint beside it."""
    with building(STYLES["plain"]), tf.Session() as session:
        for name in names:
            logits = small(images(), name)
            labels = tf.placeholder(tf.int64, [None], f"{name}_labels")
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            optimizer = tf.train.AdamOptimizer() if name != "second" else tf.train.RMSPropOptimizer(0.1)
            optimizer.minimize(loss, var_list=tf.trainable_variables(name), name=f"{name}_step")
        session.run(tf.global_variables_initializer())
        place = [tensor for op in session.graph.get_operations() for tensor in op.outputs if "images" in op.name]
        pixels = np.random.default_rng(0).uniform(size=(4, SIDE, SIDE, 3))
        for name in trained:
            fed = dict.fromkeys(place, pixels) | {f"{name}_labels:0": [0, 1, 2, 3]}
            session.run(f"{name}_step", fed)
        tf.train.Saver().save(session, str(path / "model.ckpt"))
    return read_graph(path / "model.ckpt.meta")


@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_of_several_models_the_one_that_was_trained(tmp_path: Path, name: str) -> None:
    file, source = several(tmp_path, (name,)), str(tmp_path / "model.ckpt")
    saved_names = list(open_checkpoint(source).tensors)
    found = analyse(file, saved=saved_names, source=source)
    assert (found.conflicts, found.logits, found.models) == ((), f"{name}/fc/add", 3)
    assert "; the trained one of 3 models" in facts(file, found, saved_names)
    net = resolve(Reference(), open_checkpoint(source).tensors.specs(), source)
    assert net.title == f"the trained one of 3 nets in model.ckpt.meta, which ends in {name}/fc/add"
    assert {row.name.partition("/")[0] for row in net.table} == {name}


@pytest.mark.parametrize("trained", [(), ("first", "third")])
def test_of_several_models_none_or_more_than_one_was_trained(tmp_path: Path, trained: tuple) -> None:
    file, source = several(tmp_path, trained), str(tmp_path / "model.ckpt")
    found = analyse(file, saved=list(open_checkpoint(source).tensors), source=source)
    assert causes(found) == ["several models in one graph"]
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()  # and where nobody can tell
    found = analyse(file, saved=list(open_checkpoint(source).tensors), source=source)
    assert causes(found) == ["several models in one graph"]


def test_a_model_that_was_imported_again_is_the_same_one(tmp_path: Path) -> None:
    """Each import brings its own Saver, which restores the copy from the same names."""
    with building(STYLES["plain"]), tf.Session():
        classified(small(images(), "net"))
        tf.train.Saver().export_meta_graph(str(tmp_path / "once.meta"))
    with tf.Graph().as_default():
        for _ in range(2):
            tf.train.import_meta_graph(str(tmp_path / "once.meta"))
        tf.train.export_meta_graph(str(tmp_path / "twice.meta"))
    found = analyse(read_graph(tmp_path / "twice.meta"))
    assert (found.conflicts, found.logits) == ((), "net/fc/add")
    assert {each.key.partition("/")[0] for each in found.variables} == {"net"}


def test_rows_that_are_made_into_pictures_at_once_are_given_as_pictures(tmp_path: Path) -> None:
    """Where they are no square ones: no image could be made of a number of values alone."""

    def build() -> None:
        rows = tf.placeholder(tf.float32, [None, 10 * SIDE], "rows")
        classified(small(tf.reshape(rows, [-1, 10, SIDE, 1], name="pictures")))

    file = saved(tmp_path, build)
    found = analyse(file)
    assert (found.conflicts, found.images.tensor, found.images.shape) == ((), "pictures", (None, 10, SIDE, 1))
    net = net_from(part_of(file, found))
    assert (net.image_size, net.input_channels) == (SIDE, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_the_placeholder_does_not_say(tmp_path: Path, channels: int) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, name="images")
        kernel = tf.get_variable("kernel", [3, 3, channels, 4])
        classified(dense(tf.reshape(tf.reduce_mean(tf.nn.conv2d(x, kernel, 1, "SAME"), [1, 2]), [-1, 4]), "fc", 5))

    file = saved(tmp_path, build)
    net = net_from(part_of(file, analyse(file)))
    assert (net.image_size, net.input_channels) == (0, channels)


# --- no classifier of images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "is_asked"), [(SIDE * SIDE, True), (CLASSES, False)])
def test_what_gives_back_its_input_has_no_classes(tmp_path: Path, units: int, is_asked: bool) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, SIDE * SIDE], "pixels")
        made = tf.sigmoid(dense(tf.nn.relu(dense(x, "encoder", 6)), "decoder", units))
        tf.reduce_mean(tf.square(made - tf.placeholder(tf.float32, [None, units], "wanted")), name="loss")

    found = analyse(saved(tmp_path, build))
    assert causes(found) == ["no classes found"] * is_asked
    assert [each.advice.partition(".")[0] for each in found.conflicts] == [
        "decoder/add has as many values as the input, and reconstructs it"
    ] * is_asked


def test_words_are_no_images(tmp_path: Path) -> None:
    def build() -> None:
        words = tf.placeholder(tf.int32, [None, 9], "words")
        looked_up = tf.nn.embedding_lookup(tf.get_variable("embedding", [50, 6]), words)
        classified(dense(tf.reduce_mean(looked_up, 1), "fc", CLASSES))

    (conflict,) = analyse(saved(tmp_path, build)).conflicts
    assert conflict.cause == "no images found"
    assert conflict.advice.startswith("words is looked up in a table, as words are: this is not a net for images.")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([None, 20], "the net takes rows of 20 values, which are not square images"),
        ([None, 49], "the net takes rows of 49 values, which are not square images"),  # a grid of 7 x 7 sensors
        ([None, 9, 30], r"the net takes \[\?,9,30\], which may be sequences, not images"),
    ],
)
def test_rows_and_sequences_are_no_pictures(tmp_path: Path, shape: list, said: str) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, shape, "sensors")
        classified(dense(tf.reshape(x, [-1, int(np.prod(shape[1:]))], name="flat"), "fc", CLASSES))

    file = saved(tmp_path, build)
    with pytest.raises(UnsupportedError, match=said) as caught:
        net_from(part_of(file, analyse(file)))
    assert caught.value.advice.startswith("If it is a net for images, --input NAME names a tensor that ")


# --- what to type -----------------------------------------------------------------------------------------------------


def test_pictures_that_are_changed_at_random_in_a_loop_are_taken_behind_it(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.map_fn(lambda image: image + tf.random_uniform([]), images(), name="changed")
        classified(small(x))

    file = saved(tmp_path, build)
    conflicts = {each.cause: each.advice for each in analyse(file).conflicts}
    name = "changed/TensorArrayV2Stack/TensorListStack"
    if name not in {node.name for node in file.nodes}:
        name = "changed/TensorArrayStack/TensorArrayGatherV3"
    assert conflicts["the net draws random numbers"].endswith(f"; --input {name} takes images behind it.")
    assert analyse(file, Choices(input=name)).conflicts == ()


def test_heads_that_no_loss_takes_are_all_listed(tmp_path: Path) -> None:
    """A head for each digit, put together."""

    def build() -> None:
        x = tf.reduce_mean(conv(images(), "conv"), [1, 2])
        digits = tf.stack([dense(x, f"digit_{i}", 10) for i in range(3)])
        tf.argmax(tf.transpose(digits, [1, 0, 2]), 2)

    file = saved(tmp_path, build)
    (conflict,) = analyse(file).conflicts
    assert conflict.cause == "no classes found"
    assert {name.partition("/")[0] for name in conflict.names} == {"digit_0", "digit_1", "digit_2"}
    assert analyse(file, Choices(logits="digit_1/add")).conflicts == ()
