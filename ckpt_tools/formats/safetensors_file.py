"""safetensors: a JSON header of names, types, shapes and offsets, then the values, encoded as in V2 data files.

The library checks the header; the values are views of the mapped file. Writing is done here, since the library needs
all tensors in memory at once; the bytes are the same as the library's."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..dtypes import BY_NAME, numpy_dtype
from ..errors import CheckpointError, DamagedError, UnsupportedError
from ..tensors import Spec, Tensor, Tensors
from .checkpoint import Checkpoint
from .data_file import DataFile
from .elements import byte_blocks
from .representable import check_names, check_types
from .storage import is_remote, mapped

if TYPE_CHECKING:
    import numpy as np

    from .mapped import MappedFile

# safetensors' name of each type, in the library's order: the widest types come first in a file.
_RANKED = [
    ("BOOL", "bool"),
    ("U8", "uint8"),
    ("I8", "int8"),
    ("F8_E5M2", "float8_e5m2"),
    ("F8_E4M3", "float8_e4m3fn"),
    ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
    ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
    ("I16", "int16"),
    ("U16", "uint16"),
    ("F16", "float16"),
    ("BF16", "bfloat16"),
    ("I32", "int32"),
    ("U32", "uint32"),
    ("F32", "float32"),
    ("C64", "complex64"),
    ("F64", "float64"),
    ("I64", "int64"),
    ("U64", "uint64"),
]
_TO_TENSORFLOW = dict(_RANKED)
_FROM_TENSORFLOW = {name: word for word, name in _RANKED}
_RESERVED = {"__metadata__": "is safetensors' own word"}
_LONGEST_HEADER = 100_000_000  # bytes that the library reads
_RANK = {name: rank for rank, (_, name) in enumerate(_RANKED)}


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a .safetensors file; `tensor.load()` gives read-only views of it.

    Raises DamagedError if the library rejects the header, UnsupportedError for types that TensorFlow does not have.
    """
    path = os.fspath(path)
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UnsupportedError(
            "reading .safetensors needs the safetensors library", path=path, advice='pip install "ckpt-tools[formats]"'
        ) from None
    file = mapped(path)
    try:
        with _with_header(file) as local, safe_open(local, framework="numpy") as checked:
            metadata = dict(checked.metadata() or {})
    except (SafetensorError, ValueError, OverflowError) as error:
        raise DamagedError(f"not a sound safetensors file: {error}", path=path) from error
    length = int.from_bytes(file.part(0, 8, "the length of the header"), "little")
    header = json.loads(bytes(file.part(8, length, "the header")))
    header.pop("__metadata__", None)
    unknown = [f"{name} ({entry['dtype']})" for name, entry in header.items() if entry["dtype"] not in _TO_TENSORFLOW]
    if unknown:
        raise UnsupportedError(f"TensorFlow has no type for {', '.join(unknown[:8])}", path=path)
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    tensors = Tensors((name, _tensor(file, 8 + length, entry)) for name, entry in ordered)
    return Checkpoint(tensors, "safetensors", path, (path,), metadata=metadata)


@contextmanager
def _with_header(file: MappedFile) -> Iterator[str]:
    """Path of a local file for the library to check: the file itself, or the header of a remote file followed by a hole
    of the values' size, which takes no space."""
    if not is_remote(file.path):
        yield file.path
        return
    with tempfile.NamedTemporaryFile(prefix="ckpt-tools-", suffix=".safetensors") as local:
        length = int.from_bytes(file.part(0, min(8, len(file)), "the length of the header"), "little")
        local.write(file.part(0, min(8 + length, len(file), _LONGEST_HEADER), "the header"))
        local.truncate(len(file))
        local.flush()
        yield local.name


def _tensor(file: MappedFile, start: int, entry: Mapping[str, Any]) -> Tensor:
    spec = Spec(_TO_TENSORFLOW[entry["dtype"]], tuple(entry["shape"]))
    begin, end = entry["data_offsets"]

    def load() -> np.ndarray:
        import numpy as np

        block = file.part(start + begin, end - begin, "the tensor")
        return np.frombuffer(block, numpy_dtype(spec.dtype)).reshape(spec.shape)

    return Tensor(spec, load)


def check(tensors: Mapping[str, Tensor]) -> None:
    """Raises UnsupportedError that names all tensors whose type or name the format cannot hold."""
    check_types(tensors, _FROM_TENSORFLOW, ".safetensors")
    check_names(tensors, _RESERVED.get, ".safetensors")


def write(
    tensors: Mapping[str, Tensor],
    path: str,
    progress: Callable[[int], object] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a .safetensors file with one piece of a tensor in memory at a time; `metadata` is free text to store in
    it.

    Raises UnsupportedError that names all tensors whose type or name the format cannot hold.
    """
    check(tensors)
    order = sorted(tensors, key=lambda name: (-_RANK[tensors[name].spec.dtype], name))
    header = _header({name: tensors[name].spec for name in order}, metadata)
    with DataFile(path, len(header) + sum(tensor.spec.nbytes or 0 for tensor in tensors.values()), progress) as out:
        out.write(header)
        for name in order:
            try:
                for block in byte_blocks(tensors[name]):
                    out.write(block)
            except CheckpointError as error:
                raise error.at(tensor=name) from None


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, str] | None) -> bytes:
    """Length and JSON without spaces, padded with spaces so that the values begin at a multiple of eight bytes."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name, spec in specs.items():
        end = offset + math.prod(spec.shape) * BY_NAME[spec.dtype].width
        header[name] = {
            "dtype": _FROM_TENSORFLOW[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise UnsupportedError(
            f"{len(specs):,} names take {len(text):,} bytes, where .safetensors holds {_LONGEST_HEADER:,}",
            advice="Write a V2 checkpoint, which holds any number.",
        )
    return len(text).to_bytes(8, "little") + text
