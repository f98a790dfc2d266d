"""Clients that send slowly, or do not read, are cut off in their time; others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from quart import Response, request

from aeros import WebServer
from aeros.serving.runner import RunningServer
from tests.integration.conftest import eventually

BOUND: Final = 0.5  # seconds; what follows takes longer than that without a bound, and much less than WAIT
WAIT: Final = 20.0
HEAD: Final = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
LARGE: Final = 20_000_000

Notes = list[str]


def build_app(notes: Notes) -> WebServer:
    """Returns an application that notes how its requests end."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> str:
        return "here"

    @app.route("/upload", methods=["POST"])
    async def upload() -> str:
        try:
            return str(len(await request.get_data()))
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise

    @app.route("/thinks", methods=["POST"])
    async def thinks() -> str:
        await asyncio.sleep(4 * BOUND)
        return str(len(await request.get_data()))

    @app.route("/large")
    async def large() -> bytes:
        return b"x" * LARGE

    @app.route("/endless")
    async def endless() -> Response:
        async def parts() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
            finally:
                notes.append("ended")

        return Response(parts())

    return app


@pytest.fixture
def notes() -> Notes:
    """Returns where the application notes how requests have ended."""
    return []


@pytest.fixture(params=["auto", "h11"])
def server(request: pytest.FixtureRequest, notes: Notes) -> Iterator[RunningServer]:
    """Returns a server with short deadlines, on one of the two libraries that take requests apart."""
    app = build_app(notes)
    app.config["MAX_CONTENT_LENGTH"] = None
    with app.run_in_thread(
        http=str(request.param),
        timeout_request_header=BOUND,
        timeout_request_body=BOUND,
        timeout_write=BOUND,
        timeout_keep_alive=60,
        log_level="critical",
    ) as running:
        yield running


@contextlib.contextmanager
def others_are_served(server: RunningServer) -> Generator[None]:
    """Asks for pages all the time while the context lasts; each of them must come."""
    done, failures, count = threading.Event(), list[object](), 0

    def ask() -> None:
        nonlocal count
        with httpx.Client(base_url=server.url) as client:
            while not done.is_set():
                try:
                    if client.get("/").text != "here":
                        failures.append("another page")
                except httpx.HTTPError as error:
                    failures.append(error)
                count += 1
                time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures
    assert count > 0


def connect(server: RunningServer) -> socket.socket:
    """Returns a connection."""
    connection = socket.create_connection((server.host, server.port), WAIT)
    connection.settimeout(WAIT)
    return connection


def said_until(connection: socket.socket, end: bytes) -> bytes:
    """Returns what comes, up to its end, which may come in pieces."""
    said = b""
    while not said.endswith(end):
        data = connection.recv(65_536)
        assert data, said
        said += data
    return said


def rest_of(connection: socket.socket) -> bytes:
    """Returns what comes until the server ends the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1_000_000):
            said += data
    return said


def drip(connection: socket.socket, piece: bytes, pause: float) -> int:
    """Sends the same piece again and again until the server ends the connection; returns how often."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < WAIT / pause:
            connection.sendall(piece)
            sent += 1
            time.sleep(pause)
    return sent


def statuses(said: bytes) -> list[int]:
    """Returns the statuses of the responses on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def test_a_head_that_does_not_end(server: RunningServer) -> None:
    """It gets 408, though something comes all the time."""
    with others_are_served(server), connect(server) as slow, connect(server) as silent:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        silent.sendall(b"GET / HT")
        assert drip(slow, b"X: y\r\n", BOUND / 10) < 20 * 10
        assert statuses(rest_of(silent)) == [408]
    with connect(server) as stopped:
        stopped.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        assert statuses(rest_of(stopped)) == [408]


def test_a_connection_on_which_nothing_comes(server: RunningServer) -> None:
    """It is closed without a word."""
    with connect(server) as connection:
        assert rest_of(connection) == b""


def test_a_connection_between_two_requests_is_kept(server: RunningServer) -> None:
    """Its bound is the keep-alive's, however its last request was answered."""
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert said_until(connection, b"\r\n\r\nhere")
            time.sleep(2 * BOUND)


def test_the_head_of_a_second_request_that_does_not_end(server: RunningServer) -> None:
    """It is as late as a first one would be."""
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert said_until(connection, b"\r\n\r\nhere")
        connection.sendall(b"GET / HTTP/1.1\r\nHost")
        assert statuses(rest_of(connection)) == [408]


def test_a_body_of_one_byte_now_and_then(server: RunningServer, notes: Notes) -> None:
    """It gets 408, and its view is cancelled."""
    with others_are_served(server), connect(server) as slow:
        slow.sendall(HEAD)
        assert drip(slow, b"x", BOUND / 10) < WAIT / (BOUND / 10)
    with connect(server) as stopped:
        stopped.sendall(HEAD + b"x" * 10)
        assert statuses(rest_of(stopped)) == [408]
    eventually(lambda: notes == ["cancelled", "cancelled"])


def test_a_body_that_comes_in_good_time(server: RunningServer) -> None:
    """It may take longer than the bound: each KiB brings a second."""
    with connect(server) as connection:
        connection.sendall(HEAD)
        for _ in range(10):
            connection.sendall(b"x" * 100_000)
            time.sleep(BOUND / 4)
        assert said_until(connection, b"\r\n\r\n1000000")


def test_a_view_that_thinks_before_it_reads(server: RunningServer) -> None:
    """Its time is not the client's: neither where the body waits, nor where the client does."""
    with connect(server) as connection:
        connection.sendall(HEAD.replace(b"/upload", b"/thinks") + b"x" * 1_000_000)
        assert said_until(connection, b"\r\n\r\n1000000")
    with connect(server) as connection:
        connection.sendall(
            b"POST /thinks HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert said_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(b"abc")
        assert said_until(connection, b"\r\n\r\n3")


@pytest.mark.parametrize("target", [b"/large", b"/endless"])
def test_a_client_that_stops_reading(server: RunningServer, notes: Notes, target: bytes) -> None:
    """It is cut off, and the stream ends."""
    with others_are_served(server), connect(server) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.recv(100)
        time.sleep(4 * BOUND)
        said = rest_of(connection)
        assert len(said) < LARGE
    if target == b"/endless":
        eventually(lambda: notes == ["ended"])


def test_a_client_that_reads_slowly(server: RunningServer) -> None:
    """It gets all, though it takes longer than the bound."""
    with connect(server) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        said = 0
        began = time.monotonic()
        while data := connection.recv(1_000_000):
            said += len(data)
            if time.monotonic() - began < 6 * BOUND:
                time.sleep(BOUND / 4)
        assert said > LARGE


def test_a_client_that_reads_a_little_all_the_time(server: RunningServer) -> None:
    """Its system's queue moves, though the server's own does not for a while."""
    with connect(server) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        end = time.monotonic() + 8 * BOUND
        while time.monotonic() < end:
            assert connection.recv(100_000)
            time.sleep(BOUND / 10)


def test_a_head_that_waits_for_those_before_it(server: RunningServer) -> None:
    """It is not read on while others are answered, and so not late."""
    slow = b"POST /thinks HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(slow * 2 + b"GET / HTTP/1.1\r\nHo")
        time.sleep(BOUND / 2)
        connection.sendall(b"st: a\r\nConnection: close\r\n\r\n")
        assert statuses(rest_of(connection)) == [200, 200, 200]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("http", ["auto", "h11"])
def test_connections_on_which_only_line_breaks_come(notes: Notes, http: str, loop: str) -> None:
    """They are idle, and end as idle ones do; so do those whose body came after their answer."""
    app = build_app(notes)
    with (
        app.run_in_thread(timeout_keep_alive=1, timeout_request_header=BOUND, http=http, loop=loop) as server,
        connect(server) as breaks,
        connect(server) as late,
    ):
        breaks.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert said_until(breaks, b"\r\n\r\nhere")
        breaks.sendall(b"\r\n")
        late.sendall(b"POST /missing HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
        assert statuses(said_until(late, b"</p>\n")) == [404]
        time.sleep(1.2)
        late.sendall(b"y")
        assert statuses(rest_of(breaks)) in ([], [400])  # which h11 says of such a line
        assert rest_of(late) == b""


def test_what_was_cut_off_is_said_once_for_all(notes: Notes, tmp_path: Path) -> None:
    """One line with the setting, not one for each of many clients; none where there is no bound."""
    app = build_app(notes)
    log = tmp_path / "log"
    with (
        app.run_in_thread(
            timeout_request_header=BOUND, timeout_request_body=None, error_log_file=log
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        heads = [stack.enter_context(connect(server)) for _ in range(5)]
        body = stack.enter_context(connect(server))
        for connection in heads:
            connection.sendall(b"GET ")
        body.sendall(HEAD)
        for connection in heads:
            assert statuses(rest_of(connection)) == [408]
        body.settimeout(2 * BOUND)
        with pytest.raises(TimeoutError):
            body.recv(1)
    said = [line for line in log.read_text().splitlines() if "Cut off" in line]
    assert 1 <= len([line for line in said if "timeout_request_header=0.5" in line]) <= 2
    assert not [line for line in said if "body" in line]
