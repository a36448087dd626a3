"""The learning rate as a plain function of the step, fed to each step: what resumes exactly is what has no state."""

from __future__ import annotations

import math

from ..options.training import Options

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


def batch_norm_decay(options: Options, total: int) -> float:
    """Decay of the moving statistics of batch norms that train: the one given, else 1 - 10 / steps, from 0.9 to 0.9997.

    Slim's 0.9997 remembers some 3,000 steps. In a run of a few hundred the statistics would stay near those of the
    source, or of an untrained net, and evaluation would be bad where training looks good.

    >>> batch_norm_decay(Options(), 500)
    0.98
    """
    if options.batch_norm_decay is not None:
        return options.batch_norm_decay
    return min(0.9997, max(0.9, 1 - 10 / max(1, total)))


def rate_at(options: Options, base: float, step: int, total: int, per_epoch: int) -> float:
    """The learning rate of the step after `step` finished ones.

    exponential: base * decay_rate ** (step / decay steps), without jumps; step: the same in jumps. cosine: from base
    to 0 along half a cosine (Loshchilov and Hutter 2016, without restarts). one-cycle: from base / 25 up to base in the
    first 30 % of the steps and down to base / 250,000, both along half a cosine (Smith and Topin 2017, with the figures
    of PyTorch's OneCycleLR). During warm-up the rate rises in a line from base / N.

    >>> rate_at(Options(schedule="cosine"), 0.1, 50, 100, 10)
    0.05
    """
    if step < options.warmup_steps:
        return base * (step + 1) / options.warmup_steps
    done, length = step - options.warmup_steps, max(1, total - options.warmup_steps)
    if options.schedule in ("exponential", "step"):
        periods = done / (options.decay_epochs * per_epoch)
        return base * options.decay_rate ** (math.floor(periods) if options.schedule == "step" else periods)
    if options.schedule == "cosine":
        return _half_cosine(base, 0.0, done / length)
    if options.schedule == "one-cycle":
        rise = 0.3 * length
        if done < rise:
            return _half_cosine(base / 25, base, done / rise)
        return _half_cosine(base, base / 250_000, (done - rise) / (length - rise))
    return base


def _half_cosine(start: float, end: float, share: float) -> float:
    """Between the two values, slow at both ends; `share` 0 is the start, 1 and more the end."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
