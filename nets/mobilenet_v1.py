"""MobileNet under slim's names: Howard et al. 2017, table 1 (arXiv 1704.04861). tf_slim does not ship it."""

from __future__ import annotations

import functools

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim import layers

from .net import ArgScope

# Stride and channels of each pair of a depthwise and a pointwise convolution, numbered from 1.
_PAIRS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))


def mobilenet_v1_arg_scope(
    weight_decay: float = 0.00004,
    stddev: float = 0.09,
    batch_norm_decay: float = 0.9997,
    batch_norm_epsilon: float = 0.001,
) -> ArgScope:
    """Batch norm with gamma, relu6; depthwise weights, of which there are few, do not decay."""
    normalise = {"decay": batch_norm_decay, "epsilon": batch_norm_epsilon, "scale": True}
    both = tf_slim.arg_scope(
        [layers.conv2d, layers.separable_conv2d],
        weights_initializer=tf.truncated_normal_initializer(stddev=stddev),
        activation_fn=tf.nn.relu6,
        normalizer_fn=layers.batch_norm,
        normalizer_params=normalise,
    )
    full = tf_slim.arg_scope([layers.conv2d], weights_regularizer=tf_slim.l2_regularizer(weight_decay))
    with both, full as scope:
        return scope


def mobilenet_v1(
    images: tf.Tensor,
    num_classes: int = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.999,
    depth_multiplier: float = 1.0,
    scope: str = "MobilenetV1",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, height, width, 3]."""

    def channels(wide: int) -> int:
        return max(int(wide * depth_multiplier), 8)

    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope):
        net = layers.conv2d(images, channels(32), [3, 3], stride=2, scope="Conv2d_0")
        end_points["Conv2d_0"] = net
        for number, (stride, wide) in enumerate(_PAIRS, start=1):
            name = f"Conv2d_{number}_depthwise"
            net = layers.separable_conv2d(net, None, [3, 3], depth_multiplier=1, stride=stride, scope=name)
            end_points[name] = net
            name = f"Conv2d_{number}_pointwise"
            net = end_points[name] = layers.conv2d(net, channels(wide), [1, 1], scope=name)
        with tf.variable_scope("Logits"):
            net = layers.avg_pool2d(net, net.shape[1:3], padding="VALID", scope="AvgPool_1a")
            end_points["AvgPool_1a"] = net
            net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="Dropout_1b")
            logits = layers.conv2d(
                net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1"
            )
            logits = tf.squeeze(logits, [1, 2], name="SpatialSqueeze")
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


mobilenet_v1_075 = functools.partial(mobilenet_v1, depth_multiplier=0.75)
mobilenet_v1_050 = functools.partial(mobilenet_v1, depth_multiplier=0.50)
mobilenet_v1_025 = functools.partial(mobilenet_v1, depth_multiplier=0.25)
