"""The graph of a model, for ckpt-inspect: what it takes and gives, what is in it, and what its checkpoint has of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError, NotACheckpointError
from ..formats import open_checkpoint
from ..formats.detect import identify
from ..formats.graph_file import GraphFile, read_graph
from ..formats.storage import is_file
from ..graphs.analysis import analyse
from ..graphs.text import as_json, conflict_text, end_point_rows, facts, variable_rows
from ..report import render
from . import print_json


def show_graph(source: str, json: bool) -> None:
    """Prints what is in the graph of a source. Raises NotACheckpointError where it has none."""
    file = read_graph(graph_of(source))
    checkpoint, saved = checkpoint_of(file)
    found = analyse(file, saved=saved or ())
    if json:
        print_json(as_json(file, found, saved))
        return
    print(facts(file, found, saved, checkpoint))
    for rows in (end_point_rows(found), variable_rows(found, saved)):
        if rows:
            print(f"\n{render(rows, list(rows[0]))}")
    if found.conflicts:
        print(f"\n{conflict_text(found.conflicts)}")


def graph_of(source: str) -> str:
    """The graph file of a source: itself, that of a SavedModel's folder, or the .meta beside a checkpoint."""
    if is_file(f"{source}/saved_model.pb"):
        return source
    if is_file(source) and identify(source).name in ("metagraph", "graphdef", "saved_model_pb"):
        return source
    prefix = open_checkpoint(source).path
    if is_file(f"{prefix}.meta"):
        return f"{prefix}.meta"
    raise NotACheckpointError("has no graph", path=source, advice=f"There is no {Path(prefix).name}.meta beside it.")


def checkpoint_of(file: GraphFile) -> tuple[str, Collection[str] | None]:
    """The checkpoint that goes with a graph, by its name, and the names in it; None where there is none."""
    if file.kind == "graphdef":
        return "", None
    folder = os.path.dirname(file.path) or "."  # noqa: PTH120 - may be a URL
    source = file.path.removesuffix(".meta") if file.kind == "metagraph" else folder
    try:
        opened = open_checkpoint(source)
    except CheckpointError:
        return "", None
    if opened.format == "graphdef" or opened.path == file.path:
        return "", None
    return Path(opened.path).name, opened.tensors
