"""The container's resources while an application is served: in threads, in processes, in workers."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from dependency_injector import providers

from aeros import Container, StartupError, WebServer, inject
from aeros.errors import ResourceError
from aeros.testing import override
from tests.conftest import RunScript
from tests.integration.conftest import PATIENCE, eventually

Log = list[str]


class Pool:
    """What a resource gives; it can be asked whether it works."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open = True
        self.is_broken = False

    async def ping(self) -> None:
        """Raises where it does not work."""
        if self.is_broken:
            raise OSError("gone away")


def open_settings(log: Log) -> Generator[str]:
    """A sync resource."""
    log.append("open settings")
    yield "settings"
    log.append("close settings")


async def open_pool(log: Log, settings: str) -> AsyncGenerator[Pool]:
    """An async one, which needs the sync one."""
    log.append(f"open pool of {settings}")
    pool = Pool("pool")
    yield pool
    pool.is_open = False
    log.append("close pool")


class AppContainer(Container):
    log: providers.Provider[Log] = providers.Singleton(list)
    # Named so that the order of their names is not the order in which they need each other.
    a_pool: providers.Provider[Pool] = providers.Resource(
        open_pool, log, settings=providers.Resource(open_settings, log)
    )


def shop(container: AppContainer | None = None) -> WebServer[AppContainer]:
    """An application that asks its pool."""
    app = WebServer(__name__, container=container or AppContainer())

    @app.route("/")
    async def view(pool: Pool = inject(AppContainer.a_pool)) -> str:
        return f"{pool.name} {pool.is_open}"

    return app


@contextmanager
def serving(app: WebServer[Any]) -> Generator[httpx.Client]:
    """A client of the running application."""
    with app.run_in_thread() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def test_resources_are_open_while_the_application_is_served() -> None:
    """They are opened before anything else begins, and closed when everything has ended."""
    app = shop()
    log = app.container.log()

    @app.before_serving
    async def before(pool: Pool = inject(AppContainer.a_pool)) -> None:
        log.append(f"before {pool.is_open}")

    @app.after_serving
    async def after(pool: Pool = inject(AppContainer.a_pool)) -> None:
        log.append(f"after {pool.is_open}")

    begun = ["open settings", "open pool of settings", "before True"]
    for _ in range(2):
        log.clear()
        with serving(app) as client:
            assert log == begun
            assert client.get("/").text == "pool True"
        assert log == [*begun, "after True", "close pool", "close settings"]


def test_a_background_task_has_its_resources_until_it_ends() -> None:
    """Quart waits for it when serving ends; the pool is closed after that."""
    app = shop()
    log = app.container.log()

    async def job(pool: Pool = inject(AppContainer.a_pool)) -> None:
        await asyncio.sleep(0.2)
        log.append(f"job {pool.is_open}")

    @app.route("/job")
    async def begin() -> str:
        app.add_background_task(job)
        return ""

    with serving(app) as client:
        client.get("/job")
    assert log[2:] == ["job True", "close pool", "close settings"]


def test_a_fake_in_place_of_a_resource_is_not_opened() -> None:
    """Nor what only the resource needed."""
    app = shop()
    with override(app.container.a_pool, Pool("fake")), serving(app) as client:
        assert client.get("/").text == "fake True"
    assert app.container.log() == []


def test_a_resource_that_was_opened_before_is_left_open() -> None:
    """Whoever has opened it closes it."""
    app = shop()
    resource = app.container.a_pool
    assert isinstance(resource, providers.Resource)
    settings: Any = resource.kwargs["settings"]
    settings.init()
    with serving(app) as client:
        assert client.get("/").text == "pool True"
    assert app.container.log() == ["open settings", "open pool of settings", "close pool"]
    settings.shutdown()


def test_a_start_that_fails_elsewhere_closes_the_resources() -> None:
    """A function that runs before serving raises; nothing stays open."""
    app = shop()

    @app.before_serving
    async def before() -> None:
        raise ValueError("not ready")

    with pytest.raises(StartupError), app.run_in_thread():
        raise AssertionError("it has started")
    assert app.container.log()[2:] == ["close pool", "close settings"]


class FailingContainer(AppContainer):
    """A container whose last resource does not open."""

    @staticmethod
    def open_index(pool: Pool) -> str:
        """Raises, having what it needs."""
        raise OSError("no\nindex")

    index = providers.Resource(open_index, AppContainer.a_pool)


def test_a_resource_that_fails_stops_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The caller of ``run_in_thread()`` is told; those before it are closed; one line says why."""
    app = shop(FailingContainer())
    problem = "the resource 'index' did not open: OSError('no\\nindex')"
    with pytest.raises(StartupError) as caught, app.run_in_thread():
        raise AssertionError("it has started")
    assert str(caught.value) == f"aeros: the application did not start: {problem}"
    assert app.container.log()[2:] == ["close pool", "close settings"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [problem]


def test_a_start_that_fails_without_a_word_is_told_by_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """An error without a text; somebody has to say something."""
    app = shop()

    @app.before_serving
    async def before() -> None:
        raise ValueError

    with pytest.raises(StartupError, match="its log says why"), app.run_in_thread():
        raise AssertionError("it has started")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines[1:] == ["Application startup failed. Exiting."]
    assert "ValueError" in caplog.text  # Quart's own line, which is the first


async def test_a_resource_that_fails_is_an_error_of_startup() -> None:
    """For those who start an application in a test, without a server."""
    app = shop(FailingContainer())
    with pytest.raises(ResourceError, match="'index'") as caught:
        await app.startup()
    assert isinstance(caught.value.__cause__, OSError)
    assert app.container.log()[2:] == ["close pool", "close settings"]


async def test_quarts_test_application_opens_resources() -> None:
    """``app.test_app()`` is a start and an end without a server."""
    app = shop()
    async with app.test_app() as test_app:
        response = await test_app.test_client().get("/")
        assert await response.get_data() == b"pool True"
    assert app.container.log()[2:] == ["close pool", "close settings"]


def test_health_is_that_of_the_resources() -> None:
    """A view for readiness asks them; one that is broken is named with what is wrong."""
    app = shop()

    @app.route("/ready")
    async def ready(pool: Pool = inject(AppContainer.a_pool)) -> tuple[dict[str, str | None], int]:
        health = await app.check_health()
        return health, 503 if any(health.values()) else 200

    @app.route("/break")
    async def break_(pool: Pool = inject(AppContainer.a_pool)) -> str:
        pool.is_broken = True
        return ""

    with serving(app) as client:
        response = client.get("/ready")
        assert (response.status_code, response.json()) == (200, {"a_pool": None})
        client.get("/break")
        response = client.get("/ready")
        assert (response.status_code, response.json()) == (503, {"a_pool": "OSError('gone away')"})


async def test_health_of_what_is_not_served_is_empty() -> None:
    """Nothing is open, and nothing is opened by being asked."""
    app = shop()
    assert await app.check_health() == {}
    assert app.container.log() == []


# Processes

SHOP = """\
import os, sys, time
from pathlib import Path
from dependency_injector import providers, resources
from aeros import Container, WebServer, inject

def write(line):
    with (Path(__file__).parent / f"log-{os.getpid()}").open("a") as log:
        log.write(line + "\\n")

def open_files():
    write("open files")
    yield "files"
    write("close files")

class Index(resources.AsyncResource):
    async def init(self, files):
        write(f"open index of {files}")
        return "index"
    async def shutdown(self, index):
        write(f"close {index}")

async def open_pool(index):
    FAIL
    write(f"open pool of {index}")
    yield "pool"
    write("close pool")

class ShopContainer(Container):
    files = providers.Resource(open_files)
    index = providers.Resource(Index, files)
    pool = providers.Resource(open_pool, index)

app = WebServer("shop", "127.0.0.1", 0, container=ShopContainer())

@app.route("/")
async def view(pool: str = inject(ShopContainer.pool)):
    time.sleep(0.05)  # holds up this worker, so that another one takes the next connection
    return f"{os.getpid()} {pool}"

if __name__ == "__main__":
    app.run_server(workers=int(sys.argv[1]), access_log_to_std=False)
"""
FAILING = SHOP.replace("FAIL", 'raise OSError("no database\\nat all")')
OPENED = ["open files", "open index of files", "open pool of index"]
CLOSED = ["close pool", "close index", "close files"]


class Served:
    """A process that serves the shop, with what it said."""

    def __init__(self, folder: Path, workers: int) -> None:
        (folder / "shop.py").write_text(SHOP.replace("FAIL", "pass"))
        self._said = folder / "said.txt"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "shop.py", str(workers)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        """Where it answers, once it does."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self._said.read_text()
            return re.search(r"Serving on (http://127\.0\.0\.1:\d+) ", self._said.read_text())

        return eventually(found)[1]

    def get(self, _number: int = 0) -> tuple[int, str]:
        """Returns which process answers on a new connection, and what its view has."""

        def answer() -> httpx.Response | None:
            with suppress(httpx.TransportError):  # the workers are not there yet
                return httpx.get(self.url, timeout=PATIENCE)
            return None

        number, _, pool = eventually(answer).text.partition(" ")
        return int(number), pool

    def stop(self) -> int:
        """Asks it to end, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[int], Served]]:
    """Starts the shop with this many workers; ends it with the test."""
    started: list[Served] = []

    def begin(workers: int) -> Served:
        started.append(Served(tmp_path, workers))
        return started[-1]

    yield begin
    for served in started:
        served.kill()


def logs(folder: Path) -> dict[int, list[str]]:
    """What each process has written down."""
    return {int(path.name[4:]): path.read_text().splitlines() for path in folder.glob("log-*")}


def test_a_process_opens_and_closes_its_resources(serve: Callable[[int], Served], tmp_path: Path) -> None:
    """In the order in which they need each other, and back, when it is asked to end."""
    served = serve(1)
    pid, pool = served.get()
    assert (pid, pool) == (served.process.pid, "pool")
    assert logs(tmp_path) == {pid: OPENED}
    assert served.stop() == 0
    assert logs(tmp_path) == {pid: OPENED + CLOSED}


def test_each_worker_opens_and_closes_its_own(serve: Callable[[int], Served], tmp_path: Path) -> None:
    """The parent, which serves nothing, opens none."""
    served = serve(2)
    pids: set[int] = set()

    def count_after_asking() -> int:
        with ThreadPoolExecutor(8) as pool:
            pids.update(pid for pid, _ in pool.map(served.get, range(8)))
        return len(pids)

    eventually(lambda: count_after_asking() == 2)
    assert logs(tmp_path) == dict.fromkeys(pids, OPENED)
    assert served.process.pid not in pids
    assert served.stop() == 0
    assert logs(tmp_path) == dict.fromkeys(pids, OPENED + CLOSED)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_whose_resource_fails_ends_with_an_error(
    run_script: RunScript, tmp_path: Path, workers: int
) -> None:
    """One line names the resource and the error; there is no traceback; what was open is closed."""
    done = run_script(FAILING, str(workers), timeout=60)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert "startup failed" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "resource" in line]
    # The first worker that fails ends them all: another may not have got as far as to say so.
    assert 1 <= len(lines) <= workers
    for line in lines:
        assert line.endswith(r"ERROR: the resource 'pool' did not open: OSError('no database\nat all')")
    assert [*logs(tmp_path).values()].count([*OPENED[:2], *CLOSED[1:]]) >= len(lines)
