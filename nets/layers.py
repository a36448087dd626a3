"""The layers that stand in for tf_slim's own while a net is built.

tf_slim 1.1.0 runs on the current TensorFlow except for its batch norm, which needs a Keras that is gone. The nets look
their layers up in tf_slim's modules when they are called, so that a layer put there is used by all of them, with the
arguments of their arg_scopes. What differs from slim's own:

- batch norm decides by scope whether it trains. Slim has one switch for the whole graph, and with it on, a frozen
  layer still normalises by the batch and lets its moving averages drift.
- a convolution is made without the Keras layer that slim's own makes, which looks through all variables of the graph
  for each of its own: the same operations by the same names, in half the time.
- dropout takes its random numbers from a seed that the caller computes, so that a continued run repeats what was
  interrupted.
- a convolution whose kernel is larger than its input pads it with zeros, and the pooling before the classifier takes
  the mean of whatever there is: with these two every net takes images of other sizes.
- where the features are given, the layers before the head make no variables and nothing that is ever run: what slim
  builds is the head alone, with its own scopes and initializers.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow
import tensorflow.compat.v1 as tf
import tf_slim
from tf_slim.layers.initializers import xavier_initializer
from tf_slim.layers.utils import collect_named_outputs, get_variable_collections
from tf_slim.ops import arg_scope as arg_scopes
from tf_slim.ops import variables as slim_variables

# Where slim's nets look: some import the package as `layers`, others its module `layers`.
_PACKAGE = importlib.import_module("tf_slim.layers")
_MODULE = importlib.import_module("tf_slim.layers.layers")
_REPLACED = ("avg_pool2d", "batch_norm", "conv2d", "dropout", "fully_connected", "separable_conv2d")
_INSTALLING = threading.RLock()
_SLIM = {name: getattr(_MODULE, name) for name in _REPLACED}
_XAVIER, _ZEROS = xavier_initializer(), tf.zeros_initializer()  # slim's defaults
Sides = int | Sequence[int]  # of a kernel or a stride: one number where both are alike
_AUXILIARY_MAP = (17, 17)  # Mixed_6e of a 299 pixel image; the auxiliary head's kernels fit no other size


@dataclass(frozen=True)
class Mode:
    """What of a net trains; nothing does by default, as in inference.

    Batch norms use the statistics that are stored, and leave them as they are, except those whose scope
    ("InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/BatchNorm") `trains_batch_norm` says yes to; these put their updates
    into UPDATE_OPS. `batch_norm_decay` is theirs; None is slim's own. `dropout_seed`, an integer tensor of shape [2],
    turns dropout on: what is dropped depends on nothing else.
    """

    trains_batch_norm: Callable[[str], bool] = lambda scope: False
    batch_norm_decay: float | None = None
    dropout_seed: tf.Tensor | None = None


INFERENCE = Mode()


@dataclass
class PatchedLayers:
    """The layers of one build, and what the builder tells them.

    `head_layer` is the scope of the layer that makes the logits: `before_head` maps the features
    that reach it, and without `has_head` it is left out, so that the net returns its features. `features` is their
    tensor, of shape [batch, 1, 1, channels], once it is built; `given` takes its place.
    """

    head_layer: str
    has_head: bool = True
    mode: Mode = INFERENCE
    before_head: Callable[[tf.Tensor], tf.Tensor] | None = None
    given: tf.Tensor | None = None
    features: tf.Tensor | None = field(default=None, init=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts these layers in slim's modules, and slim's own back at the end."""
        with installed({name: getattr(self, name) for name in _REPLACED}):
            yield

    def batch_norm(
        self,
        inputs: tf.Tensor,
        decay: float = 0.999,
        center: bool = True,
        scale: bool = False,
        epsilon: float = 0.001,
        activation_fn: Callable[[tf.Tensor], tf.Tensor] | None = None,
        updates_collections: str = tf.GraphKeys.UPDATE_OPS,
        variables_collections: object = None,
        scope: str | None = None,
        is_training: object = None,
        fused: object = None,
    ) -> tf.Tensor:
        """Slim's `batch_norm` for [batch, height, width, channels]; `is_training` and `fused` are not looked at."""
        if self.given is not None:
            return inputs
        with tf.variable_scope(scope, "BatchNorm", [inputs]) as layer:
            channels = inputs.shape[-1]

            def variable(name: str, initializer: object, trainable: bool) -> tf.Variable:
                how = {"trainable": trainable, "collections": get_variable_collections(variables_collections, name)}
                return slim_variables.model_variable(name, [channels], tf.float32, initializer, **how)

            zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
            gamma = variable("gamma", ones, True) if scale else tf.ones([channels])
            beta = variable("beta", zeros, True) if center else tf.zeros([channels])
            mean, variance = variable("moving_mean", zeros, False), variable("moving_variance", ones, False)
            if self.mode.trains_batch_norm(layer.name):
                outputs, batch_mean, batch_variance = tf.nn.fused_batch_norm(inputs, gamma, beta, epsilon=epsilon)
                step = 1 - (decay if self.mode.batch_norm_decay is None else self.mode.batch_norm_decay)
                for moving, batch in ((mean, batch_mean), (variance, batch_variance)):
                    tf.add_to_collections(updates_collections, tf.assign_sub(moving, (moving - batch) * step))
            else:
                outputs, _, _ = tf.nn.fused_batch_norm(
                    inputs, gamma, beta, mean, variance, epsilon=epsilon, is_training=False
                )
            return activation_fn(outputs) if activation_fn else outputs

    def dropout(
        self, inputs: tf.Tensor, keep_prob: float = 0.5, is_training: object = None, scope: str | None = None
    ) -> tf.Tensor:
        """Slim's `dropout`; the seed and the layer's scope alone decide what is dropped."""
        if self.mode.dropout_seed is None or keep_prob >= 1:
            return inputs
        with tf.variable_scope(scope, "Dropout", [inputs]) as layer:
            seed = tf.random.experimental.stateless_fold_in(self.mode.dropout_seed, _number(layer.name))
            return tf.nn.experimental.stateless_dropout(inputs, rate=1 - keep_prob, seed=seed, rng_alg="philox")

    def conv2d(self, inputs: tf.Tensor, num_outputs: int, kernel_size: Sides, *args: Any, **kwargs: Any) -> tf.Tensor:
        """Slim's `conv2d`; knows the last layer, and never fails for a map smaller than its kernel."""
        if inside(kwargs.get("scope")) == self.head_layer:
            inputs = self._at_head(inputs)
            if not self.has_head:
                return inputs
        if kwargs.get("padding") == "VALID":
            inputs = _padded(inputs, kernel_size)
        if self.given is not None and self.features is None:
            return _never_run(inputs, num_outputs, kernel_size, *args, **kwargs)
        ours = inputs.shape.rank == 4 and kwargs.get("data_format") in (None, "NHWC")
        return (_convolution if ours else _SLIM["conv2d"])(inputs, num_outputs, kernel_size, *args, **kwargs)

    def separable_conv2d(
        self,
        inputs: tf.Tensor,
        num_outputs: int | None,
        kernel_size: Sides,
        depth_multiplier: int = 1,
        *args: Any,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Slim's `separable_conv2d`; without `num_outputs` it is a depthwise convolution."""
        if self.given is not None:
            channels = num_outputs or inputs.shape[-1] * depth_multiplier
            return _never_run(inputs, channels, kernel_size, *args, **kwargs)
        return _SLIM["separable_conv2d"](inputs, num_outputs, kernel_size, depth_multiplier, *args, **kwargs)

    def fully_connected(self, inputs: tf.Tensor, num_outputs: int, *args: Any, **kwargs: Any) -> tf.Tensor:
        """Slim's `fully_connected`; knows the last layer."""
        if inside(kwargs.get("scope")) == self.head_layer:
            features = self._at_head(tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]]))
            if not self.has_head:
                return features
            inputs = tf.squeeze(features, [1, 2])
        elif self.given is not None:
            return tf.placeholder(inputs.dtype, [None, num_outputs], name="not_built")
        return _SLIM["fully_connected"](inputs, num_outputs, *args, **kwargs)

    def _at_head(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the last layer reads, [batch, 1, 1, channels]: the features, and behind them `before_head`."""
        if self.given is not None:
            inputs = self.given
        if inputs.shape[1:3] != (1, 1):  # a larger image makes a fully convolutional net answer at several places
            inputs = tf.reduce_mean(inputs, [1, 2], keepdims=True, name="global_pool")
        self.features = inputs = tf.cast(inputs, tf.float32)  # a head computes in full precision
        return self.before_head(inputs) if self.before_head and self.has_head else inputs

    def avg_pool2d(self, inputs: tf.Tensor, kernel_size: Sides, *args: Any, **kwargs: Any) -> tf.Tensor:
        """Slim's `avg_pool2d`; before a classifier it is the mean of the whole map, whatever the map's size."""
        place = tf.get_variable_scope().name.rpartition("/")[2]
        if place in ("Logits", "AuxLogits"):
            inputs = tf.cast(inputs, tf.float32)  # a head computes in full precision, its pooling too
        if place == "Logits":
            return tf.reduce_mean(inputs, [1, 2], keepdims=True, name=kwargs.get("scope"))
        if place == "AuxLogits" and inputs.shape[1:3] != _AUXILIARY_MAP:
            inputs = tf.raw_ops.ResizeBilinear(images=inputs, size=_AUXILIARY_MAP, half_pixel_centers=True)
        return _SLIM["avg_pool2d"](inputs, kernel_size, *args, **kwargs)


def _number(scope: str) -> int:
    """A number for a layer that is the same in every process."""
    return zlib.crc32(scope.encode()) & 0x7FFFFFFF


@contextlib.contextmanager
def installed(layers: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Replaces the layers of these names in slim's modules, each with the arguments that an arg_scope sets for the
    original, until the end. Another thread that does so waits: the modules are the process's."""
    with _INSTALLING:
        originals = {name: getattr(_MODULE, name) for name in layers}
        try:
            for name, layer in layers.items():
                _install(name, with_arg_scope(originals[name], layer))
            yield
        finally:
            for name, original in originals.items():
                _install(name, original)


def _install(name: str, layer: Callable[..., Any]) -> None:
    for place in (tf_slim, _PACKAGE, _MODULE):
        setattr(place, name, layer)


def with_arg_scope(original: Callable[..., tf.Tensor], layer: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`layer`, taking the arguments that an arg_scope sets for `original`."""
    key = arg_scopes.arg_scope_func_key(original)

    def call(*args: Any, **kwargs: Any) -> tf.Tensor:
        return layer(*args, **{**arg_scopes.current_arg_scope().get(key, {}), **kwargs})

    call.__dict__["_key_op"] = key  # how arg_scope knows a layer
    return call


def inside(scope: str | None) -> str:
    """The full name of `scope`, opened here."""
    return "/".join(part for part in (tf.get_variable_scope().name, scope) if part)


def _padded(images: tf.Tensor, kernel_size: Sides) -> tf.Tensor:
    """`images` with zeros around them where a side is shorter than the kernel's."""
    missing = [max(0, wanted - side) for wanted, side in zip(_pair(kernel_size), images.shape[1:3], strict=True)]
    if not any(missing):
        return images
    return tf.pad(images, [[0, 0], *([count // 2, count - count // 2] for count in missing), [0, 0]])


def _convolution(
    inputs: tf.Tensor,
    num_outputs: int,
    kernel_size: Sides,
    stride: Sides = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Sides = 1,
    activation_fn: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
    normalizer_fn: Callable[..., tf.Tensor] | None = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: object = _XAVIER,
    weights_regularizer: object = None,
    biases_initializer: object = _ZEROS,
    biases_regularizer: object = None,
    reuse: bool | None = None,
    variables_collections: object = None,
    outputs_collections: str | None = None,
    trainable: bool = True,
    scope: str | None = None,
) -> tf.Tensor:
    """Slim's `conv2d` for [batch, height, width, channels]; `data_format` is not looked at."""
    with tf.variable_scope(scope, "Conv", [inputs], reuse=reuse) as layer:

        def variable(name: str, shape: list[int], initializer: object, regularizer: object) -> tf.Variable:
            collections = get_variable_collections(variables_collections, name)
            how = {"regularizer": regularizer, "trainable": trainable, "collections": collections}
            return slim_variables.model_variable(name, shape, inputs.dtype.base_dtype, initializer, **how)

        sides = [*_pair(kernel_size), int(inputs.shape[-1])]
        weights = variable("weights", [*sides, num_outputs], weights_initializer, weights_regularizer)
        how = {"strides": _pair(stride), "padding": padding, "dilations": _pair(rate), "name": "Conv2D"}
        outputs = tensorflow.nn.convolution(inputs, weights, **how)
        if normalizer_fn is not None:
            outputs = normalizer_fn(outputs, **(normalizer_params or {}))
        elif biases_initializer is not None:
            biases = variable("biases", [num_outputs], biases_initializer, biases_regularizer)
            outputs = tf.nn.bias_add(outputs, biases)
        outputs = outputs if activation_fn is None else activation_fn(outputs)
        return collect_named_outputs(outputs_collections, layer.name, outputs)


def _never_run(
    inputs: tf.Tensor, channels: int, kernel_size: Sides, stride: Sides = 1, padding: str = "SAME", **_: object
) -> tf.Tensor:
    """A tensor of the shape that a convolution gives, which nothing can run."""
    sides = []
    for side, kernel, step in zip(inputs.shape[1:3], _pair(kernel_size), _pair(stride), strict=True):
        sides.append(-(-(side if padding == "SAME" else side - kernel + 1) // step))
    return tf.placeholder(inputs.dtype, [None, *sides, channels], name="not_built")


def _pair(sizes: Sides) -> list[int]:
    return [sizes] * 2 if isinstance(sizes, int) else list(sizes)
