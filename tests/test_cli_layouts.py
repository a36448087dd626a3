"""ckpt-convert --layout and ckpt-inspect --layout: what they print, write and refuse."""

import json

import numpy as np
import pytest

pytest.importorskip("h5py")

from ckpt_tools import from_arrays, open_checkpoint, save_checkpoint  # noqa: E402
from ckpt_tools.cli import diff as diff_command  # noqa: E402
from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.cli.inspect import main as inspect  # noqa: E402
from ckpt_tools.cli.layouts import in_layout  # noqa: E402
from ckpt_tools.formats import Checkpoint  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.tensors import Tensor, Tensors  # noqa: E402

NET = get_net("mobilenet_v1_025")


def slims(classes=7, net=NET, seed=0):
    random = np.random.default_rng(seed)
    return from_arrays({v.name: random.normal(size=v.spec.shape).astype(np.float32) for v in net.variables(classes)})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(slims(), "slim.ckpt")
    return tmp_path


def said(capsys, command, *words):
    code = command(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def equal(a, b):
    a, b = (open_checkpoint(each).tensors if isinstance(each, str) else each for each in (a, b))
    return set(a) == set(b) and all((a[name].load() == b[name].load()).all() for name in a)


def test_there_and_back(here, capsys):
    code, out, err = said(capsys, convert, "slim.ckpt", "k.h5", "--layout", "keras")
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        "wrote k.h5 (keras_h5) from slim.ckpt (v2): 137 tensors, 881.4 kB",
        "net       slim MobilenetV1 0.25, 7 classes, in the layout of keras",
        "tensors   137 written",
        "function  the same",
    ]
    code, out, _ = said(capsys, convert, "k.h5", "back.ckpt", "--layout", "slim")
    assert out.splitlines()[1] == "net       MobilenetV1 0.25 of Keras, 7 classes, in the layout of slim"
    assert equal("slim.ckpt", "back.ckpt")
    sidecar = json.loads((here / "back.ckpt.provenance.json").read_text())
    assert sidecar["tensors"]["MobilenetV1/Conv2d_0/weights"] == "relayout from conv1/kernel"
    assert sidecar["near"] == []


def test_ckpt_diff_says_how_the_files_of_two_libraries_are_compared(here, capsys, monkeypatch):
    ours = Tensors({v.name: Tensor(v.spec, lambda: b"") for v in get_net("resnet_v1_50").variables(1000)})
    theirs = in_layout(Checkpoint(ours, "v2", "a"), "torchvision").surgery.tensors
    told, _ = diff_command.other_libraries({"a.ckpt": ours, "my t.safetensors": theirs})
    assert told == (
        "  => my t.safetensors is ResNet-50 v1 of torchvision, 1000 classes; the same values may have other shapes "
        "there: ckpt-convert 'my t.safetensors' OTHER.ckpt --layout slim"
    )
    assert diff_command.other_libraries({"a": theirs, "b": theirs}) == []
    assert diff_command.other_libraries({"a": slims(), "b": theirs}) == []
    for name in ("x", "y"):
        save_checkpoint(from_arrays({name: np.full(2, ord(name))}), f"{name}.npz")
    monkeypatch.setattr(diff_command, "other_libraries", lambda sides: [*sides, ""])
    assert said(capsys, diff_command.main, "x.npz", "y.npz")[1].endswith("1 in B only\nx.npz\ny.npz\n")


def test_what_is_near_is_never_called_the_same(here, capsys):
    net = get_net("resnet_v1_50")
    save_checkpoint(slims(1000, net), "r.ckpt")
    code, out, _ = said(capsys, convert, "r.ckpt", "t.safetensors", "--layout", "torchvision", "--dry-run")
    assert code == 0
    assert out.splitlines()[2:] == [
        "tensors   267 written, 53 made",
        "function  nearly the same",
        "          torchvision: the stride of a stage is in its first unit, slim's in the last one of the stage before",
        "          torchvision: the first pooling pads on all sides, slim's at the end alone",
        "note      weights that torchvision publishes take pixels of --preprocessing torch, which are not slim's",
    ]
    assert not (here / "t.safetensors").exists()


def test_slots_averages_prefixes_and_the_background(here, capsys):
    tensors = slims(1001)
    more = {f"model/{name}": tensor for name, tensor in tensors.items()}
    more |= {f"model/{name}/{slot}": tensors[name] for name in list(tensors)[:2] for slot in ("Adam", "Adam_1")}
    more |= {f"model/{name}/ExponentialMovingAverage": tensors[name] for name in list(tensors)[:2]}
    save_checkpoint(Tensors(more), "training.ckpt")
    code, out, _ = said(capsys, convert, "training.ckpt", "k.h5", "--layout", "keras")
    assert "tensors   137 written, 6 left out" in out
    assert "note      class 0, the background, is left out: classes 1 to 1000 are 0 to 999 there" in out
    assert open_checkpoint("k.h5").tensors["conv_preds/bias"].spec.shape == (1000,)
    code, out, _ = said(capsys, convert, "training.ckpt", "all.h5", "--layout", "keras", "--keep-background")
    assert "note" not in out
    assert open_checkpoint("all.h5").tensors["conv_preds/bias"].spec.shape == (1001,)


def test_layers_of_ones_own_on_a_body_of_keras_are_named(here, capsys):
    tensors = slims()
    body = Tensors((name, tensor) for name, tensor in tensors.items() if "Logits" not in name)
    save_checkpoint(body, "body.ckpt")
    assert said(capsys, convert, "body.ckpt", "body.h5", "--layout", "keras")[0] == 0
    own = from_arrays({"dense/kernel": np.zeros((256, 3), "f4"), "dense/bias": np.zeros(3, "f4")})
    save_checkpoint(Tensors({**open_checkpoint("body.h5").tensors, **own}), "own.h5", format="keras_h5")
    _, out, _ = said(capsys, convert, "own.h5", "back.ckpt", "--layout", "slim")
    assert out.splitlines()[1] == "net       MobilenetV1 0.25 of Keras, without its head, in the layout of slim"
    assert out.splitlines()[4] == "note      not part of the net, left out: dense"
    assert equal("back.ckpt", body)


def test_averages_alone_are_taken(here, capsys):
    tensors = slims()
    trained = {variable.name for variable in NET.variables(7) if variable.trainable}
    names = {name: f"{name}/ExponentialMovingAverage" if name in trained else name for name in tensors}
    save_checkpoint(Tensors((names[name], tensor) for name, tensor in tensors.items()), "averages.ckpt")
    assert said(capsys, convert, "averages.ckpt", "k.h5", "--layout", "keras")[0] == 0
    assert said(capsys, convert, "k.h5", "back.ckpt", "--layout", "slim")[0] == 0
    assert equal("back.ckpt", tensors)


def test_json(here, capsys):
    _, out, _ = said(capsys, convert, "slim.ckpt", "k.weights.h5", "--layout", "keras", "--json")
    made = json.loads(out)
    assert (made["layout"], made["net"], made["near"], made["tensors"]) == ("keras", "mobilenet_v1_025", [], 137)
    _, out, _ = said(capsys, inspect, "k.weights.h5", "--layout", "slim", "--json")
    shown = json.loads(out)
    assert (shown["net"], shown["layout"], shown["near"], len(shown["rows"])) == ("mobilenet_v1_025", "slim", [], 137)
    assert shown["rows"][0] == {
        "name": "conv1/kernel",
        "shape": [3, 3, 3, 8],
        "slim": "MobilenetV1/Conv2d_0/weights",
        "there": None,
        "how": None,
    }


def test_inspect_shows_both_names(here, capsys):
    code, out, _ = said(capsys, inspect, "slim.ckpt", "--layout", "keras", "--scope", "Conv2d_0,Logits")
    assert code == 0
    assert out.splitlines() == [
        "slim.ckpt: slim MobilenetV1 0.25, 7 classes, in the layout of keras",
        "",
        "name                                            shape        keras",
        "----------------------------------------------  -----------  ------------------------",
        "MobilenetV1/Conv2d_0/weights                    [3,3,3,8]    conv1/kernel",
        "MobilenetV1/Conv2d_0/BatchNorm/gamma            [8]          conv1_bn/gamma",
        "MobilenetV1/Conv2d_0/BatchNorm/beta             [8]          conv1_bn/beta",
        "MobilenetV1/Conv2d_0/BatchNorm/moving_mean      [8]          conv1_bn/moving_mean",
        "MobilenetV1/Conv2d_0/BatchNorm/moving_variance  [8]          conv1_bn/moving_variance",
        "MobilenetV1/Logits/Conv2d_1c_1x1/weights        [1,1,256,7]  conv_preds/kernel",
        "MobilenetV1/Logits/Conv2d_1c_1x1/biases         [7]          conv_preds/bias",
    ]


def test_inspect_of_a_layout_looks_for_values_and_at_the_scope_as_without(here, capsys):
    tensors = {name: tensor.load().copy() for name, tensor in open_checkpoint("slim.ckpt").tensors.items()}
    name = "MobilenetV1/Logits/Conv2d_1c_1x1/biases"
    tensors[name][0] = np.nan
    save_checkpoint(from_arrays(tensors), "nan.ckpt")
    for more in ([], ["--json"]):
        code, out, err = said(capsys, inspect, "nan.ckpt", "--layout", "keras", "--fail-on", "nan", *more)
        assert code == 1
        assert err == f"ckpt-inspect: 1 tensor with NaN: {name} (1 NaN)\n"
        assert name in out
    code, out, err = said(capsys, inspect, "slim.ckpt", "--layout", "keras", "--scope", "Logits,!Logits")
    assert (code, out) == (2, "")
    assert err == "ckpt-inspect: --scope 'Logits,!Logits' leaves nothing of 137 tensors\n"


def test_inspect_says_what_happens_to_values(here, capsys):
    net = get_net("inception_v3")
    save_checkpoint(slims(5, net), "i.ckpt")
    assert said(capsys, convert, "i.ckpt", "t.safetensors", "--layout", "torchvision")[0] == 0
    code, out, _ = said(capsys, inspect, "t.safetensors", "--layout", "slim", "--scope", "Conv2d_1a_3x3.*,fc.weight")
    lines = out.splitlines()
    assert lines[1] == "near: torchvision: the average pooling of the branches counts the padding, slim's does not"
    assert [line.split()[0] for line in lines[5:]] == [
        "Conv2d_1a_3x3.conv.weight", "Conv2d_1a_3x3.bn.bias", "Conv2d_1a_3x3.bn.running_mean",
        "Conv2d_1a_3x3.bn.running_var", "fc.weight", "Conv2d_1a_3x3.bn.num_batches_tracked", "Conv2d_1a_3x3.bn.weight",
    ]  # fmt: skip
    assert lines[5].endswith("axes 2,3,1,0, gamma folded in")
    assert "[5,2048]" in lines[9] and lines[9].endswith("axes 2,3,1,0, reshaped")
    assert lines[10].endswith("no variable of slim InceptionV3")
    assert lines[11].endswith("folded into its layer")


def test_what_a_layer_has_beyond_slims_is_folded_or_named():
    net = get_net("inception_v3")
    gamma = np.linspace(-1, 2, 32, dtype=np.float32)
    scope = "InceptionV3/Conv2d_1a_3x3"
    more = from_arrays({f"{scope}/BatchNorm/gamma": gamma, "InceptionV3/Logits/fc/weights": np.zeros((2048, 3), "f4")})
    plain = slims(5, net)
    found = in_layout(Checkpoint(Tensors({**plain, **more}), "npz", "x"), "keras")
    kernel = plain[f"{scope}/weights"].load()
    np.testing.assert_array_equal(found.surgery.tensors["conv2d/kernel"].load(), kernel * gamma)
    assert found.notes == (
        "keras has no variables for these: InceptionV3/AuxLogits",
        "not part of the net, left out: InceptionV3/Logits",
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["slim.ckpt", "x.safetensors", "--layout", "timm"],
         "ckpt-convert: slim.ckpt: --layout timm: it is not known how timm writes slim MobilenetV1 0.25; it is known "
         "how keras does\n"),
        (["slim.ckpt", "x.h5", "--keep-background"], "ckpt-convert: --keep-background goes with --layout\n"),
        (["other.npz", "x.h5", "--layout", "keras"],
         "ckpt-convert: other.npz: cannot tell which net this is. ckpt-inspect SRC lists its tensors; ckpt-edit "
         "--rename and --recipe change names and axes one by one.\n"),
        (["slim.ckpt", "x.weights.h5"],
         "ckpt-convert: a .weights.h5 file of Keras 3 knows weights by their place in a model, and "
         "MobilenetV1/Conv2d_0/BatchNorm/beta has none. ckpt-convert --layout keras gives them; a .h5 file takes any "
         "names.\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(here, capsys, words, complaint):
    save_checkpoint(from_arrays({"a": np.zeros(3)}), "other.npz", format="npz")
    code, out, err = said(capsys, convert, *words)
    assert (code, out, err) == (2, "", complaint)
    assert not list(here.glob("x.*"))
