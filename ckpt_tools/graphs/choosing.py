"""Which tensors of a graph are its features and its classes: what a user says, else the likeliest candidate.

Where several are as likely, it is for the user to say: the conflict lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import SelectionError, nearest
from ..formats.graph_file import GraphFile
from ..formats.nodes import is_known
from ..plan import Conflict
from .finding import Candidate, candidates, logits_at, walk_to_layer
from .graph import Graph, node_of, output, output_of
from .layers import Layers
from .operations import ACTIVATIONS, VARIABLES

FREEZE = (  # said of SavedModels of TensorFlow 2
    "Make a frozen graph of it first, by TensorFlow's convert_variables_to_constants_v2 as docs/graph_net.md shows, "
    "and give that to --graph."
)
_COMPARED = 50  # candidates
_LISTED = 8


class Choices(NamedTuple):
    """What a user decided: names of tensors, ":0" or not, and values of what is fed."""

    input: str = ""
    features: str = ""
    logits: str = ""
    feeds: Mapping[str, object] = {}


AS_FOUND = Choices()


class Target(NamedTuple):
    """What is to be computed: a tensor of features, the logits, and the layer between them where there is one."""

    features: str
    logits: str = ""
    layer: str = ""
    slot: int = 0  # of the features among the layer's inputs
    width: int | None = None
    classes: int | None = None
    pooled: str = "flat"


def choose(
    layers: Layers, choices: Choices, file: GraphFile, is_saved: Callable[[str], bool] | None
) -> tuple[Target | None, list[Conflict]]:
    """What is to be computed, and what stands in the way of knowing it."""
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
    if is_saved is not None:
        found = [each for each in found[:_COMPARED] if all(map(is_saved, _variables(graph, each)))] or found
    for cause, rivals in (("several models in one graph", _models), ("several heads on one net", _heads)):
        if others := rivals(graph, found):
            names = tuple(each.logits for each in (found[0], *others))
            same = rivals is _heads and {each.layer.data for each in others} == {found[0].layer.data}
            neither = f" --features {found[0].layer.data} takes neither." if same else ""
            return None, [Conflict(cause, names, f"Choose one: --logits {names[0]}.{neither}")]
    target = _of_candidate(layers, found[0], found[0].logits)
    classes = _gives_classes(layers, found)
    features = _features_by_signature(file, graph)
    if features and not (classes and (found[0].evidence > 0 or logits_at(graph, features) == found[0].logits)):
        return _with_features(graph, Target(""), features), []
    if not classes:
        advice = "--logits NAME says which tensor they are; --features NAME makes the net a feature extractor."
        ends = tuple(each.logits for each in found[:_LISTED])
        return target._replace(logits="", classes=None), [Conflict("no classes found", ends, advice)]
    return target, []


def _with_features(graph: Graph, target: Target, name: str) -> Target:
    """The target with the features that a user names, and the classes of another one's head, if any."""
    features = tensor_called(graph, name)
    shape = graph.shape(features)
    width = shape[-1] if shape else None
    return target._replace(features=features, layer="", width=width, pooled="mean")


def _before_probabilities(graph: Graph, tensor: str) -> str:
    """The logits behind a tensor that may be their softmax or sigmoid."""
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


def _models(graph: Graph, found: list[Candidate]) -> list[Candidate]:
    """Candidates as likely as the first, with variables of their own: another model in the same graph."""
    first, rivals = found[0], []
    taken = _variables(graph, first)
    for each in found[1:_COMPARED]:
        if (each.inner, each.evidence) == (first.inner, first.evidence) and each.layer.data != first.layer.data:
            own = _variables(graph, each)
            if not own & taken:
                rivals.append(each)
                taken |= own
    return rivals


def _heads(graph: Graph, found: list[Candidate]) -> list[Candidate]:
    """Candidates of the rank of the first whose last layers have weights of their own: other tasks of the same net."""
    first, others = found[0], []
    taken = _weights(graph, first)
    for each in found[1:_COMPARED] if first.evidence > 0 else ():
        own = _weights(graph, each)
        if each.rank == first.rank and not own & taken:
            others.append(each)
            taken |= own
    return others


def _weights(graph: Graph, found: Candidate) -> set[str]:
    """What the weights of the last layer are made of: variables, in a frozen graph constants."""
    made_of = (*VARIABLES, "Const")
    return {name for name in graph.upstream([found.layer.weights]) if graph.nodes[name].op in made_of}


def _variables(graph: Graph, found: Candidate) -> set[str]:
    return {name for name in graph.upstream([found.logits]) if graph.nodes[name].op in VARIABLES}


def _features_by_signature(file: GraphFile, graph: Graph) -> str:
    """The features that a SavedModel says it gives, as hub modules do: its only output of one row an image."""
    for key in ("image_feature_vector", "default", "serving_default"):
        outputs = file.signatures[key].outputs if key in file.signatures else {}
        named = [(name, shape) for name, (tensor, _, shape) in outputs.items() if node_of(tensor) in graph.nodes]
        rows = [name for name, shape in named if len(shape or ()) == 2]
        name = "default" if "default" in rows else rows[0] if len(rows) == 1 else ""
        if name:
            return outputs[name][0]
    return ""


def _gives_classes(layers: Layers, found: list[Candidate]) -> bool:
    """Whether the first candidate is a classifier: by its evidence, or as the only end of a net, which is linear."""
    first, graph = found[0], layers.graph
    shape = graph.shape(first.logits)
    if shape is not None and (len(shape) > 4 or len(shape) == 3 or (len(shape) == 4 and set(shape[1:3]) - {1, None})):
        return False
    if first.evidence > 0:
        return True
    ends = [each for each in found if not each.inner]
    between = graph.upstream([first.logits]) & graph.downstream([first.layer.name])
    is_linear = not any(graph.nodes[name].op in ACTIVATIONS for name in between)
    return first.evidence == 0 and len(ends) == 1 and is_linear and (first.layer.outputs or 0) > 1


def _no_layers(file: GraphFile, graph: Graph) -> Conflict:
    if file.functions and any("PartitionedCall" in node.op for node in graph.nodes.values()):
        return Conflict("the net is in a function library", (), f"It was written by TensorFlow 2. {FREEZE}")
    return Conflict("no net found", (), "The graph has no convolution and no matrix product with weights.")


def tensor_called(graph: Graph, name: str) -> str:
    """The tensor that a user names. Raises SelectionError with the nearest names."""
    node = node_of(name)
    if node not in graph.nodes:
        raise SelectionError(f"the graph has no operation {node}{nearest(node, graph.nodes)}")
    return output(node, output_of(name))
