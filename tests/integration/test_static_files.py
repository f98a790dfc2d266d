"""Static files: the codings that lie beside them, those that are kept, their conditions and parts."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import os
import threading
import zlib
from pathlib import Path
from urllib.parse import quote

import brotli
import httpx
import pytest
import zstandard
from quart import Blueprint, Response

from aeros import Br, Cache, Gzip, Negotiated, WebServer
from aeros.compression import Base
from aeros.compression.static import LARGEST_KEPT_FILE
from tests.integration.browser import TEXT, Answer, Browse, Browser, failures

# The best that each coding can do, which is not what is made while a server runs.
READY = {
    ".br": brotli.compress(TEXT, quality=11),
    ".gz": gzip.compress(TEXT, 9, mtime=1),
    ".zst": zstandard.ZstdCompressor(level=19).compress(TEXT),
}
CODINGS = {".br": "br", ".gz": "gzip", ".zst": "zstd"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A static folder with one style sheet, an hour old."""
    folder = tmp_path / "site"
    folder.mkdir()
    put(folder / "style.css", TEXT)
    return folder


def put(path: Path, content: bytes, *, age: int = 3600) -> None:
    """Writes a file that was last modified so many seconds ago, on a whole second."""
    path.write_bytes(content)
    moment = int(path.stat().st_mtime) - age
    os.utime(path, (moment, moment))


def site_app(site: Path, compression: Base | None = None, cache: Cache | None = None) -> WebServer:
    """Returns an application that serves the folder under ``/static``."""
    return WebServer(
        __name__, compression=compression, cache=cache, static_folder=str(site), static_url_path="/static"
    )


class CountingCoding:
    """A coding that counts its calls and may be held."""

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


def assert_plain(answer: Answer, content: bytes = TEXT) -> None:
    """The file came as it lies in the folder."""
    assert (answer.status, answer.coding, answer.raw) == (200, "identity", content)
    assert answer.headers["content-length"] == str(len(content))


# What lies ready


@pytest.mark.parametrize("extension", READY)
@pytest.mark.parametrize("seconds", [0, 1], ids=["as old", "newer"])
def test_coding_beside_the_file_is_sent(browse: Browse, site: Path, extension: str, seconds: int) -> None:
    """One that is not older than the file goes out as it is, with the type of the file."""
    put(site / f"style.css{extension}", READY[extension])
    os.utime(site / "style.css", (1000, 1000))
    os.utime(site / f"style.css{extension}", (1000 + seconds, 1000 + seconds))
    answer = browse(site_app(site)).get("/static/style.css", CODINGS[extension])
    assert (answer.status, answer.coding, answer.raw) == (200, CODINGS[extension], READY[extension])
    assert answer.headers["content-length"] == str(len(answer.raw))
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "last-modified" in answer.headers


def test_coding_that_is_older_than_the_file_is_ignored(browse: Browse, site: Path) -> None:
    """The file was changed and the other one forgotten: then it is made here."""
    put(site / "style.css.br", brotli.compress(b"old"))
    os.utime(site / "style.css", ns=(10**18 + 1, 10**18 + 1))
    os.utime(site / "style.css.br", ns=(10**18, 10**18))
    answer = browse(site_app(site)).get("/static/style.css")
    assert (answer.coding, answer.content) == ("br", TEXT)


def test_what_is_no_file_beside_the_file_is_ignored(browse: Browse, site: Path) -> None:
    """A folder or a link to nowhere is no coding of anything."""
    (site / "style.css.br").mkdir()
    (site / "style.css.gz").symlink_to(site / "nowhere")
    browser = browse(site_app(site))
    for coding in ("br", "gzip"):
        answer = browser.get("/static/style.css", coding)
        assert (answer.coding, answer.content) == (coding, TEXT)


def test_link_to_a_file_beside_the_file_is_sent(browse: Browse, site: Path) -> None:
    """A build may keep its output elsewhere."""
    put(site.parent / "built.br", READY[".br"])
    (site / "style.css.br").symlink_to(site.parent / "built.br")
    assert browse(site_app(site)).get("/static/style.css").raw == READY[".br"]


@pytest.mark.parametrize(
    ("accept", "extension"),
    [
        ("gzip, deflate, br, zstd", ".zst"),
        ("gzip, deflate, br", ".br"),
        ("gzip", ".gz"),
        ("x-gzip", ".gz"),
        ("br;q=0.1, gzip", ".gz"),
        ("*", ".zst"),
        ("*, zstd;q=0", ".br"),
        ("zstd;q=0, br;q=0, gzip;q=0.001", ".gz"),
        (None, ""),
        ("", ""),
        ("identity", ""),
        ("deflate", ""),
        ("br;q=0.5, identity", ""),
        ("*;q=0", ""),
        ("br;q=nonsense", ""),
    ],
)
def test_client_decides_among_what_lies_ready(
    browse: Browse, site: Path, accept: str | None, extension: str
) -> None:
    """Its weights count first, then the server's order; who accepts nothing gets the file."""
    for each, content in READY.items():
        put(site / f"style.css{each}", content)
    answer = browse(site_app(site)).get("/static/style.css", accept)
    assert answer.raw == (READY[extension] if extension else TEXT)
    assert answer.coding == CODINGS.get(extension, "identity")
    assert answer.headers["vary"] == "Accept-Encoding"


def test_coding_that_lies_ready_goes_before_a_better_one_that_does_not(browse: Browse, site: Path) -> None:
    """Of what the client accepts the work of the build is taken; who does not accept it gets another."""
    put(site / "style.css.gz", READY[".gz"])
    own = CountingCoding()
    browser = browse(site_app(site, Negotiated(own, Gzip())))
    assert browser.get("/static/style.css", "deflate, gzip").raw == READY[".gz"]
    assert own.calls == 0
    assert browser.get("/static/style.css", "deflate").coding == "deflate"


def test_only_codings_on_offer_are_looked_for(browse: Browse, site: Path) -> None:
    """A compressor of one coding sends no other; one of the user's own has its name for extension."""
    for each, content in READY.items():
        put(site / f"style.css{each}", content)
    put(site / "style.css.deflate", zlib.compress(TEXT, 9))
    browser = browse(site_app(site, Gzip()))
    assert_plain(browser.get("/static/style.css", "br, zstd"))
    assert browser.get("/static/style.css", "br, gzip").raw == READY[".gz"]
    own = browse(site_app(site, Negotiated(CountingCoding())))
    assert own.get("/static/style.css", "deflate").raw == zlib.compress(TEXT, 9)


def test_coding_that_lies_ready_needs_no_compressible_type(browse: Browse, site: Path) -> None:
    """Who put it there knows that it is worth it: any type, and any size."""
    put(site / "model.bin", TEXT)
    put(site / "model.bin.br", READY[".br"])
    put(site / "tiny.css", b"a{}")
    put(site / "tiny.css.br", brotli.compress(b"a{}"))
    put(site / "other.bin", TEXT)
    browser = browse(site_app(site))
    model = browser.get("/static/model.bin")
    assert (model.coding, model.raw) == ("br", READY[".br"])
    assert model.headers["content-type"] == "application/octet-stream"
    assert browser.get("/static/tiny.css").coding == "br"
    plain = browser.get("/static/model.bin", "identity")
    assert_plain(plain)
    assert plain.headers["vary"] == "Accept-Encoding"
    assert "vary" not in browser.get("/static/other.bin").headers


def test_ready_codings_have_strong_tags_of_their_own(browse: Browse, site: Path) -> None:
    """Each coding has its tag, which gets 304 for it and for no other, and changes with its file."""
    for each, content in READY.items():
        put(site / f"style.css{each}", content)
    browser = browse(site_app(site))
    accepted = ("br", "gzip", "zstd", "identity")
    tags = {accept: browser.get("/static/style.css", accept).headers["etag"] for accept in accepted}
    assert len(set(tags.values())) == 4
    assert not any(tag.startswith("W/") for tag in tags.values())
    for accept in accepted:
        for stated, tag in tags.items():
            answer = browser.get("/static/style.css", accept, if_none_match=tag)
            assert answer.status == (304 if accept == stated else 200)
            if answer.status == 304:
                assert (answer.raw, answer.headers["etag"]) == (b"", tag)
                assert answer.headers["vary"] == "Accept-Encoding"
                assert not {"content-encoding", "content-length"} & set(answer.headers)
    put(site / "style.css.br", brotli.compress(TEXT, quality=5), age=10)
    assert browser.get("/static/style.css", "br", if_none_match=tags["br"]).status == 200


@pytest.mark.parametrize("is_ready", [True, False], ids=["ready", "made"])
@pytest.mark.parametrize("accept", ["br", "gzip", "zstd", "identity"])
def test_each_coding_has_conditions_and_parts(
    browse: Browse, site: Path, accept: str, is_ready: bool
) -> None:
    """Range counts in the bytes that are sent, If-Range and If-Modified-Since work for each coding."""
    if is_ready:
        for each, content in READY.items():
            put(site / f"style.css{each}", content)
    browser = browse(site_app(site))
    path = "/static/style.css"
    whole = browser.get(path, accept)
    assert (whole.coding, whole.content) == (accept, TEXT)
    tag, modified = whole.headers["etag"], whole.headers["last-modified"]
    size = len(whole.raw)
    for asked, begin, end in (("0-9", 0, 10), ("5-", 5, size), ("-7", size - 7, size), ("0-99999", 0, size)):
        part = browser.get(path, accept, range=f"bytes={asked}")
        assert (part.status, part.coding, part.raw) == (206, accept, whole.raw[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - begin)
        assert (part.headers["etag"], part.headers["vary"]) == (tag, "Accept-Encoding")
    assert browser.get(path, accept, range="bytes=0-9", if_range=tag).status == 206
    assert browser.get(path, accept, range="bytes=0-9", if_range='"other"').raw == whole.raw
    beyond = browser.get(path, accept, range=f"bytes={size}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    for ignored in ("bytes=0-4, 6-9", "bytes=9-0", "lines=0-9", "bytes=a-b", "nonsense"):
        assert browser.get(path, accept, range=ignored).raw == whole.raw
    assert browser.get(path, accept, range="bytes=0-9", if_none_match=tag).status == 304
    assert browser.get(path, accept, "HEAD", range="bytes=0-9").status == 200
    assert browser.get(path, accept, range="bytes=0-9", if_range=modified).status == 206
    assert browser.get(path, accept, if_none_match=tag).status == 304
    assert browser.get(path, accept, if_modified_since=modified).status == 304
    assert browser.get(path, accept, if_modified_since="Sun, 06 Nov 1994 08:49:37 GMT").status == 200
    other = browser.get(path, "gzip" if accept != "gzip" else "br").headers["etag"]
    assert browser.get(path, accept, range="bytes=0-9", if_range=other).raw == whole.raw


@pytest.mark.parametrize("is_ready", [True, False], ids=["ready", "made"])
@pytest.mark.parametrize("accept", ["br", "gzip", "identity"])
def test_head_shows_what_get_would(browse: Browse, site: Path, accept: str, is_ready: bool) -> None:
    """HEAD has the status and the fields of GET, and no body."""
    if is_ready:
        put(site / "style.css.br", READY[".br"])
    browser = browse(site_app(site))
    got, head = (browser.get("/static/style.css", accept, method) for method in ("GET", "HEAD"))
    assert (head.status, head.raw) == (200, b"")
    changing = {"date", "expires"}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing
    }


# What is made here


def test_file_is_compressed_once_and_kept(browse: Browse, site: Path) -> None:
    """Whatever is asked of it, as long as it stays the same."""
    own = CountingCoding()
    browser = browse(site_app(site, Negotiated(own)))
    answers = [browser.get("/static/style.css", "deflate") for _ in range(3)]
    for answer in answers:
        assert (answer.coding, answer.content) == ("deflate", TEXT)
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
    browser.get("/static/style.css", "deflate", "HEAD")
    browser.get("/static/style.css", "deflate", range="bytes=0-9")
    browser.get("/static/style.css", "deflate", if_none_match=answers[0].headers["etag"])
    assert_plain(browser.get("/static/style.css", "identity"))
    assert own.calls == 1


def test_file_that_changes_is_compressed_anew(browse: Browse, site: Path) -> None:
    """The old bytes and the old tag are never sent again, also where the size is the same."""
    own = CountingCoding()
    browser = browse(site_app(site, Negotiated(own)))
    old = browser.get("/static/style.css", "deflate")
    put(site / "style.css", TEXT.replace(b"fox", b"cat"), age=1800)
    new = browser.get("/static/style.css", "deflate", if_none_match=old.headers["etag"])
    assert (new.status, new.content) == (200, TEXT.replace(b"fox", b"cat"))
    assert new.headers["etag"] != old.headers["etag"]
    assert own.calls == 2


async def test_kept_codings_go_with_the_cache(site: Path) -> None:
    """Clearing the cache, and evicting everything, frees them as well."""
    own = CountingCoding()
    app = site_app(site, Negotiated(own))
    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers={"accept-encoding": "deflate"}) as client:

            async def ask() -> None:
                assert (await client.get("/static/style.css")).content == TEXT

            await ask()
            app.clear_cache()
            await ask()
            await ask()
            assert own.calls == 2
            await app.evict(everything=True)
            await ask()
            assert own.calls == 3


def test_kept_codings_take_no_more_room_than_the_cache_has(browse: Browse, site: Path) -> None:
    """They count among its bytes; without room they are made each time."""
    own = CountingCoding()
    noise = os.urandom(40_000).hex().encode()
    put(site / "large.txt", noise)
    app = site_app(site, Negotiated(own), Cache(max_bytes=20_000))
    browser = browse(app)
    for _ in range(2):
        assert browser.get("/static/large.txt", "deflate").content == noise
    assert own.calls == 2
    for _ in range(2):
        browser.get("/static/style.css", "deflate")
    assert own.calls == 3
    assert 0 < app.cache_stats().bytes < 20_000


async def test_simultaneous_requests_share_one_compression(site: Path) -> None:
    """While a coding is made everybody waits for the same one, off the event loop."""
    own = CountingCoding()
    own.may_end.clear()
    app = site_app(site, Negotiated(own, offload_size=0))
    arrived = threading.Semaphore(0)

    @app.before_request
    async def arrive() -> None:
        arrived.release()

    @app.route("/other")
    async def other() -> str:
        return "other"

    with app.run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url, headers={"accept-encoding": "deflate"}) as client:
            requests = [asyncio.create_task(client.get("/static/style.css")) for _ in range(8)]
            for _ in requests:
                assert await asyncio.to_thread(arrived.acquire, timeout=10)
            assert await asyncio.to_thread(own.began.wait, 10)
            assert (await client.get("/other")).text == "other"
            own.may_end.set()
            responses = await asyncio.gather(*requests)
    assert {(response.status_code, response.content) for response in responses} == {(200, TEXT)}
    assert own.calls == 1
    assert "aeros-server" not in own.threads


def test_file_that_gains_nothing_is_tried_once_and_sent_as_it_is(browse: Browse, site: Path) -> None:
    """With its length, its strong tag and its parts: it is no stream that somebody compresses again."""
    own = CountingCoding()
    noise = os.urandom(100_000)
    put(site / "noise.txt", noise)
    browser = browse(site_app(site, Negotiated(own, Br())))
    answers = [browser.get("/static/noise.txt", "deflate, br;q=0.1") for _ in range(3)]
    for answer in answers:
        assert_plain(answer, noise)
        assert not answer.headers["etag"].startswith("W/")
        assert answer.headers["vary"] == "Accept-Encoding"
        assert "content-encoding" not in answer.headers
    assert own.calls == 1
    assert_plain(browser.get("/static/noise.txt", "br"), noise)
    assert browser.get("/static/noise.txt", "br", if_none_match=answers[0].headers["etag"]).status == 304


def test_coding_that_raises_costs_the_coding_only(
    browse: Browse, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is sent as it is, and the log says once what is broken."""

    class FailingCoding(CountingCoding):
        def compress(self, content: bytes) -> bytes:
            raise RuntimeError("broken on purpose")

    browser = browse(site_app(site, Negotiated(FailingCoding())))
    for _ in range(3):
        assert_plain(browser.get("/static/style.css", "deflate"))
    assert failures(caplog) == ["The coding 'deflate' failed"]


def test_what_does_not_compress_well_is_left_alone(browse: Browse, site: Path) -> None:
    """Other media types, and what is below min_size, are not compressed here."""
    own = CountingCoding()
    put(site / "picture.png", TEXT)
    put(site / "small.css", TEXT[:499])
    put(site / "empty.css", b"")
    put(site / "enough.css", TEXT[:500])
    browser = browse(site_app(site, Negotiated(own)))
    assert_plain(browser.get("/static/picture.png", "deflate"))
    assert "vary" not in browser.get("/static/picture.png", "deflate").headers
    for name, content in (("small", TEXT[:499]), ("empty", b"")):
        answer = browser.get(f"/static/{name}.css", "deflate")
        assert_plain(answer, content)
        assert answer.headers["vary"] == "Accept-Encoding"
    assert own.calls == 0
    assert browser.get("/static/enough.css", "deflate").coding == "deflate"


def test_files_without_compression_are_sent_as_they_are(browse: Browse, site: Path) -> None:
    """compression=False: no coding, not even one that lies ready, and no Vary."""
    for each, content in READY.items():
        put(site / f"style.css{each}", content)
    app = WebServer(__name__, compression=False, static_folder=str(site), static_url_path="/static")
    browser = browse(app)
    answer = browser.get("/static/style.css", "br, gzip, zstd")
    assert_plain(answer)
    assert "vary" not in answer.headers
    part = browser.get("/static/style.css", "br", range="bytes=0-9")
    assert (part.status, part.raw) == (206, TEXT[:10])
    assert browser.get("/static/style.css", "br", if_none_match=answer.headers["etag"]).status == 304


def test_file_up_to_the_largest_is_kept_and_a_larger_one_is_a_stream(browse: Browse, site: Path) -> None:
    """A stream has a weak tag and no length; parts and HEAD of it are those of the file."""
    for name, size in (("kept.txt", LARGEST_KEPT_FILE), ("large.txt", LARGEST_KEPT_FILE + 1)):
        with (site / name).open("wb") as file:
            file.truncate(size)
    app = site_app(site)
    browser = browse(app)
    kept = browser.get("/static/kept.txt")
    assert (kept.coding, len(kept.content)) == ("br", LARGEST_KEPT_FILE)
    assert kept.headers["etag"].endswith('-br"')
    assert kept.headers["content-length"] == str(len(kept.raw))

    large = browser.get("/static/large.txt")
    assert (large.coding, len(large.content)) == ("br", LARGEST_KEPT_FILE + 1)
    tag = large.headers["etag"]
    assert tag.startswith("W/")
    assert not {"content-length", "accept-ranges"} & set(large.headers)
    assert browser.get("/static/large.txt", method="HEAD").headers["etag"] == tag
    unchanged = browser.get("/static/large.txt", if_none_match=tag)
    assert (unchanged.status, unchanged.headers["etag"]) == (304, tag)
    part = browser.get("/static/large.txt", range="bytes=10-19")
    assert (part.status, part.coding, part.raw) == (206, "identity", b"\0" * 10)
    assert part.headers["etag"] == tag.removeprefix("W/")
    assert part.headers["vary"] == large.headers["vary"] == "Accept-Encoding"


def test_large_file_with_a_coding_beside_it_is_no_stream(browse: Browse, site: Path) -> None:
    """What lies ready is sent at any size."""
    content = b"\0" * (LARGEST_KEPT_FILE + 1)
    put(site / "large.txt", content)
    put(site / "large.txt.br", brotli.compress(content, quality=1))
    answer = browse(site_app(site)).get("/static/large.txt")
    assert (answer.coding, answer.content == content) == ("br", True)
    assert "content-length" in answer.headers


# Whose files


class OwnBlueprint(Blueprint):
    """A blueprint that sends its files in its own way."""

    async def send_static_file(self, filename: str) -> Response:
        """Answers with the name."""
        return Response(f"own {filename}", content_type="text/plain")


def test_files_of_blueprints_are_sent_in_the_same_way(browse: Browse, site: Path) -> None:
    """Each has its own folder: one file of the same name is not taken for another."""
    own = CountingCoding()
    admin = site.parent / "admin"
    admin.mkdir()
    put(admin / "style.css", TEXT.upper())
    app = site_app(site, Negotiated(own, Br()))
    for name in ("admin", "again"):
        blueprint = Blueprint(
            name, __name__, static_folder=str(admin), static_url_path="/files", url_prefix=f"/{name}"
        )
        app.register_blueprint(blueprint)
    browser = browse(app)
    for _ in range(2):
        assert browser.get("/admin/files/style.css", "deflate").content == TEXT.upper()
        assert browser.get("/static/style.css", "deflate").content == TEXT
        assert browser.get("/again/files/style.css", "deflate").content == TEXT.upper()
    assert own.calls == 2
    put(admin / "style.css.br", brotli.compress(TEXT.upper(), quality=11))
    answer = browser.get("/admin/files/style.css", "br")
    assert answer.raw == brotli.compress(TEXT.upper(), quality=11)
    assert browser.get("/admin/files/style.css", "br", if_none_match=answer.headers["etag"]).status == 304
    assert browser.get("/admin/files/style.css", "br", range="bytes=0-4").raw == answer.raw[:5]


def test_files_of_nested_blueprints_are_sent_in_the_same_way(browse: Browse, site: Path) -> None:
    """A blueprint within a blueprint is one as well."""
    own = CountingCoding()
    app = WebServer(__name__, compression=Negotiated(own))
    inner = Blueprint("inner", __name__, static_folder=str(site), static_url_path="/files", url_prefix="/in")
    outer = Blueprint("outer", __name__, url_prefix="/out")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    browser = browse(app)
    assert [browser.get("/out/in/files/style.css", "deflate").content for _ in range(2)] == [TEXT] * 2
    assert own.calls == 1


def test_blueprint_that_sends_its_files_itself_goes_on_to(browse: Browse, site: Path) -> None:
    """A method of a subclass, and one that was put in its place, are left alone."""
    app = WebServer(__name__)
    app.register_blueprint(
        OwnBlueprint("own", __name__, static_folder=str(site), static_url_path="/own-files")
    )
    browser = browse(app)
    assert browser.get("/own-files/style.css").raw == b"own style.css"


def test_application_that_sends_its_files_itself_goes_on_to(browse: Browse, site: Path) -> None:
    """A subclass may override the method, and call it."""

    class OwnServer(WebServer):
        async def send_static_file(self, filename: str) -> Response:
            response = await super().send_static_file(filename)
            response.headers["X-Own"] = filename
            return response

    app = OwnServer(__name__, static_folder=str(site), static_url_path="/static")
    answer = browse(app).get("/static/style.css")
    assert (answer.coding, answer.content, answer.headers["x-own"]) == ("br", TEXT, "style.css")


# What is not there


def fetch(browser: Browser, target: str) -> tuple[int, bytes]:
    """Asks for a target as it is: clients resolve the dots in one."""
    host, _, port = browser.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.putrequest("GET", target, skip_accept_encoding=True)
        connection.putheader("Accept-Encoding", "gzip")
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "target",
    [
        "/static/nothing.css",
        "/static/",
        "/static/folder",
        "/static/style.css/x",
        "/static/../secret.txt",
        "/static/folder/../../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/%2E%2E%2Fsecret.txt",
        "/static/..%5csecret.txt",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/....//secret.txt",
        "/static/secret.txt%00.css",
        "/static/style.css%00",
        f"/static/{'x' * 300}.css",
    ],
)
def test_what_is_not_in_the_folder_is_not_found(browse: Browse, site: Path, target: str) -> None:
    """Neither by dots, however they are spelt, nor by an absolute path; a coding beside it is no help."""
    (site / "folder").mkdir()
    put(site.parent / "secret.txt", b"SECRET" * 100)
    put(site.parent / "secret.txt.gz", gzip.compress(b"SECRET" * 100))
    put(site / "folder.gz", READY[".gz"])
    put(site / "nothing.css.gz", READY[".gz"])
    app = site_app(site)
    status, body = fetch(browse(app), target)
    assert status in (308, 404)  # 308: two slashes are one, and what that names is not there either
    assert b"SECRET" not in body
    assert b"root:" not in body
    assert READY[".gz"] not in body


@pytest.mark.parametrize("name", ["with space.css", "grün.css", "100%.css", "a+b&c=d.css", ".hidden.css"])
def test_names_are_those_of_the_decoded_url(browse: Browse, site: Path, name: str) -> None:
    """Percent-encoding is undone once."""
    own = CountingCoding()
    put(site / name, TEXT)
    put(site / f"{name}.br", READY[".br"])
    browser = browse(site_app(site, Negotiated(own, Br())))
    path = f"/static/{quote(name)}"
    assert browser.get(path, "br").raw == READY[".br"]
    assert [browser.get(path, "deflate").content for _ in range(2)] == [TEXT] * 2
    assert own.calls == 1


def test_file_in_a_subfolder_is_found(browse: Browse, site: Path) -> None:
    """What lies beside it is looked for in the same place."""
    (site / "deep" / "er").mkdir(parents=True)
    put(site / "deep" / "er" / "style.css", TEXT)
    put(site / "deep" / "er" / "style.css.gz", READY[".gz"])
    assert browse(site_app(site)).get("/static/deep/er/style.css", "gzip").raw == READY[".gz"]


def test_file_that_is_deleted_is_gone(browse: Browse, site: Path) -> None:
    """Neither what is kept nor what lies beside it stands for it; without a coding it is sent itself."""
    browser = browse(site_app(site))
    assert browser.get("/static/style.css", "gzip").status == 200
    put(site / "style.css.br", READY[".br"])
    assert browser.get("/static/style.css", "br").raw == READY[".br"]
    (site / "style.css.br").unlink()
    answer = browser.get("/static/style.css", "br")
    assert (answer.status, answer.content, answer.raw != READY[".br"]) == (200, TEXT, True)
    put(site / "style.css.br", READY[".br"])
    (site / "style.css").unlink()
    for accept in ("gzip", "br", "identity"):
        assert browser.get("/static/style.css", accept).status == 404
    put(site / "style.css", TEXT.lower(), age=0)
    assert browser.get("/static/style.css", "gzip").content == TEXT.lower()


def test_other_methods_are_not_allowed(browse: Browse, site: Path) -> None:
    """Files are read, not written."""
    answer = browse(site_app(site)).get("/static/style.css", method="POST")
    assert answer.status == 405
    assert {method.strip() for method in answer.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}


def test_application_without_a_static_folder_sends_none(browse: Browse) -> None:
    """static_folder=None registers nothing."""
    assert browse(WebServer(__name__, static_folder=None)).get("/static/style.css").status == 404
