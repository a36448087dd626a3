"""The mini-language of heads, and a head's variables."""

import pytest

from ckpt_tools.errors import RecipeError
from ckpt_tools.nets.head import Dense, Dropout, Head, head_variables, parse_layers, variables_with_head
from ckpt_tools.nets.registry import get_net


def test_layers_are_read_in_order():
    assert parse_layers("dense(64,relu)|dropout(0.5)|dense(8)") == (Dense(64, "relu"), Dropout(0.5), Dense(8, "relu"))
    assert parse_layers(" ") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dense", "'dense' is not a layer. Write"),
        ("dense(64", r"'dense\(64' is not a layer"),
        ("dense(64)|", "'' is not a layer"),
        ("dense(units=64)", "is not a layer"),
        ("danse(64)", "no layer is called 'danse'; did you mean dense"),
        ("dense(64,rely)", "no activation is called 'rely'; did you mean relu"),
        ("dense(0)", "the number of units must be a whole number above 0"),
        ("dense(1.5)", "the number of units must be a whole number above 0"),
        ("dense(True)", "the number of units must be a whole number above 0"),
        ("dense(64,relu,3)", "dense takes units and activation"),
        ("dense()", "dense takes units and activation"),
        ("dropout(1)", "the rate must be at least 0 and below 1"),
        ("dropout(half)", "the rate must be at least 0 and below 1"),
        ("__import__('os').system('true')", "is not a layer"),
        ("dense(__import__('os'))", "is not a layer"),
    ],
)
def test_wrong_texts_are_explained(text, complaint):
    with pytest.raises(RecipeError, match=complaint):
        parse_layers(text)


def names(variables):
    return [(variable.name, variable.spec.shape, variable.class_axis) for variable in variables]


def test_own_head_is_the_nets():
    for name in ("inception_v3", "resnet_v2_50", "vgg_16"):
        net = get_net(name)
        own = {variable for variable in net.variables(9) if variable.role == "head"}
        assert set(head_variables(net, 9, Head())) == own
        assert set(variables_with_head(net, 9, Head())) == set(net.variables(9))


def test_layers_at_the_nets_own_place():
    assert names(head_variables(get_net("vgg_16"), 9, Head(parse_layers("dense(32)")))) == [
        ("vgg_16/fc8/dense_1/weights", (4096, 32), None),
        ("vgg_16/fc8/dense_1/biases", (32,), None),
        ("vgg_16/fc8/weights", (1, 1, 32, 9), 3),
        ("vgg_16/fc8/biases", (9,), 0),
    ]


def test_a_scope_of_its_own_leaves_the_nets_heads_out():
    variables = variables_with_head(get_net("inception_v3"), 9, Head(scope="Mine"))
    assert names(variables)[-2:] == [("Mine/fc/weights", (2048, 9), 1), ("Mine/fc/biases", (9,), 0)]
    assert not [variable for variable in variables if "Logits" in variable.name]


@pytest.mark.parametrize("scope", ["/Logits", "Logits/", "a//b", "my head", "_x", "tête"])
def test_a_scope_that_tensorflow_refuses_is_refused_before(scope):
    with pytest.raises(
        RecipeError, match=f"--head-scope {scope} is not a valid TensorFlow scope. Write it as Logits or"
    ):
        Head(scope=scope)


def test_scopes_that_tensorflow_takes():
    assert [Head(scope=scope).scope for scope in ("Logits", "net/My-head.2", "9/_x")]
