"""Reads the settings of a recipe's operations: converts a YAML node to a value of the setting's type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .adaptation import parse_class_map
from .labels import label_list
from .renames import rename_rules

if TYPE_CHECKING:
    from yaml import MappingNode, ScalarNode, SequenceNode

    Node: TypeAlias = ScalarNode | MappingNode | SequenceNode


class WrongSetting(Exception):
    """A value of the wrong type; `node` knows its line."""

    def __init__(self, node: Node, text: str) -> None:
        super().__init__(text)
        self.node = node


def read_setting(node: Node, name: str, type_name: str) -> object:
    """The value of the setting `name`, a field of type `type_name` of an operation.

    Raises WrongSetting for a value of another type, and RecipeError if the value itself is invalid.
    """
    return (_BY_NAME.get(name) or _BY_TYPE[type_name])(node, name)


def _string(node: Node, name: str) -> str:
    if node.id != "scalar" or _is_null(node):
        raise WrongSetting(node, f"{name} must be a text, not {_shown(node)}")
    return node.value


def _scalar(node: Node, name: str, tags: tuple[str, ...], what: str) -> Any:
    import yaml

    if node.id != "scalar" or node.tag.rpartition(":")[2] not in tags:
        raise WrongSetting(node, f"{name} must be {what}, not {_shown(node)}")
    return yaml.safe_load(node.value)


def _whole(node: Node, name: str) -> int:
    return _scalar(node, name, ("int",), "a whole number")


def _whole_or_none(node: Node, name: str) -> int | None:
    return _scalar(node, name, ("int", "null"), "a whole number")


def _number(node: Node, name: str) -> float:
    try:
        return float(_string(node, name))  # YAML 1.1 reads 1e-3 as text
    except (ValueError, WrongSetting):
        raise WrongSetting(node, f"{name} must be a number, not {_shown(node)}") from None


def _truth(node: Node, name: str) -> bool:
    return _scalar(node, name, ("bool",), "true or false")


def _strings(node: Node, name: str) -> tuple[str, ...]:
    return tuple(_string(each, name) for each in _items(node, name))


def _words(node: Node, name: str) -> tuple[str, ...]:
    return tuple(word.strip() for text in _strings(node, name) for word in text.split(","))


def _wholes(node: Node, name: str) -> tuple[int, ...]:
    return tuple(_whole(each, name) for each in _items(node, name))


def _class_map(node: Node, name: str) -> tuple[int | None, ...]:
    if node.id == "scalar":
        return parse_class_map(node.value)
    return tuple(_whole_or_none(each, name) for each in _items(node, name))


def _labels(node: Node, name: str) -> tuple[str, ...]:
    return label_list(node.value) if node.id == "scalar" else _strings(node, name)


def _rules(node: Node, name: str) -> tuple[tuple[str, str], ...]:
    if node.id != "mapping":
        return tuple(pair for text in _strings(node, name) for pair in rename_rules(text))
    return tuple((_string(old, name), "" if _is_null(new) else _string(new, name)) for old, new in node.value)


_Convert = Callable[["Node", str], object]
_BY_NAME: dict[str, _Convert] = {
    "class_map": _class_map,
    "labels_from": _labels,
    "labels_to": _labels,
    "what": _words,
    "rules": _rules,
    "rename": _rules,
}
_BY_TYPE: dict[str, _Convert] = {
    "str": _string,
    "str | Tensors": _string,
    "int": _whole,
    "int | None": _whole_or_none,
    "float": _number,
    "bool": _truth,
    "tuple[str, ...]": _strings,
    "tuple[str | Tensors, ...]": _strings,
    "tuple[int, ...]": _wholes,
}


def _items(node: Node, name: str) -> Sequence[Node]:
    if node.id == "mapping":
        raise WrongSetting(node, f"{name} must be a value or a list, not {_shown(node)}")
    return node.value if node.id == "sequence" else [node]


def _is_null(node: Node) -> bool:
    return node.tag.endswith(":null")


def _shown(node: Node) -> str:
    kinds = {"mapping": "a mapping", "sequence": "a list"}
    return kinds.get(node.id) or ("nothing" if _is_null(node) else repr(node.value))
