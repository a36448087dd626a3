"""Shared fixtures: the golden checkpoints, and the folder beside the repository that not every clone has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def unhurried_disk() -> Iterator[None]:
    """Nothing that this process writes is brought to disk at once, which thousands of files would wait for: no test can
    cut the power. That it is asked for, and when, test_output.py and the sweeps of kills look at."""
    real = os.fsync
    os.fsync = os.fstat  # which fails as fsync does for a file that is not open
    yield
    os.fsync = real


@pytest.fixture(scope="session")
def GOLDEN() -> Path:
    """Checkpoints written by TensorFlow 0.12, 1.15 and 2.21, with a manifest of what they hold."""
    return HERE / "golden"


@pytest.fixture(scope="session")
def SHARED() -> Path:
    """`../shared` of the repository: large and foreign files. A test that needs it is skipped without it."""
    folder = HERE.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not here")
    return folder


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Imports a script of benchmarks/ by its name: a sweep there has a share of it here."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, HERE.parent / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
