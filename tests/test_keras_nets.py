"""The nets that Keras ported from slim: the same random weights give the same logits in both."""

import re

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow.compat.v1")
keras = pytest.importorskip("keras")

from ckpt_tools.nets.graph import build_net  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402

CASES = {
    "mobilenet_v1_025": ("MobileNet", {"alpha": 0.25}, 128),
    "mobilenet_v1": ("MobileNet", {}, 128),
    "mobilenet_v2_035": ("MobileNetV2", {"alpha": 0.35}, 96),
    "mobilenet_v2_140": ("MobileNetV2", {"alpha": 1.4}, 96),
    "inception_resnet_v2": ("InceptionResNetV2", {}, 139),
}
SLOW = ("mobilenet_v1", "mobilenet_v2_140", "inception_resnet_v2")


def in_order_of_creation(model):
    """Keras lists layers by their distance from the input; numbers in names say when each was made."""

    def number(layer):
        found = re.fullmatch(r"(?:conv2d|batch_normalization)(?:_(\d+))?", layer.name)
        return int(found[1] or 0) if found else None

    layers = [layer for layer in model.layers if layer.weights]
    numbered = iter(sorted((layer for layer in layers if number(layer) is not None), key=number))
    return layers if not any(map(number, layers)) else [*numbered, *(each for each in layers if number(each) is None)]


def with_values(model, seed=0):
    """The model with weights and statistics such that what goes through it keeps its size."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            kind = weight.path.rpartition("/")[2]
            if kind in ("moving_variance", "gamma"):
                values = random.uniform(0.8, 1.2, weight.shape)
            elif kind == "kernel":
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                inputs = np.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
                values = random.normal(0, np.sqrt(2 / inputs), weight.shape)
            else:
                values = random.normal(0, 0.1, weight.shape)
            weight.assign(values.astype(np.float32))
    return model


def values_for(net, model, classes):
    """Slim's name -> value: kernels with kernels, statistics with statistics, each in the order of creation. Kernels
    beside which there are biases are a kind of their own."""
    theirs = {}
    for layer in in_order_of_creation(model):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kinds = {"kernel": "depthwise_weights" if depthwise else "weights", "bias": "biases"}
        biased = any(weight.path.endswith("/bias") for weight in layer.weights)
        for weight in layer.weights:
            kind = weight.path.rpartition("/")[2]
            theirs.setdefault((kinds.get(kind, kind), biased), []).append(np.array(weight))
    values, names = {}, {variable.name for variable in net.variables(classes)}
    for variable in net.variables(classes):
        if variable.role != "auxiliary":
            scope, _, kind = variable.name.rpartition("/")
            value = theirs[kind, f"{scope}/biases" in names].pop(0)
            values[variable.name] = value.reshape(variable.spec.shape)
    assert not any(theirs.values())
    return values


def ours(name, values, images, classes):
    with tf.Graph().as_default():
        fed = tf.placeholder(tf.float32, images.shape)
        built = build_net(get_net(name), fed, num_classes=classes)
        given = [variable for variable in built.variables if variable.op.name in values]
        feed = {variable.initializer.inputs[1]: values[variable.op.name] for variable in given}
        with tf.Session() as session:
            session.run([variable.initializer for variable in given], feed)
            return session.run(built.logits, {fed: images})


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_logits_are_those_of_keras(name):
    application, options, side = CASES[name]
    model = getattr(keras.applications, application)(
        weights=None, input_shape=(side, side, 3), classes=7, classifier_activation=None, **options
    )
    images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    expected = np.array(with_values(model)(images, training=False))
    values = values_for(get_net(name), model, 7)
    got = ours(name, values, images, 7)
    scale = np.abs(expected).max()
    assert scale > 0.1 and np.abs(expected[0] - expected[1]).max() > 0.01 * scale
    assert np.abs(got - expected).max() < 1e-5 * scale
    last = [each for each in values if each.endswith("moving_variance")][-1]
    values[last] = values[last] * 1.5  # the comparison can fail
    assert np.abs(ours(name, values, images, 7) - expected).max() > 1e-4 * scale
