"""Reports the progress of work to listeners, and stops it on request."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ...events import Began, Ended, OnEvent


@contextmanager
def told(on_event: OnEvent, work: str, *, total: int, done: int = 0, unit: str = "step") -> Iterator[None]:
    """Wraps work with `done` of `total` units finished: reports its beginning and its end."""
    on_event(Began(work, total, done, unit))
    try:
        yield
    finally:
        on_event(Ended(work))


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a request that the loop reads between steps. A second Ctrl-C interrupts
    immediately.

    with StopRequest() as stop:
        while not stop.signal: ...
    """

    def __init__(self) -> None:
        self.signal = ""  # "SIGINT" or "SIGTERM" once received
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the calling program handles signals itself
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
