"""Where a source comes from: of another library, what each tensor under slim's names is in its file; of a run or a
conversion, what their records say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..tensors import Spec
from .rows import FOLDED_IN, PART, RESTORING, Row


class InFile(NamedTuple):
    """A tensor as the file has it. `how` is what was done to its values, "" where they are as they lie; `folded` what
    was folded into it: "", "scales", "biases"."""

    name: str
    spec: Spec
    how: str
    folded: str = ""


class Origin(NamedTuple):
    """Where a source that was brought under slim's names comes from, or that was trained or written here.

    `title` is the net as its library calls it, `library` whose names the file has. `tensors` maps slim's names to what
    is in the file. `folded` are tensors of the file that went into others, and `left_out` those without a use. `near`
    says what is not the same function there; `pixels` how images were scaled for its published weights, "" for slim's.
    `net` is the name of the net that computes what the library does, where that is a variant of slim's.

    A source that has slim's names has no `library`, and `title` is the file that says `net` and `pixels`.
    """

    title: str
    library: str
    tensors: Mapping[str, InFile]
    folded: tuple[InFile, ...] = ()
    left_out: tuple[InFile, ...] = ()
    near: tuple[str, ...] = ()
    pixels: str = ""
    net: str = ""

    @property
    def names(self) -> str:
        """Whose names they are: "Keras' names"."""
        return f"{self.library}'{'s' * (not self.library.endswith('s'))} names"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was recognised, a line, and a line for each difference of the function."""
        if not self.library:
            said = ((self.net, f"the net is {self.net}"), (self.pixels, f"images are scaled as {self.pixels}"))
            return tuple(f"{what}, as {self.title} says" for known, what in said if known)
        folded = f", {len(self.folded):,} of them folded into others" if self.folded else ""
        count = len(self.tensors) + len(self.folded)
        found = f"the checkpoint is {self.title}: {count:,} tensors under {self.names}{folded}"
        pixels = f"images are scaled as for the weights that {self.library} publishes: {self.pixels}"
        exact = f"the net is {self.net}, which computes exactly what {self.library} does; slim's own is only close"
        near = (f"nearly the same function: {self.library}: {each}" for each in self.near)
        return (found, *([pixels] if self.pixels else []), *([exact] if self.net else near))

    def row(self, row: Row) -> Row:
        """A row of a plan of the tensors under slim's names, as it is of the file."""
        found = self.tensors.get(row.source) if row.source else None
        if found is None or row.rule == PART:
            return row
        named = row._replace(source=found.name, source_shape=found.spec.shape)
        if row.action == "unused":
            return named._replace(name=found.name)
        if row.action not in RESTORING or row.action in ("adapt", "cast"):
            return named
        reason = f"is {found.name} in the file" + (f": {found.how}" if found.how else "")
        rule = self.names + (f", {found.folded} folded" if found.folded else "")
        return named._replace(action="relayout", rule=rule, reason=reason)

    def unused(self) -> tuple[Row, ...]:
        """A row for each tensor of the file that no variable takes as it is."""

        def rows(tensors: tuple[InFile, ...], rule: str) -> list[Row]:
            return [
                Row(each.name, "unused", each.name, each.spec.shape, None, each.spec.dtype, False, rule, each.how)
                for each in tensors
            ]

        return (*rows(self.folded, FOLDED_IN), *rows(self.left_out, "no such variable"))
