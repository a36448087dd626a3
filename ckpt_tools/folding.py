"""Folds a batch norm's gamma, and the biases in front of it, into the layer's weights and the moving mean.

    gamma * (w * x + biases - mean) / sqrt(variance + epsilon) + beta

is the same function of x without gamma and biases, if w is replaced by `gamma * w` and mean by `gamma * (mean -
biases)`. This holds for any epsilon and any sign of gamma, since nothing is divided."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .adaptation import Adaptation
from .tensors import Spec

if TYPE_CHECKING:
    import numpy as np

FOLDED = ("gamma", "biases")
_MEAN = "moving_mean"
_BIASES = ("biases", "bias")
# Names of a layer's last weights; for a separable layer, those of its second half come before those of its first.
_WEIGHTS = (("weights", "kernel"), ("pointwise_weights", "pointwise_kernel"), ("depthwise_weights", "depthwise_kernel"))
_NORMALISES_ITS_LAYER = re.compile(r"batch_?norm|^bn", re.IGNORECASE)  # not resnet_v2's preact, which follows no layer


class Foldable(NamedTuple):
    """A batch norm with `gamma`, or with `biases` in front of it, or both; None stands for the one it lacks.

    `weights` are those of the layer that it normalises, `spread` is the shape in which gamma multiplies them.
    """

    weights: str
    mean: str
    gamma: str | None
    biases: str | None
    spread: tuple[int, ...]

    def foldings(self, gamma: str | None, biases: str | None) -> dict[str, Folding]:
        """Name -> folding of the mean and the weights when these tensors of the source are folded into them."""
        made = {self.mean: Folding(gamma, biases, (-1,))} if gamma or biases else {}
        return made | ({self.weights: Folding(gamma, None, self.spread)} if gamma else {})


class Folding(NamedTuple):
    """A variable made from a source tensor minus `biases`, times `gamma`, both given by name or None.

    `then` adapts the result if the variable also has another shape.
    """

    gamma: str | None
    biases: str | None
    spread: tuple[int, ...]
    then: Adaptation | None = None
    kind: str = "fold"

    def apply(self, values: np.ndarray, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The values before `then`. `read` gives the values of a source tensor."""
        gamma, biases = (read(name) if name else None for name in (self.gamma, self.biases))
        return fold(values, gamma, biases, self.spread)

    def __str__(self) -> str:
        less, times = f"less {self.biases}" if self.biases else "", f"times {self.gamma}" if self.gamma else ""
        return ", ".join(filter(None, (less, times)))


def fold(
    values: np.ndarray, gamma: np.ndarray | None, biases: np.ndarray | None, spread: tuple[int, ...]
) -> np.ndarray:
    """`gamma * (values - biases)` in the type of the values, computed in at least float32.

    >>> import numpy
    >>> fold(numpy.ones((1, 2)), numpy.array([3.0, -1.0]), None, (1, 2))
    array([[ 3., -1.]])
    """
    import numpy as np

    wide = np.promote_types(values.dtype, np.float32)
    made = values.astype(wide)
    if biases is not None:
        made = made - biases.astype(wide)
    if gamma is not None:
        made = made * gamma.astype(wide).reshape(spread)
    return made.astype(values.dtype)


def foldable(specs: Mapping[str, Spec]) -> Iterator[Foldable]:
    """Every batch norm of a file that has something to fold, for layers named as in slim.

    >>> shapes = {"a/weights": (3, 3, 2, 8), "a/BatchNorm/gamma": (8,), "a/BatchNorm/moving_mean": (8,)}
    >>> next(foldable({name: Spec("float32", shape) for name, shape in shapes.items()})).spread
    (1, 1, 1, 8)
    """
    for mean, spec in specs.items():
        scope, _, last = mean.rpartition("/")
        if last != _MEAN or len(spec.shape) != 1:
            continue
        weights = _weights_in_front(scope, specs)
        spread = _spread(weights, specs[weights].shape, spec.shape[0]) if weights else None
        if not weights or not spread:
            continue
        layer = weights.rpartition("/")[0]
        gamma = _of_shape(spec.shape, [f"{scope}/gamma"], specs)
        biases = _of_shape(spec.shape, [f"{layer}/{word}" for word in _BIASES], specs)
        if gamma or biases:
            yield Foldable(weights, mean, gamma, biases, spread)


def _weights_in_front(scope: str, specs: Mapping[str, Spec]) -> str | None:
    """The weights of the layer that the batch norm in `scope` normalises; None if they are not certain."""
    above, _, own = scope.rpartition("/")
    layers = [scope, above] if _NORMALISES_ITS_LAYER.search(own) else [scope]
    for layer in layers:
        found = [[f"{layer}/{word}" for word in words if f"{layer}/{word}" in specs] for words in _WEIGHTS]
        plain, *halves = found
        if plain and any(halves):
            return None
        for names in (plain, *halves):
            if names:
                return names[0] if len(names) == 1 else None
    return None


def _spread(name: str, shape: tuple[int, ...], outputs: int) -> tuple[int, ...] | None:
    """The shape in which one value per output multiplies weights of this shape; None if the outputs do not match."""
    layer, _, last = name.rpartition("/")
    ones = (1,) * (len(shape) - 2)
    if len(shape) < 2:
        return None
    if last.startswith("depthwise"):  # [height, width, inputs, outputs of each]
        return (*ones, *shape[-2:]) if shape[-2] * shape[-1] == outputs else None
    if "transpose" in layer.lower():  # [height, width, outputs, inputs]
        return (*ones, outputs, 1) if shape[-2] == outputs else None
    return (*ones, 1, outputs) if shape[-1] == outputs else None


def _of_shape(shape: tuple[int, ...], names: list[str], specs: Mapping[str, Spec]) -> str | None:
    return next((name for name in names if name in specs and specs[name].shape == shape), None)
