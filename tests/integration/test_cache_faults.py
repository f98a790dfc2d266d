"""The cache while its store fails in every way that it can: each request is answered by its view."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b, md5
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from cachelib import FileSystemCache, RedisCache
from quart import request

from aeros import Cache, CacheStats, RedisStore, WebServer
from aeros.caching.entry import MAGIC, StoredResponse, decode_entry, encode_entry
from aeros.caching.keys import store_key
from aeros.caching.stores import CachelibCache
from aeros.caching.stores.files import FileStore
from aeros.caching.stores.guarded import GuardedStore
from tests.integration.conftest import FIELDS, PATIENCE, FickleRedis, Workers, eventually

DEADLINE = 0.25
LOCAL = 0.3
FIRST_PAUSE = 0.25
# What a machine that is busy with other things may take, on top of what is promised.
NOISE = 4.0

AnyStore = RedisStore | CachelibCache


def tags_of(name: str) -> list[str]:
    """Returns the tags of a page."""
    return [f"page:{name}", "pages"]


class Shop:
    """A running application with one cached page for each name, and a client of it.

    No two runs of its views return the same body.
    """

    numbers = count(1)

    def __init__(self, stack: ExitStack, store: AnyStore, timeout: float = 60, **options: Any) -> None:
        options = {"store_deadline_seconds": DEADLINE, "local_seconds": LOCAL, **options}
        self.app = app = WebServer("shop", cache=Cache(store, **options))
        self.made: defaultdict[str, list[str]] = defaultdict(list)
        self.before_answering: Callable[[], object] = bool

        @app.route("/<name>")
        @app.cache(timeout=timeout, tags=tags_of)
        async def page(name: str) -> str:
            size = int(request.headers.get("x-size", 0))
            body = f"{name} {next(self.numbers)} ".ljust(size, ".")
            self.made[name].append(body)
            self.before_answering()
            return body

        @app.route("/numbers")
        @app.cache(timeout=timeout, query_string=True)
        async def numbers() -> str:
            return f"made of {request.args['n']} "

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

    def is_new(self, name: str, old: str) -> bool:
        """Tells whether the page is not the old one any more."""
        return self.get(name) != old

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
def start(
    request: pytest.FixtureRequest, fickle_redis: FickleRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartShop]:
    """Starts shops whose store is a Redis, through each of the two clients."""
    monkeypatch.setattr(GuardedStore, "FIRST_PAUSE_SECONDS", FIRST_PAUSE)
    with ExitStack() as stack:
        # A thread that waits for a silent Redis would be waited for.
        stack.callback(fickle_redis.close)

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

    def is_back() -> bool:
        shop.get_new(f"again-{next(Shop.numbers)}")
        return outages()[-1] == "back"

    eventually(is_back)
    assert outages() == list(expected)


def most_tries(seconds: float) -> float:
    """Returns how often a store may be tried in so many seconds of an outage: its pause doubles each time."""
    return math.log2(1 + seconds / FIRST_PAUSE) + 1


def check_shared(shop: Shop, other: Shop) -> None:
    """Checks that new pages of one application are what the other one answers with."""

    def is_shared() -> bool:
        name = f"shared-{next(Shop.numbers)}"
        body = shop.get_new(name)
        time.sleep(0.02)  # one that is asked for before it was written is made twice
        return other.get(name) == body

    eventually(is_shared)


# Away


def test_redis_that_refuses_from_the_start(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """Three calls fail, then one for each pause; when there is a Redis, it is used."""
    fickle_redis.kill()
    begun = time.monotonic()
    shop, other = start(), start()
    shop.get_many("cold", 60)
    seconds = time.monotonic() - begun
    assert 3 <= shop.stats.store_errors <= 3 + most_tries(seconds)
    assert seconds <= (3 + most_tries(seconds)) * DEADLINE + NOISE
    assert shop.get("cold-59") == shop.made["cold-59"][0], "its own memory goes on"
    assert outages() == ["away"]
    fickle_redis.start()
    come_back(shop, outages)
    check_shared(shop, other)


def test_silent_redis_costs_three_deadlines_and_then_nothing(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """A request waits for it once; after three in a row nobody does, until it answers again."""
    shop, other = start(), start()
    check_shared(shop, other)
    assert shop.stats.store_errors == 0
    fickle_redis.pause()
    begun = time.monotonic()
    for number in (1, 2, 3):
        shop.get_new(f"first-{number}")
        assert shop.stats.store_errors == number
    shop.get_many("silent", 60)
    seconds = time.monotonic() - begun
    assert shop.stats.store_errors <= 3 + most_tries(seconds)
    assert seconds <= (3 + most_tries(seconds)) * DEADLINE + NOISE
    assert outages() == ["away"]
    fickle_redis.resume()
    come_back(shop, outages)
    check_shared(shop, other)


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
        except (AssertionError, httpx.HTTPError) as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        fickle_redis.pause()
        eventually(lambda: outages() == ["away"])
        fickle_redis.resume()
        eventually(lambda: outages() == ["away", "back"])
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
    assert len(said) <= 2 * (1 + 8)


def test_redis_killed_in_mid_write(start: StartShop, fickle_redis: FickleRedis, outages: Outages) -> None:
    """The half of a large response that has reached it harms nobody, before or after it is back."""
    shop, other = start(local_seconds=60), start()
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
    check_shared(shop, other)


def test_redis_restarted_empty_brings_nothing_back(start: StartShop, fickle_redis: FickleRedis) -> None:
    """Its loss disowns all that processes remember under it, also what was evicted before."""
    shop, other = start(local_seconds=0), start(local_seconds=0)
    bodies = {name: shop.get_new(name) for name in ("kept", "evicted")}
    time.sleep(0.3)  # one that is asked for before it was written is made twice
    assert {name: other.get(name) for name in bodies} == bodies
    shop.app.clear_cache(tags="page:evicted")
    fickle_redis.kill()
    fickle_redis.start()
    for name, body in bodies.items():
        eventually(partial(shop.is_new, name, body))
        assert other.get(name) != body
    check_shared(shop, other)


# Evictions while it is away


@pytest.mark.parametrize("everything", [False, True], ids=["tag and path", "everything"])
def test_eviction_while_redis_is_away_is_made_good(
    start: StartShop,
    fickle_redis: FickleRedis,
    everything: bool,
    outages: Outages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody gets what was evicted any more once Redis is back; what was not evicted is still shared."""
    # Either requests find that Redis is back, or long before that the eviction itself has.
    monkeypatch.setattr(GuardedStore, "FIRST_PAUSE_SECONDS", 0.02 if everything else 30.0)
    shop, other = start(), start()
    gone = {name: shop.get_new(name) for name in ("by-tag", "by-path")}
    kept = shop.get_new("kept")
    time.sleep(0.1)
    assert {name: other.get(name) for name in gone} == gone
    fickle_redis.pause()
    while outages() == []:
        shop.get_new(f"silent-{next(Shop.numbers)}")
    if everything:
        shop.app.clear_cache()
    else:
        shop.app.clear_cache(tags="page:by-tag")
        shop.app.clear_cache(path="/by-path")
    for name, body in gone.items():
        assert shop.get(name) != body
    time.sleep(LOCAL)
    fickle_redis.resume()
    # It is told within a second, and asked for after ``local_seconds``.
    end = time.monotonic() + LOCAL + 1 + DEADLINE + NOISE
    while not all(other.is_new(name, body) for name, body in gone.items()):
        assert all(shop.is_new(name, body) for name, body in gone.items())
        assert time.monotonic() < end
    newcomer, end = start(), time.monotonic() + LOCAL
    while time.monotonic() < end:
        for name, body in gone.items():
            assert body not in (shop.get(name), other.get(name), newcomer.get(name))
    assert (newcomer.get("kept") == kept) is not everything


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


@pytest.mark.parametrize(
    ("start", "begin", "end"),
    [
        pytest.param(client, *commands, id=f"{client}-{refusal}")
        for client in MAKERS
        for refusal, commands in REFUSALS.items()
        if (client, refusal) != ("cachelib", "scripts are forbidden")  # it sends none
    ],
    indirect=["start"],
)
def test_redis_that_refuses_some_commands_is_away(
    start: StartShop,
    fickle_redis: FickleRedis,
    outages: Outages,
    begin: Sequence[str],
    end: Sequence[str],
) -> None:
    """It is told of once, costs no error for each request, and what is evicted meanwhile stays evicted."""
    shop, other = start(), start(local_seconds=0)
    gone = shop.get_new("gone")
    assert eventually(lambda: other.get("gone") == gone)
    fickle_redis.ask(*begin)
    begun = time.monotonic()
    shop.get_many("refused", 60)
    shop.app.clear_cache(tags="page:gone")
    shop.get_many("evicted", 10)
    assert shop.get("gone") != gone
    seconds = time.monotonic() - begun
    # Reading, writing, locking and evicting may each be tried by itself.
    assert shop.stats.store_errors <= 4 * (3 + most_tries(seconds))
    assert outages() == ["away"]
    fickle_redis.ask(*end)
    eventually(lambda: other.get("gone") != gone)
    come_back(shop, outages)
    assert gone not in (shop.get("gone"), other.get("gone"))
    check_shared(shop, other)


@pytest.mark.parametrize("start", ["redis"], indirect=True)
def test_marks_of_a_foreign_type_are_an_outage(
    start: StartShop, fickle_redis: FickleRedis, outages: Outages
) -> None:
    """Where something else stands under the store's own names, views answer until it is gone."""
    shop, other = start(local_seconds=0), start(local_seconds=0)
    check_shared(shop, other)
    (marks,) = fickle_redis.names("*:marks")
    fickle_redis.ask("DEL", marks)
    fickle_redis.ask("SET", marks, "text")
    shop.get_many("page")
    assert outages() == ["away"]
    fickle_redis.ask("DEL", marks)
    come_back(shop, outages)
    check_shared(shop, other)


# What stands in the store is not what was written


class Shelf(Protocol):
    """Where a store keeps entries, as they are in there."""

    @property
    def is_bare(self) -> bool:
        """Whether nothing but the entry itself stands there."""
        ...

    def store(self) -> AnyStore:
        """Returns a new store."""
        ...

    def entries(self) -> dict[str, bytes]:
        """Returns all entries, by their names."""
        ...

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Writes entries as the store would."""
        ...

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Changes all that stands under a name."""
        ...


class RedisShelf:
    """The keys of a Redis."""

    is_bare = True

    def __init__(self, server: FickleRedis) -> None:
        self._server = server

    def store(self) -> AnyStore:
        """Returns a new client's."""
        return RedisStore.from_url(self._server.url)

    def entries(self) -> dict[str, bytes]:
        """Reads what looks like an entry."""
        keys = self._server.names("aeros:aeros:1:" + 32 * "?")
        return {key.decode().removeprefix("aeros:"): self._server.ask("GET", key) for key in keys}

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Sets the keys."""
        for name, data in entries.items():
            self._server.ask("SET", f"aeros:{name}", data, "EX", 60)

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Sets the key anew."""
        self._server.ask("SET", f"aeros:{name}", change(self._server.ask("GET", f"aeros:{name}")))


class FileShelf:
    """The folder of files that a ``FileSystemCache`` is given; each ends with an entry."""

    is_bare = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self) -> FileSystemCache:
        """Returns cachelib's cache of the folder."""
        return FileSystemCache(str(self._folder), threshold=0)

    def entries(self) -> dict[str, bytes]:
        """Reads what looks like an entry."""
        found: dict[str, bytes] = {}
        for path in self._folder.glob("*/*"):
            if path.suffix == ".part":
                continue  # it is being written
            head, magic, rest = path.read_bytes().partition(MAGIC)
            if magic:
                found[head[head.index(b"aeros:") :].decode()] = magic + rest
        return found

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Writes the files."""

        async def write() -> None:
            store = FileStore.beside(self.store())
            for name, data in entries.items():
                await store.set(name, data, 60)
            await store.close()

        asyncio.run(write())

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Writes the file anew."""
        (path,) = self._folder.glob(f"*/{blake2b(name.encode(), digest_size=24).hexdigest()}")
        path.write_bytes(change(path.read_bytes()))


@pytest.fixture(params=["redis", "files"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """Each of the places where entries are kept."""
    if request.param == "files":
        return FileShelf(tmp_path / "cache")
    return RedisShelf(request.getfixturevalue("fickle_redis"))


@pytest.fixture
def open_shop() -> Iterator[Callable[[Shelf], Shop]]:
    """Starts shops that keep their entries on a shelf."""
    with ExitStack() as stack:
        # On a busy machine a disk, too, takes its time; here it is not what is looked at.
        yield lambda shelf: Shop(stack, shelf.store(), store_deadline_seconds=5)


def number(data: bytes, number: int) -> tuple[str, bytes]:
    """Returns the name and the bytes that the entry of ``/numbers?n=0000`` has for another number."""
    entry = decode_entry(data)
    assert isinstance(entry, StoredResponse)
    query, old = b"n=%04d" % number, b"n=0000"
    key = entry.key.replace(old, query)
    key = key.replace(md5(old).hexdigest().encode(), md5(query).hexdigest().encode())
    body = b"stored of %04d " % number
    return store_key(key, md5), encode_entry(replace(entry, key=key, body=body))


def test_a_thousand_flipped_bits_alter_no_response(
    shelf: Shelf, open_shop: Callable[[Shelf], Shop], outages: Outages
) -> None:
    """Each damaged entry is a miss; those beside it that are whole are hits."""
    shop = open_shop(shelf)
    shop.client.get("/numbers?n=0000")
    ((_, data),) = eventually(shelf.entries).items()
    names = dict(number(data, index) for index in range(1, 1_101))
    shelf.put(names)
    dice = random.Random(9111)

    def flipped(data: bytes) -> bytes:
        position, bit = dice.randrange(len(data)), dice.randrange(8)
        return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]

    for name in list(names)[:1_000]:
        shelf.change(name, flipped)
    begun = shop.stats
    for index in range(1, 1_101):
        response = shop.client.get(f"/numbers?n={index:04}")
        assert response.status_code == 200
        word = "made" if index <= 1_000 else "stored"
        assert response.text == f"{word} of {index:04} "
    stats = shop.stats
    assert (stats.misses - begun.misses, stats.hits - begun.hits) == (1_000, 100)
    # Files have a checksum of their own: what does not fit is not even seen as an entry.
    assert stats.damaged >= (1_000 if shelf.is_bare else 0)
    assert stats.store_errors == 0
    assert outages() == []


def test_entry_of_an_older_format_is_a_miss(shelf: Shelf, open_shop: Callable[[Shelf], Shop]) -> None:
    """It is counted as damaged, and the new one takes its place."""
    shop = open_shop(shelf)
    shop.client.get("/numbers?n=0000")
    ((_, data),) = eventually(shelf.entries).items()
    name, data = number(data, 1)
    shelf.put({name: b"AEROS\x01\r\n" + data[len(MAGIC) :]})
    assert shop.client.get("/numbers?n=0001").text == "made of 0001 "
    assert shop.stats.damaged >= 1
    assert shop.stats.store_errors == 0
    eventually(lambda: shelf.entries().get(name, b"").startswith(MAGIC))
    other = open_shop(shelf)
    assert other.client.get("/numbers?n=0001").text == "made of 0001 "
    assert other.stats.hits == 1


# The clock


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_that_jumps_by_an_hour_prolongs_no_lifetime(start: StartShop, hours: int) -> None:
    """Whichever way it is set, nothing is used for longer than its lifetime from then on."""
    ahead = 3600.0 * max(0, -hours)
    # A busy machine takes its time, which is not what is looked at here.
    shop = start(timeout=1, clock=lambda: time.time() + ahead, store_deadline_seconds=5)
    other = start(timeout=1, store_deadline_seconds=5)
    old = shop.get_new("page")
    time.sleep(0.05)
    ahead += 3600.0 * hours
    begun = time.monotonic()
    for reader in (shop, other):
        eventually(partial(reader.is_new, "page", old), 2 + NOISE)
    if hours > 0:
        assert time.monotonic() - begun < 1 + NOISE
        assert shop.made["page"][1:], "it was stale at once"
    shop.get_many("later", 3)
    assert shop.stats.store_errors == 0


# What is not the cache's


def test_other_keys_of_the_database_are_untouched(
    start: StartShop, fickle_redis: FickleRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither storing, overflow nor any kind of eviction changes them, whatever their names begin with."""
    monkeypatch.setattr(RedisStore, "MOST_MARKS", 20)
    for command in (
        ("SET", "session:1", "text"),
        ("SET", "aeros", "text", "EX", "1000"),
        ("SET", b"\xff\x00:aeros:1:marks", b"\x00"),
        ("SET", "aerosol:aeros:1:marks", "text"),
        ("RPUSH", "aero", "1", "2"),
        ("HSET", "shop:aeros:1:marks", "", "text"),
        ("ZADD", "aeros1:generation", "1", "text"),
        ("XADD", "stream", "1-1", "name", "text"),
        ("SADD", "*", "text"),
    ):
        fickle_redis.ask(*command)
    foreign = fickle_redis.names()
    before = fickle_redis.dump(foreign)
    assert len(before) == 9
    shop = start(max_bytes=20_000, store_deadline_seconds=5)
    shop.get_many("page", 60)
    shop.client.post("/page-0")
    shop.app.clear_cache(tags=[f"page:page-{number}" for number in range(50)])
    shop.get_many("again", 5)
    shop.app.clear_cache(path="/again-0")
    shop.app.clear_cache()
    shop.get_many("later", 5)
    assert shop.stats.evictions > 0
    assert shop.stats.store_errors == 0
    time.sleep(0.05)
    assert fickle_redis.dump(foreign) == before
    own = set(fickle_redis.names()) - set(foreign)
    assert own
    assert all(key.startswith((b"aeros:aeros:1:", b"aeros:1:")) for key in own)


# Files


def on_a_small_disk(folder: Path) -> list[str]:
    """Returns the beginning of a command that has ``folder`` on a disk of 1 MiB, where that is allowed."""
    alone = ["unshare", "--mount", "--map-root-user"]
    mount = ["sh", "-c", 'mount -t tmpfs -o size=1m,mode=700 small "$0" && exec "$@"', str(folder)]
    with suppress(OSError):
        if subprocess.run([*alone, *mount, "true"], capture_output=True, check=False).returncode == 0:
            return [*alone, *mount]
    return []


def test_full_disk_is_an_outage(workers: Workers, tmp_path: Path) -> None:
    """What does not fit is made by its view each time, what was stored stays whole, nothing raises."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    worker = workers.start(
        store=f"files:{folder}",
        wrapper=on_a_small_disk(folder),
        largest_file=200_000,  # where there is no small disk
        cache={"local_seconds": 0},
    )
    first = worker.get("/pages/first")
    assert worker.get("/pages/first") == first
    for index in range(20):
        name = f"large-{index}"
        body = worker.get(f"/large/{name}?bytes=300000")
        assert len(body) > 290_000
        assert body.startswith(workers.runs(name)[0][0])
        assert worker.get("/pages/first") == first
    assert worker.stats()["store_errors"] >= 3
    eventually(lambda: worker.log.count(" is away ") == 1)  # lines are written beside the requests
    assert "Traceback" not in worker.log
    worker.get("/evict?tags=page:first")
    assert worker.get("/pages/first") != first


def test_folder_of_another_user_is_an_outage(workers: Workers, tmp_path: Path) -> None:
    """Views answer while permission is denied; when it is given back, what was stored is there."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    worker = workers.start(store=f"files:{folder}", cache={"local_seconds": 0})
    first = worker.get("/pages/first")
    assert worker.get("/pages/first") == first
    folder.chmod(0)
    if os.geteuid() == 0:  # whom no mode keeps out
        worker.get("/user?number=65534")
    for index in range(20):
        worker.get(f"/pages/page-{index}")
    assert worker.get("/pages/first") != first
    assert worker.stats()["store_errors"] >= 3
    eventually(lambda: worker.log.count(" is away ") == 1)  # lines are written beside the requests
    if os.geteuid() == 0:
        worker.get("/user?number=0")
    folder.chmod(0o700)
    eventually(lambda: worker.get("/pages/first") == first)
    eventually(lambda: worker.log.count(" is back") == 1)
    assert "Traceback" not in worker.log
