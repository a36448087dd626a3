"""Files of labels: one reader for data sets, class maps and predictions."""

import pytest

from ckpt_tools.adaptation import read_class_map
from ckpt_tools.errors import DataError, RecipeError
from ckpt_tools.labels import label_list, read_labels
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.request import class_map_of


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return str(path)

    return write


def mapped(files):
    """The class map of --class-map NEW.txt=OLD.txt."""
    return read_class_map(class_map_of(Options(class_map=files), ()))


def test_names_and_slims_own_form(write):
    for text in ("cat \n\ndog\n", "0:cat\r\n1: dog\r\n", "\ufeff1:dog\n0:cat"):
        assert sorted(read_labels(write(text)).items()) == [(0, "cat"), (1, "dog")]
        assert label_list(write(text)) == ("cat", "dog")
    assert label_list(write("1:cat\n3:dog")) == ("", "cat", "", "dog")
    assert label_list(write("9:lives\ncat")) == ("9:lives", "cat")


@pytest.mark.parametrize(
    "text",
    ["0,daisy\n1,rose\n", "0, daisy\n1, rose", "0\tdaisy\n1\trose", "0 daisy\n1 rose", "0  daisy\n1  rose",
     "id,name\n0,daisy\n1,rose\n", '0,"daisy"\n1,"rose"\n', "0:daisy\n1:rose"],
)  # fmt: skip
def test_lines_of_id_and_name(text, write):
    assert read_labels(write(text)) == {0: "daisy", 1: "rose"}


def test_names_that_begin_with_numbers(write):
    assert label_list(write("3 point shot\n2 point shot\n")) == ("3 point shot", "2 point shot")  # these are names
    assert label_list(write("9:lives\ncat")) == ("9:lives", "cat")
    assert label_list(write("1:cat, tabby\n0:dog")) == ("dog", "cat, tabby")


LABEL_MAP = """
# the classes of the detector
item {
  id: 1
  name: '/m/01g317'
  display_name: "Person"
}
item: { name: "dog's \\"best\\"" id: 3
  keypoints { id: 7 label: "nose" }
}
"""


def test_tensorflows_label_maps(write):
    assert read_labels(write(LABEL_MAP)) == {1: "Person", 3: 'dog\'s "best"'}
    for wrong, said in (
        (LABEL_MAP.replace("id: 3", ""), "item 1 has no id and name of its own"),
        (LABEL_MAP.replace("id: 3", "id: 1"), "item 1 has no id and name of its own"),
        (LABEL_MAP.rstrip()[:-1], "is not a complete label map"),
    ):
        with pytest.raises(DataError, match=said):
            read_labels(write(wrong))


def test_label_maps_are_those_of_protobuf(write):
    """Against TensorFlow's own text format, by a message of the same fields."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="map.proto", package="t")
    item = file.message_type.add(name="Item")
    for number, (name, kind) in enumerate((("name", 9), ("id", 5), ("display_name", 9)), 1):
        item.field.add(name=name, number=number, type=kind, label=1)
    whole = file.message_type.add(name="Map")
    whole.field.add(name="item", number=1, type=11, label=3, type_name=".t.Item")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Map"))
    names = {1: "café 猫", 2: 'a "quoted" name', 90: "back\\slash, and 'more'"}
    made = kind(item=[{"id": i, "name": name} for i, name in names.items()])
    for as_utf8 in (True, False):
        assert read_labels(write(text_format.MessageToString(made, as_utf8=as_utf8))) == names


def test_imagenet_has_two_cranes(write):
    path = write("crane\ncat\ncrane\n")
    assert label_list(path) == ("crane", "cat", "crane")
    assert read_labels(path) == {0: "crane (0)", 1: "cat", 2: "crane (2)"}
    assert mapped(f"{write('cat')}={path}") == (1,)
    with pytest.raises(RecipeError, match=r"called 'crane' are 2 \(0, 2\), the new ones 1"):
        mapped(f"{write('crane')}={path}")


def test_a_class_map_of_files_in_slims_form(write):
    new, old = write("0:rose\n1:zebra"), write("0:background\n1:daisy\n2:rose")
    assert mapped(f"{new}={old}") == (2, None)
    # A class that a file leaves out is nobody's.
    new, old = write("1:rose"), write("1:daisy\n2:rose")
    assert mapped(f"{new}={old}") == (None, 2)


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
