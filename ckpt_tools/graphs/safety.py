"""Refuses nets that touch files, the network, Python, or anything else but their own tensors.

A graph is a program, and its author may be anyone. Every operation between the images and the features, and in every
function that is called there, must be known, and must be a function of its inputs or keep its state to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..formats.graph_file import Function
from ..formats.nodes import Node
from ..plan import Conflict
from ..report import listed
from .graph import Graph
from .operations import known_operations

_ALLOWED = ("", "state", "random")  # random numbers are reported elsewhere
_NAMED = 5


def refusals(graph: Graph, functions: Mapping[str, Function]) -> list[Conflict]:
    """One conflict for unknown operations, and one for those that are refused."""
    known = known_operations()
    unknown: dict[str, str] = {}
    refused: dict[str, str] = {}
    called = functions_called(graph.nodes.values(), functions)
    for node in (*graph.nodes.values(), *(node for function in called for node in function.nodes)):
        if node.op in functions:
            continue
        if node.op not in known:
            unknown.setdefault(node.name, node.op)
        elif known[node.op].touches not in _ALLOWED:
            refused.setdefault(node.name, node.op)
    conflicts = []
    if unknown:
        name = next(iter(unknown))
        before = graph.inputs.get(name, [""])[:1]
        where = before[0] if before and before[0] else "NAME"
        advice = f"{_listed(unknown)}: this TensorFlow does not know it; --features {where} cuts the net off before it."
        conflicts.append(Conflict("unknown operations in the net", tuple(unknown), advice))
    if refused:
        touched = ", ".join(dict.fromkeys(known[op].touches for op in refused.values()))
        advice = f"{_listed(refused)}: an imported net may use its own tensors only, not {touched}."
        conflicts.append(Conflict("operations that are not allowed", tuple(refused), advice))
    return conflicts


def functions_called(nodes: Iterable[Node], functions: Mapping[str, Function]) -> list[Function]:
    """All functions that these nodes call, directly or indirectly."""
    found: dict[str, Function] = {}
    waiting = list(nodes)
    while waiting:  # each function once, whoever calls it
        node = waiting.pop()
        for name in (node.op, *node.functions()):
            if name in functions and name not in found:
                found[name] = functions[name]
                waiting += functions[name].nodes
    return list(found.values())


def _listed(operations: Mapping[str, str]) -> str:
    return listed([f"{name} ({op})" for name, op in operations.items()], _NAMED)
