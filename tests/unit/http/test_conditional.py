"""Whether a response is the one that the client has, and what a 304 says of it (RFC 9110 §13, §15.4.5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.conditional import entity_tag_in, is_match, text_of, with_known_tag, without_content
from aeros.http.etag import EntityTag
from aeros.types import RawHeaders

EARLIER = b"Sat, 29 Oct 1994 19:43:30 GMT"
DATE = b"Sat, 29 Oct 1994 19:43:31 GMT"
LATER = b"Sat, 29 Oct 1994 19:43:32 GMT"


def match(
    none_match: bytes | None = None,
    since: bytes | None = None,
    *,
    etag: bytes | None = b'"x-br"',
    modified: bytes | None = None,
    method: str = "GET",
    status: int = 200,
) -> bool:
    """Compares a request with these conditions and a response with these validators."""
    asked = [(b"if-none-match", none_match), (b"if-modified-since", since), (b"accept", b"*/*")]
    stated = [(b"etag", etag), (b"last-modified", modified), (b"content-type", b"text/plain")]
    return is_match(
        method,
        [(name, value) for name, value in asked if value is not None],
        status,
        [(name, value) for name, value in stated if value is not None],
    )


@pytest.mark.parametrize(
    ("none_match", "etag", "expected"),
    [
        (b'"x-br"', b'"x-br"', True),
        (b'W/"x-br"', b'"x-br"', True),
        (b'"x-br"', b'W/"x-br"', True),
        (b'"a", "x-br" , "b"', b'"x-br"', True),
        (b"*", b'"x-br"', True),
        (b"*", None, True),
        (b'"x"', b'"x-br"', False),
        (b'"x-br+"', b'"x-br"', False),
        (b'"X-BR"', b'"x-br"', False),
        (b"x-br", b'"x-br"', False),
        (b'"x-br', b'"x-br"', False),
        (b"", b'"x-br"', False),
        (b'"x-br"', None, False),
        (b'"x-br"', b"x-br", False),
        (b'"x\xe9"', b'"x\xe9"', True),
        (None, b'"x-br"', False),
    ],
)
def test_tags_are_compared_weakly(none_match: bytes | None, etag: bytes | None, expected: bool) -> None:
    """If-None-Match asks for the same content, not for the same bytes (RFC 9110 §13.1.2)."""
    assert match(none_match, etag=etag) is expected
    assert match(none_match, etag=etag, method="HEAD") is expected


@pytest.mark.parametrize(
    ("since", "modified", "expected"),
    [
        (DATE, DATE, True),
        (LATER, DATE, True),
        (EARLIER, DATE, False),
        (b"Sat Oct 29 19:43:31 1994", DATE, True),
        (b"yesterday", DATE, False),
        (DATE, b"yesterday", False),
        (DATE, None, False),
        (b"", DATE, False),
        (DATE + b", " + DATE, DATE, False),
    ],
)
def test_dates_are_compared_without_tags(since: bytes, modified: bytes | None, expected: bool) -> None:
    """If-Modified-Since counts where both dates are valid, whether or not there is a tag to offer."""
    assert match(None, since, modified=modified) is expected
    assert match(None, since, modified=modified, etag=None) is expected


def test_a_tag_in_the_request_makes_its_date_not_count() -> None:
    """If-None-Match has the last word, also where it is malformed (RFC 9110 §13.1.3)."""
    assert not match(b'"other"', LATER, modified=DATE)
    assert not match(b"malformed", LATER, modified=DATE)
    assert match(b'"x-br"', EARLIER, modified=DATE)


def test_several_lines_are_one_list() -> None:
    """A tag on a second line counts (RFC 9110 §5.3)."""
    asked: RawHeaders = [(b"if-none-match", b'"a"'), (b"if-none-match", b'"x"')]
    assert is_match("GET", asked, 200, [(b"etag", b'"x"')])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", ""])
def test_other_methods_have_no_304(method: str) -> None:
    """What they answer is no representation that a client could have (RFC 9110 §13.2.1)."""
    assert not match(b'"x-br"', LATER, modified=DATE, method=method)
    assert not match(b"*", method=method)


@pytest.mark.parametrize("status", [100, 201, 203, 204, 206, 301, 304, 404, 412, 500])
def test_other_statuses_have_no_304(status: int) -> None:
    """Without the condition it would not have been a 200 (RFC 9110 §13.2.1)."""
    assert not match(b'"x-br"', LATER, modified=DATE, status=status)
    assert not match(b"*", status=status)


def test_304_has_no_field_of_a_content() -> None:
    """What tells of the content goes, the rest stays in its order (RFC 9110 §15.4.5)."""
    kept: RawHeaders = [
        (b"etag", b'"x-br"'),
        (b"vary", b"Accept-Encoding"),
        (b"cache-control", b"max-age=60"),
        (b"content-location", b"/page"),
        (b"expires", DATE),
        (b"last-modified", DATE),
        (b"repr-digest", b"sha-256=:AAAA:"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-own", b"1"),
    ]
    gone: RawHeaders = [
        (name, b"1")
        for name in (
            b"content-type",
            b"content-length",
            b"content-encoding",
            b"content-language",
            b"content-range",
            b"content-digest",
            b"transfer-encoding",
            b"accept-ranges",
        )
    ]
    headers = [*gone, *kept, *gone]
    assert without_content(headers) == kept
    assert headers == [*gone, *kept, *gone]
    assert without_content([]) == []


@pytest.mark.parametrize(
    ("none_match", "etag", "expected"),
    [
        # The client has the coded stream, whose tag is the application's own, weakened.
        (b'W/"x"', b'"x"', b'W/"x"'),
        (b'"other", W/"x"', b'"x"', b'W/"x"'),
        # It has the identity body, or both, or says nothing of what it has.
        (b'"x"', b'"x"', b'"x"'),
        (b'"x", W/"x"', b'"x"', b'"x"'),
        (b'"other"', b'"x"', b'"x"'),
        (b"*", b'"x"', b'"x"'),
        (None, b'"x"', b'"x"'),
        # There is nothing to weaken.
        (b'W/"x"', b'W/"x"', b'W/"x"'),
        (b'W/"x"', b"x", b"x"),
        (b'W/"x"', None, None),
    ],
)
def test_304_has_the_tag_that_the_client_has(
    none_match: bytes | None, etag: bytes | None, expected: bytes | None
) -> None:
    """A strong one would stand for another stored response (RFC 9111 §4.3.4)."""
    asked: RawHeaders = [] if none_match is None else [(b"if-none-match", none_match)]
    before: RawHeaders = [] if etag is None else [(b"etag", etag)]
    after: RawHeaders = [] if expected is None else [(b"etag", expected)]
    assert with_known_tag(asked, [(b"a", b"1"), *before]) == [(b"a", b"1"), *after]


def test_entity_tag_is_read_from_the_fields() -> None:
    """The first line counts; what is no tag is none."""
    headers: RawHeaders = [(b"a", b'"a"'), (b"etag", b'W/"x"'), (b"etag", b'"y"')]
    assert entity_tag_in(headers) == EntityTag("x", weak=True)
    assert entity_tag_in([(b"etag", b"x")]) is None
    assert entity_tag_in([]) is None


def test_text_of_a_value_has_a_character_for_each_byte() -> None:
    """Fields are bytes, and latin-1 has one character for each; None stays None."""
    assert text_of(bytes(range(256))) == "".join(map(chr, range(256)))
    assert text_of(None) is None


FRAGMENTS = st.sampled_from([b'"x"', b"W/", b"*", b",", b" ", b'"', b"x", b"\\", b"\xff", DATE])


@settings(max_examples=200, deadline=None)
@given(
    none_match=st.none() | st.lists(FRAGMENTS, max_size=6).map(b"".join),
    since=st.none() | st.lists(FRAGMENTS, max_size=3).map(b"".join),
    etag=st.none() | st.lists(FRAGMENTS, max_size=3).map(b"".join),
)
def test_no_value_makes_it_raise(none_match: bytes | None, since: bytes | None, etag: bytes | None) -> None:
    """Whatever client and view state; and without a condition there is never a match."""
    matched = match(none_match, since, etag=etag, modified=DATE)
    assert not matched or none_match is not None or since is not None
