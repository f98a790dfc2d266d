"""A shared store that fails when a test tells it to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence


class FaultyStore:
    """A store for ``Cache(store)`` that is down, slow or corrupt on demand. It keeps what it is given.

    Attributes:
        is_down: Whether each call fails with ``ConnectionError``.
        delay_seconds: How long each call takes.
        is_corrupt: Whether what is read has a flipped bit.
        calls: How many calls there were.
    """

    def __init__(self) -> None:
        self.is_down: bool = False
        self.delay_seconds: float = 0.0
        self.is_corrupt: bool = False
        self.calls: int = 0
        self._values: dict[str, tuple[bytes, float]] = {}

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name, None where there is none."""
        await self._pass()
        return [self._read(name) for name in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` under ``name``."""
        await self._pass()
        self._values[name] = (value, time.monotonic() + ttl_seconds)

    async def _pass(self) -> None:
        self.calls += 1
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.is_down:
            raise ConnectionError("this store is down, as a test has asked for")

    def _read(self, name: str) -> bytes | None:
        value, until = self._values.get(name, (b"", 0.0))
        if until < time.monotonic():
            return None
        if self.is_corrupt and value:
            middle = len(value) // 2
            return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
        return value

    def __repr__(self) -> str:
        return "FaultyStore()"
