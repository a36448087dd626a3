"""ckpt-convert as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli import convert, progress, verify

ARRAYS = {
    "net/conv/weights": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "net/conv/biases": np.arange(4, dtype="float32"),
    "global_step": np.array(7, "int64"),
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(from_arrays(ARRAYS), "model.ckpt")
    return tmp_path


def test_what_it_prints(model, capsys):
    assert convert.main(["model.ckpt", "model.npz"]) == 0
    size = (model / "model.npz.provenance.json").stat().st_size
    assert capsys.readouterr() == (
        "wrote model.npz (npz) from model.ckpt (v2): 3 tensors, 120 bytes\n"
        "file                       bytes\n"
        "-------------------------  -----\n"
        "model.npz                    922\n"
        f"model.npz.provenance.json    {size}\n",
        "",
    )


@pytest.mark.parametrize(
    ("target", "options", "format"),
    [
        ("x.npz", [], "npz"),
        ("x.safetensors", [], "safetensors"),
        ("x.h5", [], "keras_h5"),
        ("x.ckpt", [], "v2"),
        ("x.ckpt.index", [], "v2"),
        ("x.ckpt", ["--format", "v1"], "v1"),
        ("x.h5", ["--format", "npz"], "npz"),
    ],
)
def test_there_and_back_again(model, target, options, format):
    assert convert.main(["model.ckpt", target, *options]) == 0
    assert open_checkpoint(target).format == format
    assert convert.main([target, "back.ckpt"]) == 0
    back = open_checkpoint("back.ckpt").tensors
    assert {name: tensor.load().tolist() for name, tensor in back.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    first, second = Path("model.ckpt.data-00000-of-00001"), Path("back.ckpt.data-00000-of-00001")
    assert sorted(first.read_bytes()) == sorted(second.read_bytes())


def test_json(model, capsys):
    assert convert.main(["model.ckpt", "x.ckpt", "--shards", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = ["x.ckpt.index", "x.ckpt.data-00000-of-00002", "x.ckpt.data-00001-of-00002", "x.ckpt.provenance.json"]
    assert found == {
        "source": "model.ckpt",
        "source_format": "v2",
        "target": "x.ckpt",
        "format": "v2",
        "tensors": 3,
        "bytes": sum(Path(name).stat().st_size for name in names),
        "files": [{"file": name, "bytes": Path(name).stat().st_size} for name in names],
        "replaced": [],
        "dry_run": False,
    }
    command = json.loads(Path("x.ckpt.provenance.json").read_text())["command"]
    assert command == "ckpt-convert model.ckpt x.ckpt --shards 2 --json"


def test_a_dry_run_writes_nothing_and_says_what_would_be_replaced(model, capsys):
    before = sorted(model.iterdir())
    assert convert.main(["model.ckpt", "model.ckpt", "--dry-run"]) == 0
    replaced = "would replace model.ckpt.index, model.ckpt.data-00000-of-00001, which needs --force\n"
    assert capsys.readouterr().out == (
        f"would write model.ckpt (v2) from model.ckpt (v2): 3 tensors, 120 bytes\n{replaced}"
    )
    assert convert.main(["model.ckpt", "model.ckpt.index", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(replaced)
    assert sorted(model.iterdir()) == before


@pytest.mark.posix
def test_links(model, capsys):
    assert convert.main(["model.ckpt", "x.ckpt", "--link"]) == 0
    assert Path("x.ckpt.data-00000-of-00001").samefile("model.ckpt.data-00000-of-00001")
    assert capsys.readouterr().err == ""


@pytest.mark.posix
def test_links_that_cannot_be_become_copies_and_it_is_said(model, capsys, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    assert convert.main(["model.ckpt", "x.ckpt", "--link"]) == 0
    assert not Path("x.ckpt.data-00000-of-00001").samefile("model.ckpt.data-00000-of-00001")
    assert capsys.readouterr().err == "no data file could be linked: the data was copied\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.ckpt", "model.ckpt"], "exists already .*--force"),
        (["nothing.ckpt", "x.npz"], "nothing.ckpt"),
        (["model.ckpt", "x.keras"], "cannot write .keras files. Supported are v1, v2, npz, safetensors, keras_h5"),
        (["model.ckpt", "x.npz", "--shards", "2"], "--shards is for V2 checkpoints"),
        (["model.ckpt", "x.ckpt", "--link", "--shards", "2"], "links keep the data files of the source"),
        (["model.ckpt", "no/x.npz"], "there is no folder no. Make it first: mkdir -p no"),
        (["model.ckpt:nett", "x.npz"], "has no scope 'nett'; did you mean net"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(model, capsys, arguments, said):
    assert convert.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ckpt-convert: ")
    assert err.count("\n") == 1
    assert pytest.importorskip("re").search(said, err)


def test_damage_says_how_to_save_the_rest(model, capsys):
    data = Path("model.ckpt.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    assert convert.main(["model.ckpt", "x.npz"]) == 2
    advice = "ckpt-verify model.ckpt.data-00000-of-00001 --salvage DST saves the tensors that are good."
    assert capsys.readouterr().err.endswith(f"{advice}\n")
    assert verify.main([str(data), "--salvage", "saved.ckpt"]) == 1
    assert len(open_checkpoint("saved.ckpt").tensors) == len(open_checkpoint("model.ckpt").tensors) - 1


def test_types_that_do_not_fit_are_named_all_at_once(model, capsys):
    import ml_dtypes

    half = np.zeros(2, ml_dtypes.bfloat16)
    save_checkpoint(from_arrays({"a": half, "b": half, "c": np.zeros(2)}), "half.ckpt")
    for extra in ([], ["--dry-run"]):
        assert convert.main(["half.ckpt", "half.npz", *extra]) == 2
        assert ".npz cannot hold 2 of 3 tensors: a (bfloat16[2]), b (bfloat16[2])" in capsys.readouterr().err
        assert convert.main(["half.ckpt", "half", "--format", "v1", *extra]) == 2
        assert "a V1 file cannot hold 2 of the tensors: a is bfloat16, b is bfloat16" in capsys.readouterr().err
    assert not Path("half.npz").exists()
    assert not Path("half").exists()


def test_part_of_a_checkpoint(model):
    assert convert.main(["model.ckpt:net/conv", "part.npz"]) == 0
    assert list(np.load("part.npz")) == ["biases", "weights"]


def test_object_based_files_keep_their_keys_between_v2_files_and_get_variable_names_elsewhere(GOLDEN, tmp_path, capsys):
    source = str(GOLDEN / "tf221_object" / "ckpt-1")
    assert convert.main([source, str(tmp_path / "same")]) == 0
    assert (tmp_path / "same.index").read_bytes() == Path(source + ".index").read_bytes()
    assert convert.main([source, str(tmp_path / "named"), "--tf-names"]) == 0
    assert set(open_checkpoint(tmp_path / "named").tensors) == set(open_checkpoint(source).tensors)
    assert convert.main([source, str(tmp_path / "x.npz"), "--stored-names"]) == 2  # float8 and bfloat16: named by key
    assert "model/low/.ATTRIBUTES/VARIABLE_VALUE (bfloat16[4])" in capsys.readouterr().err


def test_progress_is_for_terminals(monkeypatch, capsys):
    with progress.progress_line("writing", 100) as add:
        assert add is None
    now = iter([0.0, 0.2, 1.0, 1.05])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.progress_line("writing", 4_000_000) as add:
        for _ in range(3):
            add(1_000_000)
    text = "writing  50%  2 of 4 MB, 2 MB/s"
    assert capsys.readouterr().err == f"\r{text}\r{' ' * len(text)}\r"


def test_it_needs_no_tensorflow(model):
    code = "import sys; sys.modules['tensorflow'] = None; from ckpt_tools.cli.convert import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, "model.ckpt", "x.ckpt"], check=True, capture_output=True)
