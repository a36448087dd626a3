"""Options that select the net, for every command that builds one."""

from __future__ import annotations

from dataclasses import dataclass

from ...nets.resolving import Reference
from .configuration import option


@dataclass(frozen=True)
class NetOptions:
    """A net of the registry by name, one that a function builds, one in a graph file, or the one recognised from a
    checkpoint."""

    net: str | None = option(
        None, "name of the net, or a function that builds it; recognised from the checkpoint by default",
        group="source", metavar="NAME|FILE.py:FUNCTION",
    )  # fmt: skip
    graph: str | None = option(
        None, "use the net in this .meta, frozen graph or SavedModel", group="source", metavar="FILE"
    )
    input: str | None = option(
        None, "the graph's input tensor for images; found by default", group="source", metavar="NAME"
    )
    features: str | None = option(
        None, "the graph's tensor to put a head on; found by default", group="source", metavar="NAME"
    )
    logits: str | None = option(None, "the graph's logits; found by default", group="source", metavar="NAME")
    feed: tuple[str, ...] = option(
        (), "value of another placeholder of the graph", group="source", metavar="NAME=VALUE"
    )

    @property
    def reference(self) -> Reference:
        """The selected net."""
        side = getattr(self, "image_size", None)
        return Reference(self.net, self.graph, self.input, self.features, self.logits, self.feed, side)
