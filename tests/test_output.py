"""save_checkpoint: the state of the target after success, refusal, an error, and a kill at any point."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import Spec, Tensor, from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.errors import CheckpointError, DamagedError, OutputError, UnsupportedError
from ckpt_tools.formats import output, placing, provenance
from ckpt_tools.formats.output import WRITERS, format_of
from ckpt_tools.tensors import from_array

OLD = {"a/weights": np.arange(12, dtype="float32").reshape(3, 4), "step": np.array(1, "int64")}
SIZES = {"conv2d": 3_000_000, "conv2d_1": 5, "dense": 700_000}  # float32: more than digests and disks are given at once
NEW = {"b/weights": np.arange(100, dtype="float32"), "step": np.array(2, "int64")}


def values(path):
    return {name: tensor.load().tolist() for name, tensor in open_checkpoint(path).tensors.items()}


def listed(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.mark.parametrize("format", ["v1", "v2", "npz", "safetensors", "keras_h5"])
def test_every_format_is_written_and_read_back_with_its_provenance(tmp_path, format):
    target = tmp_path / "model.ckpt"
    written = save_checkpoint(from_arrays(OLD), target, format=format, provenance={"command": "by hand"})
    assert {Path(file).name for file in written} == set(files(tmp_path))
    assert open_checkpoint(target).format == format
    assert values(target) == listed(OLD)
    sidecar = json.loads((tmp_path / "model.ckpt.provenance.json").read_text())
    assert (sidecar["command"], sidecar["format"]) == ("by hand", format)
    assert sidecar["tensors"] == {"a/weights": "written", "step": "written"}


@pytest.mark.parametrize(("name", "format"), [("m.npz", "npz"), ("m.h5", "keras_h5"), ("m.ckpt-5", "v2")])
def test_the_ending_decides_where_no_format_is_given(tmp_path, name, format):
    written = save_checkpoint(from_arrays(OLD), tmp_path / name)
    assert open_checkpoint(written[0]).format == format
    assert save_checkpoint(from_arrays(OLD), tmp_path / "x.npz", format="v2")[0] == str(tmp_path / "x.npz.index")
    with pytest.raises(UnsupportedError, match="cannot write .keras files"):
        save_checkpoint(from_arrays(OLD), tmp_path / "m.keras")


def test_what_is_done_aside_gives_or_raises_what_it_would(tmp_path, monkeypatch):
    assert provenance.aside(max, 2, 3)() == 3
    with pytest.raises(ZeroDivisionError):
        provenance.aside(divmod, 1, 0)()
    source = open_checkpoint(save_checkpoint(from_arrays(OLD), tmp_path / "old.npz", format="npz")[0])
    monkeypatch.setattr(provenance, "_sha256", lambda path: [][0])
    with pytest.raises(IndexError):
        save_checkpoint(source, tmp_path / "new.npz", format="npz")
    assert set(files(tmp_path)) == {"old.npz", "old.npz.provenance.json"}


def test_provenance_names_the_source_by_digests_that_sha256sum_prints(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "old")
    save_checkpoint(open_checkpoint(tmp_path / "old"), tmp_path / "new.npz", format="npz")
    sidecar = json.loads((tmp_path / "new.npz.provenance.json").read_text())
    printed = subprocess.run(["sha256sum", "old.index", "new.npz"], cwd=tmp_path, capture_output=True, text=True)
    sums = dict(reversed(line.split()) for line in printed.stdout.splitlines())
    assert sidecar["source"]["files"]["old.index"]["sha256"] == sums["old.index"]
    assert sidecar["source"]["files"]["old.data-00000-of-00001"] == {"bytes": 56}
    assert sidecar["files"]["new.npz"]["sha256"] == sums["new.npz"]
    assert sidecar["source"]["path"] == str(tmp_path / "old")


@pytest.mark.parametrize("format", WRITERS)
def test_digests_are_those_of_the_files(tmp_path, format):
    """Also of files of several pieces, which are digested while they are written; a piece may be empty."""
    arrays = {f"layers/{kind}/vars/0": np.arange(size, dtype="float32") for kind, size in SIZES.items()}
    tensors = {
        name: Tensor(from_array(array).spec, lambda a=array: a, stream=lambda a=array: iter([a[:0], a]))
        for name, array in arrays.items()
    }
    save_checkpoint(tensors, tmp_path / "m", format=format)
    sidecar = json.loads((tmp_path / "m.provenance.json").read_text())
    for name, said in sidecar["files"].items():
        content = (tmp_path / name).read_bytes()
        assert said["bytes"] == len(content)
        assert said.get("sha256") in (None if ".data-" in name else "", hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("format", ["v1", "safetensors", "keras_h5"])
def test_nothing_goes_on_digesting_where_writing_fails(tmp_path, format):
    before = set(threading.enumerate())

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(1 << 20, "float32")
        raise DamagedError("is broken")

    tensors = {"a/w": Tensor(Spec("float32", (1 << 21,)), None, stream=broken)}
    with pytest.raises(DamagedError, match="tensor a/w: is broken"):
        save_checkpoint(tensors, tmp_path / "m", format=format)
    assert not files(tmp_path)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_an_existing_target_needs_force_and_a_refusal_changes_nothing(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "m")
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"m: exists already \(m.index, m.data-00000-of-00001\). Use --force"):
        save_checkpoint(from_arrays(NEW), tmp_path / "m")
    for format in ("v1", "npz", "safetensors", "keras_h5"):
        with pytest.raises(OutputError, match="exists already"):
            save_checkpoint(from_arrays(NEW), tmp_path / "m", format=format)  # would be hidden by m.index
    assert files(tmp_path) == before
    save_checkpoint(from_arrays(NEW), tmp_path / "m", force=True)
    assert values(tmp_path / "m") == listed(NEW)


def test_shards_of_the_old_checkpoint_go_when_the_new_one_has_another_number(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "m", shards=2)
    assert "m.data-00001-of-00002" in files(tmp_path)
    save_checkpoint(from_arrays(NEW), tmp_path / "m", force=True, shards=1)
    assert set(files(tmp_path)) == {"m.index", "m.data-00000-of-00001", "m.provenance.json"}
    assert values(tmp_path / "m") == listed(NEW)


@pytest.mark.posix
def test_one_format_replaces_the_other_under_the_same_name(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "m", format="v1")
    save_checkpoint(open_checkpoint(tmp_path / "m"), tmp_path / "m", format="v2", force=True)
    assert set(files(tmp_path)) == {"m.index", "m.data-00000-of-00001", "m.provenance.json"}
    assert values(tmp_path / "m") == listed(OLD)
    save_checkpoint(open_checkpoint(tmp_path / "m"), tmp_path / "m", format="v1", force=True)
    assert set(files(tmp_path)) == {"m", "m.provenance.json"}
    assert values(tmp_path / "m") == listed(OLD)


@pytest.mark.parametrize("format", ["v1", "v2", "npz", "safetensors", "keras_h5"])
def test_writing_over_the_source_itself(tmp_path, format):
    big = {f"t{i}": np.full(50_000, i, "float32") for i in range(4)}
    save_checkpoint(from_arrays(big), tmp_path / "m", format=format)
    source = open_checkpoint(tmp_path / "m")
    renamed = {f"new/{name}": source.tensors[name] for name in reversed(list(source.tensors))}
    save_checkpoint(renamed, tmp_path / "m", format=format, force=True)
    assert values(tmp_path / "m") == {f"new/{name}": array.tolist() for name, array in big.items()}


@pytest.mark.posix
@pytest.mark.parametrize("format", ["v1", "v2", "npz", "safetensors", "keras_h5"])
def test_what_was_opened_before_still_sees_the_old_file(tmp_path, format):
    save_checkpoint(from_arrays(OLD), tmp_path / "m", format=format)
    source = open_checkpoint(tmp_path / "m")
    for tensor in source.tensors.values():  # from now on the file is open
        tensor.load()
    save_checkpoint(from_arrays(NEW), tmp_path / "m", format=format, force=True)
    assert {name: tensor.load().tolist() for name, tensor in source.tensors.items()} == listed(OLD)


@pytest.mark.posix
def test_an_unchanged_bundle_written_over_itself_is_the_same_to_the_byte(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "m", shards=2)
    before = files(tmp_path)
    save_checkpoint(open_checkpoint(tmp_path / "m"), tmp_path / "m", force=True)
    after = files(tmp_path)
    assert before.pop("m.provenance.json") != after.pop("m.provenance.json")
    assert after == before


@pytest.mark.posix
def test_links_share_the_data_and_changed_tensors_get_a_file_of_their_own(tmp_path):
    save_checkpoint(from_arrays(OLD), tmp_path / "m")
    source = open_checkpoint(tmp_path / "m").tensors
    renamed = {f"x/{name}": tensor for name, tensor in source.items()}
    save_checkpoint(renamed, tmp_path / "linked", link=True)
    assert (tmp_path / "linked.data-00000-of-00001").samefile(tmp_path / "m.data-00000-of-00001")
    save_checkpoint({**renamed, **from_arrays(NEW)}, tmp_path / "mixed", link=True)
    assert (tmp_path / "mixed.data-00000-of-00002").samefile(tmp_path / "m.data-00000-of-00001")
    assert values(tmp_path / "mixed") == {f"x/{name}": v for name, v in listed(OLD).items()} | listed(NEW)
    save_checkpoint(renamed, tmp_path / "m", link=True, force=True)
    assert values(tmp_path / "m") == {f"x/{name}": v for name, v in listed(OLD).items()}
    assert not [name for name in files(tmp_path) if "partial" in name]


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_free_bytes", lambda _: 100)
    with pytest.raises(OutputError, match=r"m: [\d,]+ bytes are needed, and 100 are free"):
        save_checkpoint(from_arrays(NEW), tmp_path / "m")
    assert not files(tmp_path)


@pytest.mark.parametrize("format", ["v1", "v2", "npz", "safetensors", "keras_h5"])
@pytest.mark.posix
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, format):
    code = (
        "import resource, sys, numpy; from ckpt_tools import from_arrays, save_checkpoint, CheckpointError\n"
        "tensors = from_arrays({'a': numpy.ones((1000, 1000), 'float32')})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: save_checkpoint(tensors, sys.argv[1], format=sys.argv[2])\n"
        "except CheckpointError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m", format], capture_output=True, text=True)
    said = f"OutputError {tmp_path}/m: the disk or the quota of {tmp_path} is full (File too large)\n"
    assert (done.stdout, done.stderr) == (said, "")
    assert not files(tmp_path)


@pytest.mark.posix
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    """In a child without root's rights, for whom permissions count."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.chdir(locked)
            if os.getuid() == 0:
                os.setuid(65534)
            save_checkpoint(from_arrays(OLD), "m")
        except CheckpointError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    assert said == f"m: the folder {locked} cannot be written (Permission denied)"
    assert not files(locked)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no/folder/m", "there is no folder .*no/folder. Make it first: mkdir -p"),
        ("", "is a folder. Give the name of the checkpoint in it"),
    ],
)
def test_targets_that_cannot_be(tmp_path, target, said):
    with pytest.raises(OutputError, match=said):
        save_checkpoint(from_arrays(OLD), f"{tmp_path}/{target}")


def test_formats_by_ending():
    assert format_of("dir.h5/model.ckpt-20") == "v2"
    assert format_of("m.HDF5") == "keras_h5"
    with pytest.raises(UnsupportedError, match=r"x.keras: cannot write .keras files. Supported are v1, v2, npz"):
        format_of("x.keras")
    with pytest.raises(UnsupportedError, match="'npzz'; did you mean npz?"):
        save_checkpoint(from_arrays(OLD), "never", format="npzz")
    with pytest.raises(UnsupportedError, match="there is no tensor to write"):
        save_checkpoint({}, "never")


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


CALLS = ("replace", "link", "unlink", "fsync")


def die_at(monkeypatch, moment, calls=CALLS):
    """From the call number `moment` on, each of the file system's changes fails as if the process were gone."""
    seen = []

    def dying(call, real):
        def wrapped(*args, **options):
            seen.append(call)
            if len(seen) > moment:
                raise Killed
            return real(*args, **options)

        return wrapped

    for call in calls:
        if hasattr(os, call):
            monkeypatch.setattr(placing.os, call, dying(call, getattr(os, call)))
    monkeypatch.setattr(output, "_remove_folder", lambda _: None)
    return seen


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [("v2", "v2"), ("v2-2", "v2"), ("v1", "v2"), ("v2", "v1"), ("npz", "npz")]
)
def test_killed_at_any_step_the_target_is_the_old_checkpoint_or_the_new_one(tmp_path, before, after, links):
    outcomes = []
    for moment in range(60):
        folder = tmp_path / str(moment)
        folder.mkdir()
        format, _, shards = before.partition("-")
        save_checkpoint(from_arrays(OLD), folder / "m", format=format, shards=int(shards or 1) if shards else None)
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, moment)
            if not links:
                patch.setattr(placing, "_links_work", lambda _: False)
            try:
                save_checkpoint(from_arrays(NEW), folder / "m", format=after, force=True)
                finished = True
            except Killed:
                finished = False
        found = values(folder / "m")
        outcomes.append("old" if found == listed(OLD) else "new" if found == listed(NEW) else "broken")
        if finished:
            break
    assert finished
    assert "broken" not in outcomes
    assert outcomes == sorted(outcomes, reverse=True)  # old, old, ..., new, new
    assert {"old", "new"} == set(outcomes)
    save_checkpoint(from_arrays(OLD), folder / "m", format=after, force=True)  # and it can be written again
    assert values(folder / "m") == listed(OLD)


def test_a_reader_would_notice_old_index_and_new_data(tmp_path):
    """The comparison above can fail: this is the state that a careless writer leaves."""
    save_checkpoint(from_arrays(OLD), tmp_path / "m")
    save_checkpoint(from_arrays(NEW), tmp_path / "n")
    (tmp_path / "n.data-00000-of-00001").replace(tmp_path / "m.data-00000-of-00001")
    with pytest.raises(CheckpointError):
        values(tmp_path / "m")


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys, numpy; from ckpt_tools import from_arrays, save_checkpoint\n"
        "tensors = from_arrays({'a': numpy.ones(9)})\n"
        "save_checkpoint(tensors, sys.argv[1], progress=lambda _: os._exit(9))"  # nothing is tidied up
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"])
    assert done.returncode == 9
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {".m.partial"}
    save_checkpoint(from_arrays(OLD), tmp_path / "m")
    assert set(files(tmp_path)) == {"m.index", "m.data-00000-of-00001", "m.provenance.json"}


def test_ctrl_c_leaves_nothing(tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(from_arrays(OLD), tmp_path / "m", progress=interrupt)
    assert not files(tmp_path)


def test_an_error_of_the_disk_while_bringing_it_there_is_said(tmp_path, monkeypatch):
    def failing(_):
        raise OSError(errno.EIO, "I/O error")

    def slow(*given):
        time.sleep(0.2)
        read.append(fingerprints(*given))

    read, fingerprints = [], output.origin.fingerprints
    monkeypatch.setattr(output.origin, "fingerprints", slow)
    monkeypatch.setattr(output.os, "fsync", failing)
    with pytest.raises(OutputError, match="m: cannot be written .Input/output error"):
        save_checkpoint(from_arrays(OLD), tmp_path / "m")
    assert len(read) == 1  # what has a file open has ended: Windows removes no open file
    monkeypatch.undo()
    assert not files(tmp_path)


# --- text files ---


def test_a_text_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    placing.write_text(path, "old")
    placing.write_text(path, "\udcff, the name of a file that is no UTF-8")
    assert path.read_text() == "\\udcff, the name of a file that is no UTF-8"
    placing.write_text(path, "old")
    monkeypatch.setattr(os, "replace", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        placing.write_text(path, "new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_link_to_a_text_file_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there/real.json")
    for text in ("one", "two"):
        placing.write_text(tmp_path / "link.json", text)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there/real.json").read_text() == "two"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device here")
def test_what_is_no_file_is_written_to():
    placing.write_text("/dev/null", "gone")
    assert not Path("/dev/null").is_file()


def test_arrays_are_told_what_makes_tensors_of_them(tmp_path):
    with pytest.raises(TypeError, match="'a' is not a Tensor; from_arrays makes Tensors from arrays"):
        save_checkpoint({"a": np.ones(2)}, tmp_path / "m.ckpt")
    assert not list(tmp_path.iterdir())


def test_masked_values_are_no_values():
    with pytest.raises(UnsupportedError, match=r"masked values cannot be stored. Fill them with .filled\(\)."):
        from_arrays({"a": np.ma.masked_equal([1.0, 2.0], 2)})
    assert from_arrays({"a": np.ma.array([1.0, 2.0])})["a"].load().tolist() == [1, 2]


def test_the_digest_of_a_file_without_values(tmp_path):
    save_checkpoint(from_arrays({"a/w": np.zeros((0, 3), np.float32)}), tmp_path / "m.h5")
    said = json.loads((tmp_path / "m.h5.provenance.json").read_text())["files"]["m.h5"]["sha256"]
    assert said == hashlib.sha256((tmp_path / "m.h5").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["m.h5", "m.safetensors", "m.ckpt"])
def test_a_disk_that_fills_takes_a_part_of_the_last_block_and_then_none(name, tmp_path, monkeypatch):
    real, left = os.write, [3000]  # bytes, of 4,000 of values

    def write(descriptor, block):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(descriptor, block[: left[0]])
        left[0] -= count
        return count

    tensors = from_arrays({"d/kernel": np.arange(1000, dtype=np.float32)})
    with monkeypatch.context() as patched, pytest.raises(OutputError, match="No space left"):
        patched.setattr(os, "write", write)
        save_checkpoint(tensors, tmp_path / name)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "write", lambda descriptor, block: real(descriptor, block[:999]))
    save_checkpoint(tensors, tmp_path / name)
    (written,) = open_checkpoint(tmp_path / name).tensors.values()
    assert (written.load() == np.arange(1000)).all()
