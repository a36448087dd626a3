"""A net out of a graph file: `--graph`, or the `.meta` beside a checkpoint. TensorFlow is for text files alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ckpt_tools.errors import PlanError, UnsupportedError
from ckpt_tools.formats.graph_file import GraphFile, read_graph
from ckpt_tools.graphs.analysis import Analysis, analyse
from ckpt_tools.graphs.choosing import AS_FOUND, FREEZE, Choices
from ckpt_tools.graphs.files import graph_of, is_text
from ckpt_tools.graphs.graph import node_of
from ckpt_tools.graphs.layers import first_channels, outputs_first
from ckpt_tools.graphs.net import GraphPart, part_of, read_part
from ckpt_tools.graphs.savers import OBJECT_KEY
from ckpt_tools.graphs.sources import LEAST_SIDE
from ckpt_tools.graphs.text import conflict_text, spelled
from ckpt_tools.kinds import kinds
from ckpt_tools.tensors import Spec

from .net import Net, TableRow
from .registry import get_net

RAW = "raw"  # how the images of a net are scaled that takes whole numbers; those of others can be scaled in any way


def open_graph(path: str, choices: Choices = AS_FOUND, saved: Collection[str] = (), source: str = "") -> GraphPart:
    """The net in a graph file. `saved` are the names in the checkpoint that goes with it, `source` is where it lies.

    Raises what `read_graph` and `analyse` raise, PlanError with everything that stands in the way of taking it, and
    UnsupportedError for a SavedModel of TensorFlow 2.
    """
    file = _read(graph_of(path) or path)
    found = analyse(file, choices, saved, source)
    if found.conflicts or found.images is None:
        raise PlanError(f"the graph has {conflict_text(found.conflicts)}", path=file.path)
    if any(each.key.endswith(OBJECT_KEY) for each in found.variables):
        fact = "was written by TensorFlow 2 or Keras, whose variables have no names in the graph"
        raise UnsupportedError(fact, path=file.path, advice=FREEZE)
    return part_of(file, found)


def _read(path: str) -> GraphFile:
    if is_text(path):
        from .text_graph import read_text_graph  # takes TensorFlow

        return read_text_graph(path)
    return read_graph(path)


def net_from(part: GraphPart, name: str = "") -> Net:
    """The net of a graph, under the names that its variables have in a checkpoint.

    What lies between the features and the logits is its head, whose class axis is where its variables have as many
    entries as there are classes.
    Raises UnsupportedError for images that are not square.
    """
    found = part.found
    rows = _rows(found)
    names = [row.name for row in rows]
    scope = _common(names)
    head = [row.name for row in rows if row.role == "head"]
    last = [row for row in rows if row.role == "head" and row.class_axis is not None and len(row.shape) > 1]
    side, channels = _image(part)
    place = _common(head)
    file = Path(part.file.path).name
    return Net(
        name=name or file,
        title=_title(found, name or file),
        scope=scope,
        landmark="",
        builder="",
        image_size=side,
        preprocessing=RAW if takes_whole_numbers(part) else "",
        head=_below(scope, place),
        last_layer=_below(scope, last[-1].name.rpartition("/")[0]) if last else "",
        classes=found.classes or 0,
        class_offset=0,
        input_channels=channels,
        rows=rows,
        points=tuple(_points(found, rows).items()),
        width=found.width,
        graph=part,
    )


def _title(found: Analysis, file: str) -> str:
    several = f"the trained one of {found.models} nets in {file}, which ends in {found.logits}"
    return several if found.models > 1 else f"the net in {file}"


NET_FILE = "net.pb"  # in a train directory: the graph of a net that was found in one


def net_of_record(record: Mapping[str, Any], folder: Path) -> Net:
    """The net that the plan.json of a run in `folder` names. Raises KeyError where it names none."""
    if record.get("graph"):
        return net_from(read_part(folder / NET_FILE, record["graph"]), record["net"])
    return get_net(record["net"])


def takes_whole_numbers(part: GraphPart) -> bool:
    """Whether the net takes images of whole numbers: scaled to less than 1, all would be the same."""
    return "int" in (part.found.fed.dtype or "")


def has_head(net: Net) -> bool:
    """Whether a net has a last layer of its own, whose classes can be others."""
    layers = (row for row in net.table if len(row.shape) > 1)
    return any(net.role(row) == "head" and row.class_axis is not None for row in layers)


def classes_in(net: Net, specs: Mapping[str, Spec]) -> int | None:
    """The classes that the last layer of a net has in a checkpoint, None where it has no such layer."""
    if not has_head(net):
        return None
    row = net.head_weights
    spec, axis = specs.get(row.name), row.class_axis
    return spec.shape[axis] if spec and axis is not None and len(spec.shape) == len(row.shape) else None


def _rows(found: Analysis) -> tuple[TableRow, ...]:
    """The variables in the order in which the images reach them, those of the head last."""
    graph = found.cut.graph
    before = graph.upstream([found.features])
    kind_of = kinds({each.own_key: each.spec for each in found.variables})
    at = _order(found)
    made = []
    for each in sorted(found.variables, key=lambda each: (each.name not in before, at[each.name])):
        statistic = kind_of[each.own_key].kind in ("statistic", "average")
        role = "head" if each.name not in before else "statistic" if statistic else "backbone"
        shape = each.spec.shape
        axis = _class_axis(found, each.name) if role == "head" else None
        if axis is not None:
            shape = tuple(-1 if i == axis else length for i, length in enumerate(shape))
        made.append(TableRow(each.key, shape, each.trainable, role, each.spec.dtype))
    return tuple(made)


def _class_axis(found: Analysis, name: str) -> int | None:
    """The axis of a head's variable that has one entry a class: the last, or the first of a matrix that is taken
    transposed. None for what belongs to layers before the last one."""
    shape = next(each.spec.shape for each in found.variables if each.name == name)
    graph = found.cut.graph
    turned = [node for node in graph.nodes.values() if node.op in ("MatMul", "Einsum") and outputs_first(node, 1)]
    transposed = len(shape) == 2 and any(name in graph.upstream(graph.inputs[node.name][1:2]) for node in turned)
    axis = 0 if transposed else len(shape) - 1
    return axis if shape and shape[axis] == found.classes else None


def _order(found: Analysis) -> dict[str, tuple[int, int]]:
    """Variable -> the number of the first end point that depends on it, and its place in the file."""
    graph = found.cut.graph
    reached: dict[str, int] = {}
    for number, point in enumerate(found.end_points):
        if node_of(point) in graph.nodes:
            for name in graph.upstream([point], stop=reached.__contains__):
                reached.setdefault(name, number)
    last = len(found.end_points)
    return {each.name: (reached.get(each.name, last), place) for place, each in enumerate(found.variables)}


def _points(found: Analysis, rows: tuple[TableRow, ...]) -> dict[str, int]:
    """End point -> the number of rows before it."""
    order = _order(found)
    body = {row.name for row in rows if row.role != "head"}
    reached = [order[each.name][0] for each in found.variables if each.key in body]
    return {point: sum(place <= number for place in reached) for number, point in enumerate(found.end_points)}


def _image(part: GraphPart) -> tuple[int, int]:
    """The longer side in pixels, 0 where the graph does not say it, and channels."""
    shape = part.found.fed.shape
    if shape is not None and len(shape) == 2 and shape[1]:  # images as vectors
        for channels in (1, 3):
            side = round((shape[1] / channels) ** 0.5)
            if side * side * channels == shape[1] and side >= LEAST_SIDE:
                return side, channels
        raise UnsupportedError(
            f"the net takes rows of {shape[1]:,} values, which are not square images", path=part.file.path,
            advice="If it is a net for images, --input NAME names a tensor that holds them.",
        )  # fmt: skip
    if shape is None or len(shape) < 3:
        return 0, first_channels(part.found.cut.graph) or 3
    if len(shape) > 4:
        fact = f"the net takes {spelled(shape)} at a time, several images per example"
        raise UnsupportedError(
            fact, path=part.file.path, advice="--input NAME names a tensor that holds single images."
        )
    height, width = shape[1:3]
    if len(shape) == 3 and height and width and height != width:
        fact = f"the net takes {spelled(shape)}, which may be sequences, not images"
        advice = "If it is a net for images, --input NAME names a tensor that has an axis for channels."
        raise UnsupportedError(fact, path=part.file.path, advice=advice)
    depth = shape[3] if len(shape) == 4 else 1
    return max(height or 0, width or 0), depth or first_channels(part.found.cut.graph) or 3


def _common(names: list[str]) -> str:
    """The scope that all of the names lie in."""
    parts = [name.split("/")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared) if names else ""


def _below(scope: str, name: str) -> str:
    return name.removeprefix(f"{scope}/") if scope else name
