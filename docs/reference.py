"""Writes a reference of the Python face, from the docstrings, to docs/api/: `make docs`."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import pdoc

import ckpt_tools

OUT = Path(__file__).resolve().parent / "api"
MODULES = ("ckpt_tools", "ckpt_tools.plan", "ckpt_tools.surgery")  # and the modules that the first one names
HIDDEN = ("api", "cli", "nets", "train", "formats", "graphs", "layouts", "__main__")


def main(out: Path = OUT) -> None:
    for name in ckpt_tools.__all__:  # pdoc looks into the module and would not find what is imported on first use
        setattr(ckpt_tools, name, getattr(ckpt_tools, name))
    shutil.rmtree(out, ignore_errors=True)
    pdoc.render.configure(footer_text=f"ckpt-tools {ckpt_tools.__version__}", show_source=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error parsing type annotation")  # of NamedTuples: shown as they are written
        pdoc.pdoc(*MODULES, *(f"!ckpt_tools.{name}" for name in HIDDEN), output_directory=out)
    print(out / "index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
