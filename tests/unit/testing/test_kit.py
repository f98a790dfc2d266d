"""The clock, the store that fails, and what is said of a response."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from aeros import Cache, InvalidSettingError, WebServer
from aeros.testing import (
    CacheOutcome,
    Clock,
    FaultyStore,
    assert_cached,
    assert_not_cached,
    cache_outcome,
    clocked,
    override,
)


class Answer:
    """A response with one field."""

    def __init__(self, status: str | None) -> None:
        self.headers: Mapping[str, str] = {} if status is None else {"Cache-Status": status}


def shop(cache: Cache) -> WebServer:
    """Returns an application with a cached view that counts."""
    app = WebServer("shop", cache=cache)
    runs = 0

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        nonlocal runs
        runs += 1
        return str(runs)

    return app


async def get(app: WebServer) -> str:
    """Asks once."""
    return str(await (await app.test_client().get("/")).get_data(as_text=True))


# The clock


async def test_a_clock_moves_the_cache() -> None:
    """A response is fresh until its time is over, and not a moment longer."""
    clock = Clock(1_000_000.0)
    app = shop(Cache(clock=clock))
    assert await get(app) == "1"
    clock.advance(59)
    assert await get(app) == "1"
    clock.advance(timedelta(seconds=2))
    assert await get(app) == "2"


def test_a_clock_begins_now_and_stands_still() -> None:
    """Two looks at it are the same."""
    clock = Clock()
    assert abs(clock() - time.time()) < 60
    assert clock() == clock()


@pytest.mark.parametrize("by", [-1, math.nan, True, timedelta(seconds=-1)])
def test_a_clock_does_not_go_back(by: Any) -> None:
    """Nor by what is no duration."""
    with pytest.raises(InvalidSettingError, match="advance"):
        Clock().advance(by)


def test_a_clocked_cache_has_the_settings_of_the_other() -> None:
    """All but the store, which goes by its own time."""
    cache = Cache(
        FaultyStore(), default_timeout=7, max_bytes=1000, max_variants=3, flight_deadline_seconds=2.0
    )
    made = clocked(cache, Clock())
    for name in ("default_timeout", "max_bytes", "max_variants", "flight_deadline_seconds"):
        assert getattr(made, name) == getattr(cache, name)


# The store


async def test_a_store_keeps_what_it_is_given() -> None:
    """As long as nothing else is asked for."""
    store = FaultyStore()
    await store.set("a", b"1", 60)
    await store.set("b", b"2", 0)
    assert await store.get_many(["a", "b", "c"]) == [b"1", None, None]


async def test_a_response_is_shared_until_the_store_is_down() -> None:
    """Then each cache makes its own, and nobody gets an error."""
    store = FaultyStore()
    app, other = shop(Cache(store)), shop(Cache(store, local_seconds=0))
    assert await get(app) == "1"
    await app.container.cache().settle()
    assert cache_outcome(await other.test_client().get("/")) is not None
    store.is_down = True
    with override(other.container.cache, Cache(store)):
        response = await other.test_client().get("/")
    assert response.status_code == 200
    with pytest.raises(ConnectionError, match="as a test has asked for"):
        await store.get_many(["a"])


async def test_what_a_corrupt_store_says_is_a_miss() -> None:
    """One bit is enough, and it is counted."""
    store = FaultyStore()
    first = shop(Cache(store))
    await get(first)
    await first.container.cache().settle()
    store.is_corrupt = True
    cache = Cache(store)
    second = shop(cache)
    response = await second.test_client().get("/")
    assert response.status_code == 200
    assert_stored(response)
    assert cache.stats().damaged >= 1


async def test_a_slow_store_is_waited_for_until_its_deadline() -> None:
    """No response is as slow as the store."""
    store = FaultyStore()
    store.delay_seconds = 30.0
    cache = Cache(store, store_deadline_seconds=0.01)
    assert await get(shop(cache)) == "1"
    assert cache.stats().store_errors >= 1
    assert store.calls >= 1


def assert_stored(response: Any) -> None:
    """Fails unless the response says that it was stored."""
    outcome = cache_outcome(response)
    assert outcome is not None
    assert outcome.is_stored


# What is said of a response


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("aeros; hit; ttl=58", (True, False, None)),
        ("aeros; hit; ttl=-3; detail=stale-if-error", (True, False, "stale-if-error")),
        ("aeros; fwd=miss; stored", (False, True, "miss")),
        ("aeros; fwd=miss; collapsed; ttl=60", (True, False, "miss")),
        ("aeros; fwd=bypass; detail=set-cookie", (False, False, "set-cookie")),
        ('aeros; fwd=miss; detail="odd reason"', (False, False, "odd reason")),
    ],
)
def test_cache_status_is_read(status: str, outcome: tuple[bool, bool, str | None]) -> None:
    """Every form in which aeros writes it."""
    assert cache_outcome(Answer(status)) == CacheOutcome(*outcome, text=status)


def test_assertions_hold_where_they_should() -> None:
    """And say what was done where they do not."""
    hit, stored, kept_out = (
        Answer("aeros; hit"),
        Answer("aeros; fwd=miss; stored"),
        Answer("aeros; fwd=bypass; detail=session"),
    )
    assert_cached(hit)
    assert_not_cached(kept_out)
    assert_not_cached(kept_out, reason="session")
    for response in (stored, kept_out):
        with pytest.raises(AssertionError, match="did not come from the cache: aeros; fwd="):
            assert_cached(response)
    with pytest.raises(AssertionError, match="came from the cache: aeros; hit"):
        assert_not_cached(hit)
    with pytest.raises(AssertionError, match="was stored in the cache"):
        assert_not_cached(stored)
    with pytest.raises(AssertionError, match="because of 'session', not 'private'"):
        assert_not_cached(kept_out, reason="private")


@pytest.mark.parametrize("check", [assert_cached, assert_not_cached])
def test_a_response_that_says_nothing_is_no_proof(check: Any) -> None:
    """A route that lost its decorator must not pass for one that is not cached."""
    assert cache_outcome(Answer(None)) is None
    with pytest.raises(AssertionError, match="says nothing of the cache"):
        check(Answer(None))
