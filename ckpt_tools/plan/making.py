"""Makes the plan: for every variable of a net and every tensor of a source, what will happen to it and why.

>>> from ckpt_tools import Spec
>>> net = [Variable("net/conv/weights", Spec("float32", (3, 3, 3, 8))),
...        Variable("net/logits/weights", Spec("float32", (8, 5)), role="head", class_axis=1)]
>>> source = {"net/conv/weights": Spec("float32", (3, 3, 3, 8)), "net/logits/weights": Spec("float32", (8, 10))}
>>> for row in make_plan(source, net, PlanRules(exclude=["logits"])).rows:
...     print(row.name, row.action, row.rule, sep=", ")
net/conv/weights, restore, same name
net/logits/weights, init, --exclude logits
net/logits/weights, unused, --exclude logits
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..adaptation import Adaptation, channels, classes
from ..folding import Folding
from ..kinds import Kind, kinds
from ..names import Patterns, parse_patterns
from ..renames import RenameRule, parse_renames, rename
from ..report import count
from ..tensors import Spec
from . import batch_norm as norms
from .conflicts import Misfit, explain
from .idle import idle_class_map, idle_patterns, idle_renames, idle_trainable
from .ignored import Ignored, SourceLayers, explain_ignored
from .missing import covering
from .origin import Origin
from .rows import AUXILIARY, PART, RESTORING, Plan, Row, Variable
from .rules import PlanRules


class _Parsed(NamedTuple):
    """The rules as one variable after the other needs them."""

    rules: PlanRules
    exclude: Patterns
    changed: Mapping[str, tuple[str, RenameRule]]  # old name -> what --rename makes of it, and which rule


class _Decision(NamedTuple):
    row: Row
    adaptation: Adaptation | Folding | None = None
    misfit: Misfit | None = None


class _Case(NamedTuple):
    """One variable, and the tensor `old` that it could take, with its spec; None without one."""

    variable: Variable
    trained: bool
    old: str | None
    spec: Spec | None

    def decided(self, action: str, rule: str, reason: str, adaptation: Adaptation | None = None) -> _Decision:
        taken = action in RESTORING or action == "conflict"
        shape = self.spec.shape if self.spec else None
        name, spec = self.variable.name, self.variable.spec
        row = Row(name, action, self.old if taken else None, shape, spec.shape, spec.dtype, self.trained, rule, reason)
        return _Decision(row, adaptation)

    def misfit(self, kind: str, reason: str, rule: str = "") -> _Decision:
        return self.decided("conflict", rule, reason)._replace(misfit=Misfit(kind, self.variable.name))


def make_plan(source: Mapping[str, Spec], variables: Sequence[Variable], rules: PlanRules | None = None) -> Plan:
    """What restoring `source` into a net with these `variables` does, by rules that the user gave.

    What does not fit does not raise: `conflicts` lists all of it, and `checked()` raises.
    Raises SelectionError and RecipeError for patterns and renames that are malformed.
    """
    rules = rules or PlanRules()
    excluded, wanted = parse_patterns(rules.exclude), parse_patterns(rules.trainable)
    maps = parse_renames(rules.renames)
    can_train = [each.name for each in variables if each.trainable and (rules.aux or each.role != "auxiliary")]
    trained = {name for name in can_train if not rules.trainable or wanted.match(name) is not None}
    net = {each.name: each for each in variables}
    changed = rename(source, maps)
    parsed = _Parsed(rules, excluded, changed)
    takes = _takes(source, net, changed)
    decided = [_decide(each, takes.get(each.name, []), source, parsed, each.name in trained) for each in variables]
    layers = norms.layers(each.name for each in variables if rules.aux or each.role != "auxiliary")
    decided = _without_statistics(decided, layers)
    policies = norms.policies(layers, trained, rules.batch_norm)
    in_layers = SourceLayers(source, changed, {row.name: row for row, _, _ in decided})
    ignored = {each.name: each for each in in_layers.ignored(excluded.match)}
    folds = in_layers.folds({each.placed for each in ignored.values()}) if rules.fold else {}
    folded = {name for each in folds.values() for name in (each.gamma, each.biases) if name}
    decided = [_fold(decision, folds.get(decision.row.name)) for decision in decided]
    ignored = {name: each for name, each in ignored.items() if name not in folded}
    unused = _unused(source, {row.name: row for row, _, _ in decided}, excluded, ignored, folded)
    if rules.carry is not None:
        unused = _carried(unused, decided, rules.carry)
    idle = [
        *idle_patterns("--exclude", excluded, list(dict.fromkeys([*net, *source])), "names of the net and the source"),
        *idle_trainable(wanted, can_train, variables, nothing=bool(rules.trainable) and not trained),
        *idle_patterns("--bn", parse_patterns(list(rules.batch_norm)), list(layers), "batch-norm layers"),
        *idle_renames(maps, changed, source, net),
    ]
    misfits = [misfit for _, _, misfit in decided if misfit]
    mapped = any(adaptation and adaptation.kind == "classes" for _, adaptation, _ in decided)
    if rules.class_map and not mapped and not any(misfit.kind in ("class map", "missing") for misfit in misfits):
        idle.append(idle_class_map([row for row, _, _ in decided if net[row.name].role == "head"]))
    return Plan(
        rows=_of_file([*(row for row, _, _ in decided), *unused], rules.origin),
        conflicts=(
            *idle,
            *explain(misfits, net, source, [row.name for row in unused], rules.nets),
            *explain_ignored(list(ignored.values()), list(dict.fromkeys([*net, *source]))),
        ),
        adaptations={row.name: adaptation for row, adaptation, _ in decided if adaptation},
        batch_norm=policies,
        notes=(*(rules.origin.notes if rules.origin else ()), *_notes(decided, net, rules.aux)),
    )


def _of_file(rows: Sequence[Row], origin: Origin | None) -> tuple[Row, ...]:
    return (*map(origin.row, rows), *origin.unused()) if origin else tuple(rows)


def _takes(
    source: Mapping[str, Spec], names: Iterable[str], changed: Mapping[str, tuple[str, RenameRule]]
) -> dict[str, list[tuple[str, RenameRule | None]]]:
    """Variable -> the tensors it could take and their renames; a renamed tensor wins over one of the same name."""
    takes: dict[str, list[tuple[str, RenameRule | None]]] = {}
    for old, (name, rule) in changed.items():
        takes.setdefault(name, []).append((old, rule))
    for name in names:
        if name not in takes and name in source and name not in changed:
            takes[name] = [(name, None)]
    return takes


def _decide(
    variable: Variable,
    found: Sequence[tuple[str, RenameRule | None]],
    source: Mapping[str, Spec],
    parsed: _Parsed,
    trained: bool,
) -> _Decision:
    """What happens to one variable, by the first rule that covers it."""
    old, renamed = found[0] if found else (None, None)
    spec = source[old] if old is not None else None
    case = _Case(variable, trained, old, spec)
    pattern = parsed.exclude.match(variable.name) or (parsed.exclude.match(old) if old else None)
    if pattern is not None:
        return case.decided("init", f"--exclude {pattern}", "excluded: initialised afresh")
    if len(found) > 1:
        return case.misfit("two sources", f"both {' and '.join(name for name, _ in found)} are mapped to it")
    idle_aux = variable.role == "auxiliary" and not parsed.rules.aux
    if variable.name in parsed.rules.new and (spec is None or spec.shape != variable.spec.shape):
        return case.decided("init", parsed.rules.new[variable.name], "new in this net: initialised")
    if spec is None:
        if idle_aux:
            return case.decided("init", AUXILIARY, f"not in the checkpoint; {_WHY_AUXILIARY}")
        if variable.name in parsed.changed:
            name, rule = parsed.changed[variable.name]
            return case.misfit("renamed", f"--rename {rule} makes {name} of it", f"--rename {rule}")
        return case.misfit("missing", "not in the checkpoint")
    mapped = parsed.rules.class_map is not None and variable.class_axis is not None and not idle_aux
    reshaped = None
    if spec.shape != variable.spec.shape or mapped:
        reshaped = _reshape(case, spec.shape, parsed, idle_aux)
        if reshaped.row.action not in RESTORING:  # said even where --cast is missing, too
            return reshaped
    text = "string" in (spec.dtype, variable.spec.dtype)
    if spec.dtype != variable.spec.dtype and (text or not parsed.rules.cast):
        return case.misfit("string" if text else "dtype", f"net {variable.spec.dtype}, checkpoint {spec.dtype}")
    if reshaped:
        return reshaped
    if spec.dtype != variable.spec.dtype:
        return case.decided("cast", "--cast", f"{spec.dtype} converted to {variable.spec.dtype}")
    if renamed is not None:
        return case.decided("rename", f"--rename {renamed}", f"is {old} in the checkpoint")
    return case.decided("restore", "same name", "same name, type and shape")


_WHY_AUXILIARY = "not part of the trained graph, written so that stock slim code loads the file"


def _reshape(case: _Case, theirs: tuple[int, ...], parsed: _Parsed, idle_aux: bool) -> _Decision:
    """A variable whose shape in the checkpoint is another one, `theirs`, or whose classes are mapped."""
    variable = case.variable
    ours = variable.spec.shape
    sizes = f"net {list(ours)}, checkpoint {list(theirs)}"
    not_covered = f"; not covered by --exclude {parsed.exclude}" if len(parsed.exclude) else ""
    axis = variable.class_axis
    if axis is not None and idle_aux:
        return case.decided("init", AUXILIARY, f"{sizes}; {_WHY_AUXILIARY} with {ours[axis]} classes")
    if axis is not None and _differ_on(axis, ours, theirs):
        if parsed.rules.class_map is None:
            return case.misfit("classes", f"{sizes}, class axis{not_covered}")
        return _map_classes(case, axis, theirs[axis], parsed.rules.class_map)
    if len(ours) == len(theirs) == 4 and _differ_on(2, ours, theirs) and variable.role == "backbone":
        if variable.name.endswith(("/depthwise_weights", "/pointwise_weights")):
            # Each input channel has outputs of its own, which the pointwise convolution weighs one by one.
            return case.misfit("separable", f"{sizes}, a separable convolution{not_covered}")
        if parsed.rules.adapt_input:
            old, new = theirs[2], ours[2]
            how = f"{count(old, 'input channel')} " + ("summed" if new == 1 else f"repeated to {new} and scaled")
            return case.decided("adapt", "--adapt-input", how, channels(2, old, new))
        return case.misfit("channels", f"{sizes}, input channels{not_covered}")
    return case.misfit("shape", f"{sizes}{not_covered}")


def _map_classes(case: _Case, axis: int, old: int, class_map: Sequence[int | None]) -> _Decision:
    """The head's variable whose `old` classes lie along `axis` in the checkpoint."""
    new = case.variable.spec.shape[axis]
    if len(class_map) != new:
        return case.misfit("class map", f"--class-map has {len(class_map)} classes, the net {new}")
    beyond = [taken for taken in class_map if taken is not None and taken >= old]
    if beyond:
        return case.misfit("class map", f"--class-map takes class {beyond[0]}, the checkpoint has 0 to {old - 1}")
    kept = sum(taken is not None for taken in class_map)
    reason = f"{kept} of {new} classes taken from the checkpoint's {old}" + (", the others initialised" * (kept < new))
    return case.decided("adapt", "--class-map", reason, classes(axis, class_map))


def _differ_on(axis: int, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether the shapes are equal but for the size of this axis."""
    return len(ours) == len(theirs) and all(
        a == b for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if i != axis
    )


def _without_statistics(decided: Sequence[_Decision], layers: Mapping[str, norms.BatchNormLayer]) -> list[_Decision]:
    """The decisions, with a conflict for each statistic that is not restored although its batch norm is."""
    restored = {row.name for row, _, _ in decided if row.action in RESTORING}
    lost = {name for names in norms.without_statistics(layers, restored).values() for name in names}
    made = []
    for decision in decided:
        row = decision.row
        missing = decision.misfit is not None and decision.misfit.kind == "missing"
        if row.name in lost and (row.action == "init" or missing):
            why = f"{row.rule or row.reason}, but the weights of this batch norm are restored"
            row = row._replace(action="conflict", reason=why)
            decision = _Decision(row, misfit=Misfit("statistics", row.name))
        made.append(decision)
    return made


def _fold(decision: _Decision, fold: Folding | None) -> _Decision:
    """The decision, with what is folded into the variable before anything else happens to it."""
    row, before = decision.row, decision.adaptation
    if fold is None or isinstance(before, Folding):
        return decision
    reason = f"{fold}; {row.reason}" if before else str(fold)
    row = row._replace(action="adapt", rule=f"--fold, {row.rule}" if before else "--fold", reason=reason)
    return _Decision(row, fold._replace(then=before))


def _unused(
    source: Mapping[str, Spec],
    decided: Mapping[str, Row],
    excluded: Patterns,
    ignored: Mapping[str, Ignored],
    folded: Collection[str],
) -> list[Row]:
    """A row for each tensor of the source that no variable takes as it is."""
    rows = []
    used = {row.source for row in decided.values() if row.source}
    kind_of = kinds(source)
    for name, spec in source.items():
        if name in used:
            continue
        pattern = excluded.match(name)
        rule, reason = "no such variable", _what(kind_of[name])
        if pattern is not None:
            rule, reason = f"--exclude {pattern}", "excluded"
        elif name in folded:
            rule, reason = "--fold", "folded into the variables of its layer"
        elif name in ignored:
            rule, reason = PART, ignored[name].reason
        elif name in decided:
            rule, reason = decided[name].rule, "the variable does not take it"
        rows.append(Row(name, "unused", name, spec.shape, None, spec.dtype, False, rule, reason))
    return rows


def _carried(unused: Sequence[Row], decided: Sequence[_Decision], stays: Collection[str]) -> list[Row]:
    """The rows of tensors that no variable takes, with "carry" where they can go along: not slots and averages of what
    begins afresh or is trained, nor the step under the name that the run gives its own."""
    taken = {row.name for row, _, _ in decided}
    changing = {row.name for row, _, _ in decided if row.trainable or row.action == "init"}
    kind_of = kinds(
        {row.name: Spec(row.dtype, row.source_shape) for row, _, _ in decided if row.source_shape}
        | {row.name: row.spec for row in unused}
    )
    made = []
    for row in unused:
        kind = kind_of[row.name]
        if row.name in taken or row.name in stays or row.name == "global_step" or kind.of in changing:
            made.append(row)
        else:
            made.append(row._replace(action="carry", target_shape=row.source_shape, rule="as it is"))
    return made


def _what(kind: Kind) -> str:
    of = f" of {kind.of}" if kind.of else ""
    words = {"slot": f"optimizer slot{of}", "average": f"moving average{of}", "step": "training step"}
    return words.get(kind.kind, "no variable of the net takes it")


def _notes(decided: Sequence[_Decision], net: Mapping[str, Variable], aux: bool) -> tuple[str, ...]:
    """What is no conflict but worth a sentence."""
    random = [
        row.name
        for row, _, _ in decided
        if row.action == "init" and not row.trainable and net[row.name].trainable
        and (aux or net[row.name].role != "auxiliary")
    ]  # fmt: skip
    notes = []
    if random:
        kept = [row.name for row, _, _ in decided if row.action != "init" or row.trainable]
        what = f"{count(len(random), 'variable')} {'is' if len(random) == 1 else 'are'}"
        notes.append(f"{what} initialised afresh but never trained: {', '.join(covering(random, kept))}")
    if any(misfit and misfit.kind in ("classes", "shape") for _, _, misfit in decided):
        notes.append("TensorFlow 2's Saver.restore takes a wrong shape without an error (tensorflow#52220)")
    return tuple(notes)
