"""Development: one worker, started again when a source file changes."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from aeros.serving.config import Config
from aeros.serving.watchdog import CLOSING_SECONDS
from aeros.serving.worker import Worker

if TYPE_CHECKING:
    from uvicorn.supervisors.basereload import BaseReload as ChangeReload
else:
    from uvicorn.supervisors import ChangeReload

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_SPARE_SECONDS: Final = 2.0


class Reloader(ChangeReload):
    """uvicorn's watcher of files, with a worker of ours.

    A worker that does not start, because of a slip in a file that was just saved, is started again
    when a file has changed.

    Args:
        config: The configuration: what is watched.
        start: Starts a worker.
        sockets: The sockets that it listens on.
    """

    def __init__(self, config: Config, start: Callable[[], Worker], sockets: list[socket.socket]) -> None:
        super().__init__(config, target=_no_target, sockets=sockets)
        self._start = start
        self._worker: Worker | None = None

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's shape
        """Ends it; a second signal ends what is still open at once."""
        if self.should_exit.is_set() and self._worker is not None:
            self._worker.tell("stop at once")
        self.should_exit.set()

    def startup(self) -> None:
        """Starts the worker."""
        for name in _SIGNALS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.signal_handler)
        self._worker = self._start()

    def restart(self) -> None:
        """Ends the worker, then starts a new one."""
        self._end_worker()
        self._worker = self._start()

    def shutdown(self) -> None:
        """Ends the worker and closes the sockets."""
        self._end_worker()
        for listener in self.sockets:
            listener.close()

    def _end_worker(self) -> None:
        worker, seconds = self._worker, self.config.timeout_graceful_shutdown
        if worker is None:
            return
        worker.tell("stop")
        worker.process.join(None if seconds is None else seconds + CLOSING_SECONDS + _SPARE_SECONDS)
        worker.end()


def _no_target(_sockets: list[socket.socket] | None) -> None:
    """Stands where uvicorn's watcher would have what its own processes run."""
