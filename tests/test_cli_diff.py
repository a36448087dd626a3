"""ckpt-diff: its exact output, its JSON and its exit codes."""

import json
import tarfile

import numpy as np
import pytest

from ckpt_tools import diff_tensors, from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli.diff import main

F = "float32"
TABLE = """\
change   name                new name         a             b             differing  max abs  max rel
-------  ------------------  ---------------  ------------  ------------  ---------  -------  -------
values   net/conv/weights                     float32[4]    float32[4]            2     0.25      0.5
removed  net/conv/weights/m                   float32[4]
shape    net/logits/weights                   float32[3,9]  float32[3,5]
renamed  net/old/weights     net/new/weights  float32[2,3]  float32[2,3]
added    net/words                                          string[1]

5 tensors and 5 tensors: 1 the same, 1 with other values, 1 of another shape, 1 renamed, 1 in A only, 1 in B only
"""


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    a = {
        "net/old/weights": np.arange(6, dtype=F).reshape(2, 3),
        "net/logits/weights": np.zeros((3, 9), F),
        "net/conv/weights": np.array([1, 1, 1, 0.5], F),
        "net/conv/weights/m": np.ones(4, F) * 3,
        "step": np.array(10, "int64"),
    }
    b = {
        "net/conv/weights": np.array([1, 1.25, 1, 0.25], F),
        "net/logits/weights": np.zeros((3, 5), F),
        "net/new/weights": a["net/old/weights"],
        "net/words": np.array([b"x"], object),
        "step": a["step"],
    }
    save_checkpoint(from_arrays(a), tmp_path / "a.ckpt")
    save_checkpoint(from_arrays(b), tmp_path / "b.ckpt", format="v1")
    return str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt")


def test_table(pair, capsys):
    assert main([*pair]) == 1
    assert capsys.readouterr().out == TABLE


def test_the_same(pair, capsys):
    assert main([pair[0], pair[0]]) == 0
    assert capsys.readouterr().out == "5 tensors and 5 tensors: 5 the same\n"


def test_archives(pair, tmp_path, capsys):
    for name in ("one", "two"):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
            for file in tmp_path.glob("a.ckpt.*-of-*"):
                archive.add(file, f"model{file.name.removeprefix('a')}")
            archive.add(tmp_path / "a.ckpt.index", "model.ckpt.index")
        save_checkpoint(from_arrays({"w": np.ones(3, F)}), tmp_path / "a.ckpt", force=True)
    one, two = (str(tmp_path / f"{name}.tar.gz") for name in ("one", "two"))
    assert main([one, two]) == 1
    assert capsys.readouterr().out.endswith("5 tensors and 1 tensor: 5 in A only, 1 in B only\n")
    same = diff_tensors(open_checkpoint(one), open_checkpoint(pair[1]))
    assert [change.change for change in same] == ["values", "removed", "shape", "renamed", "added"]


def test_tolerance(pair, capsys):
    assert main([*pair, "--tolerance", "0.25"]) == 1
    assert "with other values" not in capsys.readouterr().out


def test_json(pair, capsys):
    assert main([*pair, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert list(value) == ["rows", "summary"]
    changed = next(row for row in value["rows"] if row["change"] == "values")
    assert changed == {
        "change": "values",
        "name": "net/conv/weights",
        "new_name": None,
        "a": {"dtype": F, "shape": [4]},
        "b": {"dtype": F, "shape": [4]},
        "differing": 2,
        "max_abs": 0.25,
        "max_rel": 0.5,
    }
    assert value["summary"] == {
        "a": 5, "b": 5, "same": 1, "removed": 1, "added": 1, "renamed": 1, "shape": 1, "dtype": 0, "values": 1
    }  # fmt: skip


def test_json_of_a_distance_that_is_not_finite_is_json(tmp_path, capsys):
    for name, value in (("a", np.nan), ("b", 1.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.array([value]))
    assert main([f"{tmp_path}/a.npz", f"{tmp_path}/b.npz", "--json"]) == 1
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["rows"][0]["max_abs"] == "inf"


def test_a_scope_of_one_side(pair, capsys, tmp_path):
    arrays = {"conv/weights": np.array([1, 1, 1, 0.5], F), "conv/weights/m": np.ones(4, F) * 3}
    arrays |= {"old/weights": np.arange(6, dtype=F).reshape(2, 3), "logits/weights": np.zeros((3, 9), F)}
    np.savez(tmp_path / "part.npz", **arrays)
    assert main([f"{pair[0]}:net", f"{tmp_path}/part.npz"]) == 0
    assert capsys.readouterr().out == "4 tensors and 4 tensors: 4 the same\n"


def test_what_cannot_be_done_is_2(pair, capsys):
    assert main([pair[0], "nothing"]) == 2
    assert main([*pair, "--tolerance", "-1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ckpt-diff: nothing: there is no such file or checkpoint",
        "ckpt-diff: --tolerance -1.0: must be 0 or more",
    ]
