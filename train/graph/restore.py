"""Executes a restore plan: assigns source tensors to a net's variables, reads them back and compares them.

`planned_tensors` gives every variable of the plan as a lazy tensor, whatever its row's action. The session, the
checkpoint writer and the audit load values one at a time. A tensor that is merely restored keeps the position of its
bytes, so that frozen variables are saved by copying byte ranges.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...dtypes import numpy_dtype
from ...errors import PlanError, TrainingError
from ...folding import Folding
from ...graphs.net import GraphPart
from ...graphs.text import conflict_text
from ...plan import RESTORING, Adaptation, Plan, Row
from ...report import listed
from ...tensors import Spec, Tensor, Tensors
from ..data.preprocess import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

CHUNK = 64 << 20  # bytes of variables assigned or read by one session call
KEPT = 256 << 20  # bytes of initial values kept in memory: they are assigned, compared, saved and compared again

Initializer = Callable[..., "tf.Tensor"]


def planned_tensors(
    plan: Plan, source: Tensors, *, seed: int, initializers: Mapping[str, Initializer] | None = None
) -> Tensors:
    """Every variable of the net with its planned value, lazily, in the plan's order.

    `initializers` are slim's initializers of the graph's variables, by name. A variable that is not in the graph, such
    as that of an untrained auxiliary head, gets zeros, ones or small random values depending on its name."""
    initializers = initializers or {}
    made = sum(row.spec.nbytes or 0 for row in plan.rows if row.action == "init" or row.name in plan.adaptations)

    def drawn_once(draw: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        return functools.cache(draw) if made <= KEPT else draw

    def tensor(row: Row) -> Tensor:
        spec = row.spec
        if row.action in ("restore", "rename", "relayout", "carry"):
            found = source[row.source or row.name]
            if found.spec != spec:
                raise TrainingError(f"the plan wants {spec}, the source has {found.spec}", tensor=row.name)
            return found
        fresh = drawn_once(lambda: initial_value(row.name, spec, seed, initializers.get(row.name)))
        if row.action == "init":
            return Tensor(spec, fresh)
        found = source[row.source or row.name]
        adaptation = plan.adaptations.get(row.name)
        read = lambda name: source[name].load()  # noqa: E731
        return Tensor(spec, lambda: convert(found.load(), spec, adaptation, fresh, read))

    net = [row for row in plan.checked().rows if row.action in (*RESTORING, "init", "carry")]
    return Tensors((row.name, tensor(row)) for row in net)


def check_graph(part: GraphPart, how: Preprocessing, tensors: Tensors) -> None:
    """Computes the features of a few random images with the net of a graph and these values of its variables. Raises
    PlanError unless there is one row per image, reproducible and independent of the other images."""
    from ...nets.imported import check_import

    shape = (how.image_size, how.image_size, 1 if how.channels == "grey" else 3)
    if wrong := check_import(part.file, part.found, shape, {name: tensor.load for name, tensor in tensors.items()}):
        raise PlanError(f"the graph has {conflict_text(wrong)}", path=part.file.path)


def convert(
    array: np.ndarray,
    spec: Spec,
    adaptation: Adaptation | Folding | None,
    fresh: Callable[[], np.ndarray],
    read: Callable[[str], np.ndarray],
) -> np.ndarray:
    """`array` after the adaptation, in the type of `spec`. `read` returns the values of another source tensor."""
    if isinstance(adaptation, Folding):
        array, adaptation = adaptation.apply(array, read), adaptation.then
    if adaptation is not None:
        array = adaptation.apply(array, fresh())
    if array.shape != spec.shape:
        raise TrainingError(f"has shape {list(array.shape)}, the plan wants {list(spec.shape)}")
    return array.astype(numpy_dtype(spec.dtype))


def initial_value(name: str, spec: Spec, seed: int, initializer: Initializer | None = None) -> np.ndarray:
    """A variable's value before training, drawn by its initializer from `seed` and the variable's name.

    TensorFlow derives the seed of an initializer from its position in the graph, so that adding a layer changes all
    later ones; here a variable has the same initial value in any graph."""
    import numpy as np
    import tensorflow as tf

    number = zlib.crc32(f"{seed}/{name}".encode())
    last = name.rsplit("/", 1)[-1]
    if initializer is None and last in ("biases", "beta", "moving_mean", "bias"):
        return np.zeros(spec.shape, numpy_dtype(spec.dtype))
    if initializer is None and last in ("gamma", "moving_variance"):
        return np.ones(spec.shape, numpy_dtype(spec.dtype))
    constant = {tf.compat.v1.zeros_initializer: 0, tf.compat.v1.ones_initializer: 1}.get(type(initializer))
    if constant is not None:  # three quarters of a net's variables, which need no session
        return np.full(spec.shape, constant, numpy_dtype(spec.dtype))
    with tf.Graph().as_default() as graph, tf.device("/cpu:0"):
        tf.compat.v1.set_random_seed(number & 0x7FFFFFFF)
        initializer = initializer or tf.compat.v1.truncated_normal_initializer(stddev=0.01)
        value = initializer(list(spec.shape), dtype=tf.as_dtype(spec.dtype))
        with tf.compat.v1.Session(graph=graph) as session:
            return np.array(session.run(value))


def assign(session: tf.compat.v1.Session, variables: Mapping[str, tf.Variable], tensors: Mapping[str, Tensor]) -> None:
    """Gives each variable the value of the tensor with its name. Raises TrainingError if a shape or type differs.

    The value is fed to the initializer's own assignment, so that no operation is added to the graph.
    """
    for name, variable in variables.items():
        spec = Spec(variable.dtype.base_dtype.name, tuple(variable.shape.as_list()))
        if name not in tensors:
            raise TrainingError("no value for this variable", tensor=name)
        if tensors[name].spec != spec:
            raise TrainingError(f"the graph has {spec}, its value is {tensors[name].spec}", tensor=name)
    for names in _chunks({name: tensors[name] for name in variables}):
        feeds = {}
        for name in names:
            value = tensors[name].load()
            if value.shape != tensors[name].spec.shape:
                raise TrainingError(f"has shape {list(value.shape)} instead of {tensors[name].spec}", tensor=name)
            feeds[variables[name].initializer.inputs[1]] = value
        session.run([variables[name].initializer for name in names], feeds)


def read(session: tf.compat.v1.Session, variables: Mapping[str, tf.Variable]) -> dict[str, np.ndarray]:
    """The current values of the variables."""
    return session.run(dict(variables))


def audit(session: tf.compat.v1.Session, variables: Mapping[str, tf.Variable], tensors: Mapping[str, Tensor]) -> int:
    """Reads every variable back and compares it bit for bit with the plan; returns the number of variables.

    Raises TrainingError with the names of variables that differ: nothing is trained on weights that were not restored.
    """
    wrong = []
    for names in _chunks({name: tensors[name] for name in variables}):
        values = session.run({name: variables[name] for name in names})
        wrong += [name for name in names if not same_bits(values[name], tensors[name].load())]
    if wrong:
        raise TrainingError(f"variables differ from the plan after restoring: {listed(wrong, 5)}")
    return len(variables)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Same type, shape and bytes; NaN equals the same NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def changed_tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Names whose values differ or that one side lacks. If stored checksums differ, no values are read."""
    names = [*before, *(name for name in after if name not in before)]
    return [name for name in names if name not in before or name not in after or not _equal(before[name], after[name])]


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.spec != b.spec:
        return False
    if a.stored and b.stored and (a.stored.crc32c, a.stored.size) != (b.stored.crc32c, b.stored.size):
        return False
    return same_bits(a.load(), b.load())


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[Sequence[str]]:
    """Names in order, in groups whose values take about CHUNK bytes together."""
    group: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        nbytes = tensor.spec.nbytes or 0
        if group and size + nbytes > CHUNK:
            yield group
            group, size = [], 0
        group.append(name)
        size += nbytes
    if group:
        yield group
