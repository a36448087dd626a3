"""Any path opens the checkpoint that it means, or gives an error that names what is there instead."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import CheckpointError, from_arrays, open_checkpoint, save_checkpoint, verify
from ckpt_tools.errors import DamagedError, NotACheckpointError, SelectionError
from ckpt_tools.formats.detect import identify
from ckpt_tools.formats.state import State, parse_state

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea42d3\nsize 108816292\n"


@pytest.fixture
def v1(GOLDEN: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tf012_v1", tmp_path / "v1"))


@pytest.fixture
def v2(GOLDEN: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tf115_v2_sharded", tmp_path / "v2"))


def message(path: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value).replace(str(Path(str(path)).parent) + "/", "")


def test_every_member_of_a_v2_checkpoint(v2: Path) -> None:
    for member in ("", ".index", ".meta", ".data-00000-of-00002", ".data-00001-of-00002"):
        checkpoint = open_checkpoint(str(v2 / "model.ckpt") + member)
        assert (checkpoint.format, checkpoint.path) == ("v2", str(v2 / "model.ckpt"))
        assert list(checkpoint.tensors) == ["a/weights", "b/weights"]
        assert checkpoint.note == (f"model.ckpt{member} belongs to the V2 checkpoint model.ckpt" if member else "")
        assert [Path(file).name for file in checkpoint.files] == [
            "model.ckpt.index",
            "model.ckpt.data-00000-of-00002",
            "model.ckpt.data-00001-of-00002",
        ]


def test_every_member_of_a_v1_checkpoint(v1: Path) -> None:
    for member in ("", ".meta"):
        checkpoint = open_checkpoint(str(v1 / "model.ckpt-1234") + member)
        assert (checkpoint.format, checkpoint.path) == ("v1", str(v1 / "model.ckpt-1234"))
    assert checkpoint.note == "model.ckpt-1234.meta belongs to the V1 checkpoint model.ckpt-1234"


@pytest.mark.parametrize(
    "given", ["model.ckpt", "model.ckpt-?????-of-00002", "model.ckpt-*-of-00002", "model.ckpt-00001-of-00002"]
)
def test_v1_shards(GOLDEN: Path, given: str) -> None:
    checkpoint = open_checkpoint(GOLDEN / "tf221_v1_sharded" / given)
    assert sorted(checkpoint.tensors) == ["a/weights", "b/weights"]
    assert len(checkpoint.files) == 2
    assert checkpoint.path.endswith("model.ckpt-?????-of-00002")


def test_folder_and_state_file(v1: Path, v2: Path, GOLDEN: Path) -> None:
    assert open_checkpoint(v2).path == str(v2 / "model.ckpt")
    assert open_checkpoint(v2 / "checkpoint").path == str(v2 / "model.ckpt")
    (v1 / "checkpoint").unlink()
    assert open_checkpoint(v1).path == str(v1 / "model.ckpt-1234")
    saved = open_checkpoint(GOLDEN / "tf221_saved_model")
    assert saved.format == "saved_model"
    assert open_checkpoint(GOLDEN / "tf221_saved_model" / "saved_model.pb").path == saved.path
    assert "odd" in saved.tensors


def test_a_moved_folder_with_absolute_paths(v2: Path) -> None:
    (v2 / "checkpoint").write_text('model_checkpoint_path: "/home/me/run 1/model.ckpt"\n')
    checkpoint = open_checkpoint(v2)
    assert checkpoint.path == str(v2 / "model.ckpt")
    assert checkpoint.note == f"model.ckpt is the latest by {v2}/checkpoint"


def test_a_state_file_that_names_what_is_gone(v1: Path, v2: Path) -> None:
    (v2 / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"')
    text = f"{v2}/checkpoint: names model.ckpt-9, which is not there. Checkpoints beside it: model.ckpt."
    with pytest.raises(NotACheckpointError) as caught:
        open_checkpoint(v2 / "checkpoint")
    assert str(caught.value) == text
    assert open_checkpoint(v2).note == "the file `checkpoint` beside it names model.ckpt-9, which is not there"
    (v2 / "checkpoint").write_text("7")
    assert open_checkpoint(v2).note.startswith("the file `checkpoint` beside it is a checkpoint state file that names")


@pytest.mark.parametrize(("content", "problem"), [(None, "cut off: it has 300 bytes"), (LFS, "is a Git LFS pointer")])
def test_a_state_file_that_names_what_is_damaged(v1: Path, content: str | None, problem: str) -> None:
    whole = (v1 / "model.ckpt-1234").read_bytes()
    (v1 / "model.ckpt-1000").write_bytes(whole)
    (v1 / "model.ckpt-1234").write_bytes(content.encode() if content else whole[:300])
    assert message(v1).startswith("v1/model.ckpt-1234: is ") and problem in message(v1)  # not the older one


def test_state_text() -> None:
    text = "# a comment\nmodel_checkpoint_path: 'a\\303\\251\\x62' # another\nlast_preserved_timestamp: 1.5e9\n"
    assert parse_state(text + 'all_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "m-2"') == State(
        "aéb", ("m-1", "m-2")
    )
    for wrong in ("", "model_checkpoint_path: ''", '"alone"', "model_checkpoint_path: \x00"):
        with pytest.raises(DamagedError):
            parse_state(wrong)


@pytest.mark.posix
def test_scope_of_a_source(v1: Path, tmp_path: Path) -> None:
    path = v1 / "model.ckpt-1234"
    whole = open_checkpoint(path).tensors
    part = open_checkpoint(f"{path}:net/conv0/").tensors
    assert sorted(part) == ["BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance", "weights"]
    assert np.array_equal(part["weights"].load(), whole["net/conv0/weights"].load())
    with pytest.raises(SelectionError, match="has no scope 'net/conv00'; did you mean net/conv0"):
        open_checkpoint(f"{path}:net/conv00")
    colon = tmp_path / "run:net"
    shutil.copy(path, colon)
    assert len(open_checkpoint(colon).tensors) == len(whole)
    assert list(open_checkpoint(f"{colon}:net/Logits").tensors) == ["biases", "weights"]


def test_names_with_glob_characters_are_literal(v2: Path) -> None:
    odd = v2.parent / "run[1]*?"
    v2.rename(odd)
    assert len(open_checkpoint(odd / "model.ckpt").tensors) == 2


def test_a_folder_beside_the_prefix(v2: Path) -> None:
    (v2 / "model.ckpt").mkdir()
    assert open_checkpoint(v2 / "model.ckpt").format == "v2"


def test_what_is_made_from_an_archive_names_the_archive(GOLDEN: Path, tmp_path: Path) -> None:
    """The folder that it was unpacked to is gone when anybody reads where a checkpoint is from."""
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(GOLDEN / "tf012_v1", "release/model")
    for source in (str(archive), f"{archive}:net"):
        save_checkpoint(open_checkpoint(source), tmp_path / "copy.ckpt", force=True)
        record = json.loads((tmp_path / "copy.ckpt.provenance.json").read_text())["source"]
        assert record == {
            "path": str(archive),
            "format": "v1",
            "files": {
                "model.tar.gz": {
                    "bytes": archive.stat().st_size,
                    "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
                }
            },
        }
        assert verify(source).summary["path"] == str(archive)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives(GOLDEN: Path, tmp_path: Path, mode: str) -> None:
    for case in ("tf012_v1", "tf115_v2_sharded", "tf221_saved_model"):
        archive = tmp_path / "model.tar.gz"
        with tarfile.open(archive, mode) as tar:
            tar.add(GOLDEN / case, "release/model")
        checkpoint = open_checkpoint(archive)
        inside = checkpoint.path
        expected = open_checkpoint(GOLDEN / case)
        assert checkpoint.format == expected.format
        assert "of the archive model.tar.gz" in checkpoint.note
        tensors = dict(checkpoint.tensors)
        del checkpoint  # each tensor keeps the folder that it is read from
        assert all(np.array_equal(tensors[name].load(), tensor.load()) for name, tensor in expected.tensors.items())
        assert all(
            np.array_equal(np.concatenate(list(tensors[name].blocks())), tensor.load().reshape(-1))
            for name, tensor in expected.tensors.items()
            if tensor.spec.parameters and tensor.spec.nbytes is not None
        )
        tensors.popitem()
        assert Path(inside).parent.exists()
        tensors.clear()
        assert not Path(inside).parent.exists()


def _tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("../escaped"),
        _member("a/../../escaped"),
        _member("/tmp/escaped"),
        _member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        _member("link", type=tarfile.LNKTYPE, linkname="model.ckpt"),
        _member("device", type=tarfile.CHRTYPE),
        _member("pipe", type=tarfile.FIFOTYPE),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = _tar(tmp_path / "bad.tar.gz", _member("model.ckpt", size=4), member)
    before = sorted(tmp_path.parent.rglob("*"))
    assert "the archive is refused" in message(archive)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_archives_without_a_checkpoint(tmp_path: Path, v1: Path) -> None:
    assert "a.tar: the archive holds no checkpoint" in message(_tar(tmp_path / "a.tar", _member("x", size=3)))
    cut = tmp_path / "cut.tar.gz"
    with tarfile.open(cut, "w:gz") as tar:
        tar.add(v1, "v1")
    cut.write_bytes(cut.read_bytes()[:2000])
    assert "the archive is cut off or damaged" in message(cut)


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def test_what_is_no_checkpoint_is_named(tmp_path: Path, GOLDEN: Path) -> None:
    path = tmp_path / "model.ckpt"

    def said(content: bytes) -> str:
        path.write_bytes(content)
        return message(path)

    assert said(LFS.encode()) == (
        "model.ckpt: is a Git LFS pointer; the real file has 108,816,292 bytes, not a checkpoint. "
        "Fetch the file itself with: git lfs pull"
    )
    assert said(b"\n<!DOCTYPE html><html>404</html>").startswith(
        "model.ckpt: is an HTML page, not a checkpoint. The down"
    )
    assert said(b"").startswith("model.ckpt: is an empty file, not a checkpoint. It was created but never written")
    assert "is a gzip-compressed file, not a checkpoint. Unpack it first (gunzip)" in said(gzip.compress(b"x" * 99))
    assert "is a bzip2-compressed file" in said(b"BZh91AY&SY" + bytes(50))
    assert "is a gzip-compressed file" in said(b"\x1f\x8b\x08\x00" + b"\xff" * 60)
    assert "is a Python pickle, not a checkpoint. It is not opened, because" in said(pickle.dumps({"a": 1}, 2))
    torch = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    assert "model.ckpt: not a sound pickle: " in said(torch)  # it is read as PyTorch's, and its other pickles are gone
    assert "is a TensorBoard event file" in said(
        b"\x18" + bytes(11) + b"\t\0\0\x80\xe2\x0eu\xd9A\x1a\rbrain.Event:2" + bytes(9)
    )
    unknown = said(b"not\xff")
    assert (
        "none of the kinds of file that are known (it starts with 6e 6f 74 ff), not a checkpoint. A renamed data"
        in unknown
    )
    assert "model.ckpt: is a text file, not a checkpoint" in said(b"# noth\ning")
    assert "is a graph in text form" in said(b'node {\n  name: "x"\n}\n')
    _zip(path, "archive/data.pkl", "archive/version", "archive/data/0")
    assert "model.ckpt: not a sound pickle: " in message(path)
    _zip(path, "a.txt")
    assert "is a zip archive, not a checkpoint" in message(path)
    path.write_bytes(path.read_bytes()[:30])
    assert "is a zip archive that is cut off or damaged" in message(path)


def test_a_safetensors_file_whose_list_is_cut_off(tmp_path: Path) -> None:
    save_checkpoint(from_arrays({"net/weights": np.zeros(3)}), tmp_path / "a.safetensors")
    (tmp_path / "b").write_bytes((tmp_path / "a.safetensors").read_bytes()[:50])
    assert "b: is a safetensors file that was cut off: it has 50 bytes, its list alone" in message(tmp_path / "b")


def test_kinds_that_other_modules_open(tmp_path: Path, GOLDEN: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert identify(str(tmp_path / "a.npz")).name == "npz"
    (tmp_path / "b").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert identify(str(tmp_path / "b")).name == "keras_h5"
    (tmp_path / "c").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert identify(str(tmp_path / "c")).name == "safetensors"
    (tmp_path / "d").write_bytes(b"\x0a\x0a\x0a\x01x\x12\x05Const\x22\x02\x08\x1b")
    assert identify(str(tmp_path / "d")).name == "graphdef"
    assert identify(str(GOLDEN / "tf012_v1" / "model.ckpt-1234.meta")).name == "metagraph"
    assert identify(str(GOLDEN / "tf221_saved_model" / "saved_model.pb")).name == "saved_model_pb"


def test_parts_that_are_missing(v1: Path, v2: Path) -> None:
    (v2 / "model.ckpt.index").unlink()
    assert message(v2 / "model.ckpt") == (
        "model.ckpt: the data file model.ckpt.data-00000-of-00002 is there, but the index model.ckpt.index, "
        "which holds the names, is missing"
    )
    assert message(v2).startswith(
        "v2/checkpoint: names model.ckpt: the data file model.ckpt.data-00000-of-00002 is there"
    )
    assert "is a data file of a V2 checkpoint, but its index model.ckpt.index, which holds" in message(
        v2 / "model.ckpt.data-00000-of-00002"
    )
    assert "is a MetaGraph (the graph of a model): it holds no values. Those are in" in message(v2 / "model.ckpt.meta")
    for file in v2.glob("*.data-*"):
        file.unlink()
    assert "only the graph model.ckpt.meta is there; model.ckpt.index and its data files" in message(v2 / "model.ckpt")
    (v1 / "model.ckpt-1234").unlink()
    assert "checkpoint: names model.ckpt-1234: only the graph model.ckpt-1234.meta is there;" in message(v1)
    (v1 / "model.ckpt-1234.meta").unlink()
    assert "names model.ckpt-1234, which is not there. Checkpoints beside it: none." in message(v1)


def test_missing_data_files_are_said_and_named_on_load(v2: Path) -> None:
    (v2 / "model.ckpt.data-00001-of-00002").unlink()
    checkpoint = open_checkpoint(v2 / "model.ckpt")
    assert checkpoint.note == (
        "of its 2 data files, model.ckpt.data-00001-of-00002 is missing: names and shapes are known, the values not"
    )
    assert checkpoint.tensors["a/weights"].load().shape == (4, 3)
    assert checkpoint.tensors["b/weights"].stored is None
    with pytest.raises(
        NotACheckpointError, match="00001-of-00002: tensor b/weights: this file of the checkpoint is missing"
    ):
        checkpoint.tensors["b/weights"].load()


def test_missing_v1_shards(GOLDEN: Path, tmp_path: Path) -> None:
    for shard in (0, 2):
        shutil.copy(GOLDEN / "tf221_v1_sharded" / "model.ckpt-00000-of-00002", tmp_path / f"m-{shard:05d}-of-00004")
    text = "m: of 4 shards of this V1 checkpoint, m-00001-of-00004, m-00003-of-00004 are missing"
    assert message(tmp_path / "m") == message(tmp_path / "m-00002-of-00004").replace("m-00002-of-00004:", "m:") == text


def test_cut_files(v1: Path, v2: Path) -> None:
    file = v1 / "model.ckpt-1234"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    text = message(file)
    assert text.startswith("model.ckpt-1234: is a V1 checkpoint that was cut off: it has 2,000 bytes and should have ")
    least = int(text.split("should have ")[1].split(" at least")[0].replace(",", ""))
    assert 0.8 * len(whole) < least <= len(whole)
    assert message(v1).startswith("v1/model.ckpt-1234: is a V1 checkpoint that was cut off")
    index = v2 / "model.ckpt.index"
    index.write_bytes(index.read_bytes()[:100])
    text = "model.ckpt.index: is the index of a V2 checkpoint, cut off after 100 bytes. The footer is missing"
    assert message(v2 / "model.ckpt").startswith(text)
    assert message(v2 / "model.ckpt.index").startswith(text)
    index.write_text(LFS)
    assert message(v2 / "model.ckpt").startswith(
        "model.ckpt.index: is a Git LFS pointer; the real file has 108,816,292"
    )


def test_wrong_names(v2: Path, tmp_path: Path) -> None:
    assert message(v2 / "model.ckp") == (
        "model.ckp: there is no such file or checkpoint; there is model.ckpt.data-00000-of-00002, "
        "model.ckpt.data-00001-of-00002, model.ckpt.index, model.ckpt.meta"
    )
    assert message(v2 / "modle.ckpt").endswith("there is no such file or checkpoint; did you mean model.ckpt?")
    assert message(tmp_path / "none" / "model.ckpt").endswith(f"there is no folder {tmp_path}/none")
    shutil.copy(v2 / "model.ckpt.index", v2 / "renamed")
    assert message(v2 / "renamed").endswith("which must be next to it.")  # test_renamed.py has its other kin
    (v2 / "checkpoint").unlink()
    shutil.copy(v2 / "model.ckpt.index", v2 / "other.index")
    assert message(v2).endswith("the folder holds 2 checkpoints: model.ckpt, other. Give one of them.")
    os.mkfifo(v2 / "pipe")
    assert message(v2 / "pipe").endswith("is not a regular file")
    (v2 / "link").symlink_to("nowhere")
    assert message(v2 / "link").endswith("is a link to nothing")
    for odd in ("", "a\0b"):
        with pytest.raises(NotACheckpointError):
            open_checkpoint(odd)
