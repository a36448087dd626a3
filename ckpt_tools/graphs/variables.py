"""The variables of a graph, with their names in a checkpoint and whether an optimizer trains them.

A resource variable (a handle that is read) becomes a reference variable, which gives its value, so that later steps
need not tell the two apart. In a frozen graph, constants that were variables are recognised by the operations that read
them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..formats.constants import constant_spec
from ..formats.graph_file import GraphFile
from ..formats.nodes import Node, attribute, is_known, shape_value, type_value
from ..formats.proto import fields, message, text
from ..kinds import AVERAGE, kinds
from ..tensors import Spec
from .graph import Graph, Use, node_of
from .initializers import Initializer, initializers
from .operations import NORMALISING, VARIABLES, is_source
from .partitions import whole_of

_QUANTISED = ("qint8", "quint8", "qint16", "quint16", "qint32")  # types that no variable can have
_SHAPES_OF_PLACEHOLDERS = 24  # since this graph version an empty shape of a placeholder means a scalar


class GraphVariable(NamedTuple):
    """A variable that the net needs. `key` is its name in a checkpoint; `frozen` means that its values are constants in
    the graph itself. `initializer` describes its initial values, if the graph does."""

    name: str
    spec: Spec
    key: str
    trainable: bool
    frozen: bool = False
    initializer: Initializer | None = None

    @property
    def own_key(self) -> str:
        """The key without the suffix of a moving average: the name that tells what the variable is."""
        return _own_key(self.name, self.key)


def plain(nodes: Iterable[Node], producer: int) -> list[Node]:
    """The nodes with resource variables turned into reference variables. `producer` is the version of the graph."""
    return [_plain(node, producer) for node in nodes]


def _plain(node: Node, producer: int) -> Node:
    if node.op == "Placeholder" and producer < _SHAPES_OF_PLACEHOLDERS and node.shape() == ():
        return node.with_attribute("shape", None)  # means an unknown shape, not a scalar
    if node.op == "VarHandleOp":
        attributes = (
            attribute("dtype", type_value(node.dtype() or "float32")),
            attribute("shape", shape_value(node.shape())),
        )
        return Node(node.name, "VariableV2", (), attributes)
    if node.op == "ReadVariableOp":
        dtype = attribute("T", type_value(node.dtype() or "float32"))
        return Node(node.name, "Identity", node.inputs, (dtype, *node.entries("_output_shapes")))
    return node


def variables_of(
    file: GraphFile, whole: Graph, graph: Graph, keys: Mapping[str, str], frozen: Mapping[str, str]
) -> list[GraphVariable]:
    """The variables of a graph that was cut out of the `whole` graph of a file, in the order of the file.

    `keys` maps variables to their names in a checkpoint; `frozen` maps constants that were variables to their names.
    """
    trained = {whole_of(whole, name) for name in trainable_names(file)}
    statistics = _statistics(graph)
    place = {node.name: number for number, node in enumerate(file.nodes)}
    found = []
    for name in sorted(graph.nodes, key=lambda name: place.get(name, len(place))):
        node = graph.nodes[name]
        if node.op in VARIABLES:
            shape = node.shape()
            if not is_known(shape):
                continue
            found.append((name, Spec(node.dtype() or "float32", shape), keys.get(name, name), False))
        elif name in frozen and (spec := constant_spec(node)).dtype not in _QUANTISED:
            found.append((name, spec, frozen[name], True))
    kind_of = kinds({_own_key(name, key): spec for name, spec, key, _ in found})
    first = initializers(whole, {name for name, *_ in found})
    return [
        GraphVariable(
            name, spec, key, _trains(name, spec, kind_of[_own_key(name, key)].kind, trained, statistics), is_constant,
            first.get(name),
        )
        for name, spec, key, is_constant in found
    ]  # fmt: skip


def _own_key(name: str, key: str) -> str:
    return key if name.endswith(AVERAGE) else key.removesuffix(AVERAGE)


def without_shape(graph: Graph) -> list[str]:
    """Variables whose shape the file does not fully give."""
    shapes = {name: node.shape() for name, node in graph.nodes.items() if node.op in VARIABLES}
    return [name for name, shape in shapes.items() if shape is None or None in shape]


def _trains(name: str, spec: Spec, kind: str, trained: set[str], statistics: set[str]) -> bool:
    if trained:
        return name in trained
    return kind == "weight" and "float" in spec.dtype and name not in statistics


def trainable_names(file: GraphFile) -> set[str]:
    """The operations of the variables in the collection `trainable_variables`; empty if the file has none."""
    names = set()
    for data in file.collections.get("trainable_variables", ()):
        for field, wire, content in fields(data):
            if field == 1:
                names.add(node_of(text(message(content, wire, "the name of a variable"))))
    return names


def _statistics(graph: Graph) -> set[str]:
    """The nodes that batch norms in inference mode take as mean and variance."""
    found = set()
    for name, node in graph.nodes.items():
        if NORMALISING.search(node.op) and not node.truth("is_training", True):
            found |= graph.upstream(graph.inputs[name][3:5])
        elif node.op == "BatchNormWithGlobalNormalization":
            found |= graph.upstream(graph.inputs[name][1:3])
    return found | _statistics_in_pieces(graph)


def _statistics_in_pieces(graph: Graph) -> set[str]:
    """The same for batch norms written out in basic operations: the variance is the input of a Rsqrt; the mean is
    subtracted before the product with its result, or multiplied by it and then subtracted."""
    found: set[str] = set()
    for name, node in graph.nodes.items():
        variances = _plain_upstream(graph, graph.inputs[name][:1]) if node.op == "Rsqrt" else set()
        if not variances:
            continue
        found |= variances
        scales, products = {name}, []
        for _ in range(2):  # the result itself, then the result times gamma
            products = [use for scale in scales for use in graph.uses.get(scale, ()) if graph.op(use.node) == "Mul"]
            scales |= {use.node for use in products if _plain_upstream(graph, [_other(graph, use)])}
        for use in products:
            other = _other(graph, use)
            if graph.op(other) == "Sub":
                found |= _plain_upstream(graph, graph.inputs[node_of(other)][1:])
            elif any(graph.op(after.node) == "Sub" and after.slot for after in graph.uses.get(use.node, ())):
                found |= _plain_upstream(graph, [other])
    return found


def _other(graph: Graph, use: Use) -> str:
    """The other operand of a product."""
    return graph.inputs[use.node][1 - use.slot]


def _plain_upstream(graph: Graph, tensors: Iterable[str]) -> set[str]:
    """The nodes that tensors depend on if these are computed from variables and constants alone; else empty."""
    found = graph.upstream(tensors)
    return set() if any(is_source(graph.nodes[each]) for each in found) else found
