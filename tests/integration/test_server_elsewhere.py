"""The same application under servers that aeros does not run: the uvicorn command, Hypercorn and Granian."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import cast

import httpx
import pytest

DEADLINE_SECONDS = 20.0

SHOP = """\
import asyncio
import time
from email.utils import formatdate
from dependency_injector import providers
from aeros import Container, WebServer, inject
from aeros.containers import RequestScoped

class Visit:
    pass

async def open_visit():
    yield Visit()
    note("visit over")

def note(text):
    with open("noted", "a") as file:
        file.write(text + "\\n")

async def open_books():
    note("books opened")
    yield "the books"
    note("books closed")

class Shop(Container):
    books = providers.Resource(open_books)
    visit = RequestScoped(open_visit)

app = WebServer("shop", global_headers={"X-Shop": "open"}, container=Shop())
app.container.config.soft_limit.from_value(2)
app.container.config.hard_limit.from_value(3)
made = 0

@app.route("/injected")
async def injected(books=inject(Shop.books), visit=inject(Shop.visit), same=inject(Shop.visit)):
    return f"{books} {visit is same}"

@app.route("/held")
async def held():
    await asyncio.sleep(0.4)
    return "held"

@app.after_serving
async def end():
    note("after serving")

@app.route("/cached/<name>")
@app.cache(60)
async def cached(name):
    global made
    made += 1
    return f"{made} " + "compressible " * 100

@app.route("/dated")
@app.cache(60)
async def dated():
    date = formatdate(time.time() - 10, usegmt=True)
    return "dated", 200, {"Date": date, "X-Made": date}

@app.route("/plain")
async def plain():
    return "compressible " * 100

@app.route("/own")
async def own():
    return "x", 200, {"X-Shop": "the view's"}

@app.route("/boom")
async def boom():
    raise ValueError("broken view")
"""
COMMANDS = {
    "uvicorn": ("uvicorn", "shop:app", "--host", "127.0.0.1", "--port", "{port}"),
    "granian": ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "shop:app"),
    "hypercorn": ("hypercorn", "shop:app", "--bind", "127.0.0.1:{port}"),
}
# Cached paths that no other test has asked for, in whatever order tests run.
NAMES = count()


@contextmanager
def serving(server: str, folder: Path) -> Generator[httpx.Client]:
    """Runs the application under another server in another process, and gives a client of it."""
    (folder / "shop.py").write_text(SHOP)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [argument.format(port=port) for argument in COMMANDS[server]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AEROS_")}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Accept-Encoding": ""}) as client:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not is_up(client):
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
        process.terminate()
        process.wait(DEADLINE_SECONDS)
        # Whoever serves it, what was opened is closed, and last.
        noted = (folder / "noted").read_text().splitlines()
        assert noted[0] == "books opened"
        assert noted[-2:] == ["after serving", "books closed"]
    finally:
        process.terminate()  # hypercorn's own process ends the one that serves, if it is let
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEADLINE_SECONDS)
        process.kill()
        process.wait()


# Not one fixture with parameters: in random order pytest would start it again and again.


@pytest.fixture(scope="module")
def under_uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the application under the uvicorn command."""
    with serving("uvicorn", tmp_path_factory.mktemp("uvicorn")) as client:
        yield client


@pytest.fixture(scope="module")
def under_hypercorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the application under the hypercorn command."""
    with serving("hypercorn", tmp_path_factory.mktemp("hypercorn")) as client:
        yield client


@pytest.fixture(scope="module")
def under_granian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the application under the granian command."""
    with serving("granian", tmp_path_factory.mktemp("granian")) as client:
        yield client


@pytest.fixture(params=sorted(COMMANDS))
def client(request: pytest.FixtureRequest) -> httpx.Client:
    """A client of the application under each server."""
    return cast(httpx.Client, request.getfixturevalue(f"under_{request.param}"))


def is_up(client: httpx.Client) -> bool:
    """Whether the server answers."""
    with suppress(httpx.TransportError):
        client.get("/plain")
        return True
    return False


def test_second_request_is_a_hit(client: httpx.Client) -> None:
    """The view runs once, and the response says what the cache did."""
    path = f"/cached/{next(NAMES)}"
    miss, hit = client.get(path), client.get(path)
    assert miss.status_code == hit.status_code == 200
    assert hit.text == miss.text
    assert miss.headers["Cache-Status"] == "aeros; fwd=miss; stored"
    assert hit.headers["Cache-Status"].startswith("aeros; hit; ttl=")
    assert "Age" not in miss.headers
    assert hit.headers["Age"].isdecimal()
    assert hit.headers["ETag"] == miss.headers["ETag"]


def test_exactly_one_date_on_misses_and_hits(client: httpx.Client) -> None:
    """The server writes a Date of its own, so a stored one must not stand beside it."""
    path = f"/cached/{next(NAMES)}"
    for _ in range(3):
        assert len(client.get(path).headers.get_list("Date")) == 1
    assert len(client.get(path, headers={"If-None-Match": "*"}).headers.get_list("Date")) == 1


def test_date_of_the_view_is_not_repeated_on_hits(client: httpx.Client) -> None:
    """A view's own Date is stored; on a hit the server's, which is now, is the only one."""
    client.get("/dated")
    hit = client.get("/dated")
    assert hit.headers["Cache-Status"].startswith("aeros; hit")
    (date,) = hit.headers.get_list("Date")
    assert date != hit.headers["X-Made"]
    assert int(hit.headers["Age"]) >= 10


def test_if_none_match_is_answered_with_304(client: httpx.Client) -> None:
    """The tag that the cache made is one it knows again."""
    path = f"/cached/{next(NAMES)}"
    tag = client.get(path).headers["ETag"]
    response = client.get(path, headers={"If-None-Match": tag})
    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["ETag"] == tag


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_response_is_compressed_as_the_client_asks(client: httpx.Client, coding: str) -> None:
    """Misses, hits and routes that are not cached alike."""
    path = f"/cached/{next(NAMES)}"
    for target in (path, path, "/plain"):
        response = client.get(target, headers={"Accept-Encoding": coding})
        assert response.headers["Content-Encoding"] == coding
        assert int(response.headers["Content-Length"]) < len(response.text)
        assert response.text.endswith("compressible " * 100)
        assert "Accept-Encoding" in response.headers["Vary"]
    assert "Content-Encoding" not in client.get(path).headers


@pytest.mark.parametrize(
    ("path", "status"), [("/plain", 200), ("/cached/x", 200), ("/nothing", 404), ("/boom", 500)]
)
def test_global_headers_are_on_every_response(client: httpx.Client, path: str, status: int) -> None:
    """Once each, on hits and errors too."""
    for _ in range(2):
        response = client.get(path)
        assert response.status_code == status
        assert response.headers.get_list("X-Shop") == ["open"]


def test_a_header_of_the_views_wins(client: httpx.Client) -> None:
    """A global header stands in for what the view did not set."""
    assert client.get("/own").headers.get_list("X-Shop") == ["the view's"]


def test_values_are_injected(client: httpx.Client) -> None:
    """Resources are open before the first request; what belongs to a request is one for all of it."""
    assert client.get("/injected").text == "the books True"


def test_limits_hold(client: httpx.Client) -> None:
    """Two are handled, one waits, and the others are told at once to come again."""
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=client.base_url, timeout=20) as many:
        responses = list(pool.map(many.get, ["/held"] * 8))
    refused = [response for response in responses if response.status_code == 503]
    assert sorted({response.status_code for response in responses}) == [200, 503]
    assert len(refused) == 5
    assert all(response.headers["Retry-After"].isdecimal() for response in refused)
    assert client.get("/held").text == "held"
