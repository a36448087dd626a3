"""Puts a net that was found in a graph file into the current `tf.compat.v1` graph, on variables of ours.

What is imported is what `ckpt_tools.graphs` cut out and brought to inference form: no assignment, no pipeline, no
switch, nothing that touches a file. Each call imports it once more, on the same variables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from ckpt_tools.dtypes import numpy_dtype
from ckpt_tools.errors import DamagedError, UnsupportedError
from ckpt_tools.formats.graph_file import GraphFile, graph_bytes
from ckpt_tools.formats.nodes import Node
from ckpt_tools.graphs.analysis import Analysis
from ckpt_tools.graphs.graph import node_of, output_of
from ckpt_tools.graphs.safety import functions_called
from ckpt_tools.graphs.sources import sides_of
from ckpt_tools.graphs.variables import GraphVariable
from ckpt_tools.plan import Conflict

_IMAGES = 3  # that the check computes
_NEAR = 1e-4  # relative difference that the number of images in a batch may make
_INITIALIZERS = {
    "normal": tf.random_normal_initializer,
    "truncated_normal": tf.truncated_normal_initializer,
    "uniform": tf.random_uniform_initializer,
}
_BEGINS_WITH_ONES = re.compile(r"(^|/)(gamma|scale|\w*variance|\w*var)$", re.IGNORECASE)
_PLACES = re.compile(r"Graph execution error|Detected at node|Node: '|File \"|Original stack trace|\d+ root error|\[\[")
_CODE = re.compile(r"\(\d+\) [A-Z_ ]+: ")  # in front of one of several errors
_TIMEOUT = 120_000  # milliseconds: a stranger's loop need not end


class Imported(NamedTuple):
    """An imported net.

    `features` has shape [batch, width], `logits` [batch, classes], None where the net has none. `end_points` are by the
    names of their tensors in the file, from the images to the features. `variables` are by name.
    """

    features: tf.Tensor
    logits: tf.Tensor | None
    end_points: dict[str, tf.Tensor]
    variables: dict[str, tf.Variable]


def import_net(
    file: GraphFile,
    found: Analysis,
    images: tf.Tensor,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    logits: bool = True,
) -> Imported:
    """Imports the net that was found in a file, computing on `images` [batch, height, width, channels].

    Variables have the names that they have in a checkpoint. `shapes` replaces the shapes of some; without `logits`,
    what only they need is left out.
    Raises UnsupportedError for images that do not fit, DamagedError where TensorFlow does not take the graph.
    """
    wanted = [found.features, *(found.cut.goals if logits else ()), *found.end_points]
    images = fitted(images, found)
    tensors, variables = _import(file, found, wanted, {node_of(found.fed.tensor): images}, shapes)
    return Imported(
        _rows(tensors[found.features], found.pooled, found.width),
        _rows(tensors[found.logits], "flat") if logits and found.logits else None,
        {point: tensors[point] for point in found.end_points},
        variables,
    )


def import_head(
    file: GraphFile,
    found: Analysis,
    features: tf.Tensor,
    shapes: Mapping[str, Sequence[int]],
) -> tuple[tf.Tensor, dict[str, tf.Variable]]:
    """Imports what lies between the features and the logits, on other `features` [batch, width]; the logits [batch,
    classes], and the variables by name.

    Raises UnsupportedError where the features are maps that are more than a row of values, and what `import_net` does.
    """
    shape = found.cut.graph.shape(found.features) if found.features in found.cut.graph.nodes else None
    if shape is not None and len(shape) == 4:
        if tuple(shape[1:3]) != (1, 1):
            fact = f"the features of {found.features} are maps, which its last layer takes as they are"
            advice = "--head-scope Logits puts a head of its own on their means."
            raise UnsupportedError(fact, path=file.path, advice=advice)
        features = features[:, tf.newaxis, tf.newaxis, :]
    tensors, variables = _import(file, found, [found.logits], {found.features: features}, shapes)
    return _rows(tensors[found.logits], "flat"), variables


def _import(
    file: GraphFile, found: Analysis, goals: Sequence[str], put: Mapping[str, tf.Tensor],
    shapes: Mapping[str, Sequence[int]] | None,
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Variable]]:  # fmt: skip
    """Tensors of the graph by their names in the file, where those in `put` have been put in, and the variables that
    they need, by their names in a checkpoint."""
    graph = found.cut.graph
    needed = graph.upstream(goals, stop={node_of(tensor) for tensor in put}.__contains__)
    needs = [each for each in found.variables if each.name in needed and not each.frozen]
    variables = {each.key: _variable(each, (shapes or {}).get(each.key)) for each in needs}
    given = {f"{node_of(tensor)}:{output_of(tensor)}": value for tensor, value in put.items()}
    given |= {f"{each.name}:0": variables[each.key].value() for each in needs}
    left_out = {node_of(tensor) for tensor in given}
    nodes = [node for node in graph.nodes.values() if node.name in needed and node.name not in left_out]
    used = {f"{node_of(each)}:{output_of(each)}" for node in nodes for each in graph.inputs[node.name]}
    goals = list(dict.fromkeys(goals))
    wanted = [f"{node_of(goal)}:{output_of(goal)}" for goal in goals]
    definition = tf.GraphDef()
    definition.ParseFromString(
        graph_bytes(map(_portable, nodes), functions_called(nodes, file.functions), file.versions)
    )
    try:
        made = tf.graph_util.import_graph_def(
            definition,
            input_map={tensor: value for tensor, value in given.items() if tensor in used},
            return_elements=[tensor for tensor in wanted if tensor not in given],
            name="imported",
        )
    except (ValueError, tf.errors.OpError, KeyError, TypeError) as error:
        raise DamagedError(f"TensorFlow does not take the net in it: {_first_line(error)}", path=file.path) from None
    tensors = {**given, **dict(zip([tensor for tensor in wanted if tensor not in given], made, strict=True))}
    return {goal: tensors[tensor] for goal, tensor in zip(goals, wanted, strict=True)}, variables


def fitted(images: tf.Tensor, found: Analysis) -> tf.Tensor:
    """Images [batch, height, width, channels] in the shape and type that the net takes. Square images of its longer
    side are made as flat or as narrow as its own."""
    wanted = found.fed.shape
    if (narrow := sides_of(wanted)) and images.shape[1:3].as_list() == [max(narrow)] * 2:
        images = tf.raw_ops.ResizeBilinear(images=images, size=narrow)  # as all is resized here
    if wanted is not None and len(wanted) == 2:
        images = tf.reshape(images, [-1, math.prod(images.shape[1:].as_list())])
    elif wanted is not None and len(wanted) == 3:
        if images.shape[3] != 1:
            raise UnsupportedError(f"the net takes grey images, these have {images.shape[3]} channels")
        images = tf.squeeze(images, [3])
    sides = images.shape[1:].as_list()
    if wanted is not None and len(wanted) == len(sides) + 1:
        differ = [side for side, own in zip(sides, wanted[1:], strict=True) if None not in (side, own) and side != own]
        if differ:
            fact = f"the net takes images of {_spelled(wanted[1:])}, these are {_spelled(sides)}"
            advice = f"Give --image-size {max(narrow)}: they are squeezed from that." if narrow else ""
            raise UnsupportedError(fact, advice=advice)
    dtype = tf.as_dtype(found.fed.dtype)
    if images.dtype == dtype:
        return images
    images = tf.round(images) if dtype.is_integer else images
    if dtype.size < images.dtype.size:  # not saturate_cast: TFLite has no operation of its
        images = tf.maximum(tf.minimum(images, float(dtype.max)), float(dtype.min))
    return tf.cast(images, dtype)


def check_import(
    file: GraphFile, found: Analysis, shape: Sequence[int], values: Mapping[str, Callable[[], np.ndarray]]
) -> list[Conflict]:
    """What is wrong with a net that can be imported: conflicts, found by computing on a few random images.

    shape: of one image, [height, width, channels]. values: variable -> a function that gives its value; variables
    without one get small random numbers.
    The features of an image must be the same twice, the same alone and among others, others for another image, and one
    row an image.
    """
    random = np.random.default_rng(0)
    brightest = 255 if found.fed.dtype == "uint8" else 1
    images = random.uniform(0, brightest, (_IMAGES, *shape)).astype("float32")
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(operation_timeout_in_ms=_TIMEOUT)) as session:
        fed = tf.placeholder(tf.float32, [None, *shape])
        made = import_net(file, found, fed, logits=False)
        for name, variable in made.variables.items():
            value = values[name]() if name in values else random.normal(0, 0.05, variable.shape.as_list())
            variable.load(np.asarray(value, variable.dtype.as_numpy_dtype), session)
        if made.features.shape.rank is None or made.features.shape.as_list()[0] is not None:
            text = f"{found.features} has the shape {made.features.shape}: it must take any number of images."
            return [Conflict("the batch size is fixed", (found.features,), text)]
        try:
            together, again = (session.run(made.features, {fed: images}) for _ in range(2))
            alone = [session.run(made.features, {fed: images[i : i + 1]}) for i in range(_IMAGES)]
        except tf.errors.OpError as error:
            return [Conflict("the net does not run", (found.features,), f"TensorFlow says: {_first_line(error)}.")]
    return _wrong(found.features, together, again, alone)


def _wrong(features: str, together: np.ndarray, again: np.ndarray, alone: list[np.ndarray]) -> list[Conflict]:
    rows = len(together)
    if rows != _IMAGES or any(len(each) != 1 for each in alone):
        text = f"{features} has {rows} rows for {_IMAGES} images: --features names another tensor."
        return [Conflict("not one row per image", (features,), text)]
    if not np.isfinite(together).all():
        text = f"{features} has values that are not finite: are these the weights of this graph, and scaled images?"
        return [Conflict("not finite", (features,), text)]
    conflicts = []
    if together.tobytes() != again.tobytes():
        text = (
            f"{features} changes from run to run: something random is left. --features NAME cuts the net off before it."
        )
        conflicts.append(Conflict("not the same twice", (features,), text))
    size = float(np.abs(together).max()) or 1.0
    apart = float(np.abs(together - np.concatenate(alone)).max()) / size
    if not apart <= _NEAR:
        text = f"{features} of an image differs by {apart:.2g} with the images beside it: the batch normalises it."
        conflicts.append(Conflict("images depend on each other", (features,), text))
    if any(np.array_equal(together[0], each) for each in together[1:]):
        text = f"{features} is the same for different images: --features or --input names another tensor."
        conflicts.append(Conflict("images make no difference", (features,), text))
    return conflicts


def _variable(made: GraphVariable, shape: Sequence[int] | None) -> tf.Variable:
    """A variable of a net; one that is initialised afresh begins as the graph says, else as TensorFlow's layers do."""
    shape = made.spec.shape if shape is None else shape
    initializer = _initializer(made, len(shape))
    how = {"trainable": made.trainable, "collections": [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]}
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return tf.get_variable(made.key, shape, tf.as_dtype(made.spec.dtype), initializer, **how)


def _initializer(made: GraphVariable, rank: int) -> Callable[..., tf.Tensor]:
    if made.initializer is not None:
        kind, *numbers = made.initializer
        if kind == "constant":
            return tf.constant_initializer(np.dtype(numpy_dtype(made.spec.dtype)).type(numbers[0]))
        return _INITIALIZERS[kind](*numbers)
    if rank > 1:
        return tf.glorot_uniform_initializer()
    return tf.ones_initializer() if _BEGINS_WITH_ONES.search(made.key) else tf.zeros_initializer()


def _portable(node: Node) -> Node:
    """A node without what another TensorFlow wrote for itself: shapes that it inferred, gradients of its own, where a
    node must lie."""
    for attribute in ("_output_shapes", "_gradient_op_type", "_class"):
        if node.attribute(attribute) is not None:
            node = node.with_attribute(attribute, None)
    return node


def _rows(tensor: tf.Tensor, pooled: str, width: int | None = None) -> tf.Tensor:
    """[batch, values] of a tensor that may be a map. `width` is their number, which a graph may say elsewhere only."""
    if tensor.shape.rank == 4 and tensor.shape[1:3] != (1, 1) and pooled == "mean":
        tensor = tf.reduce_mean(tensor, [1, 2])
    if tensor.shape.rank is not None and tensor.shape.rank > 2:
        sides = tensor.shape[1:].as_list()
        if None not in sides:
            tensor = tf.reshape(tensor, [-1, math.prod(sides)])
    tensor = tf.cast(tensor, tf.float32)
    if width and (tensor.shape.rank is None or tensor.shape.as_list()[1:] == [None]):
        tensor.set_shape([None, width])  # as a script may have done: a file does not keep it
    return tensor


def _spelled(sides: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in sides)


def _first_line(error: Exception) -> str:
    """TensorFlow's message, without the places in its own code and in the graph."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [_CODE.sub("", line) for line in lines if line and not _PLACES.match(line)]
    return said[0].rstrip(".") if said else type(error).__name__
