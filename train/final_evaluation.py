"""What the report of a run is made of: every figure of the validation images, from the session that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow.compat.v1 as tf

from .batches import Pipeline
from .evaluate import Evaluation, photos_of, summarise

if TYPE_CHECKING:
    from .job import Job
    from .model import Tower
    from .transfer import Cached


def final_evaluation(
    session: tf.Session,
    tower: Tower,
    validation: Pipeline | Cached,
    job: Job,
    unreadable: Mapping[str, str],
    source: str,
) -> Evaluation | None:
    """Runs `tower` on the validation images once more; None where there are none.

    Transfer values are those that the batches are made of, else what reaches the head; a map is averaged.
    `unreadable` are the names of images that the batches leave out, `source` is the checkpoint of these weights.
    """
    examples = job.data.validation
    if not len(examples):
        return None
    fetch = [tower.logits, tower.features] if isinstance(validation, Pipeline) else [tower.logits]
    one_batch = session.make_callable(fetch, feed_list=list(validation.tensors))
    logits, values = [], []
    for fed in validation.start(session):
        try:
            made = one_batch(*fed)
        except tf.errors.OutOfRangeError:
            break
        logits.append(made[0])
        values.append(_vectors(made[1] if len(made) > 1 else fed[0]))
    kept = examples.take([i for i, name in enumerate(examples.names) if name not in unreadable])
    origin = {"source": source, "net": job.net.name}
    true, shown = kept.label_ids.astype(np.int64), photos_of(job.data, kept)
    made = summarise(origin, job.data.labels, shown, true, np.concatenate(logits))
    return replace(made, features=np.concatenate(values))


def _vectors(values: np.ndarray) -> np.ndarray:
    """[batch, channels] of values [batch, ...]: the mean over a map."""
    return values.mean(axis=(1, 2)) if values.ndim == 4 else values.reshape(len(values), -1)
