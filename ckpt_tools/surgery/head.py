"""Other classes, other input channels: the two ends of a net, with the slots and averages of their variables."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..adaptation import Adaptation, channels, class_map_of_labels, classes
from ..dtypes import numpy_dtype
from ..errors import RecipeError
from ..kinds import Kind
from ..names import parse_patterns
from ..report import listed
from ..tensors import Spec, Tensor, Tensors
from .operation import Edit, EditRow, Operation, chosen, kinds_of, replaced
from .shaping import constant

if TYPE_CHECKING:
    import numpy as np

# Where slim's nets, and most others, have their classifiers: Inception, ResNet and MobileNet; VGG and AlexNet;
# NASNet; Inception's auxiliary heads (two spellings); Keras' applications.
HEAD_SCOPES = ("Logits", "AuxLogits", "Aux_logits", "fc8", "final_layer", "aux_*", "predictions")
# The value that TensorFlow's optimizers give a new slot, where it is not 0: training_ops would divide by 0.
SLOT_STARTS = {"RMSProp": 1.0, "Adagrad": 0.1, "Ftrl": 0.1}


@dataclass(frozen=True)
class HeadResize(Operation):
    """Gives a classifier other classes.

    Class i of the new head is the class `class_map[i]` of the old one, or a new one where that is None. Without a
    map, labels_from and labels_to say the same by name; with `classes` alone every class is new.

    The head is every variable in the scopes `select` whose last axis (TensorFlow's class axis, in convolutions,
    matrices and biases alike) is as long as the biases there. The optimizer slots and moving averages of these
    variables follow: an average like its variable, a slot with its optimizer's starting value for a new class.

    New weights are 0, or with init="normal" drawn from a normal distribution cut at two standard deviations
    (slim's truncated_normal_initializer) by a generator seeded with `seed` and the variable's name, so that the
    order of the variables does not matter; new biases are 0.

    >>> from ckpt_tools.tensors import from_arrays
    >>> source = from_arrays({"net/logits/weights": [[1.0, 2.0, 3.0]], "net/logits/biases": [0.1, 0.2, 0.3]})
    >>> HeadResize(class_map=(2, 0, None))(source)["net/logits/weights"].load()
    array([[3., 1., 0.]])
    """

    classes: int | None = None
    class_map: tuple[int | None, ...] = ()
    labels_from: tuple[str, ...] = ()
    labels_to: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    init: str = "zeros"
    stddev: float = 0.01
    seed: int = 0
    command: ClassVar[str] = "head"
    short: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        if self.classes is not None and self.classes < 1:
            raise RecipeError(f"head: a classifier has 1 class or more, not {self.classes}")
        if bool(self.labels_from) != bool(self.labels_to):
            raise RecipeError("head: labels_from (the old classes) and labels_to (the new ones) go together")
        if self.class_map and self.labels_from:
            raise RecipeError("head: either a class map or labels, not both")
        if self.init not in ("zeros", "normal"):
            raise RecipeError(f"head: init is zeros or normal, not {self.init!r}")
        new = len(self.class_map or self.labels_to)
        if not new and self.classes is None:
            raise RecipeError("head needs classes, a class_map, or labels_from and labels_to")
        if new and self.classes not in (None, new):
            raise RecipeError(f"head: {self.classes} classes asked for, but the map has {new}")

    def edit(self, tensors: Tensors) -> Edit:
        return _resized(tensors, self.select, self.command, self._map, self._start)

    def _map(self, old: int) -> tuple[int | None, ...]:
        if self.labels_from:
            if len(self.labels_from) != old:
                hint = "; does it leave out the background class?" if len(self.labels_from) == old - 1 else ""
                raise RecipeError(f"the head has {old} classes, labels_from has {len(self.labels_from)}{hint}")
            return class_map_of_labels(self.labels_to, self.labels_from)
        return self.class_map or (None,) * (self.classes or 0)

    def _start(self, name: str, spec: Spec) -> np.ndarray:
        import numpy as np

        if self.init == "zeros" or len(spec.shape) < 2:
            return np.zeros(spec.shape, numpy_dtype(spec.dtype))
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        values = generator.standard_normal(spec.shape)
        while (far := np.abs(values) > 2).any():
            values[far] = generator.standard_normal(np.count_nonzero(far))
        return (values * self.stddev).astype(numpy_dtype(spec.dtype))


@dataclass(frozen=True)
class Background(Operation):
    """Drops or adds class 0, the background of slim's 1001-class heads.

    Inception and MobileNet were published with 1001 classes, 0 being "background"; VGG and ResNet v1 with 1000.
    Labels are off by one where the two are mixed.
    """

    change: str
    select: tuple[str, ...] = ()
    command: ClassVar[str] = "background"
    short: ClassVar[str] = "change"

    def __post_init__(self) -> None:
        if self.change not in ("drop", "add"):
            raise RecipeError(f"background: drop or add, not {self.change!r}")

    def edit(self, tensors: Tensors) -> Edit:
        return _resized(tensors, self.select, self.command, self._map, _zeros)

    def _map(self, old: int) -> tuple[int | None, ...]:
        if self.change == "add":
            return (None, *range(old))
        if old == 1:
            raise RecipeError("the head has 1 class, none would be left")
        return tuple(range(1, old))


@dataclass(frozen=True)
class InputChannels(Operation):
    """Adapts the first convolution to pictures with another number of channels.

    To 1 channel: the weights are added up over the channels. A convolution is linear, so a grey picture g gives
    the same result as the colour picture (g, g, g) gave: sum_c(w_c * g) = (sum_c w_c) * g.
    To N channels: the channels are repeated (1, 2, 3, 1, 2, ...) up to N and scaled by old/N, so that the sum over
    the channels, and with it the size of what the next layer sees, stays the same where N is a multiple of the
    old number, and about the same elsewhere. Both as in timm's `adapt_input_conv` (timm/models/_manipulate.py).

    The convolution is the one weight of four axes (height, width, in, out) with 3 input channels, or `select`.
    Moving averages are adapted by the same formula; optimizer slots begin anew.

    >>> import numpy
    >>> from ckpt_tools.tensors import from_arrays
    >>> source = from_arrays({"net/conv1/weights": numpy.ones((7, 7, 3, 64), "float32")})
    >>> InputChannels(1)(source)["net/conv1/weights"].load()[0, 0, :, 0]
    array([3.], dtype=float32)
    """

    channels: int
    select: tuple[str, ...] = ()
    command: ClassVar[str] = "input_channels"
    short: ClassVar[str] = "channels"

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise RecipeError(f"input_channels: 1 channel or more, not {self.channels}")

    def edit(self, tensors: Tensors) -> Edit:
        specs = tensors.specs()
        found = kinds_of(tensors)
        names, problems = chosen(tensors, self.select, self.command) if self.select else (list(tensors), ())
        stems = [name for name in names if found[name].kind == "weight" and len(specs[name].shape) == 4]
        if not self.select:
            stems = [name for name in stems if specs[name].shape[2] == 3]
        if not problems and len(stems) != 1:
            what = "with 3 input channels" if not self.select else f"in {','.join(self.select)}"
            many = f"{len(stems)} convolutions {what}: {', '.join(stems[:5])}" if stems else f"no convolution {what}"
            problems = (f"input_channels: {many}; in a recipe, `select` names the one to adapt",)
        elif not problems and stems[0].rpartition("/")[2].startswith("depthwise"):
            # Each of its channels has outputs of its own, which the pointwise convolution behind it counts on.
            problems = (f"input_channels: {stems[0]} is a depthwise convolution, whose channels do not add up",)
        elif not problems and specs[stems[0]].shape[2] == self.channels:
            problems = (f"input_channels: {stems[0]} has {self.channels} input channels already",)
        if problems:
            return Edit(tensors, problems=problems)
        adaptation = channels(2, specs[stems[0]].shape[2], self.channels)
        return _adapted(tensors, {stems[0]: adaptation}, found, self.command, _zeros)


def _resized(
    tensors: Tensors,
    patterns: Sequence[str],
    command: str,
    class_map: Callable[[int], tuple[int | None, ...]],
    start: Callable[[str, Spec], np.ndarray],
) -> Edit:
    """The head in `patterns` with the classes that `class_map(number of old classes)` lists."""
    found = kinds_of(tensors)
    names, old, problems = _head(tensors, patterns, found, command)
    if not problems:
        try:
            mapped = class_map(old)
        except RecipeError as error:
            problems = (f"{command}: {error}",)
        else:
            beyond = sorted({taken for taken in mapped if taken is not None and taken >= old})
            if beyond:
                problems = (
                    f"{command}: the head has classes 0 to {old - 1}, the class map asks for {listed(beyond, 5)}",
                )
    if problems:
        return Edit(tensors, problems=problems)
    return _adapted(tensors, {name: classes(-1, mapped) for name in names}, found, command, start)


def _head(
    tensors: Tensors, patterns: Sequence[str], found: Mapping[str, Kind], command: str
) -> tuple[list[str], int, tuple[str, ...]]:
    """The variables with a class axis, the number of classes, and what is wrong."""
    weights = [name for name in tensors if found[name].kind == "weight"]
    if patterns:
        inside, problems = chosen(weights, patterns, command)
    else:
        inside, problems = _in_head_scopes(weights), ()
    if problems:
        return [], 0, problems
    biases = {name: tensors[name].spec.shape[0] for name in inside if _is_bias(name, tensors[name].spec)}
    if not biases:
        usual = f"no head in the usual scopes ({', '.join(HEAD_SCOPES)})"
        where = f"no biases in {','.join(patterns)}" if patterns else usual
        advice = "`select` (--head-scope) names the scope of the last layer"
        if any(name.endswith(".bias") for name in weights):  # whose weights have the classes first
            advice = "the names are PyTorch's: ckpt-convert --layout slim gives a net of slim's its names and axes"
        return [], 0, (f"{command}: {where}; {advice}",)
    if len(set(biases.values())) > 1:
        sizes = ", ".join(f"{name} has {size}" for name, size in biases.items())
        fact = f"heads with different numbers of classes ({sizes}); `select` (--head-scope) names one"
        return [], 0, (f"{command}: {fact}",)
    old = next(iter(biases.values()))
    # Only layers that have biases: the hidden layers of an auxiliary head, whose batch norm takes their place,
    # may happen to be as wide as there are classes.
    layers = {_scope(name) for name in biases}
    return [name for name in inside if _scope(name) in layers and tensors[name].spec.shape[-1:] == (old,)], old, ()


def _adapted(
    tensors: Tensors,
    adaptations: Mapping[str, Adaptation],
    found: Mapping[str, Kind],
    command: str,
    start: Callable[[str, Spec], np.ndarray],
) -> Edit:
    """The variables of `adaptations`, their averages and their slots, in their new shapes."""
    changed, rows = {}, []
    for name, kind in found.items():
        variable = kind.of if kind.kind in ("slot", "average") else name
        if variable is None or variable not in adaptations:
            continue
        tensor, adaptation = tensors[name], adaptations[variable]
        # A slot of another shape (a scalar, a factored second moment) has no axis that we know how to change.
        if name != variable and tensor.spec.shape != tensors[variable].spec.shape:
            continue
        if kind.kind == "slot":
            changed[name] = _slot(tensor, adaptation, SLOT_STARTS.get(kind.slot or "", 0.0))
        else:
            changed[name] = _adapted_tensor(tensor, adaptation, partial(start, variable))
        rows.append(EditRow(name, command, name, tensor.spec, changed[name].spec, _said(adaptation, kind, tensor.spec)))
    return Edit(replaced(tensors, changed), tuple(rows))


def _adapted_tensor(tensor: Tensor, adaptation: Adaptation, fresh: Callable[[Spec], np.ndarray]) -> Tensor:
    spec = _adapted_spec(tensor.spec, adaptation)
    return Tensor(spec, lambda: adaptation.apply(tensor.load(), fresh(spec)))


def _slot(tensor: Tensor, adaptation: Adaptation, value: float) -> Tensor:
    """Rows of old classes keep their history; a first layer's history is of other channels and begins anew."""
    if adaptation.kind == "classes":
        return _adapted_tensor(tensor, adaptation, lambda spec: constant(spec, value).load())
    return constant(_adapted_spec(tensor.spec, adaptation), value)


def _adapted_spec(spec: Spec, adaptation: Adaptation) -> Spec:
    shape = list(spec.shape)
    shape[adaptation.axis] = 1 if adaptation.kind == "channel sum" else len(adaptation.take)
    return Spec(spec.dtype, tuple(shape))


def _said(adaptation: Adaptation, kind: Kind, before: Spec) -> str:
    if adaptation.kind == "classes":
        kept = len({taken for taken in adaptation.take if taken is not None})
        new = adaptation.take.count(None)
        return f"{kept} of {before.shape[adaptation.axis]} classes kept" + (f", {new} new" if new else "")
    if kind.kind == "slot":
        return "begins anew"
    if adaptation.kind == "channel sum":
        return f"{len(adaptation.take)} channels summed"
    return f"channels repeated, times {adaptation.scale:.3g}"


def _in_head_scopes(names: Sequence[str]) -> list[str]:
    usual = parse_patterns(HEAD_SCOPES)
    return [name for name in names if usual.match(name) is not None]


def _is_bias(name: str, spec: Spec) -> bool:
    return name.rpartition("/")[2] in ("biases", "bias") and len(spec.shape) == 1


def _scope(name: str) -> str:
    return name.rpartition("/")[0]


def _zeros(name: str, spec: Spec) -> np.ndarray:
    return constant(spec, 0.0).load()
