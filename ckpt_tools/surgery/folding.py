"""Scales and biases of batch-normalised layers go into the weights and moving means: see ckpt_tools/folding.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError, nearest
from ..folding import FOLDED, Folding, foldable
from ..report import listed
from ..tensors import Tensors
from .operation import Edit, EditRow, Operation, chosen, kinds_of, with_values

if TYPE_CHECKING:
    import numpy as np

_FEW = 3


@dataclass(frozen=True)
class Fold(Operation):
    """For nets whose batch norm has no gamma, as slim's Inceptions, or whose normalised layers have no biases.

    `gamma` multiplies the weights in front of the batch norm and its moving mean, `biases` are taken from the moving
    mean: what the layer computes stays the same, and both are left out. `what` says which of the two, `select` in which
    layers. A batch norm in a layer's scope, as slim has it, normalises what that layer's weights give.

    >>> from ckpt_tools.tensors import from_arrays
    >>> layer = {"fc/weights": [[1.0, 2.0]], "fc/BatchNorm/gamma": [3.0, -1.0], "fc/BatchNorm/moving_mean": [1.0, 1.0]}
    >>> Fold(("gamma",))(from_arrays(layer))["fc/weights"].load()
    array([[ 3., -2.]])
    """

    what: tuple[str, ...] = FOLDED
    select: tuple[str, ...] = ()
    command: ClassVar[str] = "fold"
    short: ClassVar[str] = "what"

    def __post_init__(self) -> None:
        for word in self.what:
            if word not in FOLDED:
                raise RecipeError(f"fold knows {' and '.join(FOLDED)}, not {word!r}{nearest(word, FOLDED)}")

    def edit(self, tensors: Tensors) -> Edit:
        names, problems = chosen(tensors, self.select, self.command) if self.select else (list(tensors), ())
        changes = self._changes(tensors, set(names))
        gone = _folded(changes)
        if not changes and not problems:
            where = f" in {','.join(self.select)}" if self.select else ""
            problems = (f"fold: no batch norm{where} has {' or '.join(self.what)} that its layer's weights could take",)
        problems += tuple(self._left(tensors, names, gone))
        problems += tuple(_orphans(tensors, {*changes, *gone}))
        if problems:
            return Edit(tensors, problems=problems)
        rows, kept = [], {}
        for name, tensor in tensors.items():
            if name in gone:
                rows.append(EditRow(name, "fold", name, tensor.spec, None, f"into {' and '.join(gone[name])}"))
                continue
            kept[name] = tensor
            if name in changes:
                kept[name] = with_values(tensor, tensor.spec, _change(changes[name], tensors))
                rows.append(EditRow(name, "fold", name, tensor.spec, tensor.spec, str(changes[name])))
        stored = {name: key for name, key in tensors.stored_names.items() if name in kept}
        return Edit(Tensors(kept, stored), tuple(rows))

    def _changes(self, tensors: Tensors, names: set[str]) -> dict[str, Folding]:
        made: dict[str, Folding] = {}
        for each in foldable(tensors.specs()):
            gamma = each.gamma if "gamma" in self.what and each.gamma in names else None
            biases = each.biases if "biases" in self.what and each.biases in names else None
            made |= each.foldings(gamma, biases)
        return made

    def _left(self, tensors: Tensors, names: list[str], gone: Mapping[str, list[str]]) -> Iterator[str]:
        """A sentence for each gamma of a batch norm that has no weights to take it."""
        for name in names if "gamma" in self.what and gone else ():
            scope, _, last = name.rpartition("/")
            if last == "gamma" and name not in gone and f"{scope}/moving_mean" in tensors:
                yield f"fold: {name} has no weights of its layer that could take it; `select` leaves it alone"


def _folded(changes: Mapping[str, Folding]) -> dict[str, list[str]]:
    """What is folded -> the tensors that it is folded into."""
    found: dict[str, list[str]] = {}
    for name, change in changes.items():
        for part in filter(None, (change.gamma, change.biases)):
            found.setdefault(part, []).append(name)
    return found


def _change(change: Folding, tensors: Tensors) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: change.apply(values, lambda name: tensors[name].load())


def _orphans(tensors: Tensors, touched: set[str]) -> Iterator[str]:
    """One sentence for the slots and averages that would no longer belong to their variables."""
    left = [name for name, kind in kinds_of(tensors).items() if kind.of in touched and name not in touched]
    if left:
        yield f"fold: {listed(left, _FEW)} would no longer fit what is folded: strip optimizer and averages first"
