"""TensorFlow reads the files written here: V1 and V2, every type that it supports, and edited checkpoints."""

import ml_dtypes
import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.edit import main
from ckpt_tools.dtypes import BY_NAME, numpy_dtype
from ckpt_tools.formats.typed_values import WRITABLE
from ckpt_tools.tensors import Tensors, from_array

tf = pytest.importorskip("tensorflow")

# What TensorFlow's own V1 writer writes and its CheckpointReader then refuses: "Data type not supported".
REFUSED_IN_V1 = {"float16", "complex64", "complex128", "uint16", "qint8", "quint8", "qint32"}


def some(dtype: str):
    """Twelve values of the type; small whole numbers are in every type's range."""
    if dtype == "string":
        return from_array(np.array([[b"", b"a\0b"], [b"\xff", b"longer " * 50]], object))
    values = np.arange(12).reshape(3, 4) % (2 if dtype in ("bool", "int2") else 4)
    return from_array(values.astype("float32").astype(numpy_dtype(dtype)), dtype)


def every(types) -> Tensors:
    made = {f"scope/{dtype}": some(dtype) for dtype in sorted(types)}
    odd = {"scalar": np.float32(3), "empty": np.zeros((0, 3), "float32"), "deep": np.ones((1,) * 6, "float32")}
    return Tensors({**made, **from_arrays(odd)})


def as_plain(array: np.ndarray) -> np.ndarray:
    """TensorFlow gives quantised values as structured arrays of one field."""
    return array.view(array.dtype[0]) if array.dtype.names else array


def known(dtype: str) -> bool:
    """Whether this TensorFlow has the type: float4 came after 2.18."""
    try:
        return tf.as_dtype(dtype) is not None
    except TypeError:
        return False


@pytest.mark.parametrize(
    ("format", "types"),
    [("v2", BY_NAME.keys() - {"variant"}), ("v1", WRITABLE - REFUSED_IN_V1)],
    ids=["v2", "v1"],
)
def test_every_type(format, types, tmp_path):
    source = every(filter(known, types))
    path = str(tmp_path / "model.ckpt")
    save_checkpoint(source, path, format=format, **({"shards": 3} if format == "v2" else {}))
    reader = tf.train.load_checkpoint(path)
    assert reader.get_variable_to_shape_map() == {name: list(spec.shape) for name, spec in source.specs().items()}
    told = {name: dtype.name for name, dtype in reader.get_variable_to_dtype_map().items()}
    assert told == {name: spec.dtype for name, spec in source.specs().items()}
    for name, tensor in source.items():
        found, wanted = reader.get_tensor(name), tensor.load()
        if tensor.spec.dtype == "string":
            assert found.tolist() == wanted.tolist()
        else:
            assert as_plain(found).tobytes() == wanted.tobytes(), name
    assert sorted(name for name, _ in tf.train.list_variables(path)) == sorted(source)


@pytest.mark.parametrize("format", ["v1", "v2"])
@pytest.mark.parametrize("release", ["tf012", "tf115", "tf221"])
def test_surgery_on_its_own_files(release, format, GOLDEN, tmp_path):
    source = next(path for path in sorted((GOLDEN / f"{release}_{format}_training").iterdir()) if "ckpt" in path.name)
    path = str(tmp_path / "out.ckpt")
    assert main([str(source), "-o", path, "--ema-to-weights", "--strip", "optimizer,step", "--rename", "net=n"]) == 0
    reader, here = tf.train.load_checkpoint(path), open_checkpoint(path).tensors
    assert sorted(reader.get_variable_to_shape_map()) == sorted(here) == ["n/biases", "n/weights"]
    averages = open_checkpoint(source).tensors
    for name in here:
        average = averages[f"net{name[1:]}/ExponentialMovingAverage"].load()
        np.testing.assert_array_equal(reader.get_tensor(name), average)


@pytest.mark.parametrize("release", ["tf012", "tf115", "tf221"])
def test_partitioned_variables_are_restored_slice_by_slice(release, GOLDEN, tmp_path):
    source, path = GOLDEN / f"{release}_v2_partitioned" / "model.ckpt", str(tmp_path / "out.ckpt")
    assert main([str(source), "-o", path, "--rename", "=a", "--cast", "bfloat16"]) == 0
    for name, tensor in open_checkpoint(source).tensors.items():
        for part in tensor.slices or ():
            told = " ".join([*map(str, tensor.spec.shape), ":".join(map(written, part.extents))])
            found = tf.raw_ops.RestoreV2(
                prefix=path, tensor_names=[f"a/{name}"], shape_and_slices=[told], dtypes=[tf.bfloat16]
            )[0]
            np.testing.assert_array_equal(found.numpy(), part.tensor.load().astype(ml_dtypes.bfloat16))


def written(extent) -> str:
    """An extent as TensorFlow's slice specs write it: `-` for the whole dimension."""
    return "-" if extent.length is None else f"{extent.start},{extent.length}"
