"""The learning rate as a plain function of the step, fed to each step: what resumes exactly is what has no state."""

from __future__ import annotations

import math

from .options import Options

DEFAULT_EPOCHS = 10.0
# Rates that suit a new head on frozen features; a tenth of them when restored layers are trained as well.
HEAD_RATES = {"adam": 1e-3, "momentum": 1e-2, "sgd": 1e-1, "rmsprop": 1e-3, "adagrad": 1e-2}


def base_rate(options: Options, *, head_only: bool) -> float:
    """The learning rate that the schedule starts from: the one given, else the default for what is trained."""
    if options.learning_rate is not None:
        return options.learning_rate
    return HEAD_RATES[options.optimizer] * (1.0 if head_only else 0.1)


def total_steps(options: Options, per_epoch: int) -> int:
    """Steps of the whole run: as given, or as many as the epochs take.

    >>> total_steps(Options(epochs=2.5), 32)
    80
    """
    if options.steps is not None:
        return options.steps
    return math.ceil((options.epochs or DEFAULT_EPOCHS) * per_epoch)


def rate_at(options: Options, base: float, step: int, total: int, per_epoch: int) -> float:
    """The learning rate of the step after `step` finished ones.

    exponential: base * decay_rate ** (step / decay steps), without jumps. cosine: from base to 0 along half a
    cosine (Loshchilov and Hutter 2016, without restarts). During warm-up the rate rises in a line from base / N.

    >>> rate_at(Options(schedule="cosine"), 0.1, 50, 100, 10)
    0.05
    """
    if step < options.warmup_steps:
        return base * (step + 1) / options.warmup_steps
    done, length = step - options.warmup_steps, max(1, total - options.warmup_steps)
    if options.schedule == "exponential":
        return base * options.decay_rate ** (done / (options.decay_epochs * per_epoch))
    if options.schedule == "cosine":
        return base * (1 + math.cos(math.pi * min(1.0, done / length))) / 2
    return base
