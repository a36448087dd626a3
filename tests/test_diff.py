"""diff_tensors: every kind of change, exact differences, renames, and tensors skipped without being read."""

import math
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ckpt_tools import diff_tensors, from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.diff import Change, summary
from ckpt_tools.errors import DamagedError
from ckpt_tools.tensors import Spec, Stored, Tensor

F = "float32"
NAN, INF = math.nan, math.inf


def one(a, b, tolerance: float = 0.0) -> Change | None:
    """The change between two arrays under one name."""
    changes = diff_tensors(from_arrays({"x": np.asarray(a)}), from_arrays({"x": np.asarray(b)}), tolerance)
    assert len(changes) <= 1
    return changes[0] if changes else None


def distance(a, b, tolerance: float = 0.0) -> tuple | None:
    change = one(a, b, tolerance)
    return change and (change.differing, change.max_abs, change.max_rel)


def test_every_kind_of_change_in_the_order_of_a():
    a = from_arrays(
        {
            "gone": np.zeros(3, F),
            "old/w": np.arange(4, dtype=F),
            "shape": np.zeros((2, 3), F),
            "dtype": np.ones(2, F),
            "values": np.array([1, 2], F),
            "same": np.ones(5, F),
        }
    )
    b = from_arrays(
        {
            "same": np.ones(5, F),
            "values": np.array([1, 4], F),
            "dtype": np.ones(2, "float16"),
            "shape": np.zeros((3, 2), F),
            "new/w": np.arange(4, dtype=F),
            "fresh": np.zeros(7, F),
        }
    )
    changes = diff_tensors(a, b)
    assert changes == [
        Change("removed", "gone", a=Spec(F, (3,))),
        Change("renamed", "old/w", "new/w", Spec(F, (4,)), Spec(F, (4,))),
        Change("shape", "shape", None, Spec(F, (2, 3)), Spec(F, (3, 2))),
        Change("dtype", "dtype", None, Spec(F, (2,)), Spec("float16", (2,)), 0, 0.0, 0.0),
        Change("values", "values", None, Spec(F, (2,)), Spec(F, (2,)), 1, 2.0, 0.5),
        Change("added", "fresh", b=Spec(F, (7,))),
    ]
    assert summary(changes, a, b) == {
        "a": 6, "b": 6, "same": 1, "removed": 1, "added": 1, "renamed": 1, "shape": 1, "dtype": 1, "values": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, NAN], [1.0, NAN], None),
        ([0.0], [-0.0], None),
        ([INF, -INF], [INF, -INF], None),
        ([1.0, NAN], [1.0, 2.0], (1, INF, INF)),
        ([INF], [-INF], (1, INF, INF)),
        ([INF], [3.0], (1, INF, INF)),
        ([0.0], [2.0], (1, 2.0, 1.0)),
        ([1.0, 3.0], [2.0, 2.0], (2, 1.0, 0.5)),
        (np.array([2**62], "int64"), np.array([-(2**62)], "int64"), (1, 2.0**63, 2.0)),
        (np.array([2**53], "int64"), np.array([2**53 + 1], "int64"), (1, 1.0, 2.0**-53)),
        (np.array([2**64 - 1], "uint64"), np.array([0], "uint64"), (1, 2.0**64, 1.0)),
        (np.array([200], "uint8"), np.array([100], "uint8"), (1, 100.0, 0.5)),
        ([True, False], [True, True], (1, 1.0, 1.0)),
        ([1 + 1j], [1 + 2j], (1, 1.0, 1 / math.sqrt(5))),
        (np.array([1.5], ml_dtypes.bfloat16), np.array([2.0], ml_dtypes.bfloat16), (1, 0.5, 0.25)),
        (np.array([3], ml_dtypes.int4), np.array([-3], ml_dtypes.int4), (1, 6.0, 2.0)),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), (1, None, None)),
        (np.array([b"a"], object), np.array([b"a"], object), None),
        (np.zeros((0, 3)), np.zeros((0, 3)), None),
    ],
)
def test_distances(a, b, expected):
    assert distance(a, b) == (pytest.approx(expected) if expected and None not in expected else expected)


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_a_nan_and_no_warning():
    signalling = np.array([0x7FA00000], "uint32").view(F)
    assert distance(signalling, signalling) is None
    assert distance(signalling, np.float32([1])) == (1, INF, INF)


def test_whole_numbers_of_different_types_are_compared_exactly():
    change = one(np.array([2**63], "uint64"), np.array([2**63 - 1], "int64"))
    assert (change.change, change.differing, change.max_abs) == ("dtype", 1, 1.0)


def test_a_text_is_the_same_in_an_array_of_any_kind():
    kinds = [np.array(["ä", "b"], object), np.array(["ä", "b"]), np.array([b"\xc3\xa4", b"b"], object)]
    for each in kinds:
        assert diff_tensors(from_arrays({"t": each}), from_arrays({"t": kinds[0]})) == []
        assert from_arrays({"t": each})["t"].load().tolist() == [b"\xc3\xa4", b"b"]
    assert from_arrays({"t": np.array("x")})["t"].load().shape == ()


def test_texts_against_numbers_are_only_another_type():
    assert one(np.array([b"1"], object), [1.0])[:1] + one(np.array([b"1"], object), [1.0])[5:] == (
        "dtype",
        None,
        None,
        None,
    )


def test_tolerance_is_of_the_absolute_difference():
    assert distance([1.0, 100.0], [1.5, 101.0], 0.5) == (1, 1.0, pytest.approx(1 / 101))
    assert distance([1.0], [1.5], 0.5) is None
    assert distance([NAN], [1.0], 1e300) == (1, INF, INF)


def test_large_tensors_are_compared_in_parts():
    a = np.zeros(3_000_000, F)
    b = a.copy()
    b[[0, 1_500_000, 2_999_999]] = [1, 5, 2]
    assert distance(a, b) == (3, 5.0, 1.0)


def test_renames_pair_equal_bytes_by_the_ends_of_names():
    zeros = np.zeros(8, F)
    a = from_arrays({"m/one/biases": zeros, "m/two/biases": zeros, "m/three/beta": zeros})
    b = from_arrays({"two/biases": zeros, "one/biases": zeros, "other/gamma": zeros})
    assert {(change.name, change.new_name) for change in diff_tensors(a, b) if change.change == "renamed"} == {
        ("m/one/biases", "one/biases"),
        ("m/two/biases", "two/biases"),
    }


def test_many_tensors_with_the_same_bytes_are_paired_in_no_time():
    zeros = np.zeros(8, F)
    a = from_arrays({f"net/{layer}/biases": zeros for layer in range(5000)})
    b = from_arrays({f"model/net/{layer}/biases": zeros for layer in reversed(range(5000))})
    begun = time.process_time()
    changes = diff_tensors(a, b)
    assert time.process_time() - begun < 5  # every old name beside every new one took 40 seconds and 2 GB
    assert all(change.new_name == f"model/{change.name}" for change in changes)
    assert len(changes) == 5000


def test_scalars_are_renamed_only_under_the_same_last_word():
    a = from_arrays({"a/step": np.int64(0), "b/power": np.float32(0.9)})
    b = from_arrays({"c/step": np.int64(0), "c/rate": np.float32(0.9)})
    assert [(change.change, change.name) for change in diff_tensors(a, b)] == [
        ("renamed", "a/step"), ("removed", "b/power"), ("added", "c/rate")
    ]  # fmt: skip


def test_equal_checksums_are_not_read():
    def never():
        raise DamagedError("this tensor was read")

    spec, stored = Spec(F, (4,)), Stored("x", 0, 16, 1234)
    a, b = ({"w": Tensor(spec, never, stored)} for _ in range(2))
    assert diff_tensors(a, b) == []
    assert diff_tensors({"old": a["w"]}, {"new": b["w"]})[0].change == "renamed"
    with pytest.raises(DamagedError):
        diff_tensors(a, {"w": Tensor(spec, never, stored._replace(crc32c=5))})


@pytest.mark.parametrize("format", ["v1", "npz", "safetensors"])
def test_other_formats_hold_the_same(format, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"net/{n}/weights": rng.normal(size=(4, n + 1)).astype(F) for n in range(5)}
    save_checkpoint(from_arrays(arrays), tmp_path / "a", format="v2")
    save_checkpoint(from_arrays(arrays), tmp_path / "b", format=format)
    a, b = (open_checkpoint(tmp_path / name) for name in "ab")
    assert diff_tensors(a, b) == []
    moved = {name.replace("net/", "model/net/"): tensor for name, tensor in b.tensors.items()}
    assert {change.change for change in diff_tensors(a, moved)} == {"renamed"}


def test_a_damaged_tensor_is_an_error_that_names_it(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_checkpoint(from_arrays({"w": np.full(100, value, F)}), tmp_path / name)
    data = Path(f"{tmp_path}/b.data-00000-of-00001")
    data.write_bytes(b"\0" * 400)
    with pytest.raises(DamagedError, match="tensor w"):
        diff_tensors(open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "b"))


arrays = st_numpy.arrays(
    st.sampled_from(["float32", "float64", "int8", "int64", "uint64", "bool", "complex64"]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(st.dictionaries(st.text("ab/", min_size=1, max_size=4), arrays, max_size=4))
def test_nothing_differs_from_itself(tensors):
    assert diff_tensors(from_arrays(tensors), from_arrays(tensors)) == []


@given(arrays, st.data())
def test_a_changed_element_is_found(array, data):
    if not array.size:
        return
    place = data.draw(st.integers(0, array.size - 1))
    other = array.copy().reshape(-1)
    other[place] = data.draw(st_numpy.from_dtype(array.dtype))
    same = other[place] == array.reshape(-1)[place] or (other[place] != other[place] and array.reshape(-1)[place] != array.reshape(-1)[place])  # fmt: skip # noqa: E501
    change = one(array, other.reshape(array.shape))
    assert (change is None) == bool(same)
    assert change is None or change.differing == 1
