"""Operations with other checkpoints: average, graft. A checkpoint is given by its path, or opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import RecipeError
from ..formats.object_graph import GRAPH_KEY
from ..report import count, listed
from ..tensors import Spec, Tensor, Tensors
from .casting import FLOATS
from .operation import Edit, EditRow, Operation, chosen, kinds_of, replaced
from .renaming import Rename

if TYPE_CHECKING:
    import numpy as np


_SHOWN = 5  # names that a sentence lists


@dataclass(frozen=True)
class Average(Operation):
    """The mean of this checkpoint and the `others`, tensor by tensor: for instance the last checkpoints of a run.

    All must have the same names, types and shapes. The sum is kept in float64 (float64 itself in numpy's
    longdouble), so that the mean of equal checkpoints is the checkpoint. Integers, bools and strings (the step,
    for one) are taken from this checkpoint, and their rows say so.
    """

    others: tuple[str | Tensors, ...]
    command: ClassVar[str] = "average"
    short: ClassVar[str] = "others"

    def __post_init__(self) -> None:
        if not self.others:
            raise RecipeError("average needs at least one other checkpoint")

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(other for other in self.others if not isinstance(other, Tensors))

    def edit(self, tensors: Tensors) -> Edit:
        others = [_opened(other, tensors) for other in self.others]
        problems = []
        for other, opened in zip(self.others, others, strict=True):
            problems += _differences(tensors, opened, _called(other))
        if problems:
            return Edit(tensors, problems=tuple(problems))
        made, rows = {}, []
        for name, tensor in tensors.items():
            spec = tensor.spec
            if spec.dtype in FLOATS or spec.dtype.startswith("complex"):
                made[name] = _mean(spec, [tensor, *(other[name] for other in others)])
                rows.append(EditRow(name, "average", name, spec, spec, f"of {len(others) + 1}"))
            else:
                rows.append(EditRow(name, "keep", name, spec, spec, f"{spec.dtype}: taken from the first"))
        return Edit(replaced(tensors, made), tuple(rows))


@dataclass(frozen=True)
class Graft(Operation):
    """Puts tensors of another checkpoint into this one: those that `select` chooses there, all without it.

    `rename` changes their names first, by the rules of the operation rename. A tensor that is here already is
    replaced; one of another shape or type only with `any_shape`, since what was trained around it may not fit.
    """

    source: str | Tensors
    select: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    any_shape: bool = False
    command: ClassVar[str] = "graft"
    short: ClassVar[str] = "source"

    def __post_init__(self) -> None:
        if self.rename:
            Rename(self.rename)  # raises where a rule is wrong

    @property
    def sources(self) -> tuple[str, ...]:
        return () if isinstance(self.source, Tensors) else (self.source,)

    def edit(self, tensors: Tensors) -> Edit:
        other = _opened(self.source, tensors)
        names, problems = chosen(other, self.select, self.command) if self.select else (list(other), ())
        taken = Tensors((name, other[name]) for name in names)
        origins = {name: name for name in names}
        if self.rename and not problems:
            renamed = Rename(self.rename).edit(taken)
            taken, problems = renamed.tensors, renamed.problems
            origins |= {row.name: row.source for row in renamed.rows}
        problems += tuple(
            f"graft: {name} is {tensors[name].spec} here, {tensor.spec} there; `any_shape: true` in a recipe takes it"
            for name, tensor in taken.items()
            if name in tensors and tensors[name].spec != tensor.spec and not self.any_shape
        )
        problems += tuple(_orphans(tensors, taken))
        where = _called(self.source)
        rows = tuple(
            EditRow(
                name,
                "graft",
                name if name in tensors else "",
                tensors[name].spec if name in tensors else None,
                tensor.spec,
                f"{origins[name]} of {where}",
            )
            for name, tensor in taken.items()
        )
        return (
            Edit(tensors, (), problems) if problems else Edit(Tensors({**tensors, **taken}, tensors.stored_names), rows)
        )


def _orphans(here: Tensors, taken: Tensors) -> list[str]:
    """A sentence for each slot and average whose shape would no longer be that of its variable."""
    reshaped = {name for name, tensor in taken.items() if name in here and here[name].spec.shape != tensor.spec.shape}
    if not reshaped:
        return []
    return [
        f"graft: {name} would no longer fit {kind.of}; strip it first, or take it along"
        for name, kind in kinds_of(here).items()
        if kind.of in reshaped and name not in taken and here[name].spec.shape == here[kind.of].spec.shape
    ]


def _opened(source: str | os.PathLike[str] | Tensors, here: Tensors) -> Tensors:
    """The other checkpoint, opened by keys where this one was, which shows in its object graph."""
    if isinstance(source, Tensors):
        return source
    from ..formats import open_checkpoint

    return open_checkpoint(source, names="stored" if GRAPH_KEY in here.specs() else "variable").tensors


def _called(source: object) -> str:
    return "the other checkpoint" if isinstance(source, Tensors) else str(source)


def _differences(here: Tensors, there: Tensors, where: str) -> list[str]:
    """What keeps the two from being averaged: names that only one has, and each tensor that is not the same in both."""
    found = []
    for only, said in (
        ([name for name in here if name not in there], f"not in {where}"),
        ([name for name in there if name not in here], f"in {where} alone"),
    ):
        if only:
            found.append(f"average: {count(len(only), 'tensor')} {said}: {listed(only, _SHOWN)}")
    found += [
        f"average: {name} is {tensor.spec} here and {there[name].spec} in {where}"
        for name, tensor in here.items()
        if name in there and there[name].spec != tensor.spec
    ]
    return found


def _mean(spec: Spec, tensors: Sequence[Tensor]) -> Tensor:
    """The mean, one checkpoint in memory at a time, when it is loaded."""

    def load() -> np.ndarray:
        import numpy as np

        is_wide = BY_NAME[spec.dtype].width // (2 if spec.dtype.startswith("complex") else 1) == 8
        wide = np.result_type(np.longdouble if is_wide else np.float64, _kind(spec))
        total = np.zeros(spec.shape, wide)
        for tensor in tensors:
            total += tensor.load()
        return (total / len(tensors)).astype(numpy_dtype(spec.dtype))

    return Tensor(spec, load)


def _kind(spec: Spec) -> str:
    return "complex64" if spec.dtype.startswith("complex") else "float32"
