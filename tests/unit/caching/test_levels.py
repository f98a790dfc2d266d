"""Memory in front of a store: what is trusted and for how long, and what was evicted never comes back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from aeros.caching.entry import StoredResponse, encode_entry
from aeros.caching.levels import Levels
from aeros.caching.marks import path_mark, tag_marks
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from tests.unit.caching.hub import Hub
from tests.unit.caching.visits import (
    PATIENCE,
    Clock,
    body_of,
    key_of,
    language,
    name_of,
    offer,
    opened,
    scope_of,
    stored,
    turns,
    until,
)

TAG = tag_marks("a")
STALE = CacheRules(timeout=10, stale_if_error=1000, stale_while_revalidate=1000)
VARY = [(b"vary", b"accept-language")]


class Process:
    """One of several processes with a cache for the same store."""

    def __init__(self, hub: Hub, clock: Clock, **settings: Any) -> None:
        self.store = hub.store()
        options: dict[str, Any] = {"store_deadline_seconds": PATIENCE, "local_seconds": 5.0}
        self.cache = Cache(self.store, clock=clock, **options | settings)

    @property
    def levels(self) -> Levels:
        """What the cache keeps its entries in."""
        inner: Any = self.cache
        found = inner._levels
        assert isinstance(found, Levels)
        return found

    @property
    def reads(self) -> int:
        """How often the store was read from."""
        return self.store.calls["read"]

    def hears_nothing(self) -> None:
        """Makes sure that no subscription ever begins."""

        async def for_ever() -> None:
            await asyncio.Event().wait()

        self.store.before["listen"] = for_ever

    async def hears(self) -> None:
        """Waits until it hears of what others evict."""
        levels: Any = self.levels

        def is_standing() -> bool:
            return bool(levels._channels.get().epoch)

        await body_of(self.cache, scope_of("/hears"))
        await until(is_standing)

    async def body(self, path: str = "/a", rules: CacheRules | None = None) -> bytes | None:
        """Returns the body of a hit, None for a miss."""
        return await body_of(self.cache, scope_of(path), rules or CacheRules(), tags="a")

    async def stores(self, body: bytes = b"x", path: str = "/a", rules: CacheRules | None = None) -> None:
        """Lets a view run whose response has a tag."""
        await stored(self.cache, body, scope_of(path), rules=rules or CacheRules(), tags="a")


@asynccontextmanager
async def processes(number: int = 2, **settings: Any) -> AsyncGenerator[tuple[Hub, Clock, list[Process]]]:
    """Several processes, which are ended."""
    hub, clock = Hub(), Clock()
    found = [Process(hub, clock, **settings) for _ in range(number)]
    try:
        yield hub, clock, found
    finally:
        for process in found:
            await process.cache.close()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store could not be told is tried again at once, and locks lapse after a moment."""
    monkeypatch.setattr("aeros.caching.leases.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("aeros.caching.levels._RETRY_SECONDS", 0.02)
    monkeypatch.setattr("aeros.caching.channel._RETRY_SECONDS", 0.02)


# What is trusted


async def test_what_one_process_stores_is_a_hit_in_another() -> None:
    """From the store the first time, then from memory."""
    async with processes() as (_, _, (one, other)):
        await one.stores()
        assert await other.body() == b"x"
        reads = other.reads
        for _ in range(10):
            assert await other.body() == b"x"
        assert other.reads == reads
        assert other.cache.stats().hits == 11


async def test_an_eviction_is_heard_by_the_others_at_once() -> None:
    """Long before they would ask the store again."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await other.hears()
        await one.stores(b"old")
        assert await other.body() == b"old"
        await one.cache.evict(TAG)
        await until(lambda: other.cache.stats().evicted)
        assert await other.body() is None
        assert await one.body() is None


async def test_everything_that_is_evicted_is_heard_by_the_others() -> None:
    """Whatever its marks."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await other.hears()
        await one.stores(b"1", "/a")
        await stored(one.cache, b"2", scope_of("/b"))
        assert [await other.body("/a"), await body_of(other.cache, scope_of("/b"))] == [b"1", b"2"]
        await one.cache.evict(None)
        await until(lambda: other.cache.stats().entries == 0)
        assert [await other.body("/a"), await body_of(other.cache, scope_of("/b"))] == [None, None]


async def test_only_what_has_a_mark_is_evicted_by_it() -> None:
    """By its tag or its path; all the rest stays in memory and in the store."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await other.hears()
        await one.stores(b"1", "/a")
        await stored(one.cache, b"2", scope_of("/b"))
        await stored(one.cache, b"3", scope_of("/c"))
        await one.cache.evict([*TAG, path_mark("/b")])
        assert [await other.body("/a"), await body_of(other.cache, scope_of("/b"))] == [None, None]
        assert await body_of(other.cache, scope_of("/c")) == b"3"
        assert await body_of(one.cache, scope_of("/c")) == b"3"


async def test_while_it_hears_of_evictions_a_process_does_not_ask_the_store() -> None:
    """However long that is: what nobody has evicted stands."""
    async with processes() as (_, clock, (one, _)):
        await one.hears()
        await one.stores()
        reads = one.reads
        for _ in range(50):
            clock.now += 5.5
            assert await one.body() == b"x"
        assert one.reads == reads


async def test_a_process_that_hears_nothing_asks_the_store_now_and_then() -> None:
    """Whether anything was evicted; then it trusts its memory for ``local_seconds`` more."""
    async with processes() as (_, clock, (one, _)):
        one.hears_nothing()
        await one.stores()
        for expected in range(1, 4):
            reads = one.reads
            clock.now += 4.9
            assert await one.body() == b"x"
            assert one.reads == reads
            clock.now += 0.2
            assert await one.body() == b"x"
            assert await one.body() == b"x"
            assert (one.reads, expected) == (reads + 1, expected)


async def test_a_process_that_hears_nothing_sees_an_eviction_within_the_bound() -> None:
    """At the latest after ``local_seconds``."""
    async with processes() as (_, clock, (one, other)):
        other.hears_nothing()
        await one.stores(b"old")
        assert await other.body() == b"old"
        await one.cache.evict(TAG)
        assert await other.body() == b"old"
        clock.now += 5.1
        assert await other.body() is None


async def test_a_new_subscription_does_not_vouch_for_what_was_there_before() -> None:
    """While there was none, anything may have been evicted."""
    async with processes(local_seconds=0.5) as (hub, clock, (one, other)):
        await other.hears()
        await one.stores(b"old")
        assert await other.body() == b"old"
        other.store.is_cut = True
        await until(lambda: hub.audience == 1)
        await one.cache.evict(TAG)
        other.store.is_cut = False
        levels: Any = other.levels
        clock.now += 3
        await until(lambda: levels._listen(levels.store))
        assert await other.body() is None


async def test_without_trust_the_store_is_always_asked() -> None:
    """``local_seconds=0`` is for those who want no bound but none at all."""
    async with processes(local_seconds=0.0) as (_, clock, (one, other)):
        await one.stores(b"old")
        clock.now += 0.001
        assert await other.body() == b"old"
        await one.cache.evict(TAG)
        clock.now += 0.001
        assert await other.body() is None


async def test_a_clock_that_was_set_back_makes_nothing_trusted() -> None:
    """When something was checked is not known any more."""
    async with processes() as (_, clock, (one, other)):
        one.hears_nothing()
        other.hears_nothing()
        await one.stores(b"old")
        assert await other.body() == b"old"
        await one.cache.evict(TAG)
        clock.now -= 3600
        assert await other.body() is None


async def test_a_stale_entry_is_read_again_whoever_vouches_for_it() -> None:
    """Of what another process has stored anew nobody hears."""
    async with processes() as (_, clock, (one, other)):
        await other.hears()
        await one.stores(b"old", rules=STALE)
        assert await other.body(rules=STALE) == b"old"
        clock.now += 11
        offer(await opened(one.cache, rules=STALE, update=True, tags="a"), b"new")
        await one.cache.settle()
        assert await other.body(rules=STALE) == b"new"


async def test_a_stale_entry_stays_of_use_while_the_store_has_nothing_newer() -> None:
    """Even if the store has lost it."""
    async with processes() as (hub, clock, (one, other)):
        await one.stores(b"old", rules=STALE)
        assert await other.body(rules=STALE) == b"old"
        hub.values.clear()
        clock.now += 11
        assert await other.body(rules=STALE) == b"old"
        await one.cache.evict(TAG)
        clock.now += 6
        assert await other.body(rules=STALE) is None


async def test_what_the_store_has_lost_altogether_is_evicted() -> None:
    """Its tokens are new ones: nobody knows what was evicted meanwhile."""
    async with processes() as (hub, clock, (one, other)):
        one.hears_nothing()
        other.hears_nothing()
        await one.stores(b"old")
        assert await other.body() == b"old"
        hub.lose()
        clock.now += 5.1
        assert await other.body() is None
        assert await one.body() is None


async def test_an_entry_is_read_anew_where_that_is_asked_for() -> None:
    """Also a stale one that was looked at just now."""
    async with processes() as (_, clock, (one, other)):
        await one.stores(b"old", rules=STALE)
        clock.now += 11
        assert await other.body(rules=STALE) == b"old"
        offer(await opened(one.cache, rules=STALE, update=True, tags="a"), b"new")
        await one.cache.settle()
        stale = await opened(other.cache, rules=STALE, tags="a")
        assert stale.hit is not None
        assert stale.hit.body == b"old"
        anew = await opened(other.cache, rules=STALE, tags="a", refresh=stale.refresh)
        assert anew.hit is not None
        assert anew.hit.body == b"new"


# Races


async def test_an_eviction_between_reading_and_keeping_is_not_lost() -> None:
    """The message overtakes the answer: what was read is out of date already."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await other.hears()
        await one.stores(b"old")

        async def evict_now() -> None:
            other.store.after.clear()
            heard = other.levels.memory.moment
            await one.cache.evict(TAG)
            await until(lambda: other.levels.memory.moment > heard)

        other.store.after["read"] = evict_now
        assert await other.body() is None
        assert await other.body() is None
        assert other.cache.stats().entries == 0


async def test_an_eviction_of_this_process_between_reading_and_keeping_is_not_lost() -> None:
    """Nobody has to be heard for that."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await one.stores(b"old")

        async def evict_now() -> None:
            other.store.after.clear()
            other.cache.evict_soon(TAG)

        other.store.after["read"] = evict_now
        assert await other.body() is None
        await other.cache.settle()
        assert await other.body() is None


async def test_an_eviction_is_no_news_to_the_process_that_made_it() -> None:
    """What it has stored since stays, when the message comes back to it."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await one.hears()
        await other.hears()
        await one.stores(b"old")
        assert await other.body() == b"old"
        await one.cache.evict(TAG)
        offer(await opened(one.cache, tags="a"), b"new")
        await until(lambda: other.cache.stats().evicted)
        await turns(50)
        assert one.cache.stats().evicted == 1
        assert await one.body() == b"new"


async def test_a_view_that_began_before_an_eviction_elsewhere_stores_nothing() -> None:
    """Neither in its own memory nor for others."""
    async with processes(local_seconds=3600.0) as (_, _, (one, other)):
        await one.hears()
        running = await opened(one.cache, tags="a")
        moment = one.levels.memory.moment
        await other.cache.evict(TAG)
        await until(lambda: one.levels.memory.moment > moment)
        offer(running, b"old")
        assert running.status.detail == "evicted"
        await one.cache.settle()
        assert [await one.body(), await other.body()] == [None, None]


async def test_a_view_that_began_before_an_eviction_that_nobody_heard_stores_nothing_for_others() -> None:
    """Its stamp is an old one; in its own memory it is used until the store is asked again."""
    async with processes() as (_, clock, (one, other)):
        one.hears_nothing()
        running = await opened(one.cache, tags="a")
        await other.cache.evict(TAG)
        offer(running, b"old")
        await one.cache.settle()
        assert await other.body() is None
        clock.now += 5.1
        assert await one.body() is None


async def test_what_another_request_has_kept_is_used_where_the_store_is_asked_in_vain() -> None:
    """It went away just then, or has not been told of the entry yet."""
    async with processes(1) as (_, _, (one,)):

        async def keep_and_cut() -> None:
            one.store.before.clear()
            offer(await opened(one.cache, update=True, tags="a"), b"new")
            one.store.is_cut = True

        one.store.before["read"] = keep_and_cut
        assert await one.body() == b"new"


async def test_what_another_request_has_kept_is_not_used_once_it_was_evicted_elsewhere() -> None:
    """The store knows better: its answer has another stamp."""
    async with processes() as (_, _, (one, other)):
        one.hears_nothing()

        async def keep_and_evict() -> None:
            one.store.before.clear()
            offer(await opened(one.cache, update=True, tags="a"), b"old")
            await one.cache.settle()
            await other.cache.evict(TAG)

        one.store.before["read"] = keep_and_evict
        assert await one.body() is None


async def test_an_older_entry_does_not_take_the_place_of_a_newer_one() -> None:
    """The store's answer was on its way while this process has stored something newer."""
    async with processes() as (_, clock, (one, other)):
        await one.stores(b"old")
        clock.now += 1

        async def store_newer() -> None:
            other.store.after.clear()
            offer(await opened(other.cache, update=True, tags="a"), b"new")

        other.store.after["read"] = store_newer
        assert await other.body() == b"new"
        assert await other.body() == b"new"


async def test_a_newer_entry_of_another_process_takes_the_place_of_an_older_one() -> None:
    """That is what the store is asked for."""
    async with processes() as (_, clock, (one, other)):
        await one.stores(b"old", rules=STALE)
        assert await other.body(rules=STALE) == b"old"
        clock.now += 11
        offer(await opened(one.cache, rules=STALE, update=True, tags="a"), b"new")
        await one.cache.settle()
        assert await other.body(rules=STALE) == b"new"
        assert other.cache.stats().entries == 1


async def test_another_threads_look_does_not_bring_back_what_is_being_evicted(quick_retries: None) -> None:
    """Just as it leaves the memory, and before the store is told, another loop asks for it."""
    async with processes(1) as (_, _, (one,)):
        await one.stores(b"old")
        memory: Any = one.levels.memory
        evict = memory.evict
        found: list[bytes | None] = []

        def evict_and_look(marks: Sequence[str]) -> int:
            gone = evict(marks)
            memory.evict = evict
            thread = threading.Thread(target=lambda: found.append(asyncio.run(one.body())))
            thread.start()
            thread.join()
            return int(gone)

        memory.evict = evict_and_look
        one.cache.evict_soon(TAG)
        assert found == [None]
        assert await one.body() is None
        await one.cache.settle()
        assert await one.body() is None


# While the store is away


async def test_what_was_evicted_while_the_store_was_away_does_not_come_back(quick_retries: None) -> None:
    """The store is told before it is asked anything again."""
    async with processes() as (_, _, (one, other)):
        await one.stores(b"old")
        one.store.is_cut = True
        assert await one.cache.evict(TAG) is None
        assert await one.body() is None
        one.store.is_cut = False
        order: list[str] = []

        async def note_evict() -> None:
            order.append("evict")

        async def note_read() -> None:
            order.append("read")

        one.store.before.update(evict=note_evict, read=note_read)
        assert await one.body() is None
        assert order[0] == "evict"
        assert await other.body() is None


async def test_evictions_are_made_good_in_the_background(quick_retries: None) -> None:
    """Also if nobody asks this process for anything: the others have to know."""
    async with processes() as (hub, _, (one, other)):
        other.hears_nothing()
        await one.stores(b"old")
        one.store.is_cut = True
        began = monotonic()
        await one.cache.evict(TAG)
        await one.cache.evict(None)
        tokens = dict(hub.tokens)
        await asyncio.sleep(0.1)
        assert hub.tokens == tokens
        one.store.is_cut = False
        await until(lambda: hub.tokens != tokens)
        await until(lambda: one.store.calls["evict"] > 2)
        assert await other.body() is None
        assert monotonic() - began < PATIENCE


async def test_one_task_retries_however_much_is_evicted(quick_retries: None) -> None:
    """It tells all of it together."""
    async with processes(1) as (hub, _, (one,)):
        one.store.is_cut = True
        for number in range(50):
            await one.cache.evict([f"m{number}"])
        tasks = len(asyncio.all_tasks())
        one.store.is_cut = False
        evictions = one.store.calls["evict"]
        await until(lambda: "m49" in hub.tokens)
        assert tasks <= 3
        assert one.store.calls["evict"] - evictions <= 2
        assert {f"m{number}" for number in range(50)} <= set(hub.tokens)


async def test_an_eviction_of_another_thread_while_the_store_is_away_is_told_by_the_loop_that_serves(
    quick_retries: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread has no background of its own; nobody has to come for it to be told."""
    async with processes() as (hub, _, (one, other)):
        await one.stores(b"old")
        one.store.is_cut = True
        with caplog.at_level(logging.WARNING, logger="aeros.cache"):
            await asyncio.to_thread(one.cache.evict_soon, TAG)
        assert "not told" not in caplog.text
        tokens = dict(hub.tokens)
        one.store.is_cut = False
        await until(lambda: hub.tokens != tokens)
        assert [await one.body(), await other.body()] == [None, None]


def test_an_eviction_of_a_script_while_the_store_is_away_is_told_by_whoever_comes_next(
    quick_retries: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A script is told that it was not told yet."""
    hub, clock = Hub(), Clock()
    one, other = Process(hub, clock), Process(hub, clock)
    asyncio.run(one.stores(b"old"))
    one.store.is_cut = True
    with caplog.at_level(logging.WARNING, logger="aeros.cache"):
        assert one.cache.evict_soon(TAG) is None
    assert "not told of an eviction yet" in caplog.text
    one.store.is_cut = False
    assert asyncio.run(one.body()) is None
    assert asyncio.run(other.body()) is None


async def test_responses_are_kept_in_memory_while_the_store_is_away() -> None:
    """For as long as memory is trusted; they are not taken for those of the store when it is back."""
    async with processes() as (_, clock, (one, other)):
        one.store.is_cut = True
        transaction = await opened(one.cache, tags="a")
        one.store.is_cut = False
        offer(transaction, b"own")
        await one.cache.settle()
        assert await one.body() == b"own"
        assert one.store.told == []
        clock.now += 5.1
        assert await one.body() is None
        assert await other.body() is None


async def test_a_write_that_failed_is_a_miss_for_others_and_no_error(quick_retries: None) -> None:
    """This process has it."""
    async with processes() as (_, _, (one, other)):
        transaction = await opened(one.cache, tags="a")
        one.store.is_cut = True
        offer(transaction)
        await one.cache.settle()
        one.store.is_cut = False
        assert await one.body() == b"x"
        assert await other.body() is None
        assert one.cache.stats().store_errors >= 1


async def test_a_store_that_is_away_while_it_is_closed_ends_in_time() -> None:
    """What could not be told is lost, or told by the next who uses the cache."""
    async with processes(1, store_deadline_seconds=0.1) as (_, _, (one,)):
        await one.stores()
        one.store.is_cut = True
        await one.cache.evict(TAG)
        began = monotonic()
        await one.cache.close()
        assert monotonic() - began < 3
        assert one.store.closed == 1
        one.store.is_cut = False
        assert await one.body() is None


async def test_closing_tells_the_store_what_is_under_way() -> None:
    """A process that ends does not lose its last responses."""
    async with processes() as (_, _, (one, other)):
        one.store.before["write"] = lambda: asyncio.sleep(0.05)
        offer(await opened(one.cache, tags="a"))
        await one.cache.close()
        assert await other.body() == b"x"
        assert await one.body() == b"x"


# Room


async def test_an_entry_larger_than_the_memory_is_sent_from_the_store() -> None:
    """Another process has room for it; here it is read each time, and drives nothing out."""
    hub, clock = Hub(), Clock()
    large, small = Process(hub, clock), Process(hub, clock, max_bytes=3000)
    await small.stores(b"small", "/small")
    await large.stores(b"x" * 5000)
    for _ in range(2):
        reads = small.reads
        assert await small.body() == b"x" * 5000
        assert small.reads > reads
    stats = small.cache.stats()
    assert (stats.entries, stats.evictions, stats.hits) == (1, 0, 2)
    assert await small.body("/small") == b"small"
    await large.cache.close()
    await small.cache.close()


async def test_an_entry_larger_than_the_memory_is_not_shared() -> None:
    """Where it can not be kept it is not stored at all, and that is said."""
    async with processes(max_bytes=3000) as (_, _, (one, other)):
        transaction = await opened(one.cache, tags="a")
        offer(transaction, b"x" * 5000)
        assert transaction.status.detail == "too-large"
        await one.cache.settle()
        assert name_of() not in one.store.told
        assert await other.body() is None


async def test_variants_of_one_url_are_bounded() -> None:
    """The oldest leave first; other URLs are not concerned, nor is what tells that there are variants."""
    clock = Clock()
    cache = Cache(clock=clock, max_variants=3)
    await stored(cache, b"other", scope_of("/b"))
    for number in range(5):
        await stored(cache, b"%d" % number, language(b"l%d" % number), headers=VARY)
    found = [await body_of(cache, language(b"l%d" % number)) for number in range(5)]
    assert found == [None, None, b"2", b"3", b"4"]
    assert await body_of(cache, scope_of("/b")) == b"other"
    assert (cache.stats().entries, cache.stats().evictions) == (5, 2)


async def test_responses_that_the_route_keeps_apart_are_bounded_as_well() -> None:
    """By ``vary=``, ``cookies=`` or ``key=``, in any mixture."""
    cache = Cache(max_variants=3)
    rules = CacheRules(vary=(b"accept-language",))
    for number in range(5):
        await stored(cache, b"%d" % number, language(b"l%d" % number), rules=rules)
    found = [await body_of(cache, language(b"l%d" % number), rules) for number in range(5)]
    assert found == [None, None, b"2", b"3", b"4"]


async def test_variants_that_come_from_the_store_are_bounded_as_well() -> None:
    """Another process has stored them; and what is read again counts once."""
    hub, clock = Hub(), Clock()
    many, few = Process(hub, clock), Process(hub, clock, max_variants=3)
    for number in range(6):
        await stored(many.cache, b"%d" % number, language(b"l%d" % number), headers=VARY)
    for _ in range(2):
        for number in range(6):
            assert await body_of(few.cache, language(b"l%d" % number)) == b"%d" % number
    # The three, and the mark that leads to them.
    assert few.cache.stats().entries == 4
    assert many.cache.stats().entries == 7
    for process in (many, few):
        await process.cache.close()


async def test_a_stale_variant_that_is_read_again_is_still_counted() -> None:
    """Else it would be one of those who never leave."""
    async with processes(1, max_variants=2) as (_, clock, (one,)):
        for value in (b"de", b"fr"):
            await stored(one.cache, value, language(value), rules=STALE, headers=VARY)
        clock.now += 11
        for value in (b"de", b"fr"):
            assert await body_of(one.cache, language(value), STALE) == value
        await stored(one.cache, b"es", language(b"es"), rules=STALE, headers=VARY)
        assert one.cache.stats().entries == 3


async def test_more_evictions_than_are_remembered_count_as_evicted() -> None:
    """During one view: in doubt its response is not stored, whatever its tags."""
    async with processes(1) as (_, _, (one,)):
        running = await opened(one.cache, tags="a")
        for number in range(10_001):
            one.levels.forget([f"m{number}"])
        offer(running)
        assert running.status.detail == "evicted"
        await one.stores(b"new")
        assert await one.body() == b"new"


async def test_as_many_evictions_as_are_remembered_disturb_nobody() -> None:
    """A view that takes long on a busy site stores what it brings."""
    async with processes(1) as (_, _, (one,)):
        running = await opened(one.cache, tags="a")
        for number in range(10_000):
            one.levels.forget([f"m{number}"])
        offer(running, b"x")
        assert running.status.stored


# What is in the store


async def test_an_entry_that_has_to_leave_leaves_the_store_as_well() -> None:
    """What could not be refreshed is not found by another process."""
    async with processes() as (_, clock, (one, other)):
        await one.stores(b"old", rules=STALE)
        clock.now += 11
        refresh = (await opened(one.cache, rules=STALE, tags="a")).refresh
        request = await opened(one.cache, rules=STALE, tags="a", refresh=refresh)
        offer(request, headers=[(b"set-cookie", b"a=1")])
        await one.cache.settle()
        assert [await one.body(rules=STALE), await other.body(rules=STALE)] == [None, None]
        assert other.cache.stats().damaged == 0


@pytest.mark.parametrize("change", ["key", "stamp", "lifetime"])
async def test_an_entry_of_the_store_that_is_not_ours_is_a_miss(change: str) -> None:
    """Of another key under the same short name, disowned, or over."""
    async with processes() as (_, clock, (one, other)):
        stamp, _ = await one.store.read("", [path_mark("/a")])
        entry = StoredResponse(
            key=b"other" if change == "key" else key_of(),
            status=200,
            headers=[],
            body=b"planted",
            etag="",
            stored_at=clock.now,
            lifetime=0.0 if change == "lifetime" else 60.0,
            stamp="other" if change == "stamp" else stamp,
        )
        await one.store.write(name_of(), encode_entry(entry), 60)
        assert await body_of(other.cache) is None
        entry.key, entry.stamp, entry.lifetime = key_of(), stamp, 60.0
        await one.store.write(name_of(), encode_entry(entry), 60)
        assert await body_of(other.cache) == b"planted"
        assert other.cache.stats().damaged == 0


async def test_codings_that_are_made_later_reach_the_store_and_those_who_read_from_it() -> None:
    """One process compresses for all."""
    async with processes() as (hub, clock, (one, other)):
        await one.stores()
        found = (await opened(one.cache, tags="a")).hit
        assert found is not None
        found.add_variant("br", b"coded")
        await one.cache.settle()
        shared = (await opened(other.cache, tags="a")).hit
        assert shared is not None
        assert shared.variants == {"br": b"coded"}
        shared.add_variant("gzip", b"coded too")
        await other.cache.settle()
        third = Process(hub, clock)
        found = (await opened(third.cache, tags="a")).hit
        assert found is not None
        assert found.variants == {"br": b"coded", "gzip": b"coded too"}
        await third.cache.close()


async def test_a_coding_of_an_entry_that_was_evicted_is_not_shared() -> None:
    """It was still being made."""
    async with processes() as (_, _, (one, other)):
        await one.stores()
        found = (await opened(one.cache, tags="a")).hit
        assert found is not None
        await one.cache.evict(TAG)
        writes = one.store.calls["write"]
        found.add_variant("br", b"coded")
        await one.cache.settle()
        assert one.store.calls["write"] == writes
        assert await other.body() is None


async def test_what_is_over_by_the_time_it_could_be_written_is_not_written() -> None:
    """A store would keep it for a moment more."""
    async with processes(1) as (_, clock, (one,)):
        transaction = await opened(one.cache, rules=CacheRules(timeout=5))
        offer(transaction)
        clock.now += 6
        await one.cache.settle()
        assert one.store.told == []


async def test_nobody_waits_for_a_write() -> None:
    """A response is on its way before the store has it."""
    async with processes(1) as (_, _, (one,)):
        may_write = asyncio.Event()

        async def slowly() -> None:
            await may_write.wait()

        one.store.before["write"] = slowly
        offer(await opened(one.cache, tags="a"), b"x")
        assert await one.body() == b"x"
        assert one.store.told == []
        may_write.set()
        await one.cache.settle()
        assert one.store.told == [name_of()]


async def test_settling_waits_for_what_comes_meanwhile() -> None:
    """A write may lead to another one."""
    async with processes(1) as (_, _, (one,)):
        one.store.before["write"] = lambda: asyncio.sleep(0.02)
        offer(await opened(one.cache, tags="a"), b"x")
        settling = asyncio.create_task(one.cache.settle())
        await turns()
        offer(await opened(one.cache, scope_of("/b")), b"y")
        await settling
        assert sorted(one.store.told) == sorted([name_of(), name_of("/b")])
