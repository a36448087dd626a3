"""Which net is meant: by a name, a graph file, a function, or by nothing but the checkpoint itself.

    resolve(Reference(), specs, "inception_v3.ckpt")              the net that names and shapes tell
    resolve(Reference(net="vgg_16"), specs, "model.ckpt")         one of the registry
    resolve(Reference(graph="model.ckpt.meta"), specs, "...")     the one in a graph file
    resolve(Reference(net="nets.py:build"), specs, "model.ckpt")  what a function builds, which is run for it

TensorFlow is imported for functions only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ckpt_tools.errors import PlanError, RecipeError, SelectionError
from ckpt_tools.graphs.choosing import Choices
from ckpt_tools.graphs.files import graph_of
from ckpt_tools.plan import Origin
from ckpt_tools.tensors import Spec

from .from_graph import net_from, open_graph
from .net import Net
from .registry import find_net


class Reference(NamedTuple):
    """What a user says of a net: `net` is a name of the registry or FILE.py:FUNCTION, `graph` a graph file; in the
    graph of either `input`, `features`, `logits` name tensors and `feed` gives values to others, as "NAME=VALUE".
    `image_size` is the side of the images that a function builds on, in pixels."""

    net: str | None = None
    graph: str | None = None
    input: str | None = None
    features: str | None = None
    logits: str | None = None
    feed: tuple[str, ...] = ()
    image_size: int | None = None

    @property
    def is_function(self) -> bool:
        """Whether `net` is a function of the user's, which has to be run."""
        return ":" in (self.net or "")

    @property
    def chosen(self) -> list[str]:
        """The options that choose in a graph."""
        return [f"--{name}" for name in ("input", "features", "logits", "feed") if getattr(self, name)]

    @property
    def choices(self) -> Choices:
        """What is chosen in a graph. Raises RecipeError for a feed that is no NAME=VALUE."""
        return Choices(self.input or "", self.features or "", self.logits or "", feeds(self.feed))

    def problems(self) -> list[str]:
        """What cannot be meant, a sentence each."""
        if self.net and self.graph:
            return ["--net and --graph cannot be combined"]
        if self.chosen and self.net and not self.is_function:
            return [f"{' and '.join(self.chosen)} apply to a graph, and --net {self.net} is a built-in net"]
        return []


def is_file(where: str) -> bool:
    """Whether what stands before the colon is a file, not a module."""
    return where.endswith(".py") or "/" in where


def absolute(net: str) -> str:
    """FILE.py:FUNCTION with the whole path; MODULE:FUNCTION as it is."""
    where, _, function = net.rpartition(":")
    return f"{Path(where).absolute()}:{function}" if is_file(where) else net


def feeds(texts: Iterable[str]) -> dict[str, object]:
    """
    >>> feeds(["is_training=False", "bits=32"])
    {'is_training': False, 'bits': 32}
    """
    made = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            made[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            equals = ""
        if not equals or not isinstance(made[name.strip()], (bool, int, float)):
            raise RecipeError(f"--feed {text}: write NAME=VALUE, with a number, True or False")
    return made


def resolve(reference: Reference, specs: Mapping[str, Spec], path: str, origin: Origin | None = None) -> Net:
    """The net that is meant for a checkpoint at `path` with the tensors `specs`, where nobody names one that of its
    `origin`; a checkpoint that none of the registry fits is taken with the `.meta` beside it.

    Raises SelectionError where it cannot be told, and what `open_graph` and `net_of_function` raise.
    """
    if reference.net and reference.is_function:
        from .function import net_of_function

        return net_of_function(reference.net, reference.choices, reference.image_size, tuple(specs))
    if reference.graph:
        return net_from(open_graph(reference.graph, reference.choices, specs, path))
    unknown = SelectionError("there is no graph to choose in", path=path, advice="Name its file with --graph.")
    if not reference.chosen:
        try:
            return find_net(reference.net or (origin.net if origin else "") or None, specs, path)
        except SelectionError as error:
            unknown = error
    beside = graph_of(path) if path and reference.net is None else ""
    if not beside:
        raise unknown
    try:
        return net_from(open_graph(beside, reference.choices, specs, path))
    except PlanError as error:
        if not reference.chosen:  # nobody named this graph
            error.advice = "The checkpoint's names match none of the nets here; --net NAME treats it as one of them."
        raise
