"""Recipes: their meaning, and the message for each problem."""

import json

import numpy as np
import pytest
import yaml
from test_suggest import inception_of_2015

from ckpt_tools import from_arrays
from ckpt_tools.errors import RecipeError
from ckpt_tools.nets.registry import get_net
from ckpt_tools.recipe import SHIPPED, about, as_data, load_recipe, parse_recipe, shipped_recipes
from ckpt_tools.surgery import (
    OPERATIONS,
    Average,
    Background,
    Cast,
    Drop,
    EmaToWeights,
    Fill,
    Fold,
    Graft,
    HeadResize,
    InputChannels,
    Keep,
    Pad,
    Rename,
    Reshape,
    SliceOf,
    Strip,
    Transpose,
    operate,
)
from ckpt_tools.tensors import Tensor, Tensors

EVERYTHING = """\
# One of each.
- rename: {InceptionV3: net, 're:/biases$': /bias, scope:}
- rename: [a=b, b=a]
- keep: net
- drop: [Logits, '!biases']
- strip: optimizer, ema
- strip
- ema_to_weights
- cast: float16
- cast: {dtype: int8, select: a, keep_statistics: true}
- reshape: {select: fc6/weights, shape: [-1, 4096]}
- transpose: {select: [kernel], axes: [2, 3, 1, 0]}
- slice: {select: embedding, stop: 0x10, axis: 0}
- pad: {select: w, after: 2, value: 1e-3}
- fill: {name: global_step, dtype: int64}
- average: [a.ckpt, b.ckpt]
- graft: {source: 'b.ckpt:net', select: Logits, rename: {Logits: net/Logits}, any_shape: yes}
- head: 5
- head: {class_map: '3,_,7-8', init: normal}
- head: {class_map: [3, null]}
- head: {labels_from: [cat, dog], labels_to: dogs.txt}
- background: drop
- input_channels: 1
- fold
- fold: {what: gamma, select: "Conv2d_*"}
"""
OPERATIONS_OF_EVERYTHING = (
    Rename((("InceptionV3", "net"), ("re:/biases$", "/bias"), ("scope", ""))),
    Rename((("a", "b"), ("b", "a"))),
    Keep(("net",)),
    Drop(("Logits", "!biases")),
    Strip(("optimizer", "ema")),
    Strip(),
    EmaToWeights(),
    Cast("float16"),
    Cast("int8", ("a",), True),
    Reshape(("fc6/weights",), (-1, 4096)),
    Transpose(("kernel",), (2, 3, 1, 0)),
    SliceOf(("embedding",), 0, 16, 0),
    Pad(("w",), 0, 2, -1, 0.001),
    Fill(name="global_step", dtype="int64"),
    Average(("a.ckpt", "b.ckpt")),
    Graft("b.ckpt:net", ("Logits",), (("Logits", "net/Logits"),), True),
    HeadResize(5),
    HeadResize(class_map=(3, None, 7, 8), init="normal"),
    HeadResize(class_map=(3, None)),
    HeadResize(labels_from=("cat", "dog"), labels_to=("dog",)),
    Background("drop"),
    InputChannels(1),
    Fold(),
    Fold(("gamma",), ("Conv2d_*",)),
)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dogs.txt").write_text("dog\n")
    return tmp_path


def test_every_operation(in_folder):
    assert parse_recipe(EVERYTHING) == OPERATIONS_OF_EVERYTHING
    assert {each.command for each in OPERATIONS_OF_EVERYTHING} == set(OPERATIONS)


def test_yaml_and_back():
    assert parse_recipe(yaml.safe_dump(as_data(OPERATIONS_OF_EVERYTHING), sort_keys=False)) == OPERATIONS_OF_EVERYTHING
    assert parse_recipe(json.dumps(as_data(OPERATIONS_OF_EVERYTHING))) == OPERATIONS_OF_EVERYTHING


def test_yaml_and_back_with_texts_that_look_like_something_else():
    odd = (Rename((("1", "true"), ("a: b", "null"), ("re:x${y}", "- #"))), Keep(("~", "${y}", "1.5", "no")))
    assert parse_recipe(yaml.safe_dump(as_data(odd), sort_keys=False)) == odd


def test_an_opened_checkpoint_has_no_recipe():
    with pytest.raises(RecipeError, match="give the checkpoint's path"):
        as_data([Average((from_arrays({"a": np.float32(1)}),))])


WRONG = {
    "- renam: {a: b}": "r.yaml:1: unknown operation 'renam'; did you mean rename?",
    "- head: {clases: 5}": "r.yaml:1: head has no setting 'clases'; did you mean classes or class_map?",
    "- strip: [ema]\n- cast: {dtype: float16,\n    keep_statistics: maybe}": (
        "r.yaml:3: keep_statistics must be true or false, not 'maybe'"
    ),
    "- cast: {}": "r.yaml:1: cast needs dtype",
    "- cast: floot32": "r.yaml:1: cast: no element type 'floot32' to cast to; did you mean float32?",
    "- cast: [float16]": "r.yaml:1: dtype must be a text, not a list",
    "- head: five": "r.yaml:1: classes must be a whole number, not 'five'",
    "- head: 1.5": "r.yaml:1: classes must be a whole number, not '1.5'",
    "- head: {class_map: 1-x}": (
        "r.yaml:1: class map: '1-x' is not a class index. Give indices of old classes in the order of the new ones"
        ' ("3,7,_,10-19", _ for a class that is new).'
    ),
    "- head: {class_map: [1, a]}": "r.yaml:1: class_map must be a whole number, not 'a'",
    "- head: {labels_from: none.txt, labels_to: [a]}": (
        "r.yaml:1: none.txt: cannot be read as labels (No such file or directory)"
    ),
    "- pad: {select: a, after: 1, value: much}": "r.yaml:1: value must be a number, not 'much'",
    "- keep: {select: {a: b}}": "r.yaml:1: select must be a value or a list, not a mapping",
    "- keep: [a, [b]]": "r.yaml:1: select must be a text, not a list",
    "- keep: [a, null]": "r.yaml:1: select must be a text, not nothing",
    "- rename: {a: b, a: c}": "r.yaml:1: rename: a is renamed twice",
    "- rename: [a=b, a=c]": "r.yaml:1: rename: a is renamed twice",
    "- rename: ['a']": "r.yaml:1: rename rule 'a' is not OLD=NEW. As in model/InceptionV3=InceptionV3.",
    "- rename: {'re:(': a}": "r.yaml:1: rename rule re:(=a: missing ), unterminated subpattern at position 0",
    "- cast: {dtype: float16, dtype: float32}": "r.yaml:1: cast: dtype is set twice",
    "- ema_to_weights: 5": "r.yaml:1: ema_to_weights takes no value",
    "- [strip]": "r.yaml:1: each item is one operation, such as 'strip: [optimizer]'",
    "- {strip: [ema], keep: a}": "r.yaml:1: each item is one operation, such as 'strip: [optimizer]'",
    "strip: [ema]": "r.yaml:1: a recipe is a list of operations, such as '- strip: [optimizer]'",
    "": "r.yaml: a recipe is a list of operations, such as '- strip: [optimizer]'",
    "[]": "r.yaml:1: a recipe is a list of operations, such as '- strip: [optimizer]'",
    "- strip: \7": "r.yaml: not YAML: unacceptable character #x0007: special characters are not allowed",
    "- &a [*a]": "r.yaml:1: this anchor contains an alias of itself",
    "- keep: a\n- strip: &a\n  - ema\n  - [*a]": "r.yaml:2: this anchor contains an alias of itself",
    "- strip: [ema\n- keep: a": "r.yaml:2: not YAML: expected ',' or ']', but got ':'",
    "- keep: '${scope}'": "r.yaml:1: ${scope} has no value; give --set scope=VALUE",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_its_line(text, in_folder):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, path="r.yaml")
    assert str(caught.value) == WRONG[text]


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(RecipeError) as caught:
        parse_recipe("- hed: 5\n- keep: ${scope}\n- cast: {typ: float16}\n- strip: [opt]", parameters={"scop": "a"})
    assert str(caught.value).splitlines() == [
        "recipe: there is no parameter ${scop}; did you mean scope?",
        "recipe:1: unknown operation 'hed'; did you mean head?",
        "recipe:2: ${scope} has no value; give --set scope=VALUE",
        "recipe:3: cast has no setting 'typ'; did you mean dtype?",
        "recipe:4: strip knows optimizer, ema, step, not 'opt'",
    ]


def test_parameters():
    text = """\
- head: {classes: "${classes}", seed: "${seed:-3}"}
- rename: {"${old}": "new/${old}"}
- keep: ["$${classes}"]
"""
    made = parse_recipe(text, parameters={"classes": "5", "old": "a"})
    assert made == (HeadResize(5, seed=3), Rename((("a", "new/a"),)), Keep(("${classes}",)))


NET = {
    "net/conv1/weights": np.ones((3, 3, 3, 8), "float32"),
    "net/conv1/BatchNorm/moving_variance": np.ones(8, "float32"),
    "net/Logits/weights": np.ones((8, 4), "float32"),
    "net/Logits/biases": np.ones(4, "float32"),
}
TRAINED = NET | {
    f"{name}/ExponentialMovingAverage": NET[name] * 2 for name in ("net/conv1/weights", "net/Logits/weights")
}
TRAINED |= {"net/Logits/weights/Adam": NET["net/Logits/weights"], "global_step": np.int64(3)}
NEEDED = {
    "new-head": {"classes": "6"},
    "rename-scope": {"old": "net", "new": "model/net"},
    "map-head": {"labels_from": "old.txt", "labels_to": "new.txt"},
}
LEAVES = {  # recipe -> (tensors left, what has become of one of them)
    "add-background": (8, "net/Logits/biases", "float32[5]"),
    "drop-background": (8, "net/Logits/weights/Adam", "float32[8,3]"),
    "drop-head": (4, "net/conv1/weights", "float32[3,3,3,8]"),
    "ema-for-evaluation": (5, "net/conv1/weights", "float32[3,3,3,8]"),
    "grayscale-input": (8, "net/conv1/weights", "float32[3,3,1,8]"),
    "half-precision": (4, "net/conv1/BatchNorm/moving_variance", "float32[8]"),
    "map-head": (8, "net/Logits/weights", "float32[8,2]"),
    "new-head": (6, "net/Logits/weights", "float32[8,6]"),
    "rename-scope": (8, "model/net/Logits/weights", "float32[8,4]"),
    "strip-for-inference": (4, "net/conv1/weights", "float32[3,3,3,8]"),
}


@pytest.mark.parametrize("name", LEAVES)
def test_shipped_recipes_do_what_they_say(name, in_folder):
    (in_folder / "old.txt").write_text("0:cat\n1:dog\n2:cow\n3:bee\n")
    (in_folder / "new.txt").write_text("bee\nyak\n")
    made = operate(from_arrays(TRAINED), load_recipe(name, NEEDED.get(name))).tensors
    assert (len(made), str(made[LEAVES[name][1]].spec)) == (LEAVES[name][0], LEAVES[name][2])


@pytest.mark.parametrize("slot", ["", "/ExponentialMovingAverage"])
def test_inception_of_2015_becomes_slims(slot):
    source = Tensors((name, Tensor(spec, None)) for name, spec in inception_of_2015(slot).items())
    made = operate(source, load_recipe("inception-2015-to-slim")).tensors
    assert made.specs() == {variable.name + slot: variable.spec for variable in get_net("inception_v3").variables(1001)}


def test_an_alias_is_filled_in_once():
    """An escaped ${ would be a parameter the second time."""
    text = "- keep: &names [a, '$${b}', '${scope}/c']\n- drop: *names\n"
    keep, drop = parse_recipe(text, parameters={"scope": "net"})
    assert keep.select == drop.select == ("a", "${b}", "net/c")


def test_every_shipped_recipe_is_tried_here_and_says_what_it_is_for():
    assert set(shipped_recipes()) == {*LEAVES, "inception-2015-to-slim"}
    for path in shipped_recipes().values():
        assert path.parent == SHIPPED
        assert len(about(path)) > 40


def test_a_file_of_that_name_wins_over_a_shipped_recipe(in_folder):
    (in_folder / "drop-head").write_text("- keep: a\n")
    assert load_recipe("drop-head") == (Keep(("a",)),)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("drop-hed", "no recipe file drop-hed, and no shipped recipe of that name; did you mean drop-head"),
        ("x.yaml", "no recipe file x.yaml, and no shipped recipe of that name; shipped are add-background, "),
        (".", "is a directory"),
        ("bytes.yaml", "is not a text file in UTF-8"),
    ],
)
def test_a_recipe_that_cannot_be_read(source, reason, in_folder):
    (in_folder / "bytes.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(RecipeError, match=f"(?i){reason}"):
        load_recipe(source)
