"""The cache while its store fails in every way that it can: each request is answered by its view."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, cast

import httpx
import pytest
from cachelib import FileSystemCache, RedisCache
from quart import request

from aeros import Cache, CacheStats, RedisStore, WebServer
from aeros.caching.entry import MAGIC, StoredResponse, decode_entry, encode_entry
from aeros.caching.keys import store_key
from aeros.caching.stores import CachelibCache
from aeros.caching.stores.files import FileStore
from tests.integration.conftest import FIELDS, PATIENCE, FickleRedis, Workers, eventually

DEADLINE = 0.25
LOCAL = 0.3
# What a machine that is busy with other things may take, on top of what is promised.
NOISE = 4.0

AnyStore = RedisStore | CachelibCache


class Shop:
    """A running application with one cached page for each name, and a client of it.

    No two runs of its views return the same body.
    """

    numbers = count(1)

    def __init__(self, stack: ExitStack, store: AnyStore, **options: Any) -> None:
        options = {"store_deadline_seconds": DEADLINE, "local_seconds": LOCAL, **options}
        self.app = app = WebServer("shop", cache=Cache(store, **options))
        self.made: defaultdict[str, list[str]] = defaultdict(list)
        self.before_answering: Callable[[], object] = bool

        @app.route("/<name>")
        @app.cache(timeout=60, tags=lambda name: [f"page:{name}", "pages"])
        async def page(name: str) -> str:  # pyright: ignore[reportUnusedFunction]  # registered
            size = int(request.headers.get("x-size", 0))
            body = f"{name} {next(self.numbers)} ".ljust(size, ".")
            self.made[name].append(body)
            self.before_answering()
            return body

        self.url = stack.enter_context(app.run_in_thread()).url
        client = httpx.Client(base_url=self.url, headers=FIELDS, timeout=PATIENCE)
        self.client = stack.enter_context(client)

    def get(self, name: str, *, size: int = 0) -> str:
        """Returns the page, which must be a success."""
        response = self.client.get(f"/{name}", headers={"x-size": str(size)})
        assert response.status_code == 200
        assert response.text.startswith(f"{name} ")
        return response.text

    def get_new(self, name: str, *, size: int = 0) -> str:
        """Returns a page that nobody had before, which this application's view must have made."""
        body = self.get(name, size=size)
        assert self.made[name][-1] == body
        return body

    def get_many(self, name: str, number: int = 30) -> None:
        """Asks for so many pages that nobody had before."""
        for index in range(number):
            self.get_new(f"{name}-{index}")

    @property
    def stats(self) -> CacheStats:
        """The cache's counters."""
        return self.app.cache_stats()


class StartShop(Protocol):
    """Starts a shop."""

    def __call__(self, store: AnyStore | None = None, **options: Any) -> Shop:
        """Returns a new application, with a store of its own that is where the others' are."""
        ...


MAKERS: dict[str, Callable[[FickleRedis], AnyStore]] = {
    "redis": lambda server: RedisStore.from_url(server.url),
    "cachelib": lambda server: RedisCache("127.0.0.1", server.port),
}


@pytest.fixture(params=list(MAKERS))
def start(request: pytest.FixtureRequest, fickle_redis: FickleRedis) -> Iterator[StartShop]:
    """Starts shops whose store is a Redis, through each of the two clients."""
    with ExitStack() as stack:
        # A thread that waits for a silent Redis would be waited for.
        stack.callback(fickle_redis.kill)

        def begin(store: AnyStore | None = None, **options: Any) -> Shop:
            return Shop(stack, MAKERS[request.param](fickle_redis) if store is None else store, **options)

        yield begin


class Outages:
    """What is said of outages, in order."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self) -> list[str]:
        """Returns ``away`` or ``back`` for each warning about the store."""
        said: list[str] = []
        for record in self._caplog.records:
            message = record.getMessage()
            if record.name != "aeros.cache" or record.levelno < logging.WARNING:
                continue
            said += [word for word in ("away", "back") if f" is {word}" in message]
        return said


@pytest.fixture
def outages(caplog: pytest.LogCaptureFixture) -> Outages:
    """Tells what has been said of outages."""
    return Outages(caplog)


def come_back(shop: Shop, outages: Outages, expected: Sequence[str] = ("away", "back")) -> None:
    """Asks for new pages until the store is used again; then that was said once."""
    numbers = count()
    eventually(lambda: [shop.get_new(f"again-{next(numbers)}"), time.sleep(0.05)] and outages()[-1] == "back")
    assert outages() == list(expected)


def is_shared(shop: Shop, other: Shop, name: str) -> bool:
    """Tells whether a new page of one application is what the other one answers with."""
    body = shop.get_new(name)
    return other.get(name) == body


# Away


def test_redis_that_refuses_from_the_start(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """Three calls fail, then one a second at most; when there is a Redis, it is used."""
    fickle_redis.kill()
    begun = time.monotonic()
    shop, other = start(), start()
    shop.get_many("cold", 60)
    seconds = time.monotonic() - begun
    assert 3 <= shop.stats.store_errors <= 4 + seconds
    assert seconds <= (4 + seconds) * DEADLINE + NOISE
    assert shop.get("cold-59") == shop.made["cold-59"][0], "its own memory goes on"
    assert outages() == ["away"]
    fickle_redis.start()
    come_back(shop, outages)
    assert is_shared(shop, other, "warm")


def test_silent_redis_costs_three_deadlines_and_then_nothing(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """A request waits for it once; after three in a row nobody does, until it answers again."""
    shop, other = start(), start()
    assert is_shared(shop, other, "warm")
    eventually(lambda: fickle_redis.names("*aeros:1:*"))
    assert shop.stats.store_errors == 0
    fickle_redis.pause()
    begun = time.monotonic()
    for number in (1, 2, 3):
        shop.get_new(f"first-{number}")
        assert shop.stats.store_errors == number
    shop.get_many("silent", 60)
    seconds = time.monotonic() - begun
    assert shop.stats.store_errors <= 4 + seconds
    assert seconds <= (4 + seconds) * DEADLINE + NOISE
    assert outages() == ["away"]
    fickle_redis.resume()
    come_back(shop, outages)
    assert is_shared(shop, other, "later")


def test_many_who_come_when_redis_falls_silent_wait_together(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """A hundred simultaneous requests cost one deadline, not a hundred."""
    shop = start()
    shop.get_many("warm", 1)
    fickle_redis.pause()

    async def ask() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=shop.url, headers=FIELDS, limits=limits, timeout=PATIENCE
        ) as client:
            responses = await asyncio.gather(*(client.get(f"/page-{number}") for number in range(40)))
        return [response.text for response in responses]

    begun = time.monotonic()
    bodies = asyncio.run(ask())
    assert time.monotonic() - begun <= 2 * DEADLINE + NOISE
    assert bodies == [shop.made[f"page-{number}"][0] for number in range(40)]
    assert outages() == ["away"]


def test_flapping_redis_is_told_of_as_often_as_it_goes(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """However it comes and goes, all are answered; away and back alternate in the log."""
    shop = start(store_deadline_seconds=0.05)
    shop.get_many("warm", 1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        numbers = count()
        try:
            while not stop.is_set():
                shop.get_new(f"page-{next(numbers)}")
                assert shop.get("warm-0") in shop.made["warm-0"]
        except BaseException as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(1, 3):
            fickle_redis.pause()
            eventually(lambda number=number: outages() == ["away", "back"] * (number - 1) + ["away"])
            fickle_redis.resume()
            eventually(lambda number=number: outages() == ["away", "back"] * number)
        for _ in range(8):
            fickle_redis.pause()
            time.sleep(0.08)
            fickle_redis.resume()
            time.sleep(0.04)
    finally:
        stop.set()
        asking.join()
    assert failures == []
    said = outages()
    assert said[::2] == ["away"] * len(said[::2])
    assert said[1::2] == ["back"] * len(said[1::2])
    assert len(said) <= 2 * (2 + 8)


def test_redis_killed_in_mid_write(start: StartShop, fickle_redis: FickleRedis, outages: Outages) -> None:
    """The half of a large response that has reached it harms nobody, before or after it is back."""
    shop, other = start(), start()
    shop.get_many("warm", 1)
    # More than sockets hold: the write stands half way when it is killed.
    shop.before_answering = fickle_redis.pause
    body = shop.get_new("large", size=16 * 2**20)
    shop.before_answering = bool
    time.sleep(DEADLINE / 2)
    fickle_redis.kill()
    assert shop.get("large", size=16 * 2**20) == body
    shop.get_many("dead")
    fickle_redis.start()
    come_back(shop, outages)
    assert fickle_redis.names() != []
    assert other.get_new("large") != body
    assert is_shared(shop, other, "later")


def test_redis_restarted_empty_brings_nothing_back(start: StartShop, fickle_redis: FickleRedis) -> None:
    """Its loss disowns all that processes remember under it, also what was evicted before."""
    shop, other = start(local_seconds=0), start(local_seconds=0)
    bodies = {name: shop.get_new(name) for name in ("kept", "evicted")}
    assert {name: other.get(name) for name in bodies} == bodies
    shop.app.clear_cache(tags="page:evicted")
    fickle_redis.kill()
    fickle_redis.start()
    for name, body in bodies.items():
        new = eventually(lambda name=name, body=body: (found := shop.get(name)) != body and found)
        assert other.get(name) != body
        assert new != body
    eventually(lambda: is_shared(shop, other, f"later-{next(Shop.numbers)}"))


# Evictions while it is away

WAYS: dict[str, dict[str, Any]] = {
    "tag": {"tags": "page:gone"},
    "path": {"path": "/gone"},
    "everything": {},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_eviction_while_redis_is_away_is_made_good(
    start: StartShop, fickle_redis: FickleRedis, way: str, outages: Outages
) -> None:
    """Nobody gets the evicted page any more once Redis is back; what was not evicted is still shared."""
    shop, other = start(), start()
    gone, kept = shop.get_new("gone"), shop.get_new("kept")
    assert eventually(lambda: [other.get("gone"), other.get("kept")] == [gone, kept] or None)
    fickle_redis.pause()
    eventually(lambda: shop.get_many("silent", 1) or outages())
    shop.app.clear_cache(**WAYS[way])
    for _ in range(3):
        assert shop.get("gone") != gone
    time.sleep(LOCAL)
    fickle_redis.resume()
    # Retried each second, whatever the pause of the store is.
    eventually(lambda: other.get("gone") != gone, seconds=LOCAL + 1 + DEADLINE + NOISE)
    end = time.monotonic() + 2 * LOCAL
    newcomer = start()
    while time.monotonic() < end:
        assert gone not in (shop.get("gone"), other.get("gone"), newcomer.get("gone"))
    assert (newcomer.get("kept") == kept) is (way != "everything")


def test_eviction_of_more_than_can_be_remembered_is_of_everything(
    start: StartShop, fickle_redis: FickleRedis
) -> None:
    """While Redis is away evictions of thousands of tags take bounded room, and none is forgotten."""
    shop, other = start(), start(local_seconds=0)
    gone = shop.get_new("gone")
    assert eventually(lambda: other.get("gone") == gone)
    fickle_redis.pause()
    shop.app.clear_cache(tags="page:gone")
    shop.app.clear_cache(tags=[f"tag-{number}" for number in range(2_000)])
    fickle_redis.resume()
    eventually(lambda: other.get("gone") != gone)
    assert shop.get("gone") != gone


# It answers, but it does not take what it is given

REFUSALS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "read only replica": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "scripts are forbidden": (("ACL", "SETUSER", "default", "-eval"), ("ACL", "SETUSER", "default", "+eval")),
    "writing is forbidden": (
        ("ACL", "SETUSER", "default", "-set", "-setex"),
        ("ACL", "SETUSER", "default", "+set", "+setex"),
    ),
    "reading is forbidden": (
        ("ACL", "SETUSER", "default", "-hmget", "-mget"),
        ("ACL", "SETUSER", "default", "+hmget", "+mget"),
    ),
}


@pytest.mark.parametrize("refusal", list(REFUSALS))
def test_redis_that_refuses_some_commands_is_away(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages, refusal: str
) -> None:
    """It is told of once, costs no error for each request, and what is evicted meanwhile stays evicted."""
    shop, other = start(), start(local_seconds=0)
    gone = shop.get_new("gone")
    assert eventually(lambda: other.get("gone") == gone)
    begin, end = REFUSALS[refusal]
    if refusal == "scripts are forbidden" and isinstance(shop.app.current_cache(), Cache):
        pass
    fickle_redis.ask(*begin)
    begun = time.monotonic()
    shop.get_many("refused", 60)
    shop.app.clear_cache(tags="page:gone")
    shop.get_many("evicted", 10)
    assert shop.get("gone") != gone
    seconds = time.monotonic() - begun
    assert shop.stats.store_errors <= 3 * (4 + seconds)
    assert outages() == ["away"]
    fickle_redis.ask(*end)
    eventually(lambda: other.get("gone") != gone)
    come_back(shop, outages)
    assert gone not in (shop.get("gone"), other.get("gone"))
    assert is_shared(shop, other, "later")
