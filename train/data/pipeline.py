"""Makes batches of examples: a tf.data pipeline that gives the same batches for the same seed, from any step on.

The order in epoch e depends only on (seed, e), and the random changes of an image on (seed, e) and the image's bytes,
never on earlier draws. So a run continued at step 1,234 sees exactly the batches of an uninterrupted run, and an image
keeps its views when others are added.

Ordinary JPEG files are decoded by TensorFlow, on all cores. Files that it refuses, and other kinds of images, are
decoded by Pillow, which tells what is wrong with a file, while an error of TensorFlow's operation would end the whole
epoch. The pixels are the same, but with Pillow alone, one core of sixteen would be busy just with Python."""

from __future__ import annotations

import functools
import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from crc32c import crc32c

from ...errors import DataError, UnsupportedError
from .examples import Examples, named, steps_per_epoch
from .preprocess import Preprocessing, prepare

if TYPE_CHECKING:
    import tensorflow as tf

TOO_MANY = 0.05  # largest share of undecodable examples before the run stops
MOST_PIXELS = 178_956_970  # pixels of a photo, Pillow's limit
ENDLESS = 1 << 40
LOOKED_AT = 16  # images examined to tell whether all are grey
_NUMBERS = ("int64", "int32", "int64")  # position of the example, its label, seed for random changes from its bytes


class Unreadable:
    """Collects the examples that pipelines could not decode: name -> reason, and `error` once there are too many.

    `limit` is the largest allowed share of all examples. `total` is their number, needed if a pipeline gets only a part
    of them.
    """

    def __init__(self, limit: float = TOO_MANY, total: int | None = None) -> None:
        self.reasons: dict[str, str] = {}
        self.error: DataError | None = None
        self._limit, self._total = limit, total

    def add(self, name: str, reason: str, total: int) -> None:
        """Adds one of `total` examples. Raises DataError if it is one too many, or if no example is left."""
        self.reasons[name] = reason
        total = self._total or total
        if len(self.reasons) > max(1, self._limit * total) or len(self.reasons) == total:
            lines = "; ".join(f"{name}: {reason}" for name, reason in list(self.reasons.items())[:3])
            self.error = DataError(f"{len(self.reasons):,} of {total:,} images cannot be decoded: {lines}")
            raise self.error

    def note(self) -> str:
        """One sentence for the user, with the reasons, or an empty string."""
        whys = [f"{name} ({reason})" for name, reason in self.reasons.items()]
        return f"could not be decoded and were left out: {named('image', whys)}" if whys else ""

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Wraps `session.run`: turns TensorFlow's error for a failed pipeline into the DataError that caused it."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            if self.error is not None:
                raise self.error from error
            raise


def decode(example: bytes | np.ndarray, *, upright: bool = False) -> np.ndarray:
    """Decodes an image file's bytes, or pixels uint8 [h, w, 1 or 3], to uint8 [h, w, 3] red, green, blue.

    Only the first frame of an animation is taken, and transparency is dropped. The orientation in EXIF data is ignored,
    as in slim, unless `upright` is true. Raises ValueError or OSError with the problem of the bytes.
    """
    if isinstance(example, np.ndarray):
        return np.repeat(example, 3, axis=2) if example.shape[2] == 1 else example
    Image = _pillow()  # noqa: N806
    try:
        with Image.open(io.BytesIO(example)) as image:
            if upright:
                from PIL import ImageOps

                ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Image.UnidentifiedImageError:
        raise ValueError("not an image, or of a kind that Pillow does not know") from None
    except Image.DecompressionBombError as error:
        size, most = (f"{int(number):,}" for number in re.findall(r"\d+", str(error))[:2])
        raise ValueError(f"has {size} pixels, and up to {most} are decoded: make it smaller") from None
    except (SyntaxError, EOFError) as error:  # Pillow's exceptions for damaged files
        raise ValueError(str(error)) from None


@functools.cache
def _pillow() -> ModuleType:
    """Pillow's Image module, without its warning for photos above half its limit."""
    try:
        from PIL import Image
    except ImportError:
        raise UnsupportedError("decoding images needs Pillow", advice='pip install "ckpt-tools[train]"') from None
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def turned(examples: Examples) -> Examples:
    """The same photos as pixels, rotated by their EXIF orientation, for display."""
    return replace(examples, read=lambda i: decode(examples.read(i), upright=True))


def are_grey(examples: Examples) -> bool:
    """Whether images have one channel, judged by LOOKED_AT of them; unreadable ones are ignored."""
    found = []
    for i in np.unique(np.linspace(0, len(examples) - 1, min(LOOKED_AT, len(examples))).astype(int)):
        try:
            example = examples.read(int(i))
            found.append(example.shape[2] == 1 if isinstance(example, np.ndarray) else _is_grey_file(example))
        except (ValueError, OSError, DataError):
            continue
    return bool(found) and all(found)


def _is_grey_file(data: bytes) -> bool:
    with _pillow().open(io.BytesIO(data)) as image:
        return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The permutation of `count` examples in an epoch.

    It sorts raw PCG64 numbers, since NumPy guarantees these to stay the same, unlike `Generator.permutation`.
    """
    drawn = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(drawn, kind="stable")


def make_batches(
    examples: Examples,
    how: Preprocessing | None,
    *,
    batch_size: int,
    training: bool,
    seed: int = 0,
    start_step: int = 0,
    unreadable: Unreadable | None = None,
    view: int | None = None,
) -> tf.data.Dataset:
    """Batches {"image": float32 [b, s, s, 3], "label": int32 [b], "index": int64 [b]}; `index` counts in `examples`. If
    examples may have several labels, "label" is int32 [b, classes] of 0 and 1. Without preprocessing the examples are
    vectors, and "image" is float32 [b, width].

    With `training`, batches come without end, shuffled anew each epoch and augmented by `how.augment`; the first batch
    is that of step `start_step`. Every epoch covers all examples in `steps_per_epoch` batches, of which the last may be
    smaller. An example that cannot be decoded is replaced by the next one that can. Otherwise, examples come in order,
    once, without augmentation or augmented as in that `view`; an example that cannot be decoded is left out. Both add
    such examples to `unreadable`, whose `raised()` must wrap the `session.run` that reads batches."""
    import tensorflow as tf

    if not len(examples):
        raise DataError("no images")
    spe = steps_per_epoch(len(examples), batch_size)
    first, skipped = divmod(start_step, spe)
    if how is None:
        steps = range(start_step, ENDLESS if training else (first + 1) * spe)
        return _vector_batches(examples, steps, batch_size, seed if training else None)
    photos = _Photos(examples, how, Unreadable() if unreadable is None else unreadable, training, seed, view)

    def order(epoch: np.ndarray) -> np.ndarray:
        if not training:
            return np.arange(skipped * batch_size, len(examples))
        everything = epoch_order(seed, int(epoch), len(examples))
        return everything[skipped * batch_size :] if epoch == first else everything

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = tf.numpy_function(order, [epoch], tf.int64, stateful=False)
        indices.set_shape([None])
        made = photos.prepared(tf.data.Dataset.from_tensor_slices(indices), epoch, cores)
        return made.filter(lambda one: one["index"] >= 0).batch(batch_size, num_parallel_calls=2, deterministic=True)

    cores = os.cpu_count() or 1
    batches = tf.data.Dataset.range(first, ENDLESS if training else first + 1).flat_map(batches_of)
    # The pipeline has its own threads. On the session's threads, the graph would wait for photos being decoded ahead.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = cores
    return batches.prefetch(4).with_options(options)


class _Photos(NamedTuple):
    """Decodes photos and prepares them for a net; the parameters are those of `make_batches`."""

    examples: Examples
    how: Preprocessing
    unreadable: Unreadable
    training: bool
    seed: int
    view: int | None

    def prepared(self, indices: tf.data.Dataset, epoch: tf.Tensor, cores: int) -> tf.data.Dataset:
        """{"image", "label", "index"} for each of the indices, in order; "index" is -1 for examples to leave out."""
        import tensorflow as tf

        def by_pillow(index: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._element(epoch, *tf.numpy_function(self._load, [index], [tf.uint8, *_NUMBERS], stateful=False))

        def by_tensorflow(index: tf.Tensor) -> dict[str, tf.Tensor]:
            data, *numbers = tf.numpy_function(self._load_jpeg, [index], [tf.string, *_NUMBERS], stateful=False)
            pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
            return self._element(epoch, pixels, *numbers)

        def one_of_them(index: tf.Tensor) -> tf.data.Dataset:
            one = tf.data.Dataset.from_tensors(index)
            return one.map(by_tensorflow).ignore_errors().concatenate(one.map(by_pillow)).take(1)

        if _begins_with_a_jpeg(self.examples):
            return indices.interleave(one_of_them, cycle_length=cores, num_parallel_calls=cores, deterministic=True)
        return indices.map(by_pillow, num_parallel_calls=cores, deterministic=True)

    def _load(self, index: np.ndarray) -> tuple[np.ndarray, np.int64, np.ndarray, np.int64]:
        """Pixels, position, label, and seed for random changes of an example. If it cannot be read: in training those
        of the next example that can, else a black pixel and -1."""
        examples, unreadable = self.examples, self.unreadable
        for step in range(len(examples) if self.training else 1):
            used = (int(index) + step) % len(examples)
            if examples.names[used] in unreadable.reasons:
                continue
            try:
                example = examples.read(used)
                return decode(example, upright=self.how.upright), *self._numbers(used, bytes(example))
            except (ValueError, OSError, DataError) as error:
                unreadable.add(examples.names[used], str(error), len(examples))
        if self.training:
            unreadable.error = unreadable.error or DataError(f"none of {len(examples):,} images can be decoded")
            raise unreadable.error
        return np.zeros((1, 1, 3), np.uint8), *self._numbers(-1, b"")

    def _load_jpeg(self, index: np.ndarray) -> tuple[bytes, np.int64, np.ndarray, np.int64]:
        """The same for an ordinary JPEG file, whose bytes TensorFlow decodes. Raises ValueError for any other file."""
        data = ordinary_jpeg(self.examples.read(int(index)))
        if self.how.upright and _is_turned(data):
            raise ValueError("TensorFlow does not turn it")
        return data, *self._numbers(int(index), data)

    def _numbers(self, used: int, data: bytes) -> tuple[np.int64, np.ndarray, np.int64]:
        return np.int64(used), self.examples.label_ids[used].astype(np.int32), np.int64(crc32c(data))

    def _element(
        self, epoch: tf.Tensor, pixels: tf.Tensor, used: tf.Tensor, label: tf.Tensor, number: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        pixels.set_shape([None, None, 3])
        for scalar in (used, number):
            scalar.set_shape([])
        label.set_shape(self.examples.label_ids.shape[1:])
        seen = self.how.view(epoch) if self.training else self.view
        random = None if seen is None or not self.how.random else tf.stack([self.seed * 1_000_003 + seen, number])
        return {"image": prepare(pixels, self.how, random), "label": label, "index": used}


def batch_spec(examples: Examples, how: Preprocessing | None) -> dict[str, tf.TensorSpec]:
    """The `element_spec` of the pipelines of `make_batches`."""
    import tensorflow as tf

    sides = [how.image_size, how.image_size, 1 if how.channels == "grey" else 3] if how else [len(examples.read(0))]
    return {
        "image": tf.TensorSpec([None, *sides], tf.float32),
        "label": tf.TensorSpec([None, *examples.label_ids.shape[1:]], tf.int32),
        "index": tf.TensorSpec([None], tf.int64),
    }


def ordinary_jpeg(data: bytes | np.ndarray) -> bytes:
    """The bytes of a complete JPEG file, grey or in colour. Raises ValueError for anything else: TensorFlow decodes
    CMYK to other colours than Pillow, writes to stderr about truncated files, and does not limit their size."""
    if not isinstance(data, bytes) or not data.startswith(b"\xff\xd8\xff") or not data.endswith(b"\xff\xd9"):
        raise ValueError("not a JPEG file, or not a whole one")
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:  # marker and length of each segment (ITU T.81, annex B)
        kind = data[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame: precision, height, width, components
            sides = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if data[place + 9] in (1, 3) and math.prod(sides) <= MOST_PIXELS:
                return data
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise ValueError("a JPEG file of another kind")


def _is_turned(data: bytes) -> bool:
    """Whether Pillow would rotate a photo that is not upright by its EXIF or XMP data."""
    from PIL import ExifTags

    with _pillow().open(io.BytesIO(data)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def _begins_with_a_jpeg(examples: Examples) -> bool:
    """Whether the first example is an ordinary JPEG, so that the others may be, too."""
    try:
        return bool(ordinary_jpeg(examples.first))
    except (ValueError, OSError, DataError):
        return False


def _vector_batches(examples: Examples, steps: range, batch_size: int, seed: int | None) -> tf.data.Dataset:
    """The batches of vectors for these steps, in order if there is no seed."""
    import tensorflow as tf

    per_epoch, width = steps_per_epoch(len(examples), batch_size), len(examples.read(0))

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.arange(len(examples)) if seed is None else epoch_order(seed, epoch, len(examples))

    def load(step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epoch, number = divmod(int(step), per_epoch)
        rows = order(epoch)[number * batch_size : (number + 1) * batch_size]
        labels = examples.label_ids[rows].astype(np.int32)
        return np.stack([examples.read(i) for i in rows]).astype(np.float32), labels, rows

    def batch(step: tf.Tensor) -> dict[str, tf.Tensor]:
        values, labels, rows = tf.numpy_function(load, [step], [tf.float32, tf.int32, tf.int64], stateful=False)
        values.set_shape([None, width])
        labels.set_shape([None, *examples.label_ids.shape[1:]])
        rows.set_shape([None])
        return {"image": values, "label": labels, "index": rows}

    return tf.data.Dataset.range(steps.start, steps.stop).map(batch).prefetch(4)
