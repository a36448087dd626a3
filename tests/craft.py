"""Builds checkpoint files by hand that are deliberately wrong but have valid block checksums."""

from __future__ import annotations

import io
from pathlib import Path
from struct import pack

from ckpt_tools.formats.checksum import masked_crc
from ckpt_tools.formats.proto import put_bytes, put_number, put_varint
from ckpt_tools.formats.sstable import EMPTY_BLOCK, MAGIC, TableWriter

HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one data file, producer 1
FLOAT = 1


def table(records: dict[bytes, bytes]) -> bytes:
    """A well-formed table of these records, sorted."""
    file = io.BytesIO()
    writer = TableWriter(file)
    for key in sorted(records):
        writer.add(key, records[key])
    writer.finish()
    return file.getvalue()


def block(rows: list[tuple[int, bytes, bytes]], restarts: tuple[int, ...] = (0,), count: int | None = None) -> bytes:
    """A block's contents from rows of shared length, rest of the key, value."""
    entries = b"".join(put_varint(s) + put_varint(len(k)) + put_varint(len(v)) + k + v for s, k, v in rows)
    return entries + pack(f"<{len(restarts)}I", *restarts) + pack("<I", len(restarts) if count is None else count)


def seal(contents: bytes, kind: int = 0) -> bytes:
    """A block as it lies in a file, with its type and a checksum that is right."""
    return contents + bytes((kind,)) + pack("<I", masked_crc(contents + bytes((kind,))))


def raw_table(
    blocks: list[bytes], handles: list[tuple[int, int]] | None = None, kind: int = 0, **index: object
) -> bytes:
    """A table of these block contents. `handles` replaces what the index says of them."""
    data, found = b"", []
    for contents in blocks:
        found.append((len(data), len(contents)))
        data += seal(contents, kind)
    keys = (b"\xff" * (i // 15) + bytes((0xF0 + i % 15,)) for i in range(len(handles or found)))
    rows = [(0, key, put_varint(a) + put_varint(b)) for key, (a, b) in zip(keys, handles or found, strict=True)]
    positions = tuple(sum(len(block([row])) - 8 for row in rows[:i]) for i in range(len(rows))) or (0,)
    meta_at = len(data)
    data += seal(EMPTY_BLOCK)
    index_at, contents = len(data), index.get("contents", block(rows, positions))
    data += seal(contents)
    footer = b"".join(map(put_varint, (meta_at, 8, *index.get("handle", (index_at, len(contents))))))
    return data + footer.ljust(40, b"\0") + MAGIC


def shape(*dims: int) -> bytes:
    return b"".join(put_bytes(2, put_number(1, dim)) for dim in dims)


def extent(start: int, length: int | None) -> bytes:
    return put_bytes(1, put_number(1, start) + (b"" if length is None else b"\x10" + put_varint(length)))


def entry(
    dims: tuple[int, ...], data: bytes = b"", *, dtype: int = FLOAT, offset: int = 0, shard: int = 0, **other: object
) -> bytes:
    """A BundleEntryProto. `size`, `crc` and `slices` replace what follows from `data`."""
    out = put_number(1, dtype) + put_bytes(2, other.get("shape", shape(*dims)))
    for part in other.get("slices", ()):
        out += put_bytes(7, part)
    out += put_number(3, shard) + put_number(4, offset) + put_number(5, other.get("size", len(data)))
    return out + b"\x35" + pack("<I", other.get("crc", masked_crc(data)))


def v2(folder: Path, records: dict[bytes, bytes] | bytes, data: bytes = b"") -> Path:
    """Writes a V2 checkpoint of one data file; the header is added unless it is there."""
    if isinstance(records, dict):
        records = table({b"": HEADER} | records)
    (folder / "m.index").write_bytes(records)
    (folder / "m.data-00000-of-00001").write_bytes(data)
    return folder / "m"


def v1_meta(*tensors: bytes, versions: bytes = b"\x08\x01") -> bytes:
    """The record under '' of a V1 file."""
    return put_bytes(1, b"".join(put_bytes(1, tensor) for tensor in tensors) + put_bytes(2, versions))


def v1_tensor(name: bytes, dims: tuple[int, ...], *slices: bytes, dtype: int = FLOAT, **other: bytes) -> bytes:
    listed = b"".join(put_bytes(4, part) for part in slices or (extent(0, None) * len(dims),))
    return put_bytes(1, name) + put_bytes(2, other.get("shape", shape(*dims))) + put_number(3, dtype) + listed


def v1_record(name: bytes, part: bytes, proto: bytes) -> bytes:
    """A record with values: SavedTensorSlices { 2 data { 1 name, 2 slice, 3 data } }."""
    return put_bytes(2, put_bytes(1, name) + put_bytes(2, part) + put_bytes(3, proto))


def floats(*values: float) -> bytes:
    """A TensorProto with packed float_val."""
    return put_bytes(5, pack(f"<{len(values)}f", *values))


def v1(folder: Path, records: dict[bytes, bytes] | bytes) -> Path:
    (folder / "m").write_bytes(table(records) if isinstance(records, dict) else records)
    return folder / "m"
