"""TensorFlow 2's object graph: maps the keys of an object-based checkpoint to the original names of its variables.

Such a file holds a serialized TrackableObjectGraph. Its nodes are the saved objects; an attribute of a node gives a
variable's full name and its key in the file (trackable_object_graph.proto).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from .proto import Bytes, fields, message, put_bytes, raw, text

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def attributes(graph: Bytes) -> Iterator[tuple[str, str]]:
    """Full name and checkpoint key of every attribute: nodes* { attributes* { 2 full_name, 3 checkpoint_key } }."""
    for field, wire, node in fields(graph):
        if field != 1:
            continue
        for inner, inner_wire, attribute in fields(message(node, wire, "a node of the object graph")):
            if inner != 2:
                continue
            full_name = key = ""
            for number, kind, value in fields(message(attribute, inner_wire, "an attribute of the object graph")):
                if number == 2:
                    full_name = text(message(value, kind, "a variable's name"))
                elif number == 3:
                    key = text(message(value, kind, "a checkpoint key"))
            yield full_name, key


def rekeyed(graph: Bytes, keys: Mapping[str, str | None]) -> bytes:
    """The graph with changed checkpoint keys: old key -> new key, or None to remove the attribute."""
    out = []
    for field, wire, node in fields(graph):
        node = message(node, wire, "a field of the object graph")
        out.append(put_bytes(field, _rekeyed_node(node, keys) if field == 1 else node))
    return b"".join(out)


def _rekeyed_node(node: Bytes, keys: Mapping[str, str | None]) -> bytes:
    out = []
    for field, wire, value in fields(node):
        value = message(value, wire, "a field of a node of the object graph")
        if field == 2:
            parts = [(n, message(v, w, "an attribute of the object graph")) for n, w, v in fields(value)]
            old = next((text(part) for number, part in parts if number == 3), "")
            new = keys.get(old, old)
            if new is None:
                continue
            value = b"".join(put_bytes(number, raw(new) if number == 3 else part) for number, part in parts)
        out.append(put_bytes(field, value))
    return b"".join(out)


def variable_names(graph: Bytes, keys: Collection[str]) -> dict[str, str]:
    """Shown name -> key, for every key that is shown under another name.

    A key is shown as the variable's full name if only one variable has that name, else as the key without the usual
    suffix. If two keys would be shown under the same name, both are shown as they are.

    >>> variable_names(b"", ["step/.ATTRIBUTES/VARIABLE_VALUE"])
    {'step': 'step/.ATTRIBUTES/VARIABLE_VALUE'}
    """
    full_names = {key: name for name, key in attributes(graph) if name and key in keys}
    shared = Counter(full_names.values())
    shown = {}
    for key in keys:
        name = full_names.get(key, "")
        shown[key] = name if shared[name] == 1 else key.removesuffix(VALUE_SUFFIX)
    taken = Counter(shown.values())
    clashing = {key for key, name in shown.items() if taken[name] > 1 or (name != key and name in keys)}
    return {name: key for key, name in shown.items() if name != key and key not in clashing}
