"""The options of ``uvicorn.run()``, by name and type, and which of them aeros looks after itself."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import signature
from os import PathLike
from typing import Any, Final, TypedDict

import uvicorn

from aeros.errors import UnknownOptionError
from aeros.settings import ServerSettings, check_setting


class DevelopmentOptions(TypedDict, total=False):
    """What ``run()`` passes on to uvicorn; see uvicorn's settings for what each one does."""

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
    workers: int | None
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


class UvicornOptions(DevelopmentOptions, total=False):
    """What ``run_server()`` passes on to uvicorn; ``run()`` has a ``loop`` of its own."""

    loop: str


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
        "traceback",
        "soft_limit",
        "hard_limit",
        "log_format",
        "color",
    }
)

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
    values = {name: check_setting(name, value, place=name) for name, value in arguments.items()}
    for option, name in _SAME.items():
        if options.get(option) is not None:
            values.setdefault(name, check_setting(name, options[option], place=option))
    if options.get("access_log") is False:
        values |= {"access_log_to_std": False, "access_log_file": None}
    passed = {name: value for name, value in options.items() if name not in _SAME}
    return base.replace({**values, "uvicorn_options": {**base.uvicorn_options, **passed}})


def needs_import(settings: ServerSettings) -> bool:
    """Tells whether other processes will serve, which have to import the application."""
    workers = settings.uvicorn_options.get("workers") or os.environ.get("WEB_CONCURRENCY") or 1
    return bool(settings.uvicorn_options.get("reload")) or str(workers) != "1"


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
