"""A body that is compressed while it is still being made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from aeros.compression.codings import Encoder, StreamCoding
from aeros.compression.workshop import Workshop
from aeros.types import Message, Send

_NOTHING: Final = b""


class Timer:
    """Does something after a while, in a task of its own, unless it is stopped before.

    What it raises is raised by ``check``, for those who go on with the response.
    """

    __slots__ = ("_failure", "_handle", "_task")

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def start(self, seconds: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begins to wait, unless it is waiting already."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._begin, work)

    def stop(self) -> None:
        """Waits no more; what has begun goes on."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        """Ends everything."""
        self.stop()
        # The task keeps what has ended it, with the frames that this happened in, the encoder in one of
        # them: whoever keeps the task would keep the encoder, until the collector comes.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def check(self) -> None:
        """Raises what the work has raised."""
        if self._failure is not None:
            raise self._failure

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._handle = None
        # One that has not come to its work yet, behind a slow send, does it for this one too.
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever a server's send() raises
            self._failure = error


class CodedStream:
    """The messages of one body on their way through an encoder.

    Bytes wait for more for a bounded time, which makes them smaller. The first ones do not wait:
    a browser can do much with the head of a page.

    Args:
        send: Where the messages go.
        coding: What compresses them.
        flush_seconds: For how long bytes may wait; 0: not at all.
        offload_size: Bytes from which a chunk is compressed in a thread; None: never.
        workshop: Where that is done.
    """

    __slots__ = (
        "_coding",
        "_encoder",
        "_flush_seconds",
        "_has_begun",
        "_lock",
        "_offload",
        "_send",
        "_timer",
        "_workshop",
    )

    def __init__(
        self,
        send: Send,
        coding: StreamCoding,
        *,
        flush_seconds: float,
        offload_size: int | None,
        workshop: Workshop,
    ) -> None:
        self._send = send
        self._coding = coding
        self._encoder: Encoder | None = coding.encoder()
        self._flush_seconds = flush_seconds
        self._offload = offload_size
        self._workshop = workshop
        self._has_begun = False
        # The timer's flush and the application's next chunk must not overtake each other.
        self._lock = asyncio.Lock()
        self._timer = Timer()

    async def __call__(self, message: Message) -> None:
        """Takes one ``http.response.body`` message and sends what is ready."""
        async with self._lock:
            self._timer.check()  # in the lock: what it waited for may be a flush that fails
            encoder = self._encoder
            if encoder is None:
                return  # after its end nothing follows
            data: bytes = message.get("body", _NOTHING)
            is_last = not message.get("more_body", False)
            content = await self._workshop.run(encoder.encode, data, self._offload) if data else _NOTHING
            if is_last:
                self._timer.stop()
                self._encoder = None
                content += encoder.finish()
                await self._send({**message, "body": self._workshop.noted(self._coding, data, content)})
                return
            if data and (self._flush_seconds == 0 or not self._has_begun):
                self._has_begun = True
                content += encoder.flush()
            elif data:
                self._timer.start(self._flush_seconds, self._flush_waiting)
            self._workshop.noted(self._coding, data, content)
            if content:
                await self._send({**message, "body": content})

    def close(self) -> None:
        """Lets the encoder go, wherever the stream is."""
        self._timer.close()
        self._encoder = None

    async def _flush_waiting(self) -> None:
        async with self._lock:
            if self._encoder is not None:
                content = self._workshop.noted(self._coding, _NOTHING, self._encoder.flush())
                if content:
                    await self._send({"type": "http.response.body", "body": content, "more_body": True})
