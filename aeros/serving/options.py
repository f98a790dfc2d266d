"""The options of ``uvicorn.run()``, by name and type, and which of them aeros looks after itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import signature
from os import PathLike
from typing import Any, Final, TypedDict

import uvicorn

from aeros.errors import UnknownOptionError


class UvicornOptions(TypedDict, total=False):
    """What ``run_server()`` passes on to uvicorn; see uvicorn's settings for what each one does."""

    uds: str | None
    fd: int | None
    loop: str
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


# The application object is given, never made by uvicorn; aeros has these under its own names.
_NOT_PASSED: Final = frozenset({"app", "host", "port", "log_level", "factory", "app_dir"})


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
