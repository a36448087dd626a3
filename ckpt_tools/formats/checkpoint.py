"""An opened source: its tensors, and what kind of file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..tensors import Tensors


@dataclass(frozen=True)
class Checkpoint:
    """What `open_checkpoint` returns. Only headers have been read; `tensors[name].load()` reads values.

    `format` is one of "v1", "v2", "saved_model", "graphdef", "keras_h5", "keras", "safetensors", "npz".
    """

    tensors: Tensors
    format: str
    path: str  # the prefix or file that was resolved from what the caller gave
    files: tuple[str, ...] = ()  # every file that holds a part of it, the index of a V2 checkpoint first
    note: str = ""  # one sentence when another member was given, such as an .index file
    holds: tuple[object, ...] = field(default=(), repr=False, compare=False)  # kept alive: an unpacked archive
    metadata: dict[str, str] = field(default_factory=dict, repr=False)  # free text that a safetensors file carries
