"""Checkpoint files: `open_checkpoint` reads any source, `save_checkpoint` writes one.

Each format is a module with `read(path) -> Checkpoint` and, if the format can be written, a writer. A module is
imported only when a file of its format turns up, so that listing a TensorFlow checkpoint needs neither numpy nor h5py.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .output import save_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "save_checkpoint"]

# Name of a format, as given by `detect.identify` -> the module that reads it.
READERS = {
    "v1": "v1",
    "v2": "v2",
    "graphdef": "graphdef",
    "keras_h5": "keras",
    "keras": "keras",
    "safetensors": "safetensors_file",
    "npz": "npz",
    "torch": "torch_file",
}


def open_checkpoint(source: str | os.PathLike[str], *, names: str = "variable") -> Checkpoint:
    """Opens any source and reads its headers; values are read by `checkpoint.tensors[name].load()`.

    `source` may be a V1 file, its prefix, glob or any one of its shards; a V2 prefix or any of its files; a folder;
    a `checkpoint` state file; a SavedModel; a GraphDef, Keras, PyTorch, safetensors or npz file; a tar archive holding
    one of these; and any of them followed by `:scope`, which keeps the tensors under that scope without the scope.

    `names="variable"` shows object-based checkpoints under their original variable names, "stored" under the file's
    keys.

    Raises NotACheckpointError, saying what the path holds instead, and DamagedError.
    """
    from .opening import open_source

    return open_source(os.fspath(source), names)


def reader(format: str) -> ModuleType:
    """Imports and returns the module that reads `format`."""
    return import_module(f".{READERS[format]}", __name__)


def __getattr__(name: str) -> object:
    if name == "save_checkpoint":
        return import_module(".output", __name__).save_checkpoint
    raise AttributeError(f"module {__name__} has no attribute {name}")
