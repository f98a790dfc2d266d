"""One request and its response on a connection: the ``receive`` and ``send`` of an application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Final

from aeros.exchange import Arrival, HeadMemory, WholeSend
from aeros.http.fields import NO_NAME, NO_VALUE
from aeros.types import ASGIApplication, Message, RawHeaders, Scope

if TYPE_CHECKING:
    from aeros.serving.protocol import HTTPProtocol

_EMPTY: Final = frozenset({204, 304})
_FAILURE: Final = b"Internal Server Error"
_MOST_NAMES: Final = 1_000
_LONGEST_NAME: Final = 64
_MOST_LINES: Final = 1_000
_LONGEST_VALUE: Final = 256
_LASTING: Final = frozenset(
    {
        b"accept-ranges",
        b"access-control-allow-origin",
        b"allow",
        b"cache-control",
        b"content-encoding",
        b"content-language",
        b"content-security-policy",
        b"content-type",
        b"cross-origin-opener-policy",
        b"cross-origin-resource-policy",
        b"permissions-policy",
        b"referrer-policy",
        b"server",
        b"strict-transport-security",
        b"vary",
        b"x-content-type-options",
        b"x-frame-options",
    }
)


class Cycle(WholeSend, Arrival):
    """What happens between one request and its response.

    Args:
        protocol: The connection.
        scope: The request's ASGI scope.
        keep_alive: Whether the connection may serve another request after it.
        expects_continue: Whether the client waits for ``100 Continue`` before it sends its body.

    Attributes:
        status: The status of the response; 500 before it has begun, which is what the client gets then.
        body_bytes: How many bytes of the body were sent.
    """

    # What most requests leave as it is costs none of them anything.
    body: bytes | bytearray = b""
    more_body: bool = True
    disconnected: bool = False
    response_started: bool = False
    response_complete: bool = False
    status: int = 500
    body_bytes: int = 0
    _chunked: bool = False
    _left_to_send: int = 0
    _waiting: asyncio.Event | None = None
    _on_leaving: Callable[[], None] | None = None
    _task: asyncio.Task[None] | None = None

    def __init__(
        self, protocol: HTTPProtocol, scope: Scope, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        self._protocol = protocol
        self.scope: Scope = scope
        self.keep_alive: bool = keep_alive
        self.expects_continue: bool = expects_continue

    async def run(self, app: ASGIApplication) -> None:
        """Runs the application; what it leaves undone is answered or cut off."""
        protocol = self._protocol
        try:
            result: object = await app(self.scope, self.receive, self)  # type: ignore[func-returns-value]
        except BaseException as error:
            protocol.logger.error("Exception in ASGI application\n", exc_info=error)
            await self._give_up()
        else:
            if result is not None:
                protocol.logger.error("ASGI callable should return None, but returned '%s'.", result)
                protocol.direct().close()
            elif not self.response_complete and not self.disconnected:
                what = "completing" if self.response_started else "starting"
                protocol.logger.error("ASGI callable returned without %s response.", what)
                await self._give_up()
        finally:
            if self._task is not None:
                protocol.tasks.discard(self._task)

    # What the application calls

    async def receive(self) -> Message:
        """Returns the next part of the request, or that the client has left."""
        protocol = self._protocol
        if self.expects_continue and not protocol.transport.is_closing():
            self.expects_continue = False
            protocol.direct().write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            protocol.flow.resume_reading()
            # What has come already is told at once; after the end there is only the client's leaving.
            waiting = self._event()
            await waiting.wait()
            waiting.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def __call__(self, message: Message) -> None:
        """Sends one message of the response."""
        if self.disconnected:
            # A stream that waits for nothing would never let its cancellation come.
            await asyncio.sleep(0)
            return
        flow = self._protocol.flow
        if flow.write_paused:
            await flow.drain()
            if self.has_left:
                return
        kind: str = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
            self._send_start(message["status"], list(message.get("headers", ())))
        elif self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        elif kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        else:
            self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))

    @property
    def has_left(self) -> bool:
        """Whether the client has left before it got all of the response."""
        return self.disconnected

    @property
    def is_clear(self) -> bool:
        """Whether what is sent now goes out without waiting for the client."""
        return not self._protocol.flow.write_paused

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Sends a whole response."""
        if not self.at_once(status, headers, body):
            await self({"type": "http.response.start", "status": status, "headers": headers})
            await self({"type": "http.response.body", "body": body})

    def at_once(
        self, status: int, headers: RawHeaders, body: bytes, memory: HeadMemory | None = None
    ) -> bool:
        """Sends a whole response, head and body in one write, unless the client must be waited for."""
        if self._protocol.flow.write_paused or self.disconnected or self.response_started:
            return False
        if memory is not None and self.keep_alive:
            head: bytes | None = self._protocol.remembered_head(status, headers, memory) + b"\r\n"
        else:
            head = self._whole_head(status, headers, body)
        if head is None:
            return False
        self.response_started = True
        self.expects_continue = False
        self.status = status
        self.body_bytes = len(body)
        self._protocol.send(head, b"" if self.scope["method"] == "HEAD" else body)
        self._complete()
        return True

    def part_at_once(self, body: bytes) -> bool:
        """Sends a further part of a body in chunks, unless the client must be waited for."""
        protocol = self._protocol
        if (
            not self._chunked
            or not self.response_started
            or self.response_complete
            or self.disconnected
            or protocol.flow.write_paused
            or self.scope["method"] == "HEAD"
        ):
            return False
        self.body_bytes += len(body)
        if body:
            protocol.write_part(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    # What the connection calls

    def received(self, body: bytes) -> None:
        """Takes a part of the request's body."""
        if isinstance(self.body, bytearray):
            self.body += body
        else:
            self.body = bytearray(self.body + body) if self.body else body
        self._wake()

    def ended(self) -> None:
        """Takes note that the request has come to its end."""
        self.more_body = False
        self._wake()

    def client_left(self) -> None:
        """Takes note that nobody is there any more."""
        self.disconnected = not self.response_complete
        self._wake()
        on_leaving, self._on_leaving = self._on_leaving, None
        if on_leaving is not None and self.disconnected:
            on_leaving()

    def begin(self, app: ASGIApplication, context: Context | None) -> asyncio.Task[None]:
        """Begins to run the application, in a task."""
        self._task = self._protocol.loop.create_task(self.run(app), context=context)
        return self._task

    # Arrival

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task in which the application runs."""
        return self._task

    def take_all(self) -> bytes | None:
        """Returns the body if it is all there."""
        if self.more_body:
            return None
        body = self.body
        if not body:
            return b""
        self.body = b""
        # Reading stops where much waits to be taken; from here on it tells whether the client leaves.
        self._protocol.flow.resume_reading()
        return bytes(body)

    def on_leaving(self, call: Callable[[], None] | None) -> None:
        """Has a function called once if the client leaves before the response has ended."""
        self._on_leaving = call
        if call is not None and self.disconnected:
            self._on_leaving = None
            call()

    # The response

    def _send_start(self, status: int, headers: RawHeaders) -> None:
        protocol = self._protocol
        head, length = self._head(status, headers)
        if length is not None:
            self._left_to_send = length
        elif not self._chunked and self.scope["method"] != "HEAD" and status not in _EMPTY:
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        head.append(b"\r\n")
        self.response_started = True
        self.expects_continue = False
        self.status = status
        protocol.write_part(b"".join(head))

    def _send_body(self, body: bytes, *, is_last: bool) -> None:
        write_part = self._protocol.write_part
        self.body_bytes += len(body)
        if self.scope["method"] == "HEAD":
            self._left_to_send = 0
        elif self._chunked:
            content = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            if is_last:
                content.append(b"0\r\n\r\n")
            if content:
                write_part(b"".join(content))
        else:
            if len(body) > self._left_to_send:
                raise RuntimeError("Response content longer than Content-Length")
            self._left_to_send -= len(body)
            if body:
                write_part(body)
        if is_last:
            if self._left_to_send != 0:
                raise RuntimeError("Response content shorter than Content-Length")
            self._complete()

    def _whole_head(self, status: int, headers: RawHeaders, body: bytes) -> bytes | None:
        """Returns the head of a whole response; None where its parts say what is wrong with it."""
        head, length = self._head(status, headers)
        is_head = self.scope["method"] == "HEAD"
        if self._chunked or (
            length != len(body) and not is_head and not (length is None and status in _EMPTY and not body)
        ):
            self._chunked = False
            return None
        if length is None and not is_head and status not in _EMPTY:
            return None
        head.append(b"\r\n")
        return b"".join(head)

    def _head(self, status: int, headers: RawHeaders) -> tuple[list[bytes], int | None]:
        """Returns the lines of a head, without its end, and the length that it declares."""
        head = self._protocol.head(status, headers)
        self._chunked = head.is_chunked
        if head.is_closing:
            self.keep_alive = False
        elif not self.keep_alive:
            head.lines.append(b"connection: close\r\n")
        return head.lines, None if head.is_chunked else head.length

    def _complete(self) -> None:
        self.response_complete = True
        self._on_leaving = None
        self._wake()
        if not self.keep_alive:
            self._protocol.direct().close()
        self._protocol.on_response_complete()

    async def _give_up(self) -> None:
        if self.response_started or self.disconnected:
            self._protocol.direct().close()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILURE)),
        ]
        await self.whole(500, [*headers, (b"connection", b"close")], _FAILURE)

    # Waiting

    def _event(self) -> asyncio.Event:
        if self._waiting is None:
            self._waiting = asyncio.Event()
            if self.body or not self.more_body:
                self._waiting.set()
        return self._waiting

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set()


class Head:
    """The lines of a response's head, without its end.

    Args:
        lines: Its first lines: the status, and the fields that every response of the server has.
        headers: The response's own fields.
        known: The lines of fields that came before.
        date: The line of ``Date`` where none of them is one; None: none is added.

    Attributes:
        lines: The lines.
        length: The length of the body, if it is declared.
        is_chunked: Whether the body is sent in chunks.
        is_closing: Whether it says that the connection ends.
        has_date: Whether the fields have a date, in place of which none is written.

    Raises:
        RuntimeError: A name or a value can not be sent.
    """

    __slots__ = ("has_date", "is_chunked", "is_closing", "length", "lines")

    def __init__(
        self, lines: list[bytes], headers: RawHeaders, known: FieldLines, date: bytes | None
    ) -> None:
        self.lines: list[bytes] = lines
        self.length: int | None = None
        self.is_chunked: bool = False
        self.is_closing: bool = False
        self.has_date: bool = False
        for given, value in headers:
            line = known.get((given, value))
            if line is not None:
                lines.append(line)
                continue
            name = known.name(given)
            lines.append(known.line(name, given, value))
            if name == b"content-length":
                if self.length is None:
                    self.length = int(value)
            elif name == b"date":
                date, self.has_date = None, True
            elif name == b"transfer-encoding":
                self.is_chunked = self.is_chunked or value.lower() == b"chunked"
            elif name == b"connection":
                tokens = [token.strip() for token in value.lower().split(b",")]
                self.is_closing = self.is_closing or b"close" in tokens
        if date is not None:
            lines.append(date)


class FieldLines(dict[tuple[bytes, bytes], bytes]):
    """Lines of responses' heads, by their field as it was given; those that came first are remembered.

    Only fields that many responses have alike, and that mean nothing to the server, are among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}

    def name(self, given: bytes) -> bytes:
        """Returns a name in lower case.

        Raises:
            RuntimeError: It is no name of a field.
        """
        name = self._names.get(given)
        if name is not None:
            return name
        if not given or NO_NAME.search(given):
            raise RuntimeError("Invalid HTTP header name.")
        name = given.lower()
        if len(self._names) < _MOST_NAMES and len(given) <= _LONGEST_NAME:
            self._names[given] = name
        return name

    def line(self, name: bytes, given: bytes, value: bytes) -> bytes:
        """Returns the line of a field.

        Args:
            name: Its name in lower case.
            given: Its name as the response has it.
            value: Its value.

        Raises:
            RuntimeError: The value can not be sent.
        """
        if NO_VALUE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        line = b"%b: %b\r\n" % (name, value)
        if name in _LASTING and len(value) <= _LONGEST_VALUE and len(self) < _MOST_LINES:
            self[given, value] = line
        return line
