"""Checkpoint surgery: operations that map Tensors to Tensors, and `operate`, which chains them.

>>> from ckpt_tools.tensors import from_arrays
>>> source = from_arrays({"net/fc/weights": [[1.0, 2.0]], "net/fc/weights/Adam": [[0.0, 0.0]]})
>>> surgery = operate(source, [Strip(("optimizer",)), Rename((("net", "model"),))])
>>> list(surgery.tensors)
['model/fc/weights']
>>> [(row.name, row.action) for row in surgery.rows]
[('model/fc/weights', 'rename'), ('net/fc/weights/Adam', 'strip')]
"""

from __future__ import annotations

from .casting import Cast
from .chain import Surgery, operate
from .combining import Average, Graft
from .folding import Fold
from .head import Background, HeadResize, InputChannels
from .operation import Edit, EditRow, Loss, Operation, row_sentence
from .renaming import Drop, EmaToWeights, Keep, Rename, Strip
from .shaping import Fill, Pad, Reshape, SliceOf, Transpose

# The name of each operation in recipes -> its class.
OPERATIONS: dict[str, type[Operation]] = {
    each.command: each
    for each in (
        Rename,
        Keep,
        Drop,
        Strip,
        EmaToWeights,
        Cast,
        Reshape,
        Transpose,
        SliceOf,
        Pad,
        Fill,
        Average,
        Graft,
        HeadResize,
        Background,
        InputChannels,
        Fold,
    )
}

__all__ = [
    "OPERATIONS",
    "Average",
    "Background",
    "Cast",
    "Drop",
    "Edit",
    "EmaToWeights",
    "Fill",
    "Fold",
    "Graft",
    "HeadResize",
    "InputChannels",
    "Keep",
    "Loss",
    "Operation",
    "Pad",
    "Rename",
    "Reshape",
    "EditRow",
    "SliceOf",
    "Strip",
    "Surgery",
    "Transpose",
    "operate",
    "row_sentence",
]
