"""The content of a checkpoint as rows: tensors, totals by kind, a tree of scopes, statistics of values.

Only `statistics` reads values, one tensor at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import SelectionError, nearest
from .kinds import KINDS, kinds
from .names import did_you_mean, tree
from .tensors import Tensor, Tensors

if TYPE_CHECKING:
    import numpy as np

SORTS = ("name", "size", "shape", "kind", "file")
_CHUNK = 1 << 18  # values converted to float64 at a time: 2 MB, which fit the processor's cache


class TensorRow(NamedTuple):
    """One tensor. `bytes` is None for strings of unknown size; `of` and `slot` are as in `Kind`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parameters: int
    bytes: int | None
    kind: str
    of: str | None = None
    slot: str | None = None


class Total(NamedTuple):
    """Totals for one kind. `bytes` does not include tensors of unknown size."""

    kind: str
    tensors: int
    parameters: int
    bytes: int


class Branch(NamedTuple):
    """A scope or a variable in the tree. For the root, `path` is "" and `depth` 0."""

    path: str
    depth: int
    tensors: int
    parameters: int
    bytes: int
    is_scope: bool


class Statistics(NamedTuple):
    """Statistics of one tensor's values. `min`, `max`, `mean` and `std` (of the population) describe the finite values,
    or their magnitudes for complex types; they are None if there are none or they are not numbers. `mean` and `std` are
    also None if squares or sums are too large for a float64.
    """

    min: float | int | None = None
    max: float | int | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int = 0
    nan: int = 0
    inf: int = 0


def overview(tensors: Mapping[str, Tensor]) -> list[TensorRow]:
    """A row for each tensor, in the order of the source, without reading a value.

    >>> import numpy
    >>> from ckpt_tools import from_arrays
    >>> overview(from_arrays({"a/weights": numpy.zeros((2, 3), "float32")}))[0][:6]
    ('a/weights', 'float32', (2, 3), 6, 24, 'weight')
    """
    specs = tensors.specs() if isinstance(tensors, Tensors) else {name: each.spec for name, each in tensors.items()}
    rows = []
    for name, kind in kinds(specs, getattr(tensors, "stored_names", None)).items():
        spec = specs[name]
        nbytes = spec.nbytes
        if nbytes is None and (stored := tensors[name].stored):
            nbytes = stored.size
        rows.append(TensorRow(name, spec.dtype, spec.shape, spec.parameters, nbytes, *kind))
    return rows


def sort_rows(rows: Sequence[TensorRow], by: str, tensors: Mapping[str, Tensor]) -> list[TensorRow]:
    """Rows sorted by "name", "size" (largest first), "shape", "kind", or "file" (position of the bytes in the
    files)."""
    if by not in SORTS:
        raise SelectionError(f"cannot sort by {by!r}{nearest(by, SORTS)}", advice=f"Choose of {', '.join(SORTS)}.")
    if by == "file":
        return sorted(rows, key=lambda row: (tensors[row.name].stored or ("",))[:2])
    keys = {
        "name": lambda row: row.name,
        "size": lambda row: -(row.bytes or 0),
        "shape": lambda row: (len(row.shape), row.shape),
        "kind": lambda row: KINDS.index(row.kind),
    }
    return sorted(rows, key=keys[by])


def totals(rows: Iterable[TensorRow]) -> list[Total]:
    """One row for each kind that occurs, in the order of KINDS, and one named "total"."""
    sums = {kind: [0, 0, 0] for kind in (*KINDS, "total")}
    for row in rows:
        for kind in (row.kind, "total"):
            of_kind = sums[kind]
            of_kind[0] += 1
            of_kind[1] += row.parameters
            of_kind[2] += row.bytes or 0
    return [Total(kind, *of_kind) for kind, of_kind in sums.items() if of_kind[0] or kind == "total"]


def branches(rows: Iterable[TensorRow], depth: int = 0) -> list[Branch]:
    """The tree of scopes with their totals, parents first. `depth` limits it; 0 shows everything.

    The root comes first, so that each branch can be compared with the whole.
    """
    by_name = {row.name: row for row in rows}
    sums: dict[str, list[int]] = {}
    for row in by_name.values():
        path = row.name
        while True:
            of_path = sums.setdefault(path, [0, 0, 0])
            of_path[0] += 1
            of_path[1] += row.parameters
            of_path[2] += row.bytes or 0
            if not path:
                break
            path = path.rpartition("/")[0]
    children = tree(by_name)
    found: list[Branch] = []
    waiting = [("", 0)]
    while waiting:
        path, level = waiting.pop()
        count, parameters, nbytes = sums.get(path, (0, 0, 0))
        found.append(Branch(path, level, count, parameters, nbytes, path in children))
        if not depth or level < depth:
            waiting += [(child, level + 1) for child in reversed(children.get(path, ()))]
    return found


def find(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor with exactly this name. Raises SelectionError with the nearest names."""
    try:
        return tensors[name]
    except KeyError:
        raise SelectionError(f"no tensor is named {name}{did_you_mean(name, list(tensors))}") from None


def statistics(tensor: Tensor) -> Statistics:
    """Reads one tensor; raises DamagedError like `load()`. For strings only `zeros` is counted: the empty ones."""
    return statistics_of(tensor.load())


def statistics_of(values: np.ndarray) -> Statistics:
    """Statistics accumulated in float64, piece by piece, so that a large tensor is not copied as a whole."""
    import numpy as np

    flat = np.asarray(values).reshape(-1)
    if flat.dtype.kind in "OSU":
        return Statistics(zeros=int(sum(not each for each in flat)))
    with np.errstate(all="ignore"):
        return _of_numbers(list(pieces(flat)))


def pieces(flat: np.ndarray) -> Iterator[np.ndarray]:
    """Views of a flat array that fit the processor's cache after conversion to float64."""
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def _of_numbers(parts: Sequence[np.ndarray]) -> Statistics:
    import numpy as np

    low, high, total, finite_count, zeros, nan, inf = None, None, 0.0, 0, 0, 0, 0
    for piece in parts:
        exact = plain(piece)
        zeros += exact.size - int(np.count_nonzero(exact))
        kept = finite(exact)
        if kept.size < exact.size:
            not_numbers = int(np.isnan(exact).sum())
            nan, inf = nan + not_numbers, inf + exact.size - kept.size - not_numbers
        if kept.size:
            smallest, largest = kept.min(), kept.max()
            low = smallest if low is None else min(low, smallest)
            high = largest if high is None else max(high, largest)
            total += float(kept.sum(dtype="float64"))
            finite_count += kept.size
    if low is None or high is None:
        return Statistics(zeros=zeros, nan=nan, inf=inf)
    mean = total / finite_count
    squares = sum(float(np.square(finite(plain(piece)) - mean, dtype="float64").sum()) for piece in parts)
    std = (squares / finite_count) ** 0.5
    small_mean, small_std = (each if math.isfinite(each) else None for each in (mean, std))
    return Statistics(low.item(), high.item(), small_mean, small_std, zeros, nan, inf)


def plain(piece: np.ndarray) -> np.ndarray:
    """Values in a type that numpy can compute with: magnitudes of complex numbers, float64, or exact integers."""
    if piece.dtype.kind == "c":
        return abs(piece.astype("complex128"))
    if piece.dtype.kind in "iub":
        return piece.astype("int64") if piece.dtype.kind == "b" else piece
    if piece.dtype.name in ("int2", "int4", "uint2", "uint4"):
        return piece.astype("int64")
    return piece.astype("float64")


def finite(values: np.ndarray) -> np.ndarray:
    import numpy as np

    if values.dtype.kind != "f":
        return values
    mask = np.isfinite(values)
    return values if mask.all() else values[mask]
