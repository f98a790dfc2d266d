"""Log lines: how a record looks, where it goes, and how uvicorn's own lines join them."""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TextIO, cast

from aeros.errors import one_line
from aeros.settings import LogFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

TEXT_FORMAT = "[%(asctime)s] %(levelname)s: %(message)s"
LOGGER_NAME = "aeros"
UVICORN_LOGGER_NAME = "uvicorn.error"
ROOM_LOGGER_NAMES: Final = ("aeros.cache", "aeros.compression", "aeros.injection")

# Fields of a JSON line that a record's own fields can not replace.
_STANDARD_FIELDS = ("time", "level", "logger", "message", "exception", "stack")

# The lowest level of each colour (SGR codes), from the highest level down.
_LEVEL_COLORS = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "32"), (0, "36"))

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


def wants_color(stream: TextIO, color: bool | None, environ: Mapping[str, str]) -> bool:
    """Returns whether lines on ``stream`` are to be coloured.

    Args:
        stream: Where the lines go.
        color: True or False decides; None leaves it to the stream and the environment.
        environ: ``NO_COLOR``, present and not empty, says no (no-color.org); so does ``TERM=dumb``.
    """
    if color is not None:
        return color
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # a stand-in for a stream, or a closed one
        return False


class TextFormatter(logging.Formatter):
    """Renders a record as one line, followed by its indented traceback.

    Characters that would break the line or steer a terminal are escaped in the message, so what a
    client sends can not pose as a line of its own. The lines of a traceback are indented for the
    same reason: no text inside of an exception can start a line where records start.

    Args:
        traceback: False puts `` (ValueError: message)`` at the end of the line instead.
    """

    def __init__(self, traceback: bool = True) -> None:
        super().__init__(TEXT_FORMAT)
        self.traceback = traceback

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as text without colour and without a final line break."""
        return self._render(record, record.levelname)

    def format_colored(self, record: logging.LogRecord) -> str:
        """Returns the record as text whose level name is coloured, without a final line break."""
        code = next(code for lowest, code in _LEVEL_COLORS if record.levelno >= lowest)
        return self._render(record, f"\x1b[{code}m{record.levelname}\x1b[0m")

    def _render(self, record: logging.LogRecord, levelname: str) -> str:
        # Not through Formatter.format: it leaves its texts on the record, for every other handler.
        line = TEXT_FORMAT % {
            "asctime": self.formatTime(record),
            "levelname": levelname,
            "message": one_line(record.getMessage()),
        }
        return line + (self._details(record) if self.traceback else _summary(record))

    def _details(self, record: logging.LogRecord) -> str:
        blocks: list[str] = []
        if record.exc_info and _exception_of(record) is not None:
            blocks.append(self.formatException(record.exc_info))
        if record.stack_info:
            blocks.append(self.formatStack(record.stack_info))
        return "".join(f"\n  {one_line(line)}" for block in blocks for line in block.split("\n"))


class JsonFormatter(logging.Formatter):
    r"""Renders a record as one JSON object on exactly one line, in ASCII.

    The object holds ``time`` (ISO 8601 in UTC, to the millisecond), ``level``, ``logger``,
    ``message``, where there is one ``exception`` (``type``, ``message``, ``traceback``) and
    ``stack``, and then what the record has in its attribute ``fields``. Those can not replace the
    former. A value that JSON can not express becomes its ``str``.

    Args:
        traceback: False leaves ``traceback`` and ``stack`` out.
    """

    def __init__(self, traceback: bool = True) -> None:
        super().__init__()
        self.traceback = traceback
        self._encoder = json.JSONEncoder(default=_text, allow_nan=False)

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as a JSON object without a final line break."""
        entry = self._standard_fields(record) | _own_fields(record)
        try:
            return self._encoder.encode(entry)
        except (TypeError, ValueError):  # NaN, a circle, a key that is no string: somewhere below
            return self._encoder.encode({name: self._encodable(value) for name, value in entry.items()})

    def _standard_fields(self, record: logging.LogRecord) -> dict[str, object]:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        error = _exception_of(record)
        if error is not None:
            entry["exception"] = self._exception(record, error)
        if self.traceback and record.stack_info:
            entry["stack"] = record.stack_info
        return entry

    def _exception(self, record: logging.LogRecord, error: BaseException) -> dict[str, object]:
        described: dict[str, object] = {"type": type(error).__name__, "message": _text(error)}
        if self.traceback and record.exc_info:
            described["traceback"] = self.formatException(record.exc_info)
        return described

    def _encodable(self, value: object) -> object:
        try:
            self._encoder.encode(value)
        except (TypeError, ValueError):
            return _text(value)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleStyle:
    """How lines look on the console.

    Attributes:
        log_format: ``"text"`` for people, ``"json"`` for programs.
        color: Whether level names are coloured; None: where the stream is a terminal.
        traceback: Whether exceptions bring their traceback.
    """

    log_format: LogFormat = "text"
    color: bool | None = None
    traceback: bool = True

    def build_formatter(self) -> TextFormatter | JsonFormatter:
        """Returns a formatter of this style."""
        return JsonFormatter(self.traceback) if self.log_format == "json" else TextFormatter(self.traceback)


class ConsoleHandler(logging.Handler):
    """Writes records to a standard stream and never troubles the caller when that is gone.

    The stream is looked up for each record, so a redirection is followed.

    Args:
        stream_name: ``"stderr"`` or ``"stdout"``.
        log_format: See `ConsoleStyle`.
        color: See `ConsoleStyle`.
        traceback: See `ConsoleStyle`.
        defer_to: While this logger has handlers, its own or inherited, nothing is written: the
            records reach those by propagation, and no line shall appear twice.

    Attributes:
        dropped: The number of records that could not be written: closed stream, broken pipe, full disk.
    """

    def __init__(
        self,
        stream_name: Literal["stderr", "stdout"],
        *,
        log_format: LogFormat = "text",
        color: bool | None = None,
        traceback: bool = True,
        defer_to: logging.Logger | None = None,
    ) -> None:
        super().__init__()
        self.stream_name = stream_name
        self.defer_to = defer_to
        self.dropped: int = 0
        self.style = ConsoleStyle(log_format=log_format, color=color, traceback=traceback)

    @property
    def style(self) -> ConsoleStyle:
        """How the lines look. Assigning it takes effect with the next record."""
        return self._style

    @style.setter
    def style(self, style: ConsoleStyle) -> None:
        self._style = style
        self.setFormatter(style.build_formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, or counts it as dropped."""
        if self.defer_to is not None and self.defer_to.hasHandlers():
            return
        stream = self._stream()
        try:
            line = self._render(record, stream)
        except RecursionError:  # as in logging.StreamHandler: reporting it would recurse again
            raise
        except Exception:  # noqa: BLE001 - formatting runs foreign code (__str__ of the arguments)
            self.handleError(record)
        else:
            self._write(stream, line + "\n")

    def _stream(self) -> TextIO | None:
        # Python sets these to None in a process without a console.
        return sys.stderr if self.stream_name == "stderr" else sys.stdout

    def _render(self, record: logging.LogRecord, stream: TextIO | None) -> str:
        formatter = self.formatter
        if stream is None or not isinstance(formatter, TextFormatter):
            return self.format(record)
        if wants_color(stream, self.style.color, os.environ):
            return formatter.format_colored(record)
        return formatter.format(record)

    def _write(self, stream: TextIO | None, line: str) -> None:
        if stream is None:
            self.dropped += 1
            return
        try:
            _write_encodable(stream, line)
            stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.dropped += 1


class PrivateLogger(logging.Logger):
    """A logger that belongs to its owner alone: it is not registered with the manager of logging.

    The manager can not tell an unregistered logger that levels have changed (``setLevel``,
    ``logging.disable``), so this one computes what others keep in a cache.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Returns whether a record of ``level`` would be handled now."""
        return not self.disabled and level > self.manager.disable and level >= self.getEffectiveLevel()


def build_logger(*, level: int, style: ConsoleStyle) -> logging.Logger:
    """Returns a new logger that writes to standard error unless logging is configured otherwise.

    Two calls share nothing. The parent is the registered logger ``"aeros"``: handlers that the
    user puts there or on the root logger get every record, and then the console gets none.

    Args:
        level: The lowest level that is logged, as in ``logging``.
        style: How the lines look on the console.
    """
    parent = logging.getLogger(LOGGER_NAME)
    logger = PrivateLogger(LOGGER_NAME, level)
    logger.parent = parent
    handler = ConsoleHandler("stderr", defer_to=parent)
    handler.style = style
    logger.addHandler(handler)
    return logger


@contextmanager
def run_style(logger: logging.Logger, *, level: int | None, style: ConsoleStyle) -> Generator[None]:
    """Gives the logger another level and style while the context lasts.

    What is no logger, e.g. the mock that a test put in its place, is left alone.

    Args:
        logger: The logger; of its handlers only each `ConsoleHandler` changes.
        level: The lowest level that is logged; None keeps the one it has.
        style: How the lines look on the console.
    """
    handlers = _console_handlers(logger)
    styles = [handler.style for handler in handlers]
    level_before = None if level is None else _level_of(logger)
    if level is not None and level_before is not None:
        logger.setLevel(level)
    for handler in handlers:
        handler.style = style
    try:
        yield
    finally:
        if level_before is not None:
            logger.setLevel(level_before)
        for handler, before in zip(handlers, styles, strict=True):
            handler.style = before


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


def _console_handlers(logger: object) -> list[ConsoleHandler]:
    handlers: object = getattr(logger, "handlers", None)
    if not isinstance(handlers, list):
        return []
    return [handler for handler in cast(list[object], handlers) if isinstance(handler, ConsoleHandler)]


def _level_of(logger: object) -> int | None:
    level: object = getattr(logger, "level", None)
    return level if isinstance(level, int) else None


def _write_encodable(stream: TextIO, line: str) -> None:
    try:
        stream.write(line)
    except UnicodeEncodeError:  # standard output is strict, and an ASCII locale is common in containers
        stream.write(line.encode(stream.encoding, "backslashreplace").decode(stream.encoding))


def _exception_of(record: logging.LogRecord) -> BaseException | None:
    # With exc_info=True outside of an except block this is (None, None, None).
    return record.exc_info[1] if record.exc_info else None


def _summary(record: logging.LogRecord) -> str:
    error = _exception_of(record)
    if error is None:
        return ""
    text = one_line(_text(error))
    return f" ({type(error).__name__}: {text})" if text else f" ({type(error).__name__})"


def _own_fields(record: logging.LogRecord) -> dict[str, object]:
    fields: object = getattr(record, "fields", None)
    if not isinstance(fields, Mapping):
        return {}
    named = ((str(name), value) for name, value in cast(Mapping[object, object], fields).items())
    return {name: value for name, value in named if name not in _STANDARD_FIELDS}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - foreign code; a log line must not fail for it
        return f"<{type(value).__name__} without text>"
