"""The pytest plugin of aeros: fixtures for tests of a ``WebServer``, and overrides that do not leak.

It loads with the package and imports aeros only where a test uses it. Fixtures stand on one of
yours, ``app``, that returns the application.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import pytest

if TYPE_CHECKING:
    from dependency_injector import containers, providers
    from quart.typing import TestClientProtocol

    from aeros import WebServer
    from aeros.serving.runner import RunningServer
    from aeros.testing import Clock

T = TypeVar("T")


class OverrideFixture(Protocol):
    """What the fixture ``override`` is."""

    def __call__(self, provider: providers.Provider[T], value: T | providers.Provider[T]) -> None:
        """Makes ``provider`` give ``value``, or what that provider gives, until the test is over."""
        ...


@pytest.fixture
def container(app: WebServer) -> Any:
    """The application's container."""
    return app.container


@pytest.fixture
def client(app: WebServer) -> TestClientProtocol:
    """A client that calls the application without a server."""
    return app.test_client()


@pytest.fixture
def live_server(app: WebServer) -> Iterator[RunningServer]:
    """The application on a real socket, at ``live_server.url``, on any free port."""
    with app.run_in_thread() as server:
        yield server


@pytest.fixture
def override() -> Iterator[OverrideFixture]:
    """A function that overrides a provider until the test is over."""
    from aeros.testing import override as make

    with ExitStack() as stack:

        def until_the_end(provider: providers.Provider[T], value: T | providers.Provider[T]) -> None:
            stack.enter_context(make(provider, value))

        yield until_the_end


@pytest.fixture
def cache_clock(app: WebServer, override: OverrideFixture) -> Clock:
    """A clock that the application's cache goes by; ``cache_clock.advance(60)`` moves it.

    For that the cache is replaced by an empty one with the same settings, in memory alone.
    """
    from aeros.testing import Clock, clocked

    clock = Clock()
    override(app.container.cache, clocked(app.container.cache(), clock))
    return clock


# Overrides that a test leaves behind


class _Watch:
    """The containers that outlive a test, and what was overridden in them before it."""

    def __init__(self) -> None:
        self._before: dict[containers.Container, dict[str, tuple[object, ...]]] = {}

    def see(self, value: object) -> None:
        """Takes note of an application or a container that several tests share."""
        found = _container_in(value)
        if found is not None and found not in self._before:
            self._before[found] = _overrides(found)

    def begin(self) -> None:
        """A test begins."""
        for known in self._before:
            self._before[known] = _overrides(known)

    def end(self) -> list[str]:
        """Undoes what the test has left in force; returns the names of its providers."""
        left: list[str] = []
        for known, before in self._before.items():
            for name, now in _overrides(known).items():
                if now != before.get(name, ()):
                    left.append(name)
                    _restore(known, name, before.get(name, ()))
        return left


_WATCH = pytest.StashKey[_Watch]()


def pytest_configure(config: pytest.Config) -> None:
    """Begins with no container known."""
    config.stash[_WATCH] = _Watch()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Takes note of applications that more than one test gets."""
    value = yield
    if fixturedef.scope != "function":
        request.config.stash[_WATCH].see(value)
    return value


@pytest.fixture(autouse=True)
def _no_override_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    if "aeros.webserver" not in sys.modules:
        yield
        return
    watch = request.config.stash[_WATCH]
    module = cast("object", getattr(request, "module", None))
    for value in vars(module).values() if module is not None else ():
        watch.see(value)
    watch.begin()
    yield
    left = watch.end()
    if left:
        pytest.fail(
            f"{request.node.nodeid} has left overrides in force: {', '.join(left)} (they are undone now);"
            " use the fixture 'override', or 'with aeros.testing.override(...)'",
            pytrace=False,
        )


def _container_in(value: object) -> containers.Container | None:
    if "aeros.webserver" not in sys.modules:
        return None
    from dependency_injector.containers import DynamicContainer

    from aeros import WebServer

    if isinstance(value, WebServer):
        value = cast("WebServer", value).container
    return value if isinstance(value, DynamicContainer) else None


def _overrides(container: containers.Container) -> dict[str, tuple[object, ...]]:
    from aeros.injection.resources import named_providers

    return {
        name: provider.overridden  # pyright: ignore[reportUnknownMemberType]  # its stub
        for name, provider in named_providers(container)
    }


def _restore(container: containers.Container, name: str, before: tuple[object, ...]) -> None:
    from aeros.injection.resources import named_providers

    provider = dict(named_providers(container))[name]
    provider.reset_override()
    for overriding in before:
        provider.override(overriding)  # pyright: ignore[reportUnknownMemberType]  # its stub
