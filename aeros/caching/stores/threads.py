"""Threads for the blocking calls of a store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Threads for the blocking calls of a store: started by the first call, and anew after a close.

    Args:
        most: How many there are at most.
        name: What their names begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        # One application can be served by several event loops, and one of them may close it.
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], T]) -> T:
        """Returns what ``call`` returns in one of the threads."""
        return await asyncio.wrap_future(self.start(call))

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Lets one of the threads do ``call`` without waiting for it."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
            return self._pool.submit(call)

    def close(self) -> None:
        """Lets the threads end after what they were given; does not wait for them."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
