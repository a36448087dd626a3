"""Layouts as edit operations: another library's file to slim's names and axes, and a slim net to another library's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import SelectionError
from ..plan import InFile, Origin
from ..report import listed
from ..surgery import Background, Fold, Operation, operate
from ..surgery.relayout import Made, Move, Relayout
from ..tensors import Spec, Tensors
from .links import Link, links
from .matching import CLASSES, Foreign, Net
from .reading import WORLDS, layout_of

_FOLDS = re.compile(r"(times|less) ([^,;]+)")  # in the detail that `Folding` reports for a tensor
_FEW = 5  # scopes that a note lists
BACKGROUND = 1001  # classes in slim's ImageNet files, where class 0 is the background; other libraries have 1000


class WrittenAs(NamedTuple):
    """How to write a net for another library: operations on its tensors, notes for the user, and its layout's `near`,
    `pixels` and `exact`."""

    operations: tuple[Operation, ...]
    notes: tuple[str, ...]
    near: tuple[str, ...]
    pixels: str = ""
    exact: str = ""


def to_slim(foreign: Foreign) -> tuple[Operation, ...]:
    """The operations that make slim's tensors from a recognised file.

    Tensors that our net lacks are dropped, except scales and biases next to a batch norm: they are folded exactly into
    neighbouring tensors.
    """
    parts, folds = [], []
    for source, link in foreign.found.items():
        if link.fill is None or link.folds:
            parts.append(_inward(source, link))
        if link.folds:
            folds.append("gamma" if link.ours.endswith("/gamma") else "biases")
    reason = f"no variable of {foreign.net.title}"
    what = tuple(word for word in ("gamma", "biases") if word in folds)
    folding = (Fold(what, tuple(f"/{link.ours}" for link in foreign.found.values() if link.folds)),) if what else ()
    return (Relayout(tuple(parts), reason), *folding)


def as_source(foreign: Foreign, tensors: Tensors) -> tuple[Tensors, Origin]:
    """The tensors of a recognised file under slim's names, for planning and restoring, and where each comes from. The
    file's own names are accepted as well (`Tensors.stored_names`)."""
    surgery = operate(tensors, to_slim(foreign))
    folded = {link.ours: source for source, link in foreign.found.items() if link.folds}
    found, into, left = {}, [], []
    for row in surgery.rows:
        assert row.before is not None  # nothing is new here
        if row.after is not None:
            how = _FOLDS.sub(lambda part: f"{part[1]} {folded[part[2]]}", row.detail)
            found[row.name] = InFile(row.source, row.before, how, _folded(row.detail))
        elif "fold" in row.action:
            into.append(InFile(row.name, row.before, f"folded {row.detail}"))
        else:
            left.append(InFile(row.name, row.before, row.detail))
    names = {name: each.name for name, each in found.items()}
    library = foreign.library
    origin = Origin(str(foreign), library, found, tuple(into), tuple(left), foreign.near, foreign.pixels)
    return Tensors(surgery.tensors, names), origin


def from_slim(world: str, net: Net, tensors: Tensors, *, background: bool = False, places: bool = False) -> WrittenAs:
    """The operations that turn the net's variables among `tensors`, under slim's names, into the layout of `world`.

    The background class is dropped, since no other library has one, unless `background` is true. With `places` the
    result also tells where in a Keras 3 file each tensor lies (`Tensors.stored_names`). Raises SelectionError if the
    library's layout of the net is unknown, or a variable of its backbone is missing.
    """
    layout = layout_of(world, net.name)
    if layout is None:
        known = [each for each in WORLDS if layout_of(each, net.name)]
        hint = f"; it is known how {' and '.join(known)} {'do' if known[1:] else 'does'}" if known else ""
        raise SelectionError(f"--layout {world}: it is not known how {world} writes {net.title}{hint}")
    specs, variables = tensors.specs(), {variable.name: variable for variable in net.variables(1)}
    there = {name: specs[name] for name in variables if name in specs}
    missing = [n for n, variable in variables.items() if n not in there and variable.role in ("backbone", "statistic")]
    if missing:
        raise SelectionError(f"{len(missing)} variables of {net.title} are missing, such as {missing[0]}")
    operations: list[Operation] = []
    notes = []
    axes = {name: axis for name in there if (axis := variables[name].class_axis) is not None}
    if not background and {there[name].shape[axis] for name, axis in axes.items()} == {BACKGROUND}:
        operations.append(Background("drop", tuple(f"/{name}" for name in axes)))
        there |= {name: _one_less(there[name], axis) for name, axis in axes.items()}
        notes.append("class 0, the background, is left out: classes 1 to 1000 are 0 to 999 there")
    wanted = links(layout, net.scope, there)
    written = {link.ours for link in wanted}
    if left := [name for name in there if name not in written]:
        notes.append(f"{world} has no variables for these: {_scopes(left)}")
    if others := [name for name in specs if name not in variables]:
        notes.append(f"not part of the net, left out: {_scopes(others)}")
    if not any(variables[name].role == "head" for name in written & set(variables)):
        notes.append("the source has no classifier")
    parts, keys = tuple(map(_outward, wanted)), _places(wanted) if places else ()
    operations.append(Relayout(parts, f"no place in {world}", keys))
    return WrittenAs(tuple(operations), tuple(notes), layout.near, layout.pixels, layout.exact)


def _scopes(names: Sequence[str]) -> str:
    """The first two components of each name, without repeats, as a short list."""
    return listed(list(dict.fromkeys("/".join(name.split("/")[:2]) for name in names)), _FEW)


def _places(wanted: Sequence[Link]) -> tuple[tuple[str, str], ...]:
    """Pairs of their name and its place in a Keras 3 file, where the layers of each class and the variables of each
    layer are numbered."""
    places: dict[str, str] = {}
    layers, weights = Counter[str](), Counter[str]()
    keys = []
    for link in wanted:
        layer = link.theirs[0].rpartition("/")[0]
        if layer not in places:
            kind = CLASSES[link.kind]
            places[layer] = f"layers/{kind}_{layers[kind]}" if layers[kind] else f"layers/{kind}"
            layers[kind] += 1
        keys.append((link.theirs[0], f"{places[layer]}/vars/{weights[layer]}"))
        weights[layer] += 1
    return tuple(keys)


def _one_less(spec: Spec, axis: int) -> Spec:
    return Spec(spec.dtype, tuple(length - (i == axis) for i, length in enumerate(spec.shape)))


def _inward(source: str, link: Link) -> Move:
    return Move(source, link.ours, link.unfolded, link.axes, link.spec.shape)


def _outward(link: Link) -> Move | Made:
    if link.fill is not None:
        return Made(link.theirs[0], Spec(link.spec.dtype, link.shape), link.fill)
    back = None if link.axes is None else tuple(link.axes.index(axis) for axis in range(len(link.axes)))
    return Move(link.ours, link.theirs[0], link.spec.shape, back, link.shape)


def _folded(detail: str) -> str:
    words = {"times": "scales", "less": "biases"}
    return " and ".join(dict.fromkeys(words[part[1]] for part in _FOLDS.finditer(detail)))
