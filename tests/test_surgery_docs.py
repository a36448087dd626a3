"""docs/surgery.md: its commands are run and print what it shows; every operation, flag and recipe is in it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_tools.cli.edit import make_parser
from ckpt_tools.recipe import parse_recipe, shipped_recipes
from ckpt_tools.surgery import OPERATIONS

DOC = (Path(__file__).parent.parent / "docs" / "surgery.md").read_text(encoding="utf-8")
SHOWN = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


def test_the_commands_print_what_is_shown(SHARED, GOLDEN, tmp_path):
    (tmp_path / "inception_v3.ckpt").symlink_to(SHARED / "checkpoints" / "inception_v3.ckpt")
    (tmp_path / "training").symlink_to(GOLDEN / "tf115_v2_training")
    assert len(SHOWN) > 15
    for command, output in SHOWN:  # in their order: later ones read what earlier ones wrote
        program, *arguments = shlex.split(command)
        assert program == "ckpt-edit"
        done = subprocess.run(
            [sys.executable, "-u", "-m", "ckpt_tools", "edit", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.stdout == output, command


def test_every_operation_has_a_row_in_the_table():
    table = DOC.partition("| operation | settings")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "`" in line)))
    assert listed == set(OPERATIONS)


def test_every_shipped_recipe_is_described():
    table = DOC.partition("| recipe | what it is for |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([\w-]+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "`" in line)))
    assert listed == set(shipped_recipes())


def test_every_flag_is_named():
    flags = {flag for action in make_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    common = {"--help", "--json", "--debug", "--output", "--force", "--shards"}
    assert {flag for flag in flags - common if flag not in DOC} == set()


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL))
def test_recipes_in_it_are_recipes(text):
    assert parse_recipe(text)
