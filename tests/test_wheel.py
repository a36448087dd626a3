"""The installed package, not the checkout: one top-level package, all commands start, no clashes with other modules."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ckpt_tools.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The source is copied first: setuptools leaves build/ and *.egg-info in the tree that it builds.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(pip, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and its core dependencies only: no TensorFlow, no extras."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return python


def test_the_wheel_adds_one_top_level_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ckpt_tools"}


def test_the_wheel_holds_nets_train_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("nets/registry.py", "nets/variables/inception_v3.txt", "train/run/finetune.py"):
        assert f"ckpt_tools/{name}" in names
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    data = [n for n in tracked if n.startswith(("ckpt_tools/", "nets/", "train/")) and not n.endswith((".py", ".md"))]
    assert data
    for name in data:
        assert name.removeprefix("ckpt_tools/") in {n.removeprefix("ckpt_tools/") for n in names}, name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_help_without_extras(clean_python: Path, command: str) -> None:
    script = clean_python.parent / f"ckpt-{command}"
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"ckpt-{command}" in done.stdout
    assert "examples:" in done.stdout


def test_a_missing_extra_is_one_sentence(clean_python: Path, tmp_path: Path) -> None:
    script = clean_python.parent / "ckpt-finetune"
    (tmp_path / "data").mkdir()
    options = ["--net", "resnet_v1_50", "--data", str(tmp_path / "data"), "--train-dir", str(tmp_path / "run")]
    done = subprocess.run([str(script), *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "ckpt-tools[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_foreign_nets_and_train_on_the_path_do_no_harm(clean_python: Path, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("raise RuntimeError('the foreign nets')\n")
    (tmp_path / "train.py").write_text("raise RuntimeError('the foreign train')\n")
    code = (
        "import ckpt_tools.nets.registry, ckpt_tools.train as train\n"
        "from ckpt_tools.nets.registry import get_net\n"
        "print(get_net('inception_v3').scope, train.__name__)"
    )
    done = subprocess.run(
        [str(clean_python), "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "InceptionV3 ckpt_tools.train\n", done.stderr
