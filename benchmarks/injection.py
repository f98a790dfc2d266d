"""What it costs that a view gets three values injected, in each framework, by its own ways.

``python -m benchmarks.injection [--requests 4000] [--rounds 5]``: as ``cpu_per_request.py``, which
measures. Of each framework the same view is asked with and without its three parameters; the last
column is the difference. Needs ``aeros[bench]``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.cpu_per_request import Case, measure, running


@dataclass(frozen=True, slots=True)
class Pair:
    """One framework's view without and with three injected parameters."""

    title: str
    plain: Case
    injected: Case


def pairs() -> list[Pair]:
    """Returns what is compared."""
    return [
        Pair(
            title,
            Case(f"{title}, plain", server, "/plain"),
            Case(f"{title}, injected", server, "/injected"),
        )
        for title, server in (
            ("aeros, inject()", "inject-aeros"),
            ("aeros, one RequestScoped of three", "inject-aeros-scoped"),
            ("Quart, dependency-injector's @inject", "inject-quart"),
            ("FastAPI, Depends", "inject-fastapi"),
            ("Litestar, Provide", "inject-litestar"),
        )
    ]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000, help="requests of each row in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = pairs()
    with ExitStack() as stack:
        servers = {pair.plain.server: stack.enter_context(running(pair.plain.server)) for pair in table}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for pair in table:
                for case in (pair.plain, pair.injected):
                    measure(case, *servers[case.server], options.requests)
    print(f"{'µs of CPU per request':38} {'plain':>8} {'injected':>9} {'cost':>7}")
    for pair in table:
        plain, injected = (statistics.median(case.micros) for case in (pair.plain, pair.injected))
        print(f"{pair.title:38} {plain:8.1f} {injected:9.1f} {injected - plain:7.1f}")


if __name__ == "__main__":
    main()
