"""Finds images, features, classes, switches and variables in an unknown graph, and cuts the net out for inference.

Nothing here imports TensorFlow. Whatever cannot be decided becomes a conflict instead of an error: it lists the
candidates and says what to type. All conflicts are reported together, like those of a plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import DamagedError, SelectionError, nearest
from ..formats.graph_file import GraphFile
from ..formats.graphdef import frozen_names
from ..formats.nodes import Shape
from ..plan import Conflict
from . import batch_size, normalisation
from .channels_last import to_channels_last, turned_shape
from .choosing import AS_FOUND, Beside, Choices, Target, choose, tensor_called
from .conditions import resolve
from .cut import Cut, cut, unassigned
from .dropout import random_operations
from .dropout import remove as remove_dropout
from .end_points import end_points
from .graph import Graph, in_loops, node_of
from .inlining import inlined
from .layers import Layers
from .operations import PLACEHOLDERS, SHAPES, VARIABLES, known_operations
from .partitions import joined
from .safety import refusals
from .savers import checkpoint_keys
from .sources import (
    IMAGE_TYPES,
    Flag,
    Source,
    decided,
    fed,
    inferring,
    is_looked_up,
    joined_pipelines,
    sources,
    tensor_type,
    unflattened,
)
from .variables import GraphVariable, plain, variables_of, without_shape

_PASSED = ("Identity", "StopGradient", "PlaceholderWithDefault")  # between the features and the layer that takes them
_LISTED = 8


class Changes(NamedTuple):
    """Changes made to the graph, as names of operations; `conditions` counts the predicates that decided conditions."""

    conditions: int = 0
    dropout: tuple[str, ...] = ()
    batch_norms: tuple[str, ...] = ()
    any_batch: tuple[str, ...] = ()
    channels_last: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """A net found in a graph. If there are `conflicts`, the parts they concern are missing or a guess.

    `images` is what the file fed; `net` takes a batch of any size under the operation of `images.tensor`. `features`
    and `logits` are tensors of `net`; `logits` is "" if there are no classes. `pooled` says how feature maps become
    vectors: "mean" over the map, or "flat". `operations` counts the operations in the file, `models` the classifiers
    in it; if there are several, this is the one that was trained.
    """

    operations: int
    images: Source | None = None
    features: str = ""
    width: int | None = None
    pooled: str = "flat"
    logits: str = ""
    classes: int | None = None
    flags: tuple[Flag, ...] = ()
    changes: Changes = Changes()
    end_points: Mapping[str, Shape] = field(default_factory=dict)
    variables: tuple[GraphVariable, ...] = ()
    net: Cut | None = None
    conflicts: tuple[Conflict, ...] = ()
    models: int = 1

    @property
    def fed(self) -> Source:
        """The images of an analysis without conflicts."""
        assert self.images is not None
        return self.images

    @property
    def cut(self) -> Cut:
        """The net of an analysis without conflicts."""
        assert self.net is not None
        return self.net


def analyse(file: GraphFile, choices: Choices = AS_FOUND, saved: Collection[str] = (), source: str = "") -> Analysis:
    """Finds the net in a graph file and converts it to inference form.

    `saved` holds the tensor names of the checkpoint that belongs to the graph, if there is one, and `source` is its
    path. If the graph holds several models, only those whose variables are in the checkpoint are candidates, and the
    trained one is chosen.
    Raises SelectionError for a choice that names no tensor, DamagedError for an incomplete graph.
    """
    graph = Graph(plain(inlined(file.nodes, file.functions), file.producer))
    check_inputs(graph)
    graph = joined(graph, file)
    layers, keys = Layers(graph), checkpoint_keys(graph, saved)
    if choices.features and node_of(choices.features) not in graph.nodes:
        choices = choices._replace(features=_end_point_in(file, choices, saved, source))
    for name in (choices.input, choices.features, choices.logits, *choices.feeds):
        if name:
            tensor_called(graph, name)
    target, conflicts = choose(layers, choices, file, Beside(source, saved, keys))
    if target is None:
        return Analysis(len(file.nodes), conflicts=tuple(conflicts))
    return _Net(file, graph, target, choices, conflicts, keys).analysis()


def _end_point_in(file: GraphFile, choices: Choices, saved: Collection[str], source: str) -> str:
    """The only end point in the scope that the user named for the features. Raises SelectionError if there is none or
    more than one."""
    scope = choices.features.strip("/")
    points = list(analyse(file, choices._replace(features=""), saved, source).end_points)
    inside = [point for point in points if point.startswith(f"{scope}/")]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise SelectionError(f"{len(inside)} end points lie in {scope}: {', '.join(inside[-_LISTED:])}")
    known = [*(point.rpartition("/")[0] for point in points), *points]
    raise SelectionError(f"the graph has no operation {scope}, and no end point in it{nearest(scope, known)}")


def check_inputs(graph: Graph) -> None:
    """Raises DamagedError for a node that has fewer inputs than its operation takes."""
    known = known_operations()
    for name, node in graph.nodes.items():
        wanted = known[node.op].inputs if node.op in known else 0
        if len(graph.inputs[name]) < wanted:
            raise DamagedError(f"{name} ({node.op}) has {len(graph.inputs[name])} inputs where {wanted} are needed")


class _Net:
    """One net on its way to inference form: each step makes a new cut and records the conflicts it met."""

    def __init__(
        self,
        file: GraphFile,
        graph: Graph,
        target: Target,
        choices: Choices,
        conflicts: list[Conflict],
        keys: Mapping[str, str],
    ) -> None:
        self.file, self.graph, self.target, self.choices, self.keys = file, graph, target, choices, keys
        self.conflicts = list(conflicts)
        goals = [target.features, *([target.logits] if target.logits else [])]
        self.made = unassigned(cut(graph, goals))
        self.flags: list[Flag] = []
        self.others: tuple[str, ...] = ()  # what the net takes besides images
        self.changes = Changes()

    def analysis(self) -> Analysis:
        self._decide()
        images = self._images()
        if images is None:
            return self._result(None)
        self.made = fed(self.made, images.tensor, images.dtype or "float32", images.shape)
        self._infer()
        self._free(images)
        images = self._turn(images)
        self._look_for_leftovers(node_of(images.tensor))
        return self._result(images)

    def _decide(self) -> None:
        """Sets fed values and switches, then removes conditions and dropout."""
        for name, value in self.choices.feeds.items():
            if node_of(name) in self.made.graph.nodes:
                self.made = decided(self.made, name, value)
        self.flags = inferring(self.made, self.file.functions)
        for flag in self.flags:
            if flag.tensor in self.made.graph.nodes:
                self.made = decided(self.made, flag.tensor, flag.value)
        self.made, conditions = resolve(self.made, self.file.functions)
        self.made, dropped = remove_dropout(self.made)
        self.changes = self.changes._replace(conditions=conditions, dropout=tuple(dropped))

    def _images(self) -> Source | None:
        if self.choices.input:
            return self._named_images(tensor_called(self.graph, self.choices.input))
        found = joined_pipelines(self.made, sources(self.made))
        told = {
            tensor.removesuffix(":0"): Source(tensor.removesuffix(":0"), dtype, shape, True)
            for signature in self.file.signatures.values()
            for tensor, dtype, shape in signature.inputs.values()
        }
        found.sort(key=lambda each: each.tensor not in told)  # inputs of a SavedModel's signatures come first
        if not found or found[0].tensor not in told:  # it may be a tensor behind a decoder
            fed_by_name = [each for each in told.values() if self._may_be_images(each)]
            found = fed_by_name or found
        if found and len(found[0].shape or ()) == 3 and self.graph.op(found[0].tensor).startswith("Decode"):
            found = [_behind_decoder(self.made.graph, found[0])]
        if not found:
            advice = "Name the tensor that images are put into: --input NAME."
            if words := [name for name in self.made.graph.nodes if is_looked_up(self.made.graph, name)]:
                advice = f"{words[0]} is looked up in a table, as words are: this is not a net for images. {advice}"
            self.conflicts.append(Conflict("no images found", tuple(self._like_images()), advice))
            return None
        found[0] = unflattened(self.made, found[0])
        self.others = tuple(each.tensor for each in found[1:] if each.shape)
        if self.others:
            names = (found[0].tensor, *self.others[: _LISTED - 1])
            advice = f"The net takes more than images: --feed {names[1]}=VALUE, or --features NAME in front of it."
            self.conflicts.append(Conflict("several inputs", names, advice))
        return found[0]

    def _named_images(self, tensor: str) -> Source | None:
        if node_of(tensor) not in self.made.graph.nodes:
            advice = f"The features do not depend on {tensor}: name another tensor with --input."
            self.conflicts.append(Conflict("no path from the images to the features", (tensor,), advice))
            return None
        for each in sources(self.made):
            if each.tensor == tensor:
                return each
        return Source(tensor, tensor_type(self.graph, tensor), self.graph.shape(tensor), True)

    def _may_be_images(self, told: Source) -> bool:
        """Whether an input of a signature can be fed to the net as images."""
        is_there = node_of(told.tensor) in self.made.graph.nodes
        return is_there and told.dtype in IMAGE_TYPES and len(told.shape or ()) > 1

    def _like_images(self) -> list[str]:
        """Tensors in front of the features that are shaped like images, in graph order."""
        graph = self.made.graph
        shapes = {name: graph.shape(name) for name in graph.nodes}
        pictures = [name for name, shape in shapes.items() if shape and len(shape) == 4 and shape[3] in (1, 3, 4)]
        return pictures[:_LISTED]

    def _infer(self) -> None:
        self.made, names = normalisation.freeze(self.made, self.graph)
        self.changes = self.changes._replace(batch_norms=tuple(names))

    def _free(self, images: Source) -> None:
        dtype = images.dtype or "float32"
        self.made, freed, stuck = batch_size.free(self.made, node_of(images.tensor), dtype, images.shape)
        if images.shape and images.shape[0] is not None:
            self.changes = self.changes._replace(any_batch=(node_of(images.tensor), *freed))
        if stuck:
            before = self.graph.inputs[stuck[0]][0]
            advice = f"{', '.join(stuck[:3])}: cut the net off before it with --features {before}."
            self.conflicts.append(Conflict("the batch size is fixed", tuple(stuck), advice))

    def _turn(self, images: Source) -> Source:
        """Turns the whole net to channels last; returns its images."""
        self.made, turned = to_channels_last(self.made, images.tensor, images.shape)
        self.changes = self.changes._replace(channels_last=tuple(name for name in self.graph.nodes if name in turned))
        return images._replace(shape=turned_shape(images.shape)) if node_of(images.tensor) in turned else images

    def _look_for_leftovers(self, images: str) -> None:
        """Records what an imported net must not have: unset switches, random numbers, batch statistics, refused
        operations."""
        graph = self.made.graph
        defaults = {
            name: graph.inputs[name][0]
            for name, node in graph.nodes.items()
            if node.op == "PlaceholderWithDefault" and name != images
        }
        self.made = self.made.rewired(defaults)
        graph = self.made.graph
        said = {images, *map(node_of, self.others)}
        fed_too = [name for name, node in graph.nodes.items() if node.op in PLACEHOLDERS and name not in said]
        if fed_too:
            advice = f"Give each a value: --feed {fed_too[0]}=VALUE."
            self.conflicts.append(Conflict("values are needed", tuple(fed_too), advice))
        if drawn := random_operations(graph):
            advice = "The same image gives different features each time: --features NAME cuts the net off before it"
            advice += f"; --input {noisy} takes images behind it." if (noisy := self._noisy(images, drawn)) else "."
            self.conflicts.append(Conflict("the net draws random numbers", tuple(drawn), advice))
        if left := normalisation.batch_statistics(graph):
            advice = "No moving average of it is kept: an image's features would depend on the others of its batch."
            self.conflicts.append(Conflict("batch norm without averages", tuple(left), advice))
        if nameless := without_shape(graph):
            self.conflicts.append(Conflict("variables without a shape", tuple(nameless), "The file does not say it."))
        self.conflicts += refusals(graph, self.file.functions)

    def _noisy(self, images: str, drawn: list[str]) -> str:
        """The images after noise was added, if any was: the first image tensor that depends on both."""
        graph = self.made.graph
        values = {name for name, node in graph.nodes.items() if node.op not in SHAPES}
        both = graph.downstream([images], values) & graph.downstream(drawn) - in_loops(graph)
        shapes = ((name, graph.shape(name)) for name in graph.ordered(set(graph.nodes)) if name in both)
        return next((name for name, shape in shapes if shape and Source(name, None, shape, True).is_image), "")

    def _result(self, images: Source | None) -> Analysis:
        graph = self.made.graph
        features, *logits = self.made.goals
        if self.target.layer and self.target.layer in graph.nodes:
            features = graph.inputs[self.target.layer][self.target.slot]
        features = graph.before(features, _PASSED)
        has_variables = any(node.op in VARIABLES for node in graph.nodes.values())
        frozen = {} if has_variables else frozen_names(self.file.nodes)
        points = {} if images is None else end_points(graph, node_of(images.tensor), features)
        return Analysis(
            operations=len(self.file.nodes),
            images=images,
            features=features,
            width=self._width(features),
            pooled=self.target.pooled,
            logits=logits[0] if logits else "",
            classes=self.target.classes,
            flags=tuple(self.flags),
            changes=self.changes,
            end_points={name: self._shape(name) for name in points},
            variables=tuple(variables_of(self.file, self.graph, graph, self.keys, frozen)),
            net=self.made,
            conflicts=tuple(self.conflicts),
            models=self.target.models,
        )

    def _width(self, features: str) -> int | None:
        shape = self._shape(features) if self.choices.features and features in self.changes.channels_last else None
        return shape[-1] if shape else self.target.width

    def _shape(self, name: str) -> Shape:
        """A tensor's shape by the file, with the axes in their present order."""
        shape = self.graph.shape(name) if name in self.graph.nodes else None
        return turned_shape(shape) if name in self.changes.channels_last else shape


def _behind_decoder(graph: Graph, decoder: Source) -> Source:
    """The first 4-D tensor after the decoder of a single picture, where whole batches can be fed."""
    behind = graph.downstream([node_of(decoder.tensor)])
    for name in graph.ordered(graph.nodes.keys() & behind):
        shape = graph.shape(name)
        if (shape is not None and len(shape) == 4) or (shape is None and graph.nodes[name].op == "ExpandDims"):
            return Source(name, "float32", shape, True)
    return decoder
