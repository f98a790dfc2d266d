"""The request that replaces a stale response in the background: like the one that found it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, cast

from aeros.http.fields import without
from aeros.types import Message, RawHeaders

# A part, or "not modified", or an answer to a body would be no response to store.
_LEFT_OUT: Final = frozenset(
    {
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"expect",
    }
)


def refreshing_scope(scope: Mapping[str, object]) -> dict[str, object]:
    """Returns the ASGI scope of a request for the whole of what ``scope`` asks for."""
    headers = without(cast(RawHeaders, scope["headers"]), _LEFT_OUT)
    return {**scope, "method": "GET", "headers": headers, "extensions": {}}


class Silence:
    """The ``receive`` of a request without a body, whose client never leaves."""

    def __init__(self) -> None:
        self._has_asked = False

    async def __call__(self) -> Message:
        """Returns the empty body, once."""
        if self._has_asked:
            await asyncio.Event().wait()
        self._has_asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Message) -> None:
    """Is the ``send`` of a response that nobody reads."""
