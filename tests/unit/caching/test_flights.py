"""Single flight: who leads, who waits, for how long, and what is not waited for at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from aeros.caching.flights import Flight, Flights, Landing, polls
from aeros.caching.server import Cache
from aeros.http.cache_status import CacheStatus
from tests.unit.caching.visits import (
    PATIENCE,
    RULES,
    Clock,
    boarding,
    body_of,
    language,
    offer,
    opened,
    scope_of,
    stored,
    turns,
)


class Time:
    """Monotonic time that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Returns seconds."""
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time that flights go by."""
    time = Time()
    monkeypatch.setattr("aeros.caching.flights.monotonic", time)
    return time


def flights_of(most: int = 100, deadline_seconds: float = 30.0) -> Flights[str]:
    """Returns the flights of a cache."""
    return Flights(deadline_seconds=deadline_seconds, most=most)


def begun(flights: Flights[str], key: bytes = b"a") -> Flight[str]:
    """Returns a flight that has just begun."""
    flight = flights.begin(key)
    assert flight is not None
    return flight


# One flight


async def test_all_who_wait_get_what_the_leader_brings() -> None:
    """Those who came before it landed, and nobody after."""
    flights = flights_of()
    flight = begun(flights)
    waiting = [asyncio.create_task(flight.wait()) for _ in range(100)]
    await turns()
    assert flights.under_way(b"a") is flight
    flight.land("x")
    assert await asyncio.gather(*waiting) == ["x"] * 100
    assert flights.under_way(b"a") is None
    assert await flight.wait() == "x"


async def test_a_flight_lands_once() -> None:
    """What comes second changes nothing, for nobody."""
    flights = flights_of()
    flight = begun(flights)
    flight.land(Landing.NOTHING)
    after = begun(flights)
    flight.land("x")
    assert await flight.wait() is Landing.NOTHING
    assert flights.under_way(b"a") is after


async def test_flights_have_one_key() -> None:
    """Each begins and lands by itself."""
    flights = flights_of()
    one, other = begun(flights, b"a"), begun(flights, b"b")
    one.land("x")
    assert (flights.under_way(b"a"), flights.under_way(b"b")) == (None, other)


async def test_one_who_waits_and_leaves_disturbs_nobody() -> None:
    """The flight goes on."""
    flight = begun(flights_of())
    leaving, staying = (asyncio.create_task(flight.wait()) for _ in range(2))
    await turns()
    leaving.cancel()
    await asyncio.wait([leaving])
    flight.land("x")
    assert leaving.cancelled()
    assert await staying == "x"


async def test_nobody_waits_longer_than_the_deadline() -> None:
    """Whoever comes later waits for the rest of it only."""
    flights = flights_of(deadline_seconds=0.05)
    flight = begun(flights)
    assert await flight.wait() is Landing.TOO_LONG
    assert flights.under_way(b"a") is None
    assert await flight.wait() is Landing.TOO_LONG


async def test_a_flight_that_hangs_is_not_waited_for_by_those_who_come_later(time: Time) -> None:
    """They begin another one, which the first does not end when it lands after all."""
    flights = flights_of(deadline_seconds=30)
    hanging = begun(flights)
    time.now += 30
    assert flights.under_way(b"a") is hanging
    time.now += 0.1
    assert flights.under_way(b"a") is None
    second = begun(flights)
    waiting = asyncio.create_task(second.wait())
    await turns()
    hanging.land("late")
    await turns()
    assert not waiting.done()
    assert flights.under_way(b"a") is second
    second.land("x")
    assert await waiting == "x"


async def test_there_are_only_so_many_flights() -> None:
    """Past it there is none to wait for; when one lands there is room again."""
    flights = flights_of(most=2)
    one = begun(flights, b"a")
    begun(flights, b"b")
    assert flights.begin(b"c") is None
    one.land("x")
    assert flights.begin(b"c") is not None
    assert flights.begin(b"d") is None


def test_each_loop_has_flights_of_its_own() -> None:
    """A server in a thread does not wait for futures of another one, nor count them."""
    flights = flights_of(most=1)

    async def begins() -> bool:
        return flights.under_way(b"a") is None and flights.begin(b"a") is not None

    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        assert [loop.run_until_complete(begins()) for loop in loops] == [True, True]
    finally:
        for loop in loops:
            loop.close()


# What can not be stored


def test_a_refusal_is_remembered_for_ten_seconds(time: Time) -> None:
    """With its reason; then somebody may lead again."""
    flights = flights_of()
    flights.refuse(b"a", "session")
    assert (flights.refusal(b"a"), flights.refusal(b"b")) == ("session", None)
    time.now += 9.9
    assert flights.refusal(b"a") == "session"
    time.now += 0.1
    assert flights.refusal(b"a") is None


def test_a_refusal_is_renewed_by_the_next(time: Time) -> None:
    """As long as nothing can be stored nobody ever waits."""
    flights = flights_of()
    flights.refuse(b"a", "session")
    time.now += 9
    flights.refuse(b"a", "status")
    time.now += 9
    assert flights.refusal(b"a") == "status"


def test_a_response_that_is_stored_takes_the_refusal_back() -> None:
    """From then on one leads."""
    flights = flights_of()
    flights.refuse(b"a", "session")
    flights.refuse(b"b", "session")
    flights.accept(b"a")
    flights.accept(b"never refused")
    assert (flights.refusal(b"a"), flights.refusal(b"b")) == (None, "session")


def test_refusals_are_bounded() -> None:
    """The oldest are forgotten; one that was renewed is not old."""
    flights = flights_of()
    for number in range(10_000):
        flights.refuse(b"%d" % number, "status")
    flights.refuse(b"0", "status")
    for number in range(10_000, 10_005):
        flights.refuse(b"%d" % number, "status")
    assert [flights.refusal(b"%d" % number) for number in range(7)] == ["status", *[None] * 5, "status"]
    assert flights.refusal(b"10004") == "status"


# What could not be refreshed


def test_a_failure_pauses_longer_each_time(time: Time) -> None:
    """One second, doubling up to thirty."""
    flights = flights_of()
    assert not flights.pauses(b"a")
    for seconds in (1, 2, 4, 8, 16, 30, 30, 30):
        flights.fail(b"a")
        time.now += seconds - 0.01
        assert flights.pauses(b"a")
        assert not flights.pauses(b"b")
        time.now += 0.02
        assert not flights.pauses(b"a")


def test_after_a_success_the_pauses_begin_anew(time: Time) -> None:
    """Short ones first."""
    flights = flights_of()
    for _ in range(5):
        flights.fail(b"a")
    flights.accept(b"a")
    assert not flights.pauses(b"a")
    flights.fail(b"a")
    time.now += 1.01
    assert not flights.pauses(b"a")


def test_a_thousand_failures_are_no_longer_a_pause(time: Time) -> None:
    """However long the outage is."""
    flights = flights_of()
    for _ in range(2000):
        flights.fail(b"a")
    time.now += 30.01
    assert not flights.pauses(b"a")


def test_another_process_may_try_first(time: Time) -> None:
    """For a second, and that is no failure of ours."""
    flights = flights_of()
    flights.hold_off(b"a")
    assert flights.pauses(b"a")
    time.now += 1.01
    assert not flights.pauses(b"a")
    flights.hold_off(b"a")
    flights.fail(b"a")
    time.now += 1.01
    assert not flights.pauses(b"a")


@pytest.mark.parametrize("note", ["fail", "hold_off"])
def test_failures_are_bounded(note: str) -> None:
    """As many URLs as anybody asks for take only so much room."""
    flights = flights_of()
    for number in range(10_005):
        getattr(flights, note)(b"%d" % number)
    found: Any = flights
    assert len(found._failures) == 10_000
    assert not flights.pauses(b"4")
    assert flights.pauses(b"5")
    assert flights.pauses(b"10004")


def test_threads_do_not_disturb_each_others_notes() -> None:
    """Several loops may serve one application."""
    flights, errors = flights_of(), list[BaseException]()

    def storm() -> None:
        try:
            for number in range(20_000):
                key = b"%d" % (number % 3)
                flights.refuse(key, "status")
                flights.fail(key)
                flights.accept(key)
        except BaseException as error:  # noqa: BLE001 - it is shown by the test
            errors.append(error)

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Asking for another process's result


def test_polls_come_quickly_at_first_and_end_in_time(time: Time) -> None:
    """From a hundredth of a second to a tenth; all in all as long as one may wait."""
    pauses: list[float] = []
    for pause in polls(time.now + 2.0):
        pauses.append(pause)
        time.now += pause
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.08, 0.1]
    assert max(pauses) == 0.1
    assert sum(pauses) == pytest.approx(2.0)
    assert list(polls(time.now)) == []


def test_polls_end_in_time_also_where_each_takes_long(time: Time) -> None:
    """A slow store does not make anybody wait for longer."""
    number = 0
    for pause in polls(time.now + 10.0):
        time.now += pause + 0.9
        number += 1
    assert number <= 12
    assert time.now < 1000 + 10 + 1.1


# In the cache


async def test_past_the_bound_each_request_runs_its_own_view() -> None:
    """Nobody waits, nobody is refused, and everybody's response is stored."""
    cache = Cache(max_flights=2)
    leaders = [await opened(cache, scope_of(f"/{number}")) for number in range(2)]
    more = [await opened(cache, scope_of("/more")) for _ in range(3)]
    assert [found.is_leading for found in [*leaders, *more]] == [True, True, False, False, False]
    assert all(found.hit is None for found in more)
    offer(more[0], b"1")
    assert more[0].status == CacheStatus(fwd="miss", stored=True)
    assert await body_of(cache, scope_of("/more")) == b"1"
    leaders[0].abandon()
    assert (await opened(cache, scope_of("/other"))).is_leading


async def test_what_was_refused_is_not_waited_for_during_ten_seconds(time: Time) -> None:
    """Then one leads again, and if it can be stored by now the others wait."""
    cache = Cache()
    offer(await opened(cache), headers=[(b"set-cookie", b"a=1")])
    side_by_side = [await opened(cache) for _ in range(3)]
    assert [found.is_leading for found in side_by_side] == [False] * 3
    assert {found.status for found in side_by_side} == {CacheStatus(fwd="miss")}
    time.now += 10
    leader = await opened(cache)
    assert leader.is_leading
    follower = boarding(cache)
    await turns()
    offer(leader, b"new")
    assert (await follower).status.collapsed


async def test_one_that_is_stored_after_all_ends_the_refusal() -> None:
    """Whoever of those who run side by side brings it."""
    cache = Cache()
    offer(await opened(cache), personal="session")
    one, other = await opened(cache), await opened(cache)
    offer(one, b"1", personal="session")
    offer(other, b"2")
    assert await body_of(cache) == b"2"
    cache.clear()
    assert (await opened(cache)).is_leading


@pytest.mark.parametrize("reason", ["limit", None])
async def test_what_says_nothing_about_the_response_refuses_nothing(reason: str | None) -> None:
    """A server that has no room, or a view that raised."""
    cache = Cache()
    (await opened(cache)).abandon(reason)
    assert (await opened(cache)).is_leading


async def test_an_eviction_during_the_run_refuses_nothing() -> None:
    """The next response may be stored."""
    cache = Cache()
    leader = await opened(cache)
    await cache.evict(None)
    offer(leader)
    assert leader.status.detail == "evicted"
    assert (await opened(cache)).is_leading


@pytest.mark.parametrize("kind", ["credentials", "head"])
async def test_requests_that_never_lead_speak_for_nobody_else(kind: str) -> None:
    """Else anybody could switch single flight off for all others."""
    cache = Cache()
    if kind == "head":
        transaction = await opened(cache, scope_of(method="HEAD"))
        transaction.abandon("stream")
    else:
        transaction = await opened(cache, scope_of("/a", (b"authorization", b"Basic eA==")))
        assert offer(transaction) is None
    assert transaction.status.fwd == "bypass"
    assert (await cache.explain(scope_of(), RULES)).reason is None
    assert (await opened(cache)).is_leading


async def test_a_refused_variant_says_nothing_about_the_others() -> None:
    """Once it is known that there are any."""
    cache = Cache()
    await stored(cache, b"de", language(b"de"), headers=[(b"vary", b"accept-language")])
    offer(await opened(cache, language(b"fr")), headers=[(b"set-cookie", b"a=1")])
    assert not (await opened(cache, language(b"fr"))).is_leading
    assert (await opened(cache, language(b"es"))).is_leading


async def test_a_variant_that_is_stored_after_all_ends_its_own_refusal() -> None:
    """When it is over, one leads again."""
    clock = Clock()
    cache = Cache(clock=clock)
    vary = (b"vary", b"accept-language")
    await stored(cache, b"fr", language(b"fr"), headers=[vary])
    offer(await opened(cache, language(b"de")), headers=[(b"set-cookie", b"a=1")])
    offer(await opened(cache, language(b"de")), b"de", headers=[vary, (b"cache-control", b"max-age=5")])
    clock.now += 6
    assert (await opened(cache, language(b"de"))).is_leading


async def test_a_variant_that_is_stored_ends_the_refusal_of_its_url() -> None:
    """It was refused before it was known that there are variants."""
    cache = Cache()
    offer(await opened(cache, language(b"de")), headers=[(b"set-cookie", b"a=1")])
    await stored(cache, b"de", language(b"de"), headers=[(b"vary", b"accept-language")])
    cache.clear()
    assert (await opened(cache, language(b"de"))).is_leading


async def test_a_hung_view_holds_nobody_up_who_comes_later(time: Time) -> None:
    """The first who comes after the deadline leads, and the others wait for that one."""
    cache = Cache(flight_deadline_seconds=30)
    hung = await opened(cache)
    time.now += 30.1
    second = await opened(cache)
    assert second.is_leading
    follower = boarding(cache)
    await turns()
    assert not follower.done()
    offer(second, b"second")
    assert (await follower).status.collapsed
    offer(hung, b"late")
    assert hung.status.stored
    assert await body_of(cache) == b"late"


async def test_those_who_are_turned_back_look_again_first() -> None:
    """Somebody else may have stored something meanwhile; then nobody leads."""
    cache = Cache()
    leader = await opened(cache)
    followers = [boarding(cache) for _ in range(3)]
    await turns()
    await cache.evict(None)
    offer(await opened(cache, update=True), b"new")
    offer(leader, b"old")
    for found in await asyncio.gather(*followers):
        assert found.hit is not None
        assert (found.hit.body, found.status.hit) == (b"new", True)


async def test_a_leader_that_leaves_lets_the_others_go() -> None:
    """Its view had begun: they run it themselves, at once."""
    cache = Cache()
    leader = await opened(cache)
    followers = [boarding(cache) for _ in range(10)]
    await turns()
    leader.abandon()
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*followers)
    assert all(transaction.hit is None for transaction in found)
