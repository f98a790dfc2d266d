"""The application's logger: what it is called, where its lines go, and how they look in one run."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO, cast

from aeros.serving.formatters import JsonFormatter, TextFormatter
from aeros.settings import LogFormat

if TYPE_CHECKING:
    from collections.abc import Generator

LOGGER_NAME = "aeros"


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
