"""Layouts: every row has its variables, both directions are inverse, and names and order are those of the libraries.

The nets are thin (thin.py), since these tests check names, axes and folds; test_keras_nets.py and test_torch_nets.py
check what the nets compute.
"""

import hashlib

import numpy as np
import pytest
import thin
from thin import ThinNet

from ckpt_tools import cli, from_arrays
from ckpt_tools.errors import SelectionError
from ckpt_tools.layouts import WORLDS, from_slim, layout_of, recognise, to_slim
from ckpt_tools.layouts.links import links
from ckpt_tools.layouts.reading import _section
from ckpt_tools.nets.registry import NETS
from ckpt_tools.surgery import operate
from ckpt_tools.tensors import Spec, Tensors

PAIRS = [(world, net) for world in WORLDS for net in NETS if layout_of(world, net)]
THIN = [ThinNet(name) for name in NETS if name != "tiny"]


def arrays(tensors):
    return {name: tensor.load() for name, tensor in tensors.items()}


def same(a, b):
    """Whether two mappings of tensors hold the same names, shapes and bits, in whatever order."""
    a, b = arrays(a), arrays(b)
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and a[n].tobytes() == b[n].tobytes() for n in a)


def outward(world, net, tensors, **how):
    return operate(tensors, from_slim(world, net, tensors, **how).operations).tensors


def inward(tensors):
    found = recognise(tensors.specs(), THIN)
    return found, operate(tensors, to_slim(found)).tensors


def without(tensors, *parts):
    return Tensors((name, each) for name, each in tensors.items() if not any(part in name for part in parts))


def test_same_can_fail():
    a = from_arrays({"x": np.float32([1, 2])})
    assert not same(a, from_arrays({"x": np.float32([1, 3])}))
    assert not same(a, from_arrays({"x": np.float32([[1, 2]])}))
    assert not same(a, from_arrays({"y": np.float32([1, 2])}))


def test_the_commands_know_the_worlds():
    assert tuple(cli.LAYOUTS) == ("slim", *WORLDS)


def test_all_pairs_are_there():
    assert {net for world, net in PAIRS if world == "keras"} == {
        "inception_v3", "inception_resnet_v2", "nasnet_mobile", "vgg_16", "vgg_19",
        *(f"resnet_v{version}_{depth}" for version in (1, 2) for depth in (50, 101, 152)),
        *(name for name in NETS if name.startswith("mobilenet")),
    }  # fmt: skip
    common = {"inception_v3", "vgg_a", "vgg_16", "vgg_19", "resnet_v1_50", "resnet_v1_101", "resnet_v1_152"}
    assert {net for world, net in PAIRS if world == "torchvision"} == common
    assert {net for world, net in PAIRS if world == "timm"} == common | {"inception_v4", "inception_resnet_v2"}


@pytest.mark.parametrize(("world", "name"), PAIRS)
def test_every_row_is_a_layer_of_the_net_and_every_variable_has_its_row(world, name):
    variables = {variable.name: variable for variable in NETS[name].variables(7)}
    made = links(layout_of(world, name), NETS[name].scope, {n: variable.spec for n, variable in variables.items()})
    linked = {link.ours for link in made}
    assert {n for n, variable in variables.items() if variable.role != "auxiliary"} <= linked
    assert {link.ours for link in made if link.fill is None} <= set(variables)
    theirs = [link.theirs[0] for link in made]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize(("world", "name"), PAIRS)
def test_there_and_back_again_is_the_same(world, name):
    net = ThinNet(name)
    layers = [layer.ours for layer in layout_of(world, name).layers]
    kept = [
        v for v in net.variables(7) if v.role != "auxiliary" or any(layer.startswith("AuxLogits") for layer in layers)
    ]
    source = thin.tensors(kept)
    there = outward(world, net, source)
    found, back = inward(there)
    assert (found.net.name, found.classes, found.missing[:1], found.others) == (name, 7, found.missing[:1], ())
    assert same(back, source)
    assert same(outward(world, net, back), there)


# What the libraries have: number and digest of names and shapes for 1,000 classes, sorted. torchvision 0.29.1, timm
# 1.0.31; each was made of `model.state_dict()`.
@pytest.mark.parametrize(
    ("world", "name", "count", "digest"),
    [
        ("torchvision", "inception_v3", 580, "5c65816aa3922f73"),
        ("torchvision", "vgg_a", 22, "fda77879f56e8ab3"),
        ("torchvision", "vgg_16", 32, "d0503fffc73cd7a1"),
        ("torchvision", "vgg_19", 38, "b85975f376436cd9"),
        ("torchvision", "resnet_v1_50", 320, "a24ee6635c5b5703"),
        ("torchvision", "resnet_v1_101", 626, "220cac351d808cfc"),
        ("torchvision", "resnet_v1_152", 932, "30c4a7b97847b2a9"),
        ("timm", "inception_v3", 566, "69d08ba1eea90a13"),
        ("timm", "inception_v4", 896, "dc38db0a86cb2c71"),
        ("timm", "inception_resnet_v2", 1306, "52d08d1ee93b958f"),
        ("timm", "vgg_a", 22, "5d85b63357d3d033"),
        ("timm", "vgg_16", 32, "a94977edeae383d3"),
        ("timm", "vgg_19", 38, "aca5e526764eca9e"),
        ("timm", "resnet_v1_50", 320, "a24ee6635c5b5703"),
        ("timm", "resnet_v1_152", 932, "30c4a7b97847b2a9"),
    ],
)
def test_names_and_shapes_are_those_of_torch(world, name, count, digest):
    made = links(layout_of(world, name), NETS[name].scope, {v.name: v.spec for v in NETS[name].variables(1000)})
    text = "\n".join(sorted(f"{link.theirs[0]} {','.join(map(str, link.shape))}" for link in made))
    assert (len(made), hashlib.sha256(text.encode()).hexdigest()[:16]) == (count, digest)


# Number and digest of the names of all weights of Keras 3.15's applications, in the order of `model.layers`, which is
# that of a weights file.
@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("inception_v3", 378, "57fac455e3d30762"),
        ("inception_resnet_v2", 898, "68f86e7ec092b522"),
        ("vgg_16", 32, "b6ca8eff9d702d11"),
        ("vgg_19", 38, "5682500c61ebf6ee"),
        ("resnet_v1_50", 320, "13741bca20995bb5"),
        ("resnet_v1_101", 626, "967ef414336e17e1"),
        ("resnet_v1_152", 932, "a3c89c5f48d6b5b2"),
        ("resnet_v2_50", 272, "e7a5aac3f53f63a9"),
        ("resnet_v2_101", 544, "fe46984e37283e25"),
        ("resnet_v2_152", 816, "8f5e3ff8e2045890"),
        ("mobilenet_v1", 137, "d4633ffdb346bc15"),
        ("mobilenet_v2_050", 262, "a85e1fbc1887460a"),
        ("nasnet_mobile", 1126, "4deedf07f26583df"),
    ],
)
def test_names_and_order_are_those_of_keras(name, count, digest):
    made = links(layout_of("keras", name), NETS[name].scope, {v.name: v.spec for v in NETS[name].variables(1000)})
    text = "\n".join(link.theirs[0] for link in made)
    assert (len(made), hashlib.sha256(text.encode()).hexdigest()[:16]) == (count, digest)


# --- what a file may look like -------------------------------------------------------------------------------------


def numbered_from(first):
    """Keras' names when the process made `first` layers of each class before."""

    def renamed(name):
        layer, _, word = name.partition("/")
        kind, _, number = layer.rpartition("_")
        if layer in ("conv2d", "batch_normalization"):
            kind, number = layer, "0"
        if kind in ("conv2d", "batch_normalization"):
            return f"{kind}_{int(number) + first}/{word}"
        return name

    return renamed


def renamed(tensors, change):
    return Tensors((change(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v2"])
def test_keras_numbers_begin_wherever_the_process_was(name):
    source = thin.tensors([v for v in ThinNet(name).variables(7) if v.role != "auxiliary"])
    there = outward("keras", ThinNet(name), source)
    for first in (1, 94, 9_999):
        assert same(inward(renamed(there, numbered_from(first)))[1], source)


def test_a_file_of_keras_3_without_names_goes_by_place(tmp_path):
    h5py = pytest.importorskip("h5py")
    from ckpt_tools import open_checkpoint, save_checkpoint

    source = thin.tensors([v for v in ThinNet("inception_v3").variables(7) if v.role != "auxiliary"])
    there = outward("keras", ThinNet("inception_v3"), source, places=True)
    assert there.stored_names["conv2d_8/kernel"] == "layers/conv2d_5/vars/0"  # the sixth in `model.layers`
    save_checkpoint(there, tmp_path / "named.weights.h5", format="keras_weights")
    assert same(inward(open_checkpoint(tmp_path / "named.weights.h5").tensors)[1], source)
    with h5py.File(tmp_path / "named.weights.h5", "r+") as file:
        file.visititems(lambda _, group: group.attrs.pop("name", None) and None)
    assert same(inward(open_checkpoint(tmp_path / "named.weights.h5").tensors)[1], source)


@pytest.mark.parametrize("name", ["resnet_v1_50", "nasnet_mobile"])
def test_places_are_those_of_the_layers_that_the_net_has(name):
    """The layouts of several nets stand in one table, and those of a cell name what some cells have not."""
    source = thin.tensors([v for v in ThinNet(name).variables(7) if v.role != "auxiliary"])
    there = outward("keras", ThinNet(name), source, places=True)
    assert same(inward(renamed(there, there.stored_names.get))[1], source)


def test_scopes_in_front_of_layers_of_keras():
    source = thin.tensors([v for v in ThinNet("nasnet_mobile").variables(7) if v.role != "auxiliary"])
    there = outward("keras", ThinNet("nasnet_mobile"), source)

    def scoped(name):
        return name if name.startswith(("stem_", "predictions")) else f"block_{len(name)}/adjust/{name}"

    found, back = inward(renamed(there, scoped))
    assert (found.missing, found.others) == ((), ())
    assert same(back, source)


def test_names_of_keras_1_go_by_their_order_in_the_layer():
    source = thin.tensors(ThinNet("vgg_16").variables(7))
    there = outward("keras", ThinNet("vgg_16"), source)
    words = {"kernel": "W_1", "bias": "b_1"}
    old = renamed(there, lambda name: "{0}/{0}_{1}".format(name.split("/")[0], words[name.split("/")[1]]))
    assert list(old)[:2] == ["block1_conv1/block1_conv1_W_1", "block1_conv1/block1_conv1_b_1"]
    assert same(inward(old)[1], source)


@pytest.mark.parametrize("prefix", ["module.", "backbone.model."])
def test_a_prefix_before_every_name_of_torch(prefix):
    source = thin.tensors(ThinNet("resnet_v1_50").variables(7))
    there = renamed(outward("torchvision", ThinNet("resnet_v1_50"), source), lambda name: prefix + name)
    assert same(inward(there)[1], source)


def test_depth_and_width_are_told_apart():
    for name in ("resnet_v1_50", "resnet_v1_101", "resnet_v1_152"):
        there = outward("timm", ThinNet(name), thin.tensors(ThinNet(name).variables(7)))
        assert inward(there)[0].net.name == name
    wide = {v.name: v.spec for v in NETS["mobilenet_v2_130"].variables(7)}
    made = links(layout_of("keras", "mobilenet_v2_130"), "MobilenetV2", wide)
    found = recognise({link.theirs[0]: Spec("float32", link.shape) for link in made}, NETS.values())
    assert str(found) == "MobilenetV2 1.3 of Keras, 7 classes"


def test_without_a_head_and_beside_other_tensors():
    net = ThinNet("inception_v3")
    source = thin.tensors([v for v in net.variables(7) if v.role in ("backbone", "statistic")])
    there = outward("keras", net, source)
    more = Tensors(
        {
            **there,
            "dense/kernel": from_arrays({"x": np.zeros((3, 2))})["x"],
            "adam/m/conv2d/kernel": there["conv2d/kernel"],
        }
    )
    found, back = inward(more)
    assert (found.classes, found.others) == (None, ("dense/kernel", "adam/m/conv2d/kernel"))
    assert str(found) == "InceptionV3 of Keras, without its head"
    assert same(back, source)


def test_another_net_is_not_taken():
    there = outward("torchvision", ThinNet("resnet_v1_50"), thin.tensors(ThinNet("resnet_v1_50").variables(7)))
    assert recognise(without(there, "layer3", "layer4").specs(), THIN) is None
    other = {name: spec._replace(shape=(*spec.shape[:-1], 99)) for name, spec in there.specs().items() if spec.shape}
    assert recognise(other, THIN) is None
    assert recognise({}, THIN) is None


# --- what has to be said -------------------------------------------------------------------------------------------


def test_the_background_goes_where_there_are_1001_classes():
    net = ThinNet("inception_v3")
    source = thin.tensors(net.variables(1001))
    written = from_slim("torchvision", net, source)
    there = operate(source, written.operations).tensors
    assert "class 0, the background, is left out: classes 1 to 1000 are 0 to 999 there" in written.notes
    weights = source["InceptionV3/Logits/Conv2d_1c_1x1/weights"].load()[0, 0]
    np.testing.assert_array_equal(there["fc.weight"].load(), weights.T[1:])
    assert there["AuxLogits.fc.bias"].spec.shape == (1000,)
    kept = outward("torchvision", net, source, background=True)
    np.testing.assert_array_equal(kept["fc.weight"].load(), weights.T)
    assert from_slim("torchvision", net, thin.tensors(net.variables(1000))).notes == ()


def test_what_is_made_and_what_is_left_out():
    net = ThinNet("inception_v3")
    source = thin.tensors(net.variables(7))
    written = from_slim("keras", net, source)
    assert written.notes == ("keras has no variables for these: InceptionV3/AuxLogits",)
    there = outward("torchvision", net, source)
    np.testing.assert_array_equal(there["Conv2d_1a_3x3.bn.weight"].load(), np.ones(3, np.float32))
    assert there["Conv2d_1a_3x3.bn.num_batches_tracked"].load() == 0
    there = outward("keras", ThinNet("resnet_v1_50"), thin.tensors(ThinNet("resnet_v1_50").variables(7)))
    np.testing.assert_array_equal(there["conv1_conv/bias"].load(), np.zeros(5, np.float32))


def test_scales_and_biases_are_folded():
    net = ThinNet("inception_v3")
    there = arrays(outward("timm", net, thin.tensors([v for v in net.variables(7) if v.role != "auxiliary"])))
    gamma = np.float32([2.0, -1.0, 0.0])
    there["Conv2d_1a_3x3.bn.weight"] = gamma
    back = inward(from_arrays(there))[1]
    scope = "InceptionV3/Conv2d_1a_3x3"
    kernel = there["Conv2d_1a_3x3.conv.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(back[f"{scope}/weights"].load(), kernel * gamma)
    mean = there["Conv2d_1a_3x3.bn.running_mean"]
    np.testing.assert_array_equal(back[f"{scope}/BatchNorm/moving_mean"].load(), mean * gamma)
    net = ThinNet("resnet_v1_50")
    there = arrays(outward("keras", net, thin.tensors(net.variables(7))))
    there["conv1_conv/bias"] = np.float32([1, 2, 3, 4, 5])
    back = inward(from_arrays(there))[1]
    mean = there["conv1_bn/moving_mean"]
    np.testing.assert_array_equal(
        back["resnet_v1_50/conv1/BatchNorm/moving_mean"].load(), mean - there["conv1_conv/bias"]
    )
    assert "resnet_v1_50/conv1/biases" not in back


def test_a_net_that_a_world_has_not_is_said():
    net = ThinNet("inception_v4")
    with pytest.raises(SelectionError, match="not known how keras writes slim InceptionV4; it is known how timm does"):
        from_slim("keras", net, thin.tensors(net.variables(7)))
    with pytest.raises(SelectionError, match="variables of slim InceptionV4 are missing, such as InceptionV4/Mixed_7d"):
        from_slim("timm", net, without(thin.tensors(net.variables(7)), "Mixed_7d"))


def test_what_is_not_the_same_function_is_said():
    assert layout_of("keras", "inception_v3").near == layout_of("timm", "inception_v4").near == ()
    assert layout_of("timm", "inception_v3").near == layout_of("torchvision", "inception_v3").near != ()
    assert len(layout_of("keras", "resnet_v1_50").near) == 2


# --- the files -----------------------------------------------------------------------------------------------------


def test_the_language_of_the_files():
    lines = (
        "define x|norm e{n} f{n}|end|each n=8,9|rows x|end|each b=1..2|each u=1,5 n=7,9..|conv a{b}/{u} x{n+1}.{b-1}"
    )
    lines += "|end|conv+bias c d|block e f|near not the same"
    layout = _section("keras", "any", [line.split() for line in lines.split("|")])
    assert [layer.ours for layer in layout.layers] == ["e8", "e9", "a1/1", "a1/5", "a2/1", "a2/5", "c", "e", "e"]
    assert [layer.theirs for layer in layout.layers] == [
        "f8",
        "f9",
        "x8.0",
        "x10.0",
        "x8.1",
        "x10.1",
        "d",
        "f.conv",
        "f.bn",
    ]
    assert [layer.biased for layer in layout.layers] == [False] * 6 + [True, False, False]
    assert layout.near == ("not the same",)
