"""What tests of applications use."""

from __future__ import annotations

import logging

import pytest
from dependency_injector import providers

from aeros import Cache, WebServer
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
