"""A server on a real socket in the test's own loop, so that a test knows when it has read and said all."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from logging import Logger, getLogger
from typing import Any, Final, NamedTuple, cast

from uvicorn.server import ServerState

from aeros.serving.application import ServedApplication
from aeros.serving.config import Config, build_config
from aeros.settings import ServerSettings
from aeros.types import ASGIApplication, Message, RawHeaders, Receive, Scope, Send

# How often the loop is let run for what is to happen; what has not happened then waits for the client.
TURNS: Final = 300
QUIET_TURNS: Final = 12
UVICORNS: Final[Mapping[str, object]] = {"http": "httptools"}
OWN: Final[Mapping[str, object]] = {}


class Said(NamedTuple):
    """What a server said on one connection.

    Attributes:
        content: All of it, but for the value of ``Date``.
        is_kept: Whether it would have taken another request.
    """

    content: bytes
    is_kept: bool


@dataclass
class Connection:
    """The server's side of a connection.

    Attributes:
        protocol: uvicorn's or aeros's.
        seen: How many bytes it was given.
    """

    protocol: Any
    seen: int = 0

    def has_taken(self, sent: int) -> bool:
        """Tells whether it was given so many bytes, or will take no more."""
        return self.seen >= sent or self.is_closing

    @property
    def is_closing(self) -> bool:
        """Whether the server has ended it."""
        transport: asyncio.Transport | None = self.protocol.transport
        return transport is not None and transport.is_closing()


@dataclass
class Listening:
    """A server, and its connections in the order in which they came."""

    served: ServedApplication
    config: Config
    state: ServerState
    port: int = 0
    connections: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue[Connection])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Connection]:
        """Returns both sides of a new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer, await self.connections.get()

    async def say(self, pieces: Iterable[bytes]) -> Said:
        """Sends pieces, each once the server has taken the one before, and returns all that it says."""
        reader, writer, connection = await self.connect()
        hearing = asyncio.ensure_future(heard(reader))
        sent = 0
        for piece in pieces:
            if connection.is_closing:
                break
            writer.write(piece)
            sent += len(piece)
            await turn(partial(connection.has_taken, sent))
        await turn(lambda: not self.state.tasks and connection.has_taken(sent))
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)
        is_kept = not connection.is_closing
        connection.protocol.transport.close()
        said = await asyncio.wait_for(hearing, 20)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        while self.state.tasks:
            await asyncio.sleep(0)
        return Said(undated(said), is_kept)


async def turn(until: Callable[[], object]) -> None:
    """Lets the loop run until something is so, or will not become so by itself."""
    for _ in range(TURNS):
        if until():
            return
        await asyncio.sleep(0)


async def heard(reader: asyncio.StreamReader) -> bytes:
    """Returns what comes until the end, or until it breaks off."""
    parts: list[bytes] = []
    with suppress(ConnectionError):
        while part := await reader.read(2**16):
            parts.append(part)
    return b"".join(parts)


def undated(said: bytes) -> bytes:
    """Returns what was said with one word for each moment."""
    said = re.sub(rb"\r\n([dD]ate): \w{3}, [^\r]+ GMT\r\n", rb"\r\n\1: now\r\n", said)
    return re.sub(rb" at 0x[0-9a-f]+", b"", said)


@asynccontextmanager
async def listening(
    app: Any, options: Mapping[str, object], settings: ServerSettings | None = None
) -> AsyncGenerator[Listening]:
    """Serves an application on a free port of the loopback device while the context lasts."""
    chosen = settings or ServerSettings(access_log_to_std=False)
    chosen = chosen.replace({"uvicorn_options": {**chosen.uvicorn_options, **options}})
    served = ServedApplication(app, chosen)
    config = build_config(served, one_process=True)
    config.load()
    server = Listening(served, config, ServerState())
    server.state.default_headers = config.encoded_headers
    make: Any = config.http_protocol_class

    def accept() -> asyncio.Protocol:
        protocol: Any = make(config, server.state, {})
        connection = Connection(protocol)
        take = protocol.data_received

        def data_received(data: bytes) -> None:
            connection.seen += len(data)
            take(data)

        protocol.data_received = data_received
        server.connections.put_nowait(connection)
        return cast(asyncio.Protocol, protocol)

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        with served.serving():
            yield server
    finally:
        listener.close()
        for protocol in list(server.state.connections):
            cast(Any, protocol).transport.close()
        async with asyncio.timeout(20):
            while server.state.connections or server.state.tasks:
                await asyncio.sleep(0)


class Nothing:
    """Early answers of an application that has none."""

    is_used = False

    def question(
        self, method: str, scheme: str, raw_path: bytes, query: bytes, headers: RawHeaders, *, is_dated: bool
    ) -> None:
        """Never asked."""
        raise AssertionError("nothing is used")

    def find(self, question: object, /) -> None:
        """Never asked."""
        raise AssertionError("nothing is used")


class Bare:
    """An ASGI application without a framework, as the server wants one."""

    def __init__(self, app: ASGIApplication) -> None:
        self._app = app
        self.early_answers = Nothing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        await self._app(scope, receive, send)

    def current_logger(self) -> Logger:
        """Returns a logger."""
        return getLogger("bare")

    def using_settings(self, settings: ServerSettings) -> AbstractContextManager[None]:
        """Has none of its own."""
        return nullcontext()

    def described(self) -> Mapping[str, object]:
        """Says nothing."""
        return {}


async def whole_body(receive: Receive) -> bytes:
    """Returns the body of a request."""
    body: list[bytes] = []
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join([*body, b" and then left"])
        body.append(message["body"])
        if not message["more_body"]:
            return b"".join(body)
