"""Writes HDF5 files: h5py lays out the whole file, then the values are written into the space it reserved.

So only a piece of a tensor is in memory at a time, and once the layout is complete, the file is written from front to
back. HDF5's low-level functions are used, since h5py's own objects would double the time that a small tensor takes.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from ..dtypes import numpy_dtype
from ..errors import CheckpointError, UnsupportedError
from ..tensors import Tensor
from .data_file import BLOCK, hand_over, written
from .elements import byte_blocks

if TYPE_CHECKING:
    import h5py

Place = Callable[[str, str, Tensor], None]


def h5py_library() -> ModuleType:
    """Imports h5py. Raises UnsupportedError if it is not installed."""
    try:
        import h5py
    except ImportError:
        raise UnsupportedError("Keras files need h5py", advice='pip install "ckpt-tools[formats]"') from None
    return h5py


@contextmanager
def new_file(path: str, progress: Callable[[int], object] | None = None) -> Iterator[tuple[h5py.File, Place]]:
    """Opens a new file and yields it with a function `place(where, name, tensor)`, which reserves space for a tensor
    and creates the groups above it. The values are written at the end of the block, in the order of their offsets.

    Raises OSError as the system reports it, and the tensors' errors, with their names.
    """
    h5py = h5py_library()
    from h5py import h5d, h5p, h5s, h5t

    links, plain = h5p.create(h5p.LINK_CREATE), h5p.create(h5p.DATASET_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    plain.set_obj_track_times(False)  # the bytes must not depend on the time
    plain.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plain.set_fill_time(h5d.FILL_TIME_NEVER)
    placed: list[tuple[int, str, Tensor]] = []

    def place(where: str, name: str, tensor: Tensor) -> None:
        kind = h5t.py_create(numpy_dtype(tensor.spec.dtype).newbyteorder("<"), logical=True)
        space = h5s.create_simple(tensor.spec.shape)
        made = h5d.create(file.id, where.encode(), kind, space, plain, links)
        if tensor.spec.parameters:
            placed.append((made.get_offset(), name, tensor))

    with _system_errors():
        with h5py.File(path, "w") as file:
            yield file, place
        _fill(path, placed, progress)


def _fill(path: str, placed: list[tuple[int, str, Tensor]], progress: Callable[[int], object] | None) -> None:
    """Writes the values of tensors at their offsets, from front to back. Raises what `new_file` does."""
    given = 0
    with open(path, "r+b", buffering=0) as out:
        for offset, name, tensor in sorted(placed, key=lambda each: each[0]):
            out.seek(offset)
            if offset - given >= BLOCK:
                hand_over(out.fileno(), given, offset)
                given = offset
            try:
                for block in byte_blocks(tensor):
                    for count in written(out.fileno(), block):
                        if progress is not None:
                            progress(count)
            except CheckpointError as error:
                raise error.at(tensor=name) from None


@contextmanager
def _system_errors() -> Iterator[None]:
    """Recovers the system's error number from HDF5's message, so that a full disk is recognised as such."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        numbers = re.findall(r"errno = (\d+)", str(error))
        number = int(numbers[-1]) if numbers else getattr(error, "errno", None) or errno.EIO
        raise OSError(number, os.strerror(number)) from error
