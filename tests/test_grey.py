"""Grey images: converted to three channels, or a net with one channel by --adapt-input."""

import json

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tiny_net  # noqa: E402
from PIL import Image  # noqa: E402
from test_published import write_idx  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli import plan as plan_command  # noqa: E402
from ckpt_tools.errors import PlanError  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.train.data.loading import load_data_set  # noqa: E402
from ckpt_tools.train.data.pipeline import are_grey  # noqa: E402
from ckpt_tools.train.data.preprocess import Preprocessing, as_picture, prepare  # noqa: E402
from ckpt_tools.train.options.training import Options  # noqa: E402
from ckpt_tools.train.plan.job import make_job  # noqa: E402
from ckpt_tools.train.plan.request import for_grey_images  # noqa: E402
from ckpt_tools.train.run.finetune import finetune  # noqa: E402
from ckpt_tools.train.use.evaluate import EvaluateOptions, evaluate  # noqa: E402
from ckpt_tools.train.use.export import ExportOptions, export  # noqa: E402

FIRST = "Tiny/Conv_1/weights"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """MNIST's files, a source for images in colour, and two runs that hardly move it: `rgb`, `grey`."""
    root = tmp_path_factory.mktemp("grey")
    write_idx(root / "mnist", labels=[i % 10 for i in range(30)])
    tiny_net.write_source(root / "tiny.ckpt")
    for name in ("rgb", "grey"):
        finetune(options(root, name))
    return root


def options(root, name, **more):
    how = {"checkpoint": str(root / "tiny.ckpt"), "data": str(root / "mnist"), "steps": 1, "learning_rate": 1e-12}
    how |= {"trainable": ("Logits",), "device": "cpu", "cache_dir": str(root / f"cache_{name}"), "batch_size": 30}
    return Options(**{**how, "train_dir": str(root / name), "adapt_input": name == "grey", **more})


def test_one_channel_gives_what_three_alike_give(home):
    rgb, grey = (open_checkpoint(home / name / "model.ckpt-1").tensors for name in ("rgb", "grey"))
    np.testing.assert_allclose(grey[FIRST].load(), rgb[FIRST].load().sum(axis=2, keepdims=True), rtol=1e-6)
    one, other = (evaluate(EvaluateOptions(train_dir=str(home / name), split="all")) for name in ("rgb", "grey"))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert np.ptp(one.probabilities) > 0.01


def test_the_run_says_so_and_its_checkpoint_is_read_by_itself(home, tmp_path):
    job = make_job(options(home, "grey"))
    assert "the images are grey, and so is what the net sees: one channel" in job.data.notes
    assert job.preprocessing.as_dict()["channels"] == "grey"
    (tmp_path / "alone").mkdir()
    for file in (home / "grey").glob("model.ckpt-1.*"):
        (tmp_path / "alone" / file.name).write_bytes(file.read_bytes())
    alone = EvaluateOptions(checkpoint=str(tmp_path / "alone" / "model.ckpt-1.index"), data=str(home / "mnist"))
    found, own = evaluate(alone), evaluate(EvaluateOptions(train_dir=str(home / "grey"), use="last"))
    np.testing.assert_allclose(found.probabilities, own.probabilities, atol=1e-6)


def test_the_plan_is_that_of_the_run(home, capsys):
    flags = ["--data", str(home / "mnist"), "--trainable", "Logits", "--adapt-input", "--all"]
    assert plan_command.main([str(home / "tiny.ckpt"), *flags]) == 0
    plan = json.loads((home / "grey" / "plan.json").read_text())
    assert f"plan         {plan['digest']}" in capsys.readouterr().out


def test_it_goes_on_only_with_one_channel(home, tmp_path):
    source = {"checkpoint": str(home / "grey" / "best.ckpt"), "train_dir": str(tmp_path / "next")}
    assert finetune(options(home, "grey", **source)).step == 1
    with pytest.raises(PlanError, match="--adapt-input"):
        finetune(options(home, "rgb", **source))


def test_it_can_be_exported(home, tmp_path):
    made = export(ExportOptions(train_dir=str(home / "grey"), output=str(tmp_path / "x"), format=("graphdef",)))
    assert made.rows[0]["largest_difference"] < 1e-5


def test_what_is_grey(tmp_path):
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / label / f"{i}.png")
    data = load_data_set(tmp_path, training=False)
    assert are_grey(data.train)
    assert for_grey_images(get_net("tiny"), data)[0].table[0].shape == (3, 3, 1, 8)
    net, noted = for_grey_images(get_net("inception_v2"), data)  # whose first layer is separable
    said = "the images are grey and become three channels: the first layer of inception_v2 cannot take one"
    assert (net.input_channels, noted.notes[-1]) == (3, said)
    Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "b" / "4.png")
    coloured = load_data_set(tmp_path, training=False).split("all")
    assert not are_grey(coloured)


@pytest.mark.parametrize("style", ["inception", "vgg"])
def test_pixels(style):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 1), dtype=np.uint8).repeat(3, axis=2)
    how = Preprocessing(style, 24, channels="grey")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        seen = session.run(prepare(tf.constant(pixels), how))
        three = session.run(prepare(tf.constant(pixels), Preprocessing(style, 24)))
    assert seen.shape == (24, 24, 1)
    np.testing.assert_allclose(seen[..., 0], three.mean(axis=2), atol=1e-4)
    picture = as_picture(seen, how)
    assert (picture == picture[..., :1]).all()
    np.testing.assert_allclose(picture, as_picture(three, Preprocessing(style, 24)), atol=1)


def test_a_published_nets_first_layer_can_be_adapted():
    for name in ("inception_v1", "inception_v3", "resnet_v1_50", "resnet_v2_101", "vgg_16", "alexnet_v2", "overfeat"):
        net, grey = get_net(name), get_net(name).for_grey_images()
        assert grey.table[0].shape[2] == 1
        assert grey.table[1:] == net.table[1:]
