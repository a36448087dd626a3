"""One net as data: its scopes, its published facts, and the table of its variables. Nothing here imports TensorFlow."""

from __future__ import annotations

import functools
import os.path
from typing import TYPE_CHECKING, NamedTuple

from ckpt_tools.tensors import Spec

if TYPE_CHECKING:
    from ckpt_tools.plan import Variable

_TABLES = os.path.join(os.path.dirname(__file__), "variables")
CLASS_AXIS = "C"  # stands in a table for the number of classes


class TableRow(NamedTuple):
    """One variable in a table. `shape` has -1 where the number of classes goes."""

    name: str
    shape: tuple[int, ...]
    trainable: bool

    @property
    def class_axis(self) -> int | None:
        return self.shape.index(-1) if -1 in self.shape else None

    def shape_for(self, num_classes: int | None) -> tuple[int, ...]:
        return tuple(num_classes if length == -1 else length for length in self.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` is this variable's, for some number of classes."""
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))


class Net(NamedTuple):  # not a dataclass, whose import takes longer than all else that ckpt-inspect imports
    """One net. Scopes of parts are relative to `scope`; the published facts are those of slim's model page.

    `landmark` is a variable, relative to `scope`, that a checkpoint of this net has and few others have.
    `builder` is the function's full name ("tf_slim.nets.vgg.vgg_16"). `image_size` is slim's default side in pixels.
    `classes` are those of the published file, and `class_offset` is what slim calls labels_offset: 1 where that file
    has no class for the background, so that ImageNet's label 1 is its class 0. `input_channels` are those of an image.
    """

    name: str
    title: str
    scope: str
    landmark: str
    builder: str
    image_size: int
    preprocessing: str
    head: str
    last_layer: str
    classes: int
    class_offset: int
    auxiliary: tuple[str, ...] = ()
    input_channels: int = 3

    def for_grey_images(self) -> Net | None:
        """The same net with one input channel; None where its first layer is separable, which cannot be adapted."""
        return None if self.table[0].name.endswith("/depthwise_weights") else self._replace(input_channels=1)

    @property
    def head_scope(self) -> str:
        return f"{self.scope}/{self.head}"

    @property
    def head_layer(self) -> str:
        """Scope of the layer that makes the logits."""
        return f"{self.scope}/{self.last_layer}"

    @property
    def end_points(self) -> tuple[str, ...]:
        """Names of slim's end points on the way from the image to the classes, in this order."""
        return tuple(_table(self.name)[1])

    def variables_until(self, end_point: str) -> int:
        """How many of the table's variables lie on the way to this end point: so many of the first ones."""
        return _table(self.name)[1][end_point]

    @property
    def table(self) -> tuple[TableRow, ...]:
        """Every variable, in the order in which slim creates them: the first is the kernel that sees the image."""
        first, *others = _table(self.name)[0]
        if self.input_channels == 3:
            return _table(self.name)[0]
        height, width, _, channels = first.shape
        return (first._replace(shape=(height, width, self.input_channels, channels)), *others)

    @property
    def feature_channels(self) -> int:
        """Number of features of one image that reach the last layer."""
        return self.head_weights.shape[-2]

    @property
    def head_weights(self) -> TableRow:
        """The weights of the last layer: [1, 1, features, classes], or [features, classes] of a dense layer."""
        return next(row for row in self.table if row.name == f"{self.head_layer}/weights")

    def role(self, row: TableRow) -> str:
        """ "head", "auxiliary", "statistic" or "backbone"."""
        if row.name.startswith(f"{self.head_scope}/"):
            return "head"
        if any(row.name.startswith(f"{self.scope}/{part}/") for part in self.auxiliary):
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
            spec = Spec("float32", row.shape_for(num_classes))
            found.append(Variable(row.name, spec, row.trainable, role, row.class_axis))
        return tuple(found)


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
