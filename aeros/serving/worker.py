"""A worker process: how it is started and told what to do, and what it does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Final, Literal, cast

from uvicorn.config import STARTUP_FAILURE

from aeros.errors import ConfigurationError, NestedServerError, UnpicklableOptionError
from aeros.serving.application import Servable, ServedApplication
from aeros.serving.config import build_config
from aeros.serving.ending import uvicorn_logger
from aeros.serving.instance import import_application, import_main, main_module
from aeros.serving.server import Server
from aeros.serving.watchdog import Watchdog
from aeros.settings import ServerSettings

Command = Literal["ping", "stop", "stop at once"]
Answer = Literal["ready", "pong"]

_importing: Final[ContextVar[bool]] = ContextVar("_importing", default=False)


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to serve.

    Attributes:
        path: ``"module:variable"`` or ``"module:function()"``.
        main: The main module's name and file, if workers import it.
        settings: The settings, pickled: what they name may be in the main module.
        snapshots: The folder in which workers tell each other their metrics; None: they do not.
    """

    path: str
    main: tuple[str, str | None] | None
    settings: bytes
    snapshots: str | None = None


def build_order(path: str, settings: ServerSettings, *, snapshots: str | None = None) -> Order:
    """Returns the order to serve an application.

    Args:
        path: Where it is.
        settings: How to serve it.
        snapshots: As in `Order`.

    Raises:
        UnpicklableOptionError: An option can not go to another process.
    """
    _check_picklable(settings.uvicorn_options)
    return Order(path, main_module(), pickle.dumps(settings), snapshots)


def refuse_nested() -> None:
    """Raises ``NestedServerError`` while a worker process imports the application."""
    if _importing.get():
        raise NestedServerError


class Worker:
    """A worker process, as its supervisor sees it.

    Args:
        order: What it is to serve.
        sockets: Bound sockets to listen on.

    Attributes:
        is_ready: Whether it accepts requests.
        is_stopping: Whether it was told to stop.
        unanswered_since: When it was asked for a sign of life that has not come; None: it has.
    """

    def __init__(self, order: Order, sockets: Sequence[socket.socket]) -> None:
        self.is_ready: bool = False
        self.is_stopping: bool = False
        self.unanswered_since: float | None = None
        ours, theirs = multiprocessing.Pipe()
        self.connection: Connection = ours
        self.process: BaseProcess = multiprocessing.get_context("spawn").Process(
            target=serve_worker, args=(order, list(sockets), theirs, _standard_input())
        )
        try:
            with _main_module_hidden(), _terminal_signals_blocked():
                self.process.start()
        except OSError:
            ours.close()
            theirs.close()
            raise
        # Once the worker has ended, nobody holds it any more, which is how that is seen here.
        theirs.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid or 0

    def read(self) -> None:
        """Takes what it has said."""
        with suppress(EOFError, OSError):
            while self.connection.poll():
                answer = cast(Answer, self.connection.recv())
                self.unanswered_since = None
                self.is_ready = self.is_ready or answer == "ready"

    def tell(self, command: Command) -> None:
        """Tells it what to do; one that has ended already is told nothing."""
        if command != "ping":
            self.is_stopping = True
        with suppress(OSError):
            self.connection.send(command)

    def end(self) -> None:
        """Ends it now, if it has not ended."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def serve_worker(
    order: Order, sockets: list[socket.socket], connection: Connection, standard_input: int | None
) -> None:
    """Serves in a worker process until it is told to stop, or its supervisor is gone."""
    # Terminals send these to the whole group; it is the supervisor that says what they mean.
    for name in ("SIGINT", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _ignore)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _from_terminals())
    if standard_input is not None:  # for a debugger
        sys.stdin = os.fdopen(standard_input)
    commands = _Commands(connection)
    commands.start()
    try:
        app = _load(order)
        settings = cast(ServerSettings, pickle.loads(order.settings))  # noqa: S301 - the supervisor's
        served = ServedApplication(app, settings)
        config = build_config(served)
        shared = nullcontext() if order.snapshots is None else app.sharing_metrics(order.snapshots)
        with served.serving(), shared:
            server = Server(config)
            server.signals = ("SIGTERM",)
            server.announce = lambda _: commands.answer("ready")
            server.watchdog = Watchdog(lambda line: app.current_logger().error("%s", line))
            with server.watchdog.watching():
                commands.obey_with(server)
                server.run(sockets)
    except ConfigurationError as error:
        sys.stderr.write(f"aeros: {error}\n")
        sys.exit(STARTUP_FAILURE)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Stands for SIG_IGN, which the processes that a view starts would inherit."""


def _load(order: Order) -> Servable:
    token = _importing.set(True)
    try:
        if order.main is not None:
            import_main(*order.main)
        return cast(Servable, import_application(order.path))
    finally:
        _importing.reset(token)


class _Commands(threading.Thread):
    """Listens to the supervisor, in a thread: it answers while the application is busy."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(name="aeros-commands", daemon=True)
        self._connection = connection
        self._server: Server | None = None
        self._is_stopped = False

    def run(self) -> None:
        """Obeys until the connection ends."""
        while True:
            try:
                command = cast(Command, self._connection.recv())
            except (EOFError, OSError):
                if not self._is_stopped:
                    uvicorn_logger().error("The supervisor is gone; its worker stops")
                    self._stop()
                return
            if command == "ping":
                self.answer("pong")
            else:
                self._stop(at_once=command == "stop at once")

    def answer(self, answer: Answer) -> None:
        """Tells the supervisor something."""
        with suppress(OSError):
            self._connection.send(answer)

    def obey_with(self, server: Server) -> None:
        """Has the server stop when that is the command, or if it was already."""
        self._server = server
        if self._is_stopped:
            server.stop()

    def _stop(self, *, at_once: bool = False) -> None:
        self._is_stopped = True
        if self._server is not None:
            self._server.stop(at_once=at_once)


def _check_picklable(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        try:
            pickle.dumps(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UnpicklableOptionError(name, str(error)) from error


@contextmanager
def _main_module_hidden() -> Generator[None]:
    """Keeps multiprocessing from running the main module in the new process.

    It would run it under a name of its own, and the application's import would run it once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _from_terminals() -> set[signal.Signals]:
    return {signal.SIGINT, signal.SIGHUP}


@contextmanager
def _terminal_signals_blocked() -> Generator[None]:
    """Keeps a new process from ending by a CTRL+C that comes while it imports what it runs.

    It inherits what is blocked, and lets the signals come when it knows what to do with them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Otherwise it would be started meanwhile, and unblocks signals after that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _from_terminals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _standard_input() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or a stand-in
        return None
