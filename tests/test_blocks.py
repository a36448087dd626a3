"""Tensors larger than memory: values processed in pieces are the same, and only one piece is kept in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import Spec, Tensor, Tensors, open_checkpoint, save_checkpoint
from ckpt_tools.errors import DamagedError, UnsupportedError
from ckpt_tools.surgery import Cast, Fill, SliceOf, Transpose, operate
from ckpt_tools.tensors import BLOCK, Extent, Slice, from_array, from_arrays, pieces

MB = 1 << 20
LIMIT = 28 * MB  # less than half of the tensor
ROWS = 4 * MB  # of 4 float32: 64 MB


def numbers(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(5).integers(-70_000, 70_000, shape)
    return (values << 40 if dtype == "int64" else values / 7).astype(dtype)


def partitioned(whole: np.ndarray, axis: int) -> Tensor:
    """Three parts of uneven lengths along an axis."""
    borders = [0, 5, whole.shape[axis] // 2, whole.shape[axis]]
    parts = []
    for start, stop in zip(borders, borders[1:], strict=False):
        extents = [Extent(0, None)] * whole.ndim
        extents[axis] = Extent(start, stop - start)
        where = (slice(None),) * axis + (slice(start, stop),)
        parts.append(Slice(tuple(extents), from_array(np.ascontiguousarray(whole[where]))))
    return Tensor(from_array(whole).spec, lambda: whole, slices=tuple(parts))


@pytest.mark.parametrize("size", [1, 4, 12, 17, 1000])
@pytest.mark.parametrize(
    "array",
    [
        np.float32(3),
        np.zeros((0, 3), "int8"),
        numbers((7, 5, 3)),
        numbers((7, 5, 3)).T,
        numbers((7, 5, 3))[:, 1::2],
        np.broadcast_to(np.int16(4), (9, 2)),
    ],
    ids=["scalar", "empty", "whole", "transposed", "sliced", "broadcast"],
)
def test_pieces_are_the_array_in_its_order(array, size):
    array = np.asarray(array)
    found = [piece for piece in pieces(array, size) if piece.size]
    assert [piece.ndim for piece in found] == [1] * len(found)
    assert max((piece.nbytes for piece in found), default=0) <= max(size, array.itemsize)
    assert np.array_equal(np.concatenate([np.empty(0, array.dtype), *found]), array.reshape(-1))


@pytest.mark.parametrize("format", ["v1", "v2"])
@pytest.mark.parametrize(
    ("dtype", "axis"),
    [("float32", None), ("int64", None), ("float16", None), ("bool", None), ("float32", 0), ("float32", 1)],
)
def test_blocks_of_a_file_are_what_is_loaded(format, dtype, axis, tmp_path):
    shape = (BLOCK // np.dtype(dtype).itemsize // 20 + 7, 30)
    array = numbers(shape, dtype)
    made = from_array(array) if axis is None else partitioned(array, axis)
    save_checkpoint(Tensors({"w": made}), tmp_path / "m", format=format)
    tensor = open_checkpoint(tmp_path / "m").tensors["w"]
    assert tensor.stream is not None and len(tensor.slices) == (0 if axis is None else 3)
    blocks = list(tensor.blocks())
    assert len(blocks) > 1
    assert np.array_equal(np.concatenate(blocks), array.reshape(-1))
    assert np.array_equal(tensor.load(), array)
    for part in tensor.slices:
        assert np.array_equal(np.concatenate(list(part.tensor.blocks())), part.tensor.load().reshape(-1))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One tensor of 64 MB, whole and in slices, as V1 and V2."""
    folder = tmp_path_factory.mktemp("large")
    array = numbers((ROWS, 4))
    for name, tensor in {"whole": from_array(array), "parts": partitioned(array, 0)}.items():
        for format in ("v1", "v2"):
            save_checkpoint(Tensors({"w": tensor}), folder / f"{name}.{format}", format=format)
    return folder


@pytest.mark.parametrize(
    ("source", "operation", "format"),
    [
        ("whole.v2", None, "v1"),
        ("whole.v2", None, "npz"),
        ("whole.v2", None, "safetensors"),
        ("whole.v2", None, "keras_h5"),
        ("whole.v2", Cast("float16"), "keras_h5"),
        ("whole.v1", None, "v2"),
        ("parts.v1", None, "npz"),
        ("parts.v2", None, "safetensors"),
        ("whole.v2", Cast("float16"), "v2"),
        ("whole.v2", Cast("float16"), "v1"),
        ("parts.v2", Cast("bfloat16"), "v2"),
        ("whole.v2", Cast("float16"), "npz"),
        ("whole.v2", Fill(select=("w",), value=2.0), "safetensors"),
        ("whole.v2", SliceOf(("w",), 1, 3), "v2"),
        ("whole.v1", Transpose(("w",), (0, 1)), "v2"),
    ],
    ids=str,
)
def test_one_large_tensor_is_never_in_memory(source, operation, format, large, tmp_path):
    tensors = open_checkpoint(large / source).tensors
    wanted = operate(tensors, [operation] if operation else []).tensors
    save_checkpoint(from_arrays({"small": np.zeros(3, "float32")}), tmp_path / "first", format=format)  # imports
    tracemalloc.start()
    try:
        save_checkpoint(wanted, tmp_path / "m", format=format)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()
    array = wanted["w"].load()
    found = open_checkpoint(tmp_path / "m").tensors["w"].load()
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_the_measure_of_memory_can_fail(large):
    tracemalloc.start()
    try:
        Cast("float16")(open_checkpoint(large / "whole.v2").tensors)["w"].load()
        assert tracemalloc.get_traced_memory()[1] > LIMIT
    finally:
        tracemalloc.stop()


def test_losses_are_counted_over_all_blocks(tmp_path):
    array = np.ones(BLOCK // 2, "float32")
    array[[0, -1]], array[5], array[-2] = 1e9, 1e-12, -1e-12
    surgery = operate(from_arrays({"w": array}), [Cast("float16")])
    save_checkpoint(surgery.tensors, tmp_path / "m")
    assert surgery.losses == {"w": {"overflow": 2, "underflow": 2}}


@pytest.mark.parametrize("format", ["v1", "npz", "safetensors", "keras_h5"])
def test_damage_in_the_last_block_stops_the_work(format, tmp_path):
    save_checkpoint(from_arrays({"net/w": numbers((BLOCK // 4 + 100,))}), tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    bad = bytearray(data.read_bytes())
    bad[-1] ^= 1
    data.write_bytes(bad)
    with pytest.raises(DamagedError, match=r"m\.data-00000-of-00001: tensor net/w: the checksum of its bytes differs"):
        save_checkpoint(open_checkpoint(tmp_path / "m"), tmp_path / "out", format=format)
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("format", ["v1", "v2", "npz", "safetensors", "keras_h5"])
def test_another_number_of_values_than_promised_is_an_error(format, tmp_path: Path):
    def two() -> np.ndarray:
        return np.zeros(2, "float32")

    streamed = Tensor(Spec("float32", (3,)), None, stream=lambda: iter([two()]))
    with pytest.raises(UnsupportedError, match=r"tensor a: has 2 values, but its spec says float32\[3\]"):
        save_checkpoint(Tensors({"a": streamed}), tmp_path / "m", format=format)
    loaded = Tensor(Spec("float32", (3,)), two)
    with pytest.raises(UnsupportedError, match=r"tensor a: has values of shape \[2\]"):
        save_checkpoint(Tensors({"a": loaded}), tmp_path / "m", format=format)


def test_a_transposed_array_is_written_to_npz_in_its_own_order(tmp_path):
    array = numbers((3, 5))
    save_checkpoint(Transpose(("w",))(from_arrays({"w": array})), tmp_path / "m.npz", format="npz")
    with np.load(tmp_path / "m.npz") as found:
        assert np.array_equal(found["w"], array.T)
