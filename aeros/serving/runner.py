"""From settings to a running server: ``uvicorn.Config``, then a server, a thread or worker processes."""

from __future__ import annotations

import asyncio
import copy
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import uvicorn

from aeros.errors import ConfigurationError, InvalidSettingError, ProviderError, StartupError
from aeros.serving.application import Servable, ServedApplication
from aeros.serving.config import DEVELOPMENT_GRACEFUL_SECONDS, Config, build_config, check_loading
from aeros.serving.lifespan import Lifespan
from aeros.serving.reloading import Reloader
from aeros.serving.server import Announce, Server, listening, urls
from aeros.serving.snapshots import Snapshots
from aeros.serving.supervisor import Supervisor
from aeros.serving.watchdog import Watchdog
from aeros.serving.worker import Order, Worker, build_order, refuse_nested
from aeros.settings import ServerSettings

START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 10.0


class AnyServer(Protocol):
    """What a ``server`` provider must give: ``uvicorn.Server`` or a stand-in."""

    def run(self) -> None:
        """Serves until it is stopped."""
        ...


ServerFactory = Callable[[uvicorn.Config], AnyServer]


def serve(app: Servable, settings: ServerSettings, *, build_server: ServerFactory, path: str | None) -> None:
    """Serves until stopped, in this process or in workers.

    Args:
        app: The application.
        settings: How to serve it.
        build_server: Makes the server; workers always run ``Server``.
        path: ``"module:variable"`` of the application, for workers and reloading.

    Raises:
        StartupError: The server could not start.
        SystemExit: Something did not end when it was stopped.
    """
    with starting():
        refuse_nested()
        served = ServedApplication(app, settings)
        config = build_config(served)
        _check_path(config)
        with served.serving():
            if path is not None and (config.should_reload or config.workers > 1):
                check_loading(copy.copy(config))
                _serve_in_workers(config, app, path)
                return
            server = build_server(config)
            if isinstance(server, uvicorn.Server):
                check_loading(config)
            if not isinstance(server, Server):
                server.run()
                return
            server.announce = announcer(app, config)
            server.watchdog = Watchdog(lambda line: app.current_logger().error("%s", line))
            with server.watchdog.watching():
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
        refuse_nested()
        _refuse_processes(settings, "run_server() has them")
        served = ServedApplication(app, settings)
        config = build_config(served, one_process=True, graceful_seconds=DEVELOPMENT_GRACEFUL_SECONDS)
        _check_path(config)
        with served.serving():
            server = build_server(config)
            if not isinstance(server, uvicorn.Server):
                server.run()
                return
            check_loading(config)
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


class ThreadedServing(AbstractContextManager[RunningServer], AbstractAsyncContextManager[RunningServer]):
    """What ``run_in_thread()`` returns: for ``with``, and for ``async with`` where the loop must not wait.

    Args:
        serve: Makes the context that serves while it lasts.
    """

    def __init__(self, serve: Callable[[], AbstractContextManager[RunningServer]]) -> None:
        self._serve = serve
        self._stack = ExitStack()

    def __enter__(self) -> RunningServer:
        return self._stack.enter_context(self._serve())

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def __aenter__(self) -> RunningServer:
        beginning = asyncio.get_running_loop().run_in_executor(None, self.__enter__)
        try:
            # A future, not a task: a StartupError is a SystemExit, which would end the loop in a task.
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            with suppress(StartupError):
                await beginning
                await asyncio.to_thread(self._stack.close)
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)


class _ServerThread:
    """A server, its thread, and what went wrong in it."""

    def __init__(self, app: Servable, settings: ServerSettings, build_server: ServerFactory) -> None:
        _refuse_processes(settings, "a thread has none")
        served = ServedApplication(app, settings)
        self._served = served
        bound = int(STOP_TIMEOUT_SECONDS / 2)
        self._config = build_config(served, one_process=True, graceful_seconds=bound)
        _check_path(self._config)
        check_loading(self._config)
        if self._config.timeout_graceful_shutdown is None:
            self._config.timeout_graceful_shutdown = bound
        server = build_server(self._config)
        if not isinstance(server, Server):
            raise ProviderError(
                "server",
                f"gives {type(server).__name__}",
                "run_in_thread() needs an aeros.serving.server.Server",
            )
        self._server = server
        # Whoever leaves the block asks nothing more, and tests do so many times.
        self._server.idle_seconds = 0.0
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
        self._server.stop()
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
        found = urls(sockets, _scheme(self._config))
        if found:
            host, port = sockets[0].getsockname()[:2]
            self._running = RunningServer(found[0], host, port)
        else:
            path = str(sockets[0].getsockname())
            self._running = RunningServer(f"{_scheme(self._config)}+unix://{path}", path, 0)
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


def _serve_in_workers(config: Config, app: Servable, path: str) -> None:
    """Runs worker processes until stopped."""
    settings = cast(ServedApplication, config.app).settings
    # While files are watched, one worker follows another, and none has to know of it.
    is_shared = settings.metrics is not None and not config.should_reload
    with ExitStack() as stack:
        snapshots = stack.enter_context(Snapshots.temporary()) if is_shared else None
        order = build_order(path, settings, snapshots=None if snapshots is None else snapshots.folder)
        _run_workers(config, app, order, snapshots)


def _run_workers(config: Config, app: Servable, order: Order, snapshots: Snapshots | None) -> None:
    with listening(config) as bound:
        announce = partial(announcer(app, config), bound)
        start = partial(Worker, order, bound)
        if config.should_reload:
            announce()
            Reloader(config, start, bound).run()
            return
        app.caution(config.workers)
        Supervisor(
            start,
            config.workers,
            sockets=bound,
            logger=app.current_logger,
            graceful_seconds=config.timeout_graceful_shutdown,
            hang_seconds=config.timeout_worker_healthcheck,
            announce=announce,
            bury=None if snapshots is None else snapshots.retire,
        ).run()


def _refuse_processes(settings: ServerSettings, instead: str) -> None:
    if settings.uvicorn_options.get("reload"):
        raise InvalidSettingError("reload", True, f"no other processes here; {instead}")
    if settings.workers not in (None, 1):
        raise InvalidSettingError("workers", settings.workers, f"no other processes here; {instead}")


def _check_path(config: uvicorn.Config) -> None:
    """Raises an error where the path of a Unix socket is that of another file."""
    path = None if config.uds is None else Path(config.uds)
    if path is not None and ((path.exists() and not path.is_socket()) or not path.parent.is_dir()):
        raise InvalidSettingError(
            "uds", config.uds, "the path of a socket, new or old, in a folder that exists"
        )


def _scheme(config: uvicorn.Config) -> str:
    return "https" if config.is_ssl else "http"
