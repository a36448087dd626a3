"""Classifies TensorFlow's operations by name, for finding a net in a graph.

`operations.txt` lists every operation of a current TensorFlow with its least number of inputs, what it touches besides
its tensors, and its outputs; `python -m ckpt_tools.nets.list_operations` writes it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from ..formats.nodes import Node

VARIABLES = {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp"}
PLACEHOLDERS = {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"}
READS = {"ReadVariableOp", "Identity"}
ASSIGNS = {
    *("Assign", "AssignAdd", "AssignSub"),
    *("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"),
}
ACTIVATIONS = {
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "Sigmoid", "Tanh", "PRelu", "Maximum"),
}
POOLING = {"MaxPool", "MaxPoolV2", "AvgPool", "Mean"}
JOINING = {"Concat", "ConcatV2", "Add", "AddV2", "AddN"}
NORMALISING = re.compile(r"FusedBatchNorm(V\d)?$")
PIPELINE = re.compile(
    r"QueueDequeue|IteratorGetNext|^OneShotIterator|^Decode|^ParseExample|^ParseSingle|Reader|^ReadFile$|PyFunc|^RecordInput"
    r"|^MatchingFiles$|^(Map)?Unstage|^Lookup"
)
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
SAME_VALUES = {"Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "Print", "Cast"}
_GRADIENT = re.compile(r"(^|/)gradients?(_\d+|_tape)?/")


def is_forward(node: Node) -> bool:
    """Whether a node is not part of the gradient computation."""
    return not node.op.endswith("Grad") and _GRADIENT.search(node.name) is None


def is_source(node: Node) -> bool:
    """Whether a node brings data in: fed, read, decoded or random."""
    return (
        node.op in PLACEHOLDERS
        or PIPELINE.search(node.op) is not None
        or is_random(node.op)
        or (
            (not node.inputs or node.inputs[0][:1] == "^")
            and node.op not in VARIABLES
            and node.op not in ("Const", "NoOp")
        )
    )


def is_random(op: str) -> bool:
    """Whether an operation draws random numbers."""
    known = known_operations().get(op)
    return known is not None and known.touches == "random"


class KnownOperation(NamedTuple):
    """An operation as a current TensorFlow defines it.

    `inputs` is the least number of inputs. `touches` is "" for a pure function of the inputs, "random", "state" if its
    state is private to a run, or what it touches outside: "files", "network", "python", "devices", "data", "variables",
    "the session", "the process". `outputs` names the outputs if there are several, each a single tensor.
    """

    inputs: int
    touches: str
    outputs: tuple[str, ...]


@functools.cache
def known_operations() -> dict[str, KnownOperation]:
    """Every operation of a current TensorFlow, by name."""
    found = {}
    for line in Path(__file__).with_name("operations.txt").read_text(encoding="utf-8").splitlines():
        if line[:1] != "#":
            words, _, outputs = line.partition(":")
            name, _, rest = words.partition(" ")
            inputs, _, touches = rest.partition(" ")
            found[name] = KnownOperation(int(inputs), touches, tuple(outputs.split()))
    return found
