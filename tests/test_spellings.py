"""Options that had two names: one is shown, the other still works."""

import argparse
from pathlib import Path
from types import ModuleType

import pytest

from ckpt_tools.api.options import options_from
from ckpt_tools.cli import convert, edit, finetune, inspect, plan
from ckpt_tools.errors import RecipeError
from ckpt_tools.train.options.configuration import from_arguments, read_config
from ckpt_tools.train.options.training import Options

EDIT = {
    "--head 5": "--num-classes 5",
    "--head 5 --head-in out": "--num-classes 5 --head-scope out",
    "--background add --head-in out": "--background add --head-scope out",
    "--labels-from OLD --labels-to NEW": "--labels-of-source OLD --labels NEW",
    "--map a=b": "--rename a=b",
}


@pytest.mark.parametrize(("before", "now"), EDIT.items())
def test_edit_does_the_same_by_both(before: str, now: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OLD").write_text("a\nb\n")
    (tmp_path / "NEW").write_text("b\n")
    made = [
        edit.operations_of(edit.make_parser().parse_args(["m.npz", *words.split()]).steps) for words in (before, now)
    ]
    assert made[0] == made[1] != ()
    assert edit.operations_of(edit.make_parser().parse_args(["m.npz", "--drop", "x"]).steps) != made[0]


@pytest.mark.parametrize("command", [plan, finetune])
def test_map_is_rename(command: object) -> None:
    flags = ["--map", "a=b", "--rename", "c=d"]
    args = command.make_parser().parse_args(["m.ckpt", *flags] if command is plan else flags)
    assert args.rename == ["a=b", "c=d"]


def test_map_is_rename_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("map: [a=b]\n")
    assert read_config(tmp_path / "a.yaml", Options) == {"rename": ("a=b",)}
    args = argparse.Namespace(config=str(tmp_path / "a.yaml"), checkpoint="m", data="d", train_dir="r")
    assert from_arguments(Options, args).rename == ("a=b",)
    (tmp_path / "a.yaml").write_text("map: [a=b]\nrename: [c=d]\n")
    with pytest.raises(RecipeError, match="rename is given twice, once as rename"):
        read_config(tmp_path / "a.yaml", Options)


def test_map_is_rename_in_python() -> None:
    assert options_from(Options, {"map": "a=b"}, "finetune").rename == ("a=b",)
    with pytest.raises(TypeError, match=r"finetune\(\) is given rename twice, once as map"):
        options_from(Options, {"rename": "a=b", "map": "c=d"}, "finetune")


@pytest.mark.parametrize(
    ("command", "before", "now"),
    [(convert, "a b --to v1", "a b --format v1"), (edit, "a --to v1", "a --format v1"),
     (inspect, "a --as slim", "a --layout slim")],
)  # fmt: skip
def test_format_and_layout_are_the_words_everywhere(command: ModuleType, before: str, now: str) -> None:
    made = command.make_parser()
    assert made.parse_args(before.split()) == made.parse_args(now.split()) != made.parse_args(now.split()[:-2])
    shown = set(made.format_help().replace("[", " ").split())
    assert before.split()[-2] not in shown and now.split()[-2] in shown


def test_what_was_is_not_shown() -> None:
    shown = edit.make_parser().format_help()
    assert "--num-classes N" in shown
    words = set(shown.replace("[", " ").split())
    assert not words & {"--head", "--head-in", "--labels-from", "--labels-to", "--map"}
    for command in (plan, finetune):
        assert "--rename OLD=NEW" in command.make_parser().format_help()
        assert "--map" not in command.make_parser().format_help()
