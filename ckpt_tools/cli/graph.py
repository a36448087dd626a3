"""The graph of a model, for ckpt-inspect: what it takes and gives, what is in it, and what its checkpoint has of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import NotACheckpointError
from ..formats import open_checkpoint
from ..formats.graph_file import GraphFile, read_graph
from ..graphs.analysis import analyse
from ..graphs.files import checkpoint_of, graph_of
from ..graphs.text import as_json, conflict_text, end_point_rows, facts, variable_rows
from ..report import render
from . import print_json


def show_graph(source: str, json: bool) -> None:
    """Prints what is in the graph of a source. Raises NotACheckpointError where it has none."""
    graph = graph_of(source) or graph_of(open_checkpoint(source).path)  # a folder's latest checkpoint has one, too
    if not graph:
        path = open_checkpoint(source).path
        raise NotACheckpointError("has no graph", path=source, advice=f"There is no {Path(path).name}.meta beside it.")
    file = read_graph(graph)
    beside = checkpoint_of(graph)
    checkpoint, saved = names_beside(file, beside)
    found = analyse(file, saved=saved or (), source=beside if saved else "")
    if json:
        print_json(as_json(file, found, saved))
        return
    print(facts(file, found, saved, checkpoint))
    for rows in (end_point_rows(found), variable_rows(found, saved)):
        if rows:
            print(f"\n{render(rows, list(rows[0]))}")
    if found.conflicts:
        print(f"\n{conflict_text(found.conflicts)}")


def names_beside(file: GraphFile, source: str) -> tuple[str, Collection[str] | None]:
    """The checkpoint that goes with a graph, by its name, and the names in it; None where the graph has its values
    itself, or nobody has them."""
    opened = open_checkpoint(source) if source not in ("", file.path) else None
    if opened is None or opened.path == file.path:
        return "", None
    return Path(opened.path).name, opened.tensors
