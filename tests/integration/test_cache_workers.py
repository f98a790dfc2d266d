"""Several processes with one Redis: what one evicts, another one does not serve; a view runs once for all."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from aeros.caching.leases import LOCK_SECONDS
from tests.integration.conftest import FIELDS, PATIENCE, FickleRedis, Worker, Workers, eventually

# What a machine that is busy with other things may take, on top of what is promised.
NOISE = 4.0


class Team:
    """Two processes that serve the same shop, with a Redis of their own.

    Attributes:
        redis: Their Redis.
        workers: What started them.
        one: A process.
        other: Another one.
    """

    def __init__(self, folder: Path, redis: FickleRedis, local_seconds: float) -> None:
        self.redis = redis
        self.workers = Workers(folder)
        cache = {"local_seconds": local_seconds, "store_deadline_seconds": 2.0}
        self.one, self.other = (self.workers.start(store=redis.url, cache=cache) for _ in range(2))

    def is_listening(self) -> bool:
        """Tells whether both hear what is evicted; a process subscribes when it asks for something new."""
        for worker in (self.one, self.other):
            worker.get(f"/pages/new-{time.monotonic_ns()}")
        return self.redis.listeners() == 2

    def share(self, name: str) -> str:
        """Returns a new page that both have in their memory."""
        body = self.one.get(f"/pages/{name}")
        # Asked for before it was written, the other one waits for the lock and then for the page.
        assert self.other.get(f"/pages/{name}") == body
        return body


def free_port() -> int:
    """Returns a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_team(factory: pytest.TempPathFactory, local_seconds: float) -> Iterator[Team]:
    """Starts a team, and ends it."""
    folder = factory.mktemp("team")
    redis = FickleRedis(folder, free_port())
    team = Team(folder, redis, local_seconds)
    yield team
    team.workers.kill()
    redis.close()


@pytest.fixture(scope="module")
def trusting_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Processes that would use their memory for a minute if they heard nothing."""
    yield from start_team(tmp_path_factory, 60)


@pytest.fixture(scope="module")
def wary_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Processes that ask Redis again after half a second of silence."""
    yield from start_team(tmp_path_factory, 0.5)


def is_new(worker: Worker, path: str, old: str) -> bool:
    """Tells whether a worker answers with something else than before."""
    return worker.get(path) != old


async def ask(url: str, path: str) -> tuple[int, str]:
    """Returns the status and the body of one answer, on a connection of its own."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    fields = {**FIELDS, "connection": "close"}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(2 * PATIENCE):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def ask_all(team: Team, path: str, times: int) -> list[tuple[int, str]]:
    """Asks each of the two so many times, all at once."""
    urls = team.one.url, team.other.url
    return await asyncio.gather(*(ask(url, path) for _ in range(times) for url in urls))


# Evictions


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/clear"),
        ("GET", "/evict?everything=1"),
        ("GET", "/evict?tags=page:{}"),
        ("GET", "/evict?path=/pages/{}"),
        ("POST", "/pages/{}"),
    ],
)
def test_eviction_in_one_worker_reaches_the_memory_of_another(
    trusting_team: Team, method: str, path: str
) -> None:
    """Long before that worker would have asked: it hears of it."""
    eventually(trusting_team.is_listening)
    gone, kept = (f"{kind}-{time.monotonic_ns()}" for kind in ("gone", "kept"))
    old, untouched = trusting_team.share(gone), trusting_team.share(kept)
    assert trusting_team.one.client.request(method, path.format(gone)).status_code == 200
    assert is_new(trusting_team.one, f"/pages/{gone}", old)
    eventually(partial(is_new, trusting_team.other, f"/pages/{gone}", old))
    is_kept = trusting_team.other.get(f"/pages/{kept}") == untouched
    assert is_kept is ("{}" in path)


@pytest.mark.parametrize("path", ["/clear", "/evict?tags=page:{}"])
def test_eviction_is_seen_within_the_bound_when_the_channel_is_cut(wary_team: Team, path: str) -> None:
    """A worker that can not listen asks Redis again after ``local_seconds``, and listens when it can."""
    eventually(wary_team.is_listening)
    wary_team.redis.ask("ACL", "SETUSER", "default", "-subscribe")
    try:
        wary_team.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        gone = f"gone-{time.monotonic_ns()}"
        old = wary_team.share(gone)
        assert wary_team.redis.listeners() == 0
        wary_team.one.get(path.format(gone))
        assert is_new(wary_team.one, f"/pages/{gone}", old)
        eventually(partial(is_new, wary_team.other, f"/pages/{gone}", old), 0.5 + NOISE)
        assert wary_team.redis.listeners() == 0
        assert "Traceback" not in wary_team.other.log
    finally:
        wary_team.redis.ask("ACL", "SETUSER", "default", "+subscribe")
    eventually(wary_team.is_listening)


@pytest.mark.parametrize("path", ["/clear", "/evict?tags=page:{}&path=/pages/{}"])
def test_eviction_while_redis_is_silent_reaches_the_other_worker(wary_team: Team, path: str) -> None:
    """Once Redis answers again neither worker returns what was evicted meanwhile."""
    one, other = wary_team.one, wary_team.other
    names = [f"{kind}-{time.monotonic_ns()}" for kind in ("tag", "path")]
    old = {f"/pages/{name}": wary_team.share(name) for name in names}
    wary_team.redis.pause()
    try:
        begun = one.log.count(" is away ")
        while one.log.count(" is away ") == begun:
            one.get(f"/pages/new-{time.monotonic_ns()}")
        one.get(path.format(*names))
        assert all(is_new(one, page, body) for page, body in old.items())
    finally:
        wary_team.redis.resume()
    # Told once a second, then asked for after ``local_seconds``.
    for page, body in old.items():
        eventually(partial(is_new, other, page, body), 1 + 0.5 + NOISE)
    end = time.monotonic() + 0.75
    while time.monotonic() < end:
        for page, body in old.items():
            assert is_new(one, page, body)
            assert is_new(other, page, body)
    eventually(lambda: one.log.count(" is back") == begun + 1)


@pytest.mark.parametrize("kind", ["cachelib", "files"])
def test_eviction_is_seen_within_the_bound_in_stores_without_a_channel(
    workers: Workers, fickle_redis: FickleRedis, tmp_path: Path, kind: str
) -> None:
    """A worker asks any store after ``local_seconds`` whether what it remembers still stands."""
    store = f"{kind}:{tmp_path / 'cache' if kind == 'files' else fickle_redis.port}"
    one, other = (workers.start(store=store, cache={"local_seconds": 0.5}) for _ in range(2))
    for number, path in enumerate(("/clear", "/evict?tags=page:{}", "/evict?path=/pages/{}")):
        gone = f"gone-{number}"
        old = one.get(f"/pages/{gone}")
        time.sleep(0.1)
        assert other.get(f"/pages/{gone}") == old
        one.get(path.format(gone))
        assert is_new(one, f"/pages/{gone}", old)
        eventually(partial(is_new, other, f"/pages/{gone}", old), 0.5 + NOISE)


def test_clearing_in_one_of_two_workers_of_run_server_is_seen_in_the_other(
    workers: Workers, fickle_redis: FickleRedis
) -> None:
    """``run_server(workers=2)`` with a ``RedisStore`` needs nothing else to be one cache."""
    shop = workers.start(store=fickle_redis.url, workers=2, cache={"local_seconds": 60})
    clients: dict[int, httpx.Client] = {}

    def both() -> bool:
        # A connection stays with the worker that has accepted it.
        client = httpx.Client(base_url=shop.url, headers=FIELDS, timeout=PATIENCE)
        with suppress(httpx.TransportError):
            clients.setdefault(client.get("/stats").json()["pid"], client)
        if client not in clients.values():
            client.close()
        return len(clients) == 2

    try:
        eventually(both)
        one, other = clients.values()

        def is_listening() -> bool:
            for client in (one, other):
                client.get(f"/pages/new-{time.monotonic_ns()}")
            return fickle_redis.listeners() == 2

        eventually(is_listening)
        old = one.get("/pages/shared").text
        assert other.get("/pages/shared").text == old
        assert [pid for _, pid in workers.runs("shared")] == [next(iter(clients))]
        one.get("/clear")
        eventually(lambda: other.get("/pages/shared").text != old)
        assert one.get("/pages/shared").text != old
    finally:
        for client in clients.values():
            client.close()
    assert shop.stop() == 0
    assert "Traceback" not in shop.log


# One view for all


def test_cold_key_asked_at_both_workers_runs_one_view(trusting_team: Team) -> None:
    """Two hundred clients of each process at the same time get what one run has made."""
    hold = trusting_team.workers.hold("cold")

    async def ask_while_held() -> list[tuple[int, str]]:
        asking = asyncio.create_task(ask_all(trusting_team, "/pages/cold", 200))
        await asyncio.sleep(0.5)
        hold.unlink()
        return await asking

    answers = asyncio.run(ask_while_held())
    ((body, _),) = trusting_team.workers.runs("cold")
    assert answers == [(200, body)] * 400


def test_those_behind_an_uncacheable_leader_wait_for_no_more_than_a_run(trusting_team: Team) -> None:
    """When the answer turns out to be personal, all others run side by side, in both processes."""
    begun = time.monotonic()
    answers = asyncio.run(ask_all(trusting_team, "/personal/shy", 40))
    # Each run takes 0.3 s; one after the other they would take 24 s.
    assert time.monotonic() - begun < 4 * 0.3 + 2 * NOISE
    runs = [body for body, _ in trusting_team.workers.runs("shy")]
    assert sorted(answers) == sorted((200, body) for body in runs)
    assert len(set(runs)) == 80


def test_another_worker_leads_when_the_leader_is_killed(workers: Workers, fickle_redis: FickleRedis) -> None:
    """The lock of a process that died lapses by itself; until then nobody runs the view again."""
    one, other = workers.start(store=fickle_redis.url), workers.start(store=fickle_redis.url)
    other.get("/pages/warm")
    hold = workers.hold("led")
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(one.get, "/pages/led")
        eventually(lambda: workers.runs("led"))
        following = pool.submit(other.get, "/pages/led")
        # It renews its lock: longer than that lasts, nobody else leads.
        time.sleep(LOCK_SECONDS + 0.5)
        assert [pid for _, pid in workers.runs("led")] == [one.process.pid]
        one.kill()
        assert isinstance(failing.exception(), httpx.HTTPError)
        eventually(lambda: len(workers.runs("led")) == 2, LOCK_SECONDS + NOISE)
        hold.unlink()
        (_, (body, pid)) = workers.runs("led")
        assert (following.result(), pid) == (body, other.process.pid)


# Killed while writing


def test_worker_killed_while_it_writes_to_redis(workers: Workers, fickle_redis: FickleRedis) -> None:
    """The half of its entry is never seen, and its lock holds nobody up for longer than it lasts."""
    one, other = workers.start(store=fickle_redis.url), workers.start(store=fickle_redis.url)
    path = "/large/huge?bytes=16000000"
    other.get("/pages/warm")
    hold = workers.hold("huge")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(one.get, path)
        eventually(lambda: workers.runs("huge"))
        fickle_redis.pause()  # sockets do not hold all of it: the write stands half way
        hold.unlink()
        body = asking.result()
        time.sleep(0.1)
        one.kill()
    fickle_redis.resume()
    begun = time.monotonic()
    again = other.get(path)
    assert time.monotonic() - begun < LOCK_SECONDS + NOISE
    (first, _), (second, pid) = workers.runs("huge")
    assert body.startswith(first)
    assert again.startswith(second)
    assert (len(again), pid) == (len(body), other.process.pid)
    assert other.stats()["store_errors"] == 0


def test_worker_killed_while_it_writes_a_file(workers: Workers, tmp_path: Path) -> None:
    """What it leaves behind is not taken for an entry by the next one."""
    folder = tmp_path / "cache"
    other = workers.start(store=f"files:{folder}")
    other.get("/pages/warm")

    def drafts() -> list[Path]:
        return list(folder.glob("*/*.part"))

    def killed(name: str) -> bool:
        """Kills a worker where a file is half written; False where that was too late."""
        one = workers.start(store=f"files:{folder}")
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(one.get, f"/large/{name}?bytes=40000000")
            while not drafts() and not asking.done():
                pass
            os.kill(one.process.pid, signal.SIGSTOP)
            os.waitpid(one.process.pid, os.WUNTRACED)
            one.kill()
            asking.exception()
            # One that was being renamed when the process was stopped may have been renamed all the same.
            return bool(drafts())

    name = next(name for name in map("huge-{}".format, range(20)) if killed(name))
    body = other.get(f"/large/{name}?bytes=40000000")
    (_, (run, pid)) = workers.runs(name)
    assert body.startswith(run)
    assert (len(body) > 39_000_000, pid) == (True, other.process.pid)
    assert other.get(f"/large/{name}?bytes=40000000") == body
    assert other.stats()["store_errors"] == 0


# Ending


@pytest.mark.parametrize("kind", ["redis", "cachelib"])
def test_worker_ends_while_redis_is_silent(workers: Workers, fickle_redis: FickleRedis, kind: str) -> None:
    """Neither an eviction that could not be told nor a call that hangs keeps it from stopping."""
    store = fickle_redis.url if kind == "redis" else f"cachelib:{fickle_redis.port}"
    worker = workers.start(store=store, cache={"store_deadline_seconds": 0.1})
    worker.get("/pages/first")
    fickle_redis.pause()
    for number in range(5):
        worker.get(f"/pages/page-{number}")
    worker.get("/evict?tags=pages")
    worker.get("/clear")
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 1 + NOISE
    # One line, in the form of all others, for the outage.
    (line,) = [line for line in worker.log.splitlines() if "store" in line]
    assert re.fullmatch(r"\[.+\] WARNING: The cache's store \S+ is away \(.+\): .+", line)


# Clocks


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_worker_whose_clock_is_wrong_prolongs_no_lifetime(wary_team: Team, seconds: int) -> None:
    """What it stores is used by others, and what others store by it, for two lifetimes at most."""
    one, other = wary_team.one, wary_team.other
    other.get(f"/ahead?seconds={seconds}")
    try:
        for writer, reader in ((one, other), (other, one)):
            path = f"/brief/page-{time.monotonic_ns()}"
            old = writer.get(path)
            assert reader.get(path)
            # A second in Redis, and one more in the memory of the reader.
            for worker in (reader, writer):
                eventually(partial(is_new, worker, path, old), 2 + NOISE)
    finally:
        other.get("/ahead?seconds=0")
    assert "Traceback" not in one.log + other.log
