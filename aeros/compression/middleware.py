"""Compression for any ASGI application, without the rest of aeros."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aeros.compression.compressors import Base, Negotiated
from aeros.compression.response import ResponseCoder
from aeros.compression.sending import CodedSend
from aeros.errors import InvalidSettingError
from aeros.exchange import Exchange, exchange_of
from aeros.types import ASGIApplication

# Frameworks and servers type scopes and messages each in their own way.
AnyASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class CompressionMiddleware:
    """An ASGI application whose responses are compressed: Quart, Starlette, or a bare function.

    >>> app = CompressionMiddleware(app, Br(level=5))

    A ``WebServer`` compresses by itself and needs none. What it does, this does too, except where it
    takes knowing the framework: reading a session is not noticed, so a response that shows a secret
    of the user's beside text of the client's choice (BREACH) has to say ``Content-Encoding:
    identity``, which is taken off again. It needs asyncio, as Quart does: on trio the first stream
    raises ``RuntimeError``.

    Args:
        app: The application.
        compressor: Chooses the coding; None: ``Negotiated()``, whatever is installed.

    Raises:
        InvalidSettingError: ``app`` is no application, or ``compressor`` no compressor.
    """

    def __init__(self, app: AnyASGIApplication, compressor: Base | None = None) -> None:
        if not callable(app):
            raise InvalidSettingError("CompressionMiddleware(app=)", app, "an ASGI application")
        if compressor is not None and not isinstance(compressor, Base):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from users
            raise InvalidSettingError(
                "CompressionMiddleware(compressor=)", compressor, "Br(), Gzip(), Zstd(), Negotiated() or None"
            )
        self.app: ASGIApplication = app
        self.compressor: Base = Negotiated() if compressor is None else compressor
        self._coder = ResponseCoder()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one ASGI connection; of other kinds than ``http`` nothing is touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sending = _Sending(send, scope, Exchange(), coder=self._coder, compressor=self.compressor)
        try:
            await self.app(scope, receive, sending)
        finally:
            sending.close()


class _Sending(CodedSend):
    """Knows what a ``WebServer`` inside or around knows of the request, e.g. that a session was read."""

    __slots__ = ()

    def on_start(self) -> None:
        """Takes over the exchange that a ``WebServer`` has attached, if there is one."""
        self.exchange = exchange_of(self.scope) or self.exchange
