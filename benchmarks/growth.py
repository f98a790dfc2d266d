"""How the cost of a request grows: with routes, with entries in the cache, with the body, with clients.

``python -m benchmarks.growth [--seconds 1] [--rounds 3] [--only PATTERN] [--most N] [--svg FILE]
[--json FILE]``: every point is measured as ``peers.py`` does, in CPU microseconds per request, as the
median over interleaved rounds. aeros, and Quart where it can do the same.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import chart
from benchmarks.answers import Expected
from benchmarks.bodies import HELLO, ROWS, large_body
from benchmarks.load import Asked, find_generator
from benchmarks.process import end_when_told
from benchmarks.rounds import Measurement, Progress, Row, Workload
from benchmarks.servers.python import PythonServer
from benchmarks.table import machine, row_as_json

HELLO_ROW = (Asked("/hello"), Expected(HELLO))
HIT_ROW = (Asked("/rows", "br"), Expected(ROWS, "br"))


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart.

    Attributes:
        title: What is measured.
        row: Makes the row of one point.
    """

    title: str
    row: Callable[[int], Row]


@dataclass(frozen=True, slots=True)
class Growth:
    """Curves over one quantity.

    Attributes:
        title: The quantity.
        sizes: The points at which it is measured.
        curves: What is measured.
    """

    title: str
    sizes: Sequence[int]
    curves: Sequence[Curve]


def routes() -> Growth:
    """The last of many routes."""

    def row(name: str) -> Callable[[int], Row]:
        return lambda count: Row(
            f"{name}, {count:,} routes", PythonServer(f"{name}:routes:{count}"), *HELLO_ROW
        )

    def hit(count: int) -> Row:
        server = PythonServer(f"aeros:routes:{count}")
        return Row(f"aeros, hit, {count:,} routes", server, *HIT_ROW)

    curves = [
        Curve("aeros, hit", hit),
        Curve("Quart, hello", row("quart")),
        Curve("aeros, hello", row("aeros")),
    ]
    return Growth("routes", (1, 10, 100, 1_000, 5_000), curves)


def entries() -> Growth:
    """Any of many entries."""

    def row(count: int) -> Row:
        asked, server = Asked("/items/{key}", known_keys=count), PythonServer(f"aeros:entries:{count}")
        return Row(f"aeros, {count:,} entries", server, asked, Expected({"key": "0"}))

    return Growth("entries in the cache", (1, 100, 10_000, 100_000), [Curve("aeros, hit", row)])


def bodies() -> Growth:
    """A larger body."""

    def row(name: str, coding: str) -> Callable[[int], Row]:
        asked = Asked("/rows", coding or "identity")
        title = f"{name}, {coding or 'identity'}"
        return lambda size: Row(
            f"{title}, {size:,} bytes",
            PythonServer(f"{name}:sized:{size}"),
            asked,
            Expected(json.loads(large_body(size)), coding),
        )

    curves = [
        Curve("aeros, hit, br", row("aeros", "br")),
        Curve("Quart, bytes as they are", row("quart", "")),
        Curve("aeros, hit, identity", row("aeros", "")),
    ]
    return Growth("bytes of the body", (1_000, 10_000, 100_000, 1_000_000), curves)


def clients() -> Growth:
    """More clients at once; aeros admits them all, so that none is refused."""

    def row(
        title: str, name: str, asked: Asked = HELLO_ROW[0], expected: Expected = HELLO_ROW[1]
    ) -> Callable[[int], Row]:
        server = PythonServer(f"{name}:plain", unlimited=True)
        return lambda count: Row(f"{title}, {count:,} clients", server, asked, expected, count)

    curves = [
        Curve("aeros, hit", row("aeros, hit", "aeros", *HIT_ROW)),
        Curve("Quart, hello", row("Quart, hello", "quart")),
        Curve("aeros, hello", row("aeros, hello", "aeros")),
    ]
    return Growth("clients at once", (1, 8, 64, 256), curves)


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one growth.

    Attributes:
        growth: What was measured.
        rows: The rows of each curve, by its title, as many as there are sizes.
    """

    growth: Growth
    rows: dict[str, list[Row]]


def measure(growth: Growth, sizes: Sequence[int], measurement: Measurement) -> Measured:
    """Measures all points of all curves in the same rounds."""
    rows = {curve.title: [curve.row(size) for size in sizes] for curve in growth.curves}
    measurement.run(Workload(growth.title, [row for points in rows.values() for row in points]))
    return Measured(growth, rows)


def render(measured: Measured, sizes: Sequence[int]) -> str:
    """Returns the table of one growth."""
    lines = [f"{measured.growth.title + ' (µs of CPU)':30}" + "".join(f"{size:>12,}" for size in sizes)]
    for title, rows in measured.rows.items():
        cells = [f"{row.median('micros'):12.1f}" if row.samples else f"{'-':>12}" for row in rows]
        lines.append(f"{title:30}" + "".join(cells))
        lines += [f"  {row.title}: left out: {row.left_out}" for row in rows if row.left_out]
    return "\n".join(lines)


def panel(measured: Measured, sizes: Sequence[int]) -> chart.LinePanel:
    """Returns what is drawn of one growth."""
    lines = [
        chart.Line(
            title,
            [
                (float(size), row.median("micros"))
                for size, row in zip(sizes, rows, strict=True)
                if row.samples
            ],
        )
        for title, rows in measured.rows.items()
    ]
    title = f"CPU per request (µs) by {measured.growth.title}"
    return chart.LinePanel(title, [line for line in lines if line.points])


def as_json(measured: Iterable[Measured]) -> dict[str, Any]:
    """Returns all samples."""
    return {
        each.growth.title: {title: [row_as_json(row) for row in rows] for title, rows in each.rows.items()}
        for each in measured
    }


def main() -> None:
    """Measures, prints the tables and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1, help="of each point in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="regular expression, looked for in what grows")
    parser.add_argument("--most", type=int, default=10**9, help="leave out what is larger")
    parser.add_argument("--svg", type=Path, help="file for the chart")
    parser.add_argument("--json", type=Path, help="file for all samples")
    options = parser.parse_args()
    end_when_told()
    growths = [
        growth
        for growth in (routes(), entries(), bodies(), clients())
        if re.search(options.only, growth.title, re.IGNORECASE)
    ]
    sizes = {growth.title: [size for size in growth.sizes if size <= options.most] for growth in growths}
    growths = [growth for growth in growths if sizes[growth.title]]
    if not growths:
        parser.error("nothing is left to measure")
    steps = sum(len(growth.curves) * len(sizes[growth.title]) for growth in growths) * options.rounds
    generator = find_generator()
    measurement = Measurement(generator, options.seconds, options.rounds, Progress(steps))
    measured = [measure(growth, sizes[growth.title], measurement) for growth in growths]
    about = f"medians of {options.rounds} rounds of {options.seconds:g} s; {generator.name}; {machine()}"
    print(about)
    for each in measured:
        print("\n" + render(each, sizes[each.growth.title]), flush=True)
    panels = [panel(each, sizes[each.growth.title]) for each in measured]
    if options.svg:
        options.svg.write_text(chart.lines([each for each in panels if each.lines], about))
    if options.json:
        options.json.write_text(json.dumps(as_json(measured), indent=1))


if __name__ == "__main__":
    main()
