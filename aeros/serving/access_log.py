"""The access log: one line for each response."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aeros.errors import one_line
from aeros.serving.log import wants_color
from aeros.serving.targets import FileTarget, StreamTarget
from aeros.serving.writer import Report, Writer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aeros.settings import LogFormat

# What an access takes while it waits, beside its path.
_ACCESS_BYTES = 400


class Access(NamedTuple):
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
        ended: When the response ended, in seconds since 1970.
        request_id: The request's id; None where requests have none.
    """

    client: str
    method: str
    path: str
    http_version: str
    status: int
    body_bytes: int
    seconds: float
    cache: str | None
    ended: float
    request_id: str | None = None


def render_text(access: Access) -> str:
    r"""Returns the access as one line of columns, whatever the client sent.

    ``127.0.0.1 "GET /x?y=1 HTTP/1.1" 200 1234 0.8ms hit``; ``-`` stands for what is unknown or
    empty. The request's id is one more column, where requests have one. Within the quotes ``"`` and
    ``\`` are escaped by ``\``, and control characters as in a Python literal, so the line splits into
    its columns again.
    """
    client, method, path, version, status, body_bytes, seconds, cache, _, request_id = access
    request = _escaped(f"{method} {path} HTTP/{version}")
    return (
        f'{_word(client)} "{request}" {status} {body_bytes} {seconds * 1000:.1f}ms'
        f" {_word(cache) if cache else '-'}"
        f"{'' if request_id is None else ' ' + _word(request_id)}"
    )


def render_json_fields(access: Access) -> dict[str, object]:
    """Returns the access as the fields of a JSON line, named as the attributes of `Access`.

    ``seconds`` is rounded to microseconds; ``request_id`` is there where requests have one; when it ended
    is the line's own ``time``.
    """
    fields: dict[str, object] = access._asdict()
    del fields["ended"]
    if access.request_id is None:
        del fields["request_id"]
    fields["seconds"] = round(access.seconds, 6)
    return fields


class AccessLog:
    """Writes accesses to standard output, to a file, to both or to none, each in a thread of its own.

    Nothing is opened before `open`, and nothing is written before it or after `close`.

    Args:
        to_std: Whether lines go to standard output.
        file: A file to append to, in UTF-8 and never coloured; opened anew when it was moved or
            removed, as logrotate does. None for no file.
        log_format: ``"text"`` or ``"json"``, for both.
        color: Whether lines on standard output are coloured; None: where that is a terminal.
        report: Is told when a target fails, when it takes lines again, and how many were lost.
    """

    def __init__(
        self,
        to_std: bool,
        file: str | None,
        log_format: LogFormat,
        color: bool | None,
        report: Report,
    ) -> None:
        self._to_std = to_std
        self._file = file
        self._is_json = log_format == "json"
        self._color = color
        self._report = report
        self._writers: list[Writer[Access]] = []
        self._dropped_before = 0

    @property
    def enabled(self) -> bool:
        """Whether there is any target; without one a caller can spare itself the measuring."""
        return self._to_std or self._file is not None

    @property
    def dropped(self) -> int:
        """The number of lines that were not written: full queue, broken pipe; counted for each target.

        Lines that wait for a full disk count when they are given up.
        """
        return self._dropped_before + sum(writer.dropped for writer in self._writers)

    def open(self) -> None:
        """Opens the targets and begins to write; does nothing where they are open.

        Raises:
            LogFileError: The file can not be opened for appending.
        """
        if self._writers:
            return
        if self._file is not None:
            target = FileTarget(self._file, setting="access_log_file")
            render = partial(_render, self._render_line, False)
            self._writers.append(
                Writer(f"access_log_file {self._file!r}", target, render, self._report),
            )
        if self._to_std:
            stream = StreamTarget("stdout")
            self._writers.append(
                Writer("standard output", stream, partial(self._render_for, stream), self._report)
            )
        for writer in self._writers:
            writer.start()

    def write(self, access: Access) -> None:
        """Queues one line for each open target; never waits, and never raises for a target that fails."""
        for writer in self._writers:
            writer.put(access, len(access.path) + _ACCESS_BYTES)

    def close(self) -> None:
        """Writes what waits and closes the targets; `open` can open them again."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.stop()
            self._dropped_before += writer.dropped

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

    @property
    def _render_line(self) -> RenderLine:
        return _json_line if self._is_json else _text_line

    def _render_for(self, stream: StreamTarget, accesses: Sequence[Access]) -> list[str]:
        now = stream.stream
        is_colored = now is not None and not self._is_json and wants_color(now, self._color, os.environ)
        return _render(self._render_line, is_colored, accesses)


# Of an access, of its time in text, and of whether it is coloured, a line is made.
RenderLine = Callable[[Access, "_Clock", bool], str]


class _Clock:
    """Renders moments; those of a batch share their second, mostly."""

    def __init__(self) -> None:
        self._second: int = -1
        self._local: str = ""
        self._utc: str = ""

    def local(self, moment: float) -> str:
        """Returns the time as ``logging`` has it: ``2026-01-31 13:04:05,678``, local."""
        self._turn_to(int(moment))
        return f"{self._local},{int(moment % 1 * 1000):03d}"

    def utc(self, moment: float) -> str:
        """Returns the time by ISO 8601, in UTC, to the millisecond."""
        self._turn_to(int(moment))
        return f"{self._utc}.{int(moment % 1 * 1000):03d}+00:00"

    def _turn_to(self, second: int) -> None:
        if second != self._second:
            self._second = second
            self._local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _render(render_line: RenderLine, is_colored: bool, accesses: Sequence[Access]) -> list[str]:
    clock = _Clock()
    return [render_line(access, clock, is_colored) for access in accesses]


def _text_line(access: Access, clock: _Clock, is_colored: bool) -> str:
    level = "\x1b[32mINFO\x1b[0m" if is_colored else "INFO"
    return f"[{clock.local(access.ended)}] {level}: {render_text(access)}\n"


def _json_line(access: Access, clock: _Clock, is_colored: bool) -> str:  # noqa: ARG001 - as the other
    standard = {
        "time": clock.utc(access.ended),
        "level": "INFO",
        "logger": "aeros.access",
        "message": render_text(access),
    }
    return json.dumps(standard | render_json_fields(access)) + "\n"


def _escaped(text: str) -> str:
    if text.isprintable() and "\\" not in text and '"' not in text:
        return text
    return one_line(text.replace("\\", "\\\\").replace('"', '\\"'))


def _word(text: str) -> str:
    # A client's address can come from a header field that the client wrote.
    return _escaped(text).replace(" ", "\\x20") or "-"
