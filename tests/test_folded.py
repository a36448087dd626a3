"""Variables as constants and batch norms folded into convolutions: the same function, computed faster."""

from collections import Counter

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow").compat.v1

from ckpt_tools.nets.graph import build_net  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.train.graph.batches import in_order, until_the_end  # noqa: E402
from ckpt_tools.train.graph.folded import fold, fusing  # noqa: E402


def started(session):
    """Gives every variable values of sane size: convolutions keep the size of what passes, statistics are near 1."""
    random, values = np.random.default_rng(0), {}
    for variable in tf.global_variables():
        shape = variable.shape.as_list()
        value = (
            random.normal(size=shape) / np.prod(shape[:-1]) ** 0.5
            if len(shape) > 1
            else random.uniform(0.5, 1.5, shape)
        )
        values[variable.initializer.inputs[1]] = value.astype(np.float32)
    session.run(tf.global_variables_initializer(), values)


def both(images, tensor, size):
    """The tensor's values for random images, as they are and folded, and the types of what computes it."""
    values = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    with tf.Session() as session:
        started(session)
        plain = session.run(tensor, {images: values})
        found = fold(session, [tensor], images)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        fed = tf.placeholder(tf.float32, images.shape)
        folded = session.run(found.on(fed)[0], {fed: values})
        return plain, folded, Counter(op.type for op in graph.get_operations())


def apart(a, b):
    return np.abs(a - b).max() / np.abs(a).max()


@pytest.mark.parametrize("name", ["resnet_v1_14", "mobilenet_v1_025"])
def test_a_net_gives_the_same_with_its_batch_norms_folded(name):
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 64, 64, 3])
        plain, folded, types = both(images, build_net(get_net(name), images, num_classes=None).features, 64)
    assert apart(plain, folded) < 1e-5
    assert not {"FusedBatchNormV3", "VarHandleOp", "ReadVariableOp", "VariableV2"} & set(types)


def test_the_one_pass_that_a_folded_graph_gets_fuses_it():
    """Of ten passes nine found nothing, and took two seconds of each start."""
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 64, 64, 3])
        tensor = build_net(get_net("resnet_v1_14"), tf.cast(images, tf.bfloat16), num_classes=None).features
        with tf.Session() as session:
            started(session)
            found = fold(session, [tensor], images)
    values, types = np.ones((2, 64, 64, 3), np.float32), []
    for config in (tf.ConfigProto(), fusing(tf.ConfigProto())):
        with tf.Graph().as_default(), tf.Session(config=config) as session:
            fed, told = tf.placeholder(tf.float32, [None, 64, 64, 3]), tf.RunMetadata()
            options = tf.RunOptions(output_partition_graphs=True)
            session.run(found.on(fed)[0], {fed: values}, options, told)
            nodes = [node.op for graph in told.partition_graphs for node in graph.node]
            types.append(Counter(name for name in nodes if "Conv" in name))
    assert types[0] == types[1]
    assert not any(name in types[1] for name in ("Conv2D", "_MklNativeConv2D"))


def test_weights_are_scaled_before_they_are_rounded():
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 64, 64, 3])
        features = build_net(get_net("resnet_v1_14"), tf.cast(images, tf.bfloat16), num_classes=None).features
        plain, folded, types = both(images, tf.cast(features, tf.float32), 64)
    assert 0 < apart(plain, folded) < 0.03
    assert types["FusedBatchNormV3"] == 0 and types["Cast"] == 2  # of the images, and of the features


@pytest.fixture
def convolution():
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 8, 8, 3])
        yield images, tf.nn.conv2d(images, tf.get_variable("weights", [3, 3, 3, 4]), 1, "SAME")


def normalised(values, **how):
    names = ("gamma", "beta", "mean", "variance")
    parts = [tf.get_variable(name, [values.shape[-1]]) for name in names]
    return tf.nn.fused_batch_norm(values, *parts, **{"is_training": False, **how})[0]


def test_epsilon_is_the_batch_norms_own(convolution):
    images, values = convolution
    plain, folded, types = both(images, normalised(values, epsilon=0.3), 8)
    assert apart(plain, folded) < 1e-6 and types["BiasAdd"] == 1


def test_a_convolution_that_something_else_reads_stays_as_it_is(convolution):
    images, values = convolution
    plain, folded, types = both(images, normalised(values) + tf.nn.relu(values), 8)
    assert types["FusedBatchNormV3"] == 1 and apart(plain, folded) < 1e-6


def test_a_batch_norm_of_the_batch_stays_as_it_is(convolution):
    images, values = convolution
    plain, folded, types = both(images, normalised(values, is_training=True), 8)
    assert types["FusedBatchNormV3"] == 1 and apart(plain, folded) < 1e-6


def test_control_flow_is_not_folded(convolution):
    images, values = convolution
    tensor = tf.cond(tf.reduce_mean(images) > 0, lambda: values, lambda: -values)
    with tf.Session() as session:
        started(session)
        assert (fold(session, [tensor], images) is None) == (tensor.op.type == "Merge")


def test_random_numbers_are_no_constants(convolution):
    images, values = convolution
    tensor = values + tf.random_uniform([4])
    with tf.Session() as session:
        started(session)
        assert fold(session, [tensor], images) is None


# --- several batches at a time ---------------------------------------------------------------------------------------


def test_results_come_until_the_end_and_in_order_of_their_numbers():
    with tf.Graph().as_default(), tf.Session() as session:
        number = tf.data.make_one_shot_iterator(tf.data.Dataset.range(40)).get_next()
        found = list(until_the_end(session.make_callable((number, number * number)), 4))
    assert sorted(found) == [(i, i * i) for i in range(40)]
    assert list(in_order((i, f"batch {i}") for i in (2, 0, 1, 4, 3))) == [f"batch {i}" for i in range(5)]


def test_another_error_is_raised_and_nothing_is_left_running():
    calls = []

    def run():
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("third")
        return len(calls)

    with pytest.raises(ValueError, match="third"):
        list(until_the_end(run, 2))
    assert len(calls) <= 5
