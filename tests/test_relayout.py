"""Files of Keras, torchvision and timm as sources: their plans, and that these are what is restored."""

import json

import numpy as np
import pytest
import thin
from test_layouts import outward
from thin import ThinNet

import ckpt_tools
from ckpt_tools import from_arrays, save_checkpoint
from ckpt_tools.cli.plan import main as plan_main
from ckpt_tools.formats import Checkpoint
from ckpt_tools.layouts import as_source, recognise, to_slim
from ckpt_tools.nets.opening import in_slims_names
from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import Plan, PlanRules, make_plan
from ckpt_tools.surgery import operate
from ckpt_tools.tensors import Tensors
from ckpt_tools.train.graph.restore import planned_tensors


def there(world, name, classes=7):
    """A net as `world` writes it, with random values, of a sixteenth of its channels."""
    net = ThinNet(name)
    return outward(world, net, thin.tensors(net.variables(classes)))


def planned(world, name, classes=7, tensors=None, **options):
    net, file = ThinNet(name), tensors or there(world, name)
    source, origin = as_source(recognise(file.specs(), [net]), file)
    return make_plan(source.specs(), net.variables(classes), PlanRules(origin=origin, **options)), source, file


def rows(plan, name):
    return [row for row in plan.rows if name in (row.name, row.source)]


def test_every_variable_is_taken_from_where_it_lies_in_the_file():
    plan, _, file = planned("keras", "resnet_v1_50")
    assert plan.conflicts == ()
    (conv,) = rows(plan, "resnet_v1_50/conv1/weights")
    assert (conv.action, conv.source, conv.rule) == ("relayout", "conv1_conv/kernel", "Keras' names")
    (mean,) = rows(plan, "resnet_v1_50/conv1/BatchNorm/moving_mean")
    assert (mean.rule, mean.reason) == (
        "Keras' names, biases folded",
        "is conv1_bn/moving_mean in the file: less conv1_conv/bias",
    )
    (bias,) = rows(plan, "conv1_conv/bias")
    assert (bias.action, bias.rule) == ("unused", "folded into others")
    sources = [row.source for row in plan.rows]
    assert sorted(sources) == sorted(file)  # each tensor of the file once
    assert all(row.source_shape == file[row.source].spec.shape for row in plan.rows)
    assert plan.summary["restored"] == plan.summary["variables"]
    assert plan.notes[0] == (
        "the checkpoint is ResNet-50 v1 of Keras, 7 classes: 320 tensors under Keras' names, "
        "53 of them folded into others"
    )
    assert plan.notes[1].endswith("publishes: caffe") and plan.notes[2].startswith("nearly the same function: Keras")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_axes_and_scales_are_said():
    plan, *_ = planned("torchvision", "inception_v3")
    (row,) = rows(plan, "InceptionV3/Conv2d_1a_3x3/weights")
    assert (row.source, row.rule) == ("Conv2d_1a_3x3.conv.weight", "torchvision's names, scales folded")
    assert row.reason == "is Conv2d_1a_3x3.conv.weight in the file: axes 2,3,1,0; times Conv2d_1a_3x3.bn.weight"


@pytest.mark.parametrize(("world", "name"), [("keras", "resnet_v1_50"), ("timm", "inception_v3"), ("keras", "vgg_16")])
def test_what_is_restored_is_what_converting_gives(world, name):
    file = there(world, name)
    random = np.random.default_rng(3)  # scales and biases that are no 1 and 0
    file = from_arrays({n: random.normal(size=t.spec.shape).astype(t.load().dtype) for n, t in file.items()})
    plan, source, _ = planned(world, name, tensors=file)
    restored = planned_tensors(plan, source, seed=0)
    converted = operate(file, to_slim(recognise(file.specs(), [ThinNet(name)]))).tensors
    taken = [row.name for row in plan.rows if row.action == "relayout"]
    assert len(taken) > 30
    for each in taken:
        np.testing.assert_array_equal(restored[each].load(), converted[each].load())
    first = taken[0]  # the comparison can fail
    assert not np.array_equal(restored[first].load(), file[rows(plan, first)[0].source].load()) or world == "keras"


def test_another_head_class_maps_and_types_go_by_the_same_plan():
    plan, *_ = planned("keras", "mobilenet_v1", 3, exclude=["Logits"], trainable=["Logits"])
    assert [row.name for row in plan.rows if row.action == "unused"] == ["conv_preds/kernel", "conv_preds/bias"]
    plan, source, file = planned("torchvision", "vgg_16", 2, class_map=[5, 1])
    (row,) = rows(plan, "vgg_16/fc8/weights")
    assert (row.action, row.source, row.source_shape) == ("adapt", "classifier.6.weight", (7, 257))
    restored = planned_tensors(plan, source, seed=0)["vgg_16/fc8/weights"].load()
    np.testing.assert_array_equal(restored[0, 0], file["classifier.6.weight"].load().T[:, [5, 1]])
    half = from_arrays({n: t.load().astype(np.float16) for n, t in there("keras", "vgg_16").items()})
    assert {c.cause for c in planned("keras", "vgg_16", tensors=half)[0].conflicts} == {"other element type"}
    plan, *_ = planned("keras", "vgg_16", tensors=half, cast=True)
    assert (plan.rows[0].action, plan.rows[0].source) == ("cast", "block1_conv1/kernel")
    plan, *_ = planned("keras", "vgg_16", 4)
    assert plan.conflicts[0].cause == "other number of classes"


def test_what_a_file_has_beside_the_net_is_unused():
    file = Tensors({**there("keras", "vgg_16"), **from_arrays({"extra/kernel": np.zeros(3, np.float32)})})
    plan, *_ = planned("keras", "vgg_16", tensors=file)
    assert [(row.name, row.rule) for row in plan.rows if row.action == "unused"] == [
        ("extra/kernel", "no such variable")
    ]


def test_only_a_source_of_another_library_is_brought_under_slims_names():
    slims = Checkpoint(thin.tensors(get_net("mobilenet_v1_025").variables(7)), "v2", "slim.ckpt")
    assert in_slims_names(slims) == (slims, None)
    net = get_net("mobilenet_v1_025")
    kerass = slims._replace(tensors=outward("keras", net, slims.tensors))
    found, origin = in_slims_names(kerass)
    assert list(found.tensors)[:1] == ["MobilenetV1/Conv2d_0/weights"]
    assert origin.title == "MobilenetV1 0.25 of Keras, 7 classes"
    assert in_slims_names(kerass, net.name)[1] == origin
    assert in_slims_names(kerass, "vgg_16") == (kerass, None)
    unknown = slims._replace(tensors=from_arrays({"a/kernel": np.zeros(3)}))
    assert in_slims_names(unknown) == (unknown, None)


def test_the_command_needs_no_option_for_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    net = get_net("mobilenet_v1_025")
    for file in ("k.h5", "k.weights.h5"):
        how = {"places": "weights" in file}
        save_checkpoint(outward("keras", net, thin.tensors(net.variables(7)), **how), file)
        assert plan_main([file, "--num-classes", "3", "--exclude", "Logits", "--trainable", "Logits"]) == 0
        out = capsys.readouterr().out
        made = ckpt_tools.make_plan(file, num_classes=3, exclude="Logits", trainable="Logits")  # Python's twin
        assert made.conflicts == () and f"plan         {made.digest}" in out.splitlines()
        assert "restored     135 of 137 variables" in out
        assert (
            "note         the checkpoint is MobilenetV1 0.25 of Keras, 7 classes: 137 tensors under Keras' names" in out
        )
        assert "MobilenetV1/Conv2d_0                  5  relayout          0  Keras' names" in out
        assert plan_main([file, "--num-classes", "3", "--suggest"]) == 0
        assert "--exclude MobilenetV1/Logits" in capsys.readouterr().out
    assert plan_main(["k.h5", "--num-classes", "7", "--rename", "conv1=MobilenetV1/Conv2d_0", "--net", net.name]) == 1
    assert "conv1/kernel" in capsys.readouterr().out  # with --rename, the file's own names are those that are mapped


def test_a_part_of_another_librarys_net_is_one_clear_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(from_arrays({"block5_conv3/kernel": np.zeros((3, 3, 2, 2), np.float32)}), "part.npz")
    assert plan_main(["part.npz"]) == 2
    assert capsys.readouterr().err == (
        "ckpt-plan: part.npz: cannot be taken as it is: Keras names, looks like VGG-16. A whole net of Keras, "
        "torchvision or timm is taken as it is; this one lacks layers, or has others: ckpt-inspect SRC lists them, "
        "ckpt-edit SRC --recipe FILE gives them slim's names and axes.\n"
    )
