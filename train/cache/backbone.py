"""The net that computes transfer values, in its own graph, which is built only if something has to be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tensorflow.compat.v1 as tf

from ...tensors import Tensors
from ..data.pipeline import batch_spec
from ..graph.devices import Placement
from ..graph.extraction import Extraction, Source, extraction
from ..graph.frozen_prefix import Frontier, find_frontier
from ..graph.restore import assign, audit
from ..graph.towers import INFERENCE, Shared, Tower, TowerSpec, build_tower, by_name, for_feeding, session_config
from ..plan.job import Job
from .store import FrontierTensor

_HANDED_ON = {"Squeeze", "Cast", "Identity", "Reshape"}  # operations that keep the values


def frontier_tensors(frontier: Frontier, scope: str) -> tuple[FrontierTensor, ...]:
    """The tensors of a frontier, named relative to `scope`, the tower's scope, so that the names fit every tower."""
    return tuple(
        FrontierTensor(tensor.name.removeprefix(f"{scope}/"), tuple(tensor.shape.as_list()[1:]))
        for tensor in frontier.tensors
    )


class Backbone:
    """The net of a job in inference mode, with the values of the plan and one tower per requested precision.

    `close` releases all graphs and sessions; they are rebuilt on demand.
    """

    def __init__(self, job: Job, placement: Placement) -> None:
        self._job, self._device = job, placement.batches
        self._begin()

    def _begin(self) -> None:
        self._graph = tf.Graph()
        self._source: Source | None = None
        self._session: tf.Session | None = None
        self._names: frozenset[str] = frozenset()
        self._towers: dict[str, Tower] = {}
        self._prepared: dict[tuple[str, ...], Extraction] = {}

    def __enter__(self) -> Backbone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the sessions, and drops the graphs."""
        sessions = {self._session, *(each.session for each in self._prepared.values())} - {None}
        for session in sessions:
            session.close()
        self._begin()

    def tower(self, precision: str) -> Tower:
        """The tower that computes in this precision."""
        if precision not in self._towers:
            job = self._job
            spec = TowerSpec(job.net, job.plan, replace(job.options, precision=precision), job.classes, job.head)
            with self._graph.as_default(), tf.name_scope(precision):
                if self._source is None:
                    self._source = Source(batch_spec(job.data.train, job.preprocessing), self._device)
                shared = Shared(tf.train.get_or_create_global_step())
                self._towers[precision] = build_tower(spec, self._source.batch, shared, training=False)
        return self._towers[precision]

    def frontier_at_head(self) -> tuple[FrontierTensor, Frontier] | None:
        """The tensor that reaches the head, with the frontier of a net in which only the head trains; None if it is not
        one value per channel."""
        precision = self._job.trained_in
        tower = self.tower(precision)
        found = find_frontier(tower.images, [tower.features], lambda name: False)
        if found is None or not _is_handed_on(found.tensors, tower.features):
            return None
        (part,) = frontier_tensors(found, f"{precision}/{INFERENCE}")
        return (part, found) if part.shape == (1, 1, part.shape[-1]) else None

    def computing(self, tensors: Sequence[FrontierTensor], precision: str, planned: Tensors) -> Extraction:
        """An Extraction that computes these tensors in the tower of a precision."""
        names = tuple(f"{precision}/{INFERENCE}/{each.name}" for each in tensors)
        if names not in self._prepared:
            self.tower(precision)
            assert self._source is not None  # made with the tower
            values = [self._graph.get_tensor_by_name(name) for name in names]
            self.restore(planned)
            how = {"precision": precision, "device": self._job.options.device}
            self._prepared[names] = extraction(self._session, self._source, values, **how)
        return self._prepared[names]

    def restore(self, planned: Tensors) -> frozenset[str]:
        """Gives the net's variables the values of the plan, if the net has been built. Returns the names of the
        variables that were read back and compared with the plan."""
        if self._session is None and self._towers:
            config = for_feeding(session_config(self._job.options.device)[0])
            self._session = tf.Session(graph=self._graph, config=config)
            made = by_name(self._graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES))
            net = {name: variable for name, variable in made.items() if name in planned}
            assign(self._session, net, planned)
            audit(self._session, net, planned)
            self._names = frozenset(net)
        return self._names


def _is_handed_on(tensors: Sequence[tf.Tensor], features: tf.Tensor) -> bool:
    """Whether the features are the only one of these tensors, apart from shape and type."""
    while features is not tensors[0] and features.op.type in _HANDED_ON:
        features = features.op.inputs[0]
    return len(tensors) == 1 and features is tensors[0]
