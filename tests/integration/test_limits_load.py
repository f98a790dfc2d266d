"""Admission under load: exactly so many at once, so many in line, the rest refused, and no slot ever lost."""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import pytest
from quart import Response, abort, request

from aeros import Container, WebServer
from aeros.serving.runner import RunningServer

SOFT: Final = 8
HARD: Final = 12
CLIENTS: Final = 100
PATIENCE: Final = 30.0
STORM: Final = 10_000
AT_ONCE: Final = 40


class Reply(NamedTuple):
    """A response: its status, 0 for none, and whether it says when to come again."""

    status: int
    says_when: bool


class Gate:
    """A view's work: counts how much goes on at once, until the test lets all of it end."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.is_open = threading.Event()

    async def __call__(self) -> str:
        """Waits for the gate to open."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while not self.is_open.is_set():
                await asyncio.sleep(0.01)
        finally:
            self.running -= 1
        return "done"

    def shut(self) -> None:
        """Begins anew."""
        self.most = 0
        self.is_open.clear()


def build_app(gate: Gate) -> WebServer:
    """Returns an application in which a request can end in many ways."""
    container = Container()
    container.config.from_dict({"soft_limit": SOFT, "hard_limit": HARD})
    app = WebServer(__name__, container=container)
    app.add_url_rule("/work", "work", gate.__call__)

    @app.before_request
    async def hook() -> None:
        if request.path == "/hook":
            raise RuntimeError("hook")

    @app.route("/ok", methods=["GET", "POST"])
    async def ok() -> str:
        await request.get_data()
        return "ok"

    @app.route("/sleeps")
    async def sleeps() -> str:
        await asyncio.sleep(0.02)
        return "slept"

    @app.route("/raises")
    async def raises() -> str:
        await asyncio.sleep(0)
        raise RuntimeError("view")

    @app.route("/gives-up")
    async def gives_up() -> str:
        raise asyncio.CancelledError

    @app.route("/aborts")
    async def aborts() -> str:
        abort(418)

    @app.route("/cached")
    @app.cache(timeout=0.05)
    async def cached() -> str:
        await asyncio.sleep(0.01)
        return "cached"

    @app.route("/cached-raises")
    @app.cache(timeout=60)
    async def cached_raises() -> str:
        await asyncio.sleep(0.01)
        raise RuntimeError("view")

    @app.route("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncGenerator[bytes]:
            for _ in range(5):
                yield b"part"
                await asyncio.sleep(0.005)

        return Response(parts())

    @app.route("/stream-raises")
    async def stream_raises() -> Response:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"part"
            raise RuntimeError("stream")

        return Response(parts())

    @app.route("/events")
    async def events() -> Response:
        async def parts() -> AsyncGenerator[bytes]:
            while True:
                yield b"data: here\n\n"
                await asyncio.sleep(0.1)

        response = Response(parts(), content_type="text/event-stream")
        response.timeout = None
        return response

    return app


def head(target: str, *, last: bool = True) -> bytes:
    """Returns a request without a body."""
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{'Connection: close' if last else 'X: y'}\r\n\r\n".encode()


async def ask(server: RunningServer, sent: bytes) -> Reply:
    """Sends a request on a connection of its own and reads its whole response."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(sent)
        said = await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", said)
    return Reply(int(status[1]) if status else 0, b"\r\nretry-after: 1\r\n" in said.lower())


async def hold_against_limits(server: RunningServer, gate: Gate) -> None:
    """Asks with 100 clients at once for what takes its time; 8 are served, 4 wait, 88 are refused at once."""
    gate.shut()
    asking = [asyncio.create_task(ask(server, head("/work"))) for _ in range(CLIENTS)]
    for refused, coming in enumerate(asyncio.as_completed(asking, timeout=PATIENCE), 1):
        assert await coming == Reply(503, says_when=True)
        if refused == CLIENTS - HARD:
            break
    assert gate.running == SOFT
    gate.is_open.set()
    replies = Counter(reply.status for reply in await asyncio.gather(*asking))
    assert replies == {503: CLIENTS - HARD, 200: HARD}
    assert gate.most == SOFT


@asynccontextmanager
async def connected(server: RunningServer, count: int, sent: bytes) -> AsyncGenerator[None]:
    """Keeps connections that have had the beginning of a response, or all of it, and are left open."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writers.append(writer)
            writer.write(sent)
            assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"HTTP/1.1 200 ")
        yield
    finally:
        for writer in writers:
            writer.close()


async def test_limits_hold_beside_idle_connections_and_streams() -> None:
    """100 idle keep-alive connections and 50 clients of an event stream take nothing from them."""
    gate = Gate()
    with build_app(gate).run_in_thread(log_level="critical", timeout_keep_alive=60) as server:
        await hold_against_limits(server, gate)
        async with (
            connected(server, 100, head("/ok", last=False)),
            connected(server, 50, head("/events")),
        ):
            await hold_against_limits(server, gate)
        await hold_against_limits(server, gate)


@pytest.mark.usefixtures("untraced")
async def test_no_slot_is_lost_in_10000_requests_that_end_in_all_ways() -> None:
    """Clients that leave at any moment, errors, cancellations: then the limits are what they were."""
    gate, dice = Gate(), random.Random(20261128)
    targets = [
        "/ok", "/sleeps", "/raises", "/gives-up", "/aborts", "/hook", "/missing", "/cached",
        "/cached-raises", "/stream", "/stream-raises",
    ]  # fmt: skip
    left: Counter[str] = Counter()

    async def come_and_go(server: RunningServer, target: str) -> None:
        chance = dice.random()
        sent = head(target)
        if target == "/ok" and chance < 0.5:
            sent = b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
            sent += b"x" * dice.choice([0, 50, 100])
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(sent)
            if chance < 0.4:
                await asyncio.sleep(dice.choice([0, 0, 0.001, 0.005, 0.02]))
                writer.transport.abort()
                left["aborted"] += 1
            elif chance < 0.5:
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1 if chance < 0.45 else 40), 0.02)
                writer.close()
                left["closed"] += 1
            else:
                await asyncio.wait_for(reader.read(), PATIENCE)
                writer.close()
                left["stayed"] += 1

    with build_app(gate).run_in_thread(log_level="critical", access_log_to_std=False) as server:
        coming = iter([dice.choice(targets) for _ in range(STORM)])

        async def clients() -> None:
            for target in coming:
                await come_and_go(server, target)

        await asyncio.gather(*(clients() for _ in range(AT_ONCE)))
        assert min(left["aborted"], left["closed"], left["stayed"]) > STORM / 20
        await asyncio.sleep(0.5)  # what goes on without its client
        await hold_against_limits(server, gate)
