"""Logs of real server processes, on real files, pipes and full disks: each request one line."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from aeros import WebServer
from tests.integration.conftest import eventually

PATIENCE_SECONDS = 30.0
PATH = re.compile(r'"GET (\S+) HTTP/1\.1" 200 ')

SHOP = """\
import logging, os, sys
from aeros import WebServer
from quart import request

app = WebServer("shop", "127.0.0.1", 0)

@app.route("/pid")
async def pid():
    return str(os.getpid())

@app.route("/said/<name>")
async def said(name):
    app.logger.info("said %s", name)
    return "said"

@app.route("/livez")
@app.cache(60)
async def livez():
    return "alive"

@app.route("/header")
async def header():
    app.logger.warning("header %s", request.headers.get("X-Text"))
    return "read"

@app.route("/text", methods=["POST"])
async def text():
    app.logger.error("text %s", (await request.get_data()).decode("utf-8", "surrogateescape"))
    raise ValueError((await request.get_data()).decode("latin-1"))

@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
async def anything(path):
    return "x"

@app.after_serving
async def end():
    app.logger.info("last words of %d", os.getpid())

if __name__ == "__main__":
    app.run_server(timeout_keep_alive=60, ARGUMENTS)
"""


class Shop:
    """A server in a process of its own, in a folder with its logs.

    Args:
        folder: Its working directory.
        arguments: What ``run_server()`` is given.
        stdout: Where its standard output goes; None: to a file.
    """

    def __init__(self, folder: Path, arguments: str, stdout: int | None = None) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(SHOP.replace("ARGUMENTS", arguments))
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "shop.py"],
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return (self.folder / "err").read_text()

    @property
    def port(self) -> int:
        """Where it answers, once it does."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.err
            return re.search(r"Serving on http://127\.0\.0\.1:(\d+) ", self.err)

        return int(eventually(found)[1])

    def lines(self, *names: str) -> list[str]:
        """Returns the lines of some of its files that are there."""
        files = [self.folder / name for name in names]
        return [line for file in files if file.exists() for line in file.read_text().splitlines()]

    def stop(self) -> int:
        """Asks it to end, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Ends it, and whatever it has started."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_SECONDS)


Open = Callable[..., Shop]


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Open]:
    """Starts servers, and ends them with the test."""
    shops: list[Shop] = []

    def begin(arguments: str, stdout: int | None = None) -> Shop:
        shops.append(Shop(tmp_path, arguments, stdout))
        return shops[-1]

    yield begin
    for shop in shops:
        shop.kill()


def connect(shop: Shop, *, workers: int) -> list[HTTPConnection]:
    """Returns connections, eight or more, and at least one to each worker."""
    port = shop.port
    found: dict[HTTPConnection, str] = {}

    def all_are_met() -> bool:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            found[connection] = ask(connection, "/pid")
        except OSError:  # no worker listens yet
            connection.close()
            time.sleep(0.02)
        return len(found) >= 8 and len(set(found.values())) == workers

    eventually(all_are_met)
    return list(found)


def ask(connection: HTTPConnection, path: str) -> str:
    """Returns the body of what must be a success."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status == 200
    return body


@contextmanager
def load(connections: Sequence[HTTPConnection], paths: Sequence[str]) -> Generator[None]:
    """Asks for all paths while the context lasts, each once, over all connections at a time."""
    failed: list[Exception] = []

    def ask_for(number: int) -> None:
        try:
            for path in paths[number :: len(connections)]:
                ask(connections[number], path)
        except Exception as error:  # noqa: BLE001 - the test fails for it, where it is seen
            failed.append(error)

    threads = [threading.Thread(target=ask_for, args=(number,)) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()
    assert failed == []


# Rotation


def is_filled(file: Path) -> bool:
    """Tells whether there is enough in a file to rotate it."""
    return file.exists() and file.stat().st_size > 20_000


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("workers", [1, 2])
def test_rotation_under_load_loses_and_doubles_nothing(
    open_shop: Open, tmp_path: Path, workers: int, log_format: str
) -> None:
    """Both files are moved away three times meanwhile; each request has one line in all of them together."""
    shop = open_shop(
        f"workers={workers}, log_format={log_format!r}, access_log_file='access.log',"
        " access_log_to_std=False, error_log_file='error.log'"
    )
    paths = [f"/said/{number}-{'x' * (number % 300)}" for number in range(2_000)]
    connections = connect(shop, workers=workers)
    with load(connections, paths):
        for turn in range(1, 4):
            for name in ("access.log", "error.log"):
                eventually(partial(is_filled, tmp_path / name))
                (tmp_path / name).rename(tmp_path / f"{name}.{turn}")
    assert shop.stop() == 0
    for turn in range(1, 4):
        assert shop.lines(f"access.log.{turn}")
    access = shop.lines("access.log", *(f"access.log.{turn}" for turn in range(1, 4)))
    error = shop.lines("error.log", *(f"error.log.{turn}" for turn in range(1, 4)))
    if log_format == "json":
        asked = [cast(str, json.loads(line)["path"]) for line in access]
        said = [cast(str, json.loads(line)["message"]) for line in error]
    else:
        asked = [cast("re.Match[str]", PATH.search(line))[1] for line in access]
        said = [line.partition("INFO: ")[2] for line in error]
    assert Counter(path for path in asked if path != "/pid") == Counter(paths)
    expected = Counter(f"said {path.removeprefix('/said/')}" for path in paths)
    assert Counter(text for text in said if text.startswith("said ")) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_words_are_written(open_shop: Open, workers: int) -> None:
    """What is logged at the very end of serving is in the file, of each worker, and on standard error."""
    shop = open_shop(f"workers={workers}, access_log_to_std=False, error_log_file='error.log'")
    connections = connect(shop, workers=workers)
    pids = {ask(connection, "/pid") for connection in connections}
    for connection in connections:
        connection.close()
    assert shop.stop() == 0
    for lines in (shop.lines("error.log"), shop.lines("err")):
        assert {line.rpartition(" ")[2] for line in lines if "last words" in line} == pids


# A disk that is full, and a pipe that nobody reads


def test_a_full_disk_is_told_once_and_costs_no_request(open_shop: Open, tmp_path: Path) -> None:
    """The full disk is a real one; when there is room again, the lines that waited are written."""
    (tmp_path / "access.log").symlink_to("/dev/full")
    shop = open_shop("access_log_file='access.log', access_log_to_std=False")
    paths = [f"/{number}" for number in range(200)]
    with load(connect(shop, workers=1), paths):
        eventually(lambda: "No space left on device" in shop.err)
    (tmp_path / "access.log").unlink()
    eventually(lambda: "is written again" in shop.err)
    assert shop.stop() == 0
    assert shop.err.count("access_log_file") == 2
    (failed,) = [line for line in shop.err.splitlines() if "No space left on device" in line]
    assert failed.endswith(
        "ERROR: access_log_file 'access.log' can not be written (No space left on device);"
        " lines wait until it can, and are dropped when too many do"
    )
    assert "access_log_file 'access.log' is written again; no line was lost" in shop.err
    asked = [cast("re.Match[str]", PATH.search(line))[1] for line in shop.lines("access.log")]
    assert Counter(path for path in asked if path != "/pid") == Counter(paths)


def test_a_disk_that_becomes_full_in_the_middle_of_a_line(open_shop: Open, tmp_path: Path) -> None:
    """The line is ended when there is room again: every line is whole, and there once."""
    shop = open_shop("access_log_file='access.log', access_log_to_std=False, log_format='json'")
    connections = connect(shop, workers=1)
    unlimited = resource.prlimit(shop.process.pid, resource.RLIMIT_FSIZE)
    full = (tmp_path / "access.log").stat().st_size + 10_001
    resource.prlimit(shop.process.pid, resource.RLIMIT_FSIZE, (full, unlimited[1]))
    paths = [f"/{number}" for number in range(500)]
    with load(connections, paths):
        eventually(lambda: "File too large" in shop.err)
    assert (tmp_path / "access.log").stat().st_size == full
    resource.prlimit(shop.process.pid, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: "no line was lost" in shop.err)
    assert shop.stop() == 0
    asked = [cast(str, json.loads(line)["path"]) for line in shop.lines("access.log")]
    assert Counter(path for path in asked if path != "/pid") == Counter(paths)


def test_an_error_log_on_a_full_disk_is_told_on_standard_error(open_shop: Open, tmp_path: Path) -> None:
    """Once, and everything else goes on."""
    (tmp_path / "error.log").symlink_to("/dev/full")
    shop = open_shop("error_log_file='error.log', access_log_file='access.log', access_log_to_std=False")
    paths = [f"/said/{number}" for number in range(100)]
    with load(connect(shop, workers=1), paths):
        eventually(lambda: "error_log_file" in shop.err)
    assert shop.stop() == 0
    told = [line.partition("error_log_file")[2] for line in shop.err.splitlines() if "error_log" in line]
    assert told[0].startswith(" 'error.log' can not be written (No space left on device)")
    assert re.fullmatch(r" 'error\.log': \d+ lines were dropped when serving ended", told[1])
    assert len(told) == 2
    assert shop.err.count("INFO: said ") == len(paths)
    assert len([line for line in shop.lines("access.log") if "/said/" in line]) == len(paths)


def test_a_pipe_that_nobody_reads_holds_up_no_request(open_shop: Open) -> None:
    """Lines wait up to a bound; what is dropped is counted, and told when the pipe is read again."""
    reader, writer = os.pipe()
    shop = open_shop("access_log_file='access.log'", stdout=writer)
    os.close(writer)
    paths = [f"/{number}-{'x' * 8_000}" for number in range(1_500)]
    # More than the pipe and the queue take together: whoever wrote at once would hang here.
    with load(connect(shop, workers=1), paths):
        pass
    in_file = eventually(lambda: lines if len(lines := file_paths(shop)) >= len(paths) else None)
    assert Counter(in_file) == Counter(paths)
    read: list[bytes] = []

    def read_all() -> None:
        while chunk := os.read(reader, 65_536):
            read.append(chunk)

    reading = threading.Thread(target=read_all)
    reading.start()
    told = re.compile(r"WARNING: standard output: (\d+) lines were dropped, they came too fast")
    eventually(lambda: told.search(shop.err))
    assert shop.stop() == 0
    reading.join(PATIENCE_SECONDS)
    os.close(reader)
    dropped = sum(int(count) for count in told.findall(shop.err))
    lines = [line for line in b"".join(read).decode().splitlines() if "/pid" not in line]
    printed = [cast("re.Match[str]", PATH.search(line))[1] for line in lines]
    assert dropped > 0
    assert len(printed) + dropped == len(paths)
    assert len(set(printed)) == len(printed)
    assert set(printed) <= set(paths)


def test_a_pipe_that_nobody_reads_does_not_keep_the_server_from_ending(open_shop: Open) -> None:
    """Both standard streams hang; it ends all the same, and the file has everything."""
    reader, writer = os.pipe()
    shop = open_shop("access_log_file='access.log'", stdout=writer)
    os.close(writer)
    paths = [f"/{number}-{'x' * 8_000}" for number in range(100)]
    with load(connect(shop, workers=1), paths):
        pass
    assert shop.stop() == 0
    os.close(reader)
    assert Counter(file_paths(shop)) == Counter(paths)
    assert re.search(r"standard output: \d+ lines were dropped when serving ended", shop.err)


def file_paths(shop: Shop) -> list[str]:
    """Returns what the access log's file says was asked for, once its lines are whole."""
    found = [PATH.search(line) for line in shop.lines("access.log")]
    return [match[1] for match in found if match is not None and match[1] != "/pid"]


# Who asked, and for what


@contextmanager
def logged(app: WebServer, file: Path, **options: Any) -> Generator[str]:
    """Serves an application whose access log is a file, as JSON; gives its address."""
    with app.run_in_thread(access_log_file=str(file), log_format="json", **options) as server:
        yield server.url


def build_app() -> WebServer:
    """Returns an application with a probe that is cached, and one page."""
    app = WebServer("probed")

    @app.route("/livez")
    @app.cache(60)
    async def livez() -> str:
        return "alive"

    @app.route("/page")
    async def page() -> str:
        return "page"

    return app


def accesses(file: Path) -> list[dict[str, object]]:
    """Returns the objects of an access log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "client"),
    [
        ({}, "203.0.113.7"),
        ({"forwarded_allow_ips": "10.0.0.1"}, "127.0.0.1"),
        ({"forwarded_allow_ips": ""}, "127.0.0.1"),
        ({"proxy_headers": False}, "127.0.0.1"),
        ({"forwarded_allow_ips": "127.0.0.1,203.0.113.7"}, "198.51.100.9"),
        ({"http": "h11"}, "203.0.113.7"),
        ({"http": "h11", "forwarded_allow_ips": "10.0.0.1"}, "127.0.0.1"),
    ],
)
def test_the_client_of_a_proxy_is_believed_to_a_trusted_one_only(
    tmp_path: Path, options: dict[str, object], client: str
) -> None:
    """Also where the answer is one of door 1, the second time."""
    file = tmp_path / "access.log"
    headers = {"X-Forwarded-For": "198.51.100.9, 203.0.113.7"}
    with logged(build_app(), file, **options) as url:
        for _ in range(3):
            assert httpx.get(url + "/livez", headers=headers).status_code == 200
    assert [entry["client"] for entry in accesses(file)] == [client] * 3


@pytest.mark.parametrize("http", ["auto", "h11"])
def test_probes_are_kept_out(tmp_path: Path, http: str) -> None:
    """By their exact path, with or without a query, cached or not; whatever looks like them has its line."""
    file = tmp_path / "access.log"
    with logged(build_app(), file, access_log_exclude=["/livez", "/caf\xe9"], http=http) as url:
        for path in (
            "/livez",
            "/livez",
            "/livez?a=1",
            "/livez/",
            "/page",
            "/livez2",
            "/caf%C3%A9",
            "/a/livez",
        ):
            httpx.get(url + path)
        httpx.head(url + "/livez")
    assert [entry["path"] for entry in accesses(file)] == ["/livez/", "/page", "/livez2", "/a/livez"]


def test_what_the_server_refuses_itself_has_its_line(tmp_path: Path) -> None:
    """Where uvicorn's ``limit_concurrency`` is reached, the application is not asked."""
    file = tmp_path / "access.log"
    with logged(build_app(), file, limit_concurrency=1, access_log_exclude=["/livez"]) as url:
        assert [httpx.get(url + path).status_code for path in ("/page", "/livez")] == [503, 503]
    assert [(entry["path"], entry["status"], entry["cache"]) for entry in accesses(file)] == [
        ("/page", 503, None)
    ]


def test_two_applications_in_a_process_keep_their_logs_apart(tmp_path: Path) -> None:
    """Each has its files and threads, and no thread is left when they have stopped."""
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    with logged(build_app(), one, error_log_file=tmp_path / "one.err") as first:
        with logged(build_app(), two, error_log_file=tmp_path / "two.err") as second:
            httpx.get(first + "/page?first")
            httpx.get(second + "/page?second")
        httpx.get(first + "/page?later")
    assert [entry["path"] for entry in accesses(one)] == ["/page?first", "/page?later"]
    assert [entry["path"] for entry in accesses(two)] == ["/page?second"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("aeros-log")]


# What clients send to make a mess of it

ATTACKS = (
    b"/a%0d%0aforged%1b[2J",
    b'/a"%20500%200"',
    b"/a\\x1b",
    b"/a\x1b[31mred",
    b"/a\x7f",
    b"/caf\xc3\xa9\xff",
    b"/a?b=\x00c",
    b"/a?b=%00%0a\xe2\x80\xa8",
    b"/" + b"x" * 20_000,
)


def send(port: int, request: bytes) -> bytes:
    """Returns the status line of the answer to the bytes of a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(request)
        answer = b""
        while b"\r\n" not in answer and (more := client.recv(65_536)):
            answer += more
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("http", ["auto", "h11"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_that_a_client_sends_breaks_a_line(open_shop: Open, log_format: str, http: str) -> None:
    """In its path, its fields, its body that is logged, and the message of an exception."""
    shop = open_shop(
        f"log_format={log_format!r}, http={http!r}, access_log_file='access.log', error_log_file='error.log',"
        " traceback=False"
    )
    port = shop.port
    answered = 0
    for path in ATTACKS:
        status = send(port, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        # A parser refuses some, and then there is no request; for the router some are no known path.
        assert status.split(b" ")[1] in (b"200", b"404", b"400", b"431"), status
        answered += status.split(b" ")[1] in (b"200", b"404")
    assert answered >= 4
    field = (
        b'X-Forwarded-For: 1.1.1.1 "GET /forged HTTP/1.1" 200 \xff\x85\tx\r\nX-Text: \xe9\x85\x9b\ta"b\\\r\n'
    )
    send(port, b"GET /header HTTP/1.1\r\nHost: a\r\n" + field + b"Connection: close\r\n\r\n")
    body = '\r\n[2026-01-01 00:00:00,000] INFO: forged\x1b[2J\x00\x7f\u2028\u202e\x85"\\'.encode() + b"\xff\n"
    head = f"POST /text HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    assert send(port, head.encode() + body).split(b" ")[1] == b"500"
    assert shop.stop() == 0
    files = ("access.log", "error.log", "out", "err")
    for name in files:
        raw = (shop.folder / name).read_bytes()
        assert raw.endswith(b"\n")
        text = raw.decode("utf-8")
        assert not re.search(r"[^\n\x20-\x7e\xa1-\U0010ffff]", text), name
        assert "\u2028" not in text
        assert "\u202e" not in text
        for line in raw.decode().splitlines():
            if log_format == "json":
                assert isinstance(json.loads(line), dict)
            else:
                assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] [A-Z]+: ", line)
    assert len(shop.lines("access.log")) == len(shop.lines("out")) == answered + 2
    assert shop.lines("error.log") == shop.lines("err")
    for begin in ("text ", "Exception on request POST", "header "):
        said = [
            line for line in shop.lines("error.log") if re.search(f'(ERROR|WARNING): {begin}|"{begin}', line)
        ]
        assert len(said) == 1
