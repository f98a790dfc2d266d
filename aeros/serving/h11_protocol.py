"""uvicorn's HTTP protocol on h11, for machines without httptools: as strict as the other, and as patient."""

from __future__ import annotations

import re
import sys
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol as UvicornProtocol
from uvicorn.protocols.http.h11_impl import RequestResponseCycle
from uvicorn.server import ServerState

from aeros.http.host import is_host
from aeros.serving.application import ServedApplication
from aeros.serving.deadlines import Awaited, Kind, Waiting
from aeros.serving.ending import cut_off, end_gently, unsent_bytes
from aeros.settings import ServerSettings

_END: Final = re.compile(rb"\n\r?\n")
# h11 takes both, as older standards did; others on the way may understand them in other ways.
_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
_FOLDED: Final = re.compile(rb"\n[ \t]")

_SAID: Final = {
    400: "Invalid HTTP request received.",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
}


class _Requests(h11.Connection):
    """What a client sends, taken apart by h11; heads that it would take but should not are refused.

    Args:
        settings: The limits of a head.
        incomplete_bytes: How much of one may have come without its end.
    """

    def __init__(self, settings: ServerSettings, incomplete_bytes: int) -> None:
        super().__init__(h11.SERVER, incomplete_bytes)
        self._most_bytes = settings.max_header_bytes
        self._most_fields = settings.max_header_fields

    def next_event(self) -> Any:
        """Returns what comes next, as h11 does.

        Raises:
            RemoteProtocolError: It is refused.
        """
        if self.their_state is h11.IDLE:
            status = self._fault(self.trailing_data[0])
            if status is not None:
                raise h11.RemoteProtocolError(_SAID[status], error_status_hint=status)
        return super().next_event()

    def _fault(self, received: bytes) -> int | None:
        """Returns the status that a head, or the beginning of one, is refused with."""
        end = _END.search(received)
        head = received if end is None else received[: end.end()]
        if _BARE_LINE_FEED.search(head) or _FOLDED.search(head):
            return 400
        if len(head) > self._most_bytes or head.count(b"\n") - 2 > self._most_fields:
            return 431
        if end is None:
            return None
        names: dict[bytes, list[bytes]] = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            names.setdefault(name.lower(), []).append(value.strip())
        if b"transfer-encoding" in names and b"content-length" in names:
            return 400
        # That there is one, h11 looks at by itself.
        return None if all(is_host(host) for host in names.get(b"host", ())) else 400


class H11Protocol(UvicornProtocol, Waiting):
    """One connection of a client.

    Args:
        config: uvicorn's configuration; its application is a ``ServedApplication``.
        server_state: What the connections of a server share.
        app_state: What the lifespan has left for requests.
        _loop: The event loop.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        settings = cast(ServedApplication, cast(Any, config).app).settings
        self.conn: h11.Connection = _Requests(
            settings, config.h11_max_incomplete_event_size or settings.max_header_bytes
        )
        self._received = 0
        self._counted: RequestResponseCycle | None = None
        self._is_refused = False

    def data_received(self, data: bytes) -> None:
        """Takes what the client sends."""
        self._received += len(data)
        if not self._is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no request, or more of one than may be."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(hint if hint in _SAID else 400, msg)

    def awaited(self) -> Awaited | None:
        """Returns what it waits for from its client."""
        waiting = unsent_bytes(self.transport)
        if waiting:
            return Awaited("reading", self.transport, waiting)
        if self._is_refused or self.transport.is_closing():
            return None
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self.conn.their_state is h11.IDLE:
            # uvicorn has no timer where a body has ended after its answer: then it is as on a new connection.
            is_awaited = bool(self.conn.trailing_data[0]) or (
                self.timeout_keep_alive_task is None and (cycle is None or cycle.response_complete)
            )
            return Awaited("head", self if cycle is None else cycle, 0) if is_awaited else None
        if self.conn.their_state is not h11.SEND_BODY or self.flow.read_paused:
            return None
        if cycle is not self._counted:
            self._counted, self._received = cycle, 0
        if self.conn.they_are_waiting_for_100_continue:
            return None  # it is the application that takes its time
        return Awaited("body", cycle, self._received)

    def expire(self, kind: Kind) -> None:
        """Ends it: its client took too long."""
        if kind == "reading":
            cut_off(self.transport)
        elif kind == "head" and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._refuse(408)

    def _refuse(self, status: int, said: str | None = None) -> None:
        self._is_refused = True
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        content = (said or _SAID[status]).encode("ascii")
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        reason = HTTPStatus(status).phrase.encode()
        try:
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # a response is out already
        end_gently(self.loop, self.transport)
