"""Gradual unfreezing: phases of one run, each with its plan and its cache; and --freeze-until."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_net
from telling import at_step, lines_to

from ckpt_tools import open_checkpoint
from ckpt_tools.errors import PlanError, RecipeError, SelectionError, TrainingError
from ckpt_tools.nets.registry import get_net
from ckpt_tools.train.graph.restore import changed_tensors
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.job import make_job
from ckpt_tools.train.plan.phases import ages, parse_phases, scopes_after
from ckpt_tools.train.run.finetune import finetune
from ckpt_tools.train.run.run_directory import RunDirectory

PHASES = "0:Logits; 1:Conv_3; 2.5:Conv_2"  # 6 steps an epoch: 6 steps, 9 steps, and the rest


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_net.write_job(tmp_path_factory.mktemp("unfreezing"), learning_rate=0.01)


def differing(a, b):
    return changed_tensors(open_checkpoint(a).tensors, open_checkpoint(b).tensors)


# --- the text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Logits", "write EPOCH:SCOPE"),
        ("0:", "write EPOCH:SCOPE"),
        ("-1:Logits", "write EPOCH:SCOPE"),
        ("one:Logits", "write EPOCH:SCOPE"),
        ("2:Logits", "begins at epoch 2: say what trains from epoch 0 on"),
        ("0:Logits; 2:Mixed_7c; 2:Mixed_7b", "epoch 2 does not come after 2"),
    ],
)
def test_what_is_no_list_of_phases(text, said):
    with pytest.raises(RecipeError, match=said):
        parse_phases(text)


def test_the_comma_of_a_regular_expression_is_its_own():
    (phase,) = parse_phases("0:re:Mixed_7[bc]{1,2},Logits")
    assert phase.trainable == ("re:Mixed_7[bc]{1,2}", "Logits")


def test_without_phases_everything_has_one_age():
    assert ages((), ["a", "b"]) == {"a": 0, "b": 0}


def test_only_one_option_says_what_trains():
    with pytest.raises(RecipeError, match="--trainable and --unfreeze cannot be combined"):
        Options(trainable=("Logits",), unfreeze="0:Logits")


# --- --freeze-until ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "end_point", "scopes"),
    [
        ("inception_v3", "Mixed_7a", ["Mixed_7b", "Mixed_7c", "Logits"]),
        ("inception_v3", "MaxPool_5a_3x3", [f"Mixed_{part}" for part in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e",
                                                                         "7a", "7b", "7c")] + ["Logits"]),
        ("resnet_v1_50", "block3", ["block4", "logits"]),
        ("resnet_v1_50", "resnet_v1_50/block4/unit_2/bottleneck_v1", ["block4/unit_3", "logits"]),
        ("vgg_16", "pool5", ["fc6", "fc7", "fc8"]),
        ("mobilenet_v2", "layer_18", ["Conv_1", "Logits"]),
        ("mobilenet_v2", "layer_17/expansion_output",
         ["expanded_conv_15/depthwise", "expanded_conv_15/project", "expanded_conv_16", "Conv_1", "Logits"]),
        ("nasnet_mobile", "Cell_10", ["cell_11", "final_layer"]),
        ("inception_resnet_v2", "PreAuxLogits", ["Mixed_7a", "Repeat_2", "Block8", "Conv2d_7b_1x1", "Logits"]),
    ],
)  # fmt: skip
def test_what_lies_behind_an_end_point(net, end_point, scopes):
    net = get_net(net)
    found = scopes_after(net, net.variables(5), end_point)
    assert found == [net.placed(scope) for scope in scopes]


def test_an_auxiliary_head_that_is_trained_is_never_frozen():
    net = get_net("inception_v3")
    assert "InceptionV3/AuxLogits" in scopes_after(net, net.variables(5), "Mixed_7b", aux=True)


def test_unknown_end_points_and_the_last_one():
    net = get_net("inception_v3")
    with pytest.raises(SelectionError, match="--freeze-until Mixed_7z: no end point of inception_v3; did you mean"):
        scopes_after(net, net.variables(5), "Mixed_7z")
    with pytest.raises(RecipeError, match="nothing after it can be trained"):
        scopes_after(net, net.variables(5), "Predictions")


def test_freeze_until_trains_what_it_says(job, tmp_path):
    said = []
    finetune(Options(**job, freeze_until="Conv_2", train_dir=str(tmp_path / "run"), steps=2), lines_to(said))
    assert "trainable are  Tiny/Conv_3, Tiny/Logits" in said
    finetune(Options(**job, trainable=("Conv_3,Logits",), train_dir=str(tmp_path / "same"), steps=2))
    assert differing(tmp_path / "run/model.ckpt-2", tmp_path / "same/model.ckpt-2") == []


# --- phases --------------------------------------------------------------------------------------------------------


def test_each_phase_has_its_plan_and_its_end(job, tmp_path):
    made = make_job(Options(**job, unfreeze=PHASES, train_dir=str(tmp_path / "run"), steps=20))
    assert [made.at_step(step).phase for step in (0, 5, 6, 14, 15, 20)] == [0, 0, 1, 1, 2, 2]
    assert [made.at_step(step).until for step in (0, 6, 15)] == [6, 15, 20]
    trained = [plan.summary["trainable_variables"] for plan in made.plans]
    assert trained == [2, 4, 6]
    assert made.at_step(6).plan is made.plans[1]


def test_a_phase_after_the_end_is_never_reached(job, tmp_path):
    made = make_job(Options(**job, unfreeze=PHASES, train_dir=str(tmp_path / "run"), steps=6))
    assert (made.at_step(6).phase, made.at_step(6).until) == (0, 6)


def test_conflicts_of_a_later_phase_are_found_before_the_first(job, tmp_path):
    with pytest.raises(PlanError, match="--trainable Conv_9 selects nothing"):
        finetune(Options(**job, unfreeze="0:Logits; 1:Conv_9", train_dir=str(tmp_path / "run"), steps=9))
    assert not (tmp_path / "run").exists()


def test_a_run_of_three_phases(job, tmp_path):
    """What trains when, by the checkpoints between the phases; the cache moves; the folder says where it is."""
    run, said = tmp_path / "run", []
    result = finetune(Options(**job, unfreeze=PHASES, train_dir=str(run), steps=20, keep=9), lines_to(said))
    assert result.step == 20
    assert RunDirectory(run).steps() == [6, 15, 20]
    source = open_checkpoint(job["checkpoint"]).tensors
    blocks = {}
    for step in (6, 15, 20):
        saved = open_checkpoint(run / f"model.ckpt-{step}").tensors
        changed = changed_tensors(source, {name: saved[name] for name in source})
        blocks[step] = sorted({name.split("/")[1] for name in changed})
    assert blocks == {6: ["Logits"], 15: ["Conv_3", "Logits"], 20: ["Conv_2", "Conv_3", "Logits"]}
    caches = [line.rsplit(" at ", 1)[1] for line in said if line.startswith("cache  ")]
    assert len(caches) == 3
    assert len(set(caches)) == 3
    assert sum(line.startswith("freeze audit") for line in said) == 3
    record = json.loads((run / "plan.json").read_text())
    assert (record["phase"], record["summary"]["trainable_variables"]) == (2, 6)
    rows = RunDirectory(run).metrics()
    assert [int(row["step"]) for row in rows if row["validation_loss"]] == [6, 12, 15, 18, 20]
    assert any("started afresh" in line and "Conv_3" in line for line in said)


def test_the_first_phase_is_the_run_that_trains_its_scopes_alone(job, tmp_path):
    finetune(Options(**job, unfreeze="0:Logits; 1:Conv_3", train_dir=str(tmp_path / "a"), steps=7, keep=9))
    finetune(Options(**job, trainable=("Logits",), train_dir=str(tmp_path / "b"), steps=6))
    assert differing(tmp_path / "a/model.ckpt-6", tmp_path / "b/model.ckpt-6") == []


def test_adam_counts_the_steps_of_each_phase_by_itself(job, tmp_path):
    finetune(Options(**job, unfreeze="0:Logits; 1:Conv_3", train_dir=str(tmp_path / "a"), steps=9))
    saved = open_checkpoint(tmp_path / "a/model.ckpt-9").tensors
    np.testing.assert_allclose(saved["beta1_power"].load(), 0.9**10, rtol=1e-5)  # the head, since step 0
    np.testing.assert_allclose(saved["beta1_power_1"].load(), 0.9**4, rtol=1e-5)  # Conv_3, since step 6


def test_scopes_of_later_phases_may_have_rates(job, tmp_path):
    options = Options(
        **job, unfreeze="0:Logits; 1:Conv_3", lr_mult=("Conv_3=0.1",), weight_decay_for=("Conv_3=0",),
        train_dir=str(tmp_path / "a"), steps=8,
    )  # fmt: skip
    assert finetune(options).step == 8


# --- stopped and continued -----------------------------------------------------------------------------------------

WITH_STATE = {"dropout": 0.3, "ema": 0.9, "optimizer": "momentum", "schedule": "cosine"}


def test_stopped_in_any_phase_and_continued(job, tmp_path):
    """The run is ended after its 4th, 6th, 11th and 15th step; 6 and 15 lie between two phases."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {**job, **WITH_STATE, "unfreeze": PHASES, "steps": 18}
    finetune(Options(**options, train_dir=str(whole)))
    for moment in (4, 6, 11, 15):
        terminated = at_step(moment, lambda: os.kill(os.getpid(), 15))  # the loop ends after that step
        result = finetune(Options(**options, train_dir=str(parts)), terminated)
        assert (result.step, result.stopped) == (moment, "SIGTERM")
    assert finetune(Options(**options, train_dir=str(parts))).step == 18
    assert differing(parts / "model.ckpt-18", whole / "model.ckpt-18") == []
    assert differing(parts / "best.ckpt", whole / "best.ckpt") == []


def test_killed_behind_a_change_of_phase_and_continued(job, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    argv = ["--exclude", "Logits", "--batch-size", "8", "--device", "cpu", "--learning-rate", "0.01", "--steps", "10"]
    for name in ("net", "checkpoint", "data", "cache_dir"):
        argv += ["--" + name.replace("_", "-"), job[name]]
    argv += ["--unfreeze", PHASES, "--dropout", "0.3", "--ema", "0.9", "--train-dir", str(killed)]
    done = subprocess.run(
        [sys.executable, tiny_net.__file__, *argv],
        env={**os.environ, "KILL_AT": "8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert RunDirectory(killed).steps() == [6]
    options = {**job, "unfreeze": PHASES, "dropout": 0.3, "ema": 0.9, "steps": 10}
    said = []
    finetune(Options(**options, train_dir=str(killed)), lines_to(said))
    assert any(line.startswith("continuing     after step 6 of 10") for line in said)
    finetune(Options(**options, train_dir=str(whole)))
    assert differing(killed / "model.ckpt-10", whole / "model.ckpt-10") == []


def test_the_guard_knows_the_phases_of_its_run(job, tmp_path):
    options = {**job, "train_dir": str(tmp_path / "run"), "steps": 8}
    finetune(Options(**options, unfreeze=PHASES))
    assert finetune(Options(**options, unfreeze=PHASES)).step == 8
    with pytest.raises(TrainingError, match="--unfreeze was 0:Logits; 1:Conv_3; 2.5:Conv_2, is 0:Logits; 1:Conv_2"):
        finetune(Options(**options, unfreeze="0:Logits; 1:Conv_2"))
    with pytest.raises(TrainingError, match="holds run"):
        finetune(Options(**options, trainable=("Logits,Conv_3",)))
