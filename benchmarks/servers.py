"""The applications that are measured: ``python -m benchmarks.servers NAME PORT`` serves one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from quart import Quart

from aeros import Br, WebServer
from benchmarks import injected

HELLO = {"hello": "world"}
# About 24 KB of JSON, as a list view of an API would send.
ROWS = [
    {"id": number, "name": f"item {number}", "tags": ["a", "b", "c"], "price": number * 1.5}
    for number in range(370)
]


async def empty(_scope: Any, _receive: Any, send: Any) -> None:
    """The least that an ASGI application can do."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def quart() -> Any:
    """Plain Quart."""
    app = Quart(__name__)

    async def hello() -> dict[str, str]:
        return HELLO

    async def rows() -> list[Any]:
        return ROWS

    app.add_url_rule("/hello", view_func=hello)
    app.add_url_rule("/rows", view_func=rows)
    return app


def aeros() -> Any:
    """``WebServer``: a plain view, and one that is cached and compressed."""
    app = WebServer(__name__, compression=Br())

    @app.route("/hello")
    async def hello() -> dict[str, str]:
        return HELLO

    @app.route("/rows")
    @app.cache(timeout=3600)
    async def rows() -> list[Any]:
        return ROWS

    return app


SERVERS: dict[str, Callable[[], Any]] = {
    "empty": lambda: empty,
    "quart": quart,
    "aeros": aeros,
    "inject-aeros": injected.with_inject,
    "inject-aeros-scoped": injected.with_request_scope,
    "inject-quart": injected.with_wiring,
    "inject-fastapi": injected.with_depends,
    "inject-litestar": injected.with_provide,
}


def main() -> None:
    """Serves one application with the same uvicorn settings as the others."""
    name, port = sys.argv[1:]
    uvicorn.run(SERVERS[name](), port=int(port), log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
