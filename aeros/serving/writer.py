"""The writer: a bounded queue, and the one thread that writes what waits in it to a target.

Whoever logs only queues. A full disk or a pipe that nobody reads holds up this thread and nothing
else; what does not fit into the queue meanwhile is dropped and counted.

One for each target rather than one for all: a standard output that nobody reads must not keep the
lines of a file, or an error, from being written. ``logging.handlers.QueueListener`` is not used:
it wakes its thread for each record, knows no bound in bytes, and stops by waiting without end.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from aeros.serving.targets import Target, is_gone

Entry = TypeVar("Entry")

MOST_QUEUED_BYTES: Final = 8 * 2**20
_STOP_SECONDS: Final = 3.0
_FLUSH_POLL_SECONDS: Final = 0.01

Report = Callable[[int, str], None]
"""Is told what happens to a writer: a level of ``logging``, and a sentence."""


class Writer(Generic[Entry]):
    """Writes entries to a target, in a thread of its own.

    Nothing is started before `start`. Entries are gathered for a moment, so that many lines are one
    write; what is urgent is written at once, with all that came before it. What a target does not
    take for lack of space waits in the queue and is tried again.

    Args:
        name: What is written to, for people.
        target: Where the lines go.
        render: Makes a line, with its line break, of each entry; called in the thread.
        report: Told once when writing begins to fail, when it goes on, and when lines were dropped.
        most_queued_bytes: How much may wait, as counted by whoever puts it there.
        gather_seconds: How long a line waits for others.
        retry_seconds: How long the target is left alone after it has failed.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        render: Callable[[Sequence[Entry]], Sequence[str]],
        report: Report,
        *,
        most_queued_bytes: int = MOST_QUEUED_BYTES,
        gather_seconds: float = 0.05,
        retry_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self._target = target
        self._render = render
        self._report = report
        self._most_queued_bytes = most_queued_bytes
        self._gather_seconds = gather_seconds
        self._retry_seconds = retry_seconds
        self._dropped = 0
        self._unreported = 0
        self._problem: str | None = None
        self._thread: threading.Thread | None = None
        self._reset()

    def _reset(self) -> None:
        # A lock that may be taken again and a queue that may be put into again: a signal's handler
        # or a finalizer may log, whatever it has interrupted.
        self._lock = threading.RLock()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._end: SimpleQueue[None] = SimpleQueue()
        self._entries: list[Entry] = []
        self._sizes: list[int] = []
        self._lines: list[str] = []
        self._line_sizes: list[int] = []
        self._queued_bytes = 0
        self._is_awake = False
        self._is_ending = False
        self._is_given_up = False

    @property
    def dropped(self) -> int:
        """How many entries were not written: the queue was full, or the target took none to the end."""
        return self._dropped

    @property
    def queued_bytes(self) -> int:
        """How much waits, or is being written."""
        return self._queued_bytes

    @property
    def is_running(self) -> bool:
        """Whether it has begun to write, and was not stopped."""
        return self._thread is not None

    def start(self) -> None:
        """Begins to write."""
        _watched().add(self)
        self._thread = threading.Thread(target=self._run, name=f"aeros-log {self.name}", daemon=True)
        self._thread.start()

    def put(self, entry: Entry, size: int, *, is_urgent: bool = False) -> bool:
        """Queues an entry; never waits, from any thread.

        Args:
            entry: What is rendered later.
            size: How many bytes it takes, roughly.
            is_urgent: Whether it is written at once.

        Returns:
            Whether the writer has taken charge of it: False before its start and after its end, and
            in a process that was forked from the writer's.
        """
        if self._thread is None:
            if self._is_given_up:
                self._drop(1)
            return self._is_given_up
        with self._lock:
            if self._queued_bytes + size > self._most_queued_bytes:
                self._drop(1)
                return True
            self._queued_bytes += size
            self._entries.append(entry)
            self._sizes.append(size)
        if is_urgent or not self._is_awake:
            self._is_awake = True
            self._bell.put(is_urgent)
        return True

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Writes what waits, ends the thread and closes the target.

        Args:
            seconds: How long it may take; what is not written by then is dropped.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._is_ending = True
        self._end.put(None)
        self._bell.put(True)
        thread.join(seconds)
        # If it still hangs in a write, it ends with the process, and so does what it holds.
        self._is_given_up = thread.is_alive()
        self._drop(len(self._entries) + len(self._lines))
        if not self._is_given_up:
            self._target.close()
        if self._unreported:
            self._tell(logging.WARNING, f"{self.name}: {self._lost()} when serving ended")

    def forked(self) -> None:
        """Forgets, in a forked process, what is its parent's: the thread, and what waits for it."""
        self._thread = None
        self._reset()

    # What the thread does

    def _run(self) -> None:
        while True:
            self._wait()
            self._take()
            self._write()
            if self._is_ending and (self._lines or not self._entries):
                return

    def _wait(self) -> None:
        """Returns when something waits to be written, and has waited for others."""
        if not self._is_ending and not self._bell.get():
            with suppress(Empty):
                self._bell.get(timeout=self._gather_seconds)
        with suppress(Empty):
            while True:
                self._bell.get_nowait()
        # Who puts from here on rings; who has put before is taken next.
        self._is_awake = False

    def _take(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, []
            self._line_sizes, self._sizes = self._sizes, []
        self._lines = list(self._render(entries))

    def _write(self) -> None:
        """Writes what was taken, and stays until it is written or given up."""
        while self._lines and not self._is_given_up:
            try:
                count = self._target.write(self._lines)
            except Exception as error:  # noqa: BLE001 - a stand-in for a stream raises what it likes
                if not self._may_retry(error):
                    return
            else:
                self._settle(count)
                if count and self._problem is not None:
                    self._recovered()
        if self._unreported and not self._lines and self._problem is None:
            self._tell(logging.WARNING, f"{self.name}: {self._lost()}, they came too fast to be written")

    def _settle(self, count: int) -> None:
        """Makes room for as many lines as were written or dropped."""
        with self._lock:
            self._queued_bytes -= sum(self._line_sizes[:count])
        del self._lines[:count]
        del self._line_sizes[:count]

    def _may_retry(self, error: Exception) -> bool:
        """Waits for the target to take lines again; returns whether there is any hope."""
        if is_gone(error):
            self._drop(len(self._lines))
            self._settle(len(self._lines))
            if isinstance(error, ValueError):  # closed, or never there: that is on purpose
                self._unreported = 0
            else:
                self._failed(error, "lines are dropped")
            return False
        self._failed(error, "lines wait until it can, and are dropped when too many do")
        if self._is_ending:
            return False
        with suppress(Empty):
            self._end.get(timeout=self._retry_seconds)
        return True

    def _failed(self, error: Exception, consequence: str) -> None:
        if self._problem is None:
            self._problem = getattr(error, "strerror", None) or str(error)
            self._tell(logging.ERROR, f"{self.name} can not be written ({self._problem}); {consequence}")

    def _recovered(self) -> None:
        self._problem = None
        if self._unreported:
            self._tell(logging.WARNING, f"{self.name} is written again; {self._lost()} meanwhile")
        else:
            self._tell(logging.INFO, f"{self.name} is written again; no line was lost")

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
            self._unreported += count

    def _tell(self, level: int, text: str) -> None:
        with suppress(Exception):  # whoever is told is foreign code; this thread has to go on
            self._report(level, text)

    def _lost(self) -> str:
        count, self._unreported = self._unreported, 0
        return f"{count} lines were dropped" if count != 1 else "1 line was dropped"


def flush_writers(seconds: float) -> bool:
    """Waits until all writers of this process have written what waits now; returns whether they have.

    Args:
        seconds: How long it may take: a pipe may have no reader.
    """
    deadline = time.monotonic() + seconds
    waiting = [writer for writer in list(_watched()) if writer.is_running]
    while any(writer.queued_bytes for writer in waiting):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_FLUSH_POLL_SECONDS)
    return True


@cache
def _watched() -> WeakSet[Writer[Any]]:
    """Returns the writers of this process. A fork is an event of the process, not of an application."""
    writers: WeakSet[Writer[Any]] = WeakSet()

    def after_fork() -> None:
        for writer in list(writers):
            writer.forked()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    return writers
