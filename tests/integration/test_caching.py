"""The cache as its users and their clients see it, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import wraps
from itertools import count
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import brotli
import httpx
import pytest
from quart import Blueprint, Response, abort, g, jsonify, request
from quart.typing import ResponseReturnValue
from quart.views import MethodView, View

from aeros import Cache, InvalidSettingError, WebServer

P = ParamSpec("P")
T = TypeVar("T")

IDENTITY = {"accept-encoding": "identity"}


@pytest.fixture
def app() -> WebServer:
    """An application that tests add their views to."""
    return WebServer(__name__)


class Served:
    """A running application and a client for it."""

    def __init__(self, app: WebServer, client: httpx.Client) -> None:
        self.app = app
        self.client = client

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GETs without content coding unless the headers ask for one."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, headers={**IDENTITY, **fields})

    def outcomes(self, path: str, times: int = 2) -> list[str]:
        """Returns what ``Cache-Status`` says for requests in a row, without the time left."""
        return [outcome(self.get(path)) for _ in range(times)]


@pytest.fixture
def serve() -> Iterator[Callable[[WebServer], Served]]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Served:
            server = stack.enter_context(app.run_in_thread())
            return Served(app, stack.enter_context(httpx.Client(base_url=server.url)))

        yield start


Serve = Callable[[WebServer], Served]

STORED = "aeros; fwd=miss; stored"
HIT = "aeros; hit"


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left, which depends on the clock."""
    return response.headers["cache-status"].partition("; ttl=")[0]


class Cached(Protocol):
    """What ``app.cache()`` returns, as far as these helpers use it."""

    def __call__(self, view: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]:
        """Returns the view with the cache before it."""
        ...


def counting_view(app: WebServer, path: str, decorator: Cached) -> None:
    """Adds a view that counts its calls; the count is the body."""
    numbers = count(1)

    async def view() -> str:
        return str(next(numbers))

    app.add_url_rule(path, path, decorator(view))


# A request and the ones after it


def test_first_request_is_stored_second_is_a_hit_then_304(app: WebServer, serve: Serve) -> None:
    """The README's sequence: miss and stored, hit with Age, br, and 304 for the tag it gave."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"page {next(numbers)} " * 500

    served = serve(app)
    expected = "page 1 " * 500
    first = served.get("/")
    assert first.headers["cache-status"] == STORED
    assert "age" not in first.headers
    second = served.get("/")
    assert second.text == first.text == expected
    assert second.headers["cache-status"].startswith("aeros; hit; ttl=")
    assert 0 <= int(second.headers["age"]) <= 60
    assert second.headers["etag"] == first.headers["etag"]
    coded = served.get("/", accept_encoding="br")
    assert coded.headers["content-encoding"] == "br"
    assert coded.text == expected
    assert coded.headers["etag"] != second.headers["etag"]
    again = served.get("/", accept_encoding="br", if_none_match=coded.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == coded.headers["etag"]
    assert outcome(again) == HIT
    assert "content-encoding" not in again.headers
    assert "content-type" not in again.headers


def test_coded_body_of_a_hit_decodes_to_the_view_s(app: WebServer, serve: Serve) -> None:
    """The bytes on the wire of a br hit are one brotli stream of the view's body."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "text " * 1000

    served = serve(app)
    for expected in (STORED, HIT):
        with served.client.stream("GET", "/", headers={"accept-encoding": "br"}) as response:
            raw = b"".join(response.iter_raw())
        assert outcome(response) == expected
        assert brotli.decompress(raw) == b"text " * 1000
        assert int(response.headers["content-length"]) == len(raw)


def test_etag_of_one_coding_is_no_match_for_another(app: WebServer, serve: Serve) -> None:
    """A strong tag of the identity body gets no 304 where br would be sent."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "text " * 1000

    served = serve(app)
    tag = served.get("/").headers["etag"]
    assert served.get("/", if_none_match=tag).status_code == 304
    assert served.get("/", accept_encoding="br", if_none_match=tag).status_code == 200


def test_miss_answers_if_none_match_too(app: WebServer, serve: Serve) -> None:
    """The tag stands for the content, so a client's copy outlives the stored response."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "same every time"

    served = serve(app)
    tag = served.get("/").headers["etag"]
    app.clear_cache()
    response = served.get("/", if_none_match=tag)
    assert response.status_code == 304
    assert response.headers["cache-status"] == STORED


def test_hit_has_one_date_that_is_the_stored_response_s(serve: Serve) -> None:
    """A hit has exactly one Date, from when the response was made (RFC 9111 keeps it)."""
    now = 1_000_000_000.0
    app = WebServer(__name__, cache=Cache(clock=lambda: now))
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    served.get("/")
    now += 30
    hit = served.get("/")
    assert hit.headers.get_list("date") == ["Sun, 09 Sep 2001 01:46:40 GMT"]
    assert hit.headers["age"] == "30"
    assert hit.headers["cache-status"] == "aeros; hit; ttl=30"


def test_all_fields_of_the_view_come_back_on_a_hit(app: WebServer, serve: Serve) -> None:
    """Status, type and a view's own fields, repeated ones too, are stored."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = Response(b"{}", 203, content_type="application/json")
        response.headers["Cache-Control"] = "max-age=60"
        response.headers.add("Link", "</a>; rel=next")
        response.headers.add("Link", "</b>; rel=prev")
        return response

    served = serve(app)
    first, hit = served.get("/"), served.get("/")
    assert (outcome(first), outcome(hit)) == (STORED, HIT)
    assert first.status_code == hit.status_code == 203
    assert hit.headers["content-type"] == "application/json"
    assert hit.headers.get_list("link") == ["</a>; rel=next", "</b>; rel=prev"]
    assert hit.headers.get_list("content-length") == ["2"]


# timeout


@pytest.mark.parametrize("timeout", [60, 60.0, timedelta(minutes=1)], ids=["int", "float", "timedelta"])
def test_timeout_is_seconds_or_a_timedelta(app: WebServer, serve: Serve, timeout: float | timedelta) -> None:
    """All ways to say one minute give a response that is fresh for a minute."""
    counting_view(app, "/", app.cache(timeout=timeout))
    served = serve(app)
    served.get("/")
    ttl = int(served.get("/").headers["cache-status"].partition("ttl=")[2])
    assert 50 <= ttl <= 60


def test_expired_response_is_made_again(app: WebServer, serve: Serve) -> None:
    """After its lifetime a stored response is not used."""
    counting_view(app, "/", app.cache(timeout=0.1))
    served = serve(app)
    assert served.get("/").text == "1"
    threading.Event().wait(0.15)
    second = served.get("/")
    assert (second.text, second.headers["cache-status"]) == ("2", STORED)


def test_timeout_none_takes_what_the_response_states(serve: Serve) -> None:
    """Without a timeout the response's own max-age is its lifetime, and then the cache's default."""
    now = 1_000_000_000.0
    app = WebServer(__name__, cache=Cache(default_timeout=100, clock=lambda: now))

    @app.route("/stated")
    @app.cache()
    async def stated() -> tuple[str, dict[str, str]]:
        return "x", {"Cache-Control": "max-age=7"}

    counting_view(app, "/default", app.cache())
    served = serve(app)
    served.get("/stated")
    served.get("/default")
    assert served.get("/stated").headers["cache-status"] == "aeros; hit; ttl=7"
    assert served.get("/default").headers["cache-status"] == "aeros; hit; ttl=100"
    now += 8
    assert served.get("/stated").headers["cache-status"] == STORED
    assert served.get("/default").headers["cache-status"] == "aeros; hit; ttl=92"


def test_timeout_beats_what_the_response_states(app: WebServer, serve: Serve) -> None:
    """The route's word on the lifetime is the last."""

    @app.route("/")
    @app.cache(timeout=500)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Cache-Control": "max-age=0"}

    served = serve(app)
    served.get("/")
    assert int(served.get("/").headers["cache-status"].partition("ttl=")[2]) > 400


def test_timeout_zero_stores_nothing(app: WebServer, serve: Serve) -> None:
    """A lifetime of 0 means stale at once."""
    counting_view(app, "/", app.cache(timeout=0))
    bypassed = "aeros; fwd=bypass; detail=lifetime-zero"
    assert serve(app).outcomes("/") == [bypassed, bypassed]


def test_no_lifetime_anywhere_stores_nothing(serve: Serve) -> None:
    """With default_timeout=None only what states its freshness is stored."""
    app = WebServer(__name__, cache=Cache(default_timeout=None))
    counting_view(app, "/", app.cache())
    bypassed = "aeros; fwd=bypass; detail=no-lifetime"
    assert serve(app).outcomes("/") == [bypassed, bypassed]


def test_age_that_the_view_states_counts(serve: Serve) -> None:
    """A response that was old when it came is fresh for less."""
    now = 1_000_000_000.0
    app = WebServer(__name__, cache=Cache(clock=lambda: now))

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Age": "50"}

    served = serve(app)
    served.get("/")
    hit = served.get("/")
    assert hit.headers["cache-status"] == "aeros; hit; ttl=10"
    assert hit.headers.get_list("age") == ["50"]


# key_prefix


def path_view(app: WebServer, decorator: Cached) -> None:
    """Adds a view for two paths whose body is the path that it ran for."""

    async def view(name: str) -> str:
        return name

    app.add_url_rule("/<name>", "path-view", decorator(view))


@pytest.mark.parametrize("prefix", ["view/%s", "%s", "a%sb%s"])
def test_key_prefix_with_placeholder_keeps_paths_apart(app: WebServer, serve: Serve, prefix: str) -> None:
    """Where %s stands for the path every path has a response of its own."""
    path_view(app, app.cache(timeout=60, key_prefix=prefix))
    served = serve(app)
    assert [served.get("/a").text, served.get("/b").text, served.get("/a").text] == ["a", "b", "a"]
    assert outcome(served.get("/b")) == HIT


def test_default_key_prefix_keeps_paths_apart(app: WebServer, serve: Serve) -> None:
    """The default prefix has the path in it."""
    path_view(app, app.cache(timeout=60))
    served = serve(app)
    assert [served.get("/a").text, served.get("/b").text] == ["a", "b"]


def test_key_prefix_without_placeholder_is_one_key(app: WebServer, serve: Serve) -> None:
    """Without %s all paths share one response."""
    path_view(app, app.cache(timeout=60, key_prefix="shared"))
    served = serve(app)
    assert [served.get("/a").text, served.get("/b").text] == ["a", "a"]
    assert outcome(served.get("/b")) == HIT


def test_key_prefix_callable_is_asked_at_each_request(app: WebServer, serve: Serve) -> None:
    """A callable decides per request, within the request's context."""

    def language() -> str:
        return request.headers.get("Accept-Language", "en")

    numbers = count(1)

    @app.route("/<name>")
    @app.cache(timeout=60, key_prefix=language)
    async def view(name: str) -> str:
        return f"{language()} {next(numbers)}"

    served = serve(app)
    assert served.get("/a", accept_language="de").text == "de 1"
    assert served.get("/b", accept_language="de").text == "de 1"
    assert served.get("/a", accept_language="fr").text == "fr 2"


def test_placeholder_in_a_callable_s_text_stands_for_itself(app: WebServer, serve: Serve) -> None:
    """A callable's text is the key as it is."""
    path_view(app, app.cache(timeout=60, key_prefix=lambda: "%s"))
    served = serve(app)
    assert [served.get("/a").text, served.get("/b").text] == ["a", "a"]


def test_routes_with_different_prefixes_share_nothing(app: WebServer, serve: Serve) -> None:
    """Two views with fixed keys are told apart by them."""
    for name in ("one", "two"):

        async def view(name: str = name) -> str:
            return name

        app.add_url_rule(f"/{name}", name, app.cache(timeout=60, key_prefix=name)(view))
    served = serve(app)
    assert [served.get("/one").text, served.get("/two").text] == ["one", "two"]
    assert [served.get("/one").text, served.get("/two").text] == ["one", "two"]


# unless, forced_update, response_filter


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_unless_keeps_requests_out(app: WebServer, serve: Serve, is_async: bool) -> None:
    """unless: no lookup and no store for the requests that it is true for."""

    def is_preview() -> bool:
        return "preview" in request.args

    async def is_preview_async() -> bool:
        await asyncio.sleep(0)
        return is_preview()

    counting_view(app, "/", app.cache(timeout=60, unless=is_preview_async if is_async else is_preview))
    served = serve(app)
    assert outcome(served.get("/?preview=1")) == "aeros; fwd=bypass; detail=unless"
    assert served.get("/").text == "2"
    assert served.get("/").text == "2"
    assert served.get("/?preview=1").text == "3"
    assert served.get("/").text == "2"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_forced_update_replaces_what_is_stored(app: WebServer, serve: Serve, is_async: bool) -> None:
    """forced_update: the view runs and its response is stored for the others."""

    def refreshes() -> bool:
        return "refresh" in request.args

    async def refreshes_async() -> bool:
        await asyncio.sleep(0)
        return refreshes()

    decorator = app.cache(timeout=60, forced_update=refreshes_async if is_async else refreshes)
    counting_view(app, "/", decorator)
    served = serve(app)
    assert [served.get("/").text, served.get("/").text] == ["1", "1"]
    forced = served.get("/?refresh=1")
    assert (forced.text, forced.headers["cache-status"]) == ("2", STORED)
    hit = served.get("/")
    assert (hit.text, outcome(hit)) == ("2", HIT)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_response_filter_keeps_responses_from_being_stored(
    app: WebServer, serve: Serve, is_async: bool
) -> None:
    """response_filter sees the response and its False is final."""

    def is_complete(response: Response) -> bool:
        return response.headers["X-Part"] != "1"

    async def is_complete_async(response: Response) -> bool:
        return "complete" in await response.get_data(as_text=True)

    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60, response_filter=is_complete_async if is_async else is_complete)
    async def index() -> tuple[str, dict[str, str]]:
        number = next(numbers)
        return "partial" if number == 1 else "complete", {"X-Part": str(number)}

    served = serve(app)
    assert served.outcomes("/", 3) == ["aeros; fwd=bypass; detail=response-filter", STORED, HIT]
    assert served.get("/").headers["x-part"] == "2"


def test_error_in_a_condition_is_a_500_and_stores_nothing(app: WebServer, serve: Serve) -> None:
    """A condition that raises is an error of the application, and nobody waits for it for ever."""
    broken = True

    def unless() -> bool:
        if broken:
            raise RuntimeError("broken condition")
        return False

    counting_view(app, "/", app.cache(timeout=60, unless=unless))
    served = serve(app)
    assert served.get("/").status_code == 500
    broken = False
    assert served.outcomes("/") == [STORED, HIT]


# query_string, hash_method


def test_query_is_not_part_of_the_key_by_default(app: WebServer, serve: Serve) -> None:
    """Without query_string all queries share the path's response."""
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    assert [served.get("/?a=1").text, served.get("/?a=2").text, served.get("/").text] == ["1", "1", "1"]


def test_query_string_keeps_queries_apart_but_not_their_order(app: WebServer, serve: Serve) -> None:
    """With query_string the parameters count, in whatever order they come."""
    counting_view(app, "/", app.cache(timeout=60, query_string=True))
    served = serve(app)
    assert served.get("/?a=1&b=2").text == "1"
    assert served.get("/?b=2&a=1").text == "1"
    assert served.get("/?a=1&b=3").text == "2"
    assert served.get("/").text == "3"
    # The order of one parameter's values is what a view sees, so it counts.
    assert served.get("/?a=1&a=2").text == "4"
    assert served.get("/?a=2&a=1").text == "5"


def test_query_string_keeps_encoded_separators_apart(app: WebServer, serve: Serve) -> None:
    """An encoded ampersand is part of a value, not the end of one."""
    counting_view(app, "/", app.cache(timeout=60, query_string=True))
    served = serve(app)
    bodies = [served.get(f"/?{query}").text for query in ("a=1%26b=2", "a=1&b=2", "a=1%26b=2")]
    assert bodies == ["1", "2", "1"]


def test_hash_method_is_called_and_collisions_are_harmless(app: WebServer, serve: Serve) -> None:
    """Any hashlib constructor will do; a method that collides never mixes responses up."""

    class Collides:
        calls = 0

        def __init__(self, data: bytes) -> None:
            Collides.calls += 1

        def hexdigest(self) -> str:
            return "same"

    counting_view(app, "/strong", app.cache(timeout=60, query_string=True, hash_method=hashlib.sha256))
    counting_view(app, "/weak", app.cache(timeout=60, query_string=True, hash_method=Collides))
    served = serve(app)
    assert [served.get(f"/strong?q={q}").text for q in "121"] == ["1", "2", "1"]
    assert [served.get(f"/weak?q={q}").text for q in "121"] == ["1", "2", "1"]
    assert Collides.calls > 1


# cache_none


@pytest.mark.parametrize("cache_none", [False, True])
def test_none_is_204_and_stored_only_by_option(app: WebServer, serve: Serve, cache_none: bool) -> None:
    """A view that returns None answers 204; cache_none says whether that is stored."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60, cache_none=cache_none)
    async def index() -> None:
        next(numbers)

    served = serve(app)
    responses = [served.get("/"), served.get("/")]
    assert [(response.status_code, response.content) for response in responses] == [(204, b"")] * 2
    bypassed = "aeros; fwd=bypass; detail=none"
    assert [*map(outcome, responses)] == ([STORED, HIT] if cache_none else [bypassed, bypassed])
    assert next(numbers) == (2 if cache_none else 3)
    for response in responses:
        assert "content-length" not in response.headers
        assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("status", "stored"), [(200, True), (203, False), (301, False), (404, False), (500, False)]
)
def test_status_200_is_stored_and_others_are_not(
    app: WebServer, serve: Serve, status: int, stored: bool
) -> None:
    """Where a response states no freshness only 200 is stored."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, int]:
        return "x", status

    bypassed = "aeros; fwd=bypass; detail=status"
    assert serve(app).outcomes("/") == ([STORED, HIT] if stored else [bypassed, bypassed])


@pytest.mark.parametrize(("status", "stored"), [(404, True), (410, True), (206, False), (304, False)])
def test_status_with_stated_freshness_is_stored_but_never_parts(
    app: WebServer, serve: Serve, status: int, stored: bool
) -> None:
    """A response that states its freshness is stored whatever its status, except 206 and 304."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, int, dict[str, str]]:
        return "x" if status != 304 else "", status, {"Cache-Control": "max-age=60"}

    bypassed = "aeros; fwd=bypass; detail=status"
    assert serve(app).outcomes("/") == ([STORED, HIT] if stored else [bypassed, bypassed])


# Kinds of views


def test_sync_view_is_cached_and_runs_off_the_loop(app: WebServer, serve: Serve) -> None:
    """A def view is cached like an async one and keeps its thread."""
    threads: list[str] = []

    @app.route("/")
    @app.cache(timeout=60)
    def index() -> str:
        threads.append(threading.current_thread().name)
        return "sync"

    served = serve(app)
    assert served.outcomes("/") == [STORED, HIT]
    assert served.get("/").text == "sync"
    assert len(threads) == 1
    assert threads[0] != "aeros-server"


@pytest.mark.parametrize("kind", ["str", "bytes", "dict", "list", "tuple", "response", "jsonify"])
def test_every_kind_of_result_is_cached(app: WebServer, serve: Serve, kind: str) -> None:
    """Whatever Quart makes a response of can be stored and comes back the same."""
    results: dict[str, Callable[[], ResponseReturnValue]] = {
        "str": lambda: "text",
        "bytes": lambda: b"\xff\x00bytes",
        "dict": lambda: {"a": [1, "ä"]},
        "list": lambda: [1, 2],
        "tuple": lambda: ("text", 200, {"X-A": "b"}),
        "response": lambda: Response("text", content_type="text/plain"),
        "jsonify": lambda: jsonify(a=1),
    }

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> ResponseReturnValue:
        return results[kind]()

    served = serve(app)
    first, hit = served.get("/"), served.get("/")
    assert (outcome(first), outcome(hit)) == (STORED, HIT)
    assert hit.content == first.content != b""
    assert hit.headers["content-type"] == first.headers["content-type"]
    assert hit.headers.get("x-a") == first.headers.get("x-a")


def test_blueprint_view_is_cached(app: WebServer, serve: Serve) -> None:
    """Views of blueprints, nested ones too, are cached under their full path."""
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__)
    numbers = count(1)

    @inner.route("/x")
    @app.cache(timeout=60)
    async def inner_view() -> str:
        return str(next(numbers))

    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    app.register_blueprint(outer, url_prefix="/twin", name="twin")
    served = serve(app)
    assert [served.get("/outer/inner/x").text, served.get("/outer/inner/x").text] == ["1", "1"]
    assert served.get("/twin/inner/x").text == "2"


def test_view_class_with_decorators_is_cached(app: WebServer, serve: Serve) -> None:
    """View.decorators takes the cache."""
    numbers = count(1)

    class Page(View):
        decorators: ClassVar[list[Callable[..., Any]]] = [app.cache(timeout=60)]

        async def dispatch_request(self, **kwargs: object) -> ResponseReturnValue:
            return f"{kwargs['name']} {next(numbers)}"

    app.add_url_rule("/<name>", view_func=Page.as_view("page"))
    served = serve(app)
    assert [served.get("/a").text, served.get("/a").text, served.get("/b").text] == ["a 1", "a 1", "b 2"]


def test_method_view_s_method_is_cached(app: WebServer, serve: Serve) -> None:
    """One method of a MethodView can be cached while the others are not."""
    numbers = count(1)

    class Item(MethodView):
        @app.cache(timeout=60)
        async def get(self, name: str) -> str:
            return f"{name} {next(numbers)}"

        async def post(self, name: str) -> str:
            return f"posted {name} {next(numbers)}"

    app.add_url_rule("/<name>", view_func=Item.as_view("item"))
    served = serve(app)
    assert [served.get("/a").text, served.get("/a").text] == ["a 1", "a 1"]
    posted = served.client.post("/a")
    assert posted.text == "posted a 2"
    assert "cache-status" not in posted.headers
    # A successful POST evicts what GET has stored (RFC 9111 §4.4).
    assert [served.get("/a").text, served.get("/a").text] == ["a 3", "a 3"]


def test_decorator_outside_the_cache_runs_on_hits(app: WebServer, serve: Serve) -> None:
    """A login check above the cache is asked for every request, hit or miss."""

    def token_required(view: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(view)
        async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            if request.headers.get("X-Token") != "secret":
                abort(401)
            return await view(*args, **kwargs)

        return checked

    @app.route("/")
    @token_required
    @app.cache(timeout=60)
    async def index() -> str:
        return "for members"

    served = serve(app)
    assert served.get("/", x_token="secret").headers["cache-status"] == STORED
    assert outcome(served.get("/", x_token="secret")) == HIT
    refused = served.get("/")
    assert refused.status_code == 401
    assert "members" not in refused.text


def test_decorator_inside_the_cache_runs_for_misses_only(app: WebServer, serve: Serve) -> None:
    """What stands below the cache is part of the view that it stores."""
    numbers = count(1)

    def exclaimed(view: Callable[[], str]) -> Callable[[], str]:
        @wraps(view)
        def loud() -> str:
            return f"{view()}{next(numbers)}!"

        return loud

    @app.route("/")
    @app.cache(timeout=60)
    @exclaimed
    def index() -> str:
        return "hello"

    served = serve(app)
    assert [served.get("/").text, served.get("/").text] == ["hello1!", "hello1!"]


def test_cached_view_keeps_name_doc_and_signature(app: WebServer) -> None:
    """Tools that look at a view see the view."""

    @app.cache(timeout=60)
    async def price(article: int, currency: str = "EUR") -> str:
        """Returns a price."""
        return f"{article} {currency}"

    assert price.__name__ == "price"
    assert price.__doc__ == "Returns a price."
    assert price.__module__ == __name__
    assert [*inspect.signature(price).parameters] == ["article", "currency"]
    assert inspect.iscoroutinefunction(price)


async def test_cached_views_can_be_called_outside_of_a_request(app: WebServer) -> None:
    """A unit test that calls the view gets what the view returns, each time anew."""
    numbers = count(1)

    @app.cache(timeout=60)
    async def asynchronous(word: str) -> str:
        return f"{word} {next(numbers)}"

    @app.cache(timeout=60)
    def synchronous(word: str) -> str:
        return f"{word} {next(numbers)}"

    assert await asynchronous("a") == "a 1"
    assert await asynchronous(word="a") == "a 2"
    assert await synchronous("b") == "b 3"
    assert app.cache_stats().stores == 0


def test_cached_view_that_calls_another_one_answers_for_both(app: WebServer, serve: Serve) -> None:
    """Within a cached view another cached view just runs: there is one response."""
    numbers = count(1)

    @app.route("/part")
    @app.cache(timeout=60)
    async def part() -> str:
        return f"part {next(numbers)}"

    @app.route("/whole")
    @app.cache(timeout=60)
    async def whole() -> str:
        return f"whole of {await part()}"

    served = serve(app)
    assert [served.get("/whole").text, served.get("/whole").text] == ["whole of part 1", "whole of part 1"]
    assert served.get("/part").text == "part 2"


def test_decorator_without_parentheses_is_an_error_that_says_so(app: WebServer) -> None:
    """``@app.cache`` without its parentheses fails at once, not at the first request."""

    async def view() -> str:
        return "x"

    with pytest.raises(InvalidSettingError, match="timeout"):
        app.cache(view)  # type: ignore[arg-type]  # what is tested # pyright: ignore[reportArgumentType]


# Hooks


def test_hooks_run_on_hits(app: WebServer, serve: Serve) -> None:
    """before_request, after_request and teardown_request run for every request."""
    calls: list[str] = []

    @app.before_request
    async def before() -> None:
        g.began = True
        calls.append("before")

    @app.after_request
    async def after(response: Response) -> Response:
        calls.append("after")
        response.headers["X-Began"] = str(g.began)
        return response

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        calls.append("teardown")

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    assert served.outcomes("/") == [STORED, HIT]
    assert served.get("/").headers.get_list("x-began") == ["True"]
    assert calls == ["before", "after", "teardown"] * 3


def test_fields_that_a_hook_adds_are_not_stored(app: WebServer, serve: Serve) -> None:
    """What is stored is the view's response: a hook's field is new for each request, never doubled."""
    numbers = count(1)

    @app.after_request
    async def after(response: Response) -> Response:
        response.headers.add("X-Request", str(next(numbers)))
        return response

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    assert [served.get("/").headers.get_list("x-request") for _ in range(3)] == [["1"], ["2"], ["3"]]


def test_before_request_that_answers_keeps_the_cache_out(app: WebServer, serve: Serve) -> None:
    """A hook that answers itself is never stored as the view's response."""
    closed = True

    @app.before_request
    async def before() -> str | None:
        return "closed" if closed else None

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    first = served.get("/")
    assert first.text == "closed"
    assert "cache-status" not in first.headers
    closed = False
    assert served.get("/").text == "1"
    closed = True
    assert served.get("/").text == "closed"


def test_hook_that_replaces_the_body_gets_no_stale_tag_or_variant(app: WebServer, serve: Serve) -> None:
    """A body that a hook makes per request is sent, compressed anew, without the stored one's tag."""
    numbers = count(1)

    @app.after_request
    async def stamp(response: Response) -> Response:
        if "stamp" in request.args:
            response.set_data(f"stamped {next(numbers)} " * 300)
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "plain " * 300

    served = serve(app)
    plain = served.get("/", accept_encoding="br")
    assert plain.text == "plain " * 300
    for number in (1, 2):
        stamped = served.get("/?stamp=1", accept_encoding="br", if_none_match=plain.headers["etag"])
        assert stamped.status_code == 200
        assert stamped.text == f"stamped {number} " * 300
        assert stamped.headers["content-encoding"] == "br"
        assert "etag" not in stamped.headers
    again = served.get("/", accept_encoding="br")
    assert (again.text, again.headers["etag"]) == ("plain " * 300, plain.headers["etag"])


def test_hook_that_replaces_the_body_of_the_miss_leaves_the_stored_one_alone(
    app: WebServer, serve: Serve
) -> None:
    """The view's body is stored, not what a hook made of it for the first client."""
    replaces = True

    @app.after_request
    async def replace(response: Response) -> Response:
        if replaces:
            response.set_data("replaced")
        return response

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    assert served.get("/").text == "replaced"
    replaces = False
    hit = served.get("/")
    assert (hit.text, outcome(hit)) == ("1", HIT)
    assert hit.headers["content-length"] == "1"


def test_hook_that_turns_a_hit_into_an_error_answers_with_the_error(app: WebServer, serve: Serve) -> None:
    """A hook may change the status of a hit; a conditional request gets no 304 for it."""
    broken = False

    @app.after_request
    async def turn(response: Response) -> Response:
        if broken:
            response.status_code = 503
        return response

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    tag = served.get("/").headers["etag"]
    broken = True
    assert served.get("/", if_none_match=tag).status_code == 503
    broken = False
    assert served.get("/").text == "1"


def test_status_that_a_hook_changes_on_the_miss_is_not_stored(app: WebServer, serve: Serve) -> None:
    """If a hook refuses the first response nobody else gets it as 200."""
    refuses = True

    @app.after_request
    async def refuse(response: Response) -> Response:
        if refuses:
            response.status_code = 500
        return response

    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    first = served.get("/")
    assert (first.status_code, outcome(first)) == (500, "aeros; fwd=bypass; detail=status")
    refuses = False
    assert served.get("/").text == "2"


def test_own_etag_of_the_view_is_kept(app: WebServer, serve: Serve) -> None:
    """The view's tag is used on miss and hit, and answers If-None-Match."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = Response("text")
        response.set_etag("mine")
        return response

    served = serve(app)
    assert [served.get("/").headers["etag"] for _ in range(2)] == ['"mine"', '"mine"']
    assert served.get("/", if_none_match='W/"mine"').status_code == 304
    assert served.get("/", if_none_match='"other"').status_code == 200


def test_last_modified_of_the_view_answers_if_modified_since(app: WebServer, serve: Serve) -> None:
    """A hit with Last-Modified answers a date condition."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}

    served = serve(app)
    served.get("/")
    assert served.get("/", if_modified_since="Sun, 02 Jan 2022 00:00:00 GMT").status_code == 304
    assert served.get("/", if_modified_since="Fri, 31 Dec 2021 00:00:00 GMT").status_code == 200


# Methods


def test_post_is_not_answered_from_the_cache(app: WebServer, serve: Serve) -> None:
    """Only GET and HEAD are looked up; the answer to POST is not stored either."""
    numbers = count(1)

    @app.route("/", methods=["GET", "POST"])
    @app.cache(timeout=60)
    async def index() -> str:
        return f"{request.method} {next(numbers)}"

    served = serve(app)
    assert served.client.post("/").text == "POST 1"
    assert served.get("/").text == "GET 2"
    posted = served.client.post("/")
    assert (posted.text, outcome(posted)) == ("POST 3", "aeros; fwd=method")


def test_get_with_a_body_bypasses_the_cache(app: WebServer, serve: Serve) -> None:
    """A body could select the answer and is in no key."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"{await request.get_data(as_text=True)!s} {next(numbers)}"

    served = serve(app)
    for number, body in enumerate((b"a", b"b"), 1):
        response = served.client.request("GET", "/", content=body, headers=IDENTITY)
        assert response.text == f"{body.decode()} {number}"
        assert outcome(response) == "aeros; fwd=bypass; detail=request-body"
    assert outcome(served.get("/")) == STORED


def test_get_with_a_chunked_body_bypasses_the_cache(app: WebServer, serve: Serve) -> None:
    """A body of unknown length is a body."""
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    served.get("/")
    response = served.client.request("GET", "/", content=iter([b"a", b"b"]), headers=IDENTITY)
    assert (response.text, outcome(response)) == ("2", "aeros; fwd=bypass; detail=request-body")


def test_head_is_a_hit_after_get_with_the_same_fields(app: WebServer, serve: Serve) -> None:
    """HEAD reads what GET stored and says what GET would say."""
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    served.get("/")
    got = served.get("/")
    head = served.client.head("/", headers=IDENTITY)
    assert (head.status_code, head.content, outcome(head)) == (200, b"", HIT)
    for name in ("content-length", "content-type", "etag", "vary"):
        assert head.headers[name] == got.headers[name]
    conditional = served.client.head("/", headers={**IDENTITY, "if-none-match": got.headers["etag"]})
    assert conditional.status_code == 304


def test_head_alone_stores_nothing(app: WebServer, serve: Serve) -> None:
    """A view may answer HEAD in another way, so its answer never stands for GET's."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "" if request.method == "HEAD" else "body"

    served = serve(app)
    head = served.client.head("/", headers=IDENTITY)
    assert (head.status_code, outcome(head)) == (200, "aeros; fwd=miss")
    got = served.get("/")
    assert (got.text, outcome(got)) == ("body", STORED)


def test_options_and_405_of_a_cached_route_are_quart_s(app: WebServer, serve: Serve) -> None:
    """Automatic OPTIONS and 405 work beside a cached view and never come from the cache."""
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    served.get("/")
    options = served.client.options("/")
    assert (options.status_code, options.content) == (200, b"")
    assert "GET" in options.headers["allow"]
    assert served.client.delete("/").status_code == 405


# Clearing and counting


def test_clear_cache_from_another_thread(app: WebServer, serve: Serve) -> None:
    """clear_cache() outside of the server's thread is in force for the next request."""
    counting_view(app, "/", app.cache(timeout=60))
    served = serve(app)
    assert served.outcomes("/") == [STORED, HIT]
    assert app.clear_cache() == 1
    assert served.get("/").text == "2"
    assert app.clear_cache() == 1
    assert app.clear_cache() == 0


def test_clear_cache_from_a_view(app: WebServer, serve: Serve) -> None:
    """A view that changes data clears, and its own response says how many left."""
    counting_view(app, "/", app.cache(timeout=60))
    path_view(app, app.cache(timeout=60))

    @app.route("/clear", methods=["POST"])
    async def clear() -> str:
        return str(app.clear_cache())

    served = serve(app)
    served.get("/")
    served.get("/a")
    assert served.client.post("/clear").text == "2"
    assert served.get("/").text == "2"


def test_clearing_within_a_cached_view_keeps_its_response_out(app: WebServer, serve: Serve) -> None:
    """What began before a clearing is not stored after it."""
    clears = True

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        if clears:
            app.clear_cache()
        return "x"

    served = serve(app)
    assert outcome(served.get("/")) == "aeros; fwd=bypass; detail=evicted"
    clears = False
    assert served.outcomes("/") == [STORED, HIT]


def test_cache_stats_count_what_happened(app: WebServer, serve: Serve) -> None:
    """The snapshot has hits, misses, stores, bypasses by reason, entries and bytes."""
    path_view(app, app.cache(timeout=60, unless=lambda: "skip" in request.args))
    served = serve(app)
    for path in ("/a", "/a", "/a", "/b", "/b", "/c?skip=1"):
        served.get(path)
    stats = app.cache_stats()
    assert (stats.hits, stats.misses, stats.stores, stats.entries) == (3, 2, 2, 2)
    assert stats.bypasses == {"unless": 1}
    assert 0 < stats.bytes < 10_000
    assert (stats.collapsed, stats.evictions, stats.damaged, stats.store_errors) == (0, 0, 0, 0)
    app.clear_cache()
    assert app.cache_stats().entries == 0
    assert stats.entries == 2, "a snapshot stays what it was"


def test_memory_is_bounded_and_the_least_recently_used_leave(serve: Serve) -> None:
    """With room for a few bodies the one that was asked for last stays."""
    app = WebServer(__name__, cache=Cache(max_bytes=350_000))

    @app.route("/<name>")
    @app.cache(timeout=60)
    async def page(name: str) -> bytes:
        return name.encode() * 100_000

    served = serve(app)
    for name in "abcabd":
        served.get(f"/{name}")
    stats = app.cache_stats()
    assert stats.evictions == 1
    assert stats.bytes <= 350_000
    assert [outcome(served.get(f"/{name}")) for name in "abd"] == [HIT, HIT, HIT]
    assert outcome(served.get("/c")) == STORED


def test_body_larger_than_the_cache_is_sent_but_not_stored(serve: Serve) -> None:
    """A body over the bound says why it is not stored."""
    app = WebServer(__name__, cache=Cache(max_bytes=10_000))

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> bytes:
        return b"x" * 20_000

    served = serve(app)
    response = served.get("/")
    assert len(response.content) == 20_000
    assert outcome(response) == "aeros; fwd=bypass; detail=too-large"


def test_two_applications_share_no_response(serve: Serve) -> None:
    """Each application has a cache of its own."""
    apps = [WebServer(__name__), WebServer(__name__)]
    for number, app in enumerate(apps):

        async def view(number: int = number) -> str:
            return f"app {number}"

        app.add_url_rule("/", "index", app.cache(timeout=60)(view))
    served = [serve(app) for app in apps]
    assert [one.get("/", host="same.test").text for one in served] == ["app 0", "app 1"]
    assert [one.get("/", host="same.test").text for one in served] == ["app 0", "app 1"]


def test_uncached_route_has_no_fields_of_the_cache(app: WebServer, serve: Serve) -> None:
    """Routes without the decorator are left as they are."""

    @app.route("/")
    async def index() -> str:
        return "plain"

    headers = serve(app).get("/").headers
    assert not {"cache-status", "age", "etag"} & set(headers)
