"""Events, and the lines that the commands print for them."""

import dataclasses

import pytest

from ckpt_tools import events
from ckpt_tools.cli.events import Printer, lines_of
from ckpt_tools.events import Advanced, Began, Continued, Ended, Evaluated, Event, Noted, Step
from ckpt_tools.plan import make_plan

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
FIGURES = {"validation_loss": 1.2108, "validation_accuracy": 0.515}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_frozen_and_say_what_they_are(kind):
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen and kind.__doc__


def test_facts_have_no_padding():
    """Words and columns are the printer's: an event's texts have none."""
    event = events.CacheFound(1400, 0, 8192, 0.0002, ("InceptionV3/Logits/AvgPool_1a_1x1",))
    assert lines_of(event) == [
        "cache          0 of 1,400 images cached; each step runs 0.02% of the net\n"
        "               8,192 bytes per image, 11.5 MB in total, at InceptionV3/Logits/AvgPool_1a_1x1"
    ]
    assert lines_of(Step(1, 2, 0.5, 0.5, 0.1, 8)) == []
    assert lines_of(Evaluated(32, 1.5803, FIGURES)) == ["step 32: loss 1.5803, validation loss 1.2108, accuracy 0.515"]
    labels = tuple(map(str, range(1000)))
    made = make_plan({}, [])
    planned = events.Planned(made, "net", labels, "", "", 32, 1500, 9, (2, 1) * 500, 9, 32, "adam", 1, "CPU")
    said = "\n".join(lines_of(planned))
    assert "17, 18, 19 and 980 more\n" in said and "9 for validation; per class: from 1 to 2\n" in said
    assert lines_of(Evaluated(32, 1.5803, {})) == ["step 32: loss 1.5803, no validation images"]
    assert lines_of(Continued(8, 16, ())) == ["continuing     after step 8 of 16"]
    assert lines_of(Continued(25, 10, ())) == ["continuing     after step 25; 10 were asked for"]


def test_without_a_terminal_a_line_now_and_then(capsys, monkeypatch):
    from ckpt_tools.cli import events as module

    now = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    printer = Printer()
    printer(Began("training", 10, 2))
    for step in (3, 4, 5, 6):
        printer(Step(step, 10, 1 / step, 0.5, 0.1, 8))
    printer(Ended("training"))
    printer(Noted("done"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training: step 4 of 10, loss 0.2500, 1 images/s, 93 s left",
        "training: step 6 of 10, loss 0.1667, 1 images/s, 62 s left",
        "note           done",
    ]


def test_on_a_terminal_a_bar_that_goes_away():
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    printer = Printer(stream)
    printer(Began("evaluating", 2, unit="batch"))
    printer(Advanced("evaluating", images=8))
    printer(Evaluated(1, 2.0, FIGURES))
    printer(Ended("evaluating"))
    shown = stream.getvalue()
    assert "evaluating:   0%" in shown and "step 1: loss 2.0000" in shown
    assert shown.endswith("\r")  # the bar is wiped


def test_the_work_is_over_also_after_an_error():
    pytest.importorskip("tensorflow")
    from ckpt_tools.train.graph.progress import told

    seen = []
    with pytest.raises(ValueError, match="no"), told(seen.append, "training", total=3):
        raise ValueError("no")
    assert seen == [Began("training", 3), Ended("training")]
