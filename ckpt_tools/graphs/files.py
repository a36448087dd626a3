"""Finds the graph of a source, and the checkpoint of a graph.

The graph may be a file of its own, the folder of a SavedModel, or beside a checkpoint. Sources may be URLs.
"""

from __future__ import annotations

import os

from ..errors import CheckpointError
from ..formats import open_checkpoint
from ..formats.detect import CUT_GRAPH, identify
from ..formats.graph_file import KINDS, TEXT
from ..formats.storage import is_file


def graph_of(source: str) -> str:
    """The graph of a source: the source itself if it is a graph file or a SavedModel folder, else the `.meta` beside
    the checkpoint or the SavedModel that the variables belong to; "" if there is none."""
    if _kind(source) in (*KINDS, TEXT, CUT_GRAPH) or is_file(f"{source}/saved_model.pb"):
        return source
    prefix = source.removesuffix(".index")
    if is_file(f"{prefix}.meta"):
        return f"{prefix}.meta"
    folder = prefix.removesuffix("/variables/variables")
    return folder if folder != prefix and is_file(f"{folder}/saved_model.pb") else ""


def checkpoint_of(graph: str) -> str:
    """The checkpoint of a graph: the one beside a `.meta`, the one in the graph's folder, or a frozen graph itself; ""
    if there is none."""
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
    """The format of a file; "" if it is not a file."""
    return identify(path).name if is_file(path) else ""
