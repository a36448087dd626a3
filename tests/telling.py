"""Collects events as the lines that the commands print for them."""

from collections.abc import Callable

from ckpt_tools.cli.events import lines_of
from ckpt_tools.events import Evaluated, Event, OnEvent


def lines_to(said: list[str]) -> OnEvent:
    """A listener that collects the lines, but for those of each evaluation."""

    def listen(event: Event) -> None:
        if not isinstance(event, Evaluated):
            said.extend(lines_of(event))

    return listen


def at_step(step: int, do: Callable[[], None], then: OnEvent = lambda event: None) -> OnEvent:
    """A listener that calls `do` when a training step is finished and `then` is told of everything."""
    from ckpt_tools.events import Step

    def listen(event: Event) -> None:
        then(event)
        if isinstance(event, Step) and event.step == step:
            do()

    return listen
