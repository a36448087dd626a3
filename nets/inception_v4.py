"""Inception-v4 under slim's names: Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", figures 3 to 9 (arXiv 1602.07261). tf_slim does not ship it.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf
from tf_slim import layers
from tf_slim.nets.inception import inception_v3_arg_scope as inception_v4_arg_scope  # noqa: F401  both have the same

from .branches import STEM, auxiliary_logits, branches, chain

_MODULE_A = (
    "Conv2d_0a_1x1 96",
    "Conv2d_0a_1x1 64 | Conv2d_0b_3x3 96",
    "Conv2d_0a_1x1 64 | Conv2d_0b_3x3 96 | Conv2d_0c_3x3 96",
    "AvgPool_0a_3x3 | Conv2d_0b_1x1 96",
)
_MODULE_B = (
    "Conv2d_0a_1x1 384",
    "Conv2d_0a_1x1 192 | Conv2d_0b_1x7 224 | Conv2d_0c_7x1 256",
    "Conv2d_0a_1x1 192 | Conv2d_0b_7x1 192 | Conv2d_0c_1x7 224 | Conv2d_0d_7x1 224 | Conv2d_0e_1x7 256",
    "AvgPool_0a_3x3 | Conv2d_0b_1x1 128",
)
_MODULE_C = (
    "Conv2d_0a_1x1 256",
    "Conv2d_0a_1x1 384 | Conv2d_0b_1x3 256 & Conv2d_0c_3x1 256",
    "Conv2d_0a_1x1 384 | Conv2d_0b_3x1 448 | Conv2d_0c_1x3 512 | Conv2d_0d_1x3 256 & Conv2d_0e_3x1 256",
    "AvgPool_0a_3x3 | Conv2d_0b_1x1 256",
)
_AUXILIARY = {"pool": "AvgPool_1a_5x5", "whole": "Conv2d_2a", "last": "Aux_logits"}
_MODULES = {
    "Mixed_3a": ("MaxPool_0a_3x3 /2", "Conv2d_0a_3x3 96 /2"),
    "Mixed_4a": (
        "Conv2d_0a_1x1 64 | Conv2d_1a_3x3 96 valid",
        "Conv2d_0a_1x1 64 | Conv2d_0b_1x7 64 | Conv2d_0c_7x1 64 | Conv2d_1a_3x3 96 valid",
    ),
    "Mixed_5a": ("Conv2d_1a_3x3 192 /2", "MaxPool_1a_3x3 /2"),
    **{f"Mixed_5{letter}": _MODULE_A for letter in "bcde"},
    "Mixed_6a": (
        "Conv2d_1a_3x3 384 /2",
        "Conv2d_0a_1x1 192 | Conv2d_0b_3x3 224 | Conv2d_1a_3x3 256 /2",
        "MaxPool_1a_3x3 /2",
    ),
    **{f"Mixed_6{letter}": _MODULE_B for letter in "bcdefgh"},
    "Mixed_7a": (
        "Conv2d_0a_1x1 192 | Conv2d_1a_3x3 192 /2",
        "Conv2d_0a_1x1 256 | Conv2d_0b_1x7 256 | Conv2d_0c_7x1 320 | Conv2d_1a_3x3 320 /2",
        "MaxPool_1a_3x3 /2",
    ),
    **{f"Mixed_7{letter}": _MODULE_C for letter in "bcd"},
}


def inception_v4(
    images: tf.Tensor,
    num_classes: int = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    create_aux_logits: bool = True,
    scope: str = "InceptionV4",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, height, width, 3]."""
    end_points: dict[str, tf.Tensor] = {}
    net = images
    with tf.variable_scope(scope):
        for line in STEM:
            net = end_points[line.split()[0]] = chain(net, line)
        for name, lines in _MODULES.items():
            with tf.variable_scope(name):
                net = end_points[name] = branches(net, lines)
        if create_aux_logits:
            with tf.variable_scope("AuxLogits"):
                end_points["AuxLogits"] = auxiliary_logits(end_points["Mixed_6h"], num_classes, **_AUXILIARY)
        with tf.variable_scope("Logits"):
            net = layers.avg_pool2d(net, net.shape[1:3], padding="VALID", scope="AvgPool_1a")
            end_points["global_pool"] = net
            net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="Dropout_1b")
            net = end_points["PreLogitsFlatten"] = tf.squeeze(net, [1, 2], name="PreLogitsFlatten")
            logits = layers.fully_connected(net, num_classes, activation_fn=None, scope="Logits")
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points
