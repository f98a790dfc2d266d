"""The response cache: lookup, single flight and store, for one application in one process.

A request on a cached route opens a ``Transaction``. It is a hit, or it leads: its view runs, and
the requests that come for the same key meanwhile wait for what it brings. The view's response is
*proposed* when the view returns and *committed* when all of the application's hooks have run, so
that a cookie set by a hook or a session read by one keeps it from being stored. What is stored is
the response as the view made it: hooks run again for each hit.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Final, Literal, cast

from aeros.caching.entry import Entry, StoredResponse, VaryMark, decode_entry, encode_entry
from aeros.caching.keys import request_key, store_key, variant_key
from aeros.caching.policy import bypass_reason, is_authorized, selects
from aeros.caching.rules import CacheRules, Timeout, checked_seconds
from aeros.caching.stores import (
    CachelibCache,
    GuardedStore,
    MemoryStore,
    Store,
    StoreUnavailableError,
    as_store,
)
from aeros.caching.transaction import CacheRequest, Flight, Marks, Terms, Transaction
from aeros.errors import EntryFormatError, InvalidSettingError
from aeros.http.cache_status import CacheStatus
from aeros.per_loop import PerLoop
from aeros.types import RawHeaders

_GENERATION_NAME: Final = "aeros:1:generation"
_GENERATION_SECONDS: Final = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """The counters of one cache in this process, as they were when it was asked.

    Attributes:
        hits: Responses from the cache.
        misses: Requests whose view ran and whose response could be stored.
        collapsed: Requests that waited for another one's view and got its response.
        bypasses: Responses that were not stored or requests not looked up, by reason.
        stores: Responses stored.
        evictions: Responses that left to make room.
        entries: Entries in memory now.
        bytes: What they take in memory, about.
        damaged: Entries of the shared store that could not be read.
        store_errors: Calls to the shared store that failed.
    """

    hits: int
    misses: int
    collapsed: int
    bypasses: Mapping[str, int]
    stores: int
    evictions: int
    entries: int
    bytes: int
    damaged: int
    store_errors: int


class Cache:
    """Keeps complete responses and answers with them while they are fresh (RFC 9111).

    Args:
        store: None: this process's memory alone. A cachelib cache object, or an object with
            async ``get_many`` and ``set``: kept there too, for other processes.
        default_timeout: Lifetime of responses where neither the route nor the response states
            one: seconds or a ``timedelta``. None: such responses are not stored.
        max_bytes: Bound on the memory that entries take in this process.
        local_seconds: With a store: how long an entry in memory is used without asking the
            store whether it was cleared by another process.
        store_deadline_seconds: How long one call to the store may take.
        flight_deadline_seconds: How long a request waits for another one's view, and how long
            a view may go on after its own client has left.
        clock: Seconds since the epoch.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(
        self,
        store: Store | CachelibCache | None = None,
        *,
        default_timeout: Timeout | None = 300,
        max_bytes: int = 64 * 2**20,
        local_seconds: float = 1.0,
        store_deadline_seconds: float = 0.5,
        flight_deadline_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.default_timeout: float | None = checked_seconds("default_timeout", default_timeout)
        self.max_bytes: int = _checked_bytes(max_bytes)
        self.local_seconds: float = _checked_duration("local_seconds", local_seconds)
        self.flight_deadline_seconds: float = _checked_duration(
            "flight_deadline_seconds", flight_deadline_seconds
        )
        deadline = _checked_duration("store_deadline_seconds", store_deadline_seconds)
        self._store = None if store is None else GuardedStore(as_store(store), deadline_seconds=deadline)
        self._memory = MemoryStore(self.max_bytes)
        self._flights: PerLoop[dict[bytes, Flight]] = PerLoop(dict)
        self._writes: PerLoop[dict[str, asyncio.Task[None]]] = PerLoop(dict)
        self._clock = clock
        self._cleared = 0
        self._cleared_at = float("-inf")
        self._generation = ""
        self._counts: Counter[str] = Counter()
        self._bypasses: Counter[str] = Counter()
        self._terms = Terms(
            clock=clock,
            default_timeout=self.default_timeout,
            deadline_seconds=self.flight_deadline_seconds,
            admit=self._admit,
            note_bypass=self._note_bypass,
        )

    async def open(self, scope: Mapping[str, object], rules: CacheRules, *, refresh: bool) -> Transaction:
        """Begins a request on a cached route.

        Returns a transaction whose ``hit`` is the response to send, or None: then the view must
        run, and its outcome must be proposed and committed, or abandoned.

        Args:
            scope: The request's ASGI scope.
            rules: The route's options.
            refresh: Whether to run the view even if a fresh response is stored.
        """
        reason = bypass_reason(scope)
        if reason is not None:
            return self._bypass(reason, fwd="method" if reason == "method" else "bypass")
        headers = cast(RawHeaders, scope["headers"])
        key = request_key(
            scope,
            template=rules.key_template(),
            view=rules.view,
            query_string=rules.query_string,
            hash_method=rules.hash_method,
        )
        request = CacheRequest(key, headers, is_authorized(headers), str(scope["method"]), rules)
        # Looked up even to be replaced: the store's generation must be known before the view runs.
        found = await self._lookup(request)
        if found is not None and not refresh:
            return self._hit(found)
        # HEAD may have another view's answer, and credentials another user's: neither may lead.
        if request.method == "HEAD" or request.authorized or refresh:
            return self._miss(request)
        return await self._board(request)

    def bypass(self, reason: str) -> Transaction:
        """Returns the transaction of a request that the route keeps out of the cache."""
        return self._bypass(reason)

    def clear(self) -> int | None:
        """Forgets every response of this cache, at once in this process.

        May be called from any thread, with or without an event loop. With a store, other
        processes see it within ``local_seconds`` of their next look; nothing but this cache's
        own entries is touched there. On a running event loop the store is told in the background.

        Returns:
            How many entries left; None where a store is involved, which does not tell.
        """
        self._cleared += 1
        self._cleared_at = self._clock()
        count = self._memory.clear()
        if self._store is None:
            return count
        self._generation = ""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._renew_generation())
        else:
            self._write(_GENERATION_NAME, self._renew_generation)
        return None

    def stats(self) -> CacheStats:
        """Returns the counters of this process."""
        return CacheStats(
            hits=self._counts["hits"],
            misses=self._counts["misses"],
            collapsed=self._counts["collapsed"],
            bypasses=MappingProxyType(dict(self._bypasses)),
            stores=self._counts["stores"],
            evictions=self._memory.evictions,
            entries=len(self._memory),
            bytes=self._memory.total_bytes,
            damaged=self._counts["damaged"],
            store_errors=self._store.errors if self._store else 0,
        )

    async def settle(self) -> None:
        """Waits until this loop has told the store all that it was to be told."""
        while tasks := list(self._writes.get().values()):
            await asyncio.wait(tasks)

    def __repr__(self) -> str:
        where = f"{self._store.store!r} and " if self._store else ""
        return f"Cache({where}memory, {self.max_bytes / 2**20:.0f} MiB)"

    async def _board(self, request: CacheRequest) -> Transaction:
        """Leads the flight of this key, or waits for the one that is under way."""
        flights = self._flights.get()
        key = self._selected_key(request)
        deadline = monotonic() + self.flight_deadline_seconds
        while (flight := flights.get(key)) is not None:
            found = await flight.wait(deadline - monotonic())
            if found is None:
                return self._miss(request)
            if selects(found.vary, request.headers):
                return self._collapsed(found)
            # It is for other requests than this one. Now that it is known what the responses
            # vary by, this request has a key of its own.
            stored = await self._lookup(request)
            if stored is not None:
                return self._hit(stored)
            key = variant_key(request.key, [name for name, _ in found.vary], request.headers)
        flights[key] = flight = Flight(lambda: flights.pop(key, None))
        return self._miss(request, flight)

    async def _lookup(self, request: CacheRequest) -> StoredResponse | None:
        entry = await self._fetch(request.key, request.rules)
        if isinstance(entry, VaryMark):
            entry = await self._fetch(variant_key(entry.key, entry.names, request.headers), request.rules)
        if not isinstance(entry, StoredResponse) or not selects(entry.vary, request.headers):
            return None
        return entry if entry.is_public or not request.authorized else None

    def _selected_key(self, request: CacheRequest) -> bytes:
        mark = self._memory.get(request.key)
        if mark is not None and isinstance(mark[0], VaryMark):
            return variant_key(request.key, mark[0].names, request.headers)
        return request.key

    async def _fetch(self, key: bytes, rules: CacheRules) -> Entry | None:
        """Returns the fresh entry of a key, from memory where that is recent enough."""
        now = self._clock()
        found = self._memory.get(key)
        if found is not None:
            entry, checked_at = found
            if entry.ttl(now) <= 0:
                self._memory.delete(key)
            elif self._store is None or 0 <= now - checked_at <= self.local_seconds:
                return entry
        return None if self._store is None else await self._fetch_shared(self._store, key, rules)

    async def _fetch_shared(self, store: GuardedStore, key: bytes, rules: CacheRules) -> Entry | None:
        cleared = self._cleared
        name = store_key(key, rules.hash_method)
        try:
            generation, data = await store.get_many([_GENERATION_NAME, name])
        except StoreUnavailableError:
            return None
        if generation is None:
            # Lost or never made. A new one disowns all that is there, so nothing cleared comes back.
            await self._renew_generation()
            return None
        self._generation = generation.decode("latin-1")
        entry = self._decoded(data) if data is not None else None
        now = self._clock()
        if (
            entry is None
            or entry.key != key
            or entry.generation != self._generation
            or entry.ttl(now) <= 0
            or entry.stored_at <= self._cleared_at
            or cleared != self._cleared
        ):
            self._memory.delete(key)
            return None
        self._keep(key, entry, name)
        return entry

    def _decoded(self, data: bytes) -> Entry | None:
        try:
            return decode_entry(data)
        except EntryFormatError:
            self._counts["damaged"] += 1
            return None

    def _keep(self, key: bytes, entry: Entry, name: str) -> bool:
        if not self._memory.set(key, entry, self._clock()):
            return False
        if isinstance(entry, StoredResponse):
            entry.on_growth = lambda grown: self._grown(grown, name)
        return True

    def _grown(self, entry: StoredResponse, name: str) -> None:
        # A body that was still being coded when a newer response came must not bring it back.
        if self._memory.recount(entry):
            self._share(name, entry)

    def _share(self, name: str, entry: Entry) -> None:
        """Tells the store of an entry, without making a response wait for it."""
        if self._store is not None:
            self._write(name, partial(self._write_entry, self._store, name, entry))

    async def _write_entry(self, store: GuardedStore, name: str, entry: Entry) -> None:
        ttl = entry.ttl(self._clock())
        if ttl <= 0:
            return
        try:
            await store.set(name, encode_entry(entry), ttl)
        except StoreUnavailableError:
            return

    async def _renew_generation(self) -> None:
        """Disowns what this cache has in the store, by giving what comes from now on another mark."""
        if self._store is None:
            return
        generation = secrets.token_hex(8)
        try:
            await self._store.set(_GENERATION_NAME, generation.encode("ascii"), _GENERATION_SECONDS)
        except StoreUnavailableError:
            return
        self._generation = generation

    def _write(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Does ``work`` on a name of the store in the background, after what is under way on it."""
        writes = self._writes.get()
        before = writes.get(name)

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work()

        def forget(done: asyncio.Task[None]) -> None:
            if writes.get(name) is done:
                del writes[name]

        writes[name] = task = asyncio.create_task(in_turn())
        task.add_done_callback(forget)

    def _hit(self, found: StoredResponse) -> Transaction:
        self._counts["hits"] += 1
        status = CacheStatus(hit=True, ttl=max(0, int(found.ttl(self._clock()))))
        return Transaction(self._terms, hit=found, status=status)

    def _collapsed(self, found: StoredResponse) -> Transaction:
        self._counts["collapsed"] += 1
        status = CacheStatus(fwd="miss", collapsed=True, ttl=max(0, int(found.ttl(self._clock()))))
        return Transaction(self._terms, hit=found, status=status)

    def _miss(self, request: CacheRequest, flight: Flight | None = None) -> Transaction:
        self._counts["misses"] += 1
        marks = Marks(self._cleared, self._generation)
        return Transaction(
            self._terms, request=request, flight=flight, marks=marks, status=CacheStatus(fwd="miss")
        )

    def _bypass(self, reason: str, fwd: Literal["bypass", "method"] = "bypass") -> Transaction:
        self._note_bypass(reason)
        detail = reason if fwd == "bypass" else None
        return Transaction(self._terms, status=CacheStatus(fwd=fwd, detail=detail))

    def _note_bypass(self, reason: str) -> None:
        self._bypasses[reason] += 1

    def _admit(self, request: CacheRequest, candidate: StoredResponse, marks: Marks) -> str | None:
        """Stores a response that may be stored; returns why it was not, None where it was."""
        if marks.clearings != self._cleared:
            return "cleared"
        candidate.generation = marks.generation
        name = store_key(candidate.key, request.rules.hash_method)
        if not self._keep(candidate.key, candidate, name):
            return "too-large"
        self._share(name, candidate)
        if candidate.vary:
            names = tuple(field for field, _ in candidate.vary)
            mark = VaryMark(
                key=request.key,
                names=names,
                stored_at=candidate.stored_at,
                lifetime=candidate.lifetime,
                generation=marks.generation,
            )
            mark_name = store_key(request.key, request.rules.hash_method)
            self._keep(request.key, mark, mark_name)
            self._share(mark_name, mark)
        self._counts["stores"] += 1
        return None


def as_cache(value: object) -> Cache:
    """Returns ``value`` as a cache: itself, or one that keeps its responses in it too.

    Raises:
        InvalidSettingError: It is neither a cache nor a store.
    """
    if isinstance(value, Cache):
        return value
    return Cache(as_store(value))


def _checked_bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InvalidSettingError("max_bytes", value, "a whole number of bytes above 0")


def _checked_duration(setting: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise InvalidSettingError(setting, value, "seconds from 0 on")
