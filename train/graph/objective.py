"""The training objective: softmax or, for several labels, sigmoid cross-entropy, with optional label smoothing and
class weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...errors import RecipeError, nearest

if TYPE_CHECKING:
    import tensorflow as tf


def class_weights(
    text: str | None, labels: Sequence[str], counts: Sequence[int], images: int | None = None
) -> list[float] | None:
    """A weight for each class from `--class-weights`: "balanced", or "cat=2,dog=0.5" with 1 for the others.

    balanced: images / (classes * images of the class), so that the mean weight of an image is 1 (like scikit-learn's
    class_weight="balanced"). If each of `images` may have several labels, the weight applies to images with the label,
    and balanced is images without it / images with it. Raises RecipeError for an unknown class or a weight that is not
    a positive number.

    >>> class_weights("balanced", ["cat", "dog"], [30, 10]), class_weights("balanced", ["cat", "dog"], [30, 10], 40)
    ([0.6666666666666666, 2.0], [0.3333333333333333, 3.0])
    """
    if not text:
        return None
    if text == "balanced" and images is not None:
        return [(images - count) / count if count else 0.0 for count in counts]
    if text == "balanced":
        return [sum(counts) / (len(counts) * count) if count else 0.0 for count in counts]
    return values_by_label("--class-weights", [text], labels, 1.0)


def values_by_label(flag: str, texts: Iterable[str], labels: Sequence[str], default: float) -> list[float]:
    """A number for each class, from texts such as "cat=2,dog=0.5" or "0.3" for all; `default` for the others.

    Raises RecipeError for an unknown class, and for a value that is not a number of at least 0.

    >>> values_by_label("--threshold", ["0.4", "big, red=0.2"], ["cat", "big, red"], 0.5)
    [0.4, 0.2]
    """
    values = dict.fromkeys(labels, default)
    for text in texts:
        for part in [text] if text.rpartition("=")[0] in values else text.split(","):
            label, equals, number = part.rpartition("=")
            label = label.strip()
            if equals and label not in values:
                raise RecipeError(f"{flag} {part}: no class is called {label!r}{nearest(label, labels)}")
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not 0 <= value < float("inf"):
                raise RecipeError(f"{flag} {part}: must be a number of at least 0")
            values.update(dict.fromkeys([label] if equals else labels, value))
    return [values[label] for label in labels]


def image_losses(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0, weights: Sequence[float] | None = None
) -> tf.Tensor:
    """The cross-entropy of each image: float32 [batch], from logits [batch, classes] and labels int32 [batch]; or, if
    an image may have several labels, int32 [batch, classes] of 0 and 1, the mean over the classes.

    Label smoothing s trains towards 1 - s + s / classes for the true class and s / classes for the others
    (Szegedy et al. 2015, section 7); with several labels towards 1 - s / 2 and s / 2, like tf.losses.
    """
    import tensorflow.compat.v1 as tf

    logits = tf.cast(logits, tf.float32)
    if labels.shape.rank == 2:
        targets = tf.cast(labels, tf.float32) * (1 - smoothing) + smoothing / 2
        weights = tf.constant(1.0 if weights is None else list(weights), tf.float32)
        losses = tf.nn.weighted_cross_entropy_with_logits(labels=targets, logits=logits, pos_weight=weights)
        return tf.reduce_mean(losses, axis=1)
    if smoothing:
        classes = logits.shape[-1]
        on, off = 1 - smoothing + smoothing / classes, smoothing / classes
        targets = tf.one_hot(labels, classes, on_value=on, off_value=off)
        losses = tf.nn.softmax_cross_entropy_with_logits_v2(labels=targets, logits=logits)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return losses if weights is None else losses * tf.gather(tf.constant(list(weights), tf.float32), labels)


def rightness(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """float32 [batch]: 1 for a correctly classified image, else 0; if images may have several labels, the share of
    classes that were predicted correctly.
    """
    import tensorflow.compat.v1 as tf

    if labels.shape.rank == 2:
        return tf.reduce_mean(tf.cast(tf.equal(tf.cast(logits > 0, tf.int32), labels), tf.float32), axis=1)
    return tf.cast(tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels), tf.float32)
