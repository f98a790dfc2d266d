"""One response on its way out: cache labels, content coding, 304, and global headers, in this order.

The messages of a response that the application sends pass through here once, outside of any
middleware, so it does not matter who made the response.
"""

from __future__ import annotations

from aeros.caching.response import is_match, labelled, sliced, without_content
from aeros.compression import Base
from aeros.compression.response import ResponseCoder
from aeros.exchange import Exchange
from aeros.http.fields import first_value, with_list_member
from aeros.types import Message, RawHeaders, Scope, Send

_FAILURE_BODY = b"Internal Server Error"


class Outgoing:
    """The ``send`` that an application gets for one request.

    Args:
        send: Where the messages go.
        scope: The request's ASGI scope.
        exchange: What the other parts know of the request.
        coder: Applies a content coding.
        compressor: Chooses the coding; None where responses are not compressed.
        global_headers: Fields for every response that does not have them; ``vary`` joins its list.
    """

    __slots__ = (
        "_coder",
        "_compressor",
        "_exchange",
        "_global",
        "_held",
        "_is_out",
        "_may_code",
        "_scope",
        "_send",
        "started",
    )

    def __init__(
        self,
        send: Send,
        scope: Scope,
        exchange: Exchange,
        *,
        coder: ResponseCoder,
        compressor: Base | None,
        global_headers: RawHeaders,
    ) -> None:
        self._send = send
        self._scope = scope
        self._exchange = exchange
        self._coder = coder
        self._compressor = compressor
        self._global = global_headers
        self._held: Message | None = None
        self._is_out = False
        self._may_code = False
        self.started: bool = False

    async def __call__(self, message: Message) -> None:
        """Sends ``message``; a start may be held until the first of the body has come."""
        kind = message["type"]
        if kind == "http.response.start":
            await self._on_start(message)
        elif kind == "http.response.body" and self._held is not None:
            start, self._held = self._held, None
            await self._on_first_body(start, message)
        elif not self._is_out:
            await self._send(message)
        elif not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self) -> None:
        """Answers for an application that raised before it had answered: a plain 500."""
        headers: RawHeaders = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILURE_BODY)),
        ]
        self._held = None
        await self({"type": "http.response.start", "status": 500, "headers": headers})
        await self({"type": "http.response.body", "body": _FAILURE_BODY})

    async def _on_start(self, start: Message) -> None:
        # From here on the response is on its way: the next request may be handled.
        self._exchange.release_slot()
        start = {**start, "headers": list(start.get("headers", ()))}
        self._may_code = self._compressor is not None and self._coder.may_code(
            self._compressor, start["status"], start["headers"]
        )
        if self._is_of_interest() and first_value(start["headers"], b"content-length") is not None:
            self._held = start
            return
        # A stream: its head does not wait for its first chunk.
        headers = labelled(start["headers"], self._exchange, None)
        if self._may_code and start["status"] == 304:
            headers = with_list_member(headers, b"vary", "Accept-Encoding")
        await self._begin(start, headers)

    async def _on_first_body(self, start: Message, message: Message) -> None:
        headers: RawHeaders = start["headers"]
        body: bytes = message.get("body", b"")
        if not _is_whole(headers, message):
            await self._begin(start, labelled(headers, self._exchange, None))
            await self._send(message)
            return
        self._is_out = True
        headers = labelled(headers, self._exchange, body)
        # Tags made here, by the cache or for a coding, are unknown to the application: only
        # this place can compare them.
        compares = self._exchange.transaction is not None
        kept = self._exchange.representation
        is_kept = kept is not None and body is kept.body
        if self._compressor is not None and self._may_code:
            coded = await self._coder.apply(self._compressor, self._scope, self._exchange, headers, body)
            compares = compares or coded.is_coded
            headers, body = coded.headers, coded.body
        if compares and is_match(self._scope, start["status"], headers):
            start["status"], headers, body = 304, without_content(headers), b""
        elif is_kept:
            start["status"], headers, body = sliced(self._scope, start["status"], headers, body)
        await self._begin(start, headers)
        # The application's own end is awaited: a generator may still work after its last chunk,
        # and a server that had the end already would tell it that the client has left.
        await self._send({**message, "body": body})

    def _is_of_interest(self) -> bool:
        return self._may_code or self._exchange.transaction is not None

    async def _begin(self, start: Message, headers: RawHeaders) -> None:
        for name, value in self._global:
            if name == b"vary":  # a list: this place itself may have put a member there
                headers = with_list_member(headers, name, value.decode("latin-1"))
            elif first_value(headers, name) is None:
                headers = [*headers, (name, value)]
        start["headers"] = headers
        self.started = True
        await self._send(start)


def _is_whole(headers: RawHeaders, message: Message) -> bool:
    """Tells whether this first message has all of the body.

    Quart sends a whole body as ``more_body=True`` and then an empty message, so the declared
    length decides.
    """
    if not message.get("more_body", False):
        return True
    length = first_value(headers, b"content-length")
    return length is not None and length == b"%d" % len(message.get("body", b""))
