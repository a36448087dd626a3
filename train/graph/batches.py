"""Sources of a graph's batches: `tensors` are fed with the values that iterating yields, one item per batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import tensorflow.compat.v1 as tf

Result = TypeVar("Result")


class Pipeline:
    """Batches that the graph reads from a tf.data pipeline; only the pipeline's handle is fed.

    Several pipelines can feed one graph: `read_batch` makes the tensors, and each pipeline a handle to read from.
    """

    def __init__(self, batches: tf.data.Dataset, handle: tf.Tensor, device: str = "") -> None:
        self.tensors = (handle,)
        with tf.device(device):
            self._iterator = tf.data.make_initializable_iterator(ahead_of(batches, device))
            self._string = self._iterator.string_handle()

    def start(self, session: tf.Session) -> Iterator[tuple[Any, ...]]:
        """Starts at the first batch. The iterator is endless; the graph raises OutOfRangeError after the last batch."""
        session.run(self._iterator.initializer)
        value = session.run(self._string)
        while True:
            yield (value,)


def ahead_of(batches: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """The batches prefetched to `device`, so that a GPU does not wait for 34 MB of pixels.

    The iterator must be made on the same device. If `device` is empty, the batches are returned unchanged.
    """
    return batches.apply(tf.data.experimental.prefetch_to_device(device, 2)) if device else batches


def until_the_end(run: Callable[[], Result], at_once: int) -> Generator[Result, None, None]:
    """Yields the results of calling `run` until it raises OutOfRangeError; other errors are raised.

    Up to `at_once` calls run concurrently, each in its own thread: while one pools or concatenates, which keeps only
    one core busy, another one's convolution uses the other cores. Results come in the order in which they finish."""
    with ThreadPoolExecutor(at_once) as threads:
        working = {threads.submit(run) for _ in range(at_once)}
        while working:
            finished, working = wait(working, return_when=FIRST_COMPLETED)
            for each in finished:
                try:
                    result = each.result()
                except tf.errors.OutOfRangeError:
                    continue
                working.add(threads.submit(run))
                yield result


def in_order(numbered: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """The results in the order of their numbers 0, 1, 2 ..., which may arrive in any order."""
    following, waiting = 0, {}
    for number, result in numbered:
        waiting[int(number)] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def read_batch(spec: Any, device: str = "") -> tuple[tf.Tensor, Any]:
    """A handle to feed, and the tensors read from its pipeline on `device`, as described by `spec`, the pipeline's
    `element_spec`."""
    types = tf.nest.map_structure(lambda each: each.dtype, spec)
    shapes = tf.nest.map_structure(lambda each: each.shape, spec)
    with tf.device(device):
        handle = tf.placeholder(tf.string, [], name="pipeline")
        return handle, tf.data.Iterator.from_string_handle(handle, types, shapes).get_next()


class ValueTable:
    """Up to `rows` transfer values [channels] that stay on a device while the head trains; only row numbers are fed.

    The table is not a variable of the net: it is not in any checkpoint, and `load` sets its values.
    """

    def __init__(self, rows: int, channels: int, device: str) -> None:
        self._shape = (rows, 1, 1, channels)
        with tf.device(device):
            self._values = tf.placeholder(tf.float32, self._shape, name="transfer_values")
            self._table = tf.Variable(self._values, trainable=False, collections=[], use_resource=True)

    def load(self, session: tf.Session, values: np.ndarray) -> None:
        """Sends the values, float32 [n, 1, 1, channels], to the device; n is less than the number of rows if images
        cannot be decoded."""
        if len(values) < self._shape[0]:
            values = np.concatenate([values, np.zeros((self._shape[0] - len(values), *self._shape[1:]), np.float32)])
        session.run(self._table.initializer, {self._values: values})

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        """The values [batch, 1, 1, channels] of these rows, int32 [batch]."""
        return tf.gather(self._table, rows)


def fed_features(
    channels: int, label_shape: tuple[int, ...] = (), table: ValueTable | None = None
) -> dict[str, tf.Tensor]:
    """A batch ("features", "label", "index") of placeholders for the values that reach the head, in place of images.
    With a table, row numbers ("rows") are fed instead of the features."""
    batch = {
        "label": tf.placeholder(tf.int32, [None, *label_shape], name="labels"),
        "index": tf.placeholder(tf.int64, [None], name="index"),
    }
    if table is None:
        return {**batch, "features": tf.placeholder(tf.float32, [None, 1, 1, channels], name="features")}
    rows = tf.placeholder(tf.int32, [None], name="rows")
    return {**batch, "rows": rows, "features": table.of(rows)}
