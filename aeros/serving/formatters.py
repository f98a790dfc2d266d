"""How a log record looks: a line of text for people, a JSON object for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from aeros.errors import one_line

TEXT_FORMAT = "[%(asctime)s] %(levelname)s: %(message)s"

# Fields of a JSON line that a record's own fields can not replace.
_STANDARD_FIELDS = ("time", "level", "logger", "message", "exception", "stack")

# The lowest level of each colour (SGR codes), from the highest level down.
_LEVEL_COLORS = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "32"), (0, "36"))


class TextFormatter(logging.Formatter):
    """Renders a record as one line, followed by its indented traceback.

    Characters that would break the line or steer a terminal are escaped in the message, so what a
    client sends can not pose as a line of its own. The lines of a traceback are indented for the
    same reason: no text inside of an exception can start a line where records start.

    In a request that has an id, it stands in brackets at the end of the line.

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
        request_id = _request_id_of(record)
        if request_id is not None:
            line += f" [{one_line(request_id)}]"
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
    former. A value that JSON can not express becomes its ``str``. In a request that has an id, there is
    ``request_id``.

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
        request_id = _request_id_of(record)
        if request_id is not None:
            entry["request_id"] = request_id
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


def _request_id_of(record: logging.LogRecord) -> str | None:
    request_id: object = getattr(record, "request_id", None)
    return request_id if isinstance(request_id, str) else None


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - foreign code; a log line must not fail for it
        return f"<{type(value).__name__} without text>"
