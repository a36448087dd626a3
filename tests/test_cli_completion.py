"""ckpt-completion as used by bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_tools.__main__ import COMMANDS
from ckpt_tools.cli.completion import completions, main

SHELL = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "completions.sh"
    path.write_text(completions("bash"))
    return path


@pytest.mark.skipif(not SHELL, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ckpt-inspect", "--sco"), {"--scope"}),
        (("ckpt-edit", "m.ckpt", "--format", "v"), {"v1", "v2"}),
        (("ckpt-verify", "mod"), {"model.ckpt"}),
        (("ckpt-inspect", "--nonsense"), set()),
    ],
)
def test_bash_offers(script: Path, tmp_path: Path, words: tuple[str, ...], offered: set[str]) -> None:
    (tmp_path / "model.ckpt").touch()
    function = "_shtab_" + words[0].replace("-", "_")
    code = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n{function}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([SHELL, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_know_every_command(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert main([shell]) == 0
    said = capsys.readouterr().out
    assert all(f"ckpt-{command}" in said for command in COMMANDS)


def test_without_shtab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["bash"]) == 2
    assert capsys.readouterr().err == 'ckpt-completion: needs shtab. pip install "ckpt-tools[completion]"\n'
