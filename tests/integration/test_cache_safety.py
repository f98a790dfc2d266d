"""What one client's request leaves behind is never shown to another one that may not see it."""

from __future__ import annotations

import asyncio
import gzip
import os
import pickle
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from contextlib import ExitStack, suppress
from functools import cached_property, wraps
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import httpx
import pytest
import redis
import redis.asyncio
from cachelib import FileSystemCache, RedisCache, SimpleCache
from hypercorn.middleware import ProxyFixMiddleware
from quart import (
    Blueprint,
    Quart,
    Request,
    Response,
    after_this_request,
    current_app,
    flash,
    g,
    get_flashed_messages,
    make_response,
    render_template_string,
    request,
    send_file,  # pyright: ignore[reportUnknownVariableType]  # Quart's own annotation
    session,
)
from quart.globals import request_ctx
from quart.typing import ResponseReturnValue
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.http import parse_cookie
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros import Cache, RedisStore, WebServer
from aeros.caching.entry import MAGIC

if TYPE_CHECKING:
    from tests.conftest import RedisProcess

IDENTITY = {"accept-encoding": "identity"}
STORED = "aeros; fwd=miss; stored"
HIT = "aeros; hit"


def bypassed(reason: str) -> str:
    """Returns what ``Cache-Status`` says of a response that is not stored."""
    return f"aeros; fwd=bypass; detail={reason}"


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left, which depends on the clock."""
    return response.headers["cache-status"].partition("; ttl=")[0]


@pytest.fixture
def app() -> WebServer:
    """An application with sessions, that tests add their views to."""
    app = WebServer(__name__)
    app.secret_key = "tests only"
    return app


def finish(client: httpx.Client) -> None:
    """Makes sure that the last request is over, its file closed: the next one has to wait for that."""
    with suppress(httpx.TransportError):  # a test may have left the connection broken
        client.get("/is-it-over")


class Browsers:
    """Clients of one running application, each with its own cookies."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self._stack = stack

    def new(self, **headers: str) -> httpx.Client:
        """Returns a client without cookies."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        client = self._stack.enter_context(httpx.Client(base_url=self.url, headers={**IDENTITY, **fields}))
        self._stack.callback(finish, client)
        return client


class Serve(Protocol):
    """Starts an application."""

    def __call__(self, app: WebServer, /, *, http: str = "auto") -> Browsers:
        """Returns what asks it."""
        ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer, /, *, http: str = "auto") -> Browsers:
            server = stack.enter_context(app.run_in_thread(http=http))
            return Browsers(server.url, stack)

        yield start


def add_login(app: WebServer) -> None:
    """Adds ``/login/<name>``, which puts a name into the session."""

    @app.route("/login/<name>")
    async def login(name: str) -> str:
        session["user"] = name
        return "in"


def two_users(browsers: Browsers) -> tuple[httpx.Client, httpx.Client]:
    """Returns the clients of two users who have logged in."""
    ann, bob = browsers.new(), browsers.new()
    for client, name in ((ann, "ann"), (bob, "bob")):
        assert client.get(f"/login/{name}").text == "in"
        assert "session" in client.cookies
    return ann, bob


# Sessions


def read_item() -> str:
    """Reads with brackets."""
    return str(session["user"])


def read_get() -> str:
    """Reads with ``get``."""
    return str(session.get("user"))


def read_in() -> str:
    """Asks whether a key is there, and reads it."""
    return str(session["user"]) if "user" in session else "nobody"


def read_iteration() -> str:
    """Goes over all keys."""
    return ",".join(f"{key}={session[key]}" for key in session)


def read_items() -> str:
    """Copies all of it."""
    return str(dict(session))


def read_attribute() -> str:
    """Uses an attribute of the session object."""
    return f"{session.permanent} {session.get('user')}"


READS = [read_item, read_get, read_in, read_iteration, read_items, read_attribute]


@pytest.mark.parametrize("read", READS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_view_that_reads_the_session_is_never_shared(
    app: WebServer, serve: Serve, read: Callable[[], str], is_async: bool
) -> None:
    """However a view reads the session, each user gets their own page and nothing is stored."""
    add_login(app)

    async def asynchronous() -> str:
        return f"hello {read()}"

    def synchronous() -> str:
        return f"hello {read()}"

    cached = app.cache(timeout=60)
    app.add_url_rule("/", "index", cached(asynchronous) if is_async else cached(synchronous))
    ann, bob = two_users(serve(app))
    for _ in range(2):
        page, other = ann.get("/"), bob.get("/")
        assert "ann" in page.text
        assert "bob" not in page.text
        assert "bob" in other.text
        assert "ann" not in other.text
        assert outcome(page) == outcome(other) == bypassed("session")
    assert app.cache_stats().stores == 0


LOOKS: dict[str, Callable[[], object]] = {
    "len": lambda: len(session),
    "bool": lambda: bool(session),
    "in": lambda: "user" in session,
    "keys": lambda: list(session.keys()),
    "str": lambda: str(session),
}


def test_looking_at_the_session_without_reading_a_value_counts(app: WebServer, serve: Serve) -> None:
    """Whether somebody is logged in is something that a page tells about its user, too."""
    add_login(app)

    @app.route("/<way>")
    @app.cache(timeout=60)
    async def index(way: str) -> str:
        return str(LOOKS[way]())

    browsers = serve(app)
    member, stranger = browsers.new(), browsers.new()
    member.get("/login/ann")
    for way in LOOKS:
        first, second = member.get(f"/{way}"), stranger.get(f"/{way}")
        assert outcome(first) == outcome(second) == bypassed("session"), way
        assert first.text != second.text, way


def test_view_that_writes_the_session_is_not_stored(app: WebServer, serve: Serve) -> None:
    """A written session sends a cookie, which goes to its user alone."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        session["visitor"] = next(numbers)
        return "welcome"

    browsers = serve(app)
    first, second = browsers.new().get("/"), browsers.new().get("/")
    assert outcome(first) == outcome(second) == bypassed("session")
    assert first.headers["set-cookie"] != second.headers["set-cookie"]


def test_flash_and_flashed_messages_are_not_stored(app: WebServer, serve: Serve) -> None:
    """Flashing a message uses the session, and so does showing it."""

    @app.route("/flash")
    @app.cache(timeout=60)
    async def flashing() -> str:
        await flash("only for you")
        return "flashed"

    @app.route("/show")
    @app.cache(timeout=60)
    async def showing() -> str:
        return str(get_flashed_messages())

    browsers = serve(app)
    ann, bob = browsers.new(), browsers.new()
    assert outcome(ann.get("/flash")) == bypassed("session")
    shown = ann.get("/show")
    assert "only for you" in shown.text
    assert outcome(shown) == bypassed("session")
    assert bob.get("/show").text == "[]"


@pytest.mark.parametrize("where", ["application", "blueprint"])
def test_session_read_by_a_before_request_hook_is_not_stored(
    app: WebServer, serve: Serve, where: str
) -> None:
    """What a hook learned from the session, in whatever way, may be in the page."""
    add_login(app)
    reads = {read.__name__: read for read in READS}
    blueprint = Blueprint("pages", __name__)

    @(app if where == "application" else blueprint).before_request
    async def before() -> None:
        way = (request.view_args or {}).get("way")
        if way is not None:
            g.greeting = f"hello {reads[way]()}"

    @blueprint.route("/<way>")
    @app.cache(timeout=60)
    async def index(way: str) -> str:
        return str(g.greeting)

    app.register_blueprint(blueprint)
    ann, bob = two_users(serve(app))
    for way in reads:
        for client, name, other in ((ann, "ann", "bob"), (bob, "bob", "ann")) * 2:
            page = client.get(f"/{way}")
            assert name in page.text, way
            assert other not in page.text, way
            assert outcome(page) == bypassed("session"), way
    assert app.cache_stats().stores == 0


def test_looking_whether_there_is_a_session_in_a_hook_counts(app: WebServer, serve: Serve) -> None:
    """A hook that only asks whether somebody is logged in learns something of its user."""
    add_login(app)

    @app.before_request
    async def before() -> None:
        if request.path == "/":
            g.is_member = len(session) > 0

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "member" if g.is_member else "stranger"

    browsers = serve(app)
    member, stranger = browsers.new(), browsers.new()
    member.get("/login/ann")
    responses = [member.get("/"), stranger.get("/"), member.get("/")]
    assert [response.text for response in responses] == ["member", "stranger", "member"]
    assert {*map(outcome, responses)} == {bypassed("session")}


def test_session_read_by_an_after_request_hook_is_not_stored(app: WebServer, serve: Serve) -> None:
    """A hook that reads the session after the view has run is noticed as well."""
    add_login(app)

    @app.after_request
    async def after(response: Response) -> Response:
        if request.path == "/":
            response.headers["X-User"] = str(session.get("user"))
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    ann, bob = two_users(serve(app))
    for client, name in ((ann, "ann"), (bob, "bob")) * 2:
        response = client.get("/")
        assert response.headers["x-user"] == name
        assert outcome(response) == bypassed("session")


TEMPLATES = (
    "{{ session['user'] }}",
    "{{ session.user }}",
    "{{ session.get('user') }}",
    "{% if session %}{{ session.get('user') }}{% endif %}",
    "{% if 'user' in session %}{{ session['user'] }}{% endif %}",
    "{% if session|length == 1 %}{{ session.user }}{% endif %}",
    "{% for key in session %}{{ session[key] }}{% endfor %}",
    "{% for _, value in session.items() %}{{ value }}{% endfor %}",
)


def test_template_that_reads_the_session_is_not_stored(app: WebServer, serve: Serve) -> None:
    """The session of a template is the same session."""
    add_login(app)

    @app.route("/<int:number>")
    @app.cache(timeout=60)
    async def index(number: int) -> str:
        return await render_template_string(TEMPLATES[number])

    ann, bob = two_users(serve(app))
    for number, template in enumerate(TEMPLATES):
        pages = [client.get(f"/{number}") for client in (ann, bob, ann)]
        assert [page.text for page in pages] == ["ann", "bob", "ann"], template
        assert {*map(outcome, pages)} == {bypassed("session")}, template


def test_template_that_only_looks_at_the_session_is_not_stored(app: WebServer, serve: Serve) -> None:
    """A template that reads no value may tell members from strangers all the same."""
    add_login(app)
    looks = ["{{ session|length }}", "{{ 'user' in session }}", "{% if session %}in{% else %}out{% endif %}"]

    @app.route("/<int:number>")
    @app.cache(timeout=60)
    async def index(number: int) -> str:
        return await render_template_string(looks[number])

    browsers = serve(app)
    member, stranger = browsers.new(), browsers.new()
    member.get("/login/ann")
    for number in range(len(looks)):
        first, second = member.get(f"/{number}"), stranger.get(f"/{number}")
        assert outcome(first) == outcome(second) == bypassed("session")
        assert first.text != second.text


def test_template_that_leaves_the_session_alone_is_stored(app: WebServer, serve: Serve) -> None:
    """Rendering a template is no use of the session, even for a user who has one."""
    add_login(app)
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return await render_template_string("{{ request.path }} {{ number }}", number=next(numbers))

    ann, bob = two_users(serve(app))
    first, hit = ann.get("/"), bob.get("/")
    assert first.text == hit.text == "/ 1"
    assert (outcome(first), outcome(hit)) == (STORED, HIT)


def test_session_cookie_alone_does_not_keep_pages_out(app: WebServer, serve: Serve) -> None:
    """A user with a session gets the shared page, and no cookie comes with it."""
    add_login(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "public page"

    ann, bob = two_users(serve(app))
    assert outcome(ann.get("/")) == STORED
    hit = bob.get("/")
    assert outcome(hit) == HIT
    assert "set-cookie" not in hit.headers


def test_session_read_on_a_hit_leaves_the_stored_page_in_place(app: WebServer, serve: Serve) -> None:
    """A hook that reads the session only for hits neither breaks nor empties the cache."""
    add_login(app)
    reads = False

    @app.after_request
    async def after(response: Response) -> Response:
        if reads:
            response.headers["X-User"] = str(session.get("user"))
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    ann, bob = two_users(serve(app))
    ann.get("/")
    reads = True
    assert [ann.get("/").headers["x-user"], bob.get("/").headers["x-user"]] == ["ann", "bob"]
    reads = False
    hit = bob.get("/")
    assert "x-user" not in hit.headers
    assert outcome(hit) == HIT


def test_body_with_session_data_is_not_compressed(app: WebServer, serve: Serve) -> None:
    """A page that read the session goes out as it is (BREACH)."""
    add_login(app)

    @app.route("/")
    async def index() -> str:
        return f"{session['user']} " * 1000

    @app.route("/public")
    async def public() -> str:
        return "page " * 1000

    browser = serve(app).new(accept_encoding="br")
    browser.get("/login/ann")
    assert "content-encoding" not in browser.get("/").headers
    assert browser.get("/public").headers["content-encoding"] == "br"


# Cookies that are read


COOKIE_READS: dict[str, Callable[[], object]] = {
    "item": lambda: request.cookies["user"],
    "get": lambda: request.cookies.get("user"),
    "getlist": lambda: request.cookies.getlist("user"),
    "in": lambda: (
        [name for name in ("ann", "bob") if f"user={name}" in request.headers["Cookie"]]
        if "user" in request.cookies
        else []
    ),
    "iteration": lambda: [request.cookies[name] for name in request.cookies],
    "dict": lambda: dict(request.cookies),
    "to_dict": lambda: request.cookies.to_dict(flat=False),
    "proxied": lambda: request_ctx.request.cookies.get("user"),
    "getattr": lambda: getattr(request, "cookies").get("user"),  # noqa: B009 - a way to it as any other
}


def ann_and_bob(browsers: Browsers) -> tuple[httpx.Client, httpx.Client]:
    """Returns clients that send one cookie each."""
    return browsers.new(cookie="user=ann"), browsers.new(cookie="user=bob")


def assert_own_pages(app: WebServer, browsers: Browsers, path: str = "/") -> None:
    """Each user gets their own page, and none is stored, because cookies were read."""
    ann, bob = ann_and_bob(browsers)
    for client, name, other in ((ann, "ann", "bob"), (bob, "bob", "ann")) * 2:
        page = client.get(path)
        assert page.status_code == 200, path
        assert name in page.text, path
        assert other not in page.text, path
        assert outcome(page) == bypassed("cookies"), path
    assert app.cache_stats().stores == 0


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_view_that_reads_cookies_is_never_shared(app: WebServer, serve: Serve, is_async: bool) -> None:
    """However a view reads ``request.cookies``, each client gets a page of its own and nothing is stored."""

    async def asynchronous(way: str) -> str:
        return f"hello {COOKIE_READS[way]()}"

    def synchronous(way: str) -> str:
        return f"hello {COOKIE_READS[way]()}"

    cached = app.cache(timeout=60)
    app.add_url_rule("/<way>", "index", cached(asynchronous) if is_async else cached(synchronous))
    browsers = serve(app)
    for way in COOKIE_READS:
        assert_own_pages(app, browsers, f"/{way}")


def test_looking_at_cookies_without_reading_a_value_counts(app: WebServer, serve: Serve) -> None:
    """Whether a client has cookies at all is something that a page tells about it, too."""
    looks: dict[str, Callable[[Sized], object]] = {"len": len, "bool": bool, "str": str}

    @app.route("/<way>")
    @app.cache(timeout=60)
    async def index(way: str) -> str:
        return str(looks[way](request.cookies))

    browsers = serve(app)
    guest, stranger = browsers.new(cookie="user=ann"), browsers.new()
    for way in looks:
        first, second = guest.get(f"/{way}"), stranger.get(f"/{way}")
        assert outcome(first) == outcome(second) == bypassed("cookies")
        assert first.text != second.text


@pytest.mark.parametrize("where", ["application", "blueprint", "url-values"])
def test_cookies_read_before_the_view_are_noticed(app: WebServer, serve: Serve, where: str) -> None:
    """A hook of the application or of the blueprint, or a processor of URL values, may read them first."""
    blueprint = Blueprint("pages", __name__)

    def keep(*_: object) -> None:
        g.user = request.cookies.get("user")

    if where == "url-values":
        app.url_value_preprocessor(keep)
    else:
        (app if where == "application" else blueprint).before_request(keep)

    @blueprint.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"hello {g.user}"

    app.register_blueprint(blueprint)
    assert_own_pages(app, serve(app))


@pytest.mark.parametrize("where", ["application", "blueprint"])
def test_cookies_read_after_the_view_are_noticed(app: WebServer, serve: Serve, where: str) -> None:
    """A hook that reads them once the view has returned keeps the response out as well."""
    blueprint = Blueprint("pages", __name__)

    @(app if where == "application" else blueprint).after_request
    async def after(response: Response) -> Response:
        response.headers["X-User"] = request.cookies.get("user", "nobody")
        return response

    @blueprint.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    app.register_blueprint(blueprint)
    ann, bob = ann_and_bob(serve(app))
    for client, name in ((ann, "ann"), (bob, "bob")) * 2:
        page = client.get("/")
        assert page.headers["x-user"] == name
        assert outcome(page) == bypassed("cookies")


class Users:
    """An extension as there are many: it finds out who asks, by a cookie, when somebody wants to know."""

    def __init__(self, app: Quart) -> None:
        app.extensions["users"] = self

    @property
    def current(self) -> str:
        """The name of who asks."""
        if "user" not in g:
            g.user = request.cookies.get("user", "nobody")
        return str(g.user)


def test_cookies_read_by_an_extension_are_noticed(app: WebServer, serve: Serve) -> None:
    """The view itself never names them: it asks an extension, which keeps the answer."""
    Users(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        users: Users = current_app.extensions["users"]
        return f"hello {users.current}, again {users.current}"

    assert_own_pages(app, serve(app))


def test_cookies_read_by_a_template_are_noticed(app: WebServer, serve: Serve) -> None:
    """The request of a template is the same request."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return await render_template_string("hello {{ request.cookies.user }}")

    assert_own_pages(app, serve(app))


def test_cookies_read_in_a_blueprint_are_noticed(app: WebServer, serve: Serve) -> None:
    """A view of a blueprint, nested and with a prefix, is a view like any other."""
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/outer")

    @inner.route("/<name>")
    @app.cache(timeout=60)
    async def index(name: str) -> str:
        return f"{name} of {request.cookies['user']}"

    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer)
    assert_own_pages(app, serve(app), "/outer/inner/page")


def test_cookies_read_by_a_decorator_above_the_cache_are_noticed(app: WebServer, serve: Serve) -> None:
    """What stands between route and cache may tell the view what it has read."""

    def personal(view: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        @wraps(view)
        async def wrapped() -> str:
            g.user = request.cookies.get("user")
            return await view()

        return wrapped

    @app.route("/")
    @personal
    @app.cache(timeout=60)
    async def index() -> str:
        return f"hello {g.user}"

    assert_own_pages(app, serve(app))


def test_cookies_read_by_a_decorator_below_the_cache_are_noticed(app: WebServer, serve: Serve) -> None:
    """What stands between cache and view is a part of the view."""

    def personal(view: Callable[[str], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        @wraps(view)
        async def wrapped() -> str:
            return await view(request.cookies["user"])

        return wrapped

    @app.route("/")
    @app.cache(timeout=60)
    @personal
    async def index(user: str) -> str:
        return f"hello {user}"

    assert_own_pages(app, serve(app))


class LazyRequest(Request):
    """An application's own request, which knows its user once somebody asks."""

    @property
    def user(self) -> str:
        """Who asks."""
        return self.cookies.get("user", "nobody")


class RememberingRequest(Request):
    """One that keeps what it has found."""

    @cached_property
    def user(self) -> str:
        """Who asks."""
        return self.cookies.get("user", "nobody")


class EagerRequest(Request):
    """One that finds out while it is made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user: str = self.cookies.get("user", "nobody")


class ParsingRequest(Request):
    """One with a way of its own to read the field."""

    @property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        """The cookies."""
        return ImmutableMultiDict(parse_cookie(self.headers.get("Cookie")))

    @property
    def user(self) -> str:
        """Who asks."""
        return self.cookies["user"]


@pytest.mark.parametrize("kind", [LazyRequest, RememberingRequest, EagerRequest, ParsingRequest])
def test_cookies_read_by_a_request_class_of_the_user_are_noticed(
    app: WebServer, serve: Serve, kind: type[Request]
) -> None:
    """An application's own ``request_class`` keeps its kind, and what it reads of cookies counts."""
    app.request_class = kind
    kinds: list[object] = []

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        kinds.append((type(request_ctx.request).__name__, isinstance(request_ctx.request, kind)))
        return f"hello {cast(Any, request).user}"

    assert_own_pages(app, serve(app))
    assert kinds == [(kind.__name__, True)] * 4


def test_cookies_that_nobody_reads_do_not_matter(app: WebServer, serve: Serve) -> None:
    """Most clients send cookies, to pages that are the same for all of them."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "public page"

    ann, bob = ann_and_bob(serve(app))
    assert (outcome(ann.get("/")), outcome(bob.get("/"))) == (STORED, HIT)


def test_named_cookies_make_a_response_storable_and_keep_users_apart(app: WebServer, serve: Serve) -> None:
    """With ``cookies=`` each value has a response of its own, as clients are told; other cookies do not."""

    @app.route("/")
    @app.cache(timeout=60, cookies="user")
    async def index() -> str:
        return f"hello {request.cookies.get('user', 'nobody')}"

    browsers = serve(app)
    clients = {
        "ann": browsers.new(cookie="user=ann; visit=1"),
        "bob": browsers.new(cookie="visit=1; user=bob"),
        "nobody": browsers.new(cookie="visit=1"),
        "": browsers.new(cookie="user="),
    }
    for expected in (STORED, HIT):
        for name, client in clients.items():
            page = client.get("/")
            assert page.text == f"hello {name}"
            assert outcome(page) == expected
            assert "cookie" in page.headers["vary"].lower()
    assert outcome(browsers.new(cookie="user=ann; visit=2").get("/")) == HIT
    assert app.cache_stats().stores == len(clients)


@pytest.mark.parametrize("where", ["view", "hook", "option"])
def test_vary_by_cookie_makes_a_response_storable_and_keeps_users_apart(
    app: WebServer, serve: Serve, where: str
) -> None:
    """Cookies may be read where the response, or the route, says that it varies by them."""

    @app.after_request
    async def after(response: Response) -> Response:
        if where == "hook":
            response.headers["Vary"] = "Accept-Language, cookie"
        return response

    @app.route("/")
    @app.cache(timeout=60, vary="Cookie" if where == "option" else ())
    async def index() -> tuple[str, dict[str, str]]:
        return f"hello {request.cookies['user']}", {"Vary": "Cookie"} if where == "view" else {}

    ann, bob = ann_and_bob(serve(app))
    for expected in (STORED, HIT):
        pages = [ann.get("/"), bob.get("/")]
        assert [page.text for page in pages] == ["hello ann", "hello bob"]
        assert [*map(outcome, pages)] == [expected, expected]
        assert all("cookie" in page.headers["vary"].lower() for page in pages)


def test_vary_by_another_field_does_not_make_cookies_harmless(app: WebServer, serve: Serve) -> None:
    """A response that was made from cookies and varies by something else stays out."""

    @app.route("/")
    @app.cache(timeout=60, vary="Accept-Language")
    async def index() -> tuple[str, dict[str, str]]:
        return f"hello {request.cookies['user']}", {"Vary": "X-Cookie, Accept"}

    assert_own_pages(app, serve(app))


# Cookies that are set


def test_cookie_of_the_view_is_never_replayed(app: WebServer, serve: Serve) -> None:
    """A response that sets a cookie is for one client."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = Response("page")
        response.set_cookie("visitor", str(next(numbers)))
        return response

    browsers = serve(app)
    for number in (1, 2, 3):
        response = browsers.new().get("/")
        assert outcome(response) == bypassed("set-cookie")
        assert response.cookies["visitor"] == str(number)


@pytest.mark.parametrize("how", ["after_request", "blueprint", "after_this_request"])
def test_cookie_of_a_hook_is_never_replayed(app: WebServer, serve: Serve, how: str) -> None:
    """A cookie that is set after the view has returned keeps the response out as well."""
    numbers = count(1)

    def set_cookie(response: Response) -> Response:
        response.set_cookie("visitor", str(next(numbers)))
        return response

    blueprint = Blueprint("pages", __name__)
    if how == "after_request":
        app.after_request(set_cookie)
    if how == "blueprint":
        blueprint.after_request(set_cookie)

    @blueprint.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        if how == "after_this_request":

            @after_this_request
            def later(response: Response | WerkzeugResponse) -> Response | WerkzeugResponse:
                assert isinstance(response, Response)
                return set_cookie(response)

        return "page"

    app.register_blueprint(blueprint)
    browsers = serve(app)
    for number in (1, 2, 3):
        response = browsers.new().get("/")
        reason = "after-this-request" if how == "after_this_request" else "set-cookie"
        assert outcome(response) == bypassed(reason)
        assert response.cookies["visitor"] == str(number)


def test_cookie_that_only_some_get_does_not_reach_the_others(app: WebServer, serve: Serve) -> None:
    """After a response with a cookie the next one without it is stored, and stays without."""
    gives_cookie = True

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = Response("page")
        if gives_cookie:
            response.set_cookie("secret", "for one")
        return response

    browsers = serve(app)
    assert "secret" in browsers.new().get("/").cookies
    gives_cookie = False
    assert outcome(browsers.new().get("/")) == STORED
    hit = browsers.new().get("/")
    assert outcome(hit) == HIT
    assert "set-cookie" not in hit.headers


def test_cookie_on_a_hit_goes_to_its_client_alone(app: WebServer, serve: Serve) -> None:
    """A hook may set a cookie on a hit; the stored response is not touched by it."""
    gives_cookie = False

    @app.after_request
    async def after(response: Response) -> Response:
        if gives_cookie:
            response.set_cookie("secret", "for one")
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    browsers = serve(app)
    browsers.new().get("/")
    gives_cookie = True
    assert "secret" in browsers.new().get("/").cookies
    gives_cookie = False
    hit = browsers.new().get("/")
    assert outcome(hit) == HIT
    assert "set-cookie" not in hit.headers


# Cache-Control and Vary of the response


FORBIDDING = {
    "private": "private",
    "Private": "private",
    "PRIVATE, max-age=60": "private",
    "max-age=60,pRiVaTe": "private",
    'private="set-cookie"': "private",
    'extension="a, b", private': "private",
    "public, private": "private",
    "no-store": "no-store",
    "max-age=60,No-Store": "no-store",
    "no-cache": "no-cache",
    "NO-CACHE": "no-cache",
    'no-cache="x-a"': "no-cache",
    "public, no-cache": "no-cache",
}


@pytest.mark.parametrize("where", ["view", "hook"])
def test_response_that_forbids_it_is_not_stored(app: WebServer, serve: Serve, where: str) -> None:
    """private, no-store and no-cache count in any case and wherever they are set, timeout or not."""
    numbers = count(1)
    values = list(FORBIDDING)

    @app.after_request
    async def after(response: Response) -> Response:
        if where == "hook":
            response.headers["Cache-Control"] = values[int(request.path[1:])]
        return response

    @app.route("/<int:number>")
    @app.cache(timeout=60)
    async def index(number: int) -> tuple[str, dict[str, str]]:
        return str(next(numbers)), {"Cache-Control": values[number]} if where == "view" else {}

    browser = serve(app).new()
    for number, (value, reason) in enumerate(FORBIDDING.items()):
        responses = [browser.get(f"/{number}"), browser.get(f"/{number}")]
        assert responses[0].text != responses[1].text, value
        assert [*map(outcome, responses)] == [bypassed(reason)] * 2, value
    assert app.cache_stats().stores == 0


@pytest.mark.parametrize("value", ['extension="private"', "x-private", "max-age=60, extension=no-store"])
def test_words_that_only_look_like_directives_do_not_count(app: WebServer, serve: Serve, value: str) -> None:
    """Within another directive's value, or as a part of a name, they forbid nothing."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Cache-Control": value}

    browser = serve(app).new()
    assert [outcome(browser.get("/")) for _ in range(2)] == [STORED, HIT]


def test_directives_on_several_lines_all_count(app: WebServer, serve: Serve) -> None:
    """A second Cache-Control line forbids as the first does, a hook's as the view's."""

    @app.after_request
    async def after(response: Response) -> Response:
        if request.path == "/hook":
            response.headers.add("cache-control", "No-Store")
        return response

    @app.route("/<where>")
    @app.cache(timeout=60)
    async def index(where: str) -> Response:
        response = Response("x")
        response.headers.add("Cache-Control", "max-age=60")
        if where == "view":
            response.headers.add("cache-control", "Private")
        return response

    browser = serve(app).new()
    assert outcome(browser.get("/view")) == bypassed("private")
    assert outcome(browser.get("/hook")) == bypassed("no-store")
    assert outcome(browser.get("/neither")) == STORED


@pytest.mark.parametrize("where", ["view", "hook"])
def test_vary_star_is_not_stored(app: WebServer, serve: Serve, where: str) -> None:
    """Vary: * says that no other request gets the same answer, also within a list or on a second line."""
    values = [["*"], ["Accept-Language, *"], ["*,Accept-Language"], ["Accept-Language", " * "], ["a,,*"]]

    def vary(response: Response, number: int) -> Response:
        for value in values[number]:
            response.headers.add("Vary", value)
        return response

    @app.after_request
    async def after(response: Response) -> Response:
        return vary(response, int(request.path[1:])) if where == "hook" else response

    @app.route("/<int:number>")
    @app.cache(timeout=60)
    async def index(number: int) -> Response:
        return vary(Response("x"), number) if where == "view" else Response("x")

    browser = serve(app).new()
    for number, value in enumerate(values):
        outcomes = [outcome(browser.get(f"/{number}")) for _ in range(2)]
        assert outcomes == [bypassed("vary")] * 2, value


def test_vary_keeps_variants_apart(app: WebServer, serve: Serve) -> None:
    """Responses that vary by a field go to requests with the same value of it, or its absence."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        language = request.headers.get("Accept-Language", "none")
        return f"{language} {next(numbers)}", {"Vary": "accept-language"}

    browser = serve(app).new()

    def ask(language: str | None) -> tuple[str, str]:
        response = browser.get("/", headers={} if language is None else {"Accept-Language": language})
        return response.text, outcome(response)

    assert ask("de") == ("de 1", STORED)
    assert ask("fr") == ("fr 2", STORED)
    assert ask(None) == ("none 3", STORED)
    assert ask("") == (" 4", STORED)
    assert ask("de") == ("de 1", HIT)
    assert ask("fr") == ("fr 2", HIT)
    assert ask(None) == ("none 3", HIT)
    assert ask("") == (" 4", HIT)


def test_vary_by_cookie_keeps_users_apart(app: WebServer, serve: Serve) -> None:
    """A view that reads a cookie and says so is stored for each cookie."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return f"theme {request.cookies.get('theme')}", {"Vary": "Cookie"}

    browsers = serve(app)
    dark, light = browsers.new(cookie="theme=dark"), browsers.new(cookie="theme=light")
    for expected in (STORED, HIT):
        responses = [dark.get("/"), light.get("/")]
        assert [response.text for response in responses] == ["theme dark", "theme light"]
        assert [*map(outcome, responses)] == [expected, expected]


def test_vary_that_changes_never_mixes_variants(app: WebServer, serve: Serve) -> None:
    """When a route begins to vary, what was stored before answers nobody wrongly."""

    @app.route("/")
    @app.cache(timeout=60, forced_update=lambda: "refresh" in request.args)
    async def index() -> tuple[str, dict[str, str]]:
        language = request.headers["Accept-Language"]
        return (language, {"Vary": "Accept-Language"}) if "refresh" in request.args else ("all", {})

    browser = serve(app).new()
    assert browser.get("/", headers={"Accept-Language": "de"}).text == "all"
    assert browser.get("/?refresh", headers={"Accept-Language": "de"}).text == "de"
    assert browser.get("/", headers={"Accept-Language": "de"}).text == "de"
    assert browser.get("/", headers={"Accept-Language": "fr"}).text != "de"


# Authorization


def test_answers_to_credentials_are_not_stored(app: WebServer, serve: Serve) -> None:
    """A response to Authorization is for who sent it, and is made for each of them."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return request.headers.get("Authorization", "nobody")

    browsers = serve(app)
    ann, bob, nobody = browsers.new(authorization="ann"), browsers.new(authorization="bob"), browsers.new()
    for _ in range(2):
        assert [ann.get("/").text, bob.get("/").text] == ["ann", "bob"]
    assert outcome(ann.get("/")) == bypassed("authorization")
    first = nobody.get("/")
    assert (first.text, outcome(first)) == ("nobody", STORED)
    assert [ann.get("/").text, nobody.get("/").text] == ["ann", "nobody"]


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_answers_to_credentials_are_shared_where_the_response_says_so(
    app: WebServer, serve: Serve, directive: str
) -> None:
    """RFC 9111 §3.5: public, s-maxage and must-revalidate let a shared cache use the response."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return str(next(numbers)), {"Cache-Control": directive}

    browsers = serve(app)
    first, hit = browsers.new(authorization="ann").get("/"), browsers.new(authorization="bob").get("/")
    assert [first.text, hit.text, browsers.new().get("/").text] == ["1", "1", "1"]
    assert (outcome(first), outcome(hit)) == (STORED, HIT)


@pytest.mark.parametrize(
    "field", ["Basic YW5uOg==", "Bearer ann", "x", ""], ids=["basic", "bearer", "unknown", "empty"]
)
def test_any_authorization_keeps_a_response_out(app: WebServer, serve: Serve, field: str) -> None:
    """No scheme is too strange, and an empty field is one as well."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return str(next(numbers))

    browsers = serve(app)
    assert browsers.new().get("/").text == "1"
    user = browsers.new(authorization=field)
    pages = [user.get("/"), user.get("/")]
    assert [page.text for page in pages] == ["2", "3"]
    assert {*map(outcome, pages)} == {bypassed("authorization")}
    assert browsers.new().get("/").text == "1"


# Keys


class Answer(NamedTuple):
    """What came over a raw socket."""

    text: str
    outcome: str


def raw_ask(url: str, target: str, *fields: str, host: str = "localhost", body: str = "") -> Answer:
    """GETs a target as it is written, with fields as they are written."""
    address = httpx.URL(url)
    head = "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "Connection: close", "", body])
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, text = received.decode("latin-1").partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    status = next((line for line in head.split("\r\n") if line.startswith("cache-status: ")), "")
    return Answer(text, status.removeprefix("cache-status: ").partition("; ttl=")[0])


def add_echo(app: WebServer) -> None:
    """Adds a view for all paths that says what it was asked for, and how many times it ran."""
    numbers = count(1)

    @app.route("/")
    @app.route("/<path:rest>")
    @app.cache(timeout=60, query_string=True)
    async def echo(rest: str = "") -> str:
        return f"{request.scheme} {request.host} {rest} {request.query_string.decode()} {next(numbers)}"


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_targets_that_mean_different_things_never_share_a_response(
    app: WebServer, serve: Serve, http: str
) -> None:
    """Keys are made of the raw fields, so nothing that looks alike once decoded is mixed up."""
    add_echo(app)
    url = serve(app, http=http).url
    pairs = [
        ("/a%3Fb=1", "/a?b=1"),
        ("/a%2Fb", "/a/b"),
        ("//a", "/a"),
        ("//a/b", "///a/b"),
        ("//localhost/a", "/localhost/a"),
        ("/a%25", "/a%2525"),
        ("/a", "/A"),
        ("/a", "/a/"),
        ("/a", "/%61"),
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/a/../b"),
        ("/a;x", "/a"),
        ("/a%00", "/a"),
        ("/a%23b", "/a%2523b"),
        ("/a%C3%A9", "/a%c3%a9"),
        ("/a?x=1&y=2", "/a?x=1%26y=2"),
        ("/a?x=1", "/a?x=1="),
        ("/a?x", "/a??x"),
        ("/a?x", "/a?X"),
    ]
    for one, other in pairs:
        first, second = raw_ask(url, one), raw_ask(url, other)
        assert first.text != second.text, (one, other)
        for target, kept in ((one, first), (other, second)):
            assert raw_ask(url, target) == Answer(kept.text, HIT), target
    assert app.cache_stats().stores == len({target for pair in pairs for target in pair})


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_absolute_targets_get_what_the_application_would_say(serve: Serve, http: str) -> None:
    """Whatever a server makes of ``GET http://host/path``, nobody gets another host's response by it."""
    app, plain = WebServer(__name__), WebServer(__name__)
    add_echo(app)

    @plain.route("/")
    @plain.route("/<path:rest>")
    async def echo(rest: str = "") -> str:
        return f"{request.scheme} {request.host} {rest} {request.query_string.decode()}"

    hosts = ["a.test", "b.test", "a.test:81"]
    targets = [
        "/x",
        "//x",
        "/x?q",
        *(f"http://{host}{path}" for host in hosts for path in ("/x", "//x", "/x?q")),
        "http://user@a.test/x",
        "HTTP://A.TEST/x",
        "https://a.test/x",
    ]
    asked, uncached = serve(app, http=http).url, serve(plain, http=http).url
    requests = [(target, host) for target in targets for host in hosts]
    for target, host in [*requests, *reversed(requests)]:
        expected = raw_ask(uncached, target, host=host).text
        assert raw_ask(asked, target, host=host).text.rpartition(" ")[0] == expected, (target, host)
    stats = app.cache_stats()
    assert stats.hits >= len(requests)
    assert stats.stores >= 3 * len(hosts)


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_hosts_share_nothing(app: WebServer, serve: Serve, http: str) -> None:
    """Each host has its own responses; upper and lower case are the same host."""
    add_echo(app)
    url = serve(app, http=http).url
    hosts = ["a.test", "b.test", "a.test:80", "a.test:81", "a.test.", "127.0.0.1", "[::1]", "[::1]:80"]
    first = {host: raw_ask(url, "/", host=host) for host in hosts}
    assert {answer.outcome for answer in first.values()} == {STORED}
    for host in hosts:
        assert raw_ask(url, "/", host=host) == Answer(first[host].text, HIT)
    assert raw_ask(url, "/", host="A.TEST") == Answer(first["a.test"].text, HIT)
    assert app.cache_stats().stores == len(hosts)


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("who", ["view", "middleware"])
def test_forwarded_hosts_share_nothing(app: WebServer, serve: Serve, http: str, who: str) -> None:
    """Behind a proxy the view, or middleware, may take ``X-Forwarded-Host`` for the host."""
    numbers = count(1)
    if who == "middleware":
        fixed: Any = ProxyFixMiddleware(cast(Any, app.asgi_app), mode="legacy", trusted_hops=1)
        app.asgi_app = fixed  # type: ignore[method-assign]  # how Quart's users wrap an application

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        named = request.headers.getlist("X-Forwarded-Host")
        host = request.host if who == "middleware" or not named else named[-1].rpartition(",")[2].strip()
        return f"http://{host}/next {next(numbers)}"

    url = serve(app, http=http).url
    one, two = "X-Forwarded-Host: one.test", "X-Forwarded-Host: two.test"
    requests = [[], [one], [two], ["x-forwarded-host: one.test, two.test"], [two, one]]
    expected = ["front.test", "one.test", "two.test", "two.test", "one.test"]
    first = [raw_ask(url, "/", *fields, host="front.test") for fields in requests]
    for fields, host, answer in zip(requests, expected, first, strict=True):
        assert answer.text.startswith(f"http://{host}/next "), fields
        assert answer.outcome == STORED, fields
        assert raw_ask(url, "/", *fields, host="front.test") == Answer(answer.text, HIT), fields


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_get_with_a_body_neither_gets_nor_leaves_a_response(app: WebServer, serve: Serve, http: str) -> None:
    """A body may decide about the answer and is in no key; an empty one is none."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"{await request.get_data(as_text=True)!s} {next(numbers)}"

    url = serve(app, http=http).url
    bodies = [
        (["Content-Length: 3"], "one"),
        (["Transfer-Encoding: chunked"], "3\r\none\r\n0\r\n\r\n"),
        (["Transfer-Encoding: Chunked"], "1\r\no\r\n2\r\nne\r\n0\r\n\r\n"),
    ]
    for number, (fields, body) in enumerate(bodies, 1):
        assert raw_ask(url, "/", *fields, body=body) == Answer(f"one {number}", bypassed("request-body"))
    assert raw_ask(url, "/") == Answer(" 4", STORED)
    for number, (fields, body) in enumerate(bodies, 5):
        assert raw_ask(url, "/", *fields, body=body) == Answer(f"one {number}", bypassed("request-body"))
    empty = raw_ask(url, "/", "Transfer-Encoding: chunked", body="0\r\n\r\n")
    assert empty == Answer(" 8", bypassed("request-body"))
    assert raw_ask(url, "/", "Content-Length: 0") == Answer(" 4", HIT)
    assert raw_ask(url, "/") == Answer(" 4", HIT)


def test_schemes_share_nothing(app: WebServer, serve: Serve) -> None:
    """Behind a proxy that ends TLS http and https have their own responses."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return request.scheme

    browser = serve(app).new()
    secure = {"X-Forwarded-Proto": "https"}
    assert [browser.get("/", headers=secure).text, browser.get("/").text] == ["https", "http"]
    assert [browser.get("/", headers=secure).text, browser.get("/").text] == ["https", "http"]


# Streams, failures and bodies that are not the cache's


def test_stream_is_not_stored(app: WebServer, serve: Serve) -> None:
    """An async generator's response is sent as it comes and made for each client."""
    numbers = count(1)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"part "
            await asyncio.sleep(0)
            yield b"%d" % next(numbers)

        return chunks()

    browser = serve(app).new()
    for number in (1, 2):
        response = browser.get("/")
        assert response.text == f"part {number}"
        assert outcome(response) == bypassed("stream")


def test_sync_generator_and_file_are_not_stored(app: WebServer, serve: Serve, tmp_path: Path) -> None:
    """What has no whole body at hand is a stream, files of any size too."""
    (tmp_path / "note.txt").write_text("one")

    @app.route("/generator")
    @app.cache(timeout=60)
    def generator() -> Iterator[bytes]:
        return iter([b"a", b"b"])

    @app.route("/file")
    @app.cache(timeout=60)
    async def file() -> Response:
        return await send_file(tmp_path / "note.txt")

    browser = serve(app).new()
    assert browser.get("/file").text == "one"
    assert outcome(browser.get("/file")) == bypassed("stream")
    (tmp_path / "note.txt").write_text("two")
    assert browser.get("/file").text == "two"


def test_view_that_raises_is_500_and_not_stored(app: WebServer, serve: Serve) -> None:
    """An error is never stored: the next request runs the view again."""
    fails = True

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        if fails:
            raise RuntimeError("the database is away")
        return "page"

    browser = serve(app).new()
    assert [browser.get("/").status_code for _ in range(2)] == [500, 500]
    assert app.cache_stats().stores == 0
    fails = False
    response = browser.get("/")
    assert (response.status_code, outcome(response)) == (200, STORED)


def test_handled_error_is_not_stored(app: WebServer, serve: Serve) -> None:
    """The page of an error handler stands for this request, even with status 200."""
    numbers = count(1)

    @app.errorhandler(LookupError)
    async def handle(error: LookupError) -> str:
        return f"sorry {next(numbers)}"

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        raise LookupError

    browser = serve(app).new()
    assert [browser.get("/").text, browser.get("/").text] == ["sorry 1", "sorry 2"]
    assert app.cache_stats().entries == 0


async def test_those_who_wait_for_a_view_that_fails_get_their_own_answer(app: WebServer) -> None:
    """A leader's failure is its own: each of those who waited runs the view."""
    numbers = count(1)
    everyone = asyncio.Event()

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        number = next(numbers)
        if number == 1:
            await everyone.wait()
            await asyncio.sleep(0.1)  # from their hooks to the place where they wait
            raise RuntimeError("only the first one fails")
        return f"page {number}"

    waiting: list[int] = []

    @app.before_request
    async def before() -> None:
        waiting.append(1)
        if len(waiting) == 4:
            everyone.set()

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers=IDENTITY) as client:
            responses = await asyncio.gather(*(client.get("/") for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [200, 200, 200, 500]
    assert all(response.text.startswith("page ") for response in responses if response.status_code == 200)


def test_exception_in_a_hook_after_the_view_stores_nothing(app: WebServer, serve: Serve) -> None:
    """If the response could not be finished nothing of it is kept, and nobody waits for it."""
    fails = True

    @app.after_request
    async def after(response: Response) -> Response:
        if fails and response.status_code == 200:
            raise RuntimeError("hook")
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    browser = serve(app).new()
    assert browser.get("/").status_code == 500
    assert app.cache_stats().entries == 0
    fails = False
    assert outcome(browser.get("/")) == STORED


def test_response_class_and_timeout_of_a_response_survive_beside_the_cache(
    app: WebServer, serve: Serve
) -> None:
    """A response's own send timeout and Quart's RESPONSE_TIMEOUT stay what they were."""
    seen: list[object] = []

    @app.after_request
    async def after(response: Response) -> Response:
        seen.append(response.timeout)
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = await make_response("x")
        assert isinstance(response, Response)
        if "own" in request.args:
            response.timeout = 3
        return response

    @app.route("/uncached")
    async def uncached() -> Response:
        response = Response("x")
        response.timeout = 3
        return response

    assert app.config["RESPONSE_TIMEOUT"] == 60
    browser = serve(app).new()
    assert [browser.get(path).status_code for path in ("/?own", "/", "/uncached")] == [200, 200, 200]
    assert seen == [3, ..., 3]


def test_hop_by_hop_fields_are_not_stored(app: WebServer, serve: Serve) -> None:
    """Fields of one connection, and those that Connection lists, are gone on a hit."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Connection": "x-hop", "X-Hop": "1", "Keep-Alive": "timeout=1", "X-End": "2"}

    browser = serve(app).new()
    assert outcome(browser.get("/")) == STORED
    hit = browser.get("/")
    assert outcome(hit) == HIT
    assert hit.headers["x-end"] == "2"
    assert not {"x-hop", "keep-alive"} & set(hit.headers)


def test_body_that_the_view_coded_itself_varies_by_accept_encoding(app: WebServer, serve: Serve) -> None:
    """A stored body in a coding never goes to a client that does not take it."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> ResponseReturnValue:
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return gzip.compress(b"text"), {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return b"text", {"Vary": "Accept-Encoding"}

    browser = serve(app).new()
    for _ in range(2):
        assert browser.get("/", headers={"Accept-Encoding": "gzip"}).text == "text"
        plain = browser.get("/")
        assert "content-encoding" not in plain.headers
        assert plain.text == "text"
    assert app.cache_stats().hits > 0


def test_clients_of_two_caches_in_one_process_never_meet(serve: Serve) -> None:
    """Two applications with equal routes answer with their own data."""
    apps = [WebServer(__name__, cache=Cache()) for _ in range(2)]
    views: list[Callable[[], Awaitable[str]]] = []
    for number, one in enumerate(apps):

        async def view(number: int = number) -> str:
            return f"secret of {number}"

        views.append(one.cache(timeout=60)(view))
        one.add_url_rule("/", "index", views[-1])
    browsers = [serve(one).new(host="same.test") for one in apps]
    for _ in range(2):
        assert [browser.get("/").text for browser in browsers] == ["secret of 0", "secret of 1"]


# What somebody else has put into a store


class Bomb:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def dressings(bomb: bytes) -> list[bytes]:
    """Returns a pickle in all the ways in which something may take it for its own."""
    sealed = MAGIC + blake2b(bomb, digest_size=16).digest() + bomb
    plain = [bomb, sealed, MAGIC + bomb]
    # What cachelib writes before a pickle in Redis, and what aeros writes before its bytes there.
    return [prefix + data for data in plain for prefix in (b"", b"!", b"b")]


class Vault(Protocol):
    """A place that processes share, which somebody else can write to."""

    def open(self) -> Cache:
        """Returns the cache of one more process."""
        ...

    def plant(self, data: bytes) -> int:
        """Puts ``data`` in the place of every value that is there; returns how many there were."""
        ...


class SimpleVault:
    """A dictionary."""

    def __init__(self) -> None:
        self._cache = SimpleCache()

    def open(self) -> Cache:
        """Returns a cache with the dictionary behind it."""
        return Cache(self._cache)

    def plant(self, data: bytes) -> int:
        """Changes what is in it."""
        rooms: dict[str, tuple[float, bytes]] = cast(Any, self._cache)._cache
        for name, (expires_at, _) in list(rooms.items()):
            rooms[name] = (expires_at, data)
        return len(rooms)


class RedisVault:
    """A Redis server, through cachelib or through the async client."""

    def __init__(self, port: int, *, is_async: bool) -> None:
        self._port = port
        self._is_async = is_async

    def open(self) -> Cache:
        """Returns a cache with connections of its own."""
        if self._is_async:
            return Cache(RedisStore(lambda: cast(Any, redis.asyncio.Redis(port=self._port))))
        return Cache(RedisCache(redis.Redis(port=self._port)))

    def plant(self, data: bytes) -> int:
        """Changes all that is in it, the tokens of the marks as well."""
        planted = 0
        with redis.Redis(port=self._port) as client:
            server = cast(Any, client)
            for key in server.scan_iter():
                if server.type(key) == b"hash":
                    server.hset(key, mapping=dict.fromkeys(server.hkeys(key), data))
                else:
                    server.set(key, data, keepttl=True)
                planted += 1
        return planted


class FileVault:
    """A folder."""

    # Magic number, CRC-32 of what follows, end of lifetime, length of the name.
    HEAD = struct.Struct("<8sIdI")

    def __init__(self, folder: Path, *, is_sealed: bool) -> None:
        self._folder = folder
        self._is_sealed = is_sealed

    def open(self) -> Cache:
        """Returns a cache with the folder behind it."""
        return Cache(FileSystemCache(str(self._folder)))

    def plant(self, data: bytes) -> int:
        """Writes the files anew: with nothing else in them, or as intact as the store leaves them."""
        # The folder within is the store's own; what is beside it is cachelib's.
        files = [*self._folder.glob("*/*")]
        for file in files:
            before = file.read_bytes()
            magic, _, ends_at, length = self.HEAD.unpack_from(before)
            rest = struct.pack("<dI", ends_at, length) + before[self.HEAD.size :][:length] + data
            head = magic + struct.pack("<I", zlib.crc32(rest))
            file.write_bytes(head + rest if self._is_sealed else data)
        return len(files)


@pytest.fixture(params=["simple", "redis-cachelib", "redis-async", "files", "files-sealed"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    """Each kind of place, one after the other."""
    kind = str(request.param)
    if kind == "simple":
        return SimpleVault()
    if kind.startswith("files"):
        return FileVault(tmp_path / "cache", is_sealed=kind == "files-sealed")
    server: RedisProcess = request.getfixturevalue("redis_server")
    return RedisVault(server.port, is_async=kind == "redis-async")


class Process(NamedTuple):
    """What one process of an application has done."""

    pages: list[str]
    runs: int


async def process(vault: Vault) -> Process:
    """Lets an application with its own memory answer a few requests; the store is told of all."""
    app = WebServer("shop", cache=vault.open())
    runs = 0

    @app.memoize(timeout=60)
    async def price(number: int) -> int:
        nonlocal runs
        runs += 1
        return number * 10

    @app.route("/<int:number>")
    @app.cache(timeout=60, vary="Accept-Language", tags="prices")
    async def page(number: int) -> tuple[str, dict[str, str]]:
        nonlocal runs
        runs += 1
        return f"costs {await price(number)}", {"Vary": "X-Currency"}

    async with app.test_app():  # which starts it, and shuts it down
        client = app.test_client()
        responses = [await client.get(f"/{number}") for number in (1, 2, 1)]
        pages = [str(await response.get_data(as_text=True)) for response in responses]
    assert {response.status_code for response in responses} == {200}
    return Process(pages, runs)


async def test_planted_pickle_never_executes(vault: Vault, tmp_path: Path) -> None:
    """Whatever stands in a shared store, in whatever dress, it is bytes: at worst the view runs again."""
    trace = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(trace))
    pages = ["costs 10", "costs 20", "costs 10"]
    assert await process(vault) == Process(pages, runs=4)
    # The next process does read what is there.
    assert await process(vault) == Process(pages, runs=0)
    for dressed in dressings(bomb):
        assert vault.plant(dressed) >= 6
        assert await process(vault) == Process(pages, runs=4)
        assert not trace.exists()
    pickle.loads(bomb)
    assert trace.exists()
