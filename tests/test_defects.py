"""Malformed files on which TensorFlow aborts, crashes or returns foreign memory give an error of one sentence here.

The rows are those of the table "Measured with hand-made files whose block CRCs are valid" in the format notes, plus
files that TensorFlow accepts silently. Every block checksum is correct, so that only the checks themselves can find the
defects."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import craft
import cramjam
import numpy as np
import pytest
from craft import block, entry, extent, floats, raw_table, v1_meta, v1_record, v1_tensor

from ckpt_tools import CheckpointError, open_checkpoint
from ckpt_tools.formats.checksum import crc32c, mask, masked_crc
from ckpt_tools.formats.proto import put_bytes, put_varint
from ckpt_tools.formats.slices import slice_key
from ckpt_tools.tensors import Extent

AB = np.array([1, 2], "<f4").tobytes()


def refused(path: Path, name: str | None = "a") -> str:
    """The message on opening, or on loading tensor `name`."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint = open_checkpoint(path)
        if name is not None:
            checkpoint.tensors[name].load()
    return str(caught.value)


def test_the_crafted_files_are_good_where_they_should_be(tmp_path: Path) -> None:
    assert open_checkpoint(craft.v2(tmp_path, {b"a": entry((2,), AB)}, AB)).tensors["a"].load().tolist() == [1, 2]
    key = slice_key(b"a", (Extent(0, None),))
    records = {b"": v1_meta(v1_tensor(b"a", (2,))), key: v1_record(b"a", extent(0, None), floats(1, 2))}
    (tmp_path / "v1").mkdir()
    assert open_checkpoint(craft.v1(tmp_path / "v1", records)).tensors["a"].load().tolist() == [1, 2]
    # the bytes of section 7.1 and 7.2 of the notes, which three TensorFlow releases write
    assert (tmp_path / "m.index").read_bytes().hex().startswith("00000608011a02080100010f610801120412020802")
    assert len((tmp_path / "m.index").read_bytes()) == 121
    assert len((tmp_path / "v1" / "m").read_bytes()) == 151


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (entry((-1,), AB), "m.index: tensor a: the shape has a negative dimension: [-1]"),
        (entry((1,) * 255, AB), "tensor a: the shape has 255 dimensions; TensorFlow allows 254"),
        (entry((2**62, 4), AB), "tensor a: the shape [4611686018427387904, 4] has 2^63 elements or more"),
        (entry((), shape=b"\x18\x01"), "tensor a: the shape has an unknown rank"),
        *[
            (entry((2,), AB, dtype=dtype), f"tensor a: {dtype} is not the number of an element type that can be stored")
            for dtype in (0, 20, 40, 99, 101, 2**40)
        ],
        (entry((2,), AB, shard=1), "tensor a: its bytes should be in data file 1 of 1"),
        (entry((2,), AB, shard=-1), "tensor a: its bytes should be in data file -1 of 1"),
        (entry((2,), AB, offset=1), "tensor a: its bytes should lie in bytes 1 to 9, but the file has 8 bytes"),
        (entry((2,), AB, offset=-4), "tensor a: its bytes should lie in bytes -4 to 4"),
        (entry((2,), AB, size=7), "tensor a: float32[2] takes 8 bytes, but the index says 7"),
        (entry((2,), AB, size=-1), "tensor a: float32[2] takes 8 bytes, but the index says -1"),
        (entry((10**9,), AB), "tensor a: float32[1000000000] takes 4,000,000,000 bytes, but the index says 8"),
        (entry((2,), AB, crc=0), "tensor a: the checksum of its bytes differs (stored 0x00000000, is 0x35e53c59)"),
        (entry((2,), AB) + b"\x08\x02", "tensor a: its entry gives the type or the shape twice"),
        (entry((2,), AB) + b"\x20", "tensor a: a variable-length number is cut off"),
        (entry((2,), AB) + b"\x0f", "tensor a: a message has a field of unknown kind 7"),
        (entry((2,), AB) + b"\x3a\x05\x0a", "tensor a: a field of a message claims 5 bytes where 1 are left"),
        (entry((2,), AB, dtype=7), "tensor a: the checksum of the lengths of its strings differs"),
        (entry((9,), AB, dtype=7), "tensor a: claims 9 elements in 8 bytes"),
        (entry((2,), AB, dtype=21), "tensor a: the checksum of a variant differs"),
        (entry((8, *[0] * 70), b""), "tensor a: numpy cannot hold the shape"),
    ],
)
def test_v2_entries(tmp_path: Path, value: bytes, text: str) -> None:
    assert text in refused(craft.v2(tmp_path, {b"a": value}, AB))


def test_v2_entry_with_type_zero_omitted(tmp_path: Path) -> None:
    assert "0 is not the number of an element type" in refused(craft.v2(tmp_path, {b"a": b"\x12\x00"}))
    assert "0 is not the number of an element type" in refused(craft.v2(tmp_path, {b"a": b""}))


@pytest.mark.parametrize("length", [2**40, 2**62, 2**63])
def test_v2_string_lengths(tmp_path: Path, length: int) -> None:
    word = pack("<Q", length)
    checksum = pack("<I", mask(crc32c(word)))
    data = put_varint(length) + checksum + b"abc"
    text = refused(craft.v2(tmp_path, {b"a": entry((), data, dtype=7)}, data))
    assert f"tensor a: its strings claim {length:,} bytes where 3 are left" in text
    data = put_varint(length) + b"abc"
    text = refused(craft.v2(tmp_path, {b"a": entry((), data, dtype=21)}, data))
    assert f"tensor a: a variant claims {length:,} bytes where" in text


def test_v2_trailing_bytes_of_a_string_entry(tmp_path: Path) -> None:
    """TensorFlow ignores them, and they are in no checksum."""
    checksum = pack("<I", masked_crc(pack("<I", 2)))
    crc = mask(crc32c(pack("<I", 2) + checksum + b"hi"))
    data = b"\x02" + checksum + b"hi" + b"more"
    path = craft.v2(tmp_path, {b"a": entry((), data, dtype=7, crc=crc)}, data)
    assert open_checkpoint(path).tensors["a"].load().item() == b"hi"


def sliced(folder: Path, listed: list[bytes], stored: dict[bytes, bytes], dims: tuple[int, ...] = (4,)) -> Path:
    return craft.v2(folder, {b"a": entry(dims, slices=listed), **stored}, AB + AB)


def part(start: int, length: int) -> bytes:
    return slice_key(b"a", (Extent(start, length),))


@pytest.mark.parametrize(
    ("listed", "stored", "text"),
    [
        ([extent(0, -3)], {}, "a slice of 0 to -3 does not lie in a dimension of 4"),
        ([extent(0, 0)], {}, "a slice of 0 to 0 does not lie in a dimension of 4"),
        ([extent(-2, 4)], {}, "a slice of -2 to 2 does not lie in a dimension of 4"),
        ([extent(0, 2), extent(2, 3)], {}, "a slice of 2 to 5 does not lie in a dimension of 4"),
        ([extent(2, 2**62), extent(0, 2)], {}, f"a slice of 2 to {2**62 + 2} does not lie in a dimension of 4"),
        ([extent(2, None), extent(0, 2)], {}, "a slice starts at 2 and has no length"),
        ([extent(0, 2) * 2], {}, "a slice has 2 dimensions, the tensor 1"),
        ([extent(0, 2), extent(0, 2)], {}, "a slice is listed twice"),
        ([extent(0, 2), extent(1, 2)], {}, "the slices overlap"),
        ([extent(0, 2)], {}, "the slices hold 2 of the 4 elements"),
        ([extent(0, 2), extent(2, 2)], {}, "its slice 0,2 is not in the index"),
        (
            [extent(0, 2), extent(2, 2)],
            {part(0, 2): entry((2,), AB, dtype=3), part(2, 2): entry((2,), AB)},
            "its slice 0,2 is stored as int32[2], not as float32[2]",
        ),
        (
            [extent(0, 2), extent(2, 2)],
            {part(0, 2): entry((1,), AB[:4]), part(2, 2): entry((2,), AB)},
            "its slice 0,2 is stored as float32[1], not as float32[2]",
        ),
        (
            [extent(0, 2), extent(2, 2)],
            {part(0, 2): entry((2,), AB, size=4), part(2, 2): entry((2,), AB)},
            "float32[2] takes 8 bytes, but the index says 4",
        ),
    ],
)
def test_v2_slices(tmp_path: Path, listed: list[bytes], stored: dict[bytes, bytes], text: str) -> None:
    path = sliced(tmp_path, listed, stored)
    assert f"tensor a: {text}" in refused(path)
    tensor = open_checkpoint(path).tensors["a"]
    assert tensor.slices == () or all(part.tensor.stored or tensor.stored is None for part in tensor.slices)


def test_v2_slices_that_overlap_on_two_axes(tmp_path: Path) -> None:
    quarters = [extent(0, 1) + extent(0, 2), extent(0, 1) + extent(1, 1), extent(1, 1) + extent(1, 1)]
    assert "the slices overlap" in refused(craft.v2(tmp_path, {b"a": entry((2, 2), slices=quarters)}))


def test_v2_many_slices_end_soon(tmp_path: Path) -> None:
    """10,000 slices whose borders make a grid of 25 million cells: refused, with neither time nor memory spent."""
    rows = [extent(i, 1) + columns for i in range(5000) for columns in (extent(0, i + 1), extent(i + 1, 6000 - i - 1))]
    said = refused(craft.v2(tmp_path, {b"a": entry((5000, 6000), slices=rows)}))
    assert "10,000 slices cut the tensor in a grid of 25,005,000 cells" in said


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "the header of the index claims 0 data files"),
        (b"\x08\x00\x1a\x02\x08\x01", "the header of the index claims 0 data files"),
        (b"\x08" + put_varint(2**40), f"the header of the index claims {2**40} data files"),
        (b"\x08" + put_varint(-1), "the header of the index claims -1 data files"),
        (b"\x08\x01\x10\x02", "the header of the index has the unknown byte order 2"),
        (b"\x08\x01\x1a\x04\x08\x01\x10\x09", "the file asks for a reader of version 9; the newest is 1"),
        (b"\x08\x01\x1a\x02\x18\x01", "the file refuses readers of version 1, which this is"),
        (b"\x08\x01\x1a\x03\x1a\x01\x01", "the file refuses readers of version 1, which this is"),
        (b"\x0a\x00", "the number of data files has the wrong wire type 2"),
        (b"\x08\x01\x1a\x05\x08", "a field of a message claims 5 bytes where 1 are left"),
    ],
)
def test_v2_headers(tmp_path: Path, header: bytes, text: str) -> None:
    assert f"m.index: {text}" in refused(craft.v2(tmp_path, {b"": header, b"a": entry((2,), AB)}, AB))


def test_v2_header_that_claims_billions_of_data_files(tmp_path: Path) -> None:
    path = craft.v2(tmp_path, {b"": b"\x08" + put_varint(2**31 - 1), b"a": entry((2,), AB)}, AB)
    checkpoint = open_checkpoint(path)
    assert checkpoint.files == (f"{path}.index",)
    assert checkpoint.note.startswith("of its 2147483647 data files, m.data-00000-of-2147483647 is missing")
    assert "m.data-00000-of-2147483647: tensor a: this file of the checkpoint is missing" in refused(path)


def test_v2_without_a_header(tmp_path: Path) -> None:
    index = craft.table({b"a": entry((2,), AB)})
    assert "m.index: the index does not start with its header" in refused(craft.v2(tmp_path, index, AB))
    assert "no entry of the index can be read" in refused(craft.v2(tmp_path, raw_table([]), AB))
    assert "no entry of the index can be read" in refused(craft.v2(tmp_path, raw_table([block([])]), AB))


GOOD = [(0, b"", craft.HEADER), (0, b"a", entry((2,), AB))]


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (raw_table([block(GOOD)], [(0, 2**40)]), "a block should lie in bytes 0 to 1,099,511,627,781"),
        (raw_table([block(GOOD)], [(0, 2**63)]), "a block should lie in bytes 0 to"),
        (raw_table([block(GOOD)], [(0, 2**64 - 3)]), "a block should lie in bytes 0 to"),
        (raw_table([block(GOOD)], [(2**63, 8)]), "a block should lie in bytes 9,223,372,036,854,775,808 to"),
        (raw_table([block(GOOD)], handle=(2**62, 8)), "the index block should lie in bytes"),
        (raw_table([block(GOOD)], handle=(0, 10)), "the checksum of the index block at byte 0 differs"),
        (raw_table([block(GOOD)], kind=2), "has the unknown compression type 2"),
        (raw_table([block(GOOD)], kind=1), "Snappy"),
        (raw_table([put_varint(2**32) + bytes(20)], kind=1), "claims to unpack to 4,294,967,296"),
        (raw_table([block(GOOD, count=2**31)]), "a block of 36 bytes claims 2,147,483,648 restarts"),
        (raw_table([block(GOOD, (0, 4000))]), "the restart array of a block is wrong"),
        (raw_table([block(GOOD, (9, 0))]), "the restart array of a block is wrong"),
        (raw_table([block(GOOD, (0, 1, 3))]), "the restart array of a block is wrong"),
        (raw_table([b"ab"]), "a block of 2 bytes has no restart array"),
        (raw_table([block([GOOD[0], (1, b"a", b"")])]), "shares more of the key before it than there is"),
        (raw_table([block([(1, b"", craft.HEADER)])]), "the restart array of a block is wrong"),
        (raw_table([block([*GOOD, GOOD[1]])]), "the keys of a block are out of order"),
        (raw_table([block([*GOOD, (0, b"A", b"")])]), "the keys of a block are out of order"),
        (raw_table([block(GOOD), block([GOOD[1]])]), "the keys of the index are out of order"),
        (raw_table([block(GOOD), block(GOOD)], [(0, 36), (0, 36)]), "the keys of the index are out of order"),
        (raw_table([block([*GOOD, (0, b"\xff", GOOD[1][2])])]), "a block of the index holds keys past its separator"),
        (raw_table([block(GOOD)], contents=block([(0, b"b", b"\x80")])), "a variable-length number is cut off"),
        (raw_table([block(GOOD)], contents=block([(0, b"b", b"")])), "a variable-length number is cut off"),
        (raw_table([block(GOOD)], contents=b"\x00\x00\x7f" + bytes(4) + b"\1\0\0\0"), "goes past its end"),
        (raw_table([b"\x80" * 11 + bytes(4) + b"\1\0\0\0"]), "the restart array of a block is wrong"),
        (raw_table([b"\x00" + b"\x80" * 11 + bytes(4) + b"\1\0\0\0"]), "is longer than 10 bytes"),
        (
            raw_table([block(GOOD)])[:-48] + b"\x80" * 40 + craft.MAGIC,
            "a variable-length number is longer than 10 bytes",
        ),
    ],
)
def test_tables(tmp_path: Path, index: bytes, text: str) -> None:
    said = refused(craft.v2(tmp_path, index, AB), None)
    assert "m.index: " in said
    assert text in said


def test_valid_snappy_blocks_are_read(tmp_path: Path) -> None:
    packed = bytes(cramjam.snappy.compress_raw(block(GOOD)))
    path = craft.v2(tmp_path, raw_table([packed], kind=1), AB)
    assert open_checkpoint(path).tensors["a"].load().tolist() == [1, 2]


def test_what_is_accepted(tmp_path: Path) -> None:
    """Odd but unambiguous: no restart, other intervals, unused bytes in the data file, unknown fields."""
    for contents in (block(GOOD, ()), block(GOOD, (0, 9)), block([GOOD[0], (0, b"a", GOOD[1][2] + b"\x7a\x01x")])):
        path = craft.v2(tmp_path, raw_table([contents]), AB + b"\r\n")
        assert open_checkpoint(path).tensors["a"].load().tolist() == [1, 2]
    data = b"\x00\x01\x02\xff"
    path = craft.v2(tmp_path, {b"a": entry((4,), data, dtype=10)}, data)
    assert open_checkpoint(path).tensors["a"].load().tolist() == [False, True, True, True]
    assert bytes(open_checkpoint(path).tensors["a"].load()) == b"\x00\x01\x01\x01"


KEY = slice_key(b"a", (Extent(0, None),))
ALL = extent(0, None)


def v1_refused(folder: Path, tensor: bytes, proto: bytes | None = None, key: bytes = KEY, whole: bytes = ALL) -> str:
    records = {b"": v1_meta(tensor)}
    if proto is not None:
        records[key] = v1_record(b"a", whole, proto)
    return refused(craft.v1(folder, records))


def test_v1_metadata(tmp_path: Path) -> None:
    values = floats(1, 2)
    assert "tensor a: the shape has a negative dimension: [-1]" in v1_refused(tmp_path, v1_tensor(b"a", (-1,)), values)
    assert "tensor a: the shape has 255 dimensions" in v1_refused(tmp_path, v1_tensor(b"a", (1,) * 255), values)
    for dtype in (0, 99):
        text = f"tensor a: {dtype} is not the number of an element type that can be stored"
        assert text in v1_refused(tmp_path, v1_tensor(b"a", (2,), dtype=dtype), values)
    text = v1_refused(tmp_path, v1_tensor(b"a", (2,), extent(0, -7)), values)
    assert "tensor a: a slice of 0 to -7 does not lie in a dimension of 2" in text
    assert "its values are listed, but they are not in the file" in v1_refused(tmp_path, v1_tensor(b"a", (2,)))
    text = v1_refused(tmp_path, v1_tensor(b"a", (2,), extent(0, 1)), floats(1), slice_key(b"a", (Extent(0, 1),)))
    assert "tensor a: the slices hold 1 of the 2 elements" in text
    tensor = v1_tensor(b"a", (2,))[: -len(put_bytes(4, ALL))]
    assert "the list of tensors gives it no slice" in v1_refused(tmp_path, tensor, values)
    path = craft.v1(tmp_path, {b"": v1_meta(v1_tensor(b"a", (2,)), versions=b"\x08\x01\x10\x09")})
    assert "m: the file asks for a reader of version 9" in refused(path)
    text = v1_refused(tmp_path, v1_tensor(b"a", (2,), ALL, ALL), values)
    assert "tensor a: a slice is listed twice" in text
    path = craft.v1(tmp_path, {b"": v1_meta(v1_tensor(b"a", (2,)), v1_tensor(b"a", (3,)))})
    assert "tensor a: is float32[3] in one shard and float32[2] in another" in refused(path)


@pytest.mark.parametrize(
    ("dtype", "proto", "text"),
    [
        (1, put_bytes(4, AB), "float32[2] takes 2 values, but 0 are stored"),  # tensor_content
        (1, put_bytes(7, b"\x01\x02"), "float32[2] takes 2 values, but 0 are stored"),  # int_val
        (1, b"", "float32[2] takes 2 values, but 0 are stored"),
        (1, floats(1), "float32[2] takes 2 values, but 1 are stored"),
        (1, floats(1, 2, 3), "float32[2] takes 2 values, but 3 are stored"),
        (1, put_bytes(5, AB[:7]), "its values take 7 bytes, not a multiple of 4"),
        (1, b"\x28\x01", "a value has the wrong wire type"),
        (3, put_bytes(7, b"\x80\x80"), "a variable-length number is cut off"),
        (3, put_bytes(7, b"\x80" * 10 + b"\1"), "a variable-length number is longer than 10 bytes"),
        (6, put_bytes(7, b"\x01" + put_varint(300)), "holds a value that is not a int8"),
        (4, put_bytes(7, b"\x01" + put_varint(-1)), "holds a value that is not a uint8"),
        (19, put_bytes(13, b"\x01" + put_varint(70000)), "holds a value that is not a float16"),
        (7, put_bytes(8, b"x"), "string[2] takes 2 values, but 1 are stored"),
        (7, b"\x40\x01\x40\x02", "a string has the wrong wire type"),
        (14, put_bytes(13, b"\x01\x02"), "a V1 file cannot hold values of type bfloat16"),
    ],
)
def test_v1_values(tmp_path: Path, dtype: int, proto: bytes, text: str) -> None:
    said = v1_refused(tmp_path, v1_tensor(b"a", (2,), dtype=dtype), proto)
    assert f"m: tensor a: {text}" in said


def test_v1_unpacked_values_are_read(tmp_path: Path) -> None:
    for dtype, proto in (
        (1, b"\x2d" + AB[:4] + b"\x2d" + AB[4:]),
        (3, b"\x38\x01\x3a\x01\x02"),
        (11, b"\x38\x01\x38\x02"),
    ):
        records = {b"": v1_meta(v1_tensor(b"a", (2,), dtype=dtype)), KEY: v1_record(b"a", ALL, proto)}
        assert open_checkpoint(craft.v1(tmp_path, records)).tensors["a"].load().tolist() == [1, 2]


def test_v1_record_without_values(tmp_path: Path) -> None:
    path = craft.v1(tmp_path, {b"": v1_meta(v1_tensor(b"a", (2,))), KEY: put_bytes(1, b"")})
    assert "m: tensor a: its record holds no values" in refused(path)
    path = craft.v1(tmp_path, {b"": v1_meta(v1_tensor(b"a", (2,))), KEY: b"\x12\x7f"})
    assert "m: tensor a: a field of a message claims 127 bytes where 0 are left" in refused(path)


def test_v1_without_its_list(tmp_path: Path) -> None:
    path = craft.v1(tmp_path, {KEY: v1_record(b"a", ALL, floats(1, 2))})
    assert "m: the file does not start with the list of its tensors" in refused(path)
