"""make_plan: actions, rules, conflicts, batch norm, the digest, and the round trip through JSON."""

import json

import pytest

from ckpt_tools.errors import PlanError, RecipeError, SelectionError
from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import ACTIONS, Adaptation, Conflict, Plan, PlanRules, Row, Variable, make_plan
from ckpt_tools.plan.batch_norm import BatchNormLayer, parse_policies, policies, summary
from ckpt_tools.tensors import Spec

F = "float32"


def small_net(classes: int = 5, scope: str = "net") -> list[Variable]:
    """One convolution with batch norm, and a head."""
    return [
        Variable(f"{scope}/conv/weights", Spec(F, (3, 3, 3, 8))),
        Variable(f"{scope}/conv/BatchNorm/beta", Spec(F, (8,))),
        Variable(f"{scope}/conv/BatchNorm/moving_mean", Spec(F, (8,)), False, "statistic"),
        Variable(f"{scope}/conv/BatchNorm/moving_variance", Spec(F, (8,)), False, "statistic"),
        Variable(f"{scope}/logits/weights", Spec(F, (8, classes)), True, "head", 1),
        Variable(f"{scope}/logits/biases", Spec(F, (classes,)), True, "head", 0),
    ]


def specs(variables) -> dict[str, Spec]:
    return {variable.name: variable.spec for variable in variables}


def actions(plan: Plan) -> dict[str, str]:
    """Variable -> action, without the rows of unused tensors."""
    return {row.name: row.action for row in plan.rows if row.action != "unused"}


def row(plan: Plan, name: str) -> Row:
    return next(row for row in plan.rows if row.name == name)


def test_same_net_is_restored_whole():
    plan = make_plan(specs(small_net()), small_net()).checked()
    assert set(actions(plan).values()) == {"restore"}
    assert plan.summary == {
        "variables": 6,
        "restored": 6,
        "initialised": 0,
        "unused": 0,
        "conflicts": 0,
        "trainable_variables": 4,
        "trainable_parameters": 216 + 8 + 40 + 5,
        "parameters": 216 + 8 + 8 + 8 + 40 + 5,
    }


def test_row_has_every_field():
    plan = make_plan(specs(small_net(1001)), small_net(), PlanRules(exclude=["logits"], trainable=["Logits"]))
    assert row(plan, "net/logits/weights") == Row(
        "net/logits/weights", "init", None, (8, 1001), (8, 5), F, True, "--exclude logits",
        "excluded: initialised afresh",
    )  # fmt: skip
    assert row(plan, "net/conv/weights") == Row(
        "net/conv/weights", "restore", "net/conv/weights", (3, 3, 3, 8), (3, 3, 3, 8), F, False, "same name",
        "same name, type and shape",
    )  # fmt: skip
    assert plan.rows[-2] == Row(
        "net/logits/weights", "unused", "net/logits/weights", (8, 1001), None, F, False, "--exclude logits", "excluded"
    )
    assert {each.action for each in plan.rows} <= set(ACTIONS)


def test_rename_takes_the_mapped_tensor():
    plan = make_plan(specs(small_net(scope="model/net")), small_net(), PlanRules(renames=["model/net=net"])).checked()
    assert set(actions(plan).values()) == {"rename"}
    assert row(plan, "net/conv/weights").source == "model/net/conv/weights"
    assert row(plan, "net/conv/weights").rule == "--rename model/net=net"


def test_mapping_and_texts_are_the_same_renames():
    source = specs(small_net(scope="m"))
    assert make_plan(source, small_net(), PlanRules(renames={"m": "net"})) == make_plan(
        source, small_net(), PlanRules(renames=["m=net"])
    )


def test_a_mapped_tensor_wins_over_one_of_the_same_name():
    source = specs(small_net()) | {"ema/net/conv/weights": Spec(F, (3, 3, 3, 8))}
    plan = make_plan(source, small_net(), PlanRules(renames=["ema/net=net"])).checked()
    assert row(plan, "net/conv/weights").source == "ema/net/conv/weights"
    assert [each.name for each in plan.rows if each.action == "unused"] == ["net/conv/weights"]


def test_a_rename_that_takes_a_tensor_away_is_called_so():
    plan = make_plan(specs(small_net()), small_net(), PlanRules(renames=["net=model/net"]))
    idle, away = plan.conflicts
    assert idle.advice.startswith(
        "--rename net=model/net makes model/net/conv/weights, which is not a variable of the net"
    )
    assert (away.cause, len(away.names)) == ("renamed away", 6)
    assert row(plan, "net/conv/weights").reason == "--rename net=model/net makes model/net/conv/weights of it"
    assert {each.rule for each in plan.rows} == {"--rename net=model/net"}


def test_two_sources_for_one_variable_are_a_conflict():
    source = specs(small_net(scope="a")) | specs(small_net(scope="b"))
    (conflict,) = make_plan(source, small_net(), PlanRules(renames=["a=net", "b=net"])).conflicts
    assert conflict.cause == "two sources for one variable"
    assert len(conflict.names) == 6


def test_exclude_sees_the_names_of_the_source_too():
    plan = make_plan(
        specs(small_net(scope="model")), small_net(), PlanRules(renames=["model=net"], exclude=["model/logits"])
    )
    assert actions(plan.checked())["net/logits/weights"] == "init"


def test_exclude_may_name_what_only_the_source_has():
    source = specs(small_net()) | {"net/AuxLogits/weights": Spec(F, (8, 1001))}
    plan = make_plan(source, small_net(), PlanRules(exclude=["net/logits,net/AuxLogits"])).checked()
    assert row(plan, "net/AuxLogits/weights").rule == "--exclude net/AuxLogits"


def test_another_element_type_needs_cast():
    source = {name: Spec("float16", spec.shape) for name, spec in specs(small_net()).items()}
    (conflict,) = make_plan(source, small_net()).conflicts
    assert conflict.cause == "other element type"
    assert conflict.advice.startswith("--cast converts the values")
    plan = make_plan(source, small_net(), PlanRules(cast=True)).checked()
    assert row(plan, "net/conv/weights").action == "cast"
    assert row(plan, "net/conv/weights").reason == "float16 converted to float32"


def test_another_element_type_does_not_hide_another_shape():
    source = {name: Spec("float16", spec.shape) for name, spec in specs(small_net(10)).items()}
    plan = make_plan(source, small_net())
    assert [(each.cause, len(each.names)) for each in plan.conflicts] == [
        ("other element type", 4),
        ("other number of classes", 2),
    ]


def test_the_auxiliary_head_is_cast_and_renamed_beside_a_class_map():
    net = [*small_net(), Variable("net/AuxLogits/weights", Spec(F, (8, 5)), True, "auxiliary", 1)]
    source = {each.name.replace("net/", "model/"): Spec("float16", each.spec.shape) for each in net}
    options = {"class_map": range(5), "renames": ["model=net"]}
    assert (
        row(make_plan(source, net, PlanRules(cast=True, **options)).checked(), "net/AuxLogits/weights").action == "cast"
    )
    source = {name: Spec(F, spec.shape) for name, spec in source.items()}
    assert row(make_plan(source, net, PlanRules(**options)).checked(), "net/AuxLogits/weights").action == "rename"


def test_strings_are_never_cast():
    source = specs(small_net()) | {"net/conv/weights": Spec("string", (3, 3, 3, 8))}
    assert [each.cause for each in make_plan(source, small_net(), PlanRules(cast=True)).conflicts] == [
        "other element type"
    ]


def test_class_map_adapts_the_head():
    plan = make_plan(specs(small_net(10)), small_net(3), PlanRules(class_map=(7, None, 0))).checked()
    assert row(plan, "net/logits/weights").action == "adapt"
    assert row(plan, "net/logits/weights").reason == (
        "2 of 3 classes taken from the checkpoint's 10, the others initialised"
    )
    assert plan.adaptations == {
        "net/logits/weights": Adaptation("classes", 1, (7, None, 0)),
        "net/logits/biases": Adaptation("classes", 0, (7, None, 0)),
    }


@pytest.mark.parametrize(
    "how", [{"exclude": ["logits"]}, {"new": {"net/logits/weights": "--head", "net/logits/biases": "--head"}}]
)
def test_a_class_map_beside_a_head_that_starts_afresh_is_a_conflict(how):
    (conflict,) = make_plan(specs(small_net(10)), small_net(3), PlanRules(class_map=(7, None, 0), **how)).conflicts
    rule = "--exclude logits" if "exclude" in how else "--head"
    assert conflict.advice == (
        f"--class-map (or --labels-of-source) keeps no class: {rule} initialises the head afresh. "
        "Leave out one or the other."
    )


@pytest.mark.parametrize(
    ("class_map", "reason"),
    [
        ((1, 2), "--class-map has 2 classes, the net 3"),
        ((1, 2, 10), "--class-map takes class 10, the checkpoint has 0 to 9"),
    ],
)
def test_class_map_that_does_not_fit(class_map, reason):
    plan = make_plan(specs(small_net(10)), small_net(3), PlanRules(class_map=class_map))
    assert [each.cause for each in plan.conflicts] == ["the class map does not fit"]
    assert row(plan, "net/logits/weights").reason == reason


def test_input_channels_are_adapted_when_asked():
    grey = [Variable("net/conv/weights", Spec(F, (3, 3, 1, 8)))]
    source = {"net/conv/weights": Spec(F, (3, 3, 3, 8))}
    assert [each.cause for each in make_plan(source, grey).conflicts] == ["other number of input channels"]
    plan = make_plan(source, grey, PlanRules(adapt_input=True)).checked()
    assert plan.adaptations == {"net/conv/weights": Adaptation("channel sum", 2, (0, 1, 2))}
    assert plan.rows[0].reason == "3 input channels summed"


@pytest.mark.parametrize("channels", [1, 4])
def test_a_separable_first_layer_is_not_adapted(channels):
    variables = get_net("inception_v2").variables(1001)
    changed = {  # depth multiplier 8: each input channel has eight outputs of its own
        "InceptionV2/Conv2d_1a_7x7/depthwise_weights": (7, 7, channels, 8),
        "InceptionV2/Conv2d_1a_7x7/pointwise_weights": (1, 1, 8 * channels, 64),
    }
    net = [each._replace(spec=Spec(F, changed.get(each.name, each.spec.shape))) for each in variables]
    plan = make_plan(specs(variables), net, PlanRules(adapt_input=True))
    (conflict,) = plan.conflicts
    assert conflict.cause == "other number of input channels of a separable convolution"
    assert conflict.names == tuple(changed)
    assert conflict.advice.startswith("Its channels do not add up, so that --adapt-input cannot convert it; --exclude ")
    assert not plan.adaptations


def test_auxiliary_head_is_written_with_the_new_classes_and_not_trained():
    net = get_net("inception_v3")
    plan = make_plan(
        specs(net.variables(1001)), net.variables(10), PlanRules(exclude=["Logits"], trainable=["Logits"])
    ).checked()
    found = actions(plan)
    last = "InceptionV3/AuxLogits/Conv2d_2b_1x1/weights"
    assert found[last] == "init" and row(plan, last).rule == "auxiliary head"
    assert row(plan, last).reason == (
        "net [1, 1, 768, 10], checkpoint [1, 1, 768, 1001]; not part of the trained graph, "
        "written so that stock slim code loads the file with 10 classes"
    )
    assert found["InceptionV3/AuxLogits/Conv2d_2a_5x5/weights"] == "restore"
    assert [each.name for each in plan.rows if each.trainable] == [
        "InceptionV3/Logits/Conv2d_1c_1x1/weights",
        "InceptionV3/Logits/Conv2d_1c_1x1/biases",
    ]


def test_with_aux_a_wrong_shape_there_is_a_conflict():
    net = get_net("inception_v3")
    plan = make_plan(specs(net.variables(1001)), net.variables(10), PlanRules(exclude=["Logits"], aux=True))
    (conflict,) = plan.conflicts
    assert conflict.cause == "other number of classes"
    assert conflict.names == tuple(f"InceptionV3/AuxLogits/Conv2d_2b_1x1/{leaf}" for leaf in ("weights", "biases"))


def test_a_source_without_the_auxiliary_head_is_fine():
    net = get_net("inception_v3")
    source = {name: spec for name, spec in specs(net.variables(10)).items() if "AuxLogits" not in name}
    plan = make_plan(source, net.variables(10)).checked()
    assert plan.summary["initialised"] == 10


def test_every_slim_net_migrates_with_the_same_two_options():
    from ckpt_tools.nets.registry import NETS

    for net in NETS.values():
        head = net.head
        plan = make_plan(
            specs(net.variables(net.classes)), net.variables(5), PlanRules(exclude=[head], trainable=[head])
        ).checked()
        assert all(each.name.startswith(net.head_scope) for each in plan.rows if each.trainable), net.name
        assert set(plan.batch_norm.values()) <= {"frozen"}, net.name


def test_head_trained_but_restored_is_fine():
    plan = make_plan(specs(small_net()), small_net(), PlanRules(trainable=["Logits"])).checked()
    assert actions(plan)["net/logits/weights"] == "restore"
    assert row(plan, "net/logits/weights").trainable


def test_new_variables_need_no_source():
    variables = [*small_net()[:4], Variable("Logits/fc/weights", Spec(F, (8, 5)), True, "head", 1)]
    plan = make_plan(
        specs(small_net(1000)), variables, PlanRules(new={"Logits/fc/weights": "--head-scope Logits"})
    ).checked()
    assert row(plan, "Logits/fc/weights").rule == "--head-scope Logits"
    assert row(plan, "net/logits/weights").action == "unused"


def test_batch_norm_trains_where_its_layer_does():
    assert make_plan(specs(small_net()), small_net()).batch_norm == {"net/conv/BatchNorm": "train"}
    frozen = make_plan(specs(small_net()), small_net(), PlanRules(trainable=["logits"]))
    assert frozen.batch_norm == {"net/conv/BatchNorm": "frozen"}
    overridden = make_plan(
        specs(small_net()), small_net(), PlanRules(trainable=["logits"], batch_norm={"conv": "stats"})
    )
    assert overridden.batch_norm == {"net/conv/BatchNorm": "stats"}


def test_batch_norm_modes_are_given_by_patterns_like_those_of_all_options():
    scopes = ["net/a/BatchNorm", "net/b/BatchNorm", "net/b2/BatchNorm"]
    found = {scope: BatchNormLayer((), (), ()) for scope in scopes}

    def modes(*texts: str) -> list[str]:
        return list(policies(found, (), parse_policies(texts)).values())

    assert summary(dict.fromkeys(scopes[:1], "stats")) == "1 layer updates its statistics only"
    assert summary(dict.fromkeys(scopes, "stats")) == "3 layers update their statistics only"
    assert modes("a,b=train") == ["train", "train", "frozen"]
    assert modes("BatchNorm,!b=train", "re:b[0-9]{1,2}=stats") == ["train", "frozen", "stats"]
    assert modes("b=train,net=stats,b=train") == ["stats", "train", "stats"]  # the last one decides


def test_batch_norm_without_weights_follows_the_layer_it_normalizes():
    variables = [each for each in small_net() if not each.name.endswith("beta")]
    plan = make_plan(specs(variables), variables, PlanRules(trainable=["conv"]))
    assert plan.batch_norm == {"net/conv/BatchNorm": "train"}


def test_restored_weights_without_their_statistics_are_a_conflict():
    plan = make_plan(specs(small_net()), small_net(), PlanRules(exclude=["**/moving_*"]))
    (conflict,) = plan.conflicts
    assert conflict == Conflict(
        "batch-norm statistics not restored",
        ("net/conv/BatchNorm/moving_mean", "net/conv/BatchNorm/moving_variance"),
        "Fresh statistics under restored weights make the net compute nonsense. "
        "Let --exclude leave these statistics alone, or --exclude net/conv initialises the layers afresh.",
    )
    assert make_plan(specs(small_net()), small_net(), PlanRules(exclude=["conv"])).conflicts == ()


def test_all_conflicts_are_reported_together():
    source = specs(small_net(1001)) | {"net/conv/BatchNorm/beta": Spec("float64", (8,))}
    del source["net/conv/weights"]
    plan = make_plan(source, small_net(), PlanRules(exclude=["Logitz"], trainable=["cnov"], renames=["x=y"]))
    assert [each.cause for each in plan.conflicts] == [
        "a pattern selects nothing",
        "a pattern selects nothing",
        "a pattern selects nothing",
        "no source",
        "other element type",
        "other number of classes",
    ]
    with pytest.raises(PlanError) as caught:
        plan.checked()
    assert caught.value.plan is plan
    assert str(caught.value).startswith("the plan has 6 conflicts\n")


def test_a_net_of_other_widths_is_called_so():
    thin = {name: Spec(F, tuple(2 if n == 8 else n for n in spec.shape)) for name, spec in specs(small_net()).items()}
    (conflict,) = make_plan(thin, small_net()).conflicts
    assert conflict.cause == "other widths"
    assert len(conflict.names) == 5


def test_many_scopes_to_exclude_are_left_to_a_file():
    net = [Variable(f"net/block{n}/w", Spec(F, (2,))) for n in range(20)]
    source = {each.name: each.spec for each in net[:9]}
    (conflict,) = make_plan(source, net).conflicts
    assert "--config FILE.yaml, which ckpt-plan --suggest --output FILE.yaml writes with 11 scopes" in conflict.advice
    (conflict,) = make_plan({each.name: each.spec for each in net[:13]}, net).conflicts
    assert "--exclude net/block13,net/block14," in conflict.advice


def test_a_random_frozen_layer_is_noted():
    plan = make_plan(specs(small_net()), small_net(), PlanRules(exclude=["conv"], trainable=["logits"]))
    assert plan.notes == ("2 variables are initialised afresh but never trained: net/conv",)
    plan = make_plan(specs(small_net()), small_net(), PlanRules(exclude=["conv/weights"], trainable=["logits"]))
    assert plan.notes == ("1 variable is initialised afresh but never trained: net/conv/weights",)
    plan = make_plan(specs(small_net()), small_net(), PlanRules(exclude=["conv"], trainable=["weights"]))
    assert plan.notes == ("1 variable is initialised afresh but never trained: net/conv/BatchNorm",)


def test_unused_tensors_say_what_they_are():
    source = specs(small_net()) | {
        "net/conv/weights/Momentum": Spec(F, (3, 3, 3, 8)),
        "net/conv/weights/ExponentialMovingAverage": Spec(F, (3, 3, 3, 8)),
        "global_step": Spec("int64", ()),
        "other/kernel": Spec(F, (2,)),
    }
    plan = make_plan(source, small_net()).checked()
    assert [each.reason for each in plan.rows if each.action == "unused"] == [
        "optimizer slot of net/conv/weights",
        "moving average of net/conv/weights",
        "training step",
        "no variable of the net takes it",
    ]


def test_digest_changes_with_what_is_done_and_with_nothing_else():
    source, net = specs(small_net(10)), small_net()
    first = make_plan(source, net, PlanRules(exclude=["logits"], trainable=["logits"]))
    assert first.digest == make_plan(source, net, PlanRules(exclude=["net/logits"], trainable=["/net/logits"])).digest
    others = [
        make_plan(source, net, PlanRules(exclude=["logits"])),
        make_plan(source, net, PlanRules(exclude=["logits", "conv"], trainable=["logits"])),
        make_plan(source, net, PlanRules(class_map=(1, 2, 3, 4, 5), trainable=["logits"])),
        make_plan(source, net, PlanRules(class_map=(1, 2, 3, 4, 6), trainable=["logits"])),
        make_plan(source, net, PlanRules(exclude=["logits"], trainable=["logits"], batch_norm={"conv": "train"})),
    ]
    digests = {plan.digest for plan in [first, *others]}
    assert len(digests) == 6
    assert all(len(digest) == 8 for digest in digests)


def test_json_round_trip():
    plan = make_plan(
        specs(small_net(10)), small_net(), PlanRules(exclude=["biases"], class_map=(1, 2, None, 4, 5), trainable=["x"])
    )
    read = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert read == plan
    assert read.digest == plan.digest
    assert read != make_plan(specs(small_net(10)), small_net(), PlanRules(exclude=["logits"]))


def test_json_has_the_contract_s_shape():
    value = make_plan(specs(small_net(10)), small_net()).to_json()
    assert list(value)[:3] == ["rows", "conflicts", "summary"]
    assert list(value["rows"][0]) == [
        "name", "action", "source", "source_shape", "target_shape", "dtype", "trainable", "rule", "reason"
    ]  # fmt: skip
    assert list(value["conflicts"][0]) == ["cause", "names", "advice"]


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"exclude": ["re:("]}, SelectionError),
        ({"renames": ["re:(=x"]}, RecipeError),
        ({"renames": ["x"]}, RecipeError),
    ],
)
def test_malformed_patterns_and_renames_raise(option, error):
    with pytest.raises(error):
        make_plan(specs(small_net()), small_net(), PlanRules(**option))


def test_no_argument_is_changed():
    source, net = specs(small_net(10)), small_net()
    before = (dict(source), list(net))
    make_plan(source, net, PlanRules(exclude=["logits"], renames={"a": "b"}))
    assert (source, net) == before
