"""A chain of operations on one source: the tensors that come out, and one row for each tensor that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..tensors import Tensors
from .following import follow
from .operation import Edit, EditRow, Loss, Operation, all_wrong, total_loss


@dataclass(frozen=True)
class Surgery:
    """What `operate` returns. No value has been read; `losses` are those of the tensors that were written since."""

    source: Tensors
    operations: tuple[Operation, ...]
    edits: tuple[Edit, ...]

    @property
    def tensors(self) -> Tensors:
        """What is to be written."""
        return self.edits[-1].tensors if self.edits else self.source

    @cached_property
    def rows(self) -> tuple[EditRow, ...]:
        """One row for each tensor that is there at the end and was changed, then one for each that is not."""
        traces: dict[str, EditRow] = {}
        gone: list[EditRow] = []
        for edit in self.edits:
            gone += [_joined(traces.get(row.source), row) for row in edit.rows if row.after is None]
            traces = _follow(traces, edit)
        return tuple(traces[name] for name in self.tensors if name in traces) + tuple(gone)

    @property
    def losses(self) -> dict[str, Loss]:
        """Final name -> what casts have lost of the tensor; only tensors that were written have an entry."""
        lost: dict[str, Loss] = {}
        for edit in self.edits:
            moved = {row.source: row.name for row in edit.rows if row.after is not None and row.source}
            lost = {moved.get(name, name): loss for name, loss in lost.items()}
            for name, loss in edit.losses.items():
                lost[name] = total_loss([lost[name], loss]) if name in lost else loss
        return {name: loss for name, loss in lost.items() if name in self.tensors}

    @cached_property
    def summary(self) -> dict[str, dict[str, int]]:
        """Tensors, parameters and bytes before and after; strings count no bytes."""
        return {"before": totals(self.source), "after": totals(self.tensors)}


def operate(source: Tensors, operations: Sequence[Operation]) -> Surgery:
    """Chains the operations. Reads specs alone, so that everything wrong is known before anything is written.

    Raises SelectionError that lists all problems of all operations: patterns that select nothing, names that
    collide, shapes that do not fit, a result without any tensor.
    """
    tensors, edits, problems = source, list[Edit](), list[str]()
    for operation in operations:
        edit = operation.edit(tensors)
        edits.append(edit)
        problems += edit.problems
        tensors = edit.tensors
    if not tensors and not problems:
        problems = ["nothing is left: every tensor was dropped"] if source else ["the source has no tensors"]
    if problems:
        raise all_wrong(problems)
    surgery = Surgery(source, tuple(operations), tuple(edits))
    graph = follow(tensors, surgery.rows)
    return surgery if graph is None else Surgery(source, tuple(operations), (*edits, graph))


def totals(tensors: Tensors) -> dict[str, int]:
    """Tensors, parameters and bytes of a checkpoint; strings count no bytes."""
    specs = list(tensors.specs().values())
    return {
        "tensors": len(specs),
        "parameters": sum(spec.parameters for spec in specs),
        "bytes": sum(spec.nbytes or 0 for spec in specs),
    }


def _follow(traces: dict[str, EditRow], edit: Edit) -> dict[str, EditRow]:
    """The rows so far, by current name, brought up to date with one more edit."""
    changed = {row.name: _joined(traces.get(row.source), row) for row in edit.rows if row.after is not None}
    kept = {name: row for name, row in traces.items() if name not in changed and name in edit.tensors}
    return {**kept, **changed}


def _joined(so_far: EditRow | None, step: EditRow) -> EditRow:
    if so_far is None:
        return step
    return EditRow(
        step.name if step.after is not None else so_far.source or step.name,
        ", ".join(part for part in (so_far.action, step.action) if part),
        so_far.source,
        so_far.before,
        step.after,
        "; ".join(part for part in (so_far.detail, step.detail) if part),
    )
