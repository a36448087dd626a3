"""Runs a classifier's net on images, batch by batch, in the chosen precision, and returns the wanted tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import DataError, RecipeError
from ...events import Advanced, OnEvent, ignore
from ..data.examples import Examples, steps_per_epoch
from ..graph.progress import told
from ..options.training import AUTO, FLOAT32, Choice

if TYPE_CHECKING:
    import numpy as np
    import tensorflow.compat.v1 as tf

    from ..data.pipeline import Unreadable
    from .classifier import Classifier


class Wanted(NamedTuple):
    """The tensors to compute, by name, and the variables that they depend on (None: all of the graph)."""

    tensors: Mapping[str, tf.Tensor]
    variables: Collection[str] | None = None


Make = Callable[["tf.Tensor"], Wanted]  # builds a graph on images [batch, s, s, 3]


class Prepared:
    """A net in its own session, for examples of the same kind as `like`.

    `make` builds it on images of the type `precision`; results are never below float32.
    """

    def __init__(
        self, classifier: Classifier, like: Examples, make: Make, *, precision: str = FLOAT32, device: str = "auto"
    ) -> None:
        import tensorflow.compat.v1 as tf

        from ..data.pipeline import batch_spec
        from ..graph.devices import device_of_batches
        from ..graph.extraction import Source, extraction
        from ..graph.towers import session_config

        self._pixels = classifier.preprocessing
        with tf.Graph().as_default():
            source = Source(batch_spec(like, self._pixels), device_of_batches(device))
            images = source.batch["image"]
            wanted = make(images if precision == FLOAT32 else tf.cast(images, precision))
            session = tf.Session(config=session_config(device)[0])
            restore_variables(session, classifier, wanted.variables)
        self._names = tuple(wanted.tensors)
        how = {"precision": precision, "device": device}
        self._extraction = extraction(session, source, list(wanted.tensors.values()), **how)
        if self._extraction.session is not session:  # folded, so the variables are no longer needed
            session.close()

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the session."""
        self._extraction.session.close()

    def run(
        self, examples: Examples, *, title: str, batch_size: int = 32, unreadable: Unreadable | None = None,
        on_event: OnEvent = ignore,
    ) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
        """Yields the wanted values and "index" for each batch, in order. Images are decoded while the net works on
        earlier ones. `on_event` receives the progress."""
        from ..data.pipeline import Unreadable, make_batches

        unreadable = unreadable or Unreadable()
        how: dict[str, Any] = {"batch_size": batch_size, "training": False, "unreadable": unreadable}
        steps = steps_per_epoch(len(examples), batch_size)
        with told(on_event, title, total=steps, unit="batch"), unreadable.raised():
            for index, values in self._extraction.run(lambda: make_batches(examples, self._pixels, **how)):
                yield {**dict(zip(self._names, values, strict=True)), "index": index}
                on_event(Advanced(title, images=len(index)))


def run_on(
    classifier: Classifier, examples: Examples, make: Make, *, precision: str = FLOAT32, device: str = "auto",
    **how: Any,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """`Prepared.run` for a net that is used only once."""
    with Prepared(classifier, examples, make, precision=precision, device=device) as net:
        yield from net.run(examples, **how)


def prepare(
    classifier: Classifier, examples: Examples, make: Make, precision: str, device: str, on_event: OnEvent = ignore
) -> tuple[Choice, Prepared]:
    """The choice by --precision for these examples, and the net in that precision; for auto, a few examples are
    computed both ways.

    Raises RecipeError for less than float32 if the net comes from a graph.
    """
    choice = _candidate(classifier, len(examples), precision, device)
    with ExitStack() as opened:

        def net(precision: str) -> Prepared:
            return opened.enter_context(Prepared(classifier, examples, make, precision=precision, device=device))

        nets = {choice.precision: net(choice.precision)}
        if choice.open:
            nets[FLOAT32] = net(FLOAT32)
            choice = _compared(choice, nets, examples, on_event)
        opened.pop_all()  # success: do not close the net
    for name, other in nets.items():
        if name != choice.precision:
            other.close()
    return choice, nets[choice.precision]


def _candidate(classifier: Classifier, images: int, precision: str, device: str) -> Choice:
    from ..graph.native import candidate

    if classifier.takes == "vectors":
        return Choice(FLOAT32, "the data are vectors")
    if classifier.net.graph is not None and precision != FLOAT32:
        if precision != AUTO:
            raise RecipeError(f"--precision {precision}: a net from a graph keeps the graph's own types")
        return Choice(FLOAT32, "a net from a graph keeps the graph's own types")
    return candidate(precision, device, images)


def _compared(choice: Choice, nets: Mapping[str, Prepared], examples: Examples, on_event: OnEvent) -> Choice:
    """The choice, or float32 if the values of both nets for a few of the examples differ too much."""
    import numpy as np

    from ..data.pipeline import Unreadable
    from ..graph.native import CHECKED, compared

    few, both = examples.take(np.linspace(0, len(examples) - 1, CHECKED).astype(int)), []
    try:
        for each in (FLOAT32, choice.precision):
            (found,) = nets[each].run(few, title="comparing", unreadable=Unreadable(limit=1.0), on_event=on_event)
            both.append([values for name, values in found.items() if name != "index"])
    except DataError:
        return Choice(FLOAT32, "none of the images that were looked at can be decoded")
    return compared(choice, *both)


def logits_of(classifier: Classifier, images: tf.Tensor, *, training_batch_norm: bool = False) -> Wanted:
    """Builds the net with its trained head in the current graph: "logits" float32 [batch, classes] and "features"
    float32 [batch, channels], the input of the head. It computes in the type of the images.

    `training_batch_norm` normalises by each batch's own statistics instead of the stored ones.
    """
    import tensorflow.compat.v1 as tf

    from ...nets.head import Dropout
    from ..graph.towers import Shared, TowerSpec, build_tower
    from ..plan.request import make_head

    every = dict.fromkeys(classifier.plan.batch_norm, "train")
    several = [classifier.classes] if classifier.many else []
    head = make_head(classifier.options)
    head = replace(head, layers=tuple(layer for layer in head.layers if not isinstance(layer, Dropout)))
    plan = replace(classifier.plan, batch_norm=every) if training_batch_norm else classifier.plan
    options = replace(classifier.options, precision=images.dtype.name, xla=False, aux=False)  # regardless of training
    spec = TowerSpec(classifier.net, plan, options, classifier.classes, head)
    batch = {"image": images, "label": tf.zeros([tf.shape(images)[0], *several], tf.int32)}
    shared = Shared(tf.train.get_or_create_global_step())
    tower = build_tower(spec, batch, shared, training=training_batch_norm)
    return Wanted({"logits": tower.logits, "features": tower.features})


def restore_variables(session: tf.Session, classifier: Classifier, names: Collection[str] | None = None) -> None:
    """Restores the variables of the current graph, or those in `names`.

    Raises TrainingError for a variable without a value. An auxiliary head is skipped, since nothing depends on it.
    """
    import tensorflow.compat.v1 as tf

    from ..graph.restore import assign

    step = tf.train.get_or_create_global_step()
    session.run(step.initializer)
    auxiliary = tuple(f"{classifier.net.placed(part)}/" for part in classifier.net.auxiliary)
    variables = {variable.op.name: variable for variable in tf.global_variables() if variable is not step}
    wanted = [name for name in variables if not name.startswith(auxiliary)] if names is None else names
    assign(session, {name: variables[name] for name in wanted}, classifier.tensors)
