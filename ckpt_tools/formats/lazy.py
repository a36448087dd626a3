"""Tensors that are made on demand, for files with a million of them; only the specs are known at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from ..tensors import Spec, Tensor, Tensors


class LazyTensors(Tensors):
    """Shown name -> tensor. `build` makes the tensor for a key of the file.

    `hidden` holds keys that can be looked up but are not listed, such as the object graph.
    """

    def __init__(
        self,
        specs: Mapping[str, Spec],
        build: Callable[[str], Tensor],
        stored_names: Mapping[str, str] | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__((), stored_names)
        self._specs = specs
        self._build = build
        self._hidden = hidden

    def __getitem__(self, name: str) -> Tensor:
        if name in self._specs:
            return self._build(self.stored_names.get(name, name))
        if name in self._shown or name in self._hidden:
            return self._build(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._specs or name in self._shown or name in self._hidden

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def specs(self) -> dict[str, Spec]:
        return dict(self._specs)


def kept(tensors: Tensors) -> Tensors:
    """The same tensors, but values stay in memory once read, for a remote source that is read several times."""

    @cache
    def build(key: str) -> Tensor:
        tensor = tensors[key]
        return tensor._replace(load=cache(tensor.load), stream=None)

    return LazyTensors(tensors.specs(), build, tensors.stored_names, getattr(tensors, "_hidden", frozenset()))
