"""A run in progress: what it has, how it is evaluated, what is saved of it, and the proof of what did not change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow.compat.v1 as tf

from ..errors import TrainingError
from ..formats.output import needed_bytes
from ..tensors import Spec, Tensor, Tensors, from_arrays
from .batches import Pipeline
from .job import Job
from .metrics import mean_average_precision
from .model import Model
from .pipeline import Unreadable
from .restore import changed_tensors, read
from .run_directory import MEAN_AVERAGE_PRECISION, RunDirectory, read_tensors
from .transfer import Cached

Batches = Pipeline | Cached
AVERAGE = "/ExponentialMovingAverage"


@dataclass
class Run:
    """A run in progress: the session, the step that is finished, and what is written where."""

    job: Job
    directory: RunDirectory
    model: Model
    session: tf.Session
    planned: Tensors  # every variable of the net as the plan has it
    frozen: Tensors  # the same values, from wherever they are copied fastest
    step: int = 0
    best: dict | None = None
    better: Tensors | None = None  # the best variables while they are not on disk yet
    gradient_norms: np.ndarray | None = None  # of the last good step, by trained variable
    unreadable: Unreadable = field(default_factory=Unreadable)
    seconds: dict[str, float] = field(default_factory=dict)

    def spent(self, what: str, since: float) -> None:
        """Adds the seconds since `since` to what result.json says of the time."""
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - since

    @property
    def patience_is_over(self) -> bool:
        """Whether --early-stop evaluations have passed since the best one."""
        if self.best is None or self.job.options.early_stop is None:
            return False
        between = self.job.options.eval_steps or self.job.per_epoch
        return self.step - self.best["step"] >= self.job.options.early_stop * between


def evaluate(run: Run, validation: Batches) -> dict[str, float]:
    """Loss and accuracy on the validation images; the variables are remembered when they are the best so far."""
    if not len(run.job.data.validation):
        return {}
    began = time.monotonic()
    parts = list(_until_the_end(run, validation))
    losses, correct, *scored = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = {
        "validation_loss": float(losses.mean(dtype=np.float64)),
        "validation_accuracy": float(correct.mean(dtype=np.float64)),
    }
    if scored:  # images may have several labels
        found[MEAN_AVERAGE_PRECISION] = mean_average_precision(*scored)
    if run.best is None or _score(found) > _score(run.best):
        run.best = {"step": run.step, **found}
        run.better = snapshot(run, slots=False)
    run.spent("evaluation", began)
    return found


def _until_the_end(run: Run, batches: Batches) -> Iterator[list[np.ndarray]]:
    """Loss of each image and whether it was classified rightly, batch by batch; where an image may have several labels,
    these and the logits as well."""
    tower = run.model.inference
    fetched = [tower.losses, tower.correct, *([tower.labels, tower.logits] if run.job.data.many else [])]
    for values in batches.start(run.session):
        feeds = dict(zip(batches.tensors, values, strict=True))
        try:
            # Not a callable: each has the graph prepared anew, a session does it in the first evaluation only.
            yield run.session.run(fetched, feeds)
        except tf.errors.OutOfRangeError:
            return


def _score(found: Mapping[str, float]) -> tuple[float, float]:
    return found.get(MEAN_AVERAGE_PRECISION, found["validation_accuracy"]), -found["validation_loss"]


def figures(found: Mapping[str, float], loss_first: bool = True) -> str:
    """An evaluation in words: what it is judged by, and the loss."""
    if not found:
        return "no validation images"
    if MEAN_AVERAGE_PRECISION in found:
        score = f"mean average precision {found[MEAN_AVERAGE_PRECISION]:.3f}"
    else:
        score = f"accuracy {found['validation_accuracy']:.3f}"
    loss = f"loss {found['validation_loss']:.4f}"
    return f"validation {loss}, {score}" if loss_first else f"{score}, {loss}"


def last_good(run: Run) -> str:
    """What is safe on disk, in words."""
    steps = run.directory.steps()
    return f"the last good checkpoint is {run.directory.prefix(steps[-1])}" if steps else "there is no checkpoint yet"


def snapshot(run: Run, *, slots: bool = True) -> Tensors:
    """All tensors of a checkpoint: what training moves is read from the session, the rest stays where it lies.

    Without `slots` only those remain that an evaluation can use: the net's, the step, moving averages.
    """
    movable = run.job.movable
    step = run.model.step.global_step.op.name
    wanted = {
        name: variable
        for name, variable in run.model.variables.items()
        if name in movable or name == step or (name not in run.planned and (slots or name.endswith(AVERAGE)))
    }
    values = from_arrays(read(run.session, wanted))
    tensors: dict[str, Tensor] = {name: run.frozen[name] for name in run.planned if name not in values}
    return Tensors({**tensors, **values})


def bytes_of_checkpoints(job: Job, variables: Mapping[str, tf.Variable]) -> tuple[int, int]:
    """About how many bytes a checkpoint of these variables takes, and the best one, which has no slots."""
    net = {row.name: Tensor(Spec(row.dtype, row.target_shape), None) for row in job.plan.rows if row.action != "unused"}
    made = {name: Spec(each.dtype.base_dtype.name, tuple(each.shape)) for name, each in variables.items()}
    whole = {**net, **{name: Tensor(spec, None) for name, spec in made.items() if name not in net}}
    best = {name: whole[name] for name in whole if name in net or name.endswith(AVERAGE)}
    return needed_bytes(whole), needed_bytes(best) if len(job.data.validation) else 0


def save(run: Run) -> None:
    """Writes the checkpoint of this step, and the best one when there is a new one."""
    began, job, movable = time.monotonic(), run.job, run.job.movable
    actions = {row.name: "trained" if row.name in movable else row.action for row in job.plan.rows}
    provenance = {"source": job.source, "actions": actions, "plan": job.plan.digest}
    tensors = snapshot(run)
    broken = [name for name in sorted(movable) if not np.isfinite(tensors[name].load()).all()]
    if broken:  # not saved: what is on disk stays the last good one
        fact = f"step {run.step:,} made values of {', '.join(broken[:3])} that are no numbers; {last_good(run)}"
        raise TrainingError(fact, advice="Try a lower --learning-rate or --clip-norm 1.")
    prefix = run.directory.save(run.step, tensors, provenance)
    run.frozen = read_tensors(prefix)  # from here on frozen tensors are copied as bytes
    if run.better is not None:
        moved = {name: tensor for name, tensor in run.better.items() if name in movable or name not in run.planned}
        tensors = {**{name: run.frozen[name] for name in run.better}, **moved}
        run.directory.save_best(Tensors(tensors), provenance, run.best)
        run.better = None
    run.spent("saving", began)


def save_what_is_whole(run: Run) -> str:
    """After a machine was lost: saves the last step if all of it was done. Returns what the run goes on from."""
    begun, done = run.session.run([run.model.step.begun, run.model.step.global_step])
    if begun > done:  # lost in the very moment in which the variables were changed
        saved = run.directory.steps()
        return f"the last checkpoint is that of step {saved[-1]:,}" if saved else "there is no checkpoint yet"
    run.step = int(done)
    save(run)
    return f"everything up to step {run.step:,} is saved"


def freeze_audit(run: Run) -> dict[str, object]:
    """Compares the saved checkpoint with the source, tensor by tensor. Raises TrainingError when a frozen one moved."""
    saved = read_tensors(run.directory.prefix(run.step))
    changed = changed_tensors(run.planned, {name: saved[name] for name in run.planned if name in saved})
    movable = run.job.movable
    wrong = [name for name in changed if name not in movable]
    if wrong:
        raise TrainingError(f"frozen tensors differ from the source: {', '.join(wrong[:5])}", path=run.directory.path)
    same = len(run.planned) - len(changed)
    text = f"freeze audit   {same} of {len(run.planned)} tensors are bit for bit as planned; {len(changed)} changed"
    return {"identical": same, "changed": changed, "movable": sorted(movable), "text": text}
