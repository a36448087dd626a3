"""The table container: TensorFlow's bytes, any keys, blocks cut where TensorFlow cuts them."""

from __future__ import annotations

import io
from pathlib import Path

import craft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tools.errors import DamagedError, NotACheckpointError
from ckpt_tools.formats.sstable import BLOCK_SIZE, Table, TableWriter, _separator, _successor, entries, spans


def read(path: Path) -> dict[bytes, bytes]:
    table = Table(str(path))
    return {key: value for block in table.blocks for key, value in zip(*entries(table.read(block.handle)), strict=True)}


def written(tmp_path: Path, records: dict[bytes, bytes]) -> Path:
    path = tmp_path / "table"
    path.write_bytes(craft.table(records))
    return path


def test_the_smallest_index_is_tensorflows(tmp_path: Path) -> None:
    """The 121 bytes that TensorFlow 0.12.1, 1.15.5 and 2.21.0 write for one float32 tensor `a` = [1, 2]."""
    value = bytes.fromhex("08011204120208022808 3559 3ce535")
    assert craft.table({b"": craft.HEADER, b"a": value}).hex() == (
        "00000608011a02080100010f61080112041202080228083559" + "3ce535" + "0000000001000000" + "004419559e"
        "0000000001000000" + "00c0f2a1b0" + "000102620024" + "0000000001000000" + "005a996b35"
        "2908360e" + "00" * 36 + "57fb808b247547db"
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=300), max_size=60))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: dict[bytes, bytes]) -> None:
    path = written(tmp_path_factory.mktemp("t"), records)
    assert read(path) == records
    table = Table(str(path))
    for key in records:
        block = table.blocks[table.position(key)]
        assert key in {found for found, _, _ in spans(table.read(block.handle))}


def test_long_lengths(tmp_path: Path) -> None:
    """Lengths above 127 take the slow path of the reader; keys share more than 127 bytes."""
    records = {b"k" * 200 + bytes((i,)): bytes((i,)) * (100 + 40 * i) for i in range(40)}
    assert read(written(tmp_path, records)) == records


def test_blocks_are_cut_where_the_estimate_reaches_the_size(tmp_path: Path) -> None:
    value = bytes(1000)
    records = {b"%06d" % i: value for i in range(1000)}
    table = Table(str(written(tmp_path, records)))
    sizes = [block.handle.size for block in table.blocks]
    assert len(sizes) == 4
    assert all(BLOCK_SIZE <= size < BLOCK_SIZE + 1100 for size in sizes[:-1])
    assert read(tmp_path / "table") == records


def test_a_large_value_has_a_block_of_its_own(tmp_path: Path) -> None:
    large = bytes(2 * BLOCK_SIZE)
    table = Table(str(written(tmp_path, {b"a": b"x", b"b": large, b"c": b"y"})))
    assert len(table.blocks) == 3
    assert [block.separator for block in table.blocks] == [b"a", b"b", b"d"]
    table = Table(str(written(tmp_path, {b"a": b"x", b"b": large[:-2], b"c": b"y"})))
    assert len(table.blocks) == 2


def test_a_value_in_parts_is_the_value(tmp_path: Path) -> None:
    large = bytes(range(256)) * 8192
    whole, parts = io.BytesIO(), io.BytesIO()
    for file, value in ((whole, (large,)), (parts, (large[:7], memoryview(large)[7:]))):
        writer = TableWriter(file)
        writer.add(b"k", *value)
        writer.finish()
    assert whole.getvalue() == parts.getvalue()


keys = st.binary(min_size=1, max_size=6)


@given(keys, keys)
def test_separators_separate(a: bytes, b: bytes) -> None:
    if a == b:
        return
    low, high = sorted((a, b))
    assert low <= _separator(low, high) < high
    assert _successor(a) >= a


def test_separators_are_tensorflows() -> None:
    assert _separator(b"abc", b"abq") == b"abd"
    assert _separator(b"abc", b"abd") == b"abc"
    assert _separator(b"ab", b"abc") == b"ab"
    assert (_successor(b"a"), _successor(b"\xff\x00x"), _successor(b"\xff")) == (b"b", b"\xff\x01", b"\xff")


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """One table, cut at each length and with each bit flipped: an error, or the records unchanged."""
    records = {b"": craft.HEADER, **{b"name%d" % i: craft.entry((i,), b"") for i in range(5)}}
    whole = craft.table(records)
    path = tmp_path / "table"
    mutants = {size: whole[:size] for size in range(len(whole))}
    for bit in range(len(whole) * 8):
        mutants[len(whole) + bit] = whole[: bit // 8] + bytes((whole[bit // 8] ^ 1 << bit % 8,)) + whole[bit // 8 + 1 :]
    unchanged = set()
    for number, mutant in mutants.items():
        path.write_bytes(mutant)
        try:
            assert read(path) == records
            unchanged.add((number - len(whole)) // 8)
        except (DamagedError, NotACheckpointError):
            pass
    metaindex = whole.rindex(bytes.fromhex("0000000001000000" + "00c0f2a1b0"))  # nobody reads this block,
    footer = len(whole) - 48  # nor its handle, nor the padding
    assert unchanged <= {*range(metaindex, metaindex + 13), *range(footer, footer + 40)}
    assert {*range(metaindex, metaindex + 13), *range(footer + 10, footer + 40)} <= unchanged


def test_too_short_and_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"x" * 47)
    with pytest.raises(NotACheckpointError, match="has 47 bytes, too short for a checkpoint table"):
        Table(str(tmp_path / "table"))
    (tmp_path / "table").write_bytes(b"x" * 48)
    with pytest.raises(NotACheckpointError, match="does not end as a checkpoint table does"):
        Table(str(tmp_path / "table"))
