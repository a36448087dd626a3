"""Scope patterns, by which every option selects variables.

1. `Logits`, `InceptionV3/Mixed_7c`: whole path components, anywhere in the name, ignoring case.
2. A leading `/` anchors at the root: `/InceptionV3/Logits`.
3. `*`, `?` and `[...]` match inside a component, `**` matches across components: `Mixed_7*`, `**/moving_*`.
4. `re:EXPR` is a Python regular expression searched in the full name, case-sensitive.
5. A comma separates patterns, `!PATTERN` takes names away again, the last pattern that matches a name decides.
   A list whose first pattern is a `!PATTERN` begins from all names.
6. A pattern that selects nothing is an error that names the nearest real scopes.

A comma inside `[...]`, and in a `re:` also inside `(...)` and `{...}` or after a backslash, belongs to the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .errors import SelectionError
from .report import count

# The best suggestion is always shown, others only if they are nearly as close to what was typed.
_CLOSE, _NEARLY, _SUGGESTIONS = 0.6, 0.1, 3
_CANDIDATES = 20_000  # difflib takes about 10 microseconds per word; a suggestion must not take minutes


class Pattern(NamedTuple):
    """One pattern. `text` is the pattern as typed, `takes_away` is True for `!PATTERN`."""

    text: str
    takes_away: bool
    expression: re.Pattern[str]
    raw: bool  # a `re:` looks at the name itself, all others at "/name/" in lower case

    def matches(self, name: str) -> bool:
        return self.expression.search(name if self.raw else f"/{name.lower()}/") is not None


class Patterns:
    """A parsed list of patterns, such as all values of `--trainable`.

    >>> patterns = parse_patterns(["Logits,!biases"])
    >>> patterns.match("InceptionV3/Logits/Conv2d_1c_1x1/weights")
    'Logits'
    >>> patterns.match("InceptionV3/Logits/Conv2d_1c_1x1/biases") is None
    True
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._last_first = tuple(
            (each.expression.search, each.raw, None if each.takes_away else each.text)
            for each in reversed(self.patterns)
        )
        starts_from_all = bool(self.patterns) and self.patterns[0].takes_away
        self._otherwise = self.patterns[0].text if starts_from_all else None

    def match(self, name: str) -> str | None:
        """The text of the pattern that selects `name`; None if it is not selected.

        If the list starts from all names, the first `!PATTERN` selects any name that no pattern matches.
        """
        path = f"/{name.lower()}/"
        for search, raw, text in self._last_first:
            if search(name if raw else path):
                return text
        return self._otherwise

    def __iter__(self) -> Iterator[Pattern]:
        return iter(self.patterns)

    def __len__(self) -> int:
        return len(self.patterns)

    def __str__(self) -> str:
        return ",".join(each.text for each in self.patterns)


def parse_patterns(texts: str | Sequence[str]) -> Patterns:
    """Parses the value of an option: one text, or one text for each time the option was given.

    Raises SelectionError for a regular expression or a pattern that is malformed.
    """
    if isinstance(texts, str):
        texts = [texts]
    return Patterns(_parse(item) for text in texts for item in split_patterns(text))


def select(
    names: Iterable[str], patterns: str | Sequence[str] | Patterns, *, option: str = "pattern", of: str = "names"
) -> list[str]:
    """The names that the patterns select, in the order given.

    `option` and `of` word the error: "--trainable Logitz selects nothing of 190 trainable variables; did you ...".
    Raises SelectionError that lists every pattern that matches no name, with the nearest real scopes.

    >>> select(["net/conv/weights", "net/Logits/weights", "net/AuxLogits/weights"], "logits")
    ['net/Logits/weights']
    """
    names = list(names)
    if not isinstance(patterns, Patterns):
        patterns = parse_patterns(patterns)
    idle = [each for each in patterns if not any(map(each.matches, names))]
    if idle:
        raise SelectionError(
            "\n".join(
                f"{option} {each.text} selects nothing of {len(names):,} {of}{did_you_mean(each.text, names)}"
                for each in idle
            )
        )
    return [name for name in names if patterns.match(name) is not None]


def scopes(names: Iterable[str]) -> dict[str, int]:
    """Every scope and the number of names in it, in order of first appearance.

    >>> scopes(["net/conv1/weights", "net/conv1/biases", "step"])
    {'net': 2, 'net/conv1': 2}
    """
    counts: dict[str, int] = {}
    for name in names:
        end = name.find("/")
        while end != -1:
            scope = name[:end]
            counts[scope] = counts.get(scope, 0) + 1
            end = name.find("/", end + 1)
    return counts


def tree(names: Iterable[str]) -> dict[str, list[str]]:
    """Scope -> the full paths directly in it, in order of first appearance; "" is the root.

    >>> tree(["net/conv1/weights", "net/conv1/biases", "step"])
    {'': ['net', 'step'], 'net': ['net/conv1'], 'net/conv1': ['net/conv1/weights', 'net/conv1/biases']}
    """
    children: dict[str, dict[str, None]] = {}
    for name in names:
        path = name
        while True:
            scope = path.rpartition("/")[0]
            known = scope in children
            children.setdefault(scope, {})[path] = None
            if known or not scope:
                break
            path = scope
    ordered = {"": list(children.pop("", {}))}
    return ordered | {scope: list(paths) for scope, paths in sorted(children.items(), key=lambda item: item[0])}


def reading_order(name: str) -> list[str | int]:
    """A sort key for names that puts block_2 before block_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def unrepeated(operation: str) -> str:
    """An operation's name without the name scope that slim's nets open a second time.

    >>> unrepeated("InceptionV3/InceptionV3/Mixed_7c/concat")
    'InceptionV3/Mixed_7c/concat'
    """
    return re.sub(r"^(\w+)/\1/", r"\1/", operation)


def did_you_mean(text: str, names: Sequence[str]) -> str:
    """`"; did you mean InceptionV3/Logits (2 variables)?"`, or an empty string if nothing is close.

    `text` is a pattern or a name; only existing scopes and names are suggested.
    """
    found = _nearest_scopes(text, names)
    if not found:
        return ""
    words = [f"{scope} ({count(number, 'variable')})" for scope, number in found]
    return f"; did you mean {' or '.join(words)}?"


def valued_patterns(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Patterns and their value for each `PATTERN,PATTERN=VALUE`, several of which a comma may join.

    The value is empty where patterns have none.

    >>> list(valued_patterns(["Mixed_7c,!Branch_0=0.1,Logits=2"]))
    [('Mixed_7c,!Branch_0', '0.1'), ('Logits', '2')]
    """
    for text in texts:
        before: list[str] = []
        for item in split_patterns(text):
            pattern, equals, value = item.rpartition("=")
            before.append(pattern.strip() if equals else item)
            if equals:
                yield ",".join(before), value.strip()
                before = []
        if before:
            yield ",".join(before), ""


def split_patterns(text: str) -> list[str]:
    """Splits at commas, but not at those that belong to a pattern. Empty items are dropped."""
    items, start = [], 0
    while start < len(text):
        item = _item_at(text, start)
        items.append(item.strip())
        start += len(item) + 1
    return [item for item in items if item]


def _item_at(text: str, start: int) -> str:
    if not text[start:].lstrip(" !").startswith("re:"):
        found = re.compile(r"(?:\[[^\]]*\]|[^,])*").match(text, start)
        assert found is not None  # the pattern matches even an empty text
        return found[0]
    depth, in_class, position = 0, False, start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char in "({":
            depth += 1
        elif char in ")}":
            depth -= 1
        elif char == "," and depth <= 0:
            break
        position += 1
    return text[start:position]


def _parse(text: str) -> Pattern:
    takes_away = text.startswith("!")
    body = text[1:].strip() if takes_away else text
    if body.startswith("re:"):
        try:
            return Pattern(text, takes_away, re.compile(body[3:]), raw=True)
        except re.error as error:
            raise SelectionError(f"pattern {text} is not a regular expression: {error}") from None
    components = body.strip("/").split("/")
    if not all(components):
        raise SelectionError(f"pattern {text!r} has an empty component", advice="Write it as scope/variable.")
    head = "^/" if body.startswith("/") else "/"
    try:
        return Pattern(text, takes_away, re.compile(head + _expression(components), re.DOTALL), raw=False)
    except re.error as error:  # [z-a], or [Z-a], which becomes invalid when case is ignored
        raise SelectionError(f"pattern {text} is malformed: {error.msg}") from None


def _expression(components: Sequence[str]) -> str:
    """The regular expression for whole components, each followed by its "/", in lower case."""
    parts = []
    for position, component in enumerate(components):
        if component != "**":
            parts.append(_component(component.lower()) + "/")
        elif position == len(components) - 1:
            parts.append("(?:[^/]+/)+")  # scope/** is everything inside the scope
        else:
            parts.append("(?:[^/]+/)*")
    return "".join(parts)


def _component(glob: str) -> str:
    pieces = []
    for piece in re.findall(r"\*\*+|\*|\?|\[(?:!.|[^!])[^\]]*\]|.", glob, re.DOTALL):
        if piece == "*":
            pieces.append("[^/]*")
        elif piece.startswith("**"):
            pieces.append(".*")
        elif piece == "?":
            pieces.append("[^/]")
        elif len(piece) > 1:
            negated = piece[1] == "!"
            body = re.sub(r"([\[\]\\^&~|])", r"\\\1", piece[2:-1] if negated else piece[1:-1])
            pieces.append(f"[^/{body}]" if negated else f"[{body}]")
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def _nearest_scopes(text: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Real scopes or names that end like `text`, with the number of variables in each, closest first."""
    counts = scopes(names)
    counts |= {name: counts.get(name, 0) + 1 for name in names}
    wanted = text.removeprefix("!").removeprefix("re:")
    wanted = re.sub(r"[^\w/.\-]+", "", re.sub(r"\\.|\.\*|\[[^\]]*\]", "", wanted))
    wanted = "/".join(filter(None, wanted.split("/")))
    if not wanted:
        return []
    depth = wanted.count("/") + 1
    if depth > 1:  # the scopes are right, but others are missing between them
        loose = _parse(wanted.replace("/", "/**/"))
        if number := sum(map(loose.matches, names)):
            return [(loose.text, number)]
    by_ending: dict[str, list[str]] = {}
    for scope in sorted(counts, key=lambda each: each.count("/")):
        ending = "/".join(scope.lower().rsplit("/", depth)[-depth:])
        by_ending.setdefault(ending, []).append(scope)
    found: list[tuple[str, int]] = []
    for ending in _close_words(wanted.lower(), list(by_ending)[:_CANDIDATES]):
        places = by_ending[ending]
        if len(places) > _SUGGESTIONS:  # "weight" is close to "weights", which is everywhere
            word = "/".join(places[0].rsplit("/", depth)[-depth:])
            found.append((word, sum(counts[place] for place in places)))
        else:
            found += [(place, counts[place]) for place in places]
    if not found and depth > 1:
        return _nearest_scopes(wanted.rpartition("/")[2], names)
    return found[:_SUGGESTIONS]


def _close_words(wanted: str, known: Sequence[str]) -> list[str]:
    from difflib import SequenceMatcher, get_close_matches

    if wanted in known:
        return [wanted]
    close = get_close_matches(wanted, known, n=_SUGGESTIONS, cutoff=_CLOSE)
    if not close:
        return [word for word in known if wanted in word][:_SUGGESTIONS]
    ratios = {word: SequenceMatcher(None, word, wanted).ratio() for word in sorted(close, key=known.index)}
    best = max(ratios.values())
    return sorted((word for word in ratios if ratios[word] >= best - _NEARLY), key=lambda word: -ratios[word])
