"""--suggest: its proposals make the plan work, and are minimal."""

import re

import pytest
import yaml

from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import PlanRules, make_plan
from ckpt_tools.plan.inception2015 import rename_2015
from ckpt_tools.plan.suggest import suggest
from ckpt_tools.tensors import Spec
from ckpt_tools.train.options.configuration import read_config
from ckpt_tools.train.options.training import Options

INCEPTION, RESNET = get_net("inception_v3"), get_net("resnet_v1_50")

# Written from inception_model.py of 2015 by hand: module -> branches in order of creation.
MODULES = {
    "Mixed_5b": ("mixed_35x35x256a", "branch1x1 branch5x5 branch3x3dbl branch_pool"),
    "Mixed_5c": ("mixed_35x35x288a", "branch1x1 branch5x5 branch3x3dbl branch_pool"),
    "Mixed_5d": ("mixed_35x35x288b", "branch1x1 branch5x5 branch3x3dbl branch_pool"),
    "Mixed_6a": ("mixed_17x17x768a", "branch3x3 branch3x3dbl"),
    "Mixed_6b": ("mixed_17x17x768b", "branch1x1 branch7x7 branch7x7dbl branch_pool"),
    "Mixed_6c": ("mixed_17x17x768c", "branch1x1 branch7x7 branch7x7dbl branch_pool"),
    "Mixed_6d": ("mixed_17x17x768d", "branch1x1 branch7x7 branch7x7dbl branch_pool"),
    "Mixed_6e": ("mixed_17x17x768e", "branch1x1 branch7x7 branch7x7dbl branch_pool"),
    "Mixed_7a": ("mixed_17x17x1280a", "branch3x3 branch7x7x3"),
    "Mixed_7b": ("mixed_8x8x2048a", "branch1x1 branch3x3 branch3x3dbl branch_pool"),
    "Mixed_7c": ("mixed_8x8x2048b", "branch1x1 branch3x3 branch3x3dbl branch_pool"),
}
STEM = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
HEADS = {
    "Logits/Conv2d_1c_1x1": "logits/logits",
    "AuxLogits/Conv2d_1b_1x1": "aux_logits/proj",
    "AuxLogits/Conv2d_2a_5x5": "aux_logits/Conv",
    "AuxLogits/Conv2d_2b_1x1": "aux_logits/FC",
}


def inception_of_2015(suffix: str = "") -> dict[str, Spec]:
    """The specs of a file of 2015, by numbering each branch's convolutions in the order in which slim makes them."""
    convolutions: dict[str, list[str]] = {}
    source = {}
    for variable in INCEPTION.variables(1001):
        parts = variable.name.split("/")[1:]
        if parts[0] in MODULES:
            module, branches = MODULES[parts[0]]
            made = convolutions.setdefault("/".join(parts[:2]), [])
            if parts[2] not in made:
                made.append(parts[2])
            number = made.index(parts[2])
            branch = branches.split()[int(parts[1][-1])]
            name = "/".join([module, branch, f"Conv_{number}" if number else "Conv", *parts[3:]])
        elif parts[0] in STEM:
            name = "/".join([f"conv{STEM.index(parts[0])}", *parts[1:]])
        else:
            name = "/".join([HEADS["/".join(parts[:2])], *parts[2:]])
        shape = variable.spec.shape
        fully_connected = name.startswith(("logits/", "aux_logits/FC/")) and len(shape) == 4
        source[name + suffix] = Spec("float32", shape[2:] if fully_connected else shape)
    return source


def specs(variables, prefix: str = "", suffix: str = "") -> dict[str, Spec]:
    return {f"{prefix}{variable.name}{suffix}": variable.spec for variable in variables}


def test_a_net_that_fits_needs_only_a_head_to_train():
    proposal = suggest(specs(RESNET.variables(5)), RESNET.variables(5))
    assert proposal.to_config() == {"trainable": ["resnet_v1_50/logits"]}
    assert proposal.plan.conflicts == ()


def test_another_number_of_classes():
    proposal = suggest(specs(INCEPTION.variables(1001)), INCEPTION.variables(5))
    assert proposal.to_config() == {"exclude": ["InceptionV3/Logits"], "trainable": ["InceptionV3/Logits"]}
    assert proposal.plan.summary["restored"] == 384


def test_prefix_average_and_missing_gamma_at_once():
    source = specs(RESNET.variables(1000), "model/", "/ExponentialMovingAverage")
    source = {name: spec for name, spec in source.items() if "gamma" not in name}
    proposal = suggest(source, RESNET.variables(5))
    assert proposal.to_config() == {
        "exclude": ["**/gamma", "resnet_v1_50/logits"],
        "trainable": ["resnet_v1_50/logits"],
        "rename": [r"re:^model/resnet_v1_50/(.*)/ExponentialMovingAverage$=resnet_v1_50/\1"],
    }
    assert proposal.plan.conflicts == ()
    assert proposal.plan.summary["restored"] == 212


@pytest.mark.parametrize("first", [0, 1], ids=["from 0", "from 1"])
def test_units_of_another_name_are_taken_in_their_order(first):
    net = get_net("resnet_v1_101").variables(1000)
    old = {v.name: re.sub(r"unit_(\d+)", lambda m: f"u{int(m[1]) - 1 + first}", v.name) for v in net}
    source = {old[each.name]: each.spec for each in sorted(net, key=lambda each: old[each.name])}
    proposal = suggest(source, net)
    assert proposal.plan.conflicts == ()
    assert {row.name: row.source for row in proposal.plan.rows} == old


def test_layers_without_their_statistics_start_afresh_as_a_whole():
    source = specs(RESNET.variables(5))
    source = {name: spec for name, spec in source.items() if "/block4/unit_3/" not in name or "/moving_" not in name}
    proposal = suggest(source, RESNET.variables(5))
    unit = "resnet_v1_50/block4/unit_3"
    assert proposal.to_config() == {"exclude": [unit], "trainable": [unit, "resnet_v1_50/logits"]}
    assert proposal.plan.conflicts == () and proposal.plan.notes == ()
    source = {name: spec for name, spec in source.items() if "/moving_" not in name}
    proposal = suggest(source, RESNET.variables(5))
    assert proposal.to_config() == {"trainable": ["resnet_v1_50/logits"]}
    assert [conflict.cause for conflict in proposal.plan.conflicts] == ["batch-norm statistics not restored"]


@pytest.mark.parametrize("suffix", ["", "/ExponentialMovingAverage"])
def test_inception_of_2015(suffix):
    proposal = suggest(inception_of_2015(suffix), INCEPTION.variables(5))
    assert proposal.plan.conflicts == ()
    assert proposal.exclude == ("InceptionV3/Logits",)
    renamed = [row for row in proposal.plan.rows if row.action == "rename"]
    assert len(renamed) == 384
    assert all(row.source_shape == row.target_shape for row in renamed)


def test_inception_of_2015_maps_by_position_not_only_by_shape():
    renames = rename_2015(inception_of_2015(), [variable.name for variable in INCEPTION.variables(5)])
    assert len(renames) == 98
    assert renames["mixed_8x8x2048a/branch3x3/Conv_1"] == "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_1x3"
    assert renames["mixed_8x8x2048a/branch3x3/Conv_2"] == "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_3x1"
    assert renames["mixed_17x17x1280a/branch7x7x3/Conv_3"] == "InceptionV3/Mixed_7a/Branch_1/Conv2d_1a_3x3"
    assert renames["mixed_35x35x288a/branch5x5/Conv_1"] == "InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5"


def test_what_cannot_be_derived_is_left_as_a_conflict():
    source = {f"conv2d_{n}/kernel:0": Spec("float32", (3, 3, 3, n)) for n in range(1, 90)}
    proposal = suggest(source, INCEPTION.variables(5))
    assert [conflict.cause for conflict in proposal.plan.conflicts] == ["Keras names"]


def test_the_proposal_is_a_config_of_the_training_commands(tmp_path):
    proposal = suggest(specs(INCEPTION.variables(1001), "model/"), INCEPTION.variables(5))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(proposal.to_config()), encoding="utf-8")
    options = Options(**read_config(path, Options))
    plan = make_plan(
        specs(INCEPTION.variables(1001), "model/"),
        INCEPTION.variables(5),
        PlanRules(exclude=options.exclude, trainable=options.trainable, renames=options.rename),
    )
    assert plan == proposal.plan
    assert re.fullmatch("[0-9a-f]{8}", plan.checked().digest)
