"""--dry-run: the costs of a run are measured on a few batches, and nothing is written."""

import json
from pathlib import Path

import pytest
import tiny_net
from telling import lines_to

from ckpt_tools.cli import features as features_command
from ckpt_tools.cli import finetune as finetune_command
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.dry_run import dry_run
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.use import costs
from ckpt_tools.train.use.costs import Costs, Pace, duration, pace
from ckpt_tools.train.use.features import FeatureOptions, write_features
from ckpt_tools.train.use.features import dry_run as features_dry_run


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("costs"), trainable=("Logits",), epochs=4)


def files(folder):
    return sorted(str(path) for path in Path(folder).rglob("*"))


# --- what is measured ----------------------------------------------------------------------------------------------


def test_the_pace_leaves_out_the_first_batches(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(costs.time, "monotonic", lambda: now[0])

    def batches(seconds):
        for each in seconds:
            now[0] += each
            yield 10

    assert pace(batches([5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 9.0])) == pytest.approx(10.0)
    assert pace(batches([5.0, 5.0, 30.0, 1.0])) == pytest.approx(1 / 3)  # slow: one is enough
    assert pace(batches([4.0])) == pytest.approx(2.5)  # there are no others
    assert pace(batches([0.0])) > 0


def test_a_run_on_transfer_values(job, tmp_path):
    before, said = files(Path(job["data"]).parent), []
    found = dry_run(Options(**job, dry_run=True), lines_to(said))
    assert files(Path(job["data"]).parent) == before  # neither a cache nor a run
    assert any(line.startswith("net ") for line in said)
    assert {what: each.images for what, each in found.paces.items()} == {
        "features": 60,
        "training": 168,
        "evaluation": 90,  # after each of four epochs, and for the report
    }
    assert found.disk["features"] == 60 * 16 * 4
    assert found.seconds == pytest.approx(sum(each.seconds for each in found.paces.values()))
    assert found.memory > 50e6
    assert found.gpu_memory is None

    finetune(Options(**job, train_dir=str(tmp_path / "run"), save_steps=3))
    kept = [path for path in (tmp_path / "run").glob("*.ckpt*") if not path.name.endswith(".json")]
    written = sum(path.stat().st_size for path in kept)
    assert found.disk["checkpoints"] == pytest.approx(written, rel=0.25)
    again = dry_run(Options(**job, dry_run=True))  # all values are there now
    assert again.paces.keys() == {"training", "evaluation"}
    assert again.disk["features"] == 0


@pytest.mark.parametrize("more", [{"cache": "off"}, {"trainable": ("Conv_3,Logits",), "devices": "2"}])
def test_a_run_on_photos_and_one_on_two_devices(job, tmp_path, more):
    options = {**job, **more, "cache_dir": str(tmp_path / "cache"), "eval_steps": 8}
    found = dry_run(Options(**options, dry_run=True))
    wanted = {"training": 168, "evaluation": 18 * 4}  # 24 steps
    assert {what: each.images for what, each in found.paces.items() if what in wanted} == wanted
    assert ("features" in found.paces) == ("devices" in more)
    assert not (tmp_path / "cache").exists()


def test_features(job, tmp_path):
    options = {"checkpoint": job["checkpoint"], "net": "tiny", "data": job["data"], "device": "cpu"}
    found = features_dry_run(FeatureOptions(**options, dry_run=True, batch_size=8))
    assert found.paces["features"].images == 60
    write_features(FeatureOptions(**options, output=str(tmp_path / "f")))
    assert found.disk[".npy and .npz"] == 2 * 60 * 16 * 4
    assert (tmp_path / "f.npy").stat().st_size == 60 * 16 * 4 + 128  # NumPy's header


# --- what is printed -----------------------------------------------------------------------------------------------


def test_lines():
    paces = {"features": Pace(1400, 36.0), "training": Pace(10_000, 40_000.0)}
    found = Costs(paces, {"features": 11_500_000, "checkpoints": 0}, memory=2_100_000_000, gpu_memory=None)
    assert found.lines() == [
        "features       1,400 images, 36.0 images/s: 39 s",
        "training       10,000 images, 40,000.0 images/s: 0.2 s",
        "in total       39 s, without start-up, saving and the report",
        "memory         2.1 GB",
        "disk           11.5 MB for features",
    ]
    assert duration(7300) == "2:01:40 h"


def test_commands(job, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--checkpoint", job["checkpoint"], "--net", "tiny", "--data", job["data"], "--device", "cpu", "--dry-run"]
    assert finetune_command.main([*common, "--exclude", "Logits", "--trainable", "Logits", "--cache-dir", "c"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["features", "training", "evaluation", "in", "memory", "disk", "disk"]
    assert features_command.main([*common, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"paces", "disk", "memory", "gpu_memory", "seconds"}
    assert found["paces"]["features"].keys() == {"images", "images_per_second", "seconds"}
    assert files(tmp_path) == []
