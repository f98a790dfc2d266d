"""Threads for the blocking calls of a store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Threads for the blocking calls of a store: started by the first call, and anew after a close.

    A process does not wait for them when it ends: a call may hang for as long as its store is silent.

    Args:
        most: How many there are at most.
        name: What their names begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._pool: _Pool | None = None
        # One application can be served by several event loops, and one of them may close it.
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], T]) -> T:
        """Returns what ``call`` returns in one of the threads."""
        return await asyncio.wrap_future(self.start(call))

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Lets one of the threads do ``call`` without waiting for it."""
        with self._lock:
            if self._pool is None:
                self._pool = _Pool(self._most, self._name)
            return self._pool.start(call)

    def close(self) -> None:
        """Lets the threads end after what they were given; does not wait for them."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class _Pool:
    """Threads that end with their process, which those of ``concurrent.futures`` keep alive."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Queues a call. Not to be called by two threads at once."""
        future: Future[T] = Future()
        self._jobs.put(lambda: _settle(future, call))
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            name = f"{self._name}_{self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def close(self) -> None:
        """Lets each thread end once the queue is empty."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # while it waits for the next one, this thread holds nothing
            self._idle.release()
        self._jobs.put(None)  # for the others


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - nothing is lost: it is raised where the result is awaited
        # As in concurrent.futures: a SystemExit that a store raises would end this thread silently, and who
        # waits for the result would never hear of it.
        future.set_exception(error)
        del future  # which the error's traceback would keep, and it the error
    else:
        future.set_result(result)
