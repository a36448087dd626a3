"""Why a plan cannot be executed: what does not fit, grouped by cause, each with what to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..tensors import Spec
from .missing import View, exclude_advice, explain_missing
from .rows import Conflict, Variable


class Misfit(NamedTuple):
    """A variable that cannot be restored: "missing", "classes", "shape", "channels", "dtype", "statistics", ..."""

    kind: str
    name: str


def explain(
    misfits: Sequence[Misfit], wanted: Mapping[str, Variable], source: Mapping[str, Spec], unused: Sequence[str]
) -> list[Conflict]:
    """The conflicts of a plan: what cannot be restored, grouped by cause."""
    groups: dict[str, list[str]] = {}
    for misfit in misfits:
        groups.setdefault(misfit.kind, []).append(misfit.name)
    missing = groups.pop("missing", [])
    found = [cause.conflict for cause in explain_missing(missing, View(wanted, source, unused))]
    return found + [_explain_kind(kind, names, wanted, source) for kind, names in groups.items()]


def _explain_kind(
    kind: str, names: Sequence[str], wanted: Mapping[str, Variable], source: Mapping[str, Spec]
) -> Conflict:
    afresh = f"{exclude_advice(names, wanted)} initialises them afresh"
    if kind == "classes":
        return Conflict(
            "other number of classes", tuple(names), f"{afresh}; {_class_map_advice(names, wanted, source)}"
        )
    if kind == "statistics":
        layers = tuple(dict.fromkeys(name.rpartition("/")[0].removesuffix("BatchNorm") for name in names))
        whole = exclude_advice([name for name in wanted if name.startswith(layers)], wanted)
        held = "Let --exclude leave these statistics alone" if names[0] in source else "The checkpoint lacks them"
        advice = (
            f"Fresh statistics under restored weights make the net compute nonsense. {held}, or {whole} for the layers."
        )
        return Conflict("batch-norm statistics not restored", tuple(names), advice)
    if kind == "shape" and 2 * len(names) > len(wanted):
        advice = "Check --net: the checkpoint has its names, but is a net of other widths or depths."
        return Conflict("other widths", tuple(names), advice)
    causes = {
        "channels": ("other number of input channels", f"--adapt-input converts the filters; {afresh}."),
        "separable": (
            "other number of input channels of a separable convolution",
            f"Its channels do not add up, so that --adapt-input cannot convert it; {afresh}.",
        ),
        "dtype": ("other element type", f"--cast converts the values; {afresh}."),
        "two sources": ("two sources for one variable", "Make --map more exact, so that one of them is left."),
        "renamed": ("renamed away", "Take that --map away, or make it more exact: the net has these names."),
        "class map": ("the class map does not fit", "Give --class-map one old class, or _, for each new class."),
        "shape": ("other shape", f"{afresh}; or check that --net is the net that the checkpoint was made with."),
    }
    cause, advice = causes[kind]
    return Conflict(cause, tuple(names), advice)


def _class_map_advice(names: Sequence[str], wanted: Mapping[str, Variable], source: Mapping[str, Spec]) -> str:
    axis, new = wanted[names[0]].class_axis, wanted[names[0]].spec
    old = source[names[0]].shape[axis] if names[0] in source else 0
    if old == new.shape[axis] + 1:
        return f"--class-map 1-{old - 1} leaves the background class (number 0) out and keeps the others."
    if old == new.shape[axis] - 1:
        return f"--class-map _,0-{old - 1} puts a background class in front and keeps the others."
    return "--class-map keeps chosen classes."
