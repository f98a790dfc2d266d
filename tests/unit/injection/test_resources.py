"""Opening and closing a container's resources, without a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, cast

import pytest
from dependency_injector import containers, providers, resources

from aeros.containers import overridden
from aeros.errors import ResourceError
from aeros.injection import RequestScoped
from aeros.injection.resources import Resources

Log = list[str]


def sync_resource(log: Log, name: str, *needed: object) -> Generator[str]:
    """A generator, as most resources are."""
    log.append(f"open {name}")
    yield name
    log.append(f"close {name}")


async def async_resource(log: Log, name: str, *needed: object) -> AsyncGenerator[str]:
    """The same, async."""
    log.append(f"open {name}")
    await asyncio.sleep(0)
    yield name
    log.append(f"close {name}")


def plain_resource(log: Log, name: str, *needed: object) -> str:
    """A function: there is nothing to close."""
    log.append(f"open {name}")
    return name


async def plain_async_resource(log: Log, name: str, *needed: object) -> str:
    """The same, async."""
    log.append(f"open {name}")
    return name


class SyncClass(resources.Resource[str]):
    """A class with a method for each end."""

    def init(self, log: Log, name: str, *needed: object) -> str:  # noqa: D102 - as its base
        log.append(f"open {name}")
        self.log = log
        return name

    def shutdown(self, resource: str | None) -> None:  # noqa: D102 - as its base
        self.log.append(f"close {resource}")


class AsyncClass(resources.AsyncResource[str]):
    """The same, async."""

    async def init(self, log: Log, name: str, *needed: object) -> str:  # noqa: D102 - as its base
        log.append(f"open {name}")
        self.log = log
        return name

    async def shutdown(self, resource: str | None) -> None:  # noqa: D102 - as its base
        self.log.append(f"close {resource}")


def failing_resource(log: Log, name: str, *needed: object) -> str:
    """A database that is down."""
    log.append(f"try {name}")
    raise OSError("no database\nat all")


async def failing_async_resource(log: Log, name: str, *needed: object) -> AsyncGenerator[str]:
    """The same, async."""
    log.append(f"try {name}")
    if log:
        raise OSError("no database\nat all")
    yield name


def resource(factory: Callable[..., Any], *args: object) -> providers.Resource[str]:
    """A resource of any of the factories above."""
    return cast("providers.Resource[str]", cast(Any, providers.Resource)(factory, *args))


def of(**found: providers.Provider[Any]) -> Resources:
    """The resources of a container with these providers."""
    container = containers.DynamicContainer()
    container.set_providers(**found)
    return Resources(container)


KINDS = [sync_resource, async_resource, SyncClass, AsyncClass]


@pytest.mark.parametrize("factory", [*KINDS, plain_resource, plain_async_resource])
async def test_each_kind_of_resource_is_opened_and_closed(factory: Callable[..., Any]) -> None:
    """Its value is there from the start on, without being asked for."""
    log: Log = []
    pool = resource(factory, log, "pool")
    opened = of(pool=pool)
    await opened.open()
    assert log == ["open pool"]
    assert pool.initialized
    await opened.close()
    assert log == [
        "open pool",
        *([] if factory in (plain_resource, plain_async_resource) else ["close pool"]),
    ]
    assert not pool.initialized


async def test_they_are_opened_in_the_order_in_which_they_need_each_other() -> None:
    """Whatever their names are, and closed the other way round."""
    log: Log = []
    settings = resource(sync_resource, log, "settings")
    pool = resource(async_resource, log, "pool", settings)
    sessions = providers.Factory(dict[str, str], pool=pool)
    cache = resource(SyncClass, log, "cache", sessions)
    index = resource(AsyncClass, log, "index", cache, pool)
    opened = of(a_index=index, b_cache=cache, c_pool=pool, d_settings=settings)
    await opened.open()
    assert log == ["open settings", "open pool", "open cache", "open index"]
    await opened.close()
    assert log[4:] == ["close index", "close cache", "close pool", "close settings"]


async def test_a_resource_gets_the_value_of_an_async_one() -> None:
    """A sync one, too."""
    log: Log = []
    pool = resource(async_resource, log, "pool")
    got: list[object] = []
    await (opened := of(cache=resource(got.append, pool), pool=pool)).open()
    assert got == ["pool"]
    await opened.close()


async def test_resources_of_containers_within_are_opened() -> None:
    """And those that only other providers need."""
    log: Log = []

    class Inner(containers.DeclarativeContainer):
        # An object of its own would be copied for each container.
        pool = resource(sync_resource, providers.Object(log), "pool")

    hidden = resource(sync_resource, log, "hidden")
    opened = of(inner=providers.Container(Inner), users=providers.Factory(dict[str, str], hidden=hidden))
    await opened.open()
    assert log == ["open pool", "open hidden"]
    await opened.close()


async def test_one_that_is_open_already_is_left_alone() -> None:
    """Whoever has opened it closes it."""
    log: Log = []
    pool = resource(sync_resource, log, "pool")
    pool.init()
    opened = of(pool=pool, index=resource(async_resource, log, "index", pool))
    await opened.open()
    await opened.close()
    assert log == ["open pool", "open index", "close index"]
    assert pool.initialized
    cast(Any, pool).shutdown()


async def test_one_that_is_overridden_is_not_opened() -> None:
    """Nor what only it needs: a test with a fake database needs none."""
    log: Log = []
    network = resource(sync_resource, log, "network")
    pool = resource(async_resource, log, "pool", network)
    opened = of(index=resource(async_resource, log, "index", pool), pool=pool)
    with overridden(pool, providers.Object("fake")):
        await opened.open()
        await opened.close()
    assert log == ["open index", "close index"]
    await opened.open()
    assert log[2:] == ["open network", "open pool", "open index"]
    await opened.close()


async def test_one_that_overrides_another_is_opened_in_its_place() -> None:
    """A test may bring a database of its own."""
    log: Log = []
    pool = resource(async_resource, log, "pool")
    opened = of(index=resource(async_resource, log, "index", pool), pool=pool)
    with overridden(pool, resource(async_resource, log, "other")):
        await opened.open()
        await opened.close()
    assert log == ["open other", "open index", "close index", "close other"]


async def test_they_can_be_opened_again() -> None:
    """A server may be started more than once."""
    log: Log = []
    opened = of(pool=resource(async_resource, log, "pool"))
    for _ in range(2):
        await opened.open()
        await opened.close()
    assert log == ["open pool", "close pool"] * 2


@pytest.mark.parametrize("factory", [failing_resource, failing_async_resource])
async def test_one_that_fails_closes_those_before_it(factory: Callable[..., Any]) -> None:
    """The error is one line, names the provider, and has the error itself for its cause."""
    log: Log = []
    first = resource(async_resource, log, "first")
    second = resource(sync_resource, log, "second", first)
    failing = resource(factory, log, "failing", second)
    last = resource(async_resource, log, "last", failing)
    opened = of(last=last, failing=failing, second=second, first=first)
    with pytest.raises(ResourceError) as caught:
        await opened.open()
    assert str(caught.value) == "the resource 'failing' did not open: OSError('no database\\nat all')"
    assert caught.value.provider == "failing"
    assert isinstance(caught.value.__cause__, OSError)
    assert log == ["open first", "open second", "try failing", "close second", "close first"]
    await opened.close()
    assert len(log) == 5


async def test_one_within_a_container_is_named_by_its_path() -> None:
    """That is where to look for it."""

    class Inner(containers.DeclarativeContainer):
        pool = resource(failing_resource, [], "pool")

    with pytest.raises(ResourceError, match=r"'inner\.pool'"):
        await of(inner=providers.Container(Inner)).open()


async def test_one_that_needs_a_request_fails() -> None:
    """There is none when serving begins."""

    def open_session() -> Generator[str]:
        yield "session"

    with pytest.raises(ResourceError, match="outside of a request"):
        await of(pool=resource(plain_resource, [], "pool", RequestScoped(open_session))).open()


async def test_a_start_that_is_cancelled_closes_what_is_open() -> None:
    """As one that fails; the cancellation goes on."""
    log: Log = []
    waits = asyncio.Event()

    async def slow(first: str) -> str:
        waits.set()
        await asyncio.Event().wait()
        return first

    first = resource(async_resource, log, "first")
    task = asyncio.create_task(of(slow=resource(slow, first), first=first).open())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["open first", "close first"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_one_that_cannot_be_closed_is_logged_and_the_others_are_closed(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The process ends; there is nobody to raise an error to."""
    log: Log = []

    def stubborn(needed: str) -> Generator[str]:
        yield needed
        raise OSError("still in use")

    async def async_stubborn(needed: str) -> AsyncGenerator[str]:
        yield needed
        raise OSError("still in use")

    first = resource(sync_resource, log, "first")
    opened = of(first=first, stubborn=resource(async_stubborn if is_async else stubborn, first))
    await opened.open()
    await opened.close()
    assert log == ["open first", "close first"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aeros.injection", logging.ERROR)
    assert "The resource 'stubborn' was not closed" in record.getMessage()
    assert "still in use" in caplog.text


# Health


class Database:
    """Something that tells whether it works."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    async def ping(self) -> None:
        """Raises where it does not work."""
        if self.broken:
            raise OSError("gone away")


class SyncDatabase(Database):
    """The same, sync."""

    def ping(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Raises where it does not work."""
        if self.broken:
            raise OSError("gone away")


async def found(database: Database) -> Database:
    """Makes the resource async."""
    return database


@pytest.mark.parametrize("kind", [Database, SyncDatabase])
async def test_what_can_be_asked_tells_how_it_is(kind: type[Database]) -> None:
    """By name: None, or what is wrong. Those that can not be asked are left out."""
    works, broken = kind(), kind()
    opened = of(
        works=resource(lambda: works),
        broken=resource(found, broken),
        silent=resource(plain_resource, [], "x"),
    )
    assert await opened.check() == {}
    await opened.open()
    assert await opened.check() == {"works": None, "broken": None}
    broken.broken = True
    assert await opened.check() == {"works": None, "broken": "OSError('gone away')"}
    await opened.close()
    assert await opened.check() == {}


async def test_who_asks_one_that_is_overridden_asks_nobody() -> None:
    """The fake need not know of it."""
    pool = resource(lambda: Database(broken=True))
    opened = of(pool=pool)
    with overridden(pool, providers.Object("fake")):
        await opened.open()
        assert await opened.check() == {}
        await opened.close()
