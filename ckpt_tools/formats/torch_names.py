"""Names the tensors in an object saved by `torch.save`: a state dict, a training state with one, or a whole module.

{"conv.weight": T}                                     conv.weight
{"state_dict": {"conv.weight": T}, "epoch": 3}         conv.weight
{"model": ..., "optimizer": {"state": {0: {"m": T}}}}  conv.weight ..., optimizer/state/0/m
a module                                               conv.weight
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import DamagedError
from ..report import listed
from .pickled import Name, PickledObject

# Keys under which training scripts store the weights; the first that exists is taken.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "model_state")
_DEEPEST = 64
_MOST = 10_000_000  # values visited; only a structure that contains itself has more


class Named(NamedTuple):
    """Name -> pickled tensor, and a sentence on what else the file holds."""

    tensors: Mapping[str, PickledObject]
    note: str


def named_tensors(value: Any, is_tensor: Callable[[object], bool]) -> Named:
    """Every tensor in `value` by its name.

    The weights in a training state get the same names as in a file of weights alone; tensors beside them are prefixed
    with their key. Raises DamagedError for two tensors of the same name, and for a structure that contains itself.
    """
    walk = _Walk(is_tensor)
    wrapper = walk.wrapper(value)
    found: dict[str, PickledObject] = {}
    places = {"": value}
    if wrapper:
        places = {"": value[wrapper], **{str(key): each for key, each in value.items() if key != wrapper}}
    for prefix, part in places.items():
        for name, made in walk.tensors(part, prefix):
            if name in found:
                raise DamagedError("two tensors have this name", tensor=name)
            found[name] = made
    notes = [f"the weights lie under {wrapper!r}"] if wrapper else []
    tops = {name.partition("/")[0] for name in found}
    others = [top for top in dict.fromkeys(walk.others) if top not in tops]
    if others:
        notes.append(f"what holds no tensors is left out: {listed(others, 5)}")
    return Named(found, "; ".join(notes))


class _Walk:
    """One traversal of everything that a pickle holds."""

    def __init__(self, is_tensor: Callable[[object], bool]) -> None:
        self.is_tensor = is_tensor
        self.others: list[str] = []
        self.left = _MOST

    def wrapper(self, value: Any) -> str | None:
        """The key of the weights in a training state; None if this is not one."""
        if not isinstance(value, dict) or any(self.is_tensor(each) for each in value.values()):
            return None
        known = [key for key in _WRAPPERS if self.holds_weights(value.get(key))]
        others = [key for key, each in value.items() if isinstance(key, str) and self.holds_weights(each)]
        return known[0] if known else others[0] if len(others) == 1 else None

    def holds_weights(self, value: Any) -> bool:
        """Whether this is a state dict or a module."""
        if isinstance(value, PickledObject):
            return _module_parts(value) is not None
        return isinstance(value, dict) and any(self.is_tensor(each) for each in value.values())

    def tensors(
        self, value: Any, prefix: str, between: str = "/", depth: int = 0
    ) -> Iterator[tuple[str, PickledObject]]:
        """The tensors in `value`, their names beginning with `prefix`, then `between`: a dot within a module."""
        self.left -= 1
        if depth > _DEEPEST or self.left < 0:
            raise DamagedError("it is nested without end")
        if self.is_tensor(value):
            yield prefix or "tensor", value
            return
        parts = _module_parts(value)
        for key, each in _parts(value) if parts is None else parts.items():
            name = f"{prefix}{between}{key}" if prefix else str(key)
            yield from self.tensors(each, name, "/" if parts is None else ".", depth + 1)
        if not isinstance(value, (dict, list, tuple, PickledObject)):
            self.others.append(prefix.partition("/")[0])


def _parts(value: Any) -> Iterable[tuple[object, object]]:
    """Key and value of everything directly in a container."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if isinstance(value, PickledObject):
        state = value.state.items() if isinstance(value.state, dict) else ()
        return (*value.items.items(), *state)
    return ()


def _module_parts(value: Any) -> dict[object, object] | None:
    """Parameters, buffers and submodules of a pickled or TorchScript module; None for anything else."""
    if not isinstance(value, PickledObject) or not isinstance(value.state, dict):
        return None
    if isinstance(value.of, Name) and value.of.module.startswith("__torch__"):  # its other attributes are not tensors
        return {key: each for key, each in value.state.items() if isinstance(each, PickledObject)}
    if not isinstance(value.state.get("_modules"), dict):
        return None
    kinds = (value.state.get(kind) for kind in ("_parameters", "_buffers", "_modules"))
    found = {key: each for kind in kinds if isinstance(kind, dict) for key, each in kind.items()}
    return {key: each for key, each in found.items() if each is not None}
