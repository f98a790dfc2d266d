"""The ASGI HTTP connection: one request from its scope to its last message."""

from __future__ import annotations

import asyncio
from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart.app import Quart
from quart.asgi import ASGIHTTPConnection
from quart.debug import traceback_response
from quart.typing import ResponseTypes
from quart.wrappers import Request, Response
from quart.wrappers.response import DataBody
from werkzeug.exceptions import BadHost, SecurityError

from aeros.exchange import exchange_of


class HTTPConnection(ASGIHTTPConnection):
    """Quart's connection, in the task that the server made for the request.

    Quart makes two tasks more, for the handler and for what the client sends. Here the client is
    watched only once the handler has to wait for something, and the request's own task is
    cancelled if the client leaves. A client that leaves takes no other client's answer along:
    while other requests wait for the view that this one runs, the view goes on, within the
    cache's deadline.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        # A target such as ``GET http://host HTTP/1.1`` has no path, which RFC 9110 §4.2.3 calls "/".
        if not scope["path"]:
            scope["path"] = "/"
        super().__init__(app, scope)
        self._has_left = False
        exchange = exchange_of(cast("dict[str, object]", scope))
        if exchange is not None:
            exchange.begin()

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles the request until the response is sent or the client has left."""
        request = self._create_request_from_scope(send)
        watch = _Watch(self, request, receive)
        try:
            await self.handle_request(request, send)
        except asyncio.CancelledError:
            # Ours, unless the server cancelled the request as well.
            if not self._has_left or watch.task.uncancel() > 0:
                raise
        else:
            if self._has_left:  # and something in the application kept the cancellation to itself
                watch.task.uncancel()
        finally:
            await watch.stop()

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """Makes the response and sends it within its time."""
        response: ResponseTypes
        try:
            response = await self.app.handle_request(request)
        except (BadHost, SecurityError) as error:
            # Outside of Quart's own handling: no request context can be made of such a Host.
            response = await self.app.make_response(error)
        except Exception as error:
            if not (self.app.debug or self.app.testing):
                raise
            response = await traceback_response(error)
        timeout = cast("float | None", self.app.config["RESPONSE_TIMEOUT"])
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = cast("float | None", response.timeout)
        try:
            async with asyncio.timeout(timeout):
                await self._send_response(send, response)
        except TimeoutError:
            # As in Quart: a client that does not read in time gets no more.
            return

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if not isinstance(response, Response) or type(response.response) is not DataBody:
            await super()._send_response(send, response)
            return
        body = response.response
        fields = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": fields})
        await send(
            {"type": "http.response.body", "body": body.data[body.begin : body.end], "more_body": False}
        )

    async def watch(
        self, request: Request, receive: ASGIReceiveCallable, handler: asyncio.Task[object]
    ) -> None:
        """Takes what the client sends; when it leaves, ends the handler unless others need it."""
        try:
            await self.handle_messages(request, receive)
            exchange = exchange_of(request.scope)
            if exchange is not None and exchange.transaction is not None:
                await exchange.transaction.finish_leading()
        finally:
            # Also where receiving failed: the handler would wait for a body that never comes.
            if not _is_stopping():
                self._has_left = True
                handler.cancel()


def _is_stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Watch:
    """Watches the client from the moment on at which the handler first waits."""

    __slots__ = ("_waiting", "_watcher", "task")

    def __init__(self, connection: HTTPConnection, request: Request, receive: ASGIReceiveCallable) -> None:
        task: asyncio.Task[object] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task")
        self.task = task
        self._watcher: asyncio.Task[None] | None = None

        def begin() -> None:
            self._watcher = asyncio.ensure_future(connection.watch(request, receive, task))

        # It runs only if the handler gives the loop a turn, which a quick view never does.
        self._waiting = asyncio.get_running_loop().call_soon(begin)

    async def stop(self) -> None:
        """Ends the watching; an error in it is raised."""
        self._waiting.cancel()
        watcher = self._watcher
        if watcher is None:
            return
        if not watcher.done():
            watcher.cancel()
            await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.result()
