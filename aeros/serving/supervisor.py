"""The supervisor: keeps worker processes running, replaces them one by one, and ends them all."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from logging import Logger
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

from aeros.errors import StartupError
from aeros.serving.watchdog import CLOSING_SECONDS
from aeros.serving.worker import Worker

_PING_SECONDS: Final = 1.0
_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 30.0
# A worker that is stuck ends itself; this is for one that can not even do that.
_SPARE_SECONDS: Final = 2.0

_ENDING: Final = ("SIGINT", "SIGTERM", "SIGBREAK")
_OTHERS: Final = ("SIGHUP", "SIGTTIN", "SIGTTOU")


class Supervisor:
    """Runs worker processes that share listening sockets.

    ``SIGTERM`` and ``SIGINT`` stop it, as they stop a server of one process: the first gracefully, the
    second at once, the third by force. ``SIGHUP`` replaces each worker by one that has imported the
    application anew, one after the other: the new one accepts requests before the old one stops.
    ``SIGTTIN`` and ``SIGTTOU`` add a worker and take one away.

    Args:
        start: Starts a worker.
        count: How many there are to be.
        sockets: The sockets that they listen on; closed when they are told to stop.
        logger: Gives the logger.
        graceful_seconds: How long a worker may take for its requests when it stops; None: no bound.
        hang_seconds: How long a worker may take to give a sign of life.
        announce: Called once when all of them accept requests.
        bury: Called with the number of each worker's process that has ended.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        count: int,
        *,
        sockets: Sequence[socket.socket],
        logger: Callable[[], Logger],
        graceful_seconds: float | None,
        hang_seconds: float,
        announce: Callable[[], None],
        bury: Callable[[int], None] | None = None,
    ) -> None:
        self._start = start
        self._count = count
        self._sockets = sockets
        self._logger = logger
        self._graceful_seconds = graceful_seconds
        self._hang_seconds = hang_seconds
        self._announce = announce
        self._on_burial = bury
        self._workers: list[Worker] = []
        self._deadlines: dict[Worker, float] = {}
        self._outdated: deque[Worker] = deque()
        self._newcomer: Worker | None = None
        self._is_announced = False
        self._stops = 0
        self._failures = 0
        self._not_before = 0.0
        self._next_ping = 0.0
        self._has_failed = False
        self._had_to_kill = False
        self._signals: deque[int] = deque()
        self._waking, self._woken = socket.socketpair()
        for end in (self._waking, self._woken):
            end.setblocking(False)

    def run(self) -> None:
        """Runs until it is stopped and all workers have ended.

        Raises:
            StartupError: The application does not start in a worker.
            SystemExit: A worker did not end and was killed; the status is 1.
        """
        try:
            with self._signals_taken():
                self._fill_up()
                while self._workers or not self._stops:
                    self._wait()
                    self._handle_signals()
                    self._read()
                    self._bury()
                    self._check_lives()
                    self._roll()
                    self._fill_up()
        finally:
            for worker in self._workers:
                worker.end()
            self._waking.close()
            self._woken.close()
        if self._has_failed:
            raise StartupError("the application did not start in a worker; its log says why")
        if self._had_to_kill:
            raise SystemExit(1)

    # One turn

    def _wait(self) -> None:
        sources: list[Any] = [self._woken]
        for worker in self._workers:
            sources += [worker.process.sentinel, worker.connection]
        wait(sources, self._seconds_to_wait())

    def _seconds_to_wait(self) -> float:
        times = [self._next_ping, *self._deadlines.values()]
        if self._not_before and not self._stops:
            times.append(self._not_before)
        return max(0.0, min(times) - time.monotonic())

    def _handle_signals(self) -> None:
        try:
            while self._woken.recv(64):
                pass
        except BlockingIOError:
            pass
        while self._signals:
            number = self._signals.popleft()
            name = signal.Signals(number).name
            if name in _ENDING:
                self._stop()
            elif self._stops:
                continue
            elif name == "SIGHUP":
                self._restart()
            else:
                self._resize(1 if name == "SIGTTIN" else -1)

    def _read(self) -> None:
        for worker in self._workers:
            worker.read()
        if not self._is_announced and not self._stops and self._serving() >= self._count:
            self._is_announced = True
            self._announce()

    def _bury(self) -> None:
        """Lets go of the workers that have ended, and sees what that means."""
        for worker in [one for one in self._workers if not one.process.is_alive()]:
            worker.read()  # its last words
            code = worker.process.exitcode
            worker.end()
            self._workers.remove(worker)
            self._deadlines.pop(worker, None)
            if self._on_burial is not None:
                self._on_burial(worker.pid)
            if worker.is_stopping:
                # One that had not begun to serve was told by a signal.
                if code != 0 and self._stops and worker.is_ready:
                    self._had_to_kill = True
            elif not worker.is_ready:
                self._note_failed_start(worker, code)
            else:
                self._failures = 0
                self._logger().log(
                    # By itself: it has served as many requests as limit_max_requests says.
                    logging.INFO if code == 0 else logging.ERROR,
                    "Worker %d has ended (%s); another one is started",
                    worker.pid,
                    _said(code),
                )

    def _note_failed_start(self, worker: Worker, code: int | None) -> None:
        logger = self._logger()
        if worker is self._newcomer:
            logger.error(
                "The new worker %d did not start (%s); the others go on and are not replaced",
                worker.pid,
                _said(code),
            )
            self._newcomer = None
            self._outdated.clear()
        elif self._is_announced and self._serving():
            delay = self._delay()
            logger.error(
                "Worker %d did not start (%s); another one is started in %.1f seconds",
                worker.pid,
                _said(code),
                delay,
            )
        elif not self._has_failed:
            self._has_failed = True
            self._stop()

    def _check_lives(self) -> None:
        now = time.monotonic()
        for worker, deadline in list(self._deadlines.items()):
            if now >= deadline:
                self._logger().error("Worker %d has not ended and is killed", worker.pid)
                self._had_to_kill = self._had_to_kill or self._stops > 0
                self._deadlines.pop(worker)
                worker.process.kill()
        if now < self._next_ping:
            return
        self._next_ping = now + _PING_SECONDS
        for worker in self._workers:
            # One that is starting is given all the time it takes; one that stops has a deadline.
            if worker.is_stopping or not worker.is_ready:
                continue
            if worker.unanswered_since is None:
                worker.unanswered_since = now
                worker.tell("ping")
            elif now - worker.unanswered_since >= self._hang_seconds:
                self._logger().error(
                    "Worker %d gave no sign of life for timeout_worker_healthcheck=%g seconds and is killed",
                    worker.pid,
                    self._hang_seconds,
                )
                worker.process.kill()

    def _roll(self) -> None:
        """Takes the next step of a rolling restart."""
        if self._stops:
            return
        if self._newcomer is not None and self._newcomer.is_ready:
            self._newcomer = None
            if self._outdated:
                self._retire(self._outdated.popleft())
                if not self._outdated:
                    self._logger().info("All workers are replaced")
        while self._outdated and self._outdated[0] not in self._workers:
            self._outdated.popleft()  # it has died meanwhile, and its successor is new anyway
        if (
            self._newcomer is None
            and self._outdated
            and time.monotonic() >= self._not_before
            and not any(one.is_stopping for one in self._workers)
        ):
            self._newcomer = self._begin()
        # One that died while its successor was starting was replaced twice.
        for worker in self._current()[self._count :]:
            self._retire(worker)

    def _fill_up(self) -> None:
        if self._stops or time.monotonic() < self._not_before:
            return
        self._not_before = 0.0
        for _ in range(self._count - len(self._current())):
            if self._begin() is None:
                return

    # What is done with workers

    def _begin(self) -> Worker | None:
        """Starts a worker; returns None where the system lacks what that takes, for now."""
        try:
            worker = self._start()
        except OSError as error:
            if not self._workers:
                raise
            delay = self._delay()
            self._logger().error("No worker can be started (%s); tried again in %.1f seconds", error, delay)
            return None
        self._workers.append(worker)
        return worker

    def _delay(self) -> float:
        """Puts the next start off, longer after each failure; returns for how many seconds."""
        delay: float = min(_FIRST_DELAY_SECONDS * 2**self._failures, _LONGEST_DELAY_SECONDS)
        self._failures += 1
        self._not_before = time.monotonic() + delay
        return delay

    def _retire(self, worker: Worker) -> None:
        worker.tell("stop")
        if self._graceful_seconds is not None:
            bound = self._graceful_seconds + CLOSING_SECONDS + _SPARE_SECONDS
            self._deadlines[worker] = time.monotonic() + bound

    def _stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            # Their own copies they close when they have accepted whoever waits.
            for listener in self._sockets:
                listener.close()
            for worker in self._workers:
                self._retire(worker)
                if not worker.is_ready and not self._has_failed:
                    worker.process.terminate()
        elif self._stops == 2:
            for worker in self._workers:
                worker.tell("stop at once")
                self._deadlines[worker] = time.monotonic() + CLOSING_SECONDS + _SPARE_SECONDS
        else:
            self._had_to_kill = True
            for worker in self._workers:
                worker.process.kill()

    def _restart(self) -> None:
        self._logger().info("Replacing %d workers, one after the other", len(self._current()))
        if self._newcomer is not None and not self._newcomer.is_ready:
            # Asked once more while one still starts: it may be what has to be replaced.
            self._newcomer.is_stopping = True
            self._newcomer.process.kill()
        self._newcomer = None
        self._outdated = deque(self._current())

    def _resize(self, by: int) -> None:
        self._count = max(1, self._count + by)
        self._logger().info("The number of workers is now %d", self._count)
        surplus = self._current()[self._count :]
        for worker in surplus:
            if worker in self._outdated:
                self._outdated.remove(worker)
            self._retire(worker)

    def _current(self) -> list[Worker]:
        """Returns the workers that count: none that stops, nor the one that is to take a place."""
        return [one for one in self._workers if not one.is_stopping and one is not self._newcomer]

    def _serving(self) -> int:
        return sum(worker.is_ready and not worker.is_stopping for worker in self._workers)

    # Signals

    @contextmanager
    def _signals_taken(self) -> Generator[None]:
        """Takes the signals while the context lasts, on the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in (*_ENDING, *_OTHERS) if hasattr(signal, name)]
        before = {number: signal.signal(number, self._note_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        try:
            os.write(self._waking.fileno(), b"\0")
        except OSError:  # full: it is awake already
            return


def _said(code: int | None) -> str:
    """Returns how a process has ended, for people."""
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"status {code}"
