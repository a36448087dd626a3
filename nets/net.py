"""One net as data: its scopes, its published facts, and the table of its variables. Nothing here imports TensorFlow."""

from __future__ import annotations

import functools
import os.path
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpt_tools.tensors import Spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckpt_tools.graphs.net import GraphPart
    from ckpt_tools.plan import Variable

_TABLES = os.path.join(os.path.dirname(__file__), "variables")
CLASS_AXIS = "C"  # stands in a table for the number of classes
ArgScope = dict[Any, dict[str, Any]]  # of slim: layer -> what it is called with


class TableRow(NamedTuple):
    """One variable in a table. `shape` has -1 where the number of classes goes. `role` is "head", "auxiliary",
    "statistic" or "backbone"; "" for what its scope says (`Net.role`)."""

    name: str
    shape: tuple[int, ...]
    trainable: bool
    role: str = ""
    dtype: str = "float32"

    @property
    def class_axis(self) -> int | None:
        return self.shape.index(-1) if -1 in self.shape else None

    def shape_for(self, num_classes: int | None) -> tuple[int, ...]:
        known = -1 if num_classes is None else num_classes
        return tuple(known if length == -1 else length for length in self.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` is this variable's, for some number of classes."""
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))


class Net(NamedTuple):  # not a dataclass, whose import takes longer than all else that ckpt-inspect imports
    """One net. Scopes of parts are relative to `scope`; the published facts are those of slim's model page.

    `landmark` is a variable, relative to `scope`, that a checkpoint of this net has and few others have; "" for a net
    that is not to be recognised. `builder` is the function in slim's manner, or its full name
    ("tf_slim.nets.vgg.vgg_16"). `image_size` is slim's default side in pixels. `classes` are those of the published
    file, and `class_offset` is what slim calls labels_offset: 1 where that file has no class for the background, so
    that ImageNet's label 1 is its class 0. `input_channels` are those of an image.

    `rows` are its variables in the order of `table`; None for those of the file variables/NAME.txt. `points` are its
    end points, each with the number of rows before it. `width` is the number of features, where no last layer tells
    it. A net that was found in a graph has its `graph`, and no builder. `base` is the name of the net whose variables
    and end points it has, if it is a variant of one: the same layers, computed in another way.
    """

    name: str
    title: str
    scope: str
    landmark: str
    builder: str | Callable[..., Any]
    image_size: int
    preprocessing: str
    head: str
    last_layer: str
    classes: int
    class_offset: int
    auxiliary: tuple[str, ...] = ()
    input_channels: int = 3
    rows: tuple[TableRow, ...] | None = None
    points: tuple[tuple[str, int], ...] = ()
    width: int | None = None
    graph: GraphPart | None = None
    base: str = ""

    @property
    def family(self) -> str:
        """The name of the net that it is, or that it is a variant of: what goes into the one goes into the other."""
        return self.base or self.name

    @property
    def identity(self) -> str:
        """What tells the net from every other: its name, and for a net that is not of this package its code or graph.

        Values that were computed with a net are kept under it, so that an edited net cannot take them.
        """
        if self.graph is not None:
            return f"{self.name} {self.graph.digest}"
        if isinstance(self.builder, str):
            return self.name
        return f"{self.name} {_code_digest(self.builder)}"

    def for_grey_images(self) -> Net | None:
        """The same net with one input channel; None where its first layer is separable, which cannot be adapted, and
        for a net of a graph."""
        separable = self.graph is not None or self.table[0].name.endswith("/depthwise_weights")
        return None if separable else self._replace(input_channels=1)

    def placed(self, part: str) -> str:
        """The whole name of a part, which is relative to the net's scope; some nets have none."""
        return f"{self.scope}/{part}" if self.scope else part

    def under(self, scope: str, name: str) -> str:
        """What the variable `name` is called in a file in which the net lies under `scope`; "" is none."""
        relative = name.removeprefix(self.placed(""))
        return f"{scope}/{relative}" if scope else relative

    @property
    def head_scope(self) -> str:
        return self.placed(self.head)

    @property
    def head_layer(self) -> str:
        """Scope of the layer that makes the logits; "" for a net that has none."""
        return self.placed(self.last_layer) if self.last_layer else ""

    @property
    def end_points(self) -> tuple[str, ...]:
        """Names of slim's end points on the way from the image to the classes, in this order."""
        return tuple(self._points)

    def variables_until(self, end_point: str) -> int:
        """How many of the table's variables lie on the way to this end point: so many of the first ones."""
        return self._points[end_point]

    @property
    def _points(self) -> dict[str, int]:
        return _table(self.family)[1] if self.rows is None else dict(self.points)

    @property
    def table(self) -> tuple[TableRow, ...]:
        """Every variable, in the order in which slim creates them: the first is the kernel that sees the image."""
        rows = _table(self.family)[0] if self.rows is None else self.rows
        if self.input_channels == 3 or self.graph is not None:
            return rows
        first, *others = rows
        height, width, _, channels = first.shape
        return (first._replace(shape=(height, width, self.input_channels, channels)), *others)

    @property
    def feature_channels(self) -> int:
        """Number of features of one image that reach the last layer."""
        return self.width or self.head_weights.shape[-2]

    @property
    def head_weights(self) -> TableRow:
        """The weights of the last layer: [1, 1, features, classes], or [features, classes] of a dense layer."""
        kernels = (row for row in self.table if row.class_axis is not None and len(row.shape) > 1)
        return next(row for row in kernels if self.role(row) == "head")

    def role(self, row: TableRow) -> str:
        """ "head", "auxiliary", "statistic" or "backbone"."""
        if row.role:
            return row.role
        if row.name.startswith(f"{self.head_scope}/"):
            return "head"
        if any(row.name.startswith(f"{self.placed(part)}/") for part in self.auxiliary):
            return "auxiliary"
        return "backbone" if row.trainable else "statistic"

    def variables(self, num_classes: int | None) -> tuple[Variable, ...]:
        """The variables of the net for so many classes; with None, only those that the features need."""
        from ckpt_tools.plan import Variable

        found = []
        for row in self.table:
            role = self.role(row)
            if num_classes is None and role in ("head", "auxiliary"):
                continue
            spec = Spec(row.dtype, row.shape_for(num_classes))
            found.append(Variable(row.name, spec, row.trainable, role, row.class_axis))
        return tuple(found)


@functools.cache
def _code_digest(builder: Callable[..., Any]) -> str:
    """Of the file that a builder lies in: what it calls there decides what it builds."""
    import hashlib
    import inspect

    try:
        code = inspect.getsource(inspect.getmodule(builder) or builder)
    except (OSError, TypeError):  # typed into an interpreter
        code = builder.__code__.co_code.hex()
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def table_text(name: str) -> str:
    """The file with a net's table; see `list_variables.py` for its format."""
    with open(os.path.join(_TABLES, f"{name}.txt")) as file:
        return file.read()


@functools.cache
def _table(name: str) -> tuple[tuple[TableRow, ...], dict[str, int]]:
    """The rows of a net's table, and its end points with the number of rows before each."""
    rows: list[TableRow] = []
    end_points: dict[str, int] = {}
    for line in table_text(name).splitlines():
        kind, *words = line.split()
        if kind in ("trainable", "statistic"):
            shape = tuple(-1 if word == CLASS_AXIS else int(word) for word in words[1].split("x"))
            rows.append(TableRow(words[0], shape, kind == "trainable"))
        elif kind == "end_point":
            end_points[words[0]] = len(rows)
    return tuple(rows), end_points
