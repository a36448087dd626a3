"""From layers to tensors: each variable's names, axes and shape in another library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..tensors import Spec
from .reading import GRAPH_2015, Layout, LayoutLayer

_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
# Our last name component -> theirs; the first one is used for writing. Keras' files may number the weights of a layer.
_KERAS = {
    "weights": ("kernel", "0"),
    "depthwise_weights": ("kernel", "depthwise_kernel", "0"),
    "biases": ("bias", "1"),
    "gamma": ("gamma", "0"),
    "beta": ("beta", "1"),
    "moving_mean": ("moving_mean", "running_mean", "2"),
    "moving_variance": ("moving_variance", "running_std", "3"),
}
_KERAS_WITHOUT_GAMMA = {
    "beta": ("beta", "0"),
    "moving_mean": ("moving_mean", "running_mean", "1"),
    "moving_variance": ("moving_variance", "running_std", "2"),
}
_KERAS_SEPARABLE = {
    "depthwise_weights": ("depthwise_kernel", "0"),
    "pointwise_weights": ("pointwise_kernel", "1"),
}
_TORCH = {
    "weights": ("weight",),
    "biases": ("bias",),
    "gamma": ("weight",),
    "beta": ("bias",),
    "moving_mean": ("running_mean",),
    "moving_variance": ("running_var",),
}
# The head of the 2015 graph is softmax, or the one that retrain.py put in its place.
_2015_HEADS = {
    "weights": ("softmax/weights", "final_training_ops/weights/final_weights", "final_weights"),
    "biases": ("softmax/biases", "final_training_ops/biases/final_biases", "final_biases"),
}
_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # [out, in, height, width] becomes ours; [out, in] becomes [in, out]


class Link(NamedTuple):
    """One tensor in both worlds.

    `kind` is the kind of its layer, `ours` its name here. `theirs` are its names there; the first is used for writing.
    `axes` gives for each of our axes the axis of theirs (None: the same order), where theirs has the shape `unfolded`.
    In files it has `shape`, with the same values in the same order. `fill` is the value to write for a tensor that our
    net lacks; when read, such a tensor is folded into its layer if `folds`, else dropped.
    """

    kind: str
    ours: str
    theirs: tuple[str, ...]
    spec: Spec
    axes: tuple[int, ...] | None
    unfolded: tuple[int, ...]
    shape: tuple[int, ...]
    fill: float | None = None
    folds: bool = False


def links(layout: Layout, scope: str, variables: Mapping[str, Spec]) -> tuple[Link, ...]:
    """The links of all tensors of a net under `scope` with these variables, in the order of the other library's
    files."""
    made = {"keras": _keras, GRAPH_2015: _graph_2015}.get(layout.world, _torch)
    place = f"{scope}/" if scope else ""
    return tuple(link for layer in layout.layers for link in made(layer, f"{place}{layer.ours}", variables))


def _keras(layer: LayoutLayer, scope: str, variables: Mapping[str, Spec]) -> Iterator[Link]:
    if layer.kind == "norm":
        place = _norm(scope, variables)
        names = _KERAS if f"{place}/gamma" in variables else _KERAS_WITHOUT_GAMMA
        for word in _STATISTICS:
            if f"{place}/{word}" in variables:
                yield _same("norm", f"{place}/{word}", _named(layer, names[word], "/"), variables)
        return
    if layer.kind == "separable":
        for word, words in _KERAS_SEPARABLE.items():
            if f"{scope}/{word}" in variables:
                yield _same(layer.kind, f"{scope}/{word}", _named(layer, words, "/"), variables)
        return
    weights = f"{scope}/{'depthwise_weights' if layer.kind == 'depthwise' else 'weights'}"
    if weights not in variables:
        return
    spec = variables[weights]
    shape = (math.prod(spec.shape[:-1]), spec.shape[-1]) if layer.kind == "dense" else spec.shape
    theirs = _named(layer, _KERAS[weights.rpartition("/")[2]], "/")
    yield Link(layer.kind, weights, theirs, spec, None, shape, shape)
    yield from _biases(layer, scope, _named(layer, _KERAS["biases"], "/"), spec, variables)


def _torch(layer: LayoutLayer, scope: str, variables: Mapping[str, Spec]) -> Iterator[Link]:
    if layer.kind == "norm":
        place = _norm(scope, variables)
        if f"{place}/moving_mean" not in variables:
            return
        for word in _STATISTICS:
            names = _named(layer, _TORCH[word], ".")
            yield _same("norm", f"{place}/{word}", names, variables, like=f"{place}/moving_mean")
        tracked = _named(layer, ("num_batches_tracked",), ".")
        yield Link("norm", f"{place}/batches", tracked, Spec("int64", ()), None, (), (), fill=0)
        return
    weights = f"{scope}/weights"
    if weights not in variables:
        return
    spec = variables[weights]
    axes = _TORCH_AXES[len(spec.shape)]
    unfolded = tuple(spec.shape[axes.index(axis)] for axis in range(len(axes)))
    shape = (unfolded[0], math.prod(unfolded[1:])) if layer.kind == "dense" else unfolded
    yield Link(layer.kind, weights, _named(layer, _TORCH["weights"], "."), spec, axes, unfolded, shape)
    yield from _biases(layer, scope, _named(layer, _TORCH["biases"], "."), spec, variables)


def _graph_2015(layer: LayoutLayer, scope: str, variables: Mapping[str, Spec]) -> Iterator[Link]:
    if layer.kind == "norm":
        place = _norm(scope, variables)
        for word in _STATISTICS if f"{place}/moving_mean" in variables else ():
            names = _named(layer, (f"batchnorm/{word}",), "/")
            yield _same("norm", f"{place}/{word}", names, variables, like=f"{place}/moving_mean")
        return
    if f"{scope}/weights" not in variables:
        return
    spec = variables[f"{scope}/weights"]
    if layer.kind == "conv":
        yield _same("conv", f"{scope}/weights", _named(layer, ("conv2d_params",), "/"), variables)
        return
    shape = (math.prod(spec.shape[:-1]), spec.shape[-1])
    yield Link("dense", f"{scope}/weights", _2015_HEADS["weights"], spec, None, shape, shape)
    yield from _biases(layer, scope, _2015_HEADS["biases"], spec, variables)


def _norm(scope: str, variables: Mapping[str, Spec]) -> str:
    """The scope of a batch norm's variables: `scope`/BatchNorm if that exists, else `scope` itself."""
    return f"{scope}/BatchNorm" if f"{scope}/BatchNorm/beta" in variables else scope


def _biases(
    layer: LayoutLayer, scope: str, theirs: tuple[str, ...], weights: Spec, variables: Mapping[str, Spec]
) -> Iterator[Link]:
    name = f"{scope}/biases"
    if name in variables:
        yield _same(layer.kind, name, theirs, variables)
    elif layer.biased:
        spec = Spec(weights.dtype, weights.shape[-1:])
        yield Link(layer.kind, name, theirs, spec, None, spec.shape, spec.shape, fill=0.0, folds=True)


def _same(kind: str, ours: str, theirs: tuple[str, ...], variables: Mapping[str, Spec], like: str = "") -> Link:
    """The link of a tensor with the same axes there, such as any vector. A tensor that our net lacks gets the shape of
    `like` and is filled with 1 if it is a gamma, else with 0."""
    if ours in variables:
        spec = variables[ours]
        return Link(kind, ours, theirs, spec, None, spec.shape, spec.shape)
    spec = variables[like]
    fill = 1.0 if ours.endswith("/gamma") else 0.0
    return Link(kind, ours, theirs, spec, None, spec.shape, spec.shape, fill=fill, folds=True)


def _named(layer: LayoutLayer, words: tuple[str, ...], between: str) -> tuple[str, ...]:
    return tuple(f"{layer.theirs}{between}{word}" for word in words)
