"""How the commands show events: lines for people on stderr, a progress bar where that is a terminal.

with the work: Printer()(event)        prints
lines_of(event)                        the lines alone, [] for most events
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import singledispatch
from typing import TYPE_CHECKING, TextIO

from .. import events
from ..events import Event
from ..plan.batch_norm import POLICIES
from ..report import count, listed

if TYPE_CHECKING:
    from tqdm import tqdm

QUIET_SECONDS = 30.0  # between lines about progress where the stream is no terminal
WIDTH = 14  # of the word that begins a line
SHOWN = 3  # names in a line before "and N more"
CLASSES = 20  # in a line, likewise: those of ImageNet would fill a screen


class Printer:
    """Prints what events say. `stream` is stderr unless another is given; a bar is drawn on terminals."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.Began):
            self._progress = self.progress(event)
        elif self._progress is not None and isinstance(event, events.Ended):
            self._progress.close()
            self._progress = None
        elif self._progress is not None and isinstance(event, (events.Step, events.RateTried, events.Advanced)):
            count = event.count if isinstance(event, events.Advanced) else 1
            self._progress.step(event.images, how_it_goes(event), count)
        for line in lines_of(event):
            self.say(line)

    @property
    def stream(self) -> TextIO:
        """Where lines go: the current sys.stderr, which tests and notebooks replace."""
        return self._stream or sys.stderr

    def progress(self, began: events.Began) -> Progress:
        """Begins to show the progress of a piece of work."""
        from tqdm import tqdm

        terminal = self.stream.isatty()
        bar = tqdm(total=began.total, initial=began.done, desc=began.work, unit=began.unit, file=self.stream,
                   disable=not terminal, leave=False)  # fmt: skip
        return Progress(began, self.stream, bar if terminal else None)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self._progress is not None and self._progress.bar is not None:
            self._progress.bar.write(line, file=self.stream)
        else:
            print(line, file=self.stream)


class Progress:
    """A bar, or without one a line now and then."""

    def __init__(self, began: events.Began, stream: TextIO, bar: tqdm | None) -> None:
        self.bar = bar
        self._began, self._stream, self._done, self._images = began, stream, began.done, 0
        self._started = self._shown = time.monotonic()

    def step(self, images: int, text: str, count: int) -> None:
        """Notes that `count` more units, of `images` images together, are done; `text` says how it goes."""
        self._done += count
        self._images += images
        now = time.monotonic()
        rate = self._images / max(1e-9, now - self._started)
        if self.bar is not None:
            self.bar.set_postfix_str(f"{text}, {rate:.0f} images/s".lstrip(", "), refresh=False)
            self.bar.update(count)
        elif now - self._shown >= QUIET_SECONDS:
            self._shown, began = now, self._began
            left = (now - self._started) / max(1, self._done - began.done) * (began.total - self._done)
            done = f"{began.unit} {self._done:,} of {began.total:,}"
            parts = filter(None, [done, text, f"{rate:.0f} images/s", f"{left:.0f} s left"])
            print(f"{began.work}: {', '.join(parts)}", file=self._stream)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def how_it_goes(event: Event) -> str:
    """What stands beside the bar."""
    if isinstance(event, events.RateTried):
        return f"rate {event.rate:.1e}, loss {event.loss:.4f}"
    return f"loss {event.loss:.4f}" if isinstance(event, events.Step) else ""


def fact(word: str, text: str) -> str:
    """
    >>> fact("net", "slim VGG 16")
    'net            slim VGG 16'
    """
    return f"{word:<{WIDTH}} {text}"


def figures(found: Mapping[str, float], loss_first: bool = True) -> str:
    """An evaluation in words: what it is judged by, and the loss.

    >>> figures({"validation_loss": 1.25, "validation_accuracy": 0.5})
    'validation loss 1.2500, accuracy 0.500'
    """
    if not found:
        return "no validation images"
    if "validation_mean_average_precision" in found:
        score = f"mean average precision {found['validation_mean_average_precision']:.3f}"
    else:
        score = f"accuracy {found['validation_accuracy']:.3f}"
    loss = f"loss {found['validation_loss']:.4f}"
    return f"validation {loss}, {score}" if loss_first else f"{score}, {loss}"


def audit_line(identical: int, changed: int) -> str:
    """What the comparison with the source found."""
    same = f"{identical} of {identical + changed} tensors are bit for bit as planned"
    return fact("freeze audit", f"{same}; {changed} changed")


# --- the lines of each event -----------------------------------------------------------------------------------------


@singledispatch
def lines_of(event: Event) -> list[str]:
    """What is printed of an event; nothing of those that are for programs alone.

    >>> lines_of(events.Restored(388, copied=0))
    ['restored       388 variables, read back and compared with the plan']
    """
    return []


@lines_of.register
def _(event: events.Planned) -> list[str]:
    facts, modes = event.plan.summary, list(event.plan.batch_norm.values())
    share = facts["trainable_parameters"] / max(1, facts["parameters"])
    norms = ", ".join(f"{modes.count(mode)} {mode}" for mode in POLICIES if mode in modes)
    each = [f"{label} {n}" for label, n in zip(event.labels, event.per_class, strict=True)]
    few = len(each) <= CLASSES
    per_class = " ".join(each) if few else f"from {min(event.per_class):,} to {max(event.per_class):,}"
    counts = f"{event.training:,} for training, {event.validation:,} for validation; per class: {per_class}"
    what = "vectors" if event.image_size is None else "images"
    pixels = "" if event.image_size is None else f", {event.image_size} x {event.image_size} pixels"
    trained = f"{facts['trainable_parameters']:,} of {facts['parameters']:,} parameters"
    carried = f"{facts['carried']} carried along, " if "carried" in facts else ""
    unused = f"{carried}{facts['unused']} unused tensors of the source"
    return [
        fact("net", f"{event.net}{pixels}"),
        fact("classes", f"{len(event.labels):,}: {listed(event.labels, CLASSES)}"),
        *([fact("source", f"{event.source} ({event.format})")] if event.source else []),
        fact("plan", f"{facts['restored']} restored, {facts['initialised']} initialised, {unused}"),
        fact("trainable", f"{trained} ({share:.2%}) in {facts['trainable_variables']} variables"),
        *([fact("trainable are", ", ".join(event.behind))] if event.behind else []),
        *map(_phase, event.phases),
        *([fact("batch norm", norms)] if modes else []),
        fact("device", event.device),
        fact(what, counts),
        fact("training", f"{count(event.steps, 'step')} of {event.batch_size} {what}, {event.optimizer}, "
             f"learning rate {event.learning_rate:g}"),
        *(fact("note", note) for note in event.notes),
    ]  # fmt: skip


def _phase(phase: events.PhaseStart) -> str:
    never = "" if phase.reached else ", which the run does not reach"
    return fact("unfreezing", f"from step {phase.step:,}: {', '.join(phase.added)}{never}")


@lines_of.register
def _(event: events.Divided) -> list[str]:
    shown = ", ".join(f"{name} {size}" for name, size in event.parts)
    return [fact("parts", f"{len(event.parts)} of each batch of {event.batch_size} images: {shown}")]


@lines_of.register
def _(event: events.AugmentationDrawn) -> list[str]:
    return [fact("picture", f"{event.images} images before and after augmentation: {event.file}")]


@lines_of.register
def _(event: events.CacheFound) -> list[str]:
    what, copies = "images", ""
    if event.views:
        what, copies = "views", f", {event.views} views of each training image"
    whole = f"{event.images * event.bytes_per_image / 1e6:,.1f} MB in total"
    left = f"each step runs {event.work_left:.2%} of the net"
    # One line for a listener, two for the eye.
    return [
        fact("cache", f"{event.there:,} of {event.images:,} {what} cached; {left}\n")
        + fact("", f"{event.bytes_per_image:,} bytes per image, {whole}{copies}, at {listed(event.layers, 1)}")
    ]


@lines_of.register
def _(event: events.CacheUnused) -> list[str]:
    return [fact("cache", f"none: {event.reason}")]


@lines_of.register
def _(event: events.PrecisionChosen) -> list[str]:
    return [fact("precision", f"{event.precision}: {event.why}")]


@lines_of.register
def _(event: events.Restored) -> list[str]:
    copied = f"; {event.copied} are copied" if event.copied else ""
    return [fact("restored", f"{event.variables} variables, read back and compared with the plan{copied}")]


@lines_of.register
def _(event: events.Continued) -> list[str]:
    names = listed(event.fresh, SHOWN)
    started = f"; started afresh, since the checkpoint has none: {names}" if event.fresh else ""
    of = f" of {event.total:,}" if event.step <= event.total else f"; {event.total:,} were asked for"
    return [fact("continuing", f"after step {event.step:,}{of}{started}")]


@lines_of.register
def _(event: events.Evaluated) -> list[str]:
    return [f"step {event.step:,}: loss {event.loss:.4f}, {figures(event.figures)}"]


@lines_of.register
def _(event: events.PhaseBegan) -> list[str]:
    return [fact("unfreezing", f"{', '.join(event.trainable)} train from here on")]


@lines_of.register
def _(event: events.ImagesLeftOut) -> list[str]:
    return [event.note if event.training else fact("note", event.note)]


@lines_of.register
def _(event: events.Audited) -> list[str]:
    return [audit_line(event.identical, len(event.changed))]


@lines_of.register
def _(event: events.RateFound) -> list[str]:
    return [fact("learning rate", f"{event.rate:.2g}: the loss falls steepest there; {' and '.join(event.files)}")]


@lines_of.register
def _(event: events.Opened) -> list[str]:
    classes = "" if event.classes is None else f", {event.classes:,} classes,"
    return [fact("net", f"{event.net}{classes} from {event.path}")]


@lines_of.register
def _(event: events.ExamplesFound) -> list[str]:
    if event.total is None:
        return [fact(event.takes, f"{event.count:,} ({event.split}) of {event.data}")]
    return [fact(event.takes, f"{event.count:,} of {event.total:,}, {event.image_size} pixels")]


@lines_of.register
def _(event: events.Noted) -> list[str]:
    return [fact("note", event.text)]


@lines_of.register
def _(event: events.GapMeasured) -> list[str]:
    return [fact("batch norm", event.text)]


@lines_of.register
def _(event: events.ClusterReady) -> list[str]:
    return [fact("cluster", f"{event.machines} machines: {event.names}")]


@lines_of.register
def _(event: events.Serving) -> list[str]:
    return [f"{event.task} serves {event.leader}"]


@lines_of.register
def _(event: events.MachineLost) -> list[str]:
    return [f"{event.fact}; waiting {event.seconds:g} s for it to come back"]
