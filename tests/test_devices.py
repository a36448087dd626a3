"""A batch divided between devices, or computed part by part, gives the same step as the whole batch."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_net
from telling import lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import RecipeError, TrainingError
from ckpt_tools.train.cache import head_only
from ckpt_tools.train.graph.batches import ValueTable
from ckpt_tools.train.graph.cluster import Cluster
from ckpt_tools.train.graph.devices import (
    FILLER,
    Placement,
    parse_devices,
    part_sizes,
    placement_of,
    shown_name,
    split_batch,
)
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune

# One device adds the gradients of a batch in one order, two in another: float32 sums differ in their last bits, and
# Adam divides them by their own size. So many of the largest weight's size are allowed after ten steps.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    # 42 images: batches of 9 leave one of 6
    return tiny_net.write_job(
        tmp_path_factory.mktemp("devices"),
        batch_size=9,
        optimizer="momentum",
        learning_rate=0.05,
        steps=10,
        bn=("*=frozen",),
        log_steps=1,
    )


def trained(job, folder, **options):
    """The variables after the run, its metrics, and what it said."""
    said = []
    finetune(Options(**{**job, **options}, train_dir=str(folder)), lines_to(said))
    tensors = open_checkpoint(folder / f"model.ckpt-{options.get('steps', job['steps'])}").tensors
    rows = [line.split(",")[:5] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    return {name: tensors[name].load() for name in tensors}, np.array(rows, float), said


def difference(a, b):
    """The largest difference of two checkpoints, each tensor measured by its own largest value."""
    assert a.keys() == b.keys()
    return max(np.abs(a[name] - b[name]).max() / max(np.abs(a[name]).max(), 1e-3) for name in a)


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    return trained(job, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_batches_sent_ahead_to_another_device_make_the_same_bits(job, tmp_path, cache):
    """As they are sent to a GPU, here to a second CPU device."""
    assert placement_of(Options(devices="cpu:1")).batches == "/device:CPU:1"
    assert placement_of(Options(devices="cpu:0")).batches == placement_of(Options()).batches == ""
    first = trained(job, tmp_path / "first", cache=cache, devices="cpu:0")
    second = trained(job, tmp_path / "second", cache=cache, devices="cpu:1")
    assert difference(first[0], second[0]) == 0
    np.testing.assert_array_equal(first[1], second[1])


def test_transfer_values_that_stay_on_a_device_make_the_same_bits(job, tmp_path, monkeypatch):
    """As on a GPU, here on a second CPU device: rows of a table are fed in place of values."""
    sent, load = [], ValueTable.load

    def noted(table, session, values):
        sent.append(values.shape)
        load(table, session, values)

    monkeypatch.setattr(ValueTable, "load", noted)
    options = {"trainable": ("Logits",), "cache_dir": str(tmp_path / "cache"), "dropout": 0.2}
    fed = trained(job, tmp_path / "fed", **options)
    assert not sent
    kept = trained(job, tmp_path / "kept", devices="cpu:1", **options)
    assert sent == [(60, 1, 1, 16)]
    assert difference(fed[0], kept[0]) == 0
    np.testing.assert_array_equal(fed[1], kept[1])
    monkeypatch.setattr(head_only, "TABLE_BYTES", 60 * 16 * 4 - 1)
    assert difference(trained(job, tmp_path / "too large", devices="cpu:1", **options)[0], kept[0]) == 0
    assert len(sent) == 1


def test_a_table_has_room_for_the_values_of_images_that_cannot_be_decoded():
    with tf.Graph().as_default(), tf.Session() as session:
        table = ValueTable(3, 2, "/cpu:0")
        table.load(session, np.ones((2, 1, 1, 2), np.float32))
        assert session.run(table.of([0, 2]))[:, 0, 0].tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    "divided",
    [{"devices": "cpu:0,cpu:1"}, {"accumulate": 4}, {"devices": "2", "accumulate": 2}],
    ids=["two devices", "four parts on one", "two parts on each of two"],
)
def test_a_divided_batch_makes_the_same_step(job, whole, tmp_path, divided):
    values, metrics, said = trained(job, tmp_path, **divided)
    assert difference(values, whole[0]) < TOLERANCE
    np.testing.assert_allclose(metrics, whole[1], rtol=1e-4)  # loss and accuracy of every step, the uneven ones too
    assert any(line.startswith("parts          ") for line in said)


def test_the_comparison_can_fail(job, whole, tmp_path):
    values, _, _ = trained(job, tmp_path, learning_rate=0.0501)
    assert difference(values, whole[0]) > TOLERANCE


@pytest.mark.parametrize("how", [{"cache": "off"}, {"cache": "require", "trainable": ("Conv_3,Logits",)}])
def test_a_batch_with_fewer_images_than_parts(job, tmp_path, how):
    """The second batch is one image, which is the filler of the second part as well."""
    small = {"batch_size": 41, "steps": 2, "weight_decay": 0.01, "class_weights": "cat=2", **how}
    one, one_metrics, _ = trained(job, tmp_path / "one", **small)
    two, two_metrics, _ = trained(job, tmp_path / "two", **small, devices="2")
    assert difference(one, two) < TOLERANCE
    np.testing.assert_allclose(one_metrics, two_metrics, rtol=1e-5)


def test_transfer_values_are_divided_as_images_are(job, tmp_path):
    head = {"trainable": ("Logits",), "steps": 12}
    one, _, said = trained(job, tmp_path / "one", **head, cache="off")
    cached, _, cached_said = trained(job, tmp_path / "cached", **head, cache="require", devices="2")
    assert difference(one, cached) < TOLERANCE
    assert not any("bytes per image" in line for line in said)
    assert any("bytes per image" in line for line in cached_said)


def test_moving_statistics_follow_the_first_part(job, tmp_path):
    """With a rate of 0 nothing but the statistics moves: those of parts of 5 are those of batches of their images."""
    still = {"bn": ("*=stats",), "learning_rate": 1e-30, "steps": 1, "batch_norm_decay": 0.5, "batch_size": 10}
    divided, _, _ = trained(job, tmp_path / "divided", **still, devices="2")
    half, _, _ = trained(job, tmp_path / "half", **{**still, "batch_size": 5})
    full, _, _ = trained(job, tmp_path / "full", **still)
    name = "Tiny/Conv_1/BatchNorm/moving_mean"
    np.testing.assert_allclose(divided[name], half[name], rtol=1e-6)
    assert np.abs(divided[name] - full[name]).max() > 1e-4


def test_part_sizes_in_the_graph_are_those_of_the_function():
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        labels = tf.placeholder(tf.int32, [None])
        parts = [part["label"] for part in split_batch({"label": labels}, 3)]
        for count in range(1, 8):
            found = session.run(parts, {labels: np.arange(count)})
            assert [(part != FILLER).sum() for part in found] == part_sizes(count, 3)
            assert [len(part) for part in found] == [max(1, size) for size in part_sizes(count, 3)]
            assert [label for part in found for label in part if label != FILLER] == list(range(count))


def test_every_way_to_name_devices():
    assert parse_devices("2", gpus=0) == ("/device:CPU:0", "/device:CPU:1")
    assert parse_devices("2", gpus=4) == ("/device:GPU:0", "/device:GPU:1")
    assert parse_devices("all", gpus=0) == ("/device:CPU:0",)
    assert parse_devices("/device:gpu:1, CPU:0", gpus=2) == ("/device:GPU:1", "/device:CPU:0")
    with pytest.raises(RecipeError, match="--devices tpu:0: names no devices"):
        parse_devices("tpu:0", gpus=1)
    with pytest.raises(RecipeError, match="names a device twice"):
        parse_devices("cpu:0,cpu:0", gpus=0)
    with pytest.raises(TrainingError, match="TensorFlow sees 1 GPUs, and no gpu:1, gpu:2"):
        parse_devices("3", gpus=1)

    with pytest.raises(RecipeError, match="--xla with --devices 2: XLA compiles for the first CPU of one machine"):
        placement_of(Options(device="cpu", devices="2", xla=True))
    with pytest.raises(RecipeError, match="--xla with TF_CONFIG: XLA compiles for the first CPU of one machine"):
        placement_of(Options(device="cpu", xla=True), Cluster({"worker": ("a:1", "b:1")}, "worker", 0))
    assert placement_of(Options(device="cpu", accumulate=2, xla=True)).cpus == 1


def test_parts_of_several_machines():
    cluster = Cluster({"worker": ("b:1",), "chief": ("a:1",)}, "chief", 0)
    found = placement_of(Options(device="cpu", devices="cpu:0,cpu:1", accumulate=2), cluster)
    assert found.parts[:3] == ("/job:chief/task:0/device:CPU:0",) * 2 + ("/job:chief/task:0/device:CPU:1",)
    assert (len(found.parts), found.home, found.cpus) == (8, "/job:chief/task:0", 2)
    assert placement_of(Options(device="cpu")) == Placement()
    assert [shown_name(part) for part in ("", *found.parts[-1:])] == ["one device", "worker:0 cpu:1"]
