"""What a strictly typed application writes: mypy --strict and pyright strict accept all of it.

Never run. ``assert_type`` says what the user's editor is to show.
"""
# ruff: noqa: D102, D103 - what the application says of itself is not the matter

from __future__ import annotations

import hashlib
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO, assert_type

import uvicorn
from cachelib import FileSystemCache, RedisCache, SimpleCache
from dependency_injector import providers
from prometheus_client import CollectorRegistry
from quart import Blueprint, Quart, Response, request
from quart.typing import ResponseTypes
from quart.views import MethodView

from aeros import (
    AddressInUseError,
    AerosError,
    BindError,
    Br,
    Cache,
    CacheControl,
    CacheStats,
    ConfigurationError,
    Container,
    EntryFormatError,
    Explanation,
    Gzip,
    ImportPathError,
    InjectionError,
    InstancePathError,
    InvalidHeaderError,
    InvalidSettingError,
    InvalidVariableError,
    JsonSerializer,
    LogFileError,
    Memoized,
    MissingExtraError,
    Negotiated,
    NestedServerError,
    NotInjectedError,
    PrivilegedPortError,
    ProviderError,
    RedisStore,
    RequestScopeError,
    ResourceError,
    Serializer,
    ServerSettings,
    StartupError,
    TypedSerializer,
    UncacheableArgumentError,
    UnknownOptionError,
    UnknownProviderError,
    UnknownVariableError,
    UnpicklableOptionError,
    UnserializableError,
    WebServer,
    Zstd,
    current_request_id,
    inject,
)
from aeros.caching.client import immutable, no_store
from aeros.compression import (
    Base,
    Coding,
    CompressionMiddleware,
    CompressorOptions,
    Encoder,
    StreamCoding,
    ThoroughCoding,
    uncompressed,
)
from aeros.containers import RequestScoped
from aeros.serving.runner import AnyServer, RunningServer
from aeros.testing import override
from aeros.types import Receive, Scope, Send

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


# What clients are told: the same for views of any Quart application.

policy = CacheControl(
    public=True,
    max_age=60,
    s_maxage=timedelta(minutes=5),
    stale_while_revalidate=30.0,
    stale_if_error=timedelta(days=1),
    statuses=range(200, 400),
    cdn=CacheControl(max_age=timedelta(hours=1)),
    etag=True,
)
assert_type(policy, CacheControl)
assert_type(no_store, CacheControl)
assert_type(immutable.directives.max_age, int | None)
assert_type(str(policy), str)
assert_type(policy.apply(Response("x")), Response)
CacheControl(private=True, statuses=404)
CacheControl(no_store=True, statuses=None)

plain_quart = Quart(__name__)
plain_quart.after_request(policy.apply)
app.after_request(no_store.apply)


@plain_quart.route("/told/<int:number>")
@policy
async def told(number: int, *, draft: bool = False) -> dict[str, int]:
    return {"number": number, "draft": draft}


@app.route("/sync-told/<int:number>")
@app.cache(timeout=60)
@CacheControl(max_age=60)
def sync_told(number: int) -> tuple[str, int]:
    return str(number), 200


@app.route("/told-outside/<int:number>")
@no_store
@app.cache(timeout=60)
async def told_outside(number: int) -> str:
    return str(number)


class ToldView(MethodView):
    """A class-based view with the decorator on all of it, and on a method."""

    decorators: ClassVar[list[Callable[..., Any]]] = [no_store]

    @policy
    async def get(self, number: int) -> str:
        return str(number)


async def call_told_views() -> None:
    assert_type(await told(1, draft=True), dict[str, int])
    assert_type(await sync_told(1), tuple[str, int])
    assert_type(await told_outside(number=1), str)
    assert_type(await ToldView().get(1), str)


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
assert_type(settings.error_log_file, str | None)
assert_type(settings.access_log_exclude, tuple[str, ...])
assert_type(settings.soft_limit, int | None)
assert_type(settings.global_headers, Mapping[str, str])
assert_type(settings.color, bool | None)
assert_type(settings.replace({"port": 1}), ServerSettings)


# Running.


def create_app() -> WebServer:
    return WebServer("shop")


async def numbers() -> AsyncGenerator[int]:
    yield 1


async def endless() -> AsyncGenerator[str]:
    async for number in app.until_shutdown(numbers()):
        assert_type(number, int)
        yield str(number)
    await app.shutdown_event.wait()
    assert_type(app.shutdown_event.is_set(), bool)


def serve() -> None:
    app.run_server()
    app.run_server("127.0.0.1", 8000, "info", "access.log", False, True, 10, 20)
    app.run_server(
        port=0, log_level=logging.WARNING, access_log_file=Path("access.log"), access_log_to_std=True
    )
    app.run_server(soft_limit=None, hard_limit=None, log_format="json", color=None)
    app.run_server(error_log_file=Path("error.log"), access_log_exclude=["/livez"])
    app.run_server(
        workers=4, proxy_headers=True, timeout_keep_alive=5, loop="uvloop", ssl_keyfile=Path("key")
    )
    app.run_server(workers="auto", factory=create_app)
    app.run_server(
        request_ids=True, server_timing=False, livez="/livez", readyz="/readyz", metrics="/metrics"
    )
    app.run(request_ids=True, readyz=None)
    observed = WebServer("observed", request_ids=True, livez="/livez", readyz="/readyz", metrics="/metrics")
    assert_type(observed.metrics_registry, CollectorRegistry)
    assert_type(current_request_id(), str | None)
    assert_type(observed.current_settings().readyz, str | None)
    app.run_server(workers=2, factory="shop:create_app")
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
        case ImportPathError() | UnpicklableOptionError():
            assert_type(error.reason, str)
        case NestedServerError():
            assert_type(error.setting, str)
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


# Compression: what is given to it, and what wraps or leaves it.


class OwnEncoder:
    """One stream through a coding of the application's own."""

    def encode(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


class OwnCoding:
    """A coding that can do everything; the protocols ask for no base class."""

    @property
    def name(self) -> str:
        return "x-own"

    def compress(self, content: bytes) -> bytes:
        return content

    def compress_thoroughly(self, content: bytes) -> bytes:
        return content

    def encoder(self) -> OwnEncoder:
        return OwnEncoder()


def is_any_coding(stream: StreamCoding, thorough: ThoroughCoding, coding: Coding) -> None:
    assert_type(stream.encoder(), Encoder)
    assert_type(thorough.compress_thoroughly(b""), bytes)
    if isinstance(coding, StreamCoding):
        is_any_coding(coding, OwnCoding(), coding)


is_any_coding(OwnCoding(), OwnCoding(), OwnCoding())
options: CompressorOptions = {"min_size": 0, "flush_seconds": 0.5, "offload_size": None, "hot_after": 100}
assert_type(Br(5, **options).hot_after, int | None)
assert_type(Negotiated(OwnCoding(), Br(), hot_after=1, offload_size=0, flush_seconds=0).flush_seconds, float)
WebServer(__name__, compression=Negotiated(OwnCoding()), etag=True)


async def bare_application(scope: Scope, receive: Receive, send: Send) -> None: ...


assert_type(CompressionMiddleware(bare_application), CompressionMiddleware)
assert_type(CompressionMiddleware(bare_application, compressor=Gzip(9)).compressor, Base)
CompressionMiddleware(CompressionMiddleware(bare_application, None))
CompressionMiddleware(Quart(__name__), Negotiated(Zstd(), Br()))


@app.route("/account/<int:number>")
@uncompressed
async def account(number: int, *, full: bool = False) -> tuple[str, int]:
    return f"{number}{full}", 200


@app.route("/sync-account")
@app.cache(timeout=60)
@uncompressed
def sync_account() -> str:
    return ""


@uncompressed
@app.cache(timeout=60)
async def cached_account(number: int) -> dict[str, int]:
    return {"number": number}


class AccountView(MethodView):
    """A class-based view that opts out as a whole, and in a method."""

    decorators: ClassVar[list[Callable[..., Any]]] = [uncompressed]

    @uncompressed
    async def get(self, number: int) -> str:
        return str(number)


async def call_accounts() -> None:
    assert_type(await account(1, full=True), tuple[str, int])
    assert_type(await sync_account(), str)
    assert_type(await cached_account(number=1), dict[str, int])
    assert_type(await AccountView().get(1), str)


# Injection: a default of the provider's type, whatever the provider is.


class Session:
    """What lives as long as a request."""

    def __init__(self, url: str = "") -> None:
        self.url = url


class Books:
    """A repository on it."""

    def __init__(self, session: Session) -> None:
        self.session = session


async def session_generator(url: str) -> AsyncGenerator[Session]:
    yield Session(url)


async def session_iterator(url: str) -> AsyncIterator[Session]:
    yield Session(url)


def sync_session_generator(url: str) -> Generator[Session]:
    yield Session(url)


def sync_session_iterator(url: str) -> Iterator[Session]:
    yield Session(url)


@asynccontextmanager
async def session_manager(url: str) -> AsyncGenerator[Session]:
    yield Session(url)


@contextmanager
def sync_session_manager(url: str) -> Generator[Session]:
    yield Session(url)


class SelfManaged(Session):
    """A session that is its own context manager, as SQLAlchemy's is."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...


class SyncSelfManaged(Session):
    """The same, sync."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


async def connected(url: str) -> AbstractAsyncContextManager[Session]:
    return session_manager(url)


async def self_managed(url: str) -> SelfManaged:
    return SelfManaged(url)


def opened_file(name: str) -> TextIO:
    return Path(name).open()


async def open_pool(size: int) -> AsyncGenerator[list[Session]]:
    yield [Session() for _ in range(size)]


assert_type(RequestScoped(session_generator, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(session_iterator, url="sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(sync_session_generator, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(sync_session_iterator, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(session_manager, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(sync_session_manager, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(SelfManaged), RequestScoped[SelfManaged])
assert_type(RequestScoped(SyncSelfManaged), RequestScoped[SyncSelfManaged])
assert_type(RequestScoped(connected, "sqlite://"), RequestScoped[Session])
assert_type(RequestScoped(self_managed, "sqlite://"), RequestScoped[SelfManaged])
assert_type(RequestScoped(opened_file, "books.txt"), RequestScoped[TextIO])


class ShelfContainer(AppContainer):
    """A container with providers of each kind, none of them annotated."""

    session = RequestScoped(session_generator, AppContainer.config.database.url)
    books = providers.Factory(Books, session)
    pool = providers.Resource(open_pool, 3)
    limits = providers.Object({"pages": 3})
    now = providers.Callable(timedelta, seconds=1)


class LaterContainer(ShelfContainer):
    """A subclass that replaces one."""

    session = RequestScoped(sync_session_generator, "sqlite://")


as_provider: providers.Provider[Session] = ShelfContainer.session
shelves = WebServer(__name__, container=ShelfContainer())
assert_type(inject(ShelfContainer.session), Session)
assert_type(inject(ShelfContainer.books), Books)
assert_type(inject(ShelfContainer.pool), list[Session])
assert_type(inject(ShelfContainer.limits), dict[str, int])
assert_type(inject(ShelfContainer.now), timedelta)
assert_type(inject(ShelfContainer.users), Users)
assert_type(inject(ShelfContainer.cache), Cache)
assert_type(inject(ShelfContainer.settings), ServerSettings)
assert_type(inject(ShelfContainer.logger), logging.Logger)
assert_type(inject(LaterContainer.session), Session)
assert_type(inject(shelves.container.books), Books)
assert_type(inject(RequestScoped(session_manager, "")), Session)
assert_type(inject(AppContainer.config.database.pages.as_int()), int)
assert_type(shelves.container.session(), Session)
assert_type(shelves.container.books().session.url, str)
assert_type(shelves.container.limits(), dict[str, int])


async def pool_key(pool: list[Session] = inject(ShelfContainer.pool)) -> str:
    return f"{len(pool)} sessions"


@shelves.cache(timeout=60, key_prefix=pool_key)
async def keyed_by_the_shelf() -> str:
    return ""


@shelves.route("/shelves/<int:number>")
@shelves.cache(timeout=60)
async def shelf_view(
    number: int, books: Books = inject(ShelfContainer.books), *, users: Users = inject(ShelfContainer.users)
) -> dict[str, int]:
    assert_type(books, Books)
    assert_type(users, Users)
    return {"number": number}


@shelves.route("/sync-shelves")
def sync_shelf_view(session: Session = inject(ShelfContainer.session)) -> str:
    return session.url


class ShelfView(MethodView):
    """A class-based view."""

    async def get(self, number: int, books: Books = inject(ShelfContainer.books)) -> str:
        return f"{number}{books.session.url}"


shelves.add_url_rule("/class/<int:number>", view_func=ShelfView.as_view("class"))


@shelves.websocket("/socket")
async def shelf_socket(books: Books = inject(ShelfContainer.books)) -> None: ...


@shelves.before_request
async def before_shelves(session: Session = inject(ShelfContainer.session)) -> None: ...


@shelves.after_request
async def after_shelves(
    response: ResponseTypes, session: Session = inject(ShelfContainer.session)
) -> ResponseTypes:
    return response


@shelves.teardown_request
async def teardown_shelves(
    error: BaseException | None, session: Session = inject(ShelfContainer.session)
) -> None: ...


@shelves.before_serving
async def before_serving_shelves(pool: list[Session] = inject(ShelfContainer.pool)) -> None: ...


@shelves.while_serving
async def while_serving_shelves(pool: list[Session] = inject(ShelfContainer.pool)) -> AsyncGenerator[None]:
    yield


@shelves.errorhandler(KeyError)
async def on_key_error(error: KeyError, books: Books = inject(ShelfContainer.books)) -> tuple[str, int]:
    return "", 404


async def is_closed(books: Books = inject(ShelfContainer.books)) -> bool:
    return not books.session.url


def shelf_key(users: Users = inject(ShelfContainer.users)) -> str:
    return users.address


@shelves.cache(timeout=60, unless=is_closed, key=shelf_key)
async def conditional_shelf() -> str:
    return ""


@shelves.memoize(timeout=60)
async def shelf_count(number: int, *, books: Books = inject(ShelfContainer.books)) -> int:
    return number


async def shelf_job(number: int, books: Books = inject(ShelfContainer.books)) -> int:
    return number


def sync_shelf_job(number: int, users: Users = inject(ShelfContainer.users)) -> str:
    return users.address


async def call_shelves() -> None:
    """What is injected may be given, and need not be."""
    assert_type(await shelf_view(1), dict[str, int])
    assert_type(await shelf_view(1, Books(Session()), users=Users("")), dict[str, int])
    assert_type(sync_shelf_view(Session()), str)
    assert_type(await ShelfView().get(1, books=Books(Session())), str)
    assert_type(await before_shelves(Session()), None)
    assert_type(await conditional_shelf(), str)
    assert_type(await shelf_count(1), int)
    assert_type(await shelf_count(1, books=Books(Session())), int)
    async with shelves.request_scope() as nothing:
        assert_type(nothing, None)
        assert_type(await shelves.ensure_async(shelf_job)(1), int)
        assert_type(await shelves.ensure_async(sync_shelf_job)(1), str)
    shelves.add_background_task(shelf_job, 3)
    assert_type(await shelves.check_health(), dict[str, str | None])


class FakeUsers(Users):
    """A stand-in."""


@override(shelves.container.users, FakeUsers("nowhere"))
async def test_with_a_fake(number: int) -> str:
    return str(number)


async def use_fakes() -> None:
    with override(shelves.container.session, Session("fake")):
        pass
    with override(shelves.container.session, RequestScoped(sync_session_manager, "")):
        pass
    with override(shelves.container.cache, Cache()), override(shelves.container.compressor, None):
        pass
    with override(shelves.container.users, providers.Singleton(Users, "fake")):
        pass
    assert_type(await test_with_a_fake(3), str)


def is_about_injection(error: InjectionError) -> str:
    match error:
        case UnknownProviderError():
            assert_type(error.setting, str)
            return error.provider
        case NotInjectedError():
            return error.use
        case ResourceError() | RequestScopeError():
            assert_type(error.provider, str)
            return error.problem
        case _:
            return str(error)
