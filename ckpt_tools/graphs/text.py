"""Describes an analysed graph for people and machines: findings, end points, variables compared with a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from ..formats.graph_file import KINDS, GraphFile
from ..formats.nodes import Shape
from ..plan import Conflict
from ..report import count, listed
from .analysis import Analysis
from .graph import node_of
from .operations import known_operations

_NAMED = 5


def facts(file: GraphFile, found: Analysis, saved: Collection[str] | None, checkpoint: str = "") -> str:
    """One fact per line: file, images, features, classes, switches, variables in the checkpoint, unknown operations."""
    return "\n".join(f"{word:<12} {fact}" for word, fact in _facts(file, found, saved, checkpoint))


def _facts(file: GraphFile, found: Analysis, saved: Collection[str] | None, checkpoint: str) -> list[tuple[str, str]]:
    name = Path(file.path).name
    wrote = f", TensorFlow {file.tensorflow}" if file.tensorflow else ""
    on_the_way = f", {len(found.net.graph.nodes):,} of them in the net" if found.images and found.net else ""
    rows = [("graph", f"{name}: {KINDS[file.kind]}{wrote}, {found.operations:,} operations{on_the_way}")]
    if found.images:
        freed = "; for any batch size" if found.changes.any_batch else ""
        freed += "; channels moved last" if node_of(found.images.tensor) in found.changes.channels_last else ""
        rows.append(("images", f"{found.images.tensor} {found.images.dtype} {spelled(found.images.shape)}{freed}"))
        width = f", {found.width:,} values" if found.width else ""
        rows.append(("features", f"{found.features}{width}{_done(found)}"))
    if found.logits:
        classes = f", {found.classes:,} class{'es' * (found.classes != 1)}" if found.classes else ""
        several = f"; the trained one of {found.models} models" if found.models > 1 else ""
        rows.append(("logits", f"{found.logits}{classes}{several}"))
    conditions = found.changes.conditions
    for flag in found.flags:
        resolved = f" ({count(conditions, 'condition')} resolved)" if conditions else ""
        rows.append((flag.tensor, f"{flag.value}{resolved}"))
    for key, signature in file.signatures.items():
        tensors = [
            f"{name} {tensor}" for name, (tensor, _, _) in (*signature.inputs.items(), *signature.outputs.items())
        ]
        if tensors:
            rows.append(("signature", f"{key}: {', '.join(tensors)}"))
    if found.variables:
        rows.append(("variables", _variables(found)))
    if saved is not None and found.variables:
        rows.append(("checkpoint", f"{checkpoint} {_held(found, saved)}"))
    if unknown := unknown_operations(file):
        operations = [f"{op} ({times})" for op, times in unknown.items()]
        rows.append(("unknown", f"to this TensorFlow: {listed(operations, _NAMED)}"))
    return rows


def end_point_rows(found: Analysis) -> list[dict[str, object]]:
    """The end points in order, as table rows."""
    return [{"end point": name, "shape": spelled(shape)} for name, shape in found.end_points.items()]


def variable_rows(found: Analysis, saved: Collection[str] | None) -> list[dict[str, object]]:
    """The variables of the net as table rows; with a checkpoint, whether it has them."""
    rows = []
    for each in found.variables:
        row: dict[str, object] = {
            "variable": each.key,
            "dtype": each.spec.dtype,
            "shape": spelled(each.spec.shape),
            "trainable": "yes" if each.trainable else "",
        }
        if saved is not None:
            row["checkpoint"] = "has it" if each.key in saved else "lacks it"
        rows.append(row)
    return rows


def conflict_text(conflicts: Sequence[Conflict]) -> str:
    """Every conflict: its cause, the names concerned, and what to type."""
    lines = [count(len(conflicts), "conflict")]
    for conflict in conflicts:
        lines.append(conflict.cause)
        lines += [f"  {name}" for name in conflict.names[:_NAMED]]
        if len(conflict.names) > _NAMED:
            lines.append(f"  and {len(conflict.names) - _NAMED} more")
        lines.append(f"  => {conflict.advice}")
    return "\n".join(lines)


def unknown_operations(file: GraphFile) -> dict[str, int]:
    """Operation unknown to a current TensorFlow -> number of occurrences in the file."""
    known = known_operations()
    nodes = [*file.nodes, *(node for function in file.functions.values() for node in function.nodes)]
    counts = Counter(node.op for node in nodes if node.op not in known and node.op not in file.functions)
    return dict(sorted(counts.items()))


def as_json(file: GraphFile, found: Analysis, saved: Collection[str] | None) -> dict[str, object]:
    """The whole analysis for JSON."""
    images = found.images
    return {
        "source": file.path,
        "format": file.kind,
        "tensorflow": file.tensorflow or None,
        "operations": found.operations,
        "operations_on_the_way": len(found.net.graph.nodes) if images and found.net else None,
        "images": {"tensor": images.tensor, "dtype": images.dtype, "shape": images.shape} if images else None,
        "features": {"tensor": found.features, "values": found.width} if found.features else None,
        "logits": {"tensor": found.logits, "classes": found.classes} if found.logits else None,
        "switches": {flag.tensor: flag.value for flag in found.flags},
        "changes": {
            key: list(value) if isinstance(value, tuple) else value for key, value in found.changes._asdict().items()
        },
        "end_points": [{"name": name, "shape": shape} for name, shape in found.end_points.items()],
        "variables": [
            {
                "name": each.name,
                "key": each.key,
                "dtype": each.spec.dtype,
                "shape": each.spec.shape,
                "trainable": each.trainable,
                **({} if saved is None else {"in_checkpoint": each.key in saved}),
            }
            for each in found.variables
        ],
        "unknown_operations": unknown_operations(file),
        "conflicts": [conflict._asdict() for conflict in found.conflicts],
    }


def spelled(shape: Shape) -> str:
    """
    >>> spelled((None, 24, 24, 3)), spelled(None)
    ('[?,24,24,3]', '?')
    """
    return "?" if shape is None else f"[{','.join('?' if side is None else str(side) for side in shape)}]"


def _done(found: Analysis) -> str:
    changes = found.changes
    done = [
        "dropout removed" if changes.dropout else "",
        f"{count(len(changes.batch_norms), 'batch norm')} in inference mode" if changes.batch_norms else "",
        "computed with channels last" if changes.channels_last else "",
    ]
    return "".join(f"; {each}" for each in done if each)


def _variables(found: Analysis) -> str:
    trained = sum(each.trainable for each in found.variables)
    frozen = "; constants of the graph" if any(each.frozen for each in found.variables) else ""
    parameters = sum(each.spec.parameters for each in found.variables)
    return f"{len(found.variables):,}, {trained:,} of them trainable, {parameters:,} parameters{frozen}"


def _held(found: Analysis, saved: Collection[str]) -> str:
    lacking = [each.key for each in found.variables if each.key not in saved and not each.frozen]
    if not lacking:
        return "has all of them"
    return f"lacks {len(lacking):,} of them: {listed(lacking, _NAMED)}"
