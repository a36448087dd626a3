"""Rows, totals, trees and statistics of tensors."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ckpt_tools.errors import SelectionError
from ckpt_tools.overview import Statistics, branches, find, overview, sort_rows, statistics, totals
from ckpt_tools.tensors import Spec, Stored, Tensor, Tensors, from_array, from_arrays

TENSORS = from_arrays(
    {
        "net/conv/weights": np.zeros((3, 3, 1, 8), "float32"),
        "net/conv/weights/Momentum": np.zeros((3, 3, 1, 8), "float32"),
        "net/Logits/weights": np.zeros((8, 10), "float32"),
        "net/Logits/biases": np.zeros(10, "float32"),
        "global_step": np.int64(7),
        "labels": np.array([b"cat", b"dog"], object),
    }
)


def test_overview():
    assert [tuple(row) for row in overview(TENSORS)] == [
        ("net/conv/weights", "float32", (3, 3, 1, 8), 72, 288, "weight", None, None),
        ("net/conv/weights/Momentum", "float32", (3, 3, 1, 8), 72, 288, "slot", "net/conv/weights", "Momentum"),
        ("net/Logits/weights", "float32", (8, 10), 80, 320, "weight", None, None),
        ("net/Logits/biases", "float32", (10,), 10, 40, "weight", None, None),
        ("global_step", "int64", (), 1, 8, "step", None, None),
        ("labels", "string", (2,), 2, None, "other", None, None),
    ]


def test_bytes_of_strings_come_from_the_file():
    stored = Tensor(Spec("string", (2,)), lambda: None, Stored("m.data", 0, 8, 0))
    assert overview(Tensors({"labels": stored}))[0].bytes == 8


def test_totals():
    assert [tuple(total) for total in totals(overview(TENSORS))] == [
        ("weight", 3, 162, 648),
        ("slot", 1, 72, 288),
        ("step", 1, 1, 8),
        ("other", 1, 2, 0),
        ("total", 6, 237, 944),
    ]
    assert [tuple(total) for total in totals([])] == [("total", 0, 0, 0)]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("name", [4, 5, 3, 2, 0, 1]),
        ("size", [2, 0, 1, 3, 4, 5]),
        ("shape", [4, 5, 3, 2, 0, 1]),
        ("kind", [0, 2, 3, 1, 4, 5]),
        ("file", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_sorting(by, order):
    rows = overview(TENSORS)
    assert sort_rows(rows, by, TENSORS) == [rows[position] for position in order]


def test_sorting_by_place_in_the_files():
    places = {"a": ("m.data-1", 0), "b": ("m.data-0", 400), "c": ("m.data-0", 90)}
    tensors = Tensors(
        {name: Tensor(Spec("uint8", (4,)), lambda: None, Stored(*place, 4, 0)) for name, place in places.items()}
    )
    assert [row.name for row in sort_rows(overview(tensors), "file", tensors)] == ["c", "b", "a"]


def test_sorting_by_what_is_not_known():
    with pytest.raises(SelectionError, match="cannot sort by 'sizes'; did you mean size"):
        sort_rows([], "sizes", TENSORS)


def test_tree():
    assert [
        (each.path, each.depth, each.tensors, each.bytes, each.is_scope) for each in branches(overview(TENSORS))
    ] == [
        ("", 0, 6, 944, True),
        ("net", 1, 4, 936, True),
        ("net/conv", 2, 2, 576, True),
        ("net/conv/weights", 3, 2, 576, True),
        ("net/conv/weights/Momentum", 4, 1, 288, False),
        ("net/Logits", 2, 2, 360, True),
        ("net/Logits/weights", 3, 1, 320, False),
        ("net/Logits/biases", 3, 1, 40, False),
        ("global_step", 1, 1, 8, False),
        ("labels", 1, 1, 0, False),
    ]
    assert [each.path for each in branches(overview(TENSORS), 1)] == ["", "net", "global_step", "labels"]


def test_find():
    assert find(TENSORS, "global_step") is TENSORS["global_step"]
    with pytest.raises(
        SelectionError, match=r"no tensor is named net/Logits/weight; did you mean net/Logits/weights \("
    ):
        find(TENSORS, "net/Logits/weight")


def stats(array, dtype=None):
    return statistics(from_array(np.asarray(array), dtype))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.float32([1, -2, 0, 4]), Statistics(-2.0, 4.0, 0.75, 2.165063509461097, zeros=1)),
        (np.float32([NAN, 1, INF, 3, -INF, NAN]), Statistics(1.0, 3.0, 2.0, 1.0, nan=2, inf=2)),
        (np.float32([NAN, INF]), Statistics(nan=1, inf=1)),
        (np.zeros((0, 3), "float32"), Statistics()),
        (np.float32(5), Statistics(5.0, 5.0, 5.0, 0.0)),
        (np.int64([2**62 + 1, 0]), Statistics(0, 2**62 + 1, 2.0**61, 2.0**61, zeros=1)),
        (np.uint8([0, 255]), Statistics(0, 255, 127.5, 127.5, zeros=1)),
        (np.array([True, True, False, False]), Statistics(0, 1, 0.5, 0.5, zeros=2)),
        (np.complex64([3 + 4j, 0]), Statistics(0.0, 5.0, 2.5, 2.5, zeros=1)),
        (np.array([1, -1, NAN], ml_dtypes.bfloat16), Statistics(-1.0, 1.0, 0.0, 1.0, nan=1)),
        (np.array([1, 3], ml_dtypes.float8_e4m3fn), Statistics(1.0, 3.0, 2.0, 1.0)),
        (np.array([-8, 7], ml_dtypes.int4), Statistics(-8, 7, -0.5, 7.5)),
        (np.array([b"cat", b""], object), Statistics(zeros=1)),
        (np.array([1e200, -1e200]), Statistics(-1e200, 1e200, 0.0, None)),
        (np.array([1.7e308, 1.7e308]), Statistics(1.7e308, 1.7e308, None, None)),
    ],
    ids=str,
)
def test_statistics(array, expected):
    found = stats(array)
    assert found == pytest.approx(expected) and [type(each) for each in found] == [type(each) for each in expected]


@given(arrays.arrays("float32", arrays.array_shapes(max_side=6), elements=st.floats(-1e6, 1e6, width=32)))
def test_statistics_agree_with_numpy(array):
    wide = array.astype("float64")
    expected = Statistics(wide.min(), wide.max(), wide.mean(), wide.std(), int((array == 0).sum()))
    assert stats(array) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_large_tensors_are_taken_in_pieces():
    array = np.random.default_rng(0).normal(5, 0.001, 600_000).astype("float32")
    array[[3, 300_000, 599_999]] = NAN, 0, 1e6
    wide = np.delete(array, 3).astype("float64")
    expected = Statistics(0.0, 1e6, wide.mean(), wide.std(), 1, 1)
    assert stats(array) == pytest.approx(expected, rel=1e-12)


def test_the_comparison_can_fail():
    assert stats(np.float32([1, 2])) != pytest.approx(Statistics(1.0, 2.0, 1.5, 0.6))
