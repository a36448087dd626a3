"""Runs a net of ours and the same net of another library on the same images, and compares them layer by layer.

What is compared are the outputs of batch norms and of layers with biases: scales that were folded into weights change
what lies between. A layer that ends in a ReLU in the other library is compared behind one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from ckpt_tools.errors import UnsupportedError
from ckpt_tools.layouts import Foreign, recognise
from ckpt_tools.layouts.links import Link
from ckpt_tools.names import unrepeated
from ckpt_tools.tensors import Tensors

from .graph import build_net
from .net import Net
from .peers import Peer, build_peer
from .registry import get_net


class Compared(NamedTuple):
    """An end point: the worst of the `layers` that make it. `largest` is its largest value in the other library,
    `difference` the largest absolute difference, `cosine` the smallest. None where no layer has the same shape."""

    end_point: str
    layers: int
    largest: float | None
    difference: float | None
    cosine: float | None

    @property
    def relative(self) -> float | None:
        """The difference in parts of the largest value."""
        return None if self.difference is None else self.difference / (self.largest or 1.0)


class Comparison(NamedTuple):
    """`rows` go from the images to the classes; `agreed` of so many `images` have the same first class, None where the
    net has no classes."""

    rows: tuple[Compared, ...]
    images: int
    agreed: int | None

    @property
    def last(self) -> float:
        """The difference of what the net gives, in parts of its largest value; infinite where it cannot be compared."""
        found = self.rows[-1].relative if self.rows else None
        return float("inf") if found is None or np.isnan(found) else found


class SharedLayer(NamedTuple):
    """A layer in both nets: the scope of ours and its tensor in the graph, and its name there."""

    scope: str
    tensor: str
    theirs: str


class Ours:
    """Our net with its values, in a graph and a session of its own: neither is ever the default one, since Keras runs
    between two batches."""

    def __init__(self, net: Net, tensors: Tensors) -> None:
        weights = f"{net.head_layer}/weights"
        classes = tensors[weights].spec.shape[-1] if weights in tensors else None
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.pixels = tf.placeholder(tf.float32, [None, net.image_size, net.image_size, 3])
            built = build_net(net, self.pixels, num_classes=classes)
        self.session = tf.Session(graph=self.graph)
        given = [variable for variable in built.variables if variable.op.name in tensors]
        values = {each.initializer.inputs[1]: tensors[each.op.name].load().astype(np.float32) for each in given}
        self.session.run([variable.initializer for variable in given], values)

    def run(self, images: np.ndarray, tensors: Sequence[str]) -> list[np.ndarray]:
        """The values of tensors of the graph."""
        return self.session.run(list(tensors), {self.pixels: images})


def compare(
    world: str, net: Net, ours: Tensors, theirs: Foreign, held: Tensors, batches: Iterable[np.ndarray]
) -> Comparison:
    """Compares `ours`, under slim's names, with the file that holds `theirs` in its tensors `held`, as `world` runs it.

    batches: images [batch, height, width, 3] of the net's own size, scaled as the nets want them. Raises
    UnsupportedError where the library's net has tensors that the file has not.
    """
    peer = build_peer(world, net, theirs.classes)
    known = loaded(peer, net, theirs, held)
    here = Ours(net, ours)
    layers = _layers(here.graph, net, known)
    sums = {layer.scope: _Sums() for layer in layers}
    images = agreed = 0
    with closing(here.session):
        for batch in batches:
            outputs = peer.run(batch, [layer.theirs for layer in layers])
            images += len(batch)
            for layer, values in zip(layers, here.run(batch, [layer.tensor for layer in layers]), strict=True):
                if (other := outputs.get(layer.theirs)) is None:
                    continue
                a, b = _aligned(np.maximum(values, 0) if other.rectified else values, other.values)
                sums[layer.scope].add(a, b)
                if layer.scope == net.head_layer:
                    agreed += int((a.argmax(-1) == b.argmax(-1)).sum())
    return Comparison(_rows(net, sums), images, agreed if net.head_layer in sums else None)


def loaded(peer: Peer, net: Net, theirs: Foreign, held: Tensors) -> dict[str, Link]:
    """Gives the peer the values of the file, layer by layer; returns the links of its tensors by their names."""
    found = recognise(peer.specs(), [get_net(net.family)])
    assert found is not None  # it is the library's own net
    source = {link.ours: name for name, link in theirs.found.items()}
    arrays = {name: held[source[link.ours]].load() for name, link in found.found.items() if link.ours in source}
    auxiliary = tuple(f"{net.placed(part)}/" for part in net.auxiliary)
    lacking = [
        name
        for name, link in found.found.items()
        if name not in arrays and link.ours.rpartition("/")[2] != "batches" and not link.ours.startswith(auxiliary)
    ]
    if lacking:
        fact = f"{len(lacking)} tensors of its net are not in the file, such as {lacking[0]}"
        raise UnsupportedError(f"--check cannot run it in {theirs.library}: {fact}")
    peer.load(arrays)
    return dict(found.found)


def _layers(graph: tf.Graph, net: Net, known: Mapping[str, Link]) -> list[SharedLayer]:
    """The layers whose outputs have a counterpart, in the order of the net."""
    found: dict[str, SharedLayer] = {}
    operations = {unrepeated(operation.name): operation.name for operation in graph.get_operations()}
    for name, link in known.items():
        scope, _, last = link.ours.rpartition("/")
        kind = {"beta": "FusedBatchNormV3", "biases": "BiasAdd"}.get(last)
        if kind is None or link.fill is not None:
            continue
        if f"{scope}/{kind}" in operations:  # not of an auxiliary head, which is not built
            theirs = name.rpartition("/")[0] or name.rpartition(".")[0]
            found[scope] = SharedLayer(scope, f"{operations[f'{scope}/{kind}']}:0", theirs)
    order = {row.name.rpartition("/")[0]: number for number, row in enumerate(net.table)}
    return sorted(found.values(), key=lambda layer: order[layer.scope])


def _aligned(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both without sides of 1; of classes that are one more here, the first, the background, left out."""
    ours = ours.reshape(len(ours), -1) if ours.shape[1:3] == (1, 1) else ours
    theirs = theirs.reshape(len(theirs), -1) if theirs.shape[1:3] == (1, 1) else theirs
    if ours.ndim == 2 == theirs.ndim and ours.shape[1] == theirs.shape[1] + 1:
        ours = ours[:, 1:]
    return ours, theirs


class _Sums:
    """What is known of a layer's outputs after some batches."""

    def __init__(self) -> None:
        self.difference = self.largest = self.product = self.ours = self.theirs = 0.0
        self.fits: bool | None = None

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        self.fits = ours.shape == theirs.shape and self.fits is not False
        if not self.fits:
            return
        a, b = (each.reshape(-1).astype(np.float64) for each in (ours, theirs))
        self.difference = max(self.difference, float(np.abs(a - b).max()))
        self.largest = max(self.largest, float(np.abs(b).max()))
        self.product += float(a @ b)
        self.ours += float(a @ a)
        self.theirs += float(b @ b)

    @property
    def cosine(self) -> float:
        size = np.sqrt(self.ours * self.theirs)
        return float(self.product / size) if size else float(self.ours == self.theirs)


def _rows(net: Net, sums: Mapping[str, _Sums]) -> tuple[Compared, ...]:
    """A row for each scope right below the net's."""
    groups: dict[str, list[_Sums]] = {}
    for scope, each in sums.items():
        if each.fits is not None:
            groups.setdefault(scope.removeprefix(f"{net.scope}/").partition("/")[0], []).append(each)
    return tuple(_row(name, group) for name, group in groups.items())


def _row(name: str, group: Sequence[_Sums]) -> Compared:
    fitting = [each for each in group if each.fits]
    if not fitting:
        return Compared(name, len(group), None, None, None)
    worst = max(fitting, key=lambda each: each.difference / (each.largest or 1.0))
    return Compared(name, len(group), worst.largest, worst.difference, min(each.cosine for each in fitting))
