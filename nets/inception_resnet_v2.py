"""Inception-ResNet-v2 under slim's names: Szegedy et al. 2016 (arXiv 1602.07261). tf_slim does not ship it.

The published net differs from the paper's figures: its stem and Mixed_5b are those of Inception-v3's kin, and it has
10, 20 and 10 residual modules, whose branches count 0.17, 0.10 and 0.20 before they are added (section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim import layers

from .branches import STEM, auxiliary_logits, branches, chain
from .net import ArgScope

_STEM = (
    *STEM,
    "MaxPool_3a_3x3 /2",
    "Conv2d_3b_1x1 80",
    "Conv2d_4a_3x3 192 valid",
    "MaxPool_5a_3x3 /2",
)
_MIXED_5B = (
    "Conv2d_1x1 96",
    "Conv2d_0a_1x1 48 | Conv2d_0b_5x5 64",
    "Conv2d_0a_1x1 64 | Conv2d_0b_3x3 96 | Conv2d_0c_3x3 96",
    "AvgPool_0a_3x3 | Conv2d_0b_1x1 64",
)
_BLOCK35 = (
    "Conv2d_1x1 32",
    "Conv2d_0a_1x1 32 | Conv2d_0b_3x3 32",
    "Conv2d_0a_1x1 32 | Conv2d_0b_3x3 48 | Conv2d_0c_3x3 64",
)
_MIXED_6A = (
    "Conv2d_1a_3x3 384 /2",
    "Conv2d_0a_1x1 256 | Conv2d_0b_3x3 256 | Conv2d_1a_3x3 384 /2",
    "MaxPool_1a_3x3 /2",
)
_BLOCK17 = ("Conv2d_1x1 192", "Conv2d_0a_1x1 128 | Conv2d_0b_1x7 160 | Conv2d_0c_7x1 192")
_MIXED_7A = (
    "Conv2d_0a_1x1 256 | Conv2d_1a_3x3 384 /2",
    "Conv2d_0a_1x1 256 | Conv2d_1a_3x3 288 /2",
    "Conv2d_0a_1x1 256 | Conv2d_0b_3x3 288 | Conv2d_1a_3x3 320 /2",
    "MaxPool_1a_3x3 /2",
)
_BLOCK8 = ("Conv2d_1x1 192", "Conv2d_0a_1x1 192 | Conv2d_0b_1x3 224 | Conv2d_0c_3x1 256")


def inception_resnet_v2_arg_scope(
    weight_decay: float = 0.00004, batch_norm_decay: float = 0.9997, batch_norm_epsilon: float = 0.001
) -> ArgScope:
    """What slim's Inception nets do, with a decay of the biases as well."""
    decay = tf_slim.l2_regularizer(weight_decay)
    normalise = {"decay": batch_norm_decay, "epsilon": batch_norm_epsilon}
    regular = tf_slim.arg_scope(
        [layers.conv2d, layers.fully_connected], weights_regularizer=decay, biases_regularizer=decay
    )
    convolutions = tf_slim.arg_scope(
        [layers.conv2d], activation_fn=tf.nn.relu, normalizer_fn=layers.batch_norm, normalizer_params=normalise
    )
    with regular, convolutions as scope:
        return scope


def inception_resnet_v2(
    images: tf.Tensor,
    num_classes: int = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    create_aux_logits: bool = True,
    scope: str = "InceptionResnetV2",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, height, width, 3]."""
    end_points: dict[str, tf.Tensor] = {}
    net = images
    with tf.variable_scope(scope):
        for line in _STEM:
            net = end_points[line.split()[0]] = chain(net, line)
        net = end_points["Mixed_5b"] = _mixed(net, "Mixed_5b", _MIXED_5B)
        net = _repeated(net, "Repeat/block35", 10, _BLOCK35, 0.17)
        net = end_points["Mixed_6a"] = _mixed(net, "Mixed_6a", _MIXED_6A)
        net = end_points["PreAuxLogits"] = _repeated(net, "Repeat_1/block17", 20, _BLOCK17, 0.10)
        net = end_points["Mixed_7a"] = _mixed(net, "Mixed_7a", _MIXED_7A)
        net = _repeated(net, "Repeat_2/block8", 9, _BLOCK8, 0.20)
        net = _residual(net, "Block8", _BLOCK8, 1.0, activation=None)
        net = end_points["Conv2d_7b_1x1"] = chain(net, "Conv2d_7b_1x1 1536")
        if create_aux_logits:
            with tf.variable_scope("AuxLogits"):
                end_points["AuxLogits"] = auxiliary_logits(end_points["PreAuxLogits"], num_classes)
        with tf.variable_scope("Logits"):
            net = layers.avg_pool2d(net, net.shape[1:3], padding="VALID", scope="AvgPool_1a_8x8")
            end_points["global_pool"] = net
            net = tf.squeeze(net, [1, 2])
            net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="Dropout")
            end_points["PreLogitsFlatten"] = net
            logits = layers.fully_connected(net, num_classes, activation_fn=None, scope="Logits")
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


def _mixed(net: tf.Tensor, name: str, lines: Sequence[str]) -> tf.Tensor:
    with tf.variable_scope(name):
        return branches(net, lines)


def _repeated(net: tf.Tensor, name: str, count: int, lines: Sequence[str], scale: float) -> tf.Tensor:
    for number in range(1, count + 1):
        net = _residual(net, f"{name}_{number}", lines, scale)
    return net


def _residual(
    net: tf.Tensor,
    name: str,
    lines: Sequence[str],
    scale: float,
    activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
) -> tf.Tensor:
    """`net` and `scale` times what the branches make of it, a linear 1 x 1 convolution behind them."""
    with tf.variable_scope(name):
        added = layers.conv2d(
            branches(net, lines), net.shape[-1], [1, 1], normalizer_fn=None, activation_fn=None, scope="Conv2d_1x1"
        )
        net += scale * added
        return activation(net) if activation else net
