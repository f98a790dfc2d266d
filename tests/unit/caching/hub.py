"""A store through which processes hear of each other, in memory: as Redis behaves, with switches.

One ``Hub`` is the server; each ``HubStore`` is the client of one process. Two caches with a store
each are two processes, as far as they can know.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from time import monotonic
from typing import TypeAlias

Hook = Callable[[], Awaitable[None]]

Told: TypeAlias = tuple[str, Sequence[str] | None]
"""Who evicted, and what."""


class Hub:
    """What all processes share.

    Attributes:
        values: Bytes by name, and when they go.
        tokens: The tokens of the marks; an empty name stands for everything.
        locks: Owners by name, and when their locks lapse.
        is_down: Whether it refuses everybody, and has dropped all connections.
    """

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, float]] = {}
        self.tokens: dict[str, str] = {}
        self.locks: dict[str, tuple[str, float]] = {}
        self.listeners: list[asyncio.Queue[Told]] = []
        self.is_down = False
        self._numbers = count(1)

    @property
    def audience(self) -> int:
        """How many processes listen."""
        return len(self.listeners)

    def store(self) -> HubStore:
        """Returns the client of one more process."""
        return HubStore(self)

    def new_token(self) -> str:
        """Returns what was never given before."""
        return f"t{next(self._numbers)}"

    def lose(self) -> None:
        """Forgets all, as a server that is started anew; locks and listeners too."""
        self.values.clear()
        self.tokens.clear()
        self.locks.clear()

    def owner_of(self, name: str) -> str | None:
        """Returns who has a lock now."""
        owner, until = self.locks.get(name, ("", 0.0))
        return owner if monotonic() < until else None


class HubStore:
    """The client of one process.

    Attributes:
        calls: How often each method was called.
        is_cut: Whether this process does not reach the hub, while others do.
        is_deaf: Whether its subscription is silent, as a connection through a broken network is.
        before: What is awaited by a method before the hub is asked, by the method's name.
        after: What is awaited once the hub has answered, while the answer is on its way.
        told: The names that were written, in the order in which the hub got them.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.calls: Counter[str] = Counter()
        self.is_cut = False
        self.is_deaf = False
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.told: list[str] = []
        self.closed = 0

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns the stamp of the marks, and the value of ``name``."""
        await self._ask("read")
        tokens = self._hub.tokens
        tokens.setdefault("", self._hub.new_token())
        stamp = "|".join(tokens.get(mark, "") for mark in ("", *marks))
        value, until = self._hub.values.get(name, (None, 0.0))
        await self._answer("read")
        return stamp, value if monotonic() < until else None

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` under ``name`` for ``ttl_seconds``."""
        await self._ask("write")
        self._hub.values[name] = value, monotonic() + ttl_seconds
        self.told.append(name)
        await self._answer("write")

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:
        """Gives new tokens, and tells all who listen, this process too."""
        await self._ask("evict")
        if marks is None:
            self._hub.tokens.clear()
        for mark in [""] if marks is None else marks:
            self._hub.tokens[mark] = self._hub.new_token()
        for listener in self._hub.listeners:
            listener.put_nowait((sender, None if marks is None else list(marks)))
        await self._answer("evict")

    async def close(self) -> None:
        """Counts."""
        self.closed += 1

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Takes or keeps the lock of ``name``."""
        await self._ask("lock")
        is_free = self._hub.owner_of(name) in (None, owner)
        if is_free:
            self._hub.locks[name] = owner, monotonic() + lapse_seconds
        await self._answer("lock")
        return is_free

    async def unlock(self, name: str, owner: str) -> None:
        """Gives the lock back, if ``owner`` still has it."""
        await self._ask("unlock")
        if self._hub.owner_of(name) == owner:
            del self._hub.locks[name]
        await self._answer("unlock")

    async def is_locked(self, name: str) -> bool:
        """Tells whether anybody has the lock."""
        await self._ask("is_locked")
        is_locked = self._hub.owner_of(name) is not None
        await self._answer("is_locked")
        return is_locked

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Listens until the hub is not reached any more, or silent for too long."""
        await self._ask("listen")
        messages: asyncio.Queue[Told] = asyncio.Queue()
        self._hub.listeners.append(messages)
        try:
            heard()
            last, on_the_way = monotonic(), list[Told]()
            while True:
                on_the_way += await self._next(messages, interval_seconds / 4)
                if self._is_away():
                    raise ConnectionError("the connection broke")
                if not self.is_deaf:
                    last = monotonic()
                    heard()
                    while on_the_way:
                        by, marks = on_the_way.pop(0)
                        if not sender or by != sender:
                            evicted(marks)
                elif monotonic() - last > interval_seconds:
                    raise TimeoutError("no answer")
        finally:
            self._hub.listeners.remove(messages)

    async def _next(self, messages: asyncio.Queue[Told], seconds: float) -> list[Told]:
        try:
            async with asyncio.timeout(seconds):
                return [await messages.get()]
        except TimeoutError:
            return []

    async def _ask(self, method: str) -> None:
        self.calls[method] += 1
        if method in self.before:
            await self.before[method]()
        await asyncio.sleep(0)
        if self._is_away():
            raise ConnectionError("the hub is not reached")

    async def _answer(self, method: str) -> None:
        await asyncio.sleep(0)
        if method in self.after:
            await self.after[method]()

    def _is_away(self) -> bool:
        return self._hub.is_down or self.is_cut

    def __repr__(self) -> str:
        return "Hub"
