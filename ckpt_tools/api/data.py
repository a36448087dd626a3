"""What may be given as `data`: what the commands take, or what is in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..train.data.examples import DataSet


def given_data(data: Any) -> tuple[str | os.PathLike[str], DataSet | None]:
    """The option `data`, and the data set where it is in memory: what `data_set` or `features` returned, (images,
    labels), or a tf.data.Dataset."""
    if data is None or isinstance(data, str | os.PathLike):
        return data or "", None
    from ..train.data.examples import DataSet
    from ..train.data.memory import data_set
    from ..train.use.feature_files import Features

    if isinstance(data, DataSet):
        return data.path, data
    if isinstance(data, Features):
        values = data.values.reshape(len(data.values), -1)
        made = data_set(values, data.label_ids, data.labels, names=data.names, split=data.split)
        return made.path, made
    made = data_set(*data) if isinstance(data, tuple) else data_set(data)
    return made.path, made
