"""Frozen graphs, made from protocol buffers and by TensorFlow."""

import numpy as np
import pytest

from ckpt_tools import open_checkpoint
from ckpt_tools.dtypes import BY_NAME
from ckpt_tools.errors import CheckpointError, DamagedError, NotACheckpointError
from ckpt_tools.formats import graphdef
from ckpt_tools.formats.proto import put_bytes, put_number
from ckpt_tools.formats.slices import encode_shape


def tensor_proto(array, *, content=None, typed=b""):
    shape = put_bytes(2, encode_shape(array.shape))
    content = array.tobytes() if content is None else content
    return put_number(1, BY_NAME[array.dtype.name].number) + shape + (put_bytes(4, content) if content else b"") + typed


def node(name, op, *inputs, value=None):
    made = put_bytes(1, name.encode()) + put_bytes(2, op.encode())
    made += b"".join(put_bytes(3, word.encode()) for word in inputs)
    if value is not None:
        proto = value if isinstance(value, bytes) else tensor_proto(np.asarray(value))
        made += put_bytes(5, put_bytes(1, b"value") + put_bytes(2, put_bytes(8, proto)))
    return put_bytes(1, made)


def saved(tmp_path, *nodes):
    (tmp_path / "graph.pb").write_bytes(b"".join(nodes))
    return tmp_path / "graph.pb"


KERNEL = np.arange(12, dtype="float32").reshape(1, 1, 3, 4)
VECTOR = np.arange(4, dtype="float32")


def frozen_by_tensorflow_1():
    return [
        node("x", "Placeholder"),
        node("Net/Conv/weights", "Const", value=KERNEL),
        node("Net/Conv/weights/read", "Identity", "Net/Conv/weights"),
        node("Net/Conv/Conv2D", "Conv2D", "x", "Net/Conv/weights/read"),
        node("Net/Conv/biases", "Const", value=VECTOR),
        node("Net/Conv/biases/read", "Identity", "Net/Conv/biases"),
        node("Net/Conv/BiasAdd", "BiasAdd", "Net/Conv/Conv2D", "Net/Conv/biases/read"),
        node("Net/shape", "Const", value=np.array([-1, 4], "int32")),
        node("Net/Reshape", "Reshape", "Net/Conv/BiasAdd:0", "Net/shape"),
    ]


def test_variables_come_back_with_their_names(tmp_path):
    opened = graphdef.read(saved(tmp_path, *frozen_by_tensorflow_1()))
    assert opened.format == "graphdef"
    assert list(opened.tensors) == ["Net/Conv/weights", "Net/Conv/biases"]
    assert np.array_equal(opened.tensors["Net/Conv/weights"].load(), KERNEL)
    assert opened.note == "Constants that are not variables are left out (1)."


def test_constants_that_are_used_as_variables_are_found_without_read(tmp_path):
    opened = graphdef.read(
        saved(
            tmp_path,
            node("conv/conv2d_params", "Const", value=KERNEL),
            node("conv/Conv2D", "Conv2D", "x", "conv/conv2d_params"),
            *(node(f"bn/{name}", "Const", value=VECTOR) for name in ("mean", "variance", "beta", "gamma")),
            node("bn", "BatchNormWithGlobalNormalization", "conv/Conv2D", *map("bn/{}".format, _OLD_ORDER)),
            node("scale", "Const", value=np.array(2, "float32")),
            node("mul", "Mul", "bn", "scale"),
        )
    )
    assert list(opened.tensors) == ["conv/conv2d_params", "bn/mean", "bn/variance", "bn/beta", "bn/gamma"]
    assert "folded" not in opened.note


_OLD_ORDER = ("mean", "variance", "beta", "gamma")


def test_names_of_tensorflow_2_come_from_the_use(tmp_path):
    def read_variable(place, value):
        yield node(f"{place}/ReadVariableOp/resource", "Const", value=value)
        yield node(f"{place}/ReadVariableOp", "Identity", f"{place}/ReadVariableOp/resource")

    opened = graphdef.read(
        saved(
            tmp_path,
            *read_variable("model/c1/Conv2D", KERNEL),
            node("model/c1/Conv2D", "Conv2D", "x", "model/c1/Conv2D/ReadVariableOp"),
            *read_variable("model/c1/BiasAdd", VECTOR),
            node("model/c1/BiasAdd", "BiasAdd", "model/c1/Conv2D", "model/c1/BiasAdd/ReadVariableOp"),
            *read_variable("model/bn/batchnorm", VECTOR),
            node("model/bn/batchnorm/add", "AddV2", "model/bn/batchnorm/ReadVariableOp", "eps"),
        )
    )
    assert list(opened.tensors) == ["model/c1/kernel", "model/c1/bias", "model/bn/moving_variance"]


def test_folded_batch_norm_is_said(tmp_path):
    opened = graphdef.read(
        saved(
            tmp_path,
            node("Net/Conv/Conv2D_weights", "Const", value=KERNEL),
            node("Net/Conv/Conv2D", "Conv2D", "x", "Net/Conv/Conv2D_weights"),
            node("Net/Conv/Conv2D_bn_offset", "Const", value=VECTOR),
            node("Net/Conv/BatchNorm/FusedBatchNorm", "BiasAdd", "Net/Conv/Conv2D", "Net/Conv/Conv2D_bn_offset"),
        )
    )
    assert opened.note == (
        "Batch norm is folded into the weights of 1 layer (such as Net/Conv/BatchNorm/FusedBatchNorm): "
        "its scales and moving statistics are not in the file."
    )


@pytest.mark.parametrize(
    ("proto", "wanted"),
    [
        (
            tensor_proto(np.zeros((2, 2), "float32"), content=b"", typed=put_bytes(5, np.float32(3).tobytes())),
            [3, 3, 3, 3],
        ),
        (tensor_proto(np.zeros((2, 2), "float32"), content=b""), [0, 0, 0, 0]),
        (
            tensor_proto(np.zeros(4, "float32"), content=b"", typed=put_bytes(5, np.float32([1, 2]).tobytes())),
            [1, 2, 2, 2],
        ),
        (tensor_proto(np.zeros(4, "int32"), content=b"", typed=put_bytes(7, b"\x01\x80\x01")), [1, 128, 128, 128]),
    ],
)
def test_values_that_repeat_are_stored_once(tmp_path, proto, wanted):
    path = saved(tmp_path, node("w", "Const", value=proto), node("w/read", "Identity", "w"))
    assert graphdef.read(path).tensors["w"].load().ravel().tolist() == wanted


def test_a_wrong_number_of_bytes_is_damage(tmp_path):
    proto = tensor_proto(VECTOR, content=bytes(12))
    path = saved(tmp_path, node("w", "Const", value=proto), node("w/read", "Identity", "w"))
    with pytest.raises(DamagedError, match=r"tensor w: float32\[4\] takes 16 bytes, but 12 are stored"):
        graphdef.read(path).tensors["w"].load()


def test_a_graph_without_values_says_where_they_are(tmp_path):
    path = saved(tmp_path, node("w", "VariableV2"), node("w/read", "Identity", "w"))
    with pytest.raises(
        NotACheckpointError, match="2 nodes whose 1 variables are not in it. Their values are in a chec"
    ):
        graphdef.read(path)
    with pytest.raises(NotACheckpointError, match="1 nodes and 1 constants, none of them a variable"):
        graphdef.read(saved(tmp_path, node("axis", "Const", value=np.array(0, "int32"))))


def test_a_saved_model_with_its_variables_frozen_in(tmp_path):
    graph = put_bytes(2, b"".join(frozen_by_tensorflow_1()))
    (tmp_path / "saved_model.pb").write_bytes(put_number(1, 1) + put_bytes(2, graph))
    opened = graphdef.read(tmp_path / "saved_model.pb")
    assert (opened.format, list(opened.tensors)) == ("saved_model", ["Net/Conv/weights", "Net/Conv/biases"])
    assert list(open_checkpoint(tmp_path).tensors) == list(opened.tensors)
    (tmp_path / "saved_model.pb").write_bytes(put_number(1, 1) + put_bytes(2, put_bytes(2, node("w", "VarHandleOp"))))
    with pytest.raises(NotACheckpointError, match="SavedModel without variables: none are frozen into it"):
        open_checkpoint(tmp_path)


def test_damage_is_a_checkpoint_error_or_harmless(tmp_path):
    whole = b"".join(frozen_by_tensorflow_1())
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(2000):
        broken = bytearray(whole)
        if trial % 4:
            broken[random.integers(len(whole))] ^= 1 << random.integers(8)
        else:
            broken = broken[: random.integers(1, len(whole))]
        (tmp_path / "b.pb").write_bytes(broken)
        try:
            opened = graphdef.read(tmp_path / "b.pb")
            for name in opened.tensors:
                opened.tensors[name].load()
        except CheckpointError:
            refused += 1
    assert 400 < refused < 2000


def test_what_tensorflow_freezes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    tf1 = tf.compat.v1
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3])
        with tf1.variable_scope("Net/Conv", use_resource=False):
            y = tf.nn.conv2d(x, tf1.get_variable("weights", [3, 3, 3, 4]), 1, "SAME")
            with tf1.variable_scope("BatchNorm"):
                make = {"gamma": tf.ones(4) * 2, "beta": tf.zeros(4), "mean": tf.zeros(4), "var": tf.range(4.0) + 1}
                parts = [tf1.get_variable(name, initializer=value) for name, value in make.items()]
                y, _, _ = tf1.nn.fused_batch_norm(y, *parts, is_training=False)
            tf.identity(y, "out")
        session.run(tf1.global_variables_initializer())
        wanted = {v.op.name: session.run(v) for v in tf1.global_variables()}
        frozen = tf1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["Net/Conv/out"])
    (tmp_path / "f.pb").write_bytes(frozen.SerializeToString())
    opened = graphdef.read(tmp_path / "f.pb")
    assert set(opened.tensors) == set(wanted)
    assert all(np.array_equal(opened.tensors[name].load(), value) for name, value in wanted.items())
