"""Server settings: what each field takes, where it is looked for, and how errors name the place."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest

from aeros import Container, WebServer
from aeros.errors import ConfigurationError, InvalidHeaderError, InvalidSettingError, UnknownOptionError
from aeros.settings import (
    UNSET,
    ServerSettings,
    SettingsResolver,
    check_headers,
    check_limits,
    check_setting,
    environment_settings,
    given,
    given_or_none,
)

ACCEPTED: list[tuple[str, object, object]] = [
    ("host", "127.0.0.1", "127.0.0.1"),
    ("host", "::1", "::1"),
    ("host", "localhost", "localhost"),
    ("port", 0, 0),
    ("port", 65535, 65535),
    ("port", "8000", 8000),
    ("port", " 8000 ", 8000),
    ("include_server_header", False, False),
    ("include_server_header", "OFF", False),
    ("log_level", logging.DEBUG, logging.DEBUG),
    ("log_level", 0, 0),
    ("log_level", "15", 15),
    ("log_level", "info", logging.INFO),
    ("log_level", " Warning ", logging.WARNING),
    ("access_log_file", "a.log", "a.log"),
    ("access_log_file", PurePosixPath("/x/a.log"), "/x/a.log"),
    ("access_log_file", None, None),
    ("access_log_file", "", None),
    ("access_log_to_std", "yes", True),
    ("access_log_to_std", "0", False),
    ("access_log_exclude", ("/livez",), ("/livez",)),
    ("access_log_exclude", ["/livez", "/a/caf\xe9"], ("/livez", "/a/caf\xe9")),
    ("access_log_exclude", "/livez, /readyz", ("/livez", "/readyz")),
    ("access_log_exclude", "", ()),
    ("access_log_exclude", "none", ()),
    ("access_log_exclude", None, ()),
    ("error_log_file", "e.log", "e.log"),
    ("error_log_file", PurePosixPath("/x/e.log"), "/x/e.log"),
    ("error_log_file", "none", None),
    ("traceback", "true", True),
    ("traceback", "no", False),
    ("soft_limit", 1, 1),
    ("soft_limit", "7", 7),
    ("soft_limit", None, None),
    ("soft_limit", "None", None),
    ("hard_limit", 10**6, 10**6),
    ("hard_limit", "null", None),
    ("global_headers", {"X-A": "1"}, {"X-A": "1"}),
    ("global_headers", '{"X-A": "1"}', {"X-A": "1"}),
    ("global_headers", {}, {}),
    ("log_format", "text", "text"),
    ("log_format", "json", "json"),
    ("color", None, None),
    ("color", "none", None),
    ("color", "1", True),
    ("color", False, False),
    ("workers", None, None),
    ("workers", "none", None),
    ("workers", 3, 3),
    ("workers", "4", 4),
    ("workers", " Auto ", "auto"),
    ("timeout_request_header", None, None),
    ("timeout_request_header", "none", None),
    ("timeout_request_header", 3, 3.0),
    ("timeout_request_header", " 0.5 ", 0.5),
    ("timeout_request_body", None, None),
    ("timeout_request_body", "none", None),
    ("timeout_request_body", 3, 3.0),
    ("timeout_request_body", " 0.5 ", 0.5),
    ("timeout_write", None, None),
    ("timeout_write", "none", None),
    ("timeout_write", 3, 3.0),
    ("timeout_write", " 0.5 ", 0.5),
    ("timeout_handler", None, None),
    ("timeout_handler", "none", None),
    ("timeout_handler", 3, 3.0),
    ("timeout_handler", " 0.5 ", 0.5),
    ("max_header_bytes", 1, 1),
    ("max_header_bytes", "2000", 2000),
    ("max_header_fields", 1, 1),
    ("max_header_fields", "2000", 2000),
    ("uvicorn_options", {"workers": 2}, {"workers": 2}),
]

REJECTED: list[tuple[str, object]] = [
    ("host", ""),
    ("host", "a b"),
    ("host", "a\nb"),
    ("host", "a\0"),
    ("host", 1),
    ("host", b"h"),
    ("port", -1),
    ("port", 65536),
    ("port", 80.0),
    ("port", math.nan),
    ("port", True),
    ("port", "http"),
    ("port", "8_000"),
    ("port", "+80"),
    ("port", "\uff18\uff10"),
    ("port", "\u0663"),
    ("port", ""),
    ("port", "9" * 5000),
    ("include_server_header", 1),
    ("include_server_header", "maybe"),
    ("include_server_header", ""),
    ("log_level", "loud"),
    ("log_level", -1),
    ("log_level", True),
    ("log_level", 1.5),
    ("log_level", ""),
    ("access_log_file", 3),
    ("access_log_file", True),
    ("access_log_file", "a\0b"),
    ("access_log_file", b"a"),
    ("access_log_to_std", 0),
    ("access_log_exclude", "livez"),
    ("access_log_exclude", "/livez,"),
    ("access_log_exclude", ["/a b"]),
    ("access_log_exclude", ["/a?b"]),
    ("access_log_exclude", ["/a#b"]),
    ("access_log_exclude", ["/a\n"]),
    ("access_log_exclude", [b"/a"]),
    ("access_log_exclude", b"/a"),
    ("access_log_exclude", {"/a": 1}),
    ("access_log_exclude", 5),
    ("error_log_file", 3),
    ("error_log_file", "a\0b"),
    ("traceback", []),
    ("soft_limit", 0),
    ("soft_limit", -1),
    ("soft_limit", 1.5),
    ("soft_limit", True),
    ("hard_limit", 0),
    ("hard_limit", "many"),
    ("global_headers", "no json"),
    ("global_headers", '["X-A"]'),
    ("global_headers", [("X-A", "1")]),
    ("global_headers", 5),
    ("log_format", "xml"),
    ("log_format", "TEXT"),
    ("log_format", ["text"]),
    ("color", "blue"),
    ("color", 1),
    ("workers", 0),
    ("workers", -1),
    ("workers", "many"),
    ("workers", True),
    ("workers", 1.5),
    ("timeout_request_header", 0),
    ("timeout_request_header", -1),
    ("timeout_request_header", "soon"),
    ("timeout_request_header", True),
    ("timeout_request_header", float("inf")),
    ("timeout_request_header", float("nan")),
    ("timeout_request_body", 0),
    ("timeout_request_body", -1),
    ("timeout_request_body", "soon"),
    ("timeout_request_body", True),
    ("timeout_request_body", float("inf")),
    ("timeout_request_body", float("nan")),
    ("timeout_write", 0),
    ("timeout_write", -1),
    ("timeout_write", "soon"),
    ("timeout_write", True),
    ("timeout_write", float("inf")),
    ("timeout_write", float("nan")),
    ("timeout_handler", 0),
    ("timeout_handler", -1),
    ("timeout_handler", "soon"),
    ("timeout_handler", True),
    ("timeout_handler", float("inf")),
    ("timeout_handler", float("nan")),
    ("max_header_bytes", 0),
    ("max_header_bytes", None),
    ("max_header_bytes", 1.5),
    ("max_header_bytes", "many"),
    ("max_header_fields", 0),
    ("max_header_fields", None),
    ("max_header_fields", 1.5),
    ("max_header_fields", "many"),
    ("uvicorn_options", "workers=2"),
    ("uvicorn_options", 2),
]


def construct(values: Mapping[str, Any]) -> ServerSettings:
    """Makes settings of values that a type checker would refuse."""
    return ServerSettings(**values)


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_a_field_takes_what_fits_and_keeps_it_in_its_type(name: str, value: object, expected: object) -> None:
    """Text is parsed, other values are kept as they are."""
    other = {"hard_limit": None} if name == "soft_limit" else {}
    found = getattr(construct({name: value} | other), name)
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, MappingProxyType)


@pytest.mark.parametrize(("name", "value"), REJECTED)
def test_a_field_refuses_what_does_not_fit_and_is_named(name: str, value: object) -> None:
    """An instance is always valid; the error has the place, the value and what would fit."""
    with pytest.raises(InvalidSettingError) as caught:
        construct({name: value})
    assert caught.value.setting == name
    assert caught.value.expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_defaults_are_those_of_the_reference() -> None:
    """Nothing given is the documented server."""
    settings = ServerSettings()
    assert (settings.host, settings.port, settings.include_server_header) == ("0.0.0.0", 80, True)
    assert (settings.log_level, settings.access_log_file, settings.access_log_to_std) == (20, None, True)
    assert (settings.traceback, settings.soft_limit, settings.hard_limit) == (True, 32, 42)
    assert (settings.log_format, settings.color) == ("text", None)
    assert (settings.access_log_exclude, settings.error_log_file) == ((), None)
    assert (dict(settings.global_headers), dict(settings.uvicorn_options)) == ({}, {})


def test_settings_can_not_be_changed() -> None:
    """Neither a field nor what is in a mapping of one."""
    settings = ServerSettings(global_headers={"X-A": "1"}, uvicorn_options={"workers": 2})
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # what the test is about  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        settings.global_headers["X-B"] = "2"  # type: ignore[index]  # the same  # pyright: ignore[reportIndexIssue]
    with pytest.raises(TypeError):
        settings.uvicorn_options["reload"] = True  # type: ignore[index]  # the same  # pyright: ignore[reportIndexIssue]


def test_settings_do_not_follow_the_mappings_that_they_were_made_of() -> None:
    """Validated once means valid for good."""
    headers, options = {"X-A": "1"}, {"workers": 2}
    settings = ServerSettings(global_headers=headers, uvicorn_options=options)
    headers["X B"] = "\n"
    options["workers"] = 3
    assert dict(settings.global_headers) == {"X-A": "1"}
    assert dict(settings.uvicorn_options) == {"workers": 2}


def test_a_directory_entry_is_a_path(tmp_path: Path) -> None:
    """Every ``os.PathLike`` counts by its path, not by its text."""
    (tmp_path / "a.log").touch()
    with os.scandir(tmp_path) as entries:
        entry = next(entries)
    assert check_setting("access_log_file", entry, place="access_log_file") == str(tmp_path / "a.log")


@pytest.mark.parametrize(("soft", "hard"), [(32, 32), (1, 42), (None, 1), (50, None), (None, None)])
def test_limits_fit_each_other(soft: int | None, hard: int | None) -> None:
    """The hard limit may be as low as the soft one; None is no limit."""
    check_limits(soft, hard)
    settings = ServerSettings(soft_limit=soft, hard_limit=hard)
    assert (settings.soft_limit, settings.hard_limit) == (soft, hard)


def test_a_hard_limit_below_the_soft_one_is_refused() -> None:
    """The hard limit counts those who are handled, too; also where one of the two is a default."""
    with pytest.raises(InvalidSettingError, match=r"hard_limit: 4 .*soft_limit \(5\)"):
        ServerSettings(soft_limit=5, hard_limit=4)
    with pytest.raises(InvalidSettingError, match=r"hard_limit: 42 .*soft_limit \(100\)"):
        ServerSettings(soft_limit=100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nSet-Cookie: b"),
        ("X-A", "a\nb"),
        ("X-A", "a\0b"),
        ("X-A", "\x7f"),
        ("X-A", "€"),
        ("X-A", 5),
        ("X-A", None),
        ("X-A", b"1"),
        ("", "1"),
        ("X A", "1"),
        ("X-A:", "1"),
        ("X-A\r\nB", "1"),
        ("X-Ä", "1"),
        (b"X-A", "1"),
        (1, "1"),
    ],
)
def test_a_header_that_must_not_be_sent_is_refused(name: object, value: object) -> None:
    """A name that is no token, and CR, LF, NUL or what is not Latin-1 in a value (RFC 9110 §5)."""
    with pytest.raises(InvalidHeaderError) as caught:
        check_headers("global_headers", {"X-Good": "1", name: value})
    assert (caught.value.setting, caught.value.name) == ("global_headers", name)
    assert len(str(caught.value).splitlines()) == 1


def test_headers_keep_their_order_and_are_ready_for_asgi() -> None:
    """Raw names are in lower case, raw values are Latin-1."""
    settings = ServerSettings(global_headers={"X-B": "é\t1", "x-a": ""})
    assert list(settings.global_headers) == ["X-B", "x-a"]
    assert settings.raw_global_headers == [(b"x-b", b"\xe9\t1"), (b"x-a", b"")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("AEROS_HOST", "::1", ("host", "::1")),
        ("AEROS_PORT", "8000", ("port", 8000)),
        ("AEROS_INCLUDE_SERVER_HEADER", "off", ("include_server_header", False)),
        ("AEROS_LOG_LEVEL", "debug", ("log_level", 10)),
        ("AEROS_LOGGING_LEVEL", "debug", ("log_level", 10)),
        ("AEROS_ACCESS_LOG_FILE", "a.log", ("access_log_file", "a.log")),
        ("AEROS_ACCESS_LOG_TO_STD", "no", ("access_log_to_std", False)),
        ("AEROS_ACCESS_LOG_EXCLUDE", "/livez,/readyz", ("access_log_exclude", ("/livez", "/readyz"))),
        ("AEROS_ERROR_LOG_FILE", "e.log", ("error_log_file", "e.log")),
        ("AEROS_TRACEBACK", "0", ("traceback", False)),
        ("AEROS_WORKERS", "3", ("workers", 3)),
        ("AEROS_WORKERS", "auto", ("workers", "auto")),
        ("AEROS_SOFT_LIMIT", "3", ("soft_limit", 3)),
        ("AEROS_SOFT_LIMIT", "none", ("soft_limit", None)),
        ("AEROS_HARD_LIMIT", "64", ("hard_limit", 64)),
        ("AEROS_HARD_LIMIT", "none", ("hard_limit", None)),
        ("AEROS_GLOBAL_HEADERS", '{"X-A": "1"}', ("global_headers", {"X-A": "1"})),
        ("AEROS_LOG_FORMAT", "json", ("log_format", "json")),
        ("AEROS_COLOR", "true", ("color", True)),
    ],
)
def test_each_setting_has_a_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: tuple[str, object]
) -> None:
    """``AEROS_`` and the name of the argument, in upper case, reaches the application's settings."""
    monkeypatch.setenv(name, text)
    setting, value = expected
    found = getattr(WebServer(__name__).container.settings(), setting)
    assert found == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AEROS_PORT", "eighty"),
        ("AEROS_SOFT_LIMIT", "0"),
        ("AEROS_COLOR", "blue"),
        ("AEROS_LOGGING_LEVEL", "loud"),
        ("AEROS_GLOBAL_HEADERS", "X-A: 1"),
        ("AEROS_GLOBAL_HEADERS", '{"X-A": "1\\n"}'),
    ],
)
def test_an_error_of_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """The application is not made, and the message has the variable to mend."""
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError) as caught:
        WebServer(__name__)
    assert caught.value.setting == name


@pytest.mark.parametrize(
    ("construct_server", "place"),
    [
        (lambda: WebServer(__name__, port=-1), "port"),
        (lambda: WebServer(__name__, logging_level="loud"), "log_level"),
        (lambda: WebServer(__name__, global_headers={"X A": "1"}), "global_headers"),
    ],
)
def test_an_error_of_an_argument_names_the_argument(
    construct_server: Callable[[], object], place: str
) -> None:
    """Construction fails, before anything is served."""
    with pytest.raises(ConfigurationError) as caught:
        construct_server()
    assert caught.value.setting == place


@pytest.mark.parametrize(
    ("name", "value"), [("port", 65536), ("logging_level", "loud"), ("global_headers", {"X A": "1"})]
)
def test_an_error_of_the_configuration_names_the_key(name: str, value: object) -> None:
    """``config.`` and the key as the user wrote it."""
    container = Container()
    container.config.from_dict({name: value})
    WebServer(__name__, container=container)
    with pytest.raises(ConfigurationError) as caught:
        container.settings()
    assert caught.value.setting == f"config.{name}"


def test_a_misspelt_variable_is_an_error_that_suggests_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that would silently do nothing is worse than a start that fails."""
    monkeypatch.setenv("AEROS_PROT", "8000")
    with pytest.raises(UnknownOptionError, match=r"AEROS_PROT.*did you mean 'AEROS_PORT'\?") as caught:
        WebServer(__name__)
    assert (caught.value.setting, caught.value.nearest) == ("AEROS_PROT", "AEROS_PORT")


@pytest.mark.parametrize("name", ["AEROS_DB", "AEROS_TOKEN", "AEROS_SENTRY_URL", "AEROS_", "PORT", "PROT"])
def test_a_variable_of_somebody_else_is_left_alone(name: str) -> None:
    """A name like no setting's belongs to the application, and so does one without the prefix."""
    assert environment_settings({name: "x"}) == {}


def test_variables_are_checked_by_the_names_that_they_state() -> None:
    """Both names of the log level count, and only what is set is returned."""
    found = environment_settings({"AEROS_PORT": "1", "AEROS_LOGGING_LEVEL": "debug", "HOME": "/"})
    assert found == {"port": 1, "logging_level": 10}


def test_no_limit_can_be_said_in_the_configuration() -> None:
    """``none`` as text is no limit; a key that is None states nothing."""
    resolver = SettingsResolver()
    assert resolver.resolve({}, {"soft_limit": "none"}).soft_limit is None
    assert resolver.resolve({}, {"soft_limit": None}).soft_limit == 32
    assert resolver.resolve({"soft_limit": None}, {"soft_limit": 5}).soft_limit is None


def test_what_was_given_is_told_from_what_was_not() -> None:
    """None is no argument, unless the argument takes None: then ``UNSET`` is none."""
    assert given(a=None, b=0, c=False) == {"b": 0, "c": False}
    assert given_or_none(a=None, b=UNSET, c=1) == {"a": None, "c": 1}
    assert repr(UNSET) == "<not given>"


def test_settings_survive_pickling() -> None:
    """A worker process gets exactly the settings of its supervisor."""
    settings = ServerSettings(
        host="::1",
        port=0,
        log_level=5,
        access_log_file="x.log",
        soft_limit=None,
        hard_limit=7,
        global_headers={"X-A": "é"},
        log_format="json",
        color=False,
        uvicorn_options={"workers": 2},
    )
    copied = pickle.loads(pickle.dumps(settings))
    assert copied == settings
    assert copied is not settings
    assert copied.raw_global_headers == settings.raw_global_headers
    with pytest.raises(TypeError):
        copied.global_headers["X-B"] = "2"


def test_replacing_checks_and_leaves_the_original() -> None:
    """A changed copy is as valid as an original."""
    settings = ServerSettings(port=1, host="a")
    assert settings.replace({"port": "2"}) == ServerSettings(port=2, host="a")
    assert settings.port == 1
    with pytest.raises(InvalidSettingError):
        settings.replace({"hard_limit": 1})


def test_the_resolver_prefers_arguments_to_configuration_to_defaults() -> None:
    """Each setting comes from the first layer that states it."""
    found = SettingsResolver().resolve(
        {"port": 1}, {"port": "2", "host": "a", "database": object(), "log_level": None}
    )
    assert (found.port, found.host, found.log_level) == (1, "a", logging.INFO)


def test_the_resolver_remembers_while_nothing_has_changed() -> None:
    """The same layers give the very same object, whatever else is in the configuration."""
    resolver = SettingsResolver()
    first = resolver.resolve({"port": 1}, {"host": "a", "own": 1})
    assert resolver.resolve({"port": 1}, {"host": "a", "own": 2}) is first
    assert resolver.resolve({"port": 1}, {"host": "b"}).host == "b"
    assert resolver.resolve({"port": 1}, {}).host == "0.0.0.0"
    assert resolver.resolve({}, {}).port == 80


def test_the_resolver_sees_a_value_that_changed_in_its_place() -> None:
    """Headers added to a mapping that it has seen before are seen."""
    resolver, headers = SettingsResolver(), {"X-A": "1"}
    assert dict(resolver.resolve({}, {"global_headers": headers}).global_headers) == {"X-A": "1"}
    headers["X-B"] = "2"
    assert dict(resolver.resolve({}, {"global_headers": headers}).global_headers) == headers


def test_the_resolver_does_not_keep_an_answer_that_failed() -> None:
    """A wrong value fails each time, and a mended one works at once."""
    resolver = SettingsResolver()
    resolver.resolve({}, {"port": 1})
    for _ in range(2):
        with pytest.raises(InvalidSettingError, match=r"config\.port"):
            resolver.resolve({}, {"port": -1})
    assert resolver.resolve({}, {"port": 2}).port == 2


def test_the_log_level_of_a_run_beats_the_one_of_the_server_in_one_layer() -> None:
    """Where one layer has both names, ``log_level`` wins."""
    both = {"logging_level": "error", "log_level": "debug"}
    assert SettingsResolver().resolve({}, both).log_level == logging.DEBUG
    assert SettingsResolver().resolve({}, {"logging_level": "error"}).log_level == logging.ERROR


def test_headers_as_json_are_what_a_mapping_would_be() -> None:
    """An environment variable can carry several."""
    headers = {"X-A": "1", "Strict-Transport-Security": "max-age=1"}
    assert check_headers("AEROS_GLOBAL_HEADERS", json.dumps(headers)) == headers
