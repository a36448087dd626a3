"""Finds the layer that gives the classes: from the inputs of losses, softmax and predictions back to a layer.

Evidence of a candidate: 3 if a softmax or sigmoid cross entropy takes it, 2 if a softmax takes it, 1 if an ArgMax or
TopK or a final sigmoid takes it, 0 if nothing takes it, -1 for the layer with most layers in front of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .dropout import is_mask
from .graph import Graph, node_of
from .layers import Layer, Layers
from .operations import ACTIVATIONS, NORMALISING, POOLING, SAME_VALUES

_LOSSES = ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits")
_SOFTMAX = ("Softmax", "LogSoftmax")
_PREDICTING = ("ArgMax", "TopK", "TopKV2", "InTopK", "InTopKV2")
_ARITHMETIC = ("Add", "AddV2", "Sub", "Mul", "Div", "RealDiv", "Pow", "BiasAdd", "Maximum", "Minimum")
_WALKED = (
    SAME_VALUES | ACTIVATIONS | POOLING | {"Reshape", "Squeeze", "ExpandDims", "PlaceholderWithDefault", *_SOFTMAX}
)
_SHAPING = {"Reshape", "Identity", "Cast", "StopGradient", *_SOFTMAX}  # belong to a loss or a prediction
_NO_END = ("Assert", "NoOp", "Assign", "Save", "Summary", "Print", "Enqueue")
_LONGEST = 200


class Candidate(NamedTuple):
    """A layer that may give the classes. `evidence` is as above; `depth` counts the layers up to and including it."""

    layer: Layer
    logits: str
    evidence: int
    depth: int
    inner: bool  # another candidate lies behind it

    @property
    def rank(self) -> tuple[bool, int, int]:
        return (not self.inner, self.evidence, self.depth)


def candidates(layers: Layers) -> list[Candidate]:
    """The layers that may give the classes, the most likely first. Each layer appears once."""
    best: dict[str, tuple[int, str]] = {}
    for tensor, evidence in _evidence(layers):
        layer = walk_to_layer(layers, tensor)
        if layer is not None and best.get(layer, (-2, ""))[0] < evidence:
            best[layer] = (evidence, tensor)
    deepest = max(layers.found, key=lambda name: layers.above.get(name, 0).bit_count(), default=None)
    if deepest is not None:
        best.setdefault(deepest, (-1, deepest))
    bits = {name: 1 << number for number, name in enumerate(layers.found)}
    in_front = 0
    for layer in best:
        in_front |= layers.above[layer] & ~bits[layer]
    found = []
    for layer, (evidence, tensor) in best.items():
        inner = bool(in_front & bits[layer])
        depth = layers.above[layer].bit_count()
        found.append(Candidate(layers.found[layer], logits_at(layers.graph, tensor), evidence, depth, inner))
    return sorted(found, key=lambda each: each.rank, reverse=True)


def walk_to_layer(layers: Layers, tensor: str) -> str | None:
    """The layer that makes a tensor, through operations that keep one value per class; None if there is none."""
    for _ in range(_LONGEST):
        name = node_of(tensor)
        if name in layers.found:
            return name
        before = _before(layers, name)
        if before is None:
            return None
        tensor = before
    return None


def logits_at(graph: Graph, tensor: str) -> str:
    """The logits that become the input of a loss or a prediction, before its reshaping and softmax."""
    return graph.before(tensor, _SHAPING)


def _before(layers: Layers, name: str) -> str | None:
    """The tensor that a node passes on; None if the walk ends at this node."""
    graph = layers.graph
    node, inputs = graph.nodes.get(name), graph.inputs.get(name, [])
    if node is None or not inputs or name not in layers.varying:
        return None
    if node.op in _WALKED or NORMALISING.search(node.op) or node.op.startswith(("FakeQuant", "Switch")):
        return inputs[0]
    if node.op == "Merge":
        return next((tensor for tensor in inputs if layers.varies(tensor)), None)
    if node.op in _ARITHMETIC or node.op in ("Select", "SelectV2"):
        varying = [tensor for tensor in inputs if layers.varies(tensor) and not is_mask(graph, tensor)]
        if len(varying) > 1:
            varying = [tensor for tensor in varying if _may_be_rows(graph, tensor)]
        return varying[0] if len(varying) == 1 else None
    return None


def _may_be_rows(graph: Graph, tensor: str) -> bool:
    """Whether a tensor may have one row per image, unlike what a batch norm computes from the batch's statistics."""
    shape = graph.shape(tensor)
    return shape is None or (len(shape) > 1 and shape[0] != 1)


def _evidence(layers: Layers) -> Iterator[tuple[str, int]]:
    graph = layers.graph
    for name, node in graph.nodes.items():
        if name not in layers.varying:
            continue
        inputs = graph.inputs[name]
        if node.op in _LOSSES and inputs:
            yield inputs[0], 3
        elif node.op in ("Log1p", "Log") and (logits := _of_sigmoid_loss(graph, name)):
            yield logits, 3
        elif node.op in _SOFTMAX and inputs:
            yield inputs[0], 2
        elif node.op in _PREDICTING and inputs:
            yield inputs[1] if node.op.startswith("InTopK") and len(inputs) > 3 else inputs[0], 1
        elif node.op == "Sigmoid" and inputs and not _leads_to_layer(layers, name):
            yield inputs[0], 1
        elif not (
            any(use.node in layers.forward for use in graph.uses.get(name, ()))
            or any(word in node.op for word in _NO_END)
        ):
            yield name, 0


def _of_sigmoid_loss(graph: Graph, name: str) -> str:
    """The logits x if the node is log(1 + exp(-|x|)) of a sigmoid cross entropy; else "".

    TensorFlow computes -|x| as a Select between -x and x; before 1.0 it used Log(1 + y), not Log1p(y).
    """
    tensor = graph.inputs[name][0] if graph.inputs[name] else ""
    if graph.op(name) == "Log" and graph.op(tensor) in ("Add", "AddV2"):
        tensor = next((each for each in graph.inputs[node_of(tensor)] if graph.op(each) == "Exp"), "")
    elif graph.op(name) == "Log":
        return ""
    if graph.op(tensor) != "Exp":
        return ""
    (power,) = graph.inputs[node_of(tensor)][:1]
    inputs = graph.inputs.get(node_of(power), [])
    if graph.op(power) == "Neg" and graph.op(inputs[0]) == "Abs":
        logits = graph.inputs[node_of(inputs[0])][0]
    elif graph.op(power) in ("Select", "SelectV2") and graph.op(inputs[1]) == "Neg":
        logits = inputs[2] if graph.inputs[node_of(inputs[1])] == inputs[2:] else ""
    else:
        return ""
    is_multiplied = any(graph.op(use.node) == "Mul" for use in graph.uses.get(node_of(logits), ()))  # by the labels
    return logits if logits and is_multiplied else ""


def _leads_to_layer(layers: Layers, name: str) -> bool:
    return any(each in layers.found for each in layers.graph.downstream([name], layers.varying))
