"""A classifier as it was written for TensorFlow 1: the example of docs/own_net.md."""

import tensorflow as tf
import tensorflow.contrib.slim as slim

IMAGE_SIZE = 32
PREPROCESSING = "inception"


def build(images, num_classes=5, is_training=True):
    norm = {"is_training": is_training, "decay": 0.99}
    with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm, normalizer_params=norm):
        net = slim.conv2d(images, 6, [3, 3], scope="conv1")
        net = slim.conv2d(net, 6, [3, 3], scope="conv2")
    net = slim.max_pool2d(net, [2, 2])
    net = tf.reduce_mean(net, [1, 2], keep_dims=False)
    net = slim.fully_connected(net, 16, scope="hidden")
    net = slim.dropout(net, 0.5, is_training=is_training)
    return slim.fully_connected(net, num_classes, activation_fn=None, scope="classes")
