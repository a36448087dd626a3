"""Computes tensors of a net that no longer changes, prepared once and then run on any pipeline of images."""

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
    """The source of the current graph's images: numbered batches with the `spec` of their pipelines, prefetched to
    `device`."""

    def __init__(self, spec: Any, device: str) -> None:
        self.spec, self.device = spec, device
        self.handle, (self.number, self.batch) = read_batch((tf.TensorSpec([], tf.int64), spec), device)


class Extraction:
    """Computes `values`, each [batch, ...], in a session in which the variables they need are restored. Types below
    float32 are returned as float32. `device` is the value of --device."""

    def __init__(self, session: tf.Session, source: Source, values: Sequence[tf.Tensor], device: str) -> None:
        self.session, self._source, self._at_once = session, source, runs_at_once(device)
        with session.graph.as_default():
            fetched = [source.number, source.batch["index"], *map(_not_less, values)]
        self._run = session.make_callable(fetched, feed_list=[source.handle])

    def run(self, make: Callable[[], tf.data.Dataset]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Yields "index", int64 [batch], and the values for each batch of the pipeline returned by `make`, in order."""
        with self.session.graph.as_default():
            pipeline = Pipeline(make().enumerate(), self._source.handle, self._source.device)
            fed = next(pipeline.start(self.session))
        with closing(until_the_end(lambda: self._run(*fed), self._at_once)) as found:
            for index, *values in in_order((number, made) for number, *made in found):
                yield index, values


def extraction(
    session: tf.Session, source: Source, values: Sequence[tf.Tensor], *, precision: str, device: str
) -> Extraction:
    """An Extraction of these tensors of the session's graph, which depend on `source`. Below float32 the net is folded
    if possible, in a graph and a session of its own, which no longer need the given session."""
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
    """The tensor, converted to float32 if its type is below that."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
