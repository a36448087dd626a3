"""Other element types: cast, with a count of what the new type cannot hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import RecipeError, nearest
from ..tensors import Slice, Spec, Tensor, Tensors
from .operation import Edit, EditRow, Loss, Operation, Tally, chosen, kinds_of, replaced, total_loss

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

_CHUNK = 1 << 18  # elements cast at a time: they stay in the cache between the cast and the counting
FLOATS = frozenset(name for name in BY_NAME if name.startswith(("float", "bfloat")))
# Sign aside, every pattern of bits from here on is infinite or NaN; the types that are not listed have no infinity.
_FIRST_NOT_FINITE = {
    "float16": 0x7C00,
    "bfloat16": 0x7F80,
    "float32": 0x7F800000,
    "float64": 0x7FF0000000000000,
    "float8_e5m2": 0x7C,
}


@dataclass(frozen=True)
class Cast(Operation):
    """Changes the element type, rounding to the nearest value that the new type has (ties to even).

    Without `select` every floating-point tensor is cast, and integers, bools and strings stay as they are; a type
    that is not floating-point asks for `select`. `keep_statistics` leaves the moving mean and variance of batch
    norm in their own type: variances of 1e-8 and below become 0 in float16. Floating point becomes integer by
    truncation, as in tf.cast.

    Tensors that are selected but have the type already are copied as they are. `Edit.losses` says of each tensor that
    was written how many finite values became infinite or NaN, or left the range of an integer type (overflow), and how
    many became 0 (underflow).
    """

    dtype: str
    select: tuple[str, ...] = ()
    keep_statistics: bool = False
    command: ClassVar[str] = "cast"
    short: ClassVar[str] = "dtype"

    def __post_init__(self) -> None:
        known = [name for name, row in BY_NAME.items() if row.width and not name.startswith("q")]
        if self.dtype not in known:
            hint = nearest(self.dtype, known) or "; the usual ones are float32, float16 and bfloat16"
            raise RecipeError(f"cast: no element type {self.dtype!r} to cast to{hint}")
        if self.dtype not in FLOATS and not self.select:
            raise RecipeError(
                f"cast: {self.dtype} is not a floating-point type; in a recipe, `select` says which tensors to cast"
            )

    def edit(self, tensors: Tensors) -> Edit:
        specs = tensors.specs()
        names, problems = chosen(tensors, self.select, self.command) if self.select else (_floats(specs), ())
        if self.keep_statistics:
            found = kinds_of(tensors)
            names = [name for name in names if found[name].kind != "statistic"]
        wrong = tuple(
            f"cast: {name} is {specs[name].dtype}, which has no cast to {self.dtype}"
            for name in names
            if not _castable(specs[name].dtype, self.dtype)
        )
        if problems or wrong:
            return Edit(tensors, problems=problems + wrong)
        tally, changed, rows = Tally(), {}, []
        for name in names:
            if specs[name].dtype != self.dtype:
                changed[name] = self._cast(tensors[name], partial(tally.note, name))
                rows.append(EditRow(name, "cast", name, specs[name], changed[name].spec))
        return Edit(replaced(tensors, changed), tuple(rows), tally=tally)

    def _cast(self, tensor: Tensor, note: Callable[[object, Loss], None], part: object = None) -> Tensor:
        """The tensor in the new type; its parts too, so that a partitioned variable stays partitioned."""

        def load() -> np.ndarray:
            values, loss = cast_values(tensor.load(), self.dtype)
            note(part, loss)
            return values

        def stream() -> Iterator[np.ndarray]:
            losses = []
            for block in tensor.blocks():
                values, loss = cast_values(block, self.dtype)
                losses.append(loss)
                yield values
            note(part, total_loss(losses))

        slices = tuple(Slice(each.extents, self._cast(each.tensor, note, each.extents)) for each in tensor.slices)
        return Tensor(Spec(self.dtype, tensor.spec.shape), load, slices=slices, stream=stream)


def cast_values(values: np.ndarray, dtype: str) -> tuple[np.ndarray, Loss]:
    """The values in the type that TensorFlow calls `dtype`, in the same shape, and what it could not hold.

    >>> import numpy
    >>> cast_values(numpy.array([1e9, 1e-9, 0.5]), "float16")
    (array([inf, 0. , 0.5], dtype=float16), {'overflow': 1, 'underflow': 1})
    """
    import numpy as np

    target = np.empty(values.shape, numpy_dtype(dtype))
    flat, out = np.ascontiguousarray(values).reshape(-1), target.reshape(-1)

    def cast_chunk(start: int) -> Loss:
        before, after = flat[start : start + _CHUNK], out[start : start + _CHUNK]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if dtype not in FLOATS and not dtype.startswith("complex"):
                return _to_integers(before, after)
            after[...] = before
            return _lost(before, after, dtype)

    starts = range(0, flat.size, _CHUNK)
    losses = _threads().map(cast_chunk, starts) if len(starts) > 1 else map(cast_chunk, starts)
    return target, total_loss(losses)


@cache
def _threads() -> ThreadPoolExecutor:
    """One thread a core: numpy lets go of the interpreter while it casts, which takes longer than reading does."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(os.cpu_count())


def _lost(before: np.ndarray, after: np.ndarray, dtype: str) -> Loss:
    import numpy as np

    if dtype in _FIRST_NOT_FINITE:
        bits = after.view(f"u{after.itemsize}") & ((1 << (8 * after.itemsize - 1)) - 1)  # without the sign
        zeros = bits.size - np.count_nonzero(bits)
        not_finite = np.count_nonzero(bits >= _FIRST_NOT_FINITE[dtype])
    else:
        wide = after if after.dtype.kind == "c" else after.astype("float32")
        zeros = wide.size - np.count_nonzero(wide)
        not_finite = wide.size - np.count_nonzero(np.isfinite(wide))
    # What was there before is counted only where there is something to compare with: hardly ever.
    if zeros:
        zeros -= before.size - np.count_nonzero(before)
    if not_finite:
        wide = before.astype("complex128" if before.dtype.kind == "c" else "float64")
        not_finite -= before.size - np.count_nonzero(np.isfinite(wide))
    return Loss(overflow=int(not_finite), underflow=int(zeros))


def _to_integers(before: np.ndarray, after: np.ndarray) -> Loss:
    import ml_dtypes
    import numpy as np

    if after.dtype == bool:
        after[...] = before != 0
        return Loss(overflow=0, underflow=0)
    whole = np.trunc(before.astype("float64")) if before.dtype.kind not in "iub" else before
    info = ml_dtypes.iinfo(after.dtype)  # type: ignore[no-untyped-call]  # its stub has no types
    # Compared as Python integers by numpy, so that 2**63 is not rounded into the range.
    fits = (whole >= info.min) & (whole < float(info.max) + 1 if whole.dtype.kind == "f" else whole <= info.max)
    after[...] = np.where(fits, whole, 0).astype(after.dtype)
    underflow = np.count_nonzero(before) - np.count_nonzero(whole)
    return Loss(overflow=int(fits.size - np.count_nonzero(fits)), underflow=int(underflow))


def _floats(specs: dict[str, Spec]) -> list[str]:
    return [name for name, spec in specs.items() if spec.dtype in FLOATS]


def _castable(old: str, new: str) -> bool:
    """Complex numbers become only complex ones; strings, variants and quantised values cannot be cast."""
    if not BY_NAME[old].width or old.startswith("q"):
        return old == new
    return not (old.startswith("complex") and not new.startswith("complex"))
