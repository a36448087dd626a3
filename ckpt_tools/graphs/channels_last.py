"""Converts a net from [batch, channels, height, width], the layout that was fast on GPUs, to channels last.

On a CPU, TensorFlow computes convolutions and pooling only with channels last, and this project feeds, pools and
exports [batch, height, width, channels] throughout. So each NCHW operation becomes NHWC. Its output stays in that order
through elementwise operations, concatenations, reductions and padding, and is transposed back in front of anything
else, such as a Reshape that flattens it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..formats.constants import constant
from ..formats.nodes import (
    Node,
    Shape,
    attribute,
    numbers_value,
    shape_value,
    shapes_value,
    text_value,
    type_value,
)
from .cut import Cut
from .graph import Graph, node_of
from .operations import ACTIVATIONS, NORMALISING, SAME_VALUES
from .sources import has_channels_first, tensor_type
from .values import Values

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # permutations as Transpose takes them
_PLACE = _TO_LAST.index  # axis with channels first -> the same axis with channels last
_FORMATS = {"Conv2D", "DepthwiseConv2dNative", "BiasAdd", "MaxPool", "AvgPool"}
_LISTS = ("strides", "dilations", "ksize")
_EACH = (SAME_VALUES | ACTIVATIONS) - {"Maximum"} | {"Square", "Sqrt", "Rsqrt", "Exp", "Log", "Neg", "Abs", "Erf"}
_PAIRS = {"Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "Maximum", "Minimum", "SquaredDifference"}
_REDUCING = {"Mean", "Sum", "Max", "Min", "Prod"}
_PADDING = {"Pad", "PadV2", "MirrorPad"}


def is_channels_first(graph: Graph, images: str, shape: Shape) -> bool:
    """Whether images have channels first, by their shape or by the `data_format` of the operation that takes them."""
    if has_channels_first(shape):
        return True
    waiting, seen = [node_of(images)], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in graph.nodes:
            continue
        seen.add(name)
        node = graph.nodes[name]
        if _is_first(node):
            return True
        if name == node_of(images) or node.op in _EACH or node.op in _PAIRS or node.op in _PADDING:
            waiting += [use.node for use in graph.uses.get(name, ())]
    return False


def to_channels_last(made: Cut, images: str, shape: Shape) -> tuple[Cut, frozenset[str]]:
    """The cut with no channels-first operation left, and the nodes whose output order changed.

    `shape` is the shape of the images; if they had channels first, their placeholder is one of these nodes.
    """
    first = is_channels_first(made.graph, images, shape)
    if not first and not any(_is_first(node) for node in made.graph.nodes.values()):
        return made, frozenset()
    work = _Work(made)
    if first:
        work.turn(made.graph.nodes[node_of(images)])
    for name in made.graph.ordered(set(made.graph.nodes)):
        if name not in work.turned:
            work.put(made.graph.nodes[name])
    return made.rewired({}, work.replaced, work.added.values()), frozenset(work.turned)


def turned_shape(shape: Shape) -> Shape:
    """A 4-D shape with channels last; any other shape unchanged."""
    return tuple(shape[axis] for axis in _TO_LAST) if shape is not None and len(shape) == 4 else shape


def _is_first(node: Node) -> bool:
    return (node.op in _FORMATS or NORMALISING.search(node.op) is not None) and node.words("data_format") == "NCHW"


class _Work:
    """One pass over a cut, each node after its inputs. Nodes in `turned` now give [batch, height, width, channels]."""

    def __init__(self, made: Cut) -> None:
        self.made, self.graph, self.values = made, made.graph, Values(made.graph)
        self.turned: set[str] = set()
        self.replaced: dict[str, Node] = {}
        self.added: dict[str, Node] = {}
        self.transposed: dict[tuple[str, tuple[int, ...]], str] = {}

    def put(self, node: Node) -> None:
        """Converts a node to the new order if possible; otherwise restores the old order of its inputs."""
        if _is_first(node):
            self._formatted(node)
            return
        takes = self.graph.inputs[node.name]
        if node.op == "Transpose" and not self._is_turned(takes[0]) and self._order(takes[1]) == _TO_FIRST:
            self.turn(self._identity(node))
            return
        if not any(self._is_turned(each) for each in takes):
            return
        way = next((way for ops, way in self._ways() if node.op in ops), None)
        if way is None or not way(node):
            self._with_inputs(node, [self._first(each) for each in takes])

    def turn(self, node: Node) -> None:
        """Records that a node gives the new order."""
        self.turned.add(node.name)
        shapes = node.output_shapes()
        if shapes:
            node = node.with_attribute("_output_shapes", shapes_value([turned_shape(shapes[0]), *shapes[1:]]))
        if node.op == "Placeholder":
            node = node.with_attribute("shape", shape_value(turned_shape(node.shape())))
        self.replaced[node.name] = node

    def _ways(self) -> tuple[tuple[set[str], Callable[[Node], bool]], ...]:
        return (
            (_EACH, self._each),
            (_PAIRS, self._pair),
            ({"Concat", "ConcatV2"}, self._join),
            (_REDUCING, self._reduce),
            (_PADDING, self._pad),
            ({"Transpose"}, self._transpose),
        )

    # --- operations; those that return a bool return False if the new order cannot be kept ---

    def _formatted(self, node: Node) -> None:
        """Converts an NCHW operation to NHWC."""
        data, *others = self.graph.inputs[node.name]
        shape = self.graph.shape(data)
        node = node.with_attribute("data_format", text_value("NHWC"))
        if shape is not None and len(shape) != 4 and not self._is_turned(data):  # BiasAdd on rows
            self.replaced[node.name] = node
            return
        for name in _LISTS:
            if len(numbers := node.numbers(name)) == 4:
                node = node.with_attribute(name, numbers_value([numbers[axis] for axis in _TO_LAST]))
        if len(pads := node.numbers("explicit_paddings")) == 8:
            pairs = [pads[2 * axis + end] for axis in _TO_LAST for end in (0, 1)]
            node = node.with_attribute("explicit_paddings", numbers_value(pairs))
        self.turn(node._replace(inputs=(self._last(data), *others)))

    def _each(self, node: Node) -> bool:
        self.turn(node)
        return True

    def _pair(self, node: Node) -> bool:
        """Converts an elementwise operation whose operands are maps or scalars."""
        inputs = []
        for tensor in self.graph.inputs[node.name]:
            shape = self.graph.shape(tensor) if not self._is_turned(tensor) else (None,) * 4
            value = None if shape is not None else self.values(tensor)
            shape = value.shape if value is not None else shape
            if shape is None or len(shape) not in (0, 4):
                return False
            inputs.append(self._last(tensor) if len(shape) == 4 else tensor)
        self.turn(node._replace(inputs=tuple(inputs)))
        return True

    def _join(self, node: Node) -> bool:
        inputs = self.graph.inputs[node.name]
        at = 0 if node.op == "Concat" else len(inputs) - 1
        axis = self._axes(inputs[at])
        if axis is None or len(axis) != 1:
            return False
        place = self._constant(f"{node.name}/axis_last", _PLACE(axis[0]))
        taken = [place if number == at else self._last(each) for number, each in enumerate(inputs)]
        node = node if node.op == "Concat" else node.with_attribute("Tidx", None)
        self.turn(node._replace(inputs=tuple(taken)))
        return True

    def _reduce(self, node: Node) -> bool:
        data, axes = self.graph.inputs[node.name][:2]
        chosen = self._axes(axes)
        if chosen is None:
            return False
        first = set(chosen)
        kept, left = node.truth("keep_dims"), [_PLACE(axis) for axis in range(4) if axis not in first]
        if not kept and left != sorted(left):
            return False
        place = self._constant(f"{node.name}/axes_last", sorted(map(_PLACE, first)))
        node = node._replace(inputs=(data, place)).with_attribute("Tidx", None)
        if kept:
            self.turn(node)
        else:
            self.replaced[node.name] = node
        return True

    def _pad(self, node: Node) -> bool:
        data, pads, *fill = self.graph.inputs[node.name]
        sides = self.values(pads)
        if sides is None or sides.shape != (4, 2) or sides.dtype.kind != "i":
            return False
        place = self._constant(f"{node.name}/paddings_last", sides[list(_TO_LAST)])
        self.turn(node._replace(inputs=(data, place, *fill)).with_attribute("Tpaddings", None))
        return True

    def _transpose(self, node: Node) -> bool:
        """Adapts a Transpose to the new order of its input; most become an Identity."""
        data, order = self.graph.inputs[node.name][:2]
        wanted = self._order(order)
        if wanted is None:
            return False
        axes = list(map(_PLACE, wanted))
        if axes == [0, 1, 2, 3]:
            self.replaced[node.name] = self._identity(node)
        else:
            place = self._constant(f"{node.name}/order", axes)
            self.replaced[node.name] = node._replace(inputs=(data, place)).with_attribute("Tperm", None)
        return True

    # --- tensors in either order ---

    def _is_turned(self, tensor: str) -> bool:
        return tensor in self.turned  # of several outputs only the first is a map

    def _last(self, tensor: str) -> str:
        """The tensor with its channels last."""
        return tensor if self._is_turned(tensor) else self._transposed(tensor, "channels_last", _TO_LAST)

    def _first(self, tensor: str) -> str:
        """The tensor in its original order."""
        return self._transposed(tensor, "channels_first", _TO_FIRST) if self._is_turned(tensor) else tensor

    def _transposed(self, tensor: str, name: str, order: tuple[int, ...]) -> str:
        if (tensor, order) not in self.transposed:
            made = self.made.unique(f"{tensor.replace(':', '/output_')}/{name}")
            axes = self._constant(f"{made}/order", order)
            dtype = attribute("T", type_value(tensor_type(self.graph, tensor)))
            self.added[made] = Node(made, "Transpose", (tensor, axes), (dtype,))
            self.transposed[tensor, order] = made
        return self.transposed[tensor, order]

    def _order(self, tensor: str) -> tuple[int, ...] | None:
        """The permutation of four axes that a Transpose takes; None if it is unknown."""
        order = self._axes(tensor)
        return tuple(order) if order is not None and sorted(order) == [0, 1, 2, 3] else None

    def _axes(self, tensor: str) -> list[int] | None:
        """Axis numbers of a 4-D tensor, made non-negative; None if they are unknown."""
        found = self.values(tensor)
        return None if found is None or found.dtype.kind != "i" else [int(axis) % 4 for axis in found.reshape(-1)]

    def _identity(self, node: Node) -> Node:
        """The node as an Identity of its first input."""
        return Node(node.name, "Identity", node.data_inputs[:1], node.entries("T", "_output_shapes"))

    def _with_inputs(self, node: Node, inputs: list[str]) -> None:
        self.replaced[node.name] = node._replace(inputs=(*inputs, *(each for each in node.inputs if each[:1] == "^")))

    def _constant(self, name: str, values: object) -> str:
        import numpy as np

        name = self.made.unique(name)
        self.added[name] = constant(name, np.array(values, "int32"))
        return name
