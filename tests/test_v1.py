"""The V1 writer: types, slices, limits; TensorFlow reads the result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_v2 import LOAD, all_types

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import DamagedError, UnsupportedError
from ckpt_tools.formats import v1, v2
from ckpt_tools.formats.typed_values import WRITABLE
from ckpt_tools.tensors import Spec, Tensor, from_array, from_arrays

TYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "float16", "float32", "float64", "complex64"]


def test_every_type_comes_back(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in all_types().items() if name in WRITABLE}
    assert len(tensors) == 16
    v1.write(tensors, str(tmp_path / "m"))
    read = open_checkpoint(tmp_path / "m").tensors
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        assert read[name].spec == tensor.spec
        assert read[name].load().tolist() == tensor.load().tolist()


def test_tensorflow_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra train")
    arrays = {
        "f": np.arange(6, dtype="float32").reshape(2, 3) - 2.5,
        "i": np.array([-(2**31), -1, 0, 127, 128, 2**31 - 1], "int32"),
        "l": np.array([-(2**63), -1, 2**63 - 1], "int64"),
        "b": np.array([True, False]),
        "scalar": np.float64(1e300),
        "empty": np.zeros((0, 3), "float32"),
    }
    v1.write(from_arrays(arrays), str(tmp_path / "m"))
    np.savez(tmp_path / "expected.npz", **arrays)
    command = [sys.executable, "-c", LOAD, str(tmp_path / "m"), str(tmp_path / "expected.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "6\n", done.stderr


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.sampled_from(TYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path_factory.mktemp("v1") / "m"
    v1.write(from_arrays(arrays), str(path))
    tensors = open_checkpoint(path).tensors
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert tensors[name].load().tobytes() == array.tobytes()
        assert tensors[name].spec == from_array(array).spec


def test_what_v1_cannot_hold_is_named_at_once(GOLDEN: Path, tmp_path: Path) -> None:
    tensors = open_checkpoint(GOLDEN / "tf221_v2_dtypes").tensors
    with pytest.raises(UnsupportedError) as caught:
        v1.write(tensors, str(tmp_path / "m"))
    assert str(caught.value) == (
        "a V1 file cannot hold 3 of the tensors: bfloat16 is bfloat16, uint32 is uint32, uint64 is uint64. "
        "Write V2, which holds every type and size, or cast them (bfloat16 to float32), or drop them."
    )
    assert not (tmp_path / "m").exists()


def test_the_limit_of_a_slice_is_tensorflows(tmp_path: Path) -> None:
    """int8 of 214,000,000 elements is saved, 215,000,000 is refused with the same estimate, 2,150,001,031 less 7."""

    def forbidden() -> np.ndarray:
        raise AssertionError("a value was loaded")

    with pytest.raises(
        UnsupportedError, match="a takes up to 2,150,001,024 bytes in a V1 file, which allows 2,147,483,648"
    ):
        v1.write({"a": Tensor(Spec("int8", (215_000_000,)), forbidden)}, str(tmp_path / "m"))
    with pytest.raises(AssertionError, match="a value was loaded"):
        v1.write({"a": Tensor(Spec("int8", (214_000_000,)), forbidden)}, str(tmp_path / "m"))


def test_names_must_be_utf8(tmp_path: Path) -> None:
    for name in ("", "a\udcff"):
        with pytest.raises(UnsupportedError, match="is not a name in UTF-8"):
            v1.write({name: from_array(np.zeros(1, "float32"))}, str(tmp_path / "m"))


def test_slices_go_both_ways(GOLDEN: Path, tmp_path: Path) -> None:
    for release in ("tf012", "tf115", "tf221"):
        bundle = open_checkpoint(GOLDEN / f"{release}_v2_partitioned")
        v1.write(bundle.tensors, str(tmp_path / "m"))
        back = open_checkpoint(tmp_path / "m").tensors
        v2.write(back, str(tmp_path / "n"))
        again = open_checkpoint(tmp_path / "n").tensors
        for name, tensor in bundle.tensors.items():
            assert [part.extents for part in again[name].slices] == [part.extents for part in tensor.slices]
            assert np.array_equal(again[name].load(), tensor.load())


@pytest.mark.posix
def test_a_shard_alone_does_not_pass_for_the_whole(GOLDEN: Path, tmp_path: Path) -> None:
    """A tensor that is split over two files, of which one is opened by itself."""
    import craft

    from ckpt_tools.formats.slices import slice_key
    from ckpt_tools.tensors import Extent

    for shard, values in enumerate([(1, 2), (3,)]):
        extents = (Extent(2 * shard, len(values)),)
        listed = craft.extent(*extents[0])
        records = {
            b"": craft.v1_meta(craft.v1_tensor(b"a", (3,), listed)),
            slice_key(b"a", extents): craft.v1_record(b"a", listed, craft.floats(*values)),
        }
        craft.v1(tmp_path, records).rename(tmp_path / f"m-{shard:05d}-of-00002")
    assert open_checkpoint(tmp_path / "m").tensors["a"].load().tolist() == [1, 2, 3]
    alone = tmp_path / "alone"
    (tmp_path / "m-00000-of-00002").rename(alone)
    with pytest.raises(DamagedError, match="tensor a: the slices hold 2 of the 3 elements"):
        open_checkpoint(alone).tensors["a"].load()
