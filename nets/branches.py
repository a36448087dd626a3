"""Inception modules written as their papers draw them: a line a branch, a word a layer.

    Conv2d_0a_1x1 192 | Conv2d_0b_1x7 224 | Conv2d_1a_3x3 256 /2

A layer is the name that slim gives it, which ends in its kernel, and for a convolution its channels. `/2` is a stride
of 2, which goes without padding in all modules, as does `valid`. Layers joined by `&` read the same input, and their
outputs are put side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow.compat.v1 as tf
from tf_slim import layers

STEM = ("Conv2d_1a_3x3 32 /2", "Conv2d_2a_3x3 32 valid", "Conv2d_2b_3x3 64")  # how Inceptions from v3 on begin
_POOLINGS = {"AvgPool": "avg_pool2d", "MaxPool": "max_pool2d"}


def branches(inputs: tf.Tensor, lines: Sequence[str]) -> tf.Tensor:
    """The branches on `inputs` [batch, height, width, channels] in the scopes Branch_0, Branch_1, ..., side by side."""
    outputs = []
    for number, line in enumerate(lines):
        with tf.variable_scope(f"Branch_{number}"):
            outputs.append(chain(inputs, line))
    return tf.concat(outputs, axis=3)


def chain(inputs: tf.Tensor, line: str) -> tf.Tensor:
    """The layers of a line, one after the other."""
    for step in line.split("|"):
        outputs = [_layer(inputs, text) for text in step.split("&")]
        inputs = outputs[0] if len(outputs) == 1 else tf.concat(outputs, axis=3)
    return inputs


def auxiliary_logits(
    net: tf.Tensor, num_classes: int, *, pool: str = "Conv2d_1a_3x3", whole: str = "Conv2d_2a_5x5", last: str = "Logits"
) -> tf.Tensor:
    """The second classifier of an Inception, on a map within it: logits [batch, num_classes]. `pool`, `whole` and
    `last` are what slim calls the pooling, the convolution over all that it leaves, and the dense layer."""
    net = layers.avg_pool2d(net, [5, 5], stride=3, padding="VALID", scope=pool)
    net = layers.conv2d(net, 128, [1, 1], scope="Conv2d_1b_1x1")
    net = layers.conv2d(net, 768, net.shape[1:3], padding="VALID", scope=whole)
    return layers.fully_connected(tf.squeeze(net, [1, 2]), num_classes, activation_fn=None, scope=last)


def _layer(inputs: tf.Tensor, text: str) -> tf.Tensor:
    name, *words = text.split()
    kernel = [int(side) for side in name.rpartition("_")[2].split("x")]
    stride = 2 if "/2" in words else 1
    how = {"stride": stride, "padding": "VALID" if stride == 2 or "valid" in words else "SAME", "scope": name}
    pooling = _POOLINGS.get(name.partition("_")[0])
    if pooling:  # looked up when it is called: see layers.py
        return getattr(layers, pooling)(inputs, kernel, **how)
    return layers.conv2d(inputs, int(words[0]), kernel, **how)
