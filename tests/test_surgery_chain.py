"""A chain of operations: its result, its rows, and all of its problems at once."""

import numpy as np
import pytest

from ckpt_tools.errors import SelectionError
from ckpt_tools.surgery import Cast, Drop, EmaToWeights, Fill, HeadResize, Keep, Loss, Rename, Strip, operate
from ckpt_tools.surgery.operation import EditRow
from ckpt_tools.tensors import Spec, Stored, Tensor, Tensors, from_arrays

F4, F2 = Spec("float32", (2,)), Spec("float16", (2,))
ARRAYS = {
    "net/w": np.float32([1, 2]),
    "net/w/Adam": np.float32([3, 4]),
    "net/w/ExponentialMovingAverage": np.float32([5, 1e9]),
    "global_step": np.int64(1),
}


def test_rows_tell_the_whole_way_of_each_tensor():
    surgery = operate(
        from_arrays(ARRAYS),
        [
            EmaToWeights(),
            Strip(("optimizer",)),
            Rename((("net", "model"),)),
            Cast("float16"),
            Fill(name="x", dtype="int8"),
        ],
    )
    assert surgery.rows == (
        EditRow("model/w", "ema_to_weights, rename, cast", "net/w/ExponentialMovingAverage", F4, F2),
        EditRow("x", "fill", "", None, Spec("int8", ()), "with 0"),
        EditRow("net/w/Adam", "strip", "net/w/Adam", F4, None, "slot of net/w"),
    )
    assert surgery.summary == {
        "before": {"tensors": 4, "parameters": 7, "bytes": 32},
        "after": {"tensors": 3, "parameters": 4, "bytes": 13},
    }
    assert surgery.losses == {}
    surgery.tensors["model/w"].load()
    assert surgery.losses == {"model/w": Loss(overflow=1, underflow=0)}


def test_losses_follow_a_later_rename():
    surgery = operate(from_arrays(ARRAYS), [Cast("float16"), Rename((("net", "model"),)), Drop(("Adam",))])
    for tensor in surgery.tensors.values():
        tensor.load()
    assert surgery.losses == {"model/w/ExponentialMovingAverage": Loss(overflow=1, underflow=0)}


def test_a_renamed_and_dropped_tensor_is_listed_under_its_first_name():
    surgery = operate(from_arrays(ARRAYS), [Rename((("net", "model"),)), Keep(("/global_step",))])
    assert {row.name: row.action for row in surgery.rows}["net/w"] == "rename, drop"


def test_swapped_names_keep_their_own_history():
    source = from_arrays({"a": np.float32([1, 2]), "b": np.float16([1, 2])})
    rows = operate(source, [Rename((("a", "b"), ("b", "a")))]).rows
    assert [(row.name, row.source, row.before.dtype) for row in rows] == [("b", "a", "float32"), ("a", "b", "float16")]


def test_all_problems_of_all_operations_are_said_at_once():
    operations = [Keep(("nett",)), Rename((("net/w", "global_step"),)), HeadResize(5), Drop(("Adam",))]
    with pytest.raises(SelectionError) as caught:
        operate(from_arrays(ARRAYS), operations)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 problems:"
    assert "nett selects nothing" in lines[1]
    assert "net/w and global_step would both be global_step" in lines[2]
    assert "head: no head" in lines[3]


def test_nothing_left_and_nothing_there():
    with pytest.raises(SelectionError, match="nothing is left"):
        operate(from_arrays(ARRAYS), [Drop(("**",))])
    with pytest.raises(SelectionError, match="the source has no tensors"):
        operate(Tensors(), [])


def test_no_operation_that_leaves_values_alone_reads_or_unties_them():
    def never():
        raise AssertionError("values were read")

    names = [*ARRAYS, "net/conv/biases"]
    source = Tensors((name, Tensor(F4, never, Stored("d", 8 * i, 8, i))) for i, name in enumerate(names))
    operations = [
        Rename(((r"re:^net/", "model/"),)),
        Drop(("conv",)),
        Strip(("optimizer", "step")),
        EmaToWeights(),
        Keep(("model",)),
    ]
    made = operate(source, operations).tensors
    assert list(made) == ["model/w"]
    assert made["model/w"] is source["net/w/ExponentialMovingAverage"]
