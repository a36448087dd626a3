"""Writes Keras 3's `.weights.h5`, each weight at its place, `layers/conv2d_7/vars/0`. keras.py reads them.

Keras identifies weights only by place: the class of the layer, its number among the model's layers of that class, and
the number of the variable in the layer. Only a layout can tell a tensor's place (`Tensors.stored_names`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..errors import UnsupportedError
from ..tensors import Tensor, Tensors
from .hdf5 import new_file
from .representable import NUMPY_TYPES, check_types

_PLACE = re.compile(r".+/vars/\d+", re.DOTALL)


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedError for types that HDF5 does not have, and for tensors without a place."""
    check_types(tensors, NUMPY_TYPES, "a Keras .weights.h5 file")
    placeless = [name for name, place in _places(tensors).items() if not _PLACE.fullmatch(place)]
    if placeless:
        raise UnsupportedError(
            f"a .weights.h5 file of Keras 3 knows weights by their place in a model, and {placeless[0]} has none",
            advice="ckpt-convert --layout keras gives them; a .h5 file takes any names.",
        )


def write(tensors: Mapping[str, Tensor], path: str, progress: Callable[[int], object] | None = None) -> None:
    """Writes the weights like Keras' `save_weights`, with a layer's name beside its weights."""
    check(tensors)
    names: dict[str, str] = {}  # group of a layer's weights -> name of the layer
    with new_file(path, progress) as (file, place):
        for name, where in _places(tensors).items():
            place(where, name, tensors[name])
            if where != name:
                names[where.rpartition("/")[0]] = name.rpartition("/")[0]
        for group, layer in names.items():
            file[group].attrs["name"] = layer


def _places(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    keys = tensors.stored_names if isinstance(tensors, Tensors) else {}
    return {name: keys.get(name, name) for name in tensors}
