"""Every option of ``app.cache()`` beyond Flask-Caching's, as clients see it over real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from typing import Any, cast

import httpx
import pytest
from quart import Response, abort, g, redirect, request, session
from quart.typing import ResponseReturnValue
from quart.utils import run_sync

from aeros import Cache, InvalidSettingError, WebServer

IDENTITY = {"accept-encoding": "identity"}
STORED = "aeros; fwd=miss; stored"
HIT = "aeros; hit"
NOW = 1_700_000_000.0
PATIENCE = 20.0


class Clock:
    """The cache's clock, which a test sets forward."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Returns the seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


@pytest.fixture
def app(clock: Clock) -> WebServer:
    """An application with sessions whose cache goes by the test's clock."""
    app = WebServer(__name__, cache=Cache(clock=clock))
    app.secret_key = "tests only"
    return app


class Served:
    """A running application and a client for it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        """GETs without content coding unless the headers ask for one."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, headers={**IDENTITY, **fields})


Serve = Callable[[WebServer], Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Served:
            server = stack.enter_context(app.run_in_thread())
            return Served(stack.enter_context(httpx.Client(base_url=server.url)))

        yield start


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left."""
    return response.headers["cache-status"].partition("; ttl=")[0]


def bypassed(reason: str) -> str:
    """Returns what ``Cache-Status`` says of a response that is not stored."""
    return f"aeros; fwd=bypass; detail={reason}"


def vary_of(response: httpx.Response) -> list[str]:
    """Returns the members of ``Vary`` in lower case, sorted; a member that stands twice is there twice."""
    return sorted(name.strip().lower() for name in response.headers.get("vary", "").split(",") if name)


def add_counter(app: WebServer, path: str = "/", **options: Any) -> None:
    """Adds a cached view whose body is the number of its run."""
    runs = count(1)

    async def view() -> str:
        return str(next(runs))

    app.add_url_rule(path, path, app.cache(60, **options)(view))


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something in the background has come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


# vary=


@pytest.mark.parametrize("names", ["X-Tone", "x-tone", ["X-TONE"], ("x-tone", "X-Tone")])
def test_vary_makes_a_field_part_of_the_key(app: WebServer, serve: Serve, names: Any) -> None:
    """Each value of the field has a response; absent is not empty, and other fields do not count."""
    add_counter(app, vary=names)
    served = serve(app)
    for _ in range(2):
        assert served.get().text == "1"
        assert served.get(x_tone="").text == "2"
        assert served.get(x_tone="low").text == "3"
        assert served.get(x_tone="LOW").text == "4"
        assert served.get(x_tone="low", x_else="high").text == "3"


def test_vary_of_several_fields_keeps_every_combination_apart(app: WebServer, serve: Serve) -> None:
    """A value that goes over from one field to the other makes another key."""
    add_counter(app, vary=["X-A", "X-B"])
    served = serve(app)
    combinations = [("1", "2"), ("12", ""), ("", "12"), ("2", "1")]
    for _ in range(2):
        found = [served.get(x_a=first, x_b=second).text for first, second in combinations]
        assert found == ["1", "2", "3", "4"]


def test_vary_and_cookies_are_told_to_clients_and_caches_behind(app: WebServer, serve: Serve) -> None:
    """Miss, hit, 304, 206 and HEAD name each field once in Vary, beside the view's own and the coder's."""

    @app.route("/")
    @app.cache(60, vary=["Accept-Language", "X-Own"], cookies="theme")
    async def view() -> tuple[str, dict[str, str]]:
        return "text", {"ETag": '"v1"', "Vary": "x-own, X-View"}

    served = serve(app)
    expected = ["accept-encoding", "accept-language", "cookie", "x-own", "x-view"]
    answers = [
        served.get(),
        served.get(),
        served.get(if_none_match='"v1"'),
        served.get(range="bytes=0-1"),
        served.client.head("/", headers=IDENTITY),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 304, 206, 200]
    assert [vary_of(answer) for answer in answers] == [expected] * 5


def test_vary_is_told_for_what_is_not_stored_too(app: WebServer, serve: Serve) -> None:
    """A cache behind this one must know what decides, whatever this one does."""
    add_counter(app, vary="Accept-Language", unless=lambda: True)
    response = serve(app).get()
    assert outcome(response) == bypassed("unless")
    assert "accept-language" in vary_of(response)


def test_vary_cookie_keeps_clients_apart_and_lets_the_view_read_them(app: WebServer, serve: Serve) -> None:
    """With the whole field in the key a view may read any cookie."""

    @app.route("/")
    @app.cache(60, vary="Cookie")
    async def view() -> str:
        return request.cookies.get("user", "nobody")

    served = serve(app)
    for expected in (STORED, HIT):
        for cookie, user in (("user=ann", "ann"), ("user=bob", "bob"), ("other=1", "nobody")):
            response = served.get(cookie=cookie)
            assert (response.text, outcome(response)) == (user, expected)


# authorized=


def add_whoami(app: WebServer, **options: Any) -> None:
    """Adds a view that shows the credentials it was asked with."""

    @app.route("/")
    @app.cache(60, **options)
    async def view() -> str:
        return request.headers.get("Authorization", "nobody")


def test_authorized_shares_one_response_among_all_credentials(app: WebServer, serve: Serve) -> None:
    """With authorized=True all users get the first one's response, also those without credentials."""
    add_whoami(app, authorized=True)
    served = serve(app)
    first = served.get(authorization="Bearer ann")
    assert (first.text, outcome(first)) == ("Bearer ann", STORED)
    for headers in ({"authorization": "Bearer bob"}, {}):
        hit = served.get(**headers)
        assert (hit.text, outcome(hit)) == ("Bearer ann", HIT)


def test_authorized_leaves_the_check_to_what_stands_above(app: WebServer, serve: Serve) -> None:
    """A hook that refuses a user does so for hits, too."""
    add_whoami(app, authorized=True)

    @app.before_request
    async def check() -> tuple[str, int] | None:
        return None if request.headers.get("Authorization") == "Bearer ann" else ("no", 401)

    served = serve(app)
    assert [served.get(authorization="Bearer ann").status_code for _ in range(2)] == [200, 200]
    assert served.get(authorization="Bearer eve").status_code == 401


def test_vary_authorization_keeps_one_response_for_each_credential(app: WebServer, serve: Serve) -> None:
    """Each credential has its own, and no credentials are one more case."""
    add_whoami(app, vary="Authorization")
    served = serve(app)
    cases = [{"authorization": "Bearer ann"}, {"authorization": "Bearer bob"}, {}]
    for expected in (STORED, HIT):
        for headers in cases:
            response = served.get(**headers)
            assert (response.text, outcome(response)) == (headers.get("authorization", "nobody"), expected)
            assert "authorization" in vary_of(response)


def test_without_either_option_credentials_are_never_shared(app: WebServer, serve: Serve) -> None:
    """What is stored for nobody answers no credentials, and theirs are not stored."""
    add_whoami(app)
    served = serve(app)
    assert outcome(served.get()) == STORED
    for user in ("ann", "bob", "ann"):
        response = served.get(authorization=f"Bearer {user}")
        assert (response.text, outcome(response)) == (f"Bearer {user}", bypassed("authorization"))
    assert served.get().text == "nobody"


# cookies=


def test_cookies_make_their_values_part_of_the_key(app: WebServer, serve: Serve) -> None:
    """Named cookies decide, absent or empty or repeated; others do not, and the view may read them all."""

    @app.route("/")
    @app.cache(60, cookies="theme")
    async def view() -> str:
        return repr(request.cookies.getlist("theme"))

    served = serve(app)
    cases = {
        "": "[]",
        "theme=": "['']",
        "theme=dark": "['dark']",
        "theme=light": "['light']",
        "theme=dark; theme=light": "['dark', 'light']",
        "theme=light; theme=dark": "['light', 'dark']",
    }
    for expected in (STORED, HIT):
        for cookie, text in cases.items():
            response = served.get(cookie=cookie)
            assert (response.text, outcome(response)) == (text, expected)
    other = served.get(cookie="tracking=123; theme=dark")
    assert (other.text, outcome(other)) == ("['dark']", HIT)


def test_cookies_never_run_into_each_other(app: WebServer, serve: Serve) -> None:
    """Names and values are kept apart, wherever one ends and the next begins."""
    add_counter(app, cookies=["a", "ab"])
    served = serve(app)
    cookies = ["a=bc", "ab=c", "a=b; ab=c", "a=; ab=bc", "a=bc; ab="]
    for _ in range(2):
        assert [served.get(cookie=cookie).text for cookie in cookies] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("options", [{}, {"vary": "Accept-Language"}], ids=["none", "vary"])
def test_view_that_reads_cookies_nobody_named_is_not_stored(
    app: WebServer, serve: Serve, options: dict[str, Any]
) -> None:
    """Without cookies= what was read from a cookie is for its client alone."""

    @app.route("/")
    @app.cache(60, **options)
    async def view() -> str:
        return request.cookies.get("user", "nobody")

    served = serve(app)
    for cookie, user in (("user=ann", "ann"), ("user=bob", "bob"), ("", "nobody")):
        response = served.get(cookie=cookie)
        assert (response.text, outcome(response)) == (user, bypassed("cookies"))


# key=


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_key_adds_text_to_the_key(app: WebServer, serve: Serve, is_async: bool) -> None:
    """Its text decides beside the URL, which it never merges; it is asked within the request."""

    @app.before_request
    async def find_tenant() -> None:
        g.tenant = request.headers.get("X-Tenant", "")

    def tenant() -> str:
        return str(g.tenant)

    async def tenant_later() -> str:
        return str(g.tenant)

    async def view(page: str) -> str:
        return f"{g.tenant}:{page}"

    app.add_url_rule("/<page>", "view", app.cache(60, key=tenant_later if is_async else tenant)(view))
    served = serve(app)
    for expected in (STORED, HIT):
        for name in ("a", "b", "ab", "ä", ""):
            for page in ("a", "b"):
                response = served.client.get(
                    f"/{page}", headers=[(b"accept-encoding", b"identity"), (b"x-tenant", name.encode())]
                )
                assert outcome(response) == expected
                assert response.text == f"{name.encode().decode('latin-1')}:{page}"


def test_key_and_cookies_never_run_into_each_other(app: WebServer, serve: Serve) -> None:
    """A key that looks like a cookie is none."""
    add_counter(app, key=lambda: request.headers.get("X-Key", ""), cookies="a")
    served = serve(app)
    for _ in range(2):
        assert served.get(x_key="cookie:a", cookie="").text == "1"
        assert served.get(x_key="", cookie="a=cookie:a").text == "2"
        assert served.get(x_key="", cookie="").text == "3"


@pytest.mark.parametrize("value", [5, None, b"text"])
def test_key_that_is_no_text_is_an_error_of_its_request(app: WebServer, serve: Serve, value: object) -> None:
    """Such a key is no reason to share a response: nothing is answered and nothing stored."""
    values = iter([value, value])
    add_counter(app, key=lambda: cast(str, next(values, "text")))
    served = serve(app)
    assert [served.get().status_code for _ in range(3)] == [500, 500, 200]
    assert served.get().text == "1"


# query_include= and query_exclude=


def add_search(app: WebServer, path: str, relevant: Callable[[str], bool], **options: Any) -> None:
    """Adds a view that shows the parameters it goes by, in their order, and counts its runs."""
    runs = count(1)

    async def view() -> tuple[str, dict[str, str]]:
        shown = [pair for pair in request.args.items(multi=True) if relevant(pair[0])]
        return repr(shown), {"X-Run": str(next(runs))}

    app.add_url_rule(path, path, app.cache(60, **options)(view))


def test_query_include_makes_only_these_parameters_part_of_the_key(app: WebServer, serve: Serve) -> None:
    """Others come and go without another run; the order of parameters does not count, that of one does."""
    add_search(
        app, "/", lambda name: name in ("page", "sort"), query_include=("page", "sort"), query_string=True
    )
    served = serve(app)
    assert served.get("/?page=1&sort=up").headers["x-run"] == "1"
    for query in (
        "sort=up&page=1",
        "page=1&sort=up&utm_source=x",
        "x=1&page=1&y=2&sort=up",
        "page=1&&sort=up",
    ):
        hit = served.get(f"/?{query}")
        assert (hit.headers["x-run"], hit.text) == ("1", "[('page', '1'), ('sort', 'up')]")
    others = ["page=2&sort=up", "page=1", "page=1&page=2", "page=2&page=1", "page=", "x=1", "PAGE=1"]
    runs = [served.get(f"/?{query}").headers["x-run"] for query in others]
    assert runs == ["2", "3", "4", "5", "6", "7", "7"]


def test_query_exclude_makes_all_other_parameters_part_of_the_key(app: WebServer, serve: Serve) -> None:
    """What is excluded comes and goes without another run; anything else counts."""
    add_search(
        app,
        "/",
        lambda name: not name.startswith("utm_") and name != "fbclid",
        query_exclude=["utm_*", "fbclid"],
    )
    served = serve(app)
    assert served.get("/?page=1").headers["x-run"] == "1"
    for query in ("page=1&utm_source=a", "utm_=b&page=1", "fbclid=1&page=1&utm_x=2", "page=1&%75tm_source=c"):
        hit = served.get(f"/?{query}")
        assert (hit.headers["x-run"], hit.text) == ("1", "[('page', '1')]")
    others = ["page=2", "page=1&utm=1", "page=1&fbclid2=1", "page=1&UTM_a=1", "page=1&xutm_a=1"]
    assert [served.get(f"/?{query}").headers["x-run"] for query in others] == ["2", "3", "4", "5", "6"]


def test_query_include_takes_patterns(app: WebServer, serve: Serve) -> None:
    """An asterisk at the end stands for any rest, also none; elsewhere it stands for itself."""
    add_search(app, "/", lambda name: name.startswith("f.") or name == "a*b", query_include=["f.*", "a*b"])
    served = serve(app)
    queries = ["f.size=1", "f.=1", "f=1", "a*b=1", "axb=1", "f.size=1&x=2"]
    assert [served.get(f"/?{query}").headers["x-run"] for query in queries] == ["1", "2", "3", "4", "3", "1"]


def test_query_include_of_nothing_is_one_key_for_all_queries(app: WebServer, serve: Serve) -> None:
    """An empty list leaves all parameters out."""
    add_search(app, "/", lambda name: False, query_include=())
    served = serve(app)
    assert [served.get(path).headers["x-run"] for path in ("/", "/?a=1", "/?a=2&b")] == ["1", "1", "1"]


@pytest.mark.parametrize(
    "options",
    [
        {"query_include": ["page", "ä b"]},
        {"query_include": ["p*", "ä*"]},
        {"query_exclude": ["utm_*"]},
        {"query_exclude": ["x"]},
        {"query_string": True},
    ],
    ids=["include", "include pattern", "exclude pattern", "exclude", "query_string"],
)
def test_names_of_parameters_in_percent_encoding_never_poison_the_cache(
    app: WebServer, serve: Serve, options: dict[str, Any]
) -> None:
    """However a parameter is written, nobody gets the page of a request that the view answers otherwise."""
    add_search(app, "/", lambda name: name in ("page", "ä b"), **options)
    served = serve(app)
    cases = {
        "": [],
        "page=1": [("page", "1")],
        "p%61ge=2": [("page", "2")],
        "%70%61%67%65=3": [("page", "3")],
        "page=1&p%61ge=2": [("page", "1"), ("page", "2")],
        "p%61ge=2&page=1": [("page", "2"), ("page", "1")],
        "%C3%A4+b=4": [("ä b", "4")],
        "%c3%a4%20b=5": [("ä b", "5")],
        "%C3%A4%20b=6&%C3%A4+b=7": [("ä b", "6"), ("ä b", "7")],
        "%C3%A4+b=7&%C3%A4%20b=6": [("ä b", "7"), ("ä b", "6")],
        "page%3D1": [],
        "page=1%26page%3D2": [("page", "1&page=2")],
        "x=1%26page=2": [],
        "page%00=1": [],
        "%2570age=1": [],
    }
    for _ in range(2):
        for query, expected in cases.items():
            assert (query, served.get(f"/?{query}").text) == (query, repr(expected))


# tags=


def test_tags_are_names_or_a_function_of_the_view_s_arguments(app: WebServer, serve: Serve) -> None:
    """One name, several, or what a function makes of the arguments: a response can be evicted by each."""
    runs = count(1)

    async def view(number: int = 0, kind: str = "x") -> str:
        return str(next(runs))

    def named(number: int, kind: str) -> list[str]:
        return [f"number:{number}", f"kind:{kind}"]

    def iterated(number: int) -> Iterator[str]:
        yield f"number:{number}"
        yield f"number:{number + 1}"

    def single(number: int) -> str:
        return f"number:{number}"

    def add(path: str, tags: str | list[str] | Callable[..., str | Iterable[str]]) -> None:
        app.add_url_rule(path, path, app.cache(60, tags=tags)(view))

    add("/one", "books")
    add("/several", ["books", "lists"])
    add("/named/<int:number>/<kind>", named)
    add("/iterated/<int:number>", iterated)
    add("/single/<int:number>", single)
    served = serve(app)
    paths = ["/one", "/several", "/named/1/a", "/named/2/b", "/iterated/1", "/iterated/2", "/single/2"]

    def evicted_by(*tags: str) -> list[str]:
        for path in paths:
            served.get(path)
        app.clear_cache(tags=tags)
        return [path for path in paths if outcome(served.get(path)) == STORED]

    assert evicted_by("books") == ["/one", "/several"]
    assert evicted_by("lists") == ["/several"]
    assert evicted_by("number:1") == ["/named/1/a", "/iterated/1"]
    assert evicted_by("number:2") == ["/named/2/b", "/iterated/1", "/iterated/2", "/single/2"]
    assert evicted_by("kind:a", "lists") == ["/several", "/named/1/a"]
    assert evicted_by("number", "book", "books ") == []


def test_tags_that_are_no_names_are_an_error_of_their_request(app: WebServer, serve: Serve) -> None:
    """What could not be evicted is not stored, and nobody waits for it."""
    wrong: Iterator[Any] = iter([5, [""], [None]])
    add_counter(app, tags=lambda: next(wrong, "right"))
    served = serve(app)
    assert [served.get().status_code for _ in range(3)] == [500, 500, 500]
    last = served.get()
    assert (last.text, outcome(last)) == ("4", STORED)


# statuses=


def add_missing(app: WebServer, how: str, **options: Any) -> None:
    """Adds a cached view that answers 404 in one of several ways, and counts its runs."""
    runs = count(1)

    @app.route("/")
    @app.cache(500, **options)
    async def view() -> ResponseReturnValue:
        number = str(next(runs))
        if how == "return":
            return number, 404
        g.number = number
        return abort(404, description=f"run {number}")

    if how == "handler":

        @app.errorhandler(404)
        async def missing(error: Exception) -> tuple[str, int, dict[str, str]]:
            return f"custom {g.number}", 404, {"X-Custom": "yes"}


@pytest.mark.parametrize("how", ["return", "abort", "handler"])
def test_statuses_are_stored_for_their_own_time(app: WebServer, serve: Serve, clock: Clock, how: str) -> None:
    """A 404 that is returned, aborted with, or made by a handler is stored as it was sent."""
    add_missing(app, how, statuses={404: 10})
    served = serve(app)
    first, hit = served.get(), served.get()
    assert (first.status_code, outcome(first)) == (404, STORED)
    assert (hit.status_code, hit.headers["cache-status"]) == (404, "aeros; hit; ttl=10")
    assert hit.content == first.content
    assert hit.headers["content-type"] == first.headers["content-type"]
    assert (
        hit.headers.get("x-custom") == first.headers.get("x-custom") == ("yes" if how == "handler" else None)
    )
    assert "1" in hit.text
    clock.now += 10
    again = served.get()
    assert outcome(again) == STORED
    assert "2" in again.text


@pytest.mark.parametrize("how", ["return", "abort", "handler"])
def test_statuses_that_are_not_named_are_not_stored(app: WebServer, serve: Serve, how: str) -> None:
    """Naming one status stores no other one."""
    add_missing(app, how, statuses={410: 10, 500: 10})
    served = serve(app)
    for number in ("1", "2"):
        response = served.get()
        assert (response.status_code, "hit" in outcome(response)) == (404, False)
        assert number in response.text


def test_statuses_take_redirects_and_server_errors(app: WebServer, serve: Serve, clock: Clock) -> None:
    """301 with its Location and 503 with its Retry-After come back whole, each for its time."""
    runs = count(1)

    @app.route("/moved")
    @app.cache(500, statuses={301: timedelta(minutes=2)})
    async def moved() -> ResponseReturnValue:
        return redirect("/new", 301)

    @app.route("/down")
    @app.cache(500, statuses={503: 5})
    async def down() -> tuple[str, int, dict[str, str]]:
        return str(next(runs)), 503, {"Retry-After": "5"}

    served = serve(app)
    for expected in (STORED, HIT):
        answer = served.get("/moved")
        assert (answer.status_code, answer.headers["location"], outcome(answer)) == (301, "/new", expected)
        answer = served.get("/down")
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "1", "5")
    assert served.get("/moved").headers["cache-status"] == "aeros; hit; ttl=120"
    clock.now += 6
    assert served.get("/down").text == "2"
    assert outcome(served.get("/moved")) == HIT


def test_statuses_leave_other_responses_their_lifetime(app: WebServer, serve: Serve) -> None:
    """A 200 beside them goes by timeout=; a lifetime of their own beats timeout= and what is stated."""

    @app.route("/<int:status>")
    @app.cache(500, statuses={404: 10, 203: 20})
    async def view(status: int) -> tuple[str, int, dict[str, str]]:
        return "x", status, {"Cache-Control": "max-age=77"}

    served = serve(app)
    for status, seconds in ((200, 500), (404, 10), (203, 20)):
        served.get(f"/{status}")
        assert served.get(f"/{status}").headers["cache-status"] == f"aeros; hit; ttl={seconds}"


def test_statuses_of_the_server_s_errors_are_never_used_stale(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """A stored 503 is no answer to fall back on: when its time is over the view is asked again."""
    runs = count(1)

    @app.route("/")
    @app.cache(60, statuses={503: 5}, stale_while_revalidate=100, stale_if_error=100)
    async def view() -> tuple[str, int]:
        return str(next(runs)), 503

    served = serve(app)
    assert [served.get().text for _ in range(2)] == ["1", "1"]
    clock.now += 6
    again = served.get()
    assert (again.text, again.status_code, outcome(again)) == ("2", 503, STORED)


def test_statuses_store_nothing_that_is_for_one_client(app: WebServer, serve: Serve) -> None:
    """A handler that sets a cookie, or reads the session, makes a page of its own for each."""
    add_missing(app, "abort", statuses={404: 10})

    @app.errorhandler(404)
    async def missing(error: Exception) -> Response:
        response = Response(f"for {session.get('user') if 'who' in request.args else 'all'}", 404)
        if "cookie" in request.args:
            response.set_cookie("seen", "yes")
        return response

    served = serve(app)
    assert outcome(served.get("/?cookie")) == bypassed("set-cookie")
    assert outcome(served.get("/?who")) == bypassed("session")
    assert outcome(served.get("/")) == STORED


# stale_while_revalidate= and stale_if_error=


def test_stale_while_revalidate_answers_at_once_and_refreshes_once(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """Inside its window the old response is sent while one new one is made; past it clients wait."""
    add_counter(app, stale_while_revalidate=timedelta(seconds=30))
    served = serve(app)
    served.get()
    clock.now += 70
    stale = served.get()
    assert stale.headers["cache-status"] == "aeros; hit; ttl=-10; detail=stale-while-revalidate"
    assert (stale.text, stale.headers["age"]) == ("1", "70")
    eventually(lambda: app.cache_stats().stores == 2)
    fresh = served.get()
    assert (fresh.text, fresh.headers["cache-status"]) == ("2", "aeros; hit; ttl=60")
    assert app.cache_stats().refreshes == 1
    clock.now += 91
    late = served.get()
    assert (late.text, outcome(late)) == ("3", STORED)


def test_stale_while_revalidate_counts_from_the_response_where_the_route_says_nothing(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """The response's own window counts, the route's beats it, and 0 closes it."""
    runs = count(1)

    async def view() -> tuple[str, dict[str, str]]:
        return str(next(runs)), {"Cache-Control": "max-age=10, stale-while-revalidate=20"}

    app.add_url_rule("/own", "own", app.cache()(view))
    app.add_url_rule("/longer", "longer", app.cache(stale_while_revalidate=100)(view))
    app.add_url_rule("/none", "none", app.cache(stale_while_revalidate=0)(view))
    served = serve(app)
    paths = ("/own", "/longer", "/none")
    stale = "aeros; hit; ttl=-15; detail=stale-while-revalidate"
    for path in paths:
        served.get(path)
    clock.now += 25
    assert [outcome(served.get(path)) for path in paths] == [HIT, HIT, STORED]
    eventually(lambda: app.cache_stats().stores == 6)
    clock.now += 25
    assert served.get("/own").headers["cache-status"] == stale
    eventually(lambda: app.cache_stats().stores == 7)
    clock.now += 50
    assert outcome(served.get("/own")) == STORED
    assert "stale-while-revalidate" in served.get("/longer").headers["cache-status"]


def fails_by_raising() -> ResponseReturnValue:
    """Raises what nobody handles."""
    raise OSError("the database is away")


def fails_by_return() -> ResponseReturnValue:
    """Says itself that it can not answer."""
    return "down", 503


def fails_by_abort() -> ResponseReturnValue:
    """Gives up with a status."""
    abort(502)


@pytest.mark.parametrize(
    ("fail", "status"),
    [(fails_by_raising, 500), (fails_by_return, 503), (fails_by_abort, 502)],
    ids=["raise", "return", "abort"],
)
@pytest.mark.parametrize("where", ["option", "timedelta", "response"])
def test_stale_if_error_answers_instead_of_a_failure(
    app: WebServer,
    serve: Serve,
    clock: Clock,
    fail: Callable[[], ResponseReturnValue],
    status: int,
    where: str,
) -> None:
    """Inside its window, however the view fails and whoever opened it; past it the failure is sent."""
    runs = count(1)
    options: dict[str, float | timedelta | None] = {"option": 60, "timedelta": timedelta(minutes=1)}

    @app.route("/")
    @app.cache(10, stale_if_error=options.get(where))
    async def view() -> ResponseReturnValue:
        if next(runs) > 1:
            return fail()
        return "good", {"Cache-Control": "stale-if-error=60" if where == "response" else "public"}

    served = serve(app)
    assert outcome(served.get()) == STORED
    clock.now += 30
    stale = served.get()
    assert (stale.status_code, stale.text) == (200, "good")
    expected = f"aeros; fwd=stale; fwd-status={status}; ttl=-20; detail=stale-if-error"
    assert stale.headers["cache-status"] == expected
    clock.now += 41
    assert served.get().status_code == status


def test_stale_if_error_of_zero_closes_the_response_s_own_window(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """The route's word beats the response's."""
    runs = count(1)

    @app.route("/")
    @app.cache(10, stale_if_error=0)
    async def view() -> ResponseReturnValue:
        if next(runs) > 1:
            return "down", 503
        return "good", {"Cache-Control": "stale-if-error=60"}

    served = serve(app)
    served.get()
    clock.now += 11
    assert served.get().status_code == 503


def test_without_a_stale_window_the_view_s_failure_is_sent(
    app: WebServer, serve: Serve, clock: Clock
) -> None:
    """Nothing stale is used that nobody asked for."""
    runs = count(1)

    @app.route("/")
    @app.cache(10)
    async def view() -> ResponseReturnValue:
        return ("down", 503) if next(runs) == 2 else "good"

    served = serve(app)
    served.get()
    clock.now += 11
    assert [served.get().status_code for _ in range(2)] == [503, 200]


# timedelta


def test_times_are_seconds_or_timedelta_everywhere(serve: Serve, clock: Clock) -> None:
    """timeout=, statuses=, both stale options and the cache's default take both, with the same result."""
    app = WebServer(__name__, cache=Cache(default_timeout=timedelta(minutes=3), clock=clock))

    @app.route("/<int:status>")
    @app.cache(timedelta(minutes=1), statuses={404: timedelta(seconds=30)})
    async def timed(status: int) -> tuple[str, int]:
        return "x", status

    @app.route("/default")
    @app.cache(stale_while_revalidate=timedelta(days=1), stale_if_error=timedelta(weeks=1))
    async def default() -> str:
        return "x"

    served = serve(app)
    for path, seconds in (("/200", 60), ("/404", 30), ("/default", 180)):
        served.get(path)
        assert served.get(path).headers["cache-status"] == f"aeros; hit; ttl={seconds}"
    clock.now += 180 + 86400
    assert "stale-while-revalidate" in served.get("/default").headers["cache-status"]


def test_timedelta_of_half_a_second_is_not_rounded(app: WebServer, serve: Serve, clock: Clock) -> None:
    """A lifetime under a second counts exactly."""
    runs = count(1)

    @app.route("/")
    @app.cache(timedelta(milliseconds=500))
    async def view() -> str:
        return str(next(runs))

    served = serve(app)
    served.get()
    clock.now += 0.25
    assert served.get().text == "1"
    clock.now += 0.25
    assert served.get().text == "2"


# Cache(show_status=) and Cache(max_variants=)


def test_show_status_false_leaves_no_trace_of_the_cache_s_word(serve: Serve) -> None:
    """Miss, hit, 304, bypass and error have no Cache-Status, and are cached all the same."""
    app = WebServer(__name__, cache=Cache(show_status=False))
    add_counter(app, unless=lambda: "unless" in request.args)

    @app.route("/error")
    @app.cache(60)
    async def error() -> str:
        raise OSError("down")

    served = serve(app)
    first, hit = served.get(), served.get()
    answers = [first, hit, served.get(if_none_match=hit.headers["etag"]), served.get("/?unless")]
    answers += [served.get("/error"), served.client.post("/", headers=IDENTITY)]
    assert [answer.status_code for answer in answers] == [200, 200, 304, 200, 500, 405]
    assert (first.text, hit.text, "age" in hit.headers) == ("1", "1", True)
    assert [answer for answer in answers if "cache-status" in answer.headers] == []


@pytest.mark.parametrize("how", ["vary", "cookies", "key", "Vary"])
def test_max_variants_bounds_what_one_url_takes(serve: Serve, how: str) -> None:
    """Of the responses to one URL the oldest leave, by whatever they differ; other URLs keep theirs."""
    app = WebServer(__name__, cache=Cache(max_variants=2))
    options: dict[str, dict[str, Any]] = {
        "vary": {"vary": "X-Tone"},
        "cookies": {"cookies": "tone"},
        "key": {"key": lambda: request.headers.get("X-Tone", "")},
        "Vary": {},
    }

    @app.route("/<page>")
    @app.cache(60, **options[how])
    async def view(page: str) -> tuple[str, dict[str, str]]:
        return page, {"Vary": "X-Tone"} if how == "Vary" else {}

    served = serve(app)

    def ask(page: str, tone: str) -> str:
        return outcome(served.get(page, x_tone=tone, cookie=f"tone={tone}"))

    assert ask("/other", "a") == STORED
    assert [ask("/page", tone) for tone in "abc"] == [STORED] * 3
    assert [ask("/page", tone) for tone in "cb"] == [HIT, HIT]
    assert ask("/page", "a") == STORED
    assert ask("/page", "c") == HIT
    assert ask("/page", "b") == STORED
    assert ask("/other", "a") == HIT


# What the conditions read decides about the cache, not about the response


def read_session() -> str:
    """Reads the session."""
    return str(session.get("user"))


def read_cookies() -> str:
    """Reads the cookies."""
    return str(request.cookies.get("user"))


OPTIONS: dict[str, Callable[[str], object]] = {
    "unless": lambda read: False,
    "forced_update": lambda read: False,
    "response_filter": lambda read: True,
    "key": lambda read: "the same for all",
}


def condition(option: str, read: Callable[[], str], kind: str) -> Callable[..., object]:
    """Returns a condition that reads, and then lets the response be cached."""
    verdict = OPTIONS[option]

    def ask(*response: object) -> object:
        return verdict(read())

    async def ask_later(*response: object) -> object:
        return verdict(await run_sync(read)())

    return ask if kind == "sync" else ask_later


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("read", [read_session, read_cookies], ids=["session", "cookies"])
def test_conditions_may_read_session_and_cookies(
    app: WebServer, serve: Serve, read: Callable[[], str], kind: str
) -> None:
    """What unless, forced_update, response_filter and key read does not keep the response out."""
    for option in OPTIONS:
        add_counter(app, f"/{option}", **{option: condition(option, read, kind)})
    served = serve(app)
    for option in OPTIONS:
        for user, expected in (("ann", STORED), ("bob", HIT)):
            response = served.get(f"/{option}", cookie=f"user={user}")
            assert (option, response.text, outcome(response)) == (option, "1", expected)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("read", [read_session, read_cookies], ids=["session", "cookies"])
def test_conditions_that_read_do_not_let_the_view_read(
    app: WebServer, serve: Serve, option: str, read: Callable[[], str]
) -> None:
    """A view that reads what its condition has read is for one user all the same."""

    @app.route("/")
    @app.cache(60, **cast(Any, {option: condition(option, read, "sync")}))
    async def view() -> str:
        return read()

    served = serve(app)
    reason = "session" if read is read_session else "cookies"
    for user in ("ann", "bob"):
        response = served.get(cookie=f"user={user}")
        assert outcome(response) == bypassed(reason)
        assert response.text == ("None" if read is read_session else user)


def test_unless_by_session_caches_for_visitors_only(app: WebServer, serve: Serve) -> None:
    """A page for all is cached, and a user who has logged in gets their own, never stored."""

    @app.route("/login")
    async def login() -> str:
        session["user"] = "ann"
        return "in"

    @app.route("/")
    @app.cache(60, unless=lambda: "user" in session)
    async def view() -> str:
        return "page for all" if "user" not in request.headers.get("X-Assume", "") else "page for ann"

    served = serve(app)
    assert [outcome(served.get()) for _ in range(2)] == [STORED, HIT]
    served.get("/login")
    own = served.get(x_assume="user")
    assert (own.text, outcome(own)) == ("page for ann", bypassed("unless"))
    served.client.cookies.clear()
    assert (served.get().text, outcome(served.get())) == ("page for all", HIT)


# Wrong options


async def a_view() -> str:
    """Is decorated."""
    return ""


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout": -1}, "timeout"),
    ({"timeout": "60"}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"timeout": float("nan")}, "timeout"),
    ({"timeout": float("inf")}, "timeout"),
    ({"timeout": timedelta(seconds=-1)}, "timeout"),
    ({"key_prefix": 5}, "key_prefix"),
    ({"unless": True}, "unless"),
    ({"forced_update": "yes"}, "forced_update"),
    ({"response_filter": 5}, "response_filter"),
    ({"query_string": "page"}, "query_string"),
    ({"hash_method": "md5"}, "hash_method"),
    ({"cache_none": 1}, "cache_none"),
    ({"vary": 5}, "vary"),
    ({"vary": None}, "vary"),
    ({"vary": b"Accept"}, "vary"),
    ({"vary": "*"}, "vary"),
    ({"vary": ["Accept", "*"]}, "vary"),
    ({"vary": "Accept, Accept-Language"}, "vary"),
    ({"vary": ""}, "vary"),
    ({"vary": ["X-Ä"]}, "vary"),
    ({"cookies": 5}, "cookies"),
    ({"cookies": None}, "cookies"),
    ({"cookies": [""]}, "cookies"),
    ({"cookies": ["theme", 5]}, "cookies"),
    ({"key": "tenant"}, "key"),
    ({"query_include": 5}, "query_include"),
    ({"query_include": [5]}, "query_include"),
    ({"query_include": ""}, "query_include"),
    ({"query_exclude": True}, "query_exclude"),
    ({"query_exclude": [None]}, "query_exclude"),
    ({"query_include": "page", "query_exclude": "utm_*"}, "query_exclude"),
    ({"tags": 5}, "tags"),
    ({"tags": None}, "tags"),
    ({"tags": ""}, "tags"),
    ({"tags": ["books", 5]}, "tags"),
    ({"tags": b"books"}, "tags"),
    ({"statuses": 404}, "statuses"),
    ({"statuses": [404]}, "statuses"),
    ({"statuses": {"404": 10}}, "statuses"),
    ({"statuses": {206: 10}}, "statuses"),
    ({"statuses": {304: 10}}, "statuses"),
    ({"statuses": {101: 10}}, "statuses"),
    ({"statuses": {600: 10}}, "statuses"),
    ({"statuses": {True: 10}}, "statuses"),
    ({"statuses": {404: -1}}, "statuses[404]"),
    ({"statuses": {404: None}}, "statuses[404]"),
    ({"statuses": {404: "10"}}, "statuses[404]"),
    ({"stale_while_revalidate": -1}, "stale_while_revalidate"),
    ({"stale_while_revalidate": True}, "stale_while_revalidate"),
    ({"stale_while_revalidate": timedelta(days=-1)}, "stale_while_revalidate"),
    ({"stale_if_error": "1"}, "stale_if_error"),
    ({"stale_if_error": float("inf")}, "stale_if_error"),
    ({"authorized": 1}, "authorized"),
    ({"authorized": None}, "authorized"),
]


@pytest.mark.parametrize(("options", "setting"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_wrong_option_of_cache_is_an_error_at_decoration(
    app: WebServer, options: dict[str, Any], setting: str
) -> None:
    """The error names the option and shows the value, before any request comes."""
    with pytest.raises(InvalidSettingError) as caught:
        app.cache(**options)(a_view)
    assert caught.value.setting == setting
    assert str(caught.value).startswith(f"{setting}: ")
    assert "\n" not in str(caught.value)


def test_unknown_option_is_an_error_at_decoration(app: WebServer) -> None:
    """A slip in a name is no option that is silently ignored."""
    with pytest.raises(TypeError, match="varies"):
        app.cache(60, **cast(Any, {"varies": "Accept"}))


def test_new_options_are_keyword_only(app: WebServer) -> None:
    """A ninth positional argument would change its meaning with the next option."""
    cached = cast(Callable[..., object], app.cache)
    with pytest.raises(TypeError, match="positional"):
        cached(60, "view/%s", None, None, None, False, __import__("hashlib").md5, False, "Accept")


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({}, "tags"),
        ({"tags": 5}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"paths": 5}, "paths"),
        ({"paths": [5]}, "paths"),
        ({"paths": ""}, "paths"),
        ({"paths": "books"}, "path"),
        ({"paths": ["/books", "https://other.example/books"]}, "path"),
    ],
)
def test_wrong_option_of_invalidates_is_an_error_at_decoration(
    app: WebServer, options: dict[str, Any], setting: str
) -> None:
    """A view that would evict nothing, or something that is no path, is noticed at once."""
    with pytest.raises(InvalidSettingError) as caught:
        app.invalidates(**options)(a_view)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"timeout": -1}, "timeout"),
        ({"stale_while_revalidate": "1"}, "stale_while_revalidate"),
        ({"stale_if_error": timedelta(seconds=-1)}, "stale_if_error"),
        ({"key": "name"}, "key"),
        ({"ignored": ("unheard_of",)}, "memoize(ignored=)"),
        ({"ignored": 5}, "memoize(ignored=)"),
        ({"tags": 5}, "tags"),
        ({"serializer": 5}, "serializer"),
        ({"serializer": "json"}, "serializer"),
        ({"serializer": list}, "serializer"),
    ],
)
def test_wrong_option_of_memoize_is_an_error_at_decoration(
    app: WebServer, options: dict[str, Any], setting: str
) -> None:
    """What would fail at the first call fails before."""
    with pytest.raises(InvalidSettingError) as caught:
        app.memoize(**options)(a_view)
    assert caught.value.setting == setting


WRONG_EVICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"tags": 5}, "tags"),
    ({"tags": ""}, "tags"),
    ({"tags": []}, "tags"),
    ({"tags": ()}, "tags"),
    ({"tags": ["books", None]}, "tags"),
    ({"path": "books"}, "path"),
    ({"path": ""}, "path"),
    ({"path": 5}, "path"),
    ({"path": "https://example.org/books"}, "path"),
]


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        *WRONG_EVICTIONS,
        ({}, "tags"),
        ({"tags": None}, "tags"),
        ({"everything": 1}, "everything"),
        ({"everything": None}, "everything"),
    ],
)
async def test_wrong_argument_of_evict_is_an_error_that_evicts_nothing(
    app: WebServer, options: dict[str, Any], setting: str
) -> None:
    """It names the argument; what is stored stays."""
    add_counter(app, tags="books")
    client = app.test_client()
    await client.get("/")
    with pytest.raises(InvalidSettingError) as caught:
        await app.evict(**options)
    assert caught.value.setting == setting
    assert app.cache_stats().entries == 1


@pytest.mark.parametrize(("options", "setting"), WRONG_EVICTIONS)
async def test_wrong_argument_of_clear_cache_is_an_error_that_evicts_nothing(
    app: WebServer, options: dict[str, Any], setting: str
) -> None:
    """An argument that names nothing is not taken for "everything"."""
    add_counter(app, tags="books")
    client = app.test_client()
    await client.get("/")
    with pytest.raises(InvalidSettingError) as caught:
        app.clear_cache(**options)
    assert caught.value.setting == setting
    assert app.cache_stats().entries == 1


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"default_timeout": -1}, "default_timeout"),
        ({"default_timeout": "300"}, "default_timeout"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_variants": 0}, "max_variants"),
        ({"max_variants": 2.0}, "max_variants"),
        ({"max_flights": True}, "max_flights"),
        ({"local_seconds": -1}, "local_seconds"),
        ({"store_deadline_seconds": None}, "store_deadline_seconds"),
        ({"flight_deadline_seconds": float("inf")}, "flight_deadline_seconds"),
        ({"show_status": 1}, "show_status"),
    ],
)
def test_wrong_option_of_the_cache_itself_is_an_error_that_names_it(
    options: dict[str, Any], setting: str
) -> None:
    """Cache() checks what it is given when it is made."""
    with pytest.raises(InvalidSettingError) as caught:
        Cache(**options)
    assert caught.value.setting == setting
