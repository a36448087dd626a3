"""Inlines function calls, so that everything else sees one flat graph.

TensorFlow 2 keeps nets and the branches of conditions in a function library. A call is inlined if its function is
known, a condition if its predicate is known. Loops stay calls. The number of nodes and the depth of calls are limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import DamagedError
from ..formats.graph_file import Function
from ..formats.nodes import Node, attribute_of
from ..formats.proto import fields
from .graph import output, output_of
from .operations import known_operations

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BRANCHES = ("else_branch", "then_branch")  # indexed by the predicate
CONDITIONS = ("If", "StatelessIf")
_DEEPEST = 50  # nested calls
MOST = 100_000  # nodes after inlining


def inlined(nodes: Iterable[Node], functions: Mapping[str, Function]) -> list[Node]:
    """The nodes with every call replaced by its function's nodes, whose names are prefixed with the call's name.

    Raises DamagedError if there are more than MOST nodes then, or calls are nested more than 50 deep.
    """
    found = list(nodes)
    if not functions:
        return found
    for _ in range(_DEEPEST):
        bodies, room = {}, MOST - len(found)
        for node in found:
            made = _body(node, functions)
            if made is not None:
                bodies[node.name] = made
                room -= len(made[0])
            if bodies and room < 0:
                raise DamagedError(f"the functions of the graph make more than {MOST:,} nodes")
        if not bodies:
            return found
        found = _replaced(found, bodies)
    raise DamagedError("functions of the graph call each other more than 50 deep")


def _replaced(nodes: Iterable[Node], bodies: Mapping[str, tuple[list[Node], dict[str, str]]]) -> list[Node]:
    """The nodes with some replaced; `bodies` maps a name to (its new nodes, old output -> new tensor)."""
    found: list[Node] = []
    given = {tensor: new for _, outputs in bodies.values() for tensor, new in outputs.items()}
    for node in nodes:
        found += bodies[node.name][0] if node.name in bodies else [node]
    return [_retargeted(node, given) for node in found]


def body_of(call: Node, function: Function, inputs: Iterable[str]) -> tuple[list[Node], dict[str, str]] | None:
    """The nodes of a function that replace a call of it, and output of the call -> tensor; None if the number of inputs
    differs, or the function is a template whose types the call decides."""
    inputs = [each.removesuffix(":0") for each in inputs]
    if len(inputs) != len(function.takes) or any(_is_template(node) for node in function.nodes):
        return None
    given = dict(zip(function.takes, inputs, strict=True))
    ops = {node.name: node.op for node in function.nodes}

    def tensor(spelled: str) -> str | None:
        if spelled[:1] == "^":
            return f"^{call.name}/{spelled[1:]}" if spelled[1:] in ops else None
        name, _, rest = spelled.partition(":")
        if not rest:
            return given.get(name)
        if name not in ops:
            raise DamagedError(f"the function {function.name} takes {spelled}, which is not in it")
        return output(f"{call.name}/{name}", _number(ops[name], rest))

    made = []
    for node in function.nodes:
        taken = (tensor(each) for each in node.inputs)
        made.append(node._replace(name=f"{call.name}/{node.name}", inputs=tuple(each for each in taken if each)))
    outputs = {output(call.name, i): tensor(spelled) or "" for i, spelled in enumerate(function.gives)}
    return made, outputs


def _body(node: Node, functions: Mapping[str, Function]) -> tuple[list[Node], dict[str, str]] | None:
    if node.op in functions:
        return body_of(node, functions[node.op], node.data_inputs)
    if node.op not in CALLS:
        return None
    called = [name for name in node.functions() if name in functions]
    return body_of(node, functions[called[0]], node.data_inputs) if len(called) == 1 else None


def _number(op: str, rest: str) -> int:
    """The output number of a tensor in a function, where `rest` is NAME:NUMBER, the number within that named output."""
    name, _, number = rest.partition(":")
    known = known_operations().get(op)
    if known and name in known.outputs:
        return known.outputs.index(name)
    return int(number) if number.isdigit() else 0


def _is_template(node: Node) -> bool:
    """Whether the caller fills in an attribute: AttrValue { 9 placeholder }."""
    return any(field == 9 for entry in node.attributes for field, _, _ in fields(attribute_of(entry)[1]))


def _retargeted(node: Node, given: Mapping[str, str]) -> Node:
    inputs = tuple(_target(each, given) for each in node.inputs)
    return node if inputs == node.inputs else node._replace(inputs=inputs)


def _target(spelled: str, given: Mapping[str, str]) -> str:
    if spelled[:1] == "^":
        return spelled
    tensor = output(spelled.partition(":")[0], output_of(spelled))
    for _ in range(_DEEPEST):
        if tensor not in given:
            break
        tensor = given[tensor]
    return tensor
