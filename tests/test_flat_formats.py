"""npz and safetensors: read(write(x)) == x, the bytes of the libraries, refusals that name every tensor."""

import json
import pickle
import re
import shlex
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ckpt_tools import from_arrays, save_checkpoint
from ckpt_tools.dtypes import numpy_dtype
from ckpt_tools.errors import CheckpointError, DamagedError, UnsupportedError
from ckpt_tools.formats import npz, safetensors_file
from ckpt_tools.surgery import Drop

WRITERS = {"npz": npz, "safetensors": safetensors_file}
SAMPLE = {
    "net/conv/weights": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "net/conv/biases": np.array([1.5, -2.0], "float64"),
    "global_step": np.array(1234, "int64"),
    "empty": np.zeros((0, 3), "float16"),
    "mask": np.array([True, False]),
    "unicode/é": np.arange(3, dtype="uint16"),
}


def same(found, wanted):
    """Whether two mappings of arrays agree in order, names, types, shapes and bits."""
    return list(found) == list(wanted) and all(
        found[name].dtype == wanted[name].dtype
        and found[name].shape == wanted[name].shape
        and np.ascontiguousarray(found[name]).tobytes() == np.ascontiguousarray(wanted[name]).tobytes()
        for name in wanted
    )


def loaded(checkpoint, order=None):
    return {name: checkpoint.tensors[name].load() for name in (order or checkpoint.tensors)}


def test_same_sees_a_wrong_bit_a_wrong_type_and_a_wrong_order():
    a = {"x": np.float32([0.0, 1.0]), "y": np.float32([2.0])}
    assert same(a, dict(a))
    assert not same({"x": np.float32([-0.0, 1.0]), "y": a["y"]}, a)
    assert not same({"x": a["x"].astype("float64"), "y": a["y"]}, a)
    assert not same({"y": a["y"], "x": a["x"]}, a)


@pytest.mark.parametrize("ending", WRITERS)
def test_what_is_written_is_read_back_and_twice_gives_the_same_bytes(tmp_path, ending):
    module, first, second = WRITERS[ending], tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    module.write(from_arrays(SAMPLE), str(first))
    module.write(from_arrays(SAMPLE), str(second))
    opened = module.read(first)
    assert same(loaded(opened, SAMPLE), SAMPLE)
    assert {name: str(spec) for name, spec in opened.tensors.specs().items()}["net/conv/weights"] == "float32[2,3,4]"
    assert first.read_bytes() == second.read_bytes()


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.sampled_from(["float32", "float64", "int8", "int64", "uint32", "bool", "complex64"]).flatmap(
    lambda dtype: arrays.arrays(dtype, SHAPES)
)
NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)


@pytest.mark.parametrize("ending", WRITERS)
@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), ARRAYS, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_round_trip_of_any_names_and_arrays(tmp_path_factory, ending, values):
    path = str(tmp_path_factory.mktemp("round") / f"x.{ending}")
    WRITERS[ending].write(from_arrays(values), path)
    assert same(loaded(WRITERS[ending].read(path), values), values)


def test_numpy_reads_our_npz_and_we_read_numpys(tmp_path):
    ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
    npz.write(from_arrays(SAMPLE), str(ours))
    with np.load(ours, allow_pickle=False) as found:
        assert same({name: found[name] for name in SAMPLE}, SAMPLE)
    big_endian = np.arange(4, dtype=">f4")
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez_compressed(theirs, big=big_endian, fortran=fortran, text=np.array(["é", "b"]))
    opened = npz.read(theirs)
    assert opened.tensors["big"].load().dtype == np.dtype("<f4")
    assert opened.tensors["big"].load().tolist() == [0, 1, 2, 3]
    assert opened.tensors["fortran"].load().tolist() == fortran.tolist()
    assert opened.tensors["text"].load().tolist() == ["é".encode(), b"b"]
    assert opened.tensors["text"].spec.dtype == "string"


def test_npz_holds_text_but_not_text_that_ends_in_a_zero_byte(tmp_path):
    text = np.array([b"one", b"", b"a\0b"], object)
    npz.write(from_arrays({"t": text}), str(tmp_path / "t.npz"))
    assert npz.read(tmp_path / "t.npz").tensors["t"].load().tolist() == text.tolist()
    with pytest.raises(UnsupportedError, match="tensor t: numpy's text cannot end in a zero byte"):
        npz.write(from_arrays({"t": np.array([b"a\0"], object)}), str(tmp_path / "u.npz"))


def test_npz_members_are_read_one_by_one(tmp_path):
    path = tmp_path / "x.npz"
    npz.write(from_arrays({"good": np.arange(100.0), "bad": np.arange(100.0) + 7}), str(path))
    content = bytearray(path.read_bytes())
    content[content.rindex(np.float64(50 + 7).tobytes())] ^= 1
    path.write_bytes(content)
    opened = npz.read(path)
    assert opened.tensors["good"].load()[99] == 99
    with pytest.raises(DamagedError, match="tensor bad.*CRC"):
        opened.tensors["bad"].load()


def test_npz_never_unpickles(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("evil.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        member.write(pickle.dumps(Bomb()))
    with pytest.raises(UnsupportedError, match="evil .Python objects.*never done here"):
        npz.read(tmp_path / "x.npz")


def test_npz_with_a_huge_claim_is_refused_before_memory_is_asked_for(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(DamagedError, match=r"float32\[1000000000000\], but 0 bytes follow"):
        npz.read(tmp_path / "x.npz")


TYPED = {word: np.arange(3).astype(numpy_dtype(word)) for word in safetensors_file._FROM_TENSORFLOW}


def test_npz_takes_text_as_the_other_formats_do(tmp_path):
    npz.write(from_arrays({"labels": np.array([["cat", "hund\u00e9"]], object)}), str(tmp_path / "x"))
    assert npz.read(tmp_path / "x").tensors["labels"].load().tolist() == [[b"cat", "hund\u00e9".encode()]]


def test_safetensors_writes_the_bytes_of_the_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    values = {**{f'x/"{name}"/é': array for name, array in TYPED.items()}, "scalar": np.array(3.0, "float32")}
    values |= {f"empty/{name}": array[:0] for name, array in TYPED.items()}
    safetensors_file.write(from_arrays(values), str(tmp_path / "ours"), metadata={"format": "tf"})
    library.save_file(values, tmp_path / "theirs", metadata={"format": "tf"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    opened = safetensors_file.read(tmp_path / "theirs")
    assert same(loaded(opened, values), values)
    assert opened.metadata == {"format": "tf"}
    assert opened.tensors['x/"bfloat16"/é'].spec.dtype == "bfloat16"


def test_safetensors_refuses_more_names_than_the_library_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_LONGEST_HEADER", 100)  # not 100 MB: a million names
    with pytest.raises(UnsupportedError, match="names take .* bytes, where .safetensors holds 100. Write a V2"):
        save_checkpoint(from_arrays(SAMPLE), tmp_path / "x", format="safetensors")
    assert list(tmp_path.iterdir()) == []


def test_safetensors_values_are_views_of_the_file(tmp_path):
    safetensors_file.write(from_arrays(SAMPLE), str(tmp_path / "x"))
    array = safetensors_file.read(tmp_path / "x").tensors["net/conv/weights"].load()
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_all_types_that_do_not_fit_are_named_at_once(tmp_path):
    tensors = from_arrays({"a": TYPED["bfloat16"], "b": TYPED["float8_e5m2"], "c": TYPED["float32"]})
    with pytest.raises(UnsupportedError) as error:
        npz.write(tensors, str(tmp_path / "x.npz"))
    assert str(error.value) == (
        ".npz cannot hold 2 of 3 tensors: a (bfloat16[3]), b (float8_e5m2[3]). Drop them (ckpt-edit --drop /a,/b), "
        "cast them (ckpt-edit --cast float32), or write a V2 checkpoint, which holds every type."
    )
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(UnsupportedError, match="cannot hold 1 of 2 tensors: s "):
        safetensors_file.write(from_arrays({"s": np.array([b"text"], object), "c": TYPED["float32"]}), "never")


def test_what_is_typed_to_drop_what_does_not_fit_drops_that(tmp_path):
    tensors = from_arrays({"a,b [0]/w*": np.array([b"1\0"], object), "a": TYPED["float32"], "b [0]/w": np.zeros(1)})
    for module, fact in (npz, "cannot end in a zero byte"), (safetensors_file, "cannot hold 1 of 3"):
        with pytest.raises(UnsupportedError, match=fact) as error:
            module.write(tensors, str(tmp_path / "x"))
        (command,) = re.findall(r"ckpt-edit --drop .*(?=\), or)", str(error.value))
        assert list(Drop((shlex.split(command)[2],))(tensors)) == ["a", "b [0]/w"]


@pytest.mark.parametrize(
    ("module", "name"),
    [(npz, "a\0b"), (npz, "x\udcff"), (safetensors_file, "__metadata__"), (safetensors_file, "\udcff")],
)
def test_names_that_do_not_fit_are_refused(module, name):
    with pytest.raises(UnsupportedError, match="cannot hold 1 of 1 names"):
        module.write(from_arrays({name: np.zeros(1)}), "never")


@pytest.mark.parametrize("ending", WRITERS)
def test_damage_is_a_checkpoint_error_or_harmless(tmp_path, ending):
    module, path = WRITERS[ending], tmp_path / "x"
    module.write(from_arrays(SAMPLE), str(path))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    outcomes = set()
    for trial in range(400):
        broken = bytearray(whole)
        if trial % 4 == 0:
            broken = broken[: random.integers(len(whole))]
        else:
            broken[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            loaded(module.read(path))
            outcomes.add("read")
        except CheckpointError as error:
            outcomes.add(type(error).__name__)
    assert "DamagedError" in outcomes


def test_safetensors_of_types_without_a_name_in_tensorflow(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(UnsupportedError, match="no type for a .F8_E8M0"):
        safetensors_file.read(tmp_path / "x")
