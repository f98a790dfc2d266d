"""Change ``Quart`` to ``WebServer``: what users of Quart do goes on working."""

# Quart's annotations of the test client, the form and the contexts leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import websockets.sync.client
from quart import (
    Blueprint,
    Quart,
    Request,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    current_app,
    g,
    has_request_context,
    make_response,
    redirect,
    render_template,
    request,
    session,
    stream_with_context,
    url_for,
    websocket,
)
from quart.signals import got_request_exception, request_finished, request_started
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros import Container, WebServer

PATIENCE = 10.0


@pytest.fixture
def app() -> WebServer:
    """An application that tests add their views to."""
    app = WebServer(__name__)
    app.secret_key = "tests only"
    return app


def finish(client: httpx.Client) -> None:
    """Makes sure that the last request is over, its file closed: the next one has to wait for that."""
    with suppress(httpx.TransportError):  # a test may have left the connection broken
        client.get("/is-it-over")


Serve = Callable[[WebServer], httpx.Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> httpx.Client:
            server = stack.enter_context(app.run_in_thread())
            client = stack.enter_context(httpx.Client(base_url=server.url))
            stack.callback(finish, client)
            return client

        yield start


# Middleware


class Tagging:
    """Middleware in the usual form: it adds a response field and counts requests."""

    def __init__(self, inner: Any, tag: str) -> None:
        self.inner = inner
        self.tag = tag
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Adds the tag to every HTTP response."""

        async def tagging(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-tag", self.tag.encode())]
            await send(message)

        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        self.requests += 1
        await self.inner(scope, receive, tagging)


def test_asgi_middleware_is_wrapped_around_everything(app: WebServer, serve: Serve) -> None:
    """``app.asgi_app = M(app.asgi_app)``, twice: both see every request, hits and errors too."""
    inner = Tagging(app.asgi_app, "inner")
    outer = Tagging(inner, "outer")
    app.asgi_app = outer  # type: ignore[method-assign]  # how Quart's users wrap an application

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    client = serve(app)
    for path in ("/", "/", "/nothing"):
        assert client.get(path).headers.get_list("x-tag") == ["inner", "outer"]
    assert client.get("/").headers["cache-status"].startswith("aeros; hit")
    assert inner.requests == outer.requests == 4


def test_middleware_may_change_the_scope(app: WebServer, serve: Serve) -> None:
    """What middleware puts into the scope reaches the view, and routing follows its path."""
    inner = cast(Any, app.asgi_app)

    async def prefixed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].removeprefix("/api"), "tests.user": "ann"}
        await inner(scope, receive, send)

    app.asgi_app = prefixed  # type: ignore[method-assign]  # how Quart's users wrap an application

    @app.route("/user")
    async def user() -> str:
        return str(cast("dict[str, object]", request.scope)["tests.user"])

    assert serve(app).get("/api/user").text == "ann"


def test_body_that_middleware_changes_is_sent_as_changed(app: WebServer, serve: Serve) -> None:
    """Middleware that rewrites the body of a cached page gets no tag of the old one."""
    inner = cast(Any, app.asgi_app)

    async def shouting(scope: Any, receive: Any, send: Any) -> None:
        async def louder(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").upper()}
            await send(message)

        await inner(scope, receive, louder if scope["type"] == "http" else send)

    app.asgi_app = shouting  # type: ignore[method-assign]  # how Quart's users wrap an application

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page " * 200

    client = serve(app)
    responses = [client.get("/", headers={"accept-encoding": "br"}) for _ in range(2)]
    assert [response.text for response in responses] == ["PAGE " * 200] * 2


# Tests of applications


async def test_test_client_works_without_a_server(app: WebServer) -> None:
    """Quart's test client: JSON, forms, cookies and sessions."""

    @app.route("/json", methods=["POST"])
    async def echo_json() -> ResponseReturnValue:
        return {"got": await request.get_json()}

    @app.route("/form", methods=["POST"])
    async def echo_form() -> str:
        return str((await request.form)["name"])

    @app.route("/count")
    async def count() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    client = app.test_client()
    response = await client.post("/json", json={"a": [1]})
    assert await response.get_json() == {"got": {"a": [1]}}
    assert await (await client.post("/form", form={"name": "ann"})).get_data(as_text=True) == "ann"
    assert [await (await client.get("/count")).get_data(as_text=True) for _ in range(2)] == ["1", "2"]
    async with client.session_transaction() as stored:
        stored["count"] = 40
    assert await (await client.get("/count")).get_data(as_text=True) == "41"


async def test_test_client_shows_what_a_view_raises_in_testing(app: WebServer) -> None:
    """With TESTING the page of a 500 has the error, as with Quart; without it has not."""

    @app.route("/")
    async def index() -> str:
        raise LookupError("for the test")

    async def page() -> str:
        response = await app.test_client().get("/")
        assert response.status_code == 500
        return await response.get_data(as_text=True)

    assert "for the test" not in await page()
    app.testing = True
    assert "for the test" in await page()


async def test_test_request_context_gives_request_and_session(app: WebServer) -> None:
    """Code that needs a request can be tested without one; the session is a session."""

    @app.route("/users/<name>")
    async def user(name: str) -> str:
        return name

    async with app.test_request_context("/users/ann?a=1", method="GET", headers={"X-A": "b"}):
        assert (request.path, request.args["a"], request.headers["X-A"]) == ("/users/ann", "1", "b")
        assert (request.endpoint, request.view_args) == ("user", {"name": "ann"})
        assert url_for("user", name="bob") == "/users/bob"
        session["user"] = "ann"
        assert dict(session) == {"user": "ann"}
    assert not has_request_context()


async def test_cached_view_runs_within_a_test_request_context(app: WebServer) -> None:
    """A cached view called directly within a test's request context gives what it gives."""

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return f"hello {request.args['name']}"

    async with app.test_request_context("/?name=ann"):
        assert await index() == "hello ann"


async def test_test_app_runs_the_lifespan(app: WebServer) -> None:
    """``app.test_app()`` runs before_serving and after_serving."""
    calls: list[str] = []

    @app.before_serving
    async def before() -> None:
        calls.append("before")

    @app.after_serving
    async def after() -> None:
        calls.append("after")

    async with app.test_app():
        assert calls == ["before"]
    assert calls == ["before", "after"]


# Serving


def test_serving_hooks_run_once_around_all_requests(app: WebServer, serve: Serve) -> None:
    """before_serving, while_serving and after_serving, in Quart's order."""
    calls: list[str] = []

    @app.before_serving
    async def before() -> None:
        current_app.config["POOL"] = "open"
        calls.append("before")

    @app.while_serving
    async def around() -> AsyncGenerator[None]:
        calls.append("begin")
        yield
        calls.append("end")

    @app.after_serving
    async def after() -> None:
        calls.append("after")

    @app.route("/")
    async def index() -> str:
        calls.append("request")
        return str(current_app.config["POOL"])

    with app.run_in_thread() as server:
        assert httpx.get(server.url).text == "open"
        assert calls == ["before", "begin", "request"]
    assert calls[:3] == ["before", "begin", "request"]
    assert sorted(calls[3:]) == ["after", "end"]


def test_background_task_runs_after_the_response(app: WebServer, serve: Serve) -> None:
    """``app.add_background_task``: async and sync ones, within an app context."""
    done: list[str] = []
    both = threading.Semaphore(0)

    async def later(word: str) -> None:
        done.append(f"{word} of {current_app.name}")
        both.release()

    def in_a_thread(*, word: str) -> None:
        done.append(word)
        both.release()

    @app.route("/")
    async def index() -> tuple[str, int]:
        app.add_background_task(later, "async")
        app.add_background_task(in_a_thread, word="sync")
        return "accepted", 202

    assert serve(app).get("/").status_code == 202
    assert both.acquire(timeout=PATIENCE)
    assert both.acquire(timeout=PATIENCE)
    assert sorted(done) == [f"async of {app.name}", "sync"]


def test_app_context_and_teardown(app: WebServer, serve: Serve) -> None:
    """What is put into ``g`` belongs to one request, and teardown functions run for each."""
    ended: list[str] = []

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        ended.append(f"request {type(error).__name__}")

    @app.teardown_appcontext
    async def teardown_app(error: BaseException | None) -> None:
        ended.append("app")

    @app.route("/")
    async def index() -> str:
        g.visits = g.get("visits", 0) + 1
        return str(g.visits)

    client = serve(app)
    ended.clear()  # starting has a context of the application as well
    assert [client.get("/").text for _ in range(2)] == ["1", "1"]
    assert ended == ["request NoneType", "app"] * 2


def test_signals_are_sent(app: WebServer, serve: Serve) -> None:
    """request_started, request_finished and got_request_exception reach their receivers."""
    seen: list[str] = []

    async def started(sender: Quart, **extra: object) -> None:
        seen.append("started")

    async def finished(sender: Quart, response: Response, **extra: object) -> None:
        seen.append(f"finished {response.status_code}")

    async def failed(sender: Quart, exception: Exception, **extra: object) -> None:
        seen.append(f"failed {exception}")

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "x"

    @app.route("/raises")
    async def raises() -> str:
        raise LookupError("lost")

    with (
        request_started.connected_to(started, app),
        request_finished.connected_to(finished, app),
        got_request_exception.connected_to(failed, app),
    ):
        client = serve(app)
        assert [client.get(path).status_code for path in ("/", "/", "/raises")] == [200, 200, 500]
    assert seen == ["started", "finished 200"] * 2 + ["started", "failed lost", "finished 500"]


def test_debug_mode_shows_the_traceback(app: WebServer, serve: Serve) -> None:
    """Only in debug mode, where Quart's page for developers has it."""

    @app.route("/")
    async def index() -> str:
        raise LookupError("for developers")

    app.debug = True
    response = serve(app).get("/")
    assert response.status_code == 500
    assert "for developers" in response.text


# Websockets


def test_websocket_over_a_real_socket(app: WebServer) -> None:
    """Text and bytes, path parameters, the session of the handshake, and closing from either side."""

    @app.route("/login")
    async def login() -> str:
        session["user"] = "ann"
        return "in"

    @app.websocket("/echo/<name>")
    async def echo(name: str) -> None:
        await websocket.send(f"{session.get('user')} in {name}")
        while True:
            message = await websocket.receive()
            if message == "bye":
                await websocket.close(4000, "bye")
                return
            await websocket.send(message * 2)

    with app.run_in_thread() as server:
        cookie = httpx.get(f"{server.url}/login").headers["set-cookie"].partition(";")[0]
        address = f"ws://{server.host}:{server.port}/echo/room"
        with websockets.sync.client.connect(
            address, additional_headers={"Cookie": cookie}, proxy=None
        ) as connection:
            assert connection.recv(timeout=PATIENCE) == "ann in room"
            connection.send("ab")
            assert connection.recv(timeout=PATIENCE) == "abab"
            connection.send(b"\x00\xff")
            assert connection.recv(timeout=PATIENCE) == b"\x00\xff\x00\xff"
            connection.send("bye")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                connection.recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "bye")


async def test_websocket_of_the_test_client(app: WebServer) -> None:
    """Quart's test client talks to websockets without a server."""

    @app.websocket("/echo")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    async with app.test_client().websocket("/echo") as connection:
        await connection.send("hello")
        assert await connection.receive() == "hello"


# Bodies


def test_request_body_is_read_as_it_comes(app: WebServer, serve: Serve) -> None:
    """``async for`` over the body of an upload without a declared length."""

    @app.route("/", methods=["POST"])
    async def upload() -> str:
        size = 0
        async for chunk in request.body:
            size += len(chunk)
        return str(size)

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 20_000

    assert serve(app).post("/", content=chunks()).text == "1000000"


def test_upload_is_awaited_while_the_client_still_sends(app: WebServer) -> None:
    """A view may begin before the body is complete, and gets the rest when it comes."""
    began = threading.Event()

    @app.route("/", methods=["POST"])
    async def upload() -> str:
        began.set()
        return str(await request.get_data(as_text=True))

    with (
        app.run_in_thread() as server,
        socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection,
    ):
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhello"
        )
        assert began.wait(PATIENCE)
        connection.sendall(b"world")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.endswith(b"\r\n\r\nhelloworld")


def test_forms_files_and_the_maximum_length(app: WebServer, serve: Serve) -> None:
    """Multipart forms with files work, and MAX_CONTENT_LENGTH gives 413."""
    app.config["MAX_CONTENT_LENGTH"] = 10_000

    @app.route("/", methods=["POST"])
    async def upload() -> ResponseReturnValue:
        form, files = await request.form, await request.files
        return {"name": form["name"], "file": files["file"].read().decode(), "as": files["file"].filename}

    client = serve(app)
    response = client.post("/", data={"name": "ann"}, files={"file": ("a.txt", b"content")})
    assert response.json() == {"name": "ann", "file": "content", "as": "a.txt"}
    assert client.post("/", data={"name": "a" * 20_000}, files={"file": b""}).status_code == 413


def test_streaming_response_with_the_request_s_context(app: WebServer, serve: Serve) -> None:
    """Async and sync generators stream, and stream_with_context keeps the request."""

    @app.route("/async")
    async def asynchronous() -> ResponseReturnValue:
        @stream_with_context
        async def chunks() -> AsyncIterator[bytes]:
            for letter in request.args["letters"]:
                yield letter.encode()

        return Response(chunks(), content_type="text/plain")

    @app.route("/sync")
    def synchronous() -> Iterator[bytes]:
        return (letter for letter in (b"a", b"b"))

    client = serve(app)
    assert client.get("/async?letters=xyz").text == "xyz"
    assert client.get("/sync").text == "ab"


@pytest.mark.parametrize("declares_length", [True, False], ids=["with length", "without length"])
def test_generator_finishes_its_work_after_its_last_chunk(
    app: WebServer, serve: Serve, declares_length: bool
) -> None:
    """What a generator does after its last chunk is done while the client stays connected."""
    finished = threading.Event()

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a" * 1000
            await asyncio.sleep(0.1)
            finished.set()

        response = Response(chunks(), content_type="text/plain")
        if declares_length:
            response.content_length = 1000
        return response

    client = serve(app)
    assert client.get("/").text == "a" * 1000
    assert finished.wait(2), "the generator was cancelled after its last chunk"


def test_response_timeout_ends_a_stream(app: WebServer, serve: Serve) -> None:
    """A response's own timeout stops sending it."""
    stopped = threading.Event()

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"begin"
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        response = Response(chunks(), content_type="application/octet-stream")
        response.timeout = 0.1
        return response

    client = serve(app)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/")
    assert stopped.wait(PATIENCE)


def test_client_that_leaves_cancels_its_view(app: WebServer) -> None:
    """As with Quart, a view that is not cached ends when its client has gone."""
    began, cancelled = threading.Event(), threading.Event()

    @app.route("/")
    async def index() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    with app.run_in_thread() as server:
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert began.wait(PATIENCE)
        assert cancelled.wait(PATIENCE)


# Routing, errors, templates, sessions


def test_error_handlers_for_statuses_and_exceptions(app: WebServer, serve: Serve) -> None:
    """Handlers of the application and of blueprints answer for what they are registered for."""
    blueprint = Blueprint("api", __name__, url_prefix="/api")

    @app.errorhandler(404)
    async def missing(error: NotFound) -> tuple[str, int]:
        return f"no {request.path}", 404

    @app.errorhandler(LookupError)
    def lost(error: LookupError) -> tuple[str, int]:
        return f"lost {error}", 410

    @blueprint.errorhandler(ValueError)
    async def bad(error: ValueError) -> tuple[str, int]:
        return f"bad {error}", 422

    @blueprint.route("/bad")
    async def bad_view() -> str:
        raise ValueError("value")

    @app.route("/lost")
    async def lost_view() -> str:
        raise LookupError("key")

    @app.route("/teapot")
    async def teapot() -> str:
        abort(418)

    app.register_blueprint(blueprint)
    client = serve(app)
    answers = {path: client.get(path) for path in ("/nothing", "/lost", "/api/bad", "/teapot")}
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/nothing": 404,
        "/lost": 410,
        "/api/bad": 422,
        "/teapot": 418,
    }
    assert [answers[path].text for path in ("/nothing", "/lost", "/api/bad")] == [
        "no /nothing",
        "lost key",
        "bad value",
    ]


def test_routing_url_for_and_redirects(app: WebServer, serve: Serve) -> None:
    """Converters, defaults, methods, strict slashes, url_for and redirects are Quart's."""

    @app.route("/items/<int:number>", methods=["GET", "PUT"])
    @app.route("/first", defaults={"number": 1})
    async def item(number: int) -> str:
        return f"{request.method} {number}"

    @app.route("/folder/")
    async def folder() -> str:
        return url_for("item", number=7, _external=True)

    @app.get("/moved")
    async def moved() -> ResponseReturnValue:
        return redirect(url_for("item", number=3))

    client = serve(app)
    assert [client.get("/items/2").text, client.put("/items/2").text] == ["GET 2", "PUT 2"]
    assert client.get("/items/x").status_code == 404
    assert client.get("/first").text == "GET 1"
    assert client.get("/folder").status_code == 308
    assert client.get("/folder/", headers={"host": "site.test"}).text == "http://site.test/items/7"
    assert client.get("/moved", follow_redirects=True).text == "GET 3"


def test_route_returns_the_function_itself(app: WebServer) -> None:
    """A decorated view is the view."""

    async def view() -> str:
        return "x"

    assert app.route("/")(view) is view


def test_templates_and_static_files_have_their_folders(serve: Serve, tmp_path: Path) -> None:
    """template_folder, static_folder and static_url_path as with Quart; context processors too."""
    (tmp_path / "page.html").write_text(
        "{{ greeting }} {{ name }} {{ request.path }} {{ url_for('static', filename='a.js') }}"
    )
    (tmp_path / "a.js").write_text("let a = 1")
    app = WebServer(
        __name__, template_folder=tmp_path, static_folder=str(tmp_path), static_url_path="/assets"
    )

    @app.context_processor
    async def greeting() -> dict[str, Any]:
        return {"greeting": "hello"}

    @app.route("/")
    async def index() -> str:
        return await render_template("page.html", name="<ann>")

    client = serve(app)
    assert client.get("/").text == "hello &lt;ann&gt; / /assets/a.js"
    assert client.get("/assets/a.js").text == "let a = 1"
    assert client.get("/static/a.js").status_code == 404


def test_sessions_and_cookies_of_several_users(app: WebServer, serve: Serve) -> None:
    """Each client has its session; a tampered cookie is an empty one."""

    @app.route("/<word>")
    async def remember(word: str) -> str:
        words = [*session.get("words", []), word]
        session["words"] = words
        return " ".join(words)

    client = serve(app)
    assert [client.get(f"/{word}").text for word in ("a", "b")] == ["a", "a b"]
    client.cookies.clear()
    assert client.get("/c").text == "c"
    assert client.get("/d", headers={"cookie": "session=tampered"}).text == "d"


def test_after_this_request_and_copied_contexts(app: WebServer, serve: Serve) -> None:
    """Functions that a request registers for its own end, and tasks with a copy of its context."""

    @app.route("/<name>")
    async def view(name: str) -> ResponseReturnValue:
        @after_this_request
        def tag(response: Response | WerkzeugResponse) -> Response | WerkzeugResponse:
            response.headers["X-Name"] = name
            return response

        @copy_current_request_context
        async def elsewhere() -> str:
            return request.path

        return await asyncio.create_task(cast(Any, elsewhere()))

    client = serve(app)
    for name in ("a", "b"):
        response = client.get(f"/{name}")
        assert (response.text, response.headers["x-name"]) == (f"/{name}", name)


def test_session_in_a_copied_context_is_noticed_by_the_cache(app: WebServer, serve: Serve) -> None:
    """A task that reads the session for a cached view keeps the page from being stored."""

    @app.route("/login/<name>")
    async def login(name: str) -> str:
        session["user"] = name
        return "in"

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        @copy_current_request_context
        async def elsewhere() -> str:
            return str(session.get("user"))

        return cast(str, await asyncio.create_task(cast(Any, elsewhere())))

    client = serve(app)
    for name in ("ann", "bob"):
        client.get(f"/login/{name}")
        response = client.get("/")
        assert response.text == name
        assert response.headers["cache-status"] == "aeros; fwd=bypass; detail=session"


# Subclasses and arguments


class PlainResponse(Response):
    """A response class of the application's own."""

    default_mimetype = "text/plain"


class NamedRequest(Request):
    """A request class of the application's own."""

    @property
    def client_name(self) -> str:
        """The name that the client gave."""
        return self.headers.get("X-Name", "nobody")


class OwnServer(WebServer[Container]):
    """A server class of the application's own."""

    response_class = PlainResponse
    request_class = NamedRequest

    def __init__(self, import_name: str, greeting: str) -> None:
        super().__init__(import_name)
        self.greeting = greeting

    async def make_response(self, result: Any) -> Any:
        """Greets in every response."""
        response = await super().make_response(result)
        response.headers["X-Greeting"] = self.greeting
        return response


@pytest.mark.parametrize("lines", [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", b"GET / HTTP/1.0"])
@pytest.mark.parametrize("kind", [None, NamedRequest])
def test_reading_a_body_that_is_none_waits_for_nothing(
    app: WebServer, lines: bytes, kind: type[Request] | None
) -> None:
    """The end of the request is told to requests of every class, and where there is no Host."""
    if kind is not None:
        app.request_class = kind

    @app.route("/")
    async def index() -> str:
        return f"{len(await request.get_data())} bytes"

    with (
        app.run_in_thread() as server,
        socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection,
    ):
        connection.sendall(lines + b"\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.endswith(b"\r\n\r\n0 bytes")


def test_subclass_with_own_response_and_request_classes(serve: Serve) -> None:
    """Overridden classes and methods are used for misses, for hits and for 204."""
    app = OwnServer(__name__, "hello")

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        assert isinstance(request, NamedRequest) or hasattr(request, "client_name")
        return cast(NamedRequest, request).client_name

    seen: list[type[Response]] = []

    @app.after_request
    async def after(response: Response) -> Response:
        seen.append(type(response))
        return response

    client = serve(app)
    responses = [client.get("/", headers={"x-name": "ann"}) for _ in range(2)]
    assert [response.text for response in responses] == ["ann", "ann"]
    assert responses[1].headers["cache-status"].startswith("aeros; hit")
    for response in responses:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-greeting"] == "hello"
    assert seen == [PlainResponse, PlainResponse]


def test_reference_s_positional_order_and_quart_s_after_it(serve: Serve, tmp_path: Path) -> None:
    """Eight arguments of the reference, and then those of Quart, by position."""
    (tmp_path / "a.txt").write_text("file")
    app = WebServer(
        __name__,
        "127.0.0.1",
        0,
        False,
        "WARNING",
        None,
        None,
        {"X-Global": "1"},
        "/files",
        str(tmp_path),
    )
    response = serve(app).get("/files/a.txt")
    assert (response.text, response.headers["x-global"]) == ("file", "1")
    assert "server" not in response.headers


def test_quart_s_keywords_are_taken(serve: Serve, tmp_path: Path) -> None:
    """host_matching, static_host, instance_path and the like reach Quart."""
    app = WebServer(
        __name__,
        host_matching=True,
        static_host="static.test",
        static_folder=str(tmp_path),
        static_url_path="/static",
        instance_path=str(tmp_path),
        root_path=str(tmp_path),
    )
    (tmp_path / "a.txt").write_text("file")

    @app.route("/", host="one.test")
    async def one() -> str:
        return "one"

    @app.route("/", host="two.test")
    @app.cache(timeout=60)
    async def two() -> str:
        return "two"

    client = serve(app)
    assert [client.get("/", headers={"host": f"{name}.test"}).text for name in ("one", "two", "two")] == [
        "one",
        "two",
        "two",
    ]
    assert client.get("/static/a.txt", headers={"host": "static.test"}).text == "file"
    assert client.get("/static/a.txt", headers={"host": "one.test"}).status_code == 404
    assert app.instance_path == str(tmp_path)


def test_is_a_quart() -> None:
    """Extensions that ask for a Quart application get one."""
    assert isinstance(WebServer(__name__), Quart)


def test_after_request_may_return_another_response(app: WebServer, serve: Serve) -> None:
    """A hook that answers with a response of its own replaces that of view and cache."""

    @app.after_request
    async def after(response: Response) -> Response:
        if request.path == "/":
            replaced = await make_response("replaced", 202)
            assert isinstance(replaced, Response)
            return replaced
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "page"

    client = serve(app)
    for _ in range(2):
        response = client.get("/")
        assert (response.status_code, response.text) == (202, "replaced")
        assert "etag" not in response.headers


def test_views_may_return_werkzeug_responses_and_http_exceptions(app: WebServer, serve: Serve) -> None:
    """What Quart's make_response takes a cached view may return."""

    @app.route("/werkzeug")
    @app.cache(timeout=60)
    async def werkzeug() -> Any:
        return WerkzeugResponse("plain", headers={"X-A": "b"})

    @app.route("/exception")
    @app.cache(timeout=60)
    async def exception() -> Any:
        return NotFound("nothing")

    client = serve(app)
    responses = [client.get("/werkzeug") for _ in range(2)]
    assert [(response.text, response.headers["x-a"]) for response in responses] == [("plain", "b")] * 2
    assert responses[1].headers["cache-status"].startswith("aeros; hit")
    assert [client.get("/exception").status_code for _ in range(2)] == [404, 404]


async def test_concurrent_requests_keep_their_contexts_apart() -> None:
    """Requests that interleave see their own request, g and session."""
    app = WebServer(__name__)
    app.secret_key = "tests only"

    @app.route("/<name>")
    async def view(name: str) -> str:
        g.name = session["name"] = name
        for _ in range(5):
            await asyncio.sleep(0)
            assert request.path == f"/{g.name}" == f"/{session['name']}"
        return str(g.name)

    names = [f"n{number}" for number in range(20)]
    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            responses = await asyncio.gather(*(client.get(f"/{name}") for name in names))
    assert [response.text for response in responses] == names
