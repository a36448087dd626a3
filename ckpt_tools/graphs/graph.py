"""A graph to traverse: nodes by name, uses of their outputs, upstream and downstream sets, topological order.

Tensors are spelled as in GraphDefs: "conv1/Conv2D" is the first output of a node, "split:1" the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from ..errors import DamagedError
from ..formats.nodes import Node, Shape


class Use(NamedTuple):
    """Where a tensor goes: input number `slot` of `node`."""

    node: str
    slot: int
    tensor: str


class Graph:
    """An immutable graph. Traversals follow data inputs, not control inputs, unless they say otherwise."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: dict[str, Node] = {node.name: node for node in nodes}
        self.inputs: dict[str, list[str]] = {name: _data(node.inputs) for name, node in self.nodes.items()}
        self._shapes: dict[str, list[Shape]] = {}

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """Node -> where its outputs go."""
        found: dict[str, list[Use]] = {}
        for name, tensors in self.inputs.items():
            for slot, tensor in enumerate(tensors):
                found.setdefault(node_of(tensor), []).append(Use(name, slot, tensor))
        return found

    def controls(self, name: str) -> list[str]:
        """The nodes that a node has control inputs from."""
        return [each[1:] for each in self.nodes[name].inputs if each[:1] == "^"]

    def op(self, tensor: str) -> str:
        """The operation that makes a tensor; "" if the graph does not have it."""
        node = self.nodes.get(node_of(tensor))
        return node.op if node else ""

    def shape(self, tensor: str) -> Shape:
        """A tensor's shape by the file; None if the rank is unknown or the file does not say."""
        name, number = node_of(tensor), output_of(tensor)
        if name not in self._shapes:
            node = self.nodes[name]
            found = node.output_shapes()
            if not found and node.op in ("Placeholder", "PlaceholderWithDefault", "VariableV2", "Variable"):
                found = [node.shape()]
            self._shapes[name] = found
        shapes = self._shapes[name]
        return shapes[number] if number < len(shapes) else None

    def upstream(self, goals: Iterable[str], stop: Callable[[str], bool] | None = None) -> set[str]:
        """The nodes that the tensors depend on, including their own. At nodes for which `stop` is true the walk ends.

        Raises DamagedError if an input is not a node of the graph.
        """
        found: set[str] = set()
        waiting = [node_of(goal) for goal in goals]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            if name not in self.nodes:
                raise DamagedError(f"an input called {name} is not in the graph")
            found.add(name)
            if stop is None or not stop(name):
                waiting += [node_of(tensor) for tensor in self.inputs[name]]
        return found

    def downstream(self, begins: Iterable[str], within: Collection[str] | None = None) -> set[str]:
        """These nodes and all that depend on them; with `within`, only paths inside that set are followed."""
        found: set[str] = set()
        waiting = list(begins)
        while waiting:
            name = waiting.pop()
            if name not in found and (within is None or name in within):
                found.add(name)
                waiting += [use.node for use in self.uses.get(name, ())]
        return found

    def before(self, tensor: str, ops: Collection[str]) -> str:
        """The tensor reached by going back along first inputs as long as the operation is one of `ops`."""
        for _ in self.nodes:  # an upper bound, since a damaged graph may be circular
            inputs = self.inputs.get(node_of(tensor))
            if not inputs or self.op(tensor) not in ops:
                break
            tensor = inputs[0]
        return tensor

    def ordered(self, names: set[str]) -> list[str]:
        """These nodes in topological order; in a loop, a Merge comes before the NextIteration that feeds it.

        Raises DamagedError if nodes depend on each other in a circle that is not a loop.
        """
        waits = {}
        after: dict[str, list[str]] = {}
        for name in names:
            loops = self.nodes[name].op in ("Merge", "RefMerge")
            before = {node_of(tensor) for tensor in self.inputs[name]} & names
            if loops:
                before = {each for each in before if "NextIteration" not in self.nodes[each].op}
            waits[name] = len(before)
            for each in before:
                after.setdefault(each, []).append(name)
        ready = [name for name in self.nodes if waits.get(name) == 0]
        ready.reverse()  # so that what stands first in the file is taken first
        done: list[str] = []
        while ready:
            name = ready.pop()
            done.append(name)
            for each in after.get(name, ()):
                waits[each] -= 1
                if waits[each] == 0:
                    ready.append(each)
        if len(done) < len(waits):
            raise DamagedError(f"{len(waits) - len(done)} nodes of the graph depend on each other in a circle")
        return done


def _data(inputs: Sequence[str]) -> list[str]:
    """The data inputs. Control inputs follow them, hundreds of them where updates have to run first."""
    if inputs and inputs[-1][:1] != "^":
        return [each.removesuffix(":0") for each in inputs if each[:1] != "^"]
    return [each.removesuffix(":0") for each in itertools.takewhile(_is_data, inputs)]


def _is_data(spelled: str) -> bool:
    return spelled[:1] != "^"


def in_loops(graph: Graph) -> set[str]:
    """The nodes between the Enter and Exit operations of loops."""
    entries = [name for name, node in graph.nodes.items() if node.op in ("Enter", "RefEnter")]
    exits = {name for name, node in graph.nodes.items() if node.op in ("Exit", "RefExit")}
    return graph.downstream(entries, graph.nodes.keys() - exits) if entries else set()


def node_of(tensor: str) -> str:
    """
    >>> node_of("split:1"), node_of("^init"), node_of("conv1/Conv2D")
    ('split', 'init', 'conv1/Conv2D')
    """
    return tensor.partition(":")[0].removeprefix("^")


def output_of(tensor: str) -> int:
    """
    >>> output_of("split:1"), output_of("conv1/Conv2D")
    (1, 0)
    """
    number = tensor.partition(":")[2]
    return int(number) if number.isdigit() else 0


def output(name: str, number: int) -> str:
    """
    >>> output("split", 1), output("split", 0)
    ('split:1', 'split')
    """
    return f"{name}:{number}" if number else name
