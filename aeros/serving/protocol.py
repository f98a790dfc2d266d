"""uvicorn's HTTP protocol with a shorter way from the socket to the application and back.

It is uvicorn's own on httptools: parsing, upgrades, flow control and shutdown are inherited. What is
made anew for each request is cheaper here: no event before somebody waits for one, no timer for each
pause of a connection, and a whole response in one write instead of two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from aeros.exchange import own_date
from aeros.serving.application import EarlyAnswer, EarlyAnswers, ServedApplication
from aeros.serving.cycle import Cycle, FieldNames, Head, write_whole
from aeros.types import ASGIApplication, RawHeaders, Scope

# What a proxy says of its client; without any of it uvicorn's middleware changes nothing.
_FORWARDED: Final = frozenset({b"x-forwarded-proto", b"x-forwarded-for"})


class HTTPProtocol(HttpToolsProtocol):
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
        self.names: FieldNames = self.served.field_names
        self.get_date: Callable[[], bytes] | None = self.served.get_date
        app: Any = cast(Any, config).loaded_app
        self._app = cast(ASGIApplication, app)
        # Most requests say nothing that its middleware would look for.
        is_proxied = type(app) is ProxyHeadersMiddleware
        self._unproxied = cast(ASGIApplication, app.app) if is_proxied else self._app
        self._is_forwarded = False
        self._doors = None if self.root_path else self.served.app.early_answers
        # The request that is being read, and the one that is being answered: others may wait between.
        self._cycle: Cycle | None = None
        self._running: Cycle | None = None
        self._pipeline: deque[Cycle] = deque()
        self._fields: RawHeaders = []
        self._is_idle = True
        self._idle_since = 0.0
        self._is_retired = False

    # What the transport and the server call

    def data_received(self, data: bytes) -> None:
        """Takes what the client sends."""
        self._is_idle = False
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Takes note that the client has gone."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self._running is not None:
            self._running.client_left()
        for waiting in self._pipeline:
            waiting.client_left()
        self._pipeline.clear()

    def shutdown(self) -> None:
        """Makes the response under way, or the next one, the last; the server closes what rests."""
        self._is_retired = True
        # A client that has read the head already is not told any more: then the connection rests.
        if self._cycle is not None and not self._cycle.response_started:
            self._cycle.keep_alive = False

    @property
    def is_resting(self) -> bool:
        """Whether no request is under way."""
        return self._cycle is None or (self._cycle.response_complete and not self._pipeline)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self._fields = []
        self.headers: RawHeaders = self._fields
        self.expect_100_continue: bool = False
        self._is_forwarded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its fields has come."""
        name = name.lower()
        if name in _FORWARDED:
            self._is_forwarded = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is there: the application begins."""
        version: str = self.parser.get_http_version()
        doors = self._doors
        if doors is not None and doors.is_used and version == "1.1" and self._answers_early(doors):
            return
        scope = self._scope(version)
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        keeps_alive = version != "1.0" and self.parser.should_keep_alive() and not self._is_retired
        cycle = Cycle(self, scope, keep_alive=keeps_alive, expects_continue=self.expect_100_continue)
        before, self._cycle = self._cycle, cycle
        if before is None or before.response_complete:
            self._begin(cycle)
        else:
            self.flow.pause_reading()
            self._pipeline.append(cycle)

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        cycle = self._cycle
        if cycle is None or cycle.response_complete or self._is_upgrading():
            return
        cycle.received(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """It is there to its end."""
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete and not self._is_upgrading():
            cycle.ended()

    def on_response_complete(self) -> None:
        """Its response is out: the next one begins, or the connection waits for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._pipeline:
            self._begin(self._pipeline.popleft())
        else:
            self._rest()

    # The rest

    def head(self, status: int, headers: RawHeaders) -> Head:
        """Returns the head of a response."""
        date = None if self.get_date is None else self.get_date()
        return Head(status, self.server_state.default_headers, headers, self.names, date)

    def _answers_early(self, doors: EarlyAnswers) -> bool:
        """Answers a request without calling the application; returns whether it could (door 1)."""
        url, cycle = self.url, self._cycle
        if (
            self._is_forwarded
            or (cycle is not None and not cycle.response_complete)
            or self.flow.write_paused
            or self.limit_concurrency is not None
            # Another form of target than a path, or one that libraries read in different ways.
            or url[:1] != b"/"
            or url[1:2] == b"/"
            or b"#" in url
        ):
            return False
        raw_path, _, query = url.partition(b"?")
        method = self.parser.get_method().decode("ascii")
        scheme = cast(str, self.scheme)
        is_dated = self.get_date is not None
        answer = doors.find(method, scheme, raw_path, query, self._fields, is_dated=is_dated)
        if answer is None:
            return False
        head = self._head_of(answer)
        keeps_alive = self.parser.should_keep_alive() and not self._is_retired
        end = b"\r\n" if keeps_alive else b"connection: close\r\n\r\n"
        write_whole(self.transport, head + end, b"" if method == "HEAD" else answer.content)
        if self.served.logs_access:
            self.served.log_hit(self.client, method, url, answer)
        if not keeps_alive:
            self.transport.close()
        self.on_response_complete()
        return True

    def _head_of(self, answer: EarlyAnswer) -> bytes:
        """Returns the lines of an answer's head, which are the same until its fields are others."""
        memory, default = answer.recording, self.server_state.default_headers
        if memory is not None and memory.head is not None:
            headers, others, lines = memory.head
            if headers is answer.headers and others is default:
                return lines
        lines = b"".join(self.head(answer.status, answer.headers).lines)
        if memory is not None:
            memory.head = answer.headers, default, lines
        return lines

    def _scope(self, version: str) -> Scope:
        url = httptools.parse_url(self.url)
        raw_path: bytes = url.path
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
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
            "query_string": url.query or b"",
        }
        if self.get_date is not None:
            own_date(scope)
        self.scope: Any = scope
        return scope

    def _begin(self, cycle: Cycle) -> None:
        app = self._app if self._is_forwarded else self._unproxied
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            app = cast(ASGIApplication, service_unavailable)
            self.logger.warning("Exceeded concurrency limit.")
        self._running = cycle
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
        if not self._is_idle:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._wait(left)
        else:
            self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        # uvicorn calls it for each piece of data; here the timer goes on, and sees by itself.
        return
