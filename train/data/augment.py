"""Random augmentations of training images, which can be combined, and which depend only on a seed.

    parse_augmentations(("flip", "crop(0.8)", "rotation(15)"))

They use stateless random operations, so that the same seed, epoch and number give the same image: a continued run sees
what an uninterrupted run would have seen.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import RecipeError, nearest

if TYPE_CHECKING:
    import tensorflow as tf


Matrix = list[list[Any]]  # of numbers and scalar tensors, row by row


class Augmentation(NamedTuple):
    """A random change of images and its strength; AUGMENTATIONS explains the amount."""

    name: str
    amount: float


# name -> default amount, largest useful amount, meaning of the amount
AUGMENTATIONS = {
    "slim": (1.0, 1.0, "the distortions that slim trains nets of this preprocessing with"),
    "crop": (0.7, 1.0, "smallest fraction of the area that a random crop keeps"),
    "flip": (0.5, 1.0, "probability of a horizontal flip"),
    "shift": (0.1, 1.0, "largest shift, as a fraction of the side"),
    "rotation": (15.0, 180.0, "largest turn, in degrees"),
    "shear": (10.0, 60.0, "largest slant, in degrees"),
    "zoom": (0.2, 0.9, "largest change of scale"),
    "colour": (1.0, 2.0, "strength of slim's changes of brightness, saturation, hue and contrast"),
}


def parse_augmentations(texts: Sequence[str]) -> tuple[Augmentation, ...]:
    """Augmentations from texts such as "flip" or "rotation(15)"; a text may list several, separated by commas.

    >>> parse_augmentations(["flip,rotation(20)"])
    (Augmentation(name='flip', amount=0.5), Augmentation(name='rotation', amount=20.0))
    """
    changes = []
    for text in (part.strip() for joined in texts for part in joined.split(",")):
        found = re.fullmatch(r"(\w+)(?:\(([\d.]+)\))?", text)
        name = {"color": "colour", "rotate": "rotation"}.get(found[1], found[1]) if found else text
        if found is None or name not in AUGMENTATIONS:
            raise RecipeError(
                f"no augmentation {text!r}{nearest(name, AUGMENTATIONS)}",
                advice=f"Use one of {', '.join(AUGMENTATIONS)}.",
            )
        default, most, what = AUGMENTATIONS[name]
        try:
            amount = float(found[2]) if found[2] else default
        except ValueError:
            raise RecipeError(f"augmentation {text}: {found[2]!r} is not a number") from None
        if not 0 < amount <= most:
            raise RecipeError(f"augmentation {text}: {what} must be above 0 and at most {most:g}")
        changes.append(Augmentation(name, amount))
    return tuple(changes)


def random_crop(image: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]) -> tf.Tensor:
    """slim's distorted bounding box (Szegedy et al. 2014): a crop of random area and an aspect ratio of 3/4 to 4/3.

    `image` [h, w, 3] becomes [h', w', 3].
    """
    import tensorflow as tf

    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, begin, size)


def change(image: tf.Tensor, changes: Sequence[Augmentation], seed: tf.Tensor) -> tf.Tensor:
    """Applies the size-preserving changes to `image` float32 [s, s, 3] in 0..1; `seed` is int64 [2].

    Shifts, rotations, shears and scalings are combined first, so that the pixels are interpolated only once.
    """
    import tensorflow as tf

    seeds = {each: tf.random.experimental.stateless_fold_in(seed, i + 1) for i, each in enumerate(changes)}
    side = tf.cast(tf.shape(image)[0], tf.float32)
    maps = [_MAPS[each.name](each.amount, own, side) for each, own in seeds.items() if each.name in _MAPS]
    if maps:
        image = moved(image, functools.reduce(tf.matmul, [tf.stack([tf.stack(row) for row in rows]) for rows in maps]))
    for each, own in seeds.items():
        if each.name not in _MAPS:
            image = {"flip": flip, "colour": colour}[each.name](image, each.amount, own)
    return image


def _uniform(seed: tf.Tensor, *spans: float) -> list[tf.Tensor]:
    """One number from -span to span for each span."""
    import tensorflow as tf

    drawn = tf.random.stateless_uniform([len(spans)], seed, -1.0, 1.0)
    return [drawn[i] * span for i, span in enumerate(spans)]


def flip(image: tf.Tensor, amount: float, seed: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    mirrored = tf.random.stateless_uniform([], seed) < amount
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)  # tf.where takes five times as long


def colour(image: tf.Tensor, amount: float, seed: tf.Tensor) -> tf.Tensor:
    """Brightness, saturation, hue and contrast of slim's `distort_color`, in one of two orders."""
    import tensorflow as tf

    fold = tf.random.experimental.stateless_fold_in
    low, high = max(0.0, 1 - 0.5 * amount), 1 + 0.5 * amount

    def brightness(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_brightness(x, amount * 32 / 255, fold(seed, 1))

    def saturation(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_saturation(x, low, high, fold(seed, 2))

    def hue(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_hue(x, min(0.5, amount * 0.2), fold(seed, 3))

    def contrast(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_contrast(x, low, high, fold(seed, 4))

    def first() -> tf.Tensor:
        return contrast(hue(saturation(brightness(image))))

    def second() -> tf.Tensor:
        return hue(contrast(brightness(saturation(image))))

    changed = tf.cond(tf.random.stateless_uniform([], fold(seed, 5)) < 0.5, first, second)
    return tf.clip_by_value(changed, 0.0, 1.0)


def fast_colour(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """slim's `distort_color(fast_mode=True)`, which its training script uses: brightness and saturation."""
    import tensorflow as tf

    fold = tf.random.experimental.stateless_fold_in

    def brightness(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_brightness(x, 32 / 255, fold(seed, 1))

    def saturation(x: tf.Tensor) -> tf.Tensor:
        return tf.image.stateless_random_saturation(x, 0.5, 1.5, fold(seed, 2))

    first = tf.random.stateless_uniform([], fold(seed, 5)) < 0.5
    changed = tf.cond(first, lambda: saturation(brightness(image)), lambda: brightness(saturation(image)))
    return tf.clip_by_value(changed, 0.0, 1.0)


def light(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """slim's distortion of CIFAR-10's images: brightness and contrast, not clipped to 0..1."""
    import tensorflow as tf

    fold = tf.random.experimental.stateless_fold_in
    brighter = tf.image.stateless_random_brightness(image, 63 / 255, fold(seed, 1))
    return tf.image.stateless_random_contrast(brighter, 0.2, 1.8, fold(seed, 4))


def moved(image: tf.Tensor, about_centre: tf.Tensor) -> tf.Tensor:
    """`image` [s, s, 3] transformed by an affine map about its centre; the border is filled with the nearest pixel.

    `about_centre` float32 [3, 3]: the new pixel at column x, row y (from the centre) is taken from map @ (x, y, 1).
    """
    import tensorflow as tf

    side = tf.shape(image)[0]
    middle = (tf.cast(side, tf.float32) - 1) / 2
    to_centre = tf.stack([tf.stack([1.0, 0.0, -middle]), tf.stack([0.0, 1.0, -middle]), tf.constant([0.0, 0.0, 1.0])])
    whole = tf.linalg.inv(to_centre) @ about_centre @ to_centre
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.reshape(whole, [1, 9])[:, :8],
        output_shape=tf.stack([side, side]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]


def shift(amount: float, seed: tf.Tensor, side: tf.Tensor) -> Matrix:
    x, y = _uniform(seed, amount, amount)
    return [[1.0, 0.0, x * side], [0.0, 1.0, y * side], [0.0, 0.0, 1.0]]


def rotation(amount: float, seed: tf.Tensor, side: tf.Tensor) -> Matrix:
    import tensorflow as tf

    (angle,) = _uniform(seed, math.radians(amount))
    return [[tf.cos(angle), -tf.sin(angle), 0.0], [tf.sin(angle), tf.cos(angle), 0.0], [0.0, 0.0, 1.0]]


def shear(amount: float, seed: tf.Tensor, side: tf.Tensor) -> Matrix:
    import tensorflow as tf

    (angle,) = _uniform(seed, math.radians(amount))
    return [[1.0, tf.tan(angle), 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def zoom(amount: float, seed: tf.Tensor, side: tf.Tensor) -> Matrix:
    (scale,) = _uniform(seed, amount)
    return [[1.0 + scale, 0.0, 0.0], [0.0, 1.0 + scale, 0.0], [0.0, 0.0, 1.0]]


_MAPS: dict[str, Callable[[float, tf.Tensor, tf.Tensor], Matrix]] = {
    "shift": shift,
    "rotation": rotation,
    "shear": shear,
    "zoom": zoom,
}
