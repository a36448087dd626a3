"""numpy's .npz: a zip archive with one .npy file per tensor. Members are read one at a time; output is reproducible.

The .npy header is numpy's own (numpy.lib.format); nothing is ever unpickled.
"""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ..dtypes import dtype_name, numpy_dtype
from ..errors import CheckpointError, DamagedError, UnsupportedError
from ..tensors import Spec, Tensor, Tensors, pieces
from .checkpoint import Checkpoint
from .elements import as_bytes, byte_blocks
from .mapped import keeps_open
from .representable import NUMPY_TYPES, check_names, check_types, drop_command
from .storage import openable
from .zip_damage import damage_at

if TYPE_CHECKING:
    import numpy as np

TYPES = NUMPY_TYPES | {"string"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date of the zip format, so that the bytes do not depend on the day
_LONGEST_HEADER = 1 << 20
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, EOFError, SyntaxError, MemoryError),
    *(ValueError, TypeError, OverflowError, LookupError),
)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens an .npz; a member is read, and its CRC-32 checked, when its tensor is loaded.

    Raises DamagedError, and UnsupportedError that names every member with Python objects or a type that TensorFlow does
    not have.
    """
    path = os.fspath(path)
    tensors: dict[str, Tensor] = {}
    wrong: list[str] = []
    others: list[str] = []
    with damage_at(path, ".npz", _DAMAGE):
        archive = zipfile.ZipFile(openable(path))
        keeps_open(path, archive, zipfile.ZipFile.close)
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                others.append(info.filename)
                continue
            name = info.filename.removesuffix(".npy")
            if name in tensors:
                raise DamagedError("member occurs twice", tensor=name)
            try:
                tensors[name] = _tensor(archive, info, path, name)
            except UnsupportedError as error:
                wrong.append(f"{name} ({error.fact})")
    if wrong:
        raise UnsupportedError(f"cannot read {', '.join(wrong[:8])}", path=path)
    note = f"{len(others)} members that are not .npy arrays are left out: {', '.join(others[:5])}" if others else ""
    return Checkpoint(Tensors(tensors), "npz", path, (path,), note)


def _tensor(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, name: str) -> Tensor:
    import numpy as np

    with archive.open(info) as member:
        assert isinstance(member, zipfile.ZipExtFile)
        member.MIN_READ_SIZE = 1  # do not read ahead into the values: damage there must not prevent opening
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise UnsupportedError(f".npy version {version[0]}.{version[1]}")
        # NumPy 2.2, the newest for Python 3.10, has the argument but no type hint for it.
        header = readers[version](member, max_header_size=_LONGEST_HEADER)  # type: ignore[call-arg, no-untyped-call, unused-ignore]
        start = member.tell()
    shape, _, dtype = header
    if dtype.hasobject:
        raise UnsupportedError("Python objects, which only unpickling could read: never done here")
    spec = Spec(dtype_name(dtype), tuple(shape))
    if min(shape, default=0) < 0 or spec.parameters * dtype.itemsize != info.file_size - start:
        raise DamagedError(f"header says {spec}, but {info.file_size - start:,} bytes follow", tensor=name)

    def load() -> np.ndarray:
        with damage_at(path, ".npz", _DAMAGE, name), archive.open(info) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):  # makes zipfile compare the checksum as well
                raise DamagedError("bytes follow the array")
        return _native(array)

    return Tensor(spec, load)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in native byte order and C order; fixed-width text becomes an object array of bytes."""
    import numpy as np

    if array.dtype.kind in "SU":
        array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        return array.astype(object)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedError that names all tensors whose type or name the format cannot hold."""
    check_types(tensors, TYPES, ".npz")
    check_names(tensors, _name_problem, ".npz")


def write(tensors: Mapping[str, Tensor], path: str, progress: Callable[[int], object] | None = None) -> None:
    """Writes an uncompressed .npz with members in the order of `tensors`, and one piece of a tensor in memory at a
    time.

    Raises UnsupportedError that names all tensors whose type or name an .npz cannot hold.
    """
    import numpy as np

    check(tensors)
    texts = {name: _fixed_width(name, tensor) for name, tensor in tensors.items() if tensor.spec.dtype == "string"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, tensor in tensors.items():
            info = zipfile.ZipInfo(name + ".npy", _EPOCH)
            info.external_attr = 0o644 << 16
            dtype = texts[name].dtype if name in texts else numpy_dtype(tensor.spec.dtype)
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tensor.spec.shape}
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for block in pieces(texts[name]) if name in texts else _blocks(name, tensor):
                    block = (block if isinstance(block, memoryview) else block.data).cast("B")
                    member.write(block)
                    if progress is not None:
                        progress(len(block))


def _blocks(name: str, tensor: Tensor) -> Iterator[memoryview]:
    try:
        yield from byte_blocks(tensor)
    except CheckpointError as error:
        raise error.at(tensor=name) from None


def _name_problem(name: str) -> str | None:
    if "\0" in name:
        return "holds a zero byte"
    return "is longer than 65,000 bytes" if len(name.encode()) > 65000 else None


def _fixed_width(name: str, tensor: Tensor) -> np.ndarray:
    import numpy as np

    texts = [as_bytes(element) for element in tensor.load().ravel()]
    if any(text.endswith(b"\0") for text in texts):
        raise UnsupportedError(
            "numpy's text cannot end in a zero byte, as this tensor's does",
            tensor=name,
            advice=f"Drop it ({drop_command([name])}), or write a V2 checkpoint, which holds every text.",
        )
    longest = max(map(len, texts), default=0)
    return np.array(texts, f"S{max(longest, 1)}").reshape(tensor.spec.shape)
