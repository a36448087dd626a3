"""The object graph of a TensorFlow 2 checkpoint follows its tensors: keys that changed, and keys that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..formats.object_graph import GRAPH_KEY, rekeyed
from ..tensors import Tensors
from .operation import Edit, EditRow, replaced, with_values

if TYPE_CHECKING:
    import numpy as np


def follow(tensors: Tensors, rows: Sequence[EditRow]) -> Edit | None:
    """Rewrites the graph, where `tensors` holds one (`names="stored"`), by the rows of all operations before.

    `tf.train.Checkpoint.restore` looks for every key that the graph names, and fails where one is not there.
    None where there is no graph, or nothing in it to change.
    """
    if GRAPH_KEY not in set(tensors):
        return None
    moved = {row.source: row.name if row.after is not None else None for row in rows if row.source}
    moved = {old: new for old, new in moved.items() if old != new and old != GRAPH_KEY}
    if not moved:
        return None

    def change(graph: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.array(rekeyed(graph.item(), moved), object)

    graph = tensors[GRAPH_KEY]
    gone = sum(new is None for new in moved.values())
    row = EditRow(
        GRAPH_KEY, "rewrite", GRAPH_KEY, graph.spec, graph.spec, f"keys: {len(moved) - gone} renamed, {gone} gone"
    )
    return Edit(replaced(tensors, {GRAPH_KEY: with_values(graph, graph.spec, change)}), (row,))
