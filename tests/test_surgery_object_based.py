"""Editing TensorFlow 2's object-based checkpoints: kinds of tensors, and an object graph that fits the result."""

import numpy as np
import pytest

from ckpt_tools import open_checkpoint, save_checkpoint
from ckpt_tools.cli.edit import main
from ckpt_tools.formats.object_graph import GRAPH_KEY, attributes
from ckpt_tools.surgery import Average, Drop, Fill, Graft, HeadResize, Rename, Strip, operate

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
ALL = ["body/weights", "body/biases", "logits/weights", "logits/biases"]


def test_a_counter_without_a_name_is_a_step(GOLDEN):
    tensors = open_checkpoint(GOLDEN / "tf221_object").tensors
    assert "Variable" in tensors
    left = operate(tensors, [Rename((("Variable", "counter"),)), Strip(("step",))]).tensors
    assert {"save_counter", "counter"} & set(left) == set()
    assert set(left) == set(tensors) - {"save_counter", "Variable"}


def test_the_graph_of_a_real_file_follows(GOLDEN):
    tensors = open_checkpoint(GOLDEN / "tf221_object", names="stored").tensors
    low, first = "model/low" + VALUE, next(name for name in tensors if name.endswith("/w" + VALUE))
    surgery = operate(tensors, [Drop((low,)), Rename(((first, "other/key"),))])
    before = dict(map(reversed, attributes(tensors[GRAPH_KEY].load()[()])))
    after = dict(map(reversed, attributes(surgery.tensors[GRAPH_KEY].load()[()])))
    assert after == {"other/key" if key == first else key: name for key, name in before.items() if key != low}
    (row,) = (row for row in surgery.rows if row.name == GRAPH_KEY)
    assert (row.action, row.detail) == ("rewrite", "keys: 1 renamed, 1 gone")


def test_a_graph_with_nothing_to_change_is_copied_as_stored(GOLDEN):
    tensors = open_checkpoint(GOLDEN / "tf221_object", names="stored").tensors
    assert operate(tensors, []).tensors[GRAPH_KEY].stored is not None
    assert GRAPH_KEY not in operate(tensors, [Drop((GRAPH_KEY, "model/low" + VALUE))]).tensors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two layers whose variables have the same names, and Adam's slots: names alone do not tell which is which."""
    tf = pytest.importorskip("tensorflow")
    net = net_of(tf)
    adam = tf.compat.v1.train.AdamOptimizer(0.1)
    pairs = [(tf.ones_like(variable), variable) for variable in net.variables]
    adam.apply_gradients(pairs)
    return tf.train.Checkpoint(net=net, adam=adam).save(str(tmp_path_factory.mktemp("object") / "model"))


def net_of(tf, value=1.0):
    class Layer(tf.Module):
        def __init__(self):
            self.weights = tf.Variable(np.full((3, 4), value, "float32"), name="weights")
            self.biases = tf.Variable(np.full(4, value, "float32"), name="biases")

    net = tf.Module()
    net.body, net.logits = Layer(), Layer()
    return net


def test_slots_are_known_by_their_keys(trained):
    tensors = open_checkpoint(trained).tensors
    slots = {name: key for name, key in tensors.stored_names.items() if "/.OPTIMIZER_SLOT/" in key}
    assert len(slots) == 8
    assert not set(slots) & set(operate(tensors, [Strip(("optimizer",))]).tensors)
    resized = HeadResize(classes=2)(Rename((("weights", "of/weights"),))(tensors))
    of_the_head = [name for name, key in resized.stored_names.items() if key.startswith("net/logits/")]
    assert len(of_the_head) == 6
    assert {resized[name].spec.shape[-1] for name in of_the_head} == {2}


@pytest.mark.parametrize(
    ("flags", "restored"),
    [
        (["--strip", "optimizer,step"], ALL),
        (["--drop", "/net/logits"], ALL[:2]),
        (["--keep", "/net/body"], ALL[:2]),
        (["--rename", "=old"], ALL),
        (["--strip", "optimizer", "--rename", "net=old"], ALL),
    ],
)
def test_tensorflow_restores_what_is_left(trained, tmp_path, flags, restored):
    import tensorflow as tf

    out = str(tmp_path / "out")
    assert main([trained, "-o", out, "--stored-names", *flags]) == 0
    reader = tf.train.load_checkpoint(out)
    keys = {key for _, key in attributes(reader.get_tensor(GRAPH_KEY))}
    assert keys == reader.get_variable_to_shape_map().keys() - {GRAPH_KEY}
    net = net_of(tf, value=7.0)
    tf.train.Checkpoint(net=net).restore(out).expect_partial()
    for name in ALL:
        layer, _, variable = name.partition("/")
        value = getattr(getattr(net, layer), variable).numpy()
        assert (not np.any(value == 7.0)) == (name in restored), name


def test_others_go_by_their_keys_too(trained, tmp_path):
    tensors = open_checkpoint(trained, names="stored").tensors
    other = str(tmp_path / "other")
    save_checkpoint(operate(tensors, [Fill(("net",), 3.0)]).tensors, other)
    mean = operate(tensors, [Average((other,))]).tensors
    grafted = operate(tensors, [Graft(other, ("/net/logits",))]).tensors
    assert set(mean) == set(grafted) == set(tensors)
    for part, in_mean, in_grafted in (("body", 1.95, 0.9), ("logits", 1.95, 3.0)):
        key = f"net/{part}/weights{VALUE}"
        np.testing.assert_allclose(mean[key].load(), in_mean, rtol=1e-6)
        np.testing.assert_allclose(grafted[key].load(), in_grafted, rtol=1e-6)


def test_tensorflow_fails_where_the_graph_does_not_follow(trained, tmp_path):
    import tensorflow as tf

    tensors = open_checkpoint(trained, names="stored").tensors
    left = {name: tensor for name, tensor in tensors.items() if "logits" not in name}
    save_checkpoint(left, tmp_path / "out")
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.Checkpoint(net=net_of(tf)).restore(str(tmp_path / "out"))
