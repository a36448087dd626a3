"""A net found in a graph, in the form that a run stores: its nodes in inference form, and a record about them.

part = part_of(file, found)            from a graph file and its analysis
part.data, part.record()               the nodes without any variable's values, as bytes; the rest, for JSON
read_part("run/net.pb", record)        the same part, read back from a file with these bytes
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..errors import DamagedError
from ..formats.graph_file import GraphFile, graph_bytes, read_graph
from ..formats.nodes import Node, Shape, attribute, shape_value, type_value
from ..tensors import Spec
from .analysis import Analysis
from .cut import Cut
from .graph import Graph
from .initializers import Initializer
from .safety import functions_called
from .sources import Source
from .variables import GraphVariable


@dataclass(frozen=True)
class GraphPart:
    """The part of a graph file that is imported: `found.net`, whose variables hold no values."""

    file: GraphFile
    found: Analysis

    @cached_property
    def data(self) -> bytes:
        """The nodes and the functions they call as a GraphDef; the same net always gives the same bytes."""
        nodes = self.found.cut.graph.nodes.values()
        return graph_bytes(nodes, functions_called(nodes, self.file.functions), self.file.versions)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that identify what the net computes, independent of the values of its variables."""
        return hashlib.sha256(self.data + json.dumps(self.record()).encode()).hexdigest()[:16]

    def record(self) -> dict[str, object]:
        """Everything that is not in the nodes, for JSON."""
        found, images = self.found, self.found.fed
        return {
            "images": {"tensor": images.tensor, "dtype": images.dtype, "shape": images.shape and list(images.shape)},
            "features": {"tensor": found.features, "width": found.width, "pooled": found.pooled},
            "logits": {"tensor": found.logits, "classes": found.classes} if found.logits else None,
            "end_points": {name: shape and list(shape) for name, shape in found.end_points.items()},
            "variables": [
                [each.name, each.spec.dtype, list(each.spec.shape), each.key, each.trainable, each.initializer]
                for each in found.variables
            ],
        }


def part_of(file: GraphFile, found: Analysis) -> GraphPart:
    """The net of an analysis without conflicts. Constants that freezing made of variables become variables again."""
    thawed = {each.name: _variable(each) for each in found.variables if each.frozen}
    net = found.cut.rewired({}, thawed)
    kept = replace(found, net=net, variables=tuple(each._replace(frozen=False) for each in found.variables))
    return GraphPart(file._replace(nodes=(), collections={}), kept)


def read_part(path: str | os.PathLike[str], record: Mapping[str, Any]) -> GraphPart:
    """The net whose `data` was written to `path` and whose `record()` is `record`. Raises DamagedError if the two do
    not belong together, and whatever `read_graph` raises."""
    file = read_graph(path)
    try:
        images, features, logits = record["images"], record["features"], record["logits"] or {}
        tensor = features["tensor"]
        goals = (tensor, *([logits["tensor"]] if logits else []))
        found = Analysis(
            operations=len(file.nodes),
            images=Source(images["tensor"], images["dtype"], _shape(images["shape"]), True),
            features=tensor,
            width=features["width"],
            pooled=features["pooled"],
            logits=logits.get("tensor", ""),
            classes=logits.get("classes"),
            end_points={name: _shape(shape) for name, shape in record["end_points"].items()},
            variables=tuple(
                GraphVariable(
                    name, Spec(dtype, tuple(shape)), key, trainable, initializer=first and Initializer(*first)
                )
                for name, dtype, shape, key, trainable, first in record["variables"]
            ),
            net=Cut(Graph(file.nodes), goals),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"not the record of a graph ({error})", path=os.fspath(path)) from None
    part = GraphPart(file._replace(nodes=()), found)
    if record.get("digest", part.digest) != part.digest:
        raise DamagedError("is not the graph of the run", path=os.fspath(path))
    return part


def _variable(each: GraphVariable) -> Node:
    attributes = (attribute("dtype", type_value(each.spec.dtype)), attribute("shape", shape_value(each.spec.shape)))
    return Node(each.name, "VariableV2", (), attributes)


def _shape(value: list[int | None] | None) -> Shape:
    return None if value is None else tuple(value)
