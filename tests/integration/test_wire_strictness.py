"""What is no request, or could be read in two ways, is refused, on httptools and on h11 alike."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest
from quart import request

from aeros import WebServer
from aeros.serving.runner import RunningServer

GET: Final = b"GET / HTTP/1.1\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"

REFUSED: Final[dict[str, tuple[int, bytes]]] = {
    "no Host": (400, GET + b"\r\n"),
    "two Hosts": (400, GET + b"Host: a\r\nHost: a\r\n\r\n"),
    "two Hosts in other letters": (400, GET + b"Host: a\r\nX: y\r\nhOST: b\r\n\r\n"),
    "Host with a path": (400, GET + b"Host: a/b\r\n\r\n"),
    "Host with a user": (400, GET + b"Host: user@a\r\n\r\n"),
    "Host of two words": (400, GET + b"Host: a b\r\n\r\n"),
    "Host with a port that is no number": (400, GET + b"Host: a:http\r\n\r\n"),
    "Host with two ports": (400, GET + b"Host: a:1:2\r\n\r\n"),
    "Host with half an address": (400, GET + b"Host: [::1\r\n\r\n"),
    "Host that is not ASCII": (400, GET + "Host: höst\r\n\r\n".encode()),
    "a bad Host in HTTP/1.0": (400, b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n"),
    "a length and chunks": (400, POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    "chunks and a length": (400, POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "a signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "a coding after chunks": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunks in chunks": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "a coding that looks like chunks": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "lines that end in LF": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "one line that ends in LF": (400, GET + b"Host: a\nX: b\r\n\r\n"),
    "an end of LF": (400, GET + b"Host: a\r\nX: b\r\n\n"),
    "a CR in a value": (400, GET + b"Host: a\r\nX: b\rc\r\n\r\n"),
    "a NUL in a value": (400, GET + b"Host: a\r\nX: b\0c\r\n\r\n"),
    "a folded line": (400, GET + b"Host: a\r\nX: b\r\n c\r\n\r\n"),
    "a line folded by a tab": (400, GET + b"Host: a\r\nX: b\r\n\tc\r\n\r\n"),
    "a fold before all fields": (400, GET + b" Host: a\r\n\r\n"),
    "a space before the colon": (400, GET + b"Host: a\r\nX : b\r\n\r\n"),
    "a field without a name": (400, GET + b"Host: a\r\n: b\r\n\r\n"),
    "a value of 70,000 bytes": (431, GET + b"Host: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
    "a target of 70,000 bytes": (431, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a head without an end": (431, GET + b"Host: a\r\nX: " + b"x" * 400_000),
    "101 fields": (431, GET + b"Host: a\r\n" + b"X: y\r\n" * 100 + b"\r\n"),
}

TAKEN: Final[dict[str, bytes]] = {
    "a name": GET + b"Host: a\r\n\r\n",
    "a name with a port": GET + b"Host: shop.example:8000\r\n\r\n",
    "a name with what people put there": GET + b"Host: my_shop-1.example.\r\n\r\n",
    "an address": GET + b"Host: 127.0.0.1:80\r\n\r\n",
    "an address of IPv6": GET + b"Host: [::1]:80\r\n\r\n",
    "no name": GET + b"Host:\r\n\r\n",
    "no Host in HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "a target with a Host of its own": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "100 fields": GET + b"Host: a\r\n" + b"X: y\r\n" * 98 + b"\r\n",
    "a value of 60,000 bytes": GET + b"Host: a\r\nX: " + b"x" * 60_000 + b"\r\n\r\n",
    "chunks": POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n",
}


def build_app() -> WebServer:
    """Returns an application that counts what reaches it."""
    app = WebServer(__name__)

    @app.route("/", methods=["GET", "POST"])
    async def index() -> str:
        return f"read {len(await request.get_data())}"

    @app.route("/cached")
    @app.cache()
    async def cached() -> str:
        return "cached"

    @app.route("/fields", methods=["POST"])
    async def fields() -> str:
        await request.get_data()
        return str(request.headers)

    @app.route("/slow")
    async def slow() -> str:
        await request.get_data()
        await asyncio.sleep(0.2)
        return "slow"

    return app


@pytest.fixture(scope="module", params=["auto", "h11"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """Returns a server on one of the two libraries that take requests apart."""
    with build_app().run_in_thread(http=str(request.param), log_level="critical") as running:
        yield running


def ask(server: RunningServer, *pieces: bytes, pause: float = 0.02) -> bytes:
    """Returns all that is said until the server ends the connection."""
    said = b""
    with socket.create_connection((server.host, server.port), 10) as connection:
        connection.settimeout(10)
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break  # it was refused before
            if piece is not pieces[-1]:
                time.sleep(pause)
        while data := connection.recv(65_536):
            said += data
    return said


def closing(sent: bytes) -> bytes:
    """Returns a request after which the connection ends."""
    return sent.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def statuses(said: bytes) -> list[int]:
    """Returns the statuses of the responses on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server: RunningServer, case: str) -> None:
    """With one response, after which the connection ends, however it was cut into pieces."""
    status, sent = REFUSED[case]
    said = ask(server, sent)
    assert statuses(said) == [status]
    assert b"\r\nconnection: close\r\n" in said.lower()
    half = len(sent) // 2
    assert statuses(ask(server, sent[:half], sent[half:])) == [status]
    # And others are served as before.
    assert statuses(ask(server, closing(TAKEN["a name"]))) == [200]


@pytest.mark.parametrize("case", TAKEN)
def test_taken(server: RunningServer, case: str) -> None:
    """What is a request is answered."""
    assert statuses(ask(server, closing(TAKEN[case]))) == [200]


@pytest.mark.parametrize("target", [b"/", b"/cached", b"/slow"])
def test_what_came_before_in_a_pipeline_is_answered_first(server: RunningServer, target: bytes) -> None:
    """Then what is no request is refused, and what comes after it is not looked at."""
    good = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    bad = GET + b"Host: a/b\r\n\r\n"
    said = ask(server, good * 3 + bad + good)
    assert statuses(said) == [200, 200, 200, 400]
    assert said.endswith((b"Invalid or missing Host.", b"Invalid HTTP request received."))


def test_pipelined_requests_are_answered_in_their_order(server: RunningServer) -> None:
    """Whatever each takes: a slow view, a hit, a body in chunks."""
    posted = POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n"
    targets = [b"/slow", b"/cached", b"/", b"/cached", b"/slow", b"/missing"]
    requests = [b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n" for target in targets]
    requests.insert(3, posted)
    requests[-1] = closing(requests[-1])
    said = ask(server, b"".join(requests))
    assert statuses(said) == [200, 200, 200, 200, 200, 200, 404]
    order = [b"slow", b"cached", b"read 0", b"read 3", b"cached", b"slow", b"Not Found"]
    place = 0
    for text in order:
        place = said.index(b"\r\n\r\n" + text if text != b"Not Found" else text, place) + 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_target_that_is_none_refuses_no_request_before_it(server: RunningServer, count: int) -> None:
    """Those are answered; it is refused after them."""
    good = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    said = ask(server, good * count + b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(said)[:count] == [200] * count
    assert said.count(b"slow") == count


def test_an_upgrade_while_a_response_is_under_way_is_refused() -> None:
    """The connection is that response's still."""
    with build_app().run_in_thread(log_level="critical") as server:
        upgrade = (
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        said = ask(server, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + upgrade)
    assert statuses(said) == [200, 400]
    assert b"\r\n\r\nslow" in said


def test_trailers_are_left_out(server: RunningServer) -> None:
    """What comes after the body is no field of the request, which has been let through as it was."""
    head = b"POST /fields HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + CHUNKED + b"\r\n1\r\nx\r\n0\r\n"
    said = ask(server, head, b"X-Admin: yes\r\n\r\n")
    assert statuses(said) == [200]
    assert b"x-admin" not in said.lower()


def test_trailers_and_sizes_of_chunks_have_a_limit() -> None:
    """A body of nothing but framing ends in 431."""
    head = POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\n"
    with build_app().run_in_thread(log_level="critical") as server:
        lines = [b"X-%d: y\r\n" % number for number in range(30_000)]
        pieces = [b"".join(lines[place : place + 1000]) for place in range(0, len(lines), 1000)]
        assert statuses(ask(server, head, *pieces)) == [431]
        extension = b"1;" + b"x" * 10_000 + b"\r\ny\r\n"
        assert statuses(ask(server, POST + CHUNKED + b"\r\n", *([extension] * 20))) == [431]
        # A chunk for each byte is what some send.
        tiny = POST.replace(b"Host: a", b"Host: a\r\nConnection: close") + CHUNKED + b"\r\n"
        said = ask(server, tiny, b"1\r\nx\r\n" * 20_000, b"0\r\n\r\n")
        assert said.endswith(b"read 20000")


def test_a_head_begun_in_the_piece_that_ends_the_one_before(server: RunningServer) -> None:
    """What belongs to the one before is not counted as its own."""
    first = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 120000\r\n"
    rest = b"\r\n" + b"x" * 120_000 + b"GET / HTTP/1.1\r\n"
    assert statuses(ask(server, first, rest, b"Host: a\r\nConnection: close\r\n\r\n")) == [200, 200]


def test_strictness_after_a_body_that_comes_late() -> None:
    """On h11 the next request begins in the middle of what is taken apart."""
    with build_app().run_in_thread(http="h11", log_level="critical") as server:
        early = b"POST /missing HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
        said = ask(server, early, b"x" + b"GET / HTTP/1.1\nHost: a\n\n", pause=0.2)
        assert statuses(said) == [404, 400]


def test_limits_of_a_head_are_settings() -> None:
    """And the smallest ones are kept to."""
    for http in ("auto", "h11"):
        app = build_app()
        with app.run_in_thread(
            http=http, log_level="critical", max_header_bytes=200, max_header_fields=3
        ) as server:
            host = b"GET / HTTP/1.1\r\nHost: a\r\n"
            assert statuses(ask(server, closing(host) + b"A: b\r\n\r\n")) == [200]
            assert statuses(ask(server, host + b"A: b\r\nC: d\r\nE: f\r\n\r\n")) == [431]
            assert statuses(ask(server, host + b"A: " + b"b" * 200 + b"\r\n\r\n")) == [431]
