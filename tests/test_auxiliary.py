"""--aux: the auxiliary head of Inception is trained as in slim, and is in the plan like any other layer."""

import numpy as np
import pytest

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import RecipeError
from ckpt_tools.nets.registry import get_net
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.request import plans_of

LABELS = ("cat", "dog", "frog")


def plan(net, **how):
    """The plan for a published checkpoint of the net."""
    source = {row.name: row.spec for row in get_net(net).variables(get_net(net).classes)}
    options = Options(checkpoint="x", aux=True, **how)
    (made,) = plans_of(options, source, get_net(net), len(LABELS))
    return made


def test_its_classes_are_a_conflict_like_any_other():
    conflicts = plan("inception_v3", exclude=("Logits",)).conflicts
    assert {name for conflict in conflicts for name in conflict.names} >= {
        "InceptionV3/AuxLogits/Conv2d_2b_1x1/weights"
    }
    assert not plan("inception_v3", exclude=("Logits,AuxLogits/Conv2d_2b_1x1",)).conflicts


def test_it_is_trained_only_where_it_is_selected():
    made = plan("inception_v3", exclude=("Logits,AuxLogits/Conv2d_2b_1x1",), trainable=("AuxLogits",))
    assert {row.name.split("/")[1] for row in made.rows if row.trainable} == {"AuxLogits"}


def test_nets_without_one_say_so():
    with pytest.raises(RecipeError, match="--aux: there is no auxiliary head in resnet_v1_50"):
        plan("resnet_v1_50", exclude=("logits",))
    with pytest.raises(RecipeError, match="--aux: there is no auxiliary head beside a head in New"):
        plan("inception_v3", head_scope="New")


def test_it_counts_four_tenths():
    import tensorflow.compat.v1 as tf

    from ckpt_tools.train.graph.towers import Tower, objective

    random = np.random.default_rng(0)
    logits, auxiliary = random.normal(size=(2, 5, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1], np.int32)

    def cross_entropy(values):
        return -(values - np.log(np.exp(values).sum(1, keepdims=True)))[np.arange(5), labels]

    with tf.Graph().as_default(), tf.Session() as session:
        parts = dict.fromkeys(Tower._fields)
        tower = Tower(**{**parts, "logits": tf.constant(logits), "labels": tf.constant(labels)})
        alone = session.run(objective(tower, Options(), None))
        both = session.run(objective(tower._replace(auxiliary_logits=tf.constant(auxiliary)), Options(), None))
    np.testing.assert_allclose(alone, cross_entropy(logits), rtol=1e-5)
    np.testing.assert_allclose(both, cross_entropy(logits) + 0.4 * cross_entropy(auxiliary), rtol=1e-5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tiny_net import write_photos

    return write_photos(tmp_path_factory.mktemp("auxiliary") / "photos", train=2, validation=1)


def test_two_steps_train_it_and_stock_slim_can_load_the_file(photos, tmp_path):
    """From nothing, so that no published checkpoint is needed."""
    from ckpt_tools.train.run.finetune import finetune

    options = {
        "net": "inception_v3", "data": photos, "image_size": 75, "batch_size": 2, "device": "cpu", "aux": True,
        "trainable": ("AuxLogits,Logits",), "optimizer": "sgd", "train_dir": str(tmp_path / "run"),
        "steps": 2, "save_steps": 1, "eval_steps": 2, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    result = finetune(Options(**options))
    moved = {name.split("/")[1] for name in result.freeze_audit["changed"]}
    assert moved == {"AuxLogits", "Logits"}
    first, second = (open_checkpoint(tmp_path / f"run/model.ckpt-{step}").tensors for step in (1, 2))
    weights = "InceptionV3/AuxLogits/Conv2d_1b_1x1/weights"
    assert (first[weights].load() != second[weights].load()).any()
    expected = {variable.name for variable in get_net("inception_v3").variables(3)}
    assert expected <= set(second)


@pytest.mark.slow
def test_two_devices_make_the_step_of_one(photos, tmp_path):
    """Momentum's slots after one step are its gradients. A batch norm that trains would see the images of its part."""
    from ckpt_tools.train.run.finetune import finetune

    options = {
        "net": "inception_v3", "data": photos, "image_size": 75, "batch_size": 3, "device": "cpu", "aux": True,
        "trainable": ("AuxLogits,Logits",), "bn": ("*=frozen",), "optimizer": "momentum", "weight_decay": 0.0,
        "steps": 1, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    found = []
    for name, devices in (("one", None), ("two", "2")):
        finetune(Options(**options, devices=devices, train_dir=str(tmp_path / name)))
        tensors = open_checkpoint(tmp_path / name / "model.ckpt-1").tensors
        found.append({each: tensors[each].load() for each in tensors if each.endswith("/Momentum")})
    one, two = found
    assert {name.split("/")[1] for name in one} == {"AuxLogits", "Logits"}
    for name, gradient in one.items():
        assert 0 < np.linalg.norm(gradient - two[name]) < 1e-4 * np.linalg.norm(gradient), name


@pytest.mark.slow
def test_without_the_option_the_auxiliary_head_stays_as_it_was_made(photos, tmp_path):
    """The comparison above can fail."""
    from ckpt_tools.train.run.finetune import finetune

    options = Options(
        net="inception_v3", data=photos, image_size=75, batch_size=2, device="cpu", trainable=("Logits",),
        optimizer="sgd", train_dir=str(tmp_path / "run"), steps=1, cache="off",
    )  # fmt: skip
    moved = {name.split("/")[1] for name in finetune(options).freeze_audit["changed"]}
    assert moved == {"Logits"}
