"""The event by which streams learn that the server is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Protocol, TypeVar, cast

from aeros.per_loop import PerLoop

T = TypeVar("T")


class Event(Protocol):
    """What ``asyncio.Event`` is, as far as it is needed here."""

    def is_set(self) -> bool:
        """Whether it has come."""
        ...

    def set(self) -> None:
        """Lets it come."""
        ...

    async def wait(self) -> object:
        """Waits until it has come."""
        ...


class ShutdownEvents:
    """The shutdown event of each loop that serves an application.

    An application may be served by several threads of a process at once, and again and again by one.
    """

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: PerLoop[_Current] = PerLoop(_Current)

    def get(self) -> Event:
        """Returns the event of the running loop.

        Raises:
            RuntimeError: No event loop runs in this thread.
        """
        return self._current.get().event

    def replace(self, event: Event) -> None:
        """Puts a new event in place of the running loop's: serving begins."""
        self._current.get().event = event


class _Current:
    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: Event = asyncio.Event()


async def until(event: Event, source: AsyncIterable[T]) -> AsyncGenerator[T]:
    """Yields what ``source`` yields until the event comes; then ``source`` is cancelled and closed.

    Args:
        event: Ends it.
        source: An async iterable; each of its items is waited for in a task.
    """
    items = aiter(source)
    waiting = asyncio.ensure_future(event.wait())
    coming: asyncio.Task[tuple[T] | None] | None = None
    try:
        while not event.is_set():
            coming = asyncio.ensure_future(_next(items))
            await asyncio.wait((waiting, coming), return_when=asyncio.FIRST_COMPLETED)
            item = coming.result() if coming.done() else None
            if item is None:
                return
            yield item[0]
    finally:
        await _end(waiting, coming)
        if isinstance(items, AsyncGenerator):
            await cast("AsyncGenerator[T]", items).aclose()


async def _next(items: AsyncIterator[T]) -> tuple[T] | None:
    """Returns the next item, or None after the last one: a task can not raise StopAsyncIteration."""
    async for item in items:
        return (item,)
    return None


async def _end(*tasks: asyncio.Future[object] | asyncio.Task[tuple[T] | None] | None) -> None:
    running = [task for task in tasks if task is not None and not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
