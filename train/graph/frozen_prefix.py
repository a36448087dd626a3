"""Finds the frozen prefix of a training graph: the part that can be computed once per image and cached.

An operation is *moving* if its result for an image can change during training: it reads a variable that training
changes, draws random numbers, is fed, or mixes the images of a batch (training-mode batch norm, a mean over the batch).
The frontier consists of the tensors that separate the other operations from the moving ones. If these tensors are fed,
nothing of the prefix runs, since a session runs only what a fetch needs.

The frontier with the fewest bytes per image is chosen, by a minimum cut with the bytes of a tensor's row as its
capacity (Ford and Fulkerson 1956). Convolutions and matrix products of the prefix that a frontier leaves to be
recomputed in every step count as well: see PRICE."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

PRICE = 100  # multiplications that cost as much as a byte on disk
WORTH = 0.1  # share of a step's work that a prefix must save to be worth its disk space
_HANDLES = {"VarHandleOp", "VariableV2", "Variable"}
_PURE = {"ReadVariableOp", "Const", "Shape", "NoOp", "Identity"}
_SHAPES = {"Shape", "ShapeN", "Size", "Rank"}
_SAME = {"Squeeze", "Reshape", "Identity"}
_HEAVY = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
_ENDLESS = math.inf


class Frontier(NamedTuple):
    """Tensors [batch, ...] that separate the frozen prefix from the rest, from the input to the output.

    `work_left` is the share of a step's multiplications that remains if they are fed, `work_saved` the number of
    multiplications per image that is saved. `variables` are the names of the variables that the prefix reads.
    """

    tensors: tuple[tf.Tensor, ...]
    work_left: float
    variables: tuple[str, ...]
    work_saved: float


def find_frontier(
    images: tf.Tensor, targets: Sequence[tf.Tensor | tf.Operation], moves: Callable[[str], bool]
) -> Frontier | None:
    """The frontier between `images` and `targets`; None if too little of the net is frozen.

    `moves` tells for a variable's name whether training changes it. `targets` is everything that a step and an
    evaluation fetch: the training operation, losses, predictions.
    """
    goals = [target if isinstance(target, tf.Operation) else target.op for target in targets]
    needed = _upstream(goals)
    found = _downstream([images], needed)
    from_images = [op for op in images.graph.get_operations() if op in found]  # in the order in which they were made
    moving = _moving(needed, set(from_images), images, moves)
    prefix = [op for op in from_images if op not in moving]
    if not prefix:
        return None
    tensors = tuple(dict.fromkeys(_unshaped(tensor) for tensor in _cut(images, prefix, moving, goals)))
    left = _downstream(tensors, needed)
    kept = _without(_upstream([tensor.op for tensor in tensors]), images)
    variables = tuple(sorted(op.name for op in kept if op.type in _HANDLES))
    everything = sum(map(work, from_images)) or 1
    remains = sum(work(op) for op in from_images if op in left or op in moving)
    if not tensors or remains > (1 - WORTH) * everything:
        return None
    return Frontier(tensors, remains / everything, variables, everything - remains)


def work_behind(tensor: tf.Tensor, targets: Sequence[tf.Tensor | tf.Operation]) -> float:
    """Multiplications per image of everything between a fed tensor and the targets."""
    needed = _upstream([target if isinstance(target, tf.Operation) else target.op for target in targets])
    return sum(map(work, _downstream([tensor], needed)))


def row_bytes(tensor: tf.Tensor) -> float:
    """Bytes of one image's row; infinite if the tensor does not have one row of known shape per image."""
    shape = tensor.shape
    # A list, since with `disable_v2_behavior` an unknown side is a Dimension, not None.
    if not shape.rank or shape.as_list()[0] is not None or not shape[1:].is_fully_defined():
        return _ENDLESS
    return math.prod(shape[1:].as_list()) * tensor.dtype.size


def work(op: tf.Operation) -> float:
    """Multiplications of an operation per image: exact for convolutions and matrix products, which are nearly all; any
    other operation counts one per output value."""
    sizes = [math.prod(length or 1 for length in out.shape.as_list()) if out.shape.rank else 1 for out in op.outputs]
    if op.type in ("Conv2D", "DepthwiseConv2dNative"):
        kernel = op.inputs[1].shape.as_list()
        return sizes[0] * math.prod(kernel[:3] if op.type == "Conv2D" else kernel[:2])
    if op.type == "Conv2DBackpropInput":
        return math.prod(length or 1 for length in op.inputs[2].shape.as_list()) * math.prod(
            op.inputs[1].shape.as_list()[:3]
        )
    if op.type == "Conv2DBackpropFilter":
        gradient = [length or 1 for length in op.inputs[2].shape.as_list()]
        return math.prod(gradient) * (sizes[0] / gradient[-1])
    if op.type == "MatMul":
        return sizes[0] * (op.inputs[0].shape.as_list()[0 if op.get_attr("transpose_a") else 1] or 1)
    return sum(sizes)


# --- walks ---------------------------------------------------------------------------------------------------------


def _inputs(op: tf.Operation) -> Iterable[tf.Operation]:
    return (*(tensor.op for tensor in op.inputs), *op.control_inputs)


def _upstream(ops: Iterable[tf.Operation]) -> set[tf.Operation]:
    """The operations and everything that they depend on."""
    found, queue = set(ops), deque(ops)
    while queue:
        for before in _inputs(queue.popleft()):
            if before not in found:
                found.add(before)
                queue.append(before)
    return found


def _downstream(tensors: Iterable[tf.Tensor], needed: Collection[tf.Operation]) -> set[tf.Operation]:
    """The needed operations that depend on the tensors' values."""
    found: set[tf.Operation] = set()
    queue = deque(op for tensor in tensors for op in tensor.consumers() if op in needed)
    while queue:
        op = queue.popleft()
        if op in found:
            continue
        found.add(op)
        queue.extend(after for out in op.outputs for after in out.consumers() if after in needed)
    return found


def _without(ops: set[tf.Operation], images: tf.Tensor) -> set[tf.Operation]:
    """The operations that are not needed to make the images."""
    return ops - _upstream([images.op])


def _moving(
    needed: set[tf.Operation], from_images: Collection[tf.Operation], images: tf.Tensor, moves: Callable[[str], bool]
) -> set[tf.Operation]:
    """The needed operations whose result for an image can change."""
    begins = [op for op in _without(needed, images) if _moves(op, moves) or (op in from_images and _mixes(op, needed))]
    moving = set(begins)
    queue = deque(begins)
    while queue:
        op = queue.popleft()
        after = [each for out in op.outputs for each in out.consumers()] + list(op._control_outputs)
        for each in after:
            if each in needed and each not in moving:
                moving.add(each)
                queue.append(each)
    return moving


def _moves(op: tf.Operation, moves: Callable[[str], bool]) -> bool:
    """Whether an operation moves even if its inputs do not."""
    if op.type in _HANDLES:
        return moves(op.name)
    if op.type in ("Placeholder", "PlaceholderWithDefault"):
        return True
    if op.op_def.is_stateful and op.type not in _PURE:
        return True
    return op.type.startswith("FusedBatchNorm") and op.get_attr("is_training")


def _mixes(op: tf.Operation, needed: Collection[tf.Operation]) -> bool:
    """Whether one image's result depends on the other images of its batch: an input has one row per image, but an
    output has not. An inference-mode batch norm has such outputs, too, but nothing needs them."""
    if op.type in _SHAPES or not any(row_bytes(tensor) < _ENDLESS for tensor in op.inputs):
        return False
    used = (out for out in op.outputs if any(after in needed for after in out.consumers()))
    return any(row_bytes(out) == _ENDLESS for out in used)


# --- the minimum cut -----------------------------------------------------------------------------------------------


def _cut(
    images: tf.Tensor, prefix: Sequence[tf.Operation], moving: Collection[tf.Operation], goals: Collection[tf.Operation]
) -> tuple[tf.Tensor, ...]:
    """The tensors of the minimum cut nearest to the moving part.

    Each tensor is two nodes joined by an edge of its capacity. An operation joins its inputs to its outputs, and the
    source to its outputs with the cost of running it again.
    """
    tensors = [images, *(out for op in prefix for out in op.outputs)]
    number = {id(tensor): i for i, tensor in enumerate(tensors)}
    source, sink = 2 * len(tensors), 2 * len(tensors) + 1
    capacity: list[dict[int, float]] = [{} for _ in range(sink + 1)]

    def join(a: int, b: int, amount: float) -> None:
        capacity[a][b] = amount
        capacity[b].setdefault(a, 0)

    inside = set(prefix)
    join(source, 0, _ENDLESS)
    for i, tensor in enumerate(tensors):
        join(2 * i, 2 * i + 1, row_bytes(tensor) if i else _ENDLESS)  # the images themselves are not cut
        if i and tensor.op.type in _HEAVY:
            join(source, 2 * i, work(tensor.op) / PRICE)
        for op in tensor.consumers():
            if op in moving or op in goals:
                join(2 * i + 1, sink, _ENDLESS)
            elif op in inside:
                for out in op.outputs:
                    join(2 * i + 1, 2 * number[id(out)], _ENDLESS)
        if tensor.op in goals:
            join(2 * i + 1, sink, _ENDLESS)
    after = _sink_side(capacity, source, sink)
    return tuple(tensor for i, tensor in enumerate(tensors) if 2 * i not in after and 2 * i + 1 in after)


def _unshaped(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before any reshaping, so that every head finds the same frontier."""
    while tensor.op.type in _SAME and row_bytes(tensor.op.inputs[0]) == row_bytes(tensor):
        tensor = tensor.op.inputs[0]
    return tensor


def _sink_side(capacity: list[dict[int, float]], source: int, sink: int) -> set[int]:
    """Pushes flow along shortest paths until none is left; returns the nodes that still reach the sink."""
    while True:
        came = {source: source}
        queue = deque([source])
        while queue and sink not in came:
            node = queue.popleft()
            for after, left in capacity[node].items():
                if left > 0 and after not in came:
                    came[after] = node
                    queue.append(after)
        if sink not in came:
            break
        path = [sink]
        while path[-1] != source:
            path.append(came[path[-1]])
        edges = list(zip(path[1:], path[:-1], strict=True))
        amount = min(capacity[a][b] for a, b in edges)
        if amount == _ENDLESS:  # no tensor on this path has one row per image, so it cannot be cut
            return set(range(len(capacity)))
        for a, b in edges:
            capacity[a][b] -= amount
            capacity[b][a] += amount
    reaches, queue = {sink}, deque([sink])
    while queue:
        node = queue.popleft()
        for before in capacity[node]:  # every edge has its reverse, so these are all neighbours
            if capacity[before].get(node, 0) > 0 and before not in reaches:
                reaches.add(before)
                queue.append(before)
    return reaches
