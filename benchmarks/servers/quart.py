"""Quart, and Quart with what is added to it to cache and to compress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import import_module
from operator import attrgetter
from typing import Any

from quart import Quart, g, request, websocket

from benchmarks.bodies import (
    BROTLI_QUALITY,
    CACHE_SECONDS,
    CHUNK,
    CHUNKS,
    COMPRESS_FROM_BYTES,
    HELLO,
    ROWS,
    count_valid,
    large_body,
)


def plain() -> Any:
    """Views without a hook."""
    app = Quart(__name__)
    add_views(app)
    return app


def add_views(app: Quart) -> None:
    """Registers the views that aeros serves too, on either."""

    async def hello() -> dict[str, str]:
        return HELLO

    async def orders() -> dict[str, int]:
        return {"lines": count_valid(await request.get_json())}

    async def stream() -> tuple[AsyncIterator[bytes], dict[str, str]]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(CHUNKS):
                yield CHUNK

        return chunks(), {"Content-Type": "application/octet-stream"}

    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    app.add_url_rule("/hello", view_func=hello)
    app.add_url_rule("/orders", view_func=orders, methods=["POST"])
    app.add_url_rule("/stream", view_func=stream)
    app.add_websocket("/echo", view_func=echo)


def hooked() -> Any:
    """One view with a path parameter and a query, behind one hook."""
    app = Quart(__name__)
    add_hooked_view(app)
    return app


def add_hooked_view(app: Quart) -> None:
    """Registers the view and its hook, on either."""

    async def recognise() -> None:
        g.language = request.headers.get("Accept-Language", "en")

    async def book(number: int) -> dict[str, object]:
        return {"number": number, "page": request.args.get("page", 1, type=int), "language": g.language}

    app.before_request(recognise)
    app.add_url_rule("/books/<int:number>", view_func=book)


def routes(count: int) -> Any:
    """So many routes, the last of which is ``/hello``."""
    app = Quart(__name__)
    add_routes(app, count)
    return app


def add_routes(app: Quart, count: int) -> None:
    """Registers so many routes, on either."""

    async def view(number: int = 0) -> dict[str, object]:
        return {"number": number}

    async def hello() -> dict[str, str]:
        return HELLO

    for route in range(count - 1):
        app.add_url_rule(f"/section{route}/<int:number>", f"section{route}", view)
    app.add_url_rule("/hello", view_func=hello)


def sized(size: int) -> Any:
    """A body of this size."""
    app = Quart(__name__)
    body = large_body(size)

    async def rows() -> tuple[bytes, dict[str, str]]:
        return body, {"Content-Type": "application/json"}

    app.add_url_rule("/rows", view_func=rows)
    return app


def compressed() -> Any:
    """quart-compress, which compresses each response anew, with the library's quality (11)."""
    app = Quart(__name__)

    async def rows() -> list[Any]:
        return ROWS

    app.add_url_rule("/rows", view_func=rows)
    add_compression(app)
    return app


def flask_cached() -> Any:
    """Flask-Caching, and brotli-asgi, which compresses each response anew."""
    app = with_flask_caching()
    compression: Any = import_module("brotli_asgi").BrotliMiddleware
    app.asgi_app = compression(app.asgi_app, quality=BROTLI_QUALITY, minimum_size=COMPRESS_FROM_BYTES)
    return app


def flask_cached_compressed() -> Any:
    """Flask-Caching, and quart-compress with a cache of its own for what it compressed."""
    app = with_flask_caching()
    kept: Any = import_module("quart_compress.quart_compress").DictCache
    add_compression(app, COMPRESS_CACHE_BACKEND=kept, COMPRESS_CACHE_KEY=attrgetter("full_path"))
    return app


def with_flask_caching() -> Any:
    """Flask-Caching on quart-flask-patch. The view is no coroutine: on uvloop it can not call one."""
    import_module("quart_flask_patch")
    app = Quart(__name__)
    cache: Any = import_module("flask_caching").Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    def rows() -> Any:
        return ROWS

    app.add_url_rule("/rows", view_func=cache.cached(timeout=CACHE_SECONDS)(rows))
    return app


def add_compression(app: Any, **settings: object) -> None:
    """Puts quart-compress around all views."""
    app.config.update(COMPRESS_ALGORITHM="br", **settings)
    compress: Any = import_module("quart_compress").Compress
    compress(app)
