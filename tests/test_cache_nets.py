"""slim's nets train to the same values with and without the cache: only the head, upper layers, a ResNet block."""

import numpy as np
import pytest
import tiny_net

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint
from ckpt_tools.nets.registry import get_net
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.run_directory import RunDirectory

STEPS = 4

# An image's values differ in their last bits with its place in the batch (see test_cache.py). What enlarges that is
# kept away: SGD and no Adam, which divides by small gradients; no batch norm on a batch of two values.
TOLERANCE = 2e-5
CASES = {
    "InceptionV3, the head alone": ("inception_v3", 80, "Logits", "Logits"),
    "InceptionV3, Mixed_7c and the head": ("inception_v3", 112, "Mixed_7c,Logits", "Logits"),
    "ResNet-50, block4 and the head": ("resnet_v1_50", 64, "block4,logits", "logits"),
    "MobileNet, the last convolutions and the head": ("mobilenet_v1_025", 64, "Conv2d_13_*,Logits", "Logits"),
    "MobileNetV2, the head alone": ("mobilenet_v2_035", 64, "Logits", "Logits"),
    "NASNet, the last cell and the head": ("nasnet_mobile", 64, "cell_11,final_layer", "final_layer"),
    "CifarNet, fc4 and the head": ("cifarnet", 32, "fc4,logits", "logits"),
    "LeNet, the head alone": ("lenet", 28, "fc4", "fc4"),
}


def write_random(net, path):
    """A checkpoint of `net` whose activations neither vanish nor explode."""
    random, arrays = np.random.default_rng(3), {}
    for row in get_net(net).table:
        shape, last = row.shape_for(5), row.name.rpartition("/")[2]
        if last == "depthwise_weights":
            values = random.normal(0.0, np.sqrt(2 / np.prod(shape[:2])), shape)
        elif last.endswith("weights"):
            values = random.normal(0.0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        else:
            values = random.uniform(0.5, 1.0, shape) if last in ("gamma", "moving_variance") else np.zeros(shape)
        if net == "nasnet_mobile" and last == "gamma":
            values *= 0.4  # it adds what these scale, cell after cell
        arrays[row.name] = values.astype(np.float32)
    save_checkpoint(from_arrays(arrays), path)
    return str(path)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Random checkpoints, each written when a test first asks for it."""
    folder, written = tmp_path_factory.mktemp("nets"), {}
    tiny_net.write_photos(folder / "photos", train=4, validation=1)

    def of(net):
        if net not in written:
            written[net] = write_random(net, folder / f"{net}.ckpt")
        return {"checkpoint": written[net], "data": str(folder / "photos")}

    return of


def tensors(run):
    return open_checkpoint(run / f"model.ckpt-{STEPS}").tensors


def distance(a, b):
    """Largest difference between values of two runs, which must hold the same tensors."""
    a, b = tensors(a), tensors(b)
    assert a.specs() == b.specs()
    return max(np.abs(a[name].load().astype(np.float64) - b[name].load()).max() for name in a)


def losses(run):
    return [float(row["loss"]) for row in RunDirectory(run).metrics()]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case.startswith(("MobileNetV2", "NASNet")) else ())
        for case in CASES
    ],
)
def test_the_same_with_and_without_the_cache(sources, tmp_path, case):
    net, size, trainable, head = CASES[case]
    options = {
        **sources(net), "net": net, "image_size": size, "trainable": (trainable,), "exclude": (head,), "device": "cpu",
        "batch_size": 6, "steps": STEPS, "log_steps": 1, "optimizer": "sgd", "learning_rate": 0.01, "keep": 1,
        "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip

    def run(name, **others):
        finetune(Options(**{**options, **others}, train_dir=str(tmp_path / name)))
        return tmp_path / name

    off, on = run("off", cache="off"), run("on", cache="require")
    np.testing.assert_allclose(losses(on), losses(off), rtol=1e-5)
    assert distance(off, on) < TOLERANCE
    assert len(changed_tensors(tensors(off), open_checkpoint(options["checkpoint"]).tensors)) > 1
    if trainable == head:  # the other cases would build their whole net once more
        assert changed_tensors(tensors(on), tensors(run("again", cache="require"))) == []
        assert distance(off, run("other", learning_rate=0.011)) > 10 * TOLERANCE
