"""Fine-tuning: restore by the plan, train the selected scopes, prove that nothing else changed.

`finetune` reads from top to bottom; each step of it is a function below, in the same order.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from ... import html
from ...errors import TrainingError
from ...events import (
    Audited,
    AugmentationDrawn,
    CacheUnused,
    Continued,
    Evaluated,
    Event,
    Finished,
    ImagesLeftOut,
    Noted,
    OnEvent,
    PhaseBegan,
    Restored,
    Step,
    ignore,
)
from ...formats.placing import write_text
from ..cache.backbone import Backbone
from ..cache.checked import check_net
from ..cache.feeding import FedModel, build_graph, choose_precision, from_cache
from ..cache.head_only import look_up
from ..cache.lookup import Lookup
from ..cache.transfer import Transfer
from ..data.examples import DataSet
from ..data.pipeline import Unreadable
from ..graph.cluster import Cluster, machine_lost
from ..graph.devices import Placement, placement_of
from ..graph.progress import StopRequest, told
from ..graph.restore import assign, audit, planned_tensors
from ..graph.tensorflow_paths import tensorflow_path
from ..graph.towers import for_feeding, session_config
from ..options.training import AUTO, FLOAT32, Options
from ..pages.augmentation_picture import draw_augmentation
from ..pages.figures import check_picture
from ..pages.report import write_report
from ..plan.job import Job, make_job, planned_event
from ..plan.schedule import rate_at
from ..use.evaluation import Evaluation
from ..use.recorded import MEAN_AVERAGE_PRECISION
from .continuing import open_run
from .final_evaluation import final_evaluation
from .run import (
    Batches,
    FreezeAudit,
    Run,
    bytes_of_checkpoints,
    freeze_audit,
    last_good,
    save,
    save_what_is_whole,
    validate,
    with_own_step,
)
from .run_directory import RunDirectory, alone_in, read_tensors, run_digest

SAVE_SECONDS = 600.0  # between checkpoints, unless --save-steps says otherwise


class SessionSetup(NamedTuple):
    """What all sessions of a run have: where they compute (`target` is this task's server, with a cluster), and what is
    known of the cache."""

    placement: Placement
    config: tf.ConfigProto
    cluster: Cluster | None
    target: str
    lookup: Lookup


@dataclass(frozen=True)
class Result:
    """How a run ended. `stopped` names the signal that ended it before its time."""

    train_dir: str
    step: int
    total: int
    validation: Mapping[str, float]
    best: Mapping[str, float]
    freeze_audit: FreezeAudit
    stopped: str = ""

    def __repr__(self) -> str:
        figures = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in self.validation.items())
        return f"<run {self.train_dir}: {self.step:,} of {self.total:,} steps{', ' * bool(figures)}{figures}>"

    def _repr_html_(self) -> str:
        """For notebooks: how it ended, and the report of the run."""
        done = f"{self.step:,} of {self.total:,} steps" + (f", stopped by {self.stopped}" if self.stopped else "")
        pairs: list[tuple[str, object]] = [(key.replace("_", " "), value) for key, value in self.validation.items()]
        if self.best:
            pairs.append(("best checkpoint", f"step {self.best['step']:,}: {Path(self.train_dir, 'best.ckpt')}"))
        identical, changed = self.freeze_audit["identical"], len(self.freeze_audit["changed"])
        pairs.append(("freeze audit", f"{identical:,} tensors are bit for bit as planned, {changed:,} changed"))
        report = Path(self.train_dir, "report.html")
        shown = html.folded("report", html.page(report.read_text(encoding="utf-8"))) if report.is_file() else ""
        return html.title(self.train_dir, done) + html.facts(pairs) + shown


def finetune(
    options: Options, on_event: OnEvent = ignore, *, data: DataSet | None = None, cluster: Cluster | None = None,
    target: str = "",
) -> Result:  # fmt: skip
    """Runs, or continues, what the options describe; `on_event` is told what happens (`ckpt_tools.events`). `data` is a
    data set in memory, in place of `options.data`. With a cluster, `target` is this task's server.

    Raises PlanError for a plan with conflicts and TrainingError for a folder that holds another run, both before
    anything is written; TrainingError when the loss is no longer a number.
    """
    began = time.monotonic()
    job = make_job(options, data)
    with alone_in(Path(options.train_dir)):
        return finetune_alone(job, began, on_event, cluster, target)


def finetune_alone(job: Job, began: float, on_event: OnEvent, cluster: Cluster | None, target: str) -> Result:
    """`finetune`, of a job that began at `began` and has the train directory to itself."""
    options = job.options
    head = job.head.scope_in(job.net)
    graph = job.net.graph.digest if job.net.graph else ""
    directory, resumed = open_run(job.options, job.plans, job.data.labels, job.source, head=head, graph=graph)
    if job.data.many:
        directory = replace(directory, columns=(*directory.columns, MEAN_AVERAGE_PRECISION))
    job = job.at_step(resumed or 0)
    if resumed is None:
        check_net(job)
    placement = placement_of(options, cluster)
    record = directory.record() if resumed is not None else {}
    recorded = precision_of_features(record) if resumed is not None else None
    lookup = Lookup()
    job = replace(job, frozen=choose_precision(job, placement, lookup, recorded))
    config, device = session_config(options.device, placement.cpus)
    on_event(planned_event(job, device))
    if record.get("data", job.data.record()) != job.data.record():
        on_event(Noted(other_data(record["data"], job.data.record())))
    if len(placement.parts) > 1:
        on_event(placement.divided(options.batch_size))
    if options.show_augmentation:
        check_picture(options.show_augmentation, options.data)
        how = {"batch_size": options.batch_size, "seed": options.seed}
        count = draw_augmentation(job.data.train, job.pixels, options.show_augmentation, **how)
        on_event(AugmentationDrawn(count, options.show_augmentation))

    # --- one phase of --unfreeze after the other; nearly always there is one ------------------------------------
    seconds = {"preparation": time.monotonic() - began}
    with StopRequest() as stop:
        while True:
            setup = SessionSetup(placement, config, cluster, target, lookup)
            result = train_phase(job, directory, resumed, setup, stop, seconds, on_event)
            if result.step < job.until or job.until >= job.total:
                on_event(Finished(result))
                return result
            job, resumed = job.at_step(result.step), result.step
            on_event(PhaseBegan(job.phases[job.phase].trainable))


def train_phase(
    job: Job, directory: RunDirectory, resumed: int | None, setup: SessionSetup, stop: StopRequest,
    seconds: dict[str, float], on_event: OnEvent,
) -> Result:  # fmt: skip
    """Trains by one plan, from the checkpoint of the step `resumed` (None: from the source) to the phase's end."""
    # --- graph, restore and audit, transfer values -------------------------------------------------------------
    with opened(job, directory, resumed, setup, seconds, on_event) as (run, graph, transfer):
        job = run.job
        batches = batches_of_values(run, transfer, stop) if isinstance(transfer, Transfer) else graph.pipelines
        trained = train_and_save(run, *batches, setup.cluster, stop)

    # --- freeze audit and result -------------------------------------------------------------------------------
    began = time.monotonic()
    audited = freeze_audit(run)
    run.spent("freeze audit", began)
    on_event(Audited(audited["identical"], tuple(audited["changed"])))
    result = Result(
        str(directory.path),
        run.step,
        job.total,
        trained.validation,
        run.best or {},
        audited,
        stop.signal if run.step < job.total else "",
    )
    write_result(run, result)
    if not trained.another_phase:
        write_report(directory.path, trained.evaluation)
    return result


class Trained(NamedTuple):
    """How a phase ended: the last figures of validation, whether another phase follows, and if not all figures."""

    validation: dict[str, float]
    another_phase: bool
    evaluation: Evaluation | None


@contextmanager
def opened(
    job: Job, directory: RunDirectory, resumed: int | None, setup: SessionSetup, seconds: dict[str, float],
    on_event: OnEvent,
) -> Iterator[tuple[Run, FedModel, Transfer | str]]:  # fmt: skip
    """A session in which every variable has its value, and what is cached of its graph."""
    began, options, placement = time.monotonic(), job.options, setup.placement
    with Backbone(job, placement) as backbone, tf.Graph().as_default(), tf.device(placement.home):
        unreadable = Unreadable(total=len(job.data.train) + len(job.data.validation))
        known = look_up(job, placement, setup.lookup, backbone)
        graph = build_graph(job, placement, known, unreadable, step=resumed or 0, length=job.total)
        starts = graph.model.initializers
        planned = planned_tensors(job.plan, job.source.tensors, seed=options.seed, initializers=starts)
        transfer = graph.transfer(job, planned, setup.lookup)
        config = for_feeding(setup.config) if isinstance(transfer, Transfer) else setup.config
        with tf.Session(setup.target, config=config) as session:
            run = Run(
                job, directory, graph.model, session, planned, planned, backbone, unreadable=unreadable,
                lookup=setup.lookup, seconds=seconds, on_event=on_event,
            )  # fmt: skip
            on_event(CacheUnused(transfer) if isinstance(transfer, str) else transfer.found())
            directory.check_room(sum(bytes_of_checkpoints(job, graph.model.variables)), anew=resumed is None)
            on_event(start_run(run, resumed))
            transfer, run.job = graph.settled(transfer, run.open_model)
            if isinstance(transfer, Transfer) and options.precision == AUTO:
                on_event(run.job.frozen.chosen())
            net = job.net.graph.data if job.net.graph else b""
            directory.begin(job.plan, options, job.data.labels, facts(run.job), anew=resumed is None, graph=net)
            run.spent("preparation", began)
            yield run, graph, transfer


def batches_of_values(run: Run, transfer: Transfer, stop: StopRequest) -> tuple[Batches, Batches]:
    """Training and validation batches of transfer values, computed as far as they are not there."""
    began = time.monotonic()
    found = from_cache(transfer, run.open_model, stop, run.on_event, step=run.step)
    run.spent("features", began)
    return found


def train_and_save(
    run: Run, training: Batches, validation: Batches, cluster: Cluster | None, stop: StopRequest
) -> Trained:
    """Trains to the phase's end or a request to stop, and saves."""
    job = run.job
    with machine_lost(cluster, lambda: save_what_is_whole(run)):
        now = train(run, training, validation, stop)
    save(run)
    if note := run.unreadable.note():
        run.on_event(ImagesLeftOut(dict(run.unreadable.reasons), note, training=True))
    over = run.step == job.until < job.total
    return Trained(now, over, None if stop.signal or over else evaluate_for_report(run, validation))


def start_run(run: Run, resumed: int | None) -> Event:
    """Gives every variable its value: by the plan, or from the run's own checkpoint. Returns what is told of it."""
    everything = run.model.variables
    net = {name: variable for name, variable in everything.items() if name in run.planned}
    others = {name: variable for name, variable in everything.items() if name not in run.planned}
    start_others = [variable.initializer for variable in (*others.values(), *tf.local_variables())]
    if resumed is None:
        assign(run.session, net, run.planned)
        run.session.run(start_others)  # slots and global_step: constants; moving averages: the variables themselves
        audit(run.session, net, run.planned)
        names = {*net, *run.backbone.restore(run.planned)}
        return Restored(len(names), copied=len(run.planned) - len(names))
    saved_path = run.directory.prefix(resumed)
    saved = with_own_step(read_tensors(saved_path), run.model.step.global_step)
    missing = [name for name in net if name not in saved]
    if missing:
        raise TrainingError(f"lacks {', '.join(missing[:5])}", path=saved_path, advice="Use --fresh.")
    known = {name: variable for name, variable in everything.items() if name in saved}
    assign(run.session, net, saved)
    run.session.run(start_others)  # for those that the checkpoint does not have
    assign(run.session, {name: known[name] for name in known if name not in net}, saved)
    audit(run.session, known, saved)
    run.step, run.frozen, run.best = resumed, saved, run.directory.best_record()
    run.directory.forget_after(resumed)
    return Continued(resumed, run.job.total, tuple(name for name in others if name not in saved))


def train(run: Run, training: Batches, validation: Batches, stop: StopRequest) -> dict[str, float]:
    """The loop: one step after the other until the last one or a request to stop. Returns the last evaluation."""
    job, options, model = run.job, run.job.options, run.model
    feeds = [model.step.learning_rate, *training.tensors]
    fetched = [model.step.train, model.step.loss, model.step.accuracy, model.step.gradient_norms]
    one_step = run.session.make_callable(fetched, feed_list=feeds)
    batches = training.start(run.session)
    evaluated, measured, losses, saved_at, started = {}, [], [], time.monotonic(), time.monotonic()
    before = sum(run.seconds.values())  # evaluating and saving count their own time
    graph, suffix = model.graph if run.step == 0 else None, run.directory.written.event_suffix
    events = tf.summary.FileWriter(tensorflow_path(run.directory.path), graph=graph, filename_suffix=suffix)
    if run.step:
        events.add_session_log(tf.SessionLog(status=tf.SessionLog.START), run.step + 1)  # TensorBoard drops later ones
    with told(run.on_event, "training", total=job.total, done=run.step), run.unreadable.raised():
        while run.step < job.until and not stop.signal and not run.patience_is_over:
            rate = rate_at(options, job.base_rate, run.step, job.total, job.per_epoch)
            _, loss, accuracy, norms = one_step(rate, *next(batches))
            if not (math.isfinite(loss) and np.isfinite(norms).all()):
                advice = f"Try --learning-rate {rate / 10:g} or --clip-norm 1."
                raise TrainingError(not_finite(run, loss, norms), advice=advice)
            run.gradient_norms = norms
            run.step += 1
            measured.append((loss, accuracy))
            losses.append(loss)

            evaluates = run.step % (options.eval_steps or job.per_epoch) == 0 or run.step == job.until
            if evaluates:
                evaluated = validate(run, validation)
                run.on_event(Evaluated(run.step, float(np.mean(losses)), evaluated))
                losses = []  # what is told is the mean since the last line; a batch of few images says little
            if evaluates or run.step % options.log_steps == 0:
                log(run, events, rate, measured, evaluated if evaluates else {}, time.monotonic() - started)
                measured = []
            due = options.save_steps is None and time.monotonic() - saved_at >= SAVE_SECONDS
            if due or (options.save_steps and run.step % options.save_steps == 0 and run.step < job.until):
                save(run)
                saved_at = time.monotonic()
            run.on_event(Step(run.step, job.total, float(loss), float(accuracy), rate, options.batch_size))
        if not evaluated and not stop.signal:
            evaluated = validate(run, validation)
    events.close()
    run.spent("training", started + sum(run.seconds.values()) - before)
    return evaluated


def not_finite(run: Run, loss: float, norms: np.ndarray) -> str:
    """What to say of a step whose loss or gradient is not finite: where it began, and what is safe on disk."""
    names = [variable.op.name for variable in run.model.step.trained]
    blown = [name for name, norm in zip(names, norms, strict=True) if not math.isfinite(norm)]
    found = f"step {run.step + 1:,}: the loss is {loss:g}"
    if blown:
        found += f", and the gradient of {blown[-1]} is not finite" + (f" (of {len(blown)})" if len(blown) > 1 else "")
    if run.gradient_norms is not None:
        largest = int(np.argmax(run.gradient_norms))
        found += f"; in the step before, {names[largest]} had the largest gradient ({run.gradient_norms[largest]:.3g})"
    return f"{found}; {last_good(run)}"


def log(
    run: Run, events: tf.summary.FileWriter, rate: float, measured: list[tuple[float, float]],
    evaluated: Mapping[str, float], seconds: float,
) -> None:  # fmt: skip
    """A row of metrics.csv and the same for TensorBoard; loss and accuracy are means since the last row."""
    loss, accuracy = (float(np.mean(part)) for part in zip(*measured, strict=True))
    row = {"learning_rate": rate, "loss": loss, "accuracy": accuracy, **evaluated}
    epoch = run.step / run.job.per_epoch
    run.directory.log({"step": run.step, "epoch": epoch, **row, "seconds": seconds})
    values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in row.items()]
    events.add_summary(tf.Summary(value=values), run.step)


def facts(job: Job) -> dict[str, object]:
    """What plan.json says besides the plan, and evaluate, predict and features read back."""
    return {
        "run": run_digest(job.plans[0], job.options),
        "phase": job.phase,
        "source": job.source.known_as,
        "net": job.net.name,
        **({"graph": {**job.net.graph.record(), "digest": job.net.graph.digest}} if job.net.graph else {}),
        "classes": job.classes,
        "labels": list(job.data.labels),
        "data": job.data.record(),
        "head": {"layers": job.options.head, "scope": job.options.head_scope},
        "preprocessing": job.preprocessing and job.preprocessing.as_dict(),
        "precision": {"training": job.trained_in, "features": job.frozen_in, **job.frozen.found},
    }


def other_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is said of a run that goes on with other examples than it had."""
    counts = [f"{each['training']:,} for training, {each['validation']:,} for validation" for each in (before, now)]
    had = f"it had {counts[0]}" if counts[0] != counts[1] else "they have other names or labels"
    return f"the run goes on with other data: {had}; figures before and after are of different examples"


def precision_of_features(record: Mapping[str, Any]) -> str:
    """In which precision a run's features were computed, as `facts` wrote it; earlier versions had another key."""
    precision = record.get("precision", {})
    return str(precision.get("features", precision.get("transfer_values", FLOAT32)))


def evaluate_for_report(run: Run, validation: Batches) -> Evaluation | None:
    """Every figure of the validation images, with the weights of the last step."""
    began = time.monotonic()
    found = final_evaluation(run.session, run.model, validation, run.job, run.directory.prefix(run.step))
    run.seconds["report"] = time.monotonic() - began
    return found


def write_result(run: Run, result: Result) -> None:
    """result.json: how the run ended, for reports and scripts."""
    record = {**result.__dict__, "seconds": run.seconds}
    write_text(run.directory.path / "result.json", json.dumps(record, indent=1) + "\n")
