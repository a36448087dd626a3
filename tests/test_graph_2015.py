"""The frozen Inception of 2015 and retrain.py's graph as sources, like files of other libraries."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow").compat.v1

from graph_2015 import Graph2015  # noqa: E402
from thin import ThinNet, thin  # noqa: E402

from ckpt_tools import open_checkpoint  # noqa: E402
from ckpt_tools.cli.convert import main as convert  # noqa: E402
from ckpt_tools.layouts import as_source, recognise, to_slim  # noqa: E402
from ckpt_tools.nets.comparing import Ours, _aligned  # noqa: E402
from ckpt_tools.nets.registry import get_net  # noqa: E402
from ckpt_tools.plan import PlanRules, make_plan  # noqa: E402
from ckpt_tools.surgery import operate  # noqa: E402

NET = ThinNet("inception_v3")


def width(channels):
    return thin((channels,))[0]


def test_every_constant_has_its_place_under_slims_names(tmp_path):
    path = Graph2015(9, width).save(tmp_path / "classify_image_graph_def.pb")
    opened = open_checkpoint(path).tensors
    found = recognise(opened.specs(), [NET])
    assert str(found) == "InceptionV3 of the 2015 graph, 9 classes"
    assert found.others == () and all("AuxLogits" in name for name in found.missing)
    assert found.near == ("the pooling in a branch of the last module takes the maximum, slim's the mean",)
    slims = operate(opened, to_slim(found)).tensors
    gamma = opened["mixed_10/tower/mixed/conv_1/batchnorm/gamma"].load()
    weights = opened["mixed_10/tower/mixed/conv_1/conv2d_params"].load()
    np.testing.assert_array_equal(slims["InceptionV3/Mixed_7c/Branch_1/Conv2d_0c_3x1/weights"].load(), weights * gamma)
    np.testing.assert_array_equal(
        slims["InceptionV3/Logits/Conv2d_1c_1x1/weights"].load()[0, 0], opened["softmax/weights"].load()
    )
    source, origin = as_source(found, opened)
    plan = make_plan(source.specs(), NET.variables(9), PlanRules(origin=origin))
    (row,) = [row for row in plan.rows if row.name == "InceptionV3/Conv2d_1a_3x3/weights"]
    assert (row.action, row.rule) == ("relayout", "the 2015 graph's names, scales folded")
    assert "images are scaled as for the weights that the 2015 graph publishes: lenet" in plan.notes


def test_a_gamma_that_the_graph_does_not_use_is_no_variable(tmp_path):
    path = Graph2015(9, width, scale=False).save(tmp_path / "graph.pb")
    opened = open_checkpoint(path).tensors
    assert not [name for name in opened if name.endswith("gamma")]
    slims = operate(opened, to_slim(recognise(opened.specs(), [NET]))).tensors
    np.testing.assert_array_equal(
        slims["InceptionV3/Conv2d_1a_3x3/weights"].load(), opened["conv/conv2d_params"].load()
    )


def test_the_graph_of_retrain_py_has_its_own_head(tmp_path):
    path = Graph2015(9, width).retrained(4).save(tmp_path / "retrained_graph.pb")
    opened = open_checkpoint(path).tensors
    found = recognise(opened.specs(), [NET])
    assert (found.classes, found.others) == (4, ())
    head = operate(opened, to_slim(found)).tensors["InceptionV3/Logits/Conv2d_1c_1x1/biases"]
    np.testing.assert_array_equal(head.load(), opened["final_training_ops/biases/final_biases"].load())


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "same"), [("AvgPool", True), ("MaxPool", False)])
def test_the_net_computes_what_the_graph_does_and_slims_own_but_for_one_pooling(
    tmp_path, monkeypatch, capsys, pool, same
):
    """As a user types it: the head of retrain.py, its labels, and the whole net at 299 pixels."""
    monkeypatch.chdir(tmp_path)
    made = Graph2015(9, pool=pool).retrained(4)
    made.save("retrained_graph.pb")
    assert convert(["retrained_graph.pb", "inception.ckpt", "--layout", "slim"]) == 0
    assert "function  the same in inception_v3_2015, the net here that is taken for it" in capsys.readouterr().out
    images = np.random.default_rng(1).uniform(-1, 1, (1, 299, 299, 3)).astype(np.float32)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        fed = tf.placeholder(tf.float32, images.shape)
        (logits,) = tf.import_graph_def(
            made.definition, {"Mul:0": fed}, ["final_training_ops/Wx_plus_b/add:0"], name=""
        )
        expected = session.run(logits, {fed: images})
        assert graph.get_operation_by_name("conv/batchnorm").type == "BatchNormWithGlobalNormalization"
    apart = {}
    for name in ("inception_v3", "inception_v3_2015"):
        ours = Ours(get_net(name), open_checkpoint("inception.ckpt").tensors)
        got, _ = _aligned(*ours.run(images, ["logits:0"]), expected)
        apart[name] = np.abs(got - expected).max() / np.abs(expected).max()
    exact, near = ("inception_v3", "inception_v3_2015") if same else ("inception_v3_2015", "inception_v3")
    assert apart[exact] < 1e-5 and 1e-3 < apart[near] < 0.5
