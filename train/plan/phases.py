"""Gradual unfreezing: which scopes train from which epoch on. TensorFlow-free; `job.py` makes a plan for each phase.

>>> for phase in parse_phases("0: Logits; 5: Mixed_7c; 10: Mixed_7b,Mixed_7a"):
...     print(phase.epoch, *phase.trainable)
0.0 Logits
5.0 Logits Mixed_7c
10.0 Logits Mixed_7c Mixed_7b Mixed_7a
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...errors import RecipeError, SelectionError, nearest
from ...names import parse_patterns, split_patterns
from ...nets.net import Net
from ...plan import Variable
from ...plan.missing import covering

_LISTED = 5


class Phase(NamedTuple):
    """From `epoch` on the patterns `trainable` train: those of this phase and of all before it."""

    epoch: float
    trainable: tuple[str, ...]

    def first_step(self, per_epoch: int) -> int:
        """Steps that are done when the phase begins, `per_epoch` of them to an epoch."""
        return math.ceil(self.epoch * per_epoch)


def parse_phases(text: str) -> tuple[Phase, ...]:
    """The phases of `--unfreeze "EPOCH:SCOPES; EPOCH:SCOPES"`, none for an empty text.

    What trains once trains on (Howard and Ruder 2018, section 3.3): a phase adds its scopes to those before it.
    Raises RecipeError for a text of another form, a first epoch other than 0, or epochs that do not rise.
    """
    phases: list[Phase] = []
    for part in (part.strip() for part in text.split(";") if part.strip()):
        number, colon, patterns = part.partition(":")
        try:
            epoch = float(number)
        except ValueError:
            epoch = -1.0
        added = split_patterns(patterns)
        if not colon or not added or not 0 <= epoch < math.inf:
            raise RecipeError(f"--unfreeze {part}: write EPOCH:SCOPE,SCOPE", advice='As in "0:Logits; 5:Mixed_7c".')
        if not phases and epoch != 0:
            raise RecipeError(f"--unfreeze begins at epoch {epoch:g}: say what trains from epoch 0 on")
        if phases and epoch <= phases[-1].epoch:
            raise RecipeError(f"--unfreeze: epoch {epoch:g} does not come after {phases[-1].epoch:g}")
        before = phases[-1].trainable if phases else ()
        phases.append(Phase(epoch, tuple(dict.fromkeys((*before, *added)))))
    return tuple(phases)


def ages(phases: Sequence[Phase], names: Sequence[str]) -> dict[str, int]:
    """For each of the names that trains in some phase, the number of the first one; all 0 without phases.

    >>> ages(parse_phases("0:Logits; 5:Mixed_7c"), ["Net/Mixed_7b/w", "Net/Mixed_7c/w", "Net/Logits/w"])
    {'Net/Mixed_7c/w': 1, 'Net/Logits/w': 0}
    """
    if not phases:
        return dict.fromkeys(names, 0)
    patterns = [parse_patterns(phase.trainable) for phase in phases]
    first = {name: next((i for i, p in enumerate(patterns) if p.match(name) is not None), None) for name in names}
    return {name: age for name, age in first.items() if age is not None}


def _near(wanted: str, known: Sequence[str]) -> str:
    """The end points that may be meant: those of the scope, those of like names, else the last ones."""
    inside = [name for name in known if name.startswith(f"{wanted}/")]
    if inside:
        return f"; in this scope are {', '.join(inside[-_LISTED:])}"
    return nearest(wanted, known) or f"; the last ones are {', '.join(known[-_LISTED:])}"


def scopes_after(net: Net, variables: Sequence[Variable], end_point: str, *, aux: bool = False) -> list[str]:
    """The scopes of all that lies behind an end point of the net, its head included: what --freeze-until trains.

    `variables` are in the order in which the net makes them, and so is what is behind an end point. Raises
    SelectionError for an unknown end point, RecipeError for one with nothing behind it.
    """
    known = {name.removeprefix(f"{net.scope}/"): name for name in net.end_points}
    wanted = end_point.removeprefix(f"{net.scope}/")
    if wanted not in known:
        raise SelectionError(f"--freeze-until {end_point}: no end point of {net.name}{_near(wanted, list(known))}")
    before = {row.name for row in net.table[: net.variables_until(known[wanted])]}
    last = max((i for i, each in enumerate(variables) if each.name in before), default=-1)
    trains = [each.name for each in variables if each.trainable and (aux or each.role != "auxiliary")]
    auxiliary = [each.name for each in variables if each.role == "auxiliary" and each.name in trains]
    behind = {each.name for each in variables[last + 1 :]} | set(auxiliary)
    chosen = [name for name in trains if name in behind]
    if not chosen:
        raise RecipeError(f"--freeze-until {end_point}: nothing after it can be trained")
    return covering(chosen, trains)
