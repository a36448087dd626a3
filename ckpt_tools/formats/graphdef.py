"""Frozen graphs: recovers the variables that a GraphDef's constants were.

    GraphDef { 1 node NodeDef*, 2 library { 1 function { 3 node_def NodeDef* } } }
    SavedModel { 2 meta_graphs { 2 graph_def GraphDef } }

Freezing turns a variable into a Const of the same name, read by an Identity `NAME/read`. In TensorFlow 2, and with
tools that remove the Identity, only its use tells: a Const that is the filter of a convolution is a kernel. Other
constants (shapes, axes, paddings) are left out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import CheckpointError, NotACheckpointError
from ..report import count
from ..tensors import Tensors
from .checkpoint import Checkpoint
from .constants import constant_spec, constant_tensor
from .nodes import Node, parse_node
from .proto import Bytes, fields, message
from .storage import mapped

_BATCH_NORM = {1: "gamma", 2: "beta", 3: "moving_mean", 4: "moving_variance"}
# Operation -> which of its inputs are variables, and their names in a Keras layer.
_PARAMETERS = {
    "Conv1D": {1: "kernel"},
    "Conv2D": {1: "kernel"},
    "Conv3D": {1: "kernel"},
    "Conv2DBackpropInput": {1: "kernel"},
    "DepthwiseConv2dNative": {1: "depthwise_kernel"},
    "MatMul": {0: "kernel", 1: "kernel"},
    "BatchMatMulV2": {1: "kernel"},
    "BiasAdd": {1: "bias"},
    "_FusedConv2D": {1: "kernel", 2: "bias"},
    "_FusedMatMul": {1: "kernel", 2: "bias"},
    "FusedBatchNorm": _BATCH_NORM,
    "FusedBatchNormV2": _BATCH_NORM,
    "FusedBatchNormV3": _BATCH_NORM,
    "BatchNormWithGlobalNormalization": {1: "moving_mean", 2: "moving_variance", 3: "beta", 4: "gamma"},
    "GatherV2": {0: "embeddings"},
    "Gather": {0: "embeddings"},
    "ResourceGather": {0: "embeddings"},
}
# Steps of Keras 3's batch norm, written out in basic operations (tf.nn.batch_normalization) -> variable of each step.
_STEPS = {
    "batchnorm/add": "moving_variance",
    "batchnorm/mul": "gamma",
    "batchnorm/mul_2": "moving_mean",
    "batchnorm/sub": "beta",
}
_BROADCAST = {"Add", "AddV2", "BiasAdd", "Mul", "Sub"}  # with a constant vector: a bias, a scale, an offset
_PASSING = {
    *("Identity", "ReadVariableOp", "Enter", "Cast", "Reshape", "Squeeze", "ExpandDims", "Dequantize"),
    *("StopGradient", "FakeQuantWithMinMaxVars"),
}
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_IN_BATCH_NORM = re.compile(r"(^|/)(\w*batch_?norm\w*|bn\w*|\w*_bn)(/|$)|_bn_offset$", re.IGNORECASE)
_STATISTIC = re.compile(r"(moving_|running_)?(mean|variance|var)$", re.IGNORECASE)
_UNFROZEN = {"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"}


class ConstantUse(NamedTuple):
    """An input that a constant feeds, possibly through Identities and casts."""

    node: Node
    input: int


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a frozen GraphDef, or the `saved_model.pb` of a SavedModel whose variables are frozen into it.

    The note says if batch norms were folded into their layers. Raises NotACheckpointError for a graph without values.
    """
    path = os.fspath(path)
    try:
        view = mapped(path).view()
        saved_model = _is_saved_model(view)
        nodes = list(_saved_model_nodes(view) if saved_model else _nodes(view))
        constants = [node for node in nodes if node.op == "Const"]
        consumers = _consumers(nodes)
        names = _variable_names(constants, consumers)
        if not names:
            raise _no_values(nodes, constants, saved_model)
        tensors = {names[node.name]: constant_tensor(node, path) for node in constants if node.name in names}
    except CheckpointError as error:
        raise error.at(path=path) from None
    left = len(constants) - len(names)
    note = f"Constants that are not variables are left out ({left}). " if left else ""
    note += _folding(nodes, names, consumers)
    return Checkpoint(Tensors(tensors), "saved_model" if saved_model else "graphdef", path, (path,), note.strip())


def frozen_names(nodes: Sequence[Node]) -> dict[str, str]:
    """Constant -> name of the variable that it was, for every constant of a graph that was a variable."""
    return _variable_names([node for node in nodes if node.op == "Const"], _consumers(nodes))


def _is_saved_model(view: Bytes) -> bool:
    """Whether the file is a SavedModel, which begins with its schema version; a GraphDef begins with a node."""
    return view[:1] == b"\x08"


def _saved_model_nodes(view: Bytes) -> Iterator[Node]:
    for field, wire, meta_graph in fields(view):
        if field == 2:
            for inner, inner_wire, graph in fields(message(meta_graph, wire, "a meta graph")):
                if inner == 2:
                    yield from _nodes(message(graph, inner_wire, "a graph"))


def _nodes(view: Bytes) -> Iterator[Node]:
    for field, wire, value in fields(view):
        if field == 1:
            yield parse_node(message(value, wire, "a node"))
        elif field == 2:
            for inner, inner_wire, function in fields(message(value, wire, "the function library")):
                if inner == 1:
                    yield from _function_nodes(message(function, inner_wire, "a function"))


def _function_nodes(function: Bytes) -> Iterator[Node]:
    for field, wire, value in fields(function):
        if field == 3:
            yield parse_node(message(value, wire, "a node"))


def _consumers(nodes: Sequence[Node]) -> dict[str, list[ConstantUse]]:
    found: dict[str, list[ConstantUse]] = {}
    for node in nodes:
        for index, source in enumerate(node.inputs):
            found.setdefault(source.partition(":")[0], []).append(ConstantUse(node, index))
    return found


def _uses(name: str, consumers: Mapping[str, Sequence[ConstantUse]]) -> Iterator[ConstantUse]:
    waiting, seen = [name], {name}
    while waiting:
        for use in consumers.get(waiting.pop(), ()):
            if use.node.op not in _PASSING:
                yield use
            elif use.input == 0 and use.node.name not in seen:
                seen.add(use.node.name)
                waiting.append(use.node.name)


def _variable_names(constants: Sequence[Node], consumers: Mapping[str, Sequence[ConstantUse]]) -> dict[str, str]:
    """Constant -> name of the variable that it was, for every constant that was a variable."""
    found: dict[str, str] = {}
    for node in constants:
        if _unused_scale(node.name, consumers):
            continue
        if any(
            use.node.op == "Identity" and use.node.name == node.name + "/read" for use in consumers.get(node.name, ())
        ):
            found[node.name] = node.name
        elif name := _name_by_use(node, list(_uses(node.name, consumers))):
            found[node.name] = name
    taken: dict[str, int] = {}
    for name in found.values():
        taken[name] = taken.get(name, 0) + 1
    return {constant: name if taken[name] == 1 else constant for constant, name in found.items()}


def _unused_scale(name: str, consumers: Mapping[str, Sequence[ConstantUse]]) -> bool:
    """Whether a constant is the gamma of old batch norm operations, which require the input but do not use it."""
    uses = list(_uses(name, consumers))
    return bool(uses) and all(
        use.node.op == "BatchNormWithGlobalNormalization"
        and use.input == 4
        and not use.node.truth("scale_after_normalization", True)
        for use in uses
    )


def _name_by_use(node: Node, uses: Sequence[ConstantUse]) -> str | None:
    spec = constant_spec(node)
    for use in uses if spec.shape else ():  # a scalar is an epsilon or a scale, not a variable
        scope, role = _role(use)
        if role is None and use.node.op in _BROADCAST and spec.dtype in _FLOATS and math.prod(spec.shape) > 1:
            role = "bias" if "Add" in use.node.op else node.name.rpartition("/")[2]
        if role is None:
            continue
        if not node.name.endswith(("/resource", "/ReadVariableOp")):
            return node.name
        return f"{scope}/{role}" if scope else role  # TensorFlow 2 names such constants after their reader
    return None


def _role(use: ConstantUse) -> tuple[str, str | None]:
    """The scope of the layer that uses a constant, and the constant's role in it, if known."""
    name = use.node.name
    for step, role in _STEPS.items():
        if name.endswith("/" + step):
            return name.removesuffix("/" + step), role
    return name.rpartition("/")[0], _PARAMETERS.get(use.node.op, {}).get(use.input)


def _folding(nodes: Sequence[Node], names: Mapping[str, str], consumers: Mapping[str, Sequence[ConstantUse]]) -> str:
    """A sentence if batch norm was folded: names of its layers remain, its operations and statistics do not."""
    normalises = any("BatchNorm" in node.op or (node.op == "Rsqrt" and "batchnorm" in node.name) for node in nodes)
    statistics = any(_STATISTIC.search(name) and _IN_BATCH_NORM.search(name) for name in names.values())
    folded = {
        use.node.name
        for name in names
        for use in _uses(name, consumers)
        if use.node.op in _BROADCAST and (_IN_BATCH_NORM.search(use.node.name) or _IN_BATCH_NORM.search(name))
    }
    if normalises or statistics or not folded:
        return ""
    layers = f"{count(len(folded), 'layer')} (such as {min(folded)})"
    return f"Batch norm is folded into the weights of {layers}: its scales and moving statistics are not in the file."


def _no_values(nodes: Sequence[Node], constants: Sequence[Node], saved_model: bool) -> NotACheckpointError:
    if saved_model:
        return NotACheckpointError(
            "is the graph of a SavedModel without variables: none are frozen into it, and there is no "
            "variables/variables.index beside it"
        )
    unfrozen = sum(node.op in _UNFROZEN for node in nodes)
    if unfrozen:
        return NotACheckpointError(
            f"is a graph of {len(nodes)} nodes whose {unfrozen} variables are not in it",
            advice="Their values are in a checkpoint: give its prefix, or the folder of the SavedModel.",
        )
    return NotACheckpointError(
        f"is a graph of {len(nodes)} nodes and {len(constants)} constants, none of them a variable"
    )
