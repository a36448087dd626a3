"""Prepares a net that no longer changes: variables become constants, batch norms are folded into convolutions.

In exact arithmetic a convolution and its batch norm in inference mode are one convolution with other weights and a
bias (Jacob et al. 2018, section 3.2):

    gamma (W * x - mean) / sqrt(variance + epsilon) + beta  =  (W s) * x + (beta - mean s),
    s = gamma / sqrt(variance + epsilon)

In floating point the result differs slightly, so nothing is folded in float32, where results are promised bit for bit.
In bfloat16 on a CPU it is faster (benchmarks/bench_features.py): one pass over the values less, weights that oneDNN
reorders only once, and bias and ReLU fused into the convolution by TensorFlow. Folded weights are never saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_CONTROL_FLOW = ("Enter", "Exit", "Switch", "Merge", "NextIteration")
_VARIABLES = ("VarHandleOp", "ReadVariableOp", "VariableV2", "Variable")
_MOST = 2**31 - 2**24  # bytes of constants; a GraphDef, as a protocol buffer, must be below 2 GiB


class Folded(NamedTuple):
    """`graph` computes the tensors named `outputs`, in order, from the one named `images`."""

    graph: tf.GraphDef
    images: str
    outputs: tuple[str, ...]

    def on(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The outputs for these images, in the current graph."""
        return tf.import_graph_def(self.graph, {self.images: images}, list(self.outputs), name="folded")


def fold(session: tf.Session, tensors: Sequence[tf.Tensor], images: tf.Tensor) -> Folded | None:
    """A graph that computes the tensors from the images with the current values of the session's variables.

    None if that is impossible: with control flow between the two, with state other than variables, such as random
    numbers, or with more constants than a GraphDef can hold.
    """
    through = _between(images, tensors)
    read = [tensor for op in through.values() for tensor in op.inputs]
    wanted = {tensor.name: tensor for tensor in read if tensor.op.name not in through and tensor.name != images.name}
    batch_norms = dict(_foldable(through, {tensor.name for tensor in tensors}))
    weights = {convolution: _before_cast(through[convolution].inputs[1]) for convolution in batch_norms}
    unknown = any(tensor.dtype in (tf.resource, tf.variant) for tensor in wanted.values())
    if unknown or any(op.type in _CONTROL_FLOW for op in through.values()) or _varies(wanted.values()):
        return None
    values = session.run({**wanted, **{tensor.name: tensor for tensor in weights.values()}})
    nodes = [_placeholder("images", images)]
    constants = {images.name: "images"}
    for number, (name, tensor) in enumerate(wanted.items()):
        constants[name] = f"constant_{number}"
        nodes.append(_constant(constants[name], values[name], tensor.dtype))
    folded = {batch_norm.name: convolution for convolution, batch_norm in batch_norms.items()}
    for op in through.values():
        node = tf.NodeDef()
        node.CopyFrom(op.node_def)
        node.ClearField("input")
        node.input.extend(constants.get(tensor.name, tensor.name) for tensor in op.inputs)
        if op.name in weights:
            scale, bias = _scale_and_bias(batch_norms[op.name], values)
            own = _scaled(op, values[weights[op.name].name], scale)
            node.input[1] = f"{op.name}/weights"
            nodes.append(_constant(node.input[1], own, op.outputs[0].dtype))
            nodes.append(_constant(f"{op.name}/bias", bias, op.outputs[0].dtype))
        elif op.name in folded:
            node = tf.NodeDef(name=op.name, op="BiasAdd", device=op.device)
            node.input.extend([f"{folded[op.name]}:0", f"{folded[op.name]}/bias"])
            node.attr["T"].type = op.outputs[0].dtype.as_datatype_enum
        nodes.append(node)
    kept = {name.split(":")[0] for node in nodes for name in node.input} | {"images", *through}
    nodes = [node for node in nodes if node.name in kept]
    if sum(node.ByteSize() for node in nodes) > _MOST:
        return None
    whole = session.graph.as_graph_def()
    graph = tf.GraphDef(node=nodes, versions=whole.versions, library=whole.library)
    return Folded(graph, "images:0", tuple(tensor.name for tensor in tensors))


def fusing(config: tf.ConfigProto) -> tf.ConfigProto:
    """For a folded graph on a CPU, keeps only the pass of TensorFlow's graph optimizer that fuses operations. The
    others find nothing, and each copies a hundred megabytes of constants."""
    passes = config.graph_options.rewrite_options
    passes.optimizers.append("remap")
    passes.meta_optimizer_iterations = passes.ONE
    return config


def _varies(tensors: Iterable[tf.Tensor]) -> bool:
    """Whether the tensors depend on stateful operations other than variables, so that they must not become
    constants."""
    needed = _upstream(tensors)
    return any(op.op_def.is_stateful and op.type not in _VARIABLES for op in needed.values())


def _upstream(tensors: Iterable[tf.Tensor], end: tf.Operation | None = None) -> dict[str, tf.Operation]:
    """Name -> operation for everything that the tensors depend on, up to but not including `end`."""
    needed: dict[str, tf.Operation] = {}
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        op = waiting.pop()
        if op.name not in needed and op is not end:
            needed[op.name] = op
            waiting += [tensor.op for tensor in op.inputs]
    return needed


def _between(images: tf.Tensor, tensors: Sequence[tf.Tensor]) -> dict[str, tf.Operation]:
    """Name -> operation for everything between the images and the tensors, in order of creation."""
    needed = _upstream(tensors, images.op)
    through: dict[str, tf.Operation] = {}
    for op in images.graph.get_operations():
        if op.name in needed and any(tensor.name == images.name or tensor.op.name in through for tensor in op.inputs):
            through[op.name] = op
    return through


def _foldable(through: Mapping[str, tf.Operation], fetched: set[str]) -> Iterator[tuple[str, tf.Operation]]:
    """Name of each convolution with constant weights whose only reader is a batch norm, and that batch norm."""

    def readers(tensor: tf.Tensor) -> list[str]:
        return [op.name for op in tensor.consumers() if op.name in through] + ["fetched"] * (tensor.name in fetched)

    for op in through.values():
        if op.type not in _BATCH_NORMS or op.get_attr("is_training") or op.get_attr("data_format") != b"NHWC":
            continue
        convolution = op.inputs[0].op
        if (
            convolution.name in through
            and convolution.type in _CONVOLUTIONS
            and readers(convolution.outputs[0]) == [op.name]
            and not any(readers(statistic) for statistic in op.outputs[1:])
            and not any(tensor.op.name in through for tensor in (convolution.inputs[1], *op.inputs[1:]))
        ):
            yield convolution.name, op


def _before_cast(tensor: tf.Tensor) -> tf.Tensor:
    """The weights before a Cast, as in the checkpoint, so that they are scaled before they are rounded."""
    return tensor.op.inputs[0] if tensor.op.type == "Cast" else tensor


def _scale_and_bias(batch_norm: tf.Operation, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """s and beta - mean s, float64 [channels]."""
    gamma, beta, mean, variance = (values[tensor.name].astype(np.float64) for tensor in batch_norm.inputs[1:5])
    scale = gamma / np.sqrt(variance + batch_norm.get_attr("epsilon"))
    return scale, beta - mean * scale


def _scaled(convolution: tf.Operation, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights [h, w, in, out], or depthwise [h, w, in, multiplier], times s of their output channel."""
    return weights * (scale if convolution.type == "Conv2D" else scale.reshape(weights.shape[2:]))


def _placeholder(name: str, like: tf.Tensor) -> tf.NodeDef:
    node = tf.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = like.dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(like.shape.as_proto())
    return node


def _constant(name: str, value: np.ndarray, dtype: tf.DType) -> tf.NodeDef:
    node = tf.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype.base_dtype.as_datatype_enum
    tensor = node.attr["value"].tensor
    if dtype == tf.string:
        tensor.CopyFrom(tf.make_tensor_proto(value))
        return node
    value = np.asarray(value).astype(dtype.base_dtype.as_numpy_dtype)
    tensor.dtype = dtype.base_dtype.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = value.tobytes()
    return node
