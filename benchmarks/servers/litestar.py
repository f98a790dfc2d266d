"""Litestar, alone and with its own cache and compression.

It is imported by name: the tests' environment, which checks the types, lacks it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.bodies import BROTLI_QUALITY, CACHE_SECONDS, COMPRESS_FROM_BYTES, HELLO, ROWS, item


def hello() -> Any:
    """One view."""
    litestar: Any = import_module("litestar")

    async def answer_hello() -> dict[str, str]:
        return HELLO

    return litestar.Litestar([litestar.get("/hello")(answer_hello)], openapi_config=None)


def cached() -> Any:
    """Its cache keeps what its compression made."""
    litestar: Any = import_module("litestar")
    compression: Any = import_module("litestar.config.compression").CompressionConfig(
        backend="brotli", brotli_quality=BROTLI_QUALITY, minimum_size=COMPRESS_FROM_BYTES
    )

    async def rows() -> list[dict[str, Any]]:
        return ROWS

    async def items(key: str) -> dict[str, Any]:
        return item(key)

    handlers = [
        litestar.get("/rows", cache=CACHE_SECONDS)(rows),
        litestar.get("/items/{key:str}", cache=CACHE_SECONDS)(items),
    ]
    return litestar.Litestar(handlers, compression_config=compression, openapi_config=None)
