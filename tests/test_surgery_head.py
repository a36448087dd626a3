"""Changing classes and input channels, including slots and averages, compared with explicit arithmetic."""

import numpy as np
import pytest

from ckpt_tools.errors import RecipeError, SelectionError
from ckpt_tools.nets.registry import NETS
from ckpt_tools.recipe import load_recipe
from ckpt_tools.surgery import Background, HeadResize, InputChannels, operate
from ckpt_tools.tensors import Tensor, Tensors, from_arrays


def trained(classes: int = 4) -> dict[str, np.ndarray]:
    """A net as a slim run leaves it: two heads, a hidden layer as wide as there are classes, slots and averages."""
    generator = np.random.default_rng(1)
    arrays = {
        "net/conv1/weights": (3, 3, 3, 8),
        "net/conv1/biases": (8,),
        "net/AuxLogits/hidden/weights": (1, 1, 8, classes),
        "net/AuxLogits/hidden/BatchNorm/beta": (classes,),
        "net/AuxLogits/last/weights": (1, 1, classes, classes),
        "net/AuxLogits/last/biases": (classes,),
        "net/Logits/fc/weights": (8, classes),
        "net/Logits/fc/biases": (classes,),
    }
    made = {name: generator.standard_normal(shape).astype("float32") for name, shape in arrays.items()}
    for slot in ("RMSProp", "RMSProp_1", "ExponentialMovingAverage"):
        made |= {f"{name}/{slot}": generator.random(made[name].shape, "float32") + 2 for name in arrays}
    return made | {"global_step": np.int64(9)}


def values(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: tensor.load() for name, tensor in tensors.items()}


HEADS = ["net/AuxLogits/last", "net/Logits/fc"]


def test_a_class_map_moves_columns_of_weights_biases_slots_and_averages():
    old = trained()
    source = from_arrays(old)
    result = HeadResize(class_map=(3, None, 0))(source)
    assert list(result) == list(old)
    new = values(result)
    for scope in HEADS:
        for leaf in ("weights", "biases"):
            for slot, start in (("", 0), ("/RMSProp", 1), ("/RMSProp_1", 0), ("/ExponentialMovingAverage", 0)):
                name = f"{scope}/{leaf}{slot}"
                assert new[name].shape == result[name].spec.shape == (*old[name].shape[:-1], 3)
                np.testing.assert_array_equal(new[name][..., [0, 2]], old[name][..., [3, 0]])
                np.testing.assert_array_equal(new[name][..., 1], start)
    touched = {f"{scope}/{leaf}" for scope in HEADS for leaf in ("weights", "biases")}
    for name in old:
        if not any(name == each or name.startswith(each + "/") for each in touched):
            assert result[name] is source[name]


def test_a_hidden_layer_as_wide_as_there_are_classes_is_left_alone():
    result = HeadResize(7)(from_arrays(trained()))
    assert result["net/AuxLogits/hidden/weights"].spec.shape == (1, 1, 8, 4)
    assert result["net/AuxLogits/last/weights"].spec.shape == (1, 1, 4, 7)


def test_classes_alone_make_a_head_of_new_classes():
    new = values(HeadResize(5)(from_arrays(trained())))
    assert not new["net/Logits/fc/weights"].any()
    assert new["net/Logits/fc/weights"].shape == (8, 5)


def test_normal_weights_are_cut_seeded_and_do_not_depend_on_the_order():
    source = from_arrays(trained())
    name, average = "net/Logits/fc/weights", "net/Logits/fc/weights/ExponentialMovingAverage"
    operation = HeadResize(5000, init="normal", stddev=0.1)
    first = values(operation(source))
    again = values(operation(Tensors(reversed(list(source.items())))))
    np.testing.assert_array_equal(first[name], again[name])
    np.testing.assert_array_equal(first[name], first[average])
    assert not np.array_equal(first[name], operation.__class__(5000, init="normal", seed=1)(source)[name].load())
    assert np.abs(first[name]).max() <= 0.2
    # A normal distribution cut at two standard deviations has 0.8796 of its standard deviation left.
    assert first[name].std() == pytest.approx(0.1 * 0.8796, rel=0.01)
    assert not first["net/Logits/fc/biases"].any()
    assert first[name].dtype == np.float32


def test_labels_make_the_class_map():
    old = trained()
    new = values(
        HeadResize(labels_from=("cat", "dog", "cow", "bee"), labels_to=("bee", "yak", "cat"))(from_arrays(old))
    )
    np.testing.assert_array_equal(
        new["net/Logits/fc/biases"], [*old["net/Logits/fc/biases"][3:], 0, *old["net/Logits/fc/biases"][:1]]
    )


def test_background_dropped_and_added():
    old = trained()
    dropped = Background("drop")(from_arrays(old))
    np.testing.assert_array_equal(dropped["net/Logits/fc/weights"].load(), old["net/Logits/fc/weights"][:, 1:])
    added = Background("add")(dropped)
    np.testing.assert_array_equal(added["net/Logits/fc/weights"].load()[:, 1:], old["net/Logits/fc/weights"][:, 1:])
    assert not added["net/Logits/fc/weights"].load()[:, 0].any()


def test_select_takes_one_head_alone():
    result = HeadResize(2, select=("Logits",))(from_arrays(trained()))
    assert result["net/Logits/fc/weights"].spec.shape == (8, 2)
    assert result["net/AuxLogits/last/weights"].spec.shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (HeadResize(class_map=(0, 4, 9)), "head: the head has classes 0 to 3, the class map asks for 4, 9"),
        (
            HeadResize(labels_from=("a", "b", "c"), labels_to=("a",)),
            "4 classes, labels_from has 3; does it leave out the background",
        ),
        (HeadResize(labels_from=tuple("abcd"), labels_to=("x",)), "none of the 1 new labels is an old one"),
        (HeadResize(2, select=("Logitz",)), "did you mean"),
        (HeadResize(2, select=("hidden",)), "no biases in hidden"),
        (HeadResize(2, select=("net",)), r"different numbers of classes \(net/conv1/biases has 8"),
    ],
)
def test_what_cannot_be_resized_is_said(operation, reason):
    with pytest.raises(SelectionError, match=reason):
        operation(from_arrays(trained()))


def test_no_head_in_the_usual_places():
    with pytest.raises(SelectionError, match="no head in the usual scopes.*`select`.* names"):
        HeadResize(2)(from_arrays({"net/out/weights": np.zeros((2, 2)), "net/out/biases": np.zeros(2)}))


@pytest.mark.parametrize("select", [(), (r"re:^fc\.",)])
def test_names_of_pytorch_are_sent_to_slim_s(select):
    state = {"fc.weight": np.ones((4, 8), np.float32), "fc.bias": np.ones(4, np.float32)}
    with pytest.raises(SelectionError, match="head: no .*; the names are PyTorch's: ckpt-convert --layout slim gives"):
        HeadResize(2, select=select)(from_arrays(state))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: HeadResize(), "needs classes"),
        (lambda: HeadResize(0), "1 class or more"),
        (lambda: HeadResize(3, class_map=(1, 2)), "3 classes asked for, but the map has 2"),
        (lambda: HeadResize(labels_from=("a",)), "go together"),
        (lambda: HeadResize(class_map=(1,), labels_from=("a",), labels_to=("a",)), "not both"),
        (lambda: HeadResize(2, init="xavier"), "zeros or normal, not 'xavier'"),
        (lambda: Background("remove"), "drop or add, not 'remove'"),
        (lambda: InputChannels(0), "1 channel or more"),
    ],
)
def test_a_wrong_field_is_said_when_the_operation_is_made(make, reason):
    with pytest.raises(RecipeError, match=reason):
        make()


def convolved(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One window of a convolution: picture (h, w, in), weights (h, w, in, out)."""
    return np.einsum("hwi,hwio->o", picture.astype("float64"), weights.astype("float64"))


def test_a_grey_picture_gives_what_it_gave_as_a_colour_picture():
    old = trained()
    result = InputChannels(1)(from_arrays(old))
    grey = np.random.default_rng(2).random((3, 3, 1))
    for name in ("net/conv1/weights", "net/conv1/weights/ExponentialMovingAverage"):
        new = result[name].load()
        assert (new.shape, new.dtype) == ((3, 3, 1, 8), np.float32)
        np.testing.assert_allclose(convolved(grey, new), convolved(grey.repeat(3, 2), old[name]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result["net/conv1/weights/RMSProp"].load(), np.ones((3, 3, 1, 8)))
    np.testing.assert_array_equal(result["net/conv1/weights/RMSProp_1"].load(), np.zeros((3, 3, 1, 8)))


@pytest.mark.parametrize("channels", [2, 4, 6, 7])
def test_more_channels_repeat_the_old_ones_and_keep_the_sum(channels):
    old = trained()["net/conv1/weights"]
    new = InputChannels(channels)(from_arrays({"net/conv1/weights": old}))["net/conv1/weights"].load()
    assert (new.shape, new.dtype) == ((3, 3, channels, 8), np.float32)
    # timm's adapt_input_conv, on axis 2 in place of 1.
    expected = np.tile(old, (1, 1, -(-channels // 3), 1))[:, :, :channels] * (3 / channels)
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    if channels % 3 == 0:
        np.testing.assert_allclose(new.sum(2), old.sum(2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("operation", "arrays", "reason"),
    [
        (InputChannels(3), {"c/weights": np.zeros((3, 3, 3, 2))}, "c/weights has 3 input channels already"),
        (InputChannels(1), {"c/weights": np.zeros((3, 3, 4, 2))}, "no convolution with 3 input channels"),
        (
            InputChannels(1),
            {f"c{i}/weights": np.zeros((3, 3, 3, 2)) for i in (1, 2)},
            "2 convolutions with 3 input channels: c1/weights, c2",
        ),
        (InputChannels(1, ("d",)), {"c/weights": np.zeros((3, 3, 3, 2))}, "d selects nothing"),
    ],
)
def test_the_first_convolution_must_be_clear(operation, arrays, reason):
    with pytest.raises(SelectionError, match=reason):
        operation(from_arrays(arrays))


# Other nets have a layer fc4 that is no head: LeNet's is named with --head-in. It sees grey images.
NAMED = [net for net in NETS.values() if net.name != "lenet"]


def published(net) -> Tensors:
    """The net's checkpoint as slim published it, values left out."""
    return Tensors((variable.name, Tensor(variable.spec, None)) for variable in net.variables(net.classes))


@pytest.mark.parametrize("net", NAMED, ids=lambda net: net.name)
def test_every_net_of_slims_can_be_resized(net):
    source = published(net)
    for operation, classes in [(HeadResize(7), 7), (Background("drop"), net.classes - 1)]:
        wanted = {variable.name: variable.spec for variable in net.variables(classes)}
        assert operation(source).specs() == {name: wanted[name] for name in source}
        assert wanted.keys() == source.keys()


@pytest.mark.parametrize("net", NAMED, ids=lambda net: net.name)
def test_drop_head_leaves_the_backbone_of_every_net(net):
    left = operate(published(net), load_recipe("drop-head")).tensors
    kept = [each.name for each in net.variables(net.classes) if each.role not in ("head", "auxiliary")]
    assert list(left) == [name for name in published(net) if name in kept]


@pytest.mark.parametrize("net", NAMED, ids=lambda net: net.name)
def test_the_first_convolution_of_every_net_is_found(net):
    edit = InputChannels(1).edit(published(net))
    if net.name == "inception_v2":
        assert edit.problems == (
            "input_channels: InceptionV2/Conv2d_1a_7x7/depthwise_weights is a depthwise convolution, "
            "whose channels do not add up",
        )
    else:
        assert [row.name for row in edit.rows] == [next(iter(each.name for each in net.variables(5) if stem(each)))]


def stem(variable) -> bool:
    return len(variable.spec.shape) == 4 and variable.spec.shape[2] == 3
