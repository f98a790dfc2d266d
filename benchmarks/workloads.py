"""The workloads that ``peers.py`` measures: who is asked for what."""

from __future__ import annotations

import json
from collections.abc import Iterable

from benchmarks.answers import Expected
from benchmarks.bodies import CHUNK, CHUNKS, HELLO, ROWS, count_valid, item, order
from benchmarks.load import Asked
from benchmarks.process import Server
from benchmarks.rounds import CONNECTIONS, Row, Workload
from benchmarks.servers.aeros import has_early
from benchmarks.servers.proxies import NginxServer, VarnishServer
from benchmarks.servers.python import PythonServer, WorkersServer

EMPTY = "empty ASGI app (c)"
QUART = "Quart"
FASTAPI_CACHED = ("fastapi", "fastapi_cache", "brotli_asgi")
QUART_COMPRESS = "quart_compress"
FLASK_CACHING = ("quart_flask_patch", "flask_caching")
NO_DOORS = "This aeros has no option early yet: where it has no early doors, its rows 1 to 3 are the same."

GET_HELLO = Asked("/hello")
GET_ROWS = Asked("/rows", accept="br")
# About 2 KB each, so that all fit into every cache as it is.
GET_ITEM = Asked("/items/{key}", accept="br", known_keys=10_000, new_share=0.01)
IS_HELLO = Expected(HELLO)
IS_ROWS = Expected(ROWS, coding="br")
IS_ITEM = Expected(item("0"), coding="br")


class Rows:
    """Makes the rows of one workload, which ask for the same.

    Args:
        asked: What is asked for.
        expected: What it must answer.
        connections: On how many connections.
    """

    def __init__(self, asked: Asked, expected: Expected, connections: int = CONNECTIONS) -> None:
        self.asked = asked
        self.expected = expected
        self.connections = connections

    def base(self, *, access_log: bool = False) -> Row:
        """Returns the row of the empty application, which every workload begins with."""
        server = PythonServer("empty:hello", access_log=access_log)
        return Row(EMPTY, server, GET_HELLO, IS_HELLO, self.connections, must=True)

    def row(self, title: str, server: Server, asked: Asked | None = None, *, must: bool = False) -> Row:
        """Returns one row."""
        return Row(title, server, asked or self.asked, self.expected, self.connections, must=must)

    def python(self, title: str, application: str, *needs: str, access_log: bool = False) -> Row:
        """Returns the row of an application; one that needs nothing must work."""
        server = PythonServer(application, needs, access_log=access_log)
        return self.row(title, server, must=not needs)

    def doors(self, *, access_log: bool = False) -> list[Row]:
        """Returns the rows of aeros's three ways to a hit."""
        servers = {
            "aeros, door 1": PythonServer("aeros:plain", access_log=access_log),
            "aeros, door 2": PythonServer("aeros:plain", by="uvicorn", access_log=access_log),
            "aeros, door 3": PythonServer("aeros:late", access_log=access_log),
        }
        return [self.row(title, server, must=True) for title, server in servers.items()]


def cached() -> Workload:
    """A hit."""
    rows = Rows(GET_ROWS, IS_ROWS)
    empty = PythonServer("empty:rows")
    return Workload(
        "cached 24 KB JSON, br",
        [
            rows.base(),
            rows.row("empty ASGI app, same br body", empty, must=True),
            *rows.doors(),
            rows.row("nginx proxy_cache", NginxServer(empty)),
            rows.row("Varnish", VarnishServer(empty)),
            rows.python("Litestar, its cache and compression", "litestar:cached", "litestar"),
            rows.python("FastAPI, fastapi-cache2, brotli-asgi", "fastapi:cached", *FASTAPI_CACHED),
            rows.python(
                "Quart, Flask-Caching, brotli-asgi", "quart:flask_cached", *FLASK_CACHING, "brotli_asgi"
            ),
            rows.python(
                "Quart, Flask-Caching, quart-compress",
                "quart:flask_cached_compressed",
                *FLASK_CACHING,
                QUART_COMPRESS,
            ),
            rows.python("Quart, quart-compress (not cached)", "quart:compressed", QUART_COMPRESS),
        ],
        notes=[
            "door 1: run_server(); door 2: uvicorn.run(app); door 3: early=False.",
            *([] if has_early() else [NO_DOORS]),
            "nginx and Varnish: their own processes; the empty app behind them is not asked again.",
        ],
    )


def hello_rows(rows: Rows, *, access_log: bool = False) -> list[Row]:
    """Returns the rows of the frameworks' hello."""
    return [
        rows.base(access_log=access_log),
        rows.python(QUART, "quart:plain", access_log=access_log),
        rows.python("aeros", "aeros:plain", access_log=access_log),
        rows.python("Starlette", "starlette:hello", "starlette", access_log=access_log),
        rows.python("BlackSheep", "blacksheep:hello", "blacksheep", access_log=access_log),
        rows.python("Litestar", "litestar:hello", "litestar", access_log=access_log),
        rows.python("FastAPI", "fastapi:hello", "fastapi", access_log=access_log),
    ]


def hello() -> Workload:
    """The least that a view does."""
    return Workload("JSON hello, not cached", hello_rows(Rows(GET_HELLO, IS_HELLO)), QUART)


def against_quart(
    title: str, asked: Asked, value: object, application: str = "plain", unit: str = "request"
) -> Workload:
    """Something that only Quart's own views can be compared in."""
    rows = Rows(asked, Expected(value))
    pair = [rows.python(QUART, f"quart:{application}"), rows.python("aeros", f"aeros:{application}")]
    return Workload(title, [rows.base(), *pair], QUART, unit)


def hooked() -> Workload:
    """What most views do."""
    asked = Asked("/books/7?page=3")
    value = {"number": 7, "page": 3, "language": "en"}
    return against_quart("path parameter, query, before_request hook", asked, value, "hooked")


def posted() -> Workload:
    """A large body on the way in."""
    body = order()
    asked = Asked("/orders", body=body)
    return against_quart("64 KB JSON posted and validated", asked, {"lines": count_valid(json.loads(body))})


def streamed() -> Workload:
    """A body that is made while it is sent."""
    return against_quart(f"stream of {CHUNKS} chunks", Asked("/stream"), CHUNK * CHUNKS)


def websocket() -> Workload:
    """Echoes."""
    asked = Asked("/echo", websocket=True)
    return against_quart("websocket echo", asked, None, unit="message")


def missed() -> Workload:
    """What a cache costs where it does not help."""
    rows = Rows(GET_ROWS, IS_ROWS)
    server = PythonServer("aeros:plain")
    uncached = "aeros, not cached, compressed"
    fresh, reports = (Asked(f"/{name}?page={{key}}", "br", new_share=1.0) for name in ("fresh", "reports"))
    return Workload(
        "24 KB JSON, br, each request another query",
        [
            rows.base(),
            rows.row(uncached, server, fresh, must=True),
            rows.row("aeros, cached, all misses", server, reports, must=True),
        ],
        uncached,
    )


def mixed() -> Workload:
    """A catalogue under load: most is known, something is always new."""
    rows = Rows(GET_ITEM, IS_ITEM, connections=64)
    aeros = "aeros"
    return Workload(
        "64 clients, 1% misses on 10,000 keys, 2 KB JSON, br",
        [
            rows.base(),
            rows.python(aeros, "aeros:plain"),
            rows.python("Litestar, its cache and compression", "litestar:cached", "litestar"),
            rows.python("FastAPI, fastapi-cache2, brotli-asgi", "fastapi:cached", *FASTAPI_CACHED),
        ],
        aeros,
        notes=["What counts here is p99."],
    )


def shared() -> Workload:
    """Several processes that share a store."""
    rows = Rows(GET_ROWS, IS_ROWS)
    one = "aeros, in memory, one process"
    return Workload(
        "cached 24 KB JSON, br, two workers",
        [
            rows.base(),
            rows.row(one, PythonServer("aeros:plain"), must=True),
            rows.row("aeros, in memory, two workers", WorkersServer(2, redis=False), must=True),
            rows.row("aeros, in Redis, two workers", WorkersServer(2, redis=True)),
        ],
        one,
        notes=["Redis's own CPU is not in the row."],
    )


def logged_hello() -> Workload:
    """As ``hello``, with one line per request."""
    rows = Rows(GET_HELLO, IS_HELLO)
    return Workload("JSON hello, access log to a file", hello_rows(rows, access_log=True), QUART)


def logged_hit() -> Workload:
    """As ``cached``, with one line per request."""
    rows = Rows(GET_ROWS, IS_ROWS)
    empty = PythonServer("empty:rows", access_log=True)
    return Workload(
        "cached 24 KB JSON, br, access log to a file",
        [
            rows.base(access_log=True),
            rows.row("empty ASGI app, same br body", empty, must=True),
            *rows.doors(access_log=True),
            rows.row("nginx proxy_cache", NginxServer(PythonServer("empty:rows"), access_log=True)),
            rows.python(
                "Litestar, its cache and compression", "litestar:cached", "litestar", access_log=True
            ),
        ],
        notes=["c has an access log here too; aeros: access_log_file=, others: uvicorn's own."],
    )


def workloads() -> Iterable[Workload]:
    """Returns all, in the order in which they are printed."""
    yield cached()
    yield hello()
    yield hooked()
    yield posted()
    yield streamed()
    yield websocket()
    yield missed()
    yield mixed()
    yield shared()
    yield logged_hello()
    yield logged_hit()
