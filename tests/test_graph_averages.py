"""--moving-averages on nets of graphs, whether their saver restores the weights or their averages."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_net

tf = pytest.importorskip("tensorflow").compat.v1
from graph_styles import SIDE, Style, building, net, slim_norm  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import evaluate, finetune  # noqa: E402
from ckpt_tools.formats.graph_file import read_graph  # noqa: E402
from ckpt_tools.graphs.analysis import analyse  # noqa: E402
from ckpt_tools.nets.from_graph import net_from, open_graph  # noqa: E402
from ckpt_tools.train.use.classifier import SourceOptions, load_classifier  # noqa: E402

STYLE = Style(slim_norm(fused=True))
AVERAGE = "/ExponentialMovingAverage"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with weights and averages; beside it the graph that trained, in eval/ the one that evaluates."""
    folder = tmp_path_factory.mktemp("averages")
    (folder / "eval").mkdir()
    with building(STYLE), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        tf.nn.softmax(net(STYLE, images, True))
        average = tf.train.ExponentialMovingAverage(0.9)
        average.apply(tf.trainable_variables())
        random = np.random.default_rng(0)
        for variable in tf.global_variables():
            variable.load(random.uniform(0.1, 1, variable.shape.as_list()).astype("float32"), session)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_state=False)
    with building(STYLE):
        images = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "images")
        tf.nn.softmax(net(STYLE, images, False))
        restored = tf.train.ExponentialMovingAverage(0.9).variables_to_restore()
        tf.train.Saver(restored).export_meta_graph(str(folder / "eval/model.ckpt.meta"))
    for path in folder.glob("model.ckpt.[id]*"):
        shutil.copy(path, folder / "eval")
    tiny_net.write_photos(folder / "photos", train=6, validation=2)
    return folder


def weights_of(source: Path, averages: bool) -> dict[str, np.ndarray]:
    found = load_classifier(SourceOptions(checkpoint=str(source), preprocessing="unit", moving_averages=averages))
    return {name.removesuffix(AVERAGE): tensor.load() for name, tensor in found.tensors.items()}


def test_averages_take_the_place_of_the_weights(files: Path) -> None:
    source = open_checkpoint(files / "model.ckpt").tensors
    weights, averages = (weights_of(files / "model.ckpt", asked) for asked in (False, True))
    assert set(weights) == set(averages)
    for name, value in averages.items():
        expected = source[f"{name}{AVERAGE}" if f"{name}{AVERAGE}" in source else name].load()
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(weights[name], source[name].load())
    assert not np.array_equal(weights["classes/weights"], averages["classes/weights"])


@pytest.mark.parametrize("asked", [False, True])
def test_a_saver_that_restores_averages_gets_them_either_way(files: Path, asked: bool) -> None:
    expected = weights_of(files / "model.ckpt", True)
    found = weights_of(files / "eval/model.ckpt", asked)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_weight_whose_average_is_restored_is_a_weight(files: Path) -> None:
    part = open_graph(str(files / "eval/model.ckpt.meta"))
    rows = {row.name: row for row in net_from(part).table}
    assert rows[f"conv1/weights{AVERAGE}"].role == "backbone"
    assert rows[f"classes/weights{AVERAGE}"].class_axis == 1
    assert rows["conv1/BatchNorm/moving_mean"].role == "statistic"
    assert rows[f"conv1/weights{AVERAGE}"].trainable


def test_names_that_the_checkpoint_has_go_first(files: Path) -> None:
    """An evaluation graph beside a checkpoint without averages: the weights under their own names."""
    file = read_graph(files / "eval/model.ckpt.meta")
    own = [name for name in open_checkpoint(files / "model.ckpt").tensors if not name.endswith(AVERAGE)]
    keys = [each.key for each in analyse(file, saved=own).variables]
    assert keys and set(keys) <= set(own)


def test_a_run_on_averages_goes_on_to_be_evaluated(files: Path, tmp_path: Path) -> None:
    run = ["--train-dir", str(tmp_path / "run")]
    how = ["--exclude", "classes", "--trainable", "classes,hidden", "--preprocessing", "unit", "--ema", "0.5"]
    where = ["--checkpoint", str(files / "eval/model.ckpt"), "--data", str(files / "photos"), "--steps", "3"]
    assert finetune.main([*where, *run, *how, "--device", "cpu", "--cache-dir", str(tmp_path / "cache")]) == 0
    assert evaluate.main([*run, "--moving-averages", "--output", str(tmp_path / "evaluated")]) == 0
    saved = open_checkpoint(tmp_path / "run/model.ckpt-3").tensors
    found = load_classifier(SourceOptions(train_dir=str(tmp_path / "run"), use="last", moving_averages=True)).tensors
    weights = f"classes/weights{AVERAGE}"
    np.testing.assert_array_equal(found[weights].load(), saved[f"{weights}{AVERAGE}"].load())
    assert not np.array_equal(found[weights].load(), saved[weights].load())
