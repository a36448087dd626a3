"""An opened source: its tensors, and what kind of file they came from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..tensors import Tensors


class Checkpoint(NamedTuple):
    """What `open_checkpoint` returns. Only headers have been read; `tensors[name].load()` reads values.

    `format` is one of "v1", "v2", "saved_model", "graphdef", "keras_h5", "keras", "safetensors", "npz",
    "torch", "torch_legacy" (a file of PyTorch before 1.6).
    """

    tensors: Tensors
    format: str
    path: str  # the prefix or file that was resolved from what the caller gave
    files: tuple[str, ...] = ()  # every file that holds a part of it, the index of a V2 checkpoint first
    note: str = ""  # one sentence when another member was given, such as an .index file, or a part is missing
    holds: tuple[object, ...] = ()  # kept alive as long as the checkpoint: the folder of an unpacked archive
    metadata: Mapping[str, str] = MappingProxyType({})  # free text that a safetensors file carries
