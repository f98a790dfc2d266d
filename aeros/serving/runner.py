"""From settings to a running server: ``uvicorn.Config``, then a server, a thread or worker processes."""

from __future__ import annotations

import asyncio
import copy
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import uvicorn
from uvicorn.config import LOOP_FACTORIES, STARTUP_FAILURE
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.lifespan.on import LifespanOn
from uvicorn.supervisors import ChangeReload, Multiprocess

from aeros.errors import ConfigurationError, InvalidSettingError, ProviderError, StartupError
from aeros.serving.application import Servable, ServedApplication
from aeros.serving.lifespan import Lifespan
from aeros.serving.server import Announce, Server, bind_sockets, urls
from aeros.settings import ServerSettings

START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 10.0


class AnyServer(Protocol):
    """What a ``server`` provider must give: ``uvicorn.Server`` or a stand-in."""

    def run(self) -> None:
        """Serves until it is stopped."""
        ...


ServerFactory = Callable[[uvicorn.Config], AnyServer]


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


def build_config(app: ServedApplication, *, one_process: bool = False) -> Config:
    """Returns uvicorn's configuration for an application's settings. It configures no logging.

    Args:
        app: The application, with its settings.
        one_process: Whether ``WEB_CONCURRENCY``, which uvicorn reads, is out of place.

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
    if one_process:
        options.setdefault("workers", 1)
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

    It is uvicorn's own where something is lacking, and uvicorn's choice without httptools.
    """
    try:
        from aeros.serving.protocol import HTTPProtocol, missing_of
    except ModuleNotFoundError:
        return "auto", ()
    except ImportError as error:
        return "auto", (str(error),)
    lacking = missing_of(HTTPProtocol.__base__)
    return ("httptools", lacking) if lacking else (HTTPProtocol, ())


def serve(app: Servable, settings: ServerSettings, *, build_server: ServerFactory, path: str | None) -> None:
    """Serves until stopped, in this process or in workers.

    Args:
        app: The application.
        settings: How to serve it.
        build_server: Makes the server; workers always run uvicorn's.
        path: ``"module:variable"`` of the application, for workers and reloading.

    Raises:
        StartupError: The server could not start.
    """
    with starting():
        served = ServedApplication(app, settings, path)
        config = build_config(served)
        with served.serving(), _unix_socket_removed(config):
            if config.use_subprocess:
                _check_loading(copy.copy(config))
                _supervise(config, app)
                return
            server = build_server(config)
            if isinstance(server, uvicorn.Server):
                _check_loading(config)
            if isinstance(server, Server):
                server.announce = announcer(app, config)
            server.run()


def serve_on_loop(
    app: Servable,
    settings: ServerSettings,
    *,
    build_server: ServerFactory,
    loop: asyncio.AbstractEventLoop | None,
    debug: bool,
    until: Callable[[], Awaitable[object]] | None,
) -> None:
    """Serves in this process until stopped, or until ``until()`` returns or raises.

    Args:
        app: The application.
        settings: How to serve it.
        build_server: Makes the server.
        loop: The event loop to serve on; it stays open. None: a new one.
        debug: Whether the loop is in debug mode.
        until: Runs beside the server; its error is raised.

    Raises:
        StartupError: The server could not start.
    """
    with starting():
        served = ServedApplication(app, settings)
        config = build_config(served, one_process=True)
        _refuse_processes(config, "run_server() has them")
        with served.serving(), _unix_socket_removed(config):
            server = build_server(config)
            if not isinstance(server, uvicorn.Server):
                server.run()
                return
            _check_loading(config)
            if isinstance(server, Server):
                server.announce = announcer(app, config)
            _run_on(loop, config, _serve_until(server, until), debug=debug)


def _run_on(
    loop: asyncio.AbstractEventLoop | None,
    config: uvicorn.Config,
    serving: Coroutine[Any, Any, None],
    *,
    debug: bool,
) -> None:
    if loop is not None:
        loop.set_debug(debug)
        loop.run_until_complete(serving)
        return
    with asyncio.Runner(debug=debug, loop_factory=config.get_loop_factory()) as runner:
        runner.run(serving)


async def _serve_until(server: uvicorn.Server, until: Callable[[], Awaitable[object]] | None) -> None:
    serving = asyncio.ensure_future(server.serve())
    watching = asyncio.ensure_future(until()) if until is not None else None
    try:
        await asyncio.wait(
            [task for task in (serving, watching) if task is not None], return_when=asyncio.FIRST_COMPLETED
        )
        server.should_exit = True
        await serving
    finally:
        if watching is not None and not watching.done():
            watching.cancel()
            await asyncio.wait([watching])
    if watching is not None and not watching.cancelled():
        watching.result()


@contextmanager
def starting() -> Generator[None]:
    """Turns a configuration error into a ``StartupError``: one line and exit status 1."""
    try:
        yield
    except ConfigurationError as error:
        raise StartupError(str(error)) from error


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs in a thread.

    Attributes:
        url: Where it answers, e.g. ``"http://127.0.0.1:54321"``, without a slash at the end.
        host: The address that it listens on.
        port: The port that it listens on; never 0.
    """

    url: str
    host: str
    port: int


@contextmanager
def serve_in_thread(
    app: Servable, settings: ServerSettings, *, build_server: ServerFactory
) -> Generator[RunningServer]:
    """Serves in a thread while the context lasts; leaving it stops the server.

    Args:
        app: The application.
        settings: How to serve it; port 0 takes a free one.
        build_server: Makes the server.

    Raises:
        StartupError: The server could not start.
    """
    with starting():
        thread = _ServerThread(app, settings, build_server)
    try:
        with starting():
            running = thread.start_and_wait()
        yield running
    finally:
        thread.stop()


class _ServerThread:
    """A server, its thread, and what went wrong in it."""

    def __init__(self, app: Servable, settings: ServerSettings, build_server: ServerFactory) -> None:
        served = ServedApplication(app, settings)
        self._served = served
        self._config = build_config(served, one_process=True)
        _refuse_processes(self._config, "a thread has none")
        _check_loading(self._config)
        if self._config.timeout_graceful_shutdown is None:
            self._config.timeout_graceful_shutdown = int(STOP_TIMEOUT_SECONDS / 2)
        server = build_server(self._config)
        if not isinstance(server, Server):
            raise ProviderError(
                "server",
                f"gives {type(server).__name__}",
                "run_in_thread() needs an aeros.serving.server.Server",
            )
        self._server = server
        self._server.announce = self._announced
        self._answer = threading.Event()
        self._running: RunningServer | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="aeros-server", daemon=True)

    def start_and_wait(self) -> RunningServer:
        self._thread.start()
        if not self._answer.wait(START_TIMEOUT_SECONDS):
            raise StartupError(f"the server did not start within {START_TIMEOUT_SECONDS:.0f} seconds")
        if self._running is None:
            self._raise_error()
        return cast(RunningServer, self._running)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        try:
            # Here, not where the thread is started: uvicorn's lines are told apart by thread.
            with self._served.serving():
                self._server.run()
        except BaseException as error:  # noqa: BLE001 - SystemExit is how uvicorn says that it failed
            self._error = error
        finally:
            self._answer.set()

    def _announced(self, sockets: list[socket.socket]) -> None:
        if sockets:
            host, port = sockets[0].getsockname()[:2]
            self._running = RunningServer(urls(sockets, _scheme(self._config))[0], host, port)
        else:
            self._running = RunningServer(f"http+unix://{self._config.uds}", str(self._config.uds), 0)
        self._answer.set()

    def _raise_error(self) -> None:
        if isinstance(self._error, ConfigurationError):
            raise self._error
        lifespan = getattr(self._server, "lifespan", None)
        problem = lifespan.problem if isinstance(lifespan, Lifespan) else None
        why = f": {problem}" if problem else "; its log says why"
        raise StartupError(f"the application did not start{why}") from self._error


def announcer(app: Servable, config: uvicorn.Config) -> Announce:
    """Returns the function that tells a person where the server is, once it accepts requests."""

    def announce(sockets: list[socket.socket]) -> None:
        where = urls(sockets, _scheme(config)) or [
            f"unix socket {config.uds}" if config.uds else f"fd {config.fd}"
        ]
        logger = app.current_logger()
        logger.info("Serving on %s (Press CTRL+C to quit)", " and ".join(where))
        facts = {"workers": config.workers, **app.described()}
        logger.info("%s", "; ".join(f"{name}: {value}" for name, value in facts.items()))

    return announce


def _supervise(config: Config, app: Servable) -> None:
    """Runs worker processes until stopped; one that can not start ends them all."""
    sockets = [] if config.uds or config.fd is not None else bind_sockets(config.host, config.port)
    try:
        bound = sockets or [config.bind_socket()]
        announcer(app, config)(sockets)
        if config.should_reload:
            ChangeReload(config, target=uvicorn.Server(config).run, sockets=bound).run()
            return
        workers = Multiprocess(config, sockets=bound)
        workers.run()
    finally:
        for listener in sockets:
            listener.close()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise StartupError("the application did not start in a worker; its log says why")


def _check_loading(config: uvicorn.Config) -> None:
    """Lets uvicorn load what its options name, before anything is started.

    Raises:
        ConfigurationError: Something can not be loaded; the error names the options.
    """
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


def _refuse_processes(config: Config, instead: str) -> None:
    if config.reload:
        raise InvalidSettingError("reload", config.reload, f"no other processes here; {instead}")
    if config.use_subprocess:
        raise InvalidSettingError("workers", config.workers, f"no other processes here; {instead}")


@contextmanager
def _unix_socket_removed(config: uvicorn.Config) -> Generator[None]:
    """Checks the path of a Unix socket, and removes the socket in the end; never another file."""
    if config.uds is None:
        yield
        return
    path = Path(config.uds)
    if (path.exists() and not path.is_socket()) or not path.parent.is_dir():
        raise InvalidSettingError(
            "uds", config.uds, "the path of a socket, new or old, in a folder that exists"
        )
    try:
        yield
    finally:
        if path.is_socket():
            path.unlink()


def _scheme(config: uvicorn.Config) -> str:
    return "https" if config.is_ssl else "http"


def _refused(options: Mapping[str, object], error: Exception) -> ConfigurationError:
    names = ", ".join(sorted(name for name, value in options.items() if value is not None))
    return ConfigurationError(
        names or "uvicorn",
        f"uvicorn refused the options ({error})",
        "see uvicorn's settings for their values",
    )
