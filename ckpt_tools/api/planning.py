"""`make_plan`: what `ckpt-plan` prints, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cli.plan import requested
from ..formats import Checkpoint, open_checkpoint
from ..plan import Plan, PlanRules, Variable
from ..plan import make_plan as plan_of_variables
from ..tensors import Spec
from ..train.options.configuration import convert
from ..train.options.training import Options
from ..train.plan.request import DECIDING, plans_of
from .options import options_from, takes

if TYPE_CHECKING:
    from ..train.data.examples import DataSet

OTHERS = frozenset(Options.__dataclass_fields__) - set(DECIDING)


@takes(Options, leave_out=OTHERS | {"data"})
def make_plan(
    checkpoint: str | os.PathLike[str] | Checkpoint | Mapping[str, Spec],
    variables: Sequence[Variable] | None = None,
    *,
    num_classes: int | None = None,
    data: str | os.PathLike[str] | DataSet = "",
    **options: Any,
) -> Plan:
    """The plan that `ckpt-plan` and `ckpt-finetune` make of the same options: what each variable of a net gets from a
    checkpoint, and why. Nothing is read but headers, and neither numpy nor TensorFlow is needed.

        plan = make_plan("inception_v3.ckpt", num_classes=5, exclude="Logits", trainable="Logits")
        plan.summary["restored"], plan.conflicts, plan.checked()

    `checkpoint` is a path or what `open_checkpoint` returned. The classes are those of `data` or `labels`,
    `num_classes`, or the checkpoint's own. With `unfreeze` it is the plan of the first phase, or of the first one with
    conflicts.

    Given `variables`, the net is these variables and `checkpoint` their source's specs: the options are the fields of
    `ckpt_tools.plan.PlanRules`.

    What does not fit does not raise: `plan.conflicts` lists it, and `plan.checked()` raises PlanError.
    """
    source = open_checkpoint(checkpoint) if isinstance(checkpoint, str | os.PathLike) else checkpoint
    if variables is not None:
        specs = source.tensors.specs() if isinstance(source, Checkpoint) else source
        return plan_of_variables(specs, variables, PlanRules(**options))
    if not isinstance(source, Checkpoint):
        raise TypeError("make_plan: specs go with variables; a net needs a path, or what open_checkpoint returned")
    labels: tuple[str, ...] = ()
    if not isinstance(data, str | os.PathLike):
        labels, data = data.labels, ""
    num_classes = convert("--num-classes", num_classes, int | None)
    made = options_from(Options, {"data": data, **options}, "make_plan")
    asked = requested(replace(made, checkpoint=source.path), source, num_classes or len(labels) or None)
    plans = plans_of(asked.options, asked.source.tensors.specs(), asked.net, asked.classes, asked.origin)
    return next((plan for plan in plans if plan.conflicts), plans[0])
