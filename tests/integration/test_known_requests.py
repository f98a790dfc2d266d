"""Door 1 knows requests by their bytes: it says what the parser's way says, or leaves the answer to that."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import Response, request
from quart.signals import request_started
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aeros import Br, Cache, WebServer
from aeros.settings import ServerSettings
from tests.integration.wire import OWN, UVICORNS, Listening, Said, listening

# How often a page is asked for until door 1 has answered: a miss, two hits at the view, and one here.
ASKED: Final = 4
HIT: Final = b"GET /hit HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: gzip\r\n\r\n"


@dataclass
class Shop:
    """An application with a page that is cached, and what is known of it."""

    app: WebServer
    now: float = 1_800_000_000.0
    runs: int = 0
    written: int = 0


def open_shop(*, early: bool = True, tells_runs: bool = True) -> Shop:
    """Returns an application whose cached page says how often it was made, if it is to."""
    app = WebServer("shop", cache=Cache(clock=lambda: shop.now))
    shop = Shop(app)

    @app.route("/hit")
    @app.cache(timeout=60, early=early)
    async def hit() -> str:
        shop.runs += 1
        return f"run {shop.runs if tells_runs else '-'} " * 100

    @app.route("/write", methods=["POST"])
    async def write() -> str:
        shop.written += 1
        return f"{(await request.get_data())!r}"

    return shop


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was given to the parser."""
    seen: list[bytes] = []
    take = HttpToolsProtocol.data_received

    def data_received(self: HttpToolsProtocol, data: bytes) -> None:
        seen.append(data)
        take(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", data_received)
    return seen


async def ask(server: Listening, *pieces: bytes) -> Said:
    """Returns what is said on a new connection, with a date in what refuses a request, as aeros has it."""
    said = await server.say(pieces)
    return said._replace(content=said.content.replace(b"close\r\n\r\nInv", b"close\r\ndate: now\r\n\r\nInv"))


async def warm(server: Listening, content: bytes = HIT) -> Said:
    """Asks until the bytes are known, and returns what was said the last time."""
    for _ in range(ASKED - 1):
        await ask(server, content)
    return await ask(server, content)


async def warm_all(server: Listening, target: str) -> None:
    """Asks in each coding until all are known; a coding that is new makes the others be forgotten."""
    for fields in ((), ("Accept-Encoding: gzip",), ("Accept-Encoding: br",)) * 2:
        for method in ("GET", "HEAD"):
            await warm(server, lines(*fields, method=method, target=target))


def lines(*fields: str, method: str = "GET", target: str = "/hit", version: str = "1.1") -> bytes:
    """Returns a request without a body."""
    first = f"{method} {target} HTTP/{version}"
    return "\r\n".join([first, "Host: a.example", *fields, "", ""]).encode()


# The second time


@pytest.mark.parametrize(
    "content",
    [
        HIT,
        lines(),
        lines(method="HEAD"),
        lines("Accept-Encoding: br", "Cookie: theme=dark", "X-Other: 1"),
        lines("If-None-Match: *"),
        lines('If-None-Match: "other"'),
        lines("Connection: keep-alive"),
        b"\r\n" + HIT + b"\r\n",
    ],
)
async def test_known_bytes_are_answered_without_the_parser(content: bytes, parsed: list[bytes]) -> None:
    """With the same bytes as by way of it, on new connections and on one that goes on."""
    shop = open_shop()
    async with listening(shop.app, OWN) as server:
        await warm_all(server, "/hit")
        server.served.known.clear()
        parsed.clear()
        first = await ask(server, content)
        assert first.content.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304"))
        assert list(server.served.known) == parsed == [content]
        again = await ask(server, content)
        thrice = await ask(server, content, content, content)
    assert parsed == [content]
    assert again == first
    assert thrice.content == first.content * 3
    assert shop.runs == 1


async def test_answer_tells_the_time_of_now(parsed: list[bytes]) -> None:
    """Age and what is left grow and shrink as they do by way of the parser."""
    shop = open_shop()
    async with listening(shop.app, OWN) as server:
        await warm(server)
        ages: list[bytes] = []
        for _ in range(4):
            parsed.clear()
            known = await ask(server, HIT)
            assert parsed == []
            server.served.known.clear()
            assert await ask(server, HIT) == known
            ages += re.findall(rb"\r\nage: (\d+)\r\n(?s:.*)ttl=(\d+)", known.content)[0]
            shop.now += 7.5
    assert ages == [b"0", b"60", b"7", b"52", b"15", b"45", b"22", b"37"]


# What closes the door


def hook(shop: Shop) -> None:
    """Registers a hook that answers itself."""

    @shop.app.before_request
    async def refuse() -> tuple[str, int]:
        return "refused", 403


def late_hook(shop: Shop) -> None:
    """Registers a hook that changes the response."""

    @shop.app.after_request
    async def mark(response: Response) -> Response:
        response.headers["X-Marked"] = "yes"
        return response


async def heard(*_: object, **__: object) -> None:
    """Hears of a request."""


def middleware(shop: Shop) -> None:
    """Puts a middleware around the application."""
    inner = shop.app.asgi_app

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-outer", b"yes")]}
            await send(message)

        await inner(scope, receive, sending)

    cast(Any, shop.app).asgi_app = outer


def replace(shop: Shop) -> None:
    """Puts another view in the place of the cached one."""

    async def view() -> str:
        return "replaced"

    shop.app.view_functions["hit"] = view


def override(name: str, make: Callable[[Shop], object]) -> Callable[[Shop], object]:
    """Returns what overrides a provider."""
    return lambda shop: getattr(shop.app.container, name).override(make(shop))


CHANGES: Final[dict[str, Callable[[Shop], object]]] = {
    "evicted": lambda shop: shop.app.clear_cache(),
    "evicted by its path": lambda shop: shop.app.clear_cache(path="/hit"),
    "expired": lambda shop: setattr(shop, "now", shop.now + 60),
    "clock set back": lambda shop: setattr(shop, "now", shop.now - 5),
    "another cache": override("cache", lambda shop: Cache(clock=lambda: shop.now)),
    "another compressor": override("compressor", lambda _: Br(min_size=1)),
    "no compressor": override("compressor", lambda _: None),
    "global fields": override("settings", lambda _: ServerSettings(global_headers={"X-Now": "1"})),
    "a hook": hook,
    "a late hook": late_hook,
    "a listener": lambda shop: request_started.connect(heard, shop.app),
    "a middleware": middleware,
    "another view": replace,
    "a server name": lambda shop: cast(Any, shop.app.config).update(SERVER_NAME="b.example"),
}


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_known_bytes_get_what_everybody_would_get(change: Callable[[Shop], object]) -> None:
    """Whatever has changed since, the answer is that of an application that has no doors."""
    shop, plain = open_shop(), open_shop(early=False)
    try:
        async with listening(shop.app, OWN) as server, listening(plain.app, OWN) as other:
            assert await warm(server) == await warm(other)
            assert HIT in server.served.known
            change(shop)
            change(plain)
            for _ in range(ASKED + 2):
                assert await ask(server, HIT) == await ask(other, HIT)
            assert shop.runs == plain.runs
    finally:
        request_started.disconnect(heard)


async def test_another_scheme_is_another_request(parsed: list[bytes]) -> None:
    """What came by http says nothing of the same bytes by https."""
    shop = open_shop()
    async with listening(shop.app, OWN) as server:
        await warm(server)
        _, writer, connection = await server.connect()
        connection.protocol.scheme = "https"
        parsed.clear()
        writer.write(HIT)
        async with asyncio.timeout(20):
            while not parsed or server.state.tasks:
                await asyncio.sleep(0)
        writer.close()
    assert parsed == [HIT]
    assert shop.runs == 2  # the scheme is part of the key


# What is no whole request, or more than one


async def test_only_whole_requests_that_go_on_are_remembered() -> None:
    """Nothing is kept of parts, of several in one packet, of the last of a connection, of a proxy's."""
    shop = open_shop()
    others = [
        lines("Connection: close", "Accept-Encoding: gzip"),
        lines("Accept-Encoding: gzip", version="1.0"),
        lines("Accept-Encoding: gzip", "X-Forwarded-For: 192.0.2.1"),
        lines("Accept-Encoding: gzip", "X-Forwarded-Proto: https"),
        lines("Accept-Encoding: gzip", "Range: bytes=0-1"),
        lines("Accept-Encoding: gzip", "Expect: 100-continue"),
        lines("Accept-Encoding: gzip", target="http://a.example/hit"),
        lines("Accept-Encoding: gzip", target="//hit"),
        lines("Accept-Encoding: gzip", "X-Long: " + "x" * 2_048),
    ]
    cut = [
        [HIT[:20], HIT[20:]],
        [HIT + HIT],
        [HIT + HIT[:9], HIT[9:]],
        [HIT[:9], HIT[9:] + HIT, HIT],
        [HIT + HIT[:9], HIT],
    ]
    async with listening(shop.app, OWN) as server, listening(shop.app, UVICORNS) as uvicorns:
        await warm(server)
        assert set(server.served.known) == {HIT}
        for content in others:
            for _ in range(ASKED):
                await ask(server, content)
            assert await ask(server, content) == await ask(uvicorns, content)
        for pieces in cut:
            for _ in range(ASKED):
                await ask(server, *pieces)
            assert await ask(server, *pieces) == await ask(uvicorns, *pieces)
        assert set(server.served.known) == {HIT}


async def test_known_bytes_that_are_a_body_are_a_body() -> None:
    """Between two requests they are a request, within one they are what it sends."""
    shop = open_shop()
    head = b"POST /write HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(HIT)
    chunked = b"POST /write HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(
        HIT
    )
    async with listening(shop.app, OWN) as server, listening(shop.app, UVICORNS) as uvicorns:
        await warm(server)
        for pieces in ([head, HIT, HIT], [head[:9], head[9:], HIT], [chunked, HIT, b"\r\n0\r\n\r\n", HIT]):
            said = await ask(server, *pieces)
            assert said == await ask(uvicorns, *pieces)
            assert repr(HIT).encode() in said.content
        field = lines(target="/nowhere")[:-4] + b"\r\nX-Field: "
        said = await ask(server, field, HIT, HIT)
        assert said.content.startswith(b"HTTP/1.1 400 ")  # it has two fields Host then


async def test_known_bytes_wait_for_the_answer_before_them() -> None:
    """While a request is being handled, the hit behind it comes after its answer."""
    shop = open_shop()
    begun, goes_on = asyncio.Event(), asyncio.Event()

    @shop.app.route("/slow")
    async def slow() -> str:
        begun.set()
        await goes_on.wait()
        return "slow"

    async with listening(shop.app, OWN) as server:
        await warm(server)
        slow_one = lines(target="/slow")
        reader, writer, connection = await server.connect()
        writer.write(slow_one)
        await begun.wait()
        writer.write(HIT)
        while connection.seen < len(slow_one + HIT):
            await asyncio.sleep(0)
        goes_on.set()
        assert b"hit" not in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"slow"
        assert b"cache-status: aeros; hit" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_nothing_behind_the_last_request_of_a_connection_is_handled() -> None:
    """After ``Connection: close`` no further request is processed (RFC 9112 §9.6), hit or not."""
    shop = open_shop()
    last = lines("Connection: close", "Accept-Encoding: gzip")
    write = b"POST /write HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"
    async with listening(shop.app, OWN) as server, listening(shop.app, UVICORNS) as uvicorns:
        await warm(server)
        hits = shop.app.cache_stats().hits
        for content in (last + write, last + HIT + write, HIT + last + write + HIT):
            said = await ask(server, content)
            assert said == await ask(uvicorns, content)
            assert not said.is_kept
        assert shop.written == 0
        assert shop.app.cache_stats().hits == hits + 2 * 4


# Bounds


async def test_memory_of_requests_is_bounded() -> None:
    """A thousand requests of two kibibytes, of which those that came last stay."""
    shop = open_shop()
    content = [lines(f"X-Number: {number}") for number in range(1_010)]
    largest = lines("X-Long: " + "x" * (2_048 - len(lines("X-Long: "))))
    assert len(largest) == 2_048
    async with listening(shop.app, OWN) as server:
        await warm(server, lines())
        said = await ask(server, *content)
        assert said.content.count(b"HTTP/1.1 200 OK") == len(content)
        assert list(server.served.known) == content[10:]
        await ask(server, largest, largest[:-4] + b"x\r\n\r\n")
        assert list(server.served.known) == [*content[11:], largest]
        again = await ask(server, content[0])
        assert again.content.startswith(b"HTTP/1.1 200")
    assert shop.runs == 1


# What is written and counted


@pytest.mark.parametrize(
    "content",
    [HIT, lines(method="HEAD"), lines("If-None-Match: *"), lines(target="/hit?"), lines(target="/hit?a=b&c")],
)
async def test_log_and_counters_are_those_of_the_other_ways(content: bytes, tmp_path: Path) -> None:
    """The line of a known request is that of a parsed one, and that of a server without doors."""
    written: list[list[str]] = []
    for early in (True, False):
        shop = open_shop(early=early)
        log = tmp_path / f"{early}.log"
        chosen = ServerSettings(access_log_file=str(log), access_log_to_std=False)
        async with listening(shop.app, OWN, chosen) as server:
            await warm_all(server, content.split()[1].decode())
            before, began = shop.app.cache_stats(), server.state.total_requests
            for _ in range(3):
                await ask(server, content)
            after = shop.app.cache_stats()
            assert server.state.total_requests == began + 3
            assert after.hits == before.hits + 3
            assert (after.misses, after.stores) == (before.misses, before.stores)
            if early:
                assert after.hits_by_door[1] == before.hits_by_door[1] + 3
                assert content in server.served.known
        told = log.read_text().splitlines()
        assert len(told) == 12 * ASKED + 3
        written.append([re.sub(r"^.*?(?=127\.)|[\d.]+ms", "", line) for line in told[-3:]])
    assert written[0] == written[1]
    assert len(set(written[0])) == 1
    assert " hit" in written[0][0]


# Whatever comes, in whatever pieces

BODIES: Final = st.sampled_from([b"", b"abc", HIT, b"x" * 3_000])
TARGETS: Final = st.sampled_from(["/hit", "/hit?", "/write", "/nowhere", "/%68it", "//hit"])
FIELDS: Final = st.sampled_from(
    [
        "Accept-Encoding: gzip",
        "Connection: close",
        "Connection: keep-alive",
        "Cookie: a=b",
        "Expect: 100-continue",
        "If-None-Match: *",
        "Range: bytes=0-3",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Other: 1",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Makes up a valid request, mostly one that is known."""
    if draw(st.integers(0, 2)):
        return HIT
    fields = draw(st.lists(FIELDS, max_size=2, unique=True))
    target, body = draw(TARGETS), draw(BODIES)
    kind = draw(st.sampled_from(["GET", "HEAD", "1.0", "length", "chunks"]))
    if kind == "1.0":
        return lines(*fields, target=target, version="1.0")
    if kind == "length":
        return lines(*fields, f"Content-Length: {len(body)}", method="POST", target=target) + body
    if kind == "chunks":
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        head = lines(*fields, "Transfer-Encoding: chunked", method="POST", target=target)
        return head + chunk + b"0\r\n\r\n"
    return lines(*fields, method=kind, target=target)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Makes up requests in a row, cut anywhere, but more often where one ends than elsewhere."""
    asked = draw(st.lists(requests(), min_size=1, max_size=6))
    content = b"".join(asked)
    ends = [sum(map(len, asked[: number + 1])) for number in range(len(asked))]
    places = draw(st.sets(st.sampled_from(ends) | st.integers(0, len(content)), max_size=8))
    edges = sorted({0, len(content), *places})
    return [content[begin:end] for begin, end in pairwise(edges)]


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


async def hold(told: list[list[bytes]]) -> None:
    """Compares what both protocols say to each conversation, but for ``100 Continue``.

    A server need not send one where it has the body already (RFC 9110 §10.1.1).
    """
    shop = open_shop(tells_runs=False)
    async with listening(shop.app, OWN) as server, listening(shop.app, UVICORNS) as uvicorns:
        for content in (HIT, lines(), lines(method="HEAD"), lines("Accept-Encoding: gzip", method="HEAD")):
            await warm(server, content)
        for pieces in told:
            for _ in range(2):
                await ask(server, *pieces)  # what is cached is so for both then
            said, expected = await ask(server, *pieces), await ask(uvicorns, *pieces)
            assert said.is_kept == expected.is_kept
            assert said.content.replace(CONTINUE, b"") == expected.content.replace(CONTINUE, b"")


@settings(max_examples=80, deadline=None)
@given(st.lists(conversations(), min_size=1, max_size=4))
def test_whatever_comes_in_whatever_pieces_is_answered_as_by_uvicorn(told: list[list[bytes]]) -> None:
    """Known bytes, at the edges of packets or across them, are never taken for what they are not."""
    asyncio.run(hold(told))
