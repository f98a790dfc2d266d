"""State that belongs to one event loop: futures, queues and counts must not cross loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each event loop, made when that loop first asks, gone with the loop.

    An application can be served by several loops of one process (a server in a thread beside a
    test client), so what awaits must not be kept on the application itself.
    """

    __slots__ = ("_latest", "_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._latest: tuple[ref[asyncio.AbstractEventLoop], T] | None = None
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Returns the running loop's value.

        Raises:
            RuntimeError: No event loop runs in this thread.
        """
        loop = asyncio.get_running_loop()
        latest = self._latest
        if latest is not None and latest[0]() is loop:  # nearly always: most processes have one loop
            return latest[1]
        value = self._values.get(loop)
        if value is None:
            value = self._values[loop] = self._make()
        self._latest = ref(loop, self._forget_latest), value
        return value

    def _forget_latest(self, _loop: ref[asyncio.AbstractEventLoop]) -> None:
        self._latest = None

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """Returns the loops that have a value and are still alive. May be called from any thread."""
        return list(self._values)

    def values(self) -> list[T]:
        """Returns the values of all loops that are still alive."""
        return list(self._values.values())
