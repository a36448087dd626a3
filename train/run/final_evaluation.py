"""What the report of a run is made of: every figure of the validation images, from the session that was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow.compat.v1 as tf

from ..data.pipeline import turned
from ..graph.batches import Pipeline
from ..use.evaluate import photos_of
from ..use.evaluation import Evaluation, summarise

if TYPE_CHECKING:
    from ..cache.transfer import Cached
    from ..graph.towers import Model
    from ..plan.job import Job


def final_evaluation(
    session: tf.Session, model: Model, validation: Pipeline | Cached, job: Job, source: str
) -> Evaluation | None:
    """Runs the inference tower on the validation images once more; None where there are none.

    Transfer values are those that the batches are made of, else what reaches the head; a map is averaged. `source` is
    the checkpoint of these weights.
    """
    examples, tower = job.data.validation, model.inference
    if not len(examples):
        return None
    reads = isinstance(validation, Pipeline)
    fetch = [tower.logits, tower.features, model.index] if reads else [tower.logits]
    one_batch = session.make_callable(fetch, feed_list=list(validation.tensors))
    logits, values, index = [], [], []
    for fed in validation.start(session):
        try:
            made = one_batch(*fed)
        except tf.errors.OutOfRangeError:
            break
        logits.append(made[0])
        values.append(_vectors(made[1] if reads else fed[0]))
        index += [made[2]] if reads else []
    kept = examples.take(np.concatenate(index) if isinstance(validation, Pipeline) else validation.there)
    origin = {"source": source, "net": job.net.name}
    true, shown = kept.label_ids.astype(np.int64), photos_of(job.data, kept)
    shown = turned(shown) if job.preprocessing and job.preprocessing.upright else shown
    made = summarise(origin, job.data.labels, shown, true, np.concatenate(logits))
    return replace(made, features=np.concatenate(values))


def _vectors(values: np.ndarray) -> np.ndarray:
    """[batch, channels] of values [batch, ...]: the mean over a map."""
    return values.mean(axis=(1, 2)) if values.ndim == 4 else values.reshape(len(values), -1)
