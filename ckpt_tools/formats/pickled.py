"""Reads a pickle as data: nothing that it names is looked up, imported or called.

Python's own unpickler executes what a pickle says, so that a file can run any code. The machine here only knows the
opcodes: a class or function stays a `Name`, and an object that Python would make with it stays a `PickledObject`. The
opcodes are parsed by `pickletools`, which runs no code either.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from ..errors import DamagedError, UnsupportedError

_PLAIN = (str, bytes, int, float, bool, type(None))


class Name(NamedTuple):
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Persistent(NamedTuple):
    """Something outside the pickle; `what` is the pickle's identifier for it."""

    what: object


class PickledObject:
    """The object that Python would make by calling `of` with `args`, setting `state`, and adding `items` like a
    dict's."""

    __slots__ = ("args", "items", "of", "state")

    def __init__(self, of: Any, args: Any) -> None:
        self.of, self.args, self.state = of, args, None
        self.items: dict[Any, Any] = {}


def read_pickle(file: BinaryIO) -> Any:
    """The value of the pickle at the file's position, which is moved to its end.

    Numbers, texts, None, tuples, lists and dicts are returned as such; a set becomes a list. Raises DamagedError for
    bytes that are not a pickle, and UnsupportedError for extension codes, which only the writing program knows.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            _RULES[opcode.name](machine, argument)
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, MemoryError, OverflowError) as error:
        raise DamagedError(f"not a sound pickle: {error}") from error


class _Machine:
    """The stack, the stacks below each mark, and the memo of values to be used again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[Any, Any] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def make(self, of: Any, args: Any) -> None:
        is_dict = isinstance(of, Name) and of in _DICTS
        self.push({} if is_dict else PickledObject(of, args))
        given = args[0] if is_dict and args else ()
        for pair in given.items() if isinstance(given, dict) else given:
            self.set_items(list(pair))

    def name(self, text: str) -> None:
        self.push(Name(*text.split(" ", 1)))

    def name_on_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(Name(str(module), str(name)))

    def set_items(self, flat: list[Any]) -> None:
        owner = self.stack[-1]
        items = owner.items if isinstance(owner, PickledObject) else owner
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Hashing a deeply nested key would crash the process.
            items[key if isinstance(key, (*_PLAIN, Name)) else PickledObject(key, ())] = value

    def add(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):  # else a custom class that behaves like a list or set
            self.stack[-1].extend(values)

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], PickledObject):
            self.stack[-1].state = state


_DICTS = (Name("collections", "OrderedDict"), Name("builtins", "dict"), Name("__builtin__", "dict"))


def _unsupported(opcode: str) -> Callable[[_Machine, object], None]:
    def rule(machine: _Machine, argument: object) -> None:
        raise UnsupportedError(f"the pickle uses {opcode}, whose meaning lies outside the file")

    return rule


def _dict_of(machine: _Machine) -> None:
    flat = machine.since_mark()
    machine.push({})
    machine.set_items(flat)


def _old_object(machine: _Machine) -> None:
    of, *args = machine.since_mark()
    machine.make(of, tuple(args))


def _object(machine: _Machine, count: int) -> None:
    """NEWOBJ takes a class and its arguments from the stack, NEWOBJ_EX also keyword arguments, which are ignored."""
    taken = [machine.stack.pop() for _ in range(count)]
    machine.make(taken[-1], taken[-2])


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


def _constant(value: object) -> Callable[[_Machine, object], None]:
    return lambda machine, _: machine.push(value)


def _tuple(count: int) -> Callable[[_Machine, object], None]:
    def rule(machine: _Machine, argument: object) -> None:
        split = len(machine.stack) - count
        if split < 0:
            raise LookupError("a tuple of more than there is")
        machine.stack[split:] = [tuple(machine.stack[split:])]

    return rule


_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_RULES: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(_VALUES, lambda machine, value: machine.push(value)),
    **{word: _constant(value) for word, value in _CONSTANTS.items()},
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.push([])),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.since_mark(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, n: machine.memo.update({n: machine.stack[-1]})),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, n: machine.push(machine.memo[n])),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    **{f"TUPLE{count}": _tuple(count) for count in (1, 2, 3)},
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _: machine.push(machine.since_mark())),
    "DICT": lambda machine, _: _dict_of(machine),
    "APPEND": lambda machine, _: machine.add([machine.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.add(machine.since_mark())),
    "SETITEM": lambda machine, _: machine.set_items(_pair(machine)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": lambda machine, text: machine.name(text),
    "STACK_GLOBAL": lambda machine, _: machine.name_on_stack(),
    "REDUCE": lambda machine, _: machine.make(*_pair(machine)),
    "INST": lambda machine, text: machine.make(Name(*text.split(" ", 1)), tuple(machine.since_mark())),
    "OBJ": lambda machine, _: _old_object(machine),
    "NEWOBJ": lambda machine, _: _object(machine, 2),
    "NEWOBJ_EX": lambda machine, _: _object(machine, 3),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, text: machine.push(Persistent(text)),
    "BINPERSID": lambda machine, _: machine.push(Persistent(machine.stack.pop())),
    **{word: _unsupported(word) for word in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")},
}
