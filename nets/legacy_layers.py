"""Batch norms of TensorFlow 1 for code that is built once to be looked at: under the names and with the arguments that
`tf.contrib.layers` and `tf.layers` have, in inference mode.

Those of tf_slim and of TensorFlow need a Keras that is gone. Whatever `is_training` says, the moving averages are used:
what a function builds here is only ever run with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow.compat.v1 as tf
from tf_slim.layers.utils import collect_named_outputs, get_variable_collections
from tf_slim.ops import variables as slim_variables

from .layers import installed


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Puts the batch norm of this module in tf_slim's place, and tf_slim's own back at the end."""
    with installed({"batch_norm": slim_batch_norm}):
        yield


def slim_batch_norm(
    inputs: tf.Tensor,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Callable[[tf.Tensor], tf.Tensor] | None = None,
    param_initializers: Mapping[str, Callable[..., tf.Tensor]] | None = None,
    param_regularizers: object = None,
    updates_collections: object = None,
    is_training: object = None,
    reuse: bool | None = None,
    variables_collections: object = None,
    outputs_collections: object = None,
    trainable: bool = True,
    batch_weights: object = None,
    fused: object = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    scope: str | None = None,
    **renormalising: object,
) -> tf.Tensor:
    """`tf.contrib.layers.batch_norm` of [batch, ..., channels], or with "NCHW" [batch, channels, ...]."""
    with tf.variable_scope(scope, "BatchNorm", [inputs], reuse=reuse) as layer:
        axis = 1 if data_format.startswith("NC") else inputs.shape.rank - 1
        channels = inputs.shape.as_list()[axis]

        def variable(name: str, initializer: Callable[..., tf.Tensor], trains: bool) -> tf.Variable:
            initializer = (param_initializers or {}).get(name, initializer)
            how = {"trainable": trains, "collections": get_variable_collections(variables_collections, name)}
            return slim_variables.model_variable(name, [channels], tf.float32, initializer, **how)

        zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
        beta = variable("beta", zeros, trainable) if center else None
        gamma = variable("gamma", ones, trainable) if scale else None
        mean, variance = variable("moving_mean", zeros, False), variable("moving_variance", ones, False)
        outputs = _normalised(inputs, gamma, beta, mean, variance, epsilon, axis)
        outputs = activation_fn(outputs) if activation_fn else outputs
        return collect_named_outputs(outputs_collections, layer.name, outputs)


def batch_normalization(
    inputs: tf.Tensor,
    axis: int | Sequence[int] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Callable[..., tf.Tensor] | None = None,
    gamma_initializer: Callable[..., tf.Tensor] | None = None,
    moving_mean_initializer: Callable[..., tf.Tensor] | None = None,
    moving_variance_initializer: Callable[..., tf.Tensor] | None = None,
    beta_regularizer: object = None,
    gamma_regularizer: object = None,
    beta_constraint: object = None,
    gamma_constraint: object = None,
    training: object = False,
    trainable: bool = True,
    name: str | None = None,
    reuse: bool | None = None,
    **renormalising: object,
) -> tf.Tensor:
    """`tf.layers.batch_normalization` along one axis; without a name it is batch_normalization, batch_normalization_1
    and so on in its scope."""
    (along,) = (axis,) if isinstance(axis, int) else axis
    along %= inputs.shape.rank
    with tf.variable_scope(name, "batch_normalization", reuse=reuse):
        shape = [inputs.shape.as_list()[along]]

        def variable(name: str, initializer: Callable[..., tf.Tensor], trains: bool) -> tf.Variable:
            return tf.get_variable(name, shape, tf.float32, initializer, trainable=trains)

        zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
        gamma = variable("gamma", gamma_initializer or ones, trainable) if scale else None
        beta = variable("beta", beta_initializer or zeros, trainable) if center else None
        mean = variable("moving_mean", moving_mean_initializer or zeros, False)
        variance = variable("moving_variance", moving_variance_initializer or ones, False)
        return _normalised(inputs, gamma, beta, mean, variance, epsilon, along)


def _normalised(
    inputs: tf.Tensor, gamma: tf.Variable | None, beta: tf.Variable | None, mean: tf.Variable, variance: tf.Variable,
    epsilon: float, axis: int,
) -> tf.Tensor:  # fmt: skip
    rank, channels = inputs.shape.rank, mean.shape.as_list()
    if rank == 4 and axis in (1, 3):
        gamma, beta = tf.ones(channels) if gamma is None else gamma, tf.zeros(channels) if beta is None else beta
        how = {"epsilon": epsilon, "is_training": False, "data_format": "NHWC" if axis == 3 else "NCHW"}
        return tf.nn.fused_batch_norm(inputs, gamma, beta, mean, variance, **how)[0]
    shape = [-1 if i == axis else 1 for i in range(rank)]
    parts = [None if each is None else tf.reshape(each, shape) for each in (mean, variance, beta, gamma)]
    return tf.nn.batch_normalization(inputs, *parts, epsilon)
