"""Finds a learning rate: the rate rises from step to step, and where the loss falls steepest is a good place to start.

    found = find_learning_rate(Options(checkpoint="inception_v3.ckpt", data="photos", find_learning_rate="rates.png"))
    found.suggestion

Smith 2015 ("Cyclical learning rates"), with the figures of fast.ai's `lr_find`: about a hundred steps, the loss
smoothed, an end when it has grown to four times its least. Nothing is saved but the picture and the figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import OutputError, TrainingError
from ...events import OnEvent, RateFound, RateTried, ignore
from ...formats.placing import write_text
from ..data.examples import DataSet
from ..graph.progress import StopRequest, told
from ..options.training import Options
from ..pages.figures import check_picture, new_figure, write_png
from ..plan.job import Job, make_job

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..cache.transfer import Cached
    from ..graph.batches import Pipeline

STEPS = 100
COLUMNS = "learning_rate,loss,smoothed_loss"
FIRST, LAST = 1e-7, 1.0
SMOOTHING = 0.9  # of the running mean of the loss
DIVERGED = 4.0  # times the least smoothed loss


class RangeTest(NamedTuple):
    """Rates that were tried, the loss of each step and its running mean, the rate to take, and the files."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float
    files: tuple[str, ...]


def find_learning_rate(options: Options, on_event: OnEvent = ignore, data: DataSet | None = None) -> RangeTest:
    """Trains from the source for up to STEPS steps with rising rates and writes `options.find_learning_rate`, a PNG
    file, and a CSV file beside it.

    Raises what a run would raise, OutputError where the files cannot be written, TrainingError where the loss never
    falls or is not finite from the start.
    """
    picture = Path(options.find_learning_rate)
    if not picture.parent.is_dir():
        raise OutputError("is in a folder that does not exist", path=picture)
    check_picture(picture, options.data)
    table = picture.with_suffix(".csv")
    if table.exists() and not table.read_text(encoding="utf-8", errors="replace").startswith(COLUMNS):
        fact = "exists, and --find-learning-rate did not write it"
        raise OutputError(fact, path=table, advice="Choose another name for the picture.")
    new_figure(1, 1)  # matplotlib is missed before the steps, not after them
    job = make_job(options, data)
    losses = tuple(_losses(job, on_event))
    rates, smoothed = rate_ramp()[: len(losses)], smooth(losses)
    found = RangeTest(
        rates, losses, smoothed, suggested_rate(rates, smoothed), (str(picture), str(picture.with_suffix(".csv")))
    )
    try:
        write_png(draw(found), picture)
        rows = [[f"{value:.6g}" for value in row] for row in zip(rates, losses, smoothed, strict=True)]
        write_text(table, "\n".join([COLUMNS, *map(",".join, rows)]) + "\n")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", path=error.filename or picture) from error
    on_event(RateFound(found.suggestion, found.files))
    return found


def rate_ramp(steps: int = STEPS) -> tuple[float, ...]:
    """Rates from FIRST to LAST, each the same factor above the one before.

    >>> [f"{rate:.0e}" for rate in rate_ramp(8)]
    ['1e-07', '1e-06', '1e-05', '1e-04', '1e-03', '1e-02', '1e-01', '1e+00']
    """
    return tuple(FIRST * (LAST / FIRST) ** (step / (steps - 1)) for step in range(steps))


def smooth(losses: Sequence[float], decay: float = SMOOTHING) -> tuple[float, ...]:
    """The running mean of the losses, corrected for its start as Adam corrects its moments.

    >>> smooth([2.0, 2.0, 5.0], decay=0.5)
    (2.0, 2.0, 3.7142857142857144)
    """
    mean, means = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = decay * mean + (1 - decay) * loss
        means.append(mean / (1 - decay**number))
    return tuple(means)


def suggested_rate(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The rate at which the smoothed loss falls steepest over the logarithm of the rate, before it is least: at higher
    rates it jumps up and down.

    Raises TrainingError where it never falls.
    """
    falling = smoothed[: int(np.argmin(smoothed)) + 1] if smoothed else ()
    if len(falling) > 1:
        slopes = np.gradient(np.asarray(falling), np.log10(rates[: len(falling)]))
        steepest = int(np.argmin(slopes))
        if slopes[steepest] < 0:
            return float(rates[steepest])
    raise TrainingError(
        "the loss does not fall at any learning rate", advice="Look at the data, or at what is trainable."
    )


def _losses(job: Job, on_event: OnEvent) -> Iterator[float]:
    """The loss of each step with the rates of the ramp, until it diverges."""
    from ..cache.feeding import from_cache, trial
    from ..cache.transfer import Transfer

    with trial(job, STEPS, on_event) as (opened, graph, transfer), StopRequest() as stop:
        model, session = opened.model, opened.session
        batches: Pipeline | Cached | None = graph.training
        if isinstance(transfer, Transfer):
            batches, _ = from_cache(transfer, opened, stop, on_event)
            if stop.signal:
                raise KeyboardInterrupt
        assert batches is not None
        feeds = [model.step.learning_rate, *batches.tensors]
        one_step = session.make_callable([model.step.train, model.step.loss], feed_list=feeds)
        values, losses = batches.start(session), []
        with told(on_event, "learning rates", total=STEPS), opened.unreadable.raised():
            for rate in rate_ramp():
                loss = float(one_step(rate, *next(values))[1])
                if stop.signal:
                    raise KeyboardInterrupt
                if not math.isfinite(loss):
                    return
                losses.append(loss)
                yield loss
                on_event(RateTried(rate, loss, job.options.batch_size))
                means = smooth(losses)
                if means[-1] > DIVERGED * min(means):
                    return


def draw(found: RangeTest) -> Figure:
    """The losses over the rates, and the suggestion."""
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color="0.75", linewidth=1, label="loss of each step")
    axes.plot(found.rates, found.smoothed, color="C0", label="smoothed")
    axes.axvline(found.suggestion, color="C3", linestyle="--", label=f"steepest: {found.suggestion:.2g}")
    axes.set_xscale("log")
    low, high = min(found.smoothed), max(found.smoothed[: max(1, len(found.smoothed) // 2)])
    axes.set_ylim(max(0.0, low - 0.3 * (high - low)), high + 1.5 * max(high - low, 0.05 * high))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    return figure
