"""DataFile: the given bytes are written in order, whatever their sizes; errors are the system's own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools.errors import DamagedError
from ckpt_tools.formats import data_file
from ckpt_tools.formats.data_file import DataFile
from ckpt_tools.formats.mapped import MappedFile, forget_pages

PIECES = [(0, 5000), (5000, 3000), (100, 1), (4096, 65536), (7, 0), (60000, 9999)]


def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_pages_that_were_read_are_given_back(tmp_path):
    (tmp_path / "big").write_bytes(bytes(64 << 20))
    file = MappedFile(str(tmp_path / "big"))
    array = np.frombuffer(file.view(), "uint8")
    assert not array.any()
    before = resident("RssFile")
    forget_pages()
    assert resident("RssFile") < before - 60
    assert not array.any()  # and they come back


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(data_file, "BLOCK", 8192)


def written(path, source, expected):
    wanted = b""
    heard = []
    with DataFile(str(path), expected, heard.append) as out:
        for offset, size in PIECES:
            out.copy(str(source), offset, size)
            out.write(memoryview(np.full(size // 3, 7, "<u2")))
            wanted += source.read_bytes()[offset : offset + size] + np.full(size // 3, 7, "<u2").tobytes()
    assert sum(heard) == len(wanted)
    return wanted


@pytest.mark.parametrize("expected", [0, 100, 10_000_000])
def test_ranges_and_values_in_turn(tmp_path, source, small_blocks, expected):
    wanted = written(tmp_path / "out", source, expected)
    assert (tmp_path / "out").read_bytes() == wanted


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 16384, 16385])
def test_every_odd_end(tmp_path, source, small_blocks, size):
    with DataFile(str(tmp_path / "out"), 1) as out:
        out.copy(str(source), 3, size)
    assert (tmp_path / "out").read_bytes() == source.read_bytes()[3 : 3 + size]


@pytest.mark.posix
def test_neighbours_are_copied_in_one_call(tmp_path, source, monkeypatch):
    calls = []
    real = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda *args: calls.append(args[2]) or real(*args))
    with DataFile(str(tmp_path / "out")) as out:
        for offset in range(0, 100_000, 1000):
            out.copy(str(source), offset, 1000)
    assert calls == [100_000]
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("missing", [["copy_file_range"], ["copy_file_range", "sendfile"]])
@pytest.mark.posix
def test_without_the_fast_calls(tmp_path, source, monkeypatch, missing):
    for name in missing:
        monkeypatch.delattr(os, name)
    wanted = written(tmp_path / "out", source, 0)
    assert (tmp_path / "out").read_bytes() == wanted


def test_a_source_that_ends_early_is_damage(tmp_path, source, small_blocks):
    with pytest.raises(DamagedError, match="source: file ends at byte 100,000, 5 bytes before the end of a tensor"):  # noqa: SIM117
        with DataFile(str(tmp_path / "out"), 1) as out:
            out.copy(str(source), 50_000, 50_005)


@pytest.mark.parametrize("size", [1 << 19, 80 << 20])
@pytest.mark.posix
def test_a_full_disk_is_the_systems_error(tmp_path, size):
    code = (
        "import resource, sys\n"
        "from ckpt_tools.formats.data_file import DataFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))\n"
        "try:\n"
        "    with DataFile(sys.argv[1], int(sys.argv[2])) as out: out.write(bytes(int(sys.argv[2])))\n"
        "except OSError as error: print(error.errno)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out", str(size)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("27\n", "")
