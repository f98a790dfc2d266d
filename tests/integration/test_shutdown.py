"""The end of a server: what is finished, what is told, what is cut off, and that it comes."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.conftest import Child, Start, eventually

SHOP: Final = """
import asyncio, os, threading, time
from dependency_injector import providers
from quart import websocket
from aeros import Container, WebServer

async def open_books():
    yield "books"
    app.logger.info("the books are closed")

class Shop(Container):
    books = providers.Resource(open_books)

app = WebServer("shop", "127.0.0.1", 0, container=Shop())

async def ticks(last=None):
    try:
        while True:
            yield "data: tick\\n\\n"
            await asyncio.sleep(last or 3600)
    finally:
        app.logger.info("the ticks are closed")

EVENTS = {"Content-Type": "text/event-stream"}

@app.route("/events")
async def events():
    async def stream():
        async for tick in app.until_shutdown(ticks()):
            yield tick
        yield "data: bye\\n\\n"
    return stream(), EVENTS

@app.route("/waiting")
async def waiting():
    async def stream():
        yield "data: waiting\\n\\n"
        await app.shutdown_event.wait()
        yield f"data: {app.shutdown_event.is_set()}\\n\\n"
    return stream(), EVENTS

@app.route("/deaf")
async def deaf():
    return ticks(0.05), EVENTS

@app.route("/slow")
async def slow():
    print("begun", flush=True)
    await asyncio.sleep(1)
    return "slow and whole"

@app.route("/")
async def index():
    return "open"

@app.websocket("/chat")
async def chat():
    while True:
        await websocket.send(await websocket.receive())

@app.after_serving
async def end():
    app.logger.info("after serving")

"""


def serve(arguments: str, more: str = "") -> str:
    """Returns a script that serves the shop, with more in it."""
    return f"{SHOP}{more}\nif __name__ == '__main__':\n    app.run_server({arguments})\n"


class Client:
    """A connection by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.received = b""

    def ask(self, path: str) -> Client:
        """Sends a request."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        return self

    def read_until(self, end: bytes) -> bytes:
        """Reads until there is this text, and returns all that came since the last time."""
        while end not in self.received:
            data = self.socket.recv(65536)
            assert data, self.received
            self.received += data
        found, self.received = self.received, b""
        return found

    def read_rest(self) -> bytes:
        """Reads until the server ends the connection in whatever way."""
        found, self.received = self.received, b""
        with suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                found += data
        return found


@contextmanager
def clients(port: int, *paths: str) -> Generator[list[Client]]:
    """Connections on which these are asked for, one on each."""
    with ExitStack() as stack:
        found = [Client(port) for _ in paths]
        for client, path in zip(found, paths, strict=True):
            stack.callback(client.socket.close)
            client.ask(path)
        yield found


@pytest.mark.parametrize("workers", [1, 2])
def test_the_end_is_told_to_all_and_loses_nothing(start: Start, tmp_path: Path, workers: int) -> None:
    """Streams say good-bye, requests end, the idle get a last answer; all is closed and written."""
    (tmp_path / "shop.py").write_text(serve(f"workers={workers}, error_log_file='error.log'"))
    child = start("shop.py")
    port = child.port
    paths = ("/events", "/waiting", "/slow", "/", "/", "/events")
    with clients(port, *paths) as asking, connect(f"ws://127.0.0.1:{port}/chat") as chat:
        events, waiting, slow, idle, quiet, also = asking
        chat.send("hello")
        assert chat.recv() == "hello"
        events.read_until(b"data: tick\n\n\r\n")
        also.read_until(b"data: tick\n\n\r\n")
        waiting.read_until(b"data: waiting\n\n\r\n")
        for client in (idle, quiet):
            assert b"connection: close" not in client.read_until(b"open").lower()
        eventually(lambda: "begun" in child.stdout)
        child.send(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            chat.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        # In the second that an idle connection has, a request that was on its way is answered.
        # Its answer says that it is the last one, once this worker was told to stop, as the other one was.
        asked = 1
        while b"connection: close\r\n" not in idle.ask("/").read_until(b"\r\n\r\nopen").lower():
            asked += 1
            time.sleep(0.01)
        assert idle.read_rest() == b""
        for client in (events, also):
            assert b"data: bye\n\n" in (farewell := client.read_rest())
            assert farewell.endswith(b"0\r\n\r\n")
        assert b"data: True\n\n" in waiting.read_rest()
        whole = slow.read_rest()
        assert whole.startswith(b"HTTP/1.1 200 ")
        assert whole.endswith(b"slow and whole")
        assert quiet.read_rest() == b""
        assert child.wait() == 0
    eventually(child.is_alone)
    log = (tmp_path / "error.log").read_text()
    for said, times in (
        ("the ticks are closed", 2),
        ("after serving", workers),
        ("the books are closed", workers),
    ):
        assert child.stderr.count(said) == log.count(said) == times, child.stderr
    assert log.index("after serving") < log.index("the books are closed")
    assert not re.search("ERROR|WARNING|Traceback|Cut off", child.stderr), child.stderr
    served = [line for line in child.stdout.splitlines() if line.startswith("[")]
    assert len(served) == len(paths) + asked


def test_what_goes_on_is_cut_off_with_one_line(start: Start, tmp_path: Path) -> None:
    """A stream that does not listen is ended after ``timeout_graceful_shutdown``; the status is still 0."""
    (tmp_path / "shop.py").write_text(serve("timeout_graceful_shutdown=1"))
    child = start("shop.py")
    with clients(child.port, "/deaf") as (deaf,):
        deaf.read_until(b"data: tick\n\n\r\n")
        assert child.stop() == 0
        assert not deaf.read_rest().endswith(b"0\r\n\r\n")
    assert re.findall("Cut off .*", child.stderr) == [
        "Cut off 1 requests and 1 connections that had not ended within timeout_graceful_shutdown=1 seconds"
    ]
    assert child.stderr.count("the ticks are closed") == 1
    assert child.stderr.count("the books are closed") == 1
    assert "Traceback" not in child.stderr


# A second and a third signal


def test_a_second_signal_is_faster(start: Start, tmp_path: Path) -> None:
    """Where the first one waits for ever, the second one ends what is open, closes all, and ends with 0."""
    (tmp_path / "shop.py").write_text(serve("workers=2, timeout_graceful_shutdown=None"))
    child = start("shop.py")
    with clients(child.port, "/deaf") as (deaf,):
        deaf.read_until(b"data: tick\n\n\r\n")
        child.send(signal.SIGTERM)
        child.says("Waiting for 1 requests to end; a second signal ends them now")
        assert child.process.poll() is None
        assert child.stop() == 0
    assert re.findall("Cut off .*", child.stderr) == [
        "Cut off 1 requests and 1 connections that had not ended when a second signal came"
    ]
    assert child.stderr.count("the books are closed") == 2


STUBBORN: Final = """
@app.route("/stubborn")
async def stubborn():
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("cancelled", flush=True)

@app.route("/thread")
async def thread():
    print("begun", flush=True)
    await asyncio.to_thread(time.sleep, 3600)

@app.route("/blocking")
async def blocking():
    print("begun", flush=True)
    time.sleep(3600)
"""
UNCLOSED: Final = """
async def open_ledger():
    yield "ledger"
    await asyncio.sleep(3600)

app.container.ledger = providers.Resource(open_ledger)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_third_signal_ends_whatever_is_there(start: Start, tmp_path: Path, workers: int) -> None:
    """A thread can not be cancelled: neither the first one nor the second one ends it."""
    script = serve(f"workers={workers}, timeout_graceful_shutdown=None", STUBBORN)
    (tmp_path / "shop.py").write_text(script)
    child = start("shop.py")
    with clients(child.port, "/thread"):
        eventually(lambda: "begun" in child.stdout)
        child.send(signal.SIGTERM)
        child.says("Waiting for 1 requests to end")
        child.send(signal.SIGTERM)
        child.says("Cut off 1 requests")
        assert child.stop() == (-signal.SIGTERM if workers == 1 else 1)
    eventually(child.is_alone)


# A bound

# By what is in the way: the path that is asked for, the number of workers, the exit status, what is logged.
IN_THE_WAY: Final = {
    "cancellation is ignored": ("/stubborn", 1, 0, "Left behind 1 tasks that do not end when cancelled"),
    "a thread": (
        "/thread",
        1,
        1,
        r"The process has not ended 11 seconds .*; still there: MainThread, (uvloop|asyncio)_0",
    ),
    "a thread of a worker": ("/thread", 2, 1, r"The process has not ended 11 seconds .*(uvloop|asyncio)_0"),
    "the loop": ("/blocking", 1, 1, "The process has not ended 11 seconds"),
    "the loop of a worker": ("/blocking", 2, 1, "The process has not ended 11 seconds"),
    "a resource": ("/", 1, 1, "The process has not ended 11 seconds"),
    # This one is not told to end by a signal: it has served its number.
    "a thread, and no signal": (
        "/thread",
        1,
        1,
        r"The process has not ended 11 seconds .*(uvloop|asyncio)_0",
    ),
}


def has_begun(child: Child) -> bool:
    """Tells whether a view that says so runs."""
    return "begun" in child.stdout


def test_whatever_is_in_the_way_the_process_ends(start: Start, tmp_path: Path) -> None:
    """All of them at once, because each takes its time: one second of grace and ten for closing."""
    children: dict[str, Child] = {}
    with ExitStack() as stack:
        for number, (case, (_, workers, _, _)) in enumerate(IN_THE_WAY.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            more = STUBBORN + (UNCLOSED if case == "a resource" else "")
            arguments = f"workers={workers}, timeout_graceful_shutdown=1"
            if case.endswith("no signal"):
                arguments += ", limit_max_requests=1"
            (folder / "shop.py").write_text(serve(arguments, more))
            children[case] = start("shop.py", folder=str(number))
        for case, (path, _, _, _) in IN_THE_WAY.items():
            (client,) = stack.enter_context(clients(children[case].port, path))
            if path == "/":
                client.read_until(b"open")
            else:
                eventually(partial(has_begun, children[case]))
        began = time.monotonic()
        for case, child in children.items():
            if case.endswith("no signal"):
                (client,) = stack.enter_context(clients(child.port, "/"))
                client.read_until(b"open")
            else:
                child.send(signal.SIGTERM)
        for case, (_, _, status, line) in IN_THE_WAY.items():
            child = children[case]
            assert child.wait() == status, f"{case}: {child.stderr}"
            assert re.search(line, child.stderr), f"{case}: {child.stderr}"
            eventually(child.is_alone)
    assert time.monotonic() - began < 25
