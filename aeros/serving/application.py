"""What the server calls: the application, with its access log, for as long as it is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from logging import Logger
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import quote

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import service_unavailable

from aeros.exchange import HeadMemory, exchange_of, own_date
from aeros.http.fields import first_value, format_http_date
from aeros.http.server_timing import ServerTiming
from aeros.request_id import FIELD_NAME, RequestIds, given_id, request_id_of
from aeros.serving.access_log import Access, AccessLog
from aeros.serving.cycle import Cycle, FieldLines
from aeros.serving.forwarding import rooms_forwarded, uvicorn_forwarded
from aeros.serving.log import ConsoleStyle, error_log, ids_noted, run_style, written_aside
from aeros.serving.outbox import Outbox
from aeros.serving.shutdown import Event
from aeros.settings import ServerSettings
from aeros.types import Message, RawHeaders, Receive, Scope, Send

_MOST_KNOWN: Final = 1_000
# What clients leave in a path as it is (RFC 3986 §3.3), and what is escaped already.
_IN_PATHS: Final = "/:@!$&'()*+,;=~%"


class EarlyAnswer(Protocol):
    """A response that needs no call of the application."""

    @property
    def status(self) -> int:
        """Its status code."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """Its fields, complete but for those that the server adds to all."""
        ...

    @property
    def content(self) -> bytes:
        """Its body."""
        ...

    @property
    def recording(self) -> HeadMemory | None:
        """Where its head may be kept; the same fields give the same head."""
        ...

    @property
    def is_lasting(self) -> bool:
        """Whether it is worth remembering what was asked."""
        ...


class EarlyAnswers(Protocol):
    """What can be answered without calling the application."""

    @property
    def is_used(self) -> bool:
        """Whether there is anything of the kind."""
        ...

    def question(
        self, method: str, scheme: str, raw_path: bytes, query: bytes, headers: RawHeaders, *, is_dated: bool
    ) -> object | None:
        """Returns what of a request decides about its answer; None: the application has to be called."""
        ...

    def find(self, question: Any, /) -> EarlyAnswer | None:
        """Returns the answer to a question; None: the application has to be called."""
        ...


class KnownRequest(NamedTuple):
    """What the bytes of a whole request mean.

    Attributes:
        scheme: ``http`` or ``https``.
        method: Its method.
        target: Its path and query as the client sent them.
        question: What of it decides about its answer.
    """

    scheme: str
    method: str
    target: bytes
    question: object


class Servable(Protocol):
    """What the server needs of an application."""

    def current_logger(self) -> Logger:
        """Returns the logger to use now."""
        ...

    def using_settings(self, settings: ServerSettings) -> AbstractContextManager[None]:
        """Makes ``settings`` the application's own for a while."""
        ...

    @property
    def early_answers(self) -> EarlyAnswers:
        """What can be answered without calling the application."""
        ...

    def described(self) -> Mapping[str, object]:
        """Returns what the banner says of the application, by name."""
        ...

    def caution(self, workers: int) -> None:
        """Logs what several workers mean for it."""
        ...

    @property
    def shutdown_event(self) -> Event:
        """What its streams wait for, on the running loop."""
        ...

    def counting_dropped_lines(self, dropped: Callable[[], int]) -> AbstractContextManager[None]:
        """Has its metrics count the lines that a log of this run has lost."""
        ...

    def sharing_metrics(self, folder: str) -> AbstractContextManager[None]:
        """Has its metrics be those of all workers whose snapshots are in a folder."""
        ...

    # Libraries name the shapes of ASGI each in their own way, and Quart names Hypercorn's.
    async def __call__(self, scope: Any, receive: Any, send: Any, /) -> None:
        """Handles one ASGI connection."""
        ...


class ServedApplication:
    """An application as a server sees it.

    Args:
        app: The application.
        settings: How this run is served.

    Attributes:
        field_lines: Lines of responses' heads, for all connections.
        outbox: Takes whole responses, for all connections.
        known: Requests that were answered without calling the application, by the bytes they came in.
        get_date: Gives the value of ``Date``; None where nobody is to write one.
        marking: Says what a response to a hit has beside what is stored; None where that is nothing.
        trusting: uvicorn's middleware for proxies around nothing; None: no proxy has told anything yet.
        lacking: What uvicorn's protocol lacks, if it is used instead of the one that stands on it.
    """

    lacking: tuple[str, ...] = ()

    def __init__(self, app: Servable, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        writes_date = bool(settings.uvicorn_options.get("date_header", True))
        self.get_date: Callable[[], bytes] | None = self._current_date if writes_date else None
        self.field_lines: FieldLines = FieldLines()
        self.outbox: Outbox = Outbox()
        self.trusting: ProxyHeadersMiddleware | None = None
        self.known: dict[bytes, KnownRequest] = {}
        marked = settings.request_ids or settings.server_timing
        self.marking: HitMarking | None = HitMarking(settings) if marked else None
        self._date = (0, b"")
        self._unlogged = frozenset(
            quote(path, safe=_IN_PATHS).encode() for path in settings.access_log_exclude
        )
        self._access_log = AccessLog(
            settings.access_log_to_std,
            settings.access_log_file,
            settings.log_format,
            settings.color,
            self._report,
        )

    @contextmanager
    def serving(self) -> Generator[None]:
        """Opens the logs, joins uvicorn's lines to them, and puts this run's settings in force.

        Lines are written by threads that begin here and end with the context, when all is written.

        Raises:
            LogFileError: A log file can not be written.
        """
        settings = self.settings
        style = ConsoleStyle(
            log_format=settings.log_format, color=settings.color, traceback=settings.traceback
        )
        with ExitStack() as stack:
            stack.enter_context(self.app.using_settings(settings))
            logger = self.app.current_logger()
            stack.enter_context(run_style(logger, level=settings.log_level, style=style))
            stack.enter_context(written_aside(logger, report=self._report))
            stack.enter_context(error_log(logger, settings.error_log_file, style=style, report=self._report))
            if settings.request_ids:
                stack.enter_context(ids_noted(logger))
            stack.enter_context(self._access_log)
            if settings.metrics is not None:
                stack.enter_context(self.app.counting_dropped_lines(lambda: self._access_log.dropped))
            if settings.uvicorn_options.get("log_config") is None:
                forwarded = uvicorn_forwarded(self.app.current_logger, level=settings.log_level)
                stack.enter_context(forwarded)
            stack.enter_context(rooms_forwarded(self.app.current_logger, level=settings.log_level))
            if self.lacking:
                self.app.current_logger().warning(
                    "Serving with uvicorn's own HTTP protocol, which is slower:"
                    " this version of uvicorn lacks what aeros's stands on (%s)",
                    ", ".join(self.lacking),
                )
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection; of an HTTP request one line is logged when it ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sending: Cycle | _CountingSend
        if isinstance(send, Cycle):
            sending = send  # it counts, and writes the date
        else:
            sending = _CountingSend(send, self.get_date)
            if self.get_date is not None:
                own_date(scope)
        if not self._access_log.enabled or (self._unlogged and scope.get("raw_path") in self._unlogged):
            await self.app(scope, receive, sending)
            return
        began = time.perf_counter()
        try:
            await self.app(scope, receive, sending)
        finally:
            self._access_log.write(_access(scope, sending, time.perf_counter() - began))

    def remember(self, data: bytes, request: KnownRequest) -> None:
        """Keeps what the bytes of a request mean, for the next time that the same ones come."""
        while len(self.known) >= _MOST_KNOWN:
            del self.known[next(iter(self.known))]
        self.known[data] = request

    async def refuse(self, scope: Scope, receive: Receive, send: Cycle) -> None:
        """Answers 503 where uvicorn's ``limit_concurrency`` is reached, without calling the application."""
        began = time.perf_counter()
        sending: Send = send
        if self.marking is not None and self.settings.request_ids:
            sending = _identified(send, self.marking.ids.identify(scope))
        try:
            await service_unavailable(cast(Any, scope), cast(Any, receive), cast(Any, sending))
        finally:
            if self._access_log.enabled and scope["raw_path"] not in self._unlogged:
                self._access_log.write(_access(scope, send, time.perf_counter() - began))

    @property
    def logs_access(self) -> bool:
        """Whether a line is written for each request."""
        return self._access_log.enabled

    def log_hit(
        self,
        client: tuple[str, int] | None,
        method: str,
        target: bytes,
        answer: EarlyAnswer,
        request_id: str | None = None,
    ) -> None:
        """Writes the line of a hit that was answered without calling the application.

        Args:
            client: The client's address.
            method: The request's method.
            target: Its path and query as the client sent them.
            answer: What it was answered with.
            request_id: Its id; None where requests have none.
        """
        if self._unlogged and target.partition(b"?")[0] in self._unlogged:
            return
        self._access_log.write(
            Access(
                client[0] if client else "-",
                method,
                target.decode("latin-1"),
                "1.1",
                answer.status,
                0 if method == "HEAD" else len(answer.content),
                0.0,
                "hit",
                time.time(),
                request_id,
            )
        )

    def _report(self, level: int, text: str) -> None:
        self.app.current_logger().log(level, "%s", text)

    def _current_date(self) -> bytes:
        second = int(time.time())
        if self._date[0] != second:
            self._date = second, format_http_date(second).encode("ascii")
        return self._date[1]


class HitMarking:
    """What the response to a hit has beside what is stored: the request's id, and how long it took.

    Args:
        settings: Which of them it has.

    Attributes:
        ids: Gives new ids.
    """

    __slots__ = ("_has_id", "_has_timing", "ids")

    def __init__(self, settings: ServerSettings) -> None:
        self._has_id = settings.request_ids
        self._has_timing = settings.server_timing
        self.ids: RequestIds = RequestIds()

    def given_id(self, headers: RawHeaders) -> str | None:
        """Returns the id that a client gave, if requests have ids."""
        return given_id(headers) if self._has_id else None

    def lines(self, given: str | None, began: float) -> tuple[str | None, bytes]:
        """Returns the id of a request, and lines for the head of its response.

        Args:
            given: The id that its client gave, if any.
            began: When it began to be looked at, by ``time.perf_counter()``.
        """
        lines, request_id = b"", None
        if self._has_id:
            request_id = given or self.ids.new()
            lines = b"%b: %b\r\n" % (FIELD_NAME, request_id.encode("ascii"))
        if self._has_timing:
            timing = ServerTiming(time.perf_counter() - began, cache="hit").render()
            lines += b"server-timing: %b\r\n" % timing
        return request_id, lines


def _identified(send: Send, request_id: str) -> Send:
    async def send_identified(message: Message) -> None:
        if message["type"] == "http.response.start":
            field = FIELD_NAME, request_id.encode("ascii")
            message = {**message, "headers": [*message.get("headers", ()), field]}
        await send(message)

    return send_identified


class _CountingSend:
    """The ``send`` of one request; remembers the status and how many bytes went out."""

    __slots__ = ("_get_date", "_send", "body_bytes", "status")

    def __init__(self, send: Send, get_date: Callable[[], bytes] | None) -> None:
        self._send = send
        self._get_date = get_date
        # The server answers 500 for an application that raises before it answers.
        self.status = 500
        self.body_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", [])
            if self._get_date is not None and first_value(headers, b"date") is None:
                message = {**message, "headers": [*headers, (b"date", self._get_date())]}
        elif message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
        await self._send(message)


def _access(scope: Scope, sent: Cycle | _CountingSend, seconds: float) -> Access:
    client = scope.get("client")
    exchange = exchange_of(scope)
    status = None if exchange is None else exchange.cache_status
    query = scope.get("query_string", b"")
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    target = path + b"?" + query if query and b"?" not in path else path
    return Access(
        client[0] if client else "-",
        scope["method"],
        target.decode("latin-1"),
        scope["http_version"],
        sent.status,
        0 if scope["method"] == "HEAD" else sent.body_bytes,
        seconds,
        None if status is None else status.outcome,
        time.time(),
        request_id_of(scope),
    )
