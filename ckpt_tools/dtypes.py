"""TensorFlow's element types: name, number in files, bytes on disk, numpy's name.

The numbers are the DataType enum of TensorFlow's types.proto; widths are those in a V2 data file, where a 4-bit or
2-bit integer takes a whole byte. `numpy` names a type of numpy, or of ml_dtypes if numpy has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np


class DType(NamedTuple):
    name: str
    number: int
    width: int  # bytes per element in a V2 data file; 0 if elements differ in length
    numpy: str


_ROWS = [
    DType("float32", 1, 4, "float32"),
    DType("float64", 2, 8, "float64"),
    DType("int32", 3, 4, "int32"),
    DType("uint8", 4, 1, "uint8"),
    DType("int16", 5, 2, "int16"),
    DType("int8", 6, 1, "int8"),
    DType("string", 7, 0, "object"),
    DType("complex64", 8, 8, "complex64"),
    DType("int64", 9, 8, "int64"),
    DType("bool", 10, 1, "bool"),
    DType("qint8", 11, 1, "int8"),
    DType("quint8", 12, 1, "uint8"),
    DType("qint32", 13, 4, "int32"),
    DType("bfloat16", 14, 2, "bfloat16"),
    DType("qint16", 15, 2, "int16"),
    DType("quint16", 16, 2, "uint16"),
    DType("uint16", 17, 2, "uint16"),
    DType("complex128", 18, 16, "complex128"),
    DType("float16", 19, 2, "float16"),
    DType("variant", 21, 0, "object"),
    DType("uint32", 22, 4, "uint32"),
    DType("uint64", 23, 8, "uint64"),
    DType("float8_e5m2", 24, 1, "float8_e5m2"),
    DType("float8_e4m3fn", 25, 1, "float8_e4m3fn"),
    DType("float8_e4m3fnuz", 26, 1, "float8_e4m3fnuz"),
    DType("float8_e4m3b11fnuz", 27, 1, "float8_e4m3b11fnuz"),
    DType("float8_e5m2fnuz", 28, 1, "float8_e5m2fnuz"),
    DType("int4", 29, 1, "int4"),
    DType("uint4", 30, 1, "uint4"),
    DType("int2", 31, 1, "int2"),
    DType("uint2", 32, 1, "uint2"),
    DType("float4_e2m1fn", 33, 1, "float4_e2m1fn"),
]
BY_NAME = {row.name: row for row in _ROWS}
BY_NUMBER = {row.number: row for row in _ROWS}
_FROM_NUMPY = {row.numpy: row.name for row in reversed(_ROWS) if not row.name.startswith("q") and row.width}


def numpy_dtype(name: str) -> np.dtype:
    """numpy's type for a TensorFlow type name; bfloat16, float8, int4 and the like come from ml_dtypes."""
    import numpy as np

    word = BY_NAME[name].numpy
    try:
        return np.dtype(word)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, word))


def dtype_name(dtype: np.dtype) -> str:
    """TensorFlow's name for a numpy type.

    Raises UnsupportedError for a type that TensorFlow has no name for (datetime64, structured types).
    """
    if dtype.kind in "OSU":
        return "string"
    try:
        return _FROM_NUMPY[dtype.name]
    except KeyError:
        raise UnsupportedError(f"numpy type {dtype} has no TensorFlow type") from None
