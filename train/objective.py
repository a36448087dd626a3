"""What training minimises: cross-entropy, with smoothed labels and weighted classes where asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RecipeError, nearest
from .options import Options

if TYPE_CHECKING:
    import tensorflow as tf


def class_weights(text: str | None, labels: Sequence[str], counts: Sequence[int]) -> list[float] | None:
    """A weight for each class from `--class-weights`: "balanced", or "cat=2,dog=0.5" with 1 for the others.

    balanced: images / (classes * images of the class), so that the mean weight of an image is 1 (as scikit-learn's
    class_weight="balanced" has it). Raises RecipeError for an unknown class or a weight that is no positive number.

    >>> class_weights("balanced", ["cat", "dog"], [30, 10])
    [0.6666666666666666, 2.0]
    """
    if not text:
        return None
    if text == "balanced":
        return [sum(counts) / (len(counts) * count) if count else 0.0 for count in counts]
    weights = dict.fromkeys(labels, 1.0)
    for part in text.split(","):
        label, _, number = part.rpartition("=")
        if label not in weights:
            raise RecipeError(f"--class-weights {part}: no class is called {label!r}{nearest(label, labels)}")
        try:
            weights[label] = float(number)
        except ValueError:
            weights[label] = -1.0
        if not 0 <= weights[label] < float("inf"):
            raise RecipeError(f"--class-weights {part}: the weight must be a number of at least 0")
    return [weights[label] for label in labels]


def image_losses(
    logits: tf.Tensor, labels: tf.Tensor, options: Options, weights: Sequence[float] | None = None
) -> tf.Tensor:
    """The objective of each image: float32 [batch], from logits [batch, classes] and labels int32 [batch].

    Label smoothing s trains towards 1 - s + s / classes for the true class and s / classes for the others
    (Szegedy et al. 2015, section 7).
    """
    import tensorflow.compat.v1 as tf

    logits = tf.cast(logits, tf.float32)
    if options.label_smoothing:
        classes = logits.shape[-1]
        smooth = options.label_smoothing
        targets = tf.one_hot(labels, classes, on_value=1 - smooth + smooth / classes, off_value=smooth / classes)
        losses = tf.nn.softmax_cross_entropy_with_logits_v2(labels=targets, logits=logits)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return losses if weights is None else losses * tf.gather(tf.constant(list(weights), tf.float32), labels)
