"""Where stored responses are kept: this process's memory, and behind it a store that others share.

A shared store holds bytes under short names, is asked from the event loop, and may be slow, down
or full at any time; ``guarded`` bounds what that can cost.
"""

from __future__ import annotations

from inspect import iscoroutinefunction

from cachelib import FileSystemCache, MemcachedCache, NullCache
from cachelib.base import BaseCache

from aeros.caching.stores.base import CoordinatedStore, SharedStore, Store, StoreUnavailableError
from aeros.caching.stores.cachelib import CachelibCache, CachelibStore
from aeros.caching.stores.files import FileStore
from aeros.caching.stores.marked import MarkedStore
from aeros.errors import InvalidSettingError

__all__ = [
    "CachelibCache",
    "CoordinatedStore",
    "SharedStore",
    "Store",
    "StoreUnavailableError",
    "as_store",
]


def as_store(value: object) -> SharedStore:
    """Returns ``value`` as a store of the cache: a ``RedisStore``, any store, any cachelib cache.

    Raises:
        InvalidSettingError: It is none of these, or one that can not be used safely.
    """
    if isinstance(value, type):
        raise _unfit(value)
    if isinstance(value, SharedStore) and iscoroutinefunction(value.read):
        return value
    if isinstance(value, MemcachedCache):
        raise InvalidSettingError(
            "cache",
            value,
            "another store: clients of memcached unpickle what they read, whoever put it there",
        )
    if isinstance(value, NullCache):
        raise InvalidSettingError("cache", value, "no store: NullCache keeps nothing, and memory needs none")
    if isinstance(value, FileSystemCache):
        return MarkedStore(FileStore.beside(value))
    if isinstance(value, BaseCache):
        return MarkedStore(CachelibStore(value))
    if isinstance(value, Store) and iscoroutinefunction(value.get_many) and iscoroutinefunction(value.set):
        return MarkedStore(value)
    raise _unfit(value)


def _unfit(value: object) -> InvalidSettingError:
    return InvalidSettingError(
        "cache",
        value,
        "an aeros Cache, a RedisStore, a cachelib cache object, or an object with async get_many and set",
    )
