"""Whether a server's answer is right: a fast wrong one is worth nothing."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass

import brotli
from websockets.sync.client import connect

from benchmarks.load import Asked

DECODERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, "br": brotli.decompress, "gzip": gzip.decompress}
CHECK_SECONDS = 10.0


class WrongAnswerError(RuntimeError):
    """A server answered something else than it should."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answer must be.

    Attributes:
        value: The decoded body: bytes, or what its JSON stands for. None: whatever it is.
        coding: The ``Content-Encoding``.
    """

    value: object
    coding: str = ""


def check(asked: Asked, expected: Expected, port: int, key: str = "0") -> int:
    """Asks once, and returns the length of the body as it was sent.

    Raises:
        WrongAnswerError: Status, coding or body is not what it should be.
    """
    if asked.websocket:
        return check_echo(asked, port)
    fields = {"Accept-Encoding": asked.accept}
    if asked.body:
        fields["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CHECK_SECONDS)
    try:
        path = asked.path.replace("{key}", key)
        connection.request(asked.method, path, asked.body or None, fields)
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise WrongAnswerError(f"no answer: {error}") from error
    finally:
        connection.close()
    coding = response.headers.get("Content-Encoding", "")
    if response.status != 200 or coding != expected.coding:
        raise WrongAnswerError(f"status {response.status}, coding {coding!r}, {body[:60]!r}")
    if expected.value is not None and not is_same(DECODERS[coding](body), expected.value):
        raise WrongAnswerError(f"another body: {body[:60]!r}")
    return len(body)


def is_same(body: bytes, value: object) -> bool:
    """Tells whether a body is what was expected."""
    return body == value if isinstance(value, bytes) else bool(json.loads(body) == value)


def check_echo(asked: Asked, port: int) -> int:
    """Says something over a websocket, and returns its length.

    Raises:
        WrongAnswerError: It does not come back.
    """
    try:
        with connect(f"ws://127.0.0.1:{port}{asked.path}", open_timeout=CHECK_SECONDS) as connection:
            connection.send("anybody there?")
            echo = connection.recv(timeout=CHECK_SECONDS)
    except (OSError, TimeoutError) as error:
        raise WrongAnswerError(f"no answer: {error}") from error
    if echo != "anybody there?":
        raise WrongAnswerError(f"another echo: {echo!r}")
    return len(echo)
