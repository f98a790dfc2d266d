"""One response on its way through the compressor: what an application sends, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from aeros.compression.compressors import Base
from aeros.compression.response import OPTED_OUT, ResponseCoder, flush_seconds
from aeros.compression.stream import CodedStream, Timer
from aeros.exchange import Exchange, HeadMemory, WholeSend
from aeros.http.conditional import is_match, with_known_tag, without_content
from aeros.http.fields import first_value, with_list_member
from aeros.types import Message, RawHeaders, Scope, Send

# Ways to send a body without its bytes passing through Python: there is nothing to compress.
_WHOLE_FILE: Final = "http.response.pathsend"
_PART_OF_FILE: Final = "http.response.zerocopysend"
_LAST: Final = ("http.response.body", _WHOLE_FILE)


class CodedSend(WholeSend):
    """The ``send`` that an application gets for one request; compresses what may be compressed.

    A start is held until the first of the body has come, because the fields depend on it; that of
    a stream is held for no longer than the compressor's ``flush_seconds``. Messages of ASGI
    extensions pass.

    Args:
        send: Where the messages go.
        scope: The request's ASGI scope.
        exchange: What the other parts know of the request.
        coder: Applies a content coding.
        compressor: Chooses the coding; None where responses are not compressed.
    """

    __slots__ = (
        "_compressor",
        "_discards",
        "_held",
        "_lock",
        "_may_code",
        "_send",
        "_stream",
        "_timer",
        "_whole",
        "coder",
        "exchange",
        "scope",
        "started",
    )

    def __init__(
        self, send: Send, scope: Scope, exchange: Exchange, *, coder: ResponseCoder, compressor: Base | None
    ) -> None:
        self._send = send
        self._whole = send if isinstance(send, WholeSend) else None
        self.scope: Scope = scope
        self.exchange: Exchange = exchange
        self.coder: ResponseCoder = coder
        self._compressor = compressor
        self._held: Message | None = None
        self._may_code = False
        # Whether what still comes of the body is not for the client, who has it or has none.
        self._discards = False
        self._stream: CodedStream | None = None
        self._timer: Timer | None = None
        self._lock: asyncio.Lock | None = None
        self.started: bool = False

    async def __call__(self, message: Message) -> None:
        """Sends ``message``, or holds it for a while."""
        if not message.get("more_body", False) and message["type"] in _LAST:
            self.exchange.is_answered = True
        if self._timer is None or self._lock is None:
            await self._take(message)
            return
        self._timer.stop()
        async with self._lock:
            self._timer.check()  # in the lock: what it waited for may be a start that fails
            await self._take(message)

    @property
    def is_clear(self) -> bool:
        """Whether what is sent now goes out without waiting for the client."""
        return self._whole is not None and self._whole.is_clear

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Sends a whole response."""
        if not self._may_be_whole(headers, body):
            await self({"type": "http.response.start", "status": status, "headers": headers})
            await self({"type": "http.response.body", "body": body})
            return
        self.exchange.is_answered = True
        self.on_start()
        headers = self._prepared(status, headers)
        made = self._made_at_once(status, headers, body)
        if made is None:
            made = await self._made_whole(status, headers, body)
        self._discards = self.started = True
        status, headers, content = self._finished(*made)
        send = self._send
        if self._whole is not None:
            await self._whole.whole(status, headers, content)
        else:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

    def at_once(
        self,
        status: int,
        headers: RawHeaders,
        body: bytes,
        memory: HeadMemory | None = None,  # noqa: ARG002 - for other fields than those that go out
    ) -> bool:
        """Sends a whole response if its content is at hand, and the client is; returns whether it did."""
        return self.sent_at_once(status, headers, body) is not None

    def sent_at_once(
        self, status: int, headers: RawHeaders, body: bytes
    ) -> tuple[int, RawHeaders, bytes] | None:
        """Does what ``at_once()`` does, and returns what was sent; None where nothing was."""
        send = self._whole
        if send is None or not send.is_clear or not self._may_be_whole(headers, body):
            return None
        # What is found out here once more in whole(), if need be, is the same then.
        self.on_start()
        made = self.made_at_once(status, headers, body)
        if made is None or not send.at_once(*made):
            return None  # why not is told there
        self._discards = self.started = self.exchange.is_answered = True
        return made

    def made_at_once(
        self, status: int, headers: RawHeaders, body: bytes
    ) -> tuple[int, RawHeaders, bytes] | None:
        """Returns a whole response as the client gets it; None where somebody has to wait for it."""
        made = self._made_at_once(status, self._prepared(status, headers), body)
        return None if made is None else self._finished(*made)

    def part_at_once(self, body: bytes) -> bool:
        """Sends a further part of a stream that passes as it is, if the client is ready for it."""
        send = self._whole
        return (
            send is not None
            and self.started
            and self._held is None
            and self._stream is None
            and self._timer is None
            and not self._discards
            and send.part_at_once(body)
        )

    def close(self) -> None:
        """Lets go of what the response still has, e.g. of a client that has left."""
        if self._timer is not None:
            self._timer.close()
        if self._stream is not None:
            self._stream.close()

    # What those who do more than compressing change

    def on_start(self) -> None:
        """The application has begun to answer."""

    def labelled(self, headers: RawHeaders) -> RawHeaders:
        """Returns the fields of a stream with what others have to say."""
        return headers

    def labelled_at_once(self, _status: int, headers: RawHeaders, _body: bytes, /) -> RawHeaders | None:
        """Returns the fields of a whole response (status, fields, body) with what others have to say.

        None: that takes so long that ``labelled_whole()`` has to be awaited.
        """
        return headers

    async def labelled_whole(self, _status: int, headers: RawHeaders, _body: bytes, /) -> RawHeaders:
        """Returns what ``labelled_at_once()`` does, where that takes long."""
        return headers

    def needs_body(self) -> bool:
        """Tells whether the start waits for the body, also where nothing is compressed."""
        return False

    def concluded(
        self, status: int, headers: RawHeaders, content: bytes, identity: bytes
    ) -> tuple[int, RawHeaders, bytes]:
        """Returns a whole response as the client gets it, from its content as coded and uncoded.

        A tag made here, for a coding, is unknown to the application: only here can it be compared.
        """
        is_coded = content is not identity
        if is_coded and is_match(self.scope["method"], self.scope["headers"], status, headers):
            return 304, without_content(headers), b""
        return status, headers, content

    def forget_start(self) -> None:
        """Forgets a start that is still held: something else is to be answered."""
        self._held = None

    def completed(self, headers: RawHeaders) -> RawHeaders:
        """Returns the fields of a response as they go out."""
        return headers

    # The messages

    async def _begin(self, start: Message, headers: RawHeaders) -> None:
        self.started = True
        await self._send({**start, "headers": self.completed(headers)})

    async def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            await self._on_start(message)
        elif kind != "http.response.body":
            await self._on_other(message)
        elif self._held is not None:
            start, self._held = self._held, None
            await self._on_first_body(start, message)
        elif self._stream is not None:
            await self._stream(message)
        elif not self._discards:
            await self._send(message)
        elif not message.get("more_body", False):
            await self._send({**message, "body": b""})

    async def _on_start(self, start: Message) -> None:
        self.on_start()
        headers = self._prepared(start["status"], list(start.get("headers", ())))
        start = {**start, "headers": headers}
        if (not self._may_code and not self.needs_body()) or start["status"] == 304:
            await self._pass(start)
        elif first_value(headers, b"content-length") is not None:
            self._held = start
        elif self._may_code and self._compressor is not None:
            self._held = start
            if not self._offers(_WHOLE_FILE, _PART_OF_FILE):
                self._hold_for(flush_seconds(self._compressor, headers))
        else:
            await self._pass(start)

    def _prepared(self, status: int, headers: RawHeaders) -> RawHeaders:
        """Returns the fields of a response once it is known whether it may be compressed."""
        compressor = self._compressor
        if OPTED_OUT in headers:
            self.exchange.opted_out = True  # for a compressor further out, which would not know
            return [line for line in headers if line != OPTED_OUT]
        if compressor is None or self.exchange.opted_out:
            return headers
        self._may_code = self.coder.may_code(compressor, status, headers)
        if status in (206, 304) and self.coder.varies(compressor, status, headers):
            headers = with_list_member(headers, b"vary", "Accept-Encoding")
        return with_known_tag(self.scope["headers"], headers) if status == 304 else headers

    def _hold_for(self, seconds: float) -> None:
        self._lock = asyncio.Lock()
        self._timer = Timer()
        self._timer.start(seconds, self._release_head)

    async def _release_head(self) -> None:
        """Sends the head of a stream whose first bytes have not come in time."""
        if self._lock is None:
            return
        async with self._lock:
            start, self._held = self._held, None
            if start is not None:
                await self._begin_stream(start)

    async def _on_first_body(self, start: Message, message: Message) -> None:
        headers: RawHeaders = start["headers"]
        if _is_whole(headers, message):
            await self._on_whole(start, message)
        elif self._may_code and not self._is_small(headers):
            await self._begin_stream(start)
            await self._take(message)
        else:
            await self._pass(start)
            await self._send(message)

    async def _on_whole(self, start: Message, message: Message) -> None:
        headers: RawHeaders = start["headers"]
        body: bytes = message.get("body", b"")
        if not body and self._may_code and self.scope["method"] == "HEAD" and not self._is_small(headers):
            # HEAD by an application that leaves the body out. A GET would be compressed.
            await self._begin_stream(start)
            await self._send(message)
            return
        self._discards = True
        status, headers, content = await self._made_whole(start["status"], headers, body)
        await self._begin({**start, "status": status}, headers)
        # The application's own end is awaited: a generator may still work after its last chunk,
        # and a server that had the end already would tell it that the client has left.
        await self._send({**message, "body": content})

    def _may_be_whole(self, headers: RawHeaders, body: bytes) -> bool:
        """Tells whether nothing was sent yet, and the body is what its fields announce."""
        if self.started or self._held is not None:
            return False
        return first_value(headers, b"content-length") == b"%d" % len(body)

    def _finished(self, status: int, headers: RawHeaders, content: bytes) -> tuple[int, RawHeaders, bytes]:
        return status, self.completed(headers), content

    def _made_at_once(
        self, status: int, headers: RawHeaders, body: bytes
    ) -> tuple[int, RawHeaders, bytes] | None:
        """Returns a whole response as the client gets it; None where ``_made_whole()`` has to be awaited."""
        if status == 304 or not (self._may_code or self.needs_body()):
            return status, self._passed(headers), body
        labelled = self.labelled_at_once(status, headers, body)
        if labelled is None:
            return None
        content = body
        if self._compressor is not None and self._may_code:
            coded = self.coder.apply_at_once(self._compressor, self.scope, self.exchange, labelled, body)
            if coded is None:
                return None
            labelled, content = coded
        return self.concluded(status, labelled, content, body)

    async def _made_whole(
        self, status: int, headers: RawHeaders, body: bytes
    ) -> tuple[int, RawHeaders, bytes]:
        """Returns a whole response as the client gets it."""
        labelled = self.labelled_at_once(status, headers, body)
        headers = await self.labelled_whole(status, headers, body) if labelled is None else labelled
        content = body
        if self._compressor is not None and self._may_code:
            headers, content = await self.coder.apply(
                self._compressor, self.scope, self.exchange, headers, body
            )
        return self.concluded(status, headers, content, body)

    async def _begin_stream(self, start: Message) -> None:
        compressor = self._compressor
        # Where parts of a body may be files that the server sends, the encoder would not see all of it.
        if compressor is None or not self._may_code or self._offers(_PART_OF_FILE):
            await self._pass(start)
            return
        headers = self.labelled(start["headers"])
        headers, coding = self.coder.begin_stream(compressor, self.scope, self.exchange, headers)
        if coding is not None and self.scope["method"] == "HEAD":
            self._discards = True
        elif coding is not None:
            self._stream = CodedStream(
                self._send,
                coding,
                flush_seconds=flush_seconds(compressor, headers),
                offload_size=compressor.offload_size,
                workshop=self.coder.workshop,
            )
        await self._begin(start, headers)

    async def _on_other(self, message: Message) -> None:
        start, self._held = self._held, None
        if start is not None:
            # A file that the server sends by itself: its head is complete.
            self._may_code, may_code = False, self._may_code
            await self._pass(start, varies=may_code)
        await self._send(message)

    async def _pass(self, start: Message, *, varies: bool = False) -> None:
        """Sends the start of a response that stays as it is."""
        await self._begin(start, self._passed(start["headers"], varies=varies))

    def _passed(self, headers: RawHeaders, *, varies: bool = False) -> RawHeaders:
        headers = self.labelled(headers)
        if varies or self._may_code:
            headers = with_list_member(headers, b"vary", "Accept-Encoding")
        return headers

    def _is_small(self, headers: RawHeaders) -> bool:
        """Tells whether the declared length is below the least that is worth compressing."""
        length = first_value(headers, b"content-length")
        if length is None or self._compressor is None:
            return False
        return not length.isdigit() or int(length) < self._compressor.min_size

    def _offers(self, *names: str) -> bool:
        extensions: Collection[str] = self.scope.get("extensions") or ()
        return any(name in extensions for name in names)


def _is_whole(headers: RawHeaders, message: Message) -> bool:
    """Tells whether this first message has all of the body.

    Quart sends a whole body as ``more_body=True`` and then an empty message, so the declared
    length decides.
    """
    if not message.get("more_body", False):
        return True
    length = first_value(headers, b"content-length")
    return length is not None and length == b"%d" % len(message.get("body", b""))
