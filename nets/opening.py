"""A source as the nets here know it: one of another library is brought under slim's names."""

from __future__ import annotations

from ckpt_tools.formats import Checkpoint
from ckpt_tools.plan import Origin

from .registry import NETS, recognise
from .resolving import Reference


def as_known(source: Checkpoint, reference: Reference, *, renamed: bool = False) -> tuple[Checkpoint, Origin | None]:
    """The source for the net that is meant: see `in_slims_names`. One that goes into a net of the user's own, or whose
    names the user maps himself (`renamed`), stays as it is."""
    if renamed or reference.graph or reference.is_function:
        return source, None
    return in_slims_names(source, reference.net)


def in_slims_names(source: Checkpoint, name: str | None = None) -> tuple[Checkpoint, Origin | None]:
    """A source of Keras, torchvision or timm with its tensors under slim's names, and what they are in the file; any
    other source as it is, and None. With `name`, only the net of this name is taken for one. Reads no values."""
    from ckpt_tools.layouts import as_source
    from ckpt_tools.layouts import recognise as recognise_foreign

    specs = source.tensors.specs()
    known = recognise(specs)
    if known and known.net:
        return source, None
    foreign = recognise_foreign(specs, NETS.values())
    if foreign is None or name not in (None, foreign.net.name):
        return source, None
    tensors, origin = as_source(foreign, source.tensors)
    return source._replace(tensors=tensors), origin
