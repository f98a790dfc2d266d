"""Stale responses: used at once while one request in the background replaces them, or instead of errors."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import redis
import redis.asyncio
from quart import Blueprint, Response, abort, g, request, session
from quart.signals import got_request_exception
from quart.typing import ResponseReturnValue

from aeros import Cache, RedisStore, WebServer
from aeros.caching.stats import CacheStats

if TYPE_CHECKING:
    from tests.conftest import RedisProcess

IDENTITY = {"accept-encoding": "identity"}
PATIENCE = 20.0
Page = tuple[str, dict[str, str]]
REVALIDATED = "detail=stale-while-revalidate"
RESCUED = "detail=stale-if-error"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Returns the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """By which responses become stale."""
    return Clock()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By which pauses after a failure pass."""
    stopped = Clock(1000.0)
    monkeypatch.setattr("aeros.caching.flights.monotonic", stopped)
    return stopped


@pytest.fixture
def app(clock: Clock) -> WebServer:
    """An application whose cache goes by the clock."""
    app = WebServer(__name__, cache=Cache(clock=clock))
    app.secret_key = "tests only"
    return app


Serve = Callable[[WebServer], httpx.Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> httpx.Client:
            server = stack.enter_context(app.run_in_thread())
            client = httpx.Client(base_url=server.url, headers=IDENTITY, timeout=PATIENCE)
            return stack.enter_context(client)

        yield start


class Gate:
    """Holds views of the server's thread until the test opens it."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._reached = threading.Semaphore(0)

    async def __call__(self) -> None:
        """Waits within a view."""
        self._reached.release()
        while not self._opened.is_set():
            await asyncio.sleep(0.005)

    def reached(self) -> None:
        """Waits until one more view has come to the gate."""
        assert self._reached.acquire(timeout=PATIENCE), "no view began"

    def is_reached(self) -> bool:
        """Tells whether one more view has come to the gate."""
        return self._reached.acquire(blocking=False)

    def open(self) -> None:
        """Lets all through, from now on."""
        self._opened.set()


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.005)


def settled(app: WebServer, refreshes: int) -> CacheStats:
    """Waits until so many refreshes have ended, one way or the other; returns the counters."""
    cache: Any = app.current_cache()

    def is_over() -> bool:
        return app.cache_stats().refreshes >= refreshes and not any(
            flights for flights in cache._flights._flights.values()
        )

    eventually(is_over)
    return app.cache_stats()


def status_of(response: httpx.Response) -> str:
    """Returns what ``Cache-Status`` says after the cache's name."""
    return response.headers["cache-status"].removeprefix("aeros; ")


def is_stored(response: httpx.Response) -> bool:
    """Tells whether the view ran for this request and its response was stored."""
    return status_of(response) in ("fwd=miss; stored", "fwd=stale; stored")


def add_page(app: WebServer, run: Callable[[int], Awaitable[ResponseReturnValue]], **options: Any) -> None:
    """Adds a view at "/" that is told how many times it was called before."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60, **options)
    async def index() -> ResponseReturnValue:
        return await run(next(numbers))


async def page(number: int) -> ResponseReturnValue:
    """Is a view that never fails."""
    return f"page {number}"


# While revalidating


async def test_200_simultaneous_stale_hits_are_answered_at_once_and_refresh_once(
    app: WebServer, clock: Clock
) -> None:
    """All get the old response while the one refresh has not even ended; then there is a new one."""
    gate = Gate()

    async def run(number: int) -> ResponseReturnValue:
        if number > 1:
            await gate()
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=30)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with app.run_in_thread() as server:
        async with httpx.AsyncClient(
            base_url=server.url, headers=IDENTITY, limits=limits, timeout=PATIENCE
        ) as client:
            first = await client.get("/")
            assert (first.text, status_of(first)) == ("page 1", "fwd=miss; stored")
            clock.now += 61
            responses = await asyncio.gather(*(client.get("/") for _ in range(200)))
            assert {response.text for response in responses} == {"page 1"}
            assert {status_of(response) for response in responses} == {f"hit; ttl=-1; {REVALIDATED}"}
            assert {response.headers["age"] for response in responses} == {"61"}
            assert {response.headers["date"] for response in responses} == {"Sun, 09 Sep 2001 01:46:40 GMT"}
            await asyncio.to_thread(gate.reached)
            assert not gate.is_reached()
            gate.open()
            stats = await asyncio.to_thread(settled, app, 1)
            fresh = await client.get("/")
    assert (fresh.text, status_of(fresh)) == ("page 2", "hit; ttl=60")
    assert fresh.headers["age"] == "0"
    assert (stats.misses, stats.stale, stats.refreshes, stats.stores) == (1, 200, 1, 2)
    assert (stats.hits, stats.refresh_failures, stats.collapsed) == (0, 0, 0)


def test_stale_is_used_for_its_time_and_no_longer(app: WebServer, serve: Serve, clock: Clock) -> None:
    """From the end of the lifetime to the end of the window; then the client waits for the view."""
    gate = Gate()

    async def run(number: int) -> ResponseReturnValue:
        if number == 2:
            await gate()
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=30)
    client = serve(app)
    client.get("/")
    clock.now += 59.5
    assert status_of(client.get("/")) == "hit; ttl=0"
    clock.now += 0.5
    assert status_of(client.get("/")) == f"hit; ttl=0; {REVALIDATED}"
    clock.now += 29.5
    assert status_of(client.get("/")) == f"hit; ttl=-29; {REVALIDATED}"
    gate.open()
    settled(app, 1)
    clock.now += 90.5
    late = client.get("/")
    assert (late.text, status_of(late)) == ("page 3", "fwd=miss; stored")
    assert "age" not in late.headers
    assert app.cache_stats().refreshes == 1


def test_refresh_runs_the_whole_application(app: WebServer, serve: Serve, clock: Clock) -> None:
    """Hooks, processors, decorators, routing and fields are those of the request that found it stale."""
    runs: list[dict[str, object]] = []
    finished: list[str] = []
    blueprint = Blueprint("shop", __name__, url_prefix="/shop")

    @app.before_request
    async def before() -> None:
        g.trail = ["before"]

    @blueprint.before_request
    def before_shop() -> None:
        g.trail.append("shop")

    @app.url_value_preprocessor
    def process(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.number = (values or {}).pop("number")

    def checked(view: Callable[..., Awaitable[Page]]) -> Callable[..., Awaitable[Page]]:
        @wraps(view)
        async def wrapped(**arguments: object) -> Page:
            g.trail.append("decorator")
            return await view(**arguments)

        return wrapped

    @blueprint.route("/<int:number>/<path:rest>")
    @checked
    @app.cache(timeout=60, query_string=True, stale_while_revalidate=30, key=lambda: str(g.number))
    async def view(rest: str) -> Page:
        runs.append(
            {
                "trail": list(g.trail),
                "arguments": (g.number, rest),
                "target": (request.method, request.url, request.query_string),
                "route": (request.endpoint, request.blueprint),
                "client": request.remote_addr,
                "fields": {name: value for name, value in request.headers.items() if name.startswith("X-")},
                "body": await request.get_data(),
            }
        )
        return f"page {len(runs)}", {"X-Page": "1"}

    @app.after_request
    async def after(response: Response) -> Response:
        finished.append(response.headers["X-Page"])
        return response

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        finished.append(f"over {error}")

    app.register_blueprint(blueprint)
    client = serve(app)
    target, fields = "/shop/7/a/b%20c?x=1&y=2", {"X-One": "1", "X-Two": "2"}
    assert client.get(target, headers=fields).text == "page 1"
    clock.now += 61
    assert status_of(client.get(target, headers=fields)) == f"hit; ttl=-1; {REVALIDATED}"
    settled(app, 1)
    eventually(lambda: len(finished) == 6)
    assert runs[0] == runs[1]
    assert runs[1]["trail"] == ["before", "shop", "decorator"]
    assert runs[1]["arguments"] == (7, "a/b c")
    assert runs[1]["route"] == ("shop.view", "shop")
    assert Counter(finished) == {"1": 3, "over None": 3}
    fresh = client.get(target, headers=fields)
    assert (fresh.text, status_of(fresh)) == ("page 2", "hit; ttl=60")


def test_refresh_asks_for_the_whole_without_conditions_and_body(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """The client's conditions, ranges and content do not go with it; all other fields do."""
    asked: list[dict[str, str]] = []
    bodies: list[object] = []

    async def run(number: int) -> ResponseReturnValue:
        asked.append({name.lower(): value for name, value in request.headers.items()})
        bodies.append(await request.get_data())
        return f"page {number} " * 100

    add_page(app, run, stale_while_revalidate=1000)
    client = serve(app)
    tag = client.get("/").headers["etag"]
    conditions = [
        ({"If-None-Match": tag}, 304),
        ({"If-Modified-Since": "Sun, 09 Sep 2001 01:46:40 GMT"}, 200),
        ({"If-Match": '"other"', "If-Unmodified-Since": "Sun, 09 Sep 2001 01:46:40 GMT"}, 200),
        ({"Range": "bytes=0-5"}, 206),
        ({"Range": "bytes=0-5", "If-Range": '"other"'}, 200),
        ({"Content-Length": "0", "Content-Type": "text/plain"}, 200),
    ]
    clock.now += 61
    for number, (fields, expected) in enumerate(conditions, 1):
        if "If-None-Match" in fields:
            fields["If-None-Match"] = client.get("/").headers["etag"] if number > 1 else tag
        stale = client.get("/", headers={**fields, "Accept-Language": "de", "Cookie": "a=1"})
        assert stale.status_code == expected
        assert REVALIDATED in status_of(stale)
        settled(app, number)
        fresh = client.get("/")
        assert (fresh.status_code, fresh.text) == (200, f"page {number + 1} " * 100)
        assert status_of(fresh) == "hit; ttl=60"
        last = asked[-1]
        assert not {name.lower() for name in fields} & set(last)
        assert (last["accept-language"], last["cookie"]) == ("de", "a=1")
        assert last["host"] == asked[0]["host"]
        clock.now += 61
    assert bodies == [b""] * (len(conditions) + 1)


def test_refresh_goes_on_when_its_client_has_left(app: WebServer, serve: Serve, clock: Clock) -> None:
    """Whoever found it stale has its answer and is gone; the new response is stored all the same."""
    gate = Gate()

    async def run(number: int) -> ResponseReturnValue:
        if number > 1:
            await gate()
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=30)
    client = serve(app)
    client.get("/")
    clock.now += 61
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), PATIENCE) as leaver:
        host = client.base_url.netloc.decode()
        leaver.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while chunk := leaver.recv(65536):
            received += chunk
    assert received.endswith(b"page 1")
    assert REVALIDATED.encode() in received
    gate.reached()
    gate.open()
    assert settled(app, 1).stores == 2
    fresh = client.get("/")
    assert (fresh.text, status_of(fresh)) == ("page 2", "hit; ttl=60")


def test_head_on_a_stale_response_refreshes_it_as_get(app: WebServer, serve: Serve, clock: Clock) -> None:
    """A HEAD gets the stale fields at once, and what replaces the response has a body."""
    methods: list[str] = []

    async def run(number: int) -> ResponseReturnValue:
        methods.append(request.method)
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=30)
    client = serve(app)
    client.get("/")
    clock.now += 61
    stale = client.head("/")
    assert (stale.content, stale.headers["content-length"]) == (b"", "6")
    assert status_of(stale) == f"hit; ttl=-1; {REVALIDATED}"
    assert settled(app, 1).stores == 2
    fresh = client.get("/")
    assert (fresh.text, status_of(fresh)) == ("page 2", "hit; ttl=60")
    assert methods == ["GET", "GET"]


def test_each_variant_is_refreshed_for_itself(app: WebServer, serve: Serve, clock: Clock) -> None:
    """A refresh has the fields that selected the stale response, and replaces no other one."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60, stale_while_revalidate=30)
    async def index() -> Page:
        return f"{request.headers['Accept-Language']} {next(numbers)}", {"Vary": "Accept-Language"}

    client = serve(app)

    def ask(language: str) -> str:
        return client.get("/", headers={"Accept-Language": language}).text

    assert [ask("de"), ask("fr")] == ["de 1", "fr 2"]
    clock.now += 61
    assert ask("de") == "de 1"
    settled(app, 1)
    assert [ask("de"), ask("fr")] == ["de 3", "fr 2"]
    settled(app, 2)
    assert [ask("de"), ask("fr")] == ["de 3", "fr 4"]


def test_what_was_evicted_during_a_refresh_does_not_come_back(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """Neither the stale response nor what a refresh brings that began before the eviction."""
    gate = Gate()

    async def run(number: int) -> ResponseReturnValue:
        if number == 2:
            await gate()
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=30, tags="pages")
    client = serve(app)
    client.get("/")
    clock.now += 61
    assert client.get("/").text == "page 1"
    gate.reached()
    assert app.clear_cache(tags="pages") == 1
    gate.open()
    settled(app, 1)
    after = client.get("/")
    assert (after.text, status_of(after)) == ("page 3", "fwd=miss; stored")
    stats = app.cache_stats()
    assert (stats.stores, stats.refresh_failures, stats.bypasses["evicted"]) == (2, 0, 1)


# A refresh that fails


async def raises(number: int) -> ResponseReturnValue:
    """Fails as a bug does."""
    raise RuntimeError("the database is away")


async def returns_500(number: int) -> ResponseReturnValue:
    """Says that it failed."""
    return "oops", 500


async def returns_503(number: int) -> ResponseReturnValue:
    """Says that it failed, and that this may be stored."""
    return "oops", 503, {"Cache-Control": "public, max-age=60"}


async def aborts_503(number: int) -> ResponseReturnValue:
    """Says that it failed, by an exception."""
    abort(503)


async def fails_in_a_hook(number: int) -> ResponseReturnValue:
    """Succeeds, but the hook after it fails."""
    g.fails = True
    return "page"


@pytest.mark.parametrize("failing", [raises, returns_500, returns_503, aborts_503, fails_in_a_hook])
def test_failing_refresh_keeps_the_stale_response_and_backs_off(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock, failing: Callable[[int], Awaitable[Any]]
) -> None:
    """It is tried again after 1, 2, 4, 8, 16 and then every 30 seconds, however many ask meanwhile."""
    runs = 0
    is_failing = True

    @app.after_request
    async def after(response: Response) -> Response:
        if g.pop("fails", False):
            raise RuntimeError("the hook fails")
        return response

    async def run(number: int) -> ResponseReturnValue:
        nonlocal runs
        runs = number
        return await failing(number) if number > 1 and is_failing else f"page {number}"

    add_page(app, run, stale_while_revalidate=1000, statuses={503: 60})
    client = serve(app)
    client.get("/")
    clock.now += 61

    def ask(times: int) -> None:
        for _ in range(times):
            stale = client.get("/")
            assert (stale.status_code, stale.text) == (200, "page 1")
            assert status_of(stale) == f"hit; ttl=-1; {REVALIDATED}"

    for failures, pause in enumerate([1, 2, 4, 8, 16, 30, 30], 1):
        ask(1)
        assert settled(app, failures).refresh_failures == failures
        pauses.now += pause - 0.01
        ask(3)
        assert runs == failures + 1
        pauses.now += 0.01
    is_failing = False
    ask(1)
    stats = settled(app, 8)
    assert (stats.refreshes, stats.refresh_failures, stats.stores) == (8, 7, 2)
    fresh = client.get("/")
    assert (fresh.text, status_of(fresh)) == ("page 9", "hit; ttl=60")
    # What went well once begins anew.
    clock.now += 61
    is_failing = True
    assert client.get("/").text == "page 9"
    assert settled(app, 9).refresh_failures == 8
    pauses.now += 1
    assert client.get("/").text == "page 9"
    assert settled(app, 10).refresh_failures == 9


@pytest.mark.parametrize("how", ["raise", "answer"])
def test_refresh_that_does_not_get_to_its_view_backs_off(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock, how: str
) -> None:
    """A hook before the view that fails or answers itself is not asked again at each stale hit."""
    refreshing = 0

    @app.before_request
    async def before() -> ResponseReturnValue | None:
        nonlocal refreshing
        # Stale hits run their hooks, too; what tells a refresh is that it has no conditions.
        if clock.now == 1_000_000_000 or "If-None-Match" in request.headers:
            return None
        refreshing += 1
        if how == "raise":
            raise RuntimeError("the hook fails")
        return "closed", 503

    add_page(app, page, stale_while_revalidate=1000)
    client = serve(app)
    client.get("/")
    clock.now += 61

    def ask(times: int) -> None:
        for _ in range(times):
            assert client.get("/", headers={"If-None-Match": "*"}).status_code == 304

    ask(1)
    eventually(lambda: app.cache_stats().refresh_failures == 1)
    ask(20)
    assert refreshing == 1
    pauses.now += 1
    ask(1)
    eventually(lambda: app.cache_stats().refresh_failures == 2)
    pauses.now += 1.9
    ask(20)
    assert refreshing == 2


def test_refresh_that_hangs_is_ended_and_backs_off(serve: Serve, clock: Clock) -> None:
    """Past the deadline it is cancelled; the stale response is used all the time, by everybody."""
    app = WebServer(__name__, cache=Cache(clock=clock, flight_deadline_seconds=0.3))
    gate, cancelled = Gate(), threading.Event()
    runs = 0

    async def run(number: int) -> ResponseReturnValue:
        nonlocal runs
        runs = number
        if number > 1:
            try:
                await gate()
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return f"page {number}"

    add_page(app, run, stale_while_revalidate=1000)
    client = serve(app)
    client.get("/")
    clock.now += 61
    while not cancelled.is_set():
        stale = client.get("/")
        assert (stale.text, status_of(stale)) == ("page 1", f"hit; ttl=-1; {REVALIDATED}")
    assert runs == 2
    before = time.monotonic()
    eventually(lambda: app.cache_stats().refresh_failures == 1)
    assert client.get("/").text == "page 1"
    assert runs == 2 or time.monotonic() - before >= 1
    gate.open()


def test_failing_refresh_is_logged(
    app: WebServer, serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody sees its error but the log, and those whom Quart tells of errors."""
    errors: list[BaseException | None] = []

    async def note(sender: object, exception: BaseException | None = None) -> None:
        errors.append(exception)

    async def run(number: int) -> ResponseReturnValue:
        return await raises(number) if number > 1 else "page"

    add_page(app, run, stale_while_revalidate=30)
    with got_request_exception.connected_to(cast(Any, note), app):
        client = serve(app)
        client.get("/")
        clock.now += 61
        client.get("/")
        eventually(lambda: any(record.exc_info for record in caplog.records))
        assert settled(app, 1).refresh_failures == 1
    assert [str(error) for error in errors] == ["the database is away"]
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.levelno for record in logged] == [logging.ERROR]
    assert "the database is away" in caplog.text


# A refresh that brings what may not be stored


async def sets_a_cookie(number: int) -> ResponseReturnValue:
    """Brings what is for one client."""
    response = Response("for one")
    response.set_cookie("visitor", "1")
    return response


async def reads_the_session(number: int) -> ResponseReturnValue:
    """Brings what is for one user."""
    return f"hello {session.get('user')}"


async def is_private(number: int) -> ResponseReturnValue:
    """Brings what may not be shared."""
    return "for one", {"Cache-Control": "private"}


async def returns_404(number: int) -> ResponseReturnValue:
    """Says that the page is no more."""
    return "gone", 404


async def aborts_404(number: int) -> ResponseReturnValue:
    """Says it by an exception."""
    abort(404)


async def raises_lookup_error(number: int) -> ResponseReturnValue:
    """Says it by an exception of the domain, for which there is a handler."""
    raise LookupError


@pytest.mark.parametrize(
    ("bringing", "reason", "status"),
    [
        (sets_a_cookie, "set-cookie", 200),
        (reads_the_session, "session", 200),
        (is_private, "private", 200),
        (returns_404, "status", 404),
        (aborts_404, None, 404),
        (raises_lookup_error, None, 404),
    ],
)
def test_refresh_that_may_not_be_stored_makes_the_stale_response_leave(
    app: WebServer,
    serve: Serve,
    clock: Clock,
    bringing: Callable[[int], Awaitable[Any]],
    reason: str | None,
    status: int,
) -> None:
    """What the page is now is known, and is not what was stored: the next client gets its own."""

    @app.errorhandler(LookupError)
    async def missing(error: LookupError) -> ResponseReturnValue:
        return "no such page", 404

    async def run(number: int) -> ResponseReturnValue:
        return await bringing(number) if number > 1 else "page 1"

    add_page(app, run, stale_while_revalidate=1000, stale_if_error=1000)
    client = serve(app)
    client.get("/")
    clock.now += 61
    stale = client.get("/")
    assert (stale.status_code, stale.text) == (200, "page 1")
    assert "set-cookie" not in stale.headers
    stats = settled(app, 1)
    assert (stats.entries, stats.refresh_failures, stats.stores) == (0, 0, 1)
    after = client.get("/")
    assert after.status_code == status
    assert after.text != "page 1"
    assert status_of(after) == ("fwd=miss" if reason is None else f"fwd=bypass; detail={reason}")


# Instead of an error


async def returns_status(number: int) -> ResponseReturnValue:
    """Returns the status that the client asks for."""
    return "oops", int(request.headers["X-Status"])


async def aborts_status(number: int) -> ResponseReturnValue:
    """Raises it."""
    abort(int(request.headers["X-Status"]))


@pytest.mark.parametrize("failing", [returns_status, aborts_status])
def test_stale_is_used_for_four_statuses_only(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock, failing: Callable[[int], Awaitable[Any]]
) -> None:
    """500, 502, 503 and 504 (RFC 5861 §4), inside the window; whatever else a view says is its answer."""

    async def run(number: int) -> ResponseReturnValue:
        return await failing(number) if "X-Status" in request.headers else "page"

    add_page(app, run, stale_if_error=30)
    client = serve(app)
    client.get("/")
    clock.now += 70
    for status in (400, 403, 404, 410, 418, 429, 501, 505):
        assert client.get("/", headers={"X-Status": str(status)}).status_code == status
    for number, status in enumerate((500, 502, 503, 504), 1):
        pauses.now += 60
        stale = client.get("/", headers={"X-Status": str(status)})
        assert (stale.status_code, stale.text, stale.headers["age"]) == (200, "page", "70")
        assert status_of(stale) == f"fwd=stale; fwd-status={status}; ttl=-10; {RESCUED}"
        assert (app.cache_stats().stale, app.cache_stats().refresh_failures) == (number, number)
    clock.now += 19.5
    pauses.now += 60
    assert client.get("/", headers={"X-Status": "500"}).text == "page"
    clock.now += 1
    late = client.get("/", headers={"X-Status": "500"})
    assert late.status_code == 500
    assert "age" not in late.headers
    assert app.cache_stats().stale == 5


def test_stale_is_used_for_an_exception_which_is_logged_and_signalled(
    app: WebServer, serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the old page; those who look after the application learn of the error, once."""
    errors: list[BaseException | None] = []

    async def note(sender: object, exception: BaseException | None = None) -> None:
        errors.append(exception)

    async def run(number: int) -> ResponseReturnValue:
        return await raises(number) if number > 1 else "page"

    add_page(app, run, stale_if_error=30)
    with got_request_exception.connected_to(cast(Any, note), app):
        client = serve(app)
        client.get("/")
        clock.now += 61
        stale = client.get("/")
    assert (stale.status_code, stale.text, stale.headers["age"]) == (200, "page", "61")
    assert status_of(stale) == f"fwd=stale; fwd-status=500; ttl=-1; {RESCUED}"
    assert [type(error) for error in errors] == [RuntimeError]
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.levelno for record in logged] == [logging.ERROR]
    assert "the database is away" in caplog.text


def test_failing_view_is_left_alone_for_a_while(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock
) -> None:
    """After a failure the stale response is used without a try, for 1 second, then 2, and so on."""
    runs = 0

    async def run(number: int) -> ResponseReturnValue:
        nonlocal runs
        runs = number
        return await raises(number) if 1 < number < 4 else f"page {number}"

    add_page(app, run, stale_if_error=30)
    client = serve(app)
    client.get("/")
    clock.now += 61
    failed = f"fwd=stale; fwd-status=500; ttl=-1; {RESCUED}"
    waiting = f"hit; ttl=-1; {RESCUED}"
    for pause in (1, 2):
        assert status_of(client.get("/")) == failed
        pauses.now += pause - 0.01
        stale = client.get("/")
        assert (stale.text, status_of(stale), stale.headers["age"]) == ("page 1", waiting, "61")
        pauses.now += 0.01
    assert runs == 3
    fresh = client.get("/")
    assert (fresh.text, status_of(fresh)) == ("page 4", "fwd=stale; stored")
    assert status_of(client.get("/")) == "hit; ttl=60"
    stats = app.cache_stats()
    assert (stats.stale, stats.refresh_failures, stats.refreshes) == (4, 2, 0)


@pytest.mark.parametrize("status", [404, 200, 503])
def test_error_handler_of_the_user_is_listened_to_first(
    app: WebServer, serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """What it makes of an exception is the answer, and is not stored; unless that is an error as well."""
    handled = count(1)

    @app.errorhandler(LookupError)
    async def sorry(error: LookupError) -> ResponseReturnValue:
        return f"sorry {next(handled)}", status, {"Cache-Control": "max-age=1000"}

    async def run(number: int) -> ResponseReturnValue:
        return await raises_lookup_error(number) if number > 1 else "page"

    add_page(app, run, stale_if_error=1000)
    client = serve(app)
    client.get("/")
    clock.now += 61
    responses = [client.get("/"), client.get("/")]
    assert not [record for record in caplog.records if record.exc_info]
    if status == 503:
        assert [(response.status_code, response.text) for response in responses] == [(200, "page")] * 2
        assert status_of(responses[0]) == f"fwd=stale; fwd-status=503; ttl=-1; {RESCUED}"
        return
    assert [(response.status_code, response.text) for response in responses] == [
        (status, "sorry 1"),
        (status, "sorry 2"),
    ]
    assert not any("hit" in status_of(response) or is_stored(response) for response in responses)
    assert app.cache_stats().stores == 1


def test_error_handler_that_fails_itself_is_an_error(
    app: WebServer, serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where what the page needs is away, the error page may need it as well: the old page is used."""

    @app.errorhandler(LookupError)
    async def sorry(error: LookupError) -> ResponseReturnValue:
        raise RuntimeError("the error page fails")

    async def run(number: int) -> ResponseReturnValue:
        return await raises_lookup_error(number) if number > 1 else "page"

    add_page(app, run, stale_if_error=30)
    client = serve(app)
    client.get("/")
    clock.now += 61
    stale = client.get("/")
    assert (stale.status_code, stale.text) == (200, "page")
    assert status_of(stale) == f"fwd=stale; fwd-status=500; ttl=-1; {RESCUED}"
    assert "the error page fails" in caplog.text
    clock.now += 30
    assert client.get("/").status_code == 500


async def test_those_who_wait_for_a_view_that_fails_get_the_stale_response_too(
    app: WebServer, clock: Clock
) -> None:
    """One runs the view, and all get the old page, with its age."""
    gate, arrived = Gate(), threading.Semaphore(0)
    runs = 0

    @app.before_request
    async def before() -> None:
        arrived.release()

    async def run(number: int) -> ResponseReturnValue:
        nonlocal runs
        runs = number
        if number > 1:
            await gate()
            raise RuntimeError("the database is away")
        return "page"

    add_page(app, run, stale_if_error=30)
    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers=IDENTITY, timeout=PATIENCE) as client:
            await client.get("/")
            clock.now += 61
            requests = [asyncio.create_task(client.get("/")) for _ in range(50)]
            for _ in range(51):
                assert await asyncio.to_thread(arrived.acquire, timeout=PATIENCE)
            await asyncio.sleep(0.1)  # from their hooks to the place where they wait
            gate.open()
            responses = await asyncio.gather(*requests)
    assert {(response.status_code, response.text) for response in responses} == {(200, "page")}
    assert Counter(map(status_of, responses)) == {
        f"fwd=stale; fwd-status=500; ttl=-1; {RESCUED}": 1,
        f"fwd=stale; collapsed; ttl=-1; {RESCUED}": 49,
    }
    assert {response.headers.get("age") for response in responses} == {"61"}
    assert runs == 2
    stats = app.cache_stats()
    assert (stats.stale, stats.refresh_failures, stats.collapsed) == (50, 1, 0)


def test_both_windows_work_one_after_the_other(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock
) -> None:
    """First nobody waits; when that time is over a client waits for the view, and is rescued if it fails."""

    async def run(number: int) -> ResponseReturnValue:
        return await raises(number) if number > 1 else "page"

    add_page(app, run, stale_while_revalidate=10, stale_if_error=100)
    client = serve(app)
    client.get("/")
    clock.now += 65
    assert status_of(client.get("/")) == f"hit; ttl=-5; {REVALIDATED}"
    assert settled(app, 1).refresh_failures == 1
    clock.now += 10
    assert status_of(client.get("/")) == f"hit; ttl=-15; {RESCUED}"
    pauses.now += 1
    assert status_of(client.get("/")) == f"fwd=stale; fwd-status=500; ttl=-15; {RESCUED}"
    clock.now += 100
    pauses.now += 2
    assert client.get("/").status_code == 500


# What the response itself says


def test_windows_that_the_response_states_count(
    app: WebServer, serve: Serve, clock: Clock, pauses: Clock
) -> None:
    """``stale-while-revalidate`` and ``stale-if-error`` of RFC 5861, where the route says nothing."""
    is_failing = False

    @app.route("/<which>")
    @app.cache()
    async def index(which: str) -> ResponseReturnValue:
        if is_failing:
            return "oops", 503
        return "page", {"Cache-Control": f"max-age=60, {which}=30"}

    client = serve(app)
    for path in ("/stale-while-revalidate", "/stale-if-error", "/stale-whatever"):
        client.get(path)
    clock.now += 75
    is_failing = True
    assert status_of(client.get("/stale-while-revalidate")) == f"hit; ttl=-15; {REVALIDATED}"
    rescued = client.get("/stale-if-error")
    assert status_of(rescued) == f"fwd=stale; fwd-status=503; ttl=-15; {RESCUED}"
    assert client.get("/stale-whatever").status_code == 503
    settled(app, 1)
    clock.now += 16
    pauses.now += 60
    for path in ("/stale-while-revalidate", "/stale-if-error"):
        assert client.get(path).status_code == 503


def test_windows_of_the_route_beat_those_of_the_response(app: WebServer, serve: Serve, clock: Clock) -> None:
    """Also where the route says 0: then nothing stale is used."""
    is_failing = False

    @app.route("/")
    @app.cache(timeout=60, stale_while_revalidate=0, stale_if_error=0)
    async def index() -> ResponseReturnValue:
        if is_failing:
            return "oops", 503
        return "page", {"Cache-Control": "stale-while-revalidate=1000, stale-if-error=1000"}

    client = serve(app)
    client.get("/")
    clock.now += 61
    is_failing = True
    assert client.get("/").status_code == 503
    assert app.cache_stats().stale == 0


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_responses_that_forbid_it_are_never_used_stale(
    app: WebServer, serve: Serve, clock: Clock, directive: str
) -> None:
    """RFC 9111 §4.2.4: whatever the route and the response say besides."""
    is_failing = False

    @app.route("/")
    @app.cache(timeout=60, stale_while_revalidate=1000, stale_if_error=1000)
    async def index() -> ResponseReturnValue:
        if is_failing:
            return "oops", 503
        return "page", {"Cache-Control": f"{directive}, stale-while-revalidate=1000"}

    client = serve(app)
    client.get("/")
    clock.now += 61
    is_failing = True
    assert client.get("/").status_code == 503
    assert (app.cache_stats().stale, app.cache_stats().refreshes) == (0, 0)


# The end


@pytest.mark.parametrize("where", ["memory", "redis"])
def test_shutdown_ends_a_refresh_that_is_running(
    clock: Clock, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, where: str
) -> None:
    """The view is cancelled, its hooks for the end run, then the cache is closed, and nobody complains."""
    ended: list[str] = []

    class NotingCache(Cache):
        async def close(self) -> None:
            ended.append("cache")
            await super().close()

    server: RedisProcess | None = request.getfixturevalue("redis_server") if where == "redis" else None
    store = None if server is None else RedisStore(lambda: cast(Any, redis.asyncio.Redis(port=server.port)))
    app = WebServer(__name__, cache=NotingCache(store, clock=clock))
    gate = Gate()

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        await asyncio.sleep(0.01)
        ended.append("request")

    @app.after_serving
    async def after_serving() -> None:
        ended.append("serving")

    async def run(number: int) -> ResponseReturnValue:
        if number > 1:
            try:
                await gate()
            finally:
                ended.append("view")
        return f"page {number}"

    def locks() -> int:
        if server is None:
            return 0
        with redis.Redis(port=server.port) as asking:
            return len(cast(Any, asking).keys("*lock*"))

    add_page(app, run, stale_while_revalidate=30)
    with app.run_in_thread() as running, httpx.Client(base_url=running.url, headers=IDENTITY) as client:
        client.get("/")
        clock.now += 61
        assert client.get("/").text == "page 1"
        gate.reached()
        assert locks() == (server is not None)
        ended.clear()
        before = time.monotonic()
    assert time.monotonic() - before < PATIENCE / 2
    assert ended == ["serving", "view", "request", "cache"]
    assert locks() == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
