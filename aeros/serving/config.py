"""From settings to ``uvicorn.Config``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final, cast

import uvicorn
from uvicorn.config import LOOP_FACTORIES
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.lifespan.on import LifespanOn

from aeros.errors import ConfigurationError, InvalidSettingError
from aeros.serving.application import ServedApplication
from aeros.serving.h11_protocol import H11Protocol
from aeros.serving.lifespan import Lifespan
from aeros.serving.option_values import check_together
from aeros.serving.options import count_workers

# With what is closed afterwards it fits into the 30 seconds that Kubernetes gives.
GRACEFUL_SECONDS: Final = 15
# Whoever develops does not wait for the streams of an open browser.
DEVELOPMENT_GRACEFUL_SECONDS: Final = 1


class Config(uvicorn.Config):
    """uvicorn's configuration for an application that is an object, not an import string.

    uvicorn reloads import strings only; an application of aeros takes its import path along.
    """

    @property
    def should_reload(self) -> bool:
        """Whether to start again when a source file changes."""
        return self.reload

    def load(self) -> None:
        """Loads what the options name, with our lifespan in place of uvicorn's."""
        super().load()
        if self.lifespan_class is LifespanOn:
            self.lifespan_class = Lifespan


def build_config(
    app: ServedApplication, *, one_process: bool = False, graceful_seconds: int | None = None
) -> Config:
    """Returns uvicorn's configuration for an application's settings. It configures no logging.

    Args:
        app: The application, with its settings.
        one_process: Whether numbers of workers that the environment states are out of place.
        graceful_seconds: The graceful shutdown's bound where the settings have none; None: the default.

    Raises:
        ConfigurationError: uvicorn refuses a value.
    """
    settings = app.settings
    options = dict(settings.uvicorn_options)
    # One line per request comes from aeros, which knows what the cache did; uvicorn is told only
    # after its constructor, which would otherwise take the handlers off its logger for everyone.
    options.pop("access_log", None)
    options.setdefault("log_config", None)
    if options.get("http", "auto") == "auto":
        options["http"], app.lacking = http_protocol()
    elif options["http"] == "h11":
        options["http"] = H11Protocol
    options["workers"] = 1 if one_process else count_workers(settings)
    if graceful_seconds is None:
        graceful_seconds = DEVELOPMENT_GRACEFUL_SECONDS if options.get("reload") else GRACEFUL_SECONDS
    options.setdefault("timeout_graceful_shutdown", graceful_seconds)
    if app.settings.uvicorn_options.get("date_header", True):
        # uvicorn would put its own Date beside the one of a stored response.
        options["date_header"] = False
    try:
        config = Config(
            cast(Any, app),  # uvicorn's alias for an ASGI application names its own message types
            host=settings.host,
            port=settings.port,
            server_header=settings.include_server_header,
            **cast("dict[str, Any]", options),  # names were checked; uvicorn checks the values
        )
    except (TypeError, ValueError, KeyError, OSError, ImportError) as error:
        raise _refused(settings.uvicorn_options, error) from error
    config.access_log = False
    return config


def http_protocol() -> tuple[type[asyncio.Protocol] | str, tuple[str, ...]]:
    """Returns the protocol for HTTP/1.1, and what of uvicorn's it lacks if it is not aeros's own.

    It is uvicorn's own where something is lacking, and the one on h11 without httptools.
    """
    try:
        from aeros.serving.protocol import HTTPProtocol, missing_of
    except ModuleNotFoundError:
        return H11Protocol, ()
    except ImportError as error:
        return "auto", (str(error),)
    lacking = missing_of(HTTPProtocol.__base__)
    return ("httptools", lacking) if lacking else (HTTPProtocol, ())


def check_loading(config: uvicorn.Config) -> None:
    """Lets uvicorn load what its options name, before anything is started.

    Raises:
        ConfigurationError: Something can not be loaded; the error names the options.
    """
    check_together(cast(ServedApplication, config.app).settings.uvicorn_options)
    if config.fd is not None:
        try:
            os.fstat(config.fd)
        except OSError as error:
            raise InvalidSettingError("fd", config.fd, "an open descriptor of a bound socket") from error
    if config.loop not in LOOP_FACTORIES:
        try:
            import_from_string(config.loop)
        except ImportFromStringError as error:
            expected = f"one of {', '.join(map(repr, LOOP_FACTORIES))}, or the import path of a loop factory"
            raise InvalidSettingError("loop", config.loop, expected) from error
    try:
        config.load()
    except Exception as error:
        options = cast(ServedApplication, config.app).settings.uvicorn_options
        raise _refused(options, error) from error


def _refused(options: Mapping[str, object], error: Exception) -> ConfigurationError:
    names = ", ".join(sorted(name for name, value in options.items() if value is not None))
    return ConfigurationError(
        names or "uvicorn",
        f"uvicorn refused the options ({str(error) or type(error).__name__})",
        "see uvicorn's settings for their values",
    )
