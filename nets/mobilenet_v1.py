"""MobileNet under slim's names: Howard et al. 2017, table 1 (arXiv 1704.04861). tf_slim does not ship it."""

from __future__ import annotations

import functools

import tensorflow.compat.v1 as tf
from tf_slim import layers

from .mobilenet import Ending, classified, mobilenet_arg_scope

# Stride and channels of each pair of a depthwise and a pointwise convolution, numbered from 1.
_PAIRS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))
_NAMES = Ending("AvgPool_1a", "Dropout_1b", "SpatialSqueeze", "AvgPool_1a")

mobilenet_v1_arg_scope = functools.partial(mobilenet_arg_scope, 0.9997)


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
        return classified(net, end_points, num_classes, dropout_keep_prob, _NAMES)


mobilenet_v1_075 = functools.partial(mobilenet_v1, depth_multiplier=0.75)
mobilenet_v1_050 = functools.partial(mobilenet_v1, depth_multiplier=0.50)
mobilenet_v1_025 = functools.partial(mobilenet_v1, depth_multiplier=0.25)
