"""Compression as clients meet it: the bytes on the wire, and the fields that describe them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.client
import logging
import os
import threading
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, cast

import brotli
import httpx
import pytest
from dependency_injector import providers
from http_sf import parse
from quart import Quart, Response, abort, render_template_string, request, session

from aeros import Br, Gzip, Negotiated, WebServer, Zstd
from aeros.compression import Base, Coding, CompressionMiddleware, uncompressed
from aeros.testing import override
from aeros.types import ASGIApplication, Message, RawHeaders, Receive, Scope, Send
from tests.integration.browser import TEXT, Answer, Browse, Browser, decode, failures
from tests.integration.conftest import eventually


def text_app(compression: Base | bool | None = None) -> WebServer:
    """Returns an application with a text of some kilobytes on ``/`` and, cached, on ``/cached``."""
    app = WebServer(__name__, compression=False if compression is False else as_base(compression))

    @app.route("/")
    async def index() -> Response:
        return Response(TEXT, content_type="text/plain; charset=utf-8")

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> Response:
        return Response(TEXT, content_type="text/plain; charset=utf-8")

    return app


def as_base(value: Base | bool | None) -> Base | None:
    """Narrows the type."""
    return value if isinstance(value, Base) else None


class Told:
    """What an ASGI application sent for one request."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.status: int = messages[0]["status"]
        self.headers: dict[str, str] = {
            name.decode(): value.decode("latin-1") for name, value in messages[0]["headers"]
        }
        self.raw = b"".join(message.get("body", b"") for message in messages[1:])
        self.coding = self.headers.get("content-encoding", "identity")

    @property
    def content(self) -> bytes:
        """The body, decoded."""
        return decode(self.coding, self.raw)


async def ask(app: object, path: str = "/", method: str = "GET", **fields: str | bytes) -> Told:
    """Sends one request to an ASGI application, without a server."""
    raw = {
        name.replace("_", "-").encode(): value.encode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *raw.items()],
    }
    messages: list[Message] = []
    requests: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Message) -> None:
        messages.append(message)

    await cast(ASGIApplication, app)(scope, receive, send)
    return Told(messages)


def bare(body: bytes, status: int = 200, **fields: str) -> ASGIApplication:
    """Returns an ASGI function that answers with this text and these fields."""
    stated = {"content_type": "text/plain", "content_length": str(len(body)), **fields}
    headers: RawHeaders = [(name.replace("_", "-").encode(), text.encode()) for name, text in stated.items()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


# Negotiation

# What the server likes best first: zstd, br, gzip. A member that does not fit the grammar counts
# as not sent, and of a coding that is named twice the lowest weight counts.
ACCEPTED: list[tuple[bytes | None, str]] = [
    # What is absent or empty, and what clients send.
    (None, "identity"),
    (b"", "identity"),
    (b"identity", "identity"),
    (b"br", "br"),
    (b"gzip", "gzip"),
    (b"zstd", "zstd"),
    (b"gzip, deflate", "gzip"),
    (b"gzip,deflate,br", "br"),
    (b"gzip, deflate, br", "br"),
    (b"gzip, deflate, br, zstd", "zstd"),
    (b"deflate, compress", "identity"),
    (b"br;q=1.0, gzip;q=0.8, *;q=0.1", "br"),
    (b"gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"),
    # Weights.
    (b"br;q=0.5, gzip", "gzip"),
    (b"br;q=0.5, gzip;q=0.4", "br"),
    (b"br;q=0.5, gzip;q=0.5", "br"),
    (b"gzip;q=0.5, br;q=0.5, zstd;q=0.499", "br"),
    (b"br;q=0.999, gzip;q=1.000", "gzip"),
    (b"gzip;q=0.001", "gzip"),
    (b"gzip;q=1.", "gzip"),
    (b"gzip;Q=0.5, br;Q=0.4", "gzip"),
    (b"gzip;Q=0", "identity"),
    # Refusals.
    (b"gzip;q=0", "identity"),
    (b"gzip;q=0.", "identity"),
    (b"gzip;q=0, br;q=0.1", "br"),
    (b"br;q=0.0, gzip;q=0.000, zstd;q=0", "identity"),
    (b"gzip;q=0, deflate", "identity"),
    # The star.
    (b"*", "zstd"),
    (b"*;q=0", "identity"),
    (b"*, zstd;q=0", "br"),
    (b"*, zstd;q=0, br;q=0", "gzip"),
    (b"*, zstd;q=0, br;q=0, gzip;q=0", "identity"),
    (b"*;q=0, gzip;q=0.1", "gzip"),
    (b"*;q=0.5, gzip;q=0.6", "gzip"),
    (b"*;q=0.5, gzip;q=0.5", "zstd"),
    (b"*;q=0.5, *;q=0", "identity"),
    (b"**", "identity"),
    # Identity: it competes where it is listed, and is the last resort where it is not.
    (b"gzip;q=0.5, identity", "identity"),
    (b"gzip, identity", "gzip"),
    (b"identity;q=0.5, gzip;q=0.5", "gzip"),
    (b"identity;q=0.5, *;q=0.8", "zstd"),
    (b"identity;q=0.8, *;q=0.5", "identity"),
    (b"identity;q=0", "identity"),
    (b"identity;q=0, gzip", "gzip"),
    (b"identity;q=0, gzip;q=0.001", "gzip"),
    (b"identity;q=0, *;q=0", "identity"),
    (b"IDENTITY;q=0.8, gzip;q=0.5", "identity"),
    # Names: case, aliases, duplicates, others.
    (b"GZIP", "gzip"),
    (b"Br", "br"),
    (b"x-gzip", "gzip"),
    (b"X-GZip;q=0.5", "gzip"),
    (b"x-gzip;q=0, gzip", "identity"),
    (b"x-gzip;q=0, *;q=0.5", "zstd"),
    (b"x-br", "identity"),
    (b"gzipped", "identity"),
    (b"gzip;q=0, gzip", "identity"),
    (b"gzip, gzip;q=0", "identity"),
    (b"br;q=0.2, br, gzip;q=0.5", "gzip"),
    # Empty members, blanks and tabs.
    (b",", "identity"),
    (b",,br,", "br"),
    (b", ,\t, gzip ,,", "gzip"),
    (b"br ; q=1", "br"),
    (b"gzip\t;\tq=0.5", "gzip"),
    (b"gzip ;\tq=0", "identity"),
    (b"\tgzip\t", "gzip"),
    (b"  ", "identity"),
    # Weights that are none.
    (b"gzip;q=nonsense", "identity"),
    (b"gzip;q=1.001", "identity"),
    (b"gzip;q=1.1", "identity"),
    (b"gzip;q=0.1234", "identity"),
    (b"gzip;q=1.0000", "identity"),
    (b"gzip;q=.5", "identity"),
    (b"gzip;q=01", "identity"),
    (b"gzip;q=-1", "identity"),
    (b"gzip;q=1e0", "identity"),
    (b"gzip;q=nan", "identity"),
    (b"gzip;q=", "identity"),
    (b"gzip;q", "identity"),
    (b"gzip;q = 1", "identity"),
    (b'gzip;q="1"', "identity"),
    (b"gzip;q=0,5", "identity"),
    (b"gzip;q=2, br;q=0.1", "br"),
    (b"gzip;q=0.5, gzip;q=bad", "gzip"),
    # Parameters that are no weight, and quoted strings.
    (b"gzip;", "identity"),
    (b"gzip;level=9", "identity"),
    (b"gzip;level=9;q=1", "identity"),
    (b"gzip;q=1;level=9", "identity"),
    (b"gzip;q=1;q=0", "identity"),
    (b'"gzip"', "identity"),
    (b'"br, zstd", gzip', "gzip"),
    (b'x="br, gzip', "gzip"),
    (b'x="a\\", br", gzip', "gzip"),
    # Other bytes, other separators, and a very long value.
    (b"gzip br", "identity"),
    (b"gzip/1", "identity"),
    (b"gzip; br", "identity"),
    (b"gz\xefp, br", "br"),
    (b"gzip;q=\xb9", "identity"),
    (b"\xef\xbd\x87zip", "identity"),
    (b"br\xa0", "identity"),
    (b"x-unknown;q=0.1, " * 1000 + b"gzip", "gzip"),
    (b"," * 20_000 + b"br", "br"),
    (b"z" * 20_000 + b", gzip", "gzip"),
]


def wire(value: bytes | None) -> str:
    """Returns a short name of a row."""
    return repr(value)[:40]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an application that has the text, also cached; all rows ask the same."""
    with text_app().run_in_thread() as server:
        yield server.port


def fetch(port: int, path: str, accepted: Iterable[bytes]) -> Answer:
    """Asks with lines of Accept-Encoding as they are, which httpx does not let pass."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for value in accepted:
            connection.putheader("Accept-Encoding", value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(httpx.Response(response.status, headers=response.getheaders()), response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(("accept", "coding"), ACCEPTED, ids=wire)
def test_accept_encoding_decides(port: int, accept: bytes | None, coding: str) -> None:
    """The client gets what its q-values ask for, decodable, and never what it refuses."""
    for path in ("/", "/cached", "/cached"):
        answer = fetch(port, path, [] if accept is None else [accept])
        assert (answer.status, answer.coding) == (200, coding)
        assert answer.content == TEXT
        assert int(answer.headers["content-length"]) == len(answer.raw)
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert (len(answer.raw) < len(TEXT)) is (coding != "identity")


@pytest.mark.parametrize(("accept", "coding"), ACCEPTED, ids=wire)
async def test_accept_encoding_decides_in_the_middleware(accept: bytes | None, coding: str) -> None:
    """Around a bare ASGI function the outcome is the same."""
    app = CompressionMiddleware(bare(TEXT))
    told = await (ask(app) if accept is None else ask(app, accept_encoding=accept))
    assert (told.status, told.coding, told.content) == (200, coding, TEXT)
    assert int(told.headers["content-length"]) == len(told.raw)
    assert told.headers["vary"] == "Accept-Encoding"


def test_several_accept_encoding_lines_are_one(port: int) -> None:
    """A refusal on another line counts, wherever it stands."""
    assert fetch(port, "/", [b"br", b"zstd;q=0, gzip;q=0.5"]).coding == "br"
    assert fetch(port, "/", [b"zstd;q=0", b"*"]).coding == "br"
    assert fetch(port, "/", [b"gzip", b"", b"gzip;q=0"]).coding == "identity"


# Vary and conditional requests


def test_vary_is_on_identity_304_head_and_404(browse: Browse) -> None:
    """Every response that could have been coded says that it depends on Accept-Encoding."""
    app = text_app()

    @app.errorhandler(404)
    async def missing(error: Exception) -> tuple[str, int]:
        return "nothing here " * 100, 404

    browser = browse(app)
    tag = browser.get("/cached").headers["etag"]
    answers = {
        "identity": browser.get("/", "identity"),
        "none": browser.get("/", None),
        "not modified": browser.get("/cached", if_none_match=tag),
        "head": browser.get("/", method="HEAD"),
        "head identity": browser.get("/", "identity", method="HEAD"),
        "missing": browser.get("/nothing"),
    }
    assert {name: answer.headers.get("vary") for name, answer in answers.items()} == dict.fromkeys(
        answers, "Accept-Encoding"
    )
    assert answers["not modified"].status == 304
    assert answers["missing"].status == 404
    assert (answers["missing"].coding, answers["missing"].content) == ("br", b"nothing here " * 100)


async def test_vary_is_on_304_head_and_errors_of_any_application() -> None:
    """In the middleware as well: whatever could have been coded depends on Accept-Encoding."""

    async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"small", "more_body": True})
        await send({"type": "http.response.body", "body": b"small"})

    answers = {
        "identity": await ask(CompressionMiddleware(bare(TEXT))),
        "small in pieces": await ask(CompressionMiddleware(in_pieces), accept_encoding="br"),
        "small": await ask(CompressionMiddleware(bare(b"small")), accept_encoding="br"),
        "head": await ask(CompressionMiddleware(bare(TEXT)), method="HEAD", accept_encoding="br"),
        "head identity": await ask(CompressionMiddleware(bare(TEXT)), method="HEAD"),
        "not modified": await ask(CompressionMiddleware(bare(b"", 304)), accept_encoding="br"),
        "missing": await ask(CompressionMiddleware(bare(TEXT, 404)), accept_encoding="br"),
        "failed": await ask(CompressionMiddleware(bare(b"failed", 500)), accept_encoding="br"),
    }
    assert {name: told.headers.get("vary") for name, told in answers.items()} == dict.fromkeys(
        answers, "Accept-Encoding"
    )
    picture = await ask(CompressionMiddleware(bare(TEXT, content_type="image/png")), accept_encoding="br")
    assert "vary" not in picture.headers


def test_vary_is_on_the_500_of_a_view_that_raises(browse: Browse) -> None:
    """The page that stands for an unhandled error is text like any other."""
    app = WebServer(__name__, compression=Br(min_size=1))

    @app.route("/")
    async def index() -> str:
        raise RuntimeError("on purpose")

    answer = browse(app).get("/")
    assert (answer.status, answer.coding, answer.headers["vary"]) == (500, "br", "Accept-Encoding")
    assert b"Internal Server Error" in answer.content


def test_vary_of_the_view_is_kept(browse: Browse) -> None:
    """Accept-Encoding joins the fields that the view varies by, once."""
    app = WebServer(__name__)

    @app.route("/<vary>")
    async def view(vary: str) -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Vary": vary}

    browser = browse(app)
    vary = browser.get("/Cookie").headers["vary"]
    assert [name.strip() for name in vary.split(",")] == ["Cookie", "Accept-Encoding"]
    assert browser.get("/accept-encoding").headers["vary"] == "accept-encoding"
    assert browser.get("/*").headers["vary"] == "*"


def test_strong_etag_differs_by_coding_and_a_weak_one_is_kept(browse: Browse) -> None:
    """A strong tag stands for bytes, so each coding has its own; a weak one stands for the content."""
    app = WebServer(__name__)

    @app.route("/<kind>")
    async def view(kind: str) -> Response:
        response = Response(TEXT)
        response.set_etag("tag", weak=kind == "weak")
        return response

    browser = browse(app)
    tags = {
        coding: browser.get("/strong", coding).headers["etag"]
        for coding in ("identity", "br", "gzip", "zstd")
    }
    assert tags == {"identity": '"tag"', "br": '"tag-br"', "gzip": '"tag-gzip"', "zstd": '"tag-zstd"'}
    assert {browser.get("/weak", coding).headers["etag"] for coding in tags} == {'W/"tag"'}


def test_etag_of_a_coding_gets_304_for_that_coding(browse: Browse) -> None:
    """A client that sends back the tag that it got with br gets 304 while it asks for br."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        response = Response(TEXT)
        response.set_etag("tag")
        return response

    browser = browse(app)
    tag = browser.get("/", "br").headers["etag"]
    unchanged = browser.get("/", "br", if_none_match=tag)
    assert (unchanged.status, unchanged.raw, unchanged.headers["etag"]) == (304, b"", tag)
    assert "content-encoding" not in unchanged.headers
    assert browser.get("/", "gzip", if_none_match=tag).status == 200


@pytest.mark.parametrize("asked", ['"tag-br"', 'W/"tag-br"', '"other", "tag-br"', "*"])
async def test_middleware_compares_the_tags_that_it_has_made(asked: str) -> None:
    """An application does not know them; those that it knows it compares itself."""
    app = CompressionMiddleware(bare(TEXT, etag='"tag"'))
    told = await ask(app, accept_encoding="br", if_none_match=asked)
    assert (told.status, told.raw, told.headers["etag"]) == (304, b"", '"tag-br"')
    assert told.headers["vary"] == "Accept-Encoding"
    assert not {"content-length", "content-encoding", "content-type"} & set(told.headers)
    plain = await ask(app, if_none_match=asked)
    assert (plain.status, plain.headers["etag"], plain.raw) == (200, '"tag"', TEXT)


def test_tag_of_another_status_or_method_gets_no_304(browse: Browse) -> None:
    """Conditions are those of a successful GET or HEAD (RFC 9110 §13.2.1)."""
    app = WebServer(__name__)

    @app.route("/<int:status>", methods=["GET", "POST"])
    async def view(status: int) -> tuple[bytes, int, dict[str, str]]:
        return TEXT, status, {"ETag": '"tag"'}

    browser = browse(app)
    assert browser.get("/200", if_none_match='"tag-br"').status == 304
    assert browser.get("/404", if_none_match='"tag-br"').status == 404
    posted = browser.get("/200", method="POST", if_none_match='"tag-br"')
    assert (posted.status, posted.coding, posted.headers["etag"]) == (200, "br", '"tag-br"')


# What is left alone


@pytest.mark.parametrize(("size", "coding"), [(0, "identity"), (499, "identity"), (500, "br"), (501, "br")])
def test_bodies_below_the_minimum_are_sent_as_they_are(browse: Browse, size: int, coding: str) -> None:
    """From 500 bytes on compressing is worth it."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> bytes:
        return b"a" * size

    answer = browse(app).get("/")
    assert (answer.coding, answer.content) == (coding, b"a" * size)
    assert answer.headers["vary"] == "Accept-Encoding"


def test_min_size_is_a_setting(browse: Browse) -> None:
    """min_size=1 compresses what gets smaller by it, and only that."""
    app = WebServer(__name__, compression=Br(min_size=1))

    @app.route("/<int:size>")
    async def view(size: int) -> bytes:
        return b"a" * size

    browser = browse(app)
    assert browser.get("/100").coding == "br"
    assert browser.get("/1").coding == "identity"


def test_body_that_would_grow_is_sent_as_it_is(browse: Browse) -> None:
    """Noise does not get smaller, cached or not."""
    noise = os.urandom(4000)
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        return Response(noise, content_type="text/plain")

    app.add_url_rule("/cached", "cached", app.cache(timeout=60)(index))
    browser = browse(app)
    for path in ("/", "/cached", "/cached"):
        answer = browser.get(path)
        assert (answer.coding, answer.raw) == ("identity", noise)


def test_body_that_is_coded_already_is_left_alone(browse: Browse) -> None:
    """A view's own coding is kept, whatever the client says that it likes."""
    coded = gzip.compress(TEXT)
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return coded, {"Content-Encoding": "gzip"}

    answer = browse(app).get("/", "br, gzip;q=0.1")
    assert (answer.coding, answer.raw) == ("gzip", coded)


@pytest.mark.parametrize(
    "lines",
    [
        ["no-transform"],
        ["max-age=60, No-Transform"],
        ["NO-TRANSFORM ,public"],
        ["\t no-transform\t"],
        ["public", "no-transform"],
        ["max-age=60", 'private="x, y" , no-Transform'],
        [", ,no-transform"],
    ],
)
def test_no_transform_forbids_compression(browse: Browse, lines: list[str]) -> None:
    """A response that must not be transformed is not, however and on whichever line it says so."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        response = Response(TEXT)
        for line in lines:
            response.headers.add("Cache-Control", line)
        return response

    answer = browse(app).get("/")
    assert (answer.coding, answer.raw) == ("identity", TEXT)


def test_what_only_resembles_no_transform_forbids_nothing(browse: Browse) -> None:
    """An extension of another name, or the words in quotes, are no prohibition."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Cache-Control": 'no-transformation, x="a, no-transform"'}

    assert browse(app).get("/").coding == "br"


@pytest.mark.parametrize(
    ("content_type", "coding"),
    [
        ("text/html; charset=utf-8", "br"),
        ("TEXT/CSS", "br"),
        ("application/json", "br"),
        ("application/problem+json", "br"),
        ("application/javascript", "br"),
        ("image/svg+xml", "br"),
        ("application/wasm", "br"),
        ("image/png", "identity"),
        ("image/jpeg", "identity"),
        ("video/mp4", "identity"),
        ("application/zip", "identity"),
        ("application/octet-stream", "identity"),
        ("text/event-stream", "identity"),
        ("text/event-stream; charset=utf-8", "identity"),
        ("font/woff2", "identity"),
        ("nonsense", "identity"),
    ],
)
def test_media_type_decides(browse: Browse, content_type: str, coding: str) -> None:
    """Text and its like are compressed; what is compressed by nature and event streams are not."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        return Response(TEXT, content_type=content_type)

    answer = browse(app).get("/")
    assert (answer.coding, answer.content) == (coding, TEXT)
    assert ("vary" in answer.headers) is (coding == "br")
    assert answer.headers["content-type"] == content_type


def test_mimetypes_are_a_setting(browse: Browse) -> None:
    """What is worth compressing may be said, and then only that is."""
    app = WebServer(__name__, compression=Gzip(mimetypes=["application/x-own"]))

    @app.route("/<kind>")
    async def view(kind: str) -> Response:
        return Response(TEXT, content_type=f"application/{kind}")

    browser = browse(app)
    assert browser.get("/x-own", "gzip").coding == "gzip"
    assert browser.get("/json", "gzip").coding == "identity"


@pytest.mark.parametrize("status", [204, 205, 206, 304])
@pytest.mark.parametrize("length", [None, "4500"])
async def test_statuses_without_a_whole_body_are_left_alone(status: int, length: str | None) -> None:
    """204, 205, 206 and 304 go out with the fields and the bytes that they have."""
    fields = {"content-type": "text/plain", "etag": '"x"', "content-digest": "sha-256=:AAAA:"}
    if length is not None:
        fields["content-length"] = length
    if status == 206:
        fields["content-range"] = "bytes 0-4499/9000"
    # A 205 with a content is a mistake (RFC 9110 §15.3.6), but not one to make worse.
    body = TEXT if status in (205, 206) else b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers: RawHeaders = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    told = await ask(CompressionMiddleware(app), accept_encoding="br")
    assert (told.status, told.raw) == (status, body)
    # The other two stand for a 200 that would depend on Accept-Encoding.
    vary = {"vary": "Accept-Encoding"} if status in (206, 304) else {}
    assert told.headers == fields | vary


def test_part_that_a_view_made_is_left_alone(browse: Browse) -> None:
    """What says Content-Range is a part, whatever its status; so is a 206 of an application."""
    app = WebServer(__name__)

    @app.route("/<int:status>")
    async def part(status: int) -> tuple[bytes, int, dict[str, str]]:
        return TEXT, status, {"Content-Range": f"bytes 0-{len(TEXT) - 1}/9000", "ETag": '"x"'}

    browser = browse(app)
    for status in (200, 206):
        answer = browser.get(f"/{status}")
        assert (answer.status, answer.coding, answer.raw) == (status, "identity", TEXT)
        assert answer.headers["etag"] == '"x"'


def test_response_without_a_media_type_is_left_alone(browse: Browse) -> None:
    """Nobody knows whether it would get smaller."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        response = Response(TEXT)
        del response.headers["Content-Type"]
        return response

    answer = browse(app).get("/")
    assert (answer.coding, answer.raw) == ("identity", TEXT)


# Digests and lengths


def sha(bits: int, content: bytes) -> str:
    """Returns the digest of ``content`` in base64."""
    return b64encode(hashlib.new(f"sha{bits}", content).digest()).decode()


IDENTITY_DIGESTS = {
    "Content-Digest": f"sha-256=:{sha(256, TEXT)}:, sha-512=:{sha(512, TEXT)}:",
    "Repr-Digest": f"sha-512=:{sha(512, TEXT)}:",
    "Digest": f"SHA-256={sha(256, TEXT)},MD5=AAAA",
    "Content-MD5": "AAAA",
    "Accept-Ranges": "bytes",
}


def digest_app(fields: dict[str, str] = IDENTITY_DIGESTS) -> WebServer:
    """Returns an application whose text states these digests, on ``/`` and, cached, on ``/cached``."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return TEXT, fields

    app.add_url_rule("/cached", "cached", app.cache(timeout=60)(index))
    return app


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd"])
@pytest.mark.parametrize("path", ["/", "/cached"])
def test_digests_are_those_of_the_coded_content(browse: Browse, path: str, coding: str) -> None:
    """RFC 9530 and RFC 3230 both have the digest of the representation in its content coding."""
    browser = browse(digest_app())
    for _ in range(2):
        answer = browser.get(path, coding)
        assert answer.coding == coding
        assert int(answer.headers["content-length"]) == len(answer.raw)
        assert parse(answer.headers["content-digest"].encode(), tltype="dictionary") == {
            "sha-256": (hashlib.sha256(answer.raw).digest(), {}),
            "sha-512": (hashlib.sha512(answer.raw).digest(), {}),
        }
        assert parse(answer.headers["repr-digest"].encode(), tltype="dictionary") == {
            "sha-512": (hashlib.sha512(answer.raw).digest(), {}),
        }
        assert answer.headers["digest"] == f"SHA-256={sha(256, answer.raw)}"
        assert "content-md5" not in answer.headers


def test_digests_of_the_identity_content_are_the_views(browse: Browse) -> None:
    """What is sent as it is keeps what its view has stated, known or not."""
    answer = browse(digest_app()).get("/", "identity")
    assert {name: answer.headers[name] for name in IDENTITY_DIGESTS} == IDENTITY_DIGESTS


def test_unknown_digests_are_dropped(browse: Browse) -> None:
    """A digest by an algorithm that is not made here would be wrong, so it is left out."""
    fields = {
        "Content-Digest": "unixsum=:AAAA:",
        "Repr-Digest": 'x="a, sha-256=b", sha-256=:AAAA:;a=1, md5=:AAAA:',
        "Digest": "unixsum=30637",
    }
    browser = browse(digest_app(fields))
    answer = browser.get("/")
    assert answer.headers["repr-digest"] == f"sha-256=:{sha(256, answer.raw)}:"
    assert not {"content-digest", "digest"} & set(answer.headers)


def test_digests_on_several_lines_become_one(browse: Browse) -> None:
    """A dictionary may be cut into lines; each of its known members is made anew."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        response = Response(TEXT)
        response.headers.add("Content-Digest", "sha-256=:AAAA:")
        response.headers.add("Content-Digest", "md5=:AAAA:, sha-512=:AAAA:")
        return response

    answer = browse(app).get("/")
    assert answer.headers.get_list("content-digest") == [
        f"sha-256=:{sha(256, answer.raw)}:, sha-512=:{sha(512, answer.raw)}:"
    ]


@pytest.mark.parametrize("coding", ["identity", "br"])
def test_part_of_a_kept_response_has_its_own_content_digest(browse: Browse, coding: str) -> None:
    """Content-Digest is that of the part, Repr-Digest and Digest are still those of the whole."""
    browser = browse(digest_app())
    whole = browser.get("/cached", coding)
    part = browser.get("/cached", coding, range="bytes=5-29")
    assert (part.status, part.coding, part.raw) == (206, coding, whole.raw[5:30])
    assert part.headers["content-digest"] == (
        f"sha-256=:{sha(256, part.raw)}:, sha-512=:{sha(512, part.raw)}:"
    )
    assert part.headers["repr-digest"] == f"sha-512=:{sha(512, whole.raw)}:"
    assert part.headers["digest"].startswith(f"SHA-256={sha(256, whole.raw)}")
    assert "content-md5" not in part.headers
    assert part.headers["content-length"] == "25"


def test_not_modified_has_no_digest_of_a_content(browse: Browse) -> None:
    """A 304 has no content; the digest of the representation may stand."""
    browser = browse(digest_app())
    whole = browser.get("/cached")
    answer = browser.get("/cached", if_none_match=whole.headers["etag"])
    assert (answer.status, answer.raw) == (304, b"")
    assert not {"content-digest", "content-length", "content-encoding", "content-type"} & set(answer.headers)
    assert answer.headers["repr-digest"] == whole.headers["repr-digest"]


# Compressors


def test_compression_false_leaves_everything_alone(browse: Browse) -> None:
    """compression=False: no coding and no Vary, cached or not."""
    browser = browse(text_app(compression=False))
    for path in ("/", "/cached", "/cached"):
        answer = browser.get(path, "br, gzip, zstd")
        assert (answer.coding, answer.raw) == ("identity", TEXT)
        assert "vary" not in answer.headers


@pytest.mark.parametrize(
    ("compression", "accept", "expected"),
    [
        (Gzip(), "gzip", gzip.compress(TEXT, 5, mtime=0)),
        (Gzip(level=9), "gzip", gzip.compress(TEXT, 9, mtime=0)),
        (Gzip(1), "gzip", gzip.compress(TEXT, 1, mtime=0)),
        (Br(), "br", brotli.compress(TEXT, quality=4)),
        (Br(level=0), "br", brotli.compress(TEXT, quality=0)),
        (Br(level=11), "br", brotli.compress(TEXT, quality=11)),
    ],
    ids=["gzip", "gzip 9", "gzip 1", "br", "br 0", "br 11"],
)
def test_level_is_used(browse: Browse, compression: Base, accept: str, expected: bytes) -> None:
    """The bytes are those of the library at this level."""
    assert browse(text_app(compression)).get("/", accept).raw == expected


def test_zstd_level_and_window_are_used(browse: Browse) -> None:
    """Zstd takes its level, and its frame can be decoded with the window that browsers allow."""
    prose = " ".join(str(number**3) for number in range(3000)).encode()
    raws: list[bytes] = []
    for level in (19, 1):
        app = WebServer(__name__, compression=Zstd(level=level))

        @app.route("/")
        async def index() -> bytes:
            return prose

        answer = browse(app).get("/", "zstd")
        assert answer.content == prose
        raws.append(answer.raw)
    assert raws[0] != raws[1]


def test_single_coding_offers_nothing_else(browse: Browse) -> None:
    """With Gzip() a client that takes br only gets identity."""
    browser = browse(text_app(Gzip()))
    assert browser.get("/", "br").coding == "identity"
    assert browser.get("/", "br, gzip;q=0.1").coding == "gzip"


def test_order_of_negotiated_decides_among_equals(browse: Browse) -> None:
    """The server's preference counts where the client has none, and only there."""
    browser = browse(text_app(Negotiated(Gzip(), Br())))
    assert browser.get("/", "br, gzip").coding == "gzip"
    assert browser.get("/", "*").coding == "gzip"
    assert browser.get("/", "br, gzip;q=0.9").coding == "br"
    assert browser.get("/", "zstd").coding == "identity"


class CountingCoding:
    """A user's own coding: it counts its calls and may be held."""

    name = "deflate"

    def __init__(self) -> None:
        self.calls = 0
        self.threads: set[str] = set()
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as a zlib stream."""
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        self.began.set()
        assert self.may_end.wait(10)
        return zlib.compress(content)


def test_any_object_with_name_and_compress_is_a_coding(browse: Browse) -> None:
    """A user's own coding is negotiated and applied like the others."""
    own = CountingCoding()
    assert isinstance(own, Coding)
    browser = browse(text_app(Negotiated(own, Gzip())))
    answer = browser.get("/", "deflate, gzip")
    assert (answer.coding, answer.content) == ("deflate", TEXT)
    assert browser.get("/", "gzip").coding == "gzip"
    assert own.calls == 1


def test_stored_response_is_compressed_once_for_each_coding(browse: Browse) -> None:
    """Hits reuse the variant; a response that is not cached is compressed each time."""
    own = CountingCoding()
    app = text_app(Negotiated(own))
    browser = browse(app)
    answers = [browser.get("/cached", "deflate") for _ in range(5)]
    assert own.calls == 1
    assert {answer.raw for answer in answers} == {zlib.compress(TEXT)}
    browser.get("/cached", "identity")
    assert own.calls == 1
    app.clear_cache()
    browser.get("/cached", "deflate")
    assert own.calls == 2
    for _ in range(3):
        browser.get("/", "deflate")
    assert own.calls == 5


async def test_simultaneous_hits_share_one_compression() -> None:
    """While the variant of a large stored body is made everybody waits for the same one."""
    own = CountingCoding()
    own.may_end.clear()
    body = TEXT * 30
    app = WebServer(__name__, compression=Negotiated(own))
    arrived = threading.Semaphore(0)

    @app.after_request
    async def after(response: Response) -> Response:
        arrived.release()
        return response

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> bytes:
        return body

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers={"accept-encoding": "deflate"}) as client:
            requests = [asyncio.create_task(client.get("/")) for _ in range(10)]
            for _ in requests:
                assert await asyncio.to_thread(arrived.acquire, timeout=10)
            own.may_end.set()
            responses = await asyncio.gather(*requests)
    assert {response.content for response in responses} == {body}
    assert {response.headers["content-encoding"] for response in responses} == {"deflate"}
    assert own.calls == 1


async def test_large_body_is_compressed_while_the_loop_answers_others() -> None:
    """A megabyte is compressed in a thread: another request is answered before it is done."""
    own = CountingCoding()
    own.may_end.clear()
    app = WebServer(__name__, compression=Negotiated(own))
    large = TEXT * 250
    assert len(large) > 1_000_000

    @app.route("/large")
    async def view() -> bytes:
        return large

    @app.route("/small")
    async def small() -> str:
        return "small"

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers={"accept-encoding": "deflate"}) as client:
            waiting = asyncio.create_task(client.get("/large"))
            assert await asyncio.to_thread(own.began.wait, 10)
            assert (await client.get("/small")).text == "small"
            assert not waiting.done()
            own.may_end.set()
            assert (await waiting).content == large
    assert "aeros-server" not in own.threads


async def test_client_that_leaves_during_compression_takes_nobody_along() -> None:
    """The variant that several wait for is made although the first who asked has gone."""
    own = CountingCoding()
    own.may_end.clear()
    body = TEXT * 30
    app = WebServer(__name__, compression=Negotiated(own))

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> bytes:
        return body

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers={"accept-encoding": "deflate"}) as client:
            leaving = asyncio.create_task(client.get("/"))
            assert await asyncio.to_thread(own.began.wait, 10)
            staying = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0.1)
            leaving.cancel()
            await asyncio.sleep(0.1)
            own.may_end.set()
            assert (await staying).content == body
            assert (await client.get("/")).content == body
    assert own.calls == 1


def test_compressor_of_the_container_is_asked_at_each_request(browse: Browse) -> None:
    """An override made while serving is seen by the next request, and undone as well."""
    app = text_app()
    browser = browse(app)
    assert browser.get("/", "gzip, br").coding == "br"
    # What dependency-injector types of override() is not known in part.
    with app.container.compressor.override(providers.Object(Gzip())):  # pyright: ignore[reportUnknownMemberType]
        assert browser.get("/", "gzip, br").coding == "gzip"
    with app.container.compressor.override(providers.Object(None)):  # pyright: ignore[reportUnknownMemberType]
        assert browser.get("/", "gzip, br").coding == "identity"
    assert browser.get("/", "gzip, br").coding == "br"


# HEAD and errors


@pytest.mark.parametrize("path", ["/", "/cached", "/small", "/noise"])
@pytest.mark.parametrize("accept", ["br", "identity"])
def test_head_shows_what_get_would(browse: Browse, path: str, accept: str) -> None:
    """HEAD has the status and the fields of GET, the coded length included, and no body."""
    app = text_app()
    noise = os.urandom(4000)

    @app.route("/small")
    async def small() -> str:
        return "small"

    @app.route("/noise")
    async def noisy() -> bytes:
        return noise

    browser = browse(app)
    browser.get(path, accept)
    got, head = browser.get(path, accept), browser.get(path, accept, method="HEAD")
    assert head.raw == b""
    assert head.status == got.status == 200
    ignored = {"date", "age", "cache-status"}
    assert {name: value for name, value in head.headers.items() if name not in ignored} == {
        name: value for name, value in got.headers.items() if name not in ignored
    }


@pytest.mark.parametrize("makes_etags", [False, True])
def test_head_of_a_view_without_its_body_shows_the_coding(browse: Browse, makes_etags: bool) -> None:
    """What depends on the bytes is left out, because nobody has them; the rest is as for GET."""
    app = WebServer(__name__, etag=makes_etags)

    @app.route("/", methods=["GET", "HEAD"])
    async def index() -> tuple[bytes, dict[str, str]]:
        body = b"" if request.method == "HEAD" else TEXT
        return body, {"Content-Length": str(len(TEXT)), "Content-Digest": "sha-256=:AAAA:"}

    browser = browse(app)
    got, head = browser.get("/"), browser.get("/", method="HEAD")
    assert (head.status, head.coding, head.headers["vary"]) == (200, "br", "Accept-Encoding")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert not {"content-length", "content-digest", "etag"} & set(head.headers)
    plain = browser.get("/", "identity", method="HEAD")
    assert (plain.coding, plain.headers["content-length"]) == ("identity", str(len(TEXT)))


@pytest.mark.parametrize("content_type", ["text/plain", "image/png"])
async def test_head_without_its_body_gets_no_tag_of_nothing(content_type: str) -> None:
    """Middleware inside the application may take the body away, and the tag would be that of no bytes."""
    app = WebServer(__name__, etag=True)
    cast(Any, app).asgi_app = bare(TEXT, content_type=content_type)
    assert "etag" in (await ask(app)).headers
    assert "etag" not in (await ask(app, method="HEAD")).headers


@pytest.mark.parametrize(("length", "coding"), [("499", "identity"), ("500", "br"), ("4500", "br")])
async def test_head_without_its_body_is_judged_by_the_declared_length(length: str, coding: str) -> None:
    """A body that GET would send as it is, is not said to be coded."""
    app = CompressionMiddleware(bare(TEXT, content_length=length, etag='"x"'))
    told = await ask(app, method="HEAD", accept_encoding="br")
    assert (told.coding, told.raw) == (coding, b"")
    assert ("content-length" in told.headers) is (coding == "identity")
    assert told.headers["vary"] == "Accept-Encoding"


def test_error_pages_are_compressed(browse: Browse) -> None:
    """A long page for a status other than 200 is compressed as any other."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, int]:
        return TEXT, int(request.args["status"])

    browser = browse(app)
    for status in (201, 400, 404, 500, 503):
        answer = browser.get(f"/?status={status}")
        assert (answer.status, answer.coding, answer.content) == (status, "br", TEXT)


# Opting out


def secret_app(app: WebServer) -> WebServer:
    """Adds views whose responses opt out, in all the ways that there are."""

    @app.route("/by-hand")
    async def by_hand() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Content-Encoding": "identity"}

    @app.route("/decorated")
    @uncompressed
    async def decorated() -> bytes:
        return TEXT

    @app.route("/sync")
    @uncompressed
    def sync() -> bytes:
        return TEXT

    @app.route("/below")
    @app.cache(timeout=60)
    @uncompressed
    async def below() -> bytes:
        return TEXT

    @app.route("/above")
    @uncompressed
    @app.cache(timeout=60)
    async def above() -> bytes:
        return TEXT

    @app.route("/cached-by-hand")
    @app.cache(timeout=60)
    async def cached_by_hand() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Content-Encoding": "identity"}

    @app.route("/failing")
    @uncompressed
    async def failing() -> bytes:
        raise RuntimeError("on purpose")

    @app.route("/aborting")
    @uncompressed
    async def aborting() -> bytes:
        abort(418)

    @app.errorhandler(RuntimeError)
    async def failed(error: Exception) -> tuple[bytes, int]:
        return TEXT, 500

    @app.errorhandler(418)
    async def aborted(error: Exception) -> tuple[bytes, int]:
        return TEXT, 418

    @app.route("/open")
    async def everybodys() -> bytes:
        return TEXT

    return app


OPTED_OUT = [
    "/by-hand",
    "/decorated",
    "/sync",
    "/below",
    "/above",
    "/cached-by-hand",
    "/failing",
    "/aborting",
]


@pytest.mark.parametrize("compression", [None, False], ids=["on", "off"])
def test_response_that_opts_out_is_sent_as_it_is(browse: Browse, compression: Any) -> None:
    """Fresh or kept, made by a view or by an error handler; the mark itself is taken off."""
    browser = browse(secret_app(WebServer(__name__, compression=compression)))
    for path in OPTED_OUT:
        for _ in range(3):
            answer = browser.get(path, "br, gzip")
            assert (path, answer.raw) == (path, TEXT)
            assert "content-encoding" not in answer.headers
            assert answer.headers["content-length"] == str(len(TEXT))
    assert browser.get("/open").coding == ("br" if compression is None else "identity")


def test_kept_response_that_opts_out_has_conditions_and_parts(browse: Browse) -> None:
    """It is one like any other, in its one form."""
    browser = browse(secret_app(WebServer(__name__)))
    for path in ("/below", "/above", "/cached-by-hand"):
        tag = browser.get(path).headers["etag"]
        assert browser.get(path, if_none_match=tag).status == 304
        part = browser.get(path, range="bytes=0-9")
        assert (part.status, part.raw) == (206, TEXT[:10])
        assert "content-encoding" not in part.headers


async def test_opting_out_works_in_the_middleware() -> None:
    """A bare function says it itself, a view of Quart's with the decorator."""
    told = await ask(CompressionMiddleware(bare(TEXT, content_encoding="identity")), accept_encoding="br")
    assert (told.coding, told.raw) == ("identity", TEXT)
    assert "content-encoding" not in told.headers

    app = Quart(__name__)

    @app.route("/secret")
    @uncompressed
    async def secret() -> bytes:
        return TEXT

    @app.route("/failing")
    @uncompressed
    async def failing() -> bytes:
        abort(418)

    @app.errorhandler(418)
    async def aborted(error: Exception) -> tuple[bytes, int]:
        return TEXT, 418

    @app.route("/open")
    async def everybodys() -> bytes:
        return TEXT

    wrapped = CompressionMiddleware(cast(ASGIApplication, app), Br())
    for path in ("/secret", "/failing"):
        told = await ask(wrapped, path, accept_encoding="br")
        assert (told.raw, "content-encoding" in told.headers) == (TEXT, False)
    assert (await ask(wrapped, "/open", accept_encoding="br")).coding == "br"


def test_coding_of_a_views_own_is_not_opted_out(browse: Browse) -> None:
    """The decorator says nothing of a response that is in a coding already."""
    app = WebServer(__name__)

    @app.route("/")
    @uncompressed
    async def index() -> tuple[bytes, dict[str, str]]:
        return gzip.compress(TEXT), {"Content-Encoding": "gzip"}

    answer = browse(app).get("/", "br")
    assert (answer.coding, answer.content) == ("gzip", TEXT)


@pytest.mark.parametrize("place", ["view", "before", "after", "template", "write"])
def test_response_that_used_the_session_is_not_compressed(browse: Browse, place: str) -> None:
    """A secret of the session could be guessed from the length (BREACH), wherever it was read."""
    app = WebServer(__name__)
    app.secret_key = "of this test"

    @app.before_request
    async def before() -> None:
        if place == "before" and request.path == "/used":
            session.get("token")

    @app.after_request
    async def after(response: Response) -> Response:
        if place == "after" and request.path == "/used":
            session.get("token")
        return response

    @app.route("/used")
    async def used() -> str:
        if place == "view":
            session.get("token")
        if place == "write":
            session["token"] = "secret"
        if place == "template":
            return await render_template_string(TEXT.decode() + "{{ session.token }}")
        return TEXT.decode()

    @app.route("/unused")
    async def unused() -> bytes:
        return TEXT

    browser = browse(app)
    answer = browser.get("/used")
    assert (answer.coding, answer.content) == ("identity", TEXT)
    assert browser.get("/unused").coding == "br"


# Entity tags of any response


def etag_app(**options: Any) -> WebServer:
    """Returns an application whose responses get entity tags, with one view of each kind."""
    app = WebServer(__name__, **options)

    @app.route("/", methods=["GET", "POST"])
    async def index() -> bytes:
        return TEXT

    @app.route("/picture")
    async def picture() -> Response:
        return Response(TEXT, content_type="image/png")

    @app.route("/own")
    async def own() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"ETag": '"own"'}

    @app.route("/weak")
    async def weak() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"ETag": 'W/"own"'}

    @app.route("/dated")
    async def dated() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}

    @app.route("/secret")
    async def secret() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Cache-Control": "private, No-Store"}

    @app.route("/missing")
    async def missing() -> tuple[bytes, int]:
        return TEXT, 404

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> bytes:
        return TEXT

    @app.route("/stream")
    async def stream() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT
            yield TEXT

        return Response(chunks(), content_type=request.args["type"])

    return app


TAG = hashlib.sha256(TEXT).hexdigest()[:24]


@pytest.mark.parametrize(
    ("accept", "tag"),
    [("identity", f'"{TAG}"'), ("br", f'"{TAG}-br"'), ("gzip", f'"{TAG}-gzip"'), ("zstd", f'"{TAG}-zstd"')],
)
def test_etag_option_gives_each_coding_a_tag_that_gets_304(browse: Browse, accept: str, tag: str) -> None:
    """A client that has the response in this coding already is answered with 304."""
    browser = browse(etag_app(etag=True))
    answer = browser.get("/", accept)
    assert (answer.coding, answer.headers["etag"], answer.content) == (accept, tag, TEXT)
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            unchanged = browser.get("/", accept, method, if_none_match=asked)
            assert (unchanged.status, unchanged.raw, unchanged.headers["etag"]) == (304, b"", tag)
            assert unchanged.headers["vary"] == "Accept-Encoding"
            assert "content-encoding" not in unchanged.headers
    for asked in ('"other"', "nonsense", f"{tag[:-1]}x", ""):
        assert browser.get("/", accept, if_none_match=asked).status == 200
    others = {"br", "gzip", "zstd", "identity"} - {accept}
    assert [browser.get("/", other, if_none_match=tag).status for other in sorted(others)] == [200] * 3


def test_etag_option_is_off_by_default(browse: Browse) -> None:
    """Nobody who did not ask for tags gets any, but on cached routes."""
    browser = browse(etag_app())
    assert "etag" not in browser.get("/").headers
    assert "etag" not in browser.get("/picture").headers
    assert browser.get("/cached", "identity").headers["etag"] == f'"{TAG}"'


def test_etag_option_may_come_from_the_environment(browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    """AEROS_ETAG switches it on, and the argument has the last word."""
    monkeypatch.setenv("AEROS_ETAG", "yes")
    assert browse(etag_app()).get("/", "identity").headers["etag"] == f'"{TAG}"'
    assert "etag" not in browse(etag_app(etag=False)).get("/").headers


def test_etag_option_is_for_what_is_not_compressed_as_well(browse: Browse) -> None:
    """A picture, and everything where compression is off."""
    browser = browse(etag_app(etag=True))
    assert browser.get("/picture").headers["etag"] == f'"{TAG}"'
    assert browser.get("/picture", if_none_match=f'"{TAG}"').status == 304
    plain = browse(etag_app(etag=True, compression=False))
    assert plain.get("/").headers["etag"] == f'"{TAG}"'
    assert plain.get("/", if_none_match=f'"{TAG}"').status == 304


@pytest.mark.parametrize("path", ["/missing", "/secret", "/stream?type=text/plain", "/stream?type=image/png"])
@pytest.mark.parametrize("accept", ["br", "identity"])
def test_etag_option_leaves_errors_secrets_and_streams_alone(browse: Browse, path: str, accept: str) -> None:
    """Only what is whole, a success, and may be stored by somebody gets a tag."""
    answer = browse(etag_app(etag=True)).get(path, accept, if_none_match=f'"{TAG}", "{TAG}-br"')
    assert answer.status == (404 if path == "/missing" else 200)
    assert "etag" not in answer.headers
    assert answer.content.startswith(TEXT)


def test_etag_option_leaves_post_alone(browse: Browse) -> None:
    """What a POST answers is no representation of its URL."""
    answer = browse(etag_app(etag=True)).get("/", method="POST", if_none_match=f'"{TAG}-br"')
    assert (answer.status, answer.content) == (200, TEXT)
    assert "etag" not in answer.headers


def test_etag_option_keeps_the_tag_of_the_view(browse: Browse) -> None:
    """What the view says of its response is not made better, but compared."""
    browser = browse(etag_app(etag=True))
    assert browser.get("/own", "identity").headers["etag"] == '"own"'
    assert browser.get("/own", "br").headers["etag"] == '"own-br"'
    assert browser.get("/weak", "br").headers["etag"] == 'W/"own"'
    for path, accept, tag in (
        ("/own", "identity", '"own"'),
        ("/own", "br", '"own-br"'),
        ("/weak", "br", 'W/"own"'),
    ):
        assert browser.get(path, accept, if_none_match=tag).status == 304
    assert browser.get("/own", "identity", if_none_match=f'"{TAG}"').status == 200


@pytest.mark.parametrize("accept", ["br", "identity"])
def test_etag_option_compares_last_modified_of_the_view(browse: Browse, accept: str) -> None:
    """A date that the view states counts, unless the client has a tag (RFC 9110 §13.1.3)."""
    browser = browse(etag_app(etag=True))
    same, later, earlier = (f"Sun, 06 Nov {year} 08:49:37 GMT" for year in (1994, 1995, 1993))
    assert browser.get("/dated", accept, if_modified_since=same).status == 304
    assert browser.get("/dated", accept, if_modified_since=later).status == 304
    assert browser.get("/dated", accept, if_modified_since=earlier).status == 200
    assert browser.get("/dated", accept, if_modified_since="yesterday").status == 200
    assert browser.get("/dated", accept, if_modified_since=same, if_none_match='"other"').status == 200
    assert browser.get("/", accept, if_modified_since=same).status == 200


def test_etag_option_and_the_cache_make_the_same_tag(browse: Browse) -> None:
    """A route that becomes a cached one keeps its clients' copies valid."""
    browser = browse(etag_app(etag=True))
    for accept in ("identity", "br", "br"):
        assert browser.get("/cached", accept).headers["etag"] == browser.get("/", accept).headers["etag"]


def test_etag_of_a_large_body_is_made(browse: Browse) -> None:
    """From a megabyte on it is made in a thread, and is the same."""
    large = TEXT * 250
    app = WebServer(__name__, etag=True)

    @app.route("/")
    async def index() -> Response:
        return Response(large, content_type="image/png")

    browser = browse(app)
    tag = f'"{hashlib.sha256(large).hexdigest()[:24]}"'
    assert browser.get("/").headers["etag"] == tag
    assert browser.get("/", if_none_match=tag).status == 304


# What is sent very often


class ThoroughCoding:
    """A coding that notes what it compresses thoroughly, and may be held while it does."""

    name = "br"

    def __init__(self) -> None:
        self.thorough: list[bytes] = []
        self.threads: set[str] = set()
        self.may_end = threading.Event()
        self.may_end.set()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` quickly."""
        return brotli.compress(content, quality=1)

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Returns ``content`` as small as can be."""
        self.thorough.append(content)
        self.threads.add(threading.current_thread().name)
        assert self.may_end.wait(10)
        return brotli.compress(content, quality=11)


PROSE = b" ".join(b"%d:%x" % (number, number**3 % 65537) for number in range(3000))


def hot_app(compression: Base, **bodies: bytes) -> WebServer:
    """Returns an application that caches these bodies."""
    app = WebServer(__name__, compression=compression)

    @app.route("/<name>")
    @app.cache(timeout=60)
    async def page(name: str) -> bytes:
        return bodies.get(name, b"nothing")

    return app


def hot_tag(browser: Browser, path: str, accept: str = "br") -> str:
    """Asks until the thorough variant is there, and returns its tag."""

    def found() -> str | None:
        tag: str = browser.get(path, accept).headers["etag"]
        return tag if tag.endswith('+"') else None

    return eventually(found)


@pytest.mark.parametrize("compressor", [Br(hot_after=3), Gzip(1, hot_after=3), Zstd(hot_after=3)], ids=repr)
def test_hot_response_gets_a_thorough_variant(browse: Browse, compressor: Base) -> None:
    """It is no larger, decodes to the same, and has a tag of its own that gets 304."""
    accept = compressor.codings[0].name
    browser = browse(hot_app(compressor, prose=PROSE))
    first = browser.get("/prose", accept)
    assert first.headers["etag"].endswith(f'-{accept}"')
    tag = hot_tag(browser, "/prose", accept)
    assert tag == f'{first.headers["etag"][:-1]}+"'
    hot = browser.get("/prose", accept)
    assert (hot.coding, hot.content, hot.headers["etag"]) == (accept, PROSE, tag)
    assert len(hot.raw) < len(first.raw)
    assert int(hot.headers["content-length"]) == len(hot.raw)
    assert browser.get("/prose", accept, if_none_match=tag).status == 304
    # The bytes of the old tag are gone.
    assert browser.get("/prose", accept, if_none_match=first.headers["etag"]).status == 200


def test_hot_response_is_made_thoroughly_once_and_in_a_thread(browse: Browse) -> None:
    """Nobody waits for it: until it is there the quick variant is sent."""
    coding = ThoroughCoding()
    coding.may_end.clear()
    browser = browse(hot_app(Negotiated(coding, hot_after=3), prose=PROSE))
    for used in range(1, 10):
        answer = browser.get("/prose")
        assert answer.headers["etag"].endswith('-br"')
        assert answer.raw == brotli.compress(PROSE, quality=1)
        if used < 3:
            assert coding.thorough == []
    assert eventually(lambda: coding.thorough) == [PROSE]
    coding.may_end.set()
    hot_tag(browser, "/prose")
    for _ in range(10):
        assert browser.get("/prose").raw == brotli.compress(PROSE, quality=11)
    assert coding.thorough == [PROSE]
    assert "aeros-server" not in coding.threads


def test_only_cached_bodies_up_to_a_megabyte_become_hot(browse: Browse) -> None:
    """A larger one takes seconds, and another coding or a response that is not kept has no variant."""
    coding = ThoroughCoding()
    large = TEXT * (2**20 // len(TEXT) + 1)
    assert len(large) > 2**20
    app = hot_app(Negotiated(coding, Gzip(), hot_after=1), large=large, exact=large[: 2**20], prose=PROSE)

    @app.route("/fresh/")
    async def fresh() -> bytes:
        return TEXT

    browser = browse(app)
    for _ in range(3):
        assert browser.get("/large").headers["etag"].endswith('-br"')
        assert browser.get("/fresh/").coding == "br"
        browser.get("/prose", "identity")
    # What waits for its thorough variant is taken in its order.
    hot_tag(browser, "/exact")
    assert coding.thorough == [large[: 2**20]]
    assert browser.get("/large").headers["etag"].endswith('-br"')


def test_without_hot_after_nothing_becomes_hot(browse: Browse) -> None:
    """The default is the quick variant for ever."""
    coding = ThoroughCoding()
    browser = browse(hot_app(Negotiated(coding), prose=PROSE))
    assert {browser.get("/prose").raw for _ in range(50)} == {brotli.compress(PROSE, quality=1)}
    assert coding.thorough == []


def test_coding_that_can_not_try_harder_does_not(browse: Browse) -> None:
    """A user's own coding needs no thorough way of compressing."""
    own = CountingCoding()
    browser = browse(hot_app(Negotiated(own, hot_after=1), prose=PROSE))
    assert {browser.get("/prose", "deflate").headers["etag"][-9:] for _ in range(5)} == {'-deflate"'}
    assert own.calls == 1


def test_ranges_of_a_hot_response_are_of_its_own_bytes(browse: Browse) -> None:
    """A part is one of the variant whose tag it carries, and If-Range knows them apart."""
    browser = browse(hot_app(Br(hot_after=2), prose=PROSE))
    old = browser.get("/prose")
    tag = hot_tag(browser, "/prose")
    whole = browser.get("/prose")
    part = browser.get("/prose", range="bytes=10-99", if_range=tag)
    assert (part.status, part.coding, part.raw) == (206, "br", whole.raw[10:100])
    assert part.headers["etag"] == tag
    assert part.headers["content-range"] == f"bytes 10-99/{len(whole.raw)}"
    # Who has the beginning of the old variant gets the new one from its beginning.
    again = browser.get("/prose", range="bytes=10-99", if_range=old.headers["etag"])
    assert (again.status, again.raw) == (200, whole.raw)


def test_thorough_variant_that_is_not_smaller_is_not_kept(browse: Browse) -> None:
    """A body that gains nothing by it keeps its variant and its tag."""

    class InVain(ThoroughCoding):
        def compress(self, content: bytes) -> bytes:
            return brotli.compress(content, quality=11)

    coding = InVain()
    browser = browse(hot_app(Negotiated(coding, hot_after=1), prose=PROSE, text=TEXT))
    tag = browser.get("/prose").headers["etag"]
    eventually(lambda: coding.thorough)
    # Another one that waits behind it says that the first is over.
    browser.get("/text")
    eventually(lambda: len(coding.thorough) == 2)
    assert browser.get("/prose").headers["etag"] == tag


# Codings of the user's own that do not do everything


def test_coding_without_an_encoder_leaves_streams_alone(browse: Browse) -> None:
    """Only whole responses are coded with it, and both depend on Accept-Encoding."""
    app = text_app(Negotiated(CountingCoding()))

    @app.route("/stream")
    async def stream() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT
            yield TEXT

        return Response(chunks(), content_type="text/plain")

    browser = browse(app)
    assert browser.get("/", "deflate").coding == "deflate"
    answer = browser.get("/stream", "deflate")
    assert (answer.coding, answer.raw, answer.headers["vary"]) == ("identity", TEXT * 2, "Accept-Encoding")


class FailingCoding:
    """A coding that is broken."""

    name = "deflate"

    def compress(self, content: bytes) -> bytes:
        """Raises."""
        raise RuntimeError("broken on purpose")

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Raises."""
        raise RuntimeError("broken thoroughly")


@pytest.mark.parametrize("offload_size", [None, 0], ids=["on the loop", "in a thread"])
def test_coding_that_raises_costs_the_coding_only(
    browse: Browse, caplog: pytest.LogCaptureFixture, offload_size: int | None
) -> None:
    """The client gets the content as it is, and the log says which coding is broken, and how."""
    browser = browse(text_app(Negotiated(FailingCoding(), offload_size=offload_size)))
    for path in ("/", "/cached", "/cached"):
        answer = browser.get(path, "deflate")
        assert (answer.status, answer.coding, answer.raw) == (200, "identity", TEXT)
        assert answer.headers["content-length"] == str(len(TEXT))
        assert answer.headers["vary"] == "Accept-Encoding"
    # A kept response is not tried again.
    assert failures(caplog) == ["The coding 'deflate' failed"] * 2
    assert "broken on purpose" in caplog.text


def test_coding_that_raises_is_told_to_the_application_s_logger(browse: Browse) -> None:
    """The compressor knows no application; while it is served, its logger gets the line."""
    app = text_app(Negotiated(FailingCoding()))
    told: list[str] = []
    logger = logging.getLogger("tests.compression.told")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    listener = Listener()
    logger.addHandler(listener)
    with override(app.container.logger, logger):
        assert browse(app).get("/", "deflate").raw == TEXT
    logger.removeHandler(listener)
    assert [line.partition(":")[0] for line in told if "coding" in line] == ["The coding 'deflate' failed"]


async def test_coding_that_raises_costs_the_middleware_no_response(caplog: pytest.LogCaptureFixture) -> None:
    """The same around any application."""
    told = await ask(
        CompressionMiddleware(bare(TEXT, etag='"x"'), Negotiated(FailingCoding())), accept_encoding="deflate"
    )
    assert (told.status, told.coding, told.raw, told.headers["etag"]) == (200, "identity", TEXT, '"x"')
    assert "The coding 'deflate' failed" in caplog.text


def test_thorough_variant_that_fails_is_logged_once(browse: Browse, caplog: pytest.LogCaptureFixture) -> None:
    """The quick variant goes on, and the failure is nobody's unhandled exception."""

    class FailsThoroughly(FailingCoding):
        def compress(self, content: bytes) -> bytes:
            return zlib.compress(content)

    browser = browse(hot_app(Negotiated(FailsThoroughly(), hot_after=1), prose=PROSE))
    for _ in range(5):
        assert browser.get("/prose", "deflate").coding == "deflate"
    eventually(lambda: "broken thoroughly" in caplog.text)
    assert failures(caplog) == ["The coding 'deflate' failed"]
