"""Ids of requests, the paths of probes, and Server-Timing, on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cachelib import SimpleCache
from dependency_injector import providers
from quart import Response, websocket

from aeros import Cache, Container, RedisStore, WebServer, current_request_id
from aeros.errors import InvalidSettingError, InvalidVariableError, MissingExtraError, StartupError
from aeros.serving.options import ThreadOptions
from tests.integration.conftest import FickleRedis, eventually

NEW_ID = re.compile("[0-9a-f]{32}")


@contextmanager
def serving(app: WebServer[Any], **options: Any) -> Generator[httpx.Client]:
    """Serves an application; gives a client of it."""
    with app.run_in_thread(**options) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def build_shop(**options: Any) -> WebServer[Any]:
    """Returns an application with all kinds of answers."""
    app = WebServer("shop", **options)

    @app.route("/page")
    @app.cache(timeout=60)
    async def page() -> str:
        return "page " * 200

    @app.route("/plain")
    async def plain() -> dict[str, str | None]:
        app.logger.info("looking")
        logging.getLogger("aeros.cache").warning("said by a room")
        return {"id": current_request_id(), "thread": await asyncio.to_thread(current_request_id)}

    @app.route("/sync")
    def sync() -> str:
        return str(current_request_id())

    @app.route("/own")
    @app.cache(timeout=60)
    async def own() -> Response:
        return Response("own", headers={"X-Request-ID": "of-the-view"})

    @app.route("/error")
    async def error() -> str:
        raise ValueError("broken")

    @app.route("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            await asyncio.sleep(0.01)
            yield str(current_request_id()).encode()

        return Response(parts(), content_type="application/octet-stream")

    return app


# Ids


def test_every_response_tells_the_id_of_its_request() -> None:
    """At all doors, whatever became of the request; the client's own where it is well formed."""
    app = build_shop(request_ids=True)
    with serving(app) as client:
        seen: list[str] = []

        def ask(path: str, status: int, **headers: str) -> None:
            given = client.get(path, headers={**headers, "x-request-id": "mine-1"})
            made = client.get(path, headers=headers)
            assert (given.status_code, made.status_code) == (status, status)
            assert given.headers.get_list("x-request-id") == ["mine-1"]
            (found,) = made.headers.get_list("x-request-id")
            assert NEW_ID.fullmatch(found)
            seen.append(found)

        for _ in range(4):
            ask("/page", 200)
        etag = client.get("/page").headers["etag"]
        ask("/page", 304, **{"if-none-match": etag})
        ask("/plain", 200)
        ask("/error", 500)
        ask("/missing", 404)
        for _ in range(4):
            ask("/own", 200)
        ask("/stream", 200)
        assert len(set(seen)) == len(seen)
        assert client.head("/page", headers={"x-request-id": "h"}).headers["x-request-id"] == "h"
    doors = app.cache_stats().hits_by_door
    assert doors[1] > 0
    assert doors[3] > 0


def test_a_hit_of_door_2_tells_it_too() -> None:
    """Under another server, and behind a middleware."""
    app = build_shop(request_ids=True)

    async def ask(path: str, *ids: bytes) -> tuple[int, list[bytes]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"shop.example"), *((b"x-request-id", one) for one in ids)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await app(scope, receive, send)
        headers = sent[0]["headers"]
        return sent[0]["status"], [value for name, value in headers if name == b"x-request-id"]

    async def ask_all() -> None:
        for number in range(5):
            assert await ask("/page", b"mine-%d" % number) == (200, [b"mine-%d" % number])
        status, (found,) = await ask("/page", b"a", b"b")
        assert status == 200
        assert NEW_ID.fullmatch(found.decode())

    asyncio.run(ask_all())
    assert app.cache_stats().hits_by_door[2] >= 3

    inner = app.asgi_app

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app.asgi_app = middleware  # type: ignore[method-assign]
    before = app.cache_stats().hits_by_door[2]
    asyncio.run(ask_all())
    assert app.cache_stats().hits_by_door[2] > before


@pytest.mark.parametrize(
    "lines",
    [
        b"X-Request-ID: a\r\nX-Request-ID: b\r\n",
        b"X-Request-ID: a b\r\n",
        b"X-Request-ID: \r\n",
        b"X-Request-ID: " + b"a" * 129 + b"\r\n",
        b"X-Request-ID: <script>\r\n",
        b"X-Request-ID: \xff\xfe\r\n",
    ],
)
def test_what_is_not_well_formed_gets_a_new_id(lines: bytes) -> None:
    """On the wire, on a route that is answered by door 1 as well."""
    app = build_shop(request_ids=True)
    asked = b"GET /page HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"
    with app.run_in_thread() as server, socket.create_connection((server.host, server.port)) as client:
        seen: set[bytes] = set()
        for _ in range(5):
            client.sendall(asked)
            data = b""
            while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 1000:
                data += client.recv(65536)
            (found,) = re.findall(rb"(?im)^x-request-id: (.*)\r$", data)
            assert NEW_ID.fullmatch(found.decode())
            seen.add(found)
        assert len(seen) == 5
    assert app.cache_stats().hits_by_door[1] >= 2


def test_ids_are_off_by_default() -> None:
    """Then nobody is told one, and what a client gives means nothing."""
    with serving(build_shop()) as client:
        answer = client.get("/plain", headers={"x-request-id": "mine"})
    assert "x-request-id" not in answer.headers
    assert answer.json() == {"id": None, "thread": None}


def test_the_id_is_that_of_the_request_wherever_its_code_runs() -> None:
    """In views, threads, streams and websockets; and not in the next request."""
    app = build_shop(request_ids=True)

    @app.websocket("/socket")
    async def echo() -> None:
        await websocket.send(str(current_request_id()))

    with serving(app) as client:
        headers = {"x-request-id": "mine"}
        assert client.get("/plain", headers=headers).json() == {"id": "mine", "thread": "mine"}
        assert client.get("/sync", headers=headers).text == "mine"
        assert client.get("/stream", headers=headers).text == "one mine"
        assert client.get("/sync").text != "mine"

    async def ask_socket() -> None:
        client: Any = app.test_client()
        async with client.websocket("/socket", headers={"X-Request-ID": "ws-1"}) as connection:
            assert await connection.receive() == "ws-1"

    asyncio.run(ask_socket())


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_logs_tell_it(tmp_path: Path, log_format: Any) -> None:
    """Each line of the access log, door 1 included, and each record, those of the rooms included."""
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    app = build_shop(request_ids=True)
    options: ThreadOptions = {
        "access_log_file": str(access),
        "error_log_file": str(errors),
        "log_format": log_format,
    }
    with serving(app, **options) as client:
        ids = [f"id-{number}" for number in range(8)]
        for one in ids[:5]:
            client.get("/page", headers={"x-request-id": one})
        client.get("/plain", headers={"x-request-id": ids[5]})
        client.get("/error", headers={"x-request-id": ids[6]})
        made = client.get("/missing").headers["x-request-id"]
    assert app.cache_stats().hits_by_door[1] >= 1
    lines, records = access.read_text().splitlines(), errors.read_text().splitlines()
    if log_format == "json":
        assert [json.loads(line)["request_id"] for line in lines] == [*ids[:7], made]
        told = {json.loads(line)["message"]: json.loads(line).get("request_id") for line in records}
        assert told["looking"] == told["said by a room"] == "id-5"
        assert told["Exception on request GET /error"] == "id-6"
    else:
        assert [line.split()[-1] for line in lines] == [*ids[:7], made]
        assert [line.rsplit(" ", 2)[1:] for line in records if "looking" in line] == [["looking", "[id-5]"]]
        assert any(line.endswith("said by a room [id-5]") for line in records)
        assert any(line.endswith("Exception on request GET /error [id-6]") for line in records)


def test_a_logger_of_your_own_has_it_on_its_records() -> None:
    """``record.request_id``, for a formatter of yours."""
    logger, lines = logging.Logger("mine"), list[object]()  # noqa: LOG001 - it is nobody else's

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.getMessage(), getattr(record, "request_id", "lacks it")))

    logger.addHandler(Keeping())
    app = build_shop(request_ids=True)
    app.logger = logger
    with serving(app) as client:
        client.get("/plain", headers={"x-request-id": "mine"})
    assert ("looking", "mine") in lines
    assert logger.filters == []


def test_a_refused_request_has_an_id() -> None:
    """503 by hard_limit, and by uvicorn's own limit."""
    app = WebServer("full", request_ids=True, livez="/livez", readyz="/readyz")

    @app.route("/wait")
    async def wait() -> str:
        await asyncio.sleep(0.5)
        return "waited"

    async def ask_twice(url: str, path: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            first = asyncio.ensure_future(client.get("/wait"))
            await asyncio.sleep(0.2)
            return [
                await client.get(path),
                await client.get("/livez"),
                await client.get("/readyz"),
                await first,
            ]

    with app.run_in_thread(soft_limit=1, hard_limit=1) as server:
        refused, alive, ready, first = asyncio.run(ask_twice(server.url, "/wait"))
    assert [refused.status_code, first.status_code] == [503, 200]
    # Probes take no slot and wait for none.
    assert [alive.status_code, ready.status_code] == [200, 200]
    assert NEW_ID.fullmatch(refused.headers["x-request-id"])
    with app.run_in_thread(limit_concurrency=1) as server:
        refused, *_ = asyncio.run(ask_twice(server.url, "/wait"))
    assert refused.status_code == 503
    assert NEW_ID.fullmatch(refused.headers["x-request-id"])


def test_ids_work_on_uvicorns_other_protocol() -> None:
    """On h11 the application is asked for everything."""
    with serving(build_shop(request_ids=True, server_timing=True), http="h11") as client:
        for _ in range(3):
            answer = client.get("/page", headers={"x-request-id": "mine"})
            assert answer.headers["x-request-id"] == "mine"
            assert answer.headers["server-timing"].startswith("total;dur=")


# Probes


def test_probes_are_answered_before_everything_else() -> None:
    """No hook, no coding, no cache; HEAD as GET without its body; nothing else than reading."""
    app = build_shop(livez="/livez", readyz="/readyz", global_headers={"X-Frame-Options": "DENY"})

    @app.before_request
    async def refuse() -> tuple[str, int]:
        return "no", 401

    @app.route("/livez")
    async def hidden() -> str:
        return "hidden"

    with serving(app) as client:
        for path in ("/livez", "/readyz"):
            answer = client.get(path, headers={"accept-encoding": "gzip, br, zstd"})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "content-encoding" not in answer.headers
            assert answer.json()["status"] == "ok"
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == answer.headers["content-length"]
            refused = client.post(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
            assert client.get(path + "?verbose").status_code == 200
        assert client.get("/plain").status_code == 401
        assert client.get("/livez/").status_code == 401


def test_probes_work_where_the_application_is_mounted() -> None:
    """A proxy that adds a path, and a probe that comes past it."""
    app = build_shop(livez="/livez")
    with serving(app, root_path="/shop") as client:
        assert client.get("/livez").json() == {"status": "ok"}


async def test_probes_work_under_any_server() -> None:
    """Here under Quart's test client, which runs no lifespan."""
    app = build_shop(livez="/livez", readyz="/readyz")
    client = app.test_client()
    assert (await client.get("/livez")).status_code == 200
    assert await (await client.get("/readyz")).get_json() == {"status": "ok", "checks": {"server": "ok"}}


def test_probes_can_be_kept_out_of_the_access_log(tmp_path: Path) -> None:
    """They have their lines unless they are excluded."""
    log = tmp_path / "access.log"
    app = build_shop(livez="/livez", readyz="/readyz")
    with serving(app, access_log_file=str(log), access_log_exclude=["/livez"]) as client:
        client.get("/livez")
        client.get("/readyz")
    (line,) = log.read_text().splitlines()
    assert '"GET /readyz HTTP/1.1" 200' in line


class Database:
    """A resource that can be asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], object] = lambda: None

    async def ping(self) -> None:
        """Asks it."""
        answer = self.answer()
        if asyncio.iscoroutine(answer):
            await answer


def refuse_to_answer() -> None:
    """Fails, and tells what nobody is to know."""
    raise ConnectionError("postgres://admin:secret@db.internal/shop refused")


async def never() -> None:
    """Does not end, even when it is told to."""
    for _ in range(3):
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


def test_it_is_ready_while_its_resources_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Each check is told, no more of it than that it failed; the log says why, once."""
    database = Database()

    async def opened() -> AsyncGenerator[Database]:
        yield database

    class AppContainer(Container):
        database = providers.Resource(opened)
        settings_file = providers.Resource(dict[str, str])

    app = WebServer("shop", readyz="/readyz", container=AppContainer())
    ready = {"server": "ok", "resource database": "ok", "resource settings_file": "ok"}
    with caplog.at_level(logging.WARNING, "aeros"), serving(app) as client:
        assert client.get("/readyz").json() == {"status": "ok", "checks": ready}
        database.answer = refuse_to_answer
        for _ in range(2):
            answer = client.get("/readyz")
            assert answer.status_code == 503
            failed = {**ready, "resource database": "failed"}
            assert answer.json() == {"status": "unavailable", "checks": failed}
        database.answer = never
        began = time.perf_counter()
        assert client.get("/readyz").status_code == 503
        assert time.perf_counter() - began < 2
        database.answer = lambda: None
        assert client.get("/readyz").status_code == 200
    said = [record.getMessage() for record in caplog.records if "eady" in record.getMessage()]
    assert len(said) == 2
    assert "database: ConnectionError" in said[0]
    assert said[1] == "Ready to serve again"


async def test_many_who_ask_at_once_are_answered_by_the_same_checks() -> None:
    """Whoever reaches the path must not be able to wear out a pool of connections."""
    database, asked = Database(), 0

    async def answer_slowly() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)

    async def opened() -> AsyncGenerator[Database]:
        yield database

    class AppContainer(Container):
        database = providers.Resource(opened)

    app = WebServer("shop", readyz="/readyz", container=AppContainer())
    database.answer = answer_slowly
    async with app.test_app() as running:
        client = running.test_client()
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked == 1
        await client.get("/readyz")
        assert asked == 2


async def test_it_is_not_ready_before_its_resources_are_open() -> None:
    """Where nobody has begun to serve."""

    class AppContainer(Container):
        database = providers.Resource(Database)

    app = WebServer("shop", readyz="/readyz", container=AppContainer())
    answer = await app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert (await answer.get_json())["checks"] == {"server": "ok", "resource database": "failed"}
    async with app.test_app():
        assert (await app.test_client().get("/readyz")).status_code == 200


def test_it_is_not_ready_while_the_store_is_away(fickle_redis: FickleRedis) -> None:
    """Requests are answered all the same; and it is ready again when the store is."""
    store = RedisStore.from_url(fickle_redis.url)
    app = build_shop(readyz="/readyz", cache=Cache(store, store_deadline_seconds=0.3))
    with serving(app) as client:
        assert client.get("/readyz").json()["checks"] == {"server": "ok", "store": "ok"}
        fickle_redis.pause()
        began = time.perf_counter()
        assert client.get("/readyz").json()["checks"] == {"server": "ok", "store": "failed"}
        assert time.perf_counter() - began < 1
        assert client.get("/page").status_code == 200
        fickle_redis.resume()
        eventually(lambda: client.get("/readyz").status_code == 200)
        fickle_redis.kill()
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 404  # it was not asked for


def test_it_is_not_ready_once_it_stops() -> None:
    """On connections that are still open; alive it is."""
    app = build_shop(livez="/livez", readyz="/readyz")

    @app.route("/stop")
    async def stop() -> str:
        app.shutdown_event.set()
        return "stopping"

    with serving(app) as client:
        client.get("/stop")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]) == (503, {"server": "stopping"})
        assert client.get("/livez").status_code == 200


# Server-Timing


def timings(answer: httpx.Response) -> dict[str, str]:
    """Returns the field's metrics."""
    found: dict[str, str] = {}
    for metric in answer.headers["server-timing"].split(", "):
        name, _, parameter = metric.partition(";")
        found[name] = parameter
    return found


def test_responses_tell_how_long_they_took() -> None:
    """To their head: all of it, the application's part of it, and what the cache did."""
    app = build_shop(server_timing=True)

    @app.route("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "slow"

    with serving(app) as client:
        slow_one = timings(client.get("/slow"))
        total, own = (float(slow_one[name].removeprefix("dur=")) for name in ("total", "app"))
        assert 50 <= own <= total < 5_000
        assert "cache" not in slow_one
        first, *others = [timings(client.get("/page")) for _ in range(5)]
        assert first["cache"] == "desc=stored"
        assert {other["cache"] for other in others} == {"desc=hit"}
        assert "app" not in others[-1]  # door 1
        assert "server-timing" in client.get("/missing").headers
    assert app.cache_stats().hits_by_door[1] > 0


# Settings


def test_all_of_it_is_a_setting_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """run_server() over WebServer() over the container's configuration over the environment."""
    monkeypatch.setenv("AEROS_REQUEST_IDS", "yes")
    monkeypatch.setenv("AEROS_LIVEZ", "/alive")
    monkeypatch.setenv("AEROS_METRICS", "/numbers")
    container = Container()
    container.config.from_dict({"livez": "/healthy", "readyz": "/ready", "server_timing": "true"})
    app = build_shop(container=container, readyz="/may-come")
    settings = app.current_settings()
    assert (settings.request_ids, settings.server_timing) == (True, True)
    assert (settings.livez, settings.readyz, settings.metrics) == ("/healthy", "/may-come", "/numbers")
    with serving(app, livez="/here", request_ids=False) as client:
        answer = client.get("/here")
        assert (answer.status_code, "x-request-id" in answer.headers) == (200, False)
        assert client.get("/healthy").status_code == 404
        assert client.get("/may-come").status_code == 200
        assert client.get("/numbers").status_code == 200


def made(setting: str, value: object) -> WebServer[Any]:
    """Returns an application with one setting, right or wrong."""
    options: dict[str, Any] = {setting: value}
    return WebServer("shop", **options)


@pytest.mark.parametrize("setting", ["livez", "readyz", "metrics"])
@pytest.mark.parametrize("value", ["livez", "", "/a b", "/a?b", 5, "/a#b", "/a\n"])
def test_a_path_that_is_none_is_refused(setting: str, value: Any) -> None:
    """When the application is made; no text is a word for off."""
    if value == "":
        assert getattr(made(setting, value).current_settings(), setting) is None
        return
    with pytest.raises(InvalidSettingError, match=f"{setting}: .* path that begins with a slash"):
        made(setting, value)


def test_two_things_at_one_path_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell them apart."""
    with pytest.raises(InvalidSettingError, match=r"readyz: .*another path than that of livez"):
        WebServer("shop", livez="/health", readyz="/health").current_settings()
    with pytest.raises(InvalidSettingError, match="request_ids"):
        WebServer("shop", request_ids=cast(Any, "perhaps"))
    monkeypatch.setenv("AEROS_READYZ", "readyz")
    with pytest.raises(InvalidVariableError, match="AEROS_READYZ"):
        WebServer("shop")


def test_metrics_need_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is told when the application is made, or by what states it else."""

    def find_nothing(_name: str) -> None:
        return None

    monkeypatch.setattr("aeros.settings.find_spec", find_nothing)
    for name in [name for name in sys.modules if name.startswith("aeros.operations.prometheus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"metrics: .*pip install 'aeros\[metrics\]'"):
        WebServer("shop", metrics="/metrics")
    app = build_shop()
    with pytest.raises(MissingExtraError, match="prometheus-client"):
        _ = app.metrics_registry
    with pytest.raises(StartupError, match=r"aeros\[metrics\]"), serving(app, metrics="/metrics"):
        pass
    monkeypatch.setenv("AEROS_METRICS", "/metrics")
    with pytest.raises(MissingExtraError, match="AEROS_METRICS"):
        WebServer("shop")


def test_two_applications_share_nothing() -> None:
    """In one process, one in the other's way, each with its own settings."""
    one, other = build_shop(request_ids=True, livez="/livez"), build_shop(cache=SimpleCache())
    with serving(one) as first, serving(other) as second:
        assert "x-request-id" in first.get("/page").headers
        assert "x-request-id" not in second.get("/page").headers
        assert second.get("/livez").status_code == 404
