"""Cast, reshape, transpose, slice, pad, fill: values as in numpy, specs known without reading."""

import numpy as np
import pytest
from ml_dtypes import bfloat16

from ckpt_tools.dtypes import numpy_dtype
from ckpt_tools.errors import CheckpointError, RecipeError, SelectionError
from ckpt_tools.surgery import Cast, Fill, Loss, Pad, Reshape, SliceOf, Transpose
from ckpt_tools.surgery.casting import cast_values
from ckpt_tools.tensors import Extent, Slice, Spec, Tensor, Tensors, from_array, from_arrays

CUBE = np.arange(24, dtype="float32").reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Reshape(("w",), (4, 6)), CUBE.reshape(4, 6)),
        (Reshape(("w",), (-1, 4)), CUBE.reshape(6, 4)),
        (Transpose(("w",)), CUBE.T),
        (Transpose(("w",), (1, 0, 2)), CUBE.transpose(1, 0, 2)),
        (SliceOf(("w",), 1), CUBE[:, :, 1:]),
        (SliceOf(("w",), 0, 2, 1), CUBE[:, :2]),
        (SliceOf(("w",), -3, -1, -1), CUBE[..., -3:-1]),
        (Pad(("w",), 1, 2, 0, 9.0), np.pad(CUBE, ((1, 2), (0, 0), (0, 0)), constant_values=9)),
        (Fill(("w",), 3.5), np.full_like(CUBE, 3.5)),
        (Cast("float16"), CUBE.astype("float16")),
        (Cast("bfloat16"), CUBE.astype(bfloat16)),
        (Cast("int32", ("w",)), CUBE.astype("int32")),
    ],
)
def test_values_and_the_spec_that_was_announced(operation, expected):
    source = from_arrays({"w": CUBE, "step": np.int64(3)})
    result = operation(source)
    made = result["w"].load()
    np.testing.assert_array_equal(made, expected)
    assert made.dtype == expected.dtype == numpy_dtype(result["w"].spec.dtype)
    assert result["w"].spec.shape == made.shape
    assert result["step"] is source["step"]
    np.testing.assert_array_equal(source["w"].load(), CUBE)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (Reshape(("w",), (5, 5)), r"w is float32\[2,3,4\]: its 24 values do not fit the shape \[5, 5\]"),
        (Reshape(("w",), (-1, 7)), "do not fit"),
        (Reshape(("w",), (-1, 0)), "do not fit"),
        (Transpose(("w",), (0, 1)), r"axes \[0, 1\] are not its 3 axes"),
        (SliceOf(("w",), 0, 5), "0:5 is not a part of 4"),
        (SliceOf(("w",), 2, 2), "2:2 is not a part of 4"),
        (SliceOf(("w",), 0, 1, 3), "it has 3 axes, not axis 3"),
        (Pad(("w",), 1, axis=-4), "it has 3 axes, not axis -4"),
        (Cast("float16", ("name",)), "name is string, which has no cast to float16"),
        (Fill(("name",), 1.0), "which no number fills"),
        (Pad(("name",), 1), "name is string\\[2\\], which no number fills"),
        (Fill(("byte",), 300.0), "byte is uint8\\[2\\], which cannot hold 300"),
        (Pad(("byte",), 1, value=-1.0), "byte is uint8\\[2\\], which cannot hold -1"),
        (Fill(("w",), 1e39), "cannot hold 1e\\+39"),
        (Fill(name="step", dtype="int32", value=1e12), "step is int32\\[\\], which cannot hold 1000000000000"),
        (Fill(name="w", dtype="float32"), "w exists already"),
    ],
)
def test_what_does_not_fit_is_said_before_a_value_is_read(operation, reason):
    specs = {"w": Spec("float32", (2, 3, 4)), "name": Spec("string", (2,)), "byte": Spec("uint8", (2,))}
    source = Tensors((name, Tensor(spec, None)) for name, spec in specs.items())
    with pytest.raises(SelectionError, match=reason):
        operation(source)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Cast("float17"), "no element type 'float17' to cast to; did you mean float16"),
        (lambda: Cast("string"), "no element type 'string'"),
        (lambda: Cast("qint8"), "no element type 'qint8' to cast to; did you mean int8"),
        (lambda: Cast("int8"), "`select` says which"),
        (lambda: Reshape(("w",), (-1, -1)), "one may be -1"),
        (lambda: Pad(("w",)), "not both 0"),
        (lambda: Fill(("w",), name="v", dtype="int8"), "`select`.* or `name` and `dtype`"),
        (lambda: Fill(name="v", dtype="int8", shape=(2, -1)), r"\[2, -1\] is not a shape"),
        (lambda: Fill(name="v", dtype="float33"), "did you mean float32"),
    ],
)
def test_a_wrong_field_is_said_when_the_operation_is_made(make, reason):
    with pytest.raises(RecipeError, match=reason):
        make()


def test_a_fill_says_the_value_to_the_last_digit():
    (row,) = Fill(name="global_step", dtype="int64", value=1234567).edit(from_arrays({})).rows
    assert row.detail == "with 1234567"
    (row,) = Fill(("w",), value=0.1).edit(from_arrays({"w": CUBE})).rows
    assert row.detail == "with 0.1"


def test_all_tensors_that_do_not_fit_are_named_at_once():
    source = from_arrays({"a/w": CUBE, "b/w": CUBE[0], "c/w": CUBE[:1]})
    with pytest.raises(SelectionError) as caught:
        Reshape(("w",), (2, 12))(source)
    assert str(caught.value).splitlines() == [
        "2 problems:",
        "  reshape: b/w is float32[3,4]: its 12 values do not fit the shape [2, 12]",
        "  reshape: c/w is float32[1,3,4]: its 12 values do not fit the shape [2, 12]",
    ]


def test_fill_makes_a_new_tensor():
    made = Fill(name="global_step", dtype="int64", value=5)(from_arrays({"w": CUBE}))
    assert list(made) == ["w", "global_step"]
    assert made["global_step"].load() == np.int64(5)


class TestCast:
    def test_integers_and_strings_stay_unless_selected(self):
        source = from_arrays({"w": CUBE, "step": np.int64(3), "name": np.array(b"x", object)})
        result = Cast("float16")(source)
        assert {name: spec.dtype for name, spec in result.specs().items()} == {
            "w": "float16",
            "step": "int64",
            "name": "string",
        }

    def test_what_has_the_type_already_keeps_its_bytes(self):
        source = from_arrays({"w": CUBE})
        assert Cast("float32")(source)["w"] is source["w"]

    def test_batch_norm_statistics_can_stay(self):
        source = from_arrays({"bn/moving_variance": np.float32([1e-9]), "bn/gamma": np.float32([1])})
        specs = Cast("float16", keep_statistics=True)(source).specs()
        assert [spec.dtype for spec in specs.values()] == ["float32", "float16"]

    def test_losses_are_counted_when_the_values_are_written(self):
        values = np.float32([1e9, -1e9, 1e-12, 0, np.inf, np.nan, 1])
        edit = Cast("float16").edit(from_arrays({"w": values, "v": np.float32([1, 2])}))
        assert edit.losses == {}
        edit.tensors["w"].load()
        edit.tensors["v"].load()
        edit.tensors["w"].load()  # a second look counts nothing twice
        assert edit.losses == {"w": Loss(overflow=2, underflow=1)}

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz"])
    def test_the_counts_agree_with_a_plain_comparison(self, dtype):
        generator = np.random.default_rng(0)
        values = (generator.standard_normal(600_000) * 10.0 ** generator.integers(-44, 38, 600_000)).astype("float32")
        values[:7] = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45]
        made, loss = cast_values(values, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            plain = values.astype(numpy_dtype(dtype))
        np.testing.assert_array_equal(made.view("uint8"), plain.view("uint8"))
        wide = plain.astype("float32")
        assert loss == Loss(
            overflow=np.count_nonzero(np.isfinite(values) & ~np.isfinite(wide)),
            underflow=np.count_nonzero((values != 0) & (wide == 0)),
        )
        assert loss["underflow"] > 0

    def test_integers_truncate_and_count_what_leaves_their_range(self):
        made, loss = cast_values(np.float64([1.9, -1.9, 300, -0.5, np.nan, 2**63]), "int8")
        assert made.tolist() == [1, -1, 0, 0, 0, 0]
        assert loss == Loss(overflow=3, underflow=1)
        made, loss = cast_values(np.float64([2.0**63, -(2.0**63)]), "int64")
        assert (made.tolist(), loss["overflow"]) == ([0, -(2**63)], 1)
        assert cast_values(np.int64([300, 5]), "uint8")[1] == Loss(overflow=1, underflow=0)
        assert cast_values(np.float32([0.5, 0]), "bool")[0].tolist() == [True, False]

    def test_complex_numbers(self):
        made, loss = cast_values(np.complex128([1 + 2j, 1e300j, 1e-300, np.inf, 0]), "complex64")
        assert made.tolist() == [1 + 2j, complex(0, np.inf), 0, np.inf, 0]
        assert (made.dtype, loss) == (np.complex64, Loss(overflow=1, underflow=1))
        assert cast_values(np.float32([1, 2]), "complex128")[0].tolist() == [1, 2]

    def test_a_partitioned_variable_stays_partitioned(self):
        parts = [from_array(np.float32([1, 1e9])), from_array(np.float32([1e-12, 4]))]
        slices = tuple(Slice((Extent(2 * place, 2),), part) for place, part in enumerate(parts))
        whole = Tensor(Spec("float32", (4,)), lambda: np.float32([1, 1e9, 1e-12, 4]), slices=slices)
        edit = Cast("float16").edit(Tensors({"w": whole}))
        made = edit.tensors["w"]
        assert [each.extents for each in made.slices] == [each.extents for each in slices]
        assert [each.tensor.spec for each in made.slices] == [Spec("float16", (2,))] * 2
        assert [each.tensor.load().tolist() for each in made.slices] == [[1, np.inf], [0, 4]]
        assert edit.losses["w"] == Loss(overflow=1, underflow=1)
        made.load()  # the whole, as another format writes it, counts the same
        assert edit.losses["w"] == Loss(overflow=1, underflow=1)


def test_every_problem_is_one_of_ours():
    with pytest.raises(CheckpointError):
        Cast("float16", ("nothing_here",))(from_arrays({"w": CUBE}))
