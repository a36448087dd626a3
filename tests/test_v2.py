"""The V2 writer: shards, links, slices, types; TensorFlow reads the result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tools import Tensors, open_checkpoint
from ckpt_tools.dtypes import BY_NAME, numpy_dtype
from ckpt_tools.errors import CheckpointError, DamagedError, UnsupportedError
from ckpt_tools.formats import bundle_index, v2
from ckpt_tools.tensors import Extent, Slice, Spec, Tensor, from_array, from_arrays

LOAD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
expected = np.load(sys.argv[2], allow_pickle=True)
reader = tf.train.load_checkpoint(sys.argv[1])
assert sorted(reader.get_variable_to_shape_map()) == sorted(expected), reader.get_variable_to_shape_map()
for name in expected:
    value = np.asarray(reader.get_tensor(name))
    assert value.shape == expected[name].shape and value.tolist() == expected[name].tolist(), name
print(len(expected.files))
"""


def all_types() -> dict[str, Tensor]:
    """One tensor of every type that a V2 checkpoint can hold."""
    out = {}
    for name, row in BY_NAME.items():
        if name == "string":
            out[name] = from_array(np.array([[b"", b"abc"], ["é".encode(), b"\0\xff" * 40]], object))
        elif name == "variant":
            out[name] = Tensor(Spec("variant", (2,)), lambda: np.array([b"one", b"x" * 300], object))
        elif name == "bool":
            out[name] = from_array(np.array([[True], [False]]))
        else:
            signed = not name.startswith(("u", "qu")) and row.numpy not in ("float8_e4m3b11fnuz", "float4_e2m1fn")
            values = np.array([1, 0, 1, -1 if signed else 1]).astype(numpy_dtype(name)).reshape(2, 2)
            out[name] = from_array(values, name)
    return out


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    tensors = all_types() | {
        "scalar": from_array(np.float32(2.5)),
        "empty": from_array(np.zeros((0, 3), "int16")),
        "no strings": from_array(np.zeros((0,), object)),
        "text": from_array(np.array("é")),
        "big-endian": from_array(np.array([1, 2], ">f8")),
        "transposed": from_array(np.arange(6.0).reshape(2, 3).T),
        "rank 5": from_array(np.arange(12, dtype="int8").reshape(1, 2, 1, 3, 2)),
    }
    v2.write(tensors, str(tmp_path / "m"))
    read = open_checkpoint(tmp_path / "m").tensors
    assert sorted(read) == sorted(tensors)
    for name, tensor in tensors.items():
        assert read[name].spec == tensor.spec
        values = read[name].load()
        assert values.tolist() == tensor.load().tolist() or name == "text"
        assert values.dtype == numpy_dtype(tensor.spec.dtype)
        assert read[name].stored is not None
    assert read["text"].load().item() == "é".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="runs TensorFlow")
def test_tensorflow_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra train")
    tensors = {
        name: t
        for name, t in all_types().items()
        if t.spec.dtype in ("float32", "int64", "bool", "string", "complex64")
    }
    halves = np.arange(12, dtype="float32").reshape(4, 3)
    parts = [Slice((Extent(i, 2), Extent(0, None)), from_array(halves[i : i + 2])) for i in (0, 2)]
    tensors["cut/in/two"] = Tensor(Spec("float32", (4, 3)), lambda: halves, slices=tuple(parts))
    v2.write(tensors, str(tmp_path / "m"), shards=3)
    np.savez(tmp_path / "expected.npz", **{name: tensor.load() for name, tensor in tensors.items()})
    command = [sys.executable, "-c", LOAD, str(tmp_path / "m"), str(tmp_path / "expected.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{len(tensors)}\n", done.stderr


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
arrays = st.builds(
    lambda shape, dtype: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(["float32", "int8", "uint16", "complex128", "float16", "bool"]),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, arrays, min_size=1, max_size=8), st.sampled_from([None, 1, 2, 5]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, given_arrays: dict[str, np.ndarray], shards: int | None
) -> None:
    folder = tmp_path_factory.mktemp("m")
    v2.write(from_arrays(given_arrays), str(folder / "m"), shards=shards)
    assert len(list(folder.iterdir())) == 1 + (shards or 1)
    checkpoint = open_checkpoint(folder / "m")
    assert list(checkpoint.tensors) == sorted(given_arrays, key=lambda name: name.encode())
    for name, array in given_arrays.items():
        assert np.array_equal(checkpoint.tensors[name].load(), array)
    v2.write(checkpoint.tensors, str(folder / "again"))
    for file in folder.glob("m.*") if len(list(folder.glob("m.*"))) == len(list(folder.glob("again.*"))) else ():
        assert file.read_bytes() == (folder / file.name.replace("m.", "again.", 1)).read_bytes()


def test_a_rename_copies_bytes_and_loads_nothing(GOLDEN: Path, tmp_path: Path) -> None:
    source = open_checkpoint(GOLDEN / "tf115_v2_training").tensors

    def forbidden() -> np.ndarray:
        raise AssertionError("a value was loaded")

    renamed = Tensors(("new/" + name, tensor._replace(load=forbidden)) for name, tensor in source.items())
    moved: list[int] = []
    v2.write(renamed, str(tmp_path / "m"), progress=moved.append)
    read = open_checkpoint(tmp_path / "m").tensors
    assert all(np.array_equal(read["new/" + name].load(), tensor.load()) for name, tensor in source.items())
    assert sum(moved) == sum(tensor.spec.nbytes for tensor in source.values())
    data = "model.ckpt-2.data-00000-of-00001"
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == (GOLDEN / "tf115_v2_training" / data).read_bytes()


@pytest.mark.posix
def test_links(GOLDEN: Path, tmp_path: Path) -> None:
    source = open_checkpoint(GOLDEN / "tf115_v2_sharded").tensors
    v2.write(source, str(tmp_path / "src"))
    source = open_checkpoint(tmp_path / "src").tensors
    v2.write(Tensors(("new/" + name, tensor) for name, tensor in source.items()), str(tmp_path / "m"), link=True)
    for shard in ("00000-of-00002", "00001-of-00002"):
        assert (tmp_path / f"m.data-{shard}").samefile(tmp_path / f"src.data-{shard}")
    changed = {**source, "b/weights": from_array(source["b/weights"].load() * 2)}
    v2.write(changed, str(tmp_path / "n"), link=True)
    assert (tmp_path / "n.data-00000-of-00002").samefile(tmp_path / "src.data-00000-of-00002")
    read = open_checkpoint(tmp_path / "n").tensors
    assert np.array_equal(read["b/weights"].load(), source["b/weights"].load() * 2)
    assert np.array_equal(read["a/weights"].load(), source["a/weights"].load())


@pytest.mark.posix
def test_links_fall_back_to_copies(GOLDEN: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", cannot)
    source = open_checkpoint(GOLDEN / "tf115_v2_sharded")
    v2.write(source.tensors, str(tmp_path / "m"), link=True)
    for file in source.files:
        assert Path(file).read_bytes() == Path(file.replace(source.path, str(tmp_path / "m"))).read_bytes()


def test_shards_share_the_bytes(tmp_path: Path) -> None:
    arrays = {f"v{i:02d}": np.full(100, i, "float32") for i in range(10)}
    v2.write(from_arrays(arrays), str(tmp_path / "m"), shards=5)
    assert [(tmp_path / f"m.data-{i:05d}-of-00005").stat().st_size for i in range(5)] == [800] * 5
    assert {t.stored.shard for t in open_checkpoint(tmp_path / "m").tensors.values()} == {0, 1, 2, 3, 4}


def test_what_cannot_be_written(tmp_path: Path) -> None:
    wrong = Tensor(Spec("float32", (2,)), lambda: np.zeros(3, "float32"))
    with pytest.raises(UnsupportedError, match=r"tensor a: has values of shape \[3\], but its spec says \[2\]"):
        v2.write({"a": wrong}, str(tmp_path / "m"))
    with pytest.raises(UnsupportedError, match="tensor a: has values of numpy type float64, but its spec says float32"):
        v2.write({"a": Tensor(Spec("float32", (3,)), lambda: np.zeros(3))}, str(tmp_path / "m"))
    with pytest.raises(UnsupportedError, match="tensor a: has an element of type int where bytes are wanted"):
        v2.write({"a": Tensor(Spec("string", (1,)), lambda: np.array([3], object))}, str(tmp_path / "m"))
    with pytest.raises(UnsupportedError, match="a tensor without a name cannot be stored"):
        v2.write({"": from_array(np.zeros(1))}, str(tmp_path / "m"))


def test_big_endian_bundles_are_read(tmp_path: Path) -> None:
    """No TensorFlow here writes them; the rules are those of tensor_bundle.cc."""
    from struct import pack

    import craft

    from ckpt_tools.formats.checksum import crc32c, mask

    word = pack(">I", 2)
    checksum = pack(">I", mask(crc32c(word)))
    string = b"\x02" + checksum + b"hi"
    numbers = np.array([1, -2], ">i4").tobytes() + np.array([1 + 2j], ">c8").tobytes()
    records = {
        b"": b"\x08\x01\x10\x01\x1a\x02\x08\x01",
        b"c": craft.entry((), numbers[8:], dtype=8, offset=8),
        b"i": craft.entry((2,), numbers[:8], dtype=3),
        b"s": craft.entry((), string, dtype=7, offset=16, crc=mask(crc32c(word + checksum + b"hi"))),
    }
    tensors = open_checkpoint(craft.v2(tmp_path, records, numbers + string)).tensors
    assert tensors["i"].load().tolist() == [1, -2]
    assert tensors["c"].load().item() == 1 + 2j
    assert tensors["s"].load().item() == b"hi"
    assert tensors["i"].stored is None
    v2.write(tensors, str(tmp_path / "little"))
    assert open_checkpoint(tmp_path / "little").tensors["i"].load().tolist() == [1, -2]


def test_narrow_integers_ignore_their_high_bits(tmp_path: Path) -> None:
    import craft

    data = bytes((0xF8, 0x0F, 0x07, 0xFF))
    types = {"int4": [-8, -1, 7, -1], "uint4": [8, 15, 7, 15], "int2": [0, -1, -1, -1], "uint2": [0, 3, 3, 3]}
    records = {name.encode(): craft.entry((4,), data, dtype=BY_NAME[name].number) for name in types}
    tensors = open_checkpoint(craft.v2(tmp_path, records, data)).tensors
    assert {name: tensors[name].load().tolist() for name in types} == types


def test_damage_can_be_reported_and_the_rest_kept(tmp_path: Path) -> None:
    import craft

    arrays = {f"scope{i:05d}/weights": np.float32([i]) for i in range(20_000)}
    v2.write(from_arrays(arrays), str(tmp_path / "m"))
    index = bytearray((tmp_path / "m.index").read_bytes())
    index[400_000] ^= 1  # in the second of its blocks
    (tmp_path / "m.index").write_bytes(index)
    with pytest.raises(DamagedError, match="m.index: the checksum of a block at byte"):
        open_checkpoint(tmp_path / "m")
    errors: list[CheckpointError] = []
    tensors = v2.read(str(tmp_path / "m"), report=errors.append).tensors
    assert len(errors) == 1
    assert 10_000 < len(tensors) < 20_000
    assert all(np.array_equal(tensor.load(), arrays[name]) for name, tensor in tensors.items())
    craft.v2(tmp_path, {b"a": craft.entry((-1,)), b"b": craft.entry((0,))})
    assert list(v2.read(str(tmp_path / "m"), report=errors.append).tensors) == ["b"]


def test_the_short_way_to_read_an_entry_is_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and damaged entries, read by the one regular expression that fits nearly all, and field by field."""

    def read(value: bytes, spec: Spec) -> object:
        try:
            return bundle_index.parse_entry(value, spec)
        except DamagedError as error:
            return str(error)

    entries, rng = [], np.random.default_rng(11)
    for number in range(3000):
        spec = Spec("float32", tuple(rng.choice([0, 1, 200, 70000], number % 4).tolist()))
        shard, offset, size = (int(rng.choice([0, 1, 127, 128, 2**31, 2**62])) for _ in range(3))
        entry = bundle_index.Entry(spec, shard, offset, size, int(rng.integers(2**32)))
        value = bytearray(bundle_index.encode_entry(entry))
        assert read(bytes(value), spec) == entry
        value[rng.integers(len(value))] ^= 1 << int(rng.integers(8))
        entries += [(bytes(value), spec), (bytes(value[: rng.integers(len(value))]), spec)]
    found = [read(*each) for each in entries]
    assert sum(isinstance(each, str) for each in found) > 1000
    monkeypatch.setattr(bundle_index, "_PLAIN", re.compile(b"(?!)"))  # which fits nothing
    assert [read(*each) for each in entries] == found
