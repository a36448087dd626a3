"""A seeded share of the hostile files; `benchmarks/hostile.py` runs a hundred thousand and more."""

from __future__ import annotations

import shutil
from pathlib import Path

import mutants
import numpy as np
import pytest
from mutants import CASES, Mutant

from ckpt_tools import CheckpointError, open_checkpoint


def values(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint; the errors of single tensors are passed over, as salvage does."""
    found = {}
    tensors = open_checkpoint(folder / name, names="stored").tensors
    for tensor_name in tensors:
        try:
            found[tensor_name] = tensors[tensor_name].load()
        except CheckpointError:
            found[tensor_name] = None
    return found


def outcome(mutant: Mutant, folder: Path, expected: dict[str, dict[str, np.ndarray]]) -> str:
    """What the reader makes of a mutant: "same", "refused", "partly" (some tensors), "changed"."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in mutant.files.items():
        (folder / name).write_bytes(content)
    try:
        found = values(folder, CASES[mutant.case])
    except CheckpointError:
        return "refused"
    original = expected[mutant.case]
    good = {name for name, value in found.items() if value is not None}
    if (
        not all(name in original and same(found[name], original[name]) for name in good)
        or found.keys() != original.keys()
    ):
        return "changed"
    return "same" if good == original.keys() else "partly"


def same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype == object:
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_the_outcome_can_be_wrong(GOLDEN: Path, tmp_path: Path) -> None:
    files = mutants.originals(GOLDEN)["tf115_v2"]
    expected = {"tf115_v2": values(GOLDEN / "tf115_v2", "model.ckpt-1234")}
    intact = Mutant("tf115_v2", "none", False, files)
    assert outcome(intact, tmp_path / "m", expected) == "same"
    expected["tf115_v2"]["net/Logits/biases"] = expected["tf115_v2"]["net/Logits/biases"] + 1
    assert outcome(intact, tmp_path / "m", expected) == "changed"


@pytest.mark.timeout(300)
def test_hostile_files(GOLDEN: Path, tmp_path: Path) -> None:
    expected = {case: values(GOLDEN / case, name) for case, name in CASES.items()}
    seen: dict[tuple[bool, str], int] = {}
    for mutant in mutants.mutants(GOLDEN, seed=1, count=2000):
        result = outcome(mutant, tmp_path / "m", expected)
        assert mutant.sealed or result != "changed", (mutant.case, mutant.kind)
        seen[mutant.sealed, result] = seen.get((mutant.sealed, result), 0) + 1
    for sealed in (False, True):
        assert seen[sealed, "refused"] > 100
        assert seen[sealed, "partly"] > 20
        assert seen[sealed, "same"] > 10
