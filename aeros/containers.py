"""The composition root: every collaborator of a ``WebServer``, as a provider that can be replaced.

>>> from dependency_injector import providers
>>> from aeros import Cache, Container, WebServer
>>> class AppContainer(Container):
...     cache = providers.Singleton(Cache, default_timeout=60)
>>> app = WebServer(__name__, container=AppContainer())

Each application has a container of its own. A provider is called each time its value is needed,
so an override is in force at once, and undone at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dependency_injector import containers, providers

from aeros.caching.server import Cache
from aeros.compression import Base, Negotiated
from aeros.errors import ProviderError, misspelt_name
from aeros.injection import RequestScoped
from aeros.injection.instance import ContainerInstance
from aeros.injection.lifetimes import captives_in, name_in
from aeros.serving.log import ConsoleStyle, build_logger
from aeros.serving.runner import AnyServer
from aeros.serving.server import Server
from aeros.settings import ServerSettings, SettingsResolver, check_setting, environment_settings

T = TypeVar("T")


def _build_logger(settings: ServerSettings) -> logging.Logger:
    style = ConsoleStyle(log_format=settings.log_format, color=settings.color, traceback=settings.traceback)
    return build_logger(level=settings.log_level, style=style)


def _resolve_settings(
    resolver: SettingsResolver,
    arguments: Mapping[str, object],
    config: Mapping[str, object] | None,
    environment: Mapping[str, object],
) -> ServerSettings:
    return resolver.resolve(arguments, config or {}, environment)


class Container(containers.DeclarativeContainer):
    """The providers of an application. Subclass it to replace some and to add your own.

    Attributes:
        config: Settings by name, as ``dependency-injector`` loads them; keys that are no setting
            are the application's own.
        settings: How the server runs: from the constructor's arguments, ``config``, the
            ``AEROS_*`` variables and the defaults.
        logger: Where the application logs.
        cache: The response cache.
        compressor: Compresses responses; a provider of None switches compression off.
        server: Makes the server for a ``uvicorn.Config``.
    """

    instance_type = ContainerInstance

    if TYPE_CHECKING:
        # dependency-injector's types take any name for a provider; so a misspelt one is an error.
        __getattr__: None  # type: ignore[assignment, misc]  # pyright: ignore[reportIncompatibleMethodOverride]

    config: providers.Configuration = providers.Configuration()
    _arguments: providers.Provider[Mapping[str, object]] = providers.Object({})
    _environment: providers.Provider[Mapping[str, object]] = providers.Object({})
    _resolver = providers.Singleton(SettingsResolver)
    settings: providers.Provider[ServerSettings] = providers.Callable(
        _resolve_settings, _resolver, _arguments, config, _environment
    )
    logger: providers.Provider[logging.Logger] = providers.Singleton(_build_logger, settings)
    cache: providers.Provider[Cache] = providers.Singleton(Cache)
    compressor: providers.Provider[Base | None] = providers.Singleton(Negotiated)
    server: providers.Provider[AnyServer] = providers.Factory(Server)


# What each standard provider must give. A factory may give anything that can run.
_PROMISED: Final[Mapping[str, tuple[type, ...]]] = {
    "settings": (ServerSettings,),
    "logger": (logging.Logger,),
    "cache": (Cache,),
    "compressor": (Base, type(None)),
    "server": (),
}
_STANDARD: Final = ("config", "_arguments", "_environment", *_PROMISED)


def check_container(container: object) -> None:
    """Checks what can be known of a container before any of its providers is called.

    Raises:
        ProviderError: It is no container instance, lacks a standard provider, has one whose class
            can be seen to give the wrong type, has one that looks like a misspelt standard one, or
            one that would keep what is closed after each request.
    """
    if isinstance(container, type) or not isinstance(container, containers.Container):
        raise ProviderError(
            "container",
            f"{container!r} is not a container instance",
            "pass an instance: container=MyContainer()",
        )
    found = container.providers
    for name in _STANDARD:
        if name not in found:
            raise ProviderError(name, "is missing", "derive the container from aeros.Container")
    for name in found:
        _check_spelling(name)
    for name, promised in _PROMISED.items():
        _check_class(name, found[name], promised)
    for name, (keeping, kept) in captives_in(container):
        session = name_in(container, kept, kept.name)
        raise ProviderError(
            name,
            f"is a {type(keeping).__name__}, which would keep {session!r} ({kept.name}) beyond its request",
            "make it a Factory, or give it what is not closed after each request",
        )


def resolved(container: containers.Container, name: str) -> object:
    """Calls a standard provider and returns its value.

    Raises:
        ProviderError: The value is of another type than the provider promises.
    """
    value: object = container.providers[name]()
    promised = _PROMISED[name]
    if promised and not isinstance(value, promised) and not _is_mock(value):
        raise _wrong_type(name, type(value), promised)
    return value


def configure(container: containers.Container, arguments: Mapping[str, object]) -> None:
    """Puts a constructor's arguments and the ``AEROS_*`` variables into a container.

    ``container.config`` shows all of them. What it stated before, and states later, stays below
    the arguments and above the environment.

    Raises:
        ConfigurationError: A value does not fit.
    """
    checked = {name: check_setting(name, value, place=name) for name, value in arguments.items()}
    environment = environment_settings(os.environ)
    replace_provider(container, "_arguments", MappingProxyType(checked))
    replace_provider(container, "_environment", MappingProxyType(environment))
    stated = {name: value for name, value in configuration(container).items() if value is not None}
    config = cast(providers.Configuration, container.providers["config"])
    shown = {**environment, **stated, **checked}
    # The configuration copies what it holds when it is changed, which a read-only mapping forbids.
    config.from_dict({name: _copyable(value) for name, value in shown.items()})


def _copyable(value: object) -> object:
    return dict(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else value


def configuration(container: containers.Container) -> Mapping[str, object]:
    """Returns what ``container.config`` states, by name."""
    return cast("Mapping[str, object] | None", container.providers["config"]()) or {}


def replace_provider(container: containers.Container, name: str, value: object) -> None:
    """Makes a provider of the container give ``value`` from now on."""
    container.providers[name].override(providers.Object(value))  # pyright: ignore[reportUnknownMemberType]  # its stub


@contextmanager
def overridden(provider: providers.Provider[T], overriding: providers.Provider[T]) -> Generator[None]:
    """Puts ``overriding`` in the provider's place while the context lasts.

    What is undone is this override and no other: one that was made meanwhile stays in force.
    """
    provider.override(overriding)  # pyright: ignore[reportUnknownMemberType]  # its stub
    try:
        yield
    finally:
        stacked = cast("tuple[providers.Provider[T], ...]", provider.overridden)  # pyright: ignore[reportUnknownMemberType]  # its stub
        provider.reset_override()
        for other in stacked:
            if other is not overriding:
                provider.override(other)  # pyright: ignore[reportUnknownMemberType]  # its stub


def using_settings(container: containers.Container, settings: ServerSettings) -> AbstractContextManager[None]:
    """Makes the container give ``settings`` while the context lasts."""
    return overridden(container.providers["settings"], providers.Object(settings))


def as_compressor(value: object) -> Base | None:
    """Returns the compressor that ``WebServer(compression=)`` was given; None for False.

    Raises:
        ProviderError: It is no compressor.
    """
    if value is False:
        return None
    if isinstance(value, Base):
        return value
    raise ProviderError(
        "compressor", f"compression={value!r} is no compressor", "give Br(), Gzip(), Negotiated() or False"
    )


def _check_spelling(name: str) -> None:
    if name in _STANDARD or name.startswith("_"):
        return
    meant = misspelt_name(name, _STANDARD)
    # ``caches`` and ``cache2`` are names of their own; ``cahce`` and ``loger`` are not.
    if meant is not None and not name.startswith(meant):
        raise ProviderError(name, "looks like a misspelt provider", f"did you mean {meant!r}?")


def _check_class(name: str, provider: providers.Provider[Any], promised: tuple[type, ...]) -> None:
    if isinstance(provider, providers.Object):
        value = cast(object, provider.provides)
        if promised and not isinstance(value, promised) and not _is_mock(value):
            raise _wrong_type(name, type(value), promised)
        return
    made = cast(object, getattr(provider, "provides", None))
    if not isinstance(made, type):
        return  # a function: what it gives is seen when it is called
    if promised and not issubclass(made, promised):
        raise _wrong_type(name, made, promised)
    if name == "server" and not hasattr(made, "run"):
        raise ProviderError(name, f"gives {made.__name__}", "it must give a server, with a method run()")


def _wrong_type(name: str, given: type, promised: tuple[type, ...]) -> ProviderError:
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in promised)
    return ProviderError(name, f"gives {given.__name__}", f"it must give {names}")


def _is_mock(value: object) -> bool:
    # A mock made for a test says of itself what it stands for, if anything; isinstance() has
    # already believed it then. One without a specification stands for everything.
    return hasattr(value, "assert_called_with")


__all__ = [
    "Container",
    "RequestScoped",
    "as_compressor",
    "check_container",
    "configuration",
    "configure",
    "overridden",
    "replace_provider",
    "resolved",
    "using_settings",
]
