"""Events that a run, an evaluation or any other long job reports: facts, which the listener puts into words.

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
    """Base class of all events."""


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that ignores all events."""


# --- before the first step -------------------------------------------------------------------------------------------


class PhaseStart(NamedTuple):
    """After `step` steps the scopes `added` also train; `reached` tells whether the run gets that far."""

    step: int
    added: tuple[str, ...]
    reached: bool


@dataclass(frozen=True)
class Planned(Event):
    """The run is planned; nothing has been written, and no graph has been built."""

    plan: Plan
    net: str  # its title: "slim InceptionV3"
    labels: tuple[str, ...]
    source: str  # path of the checkpoint; empty if a net is trained from scratch
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
    """Each batch is divided between devices; `parts` are (name, number of examples)."""

    batch_size: int
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AugmentationDrawn(Event):
    """The picture of --show-augmentation was written."""

    images: int
    file: str


@dataclass(frozen=True)
class CacheFound(Event):
    """The frozen part of the net is computed once per image; `there` of the `images` are already cached.

    `work_left` is the share of the net's work left in each step; `layers` are the layers whose output is cached.
    """

    images: int
    there: int
    bytes_per_image: int
    work_left: float
    layers: tuple[str, ...]
    views: int = 0  # augmented views per training image; 0: images without augmentation


@dataclass(frozen=True)
class CacheUnused(Event):
    """Nothing is cached, for this reason."""

    reason: str


@dataclass(frozen=True)
class PrecisionChosen(Event):
    """The precision of the frozen part, or of a net in use, was chosen; `found` has the figures of a comparison."""

    precision: str
    why: str
    found: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Restored(Event):
    """`variables` were restored, read back and compared with the plan; `copied` more are kept from the checkpoint,
    although this graph does not need them."""

    variables: int
    copied: int


@dataclass(frozen=True)
class Continued(Event):
    """A run is continued after a step; `fresh` are variables that its checkpoint does not have."""

    step: int
    total: int
    fresh: tuple[str, ...] = ()


# --- during the work -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Began(Event):
    """Work of `total` units begins ("training", "features", "evaluating"), of which `done` are finished already.
    `Ended` always follows, even after an error."""

    work: str
    total: int
    done: int = 0
    unit: str = "step"


@dataclass(frozen=True)
class Advanced(Event):
    """`count` more units of the work, with `images` images, are finished."""

    work: str
    images: int
    count: int = 1


@dataclass(frozen=True)
class Ended(Event):
    """The work is over."""

    work: str


@dataclass(frozen=True)
class Step(Event):
    """A training step is finished, including its evaluation and checkpoint, if any, so that these are on disk if the
    process dies now."""

    step: int
    total: int
    loss: float
    accuracy: float
    learning_rate: float
    images: int


@dataclass(frozen=True)
class RateTried(Event):
    """A step of the learning-rate search is finished."""

    rate: float
    loss: float
    images: int


@dataclass(frozen=True)
class Evaluated(Event):
    """The validation images were evaluated after a step. `loss` is the mean over the training steps since the last
    evaluation; `figures` has validation_loss, validation_accuracy and, with several labels per image,
    validation_mean_average_precision; it is empty if there are no validation images."""

    step: int
    loss: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written for a step, or as the `best` one so far."""

    step: int
    path: str
    best: bool = False


@dataclass(frozen=True)
class PhaseBegan(Event):
    """From here on these scopes train (--unfreeze)."""

    trainable: tuple[str, ...]


@dataclass(frozen=True)
class ImagesLeftOut(Event):
    """Images could not be decoded, for these reasons. `note` is a sentence about them."""

    reasons: Mapping[str, str]
    note: str
    training: bool = False


# --- at the end ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Audited(Event):
    """The saved checkpoint was compared with the source: number of tensors as planned, and names of changed ones."""

    identical: int
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Finished(Event):
    """The work is finished; `result` is the function's return value."""

    result: object


@dataclass(frozen=True)
class RateFound(Event):
    """A learning rate is suggested; `files` hold the losses."""

    rate: float
    files: tuple[str, ...]


# --- a net in use ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened(Event):
    """A net was opened from a checkpoint; `classes` is None if its head is not needed."""

    net: str
    path: str
    classes: int | None = None


@dataclass(frozen=True)
class ExamplesFound(Event):
    """The net will run on `count` examples ("images" or "vectors"), of `total` if machines share them."""

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
    """Accuracy was measured with stored batch-norm statistics and with each batch's own; `text` is a sentence on it."""

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
    """A machine was lost; the others wait for it."""

    fact: str
    seconds: float
