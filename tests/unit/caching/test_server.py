"""The cache's engine without Quart: lookups, single flight, what is stored, and clearing."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import redis
from cachelib import BaseCache, FileSystemCache, RedisCache, SimpleCache
from redis.backoff import NoBackoff
from redis.retry import Retry

from aeros.caching.entry import MAGIC, StoredResponse, VaryMark, encode_entry
from aeros.caching.keys import store_key, variant_key
from aeros.caching.marks import path_marks
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache, as_cache
from aeros.caching.stores import Store, as_store
from aeros.caching.stores.marked import MarkedStore
from aeros.errors import InvalidSettingError
from aeros.http.cache_status import CacheStatus
from aeros.http.etag import entity_tag_of
from aeros.http.fields import format_http_date
from aeros.types import RawHeaders
from tests.unit.caching.visits import (
    Clock,
    boarding,
    body_of,
    key_of,
    language,
    name_of,
    offer,
    opened,
    scope_of,
    stored,
    turns,
)

if TYPE_CHECKING:
    from tests.conftest import RedisProcess, RunScript

GENERATION = "aeros:1:generation"
AUTHORIZATION = (b"authorization", b"Basic eA==")


# Hits, age and expiry


async def test_a_committed_response_is_a_hit() -> None:
    """The next request for it gets what was proposed, and runs no view."""
    cache = Cache()
    transaction = await opened(cache)
    assert transaction.hit is None
    assert transaction.status == CacheStatus(fwd="miss")
    proposed = transaction.propose(
        status=200,
        headers=[(b"content-type", b"text/plain"), (b"content-length", b"5")],
        body=b"hello",
    )
    assert proposed is not None
    assert await body_of(Cache()) is None
    transaction.commit(status=200, headers=[], personal=None)
    found = await opened(cache)
    assert found.hit is proposed
    assert (proposed.status, proposed.body, proposed.etag) == (200, b"hello", str(entity_tag_of(b"hello")))
    assert found.is_leading is False


async def test_what_was_proposed_is_no_hit_before_it_is_committed() -> None:
    """A hook may still add a cookie."""
    cache = Cache(flight_deadline_seconds=0.01)
    transaction = await opened(cache)
    transaction.propose(status=200, headers=[], body=b"x")
    assert await body_of(cache) is None
    assert cache.stats().stores == 0


async def test_age_and_remaining_lifetime_follow_the_clock() -> None:
    """In whole seconds, as the fields carry them."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, rules=CacheRules(timeout=60))
    clock.now += 12.9
    found = await opened(cache)
    assert (found.age, found.status) == (12, CacheStatus(hit=True, ttl=47))


async def test_age_counts_what_the_view_said() -> None:
    """A response that was 20 seconds old already is fresh for 20 seconds less (RFC 9111 §4.2.3)."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, headers=[(b"cache-control", b"max-age=60"), (b"age", b"20")])
    clock.now += 39
    assert (await opened(cache)).age == 59
    clock.now += 1
    assert await body_of(cache) is None


async def test_a_response_that_arrives_stale_is_not_stored() -> None:
    """Neither those who wait nor the counters are told that it was."""
    cache = Cache()
    leader = await opened(cache)
    follower = boarding(cache)
    await turns()
    offer(leader, headers=[(b"cache-control", b"max-age=60"), (b"age", b"60")])
    assert (await follower).hit is None
    assert leader.status.stored is False
    assert cache.stats().stores == 0


async def test_a_response_is_a_hit_until_its_lifetime_is_over() -> None:
    """At the last moment it is, at the next it is gone, from memory too."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, rules=CacheRules(timeout=60))
    clock.now += 59.9
    assert await body_of(cache) == b"x"
    clock.now += 0.1
    assert await body_of(cache) is None
    assert cache.stats().entries == 0


async def test_a_clock_that_is_set_back_does_not_make_a_response_older_or_younger() -> None:
    """It stays a hit with the age that it was stored with."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache)
    clock.now -= 3600
    found = await opened(cache)
    assert found.hit is not None
    assert found.age == 0


async def test_the_default_lifetime_is_the_caches() -> None:
    """Where neither the route nor the response says one; None stores only what states its own."""
    clock = Clock()
    cache = Cache(default_timeout=5, clock=clock)
    await stored(cache)
    clock.now += 5
    assert await body_of(cache) is None
    careful = Cache(default_timeout=None)
    transaction = await opened(careful)
    offer(transaction)
    assert transaction.status == CacheStatus(fwd="bypass", detail="no-lifetime")
    await stored(careful, headers=[(b"cache-control", b"max-age=60")])


async def test_fields_of_the_connection_are_not_stored() -> None:
    """Nor a length or an age, which change; a Date is kept, or made."""
    clock = Clock()
    cache = Cache(clock=clock)
    date = format_http_date(clock.now - 5).encode()
    headers: RawHeaders = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"1"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"age", b"2"),
        (b"date", date),
        (b"x-end", b"1"),
    ]
    await stored(cache, headers=headers)
    found = (await opened(cache)).hit
    assert found is not None
    assert found.headers == [(b"content-type", b"text/plain"), (b"date", date), (b"x-end", b"1")]
    assert found.initial_age == 5
    await stored(cache, scope=scope_of("/b"))
    made = (await opened(cache, scope_of("/b"))).hit
    assert made is not None
    assert made.headers == [(b"date", format_http_date(clock.now).encode())]


async def test_a_refresh_runs_the_view_and_replaces_the_response() -> None:
    """A fresh one is there, and is not used; it stays if the new one may not be stored."""
    cache = Cache()
    await stored(cache, b"old")
    refresh = await opened(cache, update=True)
    assert refresh.hit is None
    assert refresh.is_leading is False
    offer(refresh, b"bad", status=500)
    assert await body_of(cache) == b"old"
    offer(await opened(cache, update=True), b"new")
    assert await body_of(cache) == b"new"


# What is not looked up, and what is not stored


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (scope_of(method="POST"), CacheStatus(fwd="method")),
        (scope_of("/a", (b"content-length", b"3")), CacheStatus(fwd="bypass", detail="request-body")),
    ],
)
async def test_some_requests_are_not_looked_up(scope: dict[str, object], status: CacheStatus) -> None:
    """Their response is not stored either, and they wait for nobody."""
    cache = Cache()
    await stored(cache)
    leader = await opened(cache, scope_of("/b"))
    transaction = await opened(cache, scope)
    assert (transaction.hit, transaction.status, transaction.is_leading) == (None, status, False)
    assert offer(transaction) is None
    assert transaction.status == status
    assert cache.stats().stores == 1
    leader.abandon()


async def test_a_request_that_the_route_keeps_out_is_counted() -> None:
    """With its reason."""
    cache = Cache()
    transaction = cache.bypass("unless")
    assert transaction.status == CacheStatus(fwd="bypass", detail="unless")
    assert offer(transaction) is None
    assert dict(cache.stats().bypasses) == {"unless": 1}


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (500, [], "status"),
        (200, [(b"cache-control", b"no-store")], "no-store"),
        (200, [(b"cache-control", b"private")], "private"),
        (200, [(b"cache-control", b"no-cache")], "no-cache"),
        (200, [(b"set-cookie", b"a=1")], "set-cookie"),
        (200, [(b"vary", b"*")], "vary"),
        (200, [(b"cache-control", b"max-age=0")], "lifetime-zero"),
    ],
)
async def test_a_response_that_may_not_be_stored_says_why(
    status: int, headers: RawHeaders, reason: str
) -> None:
    """In the transaction's status and in the counters; the next request runs the view again."""
    cache = Cache()
    transaction = await opened(cache)
    assert offer(transaction, status=status, headers=headers) is None
    assert transaction.status == CacheStatus(fwd="bypass", detail=reason)
    assert dict(cache.stats().bypasses) == {reason: 1}
    assert await body_of(cache) is None


@pytest.mark.parametrize(
    ("status", "headers", "personal", "reason"),
    [
        (200, [(b"set-cookie", b"session=1")], None, "set-cookie"),
        (200, [(b"cache-control", b"no-store")], None, "no-store"),
        (200, [(b"cache-control", b"private")], None, "private"),
        (200, [(b"vary", b"*")], None, "vary"),
        (200, [], "session", "session"),
        (200, [], "cookies", "cookies"),
        (200, [(b"vary", b"cookie")], "session", "session"),
        (500, [], None, "status"),
    ],
)
async def test_a_hook_can_keep_a_response_from_being_stored(
    status: int, headers: RawHeaders, personal: str | None, reason: str
) -> None:
    """What was added after the view, and what was read of one user, count as if the view had done it."""
    cache = Cache()
    transaction = await opened(cache)
    assert transaction.propose(status=200, headers=[], body=b"x") is not None
    transaction.commit(status=status, headers=headers, personal=personal)
    assert transaction.status == CacheStatus(fwd="bypass", detail=reason)
    assert dict(cache.stats().bypasses) == {reason: 1}
    assert (cache.stats().stores, cache.stats().entries) == (0, 0)
    assert await body_of(cache) is None


async def test_a_response_larger_than_the_memory_is_not_stored() -> None:
    """It is sent all the same, and those who wait run the view themselves."""
    cache = Cache(max_bytes=5000)
    transaction = await opened(cache)
    follower = boarding(cache)
    await turns()
    assert offer(transaction, b"x" * 5000) is not None
    assert transaction.status == CacheStatus(fwd="bypass", detail="too-large")
    assert (await follower).hit is None
    assert (cache.stats().entries, cache.stats().bytes, cache.stats().stores) == (0, 0, 0)


async def test_a_transaction_that_has_ended_does_nothing_more() -> None:
    """A second commit stores nothing, and abandoning after a commit takes nothing back."""
    cache = Cache()
    transaction = await opened(cache)
    offer(transaction)
    transaction.commit(status=200, headers=[], personal=None)
    transaction.abandon()
    assert (cache.stats().stores, transaction.status) == (1, CacheStatus(fwd="miss", stored=True))
    other = await opened(cache, scope_of("/b"))
    other.abandon("stream")
    assert offer(other) is None
    assert other.status == CacheStatus(fwd="bypass", detail="stream")


async def test_other_statuses_are_stored_where_the_route_accepts_them() -> None:
    """As 204 with ``cache_none=True``."""
    cache = Cache()
    transaction = await opened(cache)
    assert transaction.propose(status=204, headers=[], body=b"", accepted=True) is not None
    transaction.commit(status=204, headers=[], personal=None)
    found = (await opened(cache)).hit
    assert found is not None
    assert found.status == 204


# HEAD and credentials


async def test_head_reads_what_get_stored_and_stores_nothing() -> None:
    """Its view may have left the body out."""
    cache = Cache()
    head = await opened(cache, scope_of(method="HEAD"))
    assert (head.hit, head.is_leading) == (None, False)
    assert offer(head, b"") is None
    assert head.status == CacheStatus(fwd="miss")
    assert cache.stats().entries == 0
    await stored(cache)
    assert await body_of(cache, scope_of(method="HEAD")) == b"x"


async def test_head_never_joins_a_flight() -> None:
    """It neither waits for a view nor lets others wait for its own."""
    cache = Cache()
    leader = await opened(cache)
    head = await opened(cache, scope_of(method="HEAD"))
    assert (head.hit, head.is_leading, leader.is_leading) == (None, False, True)
    leader.abandon()


async def test_credentials_never_join_a_flight() -> None:
    """Neither behind another request nor before one."""
    cache = Cache()
    first = await opened(cache, scope_of("/a", AUTHORIZATION))
    leader = await opened(cache)
    second = await opened(cache, scope_of("/a", AUTHORIZATION))
    assert [request.is_leading for request in (first, leader, second)] == [False, True, False]
    assert offer(first, b"secret") is None
    assert first.status == CacheStatus(fwd="bypass", detail="authorization")
    offer(leader, b"for all")
    assert offer(second, b"secret") is None
    assert await body_of(cache) == b"for all"


async def test_requests_with_credentials_get_only_public_responses() -> None:
    """One that says nothing is for those without (RFC 9111 §3.5)."""
    cache = Cache()
    await stored(cache)
    assert await body_of(cache, scope_of("/a", AUTHORIZATION)) is None
    public = scope_of("/b")
    await stored(cache, b"public", public, headers=[(b"cache-control", b"public")])
    assert await body_of(cache, scope_of("/b", AUTHORIZATION)) == b"public"


async def test_a_public_response_to_credentials_is_for_all() -> None:
    """The view said so."""
    cache = Cache()
    transaction = await opened(cache, scope_of("/a", AUTHORIZATION))
    offer(transaction, headers=[(b"cache-control", b"s-maxage=60")])
    assert await body_of(cache) == b"x"


# Single flight


async def test_a_thousand_requests_at_once_run_the_view_once() -> None:
    """All who came meanwhile get the leader's response, collapsed."""
    cache = Cache(clock=Clock())
    leader = await opened(cache)
    assert leader.is_leading
    tasks = [boarding(cache) for _ in range(1000)]
    await turns()
    assert not any(task.done() for task in tasks)
    proposed = offer(leader)
    found = await asyncio.gather(*tasks)
    assert all(transaction.hit is proposed for transaction in found)
    assert found[0].status == CacheStatus(fwd="miss", collapsed=True, ttl=300)
    stats = cache.stats()
    assert (stats.misses, stats.collapsed, stats.hits, stats.stores) == (1, 1000, 0, 1)
    assert not leader.is_leading


@pytest.mark.parametrize("end", ["abandon", "refused", "hook"])
async def test_those_who_wait_are_let_go_when_the_leader_brings_nothing(end: str) -> None:
    """Whether its view failed, its response may not be stored, or a hook forbade it."""
    cache = Cache()
    leader = await opened(cache)
    tasks = [boarding(cache) for _ in range(100)]
    await turns()
    if end == "abandon":
        leader.abandon()
    elif end == "refused":
        leader.propose(status=500, headers=[], body=b"")
    else:
        leader.propose(status=200, headers=[], body=b"x")
        leader.commit(status=200, headers=[(b"set-cookie", b"a=1")], personal=None)
    async with asyncio.timeout(10):
        found = await asyncio.gather(*tasks)
    assert all(transaction.hit is None and not transaction.is_leading for transaction in found)
    assert cache.stats().collapsed == 0
    after = await opened(cache)
    # What was refused is not waited for again; a view that failed says nothing about the next one.
    assert after.is_leading is (end == "abandon")
    after.abandon()


async def test_nobody_waits_longer_than_the_deadline() -> None:
    """Then the request runs the view itself; the leader may still store what it brings."""
    cache = Cache(flight_deadline_seconds=0.02)
    leader = await opened(cache)
    follower = await opened(cache)
    assert (follower.hit, follower.is_leading) == (None, False)
    await leader.finish_leading()
    assert leader.is_leading
    offer(leader)
    await leader.finish_leading()
    assert await body_of(cache) == b"x"


async def test_one_who_waits_and_leaves_disturbs_nobody() -> None:
    """A client that goes away cancels only itself."""
    cache = Cache()
    leader = await opened(cache)
    leaving, staying = (boarding(cache) for _ in range(2))
    await turns()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    proposed = offer(leader)
    assert (await staying).hit is proposed


async def test_requests_for_other_things_do_not_wait() -> None:
    """A flight has one key."""
    cache = Cache()
    leader = await opened(cache)
    other = await opened(cache, scope_of("/b"))
    assert leader.is_leading
    assert other.is_leading
    leader.abandon()
    other.abandon()


async def test_a_refresh_waits_for_nobody() -> None:
    """Who asks for a new response does not want one that was begun before."""
    cache = Cache()
    leader = await opened(cache)
    assert (await opened(cache, update=True)).hit is None
    leader.abandon()


def test_each_loop_has_flights_of_its_own() -> None:
    """A server in a thread and a test client share entries, never futures."""
    cache = Cache()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        one = first.run_until_complete(opened(cache))
        two = second.run_until_complete(opened(cache))
        assert one.is_leading
        assert two.is_leading
        one.abandon()
        offer(two)
        assert first.run_until_complete(body_of(cache)) == b"x"
    finally:
        first.close()
        second.close()


# Vary


VARY: RawHeaders = [(b"vary", b"Accept-Language")]


async def test_variants_are_kept_apart() -> None:
    """Each request gets the response to the same field values, an absent field is one of them."""
    cache = Cache()
    for value in (b"de", b"fr", None):
        await stored(cache, value or b"none", language(value), headers=VARY)
    for value in (b"de", b"fr", None):
        assert await body_of(cache, language(value)) == (value or b"none")
    assert await body_of(cache, language(b"es")) is None
    assert await body_of(cache, language(b"")) is None
    assert cache.stats().stores == 3


async def test_a_flight_brings_only_what_the_request_selects() -> None:
    """On a cold key nobody knows yet that the response will vary."""
    cache = Cache()
    leader = await opened(cache, language(b"de"))
    tasks = [boarding(cache, language(value)) for value in (b"de", b"fr")]
    await turns()
    proposed = offer(leader, b"de", headers=VARY)
    same, other = await asyncio.gather(*tasks)
    assert same.hit is proposed
    assert other.hit is None
    other.abandon()


async def test_each_variant_of_a_cold_key_runs_its_view_once() -> None:
    """Those who waited for a response that is not for them wait for one that is, once it is known to vary."""
    cache = Cache()
    runs: list[bytes] = []

    async def visit(value: bytes) -> bytes | None:
        transaction = await opened(cache, language(value))
        if transaction.hit is None:
            runs.append(value)
            await turns()
            offer(transaction, value, headers=VARY)
            return value
        return transaction.hit.body

    values = [b"de", b"fr"] * 100
    assert await asyncio.gather(*(visit(value) for value in values)) == values
    assert sorted(runs) == [b"de", b"fr"]


async def test_variants_have_flights_of_their_own_once_it_is_known_that_there_are_any() -> None:
    """A slow answer in one language holds nobody up who asks for another."""
    cache = Cache()
    await stored(cache, b"de", language(b"de"), headers=VARY)
    french, spanish = await opened(cache, language(b"fr")), await opened(cache, language(b"es"))
    assert french.is_leading
    assert spanish.is_leading
    french.abandon()
    spanish.abandon()


async def test_codings_select_nothing_while_the_body_is_kept_as_it_is() -> None:
    """One entry serves them all; a body that the view coded itself is another thing."""
    cache = Cache()
    gzip, br = scope_of("/a", (b"accept-encoding", b"gzip")), scope_of("/a", (b"accept-encoding", b"br"))
    await stored(cache, b"x", gzip, headers=[(b"vary", b"accept-encoding")])
    assert await body_of(cache, br) == b"x"
    cache.clear()
    coded: RawHeaders = [(b"vary", b"accept-encoding"), (b"content-encoding", b"gzip")]
    await stored(cache, b"x", gzip, headers=coded)
    assert await body_of(cache, br) is None
    assert await body_of(cache, gzip) == b"x"


async def test_a_mark_stands_as_long_as_the_longest_response_under_it() -> None:
    """One that came later and lives shorter does not take the others along."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, b"de", language(b"de"), headers=[*VARY, (b"cache-control", b"max-age=100")])
    clock.now += 10
    await stored(cache, b"fr", language(b"fr"), headers=[*VARY, (b"cache-control", b"max-age=5")])
    clock.now += 60
    assert await body_of(cache, language(b"fr")) is None
    assert await body_of(cache, language(b"de")) == b"de"
    clock.now += 31
    assert await body_of(cache, language(b"de")) is None


async def test_a_response_that_varies_no_more_is_for_all() -> None:
    """The mark is replaced by it."""
    clock = Clock()
    cache = Cache(clock=clock)
    await stored(cache, b"de", language(b"de"), headers=VARY)
    clock.now += 301
    await stored(cache, b"all", language(b"de"))
    assert await body_of(cache, language(b"fr")) == b"all"


# Clearing and counting


async def test_clearing_forgets_everything_and_tells_how_much() -> None:
    """A mark counts as an entry; clearing nothing is nothing."""
    cache = Cache()
    await stored(cache)
    await stored(cache, scope=scope_of("/b"))
    assert cache.clear() == 2
    assert await body_of(cache) is None
    assert cache.clear() == 0
    assert cache.stats().bytes == 0


async def test_a_view_that_ran_while_the_cache_was_cleared_stores_nothing() -> None:
    """It may have read what the clearing was for. Of those who waited one leads anew."""
    cache = Cache()
    transaction = await opened(cache)
    followers = [boarding(cache) for _ in range(10)]
    await turns()
    cache.clear()
    offer(transaction, b"old")
    assert transaction.status == CacheStatus(fwd="bypass", detail="evicted")
    await turns()
    leader, *others = sorted(followers, key=lambda task: not task.done())
    assert not any(task.done() for task in others)
    assert ((await leader).hit, (await leader).is_leading) == (None, True)
    offer(await leader, b"new")
    assert {found.hit and found.hit.body for found in await asyncio.gather(*others)} == {b"new"}
    assert await body_of(cache) == b"new"


async def test_the_counters_tell_what_happened() -> None:
    """A snapshot does not change, and can not be changed."""
    cache = Cache(max_bytes=12_500)
    await stored(cache, b"a" * 4000)
    before = cache.stats()
    await body_of(cache)
    await stored(cache, b"b" * 4000, scope_of("/b"))
    await stored(cache, b"c" * 4000, scope_of("/c"))
    offer(await opened(cache, scope_of("/d")), status=500)
    offer(await opened(cache, scope_of("/d")), status=404)
    await opened(cache, scope_of(method="PUT"))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.stores, stats.evictions, stats.entries) == (1, 5, 3, 1, 2)
    assert 8000 < stats.bytes <= 12_500
    assert dict(stats.bypasses) == {"status": 2, "method": 1}
    assert (stats.damaged, stats.store_errors, stats.collapsed) == (0, 0, 0)
    assert (before.hits, before.stores, before.misses) == (0, 1, 1)
    with pytest.raises(TypeError):
        cast("dict[str, int]", stats.bypasses)["x"] = 1


async def test_variants_of_a_hit_count_as_memory() -> None:
    """A coding that was made once is kept, and makes room for itself."""
    cache = Cache(max_bytes=12_000)
    await stored(cache, b"a" * 3000)
    await stored(cache, b"b" * 3000, scope_of("/b"))
    found = (await opened(cache, scope_of("/b"))).hit
    assert found is not None
    before = cache.stats().bytes
    found.add_variant("br", b"x" * 1000)
    assert cache.stats().bytes == before + 1000
    found.add_variant("gzip", b"x" * 3000)
    assert (cache.stats().entries, cache.stats().evictions) == (1, 1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("default_timeout", -1),
        ("default_timeout", math.nan),
        ("default_timeout", True),
        ("default_timeout", "300"),
        ("max_bytes", 0),
        ("max_bytes", -1),
        ("max_bytes", 1.5),
        ("max_bytes", True),
        ("max_bytes", "64M"),
        ("max_bytes", None),
        ("max_variants", 0),
        ("max_variants", True),
        ("max_variants", 2.0),
        ("max_flights", 0),
        ("max_flights", -1),
        ("max_flights", None),
        ("show_status", 1),
        ("show_status", None),
        ("local_seconds", -1),
        ("local_seconds", math.inf),
        ("local_seconds", None),
        ("flight_deadline_seconds", math.nan),
        ("flight_deadline_seconds", "30"),
        ("store_deadline_seconds", -0.1),
        ("store_deadline_seconds", False),
        ("cache", 5),
    ],
)
def test_a_bad_setting_of_the_cache_is_named(setting: str, value: object) -> None:
    """When the cache is made."""
    bad: Any = {"store" if setting == "cache" else setting: value}
    with pytest.raises(InvalidSettingError) as caught:
        Cache(**bad)
    assert caught.value.setting == setting


def test_caches_and_stores_are_taken_as_caches() -> None:
    """A cache as itself; a store becomes the place behind a new one's memory."""
    cache = Cache()
    assert as_cache(cache) is cache
    assert repr(as_cache(SimpleCache())) == "Cache(SimpleCache and memory, 64 MiB)"
    assert repr(Cache(max_bytes=3 * 2**20)) == "Cache(memory, 3 MiB)"
    with pytest.raises(InvalidSettingError, match=r"^cache: "):
        as_cache("memory")


# A store that several caches share


class Connect(Protocol):
    """Makes a cachelib object for the same place each time, as each process would."""

    def __call__(self) -> BaseCache:
        """Returns one more."""
        ...

    def lose(self, name: str) -> None:
        """Takes a value away."""
        ...


class Folder:
    """A place on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> BaseCache:
        """Returns one more."""
        return FileSystemCache(str(self._path))

    def lose(self, name: str) -> None:
        """Removes the file."""
        (file,) = self._path.rglob(blake2b(name.encode(), digest_size=24).hexdigest())
        file.unlink()


class Server:
    """A real Redis server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.clients: list[redis.Redis] = []

    def __call__(self) -> BaseCache:
        """Returns one more."""
        self.clients.append(redis.Redis(port=self._port))
        return RedisCache(self.clients[-1])

    def lose(self, name: str) -> None:
        """Deletes the key."""
        with redis.Redis(port=self._port) as client:
            assert cast(Any, client).delete(name) == 1


@pytest.fixture(params=["files", "redis"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """A place that several processes share."""
    if request.param == "files":
        yield Folder(tmp_path / "cache")
        return
    server = Server(cast("RedisProcess", request.getfixturevalue("redis_server")).port)
    yield server
    for client in server.clients:
        client.close()


def raw_store(connect: Connect) -> Store:
    """Returns the store below the marks, as another program could use it."""
    store = as_store(connect())
    assert isinstance(store, MarkedStore)
    return store.store


def shared(connect: Connect, clock: Clock, **settings: Any) -> Cache:
    """Returns a cache as another process has it."""
    return Cache(connect(), clock=clock, store_deadline_seconds=10, **settings)


async def test_what_one_process_stores_is_a_hit_in_another(connect: Connect) -> None:
    """With all that belongs to it."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock)
    await stored(one, b"\x00\xff", headers=[(b"x-name", b"\xe9"), (b"cache-control", b"public")])
    await one.settle()
    clock.now += 10
    found = await opened(two, scope_of("/a", AUTHORIZATION))
    assert found.hit is not None
    assert (found.hit.body, found.hit.headers[0], found.age) == (b"\x00\xff", (b"x-name", b"\xe9"), 10)
    assert (two.stats().hits, two.stats().entries, two.stats().store_errors) == (1, 1, 0)


async def test_variants_by_request_fields_are_shared(connect: Connect) -> None:
    """The mark and both responses are found by another process."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock)
    await stored(one, b"de", language(b"de"), headers=VARY)
    await stored(one, b"fr", language(b"fr"), headers=VARY)
    await one.settle()
    assert await body_of(two, language(b"fr")) == b"fr"
    assert await body_of(two, language(b"de")) == b"de"
    assert await body_of(two, language(b"es")) is None


async def test_a_hot_hit_does_not_ask_the_store(connect: Connect) -> None:
    """Within ``local_seconds`` of the last look memory answers, even for what was evicted elsewhere."""
    clock = Clock()
    cache = shared(connect, clock, local_seconds=5)
    await stored(cache)
    clock.now += 5.1
    assert await body_of(cache) == b"x"
    await shared(connect, clock).evict(path_marks(scope_of()))
    clock.now += 4.9
    assert await body_of(cache) == b"x"
    clock.now += 0.2
    assert await body_of(cache) is None


async def test_what_the_store_has_lost_is_still_in_memory(connect: Connect) -> None:
    """It was not evicted, so it stands; who has it not in memory has it not at all."""
    clock = Clock()
    cache = shared(connect, clock)
    await stored(cache)
    connect.lose(name_of())
    clock.now += 5
    assert await body_of(cache) == b"x"
    assert await body_of(shared(connect, clock)) is None


async def test_clearing_in_one_process_is_seen_by_another(connect: Connect) -> None:
    """At the latest after ``local_seconds``; until then memory may answer."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock, local_seconds=2)
    await stored(one)
    assert await body_of(two) == b"x"
    clock.now += 0.5
    assert one.clear() is None
    assert await body_of(one) is None
    await one.settle()
    assert await body_of(one) is None
    assert await body_of(two) == b"x"
    clock.now += 2
    assert await body_of(two) is None
    await stored(two, b"new")
    await two.settle()
    clock.now += 3
    assert await body_of(one) == b"new"


async def test_nothing_cleared_comes_back_while_the_store_is_still_being_told(connect: Connect) -> None:
    """On a running loop the store is told in the background; this process knows at once."""
    clock = Clock()
    cache = shared(connect, clock)
    await stored(cache)
    cache.clear()
    assert await body_of(cache) is None
    await cache.settle()
    assert await body_of(shared(connect, clock)) is None


async def test_a_view_that_began_before_another_process_cleared_stores_nothing_for_others(
    connect: Connect,
) -> None:
    """It may have read what the clearing was for."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock)
    await stored(one, scope=scope_of("/other"))
    await one.settle()
    running = await opened(one)
    two.clear()
    await two.settle()
    offer(running, b"old")
    await one.settle()
    clock.now += 2
    assert await body_of(two) is None
    assert await body_of(one) is None


def test_clearing_from_a_script_without_a_loop(connect: Connect) -> None:
    """The store has been told when the call returns."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock)

    async def store() -> None:
        await stored(one)
        await one.settle()

    asyncio.run(store())
    assert two.clear() is None
    clock.now += 2
    assert asyncio.run(body_of(one)) is None
    assert asyncio.run(body_of(shared(connect, clock))) is None


async def test_clearing_from_another_process(tmp_path: Path, run_script: RunScript) -> None:
    """A plain script that has only the store in common."""
    clock, folder = Clock(), tmp_path / "cache"
    cache = shared(Folder(folder), clock)
    await stored(cache)
    clock.now += 2
    assert await body_of(cache) == b"x"
    script = "import sys\nfrom aeros import Cache\nfrom cachelib import FileSystemCache\n"
    done = run_script(f"{script}print(Cache(FileSystemCache(sys.argv[1])).clear())", str(folder))
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")
    clock.now += 2
    assert await body_of(cache) is None


async def test_variants_made_later_are_written_back(connect: Connect) -> None:
    """A coding is made once for all processes."""
    clock = Clock()
    one, two, three = (shared(connect, clock) for _ in range(3))
    await stored(one)
    found = (await opened(two)).hit
    assert found is not None
    found.add_variant("br", b"coded")
    await two.settle()
    shared_entry = (await opened(three)).hit
    assert shared_entry is not None
    assert shared_entry.variant("br") == b"coded"


async def test_a_variant_of_a_replaced_response_does_not_bring_it_back(connect: Connect) -> None:
    """A large body that was still being coded must not overwrite the newer response."""
    clock = Clock()
    cache = shared(connect, clock)
    await stored(cache, b"old")
    old = (await opened(cache)).hit
    assert old is not None
    offer(await opened(cache, update=True), b"new")
    await cache.settle()
    old.add_variant("br", b"coded old")
    await cache.settle()
    assert await body_of(shared(connect, clock)) == b"new"


async def test_a_variant_of_a_response_that_was_refused_is_not_shared(connect: Connect) -> None:
    """What was too large to be stored is in no store, coded or not."""
    clock = Clock()
    cache = shared(connect, clock, max_bytes=5000)
    await opened(cache, scope_of("/warm"))
    transaction = await opened(cache)
    proposed = offer(transaction, b"x" * 5000)
    assert transaction.status.detail == "too-large"
    assert proposed is not None
    proposed.add_variant("br", b"coded")
    await cache.settle()
    assert await body_of(shared(connect, clock)) is None


class SlowFirst:
    """A store whose first write to a name arrives only when it is let through."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.gate = asyncio.Event()
        self.seen: set[str] = set()

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values."""
        return [self.values.get(name) for name in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps the value, the first one late."""
        if not name.startswith((GENERATION, "aeros:1:mark:")) and name not in self.seen:
            self.seen.add(name)
            await self.gate.wait()
        self.values[name] = value


async def test_writes_to_one_name_arrive_in_their_order() -> None:
    """A slow write of an older response does not overwrite the newer one."""
    store = SlowFirst()
    cache = Cache(store, store_deadline_seconds=10)
    offer(await opened(cache), b"old")
    await turns()
    offer(await opened(cache, update=True), b"new")
    await turns()
    assert name_of() not in store.values
    store.gate.set()
    await cache.settle()
    assert await body_of(Cache(store, store_deadline_seconds=10)) == b"new"


async def warm_and_damage(connect: Connect, clock: Clock, data: bytes) -> Cache:
    """Stores a response and puts other bytes in its place; returns a cache that has not seen it."""
    cache = shared(connect, clock)
    await stored(cache)
    await raw_store(connect).set(name_of(), data, 100)
    return shared(connect, clock)


@pytest.mark.parametrize(
    "data", [b"\0", b"foreign", MAGIC, MAGIC + b"\0" * 100, b"AEROS\x01\r\n" + b"\0" * 100]
)
async def test_a_damaged_entry_is_a_counted_miss(connect: Connect, data: bytes) -> None:
    """Never an error, and the next response takes its place."""
    clock = Clock()
    cache = await warm_and_damage(connect, clock, data)
    await stored(cache, b"new")
    assert (cache.stats().damaged, cache.stats().store_errors) == (1, 0)
    await cache.settle()
    assert await body_of(shared(connect, clock)) == b"new"


async def test_nothing_at_all_stands_for_no_entry(connect: Connect) -> None:
    """It is what the cache itself writes over an entry that has to leave: no damage."""
    clock = Clock()
    cache = await warm_and_damage(connect, clock, b"")
    await stored(cache, b"new")
    assert cache.stats().damaged == 0


@pytest.mark.parametrize("change", ["key", "stamp", "generation", "lifetime", "mark"])
async def test_an_intact_entry_that_is_not_ours_is_a_miss(connect: Connect, change: str) -> None:
    """Of another key under the same short name, evicted or cleared, over, or a mark that leads nowhere."""
    clock = Clock()
    cache = await warm_and_damage(connect, clock, b"")
    stamp, _ = await as_store(connect()).read("", path_marks(scope_of()))
    generation, _, token = stamp.partition("|")
    planted = StoredResponse(
        key=b"other" if change == "key" else key_of(),
        status=200,
        headers=[],
        body=b"planted",
        etag="",
        stored_at=clock.now,
        lifetime=0.0 if change == "lifetime" else 60.0,
        stamp={"stamp": f"{generation}|other", "generation": f"other|{token}"}.get(change, stamp),
    )
    mark = VaryMark(key=key_of(), names=(b"x",), stored_at=clock.now, lifetime=60.0, stamp=stamp)
    store = raw_store(connect)
    await store.set(name_of(), encode_entry(mark if change == "mark" else planted), 60)
    assert await body_of(cache) is None
    assert cache.stats().damaged == 0
    # The same entry without the fault is taken, so it is the fault that made the difference.
    planted.key, planted.lifetime, planted.stamp = key_of(), 60.0, stamp
    await store.set(name_of(), encode_entry(planted), 60)
    clock.now += 2
    # A mark that a process has seen is not read again while it is fresh.
    for taker in [shared(connect, clock)] if change == "mark" else [shared(connect, clock), cache]:
        assert await body_of(taker) == b"planted"


async def test_a_variant_planted_under_anothers_name_is_a_miss(connect: Connect) -> None:
    """The full key in the entry decides, not the name in the store."""
    clock = Clock()
    cache = shared(connect, clock)
    await stored(cache, b"de", language(b"de"), headers=VARY)
    await cache.settle()
    names = [
        store_key(variant_key(key_of(), [b"accept-language"], [(b"accept-language", value)]), hashlib.md5)
        for value in (b"de", b"fr")
    ]
    store = raw_store(connect)
    german = (await store.get_many(names))[0]
    assert german is not None
    await store.set(names[1], german, 60)
    other = shared(connect, clock)
    assert await body_of(other, language(b"fr")) is None
    assert await body_of(other, language(b"de")) == b"de"


async def test_a_lost_generation_brings_nothing_back(connect: Connect) -> None:
    """When the store evicted it, what had been cleared before stays cleared."""
    clock = Clock()
    one = shared(connect, clock)
    await stored(one, b"old")
    await one.settle()
    clock.now += 1
    one.clear()
    await one.settle()
    connect.lose(GENERATION)
    two, three = shared(connect, clock), shared(connect, clock)
    assert await body_of(two) is None
    assert await body_of(three) is None
    clock.now += 5
    assert await body_of(one) is None
    await stored(two, b"new")
    await two.settle()
    clock.now += 5
    assert await body_of(three) == b"new"


async def test_two_processes_that_begin_at_once_agree(connect: Connect) -> None:
    """Both make a generation; after a moment they share what they store."""
    clock = Clock()
    one, two = shared(connect, clock), shared(connect, clock)
    await asyncio.gather(body_of(one), body_of(two))
    clock.now += 2
    await stored(one)
    assert await body_of(two) == b"x"


async def test_responses_are_not_written_without_a_lifetime_left(connect: Connect) -> None:
    """A store would keep them for a second more."""
    clock = Clock()
    cache = shared(connect, clock)
    transaction = await opened(cache)
    offer(transaction, headers=[(b"cache-control", b"max-age=5")])
    clock.now += 6
    await cache.settle()
    assert (await raw_store(connect).get_many([name_of()])) == [None]


async def test_clearing_leaves_the_keys_of_others_alone(redis_server: RedisProcess) -> None:
    """The same Redis database may hold the application's own data."""
    with redis.Redis(port=redis_server.port) as client:
        raw = cast(Any, client)
        mine = {f"aeros:mine:{number}": b"%d" % number for number in range(50)} | {"session:1": b"a"}
        for name, value in mine.items():
            raw.set(name, value)
        raw.rpush("list", "a", "b")
        cache = Cache(RedisCache(client), store_deadline_seconds=10)
        await stored(cache)
        await cache.settle()
        cache.clear()
        await cache.settle()
        assert await body_of(cache) is None
        assert {name: raw.get(name) for name in mine} == mine
        assert raw.lrange("list", 0, -1) == [b"a", b"b"]


async def test_a_store_that_is_gone_is_a_miss(redis_server: RedisProcess) -> None:
    """Requests are answered without it, from memory where that has been told lately."""
    clock = Clock()
    with redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as client:
        cache = Cache(RedisCache(client), clock=clock, store_deadline_seconds=5)
        await stored(cache)
        await cache.settle()
        redis_server.stop()
        assert await body_of(cache) == b"x"
        clock.now += 2
        transaction = await opened(cache)
        assert transaction.hit is None
        assert cache.stats().store_errors == 1
        offer(transaction, b"new")
        await cache.settle()
        assert await body_of(cache) == b"new"
        assert cache.clear() is None
        await cache.settle()
        assert await body_of(cache) is None


async def test_a_store_that_is_gone_from_the_beginning_is_a_miss(free_port: int) -> None:
    """The cache works in memory."""
    clock = Clock()
    with redis.Redis(port=free_port, retry=Retry(NoBackoff(), 0)) as client:
        cache = Cache(RedisCache(client), clock=clock, store_deadline_seconds=5)
        await stored(cache)
        await cache.settle()
        assert await body_of(cache) == b"x"
        assert cache.stats().store_errors >= 1


def test_clearing_without_a_loop_while_the_store_is_gone(free_port: int) -> None:
    """A script does not fail, and this process has forgotten."""
    with redis.Redis(port=free_port, retry=Retry(NoBackoff(), 0)) as client:
        cache = Cache(RedisCache(client), store_deadline_seconds=5)
        asyncio.run(stored(cache))
        assert cache.clear() is None
        assert cache.stats().entries == 0


def test_a_loop_may_end_while_the_store_is_being_told() -> None:
    """What was not written is lost, and nothing else: no warning, no error."""

    async def leave() -> None:
        cache = Cache(SlowFirst(), store_deadline_seconds=10)
        offer(await opened(cache), b"old")
        await turns()
        offer(await opened(cache, update=True), b"waits for its turn")
        await turns()
        offer(await opened(cache, update=True), b"not begun")

    asyncio.run(leave())
    gc.collect()
