"""With the same options, ckpt-plan prints exactly the plan that ckpt-finetune executes."""

import dataclasses
import re

import pytest
import tiny_net
import yaml

from ckpt_tools.cli import plan as command
from ckpt_tools.errors import PlanError, RecipeError
from ckpt_tools.train.options.training import Options
from ckpt_tools.train.plan.job import make_job
from ckpt_tools.train.plan.request import DECIDING


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A source of five classes, with their names, and photos of three."""
    folder = tmp_path_factory.mktemp("planning")
    tiny_net.write_source(folder / "source.ckpt", classes=5)
    tiny_net.write_photos(folder / "photos", train=2, validation=1)
    (folder / "names.txt").write_text("cow\nfrog\nhen\ncat\nowl\n")
    (folder / "new.txt").write_text("cat\ndog\nfrog\n")
    return folder


CASES = {
    "the head": {"exclude": ["Logits"], "trainable": ["Logits"]},
    "a net that is named": {"net": "tiny", "exclude": ["Logits"]},
    "freeze_until": {"exclude": ["Logits"], "freeze_until": "Conv_2"},
    "unfreeze": {"exclude": ["Logits"], "unfreeze": "0:Logits; 2:Conv_3; 4:Conv_2"},
    "batch norm": {"exclude": ["Logits"], "trainable": ["Logits"], "bn": ["Conv_1=stats"]},
    "a head of its own": {"head_scope": "New", "head": "dense(8)|dropout(0.5)", "dropout": 0.2, "trainable": ["New"]},
    "a class map": {"class_map": "3,_,1"},
    "a class map of files": {"class_map": "FILES/new.txt=FILES/names.txt"},
    "labels of the source": {"labels_of_source": "FILES/names.txt"},
    "training options": {"exclude": ["Logits"], "learning_rate": 0.1, "steps": 3, "augment": ["flip"], "seed": 4},
}


def planned(files, config, capsys, *argv):
    """Exit code of ckpt-plan with a config file of these options, the digests that it prints, and its output."""
    path = files / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    code = command.main([str(files / "source.ckpt"), "--config", str(path), *argv])
    said = capsys.readouterr()
    first = re.findall(r"^plan +([0-9a-f]{8})$", said.out, re.MULTILINE)
    phases = re.findall(r"^unfreezing .*, plan ([0-9a-f]{8})$", said.out, re.MULTILINE)
    return code, phases or first, said.out + said.err


def written(files, how):
    options = {"checkpoint": str(files / "source.ckpt"), "data": str(files / "photos"), "train_dir": "run", **how}
    return {
        key: value.replace("FILES", str(files)) if isinstance(value, str) else value for key, value in options.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_the_run_s(files, capsys, case):
    config = written(files, CASES[case])
    code, digests, said = planned(files, config, capsys)
    assert (code, digests) == (0, [plan.digest for plan in make_job(Options(**config)).plans]), said
    assert "Tiny, 3 classes" in said


def test_what_lies_behind_an_end_point_is_named(files, capsys):
    _, _, said = planned(files, written(files, CASES["freeze_until"]), capsys)
    assert "trains       Tiny/Conv_3, Tiny/Logits: everything after Conv_2" in said.splitlines()


def test_plans_of_different_options_differ(files, capsys):
    """The comparison can fail."""
    found = {case: tuple(planned(files, written(files, CASES[case]), capsys)[1]) for case in CASES}
    assert found["the head"] != found["freeze_until"] != found["unfreeze"] != found["batch norm"] != found["the head"]
    assert found["a class map"] == found["a class map of files"] == found["labels of the source"]


def test_a_conflict_of_a_later_phase_is_shown(files, capsys):
    config = written(files, {"exclude": ["Logits"], "unfreeze": "0:Logits; 2:Conv_9"})
    with pytest.raises(PlanError) as caught:
        make_job(Options(**config))
    code, _, said = planned(files, config, capsys)
    assert code == 1
    assert caught.value.plan.conflicts[0].advice in said


def test_the_command_line_wins_over_the_file(files, capsys):
    config = written(files, CASES["labels of the source"])
    assert "4 classes" in planned(files, config | {"labels_of_source": None}, capsys, "--num-classes", "4")[2]
    code, _, said = planned(files, config, capsys, "--num-classes", "4")
    assert code == 2
    assert said == f"ckpt-plan: --num-classes 4: {files}/photos has 3 classes\n"
    typed = ["--labels-of-source", str(files / "names.txt"), "--labels", str(files / "new.txt")]
    code, digests, _ = planned(files, {}, capsys, *typed)
    assert (code, digests) == (0, planned(files, config, capsys)[1])


def test_what_cannot_be_planned_is_said(files, capsys):
    gone = planned(files, {"data": str(files / "nothing")}, capsys)
    assert gone[0] == 2
    assert gone[2].endswith("nothing: no such file or folder. --num-classes plans without the data.\n")
    code, _, said = planned(files, {"labels_of_source": str(files / "names.txt")}, capsys)
    assert code == 2
    assert "--labels-of-source keeps classes of the same name. Give --labels, a file with the names" in said
    code, _, said = planned(files, {"freeze_until": "Conv_1", "trainable": ["Logits"]}, capsys)
    assert (code, said) == (2, "ckpt-plan: --trainable and --freeze-until cannot be combined\n")
    code, _, said = planned(files, {"freeze_until": "Conv_1"}, capsys, "--suggest")
    assert (code, said) == (2, "ckpt-plan: --suggest proposes --freeze-until itself. Leave out one or the other.\n")


def test_every_option_decides_the_plan_or_does_not(files):
    """A new option has to be put on one side."""
    others = {found.name for found in dataclasses.fields(Options)} - set(DECIDING)
    assert others == {
        "checkpoint", "validation_fraction", "dry_run", "preprocessing", "augment", "augment_copies",
        "show_augmentation", "dropout", "steps", "epochs", "batch_size", "learning_rate", "momentum",
        "schedule", "decay_rate", "decay_epochs", "warmup_steps", "lr_mult", "layer_decay", "clip_norm",
        "weight_decay", "weight_decay_for", "label_smoothing", "class_weights", "ema", "early_stop",
        "batch_norm_decay", "precision", "xla", "seed", "find_learning_rate", "train_dir", "resume", "fresh", "keep",
        "save_steps", "eval_steps", "log_steps", "cache", "cache_dir", "cache_limit", "cache_dtype", "device",
        "devices", "accumulate", "start_timeout", "worker_timeout", "exif_orientation",
    }  # fmt: skip
    with pytest.raises(RecipeError, match="no option 'lables'; did you mean labels"):
        (files / "config.yaml").write_text("lables: x\n")
        command.main([str(files / "source.ckpt"), "--config", str(files / "config.yaml"), "--debug"])
