"""Why variables have no source, by cause, each with its cure.

A cause is found from names and shapes alone. Those that a rename or an exclusion cures carry it, so that the
advice of `ckpt-plan` and the file that `--suggest` writes say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import NamedTuple

from ..errors import nearest
from ..kinds import AVERAGE
from ..names import reading_order
from ..renames import parse_renames, rename
from ..tensors import Spec
from .inception2015 import rename_2015
from .rows import Conflict, Variable

_TYPED = 8  # scopes that somebody types on a command line
_SLOT = re.compile(r"/(Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|Adadelta(_1)?|Ftrl(_1)?)$")
_SLIM_NET = re.compile(r"Inception(V\d|ResnetV\d)|MobilenetV\d|resnet_v\d_\d+")
_KERAS = re.compile(r"(^|/)(kernel|bias)(:0)?$|(^|/)batch_normalization(_\d+)?/|:0$")
_TORCH = re.compile(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$")
_2015 = re.compile(r"^(mixed_\d+x\d+x\d+[a-e]/|conv/conv2d_params|mixed_10/)")


class Cause(NamedTuple):
    """A conflict with its cure: `renames` OLD -> NEW for --rename, `exclude` patterns."""

    conflict: Conflict
    renames: Mapping[str, str] = {}
    exclude: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """What causes are looked for in: the net's variables by name, the source, and the names that nothing uses. `nets`
    are those that --net can name: scope -> name."""

    wanted: Mapping[str, Variable]
    source: Mapping[str, Spec]
    unused: Sequence[str]
    nets: Mapping[str, str] = {}

    def renamed(self, renames: Mapping[str, str]) -> Evidence:
        """What is left after a rename, for the next cause: no second rule reaches what is renamed."""
        new = {old: name for old, (name, _) in rename(self.unused, parse_renames(renames)).items()}
        source = {new.get(name, name): spec for name, spec in self.source.items()}
        return self._replace(source=source, unused=[name for name in self.unused if name not in new])


def explain_missing(missing: Sequence[str], evidence: Evidence) -> list[Cause]:
    """The causes for which variables have no source; each variable is named by one of them."""
    causes: list[Cause] = []
    left = list(missing)
    for find in (_slots, _averages, _other_net, _inception_2015, _foreign, _scopes, _arg_scope, _gamma, _missing):
        while left and (cause := find(left, evidence)) is not None:
            causes.append(cause)
            named = set(cause.conflict.names)
            left = [name for name in left if name not in named]
            evidence = evidence.renamed(cause.renames) if cause.renames else evidence
    return causes


def covering(names: Iterable[str], everything: Iterable[str]) -> list[str]:
    """The largest scopes that hold these names and no other; the names themselves where there is no such scope. A scope
    around everything is none.

    >>> covering(["net/a/w", "net/a/b", "net/c/w"], ["net/a/w", "net/a/b", "net/c/w", "net/c/b"])
    ['net/a', 'net/c/w']
    >>> covering(["a/x/w", "a/y/w"], ["a/x/w", "a/y/w", "b/w"])
    ['a']
    """
    chosen, everything = set(names), list(everything)
    others = {scope for name in everything if name not in chosen for scope in _scopes_of(name)}
    outermost = {name.partition("/")[0] for name in everything}
    if len(outermost) == 1:
        others |= outermost
    cover: dict[str, None] = {}
    for name in names:
        cover[next((scope for scope in _scopes_of(name) if scope not in others), name)] = None
    return list(cover)


def exclude_advice(names: Sequence[str], everything: Iterable[str]) -> str:
    """`--exclude` with the scopes of these names, as it is typed; where they are many, the file that lists them."""
    cover = covering(names, everything)
    if len(cover) > _TYPED:
        return f"--config FILE.yaml, which ckpt-plan --suggest --output FILE.yaml writes with {len(cover)} scopes,"
    return f"--exclude {quote(','.join(cover))}"


def _scopes_of(name: str) -> list[str]:
    """Every scope around a name, outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _slots(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    found = [name for name in missing if evidence.wanted[name].role == "slot" or _SLOT.search(name)]
    if not found:
        return None
    patterns = tuple(dict.fromkeys("**/" + name.rpartition("/")[2] for name in found))
    advice = (
        f"The checkpoint has all its weights but was written without this optimizer's state: "
        f"--exclude {quote(','.join(patterns))} starts the optimizer afresh."
    )
    return Cause(Conflict("optimizer slots missing", tuple(found), advice), exclude=patterns)


def _averages(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    found = [name for name in missing if name + AVERAGE in evidence.source]
    if not found:
        return None
    rule = {f"re:^(.*){AVERAGE}$": r"\1"}
    advice = f"The checkpoint holds moving averages instead of these weights: {_typed(rule)} restores the averages."
    return Cause(Conflict("moving averages instead of weights", tuple(found), advice), rule)


def _other_net(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    ours, theirs = _roots(missing, evidence.nets), _roots(evidence.unused, evidence.nets)
    pairs = [(our, their) for our in ours for their in theirs if our != their]
    if not pairs or set(ours) & set(theirs):
        return None
    our, their = pairs[0]
    if any(our in name.split("/") for name in evidence.source):  # the right net, with a part of another beside it
        return None
    resnets = our.startswith("resnet") and their.startswith("resnet") and our.split("_")[1] != their.split("_")[1]
    cause = "resnet v1 against v2" if resnets else "checkpoint of another net"
    why = ", whose units differ although many names look alike" if resnets else ""
    found = tuple(name for name in missing if name.startswith(our + "/"))
    if their in evidence.nets:
        advice = f"Use --net {evidence.nets[their]}: the checkpoint is {their}, not {our}{why}."
    else:
        which = ", which is not one of the nets here" if evidence.nets else ""
        advice = f"The checkpoint is {their}{which}: give a checkpoint of {our}."
    return Cause(Conflict(cause, found, advice))


def _roots(names: Iterable[str], nets: Mapping[str, str]) -> list[str]:
    """The net scopes among the components of these names, such as InceptionV3 in model/InceptionV3/Logits."""
    parts = dict.fromkeys(part for name in names for part in name.split("/"))
    return [part for part in parts if part in nets or _SLIM_NET.fullmatch(part)]


def _inception_2015(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    if not any(_2015.match(name.removeprefix("inception_v3/")) for name in evidence.unused):
        return None
    renames: dict[str, str] = {}
    for old, new in rename_2015(evidence.source, evidence.wanted).items():
        renames |= _scope_rule(old, new, _suffix(evidence))
    reached = {new for new, _ in rename(evidence.unused, parse_renames(renames)).values()}
    found = tuple(name for name in missing if name in reached)
    if found:
        advice = (
            f"The checkpoint has the names of 2015: ckpt-plan --suggest --output FILE.yaml writes the {len(renames)} "
            "renames, and --config FILE.yaml takes them."
        )
        return Cause(Conflict("2015 Inception names", found, advice), renames)
    if "InceptionV3" in _roots(missing, evidence.nets):
        advice = "This is the graph of 2015, whose layers have other names and kinds: take slim's inception_v3.ckpt."
        return Cause(Conflict("2015 Inception names", tuple(missing), advice))
    return None


def _foreign(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    torch = [name for name in evidence.unused if _TORCH.search(name)]
    keras = [name for name in evidence.unused if _KERAS.search(name)]
    if len(torch) * 2 > len(evidence.unused):
        advice = (
            f"{torch[0]} is a PyTorch name, and PyTorch's weights have another order of axes. ckpt-convert SRC DST "
            "--layout slim converts a net of torchvision or timm, a recipe of ckpt-edit any other net. Then plan with "
            "the result."
        )
        return Cause(Conflict("PyTorch names", tuple(missing), advice))
    if len(keras) * 2 <= len(evidence.unused):
        return None
    rules = {"re:(^|/)kernel(:0)?$": r"\1weights", "re:(^|/)bias(:0)?$": r"\1biases", "re::0$": ""}
    reached = {new for new, _ in rename(evidence.unused, parse_renames(rules)).values()}
    found = tuple(name for name in missing if name in reached)
    if found:
        used = {old: new for old, new in rules.items() if rename(evidence.unused, parse_renames({old: new}))}
        return Cause(Conflict("Keras names", found, f"The layers are named alike: {_typed(used)} renames them."), used)
    advice = (
        f"{keras[0]} is a name that Keras gives by the order of layers. ckpt-convert SRC DST --layout slim converts a "
        "net of Keras Applications, a recipe of ckpt-edit any other net. Then plan with the result."
    )
    return Cause(Conflict("Keras names", tuple(missing), advice))


def _scopes(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    """One scope of the source that the net calls otherwise: a prefix in front, none, or another one."""
    suffix = _suffix(evidence)
    plain = {name.removesuffix(suffix): name for name in evidence.unused if name.endswith(suffix)}
    old, new, found = _best_substitution(missing, plain, evidence)
    if not found:
        return None
    rule = _scope_rule(old, new, suffix)
    whole = len(found) == len(missing) and not any(name in evidence.source for name in evidence.wanted)
    cause = "every name differs by one prefix" if whole else "a scope has another name"
    theirs, ours = (f"{scope}/" if scope else "no prefix" for scope in (old, new))
    advice = f"Type {_typed(rule)}: the checkpoint has {theirs} where the net has {ours}."
    return Cause(Conflict(cause, tuple(found), advice), rule)


def _suffix(evidence: Evidence) -> str:
    """What nearly every name of the source ends with when it holds moving averages and nothing else."""
    averages = [name for name in evidence.unused if name.endswith(AVERAGE)]
    alone = averages and not any(name.removesuffix(AVERAGE) in evidence.source for name in averages)
    return AVERAGE if alone and 2 * len(averages) > len(evidence.unused) else ""


def _scope_rule(old: str, new: str, suffix: str) -> dict[str, str]:
    """The --rename rule from one scope to another, that takes a suffix off as well."""
    if not suffix:
        return {old: new}
    return {f"re:^{re.escape(old)}{'/' * bool(old)}(.*){suffix}$": _join(new, r"\1")}


def _best_substitution(
    missing: Sequence[str], plain: Mapping[str, str], evidence: Evidence
) -> tuple[str, str, list[str]]:
    """The substitution (old scope, new scope) that finds a source for most of `missing`, and those names."""
    by_leaf: dict[str, list[str]] = {}
    for name in sorted(plain, key=reading_order):  # of units that are alike, the net's second one is the file's
        by_leaf.setdefault(name.rpartition("/")[2], []).append(name)
    tried: dict[tuple[str, str], list[str]] = {}
    for name in missing[:50]:  # a prefix that most names share shows in any fifty of them
        spec = evidence.wanted[name].spec
        for other in by_leaf.get(name.rpartition("/")[2], ())[:5000]:
            if evidence.source[plain[other]].shape == spec.shape and (pair := _differing(other, name)) not in tried:
                old, new = pair
                tried[pair] = [each for each in missing if (rest := _inside(each, new)) and _join(old, rest) in plain]
    best = max(tried, key=lambda pair: len(tried[pair]), default=("", ""))
    found = tried.get(best, [])
    if len(found) < 2 or len(found) * 2 < min(len(missing), 4):
        return "", "", []
    first = {(_inside(name, best[1]) or "").partition("/")[0] for name in found}
    if "" in best and len(first) == 1 and len(next(iter(first))) and "/" in (_inside(found[0], best[1]) or ""):
        scope = next(iter(first))  # "model/InceptionV3=InceptionV3" is plainer than "model="
        best = (_join(best[0], scope), _join(best[1], scope))
    return *best, found


def _differing(other: str, name: str) -> tuple[str, str]:
    """The two scopes that are left when the components that both names end with are taken away."""
    theirs, ours = other.split("/"), name.split("/")
    while theirs and ours and theirs[-1] == ours[-1]:
        theirs.pop()
        ours.pop()
    return "/".join(theirs), "/".join(ours)


def _inside(name: str, scope: str) -> str | None:
    if not scope:
        return name
    return name[len(scope) + 1 :] if name.startswith(scope + "/") else None


def _join(scope: str, rest: str) -> str:
    return f"{scope}/{rest}" if scope else rest


def _arg_scope(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    normalized = {name.rpartition("/BatchNorm/")[0] for name in evidence.source if "/BatchNorm/" in name}
    biases = tuple(name for name in missing if name.endswith("/biases") and name.removesuffix("/biases") in normalized)
    if biases:
        scope = biases[0].removesuffix("/biases")
        advice = (
            f"The net wants {biases[0]} where the checkpoint has {scope}/BatchNorm/...: build the net inside its "
            "arg_scope, such as slim.arg_scope(inception_v3_arg_scope())."
        )
        return Cause(Conflict("net built without its arg_scope", biases, advice))
    norms = tuple(
        name
        for name in missing
        if "/BatchNorm/" in name and name.rpartition("/BatchNorm/")[0] + "/biases" in evidence.source
    )
    if not norms:
        return None
    scope = norms[0].rpartition("/BatchNorm/")[0]
    advice = (
        f"The checkpoint has {scope}/biases where the net wants {scope}/BatchNorm/...: it was written by a net without "
        "batch norm; build the net without it, too."
    )
    return Cause(Conflict("checkpoint written without batch norm", norms, advice))


def _gamma(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    found = tuple(
        name for name in missing if name.endswith("/gamma") and name.removesuffix("gamma") + "beta" in evidence.source
    )
    if not found:
        return None
    advice = (
        "The checkpoint was written with scale=False: --exclude '**/gamma' starts gamma at 1, which computes the same."
    )
    return Cause(Conflict("only gamma missing", found, advice), exclude=("**/gamma",))


def _missing(missing: Sequence[str], evidence: Evidence) -> Cause | None:
    near = [
        f"{name}{hint}"
        for name in missing[:3]
        if (hint := nearest(name, evidence.unused[:2000]).replace("did you mean", "near is"))
    ]
    words = f"{'. '.join(hint.rstrip('?') for hint in near)}. " if near else ""
    cover = tuple(covering(missing, evidence.wanted))
    if len(missing) == len(evidence.wanted):
        held = ", ".join(list(evidence.source)[:3])
        advice = (
            f"The checkpoint and the net have no name in common; the checkpoint begins with {held}. "
            "Check --net and the file."
        )
        return Cause(Conflict("no source", tuple(missing), advice))
    advice = f"{words}Type {exclude_advice(missing, evidence.wanted)} to initialise them afresh, or --rename OLD=NEW."
    return Cause(Conflict("no source", tuple(missing), advice), exclude=cover)


def _typed(rules: Mapping[str, str]) -> str:
    return " ".join(f"--rename {quote(f'{old}={new}')}" for old, new in rules.items())
