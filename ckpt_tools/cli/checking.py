"""--check of ckpt-convert: the net that was read and the one that was written, run on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DataError, RecipeError, SelectionError, needs
from ..formats import Checkpoint, open_checkpoint
from ..layouts import WORLDS, Foreign, recognise
from ..nets.net import Net
from ..report import render
from ..surgery import operate
from .layouts import InLayout

if TYPE_CHECKING:
    import numpy as np

    from ..nets.comparing import Compared, Comparison

COUNT, SEED, BATCH = 8, 0, 4  # random images, and those that are run at a time
COLUMNS = ["end point", "layers", "largest value", "largest difference", "in parts of it", "cosine"]


class Check(NamedTuple):
    """What one comparison found. `library` ran the file at `path`; `images` says which they were."""

    library: str
    path: str
    images: str
    found: Comparison


def prepare_check(source: Checkpoint, layout: InLayout, name: str) -> None:
    """Raises, before anything is written, UnsupportedError where the other library is not installed, and RecipeError
    where there is none."""
    worlds = _worlds(source, layout, name)
    if not worlds:
        which = "slim's before and after" if not layout.world else "a graph that no library builds"
        raise RecipeError(f"--check runs a net here and in another library, and this one is {which}")
    from ..nets.peers import check_library

    for world in sorted(worlds, key=lambda world: world == "keras"):  # what needs PyTorch before TensorFlow
        check_library(world)
    with needs("--check"):
        from ..train.graph.quiet import hush_tensorflow

        hush_tensorflow()
        import tensorflow  # noqa: F401
        import tf_slim  # noqa: F401


def check(source: Checkpoint, target: str, layout: InLayout, name: str, given: Sequence[str]) -> list[Check]:
    """Runs the net of ours, and each file of another library, on the same images.

    `source` holds the tensors as its file has them; `given` are images, folders, patterns; random images without any.
    """
    from ..nets.comparing import compare
    from ..nets.registry import NETS, get_net

    net, written = get_net(layout.computed), open_checkpoint(target)
    ours = written.tensors if name == "slim" else operate(source.tensors, layout.inward).tensors
    found = []
    for world, file in _files(source, written, layout, name):
        theirs = _recognised(file, NETS[layout.net])
        style = theirs.pixels or net.preprocessing
        batches, said = _batches(given, net, style)
        compared = compare(world, net, ours, theirs, file.tensors, batches)
        found.append(Check(theirs.library, file.path, said, compared))
    return found


def _worlds(source: Checkpoint, layout: InLayout, name: str) -> list[str]:
    return [world for world in (layout.world, name) if world in WORLDS]


def _files(source: Checkpoint, written: Checkpoint, layout: InLayout, name: str) -> Iterator[tuple[str, Checkpoint]]:
    if layout.world in WORLDS:
        yield layout.world, source
    if name != "slim":
        yield name, written


def _recognised(file: Checkpoint, net: Net) -> Foreign:
    found = recognise(file.tensors.specs(), [net])
    if found is None:
        raise SelectionError(f"is not {net.title} of another library", path=file.path)
    return found


def _batches(given: Sequence[str], net: Net, style: str) -> tuple[Iterator[np.ndarray], str]:
    """Images [batch, side, side, 3] as the net wants them, and which they are."""
    import numpy as np

    if given:
        from ..train.data.pipeline import decode
        from ..train.use.predict import images_in

        examples, _ = images_in(list(given))

        def read(number: int) -> np.ndarray:
            try:
                return decode(examples.read(number))
            except ValueError as error:
                raise DataError(f"cannot be decoded: {error}", path=examples.names[number]) from None

        return _prepared(map(read, range(len(examples))), net, style), f"{len(examples):,} images"
    random = np.random.default_rng(SEED)
    shape = (net.image_size, net.image_size, 3)
    noise = (random.integers(0, 256, shape, dtype=np.uint8) for _ in range(COUNT))
    return _prepared(noise, net, style), f"{COUNT} images of noise, seed {SEED}"


def _prepared(images: Iterator[np.ndarray], net: Net, style: str) -> Iterator[np.ndarray]:
    import numpy as np
    import tensorflow.compat.v1 as tf

    from ..train.data.preprocess import Preprocessing, prepare

    graph = tf.Graph()
    with graph.as_default():
        fed = tf.placeholder(tf.uint8, [None, None, 3])
        made = prepare(fed, Preprocessing(style, net.image_size))
    with closing(tf.Session(graph=graph)) as session:  # never the default one, between two batches
        batch = []
        for image in images:
            batch.append(session.run(made, {fed: image}))
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)


def as_json(checks: Sequence[Check], tolerance: float) -> list[dict[str, object]]:
    """What --json prints of the checks."""
    return [
        {
            "library": each.library,
            "file": each.path,
            "images": each.images,
            "rows": [dict(zip(COLUMNS, cells(row), strict=True)) for row in each.found.rows],
            "same_first_class": each.found.agreed,
            "difference": each.found.last,
            "tolerance": tolerance,
        }
        for each in checks
    ]


def text(check: Check, tolerance: float) -> str:
    """A comparison for people."""
    rows = [dict(zip(COLUMNS, cells(row), strict=True)) for row in check.found.rows]
    found = check.found
    first = "" if found.agreed is None else f", the same first class for {found.agreed} of {found.images}"
    verdict = f"{'within' if found.last <= tolerance else 'above'} the tolerance of {tolerance:g}"
    return "\n".join(
        [
            f"\nchecked   {check.path} in {check.library} and the net here, on {check.images}",
            "",
            render(rows, COLUMNS),
            "",
            f"output    differs by {found.last:.2g} of its largest value, {verdict}{first}",
        ]
    )


def cells(row: Compared) -> list[object]:
    """The cells of a row; figures are rounded to what they say."""
    figures = [None if each is None else float(f"{each:.3g}") for each in (row.largest, row.difference, row.relative)]
    cosine = None if row.cosine is None else round(row.cosine, 7)
    return [row.end_point, row.layers, *figures, cosine]
