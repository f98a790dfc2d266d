"""The cache under more keys than it has room for: bounds on memory, time and what is remembered."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import pytest

from aeros import Cache
from aeros.caching.entry import StoredResponse
from aeros.caching.rules import CacheRules
from aeros.caching.stores.memory import MemoryStore
from aeros.caching.transaction import Transaction
from aeros.types import RawHeaders

if TYPE_CHECKING:
    from tests.conftest import RunScript

RULES = CacheRules(timeout=600)

FLOOD = """
import asyncio, gc, json
import coverage, psutil
if (measuring := coverage.Coverage.current()) is not None:
    measuring.stop()  # it would make the flood ten times slower
from aeros import Cache
from aeros.caching.rules import CacheRules

RULES = CacheRules(timeout=600)
BUDGET = 64 * 2**20

def scope(path):
    fields = [(b"host", b"localhost"), (b"user-agent", b"x" * 100)]
    return {"type": "http", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": fields}

async def visit(cache, path):
    transaction = await cache.open(scope(path), RULES)
    if transaction.hit is not None:
        return True
    body = path.encode() * 20
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    transaction.propose(status=200, headers=fields, body=body)
    transaction.commit(status=200, headers=fields, personal=None)
    return False

async def main():
    cache = Cache(max_bytes=BUDGET)
    await visit(cache, "/hot")
    gc.collect()
    before = psutil.Process().memory_info().rss
    hot = asked = peak = 0
    for number in range(200_000):
        await visit(cache, f"/{number}")
        if number % 100 == 0:
            asked += 1
            hot += await visit(cache, "/hot")
        if number % 5_000 == 0:
            peak = max(peak, psutil.Process().memory_info().rss)
    stats = cache.stats()
    print(json.dumps({"grown": peak - before, "budget": BUDGET, "hot": hot, "asked": asked,
                      "bytes": stats.bytes, "entries": stats.entries, "evictions": stats.evictions}))

asyncio.run(main())
"""


def scope_of(path: str, *fields: tuple[bytes, bytes]) -> dict[str, object]:
    """Returns the ASGI scope of a request."""
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *fields],
    }


def offer(transaction: Transaction, headers: RawHeaders) -> None:
    """Lets a view's response be stored, if it may be."""
    transaction.propose(status=200, headers=headers, body=b"x")
    transaction.commit(status=200, headers=headers, personal=None)
    transaction.abandon()


def test_memory_stays_within_the_budget_and_what_is_asked_for_stays(run_script: RunScript) -> None:
    """200,000 keys in a budget of 64 MiB: the process grows by that and a fifth; the hot key survives."""
    # Untraced: coverage would be asked for by this variable, and take most of the time.
    finished = run_script(FLOOD, timeout=240, COVERAGE_PROCESS_CONFIG="")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["grown"] <= 1.2 * found["budget"]
    assert found["bytes"] <= found["budget"]
    assert found["hot"] == found["asked"] == 2_000
    # The budget is used, too: what is counted is about what is taken.
    assert found["grown"] >= 0.6 * found["budget"]
    assert found["entries"] + found["evictions"] == 200_001


def entry(number: int) -> StoredResponse:
    """Returns a small response."""
    return StoredResponse(
        key=b"%08d" % number, status=200, headers=[], body=b"x", etag="", stored_at=0.0, lifetime=60.0
    )


def calls_of(work: Callable[[], object]) -> int:
    """Returns how many functions, of Python and of C, a piece of work calls."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_storing_in_a_full_store_costs_the_same_however_many_there_are() -> None:
    """One leaves for each that comes, at 1,000 entries and at 50,000."""
    costs: list[int] = []
    for size in (1_000, 50_000):
        room = entry(0).size + 2 * 220
        store = MemoryStore(size * room)
        for number in range(size + 100):
            store.set(b"%08d" % number, entry(number), checked_at=0.0, marks=(f"p{number}", "tag"))
        evictions = store.evictions
        assert evictions > 0
        one_more = partial(store.set, b"new", entry(1), checked_at=0.0, marks=("p", "tag"))
        costs.append(calls_of(one_more))
        assert store.evictions > evictions
    assert costs[0] == costs[1]


async def test_the_variants_of_a_url_are_bounded() -> None:
    """Whatever values of a field a client thinks of, the others keep their room."""
    cache = Cache(max_variants=10)
    offer(await cache.open(scope_of("/other"), RULES), [])
    for number in range(1_000):
        asked = scope_of("/", (b"x-color", b"%d" % number))
        offer(await cache.open(asked, RULES), [(b"vary", b"x-color")])
    stats = cache.stats()
    assert stats.entries == 12  # the other one, ten variants, and what they vary by
    assert stats.stores == 1_001
    latest = await cache.open(scope_of("/", (b"x-color", b"999")), RULES)
    assert latest.hit is not None
    assert (await cache.open(scope_of("/other"), RULES)).hit is not None


async def test_flights_are_bounded_and_everybody_is_answered() -> None:
    """Past the bound a request runs its own view and keeps nobody waiting."""
    cache = Cache(max_flights=50)
    leaders = [await cache.open(scope_of(f"/{number}"), RULES) for number in range(200)]
    assert sum(leader.is_leading for leader in leaders) == 50
    async with asyncio.timeout(5):
        beside = await cache.open(scope_of("/199"), RULES)
    assert beside.hit is None
    for leader in leaders:
        offer(leader, [])
    # Those without a flight are stored all the same, and the next ones may lead again.
    assert cache.stats().entries == 200
    again = await cache.open(scope_of("/new"), RULES)
    assert again.is_leading
    again.abandon()


@pytest.mark.parametrize("kept", ["_refusals", "_failures"])
async def test_what_is_remembered_of_keys_is_bounded(kept: str) -> None:
    """Neither what could not be stored nor what failed grows with the number of keys."""
    cache = Cache()
    flights = cast(Any, cache)._flights
    for number in range(12_000):
        flights.refuse(b"%d" % number, "status")
        flights.fail(b"%d" % number)
    assert len(getattr(flights, kept)) == 10_000
    assert flights.refusal(b"11999") == "status"
    assert flights.refusal(b"0") is None
