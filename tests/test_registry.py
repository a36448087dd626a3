"""The registry's tables, and recognising nets by names and shapes, without TensorFlow."""

import re
import subprocess
import sys

import pytest

from ckpt_tools.errors import SelectionError
from ckpt_tools.nets.foreign import looks_like
from ckpt_tools.nets.registry import NETS, find_net, get_net, names_by_scope, recognise
from ckpt_tools.plan import PlanRules, make_plan
from ckpt_tools.tensors import Spec


def source(net_name, num_classes=10):
    """The specs that a checkpoint of this net has."""
    net = get_net(net_name)
    return {row.name: Spec("float32", row.shape_for(num_classes)) for row in net.table}


def renamed(specs, old, new):
    return {name.replace(old, new, 1): spec for name, spec in specs.items()}


def test_all_nets_of_slims_family_are_there():
    assert [name for name in NETS if name != "tiny"] == [  # tiny_net.py adds that one, for other tests
        "inception_v1",
        "inception_v2",
        "inception_v3",
        "inception_v4",
        "inception_resnet_v2",
        *(f"resnet_v{version}_{depth}" for version in (1, 2) for depth in (50, 101, 152, 200)),
        "resnet_v1_14",  # ours
        "vgg_a",
        "vgg_16",
        "vgg_19",
        "alexnet_v2",
        "overfeat",
        *(f"mobilenet_v1{width}" for width in ("", "_075", "_050", "_025")),
        *(f"mobilenet_v2{width}" for width in ("", "_140", "_130", "_075", "_050", "_035")),
        "nasnet_mobile",
        "cifarnet",
        "lenet",
    ]


def test_published_facts():
    facts = {
        name: (net.image_size, net.preprocessing, net.classes, net.class_offset, net.head_scope)
        for name, net in NETS.items()
    }
    assert facts["inception_v3"] == (299, "inception", 1001, 0, "InceptionV3/Logits")
    assert facts["inception_v1"] == (224, "inception", 1001, 0, "InceptionV1/Logits")
    assert facts["resnet_v1_50"] == (224, "vgg", 1000, 1, "resnet_v1_50/logits")
    assert facts["resnet_v2_101"] == (224, "inception", 1001, 0, "resnet_v2_101/logits")
    assert facts["vgg_16"] == (224, "vgg", 1000, 1, "vgg_16/fc8")
    assert facts["overfeat"] == (231, "vgg", 1000, 1, "overfeat/fc8")
    assert facts["inception_v4"] == (299, "inception", 1001, 0, "InceptionV4/Logits")
    assert facts["inception_resnet_v2"] == (299, "inception", 1001, 0, "InceptionResnetV2/Logits")
    assert facts["mobilenet_v1_025"] == (224, "inception", 1001, 0, "MobilenetV1/Logits")
    assert facts["mobilenet_v2_140"] == (224, "inception", 1001, 0, "MobilenetV2/Logits")
    assert facts["nasnet_mobile"] == (224, "inception", 1001, 0, "final_layer")
    assert facts["cifarnet"] == (32, "cifarnet", 10, 0, "CifarNet/logits")
    assert facts["lenet"] == (28, "lenet", 10, 0, "LeNet/fc4")


# Parameters that can be trained, 1000 classes: the figures of the papers and of torchvision's and Keras' pages, where
# the nets are the same: VGG-11 132,863,336; VGG-16 138,357,544; VGG-19 143,667,240; ResNet-50 25,557,032.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg_a", 132_863_336), ("vgg_16", 138_357_544), ("vgg_19", 143_667_240), ("resnet_v1_50", 25_557_032)],
)
def test_parameters_are_those_of_the_literature(name, parameters):
    trainable = [variable for variable in get_net(name).variables(1000) if variable.trainable]
    assert sum(variable.spec.parameters for variable in trainable) == parameters


# The same for nets of which Keras' pages give the statistics of batch norm as well; timm's inception_v4 has 42,679,816
# without the statistics and with 31,584 gammas that slim's has not.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("inception_resnet_v2", 55_873_736),
        ("mobilenet_v1", 4_253_864),
        ("mobilenet_v2", 3_538_984),
        ("nasnet_mobile", 5_326_716),
        ("inception_v4", 42_679_816 + 31_584),
    ],
)
def test_parameters_are_those_of_other_libraries(name, parameters):
    variables = [variable for variable in get_net(name).variables(1000) if variable.role != "auxiliary"]
    assert sum(variable.spec.parameters for variable in variables) == parameters


# Names and shapes as people have printed them from the published files (tf.train.list_variables, NewCheckpointReader).
@pytest.mark.parametrize(
    ("net", "name", "shape"),
    [
        ("inception_v4", "InceptionV4/Mixed_7d/Branch_2/Conv2d_0e_3x1/weights", (3, 1, 512, 256)),
        ("inception_v4", "InceptionV4/AuxLogits/Conv2d_2a/BatchNorm/moving_mean", (768,)),
        ("inception_v4", "InceptionV4/AuxLogits/Aux_logits/weights", (768, 1001)),
        ("inception_v4", "InceptionV4/Logits/Logits/weights", (1536, 1001)),
        ("inception_resnet_v2", "InceptionResnetV2/Repeat_1/block17_20/Conv2d_1x1/weights", (1, 1, 384, 1088)),
        ("inception_resnet_v2", "InceptionResnetV2/AuxLogits/Logits/biases", (1001,)),
        ("inception_resnet_v2", "InceptionResnetV2/Repeat_2/block8_9/Conv2d_1x1/biases", (2080,)),
        ("mobilenet_v1_025", "MobilenetV1/Conv2d_13_pointwise/BatchNorm/moving_mean", (256,)),
        ("mobilenet_v1", "MobilenetV1/Conv2d_1_depthwise/depthwise_weights", (3, 3, 32, 1)),
        ("mobilenet_v2", "MobilenetV2/expanded_conv_16/project/weights", (1, 1, 960, 320)),
        ("mobilenet_v2_035", "MobilenetV2/Conv_1/weights", (1, 1, 112, 1280)),
        ("mobilenet_v2_140", "MobilenetV2/Logits/Conv2d_1c_1x1/weights", (1, 1, 1792, 1001)),
        ("nasnet_mobile", "aux_7/aux_logits/FC/biases", (1001,)),
        ("nasnet_mobile", "final_layer/FC/weights", (1056, 1001)),
    ],
)
def test_names_and_shapes_of_published_files(net, name, shape):
    assert {variable.name: variable.spec.shape for variable in get_net(net).variables(1001)}[name] == shape


def test_an_end_point_says_which_variables_lie_before_it():
    net = get_net("mobilenet_v2")
    behind = net.table[net.variables_until("layer_15/expansion_output") :]
    assert behind[0].name == "MobilenetV2/expanded_conv_13/depthwise/depthwise_weights"
    net = get_net("inception_resnet_v2")
    assert net.table[net.variables_until("PreAuxLogits")].name.startswith("InceptionResnetV2/Mixed_7a/")
    assert net.variables_until("Predictions") == len(net.table)


@pytest.mark.parametrize("net", NETS.values(), ids=list(NETS))
def test_every_table_fits_its_net(net):
    roles = {net.role(row) for row in net.table}
    assert {"backbone", "head"} <= roles
    assert ("auxiliary" in roles) == bool(net.auxiliary)
    with_classes = [row.name for row in net.table if row.class_axis is not None]
    assert f"{net.head_layer}/weights" in with_classes and f"{net.head_layer}/biases" in with_classes
    assert all(row.name.startswith(net.placed("")) for row in net.table)
    assert net.placed(net.landmark) in {row.name for row in net.table}
    assert net.end_points and len(set(net.end_points)) == len(net.end_points)


def test_variables_say_role_and_class_axis():
    variables = {variable.name: variable for variable in get_net("inception_v3").variables(7)}
    assert len(variables) == 388
    head = variables["InceptionV3/Logits/Conv2d_1c_1x1/weights"]
    assert (head.spec.shape, head.role, head.class_axis, head.trainable) == ((1, 1, 2048, 7), "head", 3, True)
    assert variables["InceptionV3/AuxLogits/Conv2d_2b_1x1/biases"].spec.shape == (7,)
    assert variables["InceptionV3/AuxLogits/Conv2d_1b_1x1/BatchNorm/moving_mean"].role == "auxiliary"
    statistic = variables["InceptionV3/Mixed_7c/Branch_0/Conv2d_0a_1x1/BatchNorm/moving_mean"]
    assert (statistic.role, statistic.trainable, statistic.class_axis) == ("statistic", False, None)


def test_without_classes_there_is_neither_head_nor_auxiliary_head():
    assert {variable.role for variable in get_net("inception_v3").variables(None)} == {"backbone", "statistic"}


def test_feature_channels():
    assert {
        name: get_net(name).feature_channels for name in ("inception_v1", "resnet_v1_50", "vgg_16", "overfeat")
    } == {
        "inception_v1": 1024,
        "resnet_v1_50": 2048,
        "vgg_16": 4096,
        "overfeat": 4096,
    }


def test_end_points_run_from_input_to_output():
    assert get_net("inception_v3").end_points[:3] == ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
    assert get_net("inception_v3").end_points[-4:] == ("Mixed_7c", "PreLogits", "Logits", "Predictions")
    assert "AuxLogits" not in get_net("inception_v3").end_points


def test_unknown_net_names_the_nearest():
    with pytest.raises(SelectionError, match="no net is called 'resnet_v1_5'; did you mean resnet_v1_50"):
        get_net("resnet_v1_5")


@pytest.mark.parametrize("name", NETS)
def test_each_net_is_recognised_as_itself(name):
    found = recognise(source(name, 12))
    assert (found.net.name, found.classes, found.scope, found.prefix) == (name, 12, NETS[name].scope, "")


@pytest.mark.parametrize("name", NETS)
def test_each_net_is_recognised_without_its_head(name):
    net = get_net(name)
    specs = {row.name: Spec("float32", row.shape) for row in net.table if row.class_axis is None}
    found = recognise(specs)
    assert (found.net.name, found.classes) == (name, None)
    assert "without its head" in str(found)


def test_phrase_for_the_published_file():
    assert str(recognise(source("inception_v3", 1001))) == "slim InceptionV3, 1001 classes, with AuxLogits"


def test_phrase_without_auxiliary_head():
    specs = {name: spec for name, spec in source("inception_v3").items() if "AuxLogits" not in name}
    found = recognise(specs)
    assert str(found) == "slim InceptionV3, 10 classes, without AuxLogits"
    assert found.auxiliary is False


def test_under_a_prefix():
    found = recognise(renamed(source("inception_v3"), "InceptionV3", "model/InceptionV3"))
    assert (found.prefix, found.scope) == ("model/", "model/InceptionV3")
    assert str(found) == "slim InceptionV3, 10 classes, with AuxLogits, under model/InceptionV3"


def test_a_net_without_a_scope_lies_under_any():
    specs = {f"model/{name}": spec for name, spec in source("nasnet_mobile").items()}
    found = recognise(specs)
    assert (found.net.name, found.prefix, found.scope) == ("nasnet_mobile", "model/", "model")
    assert found.net.under("", "conv0/weights") == "conv0/weights"
    assert found.net.under(found.scope, "conv0/weights") == "model/conv0/weights"
    assert found.net.role(found.net.table[0]) == "backbone" and str(found).endswith("with aux_7, under model")


def test_under_another_scope_the_depth_is_told_by_the_units():
    found = recognise(renamed(source("resnet_v1_101"), "resnet_v1_101", "backbone"))
    assert (found.net.name, found.scope, found.prefix) == ("resnet_v1_101", "backbone", "")


def test_without_any_scope():
    found = recognise(renamed(source("vgg_16"), "vgg_16/", ""))
    assert str(found) == "slim VGG-16, 10 classes, without its scope"


def test_slots_and_averages_do_no_harm():
    specs = source("resnet_v2_50", 3)
    mixed = {f"{name}/ExponentialMovingAverage": spec for name, spec in specs.items()}
    for name, spec in specs.items():
        mixed |= {f"{name}/Adam": spec, f"{name}/Adam_1": spec, name: spec}
    assert str(recognise({**mixed, "global_step": Spec("int64", ())})) == "slim ResNet-50 v2, 3 classes"


def test_moving_averages_alone_are_named():
    specs = {f"{name}/ExponentialMovingAverage": spec for name, spec in source("vgg_a").items()}
    assert str(recognise(specs)) == "slim VGG-11, 10 classes, moving averages only"


def test_other_widths_are_said_and_no_net_is_offered():
    thin = {name: Spec("float32", (*shape[:-1], 3)) for name, (_, shape) in source("inception_v3").items()}
    found = recognise(thin)
    assert found.net is None
    assert str(found).startswith("slim InceptionV3 with layers of other widths, 3 classes")


def test_a_part_of_a_net_is_called_a_part():
    cut = {
        name: spec for name, spec in source("inception_v3").items() if "Mixed_7" not in name and "Logits" not in name
    }
    found = recognise(cut)
    assert found.net.name == "inception_v3"
    assert str(found) == (
        "part of slim InceptionV3 (280 of 376 variables of its backbone), without its head, without AuxLogits"
    )


def test_a_few_equal_names_are_not_a_net():
    specs = {"conv1/weights": Spec("float32", (11, 11, 3, 64)), "conv1/biases": Spec("float32", (64,))}
    assert recognise(specs) is None
    assert recognise({}) is None


def test_another_net_under_the_same_layer_names_is_not_taken():
    specs = {"MobilenetV3/Conv/weights": Spec("float32", (3, 3, 3, 16))}
    found = recognise(specs)
    assert found.net is None and str(found) == "slim MobilenetV3, which is not one of the nets here"


def test_layers_that_many_nets_have_are_not_a_net_with_other_widths():
    specs = {f"net/{layer}/{kind}": Spec("float32", (7,)) for layer in ("conv1", "conv2", "fc3", "fc4")
             for kind in ("weights", "biases")}  # fmt: skip
    assert recognise(specs) is None
    assert str(recognise(renamed(specs, "net/", "LeNet/"))).startswith("slim LeNet with layers of other widths")


@pytest.mark.parametrize(
    ("names", "phrase"),
    [
        (["mixed_17x17x768e/branch1x1/Conv/weights"], "2015 Inception names, looks like InceptionV3"),
        (["block5_conv3/kernel", "block5_conv4/kernel"], "Keras names, looks like VGG-19"),
        (["conv4_block1_1_conv/kernel", "conv4_block23_1_conv/kernel"], "Keras names, looks like ResNet-101 v1"),
        (["conv4_block6_1_conv/kernel", "conv2_block1_preact_bn/gamma"], "Keras names, looks like ResNet-50 v2"),
        (["res4f_branch2a/kernel"], "Keras names, looks like ResNet-50 v1"),
        (
            [f"conv2d_{i}/kernel" for i in range(1, 95)] + ["batch_normalization_94/beta"],
            "Keras names, looks like InceptionV3",
        ),
        ([f"layer3.{i}.conv3.weight" for i in range(36)], "torch names, looks like ResNet-152 v1"),
        (["Mixed_7c.branch1x1.conv.weight"], "torch names, looks like InceptionV3"),
        (["features.0.weight", "features.28.weight", "classifier.6.weight"], "torch names, looks like VGG-16"),
        (["dense/kernel", "dense/bias"], None),
        ([f"conv2d_{i}/kernel" for i in range(1, 94)], None),
    ],
)
def test_names_from_elsewhere(names, phrase):
    assert looks_like(names) == phrase


def test_real_files(SHARED):
    from ckpt_tools import open_checkpoint

    trained = open_checkpoint(SHARED / "checkpoints" / "inception_v3.ckpt")
    assert str(recognise(trained.tensors.specs())) == "slim InceptionV3, 1001 classes, with AuxLogits"
    thin = open_checkpoint(SHARED / "fixtures" / "tf115_v2_inception_v3_thin" / "inception_v3.ckpt")
    assert recognise(thin.tensors.specs()).net is None
    assert str(recognise(thin.tensors.specs())).startswith("slim InceptionV3 with layers of other widths, ")


def test_neither_tensorflow_nor_numpy_is_imported():
    program = (
        "import sys; from ckpt_tools.nets.registry import recognise; recognise({});"
        "print([m for m in ('tensorflow', 'numpy', 'tf_slim') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


FOREIGN = {
    "MobilenetV3": (["MobilenetV3/Conv/weights"], "slim MobilenetV3"),
    "Keras": (["block5_conv3/kernel", "block1_conv1/kernel"], "Keras names, looks like VGG-16"),
    "2015": (["mixed_17x17x768e/branch1x1/Conv/weights"], "2015 Inception names, looks like InceptionV3"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_net_that_is_recognised_and_is_none_of_those_here(name):
    names, phrase = FOREIGN[name]
    with pytest.raises(SelectionError) as caught:
        find_net(None, {each: Spec("float32", (1, 1, 3, 4)) for each in names}, "model.ckpt")
    said = str(caught.value)
    assert said.startswith(f"model.ckpt: cannot be taken as it is: {phrase}")
    advised = re.findall(r"--net (\w+)", said)
    assert all(each in NETS for each in advised)
    assert bool(advised) == (name == "2015")


def test_a_net_of_other_widths_is_not_taken():
    thin = {n: Spec("float32", tuple(max(1, side // 2) for side in s.shape)) for n, s in source("vgg_16").items()}
    with pytest.raises(SelectionError, match="cannot be taken as it is: slim VGG-16 with layers of other widths"):
        find_net(None, thin, "thin.ckpt")


def test_advice_names_no_net_that_is_not_here():
    """A plan is told which nets there are: what is registered is named, what is not is no net here."""
    nets = names_by_scope()
    assert set(nets) == {net.scope for net in NETS.values() if net.scope}
    assert all(NETS[name].scope == scope for scope, name in nets.items())
    wanted = get_net("inception_v3").variables(5)

    def advice(scope, **how):
        return make_plan({f"{scope}/conv/weights": Spec("float32", (3,))}, wanted, PlanRules(**how)).conflicts[0].advice

    assert advice("MobilenetV3", nets=nets) == (
        "The checkpoint is MobilenetV3, which is not one of the nets here: give a checkpoint of InceptionV3."
    )
    assert advice("MobilenetV2", nets=nets) == (
        "Use --net mobilenet_v2: the checkpoint is MobilenetV2, not InceptionV3."
    )
    assert advice("MyNet", nets={**nets, "MyNet": "mine"}).startswith("Use --net mine: the checkpoint is MyNet, not")
    assert advice("MobilenetV2") == "The checkpoint is MobilenetV2: give a checkpoint of InceptionV3."
