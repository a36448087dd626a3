"""`ckpt-plan --suggest`: the exclude and trainable lists and the renames that make a plan work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..folding import Folding
from ..renames import parse_renames
from ..tensors import Spec
from .conflicts import STATISTICS, layers_of
from .ignored import LAYERS_DIFFER, RENORM, RENORM_PATTERN
from .making import make_plan
from .missing import Evidence, covering, explain_missing
from .rows import RESTORING, Plan, Variable
from .rules import PlanRules


class Suggestion(NamedTuple):
    """What to give `--exclude`, `--trainable`, `--rename` and `--fold`, and the plan that it makes (conflicts left, if
    any)."""

    exclude: tuple[str, ...]
    trainable: tuple[str, ...]
    renames: tuple[str, ...]  # OLD=NEW
    fold: bool
    plan: Plan

    def to_config(self) -> dict[str, list[str] | bool]:
        """Keys and values for a `--config` file of the training commands; what is empty is left out."""
        lists = {"exclude": self.exclude, "trainable": self.trainable, "rename": self.renames}
        return {key: list(values) for key, values in lists.items() if values} | ({"fold": True} if self.fold else {})


def suggest(source: Mapping[str, Spec], variables: Sequence[Variable], rules: PlanRules | None = None) -> Suggestion:
    """Looks for the renames first, then for what is left without a source or has another shape.

    The head is what is proposed to be trained, with everything else that is initialised afresh. `rules` are those
    that are not proposed, such as `cast`.

    >>> net = [Variable("net/conv/weights", Spec("float32", (3, 3, 3, 8))),
    ...        Variable("net/logits/weights", Spec("float32", (8, 5)), role="head", class_axis=1)]
    >>> old = {"m/net/conv/weights": Spec("float32", (3, 3, 3, 8)), "m/net/logits/weights": Spec("float32", (8, 10))}
    >>> suggest(old, net).to_config()
    {'exclude': ['net/logits'], 'trainable': ['net/logits'], 'rename': ['m/net=net']}
    """
    rules = rules or PlanRules()
    net = {each.name: each for each in variables}
    first = make_plan(source, variables, rules)
    lost = {name for conflict in first.conflicts if conflict.cause == STATISTICS for name in conflict.names}
    missing = [row.name for row in first.rows if row.action == "conflict" and row.source is None]
    missing = [name for name in missing if name not in lost]
    unused = [row.name for row in first.rows if row.action == "unused"]
    causes = explain_missing(missing, Evidence(net, source, unused, rules.nets))
    renames: dict[str, str] = {}
    for cause in causes:
        renames |= cause.renames
    exclude = list(dict.fromkeys(pattern for cause in causes for pattern in cause.exclude))
    tried = replace(rules, renames=renames, exclude=exclude, fold=True)
    plan = make_plan(source, variables, tried)
    fold = rules.fold or any(isinstance(each, Folding) for each in plan.adaptations.values())
    exclude += [RENORM_PATTERN for conflict in plan.conflicts if conflict.cause == RENORM]
    reasons = ("other number of classes", "other shape", "no source")
    unfit = [name for conflict in plan.conflicts if conflict.cause in reasons for name in conflict.names]
    differ = (STATISTICS, *LAYERS_DIFFER)
    unlike = [name for conflict in plan.conflicts if conflict.cause in differ for name in conflict.names]
    layers = layers_of(unlike, net)
    unfit += layers if 2 * len(layers) <= len(net) else []  # else it is a file that nothing should be taken from
    exclude = [*exclude, *(scope for scope in covering(unfit, net) if scope not in exclude)]
    proposed = replace(tried, exclude=exclude, fold=fold)  # folding only where there is something to fold
    trainable = _to_train(make_plan(source, variables, proposed), net)
    plan = make_plan(source, variables, replace(proposed, trainable=trainable))
    texts = tuple(f"{old}={new}" for old, new in renames.items())
    parse_renames(texts)  # what is proposed can be typed
    return Suggestion(tuple(exclude), tuple(trainable), texts, fold, plan)


def _to_train(plan: Plan, net: Mapping[str, Variable]) -> list[str]:
    """The scopes of the head and of all else that starts afresh; not a scale of 1 whose batch norm is restored."""
    restored = {row.name for row in plan.rows if row.action in RESTORING}
    chosen = [
        row.name
        for row in plan.rows
        if row.trainable
        and (net[row.name].role == "head" or row.action == "init")
        and not (row.name.endswith("/gamma") and row.name.removesuffix("gamma") + "beta" in restored)
    ]
    return covering(chosen, [name for name, variable in net.items() if variable.trainable])
