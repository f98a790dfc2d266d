"""Where stored responses are kept: this process's memory, and behind it a store that others share.

A shared store holds bytes under short names, is asked from the event loop, and may be slow, down
or full at any time. ``GuardedStore`` bounds what that can cost: a deadline for each call and a
circuit breaker, so that a store which is away costs nothing until it is tried again.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import pickletools
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction
from math import ceil
from typing import IO, Any, Final, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from cachelib.base import BaseCache

from aeros.caching.entry import Entry
from aeros.errors import AerosError, InvalidSettingError

T = TypeVar("T")

CachelibCache: TypeAlias = BaseCache
"""Any cache object of cachelib."""

_STORE_THREADS: Final = 8
_LONGEST_SECONDS: Final = 10 * 365 * 86400


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


@dataclass(slots=True)
class _Room:
    entry: Entry
    size: int
    checked_at: float


class MemoryStore:
    """Entries of this process, bounded in bytes; the least recently used leave first.

    Every call is O(1) for each entry that it touches, and may come from any thread.

    Args:
        max_bytes: The bound on what all entries take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.evictions: int = 0
        self._rooms: OrderedDict[bytes, _Room] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def total_bytes(self) -> int:
        """Bytes that all entries take, about."""
        return self._bytes

    def get(self, key: bytes) -> tuple[Entry, float] | None:
        """Returns the entry and when it was last known to stand in the shared store."""
        with self._lock:
            room = self._rooms.get(key)
            if room is None:
                return None
            self._rooms.move_to_end(key)
            return room.entry, room.checked_at

    def set(self, key: bytes, entry: Entry, checked_at: float) -> bool:
        """Keeps ``entry``; returns False where it alone is larger than the bound."""
        size = entry.size
        with self._lock:
            self._drop(key)
            if size > self.max_bytes:
                return False
            self._rooms[key] = _Room(entry, size, checked_at)
            self._bytes += size
            self._make_room()
        return True

    def recount(self, entry: Entry) -> bool:
        """Takes note that ``entry`` has grown; returns False where it is not kept any more."""
        with self._lock:
            room = self._rooms.get(entry.key)
            if room is None or room.entry is not entry:
                return False
            size = entry.size
            if size > self.max_bytes:
                # It leaves alone instead of driving all the others out first.
                self._drop(entry.key)
                self.evictions += 1
                return False
            self._bytes += size - room.size
            room.size = size
            self._make_room()
            return True

    def delete(self, key: bytes) -> None:
        """Forgets the entry, if there is one."""
        with self._lock:
            self._drop(key)

    def clear(self) -> int:
        """Forgets every entry and returns how many there were."""
        with self._lock:
            count = len(self._rooms)
            self._rooms.clear()
            self._bytes = 0
            return count

    def _drop(self, key: bytes) -> None:
        room = self._rooms.pop(key, None)
        if room is not None:
            self._bytes -= room.size

    def _make_room(self) -> None:
        while self._bytes > self.max_bytes:
            _, room = self._rooms.popitem(last=False)
            self._bytes -= room.size
            self.evictions += 1


class CachelibStore:
    """Any cachelib cache as a store. Its calls block, so they run in threads of their own.

    cachelib pickles what it keeps, and would unpickle whatever somebody planted. This store
    works on a copy of the cache object that shares its connection or folder, but reads and
    writes plain bytes; the object that was given is not changed.

    Args:
        cache: The cachelib cache object.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache = copy.copy(cache)
        if hasattr(cache, "serializer"):
            # Not every cachelib class declares the attribute; those that pickle have it.
            cast(Any, self._cache).serializer = PlainSerializer()
        self._threads: ThreadPoolExecutor | None = None

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name, None where there is none or it is not bytes."""
        values = cast("list[object]", await self._in_thread(partial(self._cache.get_many, *names)))
        return [value if isinstance(value, bytes) else None for value in values]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value``; cachelib counts whole seconds, and 0 would mean for ever."""
        # Redis and the file cache refuse lifetimes that end too far in the future.
        timeout = min(max(1, ceil(ttl_seconds)), _LONGEST_SECONDS)
        kept = await self._in_thread(partial(self._cache.set, name, value, timeout))
        if kept is False:
            raise StoreUnavailableError(f"{type(self._cache).__name__} did not keep the value")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="aeros-store")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def __repr__(self) -> str:
        return type(self._cache).__name__


class PlainSerializer:
    """Writes bytes and whole numbers, and reads nothing else: what cachelib's caches call.

    cachelib's file cache keeps a count of its files through the same serializer. The folder may
    be in use by the application itself, so the count is written as cachelib writes it, pickled;
    it is read by its opcodes, and nothing is ever unpickled.
    """

    def dumps(self, value: object, protocol: int = 2) -> bytes:
        """Returns bytes with a tag, and a number as cachelib would write it."""
        return b"b" + value if isinstance(value, bytes) else pickle.dumps(value, protocol)

    def loads(self, data: bytes | None) -> bytes | int | None:
        """Returns the value; None for anything that ``dumps`` has not written."""
        if not isinstance(data, bytes):
            return None
        return data[1:] if data[:1] == b"b" else _pickled_number(data)

    def dump(self, value: object, file: IO[bytes], protocol: int = 2) -> None:
        """Writes ``value`` to ``file``."""
        file.write(self.dumps(value, protocol))

    def load(self, file: IO[bytes]) -> bytes | int | None:
        """Reads a value from ``file``."""
        return self.loads(file.read())


def _pickled_number(data: bytes) -> int | None:
    """Returns the number of a pickle that consists of one; reading opcodes executes nothing."""
    if len(data) > 64:
        return None
    try:
        opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    except (ValueError, IndexError):
        return None
    values = [(name, argument) for name, argument in opcodes if name not in ("PROTO", "FRAME", "STOP")]
    if len(values) == 1 and values[0][0] in ("BININT", "BININT1", "BININT2", "LONG1"):
        return cast(int, values[0][1])
    return None


class GuardedStore:
    """A shared store that can not take the site down.

    Each call has a deadline. After three failures in a row the store is not asked for a while
    (one second, doubling up to thirty); one call then tries it again. An outage is logged once
    when it begins and once when it ends.

    Args:
        store: The store itself.
        deadline_seconds: How long one call may take.
        clock: Monotonic seconds.
    """

    FAILURES_TO_OPEN: Final = 3
    FIRST_PAUSE_SECONDS: Final = 1.0
    LONGEST_PAUSE_SECONDS: Final = 30.0

    def __init__(
        self, store: Store, *, deadline_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.errors: int = 0
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._failures = 0
        self._pause = self.FIRST_PAUSE_SECONDS
        self._closed_until = 0.0

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name.

        Raises:
            StoreUnavailableError: The store failed, was too slow, or is not asked for now.
        """
        return await self._guarded(lambda: self.store.get_many(names))

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value``.

        Raises:
            StoreUnavailableError: As for ``get_many``.
        """
        await self._guarded(lambda: self.store.set(name, value, ttl_seconds))

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        is_trial = self._failures >= self.FAILURES_TO_OPEN
        if is_trial:
            if self._clock() < self._closed_until:
                raise StoreUnavailableError("the store is not asked until its pause is over")
            # This call tries it; the others go on without until it has answered.
            self._closed_until = self._clock() + self._deadline_seconds
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await call()
        except Exception as error:
            self._failed(error, is_trial=is_trial)
            raise StoreUnavailableError(f"{self.store!r}: {error!r}") from error
        self._answered()
        return answer

    def _failed(self, error: Exception, *, is_trial: bool) -> None:
        self.errors += 1
        self._failures += 1
        if self._failures == self.FAILURES_TO_OPEN:
            _logger().warning(
                "The cache's store %r is away (%r): responses are made without it", self.store, error
            )
        elif is_trial:
            self._pause = min(self._pause * 2, self.LONGEST_PAUSE_SECONDS)
        # Calls that were under way when the outage began do not lengthen the pause.
        if is_trial or self._failures == self.FAILURES_TO_OPEN:
            self._closed_until = self._clock() + self._pause

    def _answered(self) -> None:
        if self._failures >= self.FAILURES_TO_OPEN:
            _logger().warning("The cache's store %r is back", self.store)
        self._failures = 0
        self._pause = self.FIRST_PAUSE_SECONDS


def as_store(value: object) -> Store:
    """Returns ``value`` as a store: a store itself, or any cachelib cache.

    Raises:
        InvalidSettingError: It is neither.
    """
    if isinstance(value, BaseCache):
        return CachelibStore(value)
    if (
        not isinstance(value, type)
        and isinstance(value, Store)
        and iscoroutinefunction(value.get_many)
        and iscoroutinefunction(value.set)
    ):
        return value
    raise InvalidSettingError(
        "cache", value, "an aeros Cache, a cachelib cache object, or an object with async get_many and set"
    )


def _logger() -> logging.Logger:
    return logging.getLogger("aeros.cache")
