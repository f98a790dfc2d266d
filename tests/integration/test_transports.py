"""Where requests come in: TLS, HTTP/2, Unix sockets, inherited descriptors, reverse proxies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.integration.conftest import PATIENCE, Certificates, Child, Start, eventually

SHOP: Final = """
import asyncio, os, time
from aeros import WebServer
from quart import request

app = WebServer("shop", "127.0.0.1", 0)

@app.route("/pid")
async def pid():
    time.sleep(0.02)  # so that another worker takes the next connection
    return str(os.getpid())

@app.route("/client")
async def client():
    return f"{request.remote_addr} {request.scheme} {request.http_version}"

@app.route("/slow")
async def slow():
    print("begun", flush=True)
    await asyncio.sleep(1)
    return "whole"

"""
FORWARDED: Final = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


def write(folder: Path, arguments: str) -> None:
    """Writes a script that serves the shop."""
    (folder / "shop.py").write_text(f"{SHOP}if __name__ == '__main__':\n    app.run_server({arguments})\n")


def assert_workers_answer(client: httpx.Client, child: Child, workers: int) -> None:
    """Checks that so many processes answer: the one that was started, or others."""

    def ask(_: int) -> int:
        return int(client.get("/pid", headers={"Connection": "close"}).text)

    def found() -> set[int] | None:
        with ThreadPoolExecutor(8) as pool:
            pids = set(pool.map(ask, range(8)))
        return pids if len(pids) == workers else None

    assert (child.process.pid in eventually(found)) == (workers == 1)


def assert_ends_whole(client: httpx.Client, child: Child) -> None:
    """Ends the server while it answers: the answer comes, and the status is 0."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, "/slow")
        eventually(lambda: "begun" in child.stdout)
        child.send(signal.SIGTERM)
        assert answer.result(PATIENCE).text == "whole"
    assert child.wait() == 0
    assert "Traceback" not in child.stderr
    eventually(child.is_alone)


# TLS


@pytest.mark.parametrize("workers", [1, 2])
def test_tls(start: Start, tmp_path: Path, certificates: Certificates, workers: int) -> None:
    """The banner says https; who checks the certificate is answered, who speaks without TLS is not."""
    folder = certificates.folder
    write(
        tmp_path, f"workers={workers}, ssl_certfile='{folder}/server.pem', ssl_keyfile='{folder}/server.key'"
    )
    child = start("shop.py")
    url = child.url
    assert url.startswith("https://")
    with httpx.Client(base_url=url, verify=certificates.context(), timeout=PATIENCE) as client:
        assert_workers_answer(client, child, workers)
        assert client.get("/client").text == "127.0.0.1 https 1.1"
        # A proxy on this machine is believed.
        believed = client.get("/client", headers={**FORWARDED, "X-Forwarded-Proto": "http"})
        assert believed.text == "203.0.113.9 http 1.1"
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/client")
        assert_ends_whole(client, child)


def test_tls_on_asyncios_loop_ends_whole(start: Start, tmp_path: Path, certificates: Certificates) -> None:
    """Its transports can be asked nothing once they were closed twice: nobody must ask then."""
    folder = certificates.folder
    files = f"ssl_certfile='{folder}/server.pem', ssl_keyfile='{folder}/server.key'"
    write(tmp_path, f"loop='asyncio', timeout_graceful_shutdown=2, {files}")
    child = start("shop.py")
    address = ("127.0.0.1", child.port)
    with certificates.context().wrap_socket(
        socket.create_connection(address), server_hostname="127.0.0.1"
    ) as idle:
        idle.sendall(b"GET /client HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
        # It does not answer the end of TLS: the server goes on to ask it for its connection's end.
        assert child.stop() == 0
    assert "Traceback" not in child.stderr


def test_http2(start: Start, tmp_path: Path, certificates: Certificates) -> None:
    """Uvicorn's HTTP/2 passes through; TLS negotiates it, and a client without it gets HTTP/1.1."""
    folder = certificates.folder
    files = f"ssl_certfile='{folder}/server.pem', ssl_keyfile='{folder}/server.key'"
    write(tmp_path, f"http='zttp', http2=True, {files}")
    child = start("shop.py")
    for version, http2 in (("HTTP/2", True), ("HTTP/1.1", False)):
        context = certificates.context()
        with httpx.Client(base_url=child.url, http2=http2, verify=context, timeout=PATIENCE) as client:
            response = client.get("/client")
            assert response.http_version == version
            assert response.text == f"127.0.0.1 https {version.removeprefix('HTTP/')}"
            if not http2:
                assert_ends_whole(client, child)


# Unix sockets


def connect(path: Path) -> httpx.Client:
    """Returns a client of what listens at a path."""
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://shop", timeout=PATIENCE
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_unix_socket(start: Start, tmp_path: Path, workers: int) -> None:
    """A stale one is replaced, with its rights; a proxy that is trusted without an address is believed."""
    path = tmp_path / "shop.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    path.chmod(0o660)
    write(tmp_path, f"uds={str(path)!r}, workers={workers}, forwarded_allow_ips='*'")
    child = start("shop.py")
    child.says(f"Serving on unix socket {path} ")
    assert path.stat().st_mode & 0o777 == 0o660
    with connect(path) as client:
        assert_workers_answer(client, child, workers)
        assert client.get("/client").text == "<local> http 1.1"
        assert client.get("/client", headers=FORWARDED).text == "203.0.113.9 https 1.1"
        assert_ends_whole(client, child)
    assert not path.exists()
    assert ' - "GET /client HTTP/1.1" 200 ' in child.stdout


def test_unix_socket_that_another_server_has_taken_over_is_left_to_it(start: Start, tmp_path: Path) -> None:
    """The next version is started at the same path before the last one ends: the path stays."""
    path = tmp_path / "shop.sock"
    write(tmp_path, f"uds={str(path)!r}")
    children: list[Child] = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        children.append(start("../shop.py", folder=name))
        children[-1].says("Serving on unix socket")
    old, new = children
    assert old.stop() == 0
    with connect(path) as client:
        assert client.get("/pid").text == str(new.process.pid)
    assert new.stop() == 0
    assert not path.exists()


# Inherited descriptors


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket of the test's own that listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


@pytest.mark.parametrize("workers", [1, 2])
def test_inherited_descriptor(start: Start, tmp_path: Path, listener: socket.socket, workers: int) -> None:
    """Whoever has opened it keeps it: while no server runs clients wait, and the next one answers them."""
    number = listener.fileno()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    write(tmp_path, f"fd={number}, workers={workers}, forwarded_allow_ips='192.0.2.1'")
    child = start("shop.py", descriptors=[number])
    assert child.url == url
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        assert_workers_answer(client, child, workers)
        # It is no proxy that is trusted.
        assert client.get("/client", headers=FORWARDED).text == "127.0.0.1 http 1.1"
        assert_ends_whole(client, child)
    assert '127.0.0.1 "GET /client HTTP/1.1" 200 ' in child.stdout
    if workers == 2:
        return  # what waits in the queue does not know who will take it
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        waiting = pool.submit(client.get, "/client")
        (tmp_path / "next").mkdir()
        following = start("../shop.py", folder="next", descriptors=[number])
        assert waiting.result(PATIENCE).status_code == 200
        assert following.stop() == 0


# systemd gives the socket as descriptor 3. Its own tool to try that out is used as well where there is one.
EXEC: Final = "import os, sys; os.dup2({number}, 3); os.execv(sys.executable, [sys.executable, 'shop.py'])"
ACTIVATE: Final = (
    "import os, sys; os.execvp('systemd-socket-activate',"
    " ['systemd-socket-activate', '--listen=127.0.0.1:{port}', sys.executable, 'shop.py'])"
)
LAUNCHERS: Final = [(EXEC, 2), *([(ACTIVATE, 1)] if shutil.which("systemd-socket-activate") else [])]


@pytest.mark.parametrize(("launcher", "workers"), LAUNCHERS, ids=["exec", "tool"][: len(LAUNCHERS)])
def test_socket_of_systemd(
    start: Start, tmp_path: Path, listener: socket.socket, free_port: int, launcher: str, workers: int
) -> None:
    """``fd=3`` is the socket of the unit; the first request is what starts the server."""
    write(tmp_path, f"fd=3, workers={workers}")
    port = listener.getsockname()[1] if launcher == EXEC else free_port
    child = start(
        "-c",
        launcher.format(number=listener.fileno(), port=port),
        descriptors=[listener.fileno()],
        PATH=os.environ["PATH"],
    )

    def first() -> str | None:
        with suppress(httpx.ConnectError):
            return httpx.get(f"http://127.0.0.1:{port}/client", timeout=PATIENCE).text
        return None

    assert eventually(first) == "127.0.0.1 http 1.1"
    assert child.says(r"workers: (\d+);") == str(workers)
    assert child.stop() == 0
    eventually(child.is_alone)


# What can not be listened on


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("fd=0", "aeros: fd: can not listen on fd 0 (Socket operation on non-socket); "),
        (f"uds='{'x' * 108}'", "aeros: uds: can not listen on xxx"),
    ],
    ids=["fd", "uds"],
)
def test_what_can_not_be_listened_on_is_one_line(
    start: Start, tmp_path: Path, arguments: str, line: str, workers: int
) -> None:
    """A descriptor of something else, and a path that can not be bound."""
    write(tmp_path, f"{arguments}, workers={workers}")
    child = start("shop.py")
    assert child.wait() == 1
    (said,) = child.stderr.splitlines()
    assert said.startswith(line)
