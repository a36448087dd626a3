"""What the pages show is what the commands print, and every command has a page."""

import importlib.util
import re
from pathlib import Path

import pytest

from ckpt_tools.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_spec = importlib.util.spec_from_file_location("docs_run", ROOT / "docs" / "run.py")
docs_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs_run)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_the_page_shows(page: Path, SHARED: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_run.rerun(text, docs_run.inputs()) == text


def test_the_comparison_can_fail() -> None:
    page = "```console\n$ echo one\ntwo\n```\n"
    assert docs_run.rerun(page, {}) == "```console\n$ echo one\none\n```\n"


def test_every_command_is_on_a_page_and_in_the_readme() -> None:
    readme, pages = (
        PAGES[0].read_text(encoding="utf-8"),
        "".join(page.read_text(encoding="utf-8") for page in PAGES[1:]),
    )
    for command in COMMANDS:
        assert f"`ckpt-{command}" in readme, command
        assert f"$ ckpt-{command} " in pages, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_pages_name_exist(page: Path) -> None:
    """Every --option written after a command in a page is one of that command's."""
    for command, rest in re.findall(r"\bckpt-([a-z]+)((?: [^\n`]*?)?)(?:`|\n|$)", page.read_text(encoding="utf-8")):
        if command in COMMANDS:
            module = importlib.import_module(f"ckpt_tools.cli.{command}")
            known = {flag for action in module.make_parser()._actions for flag in action.option_strings}
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)) <= known, (command, rest)
