"""What a run, an evaluation or any other long job reports as it goes: facts, which the listener puts into words.

    def watch(event):
        if isinstance(event, Step):
            print(event.step, event.loss)

    ckpt_tools.finetune(..., on_event=watch)

`cli/events.py` listens for the commands: lines and progress bars on stderr. Events come in the order in which things
happen, in the thread that does the work; an exception in a listener ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True)
class Event:
    """What all events are."""


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listens to nothing."""


# --- before the first step -------------------------------------------------------------------------------------------


class PhaseStart(NamedTuple):
    """After `step` steps the scopes `added` train as well; `reached` says whether the run goes that far."""

    step: int
    added: tuple[str, ...]
    reached: bool


@dataclass(frozen=True)
class Planned(Event):
    """What a run will do. Nothing has been written, no graph has been built."""

    plan: Plan
    net: str  # its title: "slim InceptionV3"
    labels: tuple[str, ...]
    source: str  # path of the checkpoint; empty where a net is trained from nothing
    format: str  # of the checkpoint: "v1", "v2", ...
    image_size: int | None  # pixels; None: the examples are vectors
    training: int  # examples to train on
    validation: int
    per_class: tuple[int, ...]  # of `training`
    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    device: str
    behind: tuple[str, ...] = ()  # scopes that train because of --freeze-until
    phases: tuple[PhaseStart, ...] = ()  # of --unfreeze
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Divided(Event):
    """Each batch is divided between devices: names of the parts and how many examples each takes."""

    batch_size: int
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AugmentationDrawn(Event):
    """--show-augmentation wrote its picture."""

    images: int
    file: str


@dataclass(frozen=True)
class CacheFound(Event):
    """The frozen part of the net is computed once for each image; `there` of the `images` are in the cache already.

    `work_left` is the share of the net's work that a step still does; `layers` are where the values are taken.
    """

    images: int
    there: int
    bytes_per_image: int
    work_left: float
    layers: tuple[str, ...]
    views: int = 0  # augmented views of each training image; 0: images as they are


@dataclass(frozen=True)
class CacheUnused(Event):
    """Nothing is cached, and why."""

    reason: str


@dataclass(frozen=True)
class PrecisionChosen(Event):
    """The type in which the frozen part, or a net in use, computes, and why; `found`: figures of a comparison."""

    precision: str
    why: str
    found: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Restored(Event):
    """`variables` got their values, were read back and compared with the plan; `copied` more are kept from the
    checkpoint, although this graph does not need them."""

    variables: int
    copied: int


@dataclass(frozen=True)
class Continued(Event):
    """A run goes on after a step; `fresh` are variables that its checkpoint does not have."""

    step: int
    total: int
    fresh: tuple[str, ...] = ()


# --- while it goes on ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Began(Event):
    """A piece of work of `total` units begins ("training", "features", "evaluating"), `done` of them behind it.
    `Ended` follows, also after an error."""

    work: str
    total: int
    done: int = 0
    unit: str = "step"


@dataclass(frozen=True)
class Advanced(Event):
    """`count` more units of the work, with `images` images, are done."""

    work: str
    images: int
    count: int = 1


@dataclass(frozen=True)
class Ended(Event):
    """The work is over."""

    work: str


@dataclass(frozen=True)
class Step(Event):
    """A training step is finished; it comes after the evaluation and the checkpoint of that step, if it has any, so
    that what is on disk is what a process that dies here leaves."""

    step: int
    total: int
    loss: float
    accuracy: float
    learning_rate: float
    images: int


@dataclass(frozen=True)
class RateTried(Event):
    """A step of the search for a learning rate."""

    rate: float
    loss: float
    images: int


@dataclass(frozen=True)
class Evaluated(Event):
    """The validation images were evaluated after a step. `loss` is the mean over the training steps since the last
    evaluation; `figures` has validation_loss, validation_accuracy and, of several labels an image,
    validation_mean_average_precision; it is empty where there are no validation images."""

    step: int
    loss: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written: that of a step, or the `best` one so far."""

    step: int
    path: str
    best: bool = False


@dataclass(frozen=True)
class PhaseBegan(Event):
    """From here on these scopes train (--unfreeze)."""

    trainable: tuple[str, ...]


@dataclass(frozen=True)
class ImagesLeftOut(Event):
    """Images that could not be decoded, with the reason of each. `note` is the sentence about them."""

    reasons: Mapping[str, str]
    note: str
    training: bool = False


# --- at the end ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audited(Event):
    """The saved checkpoint was compared with the source: tensors that are as planned, and those that changed."""

    identical: int
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Finished(Event):
    """The work is done; `result` is what the function will return."""

    result: object


@dataclass(frozen=True)
class RateFound(Event):
    """The learning rate that is suggested, and the files with the losses."""

    rate: float
    files: tuple[str, ...]


# --- a net in use ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened(Event):
    """The net that is used, from a checkpoint; `classes` is None where its head is not needed."""

    net: str
    path: str
    classes: int | None = None


@dataclass(frozen=True)
class ExamplesFound(Event):
    """What the net is run on: `count` examples ("images" or "vectors"), of `total` where machines share them."""

    takes: str
    count: int
    split: str
    data: str
    total: int | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class Noted(Event):
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class GapMeasured(Event):
    """Accuracy with stored batch-norm statistics and with those of each batch; `text` is the sentence about them."""

    images: int
    stored: float
    batch: float
    text: str


# --- several machines ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterReady(Event):
    """All machines can be reached."""

    machines: int
    names: str


@dataclass(frozen=True)
class Serving(Event):
    """This task serves the leader."""

    task: str
    leader: str


@dataclass(frozen=True)
class MachineLost(Event):
    """A machine is gone; the others wait for it."""

    fact: str
    seconds: float
