"""Where stored responses are kept: one contract for every shared store, memory, and the guard."""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import shutil
import signal
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import redis
from cachelib import BaseCache, FileSystemCache, RedisCache, SimpleCache
from redis.backoff import NoBackoff
from redis.retry import Retry

from aeros.caching.entry import StoredResponse, VaryMark
from aeros.caching.stores import (
    CachelibStore,
    GuardedStore,
    MemoryStore,
    PlainSerializer,
    Store,
    StoreUnavailableError,
    as_store,
)
from aeros.errors import InvalidSettingError

if TYPE_CHECKING:
    from tests.conftest import RedisProcess

# The contract of every shared store


class Place(Protocol):
    """A cachelib cache and a way to what it really holds."""

    @property
    def cache(self) -> BaseCache:
        """The cache object as a user made it."""
        ...

    def plant(self, name: str, data: bytes) -> None:
        """Puts raw bytes under a name, with a lifetime ahead."""
        ...

    def expires_in(self, name: str) -> float:
        """Returns after how many seconds a value goes; infinity for never."""
        ...

    def expire(self, name: str) -> None:
        """Makes the lifetime of a value end in the past."""
        ...


class SimplePlace:
    """A dictionary of this process."""

    def __init__(self) -> None:
        self.cache = SimpleCache()
        self._raw: dict[str, tuple[float, bytes]] = cast(Any, self.cache)._cache

    def plant(self, name: str, data: bytes) -> None:
        """Puts the pair that cachelib would."""
        self._raw[name] = (time.time() + 100, data)

    def expires_in(self, name: str) -> float:
        """Reads the pair."""
        return (self._raw[name][0] or float("inf")) - time.time()

    def expire(self, name: str) -> None:
        """Changes the pair."""
        self._raw[name] = (1, self._raw[name][1])


class FilePlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.cache = FileSystemCache(str(folder))

    def file(self, name: str) -> Path:
        """Returns the file that cachelib keeps a name in."""
        return Path(cast(str, cast(Any, self.cache)._get_filename(name)))

    def plant(self, name: str, data: bytes) -> None:
        """Writes the file that cachelib would."""
        self.file(name).write_bytes(struct.pack("I", int(time.time()) + 100) + data)

    def expires_in(self, name: str) -> float:
        """Reads the number that the file begins with."""
        until = int(struct.unpack("I", self.file(name).read_bytes()[:4])[0])
        return (until or float("inf")) - time.time()

    def expire(self, name: str) -> None:
        """Changes that number."""
        self.file(name).write_bytes(struct.pack("I", 1) + self.file(name).read_bytes()[4:])


class RedisPlace:
    """A real Redis server, under a prefix of the user's."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = cast(Any, client)
        self.cache = RedisCache(client, key_prefix="shop:")

    def plant(self, name: str, data: bytes) -> None:
        """Sets the key that cachelib would."""
        self.client.set(f"shop:{name}", data, ex=100)

    def expires_in(self, name: str) -> float:
        """Asks the server."""
        left = int(self.client.pttl(f"shop:{name}"))
        return left / 1000 if left >= 0 else float("inf")

    def expire(self, name: str) -> None:
        """Tells the server."""
        assert self.client.pexpireat(f"shop:{name}", 1000)


@pytest.fixture(params=["simple", "files", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each of the caches, one after the other."""
    if request.param == "redis":
        server = cast("RedisProcess", request.getfixturevalue("redis_server"))
        with redis.Redis(port=server.port) as client:
            yield RedisPlace(client)
    elif request.param == "files":
        yield FilePlace(tmp_path / "cache")
    else:
        yield SimplePlace()


class Planted:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.marker),)


async def test_a_store_gives_what_it_was_given(place: Place) -> None:
    """In the order that was asked for; None for what it has not."""
    store = CachelibStore(place.cache)
    await store.set("a", b"1", 60)
    await store.set("b", b"2", 60)
    assert await store.get_many(["b", "missing", "a", "b"]) == [b"2", None, b"1", b"2"]
    assert await store.get_many(["missing"]) == [None]


async def test_a_store_keeps_the_last_value(place: Place) -> None:
    """Setting again overwrites the value and its lifetime."""
    store = CachelibStore(place.cache)
    await store.set("a", b"1", 60)
    await store.set("a", b"2", 600)
    assert await store.get_many(["a"]) == [b"2"]
    assert place.expires_in("a") > 60


@pytest.mark.parametrize(
    "value",
    [
        bytes(range(256)),
        b"",
        b"123",
        b"!x",
        b"b",
        b"i5",
        b"\x80\x05.",
        pickle.dumps([1]),
        random.Random(1).randbytes(1_000_000),
    ],
    ids=lambda value: f"{value[:4]!r}",
)
async def test_a_store_keeps_every_byte(place: Place, value: bytes) -> None:
    """Also bytes that look like something to the cache behind it."""
    store = CachelibStore(place.cache)
    await store.set("a", value, 60)
    assert await store.get_many(["a"]) == [value]


async def test_a_store_keeps_a_hundred_names_written_at_once(place: Place) -> None:
    """Threads do not get in each other's way."""
    store = CachelibStore(place.cache)
    names = [f"aeros:1:{number}" for number in range(100)]
    await asyncio.gather(*(store.set(name, name.encode(), 60) for name in names))
    assert await store.get_many(names) == [name.encode() for name in names]


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.01, 0, 1), (1, 0, 1), (1.5, 1, 2), (90, 88, 90), (0, 0, 1), (-5, 0, 1)]
)
async def test_a_value_goes_after_its_lifetime_in_whole_seconds(
    place: Place, seconds: float, least: float, most: float
) -> None:
    """Rounded up, and never the 0 that means for ever."""
    store = CachelibStore(place.cache)
    await store.set("a", b"1", seconds)
    left = place.expires_in("a")
    assert left <= most
    assert left > least - 1


async def test_a_value_whose_lifetime_is_over_is_missing(place: Place) -> None:
    """As if it had never been there."""
    store = CachelibStore(place.cache)
    await store.set("a", b"1", 60)
    place.expire("a")
    assert await store.get_many(["a"]) == [None]


@pytest.mark.parametrize("seconds", [10.0**10, 2.0**31 + 1, 10.0**18])
async def test_a_very_long_lifetime_is_as_long_as_the_store_can(place: Place, seconds: float) -> None:
    """What is cached for ever must not look like a store that is away."""
    store = CachelibStore(place.cache)
    await store.set("a", b"1", seconds)
    assert await store.get_many(["a"]) == [b"1"]


async def test_a_planted_pickle_is_not_loaded(place: Place, tmp_path: Path) -> None:
    """What somebody with access to the store puts there reads as a miss and runs nothing."""
    marker = tmp_path / "ran"
    place.cache.set("a", Planted(marker), 60)
    store = CachelibStore(place.cache)
    assert await store.get_many(["a"]) == [None]
    assert not marker.exists()
    # It was alive: the cache that it was planted through does load it.
    place.cache.get("a")
    assert marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("prefix", [b"", b"!"])
async def test_a_raw_pickle_is_not_loaded(place: Place, tmp_path: Path, protocol: int, prefix: bytes) -> None:
    """Under the store's own name and in every protocol."""
    marker = tmp_path / "ran"
    store = CachelibStore(place.cache)
    await store.set("a", b"1", 60)
    place.plant("a", prefix + pickle.dumps(Planted(marker), protocol))
    assert await store.get_many(["a"]) == [None]
    assert not marker.exists()


@pytest.mark.parametrize("data", [b"", b"1", b"x", b"i", b"ix", b"i-1", b"\xff" * 50])
async def test_foreign_bytes_are_a_miss(place: Place, data: bytes) -> None:
    """Whatever another program keeps there."""
    place.plant("a", data)
    assert await CachelibStore(place.cache).get_many(["a"]) == [None]


async def test_a_number_is_no_stored_value(place: Place) -> None:
    """A store gives bytes or nothing."""
    place.plant("a", b"i5")
    assert await CachelibStore(place.cache).get_many(["a"]) == [None]


async def test_the_users_own_cache_is_not_changed(place: Place) -> None:
    """It still keeps any object, before and after the store has used the same place."""
    before = {**vars(place.cache)}
    store = CachelibStore(place.cache)
    place.cache.set("mine", {"a": [1, 2]}, 60)
    await store.set("a", b"1", 60)
    assert place.cache.get("mine") == {"a": [1, 2]}
    assert vars(place.cache) == before
    place.cache.set("mine", (3,), 60)
    assert place.cache.get("mine") == (3,)
    assert await store.get_many(["a"]) == [b"1"]


def test_a_store_starts_no_thread_before_it_is_used() -> None:
    """An application may be made at import."""
    before = threading.active_count()
    CachelibStore(SimpleCache())
    assert threading.active_count() == before


async def test_calls_do_not_block_the_loop() -> None:
    """Cachelib's calls block, so they run in threads of the store's own."""
    seen: list[str] = []

    class Noting(SimpleCache):
        def get(self, key: str) -> object:
            seen.append(threading.current_thread().name)
            return super().get(key)

    await CachelibStore(Noting()).get_many(["a"])
    assert [name.startswith("aeros-store") for name in seen] == [True]


async def test_a_write_that_cachelib_could_not_make_is_told(tmp_path: Path) -> None:
    """It returns False where the folder is gone; the guard counts that as a failure."""
    store = CachelibStore(FileSystemCache(str(tmp_path / "cache")))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(StoreUnavailableError, match="FileSystemCache"):
        await store.set("a", b"1", 60)


async def test_a_folder_keeps_its_threshold_after_a_restart(tmp_path: Path) -> None:
    """The count of files that a new process begins with is that of the files there are."""
    folder = tmp_path / "cache"
    for start in range(0, 30, 10):
        store = CachelibStore(FileSystemCache(str(folder), threshold=10))
        for number in range(start, start + 10):
            await store.set(f"{number}", b"1", 60)
    assert len(list(folder.iterdir())) <= 12  # one over the threshold and the count itself


async def test_a_folder_used_by_both_keeps_its_threshold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The application's own values and ours are counted together, and neither warns of the other."""
    folder = tmp_path / "cache"
    cache = FileSystemCache(str(folder), threshold=10)
    store = CachelibStore(cache)
    for number in range(20):
        cache.set(f"own {number}", number, 60)
        await store.set(f"ours {number}", b"1", 60)
    assert len(list(folder.iterdir())) <= 12
    assert caplog.messages == []


def test_a_plain_serializer_reads_only_what_it_wrote() -> None:
    """Bytes and whole numbers; nothing else comes back."""
    serializer = PlainSerializer()
    for value in (b"", b"abc", b"i5", 0, 7, 10**9):
        assert serializer.loads(serializer.dumps(value)) == value
    assert serializer.loads(None) is None


def test_a_store_says_what_it_is() -> None:
    """The log and the banner name the cache behind it."""
    assert repr(CachelibStore(SimpleCache())) == "SimpleCache"


# What may be a store


class Shelf:
    """A store in memory that fails, or hangs, when it is told to."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.calls = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values."""
        await self._pass()
        return [self.values.get(name) for name in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps the value."""
        await self._pass()
        self.values[name] = value

    async def _pass(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        return "Shelf"


class SyncShelf:
    """What looks like a store, but blocks."""

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns nothing."""
        return [None for _ in names]

    def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps nothing."""


def test_stores_and_cachelib_caches_are_stores() -> None:
    """A store is taken as it is."""
    shelf = Shelf()
    assert as_store(shelf) is shelf
    assert isinstance(as_store(SimpleCache()), CachelibStore)
    assert isinstance(shelf, Store)


@pytest.mark.parametrize(
    "junk",
    [None, "redis://localhost", 5, {}, object(), SyncShelf(), SimpleCache, Shelf, MemoryStore(1)],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_no_store(junk: object) -> None:
    """Also a class instead of an instance, and what has the right names but blocks."""
    with pytest.raises(InvalidSettingError, match=r"^cache: ") as caught:
        as_store(junk)
    assert caught.value.value is junk


# Memory


def entry(name: bytes, size: int = 0) -> StoredResponse:
    """Returns an entry whose body has ``size`` bytes."""
    return StoredResponse(
        key=name, status=200, headers=[], body=b"x" * size, etag="", stored_at=0.0, lifetime=60.0
    )


EMPTY = entry(b"a").size


def filled(*names: bytes, room_for: int) -> tuple[MemoryStore, dict[bytes, StoredResponse]]:
    """Returns a memory of empty entries with one-byte names that has room for so many."""
    memory = MemoryStore(EMPTY * room_for)
    entries = {name: entry(name) for name in names}
    for name in names:
        assert memory.set(name, entries[name], 1.0)
    return memory, entries


def kept(memory: MemoryStore, names: Sequence[bytes]) -> list[bytes]:
    """Returns which of the names are there, without using them: the memory is of no use afterwards."""
    found: list[bytes] = []
    for name in names:
        before = len(memory)
        memory.delete(name)
        if len(memory) < before:
            found.append(name)
    return found


def test_memory_gives_the_entry_and_when_it_was_checked() -> None:
    """None for what is not there."""
    memory, entries = filled(b"a", room_for=3)
    memory.set(b"b", entries[b"a"], 7.5)
    found = memory.get(b"a")
    assert found is not None
    assert found[0] is entries[b"a"]
    assert found[1] == 1.0
    assert memory.get(b"b") == (entries[b"a"], 7.5)
    assert memory.get(b"c") is None


def test_the_least_recently_used_leave_first() -> None:
    """Reading is using, and so is setting again."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    memory.get(b"a")
    memory.set(b"b", entries[b"b"], 1.0)
    memory.set(b"d", entry(b"d"), 1.0)
    memory.set(b"e", entry(b"e"), 1.0)
    assert memory.evictions == 2
    assert kept(memory, [b"a", b"b", b"c", b"d", b"e"]) == [b"b", b"d", b"e"]


def test_memory_is_bounded_in_bytes() -> None:
    """However many and however large the entries are, up to the very last byte."""
    source = random.Random(3)
    memory = MemoryStore(50_000)
    for number in range(2000):
        memory.set(b"%d" % source.randrange(300), entry(b"k%d" % number, source.randrange(5000)), 0.0)
        assert 0 < memory.total_bytes <= 50_000
    exact, _ = filled(b"a", b"b", room_for=2)
    assert (exact.total_bytes, exact.max_bytes, exact.evictions) == (2 * EMPTY, 2 * EMPTY, 0)


def test_an_entry_larger_than_the_bound_is_not_kept_and_evicts_nobody() -> None:
    """Nor does an older one stay under its key."""
    memory, _ = filled(b"a", b"b", room_for=2)
    assert memory.set(b"a", entry(b"a", 10 * EMPTY), 1.0) is False
    assert memory.evictions == 0
    assert memory.total_bytes == EMPTY
    assert kept(memory, [b"a", b"b"]) == [b"b"]


def test_setting_again_counts_once() -> None:
    """The room of the old entry is free."""
    memory = MemoryStore(10 * EMPTY)
    memory.set(b"a", entry(b"a", 500), 1.0)
    memory.set(b"a", entry(b"a", 100), 1.0)
    assert (len(memory), memory.total_bytes) == (1, EMPTY + 100)


def test_an_entry_that_grew_is_counted_again() -> None:
    """And others leave, if it needs their room."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    grown = entries[b"c"]
    grown.add_variant("br", b"x" * 10)
    assert memory.total_bytes == 3 * EMPTY
    memory.recount(grown)
    assert memory.evictions == 1
    assert memory.total_bytes == 2 * EMPTY + 10
    memory.recount(grown)
    assert memory.total_bytes == 2 * EMPTY + 10
    assert kept(memory, [b"a", b"b", b"c"]) == [b"b", b"c"]


def test_an_entry_that_is_kept_no_more_is_not_counted() -> None:
    """Neither one that was replaced nor one that was deleted."""
    memory, entries = filled(b"a", b"b", room_for=5)
    memory.set(b"a", entry(b"a"), 1.0)
    memory.delete(b"b")
    for old in entries.values():
        old.add_variant("br", b"x" * 100)
        memory.recount(old)
    assert memory.total_bytes == EMPTY


def test_an_entry_that_grew_past_the_bound_leaves_alone() -> None:
    """One response with large variants does not empty the cache."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    entries[b"c"].add_variant("br", b"x" * 3 * EMPTY)
    memory.recount(entries[b"c"])
    assert memory.total_bytes == 2 * EMPTY
    assert kept(memory, [b"a", b"b", b"c"]) == [b"a", b"b"]


def test_deleting_and_clearing_free_the_room() -> None:
    """Deleting what is not there does nothing; clearing tells how many left."""
    memory, _ = filled(b"a", b"b", b"c", room_for=3)
    memory.delete(b"a")
    memory.delete(b"a")
    assert (len(memory), memory.total_bytes) == (2, 2 * EMPTY)
    assert memory.clear() == 2
    assert (len(memory), memory.total_bytes, memory.clear()) == (0, 0, 0)
    assert memory.evictions == 0


def test_a_full_memory_looks_at_no_more_entries_than_it_moves() -> None:
    """Each new entry asks for one size, its own, however many are kept."""
    asked: list[bytes] = []

    class Counted(VaryMark):
        __slots__ = ()

        @property
        def size(self) -> int:
            asked.append(self.key)
            return 10

    memory = MemoryStore(10 * 1000)
    for number in range(3000):
        name = b"%d" % number
        memory.set(name, Counted(key=name, names=(), stored_at=0.0, lifetime=1.0), 0.0)
        memory.get(name)
    assert (len(memory), memory.evictions) == (1000, 2000)
    assert asked == [b"%d" % number for number in range(3000)]


def test_threads_do_not_lose_count() -> None:
    """After a storm of every call from many threads the books are right."""
    memory = MemoryStore(40 * EMPTY)
    names = [b"%d" % number for number in range(60)]
    errors: list[BaseException] = []

    def storm(seed: int) -> None:
        source = random.Random(seed)
        try:
            for _ in range(2000):
                name = source.choice(names)
                match source.randrange(20):
                    case 0:
                        memory.delete(name)
                    case 1 if seed == 0:
                        memory.clear()
                    case number if number < 10:
                        memory.set(name, entry(name, source.randrange(400)), 0.0)
                    case _:
                        found = memory.get(name)
                        if found is not None and isinstance(found[0], StoredResponse):
                            memory.recount(found[0])
                assert memory.total_bytes <= 2 * memory.max_bytes
        except BaseException as error:  # noqa: BLE001 - it is shown by the test
            errors.append(error)

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert 0 < memory.total_bytes <= memory.max_bytes
    for name in names:
        memory.delete(name)
    assert (len(memory), memory.total_bytes) == (0, 0)


# The guard


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Returns seconds."""
        return self.now


def guarded(shelf: Shelf, *, deadline_seconds: float = 5.0) -> tuple[GuardedStore, Clock]:
    """Returns a guarded store and its clock."""
    clock = Clock()
    return GuardedStore(shelf, deadline_seconds=deadline_seconds, clock=clock), clock


async def fails(store: GuardedStore) -> None:
    """Asks the store, which must not answer."""
    with pytest.raises(StoreUnavailableError):
        await store.get_many(["a"])


async def broken(shelf: Shelf, store: GuardedStore) -> None:
    """Lets the store fail until it is not asked any more."""
    shelf.error = OSError("away")
    for _ in range(GuardedStore.FAILURES_TO_OPEN):
        await fails(store)


async def test_a_store_that_works_is_passed_through() -> None:
    """What it gives is given on, and nothing is counted."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    await store.set("a", b"1", 60)
    assert await store.get_many(["a", "b"]) == [b"1", None]
    assert (store.errors, shelf.calls) == (0, 2)


async def test_a_failure_is_one_kind_of_error_whatever_it_was() -> None:
    """Its cause is kept, and named with the store."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    shelf.error = ZeroDivisionError("bad")
    with pytest.raises(StoreUnavailableError, match=r"Shelf: ZeroDivisionError\('bad'\)") as caught:
        await store.get_many(["a"])
    assert caught.value.__cause__ is shelf.error
    with pytest.raises(StoreUnavailableError):
        await store.set("a", b"1", 60)
    assert store.errors == 2


async def test_a_call_has_a_deadline() -> None:
    """A store that does not answer is a failure, and its call is ended."""
    shelf = Shelf()
    shelf.gate.clear()
    store, _ = guarded(shelf, deadline_seconds=0.01)
    await fails(store)
    with pytest.raises(StoreUnavailableError, match="TimeoutError"):
        await store.set("a", b"1", 60)
    shelf.gate.set()
    await asyncio.sleep(0)
    assert shelf.values == {}


async def test_after_three_failures_the_store_is_not_asked() -> None:
    """Until its pause is over nothing reaches it, so nothing waits for it."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS - 0.001
    for _ in range(100):
        await fails(store)
        with pytest.raises(StoreUnavailableError, match="pause"):
            await store.set("a", b"1", 60)
    assert (shelf.calls, store.errors) == (3, 3)


async def test_a_hung_store_costs_nothing_while_it_is_not_asked() -> None:
    """Three deadlines, then none."""
    shelf = Shelf()
    shelf.gate.clear()
    store, _ = guarded(shelf, deadline_seconds=0.01)
    for _ in range(1000):
        await fails(store)
    assert shelf.calls == 3


async def test_failures_between_successes_do_not_add_up() -> None:
    """Only three in a row are an outage."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    for _ in range(5):
        shelf.error = OSError("away")
        await fails(store)
        await fails(store)
        shelf.error = None
        assert await store.get_many(["a"]) == [None]
    assert shelf.calls == 15


async def test_one_call_tries_the_store_after_the_pause() -> None:
    """The others go on without it until that one has its answer."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    shelf.gate.clear()
    probe = asyncio.create_task(store.get_many(["a"]))
    await asyncio.sleep(0)
    for _ in range(10):
        await fails(store)
    assert shelf.calls == 4
    shelf.gate.set()
    assert await probe == [None]
    assert await store.get_many(["a"]) == [None]
    assert shelf.calls == 5


async def test_the_pause_doubles_up_to_half_a_minute() -> None:
    """Each try that fails makes the next one later."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        calls = shelf.calls
        clock.now += pause - 0.001
        await fails(store)
        assert shelf.calls == calls
        clock.now += 0.002
        await fails(store)
        assert shelf.calls == calls + 1


async def test_the_pause_begins_anew_after_an_answer() -> None:
    """A second outage is not punished for the first."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    for _ in range(3):
        clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
        await fails(store)
    shelf.error = None
    clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
    await store.get_many(["a"])
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    assert await store.get_many(["a"]) == [None]


async def test_many_calls_that_fail_at_once_are_one_outage() -> None:
    """Those that were under way when it began do not lengthen the first pause."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    shelf.error = OSError("away")
    shelf.gate.clear()
    calls = [asyncio.create_task(fails(store)) for _ in range(50)]
    await asyncio.sleep(0)
    shelf.gate.set()
    await asyncio.gather(*calls)
    assert (shelf.calls, store.errors) == (50, 50)
    shelf.error = None
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    assert await store.get_many(["a"]) == [None]


async def test_a_try_that_was_cancelled_is_made_again() -> None:
    """A client that leaves during the try does not keep the store away for ever."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    shelf.gate.clear()
    probe = asyncio.create_task(store.get_many(["a"]))
    await asyncio.sleep(0)
    probe.cancel()
    with suppress(asyncio.CancelledError):
        await probe
    shelf.gate.set()
    clock.now += 5.0
    assert await store.get_many(["a"]) == [None]
    assert store.errors == 3


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many calls and tries fail in between."""
    caplog.set_level(logging.DEBUG, "aeros.cache")
    shelf = Shelf()
    store, clock = guarded(shelf)
    for outage in (1, 2):
        shelf.error = OSError("away")
        for _ in range(5):
            for _ in range(20):
                await fails(store)
            clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
        assert len(caplog.messages) == 2 * outage - 1
        shelf.error = None
        for _ in range(5):
            await store.get_many(["a"])
        assert len(caplog.messages) == 2 * outage
    assert caplog.messages[0] == (
        "The cache's store Shelf is away (OSError('away')): responses are made without it"
    )
    assert caplog.messages[1] == "The cache's store Shelf is back"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_few_failures_are_no_outage_to_log(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted, and nothing more."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    shelf.error = OSError("away")
    await fails(store)
    await fails(store)
    shelf.error = None
    await store.get_many(["a"])
    assert caplog.messages == []
    assert store.errors == 2


async def test_a_real_store_that_hangs_is_left_alone_and_comes_back(redis_server: RedisProcess) -> None:
    """A Redis that is stopped in its tracks costs three deadlines; when it goes on, it is used again."""
    clock = Clock()
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client:
        inner = CachelibStore(RedisCache(client))
        await inner.set("a", b"1", 60)
        store = GuardedStore(inner, deadline_seconds=0.05, clock=clock)
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(100):
                await fails(store)
            assert store.errors == 3
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        found: list[bytes | None] = [None]
        for _ in range(100):
            clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
            with suppress(StoreUnavailableError):
                found = await store.get_many(["a"])
                break
            await asyncio.sleep(0.05)
        assert found == [b"1"]


async def test_a_real_store_that_is_gone_is_a_failure(redis_server: RedisProcess) -> None:
    """A server that was killed is away, not an error of the request."""
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client:
        store = GuardedStore(CachelibStore(RedisCache(client)), deadline_seconds=5)
        await store.set("a", b"1", 60)
        redis_server.stop()
        for _ in range(10):
            await fails(store)
        assert store.errors == 3
