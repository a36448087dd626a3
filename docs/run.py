"""Runs the commands that a page shows and puts what they print under them: python docs/run.py docs/plan.md

Only blocks marked `console` are run, in a temporary folder, in their order. `tests/test_docs.py` runs them again and
compares. Blocks marked `shell-session` show runs whose figures differ from machine to machine; nothing runs those.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rerun(page: str, inputs: dict[str, Path]) -> str:
    """The page with the real output of its commands. `inputs` are linked into the folder where they run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for link, target in inputs.items():
            (folder / link).symlink_to(target)
        return BLOCK.sub(lambda block: f"```console\n{_run(block[1], folder)}```", page)


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


def inputs() -> dict[str, Path]:
    """What the pages call by name; the full-size file lies beside the repository, and not every clone has it."""
    golden, shared = ROOT / "tests" / "golden", ROOT.parent / "shared"
    return {
        "inception_v3.ckpt": shared / "checkpoints" / "inception_v3.ckpt",
        "training": golden / "tf115_v2_training",
        "partitioned": golden / "tf115_v2_partitioned",
        "object": golden / "tf221_object",
        "torch": golden / "torch",
        "graph": golden / "tf221_graph",
        "broken": shared / "corpus" / "broken" / "derived",
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        page = Path(argument)
        page.write_text(rerun(page.read_text(encoding="utf-8"), inputs()), encoding="utf-8")
