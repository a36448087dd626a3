"""A few dense layers on vectors, in a tf.compat.v1 graph that makes many training steps in one `session.run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..nets.head import Dense, Dropout, layer_scopes, parse_layers

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

    from .classifier import VectorOptions

SCOPE = "Logits"


class VectorNet(NamedTuple):
    """The net in a graph; `order`, `first`, `vectors` and `fill` are fed."""

    run_steps: tf.Tensor  # mean loss of the steps made for `order`
    order: tf.Tensor  # int32 placeholder: rows of the training vectors, in the order of use
    first: tf.Tensor  # int64 placeholder: number of the first of these steps
    vectors: tf.Tensor  # float32 placeholder [n, d] of vectors to classify
    logits: tf.Tensor
    values: tf.Variable  # the training vectors
    label_ids: tf.Variable
    fill: tuple[tf.Tensor, tf.Tensor]
    variables: list[tf.Variable]


def build(options: VectorOptions, width: int, classes: int, count: int) -> VectorNet:
    """The net in the current graph: variables, the loop of steps, and logits of vectors that are fed."""
    import tensorflow.compat.v1 as tf

    from .optimizers import make_optimizer

    layers = parse_layers(options.head)
    weights = make_variables(layers, width, classes, options.seed)
    fill = tf.placeholder(tf.float32, [count, width]), tf.placeholder(tf.int32, [count])
    values = tf.get_variable("values", initializer=fill[0], trainable=False, use_resource=True)
    label_ids = tf.get_variable("label_ids", initializer=fill[1], trainable=False, use_resource=True)
    order, first = tf.placeholder(tf.int32, [None]), tf.placeholder(tf.int64, [])
    optimizer = make_optimizer(options, tf.constant(options.learning_rate, tf.float32))
    optimizer._create_slots(weights)  # outside of the loop, where variables can be made
    optimizer._prepare()
    steps = -(-tf.shape(order)[0] // options.batch_size)

    def one_step(number: tf.Tensor, losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = order[number * options.batch_size : (number + 1) * options.batch_size]
        seed = tf.stack([tf.constant(options.seed, tf.int64), first + tf.cast(number, tf.int64)])
        logits = apply(layers, weights, tf.gather(values, rows), seed)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.gather(label_ids, rows), logits=logits)
        )
        gradients = tf.gradients(loss, weights)
        with tf.control_dependencies([optimizer.apply_gradients(zip(gradients, weights, strict=True))]):
            return number + 1, losses + loss

    _, losses = tf.while_loop(
        lambda number, losses: number < steps, one_step, (0, 0.0), parallel_iterations=1, back_prop=False
    )
    vectors = tf.placeholder(tf.float32, [None, width])
    mean = losses / tf.cast(steps, tf.float32)
    return VectorNet(
        mean, order, first, vectors, apply(layers, weights, vectors, None), values, label_ids, fill, weights
    )


def make_variables(layers: Sequence[Dense | Dropout], width: int, classes: int, seed: int) -> list[tf.Variable]:
    """Weights and biases of each dense layer, then of the last one; Glorot's uniform and zeros."""
    import tensorflow.compat.v1 as tf

    made = []
    scopes = [scope for scope, layer in zip(layer_scopes(layers), layers, strict=True) if isinstance(layer, Dense)]
    widths = [layer.units for layer in layers if isinstance(layer, Dense)]
    for number, (scope, units) in enumerate(zip([*scopes, "fc"], [*widths, classes], strict=True)):
        with tf.variable_scope(f"{SCOPE}/{scope}"):
            uniform = tf.glorot_uniform_initializer(seed=seed * 1000 + number)
            made.append(tf.get_variable("weights", [width, units], initializer=uniform, use_resource=True))
            made.append(tf.get_variable("biases", [units], initializer=tf.zeros_initializer(), use_resource=True))
        width = units
    return made


def apply(
    layers: Sequence[Dense | Dropout], weights: Sequence[tf.Variable], values: tf.Tensor, seed: tf.Tensor | None
) -> tf.Tensor:
    """Logits [b, classes] of `values` [b, d]; dropout only with a `seed` int64 [2]."""
    import tensorflow.compat.v1 as tf

    left = list(weights)
    for number, layer in enumerate(layers):
        if isinstance(layer, Dense):
            kernel, biases = left.pop(0), left.pop(0)
            values = tf.nn.bias_add(tf.matmul(values, kernel), biases)
            if layer.activation != "linear":
                values = getattr(tf.nn, layer.activation)(values)
        elif seed is not None and layer.rate:
            import tensorflow

            own = tensorflow.random.experimental.stateless_fold_in(seed, number)
            kept = tensorflow.random.stateless_uniform(tf.shape(values), own) >= layer.rate
            values = tf.where(kept, values / (1 - layer.rate), tf.zeros_like(values))
    return tf.nn.bias_add(tf.matmul(values, left[0]), left[1])
