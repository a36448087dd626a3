"""What a run looks up in the cache, once: digests of frozen weights, and the rows of each folder.

A run asks several times whether its transfer values are there: before its graph is built, with it, and again when all
of them have come, so that the net before the head can go. Each time it brings the same Lookup.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...tensors import Tensors
from .store import Rows, TransferCache, digest_of


class Lookup:
    """What is known of the cache while a run is going on, in all its phases and precisions."""

    def __init__(self) -> None:
        self._weights: dict[tuple[int, tuple[str, ...]], str] = {}
        self._rows: dict[Path, Rows] = {}

    def weights(self, phase: int, planned: Tensors, variables: Sequence[str]) -> str:
        """The digest of these variables as the plan of a phase has them, all of which are frozen in it."""
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
