"""Builds a net with tf_slim in the current `tf.compat.v1` graph."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow
import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim.layers import fully_connected  # slim's own: in the package a layer of layers.py may stand for it
from tf_slim.ops.variables import model_variable

from ckpt_tools.errors import DamagedError, UnsupportedError

from .head import LAST_LAYER, Dropout, Head, head_variables, layer_scopes
from .imported import import_head, import_net
from .layers import INFERENCE, Mode, PatchedLayers, inside
from .net import ArgScope, Net

OWN_HEAD = Head()
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
    images: tf.Tensor | None,
    *,
    num_classes: int | None,
    head: Head = OWN_HEAD,
    features: tf.Tensor | None = None,
    aux: bool = False,
    mode: Mode = INFERENCE,
) -> Built:
    """Builds `net` on preprocessed images of shape [batch, height, width, 3], height and width known.

    With `features` [batch, 1, 1, channels] in place of images, what reaches the head is given: of the net only the head
    is built, without end points.
    With `num_classes` None the net ends with its features; `head` replaces the net's own. Images of float16 or
    bfloat16 make the net compute in that type, its head excepted; variables are float32 always.
    `mode` says which batch norms train, and whether the head drops anything; what slim's own code would drop is kept.
    An auxiliary head is part of the graph only with `aux`. Without, its variables exist all the same, so that a saved
    file has them and slim's own code can load it.

    Raises UnsupportedError for images that are too small for the net.
    """
    if tf.get_default_graph().seed is None:
        # Without a seed, TF_DETERMINISTIC_OPS=1 refuses slim's initializers, although none of them is run.
        tf.set_random_seed(0)
    if net.graph is not None:
        return _build_imported(net, images, num_classes, features, mode, head)
    own_place = num_classes is not None and not head.scope
    layers = PatchedLayers(net.head_layer, own_place, mode, given=features)
    if features is not None:  # slim wants to see some
        images = tf.placeholder(
            tf.float32, [None, net.image_size, net.image_size, net.input_channels], name="not_built"
        )
    if own_place and head.layers:
        place = inside(net.head_scope)
        layers.before_head = lambda features: _hidden_layers(features, place, head, layers)
    aux = aux and own_place and bool(net.auxiliary)
    outer = tf.get_variable_scope()
    with layers.in_place(), tf.variable_scope(outer, custom_getter=_float32_variable), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`layer.apply` is deprecated")  # slim's own calls
        logits, end_points = _call_slim(net, images, num_classes, aux)
        end_points = _without_name_scope(end_points)
        auxiliary_logits = end_points.pop("AuxLogits", None)
        if not own_place:
            end_points = {name: tensor for name, tensor in end_points.items() if name not in _CLASS_END_POINTS}
            logits = None
        if num_classes is not None and own_place and net.auxiliary and not aux and features is None:
            _create_auxiliary_variables(net, num_classes)
        if num_classes is not None and head.scope:
            logits = _own_head(layers.features, head, layers, num_classes)
    if logits is not None:
        logits = tf.reshape(logits, [-1, num_classes], name="logits")
    reached = tf.squeeze(layers.features, [1, 2], name="features")
    scopes = tuple(f"{inside(scope)}/".lstrip("/") for scope in (net.scope, head.scope) if scope is not None)
    variables = tuple(v for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES) if v.op.name.startswith(scopes))
    return Built(logits, reached, {} if features is not None else end_points, auxiliary_logits, variables)


def _build_imported(
    net: Net,
    images: tf.Tensor | None,
    num_classes: int | None,
    features: tf.Tensor | None,
    mode: Mode,
    head: Head,
) -> Built:
    """A net of a graph file, whose own head ends as the file has it, for another number of classes if need be."""
    assert net.graph is not None
    file, found = net.graph.file, net.graph.found
    own_place = num_classes is not None and not head.scope
    shapes = {} if num_classes is None else {v.name: v.spec.shape for v in head_variables(net, num_classes, head)}
    whole = own_place and not head.layers
    logits, end_points, variables = None, {}, {}
    if features is None:
        with _classes_fitting(net, num_classes if whole else None):
            made = import_net(file, found, images, shapes=shapes, logits=whole)
        reached, logits, end_points, variables = made.features, made.logits, made.end_points, dict(made.variables)
    else:
        reached = tf.squeeze(features, [1, 2])
    layers = PatchedLayers(net.head_layer, False, mode)
    with layers.in_place(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`layer.apply` is deprecated")  # slim's own calls
        apart = reached[:, tf.newaxis, tf.newaxis, :]
        if num_classes is not None and head.scope:
            logits = _own_head(apart, head, layers, num_classes)
        elif own_place and logits is None:
            hidden = tf.squeeze(_hidden_layers(apart, inside(net.head_scope), head, layers), [1, 2])
            with _classes_fitting(net, num_classes):
                logits, own = import_head(file, found, hidden, shapes)
            variables |= own
    if logits is not None and num_classes is not None:
        logits = _of_classes(net, logits, num_classes)
    places = tuple(f"{inside(scope)}/" for scope in (head.scope or net.head_scope,) if scope)
    others = [v for v in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES) if places and v.op.name.startswith(places)]
    everything = {variable.op.name: variable for variable in (*variables.values(), *others)}
    return Built(logits, tf.identity(reached, name="features"), end_points, None, tuple(everything.values()))


def _of_classes(net: Net, logits: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Logits [batch, classes]. Raises UnsupportedError for a graph that keeps its own number of classes."""
    own = logits.shape.as_list()[1] if logits.shape.rank == 2 else None
    if own not in (None, num_classes):
        raise _fixed_classes(net, own, num_classes)
    return tf.reshape(logits, [-1, num_classes], name="logits")


@contextlib.contextmanager
def _classes_fitting(net: Net, num_classes: int | None) -> Iterator[None]:
    """Explains an error of a graph that can be imported only with its own number of classes."""
    try:
        yield
    except DamagedError:
        if num_classes in (None, net.classes):
            raise
        raise _fixed_classes(net, net.classes, num_classes) from None


def _fixed_classes(net: Net, own: int, wanted: int) -> UnsupportedError:
    fact = f"the graph fixes its number of classes, {own}, where {wanted} are wanted"
    advice = "--head-scope Logits puts a new head on the features."
    return UnsupportedError(fact, path=net.graph and net.graph.file.path, advice=advice)


def _without_name_scope(end_points: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Slim puts the open name scope in front of some end points' names, those of poolings, and not of others."""
    opened = tf.get_default_graph().get_name_scope()
    return {name.removeprefix(f"{opened}/") if opened else name: tensor for name, tensor in end_points.items()}


def _float32_variable(
    getter: Callable[..., tf.Variable], name: str, *args: object, **how: object
) -> tf.Variable | tf.Tensor:
    """A custom getter: variables are kept in float32 and cast where a layer computes in less."""
    dtype = tf.as_dtype(how.get("dtype") or tf.float32)
    if dtype not in (tf.float16, tf.bfloat16):
        return getter(name, *args, **how)
    return tf.cast(getter(name, *args, **{**how, "dtype": tf.float32}), dtype)


def _hidden_layers(features: tf.Tensor, place: str, head: Head, layers: PatchedLayers) -> tf.Tensor:
    """The head's layers before its last one, under the scope `place`; [batch, 1, 1, channels] in and out."""
    below = place.removeprefix(tf.get_variable_scope().name).strip("/")  # some of slim's scopes are open here
    for name, layer in zip(layer_scopes(head.layers), head.layers, strict=True):
        scope = f"{below}/{name}" if below else name
        if isinstance(layer, Dropout):
            features = layers.dropout(features, 1 - layer.rate, scope=scope)
        else:
            flat = tf.squeeze(features, [1, 2])
            activation = _activation(layer.activation)
            dense = fully_connected(flat, layer.units, activation_fn=activation, scope=scope)
            features = dense[:, tf.newaxis, tf.newaxis, :]
    return features


def _own_head(features: tf.Tensor, head: Head, layers: PatchedLayers, num_classes: int) -> tf.Tensor:
    """A whole head in a scope of its own, from the features to the logits."""
    hidden = _hidden_layers(features, inside(head.scope), head, layers)
    scope = f"{head.scope}/{LAST_LAYER}"
    return fully_connected(tf.squeeze(hidden, [1, 2]), num_classes, activation_fn=None, scope=scope)


def _activation(name: str) -> Callable[[tf.Tensor], tf.Tensor] | None:
    return None if name == "linear" else getattr(tensorflow.nn, name)


def _create_auxiliary_variables(net: Net, num_classes: int) -> None:
    """The variables of an auxiliary head that is not built, initialised as InceptionV3's are."""
    initializers = {
        "weights": tf.truncated_normal_initializer(stddev=0.01),
        "moving_variance": tf.ones_initializer(),
    }
    for row in net.table:
        if net.role(row) == "auxiliary":
            initializer = initializers.get(row.name.rpartition("/")[2], tf.zeros_initializer())
            model_variable(row.name, row.shape_for(num_classes), tf.float32, initializer, trainable=False)


def _module_of(builder: str | Callable[..., Any]) -> tuple[object, str]:
    """The module of a builder, and its name there."""
    if callable(builder):
        return inspect.getmodule(builder), builder.__name__
    module, _, function = builder.rpartition(".")
    return importlib.import_module(module), function


def family_of(module: object, function: str) -> str:
    """What the arg_scope beside a builder is named for, "" where there is none: one serves all ResNets, one all VGGs,
    one all widths of a MobileNet; the others have one each."""
    words = function.split("_")
    families = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((name for name in families if hasattr(module, f"{name}_arg_scope")), "")


def _call_slim(
    net: Net, images: tf.Tensor, num_classes: int | None, aux: bool
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """What slim's code makes, without what it drops and without its weight decay, which is the optimizer's."""
    module, function = _module_of(net.builder)
    family = family_of(module, function)
    arg_scope: Callable[..., ArgScope] = getattr(module, f"{family}_arg_scope", lambda **_: {})
    # Without a head, the last layer is passed over: any number of classes will do. Our layers know what trains.
    options: dict[str, object] = {"num_classes": num_classes or 1, "is_training": True}
    if family == "resnet":
        options |= {"global_pool": True}
    else:
        options |= {"dropout_keep_prob": 1.0}
    if net.auxiliary:
        options |= {"create_aux_logits": aux}
    try:
        with tf_slim.arg_scope(arg_scope(weight_decay=0.0)):
            return getattr(module, function)(images, scope=net.scope, **options)
    except ValueError as error:
        if "Negative dimension size" not in str(error):
            raise
        height, width = images.shape[1:3]
        fact = f"images of {height} x {width} pixels are too small for {net.name}"
        raise UnsupportedError(fact, advice=f"Its own size is {net.image_size}.") from None
