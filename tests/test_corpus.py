"""Forty checkpoints of public repositories, read in place: names, types, shapes, values, and damage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ckpt_tools import CheckpointError, open_checkpoint

BROKEN = {  # what our message says of each file that TensorFlow cannot open or read
    "v1_bitflip": "the checksum of a block at byte 0 differs",
    "v1_truncated_head": "was cut off: it has 4,000 bytes and should have",
    "v2_data_bitflip": "the checksum of its bytes differs",
    "v2_data_crlf": "line ends were converted",
    "v2_data_truncated": "it has 20,000 bytes and should have 46,744",
    "v2_index_real_data_lfs": "is a Git LFS pointer; the real file has 2,049,180 bytes",
    "missing_shard": "model.ckpt-10.data-00001-of-00002: tensor ",
    "index_only": "this file of the checkpoint is missing",
}


def expected_text(path: str) -> str:
    return next(text for part, text in BROKEN.items() if part in path)


def digest(array: np.ndarray, row: dict[str, object]) -> str:
    data = repr(array.tolist()).encode() if row.get("sha256_of") == "repr" else np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(data).hexdigest()


def test_corpus(SHARED: Path) -> None:
    import json

    oracle = json.loads((SHARED / "corpus" / "oracle.json").read_text())["checkpoints"]
    assert len(oracle) == 40
    values = refused = 0
    for case in oracle:
        path = SHARED / "corpus" / case["path"]
        if "open_error" in case:
            with pytest.raises(CheckpointError, match=expected_text(case["path"])):
                open_checkpoint(path, names="stored")
            continue
        checkpoint = open_checkpoint(path, names="stored")
        rows = {row["name"]: row for row in case["tensors"]}
        assert sorted(checkpoint.tensors) == sorted(rows), path
        for name, row in rows.items():
            tensor = checkpoint.tensors[name]
            assert tensor.spec == (row["dtype"], tuple(row["shape"])), (path, name)
            if "error" in row:
                with pytest.raises(CheckpointError) as caught:
                    tensor.load()
                assert expected_text(case["path"]) in str(caught.value)
                assert name in str(caught.value)
                refused += 1
            else:
                assert digest(tensor.load(), row) == row["sha256"], (path, name)
                values += 1
    assert values > 500
    assert refused > 400


def test_what_is_missing_is_said_when_it_is_opened(SHARED: Path) -> None:
    folder = SHARED / "corpus"
    shard = folder / "broken/missing_shard/JWang-AI__HCO_CNN_Cifar10/cifar10_train/model.ckpt-10"
    note = (
        "of its 2 data files, model.ckpt-10.data-00001-of-00002 is missing: names and shapes are known, the values not"
    )
    assert open_checkpoint(shard).note == note
    note = open_checkpoint(folder / "broken/derived/v2_index_real_data_lfs/model.ckpt-10000").note
    assert "is a Git LFS pointer; the real file has 2,049,180 bytes. Fetch the file itself with: git lfs pull" in note


def test_trained_inception_v3(SHARED: Path) -> None:
    checkpoint = open_checkpoint(SHARED / "checkpoints")
    assert checkpoint.path.endswith("inception_v3.ckpt")
    assert checkpoint.format == "v1"
    assert len(checkpoint.tensors) == 388
    assert checkpoint.tensors["InceptionV3/Logits/Conv2d_1c_1x1/weights"].load().shape == (1, 1, 2048, 1001)
