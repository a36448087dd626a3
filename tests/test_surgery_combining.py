"""Average and graft: combining several checkpoints, with all their differences reported at once."""

import numpy as np
import pytest

from ckpt_tools.errors import RecipeError, SelectionError
from ckpt_tools.surgery import Average, Graft
from ckpt_tools.tensors import from_arrays


def checkpoint(value: float, **others: np.ndarray):
    return from_arrays({"w": np.float32([value, 1]), "half": np.float16(value), "step": np.int64(value), **others})


def test_average():
    edit = Average((checkpoint(2), checkpoint(6))).edit(checkpoint(1))
    np.testing.assert_array_equal(edit.tensors["w"].load(), np.float32([3, 1]))
    assert edit.tensors["half"].load() == np.float16(3)
    assert edit.tensors["half"].load().dtype == np.float16
    assert edit.tensors["step"].load() == 1
    assert [(row.name, row.action, row.detail) for row in edit.rows] == [
        ("w", "average", "of 3"),
        ("half", "average", "of 3"),
        ("step", "keep", "int64: taken from the first"),
    ]


def test_the_sum_is_kept_wide():
    # In float32, 1e8 + 1 + 1 + 1 is 1e8; in float16, 60000 + 60000 is infinite.
    ones = [from_arrays({"w": np.float32([1]), "h": np.float16([60000])}) for _ in range(3)]
    made = Average(tuple(ones))(from_arrays({"w": np.float32([1e8]), "h": np.float16([60000])}))
    assert made["w"].load() == np.float32((1e8 + 3) / 4)
    assert made["h"].load() == np.float16(60000)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_the_average_of_equal_checkpoints_is_the_checkpoint(dtype):
    values = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    one = from_arrays({"w": values})
    for count in (1, 2, 4, 6, 9):
        made = Average((one,) * count)(one)["w"].load()
        assert made.dtype == values.dtype
        np.testing.assert_array_equal(made, values)


def test_everything_that_differs_is_named():
    other = from_arrays({"w": np.float32([1, 2, 3]), "half": np.float16(1), "extra": np.float32(1)})
    with pytest.raises(SelectionError) as caught:
        Average((other,))(checkpoint(1))
    assert str(caught.value).splitlines() == [
        "3 problems:",
        "  average: 1 tensor not in the other checkpoint: step",
        "  average: 1 tensor in the other checkpoint alone: extra",
        "  average: w is float32[2] here and float32[3] in the other checkpoint",
    ]


def test_many_names_are_counted():
    here = from_arrays({f"net/{place}": np.float32(1) for place in range(1000)})
    there = from_arrays({f"{place}": np.float32(1) for place in range(1000)})
    with pytest.raises(SelectionError) as caught:
        Average((there,))(here)
    assert str(caught.value).splitlines()[1:] == [
        "  average: 1,000 tensors not in the other checkpoint: net/0, net/1, net/2, net/3, net/4 and 995 more",
        "  average: 1,000 tensors in the other checkpoint alone: 0, 1, 2, 3, 4 and 995 more",
    ]


def test_average_of_nothing():
    with pytest.raises(RecipeError, match="at least one other"):
        Average(())


HERE = {"net/conv/weights": np.float32([1, 2]), "net/Logits/weights": np.float32([3, 4])}
THERE = {"model/conv/weights": np.float32([5, 6]), "model/Logits/weights": np.float32([7, 8, 9])}


def test_graft_replaces_and_adds_and_says_where_from():
    source, other = from_arrays(HERE), from_arrays(THERE)
    edit = Graft(other, ("conv",), (("model", "net"),)).edit(source)
    assert list(edit.tensors) == list(HERE)
    assert edit.tensors["net/conv/weights"] is other["model/conv/weights"]
    assert edit.tensors["net/Logits/weights"] is source["net/Logits/weights"]
    assert [row.detail for row in edit.rows] == ["model/conv/weights of the other checkpoint"]
    added = Graft(other, ("conv",))(source)
    assert list(added) == [*HERE, "model/conv/weights"]


def test_graft_of_another_shape_must_be_asked_for():
    source, other = from_arrays(HERE), from_arrays(THERE)
    with pytest.raises(SelectionError, match=r"net/Logits/weights is float32\[2\] here, float32\[3\] there"):
        Graft(other, rename=(("model", "net"),))(source)
    made = Graft(other, rename=(("model", "net"),), any_shape=True)(source)
    assert made["net/Logits/weights"].spec.shape == (3,)


def test_graft_of_nothing():
    with pytest.raises(SelectionError, match="did you mean model/conv"):
        Graft(from_arrays(THERE), ("conf",))(from_arrays(HERE))
    with pytest.raises(SelectionError, match="modell matches no tensor"):
        Graft(from_arrays(THERE), rename=(("modell", "net"),))(from_arrays(HERE))


def test_graft_leaves_no_slot_of_another_shape_behind():
    slots = {"net/Logits/weights/Adam": np.float32([0, 0]), "net/Logits/weights/Adam_1": np.float32([0, 0])}
    operation = Graft(from_arrays(THERE), rename=(("model", "net"),), any_shape=True)
    with pytest.raises(SelectionError) as caught:
        operation(from_arrays(HERE | slots))
    advice = "would no longer fit net/Logits/weights; strip it first, or take it along"
    assert str(caught.value).splitlines() == [
        "2 problems:",
        *(f"  graft: {name} {advice}" for name in slots),
    ]
