"""uvicorn's server: sockets bound with errors a person can act on, and an end that comes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, cast

import uvicorn

from aeros.errors import AddressInUseError, BindError, PrivilegedPortError
from aeros.serving.application import ServedApplication
from aeros.serving.deadlines import Deadlines, waiting_among
from aeros.serving.ending import Connections, accept_waiting, close_loop, connect, uvicorn_logger
from aeros.serving.watchdog import CLOSING_SECONDS, Watchdog

# A name may have an address that this machine does not serve, as "localhost" where IPv6 is off.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_LISTENERS = 8

Announce = Callable[[list[socket.socket]], None]

# A connection on which nothing happens gets this long for a request that is on its way already: its
# answer says that it is the last one, which closing the connection could not tell in time.
IDLE_SECONDS: Final = 1.0

_POLL_SECONDS: Final = 0.02
_CUT_SECONDS: Final = 0.5


class Server(uvicorn.Server):
    """A ``uvicorn.Server`` that binds before the application starts, and returns when it is stopped.

    The first signal (``SIGTERM``, ``SIGINT``, ``SIGHUP``) ends it gracefully, a second one ends what is
    still open at once, a third one is left to the system. ``run()`` returns instead of raising the
    signal once more.

    Args:
        config: uvicorn's configuration.

    Attributes:
        announce: Called once with the bound sockets when requests are accepted.
        bound: The sockets that it listens on, while it does.
        idle_seconds: How long idle connections are kept when it stops.
        signals: The names of the signals that it is ended by.
        watchdog: Ends the process if stopping takes too long; None: nothing does.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.announce: Announce | None = None
        self.bound: list[socket.socket] = []
        self.idle_seconds: float = IDLE_SECONDS
        self.signals: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        self.watchdog: Watchdog | None = None
        self._deadlines: Deadlines | None = None
        self._next_look = 0.0
        self._signals_received = 0

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves on a new event loop until it is stopped."""
        loop = (self.config.get_loop_factory() or asyncio.new_event_loop)()
        try:
            loop.run_until_complete(self.serve(sockets))
        finally:
            close_loop(loop)

    def stop(self, *, at_once: bool = False) -> None:
        """Ends it. May be called again, from any thread and from a signal's handler.

        Args:
            at_once: Whether to cut off what is still open.
        """
        self.should_exit = True
        if at_once:
            self.force_exit = True
        if self.watchdog is not None:
            graceful = 0 if self.force_exit else self.config.timeout_graceful_shutdown
            if graceful is not None:
                self.watchdog.expect_end(graceful + CLOSING_SECONDS)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is stopped.

        Args:
            sockets: Bound sockets to listen on; None: those of the configuration's address.

        Raises:
            BindError: The address can not be listened on; nothing has been started then.
        """
        config = self.config
        if sockets is not None:
            self.bound = sockets
            await super().serve(sockets=sockets)
            return
        with listening(config) as self.bound:
            await super().serve(sockets=self.bound)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application and begins to accept requests."""
        try:
            await super().startup(sockets=sockets)
        except OSError as error:
            raise self._listen_error(error) from error
        if self.started:
            await self._accept_more(sockets or [])
            served: object = self.config.app
            if isinstance(served, ServedApplication):
                self._deadlines = Deadlines(served.settings, uvicorn_logger().info)
        if self.announce is not None and self.started:
            self.announce(self.bound)

    async def _accept_more(self, listeners: list[socket.socket]) -> None:
        """Has several connections accepted in one turn of uvloop, which accepts one for each listener.

        A turn is as long as all answers in it: where many clients come at once to a busy server, the last of
        them would wait for the sum of all turns.
        """
        loop, config = asyncio.get_running_loop(), self.config
        if not type(loop).__module__.startswith("uvloop"):
            return  # asyncio accepts all that wait
        make = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
        connection = partial(
            make, config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        for listener in listeners:
            for _ in range(_LISTENERS - 1):
                copy = listener.dup()  # of the descriptor: the queue of connections is the same
                self.servers.append(
                    await loop.create_server(connection, sock=copy, ssl=config.ssl, backlog=config.backlog)
                )

    def _listen_error(self, error: OSError) -> BindError:
        config = self.config
        if config.fd is not None:
            return _descriptor_error(config.fd, error)
        if config.uds is not None:
            return _path_error(config.uds, error)
        # Somebody else began to listen between our binding and our listening.
        return _bind_error(config.host, config.port, error)

    async def on_tick(self, counter: int) -> bool:
        """Does what is done ten times in a second; returns whether the server is to stop."""
        deadlines, now = self._deadlines, asyncio.get_running_loop().time()
        if deadlines is not None and now >= self._next_look:
            self._next_look = now + deadlines.interval
            deadlines.look(waiting_among(self.server_state.connections), now)
        is_to_end = await super().on_tick(counter)
        if is_to_end and not self.should_exit:
            self.stop()  # it has served as many requests as it was to; that end has its bound, too
        return is_to_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, lets what is under way end within its time, and closes the application."""
        logger = uvicorn_logger()
        logger.info("Shutting down")
        # Whoever has connected before was accepted by the system, and has perhaps sent a request.
        accepted = accept_waiting(self.servers)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await connect(accepted, self._build_protocol, self.config.ssl)
        served: object = self.config.app
        if isinstance(served, ServedApplication):
            served.app.shutdown_event.set()
        connections = Connections(self.server_state.connections)
        connections.retire()
        if not await self._has_ended(connections):
            logger.warning(
                "Cut off %d requests and %d connections that had not ended %s",
                len(self.server_state.tasks),
                len(connections),
                "when a second signal came"
                if self.force_exit
                else f"within timeout_graceful_shutdown={self.config.timeout_graceful_shutdown} seconds",
            )
            await self._cut_off(connections)
        await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's shape
        """Ends the server at a signal."""
        self._signals_received += 1
        if self._signals_received > 2:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.stop(at_once=self._signals_received > 1)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ends the server at its signals while the context lasts, on the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in self.signals if hasattr(signal, name)]
        # Under nohup SIGHUP is ignored, and is to stay so.
        taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _has_ended(self, connections: Connections) -> bool:
        """Waits for what is under way; returns whether all of it has come to its end."""
        loop, config, tasks = asyncio.get_running_loop(), self.config, self.server_state.tasks
        began, told = loop.time(), False
        bound = config.timeout_graceful_shutdown
        while connections or tasks:
            passed = loop.time() - began
            if self.force_exit or (bound is not None and passed >= bound):
                return False
            connections.retire()
            if passed >= self.idle_seconds:
                connections.close_idle()
                if not told and tasks:
                    told = True
                    uvicorn_logger().info(
                        "Waiting for %d requests to end; a second signal ends them now", len(tasks)
                    )
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def _cut_off(self, connections: Connections) -> None:
        # A request whose client has left ends quietly; one that goes on after that is cancelled.
        connections.abort()
        for is_last in (False, True):
            tasks = list(self.server_state.tasks)
            if tasks:
                await asyncio.wait(tasks, timeout=_CUT_SECONDS)
            if not is_last:
                for task in self.server_state.tasks:
                    task.cancel()

    def _build_protocol(self) -> asyncio.Protocol:
        build = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return build(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


@contextmanager
def listening(config: uvicorn.Config) -> Generator[list[socket.socket]]:
    """Gives the sockets that a configuration names, bound, and closes them in the end.

    Raises:
        BindError: One of them can not be had.
    """
    with ExitStack() as stack:
        if config.uds is not None:
            bound = [stack.enter_context(_bound_to_path(config.uds))]
        elif config.fd is not None:
            bound = [_inherited(config.fd)]
        else:
            bound = bind_sockets(config.host, config.port)
        for listener in bound:
            stack.callback(listener.close)
        yield bound


@contextmanager
def _bound_to_path(path: str) -> Generator[socket.socket]:
    """Gives a Unix socket that is bound to a path, which is removed in the end if it is still its own."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        # What a server before this one left, or a reverse proxy was given rights on.
        mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o666  # noqa: PTH110, PTH116
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - a path in the abstract namespace is no Path
        listener.bind(path)
        os.chmod(path, mode)  # noqa: PTH101
        own = os.stat(path)  # noqa: PTH116
    except OSError as error:
        listener.close()
        raise _path_error(path, error) from error
    try:
        yield listener
    finally:
        with suppress(OSError):
            # Another server may have taken the path over.
            if os.path.samestat(own, os.stat(path)):  # noqa: PTH116
                os.unlink(path)  # noqa: PTH108


def _inherited(number: int) -> socket.socket:
    """Returns a socket for an inherited descriptor, which itself stays open."""
    try:
        return socket.socket(fileno=os.dup(number))  # its family is the system's to say
    except OSError as error:
        raise _descriptor_error(number, error) from error


def _path_error(path: str, error: OSError) -> BindError:
    cure = "give a path in a folder that exists and that this user may write to"
    return BindError(path, 0, error.strerror or str(error), cure, setting="uds")


def _descriptor_error(number: int, error: OSError) -> BindError:
    cure = "give a descriptor of a bound socket"
    return BindError(f"fd {number}", 0, error.strerror or str(error), cure, setting="fd")


def bind_sockets(host: str, port: int) -> list[socket.socket]:
    """Returns sockets bound to every address of ``host``, not listening yet.

    Args:
        host: A name or an IP address.
        port: 0 takes a free port, the same for all addresses.

    Raises:
        AddressInUseError: Another process listens there.
        PrivilegedPortError: The port needs rights that this user does not have.
        BindError: Anything else, e.g. an address that this machine does not have.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _bind_error(host, port, error) from error
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        try:
            listener = _bound(family, (address[0], port, *address[2:]))
        except OSError as error:
            if error.errno in _NOT_HERE:
                missing = error
                continue
            for bound in sockets:
                bound.close()
            raise _bind_error(host, port, error) from error
        sockets.append(listener)
        port = listener.getsockname()[1]
    if not sockets:
        raise _bind_error(host, port, missing or OSError("it has no address")) from missing
    return sockets


def urls(sockets: list[socket.socket], scheme: str) -> list[str]:
    """Returns the URLs that a person can open for these sockets."""
    found: list[str] = []
    for listener in sockets:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        host, port = cast("tuple[str, int]", listener.getsockname()[:2])
        # "Every interface" is no address that a browser could open.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        found.append(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    return found


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise "::" would take the IPv4 port as well.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_error(host: str, port: int, error: OSError) -> BindError:
    builders: dict[int, Callable[[], BindError]] = {
        errno.EADDRINUSE: partial(AddressInUseError, host, port),
        errno.EACCES: partial(PrivilegedPortError, host, port),
    }
    reason = error.strerror or str(error)
    cure = "give a name or an IP address of this machine, e.g. 127.0.0.1, or 0.0.0.0 for all"
    return builders.get(error.errno or 0, lambda: BindError(host, port, reason, cure))()
