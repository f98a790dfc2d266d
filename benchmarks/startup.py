"""How long aeros takes to be imported, and to answer first, against what it stands on.

``python -m benchmarks.startup [--rounds 15] [--json FILE]``: a fresh process for each measurement, in
turn, round by round; the medians are printed. The import is measured inside of the process, so that
the interpreter's own start is not in it; the first answer from outside, from the start of the process on.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.process import ROOT, START_SECONDS, end_when_told, ended_with, free_port
from benchmarks.table import machine, versions

IMPORT = """
import time
began, began_cpu = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - began, time.process_time() - began_cpu)
"""
STATEMENTS = {
    "quart, uvicorn, dependency_injector": "import quart, uvicorn, dependency_injector.providers",
    "aeros": "import aeros",
    "quart": "import quart",
}
VIEW = """
@app.route("/")
async def hello():
    return {{"hello": "world"}}

{run}
"""
QUART = "import quart, uvicorn\napp = quart.Quart('hello')\n" + VIEW.format(
    run="uvicorn.run(app, port={port}, log_level='warning', access_log=False)"
)
AEROS = "import aeros\napp = aeros.WebServer('hello')\n" + VIEW.format(
    run="app.run_server('127.0.0.1', {port}, 'WARNING', access_log_to_std=False)"
)
SERVERS = {"Quart on uvicorn": QUART, "aeros": AEROS}


@dataclass(slots=True)
class Times:
    """What one program took, in milliseconds, one for each round.

    Attributes:
        title: What it does.
        wall: By the clock.
        cpu: Of CPU; none for servers.
    """

    title: str
    wall: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])


def time_import(statement: str) -> tuple[float, float]:
    """Returns the seconds that an import takes in a fresh process, by the clock and of CPU."""
    command = [sys.executable, "-c", IMPORT.format(statement=statement)]
    # Compiled files are written in round 0, as an installation has them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60, env=environment
    )
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def time_first_answer(source: str) -> float:
    """Returns the seconds from the start of a server's process to its first answer.

    Raises:
        RuntimeError: It does not answer.
    """
    port = free_port()
    with TemporaryFile() as output:
        began = time.perf_counter()
        with ended_with([sys.executable, "-c", source.replace("{port}", str(port))], output):
            while time.perf_counter() - began < START_SECONDS:
                if is_answered(port):
                    return time.perf_counter() - began
                time.sleep(0.002)
    raise RuntimeError("a server did not answer")


def is_answered(port: int) -> bool:
    """Asks once, and tells whether there was an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def measure(rounds: int) -> tuple[list[Times], list[Times]]:
    """Returns the times of all imports and of all servers."""
    imports = {title: Times(title) for title in STATEMENTS}
    servers = {title: Times(title) for title in SERVERS}
    for number in range(-1, rounds):  # the first is not counted: it may write byte code
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for title, statement in STATEMENTS.items():
            wall, cpu = time_import(statement)
            if number >= 0:
                imports[title].wall.append(wall * 1e3)
                imports[title].cpu.append(cpu * 1e3)
        for title, source in SERVERS.items():
            answered = time_first_answer(source)
            if number >= 0:
                servers[title].wall.append(answered * 1e3)
    return list(imports.values()), list(servers.values())


def render(title: str, table: list[Times]) -> list[str]:
    """Returns the lines of one table; the first row is what the others are compared with."""
    lines = [f"{title:38} {'ms':>8} {'CPU ms':>8} {'ratio':>7}"]
    base = table[0]
    for row in table:
        wall = statistics.median(row.wall)
        cpu = f"{statistics.median(row.cpu):8.1f}" if row.cpu else " " * 8
        ratio = statistics.median(row.cpu or row.wall) / statistics.median(base.cpu or base.wall)
        lines.append(f"{row.title:38} {wall:8.1f} {cpu} {ratio:7.2f}")
    return lines


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="file for all samples")
    options = parser.parse_args()
    end_when_told()
    imports, servers = measure(options.rounds)
    print(f"medians of {options.rounds} fresh processes; {machine()}; Python {versions()['python']}")
    print("\n".join([*render("import", imports), "", *render("first answer", servers)]), flush=True)
    if options.json:
        tables = {"import": imports, "first answer": servers}
        samples = {
            name: {row.title: {"wall_ms": row.wall, "cpu_ms": row.cpu} for row in table}
            for name, table in tables.items()
        }
        options.json.write_text(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()
