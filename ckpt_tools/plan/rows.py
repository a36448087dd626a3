"""What a restore plan consists of: variables of a net, rows, conflicts, and the plan that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..adaptation import Adaptation
from ..errors import PlanError
from ..folding import Folding
from ..report import count
from ..tensors import Spec

RESTORING = ("restore", "rename", "relayout", "cast", "adapt")
ACTIONS = (*RESTORING, "init", "carry", "unused", "conflict")
FOLDED_IN = "folded into others"  # rule of an unused tensor of another library's file
AUXILIARY = "auxiliary head"  # rule of what begins afresh in one that is not trained
PART = "part of a layer that is taken"  # rule of an unused tensor that is in a conflict: it must not be ignored


class Variable(NamedTuple):
    """A variable of the net that is restored into.

    `trainable` says that an optimizer could train it (weights, biases, beta, gamma: not batch-norm statistics).
    `role` is "backbone", "head", "auxiliary" (a second classifier, trained with --aux only), "statistic" (moving
    mean or variance of a batch norm) or "slot" (an optimizer's). `class_axis` is the axis, counted from 0, that has
    one entry a class; None for a variable whose shape does not depend on the number of classes.
    """

    name: str
    spec: Spec
    trainable: bool = True
    role: str = "backbone"
    class_axis: int | None = None


class Row(NamedTuple):
    """What happens to one variable of the net, or to one tensor of the source that no variable uses: it is left out
    ("unused"), or goes along as it is ("carry").

    `source` is the tensor's name in the source, None where there is none; `target_shape` is None for `unused`.
    `dtype` is the variable's (for `unused`, the tensor's). `rule` is what decided, as the user would type it, such
    as "--exclude Logits", or "same name"; `reason` is the sentence for people.
    """

    name: str
    action: str
    source: str | None
    source_shape: tuple[int, ...] | None
    target_shape: tuple[int, ...] | None
    dtype: str
    trainable: bool
    rule: str
    reason: str

    @property
    def spec(self) -> Spec:
        """The variable's; of what no variable uses, the tensor's."""
        shape = self.source_shape if self.target_shape is None else self.target_shape
        return Spec(self.dtype, shape or ())


class Conflict(NamedTuple):
    """Why a plan cannot be executed: one cause, everything it concerns, and what to type."""

    cause: str
    names: tuple[str, ...]
    advice: str


@dataclass(frozen=True, repr=False)
class Plan:
    """Rows, conflicts and everything that the trainer needs to execute exactly this plan.

    `adaptations` has an entry for each `adapt` row, by variable name. `batch_norm` says for each batch-norm layer
    (its scope: the name of its statistics without the last component) "train", "frozen", or "stats" (frozen weights,
    statistics updated). `notes` are sentences on what is no conflict but worth knowing.
    """

    rows: tuple[Row, ...]
    conflicts: tuple[Conflict, ...] = ()
    adaptations: Mapping[str, Adaptation | Folding] = field(default_factory=dict)
    batch_norm: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, int]:
        """Counts: variables restored, initialised, trainable; unused tensors, conflicts; trainable and all values."""
        net = [row for row in self.rows if row.action not in ("carry", "unused")]
        carried = sum(row.action == "carry" for row in self.rows)
        return {
            "variables": len(net),
            "restored": sum(row.action in RESTORING for row in net),
            "initialised": sum(row.action == "init" for row in net),
            **({"carried": carried} if carried else {}),
            "unused": len(self.rows) - len(net) - carried,
            "conflicts": len(self.conflicts),
            "trainable_variables": sum(row.trainable for row in net),
            "trainable_parameters": sum(row.spec.parameters for row in net if row.trainable),
            "parameters": sum(row.spec.parameters for row in net),
        }

    @property
    def digest(self) -> str:
        """Eight hex digits that change with anything the trainer would do differently; wording does not count."""
        facts = [[row._replace(rule="", reason="") for row in self.rows], self.adaptations, self.batch_norm]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]

    def checked(self) -> Plan:
        """The plan itself. Raises PlanError, whose text has every conflict, when it has any."""
        if not self.conflicts:
            return self
        error = PlanError(f"the plan has {self.conflict_text()}")
        error.plan = self
        raise error

    def conflict_text(self, most: int | None = 5) -> str:
        """Every conflict: its cause, the facts of the first `most` variables (None: of all), and what to type."""
        reasons = {row.name: row.reason for row in self.rows if row.action == "conflict"}
        parts = {row.name: row.reason for row in self.rows if row.rule == PART}
        lines = [count(len(self.conflicts), "conflict")]
        for conflict in self.conflicts:
            noun, why = ("tensor", parts) if set(conflict.names) <= parts.keys() else ("variable", reasons)
            concerned = [name for name in conflict.names if name in why]
            counted = f" ({count(len(concerned), noun)})" if concerned else ""
            lines.append(f"{conflict.cause}{counted}")
            lines += [f"  {name}: {why[name]}" for name in concerned[:most]]
            if most is not None and len(concerned) > most:
                lines.append(f"  and {len(concerned) - most} more")
            lines.append(f"  => {conflict.advice}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        counts = {key: number for key, number in self.summary.items() if number or key == "conflicts"}
        return f"<plan {self.digest}: {', '.join(f'{number:,} {key}' for key, number in counts.items())}>"

    def _repr_html_(self) -> str:
        """For notebooks: counts, what happens to each scope, conflicts."""
        from .text import as_html

        return as_html(self)

    def to_json(self) -> dict[str, Any]:
        """What plan.json holds: rows, conflicts and summary as `ckpt-plan --json` prints them, and the rest."""
        return {
            "rows": [row._asdict() for row in self.rows],
            "conflicts": [conflict._asdict() for conflict in self.conflicts],
            "summary": self.summary,
            "adaptations": {name: _as_dict(adaptation) for name, adaptation in self.adaptations.items()},
            "batch_norm": dict(self.batch_norm),
            "notes": list(self.notes),
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` described, also after a round trip through a JSON file."""
        return cls(
            tuple(Row(**{**row, **_tuples(row, "source_shape", "target_shape")}) for row in value["rows"]),
            tuple(Conflict(**{**conflict, **_tuples(conflict, "names")}) for conflict in value["conflicts"]),
            {name: _adaptation(made) for name, made in value["adaptations"].items()},
            dict(value["batch_norm"]),
            tuple(value["notes"]),
        )


def _as_dict(adaptation: Adaptation | Folding) -> dict[str, Any]:
    made = adaptation._asdict()
    return {**made, "then": made["then"] and made["then"]._asdict()} if isinstance(adaptation, Folding) else made


def _adaptation(made: Mapping[str, Any]) -> Adaptation | Folding:
    if made["kind"] != "fold":
        return Adaptation(**{**made, **_tuples(made, "take")})
    return Folding(**{**made, **_tuples(made, "spread"), "then": made["then"] and _adaptation(made["then"])})


def _tuples(value: Mapping[str, Any], *keys: str) -> dict[str, tuple[Any, ...] | None]:
    return {key: None if value[key] is None else tuple(value[key]) for key in keys}
