"""Photos in folders, in the usual layouts: splits, classes, and files that are left out."""

import numpy as np
import pytest
from PIL import Image

from ckpt_tools.errors import DataError
from ckpt_tools.train.data.loading import load_data_set


def photos(root, *paths):
    """One image file for each path below `root`, no two alike."""
    random = np.random.default_rng(len(paths))
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return root


def split_folders(root, **splits):
    """`splits`: folder -> how many images each of the classes a and b has in it."""
    for folder, count in splits.items():
        photos(root, *(f"{folder}/{label}/{i}.png" for label in "ab" for i in range(count)))
    return root


def sizes(data):
    return len(data.train), len(data.validation), None if data.test is None else len(data.test)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("Training", "Test"),
        ("training_set", "test_set"),
        ("Train", "Valid"),
        ("TRAIN", "VAL"),
        ("train", "eval"),
        ("train", "dev"),
        ("train", "holdout"),
        ("train", "hold-out"),
        ("Train Images", "Test Images"),
        ("train2017", "val2017"),
        ("seg_train", "seg_test"),
        ("flowers-training", "flowers-validation"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/images", "test/images"),
        ("photos/train", "photos/test"),
        ("photos/training_set/training_set", "photos/test_set/test_set"),
    ],
)
def test_splits_by_the_words_that_people_use(tmp_path, train, validation):
    data = load_data_set(split_folders(tmp_path, **{train: 4, validation: 2}))
    assert (data.labels, sizes(data)) == (("a", "b"), (8, 4, None))
    assert data.train.names[0] == f"{train}/a/0.png"


def test_three_splits_and_what_is_none(tmp_path):
    split_folders(tmp_path, seg_train=4, seg_test=2, seg_dev=3)
    photos(tmp_path, "seg_pred/1.png", "seg_pred/2.png")
    data = load_data_set(tmp_path)
    assert sizes(data) == (8, 6, 4)
    assert data.notes == ("left out, no split: folder seg_pred",)


@pytest.mark.parametrize("second", ["validation", "VALID"])
def test_two_folders_of_one_split_are_not_chosen_from(tmp_path, second):
    split_folders(tmp_path, train=2, val=2, **{second: 2})
    with pytest.raises(DataError, match=r"both name validation images. Put them into one folder."):
        load_data_set(tmp_path)


def test_classes_that_are_called_like_splits(tmp_path):
    """ImageNet has a bullet train, and COCO has trains between its buses and trucks."""
    photos(tmp_path, *(f"{label}/{i}.png" for label in ("bus", "train", "truck") for i in range(5)))
    assert load_data_set(tmp_path).labels == ("bus", "train", "truck")
    photos(tmp_path, *(f"bullet_train/{i}.png" for i in range(5)), *(f"test_tube/{i}.png" for i in range(5)))
    assert load_data_set(tmp_path).labels == ("bullet_train", "bus", "test_tube", "train", "truck")


def test_folders_that_all_hold_the_same_ones_are_no_classes(tmp_path):
    split_folders(tmp_path / "x", entrenamiento=4, prueba=2)
    found = (
        "2 folders: entrenamiento, prueba all hold the same 2 sub-folders: a, b: they are not classes.*call them train"
    )
    with pytest.raises(DataError, match=found):
        load_data_set(tmp_path / "x")
    photos(tmp_path / "y", *(f"{label}/{split}/1.png" for label in ("cat", "dog") for split in ("test", "train")))
    with pytest.raises(DataError, match="Put the splits above the classes: test/cat, not cat/test."):
        load_data_set(tmp_path / "y")
    photos(tmp_path / "tiny", *(f"{label}/images/{i}.png" for label in ("n01", "n02") for i in range(5)))
    assert load_data_set(tmp_path / "tiny").labels == ("n01", "n02")  # as Tiny ImageNet is laid out


def test_a_folder_that_is_one_level_too_high(tmp_path):
    photos(tmp_path, *(f"archive/PetImages/{label}/{i}.png" for label in ("Cat", "Dog") for i in range(5)))
    data = load_data_set(tmp_path / "archive")
    assert data.labels == ("Cat", "Dog")
    assert data.notes[0] == "the data lie in PetImages"
    (tmp_path / "archive" / "docs").mkdir()
    with pytest.raises(
        DataError, match=r"of 2 folders: PetImages, docs, only PetImages has images, in 2 folders: Cat.*"
    ):
        load_data_set(tmp_path / "archive")


def test_photos_beside_class_folders_are_said_to_be_left_out(tmp_path):
    split_folders(tmp_path, train=5, test=2)
    photos(tmp_path, "cover.png", "train/x.png")
    assert "left out, in no class folder: 2 images: train/x.png, cover.png" in load_data_set(tmp_path).notes
    photos(tmp_path, *(f"train/{i}.png" for i in range(30)))
    with pytest.raises(DataError, match="32 images are not in a class folder, more than the 14 that lie in one"):
        load_data_set(tmp_path)


@pytest.mark.parametrize("unlabelled", ["test", "test/unknown", "test/test"])
def test_an_unlabelled_test_folder_of_kaggles_kind(tmp_path, unlabelled):
    split_folders(tmp_path, train=10)
    photos(tmp_path, *(f"{unlabelled}/{i}.png" for i in range(7)))
    data = load_data_set(tmp_path)
    assert sizes(data) == (16, 4, None)
    assert data.notes[0] == "test holds 7 images in no class folder; it was left out"


def test_kaggles_folders_without_any_class(tmp_path):
    photos(tmp_path, *(f"{split}/{i}.png" for split in ("train", "test") for i in range(3)))
    with pytest.raises(DataError, match="train: 3 images are not in a class folder"):
        load_data_set(tmp_path)


def test_a_test_folder_alone_can_be_evaluated_and_not_trained_on(tmp_path):
    split_folders(tmp_path, Test=3)
    assert sizes(load_data_set(tmp_path, training=False)) == (0, 6, None)
    with pytest.raises(DataError, match="no training images, only 6 for validation"):
        load_data_set(tmp_path)


def test_linked_folders_are_entered_once(tmp_path):
    photos(tmp_path / "elsewhere", "1.png", "2.png", "more/3.png")
    photos(tmp_path / "data", *(f"{label}/{i}.png" for label in "ab" for i in range(5)))
    (tmp_path / "data" / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "more" / "round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    data = load_data_set(tmp_path / "data")
    assert data.labels == ("a", "b", "c")
    assert [sum(part.counts(3)[i] for part in (data.train, data.validation)) for i in range(3)] == [5, 8, 3]
    assert "b/linked/more/3.png" in data.split("all").names


def test_folders_that_tools_leave_behind_hold_no_examples(tmp_path):
    photos(tmp_path, *(f"{label}/{i}.png" for label in "ab" for i in range(5)))
    photos(tmp_path, "a/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/a/1.png", ".cache/1.png")
    assert load_data_set(tmp_path).notes == ("2 of 10 examples were held out for validation (seed 0)",)


def test_numbers_are_in_the_order_of_numbers(tmp_path):
    photos(tmp_path, *(f"{label}/{i}.png" for label in range(12) for i in range(2)))
    assert load_data_set(tmp_path).labels == tuple(map(str, range(12)))


def test_a_labels_file_names_folders_that_are_numbers(tmp_path):
    photos(tmp_path, *(f"{label}/{i}.png" for label in (1, 2, 10) for i in range(2)))
    (tmp_path / "labels.txt").write_text("0:background\n1:ant\n2:bee\n10:cow\n")
    data = load_data_set(tmp_path)
    assert data.labels == ("ant", "bee", "cow")
    assert data.train.names[2].startswith("10/")
    assert "the labels file names the folders: 1 is ant; 2 is bee; 10 is cow" in data.notes
    (tmp_path / "labels.txt").write_text("1:ant\n3:bee\n10:cow\n")
    with pytest.raises(DataError, match="only in the labels file: bee; only as folders: 2"):
        load_data_set(tmp_path)
