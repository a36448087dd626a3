"""Graph files of any release, compared with TensorFlow's own protobufs; damaged and hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckpt_tools.errors import CheckpointError, DamagedError, NotACheckpointError
from ckpt_tools.formats.constants import constant, constant_value
from ckpt_tools.formats.graph_file import graph_bytes, read_graph
from ckpt_tools.formats.nodes import (
    Node,
    attribute,
    encode_node,
    parse_node,
    shape_value,
    truth_value,
    type_value,
)
from ckpt_tools.formats.proto import put_bytes, put_number, put_varint, raw

METAS = {
    "tf012_v1/model.ckpt-1234.meta": ("0.12.1", 17, 95),
    "tf115_v2_sharded/model.ckpt.meta": ("1.15.5", 134, 45),
}


@pytest.mark.parametrize("name", METAS)
def test_what_is_said_of_a_graph(GOLDEN: Path, name: str) -> None:
    graph = read_graph(GOLDEN / name)
    assert (graph.tensorflow, graph.producer, len(graph.nodes)) == METAS[name]
    assert graph.kind == "metagraph"
    assert set(graph.collections) == {"variables", "trainable_variables"}
    assert graph.saver[0] == "save/Const:0"


@pytest.mark.parametrize("name", [*METAS, "tf221_saved_model/saved_model.pb"])
def test_nodes_are_what_protobuf_reads(GOLDEN: Path, name: str) -> None:
    pytest.importorskip("tensorflow")
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    data = (GOLDEN / name).read_bytes()
    if name.endswith(".meta"):
        wanted = meta_graph_pb2.MetaGraphDef.FromString(data).graph_def
    else:
        wanted = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
    graph = read_graph(GOLDEN / name)
    compared = 0
    for ours, theirs in zip(graph.nodes, wanted.node, strict=True):
        assert (ours.name, ours.op, list(ours.inputs)) == (theirs.name, theirs.op, list(theirs.input))
        for key, value in theirs.attr.items():
            compared += _same_attribute(ours, key, value)
    assert compared > len(graph.nodes) // 2
    made = type(wanted).FromString(graph_bytes(graph.nodes, graph.functions.values(), graph.versions))
    for node in wanted.node:
        node.device = ""  # devices are left out
    assert list(made.node) == list(wanted.node)
    for function in wanted.library.function:
        for node in function.node_def:
            node.device = ""
    assert list(made.library.function) == list(wanted.library.function)
    assert made.versions == wanted.versions


def _same_attribute(node: Node, key: str, value: object) -> bool:
    """Whether an attribute was of a kind that is read, having checked that it is read right."""
    from tensorflow import as_dtype

    kind = value.WhichOneof("value")
    if kind == "b":
        assert node.truth(key) == value.b
    elif kind == "i":
        assert node.number(key) == value.i
    elif kind == "s":
        assert raw(node.words(key)) == value.s
    elif kind == "type" and value.type < 100:
        assert node.dtype(key) == as_dtype(value.type).name
    elif kind == "shape":
        assert node.shape(key) == _shape(value.shape)
    elif key == "_output_shapes":
        assert node.output_shapes() == [_shape(each) for each in value.list.shape]
    elif kind == "list" and value.list.i:
        assert list(node.numbers(key)) == list(value.list.i)
    elif kind == "tensor":
        from tensorflow import make_ndarray

        found, wanted = constant_value(node), make_ndarray(value.tensor)
        assert found.shape == wanted.shape and found.tolist() == wanted.tolist()
    else:
        return False
    return True


def _shape(proto: object) -> tuple | None:
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in proto.dim)


def test_attributes_are_written_as_they_are_read() -> None:
    node = Node("n", "Op", ("a", "b:1", "^c"))
    node = node.with_attribute("T", type_value("float32")).with_attribute("flag", truth_value(False))
    node = node.with_attribute("shape", shape_value((None, 3))).with_attribute("rest", shape_value(None))
    read = parse_node(encode_node(node))
    assert read == node
    assert (read.dtype("T"), read.truth("flag", True), read.shape("shape")) == ("float32", False, (None, 3))
    assert read.attribute("rest") is not None and read.shape("rest") is None
    assert read.with_attribute("T", None).dtype("T") is None
    assert read.data_inputs == ("a", "b:1")
    values = np.arange(6, dtype="int32").reshape(2, 3)
    assert constant_value(parse_node(encode_node(constant("c", values)))).tolist() == values.tolist()


def test_an_attribute_whose_value_comes_before_its_name_is_read() -> None:
    node = Node("n", "Op", (), (put_bytes(2, truth_value(True)) + put_bytes(1, b"flag"),))
    assert node.truth("flag")


def node(name: str, op: str = "Const", *inputs: str) -> bytes:
    return put_bytes(1, encode_node(Node(name, op, inputs, (attribute("dtype", type_value("float32")),))))


def test_of_a_saved_model_the_graph_that_does_not_train(tmp_path: Path) -> None:
    train = put_bytes(1, put_bytes(4, b"serve") + put_bytes(4, b"train")) + put_bytes(2, node("training"))
    serve = put_bytes(1, put_bytes(4, b"serve")) + put_bytes(2, node("serving"))
    (tmp_path / "saved_model.pb").write_bytes(put_number(1, 1) + put_bytes(2, train) + put_bytes(2, serve))
    graph = read_graph(tmp_path)
    assert (graph.nodes[0].name, graph.tags) == ("serving", ("serve",))
    (tmp_path / "saved_model.pb").write_bytes(put_number(1, 1) + put_bytes(2, train))
    assert read_graph(tmp_path).nodes[0].name == "training"


def test_signatures_and_functions_of_a_saved_model(GOLDEN: Path) -> None:
    graph = read_graph(GOLDEN / "tf221_saved_model")
    assert graph.tags == ("serve",)
    assert "serving_default" in graph.signatures
    assert all(function.nodes and function.gives for function in graph.functions.values())


@pytest.mark.parametrize(
    ("contents", "error", "message"),
    [
        (node("a") + node("a"), DamagedError, "2 nodes of the graph are called a"),
        (node("a") + put_bytes(1, b"\x0a\x01b"), NotACheckpointError, "a protobuf, but no graph"),
        (b"nothing of this kind", NotACheckpointError, "is a text file, not a graph"),
    ],
)
def test_what_is_no_graph(tmp_path: Path, contents: bytes, error: type, message: str) -> None:
    (tmp_path / "g.pb").write_bytes(contents)
    with pytest.raises(error, match=message):
        read_graph(tmp_path / "g.pb")
    with pytest.raises(NotACheckpointError, match="there is no such graph file"):
        read_graph(tmp_path / "none.pb")


@pytest.mark.parametrize(
    ("entry", "read", "message"),
    [
        (attribute("shape", b"\x38\x07"), lambda n: n.shape(), "the attribute shape of n has the wrong wire type 0"),
        (
            attribute("flag", b"\x2a\x00"),
            lambda n: n.truth("flag"),
            "the attribute flag of n has the wrong wire type 2",
        ),
        (attribute("shape", put_bytes(7, b"\x12\x0b" + b"\x08" + put_varint(-5))), lambda n: n.shape(), "a side of -5"),
        (attribute("shape", put_bytes(7, b"\x12\x00" * 300)), lambda n: n.shape(), "has 300 dimensions"),
    ],
)
def test_attributes_that_are_wrong(entry: bytes, read: object, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        read(Node("n", "Op", (), (entry,)))


def test_damage_is_a_checkpoint_error_or_harmless(GOLDEN: Path, tmp_path: Path) -> None:
    """Whatever the bytes are, reading and looking for a net raises nothing else, and comes to an end."""
    from ckpt_tools.graphs.analysis import analyse

    whole = (GOLDEN / "tf012_v1/model.ckpt-1234.meta").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(1500):
        broken = bytearray(whole)
        if trial % 4:
            for _ in range(1 + trial % 3):
                broken[random.integers(len(whole))] = random.integers(256)
        else:
            broken = broken[: random.integers(1, len(whole))]
        (tmp_path / "b.meta").write_bytes(broken)
        try:
            analyse(read_graph(tmp_path / "b.meta"))
        except CheckpointError:
            refused += 1
    assert 300 < refused < 1500
