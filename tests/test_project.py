"""Project files: the workflow, the hooks and the list of core tests refer to existing files."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_workflow_runs_what_make_and_core_txt_name() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {target for command in commands for target in re.findall(r"make (\w+)", command)}
    assert made
    assert made <= TARGETS
    assert any("@tests/core.txt" in command for command in commands)


def test_core_tests_are_there_and_import_no_tensorflow() -> None:
    names = (ROOT / "tests/core.txt").read_text().split()
    assert len(names) > 30
    for name in names:
        text = (ROOT / name).read_text()
        assert not re.search(r"^(import|from) (tensorflow|tf_slim)", text, re.MULTILINE), name


def test_hooks_are_those_of_make_lint() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"].split()[:2] for hook in local["hooks"]] == [
        [".venv/bin/ruff", "check"],
        [".venv/bin/ruff", "format"],
        ["make", "types"],
    ]
    assert "types" in TARGETS


def test_types_are_shipped() -> None:
    assert (ROOT / "ckpt_tools/py.typed").is_file()
    assert "py.typed" in (ROOT / "setup.cfg").read_text()
