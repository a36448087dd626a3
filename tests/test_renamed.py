"""Renamed files of a checkpoint: what each is, what it needs, what to rename; and foreign protobufs."""

from __future__ import annotations

import shutil
from pathlib import Path
from struct import pack

import cramjam
import pytest
from craft import EMPTY_BLOCK, MAGIC, block, seal

from ckpt_tools import CheckpointError, open_checkpoint
from ckpt_tools.cli.inspect import main as inspect
from ckpt_tools.formats.detect import identify
from ckpt_tools.formats.proto import put_bytes, put_number, put_varint
from ckpt_tools.formats.sstable import Table

DATA = "model.ckpt-1234.data-00000-of-00001"


@pytest.fixture
def v2(GOLDEN: Path, tmp_path: Path) -> Path:
    """A V2 checkpoint of one data file, `model.ckpt-1234`, and nothing else."""
    folder = Path(shutil.copytree(GOLDEN / "tf115_v2", tmp_path / "v2"))
    for name in ("checkpoint", "model.ckpt-1234.meta"):
        (folder / name).unlink(missing_ok=True)
    return folder


def compressed(index: Path) -> bytes:
    """The same index with its data blocks packed by Snappy, as TensorFlow on some platforms wrote them."""
    table = Table(str(index))
    data, rows = b"", []
    for each in table.blocks:
        packed = bytes(cramjam.snappy.compress_raw(bytes(table.read(each.handle))))
        rows.append((0, each.separator, put_varint(len(data)) + put_varint(len(packed))))
        data += seal(packed, 1)
    starts = tuple(sum(len(block([row])) - 8 for row in rows[:i]) for i in range(len(rows)))
    footer, contents = put_varint(len(data)) + put_varint(8), block(rows, starts)
    data += seal(EMPTY_BLOCK)
    footer += put_varint(len(data)) + put_varint(len(contents))
    return data + seal(contents) + footer.ljust(40, b"\0") + MAGIC


def said(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["model.ckpt-1234", "model.ckpt-1234.meta", "model.bin", "checkpoint", "graph.pb"])
def test_an_index_under_another_name(v2: Path, packed: bool, name: str) -> None:
    index = v2 / "model.ckpt-1234.index"
    contents = compressed(index) if packed else index.read_bytes()
    index.unlink()
    (v2 / name).write_bytes(contents)
    assert identify(str(v2 / name)).name == "v2_index"
    assert said(v2 / name) == (
        f"{name}: is the index of a V2 checkpoint under another name. "
        f"Rename it to model.ckpt-1234.index, beside its data file {DATA}."
    )
    assert said(v2 / DATA) == (
        f"{DATA}: is a data file of a V2 checkpoint, but its index model.ckpt-1234.index, which holds the names and "
        f"shapes, is not beside it. {name} beside it is an index of data of this size: if it is its own, rename it to "
        "model.ckpt-1234.index."
    )
    with pytest.raises(CheckpointError, match=r"Rename it to model.ckpt-1234.index, beside"):
        open_checkpoint(v2)
    (v2 / name).rename(index)  # as it is told
    assert len(open_checkpoint(v2).tensors) == 11


def test_an_index_without_its_data(v2: Path) -> None:
    (v2 / DATA).unlink()
    (v2 / "model.ckpt-1234.index").rename(v2 / "model.ckpt")
    assert said(v2 / "model.ckpt").endswith(
        "Rename it to model.ckpt.index; the values are in model.ckpt.data-00000-of-00001, which must be next to it."
    )


@pytest.mark.parametrize("name", ["weights.bin", "model.ckpt", "other.data-00000-of-00001", "model.ckpt-1234.meta"])
def test_a_data_file_under_another_name(v2: Path, name: str) -> None:
    (v2 / DATA).rename(v2 / name)
    if not name.startswith("model.ckpt-1234"):
        sentence = f"It has the size of {DATA}, which model.ckpt-1234.index wants: if it is that, rename it."
        assert said(v2 / name).endswith(sentence)
    note = open_checkpoint(v2 / "model.ckpt-1234").note
    assert note == f"its data file {DATA} is missing: names and shapes are known, the values not"


def test_both_under_other_names(v2: Path) -> None:
    (v2 / DATA).rename(v2 / "weights.bin")
    (v2 / "model.ckpt-1234.index").rename(v2 / "names.bin")
    assert said(v2 / "weights.bin").endswith(
        "It has the size of names.bin.data-00000-of-00001, which names.bin wants: if it is that, rename it, and "
        "names.bin to names.bin.index."
    )


def test_a_file_of_another_size_is_no_data_file(v2: Path) -> None:
    (v2 / DATA).rename(v2 / "weights.bin")
    with (v2 / "weights.bin").open("ab") as file:
        file.write(b"\xff" * 8)
    assert "is none of the kinds of file that are known" in said(v2 / "weights.bin")


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint"])
def test_a_metagraph_under_another_name(GOLDEN: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(GOLDEN / "tf012_v1" / "model.ckpt-1234.meta", tmp_path / name)
    base = "checkpoint" if name == "checkpoint" else "model.ckpt"
    assert said(tmp_path / name) == (
        f"{name}: is a MetaGraph (the graph of a model), not a checkpoint. It holds no values: a checkpoint has those "
        f"in {base}.index and {base}.data-00000-of-00001, and its graph is called {base}.meta."
    )


@pytest.mark.parametrize("name", ["state.txt", "model.ckpt", "model.ckpt.meta", "model.ckpt.data-00000-of-00001"])
def test_a_state_file_under_another_name(v2: Path, name: str) -> None:
    (v2 / name).write_text('model_checkpoint_path: "model.ckpt-1234"\n')
    assert open_checkpoint(v2 / name).note == f"model.ckpt-1234 is the latest by {v2 / name}"
    (v2 / name).write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert said(v2 / name) == (
        f"{name}: is a checkpoint state file under another name, and names model.ckpt-9, which is not there. "
        "Checkpoints beside it: model.ckpt-1234."
    )


@pytest.mark.parametrize(("file", "names"), [("checkpoint", "."), ("m", "m"), ("checkpoint", "checkpoint")])
def test_state_files_that_name_state_files_come_to_an_end(tmp_path: Path, file: str, names: str) -> None:
    (tmp_path / file).write_text(f'model_checkpoint_path: "{names}"\n')
    assert said(tmp_path / file).endswith(f"names {names}, which is a checkpoint state file itself")


def test_a_v1_checkpoint_under_the_name_of_an_index(GOLDEN: Path, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "tf012_v1" / "model.ckpt-1234", tmp_path / "m.index")
    assert len(open_checkpoint(tmp_path / "m.index").tensors) == 11
    assert said(tmp_path / "m") == "m.index: is a V1 checkpoint under the name of an index. Rename it to m."


def test_a_damaged_index_is_called_damaged(v2: Path) -> None:
    index = v2 / "model.ckpt-1234.index"
    whole = bytearray(index.read_bytes())
    whole[3] ^= 0x7F
    index.write_bytes(whole)
    assert "the checksum of a block at byte 0 differs" in said(v2 / "model.ckpt-1234")


# --- protobufs of other programs ------------------------------------------------------------------------------------

TEXT = put_bytes(1, b"name") + put_bytes(2, b"Value")
NODE = put_bytes(1, b"x") + put_bytes(2, b"Const")
ATTRIBUTE = put_bytes(5, put_bytes(1, b"dtype") + put_bytes(2, put_number(6, 1)))
FOREIGN = {
    "a map of texts": put_bytes(1, TEXT) + put_bytes(1, TEXT),
    "two texts": put_bytes(1, b"title") + put_bytes(2, b"body"),
    "a number and a text": put_number(1, 7) + put_bytes(2, b"body"),
    "messages in messages": put_bytes(1, put_number(3, 5)) + put_bytes(2, put_bytes(1, put_number(1, 9))),
    "numbers": b"\x0d" + pack("<f", 1.5) + b"\x15" + pack("<f", 2.5) + put_number(3, 77),
    "an ONNX model": put_number(1, 7) + put_bytes(2, b"pytorch") + put_bytes(7, put_bytes(1, put_bytes(1, b"in"))),
}


@pytest.mark.parametrize("contents", FOREIGN.values(), ids=FOREIGN)
def test_a_protobuf_of_another_program_is_no_graph(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(contents)
    assert said(path) == "model.pb: is a protobuf, but no graph, SavedModel or checkpoint, not a checkpoint"


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        (put_bytes(1, NODE + ATTRIBUTE), "graphdef"),
        (put_bytes(1, NODE) + put_bytes(4, put_number(1, 27)), "graphdef"),
        (put_bytes(1, NODE) + put_number(3, 8), "graphdef"),
        (put_bytes(1, put_bytes(1, b"f/_Fused-1") + put_bytes(2, b"_FusedConv2D") + ATTRIBUTE), "graphdef"),
        (put_bytes(2, put_bytes(1, NODE + ATTRIBUTE)), "metagraph"),
        (put_bytes(1, put_bytes(5, b"1.3.0")) + put_bytes(2, put_bytes(4, put_number(1, 24))), "metagraph"),
        (put_number(1, 1) + put_bytes(2, put_bytes(2, put_bytes(1, NODE + ATTRIBUTE))), "saved_model_pb"),
    ],
)
def test_what_is_tensorflows_is_told(tmp_path: Path, contents: bytes, kind: str) -> None:
    (tmp_path / "graph").write_bytes(contents)
    assert identify(str(tmp_path / "graph")).name == kind


def test_every_graph_of_the_golden_files_is_told(GOLDEN: Path) -> None:
    found = {path.name: identify(str(path)).name for path in GOLDEN.rglob("*") if path.suffix in (".meta", ".pb")}
    assert found.pop("fingerprint.pb", "protobuf") == "protobuf"
    assert set(found.values()) == {"metagraph", "saved_model_pb"}


def test_the_command_says_it_too(v2: Path, capsys: pytest.CaptureFixture) -> None:
    (v2 / "model.ckpt-1234.index").write_bytes(compressed(v2 / "model.ckpt-1234.index"))
    (v2 / "model.ckpt-1234.index").rename(v2 / "model.ckpt")
    assert inspect([str(v2 / "model.ckpt")]) == 2
    assert "Rename it to model.ckpt-1234.index, beside its data file" in capsys.readouterr().err
