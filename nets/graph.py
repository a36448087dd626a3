"""Builds a net with tf_slim in the current `tf.compat.v1` graph."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim.ops.variables import model_variable

from ckpt_tools.errors import UnsupportedError

from .layers import Layers, inside
from .net import Net

_CLASS_END_POINTS = ("Logits", "Predictions", "predictions")  # slim makes them of whatever the last layer gives


class Built(NamedTuple):
    """A net in the graph.

    `logits` has shape [batch, classes] (None without a head), `features` [batch, channels]: what reaches the last
    layer. `end_points` are slim's, by slim's names, from the image to the classes. `auxiliary_logits` is None unless
    asked for. `variables` are all of the net's, those of an auxiliary head that was not built included.
    """

    logits: tf.Tensor | None
    features: tf.Tensor
    end_points: dict[str, tf.Tensor]
    auxiliary_logits: tf.Tensor | None
    variables: tuple[tf.Variable, ...]


def build_net(
    net: Net,
    images: tf.Tensor,
    *,
    num_classes: int | None,
    trains_batch_norm: Callable[[str], bool] = lambda scope: False,
    batch_norm_decay: float | None = None,
    dropout_keep_prob: float = 1.0,
    dropout_seed: tf.Tensor | None = None,
    weight_decay: float | None = None,
    aux: bool = False,
    before_head: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Built:
    """Builds `net` on preprocessed images of shape [batch, height, width, 3], height and width known.

    With `num_classes` None the net ends with its features. Batch norm runs in inference mode, its statistics are not
    updated, except in the scopes that `trains_batch_norm` says yes to; those put their updates into UPDATE_OPS.
    There is no dropout with a `dropout_keep_prob` of 1; with a `dropout_seed` (integers, shape [2]; fed or computed
    from the step) what is dropped depends on nothing else. `weight_decay` fills REGULARIZATION_LOSSES; None is slim's.
    `before_head` puts layers between the features and the last layer: it maps [batch, 1, 1, channels] to the same.
    An auxiliary head is part of the graph only with `aux`. Without, its variables exist all the same, so that a saved
    file has them and slim's own code can load it.

    Raises UnsupportedError for images that are too small for the net.
    """
    layers = Layers(
        head_layer=net.head_layer,
        has_head=num_classes is not None,
        trains_batch_norm=trains_batch_norm,
        batch_norm_decay=batch_norm_decay,
        dropout_seed=dropout_seed,
        before_head=before_head,
    )
    aux = aux and bool(net.auxiliary) and num_classes is not None
    with layers.in_place(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`layer.apply` is deprecated")  # slim's own calls
        logits, end_points = _call_slim(net, images, num_classes, weight_decay, dropout_keep_prob, aux)
    auxiliary_logits = end_points.pop("AuxLogits", None)
    if num_classes is None:
        logits = None
        end_points = {name: tensor for name, tensor in end_points.items() if name not in _CLASS_END_POINTS}
    else:
        logits = tf.reshape(logits, [-1, num_classes], name="logits")
        if net.auxiliary and not aux:
            _create_auxiliary_variables(net, num_classes)
    scope = f"{inside(net.scope)}/"
    variables = tuple(tf.get_collection(tf.GraphKeys.MODEL_VARIABLES, scope))
    return Built(logits, tf.squeeze(layers.features, [1, 2], name="features"), end_points, auxiliary_logits, variables)


def _create_auxiliary_variables(net: Net, num_classes: int) -> None:
    """The variables of an auxiliary head that is not built, initialised as slim does."""
    initializers = {
        "weights": tf.truncated_normal_initializer(stddev=0.01),
        "moving_variance": tf.ones_initializer(),
    }
    for row in net.table:
        if net.role(row) == "auxiliary":
            initializer = initializers.get(row.name.rpartition("/")[2], tf.zeros_initializer())
            model_variable(row.name, row.shape_for(num_classes), tf.float32, initializer, trainable=False)


def _call_slim(
    net: Net,
    images: tf.Tensor,
    num_classes: int | None,
    weight_decay: float | None,
    dropout_keep_prob: float,
    aux: bool,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    module_name, _, function = net.builder.rpartition(".")
    module = importlib.import_module(module_name)
    # One arg_scope serves all ResNets, one all VGGs; the others have one each.
    family = next(f for f in (function, "resnet", "vgg") if hasattr(module, f"{f}_arg_scope"))
    arg_scope = getattr(module, f"{family}_arg_scope")
    # Without a head, the last layer is passed over: any number of classes will do.
    options: dict[str, object] = {"num_classes": num_classes or 1, "is_training": dropout_keep_prob < 1}
    if family == "resnet":
        options |= {"global_pool": True}
    else:
        options |= {"dropout_keep_prob": dropout_keep_prob, "spatial_squeeze": True}
    if net.auxiliary:
        options |= {"create_aux_logits": aux}
    try:
        with tf_slim.arg_scope(arg_scope(**({} if weight_decay is None else {"weight_decay": weight_decay}))):
            return getattr(module, function)(images, scope=net.scope, **options)
    except ValueError as error:
        if "Negative dimension size" not in str(error):
            raise
        height, width = images.shape[1:3]
        fact = f"images of {height} x {width} pixels are too small for {net.name}"
        raise UnsupportedError(fact, advice=f"Its own size is {net.image_size}.") from None
