"""--ema saves moving averages; other commands use them with --moving-averages, and the weights otherwise."""

import numpy as np
import pytest
import tiny_net

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import TrainingError
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.use.classifier import SourceOptions, load_classifier
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate

HEAD = "Tiny/Logits/Conv2d_1c_1x1/weights"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same steps, with averages and without; the data has validation images."""
    folder = tmp_path_factory.mktemp("averages")
    job = tiny_net.write_job(folder, trainable=("Conv_3,Logits",), learning_rate=0.01, steps=9)
    finetune(Options(**job, train_dir=str(folder / "with"), ema=0.9))
    finetune(Options(**job, train_dir=str(folder / "without")))
    return folder


@pytest.mark.parametrize("use", ["best", "last"])
def test_averages_take_the_place_of_the_weights_when_asked(runs, use):
    weights = load_classifier(SourceOptions(train_dir=runs / "with", use=use)).tensors
    averages = load_classifier(SourceOptions(train_dir=runs / "with", use=use, moving_averages=True)).tensors
    average = weights[f"{HEAD}/ExponentialMovingAverage"].load()
    np.testing.assert_array_equal(averages[HEAD].load(), average)
    assert (weights[HEAD].load() != average).any()
    frozen = "Tiny/Conv_1/weights"  # has no average
    np.testing.assert_array_equal(averages[frozen].load(), weights[frozen].load())


def test_averages_leave_the_weights_as_they_are_without(runs):
    with_them, without = (open_checkpoint(runs / name / "model.ckpt-9").tensors for name in ("with", "without"))
    np.testing.assert_array_equal(with_them[HEAD].load(), without[HEAD].load())


def test_an_evaluation_of_the_averages_is_another_one(runs):
    common = {"train_dir": str(runs / "with"), "use": "last", "device": "cpu"}
    losses = [evaluate(EvaluateOptions(**common, moving_averages=asked)).summary["loss"] for asked in (False, True)]
    assert losses[0] != losses[1]


def test_a_run_without_averages_says_so(runs):
    with pytest.raises(TrainingError, match=r"has no moving averages of weights.*--ema of ckpt-finetune saves them"):
        load_classifier(SourceOptions(train_dir=runs / "without", moving_averages=True))
