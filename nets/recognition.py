"""Which net a checkpoint holds, told by the names and shapes of its tensors alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ckpt_tools.kinds import AVERAGE
from ckpt_tools.tensors import Spec

from .foreign import looks_like
from .net import Net, TableRow

_WHOLE = 0.9  # share of a backbone's variables that must be there for a net to count as whole
_PART = 0.3  # share that is worth naming, under the net's own scope only
_FEW = 10  # variables, such as conv1/weights and fc3/biases: many nets have these names


class Recognised(NamedTuple):
    """What a checkpoint looks like; `str()` is a phrase for people.

    `net` is None where none of the nets here can take the tensors (another library's names, other widths).
    `classes` is None without a head. `auxiliary` is None for a net that has no auxiliary head. `scope` is where the
    net lies in the source: "InceptionV3", "model/InceptionV3", or another name that somebody gave it.
    """

    net: Net | None
    phrase: str
    classes: int | None = None
    auxiliary: bool | None = None
    scope: str = ""

    @property
    def prefix(self) -> str:
        """What stands in front of the net's own scope, with its slash: "model/", or "" (also for another scope)."""
        if self.net is None or not f"/{self.scope}/".endswith(f"/{self.net.placed('')}"):
            return ""
        return f"{self.scope}/".lstrip("/").removesuffix(self.net.placed(""))

    def __str__(self) -> str:
        return self.phrase


class _Match(NamedTuple):
    """How well the tensors under `scope`, their names ending in `suffix`, fit a net's backbone."""

    net: Net
    scope: str
    suffix: str
    fitting: int  # variables that are there, with the right shape
    named: int  # variables that are there, whatever their shape
    wanted: int

    @property
    def whole(self) -> bool:
        return self.fitting >= _WHOLE * self.wanted

    @property
    def other_widths(self) -> bool:
        telling = self.own_scope or self.wanted > _FEW
        return telling and self.named >= _WHOLE * self.wanted and not self.whole

    @property
    def own_scope(self) -> bool:
        return self.scope.rpartition("/")[2] == self.net.scope

    @property
    def part(self) -> bool:
        return self.own_scope and self.fitting == self.named and self.fitting >= _PART * self.wanted


def recognise(specs: Mapping[str, Spec], nets: Iterable[Net]) -> Recognised | None:
    """The net that the tensors are of, or None. Reads no values.

    Optimizer slots and moving averages beside the variables do no harm; without the variables, the moving averages
    are taken. The deepest net whose variables are all there wins, since ResNet-101 has every name of ResNet-50.
    """
    matches = [_match(specs, *candidate) for candidate in _candidates(specs, list(nets))]
    for accepts in ("whole", "other_widths", "part"):
        accepted = [match for match in matches if getattr(match, accepts)]
        if accepted:
            best = max(accepted, key=lambda match: (not match.suffix, match.named, match.own_scope, -len(match.scope)))
            return _described(specs, best)
    phrase = looks_like(specs)
    return Recognised(None, phrase) if phrase else None


def _candidates(specs: Mapping[str, Spec], nets: list[Net]) -> list[tuple[Net, str, str]]:
    """Every (net, scope, suffix) for which the net's landmark is in the source."""
    landmarks: dict[str, list[Net]] = {}
    for net in nets:
        if net.landmark:
            landmarks.setdefault(net.landmark, []).append(net)
    endings = tuple(landmarks) + tuple(name + AVERAGE for name in landmarks)
    found = []
    for name in specs:
        if not name.endswith(endings):  # one call in C for each of a million names
            continue
        suffix = AVERAGE if name.endswith(AVERAGE) else ""
        stem = name.removesuffix(suffix)
        for ending, candidates in landmarks.items():
            if stem == ending or stem.endswith(f"/{ending}"):
                scope = stem.removesuffix(ending).rstrip("/")
                found += [(net, scope, suffix) for net in candidates]
    return found


def _match(specs: Mapping[str, Spec], net: Net, scope: str, suffix: str) -> _Match:
    rows = [row for row in net.table if net.role(row) in ("backbone", "statistic")]
    if suffix:  # batch norm's own moving averages have no moving averages
        rows = [row for row in rows if row.trainable]
    found = [(row, specs.get(net.under(scope, row.name) + suffix)) for row in rows]
    named = [(row, spec) for row, spec in found if spec is not None]
    return _Match(net, scope, suffix, sum(row.fits(spec.shape) for row, spec in named), len(named), len(rows))


def _described(specs: Mapping[str, Spec], match: _Match) -> Recognised:
    net = match.net

    def classes(row: TableRow) -> int | None:
        spec, axis = specs.get(net.under(match.scope, row.name) + match.suffix), row.class_axis
        return spec.shape[axis] if spec and axis is not None and len(spec.shape) == len(row.shape) else None

    by_role = {net.role(row): classes(row) for row in net.table if row.class_axis is not None}
    auxiliary = (by_role.get("auxiliary") is not None) if net.auxiliary else None
    recognised = Recognised(net, net.title, by_role["head"], auxiliary, match.scope)
    words = [_title(match), "without its head" if recognised.classes is None else f"{recognised.classes} classes"]
    if auxiliary is not None:
        words.append(f"{'with' if auxiliary else 'without'} {net.auxiliary[0]}")
    if match.suffix:
        words.append("moving averages only")
    if match.scope != net.scope:
        words.append(f"under {match.scope}" if match.scope else "without its scope")
    return recognised._replace(net=None if match.other_widths else net, phrase=", ".join(words))


def _title(match: _Match) -> str:
    if match.whole:
        return match.net.title
    if match.other_widths:
        return f"{match.net.title} with layers of other widths"
    return f"part of {match.net.title} ({match.fitting} of {match.wanted} variables of its backbone)"
