"""Names the numbered weights of Keras 3, and derives the layers of a Keras 2 file from variable names."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

_KERNEL = "kernel bias?use_bias"
_RECURRENT = "kernel recurrent_kernel bias?use_bias"
_GAMMA_BETA = "gamma?scale beta?center"
# Layer class, as spelled in files of Keras 3 -> its variables in order of creation. NAME?FLAG exists only if the layer
# has that setting: layers/*/*.py of Keras 3.
_VARIABLES = {
    "dense": _KERNEL,
    "einsum_dense": "kernel bias?bias_axes",
    "conv1d": _KERNEL,
    "conv2d": _KERNEL,
    "conv3d": _KERNEL,
    "conv1d_transpose": _KERNEL,
    "conv2d_transpose": _KERNEL,
    "conv3d_transpose": _KERNEL,
    "depthwise_conv1d": _KERNEL,
    "depthwise_conv2d": _KERNEL,
    "separable_conv1d": "depthwise_kernel pointwise_kernel bias?use_bias",
    "separable_conv2d": "depthwise_kernel pointwise_kernel bias?use_bias",
    "embedding": "embeddings",
    "batch_normalization": f"{_GAMMA_BETA} moving_mean moving_variance"
    " moving_stddev?renorm renorm_mean?renorm renorm_stddev?renorm",
    "layer_normalization": _GAMMA_BETA,
    "group_normalization": _GAMMA_BETA,
    "rms_normalization": "scale",
    "spectral_normalization": "kernel vector_u",
    "normalization": "mean variance count",
    "p_re_lu": "alpha",
    "attention": "scale?use_scale",
    "additive_attention": "scale?use_scale",
    "lstm_cell": _RECURRENT,
    "gru_cell": _RECURRENT,
    "simple_rnn_cell": _RECURRENT,
    # Attributes that hold inner layers, whose class is not in the path.
    "cell": _RECURRENT,
    "query_dense": _KERNEL,
    "key_dense": _KERNEL,
    "value_dense": _KERNEL,
    "output_dense": _KERNEL,
    "seed_generator": "seed_generator_state",
}
MAX_CONFIG = 64 << 20  # bytes; the largest published models have about one MB


class KerasLayer:
    """A layer from a model's config: its class, spelled as in paths, and its settings."""

    def __init__(self, class_name: str, settings: Mapping[str, object]) -> None:
        self.class_name = _snake(class_name)
        self.settings = settings


def layers_in(config: bytes) -> dict[str, list[KerasLayer]]:
    """Name -> layers of that name in a `config.json`, including inner models; {} if the bytes are not a config."""
    try:
        waiting = [json.loads(config)]
    except (ValueError, RecursionError):
        return {}
    found: dict[str, list[KerasLayer]] = {}
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            settings = value.get("config")
            if isinstance(value.get("class_name"), str) and isinstance(settings, dict) and "name" in settings:
                found.setdefault(str(settings["name"]), []).append(KerasLayer(value["class_name"], settings))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def variable_names(
    places: Sequence[str], layer_names: Mapping[str, str], described: Mapping[str, Sequence[KerasLayer]]
) -> dict[str, str]:
    """Shown name -> place: `layers/conv2d/vars/0` of the layer "block1_conv1" becomes `block1_conv1/kernel`.

    `layer_names` maps the file's groups to layer names, `described` names to the layers of the config. Variables that
    would get the same name keep their places, and so do an optimizer's: the file does not say which variable a slot
    belongs to.
    """
    named = {place: place for place in places}
    owners = [place.rpartition("/vars/")[0] for place in places]
    counts = Counter(owners)
    for place, owner in zip(places, owners, strict=True):
        number = place[len(owner) + len("/vars/") :]
        if not owner or not number.isdigit() or owner.split("/")[0] == "optimizer":
            continue
        parts = owner.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        names = [layer_names[group] for group in above if group in layer_names]
        known = variables_of(parts[-1], counts[owner], described.get(names[-1], ()) if names else ())
        variable = known[int(number)] if int(number) < len(known) else None
        if names or variable:  # files of Keras 2 do not store names of layers
            named[place] = "/".join([*(names or [owner]), variable or number])
    times = Counter(named.values())
    return {place: name if times[name] == 1 else place for place, name in named.items()}


def variables_of(place: str, count: int, described: Sequence[KerasLayer] = ()) -> tuple[str | None, ...]:
    """The names of a layer's `count` variables, in order; None for those that class and count do not determine.

    `place` is the last component of the layer's path in the file; `described` are the config's layers of that name.

    >>> variables_of("batch_normalization_1", 4)
    ('gamma', 'beta', 'moving_mean', 'moving_variance')
    >>> variables_of("batch_normalization", 3)  # without gamma or without beta
    (None, 'moving_mean', 'moving_variance')
    >>> variables_of("batch_normalization", 3, [KerasLayer("BatchNormalization", {"scale": False, "center": True})])
    ('beta', 'moving_mean', 'moving_variance')
    """
    kind = place if place in _VARIABLES else re.sub(r"_\d+\Z", "", place)
    if kind in _VARIABLES:
        described = [each for each in described if each.class_name == kind]
    layer = described[0] if len(described) == 1 else None
    rows = [word.partition("?")[::2] for word in _VARIABLES.get(layer.class_name if layer else kind, "").split()]
    flags = sorted({flag for _, flag in rows if flag})
    possible = list(_names(rows, flags))
    if layer and any(flag in layer.settings for flag in flags):
        on = {flag for flag in flags if layer.settings.get(flag)}  # a flag unknown to this Keras version is off
        possible = [[name for name, flag in rows if not flag or flag in on]]
    fitting = [names for names in possible if len(names) == count]
    agreed = [{names[i] for names in fitting} for i in range(count)]
    return tuple(names.pop() if len(names) == 1 else None for names in agreed)


def _names(rows: Sequence[tuple[str, str]], flags: Sequence[str]) -> Iterator[list[str]]:
    """The variable names for every combination of flags."""
    for values in itertools.product((True, False), repeat=len(flags)):
        on = {flag for flag, value in zip(flags, values, strict=True) if value}
        yield [name for name, flag in rows if not flag or flag in on]


def _snake(name: str) -> str:
    """Keras' own spelling of a class in paths (keras/src/utils/naming.py).

    >>> _snake("PReLU"), _snake("Conv2DTranspose"), _snake("BatchNormalization")
    ('p_re_lu', 'conv2d_transpose', 'batch_normalization')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


_OPTIMIZERS = frozenset(
    ["sgd", "rmsprop", "adam", "adamw", "adadelta", "adagrad", "adamax", "adafactor", "nadam", "ftrl", "lion", "lamb"]
    + ["muon", "loss_scale_optimizer", "optimizer", "training", "iterations"]
)


def layers_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Layer -> names of its weights. The layer is the first component of a name, or the second if a model comes first.

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
    """The scope above all layers' weights (except an optimizer's), if there is one and it has several layers."""
    parts = [name.split("/") for name in names]
    weights = [p for p in parts if len(p) > 1 and p[0] not in _OPTIMIZERS]
    scopes = {p[0] for p in weights}
    if len(scopes) != 1 or any(len(p) < 3 for p in weights) or len({p[1] for p in weights}) < 2:
        return None
    model = scopes.pop()
    taken = {p[0] for p in parts if p[0] != model}
    return None if taken & {p[1] for p in weights} else model
