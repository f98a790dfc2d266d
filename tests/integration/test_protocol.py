"""The server's own protocol says, byte for byte, what uvicorn's own says to the same bytes.

Each input is sent in one piece, byte by byte, and in two halves cut at several places, on real sockets.
Made one before the two are compared is only the value of ``Date``. Known to differ, and checked, are three
things: the server's own 500 and 503 have a ``Date`` on aeros's protocol; a start that can not be sent is
answered with that 500, where uvicorn ends the connection without a word; and a ``Date`` among the fields
of the configuration is the only one.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import httpx
import pytest
from quart import Response, request, websocket
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aeros import Cache, WebServer
from aeros.serving.config import http_protocol
from aeros.serving.cycle import Cycle
from aeros.serving.h11_protocol import H11Protocol
from aeros.serving.protocol import HTTPProtocol, missing_of
from aeros.types import Message, Receive, Scope, Send
from tests.integration.wire import OWN, UVICORNS, Bare, Said, listening, turn, undated, whole_body

TEXT: Final = (b"content-type", b"text/plain")
PATIENCE: Final = 20.0
NOW: Final = 1_800_000_000.0


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    """Returns the message that begins a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> Message:
    """Returns a message with a part of a body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def length(number: int) -> tuple[bytes, bytes]:
    """Returns the field that declares the length of a body."""
    return b"content-length", b"%d" % number


# What an application sends, whatever it was asked.
RESPONSES: Final[dict[str, list[Message]]] = {
    "/hello": [start(TEXT, length(5)), part(b"hello")],
    "/unmeasured": [start(TEXT), part(b"hello")],
    "/stream": [
        start(TEXT),
        part(b"one", more=True),
        part(b"", more=True),
        part(b"two", more=True),
        part(b""),
    ],
    "/declared": [start(TEXT, length(6)), part(b"one", more=True), part(b"two", more=True), part(b"")],
    "/empty": [start(length(0)), part(b"")],
    "/bodiless": [start(length(0)), {"type": "http.response.body"}],
    "/fieldless": [{"type": "http.response.start", "status": 200}, part(b"x")],
    "/204": [start(status=204), part(b"")],
    "/204/body": [start(status=204), part(b"x")],
    "/204/length": [start(length(1), status=204), part(b"x")],
    "/304": [start((b"etag", b'"a"'), status=304), part(b"")],
    "/304/length": [start(length(5), status=304), part(b"")],
    "/404": [start(TEXT, length(2), status=404), part(b"no")],
    "/599": [start(length(0), status=599), part(b"")],
    "/600": [start(length(0), status=600), part(b"")],
    "/short": [start(TEXT, length(9)), part(b"hello")],
    "/long": [start(TEXT, length(3)), part(b"hello")],
    "/long/parts": [start(TEXT, length(3)), part(b"he", more=True), part(b"llo")],
    "/unfinished": [start(TEXT, length(9)), part(b"hello", more=True)],
    "/begun": [start(TEXT, length(9))],
    "/silent": [],
    "/twice": [start(TEXT, length(2)), part(b"ok"), part(b"more")],
    "/again": [start(TEXT, length(2)), part(b"ok"), start(TEXT), part(b"more")],
    "/started/twice": [start(TEXT), start(TEXT), part(b"x")],
    "/body/first": [part(b"x"), start(TEXT)],
    "/name/space": [start((b"x y", b"a"), length(0)), part(b"")],
    "/name/colon": [start((b"x:", b"a"), length(0)), part(b"")],
    "/name/newline": [start((b"x\r\ny", b"a"), length(0)), part(b"")],
    "/value/newline": [start((b"x", b"a\r\ny: b"), length(0)), part(b"")],
    "/value/nul": [start((b"x", b"a\0"), length(0)), part(b"")],
    "/value/tab": [start((b"x", b"a\tb\xff"), length(0)), part(b"")],
    "/value/lasting": [start((b"vary", b"a\r\ny: b"), length(0)), part(b"")],
    "/names": [
        start((b"X-Upper", b"Value"), (b"Content-Type", b"a/b"), (b"Content-Length", b"1")),
        part(b"x"),
    ],
    "/cookies": [start((b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"), length(0)), part(b"")],
    "/dated": [start((b"date", b"Tue, 01 Jan 2019 00:00:00 GMT"), length(0)), part(b"")],
    "/close": [start((b"connection", b"close"), length(2)), part(b"ok")],
    "/close/list": [start((b"Connection", b"x , CLOSE"), length(2)), part(b"ok")],
    "/keep": [start((b"connection", b"keep-alive"), length(2)), part(b"ok")],
    "/chunked": [start((b"transfer-encoding", b"Chunked")), part(b"ok")],
    "/chunked/length": [start((b"transfer-encoding", b"chunked"), length(2)), part(b"ok")],
    "/length/chunked": [start(length(2), (b"transfer-encoding", b"chunked")), part(b"okay")],
    "/gzipped": [start((b"transfer-encoding", b"gzip")), part(b"ok")],
    "/chunked/gzipped": [
        start((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"gzip")),
        part(b"ok"),
    ],
    "/close/keep": [start((b"connection", b"close"), (b"connection", b"x"), length(2)), part(b"ok")],
    "/length/twice": [start(length(2), length(3)), part(b"ok")],
    "/length/none": [start((b"content-length", b"many")), part(b"ok")],
    "/large": [start(TEXT, length(100_000)), part(b"x" * 100_000)],
    "/server": [start((b"server", b"mine"), length(0)), part(b"")],
}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as the path says; in some ways that no application should."""
    assert scope["type"] == "http"
    path: str = scope["path"]
    if path == "/echo":
        body = await whole_body(receive)
        await send(start(length(len(body))))
        await send(part(body))
    elif path == "/raise":
        raise ValueError("on purpose")
    elif path == "/raise/begun":
        await send(start(length(3)))
        raise ValueError("on purpose")
    elif path == "/raise/ended":
        await send(start(length(3)))
        await send(part(b"end"))
        raise ValueError("on purpose")
    elif path == "/exit":
        raise SystemExit
    elif path in RESPONSES:
        for message in RESPONSES[path]:
            await send(dict(message))
    else:
        told = {name: scope[name] for name in sorted(scope.keys() - {"server", "client", "aeros.date"})}
        client: tuple[str, int] = scope["client"]
        told["client"] = client[0], client[1] if client[1] == 0 else "a port"
        said = repr(told).encode()
        await send(start(length(len(said))))
        await send(part(said))


def made() -> WebServer:
    """Returns an application with the usual kinds of views."""
    app = WebServer("made", cache=Cache(clock=lambda: NOW), global_headers={"X-Everywhere": "yes"})

    @app.route("/", methods=["GET", "POST"])
    async def index() -> str:
        return f"{request.method} {request.full_path} {(await request.get_data())!r} {request.remote_addr}"

    @app.route("/hit")
    @app.cache(timeout=60, query_string=True)
    async def hit() -> str:
        return "cached " * 200

    @app.route("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"%d" % number

        return Response(parts(), content_type="application/octet-stream")

    @app.route("/raise")
    async def fail() -> str:
        raise ValueError("on purpose")

    @app.route("/none")
    async def none() -> tuple[str, int]:
        return "", 204

    @app.route("/cookies")
    async def cookies() -> Response:
        response = Response("baked")
        response.set_cookie("a", "b")
        response.set_cookie("c", "d")
        return response

    @app.route("/url")
    async def url() -> dict[str, Any]:
        return {"url": request.url, "scheme": request.scheme, "from": request.remote_addr}

    @app.websocket("/ws")
    async def ws() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


def lines(*fields: str, first: str = "GET / HTTP/1.1", host: str = "Host: a.example") -> bytes:
    """Returns the head of a request."""
    return "\r\n".join([first, *([host] if host else []), *fields, "", ""]).encode("latin-1")


def get(target: str, *fields: str) -> bytes:
    """Returns a GET."""
    return lines(*fields, first=f"GET {target} HTTP/1.1")


def post(target: str, body: bytes, *fields: str) -> bytes:
    """Returns a POST."""
    return lines(*fields, f"Content-Length: {len(body)}", first=f"POST {target} HTTP/1.1") + body


HIT: Final = get("/hit", "Accept-Encoding: gzip")
UPGRADE: Final = get(
    "/ws",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
CHUNKS: Final = b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"

# What is asked of the application without a framework: what the server itself makes of a request.
BARE: Final[dict[str, bytes]] = {
    "get": get("/scope?a=b&c"),
    "head": lines(first="HEAD /hello HTTP/1.1"),
    "head of a stream": lines(first="HEAD /stream HTTP/1.1"),
    "head of an unmeasured body": lines(first="HEAD /unmeasured HTTP/1.1"),
    "head of a short body": lines(first="HEAD /short HTTP/1.1"),
    "head of a long body": lines(first="HEAD /long/parts HTTP/1.1"),
    "options": lines(first="OPTIONS /scope HTTP/1.1"),
    "options of all": lines(first="OPTIONS * HTTP/1.1"),
    "put": lines("Content-Length: 3", first="PUT /echo HTTP/1.1") + b"abc",
    "delete": lines(first="DELETE /scope HTTP/1.1"),
    "trace": lines(first="TRACE /scope HTTP/1.1"),
    "patch without a body": lines(first="PATCH /echo HTTP/1.1"),
    "connect": lines(first="CONNECT a.example:443 HTTP/1.1"),
    "a method of nobody's": lines(first="BREW /scope HTTP/1.1"),
    "a method in small letters": lines(first="get /scope HTTP/1.1"),
    "no version": lines(first="GET /scope"),
    "1.0": lines(first="GET /scope HTTP/1.0"),
    "1.0 that keeps alive": lines("Connection: keep-alive", first="GET /scope HTTP/1.0"),
    "1.0 without a host": lines(first="GET /scope HTTP/1.0", host=""),
    "2.0": lines(first="GET /scope HTTP/2.0"),
    "1.2": lines(first="GET /scope HTTP/1.2"),
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "close": get("/hello", "Connection: close"),
    "close, then another": get("/hello", "Connection: close") + get("/hello"),
    "keep-alive": get("/hello", "Connection: keep-alive") + get("/hello"),
    "two": get("/scope?1") + get("/scope?2"),
    "three of different kinds": get("/stream") + post("/echo", b"abc") + lines(first="HEAD /hello HTTP/1.1"),
    "five": b"".join(get(f"/scope?{number}") for number in range(5)),
    "bodies in a row": post("/echo", b"abc") + post("/echo", b"") + post("/echo", b"defg"),
    "body that nobody reads": post("/hello", b"abc") + get("/hello"),
    "close in the middle": get("/hello") + get("/close") + get("/hello"),
    "error in the middle": get("/hello") + get("/raise") + get("/hello"),
    "lines behind": get("/hello") + b"\r\n\r\n" + get("/hello"),
    "lines before": b"\r\n\r\n" + get("/hello"),
    "part behind": get("/hello") + b"GET /hel",
    "chunks": lines("Transfer-Encoding: chunked", first="POST /echo HTTP/1.1") + CHUNKS,
    "chunks, then another": lines("Transfer-Encoding: chunked", first="POST /echo HTTP/1.1")
    + CHUNKS
    + get("/hello"),
    "chunk of no size": lines("Transfer-Encoding: chunked", first="POST /echo HTTP/1.1") + b"x\r\n",
    "chunks in small letters": lines("transfer-encoding: CHUNKED", first="POST /echo HTTP/1.1") + CHUNKS,
    "chunks to 1.0": lines("Transfer-Encoding: chunked", first="POST /echo HTTP/1.0") + CHUNKS,
    "unknown transfer coding": lines("Transfer-Encoding: x", first="POST /echo HTTP/1.1") + CHUNKS,
    "length and chunks": lines("Content-Length: 3", "Transfer-Encoding: chunked", first="POST /echo HTTP/1.1")
    + CHUNKS,
    "lengths that differ": lines("Content-Length: 3", "Content-Length: 4", first="POST /echo HTTP/1.1")
    + b"abcd",
    "length that is none": lines("Content-Length: +3", first="POST /echo HTTP/1.1") + b"abc",
    "length of a get": get("/echo", "Content-Length: 3") + b"abc",
    "body that breaks off": lines("Content-Length: 9", first="POST /echo HTTP/1.1") + b"abc",
    "continue": lines("Expect: 100-continue", "Content-Length: 3", first="POST /echo HTTP/1.1") + b"abc",
    "continue that nobody asks for": post("/hello", b"abc", "Expect: 100-continue") + get("/hello"),
    "continue of a get": get("/echo", "Expect: 100-Continue"),
    "another expectation": get("/echo", "Expect: the best"),
    "continue, twice": post("/echo", b"abc", "Expect: 100-continue") * 2,
    "percent": get("/%73cope/%2F/%C3%A4?%20"),
    "percent that is none": get("/scope%zz%"),
    "two slashes": get("//scope//x"),
    "absolute form": get("http://b.example:99/scope?x=1"),
    "absolute form without a path": get("http://b.example"),
    "absolute form with a query": get("http://b.example?x"),
    "fragment": get("/scope#part?x"),
    "question marks": get("/scope??x?"),
    "empty query": get("/scope?"),
    "parameters": get("/scope;v=1"),
    "dots": get("/a/../scope/./x"),
    "bytes in the target": get("/scope/\xe4"),
    "space in the target": get("/sco pe"),
    "no slash": get("scope"),
    "star": get("*"),
    "empty host": lines(first="GET /scope HTTP/1.1", host="Host:"),
    "bare line feeds": get("/scope").replace(b"\r\n", b"\n"),
    "bare carriage returns": get("/scope").replace(b"\r\n", b"\r"),
    "folded field": get("/scope", "X-Folded: a\r\n b"),
    "folded first": get("/scope", " x"),
    "space before the colon": get("/scope", "X-Space : a"),
    "field without a name": get("/scope", ": a"),
    "field without a colon": get("/scope", "X-None"),
    "field without a value": get("/scope", "X-None:", "X-Spaces:   "),
    "fields that repeat": get("/scope", "X-A: 1", "x-a: 2", "Cookie: a=b", "Cookie: c=d"),
    "bytes in a field": get("/scope", "X-Bytes: \xe4\t\xff"),
    "nul in a field": get("/scope", "X-Nul: a\0b"),
    "long field": get("/hello", "X-Long: " + "x" * 5_000),
    "many fields": get("/scope", *(f"X-{number}: {number}" for number in range(60))),
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nothing but lines": b"\r\n\r\n",
    "part of a head": b"GET /hello HTTP/1.1\r\nHost: a",
    "h2c": get(
        "/hello", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"
    ),
    "upgrade to nothing": get("/hello", "Connection: upgrade") + get("/hello"),
    "forwarded": get("/scope", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"),
    "forwarded to the first of three": get("/scope?1", "X-Forwarded-For: 192.0.2.1")
    + get("/scope?2")
    + get("/scope?3"),
    "forwarded to the second of three": get("/scope?1")
    + get("/scope?2", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
    + get("/scope?3"),
    "forwarded to the last of three": get("/scope?1")
    + get("/scope?2")
    + get("/scope?3", "X-Forwarded-Proto: https"),
    "forwarded by many": get("/scope", "X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-For: 192.0.2.3"),
    **{f"answered {path}": get(path) + get("/hello") for path in RESPONSES},
    **{
        f"application {path}": get(path) + get("/hello")
        for path in ("/raise", "/raise/begun", "/raise/ended", "/exit")
    },
}

# What is asked of a WebServer: how its whole responses, streams, hits and errors go out.
MADE: Final[dict[str, bytes]] = {
    "get": get("/"),
    "head": lines(first="HEAD / HTTP/1.1"),
    "post": post("/", b"abc"),
    "options": lines(first="OPTIONS / HTTP/1.1"),
    "not allowed": lines(first="DELETE / HTTP/1.1"),
    "missing": get("/nowhere"),
    "hit": HIT,
    "hits": HIT * 5,
    "hit between others": get("/") + HIT + post("/", b"abc") + HIT + get("/stream"),
    "hit behind a body": post("/", b"abc") + HIT + HIT,
    "hit before a body that breaks off": HIT + lines("Content-Length: 9", first="POST / HTTP/1.1") + b"abc",
    "hit, then close": HIT + get("/hit", "Accept-Encoding: gzip", "Connection: close") + HIT,
    "hit, close, and a post": HIT
    + get("/hit", "Accept-Encoding: gzip", "Connection: close")
    + post("/", b"abc"),
    "head of a hit": lines("Accept-Encoding: gzip", first="HEAD /hit HTTP/1.1") * 3,
    "hit to 1.0": lines("Accept-Encoding: gzip", first="GET /hit HTTP/1.0"),
    "hit with a body": lines("Accept-Encoding: gzip", "Content-Length: 3", first="GET /hit HTTP/1.1")
    + b"abc"
    + HIT,
    "hit by absolute form": get("http://a.example/hit"),
    "hit and part of the next": HIT + HIT[:20],
    "part of a hit": get("/hit", "Range: bytes=0-3"),
    "stream": get("/stream"),
    "stream to 1.0": lines(first="GET /stream HTTP/1.0"),
    "error": get("/raise") + get("/"),
    "none": get("/none") + get("/"),
    "cookies": get("/cookies"),
    "forwarded url": get("/url", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"),
    "forwarded hit": get("/hit", "X-Forwarded-Proto: https") * 2 + HIT,
    "websocket": UPGRADE + b"\x81\x82\x01\x02\x03\x04\x69\x6b",
    "websocket behind a hit": HIT + UPGRADE,
    "websocket nowhere": UPGRADE.replace(b"/ws", b"/nowhere"),
    "websocket with a body": UPGRADE.replace(b"Host", b"Content-Length: 3\r\nHost") + b"abc",
    "websocket to a star": UPGRADE.replace(b"/ws", b"*"),
    "websocket without a key": UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"),
}


def cuts(content: bytes) -> list[list[bytes]]:
    """Returns the ways in which an input is sent: whole, in halves, and byte by byte."""
    size = len(content)
    ends = {place + 4 for place in range(size) if content.startswith(b"\r\n\r\n", place)}
    places = {1, size // 3, size // 2, 2 * size // 3, size - 3, size - 1, *ends, *(end - 1 for end in ends)}
    halves = [[content[:place], content[place:]] for place in sorted(places) if 0 < place < size]
    step = 1 + size // 500
    return [[content], *halves, [content[place : place + step] for place in range(0, size, step)]]


# Starts that can not be sent.
REFUSED: Final = frozenset(
    f"answered {path}"
    for path in (
        "/600",
        "/length/none",
        "/name/space",
        "/name/colon",
        "/name/newline",
        "/value/newline",
        "/value/nul",
        "/value/lasting",
    )
)
FAILURE: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\nserver: uvicorn\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 21\r\nconnection: close\r\n\r\nInternal Server Error"
)
# The ends of the server's own answers, which get a date.
UNDATED: Final = re.compile(rb"(close\r\n)(\r\n(?:Internal|Service|Invalid HTTP))")


async def compare(
    name: str, app: object, content: bytes, options: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Compares the two protocols on all cuts of an input."""
    async with (
        listening(app, {**options, **UVICORNS}) as uvicorns,
        listening(app, {**options, **OWN}) as own,
    ):
        # What matters of those is the answer.
        is_get = name.startswith(("answered", "application"))
        for pieces in [[content], [content[:-30], content[-30:]]] if is_get else cuts(content):
            expected = await uvicorns.say(pieces)
            said = await own.say(pieces)
            if name in REFUSED:
                assert expected == Said(b"", is_kept=False)
                expected = Said(FAILURE, is_kept=False)
            expected = expected._replace(content=UNDATED.sub(rb"\1date: now\r\n\2", expected.content))
            assert said == expected, [len(piece) for piece in pieces]


@pytest.mark.parametrize("name", BARE)
async def test_same_bytes_from_a_bare_application(name: str) -> None:
    """What the server itself makes of requests, and of what an application sends."""
    await compare(name, Bare(bare), BARE[name])


@pytest.mark.parametrize("name", MADE)
async def test_same_bytes_from_a_web_server(name: str) -> None:
    """Views, hits at each door, streams, errors and WebSockets."""
    app = made()
    async with listening(app, OWN) as server:
        for content in [HIT, MADE[name]] * 3:
            await server.say([content])
    await compare(name, app, MADE[name])


OPTIONS: Final[dict[str, dict[str, object]]] = {
    "proxies of no headers": {"proxy_headers": False},
    "another proxy": {"forwarded_allow_ips": "192.0.2.99"},
    "any proxy": {"forwarded_allow_ips": "*"},
    "some proxies": {"forwarded_allow_ips": "127.0.0.1,192.0.2.3"},
    "mounted": {"root_path": "/mount"},
    "fields": {"headers": [("X-Config", "1"), ("Server", "mine")]},
    "without a date": {"date_header": False},
    "without websockets": {"ws": "none"},
    "one at a time": {"limit_concurrency": 1},
    "three at a time": {"limit_concurrency": 3},
    "contexts of their own": {"reset_contextvars": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_same_bytes_with_options(options: dict[str, object]) -> None:
    """Options of uvicorn mean what they do there, for views, hits and forwarded requests."""
    app = made()
    content = HIT * 3 + get("/url") + MADE["forwarded url"] + MADE["forwarded hit"] + HIT
    async with listening(app, {**OWN, **options}) as server:
        for _ in range(3):
            await server.say([content])
    await compare("options", app, content, options)
    for name in ("forwarded", "forwarded to the second of three", "forwarded by many", "fragment", "percent"):
        await compare(name, Bare(bare), BARE[name], options)
    for name in ("websocket", "websocket nowhere"):
        await compare(name, app, MADE[name], options)


async def test_date_of_the_configuration_is_the_only_one() -> None:
    """A date among the fields that every response has keeps the server from adding its own."""
    date = "Tue, 01 Jan 2019 00:00:00 GMT"
    async with listening(Bare(bare), {"headers": [("Date", date)]}) as server:
        reader, writer, _ = await server.connect()
        writer.write(get("/hello", "Connection: close"))
        said = await reader.read()
        writer.close()
    assert re.findall(rb"\r\ndate: ([^\r]+)", said.lower()) == [date.lower().encode()]


# What clients do


@pytest.mark.parametrize("options", [UVICORNS, OWN], ids=["uvicorn", "aeros"])
async def test_client_that_waits_is_told_to_go_on(options: Mapping[str, object]) -> None:
    """A view that reads the body gets it from a client that sends none before it has heard."""
    head, body = post("/", b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 3"), b"abc"
    async with listening(made(), options) as server:
        reader, writer, _ = await server.connect()
        for _ in range(2):
            writer.write(head)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"b'abc'" in await reader.readuntil(b" 127.0.0.1")
        writer.close()


@pytest.mark.parametrize("options", [UVICORNS, OWN], ids=["uvicorn", "aeros"])
async def test_client_that_leaves_is_told_to_the_application(options: Mapping[str, object]) -> None:
    """In the middle of a response ``receive`` says so, and what is sent then goes nowhere."""
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(await receive())
        await send(start(TEXT, length(10)))
        await send(part(b"hello", more=True))
        told.append(await receive())
        await send(part(b"never", more=True))
        await send(part(b""))
        told.append(await receive())

    async with listening(Bare(app), options) as server:
        reader, writer, _ = await server.connect()
        writer.write(get("/"))
        assert (await reader.readuntil(b"hello")).endswith(b"hello")
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            while server.state.tasks or not told:
                await asyncio.sleep(0)
    assert told == [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
        {"type": "http.disconnect"},
    ]


async def test_client_that_leaves_takes_its_waiting_requests_along() -> None:
    """The request that is answered hears of it, and those that wait behind it never begin."""
    begun: list[str] = []
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await receive()
        told.append(await receive())

    async with listening(Bare(app), OWN) as server:
        _, writer, _ = await server.connect()
        writer.write(get("/1") + get("/2") + get("/3"))
        await turn(lambda: begun)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            while server.state.tasks:
                await asyncio.sleep(0)
    assert begun == ["/1"]
    assert told == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("kind", ["parts", "declared", "view", "whole"])
@pytest.mark.parametrize("options", [UVICORNS, OWN], ids=["uvicorn", "aeros"])
async def test_client_that_does_not_read_stops_the_stream(options: Mapping[str, object], kind: str) -> None:
    """The application waits while nobody reads; then all of it comes, byte for byte."""
    count, size, sent = 60, 2**18, 0
    web = WebServer("big")
    blocks = [bytes([65 + number % 26]) * size for number in range(count)]

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start(TEXT, *([length(count * size)] if kind == "declared" else [])))
        for block in blocks:
            await send(part(block, more=True))
            sent += 1
        await send(part(b""))

    @web.route("/")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            nonlocal sent
            for block in blocks:
                yield block
                sent += 1

        return Response(parts(), content_type="application/octet-stream")

    @web.route("/whole")
    async def whole() -> Response:
        return Response(b"".join(blocks), content_type="application/octet-stream")

    app = web if kind in ("view", "whole") else Bare(bare)
    async with listening(app, options) as server:
        reader, writer, connection = await server.connect()
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        target = "/whole" if kind == "whole" else "/"
        writer.write(get(target) + get(target, "Connection: close"))
        if kind != "whole":
            await turn(lambda: connection.protocol.flow.write_paused)
            for _ in range(100):
                await asyncio.sleep(0)
            assert 0 < sent < count
        transport.resume_reading()
        async with asyncio.timeout(PATIENCE):
            said = await reader.read()
        writer.close()
    bodies: list[bytes] = []
    for _ in range(2):
        head, _, said = said.partition(b"\r\n\r\n")
        measured = count * size
        body, said = (said[:measured], said[measured:]) if b"content-length" in head else dechunked(said)
        bodies.append(body)
    assert said == b""
    assert bodies == [b"".join(blocks)] * 2


async def test_client_that_does_not_read_stops_the_answering_of_hits() -> None:
    """Many requests in one packet for what is remembered: no more is written than a client's buffer holds."""
    app, size, count = WebServer("large", cache=Cache(clock=lambda: NOW)), 2**20, 40

    @app.route("/")
    @app.cache(timeout=60)
    async def large() -> tuple[bytes, dict[str, str]]:
        return b"x" * size, {"Content-Type": "application/octet-stream"}

    async with listening(app, OWN) as server:
        for _ in range(5):
            await server.say([get("/")])
        assert app.cache_stats().hits_by_door[1] > 0
        reader, writer, connection = await server.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(get("/") * count + get("/", "Connection: close"))
        await turn(lambda: connection.protocol.flow.write_paused)
        held: int = connection.protocol.transport.get_write_buffer_size()
        assert 0 < held < 3 * size
        cast(asyncio.Transport, writer.transport).resume_reading()
        async with asyncio.timeout(PATIENCE):
            said = await reader.read()
        writer.close()
    assert said.count(b"HTTP/1.1 200") == count + 1
    assert said.count(b"x") > size * count


def dechunked(said: bytes) -> tuple[bytes, bytes]:
    """Returns the body that comes in chunks, and what comes behind it."""
    body: list[bytes] = []
    place = 0
    while True:
        end = said.index(b"\r\n", place)
        size = int(said[place:end], 16)
        body.append(said[end + 2 : end + 2 + size])
        place = end + 4 + size
        if size == 0:
            return b"".join(body), said[place:]


# What aeros's protocol stands on


async def test_uvicorn_has_what_the_protocol_stands_on() -> None:
    """Its class says so before anything is served, and a connection of it afterwards."""
    assert missing_of(HttpToolsProtocol) == ()
    for options in (OWN, UVICORNS):
        async with listening(Bare(bare), options) as server:
            reader, writer, connection = await server.connect()
            writer.write(get("/hello"))
            await reader.readuntil(b"hello")
            assert missing_of(connection.protocol) == ()
            assert isinstance(connection.protocol, HTTPProtocol) is (options is OWN)
            writer.close()


class Lacking:
    """What has nothing that is looked for."""

    flow = object()


def test_protocol_names_all_that_it_uses() -> None:
    """No name of its own source that uvicorn's class gives it is missing among those that are looked for."""
    source = inspect.getsource(HTTPProtocol) + inspect.getsource(Cycle)
    used = set(re.findall(r"(?:self|super\(\)|protocol|self\._protocol)\.(\w+)", source))
    base: Any = HttpToolsProtocol
    given = {name for name in used if name in base.__init__.__code__.co_names or name in vars(base)}
    given = given - {"__init__", "flow"} | {f"flow.{name}" for name in re.findall(r"flow\.(\w+)", source)}
    assert given - set(missing_of(Lacking())) == set()


@pytest.mark.parametrize(
    "name", ["send_400_response", "handle_websocket_upgrade", "on_url", "_should_upgrade"]
)
def test_lacking_method_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of uvicorn without it is noticed, and its own protocol serves."""
    monkeypatch.delattr(HttpToolsProtocol, name)
    assert missing_of(HttpToolsProtocol) == (name,)
    assert http_protocol() == ("httptools", (name,))


def test_lacking_attributes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only ``__init__`` sets is looked for there, and flow control is looked at as well."""

    def init(self: object) -> None:
        self.loop = self.parser = None  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    monkeypatch.delattr(FlowControl, "drain")
    monkeypatch.setattr(HttpToolsProtocol, "__init__", init)
    lacking = missing_of(HttpToolsProtocol)
    assert {"transport", "flow", "tasks", "flow.drain"} < set(lacking)
    assert not {"loop", "parser", "on_url"} & set(lacking)
    monkeypatch.setattr(HttpToolsProtocol, "__init__", object.__init__)
    assert {"loop", "parser"} < set(missing_of(HttpToolsProtocol))


def test_lacking_name_of_a_module_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can not even be imported is no reason not to serve; without httptools nothing is lacking."""
    from uvicorn.protocols.http import httptools_impl

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "aeros.serving.protocol")
        patch.delattr(httptools_impl, "STATUS_LINE")
        protocol, lacking = http_protocol()
        assert protocol == "auto"
        assert "STATUS_LINE" in lacking[0]
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "aeros.serving.protocol")
        patch.setitem(sys.modules, "httptools", None)
        assert http_protocol() == (H11Protocol, ())


def test_uvicorn_s_own_protocol_serves_where_something_is_lacking(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what is lacking, and door 2 answers hits."""
    app = made()
    monkeypatch.delattr(HttpToolsProtocol, "send_400_response")
    with app.run_in_thread() as server:
        bodies = [httpx.get(f"{server.url}/hit").text for _ in range(5)]
    assert bodies == ["cached " * 200] * 5
    assert dict(app.cache_stats().hits_by_door) == {1: 0, 2: 4, 3: 0}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line for line in warnings if "send_400_response" in line] == warnings
    assert len(warnings) == 1


def test_nothing_is_told_where_nothing_is_lacking(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and door 1 answers."""
    app = made()
    with app.run_in_thread() as server:
        for _ in range(5):
            httpx.get(f"{server.url}/hit")
    assert dict(app.cache_stats().hits_by_door) == {1: 4, 2: 0, 3: 0}
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


# Servers as they run


ENDLESS: Final = frozenset({"hit and part of the next", "hit before a body that breaks off"})


def test_same_bytes_from_servers_in_threads() -> None:
    """What holds on one loop holds for servers of their own, told by ``http=`` which protocol is theirs."""
    app = made()
    last = get("/cookies", "Connection: close")
    with app.run_in_thread() as own, app.run_in_thread(http="httptools") as uvicorns:
        for name, content in MADE.items():
            if name in ENDLESS or name.startswith("websocket"):
                continue
            for _ in range(2):
                exchange(own.port, HIT + content + last)
            said, expected = (undated(exchange(port, content + last)) for port in (own.port, uvicorns.port))
            assert said == expected, name
            assert said.startswith(b"HTTP/1.1 "), name


def exchange(port: int, content: bytes) -> bytes:
    """Returns all that a server says to some bytes, the last of which make it end the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(content)
        said: list[bytes] = []
        while part := connection.recv(2**16):
            said.append(part)
    return b"".join(said)
