"""A bound on the end of a process: what asks a process to end may rely on its ending."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from aeros.serving.writer import flush_writers

# Quart itself waits 5 seconds for background tasks, and resources are closed after that.
CLOSING_SECONDS: Final = 10.0

_FLUSH_SECONDS: Final = 1.0


class Watchdog:
    """Ends the process if it has not ended by itself in time.

    A view that blocks the event loop, a thread that never returns, a resource that can not be
    closed: none of them can be cancelled from inside of the loop. The process ends with status 1 then.

    Args:
        say: Gets one line before the process is ended.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        # A signal's handler may come while another one is here: SimpleQueue is made for that.
        self._orders: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Watches while the context lasts."""
        thread = threading.Thread(target=self._watch, name="aeros-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._orders.put(None)
            thread.join()

    def expect_end(self, seconds: float) -> None:
        """Ends the process unless the context ends within ``seconds``. Signal handlers may call it."""
        self._orders.put(seconds)

    def _watch(self) -> None:
        seconds = self._orders.get()
        while seconds is not None:
            try:
                seconds = self._orders.get(timeout=seconds)
            except queue.Empty:
                self._end_process(seconds)

    def _end_process(self, seconds: float | None) -> None:
        # Ours, which write the log, are there to the end; only the others are in the way.
        threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith("aeros-")]
        line = (
            f"The process has not ended {seconds or 0:g} seconds after it was asked to and is cut off;"
            f" still there: {', '.join(threads)}"
        )
        # Whoever blocks the process may hold the lock of a handler, too.
        last_words = threading.Thread(target=self._flush, args=(line,), daemon=True)
        last_words.start()
        last_words.join(2 * _FLUSH_SECONDS)
        os._exit(1)

    def _flush(self, line: str) -> None:
        self._say(line)
        flush_writers(_FLUSH_SECONDS)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
