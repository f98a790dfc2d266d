"""The response cache: lookup, single flight and store, for one application in one process.

A request on a cached route opens a ``Transaction``. It is a hit, or it leads: its view runs, and
the requests that come for the same key meanwhile wait for what it brings. The view's response is
*proposed* when the view returns and *committed* when all of the application's hooks have run, so
that a cookie set by a hook or a session read by one keeps it from being stored. What is stored is
the response as the view made it: hooks run again for each hit.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from aeros.caching.entry import Entry, StoredResponse, StoredValue, VaryMark
from aeros.caching.explain import Explanation, explain_response
from aeros.caching.flights import Flight, Flights, Landing, polls
from aeros.caching.levels import Levels, Sighting
from aeros.caching.policy import bypass_reason, selects
from aeros.caching.rules import CacheRules, Timeout, check_flag, checked_seconds
from aeros.caching.stats import CacheStats
from aeros.caching.stores import CachelibCache, SharedStore, Store, as_store
from aeros.caching.stores.guarded import GuardedStore
from aeros.caching.transaction import CacheRequest, Refresh, Terms, Transaction
from aeros.caching.values import Values
from aeros.errors import InvalidSettingError
from aeros.http.cache_status import CacheStatus

_REFRESH_GRACE_SECONDS: Final = 1.0
_DERIVED: Final = b"derived:"  # the keys of requests and calls begin with a number


class Cache:
    """Keeps complete responses and answers with them while they are fresh (RFC 9111).

    Args:
        store: None: this process's memory alone. A ``RedisStore``, a cachelib cache object, or an
            object with async ``get_many`` and ``set``: kept there too, for other processes.
        default_timeout: Lifetime of responses where neither the route nor the response states
            one: seconds or a ``timedelta``. None: such responses are not stored.
        max_bytes: Bound on the memory that entries take in this process.
        max_variants: How many responses to one URL are kept in memory that differ by ``Vary``,
            ``vary=``, ``cookies=`` or ``key=``; the oldest leave first.
        max_flights: How many views may run for several requests at once; past it, each request
            runs its own.
        local_seconds: With a store: how long an entry in memory is used without asking the
            store whether it was evicted by another process. A ``RedisStore`` tells of evictions
            at once; then this is the bound for when it can not.
        store_deadline_seconds: How long one call to the store may take.
        flight_deadline_seconds: How long a request waits for another one's view, and how long
            a view may go on after its own client has left.
        show_status: Whether responses of cached routes carry ``Cache-Status``.
        clock: Seconds since the epoch.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(
        self,
        store: Store | SharedStore | CachelibCache | None = None,
        *,
        default_timeout: Timeout | None = 300,
        max_bytes: int = 64 * 2**20,
        max_variants: int = 64,
        max_flights: int = 10_000,
        local_seconds: float = 1.0,
        store_deadline_seconds: float = 0.5,
        flight_deadline_seconds: float = 30.0,
        show_status: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.default_timeout: float | None = checked_seconds("default_timeout", default_timeout)
        self.max_bytes: int = _checked_count("max_bytes", max_bytes, "bytes")
        self.max_variants: int = _checked_count("max_variants", max_variants, "responses")
        self.local_seconds: float = _checked_duration("local_seconds", local_seconds)
        self.flight_deadline_seconds: float = _checked_duration(
            "flight_deadline_seconds", flight_deadline_seconds
        )
        check_flag("show_status", show_status)
        self._clock = clock
        self._deadline_seconds = _checked_duration("store_deadline_seconds", store_deadline_seconds)
        self._store = (
            None if store is None else GuardedStore(as_store(store), deadline_seconds=self._deadline_seconds)
        )
        self._counts: Counter[str] = Counter()
        self._bypasses: Counter[str] = Counter()
        self._early: list[int] = [0, 0, 0]  # hits by door; those at door 0, which there is not, are none
        self._levels = Levels(
            self._store,
            max_bytes=self.max_bytes,
            max_variants=self.max_variants,
            local_seconds=self.local_seconds,
            clock=clock,
            counts=self._counts,
        )
        most = _checked_count("max_flights", max_flights, "views")
        deadline = self.flight_deadline_seconds
        self._flights: Flights[StoredResponse] = Flights(deadline_seconds=deadline, most=most)
        self.values: Values = Values(
            self._levels,
            flights=Flights(deadline_seconds=deadline, most=most),
            default_timeout=self.default_timeout,
            clock=clock,
            counts=self._counts,
            bypassed=self._note_bypass,
        )
        self._terms = Terms(
            clock=clock,
            default_timeout=self.default_timeout,
            shows_status=show_status,
            admit=self._admit,
            note_bypass=self._note_bypass,
            refuse=self._flights.refuse,
            outdated=self._outdated,
            fail=self._refresh_failed,
            rescued=self._rescued,
            has_evicted=self._has_evicted,
        )

    # Responses

    async def open(
        self,
        scope: Mapping[str, object],
        rules: CacheRules,
        *,
        update: bool = False,
        tags: Callable[[], object] | None = None,
        extra: Sequence[bytes] = (),
        refresh: Refresh | None = None,
    ) -> Transaction:
        """Begins a request on a cached route.

        Returns a transaction whose ``hit`` is the response to send, or None: then the view must
        run, and its outcome must be proposed and committed, or abandoned.

        Args:
            scope: The request's ASGI scope.
            rules: The route's options.
            update: Whether to run the view even if a fresh response is stored.
            tags: Gives the tags of the response; asked only where that is needed.
            extra: What the route makes part of the key besides the URL and ``vary``.
            refresh: The right to replace a stale response, for a request made for that.
        """
        reason = bypass_reason(scope)
        if reason is not None:
            return self._bypass(reason, fwd="method" if reason == "method" else "bypass")
        request = CacheRequest(scope, rules, tags=tags, extra=extra)
        # Looked up even to be replaced: the store's stamp must be known before the view runs.
        sighting = self._seen_here(request) or await self._lookup(request, anew=refresh is not None)
        found = _response_of(sighting)
        if refresh is not None:
            return await self._replace(request, refresh, sighting, found)
        if found is not None and not update:
            usable = self._fresh(found) or self._stale(found)
            if usable is not None:
                return usable
        if update or not request.may_lead:
            return self._miss(request, sighting, None)
        return await self._board(request, sighting)

    def now(self) -> float:
        """Returns the seconds since the epoch, as the cache counts them."""
        return self._clock()

    def find_named(self, name: Hashable, now: float) -> StoredResponse | None:
        """Returns a response in memory that was given this name; it may be stale."""
        return self._levels.find_named(name, now)

    def kept(self, key: bytes) -> StoredResponse | None:
        """Returns a response in memory, whether it may be used or not, and without using it."""
        return self._levels.kept(key)

    def name(self, entry: StoredResponse, name: Hashable, name_bytes: int) -> None:
        """Gives a response another name than its key, under which ``find_named`` finds it."""
        self._levels.name(entry, name, name_bytes)

    def recount(self, entry: StoredResponse) -> None:
        """Counts the bytes of a response anew: it was recorded how it was sent, or that was forgotten."""
        self._levels.recount(entry)

    def replay(self, found: StoredResponse, now: float) -> Transaction:
        """Returns the transaction of a request that is answered with a fresh response."""
        return Transaction(self._terms, hit=found, status=CacheStatus(hit=True, ttl=int(found.ttl(now))))

    def note_hit(self, door: int) -> None:
        """Counts a hit that was answered early: at door 1 or 2."""
        self._early[door] += 1

    def bypass(self, reason: str) -> Transaction:
        """Returns the transaction of a request that the route keeps out of the cache."""
        return self._bypass(reason)

    async def explain(
        self,
        scope: Mapping[str, object],
        rules: CacheRules,
        *,
        tags: Callable[[], object] | None = None,
        extra: Sequence[bytes] = (),
    ) -> Explanation:
        """Returns what would become of a request, without a trace of having been asked."""
        reason = bypass_reason(scope)
        if reason is not None:
            return Explanation(outcome="bypass", reason=reason)
        request = CacheRequest(scope, rules, tags=tags, extra=extra)
        found = _response_of(await self._lookup(request))
        return explain_response(
            found,
            key=request.key,
            tags=request.tags,
            reason="authorization" if request.authorized else self._flights.refusal(request.key),
            now=self._clock(),
        )

    def _seen_here(self, request: CacheRequest) -> Sighting | None:
        """Returns what ``_lookup()`` does, where nothing but the memory need be asked for one key."""
        sighting = self._levels.find_here(request.key)
        found = None if sighting is None else sighting.entry
        if found is None or (
            type(found) is StoredResponse and not found.vary and (found.is_public or not request.authorized)
        ):
            return sighting
        return None

    async def _lookup(self, request: CacheRequest, *, anew: bool = False) -> Sighting:
        """Returns what a request may be answered with, fresh or stale."""
        sighting = await self._levels.find(request.address(request.key), anew=anew)
        if isinstance(sighting.entry, VaryMark):
            key = request.variant(sighting.entry.names)
            sighting = await self._levels.find(request.address(key), anew=anew)
        found = sighting.entry
        if (
            isinstance(found, StoredResponse)
            and selects(found.vary, request.headers)
            and (found.is_public or not request.authorized)
        ):
            return sighting
        return Sighting(None, sighting.moment, sighting.stamp, sighting.epoch)

    def _selected_key(self, request: CacheRequest) -> bytes:
        entry = self._levels.peek(request.key)
        return request.variant(entry.names) if isinstance(entry, VaryMark) else request.key

    def _fresh(self, found: StoredResponse) -> Transaction | None:
        ttl = found.ttl(self._clock())
        if ttl <= 0:
            return None
        self._counts["hits"] += 1
        return Transaction(self._terms, hit=found, status=CacheStatus(hit=True, ttl=int(ttl)))

    def _stale(self, found: StoredResponse) -> Transaction | None:
        """Returns the transaction of a stale response that may be used at once (RFC 5861)."""
        ttl = found.ttl(self._clock())
        if -ttl <= found.while_revalidate:
            detail = "stale-while-revalidate"
        elif -ttl <= found.if_error and self._flights.pauses(found.key):
            detail = "stale-if-error"
        else:
            return None
        self._counts["stale"] += 1
        return Transaction(
            self._terms,
            hit=found,
            status=CacheStatus(hit=True, ttl=int(ttl), detail=detail),
            refresh=self._begin_refresh(found.key),
        )

    def _begin_refresh(self, key: bytes) -> Refresh | None:
        if self._flights.pauses(key) or self._flights.under_way(key) is not None:
            return None
        # The application ends it at the deadline. Until it has said so, nobody else may try.
        flight = self._flights.begin(key, grace_seconds=_REFRESH_GRACE_SECONDS)
        return None if flight is None else Refresh(key, flight, self._refresh_failed)

    async def _replace(
        self, request: CacheRequest, refresh: Refresh, sighting: Sighting, found: StoredResponse | None
    ) -> Transaction:
        """Begins the request that is to bring a new response in the place of a stale one."""
        if found is not None and found.ttl(self._clock()) > 0:
            refresh.flight.land(found)  # another process has been quicker
            return Transaction(self._terms, hit=found, status=CacheStatus(hit=True))
        lease = self._levels.lease(request.address(refresh.key), sighting)
        if lease is not None and not await lease.take(refresh.flight.ends_at):
            self._flights.hold_off(refresh.key)
            refresh.give_up()
            return Transaction(self._terms, hit=found, status=CacheStatus(fwd="stale", collapsed=True))
        refresh.flight.hold(lease)
        self._counts["refreshes"] += 1
        return Transaction(
            self._terms,
            request=request,
            key=refresh.key,
            flight=refresh.flight,
            sighting=sighting,
            status=CacheStatus(fwd="stale"),
            is_refreshing=True,
        )

    async def _board(self, request: CacheRequest, sighting: Sighting) -> Transaction:
        """Leads the flight of this key, or waits for the one that is under way."""
        key = self._selected_key(request)
        while True:
            if self._flights.refusal(key) is not None:
                return self._miss(request, sighting, None, key)
            flight = self._flights.under_way(key)
            if flight is None:
                flight = self._flights.begin(key)
                if flight is None:
                    return self._miss(request, sighting, None, key)
                return await self._lead(request, key, flight, sighting)
            brought = await flight.wait()
            if isinstance(brought, StoredResponse) and selects(brought.vary, request.headers):
                return self._collapsed(brought)
            if brought is Landing.NOTHING or brought is Landing.TOO_LONG:
                return self._miss(request, sighting, None, key)
            # It is for other requests than this one, or it was turned back. What is known by now
            # may give this request a key of its own.
            sighting = await self._lookup(request)
            found = _response_of(sighting)
            usable = None if found is None else self._fresh(found)
            if usable is not None:
                return usable
            key = self._selected_key(request)
            if isinstance(brought, StoredResponse):
                key = request.variant([name for name, _ in brought.vary])

    async def _lead(
        self, request: CacheRequest, key: bytes, flight: Flight[StoredResponse], sighting: Sighting
    ) -> Transaction:
        """Leads a flight, once no other process does."""
        lease = self._levels.lease(request.address(key), sighting) if sighting.stamp else None
        if lease is None:
            return self._miss(request, sighting, flight, key)
        try:
            is_first = await lease.take(flight.ends_at)
            flight.hold(lease if is_first else None)
            pauses = [0.0] if is_first else polls(flight.ends_at)
            for pause in pauses:
                await asyncio.sleep(pause)
                is_free = not is_first and not await self._levels.is_locked(request.address(key))
                sighting = await self._lookup(request, anew=True)
                found = _response_of(sighting)
                if found is not None and found.ttl(self._clock()) > 0:
                    flight.land(found)
                    return self._collapsed(found)
                if is_free:
                    break
        except BaseException:
            # Mostly a cancellation, because its client has left while nothing ran yet. Whatever it is, the
            # flight has no leader now, and those who wait for it would wait until its deadline.
            flight.land(Landing.TURNED_BACK)
            raise
        return self._miss(request, sighting, flight, key)

    def _collapsed(self, found: StoredResponse) -> Transaction:
        ttl = found.ttl(self._clock())
        if ttl > 0:
            self._counts["collapsed"] += 1
            status = CacheStatus(fwd="miss", collapsed=True, ttl=int(ttl))
        else:
            self._counts["stale"] += 1
            status = CacheStatus(fwd="stale", collapsed=True, ttl=int(ttl), detail="stale-if-error")
        return Transaction(self._terms, hit=found, status=status)

    def _miss(
        self,
        request: CacheRequest,
        sighting: Sighting,
        flight: Flight[StoredResponse] | None,
        key: bytes = b"",
    ) -> Transaction:
        self._counts["misses"] += 1
        found = _response_of(sighting)
        is_fallback = found is not None and -found.if_error <= found.ttl(self._clock()) <= 0
        return Transaction(
            self._terms,
            request=request,
            key=key or request.key,
            flight=flight,
            sighting=sighting,
            fallback=found if is_fallback else None,
            status=CacheStatus(fwd="stale" if is_fallback else "miss"),
        )

    def _bypass(self, reason: str, fwd: Literal["bypass", "method"] = "bypass") -> Transaction:
        self._note_bypass(reason)
        detail = reason if fwd == "bypass" else None
        return Transaction(self._terms, status=CacheStatus(fwd=fwd, detail=detail))

    def _note_bypass(self, reason: str) -> None:
        self._bypasses[reason] += 1

    def _refresh_failed(self, key: bytes) -> None:
        self._counts["refresh_failures"] += 1
        self._flights.fail(key)

    def _rescued(self) -> None:
        self._counts["stale"] += 1

    def _has_evicted(self, request: CacheRequest, sighting: Sighting) -> bool:
        return self._levels.has_evicted(request.address(request.key), sighting)

    def _outdated(self, request: CacheRequest, key: bytes) -> None:
        self._levels.forget_entry(request.address(key))

    def _admit(self, request: CacheRequest, candidate: StoredResponse, sighting: Sighting) -> str | None:
        """Stores a response that may be stored; returns why it was not, None where it was."""
        candidate.stamp = sighting.stamp
        address = request.address(candidate.key)
        reason = self._levels.keep(address, candidate, sighting)
        if reason is not None:
            return reason
        self._levels.share(address, candidate)
        if candidate.vary:
            self._mark_varying(request, candidate, sighting)
        self._flights.accept(candidate.key)
        self._flights.accept(request.key)
        self._counts["stores"] += 1
        return None

    def _mark_varying(self, request: CacheRequest, candidate: StoredResponse, sighting: Sighting) -> None:
        mark = VaryMark(
            key=request.key,
            names=tuple(field for field, _ in candidate.vary),
            stored_at=candidate.stored_at,
            lifetime=candidate.useful_for(candidate.stored_at),
            stamp=candidate.stamp,
        )
        standing = self._levels.peek(request.key)
        if isinstance(standing, VaryMark) and standing.names == mark.names:
            left = standing.ttl(self._clock())
            mark.lifetime = max(mark.lifetime, left)
        address = request.address(request.key)
        self._levels.keep(address, mark, sighting)
        self._levels.share(address, mark, after=request.address(candidate.key))

    # Evicting

    async def evict(self, marks: Sequence[str] | None) -> int | None:
        """Makes entries leave, at once in this process; see ``WebServer.evict``.

        Args:
            marks: What they are evicted by; None: everything.

        Returns:
            How many left; None where a store is involved, which does not tell.
        """
        gone = await self._levels.evict(marks)
        return gone if self._store is None else None

    def evict_soon(self, marks: Sequence[str] | None) -> int | None:
        """Does the same from any thread, with or without a running event loop.

        On a running event loop the store is told in the background.
        """
        gone = self._levels.evict_soon(marks)
        return gone if self._store is None else None

    def clear(self) -> int | None:
        """Forgets every entry of this cache, at once in this process.

        With a store, other processes see it within ``local_seconds``; nothing but this cache's own
        entries is touched there.
        """
        return self.evict_soon(None)

    # What is made from files

    def derived(self, key: bytes) -> bytes | None:
        """Returns bytes that were kept by ``keep_derived``, in this process."""
        room = self._levels.memory.get(_DERIVED + key)
        return room.entry.data if room is not None and isinstance(room.entry, StoredValue) else None

    def keep_derived(self, key: bytes, content: bytes) -> None:
        """Keeps bytes that can be made again, within ``max_bytes``; they go with everything else.

        Args:
            key: Says what they were made from, its version included: they never become stale.
            content: The bytes.
        """
        now = self._clock()
        entry = StoredValue(key=_DERIVED + key, data=content, stored_at=now, lifetime=float("inf"))
        self._levels.memory.set(entry.key, entry, checked_at=now)

    # The rest

    @property
    def shared_store(self) -> GuardedStore | None:
        """The store behind this process's memory, guarded; None: there is none."""
        return self._store

    def stats(self) -> CacheStats:
        """Returns the counters of this process."""
        memory = self._levels.memory
        counts = self._counts
        return CacheStats(
            hits=counts["hits"] + self._early[1] + self._early[2],
            hits_by_door=MappingProxyType({1: self._early[1], 2: self._early[2], 3: counts["hits"]}),
            stale=counts["stale"],
            misses=counts["misses"],
            collapsed=counts["collapsed"],
            bypasses=MappingProxyType(dict(self._bypasses)),
            stores=counts["stores"],
            refreshes=counts["refreshes"],
            refresh_failures=counts["refresh_failures"],
            evictions=memory.evictions,
            evicted=counts["evicted"],
            entries=len(memory),
            bytes=memory.total_bytes,
            damaged=counts["damaged"],
            store_errors=self._store.errors if self._store else 0,
        )

    async def settle(self) -> None:
        """Waits until this loop has told the store all that it was to be told."""
        await self._levels.settle()

    async def close(self) -> None:
        """Ends what this event loop has open: the store is told what it was to be told first.

        The cache may be used again.
        """
        await self._levels.close(2 * self._deadline_seconds)

    def __repr__(self) -> str:
        where = f"{self._store.store!r} and " if self._store else ""
        return f"Cache({where}memory, {self.max_bytes / 2**20:.0f} MiB)"


def _response_of(sighting: Sighting) -> StoredResponse | None:
    entry: Entry | None = sighting.entry
    return entry if isinstance(entry, StoredResponse) else None


def as_cache(value: object) -> Cache:
    """Returns ``value`` as a cache: itself, or one that keeps its responses in it too.

    Raises:
        InvalidSettingError: It is neither a cache nor a store.
    """
    if isinstance(value, Cache):
        return value
    return Cache(as_store(value))


def _checked_count(setting: str, value: object, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InvalidSettingError(setting, value, f"a whole number of {unit} above 0")


def _checked_duration(setting: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise InvalidSettingError(setting, value, "seconds from 0 on")
