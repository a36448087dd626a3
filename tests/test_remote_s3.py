"""S3 buckets behave like folders, on a server that speaks S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli import diff, edit, inspect
from ckpt_tools.errors import NotACheckpointError, RemoteError
from ckpt_tools.formats import remote

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

ARRAYS = {
    "net/large": np.random.default_rng(4).normal(size=(3, 1 << 20)).astype("float32"),
    "net/weights": np.ones((40, 5), "float32"),
    "net/words": np.array(["one", "zwei"]),
}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a checkpoint, which lies in s3://models/run too."""
    import s3fs
    from fsspec.config import conf

    folder = tmp_path_factory.mktemp("bucket")
    save_checkpoint(from_arrays(ARRAYS), folder / "m.ckpt")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/home/user/run/m.ckpt"\n')
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    conf["s3"] = {"endpoint_url": f"http://{host}:{port}", "key": "key", "secret": "secret"}
    system = s3fs.S3FileSystem()
    system.mkdir("models")
    for file in folder.iterdir():
        system.put_file(str(file), f"models/run/{file.name}")
    yield folder
    del conf["s3"]
    running.stop()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every answer."""
    sizes: list[int] = []
    plain = remote.read_range

    def counted(*arguments) -> bytes:  # noqa: ANN002
        data = plain(*arguments)
        sizes.append(len(data))
        return data

    monkeypatch.setattr("ckpt_tools.formats.ranged.read_range", counted)
    return sizes


@pytest.mark.parametrize("source", ["s3://models/run/m.ckpt", "s3://models/run/m.ckpt.index", "s3://models/run"])
def test_a_bucket_is_what_the_folder_is(bucket: Path, read: list[int], source: str) -> None:
    here, there = open_checkpoint(bucket / "m.ckpt"), open_checkpoint(source)
    assert there.tensors.specs() == here.tensors.specs()
    assert there.path == "s3://models/run/m.ckpt"
    assert sum(read) < 2000  # the index and the state file
    assert all(np.array_equal(there.tensors[name].load(), here.tensors[name].load()) for name in here.tensors)


def test_one_tensor_is_read_and_nothing_else(bucket: Path, read: list[int]) -> None:
    tensor = open_checkpoint("s3://models/run/m.ckpt").tensors["net/large"]
    read.clear()
    tensor.load()
    assert (sum(read), len(read)) == (tensor.spec.nbytes, 2)  # of 8 MB at most


def test_commands(bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert inspect.main(["s3://models/run/m.ckpt", "--names"]) == 0
    assert capsys.readouterr().out.split() == list(ARRAYS)
    assert edit.main(["s3://models/run/m.ckpt", "-o", str(tmp_path / "made.ckpt"), "--rename", "net=model"]) == 0
    assert edit.main([str(bucket / "m.ckpt"), "-o", str(tmp_path / "here.ckpt"), "--rename", "net=model"]) == 0
    for ending in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"made.ckpt{ending}").read_bytes() == (tmp_path / f"here.ckpt{ending}").read_bytes()
    assert diff.main(["s3://models/run/m.ckpt", str(bucket / "m.ckpt")]) == 0


def test_an_object_that_is_written_anew_while_it_is_read(bucket: Path) -> None:
    import s3fs

    system = s3fs.S3FileSystem()
    save_checkpoint(from_arrays(ARRAYS), bucket / "other.ckpt")
    data = "other.ckpt.data-00000-of-00001"
    for name in ("other.ckpt.index", data):
        system.put_file(str(bucket / name), f"models/run/{name}")
    tensors = open_checkpoint("s3://models/run/other.ckpt").tensors
    assert tensors["net/weights"].load()[0, 0] == 1
    content = bytearray((bucket / data).read_bytes())
    content[5] ^= 1
    system.pipe_file(f"models/run/{data}", bytes(content))
    with pytest.raises(RemoteError, match=r"net/large: was changed while it was read\. Run the command again"):
        tensors["net/large"].load()


def test_what_is_not_there(bucket: Path) -> None:
    with pytest.raises(NotACheckpointError, match=r"s3://models/run/n\.ckpt: there is no such file or checkpoint"):
        open_checkpoint("s3://models/run/n.ckpt")
    with pytest.raises(RemoteError, match=r"s3://modells/run/m\.ckpt\.index: there is no such bucket"):
        open_checkpoint("s3://modells/run/m.ckpt")


def test_without_credentials(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", {"endpoint_url": conf["s3"]["endpoint_url"]})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(RemoteError) as caught:
        open_checkpoint("s3://models/run/m.ckpt")
    assert str(caught.value) == (
        "s3://models/run/m.ckpt: no permission to read it (Unable to locate credentials). "
        "Give credentials (aws configure); for a public bucket: export FSSPEC_S3_ANON=true"
    )
