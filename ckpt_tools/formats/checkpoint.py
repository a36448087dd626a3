"""An opened source: its tensors, and the kind of file they came from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..tensors import Tensors


class Checkpoint(NamedTuple):
    """The result of `open_checkpoint`. Only headers have been read; `tensors[name].load()` reads values.

    `format` is one of "v1", "v2", "saved_model", "graphdef", "keras_h5", "keras", "safetensors", "npz",
    "torch", "torch_legacy" (a file of PyTorch before 1.6).
    """

    tensors: Tensors
    format: str
    path: str  # the prefix or file that the caller's source resolved to
    files: tuple[str, ...] = ()  # all files of the checkpoint, the index of a V2 checkpoint first
    note: str = ""  # one sentence if the source was another member, such as an .index file, or a part is missing
    holds: tuple[object, ...] = ()  # kept alive as long as the checkpoint, such as the folder of an unpacked archive
    metadata: Mapping[str, str] = MappingProxyType({})  # free text in a safetensors file
    archive: str = ""  # the archive that it was unpacked from; `path` and `files` disappear with the unpacked folder

    @property
    def known_as(self) -> str:
        """The path that users know: that of the archive, if it came from one."""
        return self.archive or self.path

    @property
    def known_files(self) -> tuple[str, ...]:
        """The files that users know: the archive alone, if it came from one."""
        return (self.archive,) if self.archive else self.files

    def _repr_html_(self) -> str:
        """For notebooks: the source, totals by kind, and the tensors."""
        from .. import html
        from ..kinds import KINDS, kinds

        specs = self.tensors.specs()
        kind_of = {name: kind.kind for name, kind in kinds(specs).items()}
        rows: list[dict[str, Any]] = [
            {
                "name": name,
                "dtype": spec.dtype,
                "shape": spec.shape,
                "parameters": spec.parameters,
                "kind": kind_of[name],
            }
            for name, spec in specs.items()
        ]
        totals = []
        for kind in KINDS:
            found = [row for row in rows if row["kind"] == kind]
            count = sum(row["parameters"] for row in found)
            totals += [{"kind": kind, "tensors": len(found), "parameters": count}] if found else []
        said = f"{self.format}, {len(rows):,} tensors, {sum(row['parameters'] for row in rows):,} parameters"
        listed = html.table(rows, ["name", "dtype", "shape", "parameters", "kind"])
        parts = [html.title(self.path, said), html.table(totals, ["kind", "tensors", "parameters"])]
        return "".join([*parts, html.folded("tensors", listed)])
