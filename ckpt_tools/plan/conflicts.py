"""Why a plan cannot be executed: what does not fit, grouped by cause, each with what to type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..tensors import Spec
from .missing import Evidence, exclude_advice, explain_missing
from .rows import Conflict, Variable

STATISTICS = "batch-norm statistics not restored"


class Misfit(NamedTuple):
    """A variable that cannot be restored: "missing", "classes", "shape", "channels", "dtype", "statistics", ..."""

    kind: str
    name: str


def explain(
    misfits: Sequence[Misfit],
    wanted: Mapping[str, Variable],
    source: Mapping[str, Spec],
    unused: Sequence[str],
    nets: Mapping[str, str],
) -> list[Conflict]:
    """The conflicts of a plan: what cannot be restored, grouped by cause."""
    groups: dict[str, list[str]] = {}
    for misfit in misfits:
        groups.setdefault(misfit.kind, []).append(misfit.name)
    missing = groups.pop("missing", [])
    found = [cause.conflict for cause in explain_missing(missing, Evidence(wanted, source, unused, nets))]
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
        layers = layers_of(names, wanted)
        whole = f"{exclude_advice(layers, wanted)} initialises the layers afresh"
        if names[0] in source:
            held = f"Let --exclude leave these statistics alone, or {whole}"
        elif 2 * len(layers) <= len(wanted):
            held = f"The checkpoint lacks them: {whole}"
        else:
            held = "The checkpoint lacks them: take one that was saved with all variables, not the trainable ones alone"
        advice = f"Fresh statistics under restored weights make the net compute nonsense. {held}."
        return Conflict(STATISTICS, tuple(names), advice)
    if kind == "shape" and 2 * len(names) > len(wanted):
        advice = "Check --net: the checkpoint has its names, but is a net of other widths or depths."
        return Conflict("other widths", tuple(names), advice)
    layer = f"{exclude_advice(_with_batch_norm(names, wanted), wanted)} initialises the layer afresh"
    causes = {
        "channels": ("other number of input channels", f"--adapt-input converts the filters; {layer}."),
        "separable": (
            "other number of input channels of a separable convolution",
            f"Its channels do not add up, so that --adapt-input cannot convert it; {layer}.",
        ),
        "string": ("other element type", f"Strings are not converted to numbers, nor numbers to strings; {afresh}."),
        "dtype": (
            "other element type",
            "--cast converts the values; what --exclude selects is initialised afresh.",
        ),
        "two sources": (
            "two sources for one variable",
            "Make --rename more specific, so that only one of them is left.",
        ),
        "renamed": ("renamed away", "Remove that --rename, or make it more specific: the net has these names."),
        "class map": (
            "the class map does not fit",
            "Give --class-map one old class, or _, for each new class, or --labels-of-source the labels of the "
            "checkpoint's own classes.",
        ),
        "shape": ("other shape", f"{afresh}; or check that --net is the net that the checkpoint was made with."),
    }
    cause, advice = causes[kind]
    return Conflict(cause, tuple(names), advice)


def layers_of(statistics: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """All variables of the layers that these batch-norm statistics belong to."""
    scopes = (name.rpartition("/")[0].removesuffix("BatchNorm").rstrip("/") for name in statistics)
    layers = tuple(f"{scope}/" for scope in dict.fromkeys(scopes))
    return [name for name in wanted if name.startswith(layers)]


def _with_batch_norm(filters: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """The filters and the batch norm behind them, whose statistics are those of other filters."""
    norms = tuple(f"{name.rpartition('/')[0]}/BatchNorm/" for name in filters)
    return [name for name in wanted if name in filters or name.startswith(norms)]


def _class_map_advice(names: Sequence[str], wanted: Mapping[str, Variable], source: Mapping[str, Spec]) -> str:
    """How to keep classes. Of a background class only where ImageNet's 1000 classes meet the 1001 of slim's files."""
    axis, new = wanted[names[0]].class_axis, wanted[names[0]].spec
    old = source.get(names[0])
    classes = (old.shape[axis], new.shape[axis]) if old and axis is not None else None
    if classes == (1001, 1000):
        return "--class-map 1-1000 leaves the background class (number 0) out and keeps the others."
    if classes == (1000, 1001):
        return "--class-map _,0-999 puts a background class in front and keeps the others."
    return "--labels-of-source FILE keeps classes by name, --class-map by number."
