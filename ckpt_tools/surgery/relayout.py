"""Other names, axes and shapes for the tensors of a net, all at once: what a layout is compiled to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ..tensors import Spec, Tensor, Tensors
from .operation import Edit, EditRow, Operation, with_values
from .shaping import constant

if TYPE_CHECKING:
    import numpy as np


class Move(NamedTuple):
    """A tensor: its name before and after, and how its values go: into the shape `unfolded`, along other `axes`, into
    `shape`."""

    old: str
    new: str
    unfolded: tuple[int, ...]
    axes: tuple[int, ...] | None
    shape: tuple[int, ...]

    def values(self, array: np.ndarray) -> np.ndarray:
        """The values in their new shape."""
        array = array.reshape(self.unfolded)
        return (array if self.axes is None else array.transpose(self.axes)).reshape(self.shape)

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor in its new shape; the very same one where its values stay as they lie."""
        if self.axes is None and self.shape == tensor.spec.shape:
            return tensor
        return with_values(tensor, Spec(tensor.spec.dtype, self.shape), self.values)

    def said(self, before: Spec) -> str:
        """What happens to the values, in words."""
        axes = "" if self.axes is None else f"axes {','.join(map(str, self.axes))}"
        return ", ".join(filter(None, (axes, "reshaped" if len(before.shape) != len(self.shape) else "")))


class Made(NamedTuple):
    """A tensor that is not in the source and has one value everywhere."""

    name: str
    spec: Spec
    value: float


@dataclass(frozen=True)
class Relayout(Operation):
    """Writes tensors as another library does. `parts` are in the order of the result; the others are left out.

    `keys` are pairs of a new name and its key in a file, where that is another one.
    """

    parts: tuple[Move | Made, ...]
    reason: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    command: ClassVar[str] = "relayout"

    def edit(self, tensors: Tensors) -> Edit:
        moved, rows, taken = {}, [], set()
        for part in self.parts:
            if isinstance(part, Made):
                moved[part.name] = constant(part.spec, part.value)
                rows.append(EditRow(part.name, "fill", "", None, part.spec, f"with {part.value:g}"))
                continue
            tensor = tensors[part.old]
            taken.add(part.old)
            moved[part.new] = part(tensor)
            rows.append(
                EditRow(part.new, self.command, part.old, tensor.spec, moved[part.new].spec, part.said(tensor.spec))
            )
        left = [(name, spec) for name, spec in tensors.specs().items() if name not in taken]
        rows += [EditRow(name, "drop", name, spec, None, self.reason) for name, spec in left]
        return Edit(Tensors(moved, dict(self.keys)), tuple(rows))
