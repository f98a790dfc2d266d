"""Any cache object of cachelib as a store."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any, Final, TypeAlias, cast

from cachelib.base import BaseCache

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.threads import Threads

CachelibCache: TypeAlias = BaseCache
"""Any cache object of cachelib."""

_STORE_THREADS: Final = 8
_LONGEST_SECONDS: Final = 10 * 365 * 86400


class CachelibStore:
    """Any cachelib cache as a store. Its calls block, so they run in threads of their own.

    cachelib pickles what it keeps, and would unpickle whatever somebody planted. This store
    works on a copy of the cache object that shares its connection, but reads and writes plain
    bytes; the object that was given is not changed.

    Args:
        cache: The cachelib cache object.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache = copy.copy(cache)
        if hasattr(cache, "serializer"):
            # Not every cachelib class declares the attribute; those that pickle have it.
            cast(Any, self._cache).serializer = PlainSerializer()
        self._threads = Threads(_STORE_THREADS, "aeros-store")

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name, None where there is none or it is not bytes."""
        values = cast("list[object]", await self._threads.run(partial(self._cache.get_many, *names)))
        return [value if isinstance(value, bytes) else None for value in values]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value``; cachelib counts whole seconds, and 0 would mean for ever."""
        # Redis refuses lifetimes that end too far in the future.
        timeout = ceil(min(max(1, ttl_seconds), _LONGEST_SECONDS))
        kept = await self._threads.run(partial(self._cache.set, name, value, timeout))
        if kept is False:
            raise StoreUnavailableError(f"{type(self._cache).__name__} did not keep the value")

    async def close(self) -> None:
        """Lets the threads go, without waiting for them. The store may be used again."""
        self._threads.close()

    def __repr__(self) -> str:
        return type(self._cache).__name__


class PlainSerializer:
    """Writes bytes and reads nothing else: what cachelib's caches call in place of pickle.

    The tag before each value tells it from what another program keeps under the same name.
    """

    def dumps(self, value: bytes) -> bytes:
        """Returns ``value`` with its tag."""
        return b"b" + value

    def loads(self, data: object) -> bytes | None:
        """Returns the value; None for anything that ``dumps`` has not written."""
        return data[1:] if isinstance(data, bytes) and data[:1] == b"b" else None
