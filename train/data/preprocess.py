"""From decoded pixels to a net's input: slim's preprocessing, described by data.

    Preprocessing("inception", 299)    the middle 87.5 % of each side, resized, scaled to -1..1
    Preprocessing("vgg", 224)          the shorter side resized to 256, the middle 224 x 224, channel means subtracted
    Preprocessing("cifarnet", 32)      the whole image, scaled to mean 0 and standard deviation 1
    Preprocessing("lenet", 28)         the whole image, (value - 128) / 128
    Preprocessing("caffe", 224)        like vgg, in order blue, green, red: Keras' weights of VGG and ResNet v1
    Preprocessing("torch", 224)        cropped like vgg, minus MEAN, divided by DEVIATION, as in torchvision and timm
    Preprocessing("unit", 64)          the whole image, 0..1
    Preprocessing("raw", 64)           the whole image, 0..255
    Preprocessing("127.5,127.5", 64)   the whole image, (value - 127.5) / 127.5; or one mean per channel

The description is stored with a run and used again by evaluate, predict, features and export. All follow
`inception_preprocessing.py` and its siblings in tensorflow/models (research/slim/preprocessing), with the resize of
TensorFlow 1 that the published nets were trained with. (For CifarNet and LeNet, slim crops the central 32 x 32 or
28 x 28 pixels of a larger image; here it is resized, which is the same for images of the original size.) Without
augmentation, training images are preprocessed like evaluation images, so that the frozen part of a net can be computed
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import RecipeError
from ..options.styles import numbers, style_problem
from .augment import change, fast_colour, flip, light, parse_augmentations, random_crop

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

SHORTEST_SIDE = ("vgg", "caffe", "torch")  # styles that crop a square and keep the aspect ratio
MEANS = (123.68, 116.779, 103.939)  # red, green, blue of ImageNet, from vgg_preprocessing.py
_NUMBERS = {"lenet": ((128.0,), 128.0), "raw": ((0.0,), 1.0)}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of values from 0 to 1
SIDES = (256 / 224, 512 / 224)  # shortest side before the crop, in units of the crop: evaluation, largest in training


@dataclass(frozen=True)
class Preprocessing:
    """Describes how an image becomes the input of a net; equal descriptions give equal pixels."""

    style: str
    image_size: int  # height and width of the input, in pixels
    central_fraction: float = 0.875  # inception: share of each side used in evaluation; 1 is the whole image
    channels: str = "rgb"  # or "bgr", for weights from Caffe, or "grey", one channel with the mean of the three
    augment: tuple[str, ...] = ()  # input of `augment.parse_augmentations`
    upright: bool = False  # rotate photos by their EXIF orientation
    copies: int | None = None  # views of a training image that the epochs take in turn; None: a new one each epoch

    def __post_init__(self) -> None:
        if problem := style_problem(self.style):
            raise RecipeError(problem)
        if self.channels not in ("rgb", "bgr", "grey"):
            raise RecipeError(f"channels {self.channels!r}: must be rgb, bgr or grey")
        if self.image_size < 1 or not 0 < self.central_fraction <= 1:
            raise RecipeError(f"image size {self.image_size} or central fraction {self.central_fraction} out of range")
        if self.copies is not None and (self.copies < 1 or not self.augment):
            raise RecipeError(f"{self.copies} copies of each image: at least one, and only with augmentation")
        parse_augmentations(self.augment)

    def as_dict(self) -> dict[str, object]:
        """The description for a run's JSON; `from_dict` reads it back."""
        stored = {**asdict(self), "augment": list(self.augment), "upright": self.upright or None}
        return {name: value for name, value in stored.items() if value is not None}

    @property
    def reversed(self) -> bool:
        """Whether the net sees blue, green and red in this order."""
        return self.channels == "bgr" or (self.style == "caffe" and self.channels == "rgb")

    @property
    def random(self) -> bool:
        """Whether a training image looks different from epoch to epoch."""
        return bool(self.augment)

    @property
    def plain(self) -> Preprocessing:
        """The same without random changes, as for evaluation images."""
        return replace(self, augment=(), copies=None)

    def view(self, epoch: tf.Tensor | int) -> tf.Tensor | int:
        """The number of a training image's view in an epoch."""
        return epoch if self.copies is None else epoch % self.copies


def from_dict(stored: Mapping[str, Any]) -> Preprocessing:
    """Reads the result of `as_dict`. Raises RecipeError for unknown keys."""
    unknown = sorted(set(stored) - set(Preprocessing.__dataclass_fields__))
    if unknown:
        raise RecipeError(f"preprocessing has unknown keys: {', '.join(unknown)}")
    return Preprocessing(**{**stored, "augment": tuple(stored.get("augment", ()))})


def prepare(image: tf.Tensor, how: Preprocessing, seed: tf.Tensor | None = None) -> tf.Tensor:
    """`image` uint8 [height, width, 3] becomes the net's input, float32 [image_size, image_size, 3], or 1 if grey.

    `seed` int64 [2] decides the random changes of `how.augment`; without it there are none, as in evaluation.
    """
    import tensorflow as tf

    if seed is None or not how.augment:
        pixels = fit(image, how)
    else:
        pixels = _distorted(tf.image.convert_image_dtype(image, tf.float32), how, seed)
    pixels.set_shape([how.image_size, how.image_size, 3])
    return scale(pixels, how)


def fit(image: tf.Tensor, how: Preprocessing) -> tf.Tensor:
    """`image` uint8, or float32 in 0..1, [height, width, 3] cut and resized as for evaluation: float32
    [image_size, image_size, 3], 0..1."""
    import tensorflow as tf

    if how.style == "inception":
        middle = tf.image.central_crop(image, how.central_fraction)  # before the conversion, to save work
        return resize(tf.image.convert_image_dtype(middle, tf.float32), how.image_size, how.image_size)
    pixels = tf.image.convert_image_dtype(image, tf.float32)
    if how.style not in SHORTEST_SIDE:
        return resize(pixels, how.image_size, how.image_size)
    larger = _shortest_side(pixels, tf.constant(round(how.image_size * SIDES[0])))
    top = (tf.shape(larger)[0] - how.image_size) // 2
    left = (tf.shape(larger)[1] - how.image_size) // 2
    return tf.slice(larger, tf.stack([top, left, 0]), [how.image_size, how.image_size, 3])


def _means_and_divisor(style: str) -> tuple[tuple[float, ...], float]:
    found = _NUMBERS.get(style) or numbers(style)
    assert found is not None  # styles are validated when a description is made
    return found


def scale(pixels: tf.Tensor, how: Preprocessing) -> tf.Tensor:
    """`pixels` float32 [..., 3] in 0..1 become the values that the net expects, [..., 3] or grey [..., 1]."""
    import tensorflow as tf

    if how.style == "inception":
        pixels = pixels * 2.0 - 1.0
    elif how.style in ("vgg", "caffe"):
        pixels = pixels * 255.0 - tf.constant(MEANS)
    elif how.style == "torch":
        pixels = (pixels - tf.constant(MEAN)) / tf.constant(DEVIATION)
    elif how.style == "cifarnet":
        pixels = tf.image.per_image_standardization(pixels * 255.0)
    elif how.style != "unit":
        means, divisor = _means_and_divisor(how.style)
        pixels = (pixels * 255.0 - tf.constant(means)) / divisor
    if how.channels == "grey":
        return tf.reduce_mean(pixels, axis=-1, keepdims=True)
    return tf.reverse(pixels, [-1]) if how.reversed else pixels


def as_picture(values: np.ndarray, how: Preprocessing) -> np.ndarray:
    """The net's input [..., s, s, 3 or 1] converted back to uint8 red, green, blue for display. The style cifarnet
    removes brightness and contrast, so its images are stretched to the full range."""
    import numpy as np

    values = values[..., ::-1] if how.reversed else values
    values = np.repeat(values, 3, axis=-1) if how.channels == "grey" else values
    if how.style == "inception":
        pixels = (values + 1) * 127.5
    elif how.style == "torch":
        grey = how.channels == "grey"
        mean, deviation = (np.mean(MEAN), np.mean(DEVIATION)) if grey else (np.array(MEAN), np.array(DEVIATION))
        pixels = (values * deviation + mean) * 255.0
    elif how.style in ("vgg", "caffe"):
        pixels = values + (np.mean(MEANS) if how.channels == "grey" else np.array(MEANS, np.float32))
    elif how.style == "cifarnet":
        low, high = (edge((-3, -2, -1), keepdims=True) for edge in (values.min, values.max))
        pixels = (values - low) * (255.0 / np.maximum(high - low, 1e-6))
    elif how.style == "unit":
        pixels = values * 255.0
    else:
        means, divisor = _means_and_divisor(how.style)
        pixels = values * divisor + (np.mean(means) if how.channels == "grey" else np.array(means, np.float32))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def resize(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """TensorFlow 1's bilinear resize (corners of pixels, no antialiasing), which slim's nets were trained with."""
    import tensorflow as tf

    size = tf.stack([height, width])
    batch = image[tf.newaxis]
    return tf.raw_ops.ResizeBilinear(images=batch, size=size, align_corners=False, half_pixel_centers=False)[0]


def _shortest_side(pixels: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Resized so that the shorter side has `side` pixels, keeping the aspect ratio."""
    import tensorflow as tf

    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    scale = tf.cast(side, tf.float32) / tf.cast(tf.minimum(height, width), tf.float32)
    return resize(
        pixels,
        tf.maximum(side, tf.cast(tf.math.rint(tf.cast(height, tf.float32) * scale), tf.int32)),
        tf.maximum(side, tf.cast(tf.math.rint(tf.cast(width, tf.float32) * scale), tf.int32)),
    )


def _distorted(pixels: tf.Tensor, how: Preprocessing, seed: tf.Tensor) -> tf.Tensor:
    """Training with augmentation: crops a region, resizes it, then applies the size-preserving changes."""
    import tensorflow as tf

    changes = {each.name: each for each in parse_augmentations(how.augment)}
    region = tf.random.experimental.stateless_fold_in(seed, 101)
    own = tf.random.experimental.stateless_fold_in(seed, 102)
    slim = how.style if "slim" in changes else None  # LeNet is trained on images as they are
    if slim in SHORTEST_SIDE:
        pixels = _random_side(pixels, how.image_size, region)
    elif slim == "cifarnet":
        pixels = _random_place(fit(pixels, how), region)
    elif slim == "inception" or "crop" in changes:
        smallest = changes["crop"].amount if "crop" in changes else 0.05
        pixels = resize(random_crop(pixels, region, (smallest, 1.0)), how.image_size, how.image_size)
    else:
        pixels = fit(pixels, how)
    if slim in ("inception", "cifarnet", *SHORTEST_SIDE):
        pixels = flip(pixels, 0.5, own)
    if slim == "inception":
        pixels = fast_colour(pixels, own)
    elif slim == "cifarnet":
        pixels = light(pixels, own)
    return change(pixels, [each for each in changes.values() if each.name not in ("slim", "crop")], seed)


def _random_side(pixels: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """slim's VGG training: the shorter side is resized to 256..512 (for 224), then a random square is cut out."""
    import tensorflow as tf

    low, high = round(size * SIDES[0]), round(size * SIDES[1])
    larger = _shortest_side(pixels, tf.random.stateless_uniform([], seed, low, high + 1, tf.int32))
    return tf.image.stateless_random_crop(larger, [size, size, 3], tf.random.experimental.stateless_fold_in(seed, 1))


def _random_place(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """slim's CifarNet training: shifted by up to 4 of 32 pixels in each direction, with a black border."""
    import tensorflow as tf

    side, margin = pixels.shape[0], max(1, round(pixels.shape[0] / 8))
    larger = tf.pad(pixels, [[margin, margin], [margin, margin], [0, 0]])
    return tf.image.stateless_random_crop(larger, [side, side, 3], seed)
