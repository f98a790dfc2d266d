"""Responses on their way to the sockets: those of one turn of the event loop are written in a row.

A client that gets its answer wakes up, on the same processor or on another, while the next request of the
turn waits. Answering all of a turn first, and writing then, took a third off the CPU time of a small
response where sixteen clients ask at once (docs/performance.md). The parts of a stream that come in one turn
are written as one.
"""

from __future__ import annotations

import asyncio

_LARGE_BODY = 16_384
"""Bytes from which copying a body behind its head takes longer than handing both over."""
_MOST_HELD = 65_536
"""Bytes that wait for the end of a turn; of more, flow control has to know."""


class Outbox:
    """The responses of one turn, for all connections of one event loop.

    A response is written at once if no other request of its turn is being answered; so a client alone waits
    for nothing. Whoever writes to a transport by another way calls ``flush()`` first.
    """

    __slots__ = ("_begun", "_bytes", "_flushing", "_held", "_parts")

    def __init__(self) -> None:
        self._held: list[tuple[asyncio.Transport, bytes, bytes]] = []
        # Whoever was written a part of a stream in this turn, and the parts that came after it.
        self._parts: dict[asyncio.Transport, list[bytes]] = {}
        self._flushing: asyncio.Handle | None = None
        self._begun = 0
        self._bytes = 0

    def expect(self) -> None:
        """Takes note that a request begins to be answered."""
        self._begun += 1

    def send(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, head: bytes, body: bytes
    ) -> None:
        """Writes a whole response, in this turn of the loop or in the next.

        Args:
            loop: The event loop.
            transport: Where to.
            head: Its head.
            body: Its body.
        """
        self._begun -= 1
        if self._begun > 0:
            self.hold(loop, transport, head, body)
            return
        self.flush()
        write_whole(transport, head, body)

    def hold(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, head: bytes, body: bytes
    ) -> None:
        """Writes a whole response in the next turn of the loop, or with the next ``flush()``."""
        self._held.append((transport, head, body))
        self._bytes += len(body)
        if self._flushing is None:
            self._flushing = loop.call_soon(self.flush)
        if self._bytes > _MOST_HELD:
            self.flush()

    def write_part(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, part: bytes) -> None:
        """Writes the head or a part of a stream: the first of a turn at once, the others at its end."""
        parts = self._parts.get(transport)
        if parts is None or self._held:
            if self._held:
                self.flush()
            self._parts[transport] = []
            if self._flushing is None:
                self._flushing = loop.call_soon(self.flush)
            transport.write(part)
            return
        parts.append(part)
        self._bytes += len(part)
        if self._bytes > _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Writes what is held."""
        self._begun = 0  # those that wait for something belong to no turn any more
        flushing, self._flushing = self._flushing, None
        if flushing is None:
            return
        flushing.cancel()
        self._bytes = 0
        if self._parts:
            streams, self._parts = self._parts, {}
            for transport, parts in streams.items():
                if parts and not transport.is_closing():
                    write_parts(transport, parts)
        if self._held:
            held, self._held = self._held, []
            for transport, head, body in held:
                if not transport.is_closing():
                    write_whole(transport, head, body)


def write_whole(transport: asyncio.Transport, head: bytes, body: bytes) -> None:
    """Writes a head and a body at once: a short body is copied behind its head."""
    if len(body) < _LARGE_BODY:
        transport.write(head + body)
    else:
        transport.writelines([head, body])


def write_parts(transport: asyncio.Transport, parts: list[bytes]) -> None:
    """Writes parts of a body at once; short ones are copied behind each other."""
    if max(map(len, parts)) < _LARGE_BODY:
        transport.write(b"".join(parts))
    else:
        transport.writelines(parts)
