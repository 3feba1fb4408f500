"""A line plot on two logarithmic axes, as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 48
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


@dataclass(frozen=True)
class Axis:
    """From one power of ten to another, on a stretch of the picture."""

    low: int
    high: int
    begin: float
    end: float

    def at(self, value: float) -> float:
        share = (log10(value) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def lines(title: str, across: str, upward: str, series: Mapping[str, Sequence[Point]]) -> str:
    """One line per name. All values must be positive; at least one is needed."""
    points = [point for line in series.values() for point in line]
    horizontal = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    vertical = _axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        _text(LEFT, 20, title, "start", "bold"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across),
        f'<g transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, upward)}</g>',
        *_grid(horizontal, vertical),
    ]
    for number, (name, line) in enumerate(series.items()):
        places = [(horizontal.at(x), vertical.at(y)) for x, y in line]
        parts += _line(name, places, COLOURS[number % len(COLOURS)], number)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    body = "\n".join((background, *parts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def _axis(values: Sequence[float], begin: float, end: float) -> Axis:
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return Axis(low, max(high, low + 1), begin, end)


def _grid(horizontal: Axis, vertical: Axis) -> list[str]:
    parts = []
    for value in horizontal.ticks():
        x = horizontal.at(value)
        parts.append(_stroke(x, vertical.begin, x, vertical.end, "#ddd"))
        parts.append(_text(x, vertical.begin + 16, f"{value:,g}"))
    for value in vertical.ticks():
        y = vertical.at(value)
        parts.append(_stroke(horizontal.begin, y, horizontal.end, y, "#ddd"))
        parts.append(_text(horizontal.begin - 6, y + 4, f"{value:,g}", "end"))
    return parts


def _line(name: str, places: Sequence[Point], colour: str, number: int) -> list[str]:
    """The line, its points, and its name at the right."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    y = TOP + 8 + 18 * number
    x = WIDTH - RIGHT + 12
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<line x1="{x}" y1="{y}" x2="{x + 16}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        _text(x + 22, y + 4, name, "start"),
    ]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
