"""Deadlines for clients: how long a server waits for what they have to send, or to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from aeros.settings import ServerSettings

# Whoever sends more slowly than this holds a connection rather than a conversation.
_BYTES_PER_SECOND: Final = 1024

Kind = Literal["head", "body", "reading"]

_SETTINGS: Final[dict[Kind, str]] = {
    "head": "timeout_request_header",
    "body": "timeout_request_body",
    "reading": "timeout_write",
}
_SAID: Final[dict[Kind, str]] = {
    "head": "had not sent the head of a request",
    "body": "had not sent the body of a request",
    "reading": "had read nothing of a response",
}


class Awaited(NamedTuple):
    """What a connection waits for.

    Attributes:
        kind: What: a request's head, its body, or that the client reads.
        token: What is the same object while it is the same wait.
        progress: How many bytes have come, or wait to be read.
    """

    kind: Kind
    token: object
    progress: int


class Waiting(ABC):
    """A connection that can tell what it waits for."""

    @abstractmethod
    def awaited(self) -> Awaited | None:
        """Returns what it waits for from its client; None: nothing that has a deadline."""

    @abstractmethod
    def expire(self, kind: Kind) -> None:
        """Ends it: its client took too long."""


class Deadlines:
    """Looks now and then at all connections, and ends those whose clients take too long.

    Nothing is done when a request comes or goes, so deadlines cost requests nothing. A client gets up to one
    interval more than the setting says.

    Args:
        settings: The bounds.
        log: Gets one line for each look at which connections were ended.
    """

    def __init__(self, settings: ServerSettings, log: Callable[[str], None]) -> None:
        self._seconds: dict[Kind, float | None] = {
            "head": settings.timeout_request_header,
            "body": settings.timeout_request_body,
            "reading": settings.timeout_write,
        }
        self._log = log
        self._since: dict[Waiting, tuple[Awaited, float]] = {}

    @property
    def interval(self) -> float:
        """How often it should look, in seconds."""
        shortest = min((seconds for seconds in self._seconds.values() if seconds is not None), default=4.0)
        return min(shortest / 4, 1.0)

    def look(self, connections: Iterable[Waiting], now: float) -> None:
        """Ends the connections whose clients have taken too long.

        Args:
            connections: Those that are open.
            now: The loop's time.
        """
        before, self._since = self._since, {}
        ended: dict[Kind, int] = {}
        for connection in connections:
            awaited = connection.awaited()
            seconds = None if awaited is None else self._seconds[awaited.kind]
            if awaited is None or seconds is None:
                continue
            last, since = before.get(connection, (awaited, now))
            if not _is_same_wait(last, awaited):
                since = now
            if awaited.kind == "body":
                seconds += awaited.progress / _BYTES_PER_SECOND
            if now - since >= seconds:
                ended[awaited.kind] = ended.get(awaited.kind, 0) + 1
                connection.expire(awaited.kind)
            else:
                self._since[connection] = awaited, since
        for kind, number in ended.items():
            bound = f"{_SETTINGS[kind]}={self._seconds[kind]:g}"
            self._log(f"Cut off {number} clients that {_SAID[kind]} within {bound} seconds")


def waiting_among(connections: Iterable[object]) -> list[Waiting]:
    """Returns those of a server's connections that can tell what they wait for."""
    return [connection for connection in connections if isinstance(connection, Waiting)]


def _is_same_wait(last: Awaited, now: Awaited) -> bool:
    if last.kind != now.kind or last.token is not now.token:
        return False
    return now.kind != "reading" or last.progress == now.progress
