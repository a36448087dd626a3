"""Remote sources give the same as files on disk, and only the necessary bytes are downloaded."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from range_server import RangeServer, serving
from test_graphdef import frozen_by_tensorflow_1

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint, verify
from ckpt_tools.errors import CheckpointError, DamagedError, NotACheckpointError, RemoteError, SelectionError
from ckpt_tools.formats import Checkpoint, ranged
from ckpt_tools.formats.opening import split_scope
from ckpt_tools.formats.storage import is_remote
from ckpt_tools.tensors import BLOCK

pytest.importorskip("fsspec.implementations.http")
MB = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "www").mkdir()
    with serving(tmp_path / "www") as server:
        yield server


@pytest.fixture(scope="module")
def golden(GOLDEN: Path) -> Iterator[RangeServer]:
    with serving(GOLDEN) as server:
        yield server


def large(count: int = 24, side: int = 512) -> dict[str, np.ndarray]:
    """24 MB in tensors of 1 MB, with small ones between them."""
    random = np.random.default_rng(1)
    arrays = {f"net/layer_{i:02d}/weights": random.normal(size=(side, side)).astype("float32") for i in range(count)}
    return arrays | {f"net/layer_{i:02d}/biases": np.full(7, i, "float32") for i in range(count)}


def differences(one: Checkpoint, two: Checkpoint) -> list[str]:
    """What differs between two opened sources."""
    if one.tensors.specs() != two.tensors.specs():
        return ["specs"]
    return [name for name in one.tensors if one.tensors[name].load().tolist() != two.tensors[name].load().tolist()]


# --- the same as on disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "tf012_v1/model.ckpt-1234", "tf115_v1_partitioned", "tf221_v1_sharded", "tf115_v2_training", "tf221_object",
        "tf115_v2_training/model.ckpt-2.index", "tf115_v2_training/model.ckpt-2.data-00000-of-00001",
        "tf115_v2_sharded", "tf115_v2_partitioned", "tf115_v2_dtypes", "tf221_saved_model", "tf221_v1_many",
        "torch/state_dict.pth", "torch/state_dict_before_1_6.pth",
    ],
)  # fmt: skip
def test_a_url_is_what_the_file_is(golden: RangeServer, GOLDEN: Path, source: str) -> None:
    here, there = open_checkpoint(GOLDEN / source), open_checkpoint(f"{golden.url}/{source}")
    assert (here.format, len(here.files)) == (there.format, len(there.files))
    assert all(map(is_remote, there.files))
    assert repr(differences(here, there)) == "[]"


def test_the_comparison_can_fail(golden: RangeServer, GOLDEN: Path) -> None:
    here, there = open_checkpoint(GOLDEN / "tf115_v2"), open_checkpoint(f"{golden.url}/tf115_v2_training")
    assert differences(here, there) == ["specs"]
    one = Checkpoint(from_arrays({"a": np.zeros(2)}), "v2", "")
    assert differences(one, Checkpoint(from_arrays({"a": np.ones(2)}), "v2", "")) == ["a"]


@pytest.mark.parametrize("ending", ["npz", "safetensors", "h5"])
def test_other_formats(server: RangeServer, ending: str) -> None:
    pytest.importorskip({"h5": "h5py"}.get(ending, "numpy"))
    save_checkpoint(from_arrays(large()), server.folder / f"m.{ending}", format={"h5": "keras_h5"}.get(ending, ending))
    there = open_checkpoint(f"{server.url}/m.{ending}")
    assert server.sent < MB
    assert differences(open_checkpoint(server.folder / f"m.{ending}"), there) == []


def test_an_hdf5_file_ends_the_process_in_peace(server: RangeServer) -> None:
    """HDF5 crashed when Python ended before the file was closed."""
    pytest.importorskip("h5py")
    save_checkpoint(from_arrays({"dense/kernel": np.ones((3, 2))}), server.folder / "m.h5", format="keras_h5")
    command = [sys.executable, "-m", "ckpt_tools", "inspect", f"{server.url}/m.h5", "--names"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "dense/kernel\n")


def test_archives_come_whole(server: RangeServer, GOLDEN: Path) -> None:
    with tarfile.open(server.folder / "net.tar.gz", "w:gz") as archive:
        archive.add(GOLDEN / "tf012_v1" / "model.ckpt-1234", "net/model.ckpt")
    there = open_checkpoint(f"{server.url}/net.tar.gz")
    assert differences(open_checkpoint(GOLDEN / "tf012_v1" / "model.ckpt-1234"), there) == []


def test_a_graph_comes_whole(server: RangeServer) -> None:
    (server.folder / "graph.pb").write_bytes(b"".join(frozen_by_tensorflow_1()))
    there = open_checkpoint(f"{server.url}/graph.pb")
    assert (there.format, differences(open_checkpoint(server.folder / "graph.pb"), there)) == ("graphdef", [])


def test_a_scope_behind_a_port(golden: RangeServer) -> None:
    url = f"{golden.url}/tf115_v2_training/model.ckpt-2"
    assert split_scope(f"{url}:net") == (url, "net")
    assert split_scope(url) == (url, "")
    assert "weights" in open_checkpoint(f"{url}:net").tensors
    with pytest.raises(SelectionError, match="has no scope 'nett'; did you mean net"):
        open_checkpoint(f"{url}:nett")


def test_an_address_that_was_signed(server: RangeServer) -> None:
    """Nothing can be added to it, so that it is the name of one file: of the whole of its format."""
    save_checkpoint(from_arrays({"a": np.ones(3)}), server.folder / "m.npz", format="npz")
    assert list(open_checkpoint(f"{server.url}/m.npz?signature=abc&expires=1").tensors) == ["a"]
    assert {name.partition("?")[0] for _, name, _ in server.asked} == {"m.npz"}


# --- how much is read ------------------------------------------------------------------------------------------------


def test_listing_reads_the_index_and_nothing_else(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt", shards=2)
    opened = open_checkpoint(f"{server.url}/m.ckpt")
    assert len(opened.tensors.specs()) == 48
    assert server.sent < 2 * (server.folder / "m.ckpt.index").stat().st_size
    assert {name for method, name, _ in server.asked if method == "GET"} == {"m.ckpt.index"}


def test_listing_a_v1_file_reads_its_two_ends(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt", format="v1")
    assert len(open_checkpoint(f"{server.url}/m.ckpt").tensors.specs()) == 48
    assert server.sent < 0.05 * (server.folder / "m.ckpt").stat().st_size


def test_a_data_file_is_not_looked_into(server: RangeServer) -> None:
    """It tells nothing by itself: looking for a graph in it would take all of it."""
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt")
    open_checkpoint(f"{server.url}/m.ckpt.data-00000-of-00001")
    assert "m.ckpt.data-00000-of-00001" not in [name for method, name, _ in server.asked if method == "GET"]
    (server.folder / "m.ckpt.index").unlink()
    server.forget()
    with pytest.raises(NotACheckpointError, match=r"data file of a V2 checkpoint, but its index m\.ckpt\.index"):
        open_checkpoint(f"{server.url}/m.ckpt.data-00000-of-00001")
    assert server.sent < MB


def test_one_tensor_is_one_range(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt")
    tensor = open_checkpoint(f"{server.url}/m.ckpt").tensors["net/layer_17/weights"]
    server.forget()
    tensor.load()
    assert server.sent == tensor.spec.nbytes
    assert [name for _, name, _ in server.asked if name] == ["m.ckpt.data-00000-of-00001"] * len(server.asked)


def test_small_tensors_come_together(server: RangeServer) -> None:
    arrays = {f"v{i:04d}": np.full(500, i, "float32") for i in range(1000)}
    save_checkpoint(from_arrays(arrays), server.folder / "m.ckpt")
    opened = open_checkpoint(f"{server.url}/m.ckpt")
    server.forget()
    assert all(opened.tensors[name].load()[0] == i for i, name in enumerate(arrays))
    assert len(server.asked) < 30
    assert server.sent < 1.2 * 2_000_000


@pytest.mark.parametrize("format", ["v1", "v2"])
def test_a_tensor_larger_than_what_is_kept_comes_in_pieces(server: RangeServer, format: str) -> None:
    array = np.arange(3 * BLOCK // 4 + 5, dtype="float32")
    save_checkpoint(from_arrays({"a": array, "b": array[:9]}), server.folder / "m.ckpt", format=format)
    tensor = open_checkpoint(f"{server.url}/m.ckpt").tensors["a"]
    server.forget()
    blocks = list(tensor.blocks())
    assert np.array_equal(np.concatenate(blocks), array)
    assert max(block.nbytes for block in blocks) <= BLOCK
    assert server.sent < array.nbytes + 100_000
    spans = [span.removeprefix("bytes=").split("-") for _, _, span in server.asked if span]
    assert max(int(end) - int(start) for start, end in spans) < BLOCK


def test_several_threads_read_one_file(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt")
    found = verify(f"{server.url}/m.ckpt", threads=4)
    assert (found.findings, len(found.good)) == ((), 48)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def said(source: str, kind: type[CheckpointError] = RemoteError) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(source)
    return str(caught.value)


def test_nothing_there(golden: RangeServer) -> None:
    url = f"{golden.url}/tf115_v2_training/model.ckpt-3"
    assert said(url, NotACheckpointError).startswith(f"{url}: there is no such file or checkpoint; did you mean")


def test_no_permission(server: RangeServer) -> None:
    server.forbidden = {"m.ckpt", "m.ckpt.index"}
    assert said(f"{server.url}/m.ckpt") == f"{server.url}/m.ckpt: no permission to read it (403 Forbidden)"


def test_names_that_are_not_there_may_be_forbidden(server: RangeServer) -> None:
    """As a bucket answers that may be read but not listed."""
    save_checkpoint(from_arrays({"a": np.ones(3)}), server.folder / "m.npz", format="npz")
    server.forbidden = {"m.npz.index", ""}
    assert list(open_checkpoint(f"{server.url}/m.npz").tensors) == ["a"]


def test_no_ranges(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large()), server.folder / "m.ckpt", format="v1")
    save_checkpoint(from_arrays(large()), server.folder / "v2.ckpt")
    server.ranges = False
    url = f"{server.url}/m.ckpt"
    assert said(url) == (
        f"{url}: the server does not send parts of a file (no range requests), and all of it is more than is needed. "
        f"Download it: curl -LO {url}"
    )
    assert server.sent < 12 * MB  # of 25: what was on its way when nobody wanted it
    assert len(open_checkpoint(f"{server.url}/v2.ckpt").tensors.specs()) == 48  # an index is small


def test_a_file_that_changes_while_it_is_read(server: RangeServer) -> None:
    """Its size, its date: the pieces would not fit together, and a format without checksums would not tell."""
    path = server.folder / "m.safetensors"
    save_checkpoint(from_arrays(large()), path, format="safetensors")
    text = f"{server.url}/m.safetensors: was changed while it was read. Run the command again."
    for day, arrays in enumerate((large(25), large(25))):
        tensors = open_checkpoint(f"{server.url}/m.safetensors").tensors
        save_checkpoint(from_arrays(arrays), path, format="safetensors", force=True)
        os.utime(path, (0, day * 86400))
        with pytest.raises(RemoteError) as caught:
            tensors["net/layer_00/weights"].load()
        assert str(caught.value) == text
    tensors = open_checkpoint(f"{server.url}/m.safetensors").tensors
    path.write_bytes(b"")
    with pytest.raises(RemoteError, match="was changed while it was read"):
        tensors["net/layer_00/weights"].load()


def test_no_server(server: RangeServer) -> None:
    server.server_close()
    assert "m.ckpt.index: cannot be read (Cannot connect to host 127.0.0.1:" in said(f"{server.url}/m.ckpt")


def test_a_request_that_breaks_off_is_made_again(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "_WAITS", (0.0, 0.0))
    arrays = large(2)
    save_checkpoint(from_arrays(arrays), server.folder / "m.ckpt")
    tensors = open_checkpoint(f"{server.url}/m.ckpt").tensors
    server.breaks = 2
    assert np.array_equal(tensors["net/layer_00/weights"].load(), arrays["net/layer_00/weights"])
    server.breaks = 3
    with pytest.raises(RemoteError, match=r"m\.ckpt\.data-00000-of-00001: tensor .*: cannot be read"):
        tensors["net/layer_01/weights"].load()


@pytest.mark.parametrize(("url", "package"), [("az://b/m", "adlfs"), ("http://b/m", "ckpt-tools[remote]")])
def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    hidden = {"az": "adlfs", "http": "fsspec.implementations.http"}[url.partition(":")[0]]
    monkeypatch.setitem(sys.modules, hidden, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})
    text = said(url)
    assert text.startswith(f"{url}: {url.partition(':')[0]}:// is read by a library that is not installed (")
    assert text.endswith(f'pip install "{package}"')


def test_fsspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert said("s3://b/m").endswith('pip install "ckpt-tools[remote]"')


def test_a_scheme_that_nobody_knows() -> None:
    assert said("sj://b/m") == "sj://b/m: cannot be opened (Protocol not known: sj)"


def test_wrong_bytes_are_found(server: RangeServer) -> None:
    save_checkpoint(from_arrays(large(2)), server.folder / "m.ckpt")
    data = server.folder / "m.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    opened = open_checkpoint(f"{server.url}/m.ckpt")
    with pytest.raises(DamagedError, match=r"127.0.0.1:\d+/m\.ckpt\.data-00000-of-00001: tensor .*: the checksum"):
        opened.tensors["net/layer_00/weights"].load()
    assert [finding.tensor for finding in verify(f"{server.url}/m.ckpt").findings] == ["net/layer_00/weights"]


def test_files_that_are_no_checkpoints_are_not_downloaded_to_say_so(server: RangeServer) -> None:
    (server.folder / "weights.bin").write_bytes(np.random.default_rng(2).bytes(3 * MB))
    (server.folder / "page").write_text("<!DOCTYPE html><html>log in</html>")
    assert "is none of the kinds of file that are known" in said(f"{server.url}/weights.bin", NotACheckpointError)
    assert server.sent < MB
    assert "is an HTML page, not a checkpoint" in said(f"{server.url}/page", NotACheckpointError)


def test_a_state_file_names_nothing_elsewhere(server: RangeServer, tmp_path: Path) -> None:
    """Neither a file of this machine from a server, nor an address from a folder of this machine."""
    save_checkpoint(from_arrays({"mine": np.ones(3)}), tmp_path / "m.ckpt")
    (server.folder / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/m.ckpt"\n')
    assert "which is not there" in said(f"{server.url}/checkpoint", NotACheckpointError)
    save_checkpoint(from_arrays({"theirs": np.ones(3)}), server.folder / "m.ckpt")
    assert list(open_checkpoint(f"{server.url}/checkpoint").tensors) == ["theirs"]
    server.forget()
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{server.url}/m.ckpt"\n')
    assert list(open_checkpoint(tmp_path / "checkpoint").tensors) == ["mine"]
    assert server.asked == []


# --- what it costs those who need none of it --------------------------------------------------------------------------


def test_local_files_import_none_of_it(GOLDEN: Path) -> None:
    code = (
        "import sys, json; from ckpt_tools.cli.inspect import main; "
        f"main([{str(GOLDEN / 'tf115_v2')!r}, '--names']); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not {"fsspec", "aiohttp", "asyncio", "numpy", "ckpt_tools.formats.remote"} & set(loaded)


def test_a_reader_is_a_file(server: RangeServer) -> None:
    content = bytes(range(256)) * 1000
    (server.folder / "f").write_bytes(content)
    ours, plain = ranged.RangedReader(f"{server.url}/f"), io.BytesIO(content)
    for offset, whence, size in [(0, 0, 10), (-20, 2, 50), (5, 0, 100_000), (7, 1, 1), (0, 2, 5), (255_000, 0, 9999)]:
        assert ours.seek(offset, whence) == plain.seek(offset, whence)
        assert ours.read(size) == plain.read(size)
        assert ours.tell() == plain.tell()
    with pytest.raises(ValueError, match="negative position -1"):
        ours.seek(-1)
