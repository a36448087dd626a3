"""torchvision's and timm's nets and ours: the same random weights give the same logits, and convert back to theirs.

Needs torch, torchvision and timm, which are not part of the development environment: `pip install` them to run these.
"""

import numpy as np
import pytest
from computing import CLASSES, NEW_HEAD, as_slims, distance, images, logits, pixels_of, values, write_photos

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
pytest.importorskip("tensorflow")

from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.layouts import from_slim  # noqa: E402
from ckpt_tools.surgery import operate  # noqa: E402

pytestmark = pytest.mark.slow
SAME = 1e-5  # in parts of the largest logit
CASES = [  # world, model there, side
    *(("torchvision", f"vgg{depth}", 224) for depth in (11, 16, 19)),
    *(("timm", f"vgg{depth}", 224) for depth in (11, 16, 19)),
    *(("torchvision", f"resnet{depth}", 224) for depth in (50, 101, 152)),
    *(("timm", f"resnet{depth}", 224) for depth in (50, 101, 152)),
    ("torchvision", "inception_v3", 299),
    ("timm", "inception_v3", 299),
    ("timm", "inception_v4", 299),
    ("timm", "inception_resnet_v2", 299),
]


def model_of(world, name, classes=CLASSES, **how):
    if world == "timm":
        return timm.create_model(name, num_classes=classes, **how).eval()
    more = {"init_weights": False, "aux_logits": True} if name == "inception_v3" else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=classes, **more).eval()


def with_values(model, seed=0):
    random = np.random.default_rng(seed)
    made = {k: torch.from_numpy(np.asarray(values(k, tuple(v.shape), random))) for k, v in model.state_dict().items()}
    model.load_state_dict(made)
    return model


def output(model, fed):
    with torch.no_grad():
        return model(torch.from_numpy(fed.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize(("world", "name", "side"), CASES)
def test_logits_are_theirs_and_the_weights_go_back(world, name, side):
    model, fed = with_values(model_of(world, name)), images(side)
    expected = output(model, fed)
    found, tensors = as_slims({key: value.numpy() for key, value in model.state_dict().items()})
    assert distance(logits(found.exact, tensors, fed), expected) < SAME
    if found.near:  # slim's own is not the same, as its layout says
        assert 1e-3 < distance(logits(found.net.name, tensors, fed), expected) < 0.5
    back = operate(tensors, from_slim(world, found.net, tensors).operations).tensors
    again = model_of(world, name)
    again.load_state_dict({key: torch.from_numpy(np.array(t.load())) for key, t in back.items()}, strict=True)
    assert distance(output(again, fed), expected) < 1e-5  # scales were folded


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pth_file_becomes_slims_and_loads_in_timm_again(tmp_path, monkeypatch, capsys, legacy):
    monkeypatch.chdir(tmp_path)
    model, fed = with_values(model_of("timm", "inception_v4")), images(299)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, "t.pth", _use_new_zipfile_serialization=not legacy)
    assert convert(["t.pth", "slim.ckpt", "--layout", "slim"]) == 0
    assert convert(["slim.ckpt", "out.safetensors", "--layout", "timm"]) == 0
    assert "function  the same" in capsys.readouterr().out
    again = model_of("timm", "inception_v4", checkpoint_path="out.safetensors")
    assert distance(output(again, fed), output(model, fed)) < 1e-5


@pytest.mark.parametrize(
    ("world", "name"), [("torchvision", "resnet50"), ("torchvision", "inception_v3"), ("timm", "inception_v4")]
)
def test_a_file_of_torch_is_trained_on_without_any_option_and_goes_back(tmp_path, monkeypatch, world, name):
    """The state dict that torch saves, fine-tuned and written as one again, predicts in torch what it predicts here."""
    from safetensors.torch import load_file

    from ckpt_tools.cli.finetune import main as finetune
    from ckpt_tools.train.use.predict import PredictOptions, predict

    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", ("cat", "cow", "dog"))
    torch.save(with_values(model_of(world, name)).state_dict(), "t.pth")
    words = [*NEW_HEAD, "--learning-rate", "0.01"]
    assert finetune(["--checkpoint", "t.pth", "--data", "photos", "--train-dir", "run", *words]) == 0
    assert convert(["run/best.ckpt", "back.safetensors", "--layout", world]) == 0
    model = model_of(world, name, classes=3)
    model.load_state_dict(load_file("back.safetensors"), strict=True)
    found = predict(PredictOptions(train_dir="run", all_probabilities=True), ["photos"]).rows
    chances = np.array([row["probabilities"] for row in found])
    assert np.abs(chances[0] - chances[-1]).max() > 0.05  # it has learnt something
    expected = torch.softmax(torch.from_numpy(output(model, pixels_of([row["file"] for row in found], "run"))), -1)
    np.testing.assert_allclose(chances, expected, atol=1e-5)


@pytest.mark.parametrize(("world", "name"), [("torchvision", "resnet50"), ("timm", "inception_v4")])
def test_the_check_of_the_command_runs_the_net_that_is_the_same(tmp_path, monkeypatch, capsys, world, name):
    from ckpt_tools.cli import checking

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "COUNT", 2)
    torch.save(with_values(model_of(world, name)).state_dict(), "t.pth")
    assert convert(["t.pth", "slim.ckpt", "--layout", "slim", "--check"]) == 0
    assert "within the tolerance" in capsys.readouterr().out
    assert convert(["slim.ckpt", "back.safetensors", "--layout", world, "--check"]) == 0
    assert "function  the same\n" in capsys.readouterr().out
    (tmp_path / "slim.ckpt.provenance.json").unlink()  # nothing says that it is not slim's own
    code = convert(["slim.ckpt", "other.safetensors", "--layout", world, "--check"])
    out = capsys.readouterr().out
    near = name == "resnet50"
    assert (code, "function  nearly the same" in out, "above the tolerance" in out) == (int(near), near, near)
