"""Training options combined with divided batches, on two devices and on two machines.

Each run is made twice, on one device and divided; the steps must be the same. The tests compare the change of each
variable, so that variables which hardly change are tested as strictly.
"""

import numpy as np
import pytest
import tiny_net
from test_cluster import cluster_of, start

from ckpt_tools import open_checkpoint
from ckpt_tools.train.data.pipeline import epoch_order
from ckpt_tools.train.graph.precision import FIRST
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.lead import finetune_as_task
from ckpt_tools.train.run.run_directory import RunDirectory

STEPS = 12
# How much of its own way a variable may be off. In float32 sums are added in another order; in less, the gradient of a
# weight is rounded once for each part of the batch.
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05}

EVERYTHING = {
    "unfreeze": "0:Logits; 1:Conv_3; 1.8:Conv_2",  # five steps an epoch
    "optimizer": "momentum", "schedule": "one-cycle", "warmup_steps": 2, "layer_decay": 0.7, "lr_mult": ("Conv_3=0.5",),
    "weight_decay": 0.01, "weight_decay_for": ("Conv_3=0",), "clip_norm": 0.5, "class_weights": "cat=3,dog=0.5",
    "label_smoothing": 0.1, "ema": 0.5, "head": "dense(12,relu)", "augment": ("flip", "crop"),
}  # fmt: skip
# Gradients so small that no part overflows in float16, and the scale of the loss stays what it is.
SMALL = {"optimizer": "momentum", "class_weights": "cat=0.2,dog=0.1,frog=0.1"}

COMBINATIONS = {
    "unfreezing, from the cache": {"unfreeze": EVERYTHING["unfreeze"], "cache": "require", "ema": 0.5},
    "bfloat16": {"precision": "bfloat16", "ema": 0.5},
    "float16": {"precision": "float16", **SMALL},
    "averages, parts of parts": {"ema": 0.5, "accumulate": 2},
    "clipping and weights": {"clip_norm": 0.1, "class_weights": "cat=3,dog=0.5"},
    "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(
        tmp_path_factory.mktemp("combinations"),  # 42 images: batches of 9 leave one of 6
        batch_size=9,
        optimizer="sgd",
        learning_rate=0.02,
        steps=STEPS,
        bn=("*=frozen",),  # they would see the images of their part alone
        eval_steps=1 << 30,
        log_steps=1,
        keep=9,
    )


def trained(folder, job):
    """The variables at the end of a run, and the loss and accuracy of every step."""
    finetune(Options(**job, train_dir=str(folder)))
    return outcome(folder)


def outcome(folder):
    tensors = open_checkpoint(folder / f"model.ckpt-{STEPS}").tensors
    rows = [[float(row["loss"]), float(row["accuracy"])] for row in RunDirectory(folder).metrics()]
    return {name: tensors[name].load() for name in tensors}, np.array(rows)


def off(job, one, divided):
    """The largest distance between two runs' values of a variable, in units of the way that the first run took."""
    source = open_checkpoint(job["checkpoint"]).tensors
    assert one.keys() == divided.keys()
    found = {}
    for name, value in one.items():
        before = source[name].load() if name in source and source[name].spec.shape == value.shape else np.zeros(())
        way, distance = np.linalg.norm(value - before), np.linalg.norm(value - divided[name])
        found[name] = distance / way if way else float(distance > 0)
    return max(found.values())


@pytest.mark.parametrize("options", COMBINATIONS.values(), ids=COMBINATIONS)
def test_two_devices_make_the_steps_of_one(job, tmp_path, options):
    together = {**job, **options}
    one, one_rows = trained(tmp_path / "one", {**together, "accumulate": 1})
    two, two_rows = trained(tmp_path / "two", {**together, "devices": "2"})
    tolerance = TOLERANCE[options.get("precision", "float32")]
    assert off(job, one, two) < tolerance
    if options.get("precision") == "float16":  # an image between two classes may be one's or the other's, once
        assert np.abs(two_rows[:, 1] - one_rows[:, 1]).sum() < 1.5 / job["batch_size"]
        two_rows[:, 1] = one_rows[:, 1]
    np.testing.assert_allclose(two_rows, one_rows, rtol=tolerance)


def test_two_machines_make_the_steps_of_one(job, tmp_path):
    """Everything but the augmentation, which would leave nothing to the cache; it moves with the phases."""
    everything = {**job, **EVERYTHING, "start_timeout": 60.0, "cache": "require", "unfreeze": "0:Logits; 1:Conv_3"}
    del everything["augment"]
    one, one_rows = trained(tmp_path / "one", everything)
    two, two_rows = on_two_machines(tmp_path / "two", everything)
    assert off(job, one, two) < TOLERANCE["float32"]
    np.testing.assert_allclose(two_rows, one_rows, rtol=1e-3)


def on_two_machines(folder, job):
    cluster = cluster_of("worker", "worker")
    with start(cluster, ("worker", 1), job, folder) as other:
        finetune_as_task(cluster, Options(**job, train_dir=str(folder)), lambda line: None)
        written, _ = other.communicate(timeout=60)
    assert other.returncode == 0, written
    return outcome(folder)


def test_the_comparison_can_fail(job, tmp_path):
    one, _ = trained(tmp_path / "one", {**job, "ema": 0.5})
    other, _ = trained(tmp_path / "other", {**job, "ema": 0.501})
    assert off(job, one, other) > TOLERANCE["float32"]


def test_an_overflow_on_one_device_leaves_the_step_out_on_both(job, tmp_path):
    """The first batch is a cat and another one, and only cats count: too much for float16."""
    steps = {"precision": "float16", "class_weights": "cat=30000,dog=0,frog=0", "batch_size": 2, "seed": 1}
    first = epoch_order(1, 0, 42)[:2] // 14  # 14 images of each class
    assert sorted(first == 0) == [False, True]
    finetune(Options(**{**job, **steps, "steps": 1}, devices="2", train_dir=str(tmp_path)))
    source, saved = open_checkpoint(job["checkpoint"]).tensors, open_checkpoint(tmp_path / "model.ckpt-1").tensors
    names = [name for name in source if "Logits" not in name]
    assert changed_tensors({n: source[n] for n in names}, {n: saved[n] for n in names}) == []
    assert saved["loss_scale"].load() == FIRST / 2
