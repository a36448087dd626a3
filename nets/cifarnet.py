"""slim's small nets for small images, CifarNet (32 x 32, CIFAR-10) and LeNet (28 x 28, MNIST), under its names.

Both are written from what slim's walkthrough says of them. Their first dense layer reads the whole map, so that they
take images of one size only. LeNet looks at grey images: colours are brought to grey within it.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim import layers

from ckpt_tools.errors import UnsupportedError

from .net import ArgScope

_GREY = (0.299, 0.587, 0.114)  # red, green, blue in brightness: ITU-R BT.601; they add up to 1


def cifarnet_arg_scope(weight_decay: float = 0.004) -> ArgScope:
    """Small normal weights; those of the dense layers decay."""
    convolutions = tf_slim.arg_scope(
        [layers.conv2d], weights_initializer=tf.truncated_normal_initializer(stddev=0.05), activation_fn=tf.nn.relu
    )
    dense = tf_slim.arg_scope(
        [layers.fully_connected],
        biases_initializer=tf.constant_initializer(0.1),
        weights_initializer=tf.truncated_normal_initializer(stddev=0.04),
        weights_regularizer=tf_slim.l2_regularizer(weight_decay),
        activation_fn=tf.nn.relu,
    )
    with convolutions, dense as scope:
        return scope


def cifarnet(
    images: tf.Tensor,
    num_classes: int = 10,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    scope: str = "CifarNet",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, 32, 32, 3]."""
    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope):
        net = end_points["conv1"] = layers.conv2d(images, 64, [5, 5], scope="conv1")
        net = end_points["pool1"] = layers.max_pool2d(net, [2, 2], 2, scope="pool1")
        net = _across_channels(net, "norm1")
        net = end_points["conv2"] = layers.conv2d(net, 64, [5, 5], scope="conv2")
        net = _across_channels(net, "norm2")
        net = end_points["pool2"] = layers.max_pool2d(net, [2, 2], 2, scope="pool2")
        net = end_points["Flatten"] = _whole_map(net, images, 32)
        net = end_points["fc3"] = layers.fully_connected(net, 384, scope="fc3")
        net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout3")
        net = end_points["fc4"] = layers.fully_connected(net, 192, scope="fc4")
        logits = layers.fully_connected(
            net,
            num_classes,
            biases_initializer=tf.zeros_initializer(),
            weights_initializer=tf.truncated_normal_initializer(stddev=1 / 192.0),
            weights_regularizer=None,
            activation_fn=None,
            scope="logits",
        )
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


def lenet_arg_scope(weight_decay: float = 0.0) -> ArgScope:
    """Normal weights everywhere."""
    with tf_slim.arg_scope(
        [layers.conv2d, layers.fully_connected],
        weights_initializer=tf.truncated_normal_initializer(stddev=0.1),
        weights_regularizer=tf_slim.l2_regularizer(weight_decay),
        activation_fn=tf.nn.relu,
    ) as scope:
        return scope


def lenet(
    images: tf.Tensor,
    num_classes: int = 10,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    scope: str = "LeNet",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, 28, 28, 3 or 1]."""
    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope):
        net = images if images.shape[-1] == 1 else _grey(images)
        net = end_points["conv1"] = layers.conv2d(net, 32, [5, 5], scope="conv1")
        net = end_points["pool1"] = layers.max_pool2d(net, [2, 2], 2, scope="pool1")
        net = end_points["conv2"] = layers.conv2d(net, 64, [5, 5], scope="conv2")
        net = end_points["pool2"] = layers.max_pool2d(net, [2, 2], 2, scope="pool2")
        net = end_points["Flatten"] = _whole_map(net, images, 28)
        net = end_points["fc3"] = layers.fully_connected(net, 1024, scope="fc3")
        net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout3")
        logits = layers.fully_connected(net, num_classes, activation_fn=None, scope="fc4")
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


def _across_channels(net: tf.Tensor, name: str) -> tf.Tensor:
    """Local response normalisation (Krizhevsky 2012, section 3.3) over four channels to either side; TensorFlow has
    none in bfloat16."""
    wide = tf.nn.lrn(tf.cast(net, tf.float32), 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75, name=name)
    return tf.cast(wide, net.dtype)


def _grey(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(images * tf.constant(_GREY, images.dtype), axis=3, keepdims=True, name="grey")


def _whole_map(net: tf.Tensor, images: tf.Tensor, side: int) -> tf.Tensor:
    """`net` flattened. Raises UnsupportedError where it is not the map of an image of side x side pixels."""
    if net.shape[1:3] != (side // 4, side // 4):
        height, width = images.shape[1:3]
        fact = f"images of {height} x {width} pixels do not fit, since a dense layer reads the whole map"
        raise UnsupportedError(fact, advice=f"This net takes {side} x {side} pixels only.")
    return tf.reshape(net, [-1, net.shape[1:].num_elements()], name="Flatten")
