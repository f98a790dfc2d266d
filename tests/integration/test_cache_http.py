"""What the RFCs say of caches, each rule over a real socket and under the section that it is from."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import formatdate
from itertools import count
from typing import Protocol, cast

import brotli
import httpx
import pytest
from http_sf import StructuredFieldError, Token, parse
from quart import Response, abort, request, session
from quart.typing import ResponseReturnValue

from aeros import Cache, WebServer
from aeros.caching.view import CachedDecorator

IDENTITY = {"accept-encoding": "identity"}
STORED = "aeros; fwd=miss; stored"
HIT = "aeros; hit"
NOW = 1_700_000_000.0
PATIENCE = 20.0
STABLE_BODY = "".join(f"line {number}\n" for number in range(400))


class Clock:
    """The cache's clock, which a test sets forward."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Returns the seconds since the epoch."""
        return self.now


class Resource:
    """A path of a running application, and a client for it."""

    def __init__(self, client: httpx.Client, path: str = "/") -> None:
        self.client = client
        self.path = path

    def get(self, **headers: str) -> httpx.Response:
        """GETs without content coding unless the headers ask for one."""
        return self.ask("GET", **headers)

    def ask(self, method: str, **headers: str) -> httpx.Response:
        """Sends a request without content coding unless the headers ask for one."""
        return self.client.request(method, self.path, headers=fields_of(headers))

    def raw_body(self, **headers: str) -> tuple[httpx.Response, bytes]:
        """GETs and returns the bytes of the body as they were sent, not decoded."""
        with self.client.stream("GET", self.path, headers=fields_of(headers)) as response:
            return response, b"".join(response.iter_raw())

    def exchange(self, *lines: str) -> bytes:
        """GETs with these lines of fields as they are written, and returns all that comes back."""
        host, port = self.client.base_url.host, self.client.base_url.port or 80
        own = (f"GET {self.path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close")
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.sendall("\r\n".join([*own, *lines, "", ""]).encode("latin-1"))
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return received


def fields_of(headers: dict[str, str]) -> dict[str, str]:
    """Returns request fields from keyword arguments."""
    return {**IDENTITY, **{name.replace("_", "-"): value for name, value in headers.items()}}


Make = Callable[[int], ResponseReturnValue]

TIMEOUTS = (None, 7, 10, 60, 200)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class Stage:
    """One running application for many tests: each puts its view at a path of its own."""

    def __init__(self, clock: Clock) -> None:
        self.app = WebServer(__name__, cache=Cache(default_timeout=100, clock=clock))
        self._views: dict[str, tuple[Make, Iterator[int]]] = {}
        self._names = count(1)
        for timeout in TIMEOUTS:
            self._add_route(f"/{timeout}", self.app.cache(timeout))
            stale = self.app.cache(timeout, stale_while_revalidate=1000, stale_if_error=1000)
            self._add_route(f"/{timeout}/stale", stale)

    def put(self, make: Make, timeout: float | None, *, stale: bool) -> str:
        """Returns a path whose view is ``make``, which gets the number of its run."""
        name = str(next(self._names))
        self._views[name] = make, count(1)
        return f"/{timeout}{'/stale' if stale else ''}/{name}"

    def _add_route(self, prefix: str, cached: CachedDecorator) -> None:
        async def view(name: str) -> ResponseReturnValue:
            make, runs = self._views[name]
            return make(next(runs))

        self.app.add_url_rule(
            f"{prefix}/<name>", prefix, cached(view), methods=METHODS, provide_automatic_options=False
        )


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Clock, Stage, httpx.Client]]:
    """The application that tests share if they differ in their views only."""
    clock = Clock()
    stage = Stage(clock)
    with stage.app.run_in_thread() as server, httpx.Client(base_url=server.url) as client:
        yield clock, stage, client


@pytest.fixture
def clock(shared: tuple[Clock, Stage, httpx.Client]) -> Clock:
    """A clock that stands still until a test moves it."""
    clock, _, _ = shared
    clock.now = NOW
    return clock


class Place(Protocol):
    """Puts a view at a path of its own."""

    def __call__(self, make: Make, *, timeout: float | None = None, stale: bool = False) -> Resource:
        """Returns the path; ``stale``: the route's options let stale responses be used."""
        ...


@pytest.fixture
def place(shared: tuple[Clock, Stage, httpx.Client], clock: Clock) -> Place:
    """Puts a view at a path of the running application, with some timeout as its only option."""
    _, stage, client = shared

    def put(make: Make, *, timeout: float | None = None, stale: bool = False) -> Resource:
        return Resource(client, stage.put(make, timeout, stale=stale))

    return put


def page(fields: dict[str, str] | None = None, body: str | None = None) -> Make:
    """Returns a view that counts its runs in ``X-Run`` and, without ``body``, in the body."""

    def make(run: int) -> Response:
        return Response(str(run) if body is None else body, headers={**(fields or {}), "X-Run": str(run)})

    return make


@pytest.fixture
def app(clock: Clock) -> WebServer:
    """An application of the test's own, whose cache goes by the same clock."""
    return WebServer(__name__, cache=Cache(default_timeout=100, clock=clock))


Serve = Callable[[WebServer], Resource]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Resource:
            server = stack.enter_context(app.run_in_thread())
            return Resource(stack.enter_context(httpx.Client(base_url=server.url)))

        yield start


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left."""
    return response.headers["cache-status"].partition("; ttl=")[0]


def bypassed(reason: str) -> str:
    """Returns what ``Cache-Status`` says of a response that is not stored."""
    return f"aeros; fwd=bypass; detail={reason}"


def http_date(seconds: float) -> str:
    """Returns a time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something in the background has come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


# RFC 9111 §2 and §3: what may be answered, and what may be stored


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_rfc9111_2_only_get_and_head_are_answered_from_the_cache(place: Place, method: str) -> None:
    """Any other method runs the view although GET has stored a response, and its answer is not stored."""

    def view(run: int) -> ResponseReturnValue:
        return f"{request.method} {run}", {"Cache-Control": "public, max-age=60"}

    served = place(view, timeout=60)
    assert (served.get().text, served.get().text) == ("GET 1", "GET 1")
    assert outcome(served.ask("HEAD")) == HIT
    for number in (2, 3):
        answer = served.ask(method)
        assert (answer.text, answer.headers["cache-status"]) == (f"{method} {number}", "aeros; fwd=method")
        assert "age" not in answer.headers
    assert served.get().text == ("GET 1" if method in ("OPTIONS", "TRACE") else "GET 4")


def test_rfc9111_2_head_alone_stores_nothing_for_get(place: Place) -> None:
    """An answer to HEAD has no content that GET could be answered with; each HEAD runs the view."""
    served = place(page(), timeout=60)
    for number in ("1", "2"):
        head = served.ask("HEAD")
        assert (head.headers["x-run"], head.headers["cache-status"]) == (number, "aeros; fwd=miss")
    got = served.get()
    assert (got.text, outcome(got)) == ("3", STORED)
    assert served.ask("HEAD").headers["x-run"] == "3"


def test_rfc9111_3_3_a_stream_that_breaks_off_is_not_stored(app: WebServer, serve: Serve) -> None:
    """The client sees that the response is incomplete, and nobody else gets the part that was sent."""
    runs = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def view() -> AsyncIterator[bytes]:
        number = next(runs)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"the first half of %d" % number
            if number == 1:
                raise OSError("the source is gone")
            yield b" and the rest"

        return chunks()

    served = serve(app)
    with pytest.raises(httpx.RemoteProtocolError):
        served.get()
    second = served.get()
    assert (second.text, outcome(second)) == ("the first half of 2 and the rest", bypassed("stream"))
    assert served.get().text == "the first half of 3 and the rest"
    assert app.cache_stats().entries == 0


@pytest.mark.parametrize("length", [2, 10], ids=["longer", "shorter"])
def test_rfc9111_3_3_a_body_that_is_not_as_long_as_content_length_is_not_stored(
    place: Place, length: int
) -> None:
    """A response that announces another length than it has is broken: nobody else gets it."""

    def view(run: int) -> Response:
        response = Response(b"abcd")
        if run <= 2:
            response.headers["Content-Length"] = str(length)
        return response

    served = place(view, timeout=60)
    for _ in range(2):
        received = served.exchange()
        assert f"\r\ncache-status: {bypassed('incomplete')}\r\n".encode() in received
        assert b"\r\nage:" not in received
    whole = served.get()
    assert (whole.text, outcome(whole)) == ("abcd", STORED)
    assert served.get().text == "abcd"


def test_rfc9111_3_3_a_view_that_fails_while_its_response_is_made_stores_nothing(
    app: WebServer, serve: Serve
) -> None:
    """A hook that raises after the view has returned leaves no stored response behind."""
    failing = iter([True, False])
    runs = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def view() -> str:
        return str(next(runs))

    @app.after_request
    async def fail(response: Response) -> Response:
        if next(failing, False):
            raise OSError("a hook's failure")
        return response

    served = serve(app)
    assert served.get().status_code == 500
    second = served.get()
    assert (second.text, outcome(second)) == ("2", STORED)


def test_rfc9111_3_1_hop_by_hop_fields_are_not_stored(place: Place) -> None:
    """A hit has no field of the connection or proxy that the stored response came over."""
    per_hop = {
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Proxy-Authentication-Info": "nextnonce",
        "Proxy-Authorization": "Basic abc",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Trailer": "X-Sum",
        "Upgrade": "websocket",
    }
    served = place(page({**per_hop, "X-Kept": "yes"}), timeout=60)
    served.get()
    hit = served.get()
    assert (outcome(hit), hit.headers["x-kept"]) == (HIT, "yes")
    assert [name for name in per_hop if name.lower() in hit.headers] == []


def test_rfc9111_3_1_fields_that_connection_lists_are_not_stored(place: Place) -> None:
    """Connection may name any field, in any case, on several lines and with empty elements."""

    def view(run: int) -> Response:
        response = Response("x", headers={"X-Hop": "1", "X-Other-Hop": "2", "X-End": "3"})
        response.headers.add("Connection", "keep-alive, , x-HOP")
        response.headers.add("Connection", "X-Other-Hop")
        return response

    served = place(view, timeout=60)
    first, hit = served.get(), served.get()
    assert (outcome(first), outcome(hit)) == (STORED, HIT)
    assert hit.headers["x-end"] == "3"
    assert "x-hop" not in hit.headers
    assert "x-other-hop" not in hit.headers
    assert "connection" not in hit.headers


# RFC 9111 §4.1: Vary


def varying(*vary: str) -> Make:
    """Returns a view whose body is the number of its run, with these lines of ``Vary``."""

    def make(run: int) -> Response:
        response = Response(str(run))
        for line in vary:
            response.headers.add("Vary", line)
        return response

    return make


def test_rfc9111_4_1_an_absent_field_is_not_an_empty_one(place: Place) -> None:
    """No field, an empty field, and a value select three responses."""
    served = place(varying("X-Tone"), timeout=60)
    for _ in range(2):
        assert served.get().text == "1"
        assert served.get(x_tone="").text == "2"
        assert served.get(x_tone="loud").text == "3"


@pytest.mark.parametrize(
    "vary",
    [
        ["X-TONE, x-size"],
        ["x-tone,X-Size"],
        [" , X-Tone ,, X-Size , "],
        ["x-Tone", "x-Size"],
        ["X-Tone", "Accept-Encoding, X-Size"],
    ],
)
def test_rfc9111_4_1_vary_is_a_list_of_names_in_any_case(place: Place, vary: list[str]) -> None:
    """However the list is written, both fields select, and no other one does."""
    served = place(varying(*vary), timeout=60)
    for _ in range(2):
        assert served.get(x_tone="a", x_size="b").text == "1"
        assert served.get(x_tone="b", x_size="b").text == "2"
        assert served.get(x_tone="a", x_size="a").text == "3"
        assert served.get(x_tone="a", x_size="b", x_else="c").text == "1"


def test_rfc9111_4_1_several_lines_of_a_selecting_field_are_one_value(place: Place) -> None:
    """A field in two lines selects what the same values in one line select."""
    served = place(varying("X-Tone"), timeout=60)
    first = served.exchange("X-Tone: a, b")
    second = served.exchange("X-Tone: a", "x-tone: b")
    third = served.exchange("X-Tone: b", "X-Tone: a")
    assert [answer[-1:] for answer in (first, second, third)] == [b"1", b"1", b"2"]


def test_rfc9111_4_1_vary_star_among_others_never_matches(place: Place) -> None:
    """A list with an asterisk in it says that no other request gets the same response."""
    served = place(varying("X-Tone, *"), timeout=60)
    assert [served.get(x_tone="a").text for _ in range(3)] == ["1", "2", "3"]


# RFC 9111 §4.2.1: how long it is fresh

ALL_LIFETIMES = {"Cache-Control": "max-age=40, s-maxage=50", "Expires": http_date(NOW + 30)}


@pytest.mark.parametrize(
    ("timeout", "headers", "seconds"),
    [
        (7, ALL_LIFETIMES, 7),
        (None, ALL_LIFETIMES, 50),
        (None, {**ALL_LIFETIMES, "Cache-Control": "max-age=40"}, 40),
        (None, {**ALL_LIFETIMES, "Cache-Control": "public"}, 30),
        (None, {"Cache-Control": "public"}, 100),
        (None, {"Cache-Control": "s-maxage=50"}, 50),
        (None, {"Expires": http_date(NOW + 20), "Date": http_date(NOW - 10)}, 20),
        (200, {"Expires": "0"}, 200),
    ],
    ids=[
        "timeout",
        "s-maxage",
        "max-age",
        "Expires",
        "default",
        "s-maxage alone",
        "with Date",
        "over Expires",
    ],
)
def test_rfc9111_4_2_1_the_first_lifetime_stated_counts(
    place: Place, timeout: float | None, headers: dict[str, str], seconds: int
) -> None:
    """The route's timeout, then s-maxage, max-age, Expires less Date, and the cache's default last."""
    served = place(page(headers), timeout=timeout)
    assert outcome(served.get()) == STORED
    assert served.get().headers["cache-status"] == f"aeros; hit; ttl={seconds}"


@pytest.mark.parametrize("seconds", [7, 50])
def test_rfc9111_4_2_a_response_is_fresh_until_its_lifetime_is_over(
    place: Place, clock: Clock, seconds: int
) -> None:
    """Just before its end it is used; at its end the view runs again."""
    served = place(page({"Cache-Control": f"max-age={seconds}"}))
    served.get()
    clock.now += seconds - 0.5
    last = served.get()
    assert (last.text, last.headers["cache-status"]) == ("1", "aeros; hit; ttl=0")
    clock.now += 0.5
    again = served.get()
    assert (again.text, outcome(again)) == ("2", STORED)


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "max-age=soon"},
        {"Cache-Control": "max-age=-1"},
        {"Cache-Control": "max-age=1.5"},
        {"Cache-Control": "max-age="},
        {"Cache-Control": "max-age"},
        {"Cache-Control": "max-age = 60"},
        {"Cache-Control": "s-maxage=1e3, max-age=60"},
        {"Cache-Control": "max-age=60, max-age=0"},
        {"Expires": "0"},
        {"Expires": "-1"},
        {"Expires": "tomorrow"},
        {"Expires": str(int(NOW) + 60)},
        {"Expires": http_date(NOW - 1)},
        {"Expires": http_date(NOW + 60).replace("GMT", "UTC")},
    ],
    ids=lambda headers: next(iter(headers.values())),
)
def test_rfc9111_4_2_1_malformed_or_past_freshness_is_stale(place: Place, headers: dict[str, str]) -> None:
    """What states a lifetime in a wrong way is not given the default one: it is not stored."""
    served = place(page(headers))
    for number in ("1", "2"):
        response = served.get()
        assert (response.text, outcome(response)) == (number, bypassed("lifetime-zero"))


def test_rfc9111_4_2_1_two_different_expires_are_stale(place: Place) -> None:
    """A field that may stand once and contradicts itself is malformed."""

    def view(run: int) -> Response:
        response = Response("x", headers={"Expires": http_date(NOW + 60)})
        response.headers.add("Expires", http_date(NOW + 600))
        return response

    assert outcome(place(view).get()) == bypassed("lifetime-zero")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("MAX-AGE=60", 60),
        ('max-age="60"', 60),
        (" ,, max-age=60 ,", 60),
        ("unheard-of=1, max-age=60", 60),
        ('private-ish="max-age=1", max-age=60', 60),
        ("max-age=60, max-age=30", 30),
        ("max-age=0060", 60),
        ("max-age=99999999999999999999", 2**31),
    ],
)
def test_rfc9111_5_2_directives_are_read_in_every_form(place: Place, value: str, seconds: int) -> None:
    """Any case, quoted or not, among unknown ones; of two the shorter, and no number is too large."""
    served = place(page({"Cache-Control": value}))
    served.get()
    assert served.get().headers["cache-status"] == f"aeros; hit; ttl={seconds}"


# RFC 9111 §4.2.3 and §5.1: Age and Date


def test_rfc9111_5_1_age_is_on_hits_only(place: Place, clock: Clock) -> None:
    """What the view has just made has no Age; each hit says once how long ago that was."""
    served = place(page(), timeout=60)
    assert "age" not in served.get().headers
    for seconds in (0, 1, 30):
        clock.now = NOW + seconds
        hit = served.get()
        assert (outcome(hit), hit.headers.get_list("age")) == (HIT, [str(seconds)])
    clock.now = NOW + 61
    again = served.get()
    assert outcome(again) == STORED
    assert "age" not in again.headers


def test_rfc9111_5_1_followers_of_a_view_that_runs_get_no_age(app: WebServer, serve: Serve) -> None:
    """A response that was shared while it was made comes from no cache: it is as new as the leader's."""
    came, opened = threading.Semaphore(0), threading.Event()

    @app.before_request
    async def arrive() -> None:
        came.release()

    @app.route("/")
    @app.cache(timeout=60)
    def view() -> str:
        assert opened.wait(PATIENCE)
        return "x"

    served = serve(app)
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(served.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert came.acquire(timeout=PATIENCE)
    time.sleep(0.1)
    opened.set()
    for thread in threads:
        thread.join(PATIENCE)
    found = sorted(outcome(answer) for answer in answers)
    assert found == [*["aeros; fwd=miss; collapsed"] * 2, STORED]
    assert [answer for answer in answers if "age" in answer.headers] == []


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({"Age": "20"}, 20),
        ({"Date": http_date(NOW - 30)}, 30),
        ({"Age": "40", "Date": http_date(NOW - 30)}, 40),
        ({"Age": "20", "Date": http_date(NOW - 30)}, 30),
        ({"Date": http_date(NOW + 30)}, 0),
        ({"Age": "some"}, 0),
        ({"Age": "-5"}, 0),
    ],
)
def test_rfc9111_4_2_3_age_counts_from_what_the_response_states(
    place: Place, clock: Clock, headers: dict[str, str], age: int
) -> None:
    """The older of Age and Date counts; neither a Date to come nor a wrong Age makes it younger."""
    served = place(page(headers), timeout=60)
    served.get()
    clock.now += 2
    hit = served.get()
    assert hit.headers.get_list("age") == [str(age + 2)]
    assert hit.headers["cache-status"] == f"aeros; hit; ttl={60 - age - 2}"


def test_rfc9111_4_2_3_date_is_unchanged_on_hits(place: Place, clock: Clock) -> None:
    """Date says when the response was made, however often and late it is used."""
    made = http_date(NOW - 5)
    served = place(page({"Date": made}), timeout=60)
    for seconds in (0, 0, 10, 50):
        clock.now = NOW + seconds
        response = served.get()
        assert response.headers.get_list("date") == [made]
        assert response.headers["x-run"] == "1"


# RFC 9111 §4.2.4: serving stale


def test_rfc9111_4_2_4_stale_is_used_where_nothing_forbids_it(place: Place, clock: Clock) -> None:
    """The route's options let a stale response be used, and the answer says that it is stale."""
    served = place(page({"Cache-Control": "max-age=60"}), timeout=10, stale=True)
    served.get()
    clock.now += 15
    stale = served.get()
    assert stale.headers["cache-status"] == "aeros; hit; ttl=-5; detail=stale-while-revalidate"
    assert (stale.text, stale.headers["age"]) == ("1", "15")


@pytest.mark.parametrize(
    "directive", ["must-revalidate", "proxy-revalidate", "s-maxage=10", "Must-Revalidate", "s-maxage=oops"]
)
def test_rfc9111_4_2_4_directives_forbid_stale_whatever_the_options_say(
    place: Place, clock: Clock, directive: str
) -> None:
    """must-revalidate, proxy-revalidate and s-maxage: neither while revalidating nor on errors."""

    def view(run: int) -> ResponseReturnValue:
        if run == 2:
            raise OSError("down")
        more = "stale-while-revalidate=1000, stale-if-error=1000"
        return str(run), {"Cache-Control": f"{directive}, {more}"}

    served = place(view, timeout=10, stale=True)
    assert [outcome(served.get()), outcome(served.get())] == [STORED, HIT]
    clock.now += 11
    failed = served.get()
    assert (failed.status_code, failed.headers["cache-status"]) == (500, "aeros; fwd=miss")
    again = served.get()
    assert (again.text, outcome(again)) == ("3", STORED)


@pytest.mark.parametrize("directive", ["no-cache", 'no-cache="x-field"', "NO-CACHE", "max-age=60, no-cache"])
def test_rfc9111_5_2_2_4_no_cache_is_never_used_without_asking_the_view(place: Place, directive: str) -> None:
    """no-cache beats the route's timeout and its stale options: the view runs for each request."""
    served = place(page({"Cache-Control": directive}), timeout=60, stale=True)
    for number in ("1", "2", "3"):
        response = served.get()
        assert (response.text, outcome(response)) == (number, bypassed("no-cache"))


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_rfc5861_4_stale_is_used_for_server_errors_inside_its_window(
    place: Place, clock: Clock, status: int
) -> None:
    """Instead of these statuses the stale response is sent while its window lasts, and never after."""

    def view(run: int) -> ResponseReturnValue:
        if run > 1:
            return "broken", status
        return "good", {"Cache-Control": "stale-if-error=20"}

    served = place(view, timeout=10)
    served.get()
    clock.now += 15
    stale = served.get()
    assert (stale.status_code, stale.text, stale.headers["age"]) == (200, "good", "15")
    expected = f"aeros; fwd=stale; fwd-status={status}; ttl=-5; detail=stale-if-error"
    assert stale.headers["cache-status"] == expected
    clock.now += 16
    late = served.get()
    assert (late.status_code, late.text) == (status, "broken")


@pytest.mark.parametrize("status", [400, 404, 429, 501])
def test_rfc5861_4_other_statuses_are_sent_as_they_are(place: Place, clock: Clock, status: int) -> None:
    """An answer that is no failure of the server replaces nothing by a stale response."""

    def view(run: int) -> ResponseReturnValue:
        if run > 1:
            return "failed", status
        return "good", {"Cache-Control": "stale-if-error=1000"}

    served = place(view, timeout=10)
    served.get()
    clock.now += 15
    answer = served.get()
    assert (answer.status_code, answer.text) == (status, "failed")


# RFC 9110 §13: conditional requests


@pytest.mark.parametrize(
    ("etag", "if_none_match", "status"),
    [
        ('"v1"', '"v1"', 304),
        ('"v1"', 'W/"v1"', 304),
        ('W/"v1"', '"v1"', 304),
        ('W/"v1"', 'W/"v1"', 304),
        ('"v1"', '"v2"', 200),
        ('"v1"', '"V1"', 200),
        ('"v1"', 'w/"v1"', 200),
        ('"v1"', '"v0", "v1"', 304),
        ('"v1"', '"v0",W/"v1","v2"', 304),
        ('"v1"', ', "v0" ,, "v1" ,', 304),
        ('"a,b"', '"a,b"', 304),
        ('"a"', '"a,b"', 200),
        ('"v1"', "*", 304),
        ('"v1"', '"*"', 200),
        ('"v1"', "v1", 200),
        ('"v1"', '"v1', 200),
        ('"v1"', "", 200),
    ],
)
def test_rfc9110_13_1_2_if_none_match_is_a_list_compared_weakly(
    place: Place, etag: str, if_none_match: str, status: int
) -> None:
    """W/ does not count, ``*`` stands for any, tags may have commas; what is no tag matches nothing."""
    served = place(page({"ETag": etag}, "text"), timeout=60)
    served.get()
    for method in ("GET", "HEAD"):
        response = served.ask(method, if_none_match=if_none_match)
        assert (response.status_code, outcome(response)) == (status, HIT)
        assert response.headers["etag"] == etag
    assert served.get(if_none_match=if_none_match).text == ("" if status == 304 else "text")


def test_rfc9110_13_1_2_lines_of_if_none_match_are_one_list(place: Place) -> None:
    """A tag on a second line matches as on the first."""
    served = place(page({"ETag": '"v1"'}), timeout=60)
    served.get()
    received = served.exchange('If-None-Match: "v0"', 'If-None-Match: "v1"')
    assert received.startswith(b"HTTP/1.1 304 ")


@pytest.mark.parametrize(
    ("if_none_match", "if_modified_since", "status"),
    [
        ('"other"', http_date(NOW), 200),
        ('"v1"', http_date(NOW - 9999), 304),
        ('"v1"', "no date", 304),
        ("no tag", http_date(NOW), 200),
    ],
)
def test_rfc9110_13_1_3_if_none_match_has_precedence_over_if_modified_since(
    place: Place, if_none_match: str, if_modified_since: str, status: int
) -> None:
    """With a tag condition the date condition is not looked at, whichever way either goes."""
    served = place(page({"ETag": '"v1"', "Last-Modified": http_date(NOW - 100)}), timeout=60)
    served.get()
    found = served.get(if_none_match=if_none_match, if_modified_since=if_modified_since)
    assert (found.status_code, outcome(found)) == (status, HIT)


@pytest.mark.parametrize(
    ("if_modified_since", "status"),
    [
        (http_date(NOW - 100), 304),
        (http_date(NOW - 99), 304),
        (http_date(NOW + 9999), 304),
        (http_date(NOW - 101), 200),
        (http_date(NOW - 100).replace("GMT", "UTC"), 200),
        ("yesterday", 200),
        ("", 200),
    ],
)
def test_rfc9110_13_1_3_if_modified_since_compares_dates(
    place: Place, if_modified_since: str, status: int
) -> None:
    """304 where nothing has changed since that date; a value that is no date does not count."""
    served = place(page({"Last-Modified": http_date(NOW - 100)}), timeout=60)
    served.get()
    assert served.get(if_modified_since=if_modified_since).status_code == status


def test_rfc9110_13_2_1_conditions_count_for_successes_only(app: WebServer, serve: Serve) -> None:
    """A stored 404 is sent as it is to a client that names its tag, or any."""

    @app.route("/")
    @app.cache(statuses={404: 60})
    async def view() -> tuple[str, int, dict[str, str]]:
        return "gone", 404, {"ETag": '"v1"'}

    served = serve(app)
    served.get()
    for condition in ('"v1"', "*"):
        hit = served.get(if_none_match=condition)
        assert (hit.status_code, hit.text, outcome(hit)) == (404, "gone", HIT)


def test_rfc9110_15_4_5_a_304_has_the_fields_that_a_200_would_have(place: Place, clock: Clock) -> None:
    """Cache-Control, Content-Location, Date, ETag, Expires and Vary come along, none of the content's do."""
    fields = {
        "Cache-Control": "max-age=60",
        "Content-Location": "/x",
        "Date": http_date(NOW),
        "ETag": '"v1"',
        "Expires": http_date(NOW + 60),
        "Vary": "X-Tone",
        "Content-Language": "en",
        "Content-Type": "text/plain",
    }
    served = place(page(fields, STABLE_BODY))
    served.get()
    clock.now += 3
    whole = served.get()
    received = served.exchange('If-None-Match: "v1"')
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert (status, body) == ("HTTP/1.1 304 Not Modified", b"")
    for name in ("cache-control", "content-location", "date", "etag", "expires", "vary", "age"):
        assert found[name] == whole.headers[name]
    assert "X-Tone" in found["vary"]
    assert found["cache-status"] == "aeros; hit; ttl=57"
    content = ("content-type", "content-length", "content-encoding", "content-language", "transfer-encoding")
    assert [name for name in content if name in found] == []


def test_rfc9110_15_4_5_a_304_leaves_the_connection_usable(place: Place) -> None:
    """After a 304 the next answer on the same connection begins where it should."""
    served = place(page({"ETag": '"v1"'}, STABLE_BODY), timeout=60)
    for _ in range(3):
        assert served.get(if_none_match='"v1"').status_code == 304
        assert served.get().text == STABLE_BODY


# RFC 9110 §9.3.2: HEAD


@pytest.mark.parametrize("coding", ["identity", "br", "gzip"])
def test_rfc9110_9_3_2_head_has_the_fields_of_get_and_no_content(
    place: Place, clock: Clock, coding: str
) -> None:
    """HEAD is answered from what GET has stored, with all fields that GET would get."""
    served = place(page({"Last-Modified": http_date(NOW), "X-Own": "yes"}, STABLE_BODY), timeout=60)
    served.get()
    clock.now += 5
    got, content = served.raw_body(accept_encoding=coding)
    head = served.ask("HEAD", accept_encoding=coding)
    assert (head.status_code, head.content, outcome(head)) == (200, b"", HIT)
    assert head.headers["content-length"] == str(len(content))
    without_date = [
        {name: value for name, value in answer.headers.items() if name != "date"} for answer in (head, got)
    ]
    assert without_date[0] == without_date[1]
    assert head.headers["date"] == got.headers["date"] == http_date(NOW)


# RFC 9110 §14: ranges of a stored response

TEN = "0123456789"


@pytest.mark.parametrize(
    ("asked", "content", "content_range"),
    [
        ("bytes=0-4", "01234", "bytes 0-4/10"),
        ("bytes=5-", "56789", "bytes 5-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", TEN, "bytes 0-9/10"),
        ("bytes=3-3", "3", "bytes 3-3/10"),
        ("bytes=8-999999999999999999999999", "89", "bytes 8-9/10"),
        ("BYTES=0-0", "0", "bytes 0-0/10"),
    ],
)
def test_rfc9110_14_2_a_range_of_a_hit_is_206_with_that_part(
    place: Place, asked: str, content: str, content_range: str
) -> None:
    """The part, where it is in the whole, its length, and the fields of the whole."""
    served = place(
        page({"ETag": '"v1"', "Cache-Control": "max-age=60", "Last-Modified": http_date(NOW)}, TEN)
    )
    served.get()
    part = served.get(range=asked)
    assert (part.status_code, part.text, outcome(part)) == (206, content, HIT)
    assert part.headers["content-range"] == content_range
    assert part.headers["content-length"] == str(len(content))
    whole = served.get()
    assert (whole.status_code, whole.text) == (200, TEN)
    assert "content-range" not in whole.headers
    for name in ("etag", "cache-control", "last-modified", "date", "vary", "content-type", "age"):
        assert part.headers[name] == whole.headers[name]


def test_rfc9110_14_2_a_range_on_a_cold_key_stores_the_whole(place: Place) -> None:
    """Who asks for a part first gets it, and the next one gets the whole from the cache."""
    served = place(page({}, TEN), timeout=60)
    first = served.get(range="bytes=2-4")
    assert (first.status_code, first.text, outcome(first)) == (206, "234", STORED)
    second = served.get()
    assert (second.status_code, second.text, outcome(second)) == (200, TEN, HIT)


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_rfc9110_14_1_2_a_range_is_of_the_bytes_in_the_chosen_coding(place: Place, coding: str) -> None:
    """Two parts in one coding make its whole, under its tag; the same range of identity is another part."""
    served = place(page({}, STABLE_BODY), timeout=60)
    identity = served.get()
    whole, coded = served.raw_body(accept_encoding=coding)
    assert whole.headers["content-encoding"] == coding
    total = len(coded)
    first, start = served.raw_body(accept_encoding=coding, range="bytes=0-49")
    last, end = served.raw_body(accept_encoding=coding, range="bytes=50-")
    for part in (first, last):
        assert (part.status_code, outcome(part)) == (206, HIT)
        assert part.headers["content-encoding"] == coding
        assert part.headers["etag"] == whole.headers["etag"] != identity.headers["etag"]
        assert "Accept-Encoding" in part.headers["vary"]
    assert first.headers["content-range"] == f"bytes 0-49/{total}"
    assert last.headers["content-range"] == f"bytes 50-{total - 1}/{total}"
    decoded = brotli.decompress(start + end) if coding == "br" else gzip.decompress(start + end)
    assert decoded == STABLE_BODY.encode()
    plain = served.get(range="bytes=0-49")
    assert (plain.text, plain.headers["etag"]) == (STABLE_BODY[:50], identity.headers["etag"])
    assert plain.headers["content-range"] == f"bytes 0-49/{len(STABLE_BODY)}"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=999-1000", "bytes=-0"])
def test_rfc9110_15_5_17_a_range_beyond_the_end_is_416(place: Place, asked: str) -> None:
    """It says how long the whole is, has no content, and the connection goes on."""
    served = place(page({"ETag": '"v1"'}, TEN), timeout=60)
    served.get()
    refused = served.get(range=asked)
    assert (refused.status_code, refused.content, outcome(refused)) == (416, b"", HIT)
    assert refused.headers["accept-ranges"] == "bytes"
    assert refused.headers["content-range"] == "bytes */10"
    assert refused.headers["content-length"] == "0"
    assert served.get().text == TEN


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1, 4-5",
        "bytes=0-0,-1",
        "bytes=5-4",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes 0-4",
        "bytes=0 - 4",
        "lines=0-4",
        "",
    ],
)
def test_rfc9110_14_2_several_ranges_and_malformed_ones_are_answered_with_the_whole(
    place: Place, asked: str
) -> None:
    """What can not be answered with one part is ignored."""
    served = place(page({}, TEN), timeout=60)
    served.get()
    whole = served.get(range=asked)
    assert (whole.status_code, whole.text, outcome(whole)) == (200, TEN, HIT)
    assert "content-range" not in whole.headers


@pytest.mark.parametrize(
    ("etag", "if_range", "status"),
    [
        ('"v1"', '"v1"', 206),
        ('"v1"', '"v0"', 200),
        ('"v1"', 'W/"v1"', 200),
        ('W/"v1"', 'W/"v1"', 200),
        ('W/"v1"', '"v1"', 200),
        ('"v1"', '"v1", "v2"', 200),
        ('"v1"', "*", 200),
        ('"v1"', "v1", 200),
    ],
)
def test_rfc9110_13_1_5_if_range_needs_a_strong_match(
    place: Place, etag: str, if_range: str, status: int
) -> None:
    """A part may be put together with others only where both tags are the same and strong."""
    served = place(page({"ETag": etag}, TEN), timeout=60)
    served.get()
    found = served.get(range="bytes=0-4", if_range=if_range)
    assert (found.status_code, found.text) == (status, TEN[:5] if status == 206 else TEN)


def test_rfc9110_13_1_5_if_range_holds_for_the_tag_of_the_chosen_coding(place: Place) -> None:
    """The tag of one coding asks for no part of another one."""
    served = place(page({}, STABLE_BODY), timeout=60)
    identity = served.get().headers["etag"]
    coded, _ = served.raw_body(accept_encoding="br")
    tag = coded.headers["etag"]
    for coding, if_range, status in (
        ("identity", identity, 206),
        ("br", tag, 206),
        ("br", identity, 200),
        ("identity", tag, 200),
        ("gzip", tag, 200),
    ):
        found, _ = served.raw_body(accept_encoding=coding, range="bytes=0-9", if_range=if_range)
        assert (found.status_code, outcome(found)) == (status, HIT)


@pytest.mark.parametrize(
    ("modified", "if_range", "status"),
    [
        (NOW - 3600, http_date(NOW - 3600), 206),
        (NOW - 3600, http_date(NOW - 3599), 200),
        (NOW - 3600, http_date(NOW - 3601), 200),
        (NOW - 3600, "yesterday", 200),
        (NOW, http_date(NOW), 200),
    ],
    ids=["same", "later", "earlier", "no date", "too near to Date to be strong"],
)
def test_rfc9110_13_1_5_if_range_with_a_date_needs_the_same_and_a_strong_one(
    place: Place, modified: float, if_range: str, status: int
) -> None:
    """The date must be that of Last-Modified, which is a strong validator only well before Date."""
    served = place(page({"Last-Modified": http_date(modified)}, TEN), timeout=60)
    served.get()
    assert served.get(range="bytes=0-4", if_range=if_range).status_code == status


def test_rfc9110_13_1_5_if_range_with_a_date_needs_last_modified(place: Place) -> None:
    """Without Last-Modified no date is that of the representation."""
    served = place(page({}, TEN), timeout=60)
    served.get()
    assert served.get(range="bytes=0-4", if_range=http_date(NOW)).status_code == 200


def test_rfc9110_14_2_head_ignores_range(place: Place) -> None:
    """Ranges are defined for GET: HEAD tells of the whole, and 416 is none of its answers."""
    served = place(page({}, TEN), timeout=60)
    served.get()
    for asked in ("bytes=0-4", "bytes=99-"):
        head = served.ask("HEAD", range=asked)
        assert (head.status_code, head.headers["content-length"], outcome(head)) == (200, "10", HIT)
        assert "content-range" not in head.headers


def test_rfc9110_13_2_2_if_none_match_is_evaluated_before_range(place: Place) -> None:
    """A client that has the whole gets no part of it, not even one that is not there."""
    served = place(page({"ETag": '"v1"'}, TEN), timeout=60)
    served.get()
    for asked in ("bytes=0-4", "bytes=99-"):
        assert served.get(range=asked, if_none_match='"v1"').status_code == 304
    assert served.get(range="bytes=0-4", if_none_match='"v2"').status_code == 206


def test_rfc9110_14_2_ranges_are_of_200_only(app: WebServer, serve: Serve) -> None:
    """A stored 404 has no parts."""

    @app.route("/")
    @app.cache(statuses={404: 60})
    async def view() -> tuple[str, int]:
        return TEN, 404

    served = serve(app)
    served.get()
    hit = served.get(range="bytes=0-4")
    assert (hit.status_code, hit.text, outcome(hit)) == (404, TEN, HIT)
    assert "accept-ranges" not in hit.headers


def test_rfc9110_14_3_accept_ranges_is_on_what_has_parts(place: Place) -> None:
    """GET and HEAD of a stored response say that they take ranges of bytes; a stream does not."""
    served = place(page(body=TEN), timeout=60)
    for method in ("GET", "GET", "HEAD"):
        assert served.ask(method).headers.get_list("accept-ranges") == ["bytes"]

    async def chunks() -> AsyncIterator[str]:
        yield TEN

    streamed = place(lambda run: Response(chunks()), timeout=60).get(range="bytes=0-4")
    assert (streamed.status_code, streamed.text) == (200, TEN)
    assert "accept-ranges" not in streamed.headers


# RFC 9211: Cache-Status

FORWARD_REASONS = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}


@dataclass
class Member:
    """One cache's word in a ``Cache-Status`` field."""

    cache: object
    parameters: dict[str, object]


def no_duplicate(name: str, kind: str) -> None:
    """Is told of a parameter that stands twice."""
    raise AssertionError(f"the {kind} {name} stands twice")


def parsed(response: httpx.Response) -> list[Member]:
    """Returns ``Cache-Status`` as an independent parser of structured fields reads it."""
    value = ", ".join(response.headers.get_list("cache-status")).encode("ascii")
    members = cast(
        "list[tuple[object, dict[str, object]]]", parse(value, tltype="list", on_duplicate_key=no_duplicate)
    )
    return [Member(cache, parameters) for cache, parameters in members]


def check_member(member: Member) -> dict[str, object]:
    """Checks the member of this cache by RFC 9211 §2, and returns its parameters."""
    assert isinstance(member.cache, Token)
    assert str(member.cache) == "aeros"
    parameters = dict(member.parameters)
    assert ("hit" in parameters) != ("fwd" in parameters)
    for name, value in parameters.items():
        if name in ("hit", "stored", "collapsed"):
            assert value is True
        elif name in ("ttl", "fwd-status"):
            assert type(value) is int
        elif name == "fwd":
            assert isinstance(value, Token)
            assert str(value) in FORWARD_REASONS
        else:
            assert name == "detail"
            assert isinstance(value, Token | str)
    return {name: str(value) if isinstance(value, Token) else value for name, value in parameters.items()}


def status_of(response: httpx.Response) -> dict[str, object]:
    """Returns the parameters of the only member, which has been checked."""
    (member,) = parsed(response)
    return check_member(member)


def add_answers(app: WebServer) -> None:
    """Adds cached routes with all kinds of answers."""
    app.secret_key = "tests only"
    runs = count(1)

    @app.route("/page", methods=["GET", "POST"])
    @app.cache(timeout=10, unless=lambda: "unless" in request.args)
    async def page() -> tuple[str, dict[str, str]]:
        return TEN, {"ETag": '"v1"', "Cache-Control": "stale-while-revalidate=60"}

    @app.route("/fragile")
    @app.cache(timeout=10, stale_if_error=60)
    async def fragile() -> str:
        if next(runs) > 1:
            raise OSError("down")
        return TEN

    @app.route("/session")
    @app.cache(timeout=10)
    async def personal() -> str:
        return str(session.get("user"))

    @app.route("/stream")
    @app.cache(timeout=10)
    async def stream() -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            yield TEN

        return chunks()

    @app.route("/error")
    @app.cache(timeout=10)
    async def error() -> str:
        raise OSError("down")

    @app.route("/missing")
    @app.cache(timeout=10)
    async def missing() -> str:
        abort(404)

    @app.route("/brief")
    @app.cache(timeout=0)
    async def brief() -> str:
        return TEN

    @app.route("/forever")
    @app.cache(timeout=1e300)
    async def forever() -> str:
        return TEN


def test_rfc9211_2_cache_status_is_a_valid_structured_field_on_every_answer(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """Whatever the answer of a cached route is, one member says what the cache did, in the RFC's types."""
    add_answers(app)
    served = serve(app)
    bypass = {"fwd": "bypass"}
    hit: dict[str, object] = {"hit": True, "ttl": 10}
    steps: list[tuple[str, str, dict[str, str], int, dict[str, object]]] = [
        ("HEAD", "/page", {}, 200, {"fwd": "miss"}),
        ("GET", "/page", {}, 200, {"fwd": "miss", "stored": True}),
        ("GET", "/page", {}, 200, hit),
        ("HEAD", "/page", {}, 200, hit),
        ("GET", "/page", {"if-none-match": '"v1"'}, 304, hit),
        ("GET", "/page", {"range": "bytes=0-1"}, 206, hit),
        ("GET", "/page", {"range": "bytes=99-"}, 416, hit),
        ("GET", "/page?unless", {}, 200, {**bypass, "detail": "unless"}),
        ("GET", "/page", {"content-length": "1"}, 200, {**bypass, "detail": "request-body"}),
        ("GET", "/session", {}, 200, {**bypass, "detail": "session"}),
        ("GET", "/stream", {}, 200, {**bypass, "detail": "stream"}),
        ("GET", "/error", {}, 500, {"fwd": "miss"}),
        ("GET", "/missing", {}, 404, {"fwd": "miss"}),
        ("GET", "/brief", {}, 200, {**bypass, "detail": "lifetime-zero"}),
        ("GET", "/forever", {}, 200, {"fwd": "miss", "stored": True}),
        ("GET", "/forever", {}, 200, {"hit": True, "ttl": 10**15 - 1}),
        ("GET", "/fragile", {}, 200, {"fwd": "miss", "stored": True}),
    ]
    late: list[tuple[str, str, dict[str, str], int, dict[str, object]]] = [
        ("GET", "/page", {}, 200, {"hit": True, "ttl": -5, "detail": "stale-while-revalidate"}),
        (
            "GET",
            "/fragile",
            {},
            200,
            {"fwd": "stale", "fwd-status": 500, "ttl": -5, "detail": "stale-if-error"},
        ),
        ("POST", "/page", {}, 200, {"fwd": "method"}),
    ]

    def take(method: str, path: str, headers: dict[str, str], status: int, said: dict[str, object]) -> None:
        content = b"x" if "content-length" in headers else None
        answer = served.client.request(method, path, headers={**IDENTITY, **headers}, content=content)
        assert (path, answer.status_code, status_of(answer)) == (path, status, said)

    for step in steps:
        take(*step)
    clock.now += 15
    for step in late:
        take(*step)


def test_rfc9211_2_cache_status_is_on_a_refusal_for_lack_of_a_slot(app: WebServer) -> None:
    """A cached route that can not run its view says so in the same field."""
    began, opened = threading.Event(), threading.Event()

    @app.route("/")
    @app.cache(timeout=60)
    async def view() -> str:
        return "x"

    @app.route("/slow")
    def slow() -> str:
        began.set()
        assert opened.wait(PATIENCE)
        return "slow"

    with app.run_in_thread(soft_limit=1, hard_limit=1) as server, httpx.Client(base_url=server.url) as client:
        waiting = threading.Thread(target=lambda: client.get("/slow"))
        waiting.start()
        try:
            assert began.wait(PATIENCE)
            refused = client.get("/", headers=IDENTITY)
        finally:
            opened.set()
            waiting.join(PATIENCE)
        assert (refused.status_code, status_of(refused)) == (503, {"fwd": "bypass", "detail": "limit"})
        eventually(lambda: client.get("/").status_code == 200)


def test_rfc9211_2_the_word_of_a_cache_nearer_to_the_origin_stays_before_ours(place: Place) -> None:
    """Cache-Status is a list that begins at the origin; a hit keeps what came with the stored response."""
    served = place(page({"Cache-Status": '"inner cache"; hit; ttl=5'}), timeout=60)
    for said in ({"fwd": "miss", "stored": True}, {"hit": True, "ttl": 60}):
        inner, own = parsed(served.get())
        assert (inner.cache, inner.parameters) == ("inner cache", {"hit": True, "ttl": 5})
        assert check_member(own) == said


def test_the_parser_of_these_tests_refuses_what_is_no_structured_field() -> None:
    """The checks above could fail: text that is no list of items does not pass them."""
    for value in ("aeros; hit; ttl=", "aeros; HIT", "aeros;; hit", "aeros; detail=a b", "aeros; hit,"):
        with pytest.raises(StructuredFieldError):
            parsed(httpx.Response(200, headers={"Cache-Status": value}))
