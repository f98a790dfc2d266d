"""What a server that stops does with its connections and its loop."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import ssl
import struct
import sys
from array import array
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, cast, runtime_checkable

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

from aeros.serving.forwarding import UVICORN_LOGGER_NAME

# More than any client's patience waits in the queue of a socket.
_MOST_WAITING: Final = 4096
_HANDSHAKE_SECONDS: Final = 5.0
_CANCELLING_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0


class Connection(Protocol):
    """A connection of uvicorn's or of ours."""

    transport: asyncio.Transport

    def shutdown(self) -> None:
        """Takes note that the server stops."""
        ...


@runtime_checkable
class Resting(Protocol):
    """A connection that may be between two requests, and is left open then when the server stops."""

    @property
    def is_resting(self) -> bool:
        """Whether no request is under way."""
        ...

    def finish(self) -> None:
        """Writes what was held: somebody is about to close the transport."""
        ...


class Connections:
    """The connections of a server that stops.

    Args:
        connections: Those that are open now, as the server keeps them.
    """

    def __init__(self, connections: Collection[object]) -> None:
        self._open = cast("Collection[Connection]", connections)
        self._retired: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def retire(self) -> None:
        """Tells those that do not know yet that the response under way, or the next one, is the last."""
        self._retired.intersection_update(self._open)
        for connection in [one for one in self._open if one not in self._retired]:
            self._retired.add(connection)
            connection.shutdown()

    def close_idle(self) -> None:
        """Closes those on which nothing is under way and no request has just come."""
        resting = [
            one
            for one in self._open
            if not one.transport.is_closing() and isinstance(one, Resting) and one.is_resting
        ]
        with_data = _readable(one.transport for one in resting)
        for connection in resting:
            if connection.transport not in with_data:
                connection.finish()
                connection.transport.close()

    def abort(self) -> None:
        """Closes them all, whatever is under way."""
        for connection in list(self._open):
            connection.transport.abort()


def accept_waiting(servers: Iterable[asyncio.AbstractServer]) -> list[socket.socket]:
    """Accepts whoever waits in the queue of a listening socket: closing it would turn them away.

    Nothing else may happen between this and the closing, or somebody else waits there by then.

    Args:
        servers: The servers that listen.
    """
    accepted: list[socket.socket] = []
    for server in servers:
        for listener in cast("Any", server).sockets or ():
            accepted += _accept_all(listener.fileno())
    return accepted


async def connect(
    accepted: Iterable[socket.socket],
    build_protocol: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext | None,
) -> None:
    """Serves connections that were accepted by hand.

    Args:
        accepted: Their sockets.
        build_protocol: Makes the protocol of a connection.
        context: For TLS.
    """
    loop = asyncio.get_running_loop()
    connecting = [loop.create_task(_connect(loop, build_protocol, one, context)) for one in accepted]
    if connecting:
        await asyncio.wait(connecting, timeout=_HANDSHAKE_SECONDS)


async def _connect(
    loop: asyncio.AbstractEventLoop,
    build_protocol: Callable[[], asyncio.Protocol],
    connection: socket.socket,
    context: ssl.SSLContext | None,
) -> None:
    with suppress(OSError):  # the client has left, or its handshake has failed
        await loop.connect_accepted_socket(build_protocol, connection, ssl=context)


def _accept_all(listening: int) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    with suppress(OSError), socket.socket(fileno=os.dup(listening)) as listener:
        listener.setblocking(False)
        while len(accepted) < _MOST_WAITING:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def _readable(transports: Iterable[asyncio.Transport]) -> set[asyncio.Transport]:
    """Returns the transports on whose sockets something waits to be read."""
    by_number: dict[int, asyncio.Transport] = {}
    for transport in transports:
        number = _number(transport)
        if number is not None:
            by_number[number] = transport
    if not by_number or not hasattr(select, "poll"):
        return set()
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return {by_number[number] for number, _ in poll.poll(0)}


def _number(transport: asyncio.Transport) -> int | None:
    found: object = transport.get_extra_info("socket")
    number = cast(int, cast(Any, found).fileno()) if found is not None else -1
    return number if number >= 0 and not transport.is_closing() else None


def end_gently(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    """Ends a connection whose client may still be sending.

    Where something that it sent is not read yet, closing it would reset it, and the client might never
    see what was said last.
    """
    if transport.can_write_eof():
        transport.resume_reading()
        transport.write_eof()
        loop.call_later(_LINGER_SECONDS, transport.close)
    else:
        transport.close()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Returns how many bytes wait for a client to read, those in the system's queue included; 0 if none do.

    Where some wait here, only both together tell whether the client reads: the system asks for more only
    when much of its queue is gone.
    """
    try:
        waiting = transport.get_write_buffer_size()
        found: Any = transport.get_extra_info("socket")
    except AttributeError:  # asyncio's with TLS, once it was closed twice
        return 0
    if not waiting or found is None or sys.platform != "linux":
        return waiting
    queued = array("i", [0])
    try:
        ioctl(found.fileno(), TIOCOUTQ, queued)
    except OSError:  # it is closed, or of a kind that has no queue
        return waiting
    return waiting + queued[0]


def cut_off(transport: asyncio.Transport) -> None:
    """Ends a connection whose client does not read, together with what waits for it in the system."""
    with suppress(OSError, AttributeError):
        found: Any = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Closes a loop that has done its work; what ignores being cancelled is left behind.

    ``asyncio.Runner`` would wait for it for ever.
    """
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            done, stuck = loop.run_until_complete(asyncio.wait(left, timeout=_CANCELLING_SECONDS))
            _report(loop, done)
            if stuck:
                uvicorn_logger().error("Left behind %d tasks that do not end when cancelled", len(stuck))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def _report(loop: asyncio.AbstractEventLoop, done: Iterable[asyncio.Task[Any]]) -> None:
    for task in done:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            loop.call_exception_handler(
                {"message": "unhandled exception while the server ended", "exception": error, "task": task}
            )


def uvicorn_logger() -> logging.Logger:
    """Returns the logger that is forwarded to the application's while it is served."""
    return logging.getLogger(UVICORN_LOGGER_NAME)
