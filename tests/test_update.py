"""Rates by scope, clipping, class weights, label smoothing, schedules, moving averages: compared with numpy."""

import math

import numpy as np
import pytest

from ckpt_tools.errors import RecipeError, SelectionError
from ckpt_tools.nets.registry import get_net
from ckpt_tools.train.graph.objective import class_weights, image_losses
from ckpt_tools.train.graph.update import apply_gradients, rate_factors, values_by_scope, weight_penalty
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.schedule import rate_at

NAMES = ["InceptionV3/Mixed_7b/w/weights", "InceptionV3/Mixed_7c/w/weights", "InceptionV3/Logits/c/weights"]


def test_the_last_pattern_that_selects_a_name_decides():
    found = values_by_scope("--lr-mult", ["Mixed_7*=0.1,Mixed_7c=0.5"], NAMES, 1.0)
    assert list(found.values()) == [0.1, 0.5, 1.0]


def test_a_value_is_given_by_patterns_like_those_of_all_options():
    found = values_by_scope("--lr-mult", ["Mixed_7*,!Mixed_7b=0.1,re:Logits/c{1,2}=2"], NAMES, 1.0)
    assert list(found.values()) == [1.0, 0.1, 2.0]


@pytest.mark.parametrize("text", ["Logits", "Logits=", "Logits=-1", "=0.5", "Logits=nan"])
def test_a_value_by_scope_has_one_form(text):
    with pytest.raises(RecipeError, match="write PATTERN=VALUE"):
        values_by_scope("--lr-mult", [text], NAMES, 1.0)


def test_a_scope_that_selects_nothing_is_named():
    with pytest.raises(SelectionError, match=r"--lr-mult Logitz selects nothing .*Logits"):
        values_by_scope("--lr-mult", ["Logitz=2"], NAMES, 1.0)


def test_layer_decay_counts_blocks_from_the_head():
    factors = rate_factors(Options(layer_decay=0.5, lr_mult=("Logits=2",)), get_net("inception_v3"), NAMES)
    assert list(factors.values()) == [0.25, 0.5, 2.0]
    resnet = get_net("resnet_v1_50")
    names = [row.name for row in resnet.table if row.trainable]
    factors = rate_factors(Options(layer_decay=0.1), resnet, names)
    by_block = {name.split("/")[1]: factor for name, factor in factors.items()}
    assert by_block == pytest.approx(
        {"conv1": 1e-5, "block1": 1e-4, "block2": 1e-3, "block3": 1e-2, "block4": 1e-1, "logits": 1.0}
    )


def test_class_weights():
    assert class_weights(None, ["a", "b"], [1, 2]) is None
    assert class_weights("b=3", ["a", "b"], [1, 2]) == [1.0, 3.0]
    balanced = class_weights("balanced", ["a", "b"], [90, 10])
    assert balanced[0] * 90 == pytest.approx(balanced[1] * 10)
    with pytest.raises(RecipeError, match="no class is called 'catt'; did you mean cat"):
        class_weights("catt=2", ["cat", "dog"], [1, 1])
    with pytest.raises(RecipeError, match="must be a number"):
        class_weights("cat=lots", ["cat", "dog"], [1, 1])


def test_objective_is_what_the_formula_says():
    import tensorflow.compat.v1 as tf

    logits = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], np.float32)
    labels = np.array([0, 2], np.int32)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    with tf.Graph().as_default(), tf.Session() as session:
        plain = session.run(image_losses(tf.constant(logits), tf.constant(labels)))
        smooth = session.run(image_losses(tf.constant(logits), tf.constant(labels), 0.3))
        weighted = session.run(image_losses(tf.constant(logits), tf.constant(labels), 0.0, [2.0, 1.0, 0.5]))
    np.testing.assert_allclose(plain, -log_softmax[[0, 1], labels], rtol=1e-6)
    targets = np.full((2, 3), 0.1) + 0.7 * np.eye(3)[labels]
    np.testing.assert_allclose(smooth, -(targets * log_softmax).sum(1), rtol=1e-6)
    np.testing.assert_allclose(weighted, plain * [2.0, 0.5], rtol=1e-6)


def one_update(options, factors, gradients, steps=1):
    """Values of two variables (from 1) and of everything else in the graph after `steps` updates."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        variables = [tf.get_variable(name, initializer=np.ones(2, np.float32)) for name in ("a/weights", "b/weights")]
        pairs = [(tf.constant(np.float32(g)), v) for g, v in zip(gradients, variables, strict=True)]
        update = apply_gradients(pairs, options, factors, tf.constant(0.5), step)
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            _, norms = session.run([update.operation, update.gradient_norms])
        return {v.op.name: session.run(v) for v in tf.global_variables()}, norms


def test_each_scope_has_its_own_rate_whatever_the_optimizer():
    gradients = [[1.0, -2.0], [3.0, 4.0]]
    values, norms = one_update(Options(optimizer="sgd"), {"a/weights": 0.1}, gradients)
    np.testing.assert_allclose(values["a/weights"], 1 - 0.5 * 0.1 * np.array(gradients[0]), rtol=1e-6)
    np.testing.assert_allclose(values["b/weights"], 1 - 0.5 * np.array(gradients[1]), rtol=1e-6)
    np.testing.assert_allclose(norms, [math.sqrt(5), 5], rtol=1e-6)
    values, _ = one_update(Options(optimizer="adam"), {"a/weights": 0.1}, gradients)
    np.testing.assert_allclose(1 - values["a/weights"], 0.05 * np.sign(gradients[0]), rtol=1e-4)
    np.testing.assert_allclose(1 - values["b/weights"], 0.5 * np.sign(gradients[1]), rtol=1e-4)


def test_clipping_scales_all_gradients_together():
    values, norms = one_update(Options(optimizer="sgd", clip_norm=1.0), {}, [[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(values["a/weights"], [1 - 0.5 * 0.6, 1], rtol=1e-6)
    np.testing.assert_allclose(values["b/weights"], [1, 1 - 0.5 * 0.8], rtol=1e-6)
    np.testing.assert_allclose(norms, [3, 4], rtol=1e-6)


def test_moving_averages_have_slims_names_and_follow_the_variables():
    values, _ = one_update(Options(optimizer="sgd", ema=0.999), {}, [[1.0, 1.0], [0.0, 0.0]], steps=2)
    average = np.float64(1.0)
    for number, weight in ((1, 0.5), (2, 0.0)):
        decay = min(0.999, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    np.testing.assert_allclose(values["a/weights/ExponentialMovingAverage"], average, rtol=1e-6)
    np.testing.assert_allclose(values["b/weights/ExponentialMovingAverage"], 1.0)


def test_weight_decay_by_scope_leaves_biases_alone():
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        variables = [
            tf.get_variable(name, initializer=np.full(shape, 3, np.float32))
            for name, shape in (("a/kernel", (1, 2)), ("b/weights", (2, 1)), ("b/biases", 2))
        ]
        options = Options(weight_decay=0.1, weight_decay_for=("b=0.01",))
        session.run(tf.global_variables_initializer())
        assert session.run(weight_penalty(options, variables)) == pytest.approx(0.1 * 9 + 0.01 * 9)
        assert weight_penalty(Options(weight_decay=0.0), variables) is None


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.793893, 0.5, 0]),
        ("exponential", [1, 0.435275, 0.25, 0.0625]),
        ("step", [1, 0.5, 0.25, 0.0625]),
        ("one-cycle", [0.04, 1, 0.811745, 4e-6]),
    ],
)
def test_schedules(schedule, rates):
    options = Options(schedule=schedule, decay_rate=0.5, decay_epochs=1.0)
    found = [rate_at(options, 1.0, step, 100, 25) for step in (0, 30, 50, 100)]
    assert found == pytest.approx(rates, rel=1e-5, abs=1e-12)
