"""Rename, keep, drop, strip, averages to weights: names change, tensors pass through untouched."""

import re

import numpy as np
import pytest

from ckpt_tools.errors import RecipeError, SelectionError
from ckpt_tools.surgery import Drop, EmaToWeights, Keep, Rename, Strip
from ckpt_tools.tensors import Spec, Stored, Tensor, Tensors, from_arrays

NET = ["net/conv1/weights", "net/conv1/biases", "net/Logits/weights", "net/Logits/biases"]


def never() -> np.ndarray:
    raise AssertionError("values were read")


def unread(*names: str, shape: tuple[int, ...] = (2, 3)) -> Tensors:
    """Tensors whose bytes lie in a file and whose values must not be asked for."""
    return Tensors(
        (name, Tensor(Spec("float32", shape), never, Stored("data", 24 * place, 24, place)))
        for place, name in enumerate(names)
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            (("net", "model"),),
            ["model/conv1/weights", "model/conv1/biases", "model/Logits/weights", "model/Logits/biases"],
        ),
        ((("net", ""),), ["conv1/weights", "conv1/biases", "Logits/weights", "Logits/biases"]),
        ((("", "a/b"),), [f"a/b/{name}" for name in NET]),
        ((("net/conv1/biases", "net/conv1/bias"),), [NET[0], "net/conv1/bias", *NET[2:]]),
        (((r"re:/(\w)eights$", r"/\1"),), ["net/conv1/w", NET[1], "net/Logits/w", NET[3]]),
        (
            ((r"re:(?P<scope>conv\d)", r"block/\g<scope>"),),
            ["net/block/conv1/weights", "net/block/conv1/biases", *NET[2:]],
        ),
        ((("net/conv1", "net/Logits"), ("net/Logits", "net/conv1")), [*NET[2:], *NET[:2]]),
        ((("net/conv1/biases", "x"), ("net/conv1", "c")), ["c/weights", "x", *NET[2:]]),
    ],
)
def test_rename(rules, expected):
    source = unread(*NET)
    renamed = Rename(rules)(source)
    assert list(renamed) == expected
    # The very same tensors: their bytes can be copied.
    assert [renamed[name] for name in expected] == [source[name] for name in NET]
    assert list(source) == NET


def test_a_scope_is_whole_components():
    assert list(Rename((("net", "x"),))(unread("net/a", "network/a"))) == ["x/a", "network/a"]


def test_all_collisions_and_all_idle_rules_are_named_at_once():
    with pytest.raises(SelectionError) as caught:
        Rename((("net/conv1", "net/Logits"), ("net/Logitz", "head"), (r"re:nothing(\d)", r"\1")))(unread(*NET))
    text = str(caught.value)
    assert text.startswith("4 problems:\n")
    assert "rename: net/Logitz matches no tensor and no scope; did you mean net/Logits (2 variables)?" in text
    assert r"rename: re:nothing(\d) matches no name" in text
    assert "net/conv1/weights and net/Logits/weights would both be net/Logits/weights" in text
    assert "net/conv1/biases and net/Logits/biases would both be net/Logits/biases" in text


def test_of_many_tensors_that_would_have_one_name_the_first_are_named():
    with pytest.raises(SelectionError, match="^rename: a0 and a1 and a2 and a3 and a4 and 295 more would all be x$"):
        Rename((("re:.*", "x"),))(unread(*(f"a{number}" for number in range(300))))


def test_a_rule_that_comes_too_late_is_said():
    with pytest.raises(SelectionError, match="an earlier rule takes every name that net/conv1 matches"):
        Rename((("net", "n"), ("net/conv1", "first")))(unread(*NET))


def test_a_name_must_not_vanish():
    with pytest.raises(SelectionError, match="nothing is left of the name net"):
        Rename((("net", ""),))(unread("net", "net/a"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("re:(a", "b", "unterminated subpattern"),
        ("re:(a)", r"\2", "invalid group reference 2"),
        ("re:(a)", r"\g<x>", "unknown group name"),
        ("a/", "a", "changes nothing"),
        ("", "/", "changes nothing"),
    ],
)
def test_a_wrong_rule_is_known_before_anything_is_opened(old, new, reason):
    with pytest.raises(RecipeError, match=reason):
        Rename(((old, new),))


def test_keep_and_drop_complement_each_other():
    source = unread(*NET)
    assert list(Keep(("Logits",))(source)) == NET[2:]
    assert list(Drop(("Logits",))(source)) == NET[:2]
    assert list(Drop(("Logits,!biases",))(source)) == [*NET[:2], NET[3]]


@pytest.mark.parametrize("operation", [Keep, Drop])
def test_a_pattern_that_selects_nothing_is_an_error(operation):
    with pytest.raises(SelectionError, match="did you mean net/Logits"):
        operation(("Logitz",))(unread(*NET))


TRAINED = {
    "global_step": np.int64(7),
    "net/w": np.float32([1, 2]),
    "net/w/Adam": np.float32([3, 4]),
    "net/w/Adam_1": np.float32([5, 6]),
    "net/w/ExponentialMovingAverage": np.float32([7, 8]),
    "net/BatchNorm/moving_mean": np.float32([9, 10]),
    "net/BatchNorm/beta": np.float32([0, 0]),
    "beta1_power": np.float32(0.9),
}


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        (("optimizer",), {"net/w/Adam", "net/w/Adam_1", "beta1_power"}),
        (("ema",), {"net/w/ExponentialMovingAverage"}),
        (("step",), {"global_step"}),
    ],
)
def test_strip_goes_by_what_a_tensor_belongs_to(what, gone):
    stripped = Strip(what)(from_arrays(TRAINED))
    assert set(TRAINED) - set(stripped) == gone
    assert list(Strip(what)(stripped)) == list(stripped)


def test_strip_leaves_a_weight_that_only_looks_like_a_slot():
    source = from_arrays({"net/Adam": np.float32([1]), "net/Momentum/weights": np.float32([1])})
    assert list(Strip()(source)) == list(source)


def test_strip_names_the_nearest_word():
    with pytest.raises(RecipeError, match="did you mean optimizer"):
        Strip(("optimiser",))


def test_moving_averages_become_the_weights_and_go():
    edit = EmaToWeights().edit(from_arrays(TRAINED))
    assert "net/w/ExponentialMovingAverage" not in edit.tensors
    np.testing.assert_array_equal(edit.tensors["net/w"].load(), [7, 8])
    assert list(edit.tensors)[:2] == ["global_step", "net/w"]
    assert [(row.name, row.source) for row in edit.rows] == [("net/w", "net/w/ExponentialMovingAverage")]


def test_a_zero_debiased_average_is_taken_without_its_companions():
    average = "net/w/ExponentialMovingAverage"
    source = from_arrays(
        {"net/w": np.float32([1, 2]), average: np.float32([3, 4])}
        | {f"{average}/biased": np.float32([5, 6]), f"{average}/local_step": np.float32(9)}
    )
    result = EmaToWeights()(source)
    assert list(result) == ["net/w"]
    np.testing.assert_array_equal(result["net/w"].load(), [3, 4])


def test_no_moving_averages_is_an_error():
    with pytest.raises(SelectionError, match="no moving averages"):
        EmaToWeights()(from_arrays({"w": np.float32([1])}))


def test_a_long_list_of_rules_none_of_which_fits_is_one_sentence():
    source = from_arrays({"net/w": 1.0})
    rules = tuple((f"conv{i}", f"Conv{i}") for i in range(40))
    said = "rename: none of the 40 rules (conv0, conv1, conv2, ...) matches a tensor of this checkpoint"
    with pytest.raises(SelectionError, match=f"^{re.escape(said)}$"):
        Rename(rules)(source)
    with pytest.raises(SelectionError, match="^39 problems"):
        Rename((*rules[1:], ("net", "conv")))(source)


def test_three_that_would_be_one():
    source = from_arrays({f"a{i}/w": 1.0 for i in range(3)})
    with pytest.raises(SelectionError, match="^rename: a0/w and a1/w and a2/w would all be b/w$"):
        Rename(((r"re:^a\d", "b"),))(source)
