"""Providers that give something else for a while."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from dependency_injector import providers

from aeros.containers import overridden
from aeros.errors import InvalidSettingError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Override(Generic[T]):
    """One override: a context manager, and a decorator for tests.

    It may be entered again once it was left.
    """

    def __init__(self, provider: providers.Provider[T], overriding: providers.Provider[T]) -> None:
        self._provider = provider
        self._overriding = overriding
        self._stack: ExitStack | None = None

    def __enter__(self) -> None:
        """Puts it in force."""
        if self._stack is not None:
            raise RuntimeError("this override is in force already; make another one to nest it")
        stack = ExitStack()
        stack.enter_context(overridden(self._provider, self._overriding))
        self._stack = stack

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Undoes this override and no other."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Returns ``function``, sync or async, with the override in force while it runs.

        Raises:
            InvalidSettingError: It is no function, or a generator: use ``with`` in it.
        """
        if isinstance(function, type) or not callable(function):
            raise InvalidSettingError("override()", function, "a function to decorate")
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise InvalidSettingError("override()", function, "a function; in a generator use it with 'with'")
        if iscoroutinefunction(function):

            @wraps(function)
            async def overridden_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Override(self._provider, self._overriding):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", overridden_async)

        @wraps(function)
        def overridden_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with Override(self._provider, self._overriding):
                return function(*args, **kwargs)

        return overridden_sync


def override(provider: providers.Provider[T], value: T | providers.Provider[T]) -> Override[T]:
    """Makes a provider give something else for a while, also to a running server.

    >>> with override(app.container.cache, Cache(max_bytes=2**20)):
    ...     ...
    >>> @override(app.container.mailer, FakeMailer())
    ... async def test_a_letter_is_sent() -> None: ...

    Overrides nest, and leaving one undoes that one and no other.

    Args:
        provider: A provider of an application's container.
        value: What it gives instead, or a provider of that. A value of the wrong type is an
            error that the type checker shows.

    Raises:
        InvalidSettingError: ``provider`` is none, e.g. a value that it gave.
    """
    if not isinstance(provider, providers.Provider):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from users
        raise InvalidSettingError(
            "override()", provider, "a provider, e.g. app.container.cache without its parentheses"
        )
    if isinstance(value, providers.Provider):
        return Override(provider, cast("providers.Provider[T]", value))
    return Override(provider, cast("providers.Provider[T]", providers.Object(value)))
