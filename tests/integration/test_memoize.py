"""Memoized functions: what they return is computed once, kept by their arguments, and never mixed up."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import redis
from cachelib import RedisCache, SimpleCache
from dependency_injector import providers
from quart import request

from aeros import (
    Cache,
    CacheStats,
    Container,
    InvalidSettingError,
    Memoized,
    Serializer,
    TypedSerializer,
    UncacheableArgumentError,
    UnserializableError,
    WebServer,
    inject,
)
from aeros.caching.entry import StoredValue, decode_entry, encode_entry
from aeros.caching.memoize import MemoizingDecorator
from aeros.testing import override

if TYPE_CHECKING:
    from tests.conftest import RedisProcess, RunScript

PATIENCE = 20.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Returns seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The time of the cache."""
    return Clock()


@pytest.fixture
def app(clock: Clock) -> WebServer:
    """An application whose cache goes by the clock."""
    return WebServer(__name__, cache=Cache(clock=clock))


class Gate:
    """Holds functions until the test opens it."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._reached = asyncio.Semaphore(0)

    async def __call__(self) -> None:
        """Waits within a function."""
        self._reached.release()
        await self._opened.wait()

    async def reached(self) -> None:
        """Waits until one more function has come to the gate."""
        async with asyncio.timeout(PATIENCE):
            await self._reached.acquire()

    def open(self) -> None:
        """Lets all through, from now on."""
        self._opened.set()


async def turns(number: int = 20) -> None:
    """Lets all that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


def counted(stats: CacheStats, *names: str) -> tuple[int, ...]:
    """Returns some of the counters."""
    return tuple(getattr(stats, name) for name in names)


def squares(app: WebServer, **options: Any) -> tuple[Memoized[[int], int], list[int]]:
    """Returns a memoized function, and the arguments that it was run with."""
    runs: list[int] = []

    async def square(number: int) -> int:
        runs.append(number)
        return number * number

    # Of overloads a checker does not choose one by options that it does not know.
    decorator = cast(MemoizingDecorator, app.memoize(**options))
    return decorator(square), runs


# Calls and keys


async def test_a_value_is_computed_once_for_its_arguments(app: WebServer) -> None:
    """The second call with them does not run the function; another argument does."""
    square, runs = squares(app)
    assert [await square(3), await square(3), await square(4)] == [9, 9, 16]
    assert runs == [3, 4]


async def test_calls_that_mean_the_same_share_a_value(app: WebServer) -> None:
    """Positional, by name, with a default filled in, in another order: one call."""
    numbers = count(1)

    @app.memoize()
    async def rate(base: str, target: str = "EUR", *, day: int = 0) -> str:
        return f"{base}/{target}/{day} {next(numbers)}"

    assert await rate("USD") == "USD/EUR/0 1"
    assert await rate(base="USD") == "USD/EUR/0 1"
    assert await rate("USD", "EUR", day=0) == "USD/EUR/0 1"
    assert await rate(day=0, target="EUR", base="USD") == "USD/EUR/0 1"
    assert await rate("USD", day=1) == "USD/EUR/1 2"


async def test_equal_values_of_different_types_are_different_calls(app: WebServer) -> None:
    """What Python takes for equal may still give another result."""
    runs: list[object] = []

    @app.memoize()
    async def described(value: object) -> str:
        runs.append(value)
        return repr(value)

    values: list[object] = [1, True, 1.0, "1", Decimal(1), b"1", (1,), [1], {1}, None, ""]
    for _ in range(2):
        for value in values:
            assert await described(value) == repr(value)
    assert len(runs) == len(values)


async def test_functions_do_not_share_values(app: WebServer) -> None:
    """The same argument of two functions is two keys."""

    @app.memoize()
    async def first(number: int) -> str:
        return f"first {number}"

    @app.memoize()
    async def second(number: int) -> str:
        return f"second {number}"

    for _ in range(2):
        assert (await first(1), await second(1)) == ("first 1", "second 1")


async def test_the_function_is_told_apart_by_nothing_else(app: WebServer) -> None:
    """Its name and its text stay what they were, so documentation and logs do."""

    async def square(number: int) -> int:
        """Squares it."""
        return number * number

    memoized = app.memoize()(square)
    assert (memoized.__doc__, vars(memoized)["__name__"]) == ("Squares it.", "square")
    assert vars(memoized)["__wrapped__"] is square


async def test_a_call_that_python_would_refuse_is_refused(app: WebServer) -> None:
    """A missing or unknown argument is the usual TypeError, and nothing is counted."""
    square, runs = squares(app)
    wrong = cast("Callable[..., Awaitable[int]]", square)
    with pytest.raises(TypeError, match="square"):
        await wrong()
    with pytest.raises(TypeError, match="square"):
        await wrong(1, 2)
    with pytest.raises(TypeError, match="square"):
        await wrong(nubmer=1)
    assert runs == []
    assert counted(app.cache_stats(), "misses", "hits") == (0, 0)


class Session:
    """Something that no key can be made of."""


def lowered(word: str, _session: Session) -> str:
    """Returns what two calls have in common."""
    return word.lower()


def itself(text: str) -> str:
    """Returns the argument."""
    return text


async def test_an_argument_without_a_key_is_an_error_that_names_it(app: WebServer) -> None:
    """Neither the function nor the cache is asked: no guess is made."""
    runs: list[int] = []

    @app.memoize()
    async def rows(session: Session, limit: int) -> int:
        runs.append(limit)
        return limit

    with pytest.raises(UncacheableArgumentError) as error:
        await rows(Session(), 5)
    assert error.value.parameter == "session"
    assert error.value.kind.endswith("Session")
    assert error.value.function.endswith("rows")
    assert "key=" in str(error.value)
    assert "ignored=" in str(error.value)
    with pytest.raises(UncacheableArgumentError):
        await rows.evict(Session(), 5)
    assert runs == []
    assert counted(app.cache_stats(), "misses", "hits", "stores") == (0, 0, 0)


async def test_ignored_parameters_are_no_part_of_the_key(app: WebServer) -> None:
    """Not their values, and not their types."""
    runs: list[int] = []

    @app.memoize(ignored=("session",))
    async def rows(session: Session | None, limit: int) -> int:
        runs.append(limit)
        return limit

    assert await rows(Session(), 5) == await rows(Session(), 5) == await rows(None, 5) == 5
    assert await rows(None, 6) == 6
    assert runs == [5, 6]
    assert await rows.evict(Session(), 5) == 1


async def test_a_key_of_one_s_own_decides(app: WebServer) -> None:
    """It is asked with the arguments, and what it says is the whole key of this function."""
    runs: list[str] = []

    @app.memoize(key=lowered)
    async def looked_up(word: str, session: Session) -> str:
        runs.append(word)
        return f"looked up {word}"

    assert await looked_up("Word", Session()) == "looked up Word"
    assert await looked_up("WORD", Session()) == "looked up Word"
    assert await looked_up("other", Session()) == "looked up other"
    assert runs == ["Word", "other"]
    assert await looked_up.evict("wORD", Session()) == 1
    assert await looked_up("WORD", Session()) == "looked up WORD"


async def test_a_key_of_one_s_own_meets_no_key_of_arguments(app: WebServer) -> None:
    """Two decorators around one function keep apart what they made of the same call."""
    numbers = count(1)

    async def number(text: str) -> int:
        return next(numbers)

    by_argument = app.memoize()(number)
    by_key = app.memoize(key=itself)(number)
    assert await by_argument("a") == 1
    assert await by_key("a") == 2
    assert (await by_argument("a"), await by_key("a")) == (1, 2)


async def not_async_at_all() -> None:
    """Only its siblings are wrong."""


def not_async(number: int) -> int:
    """A function without async."""
    return number


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"timeout": -1}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"stale_while_revalidate": float("nan")}, "stale_while_revalidate"),
        ({"stale_if_error": -1}, "stale_if_error"),
        ({"key": "name"}, "key"),
        ({"tags": 5}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"ignored": ("session",)}, "memoize(ignored=)"),
        ({"ignored": "number"}, "memoize(ignored=)"),
    ],
)
def test_bad_options_are_errors_at_decoration(app: WebServer, options: dict[str, Any], setting: str) -> None:
    """The error names the option, before anything is called."""

    async def square(number: int) -> int:
        return number * number

    with pytest.raises(InvalidSettingError) as error:
        app.memoize(**options)(square)
    assert error.value.setting == setting


@pytest.mark.parametrize("function", [not_async, 5, len], ids=["sync", "number", "builtin"])
def test_only_async_functions_are_memoized(app: WebServer, function: object) -> None:
    """Another thing is an error at decoration, also where the parentheses were forgotten."""
    with pytest.raises(InvalidSettingError, match="async"):
        app.memoize()(cast(Any, function))


def test_a_decorator_without_its_parentheses_is_an_error(app: WebServer) -> None:
    """The function would be taken for the lifetime."""
    with pytest.raises(InvalidSettingError, match="timeout"):
        app.memoize(cast(Any, not_async_at_all))


# Lifetimes


@pytest.mark.parametrize("lifetime", [60, 60.0, timedelta(minutes=1)])
async def test_a_value_is_used_until_its_lifetime_is_over(
    app: WebServer, clock: Clock, lifetime: float | timedelta
) -> None:
    """At the last moment it is, at the next the function runs."""
    square, runs = squares(app, timeout=lifetime)
    await square(3)
    clock.now += 59.9
    await square(3)
    assert runs == [3]
    clock.now += 0.1
    await square(3)
    assert runs == [3, 3]


async def test_without_a_lifetime_of_its_own_the_cache_s_counts(clock: Clock) -> None:
    """The default of the cache, or nothing is kept where it has none."""
    app = WebServer(__name__, cache=Cache(default_timeout=10, clock=clock))
    square, runs = squares(app)
    await square(3)
    clock.now += 9.9
    await square(3)
    clock.now += 0.1
    await square(3)
    assert runs == [3, 3]


@pytest.mark.parametrize("lifetime", [None, 0])
async def test_without_any_lifetime_nothing_is_kept(clock: Clock, lifetime: int | None) -> None:
    """The function runs each time, and the reason is counted."""
    app = WebServer(__name__, cache=Cache(default_timeout=None, clock=clock))
    square, runs = squares(app, timeout=lifetime)
    assert [await square(3), await square(3)] == [9, 9]
    assert runs == [3, 3]
    stats = app.cache_stats()
    assert (stats.bypasses, stats.stores, stats.entries) == ({"no-lifetime": 2}, 0, 0)


async def test_a_value_larger_than_the_cache_is_returned_and_not_kept() -> None:
    """The reason is counted."""
    app = WebServer(__name__, cache=Cache(max_bytes=10_000))
    runs: list[int] = []

    @app.memoize()
    async def text(size: int) -> str:
        runs.append(size)
        return "x" * size

    assert await text(100) == await text(100) == "x" * 100
    assert await text(20_000) == await text(20_000) == "x" * 20_000
    assert runs == [100, 20_000, 20_000]
    assert app.cache_stats().bypasses == {"too-large": 2}


# Single flight


async def test_1000_simultaneous_calls_compute_once(app: WebServer) -> None:
    """All get the value of the one computation; the counters tell."""
    gate = Gate()
    numbers = count(1)

    @app.memoize()
    async def report(year: int) -> str:
        await gate()
        return f"{year}: {next(numbers)}"

    calls = [asyncio.create_task(report(2024)) for _ in range(1000)]
    await gate.reached()
    await turns()
    gate.open()
    assert set(await asyncio.gather(*calls)) == {"2024: 1"}
    assert next(numbers) == 2
    stats = app.cache_stats()
    assert counted(stats, "misses", "collapsed", "stores", "hits", "entries") == (1, 999, 1, 0, 1)
    assert await report(2024) == "2024: 1"
    assert app.cache_stats().hits == 1


async def test_calls_with_other_arguments_do_not_wait(app: WebServer) -> None:
    """A slow computation holds nobody else up."""
    gate = Gate()

    @app.memoize()
    async def report(year: int) -> int:
        if year == 2024:
            await gate()
        return year

    slow = asyncio.create_task(report(2024))
    await gate.reached()
    async with asyncio.timeout(PATIENCE):
        assert await report(2025) == 2025
    assert not slow.done()
    gate.open()
    assert await slow == 2024


async def test_a_cancelled_caller_does_not_cancel_the_computation(app: WebServer) -> None:
    """Whoever asked first may leave: the others get the value, and it is kept."""
    gate = Gate()
    numbers = count(1)

    @app.memoize()
    async def report() -> int:
        number = next(numbers)
        await gate()
        return number

    first = asyncio.create_task(report())
    await gate.reached()
    others = [asyncio.create_task(report()) for _ in range(10)]
    await turns()
    first.cancel()
    others[0].cancel()
    for left in (first, others[0]):
        with pytest.raises(asyncio.CancelledError):
            await left
    assert not others[1].done()
    gate.open()
    assert await asyncio.gather(*others[1:]) == [1] * 9
    assert await report() == 1
    assert next(numbers) == 2


async def test_a_caller_that_was_alone_and_left_finds_the_value_later(app: WebServer) -> None:
    """What was begun is finished, as where the caller's patience is over."""
    gate = Gate()
    numbers = count(1)

    @app.memoize()
    async def report() -> int:
        await gate()
        return next(numbers)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await report()
    gate.open()
    await turns()
    assert await report() == 1
    assert app.cache_stats().hits == 1


async def test_an_error_nobody_waits_for_is_not_logged_as_lost(
    app: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller had left; asyncio has nothing to complain of, and the next call tries again."""
    gate = Gate()

    @app.memoize()
    async def report() -> int:
        await gate()
        raise RuntimeError("it failed")

    call = asyncio.create_task(report())
    await gate.reached()
    call.cancel()
    gate.open()
    await turns()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
    with pytest.raises(RuntimeError, match="it failed"):
        await report()


async def test_an_error_goes_to_all_who_wait_and_is_not_kept(app: WebServer) -> None:
    """Of 1,000 calls one runs the function, each gets its error, and the next call tries again."""
    gate = Gate()
    runs = 0

    @app.memoize()
    async def report() -> str:
        nonlocal runs
        runs += 1
        await gate()
        if runs == 1:
            raise RuntimeError("the database is away")
        return "report"

    calls = [asyncio.create_task(report()) for _ in range(1000)]
    await gate.reached()
    await turns()
    gate.open()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {(type(outcome), str(outcome)) for outcome in outcomes} == {(RuntimeError, "the database is away")}
    assert runs == 1
    stats = app.cache_stats()
    assert counted(stats, "misses", "collapsed", "stores", "entries") == (1, 999, 0, 0)
    assert await report() == "report"
    assert runs == 2


async def test_an_error_shows_where_it_came_from_once(app: WebServer) -> None:
    """Its traceback has the function's own line, and not the places of all others who were told."""
    gate = Gate()

    @app.memoize()
    async def report() -> None:
        await gate()
        raise RuntimeError("the database is away")

    calls = [asyncio.create_task(report()) for _ in range(200)]
    await gate.reached()
    await turns()
    gate.open()
    await asyncio.wait(calls)
    error = calls[-1].exception()
    assert isinstance(error, RuntimeError)
    lines = traceback.format_tb(error.__traceback__)
    assert sum("the database is away" in line for line in lines) == 1
    assert len(lines) < 20


async def test_nobody_waits_longer_than_the_deadline() -> None:
    """Past it a call computes for itself, while the slow one goes on."""
    app = WebServer(__name__, cache=Cache(flight_deadline_seconds=0.05))
    gate = Gate()
    numbers = count(1)

    @app.memoize()
    async def report() -> int:
        number = next(numbers)
        if number == 1:
            await gate()
        return number

    slow = asyncio.create_task(report())
    await gate.reached()
    async with asyncio.timeout(PATIENCE):
        assert await report() == 2
    assert not slow.done()
    gate.open()
    assert await slow == 1


async def test_with_too_many_computations_each_call_runs_its_own() -> None:
    """The values are right all the same; only nobody shares them meanwhile."""
    app = WebServer(__name__, cache=Cache(max_flights=1))
    gate = Gate()
    runs: list[int] = []

    @app.memoize()
    async def report(year: int) -> int:
        runs.append(year)
        await gate()
        return year

    calls = [asyncio.create_task(report(year)) for year in (2023, 2024, 2023, 2024)]
    await turns()
    gate.open()
    assert await asyncio.gather(*calls) == [2023, 2024, 2023, 2024]
    assert sorted(runs) == [2023, 2024, 2024]


# Stale values


async def test_a_stale_value_is_used_at_once_while_one_call_is_computed(app: WebServer, clock: Clock) -> None:
    """100 calls get it without waiting; the function runs once more, in the background."""
    gate = Gate()
    numbers = count(1)

    @app.memoize(timeout=60, stale_while_revalidate=30)
    async def report() -> int:
        number = next(numbers)
        if number == 2:
            await gate()
        return number

    assert await report() == 1
    clock.now += 89
    async with asyncio.timeout(PATIENCE):
        assert [await report() for _ in range(100)] == [1] * 100
    await gate.reached()
    assert counted(app.cache_stats(), "stale", "refreshes", "hits") == (100, 1, 0)
    gate.open()
    await turns()
    assert await report() == 2
    assert next(numbers) == 3


async def test_past_its_stale_window_a_value_is_computed_anew(app: WebServer, clock: Clock) -> None:
    """The caller waits for the new one."""
    square, runs = squares(app, timeout=60, stale_while_revalidate=30)
    await square(3)
    clock.now += 90.1
    await square(3)
    assert runs == [3, 3]
    assert counted(app.cache_stats(), "stale", "refreshes", "misses") == (0, 0, 2)


async def test_a_refresh_that_fails_keeps_the_stale_value_and_waits(app: WebServer, clock: Clock) -> None:
    """Its error is nobody's; the next try does not follow at once."""
    runs = 0

    @app.memoize(timeout=60, stale_while_revalidate=600)
    async def report() -> int:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise RuntimeError("the database is away")
        return runs

    assert await report() == 1
    clock.now += 61
    for _ in range(20):
        assert await report() == 1
        await turns(5)
    assert runs == 2
    stats = app.cache_stats()
    assert counted(stats, "stale", "refreshes", "refresh_failures") == (20, 1, 1)


async def test_a_stale_value_is_used_instead_of_an_error_within_its_window(
    app: WebServer, clock: Clock
) -> None:
    """It must be computed first, and only where that fails is the old one used; past the window not."""
    runs = 0
    is_away = False

    @app.memoize(timeout=60, stale_if_error=300)
    async def report() -> int:
        nonlocal runs
        runs += 1
        if is_away:
            raise RuntimeError("the database is away")
        return runs

    assert await report() == 1
    clock.now += 61
    assert await report() == 2
    is_away = True
    clock.now += 61
    assert await report() == 2
    assert runs == 3
    # Not asked again at once.
    assert await report() == 2
    assert runs == 3
    assert app.cache_stats().stale == 2
    clock.now += 300
    with pytest.raises(RuntimeError, match="away"):
        await report()
    assert runs == 4


async def test_all_who_wait_get_the_stale_value_instead_of_the_error(app: WebServer, clock: Clock) -> None:
    """Not only the caller that led."""
    gate = Gate()
    runs = 0

    @app.memoize(timeout=60, stale_if_error=300)
    async def report() -> int:
        nonlocal runs
        runs += 1
        if runs > 1:
            await gate()
            raise RuntimeError("the database is away")
        return runs

    assert await report() == 1
    clock.now += 61
    calls = [asyncio.create_task(report()) for _ in range(50)]
    await gate.reached()
    await turns()
    gate.open()
    assert await asyncio.gather(*calls) == [1] * 50
    assert runs == 2
    assert app.cache_stats().stale == 50


async def test_a_value_that_can_not_be_kept_counts_as_an_error(app: WebServer, clock: Clock) -> None:
    """The stale one is used instead of it while it may be, and then the program is told."""
    runs = 0

    @app.memoize(timeout=60, stale_if_error=300)
    async def report() -> Any:
        nonlocal runs
        runs += 1
        return [runs] if runs == 1 else (runs,)

    assert await report() == [1]
    clock.now += 61
    assert await report() == [1]
    clock.now += 301
    with pytest.raises(UnserializableError):
        await report()


# Evicting


async def test_one_call_is_evicted_by_its_arguments(app: WebServer) -> None:
    """However they are written; other calls stay."""
    runs: list[int] = []

    @app.memoize()
    async def square(number: int) -> int:
        runs.append(number)
        return number * number

    await square(3)
    await square(4)
    assert await square.evict(number=3) == 1
    assert await square.evict(3) == 0
    assert [await square(3), await square(4)] == [9, 16]
    assert runs == [3, 4, 3]


async def test_all_calls_of_a_function_are_evicted(app: WebServer) -> None:
    """And those of no other function."""
    square, runs = squares(app)
    other_runs: list[int] = []

    @app.memoize()
    async def other(number: int) -> int:
        other_runs.append(number)
        return number

    for number in range(5):
        await square(number)
        await other(number)
    assert await square.evict_all() == 5
    for number in range(5):
        await square(number)
        await other(number)
    assert runs == [*range(5), *range(5)]
    assert other_runs == [*range(5)]


def tags_of_day(base: str, day: int) -> list[str]:
    """Returns what a rate of one day can be evicted by."""
    return ["rates", f"base:{base}", f"day:{day}"]


async def test_values_are_evicted_by_tag(app: WebServer) -> None:
    """By one that all have, by one that the arguments give, and from a thread without a loop."""
    runs: list[tuple[str, int]] = []

    @app.memoize(tags="rates")
    async def rate(base: str) -> str:
        runs.append((base, 0))
        return base

    @app.memoize(tags=tags_of_day)
    async def history(base: str, day: int) -> str:
        runs.append((base, day))
        return base

    async def call_all() -> None:
        await rate("USD")
        await history("USD", 1)
        await history("USD", 2)
        await history("CHF", 2)

    await call_all()
    assert await app.evict(tags="base:USD") == 2
    runs.clear()
    await call_all()
    assert runs == [("USD", 1), ("USD", 2)]
    assert await app.evict(tags=["day:2", "base:CHF"]) == 2
    assert await app.evict(tags="rates") == 2
    await call_all()
    assert await asyncio.to_thread(app.clear_cache, tags="rates") == 4
    await call_all()
    assert await app.evict(everything=True) == 4
    assert app.cache_stats().evicted == 14


async def test_a_path_is_no_tag_of_values(app: WebServer) -> None:
    """Evicting responses by path leaves what functions returned."""
    square, runs = squares(app, tags="/square")
    await square(3)
    assert await app.evict(path="/square") == 0
    await square(3)
    assert runs == [3]


async def test_what_was_evicted_while_it_was_computed_is_not_kept(app: WebServer) -> None:
    """It was made from what is out of date; who asks after the eviction gets a newer one."""
    gate = Gate()
    row = "old"
    runs: list[str] = []

    @app.memoize(tags="rows")
    async def read() -> str:
        found = row
        runs.append(found)
        if len(runs) == 1:
            await gate()
        return found

    before = asyncio.create_task(read())
    await gate.reached()
    row = "new"
    assert await app.evict(tags="rows") == 0
    after = [asyncio.create_task(read()) for _ in range(10)]
    await turns()
    gate.open()
    assert await asyncio.gather(*after) == ["new"] * 10
    assert await before == "old"
    assert await read() == "new"
    assert runs == ["old", "new"]
    assert app.cache_stats().bypasses == {"evicted": 1}


@pytest.mark.parametrize("evict", ["evict", "evict_all", "everything"])
async def test_each_way_of_evicting_reaches_a_computation_under_way(app: WebServer, evict: str) -> None:
    """By its arguments, by its function, and with everything else."""
    gate = Gate()
    numbers = count(1)

    @app.memoize()
    async def read(row: int) -> int:
        number = next(numbers)
        await gate()
        return number

    call = asyncio.create_task(read(5))
    await gate.reached()
    if evict == "evict":
        await read.evict(5)
    elif evict == "evict_all":
        await read.evict_all()
    else:
        app.clear_cache()
    gate.open()
    assert await call == 1
    assert await read(5) == 2


# Values


@dataclass(frozen=True)
class Price:
    """What a shop's function returns."""

    amount: Decimal
    currency: str
    tags: tuple[str, ...] = ()


REFUSED: list[tuple[object, str]] = [
    ((1, 2), "value"),
    ({"rows": [1, (2,)]}, 'value["rows"][1]'),
    ({1: "one"}, "value"),
    ({"a": {None: 1}}, 'value["a"]'),
    (float("nan"), "value"),
    ([0.0, float("inf")], "value[1]"),
    ({1, 2}, "value"),
    (b"bytes", "value"),
    (Price(Decimal(1), "EUR"), "value"),
    (Decimal("0.1"), "value"),
    ("\ud800", "value"),
]


@pytest.mark.parametrize(("value", "path"), REFUSED, ids=[repr(value)[:30] for value, _ in REFUSED])
async def test_a_value_that_json_would_change_is_an_error_from_the_first_call(
    app: WebServer, value: object, path: str
) -> None:
    """Not at the first hit: the error says where in the value, and nothing is kept."""
    runs = 0

    @app.memoize()
    async def found() -> Any:
        nonlocal runs
        runs += 1
        return value

    for _ in range(2):
        with pytest.raises(UnserializableError) as error:
            await found()
        assert error.value.path == path
        assert "serializer=" in str(error.value)
    assert runs == 2
    assert app.cache_stats().entries == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(2**70),
        1.5,
        -0.0,
        1e300,
        "",
        "é\x00\u2028\U0001f600",
        [],
        {},
        [[], {"a": [None]}],
    ],
)
async def test_what_json_has_comes_back_equal_and_of_the_same_type(app: WebServer, value: object) -> None:
    """Also None, which is a value like any other."""
    runs = 0

    @app.memoize()
    async def found() -> Any:
        nonlocal runs
        runs += 1
        return value

    for _ in range(2):
        result = await found()
        assert (result, type(result), repr(result)) == (value, type(value), repr(value))
    assert runs == 1


async def test_nobody_changes_another_one_s_value(app: WebServer) -> None:
    """Not the caller that led, not those who waited, not those who came later."""
    gate = Gate()

    @app.memoize()
    async def rows() -> list[dict[str, int]]:
        await gate()
        return [{"a": 1}]

    calls = [asyncio.create_task(rows()) for _ in range(5)]
    await gate.reached()
    await turns()
    gate.open()
    found = await asyncio.gather(*calls)
    for mine in found:
        assert mine == [{"a": 1}]
        mine[0]["a"] = 2
        mine.append({})
    later = await rows()
    later.clear()
    assert await rows() == [{"a": 1}]


async def test_nobody_changes_a_stale_value_either(app: WebServer, clock: Clock) -> None:
    """A value used instead of an error is a copy as well."""
    runs = 0

    @app.memoize(timeout=60, stale_if_error=600)
    async def rows() -> list[int]:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise RuntimeError("away")
        return [1]

    await rows()
    clock.now += 61
    (await rows()).append(2)
    (await rows()).append(3)
    assert await rows() == [1]


@pytest.mark.parametrize("form", ["msgpack", "json"])
async def test_a_typed_serializer_brings_back_what_its_type_says(app: WebServer, form: Any) -> None:
    """Dataclasses, tuples and decimals too; each caller has its own."""
    runs = 0

    @app.memoize(serializer=TypedSerializer(list[Price], format=form))
    async def prices() -> list[Price]:
        nonlocal runs
        runs += 1
        return [Price(Decimal("9.90"), "EUR", ("new", "red"))]

    first, second = await prices(), await prices()
    assert first == second == [Price(Decimal("9.90"), "EUR", ("new", "red"))]
    assert isinstance(second[0].amount, Decimal)
    assert first is not second
    assert runs == 1


async def test_a_typed_serializer_refuses_another_type(app: WebServer) -> None:
    """A value that no hit could bring back is an error at once, whatever the annotation says."""

    @app.memoize(serializer=TypedSerializer(list[Price]))
    async def prices() -> list[Price]:
        wrong: Any = [{"amount": "no number", "currency": 5}]
        return cast(list[Price], wrong)

    with pytest.raises(UnserializableError):
        await prices()
    assert app.cache_stats().entries == 0


class Upper:
    """A serializer of the application's own: the protocol asks for no base class."""

    name = "upper"

    def dumps(self, value: str) -> bytes:
        """Returns it in capitals."""
        return value.upper().encode()

    def loads(self, data: bytes) -> str:
        """Returns what was written; ValueError for what was not."""
        return data.decode()


async def test_a_serializer_of_one_s_own_is_asked_both_ways(app: WebServer) -> None:
    """The first caller, too, gets what was read from what was written."""
    serializer: Serializer[str] = Upper()

    @app.memoize(serializer=serializer)
    async def greeting() -> str:
        return "hello"

    assert [await greeting(), await greeting()] == ["HELLO", "HELLO"]


# Shared stores

SCRIPT = """
import asyncio, json, sys
from aeros import Cache, WebServer
{imports}

cache = Cache({store}, store_deadline_seconds=5)
app = WebServer(__name__, cache=cache)
runs = []

@app.memoize(timeout=60, tags="prices")
async def price(name: str) -> list[str]:
    runs.append(name)
    await asyncio.sleep({pause})
    return [name, sys.argv[1]]

async def main():
    value = await price("tea")
    if "evict" in sys.argv:
        await app.evict(tags="prices")
    await cache.close()
    print(json.dumps([value, len(runs)]))

asyncio.run(main())
"""

STORES = {
    "cachelib": ("from cachelib import RedisCache", 'RedisCache(port={port}, key_prefix="shop:")'),
    "redis": ("from aeros import RedisStore", 'RedisStore.from_url("redis://127.0.0.1:{port}/0")'),
}


@pytest.fixture(params=sorted(STORES))
def script(request: pytest.FixtureRequest, redis_server: RedisProcess) -> str:
    """A program that asks for a price, and prints it with how often it was computed."""
    imports, store = STORES[request.param]
    return SCRIPT.replace("{imports}", imports).replace("{store}", store.format(port=redis_server.port))


def printed(output: str) -> tuple[list[str], int]:
    """Returns what the program found, and how often it computed."""
    value, runs = json.loads(output)
    return value, runs


def test_a_value_of_another_process_is_found(script: str, run_script: RunScript) -> None:
    """The second process runs nothing; once the value was evicted the next one does."""
    script = script.replace("{pause}", "0")
    outcomes: list[tuple[list[str], int]] = []
    for arguments in (["first"], ["second"], ["third", "evict"], ["fourth"]):
        done = run_script(script, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        outcomes.append(printed(done.stdout))
    assert outcomes == [
        (["tea", "first"], 1),
        (["tea", "first"], 0),
        (["tea", "first"], 0),
        (["tea", "fourth"], 1),
    ]


def value_names(client: Any) -> list[bytes]:
    """Returns the names of the values in Redis, without those of marks and generations."""
    names: list[bytes] = client.keys("shop:aeros:1:*")
    return [name for name in names if b"mark" not in name and b"generation" not in name]


def shared_square(server: RedisProcess) -> tuple[WebServer, Memoized[[int], int], list[int]]:
    """Returns an application with a memory of its own before the Redis server, and its function."""
    cache = Cache(RedisCache(port=server.port, key_prefix="shop:"), store_deadline_seconds=5)
    app = WebServer(__name__, cache=cache)
    return (app, *squares(app, timeout=60))


@pytest.mark.parametrize("damage", ["foreign", "other value", "other entry", "unreadable"])
async def test_what_is_no_value_in_the_store_is_a_counted_miss(
    redis_server: RedisProcess, damage: str
) -> None:
    """Foreign bytes, an entry of another key, or a value that the serializer refuses: computed anew."""
    app, square, runs = shared_square(redis_server)
    assert await square(3) == 9
    await app.current_cache().close()
    with redis.Redis(port=redis_server.port) as opened:
        client = cast(Any, opened)
        (name,) = value_names(client)
        entry = decode_entry(client.get(name)[1:])
        assert isinstance(entry, StoredValue)
        if damage == "other value":
            entry.data = b'{"no": '
        elif damage == "unreadable":
            entry.data = b"\xff\xfe"
        elif damage == "other entry":
            entry.key += b"x"
        planted = b"planted by somebody" if damage == "foreign" else encode_entry(entry)
        client.set(name, b"b" + planted, ex=100)
    app, square, runs = shared_square(redis_server)
    assert [await square(3), await square(3)] == [9, 9]
    assert runs == [3]
    stats = app.cache_stats()
    assert counted(stats, "misses", "hits", "damaged") == (1, 1, 0 if damage == "other entry" else 1)
    await app.current_cache().close()
    app, square, runs = shared_square(redis_server)
    assert await square(3) == 9
    assert runs == []
    await app.current_cache().close()


async def test_values_are_computed_while_the_store_is_away(redis_server: RedisProcess) -> None:
    """No error of the store reaches the callers, and they still share one computation."""
    app = WebServer(__name__, cache=Cache(RedisCache(port=redis_server.port), store_deadline_seconds=0.1))
    square, runs = squares(app)
    redis_server.stop()
    assert await asyncio.gather(*(square(3) for _ in range(50))) == [9] * 50
    assert runs == [3]
    assert app.cache_stats().store_errors > 0
    await app.current_cache().close()


async def test_simultaneous_calls_that_all_ask_the_store_compute_once(redis_server: RedisProcess) -> None:
    """Also the call whose answer from the store comes when the value has been computed already."""
    app, square, runs = shared_square(redis_server)
    await square(3)
    await square.evict(3)
    assert await asyncio.gather(*(square(3) for _ in range(300))) == [9] * 300
    assert runs == [3, 3]
    await app.current_cache().close()


async def test_values_need_no_more_of_a_store_than_responses() -> None:
    """Any cachelib object will do: what one application has computed another one finds."""
    store = SimpleCache()
    first, second = WebServer(__name__, cache=Cache(store)), WebServer(__name__, cache=Cache(store))
    square, runs = squares(first)
    other_square, other_runs = squares(second)
    assert await square(3) == 9
    await first.current_cache().close()
    assert await other_square(3) == 9
    assert (runs, other_runs) == ([3], [])
    assert await other_square.evict(3) is None
    await second.current_cache().close()


def test_two_processes_compute_once_at_the_same_time(redis_server: RedisProcess, tmp_path: Path) -> None:
    """With a store that has locks one process computes, and the other one waits for it."""
    imports, store = STORES["redis"]
    source = SCRIPT.replace("{imports}", imports).replace("{store}", store.format(port=redis_server.port))
    script = tmp_path / "script.py"
    script.write_text(source.replace("{pause}", "1"))
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("first", "second")
    ]
    done = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in done] == ["", ""]
    outcomes = [printed(output) for output, _ in done]
    assert outcomes[0][0] == outcomes[1][0]
    assert sorted(runs for _, runs in outcomes) == [0, 1]


# Requests, containers and loops


async def test_views_and_functions_share_one_cache(app: WebServer) -> None:
    """Within requests over a real socket a function is memoized like anywhere else."""
    square, runs = squares(app, tags="squares")

    @app.route("/<int:number>")
    @app.cache(timeout=60, tags="squares")
    async def view(number: int) -> str:
        return f"{await square(number)} {request.path}"

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/3")).text == "9 /3"
            assert (await client.get("/3")).headers["cache-status"].startswith("aeros; hit")
    assert await square(3) == 9
    assert runs == [3]
    stats = app.cache_stats()
    assert counted(stats, "entries", "hits", "misses", "stores") == (2, 2, 2, 2)
    assert await app.evict(tags="squares") == 2


async def test_a_client_that_leaves_does_not_stop_the_function(app: WebServer) -> None:
    """A view is cancelled with its request; what it asked for is computed for others."""
    began, opened = threading.Event(), threading.Event()
    numbers = count(1)

    @app.memoize()
    async def report() -> int:
        number = next(numbers)
        began.set()
        while not opened.is_set():
            await asyncio.sleep(0.01)
        return number

    @app.route("/")
    async def view() -> str:
        return str(await report())

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            leaving = asyncio.create_task(client.get("/"))
            assert await asyncio.to_thread(began.wait, PATIENCE)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await asyncio.sleep(0.1)
            opened.set()
            assert (await client.get("/", timeout=PATIENCE)).text == "1"


async def test_an_override_of_the_cache_is_used_while_it_lasts(app: WebServer) -> None:
    """The function asks for the cache at each call, as views do."""
    square, runs = squares(app)
    await square(3)
    other = Cache()
    overriding: providers.Provider[Any] = providers.Object(other)
    with cast(Any, app.container.cache).override(overriding):
        await square(3)
        await square(3)
        assert runs == [3, 3]
        assert await square.evict_all() == 1
        await square(3)
    await square(3)
    assert runs == [3, 3, 3]
    assert counted(other.stats(), "misses", "hits", "evicted") == (2, 1, 1)


def test_two_event_loops_share_values(app: WebServer) -> None:
    """What one loop has computed is a hit in the next; the loops need not live at the same time."""
    square, runs = squares(app)

    async def call() -> int:
        return await square(3)

    assert [asyncio.run(call()), asyncio.run(call())] == [9, 9]
    assert runs == [3]


def test_two_event_loops_at_the_same_time_wait_for_their_own_computations(app: WebServer) -> None:
    """Each loop computes once for its callers; nothing waits across loops, and nothing hangs."""
    together = threading.Barrier(2)
    runs: list[int] = []

    @app.memoize()
    async def report() -> str:
        runs.append(threading.get_ident())
        # Both compute now: neither has a value to share yet.
        await asyncio.to_thread(together.wait, PATIENCE)
        return "report"

    async def call_many() -> list[str]:
        return list(await asyncio.gather(*(report() for _ in range(100))))

    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(asyncio.run(call_many()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["report"] * 200
    assert len(set(runs)) == len(runs) == 2


def test_a_loop_that_ends_leaves_no_computation_behind(app: WebServer) -> None:
    """The next loop computes anew instead of waiting for what died with the last one."""
    runs = 0

    @app.memoize()
    async def report() -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            await asyncio.sleep(3600)
        return runs

    async def leave() -> None:
        asyncio.get_running_loop().create_task(cast(Any, report()))
        await turns()

    async def call() -> int:
        async with asyncio.timeout(PATIENCE):
            return await report()

    asyncio.run(leave())
    assert runs == 1
    assert asyncio.run(call()) == 2


# With inject()


class Rate:
    """What a function is injected with; it has no key."""

    def __init__(self, value: float) -> None:
        self.value = value


class RateContainer(Container):
    """A container with a rate."""

    rate = providers.Singleton(Rate, 2.0)


async def test_what_is_injected_is_no_part_of_the_key() -> None:
    """The value is kept by the arguments, and asked of the provider when the function runs."""
    app = WebServer("rates", container=RateContainer())
    runs: list[int] = []

    @app.memoize(timeout=60)
    async def converted(amount: int, *, rate: Rate = inject(RateContainer.rate)) -> float:
        runs.append(amount)
        return amount * rate.value

    assert [await converted(1), await converted(1), await converted(2)] == [2.0, 2.0, 4.0]
    assert runs == [1, 2]
    with override(app.container.rate, Rate(3.0)):
        assert [await converted(1), await converted(3)] == [2.0, 9.0]
        await converted.evict(1)
        assert await converted(1) == 3.0
    # One that is given does not count either: it is not what decides about the value.
    assert await converted(1, rate=Rate(5.0)) == 3.0


@pytest.mark.parametrize("option", ["key", "tags"])
def test_what_names_a_value_has_only_its_arguments(option: str) -> None:
    """It is called without a request, and without waiting."""
    app = WebServer("rates", container=RateContainer())

    def named(amount: int, rate: Rate = inject(RateContainer.rate)) -> str:
        return f"{amount} {rate}"

    options: dict[str, Any] = {option: named}
    with pytest.raises(
        InvalidSettingError, match=f"{option}: .* a function of the arguments, without inject"
    ):
        app.memoize(**options)
    if option == "tags":
        with pytest.raises(InvalidSettingError, match=r"tags: .* without inject"):
            app.cache(**options)
        with pytest.raises(InvalidSettingError, match=r"tags: .* without inject"):
            app.invalidates(**options)
