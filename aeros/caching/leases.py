"""The lock of a flight in a shared store, so that one process among several leads it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Final

from aeros.caching.stores.guarded import GuardedStore

LOCK_SECONDS: Final = 3.0
"""After how long another process may lead in the place of one that died."""

_RENEWALS: Final = 3


class Lease:
    """A lock in the shared store, held and renewed while a view runs.

    Args:
        store: The store.
        name: What is locked: the name of an entry.
        written: Waits until the store has been told of the entry.
        in_background: Does something under a name, after what is under way under that name.
    """

    __slots__ = ("_in_background", "_name", "_owner", "_renewal", "_store", "_written")

    def __init__(
        self,
        store: GuardedStore,
        name: str,
        written: Callable[[str], Awaitable[None]],
        in_background: Callable[[str, Callable[[], Coroutine[None, None, None]]], None],
    ) -> None:
        self._store = store
        self._name = name
        self._owner = secrets.token_hex(8)
        self._written = written
        self._in_background = in_background
        self._renewal: asyncio.Task[None] | None = None

    async def take(self, until: float) -> bool:
        """Takes the lock; False where another process has it.

        Args:
            until: The monotonic time up to which it is renewed: nobody waits for longer.
        """
        if not await self._store.lock(self._name, self._owner, LOCK_SECONDS):
            return False
        self._renewal = asyncio.create_task(self._renew(until))
        return True

    def release(self) -> None:
        """Gives it back in the background, once the store has what was stored under it."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            self._in_background(f"lock:{self._name}", self._give_back)

    async def _renew(self, until: float) -> None:
        is_held = True
        while is_held and monotonic() < until:
            await asyncio.sleep(LOCK_SECONDS / _RENEWALS)
            is_held = await self._store.lock(self._name, self._owner, LOCK_SECONDS)

    async def _give_back(self) -> None:
        await self._written(self._name)
        await self._store.unlock(self._name, self._owner)
