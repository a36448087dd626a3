"""Finds the layers of a graph, matrix products and convolutions with weights, and which layers precede which."""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

from ..errors import UnsupportedError
from ..formats.constants import constant_spec
from ..formats.nodes import Node, Shape
from .graph import Graph, node_of
from .operations import READS, VARIABLES, is_forward, is_source

_ROWS = re.compile(r"([A-Za-z]{2}),([A-Za-z]{2})->([A-Za-z]{2})")
MAX_LAYERS = 5000  # `Layers.above` holds one bit per layer for each node
_WEIGHTED = ("MatMul", "Conv2D", "Einsum")
_SAME_SHAPE = ("Cast", "Enter", "StopGradient", "Dequantize")  # between weights and what they are read from


class Layer(NamedTuple):
    """A product with weights. `data` is the tensor that it transforms, `weights` the other one; `shape` is the shape of
    the weights with the outputs last, None if the file does not say."""

    name: str
    data: str
    weights: str
    shape: Shape

    @property
    def outputs(self) -> int | None:
        return self.shape[-1] if self.shape else None

    @property
    def inputs(self) -> int | None:
        """Input channels."""
        return self.shape[-2] if self.shape and len(self.shape) > 1 else None


def outputs_first(node: Node, slot: int) -> bool | None:
    """Whether the outputs are the first axis of a matrix product's weights (its input `slot`) rather than the last;
    None if the node is not a product of rows with a matrix."""
    if node.op == "MatMul":
        return node.truth("transpose_b" if slot else "transpose_a") != (slot == 0)
    found = _ROWS.fullmatch(node.words("equation").replace(" ", ""))
    if node.op != "Einsum" or found is None:
        return None
    weights = found[1 + slot]
    row, summed, first, made = tuple(found[2 - slot] + found[3])
    if first != row or {summed, made} != {*weights} or len({row, summed, made}) != 3:
        return None
    return weights[0] == made


class Layers:
    """The layers of a graph, apart from those that compute gradients."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forward = {name for name, node in graph.nodes.items() if is_forward(node)}

    @cached_property
    def varying(self) -> set[str]:
        """The forward nodes that depend on fed, read or random data, not just on variables and constants."""
        sources = [name for name, node in self.graph.nodes.items() if is_source(node)]
        return self.graph.downstream(sources, self.forward)

    @cached_property
    def found(self) -> dict[str, Layer]:
        """Node -> layer, in the order of the file. Raises UnsupportedError for more than MAX_LAYERS."""
        made = {}
        for name in self.graph.nodes:
            if name in self.varying and self.graph.nodes[name].op in _WEIGHTED and (layer := self._layer(name)):
                made[name] = layer
        if len(made) > MAX_LAYERS:
            raise UnsupportedError(
                f"the graph has {len(made):,} layers, more than the {MAX_LAYERS:,} that are looked at"
            )
        return made

    @cached_property
    def above(self) -> dict[str, int]:
        """Varying node -> the layers that it depends on, including itself, as bits in the order of `found`."""
        bits = {name: 1 << number for number, name in enumerate(self.found)}
        made: dict[str, int] = {}
        for name in self.graph.ordered(self.varying):
            found = bits.get(name, 0)
            for tensor in self.graph.inputs[name]:
                found |= made.get(node_of(tensor), 0)
            made[name] = found
        return made

    def varies(self, tensor: str) -> bool:
        return node_of(tensor) in self.varying

    def _layer(self, name: str) -> Layer | None:
        inputs = self.graph.inputs[name]
        if len(inputs) < 2:
            return None
        first, second = inputs[:2]
        node = self.graph.nodes[name]
        if node.op == "Conv2D":
            return None if self.varies(second) else Layer(name, first, second, self.weights_shape(second))
        if self.varies(first) == self.varies(second):
            return None
        data, weights, slot = (second, first, 0) if self.varies(second) else (first, second, 1)
        turned = outputs_first(node, slot)
        if turned is None:
            return None
        shape = self.weights_shape(weights)
        return Layer(name, data, weights, shape[::-1] if shape and turned else shape)

    def weights_shape(self, tensor: str) -> Shape:
        """The shape of a layer's weights, if need be that of the variable or constant they are read from."""
        graph = self.graph
        for _ in range(8):
            name = node_of(tensor)
            node = graph.nodes.get(name)
            if node is None:
                return None
            if node.op in VARIABLES:
                return node.shape()
            if node.op == "Const":
                return constant_spec(node).shape
            shape = graph.shape(tensor)
            if shape is not None and None not in shape:
                return shape
            if node.op not in READS and node.op not in _SAME_SHAPE and not node.op.startswith("FakeQuant"):
                return None
            tensor = graph.inputs[name][0]
        return None


def first_channels(graph: Graph) -> int | None:
    """The image channels of a net, read off its first convolution's filter; None if there is not one such number."""
    layers = Layers(graph)
    first = [layer for name, layer in layers.found.items() if layers.above[name].bit_count() == 1 and layer.shape]
    depths = {layer.shape[2] for layer in first if layer.shape and len(layer.shape) == 4}
    return depths.pop() if len(depths) == 1 and depths <= {1, 3, 4} else None
