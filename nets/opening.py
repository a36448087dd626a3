"""A source as the nets here know it: one of another library is brought under slim's names."""

from __future__ import annotations

from pathlib import Path

from ckpt_tools.formats import Checkpoint
from ckpt_tools.formats.provenance import ENDING, read_record, sources_of
from ckpt_tools.formats.storage import is_remote
from ckpt_tools.plan import Origin

from .net import Net
from .registry import NETS, VARIANTS, recognise
from .resolving import Reference


def as_known(source: Checkpoint, reference: Reference, *, renamed: bool = False) -> tuple[Checkpoint, Origin | None]:
    """The source for the net that is meant: see `in_slims_names`. One that goes into a net of the user's own, or whose
    names the user maps himself (`renamed`), stays as it is."""
    if renamed or reference.graph or reference.is_function:
        return source, None
    return in_slims_names(source, reference.net)


def in_slims_names(source: Checkpoint, name: str | None = None) -> tuple[Checkpoint, Origin | None]:
    """A source of Keras, torchvision or timm with its tensors under slim's names, and what they are in the file; any
    other source as it is, and what its record says of it, or None. With `name`, only the net of this name and its
    variants are taken for one. Reads no values."""
    from ckpt_tools.layouts import as_source
    from ckpt_tools.layouts import recognise as recognise_foreign

    specs = source.tensors.specs()
    known = recognise(specs)
    named = (VARIANTS.get(name) or NETS.get(name)) if name else None
    if known and known.net:
        other = name and (named is None or named.family != known.net.name)
        return source, None if other else recorded(source.path, known.net, named)
    foreign = recognise_foreign(specs, NETS.values())
    if foreign is None or (name and (named is None or named.family != foreign.net.name)):
        return source, None
    tensors, origin = as_source(foreign, source.tensors)
    if foreign.exact in VARIANTS and name in (None, foreign.exact):
        origin = origin._replace(net=foreign.exact, near=())
    return source._replace(tensors=tensors), origin


def recorded(path: str, net: Net, named: Net | None = None) -> Origin | None:
    """What the sidecar of a checkpoint of `net` says beyond its tensors: that its run, or the conversion that wrote it,
    had a variant of the net, or pixels that are not the net's own. None where there is nothing of the kind. With
    `named` it is this net or variant that is wanted, whatever the sidecar says.

    What was made of a checkpoint without saying either, such as a part or an average, has those of its first source.
    """
    seen: set[str] = set()
    while path and path not in seen and not is_remote(path):
        seen.add(path)
        sidecar = Path(f"{path}{ENDING}")
        record = read_record(sidecar)
        if isinstance(said := record.get("net"), str):
            found = VARIANTS.get(said) or NETS.get(said)
            if found is None or found.family != net.family:
                return None
            style, taken = record.get("preprocessing"), named or found
            pixels = style if isinstance(style, str) and style != taken.preprocessing else ""
            name = taken.name if taken.base and not named else ""
            return Origin(str(sidecar), "", {}, pixels=pixels, net=name) if name or pixels else None
        path = next(iter(sources_of(record)), "")
    return None
