"""A classifier that stays open: one graph and one session that can be called with images any number of times.

with ClassifierSession(SourceOptions(train_dir="run").open()) as classify:
    classify("photo.jpg").label
    [prediction.label for prediction in classify(images)]        uint8 [n, h, w, 3]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, TrainingError
from ..data.arrays import checked_values, in_colours
from ..data.examples import named
from ..data.pipeline import decode
from .classifier import Classifier
from .predict import find_images
from .running import logits_of, restore_variables


class Prediction(NamedTuple):
    """The prediction for an image. `guesses` are (label, probability), the likeliest first; if an image may have
    several labels, those that reach their thresholds. If there are none, `label` is None. `probabilities` is float64
    [classes], in the order of the classes."""

    name: str
    guesses: tuple[tuple[str, float], ...]
    probabilities: np.ndarray

    @property
    def label(self) -> str | None:
        """The likeliest label."""
        return self.guesses[0][0] if self.guesses else None

    @property
    def probability(self) -> float | None:
        """The probability of the likeliest label."""
        return self.guesses[0][1] if self.guesses else None


class ClassifierSession:
    """A net with its graph built and its variables restored. Close it, or use it in a `with`."""

    def __init__(
        self, classifier: Classifier, *, top: int | None = None, device: str = "auto", batch_size: int = 32
    ) -> None:
        import tensorflow.compat.v1 as tf

        from ..data.preprocess import prepare
        from ..graph.towers import session_config

        self.classifier = classifier
        self._top = top or (None if classifier.many else 3)
        self._batch_size = batch_size
        how = classifier.preprocessing
        with tf.Graph().as_default():
            if how is None:
                shape: list[int | None] = [None, classifier.net.feature_channels]
                self._prepared = None
            else:
                with tf.device("/cpu:0"):
                    pixels = tf.placeholder(tf.uint8, [None, None, 3])
                    prepared = prepare(pixels, how)
                shape = [None, *prepared.shape.as_list()]
            images = tf.placeholder(tf.float32, shape)
            logits = logits_of(classifier, images).tensors["logits"]
            self._session: tf.Session | None = tf.Session(config=session_config(device)[0])
            try:
                restore_variables(self._session, classifier)
                self._run = self._session.make_callable(logits, feed_list=[images])
                if how is not None:
                    self._prepared = self._session.make_callable(prepared, feed_list=[pixels])
            except BaseException:
                self.close()
                raise

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return self.classifier.labels

    def __call__(self, images: Any) -> Prediction | list[Prediction]:
        """Classifies images. Returns a Prediction for one image (an array [h, w, 3] or [h, w], or the path of a file),
        a list of them for several (an array [n, h, w, 3], a list of arrays and files, a folder or a pattern). Arrays
        are uint8, red, green, blue. A net on vectors takes float [n, d] or [d].

        Raises DataError with every file that is not an image.
        """
        given, one = self._listed(images)
        names = [os.fspath(each) if isinstance(each, str | os.PathLike) else str(i) for i, each in enumerate(given)]
        chances = self.classifier.probabilities(self._logits(given, names))
        made = [self._prediction(name, each) for name, each in zip(names, chances, strict=True)]
        return made[0] if one else made

    def probabilities(self, images: Any) -> np.ndarray:
        """float64 [n, classes] for the same images; [classes] for one."""
        found = self(images)
        return (
            found.probabilities if isinstance(found, Prediction) else np.stack([each.probabilities for each in found])
        )

    def close(self) -> None:
        """Releases memory and devices. May be called repeatedly."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> ClassifierSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._session is not None else ", closed"
        return f"<classifier {self.classifier.path}: {self.classifier.net.title}, {len(self.labels)} classes{state}>"

    # --- inputs ---

    def _listed(self, images: Any) -> tuple[Sequence[Any] | np.ndarray, bool]:
        """The images as a sequence, and whether a single one was given."""
        vectors = self.classifier.takes == "vectors"
        if isinstance(images, str | os.PathLike):
            if vectors:
                raise DataError("the net takes vectors, and a path was given", path=str(images))
            return ([images], True) if Path(images).is_file() else (find_images([os.fspath(images)]), False)
        if isinstance(images, list | tuple):
            if not images:
                return [], False
            return images, False
        array = np.asarray(in_colours(images))
        if vectors:
            one = array.ndim == 1
            return (array[None] if one else array), one
        if array.ndim == 3 and array.shape[2] in (2, 4):
            raise DataError(f"an image of {array.shape[2]} channels: give red, green and blue, or grey alone")
        if array.ndim not in (2, 3, 4):
            raise DataError("no images: give files, or arrays [h, w, 3] or [n, h, w, 3]")
        one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
        return (array[None] if one else array), one

    def _logits(self, given: Sequence[Any] | np.ndarray, names: Sequence[str]) -> np.ndarray:
        if self._session is None:
            raise TrainingError("the classifier is closed", path=self.classifier.path)
        if self._prepared is None:
            vectors, width = np.asarray(given, np.float32), self.classifier.net.feature_channels
            if vectors.ndim != 2 or vectors.shape[1] != width:
                raise DataError(f"values of shape {vectors.shape}, and the net takes vectors of {width:,} values")
            values = list(vectors)
        else:
            values = list(self._images(given, names, self._prepared))
        size = self._batch_size
        parts = [self._run(np.stack(values[i : i + size])) for i in range(0, len(values), size)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)

    def _images(
        self, given: Sequence[Any] | np.ndarray, names: Sequence[str], prepared: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yields each image preprocessed for the net."""
        broken = []
        for each, name in zip(given, names, strict=True):
            try:
                pixels = self._pixels(each)
            except (ValueError, OSError) as error:
                broken.append(f"{name} ({error})")
                continue
            if not broken:
                yield prepared(pixels)
        if broken:
            raise DataError(f"cannot be decoded: {named('image', broken)}")

    def _pixels(self, image: Any) -> np.ndarray:
        """uint8 [h, w, 3] from an array or a file."""
        if isinstance(image, str | os.PathLike):
            return decode(Path(image).read_bytes(), upright=self.classifier.upright)
        if isinstance(image, bytes):
            return decode(image, upright=self.classifier.upright)
        return decode(checked_values(np.asarray(in_colours(image))[None], "images")[0])

    def _prediction(self, name: str, chances: np.ndarray) -> Prediction:
        likeliest, thresholds = np.argsort(-chances, kind="stable"), self.classifier.thresholds
        above = likeliest if thresholds is None else [i for i in likeliest if chances[i] >= thresholds[i]]
        return Prediction(name, tuple((self.labels[i], float(chances[i])) for i in above[: self._top]), chances)
