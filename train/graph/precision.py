"""Computing below float32 (--precision) and with compiled code (--xla).

Variables, batch-norm statistics, the head, the loss and the optimizer's input are always float32, so that a checkpoint
of such a run is like any other.

Float16 needs the loss scaled up, so that small gradients do not become zero; bfloat16 has the exponents of float32 and
needs no scale. The scale is dynamic (Micikevicius et al. 2017, section 3.2): a step whose gradients overflow is skipped
and halves it, GROWS_AFTER good steps in a row double it. It is stored in two variables of the checkpoint, so that a
continued run keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import tensorflow.compat.v1 as tf

FIRST, LEAST, MOST = 2.0**15, 1.0, 2.0**24
GROWS_AFTER = 2000  # steps


def compiled(xla: bool) -> AbstractContextManager[None]:
    """A scope whose operations are compiled by XLA on any device, if `xla` is true.

    TensorFlow's own clustering (ConfigProto.global_jit_level) ignores CPUs unless a flag is in the environment before
    TensorFlow is loaded.
    """
    return tf.xla.experimental.jit_scope() if xla else nullcontext()


class LossScale(NamedTuple):
    """The factor of the loss (float32), and the number of good steps since it last changed (int32)."""

    value: tf.Variable
    good_steps: tf.Variable


def make_loss_scale(precision: str) -> LossScale | None:
    """The scale of a graph that computes in float16; None for other precisions."""
    if precision != "float16":
        return None
    return LossScale(
        tf.get_variable("loss_scale", initializer=tf.constant(FIRST), trainable=False),
        tf.get_variable("loss_scale/good_steps", initializer=tf.constant(0), trainable=False),
    )


def unscaled(gradients: Sequence[tf.Tensor | None], scale: LossScale | None) -> list[tf.Tensor | None]:
    """The gradients of the loss from those of the scaled loss."""
    if scale is None:
        return list(gradients)
    return [None if gradient is None else tf.convert_to_tensor(gradient) / scale.value for gradient in gradients]


def apply_if_finite(
    gradients: Sequence[tf.Tensor], apply: Callable[[], tf.Operation], scale: LossScale
) -> tuple[tf.Operation, tf.Tensor]:
    """The operation that applies the gradients if all are finite and updates the scale, and a bool tensor that tells
    whether it skips the step.

    At the least scale, skipping steps would not help: they are applied, and the gradients' norms show the problem.
    """
    finite = tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]))
    left_out = tf.logical_and(tf.logical_not(finite), scale.value > LEAST)

    def applied() -> tf.Tensor:
        with tf.control_dependencies([apply()]):
            return tf.constant(True)

    done = tf.cond(finite, applied, lambda: tf.constant(False))
    with tf.control_dependencies([done, left_out]):
        good = tf.where(finite, scale.good_steps + 1, 0)
        grows = good >= GROWS_AFTER
        grown = tf.minimum(scale.value * tf.where(grows, 2.0, 1.0), MOST)
        value = tf.where(finite, grown, tf.maximum(scale.value / 2.0, LEAST))
        kept = [tf.assign(scale.value, value), tf.assign(scale.good_steps, tf.where(grows, 0, good))]
    return tf.group(*kept), left_out
