"""uvicorn's server, listening on sockets that are bound with errors a person can act on."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn

from aeros.errors import AddressInUseError, BindError, PrivilegedPortError

# A name may have an address that this machine does not serve, as "localhost" where IPv6 is off.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_LISTENERS = 8

Announce = Callable[[list[socket.socket]], None]


class Server(uvicorn.Server):
    """A ``uvicorn.Server`` that binds before the application starts, and returns when it is stopped.

    ``SIGINT`` and ``SIGTERM`` end it gracefully, and ``run()`` returns instead of raising the
    signal once more.

    Args:
        config: uvicorn's configuration.

    Attributes:
        announce: Called once with the bound sockets when requests are accepted.
        bound: The sockets that it listens on, while it does.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.announce: Announce | None = None
        self.bound: list[socket.socket] = []

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is stopped.

        Args:
            sockets: Bound sockets to listen on; None: those of the configuration's address.

        Raises:
            BindError: The address can not be listened on; nothing has been started then.
        """
        config = self.config
        if sockets is None and config.fd is None and config.uds is None:
            sockets = bind_sockets(config.host, config.port)
        self.bound = sockets or []
        try:
            await super().serve(sockets=sockets)
        finally:
            for listener in self.bound:
                listener.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application and begins to accept requests."""
        try:
            await super().startup(sockets=sockets)
        except OSError as error:
            raise self._listen_error(error) from error
        if self.started:
            await self._accept_more(sockets or [])
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
        config, reason = self.config, error.strerror or str(error)
        if config.uds is not None:
            cure = "give a path in a folder that exists and that this user may write to"
            return BindError(config.uds, 0, reason, cure, setting="uds")
        if config.fd is not None:
            return BindError(
                f"fd {config.fd}", 0, reason, "give a descriptor of a bound socket", setting="fd"
            )
        # Somebody else began to listen between our binding and our listening.
        return _bind_error(config.host, config.port, error)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ends the server on SIGINT and SIGTERM while the context lasts, on the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
