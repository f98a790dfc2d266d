"""What browsers and CDNs are told, over real sockets: by aeros, and by plain Quart under plain uvicorn."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, cast

import httpx
import pytest
import quart
import uvicorn
from quart import (
    Blueprint,
    Quart,
    Response,
    abort,
    after_this_request,
    redirect,
)
from quart.typing import ResponseReturnValue, ResponseTypes
from quart.views import MethodView

from aeros import Cache, CacheControl, WebServer
from aeros.caching.client import immutable, no_store
from aeros.caching.view import cached_route
from aeros.http.etag import entity_tag_of

IDENTITY = {"accept-encoding": "identity"}
STORED = "aeros; fwd=miss; stored"
PATIENCE = 20.0
NOW = 1_700_000_000.0


class Served:
    """A running application and a client for it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        """GETs without content coding unless the headers ask for one."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, headers={**IDENTITY, **fields})


Serve = Callable[[Quart], Served]


@contextmanager
def under_uvicorn(app: Quart) -> Generator[str]:
    """Serves an application as it is, without anything of aeros, and gives its URL."""
    server = uvicorn.Server(uvicorn.Config(cast(Any, app), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: Quart) -> Served:
            if isinstance(app, WebServer):
                url = stack.enter_context(app.run_in_thread()).url
            else:
                url = stack.enter_context(under_uvicorn(app))
            return Served(stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE)))

        yield start


@pytest.fixture(params=[WebServer, Quart])
def any_app(request: pytest.FixtureRequest, tmp_path: Path) -> Quart:
    """An application of aeros, and one of plain Quart."""
    return cast("type[Quart]", request.param)(
        __name__, static_folder=str(tmp_path), static_url_path="/static"
    )


@pytest.fixture
def app() -> WebServer:
    """An application whose cache has a clock that stands still."""
    return WebServer(__name__, cache=Cache(clock=lambda: NOW))


def told(response: httpx.Response) -> tuple[str | None, str | None]:
    """Returns what all clients, and what CDNs, are told."""
    return response.headers.get("cache-control"), response.headers.get("cdn-cache-control")


# Any Quart application


def test_views_of_all_kinds_tell_it(any_app: Quart, serve: Serve) -> None:
    """Async and sync ones, tuples and responses, blueprints and classes, GET and HEAD."""
    policy = CacheControl(public=True, max_age=60, cdn=CacheControl(max_age=600, stale_if_error=60))
    blueprint = Blueprint("part", __name__, url_prefix="/part")

    @any_app.route("/async/<int:number>")
    @policy
    async def view(number: int) -> dict[str, int]:
        return {"number": number}

    @any_app.route("/sync")
    @policy
    def sync_view() -> tuple[str, int, dict[str, str]]:
        return "x", 203, {"X-Own": "1"}

    @blueprint.route("/stream")
    @policy
    async def stream() -> AsyncGenerator[bytes, None]:
        yield b"one "
        yield b"two"

    class Item(MethodView):
        """A class-based view."""

        decorators: ClassVar[list[Callable[..., Any]]] = [policy]

        async def get(self) -> Response:
            return Response("item")

    any_app.register_blueprint(blueprint)
    any_app.add_url_rule("/item", view_func=Item.as_view("item"))
    served = serve(any_app)
    expected = ("public, max-age=60", "max-age=600, stale-if-error=60")
    for path, status, body in (
        ("/async/5", 200, '{"number":5}'),
        ("/sync", 203, "x"),
        ("/part/stream", 200, "one two"),
        ("/item", 200, "item"),
    ):
        response = served.get(path)
        assert (response.status_code, response.text.strip()) == (status, body)
        assert told(response) == expected
        assert told(served.client.head(path)) == expected


def test_errors_are_told_too(any_app: Quart, serve: Serve) -> None:
    """What is aborted, what raises and what an error handler answers; by default only no-store is said."""
    usual = CacheControl(max_age=60)
    missing = CacheControl(max_age=5, statuses=404)

    def add(path: str, decorator: CacheControl, error: Exception | int) -> None:
        async def view() -> str:
            if isinstance(error, int):
                abort(error)
            raise error

        any_app.add_url_rule(path, path, decorator(view))

    @any_app.errorhandler(LookupError)
    async def handle(_: Exception) -> tuple[str, int]:
        return "not there", 404

    for name, decorator in (("usual", usual), ("missing", missing), ("never", no_store)):
        add(f"/{name}/404", decorator, 404)
        add(f"/{name}/handled", decorator, LookupError())
        add(f"/{name}/500", decorator, ZeroDivisionError())
    served = serve(any_app)
    found = {
        name: [
            (response.status_code, told(response)[0])
            for response in (served.get(f"/{name}/{path}") for path in ("404", "handled", "500"))
        ]
        for name in ("usual", "missing", "never")
    }
    assert found == {
        "usual": [(404, None), (404, None), (500, None)],
        "missing": [(404, "max-age=5"), (404, "max-age=5"), (500, None)],
        "never": [(404, "no-store"), (404, "no-store"), (500, "no-store")],
    }


def test_the_view_s_own_word_wins(any_app: Quart, serve: Serve) -> None:
    """Also what it says after an abort, by a hook of its own."""

    @any_app.route("/own")
    @CacheControl(max_age=60, cdn=CacheControl(max_age=600))
    async def own() -> tuple[str, dict[str, str]]:
        return "x", {"Cache-Control": "private"}

    @any_app.route("/inner")
    @CacheControl(max_age=60, s_maxage=120)
    @CacheControl(no_cache=True)
    async def inner() -> str:
        return "x"

    @any_app.route("/raised")
    @no_store
    @CacheControl(no_cache=True, statuses=None)
    async def raised() -> str:
        abort(410)

    served = serve(any_app)
    assert told(served.get("/own")) == ("private", None)
    assert told(served.get("/inner")) == ("no-cache", None)
    assert told(served.get("/raised")) == ("no-cache", None)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_hook_tells_all_that_have_said_nothing(any_app: Quart, serve: Serve, is_async: bool) -> None:
    """What no view answers, too: unknown paths and wrong methods. Quart has said something of its files."""
    policy = CacheControl(private=True, no_cache=True, statuses=None)
    if is_async:

        @any_app.after_request
        async def tell(response: ResponseTypes) -> ResponseTypes:
            return policy.apply(response)
    else:
        any_app.after_request(policy.apply)

    @any_app.route("/view")
    async def view() -> str:
        return "x"

    @any_app.route("/prices")
    @CacheControl(max_age=60)
    async def prices() -> str:
        return "x"

    (Path(cast(str, any_app.static_folder)) / "note.txt").write_text("note")
    served = serve(any_app)
    for path, status in (("/view", 200), ("/nowhere", 404)):
        response = served.get(path)
        assert (response.status_code, told(response)[0]) == (status, "private, no-cache")
    assert told(served.get("/static/note.txt"))[0] == "public, max-age=43200"
    assert told(served.client.post("/view"))[0] == "private, no-cache"
    assert told(served.get("/prices"))[0] == "max-age=60"


@pytest.mark.parametrize("default", [timedelta(hours=12), 5, None])
def test_files_are_told_unless_the_view_gives_a_time(
    any_app: Quart, serve: Serve, default: timedelta | int | None
) -> None:
    """What Quart writes on every file is not the view's own word, nor on the 304 that it answers itself."""
    any_app.config["SEND_FILE_MAX_AGE_DEFAULT"] = default
    folder = Path(cast(str, any_app.static_folder))
    (folder / "app.3f2a.js").write_text("let x")

    @any_app.route("/assets/<name>")
    @immutable
    async def asset(name: str) -> Response:
        return await quart.send_from_directory(folder, name)  # pyright: ignore[reportUnknownMemberType]  # a bare PathLike

    @any_app.route("/timed")
    @immutable
    async def timed() -> Response:
        return await quart.send_file(folder / "app.3f2a.js", cache_timeout=6)  # pyright: ignore[reportUnknownMemberType]  # a bare PathLike

    @any_app.route("/other")
    @CacheControl(max_age=60, statuses=404)
    async def other() -> Response:
        return await quart.send_file(folder / "app.3f2a.js")  # pyright: ignore[reportUnknownMemberType]  # a bare PathLike

    served = serve(any_app)
    first = served.get("/assets/app.3f2a.js")
    again = served.get("/assets/app.3f2a.js", if_none_match=first.headers["etag"])
    part = served.get("/assets/app.3f2a.js", range="bytes=0-2")
    assert [answer.status_code for answer in (first, again, part)] == [200, 304, 206]
    assert part.text == "let"
    for answer in (first, again, part):
        assert told(answer)[0] == "public, max-age=31536000, immutable"
        assert "expires" not in answer.headers
    assert told(served.get("/timed"))[0] == "public, max-age=6"
    expected = {None: "public", 5: "public, max-age=5"}.get(cast(Any, default), "public, max-age=43200")
    assert told(served.get("/other"))[0] == expected
    assert told(served.get("/assets/missing.js"))[0] is None


def test_a_client_that_has_it_gets_304_without_the_body(any_app: Quart, serve: Serve) -> None:
    """With all that the 200 tells of caching; GET and HEAD agree, and a change brings the whole again."""
    texts = ["first " * 200]

    @any_app.route("/")
    @CacheControl(no_cache=True, etag=True, cdn=CacheControl(max_age=60))
    async def view() -> tuple[str, dict[str, str]]:
        return texts[-1], {"Content-Location": "/here"}

    served = serve(any_app)
    first = served.get()
    assert first.headers["etag"] == str(entity_tag_of(texts[0].encode()))
    head = served.client.head("/", headers=IDENTITY)
    assert (head.headers["etag"], head.headers["content-length"]) == (first.headers["etag"], "1200")
    for method in ("GET", "HEAD"):
        tag = {"if-none-match": first.headers["etag"], **IDENTITY}
        again = served.client.request(method, "/", headers=tag)
        assert (again.status_code, again.content) == (304, b"")
        assert "content-length" not in again.headers
        for name in ("etag", "cache-control", "cdn-cache-control", "content-location", "vary", "date"):
            assert again.headers.get(name) == first.headers.get(name), name
    texts.append("second")
    changed = served.get(if_none_match=first.headers["etag"])
    assert (changed.status_code, changed.text) == (200, "second")
    assert served.client.post("/").status_code == 405


def test_a_large_body_is_tagged_off_the_event_loop(any_app: Quart, serve: Serve) -> None:
    """With the same result as a small one has, and the request at hand."""
    text = "x" * 3_000_000

    @any_app.route("/")
    @CacheControl(no_cache=True, etag=True)
    async def view() -> str:
        return text

    served = serve(any_app)
    first = served.get()
    assert first.headers["etag"] == str(entity_tag_of(text.encode()))
    again = served.get(if_none_match=first.headers["etag"])
    assert (again.status_code, again.content, told(again)[0]) == (304, b"", "no-cache")


def test_streams_and_other_statuses_have_no_tag(any_app: Quart, serve: Serve) -> None:
    """And are never answered with 304 by it."""
    policy = CacheControl(no_cache=True, etag=True, statuses=None)

    @any_app.route("/stream")
    @policy
    async def stream() -> AsyncGenerator[bytes, None]:
        yield b"text"

    @any_app.route("/created")
    @policy
    async def created() -> tuple[str, int]:
        return "text", 201

    @any_app.route("/moved")
    @policy
    async def moved() -> ResponseReturnValue:
        return redirect("/created")

    served = serve(any_app)
    for path, status in (("/stream", 200), ("/created", 201), ("/moved", 302)):
        response = served.get(path, if_none_match="*")
        assert (response.status_code, told(response)[0]) == (status, "no-cache")
        assert "etag" not in response.headers


# With what aeros does


def test_coded_responses_have_tags_of_their_own(app: WebServer, serve: Serve) -> None:
    """Each is known by its own tag, and Vary stands on the 304 as well."""

    @app.route("/")
    @CacheControl(no_cache=True, etag=True)
    async def view() -> str:
        return "compressible " * 200

    served = serve(app)
    plain = served.get()
    coded = served.get(accept_encoding="br")
    assert coded.headers["content-encoding"] == "br"
    assert coded.headers["etag"] == plain.headers["etag"][:-1] + '-br"'
    again = served.get(accept_encoding="br", if_none_match=coded.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == coded.headers["etag"]
    assert served.get(if_none_match=coded.headers["etag"]).status_code == 200
    for response in (plain, coded, again, served.get(if_none_match=plain.headers["etag"])):
        assert response.headers["vary"].lower() == "accept-encoding"


def test_no_transform_is_obeyed(app: WebServer, serve: Serve) -> None:
    """Who forbids it to others does not do it."""

    @app.route("/")
    @CacheControl(max_age=60, no_transform=True)
    async def view() -> str:
        return "compressible " * 200

    assert "content-encoding" not in serve(app).get(accept_encoding="br").headers


def add_counter(
    app: WebServer,
    path: str,
    *,
    above: CacheControl | None = None,
    below: CacheControl | None = None,
    **options: Any,
) -> None:
    """Adds a cached view whose body is the number of its run."""
    runs = count(1)

    async def view() -> str:
        return str(next(runs))

    told_below = view if below is None else below(view)
    cached = app.cache(**options)(told_below)
    app.add_url_rule(path, path, cached if above is None else above(cached))


def test_below_the_cache_it_is_stored_and_gives_the_lifetime(app: WebServer, serve: Serve) -> None:
    """The route's own timeout comes first; clients hear the same for hit and miss."""
    add_counter(app, "/stated", below=CacheControl(max_age=40, s_maxage=50))
    add_counter(app, "/route", below=CacheControl(max_age=40), timeout=60)
    add_counter(app, "/private", below=CacheControl(private=True, max_age=40), timeout=60)
    served = serve(app)
    for path, ttl, expected in (("/stated", 50, "max-age=40, s-maxage=50"), ("/route", 60, "max-age=40")):
        first, again = served.get(path), served.get(path)
        assert first.headers["cache-status"] == STORED
        assert again.headers["cache-status"] == f"aeros; hit; ttl={ttl}"
        assert (first.text, again.text) == ("1", "1")
        assert told(first) == told(again) == (expected, None)
    assert [served.get("/private").text for _ in range(2)] == ["1", "2"]
    assert served.get("/private").headers["cache-status"] == "aeros; fwd=bypass; detail=private"


def test_above_the_cache_it_is_said_of_hits_too(app: WebServer, serve: Serve) -> None:
    """What is stored knows nothing of it; a 304 and a 206 made of it say it as well."""
    policy = CacheControl(max_age=0, must_revalidate=True, cdn=CacheControl(max_age=600))
    add_counter(app, "/", above=policy, timeout=60)
    served = serve(app)
    first, again = served.get(), served.get()
    assert [answer.headers["cache-status"] for answer in (first, again)] == [STORED, "aeros; hit; ttl=60"]
    others = [served.get(if_none_match=again.headers["etag"]), served.get(range="bytes=0-0")]
    assert [answer.status_code for answer in others] == [304, 206]
    for answer in (first, again, *others, served.client.head("/")):
        assert told(answer) == ("max-age=0, must-revalidate", "max-age=600")


def test_the_nearer_one_wins_for_hits_as_well(app: WebServer, serve: Serve) -> None:
    """What is stored with the response is what clients hear."""
    add_counter(app, "/", above=CacheControl(no_cache=True), below=CacheControl(max_age=40))
    served = serve(app)
    assert [told(served.get())[0] for _ in range(2)] == ["max-age=40", "max-age=40"]


def test_what_clients_may_not_share_is_not_stored_here(app: WebServer, serve: Serve) -> None:
    """The finished response says it, wherever the decorator stands."""
    add_counter(app, "/", above=no_store, timeout=60)
    served = serve(app)
    for expected in ("1", "2"):
        response = served.get()
        assert (response.text, told(response)[0]) == (expected, "no-store")
        assert response.headers["cache-status"] == "aeros; fwd=bypass; detail=no-store"


def test_a_cached_view_is_still_known_as_one_from_outside(app: WebServer, serve: Serve) -> None:
    """The decorator keeps the mark that ``functools.wraps`` keeps: such a view is admitted when it runs."""
    add_counter(app, "/", above=CacheControl(max_age=5), timeout=60)
    assert cached_route(app.view_functions["/"]) is not None
    served = serve(app)
    assert served.get().headers["cache-status"] == STORED
    assert served.get().headers["cache-status"] == "aeros; hit; ttl=60"


@pytest.mark.parametrize("place", ["above", "below"])
def test_a_conditional_request_does_not_keep_a_response_from_being_stored(
    app: WebServer, serve: Serve, place: str
) -> None:
    """The view of a cached route makes a whole response for whoever it runs; the tags are compared later."""
    policy = CacheControl(max_age=40, etag=True)
    add_counter(app, "/", timeout=60, **{place: policy})
    served = serve(app)
    tag = str(entity_tag_of(b"1"))
    first = served.get(if_none_match=tag)
    assert (first.status_code, first.headers["cache-status"]) == (304, STORED)
    whole = served.get()
    assert (whole.status_code, whole.text, whole.headers["etag"]) == (200, "1", tag)
    assert whole.headers["cache-status"] == "aeros; hit; ttl=60"
    again = served.get(if_none_match=tag)
    assert (again.status_code, again.content, told(again)[0]) == (304, b"", "max-age=40")
    assert served.get(if_none_match='"other"').status_code == 200


# An error that is stored


def add_missing(app: WebServer, *decorators: Callable[..., Any]) -> None:
    """Adds a cached view that aborts with 404, which is stored, below these decorators."""

    async def view() -> str:
        abort(404)

    decorated: Callable[..., Any] = view
    for decorator in decorators:
        decorated = decorator(decorated)
    app.add_url_rule("/", "missing", app.cache(60, statuses={404: 10})(decorated))


def test_a_stored_error_says_what_the_decorator_below_the_cache_says(app: WebServer, serve: Serve) -> None:
    """What an error handler answers for the view is stored as it is sent."""
    add_missing(app, CacheControl(max_age=5, statuses=404), CacheControl(no_cache=True))
    served = serve(app)
    first, again = served.get(), served.get()
    assert [first.status_code, again.status_code] == [404, 404]
    assert first.headers["cache-status"] == STORED
    assert again.headers["cache-status"] == "aeros; hit; ttl=10"
    assert told(first) == told(again) == ("max-age=5", None)


def test_an_error_that_forbids_storing_is_not_stored(app: WebServer, serve: Serve) -> None:
    """Also where the route stores errors of that status."""
    add_missing(app, no_store)
    served = serve(app)
    for _ in range(2):
        response = served.get()
        assert (response.status_code, told(response)[0]) == (404, "no-store")
        assert response.headers["cache-status"] == "aeros; fwd=bypass; detail=no-store"


def test_an_error_that_says_nothing_is_stored_as_before(app: WebServer, serve: Serve) -> None:
    """A decorator that has nothing to say of errors does not keep them from being stored."""
    add_missing(app, CacheControl(max_age=60))
    served = serve(app)
    assert served.get().headers["cache-status"] == STORED
    assert served.get().headers["cache-status"] == "aeros; hit; ttl=10"
    assert told(served.get()) == (None, None)


def with_hook(view: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Is a decorator of the application's own that registers a hook for the request."""

    @wraps(view)
    async def hooked(*args: Any, **kwargs: Any) -> Any:
        @after_this_request
        async def sign(response: ResponseTypes) -> ResponseTypes:
            response.headers["X-Signed"] = "yes"
            return response

        return await view(*args, **kwargs)

    return hooked


@pytest.mark.parametrize(
    "decorators", [[with_hook], [no_store, with_hook], [with_hook, CacheControl(max_age=5)]]
)
def test_an_error_whose_view_registered_a_hook_is_not_stored(
    app: WebServer, serve: Serve, decorators: list[Callable[..., Any]]
) -> None:
    """A hit would lack what the hook does, for errors as for all other responses."""
    add_missing(app, *decorators)
    served = serve(app)
    for _ in range(2):
        response = served.get()
        assert (response.status_code, response.headers["x-signed"]) == (404, "yes")
        assert response.headers["cache-status"] == "aeros; fwd=bypass; detail=after-this-request"


def test_an_error_whose_handler_registered_a_hook_is_not_stored(app: WebServer, serve: Serve) -> None:
    """The error handler does not run for a hit, either."""

    @app.errorhandler(404)
    async def handle(_: Exception) -> tuple[str, int]:
        @after_this_request
        async def sign(response: ResponseTypes) -> ResponseTypes:
            response.headers["X-Signed"] = "yes"
            return response

        return "not there", 404

    add_missing(app)
    served = serve(app)
    for _ in range(2):
        response = served.get()
        assert (response.text, response.headers["x-signed"]) == ("not there", "yes")
        assert response.headers["cache-status"] == "aeros; fwd=bypass; detail=after-this-request"


def test_a_hook_registered_before_the_view_keeps_nothing_from_being_stored(
    app: WebServer, serve: Serve
) -> None:
    """It stands above the cache, and runs for hits as well."""

    async def view() -> str:
        abort(404)

    app.add_url_rule("/", "missing", with_hook(app.cache(60, statuses={404: 10})(view)))
    served = serve(app)
    for expected in (STORED, "aeros; hit; ttl=10"):
        response = served.get()
        assert (response.headers["cache-status"], response.headers["x-signed"]) == (expected, "yes")
