"""What a net that nothing changes any more makes of images: prepared once, for whatever pipelines they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from ..options.training import FLOAT32
from .batches import Pipeline, in_order, read_batch, until_the_end
from .devices import runs_at_once, visible_gpus
from .folded import fold, fusing
from .towers import session_config


class Source:
    """Where the current graph has its images from: batches that look as the `spec` of their pipelines says, numbered,
    and sent ahead to `device`."""

    def __init__(self, spec: Any, device: str) -> None:
        self.spec, self.device = spec, device
        self.handle, (self.number, self.batch) = read_batch((tf.TensorSpec([], tf.int64), spec), device)


class Extraction:
    """Computes `values`, [batch, ...] each, in a session in which every variable that they need has its value. What is
    of less than float32 is given as float32. `device` is that of --device."""

    def __init__(self, session: tf.Session, source: Source, values: Sequence[tf.Tensor], device: str) -> None:
        self.session, self._source, self._at_once = session, source, runs_at_once(device)
        with session.graph.as_default():
            fetched = [source.number, source.batch["index"], *map(_not_less, values)]
        self._run = session.make_callable(fetched, feed_list=[source.handle])

    def run(self, make: Callable[[], tf.data.Dataset]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """For each batch of the pipeline that `make` makes, in order: its "index", int64 [batch], and its values."""
        with self.session.graph.as_default():
            pipeline = Pipeline(make().enumerate(), self._source.handle, self._source.device)
            fed = next(pipeline.start(self.session))
        with closing(until_the_end(lambda: self._run(*fed), self._at_once)) as found:
            for index, *values in in_order((number, made) for number, *made in found):
                yield index, values


def extraction(
    session: tf.Session, source: Source, values: Sequence[tf.Tensor], *, precision: str, device: str
) -> Extraction:
    """What computes these tensors of the session's graph, which come of `source`. In less than float32 the net is
    folded if it can be: in a graph and a session of its own, which need nothing of the one given any more."""
    if precision != FLOAT32:
        with session.graph.as_default():
            folded = fold(session, list(map(_not_less, values)), source.batch["image"])
        if folded is not None:
            with tf.Graph().as_default():
                own = Source(source.spec, source.device)
                values, config = folded.on(own.batch["image"]), session_config(device)[0]
                session, source = tf.Session(config=config if visible_gpus(device) else fusing(config)), own
    return Extraction(session, source, values, device)


def _not_less(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor in float32, if it is of less."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
