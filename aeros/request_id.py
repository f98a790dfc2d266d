"""Ids of requests: the client's if it is well formed, else a new one; and that of the request in progress."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Final

from aeros.types import RawHeaders, Scope

FIELD_NAME: Final = b"x-request-id"

_WELL_FORMED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SCOPE_KEY: Final = "aeros.request_id"
_ID_BYTES: Final = 16
_IDS_PER_DRAW: Final = 256

_current: Final[ContextVar[str | None]] = ContextVar("aeros.request_id", default=None)


def current_request_id() -> str | None:
    """Returns the id of the request that is being handled; None outside of one, or with ``request_ids`` off.

    Tasks and threads that a request begins have its id. It has 1 to 128 characters: letters and digits of
    ASCII, ``.``, ``_`` and ``-``.
    """
    return _current.get()


def enter_request(request_id: str) -> Token[str | None]:
    """Makes an id the current one; ``leave_request()`` takes what is returned."""
    return _current.set(request_id)


def leave_request(token: Token[str | None]) -> None:
    """Makes the id that was current before the current one again."""
    _current.reset(token)


def given_id(headers: RawHeaders) -> str | None:
    """Returns the id that a client gave; None: none, one that is not well formed, or more than one."""
    found: bytes | None = None
    for name, value in headers:
        if name == FIELD_NAME:
            if found is not None:
                return None  # somebody on the way added one: which is meant is not known
            found = value
    return None if found is None or _WELL_FORMED.fullmatch(found) is None else found.decode("ascii")


def request_id_of(scope: Mapping[str, object]) -> str | None:
    """Returns the id that an ASGI scope was given; None: none yet."""
    found = scope.get(_SCOPE_KEY)
    return found if isinstance(found, str) else None


class RequestIds:
    """Gives ids: 32 hexadecimal digits that nobody can foretell."""

    __slots__ = ("_drawn", "_process")

    def __init__(self) -> None:
        self._drawn: list[str] = []
        self._process = 0

    def new(self) -> str:
        """Returns a new id. May be called from any thread."""
        if self._process != os.getpid():  # a fork has what its parent has drawn
            self._process, self._drawn = os.getpid(), []
        while True:
            try:
                return self._drawn.pop()
            except IndexError:
                # Asking the system costs more than all the rest, so it is asked for many at once.
                digits, length = os.urandom(_ID_BYTES * _IDS_PER_DRAW).hex(), 2 * _ID_BYTES
                self._drawn = [digits[at : at + length] for at in range(0, len(digits), length)]

    def identify(self, scope: Scope) -> str:
        """Returns the id of a request: the one it has, the one that its client gave, or a new one."""
        known = request_id_of(scope)
        if known is None:
            known = scope[_SCOPE_KEY] = given_id(scope["headers"]) or self.new()
        return known
