"""From the loss to the operation that changes the variables: rates by scope, clipping, moving averages of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from ...errors import RecipeError, TrainingError
from ...names import select, valued_patterns
from ...nets.net import Net
from ..options.training import Options
from .precision import LossScale, apply_if_finite

NO_AGES: Mapping[str, int] = MappingProxyType({})


class Update(NamedTuple):
    """The operation that updates all trained variables, and the L2 norm of each gradient before clipping, in order."""

    operation: tf.Operation
    gradient_norms: tf.Tensor


def values_by_scope(flag: str, texts: Iterable[str], names: Sequence[str], default: float) -> dict[str, float]:
    """The value of `--flag PATTERN=VALUE,...` for each name; the last pattern that selects a name decides.

    Raises RecipeError for a malformed text, SelectionError for a pattern that selects none of the names.
    """
    values = dict.fromkeys(names, default)
    for pattern, number in valued_patterns(texts):
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not pattern or not 0 <= value < float("inf"):
            part = f"{pattern}={number}" if number else pattern
            raise RecipeError(f"{flag} {part}: write PATTERN=VALUE with a value of at least 0")
        values.update(dict.fromkeys(select(names, pattern, option=flag), value))
    return values


def rate_factors(options: Options, net: Net, names: Sequence[str]) -> dict[str, float]:
    """Factor of the learning rate for each trained variable.

    `--layer-decay D` gives the head 1, the block before it D, the one before that D * D, and so on towards the image (a
    block is a scope directly under the net's own, such as Mixed_7c or block4; Howard and Ruder 2018 call this
    discriminative fine-tuning). `--lr-mult` is multiplied on top.
    """
    factors = values_by_scope("--lr-mult", options.lr_mult, names, 1.0)
    if options.layer_decay == 1:
        return factors
    blocks: list[str] = []
    for row in net.table:
        if net.role(row) in ("backbone", "statistic") and _block(net, row.name) not in blocks:
            blocks.append(_block(net, row.name))
    from_head = {block: len(blocks) - number for number, block in enumerate(blocks)}
    return {name: f * options.layer_decay ** from_head.get(_block(net, name), 0) for name, f in factors.items()}


def _block(net: Net, name: str) -> str:
    return name.removeprefix(f"{net.scope}/").partition("/")[0]


def weight_penalty(
    options: Options, variables: Sequence[tf.Variable], names: Sequence[str] | None = None
) -> tf.Tensor | None:
    """Half the squared L2 norm of every trained weight, times its decay; None if all decays are 0.

    Weight decay applies to kernels and matrices, not to biases or the beta and gamma of a batch norm, which have one
    axis. `names` are the names that --weight-decay-for may select, by default those of the variables.
    """
    names = [v.op.name for v in variables] if names is None else names
    decays = values_by_scope("--weight-decay-for", options.weight_decay_for, names, options.weight_decay)
    penalties = [
        decays[variable.op.name] * tf.nn.l2_loss(variable)
        for variable in variables
        if variable.shape.rank > 1 and decays[variable.op.name]
    ]
    return tf.add_n(penalties) if penalties else None


def make_optimizer(options: Options, learning_rate: tf.Tensor) -> tf.train.Optimizer:
    """The optimizer named by the options, with slim's defaults for settings without an option. Its slots have the same
    names as in old checkpoints."""
    if options.optimizer == "sgd":
        return tf.train.GradientDescentOptimizer(learning_rate)
    if options.optimizer == "momentum":
        return tf.train.MomentumOptimizer(learning_rate, options.momentum, name="Momentum")
    if options.optimizer == "rmsprop":
        return tf.train.RMSPropOptimizer(learning_rate, decay=0.9, momentum=options.momentum, epsilon=1.0)
    if options.optimizer == "adagrad":
        return tf.train.AdagradOptimizer(learning_rate, initial_accumulator_value=0.1)
    return tf.train.AdamOptimizer(learning_rate)


def apply_gradients(
    gradients: Sequence[tuple[tf.Tensor | None, tf.Variable]],
    options: Options,
    factors: Mapping[str, float],
    learning_rate: tf.Tensor,
    step: tf.Variable,
    *,
    ages: Mapping[str, int] = NO_AGES,
    scale: LossScale | None = None,
) -> Update:
    """Clips the gradients, applies them with each variable's own rate, counts the step, updates the moving averages.

    There is one optimizer per factor (scaling the gradient instead would not work, since Adam normalises it away) and
    per age, the phase in which variables began to train: Adam counts the steps of its variables, and optimizers of
    earlier phases keep their slots' names. With a `scale` the gradients may overflow; see precision.py.
    Raises TrainingError for a variable that the loss does not depend on.
    """
    idle = [variable.op.name for gradient, variable in gradients if gradient is None]
    if idle:
        raise TrainingError(f"the loss does not depend on {', '.join(idle)}")
    values, variables = [tf.convert_to_tensor(g) for g, _ in gradients], [v for _, v in gradients]
    norms = tf.sqrt(2 * tf.stack([tf.nn.l2_loss(value) for value in values]), name="gradient_norms")
    if options.clip_norm:
        values, _ = tf.clip_by_global_norm(values, options.clip_norm)
    groups: dict[tuple[int, float], list[tuple[tf.Tensor, tf.Variable]]] = {}
    for value, variable in zip(values, variables, strict=True):
        name = variable.op.name
        groups.setdefault((ages.get(name, 0), factors.get(name, 1.0)), []).append((value, variable))

    def apply() -> tf.Operation:
        applied = []
        for (_, factor), pairs in sorted(groups.items(), key=lambda group: group[0][0]):
            rate = learning_rate if factor == 1 else learning_rate * factor
            applied.append(make_optimizer(options, rate).apply_gradients(pairs))
        return tf.group(*applied)

    if scale is None:
        applied = apply()
    else:
        applied, left_out = apply_if_finite(values, apply, scale)
        norms = tf.where(left_out, tf.zeros_like(norms), norms)
    with tf.control_dependencies([applied]):
        counted = tf.assign_add(step, 1)
    if options.ema is None:
        return Update(counted.op, norms)
    with tf.control_dependencies([counted]):
        # As in slim, the average follows quickly early on: min(decay, (1 + step) / (10 + step)).
        averages = tf.train.ExponentialMovingAverage(options.ema, num_updates=step)
        return Update(averages.apply(variables), norms)
