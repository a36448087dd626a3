"""One line on stderr that says how far a long copy is; nothing where stderr is no terminal or the copy is short."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SILENT = 0.5  # seconds: most checkpoints are written before anybody would look
_EVERY = 0.1


@contextmanager
def progress_line(what: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Gives a function to call with the number of bytes just written; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    line = _Line(what, total)
    try:
        yield line.add
    finally:
        line.clear()


class _Line:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, max(total, 1), 0
        self._start = time.monotonic()
        self._next = self._start + _SILENT
        self._shown = 0

    def add(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        share = min(self._done / self._total, 1)
        rate = self._done / (now - self._start) / 1e6
        text = f"{self._what} {share:4.0%}  {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB, {rate:,.0f} MB/s"
        sys.stderr.write("\r" + text.ljust(self._shown))
        sys.stderr.flush()
        self._shown = len(text)

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
