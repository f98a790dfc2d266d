"""How providers refer to each other, with the types that dependency-injector's stubs leave out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from dependency_injector import providers

if TYPE_CHECKING:
    AnyProvider: TypeAlias = providers.Provider[Any]


# Providers that keep the value of their first call.
KEEPING: Final = (providers.BaseSingleton, providers.BaseResource)


def as_provider(value: object) -> AnyProvider | None:
    """Returns ``value`` if it is a provider."""
    return value if isinstance(value, providers.Provider) else None  # pyright: ignore[reportUnknownVariableType]  # it has a type argument


def overriding(provider: AnyProvider) -> AnyProvider | None:
    """Returns what stands in the place of a provider now."""
    return provider.last_overriding  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # its stub


def related(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yields what a provider refers to, its overrides included."""
    if isinstance(provider, providers.ConfigurationOption):
        yield root_of(provider)
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


def root_of(option: providers.ConfigurationOption) -> providers.Configuration:
    """Returns the configuration that an option is of."""
    # Its property ``root`` exists in the stub only; at run time that is an option of this name.
    return cast(providers.Configuration, cast(Any, option)._get_root())


def option_of(
    configuration: providers.Configuration, like: providers.ConfigurationOption
) -> providers.ConfigurationOption:
    """Returns the option of a configuration that has the same name as one of another.

    It is the one that this configuration knows of, and makes read its values anew when they change.
    """
    first, *rest = cast("tuple[str, ...]", like.get_name_segments())  # pyright: ignore[reportUnknownMemberType]  # its stub
    found: Any = getattr(configuration, first)
    for segment in rest:
        found = found[segment]
    return cast(providers.ConfigurationOption, found.required() if cast(Any, like).is_required() else found)
