"""The ASGI HTTP connection: one request from its scope to its last message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlparse

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart.app import Quart
from quart.asgi import ASGIHTTPConnection
from quart.asgi import _normalise_path as path_below  # pyright: ignore[reportPrivateUsage]  # as Quart has it
from quart.debug import traceback_response
from quart.typing import ResponseTypes
from quart.wrappers import Request as QuartRequest
from quart.wrappers import Response
from quart.wrappers.response import DataBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadHost, SecurityError

from aeros.dispatch.request import Request
from aeros.exchange import Arrival, WholeSend, exchange_of
from aeros.http.fields import first_value
from aeros.types import RawHeaders, Scope

_Body: TypeAlias = AbstractAsyncContextManager[AsyncIterator[str | bytes]]

_MOST_NAMES: Final = 1_000
_PARTS_IN_A_TURN: Final = 128


class HTTPConnection(ASGIHTTPConnection):
    """Quart's connection, in the task that the server made for the request.

    Quart makes two tasks more, for the handler and for what the client sends. Here the client is
    watched only once the handler has to wait for something, and the request's own task is
    cancelled if the client leaves. A client that leaves takes no other client's answer along:
    while other requests wait for the view that this one runs, the view goes on, within the
    cache's deadline.
    """

    _has_left = False
    _task: asyncio.Task[Any] | None = None
    _leaving: asyncio.Task[None] | None = None

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        # A target such as ``GET http://host HTTP/1.1`` has no path, which RFC 9110 §4.2.3 calls "/".
        if not scope["path"]:
            scope["path"] = "/"
        self.app = app
        self.scope = scope
        self._exchange = exchange_of(scope)
        if self._exchange is not None:
            self._exchange.begin()

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles the request until the response is sent or the client has left."""
        arrival: object = getattr(receive, "__self__", None)
        body = arrival.take_all() if isinstance(arrival, Arrival) else None
        if body is None or not isinstance(arrival, Arrival):
            await self._handle_watched(receive, send)
            return
        # Nothing more can come of it than that its client leaves.
        arrival.on_leaving(self._leave)
        self._task = arrival.task
        try:
            request = self._request(send, is_bodiless=not body)
            if body:
                request.body.set_result(body)
            await self.handle_request(request, send)
        except asyncio.CancelledError:
            # Ours, unless the server cancelled the request as well.
            if not self._has_left or self._task is None or self._task.uncancel() > 0:
                raise
        else:
            if self._has_left and self._task is not None:
                # And something in the application kept the cancellation to itself.
                self._task.uncancel()
        finally:
            arrival.on_leaving(None)
            leaving = self._leaving
            if leaving is not None and not leaving.done():
                leaving.cancel()
                await asyncio.wait([leaving])

    async def _handle_watched(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        request = self._request(send, is_bodiless=False)
        watch = _Watch(self, request, receive)
        try:
            await self.handle_request(request, send)
        except asyncio.CancelledError:
            if not self._has_left or watch.task.uncancel() > 0:
                raise
        else:
            if self._has_left:
                watch.task.uncancel()
        finally:
            await watch.stop()

    def _leave(self) -> None:
        if self._task is not None:
            self._leaving = asyncio.ensure_future(self._end(self._task))

    async def handle_request(self, request: QuartRequest, send: ASGISendCallable) -> None:
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
        sending = cast(object, send)
        if isinstance(sending, WholeSend) and _is_whole(response):
            content = _content(response)
            if sending.at_once(response.status_code, _raw(response.headers), content):
                return  # nobody had to wait, so no time could run out
        timeout = cast("float | None", self.app.config["RESPONSE_TIMEOUT"])
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = cast("float | None", response.timeout)
        try:
            async with asyncio.timeout(timeout):
                if isinstance(sending, WholeSend) and _is_whole(response):
                    await sending.whole(response.status_code, _raw(response.headers), _content(response))
                else:
                    await self._send_response(send, response)
        except TimeoutError:
            # As in Quart: a client that does not read in time gets no more.
            return

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        fields = _raw(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": fields})
        sending, last = cast(object, send), b""
        at_once = sending.part_at_once if isinstance(sending, WholeSend) else _never

        async def send_part(part: str | bytes) -> None:
            content = part.encode() if isinstance(part, str) else part
            if not at_once(content):
                await send({"type": "http.response.body", "body": content, "more_body": True})

        if _is_whole(response):
            last = _content(response)
        elif isinstance(response, Response):
            sent = 0
            async with cast(_Body, response.response) as parts:
                async for part in parts:
                    if not (isinstance(part, bytes) and at_once(part)):
                        await send_part(part)
                    sent += 1
                    if not sent % _PARTS_IN_A_TURN:
                        await asyncio.sleep(0)  # one that waits for nothing would keep all others waiting
        else:
            for part in response.response:
                await send_part(part)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _request(self, send: ASGISendCallable, *, is_bodiless: bool) -> QuartRequest:
        app, scope = self.app, cast(Scope, self.scope)
        if app.request_class is not Request or (
            scope["http_version"] < "1.1" and first_value(scope["headers"], b"host") is None
        ):
            request = self._create_request_from_scope(send)
            if is_bodiless:
                request.body.set_complete()
            return request
        path: str = scope["path"]
        if path[0] != "/":
            path = urlparse(path).path
        root_path: str = scope.get("root_path", "")
        if root_path:
            path = path_below(path, root_path)
        push = partial(partial, self._send_push_promise, send)
        return Request.arrived(app, scope, path, push, is_bodiless=is_bodiless)

    async def watch(
        self, request: QuartRequest, receive: ASGIReceiveCallable, handler: asyncio.Task[object]
    ) -> None:
        """Takes what the client sends; when it leaves, ends the handler unless others need it."""
        try:
            await self.handle_messages(request, receive)
        finally:
            # Also where receiving failed: the handler would wait for a body that never comes.
            if not _is_stopping():
                await self._end(handler)

    async def _end(self, handler: asyncio.Task[object]) -> None:
        exchange = self._exchange
        try:
            if exchange is not None and exchange.transaction is not None:
                await exchange.transaction.finish_leading()
        finally:
            if not _is_stopping():
                self._has_left = True
                handler.cancel()


def _never(_part: bytes) -> bool:
    return False


def _is_whole(response: ResponseTypes) -> bool:
    return isinstance(response, Response) and type(response.response) is DataBody


def _content(response: ResponseTypes) -> bytes:
    body = cast(DataBody, response.response)
    return body.data if body.begin == 0 and body.end == len(body.data) else body.data[body.begin : body.end]


def _raw(headers: Headers) -> RawHeaders:
    return [(_raw_name(name), value.encode()) for name, value in headers]  # as Quart writes them


@lru_cache(_MOST_NAMES)
def _raw_name(name: str) -> bytes:
    return name.lower().encode()


def _is_stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Watch:
    """Watches the client from the moment on at which the handler first waits.

    Args:
        connection: The connection.
        request: The request, which gets its body.
        receive: Tells what the client sends.
    """

    __slots__ = ("_waiting", "_watcher", "task")

    def __init__(
        self, connection: HTTPConnection, request: QuartRequest, receive: ASGIReceiveCallable
    ) -> None:
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
