"""Truncated tables: complete blocks are found by walking from the start."""

from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.errors import CheckpointError
from ckpt_tools.formats import v1, v2
from ckpt_tools.formats.sstable import Table
from ckpt_tools.formats.walk import WalkedFile, WalkedTable


@pytest.fixture
def large() -> dict[str, np.ndarray]:
    """Tensors of several kinds that fill more than one block of a table."""
    rng = np.random.default_rng(3)
    arrays = {f"net/conv{n}/weights": rng.normal(size=(3, 3, 32, 64)).astype("float32") for n in range(12)}
    return arrays | {"net/step": np.int64(7), "net/words": np.array([b"a", b"", b"c" * 300], object)}


def saved(arrays, path: Path, format: str) -> Path:
    save_checkpoint(from_arrays(arrays), path, format=format)
    return path


def test_a_whole_table_walks_to_the_blocks_of_its_index(large, tmp_path):
    for path in (
        saved(large, tmp_path / "v1.ckpt", "v1"),
        Path(f"{saved({f'a/{n}': np.zeros(2) for n in range(20_000)}, tmp_path / 'v2.ckpt', 'v2')}.index"),
    ):
        blocks = [block.handle for block in Table(str(path)).blocks]
        assert len(blocks) > 1
        assert [block.handle for block in WalkedTable(str(path)).blocks] == blocks


@pytest.mark.parametrize("lost", [10, 1_000, 200_000, 500_000])
def test_a_cut_v1_file_keeps_the_tensors_of_its_whole_blocks(large, tmp_path, lost):
    path = saved(large, tmp_path / "v1.ckpt", "v1")
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(CheckpointError):
        open_checkpoint(path)
    tensors = v1.of_files(str(path), [WalkedFile(str(path))]).tensors
    assert set(tensors) == set(large)
    good = 0
    for name, array in large.items():
        try:
            np.testing.assert_array_equal(tensors[name].load(), array)
            good += 1
        except CheckpointError:
            continue
    assert good == {10: 14, 1_000: 8, 200_000: 8, 500_000: 4}[lost]


def test_a_block_that_is_damaged_ends_the_walk(large, tmp_path):
    path = saved(large, tmp_path / "v1.ckpt", "v1")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert 0 < len(WalkedTable(str(path)).blocks) < len(Table(str(path)).blocks)


def test_a_cut_index_of_a_v2_checkpoint_keeps_its_whole_blocks(tmp_path):
    arrays = {f"layer/{n:05d}": np.full(3, n, "float32") for n in range(20_000)}
    path = saved(arrays, tmp_path / "v2.ckpt", "v2")
    index = Path(f"{path}.index")
    index.write_bytes(index.read_bytes()[:-100_000])
    problems = []
    tensors = v2.read(str(path), report=problems.append).tensors
    assert 1_000 < len(tensors) < 20_000
    assert all(np.array_equal(tensors[name].load(), arrays[name]) for name in list(tensors)[::500])
    assert "does not end as a checkpoint table does" in str(problems[0])


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 40, b"\x80" * 100, b"\0\0\xff\xff\xff\xff\x0f" + b"x" * 60])
def test_what_is_no_table_has_no_blocks(content, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert WalkedTable(str(path)).blocks == []
