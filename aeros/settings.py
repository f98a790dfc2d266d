"""How one server runs: frozen, validated settings, and the layers that they are chosen from.

A value is looked for in the arguments of ``run_server()``, then of ``WebServer()``, then in
``container.config``, then in the ``AEROS_*`` environment variables; what none of them has is the
default. Each value is checked where it came from, so an error names the place to mend:
``port``, ``config.port`` or ``AEROS_PORT``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from aeros.errors import (
    ConfigurationError,
    InvalidHeaderError,
    InvalidSettingError,
    InvalidVariableError,
    UnknownVariableError,
    misspelt_name,
)
from aeros.http.fields import is_field_value, is_token
from aeros.types import RawHeaders

LogFormat: TypeAlias = Literal["text", "json"]

ENVIRONMENT_PREFIX: Final = "AEROS_"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_NONE: Final = frozenset({"", "none", "null"})
_PATH: Final = re.compile(r"/[^\s?#\x00-\x1f\x7f]*")
_LOG_LEVELS: Final = "a level such as 'info', 'WARNING' or logging.INFO"


class Unset(Enum):
    """The type of an argument that was not given, where None means something."""

    UNSET = "not given"

    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything a server needs to know before it starts. An instance is always valid.

    Attributes:
        host: Address to listen on; ``0.0.0.0`` is every IPv4 interface.
        port: TCP port, 0 to 65535; 0 takes any free one.
        include_server_header: Whether responses carry ``server: uvicorn``.
        log_level: Lowest level that is logged, as in the ``logging`` module.
        access_log_file: File that gets one line per request, or None.
        access_log_to_std: Whether those lines go to standard output.
        access_log_exclude: Paths whose requests get no line, e.g. those of health probes.
        error_log_file: File that gets what is logged, beside standard error, or None.
        traceback: Whether logged exceptions show their traceback, or one line only.
        soft_limit: Requests handled at once per worker; more wait in line. None: no limit.
        hard_limit: Requests handled and waiting per worker; past it ``503``. None: no limit.
        global_headers: Fields that every response carries unless the view set them.
        log_format: ``"text"`` or ``"json"``.
        color: Whether the console is coloured; None: only on a terminal without ``NO_COLOR``.
        etag: Whether responses that are no streams get an ``ETag``.
        workers: How many processes serve; ``"auto"``: as many as this one may use CPUs. None: as many as
            ``WEB_CONCURRENCY`` says, else one.
        timeout_request_header: Seconds that a client has for the head of a request; then ``408``. None: no
            bound.
        timeout_request_body: Seconds that it has for the body, and one more for each KiB that has come; the
            time in which the application does not read is not counted. Then ``408``. None: no bound.
        timeout_write: Seconds in which a client must have read something of what waits for it, or its
            connection is cut. None: no bound.
        timeout_handler: Seconds from a request's dispatching to its response, without the sending; then
            ``504``. None: no bound.
        max_header_bytes: Bytes of names and values, and of the target, in a request's head; past it ``431``.
        max_header_fields: Fields in a request's head; past it ``431``.
        uvicorn_options: Further options of ``uvicorn.Config``, by name.
        raw_global_headers: ``global_headers`` as ASGI carries them.

    Raises:
        ConfigurationError: A value does not fit; the error names it.
    """

    host: str = "0.0.0.0"  # noqa: S104 - the reference API serves on every interface
    port: int = 80
    include_server_header: bool = True
    log_level: int = logging.INFO
    access_log_file: str | None = None
    access_log_to_std: bool = True
    access_log_exclude: tuple[str, ...] = ()
    error_log_file: str | None = None
    traceback: bool = True
    soft_limit: int | None = 32
    hard_limit: int | None = 42
    global_headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    log_format: LogFormat = "text"
    color: bool | None = None
    etag: bool = False
    workers: int | Literal["auto"] | None = None
    timeout_request_header: float | None = 10.0
    timeout_request_body: float | None = 30.0
    timeout_write: float | None = 30.0
    timeout_handler: float | None = None
    max_header_bytes: int = 65_536
    max_header_fields: int = 100
    uvicorn_options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    raw_global_headers: RawHeaders = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        check_limits(self.soft_limit, self.hard_limit)
        # Every response needs them in this form.
        raw = [
            (name.lower().encode("ascii"), text.encode("latin-1"))
            for name, text in self.global_headers.items()
        ]
        object.__setattr__(self, "raw_global_headers", raw)

    def __reduce__(self) -> tuple[Callable[[dict[str, object]], ServerSettings], tuple[dict[str, object]]]:
        # A worker process gets its settings pickled, and mapping proxies can not be.
        plain = {
            name: dict(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else value
            for name, value in self._values().items()
        }
        return _from_plain, (plain,)

    def replace(self, values: Mapping[str, object]) -> ServerSettings:
        """Returns these settings with ``values`` in place of the fields they name.

        Raises:
            ConfigurationError: A value does not fit.
        """
        return _from_plain(self._values() | dict(values))

    def _values(self) -> dict[str, object]:
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}


def _from_plain(values: dict[str, Any]) -> ServerSettings:
    return ServerSettings(**values)  # __post_init__ checks every value


class SettingsResolver:
    """Chooses settings from layers, and remembers the last answer while the layers stay the same.

    Resolving is on the way of every request; comparing the layers with what they were is all it costs
    when nothing has changed.
    """

    __slots__ = ("_answer", "_chosen_from", "_layers")

    def __init__(self) -> None:
        # All of the layers, and what of them is a setting: an application's own keys change no answer.
        self._layers: tuple[Mapping[str, object], ...] = ()
        self._chosen_from: tuple[dict[str, object], ...] = ()
        self._answer: ServerSettings | None = None

    def resolve(
        self,
        arguments: Mapping[str, object],
        config: Mapping[str, object],
        environment: Mapping[str, object] = MappingProxyType({}),
    ) -> ServerSettings:
        """Returns the settings: from ``arguments``, ``config``, ``environment``, else the defaults.

        Args:
            arguments: What the constructor of the server was given, by setting.
            config: The application's configuration; keys that are no setting are its own. What
                it only repeats of the environment counts as the environment's.
            environment: What ``AEROS_*`` variables state.

        Raises:
            ConfigurationError: A value does not fit.
        """
        if self._answer is not None and (arguments, config, environment) == self._layers:
            return self._answer
        stated = {name: config[name] for name in _SOURCES if name in config}
        chosen = tuple(_snapshot(layer) for layer in (arguments, stated, environment))
        if self._answer is None or chosen != self._chosen_from:
            self._answer = _choose(*chosen)
            self._chosen_from = chosen
        self._layers = _snapshot(arguments), _snapshot(config), _snapshot(environment)
        return self._answer


def _snapshot(layer: Mapping[str, object]) -> dict[str, object]:
    """Returns a copy that stays when a mapping or a list in the layer is changed in its place."""
    return {name: _copied(value) for name, value in layer.items()}


def _copied(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    return list(cast("list[object]", value)) if isinstance(value, list) else value


def _choose(
    arguments: Mapping[str, object], config: Mapping[str, object], environment: Mapping[str, object]
) -> ServerSettings:
    values: dict[str, object] = {}
    own = {
        name: value
        for name, value in config.items()
        if value is not None and not (name in environment and environment[name] == value)
    }
    # A variable that says "none" states that, where a key of the configuration that is None, as
    # one loaded from a variable that is not set, states nothing.
    for layer, place in ((own, "config."), (environment, ENVIRONMENT_PREFIX)):
        for source, name in _SOURCES.items():
            if name not in values and source in layer:
                values[name] = check_setting(name, layer[source], place=f"{place}{source}")
    return ServerSettings().replace(values | dict(arguments))


def check_setting(name: str, value: object, *, place: str) -> object:
    """Returns ``value`` in the type of the setting ``name``; text is parsed.

    Args:
        name: A field of ``ServerSettings``.
        value: What was given, e.g. ``8000`` or ``"8000"``.
        place: Where it was given, for the error.

    Raises:
        ConfigurationError: It does not fit.
    """
    return _CHECKS[name](place, value)


def given(**arguments: object) -> dict[str, object]:
    """Returns the arguments that were given: those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def given_or_none(**arguments: object) -> dict[str, object]:
    """Returns the arguments that are not ``UNSET``; None is a value here."""
    return {name: value for name, value in arguments.items() if value is not UNSET}


def environment_settings(environ: Mapping[str, str]) -> dict[str, object]:
    """Returns the settings that ``AEROS_*`` variables state, by the argument's name.

    Raises:
        InvalidVariableError: A variable's text does not fit its setting.
        UnknownVariableError: A variable looks like a misspelt one.
    """
    known = {ENVIRONMENT_PREFIX + source.upper(): source for source in _SOURCES}
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if variable in known:
            source = known[variable]
            try:
                values[source] = check_setting(_SOURCES[source], text, place=variable)
            except ConfigurationError as error:
                raise InvalidVariableError(variable, text, error.cure.removeprefix("give ")) from error
        elif variable.startswith(ENVIRONMENT_PREFIX) and misspelt_name(variable, known):
            raise UnknownVariableError(variable, known)
    return values


def check_limits(soft_limit: int | None, hard_limit: int | None) -> None:
    """Raises ``InvalidSettingError`` where the hard limit is below the soft one."""
    if soft_limit is not None and hard_limit is not None and hard_limit < soft_limit:
        raise InvalidSettingError(
            "hard_limit", hard_limit, f"at least soft_limit ({soft_limit}): it counts the waiting ones too"
        )


def check_headers(place: str, value: object) -> Mapping[str, str]:
    """Returns header fields that may go on the wire, read-only, in their order.

    Args:
        place: Where they were given, for the error.
        value: A mapping of names to values, or its JSON text.

    Raises:
        InvalidSettingError: It is no such mapping.
        InvalidHeaderError: A name is no token, or a value has CR, LF, NUL or is not Latin-1.
    """
    expected = "a mapping of header names to text values"
    if isinstance(value, str):
        try:
            value = cast(object, json.loads(value))
        except ValueError:
            raise InvalidSettingError(place, value, f"{expected}, as JSON") from None
    if not isinstance(value, Mapping):
        raise InvalidSettingError(place, value, expected)
    checked: dict[str, str] = {}
    for name, text in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not is_token(name):
            raise InvalidHeaderError(place, name, "is not a valid field name")
        if not isinstance(text, str) or not is_field_value(text):
            raise InvalidHeaderError(place, name, f"has the invalid value {text!r}")
        checked[name] = text
    return MappingProxyType(checked)


def _check_host(place: str, value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return value
    raise InvalidSettingError(place, value, "a host name or IP address, e.g. '127.0.0.1'")


def _check_port(place: str, value: object) -> int:
    number = _whole_number(value)
    if number is None or not 0 <= number <= 65535:
        raise InvalidSettingError(place, value, "a whole number from 0 to 65535")
    return number


def _check_bool(place: str, value: object) -> bool:
    text = value.strip().lower() if isinstance(value, str) else None
    if isinstance(value, bool):
        return value
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise InvalidSettingError(place, value, "True or False")


def _check_color(place: str, value: object) -> bool | None:
    return None if _is_none(value) else _check_bool(place, value)


def _check_limit(place: str, value: object) -> int | None:
    if _is_none(value):
        return None
    number = _whole_number(value)
    if number is None or number < 1:
        raise InvalidSettingError(place, value, "a whole number from 1 on, or None for no limit")
    return number


def _check_seconds(place: str, value: object) -> float | None:
    if _is_none(value):
        return None
    try:
        seconds = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        seconds = math.nan
    if isinstance(value, bool) or not 0 < seconds < math.inf:
        raise InvalidSettingError(place, value, "a number of seconds above 0, or None for no bound")
    return seconds


def _check_count(place: str, value: object) -> int:
    number = _whole_number(value)
    if number is None or number < 1:
        raise InvalidSettingError(place, value, "a whole number from 1 on")
    return number


def _check_workers(place: str, value: object) -> int | Literal["auto"] | None:
    if _is_none(value):
        return None
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    number = _whole_number(value)
    if number is None or number < 1:
        raise InvalidSettingError(place, value, "a whole number from 1 on, or 'auto'")
    return number


def _check_level(place: str, value: object) -> int:
    number = _whole_number(value)
    if number is not None and number >= 0:
        return number
    if isinstance(value, str):
        level = logging.getLevelNamesMapping().get(value.strip().upper())
        if level is not None:
            return level
    raise InvalidSettingError(place, value, _LOG_LEVELS)


def _check_file(place: str, value: object) -> str | None:
    if _is_none(value):
        return None
    if isinstance(value, os.PathLike):
        value = cast(object, os.fspath(cast("os.PathLike[str]", value)))
    if isinstance(value, str) and "\0" not in value:
        return value
    raise InvalidSettingError(place, value, "the path of a file, or None")


def _check_paths(place: str, value: object) -> tuple[str, ...]:
    paths = _listed(value)
    if paths is not None and all(isinstance(path, str) and _PATH.fullmatch(path) for path in paths):
        return cast("tuple[str, ...]", paths)
    raise InvalidSettingError(
        place, value, "paths that begin with a slash and have no query, e.g. '/livez,/readyz'"
    )


def _listed(value: object) -> tuple[object, ...] | None:
    if _is_none(value):
        return ()
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(","))
    if isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        return tuple(cast("Iterable[object]", value))
    return None


def _check_log_format(place: str, value: object) -> LogFormat:
    for known in get_args(LogFormat):
        if value == known:
            return cast(LogFormat, known)
    raise InvalidSettingError(place, value, "'text' or 'json'")


def _check_options(place: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidSettingError(place, value, "a mapping of uvicorn's option names to values")
    return MappingProxyType(dict(cast("Mapping[str, object]", value)))


def _whole_number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # isdecimal() alone would take digits of other scripts, which nobody means in a setting.
    if isinstance(value, str) and len(value) < 20 and value.strip().isascii() and value.strip().isdecimal():
        return int(value)
    return None


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _NONE)


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = MappingProxyType(
    {
        "host": _check_host,
        "port": _check_port,
        "include_server_header": _check_bool,
        "log_level": _check_level,
        "access_log_file": _check_file,
        "access_log_to_std": _check_bool,
        "access_log_exclude": _check_paths,
        "error_log_file": _check_file,
        "traceback": _check_bool,
        "soft_limit": _check_limit,
        "hard_limit": _check_limit,
        "global_headers": check_headers,
        "log_format": _check_log_format,
        "color": _check_color,
        "etag": _check_bool,
        "workers": _check_workers,
        "timeout_request_header": _check_seconds,
        "timeout_request_body": _check_seconds,
        "timeout_write": _check_seconds,
        "timeout_handler": _check_seconds,
        "max_header_bytes": _check_count,
        "max_header_fields": _check_count,
        "uvicorn_options": _check_options,
    }
)

# The name under which a layer states a setting → the setting. WebServer() calls the log level
# ``logging_level``, run_server() ``log_level``; where both are stated the latter wins.
_SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {name: name for name in _CHECKS if name != "uvicorn_options"} | {"logging_level": "log_level"}
)
