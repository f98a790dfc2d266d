"""The page of metrics: what is counted, for one process and summed over workers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import prometheus_client
import psutil
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from quart import Response

from aeros import Cache, Gzip, RedisStore, WebServer
from tests.integration.conftest import PATIENCE, FickleRedis, eventually

CALLS = "aeros_cache_store_call_duration_seconds"

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def numbers(client: httpx.Client) -> Numbers:
    """Returns what the page of metrics says, once it was read as Prometheus reads it."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Numbers, name: str, **labels: str) -> float | None:
    """Returns one number; None where there is none with just these labels."""
    return found.get((name, frozenset(labels.items())))


@contextmanager
def serving(app: WebServer[Any], **options: Any) -> Generator[httpx.Client]:
    """Serves an application; gives a client of it."""
    with app.run_in_thread(**options) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def build_shop(**options: Any) -> WebServer[Any]:
    """Returns an application that is counted."""
    app = WebServer("shop", metrics="/metrics", **options)

    @app.route("/books/<int:number>")
    @app.cache(timeout=60)
    async def book(number: int) -> str:
        return f"book {number} " * 200

    @app.route("/private")
    @app.cache(timeout=60)
    async def private() -> Response:
        return Response("mine", headers={"Set-Cookie": "a=b"})

    @app.route("/plain/<name>", methods=["GET", "POST"])
    async def plain(name: str) -> str:
        return name

    @app.route("/error")
    async def error() -> str:
        raise ValueError("broken")

    return app


def test_requests_are_counted_by_method_rule_and_status() -> None:
    """Never by what a client wrote: a path that it has made up is no label."""
    app = build_shop()
    with serving(app) as client:
        for number in range(5):
            client.get(f"/books/{number}")
        for _ in range(5):
            client.get("/books/1")
        for name in ("a", "b", "c"):
            client.get(f"/plain/{name}")
            client.post(f"/plain/{name}")
            client.get(f"/missing/{name}")
        client.get("/error")
        client.head("/books/1")
        found = numbers(client)
        assert app.cache_stats().hits_by_door[1] >= 2
    requests = "aeros_http_requests_total"
    assert value(found, requests, method="GET", route="/books/<int:number>", status="2xx") == 10
    assert value(found, requests, method="HEAD", route="/books/<int:number>", status="2xx") == 1
    assert value(found, requests, method="GET", route="/plain/<name>", status="2xx") == 3
    assert value(found, requests, method="POST", route="/plain/<name>", status="2xx") == 3
    assert value(found, requests, method="GET", route="none", status="4xx") == 3
    assert value(found, requests, method="GET", route="/error", status="5xx") == 1
    routes = {dict(labels)["route"] for name, labels in found if name == requests}
    assert routes <= {"/books/<int:number>", "/plain/<name>", "/error", "none"}
    took = "aeros_http_request_duration_seconds"
    assert value(found, f"{took}_count", method="GET", route="/books/<int:number>") == 10
    assert value(found, f"{took}_bucket", method="GET", route="/books/<int:number>", le="+Inf") == 10
    assert 0 < (value(found, f"{took}_sum", method="GET", route="/plain/<name>") or 0) < 20
    assert value(found, "aeros_http_requests_in_progress") == 1  # this one
    assert value(found, "aeros_workers") == 1
    assert value(found, "aeros_log_lines_dropped_total") == 0


def test_every_door_is_counted() -> None:
    """By its number, and what was passed by with its reason."""
    app = build_shop()
    with serving(app) as client:
        for _ in range(6):
            client.get("/books/1")
        etag = client.get("/books/1").headers["etag"]
        assert client.get("/books/1", headers={"if-none-match": etag}).status_code == 304
        client.get("/private")
        found = numbers(client)
        doors = app.cache_stats().hits_by_door
    for door in (1, 2, 3):
        hits = value(found, "aeros_cache_requests_total", outcome="hit", door=str(door))
        assert hits == doors[door]
    assert doors[1] > 0
    assert value(found, "aeros_cache_requests_total", outcome="miss", door="3") == 2
    assert value(found, "aeros_cache_bypasses_total", reason="set-cookie") == 1
    assert value(found, "aeros_cache_stores_total") == 1
    requests = "aeros_http_requests_total"
    assert value(found, requests, method="GET", route="/books/<int:number>", status="2xx") == 7
    assert value(found, requests, method="GET", route="/books/<int:number>", status="3xx") == 1


async def test_door_2_is_counted_under_another_server() -> None:
    """There is no door 1 there; and some servers let methods through that a client has made up."""
    app = build_shop()
    client = app.test_client()
    for _ in range(5):
        await client.get("/books/1")
    await cast(Any, client).open("/plain/a", method="FROBNICATE")
    text = (await (await client.get("/metrics")).get_data(as_text=True)).splitlines()
    assert app.cache_stats().hits_by_door[2] >= 1
    assert 'aeros_http_requests_total{method="other",route="none",status="4xx"} 1.0' in text
    assert 'aeros_http_requests_total{method="GET",route="/books/<int:number>",status="2xx"} 5.0' in text


def test_the_bytes_of_codings_are_counted() -> None:
    """What went in and what came out: once for a cached response, and for a stream."""
    app = build_shop(compression=Gzip())

    @app.route("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"part " * 400

        return Response(parts(), content_type="text/plain")

    with serving(app) as client:
        length = len(client.get("/books/1").text)
        for _ in range(2):
            client.get("/books/1")
        before = numbers(client)
        client.get("/stream")
        after = numbers(client)
    taken, made = "aeros_compression_input_bytes_total", "aeros_compression_output_bytes_total"
    assert value(before, taken, coding="gzip") == length
    assert 0 < (value(before, made, coding="gzip") or 0) < length / 5
    assert value(after, taken, coding="gzip") == length + 20_000
    assert (value(before, made, coding="gzip") or 0) < (value(after, made, coding="gzip") or 0) < 4_000


def test_admission_is_counted() -> None:
    """Slots in use, those who wait for one, and those who were refused."""
    app = build_shop()

    @app.route("/wait")
    async def wait() -> str:
        await asyncio.sleep(0.6)
        return "waited"

    async def ask(url: str) -> tuple[str, list[int]]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            asked = [asyncio.ensure_future(client.get("/wait")) for _ in range(5)]
            await asyncio.sleep(0.3)
            page = (await client.get("/metrics")).text
            return page, sorted([(await one).status_code for one in asked])

    with app.run_in_thread(soft_limit=2, hard_limit=3) as server:
        page, statuses = asyncio.run(ask(server.url))
    assert statuses == [200, 200, 200, 503, 503]
    lines = page.splitlines()
    assert "aeros_admission_in_use 2.0" in lines
    assert "aeros_admission_waiting 1.0" in lines
    assert "aeros_admission_refused_total 2.0" in lines
    assert "aeros_http_requests_in_progress 4.0" in lines


def test_the_store_is_counted(fickle_redis: FickleRedis) -> None:
    """How long its calls take, how many fail, and whether it is asked at all."""
    store = RedisStore.from_url(fickle_redis.url)
    app = build_shop(cache=Cache(store, store_deadline_seconds=0.2))
    with serving(app) as client:
        client.get("/books/1")
        eventually(lambda: (value(numbers(client), f"{CALLS}_count", call="write") or 0) >= 1)
        found = numbers(client)
        assert (value(found, f"{CALLS}_count", call="read") or 0) >= 1
        assert 0 < (value(found, f"{CALLS}_sum", call="read") or 0) < 1
        assert value(found, "aeros_cache_store_away") == 0
        fickle_redis.kill()
        for number in range(10, 14):
            assert client.get(f"/books/{number}").status_code == 200
        found = numbers(client)
        assert value(found, "aeros_cache_store_away") == 1
        assert (value(found, "aeros_cache_store_errors_total") or 0) >= 3


def test_a_client_that_leaves_is_counted() -> None:
    """Its request has no status."""
    app = build_shop()
    begun: list[int] = []

    @app.route("/wait")
    async def wait() -> str:
        begun.append(1)
        await asyncio.sleep(30)
        return "waited"

    with app.run_in_thread() as server, httpx.Client(base_url=server.url, timeout=20) as client:
        with socket.create_connection((server.host, server.port)) as leaving:
            leaving.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: begun)
        labels = {"method": "GET", "route": "/wait", "status": "aborted"}
        eventually(lambda: value(numbers(client), "aeros_http_requests_total", **labels) == 1)


def test_prometheus_is_answered_in_the_form_that_it_asks_for() -> None:
    """OpenMetrics, or the text that it began with."""
    with serving(build_shop()) as client:
        client.get("/books/1")
        text = client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        answer = client.get("/metrics", headers={"accept": accept})
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        parse = cast(
            "Callable[[str], Iterator[Metric]]", cast(Any, openmetrics).text_string_to_metric_families
        )
        assert any(family.name == "aeros_http_requests" for family in parse(answer.text))
        assert client.head("/metrics").content == b""
        assert client.post("/metrics").status_code == 405


async def test_the_page_of_workers_does_not_wait_for_synchronous_views(tmp_path: Path) -> None:
    """They may have all threads of the loop, and take longer than Prometheus waits."""
    app, goes_on, began = build_shop(), threading.Event(), threading.Semaphore(0)

    @app.route("/sync")
    def sync() -> str:
        began.release()
        goes_on.wait(PATIENCE)
        return "done"

    threads = min(32, (os.cpu_count() or 1) + 4)  # of the loop's own pool
    with (
        cast(Any, app)._observer.sharing(str(tmp_path)),  # as in a worker
        app.run_in_thread(soft_limit=None, hard_limit=None) as server,
    ):
        async with httpx.AsyncClient(base_url=server.url, timeout=2 * PATIENCE) as client:
            asking = [asyncio.create_task(client.get("/sync")) for _ in range(threads + 5)]
            try:
                for _ in range(threads):
                    assert await asyncio.to_thread(began.acquire, timeout=PATIENCE)
                page = await client.get("/metrics")
                assert not goes_on.is_set()
                assert not any(task.done() for task in asking)
            finally:
                goes_on.set()
            assert page.status_code == 200
            assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}


def test_your_own_metrics_are_on_the_page_and_nobody_elses() -> None:
    """Two applications in a process share nothing, with each other or with the global registry."""
    one, other = build_shop(), build_shop()
    orders = prometheus_client.Counter("orders", "Orders.", ["kind"], registry=one.metrics_registry)
    again = prometheus_client.Counter("orders", "Orders.", ["kind"], registry=other.metrics_registry)
    orders.labels("book").inc(3)
    again.labels("book").inc(5)
    with serving(one) as first, serving(other) as second:
        first.get("/books/1")
        ours, theirs = numbers(first), numbers(second)
    assert (value(ours, "orders_total", kind="book"), value(theirs, "orders_total", kind="book")) == (3, 5)
    requests = {"method": "GET", "route": "/books/<int:number>", "status": "2xx"}
    assert value(theirs, "aeros_http_requests_total", **requests) is None
    assert "aeros_http_requests" not in prometheus_client.generate_latest().decode()


WORKERS = """
import os
import prometheus_client
from aeros import WebServer

app = WebServer(__name__, "127.0.0.1", 0, metrics="/metrics", cache=None)
orders = prometheus_client.Counter("orders", "Orders.", registry=app.metrics_registry)

@app.route("/pid")
async def pid():
    orders.inc()
    return str(os.getpid())

@app.route("/page")
@app.cache(timeout=60)
async def page():
    return "page"

if __name__ == "__main__":
    app.run_server(workers=2, access_log_to_std=False)
"""


class Served:
    """Two workers; each request opens a connection, so it is either of them that answers."""

    def __init__(self, folder: Path) -> None:
        script = folder / "counted.py"
        script.write_text(WORKERS)
        self._log = folder / "log.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        self.asked = 0
        self.answered: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Where they answer, once all do."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self._log.read_text()
            return re.search(r"Serving on (http://127\.0\.0\.1:\d+) ", self._log.read_text())

        return eventually(found)[1]

    def ask(self, times: int) -> None:
        """Asks so often, and remembers who answered."""
        for _ in range(times):
            with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
                worker = client.get("/pid").text
            self.asked += 1
            self.answered[worker] = self.answered.get(worker, 0) + 1

    def count(self) -> tuple[float, float]:
        """Returns how many requests the metrics count, and how many processes."""
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
            found = numbers(client)
        labels = {"method": "GET", "route": "/pid", "status": "2xx"}
        requests = value(found, "aeros_http_requests_total", **labels) or 0
        assert value(found, "orders_total") in (requests, None)
        return requests, value(found, "aeros_workers") or 0

    def kill(self) -> None:
        """Ends all of them."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Two workers that are counted."""
    started = Served(tmp_path)
    yield started
    started.kill()


def test_any_worker_tells_the_totals_of_all(served: Served, tmp_path: Path) -> None:
    """Also when one was killed and another one has taken its place: no counter goes back."""
    while len(served.answered) < 2:
        served.ask(10)
    eventually(lambda: served.count() == (served.asked, 2))
    time.sleep(0.6)  # what a worker has counted it has told by now, twice a second
    assert {served.count() for _ in range(20)} == {(served.asked, 2)}
    victim = max(served.answered, key=served.answered.__getitem__)
    os.kill(int(victim), signal.SIGKILL)
    seen: list[float] = []

    def is_replaced() -> bool:
        with suppress(httpx.HTTPError):  # a connection that nobody has taken from its queue
            requests, processes = served.count()
            seen.append(requests)
            workers = psutil.Process(served.process.pid).children()
            return processes == 2 and len(workers) >= 2 and int(victim) not in [one.pid for one in workers]
        return False

    eventually(is_replaced)
    assert set(seen) == {served.asked}
    before, newcomers = set(served.answered), dict[str, int]()
    while not newcomers:
        served.ask(10)
        newcomers = {pid: times for pid, times in served.answered.items() if pid not in before}
    eventually(lambda: served.count() == (served.asked, 2))
    served.process.send_signal(signal.SIGHUP)  # and when all of them are replaced
    before = set(served.answered)
    while not set(served.answered) - before:
        with suppress(httpx.HTTPError):
            served.ask(1)
        assert served.count()[0] <= served.asked
    eventually(lambda: served.count() == (served.asked, 2))
    assert list(tmp_path.glob("aeros-metrics-*"))
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0
    assert not list(tmp_path.glob("aeros-metrics-*"))
    assert tempfile.gettempdir() != str(tmp_path)
