"""The options of ``uvicorn.run()``, by name and type, and which of them aeros looks after itself."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import signature
from os import PathLike
from typing import Any, Final, Literal, TypedDict, cast

import uvicorn

from aeros.errors import InvalidSettingError, UnknownOptionError
from aeros.serving.cpus import usable_cpus
from aeros.serving.option_values import check_value
from aeros.settings import ServerSettings, check_setting


class OwnOptions(TypedDict, total=False):
    """Settings of aeros, for the calls that do not spell them out."""

    log_level: int | str
    access_log_file: str | PathLike[str] | None
    access_log_to_std: bool
    access_log_exclude: Sequence[str]
    error_log_file: str | PathLike[str] | None
    traceback: bool
    soft_limit: int | None
    hard_limit: int | None
    log_format: Literal["text", "json"]
    color: bool | None
    workers: int | Literal["auto"] | None
    timeout_request_header: float | None
    timeout_request_body: float | None
    timeout_write: float | None
    timeout_handler: float | None
    max_header_bytes: int
    max_header_fields: int
    request_ids: bool
    server_timing: bool
    livez: str | None
    readyz: str | None
    metrics: str | None


class PassedOptions(TypedDict, total=False):
    """What is passed on to uvicorn; see uvicorn's settings for what each one does."""

    uds: str | None
    fd: int | None
    http: type[asyncio.Protocol] | str
    http2: bool
    ws: type[asyncio.Protocol] | str
    ws_max_size: int
    ws_max_queue: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    lifespan: str
    env_file: str | PathLike[str] | None
    log_config: Mapping[str, Any] | str | None
    access_log: bool
    use_colors: bool | None
    interface: str
    reload: bool
    reload_dirs: list[str] | str | None
    reload_delay: float
    reload_includes: list[str] | str | None
    reload_excludes: list[str] | str | None
    proxy_headers: bool
    server_header: bool
    date_header: bool
    forwarded_allow_ips: list[str] | str | None
    root_path: str
    limit_concurrency: int | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int
    backlog: int
    timeout_keep_alive: int
    timeout_notify: int
    timeout_graceful_shutdown: int | None
    timeout_worker_healthcheck: int
    callback_notify: Callable[..., Awaitable[None]] | None
    ssl_keyfile: str | PathLike[str] | None
    ssl_certfile: str | PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | PathLike[str] | None
    ssl_ciphers: str
    ssl_context_factory: Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None
    headers: list[tuple[str, str]] | None
    h11_max_incomplete_event_size: int | None
    reset_contextvars: bool


class UvicornOptions(PassedOptions, total=False):
    """The options of ``run_server()`` for uvicorn; ``run()`` has a ``loop`` of its own."""

    loop: str


class DevelopmentOptions(PassedOptions, OwnOptions, total=False):
    """The further options of ``run()``."""


class ThreadOptions(UvicornOptions, OwnOptions, total=False):
    """The further options of ``run_in_thread()``."""


# The application object is given, never made by uvicorn; aeros has these under its own names.
_NOT_PASSED: Final = frozenset({"app", "host", "port", "log_level", "factory", "app_dir"})


# What run_server() has as parameters of its own; suggested for a misspelt option, too.
_RUN_ARGUMENTS: Final = frozenset(
    {
        "host",
        "port",
        "log_level",
        "access_log_file",
        "access_log_to_std",
        "access_log_exclude",
        "error_log_file",
        "traceback",
        "soft_limit",
        "hard_limit",
        "log_format",
        "color",
        "workers",
        "timeout_request_header",
        "timeout_request_body",
        "timeout_write",
        "timeout_handler",
        "max_header_bytes",
        "max_header_fields",
        "request_ids",
        "server_timing",
        "livez",
        "readyz",
        "metrics",
    }
)

# Options that are whole numbers, with the lowest that makes sense.
_NUMBERS: Final = {
    "WEB_CONCURRENCY": 1,
    "backlog": 0,
    "fd": 0,
    "h11_max_incomplete_event_size": 1,
    "limit_concurrency": 1,
    "limit_max_requests": 1,
    "limit_max_requests_jitter": 0,
    "timeout_graceful_shutdown": 0,
    "timeout_keep_alive": 0,
    "timeout_notify": 0,
    "timeout_worker_healthcheck": 1,
    "ws_max_queue": 0,
    "ws_max_size": 1,
}

_CHOICES: Final = {"interface": ("auto", "asgi3", "asgi2", "wsgi"), "lifespan": ("auto", "on", "off")}

# uvicorn's name for what aeros has under its own.
_SAME: Final = {"server_header": "include_server_header", "use_colors": "color"}


def run_settings(
    base: ServerSettings, arguments: Mapping[str, object], options: Mapping[str, object], *, where: str
) -> ServerSettings:
    """Returns the settings of one run.

    Args:
        base: The application's settings.
        arguments: What the run was given of aeros's own settings; it beats ``base``.
        options: What it was given for uvicorn.
        where: The function that was called, e.g. ``"run_server()"``.

    Raises:
        UnknownOptionError: Neither uvicorn nor aeros has an option.
        ConfigurationError: A value does not fit.
    """
    check_options(options, _RUN_ARGUMENTS, where=where)
    own = {name: value for name, value in options.items() if name in _RUN_ARGUMENTS}
    values = {name: check_setting(name, value, place=name) for name, value in {**own, **arguments}.items()}
    for option, name in _SAME.items():
        if options.get(option) is not None:
            values.setdefault(name, check_setting(name, options[option], place=option))
    if _checked("access_log", options.get("access_log")) is False:
        values |= {"access_log_to_std": False, "access_log_file": None}
    passed = {
        name: _checked(name, value)
        for name, value in options.items()
        if name not in _SAME and name not in _RUN_ARGUMENTS
    }
    return base.replace({**values, "uvicorn_options": {**base.uvicorn_options, **passed}})


def count_workers(settings: ServerSettings) -> int:
    """Returns how many processes are to serve: as the setting says, else ``WEB_CONCURRENCY``, else 1.

    Raises:
        InvalidSettingError: ``WEB_CONCURRENCY`` is no number of workers.
    """
    workers = settings.workers or cast("int | None", settings.uvicorn_options.get("workers"))
    if workers == "auto":
        return usable_cpus()
    if workers is None and "WEB_CONCURRENCY" in os.environ:
        return cast(int, _checked("WEB_CONCURRENCY", os.environ["WEB_CONCURRENCY"]))
    return workers or 1


def needs_import(settings: ServerSettings) -> bool:
    """Tells whether other processes will serve, which have to import the application.

    Raises:
        InvalidSettingError: ``WEB_CONCURRENCY``, which is uvicorn's, is no number of workers.
    """
    return bool(settings.uvicorn_options.get("reload")) or count_workers(settings) > 1


def _checked(option: str, value: object) -> object:
    """Returns the value of an option of uvicorn; uvicorn itself would start with a wrong one."""
    if value is None:
        return None
    if option in _CHOICES and value not in _CHOICES[option]:
        raise InvalidSettingError(option, value, f"one of {', '.join(map(repr, _CHOICES[option]))}")
    if option in _NUMBERS:
        lowest = _NUMBERS[option]
        number = int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < lowest:
            raise InvalidSettingError(option, value, f"a whole number from {lowest} on")
        return number
    check_value(option, value)
    return value


def known_options() -> frozenset[str]:
    """Returns the options of the installed uvicorn that may be passed on."""
    return frozenset(signature(uvicorn.Config).parameters) - _NOT_PASSED


def check_options(options: Iterable[str], own: Iterable[str], *, where: str) -> None:
    """Raises ``UnknownOptionError`` for the first option that neither uvicorn nor aeros has.

    Args:
        options: The names that were given.
        own: The names that aeros takes itself; also suggested for a misspelt one.
        where: The function that was called, e.g. ``"run_server()"``.
    """
    known = known_options() | frozenset(own)
    for option in options:
        if option not in known:
            raise UnknownOptionError(option, known, where=where)
