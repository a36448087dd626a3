"""Golden checkpoints of three TensorFlow releases: read like TensorFlow's own reader, rewritten byte for byte."""

from __future__ import annotations

import filecmp
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import open_checkpoint
from ckpt_tools.formats import v1, v2

MANIFEST = json.loads((Path(__file__).parent / "golden" / "manifest.json").read_text())
CASES = sorted(MANIFEST)


def digest(array: np.ndarray) -> str:
    """SHA-256 as make_oracle.py computes it."""
    if array.dtype != object:
        data = np.ascontiguousarray(array).tobytes()
    elif not array.shape:
        data = array.item()
    else:
        data = b"".join(len(element).to_bytes(8, "little") + element for element in array.ravel())
    return hashlib.sha256(data).hexdigest()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and digest(a) == digest(b)


def test_the_comparison_can_fail() -> None:
    assert same(np.array([1.0]), np.array([1.0]))
    assert not same(np.array([1.0]), np.array([1.0], "float32"))
    assert not same(np.array([1.0, 2.0]), np.array([[1.0, 2.0]]))
    assert not same(np.array([0.0]), np.array([-0.0]))


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_as_the_manifest_says(GOLDEN: Path, case: str) -> None:
    checkpoint = open_checkpoint(GOLDEN / case, names="stored")
    rows = MANIFEST[case]
    assert sorted(checkpoint.tensors) == sorted(rows)
    for name, row in rows.items():
        tensor = checkpoint.tensors[name]
        assert tensor.spec == (row["dtype"], tuple(row["shape"]))
        values = tensor.load()
        assert values.shape == tensor.spec.shape
        if "sha256" in row:
            assert digest(values) == row["sha256"], name
        else:  # TensorFlow's reader refuses it in V1; its V2 twin has the same values
            twin = open_checkpoint(GOLDEN / case.replace("_v1", "_v2")).tensors[name].load()
            assert same(values, twin), name


def test_the_manifest_covers_what_tensorflow_refuses() -> None:
    refused = {name for rows in MANIFEST.values() for name, row in rows.items() if "sha256" not in row}
    assert {"complex64", "complex128", "float16", "uint16", "emb/rows", "emb/cols"} <= refused


@pytest.mark.parametrize("case", [case for case in CASES if "_v1" not in case])
def test_v2_is_rewritten_byte_for_byte(GOLDEN: Path, tmp_path: Path, case: str) -> None:
    source = open_checkpoint(GOLDEN / case, names="stored")
    v2.write(source.tensors, str(tmp_path / "copy"))
    assert len(list(tmp_path.iterdir())) == len(source.files)
    for file in source.files:
        assert filecmp.cmp(file, str(tmp_path / "copy") + file.removeprefix(source.path), shallow=False), file


@pytest.mark.parametrize("case", [case for case in CASES if "_v1" in case])
def test_v1_is_rewritten_byte_for_byte(GOLDEN: Path, tmp_path: Path, case: str) -> None:
    for file in open_checkpoint(GOLDEN / case).files:
        v1.write(v1.read(file).tensors, str(tmp_path / "copy"))
        assert filecmp.cmp(file, tmp_path / "copy", shallow=False), file


@pytest.mark.parametrize("case", [case for case in CASES if "_v1" in case])
def test_v1_becomes_the_v2_twin(GOLDEN: Path, tmp_path: Path, case: str) -> None:
    source = open_checkpoint(GOLDEN / case)
    v2.write(source.tensors, str(tmp_path / "copy"))
    copy = open_checkpoint(tmp_path / "copy")
    assert sorted(copy.tensors) == sorted(source.tensors)
    for name, tensor in source.tensors.items():
        assert same(copy.tensors[name].load(), tensor.load()), name
        assert [part.extents for part in copy.tensors[name].slices] == [part.extents for part in tensor.slices]


def test_object_based_names(GOLDEN: Path) -> None:
    """A full name that only one variable has is shown; `kernel` and `bias` belong to two."""
    tensors = open_checkpoint(GOLDEN / "tf221_object").tensors
    assert sorted(tensors) == [
        "Variable",
        "f8",
        "low",
        "model/blocks/0/b",
        "model/blocks/0/w",
        "model/blocks/1/b",
        "model/blocks/1/w",
        "odd",
        "save_counter",
    ]
    key = "model/table/x.Sy/.ATTRIBUTES/VARIABLE_VALUE"
    assert tensors.stored_names["odd"] == key
    assert key in tensors
    assert tensors[key].load() == tensors["odd"].load() == 1.5
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" in tensors
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in list(tensors)


def test_partitioned_variables_keep_their_slices(GOLDEN: Path) -> None:
    for release in ("tf012", "tf115", "tf221"):
        for format in ("v1", "v2"):
            tensor = open_checkpoint(GOLDEN / f"{release}_{format}_partitioned").tensors["emb/rows"]
            parts = sorted(tensor.slices, key=lambda part: part.extents)  # TensorFlow 0.12 lists them in any order
            assert [part.extents[0] for part in parts] == [(0, 3), (3, 2), (5, 2)]
            assert np.array_equal(np.concatenate([part.tensor.load() for part in parts]), tensor.load())


def test_listing_reads_no_values_and_imports_no_numpy(GOLDEN: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from ckpt_tools import open_checkpoint\n"
        "for path in sys.argv[1:]: open_checkpoint(path).tensors.specs()\n"
        "heavy = {'numpy', 'tensorflow', 'ml_dtypes', 'h5py', 'cramjam', 'inspect', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    cases = [str(GOLDEN / case) for case in CASES]
    # -S: an editable install's own path hook imports inspect
    import ckpt_tools

    folder = str(Path(ckpt_tools.__file__).parent.parent)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    path = f"import sys; sys.path[:0] = {[folder, *packages]!r}\n"
    done = subprocess.run([sys.executable, "-S", "-c", path + code, *cases], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
