"""Following the advice of a conflict solves it, for every cause in plan/conflicts.py and missing.py."""

import re
import shlex

import pytest

from ckpt_tools.adaptation import class_map_of_labels, parse_class_map
from ckpt_tools.nets.registry import NETS, get_net
from ckpt_tools.plan import PlanRules, Variable, make_plan
from ckpt_tools.plan.suggest import suggest
from ckpt_tools.tensors import Spec

F = "float32"


def small_net(classes=5, channels=3):
    """A convolution with batch norm, one without, and a head."""
    return [
        Variable("net/first/weights", Spec(F, (3, 3, channels, 8))),
        Variable("net/first/BatchNorm/beta", Spec(F, (8,))),
        Variable("net/first/BatchNorm/gamma", Spec(F, (8,))),
        Variable("net/first/BatchNorm/moving_mean", Spec(F, (8,)), False, "statistic"),
        Variable("net/first/BatchNorm/moving_variance", Spec(F, (8,)), False, "statistic"),
        *(Variable(f"net/block{i}/weights", Spec(F, (3, 3, 8, 8))) for i in range(10)),
        Variable("net/logits/weights", Spec(F, (8, classes)), True, "head", 1),
        Variable("net/logits/biases", Spec(F, (classes,)), True, "head", 0),
    ]


def specs(variables):
    return {variable.name: variable.spec for variable in variables}


def without(word):
    return {name: spec for name, spec in specs(small_net()).items() if word not in name}


def named(old, new):
    return {re.sub(old, new, name): spec for name, spec in specs(small_net()).items()}


def typed(advice):
    """The options in a sentence, as the shell and then the command take them apart: one set for each way out."""
    ways = []
    for option, word in re.findall(r"(--[a-z-]+)(?: ('[^']*'|[^\s.;:]+))?", advice):
        value = shlex.split(word)
        if option in ("--cast", "--adapt-input") and word != "cannot":
            ways.append({option[2:].replace("-", "_"): True})
        elif option == "--class-map" and word != "by":
            ways.append({"class_map": parse_class_map(word)})
        elif option in ("--exclude", "--rename") and word not in ("OLD=NEW", "selects"):
            ways.append({"exclude" if option == "--exclude" else "renames": value})
    return ways


WEIGHTS = {"net/first/weights": Spec(F, (5, 5, 3, 8))}
CASES = {
    "classes": (specs(small_net(9)), small_net()),
    "a background class less": (specs(small_net(1001)), small_net(1000)),
    "a background class more": (specs(small_net(1000)), small_net(1001)),
    "channels": (specs(small_net(channels=3)), small_net(channels=1)),
    "a type": ({name: Spec("float16", spec.shape) for name, spec in specs(small_net()).items()}, small_net()),
    "texts": (specs(small_net()) | {"net/block1/weights": Spec("string", (3, 3, 8, 8))}, small_net()),
    "a shape": (specs(small_net()) | WEIGHTS, small_net()),
    "statistics": (without("moving_"), small_net()),
    "a layer": (without("block3"), small_net()),
    "gamma": (without("gamma"), small_net()),
    "averages": (named("$", "/ExponentialMovingAverage"), small_net()),
    "a prefix": (named("^net", "model/net"), small_net()),
    "a scope": (named("net/first", "stem/conv"), small_net()),
    "Keras": (named("weights", "kernel"), small_net()),
    "separable": (
        specs(get_net("inception_v2").variables(5)),
        [
            each._replace(spec=Spec(F, (7, 7, 1, 8))) if each.name.endswith("depthwise_weights") else each
            for each in get_net("inception_v2").variables(5)
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_advised_leads_there(case):
    """Each option that is named makes the conflict go; what is excluded starts afresh with its batch norm."""
    source, net = CASES[case]
    (conflict,) = make_plan(source, net).conflicts
    ways = typed(conflict.advice)
    assert ways, conflict.advice
    for way in ways:
        plan = make_plan(source, net, PlanRules(**way))
        assert plan.conflicts == (), (way, plan.conflicts)
        if "exclude" in way and case == "channels":
            layer = [row for row in plan.rows if row.name.startswith("net/first/")]
            assert {row.action for row in layer} == {"init", "unused"}


def test_a_cause_that_is_not_mended_would_be_seen():
    source, net = CASES["channels"]
    assert make_plan(source, net, PlanRules(exclude=["logits"])).conflicts
    assert typed("--exclude 'net/a,net/b' initialises them afresh; --adapt-input converts the filters.") == [
        {"exclude": ["net/a,net/b"]},
        {"adapt_input": True},
    ]


@pytest.mark.parametrize(("old", "new"), [(3, 4), (4, 3), (9, 10), (10, 9), (1001, 5), (5, 1001), (1000, 999)])
def test_a_background_class_is_spoken_of_for_imagenet_only(old, new):
    """--class-map _,0-2 from three classes to four put every class in the place of the one after it."""
    (conflict,) = make_plan(specs(small_net(old)), small_net(new)).conflicts
    assert "background" not in conflict.advice
    assert "--labels-of-source FILE keeps classes by name" in conflict.advice


def test_labels_of_the_source_keep_each_class_where_its_name_is():
    kept = class_map_of_labels(["cat", "cow", "dog", "ship"], ["cat", "dog", "ship"])
    plan = make_plan(specs(small_net(3)), small_net(4), PlanRules(class_map=kept)).checked()
    assert plan.adaptations["net/logits/biases"].take == (0, None, 1, 2)


def test_texts_are_not_cast_and_that_is_not_advised():
    source, net = CASES["texts"]
    (conflict,) = make_plan(source, net).conflicts
    assert "--cast" not in conflict.advice
    (conflict,) = make_plan(source, net, PlanRules(cast=True)).conflicts
    assert "--exclude net/block1" in conflict.advice


def test_another_net_that_is_advised_exists():
    source = specs(get_net("resnet_v1_50").variables(5))
    for name in ("inception_v3", "resnet_v2_50", "vgg_16"):
        for conflict in make_plan(source, get_net(name).variables(5)).conflicts:
            for net in re.findall(r"--net (\w+)", conflict.advice):
                assert make_plan(source, NETS[net].variables(5)).conflicts == ()


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("channels", "separable", "a type", "texts")])
def test_what_suggest_proposes_leads_there_too(case):
    source, net = CASES[case]
    assert suggest(source, net).plan.conflicts == ()
