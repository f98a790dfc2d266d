"""Bodies that are sent while they are made: when their bytes arrive, and what a client that leaves frees."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import brotli
import httpx
import psutil
import pytest
import zstandard
from quart import (
    Response,
    request,
    send_file,  # pyright: ignore[reportUnknownVariableType]  # a bare PathLike in it
    session,
    stream_with_context,  # pyright: ignore[reportUnknownVariableType]
)

from aeros import Br, Gzip, Negotiated, WebServer, Zstd
from aeros.compression import Base, Coding, Encoder, StreamCoding
from aeros.compression.compressors import DEFAULT_MIMETYPES
from aeros.compression.static import LARGEST_KEPT_FILE
from tests.integration.browser import TEXT, Browse
from tests.integration.conftest import PATIENCE, eventually

MIB = 2**20
CODINGS = ("br", "gzip", "zstd")
EVENTS = "text/event-stream"
NEVER = 60.0  # seconds that no test lasts

Decode: TypeAlias = Callable[[bytes], bytes]
"""Takes the next bytes of a body; returns what they add to its content."""


def decoder(coding: str) -> Decode:
    """Returns an incremental decoder of the coding's reference library."""
    if coding == "br":
        return brotli.Decompressor().process
    if coding == "zstd":
        return zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj().decompress
    if coding == "identity":
        return bytes
    return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress


class Arrival:
    """The body of one response, as its bytes come in."""

    def __init__(self, response: httpx.Response) -> None:
        self.coding = response.headers.get("content-encoding", "identity")
        self._raw = response.iter_raw()
        self._decode = decoder(self.coding)

    def read(self, size: int) -> bytes:
        """Returns the next bytes of the content, as soon as there are as many."""
        content = b""
        while len(content) < size:
            content += self._decode(next(self._raw))
        return content

    def rest(self) -> bytes:
        """Returns the content up to its end."""
        return b"".join(self._decode(raw) for raw in self._raw)


@contextmanager
def arriving(url: str, accept: str, path: str = "/") -> Generator[Arrival]:
    """Asks for a stream on a connection of its own; begins when its head has come."""
    with (
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
        client.stream("GET", path, headers={"accept-encoding": accept}) as response,
    ):
        yield Arrival(response)


class Dialogue:
    """A stream that goes on only when its client says that it has all that came so far."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks
        self._heard = [threading.Event() for _ in chunks]

    def hear(self, number: int) -> None:
        """Says that the client has the chunk of this number."""
        self._heard[number].set()

    def __iter__(self) -> Iterator[bytes]:
        for chunk, heard in zip(self.chunks, self._heard, strict=True):
            yield chunk
            assert heard.wait(PATIENCE), "the client does not have what was sent"

    async def generator(self) -> AsyncIterator[bytes]:
        """Yields the chunks to an event loop."""
        for chunk, heard in zip(self.chunks, self._heard, strict=True):
            yield chunk
            assert await asyncio.to_thread(heard.wait, PATIENCE), "the client does not have what was sent"


class Chunks:
    """An object that can be iterated over, rather than a generator."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._dialogue.generator()


SOURCES: dict[str, Callable[[Dialogue], Any]] = {
    "generator": Dialogue.generator,
    "sync generator": iter,
    "iterable": Chunks,
}


def dialogue_app(
    dialogue: Dialogue,
    source: Callable[[Dialogue], Any] = Dialogue.generator,
    *,
    compression: Base | None = None,
    content_type: str = "text/plain; charset=utf-8",
    length: int | None = None,
) -> WebServer:
    """Returns an application that leads the dialogue on ``/``."""
    app = WebServer(__name__, compression=compression)

    @app.route("/")
    async def index() -> Response:
        return Response(source(dialogue), content_type=content_type, headers=declared(length))

    return app


def declared(length: int | None) -> dict[str, str]:
    """Returns the field that declares this length; None: no field."""
    return {} if length is None else {"Content-Length": str(length)}


class Watched:
    """A coding whose encoders are counted, and whose work is watched."""

    def __init__(self, coding: Coding) -> None:
        self.name = coding.name
        self._coding = coding
        self.encoders = weakref.WeakSet[WatchedEncoder]()
        self.begun = 0
        self.flushes = 0
        self.threads: set[int] = set()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` in the coding."""
        self.threads.add(threading.get_ident())
        return self._coding.compress(content)

    def encoder(self) -> Encoder:
        """Returns an encoder that tells what it does."""
        assert isinstance(self._coding, StreamCoding)
        encoder = WatchedEncoder(self, self._coding.encoder())
        self.encoders.add(encoder)
        self.begun += 1
        return encoder


class WatchedEncoder:
    """One stream through a watched coding."""

    def __init__(self, coding: Watched, encoder: Encoder) -> None:
        self._coding = coding
        self._encoder = encoder

    def encode(self, data: bytes) -> bytes:
        """Takes ``data``."""
        self._coding.threads.add(threading.get_ident())
        return self._encoder.encode(data)

    def flush(self) -> bytes:
        """Makes what was taken decodable."""
        self._coding.flushes += 1
        return self._encoder.flush()

    def finish(self) -> bytes:
        """Ends the stream."""
        return self._encoder.finish()


def watched(compressor: Base) -> Watched:
    """Watches the one coding of a compressor."""
    return Watched(compressor.codings[0])


def prose(size: int) -> bytes:
    """Returns text that compresses about as well as other text does."""
    return b"".join(b"%d squared is %d; " % (n, n * n) for n in range(size // 20))[:size]


# When bytes arrive


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("coding", [*CODINGS, "identity"])
def test_each_chunk_can_be_decoded_before_the_next_one_is_made(
    browse: Browse, coding: str, source: str
) -> None:
    """The client decodes a chunk while its view waits to hear that it could."""
    dialogue = Dialogue([b"chunk %d; " % number * 30 for number in range(6)])
    browser = browse(dialogue_app(dialogue, SOURCES[source]))
    with arriving(browser.url, coding) as arrival:
        assert arrival.coding == coding
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)
        assert arrival.rest() == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_large_chunk_can_be_decoded_before_the_next_one_is_made(browse: Browse, coding: str) -> None:
    """A chunk that a thread compresses arrives to its last byte."""
    large = prose(MIB)
    dialogue = Dialogue([b"small", large, b"small", large])
    with arriving(browse(dialogue_app(dialogue)).url, coding) as arrival:
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)
        assert arrival.rest() == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_stream_with_a_declared_length_is_coded_as_it_comes(browse: Browse, coding: str) -> None:
    """The length is that of the identity body: it is left out, and each chunk arrives by itself."""
    dialogue = Dialogue([TEXT[:1000], TEXT[1000:]])
    browser = browse(dialogue_app(dialogue, length=len(TEXT)))
    with arriving(browser.url, coding) as arrival:
        assert arrival.coding == coding
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)
        assert arrival.rest() == b""
    assert "content-length" not in browser.get("/", coding).headers
    plain = browser.get("/", "identity")
    assert (plain.raw, plain.headers["content-length"]) == (TEXT, str(len(TEXT)))


def test_declared_length_below_the_minimum_is_left_alone(browse: Browse) -> None:
    """A stream that says itself how little it is goes out as it is."""
    dialogue = Dialogue([b"small", b"thing"])
    browser = browse(dialogue_app(dialogue, length=10))
    with arriving(browser.url, "br") as arrival:
        assert arrival.coding == "identity"
        assert arrival.read(5) == b"small"
        dialogue.hear(0)
        assert arrival.read(5) == b"thing"
        dialogue.hear(1)


def quick_app(compressor: Base, heard: threading.Event) -> WebServer:
    """Returns an application whose stream makes fifty chunks at once and then waits for its client."""
    app = WebServer(__name__, compression=compressor)

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(50):
                yield b"%02d;" % number
            assert await asyncio.to_thread(heard.wait, PATIENCE), "the client has not heard all"
            yield b"end"

        return Response(chunks(), content_type="text/plain")

    return app


QUICK = b"".join(b"%02d;" % number for number in range(50))


@pytest.mark.parametrize("coding", CODINGS)
def test_waiting_bytes_are_sent_after_flush_seconds(browse: Browse, coding: str) -> None:
    """What waits for more is sent although nothing more comes: the view waits for its client."""
    heard = threading.Event()
    with arriving(browse(quick_app(Negotiated(), heard)).url, coding) as arrival:
        assert arrival.read(len(QUICK)) == QUICK
        heard.set()
        assert arrival.rest() == b"end"


def test_chunks_that_come_quickly_are_put_together(browse: Browse) -> None:
    """Within flush_seconds only the first chunk is flushed, so the rest gets smaller."""
    heard = threading.Event()
    heard.set()
    sizes: dict[float, int] = {}
    for seconds, flushes in ((NEVER, 1), (0, 51)):
        coding = watched(Gzip())
        browser = browse(quick_app(Negotiated(coding, flush_seconds=seconds), heard))
        answer = browser.get("/", "gzip")
        assert answer.content == QUICK + b"end"
        assert coding.flushes == flushes
        sizes[seconds] = len(answer.raw)
    assert sizes[NEVER] < sizes[0]


def test_flush_seconds_zero_sends_each_chunk_at_once(browse: Browse) -> None:
    """Without a wait each chunk arrives, whatever the timer would do."""
    dialogue = Dialogue([b"%d;" % number for number in range(5)])
    browser = browse(dialogue_app(dialogue, compression=Br(flush_seconds=0)))
    with arriving(browser.url, "br") as arrival:
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_head_of_a_stream_does_not_wait_for_its_first_chunk(browse: Browse, seconds: float) -> None:
    """The client has status and fields before the view makes anything: the view waits for that."""
    heard = threading.Event()
    app = WebServer(__name__, compression=Br(flush_seconds=seconds))

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            assert await asyncio.to_thread(heard.wait, PATIENCE), "the client has no head"
            yield TEXT

        return Response(chunks(), content_type="text/plain")

    with arriving(browse(app).url, "br") as arrival:
        assert arrival.coding == "br"
        heard.set()
        assert arrival.rest() == TEXT


# Event streams


EVENT_CHUNKS = [b"data: first\n\n", b"data: second\n\n", b": nothing yet\n\n"]


@pytest.mark.parametrize("compression", [None, Br(), Gzip(mimetypes=["text/*"])], ids=repr)
def test_event_stream_is_left_alone(browse: Browse, compression: Base | None) -> None:
    """Unless its type is named each event goes out untouched, and nothing varies."""
    dialogue = Dialogue(EVENT_CHUNKS)
    browser = browse(dialogue_app(dialogue, compression=compression, content_type=EVENTS))
    with arriving(browser.url, "br, gzip") as arrival:
        assert arrival.coding == "identity"
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)
    assert "vary" not in browser.get("/").headers


@pytest.mark.parametrize("coding", CODINGS)
def test_event_stream_that_is_named_is_flushed_at_each_event(browse: Browse, coding: str) -> None:
    """An event waits for no other one, however long other streams may."""
    compression = Negotiated(mimetypes=[*DEFAULT_MIMETYPES, EVENTS], flush_seconds=NEVER)
    dialogue = Dialogue(EVENT_CHUNKS)
    app = dialogue_app(dialogue, compression=compression, content_type=f"{EVENTS}; charset=utf-8")
    with arriving(browse(app).url, coding) as arrival:
        assert arrival.coding == coding
        for number, chunk in enumerate(dialogue.chunks):
            assert arrival.read(len(chunk)) == chunk
            dialogue.hear(number)
        assert arrival.rest() == b""


# Fields


def test_head_on_a_stream_shows_what_get_would(browse: Browse, tmp_path: Path) -> None:
    """HEAD has the fields of GET and no body, for a generator as for a file."""
    content = TEXT * 10
    (tmp_path / "page.txt").write_bytes(content)
    app = WebServer(__name__)

    @app.route("/generator")
    async def generator() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        return Response(chunks(), content_type="text/plain", headers={"ETag": '"tag"'})

    @app.route("/file")
    async def file() -> Response:
        return await send_file(tmp_path / "page.txt")

    browser = browse(app)
    ignored = {"date", "expires", "transfer-encoding"}
    for path in ("/generator", "/file"):
        for accept in ("br", "identity"):
            got, head = browser.get(path, accept), browser.get(path, accept, method="HEAD")
            assert (got.status, got.coding, got.content) == (200, accept, content)
            assert (head.status, head.coding, head.raw) == (200, accept, b"")
            assert {name: value for name, value in head.headers.items() if name not in ignored} == {
                name: value for name, value in got.headers.items() if name not in ignored
            }


def test_coded_stream_has_a_weak_tag_and_gets_304_with_it(browse: Browse, tmp_path: Path) -> None:
    """The bytes of a coded stream depend on time, so its tag is weak; it is good for a 304 all the same."""
    (tmp_path / "page.txt").write_bytes(TEXT * 10)
    app = WebServer(__name__)

    @app.route("/generator")
    async def generator() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT

        response = Response(chunks(), content_type="text/plain")
        response.set_etag("tag")
        if request.if_none_match.contains_weak("tag"):
            response = Response(status=304, headers=response.headers)
        return response

    @app.route("/file")
    async def file() -> Response:
        return await send_file(tmp_path / "page.txt", conditional=True)

    browser = browse(app)
    for path in ("/generator", "/file"):
        plain, coded = browser.get(path, "identity"), browser.get(path, "br")
        assert coded.coding == "br"
        assert coded.headers["etag"] == f"W/{plain.headers['etag']}"
        assert not plain.headers["etag"].startswith("W/")
        for accept, answer in (("br", coded), ("identity", plain)):
            tag = answer.headers["etag"]
            unchanged = browser.get(path, accept, if_none_match=tag)
            assert (unchanged.status, unchanged.raw) == (304, b"")
            assert unchanged.headers["etag"] == tag  # a cache updates only what it has under this tag
            assert unchanged.headers["vary"] == "Accept-Encoding"
            assert "content-encoding" not in unchanged.headers


def test_part_of_a_file_is_one_of_the_identity_body(browse: Browse, tmp_path: Path) -> None:
    """A range counts in the file, whatever codings the client takes, and says that the whole varies."""
    (tmp_path / "page.txt").write_bytes(TEXT)
    (tmp_path / "page.png").write_bytes(TEXT)
    app = WebServer(__name__)

    @app.route("/files/<name>")
    async def file(name: str) -> Response:
        return await send_file(tmp_path / name, conditional=True)

    browser = browse(app)
    part = browser.get("/files/page.txt", "br, gzip, zstd", range="bytes=10-2009")
    assert (part.status, part.coding, part.raw) == (206, "identity", TEXT[10:2010])
    assert part.headers["content-range"] == f"bytes 10-2009/{len(TEXT)}"
    assert part.headers["vary"] == "Accept-Encoding"
    assert "vary" not in browser.get("/files/page.png", range="bytes=0-9").headers
    # A weak tag stands for no bytes, so it can not vouch for a part.
    tag = browser.get("/files/page.txt", "br").headers["etag"]
    whole = browser.get("/files/page.txt", "br", range="bytes=10-2009", if_range=tag)
    assert (whole.status, whole.coding, whole.content) == (200, "br", TEXT)


@pytest.mark.parametrize("coding", CODINGS)
def test_files_are_streams(browse: Browse, tmp_path: Path, coding: str) -> None:
    """What send_file sends and a static file that is too large to keep are coded on their way."""
    content = prose(LARGEST_KEPT_FILE + 1)
    (tmp_path / "page.txt").write_bytes(content)
    app = WebServer(__name__, static_folder=str(tmp_path), static_url_path="/static")

    @app.route("/file")
    async def file() -> Response:
        return await send_file(tmp_path / "page.txt")

    browser = browse(app)
    for path in ("/file", "/static/page.txt"):
        answer = browser.get(path, coding)
        assert (answer.status, answer.coding) == (200, coding)
        assert answer.content == content
        assert len(answer.raw) < len(content)
        assert "content-length" not in answer.headers
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["etag"].startswith("W/")


def test_stream_on_a_cached_route_is_coded_and_not_stored(browse: Browse) -> None:
    """Each client gets a stream of its own, from a view that runs each time."""
    runs: list[str] = []
    app = WebServer(__name__)

    @app.route("/")
    @app.cache(timeout=60)
    async def index() -> Response:
        runs.append("run")

        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT

        return Response(chunks(), content_type="text/plain")

    browser = browse(app)
    for accept in ("br", "br", "gzip", "identity"):
        answer = browser.get("/", accept)
        assert (answer.coding, answer.content) == (accept, TEXT)
        assert "age" not in answer.headers
        assert answer.headers["vary"] == "Accept-Encoding"
        assert "fwd=" in answer.headers["cache-status"]
    assert len(runs) == 4
    assert app.cache_stats().stores == 0


def test_stream_after_a_look_at_the_session_is_not_coded(browse: Browse) -> None:
    """What the session decided must not be guessed from lengths, not in a stream either (BREACH)."""
    app = WebServer(__name__)
    app.secret_key = "secret"

    @app.route("/<when>")
    async def index(when: str) -> Response:
        if when == "before":
            session.get("user")

        async def chunks() -> AsyncIterator[bytes]:
            if when == "first":
                session.get("user")
            yield TEXT

        return Response(cast(Any, stream_with_context)(chunks)(), content_type="text/plain")

    browser = browse(app)
    for when, coding in (("never", "br"), ("before", "identity"), ("first", "identity")):
        answer = browser.get(f"/{when}")
        assert (answer.coding, answer.content) == (coding, TEXT)
        assert "Accept-Encoding" in answer.headers["vary"]


# Ends


@pytest.mark.parametrize("accept", [*CODINGS, "identity"])
@pytest.mark.parametrize("length", [None, len(TEXT) * 2], ids=["unknown length", "declared length"])
def test_view_that_raises_in_mid_stream_breaks_the_response(
    browse: Browse, accept: str, length: int | None
) -> None:
    """The client can tell that something is missing: the response does not end well."""
    app = WebServer(__name__)

    @app.route("/<int:sent>")
    async def index(sent: int) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(sent):
                yield TEXT
            raise ValueError("broken view")

        return Response(chunks(), content_type="text/plain", headers=declared(length))

    browser = browse(app)
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get("/1", accept)
    answer = browser.get("/0", accept)  # nothing was sent: there is still time for a proper error
    assert (answer.status, answer.content) == (500, b"Internal Server Error")


@pytest.mark.parametrize("coding", CODINGS)
def test_coded_part_of_a_broken_stream_has_no_end(browse: Browse, coding: str) -> None:
    """The coded bytes themselves are unfinished, for clients that do not look at the framing."""
    app = WebServer(__name__)

    @app.route("/")
    async def index() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT
            raise ValueError("broken view")

        return Response(chunks(), content_type="text/plain")

    raws: list[bytes] = []
    with httpx.stream("GET", browse(app).url, headers={"accept-encoding": coding}) as response:
        arrived = response.iter_raw()
        with pytest.raises(httpx.RemoteProtocolError):
            raws.extend(arrived)
    assert decoder(coding)(b"".join(raws)) == TEXT
    assert not is_finished(coding, b"".join(raws))


def is_finished(coding: str, raw: bytes) -> bool:
    """Tells whether coded bytes are all that there are."""
    if coding == "br":
        decompressor = brotli.Decompressor()
        decompressor.process(raw)
        return decompressor.is_finished()
    unzipped = (
        zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj()
        if coding == "zstd"
        else zlib.decompressobj(16 + zlib.MAX_WBITS)
    )
    unzipped.decompress(raw)
    return unzipped.eof


@pytest.mark.parametrize("coding", CODINGS)
def test_stream_without_chunks_is_a_complete_empty_body(browse: Browse, coding: str) -> None:
    """A stream may end before it has begun, also when its head was sent already."""
    heard = threading.Event()
    app = WebServer(__name__)

    @app.route("/<when>")
    async def index(when: str) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            if when == "late":
                assert await asyncio.to_thread(heard.wait, PATIENCE)
            for chunk in list[bytes]():
                yield chunk

        return Response(chunks(), content_type="text/plain")

    browser = browse(app)
    answer = browser.get("/at-once", coding)
    assert (answer.status, answer.raw) == (200, b"")
    with arriving(browser.url, coding, "/late") as arrival:
        assert arrival.coding == coding
        heard.set()
        assert arrival.rest() == b""


# Large bodies


@pytest.mark.parametrize("compressor", [Br, Gzip, Zstd], ids=lambda kind: kind.__name__)
def test_large_bodies_and_chunks_are_compressed_off_the_loop(
    browse: Browse, compressor: Callable[[], Base]
) -> None:
    """Ten megabytes occupy a thread, whole or as one chunk; a small chunk is not worth the way."""
    content = prose(10 * MIB)
    coding, loops = watched(compressor()), set[int]()
    app = WebServer(__name__, compression=Negotiated(coding))

    @app.route("/whole")
    async def whole() -> Response:
        loops.add(threading.get_ident())
        return Response(content, content_type="text/plain")

    @app.route("/streamed/<int:size>")
    async def streamed(size: int) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        return Response(chunks(), content_type="text/plain")

    browser = browse(app)
    for path, is_small in (
        ("/whole", False),
        ("/streamed/65536", False),
        (f"/streamed/{MIB * 10}", False),
        ("/streamed/32768", True),
    ):
        coding.threads.clear()
        answer = browser.get(path, coding.name)
        assert (answer.coding, answer.content == content) == (coding.name, True)
        assert len(answer.raw) < len(content)
        assert bool(coding.threads & loops) is is_small
        assert coding.threads


# Clients that leave


# In a process of its own: what other tests have left to the allocator would be measured with it.
STREAMING = """
import asyncio, ctypes, gc, os, sys
import coverage, psutil
from quart import Response, send_file
from aeros import Br, WebServer

if (measuring := coverage.Coverage.current()) is not None:
    measuring.stop()  # it keeps more of each line that runs for the first time
noise = os.urandom(65536)
app = WebServer(__name__, "127.0.0.1", 0, compression=Br())

@app.route("/generated")
async def generated():
    async def chunks():
        for _ in range(1600):
            yield noise
    return Response(chunks(), content_type="text/plain")

@app.route("/idle")
async def idle():
    async def chunks():
        for _ in range(2):
            yield b"something"
        await asyncio.Event().wait()
    return Response(chunks(), content_type="text/plain")

@app.route("/file")
async def file():
    return await send_file(sys.argv[1])

@app.route("/memory")
async def memory():
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what was freed otherwise
    if trim is not None:
        trim(0)
    return {"tasks": len(asyncio.all_tasks()), "bytes": psutil.Process().memory_info().rss}

if __name__ == "__main__":
    app.run_server(soft_limit=None, hard_limit=None, access_log_to_std=False)
"""


class Office:
    """An application whose streams of 100 MB nobody reads to the end, and what it has in use."""

    def __init__(self, folder: Path, compressor: Base) -> None:
        self.coding = watched(compressor)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.file = folder / "sparse.txt"
        with self.file.open("wb") as sparse:
            sparse.truncate(100 * MIB)
        noise = os.urandom(65536)
        app = self.app = WebServer(__name__, compression=Negotiated(self.coding))

        @app.before_request
        async def note_loop() -> None:
            self._loop = asyncio.get_running_loop()

        @app.route("/generated")
        async def generated() -> Response:
            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(100 * MIB // len(noise)):
                    yield noise

            return Response(chunks(), content_type="text/plain")

        @app.route("/idle")
        async def idle() -> Response:
            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(2):
                    yield b"something"
                await asyncio.Event().wait()

            return Response(chunks(), content_type="text/plain")

        @app.route("/file")
        async def file() -> Response:
            return await send_file(self.file)

    def tasks(self) -> int:
        """Returns how many tasks the server's loop has."""
        assert self._loop is not None

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self._loop).result(PATIENCE)

    def in_use(self) -> tuple[int, int, int]:
        """Returns how many tasks, encoders and open files there are."""
        return self.tasks(), len(self.coding.encoders), psutil.Process().num_fds()

    def is_back_to(self, before: tuple[int, int, int]) -> bool:
        """Tells whether nothing more is in use; what earlier tests left to the collector may be gone."""
        gc.collect()  # a cancellation's traceback may be a circle of frames, which is no leak
        return all(now <= then for now, then in zip(self.in_use(), before, strict=True))

    def has_file_open(self) -> bool:
        """Tells whether the file is open anywhere in this process."""
        return any(opened.path == str(self.file) for opened in psutil.Process().open_files())


class Leaver:
    """A client that reads the beginning of a stream, little at a time."""

    def __init__(self, url: str, path: str, coding: str) -> None:
        address = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(PATIENCE)
        self._socket.connect((address.hostname, address.port))
        asked = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept-Encoding: {coding}\r\n\r\n"
        self._socket.sendall(asked.encode())
        received = b""
        while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
            received += self._socket.recv(1024)
        assert f"content-encoding: {coding}".encode() in received

    def leave(self, *, abruptly: bool) -> None:
        """Closes the connection, as a closed tab does or as a broken line does."""
        if abruptly:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@pytest.mark.parametrize("compressor", [Br, Gzip, Zstd], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("path", ["/generated", "/file", "/idle"])
@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
def test_client_that_leaves_a_stream_frees_everything(
    browse: Browse, tmp_path: Path, compressor: Callable[[], Base], path: str, abruptly: bool
) -> None:
    """No task, encoder or open file of a stream of 100 MB outlives its client."""
    office = Office(tmp_path, compressor())
    browser = browse(office.app)
    browser.get("/nothing", connection="close")
    before = office.in_use()
    client = Leaver(browser.url, path, office.coding.name)
    # What a test that could not fail would not see.
    assert office.tasks() > before[0]
    assert office.coding.begun == len(office.coding.encoders) == 1
    client.leave(abruptly=abruptly)
    eventually(lambda: office.is_back_to(before))
    assert not office.has_file_open()


@pytest.mark.parametrize("path", ["/generated", "/file", "/idle"])
def test_200_clients_that_leave_leave_nothing_behind(browse: Browse, tmp_path: Path, path: str) -> None:
    """After 200 streams of 100 MB there are the tasks, files and encoders of before."""
    office = Office(tmp_path, Br())
    browser = browse(office.app)
    browser.get("/nothing", connection="close")
    before = office.in_use()
    for _ in range(4):
        crowd(browser.url, path, 50)
        eventually(lambda: office.is_back_to(before))
    assert office.coding.begun == 200
    assert not office.has_file_open()
    assert browser.get("/nothing").status == 404


def crowd(url: str, path: str, size: int) -> None:
    """Has clients begin to read a stream, all at once, and leave."""
    clients = [Leaver(url, path, "br") for _ in range(size)]
    for number, client in enumerate(clients):
        client.leave(abruptly=number % 2 == 0)


@pytest.mark.parametrize("path", ["/generated", "/file", "/idle"])
def test_200_clients_that_leave_take_their_memory_along(tmp_path: Path, path: str) -> None:
    """After 200 streams more a process is not larger by what their encoders took."""
    script, sparse = tmp_path / "streaming.py", tmp_path / "sparse.txt"
    script.write_text(STREAMING)
    with sparse.open("wb") as file:
        file.truncate(100 * MIB)
    process = subprocess.Popen(
        [sys.executable, str(script), str(sparse)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert found is not None
        url = found[0]

        def ask() -> dict[str, int]:
            return cast("dict[str, int]", httpx.get(f"{url}/memory", timeout=PATIENCE).json())

        quiet = ask()["tasks"]

        def held() -> int:
            eventually(lambda: ask()["tasks"] <= quiet)
            return ask()["bytes"]

        for _ in range(2):
            crowd(url, path, 50)  # what the first ones need stays: threads, and pools
        before = held()
        for _ in range(4):
            crowd(url, path, 50)
        # 200 encoders would take 100 MiB or more.
        assert held() - before < 48 * MIB
    finally:
        process.kill()
        process.communicate()


# Clients that decode by themselves


@pytest.mark.parametrize("compressor", [Br, Gzip, Zstd], ids=lambda kind: kind.__name__)
def test_httpx_decodes_everything(browse: Browse, tmp_path: Path, compressor: Callable[..., Base]) -> None:
    """A client with decoders of its own reads all kinds of responses, and says what it was sent."""
    large = prose(10 * MIB)
    (tmp_path / "style.css").write_bytes(TEXT)
    (tmp_path / "large.css").write_bytes(large)
    app = WebServer(
        __name__,
        compression=compressor(mimetypes=[*DEFAULT_MIMETYPES, EVENTS]),
        static_folder=str(tmp_path),
        static_url_path="/static",
    )

    @app.route("/whole")
    async def whole() -> Response:
        return Response(TEXT, content_type="text/plain")

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> Response:
        return Response(TEXT, content_type="text/plain")

    @app.route("/large")
    async def ten_megabytes() -> Response:
        return Response(large, content_type="text/plain")

    @app.route("/streamed")
    async def streamed() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(large), 100_000):
                yield large[start : start + 100_000]

        return Response(chunks(), content_type="text/plain")

    @app.route("/events")
    async def events() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"data: %s\n\n" % TEXT

        return Response(chunks(), content_type=EVENTS)

    expected = {
        "/whole": TEXT,
        "/cached": TEXT,
        "/cached?": TEXT,
        "/static/style.css": TEXT,
        "/static/large.css": large,
        "/large": large,
        "/streamed": large,
        "/events": b"data: %s\n\n" % TEXT * 100,
    }
    name = compressor().codings[0].name
    client = browse(app).client
    assert client.headers["accept-encoding"] == "gzip, deflate, br, zstd"
    for path, content in expected.items():
        response = client.get(path)
        assert (response.status_code, response.headers["content-encoding"]) == (200, name)
        assert response.content == content
        assert response.num_bytes_downloaded < len(content)
        with client.stream("GET", path) as response:
            assert b"".join(response.iter_bytes()) == content
    assert app.cache_stats().hits >= 3
