"""What the MobileNets of both versions have in common: how their layers are set up, and how they end."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim import layers

from .net import ArgScope


class Ending(NamedTuple):
    """What slim calls the last steps of a version, and the end point of the pooled features."""

    pool: str
    dropout: str
    squeeze: str
    pooled: str


def mobilenet_arg_scope(batch_norm_decay: float, weight_decay: float = 0.00004) -> ArgScope:
    """Batch norm with gamma, relu6; depthwise weights, of which there are few, do not decay."""
    both = tf_slim.arg_scope(
        [layers.conv2d, layers.separable_conv2d],
        weights_initializer=tf.truncated_normal_initializer(stddev=0.09),
        activation_fn=tf.nn.relu6,
        normalizer_fn=layers.batch_norm,
        normalizer_params={"decay": batch_norm_decay, "epsilon": 0.001, "scale": True},
    )
    full = tf_slim.arg_scope([layers.conv2d], weights_regularizer=tf_slim.l2_regularizer(weight_decay))
    with both, full as scope:
        return scope


def classified(
    net: tf.Tensor, end_points: dict[str, tf.Tensor], num_classes: int, keep_prob: float, names: Ending
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] of the map `net`, and all end points."""
    with tf.variable_scope("Logits"):
        net = end_points[names.pooled] = layers.avg_pool2d(net, net.shape[1:3], padding="VALID", scope=names.pool)
        net = layers.dropout(net, keep_prob, scope=names.dropout)
        logits = layers.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1")
        logits = tf.squeeze(logits, [1, 2], name=names.squeeze)
    return logits, {**end_points, "Logits": logits, "Predictions": tf.nn.softmax(logits, name="Predictions")}
