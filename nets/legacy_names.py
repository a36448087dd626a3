"""TensorFlow 1's names, for files that say `import tensorflow as tf` and mean it.

    names = TensorFlow1()
    names.imported("tensorflow.contrib.slim", ())    what `import tensorflow.contrib.slim` binds: names.tensorflow
    names.tensorflow.contrib.slim.conv2d             tf_slim's
    names.tensorflow.contrib.rnn.LSTMCell            can be imported; says what is missing where it is called

Nothing of TensorFlow is changed: who imports it elsewhere gets its own names.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import tensorflow
import tensorflow.compat.v1 as tf
import tf_slim
import tf_slim.layers
import tf_slim.nets
import tf_slim.ops
from tensorflow.python.keras.legacy_tf_layers import convolutional, core, pooling

from ckpt_tools.errors import UnsupportedError

from .legacy_layers import batch_normalization

_SWITCHES = (  # of the whole process: they are not a file's to turn
    "disable_control_flow_v2", "disable_eager_execution", "disable_resource_variables", "disable_v2_behavior",
    "disable_v2_tensorshape", "enable_control_flow_v2", "enable_eager_execution", "enable_resource_variables",
    "enable_v2_behavior", "enable_v2_tensorshape",
)  # fmt: skip
BUILTINS = {  # Python 2's
    "basestring": str, "long": int, "raw_input": input, "reduce": functools.reduce, "unicode": str, "unichr": chr,
    "xrange": range,
}  # fmt: skip


class CompatModule(ModuleType):
    """A module that looks its names up in others: first in `own`, then in each of `sources`; one that none of them has
    is what `missing` makes of its full name, else an AttributeError."""

    def __init__(
        self, name: str, *sources: ModuleType, missing: Callable[[str], object] | None = None, **own: object
    ) -> None:
        super().__init__(name)
        self._sources, self._missing = sources, missing
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for source in self._sources:
            if hasattr(source, name):
                return getattr(source, name)
        for source in self._sources:
            if source.__name__.startswith("tf_slim"):
                try:
                    return importlib.import_module(f"{source.__name__}.{name}")
                except ImportError:
                    continue
        full = f"{self.__name__}.{name}"
        if self._missing:
            return self._missing(full)
        raise AttributeError(f"TensorFlow {tensorflow.__version__} has no {full}")


class Missing:
    """What TensorFlow 2 no longer has: it can be imported, and raises UnsupportedError when it is called."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> object:
        raise UnsupportedError(f"TensorFlow {tensorflow.__version__} has no {self.__name__}, nor has ckpt-tools")

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[()]:
        return ()  # a class that is derived from it can be defined


class TensorFlow1:
    """`tensorflow` as a file of TensorFlow 1 knows it, with what it imports of it."""

    def __init__(self) -> None:
        contrib = CompatModule("tensorflow.contrib", missing=Missing)
        for name, sources in (
            ("slim", (tf_slim,)),
            ("layers", (tf_slim.layers, tf_slim)),
            ("framework", (tf_slim, tf_slim.ops, tf)),
        ):
            part = CompatModule(f"tensorflow.contrib.{name}", *sources, missing=Missing)
            part.__dict__.update({"python": part, "ops": part, name: part})  # contrib.layers.python.layers and the like
            setattr(contrib, name, part)
        contrib.slim.nets = CompatModule("tensorflow.contrib.slim.nets", tf_slim.nets, missing=Missing)
        compat = CompatModule("tensorflow.compat", tf.compat)
        self.tensorflow = CompatModule(
            "tensorflow",
            tf,
            __version__="1.15.5",  # the last: files ask for it to choose between names
            compat=compat,
            contrib=contrib,
            examples=Missing("tensorflow.examples"),
            layers=_layers(),
            python=sys.modules["tensorflow.python"],
            **dict.fromkeys(_SWITCHES, lambda *args, **kwargs: None),
            **_OLD,
        )
        compat.__dict__["v1"] = self.tensorflow

    def imported(self, name: str, wanted: Sequence[str]) -> object:
        """What `import name` binds ("tensorflow" itself), or with names that are `wanted` of it, the module they lie
        in."""
        if name.startswith("tensorflow.python"):
            found: Any = importlib.import_module(name)
            for each in wanted:
                if not hasattr(found, each):
                    importlib.import_module(f"{name}.{each}")
        else:
            found = self.tensorflow
            for part in name.split(".")[1:]:
                found = getattr(found, part, None)
            if found is None:
                raise ModuleNotFoundError(f"TensorFlow {tensorflow.__version__} has no module {name}", name=name)
        return found if wanted else self.tensorflow


def _layers() -> CompatModule:
    own = {"batch_normalization": batch_normalization}
    return CompatModule("tensorflow.layers", core, convolutional, pooling, missing=Missing, **own)


# --- functions of before TensorFlow 1.0, and what has lost a freedom since -------------------------------------------


def concat(*args: object, **kwargs: object) -> tf.Tensor:
    """`tf.concat(values, axis)` and the older `tf.concat(concat_dim, values)`."""
    names = ("concat_dim", "values") if args and isinstance(args[0], int) else ("values", "axis")
    given = {**dict(zip((*names, "name"), args, strict=False)), **kwargs}
    axis = given.get("axis", given.get("concat_dim"))
    return tf.concat(given["values"], axis, given.get("name", "concat"))


def split(*args: object, **kwargs: object) -> list[tf.Tensor]:
    """`tf.split(value, num_or_size_splits, axis)` and the older `tf.split(split_dim, num_split, value)`."""
    old = (args and isinstance(args[0], int)) or "split_dim" in kwargs
    names = ("split_dim", "num_split", "value", "name") if old else ("value", "num_or_size_splits", "axis", "num")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    parts = given.get("num_or_size_splits", given.get("num_split"))
    axis = given.get("axis", given.get("split_dim", 0))
    return tf.split(given["value"], parts, axis, given.get("num"), given.get("name", "split"))


def cond(
    pred: object,
    true_fn: Callable[[], object] | None = None,
    false_fn: Callable[[], object] | None = None,
    **others: Any,
) -> object:
    """`tf.cond`, also with its first names fn1 and fn2, and of a Python bool, as a switch is here."""
    true_fn, false_fn = others.pop("fn1", true_fn), others.pop("fn2", false_fn)
    if isinstance(pred, bool) and true_fn and false_fn:
        return true_fn() if pred else false_fn()
    return tf.cond(pred, true_fn, false_fn, **others)


def get_variable(name: str, shape: object = None, *args: object, **kwargs: object) -> tf.Variable:
    """`tf.get_variable`, also with lengths that Python 2's division gave as integers."""
    if isinstance(shape, list | tuple):
        shape = [int(each) if isinstance(each, float) and each.is_integer() else each for each in shape]
    return tf.get_variable(name, shape, *args, **kwargs)


_OLD = {
    "batch_matmul": tf.matmul,
    "concat": concat,
    "cond": cond,
    "get_variable": get_variable,
    "histogram_summary": tf.summary.histogram,
    "image_summary": tf.summary.image,
    "mul": tf.multiply,
    "neg": tf.negative,
    "pack": tf.stack,
    "scalar_summary": tf.summary.scalar,
    "select": tf.where,
    "split": split,
    "sub": tf.subtract,
    "unpack": tf.unstack,
}
