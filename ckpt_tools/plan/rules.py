"""The options of the commands that decide what each variable gets, as one value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from .origin import Origin


@dataclass(frozen=True)
class PlanRules:
    """What is restored, trained and converted; by default everything is restored as it is, and trained."""

    exclude: Sequence[str] = ()  # patterns of what is not restored but initialised afresh
    trainable: Sequence[str] = ()  # patterns of what the optimizer may change; none: every trainable variable
    renames: Mapping[str, str] | Sequence[str] = ()  # OLD=NEW as --rename takes them, or OLD -> NEW
    class_map: Sequence[int | None] | None = None  # new class i takes the old class_map[i]; None: initialised afresh
    cast: bool = False  # other element types are converted
    aux: bool = False  # the auxiliary head is trained as well
    adapt_input: bool = False  # a convolution that has another number of input channels is adapted
    # Scales and biases of batch-normalised layers that the net has no variable for go into weights and moving means.
    fold: bool = False
    # Pattern -> "train", "frozen" or "stats", over the default that a batch norm trains where its layer does.
    batch_norm: Mapping[str, str] = field(default_factory=dict)
    # Name -> rule, of variables that need no source of their shape: those of a head in the place of the net's own.
    new: Mapping[str, str] = field(default_factory=dict)
    # Names that stay behind when all other tensors that no variable takes go along, so that whoever wrote the source
    # can load what is made of it; None: all stay behind.
    carry: Collection[str] | None = None
    origin: Origin | None = None  # where a source is from that was brought under slim's names: rows speak of its file
    nets: Mapping[str, str] = field(default_factory=dict)  # scope -> name that --net takes, for advice
