"""Styles of scaling pixels: named ones, and numbers."""

from __future__ import annotations

import math

from ...errors import nearest

STYLES = ("inception", "vgg", "caffe", "torch", "unit", "raw", "cifarnet", "lenet")


def style_problem(style: str) -> str | None:
    """A sentence on the problem with a style; None if it is valid."""
    if style in STYLES or numbers(style):
        return None
    hint = nearest(style, STYLES)
    return f"no preprocessing {style!r}{hint}; there are {', '.join(STYLES)}, and numbers: MEAN,DIVISOR"


def numbers(style: str) -> tuple[tuple[float, ...], float] | None:
    """The means, one in all or one per channel, and the divisor of a style given in numbers, for pixels 0..255.

    >>> numbers("127.5,127.5"), numbers("123.68,116.78,103.94,1"), numbers("vgg")
    (((127.5,), 127.5), ((123.68, 116.78, 103.94), 1.0), None)
    """
    try:
        *means, divisor = map(float, style.split(","))
    except ValueError:
        return None
    finite = all(map(math.isfinite, (*means, divisor)))
    return (tuple(means), divisor) if len(means) in (1, 3) and divisor and finite else None
