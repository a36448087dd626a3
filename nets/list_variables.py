"""Writes `variables/<net>.txt` from the graphs: python -m ckpt_tools.nets.list_variables

A line is `trainable NAME SHAPE`, `statistic NAME SHAPE` (batch norm's moving averages) or `end_point NAME`. A shape
is written 3x3x3x32, with C where the number of classes goes. Variables stand in the order in which slim creates them,
end points from the image to the classes, each behind the last variable that it needs.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import tensorflow.compat.v1 as tf

from .graph import build_net
from .net import CLASS_AXIS, Net
from .registry import NETS

_CLASSES = 123457  # no layer of any net has so many channels


def table(net: Net) -> str:
    """The text of the net's table, auxiliary head included, from a graph of its own."""
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, net.image_size, net.image_size, 3])
        built = build_net(net, images, num_classes=_CLASSES, aux=True)
        trainable = {variable.op.name for variable in tf.trainable_variables()}
    lines = [f"# {net.title}, as tf_slim builds it; written by python -m ckpt_tools.nets.list_variables"]
    number = {variable.op.name: i for i, variable in enumerate(built.variables)}
    last = {name: max(number.get(op.name, 0) for op in _upstream(tensor)) for name, tensor in built.end_points.items()}
    waiting = deque(built.end_points)
    for i, variable in enumerate(built.variables):
        name = variable.op.name
        shape = "x".join(CLASS_AXIS if length == _CLASSES else str(length) for length in variable.shape)
        lines.append(f"{'trainable' if name in trainable else 'statistic'} {name} {shape}")
        while waiting and last[waiting[0]] <= i:
            lines.append(f"end_point {waiting.popleft()}")
    return "\n".join(lines) + "\n"


def _upstream(tensor: tf.Tensor) -> set[tf.Operation]:
    """The operation that makes the tensor, and all that it depends on."""
    found, queue = {tensor.op}, [tensor.op]
    while queue:
        before = {each.op for each in queue.pop().inputs} - found
        found |= before
        queue += before
    return found


def main() -> None:
    for net in NETS.values():
        Path(__file__).with_name("variables").joinpath(f"{net.name}.txt").write_text(table(net))


if __name__ == "__main__":
    main()
