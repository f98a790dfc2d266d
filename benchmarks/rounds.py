"""Rounds: each row is measured once in each, in turn, so that what else the machine does hits all."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.answers import Expected, check
from benchmarks.load import Asked, Generator, Load, fill
from benchmarks.process import LeftOutError, Running, Server

CONNECTIONS = 16
WARM_UP_SECONDS = 1.0
# What a server's failing raises here.
FAILURES = (RuntimeError, subprocess.TimeoutExpired, psutil.Error)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one row.

    Attributes:
        micros: CPU microseconds of the server's processes per request.
        behind_micros: Those of the server behind it.
        per_second: Requests per second.
        p50_ms: The median of the latency.
        p99_ms: Its 99th percentile.
    """

    micros: float
    behind_micros: float
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Row:
    """One line of a table.

    Attributes:
        title: What is measured.
        server: Who is asked.
        asked: What.
        expected: What it must answer.
        connections: On how many connections.
        must: Whether its failure is an error, rather than a reason to leave it out.
        samples: What was measured, one for each round.
        peak_bytes: The peak of the server's resident memory.
        wire_bytes: The length of the body as it is sent.
        left_out: Why there is nothing; None: there is.
    """

    title: str
    server: Server
    asked: Asked
    expected: Expected
    connections: int = CONNECTIONS
    must: bool = False
    samples: list[Sample] = field(default_factory=list[Sample])
    peak_bytes: int = 0
    wire_bytes: int = 0
    left_out: str | None = None

    def median(self, name: str) -> float:
        """Returns the median over the rounds of one of a sample's values."""
        return statistics.median(float(getattr(sample, name)) for sample in self.samples)


@dataclass(slots=True)
class Workload:
    """Rows that are measured in the same rounds.

    Attributes:
        title: What all do.
        rows: The first is the empty application, with which the others are compared.
        reference: The title of a row that the others are compared with too.
        unit: What is counted.
        notes: What a reader should know.
    """

    title: str
    rows: list[Row]
    reference: str = ""
    unit: str = "request"
    notes: list[str] = field(default_factory=list[str])

    def measured(self) -> list[Row]:
        """Returns the rows that have samples."""
        return [row for row in self.rows if row.samples]


class Progress:
    """Lines on standard error that say what is being done, and how long it will take."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Prints one line."""
        print(text, file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """Prints that a measurement begins."""
        left = ""
        if self.done:
            seconds = (time.monotonic() - self.began) / self.done * (self.steps - self.done)
            left = f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        self.done += 1
        self.say(f"[{self.done}/{self.steps}{left}] {text}")

    def skip(self, steps: int) -> None:
        """Takes note of measurements that will not be."""
        self.steps -= steps


class Measurement:
    """One run: how long, how often, and with what.

    Args:
        generator: What asks.
        seconds: How long each row is asked in each round.
        rounds: How many rounds.
        progress: Who is told.
    """

    def __init__(self, generator: Generator, seconds: float, rounds: int, progress: Progress) -> None:
        self.generator = generator
        self.seconds = seconds
        self.rounds = rounds
        self.progress = progress
        self.seed = time.time_ns() % 2**31

    def run(self, workload: Workload) -> None:
        """Measures a workload; its rows have their samples then."""
        self.progress.say(f"{workload.title}: starting")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmark-")))
            servers = self.start(workload.rows, folder, stack)
            for row in workload.rows:
                if row.left_out is None:
                    self.prepare(row, servers)
            for number in range(self.rounds):
                for row in workload.rows:
                    if row.left_out is None:
                        self.progress.step(f"{workload.title}: {row.title}, round {number + 1}")
                        self.measure(row, servers[row.server], self.rounds - number - 1)
            for row in workload.measured():
                row.peak_bytes = servers[row.server].peak_bytes()
                check_access_log(row, servers[row.server])

    def start(self, rows: Sequence[Row], folder: Path, stack: ExitStack) -> dict[Server, Running]:
        """Starts all servers at once, each one once."""
        wanted: list[Server] = []
        for row in rows:
            reason = row.server.missing()
            if reason:
                self.leave_out(row, reason)
            elif row.server not in wanted:
                wanted.append(row.server)
        running: dict[Server, Running] = {}
        failed: dict[Server, LeftOutError] = {}

        def start_one(server: Server) -> None:
            try:
                running[server] = stack.enter_context(server.started(folder))
            except LeftOutError as error:
                failed[server] = error

        with ThreadPoolExecutor(max_workers=4) as pool:
            for _ in pool.map(start_one, wanted):
                pass
        for row in rows:
            if row.server in failed:
                self.leave_out(row, str(failed[row.server]))
        return running

    def prepare(self, row: Row, servers: dict[Server, Running]) -> None:
        """Checks a server, fills its cache and warms it up; one that fails is left out."""
        port = servers[row.server].port
        try:
            row.wire_bytes = check(row.asked, row.expected, port)
            if row.asked.known_keys:
                fill(row.asked, port)
            self.ask(row, port, min(self.seconds, WARM_UP_SECONDS))
        except FAILURES as error:
            self.leave_out(row, str(error))

    def measure(self, row: Row, server: Running, rounds_left: int) -> None:
        """Asks one server for one round; one that fails is left out from then on."""
        try:
            row.samples.append(self.sample(row, server))
        except FAILURES as error:
            row.samples.clear()
            self.leave_out(row, str(error), rounds_left)

    def sample(self, row: Row, server: Running) -> Sample:
        """Checks a server, asks it, and returns what that took."""
        row.wire_bytes = check(row.asked, row.expected, server.port)
        before = cpu_of(server)
        load = self.ask(row, server.port, self.seconds)
        after = cpu_of(server)
        server.peak_bytes()
        return Sample(
            micros=(after[0] - before[0]) / load.requests * 1e6,
            behind_micros=(after[1] - before[1]) / load.requests * 1e6,
            per_second=load.requests / load.seconds,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
        )

    def ask(self, row: Row, port: int, seconds: float) -> Load:
        """Puts load on a server, with keys that are new each time."""
        self.seed += 1
        return self.generator.run(row.asked, port, row.connections, seconds, self.seed)

    def leave_out(self, row: Row, reason: str, rounds_left: int | None = None) -> None:
        """Notes why a row is not measured.

        Raises:
            RuntimeError: It is one that must be.
        """
        if row.must:
            raise RuntimeError(f"{row.title}: {reason}")
        row.left_out = reason
        self.progress.skip(self.rounds if rounds_left is None else rounds_left)
        self.progress.say(f"{row.title}: left out: {reason}")


def cpu_of(server: Running) -> tuple[float, float]:
    """Returns the CPU seconds of a server and of the one behind it."""
    return server.cpu_seconds(), server.behind.cpu_seconds() if server.behind else 0.0


def check_access_log(row: Row, server: Running) -> None:
    """Looks whether the access log was written, where there should be one.

    Raises:
        RuntimeError: It was not.
    """
    log = server.access_log
    if log is not None and not (log.exists() and log.stat().st_size):
        raise RuntimeError(f"{row.title}: the access log is empty")


def count_steps(workloads: Iterable[Workload], rounds: int) -> int:
    """Returns how many measurements there will be, if none is left out."""
    return sum(len(workload.rows) for workload in workloads) * rounds
