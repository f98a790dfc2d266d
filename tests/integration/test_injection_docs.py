"""What the page on injection shows is what happens."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import aiosqlite
import httpx
import pytest
from dependency_injector import containers, providers

from aeros import Container, StartupError, WebServer, inject
from aeros.containers import RequestScoped
from aeros.errors import (
    NotInjectedError,
    ProviderError,
    RequestScopeError,
    UnknownProviderError,
)
from aeros.testing import override
from tests.conftest import ROOT, RedisProcess
from tests.integration.conftest import check_strictly, eventually

PAGE = ROOT / "docs" / "injection.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def program(text: str) -> tuple[WebServer[Any], dict[str, Any]]:
    """Runs the one program of the page that has this text; returns its application and its names."""
    (source,) = (block for block in PROGRAMS if text in block)
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, PAGE.name, "exec"), names)
    app: WebServer[Any] = names["app"]
    return app, names


def test_the_programs_are_strictly_typed(tmp_path: Path) -> None:
    """Each is complete, and mypy finds nothing in it."""
    assert len(PROGRAMS) == 5
    check_strictly(tmp_path, PROGRAMS)


async def test_a_view_gets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the environment says, and not at all where the cache answers."""
    monkeypatch.setenv("SHOP_GREETING", "Ahoy")
    app, names = program("SHOP_GREETING")
    made: list[object] = []

    def make() -> object:
        made.append(names["Users"]("Ahoy"))
        return made[-1]

    first = await app.test_client().get("/users/7")
    assert await first.get_json() == {"greeting": "Ahoy, user 7"}
    with override(app.container.users, providers.Factory(make)):
        assert (await app.test_client().get("/users/7")).headers["cache-status"].startswith("aeros; hit")
        assert len(made) == 0
        await app.test_client().get("/users/8")
        assert len(made) == 1


async def test_a_view_is_a_function() -> None:
    """Called by hand it takes what it is given, and says so where that is nothing."""
    _, names = program("FixedRates")
    view = cast("Callable[..., Awaitable[object]]", names["rate"])
    assert await view("USD", rates=names["FixedRates"]()) == {"rate": 1.25}
    with pytest.raises(NotInjectedError):
        await view("USD")


async def test_a_decorator_of_the_application_calls_with_what_it_injects() -> None:
    """So a cached view has its value, called by hand as well."""
    _, names = program("SHOP_GREETING")
    view = cast("Callable[..., Awaitable[object]]", names["user"])
    assert await view(7, users=names["Users"]("Hi")) == {"greeting": "Hi, user 7"}
    assert await view(7) == {"greeting": "Hello, user 7"}


async def test_containers_within_and_settings_are_named_alike() -> None:
    """As the page writes them."""

    class Storage(containers.DeclarativeContainer):
        files: providers.Provider[list[str]] = providers.Object(["a.txt"])

    class AppContainer(Container):
        storage = providers.Container(Storage)

    container = AppContainer()
    container.config.shop.greeting.from_value("Ahoy")
    app = WebServer("within", container=container)

    @app.route("/")
    async def index(
        files: list[str] = inject(Storage.files),
        greeting: str = inject(AppContainer.config.shop.greeting.as_(str)),
    ) -> list[str]:
        return [greeting, *files]

    assert await (await app.test_client().get("/")).get_json() == ["Ahoy", "a.txt"]


def test_a_provider_that_the_application_does_not_have_is_an_error_at_registration() -> None:
    """It names the function and the parameter."""
    _, names = program("FixedRates")
    other = WebServer("other")
    with pytest.raises(UnknownProviderError, match=r"^rate\(rates=\)"):
        other.route("/rates/<currency>")(names["rate"])


async def test_hook_and_view_share_what_lives_as_long_as_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection for each request, closed after it; what the view has committed is there."""
    monkeypatch.chdir(tmp_path)
    app, names = program("import aiosqlite")
    open_connection = cast("Callable[[str], AsyncGenerator[aiosqlite.Connection]]", names["open_connection"])
    events: list[str] = []

    async def noted(path: str) -> AsyncGenerator[aiosqlite.Connection]:
        events.append("open")
        async for connection in open_connection(path):
            yield connection
        events.append("closed")

    connections: providers.Provider[aiosqlite.Connection] = RequestScoped(noted, "shop.db")
    with override(app.container.connection, connections):
        statuses = [(await app.test_client().post("/orders/pen")).status_code for _ in range(3)]
    assert statuses == [201, 201, 503]
    assert events == ["open", "closed"] * 3
    with closing(sqlite3.connect("shop.db")) as database:
        assert database.execute("SELECT article FROM orders").fetchall() == [("pen",), ("pen",)]


async def test_an_error_is_raised_where_the_value_was_yielded() -> None:
    """Also if an error handler has made a response of it."""
    seen: list[BaseException] = []

    async def open_it() -> AsyncGenerator[int]:
        try:
            yield 1
        except ZeroDivisionError as error:
            seen.append(error)
            raise

    class OneContainer(Container):
        one: providers.Provider[int] = RequestScoped(open_it)

    app = WebServer("errors", container=OneContainer())

    @app.route("/")
    async def index(one: int = inject(OneContainer.one)) -> str:
        return str(one // 0)

    @app.errorhandler(ZeroDivisionError)
    async def answer(_error: ZeroDivisionError) -> tuple[str, int]:
        return "by zero", 400

    assert (await app.test_client().get("/")).status_code == 400
    assert len(seen) == 1


def test_what_lives_longer_than_a_request_is_not_made_of_its_values() -> None:
    """An application that would do it is not made; and outside of a request there is no value."""

    async def open_it() -> AsyncGenerator[list[str]]:
        yield []

    class BasketContainer(Container):
        basket: providers.Provider[list[str]] = RequestScoped(open_it)

    class LongContainer(BasketContainer):
        count: providers.Provider[int] = providers.Singleton(len, BasketContainer.basket)

    with pytest.raises(ProviderError, match=r"container\.count: .*'basket'.*make it a Factory"):
        WebServer("long", container=LongContainer())
    app = WebServer("short", container=BasketContainer())
    with pytest.raises(RequestScopeError):
        app.container.basket()


def test_a_resource_is_open_while_the_application_is_served(redis_server: RedisProcess) -> None:
    """And is asked whether it works."""
    app, _ = program("open_pool")
    with (
        override(app.container.port, redis_server.port),
        app.run_in_thread() as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert client.get("/").text == "There is a store"
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"pool": None})
        redis_server.stop()
        broken = client.get("/ready")
        assert broken.status_code == 503
        assert "ConnectionError" in broken.json()["pool"]


def test_a_resource_that_does_not_open_stops_the_start_with_the_line_of_the_page(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the provider."""
    line = "the resource 'pool' did not open: ConnectionRefusedError("
    assert line in re.sub(r"\s+", " ", PAGE.read_text())
    app, _ = program("open_pool")
    with (
        override(app.container.port, free_port),
        pytest.raises(StartupError),
        app.run_in_thread(),
    ):
        pass
    assert line in caplog.text


def test_a_background_task_has_a_scope_of_its_own() -> None:
    """What it has put into its outbox is sent when it ends."""
    app, names = program("open_outbox")
    with app.run_in_thread() as server:
        assert httpx.put(f"{server.url}/users/Ada").status_code == 201
        assert eventually(lambda: names["sent"]) == ["Welcome, Ada"]


async def test_a_job_opens_a_scope() -> None:
    """It gets a value from the container, or runs a function with what that injects."""
    app, names = program("open_outbox")
    await names["remind_all"]()
    assert names["sent"] == ["Remember us"]
    async with app.request_scope():
        await app.ensure_async(names["welcome"])("Ada")
        assert app.container.outbox() == ["Welcome, Ada"]
    assert names["sent"] == ["Remember us", "Welcome, Ada"]


async def test_a_fake_stands_in_for_a_provider() -> None:
    """The test of the page, and nothing of it afterwards."""
    app, names = program("FixedRates")
    await names["test_the_rate_is_shown"]()
    assert type(app.container.rates()).__name__ == "Rates"


def test_each_class_and_call_that_the_page_names_exists() -> None:
    """A link or a name that leads nowhere helps nobody."""
    text = PAGE.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PAGE.parent / link).exists(), link
    for name in re.findall(r"`(?:await )?app\.(\w+)", text):
        assert hasattr(WebServer, name) or name in ("container", "dependency_overrides"), name
