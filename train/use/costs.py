"""Estimates the costs of a run from a few batches (--dry-run), without writing anything.

The first batches of each kind warm up and are not counted. Starting TensorFlow, building the graph, saving and the
report are not part of the estimate."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from ...report import size
from ..graph.devices import visible_gpus

WARMING, MEASURED = 2, 4  # batches
LONG = 20.0  # seconds after which measuring one kind stops


class Pace(NamedTuple):
    """A number of images to process, and images per second."""

    images: int
    images_per_second: float

    @property
    def seconds(self) -> float:
        return self.images / self.images_per_second


@dataclass(frozen=True)
class Costs:
    """The measured costs. `paces` maps each kind of work to its pace, `disk` each purpose to bytes. `memory` is the
    peak of this process in bytes (None if the system does not tell), `gpu_memory` that of the first GPU (None without
    one)."""

    paces: Mapping[str, Pace]
    disk: Mapping[str, int]
    memory: int | None = field(default_factory=lambda: peak_memory())
    gpu_memory: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds for all images together."""
        return sum(pace.seconds for pace in self.paces.values())

    def lines(self) -> list[str]:
        """The estimate as lines of text."""
        found = [
            f"{what:<15}{pace.images:,} images, {pace.images_per_second:,.1f} images/s: {duration(pace.seconds)}"
            for what, pace in self.paces.items()
        ]
        found.append(f"{'in total':<15}{duration(self.seconds)}, without start-up, saving and the report")
        on_gpu = "" if self.gpu_memory is None else f", {size(self.gpu_memory)} of the GPU"
        found.append(f"{'memory':<15}{'unknown on this system' if self.memory is None else size(self.memory)}{on_gpu}")
        found += [f"{'disk':<15}{size(taken)} for {what}" for what, taken in self.disk.items() if taken]
        return found

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        paces = {what: {**pace._asdict(), "seconds": pace.seconds} for what, pace in self.paces.items()}
        return {**asdict(self), "paces": paces, "seconds": self.seconds}


def pace(batches: Iterable[int]) -> float:
    """Images per second of an iterator that processes one batch per item and yields its size. The first batches are not
    counted unless there are no others."""
    began = start = time.monotonic()
    images = everything = 0
    for number, count in enumerate(batches):
        everything += count
        if number < WARMING:
            start = time.monotonic()
        else:
            images += count
        if number + 1 >= WARMING + MEASURED or time.monotonic() - began > LONG:
            break
    now = time.monotonic()
    return images / (now - start) if images else everything / max(now - began, 1e-9)


def peak_memory() -> int | None:
    """Peak memory of this process in bytes; None on Windows. getrusage(2) gives kilobytes on Linux, bytes on macOS."""
    try:
        import resource
    except ImportError:
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def gpu_memory(device: str) -> int | None:
    """Peak memory of TensorFlow on the first GPU in bytes; None without a GPU."""
    if not visible_gpus(device):
        return None
    import tensorflow

    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]


def duration(seconds: float) -> str:
    """
    >>> duration(0.4), duration(59.6), duration(754), duration(7300)
    ('0.4 s', '60 s', '12:34 min', '2:01:40 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
