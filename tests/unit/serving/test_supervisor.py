"""The supervisor's decisions, with workers that are no processes; tests/integration has real ones."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from aeros.serving.supervisor import Supervisor
from tests.integration.conftest import eventually


class Worker:
    """A worker without a process."""

    def __init__(self, *, is_ready: bool = True) -> None:
        self.sentinel, self._dying = socket.socketpair()
        self.connection, self._other = socket.socketpair()
        self.process = self
        self.exitcode: int | None = None
        self.is_ready = is_ready
        self.is_stopping = False
        self.unanswered_since: float | None = None
        self.pid = id(self)

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.exitcode is None

    def die(self, code: int = -9) -> None:
        """Ends it."""
        if self.exitcode is None:
            self.exitcode = code
            self._dying.send(b"x")

    kill = die

    def terminate(self) -> None:
        """Ends it as a signal does."""
        self.die(0)

    def tell(self, command: str) -> None:
        """Stops where that is the command."""
        if command != "ping":
            self.is_stopping = True
            self.die(0)

    def read(self) -> None:
        """Takes what it says: that it lives."""
        self.unanswered_since = None

    def end(self) -> None:
        """Lets go of it."""
        self.die()
        for end in (self.sentinel, self._dying, self.connection, self._other):
            end.close()


class Run:
    """A supervisor that runs in a thread, where it takes no signals."""

    def __init__(self, start: Callable[[], Worker], count: int) -> None:
        self.supervisor: Any = Supervisor(
            cast(Any, start),
            count,
            sockets=[],
            logger=lambda: logging.getLogger("tests.supervisor"),
            graceful_seconds=1,
            hang_seconds=5,
            announce=lambda: None,
        )
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except BaseException as error:  # noqa: BLE001 - what it ends with is what is looked at
            self.error = error

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def send(self, number: int) -> None:
        """Gives it a signal."""
        self.supervisor._note_signal(number, None)

    def stop(self) -> None:
        """Ends it."""
        self.send(signal.SIGTERM)
        self._thread.join(20)
        assert not self.is_running


def test_a_worker_that_can_not_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The system may lack a process or memory for a while; those that serve go on."""
    made: list[Worker] = []
    failures = 2

    def start() -> Worker:
        nonlocal failures
        if len(made) >= 2 and failures:
            failures -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        made.append(Worker())
        return made[-1]

    run = Run(start, 2)
    try:
        eventually(lambda: len(made) == 2)
        made[0].die()
        eventually(lambda: len(made) == 3)
        assert run.is_running
        assert made[1].is_alive()
        assert made[2].is_alive()
    finally:
        run.stop()
    assert run.error is None
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "can be started" in line] == [
        "No worker can be started ([Errno 11] Resource temporarily unavailable); tried again in 0.5 seconds",
        "No worker can be started ([Errno 11] Resource temporarily unavailable); tried again in 1.0 seconds",
    ]


def test_one_that_dies_while_its_successor_starts_is_not_replaced_twice() -> None:
    """After a rolling restart there are as many as before it."""
    made: list[Worker] = []
    ready = True

    def start() -> Worker:
        made.append(Worker(is_ready=ready))
        return made[-1]

    run = Run(start, 1)
    try:
        eventually(lambda: len(made) == 1)
        ready = False
        run.send(signal.SIGHUP)
        eventually(lambda: len(made) == 2)  # the newcomer, which is not ready yet
        ready = True
        made[0].die()
        eventually(lambda: len(made) == 3)
        made[1].is_ready = True
        eventually(lambda: sum(worker.is_alive() for worker in made) == 1)
    finally:
        run.stop()
