"""What a run looks up in the cache only once: digests of frozen weights, and the rows of each folder.

A run asks several times whether its transfer values exist: before and after its graph is built, and again when all have
been computed, so that the net before the head can be dropped. It uses the same Lookup each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...tensors import Tensors
from .store import Rows, TransferCache, digest_of


class Lookup:
    """What a run knows about the cache, in all its phases and precisions."""

    def __init__(self) -> None:
        self._weights: dict[tuple[int, tuple[str, ...]], str] = {}
        self._rows: dict[Path, Rows] = {}

    def weights(self, phase: int, planned: Tensors, variables: Sequence[str]) -> str:
        """The digest of the planned values of these variables, which are all frozen in this phase."""
        asked = (phase, tuple(sorted(variables)))
        if asked not in self._weights:
            self._weights[asked] = digest_of({name: planned[name] for name in variables})
        return self._weights[asked]

    def rows(self, cache: TransferCache) -> Rows:
        """The rows of a cache."""
        if cache.folder not in self._rows:
            self._rows[cache.folder] = Rows(cache)
            self._rows[cache.folder].update()
        return self._rows[cache.folder]
