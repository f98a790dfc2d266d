"""What one client's request leaves behind is never shown to another one that may not see it."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import httpx
import pytest
from quart import (
    Response,
    after_this_request,
    flash,
    get_flashed_messages,
    make_response,
    render_template_string,
    request,
    send_file,  # pyright: ignore[reportUnknownVariableType]  # Quart's own annotation
    session,
)
from quart.typing import ResponseReturnValue
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros import Cache, WebServer

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


Serve = Callable[[WebServer], Browsers]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Browsers:
            server = stack.enter_context(app.run_in_thread())
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


@pytest.mark.parametrize(
    "read",
    [read_item, read_get, read_in, read_iteration, read_items, read_attribute],
    ids=lambda f: f.__name__,
)
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


@pytest.mark.parametrize(
    "look",
    [
        lambda: str(len(session)),
        lambda: str(bool(session)),
        lambda: str("user" in session),
        lambda: str(session),
    ],
    ids=["len", "bool", "in", "str"],
)
def test_looking_at_the_session_without_reading_a_value_counts(
    app: WebServer, serve: Serve, look: Callable[[], str]
) -> None:
    """Whether somebody is logged in is something that a page tells about its user, too."""
    add_login(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return look()

    browsers = serve(app)
    member, stranger = browsers.new(), browsers.new()
    member.get("/login/ann")
    first, second = member.get("/"), stranger.get("/")
    assert outcome(first) == outcome(second) == bypassed("session")
    assert first.text != second.text


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


def test_session_read_by_a_before_request_hook_is_not_stored(app: WebServer, serve: Serve) -> None:
    """What a hook learned from the session may be in the page."""
    add_login(app)
    greeting = ""

    @app.before_request
    async def before() -> None:
        nonlocal greeting
        if request.path == "/":
            greeting = str(session.get("user"))

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"hello {greeting}"

    ann, bob = two_users(serve(app))
    assert [ann.get("/").text, bob.get("/").text, ann.get("/").text] == [
        "hello ann",
        "hello bob",
        "hello ann",
    ]
    assert outcome(bob.get("/")) == bypassed("session")


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


@pytest.mark.parametrize(
    "template",
    ["{{ session['user'] }}", "{{ session.user }}", "{% if session %}{{ session.get('user') }}{% endif %}"],
)
def test_template_that_reads_the_session_is_not_stored(app: WebServer, serve: Serve, template: str) -> None:
    """The session of a template is the same session."""
    add_login(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return await render_template_string(template)

    ann, bob = two_users(serve(app))
    assert [ann.get("/").text, bob.get("/").text, ann.get("/").text] == ["ann", "bob", "ann"]
    assert outcome(bob.get("/")) == bypassed("session")


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


# Cookies


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


@pytest.mark.parametrize("how", ["after_request", "after_this_request"])
def test_cookie_of_a_hook_is_never_replayed(app: WebServer, serve: Serve, how: str) -> None:
    """A cookie that is set after the view has returned keeps the response out as well."""
    numbers = count(1)

    def set_cookie(response: Response) -> Response:
        response.set_cookie("visitor", str(next(numbers)))
        return response

    if how == "after_request":
        app.after_request(set_cookie)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        if how == "after_this_request":

            @after_this_request
            def later(response: Response | WerkzeugResponse) -> Response | WerkzeugResponse:
                assert isinstance(response, Response)
                return set_cookie(response)

        return "page"

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


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("private", "private"),
        ("Private", "private"),
        ("PRIVATE, max-age=60", "private"),
        ('private="set-cookie"', "private"),
        ("no-store", "no-store"),
        ("max-age=60,No-Store", "no-store"),
        ("no-cache", "no-cache"),
        ("NO-CACHE", "no-cache"),
        ('no-cache="x-a"', "no-cache"),
        ("public, no-cache", "no-cache"),
    ],
)
@pytest.mark.parametrize("where", ["view", "hook"])
def test_response_that_forbids_it_is_not_stored(
    app: WebServer, serve: Serve, value: str, reason: str, where: str
) -> None:
    """private, no-store and no-cache count in any case and wherever they are set, timeout or not."""
    numbers = count(1)

    @app.after_request
    async def after(response: Response) -> Response:
        if where == "hook":
            response.headers["Cache-Control"] = value
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return str(next(numbers)), {"Cache-Control": value} if where == "view" else {}

    browser = serve(app).new()
    responses = [browser.get("/"), browser.get("/")]
    assert [response.text for response in responses] == ["1", "2"]
    assert [*map(outcome, responses)] == [bypassed(reason)] * 2


def test_directives_on_several_lines_all_count(app: WebServer, serve: Serve) -> None:
    """A second Cache-Control line forbids as the first does."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        response = Response("x")
        response.headers.add("Cache-Control", "max-age=60")
        response.headers.add("Cache-Control", "private")
        return response

    assert outcome(serve(app).new().get("/")) == bypassed("private")


@pytest.mark.parametrize("value", ["*", "Accept-Language, *"])
def test_vary_star_is_not_stored(app: WebServer, serve: Serve, value: str) -> None:
    """Vary: * says that no other request gets the same answer."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> tuple[str, dict[str, str]]:
        return "x", {"Vary": value}

    browser = serve(app).new()
    assert [outcome(browser.get("/")) for _ in range(2)] == [bypassed("vary")] * 2


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


# Keys


def raw_get(url: str, target: str, host: str = "localhost") -> str:
    """GETs a target as it is written, and returns the response's body."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200 ")
    return received.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a%3Fb=1", "/a?b=1"),
        ("/a%2Fb", "/a/b"),
        ("/a%25", "/a%2525"),
        ("/a", "/A"),
        ("/a", "/a/"),
        ("/a%23b", "/a%2523b"),
        ("/a?x=1&y=2", "/a?x=1%26y=2"),
        ("/a?x=1", "/a?x=1="),
        ("/a?", "/a?x"),
    ],
)
def test_targets_that_mean_different_things_never_share_a_response(
    app: WebServer, serve: Serve, one: str, other: str
) -> None:
    """Keys are made of the raw fields, so nothing that looks alike once decoded is mixed up."""
    numbers = count(1)

    @app.route("/<path:rest>")
    @app.cache(timeout=60, query_string=True)
    async def view(rest: str) -> str:
        return f"{rest} {request.query_string.decode()} {next(numbers)}"

    url = serve(app).url
    first, second = raw_get(url, one), raw_get(url, other)
    assert first != second
    assert [raw_get(url, one), raw_get(url, other)] == [first, second]
    assert app.cache_stats().hits == 2


def test_hosts_share_nothing(app: WebServer, serve: Serve) -> None:
    """Each host has its own responses; upper and lower case are the same host."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return request.host

    url = serve(app).url
    assert raw_get(url, "/", "a.test") == "a.test"
    assert raw_get(url, "/", "b.test") == "b.test"
    assert raw_get(url, "/", "a.test:81") == "a.test:81"
    assert raw_get(url, "/", "A.TEST").lower() == "a.test"
    assert app.cache_stats().stores == 3


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
