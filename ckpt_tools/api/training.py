"""`ckpt-finetune` as functions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..events import OnEvent
from ..train.options.training import Options
from .data import given_data
from .notebook import listener
from .options import options_from, takes
from .tensorflow import with_tensorflow

if TYPE_CHECKING:
    from ..train.run.finetune import Result
    from ..train.run.rate_finder import RangeTest
    from ..train.use.costs import Costs

# Options of the command that are functions here.
INSTEAD = {name: f"; ck.{name}() does that" for name in ("dry_run", "find_learning_rate")}


@takes(Options, leave_out=INSTEAD)
def finetune(*, data: Any = "", on_event: OnEvent | None = None, verbose: bool = False, **options: Any) -> Result:
    """Restores a checkpoint by the plan, trains the selected scopes, evaluates, and proves that nothing else changed.

        result = finetune(checkpoint="inception_v3.ckpt", data="photos", train_dir="run",
                          exclude="Logits", trainable="Logits")
        result.best["validation_accuracy"]

    `data`: a path as `--data` takes it, what `data_set` or `features` returned, (images, labels), or a tf.data.Dataset.
    `on_event` is called with typed events (`ckpt_tools.events`); `verbose` prints them as the command does, in a
    notebook below the cell. The same call goes on with a run that was stopped, and with one that is done does nothing.

    Raises PlanError, whose text has every conflict and whose `.plan` shows it; RecipeError naming the option that is
    wrong; DataError, TrainingError and OutputError.
    """
    place, memory = given_data(data)
    made = options_from(Options, {"data": place, **options}, "finetune")
    with with_tensorflow("training"):
        from ..train.run import finetune as run

        return run.finetune(made, listener(on_event, verbose), data=memory)


@takes(Options, leave_out=INSTEAD)
def dry_run(*, data: Any = "", on_event: OnEvent | None = None, verbose: bool = False, **options: Any) -> Costs:
    """What `finetune` with the same options would take: time, memory and disk, from a few batches of each kind.
    Nothing is written."""
    place, memory = given_data(data)
    made = options_from(Options, {"data": place, **options, "dry_run": True}, "dry_run")
    with with_tensorflow("training"):
        from ..train.run import dry_run as run

        return run.dry_run(made, listener(on_event, verbose), memory)


@takes(Options, leave_out=INSTEAD)
def find_learning_rate(
    picture: str | os.PathLike[str], *, data: Any = "", on_event: OnEvent | None = None, verbose: bool = False,
    **options: Any,
) -> RangeTest:  # fmt: skip
    """Tries rising learning rates, draws the loss to `picture`, a PNG file, and returns what was found: `.suggestion`
    is the rate at which the loss falls steepest."""
    place, memory = given_data(data)
    made = options_from(Options, {"data": place, **options, "find_learning_rate": picture}, "find_learning_rate")
    with with_tensorflow("training"):
        from ..train.run import rate_finder as run

        return run.find_learning_rate(made, listener(on_event, verbose), memory)
