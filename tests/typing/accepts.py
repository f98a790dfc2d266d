"""What a strictly typed application writes: mypy --strict and pyright strict accept all of it.

Never run. ``assert_type`` says what the user's editor is to show.
"""
# ruff: noqa: D102, D103 - what the application says of itself is not the matter

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, assert_type

import uvicorn
from cachelib import FileSystemCache, RedisCache, SimpleCache
from dependency_injector import providers
from quart import Blueprint, Quart, Response, request
from quart.views import MethodView

from aeros import (
    AddressInUseError,
    AerosError,
    BindError,
    Br,
    Cache,
    CacheStats,
    ConfigurationError,
    Container,
    EntryFormatError,
    Explanation,
    Gzip,
    InstancePathError,
    InvalidHeaderError,
    InvalidSettingError,
    InvalidVariableError,
    JsonSerializer,
    LogFileError,
    Memoized,
    MissingExtraError,
    Negotiated,
    PrivilegedPortError,
    ProviderError,
    RedisStore,
    Serializer,
    ServerSettings,
    StartupError,
    TypedSerializer,
    UncacheableArgumentError,
    UnknownOptionError,
    UnknownVariableError,
    UnserializableError,
    WebServer,
    Zstd,
)
from aeros.compression import Base, Coding
from aeros.serving.runner import AnyServer, RunningServer

# The container: providers are replaced without an annotation, an ignore or a cast.


class Users:
    """A collaborator of the application's own."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def name_of(self, number: int) -> str:
        return f"{number}@{self.address}"


class MyCache(Cache):
    """A cache with a method more."""


class MyServer(uvicorn.Server):
    """A server with a method more."""


class StandIn:
    """What a test may give in place of uvicorn's server."""

    def __init__(self, config: uvicorn.Config) -> None:
        self.config = config

    def run(self) -> None: ...


def find_compressor() -> Gzip | None:
    return None


class AppContainer(Container):
    cache = providers.Singleton(Cache, default_timeout=60)
    compressor = providers.Singleton(Gzip)
    logger = providers.Object(logging.getLogger("shop"))
    server = providers.Factory(MyServer)
    users = providers.Singleton(Users, address="localhost")
    retries = providers.Object(3)


class QuietContainer(Container):
    config = providers.Configuration(yaml_files=["settings.yaml"])
    cache = providers.ThreadSafeSingleton(MyCache, SimpleCache(), default_timeout=timedelta(minutes=1))
    compressor = providers.Object(None)
    logger = providers.Callable(logging.getLogger, "quiet")
    settings = providers.Object(ServerSettings(port=8000))
    server = providers.Factory(StandIn)


class MoreContainer(AppContainer):
    compressor = providers.Singleton(Br, level=5)
    sessions = providers.Factory(dict[str, str])


class ObjectContainer(Container):
    cache = providers.Object(Cache())
    compressor = providers.Object(Negotiated(Zstd(), Gzip(9)))
    logger = providers.Object(logging.getLogger("objects").getChild("child"))
    server = providers.Factory(uvicorn.Server)


class CallableContainer(Container):
    compressor = providers.Callable(find_compressor)
    cache = providers.Singleton(MyCache)


container = AppContainer()
assert_type(container.cache(), Cache)
assert_type(container.compressor(), Base | None)
assert_type(container.logger(), logging.Logger)
assert_type(container.settings(), ServerSettings)
assert_type(container.users(), Users)
assert_type(container.users().address, str)
assert_type(container.retries(), int)
assert_type(container.server(uvicorn.Config("shop:app")), AnyServer)
assert_type(container.config, providers.Configuration)
assert_type(MoreContainer().sessions(), dict[str, str])
assert_type(MoreContainer().users(), Users)
assert_type(QuietContainer().compressor(), Base | None)
assert_type(QuietContainer().cache(), Cache)
assert_type(QuietContainer().settings().port, int)
assert_type(ObjectContainer().cache(), Cache)
assert_type(CallableContainer().compressor(), Base | None)
assert_type(Container().cache(), Cache)
Container.config.from_dict({"port": 8000})
anywhere: Container = AppContainer()

# The application, and what its container gives.

app = WebServer(__name__)
assert_type(app, WebServer[Container])
assert_type(app.container, Container)
assert_type(app.container.cache(), Cache)
assert_type(app.logger, logging.Logger)
assert_type(WebServer(__name__, container=None), WebServer[Container])

shop = WebServer(__name__, container=AppContainer())
assert_type(shop, WebServer[AppContainer])
assert_type(shop.container, AppContainer)
assert_type(shop.container.cache(), Cache)
assert_type(shop.container.users(), Users)
assert_type(shop.container.retries(), int)
as_quart: Quart = shop


class Shop(WebServer):
    """A subclass without a container of its own."""


class TypedShop(WebServer[AppContainer]):
    """A subclass with one."""


assert_type(Shop(__name__).container, Container)
assert_type(TypedShop(__name__, container=AppContainer()).container.users(), Users)


def run_any(server: WebServer) -> None:
    """An annotation without a parameter means an application with the default container."""
    assert_type(server.container, Container)


def run_shop(server: WebServer[AppContainer]) -> None:
    assert_type(server.container.users(), Users)


run_any(app)
run_any(shop)  # a server with more providers is a server
run_shop(shop)

positional = WebServer(
    __name__,
    "127.0.0.1",
    8000,
    False,
    logging.DEBUG,
    SimpleCache(),
    Br(),
    {"X-Frame-Options": "DENY"},
    "/static",
)
headers: Mapping[str, str] = {"Server-Timing": "app"}
WebServer(__name__, logging_level="debug", global_headers=headers, template_folder=Path("templates"))


class RowStore:
    """A store of the application's own: the protocol asks for no base class."""

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        return [None for _ in names]

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None: ...


WebServer(__name__, cache=Cache())
WebServer(__name__, cache=SimpleCache())
WebServer(__name__, cache=RedisCache(host="localhost"))
WebServer(__name__, cache=FileSystemCache("/var/cache/shop"))
WebServer(__name__, cache=RowStore())
assert_type(Cache(SimpleCache(), default_timeout=None), Cache)
assert_type(Cache(RedisCache(), default_timeout=timedelta(hours=1), max_bytes=2**20).max_bytes, int)
assert_type(Cache(default_timeout=2.5).default_timeout, float | None)


# Views keep their parameters and their result.


@app.route("/")
@app.cache()
async def index() -> str:
    return "hello"


@app.route("/pages/<int:number>", methods=["GET", "HEAD"], strict_slashes=False)
@app.cache(timeout=60, key_prefix="pages/%s", query_string=True, hash_method=hashlib.sha256, cache_none=True)
async def page(number: int, *, draft: bool = False) -> dict[str, int]:
    return {"number": number, "draft": draft}


@app.cache(timedelta(minutes=5))
def report(year: int, month: int = 1) -> tuple[str, int]:
    return f"{year}-{month}", 200


@app.route("/plain")
def plain(size: int = 3) -> str:
    return "x" * size


assert_type(plain(), str)
assert_type(plain(size=2), str)


@app.route("/parts", defaults={"count": 1}, endpoint="parts", websocket=False)
async def parts(count: int) -> Response:
    return Response(str(count))


async def is_preview() -> bool:
    return "preview" in request.args


def is_forced() -> bool:
    return request.args.get("refresh") == "1"


async def is_small(response: Response) -> bool:
    return len(await response.get_data()) < 1_000


def is_plain(response: Response) -> bool:
    return response.content_type == "text/plain"


def key() -> str:
    return request.path


@app.cache(2.5, unless=is_preview, forced_update=is_forced, response_filter=is_small)
async def filtered() -> None: ...


@app.cache(key_prefix=key, unless=lambda: True, response_filter=is_plain, hash_method=hashlib.blake2b)
async def keyed() -> None: ...


@app.route("/stream")
async def stream() -> AsyncGenerator[bytes, None]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"chunk"

    return chunks()


class ItemView(MethodView):
    """A class-based view whose decorators are the whole class's."""

    decorators: ClassVar[list[Callable[..., Any]]] = [app.cache(60)]

    async def get(self, number: int) -> str:
        return str(number)


class OtherView(MethodView):
    """A class-based view with the decorator on a method."""

    @app.cache(timeout=60)
    async def get(self, number: int) -> str:
        return str(number)

    @app.cache()
    def head(self, number: int, *, short: bool = True) -> str:
        return str(number) if short else ""

    async def post(self, number: int) -> tuple[str, int]:
        return str(number), 201


app.add_url_rule("/items/<int:number>", view_func=ItemView.as_view("items"))
app.add_url_rule("/others/<int:number>", view_func=OtherView.as_view("others"))
app.add_url_rule("/both/<int:number>", view_func=app.cache(60)(OtherView.as_view("both")))

admin = Blueprint("admin", __name__)


@admin.route("/users/<name>")
@app.cache(30)
async def user(name: str) -> str:
    return name


app.register_blueprint(admin)


def cached_for_a_day(
    view: Callable[[int], Coroutine[Any, Any, str]],
) -> Callable[[int], Coroutine[Any, Any, str]]:
    """A helper of the application's own may pass the decorator on."""
    return app.cache(timedelta(days=1))(view)


async def call_views() -> None:
    """Views are called with their own parameters; a sync view is awaited once it is decorated."""
    assert_type(await index(), str)
    assert_type(await page(1), dict[str, int])
    assert_type(await page(number=1, draft=True), dict[str, int])
    assert_type(await report(2024), tuple[str, int])
    assert_type(await report(2024, month=2), tuple[str, int])
    assert_type(await parts(1), Response)
    assert_type(await filtered(), None)
    assert_type(await stream(), AsyncGenerator[bytes, None])
    assert_type(await OtherView().get(1), str)
    assert_type(await OtherView().get(number=1), str)
    assert_type(await OtherView().head(1, short=False), str)
    assert_type(await user("ada"), str)


# What the application tells.

stats = app.cache_stats()
assert_type(stats, CacheStats)
assert_type(stats.hits, int)
assert_type(stats.misses, int)
assert_type(stats.bytes, int)
assert_type(stats.bypasses, Mapping[str, int])
assert_type(stats.bypasses.get("set-cookie", 0), int)
assert_type(app.clear_cache(), int | None)

settings = app.container.settings()
assert_type(settings.host, str)
assert_type(settings.port, int)
assert_type(settings.log_level, int)
assert_type(settings.access_log_file, str | None)
assert_type(settings.soft_limit, int | None)
assert_type(settings.global_headers, Mapping[str, str])
assert_type(settings.color, bool | None)
assert_type(settings.replace({"port": 1}), ServerSettings)


# Running.


def serve() -> None:
    app.run_server()
    app.run_server("127.0.0.1", 8000, "info", "access.log", False, True, 10, 20)
    app.run_server(
        port=0, log_level=logging.WARNING, access_log_file=Path("access.log"), access_log_to_std=True
    )
    app.run_server(soft_limit=None, hard_limit=None, log_format="json", color=None)
    app.run_server(
        workers=4, proxy_headers=True, timeout_keep_alive=5, loop="uvloop", ssl_keyfile=Path("key")
    )
    app.run(debug=True, use_reloader=False, certfile="cert.pem", keyfile="key.pem", proxy_headers=False)
    with app.run_in_thread(port=0, timeout_keep_alive=1) as server:
        assert_type(server, RunningServer)
        assert_type(server.url, str)
        assert_type(server.port, int)


# Compression.


class Reversed:
    """A content coding of the application's own: the protocol asks for no base class."""

    name = "x-reversed"

    def compress(self, content: bytes) -> bytes:
        return content[::-1]


class OnlyReversed(Base):
    """A compressor of the application's own."""

    @property
    def codings(self) -> tuple[Coding, ...]:
        return (Reversed(),)


assert_type(Negotiated(Reversed(), Br(5), Gzip(level=9, min_size=0)), Negotiated)
assert_type(Negotiated(mimetypes=["text/*"]).codings, tuple[Coding, ...])
assert_type(Gzip().negotiate("gzip"), Coding | None)
assert_type(Zstd(3, mimetypes={"text/html"}).min_size, int)
WebServer(__name__, compression=Zstd())
WebServer(__name__, compression=OnlyReversed())
WebServer(__name__, compression=False)


# Errors.


def report_error(error: AerosError) -> None:
    match error:
        case AddressInUseError() | PrivilegedPortError():
            assert_type(error.port, int)
        case InvalidVariableError() | UnknownVariableError():
            assert_type(error.code, str | int | None)
        case UnknownOptionError():
            assert_type(error.nearest, str | None)
            assert_type(error.known, tuple[str, ...])
        case InvalidSettingError():
            assert_type(error.value, object)
        case InvalidHeaderError() | ProviderError() | MissingExtraError() | LogFileError() | BindError():
            assert_type(error.setting, str)
        case InstancePathError() | ConfigurationError():
            assert_type(error.cure, str)
        case StartupError():
            assert_type(error.code, str | int | None)
        case EntryFormatError():
            pass
        case _:
            raise error


# The cache: views and functions keep their parameters and results.

books = WebServer(__name__, cache=Cache(RedisStore.from_url("redis://localhost"), local_seconds=2))
shelf = WebServer(__name__, cache=RedisStore.from_url("valkey://localhost/1", prefix="shelf"))


@books.route("/books/<int:number>")
@books.cache(
    timeout=timedelta(minutes=5),
    vary=["Accept-Language"],
    cookies="theme",
    key=lambda: "tenant",
    query_include=("page", "sort_*"),
    tags=lambda number: ["books", f"book:{number}"],
    statuses={404: 10, 301: timedelta(days=1)},
    stale_while_revalidate=60,
    stale_if_error=timedelta(hours=1),
    authorized=True,
)
async def book(number: int) -> dict[str, str]:
    return {"number": str(number)}


@books.route("/books/<int:number>", methods=["PUT"])
@books.invalidates(tags=lambda number: f"book:{number}", paths="/books")
async def rename(number: int) -> dict[str, str]:
    return {}


@books.memoize(timeout=60, tags="rates", ignored=["trace"])
async def rate(base: str, target: str = "EUR", *, trace: bool = False) -> float:
    return 1.0


@books.memoize(serializer=TypedSerializer(list[int]), key=lambda number: f"of {number}")
async def divisors(number: int) -> list[int]:
    return [number]


@books.memoize(serializer=TypedSerializer(int | None))
async def answer() -> int | None:
    return None


async def uses_the_cache() -> None:
    assert_type(await book(1), dict[str, str])
    assert_type(await rename(1), dict[str, str])
    assert_type(await rate("USD", target="GBP"), float)
    assert_type(await rate.evict("USD"), int | None)
    assert_type(await rate.evict_all(), int | None)
    assert_type(await divisors(6), list[int])
    assert_type(await answer(), int | None)
    assert_type(await books.evict(tags=["a", "b"], path="/books"), int | None)
    assert_type(await books.evict(everything=True), int | None)
    assert_type(books.clear_cache(tags="a"), int | None)
    explained = await books.cache_explain("GET", "/books/1", {"Accept-Language": "de"})
    assert_type(explained, Explanation)
    assert_type(explained.tags, tuple[str, ...])
    assert_type(explained.cure, str | None)
    plain: Serializer[dict[str, int]] = JsonSerializer()
    assert_type(plain.name, str)
    await takes_a_memoized(divisors)


async def takes_a_memoized(function: Memoized[[int], list[int]]) -> None:
    assert_type(await function(6), list[int])


def is_about_values(error: UnserializableError | UncacheableArgumentError) -> str:
    return error.problem
