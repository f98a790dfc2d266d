"""Clients that come all at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import httpx
import psutil
import pytest

from aeros import WebServer
from aeros.serving.options import ThreadOptions

CLIENTS = 32
TURNS = 8


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_many_are_accepted_in_one_turn_of_the_loop(loop: str) -> None:
    """Not one in each: the turns of a busy server are long."""
    app = WebServer(__name__)
    may_connect, are_there = threading.Event(), threading.Event()
    opened: list[socket.socket] = []

    @app.route("/")
    async def view() -> dict[str, int]:
        before = psutil.Process().num_fds()
        may_connect.set()
        assert are_there.wait(20)  # the loop stands still, and they queue up
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return {"accepted": psutil.Process().num_fds() - before - len(opened)}

    def connect(port: int) -> None:
        may_connect.wait(20)
        opened.extend(socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS))
        are_there.set()

    options: ThreadOptions = {"loop": loop}
    with app.run_in_thread(**options) as server:
        clients = threading.Thread(target=connect, args=(server.port,))
        clients.start()
        accepted = httpx.get(server.url, timeout=30).json()["accepted"]
        clients.join()
        for client in opened:
            client.close()
    assert accepted == CLIENTS


def test_all_listeners_are_closed_with_the_server() -> None:
    """Nobody gets in afterwards, and no descriptor is left."""
    app = WebServer(__name__)
    with app.run_in_thread():
        pass  # what a first server leaves behind is left once
    before = psutil.Process().num_fds()
    with app.run_in_thread() as server:
        httpx.get(server.url)
    deadline = time.monotonic() + 20
    while psutil.Process().num_fds() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert psutil.Process().num_fds() <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
