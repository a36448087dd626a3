"""Operations that change shapes or values by pattern: reshape, transpose, slice, pad, fill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import RecipeError, nearest
from ..tensors import Spec, Tensor, Tensors
from .casting import cast_values
from .operation import Edit, EditRow, Operation, chosen, replaced, with_values

if TYPE_CHECKING:
    import numpy as np


_BLOCK = 1 << 20  # elements of a constant that are in memory


@dataclass(frozen=True)
class _ByPattern(Operation):
    """An operation that does the same to every selected tensor: a new shape, and how values get there."""

    select: tuple[str, ...]

    def edit(self, tensors: Tensors) -> Edit:
        names, problems = chosen(tensors, self.select, self.command)
        changed, rows, wrong = {}, [], list(problems)
        for name in names:
            before = tensors[name].spec
            try:
                after = Spec(before.dtype, self.shape_after(before.shape))
            except _DoesNotFit as reason:
                wrong.append(f"{self.command}: {name} is {before}: {reason}")
                continue
            if after != before or not self.keeps_same_shape:
                changed[name] = with_values(tensors[name], after, self.values)
                rows.append(EditRow(name, self.command, name, before, after))
        return Edit(replaced(tensors, changed), tuple(rows), tuple(wrong))

    keeps_same_shape: ClassVar[bool] = False  # True where the same shape means the same values

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The new shape; raises _DoesNotFit with the reason."""
        raise NotImplementedError

    def values(self, array: np.ndarray) -> np.ndarray:
        """The values in their new shape."""
        raise NotImplementedError


class _DoesNotFit(ValueError):
    """The reason why a tensor of this shape cannot be changed as asked."""


@dataclass(frozen=True)
class Reshape(_ByPattern):
    """The same values in row-major order in another shape; one length may be -1, which is worked out.

    VGG's fc6 as a convolution becomes a matrix by `Reshape(("fc6/weights",), (-1, 4096))`.
    """

    shape: tuple[int, ...]
    command: ClassVar[str] = "reshape"
    keeps_same_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.shape.count(-1) > 1 or any(length < -1 for length in self.shape):
            raise RecipeError(f"reshape: {list(self.shape)} is not a shape: lengths are 0 or more, one may be -1")

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        total, known = math.prod(shape), math.prod(length for length in self.shape if length != -1)
        if -1 in self.shape and known and total % known == 0:
            return tuple(total // known if length == -1 else length for length in self.shape)
        if total != known or -1 in self.shape:
            raise _DoesNotFit(f"its {total:,} values do not fit the shape {list(self.shape)}")
        return self.shape

    def values(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.shape_after(array.shape))


@dataclass(frozen=True)
class Transpose(_ByPattern):
    """The axes in another order; without `axes` in reverse order, as numpy.transpose does.

    A PyTorch convolution (out, in, height, width) becomes TensorFlow's (height, width, in, out) by axes (2, 3, 1, 0).
    """

    axes: tuple[int, ...] = ()
    command: ClassVar[str] = "transpose"
    short: ClassVar[str] = "select"

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axes = self.axes or tuple(reversed(range(len(shape))))
        if sorted(axes) != list(range(len(shape))):
            raise _DoesNotFit(f"axes {list(axes)} are not its {len(shape)} axes in another order")
        return tuple(shape[axis] for axis in axes)

    def values(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(self.axes or None)


@dataclass(frozen=True)
class SliceOf(_ByPattern):
    """The part `start:stop` of one axis; negative numbers count from the end, as in Python.

    Unlike there, more than the axis holds is an error.
    """

    start: int = 0
    stop: int | None = None
    axis: int = -1
    command: ClassVar[str] = "slice"

    def _range(self, length: int) -> tuple[int, int]:
        start = self.start + length if self.start < 0 else self.start
        stop = length if self.stop is None else self.stop + length if self.stop < 0 else self.stop
        if not 0 <= start < stop <= length:
            raise _DoesNotFit(f"{self.start}:{'' if self.stop is None else self.stop} is not a part of {length}")
        return start, stop

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = _axis(self.axis, shape)
        start, stop = self._range(shape[axis])
        return (*shape[:axis], stop - start, *shape[axis + 1 :])

    def values(self, array: np.ndarray) -> np.ndarray:
        axis = _axis(self.axis, array.shape)
        return array[(slice(None),) * axis + (slice(*self._range(array.shape[axis])),)]


@dataclass(frozen=True)
class Pad(_ByPattern):
    """Adds `before` and `after` elements of `value` at the two ends of one axis."""

    before: int = 0
    after: int = 0
    axis: int = -1
    value: float = 0.0
    command: ClassVar[str] = "pad"
    keeps_same_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.before < 0 or self.after < 0 or self.before + self.after == 0:
            raise RecipeError("pad: `before` and `after` are 0 or more, and not both 0", advice="`slice` takes away.")

    def edit(self, tensors: Tensors) -> Edit:
        edit = super().edit(tensors)
        specs = {row.name: row.before for row in edit.rows if row.before}
        return replace(edit, problems=edit.problems + _not_held(self.command, specs, self.value))

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = _axis(self.axis, shape)
        return (*shape[:axis], self.before + shape[axis] + self.after, *shape[axis + 1 :])

    def values(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        axis = _axis(self.axis, array.shape)
        widths = [(self.before, self.after) if each == axis else (0, 0) for each in range(array.ndim)]
        return np.pad(array, widths, constant_values=np.array(self.value).astype(array.dtype))


@dataclass(frozen=True)
class Fill(Operation):
    """Sets every value of the selected tensors to `value`; with `dtype`, creates the tensor `name` of `shape`.

    >>> from ckpt_tools.tensors import from_arrays
    >>> Fill(name="global_step", dtype="int64", value=0)(from_arrays({}))["global_step"].spec
    Spec(dtype='int64', shape=())
    """

    select: tuple[str, ...] = ()
    value: float = 0.0
    name: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    command: ClassVar[str] = "fill"
    short: ClassVar[str] = "select"

    def __post_init__(self) -> None:
        if bool(self.select) == bool(self.name) or bool(self.name) != bool(self.dtype):
            raise RecipeError("fill needs `select` (tensors that are there) or `name` and `dtype` (a new one)")
        if self.dtype and (self.dtype not in BY_NAME or not BY_NAME[self.dtype].width):
            raise RecipeError(f"fill: no element type {self.dtype!r} to fill with{nearest(self.dtype, BY_NAME)}")
        if min(self.shape, default=0) < 0:
            raise RecipeError(f"fill: {list(self.shape)} is not a shape: lengths are 0 or more")

    def edit(self, tensors: Tensors) -> Edit:
        if self.name:
            return self._create(tensors)
        names, problems = chosen(tensors, self.select, self.command)
        specs = {name: tensors[name].spec for name in names}
        problems += _not_held(self.command, specs, self.value)
        if problems:
            return Edit(tensors, problems=problems)
        changed = {name: constant(spec, self.value) for name, spec in specs.items()}
        rows = tuple(EditRow(name, "fill", name, spec, spec, f"with {self.value:.15g}") for name, spec in specs.items())
        return Edit(replaced(tensors, changed), rows)

    def _create(self, tensors: Tensors) -> Edit:
        if self.name in tensors:
            problem = f"fill: {self.name} exists already, {tensors[self.name].spec}; `select` sets its values"
            return Edit(tensors, problems=(problem,))
        spec = Spec(self.dtype, self.shape)
        if problems := _not_held(self.command, {self.name: spec}, self.value):
            return Edit(tensors, problems=problems)
        made = constant(spec, self.value)
        row = EditRow(self.name, "fill", "", None, spec, f"with {self.value:.15g}")
        return Edit(Tensors({**tensors, self.name: made}, tensors.stored_names), (row,))


def _not_held(command: str, specs: Mapping[str, Spec], value: float) -> tuple[str, ...]:
    """A sentence for each tensor whose type cannot hold the value exactly."""
    import numpy as np

    numbers = {spec.dtype for spec in specs.values() if BY_NAME[spec.dtype].width}
    wrong = {dtype for dtype in numbers if any(cast_values(np.full(1, value), dtype)[1].values())}
    return tuple(
        f"{command}: {name} is {spec}, which "
        + (f"cannot hold {value:.15g}" if spec.dtype in numbers else "no number fills")
        for name, spec in specs.items()
        if spec.dtype not in numbers - wrong
    )


def constant(spec: Spec, value: float) -> Tensor:
    """A tensor with the same value everywhere, made when it is loaded."""

    def load() -> np.ndarray:
        import numpy as np

        return np.full(spec.shape, value).astype(numpy_dtype(spec.dtype))

    def stream() -> Iterator[np.ndarray]:
        import numpy as np

        block = np.full(min(spec.parameters, _BLOCK), value).astype(numpy_dtype(spec.dtype))
        for start in range(0, spec.parameters, _BLOCK):
            yield block[: spec.parameters - start]

    return Tensor(spec, load, stream=stream)


def _axis(axis: int, shape: Sequence[int]) -> int:
    if not -len(shape) <= axis < len(shape):
        raise _DoesNotFit(f"it has {len(shape)} axes, not axis {axis}")
    return axis % len(shape)
