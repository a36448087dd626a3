"""The restore plan: for every variable of a net and every tensor of a source, what will happen to it and why.

>>> from ckpt_tools.tensors import Spec
>>> net = [Variable("net/conv/weights", Spec("float32", (3, 3, 3, 8))),
...        Variable("net/logits/weights", Spec("float32", (8, 5)), role="head", class_axis=1)]
>>> source = {"net/conv/weights": Spec("float32", (3, 3, 3, 8)), "net/logits/weights": Spec("float32", (8, 10))}
>>> [(row.name, row.action) for row in make_plan(source, net, exclude=["logits"]).rows]
[('net/conv/weights', 'restore'), ('net/logits/weights', 'init')]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import PlanError
from .tensors import Spec

RESTORING = ("restore", "rename", "cast", "adapt")
ACTIONS = (*RESTORING, "init", "unused", "conflict")


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
    """What happens to one variable of the net, or to one tensor of the source that no variable uses.

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


class Conflict(NamedTuple):
    """Why a plan cannot be executed: one cause, everything it concerns, and what to type."""

    cause: str
    names: tuple[str, ...]
    advice: str


class Adaptation(NamedTuple):
    """How the values of an `adapt` row are made.

    kind "classes": index `i` of `axis` takes index `take[i]` of the source, and is initialised afresh where that
    is None. kind "channels": `axis` is the input channels of a convolution; `take` has the new number of entries,
    each a source channel, and the values are scaled by source channels / new channels, so that the layer's
    response to a grey picture stays what it was; for one new channel the source channels are added up.
    """

    kind: str
    axis: int
    take: tuple[int | None, ...]


@dataclass(frozen=True)
class Plan:
    """Rows, conflicts and all that the trainer needs to execute exactly this.

    `adaptations` has an entry for each `adapt` row, by variable name. `batch_norm` says for each batch-norm layer
    (its scope: the name of its statistics without the last component) "train" or "frozen". `notes` are sentences
    on what is no conflict but worth knowing.
    """

    rows: tuple[Row, ...]
    conflicts: tuple[Conflict, ...] = ()
    adaptations: Mapping[str, Adaptation] = field(default_factory=dict)
    batch_norm: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, int]:
        """Counts: variables restored, initialised, trainable; unused tensors, conflicts; trainable and all values."""
        net = [row for row in self.rows if row.action != "unused"]
        return {
            "variables": len(net),
            "restored": sum(row.action in RESTORING for row in net),
            "initialised": sum(row.action == "init" for row in net),
            "unused": len(self.rows) - len(net),
            "conflicts": len(self.conflicts),
            "trainable_variables": sum(row.trainable for row in net),
            "trainable_parameters": sum(Spec(row.dtype, row.target_shape).parameters for row in net if row.trainable),
            "parameters": sum(Spec(row.dtype, row.target_shape).parameters for row in net),
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
        lines = [f"{conflict.cause}: {', '.join(conflict.names)}. {conflict.advice}" for conflict in self.conflicts]
        error = PlanError("\n".join([f"the plan has {len(lines)} conflict{'s' * (len(lines) > 1)}", *lines]))
        error.plan = self
        raise error

    def to_json(self) -> dict:
        """What plan.json holds: rows, conflicts and summary as `ckpt-plan --json` prints them, and the rest."""
        return {
            "rows": [row._asdict() for row in self.rows],
            "conflicts": [conflict._asdict() for conflict in self.conflicts],
            "summary": self.summary,
            "adaptations": {name: adaptation._asdict() for name, adaptation in self.adaptations.items()},
            "batch_norm": dict(self.batch_norm),
            "notes": list(self.notes),
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, value: Mapping) -> Plan:
        """The plan that `to_json` described, also after a trip through a JSON file."""
        return cls(
            tuple(Row(**{**row, **_tuples(row, "source_shape", "target_shape")}) for row in value["rows"]),
            tuple(Conflict(**{**conflict, **_tuples(conflict, "names")}) for conflict in value["conflicts"]),
            {name: Adaptation(**{**made, **_tuples(made, "take")}) for name, made in value["adaptations"].items()},
            dict(value["batch_norm"]),
            tuple(value["notes"]),
        )


def _tuples(value: Mapping, *keys: str) -> dict:
    return {key: None if value[key] is None else tuple(value[key]) for key in keys}


def make_plan(
    source: Mapping[str, Spec],
    variables: Sequence[Variable],
    *,
    exclude: Sequence[str] = (),
    trainable: Sequence[str] = (),
    renames: Mapping[str, str] | None = None,
    class_map: Sequence[int | None] | None = None,
    cast: bool = False,
    aux: bool = False,
    adapt_input: bool = False,
    batch_norm: Mapping[str, str] | None = None,
    new: Mapping[str, str] | None = None,
) -> Plan:
    """What restoring `source` into a net with these `variables` does.

    exclude: patterns of what is not restored but initialised afresh. trainable: patterns of what the optimizer may
    change; none means every trainable variable. renames: OLD -> NEW, a scope (or an exact name) of the source and
    what the net calls it, or `re:EXPR` with back-references in NEW. class_map: new class i takes the old class
    class_map[i], or is initialised afresh where that is None. cast: other element types are converted. aux: the
    auxiliary head is trained as well. adapt_input: a first convolution with another number of input channels is
    adapted. batch_norm: pattern -> "train" or "frozen", over the default that a batch norm trains where its layer
    does. new: name -> rule, for variables that need no source, as those of a head that was put in the place of
    the net's own.

    Never raises for what does not fit: the plan's `conflicts` list all of it, and `checked()` raises.
    """
    raise NotImplementedError("stage 2")
