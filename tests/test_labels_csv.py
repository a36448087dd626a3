"""CSV files of files and labels: columns, headers, splits, several labels."""

import numpy as np
import pytest
from test_folders import photos, sizes

from ckpt_tools.errors import DataError
from ckpt_tools.train.data.loading import load_data_set

ROWS = [(f"{i}", "cat" if i % 3 else "dog", ("train", "valid")[i % 4 == 3]) for i in range(12)]
CATS = [i % 3 > 0 for i in range(12)]


def folder(root, text="", where="{}.png", name="labels.csv"):
    """Twelve images, and a CSV of this text; returns the folder."""
    photos(root, *(where.format(i) for i in range(12)))
    (root / name).write_text(text, encoding="utf-8")
    return root


def lines(form, header="", rows=ROWS):
    return "".join(f"{line}\n" for line in [*([header] if header else []), *(form.format(*row) for row in rows)])


def labels_of(data):
    """Name of each image without its ending -> its label."""
    every = data.split("all")
    return {
        name.rpartition("/")[2].partition(".")[0]: data.labels[number]
        for name, number in zip(every.names, every.label_ids, strict=True)
    }


WANTED = {row[0]: row[1] for row in ROWS}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (lines("{}.png,{}", "file,label"), "{}.png"),
        (lines("{}.png,{}"), "{}.png"),
        (lines("{};{}", "id;breed"), "{}.png"),
        (lines("{1}\t{0}", "species\tImage ID"), "pictures/{}.png"),
        (lines("{1},pictures/{0}.png,7", "class,path,width"), "pictures/{}.png"),
        (lines("/home/me/data/{}.png,{}", "filename,category"), "{}.png"),
        (lines("C:\\data\\{}.png, {}", "filename, category"), "deep/er/{}.png"),
        ("\ufeff" + lines('"{}.png","{}"', '"name","target"'), "{}.png"),
        ("\ufeffsep=;\r\n" + lines("{};{}", "name;target"), "{}.png"),
    ],
)
def test_columns_are_found(tmp_path, text, where):
    data = load_data_set(folder(tmp_path, text, where))
    assert (data.kind, data.labels, labels_of(data)) == ("csv", ("cat", "dog"), WANTED)
    assert data.notes[0] == "the labels are those of labels.csv"
    first = data.train.names[0]
    assert data.train.read(0) == (tmp_path / first).read_bytes()


def test_numbers_as_names_of_files_and_of_classes(tmp_path):
    """The label column comes first and its numbers are names of images as well: that with more of them names files."""
    rows = [(i, i % 3) for i in range(12)]
    data = load_data_set(folder(tmp_path, lines("{1},{0}", "y,image", rows)))
    assert labels_of(data) == {str(i): str(i % 3) for i in range(12)}
    (tmp_path / "labels.txt").write_text("ant\nbee\ncow\n")
    assert labels_of(load_data_set(tmp_path))["5"] == "cow"


def test_a_column_of_splits_and_fastais(tmp_path):
    data = load_data_set(folder(tmp_path, lines("{}.png,{},{}", "file,label,split")))
    assert sizes(data) == (9, 3, None)
    assert sorted(data.validation.names) == ["11.png", "3.png", "7.png"]
    flags = [(*row[:2], row[2] == "valid") for row in ROWS]
    (tmp_path / "labels.csv").write_text(lines("{}.png,{},{}", "fname,label,is_valid", flags))
    assert sizes(load_data_set(tmp_path)) == (9, 3, None)
    wrong = [(*row[:2], "train" if i else "fold 3") for i, row in enumerate(ROWS)]
    (tmp_path / "labels.csv").write_text(lines("{}.png,{},{}", "file,label,set", wrong))
    with pytest.raises(DataError, match="labels.csv: column set says 'fold 3'. It can say train, validation or test."):
        load_data_set(tmp_path)


def test_folders_and_files_of_splits(tmp_path):
    photos(tmp_path, *(f"{('train', 'test')[i % 4 == 3]}/{i}.png" for i in range(12)))
    (tmp_path / "labels.csv").write_text(lines("{}.png,{}", "file,label"))
    assert sizes(load_data_set(tmp_path)) == (9, 3, None)  # by the folders that the images lie in
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "train.csv").write_text(lines("{},{}", "id,label", [row for row in ROWS if row[2] == "train"]))
    (tmp_path / "test.csv").write_text(lines("{}", "id", [row for row in ROWS if row[2] == "valid"]))
    data = load_data_set(tmp_path)  # Kaggle's: the images to be submitted have no labels
    assert (len(data.train) + len(data.validation), data.test) == (9, None)
    assert data.notes[:3] == (
        "the labels are those of test.csv, train.csv",
        "left out, it has no labels: file test.csv",
        "left out, in no row: 3 of 12 images",
    )
    (tmp_path / "test.csv").write_text(lines("{},{}", "id,label", [row for row in ROWS if row[2] == "valid"]))
    assert sizes(load_data_set(tmp_path)) == (9, 3, None)
    (tmp_path / "sample_submission.csv").write_text("id,label\n")
    assert sizes(load_data_set(tmp_path)) == (9, 3, None)
    (tmp_path / "train_extra.csv").write_text("id,label\n")
    with pytest.raises(DataError, match=r"4 files: .*train_extra.csv may hold the labels. Name one with --labels-csv"):
        load_data_set(tmp_path)
    assert len(load_data_set(tmp_path, labels_csv=tmp_path / "train.csv").train) == 7
    assert len(load_data_set(tmp_path, labels_csv="train.csv").train) == 7


def test_class_folders_win_over_a_csv_that_nobody_named(tmp_path):
    photos(tmp_path, *(f"{'ab'[i % 2]}/{i}.png" for i in range(12)))
    (tmp_path / "labels.csv").write_text(lines("{},{}", "id,label"))
    data = load_data_set(tmp_path)
    assert data.labels == ("a", "b")
    assert "the class folders are taken; --labels-csv would take labels.csv" in data.notes
    assert load_data_set(tmp_path, labels_csv="labels.csv").labels == ("cat", "dog")


def test_what_is_not_there(tmp_path):
    folder(tmp_path, lines("{}.png,{}", "file,label") + "99.png,cat\n")
    photos(tmp_path, *(f"more{i}.png" for i in range(20)))
    with pytest.raises(
        DataError, match=r"1 of 13 files that it names are not there: file 99.png. --data names the fol"
    ):
        load_data_set(tmp_path)
    rows = [(f"more{i}", "cat") for i in range(20)]
    (tmp_path / "labels.csv").write_text(
        lines("{}.png,{}", "file,label") + lines("{}.png,{}", rows=rows) + "99.png,cat\n"
    )
    assert "left out, not there: file 99.png" in load_data_set(tmp_path).notes
    (tmp_path / "labels.csv").write_text(lines("x{}.png,{}", "file,label"))
    with pytest.raises(
        DataError, match="labels.csv: no column names images of the folder, which has 32; its second row"
    ):
        load_data_set(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="its only row is file, label. --data names the folder"):
        load_data_set(tmp_path)
    (tmp_path / "labels.csv").write_text("ä.png,cat\n", encoding="latin-1")
    with pytest.raises(DataError, match="is not a text file in UTF-8. Save it as CSV UTF-8."):
        load_data_set(tmp_path)
    with pytest.raises(DataError, match="nowhere.csv: cannot be read"):
        load_data_set(tmp_path, labels_csv="nowhere.csv")
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match="--labels-csv is for a folder of images"):
        load_data_set(tmp_path / "x.npz", labels_csv="labels.csv")


def test_files_of_one_name_need_their_folders(tmp_path):
    photos(tmp_path, *(f"{side}/{i}.png" for side in ("left", "right") for i in range(6)))
    (tmp_path / "labels.csv").write_text(lines("{},{}", rows=[(f"{i}.png", "ab"[i % 2]) for i in range(6)]))
    with pytest.raises(DataError, match="0.png could be several images of the folder. Write their folders as well."):
        load_data_set(tmp_path, labels_csv="labels.csv")
    rows = [(f"{side}/{i}.png", side) for side in ("left", "right") for i in range(6)]
    (tmp_path / "labels.csv").write_text(lines("{},{}", rows=rows))
    assert load_data_set(tmp_path, labels_csv="labels.csv").labels == ("left", "right")


def test_columns_that_could_all_be_the_label_are_asked_for(tmp_path):
    rows = [(*row[:2], f"size {i % 2}") for i, row in enumerate(ROWS)]
    folder(tmp_path, lines("{}.png,{},{}", "file,species,size", rows))
    with pytest.raises(DataError, match="species, size: any of them could be the label. --label-column names it."):
        load_data_set(tmp_path)
    assert load_data_set(tmp_path, label_column=["size"]).labels == ("size 0", "size 1")
    with pytest.raises(DataError, match="has no column sise; did you mean size.* It has file, species, size"):
        load_data_set(tmp_path, label_column=["sise"])
    with pytest.raises(DataError, match=r"0.png has 2 labels \(dog, size 0\)"):
        load_data_set(tmp_path, label_column=["species", "size"])
    both = load_data_set(tmp_path, label_column=["species", "size"], labels_per_image="many")
    assert both.labels == ("cat", "dog", "size 0", "size 1")
    assert both.split("all").label_ids.sum(axis=1).tolist() == [2] * 12
    (tmp_path / "labels.csv").write_text(lines("{}.png,{},{}", rows=rows))
    with pytest.raises(DataError, match="column 2, column 3: .* Give the file a header"):
        load_data_set(tmp_path)


HOT = [[i % 2, i % 3 == 0, i > 8] for i in range(12)]
NAMES = ["stripes", "dots", "big one"]
TEXTS = [[name for name, there in zip(NAMES, row, strict=True) if there] for row in HOT]


@pytest.mark.parametrize(
    "text",
    [
        lines("{}.png,{}", "file,tags", [(i, "|".join(t)) for i, t in enumerate(TEXTS)]),
        lines('{}.png,"{}"', "file,tags", [(i, ", ".join(t)) for i, t in enumerate(TEXTS)]),
        lines("{}.png,{},{},{}", "file,stripes,dots,big one", [(i, *map(int, row)) for i, row in enumerate(HOT)]),
        lines("{}.png,{},{}", "file,stripes,label", [(i, "", name) for i, t in enumerate(TEXTS) for name in t or [""]]),
        lines(
            "{}.png,{},{},{}", "file,label1,label2,label3", [(i, *t, *[""] * (3 - len(t))) for i, t in enumerate(TEXTS)]
        ),
    ],
)
def test_several_labels_in_the_ways_that_people_write_them(tmp_path, text):
    data = load_data_set(folder(tmp_path, text), labels_per_image="many")
    assert sorted(data.labels) == sorted(NAMES)
    every = data.split("all")
    for name, row in zip(every.names, every.label_ids, strict=True):
        assert {data.labels[i] for i in np.flatnonzero(row)} == set(TEXTS[int(name.partition(".")[0])])
    with pytest.raises(DataError, match=r"has \d labels .*--labels-per-image many|could be the label"):
        load_data_set(tmp_path)


def test_words_with_spaces_between_them(tmp_path):
    """As Kaggle's satellite images have them: 17 words in 449 combinations."""
    rows = [(i, " ".join(name.replace(" ", "_") for name in t)) for i, t in enumerate(TEXTS)]
    data = load_data_set(folder(tmp_path, lines("{},{}", "image_name,tags", rows)), labels_per_image="many")
    assert data.labels == ("big_one", "dots", "stripes")
    assert "several labels of an image are separated by spaces" in data.notes


def test_columns_of_0_and_1_with_one_label_each(tmp_path):
    rows = [(i, *(int(i % 3 == k) for k in range(3))) for i in range(12)]
    data = load_data_set(folder(tmp_path, lines("{},{}.0,{}.0,{}.0", "image,MEL,NV,BCC", rows)))
    assert data.labels == ("MEL", "NV", "BCC")  # in the order of the columns
    assert labels_of(data) == {str(i): data.labels[i % 3] for i in range(12)}
    (tmp_path / "names.txt").write_text("NV\nMEL\nBCC\n")
    with pytest.raises(DataError, match=r"labels.csv: its header and .*names.txt disagree: class 0 is MEL and NV"):
        load_data_set(tmp_path, labels_file=tmp_path / "names.txt")


def test_an_image_in_two_rows(tmp_path):
    folder(tmp_path, lines("{}.png,{}", "file,label") + "1.png,cat\n")
    assert labels_of(load_data_set(tmp_path)) == WANTED
    (tmp_path / "labels.csv").write_text(lines("{}.png,{}", "file,label") + "1.png,dog\n")
    with pytest.raises(DataError, match=r"1.png has 2 labels \(cat, dog\). --labels-per-image many"):
        load_data_set(tmp_path)
    text = lines("{}.png,{},{}", "file,label,split") + "1.png,cat,test\n"
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match="1.png is in train and in test"):
        load_data_set(tmp_path)
