"""A pytest plugin that puts ``CompressionMiddleware`` in the place of what flask-compress does.

flask-compress still reads its own configuration, so its names and defaults are its own; which coding
a response gets, and what changes in it, is decided by ours.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import Any, Final, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from aeros.compression import Base, Br, Coding, CompressionMiddleware, Encoder, Gzip, Negotiated, Zstd
from aeros.http.accept_encoding import negotiate
from aeros.types import Message, RawHeaders, Receive, Scope, Send


class FlaskApplication(Protocol):
    """What is used of ``flask.Flask``."""

    config: Mapping[str, Any]
    wsgi_app: WSGIApplication


class Deflate:
    """The ``deflate`` coding (RFC 9110 §8.4.1.2), as a user of ours would add it."""

    name = "deflate"

    def __init__(self, level: int) -> None:
        self.level = level

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` in zlib's format."""
        return zlib.compress(content, self.level)

    def encoder(self) -> Encoder:
        """Returns an encoder for one stream in zlib's format."""
        return DeflateEncoder(self.level)


class DeflateEncoder:
    """One stream on its way through ``deflate``."""

    def __init__(self, level: int) -> None:
        self._compressor = zlib.compressobj(level)

    def encode(self, data: bytes) -> bytes:
        """Takes ``data``; returns what is ready."""
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        """Returns what makes all that was taken so far decodable."""
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        """Returns the end of the stream."""
        return self._compressor.flush(zlib.Z_FINISH)


class WholeOnly:
    """A coding that leaves streams alone, because it has no ``encoder()``."""

    def __init__(self, coding: Coding) -> None:
        self.name = coding.name
        self.compress = coding.compress


def compressor_of(config: Mapping[str, Any]) -> Base:
    """Returns the compressor that does what a configuration of flask-compress asks for."""
    codings: dict[str, Coding] = {
        "br": Br(config["COMPRESS_BR_LEVEL"]).codings[0],
        "deflate": Deflate(config["COMPRESS_DEFLATE_LEVEL"]),
        "gzip": Gzip(config["COMPRESS_LEVEL"]).codings[0],
        "zstd": Zstd(config["COMPRESS_ZSTD_LEVEL"]).codings[0],
    }
    streamed = _names(config["COMPRESS_ALGORITHM_STREAMING"]) if config["COMPRESS_STREAMS"] else ()
    offered = (
        codings[name] if name in streamed else WholeOnly(codings[name])
        for name in _names(config["COMPRESS_ALGORITHM"])
    )
    return Negotiated(*offered, min_size=config["COMPRESS_MIN_SIZE"], mimetypes=config["COMPRESS_MIMETYPES"])


def _names(listed: str | Iterable[str]) -> list[str]:
    return [name.strip() for name in (listed.split(",") if isinstance(listed, str) else listed)]


class CompressedWSGI:
    """A WSGI application whose responses go through ``CompressionMiddleware``.

    A loop for each request is slow, but has nothing that a test could leave behind.
    """

    def __init__(self, application: WSGIApplication, config: Mapping[str, Any]) -> None:
        self.application = application
        self.config = config

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handles one request."""
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}  # the WSGI application reads its body from environ

        async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send_response(self.application, environ, send)

        # The tests change the configuration between requests.
        middleware = CompressionMiddleware(application, compressor_of(self.config))
        asyncio.run(middleware(http_scope(environ), receive, send))
        start, *bodies = messages
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        start_response(f"{start['status']} {HTTPStatus(start['status']).phrase}", headers)
        return [body["body"] for body in bodies]


def http_scope(environ: WSGIEnvironment) -> Scope:
    """Returns what a compressor reads of a scope: the method and the fields of the request."""
    headers: RawHeaders = [
        (name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    return {"type": "http", "method": environ["REQUEST_METHOD"], "headers": headers}


async def send_response(application: WSGIApplication, environ: WSGIEnvironment, send: Send) -> None:
    """Sends the response of a WSGI application, each of its chunks by itself."""
    head: Message = {"type": "http.response.start"}

    def start_response(
        status: str, headers: list[tuple[str, str]], _failure: object = None
    ) -> Callable[[bytes], object]:
        head["status"] = int(status.partition(" ")[0])
        head["headers"] = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        return refuse

    chunks = application(environ, start_response)
    try:
        await send(head)
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def refuse(_data: bytes) -> None:
    """Refuses a part of a body that comes in WSGI's old way, which Flask does not use."""
    raise NotImplementedError


def put_in_place(peer: Any) -> None:
    """Makes flask-compress use ours."""
    read_configuration = peer.Compress.init_app

    def init_app(self: object, app: FlaskApplication) -> None:
        read_configuration(self, app)
        if app.config["COMPRESS_REGISTER"]:
            app.wsgi_app = CompressedWSGI(app.wsgi_app, app.config)

    def after_request(_self: object, response: object) -> object:
        return response

    def choose_algorithm(algorithms: tuple[str, ...], accept_encoding: str) -> str | None:
        return negotiate(accept_encoding, algorithms)

    peer.Compress.init_app = init_app
    peer.Compress.after_request = after_request
    peer._choose_algorithm = choose_algorithm


PEER: Final = import_module("flask_compress.flask_compress")
put_in_place(PEER)
