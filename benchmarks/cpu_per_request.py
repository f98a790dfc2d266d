"""CPU per request of each server, side by side in one run, as a ratio to an empty ASGI application.

``python -m benchmarks.cpu_per_request [--requests 4000] [--rounds 5]``: every round asks every
server once, in turn, over one keep-alive connection on loopback; what counts is the CPU time of
the server process (user and system). The medians over the rounds are printed.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import brotli
import psutil

ROOT = Path(__file__).parent.parent


@dataclass(slots=True)
class Case:
    """One row of the table.

    Attributes:
        title: What is measured.
        server: Which application.
        path: What is asked.
        encoding: The request's ``Accept-Encoding``.
        coding: The ``Content-Encoding`` that the answer must have.
        micros: CPU microseconds per request, one for each round.
    """

    title: str
    server: str
    path: str
    encoding: str = "identity"
    coding: str = ""
    micros: list[float] = field(default_factory=list[float])


def cases() -> list[Case]:
    """Returns the rows; the first is what the others are compared with."""
    return [
        Case("empty ASGI app", "empty", "/"),
        Case("Quart, JSON hello", "quart", "/hello"),
        Case("aeros, JSON hello", "aeros", "/hello"),
        Case("Quart, 24 KB JSON, not cached", "quart", "/rows"),
        Case("aeros, 24 KB JSON, cached, br", "aeros", "/rows", "br", "br"),
    ]


@contextmanager
def running(name: str) -> Generator[tuple[psutil.Process, int]]:
    """Serves one application in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.servers", name, str(port)], cwd=ROOT)
    try:
        wait_until_open(port)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait()


def wait_until_open(port: int) -> None:
    """Waits until somebody listens on the port."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


class Client:
    """A keep-alive connection that asks one thing again and again."""

    def __init__(self, port: int, path: str, encoding: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {encoding}\r\n\r\n".encode()
        )

    def ask(self) -> tuple[bytes, bytes]:
        """Returns the head and the body of one answer."""
        self.connection.sendall(self.request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self.connection.recv(65536)
        return head.lower(), body


def check(case: Case, head: bytes, body: bytes) -> None:
    """Raises where the answer is not what the row says."""
    coded = f"content-encoding: {case.coding}".encode() in head
    if b" 200 ok" not in head or (case.coding and (not coded or not brotli.decompress(body))):
        raise RuntimeError(f"{case.title}: unexpected answer {head!r}")


def measure(case: Case, process: psutil.Process, port: int, requests: int) -> None:
    """Asks one server for one round."""
    client = Client(port, case.path, case.encoding)
    with client.connection:
        for _ in range(50):
            check(case, *client.ask())
        before = process.cpu_times()
        for _ in range(requests):
            client.ask()
        after = process.cpu_times()
        check(case, *client.ask())
    case.micros.append((after.user + after.system - before.user - before.system) / requests * 1e6)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000, help="requests of each row in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = cases()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(name)) for name in {row.server for row in rows}}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for row in rows:
                measure(row, *servers[row.server], options.requests)
    base = statistics.median(rows[0].micros)
    print(f"{'':34} {'µs CPU':>8} {'ratio':>7}")
    for row in rows:
        median = statistics.median(row.micros)
        print(f"{row.title:34} {median:8.1f} {median / base:7.2f}")


if __name__ == "__main__":
    main()
