"""What tests of applications use."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar, cast

from dependency_injector import providers

from aeros.containers import overridden

T = TypeVar("T")


@contextmanager
def override(provider: providers.Provider[T], value: T | providers.Provider[T]) -> Generator[None]:
    """Makes a provider give something else while the context lasts, also to a running server.

    >>> with override(app.container.cache, Cache(max_bytes=2**20)):
    ...     ...

    Overrides nest, and leaving the context undoes this one and no other.

    Args:
        provider: A provider of an application's container.
        value: What it gives instead, or a provider of that. A value of the wrong type is an
            error that the type checker shows.
    """
    if isinstance(value, providers.Provider):
        overriding = cast("providers.Provider[T]", value)
    else:
        overriding = cast("providers.Provider[T]", providers.Object(value))
    with overridden(provider, overriding):
        yield
