"""A run in progress: what it has, how it is evaluated, what is saved of it, and the proof of what did not change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import tensorflow.compat.v1 as tf

from ...dtypes import numpy_dtype
from ...errors import TrainingError
from ...events import OnEvent, Saved, ignore
from ...formats.output import needed_bytes
from ...kinds import AVERAGE
from ...nets.graph import build_net
from ...tensors import Spec, Tensor, Tensors, from_arrays
from ..cache.backbone import Backbone
from ..cache.lookup import Lookup
from ..cache.transfer import Cached, OpenModel
from ..data.pipeline import Unreadable
from ..graph.batches import Pipeline
from ..graph.restore import changed_tensors, read
from ..graph.towers import Model
from ..options.configuration import given
from ..plan.job import Job
from ..use.metrics import mean_average_precision
from ..use.recorded import MEAN_AVERAGE_PRECISION
from .run_directory import RunDirectory, read_tensors

Batches = Pipeline | Cached


@dataclass
class Run:
    """A run in progress: the session, the step that is finished, and what is written where."""

    job: Job
    directory: RunDirectory
    model: Model
    session: tf.Session
    planned: Tensors  # every variable of the net as the plan has it
    frozen: Tensors  # the same values, from wherever they are copied fastest
    backbone: Backbone  # what computes transfer values
    step: int = 0
    best: dict[str, Any] | None = None
    better: Tensors | None = None  # the best variables while they are not on disk yet
    gradient_norms: np.ndarray | None = None  # of the last good step, by trained variable
    unreadable: Unreadable = field(default_factory=Unreadable)
    lookup: Lookup = field(default_factory=Lookup)
    seconds: dict[str, float] = field(default_factory=dict)
    on_event: OnEvent = ignore

    @property
    def open_model(self) -> OpenModel:
        """The part of it that computes transfer values."""
        return OpenModel(self.job, self.model, self.session, self.planned, self.backbone, self.unreadable, self.lookup)

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


def validate(run: Run, validation: Batches) -> dict[str, float]:
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


def last_good(run: Run) -> str:
    """What is safe on disk, in words."""
    steps = run.directory.steps()
    return f"the last good checkpoint is {run.directory.prefix(steps[-1])}" if steps else "there is no checkpoint yet"


def snapshot(run: Run, *, slots: bool = True) -> Tensors:
    """All tensors of a checkpoint: what training moves is read from the session, the rest stays where it lies.

    Without `slots` only those remain that an evaluation can use: the net's, the step, moving averages; and of a net of
    a graph all that the source has, so that its graph loads them.
    """
    others: Mapping[str, Tensor] = run.job.source.tensors if run.job.net.graph else {}
    movable = run.job.movable
    step = run.model.step.global_step.op.name
    wanted = {
        name: variable
        for name, variable in run.model.variables.items()
        if name in movable
        or name == step
        or (name not in run.planned and (slots or name.endswith(AVERAGE) or name in others))
    }
    arrays = read(run.session, wanted)
    if step in others and others[step].spec.shape == ():  # as its Saver wants it
        arrays[step] = np.asarray(arrays[step]).astype(numpy_dtype(others[step].spec.dtype))
    values = from_arrays(arrays)
    tensors: dict[str, Tensor] = {name: run.frozen[name] for name in run.planned if name not in values}
    return Tensors({**tensors, **values})


def with_own_step(saved: Tensors, step: tf.Variable) -> Tensors:
    """The tensors of a run's checkpoint with the step in the type that it has here: it is saved in that of the source,
    which may be int32."""
    name, dtype = step.op.name, step.dtype.base_dtype
    if name not in saved or saved[name].spec.dtype == dtype.name:
        return saved
    found = saved[name]
    own = Tensor(Spec(dtype.name, ()), lambda: found.load().astype(dtype.as_numpy_dtype))
    return Tensors({**saved, name: own})


def _nothing() -> np.ndarray:
    raise NotImplementedError  # a tensor that is only counted


def bytes_of_checkpoints(job: Job, variables: Mapping[str, tf.Variable]) -> tuple[int, int]:
    """About how many bytes a checkpoint of these variables takes, and the best one, which has no slots."""
    net = {row.name: Tensor(row.spec, _nothing) for row in job.plan.rows if row.action != "unused"}
    made = {name: Spec(each.dtype.base_dtype.name, tuple(each.shape)) for name, each in variables.items()}
    whole = {**net, **{name: Tensor(spec, _nothing) for name, spec in made.items() if name not in net}}
    others = job.source.tensors if job.net.graph else ()
    best = {name: whole[name] for name in whole if name in net or name.endswith(AVERAGE) or name in others}
    return needed_bytes(whole), needed_bytes(best) if len(job.data.validation) else 0


def meta_graph(job: Job) -> bytes:
    """The MetaGraph of the net with its new head, with images as a placeholder and a Saver: what TensorFlow 1 code
    imports beside the checkpoint."""
    how = job.pixels
    with tf.Graph().as_default() as graph:
        side, channels = how.image_size, 1 if how.channels == "grey" else 3
        images = tf.placeholder(tf.float32, [None, side, side, channels], name="images")
        built = build_net(job.net, images, num_classes=job.classes, head=job.head)
        (tf.nn.sigmoid if job.data.many else tf.nn.softmax)(built.logits, name="probabilities")
        saver = tf.train.Saver(built.variables)
        return tf.train.export_meta_graph(graph=graph, saver_def=saver.as_saver_def()).SerializeToString()


def save(run: Run) -> None:
    """Writes the checkpoint of this step, and the best one when there is a new one."""
    began, job, movable = time.monotonic(), run.job, run.job.movable
    actions = {row.name: "trained" if row.name in movable else row.action for row in job.plan.rows}
    recipe = given(job.options.repeated())
    provenance = {
        "source": job.source,
        "recipe": recipe,
        "actions": actions,
        "plan": job.plan.digest,
        "net": job.net.name,
    }
    if job.preprocessing:
        provenance["preprocessing"] = job.preprocessing.style
    tensors = snapshot(run)
    broken = [name for name in sorted(movable) if not np.isfinite(tensors[name].load()).all()]
    if broken:  # not saved: what is on disk stays the last good one
        fact = f"step {run.step:,} made values of {', '.join(broken[:3])} that are not finite; {last_good(run)}"
        raise TrainingError(fact, advice="Try a lower --learning-rate or --clip-norm 1.")
    meta = meta_graph(job) if job.net.graph else b""
    prefix = run.directory.save(run.step, tensors, provenance, meta)
    run.frozen = read_tensors(prefix)  # from here on frozen tensors are copied as bytes
    run.on_event(Saved(run.step, prefix))
    if run.better is not None and run.best is not None:
        moved = {name: tensor for name, tensor in run.better.items() if name in movable or name not in run.planned}
        best = Tensors({**{name: run.frozen[name] for name in run.better}, **moved})
        run.directory.save_best(best, provenance, run.best, meta)
        run.better = None
        run.on_event(Saved(run.best["step"], run.directory.best, best=True))
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


class FreezeAudit(TypedDict):
    """How many tensors are as they were planned, and which are not; those that might move."""

    identical: int
    changed: list[str]
    movable: list[str]


def freeze_audit(run: Run) -> FreezeAudit:
    """Compares the saved checkpoint with the source, tensor by tensor. Raises TrainingError when a frozen one moved."""
    saved = read_tensors(run.directory.prefix(run.step))
    changed = changed_tensors(run.planned, {name: saved[name] for name in run.planned if name in saved})
    movable = run.job.movable
    wrong = [name for name in changed if name not in movable]
    if wrong:
        raise TrainingError(f"frozen tensors differ from the source: {', '.join(wrong[:5])}", path=run.directory.path)
    same = len(run.planned) - len(changed)
    return FreezeAudit(identical=same, changed=changed, movable=sorted(movable))
