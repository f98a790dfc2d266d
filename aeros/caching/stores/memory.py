"""This process's memory as the place of entries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aeros.caching.entry import Entry

_MARK_BYTES: Final = 220  # the mark and its place in the index, measured on CPython 3.11
_REMEMBERED_EVICTIONS: Final = 10_000


@dataclass(slots=True)
class Room:
    """An entry and what is known of it.

    Attributes:
        entry: The entry.
        checked_at: When it was last known to stand in the shared store, seconds since the epoch.
        epoch: The subscription to evictions under which it was checked; 0: none.
        marks: What it can be evicted by.
        size: Bytes that it takes, about.
        name: Another name under which it is found, if it has one.
        name_bytes: What that takes; it is a part of ``size``.
    """

    entry: Entry
    checked_at: float
    epoch: int
    marks: Sequence[str]
    size: int
    name: Hashable = None
    name_bytes: int = 0


class MemoryStore:
    """Entries of this process, bounded in bytes; the least recently used leave first.

    Every call is O(1) for each entry that it touches, and may come from any thread.

    Args:
        max_bytes: The bound on what all entries take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.evictions: int = 0
        self._rooms: OrderedDict[bytes, Room] = OrderedDict()
        self._names: dict[Hashable, bytes] = {}
        self._index = _Index()
        self._log = _EvictionLog()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def total_bytes(self) -> int:
        """Bytes that all entries take, about."""
        return self._bytes

    @property
    def moment(self) -> int:
        """Where the process stands in the order of all evictions: see ``set``."""
        return self._log.moment

    def get(self, key: bytes) -> Room | None:
        """Returns the entry and what is known of it."""
        with self._lock:
            room = self._rooms.get(key)
            if room is not None:
                self._rooms.move_to_end(key)
            return room

    def get_named(self, name: Hashable) -> Room | None:
        """Returns what was given this name, and is still there."""
        key = self._names.get(name)
        if key is None:
            return None
        with self._lock:
            room = self._rooms.get(key)
            if room is not None:
                self._rooms.move_to_end(key)
            return room

    def peek(self, key: bytes) -> Entry | None:
        """Returns an entry without any sign of its being used."""
        room = self._rooms.get(key)
        return None if room is None else room.entry

    def name(self, entry: Entry, name: Hashable, name_bytes: int = 0) -> None:
        """Gives an entry another name, in place of the one that it had; nothing where it is not kept.

        Args:
            entry: The entry.
            name: The name.
            name_bytes: What it takes beyond what each name does.
        """
        with self._lock:
            room = self._rooms.get(entry.key)
            if room is None or room.entry is not entry:
                return
            if room.name is not None:
                self._names.pop(room.name, None)
            room.name = name
            self._names[name] = entry.key
            grown = name_bytes - room.name_bytes
            if grown:
                room.name_bytes = name_bytes
                room.size += grown
                self._bytes += grown
                self._make_room()

    def set(
        self,
        key: bytes,
        entry: Entry,
        *,
        checked_at: float,
        epoch: int = 0,
        marks: Sequence[str] = (),
        since: int | None = None,
    ) -> str | None:
        """Keeps ``entry``; returns why it does not, None where it does.

        Args:
            key: Its key.
            entry: The entry.
            checked_at: As in ``Room``.
            epoch: As in ``Room``.
            marks: What it can be evicted by.
            since: The moment before it was made. If it, or everything, was evicted since, it is
                not kept: ``"evicted"``.
        """
        size = entry.size + _MARK_BYTES * len(marks)
        with self._lock:
            if since is not None and self._log.has_since(since, marks):
                return "evicted"
            self._drop(key)
            if size > self.max_bytes:
                return "too-large"
            self._rooms[key] = Room(entry, checked_at, epoch, marks, size)
            self._index.add(marks, key)
            self._bytes += size
            self._make_room()
        return None

    def recount(self, entry: Entry) -> bool:
        """Takes note that ``entry`` has grown; returns False where it is not kept any more."""
        with self._lock:
            room = self._rooms.get(entry.key)
            if room is None or room.entry is not entry:
                return False
            size = entry.size + _MARK_BYTES * len(room.marks) + room.name_bytes
            if size > self.max_bytes:
                # It leaves alone instead of driving all the others out first.
                self._drop(entry.key)
                self.evictions += 1
                return False
            self._bytes += size - room.size
            room.size = size
            self._make_room()
            return True

    def has_evicted(self, marks: Sequence[str], since: int) -> bool:
        """Tells whether what has one of the marks, or everything, was evicted after a moment."""
        with self._lock:
            return self._log.has_since(since, marks)

    def delete(self, key: bytes) -> None:
        """Forgets the entry, if there is one."""
        with self._lock:
            self._drop(key)

    def evict(self, marks: Sequence[str]) -> int:
        """Forgets every entry with one of the marks and returns how many there were."""
        with self._lock:
            self._log.note(marks)
            keys = {key for mark in marks for key in self._index.keys(mark)}
            for key in keys:
                self._drop(key)
            return len(keys)

    def trim(self, mark: str, most: int) -> None:
        """Makes the oldest entries with a mark leave until there are at most ``most``."""
        with self._lock:
            keys = self._index.keys(mark)
            for key in list(islice(keys, max(0, len(keys) - most))):
                self._drop(key)
                self.evictions += 1

    def clear(self) -> int:
        """Forgets every entry and returns how many there were."""
        with self._lock:
            self._log.note_everything()
            count = len(self._rooms)
            self._rooms.clear()
            self._names.clear()
            self._index = _Index()
            self._bytes = 0
            return count

    def _drop(self, key: bytes) -> None:
        room = self._rooms.pop(key, None)
        if room is not None:
            self._leave(key, room)

    def _leave(self, key: bytes, room: Room) -> None:
        self._bytes -= room.size
        self._index.remove(room.marks, key)
        if room.name is not None and self._names.get(room.name) == key:
            del self._names[room.name]

    def _make_room(self) -> None:
        while self._bytes > self.max_bytes:
            self._leave(*self._rooms.popitem(last=False))
            self.evictions += 1


class _Index:
    """Which keys a mark stands for, in the order in which they came."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        # Most marks are those of a path with one response: a dictionary for each would cost more
        # than the rest of a small entry.
        self._keys: dict[str, bytes | dict[bytes, None]] = {}

    def keys(self, mark: str) -> Sequence[bytes] | dict[bytes, None]:
        found = self._keys.get(mark)
        if found is None:
            return ()
        return (found,) if isinstance(found, bytes) else found

    def add(self, marks: Iterable[str], key: bytes) -> None:
        for mark in marks:
            found = self._keys.get(mark)
            if found is None or found == key:
                self._keys[mark] = key
            elif isinstance(found, bytes):
                self._keys[mark] = {found: None, key: None}
            else:
                found[key] = None

    def remove(self, marks: Iterable[str], key: bytes) -> None:
        for mark in marks:
            found = self._keys.get(mark)
            if found is None:
                continue
            if isinstance(found, dict):
                found.pop(key, None)
            if found == key or not found:
                del self._keys[mark]


class _EvictionLog:
    """The latest evictions in their order, so that what was made before one is not kept after it."""

    __slots__ = ("_forgotten", "_moments", "moment")

    def __init__(self) -> None:
        self.moment = 0
        # Whatever began before this moment counts as evicted: everything was, or the log is full.
        self._forgotten = 0
        self._moments: OrderedDict[str, int] = OrderedDict()

    def note(self, marks: Iterable[str]) -> None:
        self.moment += 1
        for mark in marks:
            self._moments[mark] = self.moment
            self._moments.move_to_end(mark)
        while len(self._moments) > _REMEMBERED_EVICTIONS:
            _, moment = self._moments.popitem(last=False)
            self._forgotten = max(self._forgotten, moment)

    def note_everything(self) -> None:
        self.moment += 1
        self._forgotten = self.moment
        self._moments.clear()

    def has_since(self, moment: int, marks: Iterable[str]) -> bool:
        return moment < self._forgotten or any(self._moments.get(mark, 0) > moment for mark in marks)
