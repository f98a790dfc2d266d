"""Bodies on their way through an encoder, message by message, with a server that is slow or fails."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
import zlib
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager

import pytest

from aeros.compression import Negotiated
from aeros.compression.codings import Encoder
from aeros.compression.response import ResponseCoder
from aeros.compression.sending import CodedSend
from aeros.compression.stream import CodedStream, Timer
from aeros.compression.workshop import Workshop
from aeros.exchange import Exchange
from aeros.types import Message, Scope

PATIENCE = 10.0
NEVER = 60.0  # seconds that no test lasts
SOON = 0.001
BEGUN = b"first, and sent at once; "
WAITING = b"second, and kept back; "
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain")],
}


class Deflate:
    """A coding of the test's own, which knows its encoders without keeping them alive."""

    name = "deflate"

    def __init__(self) -> None:
        self.encoders = weakref.WeakSet[DeflateEncoder]()
        self.threads: list[threading.Thread] = []
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as a zlib stream."""
        return zlib.compress(content)

    def encoder(self) -> Encoder:
        """Returns an encoder that tells on which threads it works."""
        encoder = DeflateEncoder(self)
        self.encoders.add(encoder)
        return encoder


class DeflateEncoder:
    """Encodes one zlib stream; held until its coding lets it go."""

    def __init__(self, coding: Deflate) -> None:
        self._coding = coding
        self._compressor = zlib.compressobj()

    def encode(self, data: bytes) -> bytes:
        """Takes ``data``."""
        self._coding.threads.append(threading.current_thread())
        self._coding.began.set()
        assert self._coding.may_end.wait(PATIENCE)
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        """Makes what was taken decodable."""
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """Ends the stream."""
        return self._compressor.flush(zlib.Z_FINISH)


class Server:
    """Where messages go: it keeps what it has sent, and is slow or broken where it is told to."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.entered = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.failure: Exception | None = None

    async def __call__(self, message: Message) -> None:
        """Sends a message."""
        self.entered += 1
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        self.messages.append(message)

    @property
    def kinds(self) -> list[str]:
        """What was sent, in its order."""
        return [message["type"].removeprefix("http.response.") for message in self.messages]

    @property
    def raw(self) -> bytes:
        """The bytes of the body so far."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def content(self) -> bytes:
        """What a client can make of the bytes so far."""
        return zlib.decompressobj().decompress(self.raw)

    async def has_entered(self, number: int) -> None:
        """Waits until so many messages have come to it, sent or not."""
        async with asyncio.timeout(PATIENCE):
            while self.entered < number:
                await asyncio.sleep(SOON)

    async def has_sent(self, number: int) -> None:
        """Waits until it has sent so many messages."""
        async with asyncio.timeout(PATIENCE):
            while len(self.messages) < number:
                await asyncio.sleep(SOON)


def chunk(body: bytes, *, more: bool = True) -> Message:
    """Returns the message of a part of a body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def stream_to(
    server: Server, coding: Deflate, *, flush_seconds: float = NEVER, offload_size: int | None = None
) -> CodedStream:
    """Returns the way of one stream to a server."""
    return CodedStream(
        server,
        coding,
        flush_seconds=flush_seconds,
        offload_size=offload_size,
        workshop=Workshop(),
    )


def sending_to(
    server: Server, coding: Deflate, *, flush_seconds: float = NEVER, **scope: object
) -> CodedSend:
    """Returns the ``send`` of one request whose client takes the coding."""
    asked: Scope = {
        "type": "http",
        "method": "GET",
        "headers": [(b"accept-encoding", b"deflate")],
        **scope,
    }
    compressor = Negotiated(coding, flush_seconds=flush_seconds)
    return CodedSend(server, asked, Exchange(), coder=ResponseCoder(), compressor=compressor)


async def only_this_task() -> None:
    """Waits until cancelled tasks have ended, and fails if one stays."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@contextmanager
def without_collector() -> Generator[None]:
    """What is freed in here is freed because nothing refers to it, not even itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# How long bytes wait


async def test_first_bytes_are_sent_at_once_and_the_next_ones_wait() -> None:
    """The head of a page helps a browser; what follows is put together."""
    server = Server()
    stream = stream_to(server, Deflate())
    await stream(chunk(BEGUN))
    assert server.content == BEGUN
    for _ in range(3):
        await stream(chunk(WAITING))
    assert len(server.messages) == 1
    await stream(chunk(b"", more=False))
    assert server.content == BEGUN + WAITING * 3
    assert len(server.messages) == 2
    assert [message["more_body"] for message in server.messages] == [True, False]
    await only_this_task()


async def test_waiting_bytes_are_sent_without_another_message() -> None:
    """The application says nothing more, and the client gets all that there is."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=SOON)
    await stream(chunk(BEGUN))
    for number in range(2, 5):
        await stream(chunk(WAITING))
        await server.has_sent(number)
        assert server.content == BEGUN + WAITING * (number - 1)
    stream.close()
    await only_this_task()


async def test_flush_seconds_zero_sends_each_chunk_by_itself() -> None:
    """Nothing waits, and no timer is needed."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=0)
    for number in range(1, 5):
        await stream(chunk(WAITING))
        assert len(server.messages) == number
        assert server.content == WAITING * number


async def test_empty_messages_in_between_send_nothing() -> None:
    """A message without bytes is no reason for a flush."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=0)
    await stream(chunk(b""))
    assert server.messages == []
    await stream(chunk(BEGUN))
    await stream({"type": "http.response.body", "more_body": True})
    assert len(server.messages) == 1
    await stream({"type": "http.response.body"})
    assert server.content == BEGUN
    assert zlib.decompress(server.raw) == BEGUN


async def test_nothing_follows_the_end() -> None:
    """What an application sends after its last message is no part of the body."""
    server = Server()
    stream = stream_to(server, Deflate())
    await stream(chunk(BEGUN, more=False))
    await stream(chunk(WAITING))
    await stream(chunk(WAITING, more=False))
    assert len(server.messages) == 1


# Order


async def test_slow_flush_is_not_overtaken_by_the_next_chunks() -> None:
    """What the application sends while a flush is on its way comes after it."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=SOON)
    await stream(chunk(BEGUN))
    server.is_open.clear()
    await stream(chunk(WAITING))
    await server.has_entered(2)
    following = asyncio.create_task(stream(chunk(b"third", more=False)))
    await asyncio.sleep(SOON)
    assert (server.entered, len(server.messages)) == (2, 1)
    server.is_open.set()
    await following
    assert zlib.decompress(server.raw) == BEGUN + WAITING + b"third"
    await only_this_task()


async def test_flush_waits_for_the_chunk_that_is_being_compressed() -> None:
    """A timer that runs out while a thread has the encoder keeps its hands off it, and works later."""
    server, coding = Server(), Deflate()
    stream = stream_to(server, coding, flush_seconds=SOON, offload_size=len(WAITING) + 1)
    await stream(chunk(BEGUN[:5]))
    await stream(chunk(WAITING))
    coding.began.clear()
    coding.may_end.clear()
    large = asyncio.create_task(stream(chunk(b"third" * 100)))
    assert await asyncio.to_thread(coding.began.wait, PATIENCE)
    await asyncio.sleep(20 * SOON)
    assert len(server.messages) == 1
    coding.may_end.set()
    await large
    await server.has_sent(2)
    await stream(chunk(b"", more=False))
    assert zlib.decompress(server.raw) == BEGUN[:5] + WAITING + b"third" * 100
    await only_this_task()


async def test_timer_has_one_task_at_a_time() -> None:
    """What starts again while its work still waits is done by that work, and ``close`` ends it."""
    timer, runs = Timer(), list[asyncio.Task[None] | None]()

    async def work() -> None:
        runs.append(asyncio.current_task())
        await asyncio.Event().wait()

    for _ in range(3):
        timer.start(0, work)
        await asyncio.sleep(5 * SOON)
    assert len(runs) == 1
    timer.close()
    await only_this_task()
    timer.start(0, work)
    await asyncio.sleep(5 * SOON)
    assert len(runs) == 2
    timer.close()
    await only_this_task()


# Failures


async def test_failing_flush_is_raised_at_the_next_message() -> None:
    """The application hears that the server can not send, and nothing follows the gap."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=SOON)
    await stream(chunk(BEGUN))
    server.failure = OSError("the line is dead")
    await stream(chunk(WAITING))
    await server.has_entered(2)
    server.failure = None
    for message in (chunk(b"third"), chunk(b"", more=False)):
        with pytest.raises(OSError, match="the line is dead"):
            await stream(message)
    assert len(server.messages) == 1
    stream.close()
    await only_this_task()


async def test_flush_that_fails_while_a_chunk_waits_for_it_is_raised_there() -> None:
    """A chunk behind a slow flush that fails in the end is not sent after the gap."""
    server = Server()
    stream = stream_to(server, Deflate(), flush_seconds=SOON)
    await stream(chunk(BEGUN))
    server.is_open.clear()
    await stream(chunk(WAITING))
    await server.has_entered(2)
    following = asyncio.create_task(stream(chunk(b"third", more=False)))
    await asyncio.sleep(SOON)
    server.failure = OSError("the line is dead")
    asyncio.get_running_loop().call_later(SOON, setattr, server, "failure", None)
    server.is_open.set()
    with pytest.raises(OSError, match="the line is dead"):
        await following
    assert len(server.messages) == 1


# Ends before the end

Step = asyncio.Task[None] | None
Leave = Callable[[CodedStream, Server, Deflate], Coroutine[None, None, Step]]


async def leave_at_once(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves before anything was sent."""
    return None


async def leave_after_a_chunk(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves when nothing waits."""
    await stream(chunk(BEGUN))
    return None


async def leave_with_bytes_waiting(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves while the timer runs."""
    await stream(chunk(BEGUN))
    await stream(chunk(WAITING))
    return None


async def leave_in_a_send(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves while a chunk is being sent."""
    server.is_open.clear()
    task = asyncio.create_task(stream(chunk(BEGUN)))
    await server.has_entered(1)
    return task


async def leave_in_a_thread(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves while a thread compresses."""
    coding.may_end.clear()
    task = asyncio.create_task(stream(chunk(BEGUN * 100)))
    assert await asyncio.to_thread(coding.began.wait, PATIENCE)
    return task


async def leave_at_the_end(stream: CodedStream, server: Server, coding: Deflate) -> Step:
    """The client leaves when it has everything."""
    await stream(chunk(BEGUN))
    await stream(chunk(WAITING, more=False))
    return None


@pytest.mark.parametrize(
    "leave",
    [
        leave_at_once,
        leave_after_a_chunk,
        leave_with_bytes_waiting,
        leave_in_a_send,
        leave_in_a_thread,
        leave_at_the_end,
    ],
)
async def test_close_leaves_no_task_and_no_encoder(leave: Leave) -> None:
    """Wherever a stream is given up, nothing of it stays, without the garbage collector's help."""
    server, coding = Server(), Deflate()
    with without_collector():
        stream = stream_to(server, coding, offload_size=1000)
        task = await leave(stream, server, coding)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            del task
        stream.close()
        coding.may_end.set()
        await only_this_task()
        async with asyncio.timeout(PATIENCE):  # for a thread that still has it in its hands
            while coding.encoders:
                await asyncio.sleep(SOON)
        await stream(chunk(b"too late"))
    assert b"too late" not in server.raw


async def test_close_ends_a_flush_that_the_server_does_not_take() -> None:
    """A timer's flush that hangs in the server ends with its stream."""
    server, coding = Server(), Deflate()
    with without_collector():
        stream = stream_to(server, coding, flush_seconds=SOON)
        await stream(chunk(BEGUN))
        server.is_open.clear()
        await stream(chunk(WAITING))
        await server.has_entered(2)
        stream.close()
        await only_this_task()
        assert not coding.encoders
    assert len(server.messages) == 1


async def test_finished_stream_keeps_nothing_alive() -> None:
    """With its last message the encoder goes, also where nobody closes."""
    coding = Deflate()
    with without_collector():
        stream = stream_to(Server(), coding, flush_seconds=SOON)
        await stream(chunk(BEGUN))
        await stream(chunk(WAITING, more=False))
        assert not coding.encoders


async def test_failed_stream_keeps_nothing_alive() -> None:
    """The error of a flush is kept for the application, but not the encoder with it."""
    server, coding = Server(), Deflate()
    with without_collector():
        stream = stream_to(server, coding, flush_seconds=SOON)
        await stream(chunk(BEGUN))
        server.failure = OSError("the line is dead")
        await stream(chunk(WAITING))
        await server.has_entered(2)
        stream.close()
        await only_this_task()
        assert not coding.encoders


# Threads


async def test_only_large_chunks_are_compressed_in_a_thread() -> None:
    """From ``offload_size`` bytes on the loop is left alone; below, the hop would cost more."""
    server, coding = Server(), Deflate()
    stream = stream_to(server, coding, offload_size=1000)
    for size in (999, 1000, 1001, 10):
        await stream(chunk(b"a" * size))
    await stream(chunk(b"", more=False))
    here = threading.current_thread()
    assert [thread is here for thread in coding.threads] == [True, False, False, True]
    assert zlib.decompress(server.raw) == b"a" * 3010


# The start of a stream


async def test_head_does_not_wait_for_the_first_chunk() -> None:
    """A stream whose first bytes take their time has its head sent, with its coding."""
    server = Server()
    send = sending_to(server, Deflate(), flush_seconds=SOON)
    await send(START)
    assert server.messages == []
    await server.has_sent(1)
    assert server.messages[0]["headers"] == [
        (b"content-type", b"text/plain"),
        (b"vary", b"Accept-Encoding"),
        (b"content-encoding", b"deflate"),
    ]
    await send(chunk(BEGUN))
    await send(chunk(b"", more=False))
    assert server.kinds == ["start", "body", "body"]
    assert zlib.decompress(server.raw) == BEGUN
    await only_this_task()


async def test_whole_body_that_comes_in_time_is_no_stream() -> None:
    """A start that is held for a body which then comes whole knows its length."""
    server = Server()
    send = sending_to(server, Deflate())
    await send(START)
    await send(chunk(BEGUN * 100, more=False))
    headers = dict(server.messages[0]["headers"])
    assert headers[b"content-length"] == b"%d" % len(server.raw)
    assert zlib.decompress(server.raw) == BEGUN * 100
    await only_this_task()


async def test_first_chunk_does_not_overtake_a_slow_start() -> None:
    """A start that the timer sends, and a server is slow to take, still comes first."""
    server = Server()
    server.is_open.clear()
    send = sending_to(server, Deflate(), flush_seconds=SOON)
    await send(START)
    await server.has_entered(1)
    following = asyncio.create_task(send(chunk(BEGUN)))
    await asyncio.sleep(SOON)
    assert server.entered == 1
    server.is_open.set()
    await following
    assert server.kinds == ["start", "body"]
    assert server.content == BEGUN
    send.close()
    await only_this_task()


async def test_failing_start_is_raised_at_the_next_message() -> None:
    """The application hears that the server could not take the start which the timer sent."""
    server = Server()
    server.failure = OSError("the line is dead")
    send = sending_to(server, Deflate(), flush_seconds=SOON)
    await send(START)
    await server.has_entered(1)
    server.failure = None
    with pytest.raises(OSError, match="the line is dead"):
        await send(chunk(BEGUN))
    assert send.started
    assert server.messages == []
    send.close()
    await only_this_task()


async def test_start_that_fails_while_a_chunk_waits_for_it_is_raised_there() -> None:
    """No body goes out behind a start that was never sent."""
    server = Server()
    server.is_open.clear()
    send = sending_to(server, Deflate(), flush_seconds=SOON)
    await send(START)
    await server.has_entered(1)
    following = asyncio.create_task(send(chunk(BEGUN)))
    await asyncio.sleep(SOON)
    server.failure = OSError("the line is dead")
    asyncio.get_running_loop().call_later(SOON, setattr, server, "failure", None)
    server.is_open.set()
    with pytest.raises(OSError, match="the line is dead"):
        await following
    assert server.messages == []


@pytest.mark.parametrize("extension", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_start_waits_where_the_server_may_send_a_file(extension: str) -> None:
    """Whether the body is a file that no encoder sees is known only with the next message."""
    server = Server()
    send = sending_to(server, Deflate(), flush_seconds=0, extensions={extension: {}})
    await send(START)
    await asyncio.sleep(20 * SOON)
    assert server.messages == []
    await send({"type": extension, "path": "/page.txt"})
    assert server.kinds == ["start", extension.removeprefix("http.response.")]
    assert server.messages[0]["headers"] == [
        (b"content-type", b"text/plain"),
        (b"vary", b"Accept-Encoding"),
    ]


async def test_close_leaves_no_task_of_a_start() -> None:
    """A start that nobody waits for any more is not sent, and one on its way is given up."""
    held, hanging = Server(), Server()
    send = sending_to(held, Deflate(), flush_seconds=5 * SOON)
    await send(START)
    send.close()
    hanging.is_open.clear()
    send = sending_to(hanging, Deflate(), flush_seconds=0)
    await send(START)
    await hanging.has_entered(1)
    send.close()
    await asyncio.sleep(20 * SOON)
    await only_this_task()
    assert held.entered == 0
    assert hanging.messages == []


async def test_closed_response_keeps_no_encoder_alive() -> None:
    """Neither in the middle of a stream nor at its end does a response hold its encoder."""
    coding = Deflate()
    with without_collector():
        for is_last in (False, True):
            send = sending_to(Server(), coding, flush_seconds=SOON)
            await send(START)
            await send(chunk(BEGUN))
            await send(chunk(WAITING))
            if is_last:
                await send(chunk(b"", more=False))
            else:
                assert len(coding.encoders) == 1
            send.close()
            await only_this_task()
            assert not coding.encoders
