"""slim's preprocessing, compared with its definition in NumPy, and the augmentation steps."""

import json

import numpy as np
import pytest

from ckpt_tools.errors import RecipeError

tf = pytest.importorskip("tensorflow")

from ckpt_tools.train.data.augment import AUGMENTATIONS, Augmentation, parse_augmentations  # noqa: E402
from ckpt_tools.train.data.preprocess import MEANS, Preprocessing, as_picture, from_dict, prepare  # noqa: E402


@pytest.fixture
def photo():
    """A photo-like image: smooth, 40 high and 60 wide."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([4 * x, 6 * y, 2 * x + 3 * y], axis=-1).astype(np.uint8)


def ran(image, how, seed=None):
    """What `prepare` gives in a graph and a session, as training runs it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        seed = None if seed is None else tf.constant(seed, tf.int64)
        return session.run(prepare(tf.constant(image), how, seed))


def bilinear(image, height, width):
    """TensorFlow 1's resize_bilinear, align_corners=False: output row i is taken from input row i * h / height."""
    rows, columns = (np.arange(n) * (m / n) for n, m in ((height, image.shape[0]), (width, image.shape[1])))
    top, left = rows.astype(int), columns.astype(int)
    below, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    dy, dx = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = image[top][:, left] * (1 - dx) + image[top][:, right] * dx
    lower = image[below][:, left] * (1 - dx) + image[below][:, right] * dx
    return upper * (1 - dy) + lower * dy


def test_inception_is_the_middle_resized_to_minus_one_to_one(photo):
    got = ran(photo, Preprocessing("inception", 29))
    middle = photo[2:38, 3:57] / 255.0  # offsets int((40 - 35) / 2) and int((60 - 52.5) / 2); slim cuts symmetrically
    np.testing.assert_allclose(got, bilinear(middle, 29, 29) * 2 - 1, atol=1e-5)


def test_inception_of_the_whole_image(photo):
    got = ran(photo, Preprocessing("inception", 20, central_fraction=1.0))
    np.testing.assert_allclose(got, bilinear(photo / 255.0, 20, 20) * 2 - 1, atol=1e-5)


def test_vgg_keeps_the_shape_of_things_and_subtracts_the_means(photo):
    got = ran(photo, Preprocessing("vgg", 224))
    larger = bilinear(photo.astype(float), 256, 384)
    np.testing.assert_allclose(got, larger[16:240, 80:304] - np.array(MEANS), atol=0.02)
    bgr = ran(photo, Preprocessing("vgg", 224, channels="bgr"))
    np.testing.assert_array_equal(bgr, got[..., ::-1])


@pytest.mark.parametrize("style", ["caffe", "torch"])
def test_caffe_and_torch_are_what_keras_calls_so(photo, style):
    keras = pytest.importorskip("keras")
    got = ran(photo, Preprocessing(style, 224))
    larger = bilinear(photo.astype(float), 256, 384)[16:240, 80:304]
    wanted = keras.applications.imagenet_utils.preprocess_input(larger.copy(), mode=style)
    np.testing.assert_allclose(got, wanted, atol=0.02 if style == "caffe" else 1e-4)
    again = as_picture(got, Preprocessing(style, 224)).astype(int)
    assert np.abs(again - larger).max() < 1
    assert np.abs(got - ran(photo, Preprocessing("vgg", 224))).max() > 1  # the comparison can fail


def test_cifarnet_takes_brightness_and_contrast_away(photo):
    got = ran(photo, Preprocessing("cifarnet", 32))
    whole = bilinear(photo.astype(float), 32, 32)
    np.testing.assert_allclose(got, (whole - whole.mean()) / whole.std(), atol=1e-4)
    flat = ran(np.full((32, 32, 3), 7, np.uint8), Preprocessing("cifarnet", 32))
    np.testing.assert_array_equal(flat, np.zeros((32, 32, 3)))


def test_lenet_is_the_whole_image_from_minus_one_to_one(photo):
    got = ran(photo, Preprocessing("lenet", 28))
    np.testing.assert_allclose(got, (bilinear(photo.astype(float), 28, 28) - 128) / 128, atol=1e-4)


def test_slims_own_training_moves_cifar_images_and_leaves_mnist_as_it_is(photo):
    image = photo[:32, :32]
    plain, moved = (Preprocessing("cifarnet", 32, augment=augment) for augment in ((), ("slim",)))
    seen = [ran(image, moved, [1, n]) for n in range(4)]
    assert all(abs(each - ran(image, plain)).max() > 0.1 for each in seen)
    how = Preprocessing("lenet", 32, augment=("slim",))
    np.testing.assert_array_equal(ran(image, how, [1, 2]), ran(image, how))


@pytest.mark.parametrize("style", ["inception", "vgg", "cifarnet", "lenet"])
def test_a_picture_of_the_input_is_the_image_again(photo, style):
    how = Preprocessing(style, 32, central_fraction=1.0, channels="bgr")
    square = photo[:40, :40]
    got = as_picture(ran(square, how), how).astype(int)
    if style == "cifarnet":  # in the full range of brightness
        expected = bilinear(square.astype(float), 32, 32)
        expected = (expected - expected.min()) * 255 / (expected.max() - expected.min())
    elif style in ("inception", "lenet"):
        expected = bilinear(square.astype(float), 32, 32)
    else:
        expected = bilinear(square.astype(float), 37, 37)[2:34, 2:34]
    assert abs(got - expected).max() < 0.6


def test_tiny_and_narrow_images_fit(photo):
    for image in (photo[:1, :1], photo[:3, :50], photo[:40, :2]):
        for style in ("inception", "vgg", "cifarnet", "lenet"):
            for augment in ((), ("slim",), ("crop", "rotation")):
                how = Preprocessing(style, 24, augment=augment)
                assert ran(image, how, [1, 2]).shape == (24, 24, 3)


@pytest.mark.parametrize("style", ["inception", "vgg"])
@pytest.mark.parametrize("step", AUGMENTATIONS)
def test_a_step_changes_pixels_by_its_seed_alone(photo, style, step):
    how = Preprocessing(style, 32, augment=(step,))
    plain = ran(photo, Preprocessing(style, 32))
    np.testing.assert_array_equal(ran(photo, how), plain)  # evaluation: no random step
    seen = [ran(photo, how, [7, n]) for n in range(6)]
    np.testing.assert_array_equal(seen[0], ran(photo, how, [7, 0]))
    assert any(abs(one - plain).max() > 0.01 for one in seen)
    assert any(abs(one - seen[0]).max() > 0.01 for one in seen[1:])


def test_flip_is_left_to_right(photo):
    how = Preprocessing("inception", 32, augment=("flip(1)",))
    np.testing.assert_array_equal(ran(photo, how, [0, 0]), ran(photo, Preprocessing("inception", 32))[:, ::-1])


def test_rotation_turns_about_the_centre():
    image = np.zeros((33, 33, 3), np.uint8)
    image[16, 16] = 255
    how = Preprocessing("inception", 33, central_fraction=1.0, augment=("rotation(180)", "zoom(0.5)", "shear(30)"))
    for n in range(4):
        got = ran(image, how, [3, n])[..., 0]
        assert np.unravel_index(got.argmax(), got.shape) == (16, 16)


def test_descriptions_go_through_json():
    how = Preprocessing("vgg", 96, channels="bgr", augment=("flip", "rotation(20)"))
    assert from_dict(json.loads(json.dumps(how.as_dict()))) == how
    assert how.random
    assert not Preprocessing("vgg", 96).random
    with pytest.raises(RecipeError, match="unknown keys: size"):
        from_dict({"style": "vgg", "image_size": 3, "size": 4})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Preprocessing("incepton", 299), "did you mean inception"),
        (lambda: Preprocessing("vgg", 0), "out of range"),
        (lambda: Preprocessing("vgg", 9, channels="gbr"), "rgb, bgr or grey"),
        (lambda: Preprocessing("vgg", 9, augment=("flipp",)), "did you mean flip"),
        (lambda: parse_augmentations(["rotation(200)"]), "at most 180"),
        (lambda: parse_augmentations(["rotation(1.2.3)"]), "not a number"),
    ],
)
def test_wrong_descriptions(made, words):
    with pytest.raises(RecipeError, match=words):
        made()


def test_steps_are_parsed():
    assert parse_augmentations(["color,shift(0.2)", "zoom"]) == (
        Augmentation("colour", 1.0),
        Augmentation("shift", 0.2),
        Augmentation("zoom", 0.2),
    )
