"""The optimizers of TensorFlow 1, whose slots have the names that old checkpoints know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import Options

if TYPE_CHECKING:
    import tensorflow as tf


def make_optimizer(options: Options, learning_rate: tf.Tensor) -> tf.compat.v1.train.Optimizer:
    """The optimizer named by the options, with slim's defaults for what has no option of its own."""
    import tensorflow as tf

    train = tf.compat.v1.train
    if options.optimizer == "sgd":
        return train.GradientDescentOptimizer(learning_rate)
    if options.optimizer == "momentum":
        return train.MomentumOptimizer(learning_rate, options.momentum, name="Momentum")
    if options.optimizer == "rmsprop":
        return train.RMSPropOptimizer(learning_rate, decay=0.9, momentum=options.momentum, epsilon=1.0)
    if options.optimizer == "adagrad":
        return train.AdagradOptimizer(learning_rate, initial_accumulator_value=0.1)
    return train.AdamOptimizer(learning_rate)
