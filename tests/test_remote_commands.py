"""The commands on remote sources: the same results as from disk, written locally."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from range_server import RangeServer, serving

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.cli import convert, diff, edit, inspect, plan, verify
from ckpt_tools.errors import DataError
from ckpt_tools.formats.elements import encode
from ckpt_tools.train.data.loading import load_data_set

pytest.importorskip("fsspec.implementations.http")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """A checkpoint in two shards with a text, an optimizer's slot, and a tensor of 24 MB."""
    (tmp_path / "www").mkdir()
    random = np.random.default_rng(3)
    arrays = {
        "net/large": random.normal(size=(6, 1 << 20)).astype("float32"),
        "net/weights": random.normal(size=(40, 5)).astype("float32"),
        "net/weights/Adam": random.normal(size=(40, 5)).astype("float32"),
        "net/flags": np.array([True, False]),
        "net/words": np.array(["one", "zwei"]),
    }
    save_checkpoint(from_arrays(arrays), tmp_path / "www" / "m.ckpt", shards=2)
    with serving(tmp_path / "www") as server:
        yield server


def contents(prefix: Path) -> dict[str, bytes]:
    """Index and data files of a checkpoint, by what follows the prefix."""
    return {
        path.name.removeprefix(prefix.name): path.read_bytes()
        for path in prefix.parent.glob(f"{prefix.name}.*")
        if not path.name.endswith(".json")
    }


OPERATIONS = [
    ["--rename", "net=model"],
    ["--strip", "optimizer"],
    ["--cast", "float16"],
    ["--keep", "weights", "--format", "v1"],
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda words: words[0])
def test_an_edit_is_byte_for_byte_the_one_from_disk(server: RangeServer, tmp_path: Path, operation: list[str]) -> None:
    assert edit.main([str(server.folder / "m.ckpt"), "-o", str(tmp_path / "here.ckpt"), *operation]) == 0
    assert edit.main([f"{server.url}/m.ckpt", "-o", str(tmp_path / "there.ckpt"), *operation]) == 0
    here, there = contents(tmp_path / "here.ckpt"), contents(tmp_path / "there.ckpt")
    assert here == there
    assert here or (tmp_path / "here.ckpt").read_bytes() == (tmp_path / "there.ckpt").read_bytes()


def test_the_sidecar_says_where_it_comes_from(server: RangeServer, tmp_path: Path) -> None:
    url = f"{server.url}/m.ckpt"
    assert edit.main([url, "-o", str(tmp_path / "made.ckpt"), "--strip", "optimizer"]) == 0
    record = json.loads((tmp_path / "made.ckpt.provenance.json").read_text())
    assert record["source"]["path"] == url
    assert sorted(record["source"]["files"]) == sorted(path.name for path in server.folder.glob("m.ckpt.[id]*"))
    assert set(record["source"]["files"]["m.ckpt.index"]) == {"bytes", "sha256"}


def test_what_is_dropped_is_not_downloaded(server: RangeServer, tmp_path: Path) -> None:
    assert edit.main([f"{server.url}/m.ckpt", "-o", str(tmp_path / "made.ckpt"), "--drop", "large"]) == 0
    assert server.sent < 500_000


def test_damage_stops_an_edit(server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A copy from disk takes the bytes with their checksum; what comes from elsewhere is checked first."""
    data = server.folder / "m.ckpt.data-00000-of-00002"
    content = bytearray(data.read_bytes())
    content[-50] ^= 1
    data.write_bytes(content)
    assert edit.main([f"{server.url}/m.ckpt", "-o", str(tmp_path / "made.ckpt"), "--rename", "net=model"]) == 2
    assert "the checksum of its bytes differs" in capsys.readouterr().err
    assert list(tmp_path.glob("*made*")) == []


@pytest.mark.parametrize("ending", ["safetensors", "npz", "v1"])
def test_conversions(server: RangeServer, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture) -> None:
    source, target = f"{server.url}/m.ckpt", str(tmp_path / f"m.{ending}")
    edit.main([source, "-o", str(server.folder / "plain.ckpt"), "--drop", "words"])
    assert convert.main([f"{server.url}/plain.ckpt", target, *(["--format", "v1"] if ending == "v1" else [])]) == 0
    capsys.readouterr()
    assert diff.main([f"{server.url}/plain.ckpt", target]) == 0
    assert capsys.readouterr().out == "4 tensors and 4 tensors: 4 the same\n"


def peak_of(work: Callable[..., object], *arguments: object) -> int:
    """Bytes of memory that Python and numpy took at most while they worked."""
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_stays_flat(server: RangeServer, tmp_path: Path) -> None:
    """A tensor of 96 MB goes through in pieces, whichever way its values come and go."""
    tensors = from_arrays({"a": np.arange(24 << 20, dtype="float32"), "b": np.ones(5)})
    for format in ("v1", "v2"):
        save_checkpoint(tensors, server.folder / format, format=format)
    peaks = [
        peak_of(convert.main, [f"{server.url}/{source}", str(tmp_path / f"{source}.{format}"), "--format", format])
        for source, format in (("v1", "v2"), ("v2", "v1"), ("v2", "v2"))
    ]
    peaks += [peak_of(verify.main, [f"{server.url}/v2"]), peak_of(inspect.main, [f"{server.url}/v2", "--stats"])]
    assert max(peaks) < 40 << 20, peaks
    assert diff.main([str(tmp_path / "v1.v2"), str(tmp_path / "v2.v2")]) == 0
    array = open_checkpoint(f"{server.url}/v2").tensors["a"].load()
    assert peak_of(array.copy) >= array.nbytes > 64 << 20  # what is measured would show a copy of it


def test_differences_are_told_by_checksums(server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert diff.main([f"{server.url}/m.ckpt", str(server.folder / "m.ckpt")]) == 0
    assert server.sent < 50_000
    tensors = dict(open_checkpoint(server.folder / "m.ckpt").tensors)
    changed = tensors["net/weights"].load() + 1
    save_checkpoint({**tensors, **from_arrays({"net/weights": changed})}, tmp_path / "other.ckpt")
    capsys.readouterr()
    assert diff.main([f"{server.url}/m.ckpt", str(tmp_path / "other.ckpt")]) == 1
    assert "5 tensors and 5 tensors: 4 the same, 1 with other values" in capsys.readouterr().out
    assert server.sent < 200_000


def test_verify_and_salvage(server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify.main([f"{server.url}/m.ckpt"]) == 0
    assert capsys.readouterr().out.endswith("/m.ckpt: 5 tensors, 25.2 MB: all is well\n")
    (server.folder / "m.ckpt.data-00000-of-00002").unlink()
    assert verify.main([f"{server.url}/m.ckpt", "--salvage", str(tmp_path / "saved.ckpt")]) == 1
    assert "is missing; the tensors in it are lost" in capsys.readouterr().out
    assert 0 < len(open_checkpoint(tmp_path / "saved.ckpt").tensors) < 5


def test_a_server_without_ranges_says_nothing_of_the_values(server: RangeServer, capsys: pytest.CaptureFixture) -> None:
    server.ranges = False
    assert verify.main([f"{server.url}/m.ckpt"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "the server does not send parts of a file" in err


def test_links_become_copies(server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert convert.main([f"{server.url}/m.ckpt", str(tmp_path / "made.ckpt"), "--format", "v2", "--link"]) == 0
    assert "no data file could be linked: the data was copied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (edit, ["{here}", "--strip", "optimizer", "-o", "s3://bucket/m.ckpt"]),
        (convert, ["{here}", "s3://bucket/m.ckpt"]),
        (convert, ["{here}", "s3://bucket/m.ckpt", "--dry-run"]),
        (verify, ["{here}", "--salvage", "s3://bucket/m.ckpt"]),
        (inspect, ["{here}", "--html", "s3://bucket/m.html"]),
    ],
)
def test_nothing_is_written_elsewhere(server: RangeServer, command, words: list[str], capsys) -> None:  # noqa: ANN001
    assert command.main([word.format(here=server.folder / "m.ckpt") for word in words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is a URL, and files are written to folders of this machine only. Write them here, then copy all" in error


def test_inspect_shows_values_and_scopes(server: RangeServer, capsys: pytest.CaptureFixture) -> None:
    assert inspect.main([f"{server.url}/m.ckpt:net", "--tensor", "words"]) == 0
    assert capsys.readouterr().out == "words: string[2]\n[b'one', b'zwei']\n"
    assert inspect.main([f"{server.url}/m.ckpt", "--stats", "--sort", "file", "--scope", "weights"]) == 0
    assert capsys.readouterr().out.startswith(f"{server.url}/m.ckpt: V2 checkpoint in 2 shards, 5 tensors")


def test_a_plan_needs_headers_only(GOLDEN: Path, capsys: pytest.CaptureFixture) -> None:
    with serving(GOLDEN) as server:
        words = ["--num-classes", "5", "--exclude", "Logits", "--net", "inception_v3"]
        source = next((GOLDEN / "tf115_v2_inception_v3_thin").glob("*.index")).relative_to(GOLDEN)
        local = plan.main([str(GOLDEN / source), *words])
        shown = capsys.readouterr().out
        assert plan.main([f"{server.url}/{source}", *words]) == local
        assert capsys.readouterr().out == shown
        assert [name for method, name, _ in server.asked if method == "GET" and ".data-" in name] == []


def test_texts_are_the_same_bytes(server: RangeServer, tmp_path: Path) -> None:
    """The bytes of what comes from elsewhere are made anew: as TensorFlow makes them."""
    there = open_checkpoint(f"{server.url}/m.ckpt").tensors["net/words"]
    parts, crc = encode(there.load(), "string")
    assert (sum(map(len, parts)), crc) == (there.stored.size, there.stored.crc32c)


def test_a_net_is_trained_from_a_url(tmp_path: Path) -> None:
    """And the run goes on by the same command: plan, audit and record have the address as it was given."""
    pytest.importorskip("tensorflow")
    import tiny_net

    from ckpt_tools.train.options.training import Options
    from ckpt_tools.train.run.finetune import finetune

    job = tiny_net.write_job(tmp_path, trainable=("Logits",), train_dir=str(tmp_path / "here"), steps=6)
    finetune(Options(**job))
    with serving(tmp_path) as server:
        job |= {"checkpoint": f"{server.url}/source.ckpt", "train_dir": str(tmp_path / "there")}
        finetune(Options(**{**job, "steps": 3}))
        finetune(Options(**job))
    assert (tmp_path / "there" / "config.yaml").read_text().count(job["checkpoint"]) == 1
    one, two = (dict(open_checkpoint(tmp_path / name / "model.ckpt-6").tensors) for name in ("here", "there"))
    assert [name for name in one if not np.array_equal(one[name].load(), two[name].load())] == []


def test_a_run_fetches_a_tensor_once(server: RangeServer, tmp_path: Path) -> None:
    """It restores, compares, writes and audits it; of a source on disk it keeps nothing."""
    import tiny_net

    from ckpt_tools.train.options.training import Options
    from ckpt_tools.train.plan.job import make_job

    name, size = "Tiny/Conv_1/weights", 9 << 20
    job = tiny_net.write_job(tmp_path, trainable=("Logits",), train_dir=str(tmp_path / "run"))
    tensors = {**open_checkpoint(job["checkpoint"]).tensors, **from_arrays({"a": np.zeros(size // 4, "float32")})}
    save_checkpoint(tensors, server.folder / "tiny.ckpt")
    source = make_job(Options(**{**job, "checkpoint": f"{server.url}/tiny.ckpt"})).source
    server.forget()
    assert source.tensors["a"].load() is source.tensors["a"].load()
    assert np.array_equal(source.tensors[name].load(), tensors[name].load())
    assert size <= server.sent < size + 100_000
    plain = open_checkpoint(f"{server.url}/tiny.ckpt").tensors["a"]
    server.forget()
    plain.load()
    plain.load()
    assert server.sent > 1.5 * size


def test_photos_behind_a_url_are_refused() -> None:
    with pytest.raises(DataError, match=r"^s3://bucket/photos: is a URL, and images are read from this machine\. Copy"):
        load_data_set("s3://bucket/photos")
