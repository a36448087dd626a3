"""Runs the commands that a page shows and puts what they print under them: python docs/run.py docs/plan.md

Only blocks marked `console` are run, and those marked `pycon` in one Python session, in a temporary folder, in their
order. `tests/test_docs.py` runs them again and compares. Blocks marked `shell-session` show runs whose figures differ
from machine to machine; nothing runs those.

Most of what the pages show of inception_v3.ckpt are names, shapes and sizes, which any InceptionV3 has: where the
trained file is not beside the repository, one of random values takes its place. A block marked `console trained` shows
what follows from the trained values, and is run on that file alone.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINED = ROOT.parent / "shared" / "checkpoints" / "inception_v3.ckpt"  # not every clone has it
BLOCK = re.compile(r"^```console( trained)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rerun(page: str, inputs: dict[str, Path]) -> str:
    """The page with the real output of its commands. `inputs` are linked into the folder where they run; blocks that
    want the trained checkpoint stay as they are where it is not among them."""
    trained = TRAINED in inputs.values()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for link, target in inputs.items():
            (folder / link).symlink_to(target)
        page = BLOCK.sub(lambda block: _shown(block, folder) if trained or not block[1] else block[0], page)
        shown = iter(_run_python(PYTHON.findall(page), folder))
        return PYTHON.sub(lambda block: f"```pycon\n{next(shown)}```", page)


def _shown(block: re.Match[str], folder: Path) -> str:
    return f"```console{block[1] or ''}\n{_run(block[2], folder)}```"


def _run(block: str, folder: Path) -> str:
    commands = re.findall(r"^\$ (.*(?:\\\n.*)*)", block, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    shown = ""
    for command in commands:
        merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=False, **merged)
        shown += f"$ {command}\n{done.stdout}"
    return shown


def _run_python(blocks: list[str], folder: Path) -> list[str]:
    """The blocks with what Python shows, run one after the other in a process of its own."""
    if not blocks:
        return []
    command = [sys.executable, __file__, "--session"]
    text = {"input": json.dumps(blocks), "text": True, "encoding": "utf-8"}
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}  # cached features, for this page alone
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True, **text)
    return json.loads(done.stdout)


def session(blocks: list[str]) -> list[str]:
    """What an interactive Python shows for these blocks; of an error its last line, as doctest has it."""
    names: dict[str, object] = {"__name__": "__main__"}
    shown = []
    for block in blocks:
        text = ""
        for example in doctest.DocTestParser().get_examples(block):
            lines = example.source.splitlines()
            text += "".join(f"{'...' if i else '>>>'} {line}".rstrip() + "\n" for i, line in enumerate(lines))
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    exec(compile(example.source, "page", "single"), names)
                except Exception as error:
                    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
                    print(f"Traceback (most recent call last):\n    ...\n{kind}: {error}")
            text += printed.getvalue()
        shown.append(text)
    return shown


def write_stand_in(path: Path) -> Path:
    """Writes an InceptionV3 with the names, shapes and types of the published one and random values: a V1 file of the
    same size."""
    import numpy as np

    from ckpt_tools import from_arrays, save_checkpoint
    from ckpt_tools.nets.registry import get_net

    draw = np.random.default_rng(0)
    variables = sorted(get_net("inception_v3").variables(1001))  # as TensorFlow's Saver writes them
    arrays = {variable.name: draw.standard_normal(variable.spec.shape, np.float32) for variable in variables}
    save_checkpoint(from_arrays(arrays), str(path), format="v1")
    return path


def inputs(checkpoint: Path) -> dict[str, Path]:
    """What the pages call by name; `checkpoint` is inception_v3.ckpt."""
    golden = ROOT / "tests" / "golden"
    return {
        "inception_v3.ckpt": checkpoint,
        "training": golden / "tf115_v2_training",
        "partitioned": golden / "tf115_v2_partitioned",
        "object": golden / "tf221_object",
        "torch": golden / "torch",
        "graph": golden / "tf221_graph",
        "nets.py": ROOT / "docs" / "nets.py",
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--session"]:
        print(json.dumps(session(json.load(sys.stdin))))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        checkpoint = TRAINED if TRAINED.exists() else write_stand_in(Path(name) / "inception_v3.ckpt")
        for argument in sys.argv[1:]:
            page = Path(argument)
            page.write_text(rerun(page.read_text(encoding="utf-8"), inputs(checkpoint)), encoding="utf-8")
