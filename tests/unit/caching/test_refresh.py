"""Replacing stale responses: one request at a time, less often the longer it fails, and what it asks for."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from aeros.caching.policy import bypass_reason
from aeros.caching.refresh import Silence, discard, refreshing_scope
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import Refresh, Transaction
from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders
from tests.unit.caching.visits import (
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

STALE = CacheRules(timeout=10, stale_while_revalidate=1000, stale_if_error=2000)
VARY: RawHeaders = [(b"vary", b"accept-language")]


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


async def outdated(
    clock: Clock, rules: CacheRules = STALE, *, seconds: float = 11, headers: RawHeaders | None = None
) -> Cache:
    """Returns a cache in which a response is stale."""
    cache = Cache(clock=clock)
    await stored(cache, b"old", language(b"de"), rules=rules, headers=headers)
    clock.now += seconds
    return cache


async def visited(cache: Cache, rules: CacheRules = STALE) -> Transaction:
    """Opens a request that asks for what is stale."""
    return await opened(cache, language(b"de"), rules)


async def ticket_of(cache: Cache) -> Refresh:
    """Returns the right to replace what is stale."""
    refresh = (await visited(cache)).refresh
    assert refresh is not None
    return refresh


async def replacing(cache: Cache, refresh: Refresh | None = None) -> Transaction:
    """Opens the request that is to bring a new response."""
    refresh = refresh or await ticket_of(cache)
    return await opened(cache, language(b"de"), STALE, refresh=refresh)


# The request


def test_the_request_asks_for_the_whole_of_what_the_first_one_asked_for() -> None:
    """Not for a part, not whether something has changed; without a body; and the first one is not changed."""
    sent: RawHeaders = [
        (b"host", b"localhost"),
        (b"accept-language", b"de"),
        (b"cookie", b"a=1"),
        (b"authorization", b"Basic eA=="),
        (b"if-none-match", b'"a"'),
        (b"if-match", b'"a"'),
        (b"if-modified-since", b"x"),
        (b"if-unmodified-since", b"x"),
        (b"if-range", b'"a"'),
        (b"range", b"bytes=0-0"),
        (b"content-length", b"0"),
        (b"content-type", b"text/plain"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
    ]
    scope = scope_of("/a", *sent[1:], method="HEAD")
    scope["extensions"] = {"http.response.push": {}}
    before = dict(scope)
    found = refreshing_scope(scope)
    assert (found["method"], found["headers"], found["extensions"]) == ("GET", sent[:4], {})
    assert bypass_reason(found) is None
    changed = {"method", "headers", "extensions"}
    assert {name: found[name] for name in found if name not in changed} == {
        name: scope[name] for name in scope if name not in changed
    }
    assert scope == before


async def test_the_request_has_an_empty_body_and_a_client_that_never_leaves() -> None:
    """A view that waits for its client to leave waits for ever, as it would for a patient one."""
    receive = Silence()
    assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
    waiting = asyncio.create_task(receive())
    await turns()
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_the_response_is_read_by_nobody() -> None:
    """Whatever is sent."""
    assert inspect.iscoroutinefunction(discard)
    await discard({"type": "http.response.start", "status": 200, "headers": []})


# Who may


async def test_one_request_gets_the_right_to_replace_a_stale_response() -> None:
    """All are answered at once; the others are not told to."""
    clock = Clock()
    cache = await outdated(clock)
    found = [await visited(cache) for _ in range(100)]
    assert {transaction.hit and transaction.hit.body for transaction in found} == {b"old"}
    assert [transaction.refresh is not None for transaction in found] == [True] + [False] * 99
    assert found[0].status == CacheStatus(hit=True, ttl=-1, detail="stale-while-revalidate")
    assert (found[0].age, found[0].is_leading) == (11, False)
    assert cache.stats().stale == 100


async def test_what_the_refresh_brings_is_a_hit_for_all() -> None:
    """Fresh, and with a lifetime of its own."""
    clock = Clock()
    cache = await outdated(clock)
    request = await replacing(cache)
    assert (request.hit, request.status, request.is_leading) == (None, CacheStatus(fwd="stale"), True)
    offer(request, b"new")
    assert request.status == CacheStatus(fwd="stale", stored=True)
    found = await visited(cache)
    assert found.hit is not None
    assert (found.hit.body, found.status, found.refresh) == (b"new", CacheStatus(hit=True, ttl=10), None)
    clock.now += 11
    assert (await visited(cache)).refresh is not None
    stats = cache.stats()
    assert (stats.refreshes, stats.refresh_failures, stats.stores) == (1, 0, 2)


async def test_a_right_that_is_given_up_goes_to_the_next() -> None:
    """Once, however often it is given up."""
    cache = await outdated(Clock())
    refresh = await ticket_of(cache)
    refresh.give_up()
    second = await ticket_of(cache)
    refresh.give_up()
    assert (await visited(cache)).refresh is None
    second.give_up()
    assert (await visited(cache)).refresh is not None


async def test_a_request_that_needs_the_response_waits_for_the_refresh(time: Time) -> None:
    """When the stale one may not be used at once any more, and one that replaces it is under way."""
    clock = Clock()
    cache = await outdated(clock)
    request = await replacing(cache)
    clock.now += 1000
    waiting = boarding(cache, language(b"de"), STALE)
    await turns()
    assert not waiting.done()
    offer(request, b"new")
    found = await waiting
    assert found.hit is not None
    assert (found.hit.body, found.status.collapsed) == (b"new", True)


async def test_a_refresh_that_takes_too_long_lets_another_one_try(time: Time) -> None:
    """A moment past the deadline, at which the application ends it; what it brings may still be stored."""
    cache = await outdated(Clock())
    first = await replacing(cache)
    time.now += 30.9
    assert (await visited(cache)).refresh is None
    time.now += 0.2
    second = await replacing(cache)
    offer(second, b"second")
    offer(first, b"first")
    assert await body_of(cache, language(b"de"), STALE) == b"first"


async def test_past_the_bound_of_flights_nothing_is_replaced() -> None:
    """The stale response is sent all the same."""
    clock = Clock()
    cache = Cache(clock=clock, max_flights=1)
    await stored(cache, b"old", language(b"de"), rules=STALE)
    clock.now += 11
    leader = await opened(cache, scope_of("/b"))
    found = await visited(cache)
    assert (found.hit is not None, found.refresh) == (True, None)
    leader.abandon()
    assert (await visited(cache)).refresh is not None


async def test_each_variant_is_replaced_by_itself() -> None:
    """Another language is another response."""
    clock = Clock()
    cache = Cache(clock=clock)
    for value in (b"de", b"fr"):
        await stored(cache, value, language(value), rules=STALE, headers=VARY)
    clock.now += 11
    refreshes = [(await opened(cache, language(value), STALE)).refresh for value in (b"de", b"fr", b"de")]
    assert [refresh is not None for refresh in refreshes] == [True, True, False]
    request = await opened(cache, language(b"fr"), STALE, refresh=refreshes[1])
    offer(request, b"new fr", headers=VARY)
    assert await body_of(cache, language(b"fr"), STALE) == b"new fr"
    assert await body_of(cache, language(b"de"), STALE) == b"de"


async def test_head_and_conditional_requests_have_it_replaced_as_well() -> None:
    """Whoever finds it stale first."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, b"old", rules=STALE)
    clock.now += 11
    found = await opened(cache, scope_of(method="HEAD"), STALE)
    assert found.refresh is not None
    request = await opened(cache, refreshing_scope(scope_of(method="HEAD")), STALE, refresh=found.refresh)
    offer(request, b"new")
    assert await body_of(cache, rules=STALE) == b"new"


async def test_a_response_that_is_fresh_by_now_is_not_made_again() -> None:
    """Another request has been quicker."""
    clock = Clock()
    cache = await outdated(clock)
    refresh = await ticket_of(cache)
    offer(await opened(cache, language(b"de"), STALE, update=True), b"new")
    found = await opened(cache, language(b"de"), STALE, refresh=refresh)
    assert found.hit is not None
    assert found.hit.body == b"new"
    assert cache.stats().refreshes == 0
    clock.now += 11
    assert (await visited(cache)).refresh is not None


# When it fails


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_refresh_that_brings_an_error_leaves_the_stale_response(time: Time, status: int) -> None:
    """It is used on, and nobody tries again for a second."""
    cache = await outdated(Clock())
    request = await replacing(cache)
    assert offer(request, b"error", status=status) is None
    assert (request.status.stored, request.is_leading) == (False, False)
    found = await visited(cache)
    assert found.hit is not None
    assert (found.hit.body, found.refresh) == (b"old", None)
    assert (cache.stats().refreshes, cache.stats().refresh_failures, cache.stats().stores) == (1, 1, 1)
    time.now += 1.01
    assert (await visited(cache)).refresh is not None


async def test_an_error_that_a_hook_made_of_the_response_leaves_the_stale_one(time: Time) -> None:
    """As one of the view itself."""
    cache = await outdated(Clock())
    request = await replacing(cache)
    assert request.propose(status=200, headers=[], body=b"new") is not None
    request.commit(status=503, headers=[], personal=None)
    found = await visited(cache)
    assert found.hit is not None
    assert (found.hit.body, found.refresh) == (b"old", None)
    assert cache.stats().refresh_failures == 1


async def test_failing_refreshes_come_less_and_less_often(time: Time) -> None:
    """After one second, two, four and so on, up to thirty; a success ends it."""
    cache = await outdated(Clock())
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        (await replacing(cache)).abandon()
        time.now += seconds - 0.01
        assert (await visited(cache)).refresh is None
        time.now += 0.02
    assert cache.stats().refresh_failures == 7
    offer(await replacing(cache), status=500)
    time.now += 30.01
    offer(await replacing(cache), b"new", headers=[(b"cache-control", b"max-age=0")])
    assert await body_of(cache, language(b"de"), STALE) == b"new"


async def test_a_success_makes_the_next_pause_short_again(time: Time) -> None:
    """The outage is over."""
    clock = Clock()
    cache = await outdated(clock)
    for _ in range(4):
        (await replacing(cache)).abandon()
        time.now += 30.01
    offer(await replacing(cache), b"new")
    clock.now += 11
    (await replacing(cache)).abandon()
    assert (await visited(cache)).refresh is None
    time.now += 1.01
    assert (await visited(cache)).refresh is not None


@pytest.mark.parametrize(
    ("status", "headers", "personal", "reason"),
    [
        (404, [], None, "status"),
        (301, [], None, "status"),
        (200, [(b"set-cookie", b"a=1")], None, "set-cookie"),
        (200, [(b"cache-control", b"no-store")], None, "no-store"),
        (200, [(b"cache-control", b"private")], None, "private"),
        (200, [(b"vary", b"*")], None, "vary"),
        (200, [], "session", "session"),
    ],
)
async def test_a_refresh_that_brings_what_can_not_be_stored_makes_the_stale_response_leave(
    status: int, headers: RawHeaders, personal: str | None, reason: str
) -> None:
    """It is out of date, and nothing will ever take its place."""
    cache = await outdated(Clock())
    request = await replacing(cache)
    offer(request, b"new", status=status, headers=headers, personal=personal)
    assert request.status == CacheStatus(fwd="bypass", detail=reason)
    after = await visited(cache)
    assert (after.hit, after.is_leading, after.has_fallback) == (None, False, False)
    assert (cache.stats().entries, cache.stats().refresh_failures) == (0, 0)


async def test_an_error_that_the_route_stores_does_not_take_the_stale_responses_place() -> None:
    """What is there is better than an error, however long that may be stored."""
    rules = CacheRules(timeout=10, stale_while_revalidate=1000, statuses={503: 5})
    cache = await outdated(Clock(), rules)
    refresh = (await visited(cache, rules)).refresh
    offer(await opened(cache, language(b"de"), rules, refresh=refresh), b"error", status=503)
    assert await body_of(cache, language(b"de"), rules) == b"old"


async def test_a_status_that_the_route_stores_takes_the_stale_responses_place() -> None:
    """A page that is gone is an answer."""
    clock = Clock()
    rules = CacheRules(timeout=10, stale_while_revalidate=1000, statuses={404: 5})
    cache = await outdated(clock, rules)
    refresh = (await visited(cache, rules)).refresh
    offer(await opened(cache, language(b"de"), rules, refresh=refresh), b"gone", status=404)
    found = await visited(cache, rules)
    assert found.hit is not None
    assert (found.hit.status, found.hit.body) == (404, b"gone")


async def test_a_refresh_that_the_server_has_no_room_for_is_put_off(time: Time) -> None:
    """Under load it would only make more of it; the stale response stays."""
    cache = await outdated(Clock())
    (await replacing(cache)).abandon("limit")
    found = await visited(cache)
    assert found.hit is not None
    assert (found.hit.body, found.refresh) == (b"old", None)
    time.now += 1.01
    assert (await visited(cache)).refresh is not None


async def test_a_refresh_that_never_came_to_its_view_is_put_off(time: Time) -> None:
    """A hook answered in its place, or the request was broken off: the next try waits."""
    cache = await outdated(Clock())
    for seconds in (1, 2, 4):
        refresh = await ticket_of(cache)
        refresh.fail()
        refresh.give_up()
        assert (await visited(cache)).refresh is None
        time.now += seconds + 0.01
    assert cache.stats().refreshes == 0


async def test_a_response_that_was_evicted_during_its_refresh_stays_away() -> None:
    """Neither the old one nor what was made of the old data is used; the next one may be."""
    cache = await outdated(Clock())
    request = await replacing(cache)
    await cache.evict(None)
    offer(request, b"made of old data")
    assert request.status.detail == "evicted"
    after = await visited(cache)
    assert (after.hit, after.is_leading) == (None, True)
    offer(after, b"new")
    assert await body_of(cache, language(b"de"), STALE) == b"new"


# Without a refresh: stale-if-error


IF_ERROR = CacheRules(timeout=10, stale_if_error=100)


async def test_a_stale_response_is_used_in_the_place_of_an_error() -> None:
    """And those who waited for the view get it as well."""
    cache = await outdated(Clock(), IF_ERROR)
    leader = await visited(cache, IF_ERROR)
    assert (leader.hit, leader.has_fallback, leader.status) == (None, True, CacheStatus(fwd="stale"))
    followers = [boarding(cache, language(b"de"), IF_ERROR) for _ in range(5)]
    await turns()
    assert leader.rescue(404) is None
    rescued = leader.rescue(503)
    assert rescued is not None
    assert rescued.body == b"old"
    assert leader.status == CacheStatus(fwd="stale", fwd_status=503, ttl=-1, detail="stale-if-error")
    assert leader.age == 11
    assert not leader.is_leading
    for found in await asyncio.gather(*followers):
        assert found.hit is rescued
        assert found.status == CacheStatus(fwd="stale", collapsed=True, ttl=-1, detail="stale-if-error")
    assert cache.stats().stale == 6


async def test_after_an_error_the_view_is_left_alone_for_a_while(time: Time) -> None:
    """The stale response is used at once; then one request tries again."""
    cache = await outdated(Clock(), IF_ERROR)
    (await visited(cache, IF_ERROR)).rescue(500)
    found = await visited(cache, IF_ERROR)
    assert found.status == CacheStatus(hit=True, ttl=-1, detail="stale-if-error")
    assert (found.hit is not None, found.refresh) == (True, None)
    time.now += 1.01
    again = await visited(cache, IF_ERROR)
    assert (again.hit, again.is_leading) == (None, True)
    again.rescue(500)
    time.now += 1.01
    assert (await visited(cache, IF_ERROR)).hit is not None


async def test_the_window_for_errors_ends() -> None:
    """To the second, with the lifetime and the window together."""
    clock = Clock()
    cache = await outdated(clock, IF_ERROR, seconds=109)
    leader = await visited(cache, IF_ERROR)
    assert leader.has_fallback
    leader.abandon()
    clock.now += 1.1
    late = await visited(cache, IF_ERROR)
    assert (late.has_fallback, late.rescue(500), late.status) == (False, None, CacheStatus(fwd="miss"))


async def test_a_request_that_was_rescued_stores_nothing_more() -> None:
    """The response that it gets is not the view's."""
    cache = await outdated(Clock(), IF_ERROR)
    leader = await visited(cache, IF_ERROR)
    leader.rescue(500)
    assert leader.propose(status=200, headers=[], body=b"x") is None
    leader.commit(status=200, headers=[], personal=None)
    leader.abandon("stream")
    assert leader.status.detail == "stale-if-error"
    assert cache.stats().stores == 1
    assert dict(cache.stats().bypasses) == {}


async def test_a_view_that_is_well_replaces_the_stale_response() -> None:
    """The fallback is not needed."""
    cache = await outdated(Clock(), IF_ERROR)
    offer(await visited(cache, IF_ERROR), b"new")
    assert await body_of(cache, language(b"de"), IF_ERROR) == b"new"
