"""Chooses the tensors of a graph that are its features and logits: what the user says, else the likeliest candidate.

If several candidates are equally likely, the user must decide: a conflict lists them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..errors import CheckpointError, SelectionError, nearest
from ..formats import open_checkpoint
from ..formats.graph_file import GraphFile
from ..formats.nodes import is_known
from ..kinds import kinds
from ..plan import Conflict
from ..tensors import Tensors
from .finding import Candidate, candidates, logits_at, walk_to_layer
from .graph import Graph, node_of, output, output_of
from .layers import Layers
from .operations import ACTIVATIONS, PLACEHOLDERS, VARIABLES

FREEZE = (  # said of SavedModels of TensorFlow 2
    "Make a frozen graph of it first, by TensorFlow's convert_variables_to_constants_v2 as docs/graph_net.md shows, "
    "and give that to --graph."
)
_COMPARED = 50  # candidates
_LISTED = 8


class Choices(NamedTuple):
    """What the user decided: names of tensors, with or without ":0", and values to feed."""

    input: str = ""
    features: str = ""
    logits: str = ""
    feeds: Mapping[str, object] = {}


AS_FOUND = Choices()


class Target(NamedTuple):
    """What the net shall compute: the features, the logits, and the layer between them if there is one."""

    features: str
    logits: str = ""
    layer: str = ""
    slot: int = 0  # which input of the layer the features are
    width: int | None = None
    classes: int | None = None
    pooled: str = "flat"
    models: int = 1  # models in the graph; if several, the checkpoint shows that this one was trained


class Beside(NamedTuple):
    """The checkpoint that belongs to a graph: its path, its tensor names, and variable -> name in it."""

    source: str = ""
    names: Collection[str] = ()
    keys: Mapping[str, str] = {}

    def key(self, variable: str) -> str:
        return self.keys.get(variable, variable)


def choose(layers: Layers, choices: Choices, file: GraphFile, beside: Beside) -> tuple[Target | None, list[Conflict]]:
    """The target, or None, and the conflicts that keep it from being certain."""
    graph = layers.graph
    found = candidates(layers)
    if choices.logits:
        logits = _before_probabilities(graph, tensor_called(graph, choices.logits))
        chosen = [each for each in found if each.logits == logits] or _at(layers, logits)
        if not chosen and not choices.features:
            advice = f"{logits} is made by no matrix product or convolution; name another tensor with --logits."
            return None, [Conflict("no layer", (logits,), advice)]
        target = _of_candidate(layers, chosen[0], logits) if chosen else Target("", logits)
        return (_with_features(graph, target, choices.features) if choices.features else target), []
    if choices.features:
        return _with_features(graph, Target(""), choices.features), []
    if not found:
        return None, [_no_layers(file, graph)]
    if beside.names:
        found = [each for each in found[:_COMPARED] if _keys(graph, each, beside) <= set(beside.names)] or found
    found, models = _without_untrained(graph, found, beside)
    for cause, rivals in (("several models in one graph", _models), ("several heads on one net", _heads)):
        if others := rivals(graph, found, beside):
            names = tuple(each.logits for each in (found[0], *others))
            same = rivals is _heads and {each.layer.data for each in others} == {found[0].layer.data}
            neither = f" --features {found[0].layer.data} takes neither." if same else ""
            return None, [Conflict(cause, names, f"Choose one: --logits {names[0]}.{neither}")]
    target = _of_candidate(layers, found[0], found[0].logits)._replace(models=models)
    classes = _gives_classes(layers, found)
    features = _features_by_signature(file, graph)
    if features and not (classes and (found[0].evidence > 0 or logits_at(graph, features) == found[0].logits)):
        return _with_features(graph, Target(""), features), []
    if not classes:
        advice = "--logits NAME says which tensor they are; --features NAME makes the net a feature extractor."
        if _gives_back(graph, found[0]):
            advice = f"{found[0].logits} has as many values as the input, and reconstructs it. {advice}"
        known = {each.layer.name for each in found}
        siblings = [each.name for each in layers.found.values() if each.data == found[0].layer.data]
        ends = (*(each.logits for each in found), *(name for name in siblings if name not in known))[:_LISTED]
        return target._replace(logits="", classes=None), [Conflict("no classes found", ends, advice)]
    return target, []


def _with_features(graph: Graph, target: Target, name: str) -> Target:
    """The target with the features that the user named; its logits stay."""
    features = tensor_called(graph, name)
    shape = graph.shape(features)
    width = shape[-1] if shape else None
    return target._replace(features=features, layer="", width=width, pooled="mean")


def _before_probabilities(graph: Graph, tensor: str) -> str:
    """The logits that a tensor is made from; the tensor may be their softmax or sigmoid."""
    before = logits_at(graph, tensor)
    return logits_at(graph, graph.inputs[node_of(before)][0]) if graph.op(before) == "Sigmoid" else before


def _at(layers: Layers, logits: str) -> list[Candidate]:
    layer = walk_to_layer(layers, logits)
    return [Candidate(layers.found[layer], logits, 3, 0, False)] if layer else []


def _of_candidate(layers: Layers, found: Candidate, logits: str) -> Target:
    layer, graph = found.layer, layers.graph
    slot = graph.inputs[layer.name].index(layer.data)
    between = graph.upstream([logits]) & graph.downstream([layer.name])
    pooled = "mean" if any(graph.nodes[name].op in ("Mean", "AvgPool") for name in between) else "flat"
    width = layer.inputs
    kernel = layer.shape[:2] if layer.shape and len(layer.shape) == 4 else None
    if pooled == "flat" and width and is_known(kernel):
        width *= kernel[0] * kernel[1]
    return Target(layer.data, logits, layer.name, slot, width, layer.outputs, pooled)


def _models(graph: Graph, found: list[Candidate], beside: Beside) -> list[Candidate]:
    """Candidates as likely as the first that share no variables with it: other models in the graph, not further copies
    of the same one."""
    first, rivals = found[0], []
    taken = _keys(graph, first, beside)
    for each in found[1:_COMPARED]:
        if (each.inner, each.evidence) == (first.inner, first.evidence) and each.layer.data != first.layer.data:
            own = _keys(graph, each, beside)
            if not own & taken:
                rivals.append(each)
                taken |= own
    return rivals


def _heads(graph: Graph, found: list[Candidate], beside: Beside) -> list[Candidate]:
    """Candidates of the first one's rank whose last layers have their own weights: other tasks of the same net."""
    first, others = found[0], []
    taken = _weights(graph, first, beside)
    for each in found[1:_COMPARED] if first.evidence > 0 else ():
        own = _weights(graph, each, beside)
        if each.rank == first.rank and not own & taken:
            others.append(each)
            taken |= own
    return others


def _without_untrained(graph: Graph, found: list[Candidate], beside: Beside) -> tuple[list[Candidate], int]:
    """The candidates without the untrained models, and how many models there were; all candidates and 1 unless exactly
    one model was trained."""
    models = [found[0], *_models(graph, found, beside)]
    trained = _trained(graph, models, beside) if len(models) > 1 else []
    if len(trained) != 1:
        return found, 1
    return [trained[0], *(each for each in found if each not in models)], len(models)


def _trained(graph: Graph, models: list[Candidate], beside: Beside) -> list[Candidate]:
    """The models that the checkpoint shows to be trained: the optimizer slots of their last layer no longer hold one
    number everywhere, as they did at the start. Empty if the checkpoint cannot be read."""
    try:
        tensors = open_checkpoint(beside.source).tensors if beside.source else Tensors()
        slots = [(name, kind.of) for name, kind in kinds(tensors.specs()).items() if kind.kind == "slot"]
        moved = []
        for each in models:
            weights = _weights(graph, each, beside)
            values = [tensors[name].load().reshape(-1) for name, of in slots if of in weights]
            if any((value != value[:1]).any() for value in values):
                moved.append(each)
    except CheckpointError:
        return []
    return moved


def _weights(graph: Graph, found: Candidate, beside: Beside) -> set[str]:
    """The variables, by their keys, and the constants that the weights of the last layer are made of."""
    made_of = (*VARIABLES, "Const")
    return {beside.key(name) for name in graph.upstream([found.layer.weights]) if graph.nodes[name].op in made_of}


def _keys(graph: Graph, found: Candidate, beside: Beside) -> set[str]:
    """The variables that the logits depend on, by their names in the checkpoint."""
    return {beside.key(name) for name in graph.upstream([found.logits]) if graph.nodes[name].op in VARIABLES}


def _features_by_signature(file: GraphFile, graph: Graph) -> str:
    """The features that a SavedModel's signature gives, as in hub modules: its only output with one row per image."""
    for key in ("image_feature_vector", "default", "serving_default"):
        outputs = file.signatures[key].outputs if key in file.signatures else {}
        named = [(name, shape) for name, (tensor, _, shape) in outputs.items() if node_of(tensor) in graph.nodes]
        rows = [name for name, shape in named if len(shape or ()) == 2]
        name = "default" if "default" in rows else rows[0] if len(rows) == 1 else ""
        if name:
            return outputs[name][0]
    return ""


def _gives_classes(layers: Layers, found: list[Candidate]) -> bool:
    """Whether the first candidate is a classifier: by its evidence, or because it is the net's only end and linear."""
    first, graph = found[0], layers.graph
    shape = graph.shape(first.logits)
    if shape is not None and (len(shape) > 4 or len(shape) == 3 or (len(shape) == 4 and set(shape[1:3]) - {1, None})):
        return False
    if _gives_back(graph, first):
        return False
    if first.evidence > 0:
        return True
    ends = [each for each in found if not each.inner]
    between = graph.upstream([first.logits]) & graph.downstream([first.layer.name])
    is_linear = not any(graph.nodes[name].op in ACTIVATIONS for name in between)
    return first.evidence == 0 and len(ends) == 1 and is_linear and (first.layer.outputs or 0) > 1


def _gives_back(graph: Graph, found: Candidate) -> bool:
    """Whether a candidate ends an autoencoder: as many values out as in, and no classification loss."""
    if found.evidence > 1 or not found.layer.outputs:
        return False
    fed = [name for name in graph.upstream([found.logits]) if graph.nodes[name].op in PLACEHOLDERS]
    sides = [shape[1:] for shape in map(graph.shape, fed) if shape and len(shape) > 1]
    return any(is_known(each) and math.prod(each) == found.layer.outputs for each in sides)


def _no_layers(file: GraphFile, graph: Graph) -> Conflict:
    if file.functions and any("PartitionedCall" in node.op for node in graph.nodes.values()):
        return Conflict("the net is in a function library", (), f"It was written by TensorFlow 2. {FREEZE}")
    return Conflict("no net found", (), "The graph has no convolution and no matrix product with weights.")


def tensor_called(graph: Graph, name: str) -> str:
    """The tensor that the user named. Raises SelectionError, with the nearest names, if the graph lacks it."""
    node = node_of(name)
    if node not in graph.nodes:
        raise SelectionError(f"the graph has no operation {node}{nearest(node, graph.nodes)}")
    return output(node, output_of(name))
