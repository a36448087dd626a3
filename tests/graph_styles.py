"""Small classifiers in the styles of TensorFlow 0.8 to 1.15, as found in graph files.

Every style is a function of images and a mode. In training mode it builds the graph that was saved, with a loss, an
optimizer, updates of moving averages, dropout; in inference mode it builds the reference for a test. Batch norm and
dropout follow tf.contrib.slim, tf.layers and hand-written nets of that time; no code is copied.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import smart_cond as smart
from tensorflow.python.training.moving_averages import assign_moving_average

SIDE, CLASSES, CHANNELS = 12, 5, 6


class Style(NamedTuple):
    """`norm(x, training)` and `dropout(x, training)` of a net. `switch` makes the tensor or the bool that says whether
    it trains. `batch` is the number of images, where it is fixed."""

    norm: Callable | None = None
    dropout: Callable | None = None
    switch: Callable = lambda: True
    resource: bool = False
    control_flow_v2: bool = False
    batch: int | None = None
    flatten: str = "mean"
    queue: bool = False


def net(style: Style, images: tf.Tensor, training: object) -> tf.Tensor:
    """Two convolutions, pooling, a hidden layer, classes."""
    x = images
    for name in ("conv1", "conv2"):
        with tf.variable_scope(name):
            kernel = tf.get_variable("weights", [3, 3, x.shape[-1], CHANNELS])
            x = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME")
            if style.norm:
                x = style.norm(x, training)
            else:
                x = tf.nn.bias_add(x, tf.get_variable("biases", [CHANNELS]))
            x = tf.nn.relu(x)
    x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID", name="pool")
    if style.flatten == "mean":
        x = tf.reduce_mean(x, [1, 2], name="global_pool")
    elif style.flatten == "static":
        x = tf.reshape(x, [int(x.shape[0]), -1] if x.shape[0] is not None else [-1, SIDE * SIDE // 4 * CHANNELS])
    else:
        x = tf.reshape(x, [-1, SIDE * SIDE // 4 * CHANNELS])
    with tf.variable_scope("hidden"):
        x = tf.nn.relu(tf.matmul(x, tf.get_variable("weights", [x.shape[-1], 16])) + tf.get_variable("biases", [16]))
    if style.dropout:
        x = style.dropout(x, training)
    with tf.variable_scope("classes"):
        return tf.nn.xw_plus_b(x, tf.get_variable("weights", [16, CLASSES]), tf.get_variable("biases", [CLASSES]))


@contextlib.contextmanager
def building(style: Style) -> Iterator[tf.Graph]:
    """A graph in which control flow and variables are of the style's kind."""
    from tensorflow.python.ops import control_flow_util

    before, variables = control_flow_util.ENABLE_CONTROL_FLOW_V2, tf.resource_variables_enabled()
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = style.control_flow_v2
    (tf.enable_resource_variables if style.resource else tf.disable_resource_variables)()
    try:
        with tf.Graph().as_default() as graph:
            yield graph
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before
        (tf.enable_resource_variables if variables else tf.disable_resource_variables)()


def save_training(style: Style, path: str, prefix: str = "") -> None:
    """Writes the MetaGraph of the net as it was trained; with `prefix`, a checkpoint of it instead."""
    with building(style), tf.Session() as session:
        if style.queue:
            image, label = tf.random_uniform([SIDE, SIDE, 3]), tf.constant(1, tf.int64)
            images, labels = tf.train.batch([image, label], style.batch or 4, name="batch")
        else:
            images = tf.placeholder(tf.float32, [style.batch, SIDE, SIDE, 3], "images")
            labels = tf.placeholder(tf.int64, [style.batch], "labels")
        training = style.switch()
        logits = net(style, images, training)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        tf.summary.scalar("loss", loss)
        tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32), name="accuracy")
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.AdamOptimizer().minimize(loss)
        saver = tf.train.Saver(tf.global_variables())
        if not prefix:
            saver.export_meta_graph(path)
            return
        random = np.random.default_rng(0)
        for variable in tf.global_variables():
            value = random.normal(0, 0.3, variable.shape.as_list())
            value = np.abs(value) + 0.5 if "variance" in variable.op.name else value
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        saver.save(session, prefix, write_state=False)


def infer(style: Style, values: dict, images: object) -> object:
    """The logits of the same code, built for inference, with these values of its variables."""
    with building(style), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        logits = net(style, fed, False)
        for variable in tf.global_variables():
            session.run(variable.initializer, {variable.initializer.inputs[1]: values[variable.op.name]})
        return session.run(logits, {fed: images})


# --- batch norm -----------------------------------------------------------------------------------------------------


def slim_norm(
    *, fused: bool, scale: bool = False, center: bool = True, in_place: bool = False, zero_debias: bool = False
) -> Callable:
    """tf.contrib.slim's `batch_norm`."""

    def apply(x: tf.Tensor, training: object) -> tf.Tensor:
        with tf.variable_scope("BatchNorm"):
            make = {"shape": [x.shape[-1]]}
            beta = tf.get_variable("beta", initializer=tf.zeros_initializer, **make) if center else None
            gamma = tf.get_variable("gamma", initializer=tf.ones_initializer, **make) if scale else None
            mean = tf.get_variable("moving_mean", initializer=tf.zeros_initializer, trainable=False, **make)
            variance = tf.get_variable("moving_variance", initializer=tf.ones_initializer, trainable=False, **make)
            one, zero = tf.ones(make["shape"]), tf.zeros(make["shape"])
            g, b = one if gamma is None else gamma, zero if beta is None else beta

            def batch() -> tuple:
                return tf.nn.fused_batch_norm(x, g, b, epsilon=0.001) if fused else tuple(tf.nn.moments(x, [0, 1, 2]))

            def moving() -> tuple:
                if not fused:
                    return tf.identity(mean), tf.identity(variance)
                return tf.nn.fused_batch_norm(x, g, b, mean, variance, epsilon=0.001, is_training=False)

            def update(*statistics: tf.Tensor) -> list:
                made = [
                    assign_moving_average(moving, value, 0.9, zero_debias=zero_debias and moving is mean)
                    for moving, value in zip((mean, variance), statistics, strict=True)
                ]
                if not in_place:
                    for each in made:
                        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, each)
                return made

            *y, batch_mean, batch_variance = smart.smart_cond(training, batch, moving)
            if training is True or isinstance(training, tf.Tensor):
                if isinstance(training, tf.Tensor):
                    updates = smart.smart_cond(
                        training, lambda: [tf.identity(u) for u in update(batch_mean, batch_variance)],
                        lambda: [tf.identity(mean), tf.identity(variance)],
                    ) if in_place else update(batch_mean, batch_variance)  # fmt: skip
                else:
                    updates = update(batch_mean, batch_variance)
                if in_place:
                    with tf.control_dependencies([tf.group(*updates)]):
                        y = [tf.identity(y[0])] if fused else y
                        batch_mean, batch_variance = tf.identity(batch_mean), tf.identity(batch_variance)
            return y[0] if fused else tf.nn.batch_normalization(x, batch_mean, batch_variance, beta, gamma, 0.001)

    return apply


def norm_variables(x: tf.Tensor) -> tuple[tf.Variable, ...]:
    """Scale, shift, moving mean and variance, as `tf.layers` makes them."""
    make = {"shape": [x.shape[-1]]}
    gamma = tf.get_variable("gamma", initializer=tf.ones_initializer, **make)
    beta = tf.get_variable("beta", initializer=tf.zeros_initializer, **make)
    mean = tf.get_variable("moving_mean", initializer=tf.zeros_initializer, trainable=False, **make)
    variance = tf.get_variable("moving_variance", initializer=tf.ones_initializer, trainable=False, **make)
    return gamma, beta, mean, variance


def layers_norm(*, fused: bool) -> Callable:
    """`tf.layers.batch_normalization` of TensorFlow 1: the decay, not the update, depends on whether it trains."""

    def apply(x: tf.Tensor, training: object) -> tf.Tensor:
        with tf.variable_scope("batch_normalization"):
            gamma, beta, mean, variance = norm_variables(x)

            def train() -> tuple:
                if fused:
                    return tuple(tf.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3))
                return tuple(tf.nn.moments(x, [0, 1, 2], keep_dims=False))

            def infer() -> tuple:
                if fused:
                    return tuple(
                        tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, epsilon=1e-3, is_training=False)
                    )
                return tf.identity(mean), tf.identity(variance)

            *y, used_mean, used_variance = smart.smart_cond(training, train, infer)
            if training is not False:
                decay = smart.smart_cond(training, lambda: 0.99, lambda: 1.0)
                decay = tf.convert_to_tensor(decay)
                for moving, value in ((mean, used_mean), (variance, used_variance)):
                    with tf.name_scope("AssignMovingAvg"):
                        change = (tf.convert_to_tensor(moving) - value) * (1.0 - decay)
                        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, change))
            return y[0] if fused else tf.nn.batch_normalization(x, used_mean, used_variance, beta, gamma, 1e-3)

    return apply


def chosen_norm(x: tf.Tensor, training: object) -> tf.Tensor:
    """`tf.layers.batch_normalization` of TensorFlow 1.4, where a tensor says whether it trains: no condition but a
    choice between the statistics of the batch and the averages, each of one row."""
    with tf.variable_scope("batch_normalization"):
        gamma, beta, mean, variance = norm_variables(x)
        if training is False:
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

        def chosen(yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
            rows = (tf.expand_dims(tf.convert_to_tensor(each), 0) for each in (yes, no))
            return tf.squeeze(tf.raw_ops.Select(condition=tf.reshape(training, [1]), x=next(rows), y=next(rows)), [0])

        used = [chosen(*each) for each in zip(tf.nn.moments(x, [0, 1, 2]), (mean, variance), strict=True)]
        decay = chosen(tf.constant(0.99), tf.constant(1.0))
        for moving, value in zip((mean, variance), used, strict=True):
            change = (tf.convert_to_tensor(moving) - value) * (1.0 - decay)
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, change))
        return tf.nn.batch_normalization(x, *used, beta, gamma, 1e-3)


def averaged_norm(x: tf.Tensor, training: object) -> tf.Tensor:
    """Moments and an ExponentialMovingAverage, with tf.cond where it is a tensor that decides: the recipe of 2016."""
    with tf.variable_scope("bn"):
        beta = tf.get_variable("beta", [x.shape[-1]], initializer=tf.zeros_initializer)
        gamma = tf.get_variable("gamma", [x.shape[-1]], initializer=tf.ones_initializer)
        batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2], name="moments")
        average = tf.train.ExponentialMovingAverage(0.5)
        apply = average.apply([batch_mean, batch_variance])

        def with_update() -> tuple:
            with tf.control_dependencies([apply]):
                return tf.identity(batch_mean), tf.identity(batch_variance)

        averages = lambda: (tf.identity(average.average(batch_mean)), tf.identity(average.average(batch_variance)))  # noqa: E731
        mean, variance = smart.smart_cond(training, with_update, averages)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def copied_norm(x: tf.Tensor, training: object) -> tf.Tensor:
    """Variables that take the statistics of each batch, and moving averages of these variables."""
    with tf.variable_scope("bn"):
        beta = tf.get_variable("beta", [x.shape[-1]], initializer=tf.zeros_initializer)
        names = [f"{name}{end}" for name in ("mean", "variance") for end in ("", "/ExponentialMovingAverage")]
        make = {"shape": [x.shape[-1]], "initializer": tf.ones_initializer, "trainable": False}
        mean, mean_average, variance, variance_average = (tf.get_variable(name, **make) for name in names)
        if training is False:
            return tf.nn.batch_normalization(x, mean_average, variance_average, beta, None, 1e-3)
        batch = tf.nn.moments(x, [0, 1, 2])
        copies = [tf.assign(each, value) for each, value in zip((mean, variance), batch, strict=True)]
        with tf.control_dependencies(copies):
            averages = zip((mean_average, variance_average), (mean, variance), strict=True)
            updates = [tf.assign_sub(each, 0.1 * (each - tf.convert_to_tensor(copy))) for each, copy in averages]
        with tf.control_dependencies(updates):
            used = [tf.identity(each) for each in batch]
        return tf.nn.batch_normalization(x, *used, beta, None, 1e-3)


def assigned_norm(*, subtract: bool, keep: bool = False) -> Callable:
    """A fused batch norm whose averages are assigned by hand; with `keep`, one that is spelled out over kept axes."""

    def apply(x: tf.Tensor, training: object) -> tf.Tensor:
        with tf.variable_scope("norm"):
            make = {"shape": [1, 1, 1, x.shape[-1]] if keep else [x.shape[-1]]}
            scale = tf.get_variable("scale", initializer=tf.ones_initializer, **make)
            offset = tf.get_variable("offset", initializer=tf.zeros_initializer, **make)
            mean = tf.get_variable("pop_mean", initializer=tf.zeros_initializer, trainable=False, **make)
            variance = tf.get_variable("pop_var", initializer=tf.ones_initializer, trainable=False, **make)
            if training is False:
                if keep:
                    return (x - mean) / tf.sqrt(variance + 1e-3) * scale + offset
                return tf.nn.fused_batch_norm(x, scale, offset, mean, variance, epsilon=1e-3, is_training=False)[0]
            if keep:
                batch_mean = tf.reduce_mean(x, [0, 1, 2], keep_dims=True)
                batch_variance = tf.reduce_mean(tf.square(x - batch_mean), [0, 1, 2], keep_dims=True)
            else:
                y, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, scale, offset, epsilon=1e-3)
            if subtract:
                updates = [tf.assign_sub(m, 0.1 * (m - b)) for m, b in ((mean, batch_mean), (variance, batch_variance))]
            else:
                updates = [tf.assign(m, m * 0.9 + b * 0.1) for m, b in ((mean, batch_mean), (variance, batch_variance))]
            with tf.control_dependencies(updates):
                if keep:
                    return (x - batch_mean) / tf.sqrt(batch_variance + 1e-3) * scale + offset
                return tf.identity(y)

    return apply


def norm_without_averages(x: tf.Tensor, training: object) -> tf.Tensor:
    """Normalises by the batch, in use as in training."""
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    beta = tf.get_variable("beta", [x.shape[-1]], initializer=tf.zeros_initializer)
    return tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3)


# --- dropout --------------------------------------------------------------------------------------------------------


def constant_dropout(x: tf.Tensor, training: object) -> tf.Tensor:
    """`tf.nn.dropout`, always there in what was trained."""
    return x if training is False else tf.nn.dropout(x, rate=0.5)


def fed_dropout(x: tf.Tensor, training: object) -> tf.Tensor:
    """The share that is kept is fed."""
    return x if training is False else tf.nn.dropout(x, keep_prob=tf.placeholder(tf.float32, name="keep_prob"))


def slim_dropout(x: tf.Tensor, training: object) -> tf.Tensor:
    """tf.contrib.slim's `dropout`."""
    return smart.smart_cond(training, lambda: tf.nn.dropout(x, rate=0.2), lambda: tf.identity(x))


def old_dropout(*, inverse: bool, behind: bool = False) -> Callable:
    """What `tf.nn.dropout` made of x until 0.8 (`inverse`) and until 1.12; `behind` divides afterwards, as some do."""

    def apply(x: tf.Tensor, training: object) -> tf.Tensor:
        if training is False:
            return x
        with tf.name_scope("dropout"):
            keep = tf.constant(0.8, name="keep_prob")
            mask = tf.floor(keep + tf.random_uniform(tf.shape(x)))
            if behind:
                return x * mask / keep
            return x * tf.raw_ops.Inv(x=keep) * mask if inverse else tf.div(x, keep) * mask

    return apply


def compared_dropout(x: tf.Tensor, training: object) -> tf.Tensor:
    """What 1.13 to 1.15 made of it."""
    if training is False:
        return x
    with tf.name_scope("dropout"):
        mask = tf.cast(tf.random_uniform(tf.shape(x)) >= 0.5, x.dtype)
        return x * (1 / (1 - 0.5)) * mask


# --- switches -------------------------------------------------------------------------------------------------------


def placeholder() -> tf.Tensor:
    return tf.placeholder(tf.bool, [], "is_training")


def default_true() -> tf.Tensor:
    return tf.placeholder_with_default(True, [], "is_training")


def whole_number() -> tf.Tensor:
    return tf.equal(tf.placeholder(tf.int32, [], "phase"), 1)


def in_variable() -> tf.Tensor:
    """tflearn's way."""
    return tf.identity(tf.get_variable("is_training", dtype=tf.bool, initializer=False, trainable=False))


def is_test() -> tf.Tensor:
    return tf.logical_not(tf.placeholder(tf.bool, [], "is_test"))


_FUSED, _PLAIN = slim_norm(fused=True), slim_norm(fused=False)
STYLES = {
    "plain": Style(),
    "slim fused": Style(_FUSED),
    "slim fused, resource": Style(_FUSED, resource=True),
    "slim fused, fed": Style(_FUSED, slim_dropout, placeholder),
    "slim fused, fed, resource": Style(_FUSED, slim_dropout, placeholder, resource=True),
    "slim fused, in place": Style(slim_norm(fused=True, in_place=True)),
    "slim fused, in place, fed": Style(slim_norm(fused=True, in_place=True), switch=placeholder),
    "slim fused, scale": Style(slim_norm(fused=True, scale=True)),
    "slim fused, no beta": Style(slim_norm(fused=True, scale=True, center=False)),
    "slim unfused": Style(_PLAIN),
    "slim unfused, resource": Style(_PLAIN, resource=True),
    "slim unfused, fed": Style(_PLAIN, slim_dropout, placeholder),
    "slim unfused, in place": Style(slim_norm(fused=False, in_place=True)),
    "slim unfused, scale": Style(slim_norm(fused=False, scale=True)),
    "slim unfused, zero debias": Style(slim_norm(fused=False, zero_debias=True)),
    "slim fused, zero debias": Style(slim_norm(fused=True, zero_debias=True)),
    "layers fused": Style(layers_norm(fused=True)),
    "layers fused, fed": Style(layers_norm(fused=True), switch=placeholder),
    "layers unfused": Style(layers_norm(fused=False)),
    "layers unfused, fed, resource": Style(layers_norm(fused=False), switch=placeholder, resource=True),
    "layers of 1.4, fed": Style(chosen_norm, switch=placeholder),
    "averages": Style(averaged_norm),
    "averages in a condition": Style(averaged_norm, switch=placeholder),
    "averages of copies": Style(copied_norm),
    "assign": Style(assigned_norm(subtract=False)),
    "assign_sub": Style(assigned_norm(subtract=True)),
    "assign_sub, kept axes": Style(assigned_norm(subtract=True, keep=True)),
    "condition of TensorFlow 2": Style(_FUSED, switch=placeholder, control_flow_v2=True, resource=True),
    "inverse flag": Style(_FUSED, slim_dropout, is_test),
    "default true": Style(_PLAIN, slim_dropout, default_true),
    "whole number": Style(_FUSED, slim_dropout, whole_number),
    "flag in a variable": Style(None, slim_dropout, in_variable),
    "dropout": Style(dropout=constant_dropout),
    "dropout, fed": Style(dropout=fed_dropout),
    "dropout of 0.8": Style(dropout=old_dropout(inverse=True)),
    "dropout of 1.12": Style(dropout=old_dropout(inverse=False)),
    "dropout divided behind": Style(dropout=old_dropout(inverse=False, behind=True)),
    "dropout of 1.15": Style(dropout=compared_dropout),
    "fixed batch": Style(batch=4, flatten="static", dropout=constant_dropout),
    "one image": Style(batch=1, flatten="static"),
    "flattened": Style(flatten="flat"),
    "queue": Style(_FUSED, constant_dropout, queue=True, batch=8, flatten="static"),
}

if __name__ == "__main__":
    save_training(STYLES["slim fused, fed"], "", sys.argv[1])
