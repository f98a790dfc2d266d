"""The container: which layer a setting comes from, what a provider may give, and overrides."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock, create_autospec

import pytest
import uvicorn
from cachelib import SimpleCache
from dependency_injector import containers, providers

from aeros import (
    Br,
    Cache,
    ConfigurationError,
    Container,
    Gzip,
    InvalidSettingError,
    Negotiated,
    ProviderError,
    ServerSettings,
    WebServer,
)
from aeros.caching.stores.cachelib import CachelibStore
from aeros.compression import Base
from aeros.containers import as_compressor, check_container, replace_provider, resolved, using_settings
from aeros.serving.server import Server


def override(container: containers.Container, name: str, value: object) -> AbstractContextManager[object]:
    """Makes a provider give ``value``, until the context that is returned ends."""
    provider = cast(Any, container.providers[name])
    return cast("AbstractContextManager[object]", provider.override(providers.Object(value)))


def provider_of(container: containers.Container, name: str) -> Any:
    """Returns a provider whose methods the stubs do not type."""
    return container.providers[name]


def container_with(**provided: object) -> containers.Container:
    """Returns an instance of a container class with further or other providers."""
    made: type[Container] = type("AppContainer", (Container,), provided)
    return cast(containers.Container, made())


class RecordingServer:
    """A server that only notes the settings that are in force while it runs."""

    def __init__(self, container: Container, seen: list[ServerSettings]) -> None:
        self.container = container
        self.seen = seen

    def run(self) -> None:
        """Notes them."""
        self.seen.append(self.container.settings())


def recording(app: WebServer) -> list[ServerSettings]:
    """Replaces the application's server; returns the list that each run notes its settings in."""
    seen: list[ServerSettings] = []

    def build(config: uvicorn.Config) -> RecordingServer:
        assert config.port == app.container.settings().port
        return RecordingServer(app.container, seen)

    provider_of(app.container, "server").override(providers.Callable(build))
    return seen


# Precedence


@pytest.mark.parametrize(
    ("run", "constructor", "config", "environment", "expected"),
    [
        (1, 2, 3, 4, 1),
        (None, 2, 3, 4, 2),
        (None, None, 3, 4, 3),
        (None, None, None, 4, 4),
        (None, None, None, None, 80),
        (1, None, None, 4, 1),
        (1, None, 3, None, 1),
        (None, 2, None, 4, 2),
        (None, 2, 3, None, 2),
    ],
)
def test_a_setting_comes_from_the_strongest_layer_that_states_it(
    monkeypatch: pytest.MonkeyPatch,
    run: int | None,
    constructor: int | None,
    config: int | None,
    environment: int | None,
    expected: int,
) -> None:
    """A run, then ``WebServer()``, then ``container.config``, then ``AEROS_*``, then the default."""
    if environment is not None:
        monkeypatch.setenv("AEROS_PORT", str(environment))
    container = Container()
    if config is not None:
        container.config.from_dict({"port": config})
    app = WebServer(__name__, port=constructor, container=container)
    seen = recording(app)
    before = container.settings().port
    app.run_server(port=run)
    assert [settings.port for settings in seen] == [expected]
    assert container.settings().port == before


@pytest.mark.parametrize("key", ["logging_level", "log_level"])
@pytest.mark.parametrize("variable", ["AEROS_LOGGING_LEVEL", "AEROS_LOG_LEVEL"])
@pytest.mark.parametrize("stated", ["before", "after"])
def test_the_configured_log_level_beats_the_environments(
    monkeypatch: pytest.MonkeyPatch, key: str, variable: str, stated: str
) -> None:
    """The layers keep their order, whichever of the two names of the level each uses."""
    monkeypatch.setenv(variable, "debug")
    container = Container()
    if stated == "before":
        container.config.from_dict({key: "error"})
    WebServer(__name__, container=container)
    if stated == "after":
        container.config.from_dict({key: "error"})
    assert container.settings().log_level == logging.ERROR


@pytest.mark.parametrize("key", ["logging_level", "log_level"])
def test_the_log_level_of_the_constructor_beats_the_configuration(key: str) -> None:
    """Under either of its names."""
    container = Container()
    container.config.from_dict({key: "error"})
    WebServer(__name__, logging_level="debug", container=container)
    assert container.settings().log_level == logging.DEBUG


def test_configuration_set_before_and_after_construction_counts() -> None:
    """The configuration is read when the settings are asked for, not when the server was made."""
    container = Container()
    container.config.from_dict({"port": 1, "host": "a"})
    WebServer(__name__, container=container)
    assert (container.settings().port, container.settings().host) == (1, "a")
    container.config.port.from_value("2")
    container.config.from_dict({"traceback": "no"})
    assert (container.settings().port, container.settings().host) == (2, "a")
    assert container.settings().traceback is False


def test_configuration_set_later_stays_below_the_arguments() -> None:
    """What the constructor was given is not overwritten."""
    container = Container()
    WebServer(__name__, port=1, container=container)
    container.config.from_dict({"port": 2, "host": "a"})
    assert (container.settings().port, container.settings().host) == (1, "a")


def test_configuration_set_later_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables were read at construction, but stay the weaker layer."""
    monkeypatch.setenv("AEROS_PORT", "4")
    container = Container()
    WebServer(__name__, container=container)
    container.config.from_dict({"port": 3})
    assert container.settings().port == 3


def test_the_environment_is_read_when_the_server_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container made earlier does not freeze it."""
    container = Container()
    monkeypatch.setenv("AEROS_PORT", "4")
    WebServer(__name__, container=container)
    assert container.settings().port == 4


def test_the_configuration_shows_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own providers can be built from it."""
    monkeypatch.setenv("AEROS_HOST", "a")
    container = Container()
    container.config.from_dict({"database": {"url": "sqlite://"}})
    WebServer(__name__, port=1, container=container)
    assert container.config.port() == 1
    assert container.config.host() == "a"
    assert container.config.database.url() == "sqlite://"


def test_headers_may_be_added_one_by_one() -> None:
    """A nested key of the configuration is seen at the next look."""
    container = Container()
    container.config.from_dict({"global_headers": {"X-A": "1"}})
    WebServer(__name__, container=container)
    assert dict(container.settings().global_headers) == {"X-A": "1"}
    container.config.global_headers.from_dict({"X-B": "2"})
    assert dict(container.settings().global_headers) == {"X-A": "1", "X-B": "2"}


def test_a_file_may_state_settings(tmp_path: Path) -> None:
    """What dependency-injector loads, counts."""
    file = tmp_path / "app.ini"
    file.write_text("[aeros]\nport = 8123\n")
    loaded = providers.Configuration()
    loaded.from_ini(str(file))
    container = Container()
    container.config.from_dict(cast("dict[Any, Any]", loaded.aeros()))
    WebServer(__name__, container=container)
    assert container.settings().port == 8123


# Sharing and laziness


def test_two_applications_share_nothing() -> None:
    """Neither settings, nor cache, nor logger, nor an override of one of them."""
    first, second = WebServer(__name__, port=1), WebServer(__name__)
    assert first.container.settings().port == 1
    assert second.container.settings().port == 80
    assert first.container.cache() is not second.container.cache()
    assert first.container.logger() is not second.container.logger()
    with override(first.container, "compressor", None):
        assert second.container.compressor() is not None


def test_two_instances_of_one_container_class_share_nothing() -> None:
    """A class with its own providers is a recipe, not a place."""
    first, second = container_with(), container_with()
    WebServer(__name__, port=1, container=cast(Container, first))
    WebServer(__name__, port=2, container=cast(Container, second))
    assert provider_of(first, "settings")().port == 1
    assert provider_of(second, "settings")().port == 2
    assert provider_of(first, "cache")() is not provider_of(second, "cache")()


def test_a_provider_is_called_when_it_is_needed_and_not_before() -> None:
    """Making a server makes no cache, no compressor and no logger."""
    calls: list[str] = []

    def noting(name: str) -> object:
        def build() -> None:
            calls.append(name)

        return providers.Singleton(build)

    container = container_with(**{name: noting(name) for name in ("cache", "compressor", "logger", "server")})
    WebServer(__name__, container=cast(Container, container))
    assert calls == []


def test_the_standard_providers_give_what_they_promise() -> None:
    """Defaults need no configuration."""
    container = Container()
    assert isinstance(container.settings(), ServerSettings)
    assert isinstance(container.logger(), logging.Logger)
    assert isinstance(container.cache(), Cache)
    assert isinstance(container.compressor(), Negotiated)
    assert isinstance(provider_of(container, "server")(uvicorn.Config(Mock(), log_config=None)), Server)
    assert container.cache() is container.cache()


def test_the_logger_has_the_level_of_the_settings() -> None:
    """The logger is built from the settings when it is first asked for."""
    app = WebServer(__name__, logging_level="error")
    assert app.logger.level == logging.ERROR
    assert app.logger.name == "aeros"


# What a provider may be


WRONG_PROVIDERS: list[tuple[str, object, str]] = [
    ("cache", providers.Singleton(SimpleCache), "Cache"),
    ("cache", providers.Factory(dict), "Cache"),
    ("cache", providers.Object("memory"), "Cache"),
    ("cache", providers.Object(None), "Cache"),
    ("compressor", providers.Singleton(dict), "Base or None"),
    ("compressor", providers.Object(False), "Base or None"),
    ("logger", providers.Singleton(logging.StreamHandler), "Logger"),
    ("settings", providers.Singleton(dict), "ServerSettings"),
    ("settings", providers.Object({"port": 1}), "ServerSettings"),
    ("server", providers.Factory(dict), ""),
]


@pytest.mark.parametrize(("name", "provider", "promised"), WRONG_PROVIDERS)
def test_a_provider_that_can_be_seen_to_give_the_wrong_type_fails_at_construction(
    name: str, provider: object, promised: str
) -> None:
    """The error names the provider, what it gives, and what it must give."""
    container = container_with(**{name: provider})
    with pytest.raises(ProviderError, match=rf"container\.{name}: gives \w+; .*{promised}") as caught:
        WebServer(__name__, container=cast(Container, container))
    assert caught.value.provider == name


FITTING_PROVIDERS: list[tuple[str, object]] = [
    ("cache", providers.Singleton(Cache, default_timeout=5)),
    ("cache", providers.Object(Mock())),
    ("cache", providers.Object(create_autospec(Cache, instance=True))),
    ("compressor", providers.Singleton(Gzip)),
    ("compressor", providers.Object(None)),
    ("compressor", providers.Object(Br())),
    ("logger", providers.Callable(logging.getLogger, "shop")),
    ("settings", providers.Object(ServerSettings(port=1))),
    ("server", providers.Factory(uvicorn.Server)),
    ("server", providers.Object(Mock())),
]


@pytest.mark.parametrize(("name", "provider"), FITTING_PROVIDERS)
def test_a_fitting_provider_is_taken(name: str, provider: object) -> None:
    """Classes, functions, values and mocks of what was promised."""
    container = container_with(**{name: provider})
    WebServer(__name__, container=cast(Container, container))
    if name != "server":
        assert resolved(container, name) is not False


def test_what_could_not_be_seen_fails_when_it_is_called() -> None:
    """A function may give anything; the error still names the provider."""

    def simple_cache() -> SimpleCache:
        return SimpleCache()

    container = container_with(cache=providers.Callable(simple_cache))
    app = WebServer(__name__, container=cast(Container, container))
    with pytest.raises(ProviderError, match=r"container\.cache: gives SimpleCache; it must give Cache"):
        app.current_cache()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cahce", "cache"),
        ("cach", "cache"),
        ("cachee", None),
        ("loger", "logger"),
        ("compresor", "compressor"),
        ("compresser", "compressor"),
        ("setings", "settings"),
        ("sever", "server"),
        ("confg", "config"),
    ],
)
def test_a_misspelt_provider_is_named_with_the_one_that_was_meant(name: str, nearest: str | None) -> None:
    """It would silently be ignored else; only what begins like the standard name is let through."""
    container = container_with(**{name: providers.Object(5)})
    if nearest is None:
        check_container(container)
        return
    with pytest.raises(ProviderError, match=rf"container\.{name}: .*did you mean '{nearest}'\?"):
        WebServer(__name__, container=cast(Container, container))


@pytest.mark.parametrize(
    "name",
    [
        "caches",
        "cache_store",
        "database",
        "logger_factory",
        "mailer",
        "logging",
        "setup",
        "servers",
        "coach",
        "c",
        "search",
    ],
)
def test_a_provider_of_the_applications_own_may_have_any_name(name: str) -> None:
    """Only one slip of the finger away from a standard name is taken for one."""
    container = container_with(**{name: providers.Object(5)})
    WebServer(__name__, container=cast(Container, container))
    assert provider_of(container, name)() == 5


@pytest.mark.parametrize("wrong", [Container, object(), "container", {}, 5, Cache()])
def test_what_is_no_container_instance_is_refused(wrong: Any) -> None:
    """The class instead of an instance is the usual slip, and the cure says so."""
    with pytest.raises(ProviderError, match=r"container\.container: .*pass an instance"):
        WebServer(__name__, container=wrong)


@pytest.mark.parametrize(
    "name", ["config", "_arguments", "settings", "logger", "cache", "compressor", "server"]
)
def test_a_container_that_lacks_a_standard_provider_is_refused(name: str) -> None:
    """A container of dependency-injector must be derived from that of aeros."""
    standard = cast("Mapping[str, object]", Container.providers)
    partial = {key: value for key, value in standard.items() if key != name}
    foreign: type[containers.DeclarativeContainer] = type("C", (containers.DeclarativeContainer,), partial)
    with pytest.raises(ProviderError, match=rf"container\.{name}: is missing; .*aeros\.Container"):
        check_container(foreign())


# Overrides


def test_an_override_made_later_is_seen_and_undone() -> None:
    """The server never remembers what a provider gave."""
    app = WebServer(__name__)
    first, other = app.current_cache(), Cache()
    with override(app.container, "cache", other):
        assert app.current_cache() is other
    assert app.current_cache() is first


def test_overrides_may_be_nested() -> None:
    """Each context gives back what was in force before it."""
    app = WebServer(__name__, port=1)
    settings = app.container.settings
    with override(app.container, "settings", ServerSettings(port=2)):
        with override(app.container, "settings", ServerSettings(port=3)):
            assert settings().port == 3
        assert settings().port == 2
    assert settings().port == 1


def test_a_mock_without_a_specification_stands_for_everything() -> None:
    """A unit test may replace any provider by a plain mock."""
    app = WebServer(__name__)
    for name, ask in (("cache", app.current_cache), ("logger", app.current_logger)):
        mock = Mock()
        with override(app.container, name, mock):
            assert cast(object, ask()) is mock


def test_an_override_of_the_wrong_type_is_named_when_it_is_used() -> None:
    """What was put in place later is checked as well."""
    app = WebServer(__name__)
    with (
        override(app.container, "logger", "print"),
        pytest.raises(ProviderError, match=r"container\.logger: gives str; it must give Logger"),
    ):
        app.current_logger()


def test_replacing_a_provider_is_in_force_at_once() -> None:
    """Also where the provider has given something already."""
    container = Container()
    first, other = container.cache(), Cache()
    replace_provider(container, "cache", other)
    assert container.cache() is other
    assert container.cache() is not first


def test_settings_of_a_run_are_in_force_while_it_lasts() -> None:
    """After it the container gives what it gave before, also when the run failed."""
    container = Container()
    with suppress(LookupError), using_settings(container, ServerSettings(port=5)):
        assert container.settings().port == 5
        raise LookupError
    assert container.settings().port == 80


def test_an_override_made_during_a_run_outlasts_it() -> None:
    """Only the run's own settings go; what stood before and what came later stay, in their order."""
    container = Container()
    early = override(container, "settings", ServerSettings(port=1))
    with using_settings(container, ServerSettings(port=2)):
        late = override(container, "settings", ServerSettings(port=3))
        assert container.settings().port == 3
    assert container.settings().port == 3
    with late:
        pass
    assert container.settings().port == 1
    with early:
        pass
    assert container.settings().port == 80


def test_two_runs_may_end_in_any_order() -> None:
    """A server in a thread does not take the settings of another one away."""
    container = Container()
    first = using_settings(container, ServerSettings(port=1))
    second = using_settings(container, ServerSettings(port=2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert container.settings().port == 2
    second.__exit__(None, None, None)
    assert container.settings().port == 80


# The constructor's collaborators


def test_compression_false_switches_it_off() -> None:
    """None is not given, so the container decides; False is a decision."""
    assert WebServer(__name__, compression=False).container.compressor() is None
    assert isinstance(WebServer(__name__).container.compressor(), Negotiated)
    gzip = Gzip()
    assert WebServer(__name__, compression=gzip).container.compressor() is gzip


@pytest.mark.parametrize("wrong", ["gzip", True, 0, Gzip, object()])
def test_what_is_no_compressor_is_refused(wrong: object) -> None:
    """The error shows what was given and what would fit."""
    with pytest.raises(ProviderError, match=r"container\.compressor: compression=.*give Br\(\)"):
        as_compressor(wrong)


def test_a_cachelib_object_is_a_cache() -> None:
    """It is taken as it is, and becomes the store of a cache in memory."""
    shared = SimpleCache()
    cache = WebServer(__name__, cache=shared).container.cache()
    assert isinstance(cache, Cache)
    assert repr(cache) == "Cache(SimpleCache and memory, 64 MiB)"


def test_a_cache_and_a_store_are_taken_by_the_constructor() -> None:
    """A cache as itself, a store as what a new cache keeps its entries in."""
    cache = Cache(max_bytes=1000)
    assert WebServer(__name__, cache=cache).container.cache() is cache
    store = CachelibStore(SimpleCache())
    assert "SimpleCache" in repr(WebServer(__name__, cache=store).container.cache())


def test_an_argument_beats_the_containers_provider() -> None:
    """Of this application's container, and of no other."""
    container = container_with(compressor=providers.Singleton(Br), cache=providers.Singleton(Cache))
    cache = Cache()
    WebServer(__name__, cache=cache, compression=False, container=cast(Container, container))
    assert provider_of(container, "cache")() is cache
    assert provider_of(container, "compressor")() is None
    assert isinstance(provider_of(container_with(), "compressor")(), Base)


@pytest.mark.parametrize("wrong", ["redis://localhost", 5, object(), {}])
def test_what_is_no_cache_is_refused(wrong: Any) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidSettingError, match=r"^cache: "):
        WebServer(__name__, cache=wrong)


def test_a_wrong_argument_leaves_nothing_half_made() -> None:
    """The container is not changed by a construction that failed."""
    container = Container()
    with pytest.raises(ConfigurationError):
        WebServer(__name__, port=-1, host="a", container=container)
    assert container.settings() == ServerSettings()


@pytest.mark.parametrize("name", ["environment", "arguments", "resolver"])
def test_a_provider_of_the_applications_own_is_never_replaced_silently(name: str) -> None:
    """A name that aeros needs for itself is an error that says so; every other keeps its value."""
    container = container_with(**{name: providers.Object("production")})
    refused: list[str] = []
    try:
        WebServer(__name__, container=cast(Container, container))
    except ProviderError as error:
        refused.append(error.provider)
    assert refused == [name] or provider_of(container, name)() == "production"
