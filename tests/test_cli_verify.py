"""ckpt-verify: its exact output, its JSON and its exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, save_checkpoint
from ckpt_tools.cli.verify import main

DAMAGED = """\
file                       tensor  what
-------------------------  ------  --------------------------------------------------------------------
model.data-00000-of-00001  a       the checksum of its bytes differs (stored 0x3f5009e9, is 0xd73068ca)

{source}: 1 finding; 1 of 2 tensors are good, 16 bytes
"""


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "model"
    save_checkpoint(from_arrays({"a": np.arange(3, dtype="float32"), "b": np.ones(2, "int64")}), path)
    return path


@pytest.fixture
def damaged(source) -> Path:
    data = Path(f"{source}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    return source


def test_whole(source, capsys):
    assert main([str(source)]) == 0
    assert capsys.readouterr().out == f"{source}: 2 tensors, 28 bytes: all is well\n"


def test_part_of_a_checkpoint(tmp_path, capsys):
    source = tmp_path / "model"
    save_checkpoint(from_arrays({"net/a": np.arange(3, dtype="float32"), "out/b": np.ones(2, "int64")}), source)
    data = Path(f"{source}.data-00000-of-00001")
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    assert main([f"{source}:out"]) == 0
    assert capsys.readouterr().out == f"{source}: 1 tensor, 16 bytes: all is well\n"
    assert main([f"{source}:net", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["summary"]["lost"] == 1
    assert main([f"{source}:ne"]) == 2
    assert capsys.readouterr().err == f"ckpt-verify: {source}: has no scope 'ne'; did you mean net?\n"


def test_damaged(damaged, capsys):
    assert main([str(damaged)]) == 1
    assert capsys.readouterr().out == DAMAGED.format(source=damaged)


def test_json(damaged, capsys):
    assert main([str(damaged), "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert list(value) == ["rows", "summary"]
    (row,) = value["rows"]
    assert row["file"] == f"{damaged}.data-00000-of-00001"
    assert row["tensor"] == "a"
    assert value["summary"] == {
        "path": str(damaged), "format": "v2", "tensors": 2, "good": 1, "lost": 1, "bytes": 16, "findings": 1
    }  # fmt: skip


def test_salvage(damaged, capsys, tmp_path):
    target = tmp_path / "saved"
    assert main([str(damaged), "--salvage", str(target)]) == 1
    assert capsys.readouterr().err == f"wrote 1 tensor to {target} (3 files); lost: a\n"
    assert main([str(target)]) == 0
    capsys.readouterr()
    assert main([str(damaged), "--salvage", str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([str(damaged), "--salvage", str(target), "--force"]) == 1
    record = json.loads(target.with_name("saved.provenance.json").read_text())
    assert record["command"] == f"ckpt-verify {damaged} --salvage {target} --force"
    assert (record["tensors"], record["left_out"]) == ({"b": "copied"}, {"a": "lost"})


def test_salvage_into_another_format(damaged, tmp_path):
    target = tmp_path / "saved.npz"
    assert main([str(damaged), "--salvage", str(target)]) == 1
    assert list(np.load(target)) == ["b"]


def test_a_format_that_is_not_written_is_said_before_anything_is_read(damaged, tmp_path, capsys):
    assert main([str(damaged), "--salvage", str(tmp_path / "saved.keras")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    supported = "v1, v2, npz, safetensors, keras_h5, keras_weights"
    assert f"cannot write .keras files. Supported are {supported}: --format of ckpt-convert" in err


def test_no_checkpoint(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == f"ckpt-verify: {tmp_path}/nothing: there is no such file or checkpoint\n"
