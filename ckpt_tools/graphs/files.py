"""Where a graph lies: in a file of its own, the folder of a SavedModel, or beside a checkpoint; and which checkpoint
goes with it. Sources may be URLs.
"""

from __future__ import annotations

import os

from ..errors import CheckpointError
from ..formats import open_checkpoint
from ..formats.detect import CUT_GRAPH, identify
from ..formats.graph_file import KINDS, TEXT
from ..formats.storage import is_file


def graph_of(source: str) -> str:
    """The graph of a source: itself, where it is a graph file or the folder of a SavedModel, or the `.meta` beside a
    checkpoint, or the SavedModel whose variables it is; "" where there is none."""
    if _kind(source) in (*KINDS, TEXT, CUT_GRAPH) or is_file(f"{source}/saved_model.pb"):
        return source
    prefix = source.removesuffix(".index")
    if is_file(f"{prefix}.meta"):
        return f"{prefix}.meta"
    folder = prefix.removesuffix("/variables/variables")
    return folder if folder != prefix and is_file(f"{folder}/saved_model.pb") else ""


def checkpoint_of(graph: str) -> str:
    """The checkpoint that goes with a graph: the one beside a `.meta`, that of a folder, a frozen graph itself; ""
    where there is none."""
    kind, source = _kind(graph), graph.removesuffix(".meta")
    if kind == "graphdef":
        return graph
    if kind in ("saved_model_pb", TEXT):
        source = os.path.dirname(graph) or "."  # noqa: PTH120 - may be a URL
    try:
        open_checkpoint(source)
    except CheckpointError:
        return ""
    return source


def is_text(path: str) -> bool:
    """Whether a file is a graph in text form, which only TensorFlow reads."""
    return _kind(path) == TEXT


def _kind(path: str) -> str:
    """What a file is; "" for what is none."""
    return identify(path).name if is_file(path) else ""
