"""How providers refer to each other, with the types that dependency-injector's stubs leave out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from dependency_injector import providers

if TYPE_CHECKING:
    AnyProvider: TypeAlias = providers.Provider[Any]


def as_provider(value: object) -> AnyProvider | None:
    """Returns ``value`` if it is a provider."""
    return value if isinstance(value, providers.Provider) else None  # pyright: ignore[reportUnknownVariableType]  # it has a type argument


def overriding(provider: AnyProvider) -> AnyProvider | None:
    """Returns what stands in the place of a provider now."""
    return provider.last_overriding  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # its stub


def related(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yields what a provider refers to, its overrides included."""
    if isinstance(provider, providers.ConfigurationOption):
        yield provider.root  # which it does not tell of
    yield from provider.related  # pyright: ignore[reportUnknownMemberType]  # its stub


def traversed(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yields all that a provider refers to, directly or not."""
    seen = {id(provider)}
    waiting = [provider]
    while waiting:
        for other in related(waiting.pop()):
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
                yield other
