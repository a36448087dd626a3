"""Batch norm in a plan: which layers train, and layers whose weights come without their statistics."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import RecipeError, nearest
from ..names import parse_patterns, valued_patterns

STATISTICS = ("moving_mean", "moving_variance")
POLICIES = ("frozen", "stats", "train")


class BatchNormLayer(NamedTuple):
    """A batch norm: the names of its statistics and of its own weights, and of the weights that it normalizes."""

    statistics: tuple[str, ...]
    weights: tuple[str, ...]
    normalized: tuple[str, ...]


def layers(names: Iterable[str]) -> dict[str, BatchNormLayer]:
    """Scope of each batch norm -> its variables. The scope is a statistic's name without its last component.

    >>> layers(["conv1/weights", "conv1/BatchNorm/beta", "conv1/BatchNorm/moving_mean"])["conv1/BatchNorm"].weights
    ('conv1/BatchNorm/beta',)
    """
    inside: dict[str, list[str]] = {}
    for name in names:
        inside.setdefault(name.rpartition("/")[0], []).append(name)
    found = {}
    for scope, members in inside.items():
        statistics = tuple(name for name in members if name.endswith(STATISTICS))
        if statistics:
            weights = tuple(name for name in members if name.endswith(("/gamma", "/beta")))
            around = inside.get(scope.rpartition("/")[0], [])
            normalized = tuple(name for name in around if name.endswith(("/weights", "/kernel")))
            found[scope] = BatchNormLayer(statistics, weights, normalized)
    return found


def parse_policies(texts: Iterable[str]) -> dict[str, str]:
    """Pattern -> policy of `--bn SCOPE=MODE[,SCOPE=MODE]`; of two that select a scope, the later one decides.

    Raises RecipeError for another mode.

    >>> parse_policies(["Mixed_7c=train,Logits=frozen"])
    {'Mixed_7c': 'train', 'Logits': 'frozen'}
    """
    made: dict[str, str] = {}
    for pattern, policy in valued_patterns(texts):
        if not pattern or policy not in POLICIES:
            part = f"{pattern}={policy}" if policy else pattern
            raise RecipeError(f"--bn {part}: write SCOPE=MODE, with {', '.join(POLICIES)}{nearest(policy, POLICIES)}")
        made.pop(pattern, None)  # the last one that selects a scope decides
        made[pattern] = policy
    return made


def policies(
    found: Mapping[str, BatchNormLayer], trainable: Container[str], overrides: Mapping[str, str] | None
) -> dict[str, str]:
    """Scope -> "train" or "frozen", or what the last override (pattern -> policy) that selects the scope says.

    A batch norm trains where its own weights do; one without weights, where the layer that it normalizes does.
    """
    made: dict[str, str] = {}
    parsed = [(parse_patterns(pattern), policy) for pattern, policy in (overrides or {}).items()]
    for scope, layer in found.items():
        trains = any(name in trainable for name in layer.weights or layer.normalized)
        said = [policy for patterns, policy in parsed if patterns.match(scope) is not None]
        made[scope] = said[-1] if said else "train" if trains else "frozen"
    return made


def without_statistics(found: Mapping[str, BatchNormLayer], restored: Container[str]) -> dict[str, tuple[str, ...]]:
    """Scope -> statistics that are not restored although weights of the same batch norm are."""
    lost = {}
    for scope, layer in found.items():
        missing = tuple(name for name in layer.statistics if name not in restored)
        if missing and any(name in restored for name in layer.weights or layer.normalized):
            lost[scope] = missing
    return lost


def summary(made: Mapping[str, str]) -> str:
    """One line on the policies, for people.

    >>> summary({"a/BatchNorm": "frozen", "b/BatchNorm": "frozen", "c/BatchNorm": "train"})
    '2 layers frozen (inference mode, statistics kept), 1 layer trains (batch statistics, moving averages updated)'
    """
    words = {
        "frozen": ("frozen", "frozen", "(inference mode, statistics kept)"),
        "stats": ("updates its statistics", "update their statistics", "only"),
        "train": ("trains", "train", "(batch statistics, moving averages updated)"),
    }
    counts: Sequence[tuple[int, str]] = [(list(made.values()).count(policy), policy) for policy in POLICIES]
    return ", ".join(
        f"{count} layer{'s' * (count > 1)} {words[policy][count > 1]} {words[policy][2]}"
        for count, policy in counts
        if count
    )
