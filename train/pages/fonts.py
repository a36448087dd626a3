"""Fonts for class names in any script: characters missing in matplotlib's font are taken from fonts of this machine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from unicodedata import category

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 8  # characters in a message
_BOXES = "Last Resort"  # a font of boxes for every character, which comes with matplotlib
_UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"}  # kinds of characters that need no glyph of their own


def use_fonts(figure: Figure) -> None:
    """Gives the texts of a figure additional fonts for characters that need them."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    families, _ = fonts_for("".join(text.get_text() for text in texts))
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def without_font(texts: Iterable[str]) -> str:
    """A sentence if no font of this machine has some of the characters, else an empty string."""
    missing = fonts_for("".join(texts))[1]
    if not missing:
        return ""
    shown = " ".join(missing[:_SHOWN]) + (" ..." if len(missing) > _SHOWN else "")
    return (
        f"no font here has {shown}: pictures show boxes for them; install one that does, such as Noto Sans "
        "(Debian: fonts-noto-cjk for Chinese, Japanese and Korean, fonts-noto-core for others)"
    )


def fonts_for(text: str) -> tuple[list[str], list[str]]:
    """Names of fonts with the characters of a text that matplotlib's default font lacks, and characters without a
    font."""
    from matplotlib import font_manager

    wanted = sorted({c for c in text if not c.isascii() and category(c) not in _UNSEEN})
    missing = [c for c in wanted if ord(c) not in _characters(font_manager.findfont(font_manager.FontProperties()))]
    families: list[str] = []
    for look_again in (False, True):
        for name, path in _candidates(look_again and bool(missing)):
            found = [c for c in missing if ord(c) in _characters(path)]
            if found:
                families.append(name)
                missing = [c for c in missing if c not in found]
            if not missing:
                return families, []
    return families, missing


def _candidates(look_again: bool) -> Sequence[tuple[str, str]]:
    """Name and file of one upright font of each family that matplotlib knows. `look_again` adds fonts installed since
    matplotlib cached its list."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if look_again:
        known = {entry.fname for entry in manager.ttflist}
        for path in sorted(set(font_manager.findSystemFonts()) - known):
            try:
                manager.addfont(path)
            except Exception:  # noqa: BLE001 - FreeType's errors for kinds that matplotlib cannot draw
                continue
    upright = [entry for entry in manager.ttflist if entry.style == "normal" and entry.size == "scalable"]
    upright = [entry for entry in upright if not entry.name.startswith(_BOXES)]
    best_first = sorted(upright, key=lambda entry: ("Mono" in entry.name, abs(_weight(entry.weight) - 400)))
    return list({entry.name: entry.fname for entry in reversed(best_first)}.items())[::-1]


def _weight(weight: int | str) -> int:
    from matplotlib.font_manager import weight_dict

    return weight_dict.get(weight, 400) if isinstance(weight, str) else weight


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font has glyphs for."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except Exception:  # noqa: BLE001 - FreeType's error for a damaged file
        return frozenset()
