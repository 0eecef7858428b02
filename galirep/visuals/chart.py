"""Line charts as SVG for a page: curves of several runs over one axis, dashed levels, round numbers on the axes."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# pixels
WIDTH, HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
MAX_POINTS = 300
"""A curve of more points is drawn by the means of as many stretches."""


@dataclass(frozen=True)
class Line:
    """A curve: `colour` is its number in the page's palette (a run has one colour in all charts)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


@dataclass(frozen=True)
class Chart:
    """Curves over one axis, and `levels` (name, value): dashed lines to compare with."""

    title: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()

    def payload(self) -> dict[str, Any]:
        """Return what the page's script reads to tell values under the pointer."""
        left, right, low, high = self.extent()
        series = [
            {"name": line.name, "colour": line.colour, "points": [[x, float(f"{y:.5g}")] for x, y in thin(line.points)]}
            for line in self.lines
        ]
        return {"x": [left, right], "y": [low, high], "series": series}

    def extent(self) -> tuple[float, float, float, float]:
        """Return the least and the largest x and y that are drawn, levels among them."""
        points = [point for line in self.lines for point in thin(line.points)]
        xs = [x for x, _ in points]
        ys = [y for _, y in points] + [value for _, value in self.levels]
        low, high = min(ys), max(ys)
        room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
        # nothing measured here is negative, so the axis does not go below 0 for the sake of room
        bottom = low - room if low < 0 else max(0.0, low - room)
        return min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, bottom, high + room


def thin(points: Sequence[tuple[float, float]], count: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most `count` points: the means of equal stretches, without what is not finite."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if len(finite) <= count:
        return finite
    edges = [round(i * len(finite) / count) for i in range(count + 1)]
    parts = [finite[a:b] for a, b in pairwise(edges)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers between two."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number for an axis: 12k, 1.5M, 0.05, 1e-6."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"


def draw(chart: Chart) -> str:
    """Return the chart as an SVG element; its style is the page's (`run_report.css`)."""
    left, right, low, high = chart.extent()

    def x_of(value: float) -> float:
        return _LEFT + (value - left) / (right - left) * (WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    for value in ticks(low, high):
        y = y_of(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(left, right, 3):
        x = x_of(value)
        anchor = "end" if x > WIDTH - 30 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{short(value)}</text>')
    for name, value in chart.levels:
        y = y_of(value)
        above = y - 4 if y > _TOP + 14 else y + 11
        parts.append(f'<path class="level" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        text = html.escape(name)
        parts.append(f'<text class="level-name" x="{WIDTH - _RIGHT}" y="{above:.1f}" text-anchor="end">{text}</text>')
    for line in chart.lines:
        points = [(x_of(x), y_of(y)) for x, y in thin(line.points)]
        if len(points) == 1:
            parts.append(f'<circle class="dot c{line.colour}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
        elif points:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path class="curve c{line.colour}" d="M{path}"/>')
    title = html.escape(f"{chart.title}: {', '.join(line.name for line in chart.lines)}")
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}'
        f'<path class="pointer" d="" data-top="{_TOP}" data-bottom="{HEIGHT - _BOTTOM}" data-left="{_LEFT}" '
        f'data-right="{WIDTH - _RIGHT}"/></svg>'
    )
