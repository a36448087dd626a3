"""MobileNetV2 under slim's names: Sandler et al. 2018, table 2 (arXiv 1801.04381). tf_slim does not ship it."""

from __future__ import annotations

import functools

import tensorflow.compat.v1 as tf
from tf_slim import layers

from .mobilenet import Ending, classified, mobilenet_arg_scope

_EXPANSION = 6
# Channels, number of blocks and stride of the first of them; the very first block does not expand its input.
_BLOCKS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_LAST = 1280  # a narrower net keeps it: the classifier would have too little to go by
_NAMES = Ending("AvgPool", "Dropout", "Squeeze", "global_pool")

mobilenet_v2_arg_scope = functools.partial(mobilenet_arg_scope, 0.997)


def mobilenet_v2(
    images: tf.Tensor,
    num_classes: int = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    depth_multiplier: float = 1.0,
    scope: str = "MobilenetV2",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, height, width, 3].

    The end points are numbered from 1, the scopes of the blocks from nothing: layer_2 is expanded_conv, layer_3 is
    expanded_conv_1.
    """
    end_points: dict[str, tf.Tensor] = {}
    blocks = [(wide, first if i == 0 else 1) for wide, count, first in _BLOCKS for i in range(count)]
    with tf.variable_scope(scope):
        net = layers.conv2d(images, _eighths(32 * depth_multiplier), [3, 3], stride=2, scope="Conv")
        end_points["layer_1"] = net
        for number, (wide, stride) in enumerate(blocks):
            layer = f"layer_{number + 2}"
            with tf.variable_scope(f"expanded_conv_{number}" if number else "expanded_conv"):
                net, inner = _block(net, _eighths(wide * depth_multiplier), stride, _EXPANSION if number else 1)
            end_points |= {f"{layer}/{name}": tensor for name, tensor in inner.items()} | {layer: net}
        last = _eighths(_LAST * max(depth_multiplier, 1.0))
        net = end_points[f"layer_{len(blocks) + 2}"] = layers.conv2d(net, last, [1, 1], scope="Conv_1")
        return classified(net, end_points, num_classes, dropout_keep_prob, _NAMES)


def _block(net: tf.Tensor, wide: int, stride: int, expansion: int) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """An inverted residual: expand, filter each channel by itself, project; what is inside by its end points' names."""
    before, inner = net, {}
    if expansion > 1:
        net = inner["expansion_output"] = layers.conv2d(net, net.shape[-1] * expansion, [1, 1], scope="expand")
    net = layers.separable_conv2d(net, None, [3, 3], depth_multiplier=1, stride=stride, scope="depthwise")
    inner["depthwise_output"] = net
    net = layers.conv2d(net, wide, [1, 1], activation_fn=None, scope="project")
    if stride == 1 and before.shape[-1] == wide:
        net += before
    inner["output"] = net
    return net, inner


def _eighths(wide: float) -> int:
    """The multiple of 8 next to `wide`, and never less than nine tenths of it."""
    near = max(8, int(wide + 4) // 8 * 8)
    return near if near >= 0.9 * wide else near + 8


mobilenet_v2_140 = functools.partial(mobilenet_v2, depth_multiplier=1.40)
mobilenet_v2_130 = functools.partial(mobilenet_v2, depth_multiplier=1.30)
mobilenet_v2_075 = functools.partial(mobilenet_v2, depth_multiplier=0.75)
mobilenet_v2_050 = functools.partial(mobilenet_v2, depth_multiplier=0.50)
mobilenet_v2_035 = functools.partial(mobilenet_v2, depth_multiplier=0.35)
