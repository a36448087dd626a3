"""`--rename OLD=NEW`: maps names in the source to names in the net."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .errors import RecipeError


class RenameRule(NamedTuple):
    """One rule. `old` is a scope or a whole name, from the root; an empty one is the root itself.

    `re:EXPR` is a regular expression that is searched in the name; `new` may then contain back-references such as \\1.
    """

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}={self.new}"

    def __call__(self, name: str) -> str | None:
        """The new name, empty if nothing is left of it; None if the rule does not match.

        >>> RenameRule("model", "")("model/conv1/weights"), RenameRule("", "net")("conv1/weights")
        ('conv1/weights', 'net/conv1/weights')
        """
        if self.old.startswith("re:"):
            return self._substituted(name)
        old = self.old.strip("/")
        if old and name != old and not name.startswith(old + "/"):
            return None
        new, rest = self.new.strip("/"), name[len(old) :].strip("/")
        return f"{new}/{rest}" if new and rest else new or rest

    def _substituted(self, name: str) -> str | None:
        """As `re.sub`, which takes `(.*)` to match a whole name and then once more the nothing behind it."""
        end: int | None = None

        def replace(match: re.Match[str]) -> str:
            nonlocal end
            behind = match.start() == match.end() == end
            end = match.end()
            return "" if behind else match.expand(self.new)

        new = re.sub(self.old[3:], replace, name)
        return None if end is None else new


def parse_renames(texts: Iterable[str] | Mapping[str, str]) -> tuple[RenameRule, ...]:
    """The rules of `--rename OLD=NEW`, or of a mapping OLD -> NEW.

    Raises RecipeError for a text without `=` and for a malformed regular expression.

    >>> parse_renames(["model/InceptionV3=InceptionV3"])
    (RenameRule(old='model/InceptionV3', new='InceptionV3'),)
    """
    pairs = texts.items() if isinstance(texts, Mapping) else [pair for text in texts for pair in rename_rules(text)]
    for old, new in pairs:
        if not old.startswith("re:"):
            continue
        try:
            re.sub(old[3:], new, "")
        except (re.error, IndexError) as error:
            raise RecipeError(
                f"--rename {old}={new} is not a regular expression and its replacement: {error}"
            ) from None
    return tuple(RenameRule(old, new) for old, new in pairs)


def rename(names: Iterable[str], rules: Sequence[RenameRule]) -> dict[str, tuple[str, RenameRule]]:
    """Old name -> (new name, rule) for the names that change. The first rule that matches applies, as in ckpt-edit.

    >>> rename(["model/w", "step"], parse_renames(["model=net"]))
    {'model/w': ('net/w', RenameRule(old='model', new='net'))}
    """
    changed: dict[str, tuple[str, RenameRule]] = {}
    for name in names:
        for rule in rules:
            new = rule(name)
            if new is not None:
                if new != name:
                    changed[name] = (new, rule)
                break
    return changed


def rename_rules(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs in `OLD=NEW`, or in several separated by commas; a regular expression keeps its commas.

    Raises RecipeError for any other text.

    >>> rename_rules("InceptionV3=net,a/b="), rename_rules("re:(?=conv),?=x/")
    ((('InceptionV3', 'net'), ('a/b', '')), (('re:(?=conv),?', 'x/'),))
    """
    if text.startswith("re:"):
        pieces = [text.rpartition("=")]  # split at the last "=", since the expression may contain one, as in (?=...)
    else:
        several = all("=" in piece for piece in text.split(","))
        pieces = [piece.partition("=") for piece in (text.split(",") if several else [text])]
    for old, equals, new in pieces:
        if not equals or not (old or new):
            raise RecipeError(f"rename rule {text!r} is not OLD=NEW", advice="As in model/InceptionV3=InceptionV3.")
    return tuple((old, new) for old, _, new in pieces)
