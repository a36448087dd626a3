"""Reads the data files that describe the layouts.

    net vgg_16 vgg_19                               starts the section of these nets
    near  WHAT IS DIFFERENT                         how the function differs in the other library;
    exact keras                                     the variant vgg_16_keras computes the same function
    pixels STYLE                                    preprocessing of the published weights, if not that of our net
    each b=1..5                                     repeats the rows up to `end` for each value. Several `each` nest;
    each u=1..36 n=12,18..                          variables of one advance together; 12,18.. goes on in steps of 6
    conv conv{b}/conv{b}_{u}  block{b}_conv{u}      KIND, scope of our layer below the net's, their layer; {u-1} works,
    end                                             too. A layer that our net lacks has no row.
    define cell                                     defines a group of rows, up to `end`,
    rows cell                                       which is inserted here, inside an `each`
    as torchvision                                  takes the rows of another file, if the nets are the same,
    without fc6 fc7                                 except those of these scopes

KIND is conv, depthwise, separable, dense or norm; `block` is a convolution NAME.conv and its norm NAME.bn; `+bias`
means that their layer has a bias where ours has only a batch norm. Rows are in the order of the other library's files.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

WORLDS = ("keras", "torchvision", "timm")
GRAPH_2015 = "graph2015"  # TensorFlow's first frozen Inception, which is only read


class LayoutLayer(NamedTuple):
    """A layer: its scope below our net's, and its name in the other library."""

    kind: str  # "conv", "depthwise", "separable", "dense", "norm"
    ours: str
    theirs: str
    biased: bool  # their layer has a bias, which ours may lack


class Layout(NamedTuple):
    """A library's layout of a net. `near` holds sentences on how the function differs there; `pixels` is the image
    preprocessing of the library's published weights, "" if it is the same as slim's. `exact` names our net that
    computes the same function: the net itself, or a variant of it if the net is only near."""

    world: str
    layers: tuple[LayoutLayer, ...]
    near: tuple[str, ...]
    pixels: str = ""
    exact: str = ""


@functools.cache
def layout_of(world: str, net: str) -> Layout | None:
    """The layout of this net in `world`; None if its file does not describe the net."""
    lines = _sections(world).get(net)
    return None if lines is None else _section(world, net, lines)


def _section(world: str, net: str, lines: Sequence[list[str]]) -> Layout:
    layers, near, pixels, exact = list[LayoutLayer](), list[str](), "", net
    for words in _expanded(iter(lines)):
        if words[0] == "near":
            near.append(" ".join(words[1:]))
        elif words[0] == "pixels":
            pixels = words[1]
        elif words[0] == "exact":
            exact = f"{net}_{words[1]}"
        elif words[0] == "as":
            same = layout_of(words[1], net)
            assert same is not None  # tests read every file
            layers, near, pixels, exact = [*same.layers], [*same.near], same.pixels, same.exact
        elif words[0] == "without":
            layers = [layer for layer in layers if layer.ours.split("/")[0] not in words[1:]]
        else:
            layers += _layers(words)
    return Layout(world, tuple(layers), tuple(near), pixels, exact)


@functools.cache
def first_layer(world: str, net: str) -> str | None:
    """The name in `world` of the net's first layer, found without reading the other layers; None if the file does not
    describe the net."""
    for words in _expanded(iter(_sections(world).get(net, ()))):
        if words[0] == "as":
            return first_layer(words[1], net)
        if words[0] not in ("near", "pixels", "exact"):
            return _layers(words)[0].theirs
    return None


@functools.cache
def _sections(world: str) -> dict[str, list[list[str]]]:
    """Net -> the lines of its section, split into words."""
    text = Path(__file__).with_name(f"{world}.txt").read_text(encoding="utf-8")
    lines = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    starts = [number for number, words in enumerate(lines) if words[0] == "net"]
    ends = itertools.pairwise([*starts, len(lines)])
    return {net: lines[start + 1 : end] for start, end in ends for net in lines[start][1:]}


def _layers(words: list[str]) -> list[LayoutLayer]:
    """The layers of a row that was split into words."""
    kind, _, bias = words[0].partition("+")
    if kind == "block":
        return [
            LayoutLayer("conv", words[1], f"{words[2]}.conv", False),
            LayoutLayer("norm", words[1], f"{words[2]}.bn", False),
        ]
    return [LayoutLayer(kind, words[1], words[2], bool(bias))]


def _expanded(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """The lines with every `each` written out."""
    loops: list[list[dict[str, int | str]]] = []
    held: list[list[str]] = []
    defined: dict[str, list[list[str]]] = {}
    for words in lines:
        if words[0] == "define":
            defined[words[1]] = list(itertools.takewhile(lambda row: row != ["end"], lines))
        elif words[0] == "rows":
            held += defined[words[1]]
        elif words[0] == "each":
            loops.append(_values(words[1:]))
        elif words[0] == "end":
            for values in itertools.product(*loops):
                known = {name: value for each in values for name, value in each.items()}
                yield from ([_filled(word, known) for word in row] for row in held)
            loops, held = [], []
        elif loops:
            held.append(words)
        else:
            yield words


def _values(definitions: Sequence[str]) -> list[dict[str, int | str]]:
    """The values that the variables of one `each` take together."""
    columns = {name: _sequence(text) for name, text in (each.split("=") for each in definitions)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]


def _sequence(text: str) -> Iterator[object]:
    """`1..4`, `a,b,c`, or `12,18..`, which has no end.

    >>> list(_sequence("1..3")), list(_sequence("b,c")), list(itertools.islice(_sequence("12,18.."), 3))
    ([1, 2, 3], ['b', 'c'], [12, 18, 24])
    """
    if text.endswith(".."):
        first, second = map(int, text[:-2].split(","))
        return itertools.count(first, second - first)
    if ".." in text:
        first, last = map(int, text.split(".."))
        return iter(range(first, last + 1))
    return iter(int(word) if word.isdigit() else word for word in text.split(","))


def _filled(word: str, known: Mapping[str, int | str]) -> str:
    def value(found: re.Match[str]) -> str:
        held = known[found[1]]
        return str(int(held) + int(found[2])) if found[2] else str(held)

    return re.sub(r"\{(\w)([+-]\d+)?\}", value, word)
