"""What a container's instance shows of itself."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, cast

import pytest
from dependency_injector import containers, providers

from aeros.containers import Container, RequestScoped, overridden


class Users:
    """A collaborator."""


class FakeUsers(Users):
    """Its stand-in."""


def open_session() -> Generator[str]:
    """Stands for what lives as long as a request."""
    yield "session"


class Inner(containers.DeclarativeContainer):
    books = providers.Factory(list[str])


class AppContainer(Container):
    users: providers.Provider[Users] = providers.Singleton(Users)
    session: providers.Provider[str] = RequestScoped(open_session)
    secret = providers.Object("s3cret")
    inner = providers.Container(Inner)


def row(container: Container, name: str) -> list[str]:
    """The cells of a provider's row."""
    (line,) = [line for line in str(container).splitlines() if line.startswith(f"{name} ")]
    return re.split(r"  +", line)


def test_a_container_prints_as_a_table() -> None:
    """A row per provider: its name, its kind, what it gives."""
    container = AppContainer()
    head, *rows = str(container).splitlines()
    assert re.split(r"  +", head) == ["provider", "kind", "gives", "overridden by"]
    assert len(rows) == len(container.providers)
    assert row(container, "users") == ["users", "Singleton", "Users"]
    assert row(container, "cache") == ["cache", "Singleton", "Cache"]
    assert row(container, "session") == ["session", "RequestScoped", "open_session"]
    assert row(container, "inner.books")[:2] == ["inner.books", "Factory"]
    assert all(line == line.rstrip() for line in rows)


def test_the_columns_stand_below_each_other() -> None:
    """A table is read downwards."""
    lines = str(AppContainer()).splitlines()
    kind = lines[0].index("kind")
    assert all(line[kind - 2 : kind] == "  " and line[kind] != " " for line in lines)


def test_an_override_is_shown_while_it_lasts() -> None:
    """That is what one looks for when a test behaves strangely."""
    container = AppContainer()
    with overridden(container.users, cast(Any, providers.Singleton(FakeUsers))):
        assert row(container, "users")[-1] == "FakeUsers"
        with overridden(container.users, cast(Any, providers.Object(FakeUsers()))):
            assert row(container, "users")[-1] == "FakeUsers"
    assert row(container, "users")[-1] == "Users"


def test_values_are_not_shown() -> None:
    """A table that is pasted into a bug report tells no secret."""
    container = AppContainer()
    container.config.from_dict({"password": "hunter2"})
    assert row(container, "secret") == ["secret", "Object", "str"]
    with overridden(container.secret, providers.Object("t0ken")):
        shown = str(container)
    assert not {"s3cret", "hunter2", "t0ken"} & set(re.split(r"\W+", shown))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("usres", "did you mean 'users'?"),
        ("user", "did you mean 'users'?"),
        ("cahce", "did you mean 'cache'?"),
        ("database", "it has _arguments, .*users"),
    ],
)
def test_a_misspelt_override_names_the_nearest(name: str, hint: str) -> None:
    """Nothing is overridden, and nothing else is said."""
    container = AppContainer()
    with pytest.raises(AttributeError, match=f"the container has no provider '{name}'; {hint}"):
        cast(Any, container).override_providers(**{name: providers.Object(None)})
    assert not container.users.overridden  # pyright: ignore[reportUnknownMemberType]  # its stub


def test_a_misspelt_override_at_the_making_names_the_nearest() -> None:
    """``AppContainer(usres=...)`` is the same slip."""
    with pytest.raises(AttributeError, match="did you mean 'users'"):
        AppContainer(usres=providers.Object(None))


def test_a_misspelt_provider_names_the_nearest() -> None:
    """Also where it is only asked for, and without hiding what is private."""
    container = AppContainer()
    with pytest.raises(AttributeError, match="did you mean 'users'"):
        cast(Any, container).usres()
    assert not hasattr(container, "_usres")
    assert not hasattr(container, "__usres__")
