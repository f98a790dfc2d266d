"""Hearing of what other processes evict: which subscription stands, and when none does."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest

from aeros.caching.channel import Channel
from tests.unit.caching.hub import Hub, HubStore
from tests.unit.caching.visits import turns, until

FOR_EVER = 60.0


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that broke is tried again at once."""
    monkeypatch.setattr("aeros.caching.channel._RETRY_SECONDS", 0.02)


class Ears:
    """What one channel has heard."""

    def __init__(self, store: HubStore, local_seconds: float) -> None:
        self.store = store
        self.heard: list[Sequence[str] | None] = []
        self.channel = Channel(self.heard.append, count(1), local_seconds, "this")

    def open(self) -> int:
        """Makes sure that it listens."""
        return self.channel.open(self.store)

    async def hears(self) -> int:
        """Returns the subscription, once one stands."""
        await until(self.open)
        return self.open()


@asynccontextmanager
async def listening(store: HubStore | None = None, local_seconds: float = FOR_EVER) -> AsyncGenerator[Ears]:
    """A channel that is closed in the end."""
    ears = Ears(store or Hub().store(), local_seconds)
    try:
        yield ears
    finally:
        await ears.channel.close()


async def test_what_this_process_evicts_itself_is_no_news() -> None:
    """Hearing it would disown what was made since; what others evict is heard."""
    hub = Hub()
    async with listening(hub.store()) as ears:
        await ears.hears()
        await hub.store().evict(["own"], "this")
        await hub.store().evict(["a"], "another")
        await until(lambda: ears.heard)
        assert ears.heard == [["a"]]


async def test_nobody_listens_before_there_is_a_reason_to() -> None:
    """The first look into the store opens the channel; until it stands there is no subscription."""
    async with listening() as ears:
        await turns()
        assert (ears.store.calls["listen"], ears.channel.epoch) == (0, 0)
        assert ears.open() == 0
        assert await ears.hears() == 1
        assert ears.channel.epoch == 1


async def test_one_subscription_is_enough() -> None:
    """However often it is asked for."""
    async with listening() as ears:
        await ears.hears()
        for _ in range(100):
            assert ears.open() == 1
        await turns()
        assert ears.store.calls["listen"] == 1


async def test_evictions_are_heard_in_their_order() -> None:
    """Of marks and of everything, from whichever process; what this one has evicted itself is no news."""
    hub = Hub()
    async with listening(hub.store()) as ears:
        await ears.hears()
        await hub.store().evict(["a", "b"], "other")
        await ears.store.evict(["own"], "this")
        await hub.store().evict(None, "other")
        await hub.store().evict(["c"])
        await until(lambda: len(ears.heard) == 3)
        assert ears.heard == [["a", "b"], None, ["c"]]


async def test_a_subscription_that_broke_stands_no_more() -> None:
    """The next one has another number: what was missed between may have been evicted."""
    hub = Hub()
    async with listening(hub.store(), local_seconds=1.0) as ears:
        assert await ears.hears() == 1
        hub.is_down = True
        await until(lambda: ears.channel.epoch == 0)
        await asyncio.sleep(0.05)
        assert ears.open() == 0
        hub.is_down = False
        assert await ears.hears() == 2
        await hub.store().evict(["a"])
        await until(lambda: ears.heard)


async def test_a_store_that_is_away_is_not_tried_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """But every now and then."""
    monkeypatch.setattr("aeros.caching.channel._RETRY_SECONDS", 0.3)
    async with listening() as ears:
        ears.store.is_cut = True
        ears.open()
        await turns()
        for _ in range(100):
            ears.open()
            await turns(1)
        assert ears.store.calls["listen"] <= 2
        await until(lambda: ears.open() or ears.store.calls["listen"] >= 3)


async def test_a_subscription_that_is_silent_for_too_long_does_not_count() -> None:
    """Memory is trusted for so long without a word, and no longer, though the connection looks alive."""
    async with listening(local_seconds=0.2) as ears:
        await ears.hears()
        ears.store.is_deaf = True
        await until(lambda: ears.channel.epoch == 0)
        ears.store.is_deaf = False
        assert await ears.hears() in (1, 2)


async def test_a_quiet_subscription_counts() -> None:
    """Nobody evicts anything for a long time: the store is asked whether it is still there."""
    async with listening(local_seconds=0.3) as ears:
        await ears.hears()
        found: list[int] = []
        for _ in range(20):
            await asyncio.sleep(0.05)
            found.append(ears.channel.epoch)
        # A machine under load may be late once.
        assert found.count(1) >= 15


async def test_without_trust_nobody_listens() -> None:
    """With ``local_seconds=0`` memory is never used without asking: there is nothing to hear."""
    async with listening(local_seconds=0) as ears:
        assert ears.open() == 0
        await turns()
        assert ears.store.calls["listen"] == 0


async def test_closing_ends_the_subscription() -> None:
    """The store has nobody to tell any more, and opening it again begins a new one."""
    hub = Hub()
    async with listening(hub.store()) as ears:
        await ears.hears()
        await ears.channel.close()
        assert (ears.channel.epoch, hub.audience) == (0, 0)
        await ears.channel.close()
        assert await ears.hears() == 2
        assert hub.audience == 1


async def test_a_channel_that_is_closed_before_it_began_can_be_opened_again() -> None:
    """An application may be shut down right after its first request, and be tested on."""
    async with listening() as ears:
        ears.open()
        await ears.channel.close()
        assert await ears.hears() > 0


async def test_why_nobody_is_heard_is_told_to_those_who_look_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the level of details: the store itself tells of an outage."""
    with caplog.at_level(logging.DEBUG, logger="aeros.cache"):
        async with listening() as ears:
            ears.store.is_cut = True
            ears.open()
            await until(lambda: caplog.records)
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert "the hub is not reached" in caplog.text


class Silent(HubStore):
    """A store that says once that it listens, and then nothing, not even that it does not any more."""

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Hears once."""
        heard()
        await asyncio.Event().wait()


async def test_a_subscription_counts_no_longer_than_memory_is_trusted() -> None:
    """Whatever the store promises about its connection."""
    async with listening(Silent(Hub()), local_seconds=0.3) as ears:
        assert await ears.hears() == 1
        await until(lambda: ears.channel.epoch == 0)
        assert ears.open() == 0


class Brief(HubStore):
    """A store whose subscription ends without an error."""

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Hears once."""
        self.calls["listen"] += 1
        heard()


async def test_a_subscription_that_ends_by_itself_is_begun_anew() -> None:
    """It stands no more, whatever the reason."""
    async with listening(Brief(Hub())) as ears:
        ears.open()
        await turns()
        assert ears.channel.epoch == 0
        await until(lambda: ears.open() or ears.store.calls["listen"] > 1)


class Interval(HubStore):
    """A store that takes note of how often it is to be tried."""

    def __init__(self) -> None:
        super().__init__(Hub())
        self.interval_seconds = 0.0

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Takes note."""
        self.interval_seconds = interval_seconds


async def test_the_connection_is_tried_twice_as_often_as_it_has_to_be_heard_of() -> None:
    """One answer may be late."""
    store = Interval()
    async with listening(store, local_seconds=5) as ears:
        ears.open()
        await until(lambda: store.interval_seconds)
    assert store.interval_seconds == 2.5


def test_a_loop_may_end_while_its_channel_listens() -> None:
    """Nothing is left of it: no warning, no error."""
    hub = Hub()

    async def leave() -> None:
        ears = Ears(hub.store(), FOR_EVER)
        await ears.hears()

    asyncio.run(leave())
    gc.collect()
    assert hub.audience == 0
