"""Evaluates small values that a graph computes from constants and known shapes: axes, sizes, predicates, rates.

Only the values asked for are computed, and only if every array is small, so that a hostile graph cannot keep it busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..dtypes import numpy_dtype
from ..errors import CheckpointError
from ..formats.constants import constant_spec, constant_value
from ..formats.nodes import Node, is_known
from .graph import Graph, node_of, output_of

if TYPE_CHECKING:
    import numpy as np

MOST = 4096  # elements of an array
_DEEPEST = 64  # operations in a chain
_INPUTS = 256  # of one operation; with more, its value is unknown


class Values:
    """The values of a graph's tensors; None for unknown values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: dict[str, np.ndarray | None] = {}

    def __call__(self, tensor: str) -> np.ndarray | None:
        """The value of a tensor, or None."""
        return self._value(tensor, _DEEPEST)

    def _value(self, tensor: str, depth: int) -> np.ndarray | None:
        if tensor not in self.found:
            self.found[tensor] = None  # unknown if it depends on itself
            node = self.graph.nodes.get(node_of(tensor))
            if node is not None and depth:
                try:
                    self.found[tensor] = self._compute(node, output_of(tensor), depth)
                except (CheckpointError, ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError):
                    self.found[tensor] = None
        return self.found[tensor]

    def _compute(self, node: Node, number: int, depth: int) -> np.ndarray | None:
        import numpy as np

        if node.op == "Const":
            return constant_value(node) if constant_spec(node).parameters <= MOST else None
        inputs = self.graph.inputs[node.name]
        if node.op in ("Shape", "Size", "Rank"):
            return self._of_shape(node, inputs[0])
        if node.op == "Identity" or node.op not in _FUNCTIONS:
            return self._value(inputs[0], depth - 1) if node.op in _PASSING and inputs else None
        if number or not inputs or len(inputs) > _INPUTS:
            return None
        values = [self._value(each, depth - 1) for each in inputs]
        if any(value is None for value in values):
            return None
        with np.errstate(all="ignore"):
            made = np.asarray(_FUNCTIONS[node.op](node, *values))
        return made if made.size <= MOST else None

    def _of_shape(self, node: Node, tensor: str) -> np.ndarray | None:
        import numpy as np

        shape = self.graph.shape(tensor)
        if shape is None or (node.op != "Rank" and None in shape):
            return None
        dtype = numpy_dtype(node.dtype("out_type") or "int32")
        values = {"Shape": shape, "Size": math.prod(shape) if is_known(shape) else 0, "Rank": len(shape)}
        return np.asarray(values[node.op], dtype)


_PASSING = {"Identity", "StopGradient", "Snapshot", "Enter", "PlaceholderWithDefault"}


def _numpy(name: str) -> Callable[..., object]:
    def apply(node: Node, *values: np.ndarray) -> object:
        import numpy as np

        return getattr(np, name)(*values)

    return apply


def _cast(node: Node, value: np.ndarray) -> np.ndarray:
    return value.astype(numpy_dtype(node.dtype("DstT") or "float32"))


def _pack(node: Node, *values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.stack(values, node.number("axis"))


def _concat(node: Node, *values: np.ndarray) -> np.ndarray:
    import numpy as np

    *parts, axis = values if node.op == "ConcatV2" else (*values[1:], values[0])
    return np.concatenate(parts, int(axis))


def _strided_slice(node: Node, value: np.ndarray, begin: np.ndarray, end: np.ndarray, strides: np.ndarray) -> object:
    """Computes slices such as `x[1:3, 0]`; raises ValueError for new axes and ellipses."""
    if node.number("ellipsis_mask") or node.number("new_axis_mask"):
        raise ValueError
    masks = [node.number(f"{name}_mask") for name in ("begin", "end", "shrink_axis")]
    index = []
    for axis, (first, last, step) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        no_first, no_last, single = (mask >> axis & 1 for mask in masks)
        index.append(first if single else slice(None if no_first else first, None if no_last else last, step))
    return value[tuple(index)]


def _slice(node: Node, value: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    ends = [None if length < 0 else first + length for first, length in zip(begin.tolist(), size.tolist(), strict=True)]
    return value[tuple(slice(first, last) for first, last in zip(begin.tolist(), ends, strict=True))]


def _reduce(name: str) -> Callable[..., object]:
    def apply(node: Node, value: np.ndarray, axes: np.ndarray) -> object:
        import numpy as np

        kept = node.truth("keep_dims")
        return getattr(np, name)(value, axis=tuple(axes.reshape(-1).tolist()), keepdims=kept).astype(value.dtype)

    return apply


def _fill(node: Node, shape: np.ndarray, value: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.broadcast_to(value, tuple(shape.tolist()))


def _range(node: Node, first: np.ndarray, limit: np.ndarray, step: np.ndarray) -> np.ndarray:
    import numpy as np

    if abs(limit - first) > MOST * abs(step):
        raise ValueError
    return np.arange(first.item(), limit.item(), step.item(), dtype=first.dtype)


def _gather(node: Node, value: np.ndarray, indices: np.ndarray, axis: np.ndarray | None = None) -> np.ndarray:
    return value.take(indices, int(axis) if axis is not None else 0)


def _reshape(node: Node, value: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return value.reshape(tuple(shape.tolist()))


def _squeeze(node: Node, value: np.ndarray) -> np.ndarray:
    return value.squeeze(node.numbers("squeeze_dims") or node.numbers("axis") or None)


def _expand(node: Node, value: np.ndarray, axis: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.expand_dims(value, int(axis))


_FUNCTIONS: dict[str, Callable[..., object]] = {
    **dict.fromkeys(("Add", "AddV2"), _numpy("add")),
    "Sub": _numpy("subtract"),
    "Mul": _numpy("multiply"),
    **dict.fromkeys(("Div", "RealDiv"), _numpy("true_divide")),
    **dict.fromkeys(("FloorDiv", "TruncateDiv"), _numpy("floor_divide")),
    **dict.fromkeys(("Mod", "FloorMod"), _numpy("mod")),
    **dict.fromkeys(("Inv", "Reciprocal"), _numpy("reciprocal")),
    "Neg": _numpy("negative"),
    "Maximum": _numpy("maximum"),
    "Minimum": _numpy("minimum"),
    "LogicalNot": _numpy("logical_not"),
    "LogicalAnd": _numpy("logical_and"),
    "LogicalOr": _numpy("logical_or"),
    "Equal": _numpy("equal"),
    "NotEqual": _numpy("not_equal"),
    "Greater": _numpy("greater"),
    "GreaterEqual": _numpy("greater_equal"),
    "Less": _numpy("less"),
    "LessEqual": _numpy("less_equal"),
    **dict.fromkeys(("Select", "SelectV2"), _numpy("where")),
    "Cast": _cast,
    "Pack": _pack,
    **dict.fromkeys(("Concat", "ConcatV2"), _concat),
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Prod": _reduce("prod"),
    "Sum": _reduce("sum"),
    "Max": _reduce("max"),
    "Min": _reduce("min"),
    "Fill": _fill,
    "Range": _range,
    **dict.fromkeys(("Gather", "GatherV2"), _gather),
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "ExpandDims": _expand,
}
