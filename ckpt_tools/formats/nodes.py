"""Nodes of a GraphDef: name, operation, inputs, and attributes, which are parsed on demand.

    NodeDef   { 1 name, 2 op, 3 input*, 4 device, 5 attr map<name, AttrValue> }
    AttrValue { 1 list, 2 s, 3 i, 4 f, 5 b, 6 type, 7 shape, 8 tensor, 10 func { 1 name } }
    ListValue { 2 s*, 3 i*, 4 f*, 5 b*, 6 type*, 7 shape*, 8 tensor*, 9 func* }

A graph has ten thousand nodes, and only a few hundred of them are asked for attributes, so these stay bytes. Devices
are dropped: they refer to the machine that wrote the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeGuard

from ..dtypes import BY_NAME, BY_NUMBER
from ..errors import DamagedError
from .proto import LEN, VARINT, Bytes, fields, message, put_bytes, put_varint, raw, signed, text, varint
from .slices import shape_sides

Shape = tuple[int | None, ...] | None  # None for an unknown rank; a side is None if it is unknown


def is_known(shape: Shape) -> TypeGuard[tuple[int, ...]]:
    """Whether a shape is fully known."""
    return shape is not None and None not in shape


_SMALL = 1 << 16
_REFERENCE = 100  # offset of the type numbers of references to variables


class Node(NamedTuple):
    """A node. `inputs` are spelled as in the file: "x", "x:1", and "^x" for control inputs. `attributes` are the
    serialized entries of the map."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: tuple[Bytes, ...] = ()

    @property
    def data_inputs(self) -> tuple[str, ...]:
        """The tensors that the operation takes, without control inputs."""
        return tuple(each for each in self.inputs if not each.startswith("^"))

    def attribute(self, name: str) -> Bytes | None:
        """The AttrValue under a name; None if there is none."""
        start = b"\n" + put_varint(len(name)) + name.encode()  # an entry's key as every writer encodes it
        for entry in self.attributes:
            if entry[: len(start)] == start or entry[:1] != b"\n":
                key, value = attribute_of(entry)
                if key == name:
                    return value
        return None

    def entries(self, *names: str) -> tuple[Bytes, ...]:
        """The serialized entries of the map under these names."""
        return tuple(entry for entry in self.attributes if attribute_of(entry)[0] in names)

    def number(self, name: str, default: int = 0) -> int:
        """An integer attribute; `default` if it is absent."""
        found = self._value(name, 3, VARINT)
        return default if found is None else signed(found)

    def truth(self, name: str, default: bool = False) -> bool:
        """A bool attribute; `default` if it is absent, since newer writers omit defaults."""
        return default if self.attribute(name) is None else bool(self._value(name, 5, VARINT))

    def words(self, name: str) -> str:
        """A text attribute; "" if it is absent."""
        return text(self._value(name, 2, LEN) or b"")

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list of integers; () if it is absent."""
        values: list[int] = []
        for field, wire, content in fields(self._value(name, 1, LEN) or b""):
            if field == 3:
                values += [content] if wire == VARINT else varints(message(content, wire, "a list of numbers"))
        return tuple(map(signed, values))

    def dtype(self, name: str = "dtype") -> str | None:
        """TensorFlow's name of the element type in an attribute; None if it is absent or unknown."""
        code = self._value(name, 6, VARINT)
        found = BY_NUMBER.get(code - _REFERENCE if code and code > _REFERENCE else code)
        return found.name if found else None

    def shape(self, name: str = "shape") -> Shape:
        """A shape attribute; None, an unknown rank, also if it is absent."""
        found = self._value(name, 7, LEN)
        return None if found is None else partial_shape(found)

    def output_shapes(self) -> list[Shape]:
        """The shape of each output by `_output_shapes`; [] if the writer did not add it."""
        listed = fields(self._value("_output_shapes", 1, LEN) or b"")
        return [partial_shape(message(content, wire, "a shape")) for field, wire, content in listed if field == 7]

    def function(self, name: str) -> str:
        """The name of the function in an attribute; "" if there is none."""
        return _name_in(self._value(name, 10, LEN) or b"")

    def functions(self) -> Iterator[str]:
        """The names of all functions in the attributes."""
        for entry in self.attributes:
            for field, wire, content in fields(attribute_of(entry)[1]):
                if field == 10:
                    yield _name_in(message(content, wire, "a function"))
                elif field == 1:
                    for inner, inner_wire, each in fields(message(content, wire, "a list")):
                        if inner == 9:
                            yield _name_in(message(each, inner_wire, "a function"))

    def with_attribute(self, name: str, value: bytes | None) -> Node:
        """The node with this AttrValue under a name, or without the attribute if `value` is None."""
        kept = tuple(entry for entry in self.attributes if attribute_of(entry)[0] != name)
        return self._replace(attributes=kept if value is None else (*kept, attribute(name, value)))

    def _value(self, name: str, wanted: int, kind: int) -> Any:
        """The value of field `wanted` in an attribute: the last one, by protobuf's rule."""
        value = None
        for field, wire, content in fields(self.attribute(name) or b""):
            if field == wanted:
                if wire != kind:
                    raise DamagedError(f"the attribute {name} of {self.name} has the wrong wire type {wire}")
                value = content
        return value


def parse_node(data: Bytes) -> Node:
    """Parses a NodeDef, but not its attributes. This loop dominates the time of reading a graph."""
    name = op = ""
    inputs: list[str] = []
    attributes: list[Bytes] = []
    pos, end = 0, len(data)
    data = bytes(data) if end < _SMALL else data  # bytes are faster to index; large nodes hold weights
    while pos < end:
        tag = data[pos]
        if tag & 7 != LEN or tag >= 0x80:
            raise DamagedError(f"a node has a field that nodes do not have (tag {tag})")
        if pos + 1 == end or data[pos + 1] >= 0x80:
            size, start = varint(data, pos + 1, end)
        else:
            size, start = data[pos + 1], pos + 2
        pos = start + size
        if pos > end:
            raise DamagedError(f"a field of a node claims {size:,} bytes where {end - start:,} are left")
        if tag == 0x2A:
            attributes.append(data[start:pos])
        elif tag == 0x1A:
            inputs.append(str(data[start:pos], "utf-8", "surrogateescape"))
        elif tag == 0x0A:
            name = str(data[start:pos], "utf-8", "surrogateescape")
        elif tag == 0x12:
            op = str(data[start:pos], "utf-8", "surrogateescape")
    return Node(name, op, tuple(inputs), tuple(attributes))


def encode_node(node: Node) -> bytes:
    """The NodeDef that `parse_node` reads."""
    parts = [put_bytes(1, raw(node.name)), put_bytes(2, raw(node.op))]
    parts += [put_bytes(3, raw(each)) for each in node.inputs]
    return b"".join([*parts, *(put_bytes(5, bytes(entry)) for entry in node.attributes)])


def attribute_of(entry: Bytes) -> tuple[str, Bytes]:
    """Key and AttrValue of an entry of the map."""
    key: Bytes = b""
    value: Bytes = b""
    for field, wire, content in fields(entry):
        if field == 1:
            key = message(content, wire, "the name of an attribute")
        elif field == 2:
            value = message(content, wire, "an attribute")
    return text(key), value


def attribute(name: str, value: bytes) -> bytes:
    """A serialized entry of the map from a name and an AttrValue."""
    return put_bytes(1, name.encode()) + put_bytes(2, value)


def type_value(dtype: str) -> bytes:
    """An AttrValue with an element type."""
    return put_varint(6 << 3) + put_varint(BY_NAME[dtype].number)


def truth_value(value: bool) -> bytes:
    """An AttrValue with a bool, written even if it is false."""
    return put_varint(5 << 3) + put_varint(value)


def shape_value(shape: Shape) -> bytes:
    """An AttrValue with a shape."""
    if shape is None:
        return put_bytes(7, put_varint(3 << 3) + b"\1")
    sides = (put_varint(1 << 3) + put_varint(-1 if side is None else side) for side in shape)
    return put_bytes(7, b"".join(put_bytes(2, side) for side in sides))


def text_value(words: str) -> bytes:
    """An AttrValue with a text."""
    return put_bytes(2, raw(words))


def numbers_value(numbers: Iterable[int]) -> bytes:
    """An AttrValue with a list of integers."""
    return put_bytes(1, b"".join(put_varint(3 << 3) + put_varint(number) for number in numbers))


def shapes_value(shapes: Iterable[Shape]) -> bytes:
    """An AttrValue with a list of shapes."""
    return put_bytes(1, b"".join(map(shape_value, shapes)))


def partial_shape(data: Bytes) -> Shape:
    """The shape in a TensorShapeProto, where -1 is an unknown size."""
    sides = shape_sides(data)
    if sides is None:
        return None
    if min(sides, default=0) < -1:
        raise DamagedError(f"a shape has a side of {min(sides)}")
    return tuple(None if side < 0 else side for side in sides)


def varints(data: Bytes) -> list[int]:
    """The numbers of a packed list, unsigned."""
    values, pos = [], 0
    while pos < len(data):
        value, pos = varint(data, pos, len(data))
        values.append(value)
    return values


def _name_in(function: Bytes) -> str:
    """The name in a NameAttrList."""
    return next((text(message(content, wire, "a name")) for field, wire, content in fields(function) if field == 1), "")
