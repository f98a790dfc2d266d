"""What it costs that a view gets three values injected, in each framework, by its own ways.

``python -m benchmarks.injection [--seconds 2] [--rounds 5] [--only PATTERN]``: as ``peers.py``. Of each
framework the same view is asked with and without its three parameters; the last column is the
difference. Needs ``aeros[bench]``.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from benchmarks.answers import Expected
from benchmarks.load import Asked, find_generator
from benchmarks.process import end_when_told
from benchmarks.rounds import Measurement, Progress, Row, Workload, count_steps
from benchmarks.servers.injected import PLAIN
from benchmarks.servers.python import PythonServer


@dataclass(frozen=True, slots=True)
class Pair:
    """One framework's view without and with three injected parameters."""

    title: str
    plain: Row
    injected: Row


def pair(title: str, function: str, *needs: str) -> Pair:
    """Returns the two rows of one application."""
    server = PythonServer(f"injected:{function}", needs)
    expected = Expected(PLAIN)
    plain = Row(f"{title}, plain", server, Asked("/plain"), expected)
    return Pair(title, plain, Row(f"{title}, injected", server, Asked("/injected"), expected))


def pairs() -> list[Pair]:
    """Returns what is compared."""
    return [
        pair("aeros, inject()", "with_inject"),
        pair("aeros, one RequestScoped of three", "with_request_scope"),
        pair("Quart, dependency-injector's @inject", "with_wiring"),
        pair("FastAPI, Depends", "with_depends", "fastapi"),
        pair("Litestar, Provide", "with_provide", "litestar"),
    ]


def render(table: list[Pair]) -> str:
    """Returns the table."""
    lines = [f"{'µs of CPU per request':38} {'plain':>8} {'injected':>9} {'cost':>7}"]
    for both in table:
        if both.plain.left_out or both.injected.left_out:
            lines.append(f"{both.title}: left out: {both.plain.left_out or both.injected.left_out}")
            continue
        plain, injected = both.plain.median("micros"), both.injected.median("micros")
        lines.append(f"{both.title:38} {plain:8.1f} {injected:9.1f} {injected - plain:7.1f}")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2, help="of each row in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="regular expression, looked for in the titles")
    options = parser.parse_args()
    end_when_told()
    table = [both for both in pairs() if re.search(options.only, both.title, re.IGNORECASE)]
    rows = [row for both in table for row in (both.plain, both.injected)]
    workload = Workload("injection", rows)
    progress = Progress(count_steps([workload], options.rounds))
    Measurement(find_generator(), options.seconds, options.rounds, progress).run(workload)
    print(render(table))


if __name__ == "__main__":
    main()
