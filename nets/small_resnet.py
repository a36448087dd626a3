"""A slim ResNet small enough to be trained from nothing on two cores in a minute: for demonstrations and tests.

Also the example of a net that tf_slim does not ship; CONTRIBUTING says what else a new net needs.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf
from tf_slim.nets import resnet_v1
from tf_slim.nets.resnet_v1 import resnet_arg_scope as resnet_arg_scope  # the builder looks for it here


def resnet_v1_14(
    images: tf.Tensor, num_classes: int, is_training: bool, global_pool: bool, scope: str
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """One bottleneck unit a block, a quarter of ResNet-50's channels: 14 layers, 0.5 million parameters."""
    depths = {"block1": (16, 2), "block2": (32, 2), "block3": (64, 2), "block4": (128, 1)}
    blocks = [
        resnet_v1.resnet_v1_block(name, base_depth=depth, num_units=1, stride=stride)
        for name, (depth, stride) in depths.items()
    ]
    return resnet_v1.resnet_v1(
        images, blocks, num_classes, is_training=is_training, global_pool=global_pool, scope=scope
    )
