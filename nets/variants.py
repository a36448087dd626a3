"""slim's nets as Keras, PyTorch and the 2015 graph compute them, under slim's names.

The variables are slim's, one for one, since what differs has none: where strides lie, and how poolings pad. So a
variant takes whatever its net takes, and gives what the other library gives. Builders in slim's manner, on slim's code.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow.compat.v1 as tf
from tf_slim import layers
from tf_slim.nets import inception, resnet_utils, resnet_v1, resnet_v2
from tf_slim.nets.inception import inception_v3_arg_scope as inception_v3_arg_scope  # the builder looks for them here
from tf_slim.nets.resnet_utils import resnet_arg_scope as resnet_arg_scope

from .layers import installed
from .nasnet import nasnet_mobile
from .nasnet import nasnet_mobile_arg_scope as nasnet_mobile_arg_scope

Ends = tuple[tf.Tensor, dict[str, tf.Tensor]]  # logits and end points
_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _instead_of(name: str, layer: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
    """Puts `layer(original, inputs, kernel_size, **how)` in the place of slim's layer of this name."""
    return installed({name: functools.partial(layer, getattr(layers, name))})


def _padded(pool: Callable[..., Any], inputs: tf.Tensor, kernel_size: list[int], **how: Any) -> tf.Tensor:
    """A pooling of padding SAME whose padding lies on all sides, as if it were part of the map: slim's lies at the end
    alone where a stride of 2 meets an even side, and is left out of a mean."""
    border = kernel_size[0] // 2
    if how.get("padding") == "SAME" and border:
        inputs = tf.pad(inputs, [[0, 0], [border, border], [border, border], [0, 0]])
        how["padding"] = "VALID"
    return pool(inputs, kernel_size, **how)


def _largest_in_the_last_module(
    pool: Callable[..., Any], inputs: tf.Tensor, kernel_size: list[int], **how: Any
) -> tf.Tensor:
    last = tf.get_variable_scope().name.endswith("Mixed_7c/Branch_3")
    return (layers.max_pool2d if last else pool)(inputs, kernel_size, **how)


def _padded_where_strided(pool: Callable[..., Any], inputs: tf.Tensor, kernel_size: list[int], **how: Any) -> tf.Tensor:
    """A pooling of 3 x 3 that takes the zeros, which lie where slim's padding does, as part of the map."""
    if how["stride"] == 2:
        inputs = tf.pad(inputs, [[0, 0], *([int(side) % 2, 1] for side in inputs.shape[1:3]), [0, 0]])
        how["padding"] = "VALID"
    return pool(inputs, kernel_size, **how)


def _resnet_v1(images: tf.Tensor, num_classes: int, depth: int, unit: Callable[..., Any], **how: Any) -> Ends:
    """A ResNet v1 with the stride of a stage in its first unit, and zeros around its first pooling: they are as good as
    nothing there, since no value behind a ReLU is smaller."""
    blocks = []
    for number, units in enumerate(_UNITS[depth]):
        inside = {"depth": 256 << number, "depth_bottleneck": 64 << number}
        strides = [2 if number else 1, *[1] * (units - 1)]
        blocks.append(
            resnet_utils.Block(f"block{number + 1}", unit, [{**inside, "stride": stride} for stride in strides])
        )
    with _instead_of("max_pool2d", _padded):
        return resnet_v1.resnet_v1(images, blocks, num_classes, **how)


def _strided_at_its_start(inputs: tf.Tensor, stride: int, **how: Any) -> tf.Tensor:
    """A unit whose stride is in the 1 x 1 convolutions that read its input: they read every second pixel of it."""
    return resnet_v1.bottleneck(resnet_utils.subsample(inputs, stride), stride=1, **how)


def _resnet_v2(images: tf.Tensor, num_classes: int, depth: int, **how: Any) -> Ends:
    with _instead_of("max_pool2d", _padded):
        return getattr(resnet_v2, f"resnet_v2_{depth}")(images, num_classes, **how)


def _inception_v3(images: tf.Tensor, num_classes: int, pool: Callable[..., Any], **how: Any) -> Ends:
    with _instead_of("avg_pool2d", pool):
        return inception.inception_v3(images, num_classes, **how)


def nasnet_mobile_keras(images: tf.Tensor, num_classes: int, **how: Any) -> Ends:
    """Both poolings of its reduction cells take zeros beside the map."""
    with _instead_of("max_pool2d", _padded_where_strided), _instead_of("avg_pool2d", _padded_where_strided):
        return nasnet_mobile(images, num_classes, **how)


resnet_v1_50_keras = functools.partial(_resnet_v1, depth=50, unit=_strided_at_its_start)
resnet_v1_101_keras = functools.partial(_resnet_v1, depth=101, unit=_strided_at_its_start)
resnet_v1_152_keras = functools.partial(_resnet_v1, depth=152, unit=_strided_at_its_start)
resnet_v1_50_torch = functools.partial(_resnet_v1, depth=50, unit=resnet_v1.bottleneck)
resnet_v1_101_torch = functools.partial(_resnet_v1, depth=101, unit=resnet_v1.bottleneck)
resnet_v1_152_torch = functools.partial(_resnet_v1, depth=152, unit=resnet_v1.bottleneck)
resnet_v2_50_keras = functools.partial(_resnet_v2, depth=50)
resnet_v2_101_keras = functools.partial(_resnet_v2, depth=101)
resnet_v2_152_keras = functools.partial(_resnet_v2, depth=152)
inception_v3_torch = functools.partial(_inception_v3, pool=_padded)
inception_v3_2015 = functools.partial(_inception_v3, pool=_largest_in_the_last_module)
