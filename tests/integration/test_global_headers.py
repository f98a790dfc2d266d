"""``global_headers`` are on every response, whoever made it and whatever server sends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from quart import Blueprint, Response, abort, redirect

from aeros import Container, WebServer

GLOBAL = {"X-Frame-Options": "DENY", "X-Served-By": "tests"}


def build_app(folder: Path, container: Container | None = None) -> WebServer:
    """Returns an application with a path for each kind of response."""
    app = WebServer(
        __name__,
        global_headers=GLOBAL,
        static_folder=str(folder),
        static_url_path="/static",
        container=container,
    )
    (folder / "note.txt").write_text("static " * 200)

    @app.route("/")
    async def index() -> str:
        return "fine"

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return "cached"

    @app.route("/own")
    async def own() -> tuple[str, dict[str, str]]:
        return "own", {"x-frame-options": "SAMEORIGIN"}

    @app.route("/broken")
    async def broken() -> str:
        raise RuntimeError("broken view")

    @app.route("/refused")
    async def refused() -> str:
        abort(403)

    @app.route("/moved")
    async def moved() -> Any:
        return redirect("/")

    @app.route("/empty")
    async def empty() -> tuple[str, int]:
        return "", 204

    @app.route("/stream")
    async def stream() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return Response(chunks(), content_type="text/event-stream")

    @app.route("/folder/")
    async def folder_view() -> str:
        return "folder"

    return app


@pytest.fixture
def app(tmp_path: Path) -> WebServer:
    """An application with a path for each kind of response."""
    return build_app(tmp_path)


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


def lines(headers: httpx.Headers) -> dict[str, list[str]]:
    """Returns every line of the fields that this file is about."""
    return {name: headers.get_list(name) for name in GLOBAL}


ALL = {name: [value] for name, value in GLOBAL.items()}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("OPTIONS", "/", 200),
        ("POST", "/", 405),
        ("GET", "/cached", 200),
        ("GET", "/nothing", 404),
        ("GET", "/refused", 403),
        ("GET", "/broken", 500),
        ("GET", "/moved", 302),
        ("GET", "/folder", 308),
        ("GET", "/empty", 204),
        ("GET", "/stream", 200),
        ("GET", "/static/note.txt", 200),
        ("HEAD", "/static/note.txt", 200),
        ("GET", "/static/nothing.txt", 404),
        ("PROPFIND", "/", 405),
    ],
)
def test_every_kind_of_response_has_them_once(
    app: WebServer, serve: Serve, method: str, path: str, status: int
) -> None:
    """Views, files, redirects, streams, errors and automatic answers carry each header once."""
    response = serve(app).request(method, path)
    assert response.status_code == status
    assert lines(response.headers) == ALL


def test_304_and_206_have_them(app: WebServer, serve: Serve) -> None:
    """Conditional and partial answers carry them, from the cache and from files."""
    client = serve(app)
    for path in ("/cached", "/static/note.txt"):
        tag = client.get(path).headers["etag"]
        response = client.get(path, headers={"if-none-match": tag})
        assert response.status_code == 304
        assert lines(response.headers) == ALL
    part = client.get("/static/note.txt", headers={"range": "bytes=0-3", "accept-encoding": "identity"})
    assert part.status_code == 206
    assert lines(part.headers) == ALL


def test_hit_has_them_once(app: WebServer, serve: Serve) -> None:
    """They are put on when a response goes out, so a stored response does not have them twice."""
    client = serve(app)
    client.get("/cached")
    for _ in range(2):
        hit = client.get("/cached")
        assert hit.headers["cache-status"].startswith("aeros; hit")
        assert lines(hit.headers) == ALL


async def test_503_of_the_limit_has_them(tmp_path: Path) -> None:
    """A refusal is a response like any other."""
    container = Container()
    container.config.from_dict({"soft_limit": 1, "hard_limit": 1})
    app = build_app(tmp_path, container)
    began, may_end = threading.Event(), threading.Event()

    @app.route("/slow")
    async def slow() -> str:
        began.set()
        await asyncio.to_thread(may_end.wait, 10)
        return "slow"

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            handled = asyncio.create_task(client.get("/slow"))
            assert await asyncio.to_thread(began.wait, 10)
            refused = await client.get("/")
            may_end.set()
            await handled
    assert refused.status_code == 503
    assert lines(refused.headers) == ALL


def test_500_of_broken_middleware_has_them(app: WebServer, serve: Serve) -> None:
    """An exception that never came to Quart is answered by aeros, with the headers."""
    inner = cast(Any, app.asgi_app)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise RuntimeError("broken middleware")
        await inner(scope, receive, send)

    app.asgi_app = broken  # type: ignore[method-assign]  # how Quart's users wrap an application
    response = serve(app).get("/")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert lines(response.headers) == ALL


def test_answer_of_middleware_has_them(app: WebServer, serve: Serve) -> None:
    """A response that middleware makes by itself carries them too."""
    inner = cast(Any, app.asgi_app)

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        await send(
            {"type": "http.response.start", "status": 418, "headers": [(b"x-served-by", b"middleware")]}
        )
        await send({"type": "http.response.body", "body": b"tea"})

    app.asgi_app = answering  # type: ignore[method-assign]  # how Quart's users wrap an application
    response = serve(app).get("/")
    assert (response.status_code, response.text) == (418, "tea")
    assert lines(response.headers) == {"X-Frame-Options": ["DENY"], "X-Served-By": ["middleware"]}


def test_header_of_the_view_wins_in_any_case(app: WebServer, serve: Serve) -> None:
    """What the view or a hook set is sent alone, however either name is written."""

    @app.after_request
    async def after(response: Response) -> Response:
        response.headers["X-SERVED-BY"] = "hook"
        return response

    response = serve(app).get("/own")
    assert lines(response.headers) == {"X-Frame-Options": ["SAMEORIGIN"], "X-Served-By": ["hook"]}


def test_blueprint_and_error_handler_responses_have_them(app: WebServer, serve: Serve) -> None:
    """Responses of blueprints and of error handlers are no exception."""
    blueprint = Blueprint("blueprint", __name__)

    @blueprint.route("/page")
    async def page() -> str:
        raise LookupError

    @blueprint.errorhandler(LookupError)
    async def handle(error: LookupError) -> tuple[str, int]:
        return "handled", 410

    app.register_blueprint(blueprint, url_prefix="/blueprint")
    response = serve(app).get("/blueprint/page")
    assert (response.status_code, response.text) == (410, "handled")
    assert lines(response.headers) == ALL


async def test_test_client_sees_them(app: WebServer) -> None:
    """Quart's test client, which starts no server, gets the same headers."""
    client = app.test_client()
    for path, status in (
        ("/", 200),
        ("/nothing", 404),
        ("/cached", 200),
        ("/cached", 200),
        ("/static/note.txt", 200),
    ):
        response = await client.get(path)
        assert response.status_code == status
        assert {name: response.headers.getlist(name) for name in GLOBAL} == ALL
    assert (await client.get("/cached")).headers["Cache-Status"].startswith("aeros; hit")


async def test_plain_uvicorn_sends_them(app: WebServer, free_port: int) -> None:
    """Served by uvicorn itself, without run_server(), the application sends them as well."""
    config = uvicorn.Config(cast(Any, app), host="127.0.0.1", port=free_port, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await asked_until_ready(free_port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as client:
            await check_everywhere(client)
    finally:
        server.should_exit = True
        await serving


async def test_hypercorn_sends_them(app: WebServer, free_port: int) -> None:
    """Served by Hypercorn the application sends them, and caches and compresses as ever."""
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{free_port}"]
    config.graceful_timeout = 1
    stop = asyncio.Event()

    async def stopped() -> None:
        await stop.wait()

    serving = asyncio.create_task(
        # Hypercorn's types name a union of which pyright knows only a part.
        hypercorn.asyncio.serve(cast(Any, app), config, shutdown_trigger=cast(Any, stopped))  # pyright: ignore[reportUnknownMemberType]
    )
    try:
        await asked_until_ready(free_port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as client:
            await check_everywhere(client)
    finally:
        stop.set()
        await serving


async def asked_until_ready(port: int) -> None:
    """Waits until somebody listens."""
    for _ in range(200):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the server did not start")


async def check_everywhere(client: httpx.AsyncClient) -> None:
    """Checks the headers, and that cache and compression work under this server."""
    for path, status in (("/", 200), ("/nothing", 404), ("/broken", 500), ("/static/note.txt", 200)):
        response = await client.get(path)
        assert response.status_code == status
        assert lines(response.headers) == ALL
    assert (await client.get("/cached")).headers["cache-status"] == "aeros; fwd=miss; stored"
    hit = await client.get("/cached")
    assert hit.headers["cache-status"].startswith("aeros; hit; ttl=")
    assert len(hit.headers.get_list("date")) == 1
    assert lines(hit.headers) == ALL
    unchanged = await client.get("/cached", headers={"if-none-match": hit.headers["etag"]})
    assert unchanged.status_code == 304
    assert lines(unchanged.headers) == ALL
    coded = await client.get("/static/note.txt", headers={"accept-encoding": "br"})
    assert coded.headers["content-encoding"] == "br"
    assert coded.text == "static " * 200
    assert (await client.get("/stream")).text == "one two"


def test_server_header_is_sent_once_by_default(app: WebServer, serve: Serve) -> None:
    """The default is uvicorn's own Server field."""
    assert serve(app).get("/").headers.get_list("server") == ["uvicorn"]


def test_include_server_header_false_removes_it(serve: Serve) -> None:
    """Without it no response says what serves it: views, errors and hits."""
    app = WebServer(__name__, include_server_header=False)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return "x"

    client = serve(app)
    for path in ("/", "/", "/nothing"):
        assert "server" not in client.get(path).headers


def test_global_server_header_replaces_uvicorn_s(serve: Serve) -> None:
    """With include_server_header=False a global Server field stands alone."""
    app = WebServer(__name__, include_server_header=False, global_headers={"Server": "mine"})
    assert serve(app).get("/nothing").headers.get_list("server") == ["mine"]


def test_no_global_headers_by_default(serve: Serve) -> None:
    """An application that says nothing gets no fields that nobody asked for."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> bytes:
        return b"x"

    assert set(serve(app).get("/").headers) == {"server", "date", "content-type", "content-length", "vary"}
