"""Heads of responses: what can not be sent is refused, also where its like came before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE

from aeros.serving.cycle import FieldLines, Head
from aeros.serving.outbox import Outbox
from aeros.types import RawHeaders
from tests.integration.wire import OWN, UVICORNS, Bare, listening

LASTING: Final = b"content-type"
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
Answer = Callable[[Any, Any, Any], Awaitable[None]]


def head(headers: RawHeaders, known: FieldLines) -> list[bytes]:
    """Returns the lines of a head."""
    return Head([], headers, known, None).lines


NAMES: Final = st.sampled_from(
    [b"Content-Type", b"vary", b"X-One", b"Date", b"x y", b"x\r\n", b"a:b", b"\xe4"]
)
VALUES: Final = st.sampled_from([b"a", b"", b"a\r\nx: y", b"a\0", b"a\tb", b"\xff", b"b" * 300])
FIELDS: Final = st.tuples(NAMES | st.binary(min_size=1, max_size=3), VALUES | st.binary(max_size=3))


@given(st.lists(st.lists(FIELDS, max_size=4), max_size=6))
def test_lines_are_those_of_uvicorn(heads: list[RawHeaders]) -> None:
    """Whatever names and values came before: the same lines, or the same refusal."""
    known = FieldLines()
    for headers in heads * 2:
        if any(HEADER_RE.search(name) or HEADER_VALUE_RE.search(value) for name, value in headers):
            with pytest.raises(RuntimeError, match="Invalid HTTP header"):
                head(headers, known)
        else:
            assert head(headers, known) == [b"%b: %b\r\n" % (name.lower(), value) for name, value in headers]


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\nx: y", b"\x7f", b"\x1f"])
@pytest.mark.parametrize("name", [LASTING, b"Content-Type", b"x-one"])
def test_control_characters_are_refused_after_good_fields(name: bytes, bad: bytes) -> None:
    """A name or a value that is remembered vouches for no other one."""
    known = FieldLines()
    for _ in range(2):
        assert head([(name, b"text/plain")], known) == [name.lower() + b": text/plain\r\n"]
        for value in (b"text/plain" + bad, bad + b"text/plain", bad):
            with pytest.raises(RuntimeError, match="value"):
                head([(name, value)], known)
        for other in (name + bad, bad + name, b"", b"x y", b"x:"):
            with pytest.raises(RuntimeError, match="name"):
                head([(other, b"text/plain")], known)
    assert all(bad not in line[:-2] for line in known.values())


def test_memory_of_lines_is_bounded() -> None:
    """A thousand lines and a thousand names, none of them long; what comes later is sent all the same."""
    known = FieldLines()
    for number in range(1_200):
        value, name = b"text/%d" % number, b"x-%d" % number
        assert head([(LASTING, value), (name, b"1")], known) == [
            b"content-type: %b\r\n" % value,
            b"%b: 1\r\n" % name,
        ]
    assert len(known) == 1_000
    assert len(cast(Any, known)._names) == 1_000
    fresh = FieldLines()
    for value in (b"x" * 256, b"x" * 257):
        assert head([(LASTING, value)], fresh) == [b"content-type: %b\r\n" % value]
    assert [len(value) for _, value in fresh] == [256]


def test_long_names_are_not_remembered() -> None:
    """A thousand of them would be as long as all that an application sends."""
    known = FieldLines()
    for size in (64, 65):
        assert head([(b"X" * size, b"1")], known) == [b"x" * size + b": 1\r\n"]
    assert [len(name) for name in cast(Any, known)._names] == [64]


def test_only_fields_that_mean_nothing_to_the_server_are_remembered() -> None:
    """Those that steer the connection are read each time, and so are those of one user."""
    known = FieldLines()
    headers = [
        (b"Content-Length", b"3"),
        (b"Transfer-Encoding", b"Chunked"),
        (b"Connection", b"x, Close"),
        (b"Date", b"then"),
        (b"Set-Cookie", b"a=b"),
        (b"Vary", b"Origin"),
    ]
    for _ in range(2):
        made = Head([], headers, known, b"date: now\r\n")
        assert (made.length, made.is_chunked, made.is_closing) == (3, True, True)
        assert b"date: now\r\n" not in made.lines
        assert list(known) == [(b"Vary", b"Origin")]
    plain = Head([b"first\r\n"], [(b"Connection", b"keep-alive")], known, b"date: now\r\n")
    assert (plain.length, plain.is_chunked, plain.is_closing) == (None, False, False)
    assert plain.lines == [b"first\r\n", b"connection: keep-alive\r\n", b"date: now\r\n"]


WHOLE: Final[dict[str, tuple[int, RawHeaders, bytes]]] = {
    "measured": (200, [(b"content-length", b"2")], b"ok"),
    "too short": (200, [(b"content-length", b"3")], b"ok"),
    "too long": (200, [(b"content-length", b"1")], b"ok"),
    "unmeasured": (200, [], b"ok"),
    "chunked": (200, [(b"transfer-encoding", b"chunked")], b"ok"),
    "none": (204, [], b""),
    "none with a body": (204, [], b"x"),
    "none, measured": (204, [(b"content-length", b"1")], b"x"),
    "unchanged": (304, [(b"etag", b'"a"')], b""),
    "unchanged with a body": (304, [], b"x"),
    "closing": (200, [(b"content-length", b"2"), (b"connection", b"close")], b"ok"),
    "large": (200, [(b"content-length", b"70000")], b"x" * 70_000),
}


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("name", WHOLE)
async def test_whole_response_says_what_its_messages_say(name: str, method: bytes) -> None:
    """At once or not, what comes is what uvicorn's own protocol makes of the two messages."""
    status, headers, body = WHOLE[name]

    async def messages(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def whole(_: Any, __: Any, send: Any) -> None:
        await send.whole(status, headers, body)

    async def at_once(_: Any, __: Any, send: Any) -> None:
        if not send.at_once(status, headers, body):
            assert not send.at_once(status, headers, body)
            await send.whole(status, headers, body)

    content = REQUEST.replace(b"GET", method)
    async with listening(Bare(messages), UVICORNS) as server:
        expected = await server.say([content, content])
    ways: list[Answer] = [messages, whole, at_once]
    for way in ways:
        async with listening(Bare(way), OWN) as server:
            assert await server.say([content, content]) == expected, way


async def test_nothing_is_sent_behind_a_response() -> None:
    """A second response, whole or in parts, is refused."""
    told: list[object] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-length", b"2")]
        assert send.at_once(200, fields, b"ok")
        told.append(send.at_once(200, fields, b"ok"))
        told.append(send.part_at_once(b"ok"))
        for message in ({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}):
            with pytest.raises(RuntimeError, match="after response already completed"):
                await send(message)
        told.append(await receive())

    async with listening(Bare(app), OWN) as server:
        said = await server.say([REQUEST])
    assert told == [False, False, {"type": "http.disconnect"}]
    assert said.content.count(b"HTTP/1.1") == 1
    assert said.is_kept


async def test_application_that_returns_something_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on uvicorn, with one line in the log."""

    class Returning(Bare):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            return cast(None, "a value")

    async def app(_: Any, __: Any, send: Any) -> None:
        await send.whole(200, [(b"content-length", b"2")], b"ok")

    async with listening(Returning(app), OWN) as server:
        said = await server.say([REQUEST])
    assert said.content.endswith(b"ok")
    assert not said.is_kept
    assert "should return None, but returned 'a value'" in caplog.text


# Responses on their way out


class Transport:
    """What is written to a connection."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_over = False

    def write(self, data: bytes) -> None:
        """Writes."""
        self.written.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        """Writes several."""
        self.written.append(b"".join(parts))

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self.is_over


class Loop:
    """What is to be called in the next turn."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> Any:
        """Takes note of a call."""
        self.calls.append(call)
        return Handle(self, call)


class Handle:
    """One of those calls."""

    def __init__(self, loop: Loop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call

    def cancel(self) -> None:
        """Takes it back, if it was not made."""
        if self._call in self._loop.calls:
            self._loop.calls.remove(self._call)


def test_responses_of_a_turn_are_held_up_to_a_bound() -> None:
    """What is held is written with the next turn, in order, or as soon as it is much."""
    outbox, loop, transport = Outbox(), cast(Any, Loop()), cast(Any, Transport())
    outbox.hold(loop, transport, b"1", b"a")
    outbox.hold(loop, transport, b"2", b"b" * 60_000)
    assert transport.written == []
    outbox.hold(loop, transport, b"3", b"c" * 6_000)
    assert [len(data) for data in transport.written] == [2, 60_001, 6_001]
    assert loop.calls == []
    outbox.hold(loop, transport, b"4", b"d")
    assert len(transport.written) == 3
    loop.calls.pop()()
    assert transport.written[3:] == [b"4d"]


def test_response_is_written_at_once_for_a_client_alone() -> None:
    """It is held only while another request of the same turn is being answered."""
    outbox, loop, transport = Outbox(), cast(Any, Loop()), cast(Any, Transport())
    outbox.expect()
    outbox.send(loop, transport, b"1", b"a")
    assert transport.written == [b"1a"]
    outbox.expect()
    outbox.expect()
    outbox.send(loop, transport, b"2", b"b")
    assert transport.written == [b"1a"]
    outbox.send(loop, transport, b"3", b"c")
    assert transport.written == [b"1a", b"2b", b"3c"]
    outbox.hold(loop, transport, b"4", b"d")
    transport.is_over = True
    outbox.flush()
    assert len(transport.written) == 3


def test_parts_of_a_stream_that_come_in_one_turn_are_one_write() -> None:
    """The first is written at once, the others at the end of the turn, each stream's in its order."""
    outbox, loop, one, other = Outbox(), cast(Any, Loop()), cast(Any, Transport()), cast(Any, Transport())
    outbox.write_part(loop, one, b"head")
    assert one.written == [b"head"]
    outbox.write_part(loop, one, b"1")
    outbox.write_part(loop, other, b"other")
    outbox.write_part(loop, one, b"2")
    assert (one.written, other.written) == ([b"head"], [b"other"])
    assert len(loop.calls) == 1
    loop.calls.pop()()
    assert (one.written, other.written) == ([b"head", b"12"], [b"other"])
    outbox.write_part(loop, one, b"3")
    assert one.written[2:] == [b"3"]


def test_parts_are_held_up_to_a_bound() -> None:
    """Of more, flow control has to know; large ones are not copied behind each other."""
    outbox, loop, transport = Outbox(), cast(Any, Loop()), cast(Any, Transport())
    for size in (1, 40_000, 20_000):
        outbox.write_part(loop, transport, b"x" * size)
    assert [len(data) for data in transport.written] == [1]
    outbox.write_part(loop, transport, b"x" * 10_000)
    assert [len(data) for data in transport.written] == [1, 70_000]
    assert loop.calls == []
    outbox.write_part(loop, transport, b"y")
    outbox.write_part(loop, transport, b"z")
    transport.is_over = True
    outbox.flush()
    assert len(transport.written) == 3


def test_parts_and_whole_responses_keep_their_order() -> None:
    """On one connection a stream can follow a whole response of the same turn, and the other way round."""
    outbox, loop, transport = Outbox(), cast(Any, Loop()), cast(Any, Transport())
    outbox.hold(loop, transport, b"1", b"a")
    outbox.write_part(loop, transport, b"2")
    outbox.write_part(loop, transport, b"3")
    outbox.hold(loop, transport, b"4", b"d")
    outbox.write_part(loop, transport, b"5")
    outbox.write_part(loop, transport, b"6")
    outbox.send(loop, transport, b"7", b"g")
    assert b"".join(transport.written) == b"1a234d567g"
