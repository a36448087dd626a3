"""Common problems (numbered as in the list of pains), and the message given for each."""

import pytest

from ckpt_tools.errors import CheckpointError, PlanError
from ckpt_tools.formats import open_checkpoint
from ckpt_tools.nets.registry import get_net, names_by_scope
from ckpt_tools.plan import Plan, PlanRules, Variable, make_plan
from ckpt_tools.plan.text import count_lines
from ckpt_tools.tensors import Spec

F = "float32"
INCEPTION, RESNET = get_net("inception_v3"), get_net("resnet_v1_50")


def specs(variables, prefix: str = "", suffix: str = "") -> dict[str, Spec]:
    return {f"{prefix}{variable.name}{suffix}": variable.spec for variable in variables}


def without(source: dict[str, Spec], word: str) -> dict[str, Spec]:
    return {name: spec for name, spec in source.items() if word not in name}


def text(plan: Plan) -> str:
    """What the trainer stops with."""
    with pytest.raises(PlanError) as caught:
        plan.checked()
    return str(caught.value)


def causes(plan: Plan) -> list[str]:
    return [conflict.cause for conflict in plan.conflicts]


def test_1_assign_requires_shapes_to_match_lists_every_wrong_shape_and_what_to_type():
    plan = make_plan(
        specs(INCEPTION.variables(1001)), INCEPTION.variables(5), PlanRules(exclude=["InceptionV3/Logits"], aux=True)
    )
    assert text(plan) == (
        "the plan has 1 conflict\n"
        "other number of classes (2 variables)\n"
        "  InceptionV3/AuxLogits/Conv2d_2b_1x1/weights: net [1, 1, 768, 5], checkpoint [1, 1, 768, 1001], class axis; "
        "not covered by --exclude InceptionV3/Logits\n"
        "  InceptionV3/AuxLogits/Conv2d_2b_1x1/biases: net [5], checkpoint [1001], class axis; "
        "not covered by --exclude InceptionV3/Logits\n"
        "  => --exclude InceptionV3/AuxLogits/Conv2d_2b_1x1 initialises them afresh; "
        "--labels-of-source FILE keeps classes by name, --class-map by number."
    )


def test_2_a_wrong_shape_that_tensorflow_2_takes_silently_is_a_conflict():
    plan = make_plan(specs(RESNET.variables(1000)), RESNET.variables(5))
    assert causes(plan) == ["other number of classes"]
    assert plan.notes == ("TensorFlow 2's Saver.restore takes a wrong shape without an error (tensorflow#52220)",)
    assert make_plan(specs(RESNET.variables(5)), RESNET.variables(5)).notes == ()


def test_3_key_not_found_because_of_a_prefix():
    plan = make_plan(specs(INCEPTION.variables(1001), "model/"), INCEPTION.variables(1001))
    (conflict,) = plan.conflicts
    assert conflict.cause == "every name differs by one prefix"
    assert conflict.advice == (
        "Type --rename model/InceptionV3=InceptionV3: "
        "the checkpoint has model/InceptionV3/ where the net has InceptionV3/."
    )
    renames = ["model/InceptionV3=InceptionV3"]
    make_plan(
        specs(INCEPTION.variables(1001), "model/"), INCEPTION.variables(1001), PlanRules(renames=renames)
    ).checked()


def test_3_key_not_found_because_the_net_has_the_prefix():
    inside = [each._replace(name=f"tower/{each.name}") for each in RESNET.variables(1000)]
    (conflict,) = make_plan(specs(RESNET.variables(1000)), inside).conflicts
    assert conflict.cause == "every name differs by one prefix"
    assert conflict.advice.startswith("Type --rename resnet_v1_50=tower/resnet_v1_50: ")


def test_3_key_not_found_because_two_scopes_of_one_name_were_built():
    source = {
        name.replace("InceptionV3/", "InceptionV3_1/"): spec for name, spec in specs(INCEPTION.variables(9)).items()
    }
    (conflict,) = make_plan(source, INCEPTION.variables(9)).conflicts
    assert conflict.advice.startswith("Type --rename InceptionV3_1=InceptionV3: ")


def test_3_key_not_found_because_of_the_arg_scope():
    bare = [
        each._replace(name=each.name.replace("BatchNorm/beta", "biases"))
        for each in INCEPTION.variables(1001)
        if "moving_" not in each.name
    ]
    plan = make_plan(specs(INCEPTION.variables(1001)), bare)
    (conflict,) = plan.conflicts
    assert conflict.cause == "net built without its arg_scope"
    assert len(conflict.names) == 94
    assert conflict.advice == (
        "The net wants InceptionV3/Conv2d_1a_3x3/biases where the checkpoint has "
        "InceptionV3/Conv2d_1a_3x3/BatchNorm/...: "
        "build the net inside its arg_scope, such as slim.arg_scope(inception_v3_arg_scope())."
    )


def test_3_key_not_found_because_of_gamma():
    plan = make_plan(without(specs(RESNET.variables(1000)), "gamma"), RESNET.variables(1000))
    (conflict,) = plan.conflicts
    assert (conflict.cause, len(conflict.names)) == ("only gamma missing", 53)
    assert "--exclude '**/gamma' starts gamma at 1" in conflict.advice
    source = without(specs(RESNET.variables(1000)), "gamma")
    make_plan(source, RESNET.variables(1000), PlanRules(exclude=["**/gamma"])).checked()


def test_3_key_not_found_because_the_file_is_resnet_v1():
    plan = make_plan(
        specs(RESNET.variables(1000)), get_net("resnet_v2_50").variables(1000), PlanRules(nets=names_by_scope())
    )
    assert causes(plan) == ["resnet v1 against v2"]
    assert plan.conflicts[0].advice == (
        "Use --net resnet_v1_50: the checkpoint is resnet_v1_50, not resnet_v2_50, "
        "whose units differ although many names look alike."
    )


def test_3_key_not_found_because_the_file_is_another_net():
    plan = make_plan(specs(INCEPTION.variables(1001)), RESNET.variables(1000), PlanRules(nets=names_by_scope()))
    assert causes(plan) == ["checkpoint of another net"]
    assert plan.conflicts[0].advice == "Use --net inception_v3: the checkpoint is InceptionV3, not resnet_v1_50."


def test_3_key_not_found_because_the_file_is_keras():
    source = {f"conv2d_{n}/conv2d_{n}/kernel:0": Spec(F, (3, 3, 3, n)) for n in range(1, 90)}
    (conflict,) = make_plan(source, INCEPTION.variables(1001)).conflicts
    assert conflict.cause == "Keras names"
    assert "ckpt-convert SRC DST --layout slim converts a net of Keras Applications" in conflict.advice


def test_3_key_not_found_because_only_the_last_words_are_keras():
    net = [Variable("net/conv/weights", Spec(F, (3, 3, 3, 8))), Variable("net/conv/biases", Spec(F, (8,)))]
    source = {"net/conv/kernel": Spec(F, (3, 3, 3, 8)), "net/conv/bias": Spec(F, (8,))}
    (conflict,) = make_plan(source, net).conflicts
    assert conflict.cause == "Keras names"
    renames = [r"re:(^|/)kernel(:0)?$=\1weights", r"re:(^|/)bias(:0)?$=\1biases"]
    assert all(f"--rename '{rename}'" in conflict.advice for rename in renames)
    make_plan(source, net, PlanRules(renames=renames)).checked()


def test_3_key_not_found_because_the_file_is_torch():
    source = {f"layer1.{n}.conv1.weight": Spec(F, (64, 64, 3, 3)) for n in range(9)}
    (conflict,) = make_plan(source, RESNET.variables(1000)).conflicts
    assert conflict.cause == "PyTorch names"


def test_3_key_not_found_because_one_layer_is_missing_names_it_and_its_neighbours():
    source = specs(RESNET.variables(1000))
    source["resnet_v1_50/logits/weigths"] = source.pop("resnet_v1_50/logits/weights")
    (conflict,) = make_plan(source, RESNET.variables(1000)).conflicts
    assert conflict.names == ("resnet_v1_50/logits/weights",)
    assert conflict.advice == (
        "resnet_v1_50/logits/weights; near is resnet_v1_50/logits/weigths. "
        "Type --exclude resnet_v1_50/logits/weights to initialise them afresh, or --rename OLD=NEW."
    )


def test_3_key_not_found_in_a_file_that_has_nothing_of_the_net():
    (conflict,) = make_plan({"a/b": Spec(F, (2,))}, RESNET.variables(1000)).conflicts
    assert conflict.advice == (
        "The checkpoint and the net have no name in common; the checkpoint begins with a/b. Check --net and the file."
    )


@pytest.mark.parametrize(("pain", "content"), [("4", b"<html>404</html>"), ("5, 6", b""), ("6", None)])
def test_4_5_6_what_is_not_a_checkpoint_is_never_an_empty_one(pain, content, tmp_path):
    path = tmp_path / "model.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "model.ckpt" in str(caught.value)


def test_9_another_plan_has_another_digest_for_the_train_directory_to_compare():
    source = specs(RESNET.variables(1000))
    first = make_plan(source, RESNET.variables(5), PlanRules(exclude=["logits"], trainable=["logits"]))
    again = make_plan(source, RESNET.variables(5), PlanRules(exclude=["Logits"], trainable=["Logits"]))
    other = make_plan(source, RESNET.variables(5), PlanRules(exclude=["logits"], trainable=["logits,block4"]))
    assert first.digest == again.digest != other.digest


def test_9_slots_of_another_optimizer_are_named_and_not_taken_for_weights():
    slots = [
        each._replace(name=f"{each.name}/RMSProp{number}", trainable=False, role="slot")
        for each in RESNET.variables(1000)
        if each.trainable
        for number in ("", "_1")
    ]
    (conflict,) = make_plan(specs(RESNET.variables(1000)), [*RESNET.variables(1000), *slots]).conflicts
    assert conflict.cause == "optimizer slots missing"
    assert conflict.advice == (
        "The checkpoint has all its weights but was written without this optimizer's state: "
        "--exclude '**/RMSProp,**/RMSProp_1' starts the optimizer afresh."
    )


def test_10_the_plan_says_what_batch_norm_does():
    source = specs(INCEPTION.variables(1001))
    plan = make_plan(
        source, INCEPTION.variables(5), PlanRules(exclude=["Logits"], trainable=["Mixed_7c,Logits"])
    ).checked()
    assert (
        "batch norm   85 layers frozen (inference mode, statistics kept), "
        "9 layers train (batch statistics, moving averages updated)"
    ) in count_lines(plan).splitlines()


def test_11_batch_norm_weights_without_statistics_are_a_conflict():
    plan = make_plan(without(specs(INCEPTION.variables(1001)), "moving_"), INCEPTION.variables(1001))
    (conflict,) = plan.conflicts
    assert conflict.cause == "batch-norm statistics not restored"
    assert conflict.advice == (
        "Fresh statistics under restored weights make the net compute nonsense. The checkpoint lacks them: "
        "take one that was saved with all variables, not the trainable ones alone."
    )


def test_12_the_background_class_is_seen_from_either_side():
    (less,) = make_plan(specs(INCEPTION.variables(1001)), INCEPTION.variables(1000)).conflicts
    assert less.advice.endswith("--class-map 1-1000 leaves the background class (number 0) out and keeps the others.")
    (more,) = make_plan(specs(INCEPTION.variables(1000)), INCEPTION.variables(1001)).conflicts
    assert more.advice.endswith("--class-map _,0-999 puts a background class in front and keeps the others.")


def test_13_a_misspelt_scope_is_never_no_variables_to_optimize():
    source = specs(INCEPTION.variables(1001))
    plan = make_plan(source, INCEPTION.variables(5), PlanRules(exclude=["Logits"], trainable=["Logitz"]))
    assert text(plan) == (
        "the plan has 1 conflict\n"
        "a pattern selects nothing\n"
        "  => --trainable Logitz selects nothing of 190 trainable variables; "
        "did you mean InceptionV3/Logits (2 variables)?"
    )


@pytest.mark.parametrize(
    ("trainable", "typed"), [("", "''"), (",", "''"), ("Logits,!InceptionV3", "'Logits,!InceptionV3'")]
)
def test_13_a_list_that_leaves_nothing_to_train_is_a_conflict(trainable, typed):
    (conflict,) = make_plan(
        specs(INCEPTION.variables(5)), INCEPTION.variables(5), PlanRules(trainable=[trainable])
    ).conflicts
    assert conflict.advice == f"--trainable {typed} leaves nothing of 190 trainable variables."


def test_13_statistics_cannot_be_trained():
    source = specs(INCEPTION.variables(5))
    (conflict,) = make_plan(source, INCEPTION.variables(5), PlanRules(trainable=["**/moving_mean"])).conflicts
    assert conflict.advice == (
        "--trainable **/moving_mean selects only variables that no optimizer changes "
        "(such as InceptionV3/Conv2d_1a_3x3/BatchNorm/moving_mean)."
    )


def test_13_the_auxiliary_head_is_trained_with_aux():
    source = specs(INCEPTION.variables(5))
    (conflict,) = make_plan(source, INCEPTION.variables(5), PlanRules(trainable=["AuxLogits"])).conflicts
    assert "selects only the auxiliary head, which --aux trains" in conflict.advice
    make_plan(source, INCEPTION.variables(5), PlanRules(trainable=["AuxLogits"], aux=True)).checked()


def test_14_moving_averages_instead_of_weights():
    source = specs(INCEPTION.variables(1001), suffix="/ExponentialMovingAverage")
    (conflict,) = make_plan(source, INCEPTION.variables(1001)).conflicts
    assert conflict.cause == "moving averages instead of weights"
    rename = r"re:^(.*)/ExponentialMovingAverage$=\1"
    assert f"--rename '{rename}'" in conflict.advice
    make_plan(source, INCEPTION.variables(1001), PlanRules(renames=[rename])).checked()


def test_15_no_variable_is_left_without_a_source_or_a_rule():
    source = without(specs(RESNET.variables(1000)), "block4/unit_3")
    plan = make_plan(source, RESNET.variables(1000))
    assert causes(plan) == ["no source"]
    assert "--exclude resnet_v1_50/block4/unit_3" in plan.conflicts[0].advice
    done = make_plan(source, RESNET.variables(1000), PlanRules(exclude=["block4/unit_3"])).checked()
    assert {row.action for row in done.rows} == {"restore", "init"}
