"""Recognises the net and the library of a file by names and shapes, without reading any values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from ..plan import Variable
from ..tensors import Spec
from .links import Link, links
from .reading import GRAPH_2015, WORLDS, Layout, first_layer, layout_of

_WHOLE = 0.9  # share of a backbone's tensors that must be there, with their shapes
_KNOWN = re.compile(r"[a-z_]*(kernel|bias|gamma|beta|moving_\w+|running_\w+)|\d+")  # last components of names
_NUMBERED = re.compile(r"(?:(.*)/)?(conv2d|batch_normalization)(?:_(\d+))?", re.DOTALL)  # layers that Keras names
# Kind of layer -> its class, as a file of Keras 3 spells it.
CLASSES = {
    "conv": "conv2d",
    "depthwise": "depthwise_conv2d",
    "separable": "separable_conv2d",
    "dense": "dense",
    "norm": "batch_normalization",
}
_TITLES = {"keras": "Keras", "torchvision": "torchvision", "timm": "timm", GRAPH_2015: "the 2015 graph"}
_SOME_CLASSES = 1000  # assumed until the head is seen
_MOST = 50_000  # tensors; no net of these families has a tenth as many, optimizer slots included


class Net(Protocol):
    """What the layouts need to know about a net; `ckpt_tools.nets.net.Net` is one."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def scope(self) -> str: ...

    def variables(self, num_classes: int | None) -> tuple[Variable, ...]: ...


class Foreign(NamedTuple):
    """A net as another library writes it.

    `found` maps a tensor of the file to its link; `missing` holds our names of tensors the file lacks, `others` the
    file's tensors that the net does not have. `classes` is None if the head is missing or of another kind. `near`,
    `pixels` and `exact` come from its layout.
    """

    world: str
    net: Net
    classes: int | None
    found: Mapping[str, Link]
    missing: tuple[str, ...]
    others: tuple[str, ...]
    near: tuple[str, ...]
    pixels: str = ""
    exact: str = ""

    @property
    def library(self) -> str:
        """The library's name for display."""
        return _TITLES[self.world]

    def __str__(self) -> str:
        title = self.net.title.removeprefix("slim ")
        classes = "without its head" if self.classes is None else f"{self.classes} classes"
        return f"{title} of {self.library}, {classes}"


def recognise(specs: Mapping[str, Spec], nets: Iterable[Net]) -> Foreign | None:
    """The net of another library that a file holds, or None. The net with the most matching tensors wins; of equals,
    the first."""
    if len(specs) > _MOST:
        return None
    nets, best = list(nets), None
    plain, keras = {name: name for name in specs}, _Keras(specs)
    for world in (*WORLDS, GRAPH_2015):
        for net in nets:
            names = keras.names(net) if world == "keras" else plain
            found = _match(specs, names, net, world)
            if found and (best is None or len(found.found) > len(best.found)):
                best = found
    return best


def _match(specs: Mapping[str, Spec], names: Mapping[str, str], net: Net, world: str) -> Foreign | None:
    """`names` maps names in the layout's terms to names in the file."""
    prefix = _prefix(names, first_layer(world, net.name), world)
    layout = None if prefix is None else layout_of(world, net.name)
    if prefix is None or layout is None:
        return None
    classes = _classes(specs, names, prefix, net, layout)
    variables = net.variables(classes)
    wanted = links(layout, net.scope, {variable.name: variable.spec for variable in variables})
    found, missing = {}, []
    alone = _by_layer_alone(names) if world == "keras" else {}
    for link in wanted:
        known = (names.get(prefix + name) or alone.get(name) for name in link.theirs)
        source = next(filter(None, known), None)
        if source is not None and specs[source].shape == link.shape:
            found[source] = link
        elif link.fill is None:
            missing.append(link.ours)
    roles = {variable.name: variable.role for variable in variables}
    body = [link.ours for link in wanted if roles.get(link.ours) in ("backbone", "statistic")]
    if len(set(body) - set(missing)) < _WHOLE * len(body):
        return None
    others = tuple(name for name in specs if name not in found)
    how = layout.near, layout.pixels, layout.exact
    return Foreign(layout.world, net, classes, found, tuple(missing), others, *how)


def _classes(specs: Mapping[str, Spec], names: Mapping[str, str], prefix: str, net: Net, layout: Layout) -> int | None:
    """The number of classes, read off the head's biases; None if there are none."""
    variables = net.variables(_SOME_CLASSES)
    heads = {variable.name: variable.spec for variable in variables if variable.role == "head"}
    for link in links(layout, net.scope, heads):
        for name in link.theirs:
            source = names.get(prefix + name)
            if source and len(link.shape) == 1 == len(specs[source].shape):
                return specs[source].shape[0]
    return None


def _prefix(names: Mapping[str, str], layer: str | None, world: str) -> str | None:
    """The prefix of every name, such as "module."; None if the net's first layer is not in the file."""
    if layer is None:
        return None
    first = layer + ("/" if world in ("keras", GRAPH_2015) else ".")
    found = [name[: name.index(first)] for name in names if first in name]
    whole = [prefix for prefix in found if not prefix or prefix[-1] in "./"]
    return min(whole, key=len) if whole else None


def _by_layer_alone(names: Mapping[str, str]) -> dict[str, str]:
    """LAYER/WORD of names in nested scopes -> name in the file, if it is the only one. Keras puts a NASNet's layers in
    scopes: reduction_A_block_stem_1/reduction_conv_1_stem_1/kernel."""
    found: dict[str, list[str]] = {}
    for name, source in names.items():
        if name.count("/") > 1:
            found.setdefault("/".join(name.rsplit("/", 2)[1:]), []).append(source)
    return {name: sources[0] for name, sources in found.items() if len(sources) == 1}


class _Keras:
    """Translates the names of a file into the terms of Keras' layouts: automatic layer numbers are counted from the
    net's first layer, and unnamed weights are numbered within their layer."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.layers: dict[str, list[str]] = {}
        for name in specs:
            self.layers.setdefault(name.rpartition("/")[0].removesuffix("/vars"), []).append(name)
        self.numbered = _by_number(self.layers)
        self.placed = any("layers/" in layer for layer in self.layers)
        self.known = {} if self.placed else self._renamed(self.numbered)

    def names(self, net: Net) -> dict[str, str]:
        """Name in the terms of the net's layout -> name in the file.

        A file of Keras 3 may identify a layer only by class and position (layers/conv2d_7/vars/0): this is the layer at
        that position among the net's layers of its class.
        """
        layout = layout_of("keras", net.name) if self.placed else None
        if layout is None:
            return self.known
        variables = {variable.name: variable.spec for variable in net.variables(_SOME_CLASSES)}
        return self._renamed({**_by_place(self.layers, links(layout, net.scope, variables)), **self.numbered})

    def _renamed(self, renamed: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for layer, members in self.layers.items():
            for number, name in enumerate(members):
                last = name.rpartition("/")[2]
                word = last if _KNOWN.fullmatch(last) else number
                found[f"{renamed.get(layer, layer)}/{word}"] = name
        return found


def _by_number(grouped: Iterable[str]) -> dict[str, str]:
    """Renumbers the layers of each scope from its first: conv2d_94, conv2d_95 become conv2d, conv2d_1."""
    numbers: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for layer in grouped:
        if (found := _NUMBERED.fullmatch(layer)) and not layer.startswith("layers/"):
            numbers.setdefault((found[1] or "", found[2]), []).append((int(found[3] or 0), layer))
    renamed = {}
    for (scope, kind), each in numbers.items():
        for place, (_, layer) in enumerate(sorted(each)):
            renamed[layer] = (f"{scope}/" if scope else "") + (f"{kind}_{place}" if place else kind)
    return renamed


def _by_place(grouped: Iterable[str], net: Iterable[Link]) -> dict[str, str]:
    """Maps names by class and position to the net's: layers/conv2d_7 is convolution number 7, counted from 0."""
    places: dict[str, dict[str, None]] = {}
    for link in net:
        places.setdefault(CLASSES[link.kind], {})[link.theirs[0].rpartition("/")[0]] = None
    renamed = {}
    for name in grouped:
        found = re.fullmatch(r"(?:.*/)?layers/(\w+?)(?:_(\d+))?", name)
        if found and int(found[2] or 0) < len(places.get(found[1], ())):
            renamed[name] = [*places[found[1]]][int(found[2] or 0)]
    return renamed
