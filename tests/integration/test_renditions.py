"""A hit goes out as the last one did, or as it would without any memory of it.

Hooks keep doors 1 and 2 closed here. The same application is asked on uvicorn's own protocol as well, where
nothing is remembered of how a hit was sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import pytest
from quart import Response, request, session

from aeros import Br, Cache, Gzip, WebServer, Zstd
from aeros.caching.rendition import Rendition
from aeros.compression import Base
from aeros.settings import ServerSettings
from tests.integration.wire import OWN, UVICORNS, Listening, Said, listening

TEXT: Final = "a line of text\n" * 60


@dataclass
class Shop:
    """An application with hooks, and what they do."""

    app: WebServer
    now: float = 1_800_000_000.0
    hooks: list[Callable[[Response], object]] = field(default_factory=list[Callable[[Response], object]])


def open_shop(**options: Any) -> Shop:
    """Returns an application."""
    app = WebServer("shop", cache=Cache(clock=lambda: shop.now), **options)
    app.secret_key = "tests only"
    shop = Shop(app)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> str:
        return TEXT

    @app.after_request
    async def change(response: Response) -> Response:
        for hook in shop.hooks:
            hook(response)
        return response

    return shop


def get(*fields: str, method: str = "GET", accept: str | None = "gzip, br, zstd") -> bytes:
    """Returns a request."""
    accepted = [] if accept is None else [f"Accept-Encoding: {accept}"]
    return "\r\n".join([f"{method} / HTTP/1.1", "Host: a.example", *accepted, *fields, "", ""]).encode()


KINDS: Final = [
    get(),
    get(accept=None),
    get(accept="gzip"),
    get(accept="identity;q=0"),
    get(method="HEAD"),
    get("Range: bytes=2-9"),
    get("Range: bytes=2-9", accept=None),
    get("Range: bytes=9999-", accept=None),
    get("If-None-Match: *"),
    get('If-None-Match: "other"'),
    get("If-Modified-Since: Tue, 01 Jan 2030 00:00:00 GMT"),
    get("Cookie: session=x"),
    get("Origin: http://b.example"),
]


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[Rendition]:
    """What was sent again as it was sent before."""
    seen: list[Rendition] = []
    is_of = Rendition.is_of

    def watched(self: Rendition, *args: Any) -> bool:
        is_same = is_of(self, *args)
        if is_same:
            seen.append(self)
        return is_same

    monkeypatch.setattr(Rendition, "is_of", watched)
    return seen


@asynccontextmanager
async def serving(shop: Shop) -> AsyncGenerator[tuple[Listening, Listening]]:
    """Serves an application on both protocols, and asks until hits are remembered."""
    async with listening(shop.app, OWN) as own, listening(shop.app, UVICORNS) as uvicorns:
        for _ in range(7):
            await own.say([get()])
        yield own, uvicorns


def steady(said: Said) -> Said:
    """Returns what was said, without the second in which a session was signed."""
    return said._replace(content=re.sub(rb"(session=[^.;]+)[^;]*", rb"\1", said.content))


async def same(shop: Shop, servers: tuple[Listening, Listening]) -> list[Said]:
    """Asks in each way, several times, and compares; the doors must be closed."""
    told: list[Said] = []
    # Stores it where there is another cache; and its tag is one that only the way out can compare.
    tag = re.search(rb"\r\netag: ([^\r]+)", (await servers[1].say([get()])).content)
    asked = [] if tag is None else [get(f"If-None-Match: {tag[1].decode()}")]
    for content in [*KINDS, *asked]:
        for _ in range(3):
            expected = steady(await servers[1].say([content]))
            told.append(steady(await servers[0].say([content])))
            assert told[-1] == expected, content
    by_door = shop.app.cache_stats().hits_by_door
    assert by_door[1] == by_door[2] == 0
    return told


async def test_hit_is_sent_again_byte_for_byte(repeated: list[Rendition]) -> None:
    """The first that was kept, the next ones, and those on a server that keeps none are the same."""
    shop = open_shop()
    async with serving(shop) as servers:
        assert len(repeated) == 3  # behind a miss, a hit that is no sign of demand, and one that is kept
        told = await same(shop, servers)
    assert len(repeated) > 12
    assert all(said.is_kept for said in told)
    kinds = {said.content[9:12] for said in told}
    assert kinds == {b"200", b"206", b"304", b"416"}


async def test_time_is_told_each_time() -> None:
    """Age and what is left are those of the moment."""
    shop = open_shop()
    async with serving(shop) as servers:
        told: list[list[Said]] = []
        for _ in range(5):
            shop.now += 1.25
            told.append(await same(shop, servers))
    assert all(said not in told[:number] for number, said in enumerate(told))


def replace_body(response: Response) -> None:
    """Makes another body of it."""
    response.set_data("replaced " * 100)


def count_fields(response: Response) -> None:
    """Tells each request's own number of fields."""
    response.headers["X-Fields"] = str(len(request.headers))


def setting(name: str, value: str) -> Callable[[Shop], object]:
    """Returns what has a field set by a hook."""

    def change(response: Response) -> None:
        response.headers[name] = value

    return lambda shop: shop.hooks.append(change)


def override(name: str, value: object) -> Callable[[Shop], object]:
    """Returns what overrides a provider."""
    return lambda shop: getattr(shop.app.container, name).override(value)


CHANGES: Final[dict[str, Callable[[Shop], object]]] = {
    "brotli": override("compressor", Br(level=1)),
    "gzip": override("compressor", Gzip(level=1)),
    "only long ones": override("compressor", Zstd(min_size=10**6)),
    "no compressor": override("compressor", None),
    "global fields": override("settings", ServerSettings(global_headers={"X-Now": "1", "Vary": "Origin"})),
    "another body": lambda shop: shop.hooks.append(replace_body),
    "a field": setting("X-Hook", "1"),
    "a field of the request": lambda shop: shop.hooks.append(count_fields),
    "a tag": setting("ETag", '"own"'),
    "no date": lambda shop: shop.hooks.append(lambda response: response.headers.pop("Date", None)),
    "a status": lambda shop: shop.hooks.append(lambda response: setattr(response, "status_code", 404)),
    "a cookie": lambda shop: shop.hooks.append(lambda response: response.set_cookie("a", "b")),
    "not to be transformed": setting("Cache-Control", "no-transform"),
    "not to be coded": setting("Content-Encoding", "identity"),
    "another type": setting("Content-Type", "image/png"),
    "no parts": setting("Accept-Ranges", "none"),
    "the session": lambda shop: shop.hooks.append(lambda _: session.get("visits")),
    "a change of the session": lambda shop: shop.hooks.append(lambda _: session.update(visits=1)),
    "an end of the connection": setting("Connection", "close"),
    "no status of the cache": lambda shop: override(
        "cache", Cache(clock=lambda: shop.now, show_status=False)
    )(shop),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_change_counts_from_the_next_hit_on(change: Callable[[Shop], object]) -> None:
    """What was remembered before it is not sent any more, and comes back with what it was made of."""
    shop = open_shop()
    async with serving(shop) as servers:
        before = await same(shop, servers)
        providers: dict[str, Any] = cast(Any, shop.app.container).providers
        counts = {name: len(provider.overridden) for name, provider in providers.items()}
        change(shop)
        overridden = [
            providers[name] for name, count in counts.items() if len(providers[name].overridden) > count
        ]
        assert await same(shop, servers) != before
        shop.hooks.clear()
        for provider in overridden:
            provider.reset_last_overriding()
        assert await same(shop, servers) == before


async def test_tags_count_from_the_next_hit_on() -> None:
    """A response without a tag of its own gets one, and is compared with it."""
    shop = open_shop()
    shop.hooks.append(lambda response: response.headers.set("X-Hook", "1"))
    async with serving(shop) as servers:
        await same(shop, servers)
        override("settings", ServerSettings(etag=True))(shop)
        told = await same(shop, servers)
    assert b"\r\netag: " in told[0].content


@pytest.mark.parametrize("compressor", [Gzip(), Br(level=1), None], ids=repr)
async def test_variants_that_come_later_are_sent(compressor: Base | None) -> None:
    """Codings that the first hits did not ask for."""
    shop = open_shop(compression=compressor if compressor is not None else False)
    async with serving(shop) as servers:
        for accept in ("identity", "gzip", "br", "gzip;q=0.5, br", "*"):
            for number in range(8):
                content = get(accept=None if number % 2 else accept)
                said = await servers[0].say([content])
                assert said == await servers[1].say([content])


async def test_thorough_variant_is_sent_once_it_is_there(repeated: list[Rendition]) -> None:
    """Where uses are counted nothing is remembered, so that the one that comes of them is sent."""
    shop = open_shop(compression=Br(level=1, hot_after=8))
    async with serving(shop) as servers:
        tags: list[bytes] = []
        async with asyncio.timeout(20):
            while len(set(tags)) < 2:
                said = await servers[0].say([get()])
                tags.append(said.content.partition(b"\r\netag: ")[2].partition(b"\r\n")[0])
    assert repeated == []


async def test_what_is_remembered_counts_as_the_cache_s_memory() -> None:
    """Asking again and again takes room once, and it is counted."""
    shop = open_shop()
    async with serving(shop) as servers:
        first = shop.app.cache_stats().bytes
        for _ in range(5):
            await servers[0].say([get()])
        assert shop.app.cache_stats().bytes == first
        sizes: list[int] = []
        for weight in range(1, 8):
            for _ in range(2):
                await servers[0].say([get(accept=f"zstd;q=0.{weight}")])
            sizes.append(shop.app.cache_stats().bytes)
    assert first < sizes[0] < sizes[1]
    assert sizes[3] == sizes[6]  # of four kinds the oldest leaves
