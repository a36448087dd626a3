"""Operations on names alone: rename, keep, drop, strip, moving averages to weights. No value is read or changed.

The tensors pass through untouched, so that a V2 writer copies their bytes and their slices as they lie.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..errors import RecipeError, nearest
from ..formats.object_graph import GRAPH_KEY
from ..kinds import Kind
from ..names import did_you_mean
from ..renames import RenameRule
from ..tensors import Tensor, Tensors
from .operation import Edit, EditRow, Operation, chosen, kinds_of

_FEW = 5  # rules that fit nothing, or names that would be the same, that are named one by one


@dataclass(frozen=True)
class Rename(Operation):
    r"""Renames by rules OLD -> NEW, all at once: a name is changed by the first rule that fits, and only by it.

    OLD is a whole name or a scope from the root; `re:EXPR` is searched in the name, and NEW may then use \1 or
    \g<name>. An empty NEW takes a scope away, an empty OLD puts one in front of every name. Two names may be
    swapped; two tensors that would end with the same name are an error, and so is a rule that fits nothing.

    >>> from ckpt_tools.tensors import from_arrays
    >>> source = from_arrays({"net/a/weights": 1.0, "net/b/weights": 2.0})
    >>> swap = Rename((("net/a", "net/b"), ("net/b", "net/a")))
    >>> list(swap(source))
    ['net/b/weights', 'net/a/weights']
    >>> list(Rename(((r"re:^net/(\w+)/weights$", r"\1/kernel"),))(source))
    ['a/kernel', 'b/kernel']
    """

    rules: tuple[tuple[str, str], ...]
    command: ClassVar[str] = "rename"
    short: ClassVar[str] = "rules"

    def __post_init__(self) -> None:
        if not self.rules:
            raise RecipeError("rename needs at least one rule OLD: NEW")
        for old, number in Counter(old for old, _ in self.rules).items():
            if number > 1:
                raise RecipeError(f"rename: {old} is renamed twice")
        for old, new in self.rules:
            _check_rule(old, new)

    def edit(self, tensors: Tensors) -> Edit:
        rules = [RenameRule(old, new) for old, new in self.rules]
        fits = dict.fromkeys((rule.old for rule in rules), 0)
        new_names = {}
        for name in tensors:
            new_names[name] = name
            for rule in rules:
                renamed = rule(name)
                if renamed is not None:
                    fits[rule.old] += 1
                    new_names[name] = name if name == GRAPH_KEY else renamed  # which is looked for by this name
                    break
        problems = _idle([old for old, count in fits.items() if not count], len(fits), tensors)
        problems += [f"rename: nothing is left of the name {name}" for name, new in new_names.items() if not new]
        clashes, losers = _collisions({name: new or name for name, new in new_names.items()})
        problems += clashes
        # Those that would collide keep their names here, so that the operations after this one are checked too.
        kept = {name: name if name in losers or not new else new for name, new in new_names.items()}
        specs = tensors.specs()
        rows = tuple(
            EditRow(new, "rename", name, specs[name], specs[name]) for name, new in kept.items() if new != name
        )
        keys = {kept[name]: key for name, key in tensors.stored_names.items()}
        made = Tensors(((kept[name], tensor) for name, tensor in tensors.items()), keys)
        return Edit(made, rows, tuple(problems))


def _check_rule(old: str, new: str) -> None:
    if not old.startswith("re:"):
        if old.strip("/") == new.strip("/"):
            raise RecipeError(f"rename rule {old}={new} changes nothing")
        return
    try:
        # sub() parses NEW even where nothing matches: a wrong back-reference is found before a file is opened.
        re.compile(old[3:]).sub(new, "")
    except (re.error, IndexError) as error:
        raise RecipeError(f"rename rule {old}={new}: {error}") from None


def _idle(unused: list[str], number: int, tensors: Tensors) -> list[str]:
    """A sentence for each rule that fits nothing; one for a long list, as of another net, where none does."""
    if len(unused) == number > _FEW:
        return [
            f"rename: none of the {number} rules ({', '.join(unused[:3])}, ...) matches a tensor of this checkpoint"
        ]
    return [_fits_nothing(old, tensors) for old in unused]


def _fits_nothing(old: str, tensors: Tensors) -> str:
    if any(RenameRule(old, "")(name) is not None for name in tensors):
        return f"rename: an earlier rule takes every name that {old} matches; put the more specific rule first"
    what = "no name" if old.startswith("re:") else "no tensor and no scope"
    return f"rename: {old} matches {what}{did_you_mean(old, list(tensors))}"


def _collisions(new_names: dict[str, str]) -> tuple[list[str], set[str]]:
    """A sentence for each name that more than one tensor would get, and the old names of those that move."""
    if len(set(new_names.values())) == len(new_names):
        return [], set()
    takers: dict[str, list[str]] = {}
    for name, new in new_names.items():
        takers.setdefault(new, []).append(name)
    clashes = {new: names for new, names in takers.items() if len(names) > 1}
    losers = {name for names in clashes.values() for name in names}
    # A tensor that goes back to its old name may stand in the way of another that was to take it.
    while back := {name for name, new in new_names.items() if name not in losers and new in losers}:
        losers |= back
    sentences = []
    for new, names in clashes.items():
        more = [f"{len(names) - _FEW:,} more"] if len(names) > _FEW else []
        listed = " and ".join(names[:_FEW] + more)
        sentences.append(f"rename: {listed} would {'both' if len(names) == 2 else 'all'} be {new}")
    return sentences, losers


@dataclass(frozen=True)
class Keep(Operation):
    """Keeps the tensors that the scope patterns select and leaves the others out."""

    select: tuple[str, ...]
    command: ClassVar[str] = "keep"
    short: ClassVar[str] = "select"

    def edit(self, tensors: Tensors) -> Edit:
        names, problems = chosen(tensors, self.select, self.command)
        # The object graph stays with the tensors that it names.
        return Edit(tensors, problems=problems) if problems else _without(tensors, {*tensors} - {*names, GRAPH_KEY})


@dataclass(frozen=True)
class Drop(Operation):
    """Leaves out the tensors that the scope patterns select."""

    select: tuple[str, ...]
    command: ClassVar[str] = "drop"
    short: ClassVar[str] = "select"

    def edit(self, tensors: Tensors) -> Edit:
        names, problems = chosen(tensors, self.select, self.command)
        return _without(tensors, set(names), problems=problems)


# What a user calls it -> the kind that kinds.kinds gives it.
STRIPPED = {"optimizer": "slot", "ema": "average", "step": "step"}


@dataclass(frozen=True)
class Strip(Operation):
    """Leaves out what only training needs: optimizer slots, moving averages of weights, the global step.

    They are recognised by what they belong to (`kinds.kinds`), not by a list of endings alone; the moving mean
    and variance of batch norm are weights of the net and stay. Nothing to strip is not an error.
    """

    what: tuple[str, ...] = ("optimizer", "ema", "step")
    command: ClassVar[str] = "strip"
    short: ClassVar[str] = "what"

    def __post_init__(self) -> None:
        for word in self.what:
            if word not in STRIPPED:
                known = ", ".join(STRIPPED)
                raise RecipeError(f"strip knows {known}, not {word!r}{nearest(word, STRIPPED)}")

    def edit(self, tensors: Tensors) -> Edit:
        unwanted = {STRIPPED[word] for word in self.what}
        found = kinds_of(tensors)
        details = {name: _belongs(kind) for name, kind in found.items() if kind.kind in unwanted}
        return _without(tensors, set(details), action="strip", details=details)


def _belongs(kind: Kind) -> str:
    return f"{kind.kind} of {kind.of}" if kind.of else kind.kind


@dataclass(frozen=True)
class EmaToWeights(Operation):
    """The moving averages become the weights, and the averages go: what slim's evaluation restores.

    A variable without an average keeps its own values. A checkpoint without averages is an error.
    """

    command: ClassVar[str] = "ema_to_weights"

    def edit(self, tensors: Tensors) -> Edit:
        found = kinds_of(tensors)
        averages: dict[str, str] = {}
        for name, kind in found.items():
            # What accompanies a zero-debiased average (X/biased, X/local_step) has the longer name.
            if kind.kind == "average" and kind.of and len(name) < len(averages.get(kind.of, name + " ")):
                averages[kind.of] = name
        if not averages:
            return Edit(tensors, problems=("ema_to_weights: there are no moving averages of weights",))
        problems = tuple(
            f"ema_to_weights: {name} is {tensors[name].spec}, but {of} is {tensors[of].spec}"
            for of, name in averages.items()
            if of in tensors and tensors[name].spec != tensors[of].spec
        )
        if problems:
            return Edit(tensors, problems=problems)
        taken = {name: of for of, name in averages.items()}
        # Each average takes the place of its weight, so that the order of the variables stays.
        kept = {}
        for name, tensor in tensors.items():
            if found[name].kind == "average":
                if taken.get(name) and taken[name] not in tensors:
                    kept[taken[name]] = tensor
            else:
                kept[name] = tensors[averages[name]] if name in averages else tensor
        rows = [
            EditRow(of, "ema_to_weights", name, tensors[of].spec if of in tensors else None, tensors[name].spec)
            for of, name in averages.items()
        ]
        rows += [
            EditRow(name, "drop", name, tensors[name].spec, None, _belongs(kind))
            for name, kind in found.items()
            if kind.kind == "average" and name not in taken
        ]
        return Edit(Tensors(kept, _keys(tensors, kept)), tuple(rows))


def _without(
    tensors: Tensors,
    unwanted: set[str],
    *,
    action: str = "drop",
    details: dict[str, str] | None = None,
    problems: tuple[str, ...] = (),
) -> Edit:
    specs = tensors.specs()  # asked for once: a tensor of a file is made anew for every look
    rows = tuple(
        EditRow(name, action, name, spec, None, (details or {}).get(name, ""))
        for name, spec in specs.items()
        if name in unwanted
    )
    kept = {name: tensors[name] for name in specs if name not in unwanted}
    return Edit(Tensors(kept, _keys(tensors, kept)), rows, problems)


def _keys(tensors: Tensors, kept: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: key for name, key in tensors.stored_names.items() if name in kept}
