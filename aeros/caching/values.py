"""Values of memoized functions: lookup, single flight and store, as for responses.

What is stored are the bytes that a serializer made of a value; every caller gets a value of its
own, so nobody can change another one's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NoReturn, TypeVar

from aeros.caching.entry import StoredValue
from aeros.caching.flights import Flight, Flights, Landing, polls
from aeros.caching.leases import Lease
from aeros.caching.levels import Address, Levels, Sighting
from aeros.caching.transaction import EVICTED

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRules:
    """The lifetimes of a memoized function's values.

    Attributes:
        timeout: Seconds; None: the cache's default.
        stale_while_revalidate: For how many seconds more one is used while a new one is computed.
        stale_if_error: For how many seconds more one is used where none can be computed.
    """

    timeout: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Raised:
    """An error of the function, for all who wait for its value.

    Attributes:
        error: The error.
        traceback: Where it came from.
    """

    error: Exception
    traceback: TracebackType | None

    def again(self) -> NoReturn:
        """Raises it."""
        # Else the error would gather the places of all who were told.
        raise self.error.with_traceback(self.traceback)


@dataclass(frozen=True, slots=True)
class _Found(Generic[T]):
    """What is kept, and what it was read as."""

    entry: StoredValue
    value: T


class Values:
    """The values of one cache.

    Args:
        levels: Where they are kept.
        flights: Who computes, and who waits.
        default_timeout: Lifetime in seconds where the function states none; None: do not store.
        clock: Seconds since the epoch.
        counts: The cache's counters.
        bypassed: Counts a value that is not stored, by reason.
    """

    def __init__(
        self,
        levels: Levels,
        *,
        flights: Flights[StoredValue | Raised],
        default_timeout: float | None,
        clock: Callable[[], float],
        counts: Counter[str],
        bypassed: Callable[[str], None],
    ) -> None:
        self._levels = levels
        self._flights = flights
        self._default_timeout = default_timeout
        self._clock = clock
        self._counts = counts
        self._bypassed = bypassed
        self._running: set[asyncio.Task[StoredValue]] = set()

    async def get(
        self,
        address: Address,
        rules: ValueRules,
        compute: Callable[[], Awaitable[bytes]],
        loads: Callable[[bytes], T],
    ) -> T:
        """Returns the value of an address, computed once for all who ask at the same time.

        Args:
            address: Where it is kept.
            rules: How long it may be used.
            compute: Computes it. It runs in a task of its own: a caller that is cancelled does not
                take the value of the others along.
            loads: Reads it. What it refuses with ``ValueError`` is computed anew: another version of
                the program may have kept it.

        Raises:
            Exception: Whatever ``compute`` raises, for all who wait, unless a stale value may be used.
        """
        while True:
            sighting, found = await self._find(address, loads)
            if found is not None and self._is_usable(found.entry, address, rules, compute, loads, sighting):
                return found.value
            flight = self._flights.under_way(address.key)
            if flight is None:
                break
            brought = await flight.wait()
            if isinstance(brought, StoredValue):
                self._counts["collapsed"] += 1
                return loads(brought.data)
            if isinstance(brought, Raised):
                rescue = self._rescue(found, address, sighting)
                if rescue is not None:
                    return rescue.value
                self._counts["collapsed"] += 1
                brought.again()
            if brought is not Landing.TURNED_BACK:
                break
        self._counts["misses"] += 1
        flight = self._flights.begin(address.key) if flight is None else None
        task = self._compute(address, rules, compute, loads, sighting, flight)
        try:
            made = await asyncio.shield(task)
        except Exception:  # whatever the function raises: a stale value is better, if there is one
            rescue = self._rescue(found, address, sighting)
            if rescue is None:
                raise
            self._flights.fail(address.key)
            return rescue.value
        return loads(made.data)

    async def _find(
        self, address: Address, loads: Callable[[bytes], T], *, anew: bool = False
    ) -> tuple[Sighting, _Found[T] | None]:
        """Returns what is kept, fresh or stale, if it can be read."""
        sighting = await self._levels.find(address, anew=anew)
        entry = sighting.entry
        if not isinstance(entry, StoredValue):
            return sighting, None
        try:
            return sighting, _Found(entry, loads(entry.data))
        except ValueError:
            self._counts["damaged"] += 1
            self._levels.forget_entry(address)
            return sighting, None

    def _rescue(self, found: _Found[T] | None, address: Address, sighting: Sighting) -> _Found[T] | None:
        """Returns the stale value to use instead of an error (RFC 5861 §4)."""
        if found is None or -found.entry.ttl(self._clock()) > found.entry.if_error:
            return None
        if self._levels.has_evicted(address, sighting):
            return None
        self._counts["stale"] += 1
        return found

    def _is_usable(
        self,
        found: StoredValue,
        address: Address,
        rules: ValueRules,
        compute: Callable[[], Awaitable[bytes]],
        loads: Callable[[bytes], object],
        sighting: Sighting,
    ) -> bool:
        """Tells whether a value may be used at once; a stale one is computed anew meanwhile."""
        ttl = found.ttl(self._clock())
        pauses = self._flights.pauses(address.key)
        if ttl > 0:
            self._counts["hits"] += 1
        elif -ttl <= found.while_revalidate:
            self._counts["stale"] += 1
            if not pauses and self._flights.under_way(address.key) is None:
                self._counts["refreshes"] += 1
                flight = self._flights.begin(address.key)
                self._compute(address, rules, compute, loads, sighting, flight, is_refreshing=True)
        elif -ttl <= found.if_error and pauses:
            self._counts["stale"] += 1
        else:
            return False
        return True

    def _compute(
        self,
        address: Address,
        rules: ValueRules,
        compute: Callable[[], Awaitable[bytes]],
        loads: Callable[[bytes], object],
        sighting: Sighting,
        flight: Flight[StoredValue | Raised] | None,
        *,
        is_refreshing: bool = False,
    ) -> asyncio.Task[StoredValue]:
        """Computes a value in a task of its own, and gives it to those who wait for it."""

        async def computed() -> StoredValue:
            landing: StoredValue | Raised | Landing = Landing.NOTHING
            try:
                lease = self._levels.lease(address, sighting) if flight is not None else None
                if flight is not None and lease is not None:
                    shared = await self._lead(address, loads, flight, lease)
                    if shared is not None:
                        landing = shared
                        return shared
                data = await compute()
                value = self._made(address, rules, data, sighting.stamp)
                landing = self._keep(address, value, sighting)
                return value
            except Exception as error:
                landing = Raised(error, error.__traceback__)
                raise
            finally:
                if flight is not None:
                    flight.land(landing)

        def done(task: asyncio.Task[StoredValue]) -> None:
            self._running.discard(task)
            if not task.cancelled() and task.exception() is not None and is_refreshing:
                self._counts["refresh_failures"] += 1
                self._flights.fail(address.key)

        task = asyncio.create_task(computed())
        self._running.add(task)
        task.add_done_callback(done)
        return task

    async def _lead(
        self,
        address: Address,
        loads: Callable[[bytes], object],
        flight: Flight[StoredValue | Raised],
        lease: Lease,
    ) -> StoredValue | None:
        """Waits while another process computes; returns what it brought, None where this one must."""
        is_first = await lease.take(flight.ends_at)
        flight.hold(lease if is_first else None)
        for pause in [0.0] if is_first else polls(flight.ends_at):
            await asyncio.sleep(pause)
            is_free = not await self._levels.is_locked(address)
            _, found = await self._find(address, loads, anew=True)
            if found is not None and found.entry.ttl(self._clock()) > 0:
                return found.entry
            if is_free:
                break
        return None

    def _made(self, address: Address, rules: ValueRules, data: bytes, stamp: str) -> StoredValue:
        timeout = self._default_timeout if rules.timeout is None else rules.timeout
        return StoredValue(
            key=address.key,
            data=data,
            stored_at=self._clock(),
            lifetime=timeout or 0.0,
            while_revalidate=rules.stale_while_revalidate,
            if_error=rules.stale_if_error,
            stamp=stamp,
        )

    def _keep(self, address: Address, value: StoredValue, sighting: Sighting) -> StoredValue | Landing:
        """Stores a value; returns what those who wait for it get."""
        if value.lifetime <= 0:
            self._bypassed("no-lifetime")
            return value
        reason = self._levels.keep(address, value, sighting)
        if reason is not None:
            self._bypassed(reason)
            return Landing.TURNED_BACK if reason == EVICTED else value
        self._levels.share(address, value)
        self._flights.accept(address.key)
        self._counts["stores"] += 1
        return value
