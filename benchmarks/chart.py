"""Charts as SVG, written by hand: bars and lines, readable on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #59636e }
.bar { fill: #9aa4b2 } .ours { fill: #0a7d55 } .base { fill: #57606a }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.line { fill: none; stroke-width: 2.5 }
.s0 { stroke: #0a7d55 } .s1 { stroke: #b35900 } .s2 { stroke: #3b62d6 } .s3 { stroke: #8b3fb8 }
.d0 { fill: #0a7d55 } .d1 { fill: #b35900 } .d2 { fill: #3b62d6 } .d3 { fill: #8b3fb8 }
.gap { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 }
  .bar { fill: #57606a } .ours { fill: #3fb950 } .base { fill: #9198a1 }
  .grid { stroke: #3d444d } .gap { stroke: #0d1117 }
  .s0 { stroke: #3fb950 } .s1 { stroke: #f0883e } .s2 { stroke: #79a6ff } .s3 { stroke: #cf8bf5 }
  .d0 { fill: #3fb950 } .d1 { fill: #f0883e } .d2 { fill: #79a6ff } .d3 { fill: #cf8bf5 }
}
"""

BAR_LEFT, BAR_RIGHT, BAR_STEP = 270, 630, 24
# A bar longer than so many times the base's is cut, and its number says how long it is.
CUT = 10.0
PLOT_LEFT, PLOT_RIGHT, PLOT_HEIGHT = 60, 560, 170


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        title: What is written before it.
        value: How long it is.
        kind: How it is coloured: ``ours``, ``base`` or ``bar``.
    """

    title: str
    value: float
    kind: str = "bar"


@dataclass(frozen=True, slots=True)
class BarPanel:
    """Bars under one title."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its title and its points."""

    title: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class LinePanel:
    """Lines under one title; x is logarithmic."""

    title: str
    lines: Sequence[Line]


def bars(panels: Sequence[BarPanel], foot: str) -> str:
    """Returns a chart of horizontal bars, one panel under the other."""
    parts: list[str] = []
    y = 10
    for panel in panels:
        parts.append(text(10, y + 16, panel.title, "title"))
        y += 28
        longest = cut_at(panel)
        for bar in panel.bars:
            parts.append(draw_bar(bar, y, longest))
            y += BAR_STEP
        y += 14
    parts.append(text(10, y + 8, foot, "small"))
    return document(parts, y + 22, "; ".join(panel.title for panel in panels))


def cut_at(panel: BarPanel) -> float:
    """Returns the value at which bars are cut."""
    base = next((bar.value for bar in panel.bars if bar.kind == "base"), 0.0)
    longest = max(bar.value for bar in panel.bars)
    return min(longest, base * CUT) if base else longest


def draw_bar(bar: Bar, y: int, longest: float) -> str:
    """Returns a bar with its title and its number."""
    share = min(bar.value / longest, 1.0) if longest else 0.0
    width = max(2.0, share * (BAR_RIGHT - BAR_LEFT))
    number = f"{bar.value:,.1f} µs" if bar.value < 1000 else f"{bar.value:,.0f} µs"
    parts = [
        text(BAR_LEFT - 10, y + 14, bar.title, anchor="end"),
        f'<rect class="{bar.kind}" x="{BAR_LEFT}" y="{y + 2}" width="{width:.1f}" height="16" rx="2"/>',
        text(BAR_LEFT + width + 8, y + 14, number),
    ]
    if bar.value > longest:
        x = BAR_RIGHT - 30
        parts.append(f'<path class="gap" d="M{x} {y + 20} l6 -20 M{x + 7} {y + 20} l6 -20"/>')
    return "".join(parts)


def lines(panels: Sequence[LinePanel], foot: str) -> str:
    """Returns a chart of lines, one panel under the other."""
    parts: list[str] = []
    y = 10
    for panel in panels:
        parts.append(text(10, y + 16, panel.title, "title"))
        parts.append(draw_lines(panel, y + 30))
        y += PLOT_HEIGHT + 70
    parts.append(text(10, y + 4, foot, "small"))
    return document(parts, y + 18, "; ".join(panel.title for panel in panels))


def draw_lines(panel: LinePanel, top: int) -> str:
    """Returns one panel: grid, lines and what they are."""
    values = [point for line in panel.lines for point in line.points]
    xs = sorted({x for x, _ in values})
    highest = nice_top(max(y for _, y in values))
    low, high = math.log10(xs[0]), math.log10(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - low) / ((high - low) or 1.0)
        return PLOT_LEFT + share * (PLOT_RIGHT - PLOT_LEFT), top + PLOT_HEIGHT * (1 - y / highest)

    parts = [grid_line(top, highest, step) for step in range(5)]
    parts += [text(place(x, 0)[0], top + PLOT_HEIGHT + 16, f"{x:,.0f}", "small", "middle") for x in xs]
    heights = spread([place(*line.points[-1])[1] for line in panel.lines])
    for number, (line, height) in enumerate(zip(panel.lines, heights, strict=True)):
        places = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line s{number % 4}" points="{path}"/>')
        parts += [f'<circle class="d{number % 4}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        parts.append(text(PLOT_RIGHT + 12, height + 4, line.title))
    return "".join(parts)


def grid_line(top: int, highest: float, step: int) -> str:
    """Returns a quarter's line with its number."""
    y = top + PLOT_HEIGHT * (1 - step / 4)
    line = f'<line class="grid" x1="{PLOT_LEFT}" x2="{PLOT_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + text(PLOT_LEFT - 8, y + 4, f"{highest * step / 4:,.4g}", "small", "end")


def nice_top(value: float) -> float:
    """Returns the next round number above a value."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def spread(heights: Sequence[float], apart: float = 16.0) -> list[float]:
    """Returns the heights of labels, moved so that none covers another."""
    moved = list(heights)
    last = -math.inf
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        last = moved[number] = max(heights[number], last + apart)
    return moved


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Returns a line of text."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def document(parts: Sequence[str], height: int, title: str) -> str:
    """Returns the whole file."""
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    about = f"<title>{escape(title)}</title>\n<style>{STYLE}</style>"
    return "\n".join([head, about, *parts, "</svg>\n"])
