"""NASNet-A mobile under slim's names: Zoph et al. 2018, figure 4 and appendix A (arXiv 1707.07012). tf_slim does not
ship it. Its published files have no scope around the net.

A cell reads the outputs of the two cells before it and adds five pairs. A line `5x5 0 + 3x3 1` is one pair: what is
done to which state. State 0 is the output of the last cell, 1 that of the one before, both brought to the cell's width;
2 to 6 are the sums so far. `5x5` is a separable convolution of this kernel, twice; `same` does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim import layers

from .net import ArgScope

_NORMAL = ("5x5 0 + 3x3 1", "5x5 1 + 3x3 1", "avg 0 + same 1", "avg 1 + avg 1", "3x3 0 + same 0")
_REDUCTION = ("5x5 0 + 7x7 1", "max 0 + 7x7 1", "avg 0 + 5x5 1", "same 3 + avg 2", "3x3 2 + max 0")
_CELLS = 12
_REDUCTIONS = (4, 8)  # normal cells in front of which a reduction cell halves the map and doubles the width
_AUXILIARY = 7  # the cell behind which the second classifier is
_AUXILIARY_MAP = (14, 14)  # of a 224 pixel image there; the classifier's kernels fit no other size
_WIDTH = 44  # of the first cells; a cell gives six times its width


def nasnet_mobile_arg_scope(
    weight_decay: float = 4e-5, batch_norm_decay: float = 0.9997, batch_norm_epsilon: float = 1e-3
) -> ArgScope:
    """Convolutions without biases and activations, which the cells have apart, and batch norms with a scale."""
    regular = tf_slim.arg_scope(
        [layers.conv2d, layers.separable_conv2d, layers.fully_connected],
        weights_regularizer=tf_slim.l2_regularizer(weight_decay),
        weights_initializer=tf_slim.variance_scaling_initializer(mode="FAN_OUT"),
        activation_fn=None,
    )
    plain = tf_slim.arg_scope([layers.conv2d, layers.separable_conv2d], biases_initializer=None)
    scaled = tf_slim.arg_scope([layers.batch_norm], decay=batch_norm_decay, epsilon=batch_norm_epsilon, scale=True)
    with regular, plain, scaled as scope:
        return scope


def nasnet_mobile(
    images: tf.Tensor,
    num_classes: int = 1001,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    create_aux_logits: bool = True,
    scope: str = "",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Logits [batch, num_classes] and end points for images [batch, height, width, 3]."""
    end_points: dict[str, tf.Tensor] = {}
    with tf.variable_scope(scope):
        net = _normalised(layers.conv2d(images, 32, [3, 3], stride=2, padding="VALID", scope="conv0"), "conv0_bn")
        before, net = net, _cell(net, net, "cell_stem_0", _WIDTH // 4, _REDUCTION, stride=2)
        before, net = net, _cell(net, before, "cell_stem_1", _WIDTH // 2, _REDUCTION, stride=2)
        end_points["Stem"] = net
        width = _WIDTH
        for number in range(_CELLS):
            if number in _REDUCTIONS:
                width *= 2
                place = _REDUCTIONS.index(number)
                before, net = net, _cell(net, before, f"reduction_cell_{place}", width, _REDUCTION, stride=2)
                end_points[f"Reduction_Cell_{place}"] = net
            before, net = net, _cell(net, before, f"cell_{number}", width, _NORMAL)
            end_points[f"Cell_{number}"] = net
            if number == _AUXILIARY and create_aux_logits:
                with tf.variable_scope(f"aux_{number}/aux_logits"):
                    end_points["AuxLogits"] = _auxiliary_logits(net, num_classes)
        with tf.variable_scope("final_layer"):
            net = end_points["global_pool"] = tf.reduce_mean(tf.nn.relu(net), [1, 2], name="global_pool")
            net = layers.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout")
            logits = layers.fully_connected(net, num_classes, scope="FC")
        end_points["Logits"] = logits
        end_points["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return logits, end_points


def _cell(net: tf.Tensor, before: tf.Tensor, name: str, width: int, pairs: Sequence[str], stride: int = 1) -> tf.Tensor:
    """The states that no pair has read, side by side; a normal cell passes on the output of the cell before as well."""
    with tf.variable_scope(name):
        before = _fitted(before, net, width)
        net = _normalised(layers.conv2d(tf.nn.relu(net), width, [1, 1], scope="1x1"), "beginning_bn")
        states = [net, before]
        for number, pair in enumerate(pairs):
            with tf.variable_scope(f"comb_iter_{number}"):
                left, right = (_done(side, text, states, width, stride) for side, text in _sides(pair))
                states.append(left + right)
        return tf.concat(states[1:] if stride == 1 else states[3:], axis=3)


def _sides(pair: str) -> zip[tuple[str, str]]:
    return zip(("left", "right"), pair.split(" + "), strict=True)


def _done(side: str, text: str, states: Sequence[tf.Tensor], width: int, stride: int) -> tf.Tensor:
    """One half of a pair; the stride of a cell is that of what reads its inputs."""
    what, number = text.split()
    state = states[int(number)]
    step = stride if int(number) < 2 else 1
    with tf.variable_scope(side):
        if what == "same":
            return state
        if what in ("avg", "max"):  # looked up when it is called: see layers.py
            return getattr(layers, f"{what}_pool2d")(state, [3, 3], stride=step, padding="SAME")
        kernel = [int(length) for length in what.split("x")]
        for time, pace in ((1, step), (2, 1)):
            name = f"separable_{what}_{time}"
            state = layers.separable_conv2d(
                tf.nn.relu(state), width, kernel, depth_multiplier=1, stride=pace, scope=name
            )
            state = _normalised(state, f"bn_sep_{what}_{time}")
        return state


def _fitted(before: tf.Tensor, net: tf.Tensor, width: int) -> tf.Tensor:
    """The output of the cell before with the map of `net`, and with `width` channels but in the first cell, where both
    are the same."""
    if before.shape[2] != net.shape[2]:
        return _halved(tf.nn.relu(before), width)
    if before is not net and before.shape[3] != width:
        return _normalised(layers.conv2d(tf.nn.relu(before), width, [1, 1], scope="prev_1x1"), "prev_bn")
    return before


def _halved(net: tf.Tensor, width: int) -> tf.Tensor:
    """Every second pixel of every second row for one half of the channels, and those between them for the other."""
    even = layers.conv2d(net[:, ::2, ::2, :], width // 2, [1, 1], scope="path1_conv")
    between = tf.pad(net, [[0, 0], [0, 1], [0, 1], [0, 0]])[:, 1::2, 1::2, :]
    odd = layers.conv2d(between, width // 2, [1, 1], scope="path2_conv")
    return _normalised(tf.concat([even, odd], axis=3), "final_path_bn")


def _auxiliary_logits(net: tf.Tensor, num_classes: int) -> tf.Tensor:
    net = tf.cast(tf.nn.relu(net), tf.float32)  # a head computes in full precision
    if net.shape[1:3] != _AUXILIARY_MAP:
        net = tf.raw_ops.ResizeBilinear(images=net, size=_AUXILIARY_MAP, half_pixel_centers=True)
    net = layers.avg_pool2d(net, [5, 5], stride=3, padding="VALID")
    net = tf.nn.relu(_normalised(layers.conv2d(net, 128, [1, 1], scope="proj"), "aux_bn0"))
    net = layers.conv2d(net, 768, net.shape[1:3], padding="VALID", scope="Conv")
    net = tf.nn.relu(_normalised(net, "aux_bn1"))
    return layers.fully_connected(tf.squeeze(net, [1, 2]), num_classes, scope="FC")


def _normalised(net: tf.Tensor, name: str) -> tf.Tensor:
    return layers.batch_norm(net, scope=name)
