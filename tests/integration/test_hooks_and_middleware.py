"""What stands around a cached view (hooks, middleware, tasks) and what it must not break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import brotli
import pytest
from quart import Quart, Response, after_this_request, has_app_context, has_request_context, request, session
from quart.ctx import RequestContext as QuartRequestContext
from quart.sessions import SecureCookieSession, SecureCookieSessionInterface
from quart.wrappers import Request
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.response import DataBody

from aeros import Cache, WebServer
from aeros.caching.view import AnyResponse
from aeros.compression import Br

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def scope_of(path: str, **fields: str) -> dict[str, Any]:
    """A GET as a server would hand it over."""
    headers = [(b"host", b"localhost"), *((k.lower().encode(), v.encode()) for k, v in fields.items())]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


class Exchange:
    """One request to an ASGI application, and the messages that it answered with."""

    def __init__(self, app: Asgi, path: str, **fields: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leaves = asyncio.Event()
        self._asked = False
        self.task = asyncio.ensure_future(app(scope_of(path, **fields), self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def is_hit(self) -> bool:
        """Whether it came from the cache."""
        return str(self.field(b"cache-status")).startswith("aeros; hit; ttl=")

    def field(self, name: bytes) -> str | None:
        """A field's value."""
        return next((v.decode() for k, v in self.sent[0]["headers"] if k == name), None)


async def asked(app: Asgi, path: str, **fields: str) -> Exchange:
    """The answer to one request."""
    exchange = Exchange(app, path, **fields)
    async with asyncio.timeout(10):
        await exchange.task
    return exchange


async def test_vary_set_by_a_hook_selects() -> None:
    """A locale hook that adds Vary keeps the responses of different clients apart."""
    app = WebServer(__name__)

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return f"for {request.headers['Cookie']}"

    @app.after_request
    async def vary(response: Response) -> Response:
        response.vary.add("Cookie")
        return response

    assert (await asked(app, "/", cookie="alice")).body == b"for alice"
    assert (await asked(app, "/", cookie="bob")).body == b"for bob"
    again = await asked(app, "/", cookie="alice")
    assert (again.body, again.is_hit) == (b"for alice", True)


async def test_a_view_that_registers_a_hook_for_its_request_is_not_stored() -> None:
    """A hit would lack what the hook does."""
    app = WebServer(__name__)

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        @after_this_request
        async def mark(response: AnyResponse) -> AnyResponse:
            response.headers["X-Mark"] = "1"
            return response

        return "hello"

    for _ in range(2):
        answer = await asked(app, "/")
        assert answer.field(b"cache-status") == "aeros; fwd=bypass; detail=after-this-request"
        assert answer.field(b"x-mark") == "1"


async def test_a_path_that_middleware_rewrites_is_part_of_the_key() -> None:
    """Two tenants with the same raw path never share a response."""
    app = WebServer(__name__)

    @app.route("/t/<tenant>/page")
    @app.cache(60)
    async def page(tenant: str) -> str:
        return f"data of {tenant}"

    inner = cast(Asgi, app.asgi_app)

    async def tenants(scope: Any, receive: Any, send: Any) -> None:
        tenant = dict(scope["headers"])[b"x-tenant"].decode()
        await inner({**scope, "path": f"/t/{tenant}{scope['path']}"}, receive, send)

    app.asgi_app = tenants  # type: ignore[method-assign]  # as Quart's documentation does
    assert (await asked(app, "/page", **{"x-tenant": "acme"})).body == b"data of acme"
    assert (await asked(app, "/page", **{"x-tenant": "globex"})).body == b"data of globex"


async def test_a_context_of_somebody_elses_is_taken_to_use_the_session() -> None:
    """It does not tell whether the view did, so nothing is stored."""

    class Own(WebServer):
        def request_context(self, request: Request) -> QuartRequestContext:
            return QuartRequestContext(self, request)

    app = Own(__name__)
    app.secret_key = "secret"

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return str(session.get("user"))

    assert (await asked(app, "/")).field(b"cache-status") == "aeros; fwd=bypass; detail=session"


async def test_two_cached_views_on_one_path_share_nothing() -> None:
    """A view that chooses between two others gets the response of the one that it chose."""
    app = WebServer(__name__)

    @app.cache(60)
    async def admin() -> str:
        return "admin"

    @app.cache(60)
    async def public() -> str:
        return "public"

    @app.route("/")
    async def index() -> Any:
        return await (admin() if "x-admin" in request.headers else public())

    assert (await asked(app, "/", **{"x-admin": "1"})).body == b"admin"
    assert (await asked(app, "/")).body == b"public"
    assert (await asked(app, "/")).is_hit


async def test_middleware_that_asks_twice_leaks_no_slot() -> None:
    """A fallback to the start page on 404 handles one request twice."""
    app = WebServer(__name__, container=None)
    app.container.config.from_dict({"soft_limit": 1, "hard_limit": 1})

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return "start"

    inner = cast(Asgi, app.asgi_app)

    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        first: list[Any] = []

        async def keep(message: Any) -> None:
            first.append(message)

        await inner(scope, receive, keep)
        assert first[0]["status"] == 404
        await inner({**scope, "path": "/", "raw_path": b"/"}, receive, send)

    app.asgi_app = fallback  # type: ignore[method-assign]  # as Quart's documentation does
    answers = [await asked(app, "/nothing") for _ in range(5)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"start")] * 5
    assert answers[4].is_hit


async def test_a_cached_view_in_a_task_after_its_request_just_runs() -> None:
    """Nobody would ever commit its response, and those who wait would wait in vain."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=60))
    runs: list[str] = []
    background: list[asyncio.Task[None]] = []
    done = asyncio.Event()

    @app.cache(60)
    async def report() -> str:
        runs.append(request.path)
        return "report"

    app.add_url_rule("/report", view_func=report)

    @app.route("/start")
    async def start() -> str:
        async def later() -> None:
            await asyncio.sleep(0.05)
            assert await report() == "report"
            done.set()

        background.append(asyncio.ensure_future(later()))
        return "started"

    await asked(app, "/start")
    await asyncio.wait_for(done.wait(), 5)
    assert (await asked(app, "/report")).field(b"cache-status") == "aeros; fwd=miss; stored"
    assert runs == ["/start", "/report"]


async def test_two_cached_views_at_once_in_one_request_leave_nobody_waiting() -> None:
    """One answers through the cache, the other just runs."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=60))

    async def unless() -> bool:
        await asyncio.sleep(0)
        return False

    @app.cache(60, unless=unless)
    async def first() -> str:
        await asyncio.sleep(0)
        return "a"

    @app.cache(60, unless=unless)
    async def second() -> str:
        await asyncio.sleep(0)
        return "b"

    @app.route("/")
    async def index() -> str:
        await asyncio.gather(first(), second())
        return "both"

    for _ in range(2):
        assert (await asked(app, "/")).body == b"both"


async def test_an_error_while_receiving_ends_the_handler() -> None:
    """A middleware that refuses a body is not kept waiting for it."""
    app = WebServer(__name__)
    cancelled = asyncio.Event()

    @app.route("/", methods=["GET"])
    async def index() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    class TooLargeError(Exception):
        pass

    async def receive() -> Any:
        raise TooLargeError

    async def send(_message: Any) -> None: ...

    with pytest.raises(TooLargeError):
        await asyncio.wait_for(cast(Asgi, app)(scope_of("/"), receive, send), 10)
    assert cancelled.is_set()


async def test_a_stream_to_a_client_that_left_ends_though_it_was_leading() -> None:
    """Once nobody waits for the view its request is cancelled like any other."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=60))
    ended = asyncio.Event()

    @app.route("/")
    @app.cache(60)
    async def index() -> Response:
        await asyncio.sleep(0)

        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return Response(chunks())

    exchange = Exchange(app, "/")
    while len(exchange.sent) < 3:
        await asyncio.sleep(0.01)
    exchange.leaves.set()
    await asyncio.wait_for(ended.wait(), 10)
    await asyncio.wait_for(exchange.task, 10)


@pytest.mark.parametrize("error", [RuntimeError("before the first chunk"), asyncio.CancelledError()])
async def test_a_response_that_fails_before_it_is_sent_has_the_global_headers(error: BaseException) -> None:
    """Also where its head was ready already, or the view raised what a server raises."""
    app = WebServer(__name__, global_headers={"X-Frame-Options": "DENY"})

    @app.route("/")
    async def index() -> Response:
        if isinstance(error, asyncio.CancelledError):
            raise error

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(1):
                raise error
            yield b""

        response = Response(chunks(), content_type="text/plain")
        response.content_length = 5
        return response

    exchange = Exchange(app, "/")
    with pytest.raises(type(error)):
        await exchange.task
    assert exchange.status == 500
    assert exchange.field(b"x-frame-options") == "DENY"
    assert exchange.body == b"Internal Server Error"


async def test_the_head_of_a_stream_does_not_wait_for_its_first_chunk() -> None:
    """A client of a long poll learns at once that it was heard."""
    app = WebServer(__name__)
    go = asyncio.Event()

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            await go.wait()
            yield b"late"

        return Response(chunks(), content_type="text/plain")

    exchange = Exchange(app, "/", **{"accept-encoding": "br"})
    while not exchange.sent:
        await asyncio.sleep(0.01)
    assert exchange.status == 200
    go.set()
    await exchange.task
    assert brotli.decompress(exchange.body) == b"late"


async def test_a_global_vary_joins_the_one_for_codings() -> None:
    """It is a list: neither replaces the other."""
    app = WebServer(__name__, compression=Br(), global_headers={"Vary": "Origin"})

    @app.route("/")
    async def index() -> str:
        return "hello"

    assert (await asked(app, "/")).field(b"vary") == "Accept-Encoding, Origin"


async def test_a_body_class_of_the_applications_own_is_asked_for_its_bytes() -> None:
    """Quart lets an application replace how a body is iterated."""

    class Shouting(DataBody):
        async def __anext__(self) -> bytes:
            raise NotImplementedError

        def __aiter__(self) -> AsyncIterator[bytes]:
            async def shout() -> AsyncIterator[bytes]:
                yield self.data.upper()

            return shout()

    class Shouted(Response):
        data_body_class = Shouting

    app = WebServer(__name__)
    app.response_class = Shouted

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return "hello"

    assert [(await asked(app, "/")).body for _ in range(2)] == [b"HELLO"] * 2


def test_the_logger_can_be_assigned() -> None:
    """As Quart's can."""
    app, own = WebServer(__name__), logging.getLogger("own")
    app.logger = own
    assert app.logger is own
    assert app.container.logger() is own


class LockedSessions(SecureCookieSessionInterface):
    """Sessions that do not open."""

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SecureCookieSession | None:
        """Raises."""
        raise ConnectionError("the sessions are away")


async def test_session_that_does_not_open_leaves_no_context() -> None:
    """The client gets a 500, and whoever called the application is in no request any more."""
    app = WebServer(__name__)
    app.session_interface = LockedSessions()

    @app.route("/")
    async def index() -> str:
        return "never"

    left: list[bool] = []

    async def outside(scope: Any, receive: Any, send: Any) -> None:
        try:
            await inner(scope, receive, send)
        finally:
            left.append(not has_request_context() and not has_app_context())

    inner = app.asgi_app
    cast(Any, app).asgi_app = outside
    exchange = Exchange(app, "/")
    with pytest.raises(ConnectionError):
        await exchange.task
    assert (exchange.status, left) == (500, [True])
