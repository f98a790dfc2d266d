"""``CompressionMiddleware`` around Quart, Starlette and bare functions, on a real server and by itself."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias, cast

import httpx
import pytest
import uvicorn
from quart import Quart, websocket
from quart import Response as QuartResponse
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from aeros import Br, Gzip, InvalidSettingError, WebServer
from aeros.compression import CompressionMiddleware, uncompressed
from aeros.types import ASGIApplication, Message, RawHeaders, Receive, Scope, Send
from tests.integration.browser import TEXT, Browser
from tests.integration.conftest import PATIENCE, eventually

PARTS = [TEXT[start : start + 500] for start in range(0, len(TEXT), 500)]
TYPE = "text/plain; charset=utf-8"
TAG = '"tag"'
Around: TypeAlias = Callable[[ASGIApplication], Browser]


@contextmanager
def serving(app: ASGIApplication) -> Generator[str]:
    """Serves any ASGI application on a real socket while the context lasts."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def around() -> Iterator[Around]:
    """Starts servers of applications in the middleware, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: ASGIApplication) -> Browser:
            url = stack.enter_context(serving(app))
            return Browser(url, stack.enter_context(httpx.Client(base_url=url)))

        yield start


# The same application three times


def quart_app() -> Quart:
    """Returns the application as one writes it with Quart."""
    app = Quart(__name__)

    @app.route("/whole")
    async def whole() -> QuartResponse:
        return QuartResponse(TEXT, content_type=TYPE, headers={"ETag": TAG})

    @app.route("/stream")
    async def stream() -> QuartResponse:
        async def parts() -> AsyncIterator[bytes]:
            for part in PARTS:
                yield part

        return QuartResponse(parts(), content_type=TYPE, headers={"ETag": TAG})

    @app.route("/unchanged")
    async def unchanged() -> QuartResponse:
        known = quart_request.headers["If-None-Match"] in (TAG, f"W/{TAG}")
        return QuartResponse(b"", 304 if known else 500, {"ETag": TAG})

    @app.route("/identity")
    async def identity() -> QuartResponse:
        return QuartResponse(TEXT, content_type=TYPE, headers={"Content-Encoding": "identity"})

    @app.route("/opted-out")
    @uncompressed
    async def opted_out() -> bytes:
        return TEXT

    @app.route("/coded")
    async def coded() -> QuartResponse:
        return QuartResponse(gzip.compress(TEXT), content_type=TYPE, headers={"Content-Encoding": "gzip"})

    @app.route("/raises")
    async def raises() -> QuartResponse:
        raise ValueError("broken view")

    @app.route("/breaks")
    async def breaks() -> QuartResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield TEXT
            raise ValueError("broken view")

        return QuartResponse(parts(), content_type=TYPE)

    return app


def starlette_app(**options: Any) -> Starlette:
    """Returns the application as one writes it with Starlette."""

    async def whole(request: Request) -> Response:
        return Response(TEXT, headers={"Content-Type": TYPE, "ETag": TAG})

    async def stream(request: Request) -> Response:
        return StreamingResponse(iter(PARTS), headers={"Content-Type": TYPE, "ETag": TAG})

    async def unchanged(request: Request) -> Response:
        known = request.headers["If-None-Match"] in (TAG, f"W/{TAG}")
        return Response(status_code=304 if known else 500, headers={"ETag": TAG})

    async def identity(request: Request) -> Response:
        return Response(TEXT, headers={"Content-Type": TYPE, "Content-Encoding": "identity"})

    async def coded(request: Request) -> Response:
        return Response(gzip.compress(TEXT), headers={"Content-Type": TYPE, "Content-Encoding": "gzip"})

    async def raises(request: Request) -> Response:
        raise ValueError("broken view")

    async def breaks(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield TEXT
            raise ValueError("broken view")

        return StreamingResponse(parts(), headers={"Content-Type": TYPE})

    views = (whole, stream, unchanged, identity, coded, raises, breaks)
    routes = [Route(f"/{view.__name__}", view) for view in views]
    return Starlette(routes=[*routes, Route("/opted-out", identity)], **options)


async def bare_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without any framework; it states no length and leaves HEAD's body out."""
    if scope["type"] == "lifespan":
        await bare_lifespan(receive, send)
        return
    path: str = scope["path"]
    fields: dict[str, str] = {"content-type": TYPE, "etag": TAG}
    status, parts = 200, [TEXT]
    if path == "/stream":
        parts = PARTS
    elif path == "/unchanged":
        status, parts, fields = 304, [b""], {"etag": TAG}
    elif path in ("/identity", "/opted-out"):
        fields = {"content-type": TYPE, "content-encoding": "identity"}
    elif path == "/coded":
        fields, parts = {"content-type": TYPE, "content-encoding": "gzip"}, [gzip.compress(TEXT)]
    elif path == "/raises":
        raise ValueError("broken application")
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD":
        parts = [b""]
    for part in parts[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": parts[-1], "more_body": path == "/breaks"})
    if path == "/breaks":
        raise ValueError("broken application")


async def bare_lifespan(receive: Receive, send: Send) -> None:
    """Starts and stops."""
    for step in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{step}"
        await send({"type": f"lifespan.{step}.complete"})


INNER: dict[str, Callable[[], Any]] = {
    "quart": quart_app,
    "starlette": starlette_app,
    "bare": lambda: bare_app,
}


@pytest.fixture(params=INNER)
def inner(request: pytest.FixtureRequest) -> Any:
    """Each of the applications."""
    return INNER[request.param]()


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd", "identity"])
def test_whole_responses_and_streams_are_compressed(around: Around, inner: Any, coding: str) -> None:
    """What the application sends arrives in the coding that the client likes, with the right fields."""
    browser = around(CompressionMiddleware(inner))
    whole, stream = browser.get("/whole", coding), browser.get("/stream", coding)
    for answer in (whole, stream):
        assert (answer.status, answer.coding, answer.content) == (200, coding, TEXT)
        assert answer.headers["vary"] == "Accept-Encoding"
    if coding == "identity":
        assert whole.headers["etag"] == stream.headers["etag"] == TAG
    else:
        assert whole.headers["content-length"] == str(len(whole.raw))
        assert len(whole.raw) < len(TEXT)
        assert whole.headers["etag"] == f'"tag-{coding}"'
        assert stream.headers["etag"] == 'W/"tag"'


def test_head_shows_what_get_would(around: Around, inner: Any) -> None:
    """HEAD has the coding of GET and no body, whether the application sends one or not."""
    browser = around(CompressionMiddleware(inner))
    for path in ("/whole", "/stream"):
        for coding in ("br", "identity"):
            head = browser.get(path, coding, method="HEAD")
            assert (head.status, head.coding, head.raw) == (200, coding, b"")
            assert head.headers["vary"] == "Accept-Encoding"
            assert head.headers["content-type"] == TYPE


def test_304_of_the_application_passes_with_vary_and_the_tag_that_the_client_has(
    around: Around, inner: Any
) -> None:
    """The application's own 304 has no body, and names what the client has stored."""
    browser = around(CompressionMiddleware(inner))
    for known in (TAG, f"W/{TAG}"):
        answer = browser.get("/unchanged", "br", if_none_match=known)
        assert (answer.status, answer.raw, answer.coding) == (304, b"", "identity")
        assert answer.headers["etag"] == known
        assert answer.headers["vary"] == "Accept-Encoding"


def test_tag_of_a_coding_gets_304(around: Around, inner: Any) -> None:
    """The application does not know the tag of a coding, so the middleware compares it."""
    browser = around(CompressionMiddleware(inner))
    tag = browser.get("/whole", "br").headers["etag"]
    answer = browser.get("/whole", "br", if_none_match=tag)
    assert (answer.status, answer.raw, answer.headers["etag"]) == (304, b"", tag)
    assert browser.get("/whole", "gzip", if_none_match=tag).status == 200


def test_content_encoding_identity_opts_out(around: Around, inner: Any) -> None:
    """What is marked is sent as it is, without the mark, which is no registered coding."""
    browser = around(CompressionMiddleware(inner))
    for path in ("/identity", "/opted-out"):
        answer = browser.get(path, "br, gzip")
        assert (answer.status, answer.raw) == (200, TEXT)
        assert "content-encoding" not in answer.headers


def test_coded_response_is_not_coded_again(around: Around, inner: Any) -> None:
    """An application that compresses by itself is left alone, as is another middleware of this kind."""
    browser = around(CompressionMiddleware(CompressionMiddleware(inner, Gzip()), Br()))
    for path in ("/coded", "/whole", "/stream"):
        answer = browser.get(path, "br, gzip")
        assert (answer.coding, answer.content) == ("gzip", TEXT)
    assert browser.get("/whole", "br").coding == "br"


def test_application_that_raises_before_its_start_is_answered_with_500(around: Around, inner: Any) -> None:
    """Nothing is sent by the middleware, so the framework or the server can answer."""
    answer = around(CompressionMiddleware(inner)).get("/raises", "br")
    assert answer.status == 500
    assert b"Internal Server Error" in answer.content


@pytest.mark.parametrize("coding", ["br", "identity"])
def test_application_that_raises_in_mid_stream_breaks_the_response(
    around: Around, inner: Any, coding: str
) -> None:
    """The client sees that something is missing."""
    browser = around(CompressionMiddleware(inner))
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get("/breaks", coding)


# Starlette's own ways


def test_starlette_adds_it_as_its_own_middleware(around: Around) -> None:
    """``add_middleware()`` and ``Middleware()`` take it with its argument."""
    added = starlette_app()
    added.add_middleware(CompressionMiddleware, compressor=Gzip())
    listed = starlette_app(middleware=[Middleware(CompressionMiddleware, compressor=Gzip())])
    plain = starlette_app(middleware=[Middleware(CompressionMiddleware)])
    for app, coding in ((added, "gzip"), (listed, "gzip"), (plain, "br")):
        answer = around(app).get("/whole", "br, gzip")
        assert (answer.coding, answer.content) == (coding, TEXT)


def test_starlette_sends_files(around: Around, tmp_path: Any) -> None:
    """Files of Starlette are streams with a length: coded where they are text, in parts as they are."""
    content = TEXT * 200
    (tmp_path / "page.txt").write_bytes(content)
    (tmp_path / "page.png").write_bytes(content)

    async def file(request: Request) -> Response:
        return FileResponse(tmp_path / request.path_params["name"])

    app = Starlette(routes=[Route("/files/{name}", file)])
    app.mount("/static", StaticFiles(directory=tmp_path))
    browser = around(CompressionMiddleware(app, Br()))
    for folder in ("/files", "/static"):
        page, picture = browser.get(f"{folder}/page.txt"), browser.get(f"{folder}/page.png")
        assert (page.status, page.coding, page.content) == (200, "br", content)
        assert page.headers["etag"].startswith("W/")
        assert (picture.status, picture.coding, picture.raw) == (200, "identity", content)
        part = browser.get(f"{folder}/page.txt", range="bytes=5-14")
        assert (part.status, part.coding, part.raw) == (206, "identity", content[5:15])
        assert part.headers["vary"] == "Accept-Encoding"
    tag = browser.get("/static/page.txt").headers["etag"]
    unchanged = browser.get("/static/page.txt", if_none_match=tag)
    assert (unchanged.status, unchanged.headers["etag"]) == (304, tag)
    assert unchanged.headers["vary"] == "Accept-Encoding"


def test_websocket_and_lifespan_work_through_it() -> None:
    """A framework starts, talks to a websocket and stops inside of the middleware."""
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        steps.append("start")
        yield
        steps.append("stop")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/", echo)], lifespan=lifespan)
    with serving(CompressionMiddleware(app)) as url:
        assert steps == ["start"]
        assert echoed(url, TEXT.decode()) == TEXT.decode()
    assert steps == ["start", "stop"]


def test_quart_websocket_works_through_it() -> None:
    """Quart's websockets work where the middleware is put into the application itself."""
    app = Quart(__name__)

    @app.websocket("/")
    async def echo() -> None:
        await websocket.send(await websocket.receive())

    app.asgi_app = CompressionMiddleware(app.asgi_app)  # type: ignore[method-assign]  # Quart's own way
    with serving(cast(ASGIApplication, app)) as url:
        assert echoed(url, "hello") == "hello"


def echoed(url: str, text: str) -> str | bytes:
    """Returns what a websocket answers."""
    with connect(url.replace("http", "ws", 1)) as socket:
        socket.send(text)
        return socket.recv(PATIENCE)


# WebServer and the middleware


def secretive_app(**options: Any) -> WebServer:
    """Returns a WebServer with two views that are not to be compressed, and two that may be."""
    app = WebServer(__name__, **options)
    app.secret_key = "secret"

    @app.route("/whole")
    @app.route("/cached", endpoint="cached")
    async def whole() -> bytes:
        return TEXT

    @app.route("/session")
    async def with_session() -> bytes:
        from quart import session

        session.get("user")
        return TEXT

    @app.route("/opted-out")
    @uncompressed
    async def opted_out() -> bytes:
        return TEXT

    return app


@pytest.mark.parametrize("options", [{}, {"compression": False}], ids=["compresses", "does not"])
@pytest.mark.parametrize("is_inside", [False, True], ids=["WebServer inside", "middleware inside"])
def test_webserver_and_the_middleware_agree(around: Around, options: dict[str, Any], is_inside: bool) -> None:
    """Compressed once; what the WebServer must not compress (BREACH) the middleware does not either."""
    app = secretive_app(**options)
    served: ASGIApplication
    if is_inside:
        app.asgi_app = CompressionMiddleware(app.asgi_app)  # type: ignore[method-assign]  # Quart's own way
        served = cast(ASGIApplication, app)
    else:
        served = CompressionMiddleware(app)
    browser = around(served)
    for path, coding in (("/whole", "br"), ("/session", "identity"), ("/opted-out", "identity")):
        answer = browser.get(path)
        assert (answer.status, answer.coding, answer.content) == (200, coding, TEXT)


# Message by message


def start_message(status: int = 200, **fields: str) -> Message:
    """Returns the start of a text; a field may be given."""
    headers: RawHeaders = [(b"content-type", b"text/plain")]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body_message(body: bytes, *, more: bool = False) -> Message:
    """Returns a part of a body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


async def sent_by(
    messages: list[Message], *, method: str = "GET", extensions: tuple[str, ...] = ()
) -> list[Message]:
    """Returns what comes out of the middleware when an application sends these messages."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "headers": [(b"accept-encoding", b"gzip")],
        "extensions": dict[str, object]((name, {}) for name in extensions),
    }
    await CompressionMiddleware(app, Gzip(flush_seconds=60))(scope, receive, send)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return sent


def kinds(messages: list[Message]) -> list[str]:
    """Returns the messages' types, shortened."""
    return [message["type"].removeprefix("http.response.") for message in messages]


def content_of(messages: list[Message]) -> bytes:
    """Returns the decoded body."""
    raw = b"".join(message.get("body", b"") for message in messages)
    start = next(message for message in messages if message["type"] == "http.response.start")
    return gzip.decompress(raw) if (b"content-encoding", b"gzip") in start["headers"] else raw


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.new"])
async def test_other_connections_are_not_touched(kind: str) -> None:
    """The application gets the very objects of the server."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        raise NotImplementedError

    scope: Scope = {"type": kind}
    await CompressionMiddleware(app)(scope, receive, send)
    assert [id(part) for part in seen] == [id(scope), id(receive), id(send)]
    assert scope == {"type": kind}


async def test_several_small_chunks_without_a_length_are_one_stream() -> None:
    """However small the parts, what the client decodes is what they were."""
    parts = [b"%d, " % number for number in range(500)]
    sent = await sent_by(
        [start_message(), *(body_message(part, more=True) for part in parts), body_message(b"")]
    )
    assert content_of(sent) == b"".join(parts)
    assert (b"content-encoding", b"gzip") in sent[0]["headers"]
    assert [message.get("more_body", False) for message in sent[1:]][-1] is False
    assert len(sent) < 5


async def test_body_in_the_first_message_gets_a_length() -> None:
    """An application that says nothing of the length has it counted."""
    start, body = await sent_by([start_message(), body_message(TEXT)])
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    assert content_of([start, body]) == TEXT


async def test_body_that_is_declared_and_sent_in_two_messages_is_whole() -> None:
    """As Quart sends it: all bytes, and then the end."""
    length = str(len(TEXT))
    sent = await sent_by(
        [start_message(content_length=length), body_message(TEXT, more=True), body_message(b"")]
    )
    assert kinds(sent) == ["start", "body", "body"]
    assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(sent[1]["body"])
    assert content_of(sent) == TEXT


async def test_body_that_is_declared_and_sent_in_parts_is_a_stream() -> None:
    """The declared length is that of the identity body, and is left out."""
    length = str(len(TEXT))
    parts = [body_message(part, more=True) for part in PARTS]
    sent = await sent_by([start_message(content_length=length), *parts, body_message(b"")])
    assert b"content-length" not in dict(sent[0]["headers"])
    assert content_of(sent) == TEXT


async def test_head_of_an_application_without_a_body() -> None:
    """HEAD shows the fields of a coded stream; there is nothing to compress."""
    for start in (start_message(), start_message(content_length=str(len(TEXT)))):
        sent = await sent_by([start, body_message(b"")], method="HEAD")
        assert kinds(sent) == ["start", "body"]
        assert sent[1]["body"] == b""
        assert (b"content-encoding", b"gzip") in sent[0]["headers"]
        assert b"content-length" not in dict(sent[0]["headers"])


async def test_path_of_a_file_passes() -> None:
    """A file that the server sends by itself is not compressed; its start comes first, unchanged."""
    path: Message = {"type": "http.response.pathsend", "path": "/page.txt"}
    start = start_message(content_length="4500")
    sent = await sent_by([start, path], extensions=("http.response.pathsend",))
    assert kinds(sent) == ["start", "pathsend"]
    assert sent[0]["headers"] == [*start["headers"], (b"vary", b"Accept-Encoding")]
    assert sent[1] is path


async def test_stream_is_compressed_where_paths_may_be_sent() -> None:
    """A path is all of its body, so bytes that come instead of one are compressed."""
    parts = [body_message(part, more=True) for part in PARTS]
    sent = await sent_by([start_message(), *parts, body_message(b"")], extensions=("http.response.pathsend",))
    assert (b"content-encoding", b"gzip") in sent[0]["headers"]
    assert content_of(sent) == TEXT


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_parts_of_files_pass_between_bytes(before: int) -> None:
    """A body that is partly sent by the server itself is not compressed: no encoder would see all of it."""
    file: Message = {"type": "http.response.zerocopysend", "file": 3, "count": 10, "more_body": True}
    parts = [body_message(PARTS[0], more=True)] * before
    messages = [start_message(), *parts, file, body_message(b"the end")]
    sent = await sent_by(messages, extensions=("http.response.zerocopysend",))
    assert kinds(sent) == ["start", *["body"] * before, "zerocopysend", "body"]
    assert b"content-encoding" not in dict(sent[0]["headers"])
    assert sent[1:] == messages[1:]


async def test_hints_and_pushes_pass_in_order() -> None:
    """What comes before the start of a response goes out at once."""
    hint: Message = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    push: Message = {"type": "http.response.push", "path": "/style.css", "headers": []}
    sent = await sent_by([hint, push, start_message(), body_message(TEXT)])
    assert kinds(sent) == ["early_hint", "push", "start", "body"]
    assert (sent[0], sent[1]) == (hint, push)
    assert content_of(sent) == TEXT


async def test_push_after_the_start_keeps_its_place() -> None:
    """A start that is held for its body does not let another message by."""
    push: Message = {"type": "http.response.push", "path": "/style.css", "headers": []}
    sent = await sent_by([start_message(), push, body_message(TEXT)])
    assert kinds(sent) == ["start", "push", "body"]
    assert content_of(sent) == TEXT


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_trailers_pass_after_the_body(is_stream: bool) -> None:
    """The trailers come last, and the start still says that they come."""
    trailers: Message = {
        "type": "http.response.trailers",
        "headers": [(b"x-took", b"1")],
        "more_trailers": False,
    }
    start = {**start_message(), "trailers": True}
    parts = [body_message(part, more=True) for part in PARTS[:-1]] if is_stream else []
    last = PARTS[-1] if is_stream else TEXT
    sent = await sent_by([start, *parts, body_message(last), trailers])
    assert sent[0]["trailers"] is True
    assert sent[-1] is trailers
    assert content_of(sent) == TEXT
    assert (b"content-encoding", b"gzip") in sent[0]["headers"]


async def test_application_that_raises_after_its_start_has_sent_nothing() -> None:
    """A start that is held when the application raises is not sent: the server may still answer."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message())
        raise ValueError("broken application")

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(ValueError, match="broken application"):
        await CompressionMiddleware(app, Gzip(flush_seconds=0))(scope, receive, send)
    await asyncio.sleep(0.01)
    assert sent == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None,), r"CompressionMiddleware\(app=\)"),
        (("module:app",), r"CompressionMiddleware\(app=\)"),
        ((bare_app, "gzip"), r"CompressionMiddleware\(compressor=\)"),
        ((bare_app, Gzip), r"CompressionMiddleware\(compressor=\)"),
        ((bare_app, False), r"CompressionMiddleware\(compressor=\)"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], named: str) -> None:
    """What does not fit is refused at construction, by its name."""
    with pytest.raises(InvalidSettingError, match=named):
        CompressionMiddleware(*arguments)
