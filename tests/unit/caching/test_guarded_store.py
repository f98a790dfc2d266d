"""A shared store behind its guard: deadlines, the pause of a store that is away, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import redis
from cachelib import RedisCache
from redis.backoff import NoBackoff
from redis.retry import Retry

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.cachelib import CachelibStore
from aeros.caching.stores.guarded import GuardedStore
from aeros.caching.stores.marked import MarkedStore

if TYPE_CHECKING:
    from tests.conftest import RedisProcess

NOTHING: tuple[str, bytes | None] = ("stamp of ", None)


class Shelf:
    """A store that fails, or hangs, when it is told to."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.evicted: list[Sequence[str] | None] = []
        self.calls = 0
        self.closed = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns a stamp that names its marks, and the value."""
        await self._pass()
        return f"stamp of {','.join(marks)}", self.values.get(name)

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps the value."""
        await self._pass()
        self.values[name] = value

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:
        """Takes note."""
        await self._pass()
        self.evicted.append(marks)

    async def close(self) -> None:
        """Counts."""
        await self._pass()
        self.closed += 1

    async def _pass(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        return "Shelf"


class Exchange(Shelf):
    """A store that has locks too."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[str, str] = {}

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Gives a lock to the first who asks, and to that one again."""
        await self._pass()
        return self.owners.setdefault(name, owner) == owner

    async def unlock(self, name: str, owner: str) -> None:
        """Takes it back from its owner."""
        await self._pass()
        if self.owners.get(name) == owner:
            del self.owners[name]

    async def is_locked(self, name: str) -> bool:
        """Tells."""
        await self._pass()
        return name in self.owners

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Hears nothing."""


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
        await store.read("a", [])


async def broken(shelf: Shelf, store: GuardedStore) -> None:
    """Lets the store fail until it is not asked any more."""
    shelf.error = OSError("away")
    for _ in range(GuardedStore.FAILURES_TO_OPEN):
        await fails(store)


async def test_a_store_that_works_is_passed_through() -> None:
    """What it gives is given on, and nothing is counted."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    await store.write("a", b"1", 60)
    assert await store.read("a", ["m"]) == ("stamp of m", b"1")
    await store.evict(["m", "n"])
    await store.evict(None)
    assert shelf.evicted == [["m", "n"], None]
    assert (store.errors, shelf.calls) == (0, 4)


async def test_a_failure_is_one_kind_of_error_whatever_it_was() -> None:
    """Its cause is kept, and named with the store."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    shelf.error = ZeroDivisionError("bad")
    with pytest.raises(StoreUnavailableError, match=r"Shelf: ZeroDivisionError\('bad'\)") as caught:
        await store.read("a", [])
    assert caught.value.__cause__ is shelf.error
    with pytest.raises(StoreUnavailableError):
        await store.write("a", b"1", 60)
    with pytest.raises(StoreUnavailableError):
        await store.evict(["m"])
    assert store.errors == 3


async def test_a_call_has_a_deadline() -> None:
    """A store that does not answer is a failure, and its call is ended."""
    shelf = Shelf()
    shelf.gate.clear()
    store, _ = guarded(shelf, deadline_seconds=0.01)
    await fails(store)
    with pytest.raises(StoreUnavailableError, match="TimeoutError"):
        await store.write("a", b"1", 60)
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
            await store.write("a", b"1", 60)
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
        assert await store.read("a", []) == NOTHING
    assert shelf.calls == 15


async def test_one_call_tries_the_store_after_the_pause() -> None:
    """The others go on without it until that one has its answer."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    shelf.gate.clear()
    probe = asyncio.create_task(store.read("a", []))
    await asyncio.sleep(0)
    for _ in range(10):
        await fails(store)
    assert shelf.calls == 4
    shelf.gate.set()
    assert await probe == NOTHING
    assert await store.read("a", []) == NOTHING
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
    await store.read("a", [])
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    assert await store.read("a", []) == NOTHING


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
    assert await store.read("a", []) == NOTHING


async def test_a_try_that_was_cancelled_is_made_again() -> None:
    """A client that leaves during the try does not keep the store away for ever."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    await broken(shelf, store)
    clock.now += GuardedStore.FIRST_PAUSE_SECONDS
    shelf.error = None
    shelf.gate.clear()
    probe = asyncio.create_task(store.read("a", []))
    await asyncio.sleep(0)
    probe.cancel()
    with suppress(asyncio.CancelledError):
        await probe
    shelf.gate.set()
    clock.now += 5.0
    assert await store.read("a", []) == NOTHING
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
            await store.read("a", [])
        assert len(caplog.messages) == 2 * outage
    assert caplog.messages[0] == (
        "The cache's store Shelf is away (OSError('away')): responses are made without it"
    )
    assert caplog.messages[1] == "The cache's store Shelf is back"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_store_that_takes_changes_but_can_not_be_read_is_not_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only a read tells that reading works again."""
    shelf = Shelf()
    store, clock = guarded(shelf)
    for _ in range(3):
        await broken(shelf, store)
        clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
        shelf.error = None
        await store.write("a", b"1", 60)
    assert [message.split(" (")[0] for message in caplog.messages] == ["The cache's store Shelf is away"]
    await store.read("a", [])
    assert caplog.messages[1:] == ["The cache's store Shelf is back"]


async def test_a_few_failures_are_no_outage_to_log(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted, and nothing more."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    shelf.error = OSError("away")
    await fails(store)
    await fails(store)
    shelf.error = None
    await store.read("a", [])
    assert caplog.messages == []
    assert store.errors == 2


# Locks and closing


async def test_locks_are_passed_through() -> None:
    """One owner at a time; who has it keeps it by asking again."""
    store, _ = guarded(Exchange())
    assert store.coordinates
    assert not await store.is_locked("a")
    assert await store.lock("a", "me", 10)
    assert await store.lock("a", "me", 10)
    assert not await store.lock("a", "you", 10)
    assert await store.is_locked("a")
    await store.unlock("a", "you")
    assert await store.is_locked("a")
    await store.unlock("a", "me")
    assert await store.lock("a", "you", 10)


async def test_a_store_without_locks_gives_them_all_and_is_not_asked() -> None:
    """Each process works for itself then."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    assert not store.coordinates
    assert await store.lock("a", "me", 10)
    assert await store.lock("a", "you", 10)
    await store.unlock("a", "me")
    assert not await store.is_locked("a")
    assert shelf.calls == 0


async def test_a_store_that_is_away_holds_nobody_up() -> None:
    """Every lock is given, none is taken for held, and giving one back is no error."""
    exchange = Exchange()
    exchange.owners["a"] = "you"
    store, _ = guarded(exchange)
    exchange.error = OSError("away")
    for _ in range(5):
        assert await store.lock("a", "me", 10)
        assert not await store.is_locked("a")
        await store.unlock("a", "you")
    assert (store.errors, exchange.calls) == (3, 3)
    assert exchange.owners == {"a": "you"}


async def test_a_lock_that_hangs_is_given_after_the_deadline() -> None:
    """It is one failure as any other."""
    exchange = Exchange()
    exchange.gate.clear()
    store, _ = guarded(exchange, deadline_seconds=0.01)
    assert await store.lock("a", "me", 10)
    assert store.errors == 1


async def test_closing_closes_the_store() -> None:
    """Once for each time, whether or not it is asked at the moment."""
    shelf = Shelf()
    store, _ = guarded(shelf)
    await store.close()
    await broken(shelf, store)
    shelf.error = None
    await store.close()
    assert shelf.closed == 2


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_store_that_can_not_be_closed_holds_up_no_shutdown(
    hangs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails or hangs: no error, no warning, a line for who debugs."""
    caplog.set_level(logging.DEBUG, "aeros.cache")
    shelf = Shelf()
    store, _ = guarded(shelf, deadline_seconds=0.01)
    if hangs:
        shelf.gate.clear()
    else:
        shelf.error = OSError("away")
    await store.close()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "Shelf" in caplog.messages[0]
    assert store.errors == 0


# Real stores


async def test_a_real_store_that_hangs_is_left_alone_and_comes_back(redis_server: RedisProcess) -> None:
    """A Redis that is stopped in its tracks costs three deadlines; when it goes on, it is used again."""
    clock = Clock()
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client:
        inner = MarkedStore(CachelibStore(RedisCache(client)))
        before = await inner.read("a", ["m"])
        store = GuardedStore(inner, deadline_seconds=0.05, clock=clock)
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(100):
                await fails(store)
            assert store.errors == 3
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        found = NOTHING
        for _ in range(100):
            clock.now += GuardedStore.LONGEST_PAUSE_SECONDS
            with suppress(StoreUnavailableError):
                found = await store.read("a", ["m"])
                break
            await asyncio.sleep(0.05)
        assert found == before


async def test_a_real_store_that_is_gone_is_a_failure(redis_server: RedisProcess) -> None:
    """A server that was killed is away, not an error of the request."""
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client:
        store = GuardedStore(MarkedStore(CachelibStore(RedisCache(client))), deadline_seconds=5)
        await store.write("a", b"1", 60)
        redis_server.stop()
        for _ in range(10):
            await fails(store)
        assert store.errors == 3
