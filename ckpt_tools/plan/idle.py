"""Patterns and renames of a plan that select nothing: each is a conflict that names the nearest real scopes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from shlex import quote

from ..names import Patterns, did_you_mean
from ..renames import RenameRule
from .rows import Conflict, Row, Variable

CAUSE = "a pattern selects nothing"


def idle_patterns(option: str, patterns: Patterns, names: Sequence[str], of: str) -> list[Conflict]:
    """A conflict for each pattern of an option that selects none of `names`, which are `of` that kind."""
    return [
        Conflict(CAUSE, (each.text,), _sentence(option, each.text, names, of))
        for each in patterns
        if not any(map(each.matches, names))
    ]


def idle_trainable(
    patterns: Patterns, can_train: Sequence[str], variables: Iterable[Variable], nothing: bool
) -> list[Conflict]:
    """As `idle_patterns`, of the variables that can be trained; says when a pattern selects only others.

    `nothing`: the patterns together select none, as an empty text or `A,!A` do.
    """
    trains = set(can_train)
    others = [each for each in variables if each.name not in trains]
    conflicts = []
    for conflict in idle_patterns("--trainable", patterns, can_train, "trainable variables"):
        pattern = next(each for each in patterns if each.text == conflict.names[0])
        hit = [each for each in others if pattern.matches(each.name)]
        if hit:
            auxiliary = any(each.role == "auxiliary" and each.trainable for each in hit)
            why = "the auxiliary head, which --aux trains" if auxiliary else "variables that no optimizer changes"
            advice = f"--trainable {pattern.text} selects only {why} (such as {hit[0].name})."
            conflict = conflict._replace(advice=advice)
        conflicts.append(conflict)
    if nothing and not conflicts:
        advice = f"--trainable {quote(str(patterns))} leaves nothing of {len(can_train):,} trainable variables."
        conflicts.append(Conflict(CAUSE, (str(patterns),), advice))
    return conflicts


def idle_renames(
    rules: Sequence[RenameRule],
    changed: Mapping[str, tuple[str, RenameRule]],
    source: Collection[str],
    net: Collection[str],
) -> list[Conflict]:
    """A conflict for each rename that fits no tensor of the source, or that makes no name of the net."""
    conflicts = []
    for rule in rules:
        made = [new for new, by in changed.values() if by == rule]
        if not made and not any(rule(name) == name for name in source):
            advice = _sentence(f"--rename {rule}:", rule.old, list(source), "tensors of the source")
            conflicts.append(Conflict(CAUSE, (rule.old,), advice))
        elif made and not any(name in net for name in made):
            hint = did_you_mean(rule.new if not rule.old.startswith("re:") else made[0], list(net)) or "."
            advice = f"--rename {rule} makes {made[0]}, which is not a variable of the net{hint}"
            conflicts.append(Conflict(CAUSE, (rule.old,), advice))
    return conflicts


def idle_class_map(head: Sequence[Row]) -> Conflict:
    """The conflict of a class map that applies to no variable of the head."""
    rules = list(dict.fromkeys(row.rule for row in head if row.action == "init"))
    why = f": {' and '.join(rules)} initialises the head afresh" if rules else ": the net has no head"
    advice = f"--class-map (or --labels-of-source) keeps no class{why}. Leave out one or the other."
    return Conflict("the class map is not used", (), advice)


def _sentence(option: str, text: str, names: Sequence[str], of: str) -> str:
    return f"{option} {text} selects nothing of {len(names):,} {of}{did_you_mean(text, names) or '.'}"
