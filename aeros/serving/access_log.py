"""The access log: one line for each response."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING

from aeros.errors import LogFileError, one_line
from aeros.serving.log import ConsoleHandler, ConsoleStyle, PrivateLogger

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aeros.settings import LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One request and what was answered.

    Attributes:
        client: The address of the client, e.g. ``"127.0.0.1"``.
        method: The request's method.
        path: The raw path with the query, decoded as latin-1.
        http_version: E.g. ``"1.1"``.
        status: The response's status code.
        body_bytes: The length of the body as sent.
        seconds: From the request to the end of the response.
        cache: What the cache did, in a word such as ``"hit"``; None for a route that is not cached.
    """

    client: str
    method: str
    path: str
    http_version: str
    status: int
    body_bytes: int
    seconds: float
    cache: str | None


def render_text(access: Access) -> str:
    r"""Returns the access as one line of seven columns, whatever the client sent.

    ``127.0.0.1 "GET /x?y=1 HTTP/1.1" 200 1234 0.8ms hit``; ``-`` stands for what is unknown or
    empty. Within the quotes ``"`` and ``\`` are escaped by ``\``, and control characters as in a
    Python literal, so the line splits into its columns again.
    """
    request = _escaped(f"{access.method} {access.path} HTTP/{access.http_version}")
    duration = f"{access.seconds * 1000:.1f}ms"
    return (
        f'{_word(access.client)} "{request}" {access.status} {access.body_bytes} {duration}'
        f" {_word(access.cache or '')}"
    )


def render_json_fields(access: Access) -> dict[str, object]:
    """Returns the access as the fields of a JSON line, named as the attributes of `Access`.

    ``seconds`` is rounded to microseconds.
    """
    return {
        "client": access.client,
        "method": access.method,
        "path": access.path,
        "http_version": access.http_version,
        "status": access.status,
        "body_bytes": access.body_bytes,
        "seconds": round(access.seconds, 6),
        "cache": access.cache,
    }


class AccessLog:
    """Writes accesses to standard output, to a file, to both or to none.

    Nothing is opened before `open`, and nothing is written before it or after `close`.

    Args:
        to_std: Whether lines go to standard output.
        file: A file to append to, in UTF-8 and never coloured; opened anew when it was moved or
            removed, as logrotate does. None for no file.
        log_format: ``"text"`` or ``"json"``, for both.
        color: Whether lines on standard output are coloured; None: where that is a terminal.
    """

    def __init__(self, to_std: bool, file: str | None, log_format: LogFormat, color: bool | None) -> None:
        self._to_std = to_std
        self._file = file
        self._style = ConsoleStyle(log_format=log_format, color=color)
        self._handlers: list[ConsoleHandler | _AccessFileHandler] = []
        self._dropped_before = 0
        self._logger = PrivateLogger("aeros.access", logging.INFO)
        self._logger.propagate = False

    @property
    def enabled(self) -> bool:
        """Whether there is any target; without one a caller can spare itself the measuring."""
        return self._to_std or self._file is not None

    @property
    def dropped(self) -> int:
        """The number of lines whose writing failed, e.g. on a full disk; counted for each target."""
        return self._dropped_before + sum(handler.dropped for handler in self._handlers)

    def open(self) -> None:
        """Opens the targets; does nothing where they are open.

        Raises:
            LogFileError: The file can not be opened for appending.
        """
        if self._handlers:
            return
        if self._file is not None:
            self._add(_open_file(self._file, self._style))
        if self._to_std:
            style = self._style
            self._add(ConsoleHandler("stdout", log_format=style.log_format, color=style.color))

    def write(self, access: Access) -> None:
        """Writes one line to each open target; never raises for a target that fails."""
        if not self._handlers:
            return
        is_json = self._style.log_format == "json"
        self._logger.info(
            render_text(access), extra={"fields": render_json_fields(access)} if is_json else None
        )

    def close(self) -> None:
        """Closes the targets; `open` can open them again."""
        self._dropped_before = self.dropped
        handlers, self._handlers = self._handlers, []
        for handler in handlers:
            self._logger.removeHandler(handler)
            with suppress(OSError):  # what is left in the buffer does not fit on a full disk
                handler.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, handler: ConsoleHandler | _AccessFileHandler) -> None:
        self._handlers.append(handler)
        self._logger.addHandler(handler)


class _AccessFileHandler(WatchedFileHandler):
    """Counts the lines that the disk did not take instead of reporting each of them."""

    def __init__(self, filename: str) -> None:
        self.dropped = 0
        super().__init__(filename, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, or counts it as dropped."""
        try:
            super().emit(record)
        except OSError:  # opening the file again failed, which logging does not catch
            self.dropped += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Counts the record whose writing failed."""
        self.dropped += 1


def _open_file(file: str, style: ConsoleStyle) -> _AccessFileHandler:
    try:
        handler = _AccessFileHandler(file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise LogFileError("access_log_file", file, reason) from error
    handler.setFormatter(style.build_formatter())
    return handler


def _escaped(text: str) -> str:
    return one_line(text.replace("\\", "\\\\").replace('"', '\\"'))


def _word(text: str) -> str:
    # A client's address can come from a header field that the client wrote.
    return _escaped(text).replace(" ", "\\x20") or "-"
