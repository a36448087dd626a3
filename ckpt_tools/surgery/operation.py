"""What an operation is: a small frozen dataclass that maps Tensors to Tensors and says what it did to each.

An operation reads specs, never values: values flow when a writer calls `load()` on the result. So the rows that
`--dry-run` prints belong to the very tensors that would be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypedDict

from ..errors import SelectionError
from ..kinds import Kind, kinds
from ..names import parse_patterns, select
from ..tensors import Spec, Tensor, Tensors

if TYPE_CHECKING:
    import numpy as np


_SCREENFUL = 40


class EditRow(NamedTuple):
    """What one operation, or a chain of them, does to one tensor. A tensor that it leaves alone has no row."""

    name: str  # after; of a dropped tensor the name that it had
    action: str  # "rename", "drop", "cast", ...; a chain joins them with ", "
    source: str  # the name before; "" for a tensor that the operation creates
    before: Spec | None
    after: Spec | None  # None for a dropped tensor
    detail: str = ""


def row_sentence(row: EditRow) -> str:
    """A row as a provenance sidecar has it: "rename from net/w", "cast (float32 to float16)"."""
    origin = f" from {row.source}" if row.source not in ("", row.name) else ""
    return f"{row.action}{origin}{f' ({row.detail})' if row.detail else ''}"


class Loss(TypedDict):
    """What a cast could not keep of one tensor: finite values that became infinite or NaN, values that became 0."""

    overflow: int
    underflow: int


class Tally:
    """Counts what a cast loses, while its tensors are loaded: `losses` has those of which anything was lost so far."""

    def __init__(self) -> None:
        self.losses: dict[str, Loss] = {}
        self._parts: dict[str, dict[object, Loss]] = {}

    def note(self, name: str, part: object, loss: Loss) -> None:
        """`part` tells one slice of the tensor from another; None is the whole tensor, which replaces its slices. What
        is loaded again counts once."""
        parts = self._parts.setdefault(name, {})
        parts[part] = loss
        counted = [parts[None]] if None in parts else list(parts.values())
        if any(any(each.values()) for each in counted):
            self.losses[name] = total_loss(counted)


def total_loss(losses: Iterable[Loss]) -> Loss:
    """All of them together."""
    listed = list(losses)
    return Loss(overflow=sum(each["overflow"] for each in listed), underflow=sum(each["underflow"] for each in listed))


@dataclass(frozen=True)
class Edit:
    """The result of one operation.

    `problems` holds one sentence for each thing that is wrong; the tensors are then what the operation could do
    without it, so that the operations after it can be checked too. Whoever loads the tensors of a cast has its `tally`
    count.
    """

    tensors: Tensors
    rows: tuple[EditRow, ...] = ()
    problems: tuple[str, ...] = ()
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def losses(self) -> Mapping[str, Loss]:
        """Tensor -> what the cast has lost of it; of those alone that were loaded already."""
        return self.tally.losses


@dataclass(frozen=True)
class Operation:
    """Base of the operations. `command` names it in recipes, `short` the field that a bare value there fills."""

    command: ClassVar[str] = ""
    short: ClassVar[str] = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the other checkpoints that the operation takes tensors from."""
        return ()

    def edit(self, tensors: Tensors) -> Edit:
        """The tensors after the operation, a row for each that it touched, and everything that is wrong."""
        raise NotImplementedError

    def __call__(self, tensors: Tensors) -> Tensors:
        """The tensors after the operation; raises SelectionError that lists everything that is wrong."""
        edit = self.edit(tensors)
        if edit.problems:
            raise all_wrong(edit.problems)
        return edit.tensors


def all_wrong(problems: Sequence[str]) -> SelectionError:
    """One error for all problems: a line each where there are several, cut off after a screenful."""
    if len(problems) == 1:
        return SelectionError(problems[0])
    lines = [f"{len(problems):,} problems:", *(f"  {problem}" for problem in problems[:_SCREENFUL])]
    if len(problems) > _SCREENFUL:
        lines.append(f"  and {len(problems) - _SCREENFUL:,} more")
    return SelectionError("\n".join(lines))


def chosen(names: Iterable[str], patterns: Sequence[str], command: str) -> tuple[list[str], tuple[str, ...]]:
    """The names that the patterns select, in order, and what is wrong with the patterns, a sentence each."""
    try:
        parsed = parse_patterns(patterns)
        if not parsed:
            return [], (f"{command}: {', '.join(map(repr, patterns))} is not a pattern",)
        return select(names, parsed, option=f"{command}:", of="tensors"), ()
    except SelectionError as error:
        return [], tuple(str(error).splitlines())


def kinds_of(tensors: Tensors) -> dict[str, Kind]:
    """What each tensor is for; keys of object-based files help, where names do not tell a slot from a weight."""
    return kinds(tensors.specs(), tensors.stored_names)


def with_values(tensor: Tensor, spec: Spec, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A tensor whose values are those of `tensor` after `change`, which is called when they are wanted."""
    return Tensor(spec, lambda: change(tensor.load()))


def replaced(tensors: Tensors, changed: Mapping[str, Tensor]) -> Tensors:
    """The same names in the same order, with the tensors of `changed` in place of theirs."""
    return Tensors(((name, changed.get(name, tensor)) for name, tensor in tensors.items()), tensors.stored_names)
