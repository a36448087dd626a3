"""Runs the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

PACKAGES = ("ckpt_tools", "ckpt_tools.nets", "ckpt_tools.train")  # of an editable install, the first has not the others


def modules_with_examples() -> list[str]:
    found = set()
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            source = Path(module.module_finder.find_spec(module.name).origin).read_text(encoding="utf-8")
            if re.search(r"^ +>>> ", source, re.MULTILINE):
                found.add(module.name)
    return sorted(found)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str) -> None:
    if name.startswith(PACKAGES[1:]):
        pytest.importorskip("tensorflow")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
