"""What tests of applications use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from dependency_injector import providers

from aeros import Cache, InvalidSettingError, WebServer
from aeros.testing import override


def test_a_value_is_given_while_the_override_lasts() -> None:
    """And the provider's own again afterwards."""
    app, other = WebServer("a"), Cache()
    own = app.container.cache()
    with override(app.container.cache, other):
        assert app.container.cache() is other
    assert app.container.cache() is own


def test_a_provider_is_asked_at_each_use() -> None:
    """A factory in the place of a singleton makes one for each call."""
    app = WebServer("a")
    with override(app.container.cache, providers.Factory(Cache)):
        assert app.container.cache() is not app.container.cache()


def test_overrides_nest_and_undo_only_themselves() -> None:
    """Also where they do not end in the order in which they began."""
    app = WebServer("a")
    own = app.container.logger()
    first, second = (
        override(app.container.logger, logging.getLogger("1")),
        override(app.container.logger, logging.getLogger("2")),
    )
    first.__enter__()
    second.__enter__()
    assert app.logger.name == "2"
    first.__exit__(None, None, None)
    assert app.logger.name == "2"
    second.__exit__(None, None, None)
    assert app.logger is own


def test_an_override_is_undone_when_the_test_fails() -> None:
    """The error is the test's own."""
    app = WebServer("a")
    own = app.container.cache()
    with pytest.raises(ZeroDivisionError), override(app.container.cache, Cache()):
        raise ZeroDivisionError
    assert app.container.cache() is own


def test_an_override_is_a_decorator_of_functions() -> None:
    """It holds while the function runs, each time."""
    app, other = WebServer("a"), Cache()

    @override(app.container.cache, other)
    def current(scale: int) -> tuple[Cache, int]:
        return app.container.cache(), 2 * scale

    own = app.container.cache()
    assert [current(1), current(scale=2)] == [(other, 2), (other, 4)]
    assert app.container.cache() is own
    assert current.__name__ == "current"


async def test_an_override_is_a_decorator_of_async_functions() -> None:
    """It holds until they have ended, and not only until they are called."""
    app, other = WebServer("a"), Cache()

    @override(app.container.cache, other)
    async def current() -> Cache:
        await asyncio.sleep(0)
        return app.container.cache()

    own = app.container.cache()
    coroutine = current()
    assert app.container.cache() is own
    assert await coroutine is other
    assert app.container.cache() is own


def test_a_decorated_function_may_call_itself() -> None:
    """Each call has an override of its own."""
    app, other = WebServer("a"), Cache()
    own = app.container.cache()

    @override(app.container.cache, other)
    def depth(left: int) -> int:
        assert app.container.cache() is other
        return 0 if left == 0 else 1 + depth(left - 1)

    assert depth(3) == 3
    assert app.container.cache() is own


def test_one_override_is_not_entered_twice_at_once() -> None:
    """But once more when it was left."""
    app = WebServer("a")
    own, made = app.container.cache(), override(app.container.cache, Cache())
    for _ in range(2):
        with made, pytest.raises(RuntimeError, match="in force already"):
            made.__enter__()
        assert app.container.cache() is own


def test_what_can_not_be_overridden_or_decorated_is_named() -> None:
    """A value in the place of a provider, a class or a generator in that of a function."""
    app = WebServer("a")
    given: Any = app.container.cache()
    with pytest.raises(InvalidSettingError, match="without its parentheses"):
        override(given, Cache())
    made: Any = override(app.container.cache, Cache())
    with pytest.raises(InvalidSettingError, match="a function to decorate"):
        made(Cache)

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidSettingError, match="in a generator use it with 'with'"):
        made(generator)
