"""One contract for every store that several processes share, and what may be one."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cachelib import FileSystemCache, MemcachedCache, NullCache, SimpleCache

from aeros.caching.stores import CoordinatedStore, Store, as_store
from aeros.caching.stores.cachelib import CachelibStore
from aeros.caching.stores.files import FileStore
from aeros.caching.stores.marked import MarkedStore
from aeros.caching.stores.memory import MemoryStore
from aeros.errors import InvalidSettingError

if TYPE_CHECKING:
    from tests.unit.caching.conftest import Bomb, Place

# The contract


async def test_a_store_gives_what_it_was_given(place: Place) -> None:
    """In the order that was asked for; None for what it has not."""
    await place.store.set("a", b"1", 60)
    await place.store.set("b", b"2", 60)
    assert await place.store.get_many(["b", "missing", "a", "b"]) == [b"2", None, b"1", b"2"]
    assert await place.store.get_many(["missing"]) == [None]


async def test_a_store_keeps_the_last_value(place: Place) -> None:
    """Setting again overwrites the value and its lifetime."""
    await place.store.set("a", b"1", 60)
    await place.store.set("a", b"2", 600)
    assert await place.store.get_many(["a"]) == [b"2"]
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
    """Also bytes that look like something to what is behind it."""
    await place.store.set("a", value, 60)
    assert await place.store.get_many(["a"]) == [value]


async def test_a_store_keeps_a_hundred_names_written_at_once(place: Place) -> None:
    """Threads do not get in each other's way."""
    names = [f"aeros:1:{number}" for number in range(100)]
    await asyncio.gather(*(place.store.set(name, name.encode(), 60) for name in names))
    assert await place.store.get_many(names) == [name.encode() for name in names]


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.01, 0, 1), (1, 0, 1), (1.5, 1, 2), (90, 88, 90), (0, 0, 1), (-5, 0, 1)]
)
async def test_a_value_goes_after_its_lifetime(
    place: Place, seconds: float, least: float, most: float
) -> None:
    """Whole seconds are rounded up, and nothing is ever the 0 that means for ever."""
    await place.store.set("a", b"1", seconds)
    left = place.expires_in("a")
    assert left <= most
    assert left > least - 1


async def test_a_value_whose_lifetime_is_over_is_missing(place: Place) -> None:
    """As if it had never been there."""
    await place.store.set("a", b"1", 60)
    place.expire("a")
    assert await place.store.get_many(["a"]) == [None]


@pytest.mark.parametrize("seconds", [10.0**10, 2.0**31 + 1, 10.0**18, float("inf")])
async def test_a_very_long_lifetime_is_as_long_as_the_store_can(place: Place, seconds: float) -> None:
    """What is cached for ever must not look like a store that is away."""
    await place.store.set("a", b"1", seconds)
    assert await place.store.get_many(["a"]) == [b"1"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("prefix", [b"", b"!"])
async def test_a_raw_pickle_is_not_loaded(place: Place, bomb: Bomb, protocol: int, prefix: bytes) -> None:
    """Under the store's own name and in every protocol."""
    await place.store.set("a", b"1", 60)
    place.plant("a", prefix + pickle.dumps(bomb, protocol))
    assert await place.store.get_many(["a"]) == [None]
    assert not bomb.marker.exists()


@pytest.mark.parametrize("data", [b"", b"1", b"x", b"i", b"i5", b"ix", b"i-1", b"\xff" * 50])
async def test_foreign_bytes_are_a_miss(place: Place, data: bytes) -> None:
    """Whatever another program keeps there."""
    place.plant("a", data)
    assert await place.store.get_many(["a"]) == [None]


async def test_a_lost_value_is_missing_and_can_be_set_again(place: Place) -> None:
    """A store may forget at any time."""
    await place.store.set("a", b"1", 60)
    place.lose("a")
    assert await place.store.get_many(["a"]) == [None]
    await place.store.set("a", b"2", 60)
    assert await place.store.get_many(["a"]) == [b"2"]


# What may be a store


class Shelf:
    """A plain store in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values."""
        return [self.values.get(name) for name in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps the value."""
        self.values[name] = value


class SyncShelf:
    """What looks like a store, but blocks."""

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns nothing."""
        return [None for _ in names]

    def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps nothing."""


class Exchange:
    """A store through which processes hear of each other; it keeps nothing."""

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Finds nothing."""
        return "", None

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps nothing."""

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:
        """Has nothing to evict."""

    async def close(self) -> None:
        """Has nothing to close."""

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Gives every lock."""
        return True

    async def unlock(self, name: str, owner: str) -> None:
        """Knows no locks."""

    async def is_locked(self, name: str) -> bool:
        """Knows no locks."""
        return False

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Hears nothing."""


def plain_store(value: object) -> Store:
    """Returns the store within what ``as_store`` makes of a value."""
    store = as_store(value)
    assert isinstance(store, MarkedStore)
    return store.store


def test_plain_stores_and_cachelib_caches_get_marks(tmp_path: Path) -> None:
    """A plain store is taken as it is; a folder is kept by a store that is made for folders."""
    shelf = Shelf()
    assert isinstance(shelf, Store)
    assert plain_store(shelf) is shelf
    assert isinstance(plain_store(SimpleCache()), CachelibStore)
    assert isinstance(plain_store(FileSystemCache(str(tmp_path))), FileStore)


def test_a_store_that_coordinates_is_taken_as_it_is() -> None:
    """It knows itself what was evicted."""
    exchange = Exchange()
    assert isinstance(exchange, CoordinatedStore)
    assert as_store(exchange) is exchange


def test_a_folder_that_is_not_safe_is_refused_at_once(tmp_path: Path) -> None:
    """By whoever starts the application, not by its first request."""
    cache = FileSystemCache(str(tmp_path / "cache"))
    (tmp_path / "cache").rename(tmp_path / "other")
    (tmp_path / "cache").symlink_to(tmp_path / "other")
    with pytest.raises(InvalidSettingError, match=r"^cache: .*/cache' does not fit; give a folder"):
        as_store(cache)


@pytest.mark.parametrize(
    "junk",
    [
        None,
        NullCache(),
        "redis://localhost",
        5,
        {},
        object(),
        SyncShelf(),
        SimpleCache,
        Shelf,
        MemoryStore(1),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_no_store(junk: object) -> None:
    """Also a class instead of an instance, and what has the right names but blocks."""
    with pytest.raises(InvalidSettingError, match=r"^cache: ") as caught:
        as_store(junk)
    assert caught.value.value is junk


def test_a_memcached_client_is_no_store() -> None:
    """It unpickles what it reads by itself, so it would run what somebody planted."""
    with pytest.raises(InvalidSettingError, match="unpickle"):
        as_store(MemcachedCache(object()))
