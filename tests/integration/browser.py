"""A client that shows a response as it was on the wire, and the applications that it asks."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeAlias

import brotli
import httpx
import pytest
import zstandard

from aeros import WebServer

TEXT = b"The quick brown fox jumps over the lazy dog. " * 100


class Answer:
    """A response and its bytes as they were on the wire."""

    def __init__(self, response: httpx.Response, raw: bytes) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.raw = raw
        self.coding = response.headers.get("content-encoding", "identity")

    @property
    def content(self) -> bytes:
        """The body, decoded."""
        return decode(self.coding, self.raw)


def decode(coding: str, raw: bytes) -> bytes:
    """Decodes with the reference library of each coding."""
    decoders: dict[str, Callable[[bytes], bytes]] = {
        "br": brotli.decompress,
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": lambda data: (
            zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj().decompress(data)
        ),
        "identity": lambda data: data,
    }
    return decoders[coding](raw)


class Browser:
    """A client that decodes nothing by itself."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client

    def get(self, path: str, accept: str | None = "br", method: str = "GET", **headers: str) -> Answer:
        """Sends a request with this Accept-Encoding; None: without one."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        built = self.client.build_request(method, path, headers=fields)
        del built.headers["accept-encoding"]
        if accept is not None:
            built.headers["accept-encoding"] = accept
        response = self.client.send(built, stream=True)
        try:
            return Answer(response, b"".join(response.iter_raw()))
        finally:
            response.close()


Browse: TypeAlias = Callable[[WebServer], Browser]
"""Starts an application and returns a client of it."""


@contextmanager
def browsing() -> Generator[Browse]:
    """Starts applications, and stops them when the context ends."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Browser:
            server = stack.enter_context(app.run_in_thread())
            client = stack.enter_context(httpx.Client(base_url=server.url, timeout=30))
            stack.callback(finish, client)
            return Browser(server.url, client)

        yield start


def finish(client: httpx.Client) -> None:
    """Makes sure that the last request is over, its file closed: the next one has to wait for that."""
    with suppress(httpx.TransportError):  # a test may have left the connection broken
        client.get("/is-it-over")


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns what the compressor has logged, each line once.

    Pytest listens to a logger that does not propagate by itself, and hears a line again where it is
    forwarded to.
    """
    told = {
        record.created: record.getMessage().partition(":")[0]
        for record in caplog.records
        if record.name == "aeros.compression"
    }
    return list(told.values())
