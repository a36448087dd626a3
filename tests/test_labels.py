"""Files of labels: one reader for data sets, class maps and predictions."""

import pytest

from ckpt_tools.cli.plan import class_map_of
from ckpt_tools.errors import DataError, RecipeError
from ckpt_tools.labels import label_list, read_labels


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return str(path)

    return write


def test_names_and_slims_own_form(write):
    for text in ("cat \n\ndog\n", "0:cat\r\n1: dog\r\n", "\ufeff1:dog\n0:cat"):
        assert sorted(read_labels(write(text)).items()) == [(0, "cat"), (1, "dog")]
        assert label_list(write(text)) == ("cat", "dog")
    assert label_list(write("1:cat\n3:dog")) == ("", "cat", "", "dog")
    assert label_list(write("9:lives\ncat")) == ("9:lives", "cat")


def test_imagenet_has_two_cranes(write):
    path = write("crane\ncat\ncrane\n")
    assert label_list(path) == ("crane", "cat", "crane")
    assert read_labels(path) == {0: "crane (0)", 1: "cat", 2: "crane (2)"}
    assert class_map_of(f"{write('cat')}={path}") == (1,)
    with pytest.raises(RecipeError, match=r"called 'crane' are 2 \(0, 2\), the new ones 1"):
        class_map_of(f"{write('crane')}={path}")


def test_a_class_map_of_files_in_slims_form(write):
    new, old = write("0:rose\n1:zebra"), write("0:background\n1:daisy\n2:rose")
    assert class_map_of(f"{new}={old}") == (2, None)
    # A class that a file leaves out is nobody's.
    new, old = write("1:rose"), write("1:daisy\n2:rose")
    assert class_map_of(f"{new}={old}") == (None, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n \n", "holds no label"),
        ("0:a\n0:b", "has the id 0 twice"),
        ("7:a\n123456789:b", "has an id of 123,456,789"),
        ("\udcff\udcfe", "is not a text file in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file(text, said, write):
    with pytest.raises(DataError, match=said):
        label_list(write(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: cannot be read as labels \(No such file or directory\)"):
        label_list(tmp_path / "none.txt")
