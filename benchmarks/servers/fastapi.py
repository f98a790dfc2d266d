"""FastAPI, alone and with fastapi-cache2 and brotli-asgi.

All are imported by name: the tests' environment, which checks the types, lacks them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.bodies import BROTLI_QUALITY, CACHE_SECONDS, COMPRESS_FROM_BYTES, HELLO, ROWS, item


def hello() -> Any:
    """One view."""
    app: Any = import_module("fastapi").FastAPI()

    async def answer_hello() -> dict[str, str]:
        return HELLO

    app.get("/hello")(answer_hello)
    return app


def cached() -> Any:
    """Cached in memory, then compressed for each request."""
    app: Any = import_module("fastapi").FastAPI()
    caching: Any = import_module("fastapi_cache")
    backend: Any = import_module("fastapi_cache.backends.inmemory").InMemoryBackend()
    cache: Any = import_module("fastapi_cache.decorator").cache
    caching.FastAPICache.init(backend)
    compression: Any = import_module("brotli_asgi").BrotliMiddleware
    app.add_middleware(compression, quality=BROTLI_QUALITY, minimum_size=COMPRESS_FROM_BYTES)

    async def rows() -> list[dict[str, Any]]:
        return ROWS

    async def items(key: str) -> dict[str, Any]:
        return item(key)

    app.get("/rows")(cache(expire=CACHE_SECONDS)(rows))
    app.get("/items/{key}")(cache(expire=CACHE_SECONDS)(items))
    return app
