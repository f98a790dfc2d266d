"""Many requests for one cold key: the view runs once, and whatever becomes of it nobody is left waiting."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any, cast

import httpx
import pytest
from hypercorn.middleware import ProxyFixMiddleware
from quart import Response, request, session

from aeros import Cache, Container, WebServer

IDENTITY = {"accept-encoding": "identity"}
PATIENCE = 20.0


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left, which depends on the clock."""
    return response.headers["cache-status"].partition("; ttl=")[0]


class Watch:
    """Middleware that counts who has arrived and who has left, for the test's own thread."""

    def __init__(self, app: WebServer) -> None:
        self._inner: Any = app.asgi_app
        self._arrived = threading.Semaphore(0)
        self._left = threading.Semaphore(0)
        app.asgi_app = self  # type: ignore[method-assign]  # how Quart's users wrap an application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes everything on."""

        async def watched() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._left.release()
            return message

        if scope["type"] == "http":
            self._arrived.release()
        await self._inner(scope, watched, send)

    async def arrived(self, number: int) -> None:
        """Waits until ``number`` more requests have come, and had a moment to get to the cache."""
        await asyncio.to_thread(self._take, self._arrived, number)
        await asyncio.sleep(0.1)

    async def left(self) -> None:
        """Waits until the server knows of one more client that it has left."""
        await asyncio.to_thread(self._take, self._left, 1)
        await asyncio.sleep(0.05)

    def _take(self, counter: threading.Semaphore, number: int) -> None:
        for _ in range(number):
            assert counter.acquire(timeout=PATIENCE), "they did not come"


class Gate:
    """Holds views of the server's thread until the test opens it."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._reached = threading.Semaphore(0)

    async def __call__(self) -> None:
        """Waits within a view; cancelling it frees its thread a moment later."""
        self._reached.release()
        while not self._opened.is_set():
            await asyncio.sleep(0.01)

    async def reached(self, number: int = 1) -> None:
        """Waits until ``number`` more views have come to the gate."""
        for _ in range(number):
            assert await asyncio.to_thread(self._reached.acquire, timeout=PATIENCE), "no view began"

    def open(self) -> None:
        """Lets all through, from now on."""
        self._opened.set()


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with room for as many connections as a test wants."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=IDENTITY, limits=limits, timeout=PATIENCE) as client:
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


@contextmanager
def many_files(number: int) -> Generator[None]:
    """Lets this process have so many files and sockets open, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(number, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def raw_get(url: str, path: str = "/") -> tuple[str, str]:
    """GETs on a connection of its own; returns what ``Cache-Status`` says without the ttl, and the body."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = f"GET {path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    received = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = received.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    status = next(line for line in head.split("\r\n") if line.startswith("cache-status: "))
    return status.removeprefix("cache-status: ").partition("; ttl=")[0], body


def limited(soft_limit: int | None, hard_limit: int | None, cache: Cache | None = None) -> WebServer:
    """Returns an application with these limits."""
    container = Container()
    container.config.from_dict({"soft_limit": soft_limit or "none", "hard_limit": hard_limit or "none"})
    return WebServer(__name__, cache=cache, container=container)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_200_requests_on_a_cold_key_run_the_view_once(is_async: bool) -> None:
    """With the default limits of 32 and 42 nobody of 200 is refused, and the view runs once."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)
    opened = threading.Event()

    async def asynchronous() -> str:
        await gate()
        return f"page {next(numbers)}"

    def synchronous() -> str:
        opened.wait(PATIENCE)
        return f"page {next(numbers)}"

    cached = app.cache(timeout=60)
    app.add_url_rule("/", "index", cached(asynchronous) if is_async else cached(synchronous))
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(200)]
            await watch.arrived(200)
            gate.open()
            opened.set()
            responses = await asyncio.gather(*requests)
    assert Counter((response.status_code, response.text) for response in responses) == {(200, "page 1"): 200}
    assert Counter(map(outcome, responses)) == {
        "aeros; fwd=miss; stored": 1,
        "aeros; fwd=miss; collapsed": 199,
    }
    stats = app.cache_stats()
    assert (stats.misses, stats.collapsed, stats.stores) == (1, 199, 1)


async def test_1000_requests_on_a_cold_key_run_the_view_once() -> None:
    """A thousand clients, each on a connection of its own, get the one page that one run has made."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        await gate()
        return f"page {next(numbers)}"

    with many_files(4096), app.run_in_thread() as server:
        requests = [asyncio.create_task(raw_get(server.url)) for _ in range(1000)]
        await watch.arrived(1000)
        gate.open()
        answers = await asyncio.gather(*requests)
    assert Counter(answers) == {
        ("aeros; fwd=miss; stored", "page 1"): 1,
        ("aeros; fwd=miss; collapsed", "page 1"): 999,
    }
    stats = app.cache_stats()
    assert (stats.misses, stats.collapsed, stats.stores, stats.hits) == (1, 999, 1, 0)


async def test_those_who_wait_leave_the_slots_to_others() -> None:
    """With one slot taken by the leader's view, one more slot serves everybody else meanwhile."""
    app = limited(2, 2)
    gate, watch = Gate(), Watch(app)

    @app.route("/slow")
    @app.cache(timeout=60)
    async def slow() -> str:
        await gate()
        return "slow"

    @app.route("/other")
    async def other() -> str:
        return "other"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/slow")) for _ in range(20)]
            await watch.arrived(20)
            assert (await client.get("/other")).text == "other"
            gate.open()
            assert {response.text for response in await asyncio.gather(*requests)} == {"slow"}


async def test_different_keys_do_not_wait_for_each_other() -> None:
    """A slow view on one path holds nobody up on another one of the same route."""
    app = WebServer(__name__)
    gate = Gate()

    @app.route("/<name>")
    @app.cache(timeout=60)
    async def view(name: str) -> str:
        if name == "slow":
            await gate()
        return name

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            slow = asyncio.create_task(client.get("/slow"))
            await gate.reached()
            assert (await client.get("/quick")).text == "quick"
            assert not slow.done()
            gate.open()
            assert (await slow).text == "slow"


async def test_leader_s_client_leaving_does_not_stop_the_view() -> None:
    """The view that others wait for goes on when the client that began it has left."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)
    cancelled = 0

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        nonlocal cancelled
        number = next(numbers)
        try:
            await gate()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return f"page {number}"

    with app.run_in_thread() as server:
        leader = Leaver(server.url)
        await gate.reached()
        await watch.arrived(1)
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(20)]
            await watch.arrived(20)
            leader.leave()
            await watch.left()
            assert not any(one.done() for one in requests)
            gate.open()
            responses = await asyncio.gather(*requests)
    assert {(response.status_code, response.text) for response in responses} == {(200, "page 1")}
    assert (next(numbers), cancelled) == (2, 0)


async def test_view_of_a_client_that_left_alone_is_stored() -> None:
    """What was begun is finished: the next request is a hit."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        await gate()
        return f"page {next(numbers)}"

    with app.run_in_thread() as server:
        leader = Leaver(server.url)
        await gate.reached()
        leader.leave()
        await watch.left()
        gate.open()
        async with client_of(server.url) as client:
            response = await client.get("/")
    assert response.text == "page 1"
    assert outcome(response) in ("aeros; hit", "aeros; fwd=miss; collapsed")
    assert next(numbers) == 2


async def test_follower_that_leaves_takes_nobody_along() -> None:
    """A client that leaves while it waits is forgotten; the leader and the others are served."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        await gate()
        return f"page {next(numbers)}"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            leader = asyncio.create_task(client.get("/"))
            await gate.reached()
            await watch.arrived(1)
            follower = Leaver(server.url)
            other = asyncio.create_task(client.get("/"))
            await watch.arrived(2)
            follower.leave()
            await watch.left()
            gate.open()
            assert [(await leader).text, (await other).text] == ["page 1", "page 1"]
    assert next(numbers) == 2


async def test_view_that_never_ends_is_stopped_once_nobody_may_wait_longer() -> None:
    """Past the deadline a view whose client has left is cancelled, and those who wait run their own."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=0.2))
    gate, watch = Gate(), Watch(app)
    numbers = count(1)
    cancelled = threading.Event()

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        if number == 1:
            try:
                await gate()
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return f"page {number}"

    with app.run_in_thread() as server:
        leader = Leaver(server.url)
        await gate.reached()
        async with client_of(server.url) as client:
            follower = asyncio.create_task(client.get("/"))
            await watch.arrived(2)
            leader.leave()
            assert (await follower).text == "page 2"
        assert await asyncio.to_thread(cancelled.wait, PATIENCE)


async def test_follower_waits_no_longer_than_the_deadline() -> None:
    """A leader that is slow but alive holds the others up only so long."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=0.1))
    gate = Gate()
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        if number == 1:
            await gate()
        return f"page {number}"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            leader = asyncio.create_task(client.get("/"))
            await gate.reached()
            assert (await client.get("/")).text == "page 2"
            assert not leader.done()
            gate.open()
            assert (await leader).text == "page 1"


async def test_view_that_hangs_holds_up_nobody_who_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the deadline there is a new leader, and what it brings is used while the first one still hangs."""
    now = 1000.0
    monkeypatch.setattr("aeros.caching.flights.monotonic", lambda: now)
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=30))
    hung, second, watch = Gate(), Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        await (hung if number == 1 else second)()
        return f"page {number}"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            first = asyncio.create_task(client.get("/"))
            await hung.reached()
            now += 30.1
            later = [asyncio.create_task(client.get("/")) for _ in range(3)]
            await second.reached()
            await watch.arrived(4)
            second.open()
            responses = await asyncio.gather(*later)
            again = await client.get("/")
            assert not first.done()
            hung.open()
            assert (await first).text == "page 1"
    assert Counter((response.text, outcome(response)) for response in responses) == {
        ("page 2", "aeros; fwd=miss; stored"): 1,
        ("page 2", "aeros; fwd=miss; collapsed"): 2,
    }
    assert (again.text, outcome(again)) == ("page 2", "aeros; hit")


async def test_past_the_bound_of_flights_each_request_runs_its_own_view() -> None:
    """With ``max_flights=1`` those who ask for a second cold page do not wait for each other."""
    app = WebServer(__name__, cache=Cache(max_flights=1))
    gate, together = Gate(), asyncio.Barrier(3)

    @app.route("/<name>")
    @app.cache(timeout=60)
    async def view(name: str) -> str:
        if name == "slow":
            await gate()
        else:
            async with asyncio.timeout(PATIENCE / 2):
                await together.wait()
        return name

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            slow = asyncio.create_task(client.get("/slow"))
            await gate.reached()
            responses = await asyncio.gather(*(client.get("/quick") for _ in range(3)))
            assert [response.text for response in responses] == ["quick"] * 3
            gate.open()
            assert outcome(await slow) == "aeros; fwd=miss; stored"


async def test_leader_that_raises_lets_the_others_run_their_own() -> None:
    """The error is the leader's alone: everybody else gets a page."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        if number == 1:
            await gate()
            raise RuntimeError("the leader fails")
        return "page"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(10)]
            await watch.arrived(10)
            gate.open()
            responses = await asyncio.gather(*requests)
    assert Counter(response.status_code for response in responses) == {200: 9, 500: 1}
    assert next(numbers) == 11


async def test_those_behind_an_uncacheable_view_run_side_by_side() -> None:
    """When the answer may not be shared those who waited run their views in parallel, not in a row."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)
    together = asyncio.Barrier(9)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        number = next(numbers)
        if number == 1:
            await gate()
        else:
            # One after the other would never be nine at once.
            async with asyncio.timeout(PATIENCE / 2):
                await together.wait()
        response = Response("page")
        response.set_cookie("visitor", str(number))
        return response

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(10)]
            await watch.arrived(10)
            gate.open()
            responses = await asyncio.gather(*requests)
    assert {response.status_code for response in responses} == {200}
    assert {outcome(response) for response in responses} == {"aeros; fwd=bypass; detail=set-cookie"}
    assert len({response.cookies["visitor"] for response in responses}) == 10


async def test_what_could_not_be_stored_is_waited_for_again_after_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then requests for it run side by side from the start; a response that is stored ends that."""
    now = 1000.0
    monkeypatch.setattr("aeros.caching.flights.monotonic", lambda: now)
    app = WebServer(__name__)
    watch, together = Watch(app), asyncio.Barrier(10)
    gate, mode = Gate(), "quick"
    running = most = 0

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if mode == "together":
            async with asyncio.timeout(PATIENCE / 2):
                await together.wait()
        elif mode == "gate":
            await gate()
        running -= 1
        response = Response("page")
        if mode != "storable":
            response.set_cookie("visitor", "1")
        return response

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:

            async def ask(number: int) -> set[str]:
                responses = await asyncio.gather(*(client.get("/") for _ in range(number)))
                return {outcome(response) for response in responses}

            refused = {"aeros; fwd=bypass; detail=set-cookie"}
            assert await ask(1) == refused
            now += 9.9
            mode = "together"
            # Nobody leads: ten views begin before the first one has ended.
            assert await ask(10) == refused
            now += 10.1
            mode, most = "gate", 0
            await watch.arrived(11)
            requests = [asyncio.create_task(client.get("/")) for _ in range(10)]
            await watch.arrived(10)
            assert most == 1
            gate.open()
            assert {outcome(response) for response in await asyncio.gather(*requests)} == refused
            mode = "storable"
            assert await ask(1) == {"aeros; fwd=miss; stored"}
            assert await ask(10) == {"aeros; hit"}


EVICTIONS = ["everything", "path", "tag", "thread", "write"]


@pytest.mark.parametrize("how", EVICTIONS)
async def test_what_is_evicted_during_a_run_is_not_stored(how: str) -> None:
    """The view has read what is out of date: its own client gets it, those who wait a later run's result."""
    app = WebServer(__name__)
    gate, later, watch = Gate(), Gate(), Watch(app)
    numbers = count(1)

    @app.route("/page")
    @app.cache(timeout=60, tags="pages")
    async def page() -> str:
        number = next(numbers)
        await (gate if number == 1 else later)()
        return f"page {number}"

    @app.route("/page", methods=["POST"])
    async def write() -> str:
        return "written"

    @app.route("/evict/<what>")
    async def evict(what: str) -> str:
        if what == "everything":
            await app.evict(everything=True)
        elif what == "path":
            await app.evict(path="/page")
        else:
            await app.evict(tags=["pages", "others"])
        return "evicted"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            leader = asyncio.create_task(client.get("/page"))
            await gate.reached()
            waiting = [asyncio.create_task(client.get("/page")) for _ in range(10)]
            await watch.arrived(11)
            if how == "thread":
                app.clear_cache(path="/page")
            elif how == "write":
                assert (await client.post("/page")).text == "written"
            else:
                assert (await client.get(f"/evict/{how}")).text == "evicted"
            waiting += [asyncio.create_task(client.get("/page")) for _ in range(5)]
            await watch.arrived(5)
            gate.open()
            old = await leader
            await later.reached()
            later.open()
            new = await asyncio.gather(*waiting)
            hit = await client.get("/page")
    assert (old.text, outcome(old)) == ("page 1", "aeros; fwd=bypass; detail=evicted")
    assert Counter((response.text, outcome(response)) for response in new) == {
        ("page 2", "aeros; fwd=miss; stored"): 1,
        ("page 2", "aeros; fwd=miss; collapsed"): 14,
    }
    assert (hit.text, outcome(hit)) == ("page 2", "aeros; hit")
    stats = app.cache_stats()
    assert (stats.stores, stats.bypasses["evicted"]) == (1, 1)


async def test_what_others_evict_during_a_run_does_not_matter() -> None:
    """Another path, another tag, and a request that has failed to write leave the run alone."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)

    @app.route("/page")
    @app.cache(timeout=60, tags="pages")
    async def page() -> str:
        await gate()
        return "page"

    @app.route("/page", methods=["POST"])
    async def write() -> tuple[str, int]:
        return "refused", 409

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [asyncio.create_task(client.get("/page")) for _ in range(5)]
            await watch.arrived(5)
            assert app.clear_cache(tags="page") == 0
            assert app.clear_cache(path="/pages") == 0
            assert (await client.post("/page")).status_code == 409
            gate.open()
            responses = await asyncio.gather(*requests)
    assert Counter(map(outcome, responses)) == {
        "aeros; fwd=miss; stored": 1,
        "aeros; fwd=miss; collapsed": 4,
    }


async def test_simultaneous_users_with_sessions_get_their_own_pages() -> None:
    """A cold page that reads the session is made for each of many users, even at the same time."""
    app = WebServer(__name__)
    app.secret_key = "tests only"
    gate, watch = Gate(), Watch(app)

    @app.route("/login/<name>")
    async def login(name: str) -> str:
        session["user"] = name
        return "in"

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        await gate()
        return f"hello {session['user']}"

    names = [f"user{number}" for number in range(20)]
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            cookies: list[str] = []
            for name in names:
                response = await client.get(f"/login/{name}")
                cookies.append(response.headers["set-cookie"].partition(";")[0])
            client.cookies.clear()
            await watch.arrived(len(names))
            requests = [
                asyncio.create_task(client.get("/", headers={"cookie": cookie})) for cookie in cookies
            ]
            await watch.arrived(len(names))
            gate.open()
            responses = await asyncio.gather(*requests)
    assert [response.text for response in responses] == [f"hello {name}" for name in names]


async def test_simultaneous_variants_never_mix() -> None:
    """On a cold key nobody knows yet that it varies; each request gets its own variant all the same."""
    app = WebServer(__name__)
    gate, watch = Gate(), Watch(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        await gate()
        return request.headers["Accept-Language"], {"Vary": "Accept-Language"}

    languages = ["de", "fr", "en"] * 10
    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            requests = [
                asyncio.create_task(client.get("/", headers={"Accept-Language": language}))
                for language in languages
            ]
            await watch.arrived(len(languages))
            gate.open()
            responses = await asyncio.gather(*requests)
    assert [response.text for response in responses] == languages
    assert {response.status_code for response in responses} == {200}


async def test_credentials_neither_lead_nor_follow() -> None:
    """A request with Authorization neither waits for another one's view nor makes others wait."""
    app = WebServer(__name__)
    gate = Gate()

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        user = request.headers.get("Authorization", "nobody")
        if user == "slow":
            await gate()
        return user

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            slow = asyncio.create_task(client.get("/", headers={"Authorization": "slow"}))
            await gate.reached()
            assert (await client.get("/", headers={"Authorization": "ann"})).text == "ann"
            assert (await client.get("/")).text == "nobody"
            gate.open()
            assert (await slow).text == "slow"


async def test_leader_that_leaves_gives_its_slot_back_once() -> None:
    """With a soft limit of 1 the next request is handled after a leader has left, and only one at a time."""
    app = limited(1, 10)
    gate, watch = Gate(), Watch(app)
    running = most = 0

    @app.route("/led")
    @app.cache(timeout=60)
    async def led() -> str:
        await gate()
        return "led"

    @app.route("/other")
    async def other() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return "other"

    with app.run_in_thread() as server:
        leader = Leaver(server.url, "/led")
        await gate.reached()
        leader.leave()
        await watch.left()
        gate.open()
        async with client_of(server.url) as client:
            responses = await asyncio.gather(*(client.get("/other") for _ in range(5)))
    assert [response.text for response in responses] == ["other"] * 5
    assert most == 1


async def test_middleware_that_copies_the_scope_keeps_no_slot() -> None:
    """Behind such middleware a request is still one: its slot comes back, and the cache says what it did."""
    app = limited(1, 1)
    copying: Any = ProxyFixMiddleware(cast(Any, app.asgi_app), mode="legacy", trusted_hops=1)
    app.asgi_app = copying  # type: ignore[method-assign]  # how Quart's users wrap an application

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return request.host

    @app.route("/other")
    async def other() -> str:
        return request.host

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            fields = {"X-Forwarded-Host": "shop.test"}
            responses = [
                await client.get(path, headers=fields) for path in ("/other", "/cached", "/cached", "/other")
            ]
    assert [(response.status_code, response.text) for response in responses] == [(200, "shop.test")] * 4
    assert [outcome(response) for response in responses[1:3]] == ["aeros; fwd=miss; stored", "aeros; hit"]


async def test_expired_key_is_refreshed_by_one_request() -> None:
    """When a response has expired, many simultaneous requests again run the view once."""
    now = 1_000_000_000.0
    app = WebServer(__name__, cache=Cache(clock=lambda: now))
    gate, watch = Gate(), Watch(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        if number == 2:
            await gate()
        return f"page {number}"

    with app.run_in_thread() as server:
        async with client_of(server.url) as client:
            assert (await client.get("/")).text == "page 1"
            await watch.arrived(1)
            now += 61
            requests = [asyncio.create_task(client.get("/")) for _ in range(50)]
            await watch.arrived(50)
            gate.open()
            responses = await asyncio.gather(*requests)
    assert {response.text for response in responses} == {"page 2"}
    assert next(numbers) == 3
