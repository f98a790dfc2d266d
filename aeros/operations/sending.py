"""The ``send`` of a request that is observed: what every response says, wherever it was made."""

from __future__ import annotations

import time

from aeros.exchange import HeadMemory, WholeSend, exchange_of
from aeros.http.fields import without
from aeros.http.server_timing import FIELD_NAME as TIMING_NAME
from aeros.http.server_timing import ServerTiming
from aeros.outgoing import Outgoing
from aeros.request_id import FIELD_NAME as ID_NAME
from aeros.types import Message, RawHeaders, Scope, Send


class ObservedSend(WholeSend):
    """Adds to a response what it says of its request, and remembers its status.

    It stands outside of everything that stores responses, so what it adds is never stored.

    Args:
        send: Where the messages go.
        scope: The request's ASGI scope.
        request_id: The id that the response tells; None: none.
        has_timing: Whether it has ``Server-Timing``.

    Attributes:
        began: When the request began, by ``time.perf_counter()``.
        status: The status of the response; None before it has begun.
    """

    __slots__ = ("_answered", "_has_timing", "_request_id", "_scope", "_send", "_whole", "began", "status")

    def __init__(self, send: Send, scope: Scope, *, request_id: str | None, has_timing: bool) -> None:
        self.began: float = time.perf_counter()
        self.status: int | None = None
        self._send = send
        self._whole = send if isinstance(send, WholeSend) else None
        self._scope = scope
        self._request_id = request_id
        self._has_timing = has_timing
        self._answered: float | None = None

    async def __call__(self, message: Message) -> None:
        """Sends one message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._marked(message.get("headers", ()))}
        await self._send(message)

    def application_answers(self) -> None:
        """Takes note that the application begins to answer."""
        if self._answered is None:
            self._answered = time.perf_counter()

    @property
    def is_clear(self) -> bool:
        """Whether what is sent now goes out without waiting for the client."""
        return self._whole is not None and self._whole.is_clear

    def at_once(
        self, status: int, headers: RawHeaders, body: bytes, memory: HeadMemory | None = None
    ) -> bool:
        """Sends a whole response, if nobody has to wait for anything; returns whether it did."""
        send = self._whole
        if send is None or not send.is_clear:
            return False
        marked = self._marked(headers)
        if not send.at_once(status, marked, body, memory if marked is headers else None):
            return False
        self.status = status
        return True

    def part_at_once(self, body: bytes) -> bool:
        """Sends a further part of a stream, if nobody has to wait for anything; returns whether it did."""
        return self._whole is not None and self._whole.part_at_once(body)

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Sends a whole response."""
        if self._whole is None:
            await self({"type": "http.response.start", "status": status, "headers": headers})
            await self({"type": "http.response.body", "body": body})
            return
        self.status = status
        await self._whole.whole(status, self._marked(headers), body)

    def _marked(self, headers: RawHeaders) -> RawHeaders:
        if self._request_id is not None:
            # A view that tells one tells this one, or one that its response was stored with.
            headers = without(headers, frozenset({ID_NAME}))
            headers.append((ID_NAME, self._request_id.encode("ascii")))
        if self._has_timing:
            headers = [*headers, (TIMING_NAME, self._timing().render())]
        return headers

    def _timing(self) -> ServerTiming:
        exchange = exchange_of(self._scope)
        status = None if exchange is None else exchange.cache_status
        return ServerTiming(
            total=time.perf_counter() - self.began,
            app=None if self._answered is None else self._answered - self.began,
            cache=None if status is None else status.outcome,
        )


class ObservedOutgoing(Outgoing):
    """A response's way out that tells when the application begins to answer."""

    __slots__ = ()

    def on_start(self) -> None:
        """From here on the response is on its way."""
        super().on_start()
        if isinstance(self._send, ObservedSend):
            self._send.application_answers()
