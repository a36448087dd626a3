"""The central type of this package: a flat, ordered, lazy mapping from name to tensor.

Every source produces one, every operation maps one to another, every writer consumes one. A `Spec` comes from
the file's header; the bytes are read by `Tensor.load()`, so that inspecting, planning and dry runs read no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .dtypes import BY_NAME, dtype_name
from .errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np

BLOCK = 8 << 20  # approximate bytes of the pieces that `Tensor.blocks` yields
_COPIED = 1 << 20  # the same for pieces that are copies


class Spec(NamedTuple):
    """Type and shape of a tensor. `dtype` is TensorFlow's name of the element type, such as "float32"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int | None:
        """Bytes of the values on disk; None for strings and variants, whose elements differ in length."""
        width = BY_NAME[self.dtype].width
        return self.parameters * width if width else None

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Stored(NamedTuple):
    """The position of a tensor's bytes, encoded as in a V2 data file, so that a writer can copy them unread."""

    path: str
    offset: int
    size: int
    crc32c: int  # masked, as the V2 index records it
    shard: int = 0  # number of the data file in the source, kept when a bundle is rewritten


class Extent(NamedTuple):
    """One dimension of a slice. `length` is None for the whole dimension."""

    start: int
    length: int | None


class Slice(NamedTuple):
    """One part of a partitioned variable: its position in the whole, and its own tensor."""

    extents: tuple[Extent, ...]
    tensor: Tensor


class Tensor(NamedTuple):  # not a dataclass: a file may hold a million, and importing dataclasses takes 10 ms
    """A spec and a way to get the values.

    `load()` returns a numpy array of `spec.shape` (an ml_dtypes type for bfloat16 and float8, an object array of
    bytes for strings); it raises DamagedError if the bytes do not match their checksum. The array may be a read-only
    view of the mapped file.
    `stored` is set if the bytes can be copied as they are, `slices` if a variable is stored in parts, and `stream` if
    the flat pieces of `blocks` can be made without the whole array.
    """

    spec: Spec
    load: Callable[[], np.ndarray]
    stored: Stored | None = None
    slices: tuple[Slice, ...] = ()
    stream: Callable[[], Iterator[np.ndarray]] | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """The numbers in flat pieces, in C order, since a tensor may be larger than memory.

        Raises like `load`, for a wrong checksum possibly only after the last piece, and UnsupportedError if an
        operation made another shape or number of values than its spec promised."""
        if self.stream is None:
            array = self.load()
            check_array(array, self.spec)
            yield from pieces(array)
            return
        count = 0
        for block in self.stream():
            count += block.size
            yield block
        if count != self.spec.parameters:
            raise UnsupportedError(f"has {count:,} values, but its spec says {self.spec}")


class Tensors(Mapping[str, Tensor]):
    """An immutable, ordered mapping from tensor name to `Tensor`.

    `stored_names` maps a shown name to the key in the file if the two differ (object-based checkpoints); such a key is
    also accepted by `[]` and `in`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (),
        stored_names: Mapping[str, str] | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self.stored_names = dict(stored_names or {})
        self._shown = {key: name for name, key in self.stored_names.items()}

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            if name in self._shown:
                return self._tensors[self._shown[name]]
            raise

    def __contains__(self, name: object) -> bool:
        return name in self._tensors or name in self._shown

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def specs(self) -> dict[str, Spec]:
        """Name -> spec, in order, without reading a value."""
        return {name: tensor.spec for name, tensor in self._tensors.items()}

    def __repr__(self) -> str:
        return f"Tensors({len(self)} tensors)"


def check_array(array: np.ndarray, spec: Spec) -> None:
    """Raises UnsupportedError if an operation made values of another shape than its spec promised."""
    if tuple(array.shape) != spec.shape:
        raise UnsupportedError(f"has values of shape {list(array.shape)}, but its spec says {list(spec.shape)}")


def pieces(array: np.ndarray, size: int = BLOCK) -> Iterator[np.ndarray]:
    """Flat pieces of an array in C order, of about `size` bytes. A piece is a view or, if the array is not contiguous,
    a smaller copy, which stays in the processor's cache until it is written.

    >>> import numpy
    >>> [piece.tolist() for piece in pieces(numpy.arange(6, dtype="int8").reshape(2, 3).T, size=2)]
    [[0, 3], [1, 4], [2, 5]]
    """
    if array.flags.c_contiguous:
        flat, step = array.reshape(-1), max(size // array.itemsize, 1)
        yield from (flat[start : start + step] for start in range(0, flat.size, step))
        return
    size = min(size, _COPIED)
    if array[0].nbytes > size:
        for row in array:
            yield from pieces(row, size)
    else:
        rows = size // array[0].nbytes
        yield from (array[start : start + rows].reshape(-1) for start in range(0, len(array), rows))


def from_array(array: np.ndarray, dtype: str | None = None) -> Tensor:
    """A tensor whose values are in memory; texts become UTF-8 bytes. `dtype` names a type that numpy cannot
    distinguish, such as "qint8". Raises UnsupportedError for masked values, which no checkpoint can hold."""
    import numpy as np

    if np.ma.is_masked(array):
        raise UnsupportedError("masked values cannot be stored", advice="Fill them with .filled().")
    array = np.asarray(array)
    name = dtype or dtype_name(array.dtype)
    if name == "string":
        texts = [text.encode() if isinstance(text, str) else text for text in array.astype(object).reshape(-1)]
        array = np.array(texts, object).reshape(array.shape)
    return Tensor(Spec(name, tuple(array.shape)), lambda: array)


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Tensors:
    """Name -> array becomes `Tensors`, in the order given.

    >>> import numpy
    >>> from_arrays({"a/weights": numpy.zeros((2, 3), "float32")})["a/weights"].spec
    Spec(dtype='float32', shape=(2, 3))
    """
    return Tensors((name, from_array(array)) for name, array in arrays.items())
