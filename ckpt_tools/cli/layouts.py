"""What `--layout` does: a source, whoever wrote it, as operations into another world's names and axes."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import CheckpointError, SelectionError
from ..folding import FOLDED, foldable
from ..formats import Checkpoint
from ..kinds import AVERAGE, kinds
from ..layouts import WORLDS, Foreign, from_slim, layout_of, recognise, to_slim
from ..layouts.matching import Net
from ..layouts.reading import GRAPH_2015
from ..surgery import Fold, Operation, Rename, Strip, Surgery, operate
from ..tensors import Tensors


class InLayout(NamedTuple):
    """A source in another layout. `net` and `origin` say what it is, `world` which library's file it is, "" for slim's;
    `inward` are those of the operations that bring it under slim's names. `notes` say what has to be known of the
    result, `near` what is not the very same function in the library that it is written for. `computed` is the name of
    the net here that computes what the source is for: `net`, or a variant of it. `pixels` are those of its library's
    published weights, "" for the net's own."""

    net: str
    origin: str
    surgery: Surgery
    notes: tuple[str, ...]
    near: tuple[str, ...]
    world: str
    inward: tuple[Operation, ...]
    computed: str
    pixels: str


def in_layout(checkpoint: Checkpoint, layout: str, *, keep_background: bool = False, places: bool = False) -> InLayout:
    """The tensors of the net that a checkpoint holds, as `layout` writes them.

    Raises SelectionError where it is no net that is known, or not known how `layout` writes it.
    """
    from ..nets.opening import recorded
    from ..nets.registry import NETS

    tensors = checkpoint.tensors
    given = ""
    try:
        foreign = recognise(tensors.specs(), NETS.values())
        if foreign:
            net, operations, near = foreign.net, to_slim(foreign), _of(foreign.world, foreign.near)
            origin, computed, given = str(foreign), foreign.exact, foreign.pixels
            pixels = _pixels(foreign.library, foreign.pixels)
        else:
            net, origin, operations = _from_slims(tensors)
            known = recorded(checkpoint.path, NETS[net.name])
            computed, given = (known and known.net) or net.name, (known.pixels if known else "")
            near, pixels = _near_of(net.name, computed), ()
        inward = operations
        notes = _differences(foreign, tensors) if foreign else ()
        if layout != "slim":
            written = from_slim(
                layout, net, operate(tensors, operations).tensors if operations else tensors,
                background=keep_background, places=places,
            )  # fmt: skip
            operations += written.operations
            notes += written.notes
            pixels = _pixels(layout, written.pixels)
            near = () if written.exact == computed else near + _of(layout, written.near)
        notes += pixels
        surgery, world = operate(tensors, operations), foreign.world if foreign else ""
        near = tuple(dict.fromkeys(near))
        return InLayout(net.name, origin, surgery, notes, near, world, inward, computed, given)
    except CheckpointError as error:
        raise error.at(path=checkpoint.path) from None


def _of(world: str, near: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{world}: {difference}" for difference in near)


def _near_of(net: str, variant: str) -> tuple[str, ...]:
    """What a variant of the net, the one that a library computes, does otherwise than slim's own."""
    for world in (*WORLDS, GRAPH_2015):
        layout = layout_of(world, net)
        if layout and layout.exact == variant:
            return _of(world, layout.near)
    return ()


def _pixels(library: str, style: str) -> tuple[str, ...]:
    """A sentence where weights that the library publishes want other pixels than slim's do."""
    if not style:
        return ()
    return (f"weights that {library} publishes take pixels of --preprocessing {style}, which are not slim's",)


def _differences(foreign: Foreign, tensors: Tensors) -> tuple[str, ...]:
    """Sentences on the variables of the net that a file of another world has not, and on weights that it has beside."""
    missing = dict.fromkeys("/".join(name.split("/")[:2]) for name in foreign.missing)
    told = kinds(tensors.specs())
    layers = dict.fromkeys(name.rpartition("/")[0] or name for name in foreign.others if told[name].kind == "weight")
    notes = {"not in the file": missing, "not part of the net, left out": layers}
    return tuple(f"{what}: {', '.join(names)}" for what, names in notes.items() if names)


def _from_slims(tensors: Tensors) -> tuple[Net, str, tuple[Operation, ...]]:
    """Net, what it is called, and the operations that leave its variables alone, under slim's own names."""
    from ..nets.registry import recognise as recognise_slims

    specs = tensors.specs()
    found = recognise_slims(specs)
    if found is None or found.net is None:
        said = f": {found}" if found else ""
        advice = "ckpt-inspect SRC lists its tensors; ckpt-edit --rename and --recipe change names and axes one by one."
        raise SelectionError(f"cannot tell which net this is{said}", advice=advice)
    operations: list[Operation] = []
    landmark = f"{found.scope}/{found.net.landmark}".lstrip("/")
    if landmark not in specs:
        operations.append(Rename(((rf"re:^(.+){AVERAGE}$", r"\1"),)))
    if any(kind.kind in ("slot", "average", "step") for kind in kinds(specs).values()):
        operations.append(Strip())
    if found.scope != found.net.scope:
        operations.append(Rename(((found.scope, found.net.scope),)))
    operations += _folds(found.net, operate(tensors, operations).tensors if operations else tensors)
    return found.net, str(found), tuple(operations)


def _folds(net: Net, tensors: Tensors) -> list[Operation]:
    """What folds scales and biases that the file has and the net has not: without them it would be another function."""
    variables = {variable.name for variable in net.variables(None)}
    parts = [part for each in foldable(tensors.specs()) for part in (each.gamma, each.biases)]
    extra = [part for part in parts if part and part not in variables and part.startswith(f"{net.scope}/".lstrip("/"))]
    what = tuple(word for word in FOLDED if any(part.endswith(f"/{word}") for part in extra))
    return [Fold(what, tuple(f"/{part}" for part in extra))] if extra else []
