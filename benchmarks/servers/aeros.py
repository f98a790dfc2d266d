"""``WebServer``, cached and not."""

from __future__ import annotations

import inspect
from typing import Any

from aeros import Cache, WebServer
from benchmarks.bodies import CACHE_SECONDS, ROWS, item, large_body
from benchmarks.servers.quart import add_hooked_view, add_routes, add_views


def has_early() -> bool:
    """Tells whether this aeros answers hits early: at doors 1 and 2."""
    return "early" in inspect.signature(WebServer.cache).parameters


def plain() -> Any:
    """The views of Quart, and cached ones."""
    app = WebServer(__name__)
    add_views(app)
    add_cached_views(app, {})
    return app


def late() -> Any:
    """Cached views whose hits wait for the view's turn: door 3."""
    app = WebServer(__name__)
    add_cached_views(app, {"early": False} if has_early() else {})
    return app


def add_cached_views(app: WebServer[Any], options: dict[str, Any]) -> None:
    """Registers views that are cached; ``/fresh`` is one of them that is not."""

    @app.route("/rows")
    @app.cache(timeout=CACHE_SECONDS, **options)
    async def rows() -> list[Any]:
        return ROWS

    @app.route("/reports")
    @app.cache(timeout=CACHE_SECONDS, query_string=True, **options)
    async def reports() -> list[Any]:
        return ROWS

    @app.route("/fresh")
    async def fresh() -> list[Any]:
        return ROWS

    @app.route("/items/<key>")
    @app.cache(timeout=CACHE_SECONDS, **options)
    async def items(key: str) -> dict[str, Any]:
        return item(key)


def hooked() -> Any:
    """As Quart's."""
    app = WebServer(__name__)
    add_hooked_view(app)
    return app


def routes(count: int) -> Any:
    """As Quart's, and ``/rows``, which is cached."""
    app = WebServer(__name__)
    add_routes(app, count)
    add_cached_views(app, {})
    return app


def sized(size: int) -> Any:
    """A body of this size, cached."""
    app = WebServer(__name__)
    body = large_body(size)

    @app.route("/rows")
    @app.cache(timeout=CACHE_SECONDS)
    async def rows() -> tuple[bytes, dict[str, str]]:
        return body, {"Content-Type": "application/json"}

    return app


def entries(count: int) -> Any:
    """Room for so many small entries."""
    app = WebServer(__name__, cache=Cache(max_bytes=2**20 + count * 2**13))

    @app.route("/items/<key>")
    @app.cache(timeout=CACHE_SECONDS)
    async def items(key: str) -> dict[str, str]:
        return {"key": key}

    return app
