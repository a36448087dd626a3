"""Constants of a graph: reads a Const's TensorProto as a lazy tensor or an array, and makes Const nodes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..dtypes import BY_NAME, BY_NUMBER, dtype_name, numpy_dtype
from ..errors import CheckpointError, DamagedError, UnsupportedError
from ..tensors import Spec, Tensor
from . import typed_values
from .nodes import Node, attribute, type_value
from .proto import LEN, Bytes, fields, message, number, put_bytes, put_number
from .slices import encode_shape, parse_shape

if TYPE_CHECKING:
    import numpy as np


def constant_tensor(node: Node, path: str) -> Tensor:
    """A Const as a lazy tensor. `path` is used in error messages."""
    return Tensor(constant_spec(node), partial(_load, node, path))


def constant_spec(node: Node) -> Spec:
    """Element type and shape of a Const, without its values."""
    return _spec(node)[0]


def constant_value(node: Node) -> np.ndarray:
    """The values of a Const. Raises DamagedError, and UnsupportedError for a type that is read from raw bytes only."""
    import numpy as np

    spec, content, proto = _spec(node)
    try:
        if content is not None and len(content):
            if spec.nbytes != len(content):
                raise DamagedError(f"{spec} takes {spec.nbytes or 0:,} bytes, but {len(content):,} are stored")
            return np.frombuffer(content, numpy_dtype(spec.dtype)).reshape(spec.shape)
        if spec.dtype not in typed_values.FIELDS:
            raise UnsupportedError(f"constants of type {spec.dtype} are read from raw bytes only")
        count = _stored_count(proto, typed_values.FIELDS[spec.dtype])
        values = typed_values.decode(proto, Spec(spec.dtype, (count,)))
        return _spread(values, spec)
    except CheckpointError as error:
        raise error.at(tensor=node.name) from None


def constant(name: str, values: np.ndarray) -> Node:
    """A Const node with these values."""
    dtype = dtype_name(values.dtype)
    proto = put_number(1, BY_NAME[dtype].number) + put_bytes(2, encode_shape(values.shape))
    value = put_bytes(8, proto + put_bytes(4, values.tobytes()))
    return Node(name, "Const", (), (attribute("dtype", type_value(dtype)), attribute("value", value)))


def _load(node: Node, path: str) -> np.ndarray:
    try:
        return constant_value(node)
    except CheckpointError as error:
        raise error.at(path=path) from None


def _spec(node: Node) -> tuple[Spec, Bytes | None, Bytes]:
    """Type and shape of a Const, its raw bytes if it has any, and its whole TensorProto."""
    dtype, content = 0, None
    shape: tuple[int, ...] = ()
    proto: Bytes = b""
    for field, wire, value in fields(node.attribute("value") or b""):
        if field == 8:
            proto = message(value, wire, "the value of a constant")
    for field, wire, value in fields(proto):
        if field == 1:
            dtype = number(value, wire, "the element type")
        elif field == 2:
            shape = parse_shape(message(value, wire, "the shape"))
        elif field == 4:
            content = message(value, wire, "the values")
    if dtype not in BY_NUMBER:
        raise DamagedError(f"the element type {dtype} is not one of TensorFlow's", tensor=node.name)
    return Spec(BY_NUMBER[dtype].name, shape), content, proto


def _stored_count(proto: Bytes, field: typed_values.Field) -> int:
    chunks = [(wire, value) for found, wire, value in fields(proto) if found == field.number]
    if field.number == typed_values.FIELDS["string"].number:
        return len(chunks)
    packed = [bytes(value) for wire, value in chunks if wire == LEN]
    if field.width:
        return sum(map(len, packed)) // field.width + (len(chunks) - len(packed))
    return sum(byte < 0x80 for value in packed for byte in value) + (len(chunks) - len(packed))


def _spread(values: np.ndarray, spec: Spec) -> np.ndarray:
    """Fills up shortened values: TensorFlow omits repetitions of the last value, and all values of a zero constant."""
    import numpy as np

    if len(values) > spec.parameters:
        raise DamagedError(f"{spec} takes {spec.parameters:,} values, but {len(values):,} are stored")
    if len(values) == spec.parameters:
        return values.reshape(spec.shape)
    last = values[-1] if len(values) else np.zeros((), numpy_dtype(spec.dtype))[()]
    if len(values) <= 1:
        return np.broadcast_to(last, spec.shape)  # takes no memory, whatever size a damaged file claims
    return np.concatenate([values, np.broadcast_to(last, spec.parameters - len(values))]).reshape(spec.shape)
