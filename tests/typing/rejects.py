"""Mistakes that the type checkers must report, each with the code that they report it under.

Never run. An ignore that hides nothing is an error itself (``warn_unused_ignores`` in mypy,
``reportUnnecessaryTypeIgnoreComment`` in pyright), so a mistake that is no longer reported fails.
"""
# ruff: noqa: D102, D103 - what is wrong is said by the codes

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

from cachelib import SimpleCache
from dependency_injector import providers

from aeros import (
    Br,
    Cache,
    CacheControl,
    Container,
    Gzip,
    Negotiated,
    ServerSettings,
    WebServer,
    Zstd,
    current_request_id,
    inject,
)
from aeros.compression import CompressionMiddleware, StreamCoding, ThoroughCoding, uncompressed
from aeros.containers import RequestScoped
from aeros.testing import override


class AppContainer(Container):
    retries = providers.Object(3)


app = WebServer(__name__)
shop = WebServer(__name__, container=AppContainer())


# The options of cache()

app.cache(timeout="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache("60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(key_prefix=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(hash_method="md5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(hash_method=hashlib.md5())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(unless=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(query_string="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(cache_none=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(timeuot=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def maybe() -> str:
    return "yes"


def wants_text(response: str) -> bool:
    return bool(response)


def count_rows() -> int:
    return 5


async def count_rows_later() -> int:
    return 5


app.cache(unless=maybe)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(forced_update=wants_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(response_filter=wants_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(key_prefix=count_rows_later)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.cache(key_prefix=count_rows)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# What is decorated


@app.cache  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def without_parentheses() -> str:
    return ""


@app.route("/pages/<int:number>")
@app.cache(60)
async def page(number: int, *, draft: bool = False) -> str:
    return f"{number}{draft}"


@app.cache(60)
def report(year: int) -> dict[str, int]:
    return {"year": year}


@app.route("/plain")
def plain(size: int) -> str:
    return "x" * size


async def call_views() -> None:
    await page("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await page(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await page(number=1, darft=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await page()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await report("2024")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    length: int = await page(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    total: str = await report(2024)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(length, total)
    print(report(2024)["year"])  # type: ignore[index]  # pyright: ignore[reportIndexIssue, reportUnknownArgumentType]


app.cache(60)(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


# route()

app.route("/", method="GET")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
app.route("/", strict_slashes="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.route(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.route("/", endpoint=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.route("/", defaults=["page"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The constructor

WebServer()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
WebServer(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, port="80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, "127.0.0.1", "80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, host=80)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, include_server_header="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, cache=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, cache=SimpleCache)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, cache={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, compression="br")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, compression=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, compression=Br)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, global_headers={"a": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
WebServer(__name__, global_headers=[("a", "b")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, container=AppContainer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, container={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WebServer(__name__, compresion=Br())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# The container

app.container.retries()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
shop.container.retrys()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
count: str = shop.container.retries()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
names: int = app.container.cache()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class WrongCache(Container):
    cache = providers.Singleton(Gzip)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class CachelibCache(Container):
    cache = providers.Singleton(SimpleCache)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class WrongCompressor(Container):
    compressor = providers.Object("br")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class WrongLogger(Container):
    logger = providers.Singleton(Cache)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class WrongSettings(Container):
    settings = providers.Object({"port": 80})  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class WrongServer(Container):
    server = providers.Factory(Cache)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


class NoProvider(Container):
    cache = Cache()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def run_shop(server: WebServer[AppContainer]) -> None:
    server.run_server()


run_shop(app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
other: WebServer[Cache]  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeArguments]


# run_server(), run(), run_in_thread()


def serve() -> None:
    app.run_server(port="80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(soft_limit="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(hard_limit=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(log_level=None, log_format="yaml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(access_log_file=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(error_log_file=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(access_log_exclude=[5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    app.run_server(wrokers=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    app.run_server(workers="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(factory=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(request_ids="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run_server(livez=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WebServer(__name__, metrics=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WebServer(__name__, server_timing="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request_id: str = current_request_id()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(request_id)
    app.run(loop="uvloop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.run(use_relaoder=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with app.run_in_thread(port="0") as server:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        port: str = server.port  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        print(port)
    app.run_in_thread(acces_log_file="access.log")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    url: str = app.run_in_thread()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(url)


# Settings, statistics

settings = app.container.settings()
settings.port = 8000  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
ServerSettings(port="80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ServerSettings(log_format="yaml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ServerSettings(prot=80)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
app.cache_stats().hits = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
ratio: str = app.cache_stats().hits  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
left: int = app.clear_cache()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
app.clear_cache("view/%s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# Cache and compressors

Cache(store=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cache(300)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cache(default_timeout="300")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cache(max_bytes="64 MiB")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cache(max_bytes=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cache(max_entries=500)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Gzip("9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Gzip(5, 500)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Br(quality=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Zstd(min_size="1k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Zstd(mimetypes=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Negotiated("br")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Negotiated(Br)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Negotiated([Br(), Gzip()])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class NoCoding:
    name = "x-none"

    def compress(self, content: str) -> bytes:
        return content.encode()


Negotiated(NoCoding())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Gzip().negotiate(b"gzip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# What clients are told

CacheControl(max_age="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(public="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(private=("Set-Cookie",))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(maxage=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CacheControl(60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(max_age=60, statuses="404")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(max_age=60, cdn="max-age=600")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CacheControl(max_age=60).etag = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
CacheControl(max_age=60).apply("text")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
CacheControl(max_age=60)(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


@CacheControl  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def told_without_parentheses() -> str:
    return ""


@CacheControl(max_age=60)
async def told(number: int) -> str:
    return str(number)


async def call_told_view() -> None:
    await told("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    length: int = await told(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(length)


# Compression: its options, what it wraps, and what opts out

Gzip(min_size=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Br(flush_seconds="0.02")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Zstd(offload_size="64 KiB")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Negotiated(hot_after=2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Gzip(mimetypes=[b"text/*"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
Gzip(minimum_size=500)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Gzip().hot_after = "often"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
WebServer(__name__, etag="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware(app="shop:app")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware(CompressionMiddleware)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware(app.run_server)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware(WebServer(__name__), "br")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware(WebServer(__name__), False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressionMiddleware()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CompressionMiddleware(WebServer(__name__), level=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class OnlyWhole:
    name = "x-whole"

    def compress(self, content: bytes) -> bytes:
        return content


class WrongEncoder:
    name = "x-wrong"

    def compress(self, content: bytes) -> bytes:
        return content

    def encoder(self) -> str:
        return ""


whole_stream: StreamCoding = OnlyWhole()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
wrong_stream: StreamCoding = WrongEncoder()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
whole_thorough: ThoroughCoding = OnlyWhole()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
uncompressed(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


@uncompressed
async def account(number: int) -> str:
    return str(number)


async def call_account() -> None:
    await account("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    length: int = await account(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(length)


# Injection: the parameter's type is the provider's


class Users:
    def __init__(self, address: str) -> None:
        self.address = address


class Session:
    def __init__(self, url: str) -> None:
        self.url = url


async def open_session(url: str) -> AsyncGenerator[Session]:
    yield Session(url)


def open_sync_session(url: str) -> Generator[Session]:
    yield Session(url)


@asynccontextmanager
async def managed_session(url: str) -> AsyncGenerator[Session]:
    yield Session(url)


@asynccontextmanager
async def managed_users() -> AsyncGenerator[Users]:
    yield Users("")


async def found_session(url: str) -> Session:
    return Session(url)


class ShelfContainer(Container):
    users = providers.Singleton(Users, "localhost")
    session = RequestScoped(open_session, "sqlite://")
    retries = providers.Object(3)


shelves = WebServer(__name__, container=ShelfContainer())


async def wrong_class(users: Session = inject(ShelfContainer.users)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def wrong_session(session: Users = inject(ShelfContainer.session)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def wrong_value(retries: str = inject(ShelfContainer.retries)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def wrong_optional(session: Users | None = inject(ShelfContainer.session)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def not_the_generator(session: AsyncGenerator[Session] = inject(ShelfContainer.session)) -> None: ...  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong_standard(cache: Gzip = inject(ShelfContainer.cache)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def misspelt(users: Users = inject(ShelfContainer.usres)) -> None: ...  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
async def wrong_in_instance(users: Session = inject(shelves.container.users)) -> None: ...  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
async def no_provider(users: Users = inject(Users)) -> None: ...  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def no_argument(users: Users = inject()) -> None: ...  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@shelves.route("/shelves/<int:number>")
async def shelf(number: int, users: Users = inject(ShelfContainer.users)) -> dict[str, int]:
    return {"number": number}


async def shelf_job(number: int, users: Users = inject(ShelfContainer.users)) -> None: ...


def needs_an_argument(users: Users) -> bool:
    return bool(users.address)


async def call_shelves() -> None:
    await shelf(1, Session(""))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await shelf("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = await shelf(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text, users_of_nobody)
    async with shelves.request_scope() as scope:
        scope.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with shelves.request_scope():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    healthy: bool = await shelves.check_health()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(healthy)
    shelves.add_background_task(shelf_job, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shelves.add_background_task(shelf_job)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


users_of_nobody: int = shelves.container.users()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
session_of_nobody: Users = shelves.container.session()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
shelves.cache(unless=needs_an_argument)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# What a session's factory yields

scoped: providers.Provider[Users] = RequestScoped(open_session, "")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
sync_scoped: RequestScoped[Users] = RequestScoped(open_sync_session, "")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
managed: RequestScoped[Users] = RequestScoped(managed_session, "")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
RequestScoped(found_session, "")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
RequestScoped(Users, "")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
RequestScoped("session")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
RequestScoped()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


class AnnotatedContainer(Container):
    session: providers.Provider[Session] = RequestScoped(managed_session, "")


class WrongSession(AnnotatedContainer):
    session = RequestScoped(managed_users)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]


# What stands in for a provider

override(shelves.container.users, Session(""))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
override(shelves.container.session, Users(""))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
override(shelves.container.retries, "3")  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
override(shelves.container.users, providers.Object(Session("")))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
override(shelves.container.session, RequestScoped(managed_users))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
override(shelves.container.cache, SimpleCache())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
override(shelves.container.users(), Users(""))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
override("users", Users(""))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
override(shelves.container.usres, Users(""))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
override(shelves.container.users)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
