"""A picture of one batch before and after augmentation, to see whether the classes stay recognisable."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ...errors import OutputError
from ..data.examples import Examples
from ..data.pipeline import Unreadable, make_batches
from ..data.preprocess import Preprocessing, as_picture

ACROSS = 8  # images per row
GAP = 4  # pixels between images, and half the pixels between pairs of rows


def draw_augmentation(
    examples: Examples, how: Preprocessing, path: str | os.PathLike[str], *, batch_size: int, seed: int
) -> int:
    """Writes a PNG file with the first training batch for this `seed`; returns the number of its images.

    Each pair of rows shows images as in evaluation above, and as in training below.
    Raises OutputError if the file cannot be written, DataError if too many images cannot be decoded.
    """
    import tensorflow.compat.v1 as tf
    from PIL import Image

    def first(chosen: Examples, how: Preprocessing, training: bool) -> dict[str, np.ndarray]:
        unreadable = Unreadable()
        with tf.Graph().as_default(), tf.Session() as session, unreadable.raised():
            common: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "unreadable": unreadable}
            batches = make_batches(chosen, how, training=training, **common)
            return session.run(tf.data.make_one_shot_iterator(batches).get_next())

    after = first(examples, how, True)
    before = first(examples.take(after["index"]), how.plain, False)
    sheet = _sheet(as_picture(before["image"], how), as_picture(after["image"], how))
    try:
        Image.fromarray(sheet).save(path, "PNG")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", path=path) from error
    return len(after["index"])


def _sheet(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Two arrays uint8 [n, s, s, 3] as one picture uint8 [height, width, 3] on white."""
    count, side = len(before), before.shape[1]
    across, pitch = min(ACROSS, count), side + GAP
    pairs = -(-count // across)
    sheet = np.full((pairs * (2 * pitch + GAP), across * pitch + GAP, 3), 255, np.uint8)
    for i in range(count):
        top, left = GAP + i // across * (2 * pitch + GAP), GAP + i % across * pitch
        sheet[top : top + side, left : left + side] = before[i]
        sheet[top + pitch : top + pitch + side, left : left + side] = after[i]
    return sheet
