"""One process among several leads a flight: its lock is renewed, lapses, is given back after the write."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from aeros.caching.leases import Lease
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.stores.guarded import GuardedStore
from aeros.caching.transaction import Transaction
from aeros.http.cache_status import CacheStatus
from tests.unit.caching.hub import Hub, HubStore
from tests.unit.caching.visits import (
    PATIENCE,
    RULES,
    Clock,
    boarding,
    body_of,
    language,
    name_of,
    offer,
    opened,
    stored,
    turns,
    until,
)

LAPSE = 0.3


@pytest.fixture
def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks lapse after a moment, so that no test has to wait for seconds."""
    monkeypatch.setattr("aeros.caching.leases.LOCK_SECONDS", LAPSE)


# A lock


class Background:
    """Does what is to be done in the background, and knows what is being written."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.names: list[str] = []
        self.is_written = asyncio.Event()
        self.is_written.set()

    async def written(self, name: str) -> None:
        """Waits until a test says so."""
        await self.is_written.wait()

    def do(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begins at once."""
        self.names.append(name)
        self.tasks.append(asyncio.create_task(work()))


def lease_of(store: HubStore, background: Background | None = None) -> Lease:
    """Returns the lock of one process."""
    background = background or Background()
    return Lease(GuardedStore(store, deadline_seconds=5), "a", background.written, background.do)


def later(seconds: float = 60.0) -> float:
    """Returns a monotonic time ahead."""
    return monotonic() + seconds


async def test_one_has_the_lock() -> None:
    """The other one does not get it, and does not disturb it."""
    hub = Hub()
    one, other = lease_of(hub.store()), lease_of(hub.store())
    assert await one.take(later())
    owner = hub.owner_of("a")
    assert owner is not None
    assert not await other.take(later())
    other.release()
    await turns()
    assert hub.owner_of("a") == owner
    one.release()
    await until(lambda: hub.owner_of("a") is None)
    assert await other.take(later())
    other.release()


async def test_a_lock_is_renewed_while_it_is_held(short_locks: None) -> None:
    """A view may take longer than the lock of one that died should last."""
    hub = Hub()
    lease = lease_of(hub.store())
    assert await lease.take(later())
    owner = hub.owner_of("a")
    _, first = hub.locks["a"]
    await until(lambda: hub.locks["a"][1] > first + 2 * LAPSE)
    assert hub.owner_of("a") == owner
    lease.release()
    await until(lambda: hub.owner_of("a") is None)


async def test_a_lock_that_another_one_has_by_now_is_not_renewed(short_locks: None) -> None:
    """This process was away for too long: the lock has lapsed. It is not taken back, nor given back."""
    hub = Hub()
    store = hub.store()
    lease = lease_of(store)
    assert await lease.take(later())
    hub.locks["a"] = "another", later()
    calls = store.calls["lock"]
    await until(lambda: store.calls["lock"] > calls)
    await asyncio.sleep(LAPSE)
    assert store.calls["lock"] == calls + 1
    lease.release()
    await until(lambda: store.calls["unlock"])
    assert hub.owner_of("a") == "another"


async def test_a_lock_is_renewed_no_longer_than_anybody_waits(short_locks: None) -> None:
    """A view that hangs holds no other process up for longer than its own."""
    hub = Hub()
    lease = lease_of(hub.store())
    assert await lease.take(later(LAPSE))
    await asyncio.sleep(LAPSE / 2)
    assert hub.owner_of("a") is not None
    await until(lambda: hub.owner_of("a") is None)
    lease.release()


async def test_a_store_that_is_away_for_a_moment_does_not_end_the_renewals(short_locks: None) -> None:
    """It is tried again when its turn comes."""
    hub = Hub()
    store = hub.store()
    lease = lease_of(store)
    assert await lease.take(later())
    store.is_cut = True
    calls = store.calls["lock"]
    await until(lambda: store.calls["lock"] > calls)
    store.is_cut = False
    _, before = hub.locks["a"]
    await until(lambda: hub.locks["a"][1] > before)
    lease.release()


async def test_the_lock_is_given_back_once_the_store_has_what_was_stored() -> None:
    """Whoever takes it next finds the entry there."""
    hub, background = Hub(), Background()
    lease = lease_of(hub.store(), background)
    assert await lease.take(later())
    background.is_written.clear()
    lease.release()
    lease.release()
    await turns(50)
    assert hub.owner_of("a") is not None
    background.is_written.set()
    await until(lambda: hub.owner_of("a") is None)
    assert background.names == ["lock:a"]


async def test_without_a_store_that_answers_everybody_has_the_lock() -> None:
    """Nobody is held up by an outage."""
    store = Hub().store()
    store.is_cut = True
    lease = lease_of(store)
    assert await lease.take(later())
    lease.release()
    await until(lambda: store.calls["unlock"])


def test_a_loop_may_end_while_a_lock_is_held() -> None:
    """The lock lapses; nothing is said about it."""
    hub = Hub()

    async def leave() -> None:
        assert await lease_of(hub.store()).take(later())

    asyncio.run(leave())
    gc.collect()
    assert hub.owner_of("a") is not None


# Processes


class Process:
    """One of several processes with a cache for the same store."""

    def __init__(self, hub: Hub, clock: Clock, **settings: Any) -> None:
        self.store = hub.store()
        self.cache = Cache(self.store, clock=clock, store_deadline_seconds=PATIENCE, **settings)

    def comes(
        self, scope: dict[str, object] | None = None, rules: CacheRules = RULES
    ) -> asyncio.Task[Transaction]:
        """Lets a request come, which may have to wait."""
        return boarding(self.cache, scope, rules)


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


async def result_of(task: asyncio.Task[Transaction]) -> Transaction:
    """Returns the transaction of a request that has waited."""
    async with asyncio.timeout(PATIENCE):
        return await task


async def test_one_view_runs_for_all_processes() -> None:
    """Whoever comes first leads; all the others get what it stored."""
    async with processes(4) as (_, _, found):
        leader = await opened(found[0].cache)
        assert leader.is_leading
        waiting = [process.comes() for process in found for _ in range(5)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        offer(leader, b"for all")
        for task in waiting:
            transaction = await result_of(task)
            assert transaction.hit is not None
            assert transaction.hit.body == b"for all"
            assert (transaction.status.fwd, transaction.status.collapsed) == ("miss", True)
        assert sum(process.cache.stats().misses for process in found) == 1


async def test_processes_that_begin_at_the_same_moment_agree() -> None:
    """Exactly one of them leads."""
    async with processes(5) as (_, _, found):
        waiting = [process.comes() for process in found for _ in range(10)]
        await until(lambda: any(task.done() for task in waiting))
        await asyncio.sleep(0.05)
        leading = [task for task in waiting if task.done()]
        assert len(leading) == 1
        offer(await leading[0], b"x")
        for task in waiting:
            transaction = await result_of(task)
            assert task in leading or (transaction.hit and transaction.hit.body == b"x")


async def test_the_lock_is_given_back_only_after_the_write() -> None:
    """A slow write does not make another process run its view."""
    async with processes() as (hub, _, (one, other)):
        may_write = asyncio.Event()

        async def slowly() -> None:
            await may_write.wait()

        one.store.before["write"] = slowly
        leader = await opened(one.cache)
        waiting = other.comes()
        offer(leader, b"x")
        await asyncio.sleep(0.2)
        assert hub.owner_of(name_of()) is not None
        assert not waiting.done()
        may_write.set()
        transaction = await result_of(waiting)
        assert transaction.hit is not None
        await until(lambda: hub.owner_of(name_of()) is None)
        assert other.cache.stats().misses == 0


async def test_one_view_runs_for_all_processes_also_where_the_response_varies() -> None:
    """On a cold key nobody knew: the lock is held until the variant is there as well as the mark."""
    async with processes() as (_, _, (one, other)):
        may_write = asyncio.Event()

        async def hold_the_variant() -> None:
            if one.store.calls["write"] == 1:
                await may_write.wait()

        one.store.before["write"] = hold_the_variant
        leader = await opened(one.cache, language(b"de"))
        waiting = other.comes(language(b"de"))
        offer(leader, b"de", headers=[(b"vary", b"accept-language")])
        await asyncio.sleep(0.2)
        assert not waiting.done()
        may_write.set()
        transaction = await result_of(waiting)
        assert transaction.hit is not None
        assert transaction.hit.body == b"de"
        assert other.cache.stats().misses == 0


async def test_those_who_wait_in_another_process_are_let_go_when_nothing_can_be_stored() -> None:
    """As soon as the leader knows; they run the view themselves."""
    async with processes() as (_, _, (one, other)):
        leader = await opened(one.cache)
        waiting = other.comes()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        began = monotonic()
        offer(leader, headers=[(b"set-cookie", b"a=1")])
        transaction = await result_of(waiting)
        assert (transaction.hit, transaction.is_leading) == (None, True)
        assert monotonic() - began < 2
        transaction.abandon()


async def test_a_process_that_died_holds_nobody_up(short_locks: None) -> None:
    """Its lock lapses, and another one leads."""
    async with processes() as (hub, _, (_, other)):
        hub.locks[name_of()] = "died", later(LAPSE)
        waiting = other.comes()
        await asyncio.sleep(LAPSE / 2)
        assert not waiting.done()
        transaction = await result_of(waiting)
        assert (transaction.hit, transaction.is_leading) == (None, True)
        transaction.abandon()


async def test_a_view_that_hangs_in_one_process_does_not_hang_another_one(short_locks: None) -> None:
    """Neither those who wait now nor those who come later wait for longer than the deadline."""
    async with processes(flight_deadline_seconds=1.0) as (hub, _, (one, other)):
        hung = await opened(one.cache)
        assert hung.is_leading
        first = other.comes()
        transaction = await result_of(first)
        assert (transaction.hit, transaction.is_leading) == (None, True)
        transaction.abandon()
        await until(lambda: hub.owner_of(name_of()) is None)
        began = monotonic()
        again = await opened(other.cache)
        assert again.is_leading
        assert monotonic() - began < 0.9
        again.abandon()
        hung.abandon()


async def test_a_leader_that_leaves_while_it_waits_lets_exactly_one_other_lead() -> None:
    """The client of the one that asked the other process has gone: the next one asks."""
    async with processes() as (_, _, (one, other)):
        elsewhere = await opened(one.cache)
        leaving = other.comes()
        await asyncio.sleep(0.05)
        followers = [other.comes() for _ in range(10)]
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.wait([leaving])
        await asyncio.sleep(0.1)
        assert leaving.cancelled()
        assert not any(task.done() for task in followers)
        elsewhere.abandon()
        await until(lambda: any(task.done() for task in followers))
        await turns(20)
        (leading,) = (task for task in followers if task.done())
        assert (await leading).is_leading
        offer(await leading, b"x")
        for task in followers:
            transaction = await result_of(task)
            assert task is leading or (transaction.hit and transaction.hit.body == b"x")
        assert other.cache.stats().misses == 1


async def test_a_leader_that_leaves_as_it_takes_the_lock_gives_it_back() -> None:
    """Between the lock and its view another look is taken: its client may leave just then."""
    async with processes() as (hub, _, (one, other)):
        is_taken, may_go_on = asyncio.Event(), asyncio.Event()

        async def second_look() -> None:
            if one.store.calls["lock"]:
                is_taken.set()
                await may_go_on.wait()

        one.store.before["read"] = second_look
        leaving = one.comes()
        await is_taken.wait()
        assert hub.owner_of(name_of()) is not None
        leaving.cancel()
        await asyncio.wait([leaving])
        await until(lambda: hub.owner_of(name_of()) is None)
        may_go_on.set()
        assert (await opened(other.cache)).is_leading


async def test_what_was_stored_just_before_the_lock_was_taken_is_found() -> None:
    """Another process has been quicker: no second view."""
    async with processes() as (_, _, (one, other)):
        before_lock = asyncio.Event()

        async def store_first() -> None:
            if not before_lock.is_set():
                before_lock.set()
                await stored(one.cache, b"first")

        other.store.before["lock"] = store_first
        transaction = await opened(other.cache)
        assert transaction.hit is not None
        assert (transaction.hit.body, transaction.status.collapsed) == (b"first", True)
        assert other.cache.stats().misses == 0
        assert not transaction.is_leading


STALE = CacheRules(timeout=10, stale_while_revalidate=1000)
IF_ERROR = CacheRules(timeout=10, stale_if_error=1000)


async def test_a_stale_response_is_replaced_by_one_process() -> None:
    """The other one lets it try, uses the stale one on, and soon has the new one."""
    async with processes() as (_, clock, (one, other)):
        await stored(one.cache, b"old", rules=STALE)
        assert await body_of(other.cache, rules=STALE) == b"old"
        clock.now += 11
        first = await opened(one.cache, rules=STALE)
        second = await opened(other.cache, rules=STALE)
        assert first.refresh is not None
        assert second.refresh is not None
        request = await opened(one.cache, rules=STALE, refresh=first.refresh)
        assert request.hit is None
        kept_out = await opened(other.cache, rules=STALE, refresh=second.refresh)
        assert kept_out.hit is not None
        assert kept_out.status == CacheStatus(fwd="stale", collapsed=True)
        waiting = await opened(other.cache, rules=STALE)
        assert (waiting.hit and waiting.hit.body, waiting.refresh) == (b"old", None)
        offer(request, b"new")
        await one.cache.settle()
        clock.now += 2
        assert await body_of(other.cache, rules=STALE) == b"new"
        assert (one.cache.stats().refreshes, other.cache.stats().refreshes) == (1, 0)


async def test_a_stale_response_that_another_process_has_just_replaced_is_not_replaced_again() -> None:
    """Though this one has looked at it a moment ago."""
    async with processes() as (_, clock, (one, other)):
        await stored(one.cache, b"old", rules=STALE)
        assert await body_of(other.cache, rules=STALE) == b"old"
        clock.now += 11
        late = await opened(other.cache, rules=STALE)
        assert late.refresh is not None
        first = await opened(one.cache, rules=STALE)
        offer(await opened(one.cache, rules=STALE, refresh=first.refresh), b"new")
        await one.cache.settle()
        found = await opened(other.cache, rules=STALE, refresh=late.refresh)
        assert found.hit is not None
        assert found.hit.body == b"new"
        assert other.cache.stats().refreshes == 0


async def test_those_who_wait_with_a_stale_response_at_hand_see_the_new_one() -> None:
    """What is in memory is stale, and was looked at a moment ago: the store has a newer one."""
    async with processes() as (_, clock, (one, other)):
        await stored(one.cache, b"old", rules=IF_ERROR)
        assert await body_of(other.cache, rules=IF_ERROR) == b"old"
        clock.now += 11
        leader = await opened(one.cache, rules=IF_ERROR)
        waiting = other.comes(rules=IF_ERROR)
        await asyncio.sleep(0.1)
        offer(leader, b"new")
        transaction = await result_of(waiting)
        assert transaction.hit is not None
        assert transaction.hit.body == b"new"
        assert other.cache.stats().misses == 0


async def test_a_store_that_goes_away_meanwhile_lets_everybody_go() -> None:
    """Nobody knows any more whether the other process leads."""
    async with processes() as (hub, _, (one, other)):
        leader = await opened(one.cache)
        waiting = other.comes()
        await asyncio.sleep(0.05)
        hub.is_down = True
        transaction = await result_of(waiting)
        assert (transaction.hit, transaction.is_leading) == (None, True)
        offer(transaction, b"own")
        assert await body_of(other.cache) == b"own"
        leader.abandon()


async def test_a_slow_store_does_not_make_anybody_wait_for_longer() -> None:
    """Each question takes its time, and it counts."""
    async with processes(flight_deadline_seconds=0.5) as (hub, _, (_, other)):
        hub.locks[name_of()] = "elsewhere", later()

        async def slowly() -> None:
            await asyncio.sleep(0.1)

        other.store.before.update(read=slowly, is_locked=slowly)
        began = monotonic()
        transaction = await result_of(other.comes())
        assert transaction.hit is None
        # Asked every tenth of a second, as often as half a second has room for, it would be more.
        assert other.store.calls["is_locked"] <= 4
        assert monotonic() - began < PATIENCE / 2
        transaction.abandon()


async def test_locks_are_not_asked_for_where_nobody_else_is() -> None:
    """Neither without a store nor for what is in memory."""
    async with processes(1) as (_, _, (one,)):
        await stored(one.cache)
        for _ in range(10):
            assert await body_of(one.cache) == b"x"
        assert one.store.calls["lock"] == 1
