"""The nets in TensorFlow's graph: variables as in the tables, batch norm and dropout by scope, other image sizes."""

import threading

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow.compat.v1")
pytest.importorskip("tf_slim")

from ckpt_tools.errors import UnsupportedError  # noqa: E402
from ckpt_tools.nets import layers  # noqa: E402
from ckpt_tools.nets.graph import build_net  # noqa: E402
from ckpt_tools.nets.head import Dropout, Head, parse_layers, variables_with_head  # noqa: E402
from ckpt_tools.nets.layers import Mode, PatchedLayers  # noqa: E402
from ckpt_tools.nets.list_variables import table  # noqa: E402
from ckpt_tools.nets.net import table_text  # noqa: E402
from ckpt_tools.nets.registry import NETS, get_net  # noqa: E402

SHIPPED = [name for name in NETS if name != "tiny"]  # tiny_net.py adds that one, for other tests
LARGE = ("_101", "_152", "_200", "inception_v4", "inception_resnet_v2")
VARIABLES = ("variables", "model_variables", "trainable_variables")
WIDTHS = ("mobilenet_v1_075", "mobilenet_v1_050", "mobilenet_v2_130", "mobilenet_v2_075", "mobilenet_v2_050")
SLOW = [name for name in NETS if name.endswith(LARGE) or name in WIDTHS]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(1)
        yield graph


def placeholder(size, dtype=tf.float32):
    return tf.placeholder(dtype, [None, size, size, 3])


def photos(count, size, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def shapes(variables):
    return {variable.op.name: tuple(variable.shape.as_list()) for variable in variables}


def randomise(session, variables, seed=0):
    """Gives every variable values with which a forward pass stays finite, the moving variances positive ones."""
    rng = np.random.default_rng(seed)
    feed = {}
    for variable in variables:
        values = rng.normal(size=variable.shape.as_list())
        if variable.op.name.endswith("moving_variance"):
            values = 0.5 + np.abs(values)
        elif variable.op.name.endswith("weights"):
            values /= np.sqrt(np.prod(variable.shape.as_list()[:-1]))
        elif variable.op.name.endswith("gamma"):
            values = 1 + 0.1 * values
        else:
            values *= 0.1
        feed[variable.initializer.inputs[1]] = values
    session.run([variable.initializer for variable in variables], feed)


def operation(scope, kind):
    """The one operation of this kind in a layer's scope."""
    (found,) = [
        op for op in tf.get_default_graph().get_operations() if op.type == kind and op.name.startswith(f"{scope}/")
    ]
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SHIPPED]
)
def test_table_is_what_the_graph_has(name):
    assert table(get_net(name)) == table_text(name)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in SLOW])
def test_with_features_given_the_head_alone_is_built(name):
    net = get_net(name)
    given = tf.placeholder(tf.float32, [None, 1, 1, net.feature_channels])
    built = build_net(net, None, num_classes=5, features=given)
    assert built.logits.shape.as_list() == [None, 5]
    assert shapes(built.variables) == {v.name: v.spec.shape for v in net.variables(5) if v.role == "head"}
    values = np.random.default_rng(0).normal(size=(3, 1, 1, net.feature_channels)).astype(np.float32)
    with tf.Session() as session:
        session.run([variable.initializer for variable in built.variables])
        logits, weights, biases = session.run([built.logits, *built.variables[-2:]], {given: values})
    expected = values[:, 0, 0] @ weights.reshape(weights.shape[-2:]) + biases
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


OTHER_SIZES = [("inception_v1", 96), ("vgg_a", 64), ("vgg_a", 288), ("mobilenet_v1_025", 97), ("mobilenet_v2_035", 160)]
OTHER_SIZES += [("nasnet_mobile", 97)]


@pytest.mark.parametrize(
    ("name", "size"),
    [*OTHER_SIZES, *(pytest.param(f"inception_{n}", 96, marks=pytest.mark.slow) for n in ("v4", "resnet_v2"))],
)
def test_images_of_another_size(name, size):
    images = placeholder(size)
    net = get_net(name)
    built = build_net(net, images, num_classes=5)
    assert built.logits.shape.as_list() == [None, 5]
    assert built.features.shape.as_list() == [None, net.feature_channels]
    assert shapes(built.variables) == {variable.name: variable.spec.shape for variable in net.variables(5)}


def test_the_auxiliary_head_of_nasnet_takes_images_of_another_size():
    built = build_net(get_net("nasnet_mobile"), placeholder(97), num_classes=5, aux=True)
    assert built.auxiliary_logits.shape.as_list() == [None, 5]
    assert shapes(built.variables)["aux_7/aux_logits/Conv/weights"] == (4, 4, 128, 768)


def test_too_small_images_are_said():
    with pytest.raises(UnsupportedError, match="images of 32 x 32 pixels are too small for inception_v3.*size is 299"):
        build_net(get_net("inception_v3"), placeholder(32), num_classes=5)


@pytest.mark.parametrize(("name", "side"), [("cifarnet", 32), ("lenet", 28)])
def test_nets_whose_dense_layer_reads_the_map_take_one_size(name, side):
    with pytest.raises(UnsupportedError, match=f"images of 64 x 64 pixels do not fit.*takes {side} x {side} pixels"):
        build_net(get_net(name), placeholder(64), num_classes=5)


def test_lenet_takes_grey_images_and_colours_of_the_same_brightness():
    net, grey = get_net("lenet"), photos(2, 28)[..., :1]
    images = placeholder(28)
    built = build_net(net, images, num_classes=5)
    with tf.Session() as session:
        randomise(session, built.variables)
        from_grey = session.run(built.logits, {images: np.repeat(grey, 3, axis=3)})
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            one = tf.placeholder(tf.float32, [None, 28, 28, 1])
            alone = session.run(build_net(net, one, num_classes=5).logits, {one: grey})
        red = session.run(built.logits, {images: grey * [1, 0, 0]})
    np.testing.assert_allclose(from_grey, alone, atol=1e-5)
    assert np.abs(red - alone).max() > 0.01


def test_slims_layers_are_put_back_even_after_an_error():
    import importlib

    module = importlib.import_module("tf_slim.layers.layers")
    names = ("avg_pool2d", "batch_norm", "conv2d", "dropout", "fully_connected", "separable_conv2d")
    before = {name: getattr(module, name) for name in names}
    with pytest.raises(UnsupportedError):
        build_net(get_net("inception_v3"), placeholder(32), num_classes=5)
    assert {name: getattr(module, name) for name in before} == before


@pytest.mark.parametrize("name", ["inception_v3", "resnet_v1_14", "vgg_a", "mobilenet_v1_025", "cifarnet"])
def test_convolutions_are_the_operations_that_slim_makes(name, monkeypatch):
    """By the same names too: what is cached is found by them."""
    net, made = get_net(name), []
    for _ in range(2):
        with tf.Graph().as_default() as graph:
            images = tf.placeholder(tf.float32, [None, net.image_size, net.image_size, 3])
            build_net(net, tf.cast(images, tf.bfloat16), num_classes=5, mode=Mode(trains_batch_norm=lambda scope: True))
            variables = {key: [each.name for each in graph.get_collection(key)] for key in VARIABLES}
            made.append(({node.name: node for node in graph.as_graph_def().node}, variables))
        monkeypatch.setattr(layers, "_convolution", layers._SLIM["conv2d"])
    assert made[0] == made[1]


def test_frozen_batch_norm_updates_nothing():
    build_net(get_net("inception_v1"), placeholder(96), num_classes=5)
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []


def test_batch_norm_trains_by_scope():
    mode = Mode(trains_batch_norm=lambda scope: "/Mixed_5c/" in scope)
    built = build_net(get_net("inception_v1"), placeholder(96), num_classes=5, mode=mode)
    updates = [operation.name for operation in tf.get_collection(tf.GraphKeys.UPDATE_OPS)]
    assert len(updates) == 2 * 6  # mean and variance of six convolutions
    assert all("InceptionV1/Mixed_5c/" in name for name in updates)
    assert [v for v in built.variables if "moving_" in v.op.name and v in tf.trainable_variables()] == []


def test_batch_norm_follows_its_formulas():
    """Training mode normalises by the batch, moves the averages by the decay asked for; inference mode by these."""
    images = placeholder(64)
    net = get_net("resnet_v1_14")
    layer = "resnet_v1_14/conv1/BatchNorm"
    mode = Mode(trains_batch_norm=lambda scope: scope == layer, batch_norm_decay=0.75)
    built = build_net(net, images, num_classes=3, mode=mode)
    normalised = operation(layer, "FusedBatchNormV3")
    by_name = {variable.op.name: variable for variable in built.variables}
    with tf.Session() as session:
        randomise(session, built.variables)
        old = {name: by_name[f"{layer}/{name}"].eval() for name in ("beta", "gamma", "moving_mean", "moving_variance")}
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        x, y, *_ = session.run([normalised.inputs[0], normalised.outputs[0], *updates], {images: photos(4, 64)})
        new_mean, new_variance = by_name[f"{layer}/moving_mean"].eval(), by_name[f"{layer}/moving_variance"].eval()
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1.001e-5) * old["gamma"] + old["beta"]
    np.testing.assert_allclose(y, expected, atol=2e-5)
    np.testing.assert_allclose(new_mean, 0.75 * old["moving_mean"] + 0.25 * mean, atol=1e-5)
    count = x[..., 0].size  # the average is of the unbiased estimate, as in slim's fused batch norm
    np.testing.assert_allclose(
        new_variance, 0.75 * old["moving_variance"] + 0.25 * variance * count / (count - 1), rtol=1e-5
    )


def test_frozen_batch_norm_follows_its_formula():
    images = placeholder(64)
    built = build_net(get_net("inception_v1"), images, num_classes=3)
    scope = "InceptionV1/Conv2d_1a_7x7/BatchNorm"
    normalised = operation("InceptionV1/InceptionV1/Conv2d_1a_7x7", "FusedBatchNormV3")
    by_name = {variable.op.name: variable for variable in built.variables}
    with tf.Session() as session:
        randomise(session, built.variables)
        x, y = session.run([normalised.inputs[0], normalised.outputs[0]], {images: photos(2, 64)})
        beta, mean, variance = (by_name[f"{scope}/{n}"].eval() for n in ("beta", "moving_mean", "moving_variance"))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3) + beta, atol=1e-5)


def test_dropout_depends_on_the_seed_alone():
    images, seed = placeholder(32), tf.placeholder(tf.int64, [2])
    mode, half = Mode(dropout_seed=seed), Head((Dropout(0.5),))
    logits = build_net(get_net("inception_v1"), images, num_classes=4, head=half, mode=mode).logits
    dropped = PatchedLayers("logits", mode=mode).dropout(tf.ones([2, 500]), 0.5, scope="dropout_1")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        first, again, other = (
            session.run([logits, dropped], {images: photos(2, 32), seed: s}) for s in ((1, 2), (1, 2), (1, 3))
        )
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != another).any()
    assert 0.4 < np.mean(first[1] == 0) < 0.6
    assert set(first[1].ravel()) == {0.0, 2.0}


def test_without_a_seed_nothing_is_dropped():
    build_net(get_net("vgg_a"), placeholder(96), num_classes=4, head=Head((Dropout(0.5),)))
    types = {operation.type for operation in tf.get_default_graph().get_operations()}
    assert not any("Random" in kind and "Stateless" in kind for kind in types)


def test_end_points_have_the_same_names_under_a_name_scope():
    net = get_net("alexnet_v2")
    with tf.name_scope("training"):
        built = build_net(net, placeholder(224), num_classes=4)
    assert tuple(built.end_points) == net.end_points


def test_features_without_a_head():
    net = get_net("inception_v1")
    built = build_net(net, placeholder(96), num_classes=None)
    assert built.logits is None
    assert list(built.end_points)[-1] == "Mixed_5c"
    assert shapes(built.variables) == {variable.name: variable.spec.shape for variable in net.variables(None)}


def test_without_an_auxiliary_head_its_variables_are_there_untrained():
    net = get_net("inception_v3")
    built = build_net(net, placeholder(96), num_classes=4)
    assert built.auxiliary_logits is None
    assert not [variable for variable in tf.trainable_variables() if "AuxLogits" in variable.op.name]
    assert shapes(built.variables) == {variable.name: variable.spec.shape for variable in net.variables(4)}
    assert tuple(built.end_points) == net.end_points
    assert built.end_points["Logits"].shape.as_list() == [None, 4]


def test_auxiliary_head_is_built_when_asked_at_any_size():
    net = get_net("inception_v3")
    built = build_net(net, placeholder(96), num_classes=4, aux=True)
    assert built.auxiliary_logits.shape.as_list() == [None, 4]
    assert "AuxLogits" not in built.end_points
    assert len([variable for variable in tf.trainable_variables() if "AuxLogits" in variable.op.name]) == 6
    assert shapes(built.variables) == {variable.name: variable.spec.shape for variable in net.variables(4)}


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("inception_v1", None),
        ("resnet_v1_14", None),
        ("alexnet_v2", None),
        ("alexnet_v2", "Logits"),
        ("mobilenet_v1_025", None),
        ("cifarnet", None),
        ("cifarnet", "Logits"),
    ],
)
def test_heads_have_the_variables_that_the_plan_is_told(name, scope):
    net, head = get_net(name), Head(parse_layers("dense(16, relu)|dropout(0.5)|dense(8,linear)"), scope)
    built = build_net(net, placeholder(net.image_size), num_classes=4, head=head)
    assert built.logits.shape.as_list() == [None, 4]
    wanted = {variable.name: variable.spec.shape for variable in variables_with_head(net, 4, head)}
    assert shapes(built.variables) == wanted


@pytest.mark.parametrize(
    ("name", "size", "scope", "dense", "last"),
    [
        ("resnet_v1_14", 96, "Mine", "Mine/dense_1", "Mine/fc"),
        ("cifarnet", 32, None, "CifarNet/logits/dense_1", "CifarNet/logits"),
        ("lenet", 28, "Mine", "Mine/dense_1", "Mine/fc"),
    ],
)
def test_a_head_computes_what_it_says(name, size, scope, dense, last):
    images = placeholder(size)
    head = Head(parse_layers("dense(16,relu)"), scope)
    built = build_net(get_net(name), images, num_classes=4, head=head)
    by_name = {variable.op.name: variable for variable in built.variables}
    with tf.Session() as session:
        randomise(session, built.variables)
        features, logits = session.run([built.features, built.logits], {images: photos(2, size)})
        w1, b1, w2, b2 = (by_name[f"{each}/{kind}"].eval() for each in (dense, last) for kind in ("weights", "biases"))
    np.testing.assert_allclose(logits, np.maximum(features @ w1 + b1, 0) @ w2 + b2, rtol=1e-4, atol=1e-4)


def test_two_towers_share_their_variables():
    net = get_net("resnet_v1_14")
    first = build_net(net, placeholder(64), num_classes=4)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True), tf.name_scope("second"):
        second = build_net(net, placeholder(64), num_classes=4)
    assert first.variables == second.variables
    assert len(tf.global_variables()) == len(first.variables)


@pytest.mark.parametrize(("size", "squeezed"), [(224, True), (256, False)])
def test_a_net_without_batch_norm_equals_slims_own(size, squeezed):
    """Slim's own graph and ours on the same variables; for larger images slim's answers at all places are averaged."""
    from tf_slim import arg_scope
    from tf_slim.nets import alexnet

    images = placeholder(size)
    with arg_scope(alexnet.alexnet_v2_arg_scope()):
        theirs, _ = alexnet.alexnet_v2(images, num_classes=4, is_training=False, spatial_squeeze=squeezed)
    if not squeezed:
        theirs = tf.reduce_mean(theirs, [1, 2])
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        built = build_net(get_net("alexnet_v2"), images, num_classes=4)
    with tf.Session() as session:
        randomise(session, built.variables)
        a, b = session.run([theirs, built.logits], {images: photos(2, size)})
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(a).max() > 0.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "size", "deep"),
    [("resnet_v1_14", 64, "resnet_v1_14/block4"), ("mobilenet_v1_025", 96, "Conv2d_13_depthwise"),
     ("cifarnet", 32, "fc4")],
)  # fmt: skip
def test_lower_precision_keeps_variables_and_head_in_float32(dtype, name, size, deep):
    images = placeholder(size)
    net = get_net(name)
    built = build_net(net, tf.cast(images, dtype), num_classes=4)
    assert {variable.dtype.base_dtype for variable in built.variables} == {tf.float32}
    assert shapes(built.variables) == {variable.name: variable.spec.shape for variable in net.variables(4)}
    assert built.end_points[deep].dtype == tf.as_dtype(dtype)
    assert built.logits.dtype == tf.float32
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        full = build_net(net, images, num_classes=4)
    with tf.Session() as session:
        randomise(session, built.variables)
        low, high = session.run([built.logits, full.logits], {images: photos(2, size)})
    assert np.abs(low - high).max() < 0.05 * np.abs(high).max()
    assert (low != high).any()


def test_threads_build_nets_one_after_the_other():
    """What slim's modules hold meanwhile is the process's: a net of another thread would be made of these layers."""
    order = []

    def build():
        with PatchedLayers("fc8").in_place():
            order.append("second")

    with PatchedLayers("logits").in_place():
        thread = threading.Thread(target=build)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
