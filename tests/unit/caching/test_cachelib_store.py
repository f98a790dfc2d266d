"""Any cache object of cachelib as a store: nothing is unpickled, and nothing blocks the loop."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import cachelib
import pytest
import redis
from cachelib import (
    BaseCache,
    DynamoDbCache,
    MemcachedCache,
    MongoDbCache,
    NullCache,
    SimpleCache,
    UWSGICache,
    ValkeyCache,
)

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.cachelib import CachelibStore, PlainSerializer
from aeros.caching.stores.marked import MarkedStore
from aeros.caching.stores.threads import Threads

if TYPE_CHECKING:
    from tests.conftest import RedisProcess
    from tests.unit.caching.conftest import Bomb, CachelibPlace

# What somebody planted


async def test_a_planted_pickle_is_not_loaded(cachelib_place: CachelibPlace, bomb: Bomb) -> None:
    """What somebody with access to the store puts there reads as a miss and runs nothing."""
    cache, store = cachelib_place.cache, cachelib_place.store
    cache.set("a", bomb, 60)
    assert await store.get_many(["a"]) == [None]
    assert not bomb.marker.exists()
    # It was alive: the cache that it was planted through does load it.
    cache.get("a")
    assert bomb.marker.exists()


class Rows:
    """What MongoDB, DynamoDB and uWSGI answer where somebody planted ``data`` under every name."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def find(self, query: dict[str, dict[str, list[str]]]) -> list[dict[str, object]]:
        """Answers as a collection of MongoDB."""
        return [{"id": name, "val": self.data} for name in query["id"]["$in"]]

    def delete_many(self, query: object) -> None:
        """Has nothing that is too old."""

    def get_item(self, **_: object) -> dict[str, object]:
        """Answers as a table of DynamoDB."""
        return {"Item": {"response": SimpleNamespace(value=self.data)}}

    def cache_get(self, key: str, cache: str) -> bytes:
        """Answers as uWSGI."""
        return self.data


def mongo(rows: Rows) -> BaseCache:
    """Returns a MongoDB cache whose client is not needed."""
    cache = cast(Any, MongoDbCache.__new__(MongoDbCache))
    cache.client, cache.key_prefix = rows, ""
    return cast(BaseCache, cache)


def dynamo(rows: Rows) -> BaseCache:
    """Returns a DynamoDB cache whose client is not needed."""
    cache = cast(Any, DynamoDbCache.__new__(DynamoDbCache))
    cache._table, cache.key_prefix = rows, ""
    cache._key_field, cache._expiration_time_field = "key", "time"
    return cast(BaseCache, cache)


def uwsgi(rows: Rows) -> BaseCache:
    """Returns a cache as within uWSGI."""
    return UWSGICache()


@pytest.mark.parametrize("make", [mongo, dynamo, uwsgi])
@pytest.mark.parametrize("prefix", [b"", b"!"])
async def test_no_other_cache_loads_a_pickle_either(
    make: Callable[[Rows], BaseCache], prefix: bytes, bomb: Bomb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose server is not here, with what their client would bring."""
    rows = Rows(prefix + pickle.dumps(bomb))
    monkeypatch.setitem(sys.modules, "uwsgi", cast(Any, rows))
    store = CachelibStore(make(rows))
    assert await store.get_many(["a", "b"]) == [None, None]
    assert not bomb.marker.exists()
    rows.data = b"bvalue"
    assert await store.get_many(["a", "b"]) == [b"value", b"value"]


async def test_a_valkey_cache_loads_no_pickle(redis_server: RedisProcess, bomb: Bomb) -> None:
    """It is a Redis under another name."""
    with redis.Redis(port=redis_server.port) as client:
        cache = ValkeyCache(client)
        cache.set("a", bomb, 60)
        assert await CachelibStore(cache).get_many(["a"]) == [None]
    assert not bomb.marker.exists()


def cache_classes() -> Iterator[type[BaseCache]]:
    """Gives every cache class that cachelib shows."""
    for name in cachelib.__all__:
        yield getattr(cachelib, name)


def test_every_cachelib_class_reads_through_its_serializer() -> None:
    """A class of a new release that unpickles by itself, as memcached's does, would show here."""
    without = {kind for kind in cache_classes() if not hasattr(kind, "serializer")}
    assert without == {BaseCache, NullCache, MemcachedCache}
    for kind in cache_classes():
        assert "import pickle" not in inspect.getsource(sys.modules[kind.__module__])


def test_a_plain_serializer_reads_only_what_it_wrote() -> None:
    """Bytes with its tag; nothing else comes back."""
    serializer = PlainSerializer()
    for value in (b"", b"abc", b"i5", b"bb"):
        assert serializer.loads(serializer.dumps(value)) == value
    for foreign in (None, b"", b"5", "btext", 7, pickle.dumps(1)):
        assert serializer.loads(foreign) is None


# The user's own object


async def test_the_users_own_cache_is_not_changed(cachelib_place: CachelibPlace) -> None:
    """It still keeps any object, before and after the store has used the same place."""
    cache = cachelib_place.cache
    before = {**vars(cache)}
    store = CachelibStore(cache)
    cache.set("mine", {"a": [1, 2]}, 60)
    await store.set("a", b"1", 60)
    assert cache.get("mine") == {"a": [1, 2]}
    assert vars(cache) == before
    cache.set("mine", (3,), 60)
    assert cache.get("mine") == (3,)
    assert await store.get_many(["a"]) == [b"1"]


def test_a_store_says_what_it_is() -> None:
    """The log and the banner name the cache behind it."""
    assert repr(CachelibStore(SimpleCache())) == "SimpleCache"


# Failures


async def test_a_write_that_cachelib_could_not_make_is_told() -> None:
    """It returns False; the guard counts that as a failure."""

    class Full(SimpleCache):
        def set(self, key: str, value: object, timeout: object = None) -> bool | None:
            return False

    with pytest.raises(StoreUnavailableError, match="Full"):
        await CachelibStore(Full()).set("a", b"1", 60)


async def test_a_cache_that_keeps_nothing_is_a_store_that_is_away() -> None:
    """It says that it kept the value, so it is the missing marks that show it."""
    store = CachelibStore(NullCache())
    await store.set("a", b"1", 60)
    assert await store.get_many(["a", "b"]) == [None, None]
    with pytest.raises(StoreUnavailableError, match="does not keep"):
        await MarkedStore(store).read("a", ["mark"])


# Threads


def test_a_store_starts_no_thread_before_it_is_used() -> None:
    """An application may be made at import."""
    before = set(threading.enumerate())
    CachelibStore(SimpleCache())
    assert set(threading.enumerate()) <= before


async def test_calls_do_not_block_the_loop() -> None:
    """Cachelib's calls block, so they run in threads of the store's own."""
    seen: list[str] = []

    class Noting(SimpleCache):
        def get(self, key: str) -> object:
            seen.append(threading.current_thread().name)
            return super().get(key)

    await CachelibStore(Noting()).get_many(["a"])
    assert [name.startswith("aeros-store") for name in seen] == [True]


async def test_a_closed_store_can_be_used_again() -> None:
    """Closing twice, or before the first use, does nothing more."""
    store = CachelibStore(SimpleCache())
    await store.close()
    await store.set("a", b"1", 60)
    await store.close()
    await store.close()
    assert await store.get_many(["a"]) == [b"1"]


async def test_closing_waits_for_nothing_and_loses_nothing() -> None:
    """A call that hangs does not hold up the end; what was begun still gets its answer."""
    threads = Threads(1, "aeros-test")
    gate = threading.Event()
    hanging = asyncio.ensure_future(threads.run(gate.wait))
    queued = asyncio.ensure_future(threads.run(lambda: "done"))
    await asyncio.sleep(0.01)
    began = time.monotonic()
    threads.close()
    assert time.monotonic() - began < 1
    assert await threads.run(lambda: "anew") == "anew"
    gate.set()
    assert await hanging
    assert await queued == "done"


async def test_threads_end_once_they_are_closed() -> None:
    """None is left behind by a loop that has ended."""
    threads = Threads(2, "aeros-test-end")
    worker = await threads.run(threading.current_thread)
    assert worker.name.startswith("aeros-test-end")
    threads.close()
    await asyncio.to_thread(worker.join, 5)
    assert not worker.is_alive()


def test_several_loops_may_close_and_use_it_at_once() -> None:
    """One that closes must not take the threads from under another's call."""
    store = CachelibStore(SimpleCache())
    errors: list[BaseException] = []

    async def use() -> None:
        for number in range(300):
            await store.set(f"{number}", b"1", 60)
            if number % 3 == 0:
                await store.close()

    def serve() -> None:
        try:
            asyncio.run(use())
        except BaseException as error:  # noqa: BLE001 - it is shown by the test
            errors.append(error)

    loops = [threading.Thread(target=serve) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert errors == []
