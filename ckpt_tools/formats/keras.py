"""Reads and writes the HDF5 files of Keras 1 and 2; reads `.weights.h5` and `.keras` files of Keras 3.

    model.h5 (weights only, or below `model_weights` of a whole model; `optimizer_weights` beside it)
        attribute layer_names      one group per layer
        LAYER, attribute weight_names: "block1_conv1/kernel:0", each a dataset below the layer's group
    model.weights.h5, also inside model.keras
        layers/dense/vars/0, 1, ...: numbered in the order in which the layer made its variables

A tensor's name is the weight's without `:0`, as TensorFlow 1 would save it, prefixed with the layer's name if it lacks
it. Keras 3 stores the names of layers, but only the order of their variables: if the class of the layer and its
settings in the archive's config.json tell what they are, they get the names that Keras uses. Layout:
keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..dtypes import dtype_name
from ..errors import CheckpointError, DamagedError, NotACheckpointError, UnsupportedError
from ..tensors import Spec, Tensor, Tensors
from .checkpoint import Checkpoint
from .hdf5 import h5py_library, new_file
from .keras_names import MAX_CONFIG, KerasLayer, layers_in, layers_of, variable_names
from .mapped import keeps_open
from .representable import NUMPY_TYPES, check_names, check_types
from .storage import is_remote, openable

if TYPE_CHECKING:
    import h5py
    import numpy as np

_ATTRIBUTE_LIMIT = 64512  # bytes of one attribute; Keras cuts longer lists into layer_names0, layer_names1, ...
_COMPRESSION_LIMIT = 1100  # bytes per stored byte; no filter that is read here compresses better: gzip reaches 1032
_INNER, _CONFIG = "model.weights.h5", "config.json"


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a Keras file; a dataset is read when its tensor is loaded. Links out of the file are refused.

    Raises NotACheckpointError if the file holds no weights, DamagedError, and UnsupportedError if h5py is missing.
    """
    path = os.fspath(path)
    with _damage_at(path):
        if not zipfile.is_zipfile(openable(path)):
            return _read_h5(path, path, "keras_h5", (), {})
        with zipfile.ZipFile(openable(path)) as archive:
            if _INNER not in archive.namelist():
                raise NotACheckpointError(f"is a zip archive without {_INNER}, so no Keras model")
            unpacked = tempfile.TemporaryDirectory(prefix="ckpt-keras-")
            inner = os.path.join(unpacked.name, _INNER)
            with archive.open(_INNER) as packed, open(inner, "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            described = _described(archive)
        return _read_h5(inner, path, "keras", (unpacked,), described)


def _described(archive: zipfile.ZipFile) -> dict[str, list[KerasLayer]]:
    """The layers in the archive's config, by name; {} if there is no config or it is too large."""
    if _CONFIG not in archive.namelist() or archive.getinfo(_CONFIG).file_size > MAX_CONFIG:
        return {}
    with archive.open(_CONFIG) as file:
        return layers_in(file.read(MAX_CONFIG))


def _read_h5(
    file_path: str, path: str, format: str, holds: tuple[object, ...], described: Mapping[str, list[KerasLayer]]
) -> Checkpoint:
    file = h5py_library().File(openable(file_path), "r")
    if is_remote(file_path):
        atexit.register(file.close)  # HDF5 crashes at exit if a Python file is still open
    else:
        keeps_open(file_path, file, lambda opened: opened.close())
    weights = file
    if _link(file, "model_weights") and "layer_names" not in file.attrs:
        weights = _child(file, "model_weights")
    found: list[tuple[str, h5py.Dataset]] = []
    note = ""
    if _attribute_list(weights, "layer_names") is not None:
        found += _layers(weights)
        if weights is not file and _link(file, "optimizer_weights"):
            found += _listed(_child(file, "optimizer_weights"), "optimizer_weights")
    else:
        places = dict(_all_datasets(file, "", {}))
        named = variable_names(list(places), _layer_names(file, places), described)
        found += [(named[place], dataset) for place, dataset in places.items()]
        if list(named.values()) != list(places):
            by = f"class and settings in {_CONFIG}" if described else "usual order"
            note = f"the file numbers the weights of a layer; they are named by the layer's {by}"
    if not found:
        raise NotACheckpointError("is an HDF5 file without Keras weights")
    tensors: dict[str, Tensor] = {}
    for name, dataset in found:
        if name in tensors:
            raise DamagedError("two weights have this name", tensor=name)
        tensors[name] = _tensor(dataset, path, name)
    return Checkpoint(Tensors(tensors), format, path, (path,), note, holds=(file, *holds))


def _layers(weights: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    for layer in _attribute_list(weights, "layer_names") or ():
        yield from _listed(_child(weights, layer), layer)
    if _link(weights, "top_level_model_weights"):  # Keras 2.6 and later: weights that belong to no layer
        yield from _listed(_child(weights, "top_level_model_weights"), "top_level_model_weights")


def _listed(group: h5py.Group, layer: str) -> Iterator[tuple[str, h5py.Dataset]]:
    for weight in _attribute_list(group, "weight_names") or ():
        name = weight.removesuffix(":0")
        yield (name if "/" in name or name == layer else f"{layer}/{name}"), _child(group, weight)


def _all_datasets(group: h5py.Group, path: str, seen: dict[int, str]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below `group`, sorted by name, with numeric names in numeric order; each object once."""
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        return
    seen[address] = path
    for key in sorted(group, key=lambda word: (not word.isdigit(), int(word) if word.isdigit() else 0, word)):
        child = _child(group, key)
        if isinstance(child, h5py.Dataset):
            yield f"{path}{key}", child
        elif isinstance(child, h5py.Group):
            yield from _all_datasets(child, f"{path}{key}/", seen)


def _layer_names(file: h5py.File, places: Iterable[str]) -> dict[str, str]:
    """Path of each layer's group above the datasets -> the layer's name, if the file stores it."""
    names: dict[str, str] = {}
    for owner in {place[:i] for place in places for i, letter in enumerate(place) if letter == "/"}:
        if f"{owner}/vars" in file and "name" in (attributes := _child(file, f"{owner}/vars").attrs):
            names[owner] = str(attributes["name"])
    return names


def _link(group: h5py.Group, name: str) -> object:
    return group.get(name, getlink=True) if name in group else None


def _child(group: h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
    """Follows `name` one component at a time, so that no soft or external link is ever resolved."""
    import h5py

    place = group.id  # h5py's objects for the groups in between would take most of the time
    for part in name.split("/"):
        if not isinstance(place, h5py.h5g.GroupID):
            raise DamagedError(f"{name!r} is not in the group {group.name}")
        if part in ("", "."):
            continue
        key = part.encode()
        try:
            kind = place.links.get_info(key).type
        except (KeyError, RuntimeError):
            raise DamagedError(f"{name!r} is listed, but not in the group {group.name}") from None
        if kind != h5py.h5l.TYPE_HARD:
            word = "an external" if kind == h5py.h5l.TYPE_EXTERNAL else "a soft"
            raise UnsupportedError(f"{name!r} is {word} link, which could point anywhere: not followed")
        place = h5py.h5o.open(place, key)
    known = {h5py.h5d.DatasetID: h5py.Dataset, h5py.h5g.GroupID: h5py.Group}
    return known.get(type(place), h5py.Datatype)(place)


def _attribute_list(group: h5py.Group, name: str) -> list[str] | None:
    """A list of texts, joined from its chunks; None if there is none."""
    if name in group.attrs:
        values = list(group.attrs[name])
    elif f"{name}0" in group.attrs:
        values, chunk = [], 0
        while f"{name}{chunk}" in group.attrs:
            values += list(group.attrs[f"{name}{chunk}"])
            chunk += 1
    else:
        return None
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _tensor(dataset: h5py.Dataset, path: str, name: str) -> Tensor:
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise UnsupportedError("its values lie outside this file", tensor=name)
    spec = Spec(dtype_name(dataset.dtype), tuple(dataset.shape))
    stored = dataset.id.get_storage_size()
    needed = spec.parameters * dataset.dtype.itemsize
    if needed > stored * (1 if dataset.chunks is None else _COMPRESSION_LIMIT):
        raise DamagedError(f"{spec} takes {needed:,} bytes, but {stored:,} are stored", tensor=name)

    def load() -> np.ndarray:
        with _damage_at(path, name):
            array = dataset[()]
            return _native(array)

    return Tensor(spec, load)


def _native(array: np.ndarray) -> np.ndarray:
    import numpy as np

    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _damage_at(path: str, tensor: str | None = None) -> Iterator[None]:
    """Turns the many exceptions by which HDF5 reports damage into one, with file and tensor."""
    try:
        yield
    except CheckpointError as error:
        raise error.at(path=path, tensor=tensor) from None
    except FileNotFoundError:
        raise NotACheckpointError("there is no such file", path=path) from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedError(f"not a sound Keras file: {error}", path=path, tensor=tensor) from error


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedError that names all tensors whose type or name the format cannot hold."""
    check_types(tensors, NUMPY_TYPES, "a Keras .h5 file")
    check_names(tensors, _name_problem, "a Keras .h5 file")


def write(tensors: Mapping[str, Tensor], path: str, progress: Callable[[int], object] | None = None) -> None:
    """Writes weights like `save_weights` of Keras 2; `layers_of` derives the layer from a name.

    Raises UnsupportedError that names all tensors whose type or name such a file cannot hold.
    """
    check(tensors)
    layers = layers_of(list(tensors))
    with new_file(path, progress) as (file, place):
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.0.0"
        _write_list(file, "layer_names", list(layers))
        for layer, names in layers.items():
            _write_list(file.create_group(layer), "weight_names", [f"{name}:0" for name in names])
            for name in names:
                place(f"{layer}/{name}:0", name, tensors[name])


def _write_list(group: h5py.Group, name: str, values: list[str]) -> None:
    """Writes texts of fixed width, split into several attributes, as Keras does, if one would be too long."""
    import numpy as np

    encoded = np.array([value.encode() for value in values], "S")
    if encoded.nbytes <= _ATTRIBUTE_LIMIT:
        group.attrs[name] = encoded
        return
    step = max(_ATTRIBUTE_LIMIT // encoded.itemsize, 1)
    for chunk, start in enumerate(range(0, len(encoded), step)):
        group.attrs[f"{name}{chunk}"] = encoded[start : start + step]


def _name_problem(name: str) -> str | None:
    if any(part in ("", ".") for part in name.split("/")):
        return "has an empty or dotted component, which HDF5 would swallow"
    return "holds a zero byte" if "\0" in name else None
