"""The application's logger: what it is called, where its lines go, and how they look in one run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO, cast

from aeros.request_id import current_request_id
from aeros.serving.formatters import JsonFormatter, TextFormatter
from aeros.serving.targets import FileTarget, StreamName, StreamTarget, Target
from aeros.serving.writer import Report, Writer
from aeros.settings import LogFormat

if TYPE_CHECKING:
    from collections.abc import Generator

LOGGER_NAME = "aeros"

# What a line takes beside its text.
_LINE_BYTES: Final = 100


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


class WritingHandler(logging.Handler):
    """Renders records and has the lines written: by a writer while there is one, else at once.

    It never troubles the caller when the target is gone or full.

    Args:
        target: Where the lines go.

    Attributes:
        writer: Writes the lines while an application is served.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self.writer: Writer[str] | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """The number of records that could not be written: closed stream, broken pipe, full disk or queue."""
        return self._dropped + (0 if self.writer is None else self.writer.dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Has one record written, or counts it as dropped."""
        try:
            line = self.render(record) + "\n"
        except RecursionError:  # as in logging.StreamHandler: reporting it would recurse again
            raise
        except Exception:  # noqa: BLE001 - formatting runs foreign code (__str__ of the arguments)
            self.handleError(record)
            return
        # What is an error may be the last that this process says.
        is_urgent = record.levelno >= logging.ERROR
        writer = self.writer
        if writer is None or not writer.put(line, len(line) + _LINE_BYTES, is_urgent=is_urgent):
            self._write(line)

    def render(self, record: logging.LogRecord) -> str:
        """Returns the record as a line without its line break."""
        return self.format(record)

    @contextmanager
    def writing(self, name: str, report: Report) -> Generator[None]:
        """Leaves the writing to a thread while the context lasts.

        Args:
            name: What is written to, for people.
            report: Is told what happens to the writer.
        """
        before = self.writer
        writer = Writer[str](name, self.target, list, report)
        writer.start()
        self.writer = writer
        try:
            yield
        finally:
            writer.stop()
            self._dropped += writer.dropped
            self.writer = before

    def _write(self, line: str) -> None:
        try:
            while not self.target.write([line]):
                pass
        except (OSError, ValueError):
            self._dropped += 1


class FileHandler(WritingHandler):
    """Appends records to a file, never coloured, and follows when it is rotated.

    Args:
        path: The file; it is opened here.
        setting: The setting that names it, for the error.
        style: How the lines look.

    Raises:
        LogFileError: The file can not be opened for appending.
    """

    def __init__(self, path: str, *, setting: str, style: ConsoleStyle) -> None:
        super().__init__(FileTarget(path, setting=setting))
        self.setFormatter(style.build_formatter())


class ConsoleHandler(WritingHandler):
    """Writes records to a standard stream, which is looked up each time, so a redirection is followed.

    Args:
        stream_name: ``"stderr"`` or ``"stdout"``.
        log_format: See `ConsoleStyle`.
        color: See `ConsoleStyle`.
        traceback: See `ConsoleStyle`.
        defer_to: While this logger has handlers, its own or inherited, nothing is written: the
            records reach those by propagation, and no line shall appear twice.
    """

    def __init__(
        self,
        stream_name: StreamName,
        *,
        log_format: LogFormat = "text",
        color: bool | None = None,
        traceback: bool = True,
        defer_to: logging.Logger | None = None,
    ) -> None:
        self._stream = StreamTarget(stream_name)
        super().__init__(self._stream)
        self.defer_to = defer_to
        self.style = ConsoleStyle(log_format=log_format, color=color, traceback=traceback)

    @property
    def title(self) -> str:
        """What people call the stream, e.g. ``"standard error"``."""
        return self._stream.title

    @property
    def style(self) -> ConsoleStyle:
        """How the lines look. Assigning it takes effect with the next record."""
        return self._style

    @style.setter
    def style(self, style: ConsoleStyle) -> None:
        self._style = style
        self.setFormatter(style.build_formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Has one record written, unless others do it."""
        if self.defer_to is None or not self.defer_to.hasHandlers():
            super().emit(record)

    def render(self, record: logging.LogRecord) -> str:
        """Returns the record as a line, coloured where the stream is to be."""
        stream, formatter = self._stream.stream, self.formatter
        if (
            stream is not None
            and isinstance(formatter, TextFormatter)
            and wants_color(stream, self.style.color, os.environ)
        ):
            return formatter.format_colored(record)
        return self.format(record)


class RequestIdFilter(logging.Filter):
    """Lets every record pass, and notes on it the id of the request in which it was logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Sets ``record.request_id``, unless whoever logged it has."""
        if not hasattr(record, "request_id"):
            record.request_id = current_request_id()
        return True


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
    logger.addFilter(RequestIdFilter())
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


@contextmanager
def ids_noted(logger: logging.Logger) -> Generator[None]:
    """Has the ids of requests noted on the logger's records while the context lasts.

    Args:
        logger: The logger; what is no logger, e.g. a mock, is left alone, and one that does it already.
    """
    if not isinstance(cast(object, logger), logging.Logger) or any(
        isinstance(known, RequestIdFilter) for known in logger.filters
    ):
        yield
        return
    noting = RequestIdFilter()
    logger.addFilter(noting)
    try:
        yield
    finally:
        logger.removeFilter(noting)


@contextmanager
def written_aside(logger: logging.Logger, *, report: Report) -> Generator[None]:
    """Leaves the writing of the logger's lines to threads while the context lasts.

    Args:
        logger: The logger; of its handlers only each `ConsoleHandler` is changed.
        report: Is told what happens to the writers.
    """
    with ExitStack() as stack:
        for handler in _console_handlers(logger):
            stack.enter_context(handler.writing(handler.title, report))
        yield


@contextmanager
def error_log(
    logger: logging.Logger, path: str | None, *, style: ConsoleStyle, report: Report
) -> Generator[None]:
    """Appends the logger's records to a file while the context lasts.

    Args:
        logger: The logger; what is no logger, e.g. a mock, is left alone.
        path: The file; None for none.
        style: How the lines look.
        report: Is told what happens to the writer.

    Raises:
        LogFileError: The file can not be opened for appending.
    """
    if path is None or not isinstance(cast(object, logger), logging.Logger):
        yield
        return
    handler = FileHandler(path, setting="error_log_file", style=style)
    with handler.writing(f"error_log_file {path!r}", report):
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def _console_handlers(logger: object) -> list[ConsoleHandler]:
    handlers: object = getattr(logger, "handlers", None)
    if not isinstance(handlers, list):
        return []
    return [handler for handler in cast(list[object], handlers) if isinstance(handler, ConsoleHandler)]


def _level_of(logger: object) -> int | None:
    level: object = getattr(logger, "level", None)
    return level if isinstance(level, int) else None
