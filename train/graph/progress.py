"""Progress for people: a bar on a terminal, a line now and then elsewhere; and stopping when they ask for it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType

QUIET_SECONDS = 30.0  # between lines where stderr is no terminal


class Progress:
    """A bar of `total` steps, `done` of them behind us; each step is `images` images.

    with Progress("training", total=320, done=0) as progress:
        progress.step(32, "loss 1.234")
    """

    def __init__(self, title: str, *, total: int, done: int = 0, unit: str = "step") -> None:
        from tqdm import tqdm

        self._title, self._total, self._first, self._done = title, total, done, done
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._images = 0
        self._bar = tqdm(
            total=total, initial=done, desc=title, unit=unit, file=sys.stderr, disable=not self._terminal, leave=False
        )

    def step(self, images: int, text: str = "", count: int = 1) -> None:
        """Notes that `count` more steps, of `images` images together, are done; `text` says how it goes."""
        self._done += count
        self._images += images
        now = time.monotonic()
        if self._terminal:
            self._bar.set_postfix_str(f"{text}, {self.rate:.0f} images/s".lstrip(", "), refresh=False)
            self._bar.update(count)
        elif now - self._shown >= QUIET_SECONDS:
            self._shown = now
            left = (now - self._started) / max(1, self._done - self._first) * (self._total - self._done)
            parts = [
                f"{self._unit} {self._done:,} of {self._total:,}",
                text,
                f"{self.rate:.0f} images/s",
                f"{left:.0f} s left",
            ]
            print(f"{self._title}: {', '.join(part for part in parts if part)}", file=sys.stderr)

    @property
    def rate(self) -> float:
        """Images a second since the start."""
        return self._images / max(1e-9, time.monotonic() - self._started)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._bar.write(text, file=sys.stderr) if self._terminal else print(text, file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish that the loop reads between steps. A second Ctrl-C interrupts at once.

    with StopRequest() as stop:
        while not stop.signal: ...
    """

    def __init__(self) -> None:
        self.signal = ""  # "SIGINT" or "SIGTERM" once it came
        self._before: dict[int, Callable | int | None] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there has signals of their own
                break
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
