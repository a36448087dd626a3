"""Reads graph files: MetaGraphs (`.meta`), GraphDefs (`.pb`) and the graphs of SavedModels.

    MetaGraphDef { 1 meta_info_def { 4 tags*, 5 tensorflow_version }, 2 graph_def, 3 saver_def, 4 collection_def map,
                   5 signature_def map }
    GraphDef     { 1 node*, 2 library { 1 function* }, 3 version, 4 versions { 1 producer } }
    FunctionDef  { 1 signature OpDef { 1 name, 2 input_arg*, 3 output_arg* }, 3 node_def*, 4 ret map }
    SavedModel   { 1 schema_version, 2 meta_graphs* }
    SaverDef     { 1 filename_tensor_name, 2 save_tensor_name, 3 restore_op_name }
    SignatureDef { 1 inputs map<string, TensorInfo { 1 name, 2 dtype, 3 tensor_shape }>, 2 outputs map, 3 method_name }

Files are untrusted: sizes and numbers are limited, every length is checked before it is used, and nothing recurses.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..dtypes import BY_NUMBER
from ..errors import CheckpointError, DamagedError, NotACheckpointError
from .detect import CUT_GRAPH, identify
from .nodes import Node, Shape, encode_node, parse_node, partial_shape
from .proto import LEN, Bytes, fields, message, number, put_bytes, text
from .storage import is_file, is_folder, mapped

MAX_BYTES = 1 << 31  # of a protobuf message
MAX_NODES = 300_000  # about ten times the number in the largest published training graphs
KINDS = {"metagraph": "MetaGraph", "graphdef": "GraphDef", "saved_model_pb": "SavedModel"}
TEXT = "pbtxt"  # the kind of a graph in text form
TRAIN = "train"  # tag of a SavedModel's training graph


class Function(NamedTuple):
    """A function of a graph's library: the names of its arguments (`takes`), its nodes, and its results (`gives`), each
    spelled NODE:OUTPUT:NUMBER or as an argument. `data` are its bytes, for writing it again."""

    name: str
    takes: tuple[str, ...]
    nodes: tuple[Node, ...]
    gives: tuple[str, ...]
    data: Bytes


class Signature(NamedTuple):
    """A SavedModel's signature. `inputs` and `outputs` map a name to (tensor, element type, shape)."""

    method: str
    inputs: Mapping[str, tuple[str, str | None, Shape]]
    outputs: Mapping[str, tuple[str, str | None, Shape]]


class GraphFile(NamedTuple):
    """A graph read from a file.

    `kind` is a key of KINDS. `versions` is the serialized VersionDef, which affects the meaning of operations, and
    `producer` its number. `collections` holds the collections of names and of bytes. `saver` names the tensors that a
    Saver feeds and fetches: file name, save, restore.
    """

    path: str
    kind: str
    nodes: tuple[Node, ...]
    functions: Mapping[str, Function]
    versions: bytes
    producer: int
    tensorflow: str = ""
    tags: tuple[str, ...] = ()
    collections: Mapping[str, Sequence[Bytes]] = {}
    signatures: Mapping[str, Signature] = {}
    saver: tuple[str, str, str] = ("", "", "")


def read_graph(path: str | os.PathLike[str]) -> GraphFile:
    """Reads a graph file, or the `saved_model.pb` of a folder, and of its graphs the first not tagged for training.

    Raises NotACheckpointError, which says what the file is instead, and DamagedError.
    """
    path = os.fspath(path)
    if is_folder(path):
        path = os.path.join(path, "saved_model.pb")
    if not is_file(path):
        raise NotACheckpointError("there is no such graph file", path=path)
    kind = identify(path)
    if kind.name == TEXT:
        advice = "Nets are taken from it where TensorFlow is: ckpt-plan --graph, ckpt-finetune --graph."
        raise NotACheckpointError("is a graph in text form, which only TensorFlow reads", path=path, advice=advice)
    if kind.name == CUT_GRAPH:
        raise DamagedError(kind.text, path=path, advice=kind.advice)
    if kind.name not in KINDS:
        raise NotACheckpointError(f"is {kind.text}, not a graph", path=path, advice=kind.advice)
    try:
        view = mapped(path).view()
        if len(view) >= MAX_BYTES:
            raise DamagedError(f"has {len(view):,} bytes, more than a graph can have")
        if kind.name == "graphdef":
            return _graph(GraphFile(path, kind.name, (), {}, b"", 0), view)
        meta_graph = view if kind.name == "metagraph" else _for_inference(view)
        return _meta_graph(GraphFile(path, kind.name, (), {}, b"", 0), meta_graph)
    except CheckpointError as error:
        raise error.at(path=path) from None


def parse_graph(data: Bytes, path: str, kind: str = "metagraph") -> GraphFile:
    """The graph of a MetaGraphDef or GraphDef in memory; errors name `path`. Raises DamagedError."""
    read = _meta_graph if kind == "metagraph" else _graph
    try:
        return read(GraphFile(path, kind, (), {}, b"", 0), memoryview(data))
    except CheckpointError as error:
        raise error.at(path=path) from None


def graph_bytes(nodes: Iterable[Node], functions: Iterable[Function] = (), versions: bytes = b"") -> bytes:
    """A serialized GraphDef. The same nodes give the same bytes."""
    made = b"".join(put_bytes(1, encode_node(node)) for node in nodes)
    library = b"".join(put_bytes(1, _function_bytes(function)) for function in functions)
    made += put_bytes(2, library) if library else b""
    return made + (put_bytes(4, versions) if versions else b"")


def _function_bytes(function: Function) -> bytes:
    """A serialized FunctionDef with its nodes as they were read, without devices."""
    nodes = iter(function.nodes)
    return b"".join(
        put_bytes(field, encode_node(next(nodes)) if field == 3 else bytes(message(content, wire, "a function")))
        for field, wire, content in fields(function.data)
    )


def _for_inference(view: Bytes) -> Bytes:
    """The first graph of a SavedModel that is not tagged for training; the first graph if all are."""
    graphs = [message(graph, wire, "a meta graph") for field, wire, graph in fields(view) if field == 2]
    for graph in graphs:
        if TRAIN not in _meta_info(graph)[1]:
            return graph
    return graphs[0]


def _meta_graph(made: GraphFile, view: Bytes) -> GraphFile:
    collections: dict[str, Sequence[Bytes]] = {}
    signatures: dict[str, Signature] = {}
    version, tags = _meta_info(view)
    for field, wire, content in fields(view):
        if field == 2:
            made = _graph(made, message(content, wire, "the graph"))
        elif field == 3:
            made = made._replace(saver=_saver(message(content, wire, "the saver")))
        elif field == 4:
            key, value = _entry(message(content, wire, "a collection"))
            collections[key] = _collection(value)
        elif field == 5:
            key, value = _entry(message(content, wire, "a signature"))
            signatures[key] = _signature(value)
    return made._replace(tensorflow=version, tags=tags, collections=collections, signatures=signatures)


def _meta_info(view: Bytes) -> tuple[str, tuple[str, ...]]:
    """The TensorFlow release that wrote a MetaGraph, and the MetaGraph's tags."""
    version, tags = "", []
    for field, wire, content in fields(view):
        if field == 1:
            for inner, inner_wire, each in fields(message(content, wire, "the description of the graph")):
                if inner == 4:
                    tags.append(text(message(each, inner_wire, "a tag")))
                elif inner == 5:
                    version = text(message(each, inner_wire, "TensorFlow's version"))
    return version, tuple(tags)


def _graph(made: GraphFile, view: Bytes) -> GraphFile:
    nodes: list[Node] = []
    functions: dict[str, Function] = {}
    versions, producer = b"", 0
    for field, wire, content in fields(view):
        if field == 1:
            nodes.append(parse_node(message(content, wire, "a node")))
            if len(nodes) > MAX_NODES:
                raise DamagedError(f"the graph has more than {MAX_NODES:,} nodes")
        elif field == 2:
            functions |= {each.name: each for each in _functions(message(content, wire, "the function library"))}
        elif field == 3:
            producer = number(content, wire, "the version")
        elif field == 4:
            versions = bytes(message(content, wire, "the versions"))
            producer = next((value for inner, _, value in fields(versions) if inner == 1), producer)
    ((name, times),) = Counter(node.name for node in nodes).most_common(1) or [("", 0)]
    if times > 1:
        raise DamagedError(f"{times} nodes of the graph are called {name}")
    if not all(node.name and node.op for node in nodes):
        raise DamagedError("a node of the graph has no name or no operation")
    if not isinstance(producer, int):
        raise DamagedError("the version of the graph has the wrong wire type")
    return made._replace(nodes=tuple(nodes), functions=functions, versions=versions, producer=producer)


def _functions(library: Bytes) -> Iterator[Function]:
    for field, wire, content in fields(library):
        if field == 1:
            yield _function(message(content, wire, "a function"))


def _function(data: Bytes) -> Function:
    nodes: list[Node] = []
    returned: dict[str, str] = {}
    name = ""
    arguments: dict[int, list[str]] = {2: [], 3: []}
    for field, wire, content in fields(data):
        if field == 1:
            for inner, inner_wire, each in fields(message(content, wire, "the signature of a function")):
                if inner == 1:
                    name = text(message(each, inner_wire, "the name of a function"))
                elif inner in arguments:
                    argument = fields(message(each, inner_wire, "an argument"))
                    names = (message(value, kind, "its name") for key, kind, value in argument if key == 1)
                    arguments[inner].append(text(next(names, b"")))
        elif field == 3:
            nodes.append(parse_node(message(content, wire, "a node")))
        elif field == 4:
            key, value = _entry(message(content, wire, "what a function returns"))
            returned[key] = text(value)
    gives = tuple(returned.get(each, "") for each in arguments[3])
    return Function(name, tuple(arguments[2]), tuple(nodes), gives, data)


def _collection(data: Bytes) -> list[Bytes]:
    """CollectionDef { 1 node_list { 1 value* }, 2 bytes_list { 1 value* } }; collections of numbers give []."""
    found: list[Bytes] = []
    for field, wire, content in fields(data):
        if field in (1, 2):
            listed = fields(message(content, wire, "a list"))
            found += [message(each, kind, "a name") for inner, kind, each in listed if inner == 1]
    return found


def _saver(data: Bytes) -> tuple[str, str, str]:
    names = {1: "", 2: "", 3: ""}
    for field, wire, content in fields(data):
        if field in names:
            names[field] = text(message(content, wire, "a name"))
    return names[1], names[2], names[3]


def _signature(data: Bytes) -> Signature:
    method = ""
    tensors: dict[int, dict[str, tuple[str, str | None, Shape]]] = {1: {}, 2: {}}
    for field, wire, content in fields(data):
        if field in tensors:
            key, value = _entry(message(content, wire, "an input or output"))
            tensors[field][key] = _tensor_info(value)
        elif field == 3:
            method = text(message(content, wire, "a method"))
    return Signature(method, tensors[1], tensors[2])


def _tensor_info(data: Bytes) -> tuple[str, str | None, Shape]:
    name, dtype, shape = "", None, None
    for field, wire, content in fields(data):
        if field == 1:
            name = text(message(content, wire, "the name of a tensor"))
        elif field == 2:
            found = BY_NUMBER.get(number(content, wire, "an element type"))
            dtype = found.name if found else None
        elif field == 3:
            shape = partial_shape(message(content, wire, "a shape"))
    return name, dtype, shape


def _entry(data: Bytes) -> tuple[str, Bytes]:
    """Key and value of a map entry."""
    parts = {field: content for field, wire, content in fields(data) if wire == LEN}
    return text(parts.get(1, b"")), parts.get(2, b"")
