"""A net from a user's own function: it is called once, in inference mode, and what it built is a graph like any other.

    net_of_function("nets.py:build", AS_FOUND, image_size=32)

The function takes images [batch, side, side, channels] first, and whichever of the parameters below it has; it returns
logits or features: a tensor, a tuple that begins with it, a dict with "logits", or an object with `.logits`. One
without a number of classes is a backbone, whose features it returns.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorflow.compat.v1 as tf
import tf_slim
from absl import flags
from tensorflow.python.framework import tensor_shape

from ckpt_tools.errors import PlanError, RecipeError
from ckpt_tools.formats.graph_file import parse_graph
from ckpt_tools.graphs.analysis import analyse
from ckpt_tools.graphs.choosing import AS_FOUND, Choices
from ckpt_tools.graphs.net import part_of
from ckpt_tools.graphs.text import conflict_text

from . import legacy_layers
from .from_graph import net_from
from .graph import family_of
from .legacy_names import TensorFlow1
from .net import Net
from .own_code import Code, imported, place_of

IMAGES = "images"  # the placeholder
CLASSES = 10  # of a function that has no default for them
_T = TypeVar("_T")
_CLASSES = ("num_classes", "n_classes", "nb_classes")
_GIVEN = {
    **dict.fromkeys(("is_training", "training", "train", "phase", "phase_train", "is_train"), False),
    **dict.fromkeys(("keep_prob", "dropout_keep_prob", "keep_probability"), 1.0),
}
_CHANNELS = (1, 3)


class Returned(NamedTuple):
    """What a function gave: `tensor` is its logits or its features."""

    tensor: tf.Tensor
    is_logits: bool


def net_of_function(
    reference: str,
    choices: Choices = AS_FOUND,
    image_size: int | None = None,
    saved: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: print(f"note           {text}", file=sys.stderr),
) -> Net:
    """The net that FILE.py:FUNCTION or MODULE:FUNCTION builds on images of `image_size` pixels; without it, on those of
    the file's IMAGE_SIZE. PREPROCESSING and CHANNELS are constants of the file, too. `saved` are the names in the
    checkpoint that goes with it.

    Raises RecipeError for a function that is not there, needs what nobody gives it, returns no net, or raises itself;
    and PlanError with everything that stands in the way of taking what it built.
    """
    place = place_of(reference)
    with tf.Graph().as_default(), _as_in_tensorflow_1(), imported(place, TensorFlow1(), note) as code:
        function = code.find()
        side = image_size or _constant(code, "IMAGE_SIZE", int)
        if not side:
            raise RecipeError("does not say how large its images are", path=place.shown, advice="Give --image-size.")
        channels = _constant(code, "CHANNELS", int) or 3
        if channels not in _CHANNELS:
            raise RecipeError(f"CHANNELS = {channels}: images have 1 or 3", path=place.shown)
        preprocessing = _constant(code, "PREPROCESSING", str) or ""
        # A script may have built the net already, before it came to what failed; its placeholders are the function's.
        graph = tf.Graph() if tf.global_variables() else tf.get_default_graph()
        with graph.as_default():
            images = tf.placeholder(tf.float32, [None, side, side, channels], IMAGES)
            returned = _call(code, function, images)
            kept = [tf.GraphKeys.TRAINABLE_VARIABLES, tf.GraphKeys.GLOBAL_VARIABLES]
            made = tf.train.export_meta_graph(collection_list=kept)
        data = made.SerializeToString(deterministic=True)  # so that the same function has the same digest
    name = returned.tensor.name.removesuffix(":0")
    wanted = {"logits": name} if returned.is_logits and not choices.logits else {}
    if not returned.is_logits and not choices.logits and not choices.features:
        wanted = {"features": name}
    file = parse_graph(data, place.shown)
    found = analyse(file, choices._replace(input=choices.input or IMAGES, **wanted), saved)
    if found.conflicts:
        raise PlanError(f"{place.function} builds a graph with {conflict_text(found.conflicts)}", path=place.shown)
    shown = place.path.rpartition("/")[2] or place.module
    net = net_from(part_of(file, found), f"{shown}:{place.function}")
    return net._replace(preprocessing=preprocessing)


@contextlib.contextmanager
def _as_in_tensorflow_1() -> Iterator[None]:
    """Shapes are made of Dimensions, whose `.value` files of TensorFlow 1 ask for, and slim's batch norm works; flags
    that a file defines are gone afterwards."""
    before, defined = tensor_shape._TENSORSHAPE_V2_OVERRIDE, set(flags.FLAGS)
    tf.disable_v2_tensorshape()
    try:
        with legacy_layers.in_place(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is deprecated, which is all of it
            yield
    finally:
        tensor_shape._TENSORSHAPE_V2_OVERRIDE = before
        for name in set(flags.FLAGS) - defined:
            delattr(flags.FLAGS, name)


def _constant(code: Code, name: str, kind: type[_T]) -> _T | None:
    """A constant of the function's file, None where there is none. Raises RecipeError for one of another type."""
    value = getattr(code.module, name, None)
    if value is not None and type(value) is not kind:
        raise RecipeError(f"{name} = {value!r} is not of type {kind.__name__}", path=code.place.shown)
    return value


def _call(code: Code, function: Callable[..., Any], images: tf.Tensor) -> Returned:
    """What the function gives for the images, with the arg_scope beside it opened."""
    arguments, takes_classes = _arguments(code, function)
    family = family_of(code.module, code.place.function)
    arg_scope = getattr(code.module, f"{family}_arg_scope", None)
    with code.told():
        scope = arg_scope(**_known(_parameters(arg_scope), "")) if arg_scope else {}
        with tf_slim.arg_scope(scope):
            made = function(images, **arguments)
    tensor, is_logits = _tensor(made, code)
    if tensor.graph is not tf.get_default_graph():
        fact = f"{code.place.function} builds in a graph of its own, not in the one that the images are in"
        raise RecipeError(fact, path=code.place.shown)
    return Returned(tensor, is_logits or takes_classes)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Those that can be given by name."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {name: each for name, each in found.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


def _known(parameters: Mapping[str, inspect.Parameter], scope: str) -> dict[str, object]:
    """What is given of these parameters; `scope` where one must be."""
    made = {name: _GIVEN[name] for name in parameters if name in _GIVEN}
    for name in _CLASSES:
        if name in parameters:
            default = parameters[name].default
            made[name] = default if isinstance(default, int) and default > 0 else CLASSES
    needed = {"scope": scope, "reuse": None}  # left as they are where they have a default
    return made | {name: value for name, value in needed.items() if _is_needed(parameters, name)}


def _arguments(code: Code, function: Callable[..., Any]) -> tuple[dict[str, object], bool]:
    """What a function is given besides the images, and whether it takes a number of classes.

    Raises RecipeError that names the parameters which nobody gives.
    """
    parameters = _parameters(function)
    others = dict([*parameters.items()][1:])  # the first one takes the images
    made = _known(others, code.place.function)
    needed = [name for name in others if _is_needed(others, name) and name not in made]
    if needed or not parameters:
        fact = f"needs {' and '.join(needed)}" if needed else "takes no images"
        known = "num_classes, is_training, keep_prob, scope and reuse"
        advice = f"It is called with images, and {known} where it has them: name a function that gives it the rest."
        raise RecipeError(f"{code.place.function} {fact}", path=code.place.shown, advice=advice)
    return made, any(name in others for name in _CLASSES)


def _is_needed(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in parameters and parameters[name].default is inspect.Parameter.empty


def _tensor(made: object, code: Code) -> tuple[tf.Tensor, bool]:
    """The logits or features in what a function returned, and whether it says that they are logits. Raises RecipeError
    where there is none."""
    if isinstance(made, tf.Tensor):
        return made, False
    if isinstance(made, Mapping):
        for name in ("logits", "Logits"):
            if name in made:
                return _tensor(made[name], code)[0], True
        keys = ", ".join(map(str, made))
        what = f"a dict with {keys or 'nothing'}, but no logits"
    elif hasattr(made, "logits"):
        return _tensor(made.logits, code)[0], True
    elif isinstance(made, tuple | list) and made:
        return _tensor(made[0], code)
    else:
        what = "nothing" if made is None else f"a {type(made).__name__}"
    advice = "It must return logits or features: a tensor, a tuple that begins with one, or what has `logits`."
    raise RecipeError(f"{code.place.function} returns {what}", path=code.place.shown, advice=advice)
