"""``RequestScoped`` and the scope that it opens its values in, without an application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from types import TracebackType
from typing import Any, cast

import pytest
from dependency_injector import containers, providers

from aeros.containers import overridden
from aeros.errors import InvalidSettingError, RequestScopeError
from aeros.injection import RequestScoped
from aeros.injection.request_scope import (
    RequestScope,
    current_request_scope,
    leave,
    provided,
    set_current,
)

Log = list[str]


@asynccontextmanager
async def scope(error: BaseException | None = None) -> AsyncGenerator[RequestScope]:
    """What an application does around a request."""
    current = RequestScope()
    token = set_current(current)
    try:
        yield current
    finally:
        current.error = error
        await current.close()
        leave(token)


# What may be a factory: each writes down what is done with it.


async def async_generator(log: Log, name: str = "x") -> AsyncGenerator[str]:
    """The way that is documented first."""
    log.append(f"open {name}")
    try:
        yield name
    except BaseException as error:
        log.append(f"told {error!r}")
        raise
    finally:
        log.append(f"close {name}")


def generator(log: Log, name: str = "x") -> Generator[str]:
    """The same, sync."""
    log.append(f"open {name}")
    try:
        yield name
    except BaseException as error:
        log.append(f"told {error!r}")
        raise
    finally:
        log.append(f"close {name}")


class AsyncSession:
    """A class whose objects are async context managers, as SQLAlchemy's are."""

    def __init__(self, log: Log, name: str = "x") -> None:
        self.log = log
        self.name = name

    async def __aenter__(self) -> str:
        self.log.append(f"open {self.name}")
        return self.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.log.append(f"told {error!r}")
        self.log.append(f"close {self.name}")


class Session:
    """A class whose objects are sync context managers."""

    def __init__(self, log: Log, name: str = "x") -> None:
        self.log = log
        self.name = name

    def __enter__(self) -> str:
        self.log.append(f"open {self.name}")
        return self.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.log.append(f"told {error!r}")
        self.log.append(f"close {self.name}")


class AwaitableSession(AsyncSession):
    """One that can be awaited instead, as those of aiosqlite and asyncpg: it must be entered only."""

    def __await__(self) -> Iterator[Any]:
        raise AssertionError("awaited as well as entered")


async def async_function(log: Log, name: str = "x") -> AbstractAsyncContextManager[str]:
    """An async function that gives a context manager."""
    return AsyncSession(log, name)


def plain_function(log: Log, name: str = "x") -> Awaitable[AbstractAsyncContextManager[str]]:
    """One that is async without saying so."""
    return async_function(log, name)


async def async_function_of_a_sync_one(log: Log, name: str = "x") -> AbstractContextManager[str]:
    """An async function that gives a sync one."""
    return Session(log, name)


ASYNC_FACTORIES: list[Callable[..., Any]] = [
    async_generator,
    asynccontextmanager(async_generator),
    AsyncSession,
    AwaitableSession,
    async_function,
    async_function_of_a_sync_one,
    plain_function,
    partial(async_generator, name="x"),
]
SYNC_FACTORIES: list[Callable[..., Any]] = [
    generator,
    contextmanager(generator),
    Session,
    partial(generator, name="x"),
]


def named(factory: Callable[..., Any]) -> str:
    """What a test's parameter is called."""
    return getattr(factory, "__qualname__", "partial")


async def shutdown(resource: providers.Resource[Any]) -> None:
    """Closes an async resource."""
    await cast("Awaitable[None]", cast(Any, resource).shutdown())


def scoped(factory: Callable[..., Any], *args: object, **kwargs: object) -> RequestScoped[str]:
    """A provider of any of the factories above."""
    return cast("RequestScoped[str]", RequestScoped(factory, *args, **kwargs))


every_factory = pytest.mark.parametrize("factory", [*ASYNC_FACTORIES, *SYNC_FACTORIES], ids=named)


@every_factory
async def test_a_value_is_opened_at_first_use_and_closed_at_the_end(factory: Callable[..., Any]) -> None:
    """Once, whoever asks and how often."""
    log: Log = []
    session = scoped(factory, log)
    async with scope():
        assert log == []
        assert [await provided(session) for _ in range(3)] == ["x"] * 3
        assert log == ["open x"]
        assert session() == "x"  # it is open, so it is to be had without waiting
    assert log == ["open x", "close x"]


@every_factory
async def test_a_value_that_nobody_asks_for_is_never_opened(factory: Callable[..., Any]) -> None:
    """A request that needs no session has none."""
    log: Log = []
    scoped(factory, log)
    async with scope():
        pass
    assert log == []


@every_factory
async def test_a_value_is_told_of_the_error(factory: Callable[..., Any]) -> None:
    """So that a session rolls back."""
    log: Log = []
    async with scope(ValueError("broken")):
        await provided(scoped(factory, log))
    assert log == ["open x", "told ValueError('broken')", "close x"]


@every_factory
async def test_each_scope_has_a_value_of_its_own(factory: Callable[..., Any]) -> None:
    """What one request opens is not another's."""
    log: Log = []
    session = scoped(factory, log)
    async with scope():
        await provided(session)
        async with scope():
            await provided(session)
        assert log == ["open x", "open x", "close x"]
        assert session() == "x"
    assert log[-1] == "close x"


@every_factory
async def test_outside_of_a_scope_it_is_an_error(factory: Callable[..., Any]) -> None:
    """One that says what to do, and opens nothing."""
    log: Log = []
    session = scoped(factory, log)
    with pytest.raises(RequestScopeError, match=r"outside of a request; .* async with app.request_scope\(\)"):
        session()
    with pytest.raises(RequestScopeError, match="outside of a request"):
        await provided(session)
    assert log == []


@pytest.mark.parametrize("factory", SYNC_FACTORIES, ids=named)
async def test_a_sync_value_is_opened_by_a_plain_call(factory: Callable[..., Any]) -> None:
    """``app.container.session()`` in a view, as with any other provider."""
    log: Log = []
    session = scoped(factory, log)
    async with scope():
        assert (session(), session(), await provided(session)) == ("x", "x", "x")
    assert log == ["open x", "close x"]


@pytest.mark.parametrize("factory", ASYNC_FACTORIES, ids=named)
async def test_an_async_value_that_is_not_open_cannot_be_had_by_a_plain_call(
    factory: Callable[..., Any],
) -> None:
    """Nothing is begun that nobody would await."""
    log: Log = []
    session = scoped(factory, log)
    async with scope():
        with pytest.raises(RequestScopeError, match="opened with await, and asked for without"):
            session()
        assert log == []
        assert await provided(session) == "x"
    assert log == ["open x", "close x"]


async def test_values_are_closed_in_reverse_order() -> None:
    """What was opened last may need what was opened before."""
    log: Log = []
    async with scope():
        for number, factory in enumerate([async_generator, generator, AsyncSession, Session]):
            await provided(scoped(factory, log, name=str(number)))
        log.append("used")
    assert log == [*(f"open {n}" for n in range(4)), "used", *(f"close {n}" for n in reversed(range(4)))]


# Arguments


async def joined(log: Log, *parts: str, **named: str) -> AsyncGenerator[str]:
    """A factory that shows its arguments."""
    name = "+".join([*parts, *(f"{key}={value}" for key, value in named.items())])
    log.append(f"open {name}")
    yield name
    log.append(f"close {name}")


async def test_arguments_that_are_providers_are_called() -> None:
    """Factories and others, by position and by name; other values are passed as they are."""
    log: Log = []
    session = scoped(joined, log, providers.Object("a"), "b", key=providers.Factory(str, "c"))
    async with scope():
        assert await provided(session) == "a+b+key=c"


async def test_a_value_that_needs_another_one_shares_it_with_all() -> None:
    """It is opened before, and closed after, what needs it."""
    log: Log = []
    connection = scoped(async_generator, log, "connection")
    session = scoped(joined, log, connection)
    books = scoped(joined, log, session, connection)
    async with scope():
        assert await provided(books) == "connection+connection"
        assert await provided(connection) == "connection"
    assert log == [
        "open connection",
        "open connection",
        "open connection+connection",
        "close connection+connection",
        "close connection",
        "close connection",
    ]


async def test_other_providers_share_the_value() -> None:
    """A factory made of it is called anew, and gets the same one."""
    log: Log = []
    session = scoped(async_generator, log, "session")
    books = providers.Factory(dict[str, str], session=session)
    shelf = providers.Factory(dict[str, object], books=books, session=session)
    async with scope():
        assert await provided(shelf) == {"books": {"session": "session"}, "session": "session"}
        assert await provided(books) == {"session": "session"}
    assert log == ["open session", "close session"]


async def test_an_async_argument_is_awaited() -> None:
    """Such as a pool that is an async resource, or what a coroutine gives."""

    async def found() -> str:
        await asyncio.sleep(0)
        return "a"

    async def pool() -> AsyncGenerator[str]:
        yield "b"

    log: Log = []
    resource = providers.Resource(pool)
    session = scoped(joined, log, providers.Coroutine(found), key=resource)
    async with scope():
        assert await provided(session) == "a+key=b"
    await shutdown(resource)


async def test_a_sync_value_with_an_async_argument_needs_await() -> None:
    """Its factory is not given a promise in place of the value; once that is there, it is opened."""

    async def pool() -> AsyncGenerator[str]:
        yield "pool"

    async def found() -> str:
        raise AssertionError("begun")

    log: Log = []
    resource = providers.Resource(pool)
    session = scoped(generator, log, resource)
    async with scope():
        for promising in (session, scoped(generator, log, providers.Coroutine(found))):
            with pytest.raises(RequestScopeError, match="asked for without"):
                promising()
        assert log == []
        await provided(resource)
        assert session() == "pool"
    assert log == ["open pool", "close pool"]
    await shutdown(resource)


async def test_the_branch_of_a_selector_that_is_not_chosen_is_not_opened() -> None:
    """Only what is called is opened."""
    log: Log = []
    configuration = providers.Configuration()
    configuration.from_dict({"kind": "plain"})
    chosen = providers.Selector(
        configuration.kind, plain=providers.Object("plain"), session=scoped(async_generator, log)
    )
    async with scope():
        assert await provided(chosen) == "plain"
        assert log == []
        configuration.from_dict({"kind": "session"})
        assert await provided(chosen) == "x"
    assert log == ["open x", "close x"]


async def test_a_provider_that_is_passed_as_such_is_not_opened() -> None:
    """A factory that takes the provider itself may never call it."""
    log: Log = []
    session = scoped(async_generator, log)
    async with scope():
        found = await provided(providers.Factory(dict[str, object], session=session.provider))
        assert found == {"session": session}
    assert log == []


@pytest.mark.parametrize("kind", [providers.Factory, providers.Callable, providers.Singleton])
async def test_other_providers_are_never_entered(kind: Callable[..., providers.Provider[Any]]) -> None:
    """What a factory makes may be a context manager that its user enters."""
    log: Log = []
    for factory in (AsyncSession, Session):
        async with scope():
            assert type(await provided(kind(factory, log))) is factory
    if kind is providers.Singleton:
        return  # dependency-injector itself takes a generator for a coroutine here
    async with scope():
        for made in (async_generator, generator):
            made_by_call = await provided(kind(made, log))
            close = cast(Any, made_by_call)
            await close.aclose() if made is async_generator else close.close()
    assert log == []


def test_it_takes_no_arguments_at_the_call() -> None:
    """There is one value for all, so it can not be made to measure."""
    with pytest.raises(TypeError, match="in the container"):
        scoped(generator, [])("other")


@pytest.mark.parametrize("factory", [None, "session", 5], ids=repr)
def test_a_factory_that_cannot_be_called_is_an_error(factory: object) -> None:
    """It is found when the container is defined."""
    with pytest.raises(InvalidSettingError, match="generator function"):
        scoped(cast(Any, factory))


def gives_text() -> str:
    """A plain factory, which belongs into a ``Factory``."""
    return "text"


async def gives_text_later() -> str:
    """The same, async."""
    return "text"


@pytest.mark.parametrize("factory", [gives_text, gives_text_later])
async def test_a_factory_of_plain_values_is_an_error(factory: Callable[..., object]) -> None:
    """Nothing of what it gives could be closed."""
    async with scope():
        with pytest.raises(InvalidSettingError, match="returns a context manager") as caught:
            await provided(scoped(factory))
        assert factory.__name__ in str(caught.value)


# Overrides and copies


async def test_an_overridden_value_is_not_opened() -> None:
    """The fake is used as it is, whether it is a context manager or not."""
    log: Log = []
    session = scoped(async_generator, log)
    fake = Session(log, "fake")
    with overridden(session, providers.Object(cast(Any, fake))):
        assert session() is cast(Any, fake)  # no request is needed for it
        async with scope():
            assert await provided(session) is fake
            assert await provided(providers.List(session)) == [fake]
    assert log == []


async def test_a_value_can_be_replaced_by_another_one_of_a_request() -> None:
    """That one is opened and closed in its place."""
    log: Log = []
    session = scoped(async_generator, log, "real")
    books = providers.Factory(dict[str, str], session=session)
    with overridden(session, scoped(async_generator, log, "fake")):
        async with scope():
            assert await provided(session) == "fake"
            assert await provided(books) == {"session": "fake"}
            assert session() == "fake"
    assert log == ["open fake", "close fake"]


async def test_a_value_can_be_replaced_by_an_async_provider() -> None:
    """Whoever injects it gets the value, not a promise of it; nor any promise afterwards."""

    async def found() -> str:
        return "fake"

    log: Log = []
    session = scoped(async_generator, log, "real")
    async with scope():
        with overridden(session, cast(Any, providers.Coroutine(found))):
            assert await provided(session) == "fake"
        assert await provided(session) == "real"
        assert session() == "real"


async def test_an_async_provider_works_after_a_sync_one_stood_in_its_place() -> None:
    """A note of dependency-injector, taken at the first call, says for ever that it is not async."""

    async def pool() -> AsyncGenerator[str]:
        yield "pool"

    resource = providers.Resource(pool)
    books = providers.Factory(dict[str, str], pool=resource)
    with overridden(resource, providers.Object("fake")):
        assert await provided(books) == {"pool": "fake"}
    assert await provided(books) == {"pool": "pool"}
    await shutdown(resource)


async def test_copies_are_of_one_container_each() -> None:
    """A container's instance has a provider of its own, with arguments of its own."""

    class Shop(containers.DeclarativeContainer):
        log = providers.Object(cast(Log, []))
        name = providers.Object("name")
        session: providers.Provider[str] = RequestScoped(async_generator, log, name=name)
        books = providers.Factory(dict[str, str], session=session)

    first, second = Shop(), Shop()
    first.name.override(providers.Object("first"))  # pyright: ignore[reportUnknownMemberType]  # its stub
    async with scope():
        assert await provided(first.books) == {"session": "first"}
        assert await provided(second.books) == {"session": "name"}
        assert first.session is not second.session
        assert first.books.kwargs["session"] is first.session


def test_it_shows_its_factory() -> None:
    """In errors and in tracebacks."""
    assert str(scoped(generator, [])) == "<aeros.containers.RequestScoped(generator)>"
    assert "partial" in str(scoped(partial(generator, [])))


# Tasks


async def test_tasks_of_one_request_open_a_value_once() -> None:
    """Whoever is first opens it, and the others wait."""
    log: Log = []
    go = asyncio.Event()

    async def slow() -> AsyncGenerator[object]:
        log.append("open")
        await go.wait()
        yield object()
        log.append("close")

    session = RequestScoped(slow)
    async with scope():
        tasks = [asyncio.create_task(provided(session)) for _ in range(5)]
        while not log:
            await asyncio.sleep(0)
        go.set()
        assert len(set(await asyncio.gather(*tasks))) == 1
    assert log == ["open", "close"]


async def test_a_task_that_is_cancelled_while_it_opens_leaves_it_to_the_next() -> None:
    """Those who wait for it try themselves."""
    log: Log = []
    go = asyncio.Event()

    async def slow() -> AsyncGenerator[str]:
        log.append("try")
        await go.wait()
        yield "value"
        log.append("close")

    session = RequestScoped(slow)
    async with scope():
        first, second = [asyncio.create_task(provided(session)) for _ in range(2)]
        while not log:
            await asyncio.sleep(0)
        first.cancel()
        go.set()
        assert await second == "value"
        assert first.cancelled()
    assert log == ["try", "try", "close"]


async def test_a_task_that_is_cancelled_while_it_waits_disturbs_nobody() -> None:
    """The one that opens goes on, and so do the others."""
    log: Log = []
    go = asyncio.Event()

    async def slow() -> AsyncGenerator[str]:
        log.append("try")
        await go.wait()
        yield "value"

    session = RequestScoped(slow)
    async with scope():
        first, second, third = [asyncio.create_task(provided(session)) for _ in range(3)]
        while not log:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        assert (await first, await third) == ("value", "value")
    assert log == ["try"]


async def test_a_plain_call_meanwhile_opens_it_for_all() -> None:
    """A sync value whose argument somebody waits for is opened once."""
    log: Log = []
    go = asyncio.Event()

    async def found() -> str:
        await go.wait()
        return "argument"

    argument = cast("providers.Provider[str]", providers.Coroutine(found))
    session = scoped(generator, log, argument)
    async with scope():
        task = asyncio.create_task(provided(session))
        await asyncio.sleep(0)
        with overridden(argument, providers.Object("now")):
            assert session() == "now"
        go.set()
        assert await task == "now"
    assert log == ["open now", "close now"]


@every_factory
async def test_after_its_request_it_is_an_error(factory: Callable[..., Any]) -> None:
    """A task that outlives its request gets nothing that nobody would close; open or not before."""
    for is_used in (True, False):
        log: Log = []
        session = scoped(factory, log)
        over = asyncio.Event()

        async def late(session: RequestScoped[str] = session, over: asyncio.Event = over) -> None:
            await over.wait()
            with pytest.raises(RequestScopeError, match="after its request was over"):
                await provided(session)
            with pytest.raises(RequestScopeError):
                session()

        async with scope():
            if is_used:
                await provided(session)
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        over.set()
        await task
        assert log == (["open x", "close x"] if is_used else [])


async def test_what_is_opened_while_its_request_ends_is_closed() -> None:
    """By the task that opened it: nobody else knows of it."""
    log: Log = []
    go = asyncio.Event()

    async def slow() -> AsyncGenerator[str]:
        log.append("open")
        await go.wait()
        try:
            yield "value"
        finally:
            log.append("close")

    async with scope():
        task = asyncio.create_task(provided(RequestScoped(slow)))
        while not log:
            await asyncio.sleep(0)
    go.set()
    with pytest.raises(RequestScopeError, match="after its request was over"):
        await task
    assert log == ["open", "close"]


async def test_what_needs_something_that_comes_too_late_is_not_opened() -> None:
    """The request ends while an argument is awaited."""
    log: Log = []
    go = asyncio.Event()

    async def found() -> str:
        log.append("asked")
        await go.wait()
        return "argument"

    async with scope():
        task = asyncio.create_task(provided(scoped(async_generator, log, providers.Coroutine(found))))
        while not log:
            await asyncio.sleep(0)
    go.set()
    with pytest.raises(RequestScopeError):
        await task
    assert log == ["asked"]


# Failures


async def fails_on_entry(log: Log) -> AsyncGenerator[str]:
    """A database that is down."""
    log.append("try")
    if log:
        raise OSError("no database")
    yield ""


async def test_a_factory_that_raises_is_asked_again() -> None:
    """Its error is raised to each who asks; what it needed is closed."""
    log: Log = []
    connection = scoped(async_generator, log, "connection")

    async def failing(connection: str) -> AsyncGenerator[str]:
        async for _ in fails_on_entry(log):
            yield connection

    session = scoped(failing, connection)
    async with scope():
        for _ in range(2):
            with pytest.raises(OSError, match="no database"):
                await provided(session)
    assert log == ["open connection", "try", "try", "close connection"]


async def test_one_that_cannot_be_closed_is_logged_and_the_others_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The response is out: there is nobody to raise an error to."""
    log: Log = []

    async def failing() -> AsyncGenerator[str]:
        yield "failing"
        raise OSError("commit failed")

    async with scope():
        await provided(scoped(async_generator, log, "first"))
        await provided(scoped(failing))
        await provided(scoped(generator, log, "last"))
    assert log == ["open first", "open last", "close last", "close first"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aeros.injection", logging.ERROR)
    assert "failing could not be closed" in record.getMessage()
    assert "commit failed" in caplog.text


async def test_an_error_that_a_value_passes_on_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is the request's own, which is logged where it was raised."""
    log: Log = []
    async with scope(ValueError("of the view")):
        for factory in (async_generator, generator):
            await provided(scoped(factory, log))
    assert caplog.records == []
    assert log.count("told ValueError('of the view')") == 2


async def test_another_error_in_place_of_the_requests_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The rollback itself has failed."""

    async def failing() -> AsyncGenerator[str]:
        try:
            yield "value"
        except ValueError as error:
            raise OSError("rollback failed") from error

    async with scope(ValueError("of the view")):
        await provided(scoped(failing))
    assert "rollback failed" in caplog.text


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_factory_that_yields_twice_is_logged(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes after the second ``yield`` is run by nobody."""

    async def twice() -> AsyncGenerator[str]:
        yield "first"
        yield "second"

    def sync_twice() -> Generator[str]:
        yield "first"
        yield "second"

    log: Log = []
    async with scope():
        await provided(scoped(async_generator, log))
        assert await provided(scoped(twice if is_async else sync_twice)) == "first"
    assert "didn't stop" in caplog.text
    assert log == ["open x", "close x"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_factory_that_yields_nothing_is_an_error(is_async: bool) -> None:
    """There is no value, and whoever asks is told."""

    async def never() -> AsyncGenerator[str]:
        for name in list[str]():
            yield name

    def sync_never() -> Generator[str]:
        yield from ()

    async with scope():
        with pytest.raises(RuntimeError, match="didn't yield"):
            await provided(scoped(never if is_async else sync_never))


async def test_a_cancelled_close_goes_on_with_the_others() -> None:
    """Whoever is impatient with one value does not keep the others open."""
    log: Log = []
    closing = asyncio.Event()

    async def slow() -> AsyncGenerator[str]:
        yield "slow"
        closing.set()
        await asyncio.Event().wait()

    async def request() -> None:
        async with scope():
            await provided(scoped(async_generator, log))
            await provided(scoped(slow))

    task = asyncio.create_task(request())
    await closing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["open x", "close x"]


async def test_a_value_may_be_asked_for_while_others_are_closed() -> None:
    """What is closed later is still open then; what was never opened stays so."""
    log: Log = []
    first = scoped(async_generator, log, "first")
    never = scoped(async_generator, log, "never")

    async def asking() -> AsyncGenerator[str]:
        yield "asking"
        log.append(f"found {first()}")
        with pytest.raises(RequestScopeError, match="after its request was over"):
            await provided(never)

    async with scope():
        await provided(first)
        await provided(scoped(asking))
    assert log == ["open first", "found first", "close first"]


async def test_the_current_scope_is_that_of_the_task() -> None:
    """And of the tasks that it starts."""
    assert current_request_scope() is None
    async with scope() as current:

        async def inner() -> RequestScope | None:
            return current_request_scope()

        assert await asyncio.create_task(inner()) is current
        assert current_request_scope() is current
    assert current_request_scope() is None


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_an_end_that_is_asked_for_while_closing_goes_on(end: type[BaseException]) -> None:
    """Once the others are closed; one of them that hands the request's own error on does not hide it."""
    cancelled = asyncio.CancelledError("the client has left")
    log: Log = []

    def hands_on(log: Log) -> Generator[str]:
        try:
            yield "first"
        finally:
            log.append("closed")

    def ends() -> Generator[str]:
        try:
            yield "last"
        finally:
            raise end("stop")

    first, last = scoped(hands_on, log), scoped(ends)
    opened_here = RequestScope()
    opened_here.error = cancelled
    for provider in (first, last):
        await opened_here.open(provider)
    with pytest.raises(end, match="stop"):
        await opened_here.close()
    assert log == ["closed"]
