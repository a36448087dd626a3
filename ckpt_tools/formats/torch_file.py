"""Reads files of PyTorch's `torch.save` without torch: a pickle that describes the tensors, and their bytes.

Since 1.6 a file is a zip archive with NAME/data.pkl, and NAME/data/KEY with the bytes of each storage. Before, it was
five pickles, the last of which lists the keys of the storages that follow. A tensor is a view of a storage with offset,
shape and strides; several may share a storage. Nothing is unpickled by Python: see pickled.py.
Layout: torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import CheckpointError, DamagedError, NotACheckpointError, UnsupportedError
from ..tensors import Spec, Tensor, Tensors
from .checkpoint import Checkpoint
from .mapped import keeps_open
from .pickled import Name, Persistent, PickledObject, read_pickle
from .proto import Bytes
from .storage import mapped, open_file, openable
from .torch_names import named_tensors
from .zip_damage import damage_at

if TYPE_CHECKING:
    import numpy as np

_TYPES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    **{name: name for name in BY_NAME if not name.startswith("q") and BY_NAME[name].width},
}
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
_LONGEST_PICKLE = 1 << 28  # bytes; a million tensors take half of it
_LARGEST_SPREAD = 1 << 24  # how many elements a tensor with a stride of 0 may have beyond its storage
_WRAPPERS = ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor")
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, StopIteration, RecursionError, MemoryError),
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
)

_Bytes = Callable[[str, int, int], Bytes]  # key of a storage, first byte, number of bytes


class _View(NamedTuple):
    """A tensor: a view of the storage `key`. Offset and strides are in elements."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a file of `torch.save`. Values are read when a tensor is loaded, as views of the mapped file if they are in
    C order there. In a zip archive, the checksum of a storage is compared when it is first read.

    Raises DamagedError, NotACheckpointError for a file without tensors, and UnsupportedError that names every tensor of
    a kind that TensorFlow does not have (sparse, quantised).
    """
    path = os.fspath(path)
    with damage_at(path, "PyTorch file", _DAMAGE):
        zipped = zipfile.is_zipfile(openable(path))
        value, order, part = _from_zip(path) if zipped else _from_pickles(path)
        weights = named_tensors(value, is_tensor)
        views, wrong = {}, []
        for name, made in weights.tensors.items():
            try:
                views[name] = _view_of(made)
            except UnsupportedError as error:
                wrong.append(f"{name} ({error.fact})")
            except CheckpointError as error:
                raise error.at(tensor=name) from None
        if wrong:
            raise UnsupportedError(f"cannot read {', '.join(wrong[:8])}")
        if not views:
            raise NotACheckpointError("is a PyTorch file without tensors")
    tensors = Tensors((name, _tensor(view, order, part, path, name)) for name, view in views.items())
    return Checkpoint(tensors, "torch" if zipped else "torch_legacy", path, (path,), weights.note)


def is_tensor(value: Any) -> bool:
    """Whether torch would make this a tensor or a parameter."""
    return isinstance(value, PickledObject) and isinstance(value.of, Name) and value.of.name.startswith("_rebuild_")


def _from_zip(path: str) -> tuple[Any, str, _Bytes]:
    """The value of data.pkl, the byte order ("<" or ">"), and a function that reads bytes of a storage."""
    archive, file = zipfile.ZipFile(openable(path)), mapped(path)
    keeps_open(path, archive, zipfile.ZipFile.close)
    pickled = next(info for info in archive.infolist() if info.filename.split("/")[-1] == "data.pkl")
    if pickled.file_size > _LONGEST_PICKLE:
        raise UnsupportedError(f"its data.pkl has {pickled.file_size:,} bytes, more than any that holds names alone")
    folder = pickled.filename.removesuffix("data.pkl")
    names = set(archive.namelist())
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
    whole: set[str] = set()

    def part(key: str, start: int, count: int) -> Bytes:
        info = archive.getinfo(f"{folder}data/{key}")
        if start + count > info.file_size:
            raise DamagedError(f"its storage {key} has {info.file_size:,} bytes, and should have {start + count:,}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return archive.read(info)[start : start + count]  # zipfile compares the checksum itself
        begin = info.header_offset
        header = file.part(begin, 30, "a header of the archive")
        begin += 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = file.part(begin, info.file_size, f"storage {key}")
        if key not in whole and zlib.crc32(data) != info.CRC:
            raise DamagedError(f"the checksum of its storage {key} is wrong")
        whole.add(key)
        return data[start : start + count]

    return read_pickle(io.BytesIO(archive.read(pickled))), ">" if order.strip() == b"big" else "<", part


def _from_pickles(path: str) -> tuple[Any, str, _Bytes]:
    """The same for a file from before 1.6: five pickles, then each storage, preceded by its number of elements."""
    file = mapped(path)
    with open_file(path) as stream:
        _magic, _version, system, value, keys = (read_pickle(stream) for _ in range(5))
        begin = stream.tell()
    widths = dict(_storage_widths(value))
    places: dict[str, tuple[int, int]] = {}
    order = ">" if isinstance(system, dict) and system.get("little_endian") is False else "<"
    for key in keys:
        if not isinstance(key, str) or key not in widths:
            raise DamagedError("a storage follows, and no tensor says of which type it is")
        count = int.from_bytes(file.part(begin, 8, f"the length of storage {key}"), "big" if order == ">" else "little")
        size = count * widths[key]
        places[key] = (begin + 8, size)
        begin += 8 + size

    def part(key: str, start: int, count: int) -> memoryview:
        if key not in places or start + count > places[key][1]:
            raise DamagedError(f"its storage {key} is not there, or too short")
        return file.part(places[key][0] + start, count, f"storage {key}")

    return value, order, part


def _storage_widths(value: Any) -> Iterator[tuple[str, int]]:
    """Key and element width in bytes of every storage that the pickle mentions."""
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Persistent):
            if isinstance(value.what, tuple) and value.what[:1] == ("storage",):
                yield _key(value.what[2]), BY_NAME[_storage_type(value.what[1])].width
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, PickledObject):
            waiting += (value.args, value.state, value.items)


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise DamagedError("the key of a storage is not text")
    return value


def _storage_type(of: Any) -> str:
    name = of.name if isinstance(of, Name) else "storage"
    if name not in _STORAGES:
        raise UnsupportedError(f"TensorFlow has no type for torch's {name}")
    return _STORAGES[name]


def _view_of(made: PickledObject) -> _View:
    """Storage, offset, shape and strides of a tensor, checked against the length of the storage."""
    for _ in range(8):  # nested wrappers: a parameter of a tensor of a subclass ...
        if made.of.name in _WRAPPERS:
            made = made.args[0]
        elif made.of.name.startswith("_rebuild_from_type"):
            made = PickledObject(made.args[0], made.args[2])
        else:
            break
        if not is_tensor(made):
            raise UnsupportedError("a tensor that another library makes")
    if made.of.name not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        raise UnsupportedError(f"a tensor of a kind that TensorFlow does not have: torch's {made.of.name}")
    storage, offset, shape, strides = made.args[:4]
    shape, strides = _sides(shape), _sides(strides)
    if made.of.name == "_rebuild_tensor_v3":
        dtype = _TYPES.get(made.args[6].name)
        if dtype is None:
            raise UnsupportedError(f"TensorFlow has no type for torch's {made.args[6].name}")
    else:
        dtype = None
    if any(made.args[6:7] if dtype is None else ()):
        raise UnsupportedError("its values are conjugated or negated when they are read")
    return _checked(storage, dtype, offset, shape, strides)


def _sides(value: Any) -> tuple[int, ...]:
    """A shape or strides as a tuple, from a tuple or a torch.Size."""
    value = value.args[0] if isinstance(value, PickledObject) else value
    if not all(type(side) is int and side >= 0 for side in value):
        raise DamagedError("its shape or strides are not numbers of elements")
    return tuple(value)


def _checked(storage: Any, dtype: str | None, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> _View:
    kind, of, key, _location, count, *view = storage.what
    if kind != "storage" or type(offset) is not int or type(count) is not int or len(shape) != len(strides):
        raise DamagedError("its storage is described otherwise than PyTorch does")
    stored_type = _storage_type(of)
    dtype = dtype or stored_type
    stored, width = count * BY_NAME[stored_type].width, BY_NAME[dtype].width
    if view and view[0] is not None:  # a file from before 1.6 may refer to a part of a storage
        offset += view[0][1]
    elements = math.prod(shape)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) if elements else -1
    if offset < 0 or (last + 1) * width > stored:
        raise DamagedError(f"it reaches to element {last + 1:,} of a storage that has {stored // width:,}")
    if elements > stored // width + _LARGEST_SPREAD:
        raise DamagedError(f"its shape {list(shape)} has {elements:,} elements, its storage {stored // width:,}")
    return _View(_key(key), dtype, offset, shape, strides)


def _tensor(view: _View, order: str, part: _Bytes, path: str, name: str) -> Tensor:
    spec = Spec(view.dtype, view.shape)

    def load() -> np.ndarray:
        import numpy as np

        native = numpy_dtype(spec.dtype)
        if not spec.parameters:
            return np.empty(spec.shape, native)
        strides = [stride * native.itemsize for stride in view.strides]
        size = native.itemsize + sum((side - 1) * step for side, step in zip(spec.shape, strides, strict=True))
        with damage_at(path, "PyTorch file", _DAMAGE, name):
            data = part(view.key, view.offset * native.itemsize, size)
        array: np.ndarray = np.ascontiguousarray(np.ndarray(spec.shape, native, data, strides=strides)).reshape(
            spec.shape
        )
        return array.byteswap() if order == ">" and native.itemsize > 1 else array

    return Tensor(spec, load)
