"""verify: every kind of damage is found and named, good tensors are saved, and nothing good is called bad."""

import os
import shutil
from pathlib import Path

import mutants
import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint, verify
from ckpt_tools.errors import CheckpointError, NotACheckpointError, OutputError, UnsupportedError
from ckpt_tools.formats.object_graph import GRAPH_KEY, attributes
from ckpt_tools.formats.sstable import Table, TableWriter, entries
from ckpt_tools.tensors import Extent, Slice, Tensor, Tensors, from_array

FORMATS = ["v1", "v2", "npz", "safetensors", "keras_h5"]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    made = {f"net/conv{n}/weights": rng.normal(size=(3, 3, 8, 16)).astype("float32") for n in range(6)}
    return made | {"net/empty": np.zeros((0, 3), "float32"), "global_step": np.array(1000, "int64")}


def saved(arrays, path: Path, format: str = "v2", **options) -> Path:
    save_checkpoint(from_arrays(arrays), path, format=format, **options)
    return path


def data_file(path: Path, shard: int = 0, shards: int = 1) -> Path:
    return Path(f"{path}.data-{shard:05d}-of-{shards:05d}")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def found_in(verification, tensor: str | None) -> str:
    """What is said of a tensor, or of a file as a whole."""
    return " | ".join(finding.what for finding in verification.findings if finding.tensor == tensor)


def test_it_shows_itself_in_a_line(arrays, tmp_path):
    save_checkpoint(from_arrays(arrays), tmp_path / "m.npz")
    found = f"0 findings, {len(arrays)} tensors good, 0 lost"
    assert repr(verify(tmp_path / "m.npz")) == f"<verification of {tmp_path}/m.npz: {found}>"


@pytest.mark.parametrize("format", FORMATS)
def test_a_whole_file_has_no_findings(arrays, tmp_path, format):
    if format in ("safetensors", "keras_h5"):
        pytest.importorskip("h5py" if format == "keras_h5" else "safetensors")
    path = saved(arrays, tmp_path / "model", format)
    verification = verify(path)
    assert verification.findings == ()
    assert verification.good == tuple(open_checkpoint(path, names="stored").tensors)
    assert verification.summary["bytes"] == sum(array.nbytes for array in arrays.values())
    assert verification.summary["format"] == format


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_one_bit_of_a_tensor(arrays, tmp_path, threads):
    path = saved(arrays, tmp_path / "model")
    flip(data_file(path), 5000)
    verification = verify(path, threads=threads)
    assert verification.lost == ("net/conv1/weights",)
    assert set(verification.good) == set(arrays) - {"net/conv1/weights"}
    (finding,) = verification.findings
    assert finding.file == str(data_file(path))
    assert finding.what.startswith("the checksum of its bytes differs (stored 0x")


def test_every_byte_of_the_data_file_is_checked(tmp_path):
    path = saved({"a": np.arange(4, dtype="int16"), "words": np.array([b"one", b"", b"three"], object)}, tmp_path / "m")
    whole = data_file(path).read_bytes()
    for offset in range(len(whole)):
        flip(data_file(path), offset)
        assert len(verify(path).lost) == 1, offset
        data_file(path).write_bytes(whole)
    assert verify(path).lost == ()


def test_a_data_file_that_was_cut_off(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model")
    size = data_file(path).stat().st_size
    os.truncate(data_file(path), 10_000)
    verification = verify(path)
    assert found_in(verification, None) == (
        f"The data file is cut off: it has 10,000 bytes and should have {size:,}; copy it again"
    )
    assert "net/conv0/weights" in verification.good
    assert "net/conv5/weights" in verification.lost


def test_a_data_file_with_line_ends_converted(arrays, tmp_path):
    path = saved(arrays | {"net/a": np.full(1000, 0x0A0A0A0A, "int32")}, tmp_path / "model")
    data_file(path).write_bytes(data_file(path).read_bytes().replace(b"\n", b"\r\n"))
    assert "its line ends were converted (git's autocrlf does that)" in found_in(verify(path), None)


def test_bytes_beyond_the_last_tensor_do_no_harm(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model")
    with data_file(path).open("ab") as file:
        file.write(b"\0\0")
    verification = verify(path)
    assert verification.findings == ()
    assert verification.notes == (
        f"{data_file(path)} has 2 bytes more than the index accounts for, which does no harm",
    )


def test_index_and_data_of_different_saves(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model")
    later = saved({name: array + 1 for name, array in arrays.items()}, tmp_path / "later")
    shutil.copy(data_file(later), data_file(path))
    assert found_in(verify(path), None) == (
        "most checksums differ although the size fits: the index and this file are of different saves; "
        "put the two of one step together"
    )


def test_a_data_file_that_is_missing(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model", shards=2)
    data_file(path, 1, 2).unlink()
    verification = verify(path)
    assert found_in(verification, None) == "is missing; the tensors in it are lost"
    assert 0 < len(verification.good) < len(arrays)


def test_data_files_of_an_earlier_save_are_noted(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model")
    stale = data_file(path, 1, 3)
    stale.write_bytes(b"old")
    verification = verify(path)
    assert verification.findings == ()
    assert verification.notes == (
        f"{stale} is of an earlier save with another number of data files; nothing refers to it",
    )


def test_a_slice_that_is_damaged_loses_its_variable(tmp_path):
    whole = np.arange(12, dtype="float32").reshape(6, 2)
    halves = [
        Slice((Extent(start, 3), Extent(0, 2)), from_array(np.ascontiguousarray(whole[start : start + 3])))
        for start in (0, 3)
    ]
    tensor = Tensor(from_array(whole).spec, lambda: whole, slices=tuple(halves))
    path = tmp_path / "model"
    save_checkpoint(Tensors({"part": tensor, "z": from_array(whole)}), path)
    assert verify(path).findings == ()
    flip(data_file(path), 30)
    verification = verify(path)
    assert (verification.good, verification.lost) == (("z",), ("part",))


def test_a_damaged_block_of_a_v1_file(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {f"w{n}": rng.normal(size=70_000).astype("float32") for n in range(6)}
    path = saved(arrays, tmp_path / "model.ckpt", "v1")
    flip(path, path.stat().st_size // 2)
    verification = verify(path)
    assert 1 <= len(verification.lost) <= 2
    assert "the checksum of a block at byte" in verification.findings[0].what


def test_a_v1_file_that_was_cut_off(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {f"w{n}": rng.normal(size=70_000).astype("float32") for n in range(6)}
    path = saved(arrays, tmp_path / "model.ckpt", "v1")
    os.truncate(path, path.stat().st_size * 2 // 3)
    verification = verify(path)
    assert len(verification.good) >= 3
    assert set(verification.good) | set(verification.lost) == set(arrays)
    assert found_in(verification, None).startswith("is a V1 checkpoint that was cut off: it has ")
    target = tmp_path / "saved"
    verification.salvage(target)
    for name in verification.good:
        np.testing.assert_array_equal(open_checkpoint(target).tensors[name].load(), arrays[name])


def test_a_v1_file_without_its_list_of_tensors(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model.ckpt", "v1")
    os.truncate(path, 2000)
    verification = verify(path)
    assert verification.good == ()
    assert "its first block, which lists the tensors, is not whole" in found_in(verification, None)


def test_v1_shards_of_which_one_is_missing(tmp_path):
    saved({"a": np.ones(3, "float32")}, tmp_path / "model-00000-of-00002", "v1")
    verification = verify(tmp_path / "model")
    assert verification.good == ("a",)
    assert "model-00001-of-00002 is missing" in found_in(verification, None)


def test_a_block_that_no_tensor_lies_in_is_checked_too(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {f"w{n}": rng.normal(size=70_000).astype("float32") for n in range(4)}
    one = saved({"w0": arrays["w0"]}, tmp_path / "one.ckpt", "v1")
    four = saved(arrays, tmp_path / "four.ckpt", "v1")
    records = {path: dict(zip(*table_records(path), strict=True)) for path in (one, four)}
    path = tmp_path / "orphans.ckpt"
    with path.open("wb") as file:
        table = TableWriter(file)
        for key, value in {**records[four], b"": records[one][b""]}.items():
            table.add(key, value)
        table.finish()
    assert verify(path).good == ("w0",)
    assert verify(path).findings == ()
    flip(path, path.stat().st_size // 2)
    verification = verify(path)
    assert verification.good == ("w0",)
    assert found_in(verification, None).startswith("the checksum of a block at byte")


def table_records(path: Path) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of a table file."""
    table = Table(str(path))
    blocks = [entries(table.read(block.handle)) for block in table.blocks]
    return [key for keys, _ in blocks for key in keys], [value for _, values in blocks for value in values]


def test_an_index_that_was_cut_off(tmp_path):
    arrays = {f"layer/{n:05d}": np.full(3, n, "float32") for n in range(20_000)}
    path = saved(arrays, tmp_path / "model")
    index = Path(f"{path}.index")
    os.truncate(index, index.stat().st_size - 100_000)
    verification = verify(path)
    assert 1000 < len(verification.good) < 20_000
    assert verification.lost == ()
    assert "does not end as a checkpoint table does" in found_in(verification, None)
    assert verify(index).good == verification.good


def test_salvage_writes_what_is_good_and_nothing_else(arrays, tmp_path):
    path = saved(arrays, tmp_path / "model")
    flip(data_file(path), 5000)
    verification = verify(path)
    target = tmp_path / "saved"
    files = verification.salvage(target)
    assert f"{target}.index" in files
    again = verify(target)
    assert again.findings == ()
    assert set(again.good) == set(verification.good)
    with pytest.raises(OutputError):
        verification.salvage(target)
    verification.salvage(target, force=True)


def test_the_object_graph_names_only_what_was_saved(GOLDEN, tmp_path):
    for file in (GOLDEN / "tf221_object").glob("ckpt-1.*"):
        shutil.copy(file, tmp_path)
    stored = open_checkpoint(tmp_path / "ckpt-1", names="stored").tensors["model/blocks/1/w/.ATTRIBUTES/VARIABLE_VALUE"]
    flip(data_file(tmp_path / "ckpt-1"), stored.stored.offset)
    verify(tmp_path / "ckpt-1").salvage(tmp_path / "saved")
    saved = open_checkpoint(tmp_path / "saved", names="stored").tensors
    assert {key for _, key in attributes(saved[GRAPH_KEY].load()[()])} == set(saved) - {GRAPH_KEY}
    assert "model/blocks/1/w/.ATTRIBUTES/VARIABLE_VALUE" not in saved


def test_nothing_good_is_nothing_to_save(tmp_path):
    path = saved({"a": np.ones(100, "float32"), "b": np.ones(100, "float32")}, tmp_path / "model")
    os.truncate(data_file(path), 10)
    with pytest.raises(UnsupportedError, match="no tensor is good"):
        verify(path).salvage(tmp_path / "saved")
    assert not (tmp_path / "saved.index").exists()


def test_what_is_no_checkpoint_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    for path in (tmp_path / "notes.txt", tmp_path / "nothing"):
        with pytest.raises(NotACheckpointError):
            verify(path)


@pytest.mark.parametrize(
    ("folder", "good", "lost"),
    [
        ("v1_bitflip/model.ckpt", 0, 0),
        ("v1_truncated_head/model.ckpt", 0, 0),
        ("v2_data_bitflip/model.ckpt-10000", 6, 1),
        ("v2_data_crlf/model.ckpt-10000", 1, 6),
        ("v2_data_truncated/model.ckpt-10000", 2, 5),
        ("v2_index_real_data_lfs/model.ckpt-10000", 0, 7),
    ],
)
def test_broken_files_of_other_people(SHARED, folder, good, lost):
    path = SHARED / "corpus" / "broken" / "derived" / folder
    verification = verify(path)
    assert verification.findings
    assert (len(verification.good), len(verification.lost)) == (good, lost)


def test_the_golden_checkpoints_are_whole(GOLDEN):
    for case, name in mutants.CASES.items():
        verification = verify(GOLDEN / case / name)
        assert verification.findings == (), case
        assert set(verification.good) == set(open_checkpoint(GOLDEN / case / name, names="stored").tensors), case


def test_of_hostile_files_exactly_those_tensors_are_good_that_can_be_read(GOLDEN, tmp_path):
    agreed = 0
    for number, mutant in enumerate(mutants.mutants(GOLDEN, 11, 300)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in mutant.files.items():
            (folder / name).write_bytes(content)
        source = folder / mutants.CASES[mutant.case]
        try:
            verification = verify(source, threads=2)
            tensors = open_checkpoint(source, names="stored").tensors
        except CheckpointError:
            continue
        readable = {name for name in tensors if can_be_read(tensors[name])}
        assert set(verification.good) - readable == set(), mutant
        assert readable - set(verification.good) == set(), mutant
        agreed += 1
    assert agreed > 50


def can_be_read(tensor: Tensor) -> bool:
    try:
        tensor.load()
    except CheckpointError:
        return False
    return True
