"""Nets from graph files in every style of their time give the same bits as the original code in inference mode."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import (  # noqa: E402
    CHANNELS,
    CLASSES,
    SIDE,
    STYLES,
    Style,
    building,
    infer,
    net,
    norm_without_averages,
    save_training,
)

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.errors import CheckpointError, DamagedError, SelectionError, UnsupportedError  # noqa: E402
from ckpt_tools.formats.graph_file import read_graph  # noqa: E402
from ckpt_tools.graphs.analysis import analyse  # noqa: E402
from ckpt_tools.graphs.choosing import Choices  # noqa: E402
from ckpt_tools.graphs.net import part_of  # noqa: E402
from ckpt_tools.nets.from_graph import net_from  # noqa: E402
from ckpt_tools.nets.imported import check_import, import_net  # noqa: E402

IMAGES = np.random.default_rng(4).uniform(size=(5, SIDE, SIDE, 3)).astype("float32")


@functools.cache
def values_of(style: Style) -> dict[str, np.ndarray]:
    """A value for each variable of the net as it is built to infer."""
    random = np.random.default_rng(3)
    with building(style):
        net(style, tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]), False)
        shapes = {each.op.name: each.shape.as_list() for each in tf.global_variables()}
    made = {name: random.normal(0, 0.5, shape).astype("float32") for name, shape in shapes.items()}
    positive = ("variance", "pop_var", "Squeeze_1/ExponentialMovingAverage", "variance/ExponentialMovingAverage")
    return {name: np.abs(array) + 0.5 if name.endswith(positive) else array for name, array in made.items()}


def imported(path: Path, values: dict[str, np.ndarray], *batches: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Features and logits of the net in a graph file, for each batch of images."""
    file = read_graph(path)
    found = analyse(file)
    assert not found.conflicts
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, *batches[0].shape[1:]])
        made = import_net(file, found, fed)
        for name, variable in made.variables.items():
            session.run(variable.initializer, {variable.initializer.inputs[1]: values[name]})
        return [session.run({"features": made.features, "logits": made.logits}, {fed: batch}) for batch in batches]


@pytest.mark.parametrize("name", STYLES)
def test_the_same_bits_as_the_code_built_to_infer(tmp_path: Path, name: str) -> None:
    style = STYLES[name]
    save_training(style, str(tmp_path / "model.meta"))
    values = values_of(style)
    made, alone = imported(tmp_path / "model.meta", values, IMAGES, IMAGES[3:4])
    wanted = infer(style, values, IMAGES)
    assert made["logits"].tobytes() == wanted.tobytes()
    assert made["features"].shape == (len(IMAGES), 16)
    assert np.ptp(wanted, axis=0).min() > 0.01  # images make a difference
    np.testing.assert_allclose(alone["logits"], wanted[3:4], rtol=1e-4, atol=1e-5)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    style = STYLES["slim fused"]
    save_training(style, str(tmp_path / "model.meta"))
    values = values_of(style)
    wanted = infer(style, values, IMAGES)
    other = {**values, "conv2/BatchNorm/moving_mean": values["conv2/BatchNorm/moving_mean"] + 1}
    assert imported(tmp_path / "model.meta", other, IMAGES)[0]["logits"].tobytes() != wanted.tobytes()


def test_two_towers_share_variables(tmp_path: Path) -> None:
    style = STYLES["slim fused"]
    save_training(style, str(tmp_path / "model.meta"))
    file = read_graph(tmp_path / "model.meta")
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        towers = [import_net(file, analyse(file), images) for _ in range(2)]
        assert [each.op.name for each in towers[0].variables.values()] == list(values_of(style))
        assert all(a is b for a, b in zip(*(tower.variables.values() for tower in towers), strict=True))
        assert len(tf.global_variables()) == len(values_of(style))
        assert list(towers[0].end_points) == ["conv1/Relu", "conv2/Relu", "pool", "global_pool", "hidden/Relu"]
        assert towers[0].end_points["conv1/Relu"].shape.as_list() == [None, SIDE, SIDE, CHANNELS]
        assert towers[0].logits.shape.as_list() == [None, CLASSES]


def check(path: Path, style: Style) -> list[str]:
    file = read_graph(path)
    values = {name: lambda array=array: array for name, array in values_of(style).items()}
    return [conflict.cause for conflict in check_import(file, analyse(file), (SIDE, SIDE, 3), values)]


def test_the_check_before_training(tmp_path: Path) -> None:
    save_training(STYLES["queue"], str(tmp_path / "good.meta"))
    assert check(tmp_path / "good.meta", STYLES["queue"]) == []
    bad = Style(norm_without_averages)
    save_training(bad, str(tmp_path / "bad.meta"))
    assert [conflict.cause for conflict in analyse(read_graph(tmp_path / "bad.meta")).conflicts] == [
        "batch norm without averages"
    ]
    assert check(tmp_path / "bad.meta", bad) == ["images depend on each other"]


def exported(path: Path, build: object) -> Path:
    """The MetaGraph of what `build` makes, in the control flow of TensorFlow 1."""
    with building(Style()):
        build()
        tf.train.export_meta_graph(str(path / "g.meta"))
    return path / "g.meta"


def test_the_same_bits_as_a_session_of_the_original_graph(GOLDEN: Path) -> None:
    prefix = str(GOLDEN / "tf221_graph" / "model.ckpt")
    with tf.Graph().as_default() as graph, tf.Session() as session:
        saver = tf.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, prefix)
        wanted = session.run(
            {"features": "hidden/Relu:0", "logits": "classes/xw_plus_b:0"}, {"images:0": IMAGES, "is_training:0": False}
        )
        assert len(graph.get_operations()) == 540
    tensors = open_checkpoint(prefix).tensors
    (made,) = imported(Path(f"{prefix}.meta"), {name: tensors[name].load() for name in tensors}, IMAGES)
    assert all(made[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_a_loop_over_the_images(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = tf.map_fn(lambda image: (image - tf.reduce_mean(image)) * tf.constant(0.5), x, name="standardised")
        tf.nn.softmax(net(STYLES["plain"], x, False))

    path = exported(tmp_path, build)
    values = values_of(STYLES["plain"])
    with building(Style()), tf.Session() as session:
        build()
        for variable in tf.global_variables():
            session.run(variable.initializer, {variable.initializer.inputs[1]: values[variable.op.name]})
        wanted = session.run("classes/xw_plus_b:0", {"images:0": IMAGES})
    assert imported(path, values, IMAGES)[0]["logits"].tobytes() == wanted.tobytes()


def test_a_hub_module_gives_the_features_that_it_says(tmp_path: Path) -> None:
    """A SavedModel of TensorFlow 1 with a graph to infer and one that trains, whose signature gives feature vectors."""
    style = STYLES["slim fused"]
    builder = tf.saved_model.Builder(str(tmp_path / "module"))
    for tags, training in (([], False), (["train"], True)):
        with building(style), tf.Session() as session:
            images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
            net(style, images, training)
            vector = tf.get_default_graph().get_tensor_by_name("global_pool:0")
            info = {name: tf.saved_model.build_tensor_info(each) for name, each in (("i", images), ("o", vector))}
            signature = tf.saved_model.build_signature_def({"images": info["i"]}, {"default": info["o"]})
            if training:
                builder.add_meta_graph(tags, {"default": signature})
            else:
                for variable in tf.global_variables():
                    value = values_of(style)[variable.op.name]
                    session.run(variable.initializer, {variable.initializer.inputs[1]: value})
                builder.add_meta_graph_and_variables(session, tags, {"default": signature})
                wanted = session.run(vector, {images: IMAGES})
    builder.save()
    file = read_graph(tmp_path / "module")
    found = analyse(file)
    assert (found.conflicts, found.features, found.width, found.logits) == ((), "global_pool", CHANNELS, "")
    tensors = open_checkpoint(tmp_path / "module").tensors
    assert all(each.key in tensors for each in found.variables)
    (made,) = imported_features(file, found, {name: tensors[name].load() for name in tensors})
    assert made.tobytes() == wanted.tobytes()


def imported_features(file: object, found: object, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        made = import_net(file, found, fed)
        for name, variable in made.variables.items():
            session.run(variable.initializer, {variable.initializer.inputs[1]: values[name]})
        return [session.run(made.features, {fed: IMAGES})]


@pytest.mark.parametrize("thawed", [False, True])
def test_constants_of_a_frozen_graph_thaw(tmp_path: Path, thawed: bool) -> None:
    style, values = STYLES["slim fused, scale"], values_of(STYLES["slim fused, scale"])
    with building(Style()) as graph, tf.Session() as session:
        fed = tf.placeholder(tf.float32, [1, SIDE, SIDE, 3], "input")
        tf.nn.softmax(net(style, fed, False), name="predictions")
        for variable in tf.global_variables():
            session.run(variable.initializer, {variable.initializer.inputs[1]: values[variable.op.name]})
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["predictions"])
    (tmp_path / "f.pb").write_bytes(frozen.SerializeToString())
    file = read_graph(tmp_path / "f.pb")
    found = analyse(file)
    if thawed:
        file, found = (part := part_of(file, found)).file, part.found
    tensors = open_checkpoint(tmp_path / "f.pb").tensors
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        made = import_net(file, found, fed)
        assert len(made.variables) == (len(values) if thawed else 0)
        for name, variable in made.variables.items():
            session.run(variable.initializer, {variable.initializer.inputs[1]: tensors[name].load()})
        if thawed:
            gradients = tf.gradients(
                made.logits, [made.variables[each.name] for each in found.variables if each.trainable]
            )
            assert None not in gradients
        assert session.run(made.logits, {fed: IMAGES}).tobytes() == infer(style, values, IMAGES).tobytes()


@pytest.mark.parametrize(
    ("dtype", "shape", "given"),
    [
        ("float32", [None, SIDE * SIDE * 3], (SIDE, SIDE, 3)),
        ("float32", [None, SIDE, SIDE], (SIDE, SIDE, 1)),
        ("uint8", [4, SIDE, SIDE, 3], (SIDE, SIDE, 3)),
        ("float16", [None, SIDE, SIDE, 3], (SIDE, SIDE, 3)),
    ],
)
def test_images_are_given_as_the_net_takes_them(tmp_path: Path, dtype: str, shape: list, given: tuple) -> None:
    def build() -> None:
        x = tf.cast(tf.placeholder(dtype, shape, "images"), tf.float32)
        x = tf.reshape(x, [-1, int(np.prod(given))])
        tf.nn.softmax(tf.matmul(x, tf.get_variable("weights", [x.shape[-1], CLASSES])))

    file = read_graph(exported(tmp_path, build))
    random = np.random.default_rng(0)
    weights = random.normal(size=(int(np.prod(given)), CLASSES)).astype("float32")
    images = random.uniform(0, 300, (2, *given)).astype("float32")
    made = imported(tmp_path / "g.meta", {"weights": weights}, images)[0]["logits"]
    seen = np.clip(np.round(images), 0, 255).astype("uint8") if dtype == "uint8" else images.astype(dtype)
    np.testing.assert_allclose(made, seen.reshape(2, -1).astype("float32") @ weights, rtol=1e-4)
    with tf.Graph().as_default(), pytest.raises(UnsupportedError, match="the net takes"):
        import_net(file, analyse(file), tf.placeholder(tf.float32, [None, SIDE + 1, SIDE, 2]))


@pytest.mark.parametrize("shape", [[None, 6, SIDE, 3], [None, SIDE, 6, 3], [None, 6, SIDE, 1]])
def test_images_that_are_not_square_are_squeezed(tmp_path: Path, shape: list) -> None:
    """From squares of the longer side, as all images are resized here."""

    def build() -> None:
        x = tf.reshape(tf.placeholder(tf.float32, shape, "images"), [-1, int(np.prod(shape[1:]))])
        tf.nn.softmax(tf.matmul(x, tf.get_variable("weights", [x.shape[-1], CLASSES])))

    file = read_graph(exported(tmp_path, build))
    found = analyse(file)
    channels = shape[3]
    net = net_from(part_of(file, found))
    assert (net.image_size, net.input_channels) == (SIDE, channels)
    random = np.random.default_rng(0)
    weights = random.normal(size=(int(np.prod(shape[1:])), CLASSES)).astype("float32")
    images = random.uniform(size=(2, SIDE, SIDE, channels)).astype("float32")
    made = imported(tmp_path / "g.meta", {"weights": weights}, images)[0]["logits"]
    with tf.Graph().as_default(), tf.Session() as session:
        seen = session.run(tf.raw_ops.ResizeBilinear(images=images, size=shape[1:3]))
    np.testing.assert_allclose(made, seen.reshape(2, -1) @ weights, rtol=1e-4, atol=1e-5)
    assert check_import(file, found, (SIDE, SIDE, channels), {}) == []
    other = tf.Graph()
    with other.as_default(), pytest.raises(UnsupportedError, match="net takes images of") as caught:
        import_net(file, found, tf.placeholder(tf.float32, [None, SIDE + 1, SIDE + 1, channels]))
    assert caught.value.advice == f"Give --image-size {SIDE}: they are squeezed from that."


def test_a_counter_on_the_way_begins_as_a_whole_number(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = tf.reduce_mean(tf.nn.conv2d(x, tf.get_variable("w", [3, 3, 3, 4]), 1, "SAME"), [1, 2])
        steps = tf.get_variable("steps", [], tf.int64, initializer=tf.zeros_initializer, trainable=False)
        x = tf.cond(tf.assign_add(steps, 1) > 0, lambda: tf.nn.relu(x), lambda: x)
        tf.nn.softmax(tf.matmul(x, tf.get_variable("weights", [4, CLASSES])))

    file = read_graph(exported(tmp_path, build))
    found = analyse(file)
    assert found.conflicts == ()
    with tf.Graph().as_default(), tf.Session() as session:
        made = import_net(file, found, tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]))
        session.run(tf.global_variables_initializer())
        assert session.run(made.variables["steps"]).dtype == "int64"


def test_what_tensorflow_does_not_take_is_a_checkpoint_error(tmp_path: Path) -> None:
    """Graphs with nodes changed at random, of which the analysis says nothing: TensorFlow takes them, or it is said."""
    save_training(STYLES["slim unfused"], str(tmp_path / "m.meta"))
    file = read_graph(tmp_path / "m.meta")
    random = np.random.default_rng(2)
    kept = set(analyse(file).net.graph.nodes)
    places = [place for place, node in enumerate(file.nodes) if node.name in kept]
    refused = taken = 0
    for _ in range(30):
        nodes = list(file.nodes)
        for place in random.choice(places, 2):
            other = nodes[random.choice(places)]
            if random.integers(2):
                nodes[place] = nodes[place]._replace(attributes=other.attributes)
            else:
                nodes[place] = nodes[place]._replace(op=other.op, inputs=other.inputs)
        changed = file._replace(nodes=tuple(nodes))
        try:
            found = analyse(changed)
            if not found.conflicts:
                with tf.Graph().as_default():
                    import_net(changed, found, tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]))
                taken += 1
        except CheckpointError as error:
            refused += isinstance(error, DamagedError)
    assert refused > 2
    assert taken > 0


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x: x + tf.random_normal(tf.shape(x)), "not the same twice"),
        (lambda x: x - tf.reduce_mean(x, axis=0), "images depend on each other"),
        (lambda x: x * 0, "images make no difference"),
        (lambda x: tf.sqrt(x - 1e6), "not finite"),
        (lambda x: tf.reshape(x, [-1, CLASSES * 1])[:2], "not one row per image"),
    ],
)
def test_what_the_check_finds(tmp_path: Path, change: object, cause: str) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = change(tf.reduce_mean(tf.nn.conv2d(x, tf.get_variable("w", [3, 3, 3, CLASSES]), 1, "SAME"), [1, 2]))
        tf.nn.softmax(tf.matmul(x, tf.get_variable("weights", [CLASSES, CLASSES])))

    file = read_graph(exported(tmp_path, build))
    found = analyse(file)
    assert cause in [conflict.cause for conflict in check_import(file, found, (SIDE, SIDE, 3), {})]


def test_a_width_that_the_script_set_is_that_of_the_layer(tmp_path: Path) -> None:
    """`set_shape` is not in the file."""

    def build() -> None:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = tf.reshape(images, [tf.shape(images)[0], -1])
        x.set_shape([None, SIDE * SIDE * 3])
        tf.nn.softmax(tf.matmul(x, tf.get_variable("fc/weights", [SIDE * SIDE * 3, CLASSES])))

    file = read_graph(exported(tmp_path, build))
    with tf.Graph().as_default():
        made = import_net(file, analyse(file), tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]))
        assert made.features.shape.as_list() == [None, SIDE * SIDE * 3]


def test_what_tensorflow_says_of_a_net_that_does_not_run(tmp_path: Path) -> None:
    """Not that it is an error, nor where in its own code."""
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        x = tf.reshape(images, tf.stack([tf.shape(images)[0], 100]))
        tf.nn.softmax(tf.matmul(x, tf.get_variable("fc/weights", [100, CLASSES])))
        tf.train.export_meta_graph(str(tmp_path / "m.meta"))
    file = read_graph(tmp_path / "m.meta")
    (conflict,) = check_import(file, analyse(file), (SIDE, SIDE, 3), {})
    assert conflict.cause == "the net does not run"
    wanted = "TensorFlow says: Input to reshape is a tensor with 1296 values, but the requested shape has 300."
    assert conflict.advice == wanted


def test_a_net_of_the_registry_is_the_same_by_either_road(tmp_path: Path) -> None:
    """Built by tf_slim's layers and trained, saved, imported; and built to infer."""
    from ckpt_tools.nets.graph import build_net
    from ckpt_tools.nets.layers import Mode
    from ckpt_tools.nets.registry import get_net

    resnet = get_net("resnet_v1_14")
    with tf.Graph().as_default():
        images, labels = tf.placeholder(tf.float32, [8, 40, 40, 3]), tf.placeholder(tf.int64, [8])
        built = build_net(resnet, images, num_classes=CLASSES, mode=Mode(lambda scope: True))
        loss = tf.losses.sparse_softmax_cross_entropy(labels, built.logits)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        tf.train.export_meta_graph(str(tmp_path / "g.meta"))
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 40, 40, 3)).astype("float32")
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, 40, 40, 3])
        built = build_net(resnet, fed, num_classes=CLASSES)
        tf.set_random_seed(1)
        session.run(tf.global_variables_initializer())
        values = session.run({variable.op.name: variable for variable in built.variables})
        wanted = session.run({"features": built.features, "logits": built.logits}, {fed: batch})
        names = list(built.end_points)
    made, alone = imported(tmp_path / "g.meta", values, batch, batch[:1])
    assert all(made[name].tobytes() == wanted[name].tobytes() for name in wanted)
    assert len(alone["logits"]) == 1
    found = analyse(read_graph(tmp_path / "g.meta"))
    assert {each.name for each in found.variables if each.trainable} == {
        variable.name for variable in resnet.variables(CLASSES) if variable.trainable
    }
    blocks = [name for name in names if name.startswith("resnet_v1_14/block") and name.count("/") == 1]
    assert len(blocks) == 4
    assert all(any(point.startswith(name) for point in found.end_points) for name in blocks)


def test_the_frozen_part_of_an_imported_net_is_found(GOLDEN: Path) -> None:
    """A new head on the features: they are what the cache would keep."""
    from ckpt_tools.train.graph.frozen_prefix import find_frontier

    file = read_graph(GOLDEN / "tf221_graph" / "model.ckpt.meta")
    with tf.Graph().as_default():
        images, labels = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]), tf.placeholder(tf.int64, [None])
        made = import_net(file, analyse(file), images)
        weights = tf.get_variable("Logits/fc/weights", [16, 3])
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=made.features @ weights)
        )
        step = tf.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=[weights])
        frontier = find_frontier(images, [step, loss], lambda name: name.startswith(("Logits", "hidden")))
        assert [tensor.shape.as_list() for tensor in frontier.tensors] == [[None, CHANNELS]]
        assert "conv2/weights" in frontier.variables and "hidden/weights" not in frontier.variables


def test_a_scope_names_the_end_point_in_it(GOLDEN: Path) -> None:
    file = read_graph(GOLDEN / "tf221_graph" / "model.ckpt.meta")
    found = analyse(file, Choices(features="conv2"))
    assert (found.features, found.width, found.logits, found.conflicts) == ("conv2/Relu", CHANNELS, "", ())
    with pytest.raises(SelectionError, match="no operation conv3, and no end point in it; did you mean conv"):
        analyse(file, Choices(features="conv3"))
    with tf.Graph().as_default():
        made = import_net(file, found, tf.placeholder(tf.float32, [None, SIDE, SIDE, 3]))
        assert made.features.shape.as_list() == [None, CHANNELS]  # the mean over the map
        assert made.logits is None
