"""The doors answer from the first hit on, before anything is recorded, and say what the view's door says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
from cachelib import SimpleCache
from quart import Response

from aeros import Br, Cache, Gzip, WebServer
from aeros.caching.entry import StoredResponse
from aeros.caching.shortcut import Shortcut
from aeros.compression import CompressionMiddleware, uncompressed
from tests.integration.wire import OWN, UVICORNS, listening


class Shop:
    """An application with cached pages, and a clock."""

    def __init__(self, *, early: bool, store: Any = None, **options: Any) -> None:
        self.now = 1_800_000_000.0
        self.runs = 0
        self.cache = Cache(store, clock=lambda: self.now, local_seconds=1)
        self.app = WebServer("shop", cache=self.cache, **options)

        async def page(key: str) -> Response:
            self.runs += 1
            return Response(f"page {key} " * 100, headers={"X-Page": key, "Cache-Control": "max-age=50"})

        self.app.add_url_rule("/pages/<key>", view_func=self.app.cache(timeout=60, early=early)(page))

        async def head() -> Response:
            return Response("a head of its own", headers={"X-Head": "own"})

        async def body() -> str:
            self.runs += 1
            return "a body " * 100

        self.app.add_url_rule("/split", "split_head", head, methods=["HEAD"], provide_automatic_options=False)
        cached = self.app.cache(timeout=60, early=early)(body)
        self.app.add_url_rule("/split", "split", cached, methods=["GET"])

        async def given() -> Response:
            return Response("given " * 100, headers={"X-Request-Id": "of-the-view"})

        self.app.add_url_rule("/given", view_func=self.app.cache(timeout=60, early=early)(given))

        async def odd(value: str) -> Response:
            response = Response("odd " * 100, headers={"Cache-Control": "max-age=60"})
            if value == "status":
                response.status_code = 700
            else:
                response.headers["X-Odd"] = "a\x01b"
            return response

        self.app.add_url_rule("/odd/<value>", view_func=self.app.cache(timeout=60, early=early)(odd))

        async def empty() -> None:
            return None

        nothing = self.app.cache(timeout=60, early=early, cache_none=True)(empty)
        self.app.add_url_rule("/empty", view_func=nothing)

    @property
    def doors(self) -> list[int]:
        """How many hits were answered at door 1, 2 and 3."""
        by_door = self.app.cache_stats().hits_by_door
        return [by_door[1], by_door[2], by_door[3]]

    def kept(self) -> list[StoredResponse]:
        """What is stored."""
        levels: Any = cast(Any, self.cache)._levels
        rooms: Any = levels.memory._rooms
        return [room.entry for room in rooms.values()]

    def recorded(self) -> int:
        """Of how many responses it is recorded how they were sent."""
        shortcuts = [entry.shortcut for entry in self.kept()]
        return sum(1 for one in shortcuts if isinstance(one, Shortcut) and one.recordings)


def asking(target: str, *fields: str, method: str = "GET") -> bytes:
    """Returns a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a.example", *fields, "", ""]).encode()


Step = bytes | Callable[[Shop], object]


async def said(shop: Shop, steps: Sequence[Step], options: Any = OWN) -> list[bytes]:
    """Returns what is answered to each request, without the value of its date; other steps lie between."""
    answers: list[bytes] = []
    settings = shop.app.current_settings().replace({"access_log_to_std": False})
    async with listening(shop.app, options, settings) as server:
        for step in steps:
            if callable(step):
                step(shop)
            else:
                answers.append((await server.say([step])).content)
    return answers


def wait(seconds: float) -> Callable[[Shop], object]:
    """Returns a step that lets time pass."""

    def pass_time(shop: Shop) -> None:
        shop.now += seconds

    return pass_time


GET: Final = asking("/pages/1")
CODED: Final = asking("/pages/1", "Accept-Encoding: br")
SEQUENCES: Final[dict[str, tuple[list[Step], list[int]]]] = {
    "plain": ([GET, GET], [1, 0, 0]),
    "coded": ([CODED, CODED], [1, 0, 0]),
    "another coding than the first": ([CODED, asking("/pages/1", "Accept-Encoding: gzip"), GET], [2, 0, 0]),
    "aged": ([GET, wait(7.5), GET, wait(30), CODED], [2, 0, 0]),
    "fresh no more": ([GET, wait(61), GET], [0, 0, 0]),
    "at the moment of its end": ([GET, wait(60), GET], [0, 0, 0]),
    "the clock was set back": ([GET, wait(-100), GET], [0, 0, 1]),
    "a condition": (
        [GET, *[asking("/pages/1", f"If-None-Match: {tag}") for tag in ("*", '"other"', "*", "*", "*")]],
        [5, 0, 0],
    ),
    "a range": ([GET, asking("/pages/1", "Range: bytes=0-3")], [0, 0, 1]),
    "a cookie": ([GET, asking("/pages/1", "Cookie: a=b")], [1, 0, 0]),
    "head": ([GET, asking("/pages/1", method="HEAD"), asking("/pages/1", method="HEAD")], [1, 0, 1]),
    "head of another view": (
        [asking("/split"), asking("/split", method="HEAD"), asking("/split")],
        [1, 0, 0],
    ),
    "an escaped path": ([asking("/pages/a%20b"), asking("/pages/a%20b")], [1, 0, 0]),
    "two ways to write a path": ([asking("/pages/a"), asking("/pages/%61"), asking("/pages/a")], [1, 0, 0]),
    "another query, which the key has not": (
        [asking(f"/pages/1?{query}") for query in ("a", "b", "b", "a", "a")],
        [2, 0, 2],
    ),
    "a proxy's client": (
        [asking("/pages/1", f"X-Forwarded-For: {who}") for who in ("192.0.2.1", "192.0.2.1", "192.0.2.2, x")],
        [2, 0, 0],
    ),
    "a proxy's scheme": (
        [
            GET,
            *[asking("/pages/1", "X-Forwarded-Proto: https")] * 2,
            GET,
            asking("/pages/1", "X-Forwarded-Proto: x"),
        ],
        [3, 0, 0],
    ),
    "a proxy's host": (
        [
            asking("/pages/1", *(f"X-Forwarded-Host: {host}" for host in hosts))
            for hosts in (("a",), ("a",), ("b",), (), ("b",), ("a", "b"), ("a", "b"))
        ],
        [2, 0, 1],
    ),
    "a value that can not be sent": ([asking("/odd/value")] * 5, [0, 0, 4]),
    "a status that can not be sent": ([asking("/odd/status")] * 5, [0, 0, 4]),
    "nothing": ([asking("/empty"), asking("/empty")], [0, 0, 1]),
    "an id that the view gives": ([asking("/given"), asking("/given")], [1, 0, 0]),
    "again and again": ([GET, GET, GET, GET, GET, CODED, CODED, CODED], [7, 0, 0]),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("compressor", [False, Gzip(), Br(min_size=0)])
async def test_first_hit_is_what_the_view_s_door_says(name: str, compressor: Any) -> None:
    """Byte for byte, with or without a compressor; and it is known which door has answered."""
    steps, doors = SEQUENCES[name]
    options = {"compression": compressor, "global_headers": {"X-Global": "1", "Vary": "Origin"}}
    early, late = Shop(early=True, **options), Shop(early=False, **options)
    assert await said(early, steps) == await said(late, steps)
    assert early.doors == doors
    assert late.doors[:2] == [0, 0]
    assert early.runs == late.runs


async def test_proxy_that_is_not_trusted_tells_nothing() -> None:
    """What it says of the scheme is not believed anywhere, nor are bytes known that a trusted one sent."""
    secure = asking("/pages/1", "X-Forwarded-Proto: https")
    steps: list[Step] = [GET, *[secure] * 6, GET]
    options = {**OWN, "forwarded_allow_ips": "192.0.2.7"}
    early, late = Shop(early=True), Shop(early=False)
    assert await said(early, steps, options) == await said(late, steps, options)
    assert (early.runs, late.runs) == (1, 1)
    assert early.doors == [7, 0, 0]
    trusted = Shop(early=True)
    async with listening(trusted.app, OWN) as server:
        for _ in range(6):
            await server.say([secure])
        assert trusted.runs == 1
        assert list(server.served.known) == []


def test_access_log_tells_the_client_behind_a_proxy(tmp_path: Path) -> None:
    """A hit at door 1 as a miss at the view's."""
    shop, log = Shop(early=True), tmp_path / "access.log"
    with shop.app.run_in_thread(access_log_file=log) as server:
        for _ in range(2):
            httpx.get(f"{server.url}/pages/1", headers={"X-Forwarded-For": "192.0.2.1"})
    assert shop.doors == [1, 0, 0]
    assert [line.count("192.0.2.1") for line in log.read_text().splitlines()] == [1, 1]


async def test_first_hit_behind_uvicorn_s_own_protocol() -> None:
    """Door 2 says the same."""
    early, late = Shop(early=True), Shop(early=False)
    steps: list[Step] = [GET, GET, CODED, CODED]
    assert await said(early, steps, UVICORNS) == await said(late, steps, UVICORNS)
    assert early.doors == [0, 3, 0]


async def test_view_s_own_request_id_is_not_another_s() -> None:
    """Where requests have ids, a response that was stored with one is left to the view's door."""
    shop = Shop(early=True)
    async with listening(shop.app, OWN) as server:
        with shop.app.using_settings(shop.app.current_settings().replace({"request_ids": True})):
            answers = [(await server.say([asking("/given")])).content for _ in range(3)]
    assert [answer.count(b"x-request-id: ") for answer in answers] == [1, 1, 1]
    assert b"of-the-view" not in b"".join(answers)
    assert shop.doors == [0, 0, 2]


async def test_first_hit_follows_what_is_in_force() -> None:
    """Another compressor, or other headers for all, count from the next request on."""
    shop = Shop(early=True)
    settings = shop.app.current_settings().replace({"global_headers": {"X-Late": "1"}})
    async with listening(shop.app, OWN) as server:
        first = (await server.say([GET])).content
        with shop.app.using_settings(settings):
            second = (await server.say([GET])).content
        third = (await server.say([GET])).content
    assert b"x-late" not in first + third
    assert b"x-late: 1\r\n" in second


async def test_recording_made_before_a_change_is_made_anew() -> None:
    """With other headers for all it is not said again, nor does it close the doors."""
    shop = Shop(early=True)
    await said(shop, [GET] * 5)
    assert shop.recorded() == 1
    settings = shop.app.current_settings().replace({"global_headers": {"X-Late": "1"}})
    async with listening(shop.app, OWN) as server:
        with shop.app.using_settings(settings):
            answers = [(await server.say([GET])).content for _ in range(4)]
        answers.append((await server.say([GET])).content)
    assert [answer.count(b"x-late: 1\r\n") for answer in answers] == [1, 1, 1, 1, 0]
    assert shop.doors == [9, 0, 0]


async def test_hook_that_is_added_closes_the_way() -> None:
    """Whatever is put on the way later sees each request."""
    shop = Shop(early=True)
    seen: list[str] = []

    async def see() -> None:  # not in a thread, for which the turns of a busy loop may not be enough
        seen.append("seen")

    def add_hook(shop: Shop) -> None:
        shop.app.before_request_funcs.setdefault(None, []).append(see)

    await said(shop, [GET, add_hook, GET, GET])
    assert len(seen) == 2
    assert shop.doors == [0, 0, 2]


async def test_only_what_is_asked_for_again_and_again_is_recorded() -> None:
    """Three hits, each within a second of the one before it."""
    shop = Shop(early=True)
    await said(shop, [GET, GET, GET])
    assert shop.recorded() == 0
    await said(shop, [wait(2), GET, GET, wait(2), GET, GET])
    assert shop.recorded() == 0
    await said(shop, [GET])
    assert shop.recorded() == 1
    assert shop.doors == [7, 0, 0]


async def test_so_many_are_recorded_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the first to be recorded leave, and are answered as before; a hot one comes back."""
    monkeypatch.setattr("aeros.doors._MOST_RECORDED", 3)
    shop = Shop(early=True)
    targets = [asking(f"/pages/{number}") for number in range(5)]
    steps: list[Step] = [target for target in targets for _ in range(4)]
    await said(shop, steps)
    assert shop.recorded() == 3
    before = shop.app.cache_stats().bytes
    [first, again] = await said(shop, [targets[0], targets[0]])
    assert first == again
    assert shop.recorded() == 3
    assert shop.app.cache_stats().bytes <= before + 100
    assert shop.doors[1:] == [0, 0]


async def test_long_targets_are_not_recorded() -> None:
    """Nor are they known at all: the view's door answers."""
    shop = Shop(early=True)
    target = asking("/pages/" + "x" * 5_000)
    answers = await said(shop, [target] * 6)
    assert set(answers[1:]) == {answers[1]}
    assert shop.recorded() == 0
    assert shop.doors == [0, 0, 5]


async def test_names_count_as_memory_and_have_a_bound() -> None:
    """A query that the key does not have is a part of what a response is found by, until it is too long."""
    shop = Shop(early=True)
    await said(shop, [GET])
    before = shop.app.cache_stats().bytes
    await said(shop, [wait(2), asking("/pages/1?" + "x" * 3_000), wait(2)])
    assert before + 2_900 < shop.app.cache_stats().bytes < before + 3_100
    await said(shop, [asking("/pages/1?" + "x" * 5_000)] * 2)
    await said(shop, [wait(2)])
    assert shop.app.cache_stats().bytes < before + 3_100
    await said(shop, [GET])
    assert shop.app.cache_stats().bytes == before
    assert shop.doors == [0, 0, 4]


async def test_bound_of_recordings_holds_where_entries_are_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a store that has to be asked, what leaves can not be used, and is forgotten all the same."""
    monkeypatch.setattr("aeros.doors._MOST_RECORDED", 3)
    shop = Shop(early=True, store=SimpleCache())
    for number in range(8):
        await said(shop, [asking(f"/pages/{number}")] * 6)
        await said(shop, [wait(5)])
    assert shop.recorded() == 3


@pytest.mark.parametrize("early", [True, False])
async def test_compressor_further_out_is_told_of_an_opt_out(early: bool) -> None:
    """Each time, whoever has answered: a secret is not to be compressed."""
    app = WebServer("opted", compression=False)

    async def view() -> str:
        return "secret " * 300

    app.add_url_rule("/", view_func=app.cache(timeout=60, early=early)(uncompressed(view)))
    transport = httpx.ASGITransport(app=cast(Any, CompressionMiddleware(app, Gzip())))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        answers = [await client.get("/") for _ in range(6)]
    assert [answer.headers.get("content-encoding") for answer in answers] == [None] * 6
    assert app.cache_stats().hits == 5


async def test_doors_of_a_mounted_application_are_asked() -> None:
    """That a server has asked the outer one's says nothing of the inner one's."""
    outer, inner = Shop(early=True), Shop(early=True)
    app = outer.app.asgi_app

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        mounted = scope["type"] == "http" and scope["path"] == "/pages/inner"
        await (inner.app if mounted else app)(scope, receive, send)

    await said(outer, [GET, GET])
    outer.app.asgi_app = dispatch  # type: ignore[method-assign]
    await said(outer, [asking("/pages/inner")] * 4)
    assert inner.doors == [0, 3, 0]


async def test_recorded_one_that_is_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was evicted meanwhile is not looked for in vain."""
    monkeypatch.setattr("aeros.doors._MOST_RECORDED", 1)
    shop = Shop(early=True)
    await said(shop, [GET] * 4)
    assert shop.recorded() == 1
    shop.cache.clear()
    other = asking("/pages/2")
    await said(shop, [other] * 5)
    assert shop.recorded() == 1
    assert len(shop.kept()) == 1
