"""The learning-rate finder, on hand-made curves and on the small net."""

import csv

import numpy as np
import pytest
import tiny_net
from telling import lines_to

from ckpt_tools.cli.finetune import main
from ckpt_tools.errors import OutputError, TrainingError
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.rate_finder import FIRST, LAST, find_learning_rate, rate_ramp, smooth, suggested_rate
from ckpt_tools.train.run.run_directory import RunDirectory


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("rates"))


def test_the_ramp_is_exponential():
    rates = np.array(rate_ramp())
    assert (rates[0], rates[-1]) == (FIRST, LAST)
    np.testing.assert_allclose(rates[1:] / rates[:-1], (LAST / FIRST) ** (1 / 99))


def test_a_constant_loss_stays_what_it_is_when_smoothed():
    np.testing.assert_allclose(smooth([3.0] * 9), 3.0)


def test_the_steepest_descent_is_suggested():
    rates = rate_ramp()
    curve = [2 / (1 + (rate / 1e-3) ** 2) + 100 * rate**2 for rate in rates]  # falls around 1e-3, then rises
    assert suggested_rate(rates, curve) == pytest.approx(1e-3, rel=0.3)
    later = [2 / (1 + (rate / 1e-2) ** 2) for rate in rates]
    assert suggested_rate(rates, later) == pytest.approx(1e-2, rel=0.3)


def test_what_falls_after_a_jump_is_not_taken_for_the_descent():
    rates = rate_ramp(7)
    assert suggested_rate(rates, (1.2, 1.2, 1.1, 0.7, 0.5, 0.95, 0.55)) == rates[3]


@pytest.mark.parametrize("curve", [[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [], [1.0]])
def test_where_the_loss_never_falls_nothing_is_suggested(curve):
    with pytest.raises(TrainingError, match="does not fall at any learning rate"):
        suggested_rate(rate_ramp(), curve)


def test_picture_and_figures_and_nothing_else(job, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    argv = ["--exclude", "Logits", "--batch-size", "8", "--device", "cpu", "--optimizer", "momentum"]
    for name in ("net", "checkpoint", "data"):
        argv += [f"--{name}", job[name]]
    assert main([*argv, "--find-learning-rate", str(tmp_path / "rates.png")]) == 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"rates.png", "rates.csv"}
    assert (tmp_path / "rates.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with (tmp_path / "rates.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["learning_rate", "loss", "smoothed_loss"]
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx(rate_ramp()[: len(rates)], rel=1e-5)
    assert 50 < len(rates) <= 100
    suggested = float(capsys.readouterr().out)
    assert 1e-5 < suggested < 1.0
    assert min(abs(np.log(rate / suggested)) for rate in rates) < 0.05  # two digits of one of the rates


def test_a_rate_that_is_suggested_trains_well(job, tmp_path):
    """With it the loss falls in as many steps by more than with a hundredth of it."""
    common = {**job, "optimizer": "momentum", "cache": "off"}
    found = find_learning_rate(Options(**common, find_learning_rate=str(tmp_path / "rates.png")))
    loss = {}
    for name, rate in (("suggested", found.suggestion), ("small", found.suggestion / 100)):
        finetune(Options(**common, learning_rate=rate, train_dir=str(tmp_path / name), steps=18))
        loss[name] = float(RunDirectory(tmp_path / name).metrics()[-1]["loss"])
    assert loss["suggested"] < 0.8 * loss["small"]


def test_the_picture_needs_a_folder(job, tmp_path):
    with pytest.raises(OutputError, match="in a folder that does not exist"):
        find_learning_rate(Options(**job, find_learning_rate=str(tmp_path / "none/rates.png")))


def test_the_picture_takes_the_place_of_nothing_else(job, tmp_path):
    """`--find-learning-rate source.ckpt` wrote a picture over the checkpoint, and rates.csv over anybody's table."""
    (tmp_path / "rates.csv").write_text("mine")
    for path, fact in (
        (job["checkpoint"] + ".index", "exists and is not a picture"),
        (f"{job['data']}/train/cat/0.png", "is among the photos"),
        (str(tmp_path / "rates.png"), "rates.csv: exists, and --find-learning-rate did not write it"),
    ):
        with pytest.raises(OutputError, match=fact):
            find_learning_rate(Options(**{**job, "find_learning_rate": path}))
    with pytest.raises(OutputError, match="is among the photos"):
        how = {"augment": ("flip",), "show_augmentation": f"{job['data']}/train/cat/0.png", "steps": 1}
        finetune(Options(**{**job, **how, "train_dir": str(tmp_path / "run")}))
    assert not (tmp_path / "run").exists()


def test_cached_values_give_the_same_losses(job, tmp_path):
    """Once filling the cache, once without building the net at all, once without the cache."""
    common = {**job, "trainable": ("Logits",), "cache_dir": str(tmp_path / "cache")}
    found, said = [], []
    for number, cache in enumerate(("require", "require", "off")):
        options = Options(**common, cache=cache, find_learning_rate=str(tmp_path / f"{number}.png"))
        found.append(find_learning_rate(options, lines_to(said)))
    assert found[0].losses == found[1].losses
    np.testing.assert_allclose(found[0].losses, found[2].losses, rtol=1e-4)
    there = [line.split(" cached")[0] for line in said if line.startswith("cache")]
    assert there == ["cache          0 of 60 images", "cache          60 of 60 images"]
