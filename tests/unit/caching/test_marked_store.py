"""A plain store as one that knows what was evicted: stamps change when, and only when, they must."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.marked import GENERATION_NAME, MarkedStore

if TYPE_CHECKING:
    from tests.unit.caching.conftest import Place


class Shelf:
    """A plain store in memory, each of whose calls lets others go first."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lifetimes: dict[str, float] = {}
        self.asked: list[list[str]] = []
        self.keeps = True
        self.dice = random.Random(1)

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values."""
        self.asked.append(list(names))
        await self._let_others_go_first()
        return [self.values.get(name) for name in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps the value."""
        await self._let_others_go_first()
        if self.keeps:
            self.values[name] = value
            self.lifetimes[name] = ttl_seconds

    async def _let_others_go_first(self) -> None:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)

    def __repr__(self) -> str:
        return "Shelf"


async def stamp(store: MarkedStore, *marks: str) -> str:
    """Returns the stamp of marks."""
    found, _ = await store.read("name", marks)
    return found


async def test_a_value_is_kept_beside_its_stamp(place: Place) -> None:
    """Reading gives both."""
    store = MarkedStore(place.store)
    first, nothing = await store.read("a", ["m"])
    assert nothing is None
    await store.write("a", b"1", 60)
    assert await store.read("a", ["m"]) == (first, b"1")
    assert place.expires_in("a") <= 60


async def test_a_stamp_stays_the_same_until_something_is_evicted(place: Place) -> None:
    """Whatever else is read and written, and whoever asks."""
    store = MarkedStore(place.store)
    first = await stamp(store, "m", "n")
    await store.write("a", b"1", 60)
    await stamp(store, "other")
    assert await stamp(store, "m", "n") == first
    assert await stamp(MarkedStore(place.store), "m", "n") == first


async def test_evicting_a_mark_changes_the_stamps_with_it_and_no_others(place: Place) -> None:
    """Its own, and those where it is one of several."""
    store = MarkedStore(place.store)
    combinations = [(), ("m",), ("n",), ("m", "n"), ("n", "o"), ("o", "m")]
    before = {marks: await stamp(store, *marks) for marks in combinations}
    await store.evict(["m"])
    after = {marks: await stamp(store, *marks) for marks in combinations}
    assert {marks for marks in combinations if before[marks] != after[marks]} == {
        marks for marks in combinations if "m" in marks
    }


async def test_evicting_several_marks_changes_the_stamps_of_each(place: Place) -> None:
    """Also marks that nobody has read before."""
    store = MarkedStore(place.store)
    before = [await stamp(store, mark) for mark in "mno"]
    await store.evict(["m", "n", "new"])
    after = [await stamp(store, mark) for mark in "mno"]
    assert [old != new for old, new in zip(before, after, strict=True)] == [True, True, False]
    assert len({await stamp(store, "new"), *before, *after}) == 6


async def test_evicting_no_marks_changes_nothing(place: Place) -> None:
    """No marks are not everything."""
    store = MarkedStore(place.store)
    before = await stamp(store, "m")
    await store.evict([])
    assert await stamp(store, "m") == before


async def test_evicting_everything_changes_all_stamps(place: Place) -> None:
    """Also the one without any marks."""
    store = MarkedStore(place.store)
    before = {await stamp(store), await stamp(store, "m"), await stamp(store, "m", "n")}
    await store.evict(None)
    after = {await stamp(store), await stamp(store, "m"), await stamp(store, "m", "n")}
    assert before.isdisjoint(after)


async def test_an_eviction_is_seen_by_every_process(place: Place) -> None:
    """It is in the store, not in the object."""
    ours, theirs = MarkedStore(place.store), MarkedStore(place.store)
    before = await stamp(theirs, "m")
    await ours.evict(["m"])
    after = await stamp(theirs, "m")
    assert after != before
    assert await stamp(ours, "m") == after


@pytest.mark.parametrize("lost", [GENERATION_NAME, "aeros:1:mark:m"])
async def test_what_the_store_has_lost_gives_a_stamp_never_given_before(place: Place, lost: str) -> None:
    """However often it is lost: what was evicted meanwhile must not come back."""
    store = MarkedStore(place.store)
    seen = {await stamp(store, "m")}
    for count in range(2, 6):
        place.lose(lost)
        seen.add(await stamp(store, "m"))
        assert len(seen) == count
        assert await stamp(store, "m") in seen


async def test_a_token_whose_time_is_over_is_a_lost_one(place: Place) -> None:
    """It is made anew."""
    store = MarkedStore(place.store)
    before = await stamp(store, "m")
    place.expire("aeros:1:mark:m")
    assert await stamp(store, "m") != before


async def test_stamps_are_never_given_twice() -> None:
    """Not in a thousand evictions and losses."""
    shelf = Shelf()
    store = MarkedStore(shelf)
    seen = {await stamp(store, "m")}
    dice = random.Random(2)
    for count in range(2, 1000):
        match dice.randrange(3):
            case 0:
                await store.evict(["m"])
            case 1:
                await store.evict(None)
            case _:
                del shelf.values[dice.choice(sorted(shelf.values))]
        seen.add(await stamp(store, "m"))
        assert len(seen) == count


@pytest.mark.parametrize("seed", range(20))
async def test_readers_that_find_a_cold_store_at_once_end_up_agreeing(seed: int) -> None:
    """What one of them was given in between is disowned, and then nothing changes any more."""
    shelf = Shelf()
    shelf.dice.seed(seed)
    processes = [MarkedStore(shelf) for _ in range(10)]
    await asyncio.gather(*(stamp(store, "m", "n") for store in processes))
    settled = await asyncio.gather(*(stamp(store, "m", "n") for store in processes))
    assert len(set(settled)) == 1
    assert await stamp(processes[0], "m", "n") == settled[0]


async def test_readers_of_a_real_cold_store_end_up_agreeing(place: Place) -> None:
    """The same with threads, files and a server."""
    processes = [MarkedStore(place.store) for _ in range(10)]
    await asyncio.gather(*(stamp(store, "m", "n") for store in processes))
    settled = await asyncio.gather(*(stamp(store, "m", "n") for store in processes))
    assert len(set(settled)) == 1


async def test_a_reader_that_began_before_an_eviction_has_no_stamp_of_after(place: Place) -> None:
    """What its view brings is disowned."""
    store = MarkedStore(place.store)
    await stamp(store, "m")
    before = await asyncio.gather(*(stamp(store, "m") for _ in range(10)))
    during = [asyncio.create_task(stamp(store, "m")) for _ in range(10)]
    await store.evict(["m"])
    after = await stamp(store, "m")
    assert after not in before
    assert {await task for task in during} <= {before[0], after}


async def test_a_warm_store_is_asked_once() -> None:
    """For the tokens and the value together."""
    shelf = Shelf()
    store = MarkedStore(shelf)
    await stamp(store, "m")
    shelf.asked.clear()
    await store.read("a", ["m"])
    assert len(shelf.asked) == 1
    assert len(shelf.asked[0]) == 3
    assert shelf.asked[0][-1] == "a"


async def test_only_the_lost_token_is_made_anew() -> None:
    """The others are still what the stamps of other marks are made of."""
    shelf = Shelf()
    store = MarkedStore(shelf)
    other = await stamp(store, "n")
    await stamp(store, "m")
    await stamp(store, "m", "n")
    assert await stamp(store, "n") == other


async def test_tokens_outlive_what_they_stand_for() -> None:
    """Thirty days; a value has the lifetime that it is given."""
    shelf = Shelf()
    store = MarkedStore(shelf)
    await store.read("a", ["m"])
    await store.write("a", b"1", 7.5)
    assert shelf.lifetimes.pop("a") == 7.5
    assert set(shelf.lifetimes.values()) == {30 * 86400.0}


async def test_a_store_that_keeps_nothing_is_away() -> None:
    """Without tokens nobody could tell what was evicted."""
    shelf = Shelf()
    shelf.keeps = False
    with pytest.raises(StoreUnavailableError, match="does not keep"):
        await MarkedStore(shelf).read("a", ["m"])


async def test_closing_closes_the_store_if_it_can_be_closed() -> None:
    """A plain store need not know how."""
    closed: list[str] = []

    class Closing(Shelf):
        async def close(self) -> None:
            closed.append("closed")

    await MarkedStore(Shelf()).close()
    assert closed == []
    await MarkedStore(Closing()).close()
    assert closed == ["closed"]


def test_it_is_shown_as_the_store_it_stands_before() -> None:
    """The log and the banner name what the user gave."""
    assert repr(MarkedStore(Shelf())) == "Shelf"
