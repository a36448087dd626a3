"""`NAME.provenance.json`, written beside every checkpoint: what it was made from, how, and by which versions."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..tensors import Tensor
from .checkpoint import Checkpoint
from .storage import absolute, is_remote, open_file, sizes

ENDING = ".provenance.json"
_BLOCK = 4 << 20


def sidecar(
    tensors: Mapping[str, Tensor], format: str, files: Mapping[str, str], said: Mapping[str, Any]
) -> dict[str, object]:
    """The content of the sidecar.

    `files` maps the final name of each file of the new checkpoint to where it lies now. `said` is what the caller
    knows: "source" (a Checkpoint or several, or anything that JSON takes), "command", "recipe", and "actions",
    tensor name -> what was done to it; a tensor without one was copied as stored, or else written anew.
    """
    actions = dict(said.get("actions") or {})
    done = {
        name: actions.get(name) or ("copied" if is_stored(tensor) else "written") for name, tensor in tensors.items()
    }
    return {
        "source": _described(said.get("source")),
        **{key: value for key, value in said.items() if key not in ("source", "actions")},
        "format": format,
        "files": {name: _fingerprint(path, name) for name, path in sorted(files.items())},
        "versions": _versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tensors": done,
    }


def dump(content: Mapping[str, object], path: str) -> None:
    """Writes the sidecar as indented JSON, for people and for jq."""
    with open(path, "w", encoding="utf-8") as out:
        json.dump(content, out, indent=1, ensure_ascii=True, default=str)
        out.write("\n")


def is_stored(tensor: Tensor) -> bool:
    """Whether the writer of V2 can copy this tensor's bytes, or those of all its slices."""
    if tensor.slices:
        return all(part.tensor.stored is not None for part in tensor.slices)
    return tensor.stored is not None


def _described(source: object) -> object:
    if isinstance(source, Checkpoint):
        there = [file for file, size in zip(source.files, sizes(source.files), strict=True) if size is not None]
        files = {os.path.basename(file): _fingerprint(file) for file in there}
        return {"path": absolute(source.path), "format": source.format, "files": files}
    if isinstance(source, (list, tuple)):
        return [_described(one) for one in source]
    return source


def _fingerprint(path: str, name: str | None = None) -> dict[str, object]:
    """Size and SHA-256, as `sha256sum` prints it. Data files of a V2 checkpoint are not read for it: the digest of
    the index pins the CRC-32C of every tensor in them. Nor are other files behind URLs: they would be downloaded."""
    known: dict[str, object] = {"bytes": sizes([path])[0]}
    if path.endswith(".index") if is_remote(path) else ".data-" not in os.path.basename(name or path):
        known["sha256"] = _sha256(path)
    return known


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from .. import __version__

    found = {"ckpt-tools": __version__, "python": "{}.{}.{}".format(*sys.version_info[:3])}
    if "numpy" in sys.modules:
        found["numpy"] = sys.modules["numpy"].__version__
    return found
