"""Other heads than a net's own: layers before the last one, or a scope of its own. Nothing here imports TensorFlow.

>>> head = Head(parse_layers("dense(64,relu)|dropout(0.5)"), scope="Logits")
>>> from ckpt_tools.nets.registry import get_net
>>> for variable in head_variables(get_net("resnet_v1_50"), 5, head):
...     print(variable.name, variable.spec)
Logits/dense_1/weights float32[2048,64]
Logits/dense_1/biases float32[64]
Logits/fc/weights float32[64,5]
Logits/fc/biases float32[5]
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpt_tools.errors import RecipeError, nearest
from ckpt_tools.tensors import Spec

from .net import Net, TableRow

if TYPE_CHECKING:
    from ckpt_tools.plan import Variable

ACTIVATIONS = ("linear", "relu", "relu6", "elu", "selu", "gelu", "tanh", "sigmoid", "swish", "softplus")
LAST_LAYER = "fc"  # under a head's own scope; slim's ResNet tutorial calls it so


class Dense(NamedTuple):
    """A fully connected layer of `units` outputs."""

    units: int
    activation: str = "relu"


class Dropout(NamedTuple):
    """Drops the share `rate` of its inputs while training."""

    rate: float = 0.5


@dataclass(frozen=True)
class Head:
    """`layers` stand between the net's features and the last layer. `scope` is None for the net's own place, whose
    last layer keeps its own names."""

    layers: tuple[Dense | Dropout, ...] = ()
    scope: str | None = None

    def __post_init__(self) -> None:
        if self.scope and not re.fullmatch(r"[A-Za-z0-9.][\w.>-]*(/[\w.>-]+)*", self.scope, re.ASCII):
            advice = "Write it as Logits or net/Logits: letters, digits, and _ . - between slashes."
            raise RecipeError(f"--head-scope {self.scope} is not a valid TensorFlow scope", advice=advice)

    def scope_in(self, net: Net) -> str:
        """The scope under which all the head's variables lie."""
        return self.scope or net.head_scope


def check_auxiliary(net: Net, head: Head) -> None:
    """Raises RecipeError where --aux has no auxiliary head to train: see `variables_with_head`."""
    if not net.auxiliary or head.scope:
        where = f"beside a head in {head.scope}" if net.auxiliary else f"in {net.name}"
        raise RecipeError(f"--aux: there is no auxiliary head {where}")


def parse_layers(text: str) -> tuple[Dense | Dropout, ...]:
    """Layers from their description; the parts between `|` are calls, their arguments numbers or bare words.

    >>> parse_layers("dropout(0.2) | dense(128) | dense(32, tanh)")
    (Dropout(rate=0.2), Dense(units=128, activation='relu'), Dense(units=32, activation='tanh'))

    Raises RecipeError for what is not a layer, and for sizes and rates that make none.
    """
    return tuple(_layer(part.strip()) for part in text.split("|")) if text.strip() else ()


def _layer(text: str) -> Dense | Dropout:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            raise ValueError
        values = [word.id if isinstance(word, ast.Name) else ast.literal_eval(word) for word in call.args]
    except (SyntaxError, ValueError):
        raise RecipeError(f"{text!r} is not a layer", advice='Write "dense(64,relu)|dropout(0.5)".') from None
    kinds: dict[str, type[Dense] | type[Dropout]] = {"dense": Dense, "dropout": Dropout}
    if call.func.id not in kinds:
        hint = nearest(call.func.id, kinds)
        raise RecipeError(f"no layer is called {call.func.id!r}{hint}", advice="Use dense or dropout.")
    return _checked(text, kinds[call.func.id], values)


def _checked(text: str, kind: type[Dense] | type[Dropout], values: list[Any]) -> Dense | Dropout:
    try:
        layer = kind(*values)
    except TypeError:
        raise RecipeError(f"{text}: {kind.__name__.lower()} takes {' and '.join(kind._fields)}") from None
    if isinstance(layer, Dense):
        if type(layer.units) is not int or layer.units < 1:
            raise RecipeError(f"{text}: the number of units must be a whole number above 0")
        if layer.activation not in ACTIVATIONS:
            hint = nearest(str(layer.activation), ACTIVATIONS)
            raise RecipeError(f"{text}: no activation is called {layer.activation!r}{hint}")
    elif type(layer.rate) not in (int, float) or not 0 <= layer.rate < 1:
        raise RecipeError(f"{text}: the rate must be at least 0 and below 1")
    return layer


def layer_scopes(layers: tuple[Dense | Dropout, ...]) -> list[str]:
    """The scope of each layer under the head's place: dense_1, dropout_1, dense_2, ..."""
    counts: dict[str, int] = {}
    scopes = []
    for layer in layers:
        kind = type(layer).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        scopes.append(f"{kind}_{counts[kind]}")
    return scopes


def head_variables(net: Net, num_classes: int, head: Head) -> tuple[Variable, ...]:
    """The head's variables for so many classes, from the features to the logits."""
    from ckpt_tools.plan import Variable

    width, found = net.feature_channels, []

    def add(name: str, shape: tuple[int, ...], class_axis: int | None = None, trainable: bool = True) -> None:
        found.append(Variable(name, Spec("float32", shape), trainable, "head", class_axis))

    place = head.scope_in(net)
    for scope, layer in zip(layer_scopes(head.layers), head.layers, strict=True):
        if isinstance(layer, Dense):
            add(f"{place}/{scope}/weights", (width, layer.units))
            add(f"{place}/{scope}/biases", (layer.units,))
            width = layer.units
    if head.scope:
        add(f"{place}/{LAST_LAYER}/weights", (width, num_classes), 1)
        add(f"{place}/{LAST_LAYER}/biases", (num_classes,), 0)
    else:
        for row in net.table:
            if net.role(row) == "head":
                shape = list(row.shape_for(num_classes))
                if head.layers and row == net.head_weights:  # of a convolution's kernel, or of a matrix
                    shape[_width_axis(row)] = width
                add(row.name, tuple(shape), row.class_axis, row.trainable)
    return tuple(found)


def _width_axis(row: TableRow) -> int:
    """The axis of a last layer's weights that has one entry a feature: the one beside that of the classes."""
    last = len(row.shape) - 1
    return last if row.class_axis == last - 1 else last - 1


def new_variables(net: Net, num_classes: int, head: Head) -> dict[str, str]:
    """Name -> option that asks for it, of what a head adds or changes: `make_plan(new=...)` needs no source for those.

    >>> from ckpt_tools.nets.registry import get_net
    >>> new_variables(get_net("vgg_16"), 5, Head(scope="Logits"))
    {'Logits/fc/weights': '--head-scope Logits', 'Logits/fc/biases': '--head-scope Logits'}
    """
    if not head.scope and not head.layers:
        return {}
    rule = f"--head-scope {head.scope}" if head.scope else "--head"
    return {variable.name: rule for variable in head_variables(net, num_classes, head)}


def variables_with_head(net: Net, num_classes: int, head: Head) -> tuple[Variable, ...]:
    """All variables of the net with this head.

    An auxiliary head stays only beside a head at the net's own place: with another one, slim's code cannot load the
    file as it is, and an auxiliary head for other classes would be of no use.
    """
    if head.scope:
        return net.variables(None) + head_variables(net, num_classes, head)
    others = tuple(variable for variable in net.variables(num_classes) if variable.role != "head")
    return others + head_variables(net, num_classes, head)
