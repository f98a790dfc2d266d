"""What a place must offer to keep responses for several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from aeros.errors import AerosError


@runtime_checkable
class Store(Protocol):
    """A place for bytes that several processes may share.

    Both methods may raise anything: the cache answers without the store then.
    """

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name, None where there is none."""
        ...

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` under ``name`` for ``ttl_seconds``."""
        ...


class StoreUnavailableError(AerosError):
    """The shared store did not answer, or is not asked because it did not answer just before."""


@runtime_checkable
class SharedStore(Protocol):
    """A store that also knows what was evicted: how the cache itself sees every shared store.

    An entry is stamped with what ``read`` said before its view began. Evicting gives new stamps,
    so it disowns entries without having to find them, and what a view brings that began before.
    A *mark* is an opaque short text that stands for a tag or a path. Each method may raise anything.
    """

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns the stamp that these marks give now, and the value of ``name`` if there is one.

        An empty name asks for the stamp alone. The stamp of the same marks stays the same until one
        of them, or everything, is evicted. What the store has lost gives a stamp that it never gave
        before.
        """
        ...

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` under ``name`` for ``ttl_seconds``."""
        ...

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:
        """Gives the marks, or with None everything, stamps that were never given before.

        Args:
            marks: What is evicted.
            sender: Who evicts, for those who listen.
        """
        ...

    async def close(self) -> None:
        """Gives back what belongs to the running event loop. The store may be used again."""
        ...


@runtime_checkable
class CoordinatedStore(SharedStore, Protocol):
    """A shared store through which processes also hear of each other: locks and evictions."""

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Takes or keeps the lock of ``name`` for ``owner``; False where another one has it.

        It lapses by itself after ``lapse_seconds``, so a process that died holds nobody up.
        """
        ...

    async def unlock(self, name: str, owner: str) -> None:
        """Gives the lock back, if ``owner`` still has it."""
        ...

    async def is_locked(self, name: str) -> bool:
        """Tells whether anybody has the lock."""
        ...

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Listens to what other processes evict, until it is cancelled or the connection breaks.

        Args:
            heard: Called once the subscription stands, and then at least once in each
                ``interval_seconds`` as long as the connection is known to be alive.
            evicted: Called with the marks of each eviction of any process, None for everything.
            interval_seconds: How often the connection is tried; an answer that takes longer than
                this ends the listening with an error.
            sender: Who listens: what it has evicted itself is no news.
        """
        ...
