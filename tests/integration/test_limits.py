"""Admission over real connections: how many views run at once, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import websockets.sync.client
from quart import Response, request, websocket

from aeros import Container, WebServer

PATIENCE = 20.0


def limited(soft_limit: int | None, hard_limit: int | None) -> WebServer:
    """Returns an application with these limits; None switches one off."""
    container = Container()
    container.config.from_dict({"soft_limit": soft_limit or "none", "hard_limit": hard_limit or "none"})
    return WebServer(__name__, container=container)


class Watch:
    """Middleware that tells the test's own thread who has arrived and who has left."""

    def __init__(self, app: WebServer) -> None:
        self._inner: Any = app.asgi_app
        self._arrived = threading.Semaphore(0)
        self._left = threading.Semaphore(0)
        app.asgi_app = self  # type: ignore[method-assign]  # how Quart's users wrap an application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes everything on."""
        answered = False

        async def watched() -> Any:
            message = await receive()
            # A server says "disconnect" after a complete response, too.
            if message["type"] == "http.disconnect" and not answered:
                self._left.release()
            return message

        async def sending(message: Any) -> None:
            nonlocal answered
            answered = True
            await send(message)

        if scope["type"] == "http":
            self._arrived.release()
        await self._inner(scope, watched, sending)

    async def arrived(self, number: int) -> None:
        """Waits until ``number`` more requests have come, and had a moment to get into the line."""
        for _ in range(number):
            assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE), "they did not come"
        await asyncio.sleep(0.05)

    async def left(self) -> None:
        """Waits until the server knows of one more client that it has left."""
        assert await asyncio.to_thread(self._left.acquire, timeout=PATIENCE), "nobody left"
        await asyncio.sleep(0.05)


class Work:
    """A view's work: counts how much of it goes on at once, and ends when the test says so."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self._opened = threading.Event()
        self._began = threading.Semaphore(0)

    async def __call__(self) -> str:
        """Works until it may end."""
        self.running += 1
        self.most = max(self.most, self.running)
        self._began.release()
        try:
            while not self._opened.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return "done"

    async def began(self, number: int = 1) -> None:
        """Waits until ``number`` more views have begun."""
        for _ in range(number):
            assert await asyncio.to_thread(self._began.acquire, timeout=PATIENCE), "no view began"

    def may_end(self) -> None:
        """Lets all end, from now on."""
        self._opened.set()


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with room for as many connections as a test wants."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE) as client:
        yield client


class Leaver:
    """A client on a raw socket, which can leave before it is answered."""

    def __init__(self, url: str, path: str = "/") -> None:
        address = httpx.URL(url)
        self._socket = socket.create_connection((address.host, address.port or 80), timeout=PATIENCE)
        head = f"GET {path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n\r\n"
        self._socket.sendall(head.encode())

    def leave(self) -> None:
        """Closes the connection."""
        self._socket.close()


class Collector(logging.Handler):
    """A handler that keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.records.append(record)


@contextmanager
def log_of(app: WebServer) -> Generator[list[logging.LogRecord]]:
    """Collects what the application logs."""
    collector = Collector()
    app.logger.addHandler(collector)
    try:
        yield collector.records
    finally:
        app.logger.removeHandler(collector)


# The soft limit


async def test_soft_limit_bounds_how_many_views_run_at_once() -> None:
    """With soft_limit=2 never more than two of ten views run together, and all are answered."""
    app = limited(2, 10)
    watch, work = Watch(app), Work()
    app.add_url_rule("/", "index", work.__call__)
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(10)]
            await watch.arrived(10)
            assert work.running == 2
            work.may_end()
            responses = await asyncio.gather(*requests)
    assert Counter(response.status_code for response in responses) == {200: 10}
    assert work.most == 2


async def test_those_who_wait_are_served_in_the_order_in_which_they_came() -> None:
    """First come, first served."""
    app = limited(1, 10)
    watch, work = Watch(app), Work()
    order: list[int] = []

    @app.route("/<int:number>")
    async def view(number: int) -> str:
        order.append(number)
        return await work()

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests: list[asyncio.Task[httpx.Response]] = []
            for number in range(6):
                requests.append(asyncio.create_task(client.get(f"/{number}")))
                await watch.arrived(1)
            assert order == [0]
            work.may_end()
            await asyncio.gather(*requests)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_sync_views_are_counted_as_well() -> None:
    """A def view in its thread holds a slot like an async one."""
    app = limited(1, 10)
    lock = threading.Lock()
    overlaps: list[str] = []

    @app.route("/")
    def index() -> str:
        if not lock.acquire(blocking=False):
            overlaps.append("two at once")
            return "overlap"
        threading.Event().wait(0.02)
        lock.release()
        return "alone"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            responses = await asyncio.gather(*(client.get("/") for _ in range(6)))
    assert {response.text for response in responses} == {"alone"}
    assert overlaps == []


async def test_defaults_are_32_and_42() -> None:
    """By default 32 run, ten wait, and the 43rd is refused."""
    app = WebServer(__name__)
    watch, work = Watch(app), Work()
    app.add_url_rule("/", "index", work.__call__)
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(43)]
            await watch.arrived(43)
            assert work.running == 32
            work.may_end()
            responses = await asyncio.gather(*requests)
    assert Counter(response.status_code for response in responses) == {200: 42, 503: 1}


# The hard limit


async def test_past_the_hard_limit_requests_are_refused_with_retry_after() -> None:
    """Handled plus waiting is bounded; who comes later gets 503 at once and may come again."""
    app = limited(2, 4)
    watch, work = Watch(app), Work()
    app.add_url_rule("/", "index", work.__call__)
    with app.run_in_thread() as server, log_of(app) as records:
        async with client_of(server.url) as client:
            admitted = [asyncio.create_task(client.get("/")) for _ in range(4)]
            await watch.arrived(4)
            refused = [await client.get("/") for _ in range(5)]
            work.may_end()
            responses = await asyncio.gather(*admitted)
            later = await client.get("/")
    assert [response.status_code for response in responses] == [200] * 4
    assert later.status_code == 200
    for response in refused:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["content-type"].startswith("text/plain")
        assert response.text == "Service Unavailable"
    warnings = [record for record in records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings if "hard_limit" in record.getMessage()] == [
        warnings[0].getMessage()
    ]
    assert "hard_limit=4" in warnings[0].getMessage()


async def test_refused_miss_on_a_cached_route_is_not_stored() -> None:
    """A 503 for lack of room is nobody else's answer, and a later request gets the page."""
    app = limited(1, 1)
    work = Work()
    app.add_url_rule("/slow", "slow", work.__call__)

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return "page"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            slow = asyncio.create_task(client.get("/slow"))
            await work.began()
            refused = await client.get("/cached")
            work.may_end()
            await slow
            later = await client.get("/cached")
    assert refused.status_code == 503
    assert refused.headers["cache-status"] == "aeros; fwd=bypass; detail=limit"
    assert (later.text, later.headers["cache-status"]) == ("page", "aeros; fwd=miss; stored")


@pytest.mark.parametrize("number", [60])
async def test_none_switches_the_limits_off(number: int) -> None:
    """Without limits more views than the defaults allow run at once."""
    app = limited(None, None)
    together = asyncio.Barrier(number)

    @app.route("/")
    async def index() -> str:
        async with asyncio.timeout(PATIENCE / 2):
            await together.wait()
        return "together"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            responses = await asyncio.gather(*(client.get("/") for _ in range(number)))
    assert Counter(response.text for response in responses) == {"together": number}


async def test_soft_limit_alone_lets_any_number_wait() -> None:
    """With hard_limit=None nobody is refused."""
    app = limited(1, None)
    watch, work = Watch(app), Work()
    app.add_url_rule("/", "index", work.__call__)
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(60)]
            await watch.arrived(60)
            work.may_end()
            responses = await asyncio.gather(*requests)
    assert Counter(response.status_code for response in responses) == {200: 60}
    assert work.most == 1


# What takes no slot


async def test_streams_free_their_slot_when_they_begin() -> None:
    """Clients of an event stream do not keep others out, however long they stay."""
    app = limited(1, 1)
    may_end = threading.Event()

    @app.route("/events")
    async def events() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"data: begin\n\n"
            while not may_end.is_set():
                await asyncio.sleep(0.01)
            yield b"data: end\n\n"

        return Response(chunks(), content_type="text/event-stream")

    @app.route("/")
    async def index() -> str:
        return "page"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client, client.stream("GET", "/events") as first:
            async with client.stream("GET", "/events") as second:
                arriving = second.aiter_raw()
                assert await anext(arriving) == b"data: begin\n\n"
                assert [(await client.get("/")).status_code for _ in range(3)] == [200, 200, 200]
                may_end.set()
                assert b"".join([chunk async for chunk in arriving]) == b"data: end\n\n"
            await first.aread()
    assert first.content == b"data: begin\n\ndata: end\n\n"


def test_websockets_take_no_slot() -> None:
    """Open websockets do not count, nor does a full house keep them out."""
    app = limited(1, 1)

    @app.websocket("/socket")
    async def socket_view() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.route("/")
    async def index() -> str:
        return "page"

    with app.run_in_thread() as server, ExitStack() as stack:
        address = f"ws://{server.host}:{server.port}/socket"
        connections = [
            stack.enter_context(websockets.sync.client.connect(address, proxy=None)) for _ in range(3)
        ]
        for number, connection in enumerate(connections):
            connection.send(str(number))
        assert [connection.recv() for connection in connections] == ["0", "1", "2"]
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/").text == "page"
        connections[0].send("still open")
        assert connections[0].recv() == "still open"


async def test_hits_take_no_slot() -> None:
    """With every slot taken a stored response is sent all the same."""
    app = limited(1, 1)
    work = Work()
    app.add_url_rule("/slow", "slow", work.__call__)

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return "page"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            await client.get("/cached")
            slow = asyncio.create_task(client.get("/slow"))
            await work.began()
            hits = [await client.get("/cached") for _ in range(3)]
            refused = await client.get("/nothing-cached-here")
            work.may_end()
            assert (await slow).text == "done"
    assert [(hit.status_code, hit.text) for hit in hits] == [(200, "page")] * 3
    assert all(hit.headers["cache-status"].startswith("aeros; hit") for hit in hits)
    assert refused.status_code == 503


def test_idle_connections_do_not_count() -> None:
    """Kept-alive connections without a request on them keep nobody out."""
    app = limited(1, 2)

    @app.route("/")
    async def index() -> str:
        return "page"

    with app.run_in_thread() as server, ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url)) for _ in range(10)]
        assert [client.get("/").status_code for client in clients] == [200] * 10
        idle = [socket.create_connection((server.host, server.port), timeout=PATIENCE) for _ in range(5)]
        for connection in idle:
            stack.callback(connection.close)
        assert [client.get("/").status_code for client in clients] == [200] * 10


# Slots come back


async def test_client_that_leaves_while_it_waits_gives_its_place_up() -> None:
    """The place in the line is free again: another one may wait, and its view never runs."""
    app = limited(1, 2)
    watch, work = Watch(app), Work()
    app.add_url_rule("/", "index", work.__call__)
    ran: list[str] = []

    @app.route("/leaver")
    async def leaver() -> str:
        ran.append("leaver")
        return "x"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            handled = asyncio.create_task(client.get("/"))
            await work.began()
            await watch.arrived(1)
            leaving = Leaver(server.url, "/leaver")
            await watch.arrived(1)
            assert (await client.get("/")).status_code == 503
            await watch.arrived(1)
            leaving.leave()
            await watch.left()
            waits = asyncio.create_task(client.get("/"))
            await watch.arrived(1)
            assert not waits.done()
            work.may_end()
            assert [(await handled).status_code, (await waits).status_code] == [200, 200]
    assert ran == []


async def test_client_that_leaves_while_it_is_handled_gives_its_slot_back() -> None:
    """The view of a client that has gone is cancelled, and the next one in line begins."""
    app = limited(1, 2)
    watch, work = Watch(app), Work()
    app.add_url_rule("/slow", "slow", work.__call__)

    @app.route("/")
    async def index() -> str:
        return "page"

    with app.run_in_thread() as server:
        leaving = Leaver(server.url, "/slow")
        await work.began()
        async with client_of(server.url) as client:
            waits = asyncio.create_task(client.get("/"))
            await watch.arrived(2)
            assert not waits.done()
            leaving.leave()
            assert (await waits).text == "page"
            assert work.cancelled == 1
            # Exactly one slot came back: a second view waits for the first.
            second = asyncio.create_task(client.get("/slow"))
            await work.began()
            third = asyncio.create_task(client.get("/"))
            await watch.arrived(2)
            assert not third.done()
            work.may_end()
            assert [(await second).text, (await third).text] == ["done", "page"]


@pytest.mark.parametrize("path", ["/raises", "/missing", "/method", "/hook", "/cached-raises"])
async def test_slot_comes_back_however_a_request_ends(path: str) -> None:
    """Errors in views and hooks, 404 and 405 give the one slot back each time."""
    app = limited(1, 1)

    @app.before_request
    async def before() -> None:
        if request.path == "/hook":
            raise RuntimeError("hook")

    @app.route("/raises")
    async def raises() -> str:
        raise RuntimeError("view")

    @app.route("/cached-raises")
    @app.cache(timeout=60)
    async def cached_raises() -> str:
        raise RuntimeError("view")

    @app.route("/method", methods=["POST"])
    async def method() -> str:
        return "posted"

    @app.route("/")
    async def index() -> str:
        return "page"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            statuses = [(await client.get(path)).status_code for _ in range(5)]
            assert 503 not in statuses
            assert {status >= 400 for status in statuses} == {True}
            assert (await client.get("/")).text == "page"
            responses = await asyncio.gather(*(client.get("/") for _ in range(5)))
    assert {response.status_code for response in responses} <= {200, 503}
    assert 200 in {response.status_code for response in responses}


async def test_never_more_than_the_limit_after_many_ways_to_end() -> None:
    """No slot is given back twice: after errors, streams and hits still only two views run at once."""
    app = limited(2, None)
    watch, work = Watch(app), Work()
    app.add_url_rule("/work", "work", work.__call__)

    @app.route("/raises")
    async def raises() -> str:
        raise RuntimeError("view")

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return "cached"

    @app.route("/stream")
    async def stream() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return Response(chunks())

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            for path in ("/raises", "/cached", "/stream", "/nothing", "/cached") * 3:
                await client.get(path)
            await watch.arrived(15)
            requests = [asyncio.create_task(client.get("/work")) for _ in range(6)]
            await watch.arrived(6)
            assert work.running == 2
            work.may_end()
            await asyncio.gather(*requests)
    assert work.most == 2
