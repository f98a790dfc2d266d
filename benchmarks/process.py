"""Processes that are measured: started, watched and ended; nothing else is ever ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

import psutil

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class LeftOutError(RuntimeError):
    """A row can not be measured here; the text says why."""


@dataclass(slots=True)
class Running:
    """A server that answers on a port.

    Attributes:
        process: Its first process; its children count too.
        port: Where it listens on loopback.
        behind: The server that it asks itself, where there is one.
        access_log: The file of its access log, where it has one.
    """

    process: psutil.Process
    port: int
    behind: Running | None = None
    access_log: Path | None = None
    peaks: dict[int, int] = field(default_factory=dict[int, int])

    def cpu_seconds(self) -> float:
        """Returns what its processes have used so far, user and system."""
        return sum(cpu_seconds(process) for process in self.processes())

    def peak_bytes(self) -> int:
        """Returns the most that its processes had resident so far; what they share counts for each."""
        for process in self.processes():
            peak = max(self.peaks.get(process.pid, 0), peak_bytes(process))
            self.peaks[process.pid] = peak
        return sum(self.peaks.values())

    def processes(self) -> list[psutil.Process]:
        """Returns the first process and its children."""
        return [self.process, *self.process.children(recursive=True)]


class Server(Protocol):
    """What can be measured."""

    def missing(self) -> str | None:
        """Returns what this machine lacks for it; None: nothing."""
        ...

    def started(self, folder: Path) -> AbstractContextManager[Running]:
        """Serves while the context lasts; ``folder`` is for its files."""
        ...


def cpu_seconds(process: psutil.Process) -> float:
    """Returns a process's CPU time, user and system, in nanosecond steps where the system has them.

    Linux gives every process a clock (``clock_getcpuclockid(3)``), which counts what
    ``/proc/PID/task/*/schedstat`` counts, and threads that have ended too. Elsewhere psutil's
    10 ms steps must do.
    """
    with suppress(psutil.NoSuchProcess):
        if sys.platform == "linux":
            with suppress(OSError):
                return time.clock_gettime(~process.pid << 3 | 2)
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def peak_bytes(process: psutil.Process) -> int:
    """Returns the peak of a process's resident memory; where the system does not tell, that of now."""
    status = Path(f"/proc/{process.pid}/status")
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with suppress(psutil.NoSuchProcess):
        return process.memory_info().rss
    return 0


def free_port() -> int:
    """Returns a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[Running]:
    """Runs a server while the context lasts; it is given when it listens.

    Raises:
        LeftOutError: It ended, or did not listen in time.
    """
    with log.open("wb") as output, ended_with(command, output, environment) as process:
        wait_until_open(port, process, log)
        yield Running(psutil.Process(process.pid), port)


@contextmanager
def ended_with(
    command: Sequence[str], output: IO[bytes], environment: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Runs a process that ends, with its children, where the context ends, also on CTRL+C."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to end; what is left of it and its children in the end is killed."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        family = [*first.children(recursive=True), first]
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until somebody listens on the port.

    Raises:
        LeftOutError: The process ended, or it took too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise LeftOutError(f"did not start: {lines[-1] if lines else 'without a word'}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise LeftOutError(f"does not listen on port {port}")


def found(executable: str) -> str | None:
    """Returns the path of an installed program; Debian keeps servers where users do not look."""
    return shutil.which(executable) or shutil.which(executable, path="/usr/sbin:/usr/local/sbin")


def end_when_told() -> None:
    """Makes SIGTERM and CTRL+C leave the contexts in force, so that what was started ends."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
