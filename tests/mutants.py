"""Hostile versions of the golden checkpoints, drawn from a seed.

A mutant is `sealed` if its block checksums were corrected: then the reader may find values that differ from the
original's, and must only stay sane. Otherwise it must raise an error or find the original's values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import NamedTuple

import craft
import cramjam

from ckpt_tools.formats.proto import put_bytes, put_number, put_varint
from ckpt_tools.formats.sstable import Table, entries

CASES = {  # folder -> what is opened in it
    "tf012_v1": "model.ckpt-1234",
    "tf012_v1_partitioned": "model.ckpt",
    "tf115_v1_sharded": "model.ckpt",
    "tf221_v1_shapes": "model.ckpt",
    "tf221_v1_dtypes": "model.ckpt",
    "tf012_v2_partitioned": "model.ckpt",
    "tf115_v2": "model.ckpt-1234",
    "tf115_v2_sharded": "model.ckpt",
    "tf221_v2_dtypes": "model.ckpt",
    "tf221_v2_shapes": "model.ckpt",
    "tf221_object": "ckpt-1",
}
HUGE = [2**31 - 1, 2**31, 2**32, 10**9, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 127, 128, 255, 254, 0, 1]
Files = dict[str, bytes]
Records = dict[bytes, bytes]


class Mutant(NamedTuple):
    case: str
    kind: str
    sealed: bool
    files: Files


def originals(golden: Path) -> dict[str, Files]:
    """The files of each case, without those that the reader does not look at."""
    found = {}
    for case in CASES:
        files = sorted(
            path for path in (golden / case).iterdir() if path.name != "checkpoint" and path.suffix != ".meta"
        )
        found[case] = {path.name: path.read_bytes() for path in files}
    return found


def mutants(golden: Path, seed: int, count: int) -> Iterator[Mutant]:
    """`count` mutants, the same for the same seed."""
    rng = random.Random(seed)
    sources = originals(golden)
    tables = {
        case: {n: _records(golden / case / n) for n in files if ".data-" not in n} for case, files in sources.items()
    }
    weights = [1 if kind in _SLOW else 8 for kind in _KINDS]
    for _ in range(count):
        case = rng.choice(list(CASES))
        kind = rng.choices(list(_KINDS), weights)[0]
        sealed, make = _KINDS[kind]
        files = dict(sources[case])
        name = rng.choice([n for n in files if not sealed or ".data-" not in n])
        if sealed:
            files[name] = make(rng, dict(tables[case][name]))
        else:
            other = rng.choice(list(sources.values()))
            files[name] = make(rng, files[name], rng.choice(list(other.values())))
        yield Mutant(case, kind, sealed, files)


def _records(path: Path) -> Records:
    table = Table(str(path))
    return {k: v for block in table.blocks for k, v in zip(*entries(table.read(block.handle)), strict=True)}


# Bytes changed with nothing put right.


def _flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _overwrite(rng: random.Random, data: bytes, _: bytes) -> bytes:
    new = rng.choice([b"\xff" * 9, b"\0" * 8, b"\x80" * 10 + b"\1", put_varint(rng.choice(HUGE)), rng.randbytes(5)])
    at = rng.randrange(len(data) + 1)
    return data[:at] + new + data[at + len(new) :]


def _insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
    return data[:at] + other[start : start + rng.randrange(1, 200)] + data[at:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
    return data[:at] + other[start:]


def _crlf(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n") if b"\n" in data else data + b"\r\n"


# Tables put together again, with right checksums: what is wrong is inside.


def _value_bytes(rng: random.Random, records: Records) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 5])):
        key = rng.choice(list(records))
        change = rng.choice([_flip, _overwrite, _cut, _insert])
        records[key] = change(rng, records[key], rng.choice(list(records.values())))
    return craft.table(records)


def _key_bytes(rng: random.Random, records: Records) -> bytes:
    key = rng.choice(list(records))
    value = records.pop(key)
    new = rng.choice([_flip, _overwrite, _cut, _insert])(rng, key, b"name")
    records[new] = value
    return craft.table(records)


def _drop(rng: random.Random, records: Records) -> bytes:
    for _ in range(rng.randrange(1, 3)):
        records.pop(rng.choice(list(records)), None)
    return craft.table(records)


def _swap(rng: random.Random, records: Records) -> bytes:
    a, b = rng.choice(list(records)), rng.choice(list(records))
    records[a], records[b] = records[b], records[a]
    return craft.table(records)


def _long_name(rng: random.Random, records: Records) -> bytes:
    key = rng.choice(list(records))
    records[rng.choice([b"n", b"\xff", b"/", b"\0"]) * 2**20 + key] = records[key]
    return craft.table(records)


def _entry(rng: random.Random, records: Records) -> bytes:
    """A V2 entry or V1 record of any numbers at all."""
    dims = [rng.choice([*HUGE, -1, 2, 3, 4]) for _ in range(rng.choice([0, 1, 2, 3, 70, 255]))]
    parts = [_any_slice(rng, rng.choice([len(dims), 1, 2])) for _ in range(rng.choice([0, 0, 1, 2, 3, 300]))]
    value = put_number(1, rng.choice([1, 1, 3, 7, 21, 29, rng.choice(HUGE), rng.randrange(40)]))
    value += put_bytes(2, craft.shape(*dims)) + b"".join(put_bytes(7, part) for part in parts)
    value += b"".join(put_number(field, rng.choice([*HUGE, 4, 8])) for field in (3, 4, 5))
    records[rng.choice(list(records))] = value + b"\x35" + rng.randbytes(4)
    return craft.table(records)


def _any_slice(rng: random.Random, rank: int) -> bytes:
    extents = [(rng.choice([0, 0, 1, 2, *HUGE]), rng.choice([None, 1, 2, 3, -1, *HUGE])) for _ in range(rank)]
    return b"".join(craft.extent(*extent) for extent in extents)


def _v1_list(rng: random.Random, records: Records) -> bytes:
    """A V1 list of tensors with any shape, type and slices; some under names that the file has."""
    names = [b"scalar", b"vector", b"emb/rows", b"whole", b"float32", b"int8", b"string", b"x"]
    tensors = []
    for _ in range(rng.randrange(1, 5)):
        dims = tuple(rng.choice([0, 1, 2, 3, 7, 4, -1, *HUGE]) for _ in range(rng.choice([0, 1, 2, 2, 5, 70, 255])))
        parts = [_any_slice(rng, rng.choice([len(dims), 1])) for _ in range(rng.choice([0, 1, 1, 2, 2, 300]))]
        tensors.append(craft.v1_tensor(rng.choice(names), dims, *parts, dtype=rng.choice([1, 3, 6, 7, 10, *range(35)])))
    records[b""] = craft.v1_meta(*tensors)
    return craft.table(records)


def _blocks(rng: random.Random, records: Records) -> bytes:
    """One or more blocks with wrong restarts, shared lengths, order."""
    rows = [(rng.choice([0, 0, 0, 1, 200]) if i else 0, key, records[key]) for i, key in enumerate(sorted(records))]
    for _ in range(rng.choice([0, 1, 2])):
        rows.insert(rng.randrange(len(rows) + 1), rng.choice(rows))
    at = rng.randrange(len(rows) + 1)
    restarts = rng.choice([(0,), (), (0, 1), (5,), (0, 2**31), (0, 0)])
    count = rng.choice([None, None, None, 0, 2, 2**31, 2**32 - 1])
    blocks = [craft.block(part, restarts, count) for part in (rows[:at], rows[at:]) if part]
    return craft.raw_table(blocks, kind=rng.choice([0, 0, 0, 1, 2, 255]))


def _handles(rng: random.Random, records: Records) -> bytes:
    """Handles that overlap, repeat, point at the index itself, or far away."""
    contents = craft.block([(0, key, records[key]) for key in sorted(records)])
    near = [0, 1, 4, 8, len(contents), len(contents) + 5, len(contents) + 18, len(contents) + 40]
    handles = [(rng.choice([*near, *HUGE]), rng.choice([*near, *HUGE])) for _ in range(rng.choice([1, 2, 3, 50]))]
    handles[:0] = [(0, len(contents))] * rng.choice([0, 1, 2, 50])
    other = {"handle": (rng.choice([*near, *HUGE]), rng.choice([*near, *HUGE]))} if rng.random() < 0.3 else {}
    return craft.raw_table([contents], handles[:200], **other)


def _snappy(rng: random.Random, records: Records) -> bytes:
    """Compressed blocks, intact or with wrong tags and lengths."""
    packed = bytes(cramjam.snappy.compress_raw(craft.block([(0, key, records[key]) for key in sorted(records)])))
    change: Callable = rng.choice([lambda _r, data, _o: data, _flip, _cut, _overwrite, _insert])
    return craft.raw_table([change(rng, packed, packed)], kind=1)


def _many_slices(rng: random.Random, records: Records) -> bytes:
    """Thousands of slices, to be taken as they are, over a tensor of 10^9 elements."""
    count = rng.choice([1000, 3000])
    size = rng.choice([count, 10**9, 31623])
    parts = [craft.extent(rng.randrange(size), 1) + craft.extent(rng.randrange(size), 1) for _ in range(count)]
    key = rng.choice(list(records))
    records[key] = craft.entry((size, size), slices=parts)
    return craft.table(records)


def _strings(rng: random.Random, records: Records) -> bytes:
    """An entry that says its bytes are strings or variants."""
    key = rng.choice(list(records))
    dims = rng.choice([(), (1,), (2,), (4,), (10**9,), (0,)])
    size, offset = rng.choice([0, 4, 8, 10, 40, 10**9]), rng.choice([0, 1, 4, 8])
    records[key] = craft.entry(dims, dtype=rng.choice([7, 21]), size=size, offset=offset, crc=rng.getrandbits(32))
    return craft.table(records)


def _fields(rng: random.Random, records: Records) -> bytes:
    """Values of wrong fields, wire types and lengths in V1 records; unknown fields in V2 entries."""
    key = rng.choice(list(records))
    odd = rng.choice(
        [put_bytes(5, rng.randbytes(7)), put_bytes(7, b"\xff" * 30), b"\x28\x01", b"\x2d" + pack("<f", 1), b"\x0f"]
    )
    records[key] = rng.choice(
        [craft.v1_record(b"x", b"", odd), records[key] + odd, put_bytes(2, put_bytes(3, odd) * 3)]
    )
    return craft.table(records)


_KINDS: dict[str, tuple[bool, Callable[..., bytes]]] = {
    "flip": (False, _flip),
    "cut": (False, _cut),
    "overwrite": (False, _overwrite),
    "insert": (False, _insert),
    "splice": (False, _splice),
    "crlf": (False, _crlf),
    "value bytes": (True, _value_bytes),
    "key bytes": (True, _key_bytes),
    "drop": (True, _drop),
    "swap": (True, _swap),
    "long name": (True, _long_name),
    "entry": (True, _entry),
    "v1 list": (True, _v1_list),
    "blocks": (True, _blocks),
    "handles": (True, _handles),
    "snappy": (True, _snappy),
    "many slices": (True, _many_slices),
    "strings": (True, _strings),
    "fields": (True, _fields),
}
_SLOW = {"long name", "entry", "v1 list", "many slices"}  # to make or to read: drawn an eighth as often
