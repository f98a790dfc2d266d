"""aeros and its peers side by side, in one run: what a request costs each.

``python -m benchmarks.peers [--seconds 2] [--rounds 5] [--only PATTERN] [--svg FILE] [--json FILE]``

The servers of one workload run at the same time, and are asked in turn, round by round; what is
printed are medians over the rounds. What counts is the CPU time of the server's processes, user and
system, per request; c is that of the empty ASGI application on uvicorn in the same rounds. The
latencies are those of a server that is fully busy. Each answer is checked before each round.

Peers that are not installed are left out, with a line that says so: ``pip install -e '.[bench]'``,
and nginx, Varnish and wrk from your system.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import chart
from benchmarks.load import find_generator
from benchmarks.process import end_when_told
from benchmarks.rounds import CONNECTIONS, Measurement, Progress, Workload, count_steps
from benchmarks.table import as_json, machine, render, versions
from benchmarks.workloads import workloads

CHARTED = ("cached 24 KB JSON, br", "JSON hello, not cached")


def selected(pattern: str) -> list[Workload]:
    """Returns the workloads with the rows that a pattern finds in ``workload: row``.

    The first row of each and its reference stay where another row does.
    """
    chosen: list[Workload] = []
    for workload in workloads():
        found = [row for row in workload.rows if is_found(pattern, f"{workload.title}: {row.title}")]
        needed = [workload.rows[0], *(row for row in workload.rows if row.title == workload.reference)]
        workload.rows = [row for row in workload.rows if row in found or row in needed]
        if any(row not in needed[:1] for row in found):
            chosen.append(workload)
    return chosen


def is_found(pattern: str, text: str) -> bool:
    """Tells whether a regular expression is found in a text, in any case."""
    return re.search(pattern, text, re.IGNORECASE) is not None


def panels(measured: Sequence[Workload]) -> list[chart.BarPanel]:
    """Returns what is drawn: the two workloads of the README, or all if they were not measured."""
    charted = [workload for workload in measured if workload.title in CHARTED] or measured
    return [
        chart.BarPanel(
            f"{workload.title}: CPU per {workload.unit}",
            [
                chart.Bar(row.title, row.median("micros"), kind_of(row.title, number))
                for number, row in enumerate(workload.measured())
            ],
        )
        for workload in charted
    ]


def kind_of(title: str, number: int) -> str:
    """Returns how a row's bar is coloured."""
    if title.startswith("aeros"):
        return "ours"
    return "base" if number == 0 else "bar"


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2, help="of each row in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="regular expression, looked for in 'workload: row'")
    parser.add_argument("--svg", type=Path, help="file for the chart")
    parser.add_argument("--json", type=Path, help="file for all samples")
    options = parser.parse_args()
    end_when_told()
    chosen = selected(options.only)
    if not chosen:
        parser.error(f"no row is found by {options.only!r}")
    generator = find_generator()
    progress = Progress(count_steps(chosen, options.rounds))
    about = [
        f"medians of {options.rounds} rounds of {options.seconds:g} s; {CONNECTIONS} keep-alive connections",
        f"load from {generator.name}; {machine()}",
        ", ".join(f"{name} {number}" for name, number in versions().items()),
    ]
    measurement = Measurement(generator, options.seconds, options.rounds, progress)
    for workload in chosen:
        measurement.run(workload)
    print(render(chosen, about), flush=True)
    if options.svg:
        options.svg.write_text(chart.bars(panels(chosen), f"{about[0]}; {machine()}"))
    if options.json:
        options.json.write_text(json.dumps(as_json(chosen, about), indent=1))


if __name__ == "__main__":
    main()
