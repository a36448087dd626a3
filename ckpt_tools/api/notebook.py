"""The face of events for Python: in a notebook lines below the cell and bars of tqdm, else those of the commands."""

from __future__ import annotations

import sys
import warnings

from ..cli.events import Printer, Progress
from ..events import Began, Event, OnEvent


class Notebook(Printer):
    """Prints to stdout, which notebooks show below the cell, with the bars of `tqdm.auto`."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def progress(self, began: Began) -> Progress:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ipywidgets is not installed: a bar of text will do
            from tqdm.auto import tqdm

            bar = tqdm(total=began.total, initial=began.done, desc=began.work, unit=began.unit, leave=False)
        return Progress(began, self.stream, bar)


def listener(on_event: OnEvent | None, verbose: bool) -> OnEvent:
    """What a call tells its events to: the caller's function and, with `verbose`, a face that prints them."""
    faces = [*([face()] if verbose else []), *([on_event] if on_event else [])]

    def tell(event: Event) -> None:
        for each in faces:
            each(event)

    return tell


def face() -> OnEvent:
    """Prints what events say, as is usual where this process runs."""
    return Notebook() if "ipykernel" in sys.modules else Printer()
