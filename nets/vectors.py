"""The net that stands in front of a data set of vectors: none. What is fed is what reaches the head.

>>> net = vectors_net(2048)
>>> net.name, net.feature_channels, net.variables(10)
('vectors_2048', 2048, ())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .net import ArgScope, Net

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

_PREFIX = "vectors_"


def vectors_net(width: int) -> Net:
    """The net for vectors of `width` values."""
    return Net(
        name=f"{_PREFIX}{width}",
        title=f"a small net on vectors of {width:,} values",
        scope="Vectors",
        landmark="",
        builder="ckpt_tools.nets.vectors.vectors",
        image_size=0,
        preprocessing="",
        head="logits",
        last_layer="logits",
        classes=0,
        class_offset=0,
        rows=(),
        width=width,
    )


def vectors_net_called(name: str) -> Net | None:
    """The net that a run's plan.json calls so; None for any other name."""
    width = name.removeprefix(_PREFIX)
    return vectors_net(int(width)) if width != name and width.isdigit() else None


def vectors(values: tf.Tensor, num_classes: int, scope: str, **_: object) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Hands `values` [batch, width] to the last layer, as the builders of slim's nets do with their features."""
    import tensorflow.compat.v1 as tf
    from tf_slim import layers

    with tf.variable_scope(scope):
        features = values[:, tf.newaxis, tf.newaxis, :]
        return layers.conv2d(features, num_classes, [1, 1], activation_fn=None, scope="logits"), {}


def vectors_arg_scope(**_: object) -> ArgScope:
    """Slim's builders have one each."""
    return {}
