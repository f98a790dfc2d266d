"""Whatever a client sends, aeros neither fails nor tells how it is built."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quart import Response, jsonify, request, session

from aeros import WebServer

SECRET_MESSAGE = "the password is swordfish"


class Address(NamedTuple):
    """Where a server listens, and which of uvicorn's HTTP implementations it has."""

    host: str
    port: int
    implementation: str


@pytest.fixture(scope="module", params=["auto", "h11"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A running server with all kinds of routes, on each of uvicorn's HTTP implementations."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "note.txt").write_text("note " * 500)
    app = build_app(folder)
    with app.run_in_thread(http=str(request.param)) as server:
        yield Address(server.host, server.port, str(request.param))


def build_app(folder: Path) -> WebServer:
    """Returns the application that everything is thrown at."""
    app = WebServer(
        __name__, static_folder=str(folder), static_url_path="/static", global_headers={"X-Global": "1"}
    )
    app.secret_key = "tests only"

    @app.route("/")
    async def index() -> str:
        return "page " * 500

    @app.route("/cached")
    @app.cache(timeout=60)
    async def cached() -> str:
        return "cached " * 500

    @app.route("/varied/")
    @app.route("/varied/<path:rest>")
    @app.cache(timeout=60, query_string=True)
    async def varied(rest: str = "") -> tuple[str, dict[str, str]]:
        return f"varied {rest} " * 100, {"Vary": "Accept-Language, Cookie, X-Any, If-None-Match"}

    @app.route("/looks")
    @app.cache(timeout=60)
    async def looks() -> Response:
        return jsonify(
            session=dict(session),
            cookies=dict(request.cookies),
            range=str(request.range),
            mimetypes=str(request.accept_mimetypes),
            query=request.args.to_dict(flat=False),
            authorization=str(request.authorization),
        )

    @app.route("/upload", methods=["POST"])
    async def upload() -> str:
        return str(len(await request.get_data()))

    @app.route("/raises")
    async def raises() -> str:
        raise RuntimeError(SECRET_MESSAGE)

    @app.route("/cached-raises")
    @app.cache(timeout=60)
    async def cached_raises() -> str:
        raise RuntimeError(SECRET_MESSAGE)

    return app


class Reply(NamedTuple):
    """What a server sent back on one connection."""

    raw: bytes

    @property
    def status(self) -> int:
        """The status code; 0 where it sent nothing."""
        line = self.raw.partition(b"\r\n")[0].split(b" ")
        return int(line[1]) if len(line) > 1 else 0

    @property
    def body(self) -> bytes:
        """Everything after the fields."""
        return self.raw.partition(b"\r\n\r\n")[2]


def talk(address: Address, sent: bytes) -> Reply:
    """Sends bytes on a connection of its own, and returns all that comes back."""
    with socket.create_connection(address[:2], timeout=10) as connection:
        received = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass  # the server may hang up on what it refuses
    return Reply(received)


def ask(
    address: Address, target: bytes = b"/", *fields: tuple[bytes, bytes], method: bytes = b"GET"
) -> Reply:
    """Sends one request, as well-formed or not as its parts are."""
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    if not any(name.lower() == b"host" for name, _ in fields):
        lines.append(b"Host: localhost")
    lines += [b"%b: %b" % field for field in fields]
    return talk_until_complete(address, b"\r\n".join([*lines, b"Connection: close", b"", b""]))


def talk_until_complete(address: Address, sent: bytes) -> Reply:
    """Sends bytes and returns what comes back until the server hangs up."""
    with socket.create_connection(address[:2], timeout=10) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass  # the server may hang up on what it refuses
    return Reply(received)


def check(reply: Reply) -> None:
    """Checks that the server neither failed nor talked about itself."""
    assert 0 < reply.status < 500, reply.raw[:500]
    check_discretion(reply)


def check_discretion(reply: Reply) -> None:
    """Checks that a response shows nothing of the server's inside."""
    for secret in (b"Traceback", b"site-packages", b".py", SECRET_MESSAGE.encode(), b"RuntimeError"):
        assert secret not in reply.raw


PATHS = [b"/", b"/cached", b"/varied/a", b"/looks", b"/static/note.txt", b"/nothing"]

TARGETS = [
    b"http://localhost",
    b"http://localhost/",
    b"http://localhost/cached",
    b"http://other.test/cached?a=b",
    b"HTTP://LOCALHOST/cached",
    b"http://",
    b"http:///",
    b"//",
    b"//cached",
    b"///etc/passwd",
    b"/?",
    b"?a=b",
    b"/%00",
    b"/varied/%00",
    b"/static/%00",
    b"/static/note.txt%00",
    b"/%",
    b"/%z",
    b"/%zz",
    b"/varied/%zz%",
    b"/%ff",
    b"/varied/%c3%28",
    b"/varied/%f0%9f%92%a9",
    b"/varied/a%0d%0aX-Injected:%201",
    b"/varied/%2e%2e/%2e%2e",
    b"/static/../../etc/passwd",
    b"/static/%2e%2e/%2e%2e/etc/passwd",
    b"/static/..%2f..%2fetc%2fpasswd",
    b"/static/..%5c..%5cwindows",
    b"/varied/#fragment",
    b"/varied/;a=b",
    b"/varied/\\",
    b'/varied/{}<>|^`"',
    b"/varied/\xc3\xa4",
    b"/varied/\xff\xfe",
    b"/varied/?a=%zz&b=%ff&c=%00",
    b"/varied/?&&&===&&%3d",
    b"/looks?a=%zz&b=%ff&c=%00&\xff\xfe",
    b"/varied/?" + b"a=b&" * 8000,
    b"/varied/?q=" + b"x" * 30_000,
    b"/" + b"a" * 30_000,
    b"/varied/" + b"a/" * 10_000,
    b"*",
    b"localhost:80",
    b"\x00",
    b"",
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: repr(target[:40]))
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_odd_targets_never_make_it_fail(address: Address, target: bytes, method: bytes) -> None:
    """Empty, absolute, doubled, undecodable and very long targets are answered or refused, never 5xx."""
    length = (b"Content-Length", b"0")
    check(
        ask(address, target, length, method=method)
        if method == b"POST"
        else ask(address, target, method=method)
    )


def test_absolute_target_without_a_path_is_the_root(address: Address) -> None:
    """RFC 9110 §4.2.3: an empty path is "/"; httptools refuses such a target before aeros sees it."""
    assert ask(address, b"http://localhost").status == (400 if address.implementation == "auto" else 200)
    reply = ask(address, b"http://localhost/cached")
    assert reply.status == 200
    assert reply.body == b"cached " * 500


@pytest.mark.parametrize("target", [b"*", b"/", b"/cached", b"http://localhost"])
def test_options_is_answered(address: Address, target: bytes) -> None:
    """OPTIONS of the server as a whole, and of a route, is no error of the server."""
    check(ask(address, target, method=b"OPTIONS"))


def test_path_traversal_reads_no_other_file(address: Address) -> None:
    """No way of writing .. leads out of the static folder."""
    for target in (
        b"/static/../test_robustness.py",
        b"/static/%2e%2e/%2e%2e/etc/passwd",
        b"/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        b"/static//etc/passwd",
        b"/static/%2fetc%2fpasswd",
    ):
        reply = ask(address, target)
        assert 300 <= reply.status < 500
        assert b"root:" not in reply.body


def test_encoded_line_breaks_inject_no_field(address: Address) -> None:
    """A decoded CR LF of the path never comes back as the end of a field."""
    for target in (
        b"/varied/a%0d%0aX-Injected:%201",
        b"/varied%0d%0aX-Injected:%201",
        b"/static/%0d%0aX-Injected:1",
    ):
        reply = ask(address, target)
        head = reply.raw.partition(b"\r\n\r\n")[0]
        assert b"\r\nx-injected" not in head.lower()


VALUES: dict[bytes, list[bytes]] = {
    b"Host": [
        b"",
        b" ",
        b"a b",
        b"a:b:c",
        b"localhost:99999999",
        b"localhost:-1",
        b"[::1",
        b"[::1]",
        b"::1",
        b"\xff\xfe",
        b"\xc3\xa4.test",
        b"xn--\xff",
        b"..",
        b"a" * 5000,
        b"<script>",
        b"localhost/path",
        b"user@localhost",
        b"%00",
    ],
    b"Accept-Encoding": [
        b"",
        b",",
        b";",
        b"br;q=",
        b"br;q=1.0000",
        b"br;q=-1",
        b"br;q=1e9",
        b"br;q=nan",
        b"br;q=\xff",
        b"br;;;q=1",
        b'br;q="1"',
        b"\xff\xfe",
        b"*" * 1000,
        b"br," * 3000,
        b'"br',
        b"br\x01",
    ],
    b"If-None-Match": [
        b"",
        b"*",
        b"**",
        b'"',
        b"W/",
        b'W/"',
        b'"a", "',
        b'"\xff"',
        b'W/*, "a"',
        b'"a' * 2000,
        b",,,",
    ],
    b"If-Match": [b"", b"*", b'"', b"W/", b'"\xff"'],
    b"If-Range": [b"", b'"', b"Mon", b"\xff", b'W/"a"'],
    b"If-Modified-Since": [
        b"",
        b"yesterday",
        b"0",
        b"-1",
        b"Mon, 99 Foo 9999 99:99:99 GMT",
        b"Sat, 01 Jan 0000 00:00:00 GMT",
        b"Fri, 31 Dec 99999 23:59:59 GMT",
        b"Sat, 01 Jan 2022 00:00:00 +9999",
        b"\xff\xfe",
        b"9" * 1000,
    ],
    b"If-Unmodified-Since": [b"", b"never", b"\xff"],
    b"Range": [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=5-1",
        b"bytes=-0",
        b"bytes=-99999999999999999999",
        b"bytes=99999999999999999999-",
        b"bytes=0-,1-,2-",
        b"bytes=0-0," * 1000,
        b"items=0-1",
        b"bytes=\xff",
        b"bytes=0-0;",
        b"bytes=--1",
        b"bytes=\xb2-\xb3",
    ],
    b"Cookie": [
        b"",
        b"=",
        b";",
        b"session=",
        b"session=garbage",
        b"session=a.b.c",
        b"session=eyJhIjoxfQ.garbage.x",
        b"session=\xff\xfe",
        b'a="unclosed',
        b"a=b;" * 3000,
        b"\xff=\xff",
        b"session=.eJx" + b"A" * 3000,
    ],
    b"Authorization": [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic !!!",
        b"Basic =",
        b"Basic /////w==",
        b"Digest",
        b"Digest a",
        b'Digest username="',
        b"Bearer \xff",
        b"\xff\xfe",
        b":",
    ],
    b"Content-Length": [b"", b"-1", b"+1", b"0x1", b"1_0", b"a", b"1,2", b"\xb2", b"9" * 40, b"0", b"00"],
    b"Transfer-Encoding": [b"", b"gzip", b"chunked, chunked", b"\xff", b"identity"],
    b"Content-Type": [
        b"",
        b";",
        b"text",
        b"multipart/form-data",
        b"application/json; charset=\xff",
        b"a/b;c",
    ],
    b"Accept": [b"", b"*", b";;;", b"a/b;q=x", b"\xff"],
    b"Accept-Language": [b"", b"\xff\xfe", b"de" * 5000, b",,,", b";q="],
    b"Cache-Control": [b"", b"max-age=a", b'"', b"=", b"\xff", b"only-if-cached, no-store"],
    b"Connection": [b"", b"\xff", b"close, close", b"keep-alive, upgrade"],
    b"Upgrade": [b"websocket", b"h2c", b"\xff"],
    b"Expect": [b"100-continue", b"200-ok", b"\xff"],
    b"X-Forwarded-Proto": [b"", b"\xff", b"javascript", b"https, http", b"a b"],
    b"X-Forwarded-For": [b"", b"\xff", b"a,b,c", b"999.999.999.999", b"[::1", b","],
    b"X-Any": [b"\xff" * 100, b"\x80", b"\xc3\xa4", b"a" * 20_000, b"\t"],
}


@pytest.mark.parametrize("name", VALUES, ids=bytes.decode)
def test_odd_field_values_never_make_it_fail(address: Address, name: bytes) -> None:
    """Values that fit no grammar are ignored or refused on plain, cached, static and missing paths."""
    paths = set(PATHS)
    if name == b"Transfer-Encoding":
        # httptools hangs up while the request is being handled already, and Quart then may leave
        # a file to the garbage collector.
        paths.remove(b"/static/note.txt")
    for value in VALUES[name]:
        for path in sorted(paths):
            check(ask(address, path, (name, value)))


def test_same_field_twice_never_makes_it_fail(address: Address) -> None:
    """Repeated fields that should be single are no error of the server."""
    for name, values in VALUES.items():
        check(ask(address, b"/cached", (name, values[-1]), (name, values[0])))


def test_many_and_huge_fields_never_make_it_fail(address: Address) -> None:
    """Hundreds of fields, or one of hundreds of kilobytes, are served or refused."""
    check(ask(address, b"/cached", *((b"X-%d" % number, b"value") for number in range(500))))
    reply = ask(address, b"/cached", (b"X-Huge", b"a" * 300_000))
    assert reply.status < 500
    check_discretion(reply)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /cached HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbad\r\n",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nshort",
        b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nshort",
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_malformed_requests_are_refused_quietly(address: Address, sent: bytes) -> None:
    """What is no HTTP is refused or left unanswered, and the server serves on."""
    reply = talk(address, sent)
    assert reply.status < 500, reply.raw[:500]
    check_discretion(reply)
    assert ask(address, b"/").status == 200


def test_stored_responses_survive_all_of_it(address: Address) -> None:
    """After odd requests for it a cached page is still what its view made."""
    for name, values in VALUES.items():
        ask(address, b"/cached", (name, values[0]))
    reply = ask(address, b"/cached")
    assert (reply.status, reply.body) == (200, b"cached " * 500)


@pytest.mark.parametrize("path", [b"/raises", b"/cached-raises"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_exception_in_a_view_is_a_plain_500(address: Address, path: bytes, method: bytes) -> None:
    """Neither the traceback nor the message of an error gets to the client."""
    reply = ask(address, path, method=method)
    assert reply.status == 500
    check_discretion(reply)
    assert b"x-global: 1" in reply.raw.lower()
    if method == b"GET":
        assert b"Internal Server Error" in reply.body


FUZZED = [
    b"Accept-Encoding",
    b"If-None-Match",
    b"If-Modified-Since",
    b"Range",
    b"If-Range",
    b"Cookie",
    b"Authorization",
    b"Accept-Language",
    b"Cache-Control",
    b"X-Any",
    b"Host",
]

# All but what ends a line or is no part of any field value.
values = st.binary(max_size=60).map(lambda data: data.translate(None, b"\r\n\x00"))
likely = st.text(alphabet='abrgzipWq=;,."*/0123456789- \t\\', max_size=40).map(str.encode)
fields = st.lists(st.tuples(st.sampled_from(FUZZED), values | likely), max_size=4)
paths = st.sampled_from(PATHS) | st.text(alphabet="abc/%0f.?&=;", max_size=30).map(
    lambda text: b"/" + text.encode()
)


@given(path=paths, sent=fields)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_field_value_makes_it_fail(address: Address, path: bytes, sent: list[tuple[bytes, bytes]]) -> None:
    """Whatever the fields say, the answer is no 5xx and shows nothing of the inside."""
    check(ask(address, path, *sent))
