"""Compares two checkpoints: names, shapes, types, values.

Tensors of two V2 checkpoints with equal checksums and types count as equal without being read; of all others, one pair
is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from .formats.checkpoint import Checkpoint
from .tensors import Spec, Tensor

if TYPE_CHECKING:
    import numpy as np

CHANGES = ("removed", "added", "renamed", "shape", "dtype", "values")
_CHUNK = 1 << 20  # elements compared at a time


class Change(NamedTuple):
    """One difference. `name` is the tensor's name in A, or in B if it was "added"; `new_name` is the name in B of a
    "renamed" tensor.

    `a` and `b` are the specs. `differing` is the number of elements that differ by more than the tolerance, `max_abs`
    the largest |a - b|, and `max_rel` the largest |a - b| / max(|a|, |b|) (inf if one is NaN or infinite). They are
    None where values cannot be compared: other shapes, texts."""

    change: str
    name: str
    new_name: str | None = None
    a: Spec | None = None
    b: Spec | None = None
    differing: int | None = None
    max_abs: float | None = None
    max_rel: float | None = None


class Distance(NamedTuple):
    """How far two arrays of the same shape are from each other; see `Change`."""

    differing: int
    max_abs: float | None
    max_rel: float | None


def diff_tensors(
    a: Mapping[str, Tensor] | Checkpoint, b: Mapping[str, Tensor] | Checkpoint, tolerance: float = 0.0
) -> list[Change]:
    """Every difference between A and B: first in the order of A, then tensors only in B. Empty if A and B are equal.

    Values are equal if |a - b| <= tolerance, or if both are NaN. A tensor with the same bytes but another name in B is
    "renamed". Numbers of different types are compared as well.
    Raises DamagedError if a tensor cannot be read.

    >>> import numpy
    >>> from ckpt_tools.tensors import from_arrays
    >>> one, two = from_arrays({"w": numpy.zeros(3), "b": 1.0}), from_arrays({"w": numpy.full(3, 0.5), "b": 1.0})
    >>> [(change.change, change.name, change.max_abs) for change in diff_tensors(one, two)]
    [('values', 'w', 0.5)]
    """
    a, b = (each.tensors if isinstance(each, Checkpoint) else each for each in (a, b))
    added = [name for name in b if name not in a]
    renamed = find_renames(a, b, [name for name in a if name not in b], added)
    changes = []
    for name in a:
        tensor = a[name]
        if name in renamed:
            changes.append(Change("renamed", name, renamed[name], tensor.spec, tensor.spec))
        elif name not in b:
            changes.append(Change("removed", name, a=tensor.spec))
        elif (change := _compare(name, tensor, b[name], tolerance)) is not None:
            changes.append(change)
    taken = set(renamed.values())
    return changes + [Change("added", name, b=b[name].spec) for name in added if name not in taken]


def summary(changes: list[Change], a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of tensors in A and B, of equal ones, and of each kind of change."""
    counts = {kind: sum(change.change == kind for change in changes) for kind in CHANGES}
    same = len(a) - sum(counts[kind] for kind in CHANGES if kind != "added")
    return {"a": len(a), "b": len(b), "same": same, **counts}


def _compare(name: str, a: Tensor, b: Tensor, tolerance: float) -> Change | None:
    if a.spec.shape != b.spec.shape:
        return Change("shape", name, a=a.spec, b=b.spec)
    if a.spec.dtype != b.spec.dtype:
        found = distance(a, b, tolerance)
        return Change("dtype", name, None, a.spec, b.spec, *(found or ()))
    if a.stored and b.stored and a.stored.crc32c == b.stored.crc32c and a.stored.size == b.stored.size:
        return None
    found = distance(a, b, tolerance)
    return Change("values", name, None, a.spec, b.spec, *found) if found and found.differing else None


def distance(a: Tensor, b: Tensor, tolerance: float = 0.0) -> Distance | None:
    """The distance between two tensors of the same shape; None if only one of them is text."""
    import numpy as np

    texts = [tensor.spec.nbytes is None for tensor in (a, b)]
    left, right = a.load().reshape(-1), b.load().reshape(-1)
    if any(texts):
        return Distance(int((left != right).sum()), None, None) if all(texts) else None
    parts = [
        _distance(left[at : at + _CHUNK], right[at : at + _CHUNK], tolerance) for at in range(0, left.size, _CHUNK)
    ]
    if not parts:
        return Distance(0, 0.0, 0.0)
    differing, max_abs, max_rel = zip(*parts, strict=True)
    return Distance(sum(differing), float(np.max(max_abs)), float(np.max(max_rel)))


def _distance(a: np.ndarray, b: np.ndarray, tolerance: float) -> Distance:
    import numpy as np

    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        difference, scale = _whole_distance(a, b)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = _wide(a), _wide(b)
            difference = np.abs(a - b)
            scale = np.maximum(np.abs(a), np.abs(b))
        difference[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0  # inf - inf is NaN
        difference[np.isnan(difference)] = np.inf
    differing = difference > tolerance
    if not differing.any():
        return Distance(0, float(difference.max()), 0.0)
    relative = np.ones(int(differing.sum()))
    finite = np.isfinite(difference[differing]) & np.isfinite(scale[differing])
    relative[finite] = difference[differing][finite] / scale[differing][finite]
    relative[~finite] = np.inf
    return Distance(int(differing.sum()), float(difference.max()), float(relative.max()))


def _whole_distance(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|a - b| of integers and the larger magnitude, computed exactly: differences of unsigned numbers cannot
    overflow."""
    import numpy as np

    common = np.result_type(a, b)
    if common.kind == "f":  # int64 and uint64
        return np.abs(a.astype(object) - b.astype(object)).astype(float), np.maximum(np.abs(a.astype(float)), b)
    wide = np.int64 if common.kind == "i" else np.uint64
    a, b = a.astype(wide), b.astype(wide)
    difference = np.maximum(a, b).view(np.uint64) - np.minimum(a, b).view(np.uint64)
    return difference, np.maximum(np.abs(a.astype(float)), np.abs(b.astype(float)))


def _wide(array: np.ndarray) -> np.ndarray:
    """The array as float64 or complex128, in which differences are computed."""
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")


def find_renames(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], removed: list[str], added: list[str]
) -> dict[str, str]:
    """Name in A -> name in B of the tensors with the same type, shape and bytes.

    If several tensors have the same bytes, such as fresh biases, those with the longest common ending of their names
    are paired. A tensor of one element counts as renamed only if at least the last component of its name is the same.
    """
    by_spec: dict[Spec, list[str]] = {}
    for name in added:
        by_spec.setdefault(b[name].spec, []).append(name)
    candidates: dict[tuple[Spec, int], list[str]] = {}
    for spec in {a[name].spec for name in removed} & by_spec.keys():
        for name in by_spec[spec]:
            candidates.setdefault((spec, fingerprint(b[name])), []).append(name)
    same: dict[tuple[Spec, int], list[str]] = {}
    for name in removed:
        spec = a[name].spec
        if spec in by_spec and (key := (spec, fingerprint(a[name]))) in candidates:
            same.setdefault(key, []).append(name)
    renamed: dict[str, str] = {}
    for key, olds in same.items():
        news = candidates[key]
        renamed |= _paired(olds, news, least=1 if len(news) > 1 or key[0].parameters <= 1 else 0)
    return renamed


def _paired(olds: list[str], news: list[str], least: int) -> dict[str, str]:
    """Old name -> new name, the longest common endings first; `least` is the number of components they must have."""
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for depth in range(max(name.count("/") for name in olds) + 1, least - 1, -1):
        waiting: dict[tuple[str, ...], list[str]] = {}
        for name in reversed(news):
            if name not in taken and name.count("/") >= depth - 1:
                waiting.setdefault(_ending(name, depth), []).append(name)
        for name in olds:
            if name not in pairs and waiting.get(_ending(name, depth)):
                pairs[name] = waiting[_ending(name, depth)].pop()
                taken.add(pairs[name])
    return pairs


def _ending(name: str, depth: int) -> tuple[str, ...]:
    """The last `depth` components of a name, or all if there are fewer."""
    return tuple(name.split("/")[-depth:]) if depth else ()


def fingerprint(tensor: Tensor) -> int:
    """The checksum of the tensor's bytes in V2 encoding, taken from the index if the tensor is stored that way."""
    if tensor.stored:
        return tensor.stored.crc32c
    from .formats.elements import encode

    return encode(tensor.load(), tensor.spec.dtype)[1]
