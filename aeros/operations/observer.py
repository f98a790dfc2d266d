"""A request that is observed: its id, its place among the metrics, and the server's own paths."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol

from aeros.exchange import rule_of
from aeros.http.fields import combined_value, first_value
from aeros.operations.health import Checked, Health
from aeros.operations.sending import ObservedSend
from aeros.operations.tallies import Counted, Tallies
from aeros.request_id import RequestIds, enter_request, leave_request
from aeros.settings import ServerSettings
from aeros.types import RawHeaders, Scope, Send

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"


class Observed(Checked, Counted, Protocol):
    """What is needed of an application."""


class Observer:
    """Observes the requests of one application, where any of its settings asks for that.

    Args:
        app: The application.
    """

    def __init__(self, app: Observed) -> None:
        self._health = Health(app)
        self._tallies = Tallies(app)
        self._ids = RequestIds()

    @property
    def registry(self) -> CollectorRegistry:
        """The Prometheus registry of the application."""
        return self._tallies.registry

    def counting_dropped_lines(self, dropped: Callable[[], int]) -> AbstractContextManager[None]:
        """Counts the lines that a log has lost while the context lasts."""
        return self._tallies.counting_dropped_lines(dropped)

    def sharing(self, folder: str) -> AbstractContextManager[None]:
        """Joins the metrics of all workers whose snapshots are in a folder while the context lasts."""
        return self._tallies.sharing(folder)

    async def observe(
        self,
        scope: Scope,
        send: Send,
        settings: ServerSettings,
        answer: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Handles a request.

        Args:
            scope: Its ASGI scope.
            send: Where the messages of its response go.
            settings: The settings in force.
            answer: Has the application answer it, through the ``send`` that it is given.
        """
        request_id = self._ids.identify(scope) if settings.request_ids else None
        token = None if request_id is None else enter_request(request_id)
        sending = ObservedSend(send, scope, request_id=request_id, has_timing=settings.server_timing)
        tallies = self._tallies if settings.metrics is not None else None
        path = self._own_path(scope, settings)
        if tallies is not None:
            tallies.in_progress += 1
        try:
            if path is None:
                await answer(sending)
            else:
                await self._answer(scope, sending, settings, path)
        finally:
            if tallies is not None:
                tallies.in_progress -= 1
                seconds = time.perf_counter() - sending.began
                tallies.note(scope["method"], path or rule_of(scope), sending.status, seconds)
        # Not where it raises: whoever logs that does so in this request.
        if token is not None:
            leave_request(token)

    async def identify(self, scope: Scope, handle: Callable[[], Awaitable[None]]) -> None:
        """Handles what has no response of its own, a websocket, under an id."""
        token = enter_request(self._ids.identify(scope))
        await handle()
        leave_request(token)

    def _own_path(self, scope: Scope, settings: ServerSettings) -> str | None:
        path: str = scope["path"]
        own = settings.livez, settings.readyz, settings.metrics
        if path in own:
            return path
        root_path: str = scope.get("root_path", "")
        below = path.removeprefix(root_path) if root_path else path
        return below if below in own else None

    async def _answer(self, scope: Scope, send: ObservedSend, settings: ServerSettings, path: str) -> None:
        headers: RawHeaders = []
        if scope["method"] not in ("GET", "HEAD"):
            status, content_type, body = 405, _TEXT, b"Method Not Allowed"
            headers.append((b"allow", b"GET, HEAD"))
        elif path == settings.livez:
            status, body = self._health.alive()
            content_type = _JSON
        elif path == settings.readyz:
            status, body = await self._health.ready()
            content_type = _JSON
        else:
            status = 200
            accept = combined_value(scope["headers"], b"accept") or ""
            content_type, body = await self._tallies.page(accept)
        headers += [
            (b"content-type", content_type.encode("ascii")),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        headers += [field for field in settings.raw_global_headers if first_value(headers, field[0]) is None]
        await send.whole(status, headers, b"" if scope["method"] == "HEAD" else body)
