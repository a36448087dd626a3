"""docs/surgery.md covers every operation, flag and recipe. (test_docs.py runs its commands.)"""

import re
from argparse import SUPPRESS
from pathlib import Path

import pytest

from ckpt_tools.cli.edit import make_parser
from ckpt_tools.recipe import parse_recipe, shipped_recipes
from ckpt_tools.surgery import OPERATIONS

DOC = (Path(__file__).parent.parent / "docs" / "surgery.md").read_text(encoding="utf-8")


def test_every_operation_has_a_row_in_the_table():
    table = DOC.partition("| operation | settings")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "`" in line)))
    assert listed == set(OPERATIONS)


def test_every_shipped_recipe_is_described():
    table = DOC.partition("| recipe | what it is for |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([\w-]+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "`" in line)))
    assert listed == set(shipped_recipes())


def test_every_flag_is_named():
    shown = [action for action in make_parser()._actions if action.help != SUPPRESS]
    flags = {flag for action in shown for flag in action.option_strings if flag.startswith("--")}
    common = {"--help", "--json", "--debug", "--version", "--output", "--force", "--shards"}
    assert {flag for flag in flags - common if flag not in DOC} == set()


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL))
def test_recipes_in_it_are_recipes(text):
    assert parse_recipe(text)
