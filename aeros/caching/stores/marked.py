"""A plain store as one that knows what was evicted."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

from aeros.caching.stores.base import Store, StoreUnavailableError

GENERATION_NAME: Final = "aeros:1:generation"
_TOKEN_SECONDS: Final = 30 * 86400.0


class MarkedStore:
    """Keeps a token for each mark, and one for everything, beside the values of any ``Store``.

    A token that the store has lost, to its own lack of room or to the end of its time, is made
    anew: that disowns what was stored under it. So nothing that was evicted can come back.

    Args:
        store: The plain store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns the stamp of the marks, and the value of ``name``."""
        names = [GENERATION_NAME, *map(_token_name, marks)]
        found = await self.store.get_many([*names, name] if name else names)
        tokens, data = found[: len(names)], found[-1] if name else None
        if None in tokens:
            await self._renew([lost for lost, token in zip(names, tokens, strict=True) if token is None])
            # Another process may have done the same in this moment: what counts is what stands now.
            tokens = await self.store.get_many(names)
        return _stamp(tokens), data

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value``."""
        await self.store.set(name, value, ttl_seconds)

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:  # noqa: ARG002 - nobody listens
        """Gives the marks, or with None everything, new tokens."""
        await self._renew([GENERATION_NAME] if marks is None else list(map(_token_name, marks)))

    async def close(self) -> None:
        """Closes the store, if that is something it can do."""
        close = getattr(self.store, "close", None)
        if close is not None:
            await close()

    async def _renew(self, names: Sequence[str]) -> None:
        tokens = [secrets.token_hex(8).encode("ascii") for _ in names]
        await asyncio.gather(*map(self.store.set, names, tokens, [_TOKEN_SECONDS] * len(names)))

    def __repr__(self) -> str:
        return repr(self.store)


def _token_name(mark: str) -> str:
    return f"aeros:1:mark:{mark}"


def _stamp(tokens: Sequence[bytes | None]) -> str:
    if None in tokens:
        raise StoreUnavailableError("the store does not keep what it is given")
    return "|".join(token.decode("latin-1") for token in tokens if token is not None)
