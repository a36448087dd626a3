"""Line and point charts as SVG text with the colours of the surrounding page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 34
PALETTE = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f", "#ff9da7", "#8a8f94", "#b6992d", "#39a7b3")
Point = tuple[float, float]


def line_chart(title: str, series: Mapping[str, Sequence[Point]], across: str) -> str:
    """A chart with one line per series of (x, y); the first two use the page's --first and --second colours."""
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    (left, right), (low, high) = (_span(values) for values in zip(*points, strict=True))
    ticks_x, ticks_y = ticks(left, right), ticks(low, high)
    low, high = min(low, ticks_y[0]), max(high, ticks_y[-1])

    def place(x: float, y: float) -> str:
        px = LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{px:.1f},{py:.1f}"

    parts = [f'<text x="{LEFT}" y="13" fill="currentColor" font-weight="600">{escape(title)}</text>']
    for y in ticks_y:
        start, end = place(left, y).split(",")[1], place(right, y)
        parts.append(f'<path d="M{LEFT},{start} L{end}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{float(start) + 4:.1f}" text-anchor="end" fill="currentColor">{y:g}</text>'
        )
    for x in ticks_x:
        middle = place(x, low).split(",")[0]
        parts.append(f'<text x="{middle}" y="{HEIGHT - 18}" text-anchor="middle" fill="currentColor">{x:g}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" fill="currentColor">{escape(across)}</text>'
    )
    for number, (name, line) in enumerate(series.items()):
        colour = ("var(--first)", "var(--second)")[number % 2]
        drawn = [place(x, y) for x, y in line if math.isfinite(y)]
        parts.append(f'<polyline points="{" ".join(drawn)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(drawn) <= 60:
            parts += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.5" fill="{colour}"/>' for p in drawn]
        x = WIDTH - RIGHT - 92 * (len(series) - number)
        parts.append(f'<rect x="{x}" y="6" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="15" fill="currentColor">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def point_chart(title: str, points: np.ndarray, label_ids: np.ndarray, labels: Sequence[str]) -> str:
    """Points float [n, 2] coloured by class; outliers are drawn at the edge."""
    low, high = np.percentile(points, [1, 99], axis=0)
    low, high = low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9
    share = np.clip((points - low) / (high - low), 0, 1)
    size = 480
    parts = [f'<text x="4" y="13" fill="currentColor" font-weight="600">{escape(title)}</text>']
    for (x, y), number in zip(share, label_ids, strict=True):
        px, py = 8 + x * (size - 16), size - 8 - y * (size - 30)
        tone = colour(int(number), len(labels))
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2" fill="{tone}" fill-opacity="0.8"/>')
    return f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def colour(number: int, classes: int) -> str:
    """The colour of a class: from a palette for up to ten classes, else around the colour circle."""
    return PALETTE[number] if classes <= len(PALETTE) else f"hsl({360 * number / classes:.0f} 60% 55%)"


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers between low and high.

    >>> ticks(0.12, 0.9)
    [0.2, 0.4, 0.6, 0.8]
    """
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
