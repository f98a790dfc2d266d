"""Clients of an application, and processes that tests start, take away and bring back."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import pytest
import redis

from tests.conftest import RedisProcess
from tests.integration.browser import Browse, browsing

T = TypeVar("T")

PATIENCE = 20.0
# The host is part of the key, and each worker has a port of its own.
FIELDS = {"host": "shop.example", "accept-encoding": "identity"}


def eventually(ask: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not true after {seconds} s: {answer!r}"
        time.sleep(0.02)


def check_strictly(folder: Path, sources: Sequence[str]) -> None:
    """Holds complete programs against mypy's strict mode, each in a file of its own in the folder."""
    files = [folder / f"program_{number}.py" for number in range(len(sources))]
    for file, source in zip(files, sources, strict=True):
        file.write_text(source)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict", *map(str, files)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


class Child:
    """A Python process in a session of its own, with what it printed.

    Args:
        folder: Its working directory, where what it prints is kept.
        arguments: Python's.
        descriptors: What it inherits, under the same numbers.
        environment: What else its environment has.
    """

    def __init__(
        self, folder: Path, *arguments: str, descriptors: Sequence[int] = (), **environment: str
    ) -> None:
        self.folder, self.out, self.err = folder, folder / "stdout.txt", folder / "stderr.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
                pass_fds=descriptors,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self.err.read_text()

    @property
    def url(self) -> str:
        """Where the banner says that it answers."""
        return self.says(r"Serving on (https?://127\.0\.0\.1:\d+) ")

    @property
    def port(self) -> int:
        """The port of its URL."""
        return int(self.url.rpartition(":")[2])

    def says(self, pattern: str) -> str:
        """Waits until it has said something on standard error; returns it, or the pattern's first group."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.stderr)
            if match is None and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.stderr}")
            return match

        match = eventually(found)
        return match[1] if match.re.groups else match[0]

    def get(self, path: str) -> httpx.Response:
        """Asks on a new connection, again until the server accepts it."""

        def response() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                return httpx.get(self.url + path, timeout=PATIENCE)
            return None

        return eventually(response)

    def pids(self, path: str = "/pid", *, workers: int) -> set[int]:
        """Returns the numbers of its workers, once that many have answered within one round."""

        def answered() -> set[int] | None:
            with ThreadPoolExecutor(8) as pool:
                found = {int(response.text) for response in pool.map(self.get, [path] * 8)}
            return found if len(found) == workers else None

        return eventually(answered)

    def send(self, number: int) -> None:
        """Sends it a signal, and none to those that it has started."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Waits until it has ended, and returns its exit status."""
        return self.process.wait(PATIENCE)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends it a signal and returns its exit status."""
        self.send(number)
        return self.wait()

    def is_alone(self) -> bool:
        """Tells whether no process of its session is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def kill(self) -> None:
        """Ends whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``python ARGUMENTS`` in the test's folder, or one in it; ends it with the test."""
    children: list[Child] = []

    def begin(
        *arguments: str, folder: str = "", descriptors: Sequence[int] = (), **environment: str
    ) -> Child:
        children.append(Child(tmp_path / folder, *arguments, descriptors=descriptors, **environment))
        return children[-1]

    yield begin
    for child in children:
        child.kill()


class Certificates:
    """An authority, and certificates of it for the server and for a client, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority"]
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *authority)
        (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        for name in ("server", "client"):
            request = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"]
            self._openssl("req", "-newkey", "rsa:2048", "-nodes", *request)
            extensions = ["-extfile", "server.ext"] if name == "server" else []
            signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", *extensions]
            self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        """What a client needs to trust the server, and to be trusted by it."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        # The authority was made in two lines, without the extensions that X.509 asks of one.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if client:
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, made once."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def browse() -> Iterator[Browse]:
    """Starts applications, and stops them when the test is over."""
    with browsing() as start:
        yield start


class FickleRedis:
    """A real Redis server that a test takes away and brings back on the same port."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._client = cast(Any, redis.Redis(port=port))
        self.start()

    def pause(self) -> None:
        """Makes it silent: connections stand, and are even accepted, but nothing is answered."""
        self._server.process.send_signal(signal.SIGSTOP)
        os.waitpid(self._server.process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Lets it go on where it was."""
        self._server.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Makes it refuse every connection; what it knew is lost."""
        self._server.stop()

    def start(self) -> None:
        """Starts it, empty."""
        self._server = RedisProcess(self._folder, self.port)
        self._server.wait_until_ready()

    def ask(self, *command: str | bytes | int) -> Any:
        """Returns its answer to a command."""
        return self._client.execute_command(*command)

    def listeners(self) -> int:
        """Returns how many connections are subscribed to a channel."""
        return len(self.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines())

    def names(self, pattern: str = "*") -> list[bytes]:
        """Returns the keys that match, sorted."""
        return sorted(cast("list[bytes]", self.ask("KEYS", pattern)))

    def dump(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, bool]]:
        """Returns the exact value of each key, and whether it has an end."""
        return {key: (self.ask("DUMP", key), self.ask("TTL", key) > 0) for key in keys}

    def close(self) -> None:
        """Ends it, whatever state it is in."""
        self._client.close()
        self.kill()


@pytest.fixture
def fickle_redis(tmp_path: Path, free_port: int) -> Iterator[FickleRedis]:
    """A real Redis server that answers until it is told otherwise."""
    fickle = FickleRedis(tmp_path, free_port)
    yield fickle
    fickle.close()


# What a worker serves; what it is told stands in SHOP.
SHOP = '''
import asyncio, json, os, resource, time
from pathlib import Path
from uuid import uuid4
from cachelib import FileSystemCache, RedisCache
from quart import Response, request
from aeros import Cache, RedisStore, WebServer

folder = Path(__file__).parent
runs = (folder / "runs").open("a", buffering=1)
told = json.loads(os.environ["SHOP"])
ahead = told.get("ahead", 0.0)
kind, _, where = told["store"].partition(":")
if kind == "redis":
    store = RedisStore.from_url(told["store"])
elif kind == "cachelib":
    store = RedisCache("127.0.0.1", int(where))
else:
    store = FileSystemCache(where)
cache = Cache(store, clock=lambda: time.time() + ahead, **told.get("cache", {}))
app = WebServer("shop", "127.0.0.1", 0, cache=cache)

async def made(name):
    """Writes down that a view runs, waits if it is held, and returns what no other run does."""
    run = f"{name} {uuid4().hex}"
    runs.write(f"{run} {os.getpid()}\\n")
    while os.path.exists(folder / f"hold-{name}"):
        await asyncio.sleep(0.01)
    return run

@app.route("/pages/<name>")
@app.cache(timeout=60, tags=lambda name: [f"page:{name}", "pages"])
async def page(name):
    return await made(name)

@app.route("/pages/<name>", methods=["POST"])
async def write(name):
    return "written"

@app.route("/brief/<name>")
@app.cache(timeout=1)
async def brief(name):
    return await made(name)

@app.route("/personal/<name>")
@app.cache(timeout=60)
async def personal(name):
    response = Response(await made(name))
    await asyncio.sleep(0.3)
    response.set_cookie("visitor", "1")
    return response

@app.route("/large/<name>")
@app.cache(timeout=60, query_string=True)
async def large(name):
    text = await made(name) + " "
    return text * (int(request.args["bytes"]) // len(text))

@app.route("/clear")
def clear():
    app.clear_cache()
    return "cleared"

@app.route("/evict")
async def evict():
    everything = "everything" in request.args
    await app.evict(everything=everything, tags=request.args.getlist("tags"), path=request.args.get("path"))
    return "evicted"

@app.route("/ahead")
async def set_clock():
    global ahead
    ahead = float(request.args["seconds"])
    return "set"

@app.route("/user")
async def set_user():
    os.seteuid(int(request.args["number"]))
    return "set"

@app.route("/stats")
async def stats():
    found = app.cache_stats()
    names = ("hits", "misses", "collapsed", "stores", "damaged", "store_errors", "evicted")
    return {name: getattr(found, name) for name in names} | {"pid": os.getpid()}

if __name__ == "__main__":
    if "largest_file" in told:
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["largest_file"],) * 2)
    app.run_server(
        workers=told.get("workers", 1), soft_limit=None, hard_limit=None, access_log_to_std=False
    )
'''


class Worker:
    """An application in a process of its own."""

    def __init__(self, folder: Path, number: int, told: dict[str, object], wrapper: Sequence[str]) -> None:
        self._log = folder / f"log-{number}.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AEROS_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, str(folder / "shop.py")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, "SHOP": json.dumps(told)},
                start_new_session=True,
            )
        self._client: httpx.Client | None = None

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it answers, once it does."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return re.search(r"Serving on (http://127\.0\.0\.1:\d+) ", self.log)

        return eventually(found)[1]

    @property
    def client(self) -> httpx.Client:
        """A client of it alone."""
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, headers=FIELDS, timeout=PATIENCE)
        return self._client

    def get(self, path: str) -> str:
        """Returns the body of what must be a success."""
        response = self.client.get(path)
        assert response.status_code == 200, self.log
        return response.text

    def stats(self) -> dict[str, int]:
        """Returns its counters."""
        return cast("dict[str, int]", json.loads(self.get("/stats")))

    def kill(self) -> None:
        """Ends it without a chance to tidy up, and whatever it has started."""
        if self.process.returncode is None:  # else its number may be another one's by now
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
        if self._client is not None:
            self._client.close()

    def stop(self) -> int:
        """Asks it to end, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Workers:
    """Starts processes that serve the same shop, and knows which views ran in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: list[Worker] = []
        (folder / "shop.py").write_text(SHOP)

    def start(self, *, store: str, wrapper: Sequence[str] = (), **told: object) -> Worker:
        """Starts one more.

        Args:
            store: ``redis://...``, ``cachelib:PORT`` or ``files:FOLDER``.
            wrapper: A command that runs another one.
            told: What else the script is told.
        """
        worker = Worker(self._folder, len(self._workers), {"store": store, **told}, wrapper)
        self._workers.append(worker)
        return worker

    def runs(self, name: str) -> list[tuple[str, int]]:
        """Returns the body that each run of a page's view made, and the process in which it ran."""
        written = self._folder / "runs"
        lines = written.read_text().splitlines() if written.exists() else []
        found = [line.rpartition(" ") for line in lines if line.startswith(f"{name} ")]
        return [(run, int(pid)) for run, _, pid in found]

    def hold(self, name: str) -> Path:
        """Makes the views of a page wait until the file that is returned is gone."""
        path = self._folder / f"hold-{name}"
        path.touch()
        return path

    def kill(self) -> None:
        """Ends all of them."""
        for worker in self._workers:
            worker.kill()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Starts processes, and ends them with the test."""
    started = Workers(tmp_path)
    yield started
    started.kill()
