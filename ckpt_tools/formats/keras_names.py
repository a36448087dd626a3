"""From the numbered weights of Keras 3 to variable names, and from variable names to the layers of a Keras 2 file."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_KERNEL = ("kernel", "bias")
# Layer class, as Keras 3 spells it in its files -> its variables, in the order in which the layer makes them.
_VARIABLES = {
    "dense": _KERNEL,
    "conv1d": _KERNEL,
    "conv2d": _KERNEL,
    "conv3d": _KERNEL,
    "conv1d_transpose": _KERNEL,
    "conv2d_transpose": _KERNEL,
    "conv3d_transpose": _KERNEL,
    "depthwise_conv1d": _KERNEL,
    "depthwise_conv2d": _KERNEL,
    "separable_conv1d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "embedding": ("embeddings",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "p_re_lu": ("alpha",),
}
_OPTIMIZERS = frozenset(
    ["sgd", "rmsprop", "adam", "adamw", "adadelta", "adagrad", "adamax", "adafactor", "nadam", "ftrl", "lion", "lamb"]
    + ["muon", "loss_scale_optimizer", "optimizer", "training", "iterations"]
)


def variable_of(layer_class: str, number: int, count: int) -> str | None:
    """The name of variable `number` of a layer that has `count`; None where the order does not tell.

    >>> variable_of("conv2d_3", 0, 1), variable_of("batch_normalization", 2, 4)
    ('kernel', 'moving_mean')
    >>> variable_of("batch_normalization", 0, 3) is None  # gamma, or beta of one without gamma
    True
    """
    known = _VARIABLES.get(layer_class) or _VARIABLES.get(re.sub(r"_\d+\Z", "", layer_class), ())
    without_bias = known[-1:] == ("bias",) and count == len(known) - 1
    return known[number] if count == len(known) or without_bias else None


def layers_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Layer -> the names of its weights. The layer is the first component, or the second below the name of a model.

    >>> layers_of(["sequential/conv/kernel", "sequential/out/kernel", "adam/iteration"])
    {'conv': ['sequential/conv/kernel'], 'out': ['sequential/out/kernel'], 'adam': ['adam/iteration']}
    >>> layers_of(["block1_conv1/kernel", "lstm/lstm_cell/kernel"])
    {'block1_conv1': ['block1_conv1/kernel'], 'lstm': ['lstm/lstm_cell/kernel']}
    """
    model = _model_name(names)
    layers: dict[str, list[str]] = {}
    for name in names:
        first, *rest = name.split("/")
        layers.setdefault(rest[0] if first == model else first, []).append(name)
    return layers


def _model_name(names: Collection[str]) -> str | None:
    """The scope that all weights but an optimizer's lie in, two levels deep, where there is more than one layer."""
    parts = [name.split("/") for name in names]
    weights = [p for p in parts if len(p) > 1 and p[0] not in _OPTIMIZERS]
    scopes = {p[0] for p in weights}
    if len(scopes) != 1 or any(len(p) < 3 for p in weights) or len({p[1] for p in weights}) < 2:
        return None
    model = scopes.pop()
    taken = {p[0] for p in parts if p[0] != model}
    return None if taken & {p[1] for p in weights} else model
