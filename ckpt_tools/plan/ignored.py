"""What the net would ignore of a layer that it takes: tensors without which the layer is another function.

A gamma that the net's batch norm lacks, biases in front of one, the second half of a separable layer: the plan would
restore the rest of the layer, and the net would compute something else. `--fold` folds what can be folded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from shlex import quote
from typing import NamedTuple

from ..folding import Foldable, Folding, foldable
from ..kinds import AVERAGE, kinds
from ..renames import RenameRule
from ..tensors import Spec
from . import batch_norm as norms
from .missing import exclude_advice
from .rows import AUXILIARY, RESTORING, Conflict, Row

# Last components of the names of a layer's own variables: other names in one scope need not belong together.
_OWN = {
    *("weights", "kernel", "depthwise_weights", "depthwise_kernel", "pointwise_weights", "pointwise_kernel"),
    *("biases", "bias", "gamma", "beta", "moving_mean", "moving_variance"),
}
RENORM, RENORM_PATTERN = "batch renormalisation", "**/renorm_*"
LAYERS_DIFFER = ("half of a separable layer", "parts of layers that the net has no variable for")
_CAUSES = {
    "gamma": (
        "scales that the net has no variable for",
        "--fold multiplies weights and moving means by them: the net then computes what the checkpoint's did.",
    ),
    "biases": (
        "biases in front of a batch norm",
        "--fold subtracts them from the moving means: the net then computes what the checkpoint's did.",
    ),
    "renorm": (
        RENORM,
        "It corrects batch norm while training only, and a frozen layer computes the same without it: "
        f"--exclude {quote(RENORM_PATTERN)} leaves it out.",
    ),
    "separable": (LAYERS_DIFFER[0], ""),
    "other": (LAYERS_DIFFER[1], ""),
}


class Ignored(NamedTuple):
    """A tensor of the source, called `name` there and `placed` after the renames, that belongs to `layer`.

    `kind` is a key of the causes above.
    """

    name: str
    placed: str
    layer: str
    kind: str

    @property
    def reason(self) -> str:
        if self.kind in ("gamma", "biases"):
            return f"{'multiplies' if self.kind == 'gamma' else 'is added to'} what {self.layer} gives"
        return f"belongs to {self.layer}, whose other variables are restored"


class SourceLayers:
    """A source and a net's rows, looked at layer by layer, by the names that the source has after the renames."""

    def __init__(
        self, source: Mapping[str, Spec], changed: Mapping[str, tuple[str, RenameRule]], rows: Mapping[str, Row]
    ) -> None:
        self.rows = rows
        self.placed = {old: old for old in source if old not in changed}
        self.placed |= {new: old for old, (new, _) in changed.items()}
        self.specs = {new: source[old] for new, old in self.placed.items()}
        self.norms = norms.layers(dict.fromkeys([*self.specs, *rows]))
        self.taken: dict[str, list[str]] = {}  # layer -> last components of what is restored there
        self.troubled: set[str] = set()  # layers with another conflict, which says enough
        for name, row in rows.items():
            if row.action in RESTORING:
                self.taken.setdefault(self._layer(name), []).append(name.rpartition("/")[2])
            elif row.action == "conflict" or row.rule == AUXILIARY:  # which is not computed
                self.troubled.add(self._layer(name))

    def ignored(self, excluded: Callable[[str], object]) -> list[Ignored]:
        """Every tensor that the net would ignore of a layer that it takes, unless it is `excluded`."""
        candidates = [
            name
            for name, old in self.placed.items()
            if name not in self.rows
            and "/" in name
            and excluded(name) is None
            and excluded(old) is None
            and f"{name}{AVERAGE}" not in self.rows  # the net takes its average
        ]
        if not candidates or not self.taken:
            return []
        scales = {part for each in foldable(self.specs) for part in (each.gamma, each.biases) if self._can_fold(each)}
        kind_of = kinds(self.specs)
        found = []
        for name in candidates:
            layer = self._layer(name)
            is_part = kind_of[name].kind in ("weight", "statistic") and not _OWN.isdisjoint(self.taken.get(layer, ()))
            if is_part and layer not in self.troubled:
                found.append(Ignored(self.placed[name], name, layer, _kind(name, name in scales)))
        return found

    def folds(self, wanted: Collection[str]) -> dict[str, Folding]:
        """Variable -> how the `wanted` of what is ignored (names after the renames) are folded into it."""
        made: dict[str, Folding] = {}
        for each in foldable(self.specs):
            if self._can_fold(each):
                parts = (each.gamma, each.biases)
                made |= each.foldings(*(self.placed[part] if part and part in wanted else None for part in parts))
        return made

    def _can_fold(self, each: Foldable) -> bool:
        """Whether both variables are the source's: else there is nothing to fold into."""
        names = (each.weights, each.mean)
        return all(name in self.rows and self.rows[name].action in RESTORING for name in names)

    def _layer(self, name: str) -> str:
        """The scope of the layer that a variable belongs to; a batch norm belongs to the layer that it lies in."""
        scope = name.rpartition("/")[0]
        return scope.rpartition("/")[0] if scope in self.norms and self.norms[scope].normalized else scope


def explain_ignored(found: Sequence[Ignored], names: Collection[str]) -> list[Conflict]:
    """A conflict for each kind of what is ignored. `names` are those of the net and of the source."""
    conflicts = []
    for kind, (cause, advice) in _CAUSES.items():
        parts = [each for each in found if each.kind == kind]
        if parts:
            conflicts.append(Conflict(cause, tuple(each.name for each in parts), advice or _afresh(parts, names)))
    return conflicts


def _kind(name: str, can_be_folded: bool) -> str:
    last = name.rpartition("/")[2]
    if can_be_folded:
        return "gamma" if last == "gamma" else "biases"
    if last.startswith("renorm_"):
        return "renorm"
    return "separable" if last.startswith(("depthwise_", "pointwise_")) else "other"


def _afresh(parts: Sequence[Ignored], names: Collection[str]) -> str:
    layers = {f"{each.layer}/" for each in parts}
    whole = [name for name in names if any(name.startswith(layer) for layer in layers)]
    return (
        f"The layers of the net are not those of the checkpoint: check --net; {exclude_advice(whole, names)} "
        "initialises them afresh."
    )
