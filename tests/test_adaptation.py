"""Class maps and adapted values, compared with explicit loops."""

import numpy as np
import pytest

from ckpt_tools.adaptation import Adaptation, channels, class_map_of_labels, classes, parse_class_map, read_class_map
from ckpt_tools.errors import RecipeError


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_classes_are_taken_by_index(axis):
    rng = np.random.default_rng(axis)
    old, fresh = rng.normal(size=(4, 5, 6)), rng.normal(size=[3 if i == axis else n for i, n in enumerate((4, 5, 6))])
    made = classes(axis, (2, None, 0)).apply(old, fresh)
    for new, taken in enumerate((2, None, 0)):
        expected = np.take(fresh, new, axis) if taken is None else np.take(old, taken, axis)
        np.testing.assert_array_equal(np.take(made, new, axis), expected)


def test_the_arguments_are_not_changed_and_the_type_is_that_of_the_variable():
    old, fresh = np.ones((2, 3), "float64"), np.zeros((2, 1), "float16")
    made = classes(1, (2,)).apply(old, fresh)
    assert made.dtype == np.float16
    assert not fresh.any()


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 4), (3, 6), (4, 3), (1, 3)])
def test_a_grey_picture_gives_the_response_that_it_gave(old, new):
    rng = np.random.default_rng(0)
    filters = rng.normal(size=(3, 3, old, 8))
    made = channels(2, old, new).apply(filters, np.zeros((3, 3, new, 8)))
    assert made.shape == (3, 3, new, 8)
    if new == 1 or new % old == 0:
        np.testing.assert_allclose(made.sum(axis=2), filters.sum(axis=2))
    else:  # as timm does: the first channels are repeated and scaled, which is no exact sum
        np.testing.assert_allclose(made, np.take(filters, [i % old for i in range(new)], axis=2) * old / new)


def test_channel_sum_lists_what_it_sums():
    assert channels(2, 3, 1) == Adaptation("channel sum", 2, (0, 1, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0,)),
        ("3,7,_,10-12", (3, 7, None, 10, 11, 12)),
        (" 1 , 2 ", (1, 2)),
        ("1\n2\n_\n", (1, 2, None)),
        ("5-5", (5,)),
    ],
)
def test_parse_class_map(text, expected):
    assert parse_class_map(text) == expected


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "3-1", "1.5", "0-99999999999"])
def test_what_is_no_class_map(text):
    with pytest.raises(RecipeError, match="class map"):
        parse_class_map(text)


def test_a_file_that_is_no_text_is_no_class_map(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"\0\0\xae")
    with pytest.raises(RecipeError, match="model.ckpt is not a text file. Give indices of old classes"):
        read_class_map(str(tmp_path / "model.ckpt"))


def test_labels():
    assert class_map_of_labels(["b", "new", "", "a"], ["a", "", "b"]) == (2, None, None, 0)
    # ImageNet has two cranes: they go in pairs, one alone is not told from the other.
    assert class_map_of_labels(["crane", "crane"], ["background", "crane", "cat", "crane"]) == (1, 3)
    with pytest.raises(RecipeError, match=r"called 'crane' are 2 \(0, 1\), the new ones 1"):
        class_map_of_labels(["crane"], ["crane", "crane"])
    with pytest.raises(RecipeError, match="none of the 2 new labels is an old one"):
        class_map_of_labels(["x", "y"], ["a", "b"])
