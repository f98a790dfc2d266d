"""Two levels of storage: this process's memory, and behind it a store that processes share.

An entry in memory is used without asking the store for ``local_seconds`` after it was last known to
stand there; or longer, while this process hears of every eviction that another one makes.
Evicting is at once in this process. The store is told as soon as it answers: until then this process
asks it nothing, so what was evicted while the store was away can not come back from it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from aeros.caching.channel import Channel
from aeros.caching.entry import Entry, StoredResponse, decode_entry, encode_entry
from aeros.caching.keys import HashMethod, store_key
from aeros.caching.leases import Lease
from aeros.caching.pending import Pending
from aeros.caching.stores.base import CoordinatedStore, StoreUnavailableError
from aeros.caching.stores.guarded import GuardedStore
from aeros.caching.stores.memory import MemoryStore, Room
from aeros.errors import EntryFormatError
from aeros.per_loop import PerLoop

_EVICTIONS: Final = "evictions"
_RETRY: Final = "retry"
_MOST_PENDING: Final = 1_000
_TOMBSTONE: Final = b""
_TOMBSTONE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an entry is kept.

    Attributes:
        key: Its full key.
        hash_method: Shortens the key for a shared store.
        marks: Gives what it can be evicted by; asked only where that is needed.
        family: The mark of all variants of one URL, if it is one of them.
    """

    key: bytes
    hash_method: HashMethod
    marks: Callable[[], tuple[str, ...]]
    family: str | None = None

    @property
    def name(self) -> str:
        """Its short name in a shared store."""
        return store_key(self.key, self.hash_method)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was found at an address, and how the cache stood then.

    Attributes:
        entry: The entry, fresh or stale; None: there is none.
        moment: The order of this process's evictions; what was evicted since must not come back.
        stamp: What the shared store said of the marks; empty where it was not asked.
        epoch: The subscription to evictions that stood.
    """

    entry: Entry | None
    moment: int
    stamp: str = ""
    epoch: int = 0


class Levels:
    """The entries of one cache.

    Args:
        store: The shared store, if there is one.
        max_bytes: Bound on the memory that entries take.
        max_variants: How many responses to one URL are kept in memory.
        local_seconds: How long memory is trusted without a word from the store.
        clock: Seconds since the epoch.
        counts: Where ``damaged`` and ``evicted`` are counted.
    """

    def __init__(
        self,
        store: GuardedStore | None,
        *,
        max_bytes: int,
        max_variants: int,
        local_seconds: float,
        clock: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self.store: GuardedStore | None = store
        self.memory: MemoryStore = MemoryStore(max_bytes)
        self._max_variants = max_variants
        self._local_seconds = local_seconds
        self._clock = clock
        self._counts = counts
        # One for all entries; and not with an address, which would keep the whole request with each.
        self._growths = _Growths(self._grown)
        self._pending = Pending()
        # Under this name it tells other processes of evictions, and knows its own when it hears them.
        self._name = secrets.token_hex(8)
        self._epochs = count(1)
        self._channels: PerLoop[Channel] = PerLoop(
            lambda: Channel(self.forget, self._epochs, local_seconds, self._name)
        )
        self._writes: PerLoop[dict[str, asyncio.Task[None]]] = PerLoop(dict)

    # Looking up

    def peek(self, key: bytes) -> Entry | None:
        """Returns what is in memory, however old."""
        room = self.memory.get(key)
        return None if room is None else room.entry

    def find_named(self, name: Hashable, now: float) -> StoredResponse | None:
        """Returns a response that was given this name, where memory may be trusted without a word."""
        room = self.memory.get_named(name)
        if room is None or (self.store is not None and not self._is_trusted(room, now)):
            return None
        return room.entry if isinstance(room.entry, StoredResponse) else None

    def name(self, entry: StoredResponse, name: Hashable, name_bytes: int) -> None:
        """Gives a response in memory another name, which takes so many bytes."""
        self.memory.name(entry, name, name_bytes)

    def kept(self, key: bytes) -> StoredResponse | None:
        """Returns a response in memory, whether it may be used or not, and without using it."""
        entry = self.memory.peek(key)
        return entry if isinstance(entry, StoredResponse) else None

    def recount(self, entry: StoredResponse) -> None:
        """Counts what has been made of a response in memory, of which the store need not know."""
        self.memory.recount(entry)

    def find_here(self, key: bytes) -> Sighting | None:
        """Returns the entry of a key from memory; None where a store has to be asked."""
        if self.store is not None:
            return None
        moment = self.memory.moment
        room = self._usable_room(key, self._clock())
        return Sighting(None if room is None else room.entry, moment)

    def _usable_room(self, key: bytes, now: float) -> Room | None:
        room = self.memory.get(key)
        if room is None:
            return None
        _end_by(room.entry, now)
        if room.entry.useful_for(now) > 0:
            return room
        self.memory.delete(key)
        return None

    async def find(self, address: Address, *, anew: bool = False) -> Sighting:
        """Returns the entry of an address, fresh or stale, from memory where that may be trusted.

        Args:
            address: Where.
            anew: Whether the store is asked in any case: another process may have stored something
                newer, of which nobody hears.
        """
        now, moment = self._clock(), self.memory.moment
        room = self._usable_room(address.key, now)
        if self.store is None:
            return Sighting(None if room is None else room.entry, moment)
        if room is not None and not anew and self._is_trusted(room, now):
            return Sighting(room.entry, moment, room.entry.stamp, room.epoch)
        try:
            sighting = await self._find_shared(self.store, address, room, moment)
        except StoreUnavailableError:
            self._retry_later(self.store)
            sighting = Sighting(None, moment)
        return sighting if sighting.entry is not None else self._kept_meanwhile(address, sighting)

    def _kept_meanwhile(self, address: Address, sighting: Sighting) -> Sighting:
        """Returns what another request of this process has kept while the store was asked in vain."""
        moment, room = self.memory.moment, self.memory.get(address.key)
        if room is None or not self._is_trusted(room, self._clock()):
            return sighting
        if sighting.stamp not in ("", room.entry.stamp):
            return sighting  # another process has evicted it since
        return Sighting(room.entry, moment, room.entry.stamp, room.epoch)

    def _is_trusted(self, room: Room, now: float) -> bool:
        if 0 <= now - room.checked_at <= self._local_seconds:
            return True
        # A stale one may have been replaced by another process, which nobody hears of.
        return room.epoch > 0 and room.entry.ttl(now) > 0 and room.epoch == self._channels.get().epoch

    async def _find_shared(
        self, store: GuardedStore, address: Address, room: Room | None, moment: int
    ) -> Sighting:
        self._writes.get()  # what is evicted in a thread without a loop is handed over to this one
        await self._tell_pending(store)
        epoch = self._listen(store)
        marks = address.marks()
        if room is not None and room.entry.ttl(self._clock()) > 0:
            # What is in memory still stands if nothing was evicted: the store need not send it again.
            stamp, _ = await store.read("", marks)
            if stamp == room.entry.stamp:
                room.checked_at, room.epoch = self._clock(), epoch
                return Sighting(room.entry, moment, stamp, epoch)
        stamp, data = await store.read(address.name, marks)
        room = self.memory.get(address.key)  # another request may have kept a newer one meanwhile
        entry = self._decoded(data) if data else None
        if entry is None or entry.key != address.key or entry.stamp != stamp:
            entry = None
        if room is not None and room.entry.stamp != stamp:
            self.memory.delete(address.key)
        elif room is not None and (entry is None or entry.stored_at <= room.entry.stored_at):
            entry = room.entry  # it may have variants that the store has not, or be on its way there
        if entry is None or entry.useful_for(self._clock()) <= 0:
            return Sighting(None, moment, stamp, epoch)
        sighting = Sighting(entry, moment, stamp, epoch)
        if self.keep(address, entry, sighting) == "evicted":
            return Sighting(None, moment, stamp, epoch)
        return sighting

    def has_evicted(self, address: Address, sighting: Sighting) -> bool:
        """Tells whether what was seen at an address has been evicted since by this process."""
        return self.memory.has_evicted(address.marks(), sighting.moment)

    def _decoded(self, data: bytes) -> Entry | None:
        try:
            entry = decode_entry(data)
        except EntryFormatError:
            self._counts["damaged"] += 1
            return None
        _end_by(entry, self._clock())
        return entry

    # Keeping

    def keep(self, address: Address, entry: Entry, sighting: Sighting) -> str | None:
        """Keeps an entry in memory; returns why it does not, None where it does.

        Args:
            address: Where.
            entry: The entry.
            sighting: What was seen before it was made; what was evicted since is not kept.
        """
        # The family is a mark that no shared store needs to know.
        family = address.family if isinstance(entry, StoredResponse) else None
        reason = self.memory.set(
            address.key,
            entry,
            checked_at=self._clock(),
            epoch=sighting.epoch,
            marks=address.marks() if family is None else (*address.marks(), family),
            since=sighting.moment,
        )
        if reason is None and isinstance(entry, StoredResponse):
            entry.on_growth = self._growths[address.hash_method]
        if family is not None:
            self.memory.trim(family, self._max_variants)
        return reason

    def share(self, address: Address, entry: Entry, *, after: Address | None = None) -> None:
        """Tells the store of an entry, without making a response wait for it.

        Args:
            address: Where.
            entry: The entry.
            after: What the store must have been told of before.
        """
        if self.store is not None and entry.stamp:
            name = None if after is None else after.name
            self._write(address.name, partial(self._write_entry, self.store, address.name, entry, name))

    def forget_entry(self, address: Address) -> None:
        """Makes one entry leave both levels."""
        self.memory.delete(address.key)
        if self.store is not None:
            store = self.store
            self._write(
                address.name, lambda: self._write_data(store, address.name, _TOMBSTONE, _TOMBSTONE_SECONDS)
            )

    def _grown(self, hash_method: HashMethod, entry: StoredResponse) -> None:
        # A body that was still being coded when a newer response came must not bring it back.
        if self.memory.recount(entry):
            self.share(Address(entry.key, hash_method, tuple), entry)

    async def _write_entry(self, store: GuardedStore, name: str, entry: Entry, after: str | None) -> None:
        if after is not None:
            await self.written(after)
        left = entry.useful_for(self._clock())
        if left > 0:
            await self._write_data(store, name, encode_entry(entry), left)

    async def _write_data(self, store: GuardedStore, name: str, data: bytes, ttl_seconds: float) -> None:
        try:
            await store.write(name, data, ttl_seconds)
        except StoreUnavailableError:
            return

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

    async def written(self, name: str) -> None:
        """Waits until the store has been told what it was to be told of a name."""
        while (task := self._writes.get().get(name)) is not None:
            await asyncio.wait([task])

    # Leading among processes

    def lease(self, address: Address, sighting: Sighting) -> Lease | None:
        """Returns the lock of an address; None where there are no other processes to agree with.

        Args:
            address: What is to be made.
            sighting: What was seen there; a store that was away just now is not waited for again.
        """
        if self.store is None or not self.store.coordinates or not sighting.stamp:
            return None
        return Lease(self.store, address.name, self.written, self._write)

    async def is_locked(self, address: Address) -> bool:
        """Tells whether a process leads the flight of an address."""
        return self.store is not None and await self.store.is_locked(address.name)

    # Evicting

    def forget(self, marks: Sequence[str] | None) -> int:
        """Evicts from memory; returns how many entries left. May be called from any thread."""
        gone = self.memory.clear() if marks is None else self.memory.evict(marks)
        self._counts["evicted"] += gone
        return gone

    async def evict(self, marks: Sequence[str] | None) -> int:
        """Evicts from both levels; returns how many entries left the memory.

        Returns when the store has been told, or has shown that it is away: then it is told as
        soon as it answers again.

        Args:
            marks: What to evict; None: everything.
        """
        gone = self._evict_here(marks)
        if self.store is not None:
            await self._tell_or_retry(self.store)
        return gone

    def evict_soon(self, marks: Sequence[str] | None) -> int:
        """Evicts from memory at once, and from the store in the background.

        Where no event loop runs in this thread, the store has been told on return, if it answers.
        """
        gone = self._evict_here(marks)
        store = self.store
        if store is not None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                asyncio.run(self._tell_once(store))
            else:
                self._write(_EVICTIONS, lambda: self._tell_or_retry(store))
        return gone

    def _evict_here(self, marks: Sequence[str] | None) -> int:
        if self.store is not None:
            # First: once it has left the memory, another thread could read it from the store again.
            self._pending.add(marks)
        return self.forget(marks)

    async def _tell_once(self, store: GuardedStore) -> None:
        try:
            await self._tell_pending(store)
        except StoreUnavailableError:
            self._hand_over(store)
        await store.close()

    def _hand_over(self, store: GuardedStore) -> None:
        """Lets a loop that serves go on telling: nothing in the background outlives this one."""
        own = asyncio.get_running_loop()
        for loop in self._writes.loops():
            if loop is not own and loop.is_running():
                with suppress(RuntimeError):  # it is closed at this moment
                    loop.call_soon_threadsafe(self._retry_later, store)
                    return
        _logger().warning("The cache's store was not told of an eviction yet: it is away")

    async def _tell_or_retry(self, store: GuardedStore) -> None:
        try:
            await self._tell_pending(store)
        except StoreUnavailableError:
            self._retry_later(store)

    def _retry_later(self, store: GuardedStore) -> None:
        if self._pending and _RETRY not in self._writes.get():
            self._write(_RETRY, lambda: self._retry(store))

    async def _retry(self, store: GuardedStore) -> None:
        while self._pending:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                # Until it is told, other processes may still use what was evicted.
                await self._tell_pending(store, insists=True)
            except StoreUnavailableError:
                continue

    async def _tell_pending(self, store: GuardedStore, *, insists: bool = False) -> None:
        while (batch := self._pending.batch()) is not None:
            await store.evict(batch.marks, self._name, insists=insists)
            self._pending.told(batch)

    # Hearing of what others evict

    def _listen(self, store: GuardedStore) -> int:
        """Makes sure that this loop listens; returns the subscription that stands, 0 for none."""
        coordinated = store.store
        return self._channels.get().open(coordinated) if isinstance(coordinated, CoordinatedStore) else 0

    # Ending

    async def settle(self) -> None:
        """Waits until this loop has told the store all that it was to be told."""
        while tasks := [task for name, task in self._writes.get().items() if name != _RETRY]:
            await asyncio.wait(tasks)

    async def close(self, timeout_seconds: float) -> None:
        """Tells the store what is under way, within a bound, and gives back what this loop holds."""
        tasks = list(self._writes.get().values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._channels.get().close()
        if self.store is not None:
            await self.store.close()


class _Growths(dict[HashMethod, Callable[[StoredResponse], None]]):
    """What is called when an entry grows, by how its key is shortened."""

    def __init__(self, grown: Callable[[HashMethod, StoredResponse], None]) -> None:
        super().__init__()
        self._grown = grown

    def __missing__(self, hash_method: HashMethod) -> Callable[[StoredResponse], None]:
        called = self[hash_method] = partial(self._grown, hash_method)
        return called


def _end_by(entry: Entry, now: float) -> None:
    """Makes an entry end within its lifetime from now on, whatever clock it was stored by.

    That clock may be another process's, or this one's before it was set back.
    """
    entry.stored_at = min(entry.stored_at, now)


def _logger() -> logging.Logger:
    return logging.getLogger("aeros.cache")
