"""The documentation shows the real output of the commands, and every command has a page."""

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ckpt_tools
from ckpt_tools.__main__ import COMMANDS
from ckpt_tools.train.options.configuration import from_arguments, read_config
from ckpt_tools.train.options.training import Options

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if re.search(r"^```(console|pycon)", page.read_text(encoding="utf-8"), re.MULTILINE)]
TRAINED = [page for page in RUN if "```console trained\n" in page.read_text(encoding="utf-8")]
NEEDS = {"own_net.md": "tensorflow", "python.md": "tensorflow", "weights.md": "keras"}

_spec = importlib.util.spec_from_file_location("docs_run", ROOT / "docs" / "run.py")
docs_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(docs_run)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inception_v3.ckpt with random values: 109 MB that a clone need not have."""
    return docs_run.write_stand_in(tmp_path_factory.mktemp("docs") / "inception_v3.ckpt")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_print_what_the_page_shows(page: Path, stand_in: Path) -> None:
    """Needs nothing but what is installed."""
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    text = page.read_text(encoding="utf-8")
    assert docs_run.rerun(text, docs_run.inputs(stand_in)) == text


@pytest.mark.parametrize("page", TRAINED, ids=lambda page: page.name)
def test_commands_print_what_the_page_shows_of_trained_values(page: Path, SHARED: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_run.rerun(text, docs_run.inputs(docs_run.TRAINED)) == text


def test_pages_are_run_in_a_clone() -> None:
    """All pages that show output of commands on files, and no page by its trained values alone."""
    names = {page.name for page in RUN}
    assert {"README.md", "files.md", "inspect.md", "plan.md", "surgery.md", "python.md", "own_net.md"} <= names
    assert all(re.search(r"^```console$", page.read_text(encoding="utf-8"), re.MULTILINE) for page in TRAINED)


def test_the_comparison_can_fail() -> None:
    page = "```console\n$ echo one\ntwo\n```\n"
    assert docs_run.rerun(page, {}) == "```console\n$ echo one\none\n```\n"
    trained = page.replace("console", "console trained")
    assert docs_run.rerun(trained, {}) == trained
    page = "```pycon\n>>> a = 1\n>>> a + 1\n3\n>>> a / 0\n```\n"
    error = "Traceback (most recent call last):\n    ...\nZeroDivisionError: division by zero\n"
    assert docs_run.rerun(page, {}) == f"```pycon\n>>> a = 1\n>>> a + 1\n2\n>>> a / 0\n{error}```\n"


def test_every_public_name_is_on_the_page_of_python() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    public = [*(f"ck.{name}" for name in ckpt_tools.__all__), *(f"events.{name}" for name in typed_events())]
    assert [name for name in public if not re.search(rf"\b{re.escape(name)}\b", text)] == []


def typed_events() -> list[str]:
    """The names of all events."""
    found = vars(ckpt_tools.events).values()
    return [kind.__name__ for kind in found if isinstance(kind, type) and issubclass(kind, ckpt_tools.events.Event)]


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


@pytest.mark.parametrize("name", ["finetune", "export"])
def test_every_option_is_on_a_page(name: str) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    actions = importlib.import_module(f"ckpt_tools.cli.{name}").make_parser()._actions
    flags = [
        each.option_strings[0]
        for each in actions
        if each.dest not in ("help", "version") and each.help != argparse.SUPPRESS
    ]
    assert [flag for flag in flags if not re.search(rf"{flag}(?![\w-])", text)] == []


def test_the_options_file_of_the_page_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "run.yaml").write_text(text)
    options = Options(**read_config(tmp_path / "run.yaml", Options))
    assert (options.exclude, options.lr_mult, options.batch_size) == (("Logits",), ("Mixed_7*=0.1",), 64)


def command_lines(text: str) -> list[tuple[str, list[str]]]:
    """The commands of these lines as (name, arguments): up to a pipe, a redirection, a semicolon, or the words that
    explain it, three spaces behind it."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for name, rest in re.findall(r"(?:^|[$|;]|exec|then)\s+(?:python -m ckpt_tools |ckpt-)([a-z]+)(.*)", line):
            rest = re.split(r"\s{3,}|\s2>", rest)[0]
            split = shlex.shlex(rest, posix=True, punctuation_chars="|;<>&")
            split.whitespace_split = True
            words = list(split)
            end = next((i for i, word in enumerate(words) if set(word) <= set("|;<>&")), len(words))
            if name in COMMANDS:
                found.append((name, words[:end]))
    return found


def parses(name: str, words: list[str]) -> bool:
    """Whether the command takes the arguments. Training options are checked as far as no file is needed."""
    made = importlib.import_module(f"ckpt_tools.cli.{name}").make_parser()
    try:
        arguments = made.parse_args(words)
    except SystemExit as end:
        return not end.code  # --help
    if name == "finetune" and "--config" not in words:
        from_arguments(Options, arguments)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_of_pages_parse(page: Path, capsys: pytest.CaptureFixture) -> None:
    blocks = re.findall(
        r"^```[\w-]*\n(.*?)^```$|((?:^    .*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = command_lines("\n".join(fenced or indented for fenced, indented in blocks))
    assert lines
    for name, words in lines:
        assert parses(name, words), (name, words, capsys.readouterr().err)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_parse(name: str, capsys: pytest.CaptureFixture) -> None:
    text = importlib.import_module(f"ckpt_tools.cli.{name}").make_parser().epilog
    lines = command_lines(text)
    assert lines
    for command, words in lines:
        assert parses(command, words), (command, words, capsys.readouterr().err)


def test_a_line_that_does_not_parse_is_seen() -> None:
    page = "$ ckpt-diff a.ckpt b.ckpt; echo $?\n$ ckpt-diff a.ckpt --tolerence 1e-6 \\\n    b.ckpt | head -3  # no\n"
    (diff, good), (_, bad) = command_lines(page)
    assert (diff, good, bad) == ("diff", ["a.ckpt", "b.ckpt"], ["a.ckpt", "--tolerence", "1e-6", "b.ckpt"])
    assert parses("diff", good)
    assert not parses("diff", bad)


def test_the_reference_has_every_public_name_with_its_options(tmp_path: Path) -> None:
    """`make docs`, where pdoc is installed: the extra `docs`."""
    pytest.importorskip("pdoc")
    pytest.importorskip("tensorflow")
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), str(tmp_path / "api")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Warn" not in done.stderr, done.stderr
    page = (tmp_path / "api" / "ckpt_tools.html").read_text(encoding="utf-8")
    functions = [name for name in ckpt_tools.__all__ if name not in ("errors", "events")]
    assert [name for name in functions if f'id="{name}"' not in page] == []
    assert "freeze the net up to this end point and train everything after it" in page  # help of --freeze-until
    assert 'id="Planned"' in (tmp_path / "api" / "ckpt_tools" / "events.html").read_text(encoding="utf-8")
