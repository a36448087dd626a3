"""A plan for people: the counts, what happens to each scope, and what is in the way."""

from __future__ import annotations

from collections.abc import Sequence

from .. import html
from ..report import count
from . import batch_norm
from .rows import FOLDED_IN, Plan, Row

_GROUP_DEPTH = 2  # components of the scopes that rows are collected in: InceptionV3/Mixed_5b


def count_lines(plan: Plan) -> str:
    """The counts that are printed before anything else, one fact a line.

    >>> print(count_lines(Plan((Row("a/w", "restore", "a/w", (2, 3), (2, 3), "float32", True, "same name", ""),))))
    restored     1 of 1 variable
    trainable    1 variable, 6 of 6 parameters (100 %)
    """
    counts = plan.summary
    facts = [("restored", f"{counts['restored']:,} of {count(counts['variables'], 'variable')}")]
    if counts["initialised"]:
        facts.append(("initialised", count(counts["initialised"], "variable")))
    if counts.get("carried"):
        facts.append(("carried", f"{count(counts['carried'], 'tensor')} along as they are"))
    if counts["unused"]:
        facts.append(("unused", f"{count(counts['unused'], 'tensor')} of the checkpoint"))
    share = counts["trainable_parameters"] / max(counts["parameters"], 1)
    parameters = f"{counts['trainable_parameters']:,} of {counts['parameters']:,} parameters ({100 * share:.3g} %)"
    facts.append(("trainable", f"{count(counts['trainable_variables'], 'variable')}, {parameters}"))
    if plan.batch_norm:
        facts.append(("batch norm", batch_norm.summary(plan.batch_norm)))
    facts += [("note", note) for note in plan.notes]
    return "\n".join(f"{word:<13}{fact}" for word, fact in facts)


def as_html(plan: Plan) -> str:
    """The same for notebooks."""
    pairs = [(line[:13].strip(), line[13:]) for line in count_lines(plan).splitlines()]
    rows = scope_rows(plan)
    conflicts = html.preformatted(plan.conflict_text()) if plan.conflicts else ""
    parts = [html.facts([*pairs, ("plan", plan.digest)]), html.table(rows, list(rows[0])) if rows else "", conflicts]
    return "".join(parts)


def scope_rows(plan: Plan) -> list[dict[str, object]]:
    """One row for all variables of a scope that are treated alike; conflicts are left to `Plan.conflict_text`."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in plan.rows:
        if row.action != "conflict":
            scope = "" if row.rule == FOLDED_IN else "/".join(row.name.split("/")[:-1][:_GROUP_DEPTH])
            own = row.action in ("adapt", "cast") and not row.rule.startswith("--fold")  # which names each one's gamma
            why = row.reason if own else row.rule
            groups.setdefault((scope, row.action, why), []).append(row)
    return [
        {
            "scope": f"{rows[0].name}, ..." if why == FOLDED_IN and rows[1:] else _common([row.name for row in rows]),
            "count": len(rows),
            "action": action,
            "trainable": sum(row.trainable for row in rows),
            "why": why,
        }
        for (_, action, why), rows in groups.items()
    ]


def variable_rows(plan: Plan) -> list[dict[str, object]]:
    """One row for each row of the plan."""
    return [
        {
            "name": row.name,
            "action": row.action,
            "source": row.source if row.source != row.name else "",
            "source shape": row.source_shape,
            "shape": row.target_shape,
            "trainable": "yes" if row.trainable else "",
            "why": row.reason if row.action in ("adapt", "cast", "conflict") else row.rule,
        }
        for row in plan.rows
    ]


def _common(names: Sequence[str]) -> str:
    """The innermost scope around all names; a single name is itself.

    >>> _common(["net/a/weights", "net/a/b/biases"])
    'net/a'
    """
    if len(names) == 1:
        return names[0]
    together = []
    for parts in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        together.append(parts[0])
    return "/".join(together) or "(root)"
