"""The graph of a model, for ckpt-inspect: what it takes and gives, what is in it, and what its checkpoint has of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError, NotACheckpointError
from ..formats import open_checkpoint
from ..formats.detect import identify
from ..formats.graph_file import GraphFile, read_graph
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
    if (Path(source) / "saved_model.pb").is_file():
        return source
    if Path(source).is_file() and identify(source).name in ("metagraph", "graphdef", "saved_model_pb"):
        return source
    prefix = open_checkpoint(source).path
    if Path(f"{prefix}.meta").is_file():
        return f"{prefix}.meta"
    raise NotACheckpointError("has no graph", path=source, advice=f"There is no {Path(prefix).name}.meta beside it.")


def checkpoint_of(file: GraphFile) -> tuple[str, Collection[str] | None]:
    """The checkpoint that goes with a graph, by its name, and the names in it; None where there is none."""
    if file.kind == "graphdef":
        return "", None
    source = file.path.removesuffix(".meta") if file.kind == "metagraph" else str(Path(file.path).parent)
    try:
        opened = open_checkpoint(source)
    except CheckpointError:
        return "", None
    if opened.format == "graphdef" or opened.path == file.path:
        return "", None
    return Path(opened.path).name, opened.tensors
