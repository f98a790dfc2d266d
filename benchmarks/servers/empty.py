"""The least that an ASGI application can do: send bytes that are ready."""

from __future__ import annotations

import json
from typing import Any

import brotli

from benchmarks.bodies import BROTLI_QUALITY, HELLO, ROWS


def sender(body: bytes, *fields: tuple[bytes, bytes]) -> Any:
    """Returns an application that sends this body whatever is asked."""
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, *fields]

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def hello() -> Any:
    """The small JSON."""
    return sender(json.dumps(HELLO).encode())


def rows() -> Any:
    """The 24 KB JSON, compressed before; caches in front may keep it."""
    body = brotli.compress(json.dumps(ROWS).encode(), quality=BROTLI_QUALITY)
    kept = (b"cache-control", b"public, max-age=3600")
    return sender(body, (b"content-encoding", b"br"), (b"vary", b"Accept-Encoding"), kept)
