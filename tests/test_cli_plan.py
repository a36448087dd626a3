"""ckpt-plan: its exact output, its JSON and its exit codes."""

import json

import numpy as np
import pytest

from ckpt_tools.cli import plan as plan_command
from ckpt_tools.cli.plan import main
from ckpt_tools.nets.registry import get_net
from ckpt_tools.plan import Plan

NET = get_net("alexnet_v2")
SMALL = """\
net          slim AlexNet v2, 5 classes
restored     14 of 16 variables
initialised  2 variables
unused       2 tensors of the checkpoint
trainable    2 variables, 20,485 of 46,227,397 parameters (0.0443 %)
plan         {digest}

scope             count  action   trainable  why
----------------  -----  -------  ---------  -------------
alexnet_v2/conv1      2  restore          0  same name
alexnet_v2/conv2      2  restore          0  same name
alexnet_v2/conv3      2  restore          0  same name
alexnet_v2/conv4      2  restore          0  same name
alexnet_v2/conv5      2  restore          0  same name
alexnet_v2/fc6        2  restore          0  same name
alexnet_v2/fc7        2  restore          0  same name
alexnet_v2/fc8        2  init             2  --exclude fc8
alexnet_v2/fc8        2  unused           0  --exclude fc8
"""
KEEP = "--labels-of-source FILE keeps classes by name, --class-map by number."
CONFLICT = """\

2 conflicts
a pattern selects nothing
  => --trainable fc9 selects nothing of 16 trainable variables; did you mean alexnet_v2/fc6 (2 variables) or \
alexnet_v2/fc7 (2 variables) or alexnet_v2/fc8 (2 variables)?
other number of classes (2 variables)
  alexnet_v2/fc8/weights: net [1, 1, 4096, 5], checkpoint [1, 1, 4096, 1000], class axis
  alexnet_v2/fc8/biases: net [5], checkpoint [1000], class axis
  => --exclude alexnet_v2/fc8 initialises them afresh; {keep}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """AlexNet v2 with 1000 classes: the names and shapes are what a plan looks at."""
    path = tmp_path_factory.mktemp("source") / "alexnet.npz"
    np.savez_compressed(path, **{each.name: np.zeros(each.spec.shape, "float32") for each in NET.variables(1000)})
    return str(path)


def test_plan_that_fits(source, capsys, tmp_path):
    output = tmp_path / "plan.json"
    arguments = ["--num-classes", "5", "--exclude", "fc8", "--trainable", "fc8", "--output", str(output)]
    assert main([source, *arguments]) == 0
    plan = Plan.from_json(json.loads(output.read_text(encoding="utf-8")))
    printed = capsys.readouterr()
    assert printed.out == SMALL.format(digest=plan.digest)
    assert printed.err == f"wrote {output}\n"


def test_conflicts_are_printed_last_and_exit_is_1(source, capsys):
    assert main([source, "--num-classes", "5", "--trainable", "fc9"]) == 1
    assert capsys.readouterr().out.endswith(CONFLICT.format(keep=KEEP))


def test_all_prints_one_line_a_variable(source, capsys):
    assert main([source, "--num-classes", "5", "--exclude", "fc8", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["name", "action", "source", "source", "shape", "shape", "trainable", "why"]
    assert len(table) == 2 + 16 + 2
    assert table[2].split() == [
        "alexnet_v2/conv1/weights",
        "restore",
        "[11,11,3,64]",
        "[11,11,3,64]",
        "yes",
        "same",
        "name",
    ]


def test_json(source, capsys):
    assert main([source, "--num-classes", "5", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert list(value) == ["rows", "conflicts", "summary"]
    assert value["conflicts"] == [
        {
            "cause": "other number of classes",
            "names": ["alexnet_v2/fc8/weights", "alexnet_v2/fc8/biases"],
            "advice": f"--exclude alexnet_v2/fc8 initialises them afresh; {KEEP}",
        }
    ]
    assert value["rows"][0] == {
        "name": "alexnet_v2/conv1/weights",
        "action": "restore",
        "source": "alexnet_v2/conv1/weights",
        "source_shape": [11, 11, 3, 64],
        "target_shape": [11, 11, 3, 64],
        "dtype": "float32",
        "trainable": True,
        "rule": "same name",
        "reason": "same name, type and shape",
    }


def test_suggest_writes_yaml(source, capsys, tmp_path):
    output = tmp_path / "plan.yaml"
    assert main([source, "--num-classes", "5", "--suggest", "--output", str(output)]) == 0
    assert output.read_text(encoding="utf-8") == "exclude:\n- alexnet_v2/fc8\ntrainable:\n- alexnet_v2/fc8\n"
    assert capsys.readouterr().out.startswith(
        "suggested\n  --exclude alexnet_v2/fc8\n  --trainable alexnet_v2/fc8\n\nnet          slim AlexNet v2, 5"
    )


def test_suggest_makes_its_last_plan_once(source, monkeypatch, capsys):
    monkeypatch.setattr(plan_command, "plans_of", None)
    assert main([source, "--num-classes", "5", "--suggest"]) == 0
    assert "restored     14 of 16 variables" in capsys.readouterr().out


def test_class_map_of_label_files(source, capsys, tmp_path):
    (tmp_path / "old.txt").write_text("\n".join(f"class {n}" for n in range(1000)), encoding="utf-8")
    (tmp_path / "new.txt").write_text("class 7\nzebra\n", encoding="utf-8")
    class_map = f"{tmp_path}/new.txt={tmp_path}/old.txt"
    assert main([source, "--num-classes", "2", "--class-map", class_map]) == 0
    assert "1 of 2 classes taken from the checkpoint's 1000, the others initialised" in capsys.readouterr().out


def test_the_net_cannot_be_told(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert main([str(tmp_path / "x.npz")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"ckpt-plan: {tmp_path}/x.npz: cannot tell which net this is. Give its --graph, or --net: inception_v1, "
    )


def test_unknown_net(source, capsys):
    assert main([source, "--net", "resnet_50"]) == 2
    assert "'resnet_50'; did you mean resnet_v" in capsys.readouterr().err


def test_number_of_classes_must_be_positive(source, capsys):
    assert main([source, "--num-classes", "-1"]) == 2
    assert capsys.readouterr().err == "ckpt-plan: --num-classes -1: a net has at least one class\n"


def test_a_head_of_its_own_needs_no_source(source, capsys):
    assert main([source, "--num-classes", "5", "--head-scope", "Logits", "--trainable", "Logits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "initialised  2 variables" in lines
    assert lines[-2].split() == ["Logits/fc", "2", "init", "2", "--head-scope", "Logits"]
    assert lines[-1].split() == ["alexnet_v2/fc8", "2", "unused", "0", "no", "such", "variable"]


def test_aux_without_an_auxiliary_head_is_refused_as_the_trainer_does(source, capsys):
    assert main([source, "--num-classes", "5", "--exclude", "fc8", "--aux"]) == 2
    assert capsys.readouterr().err == "ckpt-plan: --aux: there is no auxiliary head in alexnet_v2\n"
    assert main([source, "--net", "inception_v3", "--aux", "--head-scope", "Mine"]) == 2
    assert capsys.readouterr().err == "ckpt-plan: --aux: there is no auxiliary head beside a head in Mine\n"


def test_layers_before_the_last_one(source, capsys):
    assert main([source, "--num-classes", "5", "--head", "dense(64)|dropout(0.5)", "--trainable", "fc8", "--all"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if " init " in line]
    assert [row[0] for row in rows] == [
        "alexnet_v2/fc8/dense_1/weights",
        "alexnet_v2/fc8/dense_1/biases",
        "alexnet_v2/fc8/weights",
        "alexnet_v2/fc8/biases",
    ]
    assert all(row[-1] == "--head" for row in rows)


def test_what_suggest_wrote_can_be_planned_with(source, capsys, tmp_path):
    proposal = str(tmp_path / "plan.yaml")
    main([source, "--num-classes", "5", "--suggest", "--output", proposal])
    capsys.readouterr()
    assert main([source, "--num-classes", "5", "--config", proposal]) == 0
    assert "initialised  2 variables" in capsys.readouterr().out.splitlines()
    assert main([source, "--num-classes", "5", "--config", proposal, "--exclude", "fc7"]) == 1


def test_only_a_plan_is_overwritten(source, tmp_path, capsys):
    for name, options in (("plan.json", []), ("proposal.yaml", ["--suggest"])):
        for _ in range(2):
            assert main([source, *options, "--output", str(tmp_path / name)]) == 0
    before = (tmp_path / "model.ckpt").write_bytes(b"\0\0")
    capsys.readouterr()
    assert main([source, "--output", str(tmp_path / "model.ckpt")]) == 2
    assert capsys.readouterr().err.endswith("model.ckpt: exists and is not a plan. Choose another name for --output.\n")
    assert (tmp_path / "model.ckpt").stat().st_size == before


def test_suggest_follows_the_options_that_it_does_not_propose(tmp_path, capsys):
    path = str(tmp_path / "half.npz")
    np.savez_compressed(path, **{each.name: np.zeros(each.spec.shape, "float16") for each in NET.variables(9)})
    assert main([path, "--suggest"]) == 1
    assert "other element type (16 variables)" in capsys.readouterr().out
    assert main([path, "--suggest", "--cast"]) == 0
    assert main([path, "--suggest", "--cast", "--exclude", "fc8", "--rename", "a=b"]) == 2
    assert capsys.readouterr().err == (
        "ckpt-plan: --suggest proposes --exclude and --rename itself. Leave out one or the other.\n"
    )


def test_batch_norm_policies(source, capsys):
    assert main([source, "--num-classes", "1000", "--bn", "fc8=on"]) == 2
    assert capsys.readouterr().err == "ckpt-plan: --bn fc8=on: write SCOPE=MODE, with frozen, stats, train\n"
    assert main([source, "--num-classes", "1000", "--bn", "fc8=train"]) == 1
    assert "--bn fc8 selects nothing of 0 batch-norm layers." in capsys.readouterr().out
