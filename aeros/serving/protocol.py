"""uvicorn's HTTP protocol with a shorter way from the socket to the application and back.

It is uvicorn's own on httptools: parsing, upgrades, flow control and shutdown are inherited. What is
made anew for each request is cheaper here: no event before somebody waits for one, no timer for each
pause of a connection, and a whole response in one write instead of two.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from copy import copy
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from aeros.exchange import HeadMemory, note_asked, own_date
from aeros.http.host import is_host
from aeros.serving.application import EarlyAnswer, EarlyAnswers, KnownRequest, ServedApplication
from aeros.serving.cycle import Cycle, Head
from aeros.serving.deadlines import Awaited, Kind, Waiting
from aeros.serving.ending import cut_off, end_gently, unsent_bytes
from aeros.serving.outbox import Outbox
from aeros.types import ASGIApplication, RawHeaders, Scope

# Fields that mean something to a connection; without what a proxy says of its client uvicorn's middleware
# changes nothing.
_HOST: Final = "host"
_PROXY: Final = "proxy"
_EXPECT: Final = "expect"
_NOTICED: Final = {
    b"host": _HOST,
    b"x-forwarded-proto": _PROXY,
    b"x-forwarded-for": _PROXY,
    b"expect": _EXPECT,
}
_TWO_HOSTS: Final = b" "  # which is none
# How many bytes of framing each byte of a body may need: a chunk of one has six.
_FRAMING: Final = 16
_LONGEST_KNOWN: Final = 2_048
_MOST_TARGETS: Final = 1_000
# What of uvicorn's protocol is used here: what it has and does, and where its own steps call ours.
_INHERITED: Final = (
    "_should_upgrade",
    "_unset_keepalive_if_required",
    "_unsupported_upgrade_warning",
    "app_state",
    "asgi_version",
    "client",
    "config",
    "connection_lost",
    "connection_made",
    "connections",
    "data_received",
    "eof_received",
    "expect_100_continue",
    "flow",
    "handle_websocket_upgrade",
    "headers",
    "limit_concurrency",
    "logger",
    "loop",
    "on_body",
    "on_header",
    "on_headers_complete",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "on_url",
    "parser",
    "pause_writing",
    "resume_writing",
    "root_path",
    "scheme",
    "scope",
    "send_400_response",
    "server",
    "server_state",
    "shutdown",
    "tasks",
    "timeout_keep_alive",
    "timeout_keep_alive_handler",
    "timeout_keep_alive_task",
    "transport",
    "ws_protocol_class",
)
_OF_FLOW: Final = (
    "drain",
    "pause_reading",
    "pause_writing",
    "read_paused",
    "resume_reading",
    "resume_writing",
    "write_paused",
)


def missing_of(base: object) -> tuple[str, ...]:
    """Returns the names that ``HTTPProtocol`` stands on and that a protocol of uvicorn's lacks.

    Args:
        base: The class, of which the names count that its ``__init__`` sets; or one connection of it.
    """
    flow: object = getattr(base, "flow", None) or FlowControl
    lacking = [name for name in _INHERITED if not _has(base, name)]
    return (*lacking, *(f"flow.{name}" for name in _OF_FLOW if not _has(flow, name)))


def _has(owner: object, name: str) -> bool:
    if hasattr(owner, name) or not isinstance(owner, type):
        return hasattr(owner, name)
    code: object = getattr(getattr(owner, "__init__"), "__code__", None)  # noqa: B009 - this class's own, to mypy
    return isinstance(code, CodeType) and name in code.co_names


class _Refusal(NamedTuple):
    """What is said to a client whose request is not read on."""

    status: int
    said: str


_BAD_REQUEST: Final = _Refusal(400, "Invalid HTTP request received.")
_BAD_HOST: Final = _Refusal(400, "Invalid or missing Host.")
_TOO_SLOW: Final = _Refusal(408, "Request Timeout")
_TOO_LARGE: Final = _Refusal(431, "Request Header Fields Too Large")


class HTTPProtocol(HttpToolsProtocol, Waiting):
    """One connection of a client.

    Args:
        config: uvicorn's configuration; its application is a ``ServedApplication``.
        server_state: What the connections of a server share.
        app_state: What the lifespan has left for requests.
        _loop: The event loop.
    """

    parser: Any  # httptools'; None once the connection is lost

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.served: ServedApplication = cast(Any, config.app)
        self._outbox: Outbox = self.served.outbox
        self.get_date: Callable[[], bytes] | None = self.served.get_date
        app: Any = cast(Any, config).loaded_app
        self._app = cast(ASGIApplication, app)
        # Most requests say nothing that its middleware would look for.
        is_proxied = type(app) is ProxyHeadersMiddleware
        self._unproxied = cast(ASGIApplication, app.app) if is_proxied else self._app
        self._proxied = app if is_proxied else None
        if cast(object, self._unproxied) is self.served and not self.served.logs_access:
            self._unproxied = self.served.app  # the server's part of a request is done here
        # The lines that every response has, and the fields that they were made of.
        self._default: tuple[RawHeaders | None, bytes, bool] = (None, b"", False)
        self._is_forwarded = False
        self._was_asked = False
        self._marking = self.served.marking
        self._doors = None if self.root_path else self.served.app.early_answers
        # The request that is being read, and the one that is being answered: others may wait between.
        self._cycle: Cycle | None = None
        self._running: Cycle | None = None
        self._pipeline: deque[tuple[Cycle, ASGIApplication]] = deque()
        self._fields: RawHeaders = []
        self._is_idle = True
        self._idle_since = 0.0
        # Whether the parser stands between two requests; and of the data that it reads now: how many
        # requests began in it, and the last that was answered early.
        self._is_between = True
        self._begun = 0
        self._answered: KnownRequest | None = None
        self._is_retired = False
        # The limits of a head, and what is known of the one that is being read: its Host, how much of it has
        # come at the most, and in pieces that are nothing else, and the size of the piece that is being read.
        settings = self.served.settings
        self._most_bytes = settings.max_header_bytes
        self._most_fields = settings.max_header_fields
        self._is_in_head = False
        self._host: bytes | None = None
        self._head_bytes = 0
        self._whole_pieces = 0
        self._piece = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        # What it is refused with, perhaps after the responses that are under way.
        self._refusal: _Refusal | None = None
        self._is_refused = False

    # What the transport and the server call

    def data_received(self, data: bytes) -> None:
        """Takes what the client sends."""
        self._is_idle = False
        if not self._is_between:
            if not self._is_refused:
                self._read(data)
            return
        # Between two requests the same bytes are the same request, which need not be read again.
        known = self.served.known.get(data)
        if known is not None and self._answers_known(known):
            return
        self._begun = 0
        self._answered = None
        self._read(data)
        answered = self._answered_whole()
        if answered is not None and len(data) <= _LONGEST_KNOWN:
            self.served.remember(data, answered)

    def connection_lost(self, exc: Exception | None) -> None:
        """Takes note that the client has gone."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self._running is not None:
            self._running.client_left()
        for waiting, _ in self._pipeline:
            waiting.client_left()
        self._pipeline.clear()

    def eof_received(self) -> None:
        """Takes note that nothing more will come; the transport is closed behind what is written by now."""
        self._outbox.flush()

    def shutdown(self) -> None:
        """Makes the response under way, or the next one, the last; the server closes what rests."""
        self._outbox.flush()
        self._is_retired = True
        # A client that has read the head already is not told any more: then the connection rests.
        if self._cycle is not None and not self._cycle.response_started:
            self._cycle.keep_alive = False

    @property
    def is_resting(self) -> bool:
        """Whether no request is under way."""
        return self._cycle is None or (self._cycle.response_complete and not self._pipeline)

    def finish(self) -> None:
        """Writes what was held: somebody is about to close the transport."""
        self._outbox.flush()

    def awaited(self) -> Awaited | None:
        """Returns what it waits for from its client."""
        waiting = unsent_bytes(self.transport)
        if waiting:
            return Awaited("reading", self.transport, waiting)
        if self._is_refused or self.transport.is_closing():
            return None
        if self._is_in_head:
            # Where it is not read on, because others come before it, it can not come.
            return None if self.flow.read_paused else Awaited("head", self._fields, 0)
        cycle = self._cycle
        if self._is_between:
            # Between two requests the pause for keeping it alive is the bound; a new one waits for the first.
            is_new = cycle is None and self.timeout_keep_alive_task is None
            return Awaited("head", self._fields, 0) if is_new else None
        if self.flow.read_paused or (cycle is not None and cycle.expects_continue):
            return None  # it is the application that takes its time
        return Awaited("body", self._fields, self._body_bytes)

    def expire(self, kind: Kind) -> None:
        """Ends it: its client took too long."""
        if kind == "reading":
            cut_off(self.transport)
        elif self._is_between:
            self.transport.close()
        else:
            self._refuse(_TOO_SLOW)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_between = False
        self._is_in_head = True
        self._host = None
        self._head_bytes = self._whole_pieces = 0
        self._begun += 1
        self.url = b""
        self._fields = []
        self.headers: RawHeaders = self._fields
        self.expect_100_continue: bool = False
        self._is_forwarded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its fields has come."""
        if not self._is_in_head:
            return  # a field after the body: nobody has asked for it, nor looked at it on the way
        name = name.lower()
        noticed = _NOTICED.get(name)
        if noticed is not None:
            if noticed is _HOST:
                self._host = value if self._host is None else _TWO_HOSTS
            elif noticed is _PROXY:
                self._is_forwarded = True
            elif value.lower() == b"100-continue":
                self.expect_100_continue = True
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is there: the application begins."""
        version: str = self.parser.get_http_version()
        self._is_in_head = False
        host = self._host
        if version == "1.1" if host is None else not is_host(host):
            raise self._refused(_BAD_HOST)
        if len(self._fields) > self._most_fields or (
            self._piece + self._head_bytes > self._most_bytes and self._is_large()
        ):
            raise self._refused(_TOO_LARGE)
        self._body_bytes = self._framing_bytes = 0
        doors = self._doors
        self._was_asked = False
        if doors is not None and doors.is_used and version == "1.1" and self._answers_early(doors):
            return
        try:
            scope = self._scope(version)
        except (httptools.HttpParserError, ValueError) as error:  # of a target that is none
            raise self._refused(_BAD_REQUEST) from error
        if self._was_asked:
            note_asked(scope, doors)
        if self.parser.should_upgrade() and self._should_upgrade():
            if self._cycle is not None and not self._cycle.response_complete:
                raise self._refused(_BAD_REQUEST)  # a response is under way on what would be its connection
            return
        keeps_alive = version != "1.0" and self.parser.should_keep_alive() and not self._is_retired
        cycle = Cycle(self, scope, keep_alive=keeps_alive, expects_continue=self.expect_100_continue)
        app = self._app if self._is_forwarded else self._unproxied
        before, self._cycle = self._cycle, cycle
        if before is None or before.response_complete:
            self._begin(cycle, app)
        else:
            self.flow.pause_reading()
            self._pipeline.append((cycle, app))

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        self._body_bytes += len(body)
        cycle = self._cycle
        if cycle is None or cycle.response_complete or self._is_upgrading():
            return
        cycle.received(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """It is there to its end."""
        self._is_between = True
        cycle = self._cycle
        if cycle is None or cycle.response_complete:
            if self.timeout_keep_alive_task is None and not self.transport.is_closing():
                self._rest()  # its answer was out before its end was here
        elif not self._is_upgrading():
            cycle.ended()

    def on_response_complete(self) -> None:
        """Its response is out: the next one begins, or the connection waits for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._pipeline:
            self._begin(*self._pipeline.popleft())
        elif self._is_refused:
            self._write_refusal(self._refusal or _BAD_REQUEST)
        else:
            self._rest()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no request, or more of one than may be."""
        self._refuse(self._refusal or _Refusal(400, msg))

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over to the protocol of websockets."""
        self._outbox.flush()
        super().handle_websocket_upgrade()

    # What a request's cycle calls

    def send(self, head: bytes, body: bytes) -> None:
        """Writes a whole response, after those that were held before it."""
        self._outbox.send(self.loop, self.transport, head, body)

    def write_part(self, part: bytes) -> None:
        """Writes the head or a part of a stream, after what was held before it."""
        self._outbox.write_part(self.loop, self.transport, part)

    def direct(self) -> asyncio.Transport:
        """Returns the transport, to write to it now: whatever was held is written."""
        self._outbox.flush()
        return self.transport

    # The rest

    def head(self, status: int, headers: RawHeaders) -> Head:
        """Returns the head of a response."""
        lines, has_date = self._default_lines()
        date = None if has_date or self.get_date is None else b"date: %b\r\n" % self.get_date()
        return Head([STATUS_LINE[status], lines], headers, self.served.field_lines, date)

    def remembered_head(self, status: int, headers: RawHeaders, memory: HeadMemory) -> bytes:
        """Returns the lines of a response's head, which are the same until its fields are others.

        They say neither that the body is in chunks nor that the connection ends.
        """
        default = self.server_state.default_headers
        lacks_date = False
        lines: bytes | None = None
        if memory.head is not None:
            made_of, others, lines, lacks_date = memory.head
            if made_of is not headers or others is not default:
                lines = None
        if lines is None:
            first, has_date = self._default_lines()
            head = Head([STATUS_LINE[status], first], headers, self.served.field_lines, b"")
            lacks_date = not (has_date or head.has_date or self.get_date is None)
            lines = b"".join(head.lines)
            memory.head = headers, default, lines, lacks_date
        if lacks_date and self.get_date is not None:
            return b"%bdate: %b\r\n" % (lines, self.get_date())
        return lines

    def _default_lines(self) -> tuple[bytes, bool]:
        """Returns the lines that every response has, and whether one of them is its date."""
        default = self.server_state.default_headers
        if default is not self._default[0]:
            lines = b"".join(b"%b: %b\r\n" % field for field in default)
            self._default = default, lines, any(name.lower() == b"date" for name, _ in default)
        return self._default[1], self._default[2]

    def _read(self, data: bytes) -> None:
        """Has the parser read a piece of data, and looks at how much of a head has come."""
        was_in_head, begun = self._is_in_head, self._begun
        self._piece = len(data)
        body_bytes = self._body_bytes
        super().data_received(data)
        if self._begun == begun and not was_in_head and not self._is_between:
            # Sizes of chunks, and what comes after the last: more than they need is an attack.
            self._framing_bytes += len(data) - (self._body_bytes - body_bytes)
            if self._framing_bytes > self._most_bytes + _FRAMING * self._body_bytes:
                self._refuse(_TOO_LARGE)
        if self._is_in_head:
            self._head_bytes += len(data)
            if was_in_head and self._begun == begun:
                self._whole_pieces += len(data)
                if self._whole_pieces > self._most_bytes:
                    self._refuse(_TOO_LARGE)

    def _is_large(self) -> bool:
        """Tells whether the head that has come is larger than it may be."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self._fields)
        return size > self._most_bytes

    def _refused(self, refusal: _Refusal) -> ValueError:
        """Returns what makes the parser fail, which calls ``send_400_response()`` then."""
        self._is_in_head = True  # it has not become a request
        self._refusal = refusal
        return ValueError(refusal.said)

    def _refuse(self, refusal: _Refusal) -> None:
        """Answers what is not read on, after the responses under way, and ends the connection."""
        if self._is_refused:
            return
        self._is_refused = True
        self._refusal = refusal
        cycle = self._cycle
        if not self._is_in_head and not self._is_between and cycle is not None:
            # It is the body of a request that has begun already, or waits for those before it.
            if cycle is not self._running:
                self._pipeline.pop()
            elif cycle.response_started:
                self.direct().close()
                return
            else:
                cycle.status = refusal.status
                cycle.client_left()
                self._write_refusal(refusal)
                return
        self._is_between = False
        running = self._running
        if running is None or running.response_complete:
            self._write_refusal(refusal)

    def _write_refusal(self, refusal: _Refusal) -> None:
        self._outbox.flush()
        content = refusal.said.encode("ascii")
        lines = [STATUS_LINE[refusal.status]]
        lines += (b"%b: %b\r\n" % field for field in self.server_state.default_headers)
        lines.append(b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(content))
        lines.append(b"connection: close\r\n")
        if self.get_date is not None:
            lines.append(b"date: %b\r\n" % self.get_date())
        lines += (b"\r\n", content)
        self.transport.write(b"".join(lines))
        if refusal.status == 400:
            self.transport.close()  # its bytes were not understood, so none of them are waited for
        else:
            end_gently(self.loop, self.transport)

    def _answers_early(self, doors: EarlyAnswers) -> bool:
        """Answers a request without calling the application; returns whether it could (door 1)."""
        url = self.url
        if (
            not self._is_clear()
            # Another form of target than a path, or one that libraries read in different ways.
            or url[:1] != b"/"
            or url[1:2] == b"/"
            or b"#" in url
        ):
            return False
        began = 0.0 if self._marking is None else time.perf_counter()
        raw_path, _, query = url.partition(b"?")
        method = self.parser.get_method().decode("ascii")
        scheme, client = self._origin()
        is_dated = self.get_date is not None
        question = doors.question(method, scheme, raw_path, query, self._fields, is_dated=is_dated)
        answer = None if question is None else doors.find(question)
        if answer is None:
            self._was_asked = True
            return False
        marking = self._marking
        given = None if marking is None else marking.given_id(self._fields)
        request = KnownRequest(scheme, method, raw_path + b"?" + query if query else raw_path, question)
        keeps_alive = self.parser.should_keep_alive() and not self._is_retired
        # One with an id of its own does not come a second time; and whether a proxy is trusted depends on
        # where it connects from, which the same bytes do not tell.
        if keeps_alive and given is None and answer.is_lasting and not self._is_forwarded:
            self._answered = request
        self._give(request, answer, client, keeps_alive=keeps_alive, began=began, given=given)
        return True

    def _answered_whole(self) -> KnownRequest | None:
        """Returns what was answered early, if the data that was read is that one request."""
        return self._answered if self._begun == 1 and self._is_between else None

    def _answers_known(self, request: KnownRequest) -> bool:
        """Answers a request that came in the same bytes before; returns whether it could."""
        doors = self._doors
        if doors is None or self._is_retired or request.scheme != self.scheme or not self._is_clear():
            return False
        began = 0.0 if self._marking is None else time.perf_counter()
        answer = doors.find(request.question)
        if answer is None:
            return False
        self._give(request, answer, self.client, keeps_alive=True, began=began)
        return True

    def _is_clear(self) -> bool:
        """Tells whether an answer would be the next thing that the client is to get."""
        cycle = self._cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and self.limit_concurrency is None
        )

    def _give(
        self,
        request: KnownRequest,
        answer: EarlyAnswer,
        client: tuple[str, int] | None,
        *,
        keeps_alive: bool,
        began: float,
        given: str | None = None,
    ) -> None:
        if answer.recording is None:
            head = b"".join(self.head(answer.status, answer.headers).lines)
        else:
            head = self.remembered_head(answer.status, answer.headers, answer.recording)
        end = b"\r\n" if keeps_alive else b"connection: close\r\n\r\n"
        request_id: str | None = None
        if self._marking is not None:
            request_id, lines = self._marking.lines(given, began)
            end = lines + end
        content = b"" if request.method == "HEAD" else answer.content
        self._outbox.hold(self.loop, self.transport, head + end, content)
        if self.served.logs_access:
            self.served.log_hit(client, request.method, request.target, answer, request_id)
        if not keeps_alive:
            self.direct().close()
        self.on_response_complete()

    def _origin(self) -> tuple[str, tuple[str, int] | None]:
        """Returns a request's scheme and its client's address, as a proxy tells them that is trusted."""
        if not self._is_forwarded or self._proxied is None:
            return cast(str, self.scheme), self.client
        # uvicorn's own middleware says whom it trusts; it waits for nothing but what it is around.
        trusting = self.served.trusting
        if trusting is None or trusting.trusted_hosts is not self._proxied.trusted_hosts:
            trusting = self.served.trusting = copy(self._proxied)
            trusting.app = _nowhere
        scope: Scope = {
            "type": "http",
            "scheme": self.scheme,
            "client": self.client,
            "headers": self._fields,
        }
        with suppress(StopIteration):
            trusting(cast(Any, scope), cast(Any, None), cast(Any, None)).send(None)
        return scope["scheme"], scope["client"]

    def _scope(self, version: str) -> Scope:
        parts_of = _remembered_parts if len(self.url) <= _LONGEST_KNOWN else _parts_of
        path, raw_path, query = parts_of(self.url)
        root_path: str = self.root_path
        if root_path:
            path, raw_path = root_path + path, root_path.encode("ascii") + raw_path
        scope: Scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": root_path,
            "headers": self._fields,
            "state": self.app_state.copy(),
            "method": self.parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
        }
        if self.get_date is not None:
            own_date(scope)
        self.scope: Any = scope
        return scope

    def _begin(self, cycle: Cycle, app: ASGIApplication) -> None:
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            app = cast(ASGIApplication, self.served.refuse)
            self.logger.warning("Exceeded concurrency limit.")
        self._running = cycle
        self._outbox.expect()
        context = Context() if self.config.reset_contextvars else None
        self.tasks.add(cycle.begin(app, context))

    def _is_upgrading(self) -> bool:
        return self.parser.should_upgrade() and self._should_upgrade()

    def _rest(self) -> None:
        """Begins a pause between two requests; one timer serves for many of them."""
        self._is_idle = True
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait(self.timeout_keep_alive)

    def _wait(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._on_pause)

    def _on_pause(self) -> None:
        self.timeout_keep_alive_task = None
        if not self._is_idle and not (self._is_between and self.is_resting):
            return  # a request is under way; where nothing but line breaks has come, none is
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0 and unsent_bytes(self.transport):
            left = self.timeout_keep_alive or 1.0  # its client reads still, or is cut off for not doing so
        if left > 0:
            self._wait(left)
        else:
            self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        # uvicorn calls it for each piece of data; here the timer goes on, and sees by itself.
        return


async def _nowhere(_scope: object, _receive: object, _send: object) -> None:
    """Stands for the application where only the scope matters."""


def _parts_of(target: bytes) -> tuple[str, bytes, bytes]:
    """Returns the path of a target, the same as it came, and its query."""
    url = httptools.parse_url(target)
    raw_path: bytes = url.path
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, url.query or b""


_remembered_parts = lru_cache(_MOST_TARGETS)(_parts_of)
