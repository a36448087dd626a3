"""The picture of a batch before and after augmentation."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from PIL import Image  # noqa: E402

from ckpt_tools.errors import DataError, OutputError  # noqa: E402
from ckpt_tools.train.data.examples import Examples  # noqa: E402
from ckpt_tools.train.data.preprocess import Preprocessing  # noqa: E402
from ckpt_tools.train.pages.augmentation_picture import GAP, draw_augmentation  # noqa: E402

SIDE = 16


@pytest.fixture
def examples():
    """Ten images, each black on its left and of a colour of its own on its right."""
    pixels = np.zeros((10, SIDE, SIDE, 3), np.uint8)
    pixels[:, :, SIDE // 2 :] = np.linspace(40, 255, 10).astype(np.uint8)[:, None, None, None]
    return Examples(np.zeros(10, np.int32), tuple(map(str, range(10))), (0,) * 10, lambda i: pixels[i])


def tiles(path, count):
    """The pairs (before, after) in the picture, uint8 [side, side, 3] each."""
    sheet, pitch = np.asarray(Image.open(path)), SIDE + GAP
    found = []
    for i in range(count):
        top, left = GAP + i // 8 * (2 * pitch + GAP), GAP + i % 8 * pitch
        found.append(tuple(sheet[y : y + SIDE, left : left + SIDE] for y in (top, top + pitch)))
    return found


@pytest.mark.parametrize("style", ["inception", "vgg"])
def test_each_image_stands_above_what_became_of_it(examples, tmp_path, style):
    how = Preprocessing(style, SIDE, augment=("flip(0.5)",))
    assert draw_augmentation(examples, how, tmp_path / "a.png", batch_size=10, seed=3) == 10
    pairs = tiles(tmp_path / "a.png", 10)
    flipped = [not np.array_equal(before, after) for before, after in pairs]
    assert 0 < sum(flipped) < 10
    for before, after in pairs:
        assert before[:, 0].max() == 0 and before[:, -1].min() >= 40
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_the_same_seed_gives_the_same_file(examples, tmp_path):
    how = Preprocessing("inception", SIDE, augment=("slim", "rotation(20)"))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_augmentation(examples, how, tmp_path / name, batch_size=4, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_too_many_images_that_cannot_be_decoded(examples, tmp_path):
    def read(i):
        return examples.read(i) if i > 3 else b"not an image"

    how = Preprocessing("inception", SIDE, augment=("flip",))
    with pytest.raises(DataError, match="of 10 images cannot be decoded"):
        draw_augmentation(replace(examples, read=read), how, tmp_path / "a.png", batch_size=4, seed=1)


def test_a_file_that_cannot_be_written(examples, tmp_path):
    how = Preprocessing("inception", SIDE, augment=("flip",))
    with pytest.raises(OutputError, match=r"no_folder/a.png: cannot be written \(No such file or directory\)"):
        draw_augmentation(examples, how, tmp_path / "no_folder" / "a.png", batch_size=4, seed=1)
