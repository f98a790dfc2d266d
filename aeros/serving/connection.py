"""The ASGI HTTP connection: one request from its scope to its last message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart.app import Quart
from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request

from aeros.exchange import exchange_of


class HTTPConnection(ASGIHTTPConnection):
    """Quart's connection, except that a client which leaves takes no other client's answer along.

    While other requests wait for the view that this one runs, the view goes on after the
    client has left, within the cache's deadline.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        # A target such as ``GET http://host HTTP/1.1`` has no path, which RFC 9110 §4.2.3 calls "/".
        if not scope["path"]:
            scope["path"] = "/"
        super().__init__(app, scope)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles the request until the response is sent or the client has left."""
        request = self._create_request_from_scope(send)
        receiver = asyncio.ensure_future(self.handle_messages(request, receive))
        handler = asyncio.ensure_future(self.handle_request(request, send))
        try:
            await asyncio.wait([handler, receiver], return_when=asyncio.FIRST_COMPLETED)
            if not handler.done():
                await self._finish_leading(request, handler)
        finally:
            await _cancel(task for task in (handler, receiver) if not task.done())
        for task in (handler, receiver):
            if not task.cancelled():
                task.result()

    async def _finish_leading(self, request: Request, handler: asyncio.Task[None]) -> None:
        exchange = exchange_of(request.scope)
        transaction = exchange.transaction if exchange is not None else None
        if transaction is not None and transaction.is_leading:
            await asyncio.wait([handler], timeout=transaction.deadline_seconds)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    pending = list(tasks)
    for task in pending:
        task.cancel()
    # Their errors are raised by whoever asks for the results.
    await asyncio.gather(*pending, return_exceptions=True)
