"""Finds everything that a target format cannot hold before anything is written, and reports it all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from shlex import quote

from ..errors import UnsupportedError
from ..report import listed
from ..tensors import Tensor

# Neither numpy nor HDF5 has types for bfloat16, float8 and quantised numbers; they would be read back as other types.
NUMPY_TYPES = frozenset(["bool", "float16", "float32", "float64", "complex64", "complex128"]) | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_SHOWN = 8


def check_types(tensors: Mapping[str, Tensor], types: Collection[str], format: str) -> None:
    """Raises UnsupportedError that names every tensor whose element type `format` cannot hold."""
    wrong = {name: tensor.spec for name, tensor in tensors.items() if tensor.spec.dtype not in types}
    if not wrong:
        return
    described = [f"{name} ({spec})" for name, spec in wrong.items()]
    kinds = {spec.dtype for spec in wrong.values()}
    advice = f"Drop them ({_commands(wrong, kinds)}), or write a V2 checkpoint, which holds every type."
    raise UnsupportedError(
        f"{format} cannot hold {len(wrong)} of {len(tensors)} tensors: {listed(described, _SHOWN)}",
        advice=advice,
    )


def check_names(names: Collection[str], problem: Callable[[str], str | None], format: str) -> None:
    """Raises UnsupportedError that lists every name which is not UTF-8 or has a `problem`."""
    wrong = [f"{name!r} ({said})" for name in names if (said := _not_utf8(name) or problem(name))]
    if wrong:
        raise UnsupportedError(
            f"{format} cannot hold {len(wrong)} of {len(names)} names: {listed(wrong, _SHOWN)}",
            advice="Rename them with ckpt-edit --rename, or write a V2 checkpoint.",
        )


def _not_utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def drop_command(names: Collection[str]) -> str:
    """What to type to leave these tensors out; of more than three, how it begins."""
    patterns = ["/" + re.sub(r"([,*?[])", r"[\1]", name) for name in list(names)[:3]]
    return f"ckpt-edit --drop {quote(','.join(patterns))}" + (",..." if len(names) > 3 else "")


def _commands(wrong: Collection[str], kinds: set[str]) -> str:
    drop = drop_command(wrong)
    narrow = {"bfloat16", "float16"} | {kind for kind in kinds if kind.startswith("float8")}
    return f"{drop}), cast them (ckpt-edit --cast float32" if kinds <= narrow else drop
