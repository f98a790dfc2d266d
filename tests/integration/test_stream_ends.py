"""Streams come to their end, whoever closes the connection meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from aeros import WebServer
from aeros.serving.ending import Connections
from tests.integration.wire import OWN, listening

REQUEST: Final = b"GET /%b HTTP/1.1\r\nHost: a.example\r\n\r\n"
END: Final = b"\r\n0\r\n\r\n"


def build() -> WebServer:
    """Returns an application that streams, and one view that keeps all others waiting."""
    app = WebServer("streams")

    @app.route("/stream")
    async def stream() -> tuple[AsyncIterator[bytes], int]:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(5):
                yield b"part%d;" % number

        return parts(), 200

    @app.route("/busy")
    async def busy() -> str:
        time.sleep(0.15)  # noqa: ASYNC251 - nobody else gets a turn, on purpose
        return "busy"

    return app


def read_all(client: socket.socket) -> bytes:
    """Returns all that a server says."""
    client.settimeout(20)
    said = b""
    while data := client.recv(65_536):
        said += data
    return said


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stream_for_a_client_that_says_no_more(loop: str) -> None:
    """Its end of the connection is closed with its request: what the turn holds is written all the same."""
    with build().run_in_thread(loop=loop) as server:
        for _ in range(3):
            address = "127.0.0.1", server.port
            with socket.create_connection(address) as first, socket.create_connection(address) as client:
                time.sleep(0.02)
                first.sendall(REQUEST % b"busy")
                time.sleep(0.03)
                client.sendall(REQUEST % b"stream")
                client.shutdown(socket.SHUT_WR)
                said = read_all(client)
            assert said.count(b"part") == 5
            assert said.endswith(END)


async def test_stream_at_the_end_of_which_idle_connections_are_closed() -> None:
    """In the very turn of its last parts: they are written before."""
    app = WebServer("streams")

    @app.route("/stream")
    async def stream() -> tuple[AsyncIterator[bytes], int]:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_soon(Connections(connections).close_idle)
            yield b"second"
            yield b"third"

        return parts(), 200

    connections: set[Any] = set()
    async with listening(app, OWN) as server:
        reader, writer, connection = await server.connect()
        connections.add(connection.protocol)
        writer.write(REQUEST % b"stream")
        said = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert b"third" in said
    assert said.endswith(END)
