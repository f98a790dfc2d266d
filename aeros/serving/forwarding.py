"""Forwarding: what others log while an application is served, sent to the application's logger."""

from __future__ import annotations

import copy
import logging
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

UVICORN_LOGGER_NAME = "uvicorn.error"
ROOM_LOGGER_NAMES: Final = ("aeros.cache", "aeros.compression", "aeros.injection")

# What uvicorn says of every run, which the banner of aeros says already.
_UVICORN_ROUTINE = (
    "Started server process",
    "Waiting for application startup.",
    "Application startup complete.",
    "Uvicorn running on",
    "Shutting down",
    "Waiting for application shutdown.",
    "Application shutdown complete.",
    "Finished server process",
)


def uvicorn_forwarded(
    get_logger: Callable[[], logging.Logger], *, level: int
) -> AbstractContextManager[None]:
    """Sends what uvicorn logs in this thread to another logger while the context lasts.

    Several threads may do so at once, each for its own server; what uvicorn logs in a thread that
    does not, goes where it went before. The lines that every run brings are demoted to DEBUG.
    Uvicorn's logger is as it was when the last context ends.

    Args:
        get_logger: Gives the logger; asked for each record, so that an override is seen at once.
        level: The lowest level of interest; INFO and above always arrive at the logger.
    """
    return _forwarded(UVICORN_LOGGER_NAME, get_logger, level)


@contextmanager
def rooms_forwarded(get_logger: Callable[[], logging.Logger], *, level: int) -> Generator[None]:
    """Does the same with what the cache, the compressor and the injector log, which know no application.

    What is logged in a thread that does not serve, is sent to the logger of the latest server.
    """
    with ExitStack() as stack:
        for name in ROOM_LOGGER_NAMES:
            stack.enter_context(_forwarded(name, get_logger, level))
        yield


@contextmanager
def _forwarded(name: str, get_logger: Callable[[], logging.Logger], level: int) -> Generator[None]:
    forwarder = _install_forwarder(logging.getLogger(name), get_logger, level)
    try:
        yield
    finally:
        _remove_forwarder(forwarder)


@dataclass(frozen=True, slots=True)
class _LoggerState:
    """What a forwarder changes on uvicorn's logger, as it was before the first one came."""

    level: int
    propagate: bool

    def restore(self, logger: logging.Logger) -> None:
        logger.setLevel(self.level)
        logger.propagate = self.propagate

    def pass_on(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Lets the record go on to the logger's parents as it would have in this state."""
        parent = logger.parent
        if parent is None or not self.propagate:
            return
        if record.levelno >= (self.level or parent.getEffectiveLevel()):
            parent.callHandlers(record)


class _Forwarder(logging.Handler):
    """Hands the records of one thread from a logger to another one."""

    def __init__(
        self,
        origin: logging.Logger,
        get_logger: Callable[[], logging.Logger],
        level: int,
        before: _LoggerState,
    ) -> None:
        super().__init__()
        self.origin = origin
        self.get_logger = get_logger
        # NOTSET would inherit uvicorn's parent's level; below DEBUG uvicorn traces every connection.
        self.wanted_level = min(level or logging.DEBUG, logging.INFO)
        self.before = before
        self.thread_id = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Forwards the record if this is the forwarder of its thread."""
        forwarders = _forwarders(self.origin)
        thread_id = record.thread or threading.get_ident()  # None with logging.logThreads = False
        responsible = [forwarder for forwarder in forwarders if forwarder.thread_id == thread_id]
        if self.origin.name in ROOM_LOGGER_NAMES:
            responsible = responsible or forwarders
        if responsible:
            if responsible[-1] is self:
                self._forward(record)
        elif forwarders[:1] == [self]:  # a foreign thread: one of the forwarders passes it on
            self.before.pass_on(self.origin, record)

    def _forward(self, record: logging.LogRecord) -> None:
        try:
            logger = self.get_logger()
            ours = _adopt(record)
            if logger.isEnabledFor(ours.levelno):
                logger.handle(ours)
        except RecursionError:  # as in logging.StreamHandler: reporting it would recurse again
            raise
        except Exception:  # noqa: BLE001 - a provider or a message that fails must not stop uvicorn
            self.handleError(record)


def _install_forwarder(
    logger: logging.Logger, get_logger: Callable[[], logging.Logger], level: int
) -> _Forwarder:
    with _logging_lock():
        present = _forwarders(logger)
        before = present[0].before if present else _LoggerState(logger.level, logger.propagate)
        forwarder = _Forwarder(logger, get_logger, level, before)
        logger.addHandler(forwarder)
        logger.propagate = False
        logger.setLevel(_lowest_level([*present, forwarder]))
    return forwarder


def _remove_forwarder(forwarder: _Forwarder) -> None:
    logger = forwarder.origin
    with _logging_lock():
        logger.removeHandler(forwarder)
        remaining = _forwarders(logger)
        if remaining:
            logger.setLevel(_lowest_level(remaining))
        else:
            forwarder.before.restore(logger)
    forwarder.close()


def _logging_lock() -> threading.RLock:
    # The state under change is logging's own, and so is the one lock that every thread can find.
    # It has no public name: typeshed does not know it either.
    return cast(threading.RLock, vars(logging)["_lock"])


def _forwarders(logger: logging.Logger) -> list[_Forwarder]:
    return [handler for handler in logger.handlers if isinstance(handler, _Forwarder)]


def _lowest_level(forwarders: list[_Forwarder]) -> int:
    return min(forwarder.wanted_level for forwarder in forwarders)


def _adopt(record: logging.LogRecord) -> logging.LogRecord:
    """Returns a copy of uvicorn's record for the log of aeros; the record itself stays as it is."""
    ours = copy.copy(record)
    ours.msg = record.getMessage().rstrip()  # some of uvicorn's messages end with a line break
    ours.args = None
    if record.levelno == logging.INFO and str(record.msg).startswith(_UVICORN_ROUTINE):
        ours.levelno = logging.DEBUG
        ours.levelname = logging.getLevelName(logging.DEBUG)
    return ours
