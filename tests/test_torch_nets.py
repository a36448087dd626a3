"""torchvision's and timm's nets and ours: the same random weights give the same logits, and go back into theirs.

Needs torch, torchvision and timm, which are no part of the development environment: `pip install` them to run these.
"""

import numpy as np
import pytest
from computing import CLASSES, as_slims, distance, images, logits, values

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
pytest.importorskip("tensorflow")

from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.layouts import from_slim  # noqa: E402
from ckpt_tools.nets.registry import NETS  # noqa: E402
from ckpt_tools.surgery import operate  # noqa: E402

pytestmark = pytest.mark.slow
# World, model there, side, largest difference in parts of the largest logit: see test_keras_nets.py.
CASES = [
    *(("torchvision", f"vgg{depth}", 224, 1e-5) for depth in (11, 16, 19)),
    *(("timm", f"vgg{depth}", 224, 1e-5) for depth in (11, 16, 19)),
    *(("torchvision", f"resnet{depth}", 224, 0.2) for depth in (50, 101, 152)),
    *(("timm", f"resnet{depth}", 224, 0.2) for depth in (50, 101, 152)),
    ("torchvision", "inception_v3", 299, 0.2),
    ("timm", "inception_v3", 299, 0.2),
    ("timm", "inception_v4", 299, 1e-5),
    ("timm", "inception_resnet_v2", 299, 1e-5),
]


def model_of(world, name, **how):
    if world == "timm":
        return timm.create_model(name, num_classes=CLASSES, **how).eval()
    more = {"init_weights": False, "aux_logits": True} if name == "inception_v3" else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **more).eval()


def with_values(model, seed=0):
    random = np.random.default_rng(seed)
    made = {k: torch.from_numpy(np.asarray(values(k, tuple(v.shape), random))) for k, v in model.state_dict().items()}
    model.load_state_dict(made)
    return model


def output(model, fed):
    with torch.no_grad():
        return model(torch.from_numpy(fed.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize(("world", "name", "side", "most"), CASES)
def test_logits_are_theirs_and_the_weights_go_back(world, name, side, most):
    model, fed = with_values(model_of(world, name)), images(side)
    expected = output(model, fed)
    found, tensors = as_slims({key: value.numpy() for key, value in model.state_dict().items()})
    away = distance(logits(found, tensors, fed), expected)
    assert away < most
    assert away > 1e-3 or most < 1e-3
    back = operate(tensors, from_slim(world, NETS[found], tensors).operations).tensors
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


def test_average_pooling_is_all_that_keeps_inception_v3_from_being_the_same(monkeypatch):
    functional = torch.nn.functional
    pool = functional.avg_pool2d
    monkeypatch.setattr(functional, "avg_pool2d", lambda *a, **k: pool(*a, **{**k, "count_include_pad": False}))
    model, fed = with_values(model_of("torchvision", "inception_v3")), images(299)
    found, tensors = as_slims({key: value.numpy() for key, value in model.state_dict().items()})
    assert distance(logits(found, tensors, fed), output(model, fed)) < 1e-5


def test_strides_and_the_first_pooling_are_all_that_keep_resnet_from_being_the_same():
    class Pool(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1), value=-1e30), 3, 2)

    class EverySecond(torch.nn.Module):
        def forward(self, x):
            return x[:, :, ::2, ::2]

    model, fed = with_values(model_of("torchvision", "resnet50")), images(224)
    found, tensors = as_slims({key: value.numpy() for key, value in model.state_dict().items()})
    model.maxpool = Pool()
    for number in (2, 3, 4):
        first, last = getattr(model, f"layer{number}")[0], getattr(model, f"layer{number - 1}")[-1]
        first.conv2.stride = first.downsample[0].stride = (1, 1)
        last.conv2.stride, last.downsample = (2, 2), EverySecond()
    assert distance(logits(found, tensors, fed), output(model, fed)) < 1e-5


@pytest.mark.parametrize(("world", "name", "code"), [("torchvision", "resnet50", 1), ("timm", "inception_v4", 0)])
def test_the_check_of_the_command_says_what_is_the_same_and_what_is_near(
    tmp_path, monkeypatch, capsys, world, name, code
):
    from ckpt_tools.cli import checking

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "COUNT", 2)
    torch.save(with_values(model_of(world, name)).state_dict(), "t.pth")
    assert convert(["t.pth", "slim.ckpt", "--layout", "slim", "--check"]) == code
    out = capsys.readouterr().out
    assert ("function  near, not the same" in out) == ("above the tolerance" in out) == bool(code)
