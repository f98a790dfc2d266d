"""Compression as clients meet it: the bytes on the wire, and the fields that describe them."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import brotli
import httpx
import pytest
import zstandard
from dependency_injector import providers
from quart import Response, request

from aeros import Br, Gzip, Negotiated, WebServer, Zstd
from aeros.compression import Base, Coding

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


def finish(client: httpx.Client) -> None:
    """Makes sure that the last request is over, its file closed: the next one has to wait for that."""
    with suppress(httpx.TransportError):  # a test may have left the connection broken
        client.get("/is-it-over")


Serve = Callable[[WebServer], Browser]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer) -> Browser:
            server = stack.enter_context(app.run_in_thread())
            client = stack.enter_context(httpx.Client(base_url=server.url))
            stack.callback(finish, client)
            return Browser(server.url, client)

        yield start


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


# Negotiation


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("br", "br"),
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0.5, gzip;q=0.4", "br"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0, br;q=0.1", "br"),
        ("br;q=0.0, gzip;q=0.000, zstd;q=0", "identity"),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("*;q=0", "identity"),
        ("gzip;q=0.5, identity", "identity"),
        ("identity;q=0", "identity"),
        ("identity;q=0, gzip", "gzip"),
        ("deflate, compress", "identity"),
        ("gzip;q=nonsense", "identity"),
        ("gzip;q=2, br;q=0.1", "br"),
        ("gzipped", "identity"),
        ("br ; q=1", "br"),
        (",,br,", "br"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/cached"])
def test_accept_encoding_decides(serve: Serve, path: str, accept: str | None, coding: str) -> None:
    """The client gets what its q-values ask for, decodable, and never what it refuses."""
    browser = serve(text_app())
    for _ in range(2):
        answer = browser.get(path, accept)
        assert answer.coding == coding
        assert answer.content == TEXT
        assert int(answer.headers["content-length"]) == len(answer.raw)
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        if coding != "identity":
            assert len(answer.raw) < len(TEXT)


def test_several_accept_encoding_lines_are_one(serve: Serve) -> None:
    """A refusal on a second line counts."""
    browser = serve(text_app())
    built = browser.client.build_request("GET", "/")
    built.headers = httpx.Headers(
        [("host", "localhost"), ("accept-encoding", "br"), ("accept-encoding", "zstd;q=0, gzip;q=0.5")]
    )
    assert browser.client.send(built).headers["content-encoding"] == "br"


# Vary and conditional requests


def test_vary_is_on_identity_304_head_and_404(serve: Serve) -> None:
    """Every response that could have been coded says that it depends on Accept-Encoding."""
    app = text_app()

    @app.errorhandler(404)
    async def missing(error: Exception) -> tuple[str, int]:
        return "nothing here " * 100, 404

    browser = serve(app)
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


def test_vary_of_the_view_is_kept(serve: Serve) -> None:
    """Accept-Encoding joins the fields that the view varies by, once."""
    app = WebServer(__name__)

    @app.route("/<vary>")
    async def view(vary: str) -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Vary": vary}

    browser = serve(app)
    vary = browser.get("/Cookie").headers["vary"]
    assert [name.strip() for name in vary.split(",")] == ["Cookie", "Accept-Encoding"]
    assert browser.get("/accept-encoding").headers["vary"] == "accept-encoding"
    assert browser.get("/*").headers["vary"] == "*"


def test_strong_etag_differs_by_coding_and_a_weak_one_is_kept(serve: Serve) -> None:
    """A strong tag stands for bytes, so each coding has its own; a weak one stands for the content."""
    app = WebServer(__name__)

    @app.route("/<kind>")
    async def view(kind: str) -> Response:
        response = Response(TEXT)
        response.set_etag("tag", weak=kind == "weak")
        return response

    browser = serve(app)
    tags = {
        coding: browser.get("/strong", coding).headers["etag"]
        for coding in ("identity", "br", "gzip", "zstd")
    }
    assert tags == {"identity": '"tag"', "br": '"tag-br"', "gzip": '"tag-gzip"', "zstd": '"tag-zstd"'}
    assert {browser.get("/weak", coding).headers["etag"] for coding in tags} == {'W/"tag"'}


def test_etag_of_a_coding_gets_304_for_that_coding(serve: Serve) -> None:
    """A client that sends back the tag that it got with br gets 304 while it asks for br."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        response = Response(TEXT)
        response.set_etag("tag")
        return response

    browser = serve(app)
    tag = browser.get("/", "br").headers["etag"]
    unchanged = browser.get("/", "br", if_none_match=tag)
    assert (unchanged.status, unchanged.raw, unchanged.headers["etag"]) == (304, b"", tag)
    assert "content-encoding" not in unchanged.headers
    assert browser.get("/", "gzip", if_none_match=tag).status == 200


# What is left alone


@pytest.mark.parametrize(("size", "coding"), [(0, "identity"), (499, "identity"), (500, "br"), (501, "br")])
def test_bodies_below_the_minimum_are_sent_as_they_are(serve: Serve, size: int, coding: str) -> None:
    """From 500 bytes on compressing is worth it."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> bytes:
        return b"a" * size

    answer = serve(app).get("/")
    assert (answer.coding, answer.content) == (coding, b"a" * size)
    assert answer.headers["vary"] == "Accept-Encoding"


def test_min_size_is_a_setting(serve: Serve) -> None:
    """min_size=1 compresses what gets smaller by it, and only that."""
    app = WebServer(__name__, compression=Br(min_size=1))

    @app.route("/<int:size>")
    async def view(size: int) -> bytes:
        return b"a" * size

    browser = serve(app)
    assert browser.get("/100").coding == "br"
    assert browser.get("/1").coding == "identity"


def test_body_that_would_grow_is_sent_as_it_is(serve: Serve) -> None:
    """Noise does not get smaller, cached or not."""
    noise = os.urandom(4000)
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        return Response(noise, content_type="text/plain")

    app.add_url_rule("/cached", "cached", app.cache(timeout=60)(index))
    browser = serve(app)
    for path in ("/", "/cached", "/cached"):
        answer = browser.get(path)
        assert (answer.coding, answer.raw) == ("identity", noise)


def test_body_that_is_coded_already_is_left_alone(serve: Serve) -> None:
    """A view's own coding is kept, whatever the client says that it likes."""
    coded = gzip.compress(TEXT)
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return coded, {"Content-Encoding": "gzip"}

    answer = serve(app).get("/", "br, gzip;q=0.1")
    assert (answer.coding, answer.raw) == ("gzip", coded)


@pytest.mark.parametrize("value", ["no-transform", "max-age=60, No-Transform"])
def test_no_transform_forbids_compression(serve: Serve, value: str) -> None:
    """A response that must not be transformed is not."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return TEXT, {"Cache-Control": value}

    assert serve(app).get("/").raw == TEXT


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
def test_media_type_decides(serve: Serve, content_type: str, coding: str) -> None:
    """Text and its like are compressed; what is compressed by nature and event streams are not."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        return Response(TEXT, content_type=content_type)

    answer = serve(app).get("/")
    assert (answer.coding, answer.content) == (coding, TEXT)
    assert ("vary" in answer.headers) is (coding == "br")
    assert answer.headers["content-type"] == content_type


def test_mimetypes_are_a_setting(serve: Serve) -> None:
    """What is worth compressing may be said, and then only that is."""
    app = WebServer(__name__, compression=Gzip(mimetypes=["application/x-own"]))

    @app.route("/<kind>")
    async def view(kind: str) -> Response:
        return Response(TEXT, content_type=f"application/{kind}")

    browser = serve(app)
    assert browser.get("/x-own", "gzip").coding == "gzip"
    assert browser.get("/json", "gzip").coding == "identity"


def test_parts_and_empty_answers_are_left_alone(serve: Serve, tmp_path: Path) -> None:
    """206, 204 and 304 are never compressed; a range is one of the identity body."""
    (tmp_path / "page.txt").write_bytes(TEXT)
    app = WebServer(__name__, static_folder=str(tmp_path), static_url_path="/static")

    @app.route("/empty")
    async def empty() -> tuple[str, int]:
        return "", 204

    browser = serve(app)
    part = browser.get("/static/page.txt", range="bytes=0-999")
    assert (part.status, part.coding, part.raw) == (206, "identity", TEXT[:1000])
    assert part.headers["content-range"] == f"bytes 0-999/{len(TEXT)}"
    assert browser.get("/empty").coding == "identity"


def test_digests_and_ranges_of_the_identity_body_are_dropped(serve: Serve) -> None:
    """Fields that describe the identity bytes do not go with coded ones, and stay with plain ones."""
    fields = {"Content-Digest": "sha-256=:AAAA:", "Repr-Digest": "sha-256=:AAAA:", "Accept-Ranges": "bytes"}
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return TEXT, fields

    browser = serve(app)
    names = {name.lower() for name in fields}
    assert not names & set(browser.get("/", "br").headers)
    assert names <= set(browser.get("/", "identity").headers)


# Streams


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("is_cached", [False, True], ids=["plain", "cached"])
def test_stream_is_delivered_chunk_by_chunk(serve: Serve, content_type: str, is_cached: bool) -> None:
    """Each chunk arrives while the next one does not exist yet, and nothing is coded."""
    received = threading.Event()
    app = WebServer(__name__)

    async def view() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"data: first\n\n" * 100
            # Were the chunk kept back, the client would never say that it has it.
            assert await asyncio.to_thread(received.wait, 10)
            yield b"data: second\n\n"

        return Response(chunks(), content_type=content_type)

    app.add_url_rule("/", "index", app.cache(timeout=60)(view) if is_cached else view)
    browser = serve(app)
    with browser.client.stream("GET", "/", headers={"accept-encoding": "br, gzip"}) as response:
        arriving = response.iter_raw()
        first = next(arriving)
        while len(first) < 1300:
            first += next(arriving)
        assert first == b"data: first\n\n" * 100
        received.set()
        assert b"".join(arriving) == b"data: second\n\n"
    assert "content-encoding" not in response.headers
    assert response.headers["content-type"] == content_type


def test_stream_with_a_declared_length_arrives_whole(serve: Serve) -> None:
    """A generator whose length is declared is passed on as it comes."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT[:1000]
            yield TEXT[1000:]

        return Response(chunks(), headers={"Content-Length": str(len(TEXT))}, content_type="text/plain")

    answer = serve(app).get("/")
    assert (answer.coding, answer.raw) == ("identity", TEXT)


def test_stream_that_ends_at_once_is_an_empty_body(serve: Serve) -> None:
    """A generator without chunks gives a complete, empty response."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for chunk in list[bytes]():
                yield chunk

        return Response(chunks(), content_type="text/plain")

    answer = serve(app).get("/")
    assert (answer.status, answer.raw) == (200, b"")


# Compressors


def test_compression_false_leaves_everything_alone(serve: Serve) -> None:
    """compression=False: no coding and no Vary, cached or not."""
    browser = serve(text_app(compression=False))
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
def test_level_is_used(serve: Serve, compression: Base, accept: str, expected: bytes) -> None:
    """The bytes are those of the library at this level."""
    assert serve(text_app(compression)).get("/", accept).raw == expected


def test_zstd_level_and_window_are_used(serve: Serve) -> None:
    """Zstd takes its level, and its frame can be decoded with the window that browsers allow."""
    prose = " ".join(str(number**3) for number in range(3000)).encode()
    raws: list[bytes] = []
    for level in (19, 1):
        app = WebServer(__name__, compression=Zstd(level=level))

        @app.route("/")
        async def index() -> bytes:
            return prose

        answer = serve(app).get("/", "zstd")
        assert answer.content == prose
        raws.append(answer.raw)
    assert raws[0] != raws[1]


def test_single_coding_offers_nothing_else(serve: Serve) -> None:
    """With Gzip() a client that takes br only gets identity."""
    browser = serve(text_app(Gzip()))
    assert browser.get("/", "br").coding == "identity"
    assert browser.get("/", "br, gzip;q=0.1").coding == "gzip"


def test_order_of_negotiated_decides_among_equals(serve: Serve) -> None:
    """The server's preference counts where the client has none, and only there."""
    browser = serve(text_app(Negotiated(Gzip(), Br())))
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


def test_any_object_with_name_and_compress_is_a_coding(serve: Serve) -> None:
    """A user's own coding is negotiated and applied like the others."""
    own = CountingCoding()
    assert isinstance(own, Coding)
    browser = serve(text_app(Negotiated(own, Gzip())))
    answer = browser.get("/", "deflate, gzip")
    assert (answer.coding, answer.content) == ("deflate", TEXT)
    assert browser.get("/", "gzip").coding == "gzip"
    assert own.calls == 1


def test_stored_response_is_compressed_once_for_each_coding(serve: Serve) -> None:
    """Hits reuse the variant; a response that is not cached is compressed each time."""
    own = CountingCoding()
    app = text_app(Negotiated(own))
    browser = serve(app)
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


def test_compressor_of_the_container_is_asked_at_each_request(serve: Serve) -> None:
    """An override made while serving is seen by the next request, and undone as well."""
    app = text_app()
    browser = serve(app)
    assert browser.get("/", "gzip, br").coding == "br"
    # What dependency-injector types of override() is not known in part.
    with app.container.compressor.override(providers.Object(Gzip())):  # pyright: ignore[reportUnknownMemberType]
        assert browser.get("/", "gzip, br").coding == "gzip"
    with app.container.compressor.override(providers.Object(None)):  # pyright: ignore[reportUnknownMemberType]
        assert browser.get("/", "gzip, br").coding == "identity"
    assert browser.get("/", "gzip, br").coding == "br"


# HEAD, static files, errors


@pytest.mark.parametrize("path", ["/", "/cached", "/static/page.txt"])
@pytest.mark.parametrize("accept", ["br", "identity"])
def test_head_shows_what_get_would(serve: Serve, tmp_path: Path, path: str, accept: str) -> None:
    """HEAD has the status and the fields of GET, the coded length included, and no body."""
    (tmp_path / "page.txt").write_bytes(TEXT)
    app = text_app()
    app.static_folder = str(tmp_path)
    browser = serve(app)
    browser.get(path, accept)
    got, head = browser.get(path, accept), browser.get(path, accept, method="HEAD")
    assert head.raw == b""
    assert head.status == got.status == 200
    ignored = {"date", "age", "cache-status"}
    assert {name: value for name, value in head.headers.items() if name not in ignored} == {
        name: value for name, value in got.headers.items() if name not in ignored
    }


def test_small_static_file_is_compressed(serve: Serve, tmp_path: Path) -> None:
    """A static text file is compressed, has its own tag for it, and 304 works with it."""
    (tmp_path / "style.css").write_bytes(TEXT)
    (tmp_path / "picture.png").write_bytes(TEXT)
    browser = serve(WebServer(__name__, static_folder=str(tmp_path), static_url_path="/static"))
    answer = browser.get("/static/style.css")
    assert (answer.coding, answer.content) == ("br", TEXT)
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["vary"] == "Accept-Encoding"
    plain = browser.get("/static/style.css", "identity")
    assert plain.raw == TEXT
    assert plain.headers["etag"] != answer.headers["etag"]
    for accept, tag in (("br", answer.headers["etag"]), ("identity", plain.headers["etag"])):
        unchanged = browser.get("/static/style.css", accept, if_none_match=tag)
        assert (unchanged.status, unchanged.raw) == (304, b"")
        assert unchanged.headers["vary"] == "Accept-Encoding"
    assert browser.get("/static/picture.png").coding == "identity"


def test_large_static_file_arrives_whole(serve: Serve, tmp_path: Path) -> None:
    """A file of many chunks comes to the client as it is on the disk."""
    content = TEXT * 100
    (tmp_path / "large.txt").write_bytes(content)
    answer = serve(WebServer(__name__, static_folder=str(tmp_path), static_url_path="/static")).get(
        "/static/large.txt"
    )
    assert answer.content == content


def test_error_pages_are_compressed(serve: Serve) -> None:
    """A long page for a status other than 200 is compressed as any other."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> tuple[bytes, int]:
        return TEXT, int(request.args["status"])

    browser = serve(app)
    for status in (201, 400, 404, 500, 503):
        answer = browser.get(f"/?status={status}")
        assert (answer.status, answer.coding, answer.content) == (status, "br", TEXT)
