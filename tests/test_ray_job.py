"""Transfer values computed by Ray on a local cluster are the same as without it."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")
pytest.importorskip("fsspec.implementations.http")
tf = pytest.importorskip("tensorflow")

from PIL import Image  # noqa: E402
from range_server import serving  # noqa: E402
from test_data import write_records  # noqa: E402

from ckpt_tools import from_arrays, save_checkpoint  # noqa: E402
from ckpt_tools.cli import features as command  # noqa: E402
from ckpt_tools.errors import DataError, RecipeError, UnsupportedError  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set  # noqa: E402
from ckpt_tools.train.use import ray_job  # noqa: E402
from ckpt_tools.train.use.feature_files import Features, read_features  # noqa: E402
from ckpt_tools.train.use.features import FeatureOptions, write_features  # noqa: E402
from ckpt_tools.train.use.ray_job import write_on_ray  # noqa: E402

MARK = f"CKPT_TOOLS_TEST={os.getpid()}"  # in the environment of our processes of Ray
COUNTS = {"train-00000-of-00002": 7, "train-00001-of-00002": 6, "validation-00000-of-00001": 5}


def photo(number: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with m.ckpt, and records of three classes, of which no file has all."""
    root = tmp_path_factory.mktemp("ray")
    random = np.random.default_rng(0)
    variables = get_net("resnet_v1_14").variables(4)
    arrays = {}
    for name, spec in ((each.name, each.spec) for each in variables):
        fan_in = np.prod(spec.shape[:-1]) if len(spec.shape) > 1 else 100
        arrays[name] = random.normal(0, np.sqrt(2 / fan_in), spec.shape).astype("float32")
        if name.endswith(("gamma", "variance")):
            arrays[name] = np.abs(arrays[name]) + 1
    save_checkpoint(from_arrays(arrays), root / "m.ckpt")
    (root / "records").mkdir()
    (root / "records" / "labels.txt").write_text("cat\ndog\nfrog\n")
    for part, (name, count) in enumerate(COUNTS.items()):
        examples = [(photo(10 * part + i), (part + i % 2) % 3) for i in range(count)]
        write_records(root / "records" / f"{name}.tfrecord", examples)
    return root


def options(home: Path, data: str, output: Path, **more: object) -> FeatureOptions:
    return FeatureOptions(
        checkpoint=more.pop("checkpoint", str(home / "m.ckpt")), data=data, output=str(output), image_size=32,
        batch_size=4, precision="float32", **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(home: Path) -> Features:
    return write_features(options(home, str(home / "records"), home / "whole"))[1]


def by_name(features: Features) -> dict[str, tuple]:
    rows = zip(features.names, features.split, features.label_ids.tolist(), features.values, strict=True)
    return {name: (split, features.labels[label], values) for name, split, label, values in rows}


def differences(one: Features, two: Features) -> list[str]:
    """Names of the images that only one has, or whose split, label or values differ."""
    here, there = by_name(one), by_name(two)

    def same(name: str) -> bool:
        return here[name][:2] == there[name][:2] and np.allclose(here[name][2], there[name][2], rtol=1e-4, atol=1e-5)

    return sorted(here.keys() ^ there.keys()) + [name for name in here if name in there and not same(name)]


def start_killer(killed: list[int]) -> None:
    """Kills the first process of Ray that is at work on a part, and adds its number to `killed`."""

    def watch() -> None:
        while not killed:
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words, environment = entry.read_bytes(), (entry.parent / "environ").read_bytes()
                except OSError:
                    continue
                if words.startswith(b"ray::features_of") and MARK.encode() in environment:
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    killed.append(int(entry.parent.name))
                    return
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()


def test_records_behind_a_url_and_a_killed_worker(
    home: Path, whole: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*MARK.split("="))
    lines, killed = [], []
    with serving(home) as server:
        asked = options(home, f"{server.url}/records", tmp_path / "f", checkpoint=f"{server.url}/m.ckpt")
        start_killer(killed)
        prefix, merged = write_on_ray(asked, "local", lines.append)
        assert len(killed) == 1
        assert differences(merged, whole) == []
        assert merged.facts["data"] == f"{server.url}/records"
        assert sorted(lines)[-1] == "parts          3"
        fetched = [name for method, name, _ in server.asked if method == "GET" and name.endswith(".tfrecord")]
        assert set(fetched) == {f"records/{name}.tfrecord" for name in COUNTS}

        # What is there is not computed again: the values of one part are, here and not on a second cluster.
        monkeypatch.setattr(
            ray_job, "computed", lambda parts, address: ((number, ray_job.features_of(part)) for number, part in parts)
        )
        (tmp_path / "f-00001-of-00003.npz").unlink()
        server.forget()
        lines.clear()
        _, again = write_on_ray(asked, "local", lines.append)
        assert lines == ["parts          3, of which 2 are there", "part           f-00001-of-00003: 6 images"]
        assert {name for _, name, _ in server.asked if name.endswith(".tfrecord")} == {
            "records/train-00001-of-00002.tfrecord"
        }
        assert differences(again, whole) == []
    data = load_data_set(f"{prefix}.npz")
    assert (len(data.train), len(data.validation), data.labels) == (13, 5, ("cat", "dog", "frog"))


@pytest.mark.slow
def test_shares_of_a_data_set_on_disk(home: Path, whole: Features, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    """By the command; the parts are those of `ckpt-features --shard`."""
    words = ["--checkpoint", str(home / "m.ckpt"), "--data", str(home / "records"), "--image-size", "32"]
    assert command.main([*words, "--output", str(tmp_path / "f"), "--shards", "2", "--ray", "local"]) == 0
    assert capsys.readouterr().out.startswith("18 images, 512 values each, features of resnet_v1_14\n")
    merged = read_features(str(tmp_path / "f"))
    assert (differences(merged, whole), merged.names) == ([], whole.names)
    lone = write_features(options(home, str(home / "records"), tmp_path / "lone", shards=2, shard=1))[1]
    assert read_features(str(tmp_path / "f-00001-of-00002")).names == lone.names


def test_the_comparison_can_fail(home: Path, whole: Features) -> None:
    assert differences(whole, read_features(str(home / "whole"))) == []
    assert differences(whole, replace(whole, values=np.roll(whole.values, 1, axis=0))) == list(whole.names)
    assert differences(whole, replace(whole, split=("test",) * len(whole.names))) == list(whole.names)
    assert len(differences(whole, replace(whole, names=("a", *whole.names[1:])))) == 2


@pytest.mark.slow
def test_an_error_of_a_task_is_that_of_one_machine(home: Path, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    words = ["--checkpoint", str(home / "m.ckpt"), "--data", str(home / "records"), "--end-point", "block9"]
    assert command.main([*words, "--output", str(tmp_path / "f"), "--ray", "local"]) == 2
    assert "no end point 'block9'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_before_any_work(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(home) as server:
        (home / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="/empty: there are no record files. Give a folder that the server lists"):
            write_on_ray(options(home, f"{server.url}/empty", tmp_path / "f"), "local")
        (home / "bare").mkdir(exist_ok=True)
        (home / "bare" / "x.tfrecord").write_bytes(b"")
        with pytest.raises(DataError, match=r"/bare: there is no labels\.txt next to the records"):
            write_on_ray(options(home, f"{server.url}/bare", tmp_path / "f"), "local")
        with pytest.raises(RecipeError, match="with a URL, each record file is a part"):
            write_on_ray(options(home, f"{server.url}/records", tmp_path / "f", shards=2), "local")
        with pytest.raises(RecipeError, match="--shard and --ray cannot be combined"):
            write_on_ray(options(home, str(home / "records"), tmp_path / "f", shards=2, shard=1), "local")
    with pytest.raises(UnsupportedError, match=r"--ray 127.0.0.1:1: no cluster answers"):
        write_on_ray(options(home, str(home / "records"), tmp_path / "f"), "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r'--ray needs Ray\. pip install "ckpt-tools\[ray\]"'):
        write_on_ray(options(home, str(home / "records"), tmp_path / "f"), "local")
